/*
 * The one-second tick of a process.
 *
 * One process of the instance, the leader (a lease in the zone), reads
 * revocations from PostgreSQL every second, going back 10 s behind its last
 * read, since a transaction may commit late, and sweeps those that have run
 * out.  It also restores and saves the failure throttle, and once compares
 * the pools with what the server holds.  Every process puts its metrics into
 * the zone.
 */

#include "ngx_http_stoa_conf.h"

#define NGX_HTTP_STOA_TICK_MS    1000
#define NGX_HTTP_STOA_START_MS   20 /* ticks until the first read is done */
#define NGX_HTTP_STOA_LEASE_MS   3000
#define NGX_HTTP_STOA_OVERLAP_MS 10000
#define NGX_HTTP_STOA_SWEEP_MS   60000
#define NGX_HTTP_STOA_SYNC_MAX   256 /* throttle entries per statement */

typedef struct {
    stoa_timer_t  timer;
    stoa_pg_op_t *load; /* running statements, or NULL */
    stoa_pg_op_t *sync;
    stoa_pg_op_t *compare;
    ngx_uint_t    compared;
    ngx_pool_t   *values;  /* of the running sync */
    ngx_uint_t    failing; /* bits of what failed last time: said once */
} ngx_http_stoa_tick_t;

typedef enum {
    NGX_HTTP_STOA_TICK_LOAD = 0,
    NGX_HTTP_STOA_TICK_SYNC
} ngx_http_stoa_tick_e;

static const char *const ngx_http_stoa_tick_names[] = {
    [NGX_HTTP_STOA_TICK_LOAD] = "reading revocations",
    [NGX_HTTP_STOA_TICK_SYNC] = "sharing failures",
};

static ngx_http_stoa_tick_t ngx_http_stoa_tick;


static ngx_uint_t
ngx_http_stoa_tick_lead(ngx_http_stoa_shared_t *sh)
{
    ngx_atomic_uint_t holder = sh->leader;
    ngx_msec_int_t    left;

    if (holder != (ngx_atomic_uint_t) ngx_pid) {
        left = (ngx_msec_int_t) (sh->leader_until - ngx_current_msec);

        if (holder != 0 && left > 0 && left <= NGX_HTTP_STOA_LEASE_MS
            && ngx_http_stoa_alive((ngx_pid_t) holder))
        {
            return 0;
        }

        if (!ngx_atomic_cmp_set(&sh->leader, holder,
                                (ngx_atomic_uint_t) ngx_pid)) {
            return 0;
        }
    }

    sh->leader_until = ngx_current_msec + NGX_HTTP_STOA_LEASE_MS;

    return 1;
}


static void
ngx_http_stoa_tick_failed(ngx_http_stoa_shared_t *sh, ngx_http_stoa_tick_e what,
                          const stoa_pg_op_t *op, stoa_err_e err)
{
    const char *state = op != NULL ? stoa_pg_sqlstate(op) : "";

    if (ngx_strcmp(state, "42883") == 0 || ngx_strcmp(state, "3F000") == 0
        || ngx_strcmp(state, "42P01") == 0)
    {
        sh->schema = 2;
    }

    if ((ngx_http_stoa_tick.failing & (1U << what)) == 0) {
        ngx_http_stoa_tick.failing |= 1U << what;
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "stoa: %s failed: %s, sqlstate \"%s\"",
                      ngx_http_stoa_tick_names[what], stoa_err_row(err)->code,
                      state);
    }
}


static void
ngx_http_stoa_tick_worked(ngx_http_stoa_tick_e what)
{
    if (ngx_http_stoa_tick.failing & (1U << what)) {
        ngx_http_stoa_tick.failing &= ~(1U << what);
        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0, "stoa: %s works again",
                      ngx_http_stoa_tick_names[what]);
    }
}


static void
ngx_http_stoa_tick_loaded(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    ngx_http_stoa_shared_t *sh = ngx_http_stoa_shared();
    stoa_pg_result_t       *res;
    int64_t                 now = 0;
    int                     i, n;

    ngx_http_stoa_tick.load = NULL;

    if (err != STOA_OK) {
        ngx_http_stoa_tick_failed(sh, NGX_HTTP_STOA_TICK_LOAD, op, err);
        return;
    }

    res = stoa_pg_take(op);
    if (res == NULL) {
        return;
    }

    n = stoa_pg_rows(res);

    for (i = 0; i < n; i++) {
        if (!stoa_pg_null(res, i, 1)) {
            ngx_http_stoa_revoke_apply(stoa_pg_value(res, i, 1));
        }
    }

    if (n > 0 && stoa_str_int(stoa_pg_value(res, 0, 0), 0, INT64_MAX, &now)) {
        sh->revoke_since = now;
        sh->schema = 1;

        ngx_memory_barrier();

        if (!sh->revoke_loaded) {
            sh->revoke_loaded = 1;
            ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                          "stoa: revocations are loaded, %uA live",
                          sh->cells[STOA_M_revocations]);
        }
    }

    stoa_pg_result_free(res);

    ngx_http_stoa_tick_worked(NGX_HTTP_STOA_TICK_LOAD);
}


static void
ngx_http_stoa_tick_load(ngx_http_stoa_shared_t *sh)
{
    static u_char              text[2][NGX_INT64_LEN + 1];
    ngx_http_stoa_main_conf_t *mcf = ngx_http_stoa_process.mcf;
    stoa_pg_pool_t            *pool;
    stoa_err_e                 err;
    const char *values[2] = { (const char *) text[0], (const char *) text[1] };
    int         lens[2];
    int64_t     since;

    pool = ngx_http_stoa_process.pool[STOA_POOL_FAST];

    if (ngx_http_stoa_tick.load != NULL || !stoa_pg_pool_ready(pool)) {
        return;
    }

    since = ngx_max(sh->revoke_since - NGX_HTTP_STOA_OVERLAP_MS, 0);
    lens[0] = (int) (ngx_sprintf(text[0], "%L%Z", since) - text[0]) - 1;
    lens[1] = (int) (ngx_sprintf(text[1], "%L%Z",
                                 (int64_t) mcf->conf.access_ttl)
                     - text[1])
            - 1;

    ngx_http_stoa_tick.load = stoa_pg_submit(pool,
                                             &mcf->stmts[STOA_STMT_REVOCATIONS],
                                             values, lens, 0,
                                             ngx_http_stoa_tick_loaded, NULL,
                                             &err);

    if (ngx_http_stoa_tick.load == NULL) {
        ngx_http_stoa_tick_failed(sh, NGX_HTTP_STOA_TICK_LOAD, NULL, err);
    }
}


static void
ngx_http_stoa_tick_synced(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    ngx_http_stoa_shared_t *sh = ngx_http_stoa_shared();
    stoa_pg_result_t       *res;
    int64_t                 now, fails, at;
    int                     i, n;

    ngx_http_stoa_tick.sync = NULL;
    ngx_destroy_pool(ngx_http_stoa_tick.values);
    ngx_http_stoa_tick.values = NULL;

    res = err == STOA_OK ? stoa_pg_take(op) : NULL;

    ngx_http_stoa_throttle_told(res != NULL);

    if (res == NULL) {
        if (err != STOA_OK) {
            ngx_http_stoa_tick_failed(sh, NGX_HTTP_STOA_TICK_SYNC, op, err);
        }

        return;
    }

    n = stoa_pg_rows(res);

    for (i = 0; i < n; i++) {
        if (stoa_str_int(stoa_pg_value(res, i, 2), 0, INT32_MAX, &fails)
            && stoa_str_int(stoa_pg_value(res, i, 3), 0, INT64_MAX, &at))
        {
            ngx_http_stoa_throttle_merge(stoa_pg_value(res, i, 1),
                                         (uint32_t) fails, at);
        }
    }

    if (n > 0 && stoa_str_int(stoa_pg_value(res, 0, 0), 0, INT64_MAX, &now)) {
        sh->throttle_since = now;
        sh->throttle_loaded = 1;
    }

    stoa_pg_result_free(res);
    ngx_http_stoa_tick_worked(NGX_HTTP_STOA_TICK_SYNC);
}


/* The parameters of api.throttle_sync(), in memory of pool. */
static ngx_uint_t
ngx_http_stoa_tick_failures(ngx_http_stoa_shared_t *sh, ngx_pool_t *pool,
                            const char *values[5], int lens[5])
{
    ngx_http_stoa_failures_t *list;
    stoa_buf_t                bufs[5];
    stoa_mem_t                mem;
    ngx_uint_t                i, n, told;

    list = ngx_palloc(pool, NGX_HTTP_STOA_SYNC_MAX
                                * sizeof(ngx_http_stoa_failures_t));
    if (list == NULL) {
        return 0;
    }

    ngx_http_stoa_mem_init(&mem, pool);
    told = ngx_http_stoa_throttle_tell(list, NGX_HTTP_STOA_SYNC_MAX);

    for (n = 0; n < 5; n++) {
        stoa_buf_init(&bufs[n], &mem, 256, 64 * 1024);
        stoa_buf_z(&bufs[n], n < 4 ? "{" : "");
    }

    for (i = 0; i < told; i++) {
        for (n = 0; n < 4; n++) {
            stoa_buf_z(&bufs[n], i > 0 ? "," : "");
        }

        stoa_buf_put(&bufs[0], list[i].key, sizeof(list[i].key));
        stoa_buf_int(&bufs[1], list[i].added);
        stoa_buf_char(&bufs[2], list[i].anew ? 't' : 'f');
        stoa_buf_int(&bufs[3], list[i].at_ms);
    }

    stoa_buf_int(&bufs[4],
                 ngx_max(sh->throttle_since - NGX_HTTP_STOA_OVERLAP_MS, 0));

    for (n = 0; n < 5; n++) {
        stoa_buf_z(&bufs[n], n < 4 ? "}" : "");
        stoa_buf_nul(&bufs[n]);

        if (bufs[n].failed) {
            return 0;
        }

        values[n] = (const char *) bufs[n].data;
        lens[n] = (int) bufs[n].len;
    }

    return 1;
}


static void
ngx_http_stoa_tick_sync(ngx_http_stoa_shared_t *sh)
{
    ngx_http_stoa_main_conf_t *mcf = ngx_http_stoa_process.mcf;
    stoa_pg_pool_t            *pg;
    ngx_pool_t                *pool;
    stoa_err_e                 err = STOA_E_NO_MEMORY;
    const char                *values[5];
    int                        lens[5];

    pg = ngx_http_stoa_process.pool[STOA_POOL_WRITE];

    if (ngx_http_stoa_tick.sync != NULL || !stoa_pg_pool_ready(pg)) {
        return;
    }

    pool = ngx_create_pool(4096, ngx_cycle->log);
    if (pool == NULL) {
        return;
    }

    /* of a leader that died meanwhile */
    ngx_http_stoa_throttle_told(0);

    if (ngx_http_stoa_tick_failures(sh, pool, values, lens)) {
        ngx_http_stoa_tick
            .sync = stoa_pg_submit(pg, &mcf->stmts[STOA_STMT_THROTTLE_SYNC],
                                   values, lens, 0, ngx_http_stoa_tick_synced,
                                   NULL, &err);
    }

    if (ngx_http_stoa_tick.sync == NULL) {
        ngx_destroy_pool(pool);
        ngx_http_stoa_throttle_told(0);
        ngx_http_stoa_tick_failed(sh, NGX_HTTP_STOA_TICK_SYNC, NULL, err);
        return;
    }

    ngx_http_stoa_tick.values = pool;
}


/* The server's answer about its connections; nothing depends on it. */
static void
ngx_http_stoa_tick_compared(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    stoa_pg_result_t *res;
    int64_t           max, reserved;

    ngx_http_stoa_tick.compare = NULL;

    if (err != STOA_OK) {
        return;
    }

    res = stoa_pg_take(op);
    if (res == NULL) {
        return;
    }

    if (stoa_pg_rows(res) == 1
        && stoa_str_int(stoa_pg_value(res, 0, 0), 0, INT32_MAX, &max)
        && stoa_str_int(stoa_pg_value(res, 0, 1), 0, INT32_MAX, &reserved))
    {
        ngx_http_stoa_setup_compare(ngx_http_stoa_process.cycle,
                                    ngx_http_stoa_process.mcf, (ngx_uint_t) max,
                                    (ngx_uint_t) reserved);
    }

    stoa_pg_result_free(res);
}


static void
ngx_http_stoa_tick_leader(ngx_http_stoa_shared_t *sh)
{
    ngx_http_stoa_main_conf_t *mcf = ngx_http_stoa_process.mcf;
    stoa_pg_pool_t            *pool;
    stoa_err_e                 err;

    ngx_http_stoa_tick_load(sh);

    if (!sh->revoke_loaded) {
        return;
    }

    pool = ngx_http_stoa_process.pool[STOA_POOL_FAST];

    if (!ngx_http_stoa_tick.compared && stoa_pg_pool_ready(pool)) {
        ngx_http_stoa_tick.compared = 1;
        ngx_http_stoa_tick
            .compare = stoa_pg_submit(pool, &mcf->stmts[STOA_STMT_CONNECTIONS],
                                      NULL, NULL, 0,
                                      ngx_http_stoa_tick_compared, NULL, &err);
    }

    ngx_http_stoa_tick_sync(sh);

    if (stoa_time_ms() - sh->swept_ms > NGX_HTTP_STOA_SWEEP_MS) {
        ngx_http_stoa_revoke_sweep(sh);
    }
}


static void
ngx_http_stoa_tick_release(ngx_http_stoa_shared_t *sh)
{
    (void) ngx_atomic_cmp_set(&sh->leader, (ngx_atomic_uint_t) ngx_pid, 0);
}


static void
ngx_http_stoa_tick_fire(stoa_timer_t *t)
{
    ngx_http_stoa_shared_t *sh = ngx_http_stoa_shared();
    stoa_loop_t            *loop = ngx_http_stoa_process.loop;
    ngx_uint_t              starting;

    ngx_http_stoa_metric_tick();
    ngx_http_stoa_issuer_tick(ngx_exiting || ngx_quit || ngx_terminate);
    ngx_http_stoa_key_tick();
    ngx_http_stoa_hash_mem_tick();

    if (ngx_exiting || ngx_quit || ngx_terminate) {
        /* the new processes take over at once */
        ngx_http_stoa_tick_release(sh);
        loop->timer_set(loop, t, NGX_HTTP_STOA_TICK_MS);
        return;
    }

    if (ngx_http_stoa_tick_lead(sh)) {
        ngx_http_stoa_tick_leader(sh);
    }

    starting = !sh->revoke_loaded && !ngx_http_stoa_tick.failing;

    loop->timer_set(loop, t,
                    starting ? NGX_HTTP_STOA_START_MS : NGX_HTTP_STOA_TICK_MS);
}


ngx_int_t
ngx_http_stoa_tick_init_process(ngx_cycle_t *cycle)
{
    stoa_loop_t *loop = ngx_http_stoa_process.loop;

    ngx_memzero(&ngx_http_stoa_tick, sizeof(ngx_http_stoa_tick));

    ngx_http_stoa_tick.timer.fire = ngx_http_stoa_tick_fire;
    ngx_http_stoa_tick.timer.cancelable = true;

    loop->timer_set(loop, &ngx_http_stoa_tick.timer, 1);

    return NGX_OK;
}


void
ngx_http_stoa_tick_exit_process(ngx_cycle_t *cycle)
{
    stoa_loop_t  *loop = ngx_http_stoa_process.loop;
    stoa_pg_op_t *ops[3];
    ngx_uint_t    i;

    loop->timer_close(loop, &ngx_http_stoa_tick.timer);

    ops[0] = ngx_http_stoa_tick.load;
    ops[1] = ngx_http_stoa_tick.sync;
    ops[2] = ngx_http_stoa_tick.compare;

    for (i = 0; i < 3; i++) {
        if (ops[i] != NULL) {
            stoa_pg_cancel(ops[i]);
        }
    }

    if (ngx_http_stoa_tick.values != NULL) {
        ngx_destroy_pool(ngx_http_stoa_tick.values);
    }

    ngx_http_stoa_tick_release(ngx_http_stoa_shared());
    ngx_memzero(&ngx_http_stoa_tick, sizeof(ngx_http_stoa_tick));
}
