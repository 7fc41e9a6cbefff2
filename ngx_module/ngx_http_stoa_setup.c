/*
 * What the configuration means as a whole, once all directives are read:
 * keys out of the settings, rows checked, routed and bound
 * to statements.  Every mistake stops nginx here, so "nginx -t" finds it.
 */

#include "ngx_http_stoa_limit.h"
#include "stoa_hmac.h"

#define NGX_HTTP_STOA_WORK_CONNECTIONS 4

/* Before the defaults are read: no class has a limit, but a name. */
void
ngx_http_stoa_setup_defaults(ngx_http_stoa_main_conf_t *mcf)
{
    static const struct {
        ngx_uint_t cls;
        ngx_str_t  name;
    } classes[] = {
        { STOA_RATE_AUTH, ngx_string("auth") },
        { STOA_RATE_REFRESH, ngx_string("refresh") },
        { STOA_RATE_READ, ngx_string("read") },
        { STOA_RATE_WRITE, ngx_string("write") },
        { STOA_RATE_SCAN, ngx_string("scan") },
    };

    ngx_http_stoa_limit_t *limit;
    ngx_uint_t             i, k;

    for (i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        for (k = 0; k < 2; k++) {
            limit = k == 0 ? &mcf->limit_user[classes[i].cls]
                           : &mcf->limit_addr[classes[i].cls];

            limit->name = classes[i].name;
            limit->period_ms = 1;
            limit->burst = 1;
            limit->log_level = NGX_LOG_INFO;
            limit->cost_index = NGX_ERROR;
            ngx_http_stoa_key_one(limit, k == 0 ? "user" : "addr");
        }
    }

    ngx_str_set(&mcf->login.name, "login");
    ngx_str_set(&mcf->login.key_text, "account+addr");

    mcf->leeway = NGX_CONF_UNSET;
}


/* The defaults were read, nothing else was. */
void
ngx_http_stoa_setup_unset(ngx_http_stoa_main_conf_t *mcf)
{
    mcf->pool_set = 0;
    mcf->pool_timeout_set = 0;
    mcf->hash_set = 0;
    mcf->cache_set = 0;
    mcf->login_set = 0;
    ngx_memzero(mcf->limit_set, sizeof(mcf->limit_set));

    mcf->leeway_default = mcf->leeway;
    mcf->leeway = NGX_CONF_UNSET;
}


/* ---- keys ---- */

static void
ngx_http_stoa_setup_keys_cleanup(void *data)
{
    ngx_http_stoa_main_conf_t *mcf = data;

    if (mcf->keys != NULL) {
        stoa_jwt_keys_destroy(mcf->keys);
        mcf->keys = NULL;
    }

    if (mcf->code_key != NULL) {
        stoa_code_key_destroy(mcf->code_key);
        mcf->code_key = NULL;
    }

    /* what was parsed with the settings is wiped by its own memory */
    ngx_memzero(&mcf->conf, sizeof(mcf->conf));
}


/* A key derived from JWT_SECRET, in the memory of secrets. */
static ngx_int_t
ngx_http_stoa_setup_derive(ngx_conf_t *cf, ngx_http_stoa_main_conf_t *mcf,
                           const char *purpose, stoa_str_t *out)
{
    out->len = STOA_SHA256_LEN;
    out->data = stoa_alloc(mcf->secrets, STOA_SHA256_LEN);

    if (out->data == NULL
        || !stoa_hmac_derive(stoa_str_z(mcf->conf.jwt_secret), purpose,
                             out->data))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "key \"%s\" cannot be derived",
                           purpose);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_stoa_setup_jwt(ngx_conf_t *cf, ngx_http_stoa_main_conf_t *mcf)
{
    const stoa_conf_t *conf = &mcf->conf;
    const char        *why, *setting;

    mcf->keys = stoa_jwt_keys_conf(conf, &setting, &why);

    if (mcf->keys == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%s of \"%V\" is not usable: %s", setting,
                           &mcf->settings_path, why);
        return NGX_ERROR;
    }

    mcf->rules.issuer = conf->jwt_issuer;
    mcf->rules.audience = conf->jwt_audience;
    mcf->rules.leeway_s = (uint32_t) mcf->leeway;

    mcf->oidc = stoa_oidc_conf(conf, mcf->secrets, &why);

    if (mcf->oidc == NULL
        || !stoa_jwt_extra(conf->jwt_extra_claims, &mcf->rules.extra))
    {
        /* the settings were found right a moment ago */
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the issuers of \"%V\" are "
                           "not usable",
                           &mcf->settings_path);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_stoa_setup_tickets(ngx_conf_t *cf, ngx_http_stoa_main_conf_t *mcf)
{
    unsigned char seed[32];
    stoa_str_t    text, derived;

    text = stoa_str_z(mcf->conf.ticket_seed);

    if (text.len != 0) {
        if (stoa_hex_decode(seed, sizeof(seed), text) != (ssize_t) sizeof(seed))
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "TICKET_SEED of \"%V\" must be 64 hex digits",
                               &mcf->settings_path);
            return NGX_ERROR;
        }

    } else {
        /* stoa_conf_load() lets this pass outside of production only */
        if (ngx_http_stoa_setup_derive(cf, mcf, "ticket-seed", &derived)
            != NGX_OK) {
            return NGX_ERROR;
        }

        ngx_memcpy(seed, derived.data, sizeof(seed));
    }

    mcf->code_key = stoa_code_key_create(seed, 1);
    explicit_bzero(seed, sizeof(seed));

    return mcf->code_key != NULL ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_http_stoa_setup_mfa(ngx_conf_t *cf, ngx_http_stoa_main_conf_t *mcf)
{
    const char *why, *who = mcf->conf.require_mfa;

    mcf->require_mfa = ngx_strcmp(who, "all") == 0   ? ~0U
                     : ngx_strcmp(who, "admin") == 0 ? STOA_ADMIN
                                                     : 0;
    mcf->seal = stoa_seal_conf(&mcf->conf, mcf->secrets, &why);

    if (mcf->seal == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\": %s",
                           &mcf->settings_path, why);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* Secrets that sign payment webhooks: Stripe's, and the test provider's where
   it exists. */
static ngx_int_t
ngx_http_stoa_setup_webhooks(ngx_conf_t *cf, ngx_http_stoa_main_conf_t *mcf)
{
    stoa_str_t *secret, test;
    u_char     *p, *end;

    mcf->webhook_secrets = ngx_array_create(cf->pool, 3, sizeof(stoa_str_t));
    if (mcf->webhook_secrets == NULL) {
        return NGX_ERROR;
    }

    p = (u_char *) (uintptr_t) mcf->conf.stripe_webhook_secret;

    while (*p != '\0') {
        end = (u_char *) ngx_strchr(p, ',');
        if (end == NULL) {
            end = p + ngx_strlen(p);
        }

        secret = ngx_array_push(mcf->webhook_secrets);
        if (secret == NULL) {
            return NGX_ERROR;
        }

        secret->data = p;
        secret->len = (size_t) (end - p);
        p = *end == ',' ? end + 1 : end;
    }

    mcf->webhook_nstripe = mcf->webhook_secrets->nelts;

    if (ngx_strcmp(mcf->conf.environment, "production") == 0) {
        return NGX_OK;
    }

    test = stoa_str_z(mcf->conf.test_webhook_secret);

    if (test.len == 0
        && ngx_http_stoa_setup_derive(cf, mcf, "test-webhook", &test) != NGX_OK)
    {
        return NGX_ERROR;
    }

    secret = ngx_array_push(mcf->webhook_secrets);
    if (secret == NULL) {
        return NGX_ERROR;
    }

    *secret = test;

    return NGX_OK;
}


static ngx_int_t
ngx_http_stoa_setup_secrets(ngx_conf_t *cf, ngx_http_stoa_main_conf_t *mcf)
{
    static const char *const modes[] = { "off", "refresh", "both" };
    ngx_pool_cleanup_t      *cln;
    stoa_str_t               limit;

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_http_stoa_setup_keys_cleanup;
    cln->data = mcf;

    if (mcf->conf.jwt_secret[0] == '\0') {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "JWT_SECRET is not set in \"%V\"",
                           &mcf->settings_path);
        return NGX_ERROR;
    }

    if (ngx_http_stoa_setup_jwt(cf, mcf) != NGX_OK
        || ngx_http_stoa_setup_tickets(cf, mcf) != NGX_OK
        || ngx_http_stoa_setup_webhooks(cf, mcf) != NGX_OK
        || ngx_http_stoa_setup_derive(cf, mcf, "refresh", &mcf->refresh_secret)
               != NGX_OK
        || ngx_http_stoa_setup_derive(cf, mcf, "api-key", &mcf->key_secret)
               != NGX_OK
        || ngx_http_stoa_setup_derive(cf, mcf, "cursor", &mcf->cursor_secret)
               != NGX_OK
        || ngx_http_stoa_setup_derive(cf, mcf, "oauth", &mcf->oauth_secret)
               != NGX_OK
        || ngx_http_stoa_setup_derive(cf, mcf, "throttle",
                                      &mcf->throttle_secret)
               != NGX_OK
        || ngx_http_stoa_setup_derive(cf, mcf, "csrf", &mcf->csrf_secret)
               != NGX_OK
        || ngx_http_stoa_setup_derive(cf, mcf, "limit", &limit) != NGX_OK
        || ngx_http_stoa_setup_derive(cf, mcf, "challenge",
                                      &mcf->challenge_secret)
               != NGX_OK
        || ngx_http_stoa_setup_mfa(cf, mcf) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_memcpy(mcf->limit_key, limit.data, sizeof(mcf->limit_key));

    while (ngx_strcmp(mcf->conf.auth_cookie_mode, modes[mcf->cookies]) != 0) {
        mcf->cookies++; /* one of them, stoa_conf has seen to it */
    }

    return NGX_OK;
}


/* ---- rows ---- */

static void
ngx_http_stoa_setup_slot(ngx_http_stoa_main_conf_t *mcf, stoa_bound_t *bound,
                         const stoa_endpoint_t *ep)
{
    if (bound != NULL) {
        bound->stmt.slot = (uint32_t) mcf->nstmts++;
        bound->stmt.timeout_ms = ep->timeout_ms;
    }
}


/* From a row's address to its number: routes and metrics go by number. */
static ngx_int_t
ngx_http_stoa_setup_index(ngx_conf_t *cf, ngx_http_stoa_main_conf_t *mcf)
{
    ngx_uint_t i, k, size;

    for (size = 64; size < 4 * mcf->api->nrows; size *= 2) {
        /* void */
    }

    mcf->row_mask = size - 1;
    mcf->row_index = ngx_pcalloc(cf->pool, size * sizeof(uint16_t));
    if (mcf->row_index == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < mcf->api->nrows; i++) {
        k = ngx_http_stoa_row_hash(mcf->api->rows[i]);

        while (mcf->row_index[k & mcf->row_mask] != 0) {
            k++;
        }

        mcf->row_index[k & mcf->row_mask] = (uint16_t) (i + 1);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_stoa_setup_rows(ngx_conf_t *cf, ngx_http_stoa_main_conf_t *mcf)
{
    const stoa_endpoint_t *ep;
    stoa_bound_row_t      *row;
    const char            *why = "no memory";
    ngx_uint_t             i, k;

    mcf->api = stoa_api(mcf->mem);
    if (mcf->api == NULL) {
        return NGX_ERROR;
    }

    if (!stoa_api_check(mcf->api, mcf->mem, &why)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "%s", why);
        return NGX_ERROR;
    }

    mcf->route = stoa_route_create(mcf->mem, mcf->api, &why);
    if (mcf->route == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "%s", why);
        return NGX_ERROR;
    }

    mcf->bound = ngx_pcalloc(cf->pool,
                             mcf->api->nrows * sizeof(stoa_bound_row_t));
    if (mcf->bound == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < mcf->api->nrows; i++) {
        ep = mcf->api->rows[i];
        row = &mcf->bound[i];
        row->ep = ep;

        if (ep->sql == NULL && ep->list == NULL) {
            continue; /* a flow has its own statements */
        }

        if (!stoa_bind_row(mcf->mem, ep, row, &why)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "%s", why);
            return NGX_ERROR;
        }

        ngx_http_stoa_setup_slot(mcf, row->plain, ep);
        ngx_http_stoa_setup_slot(mcf, row->keyed, ep);

        for (k = 0; k < row->nsorts; k++) {
            ngx_http_stoa_setup_slot(mcf, &row->pages[k], ep);
            ngx_http_stoa_setup_slot(mcf, &row->cursors[k], ep);
        }
    }

    if (ngx_http_stoa_setup_index(cf, mcf) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_stoa_flows_init(cf, mcf);
}


ngx_int_t
ngx_http_stoa_setup(ngx_conf_t *cf, ngx_http_stoa_main_conf_t *mcf)
{
    ngx_uint_t i;

    ngx_conf_init_value(mcf->leeway, mcf->leeway_default);

    if (ngx_http_stoa_limit_conf_end(cf, mcf) != NGX_OK) {
        return NGX_ERROR;
    }

    if (!mcf->used) {
        return NGX_OK;
    }

    if (mcf->settings_path.data == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"stoa_settings\" directive is required by "
                           "\"%V\" of %V:%ui",
                           &mcf->used_at.name, &mcf->used_at.file,
                           mcf->used_at.line);
        return NGX_ERROR;
    }

    if (mcf->zone == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"stoa_zone\" directive is required by \"%V\" of "
                           "%V:%ui",
                           &mcf->used_at.name, &mcf->used_at.file,
                           mcf->used_at.line);
        return NGX_ERROR;
    }

    for (i = 0; i < STOA_STMT_COUNT; i++) {
        mcf->stmts[i] = stoa_flow_stmts[i].stmt;
        mcf->stmts[i].slot = (uint32_t) mcf->nstmts++;
    }

    if (ngx_http_stoa_setup_secrets(cf, mcf) != NGX_OK) {
        return NGX_ERROR;
    }

    return mcf->served ? ngx_http_stoa_setup_rows(cf, mcf) : NGX_OK;
}


ngx_uint_t
ngx_http_stoa_setup_share(ngx_uint_t total, ngx_uint_t slot,
                          ngx_uint_t processes)
{
    ngx_uint_t n;

    n = total / processes + (slot % processes < total % processes ? 1 : 0);

    return ngx_min(ngx_max(n, 1), 64);
}


/* What all workers open, by class: each has at least one of each. */
static ngx_uint_t
ngx_http_stoa_setup_total(ngx_cycle_t *cycle, ngx_http_stoa_main_conf_t *mcf,
                          ngx_uint_t *sum, ngx_uint_t *nprocesses)
{
    ngx_core_conf_t *ccf;
    ngx_uint_t       i, slot, processes, total = 0;

    ccf = (ngx_core_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_core_module);
    processes = (ngx_uint_t) ngx_max(ccf->worker_processes, 1);

    for (i = STOA_POOL_FAST; i < STOA_POOL_COUNT; i++) {
        sum[i] = 0;

        for (slot = 0; slot < processes; slot++) {
            sum[i] += ngx_http_stoa_setup_share(mcf->pool_size[i], slot,
                                                processes);
        }

        total += sum[i];
    }

    *nprocesses = processes;

    return total;
}


void
ngx_http_stoa_setup_compare(ngx_cycle_t *cycle, ngx_http_stoa_main_conf_t *mcf,
                            ngx_uint_t max, ngx_uint_t reserved)
{
    ngx_uint_t processes, sum[STOA_POOL_COUNT], total, left;

    total = ngx_http_stoa_setup_total(cycle, mcf, sum, &processes);
    left = max - ngx_min(max, reserved);

    if (2 * total + NGX_HTTP_STOA_WORK_CONNECTIONS <= left) {
        return;
    }

    ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                  "stoa: %ui database connections, %ui during a reload, and "
                  "%d of \"stoa work\" are more than the %ui that the server "
                  "has: max_connections is %ui, %ui of them for superusers",
                  total, 2 * total, NGX_HTTP_STOA_WORK_CONNECTIONS, left, max,
                  reserved);
}


void
ngx_http_stoa_setup_sum(ngx_cycle_t *cycle, ngx_http_stoa_main_conf_t *mcf)
{
    ngx_uint_t processes, sum[STOA_POOL_COUNT], total;
    u_char     text[256], *p;

    total = ngx_http_stoa_setup_total(cycle, mcf, sum, &processes);

    p = ngx_slprintf(text, text + sizeof(text) - 1,
                     "stoa: %ui database connections (fast %ui, write %ui, "
                     "slow %ui) in %ui processes, %ui during a reload, and %d "
                     "of \"stoa work\": max_connections must hold %ui",
                     total, sum[STOA_POOL_FAST], sum[STOA_POOL_WRITE],
                     sum[STOA_POOL_SLOW], processes, 2 * total,
                     NGX_HTTP_STOA_WORK_CONNECTIONS,
                     2 * total + NGX_HTTP_STOA_WORK_CONNECTIONS);
    *p = '\0';

    ngx_log_error(NGX_LOG_NOTICE, cycle->log, 0, "%s", text);

    if (!ngx_quiet_mode) {
        ngx_log_stderr(0, "%s", text);
    }
}
