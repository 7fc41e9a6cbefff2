/*
 * The edge's metrics as Prometheus text, from the shared zone: requests and
 * phases by route, the cells of stoa_metric.def, the pools.  Series are
 * bounded by the rows: a route shows up when it was used, labels never carry
 * input.
 */

#include "ngx_http_stoa_limit.h"

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


static void
ngx_http_stoa_row(stoa_buf_t *b, const stoa_metric_row_t *row)
{
    stoa_buf_printf(b, "# HELP %s %s.\n# TYPE %s %s\n", row->name, row->help,
                    row->name, row->type);
}


static const char *
ngx_http_stoa_family(stoa_buf_t *b, stoa_family_e family)
{
    ngx_http_stoa_row(b, &stoa_family_rows[family]);

    return stoa_family_rows[family].name;
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
    const char       *name;

    name = ngx_http_stoa_family(b, STOA_MF_REQUESTS);

    for (i = 0; i <= sh->nrows; i++) {
        for (cls = 1; cls <= 5; cls++) {
            n = sh->routes[i].status[cls];

            if (n == 0) {
                continue;
            }

            stoa_buf_z(b, name);
            ngx_http_stoa_route_label(b, api, i);
            stoa_buf_printf(b, ",status=\"%uxx\"} %lu\n", (unsigned) cls,
                            (unsigned long) n);
        }
    }
}


/* One series; labels is "" or what stands between the braces. */
static void
ngx_http_stoa_print_series(stoa_buf_t *b, const char *name, const char *labels,
                           const ngx_http_stoa_histogram_t *h)
{
    unsigned long cells[NGX_HTTP_STOA_BUCKETS], sum_us, n = 0;
    const char   *comma = labels[0] != '\0' ? "," : "";
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

        stoa_buf_printf(b, "%s_bucket{%s%sle=", name, labels, comma);

        if (i == NGX_HTTP_STOA_BUCKETS - 1) {
            stoa_buf_printf(b, "\"+Inf\"} %lu\n", n);

        } else {
            stoa_buf_printf(b, "\"%g\"} %lu\n",
                            ngx_http_stoa_bounds_us[i] / 1e6, n);
        }
    }

    stoa_buf_printf(b, "%s_sum{%s} %lu.%06lu\n", name, labels, sum_us / 1000000,
                    sum_us % 1000000);
    stoa_buf_printf(b, "%s_count{%s} %lu\n", name, labels, n);
}


static void
ngx_http_stoa_print_phase(stoa_buf_t *b, const stoa_api_t *api, ngx_uint_t row,
                          ngx_uint_t phase, const ngx_http_stoa_histogram_t *h)
{
    char labels[256];

    if (row == api->nrows) {
        snprintf(labels, sizeof(labels),
                 "route=\"none\",method=\"\",phase=\"%s\"",
                 ngx_http_stoa_phases[phase]);

    } else {
        snprintf(labels, sizeof(labels),
                 "route=\"%s\",method=\"%s\",phase=\"%s\"", api->rows[row]->id,
                 stoa_method_name(api->rows[row]->method),
                 ngx_http_stoa_phases[phase]);
    }

    ngx_http_stoa_print_series(b, stoa_family_rows[STOA_MF_PHASE].name, labels,
                               h);
}


static void
ngx_http_stoa_print_hashes(stoa_buf_t *b, ngx_http_stoa_shared_t *sh)
{
    static const char *const kinds[STOA_HASH_KINDS] = {
        [STOA_HASH_UNKNOWN] = "none",
        [STOA_HASH_ARGON2ID] = "argon2id",
        [STOA_HASH_BCRYPT] = "bcrypt",
    };
    static const char *const outcomes[NGX_HTTP_STOA_HASH_OUTCOMES] = {
        [NGX_HTTP_STOA_HASH_MADE] = "made",
        [NGX_HTTP_STOA_HASH_MATCHED] = "matched",
        [NGX_HTTP_STOA_HASH_REHASHED] = "rehashed",
        [NGX_HTTP_STOA_HASH_MISMATCHED] = "mismatched",
        [NGX_HTTP_STOA_HASH_FAILED] = "failed",
    };

    char        labels[64];
    ngx_uint_t  k, o;
    const char *name;

    name = ngx_http_stoa_family(b, STOA_MF_HASH_WAIT);
    ngx_http_stoa_print_series(b, name, "", &sh->hash_wait);

    name = ngx_http_stoa_family(b, STOA_MF_HASH);

    for (k = 0; k < STOA_HASH_KINDS; k++) {
        for (o = 0; o < NGX_HTTP_STOA_HASH_OUTCOMES; o++) {
            snprintf(labels, sizeof(labels), "algorithm=\"%s\",outcome=\"%s\"",
                     kinds[k], outcomes[o]);
            ngx_http_stoa_print_series(b, name, labels, &sh->hash_run[k][o]);
        }
    }
}


static void
ngx_http_stoa_print_cells(stoa_buf_t *b, ngx_http_stoa_shared_t *sh)
{
    const stoa_metric_row_t *row;
    const char              *name;
    ngx_uint_t               i;

    for (i = 0; i < STOA_M_COUNT; i++) {
        row = &stoa_metric_rows[i];

        if (ngx_strncmp(row->name, "stoa_task_", 10) == 0) {
            continue; /* counted by workers */
        }

        ngx_http_stoa_row(b, row);
        stoa_buf_printf(b, "%s %lu\n", row->name, (unsigned long) sh->cells[i]);
    }

    name = ngx_http_stoa_family(b, STOA_MF_LIMIT_EVICTIONS);
    stoa_buf_printf(b, "%s %lu\n", name, (unsigned long) sh->rate_evicted);

    name = ngx_http_stoa_family(b, STOA_MF_BUILD_INFO);
    stoa_buf_printf(b, "%s{version=\"%s\"} 1\n", name, STOA_VERSION);
}


static void
ngx_http_stoa_print_limit(void *data, ngx_http_stoa_limit_t *limit)
{
    const ngx_http_stoa_limit_cell_t *cell;
    stoa_buf_t                       *b = data;
    ngx_uint_t                        i;

    static const char *const verdicts[] = { "passed", "refused",
                                            "would_refuse" };

    cell = &ngx_http_stoa_shared()->limits[limit->cell];

    const ngx_atomic_t *const counts[] = { &cell->passed, &cell->refused,
                                           &cell->would };

    for (i = 0; i < 3; i++) {
        stoa_buf_printf(b, "%s{limit=\"%s\",key=\"%s\",verdict=\"%s\"} %lu\n",
                        stoa_family_rows[STOA_MF_LIMIT_VERDICTS].name,
                        (const char *) cell->name, (const char *) cell->key,
                        verdicts[i], (unsigned long) *counts[i]);
    }
}


static void
ngx_http_stoa_print_totals(stoa_buf_t *b, ngx_http_stoa_shared_t *sh)
{
    static const struct {
        stoa_family_e family;
        size_t        offset;
    } rows[] = {
        { STOA_MF_PG_SUBMITTED,
          offsetof(ngx_http_stoa_pool_totals_t, submitted) },
        { STOA_MF_PG_DONE, offsetof(ngx_http_stoa_pool_totals_t, done) },
        { STOA_MF_PG_FAILED, offsetof(ngx_http_stoa_pool_totals_t, failed) },
        { STOA_MF_PG_POOL_SATURATED,
          offsetof(ngx_http_stoa_pool_totals_t, saturated) },
        { STOA_MF_PG_RECONNECTS,
          offsetof(ngx_http_stoa_pool_totals_t, reconnects) },
    };

    ngx_atomic_t *cell;
    const char   *name;
    ngx_uint_t    i, pool;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        name = ngx_http_stoa_family(b, rows[i].family);

        for (pool = STOA_POOL_FAST; pool < STOA_POOL_COUNT; pool++) {
            cell = (ngx_atomic_t *) ((u_char *) &sh->pools[pool]
                                     + rows[i].offset);
            stoa_buf_printf(b, "%s{pool=\"%s\"} %lu\n", name,
                            ngx_http_stoa_pools[pool], (unsigned long) *cell);
        }
    }
}


/* A mean is what the sum grew by over what the count grew by. */
static void
ngx_http_stoa_print_times(stoa_buf_t *b, ngx_http_stoa_shared_t *sh)
{
    static const struct {
        stoa_family_e family;
        size_t        offset;
    } rows[] = {
        { STOA_MF_PG_WAIT, offsetof(ngx_http_stoa_pool_totals_t, wait_us) },
        { STOA_MF_PG_RUN, offsetof(ngx_http_stoa_pool_totals_t, run_us) },
    };

    unsigned long us;
    const char   *name;
    ngx_uint_t    i, pool;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        name = ngx_http_stoa_family(b, rows[i].family);

        for (pool = STOA_POOL_FAST; pool < STOA_POOL_COUNT; pool++) {
            us = (unsigned long) *(ngx_atomic_t *) ((u_char *) &sh->pools[pool]
                                                    + rows[i].offset);

            stoa_buf_printf(b, "%s_sum{pool=\"%s\"} %lu.%06lu\n", name,
                            ngx_http_stoa_pools[pool], us / 1000000,
                            us % 1000000);
            stoa_buf_printf(b, "%s_count{pool=\"%s\"} %lu\n", name,
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
        stoa_family_e family;
        size_t        offset;
    } rows[] = {
        { STOA_MF_PG_CONNECTIONS, offsetof(stoa_pg_stats_t, size) },
        { STOA_MF_PG_READY, offsetof(stoa_pg_stats_t, ready) },
        { STOA_MF_PG_IN_FLIGHT, offsetof(stoa_pg_stats_t, in_flight) },
        { STOA_MF_PG_WAITING, offsetof(stoa_pg_stats_t, waiting) },
    };

    const char   *name;
    unsigned long sums[NGX_HTTP_STOA_PROCS];
    u_char        seen[NGX_HTTP_STOA_PROCS];
    ngx_uint_t    i, j, pool, slot;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        name = ngx_http_stoa_family(b, rows[i].family);

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
                                    name, ngx_http_stoa_pools[pool],
                                    (unsigned) j, sums[j]);
                }
            }
        }
    }
}


/* A label's text (Prometheus text format): addresses have no line breaks. */
static void
ngx_http_stoa_print_label(stoa_buf_t *b, const char *text)
{
    for (/* void */; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\') {
            stoa_buf_char(b, '\\');
        }

        stoa_buf_char(b, *text);
    }
}


static void
ngx_http_stoa_print_issuers(stoa_buf_t *b)
{
    static const stoa_family_e rows[] = {
        STOA_MF_ISSUER_AGE,
        STOA_MF_ISSUER_FETCHES,
        STOA_MF_ISSUER_ERRORS,
    };

    const stoa_oidc_conf_t      *oidc = ngx_http_stoa_process.mcf->oidc;
    ngx_http_stoa_issuer_cell_t *cell;
    const char                  *name;
    ngx_uint_t                   i, k;
    int64_t                      value;

    for (k = 0; oidc->nissuers != 0 && k < 3; k++) {
        name = ngx_http_stoa_family(b, rows[k]);

        for (i = 0; i < oidc->nissuers; i++) {
            cell = ngx_http_stoa_issuer_cell(oidc->issuers[i].issuer);

            if (cell == NULL || (k == 0 && cell->fetched_ms == 0)) {
                continue;
            }

            value = k == 0
                      ? (stoa_time_ms() - (int64_t) cell->fetched_ms) / 1000
                  : k == 1 ? (int64_t) cell->fetches
                           : (int64_t) cell->errors;

            stoa_buf_printf(b, "%s{issuer=\"", name);
            ngx_http_stoa_print_label(b, oidc->issuers[i].issuer);
            stoa_buf_printf(b, "\"} %lld\n", (long long) ngx_max(value, 0));
        }
    }
}


void
ngx_http_stoa_print_edge(stoa_buf_t *b)
{
    ngx_http_stoa_shared_t *sh = ngx_http_stoa_shared();
    const stoa_api_t       *api = ngx_http_stoa_process.mcf->api;
    ngx_uint_t              i, phase;

    ngx_http_stoa_metric_tick();
    ngx_http_stoa_issuer_tick(0);

    if (sh->nrows != 0) {
        ngx_http_stoa_print_requests(b, sh, api);
        (void) ngx_http_stoa_family(b, STOA_MF_PHASE);

        for (i = 0; i <= sh->nrows; i++) {
            for (phase = 0; phase < NGX_HTTP_STOA_PHASE_COUNT; phase++) {
                ngx_http_stoa_print_phase(b, api, i, phase,
                                          &sh->routes[i].phase[phase]);
            }
        }
    }

    ngx_http_stoa_print_cells(b, sh);
    (void) ngx_http_stoa_family(b, STOA_MF_LIMIT_VERDICTS);
    ngx_http_stoa_limit_each(ngx_http_stoa_process.mcf, b,
                             ngx_http_stoa_print_limit);
    ngx_http_stoa_print_hashes(b, sh);
    ngx_http_stoa_print_totals(b, sh);
    ngx_http_stoa_print_times(b, sh);
    ngx_http_stoa_print_gauges(b, sh);
    ngx_http_stoa_print_issuers(b);
}
