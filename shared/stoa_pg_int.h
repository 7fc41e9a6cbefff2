/*
 * Private to stoa_pg.c and stoa_pg_result.c (libpq), stoa_pg_conn.c
 * (connections), stoa_pg_pool.c (queue, dispatch) and stoa_pg_life.c.  Nobody
 * else includes it.
 *
 * States of an operation and where it then is:
 *
 *   QUEUED   in the pool's queue, nothing sent
 *   SENT     in its connection's ring of commands
 *   HELD     a write that was answered and waits for its Sync: conn->held
 *   ENDING   off its connection, done() is about to be called or running
 *   FREE     in the pool's list of free ones
 *
 * States of a connection: DOWN (the retry timer runs) -> CONNECTING -> SETUP
 * -> READY -> DOWN ...; CLOSED when the pool drains.  Only
 * stoa_pg_conn_set_state() changes it.
 */

#ifndef STOA_PG_INT_H_INCLUDED
#define STOA_PG_INT_H_INCLUDED

#include "stoa_pg.h"

#include <libpq-fe.h>

#define STOA_PG_OP_MAGIC   0x73706f70u
#define STOA_PG_CONN_MAGIC 0x7370636fu
#define STOA_PG_POOL_MAGIC 0x7370706cu

#define STOA_PG_PARAMS_MAX 64

/* Reads that share one Sync, and such groups on their way per connection.
   What comes while a group runs waits in the pool's queue: the next group is
   larger, and it goes to the connection that is free first instead of behind
   one that may turn out to be slow.  A second group per connection costs more
   per read and gains nothing as soon as there are two connections. */
#define STOA_PG_GROUP_MAX 32
#define STOA_PG_GROUPS    1

/* A group costs three system calls whatever is in it.  While a group of cheap
   reads is on its way and not late, what comes waits until it is a quarter of
   all there are, at most good, or until none is on its way.  So few at a time
   do not wait, and reads that take longer than cheap on average never do. */
#define STOA_PG_GROUP_GOOD 12
#define STOA_PG_CHEAP_US   500
#define STOA_PG_LATE_US    1000

/* Statements of our own; slots behind those of the caller. */
#define STOA_PG_SLOT_OWN     0xfffffff0u
#define STOA_PG_SLOT_TIMEOUT (STOA_PG_SLOT_OWN + 0)
#define STOA_PG_SLOT_CANCEL  (STOA_PG_SLOT_OWN + 1)
#define STOA_PG_SLOTS_OWN    2

struct pg_conn;
struct pg_result;

typedef struct stoa_pg_conn_s stoa_pg_conn_t;

typedef enum {
    STOA_PG_OP_FREE = 1,
    STOA_PG_OP_QUEUED,
    STOA_PG_OP_SENT,
    STOA_PG_OP_HELD,
    STOA_PG_OP_ENDING
} stoa_pg_op_state_e;

struct stoa_pg_op_s {
    uint32_t              magic;
    stoa_pg_op_state_e    state;
    stoa_pg_op_t         *next; /* queue, free list, list of ending ones */
    stoa_pg_op_t         *prev; /* queue */
    stoa_pg_pool_t       *pool;
    stoa_pg_conn_t       *conn; /* SENT, HELD */
    const stoa_pg_stmt_t *stmt;
    stoa_pg_done_pt       done; /* NULL: the owner left or was answered */
    void                 *data;
    struct pg_result     *res;        /* rows, or the error */
    struct pg_result     *cause;      /* error of what was sent on its behalf */
    uint64_t              deadline;   /* ms of the loop; 0: none */
    uint64_t              wait_until; /* in the queue */
    uint64_t              submitted_us;
    uint64_t              sent_us;
    uint64_t              done_us;
    bool                  failed;     /* res is an error */
    bool                  aborted;    /* not run: another one of its group */
    bool                  alone;      /* gets a group of its own */
    bool                  resent;     /* after a lost connection */
    bool                  reprepared; /* after 26000, 0A000 */
    const char           *values[STOA_PG_PARAMS_MAX];
    int                   lens[STOA_PG_PARAMS_MAX]; /* with stmt->formats */
};

typedef enum {
    STOA_PG_CMD_SETUP = 1,
    STOA_PG_CMD_DEALLOCATE, /* its error says nothing */
    STOA_PG_CMD_PARSE,
    STOA_PG_CMD_TIMEOUT,
    STOA_PG_CMD_OP,
    STOA_PG_CMD_SYNC
} stoa_pg_cmd_e;

/* What libpq will report next, in the order it was sent. */
typedef struct {
    stoa_pg_op_t *op;   /* PARSE, TIMEOUT: on whose behalf */
    uint32_t      slot; /* PARSE: index in prepared[]; SYNC: of reads */
    stoa_pg_cmd_e kind;
} stoa_pg_cmd_t;

typedef enum {
    STOA_PG_DOWN = 1,
    STOA_PG_CONNECTING,
    STOA_PG_SETUP,
    STOA_PG_READY,
    STOA_PG_CLOSED
} stoa_pg_state_e;

/* Of a statement on a connection. */
enum {
    STOA_PG_UNPREPARED = 0,
    STOA_PG_PREPARED, /* or the Parse is on its way */
    STOA_PG_STALE     /* to be deallocated first */
};

struct stoa_pg_conn_s {
    uint32_t        magic;
    stoa_pg_state_e state;
    stoa_pg_pool_t *pool;
    uint32_t        index;
    struct pg_conn *pg;
    stoa_watch_t    watch;
    stoa_timer_t    timer;    /* of what is in flight: not cancelable */
    stoa_timer_t    retry;    /* connect time-out, reconnect: cancelable */
    uint64_t        timer_at; /* 0: not set */
    uint64_t        heard_at; /* last bytes, or first command after idling */
    stoa_pg_cmd_t  *cmds;     /* ring of mask + 1 */
    uint32_t        mask, head, count;
    uint32_t        n;        /* operations in flight */
    uint32_t        open;     /* reads in the group that has no Sync yet */
    uint32_t        groups;   /* groups of reads whose Sync did not arrive */
    uint32_t        grouped;  /* reads in the last group */
    uint64_t        group_us; /* when that was sent */
    uint64_t        heard_us; /* when the socket was read last */
    uint32_t        fails;    /* attempts in a row */
    uint64_t        up_at;
    stoa_pg_op_t   *held;
    stoa_pg_op_t   *cancel;   /* runs pg_cancel_backend() on this one */
    uint8_t        *prepared; /* by slot */
    bool            wants_write;
    bool            touched; /* in this dispatch */
    char            pid[12];
};

struct stoa_pg_pool_s {
    uint32_t        magic;
    stoa_loop_t    *loop;
    stoa_pg_conf_t  conf; /* strings are copies */
    stoa_pg_conn_t *conns;
    uint32_t        ready;
    bool            starting; /* none was up yet, not all have failed */
    bool            destroying;
    bool            draining;
    stoa_defer_t    dispatch;
    stoa_defer_t    drain;
    void (*drained)(void *data);
    void           *drained_data;
    stoa_pg_op_t   *first, *last; /* queue */
    uint32_t        waiting;
    uint32_t        pressing; /* of these: not to wait for company */
    uint32_t        in_flight;
    uint64_t        turn_us; /* of this turn's first submit; 0: none yet */
    uint64_t        read_us; /* of a read in a group, on average; 0: unknown */
    uint64_t        soonest; /* no wait_until in the queue is before */
    stoa_timer_t    timer;   /* of the queue */
    stoa_pg_op_t   *free;
    stoa_pg_pool_t *via;       /* where cancels go; NULL: there are none */
    stoa_pg_pool_t *via_next;  /* of those that go through the same */
    stoa_pg_pool_t *via_first; /* those that go through this one */
    uint64_t        seed;      /* of jitter */
    stoa_pg_stats_t stats;
};

static inline stoa_pg_cmd_t *
stoa_pg_conn_cmd(const stoa_pg_conn_t *conn, uint32_t i)
{
    return &conn->cmds[(conn->head + i) & conn->mask];
}

uint64_t stoa_pg_clock_us(void);

/* stoa_pg.c */

/* false: conninfo is not usable, logged. */
bool stoa_pg_conninfo_check(stoa_loop_t *loop, const char *conninfo);

void stoa_pg_conn_connect(stoa_pg_conn_t *conn);
void stoa_pg_conn_close(stoa_pg_conn_t *conn); /* only the socket's side */

/* Puts an operation and what it needs into libpq's buffer.  false: the
   connection is broken; op is SENT when its own message got that far. */
bool stoa_pg_conn_send(stoa_pg_conn_t *conn, stoa_pg_op_t *op);

/* Ends the open group of reads, writes out; false: broken. */
bool stoa_pg_conn_flush(stoa_pg_conn_t *conn);

void stoa_pg_one_line(char out[256], const char *text);

/* stoa_pg_result.c */

void        stoa_pg_res_free(struct pg_result *res); /* NULL is fine */
const char *stoa_pg_res_field(const struct pg_result *res, int code);

/* stoa_pg_conn.c */

void stoa_pg_conn_set_state(stoa_pg_conn_t *conn, stoa_pg_state_e to);

void stoa_pg_conn_retry(stoa_timer_t *t); /* the time to (re)connect is up */

/* Sets the timer of what is in flight; 0: no deadline. */
void stoa_pg_conn_arm(stoa_pg_conn_t *conn, uint64_t deadline);
void stoa_pg_conn_deadlines(stoa_timer_t *t);

/* Stops the running statement of a pool that has one in flight. */
void stoa_pg_conn_cancel(stoa_pg_conn_t *conn);

/* Closes what is open and settles what was in flight; next is DOWN (connects
   again) or CLOSED. */
void stoa_pg_conn_lost(stoa_pg_conn_t *conn, stoa_pg_state_e next,
                       const char *why);

/* stoa_pg_pool.c */

void stoa_pg_pool_wake(stoa_pg_pool_t *pool); /* dispatch at end of turn */
void stoa_pg_pool_dispatch(stoa_defer_t *d);
void stoa_pg_pool_queue_timer(stoa_timer_t *t);

/* Everything that waits ends. */
void stoa_pg_queue_fail(stoa_pg_pool_t *pool, stoa_err_e err);

/* Nothing is in flight on conn. */
void stoa_pg_pool_idle(stoa_pg_pool_t *pool, stoa_pg_conn_t *conn);

/* PostgreSQL has answered, op is off its connection. */
void stoa_pg_op_answered(stoa_pg_op_t *op);

/* op is off its connection: done(err), then free. */
void stoa_pg_op_end(stoa_pg_op_t *op, stoa_err_e err);

/* op is off its connection: to the front of the queue. */
void stoa_pg_op_again(stoa_pg_op_t *op);

/* stoa_pg_life.c: a connection is up; one is gone. */

void stoa_pg_pool_up(stoa_pg_pool_t *pool);
void stoa_pg_pool_down(stoa_pg_pool_t *pool);

#endif /* STOA_PG_INT_H_INCLUDED */
