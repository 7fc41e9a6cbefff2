/*
 * Keys of the micro-cache: the row, its path parameters, the sorted query,
 * the shape of the envelope and, when the statement sees it, the language.
 */

#include "ngx_http_stoa_zone.h"

#define NGX_HTTP_STOA_CACHE_QUERY 16 /* more parameters: not cached */
#define NGX_HTTP_STOA_CACHE_KEY   2048


static u_char
ngx_http_stoa_cache_args(const stoa_bound_t *bound)
{
    ngx_uint_t i;
    u_char     vary = 0;

    if (bound == NULL) {
        return 0;
    }

    for (i = 0; i < bound->nargs; i++) {
        switch (bound->args[i].kind) {

        case STOA_ARG_CTX:
            vary |= NGX_HTTP_STOA_VARY_LANG | NGX_HTTP_STOA_VARY_ACTOR;
            break;

        case STOA_ARG_LANG:
            vary |= NGX_HTTP_STOA_VARY_LANG;
            break;

        case STOA_ARG_ACTOR:
        case STOA_ARG_SESSION:
        case STOA_ARG_ACTING_AS:
        case STOA_ARG_API_KEY:
        case STOA_ARG_DEVICE:
        case STOA_ARG_DEVICE_EVENT:
        case STOA_ARG_ROLES:
            vary |= NGX_HTTP_STOA_VARY_ACTOR;
            break;

        case STOA_ARG_PATH:
        case STOA_ARG_QUERY:
        case STOA_ARG_LIMIT:
        case STOA_ARG_OFFSET:
        case STOA_ARG_CURSOR:
        case STOA_ARG_ORD:
            break;

        default:
            vary |= NGX_HTTP_STOA_VARY_ALWAYS;
        }
    }

    return vary;
}


u_char
ngx_http_stoa_cache_vary(const stoa_bound_row_t *row)
{
    ngx_uint_t i;
    u_char     vary;

    vary = ngx_http_stoa_cache_args(row->plain);

    for (i = 0; i < row->nsorts; i++) {
        vary |= ngx_http_stoa_cache_args(&row->pages[i]);
        vary |= ngx_http_stoa_cache_args(&row->cursors[i]);
    }

    return vary;
}


static int
ngx_http_stoa_cache_order(stoa_str_t a, stoa_str_t b)
{
    int rc;

    rc = memcmp(a.data, b.data, ngx_min(a.len, b.len));

    return rc != 0 ? rc : (a.len > b.len) - (a.len < b.len);
}


/* Number of parameters in order; 0 with *many: too many of them. */
static ngx_uint_t
ngx_http_stoa_cache_query(ngx_http_request_t *r,
                          stoa_str_t          parts[NGX_HTTP_STOA_CACHE_QUERY],
                          ngx_uint_t         *many)
{
    u_char    *p, *last, *end;
    ngx_uint_t n, i;
    stoa_str_t part;

    n = 0;
    *many = 0;
    p = r->args.data;
    last = p + r->args.len;

    while (p < last) {
        end = ngx_strlchr(p, last, '&');
        end = end == NULL ? last : end;

        part.data = p;
        part.len = (size_t) (end - p);
        p = end + 1;

        if (n == NGX_HTTP_STOA_CACHE_QUERY) {
            *many = 1;
            return 0;
        }

        for (i = n++;
             i > 0 && ngx_http_stoa_cache_order(parts[i - 1], part) > 0; i--) {
            parts[i] = parts[i - 1];
        }

        parts[i] = part;
    }

    return n;
}


ngx_int_t
ngx_http_stoa_cache_key(ngx_http_stoa_ctx_t *q, ngx_uint_t vary,
                        const u_char hash_key[16], uint64_t key[2])
{
    stoa_str_t                parts[NGX_HTTP_STOA_CACHE_QUERY + 1], *param;
    ngx_http_stoa_loc_conf_t *lcf = ngx_http_stoa_lcf(q->r);
    ngx_uint_t                i, n, many;
    STOA_UNINIT u_char        text[NGX_HTTP_STOA_CACHE_KEY];
    u_char                   *p, *last;

    p = text;
    last = text + sizeof(text) - 8;

    p = ngx_cpymem(p, &q->gate->row, sizeof(ngx_uint_t));
    *p++ = (u_char) (lcf->case_snake << 4 | lcf->envelope);

    n = ngx_http_stoa_cache_query(q->r, parts, &many);

    if (many) {
        return NGX_DECLINED;
    }

    if (vary & NGX_HTTP_STOA_VARY_LANG) {
        parts[n++] = ngx_http_stoa_header_in(q->r, "accept-language");
    }

    for (i = 0; i < (ngx_uint_t) q->gate->match.nparams + n; i++) {
        param = i < q->gate->match.nparams ? &q->gate->match.params[i]
                                           : &parts[i - q->gate->match.nparams];

        if (param->len + 2 > (size_t) (last - p)) {
            return NGX_DECLINED;
        }

        /* the length in front: no two lists read the same */
        *p++ = (u_char) (param->len >> 8);
        *p++ = (u_char) param->len;
        p = ngx_cpymem(p, param->data, param->len);
    }

    ngx_http_stoa_siphash(hash_key, text, (size_t) (p - text), key);

    return NGX_OK;
}
