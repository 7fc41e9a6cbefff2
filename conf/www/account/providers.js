/*
 * Providers that vouch for people: buttons of the sign-in page, and those
 * that an account is linked to.
 */

import { call } from "/kit/api.js";
import { t, el, note, when, explain } from "/kit/page.js";

const NEXT = "stoa.oauth.next"; /* of this tab, while it is elsewhere */

/* Where the tab was going before it went to the provider, once. */
export function wasGoing() {
    const to = sessionStorage.getItem(NEXT);

    sessionStorage.removeItem(NEXT);
    return to;
}

async function providers() {
    const { data } = await call("GET", "/oauth/providers", { open: true });

    return data.filter(({ url }) => url);
}

/* Filled when it is known that there are some; sign-in does not wait. */
export function withOthers(next) {
    const node = el("div", { class: "stack", hidden: true });

    providers().then((all) => {
        node.append(el("p", { class: "or" }, t("or")), ...all.map((one) =>
            el("a", { class: "button second wide", href: one.url,
                onclick: () => sessionStorage.setItem(NEXT, next) },
            t("provider.with", { name: one.title }))));
        node.hidden = all.length === 0;
    }, () => {}); /* the form is there without them */
    return node;
}

function identity(one, title, unlink) {
    return el("li", {},
        el("div", {}, el("h3", {}, title),
            el("p", { class: "soft small" }, [one.email, t("identity.since",
                { when: when(one.linkedAt, undefined, "medium") })]
                .filter(Boolean).join(" · "))),
        el("button", { type: "button", class: "second",
            "aria-label": `${t("identity.unlink")}: ${title}`,
            onclick: (e) => unlink(e.currentTarget, one) },
        t("identity.unlink")));
}

/* The section of the account page; nothing where there are no providers. */
export function identities() {
    const title = el("h2", { id: "identities", tabindex: "-1" },
        t("identities"));
    const list = el("ul", { class: "lines" });
    const links = el("div", { class: "stack" });
    const slot = el("div");
    const node = el("section", { class: "card stack", hidden: true,
        "aria-labelledby": "identities" }, title,
    el("p", { class: "soft" }, t("identities.lead")), list, slot, links);

    async function work(button, send) {
        button.disabled = true;
        try {
            await send();
        } catch (err) {
            button.disabled = false;
            slot.replaceChildren(note("bad", explain(err)));
        }
    }

    const unlink = (button, one) => work(button, async () => {
        await call("DELETE", `/users/me/identities/${one.id}`)
            .catch((err) => {
                if (err.code !== "NOT_FOUND") { /* unlinked elsewhere */
                    throw err;
                }
            });
        await load();
        slot.replaceChildren(note("good", t("identity.unlinked")));
        title.focus();
    });

    const go = (button, one) => work(button, async () => {
        const { data } = await call("POST", "/users/me/identities",
            { body: { provider: one.name, next: "/account/" } });

        location.assign(data.url);
    });

    async function load() {
        const [all, { data }] = await Promise.all([providers(),
            call("GET", "/users/me/identities?limit=100")]);
        const titles = new Map(all.map((one) => [one.name, one.title]));
        const mine = new Set(data.map((one) => one.provider));

        list.replaceChildren(...data.map((one) => identity(one,
            titles.get(one.provider) ?? one.provider ?? one.email
                ?? t("identity.other"), unlink)));
        links.replaceChildren(...all.filter(({ name }) => !mine.has(name))
            .map((one) => el("button", { type: "button",
                class: "second wide", onclick: (e) => go(e.currentTarget,
                    one) }, t("identity.link", { name: one.title }))));
        node.hidden = all.length === 0 && data.length === 0;
    }

    if (new URLSearchParams(location.search).has("linked")) {
        history.replaceState(null, "", location.pathname);
        slot.replaceChildren(note("good", t("identity.linked")));
    }
    load().catch((err) => {
        node.hidden = false;
        slot.replaceChildren(note("bad", explain(err)));
    });
    return node;
}
