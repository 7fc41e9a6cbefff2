/*
 * Flows that take somebody back from a provider: a browser with a code, or a
 * native application with an ID token.
 *
 * A browser's flow counts once (api.oauth_begin), before its code is
 * exchanged, and so does an ID token, with the sign-in.  The session goes
 * to it as the refresh cookie, as a login's does; no address ever carries a
 * secret of ours.  Whose identity it is, the database decides
 * (15_oauth.sql), and app.sign_in() whether that is enough, as for a
 * password.
 */

#include "ngx_http_stoa_oauth.h"

#define NGX_HTTP_STOA_OAUTH_CALL_MS    8000
#define NGX_HTTP_STOA_OAUTH_CONNECT_MS 3000
#define NGX_HTTP_STOA_OAUTH_BODY       (256 * 1024)

/* Continues where a statement's failure is told by a page as well. */
static ngx_int_t
ngx_http_stoa_oauth_resume(ngx_http_stoa_ctx_t *q, stoa_err_e err)
{
    if (err != STOA_OK) {
        (void) ngx_http_stoa_oauth_fail(q, err); /* q->rc */
        return q->rc;
    }

    return ngx_http_stoa_flow_resume(q, err);
}

static ngx_http_stoa_go_e
ngx_http_stoa_oauth_query(ngx_http_stoa_ctx_t *q, stoa_stmt_e stmt,
                          const stoa_value_t *values, ngx_uint_t n)
{
    ngx_http_stoa_go_e go;

    go = ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, stmt, values, n);

    if (go == NGX_HTTP_STOA_WAIT) {
        q->resume = ngx_http_stoa_oauth_resume;
    }

    return go;
}


/* What counts once, and until when it is remembered; as parameters. */
static ngx_uint_t
ngx_http_stoa_oauth_mark(ngx_http_stoa_ctx_t *q, const u_char *data, size_t len,
                         int64_t until, stoa_value_t values[2])
{
    u_char     sum[STOA_SHA256_LEN];
    stoa_buf_t hash, at;

    stoa_buf_init(&hash, &q->mem, 2 + 2 * sizeof(sum), 2 + 2 * sizeof(sum));
    stoa_buf_init(&at, &q->mem, 24, 24);
    stoa_buf_int(&at, until);

    if (!stoa_sha256(data, len, sum) || at.failed || hash.data == NULL) {
        return 0;
    }

    hash.data[0] = '\\';
    hash.data[1] = 'x';
    stoa_hex_encode((char *) hash.data + 2, sum, sizeof(sum));
    hash.len = hash.max;
    values[0] = stoa_buf_view(&hash);
    values[1] = stoa_buf_view(&at);

    return 1;
}


/* ---- a browser comes back ---- */

/* Whether this browser began it: its cookie is there, and says so. */
static ngx_uint_t
ngx_http_stoa_oauth_began(ngx_http_stoa_ctx_t *q, stoa_value_t state)
{
    u_char                     raw[STOA_OIDC_STATE + 1];
    stoa_str_t                 name, value, said, right;
    ngx_http_stoa_oauth_t     *st = q->flow;
    ngx_http_stoa_main_conf_t *mcf;

    mcf = ngx_http_stoa_mcf(q->r);

    if (state.len != STOA_OIDC_STATE_TEXT
        || stoa_base64url_decode(raw, sizeof(raw), state) != STOA_OIDC_STATE)
    {
        return 0;
    }

    name = ngx_http_stoa_oauth_cookie(q, state);

    if (name.len == 0 || ngx_http_stoa_cookie_find(q->r, name, &value) != NGX_OK
        || value.len == 0)
    {
        return 0;
    }

    /* whatever becomes of it, it is over */
    if (ngx_http_stoa_cookie_put(q->r, name, (stoa_str_t) stoa_null_string,
                                 (stoa_str_t) stoa_string("0"))
            != NGX_OK
        || !stoa_oidc_flow_open(mcf->oauth_secret, value, stoa_time_ms() / 1000,
                                &q->mem, &st->flow))
    {
        return 0;
    }

    said.data = raw;
    said.len = STOA_OIDC_STATE;
    right.data = st->flow.state;
    right.len = STOA_OIDC_STATE;

    return stoa_str_same_secret(said, right)
        && stoa_str_eq_z(st->flow.provider, st->provider->name);
}

static ngx_http_stoa_go_e
ngx_http_stoa_oauth_back(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t           state, values[2];
    ngx_http_stoa_go_e     go;
    ngx_http_stoa_oauth_t *st;

    st = ngx_http_stoa_oauth_open(q, q->path_values[0], &go);
    if (st == NULL) {
        return go;
    }

    state = ngx_http_stoa_query_value(q, "state");

    if (!ngx_http_stoa_oauth_began(q, state)) {
        return ngx_http_stoa_oauth_refuse(q, STOA_E_OAUTH_STATE_INVALID,
                                          "it was not begun here");
    }

    if (ngx_http_stoa_query_value(q, "error").data != NULL) {
        return ngx_http_stoa_oauth_fail(q, STOA_E_OAUTH_DENIED);
    }

    if (ngx_http_stoa_query_value(q, "code").data == NULL) {
        return ngx_http_stoa_oauth_refuse(q, STOA_E_OAUTH_STATE_INVALID,
                                          "there is no code");
    }

    if (!ngx_http_stoa_oauth_mark(q, st->flow.state, STOA_OIDC_STATE,
                                  st->flow.until, values))
    {
        return ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
    }

    return ngx_http_stoa_oauth_query(q, STOA_STMT_OAUTH_BEGIN, values, 2);
}

static ngx_http_stoa_go_e
ngx_http_stoa_oauth_once(ngx_http_stoa_ctx_t *q)
{
    if (!stoa_str_eq_z(ngx_http_stoa_flow_column(q, "fresh"), "t")) {
        return ngx_http_stoa_oauth_refuse(q, STOA_E_OAUTH_STATE_INVALID,
                                          "it came back before");
    }

    return ngx_http_stoa_oauth_need(q);
}

static void
ngx_http_stoa_oauth_answered(const stoa_http_answer_t *a, void *data)
{
    ngx_http_stoa_ctx_t   *q = data;
    ngx_http_stoa_oauth_t *st = q->flow;

    st->end = a->end;
    st->status = a->status;
    st->body = a->body;

    if (a->end != STOA_HTTP_ANSWERED) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "stoa: a call to \"%s\" failed: %s", st->provider->name,
                      a->message);
    }

    ngx_http_stoa_resume_begin(q);
    ngx_http_stoa_finish(q, ngx_http_stoa_flow_resume(q, STOA_OK));
}

/* A call to the provider; its answer is the next step's. */
static ngx_http_stoa_go_e
ngx_http_stoa_oauth_call(ngx_http_stoa_ctx_t *q, const char *url,
                         const char *const *headers, const stoa_buf_t *body)
{
    stoa_http_request_t        rq;
    ngx_http_stoa_main_conf_t *mcf;

    mcf = ngx_http_stoa_mcf(q->r);
    ngx_memzero(&rq, sizeof(rq));
    rq.method = body != NULL ? "POST" : "GET";
    rq.url = url;
    rq.headers = headers;
    rq.ca_file = mcf->conf.issuer_ca_file;
    rq.timeout_ms = NGX_HTTP_STOA_OAUTH_CALL_MS;
    rq.connect_ms = NGX_HTTP_STOA_OAUTH_CONNECT_MS;
    rq.max_body = NGX_HTTP_STOA_OAUTH_BODY;

    if (body != NULL) {
        rq.body = stoa_buf_view(body);
    }

    if (stoa_http_start(ngx_http_stoa_process.http, &q->mem, &rq,
                        ngx_http_stoa_oauth_answered, q)
        == NULL)
    {
        return ngx_http_stoa_oauth_fail(q, STOA_E_ISSUER_UNAVAILABLE);
    }

    q->r->connection->log->action = (char *) "waiting for an issuer";

    return ngx_http_stoa_flow_wait(q, ngx_http_stoa_suspend(q));
}

/* Mix-up (RFC 9207): who answers must be whom this browser was sent to. */
static ngx_uint_t
ngx_http_stoa_oauth_same_issuer(ngx_http_stoa_ctx_t   *q,
                                const stoa_oidc_doc_t *doc)
{
    stoa_value_t           iss = ngx_http_stoa_query_value(q, "iss");
    ngx_http_stoa_oauth_t *st = q->flow;

    return iss.data == NULL ? !doc->iss_parameter
                            : stoa_str_eq_z(iss, st->provider->issuer);
}

static ngx_http_stoa_go_e
ngx_http_stoa_oauth_exchange(ngx_http_stoa_ctx_t *q)
{
    const char                *redirect_uri, *headers[4] = { NULL };
    stoa_buf_t                 body, header;
    ngx_uint_t                 n = 0;
    const stoa_oidc_doc_t     *doc;
    ngx_http_stoa_oauth_t     *st = q->flow;
    ngx_http_stoa_main_conf_t *mcf;

    mcf = ngx_http_stoa_mcf(q->r);
    doc = stoa_issuer_doc(st->issuer);

    if (doc == NULL || doc->token == NULL) {
        return ngx_http_stoa_oauth_fail(q, STOA_E_ISSUER_UNAVAILABLE);
    }

    if (!ngx_http_stoa_oauth_same_issuer(q, doc)) {
        return ngx_http_stoa_oauth_refuse(q, STOA_E_OAUTH_INVALID,
                                          "iss is another");
    }

    stoa_buf_init(&body, &q->mem, 1024, 32768);
    stoa_buf_init(&header, &q->mem, 256, 8192);
    redirect_uri = ngx_http_stoa_oauth_redirect_uri(q);

    if (redirect_uri == NULL
        || !stoa_oidc_exchange(mcf->oauth_secret, &st->flow, st->provider, doc,
                               ngx_http_stoa_query_value(q, "code"),
                               redirect_uri, &body, &header))
    {
        return ngx_http_stoa_oauth_fail(q, STOA_E_NO_MEMORY);
    }

    headers[n++] = "Content-Type: application/x-www-form-urlencoded";
    headers[n++] = "Accept: application/json";

    if (header.len != 0) {
        headers[n++] = (const char *) header.data;
    }

    return ngx_http_stoa_oauth_call(q, doc->token, headers, &body);
}

static ngx_http_stoa_go_e
ngx_http_stoa_oauth_answer(ngx_http_stoa_ctx_t *q)
{
    stoa_json_t           *json, *v;
    stoa_json_fault_t      fault;
    ngx_http_stoa_oauth_t *st = q->flow;

    /* 4xx: the code, or what this client is to the provider */

    if (st->end != STOA_HTTP_ANSWERED
        || (st->status != 200 && st->status / 100 != 4) || st->status == 429)
    {
        return ngx_http_stoa_oauth_fail(q, STOA_E_ISSUER_UNAVAILABLE);
    }

    if (st->status != 200) {
        ngx_log_error(NGX_LOG_WARN, q->r->connection->log, 0,
                      "stoa: \"%s\" does not exchange a code: %d, \"%*s\"",
                      st->provider->name, st->status,
                      ngx_min(st->body.len, 200), st->body.data);
        return ngx_http_stoa_oauth_refuse(q, STOA_E_OAUTH_INVALID,
                                          "the code is not exchanged");
    }

    json = stoa_json_parse(&q->mem, st->body, &fault);

    if (json == NULL || stoa_json_type(json) != STOA_JSON_OBJECT) {
        return ngx_http_stoa_oauth_fail(q, STOA_E_ISSUER_UNAVAILABLE);
    }

    v = stoa_json_get(json, "access_token");

    if (v != NULL && stoa_json_type(v) == STOA_JSON_STRING) {
        st->access_token = stoa_json_str(v);
    }

    v = stoa_json_get(json, "id_token");

    if (v == NULL || stoa_json_type(v) != STOA_JSON_STRING) {
        return ngx_http_stoa_oauth_refuse(q, STOA_E_OAUTH_INVALID,
                                          "there is no ID token");
    }

    st->id_token = stoa_json_str(v);

    return NGX_HTTP_STOA_NEXT;
}


/* ---- whose ID token it is ---- */

static stoa_err_e
ngx_http_stoa_oauth_id(ngx_http_stoa_ctx_t *q, const char **why)
{
    stoa_buf_t                 nonce;
    stoa_jwt_keys_t           *keys;
    stoa_oidc_ask_t            ask;
    stoa_oidc_rules_t          rules;
    ngx_http_stoa_oauth_t     *st = q->flow;
    ngx_http_stoa_main_conf_t *mcf;

    mcf = ngx_http_stoa_mcf(q->r);
    keys = stoa_issuer_keys(st->issuer);
    *why = NULL;

    if (keys == NULL) {
        return STOA_E_ISSUER_UNAVAILABLE;
    }

    ngx_memzero(&ask, sizeof(ask));
    rules.issuer = st->provider->issuer;
    rules.audiences = st->provider->audiences;
    rules.naudiences = st->browser ? 1 : st->provider->naudiences;
    rules.leeway_s = mcf->rules.leeway_s;

    if (st->browser) {
        stoa_buf_init(&nonce, &q->mem, 64, 64);

        if (!stoa_oidc_nonce(mcf->oauth_secret, &st->flow, &nonce)) {
            return STOA_E_NO_MEMORY;
        }

        ask.nonce = stoa_buf_view(&nonce);
        ask.access_token = st->access_token;

    } else {
        ask.nonce = ngx_http_stoa_body_value(q, "nonce");
        ask.nonce_hashed = true;
    }

    return stoa_oidc_id(keys, &rules, &q->mem, st->id_token, stoa_time_ms(),
                        &ask, &st->person, why);
}

/* Step: its key may be newer than what we have; then that is waited for. */
static ngx_http_stoa_go_e
ngx_http_stoa_oauth_verify(ngx_http_stoa_ctx_t *q)
{
    stoa_err_e             err;
    const char            *why;
    ngx_http_stoa_oauth_t *st = q->flow;

    err = ngx_http_stoa_oauth_id(q, &why);

    if (err == STOA_OK) {
        st->verified = 1;
        return NGX_HTTP_STOA_NEXT;
    }

    if ((err == STOA_E_ISSUER_UNAVAILABLE || why == stoa_jwt_no_kid)
        && stoa_issuer_ask(st->issuer, &st->wait))
    {
        return ngx_http_stoa_flow_wait(q, ngx_http_stoa_suspend(q));
    }

    return NGX_HTTP_STOA_NEXT;
}

static ngx_http_stoa_go_e
ngx_http_stoa_oauth_verified(ngx_http_stoa_ctx_t *q)
{
    stoa_err_e             err;
    const char            *why;
    ngx_http_stoa_oauth_t *st = q->flow;

    err = st->verified ? STOA_OK : ngx_http_stoa_oauth_id(q, &why);

    switch (err) {
    case STOA_OK:
        return NGX_HTTP_STOA_NEXT;

    case STOA_E_UNAUTHENTICATED:
    case STOA_E_TOKEN_EXPIRED:
        return ngx_http_stoa_oauth_refuse(q, STOA_E_OAUTH_INVALID, why);

    default:
        return ngx_http_stoa_oauth_fail(q, err);
    }
}


/* Step: providers may keep the address for this (Core 5.4). */
static ngx_http_stoa_go_e
ngx_http_stoa_oauth_ask(ngx_http_stoa_ctx_t *q)
{
    const char            *headers[3] = { "Accept: application/json" };
    stoa_buf_t             header;
    const stoa_oidc_doc_t *doc;
    ngx_http_stoa_oauth_t *st = q->flow;

    doc = stoa_issuer_doc(st->issuer);

    if (st->person.email.len != 0 || st->access_token.len == 0 || doc == NULL
        || doc->userinfo == NULL)
    {
        return NGX_HTTP_STOA_NEXT;
    }

    stoa_buf_init(&header, &q->mem, 256, 16384);
    stoa_buf_z(&header, "Authorization: Bearer ");
    stoa_buf_str(&header, st->access_token);
    stoa_buf_nul(&header);

    /* what could end the line: no token has it (RFC 6750 2.1) */
    if (header.failed || strcspn((char *) header.data, "\r\n") != header.len) {
        return ngx_http_stoa_oauth_refuse(q, STOA_E_OAUTH_INVALID,
                                          "the access token is none");
    }

    headers[1] = (const char *) header.data;
    st->asked = 1;

    return ngx_http_stoa_oauth_call(q, doc->userinfo, headers, NULL);
}

static ngx_http_stoa_go_e
ngx_http_stoa_oauth_told(ngx_http_stoa_ctx_t *q)
{
    const char            *why;
    ngx_http_stoa_oauth_t *st = q->flow;

    if (!st->asked) {
        return NGX_HTTP_STOA_NEXT;
    }

    if (st->end != STOA_HTTP_ANSWERED || st->status != 200) {
        return ngx_http_stoa_oauth_fail(q, STOA_E_ISSUER_UNAVAILABLE);
    }

    if (!stoa_oidc_userinfo(&q->mem, st->body, &st->person, &why)) {
        return ngx_http_stoa_oauth_refuse(q, STOA_E_OAUTH_INVALID, why);
    }

    return NGX_HTTP_STOA_NEXT;
}


/* ---- who it is here ---- */

static stoa_value_t
ngx_http_stoa_oauth_maybe(stoa_str_t text)
{
    return text.len != 0 ? text : (stoa_value_t) stoa_null_string;
}

static stoa_value_t
ngx_http_stoa_oauth_bool(ngx_uint_t value)
{
    return value ? (stoa_value_t) stoa_string("true")
                 : (stoa_value_t) stoa_string("false");
}

static ngx_http_stoa_go_e
ngx_http_stoa_oauth_sign_in(ngx_http_stoa_ctx_t *q)
{
    int64_t                until;
    stoa_str_t             text;
    stoa_value_t           values[12];
    ngx_http_stoa_oauth_t *st = q->flow;

    /* what is signed: there is more than one signature that fits to it */
    text = st->id_token;

    while (text.len != 0 && text.data[text.len - 1] != '.') {
        text.len--;
    }

    until = st->person.token.exp + ngx_http_stoa_mcf(q->r)->rules.leeway_s;

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = stoa_str_z(st->provider->name);
    values[2] = stoa_str_z(st->provider->issuer);
    values[3] = st->person.token.sub;
    values[4] = ngx_http_stoa_oauth_maybe(st->person.email);
    values[5] = ngx_http_stoa_oauth_bool(st->person.email_verified);
    values[6] = ngx_http_stoa_oauth_maybe(st->person.first_name);
    values[7] = ngx_http_stoa_oauth_maybe(st->person.last_name);
    values[8] = ngx_http_stoa_oauth_bool(st->flow.remember);
    values[9] = ngx_http_stoa_user_agent(q);

    if (!ngx_http_stoa_oauth_mark(q, text.data, text.len, until, &values[10])) {
        return ngx_http_stoa_oauth_fail(q, STOA_E_NO_MEMORY);
    }

    return ngx_http_stoa_oauth_query(q, STOA_STMT_OAUTH_SIGN_IN, values, 12);
}

static ngx_http_stoa_go_e
ngx_http_stoa_oauth_enter(ngx_http_stoa_ctx_t *q)
{
    u_char                *ids;
    stoa_value_t           values[7];
    ngx_http_stoa_oauth_t *st = q->flow;

    if (!st->flow.link) {
        return ngx_http_stoa_oauth_sign_in(q);
    }

    ids = ngx_pnalloc(q->r->pool, 2 * 36);
    if (ids == NULL) {
        return ngx_http_stoa_oauth_fail(q, STOA_E_NO_MEMORY);
    }

    stoa_uuid_print(&st->flow.user, (char *) ids);
    stoa_uuid_print(&st->flow.session, (char *) ids + 36);

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1].data = ids;
    values[1].len = 36;
    values[2].data = ids + 36;
    values[2].len = 36;
    values[3] = stoa_str_z(st->provider->name);
    values[4] = stoa_str_z(st->provider->issuer);
    values[5] = st->person.token.sub;
    values[6] = ngx_http_stoa_oauth_maybe(st->person.email);

    return ngx_http_stoa_oauth_query(q, STOA_STMT_OAUTH_LINK, values, 7);
}

/* A session there is, or a page asks for a code, or tells the error. */
static ngx_http_stoa_go_e
ngx_http_stoa_oauth_leave(ngx_http_stoa_ctx_t *q)
{
    stoa_err_e             err;
    ngx_uint_t             code;
    stoa_buf_t             b, query;
    ngx_http_stoa_oauth_t *st = q->flow;

    err = ngx_http_stoa_granted_cookie(q);

    if (st->flow.link && err == STOA_E_UNAUTHENTICATED) {
        err = STOA_OK; /* whose session is in another place */
    }

    code = err == STOA_E_MFA_REQUIRED;

    if (err != STOA_OK && !code) {
        return ngx_http_stoa_oauth_fail(q, err);
    }

    stoa_buf_init(&b, &q->mem, 256, 1024);
    stoa_buf_init(&query, &q->mem, 256, 1024);
    stoa_http_form_add(&query, "next", st->flow.next);

    if (st->flow.link) {
        stoa_http_form_add(&query, "linked", stoa_str_z(st->provider->name));
    }

    if (code) {
        stoa_http_form_add(&query, "step", (stoa_str_t) stoa_string("code"));
    }

    stoa_buf_z(&b, NGX_HTTP_STOA_OAUTH_PAGE "?");
    stoa_buf_str(&b, stoa_buf_view(&query));

    if (b.failed || query.failed) {
        return ngx_http_stoa_oauth_fail(q, STOA_E_NO_MEMORY);
    }

    return ngx_http_stoa_flow_elsewhere(q, &b);
}


/* ---- native applications ---- */

static ngx_http_stoa_go_e
ngx_http_stoa_oauth_native(ngx_http_stoa_ctx_t *q)
{
    ngx_http_stoa_go_e     go;
    ngx_http_stoa_oauth_t *st;

    st = ngx_http_stoa_oauth_open(q, q->path_values[0], &go);
    if (st == NULL) {
        return go;
    }

    st->id_token = ngx_http_stoa_body_value(q, "id_token");
    st->flow.remember = stoa_str_eq_z(ngx_http_stoa_body_value(q, "remember"),
                                      "true");

    return NGX_HTTP_STOA_NEXT;
}


const ngx_http_stoa_step_t ngx_http_stoa_flow_oauth_callback[] = {
    { "back", ngx_http_stoa_oauth_back },         /* pg, waits */
    { "once", ngx_http_stoa_oauth_once },         /* issuer, may wait */
    { "exchange", ngx_http_stoa_oauth_exchange }, /* http, waits */
    { "answer", ngx_http_stoa_oauth_answer },
    { "verify", ngx_http_stoa_oauth_verify }, /* issuer, may wait */
    { "verified", ngx_http_stoa_oauth_verified },
    { "ask", ngx_http_stoa_oauth_ask }, /* http, may wait */
    { "told", ngx_http_stoa_oauth_told },
    { "enter", ngx_http_stoa_oauth_enter }, /* pg, waits */
    { "leave", ngx_http_stoa_oauth_leave },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_oauth_token[] = {
    { "open", ngx_http_stoa_oauth_native },
    { "verify", ngx_http_stoa_oauth_verify }, /* issuer, may wait */
    { "verified", ngx_http_stoa_oauth_verified },
    { "sign in", ngx_http_stoa_oauth_sign_in }, /* pg, waits */
    { "reply", ngx_http_stoa_granted_or_asked },
    ngx_http_stoa_steps_end,
};
