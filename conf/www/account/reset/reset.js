/*
 * A new password, by the link of a mail.  The token stands behind the # of
 * the address, so that it never reaches a server's log.
 */

import { call, forget } from "/kit/api.js";
import { start, t, el, note, field, showError } from "/kit/page.js";

start("password.new", async (main) => {
    const token = new URLSearchParams(location.hash.slice(1)).get("token");
    const fields = {
        newPassword: field("newPassword", t("password.new"), {
            type: "password", required: true, minlength: 8, maxlength: 128,
            autocomplete: "new-password" }, t("password.hint")),
    };
    const slot = el("div");
    const submit = el("button", { type: "submit", class: "wide" }, t("save"));
    const node = el("form", { class: "card" },
        el("h1", {}, t("password.new")), fields.newPassword, slot, submit);

    history.replaceState(null, "", location.pathname);
    if (!token) {
        slot.replaceChildren(note("bad", t("reset.no.token")));
        submit.disabled = true;
    }
    node.addEventListener("submit", async (e) => {
        e.preventDefault();
        submit.disabled = true;
        try {
            await call("POST", "/auth/reset-password", { open: true,
                body: { token, newPassword: fields.newPassword.input.value } });
            forget();
            node.replaceChildren(note("good", t("reset.done")),
                el("a", { class: "button", href: "/account/" },
                    t("sign.in")));
        } catch (err) {
            submit.disabled = false;
            showError(err, slot, fields);
        }
    });
    main.append(node);
}, { narrow: true });
