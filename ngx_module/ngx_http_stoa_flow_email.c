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

static ngx_http_stoa_go_e
ngx_http_stoa_email_try(ngx_http_stoa_ctx_t *q)
{
    return ngx_http_stoa_own_try(q, "password");
}

static ngx_http_stoa_go_e
ngx_http_stoa_email_ask(ngx_http_stoa_ctx_t *q)
{
    stoa_err_e   err;
    stoa_value_t values[3];

    err = ngx_http_stoa_password_verdict(q,
                                         ngx_http_stoa_flow_column(q, "email"));
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
    { "begin", ngx_http_stoa_own_begin }, /* pg, waits */
    { "hash", ngx_http_stoa_email_try },  /* throttle; thread, waits */
    { "ask", ngx_http_stoa_email_ask },   /* verdict; pg, waits */
    { "reply", ngx_http_stoa_flow_answer }, ngx_http_stoa_steps_end,
};
