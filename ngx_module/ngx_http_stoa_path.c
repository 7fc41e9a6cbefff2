/*
 * Paths that can be read in two ways.
 *
 * A gate judges the path as nginx has resolved it, and what stands behind may
 * read the same bytes otherwise: "\" as "/", "..;x" as "..", "a;x" as "a", an
 * escape once more.  In a server that has gates such paths are refused, in
 * all locations but those of rows, which hand nothing on: one without a gate
 * would be the way around the others.  No client makes them of a link: dots
 * are resolved before a request is sent.
 *
 * What nginx has changed otherwise (slashes that it merged, or that were
 * escaped) goes on as it was judged, and not as it came.
 */

#include "ngx_http_stoa_conf.h"


static u_char *
ngx_http_stoa_path_unescape(u_char *d, u_char *p, u_char *last,
                            ngx_uint_t *slash)
{
    ngx_int_t n;

    while (p < last) {
        n = *p == '%' && last - p > 2 ? ngx_hextoi(p + 1, 2) : NGX_ERROR;

        if (n == NGX_ERROR) {
            *d++ = *p++;
            continue;
        }

        *slash |= n == '/';
        *d++ = (u_char) n;
        p += 3;
    }

    return d;
}


/* Whether a segment is another one to somebody. */
static ngx_uint_t
ngx_http_stoa_path_odd(const u_char *p, const u_char *last)
{
    const u_char *start, *end;

    for (/* void */; p < last; p = end + 1) {
        start = p;

        for (end = p; end < last && *end != '/'; end++) {

            /* no UTF-8, but read as a dot or a slash by what is lax */

            if (*end == '\\'
                || ((*end & 0xfe) == 0xc0 && last - end > 1
                    && (end[1] & 0xc0) == 0x80))
            {
                return 1;
            }
        }

        while (start < end && *start == '.') {
            start++;
        }

        if ((start - p == 1 || start - p == 2)
            && (start == end || *start == ';')) {
            return 1;
        }
    }

    return 0;
}


/* Parameters at the end of a path ("/a;jsessionid=1") are usual and change
   no prefix. */
static ngx_uint_t
ngx_http_stoa_path_params(u_char *p, u_char *last)
{
    p = ngx_strlchr(p, last, ';');

    return p != NULL && ngx_strlchr(p, last, '/') != NULL;
}


stoa_err_e
ngx_http_stoa_path(ngx_http_request_t *r)
{
    ngx_http_stoa_srv_conf_t *scf;
    ngx_uint_t                slash = 0, again = 0;
    u_char                   *p, *last, *d, *end;

    scf = ngx_http_get_module_srv_conf(r, ngx_http_stoa_module);

    if (!scf->gated || r->internal) {
        return STOA_OK;
    }

    p = r->unparsed_uri.data;
    last = p + r->unparsed_uri.len;
    end = ngx_strlchr(p, last, '?');
    last = end != NULL ? end : last;

    if (ngx_http_stoa_path_odd(p, last) || ngx_http_stoa_path_params(p, last)) {
        return STOA_E_PATH_AMBIGUOUS;
    }

    d = p;
    end = last;

    if (r->quoted_uri) {
        d = ngx_pnalloc(r->pool, (size_t) (last - p) + 1);
        if (d == NULL) {
            return STOA_E_NO_MEMORY;
        }

        end = ngx_http_stoa_path_unescape(d, p, last, &slash);
    }

    if (slash || (size_t) (end - d) != r->uri.len
        || ngx_memcmp(d, r->uri.data, r->uri.len) != 0)
    {
        r->valid_unparsed_uri = 0;
    }

    if (r->quoted_uri) {
        if (ngx_http_stoa_path_odd(d, end)) {
            return STOA_E_PATH_AMBIGUOUS;
        }

        end = ngx_http_stoa_path_unescape(d, d, end, &again);

        if (again || ngx_http_stoa_path_odd(d, end)) {
            return STOA_E_PATH_AMBIGUOUS;
        }
    }

    return STOA_OK;
}
