/*
 * Flows that set a password: reset, by the token of a mail, and change, by
 * the password so far, which is tried under the same throttle of failures as
 * a login's.
 */

#include "ngx_http_stoa.h"

#define NGX_HTTP_STOA_MAIL_TOKEN 32 /* bytes before base64url */

ngx_http_stoa_go_e
ngx_http_stoa_flow_fault(ngx_http_stoa_ctx_t *q, const char *pointer,
                         const char *code, const char *detail)
{
    ngx_http_stoa_fault(q, pointer, code, detail);
    q->faulted = 1;

    return ngx_http_stoa_flow_fail(q, STOA_E_VALIDATION_FAILED);
}

/* The account's own address is what a guesser tries first. */
ngx_http_stoa_go_e
ngx_http_stoa_password_own(ngx_http_stoa_ctx_t *q, const char *pointer)
{
    return ngx_http_stoa_flow_fault(q, pointer, "too_common",
                                    "is the account's own address");
}

stoa_err_e
ngx_http_stoa_token_hash(ngx_http_stoa_ctx_t *q)
{
    u_char raw[NGX_HTTP_STOA_MAIL_TOKEN + 1];
    u_char sum[STOA_SHA256_LEN];

    q->hash.len = 2 + 2 * sizeof(sum);
    q->hash.data = ngx_pnalloc(q->r->pool, q->hash.len);

    if (q->hash.data == NULL) {
        return STOA_E_NO_MEMORY;
    }

    if (stoa_base64url_decode(raw, sizeof(raw),
                              ngx_http_stoa_body_value(q, "token"))
            != NGX_HTTP_STOA_MAIL_TOKEN
        || !stoa_sha256(raw, NGX_HTTP_STOA_MAIL_TOKEN, sum))
    {
        ngx_memzero(sum, sizeof(sum)); /* no token has this sum */
    }

    q->hash.data[0] = '\\';
    q->hash.data[1] = 'x';
    stoa_hex_encode((char *) q->hash.data + 2, sum, sizeof(sum));
    stoa_wipe(raw, sizeof(raw));

    return STOA_OK;
}

/* ---- reset: {email} sends, {token,newPassword} consumes ---- */

static ngx_http_stoa_go_e
ngx_http_stoa_reset_begin(ngx_http_stoa_ctx_t *q)
{
    stoa_err_e   err;
    stoa_value_t email, token, password, values[2];

    email = ngx_http_stoa_body_value(q, "email");
    token = ngx_http_stoa_body_value(q, "token");
    password = ngx_http_stoa_body_value(q, "new_password");

    if (email.data != NULL && token.data == NULL && password.data == NULL) {
        values[0] = ngx_http_stoa_ctx_literal(q);
        values[1] = email;

        q->step = 3; /* straight to the answer */

        return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, STOA_STMT_FORGOT,
                                        values, 2);
    }

    if (email.data != NULL || token.data == NULL || password.data == NULL) {
        return ngx_http_stoa_flow_fault(
            q, "", "required", "either email, or token and newPassword");
    }

    err = ngx_http_stoa_token_hash(q);
    if (err != STOA_OK) {
        return ngx_http_stoa_flow_fail(q, err);
    }

    return ngx_http_stoa_flow_query(q, STOA_POOL_FAST, STOA_STMT_RESET_BEGIN,
                                    &q->hash, 1);
}

static ngx_http_stoa_go_e
ngx_http_stoa_reset_hash(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t ok, none = stoa_null_string;

    ok = ngx_http_stoa_flow_column(q, "ok");

    if (ok.len != 1 || ok.data[0] != 't') {
        return ngx_http_stoa_flow_fault(q, "/token", "format",
                                        "is unknown, used or too old");
    }

    if (stoa_str_ieq(ngx_http_stoa_body_value(q, "new_password"),
                     ngx_http_stoa_flow_column(q, "email")))
    {
        return ngx_http_stoa_password_own(q, "/newPassword");
    }

    q->resume = ngx_http_stoa_flow_resume;

    return ngx_http_stoa_flow_wait(
        q,
        ngx_http_stoa_hash_run(q, ngx_http_stoa_body_value(q, "new_password"),
                               none, 0));
}

static ngx_http_stoa_go_e
ngx_http_stoa_reset_store(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t values[3];

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = q->hash;
    values[2] = stoa_str_z(q->hashing->made);

    return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, STOA_STMT_RESET, values,
                                    3);
}

/* ---- the caller's own password ---- */

ngx_http_stoa_go_e
ngx_http_stoa_own_begin(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t ctx;

    ctx = ngx_http_stoa_ctx_literal(q);

    return ngx_http_stoa_flow_query(q, STOA_POOL_FAST, STOA_STMT_PASSWORD_BEGIN,
                                    &ctx, 1);
}

ngx_http_stoa_go_e
ngx_http_stoa_own_try(ngx_http_stoa_ctx_t *q, const char *field)
{
    stoa_err_e   err;
    stoa_value_t email, stored;

    email = ngx_http_stoa_flow_column(q, "email");
    stored = ngx_http_stoa_flow_column(q, "hash");

    if (stored.len == 0) {
        /* gone; or one who signs in by another issuer only */
        return ngx_http_stoa_flow_fail(q, email.len == 0
                                              ? STOA_E_NOT_FOUND
                                              : STOA_E_PASSWORD_NOT_SET);
    }

    /* guesses here count with those at the sign-in */
    err = ngx_http_stoa_throttle_check(q->gate,
                                       ngx_http_stoa_account(q, email));
    if (err != STOA_OK) {
        return ngx_http_stoa_flow_fail(q, err);
    }

    q->resume = ngx_http_stoa_flow_resume;

    return ngx_http_stoa_flow_wait(
        q, ngx_http_stoa_hash_run(q, ngx_http_stoa_body_value(q, field), stored,
                                  0));
}

stoa_err_e
ngx_http_stoa_password_verdict(ngx_http_stoa_ctx_t *q, stoa_value_t email)
{
    stoa_err_e err;

    err = ngx_http_stoa_throttle_verdict(q->gate,
                                         ngx_http_stoa_account(q, email),
                                         q->hashing->matched);

    return err == STOA_OK && !q->hashing->matched ? STOA_E_INVALID_CREDENTIALS
                                                  : err;
}

/* ---- change ---- */

static ngx_http_stoa_go_e
ngx_http_stoa_change_verify(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t email;

    email = ngx_http_stoa_flow_column(q, "email");

    if (stoa_str_ieq(ngx_http_stoa_body_value(q, "new_password"), email)) {
        return ngx_http_stoa_password_own(q, "/newPassword");
    }

    return ngx_http_stoa_own_try(q, "current_password");
}

/* A wrong one is a fault of that field: 401 would tell clients that their
   token is bad, and they would try again with another. */
static ngx_http_stoa_go_e
ngx_http_stoa_change_hash(ngx_http_stoa_ctx_t *q)
{
    stoa_err_e err;
    stoa_str_t none = stoa_null_string;

    err = ngx_http_stoa_password_verdict(q,
                                         ngx_http_stoa_flow_column(q, "email"));

    if (err == STOA_E_INVALID_CREDENTIALS) {
        return ngx_http_stoa_flow_fault(q, "/currentPassword", "wrong",
                                        "is not the account's password");
    }

    if (err != STOA_OK) {
        return ngx_http_stoa_flow_fail(q, err);
    }

    q->resume = ngx_http_stoa_flow_resume;

    return ngx_http_stoa_flow_wait(
        q,
        ngx_http_stoa_hash_run(q, ngx_http_stoa_body_value(q, "new_password"),
                               none, 0));
}

static ngx_http_stoa_go_e
ngx_http_stoa_change_store(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t values[4];

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = ngx_http_stoa_flow_column(q, "hash"); /* what was tried */
    values[2] = stoa_str_z(q->hashing->made);
    values[3] = ngx_http_stoa_user_agent(q);

    return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, STOA_STMT_PASSWORD,
                                    values, 4);
}

const ngx_http_stoa_step_t ngx_http_stoa_flow_auth_reset[] = {
    { "begin", ngx_http_stoa_reset_begin }, /* pg, waits */
    { "hash", ngx_http_stoa_reset_hash },   /* thread, waits */
    { "store", ngx_http_stoa_reset_store }, /* pg, waits */
    { "reply", ngx_http_stoa_flow_answer }, /* step 3: also of {email} */
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_auth_password[] = {
    { "begin", ngx_http_stoa_own_begin },      /* pg, waits */
    { "verify", ngx_http_stoa_change_verify }, /* throttle; thread, waits */
    { "hash", ngx_http_stoa_change_hash },     /* verdict; thread, waits */
    { "store", ngx_http_stoa_change_store },   /* pg, waits */
    { "reply", ngx_http_stoa_granted },        ngx_http_stoa_steps_end,
};
