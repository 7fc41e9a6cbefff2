/*
 * The PostgreSQL machine: a pool of pipelined libpq connections on a
 * stoa_loop_t.  The only file that includes libpq-fe.h is stoa_pg.c; the
 * pool around the connections is stoa_pg_pool.c.
 *
 * Promises: done() is called exactly once per operation that was not
 * canceled, never from inside stoa_pg_submit(); a write's done() comes only
 * after the Sync of its group arrived, so no answer precedes its commit; a
 * write whose connection broke after it was sent ends with COMMIT_UNKNOWN
 * and is never re-sent; a read in the same place is re-sent once.
 * Statements are prepared at first use per connection, under their own Sync.
 */

#ifndef STOA_PG_H_INCLUDED
#define STOA_PG_H_INCLUDED

#include "stoa_loop.h"

typedef struct stoa_pg_pool_s   stoa_pg_pool_t;
typedef struct stoa_pg_op_s     stoa_pg_op_t;
typedef struct stoa_pg_result_s stoa_pg_result_t;

typedef struct {
    const char *name;       /* prepared under this name; unique in the pool */
    const char *sql;        /* with $1..$n, types by casts in the text */
    uint16_t    nparams;    /* at most 64 */
    bool        write;      /* own Sync, never re-sent */
    bool        no_prepare; /* simple scripts: sent unprepared */
    uint32_t    timeout_ms; /* 0: the pool's statement_timeout */
    uint32_t    slot;       /* 0..nslots-1 of the pool: its "prepared" bit */
    const int  *formats;    /* of each value: 0 text, 1 binary; NULL: text */
} stoa_pg_stmt_t;

typedef struct {
    const char *name;      /* "fast", "write", "slow": logs and metrics */
    const char *conninfo;  /* keyword=value; hostaddr, never a host name */
    uint16_t    size;      /* connections, 1..64 */
    uint16_t    in_flight; /* operations per connection, 1..256 */
    uint16_t    queue_max; /* operations waiting for a connection */
    uint32_t    nslots;    /* statements that may be prepared */
    uint32_t    queue_timeout_ms;     /* beyond size * in_flight operations;
                                         then POOL_SATURATED */
    uint32_t    statement_timeout_ms; /* then TIMEOUT */
    uint32_t    connect_timeout_ms;
    bool        force_custom_plan; /* plan_cache_mode for list queries */
    const char *search_path;       /* NULL: "pg_catalog" */
} stoa_pg_conf_t;

typedef struct {
    uint32_t size, ready, in_flight, waiting;
    uint64_t submitted, done, failed, saturated, reconnects;
    uint64_t timeouts; /* answered by the deadline; counted in failed too */
    uint64_t resent;   /* sent again: lost connection, aborted group, plan */
    uint64_t syncs;    /* Syncs of operations: below done when reads share */
    uint64_t answered; /* by PostgreSQL, each time; over these the sums of */
    uint64_t wait_us;  /* submitted until sent, and of */
    uint64_t run_us;   /* sent until answered */
} stoa_pg_stats_t;

/* Starts connecting at once; connects again with backoff 100 ms..5 s and
   jitter.  conf is copied.  NULL: no memory, or conninfo is not valid or
   names a host to resolve (which would block): the log says which. */
stoa_pg_pool_t *stoa_pg_pool_create(stoa_loop_t          *loop,
                                    const stoa_pg_conf_t *conf);

/* Everything in flight ends with DATABASE_UNAVAILABLE or COMMIT_UNKNOWN.
   Not from inside done(); from inside drained() it is fine. */
void stoa_pg_pool_destroy(stoa_pg_pool_t *pool);

/* Pools of slow statements, one in flight per connection: from now on a
   statement whose deadline passed, and a read whose owner left, is ended by
   pg_cancel_backend() through via, another pool or the same (then through an
   idle connection).  NULL: no longer; other pools leave it to
   statement_timeout.  The two may be destroyed in any order. */
void stoa_pg_pool_cancel_via(stoa_pg_pool_t *pool, stoa_pg_pool_t *via);

/* No new work; idle connections are closed; calls drained() when empty,
   never from inside this call. */
void stoa_pg_pool_drain(stoa_pg_pool_t *pool, void (*drained)(void *data),
                        void           *data);

void stoa_pg_pool_stats(const stoa_pg_pool_t *pool, stoa_pg_stats_t *st);
bool stoa_pg_pool_ready(const stoa_pg_pool_t *pool); /* one connection is up */

typedef void (*stoa_pg_done_pt)(stoa_pg_op_t *op, stoa_err_e err, void *data);

/*
 * values[i] (NULL is null; text is followed by a NUL, binary has lens[i]
 * bytes) must stay valid until done() or stoa_pg_cancel(); the two arrays
 * themselves are copied, lens may be NULL when all is text.  stmt must live
 * as long as the pool.  deadline_ms: 0 is the statement's timeout_ms, or the
 * pool's statement_timeout, + queue_timeout.  On failure returns NULL and
 * sets *err (POOL_SATURATED, DATABASE_UNAVAILABLE, NO_MEMORY); then done()
 * is not called.  done() may submit and cancel.
 *
 * While no connection is up this fails at once; only a pool that has just
 * been created lets operations wait, at most queue_timeout.
 */
stoa_pg_op_t *stoa_pg_submit(stoa_pg_pool_t *pool, const stoa_pg_stmt_t *stmt,
                             const char *const *values, const int *lens,
                             uint32_t deadline_ms, stoa_pg_done_pt done,
                             void *data, stoa_err_e *err);

/* The owner leaves: done() will not be called.  An operation not yet sent is
   dropped; one that was sent runs on and its result is discarded.  Its values
   are not touched after this call. */
void stoa_pg_cancel(stoa_pg_op_t *op);

/* Inside done() only: */
const char *stoa_pg_sqlstate(const stoa_pg_op_t *op);   /* "" when none */
const char *stoa_pg_constraint(const stoa_pg_op_t *op); /* "" when none */
const char *stoa_pg_message(const stoa_pg_op_t *op);    /* for the log only */
uint32_t    stoa_pg_wait_us(const stoa_pg_op_t *op);    /* until it was sent */
uint32_t    stoa_pg_run_us(const stoa_pg_op_t *op); /* sent until answered */

/* Inside done(err == STOA_OK): takes the result out of the operation; the
   caller frees it.  NULL when there were no rows to take (a command). */
stoa_pg_result_t *stoa_pg_take(stoa_pg_op_t *op);
void              stoa_pg_result_free(stoa_pg_result_t *res); /* NULL is fine */

int stoa_pg_rows(const stoa_pg_result_t *res);
int stoa_pg_columns(const stoa_pg_result_t *res);
int stoa_pg_column(const stoa_pg_result_t *res, const char *name); /* -1 */
const char *stoa_pg_column_name(const stoa_pg_result_t *res, int col);
bool        stoa_pg_null(const stoa_pg_result_t *res, int row, int col);
/* A view into libpq's memory, NUL behind it; writable in place. */
stoa_str_t stoa_pg_value(const stoa_pg_result_t *res, int row, int col);

/* Is any connection of any pool at this conninfo usable right now: a blocking
   one-shot for the command line.  Runs sql (several statements allowed),
   prints nothing; on failure *message (static or in mem) says why, and
   sqlstate, unless NULL, holds PostgreSQL's five characters or is empty. */
struct stoa_mem_s;
stoa_err_e stoa_pg_exec_once(const char *conninfo, const char *sql,
                             struct stoa_mem_s *mem, char **message,
                             char sqlstate[6]) STOA_MUSTCHECK;

#endif /* STOA_PG_H_INCLUDED */
