/*
 * The only file that sends an answer and the only one that knows which HTTP
 * status an error has.  Answers go out as one header and one chain: frame,
 * body (libpq's own memory), frame; small ones are copied into one buffer.
 *
 * Callers keep the body's memory alive as long as r->pool.  Every function
 * leaves its result in q->rc and returns it: what ngx_http_finalize_request()
 * takes.  Gates refuse through ngx_http_stoa_reply_refuse(): nginx makes its
 * special response of it and ngx_http_stoa_filter.c writes the problem.
 */

#include "ngx_http_stoa.h"

#define NGX_HTTP_STOA_PROBLEM_MAX 65536

/* Up to that size copying costs less than two more buffers in the chain. */
#define NGX_HTTP_STOA_JOIN_MAX 4096

static ngx_int_t  ngx_http_stoa_send(ngx_http_stoa_ctx_t *q, ngx_int_t status,
                                     stoa_str_t before, stoa_str_t body,
                                     stoa_str_t after);
static ngx_int_t  ngx_http_stoa_join(ngx_http_request_t *r, size_t len,
                                     stoa_str_t parts[3]);
static ngx_uint_t ngx_http_stoa_not_modified(ngx_http_stoa_ctx_t *q,
                                             ngx_str_t           *etag);
static ngx_int_t  ngx_http_stoa_etag(ngx_http_stoa_ctx_t *q, stoa_str_t etag,
                                     ngx_str_t *out);
static stoa_str_t ngx_http_stoa_snake(ngx_http_stoa_ctx_t *q, stoa_str_t json);

ngx_int_t
ngx_http_stoa_header(ngx_http_request_t *r, const char *name, stoa_str_t value)
{
    ngx_table_elt_t *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    h->hash = 1;
#if (nginx_version >= 1023000)
    h->next = NULL;
#endif
    h->key.data = (u_char *) (uintptr_t) name;
    h->key.len = ngx_strlen(name);
    h->value.data = value.data;
    h->value.len = value.len;
    h->lowcase_key = NULL;

    return NGX_OK;
}

/* Reasons that nginx has no line for. */
void
ngx_http_stoa_reason(ngx_http_request_t *r, ngx_int_t status)
{
    switch (status) {
    case 422:
        ngx_str_set(&r->headers_out.status_line, "422 Unprocessable Content");
        break;

    case 428:
        ngx_str_set(&r->headers_out.status_line, "428 Precondition Required");
        break;

    case 431:
        ngx_str_set(&r->headers_out.status_line,
                    "431 Request Header Fields Too Large");
        break;

    case NGX_HTTP_VERSION_NOT_SUPPORTED:
        ngx_str_set(&r->headers_out.status_line,
                    "505 HTTP Version Not Supported");
        break;

    default:
        r->headers_out.status_line.len = 0;
    }
}

ngx_int_t
ngx_http_stoa_reply_answer(ngx_http_stoa_ctx_t *q, ngx_int_t status,
                           stoa_str_t body, stoa_str_t meta, stoa_str_t etag)
{
    ngx_str_t                 tag;
    stoa_buf_t                after;
    stoa_str_t                before;
    ngx_http_request_t       *r;
    ngx_http_stoa_loc_conf_t *lcf;

    r = q->r;
    lcf = ngx_http_stoa_lcf(r);

    if (q->filling) {
        q->filling = 0;

        if (status == NGX_HTTP_OK) {
            ngx_http_stoa_cache_put(q, body, meta, &etag);

        } else {
            ngx_http_stoa_cache_fail(q);
        }
    }

    if (etag.len != 0 && ngx_http_stoa_etag(q, etag, &tag) != NGX_OK) {
        return q->rc = NGX_ERROR;
    }

    if (q->replayed
        && ngx_http_stoa_header(r, "Idempotent-Replayed",
                                (stoa_str_t) stoa_string("true"))
               != NGX_OK)
    {
        return q->rc = NGX_ERROR;
    }

    if (status == NGX_HTTP_NO_CONTENT) {
        return ngx_http_stoa_reply_empty(q, status);
    }

    if (etag.len != 0 && status == NGX_HTTP_OK
        && (r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD))
        && ngx_http_stoa_not_modified(q, &tag))
    {
        return ngx_http_stoa_reply_empty(q, NGX_HTTP_NOT_MODIFIED);
    }

    ngx_str_set(&r->headers_out.content_type, "application/json");
    r->headers_out.content_type_len = r->headers_out.content_type.len;

    if (body.len == 0) {
        body = (stoa_str_t) stoa_string("null");
    }

    if (lcf->case_snake) {
        body = ngx_http_stoa_snake(q, body);
        meta = ngx_http_stoa_snake(q, meta);
        if (body.data == NULL) {
            return q->rc = NGX_ERROR;
        }
    }

    if (q->ep->media == STOA_MEDIA_BARE || lcf->envelope == 2) {
        return ngx_http_stoa_send(q, status, (stoa_str_t) stoa_null_string,
                                  body, (stoa_str_t) stoa_null_string);
    }

    before = (stoa_str_t) stoa_string("{\"success\":true,\"data\":");

    stoa_buf_init(&after, &q->mem, 128 + meta.len, 1024 + meta.len);
    stoa_buf_z(&after, ",\"meta\":");

    if (meta.len != 0) {
        stoa_buf_str(&after, meta);

    } else {
        stoa_buf_z(&after, "null");
    }

    stoa_buf_z(&after, ",\"error\":null,\"timestamp\":\"");
    ngx_http_stoa_timestamp(&after, q->at);
    stoa_buf_z(&after, "\"}");

    if (after.failed) {
        return q->rc = NGX_ERROR;
    }

    return ngx_http_stoa_send(q, status, before, body, stoa_buf_view(&after));
}

/* CSV, SVG, PDF, PNG: what must never run in a browser's page. */
ngx_int_t
ngx_http_stoa_reply_bytes(ngx_http_stoa_ctx_t *q, ngx_int_t status,
                          stoa_str_t type, stoa_str_t bytes,
                          stoa_str_t filename)
{
    stoa_buf_t          b;
    ngx_http_request_t *r;

    r = q->r;

    r->headers_out.content_type.data = type.data;
    r->headers_out.content_type.len = type.len;
    r->headers_out.content_type_len = type.len;

    if (filename.len != 0) {
        stoa_buf_init(&b, &q->mem, 64, 512);
        stoa_buf_z(&b, "attachment; filename=\"");
        stoa_buf_str(&b, filename);
        stoa_buf_char(&b, '"');

        if (b.failed
            || ngx_http_stoa_header(r, "Content-Disposition", stoa_buf_view(&b))
                   != NGX_OK)
        {
            return q->rc = NGX_ERROR;
        }
    }

    if (ngx_http_stoa_header(r, "Content-Security-Policy",
                             (stoa_str_t) stoa_string(
                                 "default-src 'none'; "
                                 "style-src 'unsafe-inline'; sandbox"))
        != NGX_OK)
    {
        return q->rc = NGX_ERROR;
    }

    if (ngx_http_stoa_lcf(r)->security_headers != 1 /* else the filter's */
        && ngx_http_stoa_header(r, "X-Content-Type-Options",
                                (stoa_str_t) stoa_string("nosniff"))
               != NGX_OK)
    {
        return q->rc = NGX_ERROR;
    }

    return ngx_http_stoa_send(q, status, (stoa_str_t) stoa_null_string, bytes,
                              (stoa_str_t) stoa_null_string);
}

ngx_int_t
ngx_http_stoa_reply_empty(ngx_http_stoa_ctx_t *q, ngx_int_t status)
{
    return ngx_http_stoa_send(q, status, (stoa_str_t) stoa_null_string,
                              (stoa_str_t) stoa_null_string,
                              (stoa_str_t) stoa_null_string);
}

ngx_int_t
ngx_http_stoa_reply_error(ngx_http_stoa_ctx_t *q, stoa_err_e err)
{
    stoa_buf_t            b;
    ngx_uint_t            bare;
    ngx_http_request_t   *r;
    ngx_http_stoa_gate_t *gate;

    r = q->r;
    gate = q->gate;
    q->error = err;

    if (q->filling) {
        q->filling = 0;
        ngx_http_stoa_cache_fail(q);
    }

    if (q->replayed
        && ngx_http_stoa_header(r, "Idempotent-Replayed",
                                (stoa_str_t) stoa_string("true"))
               != NGX_OK)
    {
        return q->rc = NGX_ERROR;
    }

    bare = ngx_http_stoa_accepts(ngx_http_stoa_header_in(r, "accept"),
                                 "application/problem+json")
            == 2
        || ngx_http_stoa_lcf(r)->envelope == 2;

    stoa_buf_init(&b, &q->mem, 512, NGX_HTTP_STOA_PROBLEM_MAX);
    ngx_http_stoa_problem(&b, q, gate, err, bare);

    if (b.failed || ngx_http_stoa_problem_headers(r, gate, err) != NGX_OK) {
        return q->rc = NGX_ERROR;
    }

    if (bare) {
        ngx_str_set(&r->headers_out.content_type, "application/problem+json");

    } else {
        ngx_str_set(&r->headers_out.content_type, "application/json");
    }

    r->headers_out.content_type_len = r->headers_out.content_type.len;

    return ngx_http_stoa_send(q, stoa_err_row(err)->status,
                              (stoa_str_t) stoa_null_string, stoa_buf_view(&b),
                              (stoa_str_t) stoa_null_string);
}

/*
 * {"code":"SOLD_OUT","detail":..,"errors":[..],"remaining":3}: the code finds
 * the error row, the other members become members of the problem.
 */
ngx_int_t
ngx_http_stoa_reply_failure(ngx_http_stoa_ctx_t *q, stoa_str_t body)
{
    void             *it;
    stoa_err_e        err;
    stoa_buf_t        extra, errors;
    stoa_str_t        name, code;
    stoa_json_t      *json, *value;
    stoa_json_fault_t fault;

    err = STOA_OK;
    stoa_buf_init(&extra, &q->mem, 64, NGX_HTTP_STOA_PROBLEM_MAX / 2);
    stoa_buf_init(&errors, &q->mem, 64, NGX_HTTP_STOA_PROBLEM_MAX / 2);

    json = stoa_json_parse(&q->mem, body, &fault);

    if (json != NULL && stoa_json_type(json) == STOA_JSON_OBJECT) {
        it = NULL;

        while (stoa_json_next(json, &it, &name, &value)) {

            if (stoa_str_eq_z(name, "code")
                && stoa_json_type(value) == STOA_JSON_STRING) {
                code = stoa_json_str(value);
                err = stoa_err_by_code((char *) code.data, code.len);

            } else if (stoa_str_eq_z(name, "detail")) {
                if (stoa_json_type(value) == STOA_JSON_STRING) {
                    q->detail = stoa_json_str(value);
                }

            } else if (stoa_str_eq_z(name, "errors")) {
                stoa_json_write(&errors, value);
                q->errors = stoa_buf_view(&errors);

            } else if (!stoa_str_eq_z(name, "type")
                       && !stoa_str_eq_z(name, "title")
                       && !stoa_str_eq_z(name, "status")
                       && !stoa_str_eq_z(name, "request_id"))
            {
                stoa_buf_char(&extra, ',');
                stoa_buf_json(&extra, name);
                stoa_buf_char(&extra, ':');
                stoa_json_write(&extra, value);
            }
        }
    }

    if (err == STOA_OK || extra.failed || errors.failed) {
        ngx_log_error(NGX_LOG_ALERT, q->r->connection->log, 0,
                      "stoa: row \"%s\" answered an error without a known "
                      "code",
                      q->ep->id);
        q->detail = (stoa_str_t) stoa_null_string;
        q->errors = (stoa_str_t) stoa_null_string;
        return ngx_http_stoa_reply_error(q, STOA_E_INTERNAL);
    }

    q->extra = stoa_buf_view(&extra);

    return ngx_http_stoa_reply_error(q, err);
}

ngx_int_t
ngx_http_stoa_reply_refuse(ngx_http_request_t *r, stoa_err_e err)
{
    ngx_http_stoa_gate_t *gate;

    gate = ngx_http_stoa_gate(r, 1);
    if (gate == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    gate->refused = err;

    return stoa_err_row(err)->status;
}

/* What comes behind an early answer is no request of its own. */
static void
ngx_http_stoa_drain(ngx_http_request_t *r)
{
    r->expect_tested = 1;

    if (ngx_http_discard_request_body(r) != NGX_OK) {
        r->keepalive = 0;
    }
}

static ngx_int_t
ngx_http_stoa_send(ngx_http_stoa_ctx_t *q, ngx_int_t status, stoa_str_t before,
                   stoa_str_t body, stoa_str_t after)
{
    size_t              len;
    ngx_buf_t          *b;
    ngx_int_t           rc;
    ngx_uint_t          i, n;
    stoa_str_t          parts[3], policy;
    ngx_chain_t         out[3];
    ngx_http_request_t *r;

    r = q->r;
    len = before.len + body.len + after.len;

    if (!q->body_read) {
        ngx_http_stoa_drain(r);
    }

    /* nginx's own filter knows nothing of the row's versions */
    r->disable_not_modified = 1;

    r->headers_out.status = (ngx_uint_t) status;
    r->headers_out.content_length_n = (off_t) len;
    ngx_http_stoa_reason(r, status);

    if (status == NGX_HTTP_NO_CONTENT || status == NGX_HTTP_NOT_MODIFIED) {
        r->header_only = 1;
        r->headers_out.content_length_n = -1;
    }

    if (q->ep != NULL && (q->ep->who & STOA_PUBLIC) && q->ep->method == STOA_GET
        && !q->gate->authenticated && q->location.len == 0)
    {
        policy = (stoa_str_t) stoa_string("no-cache");

    } else {
        policy = (stoa_str_t) stoa_string("no-store");
    }

    if (ngx_http_stoa_header(r, "Cache-Control", policy) != NGX_OK) {
        return q->rc = NGX_ERROR;
    }

    if (q->location.len != 0
        && ngx_http_stoa_header(r, "Location", q->location) != NGX_OK)
    {
        return q->rc = NGX_ERROR;
    }

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return q->rc = rc;
    }

    parts[0] = before;
    parts[1] = body;
    parts[2] = after;
    n = 0;

    if (len <= NGX_HTTP_STOA_JOIN_MAX
        && ngx_http_stoa_join(r, len, parts) != NGX_OK)
    {
        return q->rc = NGX_ERROR;
    }

    for (i = 0; i < 3; i++) {

        if (parts[i].len == 0) {
            continue;
        }

        b = ngx_calloc_buf(r->pool);
        if (b == NULL) {
            return q->rc = NGX_ERROR;
        }

        b->pos = parts[i].data;
        b->last = parts[i].data + parts[i].len;
        b->memory = 1;
        out[n].buf = b;
        out[n].next = NULL;

        if (n > 0) {
            out[n - 1].next = &out[n];
        }

        n++;
    }

    if (n == 0) {
        return q->rc = ngx_http_send_special(r, NGX_HTTP_LAST);
    }

    out[n - 1].buf->last_buf = 1;
    out[n - 1].buf->last_in_chain = 1;

    return q->rc = ngx_http_output_filter(r, out);
}

/* Makes one part of several. */
static ngx_int_t
ngx_http_stoa_join(ngx_http_request_t *r, size_t len, stoa_str_t parts[3])
{
    u_char    *p;
    ngx_uint_t i;

    if (parts[0].len == 0 && parts[2].len == 0) {
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < 3; i++) {
        if (parts[i].len != 0) {
            p = ngx_cpymem(p, parts[i].data, parts[i].len);
            parts[i].len = 0;
        }
    }

    parts[0].data = p - len;
    parts[0].len = len;

    return NGX_OK;
}

static ngx_int_t
ngx_http_stoa_etag(ngx_http_stoa_ctx_t *q, stoa_str_t etag, ngx_str_t *out)
{
    u_char             *p;
    ngx_table_elt_t    *h;
    ngx_http_request_t *r;

    r = q->r;

    if (etag.data[0] == '"') {
        out->data = etag.data;
        out->len = etag.len;

    } else {
        p = ngx_pnalloc(r->pool, etag.len + 2);
        if (p == NULL) {
            return NGX_ERROR;
        }

        out->data = p;
        out->len = etag.len + 2;
        *p++ = '"';
        p = ngx_cpymem(p, etag.data, etag.len);
        *p = '"';
    }

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    h->hash = 1;
#if (nginx_version >= 1023000)
    h->next = NULL;
#endif
    ngx_str_set(&h->key, "ETag");
    h->value = *out;
    h->lowcase_key = NULL;
    r->headers_out.etag = h; /* gzip makes it weak */

    return NGX_OK;
}

/* RFC 9110 If-None-Match: weak comparison with a list of tags. */
static ngx_uint_t
ngx_http_stoa_not_modified(ngx_http_stoa_ctx_t *q, ngx_str_t *etag)
{
    u_char          *p, *last, *start;
    ngx_table_elt_t *h;

    h = q->r->headers_in.if_none_match;
    if (h == NULL) {
        return 0;
    }

    p = h->value.data;
    last = p + h->value.len;

    if (h->value.len == 1 && *p == '*') {
        return 1;
    }

    while (p < last) {

        if (*p != '"') {
            p++;
            continue;
        }

        start = p++;

        while (p < last && *p != '"') {
            p++;
        }

        if (p == last) {
            return 0;
        }

        p++;

        if ((size_t) (p - start) == etag->len
            && ngx_memcmp(start, etag->data, etag->len) == 0)
        {
            return 1;
        }
    }

    return 0;
}

/* One copying pass that spells member names in snake_case. */
static stoa_str_t
ngx_http_stoa_snake(ngx_http_stoa_ctx_t *q, stoa_str_t json)
{
    u_char    *p, *last, *end, *next, *d;
    stoa_str_t out = stoa_null_string;

    if (json.len == 0) {
        return json;
    }

    d = ngx_pnalloc(q->r->pool, json.len * 2);
    if (d == NULL) {
        return out;
    }

    out.data = d;
    p = json.data;
    last = p + json.len;

    while (p < last) {

        if (*p != '"') {
            *d++ = *p++;
            continue;
        }

        for (end = p + 1; end < last && *end != '"'; end++) {
            if (*end == '\\' && end + 1 < last) {
                end++;
            }
        }

        for (next = end + 1; next < last; next++) {
            if (*next != ' ' && *next != '\n' && *next != '\t') {
                break;
            }
        }

        if (next >= last || *next != ':') {
            end = ngx_min(end + 1, last);
            d = ngx_cpymem(d, p, end - p);
            p = end;
            continue;
        }

        /* a member's name */

        for (/* void */; p <= end; p++) {
            if (*p >= 'A' && *p <= 'Z') {
                *d++ = '_';
                *d++ = (u_char) (*p | 0x20);

            } else {
                *d++ = *p;
            }
        }
    }

    out.len = (size_t) (d - out.data);

    return out;
}
