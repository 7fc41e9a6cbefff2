/*
 * The client side of the queues: what a task looks like between PostgreSQL,
 * Redis and a worker.  Pure: names of keys, the envelope, when to try again.
 * The moves themselves are Lua (workers/worker_lua.c).
 *
 *   prefix + {q:<queue>}  = P
 *   P:r0..r3  ready, one list per level     P:x  suspects, run alone
 *   P:s       scheduled, by run-at ms       P:l  leases, by deadline ms
 *   P:d       dead, by ms                   P:j:<id>  the task's hash
 *   P:u:<key> owner of a unique key         P:w  wake tokens
 *   P:m       tick, hold, counters          P:ctl  paused, most at once
 *   P:t0..t3:<tenant>  a tenant's tasks, whose turn "@<tenant>" is in r0..r3
 *   P:a       active by tenant              P:k  tenants at their limit
 *
 * States: scheduled -> ready -> active -> gone; active -> scheduled (retry,
 * snooze), ready (released), suspect (lease ran out) or dead; dead -> ready
 * (redrive).
 */

#ifndef STOA_QUEUE_H_INCLUDED
#define STOA_QUEUE_H_INCLUDED

#include "stoa_json.h"
#include "tasks/stoa_tasks.h"

#define STOA_ENVELOPE_MAX     16384
#define STOA_ENVELOPE_VERSION 1
#define STOA_QUEUE_LEVELS     4

typedef struct {
    stoa_str_t   id;         /* outbox id in decimal, or a UUIDv7; 1..40 */
    stoa_str_t   queue;      /* 1..32 of a-z 0-9 _ - */
    stoa_str_t   kind;       /* 1..64 of a-z 0-9 _ . */
    stoa_str_t   payload;    /* the text of a JSON object */
    stoa_str_t   uniq;       /* or empty; at most 200 */
    stoa_str_t   reply_to;   /* or empty; at most 200 */
    stoa_str_t   trace;      /* or empty; at most 100 */
    int64_t      run_at_ms;  /* 0: now */
    int64_t      give_up_ms; /* epoch; 0: never */
    int64_t      created_ms; /* epoch */
    int64_t      outbox;     /* row it stands for; 0: none */
    uint32_t     run_ms;     /* limit of one run; 0: the class's */
    uint16_t     attempts;   /* 0: no limit */
    uint8_t      level;
    stoa_json_t *payload_json; /* set by parse only */
} stoa_envelope_t;

/* Writes the envelope; false: a member is out of its bounds, or the text
   would pass STOA_ENVELOPE_MAX; *why is static. */
bool stoa_queue_encode(stoa_buf_t *b, const stoa_envelope_t *e,
                       const char **why) STOA_MUSTCHECK;

typedef enum {
    STOA_ENVELOPE_OK = 0,
    STOA_ENVELOPE_BAD,  /* never will be good: *why (static) */
    STOA_ENVELOPE_NEWER /* a version this build does not know */
} stoa_envelope_e;

/* Slices live in mem.  Unknown members are accepted: newer builds add. */
stoa_envelope_e stoa_queue_parse(stoa_mem_t *mem, stoa_str_t text,
                                 stoa_envelope_t *e,
                                 const char     **why) STOA_MUSTCHECK;

/* "<prefix>{q:<queue>}" and, when suffix is not NULL, ":<suffix>". */
void stoa_queue_key(stoa_buf_t *b, const char *prefix, const char *queue,
                    const char *suffix);

/* Full jitter: 0..min(cap, backoff * 2^failures), at least 1 ms.  failures
   counts those before this one; random is 64 random bits. */
uint32_t stoa_queue_backoff(const stoa_class_row_t *cls, unsigned failures,
                            uint64_t random);

/* Orders the four levels for one claim by drawing without replacement with
   weights 8:4:2:1, so that the lowest never starves. */
void stoa_queue_draw(uint64_t random, uint8_t levels[STOA_QUEUE_LEVELS]);

#endif /* STOA_QUEUE_H_INCLUDED */
