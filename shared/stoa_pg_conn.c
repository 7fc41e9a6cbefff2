/*
 * What happens to a PostgreSQL connection apart from its traffic: states,
 * deadlines of what is in flight, cancel of a running statement, the end and
 * the way back.  Calls no libpq: the door is stoa_pg.c.
 *
 * One timer per connection stands at the soonest deadline while anything is
 * in flight; it is moved only to come sooner, so a busy connection does not
 * touch it, and it is what keeps a retiring process alive until the answers
 * are there.  When a connection is lost, writes that were sent end with
 * COMMIT_UNKNOWN, reads go to the front of the pool's queue once.
 */

#include "stoa_pg_int.h"


#define STOA_PG_BACKOFF_MIN 100
#define STOA_PG_BACKOFF_MAX 5000
#define STOA_PG_IDLE_CHECK  10000 /* in flight without any deadline */
#define STOA_PG_GRACE       5000  /* beyond what the server allows itself */

static const stoa_pg_stmt_t stoa_pg_cancel_stmt = {
    .name = "stoa_cancel",
    .sql = "select pg_catalog.pg_cancel_backend($1::int4)",
    .nparams = 1,
    .slot = STOA_PG_SLOT_CANCEL,
};


void
stoa_pg_conn_set_state(stoa_pg_conn_t *conn, stoa_pg_state_e to)
{
    static const char *const names[] = {
        [STOA_PG_DOWN] = "down",     [STOA_PG_CONNECTING] = "connecting",
        [STOA_PG_SETUP] = "setup",   [STOA_PG_READY] = "ready",
        [STOA_PG_CLOSED] = "closed",
    };

    stoa_pg_pool_t *pool = conn->pool;

    stoa_log(pool->loop->log, STOA_LOG_DEBUG,
             "pg: pool \"%s\" connection %u: %s -> %s", pool->conf.name,
             conn->index, names[conn->state], names[to]);

    pool->ready -= conn->state == STOA_PG_READY;
    pool->ready += to == STOA_PG_READY;
    conn->state = to;
}


void
stoa_pg_conn_retry(stoa_timer_t *t)
{
    stoa_pg_conn_t *conn = stoa_cast(stoa_pg_conn_t, STOA_PG_CONN_MAGIC,
                                     t->data);

    switch (conn->state) {

    case STOA_PG_DOWN:
        stoa_pg_conn_connect(conn);
        break;

    case STOA_PG_CONNECTING:
    case STOA_PG_SETUP:
        stoa_pg_conn_lost(conn, STOA_PG_DOWN, "connecting took too long");
        break;

    case STOA_PG_READY:
    case STOA_PG_CLOSED:
        break;
    }
}


/* ---- deadlines, cancel ---- */

void
stoa_pg_conn_arm(stoa_pg_conn_t *conn, uint64_t deadline)
{
    uint64_t     now;
    stoa_loop_t *loop = conn->pool->loop;

    if (conn->timer_at != 0 && (deadline == 0 || conn->timer_at <= deadline)) {
        return;
    }

    now = loop->now_ms(loop);

    if (deadline == 0) {
        deadline = now + STOA_PG_IDLE_CHECK;
    }

    conn->timer_at = deadline;
    loop->timer_set(loop, &conn->timer, deadline > now ? deadline - now : 1);
}


/* When the server should have said something; 0: never. */
static uint64_t
stoa_pg_conn_silence(const stoa_pg_conn_t *conn)
{
    uint32_t             i, n = 0, timeout, most = 0;
    const stoa_pg_cmd_t *cmd;

    /* it may be silent for the whole group that it is working on */

    for (i = 0; i < conn->count; i++) {
        cmd = stoa_pg_conn_cmd(conn, i);

        if (cmd->kind == STOA_PG_CMD_SYNC) {
            break;
        }

        if (cmd->kind == STOA_PG_CMD_OP) {
            timeout = cmd->op->stmt->timeout_ms;
            timeout = timeout != 0 ? timeout
                                   : conn->pool->conf.statement_timeout_ms;
            if (timeout == 0) {
                return 0;
            }

            most = timeout > most ? timeout : most;
            n++;
        }
    }

    return conn->heard_at + STOA_PG_GRACE + (uint64_t) most * (n == 0 ? 1 : n);
}


static void
stoa_pg_cancel_done(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    stoa_pg_conn_t *conn = stoa_cast(stoa_pg_conn_t, STOA_PG_CONN_MAGIC, data);

    (void) op;

    if (err != STOA_OK) {
        stoa_log(conn->pool->loop->log, STOA_LOG_WARN,
                 "pg: pool \"%s\": canceling a statement failed",
                 conn->pool->conf.name);
    }

    conn->cancel = NULL;

    if (conn->pool->waiting != 0 || conn->pool->draining) {
        stoa_pg_pool_wake(conn->pool);
    }
}


/* Until the answer came no other operation goes to this connection: it would
   be the one that is hit. */
void
stoa_pg_conn_cancel(stoa_pg_conn_t *conn)
{
    stoa_err_e      err;
    const char     *values[1] = { conn->pid };
    stoa_pg_pool_t *pool = conn->pool;
    stoa_pg_pool_t *via = pool->via;

    if (via == NULL || pool->conf.in_flight != 1 || conn->cancel != NULL
        || conn->state != STOA_PG_READY || pool->destroying
        || (via == pool && pool->ready < 2))
    {
        return;
    }

    conn->cancel = stoa_pg_submit(via, &stoa_pg_cancel_stmt, values, NULL, 0,
                                  stoa_pg_cancel_done, conn, &err);
}


void
stoa_pg_pool_cancel_via(stoa_pg_pool_t *pool, stoa_pg_pool_t *via)
{
    uint32_t         i;
    stoa_pg_pool_t **p;

    for (i = 0; i < pool->conf.size; i++) {
        if (pool->conns[i].cancel != NULL) {
            stoa_pg_cancel(pool->conns[i].cancel);
            pool->conns[i].cancel = NULL;
        }
    }

    if (pool->via != NULL) {
        for (p = &pool->via->via_first; *p != NULL; p = &(*p)->via_next) {
            if (*p == pool) {
                *p = pool->via_next;
                break;
            }
        }
    }

    pool->via = via;

    if (via != NULL) {
        pool->via_next = via->via_first;
        via->via_first = pool;
    }
}


static void
stoa_pg_op_timed_out(stoa_pg_op_t *op)
{
    stoa_pg_pool_t *pool = op->pool;
    stoa_pg_done_pt done = op->done;

    op->done = NULL;
    op->done_us = stoa_pg_clock_us();

    pool->stats.failed++;
    pool->stats.timeouts++;

    stoa_pg_conn_cancel(op->conn);
    done(op, STOA_E_TIMEOUT, op->data);
}


void
stoa_pg_conn_deadlines(stoa_timer_t *t)
{
    uint32_t        i;
    uint64_t        now, next, silence;
    stoa_pg_op_t   *op;
    stoa_pg_conn_t *conn = stoa_cast(stoa_pg_conn_t, STOA_PG_CONN_MAGIC,
                                     t->data);

    now = conn->pool->loop->now_ms(conn->pool->loop);
    silence = stoa_pg_conn_silence(conn);

    if (silence != 0 && silence <= now) {
        stoa_pg_conn_lost(conn, STOA_PG_DOWN, "the server is silent");
        return;
    }

    next = now + STOA_PG_IDLE_CHECK;
    next = silence != 0 && silence < next ? silence : next;

    /* done() only adds to the queue: the ring does not move */

    for (i = 0; i <= conn->count; i++) {
        if (i == conn->count) {
            op = conn->held;

        } else if (stoa_pg_conn_cmd(conn, i)->kind == STOA_PG_CMD_OP) {
            op = stoa_pg_conn_cmd(conn, i)->op;

        } else {
            continue;
        }

        if (op == NULL || op->done == NULL || op->deadline == 0) {
            continue;
        }

        if (op->deadline <= now) {
            stoa_pg_op_timed_out(op);

        } else if (op->deadline < next) {
            next = op->deadline;
        }
    }

    conn->timer_at = 0;

    if (conn->count != 0) {
        stoa_pg_conn_arm(conn, next);
    }
}


/* ---- the end of a connection ---- */

/* Reads go to the queue again, the list returned is to be ended. */
static stoa_pg_op_t *
stoa_pg_conn_collect(stoa_pg_conn_t *conn)
{
    uint32_t        i;
    stoa_pg_op_t   *op, *ending = NULL;
    stoa_pg_pool_t *pool = conn->pool;

    /* from the last one: both lists grow at their front */

    for (i = conn->count + 1; i > 0; i--) {
        if (i == 1) {
            op = conn->held;

        } else if (stoa_pg_conn_cmd(conn, i - 2)->kind == STOA_PG_CMD_OP) {
            op = stoa_pg_conn_cmd(conn, i - 2)->op;

        } else {
            continue;
        }

        if (op == NULL) {
            continue;
        }

        pool->in_flight--;
        op->state = STOA_PG_OP_ENDING;

        if (!op->stmt->write && !op->failed && !op->resent && op->done != NULL
            && pool->ready != 0 && !pool->destroying)
        {
            op->resent = true;
            pool->stats.resent++;
            stoa_pg_op_again(op);

        } else {
            op->next = ending;
            ending = op;
        }
    }

    return ending;
}


static void
stoa_pg_conn_log_lost(stoa_pg_conn_t *conn, const char *why)
{
    char            line[256];
    stoa_pg_pool_t *pool = conn->pool;

    stoa_pg_one_line(line, why);

    /* a server that stays away would fill the log: each tenth attempt */

    if (conn->state == STOA_PG_READY) {
        stoa_log(pool->loop->log, STOA_LOG_WARN,
                 "pg: pool \"%s\" connection %u lost, in flight:%u: %s",
                 pool->conf.name, conn->index, conn->n, line);

    } else if (conn->fails % 10 == 0) {
        stoa_log(pool->loop->log, STOA_LOG_ERROR,
                 "pg: pool \"%s\" connection %u: connect failed: %s",
                 pool->conf.name, conn->index, line);
    }
}


static void
stoa_pg_conn_reset(stoa_pg_conn_t *conn)
{
    conn->head = 0;
    conn->count = 0;
    conn->n = 0;
    conn->open = 0;
    conn->groups = 0;
    conn->grouped = 0;
    conn->held = NULL;
    conn->timer_at = 0;
    memset(conn->prepared, STOA_PG_UNPREPARED,
           conn->pool->conf.nslots + STOA_PG_SLOTS_OWN);
}


static uint32_t
stoa_pg_pool_backoff(stoa_pg_pool_t *pool, uint32_t fails)
{
    uint32_t ms = STOA_PG_BACKOFF_MAX;

    if (fails < 7 && (uint32_t) STOA_PG_BACKOFF_MIN << (fails - 1) < ms) {
        ms = (uint32_t) STOA_PG_BACKOFF_MIN << (fails - 1);
    }

    /* xorshift64: half of it is jitter */

    pool->seed ^= pool->seed << 13;
    pool->seed ^= pool->seed >> 7;
    pool->seed ^= pool->seed << 17;

    return ms / 2 + (uint32_t) (pool->seed % (ms / 2 + 1));
}


void
stoa_pg_conn_lost(stoa_pg_conn_t *conn, stoa_pg_state_e next, const char *why)
{
    stoa_pg_op_t   *op, *ending;
    stoa_pg_pool_t *pool = conn->pool;
    stoa_loop_t    *loop = pool->loop;

    if (why != NULL) {
        stoa_pg_conn_log_lost(conn, why);
    }

    if (conn->state == STOA_PG_READY
        && loop->now_ms(loop) - conn->up_at > 10000) {
        conn->fails = 0;
    }

    stoa_pg_conn_close(conn);

    loop->timer_cancel(loop, &conn->timer);
    loop->timer_cancel(loop, &conn->retry);

    if (conn->cancel != NULL) {
        stoa_pg_cancel(conn->cancel);
        conn->cancel = NULL;
    }

    stoa_pg_conn_set_state(conn, next);

    ending = stoa_pg_conn_collect(conn);
    stoa_pg_conn_reset(conn);

    if (next == STOA_PG_DOWN) {
        conn->fails++;
        pool->stats.reconnects++;
        loop->timer_set(loop, &conn->retry,
                        stoa_pg_pool_backoff(pool, conn->fails));
    }

    while ((op = ending) != NULL) {
        ending = op->next;

        if (op->failed) {
            /* refused before the end: it has certainly not happened */
            stoa_pg_op_answered(op);
        } else {
            stoa_pg_op_end(op, op->stmt->write ? STOA_E_COMMIT_UNKNOWN
                                               : STOA_E_DATABASE_UNAVAILABLE);
        }
    }

    stoa_pg_pool_down(pool);
}
