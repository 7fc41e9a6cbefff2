/*
 * Where a code of the second factor is asked for: the fields, with the way of
 * recovery codes, and the dialog of a fresh code that any call may need.
 */

import { call, keep } from "/kit/api.js";
import { t, el, field, showError } from "/kit/page.js";

let made = 0;

/*
 * {node, fields, proof()}: the app's code or, by a button, a recovery code.
 * proof() is the body's part of it.
 */
export function codeFields({ recovery = true } = {}) {
    const id = ++made;
    const code = field(`code-${id}`, t("mfa.code"), { required: true,
        inputmode: "numeric", autocomplete: "one-time-code", minlength: 6,
        maxlength: 7, dir: "ltr" }, t("mfa.code.hint"));
    const other = field(`recoveryCode-${id}`, t("mfa.recovery"), {
        disabled: true, autocomplete: "off", autocapitalize: "none",
        spellcheck: "false", minlength: 24, maxlength: 48, dir: "ltr" });
    const swap = el("button", { type: "button", class: "second wide",
        onclick: () => show(code.hidden) }, t("mfa.use.recovery"));

    function show(app) {
        code.hidden = code.input.disabled = !app;
        other.hidden = other.input.disabled = app;
        other.input.required = !app;
        swap.textContent = t(app ? "mfa.use.recovery" : "mfa.use.code");
        (app ? code : other).input.focus();
    }

    other.hidden = true;
    return {
        node: el("div", { class: "stack" }, code, other,
            recovery ? swap : null),
        fields: { code, recoveryCode: other },
        proof: () => code.hidden
            ? { recoveryCode: other.input.value.trim() }
            : { code: code.input.value.trim() },
        clear: () => {
            code.input.value = "";
            other.input.value = "";
        },
    };
}

/* Asks for a fresh code; whether one was shown.  One dialog at a time. */
let open = null;

export function stepUp() {
    open ??= ask().finally(() => { open = null; });
    return open;
}

function ask() {
    const before = document.activeElement;
    const code = codeFields();
    const slot = el("div");
    const submit = el("button", { type: "submit", class: "wide" },
        t("continue"));
    const form = el("form", {}, el("h2", { id: "step-up" }, t("mfa.confirm")),
        el("p", { class: "soft" }, t("mfa.confirm.lead")), code.node, slot,
        submit, el("button", { type: "button", class: "second wide",
            onclick: () => dialog.close() }, t("cancel")));
    const dialog = el("dialog", { "aria-labelledby": "step-up" }, form);

    document.body.append(dialog);
    return new Promise((done) => {
        let shown = false;

        form.addEventListener("submit", async (e) => {
            e.preventDefault();
            submit.disabled = true;
            try {
                keep((await call("POST", "/auth/step-up",
                    { body: code.proof() })).data);
                shown = true;
                dialog.close();
            } catch (err) {
                showError(err, slot, code.fields);
            } finally {
                submit.disabled = false;
            }
        });
        dialog.addEventListener("close", () => {
            dialog.remove();
            if (before && before.isConnected) {
                before.focus();
            }
            done(shown);
        });
        dialog.showModal();
        code.fields.code.input.focus();
    });
}
