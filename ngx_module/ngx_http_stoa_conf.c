/*
 * Directives: reading their parameters, with the nearest valid word when one
 * is not known.  nginx adds file and line.  What the configuration as a whole
 * means (settings, keys, rows) is in ngx_http_stoa_setup.c, what stands in
 * locations in ngx_http_stoa_conf_loc.c.
 */

#include "ngx_http_stoa_conf.h"

#define NGX_HTTP_STOA_RATE_MAX 1000000

typedef struct {
    const char *name; /* with "=", or a bare word */
    ngx_uint_t  min;
    ngx_uint_t  max;
    ngx_uint_t  time; /* milliseconds */
    ngx_uint_t *value;
} ngx_http_stoa_param_t;

static const char *const ngx_http_stoa_classes[] = {
    [STOA_RATE_AUTH] = "auth",   [STOA_RATE_READ] = "read",
    [STOA_RATE_WRITE] = "write", [STOA_RATE_SCAN] = "scan",
    [STOA_RATE_NONE] = "none",
};


char *
ngx_http_stoa_conf_unknown(ngx_conf_t *cf, const char *what, ngx_str_t *word,
                           const char *const *names, ngx_uint_t n)
{
    const char *near;
    stoa_str_t  s;
    u_char     *eq;

    while (n != 0 && names[0] == NULL) {
        names++;
        n--;
    }

    s.data = word->data;
    s.len = word->len;

    eq = ngx_strlchr(word->data, word->data + word->len, '=');
    if (eq != NULL && ngx_strchr(names[0], '=') != NULL) {
        s.len = (size_t) (eq - word->data) + 1;
    }

    near = stoa_str_nearest(s, names, n);

    if (near != NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid %s \"%V\", did you mean \"%s\"?", what,
                           word, near);
    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid %s \"%V\"", what,
                           word);
    }

    return NGX_CONF_ERROR;
}


/* Reads name=value parameters from args[from] on. */
static char *
ngx_http_stoa_conf_params(ngx_conf_t *cf, ngx_uint_t from,
                          ngx_http_stoa_param_t *params, ngx_uint_t n)
{
    const char *names[8];
    ngx_str_t  *value = cf->args->elts, text;
    ngx_uint_t  i, k, seen = 0;
    ngx_int_t   number;
    size_t      len;

    for (k = 0; k < n; k++) {
        names[k] = params[k].name;
    }

    for (i = from; i < cf->args->nelts; i++) {

        for (k = 0; k < n; k++) {
            len = ngx_strlen(params[k].name);

            if (value[i].len >= len
                && ngx_strncmp(value[i].data, params[k].name, len) == 0) {
                break;
            }
        }

        if (k == n) {
            return ngx_http_stoa_conf_unknown(cf, "parameter", &value[i], names,
                                              n);
        }

        if (seen & (1U << k)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate parameter \"%V\"", &value[i]);
            return NGX_CONF_ERROR;
        }

        seen |= 1U << k;
        text.data = value[i].data + len;
        text.len = value[i].len - len;

        number = params[k].time ? ngx_parse_time(&text, 0)
                                : ngx_atoi(text.data, text.len);

        if (number == NGX_ERROR || (ngx_uint_t) number < params[k].min
            || (ngx_uint_t) number > params[k].max)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid value \"%V\", %ui to %ui%s is allowed",
                               &value[i], params[k].min, params[k].max,
                               params[k].time ? " milliseconds" : "");
            return NGX_CONF_ERROR;
        }

        *params[k].value = (ngx_uint_t) number;
    }

    return NGX_CONF_OK;
}


char *
ngx_http_stoa_conf_settings(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_stoa_main_conf_t *mcf = conf;
    const char                *why = NULL;
    ngx_str_t                 *value = cf->args->elts;
    ngx_file_info_t            fi;

    if (mcf->settings_path.data != NULL) {
        return "is duplicate";
    }

    mcf->settings_path = value[1];

    if (ngx_conf_full_name(cf->cycle, &mcf->settings_path, 1) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    mcf->secrets = ngx_http_stoa_secret_mem(cf->pool, 4 * 1024 * 1024);
    if (mcf->secrets == NULL) {
        return NGX_CONF_ERROR;
    }

    if (ngx_file_info(mcf->settings_path.data, &fi) != NGX_FILE_ERROR
        && ngx_is_dir(&fi))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is a directory, \"stoa_settings\" names a "
                           "file",
                           &mcf->settings_path);
        return NGX_CONF_ERROR;
    }

    if (ngx_file_info(mcf->settings_path.data, &fi) != NGX_FILE_ERROR
        && (fi.st_mode & S_IRWXO) != 0)
    {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"%V\" has secrets and is open to everybody",
                           &mcf->settings_path);
    }

    if (!stoa_conf_load(&mcf->conf, (char *) mcf->settings_path.data,
                        mcf->secrets, &why))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "%s",
                           why != NULL ? why : "settings cannot be read");
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


char *
ngx_http_stoa_conf_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_stoa_main_conf_t *mcf = conf;
    ngx_str_t                 *value = cf->args->elts, name, text;
    ssize_t                    size;
    u_char                    *p;

    if (mcf->zone != NULL) {
        return "is duplicate";
    }

    p = ngx_strlchr(value[1].data, value[1].data + value[1].len, ':');

    if (p == NULL || p == value[1].data) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid zone \"%V\", it must be name:size",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    name.data = value[1].data;
    name.len = (size_t) (p - value[1].data);
    text.data = p + 1;
    text.len = (size_t) (value[1].data + value[1].len - text.data);

    size = ngx_parse_size(&text);

    if (size == NGX_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid zone size \"%V\"",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    if (size < (ssize_t) (8 * ngx_pagesize)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "zone \"%V\" is too small",
                           &name);
        return NGX_CONF_ERROR;
    }

    mcf->zone = ngx_shared_memory_add(cf, &name, (size_t) size,
                                      &ngx_http_stoa_module);
    if (mcf->zone == NULL) {
        return NGX_CONF_ERROR;
    }

    if (mcf->zone->data != NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "zone \"%V\" is already in use", &name);
        return NGX_CONF_ERROR;
    }

    mcf->zone->init = ngx_http_stoa_zone_init;
    mcf->zone->data = mcf;

    return NGX_CONF_OK;
}


char *
ngx_http_stoa_conf_pool(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_stoa_main_conf_t *mcf = conf;
    ngx_http_stoa_param_t      params[] = {
             { "fast=", 1, 1024, 0, &mcf->pool_size[STOA_POOL_FAST] },
             { "write=", 1, 1024, 0, &mcf->pool_size[STOA_POOL_WRITE] },
             { "slow=", 1, 1024, 0, &mcf->pool_size[STOA_POOL_SLOW] },
             { "queue=", 0, 65535, 0, &mcf->pool_queue },
             { "queue_timeout=", 1, 60000, 1, &mcf->pool_queue_timeout },
    };

    if (mcf->pool_set) {
        return "is duplicate";
    }

    mcf->pool_set = 1;

    return ngx_http_stoa_conf_params(cf, 1, params,
                                     sizeof(params) / sizeof(params[0]));
}


char *
ngx_http_stoa_conf_pool_timeout(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_stoa_main_conf_t *mcf = conf;
    ngx_http_stoa_param_t      params[] = {
             { "fast=", 10, 3600000, 1, &mcf->pool_timeout[STOA_POOL_FAST] },
             { "write=", 10, 3600000, 1, &mcf->pool_timeout[STOA_POOL_WRITE] },
             { "slow=", 10, 3600000, 1, &mcf->pool_timeout[STOA_POOL_SLOW] },
    };

    if (mcf->pool_timeout_set) {
        return "is duplicate";
    }

    mcf->pool_timeout_set = 1;

    return ngx_http_stoa_conf_params(cf, 1, params,
                                     sizeof(params) / sizeof(params[0]));
}


char *
ngx_http_stoa_conf_hash(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_stoa_main_conf_t *mcf = conf;
    ngx_http_stoa_param_t      params[] = {
             { "threads=", 1, 256, 0, &mcf->hash_threads },
             { "queue=", 0, 4096, 0, &mcf->hash_queue },
             { "wait=", 1, 60000, 1, &mcf->hash_wait },
    };
    ngx_str_t *value = cf->args->elts;
    ngx_uint_t i;

    if (mcf->hash_set) {
        return "is duplicate";
    }

    mcf->hash_set = 1;

    for (i = 1; i < cf->args->nelts; i++) {
        if (value[i].len == sizeof("threads=auto") - 1
            && ngx_strncmp(value[i].data, "threads=auto", value[i].len) == 0)
        {
            /* one core stays for the event loop; args are this call's own */
            value[i].data = ngx_pnalloc(cf->pool, NGX_INT_T_LEN + 9);
            if (value[i].data == NULL) {
                return NGX_CONF_ERROR;
            }

            value[i].len = (size_t) (ngx_sprintf(value[i].data, "threads=%i",
                                                 ngx_max(ngx_ncpu - 1, 1))
                                     - value[i].data);
        }
    }

    return ngx_http_stoa_conf_params(cf, 1, params,
                                     sizeof(params) / sizeof(params[0]));
}


/* "600/m", "20/15m", "50/s". */
static ngx_int_t
ngx_http_stoa_conf_rate(ngx_str_t *text, ngx_http_stoa_limit_t *limit)
{
    u_char   *slash, buf[16];
    ngx_str_t time;
    ngx_int_t rate, period;

    slash = ngx_strlchr(text->data, text->data + text->len, '/');
    if (slash == NULL) {
        return NGX_ERROR;
    }

    rate = ngx_atoi(text->data, (size_t) (slash - text->data));

    time.data = slash + 1;
    time.len = (size_t) (text->data + text->len - time.data);

    if (time.len == 1) {
        buf[0] = '1';
        buf[1] = *time.data;
        time.data = buf;
        time.len = 2;
    }

    period = ngx_parse_time(&time, 0);

    if (rate < 1 || rate > NGX_HTTP_STOA_RATE_MAX || period < 1
        || period > 86400 * 1000)
    {
        return NGX_ERROR;
    }

    limit->rate = (ngx_uint_t) rate;
    limit->period_ms = (ngx_uint_t) period;

    return NGX_OK;
}


static char *
ngx_http_stoa_conf_limit_param(ngx_conf_t *cf, ngx_str_t *v,
                               ngx_http_stoa_limit_t *limit, ngx_uint_t *kinds)
{
    static const char *const names[] = { "rate=", "burst=", "key=", "dry_run",
                                         "off" };
    ngx_str_t                text;
    ngx_int_t                n;

    if (v->len > 5 && ngx_strncmp(v->data, "rate=", 5) == 0) {
        text.data = v->data + 5;
        text.len = v->len - 5;

        if (ngx_http_stoa_conf_rate(&text, limit) == NGX_OK) {
            return NGX_CONF_OK;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid rate \"%V\", it must be like 50/s, 600/m "
                           "or 20/15m",
                           v);
        return NGX_CONF_ERROR;
    }

    if (v->len > 6 && ngx_strncmp(v->data, "burst=", 6) == 0) {
        n = ngx_atoi(v->data + 6, v->len - 6);

        if (n < 1 || n > NGX_HTTP_STOA_RATE_MAX) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid burst \"%V\"", v);
            return NGX_CONF_ERROR;
        }

        limit->burst = (ngx_uint_t) n;
        return NGX_CONF_OK;
    }

    if (v->len >= 4 && ngx_strncmp(v->data, "key=", 4) == 0) {

        if (v->len == 8 && ngx_strncmp(v->data, "key=user", 8) == 0) {
            *kinds = 1;
            return NGX_CONF_OK;
        }

        if (v->len == 8 && ngx_strncmp(v->data, "key=addr", 8) == 0) {
            *kinds = 2;
            return NGX_CONF_OK;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid key \"%V\", it must be \"key=user\" or "
                           "\"key=addr\"",
                           v);
        return NGX_CONF_ERROR;
    }

    if (v->len == 7 && ngx_strncmp(v->data, "dry_run", 7) == 0) {
        limit->dry_run = 1;
        return NGX_CONF_OK;
    }

    if (v->len == 3 && ngx_strncmp(v->data, "off", 3) == 0) {
        limit->rate = 0;
        limit->period_ms = 1;
        limit->burst = 1;
        return NGX_CONF_OK;
    }

    return ngx_http_stoa_conf_unknown(cf, "parameter", v, names,
                                      sizeof(names) / sizeof(names[0]));
}


/* Whether value[i] names what one before it has named. */
static ngx_uint_t
ngx_http_stoa_conf_limit_twice(ngx_str_t *value, ngx_uint_t i)
{
    ngx_uint_t k;
    u_char    *eq;
    size_t     len;

    eq = ngx_strlchr(value[i].data, value[i].data + value[i].len, '=');
    len = eq == NULL ? value[i].len : (size_t) (eq - value[i].data) + 1;

    for (k = 2; k < i; k++) {
        if (ngx_strncmp(value[k].data, value[i].data, len) == 0
            && (eq != NULL || value[k].len == len))
        {
            return 1;
        }
    }

    return 0;
}


static char *
ngx_http_stoa_conf_limit_login(ngx_http_stoa_main_conf_t *mcf,
                               ngx_http_stoa_limit_t *limit, ngx_uint_t kinds)
{
    if (kinds != 0) {
        return "class \"login\" counts by account and address, it has no "
               "\"key\"";
    }

    if (limit->burst != 0 && limit->rate != 0) {
        return "class \"login\" has no \"burst\"";
    }

    if (mcf->login_set) {
        return "sets class \"login\" a second time";
    }

    mcf->login_set = 1;
    limit->name = mcf->login.name;
    mcf->login = *limit;

    return NGX_CONF_OK;
}


/* stoa_limit class rate=600/m burst=100 key=user|addr [dry_run]; */
char *
ngx_http_stoa_conf_limit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    static const char *const   names[] = { "auth", "read", "write", "scan",
                                           "login" };
    ngx_http_stoa_main_conf_t *mcf = conf;
    ngx_http_stoa_limit_t      limit;
    ngx_str_t                 *value = cf->args->elts;
    ngx_uint_t                 i, cls, kinds, login;

    ngx_memzero(&limit, sizeof(limit));
    kinds = 0;

    for (cls = STOA_RATE_AUTH; cls < STOA_RATE_NONE; cls++) {
        if (ngx_strcmp(value[1].data, ngx_http_stoa_classes[cls]) == 0) {
            break;
        }
    }

    login = cls == STOA_RATE_NONE && ngx_strcmp(value[1].data, "login") == 0;

    if (cls == STOA_RATE_NONE && !login) {

        if (ngx_strcmp(value[1].data, "none") == 0) {
            return "class \"none\" has no limit to set";
        }

        return ngx_http_stoa_conf_unknown(cf, "limit class", &value[1], names,
                                          sizeof(names) / sizeof(names[0]));
    }

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_http_stoa_conf_limit_twice(value, i)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate parameter \"%V\"", &value[i]);
            return NGX_CONF_ERROR;
        }

        if (ngx_http_stoa_conf_limit_param(cf, &value[i], &limit, &kinds)
            != NGX_CONF_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    if (limit.period_ms == 0) {
        return "must have \"rate\" parameter";
    }

    if (login) {
        return ngx_http_stoa_conf_limit_login(mcf, &limit, kinds);
    }

    if (kinds == 0) {
        if (limit.rate != 0) {
            return "must have \"key\" parameter, \"key=user\" or \"key=addr\"";
        }

        kinds = 3; /* off: both */
    }

    if (limit.burst == 0) {
        limit.burst = limit.rate;
    }

    if (mcf->limit_set[cls] & kinds) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "class \"%s\" with \"key=%s\" is set twice",
                           ngx_http_stoa_classes[cls],
                           mcf->limit_set[cls] & kinds & 1 ? "user" : "addr");
        return NGX_CONF_ERROR;
    }

    mcf->limit_set[cls] |= kinds;
    limit.name = mcf->limit_user[cls].name;

    if (kinds & 1) {
        mcf->limit_user[cls] = limit;
    }

    if (kinds & 2) {
        mcf->limit_addr[cls] = limit;
    }

    return NGX_CONF_OK;
}


/* stoa_cache 8m | off; */
char *
ngx_http_stoa_conf_cache(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_stoa_main_conf_t *mcf = conf;
    ngx_str_t                 *value = cf->args->elts;
    ssize_t                    size;

    if (mcf->cache_size != NGX_CONF_UNSET_SIZE) {
        return "is duplicate";
    }

    if (ngx_strcmp(value[1].data, "off") == 0) {
        mcf->cache_size = 0;
        return NGX_CONF_OK;
    }

    size = ngx_parse_size(&value[1]);

    if (size < 64 * 1024) {
        return "must be \"off\" or a size of at least 64k";
    }

    mcf->cache_size = (size_t) size;

    return NGX_CONF_OK;
}
