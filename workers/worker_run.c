/*
 * The driver of one task: runs the steps of its flow, or its one statement,
 * within the run limit, and decides what its end means.
 *
 * A step runs when nothing is pending.  Completions only count down and
 * defer the driver to the end of the loop's turn, so no door's callback ever
 * finds its task gone.  When a task has ended, its verdict is judged here:
 * attempts used up or given up in time turn a retry into death, and a death
 * is first written to PostgreSQL (queue.dead) and then told to Redis.
 *
 * PostgreSQL away, saturated, or a commit whose fate is unknown is never the
 * task's fault: it is snoozed.  queue.done() in the effect's transaction
 * makes the second run harmless.
 */

#include "worker_engine.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../shared/stoa_str.h"

#define ANSWER_MAX        (8 * 1024 * 1024)
#define AWAY_DELAY_MS     1000
#define AWAY_SPREAD_MS    4000
#define CONFLICT_DELAY_MS 50
#define SNOOZE_MAX_MS     (24 * 3600 * 1000)

static worker_step_e worker_sql_call(worker_task_t *t);
static void          worker_task_finish(worker_task_t *t);

static const worker_step_t worker_sql_steps[] = {
    { "call", worker_sql_call },
    worker_steps_end,
};

const stoa_pg_stmt_t worker_stmts[WORKER_SQL_COUNT] = {
#define WORKER_STMT(stmt, n, writes, text)                                     \
    [WORKER_SQL_##stmt] = {                                                    \
        .name = "worker_" #stmt,                                               \
        .sql = text,                                                           \
        .nparams = (n),                                                        \
        .write = (writes),                                                     \
        .slot = WORKER_SQL_##stmt,                                             \
    },
#include "worker_stmt.def"
#undef WORKER_STMT
};

const worker_step_t *const worker_flows[STOA_TASK_FLOW_COUNT] = {
    [STOA_TASK_FLOW_MAIL_SEND] = worker_mail_steps,
    [STOA_TASK_FLOW_PAYMENT_CREATE] = worker_pay_create_steps,
    [STOA_TASK_FLOW_REFUND_EXECUTE] = worker_pay_refund_steps,
    [STOA_TASK_FLOW_PAYMENT_RECONCILE] = worker_pay_reconcile_steps,
    [STOA_TASK_FLOW_TEST_PAY] = worker_testpay_steps,
    [STOA_TASK_FLOW_TICKET_RENDER] = worker_render_steps,
    [STOA_TASK_FLOW_PAYMENT_CANCEL] = worker_pay_cancel_steps,
};

_Static_assert(STOA_TASK_FLOW_COUNT == 8, "a flow has no steps");


/* ---- crash points ---- */

#ifdef STOA_TEST

void
worker_crash_point(const char *point)
{
    const char *armed = getenv("STOA_CRASH");
    const char *once = getenv("STOA_CRASH_ONCE");
    int         fd;

    if (armed == NULL || strcmp(armed, point) != 0) {
        return;
    }

    if (once != NULL) {
        fd = open(once, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

        if (fd < 0) {
            return;
        }

        (void) close(fd); /* it exists: that is all it is for */
    }

    (void) kill(getpid(), SIGKILL);
    _exit(137);
}


static void
worker_task_crash_point(worker_task_t *t, const char *point)
{
    char name[128];

    (void) snprintf(name, sizeof(name), "%s.%s", t->row->kind, point);
    worker_crash_point(name);
}

#else
#define worker_task_crash_point(t, point) ((void) 0)
#endif


/* ---- the driver ---- */

/* A suspect whose row is gone was done by the run that died. */
static void
worker_task_told(worker_task_t *t)
{
    if (t->res != NULL && stoa_pg_rows(t->res) == 1
        && stoa_str_eq_z(stoa_pg_value(t->res, 0, 0), "t"))
    {
        stoa_log(t->worker->log, STOA_LOG_NOTICE,
                 "task %s %s: was done before its process died", t->id_z,
                 t->row->kind);
        (void) worker_done(t, (stoa_str_t) stoa_null_string);
    }

    stoa_pg_result_free(t->res);
    t->res = NULL;
}


/*
 * Whoever runs alone did not end the first time: either it killed its
 * process, or it was done and its end was not heard.  The latter must not
 * run again, lest it is blamed for what happens to this process.
 */
static void
worker_task_ask(worker_task_t *t)
{
    worker_step_e rc;

    t->running = true;
    t->asked = true;
    rc = worker_pg(t, WORKER_SQL_GONE, t->id_z);
    t->running = false;

    if (rc == WORKER_FAIL) {
        (void) worker_retry(t, "short of memory", 0);
    }

    if (t->ended) {
        worker_task_finish(t);
    }
}


static void
worker_task_drive(worker_task_t *t)
{
    worker_step_e rc;

    if (t->running) {
        return;
    }

    t->running = true;

    if (t->asked && t->pending == 0 && !t->ended) {
        t->asked = false;
        worker_task_told(t);
    }

    while (!t->ended && t->pending == 0) {
        const worker_step_t *step = t->step;

        if (step->run == NULL) {
            if (worker_answer(t) != WORKER_DONE) {
                (void) worker_retry(t, "the flow ended without a result", 0);
            }

            break;
        }

        t->step++;
        stoa_log(t->worker->log, STOA_LOG_DEBUG, "task %s %s: %s", t->id_z,
                 t->row->kind, step->name);
        rc = step->run(t);

        if (rc == WORKER_FAIL && !t->ended) {
            (void) worker_retry(t, "short of memory", 0);
        }

        if (rc == WORKER_DONE && !t->ended) {
            (void) worker_retry(t, "a step ended nothing", 0);
        }
    }

    t->running = false;

    if (t->ended) {
        worker_task_finish(t);
    }
}


static void
worker_task_resumed(stoa_defer_t *d)
{
    worker_task_drive(d->data);
}


static void
worker_task_timeout(stoa_timer_t *timer)
{
    worker_task_t *t = timer->data;

    if (!t->ended) {
        (void) worker_retry(t, "the run limit passed", 0);
        worker_task_finish(t);
    }
}


static void
worker_task_free_result(void *data)
{
    worker_task_t *t = data;

    stoa_pg_result_free(t->res);
    t->res = NULL;
}


static void
worker_task_init(worker_task_t *t)
{
    t->timer.fire = worker_task_timeout;
    t->timer.data = t;
    t->resume.run = worker_task_resumed;
    t->resume.data = t;
}


void
worker_task_start(worker_task_t *t)
{
    stoa_loop_t *loop = t->worker->loop;
    uint64_t     now = loop->now_ms(loop);

    worker_task_init(t);
    t->steps = t->sql != NULL ? worker_sql_steps : worker_flows[t->row->flow];
    t->step = t->steps;

    if (t->steps == NULL) {
        worker_task_bury(t, "no_handler");
        return;
    }

    if (!t->mem->on_free(t->mem->ctx, worker_task_free_result, t)) {
        (void) worker_retry(t, "short of memory", 0);
        worker_task_finish(t);
        return;
    }

    loop->timer_set(loop, &t->timer,
                    t->deadline_ms > now ? t->deadline_ms - now : 1);
    if (((worker_lease_t *) t->lease)->alone && t->id != 0) {
        worker_task_ask(t);

    } else {
        worker_task_drive(t);
    }
}


/* Everything it waits for is dropped; the memory goes when no thread uses
   it any more. */
void
worker_task_abort(worker_task_t *t)
{
    stoa_loop_t *loop = t->worker->loop;

    loop->timer_close(loop, &t->timer);
    loop->defer_close(loop, &t->resume);

    if (t->op != NULL) {
        stoa_pg_cancel(t->op);
        t->op = NULL;
    }

    t->ended = true;
    t->gone = true;

    if (t->threads == 0) {
        stoa_arena_destroy(t->mem);
    }
}


/* ---- ends ---- */

static void
worker_task_log(worker_task_t *t, stoa_log_level_e level, const char *what,
                uint32_t delay_ms)
{
    stoa_log(t->worker->log, level, "task %s %s: %s, attempt %u, in %u ms: %s",
             t->id_z, t->row != NULL ? t->row->kind : "?", what, t->attempt,
             delay_ms, t->reason);
}


static void
worker_task_buried(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    worker_task_t    *t = data;
    stoa_pg_result_t *res;
    bool              gone;

    t->op = NULL;

    if (err != STOA_OK) {
        worker_lease_end(t, WORKER_END_SNOOZE, t->reason, AWAY_DELAY_MS);
        return;
    }

    res = stoa_pg_take(op);
    gone = res != NULL && stoa_pg_rows(res) == 1
        && stoa_str_eq_z(stoa_pg_value(res, 0, 1), "t");
    stoa_pg_result_free(res);

    if (gone) { /* an earlier run did it, whose answer was lost */
        worker_lease_end(t, WORKER_END_DONE, NULL, 0);
        return;
    }

    worker_task_log(t, STOA_LOG_ERROR, "dead", 0);
    worker_lease_end(t, WORKER_END_DEAD, t->reason, 0);
}


static void
worker_task_write_dead(worker_task_t *t)
{
    const char **values = stoa_calloc(t->mem, 2 * sizeof(char *));
    int         *lens = stoa_calloc(t->mem, 2 * sizeof(int));
    stoa_err_e   err;

    if (t->id == 0) { /* stands for no row */
        worker_task_log(t, STOA_LOG_ERROR, "dead", 0);
        worker_lease_end(t, WORKER_END_DEAD, t->reason, 0);
        return;
    }

    if (values == NULL || lens == NULL) {
        worker_lease_end(t, WORKER_END_SNOOZE, t->reason, AWAY_DELAY_MS);
        return;
    }

    values[0] = t->id_z;
    values[1] = t->reason;
    lens[0] = (int) strlen(values[0]);
    lens[1] = (int) strlen(values[1]);
    t->op = stoa_pg_submit(t->worker->pg, &worker_stmts[WORKER_SQL_DEAD],
                           values, lens, 0, worker_task_buried, t, &err);

    if (t->op == NULL) {
        worker_lease_end(t, WORKER_END_SNOOZE, t->reason, AWAY_DELAY_MS);
    }
}


/* Attempts and time turn a retry, and time a snooze, into death. */
static void
worker_task_judge(worker_task_t *t)
{
    worker_lease_t *l = t->lease;
    stoa_loop_t    *loop = t->worker->loop;
    uint64_t        now;
    int64_t         redis_ms;

    if (t->end != WORKER_END_RETRY && t->end != WORKER_END_SNOOZE) {
        return;
    }

    if (t->end == WORKER_END_RETRY && l->attempts != 0
        && t->failures + 1 >= l->attempts)
    {
        t->end = WORKER_END_DEAD;
        return;
    }

    now = loop->now_ms(loop);
    redis_ms = l->claimed_ms + (int64_t) (now - l->claimed_at) + t->delay_ms;

    if (l->give_up_ms != 0 && redis_ms > l->give_up_ms) {
        t->end = WORKER_END_DEAD;
    }
}


static void
worker_task_reply(worker_task_t *t)
{
    worker_t  *w = t->worker;
    stoa_buf_t channel, message;
    stoa_str_t argv[3];
    stoa_err_e err;

    if (t->reply_to.len == 0) {
        return;
    }

    stoa_buf_init(&channel, t->mem, 128, 1024);
    stoa_buf_z(&channel, w->conf->redis_prefix);
    stoa_buf_z(&channel, "reply:");
    stoa_buf_str(&channel, t->reply_to);
    stoa_buf_init(&message, t->mem, t->reply.len + 64, ANSWER_MAX);
    stoa_buf_z(&message, t->id_z);
    stoa_buf_char(&message, '\n');
    stoa_buf_str(&message, t->reply);

    if (channel.failed || message.failed) {
        return; /* the request answers 202; the result is in its row */
    }

    argv[0] = (stoa_str_t) stoa_string("PUBLISH");
    argv[1] = stoa_buf_view(&channel);
    argv[2] = stoa_buf_view(&message);
    (void) stoa_redis_command(w->redis, 3, argv, 0, NULL, NULL, &err);
}


static void
worker_task_finish(worker_task_t *t)
{
    stoa_loop_t *loop = t->worker->loop;

    if (t->running || t->finished) {
        return; /* the driver calls again; an operation came late */
    }

    t->finished = true;
    loop->timer_cancel(loop, &t->timer);
    loop->defer_close(loop, &t->resume);

    if (t->op != NULL) {
        stoa_pg_cancel(t->op);
        t->op = NULL;
    }

    worker_task_judge(t);

    switch ((worker_end_e) t->end) {

    case WORKER_END_DONE:
        worker_task_reply(t);
        stoa_log(t->worker->log, STOA_LOG_INFO, "task %s %s: done", t->id_z,
                 t->row->kind);
        worker_lease_end(t, WORKER_END_DONE, NULL, 0);
        return;

    case WORKER_END_RETRY:
        worker_task_log(t, STOA_LOG_WARN, "failed", t->delay_ms);
        worker_lease_end(t, WORKER_END_RETRY, t->reason, t->delay_ms);
        return;

    case WORKER_END_SNOOZE:
        worker_task_log(t, STOA_LOG_INFO, "snoozed", t->delay_ms);
        worker_lease_end(t, WORKER_END_SNOOZE, t->reason, t->delay_ms);
        return;

    case WORKER_END_DEAD:
        worker_task_write_dead(t);
        return;

    case WORKER_END_RELEASE:
        worker_lease_end(t, WORKER_END_RELEASE, NULL, 0);
        return;
    }
}


static worker_step_e
worker_task_set_end(worker_task_t *t, worker_end_e end, const char *reason,
                    uint32_t delay_ms)
{
    stoa_buf_t b;

    if (t->ended) {
        return WORKER_DONE; /* the first verdict stands */
    }

    stoa_buf_init(&b, t->mem, 64, 512);

    if (t->steps != NULL && t->step != t->steps && end == WORKER_END_RETRY) {
        stoa_buf_printf(&b, "%s: ", (t->step - 1)->name);
    }

    stoa_buf_printf(&b, "%.120s", reason != NULL ? reason : "");
    stoa_buf_nul(&b);
    t->reason = b.failed ? "short of memory" : (const char *) b.data;
    t->end = (int) end;
    t->delay_ms = delay_ms;
    t->ended = true;
    return WORKER_DONE;
}


worker_step_e
worker_done(worker_task_t *t, stoa_str_t reply)
{
    t->reply = reply;
    return worker_task_set_end(t, WORKER_END_DONE, NULL, 0);
}


worker_step_e
worker_retry(worker_task_t *t, const char *reason, uint32_t delay_ms)
{
    if (delay_ms == 0) {
        delay_ms = stoa_queue_backoff(t->cls, t->failures,
                                      worker_engine_random(t->worker->engine));
    }

    return worker_task_set_end(t, WORKER_END_RETRY, reason, delay_ms);
}


worker_step_e
worker_snooze(worker_task_t *t, const char *reason, uint32_t delay_ms)
{
    return worker_task_set_end(t, WORKER_END_SNOOZE, reason,
                               delay_ms != 0 ? delay_ms : AWAY_DELAY_MS);
}


worker_step_e
worker_dead(worker_task_t *t, const char *reason)
{
    return worker_task_set_end(t, WORKER_END_DEAD, reason, 0);
}


void
worker_task_bury(worker_task_t *t, const char *reason)
{
    worker_task_init(t);
    (void) worker_task_set_end(t, WORKER_END_DEAD, reason, 0);
    worker_task_finish(t);
}


/* ---- statements ---- */

/* A statement failed: whose fault is it? */
static void
worker_pg_failed(worker_task_t *t, stoa_err_e err, const char *sqlstate,
                 const char *message)
{
    uint64_t random = worker_engine_random(t->worker->engine);
    char     reason[64];

    if (err == STOA_E_DATABASE_UNAVAILABLE || err == STOA_E_POOL_SATURATED
        || err == STOA_E_COMMIT_UNKNOWN || err == STOA_E_NO_MEMORY)
    {
        (void) worker_snooze(t, stoa_err_row(err)->code,
                             AWAY_DELAY_MS
                                 + (uint32_t) (random % AWAY_SPREAD_MS));
        return;
    }

    if (strcmp(sqlstate, "40001") == 0 || strcmp(sqlstate, "40P01") == 0) {
        (void) worker_snooze(t, "serialization",
                             1 + (uint32_t) (random % CONFLICT_DELAY_MS));
        return;
    }

    stoa_log(t->worker->log, STOA_LOG_ERROR, "task %s %s: postgresql: %s",
             t->id_z, t->row->kind, message);
    (void) snprintf(reason, sizeof(reason), "%s, sqlstate %s",
                    stoa_err_row(err)->code, sqlstate);
    (void) worker_retry(t, reason, 0);
}


/* Row 0, column 0 as an object. */
static bool
worker_pg_answer(worker_task_t *t)
{
    stoa_json_fault_t fault;
    stoa_str_t        text;

    t->answer = NULL;

    if (t->res == NULL || stoa_pg_rows(t->res) == 0
        || stoa_pg_null(t->res, 0, 0)) {
        return true;
    }

    text = stoa_pg_value(t->res, 0, 0);

    if (text.len == 0 || text.data[0] != '{') {
        return true;
    }

    t->answer = stoa_json_parse(t->mem, text, &fault);
    return t->answer != NULL;
}


static void
worker_pg_done(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    worker_task_t *t = data;

    t->op = NULL;

    if (err != STOA_OK) {
        worker_pg_failed(t, err, stoa_pg_sqlstate(op), stoa_pg_message(op));
        t->pending--;
        t->worker->loop->defer(t->worker->loop, &t->resume);
        return;
    }

    stoa_pg_result_free(t->res);
    t->res = stoa_pg_take(op);

    if (!worker_pg_answer(t)) {
        (void) worker_retry(t, "the statement's answer is no JSON", 0);
    }

    worker_resume(t);
}


static worker_step_e
worker_pg_start(worker_task_t *t, const stoa_pg_stmt_t *stmt,
                const char *const *values)
{
    int       *lens = stoa_calloc(t->mem, 64 * sizeof(int));
    stoa_err_e err = STOA_E_NO_MEMORY;

    if (lens == NULL) {
        return WORKER_FAIL;
    }

    for (unsigned i = 0; i < stmt->nparams; i++) {
        lens[i] = values[i] != NULL ? (int) strlen(values[i]) : 0;
    }

    worker_wait(t);
    t->op = stoa_pg_submit(t->worker->pg, stmt, values, lens, 0, worker_pg_done,
                           t, &err);

    if (t->op == NULL) {
        t->pending--;
        worker_pg_failed(t, err, "", "");
        return WORKER_DONE;
    }

    return WORKER_WAIT;
}


worker_step_e
worker_pg(worker_task_t *t, worker_sql_e sql, ...)
{
    const stoa_pg_stmt_t *stmt = &worker_stmts[sql];
    const char          **values;
    va_list               args;

    values = stoa_calloc(t->mem, 64 * sizeof(char *));

    if (values == NULL) {
        return WORKER_FAIL;
    }

    va_start(args, sql);

    for (unsigned i = 0; i < stmt->nparams; i++) {
        values[i] = va_arg(args, const char *);
    }

    va_end(args);
    return worker_pg_start(t, stmt, values);
}


static worker_step_e
worker_sql_call(worker_task_t *t)
{
    const char **values = stoa_calloc(t->mem, 2 * sizeof(char *));

    if (values == NULL) {
        return WORKER_FAIL;
    }

    values[0] = t->id_z;
    values[1] = t->payload_z;
    worker_task_crash_point(t, "claimed");
    return worker_pg_start(t, t->sql, values);
}


worker_step_e
worker_answer(worker_task_t *t)
{
    stoa_json_t *v;
    stoa_str_t   result, text = stoa_null_string;
    stoa_buf_t   b;
    int64_t      ms;
    char        *reason;

    v = t->answer != NULL ? stoa_json_get(t->answer, "result") : NULL;

    if (v == NULL || stoa_json_type(v) != STOA_JSON_STRING) {
        return WORKER_NEXT;
    }

    result = stoa_json_str(v);

    if (stoa_str_eq_z(result, "done")) {
        v = stoa_json_get(t->answer, "reply");

        if (v != NULL && stoa_json_type(v) != STOA_JSON_NULL) {
            stoa_buf_init(&b, t->mem, 512, ANSWER_MAX);
            stoa_json_write(&b, v);
            text = b.failed ? text : stoa_buf_view(&b);
        }

        if (t->sql != NULL) {
            worker_task_crash_point(t, "done");
        }

        return worker_done(t, text);
    }

    if (stoa_str_eq_z(result, "snooze")) {
        v = stoa_json_get(t->answer, "delayMs");
        ms = v != NULL && stoa_json_type(v) == STOA_JSON_INT ? stoa_json_int(v)
                                                             : 0;
        ms = ms < 0 ? 0 : ms > SNOOZE_MAX_MS ? SNOOZE_MAX_MS : ms;
        return worker_snooze(t, "not yet", (uint32_t) ms);
    }

    if (stoa_str_eq_z(result, "dead")) {
        v = stoa_json_get(t->answer, "reason");
        reason = v != NULL && stoa_json_type(v) == STOA_JSON_STRING
                   ? stoa_strdup_z(t->mem, stoa_json_str(v))
                   : NULL;
        return worker_dead(t, reason != NULL ? reason : "refused");
    }

    return WORKER_NEXT;
}


/* ---- other doors ---- */

worker_step_e
worker_goto(worker_task_t *t, worker_step_pt step)
{
    for (const worker_step_t *s = t->steps; s->run != NULL; s++) {
        if (s->run == step) {
            t->step = s;
            return WORKER_NEXT;
        }
    }

    stoa_bug("a flow went to a step of another flow");
    return WORKER_FAIL;
}


void
worker_wait(worker_task_t *t)
{
    t->pending++;
}


void
worker_resume(worker_task_t *t)
{
    t->pending--;
    t->worker->loop->defer(t->worker->loop, &t->resume);
}


static void
worker_computed(void *data)
{
    worker_task_t *t = data;

    t->threads--;

    if (!t->gone) {
        worker_resume(t);

    } else if (t->threads == 0) {
        stoa_arena_destroy(t->mem);
    }
}


worker_step_e
worker_compute(worker_task_t *t, void (*work)(void *arg), void *arg)
{
    if (!worker_host_compute(t->worker->engine->host, work, arg,
                             worker_computed, t))
    {
        return WORKER_FAIL;
    }

    t->threads++;
    worker_wait(t);
    return WORKER_WAIT;
}
