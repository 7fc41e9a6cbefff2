/*
 * Flows of second factors: a sign-in's second half, enrolment and its end,
 * new recovery codes, and the fresh code that rows with .step_up ask for.
 * Codes are tried in ngx_http_stoa_mfa.c; what of one's own account is
 * changed ends with a fresh access token of the same session.
 */

#include "ngx_http_stoa.h"

#include "stoa_qr.h"

#define NGX_HTTP_STOA_QR_MAX 131072

/* ---- sign-in ---- */

/* Its sid is the challenge's, which is signed as refresh tokens are, by a key
   of its own. */
stoa_err_e
ngx_http_stoa_challenge_token(ngx_http_stoa_ctx_t *q, stoa_buf_t *token)
{
    stoa_uuid_t id;

    stoa_buf_init(token, &q->mem, STOA_REFRESH_LEN, STOA_REFRESH_LEN);

    return stoa_uuid_parse(ngx_http_stoa_flow_column(q, "sid"), &id)
                && stoa_refresh_make(ngx_http_stoa_mcf(q->r)->challenge_secret,
                                     &id, 0, token)
             ? STOA_OK
             : STOA_E_INTERNAL;
}

static ngx_http_stoa_go_e
ngx_http_stoa_login_ask(ngx_http_stoa_ctx_t *q)
{
    stoa_err_e err;
    stoa_buf_t b, token;
    stoa_str_t body;

    body = ngx_http_stoa_flow_column(q, "body");

    while (body.len > 0 && body.data[body.len - 1] != '}') {
        body.len--;
    }

    err = body.len < 2 ? STOA_E_INTERNAL
                       : ngx_http_stoa_challenge_token(q, &token);
    if (err != STOA_OK) {
        return ngx_http_stoa_flow_fail(q, err);
    }

    body.len--;
    stoa_buf_init(&b, &q->mem, body.len + 128, body.len + 256);
    stoa_buf_str(&b, body);
    stoa_buf_z(&b, ",\"mfaToken\":\"");
    stoa_buf_str(&b, stoa_buf_view(&token));
    stoa_buf_z(&b, "\"}");

    if (b.failed) {
        return ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
    }

    return ngx_http_stoa_flow_end(q,
                                  ngx_http_stoa_reply_failure(q, stoa_buf_view(
                                                                     &b)));
}

ngx_http_stoa_go_e
ngx_http_stoa_granted_or_asked(ngx_http_stoa_ctx_t *q)
{
    int64_t status;

    if (ngx_http_stoa_flow_column(q, "sid").len != 0
        && stoa_str_int(ngx_http_stoa_flow_column(q, "status"), 0, 0, &status))
    {
        return ngx_http_stoa_login_ask(q);
    }

    return ngx_http_stoa_granted(q);
}

ngx_http_stoa_go_e
ngx_http_stoa_login_reply(ngx_http_stoa_ctx_t *q)
{
    stoa_err_e err;

    err = ngx_http_stoa_mfa_count(q);

    if (err != STOA_OK) {
        ngx_http_stoa_effects(ngx_http_stoa_flow_column(q, "emit"),
                              q->r->connection->log);
        return ngx_http_stoa_flow_fail(q, err);
    }

    return ngx_http_stoa_granted_or_asked(q);
}

/* Garbage and forgeries cost no query. */
static ngx_http_stoa_go_e
ngx_http_stoa_challenge_open(ngx_http_stoa_ctx_t *q)
{
    uint64_t     counter;
    stoa_err_e   err;
    stoa_buf_t   b;
    stoa_uuid_t  id;
    stoa_value_t values[2], token;

    if (ngx_http_stoa_mfa_form(q, 1) == NGX_HTTP_STOA_END) {
        return NGX_HTTP_STOA_END;
    }

    token = ngx_http_stoa_body_value(q, "mfa_token");

    if (token.data == NULL) {
        err = ngx_http_stoa_cookie_instead(q, NGX_HTTP_STOA_COOKIE_MFA,
                                           "/mfaToken", &token);
        if (err != STOA_OK) {
            return ngx_http_stoa_flow_fail(q, err);
        }
    }

    if (!stoa_refresh_open(ngx_http_stoa_mcf(q->r)->challenge_secret, token,
                           &id, &counter))
    {
        return ngx_http_stoa_flow_fail(q, STOA_E_MFA_TOKEN_INVALID);
    }

    stoa_buf_init(&b, &q->mem, 40, 40);
    stoa_buf_uuid(&b, &id);

    if (b.failed) {
        return ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
    }

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = stoa_buf_view(&b);
    q->hash = values[1]; /* the challenge's id, for the next step */

    return ngx_http_stoa_flow_query(q, STOA_POOL_FAST, STOA_STMT_MFA_CHALLENGE,
                                    values, 2);
}

/* The values that statements begin with which try a code. */
static void
ngx_http_stoa_mfa_values(ngx_http_stoa_ctx_t *q, stoa_value_t values[5])
{
    ngx_http_stoa_mfa_t *m;

    m = q->flow;
    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = m->factor;
    values[2] = m->step;
    values[3] = m->sealed;
    values[4] = m->recovery;
}

static ngx_http_stoa_go_e
ngx_http_stoa_challenge_try(ngx_http_stoa_ctx_t *q)
{
    stoa_err_e   err;
    stoa_value_t user, values[7];

    user = ngx_http_stoa_flow_column(q, "user_id");

    if (user.len == 0) {
        return ngx_http_stoa_flow_fail(q, STOA_E_MFA_TOKEN_INVALID);
    }

    err = ngx_http_stoa_mfa_try(q, user, ngx_http_stoa_flow_column(q, "email"));
    if (err != STOA_OK) {
        return ngx_http_stoa_flow_fail(q, err);
    }

    ngx_http_stoa_mfa_values(q, values);
    values[5] = q->hash;
    values[6] = ngx_http_stoa_user_agent(q);

    return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, STOA_STMT_LOGIN_MFA,
                                    values, 7);
}

/* What a provider's sign-in left for this is over with it. */
static ngx_http_stoa_go_e
ngx_http_stoa_challenge_reply(ngx_http_stoa_ctx_t *q)
{
    int64_t status;

    if (ngx_http_stoa_body_value(q, "mfa_token").data == NULL
        && stoa_str_int(ngx_http_stoa_flow_column(q, "status"), 200, 299,
                        &status)
        && ngx_http_stoa_cookie_set(q->r, NGX_HTTP_STOA_COOKIE_MFA,
                                    (stoa_str_t) stoa_null_string,
                                    (stoa_str_t) stoa_string("0"))
               != NGX_OK)
    {
        return ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
    }

    return ngx_http_stoa_login_reply(q);
}

/* ---- one's own ---- */

static ngx_http_stoa_go_e
ngx_http_stoa_mfa_begin(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t values[2];

    if (ngx_http_stoa_mfa_form(q, 1) == NGX_HTTP_STOA_END) {
        return NGX_HTTP_STOA_END;
    }

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = q->ep->flow == STOA_FLOW_MFA_CONFIRM
                  ? (stoa_value_t) stoa_string("true")
                  : (stoa_value_t) stoa_string("false");

    return ngx_http_stoa_flow_query(q, STOA_POOL_FAST, STOA_STMT_MFA_BEGIN,
                                    values, 2);
}

/* NEXT: the account is there and has what is to be tried. */
static ngx_http_stoa_go_e
ngx_http_stoa_mfa_has(ngx_http_stoa_ctx_t *q)
{
    if (ngx_http_stoa_flow_column(q, "user_id").len == 0) {
        return ngx_http_stoa_flow_fail(q, STOA_E_NOT_FOUND);
    }

    if (ngx_http_stoa_flow_column(q, "mfa_id").len != 0) {
        return NGX_HTTP_STOA_NEXT;
    }

    return ngx_http_stoa_flow_fail(q, q->ep->flow == STOA_FLOW_STEP_UP
                                          ? STOA_E_MFA_ENROLMENT_REQUIRED
                                          : STOA_E_INVALID_STATE);
}

static ngx_http_stoa_go_e
ngx_http_stoa_mfa_prove(ngx_http_stoa_ctx_t *q)
{
    stoa_err_e           err;
    stoa_value_t         values[6], user;
    ngx_http_stoa_go_e   go;
    ngx_http_stoa_mfa_t *m;

    go = ngx_http_stoa_mfa_has(q);
    if (go != NGX_HTTP_STOA_NEXT) {
        return go;
    }

    m = q->flow;
    user = ngx_http_stoa_flow_column(q, "user_id");
    err = ngx_http_stoa_mfa_try(q, user, ngx_http_stoa_flow_column(q, "email"));

    if (err == STOA_OK
        && (q->ep->flow == STOA_FLOW_MFA_CONFIRM
            || q->ep->flow == STOA_FLOW_MFA_CODES))
    {
        err = ngx_http_stoa_mfa_codes(q, user);
    }

    if (err != STOA_OK) {
        return ngx_http_stoa_flow_fail(q, err);
    }

    ngx_http_stoa_mfa_values(q, values);

    switch (q->ep->flow) {

    case STOA_FLOW_MFA_CONFIRM:
        values[3] = m->hashes;
        return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE,
                                        STOA_STMT_MFA_CONFIRM, values, 4);

    case STOA_FLOW_MFA_CODES:
        values[4] = m->hashes;
        return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, STOA_STMT_MFA_CODES,
                                        values, 5);

    case STOA_FLOW_MFA_OFF:
        values[5] = q->hashing->stored; /* what the password fits to */
        return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, STOA_STMT_MFA_OFF,
                                        values, 6);

    default:
        return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, STOA_STMT_STEP_UP,
                                        values, 5);
    }
}

/* The session goes on, with an access token that says how fresh the code is.
 */
static ngx_http_stoa_go_e
ngx_http_stoa_mfa_proved(ngx_http_stoa_ctx_t *q)
{
    int64_t              status;
    stoa_err_e           err;
    stoa_buf_t           b;
    ngx_http_stoa_mfa_t *m;

    m = q->flow;
    ngx_http_stoa_effects(ngx_http_stoa_flow_column(q, "emit"),
                          q->r->connection->log);
    err = ngx_http_stoa_mfa_count(q);

    if (err != STOA_OK) {
        return ngx_http_stoa_flow_fail(q, err);
    }

    if (!stoa_str_int(ngx_http_stoa_flow_column(q, "status"), 200, 299,
                      &status)) {
        return ngx_http_stoa_flow_end(
            q,
            ngx_http_stoa_reply_failure(q,
                                        ngx_http_stoa_flow_column(q, "body")));
    }

    stoa_buf_init(&b, &q->mem, 1536, 8192);
    stoa_buf_char(&b, '{');

    if (m->codes.len != 0) {
        stoa_buf_z(&b, "\"recoveryCodes\":[");
        stoa_buf_str(&b, m->codes);
        stoa_buf_z(&b, "],");
    }

    err = ngx_http_stoa_access_token(q, &b);
    stoa_buf_char(&b, '}');

    if (err != STOA_OK) {
        return ngx_http_stoa_flow_fail(q, err);
    }

    return ngx_http_stoa_flow_data(q, (ngx_int_t) status, &b);
}

/* ---- enrolment, and the end of it, by the password ---- */

static ngx_http_stoa_go_e
ngx_http_stoa_mfa_password(ngx_http_stoa_ctx_t *q)
{
    ngx_http_stoa_go_e go;

    if (q->ep->flow == STOA_FLOW_MFA_OFF) {
        go = ngx_http_stoa_mfa_has(q);

        if (go != NGX_HTTP_STOA_NEXT) {
            return go;
        }
    }

    return ngx_http_stoa_own_try(q, "password");
}

static ngx_http_stoa_go_e
ngx_http_stoa_mfa_off(ngx_http_stoa_ctx_t *q)
{
    stoa_err_e err;

    /* a right one forgets no failures: the code may be wrong */
    if (!q->hashing->matched) {
        err =
            ngx_http_stoa_password_verdict(q,
                                           ngx_http_stoa_flow_column(q,
                                                                     "email"));

        return ngx_http_stoa_flow_fail(q, err);
    }

    return ngx_http_stoa_mfa_prove(q);
}

static ngx_http_stoa_go_e
ngx_http_stoa_mfa_make(ngx_http_stoa_ctx_t *q)
{
    stoa_err_e           err;
    stoa_value_t         values[4], email;
    ngx_http_stoa_mfa_t *m;

    email = ngx_http_stoa_flow_column(q, "email");
    err = ngx_http_stoa_password_verdict(q, email);

    if (err == STOA_OK) {
        err = ngx_http_stoa_mfa_secret(q, email);
    }

    if (err != STOA_OK) {
        return ngx_http_stoa_flow_fail(q, err);
    }

    m = q->flow;
    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = m->factor;
    values[2] = m->sealed;
    values[3] = q->hashing->stored; /* what the password fits to */

    return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, STOA_STMT_MFA_ENROL,
                                    values, 4);
}

static ngx_http_stoa_go_e
ngx_http_stoa_mfa_made(ngx_http_stoa_ctx_t *q)
{
    int64_t              status;
    stoa_buf_t           b, qr;
    ngx_http_stoa_mfa_t *m;

    if (!stoa_str_int(ngx_http_stoa_flow_column(q, "status"), 200, 299,
                      &status)) {
        return ngx_http_stoa_flow_answer(q);
    }

    m = q->flow;
    stoa_buf_init(&qr, &q->mem, 16384, NGX_HTTP_STOA_QR_MAX);
    stoa_buf_init(&b, &q->mem, 32768, 2 * NGX_HTTP_STOA_QR_MAX);

    if (!stoa_qr_svg(&qr, m->uri, false, "QR code")) {
        return ngx_http_stoa_flow_fail(q, STOA_E_INTERNAL);
    }

    stoa_buf_z(&b, "{\"id\":\"");
    stoa_buf_str(&b, m->factor);
    stoa_buf_z(&b, "\",\"secret\":\"");
    stoa_buf_str(&b, m->secret);
    stoa_buf_z(&b, "\",\"uri\":");
    stoa_buf_json(&b, m->uri);
    stoa_buf_z(&b, ",\"qr\":");
    stoa_buf_json(&b, stoa_buf_view(&qr));
    stoa_buf_char(&b, '}');

    return ngx_http_stoa_flow_data(q, (ngx_int_t) status, &b);
}

const ngx_http_stoa_step_t ngx_http_stoa_flow_login_mfa[] = {
    { "open", ngx_http_stoa_challenge_open }, /* MAC; pg, waits */
    { "try", ngx_http_stoa_challenge_try },   /* throttle; pg, waits */
    { "reply", ngx_http_stoa_challenge_reply },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_mfa_enrol[] = {
    { "begin", ngx_http_stoa_own_begin },   /* pg, waits */
    { "hash", ngx_http_stoa_mfa_password }, /* throttle; thread, waits */
    { "make", ngx_http_stoa_mfa_make },     /* verdict; pg, waits */
    { "reply", ngx_http_stoa_mfa_made },    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_mfa_confirm[] = {
    { "begin", ngx_http_stoa_mfa_begin }, /* pg, waits */
    { "prove", ngx_http_stoa_mfa_prove }, /* throttle; pg, waits */
    { "reply", ngx_http_stoa_mfa_proved },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_mfa_codes[] = {
    { "begin", ngx_http_stoa_mfa_begin }, /* pg, waits */
    { "prove", ngx_http_stoa_mfa_prove }, /* throttle; pg, waits */
    { "reply", ngx_http_stoa_mfa_proved },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_step_up[] = {
    { "begin", ngx_http_stoa_mfa_begin }, /* pg, waits */
    { "prove", ngx_http_stoa_mfa_prove }, /* throttle; pg, waits */
    { "reply", ngx_http_stoa_mfa_proved },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_mfa_off[] = {
    { "begin", ngx_http_stoa_mfa_begin },   /* pg, waits */
    { "hash", ngx_http_stoa_mfa_password }, /* throttle; thread, waits */
    { "off", ngx_http_stoa_mfa_off },       /* verdict; pg, waits */
    { "reply", ngx_http_stoa_mfa_proved },  ngx_http_stoa_steps_end,
};
