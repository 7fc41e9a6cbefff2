/*
 * The refresh token as a cookie: how it is read, set and cleared, and who may
 * speak by it.  "__Host-" makes browsers refuse one that a neighbor domain or
 * a plain connection sets; no script reads it.
 *
 * Browsers send a cookie whoever wrote the page.  So what authenticates by it
 * alone must show that the page was ours: by Sec-Fetch-Site, by an Origin
 * that is PUBLIC_URL or one of "stoa_cors", or by a header that a page of
 * another origin cannot set without asking first.  SameSite=Lax is a second
 * wall, not the first: a neighbor domain is the same site.
 */

#include "ngx_http_stoa.h"

#define NGX_HTTP_STOA_COOKIE_MAX 256 /* of the header that sets it */

static ngx_int_t  ngx_http_stoa_cookie_read(ngx_http_request_t *r,
                                            stoa_str_t         *value);
static ngx_uint_t ngx_http_stoa_cookie_trusted(ngx_http_request_t *r);
static ngx_int_t  ngx_http_stoa_cookie_scan(stoa_str_t  header,
                                            stoa_str_t *value);

static const ngx_str_t ngx_http_stoa_cookie_name = ngx_string(
    "__Host-stoa_refresh");

ngx_uint_t
ngx_http_stoa_cookie_on(ngx_http_request_t *r)
{
    return ngx_strcmp(ngx_http_stoa_mcf(r)->conf.auth_cookie_mode, "refresh")
        == 0;
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

    if (ngx_http_stoa_cookie_on(q->r)
        && ngx_http_stoa_cookie_read(q->r, &cookie) != NGX_OK)
    {
        return STOA_E_BAD_REQUEST;
    }

    if (token->data != NULL) {

        if (cookie.len == 0 || stoa_str_same_secret(*token, cookie)) {
            return STOA_OK;
        }

        ngx_http_stoa_fault(q, "/refreshToken", "conflict",
                            "is not the token of the cookie");
        q->faulted = 1;
        return STOA_E_VALIDATION_FAILED;
    }

    if (cookie.len == 0) {
        ngx_http_stoa_fault(q, "/refreshToken", "required", "is required");
        q->faulted = 1;
        return STOA_E_VALIDATION_FAILED;
    }

    *token = cookie;

    return ngx_http_stoa_cookie_trusted(q->r) ? STOA_OK : STOA_E_CROSS_SITE;
}

ngx_int_t
ngx_http_stoa_cookie_set(ngx_http_stoa_ctx_t *q, stoa_str_t value,
                         stoa_str_t max_age)
{
    stoa_buf_t b;

    stoa_buf_init(&b, &q->mem, NGX_HTTP_STOA_COOKIE_MAX,
                  NGX_HTTP_STOA_COOKIE_MAX);
    stoa_buf_put(&b, ngx_http_stoa_cookie_name.data,
                 ngx_http_stoa_cookie_name.len);
    stoa_buf_char(&b, '=');
    stoa_buf_str(&b, value);

    if (max_age.len != 0) {
        stoa_buf_z(&b, "; Max-Age=");
        stoa_buf_str(&b, max_age);
    }

    stoa_buf_z(&b, "; Path=/; HttpOnly; Secure; SameSite=Lax");

    return b.failed
             ? NGX_ERROR
             : ngx_http_stoa_header(q->r, "Set-Cookie", stoa_buf_view(&b));
}

ngx_int_t
ngx_http_stoa_cookie_clear(ngx_http_stoa_ctx_t *q)
{
    return ngx_http_stoa_cookie_set(q, (stoa_str_t) stoa_null_string,
                                    (stoa_str_t) stoa_string("0"));
}

/* Its value, empty when it did not come; NGX_DECLINED: two that differ. */
static ngx_int_t
ngx_http_stoa_cookie_read(ngx_http_request_t *r, stoa_str_t *value)
{
    ngx_uint_t       i;
    stoa_str_t       header;
    ngx_list_part_t *part;
    ngx_table_elt_t *h;

    *value = (stoa_str_t) stoa_null_string;
    part = &r->headers_in.headers.part;

    for (/* void */; part != NULL; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (h[i].key.len != 6
                || ngx_memcmp(h[i].lowcase_key, "cookie", 6) != 0) {
                continue;
            }

            header.data = h[i].value.data;
            header.len = h[i].value.len;

            if (ngx_http_stoa_cookie_scan(header, value) != NGX_OK) {
                return NGX_DECLINED;
            }
        }
    }

    return NGX_OK;
}

/* Whether the request shows that a page of ours, or an allowed one, sent it. */
static ngx_uint_t
ngx_http_stoa_cookie_trusted(ngx_http_request_t *r)
{
    stoa_str_t own, origin;

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

/* One header's "a=1; b=2"; *value is what was found before, or empty. */
static ngx_int_t
ngx_http_stoa_cookie_scan(stoa_str_t header, stoa_str_t *value)
{
    u_char          *p, *last, *end;
    stoa_str_t       found;
    const ngx_str_t *name;

    name = &ngx_http_stoa_cookie_name;
    p = header.data;
    last = p + header.len;

    for (/* void */; p < last; p = end + 1) {

        while (p < last && (*p == ' ' || *p == '\t')) {
            p++;
        }

        end = ngx_strlchr(p, last, ';');
        end = end == NULL ? last : end;

        if ((size_t) (end - p) <= name->len || p[name->len] != '='
            || ngx_memcmp(p, name->data, name->len) != 0)
        {
            continue;
        }

        found.data = p + name->len + 1;
        found.len = (size_t) (end - found.data);

        while (found.len > 0
               && (found.data[found.len - 1] == ' '
                   || found.data[found.len - 1] == '\t'))
        {
            found.len--;
        }

        if (found.len == 0) {
            continue; /* cleared, in browsers that keep the name */
        }

        if (value->len != 0 && !stoa_str_same_secret(*value, found)) {
            return NGX_DECLINED;
        }

        *value = found;
    }

    return NGX_OK;
}
