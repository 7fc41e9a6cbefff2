/*
 * What an answer asks for after its commit (column emit): revocations are
 * applied here at once and published for other hosts, and workers are woken
 * when tasks were enqueued.  Losing one is harmless: revocations are read
 * from PostgreSQL each second, workers poll.
 *
 * [{"ctl": "sid <uuid> <exp ms>"}, {"wake": true}]
 */

#include "ngx_http_stoa.h"

#define NGX_HTTP_STOA_WAKES 64 /* tokens that may lie in the list */

static void ngx_http_stoa_effect(const stoa_json_t *one);
static void ngx_http_stoa_publish(stoa_str_t text);
static void ngx_http_stoa_wake(stoa_defer_t *d);

static stoa_defer_t ngx_http_stoa_wake_later = { ngx_http_stoa_wake, NULL, NULL,
                                                 false };

void
ngx_http_stoa_effects(stoa_str_t emit, ngx_log_t *log)
{
    size_t            i, n;
    ngx_pool_t       *pool;
    stoa_mem_t        mem;
    stoa_json_t      *list;
    stoa_json_fault_t fault;

    if (emit.len <= 2) {
        return; /* null, or [] */
    }

    pool = ngx_create_pool(1024, log);
    if (pool == NULL) {
        return;
    }

    ngx_http_stoa_mem_init(&mem, pool);
    list = stoa_json_parse(&mem, emit, &fault);

    if (list == NULL || stoa_json_type(list) != STOA_JSON_ARRAY) {
        ngx_log_error(NGX_LOG_ALERT, log, 0,
                      "stoa: an answer's emit is not a list");

    } else {
        n = stoa_json_count(list);

        for (i = 0; i < n; i++) {
            ngx_http_stoa_effect(stoa_json_at(list, i));
        }
    }

    ngx_destroy_pool(pool);
}

static void
ngx_http_stoa_effect(const stoa_json_t *one)
{
    stoa_str_t   text;
    stoa_loop_t *loop;
    stoa_json_t *v;

    if (one == NULL || stoa_json_type(one) != STOA_JSON_OBJECT) {
        return;
    }

    v = stoa_json_get(one, "ctl");

    if (v != NULL && stoa_json_type(v) == STOA_JSON_STRING) {
        text = stoa_json_str(v);
        ngx_http_stoa_revoke_apply(text);
        ngx_http_stoa_publish(text);
    }

    v = stoa_json_get(one, "wake");
    loop = ngx_http_stoa_process.loop;

    if (v != NULL && stoa_json_type(v) == STOA_JSON_BOOL && stoa_json_bool(v)
        && loop != NULL)
    {
        /* one token for all that this turn enqueued */
        loop->defer(loop, &ngx_http_stoa_wake_later);
    }
}

static void
ngx_http_stoa_publish(stoa_str_t text)
{
    stoa_err_e err;
    stoa_str_t argv[3];

    if (ngx_http_stoa_process.redis == NULL) {
        return;
    }

    argv[0] = (stoa_str_t) stoa_string("PUBLISH");
    argv[1].data = (u_char *) ngx_http_stoa_process.ctl;
    argv[1].len = ngx_http_stoa_process.ctl_len;
    argv[2] = text;

    /* refused when Redis is away: the others read PostgreSQL */
    (void) stoa_redis_command(ngx_http_stoa_process.redis, 3, argv, 0, NULL,
                              NULL, &err);
}

static void
ngx_http_stoa_wake(stoa_defer_t *d)
{
    u_char        key[80], max[NGX_INT_T_LEN];
    const char   *prefix;
    stoa_err_e    err;
    stoa_str_t    argv[4];
    stoa_redis_t *rd;

    rd = ngx_http_stoa_process.redis;

    if (rd == NULL || ngx_http_stoa_process.mcf == NULL) {
        return;
    }

    prefix = ngx_http_stoa_process.mcf->conf.redis_prefix;

    argv[1].data = key;
    argv[1].len = (size_t) (ngx_snprintf(key, sizeof(key), "%s{outbox}:w",
                                         prefix)
                            - key);
    argv[0] = (stoa_str_t) stoa_string("LPUSH");
    argv[2] = (stoa_str_t) stoa_string("1");

    /* refused when Redis is away: workers poll the outbox */
    if (stoa_redis_command(rd, 3, argv, 0, NULL, NULL, &err) == NULL
        && err != STOA_OK)
    {
        return;
    }

    argv[0] = (stoa_str_t) stoa_string("LTRIM");
    argv[2] = (stoa_str_t) stoa_string("0");
    argv[3].data = max;
    argv[3].len = (size_t) (ngx_sprintf(max, "%d", NGX_HTTP_STOA_WAKES - 1)
                            - max);

    (void) stoa_redis_command(rd, 4, argv, 0, NULL, NULL, &err);
}
