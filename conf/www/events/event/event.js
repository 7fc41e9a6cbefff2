/* One event: what it is, its ticket types, the order. */

import { call, signedIn } from "/kit/api.js";
import { start, t, el, price, money, when, tag, note, param, setTitle, explain,
    field } from "/kit/page.js";

function counter(type, changed) {
    const left = type.remaining ?? type.available ?? 99;
    const top = Math.max(0, Math.min(left, type.maxPerOrder || 10));
    const input = el("input", { type: "number", min: 0, max: top, value: 0,
        inputmode: "numeric", "aria-label": t("quantity.of",
            { name: type.name }), "data-type": type.id });
    const step = (by) => {
        input.value = Math.max(0, Math.min(top, Number(input.value) + by));
        changed();
    };
    const button = (by, label, text) => el("button", { type: "button",
        class: "second", "aria-label": label, onclick: () => step(by) }, text);

    input.addEventListener("input", () => {
        const n = Math.floor(Number(input.value));
        input.value = Number.isFinite(n) ? Math.max(0, Math.min(top, n)) : 0;
        changed();
    });
    const node = el("span", { class: "counter" },
        button(-1, t("fewer", { name: type.name }), "−"), input,
        button(1, t("more.of", { name: type.name }), "+"));
    node.amount = () => Number(input.value);
    return node;
}

function line(type, currency, changed) {
    const left = type.remaining ?? type.available;
    const onSale = type.onSale !== false && left !== 0;
    const amount = onSale ? counter(type, changed) : null;
    const node = el("li", {},
        el("span", {}, el("strong", {}, type.name), el("br"),
            el("span", { class: "soft" }, price(type.priceCents, currency)),
            left !== undefined && left > 0 && left <= 10
                ? el("span", { class: "soft" }, " · ",
                    t("left", { count: left })) : null),
        onSale ? amount : tag("bad", left === 0 ? t("sold.out")
            : t("not.on.sale")));
    node.item = () => (amount && amount.amount() > 0
        ? { ticketTypeId: type.id, quantity: amount.amount() } : null);
    node.sum = () => (amount ? amount.amount() * Number(type.priceCents) : 0);
    return node;
}

function orderForm(event, types) {
    const total = el("p", { class: "total", "aria-live": "polite" });
    const slot = el("div");
    const buy = el("button", { type: "submit", class: "wide" }, t("order"));
    let key = crypto.randomUUID();
    const lines = types.map((one) => line(one, event.currency, changed));
    const promo = field("promoCode", t("promo"), { maxlength: 40,
        autocomplete: "off" });

    function changed() {
        const sum = lines.reduce((all, one) => all + one.sum(), 0);
        const any = lines.some((one) => one.item() !== null);
        key = crypto.randomUUID(); /* another order, another key */
        buy.disabled = !any;
        total.textContent = any ? `${t("total")}: ${sum === 0 ? t("free")
            : money(sum, event.currency)}` : "";
    }
    const form = el("form", { class: "card" },
        el("fieldset", {}, el("legend", {}, t("tickets.choose")),
            el("ul", { class: "lines" }, lines)),
        el("details", {}, el("summary", {}, t("promo.have")), promo),
        total, slot, buy);

    form.addEventListener("submit", async (e) => {
        e.preventDefault();
        if (!signedIn()) {
            location.assign(`/account/?next=${encodeURIComponent(
                location.pathname + location.search)}`);
            return;
        }
        const body = { items: lines.map((one) => one.item())
            .filter((one) => one !== null) };
        if (promo.input.value.trim() !== "") {
            body.promoCode = promo.input.value.trim();
        }
        buy.disabled = true;
        slot.replaceChildren(note("", t("working")));
        try {
            const { data } = await call("POST", "/orders", { body, key });
            const pay = data.paymentDetails && data.paymentDetails.checkoutUrl;
            location.assign(pay || `/events/order/?id=${data.id}`);
        } catch (err) {
            buy.disabled = false;
            slot.replaceChildren(note("bad", explain(err)));
        }
    });
    changed();
    return form;
}

start("event", async (main) => {
    const { data: event } = await call("GET",
        `/events/${encodeURIComponent(param("id") || "")}`, { open: true });
    const types = event.ticketTypes || (await call("GET",
        `/events/${event.id}/ticket-types`, { open: true })).data;

    setTitle(event.title);
    main.append(el("div", { class: "split" },
        el("article", { class: "stack" },
            el("p", { class: "when" }, el("time", { datetime: event.startsAt },
                when(event.startsAt, event.timezone))),
            el("h1", {}, event.title),
            event.location ? el("p", { class: "soft" }, event.location) : null,
            event.status === "cancelled" ? note("bad", t("event.cancelled"))
                : null,
            ...String(event.description || "").split(/\n{2,}/)
                .map((text) => el("p", {}, text))),
        event.status === "published" && types.length > 0
            ? orderForm(event, types) : null));
});
