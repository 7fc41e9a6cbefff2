/*
 * /metrics (Prometheus text format 0.0.4) and /health/live, /health/ready.
 *
 * Metrics of the edge come from the shared zone (ngx_http_stoa_print.c), those
 * of the workers from the Redis hash <prefix>metrics, whose fields are
 * "<name>{labels}"; without Redis they are left out.
 */

#include "ngx_http_stoa_zone.h"

#define NGX_HTTP_STOA_METRICS_MAX     (8 * 1024 * 1024)
#define NGX_HTTP_STOA_METRICS_WAIT_MS 500
#define NGX_HTTP_STOA_WORKER_SERIES   2048

/* A request for /metrics that waits for Redis. */
typedef struct {
    ngx_http_request_t *r;
    stoa_redis_op_t    *op;
    stoa_mem_t          mem;
    stoa_buf_t          text;
} ngx_http_stoa_scrape_t;

typedef struct {
    stoa_str_t family; /* the name without labels */
    stoa_str_t name;
    stoa_str_t value;
} ngx_http_stoa_series_t;


static ngx_int_t
ngx_http_stoa_status_send(ngx_http_request_t *r, ngx_uint_t status,
                          const char *type, stoa_str_t text)
{
    ngx_http_complex_value_t cv;
    ngx_str_t                ct;

    ngx_memzero(&cv, sizeof(ngx_http_complex_value_t));

    cv.value.data = text.data;
    cv.value.len = text.len;
    ct.data = (u_char *) (uintptr_t) type;
    ct.len = ngx_strlen(type);

    return ngx_http_send_response(r, status, &ct, &cv);
}


/* ---- the workers' ---- */

/* "stoa_queue_depth{queue=\"mail\"}" and a number: checked by form. */
static ngx_uint_t
ngx_http_stoa_series(ngx_http_stoa_series_t *s, stoa_str_t name,
                     stoa_str_t value)
{
    u_char    *p;
    size_t     i;
    ngx_uint_t digits = 0;

    for (i = 0; i < name.len; i++) {
        p = &name.data[i];

        if (*p == '{') {
            break;
        }

        if (!((*p >= 'a' && *p <= 'z') || *p == '_' || (*p >= 'A' && *p <= 'Z')
              || (i != 0 && *p >= '0' && *p <= '9')))
        {
            return 0;
        }
    }

    if (i == 0 || (i < name.len && name.data[name.len - 1] != '}')
        || memchr(name.data, '\n', name.len) != NULL)
    {
        return 0;
    }

    s->family.data = name.data;
    s->family.len = i;
    s->name = name;
    s->value = value;

    for (i = 0; i < value.len; i++) {
        if (value.data[i] >= '0' && value.data[i] <= '9') {
            digits = 1;

        } else if (value.data[i] != '.' && !(i == 0 && value.data[i] == '-')) {
            return 0;
        }
    }

    return digits && value.len < 32;
}


static int
ngx_http_stoa_series_order(const void *one, const void *two)
{
    const ngx_http_stoa_series_t *a = one, *b = two;
    size_t                        len = ngx_min(a->family.len, b->family.len);
    int                           rc;

    rc = memcmp(a->family.data, b->family.data, len);
    if (rc != 0 || a->family.len != b->family.len) {
        return rc != 0 ? rc : (a->family.len < b->family.len ? -1 : 1);
    }

    len = ngx_min(a->name.len, b->name.len);
    rc = memcmp(a->name.data, b->name.data, len);

    return rc != 0 ? rc : (a->name.len < b->name.len ? -1 : 1);
}


/* Those of a worker of another version have no row here. */
static void
ngx_http_stoa_print_family(stoa_buf_t *b, stoa_str_t family)
{
    static const stoa_metric_row_t other = { NULL, "untyped", "",
                                             "Reported by the workers" };
    const stoa_metric_row_t       *row = &other;
    ngx_uint_t                     i;

    for (i = 0; i < STOA_M_COUNT; i++) {
        if (stoa_str_eq_z(family, stoa_metric_rows[i].name)) {
            row = &stoa_metric_rows[i];
        }
    }

    for (i = 0; i < STOA_MF_COUNT; i++) {
        if (stoa_str_eq_z(family, stoa_family_rows[i].name)) {
            row = &stoa_family_rows[i];
        }
    }

    stoa_buf_z(b, "# HELP ");
    stoa_buf_str(b, family);
    stoa_buf_printf(b, " %s.\n# TYPE ", row->help);
    stoa_buf_str(b, family);
    stoa_buf_printf(b, " %s\n", row->type);
}


static void
ngx_http_stoa_print_workers(ngx_http_stoa_scrape_t   *s,
                            const stoa_redis_reply_t *reply)
{
    ngx_http_stoa_series_t *series;
    size_t                  i, n, count;

    if (reply == NULL || stoa_redis_type(reply) != STOA_REDIS_ARRAY) {
        return;
    }

    count = ngx_min(stoa_redis_count(reply) / 2, NGX_HTTP_STOA_WORKER_SERIES);

    series = stoa_alloc(&s->mem, (count + 1) * sizeof(*series));
    if (series == NULL) {
        return;
    }

    n = 0;

    for (i = 0; i < count; i++) {
        if (ngx_http_stoa_series(&series[n],
                                 stoa_redis_str(stoa_redis_at(reply, 2 * i)),
                                 stoa_redis_str(
                                     stoa_redis_at(reply, 2 * i + 1))))
        {
            n++;
        }
    }

    ngx_qsort(series, n, sizeof(*series), ngx_http_stoa_series_order);

    for (i = 0; i < n; i++) {
        if (i == 0 || !stoa_str_eq(series[i].family, series[i - 1].family)) {
            ngx_http_stoa_print_family(&s->text, series[i].family);
        }

        stoa_buf_str(&s->text, series[i].name);
        stoa_buf_char(&s->text, ' ');
        stoa_buf_str(&s->text, series[i].value);
        stoa_buf_char(&s->text, '\n');
    }
}


static ngx_int_t
ngx_http_stoa_status_answer(ngx_http_stoa_scrape_t *s)
{
    if (s->text.failed) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_stoa_status_send(s->r, NGX_HTTP_OK,
                                     "text/plain; version=0.0.4; "
                                     "charset=utf-8",
                                     stoa_buf_view(&s->text));
}


static void
ngx_http_stoa_status_done(stoa_redis_op_t *op, stoa_err_e err,
                          const stoa_redis_reply_t *reply, void *data)
{
    ngx_http_stoa_scrape_t *s = data;
    ngx_http_request_t     *r = s->r;
    ngx_connection_t       *c = r->connection;

    s->op = NULL;

    ngx_http_set_log_request(c->log, r);

    if (err == STOA_OK) {
        ngx_http_stoa_print_workers(s, reply);
    }

    ngx_http_finalize_request(r, ngx_http_stoa_status_answer(s));
    ngx_http_run_posted_requests(c);
}


static void
ngx_http_stoa_status_cleanup(void *data)
{
    ngx_http_stoa_scrape_t *s = data;

    if (s->op != NULL) {
        stoa_redis_cancel(s->op);
        s->op = NULL;
    }
}


ngx_int_t
ngx_http_stoa_status_handler(ngx_http_request_t *r)
{
    ngx_http_stoa_scrape_t *s;
    ngx_http_cleanup_t     *cln;
    stoa_buf_t              key;
    stoa_str_t              argv[2];
    stoa_err_e              err;
    ngx_int_t               rc;

    if (!(r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    if (ngx_http_stoa_shared() == NULL) {
        return NGX_HTTP_NOT_FOUND;
    }

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    cln = ngx_http_cleanup_add(r, sizeof(ngx_http_stoa_scrape_t));
    if (cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    s = cln->data;
    s->r = r;
    s->op = NULL;
    cln->handler = ngx_http_stoa_status_cleanup;

    ngx_http_stoa_mem_init(&s->mem, r->pool);
    stoa_buf_init(&s->text, &s->mem, 16 * 1024, NGX_HTTP_STOA_METRICS_MAX);

    ngx_http_stoa_print_edge(&s->text);

    stoa_buf_init(&key, &s->mem, 64, 256);
    stoa_buf_z(&key, ngx_http_stoa_process.mcf->conf.redis_prefix);
    stoa_buf_z(&key, "metrics");

    argv[0] = (stoa_str_t) stoa_string("HGETALL");
    argv[1] = stoa_buf_view(&key);

    if (ngx_http_stoa_process.redis != NULL
        && stoa_redis_ready(ngx_http_stoa_process.redis))
    {
        s->op = stoa_redis_command(ngx_http_stoa_process.redis, 2, argv,
                                   NGX_HTTP_STOA_METRICS_WAIT_MS,
                                   ngx_http_stoa_status_done, s, &err);
    }

    if (s->op == NULL) {
        return ngx_http_stoa_status_answer(s);
    }

    r->main->count++;
    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_request_empty_handler;

    return NGX_DONE;
}


/* ---- health ---- */

static ngx_int_t
ngx_http_stoa_ready(ngx_http_request_t *r)
{
    ngx_http_stoa_shared_t *sh = ngx_http_stoa_shared();
    stoa_pg_pool_t        **pool = ngx_http_stoa_process.pool;
    stoa_buf_t              b;
    stoa_mem_t              mem;
    ngx_uint_t              database, redis, ready;

    database = pool[STOA_POOL_FAST] != NULL && pool[STOA_POOL_WRITE] != NULL
            && stoa_pg_pool_ready(pool[STOA_POOL_FAST])
            && stoa_pg_pool_ready(pool[STOA_POOL_WRITE]);

    redis = ngx_http_stoa_process.redis != NULL
         && stoa_redis_ready(ngx_http_stoa_process.redis);

    ready = database && sh != NULL && sh->revoke_loaded && sh->throttle_loaded
         && sh->schema == 1;

    ngx_http_stoa_mem_init(&mem, r->pool);
    stoa_buf_init(&b, &mem, 256, 1024);

    /* without Redis writes still commit: said, but not a reason to go */
    stoa_buf_printf(&b,
                    "{\"status\":\"%s\",\"checks\":{\"database\":\"%s\","
                    "\"redis\":\"%s\",\"revocations\":\"%s\","
                    "\"schema\":\"%s\"}}",
                    ready ? (redis ? "ready" : "degraded") : "not_ready",
                    database ? "up" : "down", redis ? "up" : "down",
                    sh != NULL && sh->revoke_loaded ? "loaded" : "loading",
                    sh == NULL || sh->schema == 0 ? "unknown"
                    : sh->schema == 1             ? "present"
                                                  : "missing");

    if (b.failed) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_stoa_status_send(r,
                                     ready ? NGX_HTTP_OK
                                           : NGX_HTTP_SERVICE_UNAVAILABLE,
                                     "application/json", stoa_buf_view(&b));
}


ngx_int_t
ngx_http_stoa_health_handler(ngx_http_request_t *r)
{
    static const char live[] = "/live", ready[] = "/ready";
    stoa_str_t        text = stoa_string("{\"status\":\"live\"}");
    size_t            n;

    if (!(r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    n = sizeof(live) - 1;

    if (r->uri.len >= n
        && ngx_memcmp(r->uri.data + r->uri.len - n, live, n) == 0) {
        return ngx_http_stoa_status_send(r, NGX_HTTP_OK, "application/json",
                                         text);
    }

    n = sizeof(ready) - 1;

    if (r->uri.len >= n
        && ngx_memcmp(r->uri.data + r->uri.len - n, ready, n) == 0) {
        return ngx_http_stoa_ready(r);
    }

    return NGX_HTTP_NOT_FOUND;
}
