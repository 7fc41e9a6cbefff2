/*
 * "stoa_limit" and "stoa_limit_apply": the limits of the rows' classes, and
 * policies by name.  A policy is one, with one set of counters, however many
 * locations apply it; it may be applied before the line that defines it, so
 * names are judged at the end.
 */

#include "ngx_http_stoa_limit.h"

#define NGX_HTTP_STOA_NAME_MAX 31
#define NGX_HTTP_STOA_TIMEOUT  50 /* ms, of Redis */

static const char *const ngx_http_stoa_classes[] = {
    [STOA_RATE_AUTH] = "auth", [STOA_RATE_REFRESH] = "refresh",
    [STOA_RATE_READ] = "read", [STOA_RATE_WRITE] = "write",
    [STOA_RATE_SCAN] = "scan", [STOA_RATE_NONE] = "none",
};


/* ---- stoa_limit ---- */

/* What the parameters are together. */
static char *
ngx_http_stoa_limit_whole(ngx_conf_t *cf, ngx_http_stoa_limit_t *limit)
{
    if (limit->period_ms == 0) {
        return "must have \"rate\" parameter";
    }

    if (limit->burst == 0) {
        limit->burst = limit->rate;
    }

    if (limit->timeout != 0 && !limit->cluster) {
        return "has \"timeout\" without \"scope=cluster\"";
    }

    if (limit->timeout == 0) {
        limit->timeout = NGX_HTTP_STOA_TIMEOUT;
    }

    if (limit->cost > limit->burst && limit->rate != 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"cost=%ui\" is more than the burst of %ui",
                           limit->cost, limit->burst);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_stoa_limit_login(ngx_http_stoa_main_conf_t *mcf,
                          ngx_http_stoa_limit_t     *limit)
{
    if (limit->nkeys != 0) {
        return "class \"login\" counts by account and address, it has no "
               "\"key\"";
    }

    if (limit->burst != 0 && limit->rate != 0) {
        return "class \"login\" has no \"burst\"";
    }

    if (limit->quota != 0 || limit->cluster || limit->failure
        || limit->timeout != 0)
    {
        return "class \"login\" has \"rate\", \"dry_run\" and \"log_level\" "
               "only";
    }

    if (mcf->login_set) {
        return "sets class \"login\" a second time";
    }

    mcf->login_set = 1;
    limit->burst = ngx_max(limit->rate, 1);
    limit->name = mcf->login.name;
    limit->key_text = mcf->login.key_text;
    mcf->login = *limit;

    return NGX_CONF_OK;
}


static char *
ngx_http_stoa_limit_class(ngx_conf_t *cf, ngx_http_stoa_main_conf_t *mcf,
                          ngx_http_stoa_limit_t *limit, ngx_uint_t cls)
{
    const char            *names[] = { "user", "addr" };
    ngx_http_stoa_limit_t *of;
    ngx_uint_t             i, kinds = 3; /* off: both */
    char                  *rv;

    if (cls == STOA_RATE_REFRESH) {
        names[0] = "session"; /* the token that comes is no access token */

        if (limit->cluster) {
            return "class \"refresh\" has no \"scope=cluster\"";
        }
    }

    if (limit->nkeys != 0) {
        for (i = 0; i < 2; i++) {
            if (limit->key_text.len == ngx_strlen(names[i])
                && ngx_memcmp(limit->key_text.data, names[i],
                              limit->key_text.len)
                       == 0)
            {
                kinds = 1U << i;
                break;
            }
        }

        if (i == 2) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid key \"key=%V\", of a class it must be "
                               "\"key=%s\" or \"key=addr\"",
                               &limit->key_text, names[0]);
            return NGX_CONF_ERROR;
        }

    } else if (limit->rate != 0 || limit->period_ms == 0) {
        return limit->period_ms == 0 ? "must have \"rate\" parameter"
             : cls == STOA_RATE_REFRESH
                 ? "must have \"key\" parameter, \"key=session\" or "
                   "\"key=addr\""
                 : "must have \"key\" parameter, \"key=user\" or "
                   "\"key=addr\"";
    }

    if (limit->cost != 0 || limit->cost_index != NGX_ERROR) {
        return "of a class has no \"cost\", rows name theirs";
    }

    rv = ngx_http_stoa_limit_whole(cf, limit);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (mcf->limit_set[cls] & kinds) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "class \"%s\" with \"key=%s\" is set twice",
                           ngx_http_stoa_classes[cls],
                           names[mcf->limit_set[cls] & kinds & 1 ? 0 : 1]);
        return NGX_CONF_ERROR;
    }

    mcf->limit_set[cls] |= kinds;
    limit->name = mcf->limit_user[cls].name;

    for (i = 0; i < 2; i++) {
        if (kinds & 1U << i) {
            of = i == 0 ? &mcf->limit_user[cls] : &mcf->limit_addr[cls];
            *of = *limit;
            ngx_http_stoa_key_one(of, names[i]);
        }
    }

    return NGX_CONF_OK;
}


/* The policy of this name, made when it is named first. */
static ngx_http_stoa_limit_t *
ngx_http_stoa_limit_named(ngx_conf_t *cf, ngx_http_stoa_main_conf_t *mcf,
                          ngx_str_t *name)
{
    ngx_http_stoa_limit_t **policy, *limit;
    ngx_uint_t              i;

    if (mcf->policies == NULL) {
        mcf->policies = ngx_array_create(cf->pool, 4,
                                         sizeof(ngx_http_stoa_limit_t *));
        if (mcf->policies == NULL) {
            return NULL;
        }
    }

    policy = mcf->policies->elts;

    for (i = 0; i < mcf->policies->nelts; i++) {
        if (policy[i]->name.len == name->len
            && ngx_memcmp(policy[i]->name.data, name->data, name->len) == 0)
        {
            return policy[i];
        }
    }

    policy = ngx_array_push(mcf->policies);
    limit = ngx_pcalloc(cf->pool, sizeof(ngx_http_stoa_limit_t));

    if (policy == NULL || limit == NULL) {
        return NULL;
    }

    limit->name = *name;
    *policy = limit;

    return limit;
}


static ngx_uint_t
ngx_http_stoa_limit_name_ok(ngx_str_t *name)
{
    size_t i;
    u_char c;

    for (i = 0; i < name->len; i++) {
        c = name->data[i];

        if (!(c >= 'a' && c <= 'z')
            && (i == 0 || (!(c >= '0' && c <= '9') && c != '_' && c != '-')))
        {
            return 0;
        }
    }

    return name->len != 0 && name->len <= NGX_HTTP_STOA_NAME_MAX
        && ngx_strcmp(name->data, "off") != 0;
}


static char *
ngx_http_stoa_limit_define(ngx_conf_t *cf, ngx_command_t *cmd,
                           ngx_http_stoa_main_conf_t *mcf,
                           ngx_http_stoa_limit_t *limit, ngx_str_t *name)
{
    ngx_http_stoa_limit_t *policy;
    char                  *rv;

    if (!ngx_http_stoa_limit_name_ok(name)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid limit name \"%V\", it must be like "
                           "\"reports\" or \"key-guesses\"",
                           name);
        return NGX_CONF_ERROR;
    }

    rv = ngx_http_stoa_limit_whole(cf, limit);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (limit->nkeys == 0 && limit->rate != 0) {
        return "must have \"key\" parameter, like \"key=addr\", "
               "\"key=user+route\" or \"key=user|addr\"";
    }

    policy = ngx_http_stoa_limit_named(cf, mcf, name);
    if (policy == NULL) {
        return NGX_CONF_ERROR;
    }

    if (policy->defined) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "limit \"%V\" is set twice",
                           name);
        return NGX_CONF_ERROR;
    }

    limit->name = policy->name;
    limit->cost = ngx_max(limit->cost, 1);
    limit->defined = 1;
    ngx_http_stoa_conf_place(cf, cmd, &limit->at);
    *policy = *limit;

    return NGX_CONF_OK;
}


/* stoa_limit class rate=600/m burst=100 key=user|addr ...;
   stoa_limit name rate=600/m burst=100 key=...; */
char *
ngx_http_stoa_conf_limit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_stoa_main_conf_t *mcf = conf;
    ngx_http_stoa_limit_t      limit;
    ngx_str_t                 *value = cf->args->elts;
    ngx_uint_t                 i, cls, seen = 0;
    char                      *rv;

    ngx_memzero(&limit, sizeof(limit));
    limit.cost_index = NGX_ERROR;
    limit.log_level = NGX_LOG_INFO;

    for (cls = STOA_RATE_AUTH; cls < STOA_RATE_NONE; cls++) {
        if (ngx_strcmp(value[1].data, ngx_http_stoa_classes[cls]) == 0) {
            break;
        }
    }

    if (ngx_strcmp(value[1].data, "none") == 0) {
        return "class \"none\" has no limit to set";
    }

    for (i = 2; i < cf->args->nelts; i++) {
        rv = ngx_http_stoa_limit_param(cf, &value[i], &limit, &seen);
        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    if (cls != STOA_RATE_NONE) {
        return ngx_http_stoa_limit_class(cf, mcf, &limit, cls);
    }

    if (ngx_strcmp(value[1].data, "login") == 0) {
        return limit.period_ms == 0 ? "must have \"rate\" parameter"
                                    : ngx_http_stoa_limit_login(mcf, &limit);
    }

    return ngx_http_stoa_limit_define(cf, cmd, mcf, &limit, &value[1]);
}


/* ---- stoa_limit_apply ---- */

static char *
ngx_http_stoa_limit_use(ngx_conf_t *cf, ngx_command_t *cmd,
                        ngx_http_stoa_loc_conf_t *lcf, ngx_str_t *name)
{
    ngx_http_stoa_main_conf_t *mcf;
    ngx_http_stoa_applied_t   *use;
    ngx_http_stoa_limit_t    **policy, *limit;
    ngx_uint_t                 i;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_stoa_module);
    limit = ngx_http_stoa_limit_named(cf, mcf, name);

    if (limit == NULL) {
        return NGX_CONF_ERROR;
    }

    if (lcf->limits == NULL) {
        lcf->limits = ngx_array_create(cf->pool, 2,
                                       sizeof(ngx_http_stoa_limit_t *));
    }

    if (mcf->applied == NULL) {
        mcf->applied = ngx_array_create(cf->pool, 4,
                                        sizeof(ngx_http_stoa_applied_t));
    }

    if (lcf->limits == NULL || mcf->applied == NULL) {
        return NGX_CONF_ERROR;
    }

    policy = lcf->limits->elts;

    for (i = 0; i < lcf->limits->nelts; i++) {
        if (policy[i] == limit) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate parameter \"%V\"", name);
            return NGX_CONF_ERROR;
        }
    }

    if (lcf->limits->nelts == NGX_HTTP_STOA_APPLIED) {
        return "applies more than 8 limits";
    }

    policy = ngx_array_push(lcf->limits);
    use = ngx_array_push(mcf->applied);

    if (policy == NULL || use == NULL) {
        return NGX_CONF_ERROR;
    }

    *policy = limit;
    use->limit = limit;
    use->lcf = lcf;
    ngx_http_stoa_conf_place(cf, cmd, &use->at);

    return NGX_CONF_OK;
}


/* stoa_limit_apply class | name ... | off; */
char *
ngx_http_stoa_conf_limit_apply(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_stoa_loc_conf_t *lcf = conf;
    ngx_str_t                *value = cf->args->elts;
    ngx_uint_t                i, cls;
    char                     *rv;

    if (lcf->rate != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    lcf->rate = 0;
    lcf->limits = NULL;
    ngx_http_stoa_conf_use(cf, cmd);

    if (ngx_http_stoa_conf_noted(cf, cmd, &lcf->rate_at) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_strcmp(value[i].data, "off") == 0) {
            if (cf->args->nelts != 2) {
                return "has \"off\" beside limits";
            }

            lcf->rate = STOA_RATE_NONE;
            return NGX_CONF_OK;
        }

        for (cls = STOA_RATE_AUTH; cls < STOA_RATE_NONE; cls++) {
            if (ngx_strcmp(value[i].data, ngx_http_stoa_classes[cls]) == 0) {
                break;
            }
        }

        if (cls != STOA_RATE_NONE) {
            if (lcf->rate != 0) {
                return "names two classes";
            }

            lcf->rate = cls;
            continue;
        }

        rv = ngx_http_stoa_limit_use(cf, cmd, lcf, &value[i]);
        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    return NGX_CONF_OK;
}


/* ---- at the end ---- */

/* The nearest class or policy, or NULL. */
static const char *
ngx_http_stoa_limit_near(ngx_http_stoa_main_conf_t *mcf, ngx_str_t *name,
                         ngx_uint_t policies)
{
    const char             *names[STOA_RATE_COUNT + NGX_HTTP_STOA_POLICIES + 1];
    ngx_http_stoa_limit_t **policy = mcf->policies->elts;
    stoa_str_t              s = { name->len, name->data };
    ngx_uint_t              i, n = 0;

    for (i = STOA_RATE_AUTH; i < STOA_RATE_NONE; i++) {
        names[n++] = ngx_http_stoa_classes[i];
    }

    if (!policies) {
        names[n++] = "login";
    }

    for (i = 0; policies && i < mcf->policies->nelts; i++) {
        if (policy[i]->defined && n < sizeof(names) / sizeof(names[0])) {
            /* words of a configuration end with a NUL */
            names[n++] = (const char *) policy[i]->name.data;
        }
    }

    return stoa_str_nearest(s, names, n);
}


static ngx_int_t
ngx_http_stoa_limit_conf_unknown(ngx_conf_t *cf, ngx_http_stoa_main_conf_t *mcf,
                                 ngx_http_stoa_applied_t *use)
{
    const char *near = ngx_http_stoa_limit_near(mcf, &use->limit->name, 1);

    if (near != NULL) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "unknown limit \"%V\" in \"stoa_limit_apply\", did you "
                      "mean \"%s\"? in %V:%ui",
                      &use->limit->name, near, &use->at.file, use->at.line);
    } else {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "unknown limit \"%V\" in \"stoa_limit_apply\" in %V:%ui",
                      &use->limit->name, &use->at.file, use->at.line);
    }

    return NGX_ERROR;
}


/* Every alternative of its key needs a token that nobody verifies here. */
static ngx_uint_t
ngx_http_stoa_limit_never(const ngx_http_stoa_applied_t *use)
{
    const ngx_http_stoa_limit_t *limit = use->limit;
    ngx_uint_t                   i, k, verified;

    /* of a server: for those of its locations that verify tokens */
    if (!limit->verified || use->lcf->rate_at == NULL || use->lcf->api == 1
        || use->lcf->auth != 0)
    {
        return 0;
    }

    for (i = 0; i < limit->nkeys; i++) {
        verified = 0;

        for (k = 0; limit->key[i][k] != NULL; k++) {
            verified |= limit->key[i][k]->verified;
        }

        if (!verified) {
            return 0;
        }
    }

    return 1;
}


/* A policy that nothing applies: mistyped, or kept for later. */
static ngx_int_t
ngx_http_stoa_limit_conf_idle(ngx_conf_t *cf, ngx_http_stoa_main_conf_t *mcf,
                              ngx_http_stoa_limit_t *limit)
{
    const char *near = ngx_http_stoa_limit_near(mcf, &limit->name, 0);

    if (near != NULL) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "limit \"%V\" is applied nowhere, did you mean class "
                      "\"%s\"? in %V:%ui",
                      &limit->name, near, &limit->at.file, limit->at.line);
        return NGX_ERROR;
    }

    ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                  "limit \"%V\" is applied nowhere in %V:%ui", &limit->name,
                  &limit->at.file, limit->at.line);

    return NGX_OK;
}


/* What a limit's key and headers need, once it is known. */
static ngx_int_t
ngx_http_stoa_limit_set(ngx_conf_t *cf, ngx_http_stoa_limit_t *limit,
                        ngx_uint_t kind)
{
    ngx_http_stoa_main_conf_t *mcf;
    static const u_char        key[16];
    uint64_t                   hash[2];

    /* the name and the kind, not the numbers: those may change */
    ngx_http_stoa_siphash(key, limit->name.data, limit->name.len, hash);
    hash[0] ^= kind;
    ngx_memcpy(limit->tag, hash, sizeof(limit->tag));

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_stoa_module);

    if (limit->cluster && mcf->conf.redis_prefix != NULL) {
        limit->remote.data = ngx_pnalloc(cf->pool, NGX_HTTP_STOA_REMOTE_MAX);
        if (limit->remote.data == NULL) {
            return NGX_ERROR;
        }

        /* 40, and the name's 31 */
        limit->remote.len = (size_t) (ngx_snprintf(limit->remote.data,
                                                   NGX_HTTP_STOA_REMOTE_MAX,
                                                   "%s{limit}:%V:",
                                                   mcf->conf.redis_prefix,
                                                   &limit->name)
                                      - limit->remote.data);
    }

    return ngx_http_stoa_limit_policy(cf->pool, limit);
}


static ngx_int_t
ngx_http_stoa_limit_conf_classes(ngx_conf_t *cf, ngx_http_stoa_main_conf_t *mcf)
{
    ngx_uint_t i;

    for (i = STOA_RATE_AUTH; i < STOA_RATE_NONE; i++) {
        if (ngx_http_stoa_limit_set(cf, &mcf->limit_user[i], 1) != NGX_OK
            || ngx_http_stoa_limit_set(cf, &mcf->limit_addr[i], 2) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return ngx_http_stoa_limit_set(cf, &mcf->login, 3);
}


ngx_int_t
ngx_http_stoa_limit_conf_end(ngx_conf_t *cf, ngx_http_stoa_main_conf_t *mcf)
{
    ngx_http_stoa_applied_t *use;
    ngx_http_stoa_limit_t  **policy;
    ngx_uint_t               i, k, n;

    if (ngx_http_stoa_limit_conf_classes(cf, mcf) != NGX_OK) {
        return NGX_ERROR;
    }

    if (mcf->policies == NULL) {
        return NGX_OK;
    }

    use = mcf->applied != NULL ? mcf->applied->elts : NULL;
    n = mcf->applied != NULL ? mcf->applied->nelts : 0;

    for (i = 0; i < n; i++) {
        if (!use[i].limit->defined) {
            return ngx_http_stoa_limit_conf_unknown(cf, mcf, &use[i]);
        }

        if (ngx_http_stoa_limit_never(&use[i])) {
            ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                          "limit \"%V\" with \"key=%V\" never counts where "
                          "\"stoa_auth\" is off in %V:%ui",
                          &use[i].limit->name, &use[i].limit->key_text,
                          &use[i].at.file, use[i].at.line);
        }
    }

    policy = mcf->policies->elts;

    if (mcf->policies->nelts > NGX_HTTP_STOA_POLICIES) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "there are %ui limits, %d at most", mcf->policies->nelts,
                      NGX_HTTP_STOA_POLICIES);
        return NGX_ERROR;
    }

    for (i = 0; i < mcf->policies->nelts; i++) {
        for (k = 0; k < n && use[k].limit != policy[i]; k++) {
            /* void */
        }

        if (k == n && policy[i]->rate != 0
            && ngx_http_stoa_limit_conf_idle(cf, mcf, policy[i]) != NGX_OK)
        {
            return NGX_ERROR;
        }

        if (ngx_http_stoa_limit_set(cf, policy[i], 4) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}
