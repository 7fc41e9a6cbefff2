/*
 * An admin begins to act in an account's name: by its address, and with the
 * reason that stays in the audit log.  The pages then say so at their top.
 */

import { call, act } from "/kit/api.js";
import { start, t, el, note, field, showError, mustSignIn }
    from "/kit/page.js";

/* The search finds parts; here it is this address or nobody. */
async function find(email) {
    const { data } = await call("GET",
        `/users?limit=100&search=${encodeURIComponent(email)}`);

    return data.find((u) => u.email === email.toLowerCase());
}

start("acting.title", async (main) => {
    if (mustSignIn()) {
        return;
    }
    const fields = {
        email: field("email", t("acting.whose"), { type: "email",
            required: true, maxlength: 254, autocomplete: "off" }),
        reason: field("reason", t("acting.reason"), { required: true,
            minlength: 3, maxlength: 300, autocomplete: "off" },
        t("acting.hint")),
    };
    const slot = el("div");
    const submit = el("button", { type: "submit", class: "wide" },
        t("acting.begin"));
    const node = el("form", { class: "card" },
        el("h1", {}, t("acting.title")), Object.values(fields), slot, submit);

    node.addEventListener("submit", async (e) => {
        e.preventDefault();
        submit.disabled = true;
        slot.replaceChildren();
        try {
            const user = await find(fields.email.input.value.trim());
            if (!user) {
                slot.replaceChildren(note("bad", t("error.NOT_FOUND")));
                return;
            }
            const { data } = await call("POST",
                `/admin/users/${user.id}/impersonate`, { body: {
                    reason: fields.reason.input.value.trim() } });
            act(data);
            location.assign("/account/");
        } catch (err) {
            showError(err, slot, fields);
        } finally {
            submit.disabled = false;
        }
    });
    main.append(node);
    fields.email.input.focus();
}, { narrow: true });
