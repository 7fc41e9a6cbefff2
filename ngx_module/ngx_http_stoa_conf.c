/*
 * Directives: reading their parameters, with the nearest valid word when one
 * is not known.  nginx adds file and line.  What the configuration as a whole
 * means (settings, keys, rows) is in ngx_http_stoa_setup.c, what stands in
 * locations in ngx_http_stoa_conf_loc.c, limits in ngx_http_stoa_limit_conf.c.
 */

#include "ngx_http_stoa_conf.h"

typedef struct {
    const char *name; /* with "=", or a bare word */
    ngx_uint_t  min;
    ngx_uint_t  max;
    ngx_uint_t  time; /* milliseconds */
    ngx_uint_t *value;
} ngx_http_stoa_param_t;

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


/* stoa_cache 8m | off; */
char *
ngx_http_stoa_conf_cache(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_stoa_main_conf_t *mcf = conf;
    ngx_str_t                 *value = cf->args->elts;
    ssize_t                    size;

    if (mcf->cache_set) {
        return "is duplicate";
    }

    mcf->cache_set = 1;

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
