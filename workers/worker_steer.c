/*
 * What operators ask of the queues goes from PostgreSQL to Redis.  The leader
 * asks each second for canceled rows that Redis has yet to forget and for
 * what holds a queue up or limits it; it tells Redis, and says with its next
 * question which rows Redis was told of.  A leader that dies, or a Redis that
 * is away or was wiped, delays it and nothing more.
 *
 * A canceled row is dead in PostgreSQL at once, so that queue.done() says no
 * to whoever still runs it; the process that does hears with its next beat
 * that the lease is lost.
 */

#include "worker_engine.h"

#include <stdio.h>
#include <stdlib.h>

#include "../shared/stoa_str.h"

#define STEER_ROWS   100
#define STEER_TEXT   "100"
#define STEER_MEMORY 65536
#define STEER_AGAIN  8 /* rounds after which Redis is told once more */

_Static_assert(STEER_ROWS == 100, "STEER_TEXT says so");

typedef struct {
    worker_steer_t *steer;
    worker_queue_t *q;
    int             n;
    stoa_str_t      ids[STEER_ROWS];
} worker_steer_part_t;

struct worker_steer_s {
    worker_engine_t *engine;
    stoa_pg_op_t    *cancel; /* statements under way */
    stoa_pg_op_t    *control;
    stoa_mem_t      *mem; /* of the cancellations under way */
    unsigned         pending;
    uint64_t         rounds;
    char             told[STEER_ROWS * 21 + 3];       /* bigint[] as text */
    size_t           told_len;                        /* without its end */
    char             controls[WORKER_QUEUES_MAX][48]; /* as told last */
    const char      *values[2];
    int              lens[2];
};


/* ---- cancellations ---- */

static void
worker_steer_canceled(worker_steer_t *s)
{
    if (--s->pending == 0) {
        stoa_arena_destroy(s->mem);
        s->mem = NULL;
    }
}


static void
worker_steer_forgotten(stoa_redis_op_t *op, stoa_err_e err,
                       const stoa_redis_reply_t *reply, void *data)
{
    worker_steer_part_t *part = data;
    worker_steer_t      *s = part->steer;

    if (err == STOA_OK && stoa_redis_type(reply) == STOA_REDIS_INTEGER) {
        for (int i = 0; i < part->n; i++) {
            if (s->told_len > 1) {
                s->told[s->told_len++] = ',';
            }

            memcpy(s->told + s->told_len, part->ids[i].data, part->ids[i].len);
            s->told_len += part->ids[i].len;
        }
    }

    worker_steer_canceled(s);
}


/* Each row to the queue of its kind; one of no kind is where the relay put
   it. */
static void
worker_steer_sort(worker_steer_t *s, const stoa_pg_result_t *res,
                  worker_steer_part_t **parts)
{
    for (int i = 0; i < stoa_pg_rows(res); i++) {
        stoa_str_t           kind = stoa_pg_value(res, i, 1);
        const stoa_task_t   *row;
        stoa_class_e         cls;
        worker_steer_part_t *part;
        char                *id;

        row = stoa_task_find((const char *) kind.data, kind.len);
        cls = row != NULL ? row->cls : STOA_CLASS_CRON;
        part = parts[cls];

        if (part == NULL) {
            part = stoa_calloc(s->mem, sizeof(worker_steer_part_t));
        }

        id = stoa_strdup_z(s->mem, stoa_pg_value(res, i, 0));

        if (part == NULL || id == NULL) {
            return; /* the next round has the rest */
        }

        part->steer = s;
        part->q = &s->engine->queues[cls];
        part->ids[part->n++] = stoa_str_z(id);
        parts[cls] = part;
    }
}


static void
worker_steer_rows(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    worker_steer_t      *s = data;
    stoa_pg_result_t    *res;
    worker_steer_part_t *parts[WORKER_QUEUES_MAX] = { NULL };

    s->cancel = NULL;

    if (err != STOA_OK) {
        return; /* those that were told are told again */
    }

    s->told_len = 1;
    res = stoa_pg_take(op);

    if (res != NULL && stoa_pg_rows(res) > 0) {
        s->mem = stoa_arena_create(4096, STEER_MEMORY);
    }

    if (s->mem == NULL) {
        stoa_pg_result_free(res);
        return;
    }

    worker_steer_sort(s, res, parts);
    stoa_pg_result_free(res);
    s->pending = 1; /* until all are started */

    for (size_t i = 0; i < WORKER_QUEUES_MAX; i++) {
        if (parts[i] != NULL
            && worker_engine_eval(s->engine, WORKER_LUA_CANCEL, parts[i]->q,
                                  parts[i]->n, parts[i]->ids,
                                  worker_steer_forgotten, parts[i]))
        {
            s->pending++;
        }
    }

    worker_steer_canceled(s);
}


static void
worker_steer_cancel(worker_steer_t *s)
{
    stoa_err_e err;

    if (s->cancel != NULL || s->mem != NULL) {
        return;
    }

    s->told[s->told_len] = '}';
    s->told[s->told_len + 1] = '\0';
    s->values[0] = s->told;
    s->lens[0] = (int) s->told_len + 1;
    s->values[1] = STEER_TEXT;
    s->lens[1] = (int) sizeof(STEER_TEXT) - 1;
    s->cancel = stoa_pg_submit(s->engine->worker->pg,
                               &worker_stmts[WORKER_SQL_CANCELED], s->values,
                               s->lens, 0, worker_steer_rows, s, &err);
}


/* ---- pauses and limits ---- */

/* As the claim script reads them; an empty one is the class's own. */
static void
worker_steer_tell(worker_steer_t *s, worker_queue_t *q,
                  const stoa_pg_result_t *res, int row)
{
    static const char *const fields[] = { "paused", "most", "each" };

    char      *last = s->controls[q - s->engine->queues];
    char       key[104], now[48] = "";
    stoa_str_t argv[8];
    stoa_err_e err;
    int        n = 0;

    if (row >= 0) {
        (void) snprintf(now, sizeof(now), "%s %s %s",
                        (const char *) stoa_pg_value(res, row, 1).data,
                        (const char *) stoa_pg_value(res, row, 2).data,
                        (const char *) stoa_pg_value(res, row, 3).data);
    }

    if (strcmp(now, last) == 0 && s->rounds % STEER_AGAIN != 0) {
        return;
    }

    (void) snprintf(key, sizeof(key), "%s:ctl", q->key);
    argv[n++] = stoa_str_z(row < 0 ? "DEL" : "HSET");
    argv[n++] = stoa_str_z(key);

    for (int i = 0; row >= 0 && i < (int) stoa_nitems(fields); i++) {
        argv[n++] = stoa_str_z(fields[i]);
        argv[n++] = stoa_pg_value(res, row, i + 1);
    }

    if (stoa_redis_command(s->engine->worker->redis, n, argv, 0, NULL, NULL,
                           &err)
        == NULL)
    {
        return;
    }

    if (strcmp(now, last) != 0) {
        memcpy(last, now, sizeof(now));
        worker_engine_want(s->engine, q); /* it may go on now */
    }
}


static void
worker_steer_controls(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    worker_steer_t   *s = data;
    stoa_pg_result_t *res;

    s->control = NULL;
    res = err == STOA_OK ? stoa_pg_take(op) : NULL;

    if (res == NULL) {
        return;
    }

    for (size_t i = 1; i < WORKER_QUEUES_MAX; i++) {
        worker_queue_t *q = &s->engine->queues[i];
        int             row = stoa_pg_rows(res) - 1;

        while (row >= 0
               && !stoa_str_eq_z(stoa_pg_value(res, row, 0), q->cls.queue)) {
            row--;
        }

        worker_steer_tell(s, q, res, row);
    }

    stoa_pg_result_free(res);
}


void
worker_steer_tick(worker_steer_t *s)
{
    stoa_err_e err;

    s->rounds++;
    worker_steer_cancel(s);

    if (s->control == NULL) {
        s->control = stoa_pg_submit(s->engine->worker->pg,
                                    &worker_stmts[WORKER_SQL_CONTROLS], NULL,
                                    NULL, 0, worker_steer_controls, s, &err);
    }
}


worker_steer_t *
worker_steer_create(worker_engine_t *e)
{
    worker_steer_t *s = calloc(1, sizeof(worker_steer_t));

    if (s != NULL) {
        s->engine = e;
        s->told[0] = '{';
        s->told_len = 1;
    }

    return s;
}


void
worker_steer_destroy(worker_steer_t *s)
{
    if (s == NULL) {
        return;
    }

    if (s->cancel != NULL) {
        stoa_pg_cancel(s->cancel);
    }

    if (s->control != NULL) {
        stoa_pg_cancel(s->control);
    }

    if (s->mem != NULL) {
        stoa_arena_destroy(s->mem);
    }

    free(s);
}
