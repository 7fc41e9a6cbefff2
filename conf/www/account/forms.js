/*
 * Forms of the account pages: one card each, with the fields, a place for
 * what went wrong, and the button; and the second half of every sign-in.
 */

import { call, keep } from "/kit/api.js";
import { t, el, note, showError, param } from "/kit/page.js";
import { codeFields } from "/kit/mfa.js";

/* Only a path of this origin may be the next page, as the browser reads it: it
   drops tabs and line ends, and "/.//x" is a path, but one that names a host. */
export function next(to = param("next")) {
    try {
        const url = new URL(to, location.origin);

        if (to.startsWith("/") && url.origin === location.origin
            && !url.pathname.startsWith("//")) {
            return url.pathname + url.search + url.hash;
        }
    } catch {
        /* is no address, or none was named */
    }
    return "/events/";
}

export function form(title, fields, button, send, extra = [],
    inputs = Object.values(fields)) {
    const slot = el("div");
    const submit = el("button", { type: "submit", class: "wide" }, button);
    const node = el("form", { class: "card" }, el("h1", {}, title), inputs,
        slot, submit, extra);

    node.addEventListener("submit", async (e) => {
        e.preventDefault();
        submit.disabled = true;
        slot.replaceChildren();
        try {
            await send(slot);
        } catch (err) {
            showError(err, slot, fields);
        } finally {
            submit.disabled = false;
        }
    });
    return node;
}

export function swap(main, node) {
    main.replaceChildren(node);
    const first = node.querySelector("input");
    if (first) {
        first.focus();
    }
}

export function link(text, go) {
    return el("button", { type: "button", class: "second wide",
        onclick: go }, text);
}

/*
 * Who it is was shown; the account wants a code, too.  token: null is that of
 * the cookie.  again(note): it took too long, or somebody changed his mind.
 */
export function secondStep(main, token, { done, again }) {
    const code = codeFields();

    swap(main, form(t("mfa.enter"), code.fields, t("sign.in"), async () => {
        try {
            keep((await call("POST", "/auth/login/mfa", { open: true, body: {
                ...(token === null ? {} : { mfaToken: token }),
                ...code.proof() } })).data);
            done();
        } catch (err) {
            if (err.code !== "MFA_TOKEN_INVALID" && !err.fields?.has(
                "mfaToken")) {
                throw err;
            }
            again(note("warn", t("error.MFA_TOKEN_INVALID")));
        }
    }, [link(t("cancel"), () => again(""))], code.node));
}
