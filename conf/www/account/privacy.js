/*
 * What one agrees to, under the account; asked again when the policy changed.
 */

import { call } from "/kit/api.js";
import { t, el, note, explain } from "/kit/page.js";

export function consents() {
    const slot = el("div");
    const list = el("div", { class: "stack" });
    const submit = el("button", { type: "submit", class: "wide" },
        t("privacy.keep"));
    const form = el("form", {}, list, slot, submit);
    const boxes = new Map();
    let version = null;

    function show(data) {
        version = data.policyVersion;
        list.replaceChildren(...data.consents.map(({ kind, granted }) => {
            const box = el("input", { type: "checkbox", id: `agree-${kind}` });

            box.checked = granted;
            boxes.set(kind, box);
            return el("label", { class: "check", for: box.id }, box,
                t(`privacy.${kind}`));
        }));
    }

    const load = async () =>
        show((await call("GET", "/privacy/consents")).data);

    form.addEventListener("submit", async (e) => {
        e.preventDefault();
        submit.disabled = true;
        try {
            show((await call("POST", "/privacy/consents", { body: {
                policyVersion: version, ...Object.fromEntries(
                    [...boxes].map(([kind, box]) => [kind, box.checked])),
            } })).data);
            slot.replaceChildren(note("good", t("saved")));
        } catch (err) {
            if (err.fields?.has("policyVersion")) { /* a new one meanwhile */
                await load().catch(() => {});
            }
            slot.replaceChildren(note("bad", explain(err)));
        } finally {
            submit.disabled = false;
        }
    });
    load().catch((err) => slot.replaceChildren(note("bad", explain(err))));
    return el("section", { class: "card stack", "aria-labelledby": "privacy" },
        el("h2", { id: "privacy" }, t("privacy")),
        el("p", { class: "soft" }, t("privacy.lead")), form);
}
