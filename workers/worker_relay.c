/*
 * From the outbox to Redis, and again after Redis lost something.
 *
 * The relay looks (queue.peek: rows in state 0 that are due within 60 s),
 * puts them into Redis, and only then marks them (queue.sent).  A crash
 * between any two of these leaves the rows in state 0; they are looked at
 * again, and the id makes the second enqueue a no-op.  So no transaction
 * stays open over the network and no row is ever stranded.  Two relays may
 * see the same rows for the same reason; a row that was looked at, run and
 * finished by others in between is enqueued once more at worst, and its run
 * finds that queue.done() says no.
 *
 * No unique key travels along: the outbox's own unique index is its guard,
 * and a key that Redis still held for a finished task would make a new one
 * disappear.
 *
 * The sweep (queue.sweep) takes rows that were sent long ago and not
 * finished: a wiped or rolled-back Redis gets them back, one that knows them
 * ignores them, and one that holds them dead says so, for queue.dead().
 */

#include "worker_engine.h"

#include <stdio.h>
#include <stdlib.h>

#include "../shared/stoa_str.h"
#include "../shared/stoa_time.h"

#define RELAY_ROWS   100 /* times RELAY_WIDTH arguments: one call per queue */
#define RELAY_WIDTH  8
#define RELAY_GAP_MS 20
#define RELAY_MEMORY (16 * 1024 * 1024)

typedef struct {
    worker_relay_t *relay;
    worker_queue_t *q;
    unsigned        n;
    stoa_str_t      ids[RELAY_ROWS];
    stoa_str_t      args[RELAY_ROWS * RELAY_WIDTH];
} worker_batch_t;

struct worker_relay_s {
    worker_engine_t *engine;
    stoa_mem_t      *mem; /* of the round under way */
    stoa_pg_op_t    *op;
    stoa_timer_t     gap;
    worker_batch_t  *batches[WORKER_QUEUES_MAX];
    unsigned         pending;
    bool             busy;
    bool             again; /* kicked while busy */
    bool             sweep; /* this round's kind */
    bool             want_sweep;
    bool             armed;
    bool             full; /* as many rows as were asked for */
    stoa_buf_t       sent; /* ids as int8[] */
    const char      *values[1];
    int              lens[1];
};

static void worker_relay_start(worker_relay_t *r);


static void
worker_relay_end(worker_relay_t *r, bool failed)
{
    bool again = (r->again || r->want_sweep) && !failed;
    bool full = r->full && !failed;

    if (r->mem != NULL) {
        stoa_arena_destroy(r->mem);
        r->mem = NULL;
    }

    r->busy = false;
    r->full = false;

    for (size_t i = 0; i < WORKER_QUEUES_MAX; i++) {
        r->batches[i] = NULL;
    }

    if (full) {
        worker_relay_start(r);

    } else if (again) {
        worker_relay_kick(r);
    }
}


static void
worker_relay_marked(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    worker_relay_t *r = data;

    r->op = NULL;
    worker_relay_end(r, err != STOA_OK);
}


/* Every queue has answered: the rows that Redis has are marked. */
static void
worker_relay_mark(worker_relay_t *r)
{
    stoa_err_e err;

    if (r->sweep || r->sent.len <= 1) {
        worker_relay_end(r, r->sent.failed);
        return;
    }

    stoa_buf_char(&r->sent, '}');
    stoa_buf_nul(&r->sent);

    if (r->sent.failed) {
        worker_relay_end(r, true);
        return;
    }

    r->values[0] = (const char *) r->sent.data;
    r->lens[0] = (int) r->sent.len;
    r->op = stoa_pg_submit(r->engine->worker->pg,
                           &worker_stmts[WORKER_SQL_SENT], r->values, r->lens,
                           0, worker_relay_marked, r, &err);

    if (r->op == NULL) {
        worker_relay_end(r, true);
    }
}


static void
worker_relay_accept(worker_batch_t *b, unsigned i, stoa_str_t answer)
{
    worker_relay_t *r = b->relay;
    stoa_str_t      reason;

    if (answer.len >= 5 && memcmp(answer.data, "dead ", 5) == 0) {
        reason.data = answer.data + 5;
        reason.len = answer.len - 5;
        worker_dead_row(b->q, b->ids[i], reason);
        return;
    }

    if (r->sent.len > 1) {
        stoa_buf_char(&r->sent, ',');
    }

    stoa_buf_str(&r->sent, b->ids[i]);
}


static void
worker_relay_enqueued(stoa_redis_op_t *op, stoa_err_e err,
                      const stoa_redis_reply_t *reply, void *data)
{
    worker_batch_t *b = data;
    worker_relay_t *r = b->relay;
    worker_t       *w = r->engine->worker;

    if (err == STOA_OK && stoa_redis_type(reply) == STOA_REDIS_ARRAY
        && stoa_redis_count(reply) == b->n)
    {
        for (unsigned i = 0; i < b->n; i++) {
            worker_relay_accept(b, i, stoa_redis_str(stoa_redis_at(reply, i)));
        }

        w->counts[STOA_M_task_relayed] += b->n;
        worker_engine_want(r->engine, b->q);

    } else {
        stoa_log(w->log, STOA_LOG_WARN,
                 "relay: %u rows stay in the outbox, "
                 "redis did not take them",
                 b->n);
    }

    if (--r->pending == 0) {
        worker_relay_mark(r);
    }
}


static worker_batch_t *
worker_relay_batch(worker_relay_t *r, stoa_class_e cls)
{
    worker_batch_t *b = r->batches[cls];

    if (b == NULL) {
        b = stoa_calloc(r->mem, sizeof(worker_batch_t));

        if (b != NULL) {
            b->relay = r;
            b->q = &r->engine->queues[cls];
            r->batches[cls] = b;
        }
    }

    return b;
}


static int64_t
worker_relay_int(const stoa_pg_result_t *res, int row, int col)
{
    int64_t n = 0;

    if (!stoa_str_int(stoa_pg_value(res, row, col), INT64_MIN, INT64_MAX, &n)) {
        return 0;
    }

    return n;
}


/* One row: id, kind, payload, uniq, reply_to, delay_ms, created_ms, tenant. */
static bool
worker_relay_row(worker_relay_t *r, const stoa_pg_result_t *res, int row)
{
    stoa_envelope_t    env = { 0 };
    stoa_class_row_t  *cls;
    stoa_class_e       number = STOA_CLASS_CRON;
    worker_batch_t    *b;
    stoa_buf_t         text, level;
    stoa_str_t        *args;
    const char        *why;
    const stoa_task_t *task;

    env.id = stoa_pg_value(res, row, 0);
    env.kind = stoa_pg_value(res, row, 1);
    env.payload = stoa_pg_value(res, row, 2);
    env.reply_to = stoa_pg_value(res, row, 4); /* empty when null */
    env.created_ms = worker_relay_int(res, row, 6);
    env.outbox = worker_relay_int(res, row, 0);
    task = stoa_task_find((const char *) env.kind.data, env.kind.len);

    if (task != NULL) {
        number = task->cls;
        env.level = task->level;
    } /* else some runner says no_handler */

    b = worker_relay_batch(r, number);

    if (b == NULL) {
        return false;
    }

    cls = &b->q->cls;
    env.queue = stoa_str_z(cls->queue);
    env.attempts = cls->attempts;

    /* from when it is due, so that a redriven row has its time again */
    if (cls->give_up_s != 0) {
        env.give_up_ms = stoa_time_ms() + worker_relay_int(res, row, 5)
                       + (int64_t) cls->give_up_s * 1000;
    }

    stoa_buf_init(&text, r->mem, env.payload.len + 512,
                  STOA_ENVELOPE_MAX + 1024);

    if (!stoa_queue_encode(&text, &env, &why)) {
        worker_dead_row(b->q, env.id, stoa_str_z(why));
        return true;
    }

    stoa_buf_init(&level, r->mem, 16, 16);
    stoa_buf_int(&level, env.level);
    args = &b->args[b->n * RELAY_WIDTH];
    args[0] = env.id;
    args[1] = stoa_buf_view(&level);
    args[2] = stoa_pg_value(res, row, 5);
    args[3] = (stoa_str_t) stoa_string("");
    args[4] = (stoa_str_t) stoa_string("0");
    args[5] = stoa_buf_view(&text);
    args[6] = stoa_str_z(r->sweep ? "s" : "n");
    args[7] = stoa_pg_value(res, row, 7); /* empty when null */
    b->ids[b->n++] = env.id;
    return !level.failed;
}


static void
worker_relay_free_result(void *data)
{
    stoa_pg_result_free(data);
}


static void
worker_relay_send(worker_relay_t *r)
{
    r->pending = 1; /* until all are started */

    for (size_t i = 0; i < WORKER_QUEUES_MAX; i++) {
        worker_batch_t *b = r->batches[i];

        if (b == NULL || b->n == 0) {
            continue;
        }

        if (worker_engine_eval(r->engine, WORKER_LUA_ENQUEUE, b->q,
                               (int) b->n * RELAY_WIDTH, b->args,
                               worker_relay_enqueued, b))
        {
            r->pending++;
        }
    }

    if (--r->pending == 0) {
        worker_relay_mark(r);
    }
}


static void
worker_relay_rows(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    worker_relay_t   *r = data;
    stoa_pg_result_t *res;
    int               n;

    r->op = NULL;

    if (err != STOA_OK) {
        if (err != STOA_E_DATABASE_UNAVAILABLE) {
            stoa_log(r->engine->worker->log, STOA_LOG_ERROR,
                     "relay: cannot read the outbox, sqlstate %s",
                     stoa_pg_sqlstate(op));
        }

        worker_relay_end(r, true);
        return;
    }

    res = stoa_pg_take(op);

    if (res == NULL) {
        worker_relay_end(r, true);
        return;
    }

    if (!r->mem->on_free(r->mem->ctx, worker_relay_free_result, res)) {
        stoa_pg_result_free(res);
        worker_relay_end(r, true);
        return;
    }

    n = stoa_pg_rows(res);
    r->full = n == RELAY_ROWS;
    stoa_buf_init(&r->sent, r->mem, 1024, RELAY_ROWS * 24 + 16);
    stoa_buf_char(&r->sent, '{');

    for (int i = 0; i < n; i++) {
        if (!worker_relay_row(r, res, i)) {
            worker_relay_end(r, true);
            return;
        }
    }

    worker_relay_send(r);
}


static void
worker_relay_start(worker_relay_t *r)
{
    static const char rows[] = "100";
    worker_t         *w = r->engine->worker;
    stoa_err_e        err;

    _Static_assert(RELAY_ROWS == 100, "the text above");

    if (!stoa_pg_pool_ready(w->pg) || !stoa_redis_ready(w->redis)
        || r->engine->stopping)
    {
        return; /* the leader's timer asks again */
    }

    r->mem = stoa_arena_create(16384, RELAY_MEMORY);

    if (r->mem == NULL) {
        return;
    }

    r->busy = true;
    r->sweep = r->want_sweep;
    r->want_sweep = false;
    r->again = false;
    r->values[0] = rows;
    r->lens[0] = (int) (sizeof(rows) - 1);
    r->op = stoa_pg_submit(w->pg,
                           &worker_stmts[r->sweep ? WORKER_SQL_SWEEP
                                                  : WORKER_SQL_PEEK],
                           r->values, r->lens, 0, worker_relay_rows, r, &err);

    if (r->op == NULL) {
        worker_relay_end(r, true);
    }
}


static void
worker_relay_fire(stoa_timer_t *timer)
{
    worker_relay_t *r = timer->data;

    r->armed = false;

    if (!r->busy && (r->again || r->want_sweep)) {
        worker_relay_kick(r);
    }
}


/* The first look is at once, the next one keeps a gap. */
void
worker_relay_kick(worker_relay_t *r)
{
    stoa_loop_t *loop = r->engine->worker->loop;

    if (r->busy || r->armed) {
        r->again = true;
        return;
    }

    r->armed = true;
    loop->timer_set(loop, &r->gap, RELAY_GAP_MS);
    worker_relay_start(r);
}


void
worker_relay_sweep(worker_relay_t *r)
{
    r->want_sweep = true;
    worker_relay_kick(r);
}


worker_relay_t *
worker_relay_create(worker_engine_t *e)
{
    worker_relay_t *r = calloc(1, sizeof(worker_relay_t));

    if (r != NULL) {
        r->engine = e;
        r->gap.fire = worker_relay_fire;
        r->gap.data = r;
    }

    return r;
}


void
worker_relay_destroy(worker_relay_t *r)
{
    if (r == NULL) {
        return;
    }

    if (r->op != NULL) {
        stoa_pg_cancel(r->op);
    }

    r->engine->worker->loop->timer_close(r->engine->worker->loop, &r->gap);

    if (r->mem != NULL) {
        stoa_arena_destroy(r->mem);
    }

    free(r);
}
