/*
 * /metrics (Prometheus text format 0.0.4) and /health/live, /health/ready.
 *
 * Metrics of the edge come from the shared zone, those of the workers from
 * the Redis hash <prefix>metrics, whose fields are "<name>{labels}"; without
 * Redis they are left out.  Series are bounded by the rows: a route shows up
 * when it was used, labels never carry input.
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

static const char *const ngx_http_stoa_phases[NGX_HTTP_STOA_PHASE_COUNT] = {
    [NGX_HTTP_STOA_PHASE_AUTH] = "auth",
    [NGX_HTTP_STOA_PHASE_DB_WAIT] = "db_wait",
    [NGX_HTTP_STOA_PHASE_DB_RUN] = "db_run",
    [NGX_HTTP_STOA_PHASE_TOTAL] = "total",
};

static const char *const ngx_http_stoa_pools[STOA_POOL_COUNT] = {
    [STOA_POOL_FAST] = "fast",
    [STOA_POOL_WRITE] = "write",
    [STOA_POOL_SLOW] = "slow",
};


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


/* ---- the edge's own ---- */

static void
ngx_http_stoa_family(stoa_buf_t *b, const char *name, const char *type,
                     const char *help)
{
    stoa_buf_printf(b, "# HELP %s %s.\n# TYPE %s %s\n", name, help, name, type);
}


static void
ngx_http_stoa_route_label(stoa_buf_t *b, const stoa_api_t *api, ngx_uint_t row)
{
    if (row == api->nrows) {
        stoa_buf_z(b, "{route=\"none\",method=\"\"");
        return;
    }

    stoa_buf_printf(b, "{route=\"%s\",method=\"%s\"", api->rows[row]->id,
                    stoa_method_name(api->rows[row]->method));
}


static void
ngx_http_stoa_print_requests(stoa_buf_t *b, ngx_http_stoa_shared_t *sh,
                             const stoa_api_t *api)
{
    ngx_atomic_uint_t n;
    ngx_uint_t        i, cls;

    ngx_http_stoa_family(b, "stoa_requests_total", "counter",
                         "Requests by route and class of status");

    for (i = 0; i <= sh->nrows; i++) {
        for (cls = 1; cls <= 5; cls++) {
            n = sh->routes[i].status[cls];

            if (n == 0) {
                continue;
            }

            stoa_buf_z(b, "stoa_requests_total");
            ngx_http_stoa_route_label(b, api, i);
            stoa_buf_printf(b, ",status=\"%uxx\"} %lu\n", (unsigned) cls,
                            (unsigned long) n);
        }
    }
}


static void
ngx_http_stoa_print_histogram(stoa_buf_t *b, const stoa_api_t *api,
                              ngx_uint_t row, ngx_uint_t phase,
                              const ngx_http_stoa_histogram_t *h)
{
    unsigned long cells[NGX_HTTP_STOA_BUCKETS], sum_us, n = 0;
    ngx_uint_t    i;

    for (i = 0; i < NGX_HTTP_STOA_BUCKETS; i++) {
        cells[i] = (unsigned long) h->bucket[i];
        n += cells[i];
    }

    sum_us = (unsigned long) h->sum_us;

    if (n == 0) {
        return;
    }

    n = 0;

    for (i = 0; i < NGX_HTTP_STOA_BUCKETS; i++) {
        n += cells[i];

        stoa_buf_z(b, "stoa_phase_seconds_bucket");
        ngx_http_stoa_route_label(b, api, row);
        stoa_buf_printf(b, ",phase=\"%s\",le=", ngx_http_stoa_phases[phase]);

        if (i == NGX_HTTP_STOA_BUCKETS - 1) {
            stoa_buf_printf(b, "\"+Inf\"} %lu\n", n);

        } else {
            stoa_buf_printf(b, "\"%g\"} %lu\n",
                            ngx_http_stoa_bounds_us[i] / 1e6, n);
        }
    }

    stoa_buf_z(b, "stoa_phase_seconds_sum");
    ngx_http_stoa_route_label(b, api, row);
    stoa_buf_printf(b, ",phase=\"%s\"} %lu.%06lu\n",
                    ngx_http_stoa_phases[phase], sum_us / 1000000,
                    sum_us % 1000000);

    stoa_buf_z(b, "stoa_phase_seconds_count");
    ngx_http_stoa_route_label(b, api, row);
    stoa_buf_printf(b, ",phase=\"%s\"} %lu\n", ngx_http_stoa_phases[phase], n);
}


static void
ngx_http_stoa_print_cells(stoa_buf_t *b, ngx_http_stoa_shared_t *sh)
{
    const stoa_metric_row_t *row;
    ngx_uint_t               i;

    for (i = 0; i < STOA_M_COUNT; i++) {
        row = &stoa_metric_rows[i];

        if (ngx_strncmp(row->name, "stoa_task_", 10) == 0) {
            continue; /* counted by workers */
        }

        ngx_http_stoa_family(b, row->name, row->type, row->help);
        stoa_buf_printf(b, "%s %lu\n", row->name, (unsigned long) sh->cells[i]);
    }

    ngx_http_stoa_family(b, "stoa_limit_evictions_total", "counter",
                         "Active limits that the zone had no room for");
    stoa_buf_printf(b, "stoa_limit_evictions_total %lu\n",
                    (unsigned long) sh->rate_evicted);

    ngx_http_stoa_family(b, "stoa_build_info", "gauge", "Version of the edge");
    stoa_buf_printf(b, "stoa_build_info{version=\"%s\"} 1\n", STOA_VERSION);
}


static void
ngx_http_stoa_print_totals(stoa_buf_t *b, ngx_http_stoa_shared_t *sh)
{
    static const struct {
        const char *name;
        const char *help;
        size_t      offset;
    } rows[] = {
        { "stoa_pg_submitted_total", "Statements given to a pool",
          offsetof(ngx_http_stoa_pool_totals_t, submitted) },
        { "stoa_pg_done_total", "Statements that were answered",
          offsetof(ngx_http_stoa_pool_totals_t, done) },
        { "stoa_pg_failed_total", "Statements that ended with an error",
          offsetof(ngx_http_stoa_pool_totals_t, failed) },
        { "stoa_pg_pool_saturated_total", "Statements that a pool refused",
          offsetof(ngx_http_stoa_pool_totals_t, saturated) },
        { "stoa_pg_reconnects_total", "Connections made again",
          offsetof(ngx_http_stoa_pool_totals_t, reconnects) },
    };

    ngx_atomic_t *cell;
    ngx_uint_t    i, pool;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        ngx_http_stoa_family(b, rows[i].name, "counter", rows[i].help);

        for (pool = STOA_POOL_FAST; pool < STOA_POOL_COUNT; pool++) {
            cell = (ngx_atomic_t *) ((u_char *) &sh->pools[pool]
                                     + rows[i].offset);
            stoa_buf_printf(b, "%s{pool=\"%s\"} %lu\n", rows[i].name,
                            ngx_http_stoa_pools[pool], (unsigned long) *cell);
        }
    }
}


/* A mean is what the sum grew by over what the count grew by. */
static void
ngx_http_stoa_print_times(stoa_buf_t *b, ngx_http_stoa_shared_t *sh)
{
    static const struct {
        const char *name;
        const char *help;
        size_t      offset;
    } rows[] = {
        { "stoa_pg_wait_seconds",
          "Time that statements waited for a connection, by pool",
          offsetof(ngx_http_stoa_pool_totals_t, wait_us) },
        { "stoa_pg_run_seconds",
          "Time from sending a statement to its answer, by pool",
          offsetof(ngx_http_stoa_pool_totals_t, run_us) },
    };

    unsigned long us;
    ngx_uint_t    i, pool;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        ngx_http_stoa_family(b, rows[i].name, "summary", rows[i].help);

        for (pool = STOA_POOL_FAST; pool < STOA_POOL_COUNT; pool++) {
            us = (unsigned long) *(ngx_atomic_t *) ((u_char *) &sh->pools[pool]
                                                    + rows[i].offset);

            stoa_buf_printf(b, "%s_sum{pool=\"%s\"} %lu.%06lu\n", rows[i].name,
                            ngx_http_stoa_pools[pool], us / 1000000,
                            us % 1000000);
            stoa_buf_printf(b, "%s_count{pool=\"%s\"} %lu\n", rows[i].name,
                            ngx_http_stoa_pools[pool],
                            (unsigned long) sh->pools[pool].answered);
        }
    }
}


/* One series per nginx worker; old and new ones of a reload are added. */
static void
ngx_http_stoa_print_gauges(stoa_buf_t *b, ngx_http_stoa_shared_t *sh)
{
    static const struct {
        const char *name;
        const char *help;
        size_t      offset;
    } rows[] = {
        { "stoa_pg_connections", "Connections of a pool",
          offsetof(stoa_pg_stats_t, size) },
        { "stoa_pg_connections_ready", "Connections that are up",
          offsetof(stoa_pg_stats_t, ready) },
        { "stoa_pg_in_flight", "Statements that were sent and not answered",
          offsetof(stoa_pg_stats_t, in_flight) },
        { "stoa_pg_waiting", "Statements that wait for a connection",
          offsetof(stoa_pg_stats_t, waiting) },
    };

    unsigned long sums[NGX_HTTP_STOA_PROCS];
    u_char        seen[NGX_HTTP_STOA_PROCS];
    ngx_uint_t    i, j, pool, slot;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        ngx_http_stoa_family(b, rows[i].name, "gauge", rows[i].help);

        for (pool = STOA_POOL_FAST; pool < STOA_POOL_COUNT; pool++) {
            ngx_memzero(sums, sizeof(sums));
            ngx_memzero(seen, sizeof(seen));

            for (j = 0; j < NGX_HTTP_STOA_PROCS; j++) {
                slot = sh->procs[j].slot;

                if (sh->procs[j].pid != 0 && slot < NGX_HTTP_STOA_PROCS) {
                    seen[slot] = 1;
                    sums[slot] += *(
                        uint32_t *) ((u_char *) &sh->procs[j].pool[pool]
                                     + rows[i].offset);
                }
            }

            for (j = 0; j < NGX_HTTP_STOA_PROCS; j++) {
                if (seen[j]) {
                    stoa_buf_printf(b, "%s{pool=\"%s\",process=\"%u\"} %lu\n",
                                    rows[i].name, ngx_http_stoa_pools[pool],
                                    (unsigned) j, sums[j]);
                }
            }
        }
    }
}


static void
ngx_http_stoa_print_edge(stoa_buf_t *b)
{
    ngx_http_stoa_shared_t *sh = ngx_http_stoa_shared();
    const stoa_api_t       *api = ngx_http_stoa_process.mcf->api;
    ngx_uint_t              i, phase;

    ngx_http_stoa_metric_tick();

    if (sh->nrows != 0) {
        ngx_http_stoa_print_requests(b, sh, api);
        ngx_http_stoa_family(b, "stoa_phase_seconds", "histogram",
                             "Time of requests by route and phase");

        for (i = 0; i <= sh->nrows; i++) {
            for (phase = 0; phase < NGX_HTTP_STOA_PHASE_COUNT; phase++) {
                ngx_http_stoa_print_histogram(b, api, i, phase,
                                              &sh->routes[i].phase[phase]);
            }
        }
    }

    ngx_http_stoa_print_cells(b, sh);
    ngx_http_stoa_print_totals(b, sh);
    ngx_http_stoa_print_times(b, sh);
    ngx_http_stoa_print_gauges(b, sh);
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


static void
ngx_http_stoa_print_family(stoa_buf_t *b, stoa_str_t family)
{
    static const char total[] = "_total";
    const char       *type = "gauge", *help = "Reported by the workers";
    ngx_uint_t        i;

    for (i = 0; i < STOA_M_COUNT; i++) {
        if (stoa_str_eq_z(family, stoa_metric_rows[i].name)) {
            type = stoa_metric_rows[i].type;
            help = stoa_metric_rows[i].help;
            break;
        }
    }

    if (i == STOA_M_COUNT && family.len > sizeof(total) - 1
        && memcmp(family.data + family.len - (sizeof(total) - 1), total,
                  sizeof(total) - 1)
               == 0)
    {
        type = "counter";
    }

    stoa_buf_z(b, "# HELP ");
    stoa_buf_str(b, family);
    stoa_buf_printf(b, " %s.\n# TYPE ", help);
    stoa_buf_str(b, family);
    stoa_buf_printf(b, " %s\n", type);
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
