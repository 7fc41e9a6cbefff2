/*
 * Task rows: background work that queue.enqueue(kind, ...) asks for.  A row
 * names exactly one of .sql (one statement that does the effect and calls
 * queue.done) or .flow (named steps in workers/).  Classes carry lease,
 * limits and backoff (queues.md D5).
 */

#ifndef STOA_TASKS_H_INCLUDED
#define STOA_TASKS_H_INCLUDED

#include "../stoa.h"

typedef enum {
    STOA_CLASS_PAYMENT = 1,
    STOA_CLASS_WEBHOOK,
    STOA_CLASS_EMAIL,
    STOA_CLASS_TIMEOUT, /* offer and hold expiry */
    STOA_CLASS_RENDER,
    STOA_CLASS_CRON,
    STOA_CLASS_COUNT
} stoa_class_e;

typedef struct {
    const char *queue; /* Redis queue: {q:<queue>} */
    uint32_t    lease_ms, beat_ms, run_ms;
    uint16_t    attempts; /* 0: until the state is terminal */
    uint32_t    backoff_ms, backoff_cap_ms;
    uint32_t    give_up_s; /* since it was enqueued; 0: never */
    uint8_t     percent;   /* of a process's concurrency, at most */
    uint16_t    each;      /* of one tenant at once, everywhere; 0: no limit */
    uint16_t    most;      /* of the queue at once, everywhere; 0: no limit */
} stoa_class_row_t;

extern const stoa_class_row_t stoa_class_rows[STOA_CLASS_COUNT];

typedef enum {
    STOA_TASK_FLOW_NONE = 0,
/* clang-format off */
#define STOA_TASK_FLOWS(X)                                                     \
    X(MAIL_SEND)                                                               \
    X(PAYMENT_CREATE) X(REFUND_EXECUTE) X(PAYMENT_RECONCILE) X(TEST_PAY)       \
        X(TICKET_RENDER) X(PAYMENT_CANCEL)
/* clang-format on */
#define STOA_TASK_FLOW_ENUM(name) STOA_TASK_FLOW_##name,
    STOA_TASK_FLOWS(STOA_TASK_FLOW_ENUM)
#undef STOA_TASK_FLOW_ENUM
    STOA_TASK_FLOW_COUNT
} stoa_task_flow_e;

#define STOA_MAX_CRASH_POINTS 6

/* What became of slots at which no worker ran, and that are over a minute
   late: one run for all of them, none, or each. */
typedef enum {
    STOA_MISSED_ONCE = 0,
    STOA_MISSED_SKIP,
    STOA_MISSED_ALL
} stoa_missed_e;

typedef struct {
    const char      *kind; /* "mail.send" */
    stoa_class_e     cls;
    const char      *sql; /* "task.order_expire($1::bigint, $2::jsonb)" */
    stoa_task_flow_e flow;
    uint8_t          level;   /* priority 0 (first) .. 3 */
    const char      *anchor;  /* what makes the effect happen once */
    uint32_t         every_s; /* schedule: run each so many seconds; 0: none */
    const char      *cron;    /* or when, as cron(5): "0 3 * * *" */
    const char      *zone;    /* of the wall clock; NULL: UTC */
    stoa_missed_e    missed;  /* of cron: no worker ran at that time */
    const char      *crash[STOA_MAX_CRASH_POINTS]; /* STOA_CRASH names, so
                        "mail.send.<point>" */
    const char      *summary;
} stoa_task_t;

extern const stoa_task_t stoa_tasks[];
extern const size_t      stoa_ntasks;

/* "once", "skip", "all". */
const char *stoa_missed_name(stoa_missed_e missed);

/* NULL: no such kind. */
const stoa_task_t *stoa_task_find(const char *kind, size_t len);

#endif /* STOA_TASKS_H_INCLUDED */
