/*
 * Header and body filter: gives nginx's own error answers and the gates'
 * refusals the problem body, and adds the headers that every answer of a
 * Stoa location carries: request id, security, CORS, canonical link.
 *
 * A page of nginx's is replaced, never edited: its buffers are marked as sent
 * and ours go on.  Whatever came from a proxied server or an error_page of
 * the operator is left alone.
 */

#include "ngx_http_stoa_limit.h"

/* Lives with the request; found by a cleanup's handler like the gate. */
typedef struct {
    ngx_buf_t *body; /* to be sent in place of nginx's page */
    ngx_uint_t sent;
} ngx_http_stoa_page_t;

static ngx_int_t ngx_http_stoa_header_filter(ngx_http_request_t *r);
static ngx_int_t ngx_http_stoa_body_filter(ngx_http_request_t *r,
                                           ngx_chain_t        *in);
static ngx_int_t ngx_http_stoa_page(ngx_http_request_t       *r,
                                    ngx_http_stoa_gate_t     *gate,
                                    ngx_http_stoa_loc_conf_t *lcf);
static ngx_int_t ngx_http_stoa_lead(ngx_http_request_t   *r,
                                    ngx_http_stoa_gate_t *gate);
static ngx_int_t ngx_http_stoa_request_id(ngx_http_request_t   *r,
                                          ngx_http_stoa_gate_t *gate);
static ngx_int_t ngx_http_stoa_security(ngx_http_request_t       *r,
                                        ngx_http_stoa_loc_conf_t *lcf);
static ngx_int_t ngx_http_stoa_link(ngx_http_request_t   *r,
                                    ngx_http_stoa_gate_t *gate);

static stoa_err_e ngx_http_stoa_page_error(ngx_http_request_t *r);

static void ngx_http_stoa_page_cleanup(void *data);

static ngx_http_stoa_page_t *ngx_http_stoa_page_find(ngx_http_request_t *r);

static ngx_http_output_header_filter_pt ngx_http_stoa_next_header_filter;
static ngx_http_output_body_filter_pt   ngx_http_stoa_next_body_filter;

/*
 * Called when every module is configured: nginx's own filters start the two
 * chains anew at each configuration, and in a static build they do so after
 * this module's postconfiguration.
 */
void
ngx_http_stoa_reply_filter_init(void)
{
    if (ngx_http_top_header_filter == ngx_http_stoa_header_filter) {
        return;
    }

    ngx_http_stoa_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_stoa_header_filter;

    ngx_http_stoa_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_stoa_body_filter;
}

static ngx_int_t
ngx_http_stoa_header_filter(ngx_http_request_t *r)
{
    ngx_http_stoa_gate_t     *gate;
    ngx_http_stoa_loc_conf_t *lcf;

    if (r != r->main) {
        return ngx_http_stoa_next_header_filter(r);
    }

    lcf = ngx_http_stoa_lcf(r);

    gate = ngx_http_stoa_gate(r, 0);

    if (gate == NULL) {

        if (lcf->api != 1 && lcf->errors != 1 && lcf->security_headers != 1
            && lcf->cors == NULL && lcf->auth == 0 && lcf->rate == 0
            && lcf->limits == NULL)
        {
            return ngx_http_stoa_next_header_filter(r);
        }

        gate = ngx_http_stoa_gate(r, 1);
        if (gate == NULL) {
            return NGX_ERROR;
        }
    }

    /* err_status: nginx makes the page, also 502 and 504 of a proxy; what a
       proxied server itself answers has none */
    if (r->err_status != 0 && !r->error_page && gate->login.len == 0
        && (lcf->errors == 1 || (lcf->errors != 0 && gate->refused != STOA_OK))
        && r->err_status >= NGX_HTTP_BAD_REQUEST)
    {
        if (ngx_http_stoa_page(r, gate, lcf) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (ngx_http_stoa_limit_filter(r, gate, lcf) != NGX_OK) {
        return NGX_ERROR;
    }

    /* behind the limits: for those of failures it is one */

    if (gate->login.len != 0 && !r->error_page
        && r->err_status == (ngx_uint_t) stoa_err_row(gate->refused)->status
        && ngx_http_stoa_lead(r, gate) != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* also where an error_page led out of a location that has a gate */

    if ((lcf->api == 1 || lcf->errors == 1 || gate->checked)
        && ngx_http_stoa_request_id(r, gate) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (lcf->security_headers == 1 && ngx_http_stoa_security(r, lcf) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_http_stoa_cors_filter(r, gate, lcf) != NGX_OK) {
        return NGX_ERROR;
    }

    if (lcf->api == 1 && gate->routed && gate->match.alias != NULL
        && ngx_http_stoa_link(r, gate) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_stoa_next_header_filter(r);
}

static ngx_int_t
ngx_http_stoa_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_chain_t           out, *cl;
    ngx_http_stoa_page_t *page;

    if (in == NULL || r != r->main || r->err_status == 0) {
        return ngx_http_stoa_next_body_filter(r, in);
    }

    page = ngx_http_stoa_page_find(r);

    if (page == NULL) {
        return ngx_http_stoa_next_body_filter(r, in);
    }

    for (cl = in; cl != NULL; cl = cl->next) {
        cl->buf->pos = cl->buf->last; /* nginx's text: read, not sent */

        if (cl->buf->in_file) {
            cl->buf->file_pos = cl->buf->file_last;
        }
    }

    if (page->sent) {
        return NGX_OK;
    }

    page->sent = 1;
    out.buf = page->body;
    out.next = NULL;

    return ngx_http_stoa_next_body_filter(r, &out);
}

/* Turns the special response that is about to leave into a problem. */
static ngx_int_t
ngx_http_stoa_page(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                   ngx_http_stoa_loc_conf_t *lcf)
{
    ngx_buf_t            *buf;
    stoa_mem_t            mem;
    stoa_buf_t            b;
    stoa_err_e            err;
    ngx_uint_t            bare;
    ngx_http_cleanup_t   *cln;
    ngx_http_stoa_page_t *page;

    err = gate->refused != STOA_OK ? gate->refused
                                   : ngx_http_stoa_page_error(r);
    if (err == STOA_OK) {
        return NGX_OK;
    }

    gate->refused = err; /* the log names what the client is told */

    if (err == STOA_E_METHOD_NOT_ALLOWED && !gate->checked) {
        /* TRACE is refused by nginx before there is a location */
        ngx_http_stoa_gate_route(r, gate);
    }

    cln = ngx_http_cleanup_add(r, sizeof(ngx_http_stoa_page_t));
    if (cln == NULL) {
        return NGX_ERROR;
    }

    bare = lcf->envelope == 2
        || ngx_http_stoa_accepts(ngx_http_stoa_header_in(r, "accept"),
                                 "application/problem+json")
               == 2;

    ngx_http_stoa_mem_init(&mem, r->pool);
    stoa_buf_init(&b, &mem, 512, 4096);
    ngx_http_stoa_problem(&b, NULL, gate, err, bare);

    buf = ngx_calloc_buf(r->pool);

    if (b.failed || buf == NULL
        || ngx_http_stoa_problem_headers(r, gate, err) != NGX_OK
        || ngx_http_stoa_header(r, "Cache-Control",
                                (stoa_str_t) stoa_string("no-store"))
               != NGX_OK)
    {
        return NGX_ERROR;
    }

    buf->pos = b.data;
    buf->last = b.data + b.len;
    buf->memory = 1;
    buf->last_buf = 1;
    buf->last_in_chain = 1;

    page = cln->data;
    page->body = buf;
    page->sent = 0;
    cln->handler = ngx_http_stoa_page_cleanup;

    if (bare) {
        ngx_str_set(&r->headers_out.content_type, "application/problem+json");

    } else {
        ngx_str_set(&r->headers_out.content_type, "application/json");
    }

    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;
    r->headers_out.charset.len = 0;
    r->headers_out.status = (ngx_uint_t) stoa_err_row(err)->status;
    r->err_status = r->headers_out.status;
    ngx_http_stoa_reason(r, stoa_err_row(err)->status);
    r->disable_not_modified = 1;

    ngx_http_clear_content_length(r);
    r->headers_out.content_length_n = (off_t) b.len;

    return NGX_OK;
}

/* A refusal becomes the way to the sign-in. */
static ngx_int_t
ngx_http_stoa_lead(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate)
{
    r->headers_out.status = NGX_HTTP_MOVED_TEMPORARILY;
    r->headers_out.status_line.len = 0;
    r->headers_out.content_type.len = 0;
    r->err_status = NGX_HTTP_MOVED_TEMPORARILY;
    r->header_only = 1;

    ngx_http_clear_content_length(r);
    r->headers_out.content_length_n = 0;

    if (ngx_http_stoa_header(r, "Location", gate->login) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_stoa_header(r, "Cache-Control",
                                (stoa_str_t) stoa_string("no-store"));
}

static stoa_err_e
ngx_http_stoa_page_error(ngx_http_request_t *r)
{
    switch (r->err_status) {

    case NGX_HTTP_BAD_REQUEST:
        /* 494 leaves nginx as 400; it alone keeps lingering_close */
        return r->lingering_close && r->headers_in.content_length_n <= 0
                    && !r->headers_in.chunked
                 ? STOA_E_HEADERS_TOO_LARGE
                 : STOA_E_BAD_REQUEST;

    case NGX_HTTP_UNAUTHORIZED:
        return STOA_E_UNAUTHENTICATED;
    case NGX_HTTP_FORBIDDEN:
        return STOA_E_FORBIDDEN;
    case NGX_HTTP_NOT_FOUND:
        return STOA_E_NOT_FOUND;
    case NGX_HTTP_NOT_ALLOWED:
        return STOA_E_METHOD_NOT_ALLOWED;
    case NGX_HTTP_REQUEST_TIME_OUT:
        return STOA_E_REQUEST_TIMEOUT;
    case NGX_HTTP_CONFLICT:
        return STOA_E_CONFLICT;
    case NGX_HTTP_PRECONDITION_FAILED:
        return STOA_E_PRECONDITION_FAILED;
    case NGX_HTTP_REQUEST_ENTITY_TOO_LARGE:
        return STOA_E_PAYLOAD_TOO_LARGE;
    case NGX_HTTP_REQUEST_URI_TOO_LARGE:
        return STOA_E_URI_TOO_LONG;
    case NGX_HTTP_UNSUPPORTED_MEDIA_TYPE:
        return STOA_E_UNSUPPORTED_MEDIA_TYPE;
    case NGX_HTTP_RANGE_NOT_SATISFIABLE:
        return STOA_E_RANGE_NOT_SATISFIABLE;
    case NGX_HTTP_MISDIRECTED_REQUEST:
        return STOA_E_MISDIRECTED;
    case NGX_HTTP_TOO_MANY_REQUESTS:
        return STOA_E_RATE_LIMITED;
    case NGX_HTTP_REQUEST_HEADER_TOO_LARGE:
        return STOA_E_HEADERS_TOO_LARGE;
    case NGX_HTTP_INTERNAL_SERVER_ERROR:
        return STOA_E_INTERNAL;
    case NGX_HTTP_NOT_IMPLEMENTED:
        return STOA_E_NOT_IMPLEMENTED;
    case NGX_HTTP_VERSION_NOT_SUPPORTED:
        return STOA_E_HTTP_VERSION;
    case NGX_HTTP_BAD_GATEWAY:
        return STOA_E_BAD_GATEWAY;
    case NGX_HTTP_SERVICE_UNAVAILABLE:
        return STOA_E_POOL_SATURATED;
    case NGX_HTTP_GATEWAY_TIME_OUT:
        return STOA_E_TIMEOUT;
    default:
        /* "return 410;" of the operator: his status, and nginx's page */
        return STOA_OK;
    }
}

ngx_table_elt_t *
ngx_http_stoa_header_out(ngx_http_request_t *r, const char *name)
{
    size_t           len;
    ngx_uint_t       i;
    ngx_list_part_t *part;
    ngx_table_elt_t *h;

    len = ngx_strlen(name);
    part = &r->headers_out.headers.part;
    h = part->elts;

    for (i = 0;; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                return NULL;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].hash != 0 && h[i].key.len == len
            && ngx_strncasecmp(h[i].key.data, (u_char *) (uintptr_t) name, len)
                   == 0)
        {
            return &h[i];
        }
    }
}

/* One id: what a proxied server says of its own, or echoes, makes way. */
static ngx_int_t
ngx_http_stoa_request_id(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate)
{
    stoa_str_t       id;
    ngx_table_elt_t *h;

    while ((h = ngx_http_stoa_header_out(r, "X-Request-Id")) != NULL) {
        h->hash = 0;
    }

    id.data = gate->request_id;
    id.len = sizeof(gate->request_id);

    return ngx_http_stoa_header(r, "X-Request-Id", id);
}

/*
 * OWASP's list of headers for REST and for pages.  What a file's location or
 * a proxied server says by itself stays; rows say none of these but a policy.
 */
static ngx_int_t
ngx_http_stoa_security(ngx_http_request_t *r, ngx_http_stoa_loc_conf_t *lcf)
{
    enum {
        ROWS = 1,
        OTHERS = 2,
        TLS = 4,
        OWN = 8 /* some rows have their own */
    };
    static const struct {
        const char *name;
        stoa_str_t  value;
        ngx_uint_t  on;
    } headers[] = {
        { "X-Content-Type-Options", stoa_string("nosniff"), ROWS | OTHERS },
        { "Referrer-Policy", stoa_string("no-referrer"), ROWS | OTHERS },
        { "Strict-Transport-Security", stoa_string("max-age=31536000"), TLS },
        { "Content-Security-Policy",
          stoa_string("default-src 'none'; frame-ancestors 'none'"),
          ROWS | OWN },
        { "Content-Security-Policy",
          stoa_string("default-src 'self'; img-src 'self' data: blob:; "
                      "object-src 'none'; base-uri 'none'; form-action 'self'; "
                      "frame-ancestors 'none'"),
          OTHERS },
        { "Cross-Origin-Resource-Policy", stoa_string("same-origin"),
          ROWS | OTHERS },
        { "Cross-Origin-Opener-Policy", stoa_string("same-origin"), OTHERS },
        { "X-Frame-Options", stoa_string("DENY"), OTHERS },
        { "X-Permitted-Cross-Domain-Policies", stoa_string("none"), OTHERS },
        { "Origin-Agent-Cluster", stoa_string("?1"), OTHERS },
    };

    ngx_uint_t i, on = lcf->api == 1 ? ROWS : OTHERS;

#if (NGX_HTTP_SSL)
    if (r->connection->ssl != NULL) {
        on |= TLS;
    }
#endif

    for (i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {

        if ((headers[i].on & on) == 0
            || ((on & OTHERS || headers[i].on & OWN)
                && ngx_http_stoa_header_out(r, headers[i].name) != NULL))
        {
            continue;
        }

        if (ngx_http_stoa_header(r, headers[i].name, headers[i].value)
            != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}

/* The request came by an alias: name the canonical path. */
static ngx_int_t
ngx_http_stoa_link(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate)
{
    ngx_uint_t             m;
    stoa_mem_t             mem;
    stoa_buf_t             b;
    const stoa_endpoint_t *ep;

    ep = gate->ep;

    for (m = STOA_GET; ep == NULL && m < STOA_METHOD_COUNT; m++) {
        ep = gate->match.rows[m];
    }

    if (ep == NULL) {
        return NGX_OK;
    }

    ngx_http_stoa_mem_init(&mem, r->pool);
    stoa_buf_init(&b, &mem, 128, 4096);
    stoa_buf_char(&b, '<');
    ngx_http_stoa_canonical_path(&b, gate, ep);
    stoa_buf_z(&b, ">; rel=\"canonical\"");

    if (b.failed) {
        return NGX_OK; /* a path of 4 KB: the hint is not worth an error */
    }

    return ngx_http_stoa_header(r, "Link", stoa_buf_view(&b));
}

/* Marks the record; r->ctx does not survive internal redirects. */
static void
ngx_http_stoa_page_cleanup(void *data)
{
    (void) data;
}

static ngx_http_stoa_page_t *
ngx_http_stoa_page_find(ngx_http_request_t *r)
{
    ngx_http_cleanup_t *cln;

    for (cln = r->main->cleanup; cln != NULL; cln = cln->next) {
        if (cln->handler == ngx_http_stoa_page_cleanup) {
            return cln->data;
        }
    }

    return NULL;
}
