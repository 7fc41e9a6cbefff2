/*
 * Tokens as cookies: how they are read, set and cleared, and who may speak by
 * them.  "__Host-" makes browsers refuse one that a neighbor domain or a
 * plain connection sets; no script reads it.
 *
 * Browsers send a cookie whoever wrote the page.  So what authenticates by it
 * alone must show that the page was ours: by Sec-Fetch-Site, by an Origin
 * that is PUBLIC_URL or one of "stoa_cors", or by a header that a page of
 * another origin cannot set without asking first.  SameSite=Lax is a second
 * wall, not the first: a neighbor domain is the same site.
 */

#include "ngx_http_stoa.h"
#include "stoa_hmac.h"

#define NGX_HTTP_STOA_CSRF_BYTES 16   /* random, and as many of its MAC */
#define NGX_HTTP_STOA_COOKIE_MAX 4096 /* what browsers take of one */

static ngx_uint_t ngx_http_stoa_cookie_trusted(ngx_http_request_t *r);
static ngx_uint_t ngx_http_stoa_cookie_csrf_ok(ngx_http_request_t *r,
                                               stoa_str_t          token);

static const stoa_str_t ngx_http_stoa_cookie_names[] = {
    [NGX_HTTP_STOA_COOKIE_REFRESH] = stoa_string("__Host-stoa_refresh"),
    [NGX_HTTP_STOA_COOKIE_ACCESS] = stoa_string("__Host-stoa_access"),
    [NGX_HTTP_STOA_COOKIE_CSRF] = stoa_string("__Host-stoa_csrf"),
    [NGX_HTTP_STOA_COOKIE_MFA] = stoa_string("__Host-stoa_mfa"),
};

ngx_uint_t
ngx_http_stoa_cookie_on(ngx_http_request_t *r)
{
    return ngx_http_stoa_mcf(r)->cookies != NGX_HTTP_STOA_COOKIES_OFF;
}

/*
 * The token of the body or of the cookie.  With both they are the same: which
 * session was meant is not ours to guess.  The cookie alone, which browsers
 * send by themselves, is taken from pages of ours only.
 */
stoa_err_e
ngx_http_stoa_cookie_token(ngx_http_stoa_ctx_t *q, stoa_value_t *token)
{
    stoa_str_t cookie = stoa_null_string;

    *token = ngx_http_stoa_body_value(q, "refresh_token");

    if (token->data == NULL) {
        /* a script that does not know the token does not learn it */
        q->by_cookie = q->no_body_token = 1;

        return ngx_http_stoa_cookie_instead(q, NGX_HTTP_STOA_COOKIE_REFRESH,
                                            "/refreshToken", token);
    }

    if (!ngx_http_stoa_cookie_on(q->r)) {
        return STOA_OK;
    }

    if (ngx_http_stoa_cookie_read(q->r, NGX_HTTP_STOA_COOKIE_REFRESH, &cookie)
        != NGX_OK)
    {
        return STOA_E_BAD_REQUEST;
    }

    if (cookie.len == 0 || stoa_str_same_secret(*token, cookie)) {
        q->by_cookie = cookie.len != 0;
        return STOA_OK;
    }

    ngx_http_stoa_fault(q, "/refreshToken", "conflict",
                        "is not the token of the cookie");
    q->faulted = 1;

    return STOA_E_VALIDATION_FAILED;
}

stoa_err_e
ngx_http_stoa_cookie_instead(ngx_http_stoa_ctx_t   *q,
                             ngx_http_stoa_cookie_e which, const char *pointer,
                             stoa_value_t *value)
{
    stoa_str_t cookie = stoa_null_string;

    if (ngx_http_stoa_cookie_on(q->r)
        && ngx_http_stoa_cookie_read(q->r, which, &cookie) != NGX_OK)
    {
        return STOA_E_BAD_REQUEST;
    }

    if (cookie.len == 0) {
        ngx_http_stoa_fault(q, pointer, "required", "is required");
        q->faulted = 1;
        return STOA_E_VALIDATION_FAILED;
    }

    *value = cookie;

    return ngx_http_stoa_cookie_trusted(q->r) ? STOA_OK : STOA_E_CROSS_SITE;
}

/*
 * The access token of a browser, in mode "both".  Whatever another site's
 * page could have caused comes without one: a write that no page of ours
 * shows to have made, and a read that is not a visitor following a link.
 * NGX_DECLINED: there was one, but it does not count.
 */
ngx_int_t
ngx_http_stoa_cookie_access(ngx_http_request_t *r, stoa_str_t *token)
{
    stoa_str_t site, mode, value;

    *token = (stoa_str_t) stoa_null_string;

    if (ngx_http_stoa_process.mcf->cookies != NGX_HTTP_STOA_COOKIES_BOTH) {
        return NGX_OK;
    }

    if (ngx_http_stoa_cookie_read(r, NGX_HTTP_STOA_COOKIE_ACCESS, &value)
        != NGX_OK) {
        return NGX_DECLINED;
    }

    if (value.len == 0) {
        return NGX_OK;
    }

    /* a socket can be opened from any page, and is read by who opened it */

    if ((r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD | NGX_HTTP_OPTIONS)) == 0
        || r->headers_in.upgrade != NULL)
    {
        if (!ngx_http_stoa_cookie_trusted(r)) {
            return NGX_DECLINED;
        }

        *token = value;
        return NGX_OK;
    }

    site = ngx_http_stoa_header_in(r, "sec-fetch-site");
    mode = ngx_http_stoa_header_in(r, "sec-fetch-mode");

    if ((stoa_str_eq_z(site, "cross-site") || stoa_str_eq_z(site, "same-site"))
        && !stoa_str_eq_z(mode, "navigate") && !ngx_http_stoa_cookie_trusted(r))
    {
        return NGX_DECLINED;
    }

    *token = value;

    return NGX_OK;
}

ngx_int_t
ngx_http_stoa_cookie_set(ngx_http_request_t *r, ngx_http_stoa_cookie_e which,
                         stoa_str_t value, stoa_str_t max_age)
{
    return ngx_http_stoa_cookie_put(r, ngx_http_stoa_cookie_names[which], value,
                                    max_age);
}

ngx_int_t
ngx_http_stoa_cookie_put(ngx_http_request_t *r, stoa_str_t name,
                         stoa_str_t value, stoa_str_t max_age)
{
    stoa_mem_t mem;
    stoa_buf_t b;

    ngx_http_stoa_mem_init(&mem, r->pool);
    stoa_buf_init(&b, &mem, 256, NGX_HTTP_STOA_COOKIE_MAX);
    stoa_buf_str(&b, name);
    stoa_buf_char(&b, '=');
    stoa_buf_str(&b, value);

    if (max_age.len != 0) {
        stoa_buf_z(&b, "; Max-Age=");
        stoa_buf_str(&b, max_age);
    }

    stoa_buf_z(&b, "; Path=/; HttpOnly; Secure; SameSite=Lax");

    return b.failed ? NGX_ERROR
                    : ngx_http_stoa_header(r, "Set-Cookie", stoa_buf_view(&b));
}

/* It ends with the token: a browser that still sent it would be refused where
   it is not even needed. */
ngx_int_t
ngx_http_stoa_cookie_access_set(ngx_http_request_t *r, stoa_str_t token)
{
    u_char                     text[NGX_INT_T_LEN];
    stoa_str_t                 ttl;
    ngx_http_stoa_main_conf_t *mcf = ngx_http_stoa_mcf(r);

    if (mcf->cookies != NGX_HTTP_STOA_COOKIES_BOTH) {
        return NGX_OK;
    }

    ttl.data = text;
    ttl.len = (size_t) (ngx_sprintf(text, "%i",
                                    (ngx_int_t) mcf->conf.access_ttl)
                        - text);

    return ngx_http_stoa_cookie_set(r, NGX_HTTP_STOA_COOKIE_ACCESS, token, ttl);
}

ngx_int_t
ngx_http_stoa_cookie_clear(ngx_http_request_t *r)
{
    stoa_str_t now = stoa_string("0"), none = stoa_null_string;

    if (ngx_http_stoa_cookie_set(r, NGX_HTTP_STOA_COOKIE_REFRESH, none, now)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_stoa_mcf(r)->cookies == NGX_HTTP_STOA_COOKIES_BOTH
             ? ngx_http_stoa_cookie_set(r, NGX_HTTP_STOA_COOKIE_ACCESS, none,
                                        now)
             : NGX_OK;
}

/*
 * A token for the header X-CSRF-Token, for clients whose browser says nothing
 * of where a request comes from: the same value is set as a cookie that no
 * neighbor can plant, and is made here, so that neither alone nor a guess of
 * both is good (OWASP: signed double-submit cookie).
 */
stoa_err_e
ngx_http_stoa_cookie_csrf(ngx_http_request_t *r, stoa_buf_t *token)
{
    u_char     bytes[NGX_HTTP_STOA_CSRF_BYTES + 32];
    stoa_str_t secret = ngx_http_stoa_mcf(r)->csrf_secret;

    if (!stoa_random(bytes, NGX_HTTP_STOA_CSRF_BYTES)
        || !stoa_hmac_sha256(secret, bytes, NGX_HTTP_STOA_CSRF_BYTES,
                             bytes + NGX_HTTP_STOA_CSRF_BYTES))
    {
        return STOA_E_INTERNAL;
    }

    stoa_buf_base64url(token, bytes, 2 * NGX_HTTP_STOA_CSRF_BYTES);

    if (token->failed
        || ngx_http_stoa_cookie_set(r, NGX_HTTP_STOA_COOKIE_CSRF,
                                    stoa_buf_view(token),
                                    (stoa_str_t) stoa_null_string)
               != NGX_OK)
    {
        return STOA_E_NO_MEMORY;
    }

    return STOA_OK;
}

ngx_int_t
ngx_http_stoa_cookie_read(ngx_http_request_t *r, ngx_http_stoa_cookie_e which,
                          stoa_str_t *value)
{
    return ngx_http_stoa_cookie_find(r, ngx_http_stoa_cookie_names[which],
                                     value);
}

ngx_int_t
ngx_http_stoa_cookie_find(ngx_http_request_t *r, stoa_str_t name,
                          stoa_str_t *value)
{
    stoa_str_t              found, of;
    ngx_http_stoa_cookies_t all;

    *value = (stoa_str_t) stoa_null_string;
    ngx_memzero(&all, sizeof(all));

    while (ngx_http_stoa_cookie_next(r, &all, &of, &found)) {

        if (!stoa_str_eq(of, name) || found.len == 0) {
            continue; /* empty: cleared, in browsers that keep the name */
        }

        if (value->len != 0 && !stoa_str_same_secret(*value, found)) {
            return NGX_DECLINED;
        }

        *value = found;
    }

    return NGX_OK;
}

/* Whether the request shows that a page of ours, or an allowed one, sent it.
   A token that is given must be right, whatever else speaks for it. */
static ngx_uint_t
ngx_http_stoa_cookie_trusted(ngx_http_request_t *r)
{
    stoa_str_t own, origin, csrf;

    csrf = ngx_http_stoa_header_in(r, "x-csrf-token");

    if (csrf.len != 0) {
        return ngx_http_stoa_cookie_csrf_ok(r, csrf);
    }

    /* what browsers say of themselves: no page can set or change it */

    if (stoa_str_eq_z(ngx_http_stoa_header_in(r, "sec-fetch-site"),
                      "same-origin")
        || ngx_http_stoa_header_in(r, "x-requested-with").len != 0)
    {
        return 1;
    }

    origin = ngx_http_stoa_header_in(r, "origin");
    own = stoa_str_z(ngx_http_stoa_mcf(r)->conf.public_url);

    if (origin.len != 0 && origin.len == own.len
        && ngx_strncasecmp(origin.data, own.data, own.len) == 0)
    {
        return 1;
    }

    return ngx_http_stoa_cors_allowed(r, &origin) == NGX_OK;
}

static ngx_uint_t
ngx_http_stoa_cookie_csrf_ok(ngx_http_request_t *r, stoa_str_t token)
{
    u_char     bytes[2 * NGX_HTTP_STOA_CSRF_BYTES], mac[32];
    stoa_str_t cookie, sent, made;

    if (ngx_http_stoa_cookie_read(r, NGX_HTTP_STOA_COOKIE_CSRF, &cookie)
            != NGX_OK
        || !stoa_str_same_secret(token, cookie)
        || stoa_base64url_decode(bytes, sizeof(bytes), token) != sizeof(bytes)
        || !stoa_hmac_sha256(ngx_http_stoa_mcf(r)->csrf_secret, bytes,
                             NGX_HTTP_STOA_CSRF_BYTES, mac))
    {
        return 0;
    }

    sent.data = bytes + NGX_HTTP_STOA_CSRF_BYTES;
    sent.len = NGX_HTTP_STOA_CSRF_BYTES;
    made.data = mac;
    made.len = NGX_HTTP_STOA_CSRF_BYTES;

    return stoa_str_same_secret(sent, made);
}

/* The next header with cookies; 0: there is none. */
static ngx_uint_t
ngx_http_stoa_cookie_header(ngx_http_request_t *r, ngx_http_stoa_cookies_t *all)
{
    ngx_table_elt_t *h;

    if (all->part == NULL) {
        all->part = &r->headers_in.headers.part;
    }

    for (;;) {

        if (all->i >= all->part->nelts) {
            if (all->part->next == NULL) {
                return 0;
            }

            all->part = all->part->next;
            all->i = 0;
            continue;
        }

        h = all->part->elts;
        h += all->i++;

        if (h->key.len == 6 && ngx_memcmp(h->lowcase_key, "cookie", 6) == 0) {
            all->p = h->value.data;
            all->last = h->value.data + h->value.len;
            return 1;
        }
    }
}

/* "a=1; b=2": one after the other, over all headers. */
ngx_uint_t
ngx_http_stoa_cookie_next(ngx_http_request_t *r, ngx_http_stoa_cookies_t *all,
                          stoa_str_t *name, stoa_str_t *value)
{
    u_char *p, *end, *eq;

    for (;;) {
        while (all->p < all->last
               && (*all->p == ' ' || *all->p == '\t' || *all->p == ';'))
        {
            all->p++;
        }

        if (all->p == all->last) {
            if (!ngx_http_stoa_cookie_header(r, all)) {
                return 0;
            }

            continue;
        }

        p = all->p;
        end = ngx_strlchr(p, all->last, ';');
        end = end == NULL ? all->last : end;
        all->p = end;
        eq = ngx_strlchr(p, end, '=');

        if (eq == NULL) {
            continue;
        }

        while (end > eq + 1 && (end[-1] == ' ' || end[-1] == '\t')) {
            end--;
        }

        name->data = p;
        name->len = (size_t) (eq - p);
        value->data = eq + 1;
        value->len = (size_t) (end - value->data);

        return 1;
    }
}
