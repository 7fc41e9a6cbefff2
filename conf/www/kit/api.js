/*
 * The API client of every page: envelope, sign-in state, refresh, retry,
 * Idempotency-Key.
 *
 * The access token lives in memory only.  The refresh token lives in a cookie
 * that no script reads, where the browser takes it and the server gives it;
 * until that has been seen, and elsewhere, in localStorage.  Either way tabs
 * share one login; one tab at a time refreshes (Web Locks), and the server
 * gives racing tabs the same successor anyway.
 */

const BASE = "/api/v1";
const STORE = "stoa.refresh"; /* the token, or where it is */
const COOKIE = "cookie";
const ACTING = "stoa.acting"; /* of this tab: an admin in somebody's name */
const RETRIES = 3;
const COOKIES = ["/auth/", "/users/me/identities"]; /* rows that set some */

/* 401 that says nothing about the token: a wrong password, a missing code */
const NOT_TOKEN = ["INVALID_CREDENTIALS", "STEP_UP_REQUIRED"];

let access = null;
let accessUntil = 0;
let prove = null;

export class ApiError extends Error {
    constructor(status, problem) {
        super(problem.detail || problem.title || "error");
        this.status = status;
        this.code = problem.code || "INTERNAL";
        this.problem = problem;
        this.fields = new Map();
        for (const fault of problem.errors || []) {
            this.fields.set(String(fault.pointer || "").replace(/^\//, ""),
                fault);
        }
    }
}

export function signedIn() {
    return localStorage.getItem(STORE) !== null;
}

export function keep(grant) {
    access = grant.accessToken;
    accessUntil = Date.now() + ((grant.expiresIn || 900) - 20) * 1000;
    if (grant.cookie || grant.refreshToken) {
        localStorage.setItem(STORE,
            grant.cookie ? COOKIE : grant.refreshToken);
    }
}

export function forget() {
    access = null;
    accessUntil = 0;
    localStorage.removeItem(STORE);
}

/* {token, until, name} while an admin acts in somebody's name, else null. */
export function acting() {
    let one = null;

    try {
        one = JSON.parse(sessionStorage.getItem(ACTING));
    } catch { /* not ours: none */
        one = null;
    }
    if (one && Date.now() < one.until) {
        return one;
    }
    sessionStorage.removeItem(ACTING);
    return null;
}

export function act(grant) {
    sessionStorage.setItem(ACTING, JSON.stringify({
        token: grant.accessToken, until: Date.parse(grant.expiresAt),
        name: grant.user.name }));
}

export function actNoMore() {
    sessionStorage.removeItem(ACTING);
}

/* ask(): shows a fresh code of the second factor, answers whether it did. */
export function onStepUp(ask) {
    prove = ask;
}

function pause(ms) {
    return new Promise((done) => setTimeout(done, ms));
}

/* Cookies are set by the rows of sign-in, and used where no token is. */
async function once(method, path, { body, token, headers, cookies }) {
    const h = { Accept: "application/json", ...headers };

    if (token) {
        h.Authorization = `Bearer ${token}`;
    }
    if (body !== undefined) {
        h["Content-Type"] = "application/json";
    }
    if (document.documentElement.lang) {
        h["Accept-Language"] = document.documentElement.lang;
    }
    const answer = await fetch(BASE + path, {
        method,
        headers: h,
        body: body === undefined ? undefined : JSON.stringify(body),
        cache: "no-store",
        credentials: cookies ?? COOKIES.some((one) => path.startsWith(one))
            ? "same-origin" : "omit",
    });
    const text = await answer.text();
    let json = null;
    try {
        json = text === "" ? null : JSON.parse(text);
    } catch {
        json = null;
    }
    return { answer, json };
}

async function refreshed(force) {
    const turn = async () => {
        const stored = localStorage.getItem(STORE);
        if (stored === null) {
            return null;
        }
        if (!force && access !== null && Date.now() < accessUntil) {
            return access;
        }
        const body = stored === COOKIE ? {} : { refreshToken: stored };
        let { answer, json } = await once("POST", "/auth/refresh", { body });
        if (answer.status === 400 && stored !== COOKIE) { /* the cookie is another sign-in's */
            ({ answer, json } = await once("POST", "/auth/refresh",
                { body, cookies: false }));
        }
        if (answer.ok && json) {
            keep(json.data);
            return access;
        }
        if (answer.status === 400 || answer.status === 401) {
            forget();
            return null;
        }
        throw new ApiError(answer.status, (json && json.error) || {});
    };
    if (navigator.locks) {
        return navigator.locks.request("stoa.refresh", turn);
    }
    return turn();
}

/*
 * options: body; key: true adds an Idempotency-Key, so that a repeat after a
 * lost answer has one effect; open: true sends no token.
 * Answers {data, meta, status}; throws ApiError, or TypeError when offline.
 */
export async function call(method, path, options = {}) {
    const headers = { ...options.headers };
    const safe = method === "GET" || options.key;
    const as = options.open ? null : acting();
    let token = as && as.token;
    let renewed = as !== null; /* such a token is never renewed */
    let proved = false;

    if (options.key) {
        headers["Idempotency-Key"] = typeof options.key === "string"
            ? options.key : crypto.randomUUID();
    }
    if (!options.open && !as && signedIn()) {
        token = access !== null && Date.now() < accessUntil
            ? access : await refreshed(false);
    }
    for (let attempt = 1; ; attempt++) {
        let got;
        try {
            got = await once(method, path,
                { body: options.body, token, headers });
        } catch (err) {
            if (!safe || attempt >= RETRIES) {
                throw err;
            }
            await pause(300 * 2 ** attempt * (0.5 + Math.random()));
            continue;
        }
        const { answer, json } = got;
        if (answer.ok) {
            return {
                data: json ? json.data : null,
                meta: json ? json.meta : null,
                status: answer.status,
                location: answer.headers.get("Location"),
                etag: answer.headers.get("ETag"),
            };
        }
        const problem = (json && json.error) || {};
        if (problem.code === "STEP_UP_REQUIRED" && prove && !proved) {
            proved = true;
            if (await prove()) {
                token = access;
                continue;
            }
        }
        if (answer.status === 401 && token && !renewed
            && !NOT_TOKEN.includes(problem.code)) {
            renewed = true;
            token = await refreshed(true);
            if (token) {
                continue;
            }
        }
        const busy = answer.status === 503 || answer.status === 429
            || problem.code === "IN_FLIGHT";
        if (busy && (safe || problem.code !== "COMMIT_UNKNOWN")
            && attempt < RETRIES) {
            const wait = Number(answer.headers.get("Retry-After") || 1);
            if (wait <= 5) {
                await pause(wait * 1000 * (0.8 + 0.4 * Math.random()));
                continue;
            }
        }
        if (answer.status === 401 && as
            && problem.code !== "INVALID_CREDENTIALS") {
            actNoMore();
        }
        throw new ApiError(answer.status, problem);
    }
}

/* New tokens, and cookies where the server gives them; whether it worked. */
export async function renew() {
    return await refreshed(true) !== null;
}

/* The session that came as a cookie takes the place of this one. */
export async function adopt() {
    const turn = async () => {
        const { answer, json } = await once("POST", "/auth/refresh",
            { body: {} });
        if (!answer.ok) {
            throw new ApiError(answer.status, (json && json.error) || {});
        }
        keep(json.data);
    };
    await (navigator.locks ? navigator.locks.request("stoa.refresh", turn)
        : turn());
}

/* A protected file (QR, PDF) as an object URL; the caller revokes it. */
export async function file(path) {
    const as = acting();
    for (let attempt = 1; ; attempt++) {
        const token = as ? as.token : access !== null && Date.now() < accessUntil
            ? access : await refreshed(false);
        const answer = await fetch(BASE + path, {
            headers: token ? { Authorization: `Bearer ${token}` } : {},
            credentials: "omit",
        });
        if (answer.status === 202 && attempt < 5) {
            await pause(1000);
            continue;
        }
        if (!answer.ok || answer.status === 202) {
            let problem = {};
            try {
                problem = (await answer.json()).error || {};
            } catch { /* not JSON: the status must do */ }
            throw new ApiError(answer.status, problem);
        }
        return URL.createObjectURL(await answer.blob());
    }
}

export async function signOut() {
    try {
        await call("POST", "/auth/logout", { body: {} });
    } finally {
        forget();
    }
}
