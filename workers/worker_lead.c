/*
 * What happens by the clock.  One process leads (a lock of 2 s in Redis,
 * renewed four times a second); two leaders for a moment do no harm, for
 * every move is atomic and every slot of a schedule is taken once by
 * PostgreSQL.
 *
 * The leader ticks the queues (what is due becomes ready, leases that ran
 * out become suspects), looks into the outbox when no wake token came,
 * sweeps it every 30 s, asks for due schedules every second (queue.schedule
 * keeps which were taken), and writes the gauges.
 *
 * Every process writes its own heartbeat and adds its counters to the hash
 * <prefix>metrics, whose fields are whole Prometheus sample names.
 */

#include "worker_engine.h"

#include <stdio.h>
#include <stdlib.h>

#include "../shared/stoa_str.h"

#define TICK_MS         250
#define LEAD_MS         "2000"
#define TICK_LIMIT      "200"
#define TICK_CRASHES    "3"
#define TICK_HOLD_MS    30000
#define RELAY_TICKS     2
#define SCHEDULE_TICKS  4
#define STATS_TICKS     20
#define SWEEP_TICKS     120
#define METRICS_TICKS   8
#define HEARTBEAT_TICKS 20
#define POLICY_TICKS    240
#define LEAD_TEXT       2048
#define SCHEDULE_VALUES 5

static const char *const worker_lead_outcomes[4] = { "done", "retry", "snooze",
                                                     "dead" };

struct worker_lead_s {
    worker_engine_t *engine;
    stoa_timer_t     timer;
    uint64_t         ticks;
    char             lock[100];
    char             metrics[100];
    char             heart[200];
    char             hold_ms[16];
    uint64_t         sweep_ticks;
    bool             asked;
    stoa_pg_op_t    *schedule;
    stoa_pg_op_t    *stats;
    stoa_pg_op_t    *settings;
    bool             settings_done;
    stoa_mem_t      *mem; /* settings and schedule texts */
    const char      *schedule_values[SCHEDULE_VALUES];
    int              schedule_lens[SCHEDULE_VALUES];
    const char      *settings_values[1];
    int              settings_lens[1];
};

typedef struct {
    stoa_mem_t     *mem;
    worker_queue_t *q;
    const char     *values[2];
    int             lens[2];
} worker_dead_row_t;


/* ---- queue.dead() for rows without a task here ---- */

static void
worker_dead_row_done(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    worker_dead_row_t *d = data;
    stoa_pg_result_t  *res = NULL;
    stoa_str_t         argv[2];
    bool               gone;

    if (err == STOA_OK) { /* else a later tick or the sweep names it again */
        res = stoa_pg_take(op);
    }

    if (res != NULL && stoa_pg_rows(res) == 1) {
        gone = stoa_str_eq_z(stoa_pg_value(res, 0, 1), "t");
        argv[0] = stoa_str_z(d->values[0]);
        argv[1] = stoa_str_z(gone ? "1" : "0");
        (void) worker_engine_eval(d->q->engine, WORKER_LUA_TOLD, d->q, 2, argv,
                                  NULL, NULL);
    }

    stoa_pg_result_free(res);

    stoa_arena_destroy(d->mem);
}


void
worker_dead_row(worker_queue_t *q, stoa_str_t id, stoa_str_t reason)
{
    worker_t          *w = q->engine->worker;
    stoa_mem_t        *mem = stoa_arena_create(512, 4096);
    worker_dead_row_t *d;
    stoa_err_e         err;

    d = mem != NULL ? stoa_calloc(mem, sizeof(worker_dead_row_t)) : NULL;

    if (d == NULL) {
        goto failed;
    }

    d->mem = mem;
    d->q = q;
    d->values[0] = stoa_strdup_z(mem, id);
    d->values[1] = stoa_strdup_z(mem, reason);

    if (d->values[0] == NULL || d->values[1] == NULL) {
        goto failed;
    }

    d->lens[0] = (int) id.len;
    d->lens[1] = (int) reason.len;
    stoa_log(w->log, STOA_LOG_ERROR, "task %s: dead: %s", d->values[0],
             d->values[1]);

    if (stoa_pg_submit(w->pg, &worker_stmts[WORKER_SQL_DEAD], d->values,
                       d->lens, 0, worker_dead_row_done, d, &err)
        != NULL)
    {
        return;
    }

failed:

    if (mem != NULL) {
        stoa_arena_destroy(mem);
    }
}


/* ---- ticks ---- */

static void
worker_lead_ticked(stoa_redis_op_t *op, stoa_err_e err,
                   const stoa_redis_reply_t *reply, void *data)
{
    worker_queue_t  *q = data;
    worker_engine_t *e = q->engine;
    int64_t          lost;

    if (err != STOA_OK || stoa_redis_type(reply) != STOA_REDIS_ARRAY
        || stoa_redis_count(reply) < 3)
    {
        return;
    }

    q->suspects = stoa_redis_int(stoa_redis_at(reply, 0)) > 0;
    lost = stoa_redis_int(stoa_redis_at(reply, 1));

    if (lost > 0) {
        stoa_log(e->worker->log, STOA_LOG_WARN, "queue %s: %lld leases ran out",
                 q->cls.queue, (long long) lost);
        e->worker->counts[STOA_M_task_lost_leases] += (uint64_t) lost;
    }

    e->worker->counts[STOA_M_task_dead] += (uint64_t) stoa_redis_int(
        stoa_redis_at(reply, 2));

    for (size_t i = 3; i < stoa_redis_count(reply); i++) {
        worker_dead_row(q, stoa_redis_str(stoa_redis_at(reply, i)),
                        (stoa_str_t) stoa_string("crashed"));
    }

    if (q->suspects) {
        worker_engine_want(e, q);
    }
}


static void
worker_lead_tick(worker_lead_t *lead)
{
    worker_engine_t *e = lead->engine;
    stoa_str_t       argv[3];

    argv[0] = (stoa_str_t) stoa_string(TICK_LIMIT);
    argv[1] = (stoa_str_t) stoa_string(TICK_CRASHES);
    argv[2] = stoa_str_z(lead->hold_ms);

    for (size_t i = 1; i < WORKER_QUEUES_MAX; i++) {
        (void) worker_engine_eval(e, WORKER_LUA_TICK, &e->queues[i], 3, argv,
                                  worker_lead_ticked, &e->queues[i]);
    }
}


/* ---- schedules ---- */

static void
worker_lead_scheduled(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    worker_lead_t    *lead = data;
    stoa_pg_result_t *res;

    lead->schedule = NULL;

    if (err != STOA_OK) {
        return;
    }

    res = stoa_pg_take(op);

    if (res != NULL && stoa_pg_rows(res) == 1
        && !stoa_str_eq_z(stoa_pg_value(res, 0, 0), "0"))
    {
        worker_relay_kick(lead->engine->relay);
    }

    stoa_pg_result_free(res);
}


static void
worker_lead_schedule(worker_lead_t *lead)
{
    stoa_err_e err;

    if (lead->schedule == NULL) {
        lead->schedule = stoa_pg_submit(lead->engine->worker->pg,
                                        &worker_stmts[WORKER_SQL_SCHEDULE],
                                        lead->schedule_values,
                                        lead->schedule_lens, 0,
                                        worker_lead_scheduled, lead, &err);
    }
}


/* Arrays as text: kinds, seconds, and of cron lines, zones, policies. */
static bool
worker_lead_schedule_create(worker_lead_t *lead)
{
    stoa_buf_t b[SCHEDULE_VALUES];
    bool       failed = false;

    for (size_t k = 0; k < SCHEDULE_VALUES; k++) {
        stoa_buf_init(&b[k], lead->mem, 256, 8192);
        stoa_buf_char(&b[k], '{');
    }

    for (size_t i = 0; i < stoa_ntasks; i++) {
        const stoa_task_t *t = &stoa_tasks[i];

        if (t->every_s == 0 && t->cron == NULL) {
            continue;
        }

        for (size_t k = 0; b[0].len > 1 && k < SCHEDULE_VALUES; k++) {
            stoa_buf_char(&b[k], ',');
        }

        stoa_buf_z(&b[0], t->kind);
        stoa_buf_printf(&b[1], "%u", t->every_s);
        stoa_buf_printf(&b[2], "\"%s\"", t->cron != NULL ? t->cron : "");
        stoa_buf_printf(&b[3], "\"%s\"", t->zone != NULL ? t->zone : "UTC");
        stoa_buf_z(&b[4], stoa_missed_name(t->missed));
    }

    for (size_t k = 0; k < SCHEDULE_VALUES; k++) {
        stoa_buf_char(&b[k], '}');
        lead->schedule_lens[k] = (int) b[k].len;
        stoa_buf_nul(&b[k]);
        lead->schedule_values[k] = (const char *) b[k].data;
        failed |= b[k].failed;
    }

    return !failed;
}


/* ---- settings that SQL sees ---- */

static void
worker_lead_set(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    worker_lead_t *lead = data;

    lead->settings = NULL;
    lead->settings_done = err == STOA_OK;

    if (err == STOA_OK) {
        stoa_log(lead->engine->worker->log, STOA_LOG_NOTICE,
                 "worker: postgresql is up, settings are stored");
    }
}


static void
worker_lead_settings(worker_lead_t *lead)
{
    worker_t  *w = lead->engine->worker;
    stoa_err_e err;

    if (lead->settings_done || lead->settings != NULL
        || !stoa_pg_pool_ready(w->pg)) {
        return;
    }

    lead->settings = stoa_pg_submit(w->pg, &worker_stmts[WORKER_SQL_SETTINGS],
                                    lead->settings_values, lead->settings_lens,
                                    0, worker_lead_set, lead, &err);
}


static bool
worker_lead_settings_create(worker_lead_t *lead)
{
    stoa_buf_t b;

    stoa_buf_init(&b, lead->mem, 2048, 65536);
    worker_settings_json(lead->engine->worker->conf, &b);
    lead->settings_lens[0] = (int) b.len;
    stoa_buf_nul(&b);
    lead->settings_values[0] = (const char *) b.data;
    return !b.failed;
}


/* ---- metrics ---- */

static void
worker_lead_write(worker_lead_t *lead, const char *command, const char *field,
                  const char *number)
{
    stoa_str_t argv[4];
    stoa_err_e err;

    argv[0] = stoa_str_z(command);
    argv[1] = stoa_str_z(lead->metrics);
    argv[2] = stoa_str_z(field);
    argv[3] = stoa_str_z(number);
    (void) stoa_redis_command(lead->engine->worker->redis, 4, argv, 0, NULL,
                              NULL, &err);
}


static void
worker_lead_hash(worker_lead_t *lead, const char *command, const char *field,
                 uint64_t n)
{
    char number[24];

    (void) snprintf(number, sizeof(number), "%llu", (unsigned long long) n);
    worker_lead_write(lead, command, field, number);
}


/* Times are told in seconds, as Prometheus wants them. */
static void
worker_lead_seconds(worker_lead_t *lead, const char *field, int64_t ms)
{
    char number[32];

    ms = ms < 0 ? 0 : ms;
    (void) snprintf(number, sizeof(number), "%lld.%03lld",
                    (long long) (ms / 1000), (long long) (ms % 1000));
    worker_lead_write(lead, "HSET", field, number);
}


static void
worker_lead_counters(worker_lead_t *lead)
{
    worker_engine_t *e = lead->engine;
    worker_t        *w = e->worker;
    char             field[160];

    if (!stoa_redis_ready(w->redis)) {
        return; /* they are kept and added later */
    }

    for (size_t i = 0; i < STOA_M_COUNT; i++) {
        if (w->counts[i] != 0) {
            worker_lead_hash(lead, "HINCRBY", stoa_metric_rows[i].name,
                             w->counts[i]);
            w->counts[i] = 0;
        }
    }

    for (size_t i = 0; i < stoa_ntasks; i++) {
        for (size_t o = 0; o < 4; o++) {
            if (e->runs[i][o] != 0) {
                (void) snprintf(field, sizeof(field),
                                "stoa_task_runs_total{kind=\"%s\","
                                "outcome=\"%s\"}",
                                stoa_tasks[i].kind, worker_lead_outcomes[o]);
                worker_lead_hash(lead, "HINCRBY", field, e->runs[i][o]);
                e->runs[i][o] = 0;
            }
        }
    }
}


static void
worker_lead_gauge(worker_lead_t *lead, const char *queue, const char *state,
                  int64_t n)
{
    char field[160];

    (void) snprintf(field, sizeof(field),
                    "stoa_queue_depth{queue=\"%s\",state=\"%s\"}", queue,
                    state);
    worker_lead_hash(lead, "HSET", field, n < 0 ? 0 : (uint64_t) n);
}


static void
worker_lead_measured(stoa_redis_op_t *op, stoa_err_e err,
                     const stoa_redis_reply_t *reply, void *data)
{
    worker_queue_t *q = data;
    worker_lead_t  *lead = q->engine->lead;
    const char     *name = q->cls.queue;
    char            field[160];
    int64_t         ready = 0;

    if (err != STOA_OK || stoa_redis_type(reply) != STOA_REDIS_ARRAY
        || stoa_redis_count(reply) < 9 || q->engine->stopping)
    {
        return;
    }

    for (size_t i = 0; i < STOA_QUEUE_LEVELS; i++) {
        ready += stoa_redis_int(stoa_redis_at(reply, i));
    }

    worker_lead_gauge(lead, name, "ready", ready);
    worker_lead_gauge(lead, name, "suspect",
                      stoa_redis_int(stoa_redis_at(reply, 4)));
    worker_lead_gauge(lead, name, "scheduled",
                      stoa_redis_int(stoa_redis_at(reply, 5)));
    worker_lead_gauge(lead, name, "active",
                      stoa_redis_int(stoa_redis_at(reply, 6)));
    worker_lead_gauge(lead, name, "dead",
                      stoa_redis_int(stoa_redis_at(reply, 7)));
    (void) snprintf(field, sizeof(field),
                    "stoa_queue_oldest_ready_seconds{queue=\"%s\"}", name);
    worker_lead_seconds(lead, field, stoa_redis_int(stoa_redis_at(reply, 8)));
}


static int64_t
worker_lead_int(const stoa_json_t *o, const char *member)
{
    stoa_json_t *v = stoa_json_get(o, member);

    return v != NULL && stoa_json_type(v) == STOA_JSON_INT ? stoa_json_int(v)
                                                           : 0;
}


static void
worker_lead_outbox(worker_lead_t *lead, const stoa_json_t *o,
                   const char *member, const char *field)
{
    int64_t n = worker_lead_int(o, member);

    worker_lead_hash(lead, "HSET", field, n < 0 ? 0 : (uint64_t) n);
}


static void
worker_lead_counted(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    worker_lead_t    *lead = data;
    stoa_pg_result_t *res;
    stoa_mem_t       *mem;
    stoa_json_t      *o = NULL;
    stoa_json_fault_t fault;

    lead->stats = NULL;

    if (err != STOA_OK) {
        return;
    }

    res = stoa_pg_take(op);
    mem = stoa_arena_create(4096, 1024 * 1024);

    if (mem != NULL && res != NULL && stoa_pg_rows(res) == 1) {
        o = stoa_json_parse(mem, stoa_pg_value(res, 0, 0), &fault);
    }

    if (o != NULL && stoa_json_type(o) == STOA_JSON_OBJECT) {
        worker_lead_outbox(lead, o, "waiting",
                           "stoa_outbox_rows{state=\"waiting\"}");
        worker_lead_outbox(lead, o, "sent", "stoa_outbox_rows{state=\"sent\"}");
        worker_lead_outbox(lead, o, "dead", "stoa_outbox_rows{state=\"dead\"}");
        worker_lead_seconds(lead, "stoa_outbox_lag_seconds",
                            worker_lead_int(o, "lagMs"));
    }

    if (mem != NULL) {
        stoa_arena_destroy(mem);
    }

    stoa_pg_result_free(res);
}


static void
worker_lead_stats(worker_lead_t *lead)
{
    worker_engine_t *e = lead->engine;
    stoa_err_e       err;

    for (size_t i = 1; i < WORKER_QUEUES_MAX; i++) {
        (void) worker_engine_eval(e, WORKER_LUA_STATS, &e->queues[i], 0, NULL,
                                  worker_lead_measured, &e->queues[i]);
    }

    if (lead->stats == NULL) {
        lead->stats = stoa_pg_submit(e->worker->pg,
                                     &worker_stmts[WORKER_SQL_STATS], NULL,
                                     NULL, 0, worker_lead_counted, lead, &err);
    }
}


static void
worker_lead_heartbeat(worker_lead_t *lead)
{
    worker_engine_t *e = lead->engine;
    stoa_str_t       argv[8];
    stoa_err_e       err;
    char             held[16], max[16];

    (void) snprintf(held, sizeof(held), "%u", e->held);
    (void) snprintf(max, sizeof(max), "%u", e->max);
    argv[0] = (stoa_str_t) stoa_string("HSET");
    argv[1] = stoa_str_z(lead->heart);
    argv[2] = (stoa_str_t) stoa_string("held");
    argv[3] = stoa_str_z(held);
    argv[4] = (stoa_str_t) stoa_string("max");
    argv[5] = stoa_str_z(max);
    argv[6] = (stoa_str_t) stoa_string("leader");
    argv[7] = stoa_str_z(e->leader ? "1" : "0");
    (void) stoa_redis_command(e->worker->redis, 8, argv, 0, NULL, NULL, &err);
    argv[0] = (stoa_str_t) stoa_string("PEXPIRE");
    argv[2] = (stoa_str_t) stoa_string("15000");
    (void) stoa_redis_command(e->worker->redis, 3, argv, 0, NULL, NULL, &err);
}


/* ---- Redis must not evict ---- */

static void
worker_lead_policy_seen(stoa_redis_op_t *op, stoa_err_e err,
                        const stoa_redis_reply_t *reply, void *data)
{
    worker_engine_t *e = data;
    stoa_str_t       policy;

    if (err != STOA_OK || stoa_redis_type(reply) != STOA_REDIS_ARRAY
        || stoa_redis_count(reply) < 2)
    {
        return; /* CONFIG may be forbidden to us */
    }

    policy = stoa_redis_str(stoa_redis_at(reply, 1));

    if (!stoa_str_eq_z(policy, "noeviction")) {
        stoa_log(e->worker->log, STOA_LOG_CRIT,
                 "redis: maxmemory-policy is \"%.*s\" but must be "
                 "\"noeviction\"; tasks may be delayed by minutes",
                 (int) policy.len, (const char *) policy.data);
    }
}


static void
worker_lead_policy(worker_lead_t *lead)
{
    stoa_str_t argv[3] = { stoa_string("CONFIG"), stoa_string("GET"),
                           stoa_string("maxmemory-policy") };
    stoa_err_e err;

    (void) stoa_redis_command(lead->engine->worker->redis, 3, argv, 0,
                              worker_lead_policy_seen, lead->engine, &err);
}


/* ---- the clock ---- */

static void
worker_lead_elected(stoa_redis_op_t *op, stoa_err_e err,
                    const stoa_redis_reply_t *reply, void *data)
{
    worker_lead_t   *lead = data;
    worker_engine_t *e = lead->engine;
    bool             leader;

    lead->asked = false;
    leader = err == STOA_OK && stoa_redis_type(reply) == STOA_REDIS_INTEGER
          && stoa_redis_int(reply) == 1;

    if (leader != e->leader) {
        stoa_log(e->worker->log, STOA_LOG_NOTICE,
                 leader ? "worker: leads" : "worker: leads no longer");
    }

    e->leader = leader;

    if (!leader || e->stopping) {
        return;
    }

    worker_lead_tick(lead);

    if (lead->ticks % POLICY_TICKS == 1) {
        worker_lead_policy(lead);
    }

    if (lead->ticks % RELAY_TICKS == 0) {
        worker_relay_kick(e->relay);
    }

    if (!stoa_pg_pool_ready(e->worker->pg)) {
        return;
    }

    if (lead->ticks % SCHEDULE_TICKS == 0) {
        worker_lead_schedule(lead);
        worker_steer_tick(e->steer);
    }

    if (lead->ticks % STATS_TICKS == 0) {
        worker_lead_stats(lead);
    }

    if (lead->ticks % lead->sweep_ticks == 0) {
        worker_relay_sweep(e->relay);
    }
}


static void
worker_lead_elect(worker_lead_t *lead)
{
    worker_t  *w = lead->engine->worker;
    stoa_str_t argv[3];
    stoa_err_e err;

    if (lead->asked) {
        return;
    }

    argv[0] = stoa_str_z(lead->lock);
    argv[1] = stoa_str_z(w->name);
    argv[2] = (stoa_str_t) stoa_string(LEAD_MS);
    lead->asked = stoa_redis_eval(w->redis,
                                  &lead->engine->scripts[WORKER_LUA_LEAD], 1, 3,
                                  argv, 0, worker_lead_elected, lead, &err)
               != NULL;

    if (!lead->asked) {
        lead->engine->leader = false;
    }
}


static void
worker_lead_fire(stoa_timer_t *timer)
{
    worker_lead_t *lead = timer->data;
    stoa_loop_t   *loop = lead->engine->worker->loop;

    loop->timer_set(loop, timer, TICK_MS);
    lead->ticks++;

    if (lead->engine->quiet || lead->engine->stopping) {
        worker_lead_counters(lead);
        return; /* another process takes over when the lock ends */
    }

    worker_lead_elect(lead);
    worker_lead_settings(lead);

    if (lead->ticks % METRICS_TICKS == 0) {
        worker_lead_counters(lead);
    }

    if (lead->ticks % HEARTBEAT_TICKS == 1) {
        worker_lead_heartbeat(lead);
    }
}


worker_lead_t *
worker_lead_create(worker_engine_t *e)
{
    worker_lead_t *lead = calloc(1, sizeof(worker_lead_t));
    const char    *prefix = e->worker->conf->redis_prefix;
    uint32_t       hold_ms = TICK_HOLD_MS;

    if (lead == NULL) {
        return NULL;
    }

    lead->engine = e;
    lead->sweep_ticks = SWEEP_TICKS;
    lead->mem = stoa_arena_create(4096, 256 * 1024);

    if (lead->mem == NULL || !worker_lead_schedule_create(lead)
        || !worker_lead_settings_create(lead))
    {
        worker_lead_destroy(lead);
        return NULL;
    }

#ifdef STOA_TEST
    if (getenv("STOA_TEST_LEASE") != NULL) {
        hold_ms = e->queues[STOA_CLASS_CRON].cls.lease_ms;
        lead->sweep_ticks = 4;
    }
#endif

    (void) snprintf(lead->hold_ms, sizeof(lead->hold_ms), "%u", hold_ms);
    (void) snprintf(lead->lock, sizeof(lead->lock), "%s{w}:lead", prefix);
    (void) snprintf(lead->metrics, sizeof(lead->metrics), "%smetrics", prefix);
    (void) snprintf(lead->heart, sizeof(lead->heart), "%s{w}:%s", prefix,
                    e->worker->name);
    lead->timer.fire = worker_lead_fire;
    lead->timer.data = lead;
    e->worker->loop->timer_set(e->worker->loop, &lead->timer, TICK_MS);
    return lead;
}


void
worker_lead_destroy(worker_lead_t *lead)
{
    stoa_loop_t  *loop;
    stoa_pg_op_t *ops[3];

    if (lead == NULL) {
        return;
    }

    loop = lead->engine->worker->loop;
    loop->timer_close(loop, &lead->timer);
    ops[0] = lead->schedule;
    ops[1] = lead->stats;
    ops[2] = lead->settings;

    for (size_t i = 0; i < stoa_nitems(ops); i++) {
        if (ops[i] != NULL) {
            stoa_pg_cancel(ops[i]);
        }
    }

    if (lead->mem != NULL) {
        stoa_arena_destroy(lead->mem);
    }

    free(lead);
}
