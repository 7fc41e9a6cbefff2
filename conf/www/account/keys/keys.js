/*
 * API keys: what programs have, with their ends and last uses; a new one,
 * whose text is shown once; rotation and the end of one.
 */

import { call } from "/kit/api.js";
import { start, t, el, note, tag, when, field, showError, explain, mustSignIn }
    from "/kit/page.js";

const DAYS = [30, 90, 180, 365];

function moment(iso) {
    return when(iso, undefined, "medium");
}

/* The one time that a key is seen. */
function secret(made) {
    const input = el("input", { id: "secret", readonly: true,
        value: made.key, spellcheck: "false", autocomplete: "off",
        onfocus: () => input.select() });
    const copy = el("button", { type: "button", onclick: async () => {
        try {
            await navigator.clipboard.writeText(made.key);
            copy.textContent = t("key.copied");
        } catch { /* not allowed here: it is selected to be copied by hand */
            input.focus();
        }
    } }, t("key.copy"));

    return el("section", { class: "card stack", "aria-labelledby": "made" },
        el("h2", { id: "made", tabindex: "-1" },
            t("key.made", { name: made.name })),
        note("warn", t("key.once")),
        el("label", { for: "secret" }, t("key.text"), input), copy);
}

function state(key) {
    if (key.state !== "live") {
        return tag(key.state === "revoked" ? "bad" : "warn",
            t(`key.${key.state}`));
    }
    return key.replacedBy ? tag("warn", t("key.replaced"))
        : tag("good", t("key.live"));
}

function row(key, work) {
    const named = `${key.name} (${key.prefix}…)`;
    const button = (kind, text, send) => el("button", { type: "button",
        class: kind, "aria-label": `${text}: ${named}`,
        onclick: (e) => work(e.currentTarget, send) }, text);
    const live = key.state === "live";

    return el("li", {},
        el("div", {}, el("h3", {}, key.name, " ", state(key)),
            el("p", { class: "small" }, el("code", {}, `${key.prefix}…`)),
            el("p", { class: "soft small" }, key.scopes.join(", ")),
            el("p", { class: "soft small" },
                t(live ? "key.until" : "key.ended", { when: moment(
                    key.revokedAt || key.expiresAt) }), " · ",
                key.lastUsedAt ? t("device.used",
                    { when: moment(key.lastUsedAt) }) : t("key.unused"))),
        live ? el("div", { class: "row" },
            key.replacedBy ? null : button("second", t("key.rotate"),
                async () => (await call("POST",
                    `/auth/api-keys/${key.id}/rotate`, { body: {} })).data),
            button("danger", t("key.revoke"), async () => {
                await call("DELETE", `/auth/api-keys/${key.id}`);
                return null;
            })) : null);
}

function chosen(node) {
    return [...node.querySelectorAll("input[name=scope]:checked")]
        .map(({ value }) => value);
}

function wish(scopes, made) {
    const name = field("name", t("key.name"), { required: true,
        maxlength: 100, autocomplete: "off" });
    const days = el("select", { id: "days" }, DAYS.map((n) => el("option",
        { value: n, selected: n === 90 }, t("key.days", { n }))));
    const boxes = el("fieldset", { id: "scopes" },
        el("legend", {}, t("key.scopes")),
        el("p", { class: "soft small" }, t("key.scopes.hint")),
        scopes.map((scope) => el("label", { class: "check" },
            el("input", { type: "checkbox", name: "scope", value: scope }),
            el("code", {}, scope))));
    const slot = el("div");
    const submit = el("button", { type: "submit", class: "wide" },
        t("key.make"));
    const node = el("form", { class: "card stack" },
        el("h2", {}, t("key.new")), name,
        el("label", { for: "days" }, t("key.life"), days), boxes, slot,
        submit);

    node.addEventListener("submit", async (e) => {
        e.preventDefault();
        const list = chosen(node);
        if (!list.length) {
            slot.replaceChildren(note("bad", t("key.scopes.none")));
            return;
        }
        submit.disabled = true;
        slot.replaceChildren();
        try {
            const { data } = await call("POST", "/auth/api-keys", { body: {
                name: name.input.value.trim(), scopes: list,
                expiresInDays: Number(days.value) } });
            node.reset();
            await made(data);
        } catch (err) {
            showError(err, slot, { name });
        } finally {
            submit.disabled = false;
        }
    });
    return node;
}

start("keys", async (main) => {
    if (mustSignIn()) {
        return;
    }
    const { data: { scopes } } = await call("GET", "/auth/scopes");
    const list = el("ul", { class: "lines" });
    const slot = el("div");
    const shown = el("div");
    const title = el("h2", { id: "keys", tabindex: "-1" }, t("keys.yours"));

    async function load() {
        const { data } = await call("GET", "/auth/api-keys?limit=100");
        list.replaceChildren(...data.map((key) => row(key, work)));
        if (!data.length) {
            list.replaceChildren(el("li", { class: "soft" }, t("keys.none")));
        }
    }

    async function made(key) {
        shown.replaceChildren(secret(key));
        await load();
        shown.querySelector("h2").focus();
    }

    async function work(button, send) {
        button.disabled = true;
        slot.replaceChildren();
        try {
            const key = await send();
            if (key) {
                await made(key);
                return;
            }
            shown.replaceChildren();
            await load();
            slot.replaceChildren(note("good", t("key.gone")));
            title.focus();
        } catch (err) {
            slot.replaceChildren(note("bad", explain(err)));
        } finally {
            button.disabled = false;
        }
    }

    await load();
    main.append(el("h1", {}, t("keys")), el("p", { class: "lead" },
        t("keys.lead")), shown,
    el("section", { class: "card stack", "aria-labelledby": "keys" },
        title, list, slot),
    wish(scopes, made),
    el("p", {}, el("a", { href: "/account/" }, t("account"))));
}, { narrow: true });
