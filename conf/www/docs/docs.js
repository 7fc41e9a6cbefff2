/* The reference, read from the running server's own OpenAPI document. */

import { start, t, el, tag } from "/kit/page.js";

const METHODS = ["get", "post", "put", "patch", "delete"];

function follow(doc, node) {
    let at = node;
    for (let i = 0; i < 10 && at && at.$ref; i++) {
        at = at.$ref.slice(2).split("/").reduce((o, k) => o && o[k
            .replace(/~1/g, "/").replace(/~0/g, "~")], doc);
    }
    return at || {};
}

function kind(doc, raw) {
    const schema = follow(doc, raw);
    const type = Array.isArray(schema.type) ? schema.type.join(" | ")
        : schema.type || "";
    const limits = [];

    if (schema.enum) {
        return schema.enum.join(" | ");
    }
    if (type === "array") {
        return `${kind(doc, schema.items || {})}[]`;
    }
    for (const [key, sign] of [["minLength", "≥"], ["maxLength", "≤"],
        ["minimum", "≥"], ["maximum", "≤"]]) {
        if (schema[key] !== undefined) {
            limits.push(`${sign} ${schema[key]}`);
        }
    }
    return [type, schema.format, limits.join(" ")].filter(Boolean).join(", ");
}

function fields(doc, raw) {
    const schema = follow(doc, raw);
    const need = new Set(schema.required || []);

    return Object.entries(schema.properties || {}).map(([name, one]) => el(
        "tr", {}, el("td", {}, el("code", {}, name), need.has(name)
            ? " *" : ""), el("td", {}, kind(doc, one)),
        el("td", {}, follow(doc, one).description || "")));
}

function table(title, rows) {
    return rows.length === 0 ? null : [el("h3", {}, title),
        el("div", { class: "scroll" }, el("table", {}, el("tbody", {},
            rows)))];
}

function operation(doc, path, method, op) {
    const body = op.requestBody && Object.values(follow(doc, op.requestBody)
        .content || {})[0];
    const params = (op.parameters || []).map((one) => follow(doc, one));

    return el("details", { class: "card", id: op.operationId },
        el("summary", {}, el("span", { class: "method" },
            method.toUpperCase()), el("code", {}, path), " ",
        el("span", { class: "soft" }, op.summary || "")),
        el("div", { class: "stack" },
            table(t("api.parameters"), params.map((one) => el("tr", {},
                el("td", {}, el("code", {}, one.name), one.required ? " *"
                    : ""), el("td", {}, `${one.in}, ${kind(doc, one.schema
                    || {})}`), el("td", {}, one.description || "")))),
            body ? table(t("api.body"), fields(doc, body.schema)) : null,
            table(t("api.answers"), Object.entries(op.responses || {}).map(
                ([status, one]) => el("tr", {}, el("td", {}, tag(
                    status < "300" ? "good" : status < "500" ? "warn"
                        : "bad", status)),
                el("td", {}, follow(doc, one).description || ""))))));
}

start("api", async (main) => {
    const doc = await (await fetch("/api/v1/openapi.json")).json();
    const groups = new Map();

    for (const [path, item] of Object.entries(doc.paths)) {
        for (const method of METHODS.filter((m) => item[m])) {
            const name = (item[method].tags || ["other"])[0];
            if (!groups.has(name)) {
                groups.set(name, []);
            }
            groups.get(name).push(operation(doc, path, method, item[method]));
        }
    }
    main.append(el("h1", {}, doc.info.title),
        el("p", { class: "lead" }, doc.info.description || ""),
        el("p", { class: "row" }, el("a", { href: "/api/v1/openapi.json" },
            "openapi.json"), el("a", { href: "/docs/operator/" },
            t("manual"))));
    for (const [name, list] of groups) {
        main.append(el("section", { class: "stack" }, el("h2", {}, name),
            list));
    }
    if (location.hash.length > 1) {
        const one = document.getElementById(location.hash.slice(1));
        if (one) {
            one.open = true;
            one.scrollIntoView();
        }
    }
});
