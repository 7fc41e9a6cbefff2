/*
 * Where a provider's visitor comes back: what went wrong, the code of a second
 * factor, or the session, which came as a cookie, and the page that was asked
 * for before.
 */

import { adopt, signedIn, ApiError } from "/kit/api.js";
import { start, t, el, note, param, explain } from "/kit/page.js";
import { next, secondStep } from "/account/forms.js";
import { wasGoing } from "/account/providers.js";

function failed(code) {
    const err = new ApiError(400, { code,
        detail: t("error.OAUTH_INVALID") }); /* for codes without words */

    return el("div", { class: "card" }, el("h1", {}, t("error.title")),
        note("bad", explain(err)),
        el("a", { class: "button wide", href: "/account/" },
            t(signedIn() ? "account" : "sign.in")));
}

start("sign.in", async (main) => {
    const linked = param("linked");
    const before = wasGoing();
    const to = linked ? `/account/?linked=${encodeURIComponent(linked)}`
        : next(before ?? param("next"));

    if (param("error")) {
        main.append(failed(param("error")));
        return;
    }
    if (param("step") === "code") {
        secondStep(main, null, {
            done: () => location.replace(to),
            again: (why) => {
                main.replaceChildren(el("div", { class: "card" },
                    el("h1", {}, t("sign.in")), why,
                    el("a", { class: "button wide", href: "/account/?next="
                        + encodeURIComponent(to) }, t("sign.in"))));
            } });
        return;
    }
    if (!linked) {
        await adopt();
    }
    location.replace(to);
}, { narrow: true });
