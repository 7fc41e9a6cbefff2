/*
 * Two-step sign-in under the account: set up by QR code and a first code,
 * recovery codes shown once, new ones, and the end of it.
 */

import { call, keep } from "/kit/api.js";
import { t, el, note, tag, field, showError, explain } from "/kit/page.js";
import { codeFields } from "/kit/mfa.js";

const password = (id) => field(`password-${id}`, t("mfa.password"), {
    type: "password", required: true, autocomplete: "current-password",
    maxlength: 128 });

/* A form without a frame of its own; send() may throw an ApiError. */
function small(parts, fields, button, send, kind = null) {
    const slot = el("div");
    const submit = el("button", { type: "submit", class: kind
        ? `wide ${kind}` : "wide" }, button);
    const node = el("form", {}, parts, slot, submit);

    node.addEventListener("submit", async (e) => {
        e.preventDefault();
        submit.disabled = true;
        slot.replaceChildren();
        try {
            await send();
        } catch (err) {
            showError(err, slot, fields);
        } finally {
            submit.disabled = false;
        }
    });
    return node;
}

/* The codes that are told once, and a file of them. */
function recovery(codes, done) {
    const file = URL.createObjectURL(new Blob(
        [`${location.host}\n\n${codes.join("\n")}\n`],
        { type: "text/plain" }));

    return [
        el("h3", { tabindex: "-1" }, t("mfa.codes")),
        el("p", {}, t("mfa.codes.lead")),
        el("ul", { class: "codes", dir: "ltr" },
            codes.map((code) => el("li", {}, el("code", {}, code)))),
        el("a", { class: "button second wide", href: file,
            download: "recovery-codes.txt" }, t("mfa.codes.save")),
        el("button", { type: "button", class: "wide", onclick: () => {
            URL.revokeObjectURL(file);
            done();
        } }, t("mfa.codes.kept")),
    ];
}

/* The section of the account page. */
export function secondFactor() {
    const title = el("h2", { id: "mfa", tabindex: "-1" }, t("mfa"));
    const body = el("div", { class: "stack" });

    function show(...parts) {
        body.replaceChildren(...parts.flat());
        const first = body.querySelector("h3[tabindex], input");
        (first || title).focus();
    }

    const told = (data) => {
        keep(data);
        show(recovery(data.recoveryCodes, () => load(true)));
    };

    function confirm(made) {
        const code = codeFields({ recovery: false });
        const picture = URL.createObjectURL(new Blob([made.qr],
            { type: "image/svg+xml" }));
        const image = el("img", { src: picture, alt: t("mfa.qr"), width: 240,
            height: 240, onload: () => URL.revokeObjectURL(picture) });

        show(el("p", {}, t("mfa.scan")), el("div", { class: "qr" }, image),
            el("p", {}, `${t("mfa.key")}: `, el("code", {},
                made.secret.match(/.{4}/g).join(" "))),
            small([code.node], code.fields, t("mfa.turn.on"), async () => {
                told((await call("POST", "/auth/mfa/totp/confirm",
                    { body: code.proof() })).data);
            }));
    }

    function begin() {
        const fields = { password: password("enrol") };

        return small([fields.password], fields, t("mfa.set.up"), async () => {
            confirm((await call("POST", "/auth/mfa/totp", { body: {
                password: fields.password.input.value } })).data);
        });
    }

    function more(state) {
        const renew = codeFields({ recovery: false });
        const end = codeFields();
        const fields = { password: password("off"), ...end.fields };

        return [
            el("p", {}, t("mfa.codes.left",
                { count: state.recoveryCodesLeft })),
            el("details", {}, el("summary", {}, t("mfa.codes.new")),
                small([renew.node], renew.fields, t("mfa.codes.new"),
                    async () => told((await call("POST",
                        "/auth/mfa/recovery-codes",
                        { body: renew.proof() })).data))),
            el("details", {}, el("summary", {}, t("mfa.turn.off")),
                small([fields.password, end.node], fields, t("mfa.turn.off"),
                    async () => {
                        keep((await call("DELETE", "/auth/mfa", { body: {
                            password: fields.password.input.value,
                            ...end.proof() } })).data);
                        await load(true, t("mfa.turned.off"));
                    }, "danger")),
        ];
    }

    async function load(focus, word = null) {
        const { data } = await call("GET", "/auth/mfa");

        body.replaceChildren(
            el("p", {}, data.enabled ? tag("good", t("mfa.on"))
                : tag(data.required ? "warn" : "", t("mfa.off"))),
            el("p", { class: "soft" }, t("mfa.lead")),
            ...[word ? note("good", word) : null,
                data.required && !data.enabled
                    ? note("warn", t("mfa.needed")) : null].filter(Boolean),
            ...[data.enabled ? more(data) : begin()].flat());
        if (focus) {
            title.focus();
        }
    }

    load(false).catch((err) => body.replaceChildren(
        note("bad", explain(err))));
    return el("section", { class: "card stack", "aria-labelledby": "mfa" },
        title, body);
}
