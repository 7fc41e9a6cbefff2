/*
 * Flows that send a browser to a provider: to sign in (OpenID Connect's code
 * flow), or to link an identity to the account that one is signed in to.
 *
 * A browser's flow lives in a cookie of its own, sealed here, so that tabs do
 * not know of each other; ngx_http_stoa_flow_oauth_back.c takes it back.
 * What goes wrong is told by a page: the browser is sent there with the
 * error's code and nothing else.
 *
 * Failures do not count as wrong passwords do: nothing here can be guessed,
 * any page can make a browser come, and whoever shares its address would wait.
 * The classes of the rows bound what it costs.
 */

#include "ngx_http_stoa_oauth.h"

#define NGX_HTTP_STOA_OAUTH_TABS   8 /* flows that one browser may have */
#define NGX_HTTP_STOA_OAUTH_NAME   16
#define NGX_HTTP_STOA_OAUTH_COOKIE "__Host-stoa_oauth_"


/* ---- what all share ---- */

static void
ngx_http_stoa_oauth_cleanup(void *data)
{
    ngx_http_stoa_oauth_t *st = data;

    stoa_issuer_leave(&st->wait);
}

ngx_http_stoa_go_e
ngx_http_stoa_oauth_fail(ngx_http_stoa_ctx_t *q, stoa_err_e err)
{
    stoa_buf_t             b;
    ngx_http_stoa_oauth_t *st = q->flow;

    if (!st->browser) {
        return ngx_http_stoa_flow_fail(q, err);
    }

    q->error = err;
    stoa_buf_init(&b, &q->mem, 128, 1024);
    stoa_buf_z(&b, NGX_HTTP_STOA_OAUTH_PAGE "?error=");
    stoa_buf_z(&b, stoa_err_row(err)->code);
    stoa_buf_z(&b, "&provider=");
    stoa_buf_z(&b, st->provider->name);

    return ngx_http_stoa_flow_elsewhere(q, &b);
}

/* A failure that whoever asks is to blame for. */
ngx_http_stoa_go_e
ngx_http_stoa_oauth_refuse(ngx_http_stoa_ctx_t *q, stoa_err_e err,
                           const char *why)
{
    ngx_log_error(NGX_LOG_INFO, q->r->connection->log, 0,
                  "stoa: sign-in was refused: %s", why);

    return ngx_http_stoa_oauth_fail(q, err);
}

static void
ngx_http_stoa_oauth_came(stoa_issuer_wait_t *w)
{
    ngx_http_stoa_oauth_t *st = w->data;
    ngx_http_stoa_ctx_t   *q = st->q;

    ngx_http_stoa_resume_begin(q);
    ngx_http_stoa_finish(q, ngx_http_stoa_flow_resume(q, STOA_OK));
}

/* The provider, and room for its flow; NULL: it was answered. */
ngx_http_stoa_oauth_t *
ngx_http_stoa_oauth_open(ngx_http_stoa_ctx_t *q, stoa_value_t name,
                         ngx_http_stoa_go_e *go)
{
    ngx_http_cleanup_t         *cln;
    ngx_http_stoa_oauth_t      *st;
    const stoa_oidc_provider_t *provider;

    provider = stoa_oidc_provider(ngx_http_stoa_mcf(q->r)->oidc, name);

    /* the session of a browser's flow is handed over as a cookie */
    if (provider == NULL
        || (q->ep->flow != STOA_FLOW_OAUTH_TOKEN
            && !ngx_http_stoa_cookie_on(q->r)))
    {
        *go = ngx_http_stoa_flow_fail(q, STOA_E_NOT_FOUND);
        return NULL;
    }

    cln = ngx_http_cleanup_add(q->r, sizeof(ngx_http_stoa_oauth_t));
    if (cln == NULL) {
        *go = ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
        return NULL;
    }

    st = cln->data;
    ngx_memzero(st, sizeof(ngx_http_stoa_oauth_t));
    cln->handler = ngx_http_stoa_oauth_cleanup;
    st->q = q;
    st->provider = provider;
    st->issuer = stoa_issuers_find(ngx_http_stoa_process.issuers,
                                   stoa_str_z(provider->issuer));
    st->browser = q->ep->method == STOA_GET;
    st->wait.done = ngx_http_stoa_oauth_came;
    st->wait.data = st;
    q->flow = st;

    return st;
}

/* Step: what the issuer says of itself is here, or will not be. */
ngx_http_stoa_go_e
ngx_http_stoa_oauth_need(ngx_http_stoa_ctx_t *q)
{
    ngx_http_stoa_oauth_t *st = q->flow;

    if (stoa_issuer_doc(st->issuer) != NULL
        || !stoa_issuer_ask(st->issuer, &st->wait))
    {
        return NGX_HTTP_STOA_NEXT;
    }

    q->r->connection->log->action = (char *) "waiting for an issuer";

    return ngx_http_stoa_flow_wait(q, ngx_http_stoa_suspend(q));
}

/* "https://here/api/v1/oauth/google/callback" */
const char *
ngx_http_stoa_oauth_redirect_uri(ngx_http_stoa_ctx_t *q)
{
    stoa_buf_t             b;
    ngx_http_stoa_oauth_t *st = q->flow;

    stoa_buf_init(&b, &q->mem, 256, 512);
    stoa_buf_z(&b, ngx_http_stoa_mcf(q->r)->conf.public_url);
    stoa_buf_z(&b, "/api/v1/oauth/");
    stoa_buf_z(&b, st->provider->name);
    stoa_buf_z(&b, "/callback");
    stoa_buf_nul(&b);

    return b.failed ? NULL : (const char *) b.data;
}

/* The cookie of a state: each flow has its own. */
stoa_str_t
ngx_http_stoa_oauth_cookie(ngx_http_stoa_ctx_t *q, stoa_str_t state)
{
    stoa_buf_t b;
    stoa_str_t name = stoa_null_string;

    stoa_buf_init(&b, &q->mem, 64, 64);
    stoa_buf_z(&b, NGX_HTTP_STOA_OAUTH_COOKIE);
    stoa_buf_put(&b, state.data, NGX_HTTP_STOA_OAUTH_NAME);

    return b.failed ? name : stoa_buf_view(&b);
}


/* ---- providers ---- */

static ngx_http_stoa_go_e
ngx_http_stoa_oauth_providers(ngx_http_stoa_ctx_t *q)
{
    size_t                  i;
    stoa_buf_t              b;
    const stoa_oidc_conf_t *oidc;

    oidc = ngx_http_stoa_mcf(q->r)->oidc;
    stoa_buf_init(&b, &q->mem, 512, 16384);
    stoa_buf_char(&b, '[');

    for (i = 0; i < oidc->nproviders; i++) {
        stoa_buf_z(&b, i == 0 ? "{\"name\":" : ",{\"name\":");
        stoa_buf_json_z(&b, oidc->providers[i].name);
        stoa_buf_z(&b, ",\"title\":");
        stoa_buf_json_z(&b, oidc->providers[i].title);

        if (ngx_http_stoa_cookie_on(q->r)) {
            stoa_buf_printf(&b, ",\"url\":\"/api/v1/oauth/%s\"",
                            oidc->providers[i].name);
        }

        stoa_buf_char(&b, '}');
    }

    stoa_buf_char(&b, ']');

    return ngx_http_stoa_flow_data(q, NGX_HTTP_OK, &b);
}


/* ---- a browser goes ---- */

/* Which page comes afterwards; false: not one of ours. */
static ngx_uint_t
ngx_http_stoa_oauth_next(ngx_http_stoa_ctx_t *q, stoa_value_t next)
{
    const char *paths = ngx_http_stoa_mcf(q->r)->conf.oidc_next_paths;
    ngx_http_stoa_oauth_t *st = q->flow;

    if (next.data == NULL) {
        paths += strspn(paths, " ");
        next.data = (u_char *) (uintptr_t) paths;
        next.len = strcspn(paths, " ");

        if (next.len == 0) {
            next = (stoa_value_t) stoa_string("/");
        }

    } else if (!stoa_oidc_next(paths, next)) {
        return 0;
    }

    st->flow.next = next;

    return 1;
}

static ngx_http_stoa_go_e
ngx_http_stoa_oauth_begin(ngx_http_stoa_ctx_t *q, stoa_value_t name,
                          stoa_value_t next)
{
    ngx_http_stoa_go_e     go;
    ngx_http_stoa_oauth_t *st;

    st = ngx_http_stoa_oauth_open(q, name, &go);
    if (st == NULL) {
        return go;
    }

    if (!ngx_http_stoa_oauth_next(q, next)) {
        ngx_http_stoa_fault(q, q->ep->method == STOA_GET ? "next" : "/next",
                            "not_allowed", "is not a page of ours");
        q->faulted = 1;
        return ngx_http_stoa_flow_fail(q, STOA_E_VALIDATION_FAILED);
    }

    return NGX_HTTP_STOA_NEXT;
}

static ngx_http_stoa_go_e
ngx_http_stoa_oauth_start(ngx_http_stoa_ctx_t *q)
{
    return ngx_http_stoa_oauth_begin(q, q->path_values[0],
                                     ngx_http_stoa_query_value(q, "next"));
}

static ngx_http_stoa_go_e
ngx_http_stoa_oauth_link(ngx_http_stoa_ctx_t *q)
{
    ngx_http_stoa_go_e     go;
    ngx_http_stoa_oauth_t *st;

    go = ngx_http_stoa_oauth_begin(q, ngx_http_stoa_body_value(q, "provider"),
                                   ngx_http_stoa_body_value(q, "next"));

    if (go == NGX_HTTP_STOA_NEXT) {
        st = q->flow;
        st->flow.link = true;
        st->flow.user = q->gate->claims.sub;
        st->flow.session = q->gate->claims.sid;
    }

    return go;
}

/* Flows that were left alone fill the browser's header: those that are over
   go, and the oldest when there are too many. */
static ngx_int_t
ngx_http_stoa_oauth_tidy(ngx_http_stoa_ctx_t *q)
{
    int64_t                    oldest = INT64_MAX;
    ngx_uint_t                 n = 0;
    stoa_str_t                 name, value, first = stoa_null_string;
    stoa_oidc_flow_t           flow;
    ngx_http_stoa_cookies_t    all;
    ngx_http_stoa_main_conf_t *mcf;

    static const stoa_str_t prefix = stoa_string(NGX_HTTP_STOA_OAUTH_COOKIE);

    mcf = ngx_http_stoa_mcf(q->r);
    ngx_memzero(&all, sizeof(all));

    while (ngx_http_stoa_cookie_next(q->r, &all, &name, &value)) {

        if (name.len != prefix.len + NGX_HTTP_STOA_OAUTH_NAME
            || ngx_memcmp(name.data, prefix.data, prefix.len) != 0)
        {
            continue;
        }

        if (!stoa_oidc_flow_open(mcf->oauth_secret, value,
                                 stoa_time_ms() / 1000, &q->mem, &flow))
        {
            if (ngx_http_stoa_cookie_put(q->r, name,
                                         (stoa_str_t) stoa_null_string,
                                         (stoa_str_t) stoa_string("0"))
                != NGX_OK)
            {
                return NGX_ERROR;
            }

            continue;
        }

        n++;

        if (flow.until < oldest) {
            oldest = flow.until;
            first = name;
        }
    }

    return n < NGX_HTTP_STOA_OAUTH_TABS
             ? NGX_OK
             : ngx_http_stoa_cookie_put(q->r, first,
                                        (stoa_str_t) stoa_null_string,
                                        (stoa_str_t) stoa_string("0"));
}

/* Seals the flow into its cookie. */
static ngx_int_t
ngx_http_stoa_oauth_keep(ngx_http_stoa_ctx_t *q)
{
    u_char                     state[STOA_OIDC_STATE_TEXT], age[NGX_INT_T_LEN];
    stoa_buf_t                 value;
    stoa_str_t                 text, max_age, name;
    ngx_http_stoa_oauth_t     *st = q->flow;
    ngx_http_stoa_main_conf_t *mcf;

    mcf = ngx_http_stoa_mcf(q->r);
    st->flow.provider = stoa_str_z(st->provider->name);
    st->flow.until = stoa_time_ms() / 1000 + STOA_OIDC_FLOW_S;
    stoa_buf_init(&value, &q->mem, 512, STOA_OIDC_COOKIE_MAX);

    if (!stoa_random(st->flow.state, STOA_OIDC_STATE)
        || !stoa_oidc_flow_seal(mcf->oauth_secret, &st->flow, &value))
    {
        return NGX_ERROR;
    }

    text.data = state;
    text.len = stoa_base64url_encode(state, st->flow.state, STOA_OIDC_STATE);
    max_age.data = age;
    max_age.len = (size_t) (ngx_sprintf(age, "%d", STOA_OIDC_FLOW_S) - age);
    name = ngx_http_stoa_oauth_cookie(q, text);

    return name.len == 0
             ? NGX_ERROR
             : ngx_http_stoa_cookie_put(q->r, name, stoa_buf_view(&value),
                                        max_age);
}

static ngx_http_stoa_go_e
ngx_http_stoa_oauth_go(ngx_http_stoa_ctx_t *q)
{
    stoa_buf_t                 url, body;
    stoa_str_t                 none = stoa_null_string;
    const char                *redirect_uri;
    const stoa_oidc_doc_t     *doc;
    ngx_http_stoa_oauth_t     *st = q->flow;
    ngx_http_stoa_main_conf_t *mcf;

    mcf = ngx_http_stoa_mcf(q->r);
    doc = stoa_issuer_doc(st->issuer);

    if (doc == NULL || doc->authorization == NULL || doc->token == NULL) {
        return ngx_http_stoa_oauth_fail(q, STOA_E_ISSUER_UNAVAILABLE);
    }

    stoa_buf_init(&url, &q->mem, 1024, 8192);
    redirect_uri = ngx_http_stoa_oauth_redirect_uri(q);

    if (redirect_uri == NULL || ngx_http_stoa_oauth_tidy(q) != NGX_OK
        || ngx_http_stoa_oauth_keep(q) != NGX_OK
        || !stoa_oidc_authorize(mcf->oauth_secret, &st->flow, st->provider,
                                doc->authorization, redirect_uri, &url))
    {
        return ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
    }

    if (st->browser) {
        q->location = stoa_buf_view(&url);
        return ngx_http_stoa_flow_end(
            q, ngx_http_stoa_reply_empty(q, NGX_HTTP_MOVED_TEMPORARILY));
    }

    stoa_buf_init(&body, &q->mem, 1024 + url.len, 1024 + 6 * url.len);
    stoa_buf_z(&body, "{\"url\":");
    stoa_buf_json(&body, stoa_buf_view(&url));
    stoa_buf_char(&body, '}');

    if (body.failed) {
        return ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
    }

    return ngx_http_stoa_flow_end(q, ngx_http_stoa_reply_answer(q, NGX_HTTP_OK,
                                                                stoa_buf_view(
                                                                    &body),
                                                                none, none));
}

static ngx_http_stoa_go_e
ngx_http_stoa_oauth_remember(ngx_http_stoa_ctx_t *q)
{
    ngx_http_stoa_oauth_t *st = q->flow;

    st->flow.remember = stoa_str_eq_z(ngx_http_stoa_query_value(q, "remember"),
                                      "true");

    return NGX_HTTP_STOA_NEXT;
}


const ngx_http_stoa_step_t ngx_http_stoa_flow_oauth_providers[] = {
    { "reply", ngx_http_stoa_oauth_providers },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_oauth_start[] = {
    { "open", ngx_http_stoa_oauth_start },
    { "remember", ngx_http_stoa_oauth_remember },
    { "need", ngx_http_stoa_oauth_need }, /* issuer, may wait */
    { "go", ngx_http_stoa_oauth_go },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_identity_link[] = {
    { "open", ngx_http_stoa_oauth_link },
    { "need", ngx_http_stoa_oauth_need }, /* issuer, may wait */
    { "go", ngx_http_stoa_oauth_go },
    ngx_http_stoa_steps_end,
};
