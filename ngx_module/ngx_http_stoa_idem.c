/*
 * What makes a request conditional or repeatable: Idempotency-Key (its text,
 * scope and fingerprint; the statement itself decides, decision 6), If-Match,
 * and list cursors, which are signed so that nobody forges a position or
 * carries one over to other filters.
 */

#include "ngx_http_stoa.h"

#define NGX_HTTP_STOA_KEY_MAX    255
#define NGX_HTTP_STOA_CURSOR_MAX 1024
#define NGX_HTTP_STOA_CURSOR_MAC 8

static bool ngx_http_stoa_cursor_mac(ngx_http_stoa_ctx_t *q, stoa_str_t next,
                                     u_char mac[NGX_HTTP_STOA_CURSOR_MAC]);

/* Two keys in one request: whichever was meant, the other was not. */
static ngx_uint_t
ngx_http_stoa_idem_twice(ngx_http_request_t *r)
{
    ngx_uint_t       i, n;
    ngx_list_part_t *part;
    ngx_table_elt_t *h;

    n = 0;

    for (part = &r->headers_in.headers.part; part != NULL; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            n += h[i].key.len == sizeof("idempotency-key") - 1
              && ngx_memcmp(h[i].lowcase_key, "idempotency-key", h[i].key.len)
                     == 0;
        }
    }

    return n > 1;
}

/*
 * A structured string ("..." with \" and \\) or a bare token; 1 to 255
 * visible characters.
 */
stoa_err_e
ngx_http_stoa_idem_header(ngx_http_stoa_ctx_t *q)
{
    u_char    *p, *last, *d;
    stoa_str_t v;

    if (!q->ep->keyed) {
        return STOA_OK;
    }

    v = ngx_http_stoa_header_in(q->r, "idempotency-key");

    if (v.data == NULL) {
        return STOA_OK;
    }

    if (ngx_http_stoa_idem_twice(q->r)) {
        ngx_http_stoa_fault(q, "Idempotency-Key", "duplicate",
                            "must be there once");
        return STOA_OK;
    }

    p = v.data;
    last = p + v.len;

    if (v.len >= 2 && *p == '"' && last[-1] == '"') {
        d = ngx_pnalloc(q->r->pool, v.len);
        if (d == NULL) {
            return STOA_E_NO_MEMORY;
        }

        v.data = d;
        last--;

        for (p++; p < last; p++) {

            if (*p == '\\') {
                p++;

                if (p == last || (*p != '"' && *p != '\\')) {
                    goto invalid;
                }

            } else if (*p == '"') {
                goto invalid;
            }

            *d++ = *p;
        }

        v.len = (size_t) (d - v.data);

    } else if (ngx_strlchr(p, last, '"') != NULL) {
        goto invalid;
    }

    if (v.len == 0 || v.len > NGX_HTTP_STOA_KEY_MAX) {
        goto invalid;
    }

    for (p = v.data, last = p + v.len; p < last; p++) {
        if (*p <= 0x20 || *p >= 0x7f) {
            goto invalid;
        }
    }

    q->idem_key = v;
    q->keyed = 1;

    return STOA_OK;

invalid:

    ngx_http_stoa_fault(q, "Idempotency-Key", "format",
                        "must be 1 to 255 visible ASCII characters");
    return STOA_OK;
}

/* "<user or address> <row>": keys of others and of other rows are others. */
stoa_str_t
ngx_http_stoa_idem_scope(ngx_http_stoa_ctx_t *q)
{
    stoa_buf_t b;

    stoa_buf_init(&b, &q->mem, 96, 256);

    if (q->gate->authenticated) {
        stoa_buf_uuid(&b, &q->gate->claims.sub);

    } else {
        stoa_buf_put(&b, q->gate->addr_prefix, q->gate->addr_prefix_len);
    }

    stoa_buf_char(&b, ' ');
    stoa_buf_z(&b, q->ep->id);
    stoa_buf_nul(&b);

    return b.failed ? (stoa_str_t) stoa_null_string : stoa_buf_view(&b);
}

/* SHA-256 of method, path and canonical body, as bytea's text. */
stoa_str_t
ngx_http_stoa_idem_print(ngx_http_stoa_ctx_t *q)
{
    u_char     sum[STOA_SHA256_LEN];
    char       hex[2 * STOA_SHA256_LEN];
    stoa_buf_t b, out;

    stoa_buf_init(&b, &q->mem, 256 + q->canonical.len + q->raw.len,
                  8192 + q->canonical.len + q->raw.len);
    stoa_buf_z(&b, stoa_method_name(q->ep->method));
    stoa_buf_char(&b, ' ');
    ngx_http_stoa_canonical_path(&b, q->gate, q->ep);
    stoa_buf_char(&b, '\n');
    stoa_buf_str(&b, q->canonical.data != NULL ? q->canonical : q->raw);

    stoa_buf_init(&out, &q->mem, sizeof(hex) + 3, sizeof(hex) + 3);

    if (b.failed || !stoa_sha256(b.data, b.len, sum)) {
        return (stoa_str_t) stoa_null_string;
    }

    stoa_hex_encode(hex, sum, sizeof(sum));
    stoa_buf_z(&out, "\\x");
    stoa_buf_put(&out, hex, sizeof(hex));
    stoa_buf_nul(&out);

    return out.failed ? (stoa_str_t) stoa_null_string : stoa_buf_view(&out);
}

/*
 * RFC 9110 If-Match: one tag, or "*".  Tags of ours begin with the object's
 * version, and a digest of what else is shown may follow behind a dot.
 * Others match nothing: SQL compares with -1.  A weak tag is one of ours that
 * gzip has marked on its way out: it names the same version, and a client
 * that was answered so has no other.
 */
stoa_err_e
ngx_http_stoa_if_match(ngx_http_stoa_ctx_t *q)
{
    u_char          *dot;
    int64_t          n;
    stoa_str_t       v;
    ngx_table_elt_t *h;

    h = q->r->headers_in.if_match;

    if (h == NULL) {
        return q->ep->if_match && ngx_http_stoa_lcf(q->r)->if_match == 1
                 ? STOA_E_PRECONDITION_REQUIRED
                 : STOA_OK;
    }

    v.data = h->value.data;
    v.len = h->value.len;

    if (v.len == 1 && *v.data == '*') {
        q->if_match = -2;
        return STOA_OK;
    }

    q->if_match = -3;

    if (v.len > 2 && v.data[0] == 'W' && v.data[1] == '/') {
        v.data += 2;
        v.len -= 2;
    }

    if (v.len >= 3 && v.data[0] == '"' && v.data[v.len - 1] == '"') {
        v.data++;
        v.len -= 2;

        dot = ngx_strlchr(v.data, v.data + v.len, '.');
        if (dot != NULL) {
            v.len = (size_t) (dot - v.data);
        }

        if (stoa_str_int(v, 0, INT32_MAX, &n)) {
            q->if_match = n;
        }
    }

    return STOA_OK;
}

/* Wire: base64url of MAC 8, sort 1, and the last keys as JSON. */
stoa_err_e
ngx_http_stoa_cursor_open(ngx_http_stoa_ctx_t *q, stoa_str_t text)
{
    u_char    *p, mac[NGX_HTTP_STOA_CURSOR_MAC];
    ssize_t    n;
    stoa_str_t next;

    if (text.len == 0 || text.len > NGX_HTTP_STOA_CURSOR_MAX) {
        goto invalid;
    }

    p = ngx_pnalloc(q->r->pool, text.len + 1);
    if (p == NULL) {
        return STOA_E_NO_MEMORY;
    }

    n = stoa_base64url_decode(p, text.len, text);

    if (n < NGX_HTTP_STOA_CURSOR_MAC + 2) {
        goto invalid;
    }

    p[n] = '\0';

    if (p[NGX_HTTP_STOA_CURSOR_MAC] != q->sort) {
        goto invalid;
    }

    next.data = p + NGX_HTTP_STOA_CURSOR_MAC + 1;
    next.len = (size_t) n - NGX_HTTP_STOA_CURSOR_MAC - 1;

    if (!ngx_http_stoa_cursor_mac(q, next, mac)) {
        return STOA_E_INTERNAL;
    }

    if (!stoa_str_same_secret((stoa_str_t){ NGX_HTTP_STOA_CURSOR_MAC, mac },
                              (stoa_str_t){ NGX_HTTP_STOA_CURSOR_MAC, p }))
    {
        goto invalid;
    }

    q->cursor = next;
    q->cursored = 1;

    return STOA_OK;

invalid:

    ngx_http_stoa_fault(q, "cursor", "format",
                        "is not a cursor of this list, sort and filters");
    return STOA_OK;
}

stoa_str_t
ngx_http_stoa_cursor_make(ngx_http_stoa_ctx_t *q, stoa_str_t next)
{
    u_char    *raw, *text;
    size_t     len;
    stoa_str_t out = stoa_null_string;

    len = NGX_HTTP_STOA_CURSOR_MAC + 1 + next.len;

    raw = ngx_pnalloc(q->r->pool, len);
    text = ngx_pnalloc(q->r->pool, stoa_base64url_len(len));

    if (raw == NULL || text == NULL || !ngx_http_stoa_cursor_mac(q, next, raw))
    {
        return out;
    }

    raw[NGX_HTTP_STOA_CURSOR_MAC] = (u_char) q->sort;
    ngx_memcpy(raw + NGX_HTTP_STOA_CURSOR_MAC + 1, next.data, next.len);

    out.data = text;
    out.len = stoa_base64url_encode(text, raw, len);

    return out;
}

static bool
ngx_http_stoa_cursor_mac(ngx_http_stoa_ctx_t *q, stoa_str_t next,
                         u_char mac[NGX_HTTP_STOA_CURSOR_MAC])
{
    u_char     sort, sum[STOA_SHA256_LEN];
    ngx_uint_t i, n;
    stoa_str_t parts[6 + STOA_ROUTE_PARAMS];

    sort = (u_char) q->sort;
    n = 0;

    parts[n++] = stoa_str_z(q->ep->id);
    parts[n++] = (stoa_str_t){ 1, &sort };
    parts[n++] = (stoa_str_t){ q->gate->authenticated ? 16 : 0,
                               q->gate->claims.sub.b };
    parts[n++] = q->filters;

    for (i = 0; i < q->row->npath; i++) {
        parts[n++] = q->path_values[i];
    }

    parts[n++] = (stoa_str_t) stoa_string("\n");
    parts[n++] = next;

    if (!stoa_hmac_sha256_parts(ngx_http_stoa_mcf(q->r)->cursor_secret, parts,
                                n, sum))
    {
        return false;
    }

    ngx_memcpy(mac, sum, NGX_HTTP_STOA_CURSOR_MAC);

    return true;
}
