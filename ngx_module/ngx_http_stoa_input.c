/*
 * From bytes to values: headers that decide before the body is read (size,
 * type, Accept), then path, query, body and the conditional headers against
 * the row's fields.  All faults are gathered, one answer names them all.
 *
 * Values are text as PostgreSQL reads it, in q->mem; nothing suspends here.
 */

#include "ngx_http_stoa.h"

#define NGX_HTTP_STOA_BODY_MAX            65536
#define NGX_HTTP_STOA_WEBHOOK_TOLERANCE_S 300

static stoa_err_e   ngx_http_stoa_input_type(ngx_http_stoa_ctx_t *q);
static stoa_err_e   ngx_http_stoa_input_accept(ngx_http_stoa_ctx_t *q);
static stoa_err_e   ngx_http_stoa_input_path(ngx_http_stoa_ctx_t *q);
static stoa_err_e   ngx_http_stoa_input_query(ngx_http_stoa_ctx_t *q);
static stoa_err_e   ngx_http_stoa_input_body(ngx_http_stoa_ctx_t *q);
static stoa_err_e   ngx_http_stoa_input_list(ngx_http_stoa_ctx_t *q);
static stoa_err_e   ngx_http_stoa_input_verify(ngx_http_stoa_ctx_t *q);
static stoa_value_t ngx_http_stoa_named(const stoa_field_t *fields,
                                        const stoa_value_t *values,
                                        ngx_uint_t n, const char *name);

static const stoa_field_t ngx_http_stoa_no_fields[] = { stoa_end_field };

/* A header that nginx does not keep by itself; lower-case name. */
stoa_str_t
ngx_http_stoa_header_in(ngx_http_request_t *r, const char *lower)
{
    size_t           len;
    ngx_uint_t       i;
    stoa_str_t       value = stoa_null_string;
    ngx_list_part_t *part;
    ngx_table_elt_t *h;

    len = ngx_strlen(lower);
    part = &r->headers_in.headers.part;
    h = part->elts;

    for (i = 0;; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                break;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].key.len == len
            && ngx_memcmp(h[i].lowcase_key, lower, len) == 0) {
            value.data = h[i].value.data;
            value.len = h[i].value.len;
            break;
        }
    }

    return value;
}

void
ngx_http_stoa_fault(ngx_http_stoa_ctx_t *q, const char *pointer,
                    const char *code, const char *detail)
{
    stoa_fault_t *f;

    if (q->faults.n == STOA_INPUT_FAULTS) {
        return;
    }

    f = &q->faults.fault[q->faults.n++];
    f->pointer = pointer;
    f->code = code;
    f->detail = detail;
}

/* What can be judged before the body arrives: 413, 415, 406. */
stoa_err_e
ngx_http_stoa_input_headers(ngx_http_stoa_ctx_t *q)
{
    off_t               max;
    stoa_err_e          err;
    ngx_http_request_t *r;

    r = q->r;

    if (q->ep->body_kind != STOA_BODY_NONE) {
        max = q->ep->body_max != 0 ? q->ep->body_max : NGX_HTTP_STOA_BODY_MAX;

        if (r->headers_in.content_length_n > max) {
            return STOA_E_PAYLOAD_TOO_LARGE;
        }

        err = ngx_http_stoa_input_type(q);
        if (err != STOA_OK) {
            return err;
        }
    }

    return ngx_http_stoa_input_accept(q);
}

/* Everything else that is wrong with the input. */
stoa_err_e
ngx_http_stoa_input(ngx_http_stoa_ctx_t *q)
{
    stoa_err_e err;

    err = ngx_http_stoa_input_path(q);

    if (err == STOA_OK) {
        err = ngx_http_stoa_input_query(q);
    }

    if (err == STOA_OK) {
        err = ngx_http_stoa_input_body(q);
    }

    if (err == STOA_OK) {
        err = ngx_http_stoa_idem_header(q);
    }

    if (err == STOA_OK && q->ep->list != NULL && q->faults.n == 0) {
        err = ngx_http_stoa_input_list(q);
    }

    if (err == STOA_OK && q->faults.n == 0 && q->row->codes) {
        err = ngx_http_stoa_codes(q);
    }

    if (err != STOA_OK) {
        return err;
    }

    if (q->faults.n != 0) {
        q->faulted = 1;
        return STOA_E_VALIDATION_FAILED;
    }

    return ngx_http_stoa_if_match(q);
}

stoa_value_t
ngx_http_stoa_body_value(ngx_http_stoa_ctx_t *q, const char *name)
{
    return ngx_http_stoa_named(q->ep->body, q->body_values, q->row->nbody,
                               name);
}

stoa_value_t
ngx_http_stoa_query_value(ngx_http_stoa_ctx_t *q, const char *name)
{
    return ngx_http_stoa_named(q->row->query, q->query_values, q->row->nquery,
                               name);
}

stoa_value_t
ngx_http_stoa_path_value(ngx_http_stoa_ctx_t *q, const char *name)
{
    ngx_uint_t   i;
    stoa_value_t none = stoa_null_string;

    for (i = 0; i < q->row->npath; i++) {
        if (ngx_strcmp(q->row->path[i]->name, name) == 0) {
            return q->path_values[i];
        }
    }

    return none;
}

/* "; charset=utf-8" or nothing: other parameters say nothing about bytes. */
static ngx_uint_t
ngx_http_stoa_input_utf8(u_char *p, u_char *last)
{
    u_char   *semi, *end;
    ngx_str_t value;

    for (; p < last; p = semi + 1) {
        semi = ngx_strlchr(p, last, ';');
        semi = semi == NULL ? last : semi;

        while (p < semi && (*p == ' ' || *p == '\t')) {
            p++;
        }

        if (semi - p < 8 || ngx_strncasecmp(p, (u_char *) "charset=", 8) != 0) {
            continue;
        }

        end = semi;

        while (end > p && (end[-1] == ' ' || end[-1] == '\t')) {
            end--;
        }

        value.data = p + 8;
        value.len = (size_t) (end - value.data);

        if (value.len >= 2 && value.data[0] == '"'
            && value.data[value.len - 1] == '"') {
            value.data++;
            value.len -= 2;
        }

        if (!(value.len == 5
              && ngx_strncasecmp(value.data, (u_char *) "utf-8", 5) == 0)
            && !(value.len == 4
                 && ngx_strncasecmp(value.data, (u_char *) "utf8", 4) == 0))
        {
            return 0;
        }
    }

    return 1;
}

/* A body that is packed is not read. */
static ngx_uint_t
ngx_http_stoa_input_packed(ngx_http_request_t *r)
{
    stoa_str_t v;

    v = ngx_http_stoa_header_in(r, "content-encoding");

    return v.len != 0
        && !(v.len == 8
             && ngx_strncasecmp(v.data, (u_char *) "identity", 8) == 0);
}

static stoa_err_e
ngx_http_stoa_input_type(ngx_http_stoa_ctx_t *q)
{
    u_char             *p, *last, *semi;
    ngx_str_t           type;
    ngx_http_request_t *r;

    r = q->r;

    if (r->headers_in.content_type == NULL) {
        return (r->headers_in.content_length_n > 0 || r->headers_in.chunked)
                    && q->ep->body_kind != STOA_BODY_RAW
                 ? STOA_E_UNSUPPORTED_MEDIA_TYPE
                 : STOA_OK;
    }

    type = r->headers_in.content_type->value;
    p = type.data;
    last = p + type.len;
    semi = ngx_strlchr(p, last, ';');

    if (q->ep->body_kind != STOA_BODY_RAW
        && (ngx_http_stoa_input_packed(r)
            || (semi != NULL && !ngx_http_stoa_input_utf8(semi + 1, last))))
    {
        return STOA_E_UNSUPPORTED_MEDIA_TYPE;
    }

    if (semi != NULL) {
        last = semi;
    }

    while (last > p && (last[-1] == ' ' || last[-1] == '\t')) {
        last--;
    }

    type.len = (size_t) (last - p);

    switch (q->ep->body_kind) {

    case STOA_BODY_JSON:
        if (type.len == 16
            && ngx_strncasecmp(p, (u_char *) "application/json", 16) == 0)
        {
            return STOA_OK;
        }

        if (type.len > 17
            && ngx_strncasecmp(p, (u_char *) "application/", 12) == 0
            && ngx_strncasecmp(last - 5, (u_char *) "+json", 5) == 0)
        {
            return STOA_OK;
        }

        break;

    case STOA_BODY_FORM:
        if (type.len == 33
            && ngx_strncasecmp(p,
                               (u_char *) "application/x-www-form-urlencoded",
                               33)
                   == 0)
        {
            return STOA_OK;
        }

        break;

    case STOA_BODY_RAW:
    case STOA_BODY_NONE:
        return STOA_OK;
    }

    return STOA_E_UNSUPPORTED_MEDIA_TYPE;
}

static stoa_err_e
ngx_http_stoa_input_accept(ngx_http_stoa_ctx_t *q)
{
    ngx_uint_t any;

    q->accept = ngx_http_stoa_header_in(q->r, "accept");

    if (q->accept.len == 0
        || (q->accept.len == 3 && ngx_strncmp(q->accept.data, "*/*", 3) == 0))
    {
        return STOA_OK;
    }

    any = ngx_http_stoa_accepts(q->accept, "application/problem+json");

    switch (q->ep->media) {

    case STOA_MEDIA_CSV:
    case STOA_MEDIA_BYTES:
        return STOA_OK; /* the path has named the type already */

    case STOA_MEDIA_JSON:
    case STOA_MEDIA_BARE:
    default:
        any |= ngx_http_stoa_accepts(q->accept, "application/json");
        break;
    }

    if (q->ep->flow == STOA_FLOW_TICKET_SVG
        || q->ep->flow == STOA_FLOW_PAY_FORM) {
        return STOA_OK;
    }

    return any ? STOA_OK : STOA_E_NOT_ACCEPTABLE;
}

/* As the document calls it: the pointer of a fault in the path. */
static const char *
ngx_http_stoa_input_wire(ngx_http_stoa_ctx_t *q, const char *name)
{
    char *wire;

    if (ngx_strchr(name, '_') == NULL) {
        return name;
    }

    wire = stoa_alloc(&q->mem, ngx_strlen(name) + 1);
    if (wire == NULL) {
        return name;
    }

    stoa_str_camel(name, wire);

    return wire;
}

static stoa_err_e
ngx_http_stoa_input_path(ngx_http_stoa_ctx_t *q)
{
    ngx_uint_t i, n;

    n = q->row->npath;

    if (n == 0) {
        return STOA_OK;
    }

    q->path_values = stoa_calloc(&q->mem, n * sizeof(stoa_value_t));
    if (q->path_values == NULL) {
        return STOA_E_NO_MEMORY;
    }

    for (i = 0; i < n; i++) {
        (void)
            stoa_input_scalar(&q->mem, q->row->path[i],
                              q->gate->match.params[i], &q->path_values[i],
                              ngx_http_stoa_input_wire(q,
                                                       q->row->path[i]->name),
                              &q->faults); /* counted in faults */
    }

    return STOA_OK;
}

static stoa_err_e
ngx_http_stoa_input_query(ngx_http_stoa_ctx_t *q)
{
    stoa_str_t          args;
    const stoa_field_t *fields;

    fields = q->row->query != NULL ? q->row->query : ngx_http_stoa_no_fields;
    args.data = q->r->args.data;
    args.len = q->r->args.len;

    if (args.len == 0 && q->row->nquery == 0) {
        return STOA_OK;
    }

    q->query_values = stoa_calloc(&q->mem,
                                  (q->row->nquery + 1) * sizeof(stoa_value_t));
    if (q->query_values == NULL) {
        return STOA_E_NO_MEMORY;
    }

    (void) stoa_input_query(&q->mem, fields, args, q->query_values,
                            &q->faults); /* counted in faults */

    return STOA_OK;
}

static stoa_err_e
ngx_http_stoa_input_body(ngx_http_stoa_ctx_t *q)
{
    size_t              max;
    stoa_str_t          text;
    stoa_err_e          err;
    const stoa_field_t *fields;

    if (q->ep->body_kind == STOA_BODY_NONE) {
        return STOA_OK;
    }

    max = q->ep->body_max != 0 ? q->ep->body_max : NGX_HTTP_STOA_BODY_MAX;

    if (q->raw.len > max) {
        return STOA_E_PAYLOAD_TOO_LARGE; /* chunked: known only now */
    }

    if (q->ep->verify != STOA_VERIFY_NONE) {
        err = ngx_http_stoa_input_verify(q);
        if (err != STOA_OK) {
            return err;
        }
    }

    if (q->ep->body_kind == STOA_BODY_RAW) {
        return STOA_OK;
    }

    fields = q->ep->body != NULL ? q->ep->body : ngx_http_stoa_no_fields;

    q->body_values = stoa_calloc(&q->mem,
                                 (q->row->nbody + 1) * sizeof(stoa_value_t));
    if (q->body_values == NULL) {
        return STOA_E_NO_MEMORY;
    }

    text = q->raw;

    if (q->ep->body_kind == STOA_BODY_FORM) {
        (void) stoa_input_form(&q->mem, fields, text, q->body_values,
                               &q->canonical, &q->faults);
        return STOA_OK;
    }

    if (text.len == 0) {
        text = (stoa_str_t) stoa_string("{}");
    }

    (void) stoa_input_json(&q->mem, fields, text, q->body_values, &q->canonical,
                           q->row->codes ? &q->json : NULL, &q->faults);
    return STOA_OK;
}

/* page, limit, sort, cursor: fields that every list row has. */
static stoa_err_e
ngx_http_stoa_input_list(ngx_http_stoa_ctx_t *q)
{
    int64_t             n;
    ngx_uint_t          i, paged = 0;
    stoa_buf_t          b;
    stoa_value_t        v;
    const stoa_list_t  *list;
    const stoa_field_t *f;

    list = q->ep->list;
    q->page = 1;
    q->limit = list->limit != 0 ? list->limit : 20;
    q->sort = 0;

    stoa_buf_init(&b, &q->mem, 128, 65536);

    for (i = 0; i < q->row->nquery; i++) {
        f = &q->row->query[i];
        v = q->query_values[i];

        if (v.data == NULL || ngx_strcmp(f->name, "cursor") == 0) {
            continue;
        }

        if (ngx_strcmp(f->name, "page") == 0) {
            paged = 1;

            if (stoa_str_int(v, 1, INT32_MAX, &n)) {
                q->page = (ngx_uint_t) n;
            }

        } else if (ngx_strcmp(f->name, "limit") == 0) {
            if (stoa_str_int(v, 1, INT32_MAX, &n)) {
                q->limit = (ngx_uint_t) n;
            }

        } else if (ngx_strcmp(f->name, "sort") == 0) {
            while (list->sorts[q->sort].name != NULL
                   && !stoa_str_eq_z(v, list->sorts[q->sort].name))
            {
                q->sort++;
            }

            if (list->sorts[q->sort].name == NULL) {
                q->sort = 0;
            }

        } else {
            stoa_buf_z(&b, f->name);
            stoa_buf_char(&b, '=');
            stoa_buf_str(&b, v);
            stoa_buf_char(&b, '\n');
        }
    }

    if (b.failed) {
        return STOA_E_NO_MEMORY;
    }

    q->filters = stoa_buf_view(&b);

    v = ngx_http_stoa_named(q->row->query, q->query_values, q->row->nquery,
                            "cursor");

    if (v.data != NULL && paged) {
        ngx_http_stoa_fault(q, "cursor", "not_allowed", "goes without a page");
        return STOA_OK;
    }

    return v.data != NULL ? ngx_http_stoa_cursor_open(q, v) : STOA_OK;
}

static stoa_err_e
ngx_http_stoa_input_verify(ngx_http_stoa_ctx_t *q)
{
    int64_t                    now_s;
    stoa_err_e                 err;
    stoa_str_t                 header, *secrets;
    ngx_uint_t                 n, nstripe;
    ngx_http_stoa_main_conf_t *mcf;

    header = ngx_http_stoa_header_in(q->r, "stripe-signature");
    mcf = ngx_http_stoa_mcf(q->r);

    if (mcf->webhook_secrets == NULL) {
        return STOA_E_SIGNATURE_INVALID;
    }

    secrets = mcf->webhook_secrets->elts;
    n = mcf->webhook_secrets->nelts;
    nstripe = mcf->webhook_nstripe;
    now_s = stoa_time_ms() / 1000;

    /* the secret that verifies says who speaks, not the event */

    q->provider = stoa_str_z("stripe");
    err = stoa_signature_verify(header, q->raw, secrets, nstripe, now_s,
                                NGX_HTTP_STOA_WEBHOOK_TOLERANCE_S);

    if (err == STOA_E_SIGNATURE_INVALID && nstripe < n) {
        q->provider = stoa_str_z("test");
        err = stoa_signature_verify(header, q->raw, secrets + nstripe,
                                    n - nstripe, now_s,
                                    NGX_HTTP_STOA_WEBHOOK_TOLERANCE_S);
    }

    return err;
}

static stoa_value_t
ngx_http_stoa_named(const stoa_field_t *fields, const stoa_value_t *values,
                    ngx_uint_t n, const char *name)
{
    ngx_uint_t   i;
    stoa_value_t none = stoa_null_string;

    if (values == NULL) {
        return none;
    }

    for (i = 0; i < n; i++) {
        if (ngx_strcmp(fields[i].name, name) == 0) {
            return values[i];
        }
    }

    return none;
}
