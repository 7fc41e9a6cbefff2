/*
 * The pool around the PostgreSQL connections: admission, queue, dispatch,
 * deadlines, cancel.  Calls no libpq: the door is stoa_pg.c.  How a pool comes
 * up and goes is stoa_pg_life.c.
 *
 * An operation submitted during a loop turn waits in the queue until the end
 * of that turn.  Then the connection with the fewest in flight takes it, and
 * reads that go to the same connection share one Sync.  Nothing is tied to a
 * connection before that, so what waits is served by whichever is free first.
 *
 * Bounds: size * in_flight operations for the connections plus queue_max are
 * admitted, the next one is refused at once; what came beyond the first of
 * the two waits no longer than queue_timeout and is refused then.  A deadline
 * answers the owner, while the place on the connection stays taken until
 * PostgreSQL is done with it.
 *
 * Operations come from the pool's list of free ones and go back to it; their
 * memory is given back when the pool is destroyed.
 */

#include "stoa_pg_int.h"

#include <stdlib.h>
#include <time.h>


#define STOA_PG_WAIT_MAX 60000 /* for a turn, without any deadline */


uint64_t
stoa_pg_clock_us(void)
{
    struct timespec ts;

    if (clock_gettime(CLOCK_MONOTONIC, &ts) != 0) {
        return 0;
    }

    return (uint64_t) ts.tv_sec * 1000000 + (uint64_t) ts.tv_nsec / 1000;
}


static uint64_t
stoa_pg_pool_now(const stoa_pg_pool_t *pool)
{
    return pool->loop->now_ms(pool->loop);
}


/* ---- operations ---- */

static stoa_pg_op_t *
stoa_pg_op_create(stoa_pg_pool_t *pool)
{
    stoa_pg_op_t *op = pool->free;

    if (op != NULL) {
        pool->free = op->next;

    } else {
        op = malloc(sizeof(stoa_pg_op_t));
        if (op == NULL) {
            return NULL;
        }
    }

    /* all but the values */
    memset(op, 0, offsetof(stoa_pg_op_t, values));
    op->magic = STOA_PG_OP_MAGIC;
    op->pool = pool;

    return op;
}


static void
stoa_pg_op_clear(stoa_pg_op_t *op)
{
    if (op->res != NULL) {
        stoa_pg_res_free(op->res);
        op->res = NULL;
    }

    if (op->cause != NULL) {
        stoa_pg_res_free(op->cause);
        op->cause = NULL;
    }

    op->failed = false;
    op->aborted = false;
    op->conn = NULL;
}


static void
stoa_pg_op_free(stoa_pg_op_t *op)
{
    stoa_pg_pool_t *pool = op->pool;

    stoa_pg_op_clear(op);

    op->state = STOA_PG_OP_FREE;
    op->next = pool->free;
    pool->free = op;
}


/* ---- the queue ---- */

/* Not to be held back: what gets a Sync of its own. */
static bool
stoa_pg_op_presses(const stoa_pg_op_t *op)
{
    return op->stmt->write || op->stmt->no_prepare || op->stmt->timeout_ms != 0
        || op->resent || op->alone;
}


static void
stoa_pg_queue_remove(stoa_pg_op_t *op)
{
    stoa_pg_pool_t *pool = op->pool;

    if (op->prev != NULL) {
        op->prev->next = op->next;
    } else {
        pool->first = op->next;
    }

    if (op->next != NULL) {
        op->next->prev = op->prev;
    } else {
        pool->last = op->prev;
    }

    pool->waiting--;
    pool->pressing -= stoa_pg_op_presses(op);
}


/* How long an operation may wait.  One that finds room on the connections
   waits only for its turn, whatever holds them up: it has its deadline.  One
   that finds none has queue_timeout. */
static uint64_t
stoa_pg_queue_until(const stoa_pg_pool_t *pool, const stoa_pg_op_t *op)
{
    uint32_t wait = pool->conf.queue_timeout_ms;
    uint64_t until;

    if (pool->in_flight + pool->waiting
        < pool->ready * (uint32_t) pool->conf.in_flight)
    {
        wait = STOA_PG_WAIT_MAX;
    }

    until = stoa_pg_pool_now(pool) + wait;

    return op->deadline != 0 && op->deadline < until ? op->deadline : until;
}


static void
stoa_pg_queue_add(stoa_pg_op_t *op, bool front)
{
    stoa_pg_pool_t *pool = op->pool;

    op->state = STOA_PG_OP_QUEUED;
    op->wait_until = stoa_pg_queue_until(pool, op);
    op->next = front ? pool->first : NULL;
    op->prev = front ? NULL : pool->last;

    if (op->next != NULL) {
        op->next->prev = op;
    } else {
        pool->last = op;
    }

    if (op->prev != NULL) {
        op->prev->next = op;
    } else {
        pool->first = op;
    }

    if (op->wait_until < pool->soonest) {
        pool->soonest = op->wait_until;
    }

    pool->waiting++;
    pool->pressing += stoa_pg_op_presses(op);
    stoa_pg_pool_wake(pool);
}


/* Everything that waits ends; done() may not add to it meanwhile. */
void
stoa_pg_queue_fail(stoa_pg_pool_t *pool, stoa_err_e err)
{
    stoa_pg_op_t *op;

    while ((op = pool->first) != NULL) {
        stoa_pg_queue_remove(op);
        stoa_pg_op_end(op, err);
    }
}


static stoa_err_e
stoa_pg_queue_verdict(const stoa_pg_pool_t *pool, const stoa_pg_op_t *op,
                      uint64_t now)
{
    if (pool->ready == 0) {
        return STOA_E_DATABASE_UNAVAILABLE;
    }

    return op->deadline != 0 && op->deadline <= now ? STOA_E_TIMEOUT
                                                    : STOA_E_POOL_SATURATED;
}


void
stoa_pg_pool_queue_timer(stoa_timer_t *t)
{
    uint64_t        now;
    stoa_err_e      err;
    stoa_pg_op_t   *op, *next, *ending = NULL, **tail = &ending;
    stoa_pg_pool_t *pool = stoa_cast(stoa_pg_pool_t, STOA_PG_POOL_MAGIC,
                                     t->data);

    now = stoa_pg_pool_now(pool);
    pool->soonest = UINT64_MAX;

    for (op = pool->first; op != NULL; op = next) {
        next = op->next;

        if (op->wait_until > now) {
            if (op->wait_until < pool->soonest) {
                pool->soonest = op->wait_until;
            }

            continue;
        }

        stoa_pg_queue_remove(op);
        op->state = STOA_PG_OP_ENDING;
        op->next = NULL;
        *tail = op;
        tail = &op->next;
    }

    if (pool->soonest != UINT64_MAX) {
        pool->loop->timer_set(pool->loop, &pool->timer, pool->soonest - now);
    }

    while ((op = ending) != NULL) {
        ending = op->next;
        err = stoa_pg_queue_verdict(pool, op, now);
        pool->stats.saturated += err == STOA_E_POOL_SATURATED;
        pool->stats.timeouts += err == STOA_E_TIMEOUT;
        stoa_pg_op_end(op, err);
    }

    stoa_pg_pool_wake(pool); /* a draining pool may be empty now */
}


/* ---- the end of an operation ---- */

void
stoa_pg_op_end(stoa_pg_op_t *op, stoa_err_e err)
{
    stoa_pg_pool_t *pool = op->pool;
    stoa_pg_done_pt done = op->done;

    if (done != NULL) {
        pool->stats.done += err == STOA_OK;
        pool->stats.failed += err != STOA_OK;

        op->state = STOA_PG_OP_ENDING;
        op->done = NULL;
        done(op, err, op->data);
    }

    stoa_pg_op_free(op);
}


void
stoa_pg_op_again(stoa_pg_op_t *op)
{
    stoa_pg_op_clear(op);
    stoa_pg_queue_add(op, true);
}


/* The plans of a statement are out of date, or gone, in every session. */
static void
stoa_pg_pool_stale(stoa_pg_pool_t *pool, const stoa_pg_stmt_t *stmt)
{
    uint32_t i, k;
    uint32_t slots[2] = { stmt->slot, pool->conf.nslots };

    if (stmt->slot >= STOA_PG_SLOT_OWN) {
        slots[0] = pool->conf.nslots + (stmt->slot - STOA_PG_SLOT_OWN);
    }

    for (i = 0; i < pool->conf.size; i++) {
        for (k = 0; k < 1 + (stmt->timeout_ms != 0); k++) {
            if (pool->conns[i].prepared[slots[k]] == STOA_PG_PREPARED) {
                pool->conns[i].prepared[slots[k]] = STOA_PG_STALE;
            }
        }
    }
}


static bool
stoa_pg_op_plan_is_stale(const stoa_pg_op_t *op)
{
    const char *sqlstate = stoa_pg_sqlstate(op);

    return !op->stmt->no_prepare && !op->reprepared
        && (strcmp(sqlstate, "26000") == 0 || strcmp(sqlstate, "0A000") == 0);
}


static void
stoa_pg_op_blame(stoa_pg_op_t *op)
{
    /* a Parse that failed is the cause of "does not exist"; without that
       (42P05) it harmed nobody */

    if (op->cause != NULL
        && (op->aborted || strcmp(stoa_pg_sqlstate(op), "26000") == 0))
    {
        stoa_pg_res_free(op->res);
        op->res = op->cause;
        op->cause = NULL;
        op->failed = true;
        op->aborted = false;
        op->reprepared |= op->stmt->timeout_ms == 0;
    }
}


void
stoa_pg_op_answered(stoa_pg_op_t *op)
{
    stoa_err_e      err = STOA_OK;
    stoa_pg_pool_t *pool = op->pool;

    op->state = STOA_PG_OP_ENDING;
    op->done_us = op->conn->heard_us > op->sent_us ? op->conn->heard_us
                                                   : op->sent_us;
    pool->stats.answered++;
    pool->stats.wait_us += op->sent_us - op->submitted_us;
    pool->stats.run_us += op->done_us - op->sent_us;

    if (op->done == NULL) {
        stoa_pg_op_free(op);
        return;
    }

    stoa_pg_op_blame(op);

    if (op->aborted && !pool->destroying) {
        /* another one of its group failed: this one was not run */
        op->alone = true;
        pool->stats.resent++;
        stoa_pg_op_again(op);
        return;
    }

    if (stoa_pg_op_plan_is_stale(op) && !pool->destroying) {
        op->reprepared = true;
        op->alone = true;
        pool->stats.resent++;
        stoa_pg_pool_stale(pool, op->stmt);
        stoa_pg_op_again(op);
        return;
    }

    if (op->failed) {
        err = stoa_err_by_sqlstate(stoa_pg_sqlstate(op),
                                   stoa_pg_constraint(op));
        err = err == STOA_OK ? STOA_E_INTERNAL : err;
    }

    stoa_pg_op_end(op, err);
}


uint32_t
stoa_pg_wait_us(const stoa_pg_op_t *op)
{
    return op->sent_us == 0 ? 0 : (uint32_t) (op->sent_us - op->submitted_us);
}


uint32_t
stoa_pg_run_us(const stoa_pg_op_t *op)
{
    return op->done_us == 0 ? 0 : (uint32_t) (op->done_us - op->sent_us);
}


/* ---- dispatch ---- */

void
stoa_pg_pool_wake(stoa_pg_pool_t *pool)
{
    pool->loop->defer(pool->loop, &pool->dispatch);
}


static bool
stoa_pg_conn_takes(const stoa_pg_conn_t *conn, const stoa_pg_op_t *op)
{
    if (conn->state != STOA_PG_READY || conn->cancel != NULL
        || conn->n >= conn->pool->conf.in_flight
        || conn->mask + 1 - conn->count < 16)
    {
        return false;
    }

    return op->stmt->write || conn->open != 0 || conn->groups < STOA_PG_GROUPS;
}


static stoa_pg_conn_t *
stoa_pg_pool_pick(stoa_pg_pool_t *pool, const stoa_pg_op_t *op)
{
    uint32_t        i;
    stoa_pg_conn_t *conn, *best = NULL;

    for (i = 0; i < pool->conf.size; i++) {
        conn = &pool->conns[i];

        if (stoa_pg_conn_takes(conn, op) && (best == NULL || conn->n < best->n))
        {
            best = conn;
        }
    }

    return best;
}


/* false: the connection broke. */
static bool
stoa_pg_pool_send(stoa_pg_pool_t *pool, stoa_pg_conn_t *conn, stoa_pg_op_t *op,
                  uint64_t now_us)
{
    bool ok;

    if (conn->count == 0) {
        conn->heard_at = stoa_pg_pool_now(pool);
    }

    conn->touched = true;
    op->sent_us = now_us;
    ok = stoa_pg_conn_send(conn, op);

    if (op->state == STOA_PG_OP_SENT) {
        /* its links are still those of the queue */
        stoa_pg_queue_remove(op);
        pool->in_flight++;
        stoa_pg_conn_arm(conn, op->deadline);
    }

    if (!ok) {
        conn->touched = false;
        stoa_pg_conn_lost(conn, STOA_PG_DOWN, "sending failed");
    }

    return ok;
}


static void
stoa_pg_pool_flush(stoa_pg_pool_t *pool)
{
    uint32_t        i;
    stoa_pg_conn_t *conn;

    for (i = 0; i < pool->conf.size; i++) {
        conn = &pool->conns[i];

        if (conn->touched) {
            conn->touched = false;

            if (!stoa_pg_conn_flush(conn)) {
                stoa_pg_conn_lost(conn, STOA_PG_DOWN, "sending failed");
            }
        }
    }
}


/* Reads that are company enough: see STOA_PG_GROUP_GOOD. */
static uint32_t
stoa_pg_pool_good(const stoa_pg_pool_t *pool)
{
    uint32_t good = (pool->in_flight + pool->waiting) / 4;

    if (good > STOA_PG_GROUP_GOOD) {
        return STOA_PG_GROUP_GOOD;
    }

    return good == 0 ? 1 : good;
}


static bool
stoa_pg_pool_holds(const stoa_pg_pool_t *pool, uint64_t now_us)
{
    uint32_t              i;
    const stoa_pg_conn_t *conn;

    if (pool->read_us == 0 || pool->read_us > STOA_PG_CHEAP_US
        || pool->pressing != 0 || pool->waiting >= stoa_pg_pool_good(pool))
    {
        return false;
    }

    for (i = 0; i < pool->conf.size; i++) {
        conn = &pool->conns[i];

        if (conn->groups != 0 && now_us - conn->group_us < STOA_PG_LATE_US) {
            return true;
        }
    }

    return false;
}


/* Evenly over the connections, but cheap ones not in small groups. */
static uint32_t
stoa_pg_pool_chunk(const stoa_pg_pool_t *pool)
{
    uint32_t parts = pool->ready == 0 ? 1 : pool->ready;

    if (pool->read_us != 0 && pool->read_us <= STOA_PG_CHEAP_US
        && parts > pool->waiting / stoa_pg_pool_good(pool))
    {
        parts = pool->waiting / stoa_pg_pool_good(pool);
        parts = parts == 0 ? 1 : parts;
    }

    return (pool->waiting + parts - 1) / parts;
}


static void
stoa_pg_pool_queue_arm(stoa_pg_pool_t *pool, bool held)
{
    uint64_t now;

    if (pool->first == NULL) {
        if (pool->soonest != UINT64_MAX) {
            pool->soonest = UINT64_MAX;
            pool->loop->timer_cancel(pool->loop, &pool->timer);
        }

        return;
    }

    now = stoa_pg_pool_now(pool);

    pool->loop->timer_set(pool->loop, &pool->timer,
                          pool->soonest > now && !held ? pool->soonest - now
                                                       : 1);
}


void
stoa_pg_pool_dispatch(stoa_defer_t *d)
{
    bool            held;
    uint32_t        chunk, taken = 0;
    uint64_t        now_us;
    stoa_pg_op_t   *op;
    stoa_pg_conn_t *conn = NULL;
    stoa_pg_pool_t *pool = stoa_cast(stoa_pg_pool_t, STOA_PG_POOL_MAGIC,
                                     d->data);

    now_us = stoa_pg_clock_us();
    pool->turn_us = 0;
    held = stoa_pg_pool_holds(pool, now_us);
    chunk = stoa_pg_pool_chunk(pool);

    while (!held && (op = pool->first) != NULL) {

        /* neighbours share a connection, thus a Sync, in even parts */

        if (conn == NULL || op->stmt->write || taken >= chunk
            || !stoa_pg_conn_takes(conn, op))
        {
            conn = stoa_pg_pool_pick(pool, op);
            taken = 0;

            if (conn == NULL) {
                break;
            }
        }

        taken++;

        if (!stoa_pg_pool_send(pool, conn, op, now_us)) {
            conn = NULL;
        }
    }

    stoa_pg_pool_flush(pool);
    stoa_pg_pool_queue_arm(pool, held);

    if (pool->draining) {
        pool->loop->defer(pool->loop, &pool->drain);
    }
}


stoa_pg_op_t *
stoa_pg_submit(stoa_pg_pool_t *pool, const stoa_pg_stmt_t *stmt,
               const char *const *values, const int *lens, uint32_t deadline_ms,
               stoa_pg_done_pt done, void *data, stoa_err_e *err)
{
    uint32_t      admitted, timeout;
    stoa_pg_op_t *op;

    if (pool->draining || pool->destroying
        || (pool->ready == 0 && !pool->starting)) {
        *err = STOA_E_DATABASE_UNAVAILABLE;
        return NULL;
    }

    if (stmt->nparams > STOA_PG_PARAMS_MAX
        || (stmt->slot >= pool->conf.nslots && stmt->slot < STOA_PG_SLOT_OWN
            && !stmt->no_prepare))
    {
        stoa_bug("pg: a statement with too many parameters or no slot");
        *err = STOA_E_INTERNAL;
        return NULL;
    }

    admitted = (pool->starting ? pool->conf.size : pool->ready)
             * (uint32_t) pool->conf.in_flight;

    if (pool->in_flight + pool->waiting >= admitted + pool->conf.queue_max
        && stmt->slot < STOA_PG_SLOT_OWN)
    {
        pool->stats.saturated++;
        *err = STOA_E_POOL_SATURATED;
        return NULL;
    }

    op = stoa_pg_op_create(pool);
    if (op == NULL) {
        *err = STOA_E_NO_MEMORY;
        return NULL;
    }

    op->stmt = stmt;
    op->done = done;
    op->data = data;

    if (pool->turn_us == 0) {
        pool->turn_us = stoa_pg_clock_us();
    }

    op->submitted_us = pool->turn_us;

    if (stmt->nparams != 0) {
        memcpy(op->values, values, stmt->nparams * sizeof(char *));
    }

    if (stmt->formats != NULL) {
        memcpy(op->lens, lens, stmt->nparams * sizeof(int));
    }

    timeout = stmt->timeout_ms != 0 ? stmt->timeout_ms
                                    : pool->conf.statement_timeout_ms;

    if (deadline_ms == 0 && timeout != 0) {
        deadline_ms = timeout + pool->conf.queue_timeout_ms;
    }

    if (deadline_ms != 0) {
        op->deadline = stoa_pg_pool_now(pool) + deadline_ms;
    }

    pool->stats.submitted++;
    stoa_pg_queue_add(op, stmt->slot >= STOA_PG_SLOT_OWN);

    return op;
}


void
stoa_pg_cancel(stoa_pg_op_t *op)
{
    op = stoa_cast(stoa_pg_op_t, STOA_PG_OP_MAGIC, op);

    switch (op->state) {

    case STOA_PG_OP_QUEUED:
        stoa_pg_queue_remove(op);
        stoa_pg_op_free(op);
        return;

    case STOA_PG_OP_SENT:
        op->done = NULL;

        if (!op->stmt->write) {
            stoa_pg_conn_cancel(op->conn);
        }

        return;

    case STOA_PG_OP_HELD:
    case STOA_PG_OP_ENDING:
        op->done = NULL;
        return;

    case STOA_PG_OP_FREE:
        stoa_bug("pg: an operation was canceled after its end");
        return;
    }
}
