/* All tickets of the person who is signed in. */

import { call } from "/kit/api.js";
import { start, t, el, when, tag, mustSignIn, note, explain }
    from "/kit/page.js";

const GOOD = new Set(["valid", "admitted"]);

start("my.tickets", async (main) => {
    if (mustSignIn()) {
        return;
    }
    const list = el("ul", { class: "grid" });
    const slot = el("div");
    const more = el("button", { type: "button", class: "second",
        hidden: true }, t("more"));
    let page = 1;

    async function load() {
        const { data, meta } = await call("GET",
            `/tickets?page=${page}&limit=20`);
        list.append(...data.map((ticket) => el("li",
            { class: "card event-card" },
            el("p", { class: "when" }, when(ticket.startsAt
                || ticket.eventStartsAt, ticket.timezone
                || ticket.eventTimezone, "medium")),
            el("h2", {}, el("a", { href: `/events/ticket/?id=${ticket.id}` },
                ticket.eventTitle || t("ticket"))),
            el("p", { class: "soft" }, ticket.ticketTypeName || ""),
            el("p", {}, tag(GOOD.has(ticket.state) ? "good" : "",
                t(`ticket.${ticket.state}`))))));
        more.hidden = !meta || !(page < meta.pages);
        if (list.childElementCount === 0) {
            slot.replaceChildren(el("p", { class: "empty" },
                t("tickets.none")));
        }
        page++;
    }
    more.addEventListener("click", () => load().catch((err) =>
        slot.replaceChildren(note("bad", explain(err)))));
    main.append(el("h1", {}, t("my.tickets")), list, slot,
        el("div", { class: "row" }, more));
    await load();
});
