/*
 * The operator's manual, read from the running server: what its own rows say
 * of directives, variables, settings, metrics and errors ("stoa manual").
 * Its texts are English, as the configuration is.
 */

import { start, t, el, field, tag } from "/kit/page.js";

const HASH = /^#(\w+)\/(.+)$/;

const slug = (section, name) => `${section}/${name.replace(/^\$/, "")}`;

/* a fact of one line is code; of several, a block */
function value(text) {
    return text.includes("\n") ? el("pre", { tabindex: "0" }, text)
        : el("code", {}, text);
}

function facts(one) {
    const rest = Object.entries(one).filter(([key]) =>
        !["name", "text", "example", "secret"].includes(key));

    return el("dl", { class: "facts" }, [...rest, ...(one.example
        ? [["example", one.example]] : [])].flatMap(([key, text]) => [
        el("dt", {}, key), el("dd", {}, value(text))]));
}

function entry(section, one) {
    const id = slug(section, one.name);
    const node = el("article", { class: "card stack entry", id },
        el("h3", {}, el("code", {}, one.name), " ",
            el("a", { class: "anchor", href: `#${id}`,
                "aria-label": t("manual.link", { name: one.name }) }, "#"),
            one.secret ? [" ", tag("warn", "secret")] : null),
        el("p", {}, one.text), facts(one));

    node.words = JSON.stringify(Object.values(one)).toLowerCase();
    return node;
}

/* Entries whose texts have every word of the question. */
function search(asked, groups, said) {
    const words = asked.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;

    for (const group of groups) {
        let some = 0;

        for (const node of group.entries) {
            node.hidden = !words.every((word) => node.words.includes(word));
            some += node.hidden ? 0 : 1;
        }
        group.node.hidden = some === 0;
        group.link.hidden = some === 0;
        found += some;
    }
    said.textContent = found === 0 ? t("manual.none")
        : t("manual.found", { n: found });
}

/* A link leads to its entry also when a search had hidden it. */
function lead(clear) {
    if (!HASH.test(location.hash)) {
        return;
    }
    const node = document.getElementById(
        decodeURIComponent(location.hash.slice(1)));

    if (node && node.hidden) {
        clear();
    }
    node?.scrollIntoView();
}

start("manual", async (main) => {
    const answer = await fetch("/api/v1/manual.json");

    if (!answer.ok) {
        throw new Error(String(answer.status));
    }
    const groups = Object.entries(await answer.json()).map(([name, list]) => {
        const entries = list.map((one) => entry(name, one));

        return { entries, link: el("a", { href: `#${name}` }, t(
            `manual.${name}`)),
        node: el("section", { class: "stack", id: name, lang: "en",
            dir: "ltr" }, el("h2", {}, t(`manual.${name}`), " ",
            el("span", { class: "soft small" }, String(list.length))),
        entries) };
    });
    const said = el("p", { class: "soft small", role: "status" });
    const box = field("q", t("manual.search"), { type: "search",
        autocomplete: "off", spellcheck: "false" });
    const ask = () => {
        const url = new URL(location.href);

        search(box.input.value, groups, said);
        url.search = box.input.value
            ? `?${new URLSearchParams({ q: box.input.value })}` : "";
        history.replaceState(null, "", url);
    };

    box.input.value = new URLSearchParams(location.search).get("q") || "";
    box.input.addEventListener("input", ask);
    main.append(el("h1", {}, t("manual")),
        el("p", { class: "lead" }, t("manual.lead")),
        el("p", { class: "row" }, el("a", { href: "/docs/" }, t("api")),
            el("a", { href: "/api/v1/manual.json" }, "manual.json")),
        el("div", { class: "card stack finder", role: "search" }, box, said,
            el("nav", { class: "row", "aria-label": t("manual") },
                groups.map((group) => group.link))),
        ...groups.map((group) => group.node));
    search(box.input.value, groups, said);

    const show = () => lead(() => {
        box.input.value = "";
        ask();
    });

    window.addEventListener("hashchange", show);
    show();
});
