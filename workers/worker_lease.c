/*
 * What a process holds: leases, their beats, and the ends that Redis has yet
 * to hear of.
 *
 * Beats of a queue travel together.  A task whose beat says "lost" is
 * aborted without a word to Redis.  A flow is aborted, too, when our own
 * clock says that 80 percent of its lease went by without a beat, and given
 * back as soon as Redis listens, so that nobody is blamed for an outage; a
 * statement may finish, for PostgreSQL's queue.done decides.
 *
 * Ends wait in an array per queue and leave in batches of at most 100 after
 * 5 ms; while Redis is away they are kept and sent again, and the fence
 * tells whether they still count.  The end of a task that ran alone is heard
 * by Redis before this process claims anything: what comes next may kill it,
 * and a task whose end was not heard would be blamed.
 */

#include "worker_engine.h"

#include <stdio.h>

#include "../shared/stoa_str.h"

#define SETTLE_MS       5
#define SETTLE_RETRY_MS 200

static bool worker_lease_tell(worker_lease_t *lease, worker_end_e mode,
                              uint32_t delay_ms, const char *reason);


bool
worker_lease_open(worker_queue_t *q, stoa_mem_t *mem, worker_task_t *t,
                  const stoa_redis_reply_t *reply, size_t at)
{
    worker_engine_t *e = q->engine;
    worker_lease_t  *l = stoa_calloc(mem, sizeof(worker_lease_t));
    stoa_str_t       id = stoa_redis_str(stoa_redis_at(reply, at));
    uint64_t         now = e->worker->loop->now_ms(e->worker->loop);

    if (l == NULL || id.len >= sizeof(l->id)) {
        return false;
    }

    memcpy(l->id, id.data, id.len);
    (void) snprintf(l->fence, sizeof(l->fence), "%lld",
                    (long long) stoa_redis_int(stoa_redis_at(reply, at + 1)));
    t->attempt = (unsigned) stoa_redis_int(stoa_redis_at(reply, at + 2));
    t->failures = (unsigned) stoa_redis_int(stoa_redis_at(reply, at + 4));
    l->alone = stoa_str_eq_z(stoa_redis_str(stoa_redis_at(reply, at + 5)), "1");
    l->claimed_ms = stoa_redis_int(stoa_redis_at(reply, 0));
    l->claimed_at = now;
    l->until_ms = now + q->cls.lease_ms;
    l->beat_ms = now + q->cls.beat_ms;
    l->attempts = q->cls.attempts;
    l->q = q;
    l->task = t;
    l->next = e->leases;
    e->leases = l;
    e->held++;
    q->held++;
    t->lease = l;

    if (l->alone) {
        e->alone = true;
    }

    return true;
}


void
worker_lease_check_idle(worker_engine_t *e)
{
    if (!e->stopping || e->held != 0 || e->asked != 0 || e->idle == NULL) {
        return;
    }

    for (size_t i = 1; i < WORKER_QUEUES_MAX; i++) {
        if (e->queues[i].nsettles != 0) {
            worker_lease_settle_all(e);
            return;
        }
    }

    e->idle(e->idle_data);
}


static void
worker_lease_drop(worker_lease_t *lease)
{
    worker_engine_t *e = lease->q->engine;

    for (worker_lease_t **p = &e->leases; *p != NULL; p = &(*p)->next) {
        if (*p == lease) {
            *p = lease->next;
            break;
        }
    }

    e->held--;
    lease->q->held--;

    if (lease->alone) {
        e->alone = false;
        worker_engine_want(e, NULL);
    }

    if (lease->q->more) {
        worker_engine_want(e, lease->q);
    }

    worker_engine_pop(e);
}


static void
worker_lease_lost(worker_lease_t *lease, const char *why, bool release)
{
    worker_task_t *t = lease->task;
    worker_t      *w = t->worker;

    if (release) {
        (void) worker_lease_tell(lease, WORKER_END_RELEASE, 0, NULL);
    }

    stoa_log(w->log, STOA_LOG_WARN, "task %s %s: aborted, %s", lease->id,
             t->row != NULL ? t->row->kind : "?", why);
    w->counts[STOA_M_task_lost_leases]++;
    worker_lease_drop(lease);
    worker_task_abort(t);
    worker_lease_check_idle(w->engine);
}


static worker_lease_t *
worker_lease_find(worker_queue_t *q, stoa_str_t id)
{
    for (worker_lease_t *l = q->engine->leases; l != NULL; l = l->next) {
        if (l->q == q && stoa_str_eq_z(id, l->id)) {
            return l;
        }
    }

    return NULL;
}


static void
worker_lease_beaten(stoa_redis_op_t *op, stoa_err_e err,
                    const stoa_redis_reply_t *reply, void *data)
{
    worker_queue_t  *q = data;
    worker_engine_t *e = q->engine;
    worker_lease_t  *l;
    uint64_t         now = e->worker->loop->now_ms(e->worker->loop);

    q->beating = false;
    reply = worker_engine_array(e, "beat", err, reply);

    for (l = e->leases; l != NULL; l = l->next) {
        if (l->q == q && l->sent_ms != 0) {
            if (reply != NULL) {
                l->until_ms = l->sent_ms + q->cls.lease_ms;
                l->beat_ms = now + q->cls.beat_ms;
            }

            l->sent_ms = 0;
        }
    }

    if (reply == NULL) {
        return;
    }

    for (size_t i = 0; i < stoa_redis_count(reply); i++) {
        l = worker_lease_find(q, stoa_redis_str(stoa_redis_at(reply, i)));

        if (l != NULL) {
            worker_lease_lost(l, "its lease is another's or it was canceled",
                              false);
        }
    }
}


static void
worker_lease_beat(worker_queue_t *q, uint64_t now)
{
    worker_engine_t *e = q->engine;
    stoa_str_t       argv[1 + 2 * 256];
    char             lease[24];
    int              n = 1;

    (void) snprintf(lease, sizeof(lease), "%u", q->cls.lease_ms);
    argv[0] = stoa_str_z(lease);

    for (worker_lease_t *l = e->leases; l != NULL; l = l->next) {
        if (l->q == q && l->beat_ms <= now
            && (size_t) n + 2 <= stoa_nitems(argv)) {
            argv[n++] = stoa_str_z(l->id);
            argv[n++] = stoa_str_z(l->fence);
            l->sent_ms = now;
        }
    }

    if (n > 1) {
        q->beating = worker_engine_eval(e, WORKER_LUA_BEAT, q, n, argv,
                                        worker_lease_beaten, q);
    }
}


void
worker_lease_scan(stoa_timer_t *timer)
{
    worker_engine_t *e = timer->data;
    stoa_loop_t     *loop = e->worker->loop;
    uint64_t         now = loop->now_ms(loop);
    worker_lease_t  *l, *next;

    for (l = e->leases; l != NULL; l = next) {
        next = l->next;

        if (l->task->sql == NULL && now + l->q->cls.lease_ms / 5 > l->until_ms)
        {
            worker_lease_lost(l, "its lease could not be renewed", true);
        }
    }

    for (size_t i = 1; i < WORKER_QUEUES_MAX; i++) {
        if (e->queues[i].held != 0 && !e->queues[i].beating) {
            worker_lease_beat(&e->queues[i], now);
        }
    }

    loop->timer_set(loop, timer, WORKER_BEAT_SCAN_MS);
}


/* ---- ends ---- */

static void
worker_lease_settle_later(worker_engine_t *e, uint64_t ms)
{
    if (!e->settle_armed) {
        e->settle_armed = true;
        e->worker->loop->timer_set(e->worker->loop, &e->settle_timer, ms);
    }
}


static void
worker_lease_settled(stoa_redis_op_t *op, stoa_err_e err,
                     const stoa_redis_reply_t *reply, void *data)
{
    worker_queue_t  *q = data;
    worker_engine_t *e = q->engine;
    size_t           n = q->settling;

    q->settling = 0;
    reply = worker_engine_array(e, "settle", err, reply);

    if (reply == NULL) {
        worker_lease_settle_later(e, SETTLE_RETRY_MS);
        return;
    }

    for (size_t i = 0; i < n && i < stoa_redis_count(reply); i++) {
        if (stoa_redis_int(stoa_redis_at(reply, i)) == 0) {
            stoa_log(e->worker->log, STOA_LOG_WARN,
                     "task %s: ended after its lease had gone",
                     q->settles[i].id);
            e->worker->counts[STOA_M_task_lost_leases]++;
        }
    }

    for (size_t i = 0; i < n; i++) {
        if (q->settles[i].alone) {
            e->alone = false;
            worker_engine_want(e, NULL);
        }
    }

    q->nsettles -= n;
    memmove(q->settles, q->settles + n, q->nsettles * sizeof(worker_settle_t));

    if (q->nsettles != 0) {
        worker_lease_settle_later(e, SETTLE_MS);
    }

    e->worker->loop->defer(e->worker->loop, &e->claim_defer);
    worker_lease_check_idle(e);
}


static void
worker_lease_settle(worker_queue_t *q)
{
    size_t           n = q->nsettles;
    char             delays[WORKER_SETTLE_MAX][12];
    char             modes[WORKER_SETTLE_MAX];
    stoa_str_t       argv[WORKER_SETTLE_MAX * 5];
    worker_settle_t *s;

    if (n == 0 || q->settling != 0) {
        return;
    }

    if (n > WORKER_SETTLE_MAX) {
        n = WORKER_SETTLE_MAX;
    }

    for (size_t i = 0; i < n; i++) {
        s = &q->settles[i];
        modes[i] = (char) s->mode;
        (void) snprintf(delays[i], sizeof(delays[i]), "%u", s->delay_ms);
        argv[i * 5] = stoa_str_z(s->id);
        argv[i * 5 + 1] = stoa_str_z(s->fence);
        argv[i * 5 + 2] = (stoa_str_t){ 1, (unsigned char *) &modes[i] };
        argv[i * 5 + 3] = stoa_str_z(delays[i]);
        argv[i * 5 + 4] = stoa_str_z(s->reason);
    }

    if (worker_engine_eval(q->engine, WORKER_LUA_SETTLE, q, (int) n * 5, argv,
                           worker_lease_settled, q))
    {
        q->settling = n;

    } else {
        worker_lease_settle_later(q->engine, SETTLE_RETRY_MS);
    }
}


void
worker_lease_settle_all(worker_engine_t *e)
{
    for (size_t i = 1; i < WORKER_QUEUES_MAX; i++) {
        worker_lease_settle(&e->queues[i]);
    }
}


bool
worker_lease_told(worker_engine_t *e)
{
    worker_lease_settle_all(e);

    for (size_t i = 1; i < WORKER_QUEUES_MAX; i++) {
        if (e->queues[i].nsettles > e->queues[i].settling) {
            return false;
        }
    }

    return true;
}


void
worker_lease_settle_fire(stoa_timer_t *timer)
{
    worker_engine_t *e = timer->data;

    e->settle_armed = false;
    worker_lease_settle_all(e);
}


static bool
worker_lease_tell(worker_lease_t *lease, worker_end_e mode, uint32_t delay_ms,
                  const char *reason)
{
    worker_queue_t  *q = lease->q;
    worker_settle_t *s;

    if (q->nsettles == WORKER_SETTLES) {
        /* Redis is away for long: the lease runs out by itself */
        stoa_log(q->engine->worker->log, STOA_LOG_ERROR,
                 "task %s: its end could not be kept", lease->id);
        return false;
    }

    s = &q->settles[q->nsettles++];
    s->mode = mode;
    s->delay_ms = delay_ms;
    s->alone = lease->alone;
    lease->alone = false; /* dropping it lets nothing in: its end does */
    (void) snprintf(s->id, sizeof(s->id), "%s", lease->id);
    (void) snprintf(s->fence, sizeof(s->fence), "%s", lease->fence);
    (void) snprintf(s->reason, sizeof(s->reason), "%s",
                    reason != NULL ? reason : "");

    if (q->nsettles >= WORKER_SETTLE_MAX || q->engine->stopping || s->alone) {
        worker_lease_settle(q);

    } else {
        worker_lease_settle_later(q->engine, SETTLE_MS);
    }

    return true;
}


static void
worker_lease_count(worker_task_t *t, worker_end_e end)
{
    worker_t *w = t->worker;
    size_t    outcome = 0;

    switch (end) {

    case WORKER_END_DONE:
        w->counts[STOA_M_task_done]++;
        break;

    case WORKER_END_RETRY:
        w->counts[STOA_M_task_retried]++;
        outcome = 1;
        break;

    case WORKER_END_SNOOZE:
        outcome = 2;
        break;

    case WORKER_END_DEAD:
        w->counts[STOA_M_task_dead]++;
        outcome = 3;
        break;

    case WORKER_END_RELEASE:
        return;
    }

    if (t->row != NULL) {
        w->engine->runs[t->row - stoa_tasks][outcome]++;
    }
}


void
worker_lease_end(worker_task_t *t, worker_end_e end, const char *reason,
                 uint32_t delay_ms)
{
    worker_lease_t  *lease = t->lease;
    worker_queue_t  *q = lease->q;
    worker_engine_t *e = q->engine;

    worker_lease_count(t, end);
    (void) worker_lease_tell(lease, end, delay_ms, reason);
    worker_lease_drop(lease);
    worker_task_abort(t);

    if (end == WORKER_END_DONE) {
        worker_relay_kick(e->relay); /* its transaction may have enqueued */
    }

    worker_lease_check_idle(e);
}
