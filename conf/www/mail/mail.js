/*
 * Mails that this development machine would have sent.  nginx lists the
 * folder as JSON; each .eml is shown as text in a frame without scripts.
 */

import { start, t, el, when, note } from "/kit/page.js";

function header(text, name) {
    const head = text.split(/\r?\n\r?\n/, 1)[0].replace(/\r?\n[ \t]+/g, " ");
    const line = head.split(/\r?\n/).find((one) => one.toLowerCase()
        .startsWith(`${name}:`));
    const raw = line ? line.slice(name.length + 1).trim() : "";

    return raw.replace(/\?=\s+=\?/g, "?==?").replace(
        /=\?utf-8\?([bq])\?([^?]*)\?=/gi, (_, how, data) => {
            const bytes = how.toLowerCase() === "b" ? atob(data)
                : data.replace(/_/g, " ").replace(/=([0-9A-F]{2})/gi,
                    (__, hex) => String.fromCharCode(parseInt(hex, 16)));
            return new TextDecoder().decode(Uint8Array.from(bytes,
                (c) => c.charCodeAt(0)));
        });
}

start("mails", async (main) => {
    const answer = await fetch("/mail/files/", { cache: "no-store" });
    if (!answer.ok) {
        main.append(el("h1", {}, t("mails")), note("", t("mails.off")));
        return;
    }
    const files = (await answer.json()).filter((one) => one.type === "file"
        && one.name.endsWith(".eml"));
    files.sort((a, b) => new Date(b.mtime) - new Date(a.mtime));
    const list = el("ul", { class: "lines" });

    for (const one of files.slice(0, 100)) {
        const href = `/mail/files/${encodeURIComponent(one.name)}`;
        const text = await (await fetch(href)).text();
        list.append(el("li", {}, el("span", {},
            el("a", { href }, header(text, "subject") || one.name), el("br"),
            el("span", { class: "soft small" }, header(text, "to"))),
        el("span", { class: "soft small" }, when(new Date(one.mtime)
            .toISOString(), undefined, "medium"))));
    }
    main.append(el("h1", {}, t("mails")), el("p", { class: "lead" },
        t("mails.lead")), files.length === 0
        ? el("p", { class: "empty" }, t("mails.none"))
        : el("div", { class: "card" }, list));
});
