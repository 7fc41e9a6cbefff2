/* The list of published events: search, sort, further pages by cursor. */

import { call } from "/kit/api.js";
import { start, t, el, price, when, tag, note, explain } from "/kit/page.js";

function card(event) {
    const from = event.minPriceCents ?? event.priceCents;
    const soldOut = event.soldOut === true || event.remaining === 0;

    return el("li", { class: "card event-card" },
        el("p", { class: "when" }, when(event.startsAt, event.timezone,
            "medium")),
        el("h2", {}, el("a", { href: `/events/event/?id=${event.id}` },
            event.title)),
        event.location ? el("p", { class: "soft" }, event.location) : null,
        el("p", { class: "row" },
            soldOut ? tag("bad", t("sold.out"))
                : from === null || from === undefined ? null
                    : tag(Number(from) === 0 ? "good" : "", Number(from) === 0
                        ? t("free")
                        : t("from", { price: price(from, event.currency) }))));
}

start("events", async (main) => {
    const list = el("ul", { class: "grid", "aria-live": "polite" });
    const more = el("button", { type: "button", class: "second",
        hidden: true }, t("more"));
    const status = el("div", { role: "status" });
    const search = el("input", { type: "search", name: "search",
        "aria-label": t("search"), placeholder: t("search"),
        maxlength: 100 });
    const form = el("form", { class: "row", role: "search" },
        el("div", {}, search),
        el("button", { type: "submit" }, t("search")));
    let cursor = null;
    let turn = 0;

    async function load(fresh) {
        const mine = ++turn;
        const query = new URLSearchParams({ limit: "20" });
        if (fresh) {
            list.replaceChildren(...[1, 2, 3].map(() => el("li",
                { class: "skeleton", "aria-hidden": "true" })));
            more.hidden = true;
        } else {
            query.set("cursor", cursor);
        }
        if (search.value.trim() !== "") {
            query.set("search", search.value.trim());
        }
        try {
            const { data, meta } = await call("GET", `/events?${query}`,
                { open: true });
            if (mine !== turn) {
                return;
            }
            if (fresh) {
                list.replaceChildren();
            }
            list.append(...data.map(card));
            cursor = meta ? meta.nextCursor : null;
            more.hidden = !cursor;
            status.replaceChildren(list.childElementCount === 0
                ? el("p", { class: "empty" }, t("events.none")) : "");
        } catch (err) {
            list.replaceChildren();
            status.replaceChildren(note("bad", explain(err)));
        }
    }
    form.addEventListener("submit", (e) => {
        e.preventDefault();
        load(true);
    });
    more.addEventListener("click", () => load(false));
    main.append(el("h1", {}, t("events")),
        el("p", { class: "lead" }, t("events.lead")),
        form, list, status, el("div", { class: "row" }, more));
    await load(true);
});
