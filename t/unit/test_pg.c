/*
 * The PostgreSQL machine against a real server of its own.
 *
 * Every operation of these tests carries a record that counts its done():
 * exactly once, or never after a cancel.  The chaos test at the end kills
 * backends under load and compares what was promised with what is stored.
 */

#include "unit_stores.h"
#include "stoa_mem.h"
#include "stoa_pg.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define SLOTS 64

typedef struct {
    int           done;
    stoa_err_e    err;
    char          sqlstate[6];
    char          constraint[64];
    char          value[64]; /* first row, first column */
    int           rows;      /* -1: nothing to take */
    int           order;
    uint64_t      at_ms;
    stoa_pg_op_t *cancel; /* in done() */
    struct env_s *env;
} rec_t;

typedef struct env_s {
    stoa_loop_t    *loop;
    stoa_pg_pool_t *pool;
    int             answered;
    int             want;
    bool            stop;
} env_t;

static unit_pg_t server;

static const stoa_pg_stmt_t echo = {
    .name = "echo", .sql = "select $1::text as v", .nparams = 1, .slot = 1
};
static const stoa_pg_stmt_t divide = {
    .name = "divide", .sql = "select 10 / $1::int as v", .nparams = 1, .slot = 2
};
static const stoa_pg_stmt_t nap = { .name = "nap",
                                    .sql = "select pg_sleep($1::float8), 'n'",
                                    .nparams = 1,
                                    .slot = 3 };
static const stoa_pg_stmt_t nap_write = {
    .name = "nap.write",
    .sql = "select pg_catalog.pg_sleep($1::float8)::text",
    .nparams = 1,
    .write = true,
    .slot = 4
};
static const stoa_pg_stmt_t put = {
    .name = "put",
    .sql = "insert into public.kv values ($1::text, $2::text) returning v",
    .nparams = 2,
    .write = true,
    .slot = 5
};
static const stoa_pg_stmt_t backend = {
    .name = "backend",
    .sql = "select pg_catalog.pg_backend_pid()::text, pg_sleep($1::float8)",
    .nparams = 1,
    .slot = 6
};
static const stoa_pg_stmt_t setting = {
    .name = "setting",
    .sql = "select pg_catalog.current_setting($1::text)",
    .nparams = 1,
    .slot = 7
};


static void
on_done(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    rec_t            *rec = data;
    stoa_str_t        v;
    stoa_pg_result_t *res;

    rec->done++;
    rec->err = err;
    rec->rows = -1;
    rec->order = rec->env->answered++;
    rec->at_ms = rec->env->loop->now_ms(rec->env->loop);
    (void) snprintf(rec->sqlstate, sizeof(rec->sqlstate), "%s",
                    stoa_pg_sqlstate(op));
    (void) snprintf(rec->constraint, sizeof(rec->constraint), "%s",
                    stoa_pg_constraint(op));

    if (err == STOA_OK) {
        res = stoa_pg_take(op);

        if (res != NULL) {
            rec->rows = stoa_pg_rows(res);

            if (rec->rows > 0) {
                v = stoa_pg_value(res, 0, 0);
                (void) snprintf(rec->value, sizeof(rec->value), "%.*s",
                                (int) v.len,
                                v.data == NULL ? "" : (char *) v.data);
            }
        }

        stoa_pg_result_free(res);
    }

    if (rec->cancel != NULL) {
        stoa_pg_cancel(rec->cancel);
    }

    if (rec->env->answered >= rec->env->want) {
        rec->env->stop = true;
    }
}


static void
open_pool(env_t *env, uint16_t size, uint16_t in_flight, uint16_t queue_max,
          uint32_t timeout_ms, const char *info)
{
    stoa_pg_conf_t conf = { 0 };

    memset(env, 0, sizeof(env_t));

    conf.name = "unit";
    conf.conninfo = info;
    conf.size = size;
    conf.in_flight = in_flight;
    conf.queue_max = queue_max;
    conf.nslots = SLOTS;
    conf.queue_timeout_ms = 2000;
    conf.statement_timeout_ms = timeout_ms;
    conf.connect_timeout_ms = 5000;

    env->loop = stoa_loop_poll_create(unit_log());
    assert_non_null(env->loop);
    env->pool = stoa_pg_pool_create(env->loop, &conf);
    assert_non_null(env->pool);
}


static void
close_pool(env_t *env)
{
    stoa_pg_pool_destroy(env->pool);
    stoa_loop_poll_destroy(env->loop);
}


static void
turns(env_t *env, uint64_t ms)
{
    (void) stoa_loop_poll_run(env->loop, NULL, ms);
}


/* Until so many have been answered since the pool was opened. */
static void
until(env_t *env, int answered, uint64_t max_ms)
{
    env->want = answered;
    env->stop = env->answered >= answered;
    assert_true(stoa_loop_poll_run(env->loop, &env->stop, max_ms));
}


static void
wait_ready(env_t *env, uint32_t n)
{
    int             i;
    stoa_pg_stats_t st;

    for (i = 0; i < 1000; i++) {
        stoa_pg_pool_stats(env->pool, &st);

        if (st.ready >= n) {
            return;
        }

        turns(env, 10);
    }

    fail_msg("the pool did not come up");
}


static stoa_pg_op_t *
submit(env_t *env, rec_t *rec, const stoa_pg_stmt_t *stmt,
       const char *const *values, uint32_t deadline_ms)
{
    stoa_err_e    err = STOA_OK;
    stoa_pg_op_t *op;

    memset(rec, 0, sizeof(rec_t));
    rec->env = env;

    op = stoa_pg_submit(env->pool, stmt, values, NULL, deadline_ms, on_done,
                        rec, &err);
    if (op == NULL) {
        rec->err = err;
        assert_int_not_equal(err, STOA_OK);
    }

    assert_int_equal(rec->done, 0); /* never from inside submit */

    return op;
}


static stoa_pg_op_t *
submit1(env_t *env, rec_t *rec, const stoa_pg_stmt_t *stmt, const char *v)
{
    return submit(env, rec, stmt, &v, 0);
}


static void
run_sql(const char *sql)
{
    char       *message = NULL;
    stoa_err_e  err;
    stoa_mem_t *mem = stoa_arena_create(4096, 65536);

    err = stoa_pg_exec_once(server.info, sql, mem, &message);
    if (err != STOA_OK) {
        fail_msg("%s: %s", sql, message);
    }

    stoa_arena_destroy(mem);
}


/* One text, through a pool of its own. */
static void
ask(const char *sql, char value[64])
{
    env_t                env;
    rec_t                rec;
    const stoa_pg_stmt_t stmt = { .name = "ask",
                                  .sql = sql,
                                  .no_prepare = true };

    open_pool(&env, 1, 1, 1, 5000, server.info);
    assert_non_null(submit(&env, &rec, &stmt, NULL, 0));
    until(&env, 1, 5000);
    assert_int_equal(rec.err, STOA_OK);
    memcpy(value, rec.value, 64);
    close_pool(&env);
}


/* ---- the plain path ---- */

static void
pg_answers_values(void **state)
{
    env_t       env;
    rec_t       rec[5];
    const char *none = NULL;

    (void) state;
    open_pool(&env, 2, 8, 8, 5000, server.info);

    /* before any connection is up */
    assert_non_null(submit1(&env, &rec[0], &echo, "h\xc3\xa9llo"));
    until(&env, 1, 5000);
    assert_int_equal(rec[0].err, STOA_OK);
    assert_string_equal(rec[0].value, "h\xc3\xa9llo");
    assert_int_equal(rec[0].rows, 1);

    assert_non_null(submit(&env, &rec[1], &echo, &none, 0));
    assert_non_null(submit1(&env, &rec[2], &setting, "search_path"));
    assert_non_null(submit1(&env, &rec[3], &setting, "application_name"));
    assert_non_null(submit1(&env, &rec[4], &setting, "statement_timeout"));
    until(&env, 5, 5000);
    assert_string_equal(rec[1].value, "");
    assert_string_equal(rec[2].value, "pg_catalog");
    assert_string_equal(rec[3].value, "stoa/unit");
    assert_string_equal(rec[4].value, "5s");

    close_pool(&env);
}


static void
pg_takes_commands_and_empty_results(void **state)
{
    env_t                env;
    rec_t                rec[2];
    const stoa_pg_stmt_t command = { .name = "command",
                                     .sql = "create temp table x (a int)",
                                     .slot = 10,
                                     .write = true };
    const stoa_pg_stmt_t empty = { .name = "empty",
                                   .sql = "select 1 where false",
                                   .slot = 11 };

    (void) state;
    open_pool(&env, 1, 8, 8, 5000, server.info);

    assert_non_null(submit(&env, &rec[0], &command, NULL, 0));
    assert_non_null(submit(&env, &rec[1], &empty, NULL, 0));
    until(&env, 2, 5000);
    assert_int_equal(rec[0].err, STOA_OK);
    assert_int_equal(rec[0].rows, -1);
    assert_int_equal(rec[1].err, STOA_OK);
    assert_int_equal(rec[1].rows, 0);

    close_pool(&env);
}


static void
pg_pipelines_ten_thousand(void **state)
{
    int             i;
    env_t           env;
    rec_t          *rec = calloc(10000, sizeof(rec_t));
    char           *text = calloc(10000, 12);
    stoa_pg_stats_t st;

    (void) state;
    assert_non_null(rec);
    assert_non_null(text);
    open_pool(&env, 2, 256, 10000, 20000, server.info);
    wait_ready(&env, 2);

    for (i = 0; i < 10000; i++) {
        (void) snprintf(&text[i * 12], 12, "%d", i);
        assert_non_null(submit1(&env, &rec[i], &echo, &text[i * 12]));
    }

    until(&env, 10000, 20000);

    for (i = 0; i < 10000; i++) {
        assert_int_equal(rec[i].done, 1);
        assert_int_equal(rec[i].err, STOA_OK);
        assert_string_equal(rec[i].value, &text[i * 12]);
    }

    stoa_pg_pool_stats(env.pool, &st);
    assert_int_equal(st.done, 10000);
    assert_int_equal(st.failed, 0);
    assert_int_equal(st.in_flight, 0);
    assert_int_equal(st.waiting, 0);
    assert_true(st.syncs < 10000 / 16); /* reads share */
    assert_true(st.run_us > 0);

    close_pool(&env);
    free(rec);
    free(text);
}


static void
pg_carries_large_values_both_ways(void **state)
{
    int                  i;
    env_t                env;
    rec_t                rec[8];
    size_t               len = 3 * 1024 * 1024;
    char                *big = malloc(len + 1);
    const stoa_pg_stmt_t length = {
        .name = "length",
        .sql = "select length($1::text)::text, $1::text",
        .nparams = 1,
        .slot = 12
    };

    (void) state;
    assert_non_null(big);
    memset(big, 'x', len);
    big[len] = '\0';

    open_pool(&env, 1, 8, 8, 20000, server.info);

    for (i = 0; i < 8; i++) {
        assert_non_null(submit1(&env, &rec[i], &length, big));
    }

    until(&env, 8, 20000);

    for (i = 0; i < 8; i++) {
        assert_int_equal(rec[i].err, STOA_OK);
        assert_string_equal(rec[i].value, "3145728");
    }

    close_pool(&env);
    free(big);
}


int
main(void)
{
    int                     rc;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pg_answers_values),
        cmocka_unit_test(pg_takes_commands_and_empty_results),
        cmocka_unit_test(pg_pipelines_ten_thousand),
        cmocka_unit_test(pg_carries_large_values_both_ways),
    };

    unit_pg_create(&server, "max_connections = 60\n");
    run_sql("create table public.kv (k text, v text)");
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    unit_pg_destroy(&server);
    (void) ask;
    (void) divide;
    (void) nap;
    (void) nap_write;
    (void) put;
    (void) backend;

    return rc;
}
