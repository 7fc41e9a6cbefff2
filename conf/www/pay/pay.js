/*
 * The page of the test provider: a plain form that posts pay or decline.
 * It exists only where no real provider is configured.
 */

import { call } from "/kit/api.js";
import { start, t, el, money, note, when } from "/kit/page.js";

start("pay", async (main) => {
    const id = location.pathname.split("/").pop();
    const { data: order } = await call("GET",
        `/pay/${encodeURIComponent(id)}`, { open: true });
    const open = ["reserved", "awaiting_payment", "payment_failed"]
        .includes(order.status);
    const button = (value, text, style) => el("button", { type: "submit",
        name: "action", value, class: `wide ${style}` }, text);

    main.append(el("form", { class: "card", method: "post",
        action: `/pay/${id}` },
        el("h1", {}, t("pay")),
        note("warn", t("pay.test")),
        order.title ? el("p", {}, order.title) : null,
        el("p", { class: "total" }, money(order.totalCents, order.currency)),
        open && order.reservedUntil ? el("p", { class: "soft" },
            t("pay.until", { until: when(order.reservedUntil, undefined,
                "medium") })) : null,
        open ? [button("pay", t("pay.now"), ""),
            button("decline", t("pay.decline"), "second")]
            : [note("", t(`order.${order.status}`)),
                el("a", { class: "button wide",
                    href: `/events/order/?id=${id}` }, t("order"))]));
}, { narrow: true });
