/*
 * Counting: per-route counters and phase histograms at the LOG phase, the
 * cells of stoa_metric.def, and the pools' gauges of each process.
 *
 * All of it lies in the shared zone and is only ever added to, so it goes
 * through a reload, the death of a worker and several workers without going
 * backwards.  What a pool counts for itself is added as the difference since
 * the last tick.  A gauge of a process that died is taken away with its place.
 */

#include "ngx_http_stoa_zone.h"

#include <time.h>

/* Upper bounds in microseconds; ngx_http_stoa_print.c prints them. */
const uint32_t ngx_http_stoa_bounds_us[NGX_HTTP_STOA_BUCKETS - 1] = {
    100,   250,    500,    1000,   2500,    5000,    10000,   25000,
    50000, 100000, 250000, 500000, 1000000, 2500000, 5000000,
};

static ngx_http_stoa_proc_t *ngx_http_stoa_proc; /* of this process */
static stoa_pg_stats_t       ngx_http_stoa_last[STOA_POOL_COUNT];


uint64_t
ngx_http_stoa_mono_us(void)
{
    struct timespec ts;

    if (clock_gettime(CLOCK_MONOTONIC, &ts) != 0) {
        return 0;
    }

    return (uint64_t) ts.tv_sec * 1000000 + (uint64_t) ts.tv_nsec / 1000;
}


void
ngx_http_stoa_metric_add(stoa_metric_e m, ngx_int_t n)
{
    ngx_http_stoa_shared_t *sh = ngx_http_stoa_shared();

    if (sh != NULL) {
        (void) ngx_atomic_fetch_add(&sh->cells[m], n);
    }
}


void
ngx_http_stoa_metric_observe(ngx_http_stoa_histogram_t *h, uint64_t us)
{
    ngx_uint_t i = 0;

    while (i < NGX_HTTP_STOA_BUCKETS - 1 && us > ngx_http_stoa_bounds_us[i]) {
        i++;
    }

    (void) ngx_atomic_fetch_add(&h->bucket[i], 1);
    (void) ngx_atomic_fetch_add(&h->sum_us, (ngx_atomic_int_t) us);
}


/* LOG phase: once per request that the gates have seen. */
ngx_int_t
ngx_http_stoa_metric_log(ngx_http_request_t *r)
{
    ngx_http_stoa_route_metrics_t *m;
    ngx_http_stoa_shared_t        *sh;
    ngx_http_stoa_gate_t          *gate;
    ngx_http_stoa_ctx_t           *q;
    ngx_uint_t                     cls, status;

    gate = ngx_http_stoa_gate(r, 0);
    sh = ngx_http_stoa_shared();

    if (gate == NULL || sh == NULL || gate->logged || sh->nrows == 0) {
        return NGX_OK;
    }

    if (gate->ep == NULL && !ngx_http_stoa_lcf(r)->api) {
        return NGX_OK;
    }

    gate->logged = 1;

    status = r->err_status != 0 ? r->err_status : r->headers_out.status;
    cls = status / 100;

    if (cls < 1 || cls > 5) {
        cls = 5; /* nothing was sent, e.g. the client left: as nginx's 499 */
        if (status == 0) {
            cls = 4;
        }
    }

    m = &sh->routes[gate->ep != NULL ? gate->row : sh->nrows];

    (void) ngx_atomic_fetch_add(&m->status[cls], 1);

    ngx_http_stoa_metric_observe(&m->phase[NGX_HTTP_STOA_PHASE_TOTAL],
                                 ngx_http_stoa_mono_us() - gate->start_us);

    if (gate->has_token && gate->checked) {
        ngx_http_stoa_metric_observe(&m->phase[NGX_HTTP_STOA_PHASE_AUTH],
                                     gate->auth_us);
    }

    q = ngx_http_get_module_ctx(r, ngx_http_stoa_module);

    if (q != NULL && q->db_queries != 0) {
        ngx_http_stoa_metric_observe(&m->phase[NGX_HTTP_STOA_PHASE_DB_WAIT],
                                     q->db_wait_us);
        ngx_http_stoa_metric_observe(&m->phase[NGX_HTTP_STOA_PHASE_DB_RUN],
                                     q->db_run_us);
    }

    return NGX_OK;
}


/* ---- this process among the others ---- */

static void
ngx_http_stoa_metric_pool(ngx_http_stoa_shared_t *sh, ngx_uint_t i,
                          const stoa_pg_stats_t *st)
{
    ngx_http_stoa_pool_totals_t *t = &sh->pools[i];
    stoa_pg_stats_t             *last = &ngx_http_stoa_last[i];

#define ngx_http_stoa_metric_diff(field)                                       \
    (void) ngx_atomic_fetch_add(&t->field,                                     \
                                (ngx_atomic_int_t) (st->field - last->field))

    ngx_http_stoa_metric_diff(submitted);
    ngx_http_stoa_metric_diff(done);
    ngx_http_stoa_metric_diff(failed);
    ngx_http_stoa_metric_diff(saturated);
    ngx_http_stoa_metric_diff(reconnects);
    ngx_http_stoa_metric_diff(answered);
    ngx_http_stoa_metric_diff(wait_us);
    ngx_http_stoa_metric_diff(run_us);

#undef ngx_http_stoa_metric_diff

    *last = *st;
}


void
ngx_http_stoa_metric_tick(void)
{
    ngx_http_stoa_shared_t *sh = ngx_http_stoa_shared();
    stoa_pg_stats_t         st;
    ngx_uint_t              i;

    if (sh == NULL) {
        return;
    }

    for (i = STOA_POOL_FAST; i < STOA_POOL_COUNT; i++) {
        if (ngx_http_stoa_process.pool[i] == NULL) {
            continue;
        }

        stoa_pg_pool_stats(ngx_http_stoa_process.pool[i], &st);
        ngx_http_stoa_metric_pool(sh, i, &st);

        if (ngx_http_stoa_proc != NULL) {
            ngx_http_stoa_proc->pool[i] = st;
        }
    }
}


void
ngx_http_stoa_metric_open(ngx_uint_t slot)
{
    ngx_http_stoa_shared_t *sh = ngx_http_stoa_shared();
    ngx_http_stoa_proc_t   *p;
    ngx_atomic_uint_t       pid;
    ngx_uint_t              i;

    ngx_memzero(ngx_http_stoa_last, sizeof(ngx_http_stoa_last));
    ngx_http_stoa_proc = NULL;

    for (i = 0; i < NGX_HTTP_STOA_PROCS; i++) {
        p = &sh->procs[i];
        pid = p->pid;

        if (pid == 0 && ngx_http_stoa_proc != NULL) {
            continue;
        }

        if (pid != 0 && ngx_http_stoa_alive((ngx_pid_t) pid)) {
            continue;
        }

        if (ngx_atomic_cmp_set(&p->pid, pid, (ngx_atomic_uint_t) ngx_pid)) {
            ngx_memzero(p->pool, sizeof(p->pool));
            p->slot = slot;

            if (ngx_http_stoa_proc == NULL) {
                ngx_http_stoa_proc = p;
                continue; /* clear the places of the dead too */
            }

            p->pid = 0;
        }
    }
}


void
ngx_http_stoa_metric_close(void)
{
    ngx_http_stoa_metric_tick();

    if (ngx_http_stoa_proc != NULL) {
        ngx_memzero(ngx_http_stoa_proc->pool, sizeof(ngx_http_stoa_proc->pool));
        ngx_http_stoa_proc->pid = 0;
        ngx_http_stoa_proc = NULL;
    }
}
