/*
 * Sign in, register, ask for a new password; and the signed-in view: one's
 * name, the address with its confirmation and change, the password, providers
 * (providers.js), the second factor (mfa.js), the devices where one is signed
 * in, what one agrees to (privacy.js), and where API keys are.  Who acts in somebody's name sees the name alone.  "#forgot" asks
 * for a new password whoever is signed in.
 */

import { call, keep, renew, signedIn, signOut, acting } from "/kit/api.js";
import { start, t, el, note, tag, when, field, showError, param, explain }
    from "/kit/page.js";
import { form, swap, link, next, secondStep } from "/account/forms.js";
import { secondFactor } from "/account/mfa.js";
import { withOthers, identities } from "/account/providers.js";
import { consents } from "/account/privacy.js";

/*
 * A page behind a gate sent its visitor here because the cookie had ended,
 * which a new one mends; not twice within 10 seconds, if it does not.
 */
async function goOn() {
    const mark = `stoa.next ${next()}`;
    const last = Number(sessionStorage.getItem(mark) || 0);

    if (!param("next") || Date.now() - last < 10000 || !await renew()) {
        return false;
    }
    sessionStorage.setItem(mark, String(Date.now()));
    location.replace(next());
    return true;
}

function signIn(main) {
    const fields = {
        email: field("email", t("email"), { type: "email", required: true,
            autocomplete: "username", maxlength: 254 }),
        password: field("password", t("password"), { type: "password",
            required: true, autocomplete: "current-password",
            maxlength: 128 }),
    };
    const remember = el("input", { type: "checkbox", id: "remember" });

    swap(main, form(t("sign.in"), fields, t("sign.in"), async () => {
        try {
            const { data } = await call("POST", "/auth/login", { open: true,
                body: { email: fields.email.input.value.trim(),
                    password: fields.password.input.value,
                    remember: remember.checked } });
            keep(data);
            location.assign(next());
        } catch (err) {
            if (err.code !== "MFA_REQUIRED") {
                throw err;
            }
            secondStep(main, err.problem.mfaToken, {
                done: () => location.assign(next()),
                again: (why) => {
                    signIn(main);
                    main.append(why);
                } });
        }
    }, [
        el("label", { class: "check", for: "remember" }, remember,
            t("remember")),
        link(t("register"), () => register(main)),
        link(t("forgot"), () => forgot(main)),
        withOthers(next()),
    ]));
}

function register(main) {
    const fields = {
        firstName: field("firstName", t("first.name"), { required: true,
            autocomplete: "given-name", maxlength: 100 }),
        lastName: field("lastName", t("last.name"), { required: true,
            autocomplete: "family-name", maxlength: 100 }),
        email: field("email", t("email"), { type: "email", required: true,
            autocomplete: "username", maxlength: 254 }),
        password: field("password", t("password"), { type: "password",
            required: true, minlength: 8, maxlength: 128,
            autocomplete: "new-password" }, t("password.hint")),
    };

    swap(main, form(t("register"), fields, t("register"), async () => {
        const body = {};
        for (const [name, node] of Object.entries(fields)) {
            body[name] = name === "password" ? node.input.value
                : node.input.value.trim();
        }
        const { data } = await call("POST", "/auth/register",
            { open: true, body });
        if (!data.accessToken) { /* not before the address is confirmed */
            main.replaceChildren(el("div", { class: "card" },
                el("h1", {}, t("register")),
                note("good", t("error.EMAIL_NOT_VERIFIED"))));
            return;
        }
        keep(data);
        location.assign(next());
    }, [link(t("have.account"), () => signIn(main))]));
}

function forgot(main) {
    const fields = {
        email: field("email", t("email"), { type: "email", required: true,
            autocomplete: "username", maxlength: 254 }),
    };

    swap(main, form(t("forgot"), fields, t("send.link"), async (slot) => {
        await call("POST", "/auth/forgot-password", { open: true,
            body: { email: fields.email.input.value.trim() } });
        slot.replaceChildren(note("good", t("forgot.sent")));
    }, [link(t("sign.in"), () => signIn(main))]));
}

/* The address: whether it is confirmed, and another one. */
function address(me) {
    const slot = el("div");
    const resend = el("button", { type: "button", class: "second wide",
        onclick: async () => {
            resend.disabled = true;
            try {
                await call("POST", "/auth/resend-verification");
                slot.replaceChildren(note("good", t("verify.sent")));
            } catch (err) {
                resend.disabled = false;
                showError(err, slot);
            }
        } }, t("verify.send"));
    const fields = {
        newEmail: field("newEmail", t("email.new"), { type: "email",
            required: true, autocomplete: "email", maxlength: 254 }),
        password: field("password", t("password"), { type: "password",
            required: true, autocomplete: "current-password",
            maxlength: 128 }),
    };
    const node = form(t("email"), fields, t("email.change"), async (at) => {
        await call("POST", "/users/me/email", { body: {
            newEmail: fields.newEmail.input.value.trim(),
            password: fields.password.input.value } });
        fields.password.input.value = "";
        at.replaceChildren(note("good", t("email.sent")));
    });

    node.querySelector("h1").replaceWith(el("h2", {}, t("email")),
        el("p", {}, me.email, " ", me.emailVerified
            ? tag("good", t("verified")) : tag("warn", t("unverified"))),
        slot);
    if (!me.emailVerified) {
        slot.after(resend);
    }
    return node;
}

async function profile(main) {
    const got = await call("GET", "/users/me");
    const { data } = got;
    let { etag } = got;
    const me = data.user || data;
    const fields = {
        firstName: field("firstName", t("first.name"), { maxlength: 100,
            value: me.firstName, autocomplete: "given-name" }),
        lastName: field("lastName", t("last.name"), { maxlength: 100,
            value: me.lastName, autocomplete: "family-name" }),
    };

    const secrets = {
        currentPassword: field("currentPassword", t("password.current"), {
            type: "password", required: true, maxlength: 128,
            autocomplete: "current-password" }),
        newPassword: field("newPassword", t("password.new"), {
            type: "password", required: true, minlength: 8, maxlength: 128,
            autocomplete: "new-password" }, t("password.hint")),
    };

    const change = form(t("password.change"), secrets, t("password.change"),
        async (slot) => {
            const got = await call("POST", "/auth/change-password", { body: {
                currentPassword: secrets.currentPassword.input.value,
                newPassword: secrets.newPassword.input.value } });

            keep(got.data);
            /* the change is one of the account's versions */
            ({ etag } = await call("GET", "/users/me"));
            for (const { input } of Object.values(secrets)) {
                input.value = "";
            }
            slot.replaceChildren(note("good", t("password.changed")));
        });

    change.querySelector("h1").replaceWith(el("h2", {}, t("password.change")));
    main.replaceChildren(form(t("account"), fields, t("save"),
        async (slot) => {
            /* what another window saved meanwhile is not written over */
            ({ etag } = await call("PATCH", "/users/me", {
                headers: { "If-Match": etag }, body: {
                    firstName: fields.firstName.input.value.trim(),
                    lastName: fields.lastName.input.value.trim() } }));
            slot.replaceChildren(note("good", t("saved")));
        }));
    if (!acting()) {
        main.append(address(me), change, identities(), secondFactor(),
            devices(), consents(), more(me));
    }
}

function more(me) {
    const admin = me.roles.includes("admin");

    return el("section", { class: "card stack", "aria-labelledby": "keys" },
        el("h2", { id: "keys" }, t("keys")),
        el("p", { class: "soft" }, t("keys.lead")),
        el("p", {}, el("a", { href: "/account/keys/" }, t("keys.open"))),
        admin ? el("p", {}, el("a", { href: "/account/acting/" },
            t("acting.title"))) : null);
}

function device(session, end) {
    const used = t("device.used",
        { when: when(session.lastUsedAt, undefined, "medium") });

    return el("li", {},
        el("div", {}, el("h3", {}, session.deviceName),
            el("p", { class: "soft small" }, session.ip
                ? `${used} · ${session.ip}` : used),
            session.current ? el("p", {}, tag("good", t("device.this")))
                : null),
        el("button", { type: "button", class: "second",
            "aria-label": `${t("device.end")}: ${session.deviceName}, ${used}`,
            onclick: (e) => end(e.currentTarget, session) },
        t("device.end")));
}

/* After an end the list is read anew, and its heading has the focus: the
   button that was pressed is gone. */
function devices() {
    const title = el("h2", { id: "devices", tabindex: "-1" }, t("devices"));
    const list = el("ul", { class: "lines" });
    const slot = el("div");
    const all = el("button", { type: "button", class: "second wide",
        hidden: true }, t("devices.end"));

    async function load() {
        const { data } = await call("GET", "/auth/sessions?limit=100");
        list.replaceChildren(...data.map((one) => device(one, end)));
        all.hidden = data.every(({ current }) => current);
    }

    async function work(button, send) {
        button.disabled = true;
        try {
            const word = await send();

            await load(); /* what is said is true of what is shown */
            slot.replaceChildren(note("good", word));
            title.focus();
        } catch (err) {
            slot.replaceChildren(note("bad", explain(err)));
        } finally {
            button.disabled = false;
        }
    }

    async function end(button, session) {
        if (session.current) {
            button.disabled = true;
            await signOut().catch(() => {});
            location.reload();
            return;
        }
        await work(button, async () => {
            await call("DELETE", `/auth/sessions/${session.id}`)
                .catch((err) => {
                    if (err.code !== "NOT_FOUND") { /* ended elsewhere */
                        throw err;
                    }
                });
            return t("device.ended");
        });
    }

    all.addEventListener("click", () => work(all, async () => {
        await call("DELETE", "/auth/sessions");
        return t("devices.ended");
    }));
    load().catch((err) => slot.replaceChildren(note("bad", explain(err))));
    return el("section", { class: "card stack", "aria-labelledby": "devices" },
        title, el("p", { class: "soft" }, t("devices.lead")), list, slot, all);
}

start("account", async (main) => {
    window.addEventListener("hashchange", () => location.reload());
    if (location.hash === "#forgot") {
        forgot(main);
        return;
    }
    if (!signedIn()) {
        signIn(main);
        return;
    }
    if (await goOn()) {
        return;
    }
    try {
        await profile(main);
    } catch (err) {
        if (err.status !== 401) {
            throw err;
        }
        signIn(main);
        main.append(note("warn", explain(err)));
    }
}, { narrow: true });
