/*
 * Flows of API keys and of acting in an account's name: what makes a secret
 * or signs, so that neither is ever in a statement.  Of a key PostgreSQL is
 * told its id, the hash of its secret and the characters that lists show.
 */

#include "ngx_http_stoa.h"
#include "stoa_json.h"
#include "stoa_key.h"

#define NGX_HTTP_STOA_ACTING_S 900 /* at most, and never renewed */

typedef struct {
    char       text[STOA_KEY_LEN];
    char       id[36];
    char       hash[2 + 2 * STOA_SHA256_LEN];
    stoa_str_t shown;
} ngx_http_stoa_new_key_t;

/* ---- a key is made ---- */

/* A new one in q->flow; NULL: no memory, or no random bytes. */
static ngx_http_stoa_new_key_t *
ngx_http_stoa_key_new(ngx_http_stoa_ctx_t *q)
{
    u_char                   sum[STOA_SHA256_LEN];
    ngx_uint_t               made;
    stoa_key_t               key;
    ngx_http_stoa_new_key_t *k;

    k = ngx_palloc(q->r->pool, sizeof(ngx_http_stoa_new_key_t));
    if (k == NULL) {
        return NULL;
    }

    made = stoa_key_make(ngx_http_stoa_mcf(q->r)->key_secret, &key, k->text)
        && stoa_key_hash(&key, sum);

    stoa_uuid_print(&key.id, k->id);
    stoa_wipe(&key, sizeof(key));

    if (!made) {
        return NULL;
    }

    k->hash[0] = '\\';
    k->hash[1] = 'x';
    stoa_hex_encode(k->hash + 2, sum, sizeof(sum));
    k->shown.data = (u_char *) k->text;
    k->shown.len = STOA_KEY_SHOWN;
    q->flow = k;

    return k;
}

/* The scopes of the body are those of rows. */
static ngx_uint_t
ngx_http_stoa_key_scopes(ngx_http_stoa_ctx_t *q)
{
    size_t       at;
    u_char      *pointer;
    ngx_uint_t   n;
    stoa_str_t   item;
    stoa_value_t list;

    list = ngx_http_stoa_body_value(q, "scopes");
    at = 0;

    for (n = 0; stoa_json_each(list, &at, &item); n++) {

        if (item.len > 2) {
            item.data++;
            item.len -= 2;

            if (stoa_scope_known(ngx_http_stoa_mcf(q->r)->api, item)) {
                continue;
            }
        }

        pointer = ngx_pnalloc(q->r->pool, sizeof("/scopes/") + NGX_INT_T_LEN);
        if (pointer == NULL) {
            return 0;
        }

        ngx_sprintf(pointer, "/scopes/%ui%Z", n);
        ngx_http_stoa_fault(q, (const char *) pointer, "unknown",
                            "is no scope");
        q->faulted = 1;
    }

    return !q->faulted;
}

static ngx_http_stoa_go_e
ngx_http_stoa_key_create(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t             values[5];
    ngx_http_stoa_new_key_t *k;

    if (!ngx_http_stoa_key_scopes(q)) {
        return ngx_http_stoa_flow_fail(q, q->faulted ? STOA_E_VALIDATION_FAILED
                                                     : STOA_E_NO_MEMORY);
    }

    k = ngx_http_stoa_key_new(q);
    if (k == NULL) {
        return ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
    }

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = (stoa_value_t){ sizeof(k->id), (u_char *) k->id };
    values[2] = (stoa_value_t){ sizeof(k->hash), (u_char *) k->hash };
    values[3] = k->shown;
    values[4] = q->canonical;

    return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, STOA_STMT_KEY_CREATE,
                                    values, 5);
}

static ngx_http_stoa_go_e
ngx_http_stoa_key_rotate(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t             values[6];
    ngx_http_stoa_new_key_t *k;

    k = ngx_http_stoa_key_new(q);
    if (k == NULL) {
        return ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
    }

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = ngx_http_stoa_path_value(q, "id");
    values[2] = (stoa_value_t){ sizeof(k->id), (u_char *) k->id };
    values[3] = (stoa_value_t){ sizeof(k->hash), (u_char *) k->hash };
    values[4] = k->shown;
    values[5] = q->canonical.data != NULL ? q->canonical
                                          : (stoa_value_t) stoa_string("{}");

    return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, STOA_STMT_KEY_ROTATE,
                                    values, 6);
}

/* The key's text is in this answer and nowhere else. */
static ngx_http_stoa_go_e
ngx_http_stoa_key_reply(ngx_http_stoa_ctx_t *q)
{
    int64_t                  status;
    stoa_str_t               text;
    ngx_http_stoa_new_key_t *k;

    if (stoa_str_int(ngx_http_stoa_flow_column(q, "status"), 0, 0, &status)) {
        return ngx_http_stoa_flow_end(
            q,
            ngx_http_stoa_reply_failure(q,
                                        ngx_http_stoa_flow_column(q, "body")));
    }

    k = q->flow;
    text.data = (u_char *) k->text;
    text.len = sizeof(k->text);

    return ngx_http_stoa_answer_with(q, "key", text);
}

static ngx_http_stoa_go_e
ngx_http_stoa_key_scope_list(ngx_http_stoa_ctx_t *q)
{
    stoa_buf_t b;

    stoa_buf_init(&b, &q->mem, 1024, 16384);
    stoa_buf_z(&b, "{\"scopes\":");
    stoa_scope_list(&b, ngx_http_stoa_mcf(q->r)->api);
    stoa_buf_char(&b, '}');

    return ngx_http_stoa_flow_data(q, NGX_HTTP_OK, &b);
}

/* ---- an admin in an account's name ---- */

static ngx_http_stoa_go_e
ngx_http_stoa_impersonate_ask(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t values[3];

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = ngx_http_stoa_path_value(q, "id");
    values[2] = ngx_http_stoa_body_value(q, "reason");

    return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, STOA_STMT_IMPERSONATE,
                                    values, 3);
}

/* The session is the admin's, so the token ends with it; it also ends when
   the epoch of either account goes up. */
static stoa_err_e
ngx_http_stoa_impersonate_sign(ngx_http_stoa_ctx_t *q, stoa_claims_t *claims,
                               stoa_buf_t *token)
{
    int64_t                    epoch, act_epoch;
    ngx_http_stoa_main_conf_t *mcf;

    mcf = ngx_http_stoa_mcf(q->r);
    ngx_memzero(claims, sizeof(stoa_claims_t));

    if (!stoa_uuid_parse(ngx_http_stoa_flow_column(q, "user_id"), &claims->sub)
        || !stoa_str_int(ngx_http_stoa_flow_column(q, "epoch"), 0, UINT32_MAX,
                         &epoch)
        || !stoa_str_int(ngx_http_stoa_flow_column(q, "act_epoch"), 0,
                         UINT32_MAX, &act_epoch)
        || !stoa_id_next(&ngx_http_stoa_process.ids, &claims->jti))
    {
        return STOA_E_INTERNAL;
    }

    claims->sid = q->gate->claims.sid;
    claims->act = q->gate->claims.sub;
    claims->acting = true;
    claims->epoch = (uint32_t) epoch;
    claims->act_epoch = (uint32_t) act_epoch;
    claims->roles = stoa_roles_parse(ngx_http_stoa_flow_column(q, "roles"));
    claims->iat = stoa_time_ms() / 1000;
    claims->exp = claims->iat
                + ngx_min(mcf->conf.access_ttl, NGX_HTTP_STOA_ACTING_S);

    stoa_buf_init(token, &q->mem, 640, STOA_JWT_MAX);

    return stoa_jwt_sign(mcf->keys, &mcf->rules, claims,
                         (stoa_str_t) stoa_null_string, token);
}

static ngx_http_stoa_go_e
ngx_http_stoa_impersonate_reply(ngx_http_stoa_ctx_t *q)
{
    char          at[24];
    int64_t       status;
    stoa_buf_t    b, token;
    stoa_str_t    body;
    stoa_err_e    err;
    stoa_claims_t claims;

    body = ngx_http_stoa_flow_column(q, "body");

    if (!stoa_str_int(ngx_http_stoa_flow_column(q, "status"), 0, 299, &status))
    {
        return ngx_http_stoa_flow_fail(q, STOA_E_INTERNAL);
    }

    if (status == 0) {
        return ngx_http_stoa_flow_end(q, ngx_http_stoa_reply_failure(q, body));
    }

    err = ngx_http_stoa_impersonate_sign(q, &claims, &token);
    if (err != STOA_OK) {
        return ngx_http_stoa_flow_fail(q, err);
    }

    stoa_time_print(claims.exp * 1000, at);

    stoa_buf_init(&b, &q->mem, body.len + token.len + 256,
                  body.len + token.len + 512);
    stoa_buf_z(&b, "{\"user\":");
    stoa_buf_str(&b, body);
    stoa_buf_z(&b, ",\"actingAs\":\"");
    stoa_buf_uuid(&b, &claims.act);
    stoa_buf_z(&b, "\",\"accessToken\":\"");
    stoa_buf_str(&b, stoa_buf_view(&token));
    stoa_buf_z(&b, "\",\"tokenType\":\"Bearer\",\"expiresIn\":");
    stoa_buf_int(&b, claims.exp - claims.iat);
    stoa_buf_z(&b, ",\"expiresAt\":\"");
    stoa_buf_put(&b, at, sizeof(at));
    stoa_buf_z(&b, "\"}");

    return ngx_http_stoa_flow_data(q, NGX_HTTP_OK, &b);
}

const ngx_http_stoa_step_t ngx_http_stoa_flow_key_create[] = {
    { "make", ngx_http_stoa_key_create }, /* pg, waits */
    { "reply", ngx_http_stoa_key_reply },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_key_rotate[] = {
    { "make", ngx_http_stoa_key_rotate }, /* pg, waits */
    { "reply", ngx_http_stoa_key_reply },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_key_scopes[] = {
    { "reply", ngx_http_stoa_key_scope_list },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_impersonate[] = {
    { "ask", ngx_http_stoa_impersonate_ask }, /* pg, waits */
    { "reply", ngx_http_stoa_impersonate_reply },
    ngx_http_stoa_steps_end,
};
