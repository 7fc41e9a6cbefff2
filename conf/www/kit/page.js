/*
 * The frame of every page: words, language, header, footer, offline notice,
 * and a few helpers to build elements without markup in strings.
 */

import { signedIn, signOut, acting, actNoMore, onStepUp, ApiError }
    from "/kit/api.js";

const LANGS = { en: "English", ar: "العربية", de: "Deutsch", es: "Español",
    fr: "Français", it: "Italiano" };

let words = {};
let fallback = {};
let lang = "en";

function pick() {
    const asked = [localStorage.getItem("stoa.lang"), ...navigator.languages];
    for (const one of asked) {
        const short = String(one || "").slice(0, 2).toLowerCase();
        if (LANGS[short]) {
            return short;
        }
    }
    return "en";
}

async function load(name) {
    const answer = await fetch(`/kit/words/${name}.json`);
    return answer.ok ? answer.json() : {};
}

/* loaded when a call needs it */
onStepUp(async () => (await import("/kit/mfa.js")).stepUp());

/* Text by key; {name} is replaced by args.name. */
export function t(key, args = {}) {
    const text = words[key] ?? fallback[key] ?? key;
    return text.replace(/\{(\w+)\}/g, (_, name) => args[name] ?? "");
}

/* el("p", {class: "soft"}, "text", child, ...) */
export function el(name, attrs = {}, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attrs)) {
        if (key.startsWith("on")) {
            node.addEventListener(key.slice(2), value);
        } else if (value === true) {
            node.setAttribute(key, "");
        } else if (value !== false && value !== null && value !== undefined) {
            node.setAttribute(key, String(value));
        }
    }
    node.append(...children.flat().filter((c) => c !== null
        && c !== undefined && c !== false));
    return node;
}

export function money(minor, currency) {
    const format = new Intl.NumberFormat(lang, { style: "currency", currency });
    const digits = format.resolvedOptions().maximumFractionDigits;
    return format.format(Number(minor) / 10 ** digits);
}

export function price(minor, currency) {
    return Number(minor) === 0 ? t("free") : money(minor, currency);
}

export function when(iso, zone, style = "long") {
    const options = style === "long"
        ? { dateStyle: "full", timeStyle: "short" }
        : { dateStyle: "medium", timeStyle: "short" };
    try {
        return new Intl.DateTimeFormat(lang, { ...options, timeZone: zone })
            .format(new Date(iso));
    } catch {
        return new Intl.DateTimeFormat(lang, options).format(new Date(iso));
    }
}

export function param(name) {
    return new URLSearchParams(location.search).get(name);
}

/* A sentence for whatever went wrong. */
export function explain(err) {
    if (err instanceof ApiError) {
        const key = `error.${err.code}`;
        const known = words[key] ?? fallback[key];
        if (known) {
            return known.replace(/\{(\w+)\}/g,
                (_, name) => err.problem[name] ?? "");
        }
        return err.message;
    }
    return navigator.onLine ? t("error.network") : t("offline");
}

export function note(kind, text) {
    return el("p", { class: `note ${kind}`, role: kind === "bad" ? "alert"
        : "status" }, text);
}

export function tag(kind, text) {
    return el("span", { class: `tag ${kind}` }, text);
}

/* A labelled input; .setError(text or null) marks it. */
export function field(name, label, attrs = {}, hint = null) {
    const id = `f-${name}`;
    const input = el("input", { id, name, ...attrs });
    const error = el("span", { class: "field-error", id: `${id}-e`,
        hidden: true });
    const node = el("label", { for: id }, label, input,
        hint ? el("span", { class: "hint", id: `${id}-h` }, hint) : null,
        error);
    if (hint) {
        input.setAttribute("aria-describedby", `${id}-h`);
    }
    node.input = input;
    node.setError = (text) => {
        error.hidden = !text;
        error.textContent = text || "";
        if (text) {
            input.setAttribute("aria-invalid", "true");
            input.setAttribute("aria-describedby", `${id}-e`);
        } else {
            input.removeAttribute("aria-invalid");
        }
    };
    return node;
}

/* Shows an ApiError at the fields it names and in the slot. */
export function showError(err, slot, fields = {}) {
    let first = null;
    for (const [name, node] of Object.entries(fields)) {
        const fault = err instanceof ApiError ? err.fields.get(name) : null;
        node.setError(fault ? (t(`fault.${fault.code}`) === `fault.${fault.code}`
            ? fault.detail : t(`fault.${fault.code}`)) : null);
        if (fault && !first) {
            first = node.input;
        }
    }
    slot.replaceChildren(note("bad", explain(err)));
    if (first) {
        first.focus();
    }
}

function header() {
    const here = location.pathname;
    const link = (href, text) => el("a", { href,
        "aria-current": here.startsWith(href) && (href !== "/events/"
            || !here.startsWith("/events/tickets/")) ? "page" : null }, text);
    const choose = el("select", { "aria-label": t("language"),
        onchange: () => {
            localStorage.setItem("stoa.lang", choose.value);
            location.reload();
        } },
        Object.entries(LANGS).map(([code, name]) => el("option",
            { value: code, selected: code === lang, lang: code }, name)));
    const nav = el("nav", { "aria-label": t("menu") },
        link("/events/", t("events")));

    if (signedIn()) {
        nav.append(link("/events/tickets/", t("my.tickets")),
            link("/account/", t("account")));
        /* what ends then is not the admin's own session */
        nav.append(acting() ? "" : el("button", { class: "plain", type: "button",
                onclick: async () => {
                    await signOut().catch(() => {});
                    location.assign("/events/");
                } }, t("sign.out")));
    } else {
        nav.append(link("/account/", t("sign.in")));
    }
    return el("header", { class: "bar" }, el("div", {},
        el("a", { class: "brand", href: "/events/" },
            el("img", { src: "/kit/mark.svg", alt: "", width: 28,
                height: 28 }), "Stoa"),
        nav, choose));
}

/* On every page, as long as an admin acts in somebody's name. */
function banner() {
    const as = acting();

    return as && el("aside", { class: "acting", "aria-label":
        t("acting.title") },
    el("p", { role: "status" }, t("acting.banner", { name: as.name,
        until: when(new Date(as.until).toISOString(), undefined,
            "medium") })),
    el("button", { type: "button", class: "second", onclick: () => {
        actNoMore();
        location.assign("/account/");
    } }, t("acting.end")));
}

/*
 * Every page's script: start("title key", async (main) => { ... }).
 * main is empty and focusable; what the function throws is shown.
 */
export async function start(title, fill, options = {}) {
    lang = pick();
    document.documentElement.lang = lang;
    document.documentElement.dir = lang === "ar" ? "rtl" : "ltr";
    [fallback, words] = await Promise.all([load("en"), load(lang)]);

    const main = el("main", { id: "main", tabindex: "-1",
        class: options.narrow ? "narrow" : null });
    const offline = el("p", { class: "offline", role: "status",
        hidden: navigator.onLine }, t("offline"));
    window.addEventListener("online", () => { offline.hidden = true; });
    window.addEventListener("offline", () => { offline.hidden = false; });
    setTitle(t(title));
    document.body.replaceChildren(
        el("a", { class: "skip", href: "#main" }, t("skip")),
        banner() || "", header(), offline, main,
        el("footer", {}, t("footer")));
    try {
        await fill(main);
    } catch (err) {
        main.replaceChildren(el("h1", {}, t("error.title")),
            note("bad", explain(err)),
            el("div", { class: "row" },
                el("button", { type: "button",
                    onclick: () => location.reload() }, t("retry")),
                el("a", { class: "button second", href: "/events/" },
                    t("events"))));
    }
    document.body.dataset.ready = "yes";
}

export function setTitle(text) {
    document.title = `${text} · Stoa`;
}

/* Sends people who are not signed in to the account page and back. */
export function mustSignIn() {
    if (!signedIn()) {
        location.replace(`/account/?next=${encodeURIComponent(
            location.pathname + location.search)}`);
        return true;
    }
    return false;
}
