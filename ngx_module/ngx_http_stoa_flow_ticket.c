/*
 * Flows of tickets and devices: codes signed for an order, the QR as SVG, a
 * code of the next generation for reissue and transfer, and the pairing of
 * scanners.  The edge alone holds the signing key; SQL stores what it is
 * given and decides who may.
 */

#include "ngx_http_stoa.h"

#include "stoa_qr.h"

#define NGX_HTTP_STOA_CODES_MAX   100
#define NGX_HTTP_STOA_SVG_MAX     131072
#define NGX_HTTP_STOA_PAIR_BYTES  10 /* 16 characters of base32 */
#define NGX_HTTP_STOA_DEVICE_LIFE (90 * 24 * 3600)

static ngx_http_stoa_main_conf_t *ngx_http_stoa_ticket_conf(
    ngx_http_stoa_ctx_t *q);
static stoa_err_e ngx_http_stoa_codes_item(ngx_http_stoa_ctx_t *q,
                                           stoa_buf_t          *b,
                                           const stoa_uuid_t   *type);

/*
 * $codes: [{"ticket_type_id","id","code"}], one entry per ticket of the
 * validated body's items.  The bound keeps the loop short.
 */
stoa_err_e
ngx_http_stoa_codes(ngx_http_stoa_ctx_t *q)
{
    size_t       i, n;
    int64_t      quantity, sum;
    stoa_err_e   err;
    stoa_buf_t   b;
    stoa_uuid_t  type;
    stoa_json_t *items, *item, *id, *count;

    items = q->json != NULL ? stoa_json_get(q->json, "items") : NULL;

    if (items == NULL || stoa_json_type(items) != STOA_JSON_ARRAY) {
        return STOA_OK; /* the row's fields have said what is missing */
    }

    stoa_buf_init(&b, &q->mem, 1024, 65536);
    stoa_buf_char(&b, '[');
    n = stoa_json_count(items);
    sum = 0;

    for (i = 0; i < n; i++) {
        item = stoa_json_at(items, i);
        id = stoa_json_get(item, "ticketTypeId");

        if (id == NULL) {
            id = stoa_json_get(item, "ticket_type_id");
        }

        count = stoa_json_get(item, "quantity");

        if (id == NULL || !stoa_uuid_parse(stoa_json_str(id), &type)) {
            return STOA_E_INTERNAL; /* validation let it through */
        }

        quantity = count != NULL ? stoa_json_int(count) : 1;

        if (quantity < 1 || quantity > NGX_HTTP_STOA_CODES_MAX - sum) {
            ngx_http_stoa_fault(q, "/items", "too_large",
                                "at most 100 tickets in one order");
            return STOA_OK;
        }

        for (sum += quantity; quantity > 0; quantity--) {
            err = ngx_http_stoa_codes_item(q, &b, &type);

            if (err != STOA_OK) {
                return err;
            }
        }
    }

    stoa_buf_char(&b, ']');

    if (b.failed) {
        return STOA_E_NO_MEMORY;
    }

    q->codes = stoa_buf_view(&b);

    return STOA_OK;
}

static stoa_err_e
ngx_http_stoa_codes_item(ngx_http_stoa_ctx_t *q, stoa_buf_t *b,
                         const stoa_uuid_t *type)
{
    char        text[STOA_CODE_LEN];
    stoa_code_t code;

    code.kid = 1;
    code.generation = 1;
    code.type = *type;

    if (!stoa_id_next(&ngx_http_stoa_process.ids, &code.ticket)
        || !stoa_code_sign(ngx_http_stoa_ticket_conf(q)->code_key, &code, text))
    {
        return STOA_E_INTERNAL;
    }

    stoa_buf_z(b, b->len > 1 ? ",{\"ticket_type_id\":\""
                             : "{\"ticket_type_id\":\"");
    stoa_buf_uuid(b, type);
    stoa_buf_z(b, "\",\"id\":\"");
    stoa_buf_uuid(b, &code.ticket);
    stoa_buf_z(b, "\",\"code\":\"");
    stoa_buf_put(b, text, sizeof(text));
    stoa_buf_z(b, "\"}");

    return STOA_OK;
}

static ngx_http_stoa_main_conf_t *
ngx_http_stoa_ticket_conf(ngx_http_stoa_ctx_t *q)
{
    return ngx_http_stoa_mcf(q->r);
}

/* The body of the answer row in q->res, parsed; NULL: it was answered. */
static stoa_json_t *
ngx_http_stoa_ticket_body(ngx_http_stoa_ctx_t *q, ngx_http_stoa_go_e *go)
{
    int64_t           status;
    stoa_str_t        body;
    stoa_json_t      *json;
    stoa_json_fault_t fault;

    body = ngx_http_stoa_flow_column(q, "body");

    if (!stoa_str_int(ngx_http_stoa_flow_column(q, "status"), 0, 299, &status))
    {
        *go = ngx_http_stoa_flow_fail(q, STOA_E_NOT_FOUND);
        return NULL;
    }

    if (status == 0) {
        *go = ngx_http_stoa_flow_end(q, ngx_http_stoa_reply_failure(q, body));
        return NULL;
    }

    json = stoa_json_parse(&q->mem, body, &fault);

    if (json == NULL || stoa_json_type(json) != STOA_JSON_OBJECT) {
        *go = ngx_http_stoa_flow_fail(q, STOA_E_INTERNAL);
        return NULL;
    }

    return json;
}

/* ---- QR ---- */

static ngx_http_stoa_go_e
ngx_http_stoa_svg_find(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t values[2];

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = q->path_values[0];

    return ngx_http_stoa_flow_query(q, STOA_POOL_FAST, STOA_STMT_TICKET_CODE,
                                    values, 2);
}

static ngx_http_stoa_go_e
ngx_http_stoa_svg_draw(ngx_http_stoa_ctx_t *q)
{
    stoa_buf_t         b;
    stoa_str_t         none = stoa_null_string;
    stoa_json_t       *json, *v;
    ngx_http_stoa_go_e go;

    json = ngx_http_stoa_ticket_body(q, &go);
    if (json == NULL) {
        return go;
    }

    v = stoa_json_get(json, "code");
    stoa_buf_init(&b, &q->mem, 16384, NGX_HTTP_STOA_SVG_MAX);

    if (v == NULL || stoa_json_type(v) != STOA_JSON_STRING
        || !stoa_qr_svg(&b, stoa_json_str(v), true, "Ticket code"))
    {
        return ngx_http_stoa_flow_fail(q, STOA_E_INTERNAL);
    }

    return ngx_http_stoa_flow_end(
        q, ngx_http_stoa_reply_bytes(q, NGX_HTTP_OK,
                                     (stoa_str_t) stoa_string("image/svg+xml"),
                                     stoa_buf_view(&b), none));
}

/* ---- reissue, transfer ---- */

static ngx_http_stoa_go_e
ngx_http_stoa_change_begin(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t values[2];

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = q->path_values[0];

    return ngx_http_stoa_flow_query(q, STOA_POOL_FAST, STOA_STMT_CHANGE_BEGIN,
                                    values, 2);
}

static ngx_http_stoa_go_e
ngx_http_stoa_change_store(ngx_http_stoa_ctx_t *q)
{
    char        *text;
    int64_t      generation, status;
    ngx_uint_t   transfer;
    stoa_code_t  code;
    stoa_value_t values[5], v;

    v = ngx_http_stoa_flow_column(q, "status");

    if (v.data != NULL && stoa_str_int(v, 0, 0, &status)) {
        return ngx_http_stoa_flow_refuse(q);
    }

    v = ngx_http_stoa_flow_column(q, "generation");

    if (v.data == NULL) {
        return ngx_http_stoa_flow_fail(q, STOA_E_NOT_FOUND);
    }

    code.kid = 1;
    text = ngx_pnalloc(q->r->pool, STOA_CODE_LEN);

    if (text == NULL) {
        return ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
    }

    if (!stoa_str_int(v, 0, 254, &generation)) {
        return ngx_http_stoa_flow_fail(q, STOA_E_INVALID_STATE);
    }

    code.generation = (unsigned char) (generation + 1);

    if (!stoa_uuid_parse(q->path_values[0], &code.ticket)
        || !stoa_uuid_parse(ngx_http_stoa_flow_column(q, "ticket_type_id"),
                            &code.type)
        || !stoa_code_sign(ngx_http_stoa_ticket_conf(q)->code_key, &code, text))
    {
        return ngx_http_stoa_flow_fail(q, STOA_E_INTERNAL);
    }

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = q->path_values[0];
    values[2] = v; /* compared and swapped */
    values[3] = (stoa_value_t){ STOA_CODE_LEN, (u_char *) text };
    values[4] = q->canonical.data != NULL ? q->canonical
                                          : (stoa_value_t) stoa_string("{}");

    transfer = ngx_strcmp(q->ep->id, "tickets.transfer") == 0;

    return ngx_http_stoa_flow_store(q,
                                    transfer ? STOA_STMT_TRANSFER
                                             : STOA_STMT_REISSUE,
                                    transfer ? STOA_STMT_TRANSFER_KEYED
                                             : STOA_STMT_REISSUE_KEYED,
                                    values, 5);
}

/* ---- one ticket of an event's default type ---- */

static ngx_http_stoa_go_e
ngx_http_stoa_event_begin(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t values[2];

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = q->path_values[0];

    return ngx_http_stoa_flow_query(q, STOA_POOL_FAST, STOA_STMT_EVENT_BEGIN,
                                    values, 2);
}

static ngx_http_stoa_go_e
ngx_http_stoa_event_store(ngx_http_stoa_ctx_t *q)
{
    stoa_buf_t   b;
    stoa_err_e   err;
    stoa_uuid_t  type;
    stoa_value_t values[4], v;

    v = ngx_http_stoa_flow_column(q, "status");

    if (v.data != NULL) {
        return ngx_http_stoa_flow_refuse(q);
    }

    v = ngx_http_stoa_flow_column(q, "ticket_type_id");

    if (!stoa_uuid_parse(v, &type)) {
        return ngx_http_stoa_flow_fail(q, STOA_E_NOT_FOUND);
    }

    stoa_buf_init(&b, &q->mem, 512, 1024);
    stoa_buf_char(&b, '[');
    err = ngx_http_stoa_codes_item(q, &b, &type);
    stoa_buf_char(&b, ']');

    if (err != STOA_OK || b.failed) {
        return ngx_http_stoa_flow_fail(q, STOA_E_INTERNAL);
    }

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = q->path_values[0];
    values[2] = v;
    values[3] = stoa_buf_view(&b);

    return ngx_http_stoa_flow_store(q, STOA_STMT_EVENT_REGISTER,
                                    STOA_STMT_EVENT_REGISTER_KEYED, values, 4);
}

/* ---- devices ---- */

/* "\x.." of SHA-256: codes are stored as their sums. */
static stoa_value_t
ngx_http_stoa_sum(ngx_http_stoa_ctx_t *q, stoa_str_t text)
{
    u_char       sum[STOA_SHA256_LEN];
    stoa_value_t v = stoa_null_string;

    v.data = ngx_pnalloc(q->r->pool, 2 + 2 * sizeof(sum));

    if (v.data == NULL || !stoa_sha256(text.data, text.len, sum)) {
        return (stoa_value_t) stoa_null_string;
    }

    v.data[0] = '\\';
    v.data[1] = 'x';
    v.len = 2 + 2 * sizeof(sum);
    stoa_hex_encode((char *) v.data + 2, sum, sizeof(sum));

    return v;
}

static ngx_http_stoa_go_e
ngx_http_stoa_pair_make(ngx_http_stoa_ctx_t *q)
{
    u_char       raw[NGX_HTTP_STOA_PAIR_BYTES];
    stoa_str_t  *code;
    stoa_value_t values[4];

    code = ngx_pcalloc(q->r->pool, sizeof(stoa_str_t));

    if (code != NULL) {
        code->len = stoa_base32_len(sizeof(raw));
        code->data = ngx_pnalloc(q->r->pool, code->len);
    }

    if (code == NULL || code->data == NULL || !stoa_random(raw, sizeof(raw))) {
        return ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
    }

    stoa_base32_encode(code->data, raw, sizeof(raw));
    q->flow = code;

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = ngx_http_stoa_body_value(q, "event_id");

    if (values[1].data == NULL && q->row->npath != 0) {
        values[1] = q->path_values[0];
    }

    values[2] = ngx_http_stoa_sum(q, *code);
    values[3] = q->canonical.data != NULL ? q->canonical
                                          : (stoa_value_t) stoa_string("{}");

    return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, STOA_STMT_DEVICE_PAIR,
                                    values, 4);
}

ngx_http_stoa_go_e
ngx_http_stoa_answer_with(ngx_http_stoa_ctx_t *q, const char *name,
                          stoa_str_t value)
{
    int64_t    status;
    stoa_buf_t b;
    stoa_str_t body;

    body = ngx_http_stoa_flow_column(q, "body");

    while (body.len > 0 && body.data[body.len - 1] != '}') {
        body.len--;
    }

    if (body.len < 2
        || !stoa_str_int(ngx_http_stoa_flow_column(q, "status"), 200, 299,
                         &status))
    {
        return ngx_http_stoa_flow_fail(q, STOA_E_INTERNAL);
    }

    stoa_buf_init(&b, &q->mem, body.len + value.len + 64,
                  body.len + value.len + 256);
    body.len--;
    stoa_buf_str(&b, body);
    stoa_buf_z(&b, ",\"");
    stoa_buf_z(&b, name);
    stoa_buf_z(&b, "\":\"");
    stoa_buf_str(&b, value);
    stoa_buf_z(&b, "\"}");

    ngx_http_stoa_effects(ngx_http_stoa_flow_column(q, "emit"),
                          q->r->connection->log);

    return ngx_http_stoa_flow_data(q, (ngx_int_t) status, &b);
}

static ngx_http_stoa_go_e
ngx_http_stoa_pair_reply(ngx_http_stoa_ctx_t *q)
{
    stoa_str_t        *code;
    ngx_http_stoa_go_e go;

    if (ngx_http_stoa_ticket_body(q, &go) == NULL) {
        return go;
    }

    code = q->flow;

    return ngx_http_stoa_answer_with(q, "pairingCode", *code);
}

static ngx_http_stoa_go_e
ngx_http_stoa_device_begin(ngx_http_stoa_ctx_t *q)
{
    size_t       i;
    stoa_str_t   code;
    stoa_value_t values[2], given;

    given = ngx_http_stoa_body_value(q, "code");
    code.data = ngx_pnalloc(q->r->pool, given.len + 1);
    code.len = 0;

    if (code.data == NULL) {
        return ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
    }

    for (i = 0; i < given.len; i++) {
        if (given.data[i] != '-' && given.data[i] != ' ') {
            code.data[code.len++] = (u_char) ngx_toupper(given.data[i]);
        }
    }

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = ngx_http_stoa_sum(q, code);

    return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, STOA_STMT_DEVICE_LOGIN,
                                    values, 2);
}

/* The body names deviceId and eventId; the token is made of these. */
static ngx_http_stoa_go_e
ngx_http_stoa_device_reply(ngx_http_stoa_ctx_t *q)
{
    stoa_err_e                 err;
    stoa_buf_t                 token;
    stoa_json_t               *json, *device, *event;
    stoa_claims_t              claims;
    ngx_http_stoa_go_e         go;
    ngx_http_stoa_main_conf_t *mcf;

    json = ngx_http_stoa_ticket_body(q, &go);
    if (json == NULL) {
        return go;
    }

    mcf = ngx_http_stoa_ticket_conf(q);
    device = stoa_json_get(json, "deviceId");
    event = stoa_json_get(json, "eventId");
    ngx_memzero(&claims, sizeof(claims));

    if (device == NULL || event == NULL
        || !stoa_uuid_parse(stoa_json_str(device), &claims.sub)
        || !stoa_uuid_parse(stoa_json_str(event), &claims.event)
        || !stoa_id_next(&ngx_http_stoa_process.ids, &claims.jti))
    {
        return ngx_http_stoa_flow_fail(q, STOA_E_INTERNAL);
    }

    claims.sid = claims.sub;
    claims.roles = STOA_DEVICE;
    claims.iat = stoa_time_ms() / 1000;
    claims.exp = claims.iat + NGX_HTTP_STOA_DEVICE_LIFE;

    stoa_buf_init(&token, &q->mem, 512, STOA_JWT_MAX);
    err = stoa_jwt_sign(mcf->keys, &mcf->rules, &claims,
                        (stoa_str_t) stoa_null_string, &token);

    if (err != STOA_OK) {
        return ngx_http_stoa_flow_fail(q, err);
    }

    return ngx_http_stoa_answer_with(q, "deviceToken", stoa_buf_view(&token));
}

const ngx_http_stoa_step_t ngx_http_stoa_flow_ticket_svg[] = {
    { "find", ngx_http_stoa_svg_find }, /* pg, waits */
    { "draw", ngx_http_stoa_svg_draw },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_ticket_change[] = {
    { "idem", ngx_http_stoa_flow_idem }, /* pg, waits */
    { "seen", ngx_http_stoa_flow_idem_seen },
    { "begin", ngx_http_stoa_change_begin }, /* pg, waits */
    { "store", ngx_http_stoa_change_store }, /* signs; pg, waits */
    { "reply", ngx_http_stoa_flow_answer },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_event_register[] = {
    { "idem", ngx_http_stoa_flow_idem }, /* pg, waits */
    { "seen", ngx_http_stoa_flow_idem_seen },
    { "begin", ngx_http_stoa_event_begin }, /* pg, waits */
    { "store", ngx_http_stoa_event_store }, /* signs; pg, waits */
    { "reply", ngx_http_stoa_flow_answer },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_device_pair[] = {
    { "make", ngx_http_stoa_pair_make }, /* pg, waits */
    { "reply", ngx_http_stoa_pair_reply },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_device_login[] = {
    { "begin", ngx_http_stoa_device_begin }, /* pg, waits */
    { "reply", ngx_http_stoa_device_reply },
    ngx_http_stoa_steps_end,
};
