/*
 * The text of an error: RFC 9457 members from its row, the request's id, what
 * was wrong with the input, and the headers that go with it.  Sends nothing:
 * ngx_http_stoa_reply.c and the filter do.
 */

#include "ngx_http_stoa_limit.h"

#define NGX_HTTP_STOA_TYPE "/api/v1/errors#"

static void      ngx_http_stoa_problem_faults(stoa_buf_t          *b,
                                              const stoa_faults_t *faults);
static ngx_int_t ngx_http_stoa_problem_after(ngx_http_request_t   *r,
                                             ngx_http_stoa_gate_t *gate);
static ngx_int_t ngx_http_stoa_problem_step_up(ngx_http_request_t *r);
static ngx_int_t ngx_http_stoa_problem_scope(ngx_http_request_t   *r,
                                             ngx_http_stoa_gate_t *gate);

void
ngx_http_stoa_problem(stoa_buf_t *b, ngx_http_stoa_ctx_t *q,
                      ngx_http_stoa_gate_t *gate, stoa_err_e err,
                      ngx_uint_t bare)
{
    const char           *type;
    const stoa_err_row_t *row;

    row = stoa_err_row(err);

    if (!bare) {
        stoa_buf_z(b, "{\"success\":false,\"data\":null,\"meta\":null,"
                      "\"error\":");
    }

    type = stoa_err_type(err);
    stoa_buf_z(b, "{\"type\":\"");
    stoa_buf_z(b, type != NULL ? type : NGX_HTTP_STOA_TYPE);
    stoa_buf_z(b, type != NULL ? "" : row->code);
    stoa_buf_z(b, "\",\"title\":");
    stoa_buf_json_z(b, row->title);
    stoa_buf_z(b, ",\"status\":");
    stoa_buf_int(b, row->status);

    if (q != NULL && q->detail.len != 0) {
        stoa_buf_z(b, ",\"detail\":");
        stoa_buf_json(b, q->detail);
    }

    stoa_buf_z(b, ",\"code\":\"");
    stoa_buf_z(b, row->code);
    stoa_buf_z(b, "\",\"request_id\":\"");
    stoa_buf_put(b, gate->request_id, sizeof(gate->request_id));
    stoa_buf_z(b, "\",\"errors\":");

    if (q != NULL && q->errors.len != 0) {
        stoa_buf_str(b, q->errors);

    } else if (q != NULL && q->faulted) {
        ngx_http_stoa_problem_faults(b, &q->faults);

    } else {
        stoa_buf_z(b, "[]");
    }

    if (q != NULL) {
        stoa_buf_str(b, q->extra);
    }

    if (err == STOA_E_RATE_LIMITED) {
        ngx_http_stoa_limit_violated(b, gate);
    }

    stoa_buf_char(b, '}');

    if (!bare) {
        stoa_buf_z(b, ",\"timestamp\":\"");
        ngx_http_stoa_timestamp(b, q != NULL ? q->at
                                             : (stoa_str_t) stoa_null_string);
        stoa_buf_z(b, "\"}");
    }
}

ngx_int_t
ngx_http_stoa_problem_headers(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                              stoa_err_e err)
{
    stoa_str_t v;

    switch (stoa_err_row(err)->status) {

    case NGX_HTTP_NOT_ALLOWED:
        /* other than rows: files, metrics, health */
        return gate->routed
                 ? ngx_http_stoa_allow(r, gate)
                 : ngx_http_stoa_header(r, "Allow",
                                        (stoa_str_t) stoa_string("GET, HEAD"));

    case NGX_HTTP_UNAUTHORIZED:
        v = (stoa_str_t) stoa_string("Bearer");

        if (err == STOA_E_STEP_UP_REQUIRED) {
            return ngx_http_stoa_problem_step_up(r);
        }

        if (r->headers_in.authorization != NULL) {
            v = (stoa_str_t) stoa_string("Bearer error=\"invalid_token\"");
        }

        return ngx_http_stoa_header(r, "WWW-Authenticate", v);

    case NGX_HTTP_FORBIDDEN:
        return err == STOA_E_SCOPE_MISSING
                 ? ngx_http_stoa_problem_scope(r, gate)
                 : NGX_OK;

    case NGX_HTTP_TOO_MANY_REQUESTS:
        gate->retry_after = ngx_http_stoa_limit_after(gate);
        return ngx_http_stoa_problem_after(r, gate);

    case NGX_HTTP_SERVICE_UNAVAILABLE:
        if (err == STOA_E_HASH_QUEUE_FULL) {
            return ngx_http_stoa_problem_after(r, gate);
        }

        return ngx_http_stoa_header(r, "Retry-After",
                                    (stoa_str_t) stoa_string("1"));

    case NGX_HTTP_CONFLICT:
        if (err != STOA_E_IN_FLIGHT) {
            return NGX_OK;
        }

        return ngx_http_stoa_header(r, "Retry-After",
                                    (stoa_str_t) stoa_string("1"));
    default:
        return NGX_OK;
    }
}

/* RFC 9470 section 3 */
static ngx_int_t
ngx_http_stoa_problem_step_up(ngx_http_request_t *r)
{
    stoa_mem_t mem;
    stoa_buf_t b;

    ngx_http_stoa_mem_init(&mem, r->pool);
    stoa_buf_init(&b, &mem, 128, 256);
    stoa_buf_z(&b, "Bearer error=\"insufficient_user_authentication\", "
                   "error_description=\"a fresh code is needed\", max_age=\"");
    stoa_buf_int(&b, ngx_http_stoa_mcf(r)->conf.step_up_ttl);
    stoa_buf_char(&b, '"');

    return b.failed
             ? NGX_ERROR
             : ngx_http_stoa_header(r, "WWW-Authenticate", stoa_buf_view(&b));
}

/* RFC 6750 3.1: the scope that would do. */
static ngx_int_t
ngx_http_stoa_problem_scope(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate)
{
    char       scope[STOA_SCOPE_MAX];
    u_char    *p;
    stoa_str_t v;

    if (gate->ep == NULL || !stoa_scope_of(gate->ep, scope)) {
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, STOA_SCOPE_MAX + 64);
    if (p == NULL) {
        return NGX_ERROR;
    }

    v.data = p;
    v.len = (size_t) (ngx_sprintf(p,
                                  "Bearer error=\"insufficient_scope\", "
                                  "scope=\"%s\"",
                                  scope)
                      - p);

    return ngx_http_stoa_header(r, "WWW-Authenticate", v);
}

static ngx_int_t
ngx_http_stoa_problem_after(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate)
{
    u_char    *p;
    stoa_str_t v;

    p = ngx_pnalloc(r->pool, NGX_INT_T_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    v.data = p;
    v.len = (size_t) (ngx_sprintf(p, "%ui", ngx_max(gate->retry_after, 1)) - p);
    gate->after_told = 1;

    return ngx_http_stoa_header(r, "Retry-After", v);
}

ngx_int_t
ngx_http_stoa_methods(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                      stoa_str_t *list)
{
    ngx_uint_t m;
    stoa_mem_t mem;
    stoa_buf_t b;

    static const char *names[STOA_METHOD_COUNT] = {
        [STOA_GET] = "GET, HEAD, ", [STOA_POST] = "POST, ",
        [STOA_PUT] = "PUT, ",       [STOA_PATCH] = "PATCH, ",
        [STOA_DELETE] = "DELETE, ",
    };

    ngx_http_stoa_mem_init(&mem, r->pool);
    stoa_buf_init(&b, &mem, 64, 256);

    for (m = STOA_GET; m < STOA_METHOD_COUNT; m++) {
        if (gate->match.methods & (1 << m)) {
            stoa_buf_z(&b, names[m]);
        }
    }

    stoa_buf_z(&b, "OPTIONS");
    *list = stoa_buf_view(&b);

    return b.failed ? NGX_ERROR : NGX_OK;
}

ngx_int_t
ngx_http_stoa_allow(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate)
{
    stoa_str_t list;

    return ngx_http_stoa_methods(r, gate, &list) == NGX_OK
             ? ngx_http_stoa_header(r, "Allow", list)
             : NGX_ERROR;
}

/*
 * RFC 9110 Accept: 0 no, 1 by a wildcard or an absent header, 2 by its name.
 * q=0 excludes; other weights are not compared.
 */
ngx_uint_t
ngx_http_stoa_accepts(stoa_str_t accept, const char *type)
{
    u_char    *p, *last, *item, *end, *semi;
    size_t     len, major;
    ngx_uint_t found;

    if (accept.len == 0) {
        return 1;
    }

    len = ngx_strlen(type);
    major = (size_t) (ngx_strchr(type, '/') - type) + 1;
    found = 0;
    p = accept.data;
    last = p + accept.len;

    while (p < last) {

        while (p < last && (*p == ' ' || *p == ',' || *p == '\t')) {
            p++;
        }

        item = p;

        while (p < last && *p != ',') {
            p++;
        }

        semi = ngx_strlchr(item, p, ';');
        end = semi != NULL ? semi : p;

        while (end > item && (end[-1] == ' ' || end[-1] == '\t')) {
            end--;
        }

        if (semi != NULL
            && ngx_strlcasestrn(semi, p, (u_char *) "q=0", 3 - 1) != NULL
            && ngx_strlcasestrn(semi, p, (u_char *) "q=0.", 4 - 1) == NULL)
        {
            continue;
        }

        if ((size_t) (end - item) == len
            && ngx_strncasecmp(item, (u_char *) (uintptr_t) type, len) == 0)
        {
            return 2;
        }

        if (end - item == 3 && ngx_strncmp(item, "*/*", 3) == 0) {
            found = 1;

        } else if ((size_t) (end - item) == major + 1
                   && ngx_strncasecmp(item, (u_char *) (uintptr_t) type, major)
                          == 0
                   && end[-1] == '*')
        {
            found = 1;
        }
    }

    return found;
}

static void
ngx_http_stoa_problem_faults(stoa_buf_t *b, const stoa_faults_t *faults)
{
    ngx_uint_t          i;
    const stoa_fault_t *f;

    stoa_buf_char(b, '[');

    for (i = 0; i < faults->n; i++) {
        f = &faults->fault[i];

        if (i != 0) {
            stoa_buf_char(b, ',');
        }

        stoa_buf_z(b, "{\"pointer\":");
        stoa_buf_json_z(b, f->pointer);
        stoa_buf_z(b, ",\"code\":");
        stoa_buf_json_z(b, f->code);
        stoa_buf_z(b, ",\"detail\":");
        stoa_buf_json_z(b, f->detail);
        stoa_buf_char(b, '}');
    }

    stoa_buf_char(b, ']');
}

void
ngx_http_stoa_timestamp(stoa_buf_t *b, stoa_str_t at)
{
    int64_t now, ms;

    static int64_t second = -1; /* of what is in text */
    static char    text[24];

    if (at.len != 0) {
        stoa_buf_str(b, at);
        return;
    }

    now = stoa_time_ms();
    ms = now % 1000;

    if (now / 1000 == second) {
        text[20] = (char) ('0' + ms / 100);
        text[21] = (char) ('0' + ms / 10 % 10);
        text[22] = (char) ('0' + ms % 10);

    } else {
        stoa_time_print(now, text);
        second = now / 1000;
    }

    stoa_buf_put(b, text, sizeof(text));
}
