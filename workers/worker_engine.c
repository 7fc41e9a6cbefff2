/*
 * The queue engine of one process: claims tasks and hears wake tokens.  The
 * moves are Lua (worker_lua.c), what is held is worker_lease.c's, the running
 * of a task is worker_run.c's.
 *
 * Wake tokens are popped by a connection of their own that never blocks
 * longer than 2 s, after which every queue is asked anyway, so no lost token
 * and no silent connection stops the process.  Never more is claimed than
 * can run at once: a claimed task is a running task.  A claim that came back
 * full pushes one more token first, so a burst wakes the processes in a
 * chain.
 *
 * Suspects (their lease ran out) run alone: only a process that holds
 * nothing claims one, one claim at a time, and it claims nothing else until
 * that run ended.  So that they do not starve under load, the leader stops
 * claiming while there are suspects until it holds nothing.
 */

#include "worker_engine.h"

#include <stdio.h>
#include <stdlib.h>

#include "../shared/stoa_str.h"

#define POP_SECONDS    "2"
#define POP_TIMEOUT_MS 5000
#define POP_RETRY_MS   200
#define CLAIM_HEADER   2
#define CLAIM_WIDTH    7
#define TASK_BLOCK     4096
#define TASK_MEMORY    (48 * 1024 * 1024)
#define NEWER_DELAY_MS 60000

/* A kind that only newer processes know waits for one of them. */
#define UNKNOWN_DELAY_MS 5000
#define UNKNOWN_MS       600000

static void worker_engine_claims(stoa_defer_t *d);


uint64_t
worker_engine_random(worker_engine_t *e)
{
    uint64_t z;

    /* splitmix64: jitter and draws need no more */
    e->random += UINT64_C(0x9e3779b97f4a7c15);
    z = e->random;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}


bool
worker_engine_eval(worker_engine_t *e, worker_lua_e script, worker_queue_t *q,
                   int argc, const stoa_str_t *argv, stoa_redis_done_pt done,
                   void *data)
{
    stoa_str_t args[3 + WORKER_ARGS_MAX];
    stoa_err_e err;

    if (argc < 0 || (size_t) argc + 2 > stoa_nitems(args)) {
        stoa_bug("a script got too many arguments");
        return false;
    }

    args[0] = stoa_str_z(q->meta);
    args[1] = stoa_str_z(q->key);

    if (argc > 0) {
        memcpy(&args[2], argv, (size_t) argc * sizeof(stoa_str_t));
    }

    return stoa_redis_eval(e->worker->redis, &e->scripts[script], 1, argc + 2,
                           args, 0, done, data, &err)
        != NULL;
}


const stoa_redis_reply_t *
worker_engine_array(worker_engine_t *e, const char *what, stoa_err_e err,
                    const stoa_redis_reply_t *reply)
{
    stoa_str_t text;

    if (err != STOA_OK) {
        return NULL;
    }

    if (stoa_redis_type(reply) == STOA_REDIS_ARRAY) {
        return reply;
    }

    text = stoa_redis_type(reply) == STOA_REDIS_ERROR
             ? stoa_redis_str(reply)
             : (stoa_str_t) stoa_string("not an array");
    stoa_log(e->worker->log, STOA_LOG_ERROR, "queue: %s refused: %.*s", what,
             (int) text.len, (const char *) text.data);
    return NULL;
}


/* ---- claims ---- */

/* The envelope's members to the task; NULL, or why it is dead, or put back
   for *later ms when that is not 0. */
static const char *
worker_engine_open(worker_task_t *t, stoa_str_t text, uint32_t *later)
{
    worker_lease_t *l = t->lease;
    stoa_envelope_t env;
    const char     *why = NULL;
    stoa_str_t      id = stoa_str_z(l->id);

    *later = 0;
    (void) stoa_str_int(id, 1, INT64_MAX, &t->id); /* light ones: 0 */
    t->id_z = l->id;

    switch (stoa_queue_parse(t->mem, text, &env, &why)) {

    case STOA_ENVELOPE_OK:
        break;

    case STOA_ENVELOPE_NEWER:
        *later = NEWER_DELAY_MS;
        return why;

    case STOA_ENVELOPE_BAD:
        stoa_log(t->worker->log, STOA_LOG_ERROR, "task %s: bad envelope: %s",
                 l->id, why);
        return "bad_payload";
    }

    t->row = stoa_task_find((const char *) env.kind.data, env.kind.len);

    if (t->row == NULL && l->claimed_ms - env.created_ms < UNKNOWN_MS) {
        *later = UNKNOWN_DELAY_MS;
        return "no_handler";
    }

    if (t->row == NULL) {
        stoa_log(t->worker->log, STOA_LOG_ERROR, "task %s: no kind \"%.*s\"",
                 l->id, (int) env.kind.len, (const char *) env.kind.data);
        return "no_handler";
    }

    t->cls = &l->q->cls;
    t->payload = env.payload_json;
    t->payload_z = (const char *) env.payload.data; /* NUL behind it */
    t->reply_to = env.reply_to;
    l->give_up_ms = env.give_up_ms;
    l->attempts = env.attempts;
    t->deadline_ms = l->claimed_at
                   + (env.run_ms != 0 ? env.run_ms : l->q->cls.run_ms);

    if (t->row->flow == STOA_TASK_FLOW_NONE) {
        t->sql = &t->worker->engine->sql[t->row - stoa_tasks];
    }

    return NULL;
}


static void
worker_engine_begin(worker_queue_t *q, const stoa_redis_reply_t *reply,
                    size_t at)
{
    worker_t      *w = q->engine->worker;
    stoa_mem_t    *mem = stoa_arena_create(TASK_BLOCK, TASK_MEMORY);
    worker_task_t *t;
    const char    *why;
    uint32_t       later;

    t = mem != NULL ? stoa_calloc(mem, sizeof(worker_task_t)) : NULL;

    if (t == NULL) {
        goto failed;
    }

    t->worker = w;
    t->mem = mem;

    if (!worker_lease_open(q, mem, t, reply, at)) {
        goto failed;
    }

    why = worker_engine_open(t, stoa_redis_str(stoa_redis_at(reply, at + 6)),
                             &later);

    if (later != 0) {
        worker_lease_end(t, WORKER_END_SNOOZE, why, later);

    } else if (why != NULL) {
        worker_task_bury(t, why);

    } else {
        worker_task_start(t);
    }

    return;

failed:

    /* its lease will run out */
    stoa_log(w->log, STOA_LOG_CRIT, "queue: no memory for a task");

    if (mem != NULL) {
        stoa_arena_destroy(mem);
    }
}


static void
worker_engine_claimed(stoa_redis_op_t *op, stoa_err_e err,
                      const stoa_redis_reply_t *reply, void *data)
{
    worker_queue_t  *q = data;
    worker_engine_t *e = q->engine;
    size_t           n;
    stoa_str_t       push[3];

    q->claiming = false;
    e->exclusive = false;
    e->asked -= q->claim_max;
    reply = worker_engine_array(e, "claim", err, reply);

    if (reply == NULL || stoa_redis_count(reply) < CLAIM_HEADER) {
        worker_lease_check_idle(e);
        return; /* the next pop asks again */
    }

    n = (stoa_redis_count(reply) - CLAIM_HEADER) / CLAIM_WIDTH;
    q->more = n == q->claim_max;
    q->suspects = stoa_redis_int(stoa_redis_at(reply, 1)) > 1
               || (stoa_redis_int(stoa_redis_at(reply, 1)) == 1 && n == 0);

    if (q->more) {
        push[0] = (stoa_str_t) stoa_string("LPUSH");
        push[1] = stoa_str_z(q->wake);
        push[2] = (stoa_str_t) stoa_string("1");
        (void) stoa_redis_command(e->worker->redis, 3, push, 0, NULL, NULL,
                                  &err); /* a lost token is made up for */
    }

    for (size_t i = 0; i < n; i++) {
        worker_engine_begin(q, reply, CLAIM_HEADER + i * CLAIM_WIDTH);
    }

    worker_engine_pop(e);
    e->worker->loop->defer(e->worker->loop, &e->claim_defer);
    worker_lease_check_idle(e);
}


static bool
worker_engine_claim(worker_queue_t *q, bool idle)
{
    static const char *const digits[STOA_QUEUE_LEVELS] = { "0", "1", "2", "3" };

    worker_engine_t *e = q->engine;
    uint8_t          levels[STOA_QUEUE_LEVELS];
    stoa_str_t       argv[6 + STOA_QUEUE_LEVELS];
    char             lease[12], max[12], each[12], most[12];
    unsigned         n = q->max - q->held;

    if (n > e->max - e->held - e->asked) {
        n = e->max - e->held - e->asked;
    }

    stoa_queue_draw(worker_engine_random(e), levels);
    (void) snprintf(lease, sizeof(lease), "%u", q->cls.lease_ms);
    (void) snprintf(max, sizeof(max), "%u", n);
    argv[0] = stoa_str_z(e->worker->name);
    argv[1] = stoa_str_z(lease);
    argv[2] = stoa_str_z(max);
    argv[3] = stoa_str_z(idle ? "1" : "0");
    (void) snprintf(each, sizeof(each), "%u", q->cls.each);
    (void) snprintf(most, sizeof(most), "%u", q->cls.most);
    argv[4] = stoa_str_z(each);
    argv[5] = stoa_str_z(most);

    for (size_t i = 0; i < STOA_QUEUE_LEVELS; i++) {
        argv[6 + i] = stoa_str_z(digits[levels[i]]);
    }

    q->want = false;

    if (!worker_engine_eval(e, WORKER_LUA_CLAIM, q, 6 + STOA_QUEUE_LEVELS, argv,
                            worker_engine_claimed, q))
    {
        return false;
    }

    q->claiming = true;
    q->claim_max = n;
    e->asked += n;
    e->exclusive = idle;
    return true;
}


/* Holding nothing: one claim at a time, suspects first. */
static void
worker_engine_claim_idle(worker_engine_t *e)
{
    worker_queue_t *found = NULL;

    for (size_t i = 1; i < WORKER_QUEUES_MAX; i++) {
        worker_queue_t *q = &e->queues[i];

        if (q->want && (found == NULL || (q->suspects && !found->suspects))) {
            found = q;
        }
    }

    if (found != NULL) {
        (void) worker_engine_claim(found, true); /* else the next pop asks */
    }
}


static void
worker_engine_claims(stoa_defer_t *d)
{
    worker_engine_t *e = d->data;
    worker_t        *w = e->worker;

    if (e->quiet || e->stopping || e->alone || e->exclusive
        || !stoa_pg_pool_ready(w->pg) || !stoa_redis_ready(w->redis))
    {
        return;
    }

    if (e->held == 0 && e->asked == 0) {
        if (worker_lease_told(e)) {
            worker_engine_claim_idle(e);
        }

        return; /* or when the answer is there */
    }

    for (size_t i = 1; e->leader && i < WORKER_QUEUES_MAX; i++) {
        if (e->queues[i].suspects) {
            return; /* until nothing is held */
        }
    }

    for (size_t i = 1; i < WORKER_QUEUES_MAX; i++) {
        worker_queue_t *q = &e->queues[i];

        if (q->want && !q->claiming && q->held < q->max
            && e->held + e->asked < e->max) {
            (void) worker_engine_claim(q, false); /* else the next pop asks */
        }
    }
}


void
worker_engine_want(worker_engine_t *e, worker_queue_t *q)
{
    for (size_t i = 1; i < WORKER_QUEUES_MAX; i++) {
        if (q == NULL || q == &e->queues[i]) {
            e->queues[i].want = true;
        }
    }

    e->worker->loop->defer(e->worker->loop, &e->claim_defer);
}


/* ---- wake tokens ---- */

static void
worker_engine_woken(worker_engine_t *e, stoa_str_t key)
{
    stoa_err_e err;
    stoa_str_t del[2];

    if (stoa_str_eq_z(key, e->outbox_wake)) {
        del[0] = (stoa_str_t) stoa_string("DEL");
        del[1] = key;
        (void) stoa_redis_command(e->worker->redis, 2, del, 0, NULL, NULL,
                                  &err); /* one look serves all tokens */
        worker_relay_kick(e->relay);
        return;
    }

    for (size_t i = 1; i < WORKER_QUEUES_MAX; i++) {
        if (stoa_str_eq_z(key, e->queues[i].wake)) {
            worker_engine_want(e, &e->queues[i]);
        }
    }
}


static void
worker_engine_popped(stoa_redis_op_t *op, stoa_err_e err,
                     const stoa_redis_reply_t *reply, void *data)
{
    worker_engine_t *e = data;
    stoa_loop_t     *loop = e->worker->loop;

    e->popping = false;

    if (err != STOA_OK || stoa_redis_type(reply) == STOA_REDIS_ERROR) {
        loop->timer_set(loop, &e->pop_timer, POP_RETRY_MS);
        return;
    }

    if (stoa_redis_type(reply) == STOA_REDIS_ARRAY
        && stoa_redis_count(reply) == 2) {
        worker_engine_woken(e, stoa_redis_str(stoa_redis_at(reply, 0)));

    } else {
        worker_engine_want(e, NULL);
    }

    worker_engine_pop(e);
}


void
worker_engine_pop(worker_engine_t *e)
{
    stoa_loop_t *loop = e->worker->loop;
    stoa_str_t   argv[WORKER_QUEUES_MAX + 2];
    stoa_err_e   err;
    int          n = 0;

    if (e->popping || e->quiet || e->stopping || e->held >= e->max) {
        return;
    }

    argv[n++] = (stoa_str_t) stoa_string("BLPOP");

    for (size_t i = 1; i < WORKER_QUEUES_MAX; i++) {
        argv[n++] = stoa_str_z(e->queues[i].wake);
    }

    argv[n++] = stoa_str_z(e->outbox_wake);
    argv[n++] = stoa_str_z(POP_SECONDS);

    if (stoa_redis_command(e->blocking, n, argv, POP_TIMEOUT_MS,
                           worker_engine_popped, e, &err)
        == NULL)
    {
        loop->timer_set(loop, &e->pop_timer, POP_RETRY_MS);
        return;
    }

    e->popping = true;
}


static void
worker_engine_pop_again(stoa_timer_t *timer)
{
    worker_engine_pop(timer->data);
}


static void
worker_engine_up(void *data, bool up)
{
    worker_engine_t *e = data;

    stoa_log(e->worker->log, up ? STOA_LOG_NOTICE : STOA_LOG_WARN,
             up ? "redis: connected" : "redis: connection lost");

    if (up) {
        worker_lease_settle_all(e);
        worker_engine_want(e, NULL);
        worker_relay_kick(e->relay);
    }
}


/* ---- life ---- */

static bool
worker_engine_queue_create(worker_engine_t *e, stoa_class_e cls)
{
    worker_queue_t *q = &e->queues[cls];
    const char     *prefix = e->worker->conf->redis_prefix;

    q->engine = e;
    q->cls = stoa_class_rows[cls];
    q->max = e->max * q->cls.percent / 100;

    if (q->max == 0) {
        q->max = 1;
    }

#ifdef STOA_TEST
    {
        const char *z = getenv("STOA_TEST_LEASE");
        int64_t     ms;

        if (z != NULL && stoa_str_int(stoa_str_z(z), 200, 60000, &ms)) {
            q->cls.lease_ms = (uint32_t) ms;
            q->cls.beat_ms = (uint32_t) ms / 4;
        }
    }
#endif

    (void) snprintf(q->key, sizeof(q->key), "%s{q:%s}", prefix, q->cls.queue);
    (void) snprintf(q->meta, sizeof(q->meta), "%s:m", q->key);
    (void) snprintf(q->wake, sizeof(q->wake), "%s:w", q->key);
    q->settles = calloc(WORKER_SETTLES, sizeof(worker_settle_t));
    return q->settles != NULL;
}


/* "select task.x(...)" of each row that is a statement. */
static bool
worker_engine_sql_create(worker_engine_t *e)
{
    if (stoa_ntasks > WORKER_TASKS_MAX) {
        stoa_bug("more task rows than WORKER_TASKS_MAX");
        return false;
    }

    for (size_t i = 0; i < stoa_ntasks; i++) {
        size_t size;
        char  *sql;

        if (stoa_tasks[i].sql == NULL) {
            continue;
        }

        size = sizeof("select ") + strlen(stoa_tasks[i].sql);
        sql = malloc(size);

        if (sql == NULL) {
            return false;
        }

        (void) snprintf(sql, size, "select %s", stoa_tasks[i].sql);

        e->sql[i] = (stoa_pg_stmt_t){
            .name = stoa_tasks[i].kind,
            .sql = sql,
            .nparams = 2,
            .write = true,
            .slot = (uint32_t) (WORKER_SQL_COUNT + i),
        };
    }

    return true;
}


worker_engine_t *
worker_engine_create(worker_t *w, worker_host_t *host,
                     const stoa_redis_conf_t *rc)
{
    worker_engine_t *e = calloc(1, sizeof(worker_engine_t));

    if (e == NULL) {
        return NULL;
    }

    e->worker = w;
    e->host = host;
    e->max = (unsigned) w->conf->worker_concurrency;
    w->engine = e;
    worker_lua_copy(e->scripts);
    stoa_redis_scripts(w->redis, e->scripts, WORKER_LUA_COUNT);
    (void) snprintf(e->outbox_wake, sizeof(e->outbox_wake), "%s{outbox}:w",
                    w->conf->redis_prefix);
    e->claim_defer.run = worker_engine_claims;
    e->claim_defer.data = e;
    e->pop_timer = (stoa_timer_t){ .fire = worker_engine_pop_again, .data = e };
    e->settle_timer = (stoa_timer_t){ .fire = worker_lease_settle_fire,
                                      .data = e };
    e->beat_timer = (stoa_timer_t){ .fire = worker_lease_scan, .data = e };

    for (size_t i = 1; i < WORKER_QUEUES_MAX; i++) {
        if (!worker_engine_queue_create(e, (stoa_class_e) i)) {
            goto failed;
        }
    }

    e->blocking = stoa_redis_create(w->loop, rc);
    e->relay = worker_relay_create(e);
    e->lead = worker_lead_create(e);
    e->steer = worker_steer_create(e);

    if (e->blocking == NULL || e->relay == NULL || e->lead == NULL
        || e->steer == NULL || !worker_engine_sql_create(e)
        || !stoa_random(&e->random, sizeof(e->random)))
    {
        goto failed;
    }

    stoa_redis_on_state(w->redis, worker_engine_up, e);
    w->loop->timer_set(w->loop, &e->beat_timer, WORKER_BEAT_SCAN_MS);
    worker_engine_pop(e);
    return e;

failed:

    worker_engine_destroy(e);
    return NULL;
}


void
worker_engine_destroy(worker_engine_t *e)
{
    stoa_loop_t *loop;

    if (e == NULL) {
        return;
    }

    loop = e->worker->loop;
    e->stopping = true;
    e->idle = NULL;

    while (e->leases != NULL) {
        worker_task_t *t = e->leases->task;

        e->leases = e->leases->next;
        worker_task_abort(t);
    }

    /* what is under way ends now, so that nothing calls back later */
    if (e->blocking != NULL) {
        stoa_redis_destroy(e->blocking);
    }

    stoa_redis_destroy(e->worker->redis);
    worker_lead_destroy(e->lead);
    worker_steer_destroy(e->steer);
    worker_relay_destroy(e->relay);
    stoa_pg_pool_destroy(e->worker->pg); /* it knows our statements */
    e->worker->redis = NULL;
    e->worker->pg = NULL;

    loop->timer_close(loop, &e->pop_timer);
    loop->timer_close(loop, &e->settle_timer);
    loop->timer_close(loop, &e->beat_timer);
    loop->defer_close(loop, &e->claim_defer);

    for (size_t i = 0; i < WORKER_QUEUES_MAX; i++) {
        free(e->queues[i].settles);
    }

    for (size_t i = 0; i < stoa_ntasks; i++) {
        free((void *) (uintptr_t) e->sql[i].sql);
    }

    e->worker->engine = NULL;
    free(e);
}


void
worker_engine_quiet(worker_engine_t *e, bool quiet)
{
    e->quiet = quiet;

    if (!quiet) {
        worker_engine_pop(e);
        worker_engine_want(e, NULL);
    }
}


void
worker_engine_stop(worker_engine_t *e, void (*idle)(void *data), void *data)
{
    e->stopping = true;
    e->idle = idle;
    e->idle_data = data;
    worker_lease_settle_all(e);
    worker_lease_check_idle(e);
}


void
worker_engine_release(worker_engine_t *e)
{
    while (e->leases != NULL) {
        worker_lease_t *l = e->leases;

        stoa_log(e->worker->log, STOA_LOG_NOTICE, "task %s: released", l->id);
        worker_lease_end(l->task, WORKER_END_RELEASE, NULL, 0);
    }
}
