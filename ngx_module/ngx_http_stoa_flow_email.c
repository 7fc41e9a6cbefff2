/*
 * Flows of an account's address: a mail's token is consumed, a change is
 * asked for.  Tokens are hashed here, so that no statement carries one; the
 * password that a change wants is tried like that of a sign-in: the same
 * threads, the same throttle of failures, the same count.
 */

#include "ngx_http_stoa.h"

/* ---- verify-email ---- */

static ngx_http_stoa_go_e
ngx_http_stoa_verify(ngx_http_stoa_ctx_t *q)
{
    stoa_err_e   err;
    stoa_value_t values[2];

    err = ngx_http_stoa_token_hash(q);
    if (err != STOA_OK) {
        return ngx_http_stoa_flow_fail(q, err);
    }

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = q->hash;

    return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, STOA_STMT_VERIFY,
                                    values, 2);
}

/* ---- users/me/email ---- */

static stoa_str_t
ngx_http_stoa_own_account(ngx_http_stoa_ctx_t *q)
{
    return ngx_http_stoa_account(q, ngx_http_stoa_flow_column(q, "email"));
}

static ngx_http_stoa_go_e
ngx_http_stoa_email_begin(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t ctx;

    ctx = ngx_http_stoa_ctx_literal(q);

    return ngx_http_stoa_flow_query(q, STOA_POOL_FAST, STOA_STMT_EMAIL_BEGIN,
                                    &ctx, 1);
}

static ngx_http_stoa_go_e
ngx_http_stoa_email_hash(ngx_http_stoa_ctx_t *q)
{
    stoa_err_e   err;
    stoa_value_t stored;

    stored = ngx_http_stoa_flow_column(q, "hash");

    if (stored.len == 0) {
        return ngx_http_stoa_flow_fail(q, STOA_E_NOT_FOUND);
    }

    /* guesses here count with those at the sign-in */
    err = ngx_http_stoa_throttle_check(q->gate, ngx_http_stoa_own_account(q));
    if (err != STOA_OK) {
        return ngx_http_stoa_flow_fail(q, err);
    }

    q->resume = ngx_http_stoa_flow_resume;

    return ngx_http_stoa_flow_wait(
        q, ngx_http_stoa_hash_run(q, ngx_http_stoa_body_value(q, "password"),
                                  stored, 0));
}

static ngx_http_stoa_go_e
ngx_http_stoa_email_ask(ngx_http_stoa_ctx_t *q)
{
    stoa_err_e   err;
    stoa_value_t values[3];

    err = ngx_http_stoa_throttle_verdict(q->gate, ngx_http_stoa_own_account(q),
                                         q->hashing->matched);

    if (err == STOA_OK && !q->hashing->matched) {
        err = STOA_E_INVALID_CREDENTIALS;
    }

    if (err != STOA_OK) {
        return ngx_http_stoa_flow_fail(q, err);
    }

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = ngx_http_stoa_body_value(q, "new_email");
    values[2] = q->hashing->stored; /* what the password fits to */

    return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, STOA_STMT_USER_EMAIL,
                                    values, 3);
}

const ngx_http_stoa_step_t ngx_http_stoa_flow_auth_verify[] = {
    { "consume", ngx_http_stoa_verify }, /* pg, waits */
    { "reply", ngx_http_stoa_flow_answer },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_user_email[] = {
    { "begin", ngx_http_stoa_email_begin }, /* pg, waits */
    { "hash", ngx_http_stoa_email_hash },   /* throttle; thread, waits */
    { "ask", ngx_http_stoa_email_ask },     /* verdict; pg, waits */
    { "reply", ngx_http_stoa_flow_answer }, ngx_http_stoa_steps_end,
};
