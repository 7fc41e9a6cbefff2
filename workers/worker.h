/*
 * The worker process as its flows see it: the task in hand, how a step runs
 * a statement, waits, computes, and how a flow ends.
 *
 * A flow is a const table of named steps, run in order by worker_run.c.  A
 * step either does something and returns NEXT, or starts one or more
 * operations and returns WAIT, or ends the task.  It never loops over I/O
 * and never touches Redis: leases, retries and replies are the engine's.
 *
 * What a step need not care about: a statement that failed never reaches the
 * next step.  PostgreSQL away, its pool full or a commit unknown: the task
 * is put back without using up an attempt; any other error: it is retried
 * with the class's backoff, and dead after the last attempt.  So the next
 * step always has t->res.
 *
 * A task may be ended from outside at any WAIT (lease lost, run limit,
 * stop).  Then t->mem is destroyed and nothing is called: whatever an
 * operation holds (a curl handle, a file) must be given back by
 * t->mem->on_free().
 */

#ifndef WORKER_H_INCLUDED
#define WORKER_H_INCLUDED

#include "../shared/stoa.h"
#include "../shared/stoa_conf.h"
#include "../shared/stoa_id.h"
#include "../shared/stoa_json.h"
#include "../shared/stoa_loop.h"
#include "../shared/stoa_metric.h"
#include "../shared/stoa_pg.h"
#include "../shared/stoa_redis.h"
#include "../shared/tasks/stoa_tasks.h"
#include "worker_breaker.h"
#include "../shared/stoa_http.h"

typedef struct worker_s        worker_t;
typedef struct worker_task_s   worker_task_t;
typedef struct worker_engine_s worker_engine_t; /* worker_engine.c */

typedef enum {
    WORKER_NEXT = 1, /* go on with the next step */
    WORKER_WAIT,     /* an operation was started; the next step runs after */
    WORKER_DONE,     /* the task was ended by one of the verbs below */
    WORKER_FAIL      /* out of memory or our own fault: retried */
} worker_step_e;

typedef worker_step_e (*worker_step_pt)(worker_task_t *t);

typedef struct {
    const char    *name; /* logs, and last_error: "<step>: <reason>" */
    worker_step_pt run;
} worker_step_t;

#define worker_steps_end                                                       \
    {                                                                          \
        NULL, NULL                                                             \
    }

/* By stoa_task_flow_e; the tables live in the flows' own files. */
extern const worker_step_t *const worker_flows[STOA_TASK_FLOW_COUNT];

extern const worker_step_t worker_mail_steps[];          /* MAIL_SEND */
extern const worker_step_t worker_pay_create_steps[];    /* PAYMENT_CREATE */
extern const worker_step_t worker_pay_refund_steps[];    /* REFUND_EXECUTE */
extern const worker_step_t worker_pay_reconcile_steps[]; /* ..._RECONCILE */
extern const worker_step_t worker_pay_cancel_steps[];    /* PAYMENT_CANCEL */
extern const worker_step_t worker_testpay_steps[];       /* TEST_PAY */
extern const worker_step_t worker_render_steps[];        /* TICKET_RENDER */

/* Statements of the workers: rows in worker_stmt.def. */
typedef enum {
#define WORKER_STMT(name, nparams, write, sql) WORKER_SQL_##name,
#include "worker_stmt.def"
#undef WORKER_STMT
    WORKER_SQL_COUNT
} worker_sql_e;

extern const stoa_pg_stmt_t worker_stmts[WORKER_SQL_COUNT];

/* One process of stoa work. */
struct worker_s {
    const stoa_conf_t         *conf;
    stoa_loop_t               *loop;
    stoa_log_t                *log;
    stoa_pg_pool_t            *pg;
    stoa_redis_t              *redis;
    worker_engine_t           *engine;
    stoa_http_t               *http;
    worker_breaker_t           stripe_breaker;
    worker_breaker_t           smtp_breaker;
    struct worker_templates_s *templates; /* worker_template.c; NULL: made by
                                             the first who needs them */
    stoa_id_t                  ids;       /* UUIDv7 of this process */
    char                       name[64];  /* "<host>.<pid>.<start>" */
    uint64_t                   counts[STOA_M_COUNT]; /* since the last flush */
};

struct worker_task_s {
    worker_t               *worker;
    const stoa_task_t      *row;
    const stoa_class_row_t *cls;
    stoa_mem_t             *mem;         /* lives as long as the task */
    int64_t                 id;          /* of the outbox row */
    const char             *id_z;        /* the same, for worker_pg() */
    const char             *payload_z;   /* its JSON, for worker_pg() */
    stoa_json_t            *payload;     /* an object */
    unsigned                attempt;     /* starts, this one included */
    unsigned                failures;    /* so far */
    uint64_t                deadline_ms; /* monotonic end of the run limit */

    /* Of the last worker_pg(): valid until the next one. */
    stoa_pg_result_t *res;    /* NULL before the first */
    stoa_json_t      *answer; /* row 0, column 0 when it is a JSON object */

    void *state; /* the flow's own, made in mem by its first step */

    /* The rest is worker_run.c's and worker_lease.c's. */
    const stoa_pg_stmt_t *sql; /* of a row without a flow */
    const worker_step_t  *steps;
    const worker_step_t  *step;
    stoa_pg_op_t         *op;
    stoa_timer_t          timer; /* run limit */
    stoa_defer_t          resume;
    unsigned              pending; /* operations under way */
    unsigned              threads; /* computations that cannot be recalled */
    bool                  asked;   /* a suspect: is it done already? */
    bool                  running; /* inside a step */
    bool                  ended;
    bool                  finished; /* its verdict is on its way */
    bool                  gone;     /* aborted: only a computation holds mem */
    int                   end;      /* worker_end_e */
    uint32_t              delay_ms;
    const char           *reason; /* in mem */
    stoa_str_t            reply;
    stoa_str_t            reply_to;
    void                 *lease; /* worker_lease.c */
};

/* ---- inside steps ---- */

/*
 * Runs a statement of worker_stmt.def with its declared number of
 * parameters, each a const char * (text format, NULL is null; bytea as
 * "\\x<hex>"), which must stay valid until the next step: t->mem or const.
 * Returns WAIT (or FAIL): return worker_pg(t, WORKER_SQL_MAIL_BEGIN,
 * t->id_z, t->payload_z);
 */
worker_step_e worker_pg(worker_task_t *t, worker_sql_e sql, ...);

/* Ends the task when t->answer's "result" is done (with its "reply"), dead
   or snooze, and returns DONE; else NEXT: the step goes on reading
   t->answer.  A flow whose table ends is ended by this, too. */
worker_step_e worker_answer(worker_task_t *t);

/* The next step is this one of the same table (loops): returns NEXT. */
worker_step_e worker_goto(worker_task_t *t, worker_step_pt step);

/* For operations of other doors: wait before it starts, resume exactly once
   when it ended (also from inside the step).  No resume after t->mem was
   freed: drop the operation in on_free(). */
void worker_wait(worker_task_t *t);
void worker_resume(worker_task_t *t);

/* Runs work(arg) on a thread of the pool: CPU work on memory of its own
   only (no t->mem, no log).  The next step runs after it, or, when the task
   was ended meanwhile, t->mem is freed after it.  Returns WAIT or FAIL. */
worker_step_e worker_compute(worker_task_t *t, void (*work)(void *arg),
                             void          *arg);

/* ---- ends: each returns DONE ---- */

/* The effect is committed and queue.done(id) was called with it.  reply:
   JSON for the waiting request, or an empty string. */
worker_step_e worker_done(worker_task_t *t, stoa_str_t reply);

/* A failure: again after delay_ms (0: the class's backoff with full jitter;
   a provider's Retry-After wins), dead after the last attempt.  reason is
   short and holds no secret and no address. */
worker_step_e worker_retry(worker_task_t *t, const char *reason,
                           uint32_t delay_ms);

/* Not now (breaker open, 429, not yet): uses up no attempt; bounded by the
   class's give_up_s alone. */
worker_step_e worker_snooze(worker_task_t *t, const char *reason,
                            uint32_t delay_ms);

/* Will never work: calls queue.dead(id, reason). */
worker_step_e worker_dead(worker_task_t *t, const char *reason);

/* ---- templates and words (worker_mail.c) ---- */

/* Loaded by the first call; NULL with a line in the log: not readable. */
struct worker_templates_s *worker_texts(worker_t *w);

/* ---- test builds ---- */

#ifdef STOA_TEST
/* Kills this process as kill -9 does when STOA_CRASH names the point; the
   file named by STOA_CRASH_ONCE, when set, is made first and its presence
   disarms the point. */
void worker_crash_point(const char *point);
#else
#define worker_crash_point(point) ((void) 0)
#endif

#endif /* WORKER_H_INCLUDED */
