/*
 * The life of a pool of PostgreSQL connections: creation, what happens when
 * the first connection is up or the last one is gone, drain, destruction and
 * the numbers.  Calls no libpq: the door is stoa_pg.c.
 */

#include "stoa_pg_int.h"

#include <stdlib.h>
#include <unistd.h>


#define STOA_PG_QUEUE_TIMEOUT   1000
#define STOA_PG_CONNECT_TIMEOUT 5000

static void stoa_pg_pool_drain_run(stoa_defer_t *d);


void
stoa_pg_pool_up(stoa_pg_pool_t *pool)
{
    if (pool->ready == 1) {
        stoa_log(pool->loop->log, STOA_LOG_NOTICE, "pg: pool \"%s\" is up",
                 pool->conf.name);
    }

    pool->starting = false;
    stoa_pg_pool_wake(pool);
}


void
stoa_pg_pool_down(stoa_pg_pool_t *pool)
{
    uint32_t i;

    if (pool->starting) {
        for (i = 0; i < pool->conf.size; i++) {
            if (pool->conns[i].fails == 0) {
                return;
            }
        }

        pool->starting = false;
    }

    if (pool->ready == 0) {
        stoa_pg_queue_fail(pool, STOA_E_DATABASE_UNAVAILABLE);
    }

    if (!pool->destroying) {
        stoa_pg_pool_wake(pool);
    }
}


void
stoa_pg_pool_idle(stoa_pg_pool_t *pool, stoa_pg_conn_t *conn)
{
    stoa_pg_op_t *cancel = conn->cancel;

    if (cancel != NULL && cancel->state == STOA_PG_OP_QUEUED) {
        /* not sent: nothing left to hit */
        conn->cancel = NULL;
        stoa_pg_cancel(cancel);
    }

    if (pool->waiting != 0 || pool->draining) {
        stoa_pg_pool_wake(pool);
    }
}


static char *
stoa_pg_strdup_create(const char *s)
{
    size_t len = strlen(s) + 1;
    char  *copy = malloc(len);

    if (copy != NULL) {
        memcpy(copy, s, len);
    }

    return copy;
}


static bool
stoa_pg_conf_create(stoa_pg_pool_t *pool, const stoa_pg_conf_t *conf)
{
    stoa_pg_conf_t *own = &pool->conf;

    *own = *conf;

    own->size = conf->size == 0 ? 1 : conf->size;
    own->in_flight = conf->in_flight == 0 ? 1 : conf->in_flight;

    if (own->queue_timeout_ms == 0) {
        own->queue_timeout_ms = STOA_PG_QUEUE_TIMEOUT;
    }

    if (own->connect_timeout_ms == 0) {
        own->connect_timeout_ms = STOA_PG_CONNECT_TIMEOUT;
    }

    own->name = stoa_pg_strdup_create(conf->name);
    own->conninfo = stoa_pg_strdup_create(conf->conninfo);
    own->search_path = stoa_pg_strdup_create(
        conf->search_path == NULL ? "pg_catalog" : conf->search_path);

    return own->name != NULL && own->conninfo != NULL
        && own->search_path != NULL;
}


static bool
stoa_pg_conn_create(stoa_pg_conn_t *conn, stoa_pg_pool_t *pool, uint32_t index)
{
    uint32_t size = 64;

    /* two commands per operation, and room for what goes before a few */

    while (size < (uint32_t) pool->conf.in_flight * 2 + 32) {
        size *= 2;
    }

    conn->magic = STOA_PG_CONN_MAGIC;
    conn->state = STOA_PG_DOWN;
    conn->pool = pool;
    conn->index = index;
    conn->mask = size - 1;
    conn->timer.fire = stoa_pg_conn_deadlines;
    conn->timer.data = conn;

    conn->cmds = calloc(size, sizeof(stoa_pg_cmd_t));
    conn->prepared = calloc(pool->conf.nslots + STOA_PG_SLOTS_OWN, 1);

    return conn->cmds != NULL && conn->prepared != NULL;
}


static void
stoa_pg_pool_free(stoa_pg_pool_t *pool)
{
    uint32_t      i;
    stoa_pg_op_t *op;

    for (i = 0; pool->conns != NULL && i < pool->conf.size; i++) {
        pool->conns[i].magic = 0;
        free(pool->conns[i].cmds);
        free(pool->conns[i].prepared);
    }

    while ((op = pool->free) != NULL) {
        pool->free = op->next;
        op->magic = 0;
        free(op);
    }

    free((void *) (uintptr_t) pool->conf.name);
    free((void *) (uintptr_t) pool->conf.search_path);

    if (pool->conf.conninfo != NULL) {
        /* may hold a password */
        explicit_bzero((void *) (uintptr_t) pool->conf.conninfo,
                       strlen(pool->conf.conninfo));
        free((void *) (uintptr_t) pool->conf.conninfo);
    }

    pool->magic = 0;
    free(pool->conns);
    free(pool);
}


stoa_pg_pool_t *
stoa_pg_pool_create(stoa_loop_t *loop, const stoa_pg_conf_t *conf)
{
    uint32_t        i;
    stoa_pg_pool_t *pool;

    if (!stoa_pg_conninfo_check(loop, conf->conninfo)) {
        return NULL;
    }

    pool = calloc(1, sizeof(stoa_pg_pool_t));
    if (pool == NULL) {
        return NULL;
    }

    pool->magic = STOA_PG_POOL_MAGIC;
    pool->loop = loop;
    pool->starting = true;
    pool->soonest = UINT64_MAX;
    pool->seed = (stoa_pg_clock_us() ^ ((uint64_t) getpid() << 32)) | 1;
    pool->dispatch.run = stoa_pg_pool_dispatch;
    pool->dispatch.data = pool;
    pool->drain.run = stoa_pg_pool_drain_run;
    pool->drain.data = pool;
    pool->timer.fire = stoa_pg_pool_queue_timer;
    pool->timer.data = pool;

    if (!stoa_pg_conf_create(pool, conf)) {
        stoa_pg_pool_free(pool);
        return NULL;
    }

    pool->conns = calloc(pool->conf.size, sizeof(stoa_pg_conn_t));

    for (i = 0; i < pool->conf.size; i++) {
        if (pool->conns == NULL
            || !stoa_pg_conn_create(&pool->conns[i], pool, i)) {
            stoa_pg_pool_free(pool);
            return NULL;
        }
    }

    for (i = 0; i < pool->conf.size; i++) {
        stoa_pg_conn_connect(&pool->conns[i]);
    }

    return pool;
}


void
stoa_pg_pool_destroy(stoa_pg_pool_t *pool)
{
    uint32_t     i;
    stoa_loop_t *loop;

    if (pool == NULL) {
        return;
    }

    loop = pool->loop;
    pool->destroying = true;
    pool->starting = false;

    stoa_pg_pool_cancel_via(pool, NULL);

    while (pool->via_first != NULL) {
        stoa_pg_pool_cancel_via(pool->via_first, NULL);
    }

    for (i = 0; i < pool->conf.size; i++) {
        stoa_pg_conn_lost(&pool->conns[i], STOA_PG_CLOSED, NULL);
        loop->timer_close(loop, &pool->conns[i].timer);
        loop->timer_close(loop, &pool->conns[i].retry);
    }

    stoa_pg_queue_fail(pool, STOA_E_DATABASE_UNAVAILABLE);

    loop->timer_close(loop, &pool->timer);
    loop->defer_close(loop, &pool->dispatch);
    loop->defer_close(loop, &pool->drain);

    stoa_pg_pool_free(pool);
}


void
stoa_pg_pool_drain(stoa_pg_pool_t *pool, void (*drained)(void *data),
                   void           *data)
{
    pool->draining = true;
    pool->drained = drained;
    pool->drained_data = data;

    stoa_pg_pool_wake(pool);
}


static void
stoa_pg_pool_drain_run(stoa_defer_t *d)
{
    uint32_t        i, open = 0;
    void           *data;
    stoa_pg_conn_t *conn;
    stoa_pg_pool_t *pool = stoa_cast(stoa_pg_pool_t, STOA_PG_POOL_MAGIC,
                                     d->data);
    void (*drained)(void *data);

    if (pool->waiting != 0) {
        return;
    }

    for (i = 0; i < pool->conf.size; i++) {
        conn = &pool->conns[i];

        if (conn->state == STOA_PG_READY && conn->count != 0) {
            open++;

        } else if (conn->state != STOA_PG_CLOSED) {
            stoa_pg_conn_lost(conn, STOA_PG_CLOSED, NULL);
        }
    }

    if (open != 0 || pool->drained == NULL) {
        return;
    }

    drained = pool->drained;
    data = pool->drained_data;
    pool->drained = NULL;

    drained(data); /* may destroy the pool */
}


void
stoa_pg_pool_stats(const stoa_pg_pool_t *pool, stoa_pg_stats_t *st)
{
    *st = pool->stats;
    st->size = pool->conf.size;
    st->ready = pool->ready;
    st->in_flight = pool->in_flight;
    st->waiting = pool->waiting;
}


bool
stoa_pg_pool_ready(const stoa_pg_pool_t *pool)
{
    return pool->ready != 0;
}
