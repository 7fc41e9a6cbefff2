/* One order: waits for the payment, then shows the tickets. */

import { call, file } from "/kit/api.js";
import { start, t, el, money, when, tag, note, param, mustSignIn, explain }
    from "/kit/page.js";

const WAITING = new Set(["reserved", "awaiting_payment"]);

/* A declined card does not end the hold: paying again is possible. */
const PAYABLE = new Set([...WAITING, "payment_failed"]);

function kind(status) {
    return status === "paid" ? "good" : WAITING.has(status) ? "warn" : "bad";
}

async function qr(ticket) {
    const image = el("img", { alt: t("qr.of", { id: ticket.id.slice(-6) }),
        width: 320, height: 320 });
    try {
        image.src = await file(`/tickets/${ticket.id}.svg`);
    } catch (err) {
        return note("bad", explain(err));
    }
    return el("div", { class: "qr" }, image);
}

async function tickets(order) {
    const list = el("ul", { class: "grid" });

    for (const ticket of order.tickets || []) {
        const usable = ticket.state === "valid" || ticket.state === "admitted";
        list.append(el("li", { class: "card ticket" },
            el("h2", {}, ticket.ticketTypeName || t("ticket")),
            usable ? await qr(ticket) : tag("bad",
                t(`ticket.${ticket.state}`)),
            el("a", { class: "button second",
                href: `/events/ticket/?id=${ticket.id}` }, t("ticket.open"))));
    }
    return list;
}

start("order", async (main) => {
    if (mustSignIn()) {
        return;
    }
    const id = encodeURIComponent(param("id") || "");
    const view = el("div", { class: "stack" });
    const head = el("h1", {}, t("order"));
    let wait = 700;

    main.append(head, view);

    async function show() {
        const { data: order } = await call("GET", `/orders/${id}`);
        const rows = [
            el("p", { class: "row" }, tag(kind(order.status),
                t(`order.${order.status}`)),
            el("span", { class: "total" }, Number(order.totalCents) === 0
                ? t("free") : money(order.totalCents, order.currency))),
        ];
        if (PAYABLE.has(order.status)) {
            const pay = order.paymentDetails
                && order.paymentDetails.checkoutUrl;
            rows.push(note("", t("order.waiting",
                { until: when(order.reservedUntil, undefined, "medium") })));
            if (pay) {
                rows.push(el("div", { class: "row" },
                    el("a", { class: "button", href: pay }, t("pay.now")),
                    el("button", { class: "danger", type: "button",
                        onclick: async () => {
                            try {
                                await call("POST", `/orders/${id}/cancel`,
                                    { body: {}, key: true });
                            } finally {
                                show();
                            }
                        } }, t("order.cancel"))));
            }
            if (WAITING.has(order.status)) {
                setTimeout(() => show().catch(failed), wait);
                wait = Math.min(wait * 1.5, 5000);
            }
        } else if (order.status === "paid"
            || order.status === "partially_refunded") {
            head.textContent = t("order.thanks");
            rows.push(el("p", { class: "lead" }, t("order.mailed")),
                await tickets(order));
        }
        view.replaceChildren(...rows);
        view.dataset.status = order.status;
    }
    function failed(err) {
        view.replaceChildren(note("bad", explain(err)));
    }
    await show();
});
