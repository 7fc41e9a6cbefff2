/*
 * An address is confirmed, or a new one, by the link of a mail.  The token
 * stands behind the # of the address, so that it never reaches a server's
 * log; it is used when somebody says so, not by whatever opens links.
 */

import { call, signedIn } from "/kit/api.js";
import { start, t, el, note, showError } from "/kit/page.js";

start("verify", async (main) => {
    const token = new URLSearchParams(location.hash.slice(1)).get("token");
    const slot = el("div");
    const submit = el("button", { type: "submit", class: "wide" },
        t("verify"));
    const node = el("form", { class: "card" }, el("h1", {}, t("verify")),
        slot, submit);

    history.replaceState(null, "", location.pathname);
    /* another link, opened in this window */
    window.addEventListener("hashchange", () => location.reload());
    if (!token) {
        slot.replaceChildren(note("bad", t("reset.no.token")));
        submit.disabled = true;
    }
    node.addEventListener("submit", async (e) => {
        e.preventDefault();
        submit.disabled = true;
        try {
            /* with the session, if there is one: a change ends the others */
            const { data } = await call("POST", "/auth/verify-email",
                { body: { token } });
            node.replaceChildren(el("h1", {}, t("verify")),
                note("good", t(data.changed ? "verify.changed"
                    : "verify.done")),
                el("a", { class: "button", href: "/account/" },
                    t(signedIn() ? "account" : "sign.in")));
        } catch (err) {
            submit.disabled = false;
            showError(err, slot);
            if (err.fields && err.fields.has("token")) {
                slot.replaceChildren(note("bad", t("verify.void")));
            }
        }
    });
    main.append(node);
}, { narrow: true });
