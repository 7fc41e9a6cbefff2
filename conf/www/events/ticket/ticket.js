/* One ticket: its QR, files to keep, transfer and reissue. */

import { call, file } from "/kit/api.js";
import { start, t, el, when, tag, note, param, mustSignIn, explain, field,
    showError, setTitle } from "/kit/page.js";

async function save(path, name, slot) {
    slot.replaceChildren(note("", t("working")));
    try {
        const url = await file(path);
        const link = el("a", { href: url, download: name });
        link.click();
        setTimeout(() => URL.revokeObjectURL(url), 10000);
        slot.replaceChildren();
    } catch (err) {
        slot.replaceChildren(note("bad", explain(err)));
    }
}

function transferForm(ticket, slot) {
    const email = field("email", t("transfer.to"), { type: "email",
        required: true, maxlength: 254, autocomplete: "off" });
    const button = el("button", { type: "submit" }, t("transfer"));
    const form = el("form", {}, email, button);

    form.addEventListener("submit", async (e) => {
        e.preventDefault();
        button.disabled = true;
        try {
            await call("POST", `/tickets/${ticket.id}/transfer`,
                { body: { email: email.input.value.trim() }, key: true });
            slot.replaceChildren(note("good", t("transfer.done")));
            form.replaceChildren();
        } catch (err) {
            button.disabled = false;
            showError(err, slot, { email });
        }
    });
    return form;
}

start("ticket", async (main) => {
    if (mustSignIn()) {
        return;
    }
    const { data: ticket } = await call("GET",
        `/tickets/${encodeURIComponent(param("id") || "")}`);
    const usable = ticket.state === "valid" || ticket.state === "admitted";
    const slot = el("div", { role: "status" });
    const image = el("img", { alt: t("qr.of", { id: ticket.id.slice(-6) }),
        width: 320, height: 320 });
    const title = ticket.eventTitle || t("ticket");

    setTitle(title);
    main.append(
        el("h1", {}, title),
        el("div", { class: "split" },
            el("section", { class: "card ticket" },
                usable ? el("div", { class: "qr" }, image)
                    : tag("bad", t(`ticket.${ticket.state}`)),
                el("p", { class: "when" }, when(ticket.startsAt
                    || ticket.eventStartsAt, ticket.timezone
                    || ticket.eventTimezone)),
                el("p", {}, [ticket.ticketTypeName, ticket.location
                    || ticket.eventLocation].filter(Boolean).join(" · ")),
                ticket.state === "admitted" ? tag("good",
                    t("ticket.admitted")) : null),
            el("section", { class: "stack noprint" },
                usable ? el("div", { class: "row" },
                    el("button", { type: "button", class: "second",
                        onclick: () => save(`/tickets/${ticket.id}.pdf`,
                            "ticket.pdf", slot) }, "PDF"),
                    el("button", { type: "button", class: "second",
                        onclick: () => save(`/tickets/${ticket.id}.png`,
                            "ticket.png", slot) }, "PNG")) : null,
                ticket.state === "valid" ? el("details", {},
                    el("summary", {}, t("transfer.title")),
                    el("p", { class: "soft" }, t("transfer.hint")),
                    transferForm(ticket, slot)) : null,
                ticket.state === "valid" ? el("details", {},
                    el("summary", {}, t("reissue.title")),
                    el("div", { class: "stack" },
                        el("p", { class: "soft" }, t("reissue.hint")),
                        el("button", { type: "button", class: "danger",
                            onclick: async () => {
                                try {
                                    await call("POST",
                                        `/tickets/${ticket.id}/reissue`,
                                        { body: {}, key: true });
                                    location.reload();
                                } catch (err) {
                                    slot.replaceChildren(note("bad",
                                        explain(err)));
                                }
                            } }, t("reissue")))) : null,
                slot)));
    if (usable) {
        image.src = await file(`/tickets/${ticket.id}.svg`);
    }
});
