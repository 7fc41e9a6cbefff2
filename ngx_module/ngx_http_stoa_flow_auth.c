/*
 * Flows of accounts and sessions: register, login, refresh, logout, the end
 * of one session, and who am I.  Passwords are hashed in threads
 * (ngx_http_stoa_hash.c); tokens are made here from what the statement
 * granted, so no secret ever sits in the database or in a queue.
 *
 * A login costs the same for known and unknown accounts: one throttle look,
 * one statement, one hash; and fails with the same bytes, after one more
 * statement, by which the audit log knows of it.
 */

#include "ngx_http_stoa_limit.h"

static ngx_http_stoa_go_e
ngx_http_stoa_auth_check(ngx_http_stoa_ctx_t *q)
{
    char                 at[24];
    uint32_t             bit;
    ngx_uint_t           i, some;
    stoa_buf_t           b;
    const stoa_claims_t *claims;

    if (!q->gate->authenticated) {
        return ngx_http_stoa_flow_fail(q, STOA_E_UNAUTHENTICATED);
    }

    claims = &q->gate->claims;

    stoa_buf_init(&b, &q->mem, 320, 2048);
    stoa_buf_z(&b, claims->roles & STOA_DEVICE ? "{\"deviceId\":\""
                                               : "{\"userId\":\"");
    stoa_buf_uuid(&b, &claims->sub);
    stoa_buf_z(&b, "\",\"roles\":[");

    some = 0;

    for (bit = 1; bit < STOA_PUBLIC; bit <<= 1) {

        if (!(claims->roles & bit)) {
            continue;
        }

        stoa_buf_z(&b, some++ ? ",\"" : "\"");
        stoa_buf_z(&b, bit == STOA_DEVICE ? "device" : stoa_role_name(bit));
        stoa_buf_char(&b, '"');
    }

    if (claims->roles & STOA_DEVICE) {
        stoa_buf_z(&b, "],\"eventId\":\"");
        stoa_buf_uuid(&b, &claims->event);

    } else if (q->gate->by_key) {
        stoa_buf_z(&b, "],\"scopes\":[\"");

        for (i = 0; i < q->gate->scopes.len; i++) {
            if (q->gate->scopes.data[i] == ' ') {
                stoa_buf_z(&b, "\",\"");

            } else {
                stoa_buf_char(&b, (char) q->gate->scopes.data[i]);
            }
        }

        stoa_buf_z(&b, "\"],\"keyId\":\"");
        stoa_buf_uuid(&b, &claims->sid);

    } else if (claims->acting) {
        stoa_buf_z(&b, "],\"actingAs\":\"");
        stoa_buf_uuid(&b, &claims->act);

    } else {
        stoa_buf_z(&b, "],\"sessionId\":\"");
        stoa_buf_uuid(&b, &claims->sid);
    }

    stoa_buf_z(&b, "\",\"expiresAt\":\"");
    stoa_time_print(claims->exp * 1000, at);
    stoa_buf_put(&b, at, sizeof(at));
    stoa_buf_z(&b, "\"}");

    return ngx_http_stoa_flow_data(q, NGX_HTTP_OK, &b);
}

static ngx_http_stoa_go_e
ngx_http_stoa_auth_csrf(ngx_http_stoa_ctx_t *q)
{
    stoa_buf_t token, b;
    stoa_err_e err;

    stoa_buf_init(&token, &q->mem, 64, 64);
    err = ngx_http_stoa_cookie_csrf(q->r, &token);

    if (err != STOA_OK) {
        return ngx_http_stoa_flow_fail(q, err);
    }

    stoa_buf_init(&b, &q->mem, 96, 96);
    stoa_buf_z(&b, "{\"csrfToken\":\"");
    stoa_buf_str(&b, stoa_buf_view(&token));
    stoa_buf_z(&b, "\"}");

    return ngx_http_stoa_flow_data(q, NGX_HTTP_OK, &b);
}

/* The account's name as the throttle knows it. */
stoa_str_t
ngx_http_stoa_account(ngx_http_stoa_ctx_t *q, stoa_value_t email)
{
    stoa_str_t account = stoa_null_string;

    account.data = ngx_pnalloc(q->r->pool, email.len + 1);

    if (account.data != NULL) {
        account.len = email.len;
        ngx_strlow(account.data, email.data, email.len);
    }

    return account;
}

stoa_value_t
ngx_http_stoa_user_agent(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t     v = stoa_null_string;
    ngx_table_elt_t *h;

    h = q->r->headers_in.user_agent;

    if (h != NULL) {
        v.data = h->value.data;
        v.len = ngx_min(h->value.len, 200);
    }

    while (v.len > 0 && !stoa_str_utf8(v, NULL)) {
        v.len--; /* cut inside a character, or not UTF-8 at all */
    }

    return v;
}

/* The address of a grant's {"user":{"email":...}}, where tokens have it. */
static stoa_str_t
ngx_http_stoa_granted_email(ngx_http_stoa_ctx_t *q)
{
    stoa_str_t        none = stoa_null_string;
    stoa_json_t      *json;
    stoa_json_fault_t fault;

    if (!(ngx_http_stoa_mcf(q->r)->rules.extra & STOA_EXTRA_EMAIL)) {
        return none;
    }

    json = stoa_json_parse(&q->mem, ngx_http_stoa_flow_column(q, "body"),
                           &fault);
    json = json != NULL ? stoa_json_get(json, "user") : NULL;
    json = json != NULL ? stoa_json_get(json, "email") : NULL;

    return json != NULL ? stoa_json_str(json) : none;
}

stoa_err_e
ngx_http_stoa_access_token(ngx_http_stoa_ctx_t *q, stoa_buf_t *b)
{
    int64_t                    n;
    stoa_err_e                 err;
    stoa_buf_t                 token;
    stoa_claims_t              claims;
    ngx_http_stoa_main_conf_t *mcf;

    mcf = ngx_http_stoa_mcf(q->r);
    ngx_memzero(&claims, sizeof(claims));

    if (!stoa_uuid_parse(ngx_http_stoa_flow_column(q, "user_id"), &claims.sub)
        || !stoa_uuid_parse(ngx_http_stoa_flow_column(q, "sid"), &claims.sid)
        || !stoa_id_next(&ngx_http_stoa_process.ids, &claims.jti)
        || !stoa_str_int(ngx_http_stoa_flow_column(q, "auth_time"), 0,
                         INT64_MAX, &claims.auth_time)
        || !stoa_str_int(ngx_http_stoa_flow_column(q, "epoch"), 0, UINT32_MAX,
                         &n))
    {
        return STOA_E_INTERNAL;
    }

    claims.epoch = (uint32_t) n;
    claims.roles = stoa_roles_parse(ngx_http_stoa_flow_column(q, "roles"));
    claims.amr = stoa_amr_parse(ngx_http_stoa_flow_column(q, "amr"));
    claims.mfa = stoa_str_eq_z(ngx_http_stoa_flow_column(q, "mfa"), "t");
    claims.iat = stoa_time_ms() / 1000;
    claims.exp = claims.iat + mcf->conf.access_ttl;

    stoa_buf_init(&token, &q->mem, 640, STOA_JWT_MAX);
    err = stoa_jwt_sign(mcf->keys, &mcf->rules, &claims,
                        ngx_http_stoa_granted_email(q), &token);

    if (err != STOA_OK) {
        return err;
    }

    stoa_buf_z(b, "\"accessToken\":\"");
    stoa_buf_str(b, stoa_buf_view(&token));
    stoa_buf_z(b, "\",\"tokenType\":\"Bearer\",\"expiresIn\":");
    stoa_buf_int(b, mcf->conf.access_ttl);

    if (b->failed
        || ngx_http_stoa_cookie_access_set(q->r, stoa_buf_view(&token))
               != NGX_OK)
    {
        return STOA_E_NO_MEMORY;
    }

    return STOA_OK;
}

/* The refresh token of a grant, in its cookie as well where that is wanted. */
static stoa_err_e
ngx_http_stoa_refresh_token(ngx_http_stoa_ctx_t *q, stoa_buf_t *refresh)
{
    int64_t     n;
    stoa_uuid_t sid;

    stoa_buf_init(refresh, &q->mem, STOA_REFRESH_LEN, STOA_REFRESH_LEN);

    if (!stoa_uuid_parse(ngx_http_stoa_flow_column(q, "sid"), &sid)
        || !stoa_str_int(ngx_http_stoa_flow_column(q, "counter"), 0, INT64_MAX,
                         &n)
        || !stoa_refresh_make(ngx_http_stoa_mcf(q->r)->refresh_secret, &sid,
                              (uint64_t) n, refresh))
    {
        return STOA_E_INTERNAL;
    }

    if (ngx_http_stoa_cookie_on(q->r)
        && ngx_http_stoa_cookie_set(q->r, NGX_HTTP_STOA_COOKIE_REFRESH,
                                    stoa_buf_view(refresh),
                                    ngx_http_stoa_flow_column(q, "max_age"))
               != NGX_OK)
    {
        return STOA_E_NO_MEMORY;
    }

    return STOA_OK;
}

/* Both tokens of a grant. */
static stoa_err_e
ngx_http_stoa_tokens(ngx_http_stoa_ctx_t *q, stoa_buf_t *b)
{
    stoa_err_e err;
    stoa_buf_t refresh;

    err = ngx_http_stoa_access_token(q, b);
    if (err != STOA_OK) {
        return err;
    }

    err = ngx_http_stoa_refresh_token(q, &refresh);
    if (err != STOA_OK) {
        return err;
    }

    if (q->by_cookie) {
        stoa_buf_z(b, ",\"cookie\":true");
    }

    if (!q->no_body_token) {
        stoa_buf_z(b, ",\"refreshToken\":\"");
        stoa_buf_str(b, stoa_buf_view(&refresh));
        stoa_buf_char(b, '"');
    }

    return b->failed ? STOA_E_NO_MEMORY : STOA_OK;
}

/* The last step of what ends with api.grant: its body and the tokens. */
ngx_http_stoa_go_e
ngx_http_stoa_granted(ngx_http_stoa_ctx_t *q)
{
    int64_t    status;
    stoa_buf_t b;
    stoa_str_t body, none = stoa_null_string;
    stoa_err_e err;

    ngx_http_stoa_effects(ngx_http_stoa_flow_column(q, "emit"),
                          q->r->connection->log);

    body = ngx_http_stoa_flow_column(q, "body");

    if (!stoa_str_int(ngx_http_stoa_flow_column(q, "status"), 0, 299, &status))
    {
        return ngx_http_stoa_flow_fail(q, STOA_E_INTERNAL);
    }

    if (status == 0) {
        return ngx_http_stoa_flow_end(q, ngx_http_stoa_reply_failure(q, body));
    }

    if (ngx_http_stoa_flow_column(q, "sid").len == 0) {
        /* an account that may not sign in yet */
        return ngx_http_stoa_flow_end(q, ngx_http_stoa_reply_answer(q,
                                                                    (ngx_int_t)
                                                                        status,
                                                                    body, none,
                                                                    none));
    }

    stoa_buf_init(&b, &q->mem, 1024 + body.len, 8192 + body.len);

    while (body.len > 0 && body.data[body.len - 1] != '}') {
        body.len--;
    }

    if (body.len > 0) {
        body.len--;
    }

    while (body.len > 0 && body.data[body.len - 1] == ' ') {
        body.len--;
    }

    if (body.len > 1) {
        stoa_buf_str(&b, body); /* {"user":{..} */
        stoa_buf_char(&b, ',');

    } else {
        stoa_buf_char(&b, '{');
    }

    err = ngx_http_stoa_tokens(q, &b);
    if (err != STOA_OK) {
        return ngx_http_stoa_flow_fail(q, err);
    }

    stoa_buf_char(&b, '}');

    return ngx_http_stoa_flow_data(q, (ngx_int_t) status, &b);
}

/* The page that comes next asks for a code, and has what belongs to it here. */
static stoa_err_e
ngx_http_stoa_challenge_cookie(ngx_http_stoa_ctx_t *q)
{
    stoa_err_e err;
    stoa_buf_t token;

    err = ngx_http_stoa_challenge_token(q, &token);
    if (err != STOA_OK) {
        return err;
    }

    return ngx_http_stoa_cookie_set(q->r, NGX_HTTP_STOA_COOKIE_MFA,
                                    stoa_buf_view(&token),
                                    (stoa_str_t) stoa_string("300"))
                == NGX_OK
             ? STOA_E_MFA_REQUIRED
             : STOA_E_NO_MEMORY;
}

stoa_err_e
ngx_http_stoa_granted_cookie(ngx_http_stoa_ctx_t *q)
{
    int64_t           status;
    stoa_err_e        err;
    stoa_buf_t        refresh;
    stoa_str_t        code;
    stoa_json_t      *json;
    stoa_json_fault_t fault;

    ngx_http_stoa_effects(ngx_http_stoa_flow_column(q, "emit"),
                          q->r->connection->log);

    if (!stoa_str_int(ngx_http_stoa_flow_column(q, "status"), 0, 299, &status))
    {
        return STOA_E_INTERNAL;
    }

    if (status == 0) {
        json = stoa_json_parse(&q->mem, ngx_http_stoa_flow_column(q, "body"),
                               &fault);
        json = json != NULL ? stoa_json_get(json, "code") : NULL;
        code = json != NULL ? stoa_json_str(json)
                            : (stoa_str_t) stoa_string("INTERNAL");
        err = stoa_err_by_code((const char *) code.data, code.len);

        if (err == STOA_E_MFA_REQUIRED) {
            return ngx_http_stoa_challenge_cookie(q);
        }

        return err != STOA_OK ? err : STOA_E_INTERNAL;
    }

    if (ngx_http_stoa_flow_column(q, "sid").len == 0) {
        return STOA_E_UNAUTHENTICATED;
    }

    return ngx_http_stoa_refresh_token(q, &refresh);
}

/* ---- register ---- */

static ngx_http_stoa_go_e
ngx_http_stoa_register_hash(ngx_http_stoa_ctx_t *q)
{
    stoa_str_t none = stoa_null_string;

    if (stoa_str_ieq(ngx_http_stoa_body_value(q, "password"),
                     ngx_http_stoa_body_value(q, "email")))
    {
        return ngx_http_stoa_password_own(q, "/password");
    }

    q->resume = ngx_http_stoa_flow_resume;

    return ngx_http_stoa_flow_wait(
        q, ngx_http_stoa_hash_run(q, ngx_http_stoa_body_value(q, "password"),
                                  none, 0));
}

static ngx_http_stoa_go_e
ngx_http_stoa_register_insert(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t values[7];

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = ngx_http_stoa_body_value(q, "email");
    values[2] = stoa_str_z(q->hashing->made);
    values[3] = ngx_http_stoa_body_value(q, "first_name");
    values[4] = ngx_http_stoa_body_value(q, "last_name");
    values[5] = ngx_http_stoa_user_agent(q);
    values[6] = q->lang;

    return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, STOA_STMT_REGISTER,
                                    values, 7);
}

/* ---- login ---- */

static ngx_http_stoa_go_e
ngx_http_stoa_login_begin(ngx_http_stoa_ctx_t *q)
{
    stoa_err_e   err;
    stoa_value_t email;

    if (ngx_http_stoa_mfa_form(q, 0) == NGX_HTTP_STOA_END) {
        return NGX_HTTP_STOA_END;
    }

    email = ngx_http_stoa_body_value(q, "email");

    err = ngx_http_stoa_throttle_check(q->gate,
                                       ngx_http_stoa_account(q, email));
    if (err != STOA_OK) {
        return ngx_http_stoa_flow_fail(q, err);
    }

    return ngx_http_stoa_flow_query(q, STOA_POOL_FAST, STOA_STMT_LOGIN_BEGIN,
                                    &email, 1);
}

static ngx_http_stoa_go_e
ngx_http_stoa_login_hash(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t stored;

    stored = ngx_http_stoa_flow_column(q, "hash");
    q->resume = ngx_http_stoa_flow_resume;

    return ngx_http_stoa_flow_wait(
        q, ngx_http_stoa_hash_run(q, ngx_http_stoa_body_value(q, "password"),
                                  stored, stored.len == 0));
}

/* With a second factor, a right password is not yet what forgets failures: or
   codes were guessed without end by who knows it. */
static stoa_err_e
ngx_http_stoa_login_verdict(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t email;

    email = ngx_http_stoa_body_value(q, "email");

    if (!q->hashing->matched || ngx_http_stoa_flow_column(q, "mfa_id").len == 0)
    {
        return ngx_http_stoa_password_verdict(q, email);
    }

    return ngx_http_stoa_mfa_try(q, ngx_http_stoa_flow_column(q, "user_id"),
                                 email);
}

static ngx_http_stoa_go_e
ngx_http_stoa_login_finish(ngx_http_stoa_ctx_t *q)
{
    stoa_err_e           err;
    stoa_value_t         values[10];
    ngx_http_stoa_mfa_t *m;

    err = ngx_http_stoa_login_verdict(q);

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = ngx_http_stoa_flow_column(q, "user_id");

    if (err == STOA_E_INVALID_CREDENTIALS) {
        /* nobody's account leaves a trace, too: it costs the same */
        return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE,
                                        STOA_STMT_LOGIN_FAILED, values, 2);
    }

    if (err != STOA_OK) {
        return ngx_http_stoa_flow_fail(q, err);
    }

    values[2] = ngx_http_stoa_body_value(q, "remember");
    values[3] = (stoa_value_t) stoa_null_string;

    if (values[2].data == NULL) {
        values[2] = (stoa_value_t) stoa_string("false");
    }

    if (q->hashing->made[0] != '\0') {
        values[3] = stoa_str_z(q->hashing->made);
    }

    values[4] = ngx_http_stoa_user_agent(q);
    values[5] = q->hashing->stored; /* what the password fits to */

    m = q->flow;
    values[6] = m->factor;
    values[7] = m->step;
    values[8] = m->sealed;
    values[9] = m->recovery;

    return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, STOA_STMT_LOGIN_FINISH,
                                    values, 10);
}

/* ---- refresh ---- */

static ngx_http_stoa_go_e
ngx_http_stoa_refresh_open(ngx_http_stoa_ctx_t *q)
{
    uint64_t     counter;
    stoa_err_e   err;
    stoa_buf_t   sid, n;
    ngx_uint_t   made;
    stoa_uuid_t  id;
    stoa_value_t values[3], token;

    err = ngx_http_stoa_cookie_token(q, &token);
    if (err != STOA_OK) {
        return ngx_http_stoa_flow_fail(q, err);
    }

    /* garbage and forgeries cost no query, and nobody else's turn */
    made = stoa_refresh_open(ngx_http_stoa_mcf(q->r)->refresh_secret, token,
                             &id, &counter)
        && counter <= INT64_MAX;

    err = ngx_http_stoa_limit_refresh(q->r, q->gate, made ? &id : NULL);

    if (err == STOA_OK && !made) {
        err = STOA_E_REFRESH_INVALID;
    }

    if (err != STOA_OK) {
        return ngx_http_stoa_flow_fail(q, err);
    }

    stoa_buf_init(&sid, &q->mem, 40, 40);
    stoa_buf_uuid(&sid, &id);
    stoa_buf_init(&n, &q->mem, 24, 24);
    stoa_buf_int(&n, (int64_t) counter);

    if (sid.failed || n.failed) {
        return ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
    }

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = stoa_buf_view(&sid);
    values[2] = stoa_buf_view(&n);

    return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, STOA_STMT_REFRESH,
                                    values, 3);
}

/* ---- logout ---- */

static ngx_http_stoa_go_e
ngx_http_stoa_logout(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t values[2];

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = ngx_http_stoa_body_value(q, "all");

    if (values[1].data == NULL) {
        values[1] = ngx_http_stoa_body_value(q, "everywhere");
    }

    if (values[1].data == NULL) {
        values[1] = (stoa_value_t) stoa_string("false");
    }

    return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, STOA_STMT_LOGOUT,
                                    values, 2);
}

/* A session was ended: the one that asks takes its cookie along. */
static ngx_http_stoa_go_e
ngx_http_stoa_session_over(ngx_http_stoa_ctx_t *q)
{
    int64_t      status;
    stoa_uuid_t  id;
    stoa_value_t named;

    named = ngx_http_stoa_path_value(q, "id"); /* of a logout: its own */

    if (ngx_http_stoa_cookie_on(q->r)
        && stoa_str_int(ngx_http_stoa_flow_column(q, "status"), 1, 299, &status)
        && (named.data == NULL
            || (stoa_uuid_parse(named, &id)
                && ngx_memcmp(&id, &q->gate->claims.sid, sizeof(id)) == 0))
        && ngx_http_stoa_cookie_clear(q->r) != NGX_OK)
    {
        return ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
    }

    return ngx_http_stoa_flow_answer(q);
}

/* ---- the end of one session ---- */

static ngx_http_stoa_go_e
ngx_http_stoa_session_end(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t values[2];

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = ngx_http_stoa_path_value(q, "id");

    return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, STOA_STMT_SESSION_END,
                                    values, 2);
}

const ngx_http_stoa_step_t ngx_http_stoa_flow_auth_check[] = {
    { "reply", ngx_http_stoa_auth_check },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_auth_csrf[] = {
    { "reply", ngx_http_stoa_auth_csrf },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_auth_register[] = {
    { "hash", ngx_http_stoa_register_hash },     /* thread, waits */
    { "insert", ngx_http_stoa_register_insert }, /* pg, waits */
    { "reply", ngx_http_stoa_granted },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_auth_login[] = {
    { "begin", ngx_http_stoa_login_begin },   /* throttle; pg, waits */
    { "hash", ngx_http_stoa_login_hash },     /* thread, waits */
    { "finish", ngx_http_stoa_login_finish }, /* verdict; pg, waits */
    { "reply", ngx_http_stoa_login_reply },   ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_auth_refresh[] = {
    { "open", ngx_http_stoa_refresh_open }, /* MAC; pg, waits */
    { "reply", ngx_http_stoa_granted },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_auth_logout[] = {
    { "revoke", ngx_http_stoa_logout }, /* pg, waits */
    { "reply", ngx_http_stoa_session_over },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_session_end[] = {
    { "revoke", ngx_http_stoa_session_end }, /* pg, waits */
    { "reply", ngx_http_stoa_session_over },
    ngx_http_stoa_steps_end,
};
