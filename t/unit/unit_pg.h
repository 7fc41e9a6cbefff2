/*
 * What the tests of the PostgreSQL machine share: a server of their own, a
 * pool on a poll loop, statements, and records of operations.
 *
 * Every operation of these tests carries a record that counts its done():
 * exactly once, or never after a cancel.
 */

#ifndef UNIT_PG_H_INCLUDED
#define UNIT_PG_H_INCLUDED

#include "unit_stores.h"
#include "stoa_mem.h"
#include "stoa_pg.h"
#include "stoa_str.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define PG_SLOTS 64

typedef struct {
    int              done;
    stoa_err_e       err;
    char             sqlstate[6];
    char             constraint[64];
    char             value[64]; /* first row, first column */
    int              rows;      /* -1: nothing to take */
    int              order;
    uint64_t         at_ms;
    stoa_pg_op_t    *cancel; /* in done() */
    struct pg_env_s *env;
} pg_rec_t;

typedef struct pg_env_s {
    stoa_loop_t    *loop;
    stoa_pg_pool_t *pool;
    int             answered;
    int             want;
    bool            stop;
} pg_env_t;

extern unit_pg_t pg_server; /* made by pg_main() */

extern const stoa_pg_stmt_t pg_echo, pg_divide, pg_nap, pg_nap_write, pg_put,
    pg_backend, pg_setting;

void pg_open(pg_env_t *env, uint16_t size, uint16_t in_flight,
             uint16_t queue_max, uint32_t timeout_ms, const char *info);
void pg_close(pg_env_t *env);
void pg_turns(pg_env_t *env, uint64_t ms);
/* Until so many have been answered since the pool was opened. */
void          pg_until(pg_env_t *env, int answered, uint64_t max_ms);
void          pg_wait_ready(pg_env_t *env, uint32_t n);
stoa_pg_op_t *pg_submit(pg_env_t *env, pg_rec_t *rec,
                        const stoa_pg_stmt_t *stmt, const char *const *values,
                        uint32_t deadline_ms);
stoa_pg_op_t *pg_submit_lens(pg_env_t *env, pg_rec_t *rec,
                             const stoa_pg_stmt_t *stmt,
                             const char *const *values, const int *lens,
                             uint32_t deadline_ms);
stoa_pg_op_t *pg_submit1(pg_env_t *env, pg_rec_t *rec,
                         const stoa_pg_stmt_t *stmt, const char *v);
void          pg_run_sql(const char *sql);
/* One text, through a pool of its own. */
void pg_ask(const char *sql, char value[64]);
int  pg_number(const char *text);

/* The tests against a server with the table kv; what main() returns. */
#define pg_main(tests) pg_run_tests(tests, stoa_nitems(tests))
int pg_run_tests(const struct CMUnitTest *tests, size_t n);

#endif /* UNIT_PG_H_INCLUDED */
