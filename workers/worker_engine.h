/*
 * The engine's inside: what worker_engine.c (claims), worker_lease.c
 * (leases, ends), worker_relay.c
 * (outbox to Redis), worker_lead.c (ticks, schedules, metrics), worker_run.c
 * (the driver of one task) and worker_main.c (the process) share.  Flows do
 * not include it.
 */

#ifndef WORKER_ENGINE_H_INCLUDED
#define WORKER_ENGINE_H_INCLUDED

#include "worker.h"
#include "worker_host.h"
#include "worker_lua.h"
#include "../shared/stoa_queue.h"

#define WORKER_QUEUES_MAX   STOA_CLASS_COUNT
#define WORKER_BEAT_SCAN_MS 250
#define WORKER_SETTLE_MAX   100
#define WORKER_ARGS_MAX     800 /* of a script */
#define WORKER_SETTLES      384
#define WORKER_REASON_MAX   160
#define WORKER_TASKS_MAX    64 /* kinds */

typedef struct worker_queue_s worker_queue_t;
typedef struct worker_lease_s worker_lease_t;
typedef struct worker_relay_s worker_relay_t;
typedef struct worker_lead_s  worker_lead_t;
typedef struct worker_steer_s worker_steer_t;

/* How a run ended; the letters are the settle script's modes. */
typedef enum {
    WORKER_END_DONE = 'a',
    WORKER_END_RETRY = 'r',
    WORKER_END_SNOOZE = 's',
    WORKER_END_DEAD = 'd',
    WORKER_END_RELEASE = 'l'
} worker_end_e;

/* A claimed task; in the task's memory. */
struct worker_lease_s {
    worker_lease_t *next;
    worker_queue_t *q;
    worker_task_t  *task;
    char            id[41];
    char            fence[21];
    uint64_t        until_ms;   /* monotonic: when our lease surely ended */
    uint64_t        beat_ms;    /* when the next beat is due */
    uint64_t        sent_ms;    /* of the beat under way; 0: none */
    int64_t         give_up_ms; /* epoch of Redis; 0: never */
    int64_t         claimed_ms; /* epoch of Redis at the claim */
    uint64_t        claimed_at; /* monotonic */
    uint16_t        attempts;
    bool            alone;
};

/* What Redis has yet to hear of a run's end. */
typedef struct {
    char         id[41];
    char         fence[21];
    worker_end_e mode;
    bool         alone; /* nothing is claimed until Redis has heard it */
    uint32_t     delay_ms;
    char         reason[WORKER_REASON_MAX];
} worker_settle_t;

struct worker_queue_s {
    worker_engine_t *engine;
    stoa_class_row_t cls;       /* a copy: test builds shorten leases */
    char             key[96];   /* P */
    char             meta[100]; /* P:m */
    char             wake[100]; /* P:w */
    unsigned         held;      /* leases */
    unsigned         max;       /* of them */
    bool             want;      /* a claim should be made */
    bool             more;      /* the last one came back full */
    bool             claiming;
    bool             beating;
    bool             suspects;  /* the last tick or claim saw some */
    uint32_t         claim_max; /* of the claim under way */
    worker_settle_t *settles;   /* WORKER_SETTLES */
    size_t           nsettles;
    size_t           settling; /* the first ones, under way */
};

struct worker_engine_s {
    worker_t           *worker;
    worker_host_t      *host;
    stoa_redis_t       *blocking; /* BLPOP only */
    stoa_redis_script_t scripts[WORKER_LUA_COUNT];
    worker_queue_t      queues[WORKER_QUEUES_MAX];
    worker_lease_t     *leases;
    unsigned            held;
    unsigned            asked; /* by claims under way */
    unsigned            max;
    stoa_pg_stmt_t      sql[WORKER_TASKS_MAX]; /* of rows without a flow */
    bool                leader;
    bool                quiet; /* claims nothing */
    bool                stopping;
    bool                alone;     /* a suspect runs: claims nothing else */
    bool                exclusive; /* a claim that may bring one is under way */
    bool                popping;
    char                outbox_wake[100];
    stoa_timer_t        pop_timer;
    stoa_timer_t        settle_timer;
    bool                settle_armed;
    stoa_timer_t        beat_timer;
    stoa_defer_t        claim_defer;
    worker_relay_t     *relay;
    worker_lead_t      *lead;
    worker_steer_t     *steer;
    uint64_t            random;
    uint64_t            runs[WORKER_TASKS_MAX][4]; /* done retry snooze dead */
    void (*idle)(void *data); /* stopping, and nothing is held any more */
    void *idle_data;
};

/* ---- worker_engine.c ---- */

worker_engine_t *worker_engine_create(worker_t *w, worker_host_t *host,
                                      const stoa_redis_conf_t *rc);
/* Ends w->redis and w->pg, too. */
void worker_engine_destroy(worker_engine_t *e);

/* Claims from this queue (NULL: from all) at the end of the turn. */
void worker_engine_want(worker_engine_t *e, worker_queue_t *q);
void worker_engine_quiet(worker_engine_t *e, bool quiet);

/* Claims no more and calls idle() when nothing is held and told. */
void worker_engine_stop(worker_engine_t *e, void (*idle)(void *data),
                        void            *data);

/* Gives back what is held, without an attempt. */
void worker_engine_release(worker_engine_t *e);

/* Pops wake tokens unless there is no room for a task. */
void worker_engine_pop(worker_engine_t *e);

uint64_t worker_engine_random(worker_engine_t *e);

/* EVALSHA of a script for a queue; argv is what follows P.  May fail. */
bool worker_engine_eval(worker_engine_t *e, worker_lua_e script,
                        worker_queue_t *q, int argc, const stoa_str_t *argv,
                        stoa_redis_done_pt done, void *data);

/* An array answer, or NULL with a line in the log. */
const stoa_redis_reply_t *worker_engine_array(worker_engine_t *e,
                                              const char *what, stoa_err_e err,
                                              const stoa_redis_reply_t *reply);

/* ---- worker_lease.c ---- */

/* The lease of the task at this place of the claim's answer. */
bool worker_lease_open(worker_queue_t *q, stoa_mem_t *mem, worker_task_t *t,
                       const stoa_redis_reply_t *reply, size_t at);

/* The run of a lease ended; destroys the task. */
void worker_lease_end(worker_task_t *t, worker_end_e end, const char *reason,
                      uint32_t delay_ms);

/* Calls idle() when the engine stops and nothing is held and untold. */
void worker_lease_check_idle(worker_engine_t *e);

void worker_lease_settle_all(worker_engine_t *e);

/* Sends what Redis has yet to hear, ahead of whatever is asked of it next;
   false: some of it must wait for an answer first. */
bool worker_lease_told(worker_engine_t *e);

void worker_lease_settle_fire(stoa_timer_t *timer);
void worker_lease_scan(stoa_timer_t *timer);

/* ---- worker_run.c ---- */

/* Starts the task's flow or statement; t is whole but for it. */
void worker_task_start(worker_task_t *t);

/* Ends it from outside; nothing is told to Redis. */
void worker_task_abort(worker_task_t *t);

/* queue.dead(), then the engine hears of it. */
void worker_task_bury(worker_task_t *t, const char *reason);

/* ---- worker_relay.c ---- */

worker_relay_t *worker_relay_create(worker_engine_t *e);
void            worker_relay_destroy(worker_relay_t *r);
void            worker_relay_kick(worker_relay_t *r);  /* the outbox has some */
void            worker_relay_sweep(worker_relay_t *r); /* lost by Redis? */

/* ---- worker_steer.c ---- */

worker_steer_t *worker_steer_create(worker_engine_t *e);
void            worker_steer_destroy(worker_steer_t *c);
void            worker_steer_tick(worker_steer_t *c); /* the leader's */

/* ---- worker_lead.c ---- */

worker_lead_t *worker_lead_create(worker_engine_t *e);
void           worker_lead_destroy(worker_lead_t *lead);

/* The settings that SQL sees, as one JSON object (worker_main.c). */
void worker_settings_json(const stoa_conf_t *conf, stoa_buf_t *b);

/* queue.dead() for a row that no task of ours stands for; Redis forgets it
   when the row is gone, for then it was done. */
void worker_dead_row(worker_queue_t *q, stoa_str_t id, stoa_str_t reason);

#endif /* WORKER_ENGINE_H_INCLUDED */
