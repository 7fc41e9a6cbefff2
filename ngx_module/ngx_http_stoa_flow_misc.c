/*
 * Small flows: the test provider's payment form, the table of errors, the
 * OpenAPI document (built once per process from the rows), the public keys.
 */

#include "ngx_http_stoa.h"

#define NGX_HTTP_STOA_OPENAPI_MAX (4 * 1024 * 1024)

static stoa_mem_t *ngx_http_stoa_openapi_mem;
static stoa_str_t  ngx_http_stoa_openapi;
static u_char      ngx_http_stoa_openapi_etag[2 * STOA_SHA256_LEN];

static ngx_http_stoa_go_e
ngx_http_stoa_pay_store(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t values[3];

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = q->path_values[0];
    values[2] = ngx_http_stoa_body_value(q, "action");

    return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, STOA_STMT_PAY, values,
                                    3);
}

/* 303 to the page that polls the order. */
static ngx_http_stoa_go_e
ngx_http_stoa_pay_reply(ngx_http_stoa_ctx_t *q)
{
    int64_t    status;
    stoa_buf_t b;

    if (!stoa_str_int(ngx_http_stoa_flow_column(q, "status"), 0, 399, &status))
    {
        return ngx_http_stoa_flow_fail(q, STOA_E_NOT_FOUND);
    }

    if (status == 0) {
        return ngx_http_stoa_flow_end(
            q,
            ngx_http_stoa_reply_failure(q,
                                        ngx_http_stoa_flow_column(q, "body")));
    }

    ngx_http_stoa_effects(ngx_http_stoa_flow_column(q, "emit"),
                          q->r->connection->log);

    stoa_buf_init(&b, &q->mem, 80, 256);
    stoa_buf_z(&b, "/events/order/?id=");
    stoa_buf_str(&b, q->path_values[0]);

    if (b.failed) {
        return ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
    }

    q->location = stoa_buf_view(&b);

    return ngx_http_stoa_flow_end(
        q, ngx_http_stoa_reply_empty(q, NGX_HTTP_SEE_OTHER));
}

static ngx_http_stoa_go_e
ngx_http_stoa_errors_reply(ngx_http_stoa_ctx_t *q)
{
    ngx_uint_t            i;
    stoa_buf_t            b;
    stoa_str_t            none = stoa_null_string;
    const stoa_err_row_t *row;

    stoa_buf_init(&b, &q->mem, 8192, 65536);
    stoa_buf_char(&b, '[');

    for (i = 1; i < STOA_E_COUNT; i++) {
        row = stoa_err_row((stoa_err_e) i);
        stoa_buf_z(&b, i > 1 ? ",{\"code\":" : "{\"code\":");
        stoa_buf_json_z(&b, row->code);
        stoa_buf_z(&b, ",\"status\":");
        stoa_buf_int(&b, row->status);
        stoa_buf_z(&b, ",\"title\":");
        stoa_buf_json_z(&b, row->title);
        stoa_buf_char(&b, '}');
    }

    stoa_buf_char(&b, ']');

    if (b.failed) {
        return ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
    }

    return ngx_http_stoa_flow_end(q,
                                  ngx_http_stoa_reply_answer(q, NGX_HTTP_OK,
                                                             stoa_buf_view(&b),
                                                             none, none));
}

static ngx_http_stoa_go_e
ngx_http_stoa_openapi_reply(ngx_http_stoa_ctx_t *q)
{
    u_char     sum[STOA_SHA256_LEN];
    stoa_buf_t b;
    stoa_str_t etag, none = stoa_null_string;

    if (ngx_http_stoa_openapi.data == NULL) {

        ngx_http_stoa_openapi_mem =
            stoa_arena_create(65536, 4 * NGX_HTTP_STOA_OPENAPI_MAX);

        if (ngx_http_stoa_openapi_mem == NULL) {
            return ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
        }

        stoa_buf_init(&b, ngx_http_stoa_openapi_mem, 65536,
                      NGX_HTTP_STOA_OPENAPI_MAX);

        if (!stoa_api_openapi(ngx_http_stoa_mcf(q->r)->api, &b) || b.failed
            || !stoa_sha256(b.data, b.len, sum))
        {
            ngx_http_stoa_misc_exit();
            return ngx_http_stoa_flow_fail(q, STOA_E_INTERNAL);
        }

        ngx_http_stoa_openapi = stoa_buf_view(&b);
        stoa_hex_encode((char *) ngx_http_stoa_openapi_etag, sum, sizeof(sum));
    }

    etag.data = ngx_http_stoa_openapi_etag;
    etag.len = 32;

    return ngx_http_stoa_flow_end(
        q, ngx_http_stoa_reply_answer(q, NGX_HTTP_OK, ngx_http_stoa_openapi,
                                      none, etag));
}

static ngx_http_stoa_go_e
ngx_http_stoa_jwks_reply(ngx_http_stoa_ctx_t *q)
{
    char       text[2 * STOA_SHA256_LEN];
    u_char     sum[STOA_SHA256_LEN];
    stoa_buf_t b;
    stoa_str_t etag, none = stoa_null_string;

    stoa_buf_init(&b, &q->mem, 2048, 65536);

    if (!stoa_jwks_print(ngx_http_stoa_mcf(q->r)->keys, &b)
        || !stoa_sha256(b.data, b.len, sum))
    {
        return ngx_http_stoa_flow_fail(q, STOA_E_INTERNAL);
    }

    stoa_hex_encode(text, sum, sizeof(sum));
    etag.data = (u_char *) text;
    etag.len = 32;

    return ngx_http_stoa_flow_end(q,
                                  ngx_http_stoa_reply_answer(q, NGX_HTTP_OK,
                                                             stoa_buf_view(&b),
                                                             none, etag));
}

void
ngx_http_stoa_misc_exit(void)
{
    if (ngx_http_stoa_openapi_mem != NULL) {
        stoa_arena_destroy(ngx_http_stoa_openapi_mem);
        ngx_http_stoa_openapi_mem = NULL;
        ngx_http_stoa_openapi.data = NULL;
        ngx_http_stoa_openapi.len = 0;
    }
}

const ngx_http_stoa_step_t ngx_http_stoa_flow_pay_form[] = {
    { "store", ngx_http_stoa_pay_store }, /* pg, waits */
    { "reply", ngx_http_stoa_pay_reply },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_errors[] = {
    { "reply", ngx_http_stoa_errors_reply },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_openapi[] = {
    { "reply", ngx_http_stoa_openapi_reply },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_jwks[] = {
    { "reply", ngx_http_stoa_jwks_reply },
    ngx_http_stoa_steps_end,
};
