/*
 * Small flows: the test provider's payment form, the table of errors, the
 * OpenAPI document and the operator's manual (built once per process from the
 * rows), the public keys.
 */

#include "ngx_http_stoa.h"
#include "stoa_manual.h"

#define NGX_HTTP_STOA_DOCUMENT_MAX (4 * 1024 * 1024)

typedef struct {
    stoa_mem_t *mem; /* NULL: not built yet */
    stoa_str_t  text;
    u_char      etag[2 * STOA_SHA256_LEN];
} ngx_http_stoa_document_t;

static ngx_http_stoa_document_t ngx_http_stoa_openapi;
static ngx_http_stoa_document_t ngx_http_stoa_manual;

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

    return ngx_http_stoa_flow_elsewhere(q, &b);
}

static ngx_http_stoa_go_e
ngx_http_stoa_errors_reply(ngx_http_stoa_ctx_t *q)
{
    ngx_uint_t            i;
    stoa_buf_t            b;
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

    return ngx_http_stoa_flow_data(q, NGX_HTTP_OK, &b);
}

static void
ngx_http_stoa_document_free(ngx_http_stoa_document_t *doc)
{
    if (doc->mem != NULL) {
        stoa_arena_destroy(doc->mem);
        ngx_memzero(doc, sizeof(ngx_http_stoa_document_t));
    }
}

static ngx_int_t
ngx_http_stoa_document_build(ngx_http_stoa_ctx_t      *q,
                             ngx_http_stoa_document_t *doc)
{
    u_char     sum[STOA_SHA256_LEN];
    stoa_buf_t b;

    if (doc->mem != NULL) {
        return NGX_OK;
    }

    doc->mem = stoa_arena_create(65536, 4 * NGX_HTTP_STOA_DOCUMENT_MAX);
    if (doc->mem == NULL) {
        return NGX_ERROR;
    }

    stoa_buf_init(&b, doc->mem, 65536, NGX_HTTP_STOA_DOCUMENT_MAX);

    if (!(doc == &ngx_http_stoa_openapi
              ? stoa_api_openapi(ngx_http_stoa_mcf(q->r)->api, &b)
              : stoa_manual_json(&b, (1U << STOA_MANUAL_COUNT) - 1, doc->mem))
        || b.failed || !stoa_sha256(b.data, b.len, sum))
    {
        ngx_http_stoa_document_free(doc);
        return NGX_ERROR;
    }

    doc->text = stoa_buf_view(&b);
    stoa_hex_encode((char *) doc->etag, sum, sizeof(sum));

    return NGX_OK;
}

static ngx_http_stoa_go_e
ngx_http_stoa_document_reply(ngx_http_stoa_ctx_t      *q,
                             ngx_http_stoa_document_t *doc)
{
    stoa_str_t etag, none = stoa_null_string;

    if (ngx_http_stoa_document_build(q, doc) != NGX_OK) {
        return ngx_http_stoa_flow_fail(q, STOA_E_INTERNAL);
    }

    etag.data = doc->etag;
    etag.len = 32;

    return ngx_http_stoa_flow_end(q, ngx_http_stoa_reply_answer(q, NGX_HTTP_OK,
                                                                doc->text, none,
                                                                etag));
}

static ngx_http_stoa_go_e
ngx_http_stoa_openapi_reply(ngx_http_stoa_ctx_t *q)
{
    return ngx_http_stoa_document_reply(q, &ngx_http_stoa_openapi);
}

static ngx_http_stoa_go_e
ngx_http_stoa_manual_reply(ngx_http_stoa_ctx_t *q)
{
    return ngx_http_stoa_document_reply(q, &ngx_http_stoa_manual);
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
    ngx_http_stoa_document_free(&ngx_http_stoa_openapi);
    ngx_http_stoa_document_free(&ngx_http_stoa_manual);
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

const ngx_http_stoa_step_t ngx_http_stoa_flow_manual[] = {
    { "reply", ngx_http_stoa_manual_reply },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_jwks[] = {
    { "reply", ngx_http_stoa_jwks_reply },
    ngx_http_stoa_steps_end,
};
