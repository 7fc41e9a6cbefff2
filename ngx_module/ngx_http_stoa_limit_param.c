/*
 * The parameters of "stoa_limit", one row each: how its value is read, and
 * what is said of one that is not right.  What they mean together is judged
 * in ngx_http_stoa_limit_conf.c.
 */

#include "ngx_http_stoa_limit.h"

#define NGX_HTTP_STOA_RATE_MAX    1000000
#define NGX_HTTP_STOA_QUOTA_MAX   1000000000
#define NGX_HTTP_STOA_TIMEOUT_MAX 5000
#define NGX_HTTP_STOA_PERIOD_MAX  (86400 * 1000)
#define NGX_HTTP_STOA_WINDOW_MAX  ((ngx_int_t) 31 * 86400 * 1000)

typedef struct {
    const char *name; /* with "=", or a bare word */
    char *(*set)(ngx_conf_t *cf, ngx_str_t *value,
                 ngx_http_stoa_limit_t *limit);
} ngx_http_stoa_limit_param_t;

static char *ngx_http_stoa_limit_rate(ngx_conf_t *cf, ngx_str_t *value,
                                      ngx_http_stoa_limit_t *limit);
static char *ngx_http_stoa_limit_burst(ngx_conf_t *cf, ngx_str_t *value,
                                       ngx_http_stoa_limit_t *limit);
static char *ngx_http_stoa_limit_key(ngx_conf_t *cf, ngx_str_t *value,
                                     ngx_http_stoa_limit_t *limit);
static char *ngx_http_stoa_limit_quota(ngx_conf_t *cf, ngx_str_t *value,
                                       ngx_http_stoa_limit_t *limit);
static char *ngx_http_stoa_limit_cost(ngx_conf_t *cf, ngx_str_t *value,
                                      ngx_http_stoa_limit_t *limit);
static char *ngx_http_stoa_limit_on(ngx_conf_t *cf, ngx_str_t *value,
                                    ngx_http_stoa_limit_t *limit);
static char *ngx_http_stoa_limit_scope(ngx_conf_t *cf, ngx_str_t *value,
                                       ngx_http_stoa_limit_t *limit);
static char *ngx_http_stoa_limit_timeout(ngx_conf_t *cf, ngx_str_t *value,
                                         ngx_http_stoa_limit_t *limit);
static char *ngx_http_stoa_limit_level(ngx_conf_t *cf, ngx_str_t *value,
                                       ngx_http_stoa_limit_t *limit);
static char *ngx_http_stoa_limit_dry(ngx_conf_t *cf, ngx_str_t *value,
                                     ngx_http_stoa_limit_t *limit);
static char *ngx_http_stoa_limit_off(ngx_conf_t *cf, ngx_str_t *value,
                                     ngx_http_stoa_limit_t *limit);

static const ngx_http_stoa_limit_param_t ngx_http_stoa_limit_params[] = {
    { "rate=", ngx_http_stoa_limit_rate },
    { "burst=", ngx_http_stoa_limit_burst },
    { "key=", ngx_http_stoa_limit_key },
    { "quota=", ngx_http_stoa_limit_quota },
    { "cost=", ngx_http_stoa_limit_cost },
    { "on=", ngx_http_stoa_limit_on },
    { "scope=", ngx_http_stoa_limit_scope },
    { "timeout=", ngx_http_stoa_limit_timeout },
    { "log_level=", ngx_http_stoa_limit_level },
    { "dry_run", ngx_http_stoa_limit_dry },
    { "off", ngx_http_stoa_limit_off },
};

#define NGX_HTTP_STOA_LIMIT_PARAMS                                             \
    (sizeof(ngx_http_stoa_limit_params) / sizeof(ngx_http_stoa_limit_params[0]))


/* In all of them value is what stands behind "=". */

static char *
ngx_http_stoa_limit_wrong(ngx_conf_t *cf, const char *what, ngx_str_t *value,
                          const char *like)
{
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid %s \"%s=%V\", %s", what,
                       what, value, like);

    return NGX_CONF_ERROR;
}


/* "600/m", "20/15m", "50/s". */
static ngx_int_t
ngx_http_stoa_limit_per(ngx_str_t *text, ngx_int_t most, ngx_int_t longest,
                        ngx_uint_t *number, ngx_uint_t *ms)
{
    u_char   *slash, buf[2];
    ngx_str_t time;
    ngx_int_t n, period;

    slash = ngx_strlchr(text->data, text->data + text->len, '/');
    if (slash == NULL) {
        return NGX_ERROR;
    }

    n = ngx_atoi(text->data, (size_t) (slash - text->data));

    time.data = slash + 1;
    time.len = (size_t) (text->data + text->len - time.data);

    if (time.len == 1) {
        buf[0] = '1';
        buf[1] = *time.data;
        time.data = buf;
        time.len = 2;
    }

    period = ngx_parse_time(&time, 0);

    if (n < 1 || n > most || period < 1 || period > longest) {
        return NGX_ERROR;
    }

    *number = (ngx_uint_t) n;
    *ms = (ngx_uint_t) period;

    return NGX_OK;
}


static char *
ngx_http_stoa_limit_rate(ngx_conf_t *cf, ngx_str_t *value,
                         ngx_http_stoa_limit_t *limit)
{
    if (ngx_http_stoa_limit_per(value, NGX_HTTP_STOA_RATE_MAX,
                                NGX_HTTP_STOA_PERIOD_MAX, &limit->rate,
                                &limit->period_ms)
        == NGX_OK)
    {
        return NGX_CONF_OK;
    }

    return ngx_http_stoa_limit_wrong(cf, "rate", value,
                                     "it must be like 50/s, 600/m or 20/15m");
}


static char *
ngx_http_stoa_limit_burst(ngx_conf_t *cf, ngx_str_t *value,
                          ngx_http_stoa_limit_t *limit)
{
    ngx_int_t n = ngx_atoi(value->data, value->len);

    if (n < 1 || n > NGX_HTTP_STOA_RATE_MAX) {
        return ngx_http_stoa_limit_wrong(cf, "burst", value,
                                         "1 to 1000000 is allowed");
    }

    limit->burst = (ngx_uint_t) n;

    return NGX_CONF_OK;
}


static char *
ngx_http_stoa_limit_key(ngx_conf_t *cf, ngx_str_t *value,
                        ngx_http_stoa_limit_t *limit)
{
    return ngx_http_stoa_key_parse(cf, value, limit);
}


/* Windows are whole seconds. */
static char *
ngx_http_stoa_limit_quota(ngx_conf_t *cf, ngx_str_t *value,
                          ngx_http_stoa_limit_t *limit)
{
    if (ngx_http_stoa_limit_per(value, NGX_HTTP_STOA_QUOTA_MAX,
                                NGX_HTTP_STOA_WINDOW_MAX, &limit->quota,
                                &limit->quota_ms)
            == NGX_OK
        && limit->quota_ms % 1000 == 0)
    {
        return NGX_CONF_OK;
    }

    return ngx_http_stoa_limit_wrong(cf, "quota", value,
                                     "it must be like 10000/d or 500/6h");
}


static char *
ngx_http_stoa_limit_cost(ngx_conf_t *cf, ngx_str_t *value,
                         ngx_http_stoa_limit_t *limit)
{
    static const char *const said[] = { "arg_", "http_", "cookie_" };
    ngx_uint_t               i;
    ngx_str_t                name;
    ngx_int_t                n;

    if (value->len > 1 && value->data[0] == '$') {
        name.data = value->data + 1;
        name.len = value->len - 1;

        for (i = 0; i < sizeof(said) / sizeof(said[0]); i++) {
            if (ngx_strncasecmp(name.data, (u_char *) (uintptr_t) said[i],
                                ngx_strlen(said[i]))
                == 0)
            {
                limit->cost_least = 1;
                ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                                   "\"cost=%V\" is whatever a client says, "
                                   "let a \"map\" name the costs",
                                   value);
            }
        }

        limit->cost_index = ngx_http_get_variable_index(cf, &name);

        return limit->cost_index != NGX_ERROR ? NGX_CONF_OK : NGX_CONF_ERROR;
    }

    n = ngx_atoi(value->data, value->len);

    if (n < 1 || n > NGX_HTTP_STOA_RATE_MAX) {
        return ngx_http_stoa_limit_wrong(cf, "cost", value,
                                         "it must be a number from 1 on or a "
                                         "variable");
    }

    limit->cost = (ngx_uint_t) n;

    return NGX_CONF_OK;
}


static void
ngx_http_stoa_limit_statuses(ngx_http_stoa_limit_t *limit, ngx_uint_t from,
                             ngx_uint_t n)
{
    for (from -= 400; n != 0; from++, n--) {
        limit->statuses[from / 64] |= UINT64_C(1) << from % 64;
    }
}


/* "failure", or a list of "401", "4xx". */
static char *
ngx_http_stoa_limit_on(ngx_conf_t *cf, ngx_str_t *value,
                       ngx_http_stoa_limit_t *limit)
{
    u_char   *p = value->data, *last = p + value->len;
    ngx_int_t n;

    limit->failure = 1;

    if (value->len == 7 && ngx_strncmp(p, "failure", 7) == 0) {
        ngx_http_stoa_limit_statuses(limit, 401, 1);
        ngx_http_stoa_limit_statuses(limit, 403, 1);
        return NGX_CONF_OK;
    }

    while (last - p >= 3) {
        n = ngx_atoi(p, 3);

        if (n >= 400 && n <= 599) {
            ngx_http_stoa_limit_statuses(limit, (ngx_uint_t) n, 1);

        } else if (ngx_strncmp(p, "4xx", 3) == 0) {
            ngx_http_stoa_limit_statuses(limit, 400, 100);

        } else if (ngx_strncmp(p, "5xx", 3) == 0) {
            ngx_http_stoa_limit_statuses(limit, 500, 100);

        } else {
            break;
        }

        p += 3;

        if (p == last) {
            return NGX_CONF_OK;
        }

        if (*p++ != ',') {
            break;
        }
    }

    return ngx_http_stoa_limit_wrong(cf, "on", value,
                                     "it must be \"failure\" or statuses like "
                                     "401,403 or 4xx");
}


static char *
ngx_http_stoa_limit_scope(ngx_conf_t *cf, ngx_str_t *value,
                          ngx_http_stoa_limit_t *limit)
{
    static const char *const names[] = { "node", "cluster" };
    ngx_uint_t               i;

    for (i = 0; i < 2; i++) {
        if (value->len == ngx_strlen(names[i])
            && ngx_strncmp(value->data, names[i], value->len) == 0)
        {
            limit->cluster = (ngx_flag_t) i;
            return NGX_CONF_OK;
        }
    }

    return ngx_http_stoa_conf_unknown(cf, "scope", value, names, 2);
}


static char *
ngx_http_stoa_limit_timeout(ngx_conf_t *cf, ngx_str_t *value,
                            ngx_http_stoa_limit_t *limit)
{
    ngx_int_t ms = ngx_parse_time(value, 0);

    if (ms < 1 || ms > NGX_HTTP_STOA_TIMEOUT_MAX) {
        return ngx_http_stoa_limit_wrong(cf, "timeout", value,
                                         "1ms to 5s is allowed");
    }

    limit->timeout = (ngx_msec_t) ms;

    return NGX_CONF_OK;
}


static char *
ngx_http_stoa_limit_level(ngx_conf_t *cf, ngx_str_t *value,
                          ngx_http_stoa_limit_t *limit)
{
    static const char *const names[] = { "error", "warn", "notice", "info" };
    ngx_uint_t               i;

    for (i = 0; i < 4; i++) {
        if (value->len == ngx_strlen(names[i])
            && ngx_strncmp(value->data, names[i], value->len) == 0)
        {
            limit->log_level = NGX_LOG_ERR + i;
            return NGX_CONF_OK;
        }
    }

    return ngx_http_stoa_conf_unknown(cf, "log_level", value, names, 4);
}


static char *
ngx_http_stoa_limit_dry(ngx_conf_t *cf, ngx_str_t *value,
                        ngx_http_stoa_limit_t *limit)
{
    limit->dry_run = 1;

    return NGX_CONF_OK;
}


static char *
ngx_http_stoa_limit_off(ngx_conf_t *cf, ngx_str_t *value,
                        ngx_http_stoa_limit_t *limit)
{
    limit->rate = 0;
    limit->period_ms = 1;
    limit->burst = 1;

    return NGX_CONF_OK;
}


char *
ngx_http_stoa_limit_param(ngx_conf_t *cf, ngx_str_t *word,
                          ngx_http_stoa_limit_t *limit, ngx_uint_t *seen)
{
    const ngx_http_stoa_limit_param_t *param;
    const char                        *names[NGX_HTTP_STOA_LIMIT_PARAMS];
    ngx_str_t                          value;
    ngx_uint_t                         i;
    size_t                             len;

    for (i = 0; i < NGX_HTTP_STOA_LIMIT_PARAMS; i++) {
        param = &ngx_http_stoa_limit_params[i];
        names[i] = param->name;
        len = ngx_strlen(param->name);

        if (word->len < len || ngx_strncmp(word->data, param->name, len) != 0
            || (param->name[len - 1] != '=' && word->len != len))
        {
            continue;
        }

        if (*seen & (1U << i)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate parameter \"%V\"", word);
            return NGX_CONF_ERROR;
        }

        *seen |= 1U << i;
        value.data = word->data + len;
        value.len = word->len - len;

        return param->set(cf, &value, limit);
    }

    return ngx_http_stoa_conf_unknown(cf, "parameter", word, names,
                                      NGX_HTTP_STOA_LIMIT_PARAMS);
}
