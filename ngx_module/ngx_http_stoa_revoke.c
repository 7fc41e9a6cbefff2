/*
 * Revocations: which sessions have ended and from which epoch on a user's
 * tokens count, in the shared zone; and the one-second tick of a process.
 *
 * Readers, once per request, take no lock: a slot's kind is written last,
 * and cleaning copies the live entries into the other of two tables and then
 * turns the index over, so that a reader always walks a table at rest.
 * Nothing that is live is ever dropped: when a table would overflow, every
 * token issued until now is refused instead (not_before), and the log says
 * so at crit.
 *
 * One process of the instance, the leader (a lease in the zone), reads
 * PostgreSQL every second, going back 10 s behind its last read, since a
 * transaction may commit late; the Redis channel only makes it faster.  Until
 * the first read is done, whoever brings a token is told STARTING.  The
 * leader also saves the failure throttle.
 */

#include "ngx_http_stoa_zone.h"

#define NGX_HTTP_STOA_TICK_MS    1000
#define NGX_HTTP_STOA_START_MS   20 /* ticks until the first read is done */
#define NGX_HTTP_STOA_LEASE_MS   3000
#define NGX_HTTP_STOA_OVERLAP_MS 10000
#define NGX_HTTP_STOA_SWEEP_MS   60000
#define NGX_HTTP_STOA_SAVE_MAX   256 /* throttle entries per statement */

/* The longest life of an access token that settings allow, and leeway. */
#define NGX_HTTP_STOA_TOKEN_MS ((int64_t) (86400 + 300) * 1000)

typedef struct {
    stoa_timer_t  timer;
    stoa_pg_op_t *load; /* running statements, or NULL */
    stoa_pg_op_t *restore;
    stoa_pg_op_t *save;
    ngx_pool_t   *values;  /* of the running save */
    ngx_uint_t    failing; /* bits of what failed last time: said once */
} ngx_http_stoa_tick_t;

typedef enum {
    NGX_HTTP_STOA_TICK_LOAD = 0,
    NGX_HTTP_STOA_TICK_RESTORE,
    NGX_HTTP_STOA_TICK_SAVE
} ngx_http_stoa_tick_e;

typedef struct {
    ngx_pool_t *pool;
    stoa_buf_t  keys, fails, until;
} ngx_http_stoa_saving_t;

static const char *const ngx_http_stoa_tick_names[] = {
    [NGX_HTTP_STOA_TICK_LOAD] = "reading revocations",
    [NGX_HTTP_STOA_TICK_RESTORE] = "reading failures",
    [NGX_HTTP_STOA_TICK_SAVE] = "saving failures",
};

static ngx_http_stoa_tick_t ngx_http_stoa_tick;


/* ---- the table ---- */

static ngx_inline ngx_uint_t
ngx_http_stoa_revoke_hash(const stoa_uuid_t *key)
{
    uint64_t n;

    /* the random half of a UUIDv7 */
    ngx_memcpy(&n, &key->b[8], 8);

    return (ngx_uint_t) ((n * UINT64_C(0x9e3779b97f4a7c15)) >> 20);
}


static ngx_http_stoa_revoke_slot_t *
ngx_http_stoa_revoke_find(const ngx_http_stoa_revoke_table_t *t,
                          const stoa_uuid_t *key, ngx_atomic_uint_t kind)
{
    ngx_http_stoa_revoke_slot_t *s;
    ngx_uint_t                   i, n;

    i = ngx_http_stoa_revoke_hash(key);

    for (n = 0; n <= t->mask; n++, i++) {
        s = &t->slots[i & t->mask];

        if (s->kind == NGX_HTTP_STOA_REVOKE_FREE) {
            return NULL;
        }

        ngx_memory_barrier();

        if (s->kind == kind && ngx_memcmp(s->key.b, key->b, 16) == 0) {
            return s;
        }
    }

    return NULL;
}


/* Called under the lock, or on a table that nobody reads yet. */
static void
ngx_http_stoa_revoke_insert(ngx_http_stoa_revoke_table_t *t,
                            const stoa_uuid_t *key, ngx_atomic_uint_t kind,
                            ngx_atomic_uint_t value, ngx_atomic_uint_t until_ms)
{
    ngx_http_stoa_revoke_slot_t *s;
    ngx_uint_t                   i;

    s = ngx_http_stoa_revoke_find(t, key, kind);

    if (s != NULL) {
        s->value = ngx_max(s->value, value);
        s->until_ms = ngx_max(s->until_ms, until_ms);
        return;
    }

    /* at most three quarters are full: there is a free one */
    for (i = ngx_http_stoa_revoke_hash(key);
         t->slots[i & t->mask].kind != NGX_HTTP_STOA_REVOKE_FREE; i++)
    {
        /* void */
    }

    s = &t->slots[i & t->mask];
    s->key = *key;
    s->value = value;
    s->until_ms = until_ms;

    ngx_memory_barrier();

    s->kind = kind;
    t->count++;
}


/* Copies what is live into the other table and makes that the active one;
   all: copies nothing, not_before stands for everything. */
static void
ngx_http_stoa_revoke_turn(ngx_http_stoa_shared_t *sh, ngx_uint_t none)
{
    ngx_http_stoa_revoke_table_t *from, *to;
    ngx_http_stoa_revoke_slot_t  *s;
    ngx_atomic_uint_t             now;
    ngx_uint_t                    i;

    from = &sh->tables[sh->revoke_active];
    to = &sh->tables[!sh->revoke_active];
    now = (ngx_atomic_uint_t) stoa_time_ms();

    ngx_memzero(to->slots, (to->mask + 1) * sizeof(*s));
    to->count = 0;

    for (i = 0; !none && i <= from->mask; i++) {
        s = &from->slots[i];

        if (s->kind != NGX_HTTP_STOA_REVOKE_FREE && s->until_ms > now) {
            ngx_http_stoa_revoke_insert(to, &s->key, s->kind, s->value,
                                        s->until_ms);
        }
    }

    ngx_memory_barrier();

    sh->revoke_active = !sh->revoke_active;
    sh->swept_ms = (int64_t) now;
}


static ngx_uint_t
ngx_http_stoa_revoke_full(const ngx_http_stoa_shared_t *sh)
{
    const ngx_http_stoa_revoke_table_t *t = &sh->tables[sh->revoke_active];

    return t->count >= (t->mask + 1) / 4 * 3;
}


static void
ngx_http_stoa_revoke_put(ngx_http_stoa_shared_t *sh, const stoa_uuid_t *key,
                         ngx_atomic_uint_t kind, ngx_atomic_uint_t value,
                         int64_t until_ms)
{
    ngx_uint_t overflow = 0;

    if (until_ms <= stoa_time_ms()) {
        return; /* no token lives that long */
    }

    ngx_http_stoa_lock(&sh->revoke_lock);

    if (ngx_http_stoa_revoke_full(sh)) {
        ngx_http_stoa_revoke_turn(sh, 0);
    }

    if (ngx_http_stoa_revoke_full(sh)) {
        overflow = 1;
        sh->not_before = (ngx_atomic_uint_t) (stoa_time_ms() / 1000 + 1);
        ngx_memory_barrier();
        ngx_http_stoa_revoke_turn(sh, 1);

    } else {
        ngx_http_stoa_revoke_insert(&sh->tables[sh->revoke_active], key, kind,
                                    value, (ngx_atomic_uint_t) until_ms);
    }

    sh->cells[STOA_M_revocations] = sh->tables[sh->revoke_active].count;

    ngx_http_stoa_unlock(&sh->revoke_lock);

    if (overflow) {
        ngx_log_error(NGX_LOG_CRIT, ngx_cycle->log, 0,
                      "stoa: the zone is full of revocations, all tokens "
                      "issued until now are refused; make \"stoa_zone\" "
                      "larger");
    }
}


void
ngx_http_stoa_revoke_copy(ngx_http_stoa_shared_t       *to,
                          const ngx_http_stoa_shared_t *from)
{
    const ngx_http_stoa_revoke_table_t *t = &from->tables[from->revoke_active];
    const ngx_http_stoa_revoke_slot_t  *s;
    ngx_uint_t                          i;

    to->not_before = from->not_before;

    for (i = 0; i <= t->mask; i++) {
        s = &t->slots[i];

        if (s->kind != NGX_HTTP_STOA_REVOKE_FREE) {
            ngx_http_stoa_revoke_put(to, &s->key, s->kind, s->value,
                                     (int64_t) s->until_ms);
        }
    }

    to->revoke_since = from->revoke_since;
    to->revoke_loaded = from->revoke_loaded;
    to->schema = from->schema;
}


/* ---- what requests ask ---- */

ngx_uint_t
ngx_http_stoa_revoke_loaded(void)
{
    ngx_http_stoa_shared_t *sh = ngx_http_stoa_shared();

    return sh != NULL && sh->revoke_loaded;
}


stoa_err_e
ngx_http_stoa_revoke_check(const stoa_claims_t *claims)
{
    const ngx_http_stoa_revoke_table_t *t;
    const ngx_http_stoa_revoke_slot_t  *s;
    ngx_http_stoa_shared_t             *sh = ngx_http_stoa_shared();

    if (sh == NULL || !sh->revoke_loaded) {
        return STOA_E_STARTING;
    }

    if (claims->iat < (int64_t) sh->not_before) {
        return STOA_E_TOKEN_REVOKED;
    }

    t = &sh->tables[sh->revoke_active];

    if (t->count == 0) {
        return STOA_OK;
    }

    /* an entry outlives its end until the next sweep: tokens of it are
       expired by then */
    if (ngx_http_stoa_revoke_find(t, &claims->sid, NGX_HTTP_STOA_REVOKE_SID)
        != NULL)
    {
        return STOA_E_TOKEN_REVOKED;
    }

    s = ngx_http_stoa_revoke_find(t, &claims->sub, NGX_HTTP_STOA_REVOKE_USER);

    if (s != NULL && claims->epoch < s->value) {
        return STOA_E_TOKEN_REVOKED;
    }

    return STOA_OK;
}


void
ngx_http_stoa_revoke_apply(stoa_str_t text)
{
    ngx_http_stoa_shared_t *sh = ngx_http_stoa_shared();
    ngx_uint_t              sid;
    stoa_uuid_t             key;
    stoa_str_t              id, number;
    int64_t                 n;

    if (sh == NULL) {
        return;
    }

    if (text.len > 4 + 37 && ngx_memcmp(text.data, "sid ", 4) == 0) {
        sid = 1;
        id.data = text.data + 4;

    } else if (text.len > 5 + 37 && ngx_memcmp(text.data, "user ", 5) == 0) {
        sid = 0;
        id.data = text.data + 5;

    } else {
        goto invalid;
    }

    id.len = 36;
    number.data = id.data + 37;
    number.len = (size_t) (text.data + text.len - number.data);

    if (id.data[36] != ' ' || !stoa_uuid_parse(id, &key)
        || !stoa_str_int(number, 0, INT64_MAX, &n))
    {
        goto invalid;
    }

    if (sid) {
        ngx_http_stoa_revoke_put(sh, &key, NGX_HTTP_STOA_REVOKE_SID, 1, n);

    } else {
        ngx_http_stoa_revoke_put(sh, &key, NGX_HTTP_STOA_REVOKE_USER,
                                 (ngx_atomic_uint_t) n,
                                 stoa_time_ms() + NGX_HTTP_STOA_TOKEN_MS);
    }

    return;

invalid:

    ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                  "stoa: revocation is not understood, %uz bytes", text.len);
}


/* ---- the tick ---- */

static ngx_uint_t
ngx_http_stoa_lead(ngx_http_stoa_shared_t *sh)
{
    ngx_atomic_uint_t holder = sh->leader;
    ngx_msec_int_t    left;

    if (holder != (ngx_atomic_uint_t) ngx_pid) {
        left = (ngx_msec_int_t) (sh->leader_until - ngx_current_msec);

        if (holder != 0 && left > 0 && left <= NGX_HTTP_STOA_LEASE_MS
            && !(kill((ngx_pid_t) holder, 0) == -1 && ngx_errno == NGX_ESRCH))
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
    static u_char              text[NGX_INT64_LEN + 1];
    ngx_http_stoa_main_conf_t *mcf = ngx_http_stoa_process.mcf;
    stoa_pg_pool_t            *pool;
    stoa_err_e                 err;
    const char                *values[1];
    int                        lens[1];
    int64_t                    since;

    pool = ngx_http_stoa_process.pool[STOA_POOL_FAST];

    if (ngx_http_stoa_tick.load != NULL || !stoa_pg_pool_ready(pool)) {
        return;
    }

    since = ngx_max(sh->revoke_since - NGX_HTTP_STOA_OVERLAP_MS, 0);
    lens[0] = (int) (ngx_sprintf(text, "%L%Z", since) - text) - 1;
    values[0] = (const char *) text;

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
ngx_http_stoa_tick_restored(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    ngx_http_stoa_shared_t *sh = ngx_http_stoa_shared();
    stoa_pg_result_t       *res;
    int64_t                 fails, until;
    int                     i, n;

    ngx_http_stoa_tick.restore = NULL;

    if (err != STOA_OK) {
        ngx_http_stoa_tick_failed(sh, NGX_HTTP_STOA_TICK_RESTORE, op, err);
        return;
    }

    res = stoa_pg_take(op);
    n = res == NULL ? 0 : stoa_pg_rows(res);

    for (i = 0; i < n; i++) {
        if (stoa_str_int(stoa_pg_value(res, i, 1), 0, INT32_MAX, &fails)
            && stoa_str_int(stoa_pg_value(res, i, 2), 0, INT64_MAX, &until))
        {
            ngx_http_stoa_throttle_restore(stoa_pg_value(res, i, 0),
                                           (uint32_t) fails, until);
        }
    }

    stoa_pg_result_free(res);
    sh->throttle_loaded = 1;
    ngx_http_stoa_tick_worked(NGX_HTTP_STOA_TICK_RESTORE);
}


static void
ngx_http_stoa_tick_saved(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    ngx_http_stoa_shared_t *sh = ngx_http_stoa_shared();

    ngx_http_stoa_tick.save = NULL;
    ngx_destroy_pool(ngx_http_stoa_tick.values);
    ngx_http_stoa_tick.values = NULL;

    if (err != STOA_OK) {
        ngx_http_stoa_throttle_unsaved();
        ngx_http_stoa_tick_failed(sh, NGX_HTTP_STOA_TICK_SAVE, op, err);
        return;
    }

    ngx_http_stoa_tick_worked(NGX_HTTP_STOA_TICK_SAVE);
}


static void
ngx_http_stoa_tick_put(void *data, const char key[32], uint32_t fails,
                       int64_t until_ms)
{
    ngx_http_stoa_saving_t *s = data;
    const char             *comma = s->keys.len > 1 ? "," : "";

    stoa_buf_z(&s->keys, comma);
    stoa_buf_put(&s->keys, key, 32);
    stoa_buf_z(&s->fails, comma);
    stoa_buf_int(&s->fails, fails);
    stoa_buf_z(&s->until, comma);
    stoa_buf_int(&s->until, until_ms);
}


static void
ngx_http_stoa_tick_save(ngx_http_stoa_shared_t *sh)
{
    ngx_http_stoa_main_conf_t *mcf = ngx_http_stoa_process.mcf;
    ngx_http_stoa_saving_t     s;
    stoa_buf_t                *bufs[3] = { &s.keys, &s.fails, &s.until };
    stoa_pg_pool_t            *pool;
    const char                *values[3];
    stoa_err_e                 err;
    stoa_mem_t                 mem;
    ngx_uint_t                 i;
    int                        lens[3];

    pool = ngx_http_stoa_process.pool[STOA_POOL_WRITE];

    if (ngx_http_stoa_tick.save != NULL || !stoa_pg_pool_ready(pool)) {
        return;
    }

    s.pool = ngx_create_pool(4096, ngx_cycle->log);
    if (s.pool == NULL) {
        return;
    }

    ngx_http_stoa_mem_init(&mem, s.pool);

    for (i = 0; i < 3; i++) {
        stoa_buf_init(bufs[i], &mem, 256, 64 * 1024);
        stoa_buf_char(bufs[i], '{');
    }

    if (ngx_http_stoa_throttle_changed(NGX_HTTP_STOA_SAVE_MAX, &s,
                                       ngx_http_stoa_tick_put)
        == 0)
    {
        ngx_destroy_pool(s.pool);
        return;
    }

    for (i = 0; i < 3; i++) {
        stoa_buf_char(bufs[i], '}');
        stoa_buf_nul(bufs[i]);
        values[i] = (const char *) bufs[i]->data;
        lens[i] = (int) bufs[i]->len;

        if (bufs[i]->failed) {
            ngx_destroy_pool(s.pool);
            return;
        }
    }

    ngx_http_stoa_tick
        .save = stoa_pg_submit(pool, &mcf->stmts[STOA_STMT_THROTTLE_SAVE],
                               values, lens, 0, ngx_http_stoa_tick_saved, NULL,
                               &err);

    if (ngx_http_stoa_tick.save == NULL) {
        ngx_destroy_pool(s.pool);
        ngx_http_stoa_throttle_unsaved();
        ngx_http_stoa_tick_failed(sh, NGX_HTTP_STOA_TICK_SAVE, NULL, err);
        return;
    }

    ngx_http_stoa_tick.values = s.pool;
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

    if (!sh->throttle_loaded) {

        if (ngx_http_stoa_tick.restore == NULL && stoa_pg_pool_ready(pool)) {
            ngx_http_stoa_tick.restore =
                stoa_pg_submit(pool, &mcf->stmts[STOA_STMT_THROTTLE_LOAD], NULL,
                               NULL, 0, ngx_http_stoa_tick_restored, NULL,
                               &err);
        }

    } else {
        ngx_http_stoa_tick_save(sh);
    }

    if (stoa_time_ms() - sh->swept_ms > NGX_HTTP_STOA_SWEEP_MS) {
        ngx_http_stoa_lock(&sh->revoke_lock);
        ngx_http_stoa_revoke_turn(sh, 0);
        sh->cells[STOA_M_revocations] = sh->tables[sh->revoke_active].count;
        ngx_http_stoa_unlock(&sh->revoke_lock);
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

    if (ngx_exiting || ngx_quit || ngx_terminate) {
        /* the new processes take over at once */
        ngx_http_stoa_tick_release(sh);
        loop->timer_set(loop, t, NGX_HTTP_STOA_TICK_MS);
        return;
    }

    if (ngx_http_stoa_lead(sh)) {
        ngx_http_stoa_tick_leader(sh);
    }

    starting = !sh->revoke_loaded && !ngx_http_stoa_tick.failing;

    loop->timer_set(loop, t,
                    starting ? NGX_HTTP_STOA_START_MS : NGX_HTTP_STOA_TICK_MS);
}


ngx_int_t
ngx_http_stoa_revoke_init_process(ngx_cycle_t *cycle)
{
    stoa_loop_t *loop = ngx_http_stoa_process.loop;

    ngx_memzero(&ngx_http_stoa_tick, sizeof(ngx_http_stoa_tick));

    ngx_http_stoa_tick.timer.fire = ngx_http_stoa_tick_fire;
    ngx_http_stoa_tick.timer.cancelable = true;

    loop->timer_set(loop, &ngx_http_stoa_tick.timer, 1);

    return NGX_OK;
}


void
ngx_http_stoa_revoke_exit_process(ngx_cycle_t *cycle)
{
    stoa_loop_t  *loop = ngx_http_stoa_process.loop;
    stoa_pg_op_t *ops[3];
    ngx_uint_t    i;

    loop->timer_close(loop, &ngx_http_stoa_tick.timer);

    ops[0] = ngx_http_stoa_tick.load;
    ops[1] = ngx_http_stoa_tick.restore;
    ops[2] = ngx_http_stoa_tick.save;

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
