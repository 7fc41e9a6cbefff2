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
#include "stoa_str.h"

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


static int
number(const char *text)
{
    int64_t n = -1;

    assert_true(stoa_str_int(stoa_str_z(text), 0, INT32_MAX, &n));

    return (int) n;
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


/* ---- errors ---- */

static void
pg_group_errors_harm_no_neighbour(void **state)
{
    int             i;
    env_t           env;
    rec_t           rec[60];
    stoa_pg_stats_t st;

    (void) state;
    open_pool(&env, 1, 256, 8, 5000, server.info);
    wait_ready(&env, 1);

    /* prepare both, so that groups are shared */
    assert_non_null(submit1(&env, &rec[0], &divide, "1"));
    assert_non_null(submit1(&env, &rec[1], &echo, "1"));
    until(&env, 2, 5000);
    env.answered = 0;

    for (i = 0; i < 60; i++) {
        assert_non_null(submit1(&env, &rec[i], i % 3 == 0 ? &divide : &echo,
                                i % 6 == 0 ? "0" : "5"));
    }

    until(&env, 60, 10000);

    for (i = 0; i < 60; i++) {
        assert_int_equal(rec[i].done, 1);

        if (i % 6 == 0) {
            assert_int_equal(rec[i].err, STOA_E_INTERNAL);
            assert_string_equal(rec[i].sqlstate, "22012");
        } else {
            assert_int_equal(rec[i].err, STOA_OK);
            assert_string_equal(rec[i].value, i % 3 == 0 ? "2" : "5");
        }
    }

    stoa_pg_pool_stats(env.pool, &st);
    assert_true(st.resent > 0);
    assert_int_equal(st.done, 2 + 50);
    assert_int_equal(st.failed, 10);

    close_pool(&env);
}


static void
pg_bad_statement_harms_no_other(void **state)
{
    int                  i;
    env_t                env;
    rec_t                rec[30];
    const stoa_pg_stmt_t bad = { .name = "bad",
                                 .sql = "select v from public.later",
                                 .slot = 20 };
    const stoa_pg_stmt_t bad_write = {
        .name = "bad.write",
        .sql = "insert into public.later values ('x') returning v",
        .write = true,
        .slot = 21
    };

    (void) state;
    run_sql("drop table if exists public.later");
    open_pool(&env, 1, 64, 8, 5000, server.info);

    for (i = 0; i < 30; i++) {
        assert_non_null(submit1(&env, &rec[i],
                                i % 3 == 0   ? &echo
                                : i % 3 == 1 ? &bad
                                             : &bad_write,
                                "v"));
    }

    until(&env, 30, 5000);

    for (i = 0; i < 30; i++) {
        assert_int_equal(rec[i].done, 1);
        assert_int_equal(rec[i].err, i % 3 == 0 ? STOA_OK : STOA_E_INTERNAL);
        assert_string_equal(rec[i].sqlstate, i % 3 == 0 ? "" : "42P01");
    }

    /* it becomes good without a new connection */
    run_sql("create table public.later (v text)");
    env.answered = 0;
    assert_non_null(submit(&env, &rec[0], &bad_write, NULL, 0));
    until(&env, 1, 5000);
    assert_string_equal(rec[0].value, "x");
    assert_non_null(submit(&env, &rec[1], &bad, NULL, 0));
    until(&env, 2, 5000);
    assert_string_equal(rec[1].value, "x");

    run_sql("drop table public.later");
    close_pool(&env);
}


static void
pg_stale_plans_are_prepared_again(void **state)
{
    int                  i;
    env_t                env;
    rec_t                rec[8];
    const stoa_pg_stmt_t star = { .name = "star",
                                  .sql = "select * from public.wide",
                                  .slot = 22 };
    const stoa_pg_stmt_t star_write = {
        .name = "star.write",
        .sql = "insert into public.wide (a) values (7) returning *",
        .write = true,
        .slot = 23
    };
    const stoa_pg_stmt_t discard = { .name = "discard",
                                     .sql = "deallocate all",
                                     .no_prepare = true };
    const stoa_pg_stmt_t timed = {
        .name = "timed", .sql = "select 'timed'", .timeout_ms = 900, .slot = 24
    };

    (void) state;
    run_sql("create table public.wide (a int)");
    open_pool(&env, 2, 8, 8, 5000, server.info);
    wait_ready(&env, 2);

    for (i = 0; i < 6; i++) {
        assert_non_null(submit(&env, &rec[i],
                               i % 3 == 0   ? &star_write
                               : i % 3 == 1 ? &star
                                            : &timed,
                               NULL, 0));
    }

    until(&env, 6, 5000);

    /* 0A000: cached plan must not change result type */
    run_sql("alter table public.wide add column b int default 1");

    for (i = 0; i < 6; i++) {
        assert_non_null(submit(&env, &rec[i],
                               i % 3 == 0   ? &star_write
                               : i % 3 == 1 ? &star
                                            : &timed,
                               NULL, 0));
    }

    until(&env, 12, 5000);

    for (i = 0; i < 6; i++) {
        assert_int_equal(rec[i].done, 1);
        assert_int_equal(rec[i].err, STOA_OK);
    }

    /* 26000: gone, in each session */
    for (i = 0; i < 2; i++) {
        assert_non_null(submit(&env, &rec[i], &discard, NULL, 0));
    }

    until(&env, 14, 5000);
    assert_int_equal(rec[0].err, STOA_OK);

    for (i = 0; i < 6; i++) {
        assert_non_null(submit(&env, &rec[i],
                               i % 3 == 0   ? &star_write
                               : i % 3 == 1 ? &star
                                            : &timed,
                               NULL, 0));
    }

    until(&env, 20, 5000);

    for (i = 0; i < 6; i++) {
        assert_int_equal(rec[i].err, STOA_OK);
    }

    close_pool(&env);
    run_sql("drop table public.wide");
}


static void
pg_write_is_answered_after_its_commit(void **state)
{
    env_t                env;
    rec_t                rec[3];
    const char          *kv[2] = { "deferred", "1" };
    const stoa_pg_stmt_t twice = {
        .name = "twice",
        .sql = "insert into public.uniq select 1 from generate_series(1, 2)"
               " returning 'promised'",
        .write = true,
        .slot = 25
    };

    (void) state;
    run_sql("create table public.uniq (a int, constraint uniq_a unique (a)"
            " deferrable initially deferred)");
    open_pool(&env, 1, 8, 8, 5000, server.info);

    assert_non_null(submit(&env, &rec[0], &twice, NULL, 0));
    assert_non_null(submit(&env, &rec[1], &put, kv, 0));
    assert_non_null(submit1(&env, &rec[2], &echo, "after"));
    until(&env, 3, 5000);

    /* rows came, the commit did not */
    assert_int_equal(rec[0].err, STOA_E_INTERNAL);
    assert_string_equal(rec[0].sqlstate, "23505");
    assert_string_equal(rec[0].constraint, "uniq_a");
    assert_int_equal(rec[0].rows, -1);
    assert_int_equal(rec[1].err, STOA_OK);
    assert_int_equal(rec[2].err, STOA_OK);

    close_pool(&env);
    run_sql("drop table public.uniq");
}


static void
pg_serialization_failure_is_a_conflict(void **state)
{
    env_t                env;
    rec_t                rec[2];
    const stoa_pg_stmt_t fails = {
        .name = "fails",
        .sql = "do $$ begin raise sqlstate '40001'; end $$",
        .write = true,
        .slot = 26
    };
    const stoa_pg_stmt_t unsupported = {
        .name = "unsupported",
        .sql = "do $$ begin raise sqlstate '0A000'; end $$",
        .write = true,
        .slot = 27
    };

    (void) state;
    open_pool(&env, 1, 8, 8, 5000, server.info);
    assert_non_null(submit(&env, &rec[0], &fails, NULL, 0));
    assert_non_null(submit(&env, &rec[1], &unsupported, NULL, 0));
    until(&env, 2, 5000);
    assert_int_equal(rec[0].err, STOA_E_CONFLICT);
    assert_string_equal(rec[0].sqlstate, "40001");
    assert_int_equal(rec[1].err, STOA_E_INTERNAL); /* tried twice, not more */
    assert_string_equal(rec[1].sqlstate, "0A000");
    close_pool(&env);
}


/* ---- bounds ---- */

static void
pg_full_pool_refuses_while_it_sleeps(void **state)
{
    int             i;
    env_t           env;
    rec_t           rec[10];
    stoa_pg_stats_t st;

    (void) state;
    open_pool(&env, 2, 2, 3, 5000, server.info);
    wait_ready(&env, 2);

    for (i = 0; i < 7; i++) {
        assert_non_null(submit1(&env, &rec[i], &nap, "0.5"));
    }

    assert_null(submit1(&env, &rec[7], &nap, "0.5"));
    assert_int_equal(rec[7].err, STOA_E_POOL_SATURATED);
    turns(&env, 50);
    assert_null(submit1(&env, &rec[8], &echo, "x"));
    assert_int_equal(rec[8].err, STOA_E_POOL_SATURATED);
    assert_int_equal(env.answered, 0); /* all of them still sleep */

    until(&env, 7, 10000);

    for (i = 0; i < 7; i++) {
        assert_int_equal(rec[i].done, 1);
        assert_int_equal(rec[i].err, STOA_OK);
    }

    stoa_pg_pool_stats(env.pool, &st);
    assert_int_equal(st.saturated, 2);
    close_pool(&env);
}


static void
pg_queue_has_a_time_limit(void **state)
{
    env_t env;
    rec_t rec[3];

    (void) state;
    open_pool(&env, 1, 1, 8, 10000, server.info);
    wait_ready(&env, 1);
    assert_non_null(submit1(&env, &rec[0], &nap, "2.6"));
    turns(&env, 10);
    assert_non_null(submit1(&env, &rec[1], &echo, "x"));
    assert_non_null(submit(&env, &rec[2], &echo, (const char *[]){ "y" }, 300));

    until(&env, 1, 1000);
    assert_int_equal(rec[2].err, STOA_E_TIMEOUT); /* its own deadline */
    until(&env, 2, 2500);
    assert_int_equal(rec[1].err, STOA_E_POOL_SATURATED);
    assert_int_equal(rec[0].done, 0);
    until(&env, 3, 3000);
    assert_int_equal(rec[0].err, STOA_OK);
    close_pool(&env);
}


static void
pg_waits_its_turn_when_there_is_room(void **state)
{
    int   i;
    env_t env;
    rec_t rec[8];

    (void) state;
    open_pool(&env, 1, 8, 0, 10000, server.info);
    wait_ready(&env, 1);
    assert_non_null(submit1(&env, &rec[0], &nap, "2.3"));
    turns(&env, 10);

    /* longer than queue_timeout, but it is not the queue */
    for (i = 1; i < 8; i++) {
        assert_non_null(submit1(&env, &rec[i], &echo, "x"));
    }

    until(&env, 8, 4000);

    for (i = 0; i < 8; i++) {
        assert_int_equal(rec[i].err, STOA_OK);
    }

    close_pool(&env);
}


static void
pg_deadline_answers_and_keeps_the_place(void **state)
{
    env_t           env;
    rec_t           rec[2];
    uint64_t        t;
    stoa_pg_stats_t st;

    (void) state;
    open_pool(&env, 1, 4, 8, 10000, server.info);
    wait_ready(&env, 1);
    t = env.loop->now_ms(env.loop);
    assert_non_null(
        submit(&env, &rec[0], &nap_write, (const char *[]){ "0.8" }, 200));
    turns(&env, 20);
    assert_non_null(submit1(&env, &rec[1], &echo, "behind"));

    until(&env, 1, 600);
    assert_int_equal(rec[0].err, STOA_E_TIMEOUT);
    assert_true(rec[0].at_ms - t >= 200);
    stoa_pg_pool_stats(env.pool, &st);
    assert_int_equal(st.in_flight, 2); /* the place stays taken */
    assert_int_equal(st.timeouts, 1);

    until(&env, 2, 3000);
    assert_int_equal(rec[1].err, STOA_OK);
    assert_true(rec[1].at_ms - t >= 700);
    assert_int_equal(rec[0].done, 1);
    stoa_pg_pool_stats(env.pool, &st);
    assert_int_equal(st.in_flight, 0);
    close_pool(&env);
}


static void
pg_statement_has_its_own_timeout(void **state)
{
    env_t                env;
    rec_t                rec[4];
    const stoa_pg_stmt_t brief = { .name = "brief",
                                   .sql = nap_write.sql,
                                   .nparams = 1,
                                   .write = true,
                                   .timeout_ms = 200,
                                   .slot = 30 };
    const stoa_pg_stmt_t shows = {
        .name = "shows",
        .sql = "select current_setting('statement_timeout')",
        .timeout_ms = 7000,
        .slot = 31
    };

    (void) state;
    open_pool(&env, 1, 8, 8, 5000, server.info);
    assert_non_null(submit1(&env, &rec[0], &brief, "3"));
    assert_non_null(submit(&env, &rec[1], &shows, NULL, 0));
    assert_non_null(submit1(&env, &rec[2], &setting, "statement_timeout"));
    assert_non_null(submit1(&env, &rec[3], &nap, "0.4"));
    until(&env, 4, 5000);

    assert_int_equal(rec[0].err, STOA_E_TIMEOUT);
    assert_string_equal(rec[0].sqlstate, "57014");
    assert_string_equal(rec[1].value, "7s");
    assert_string_equal(rec[2].value, "5s"); /* gone with its transaction */
    assert_int_equal(rec[3].err, STOA_OK);
    close_pool(&env);
}


/* ---- cancel ---- */

static void
pg_cancel_in_every_state(void **state)
{
    env_t         env;
    rec_t         rec[8];
    stoa_pg_op_t *op[8];
    const char   *kv[2] = { "canceled", "v" };
    char          n[64];

    (void) state;
    open_pool(&env, 1, 4, 8, 5000, server.info);

    /* waiting for the first connection */
    op[0] = submit1(&env, &rec[0], &echo, "x");
    stoa_pg_cancel(op[0]);
    wait_ready(&env, 1);

    /* in the queue of this turn */
    op[1] = submit1(&env, &rec[1], &echo, "x");
    op[2] = submit1(&env, &rec[2], &nap, "0.3");
    stoa_pg_cancel(op[1]);
    turns(&env, 20);

    /* sent: it runs on, also the write behind it */
    stoa_pg_cancel(op[2]);
    op[3] = submit(&env, &rec[3], &put, kv, 0);
    turns(&env, 20);
    stoa_pg_cancel(op[3]);

    /* from inside the done() of the one before */
    op[4] = submit1(&env, &rec[4], &echo, "x");
    rec[4].cancel = submit1(&env, &rec[5], &echo, "y");
    assert_non_null(op[4]);
    until(&env, 1, 5000);
    turns(&env, 100);
    assert_int_equal(rec[0].done + rec[1].done + rec[2].done + rec[3].done, 0);
    assert_int_equal(rec[4].done, 1);
    assert_int_equal(rec[5].done, 0);
    close_pool(&env);

    ask("select count(*)::text from public.kv where k = 'canceled'", n);
    assert_string_equal(n, "1");
}


static void
pg_slow_pool_ends_what_nobody_awaits(void **state)
{
    int             i;
    env_t           env, fast;
    rec_t           rec[6];
    stoa_pg_op_t   *op;
    stoa_pg_stats_t st;

    (void) state;
    open_pool(&env, 1, 1, 8, 60000, server.info);
    open_pool(&fast, 1, 8, 8, 5000, server.info);

    /* one loop for both */
    stoa_pg_pool_destroy(fast.pool);
    stoa_loop_poll_destroy(fast.loop);
    fast.loop = env.loop;
    fast.pool = stoa_pg_pool_create(env.loop,
                                    &(stoa_pg_conf_t){
                                        .name = "fast",
                                        .conninfo = server.info,
                                        .size = 1,
                                        .in_flight = 8,
                                        .queue_max = 8,
                                        .nslots = SLOTS,
                                        .statement_timeout_ms = 5000 });
    assert_non_null(fast.pool);
    stoa_pg_pool_cancel_via(env.pool, fast.pool);
    wait_ready(&env, 1);
    wait_ready(&fast, 1);

    /* the deadline */
    assert_non_null(submit(&env, &rec[0], &nap, (const char *[]){ "30" }, 200));
    until(&env, 1, 1000);
    assert_int_equal(rec[0].err, STOA_E_TIMEOUT);
    assert_non_null(submit1(&env, &rec[1], &echo, "next"));
    until(&env, 2, 1000);
    assert_int_equal(rec[1].err, STOA_OK);

    /* the owner leaves */
    op = submit1(&env, &rec[2], &nap, "30");
    turns(&env, 50);
    stoa_pg_cancel(op);
    assert_non_null(submit1(&env, &rec[3], &echo, "next"));
    until(&env, 3, 1000);
    assert_int_equal(rec[3].err, STOA_OK);

    /* many in a row: never the neighbour */
    for (i = 0; i < 200; i++) {
        op = submit1(&env, &rec[4], &nap, "0.002");
        turns(&env, (uint64_t) (i % 5));
        if (rec[4].done == 0) {
            stoa_pg_cancel(op);
        }
        assert_non_null(submit1(&env, &rec[5], &nap, "0.003"));
        until(&env, env.answered + 1, 2000);
        assert_int_equal(rec[5].done, 1);
        assert_int_equal(rec[5].err, STOA_OK);
    }

    stoa_pg_pool_stats(env.pool, &st);
    assert_int_equal(st.reconnects, 0);

    /* the helper goes while a cancel is on its way */
    op = submit1(&env, &rec[4], &nap, "0.5");
    turns(&env, 20);
    stoa_pg_cancel(op);
    stoa_pg_pool_destroy(fast.pool);
    assert_non_null(submit1(&env, &rec[5], &echo, "x"));
    until(&env, env.answered + 1, 2000);
    assert_int_equal(rec[5].err, STOA_OK);
    stoa_pg_pool_destroy(env.pool);
    stoa_loop_poll_destroy(env.loop);

    /* two connections of one pool help each other */
    open_pool(&env, 2, 1, 8, 60000, server.info);
    stoa_pg_pool_cancel_via(env.pool, env.pool);
    wait_ready(&env, 2);
    assert_non_null(submit(&env, &rec[0], &nap, (const char *[]){ "30" }, 100));
    until(&env, 1, 1000);
    turns(&env, 100);
    stoa_pg_pool_stats(env.pool, &st);
    assert_int_equal(st.in_flight, 0);
    close_pool(&env);
}


/* ---- connections that end ---- */

static void
pg_killed_backend_write_is_unknown_read_is_sent_again(void **state)
{
    env_t           env;
    rec_t           rec[4];
    stoa_pg_stats_t st;

    (void) state;
    open_pool(&env, 2, 4, 8, 20000, server.info);
    wait_ready(&env, 2);

    assert_non_null(submit1(&env, &rec[0], &nap_write, "20"));
    assert_non_null(submit1(&env, &rec[1], &nap, "0.7"));
    turns(&env, 50);

    /* only the two that sleep */
    run_sql("select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'stoa/unit' and query like '%pg_sleep%'"
            " and query like '%catalog%'");
    until(&env, 1, 2000);
    assert_int_equal(rec[0].err, STOA_E_COMMIT_UNKNOWN);

    run_sql("select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'stoa/unit' and state = 'active'");
    until(&env, 2, 5000);
    assert_int_equal(rec[1].done, 1);

    if (rec[1].err != STOA_OK) {
        /* the other one was not back yet */
        assert_int_equal(rec[1].err, STOA_E_DATABASE_UNAVAILABLE);
    }

    wait_ready(&env, 2);
    assert_non_null(submit1(&env, &rec[2], &nap, "0.7"));
    turns(&env, 50);
    run_sql("select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'stoa/unit' and state = 'active'");
    until(&env, 3, 5000);
    assert_int_equal(rec[2].err, STOA_OK); /* again, elsewhere */

    stoa_pg_pool_stats(env.pool, &st);
    assert_true(st.resent >= 1);
    assert_true(st.reconnects >= 3);
    wait_ready(&env, 2); /* prepared anew */
    assert_non_null(submit1(&env, &rec[3], &nap, "0"));
    until(&env, 4, 5000);
    assert_int_equal(rec[3].err, STOA_OK);
    close_pool(&env);
}


static void
pg_killed_between_execute_and_sync(void **state)
{
    env_t                env;
    rec_t                rec[2];
    char                 n[64];
    const stoa_pg_stmt_t slow_commit = {
        .name = "slow.commit",
        .sql = "insert into public.slow_commit values (1) returning 'promised'",
        .write = true,
        .slot = 32
    };

    (void) state;
    run_sql("create table public.slow_commit (a int);"
            "create function public.slow_commit() returns trigger language"
            " plpgsql as $$ begin perform pg_sleep(5); return null; end $$;"
            "create constraint trigger slow after insert on public.slow_commit"
            " deferrable initially deferred for each row"
            " execute function public.slow_commit()");

    open_pool(&env, 2, 4, 8, 20000, server.info);
    wait_ready(&env, 2);
    assert_non_null(submit(&env, &rec[0], &slow_commit, NULL, 0));
    turns(&env, 200);
    assert_int_equal(rec[0].done, 0);

    run_sql("select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'stoa/unit' and state = 'active'");
    until(&env, 1, 2000);
    assert_int_equal(rec[0].err, STOA_E_COMMIT_UNKNOWN);
    assert_int_equal(rec[0].rows, -1);
    close_pool(&env);

    ask("select count(*)::text from public.slow_commit", n);
    assert_string_equal(n, "0");
    run_sql("drop table public.slow_commit;"
            "drop function public.slow_commit()");
}


static void
pg_server_stops_and_starts(void **state)
{
    int             i;
    env_t           env;
    rec_t           rec[12];
    stoa_pg_stats_t st;

    (void) state;
    open_pool(&env, 2, 2, 8, 20000, server.info);
    wait_ready(&env, 2);

    for (i = 0; i < 6; i++) {
        assert_non_null(
            submit1(&env, &rec[i], i % 2 == 0 ? &nap_write : &nap, "20"));
    }

    turns(&env, 50);
    unit_pg_stop(&server);
    until(&env, 6, 5000);

    for (i = 0; i < 6; i++) {
        assert_int_equal(rec[i].done, 1);
        assert_true(rec[i].err == STOA_E_DATABASE_UNAVAILABLE
                    || (rec[i].err == STOA_E_COMMIT_UNKNOWN && i % 2 == 0));
    }

    /* four were sent, at least one of them a write; what was not sent is
       not unknown */
    stoa_pg_pool_stats(env.pool, &st);
    assert_int_equal(st.waiting, 0);
    assert_int_equal(st.in_flight, 0);
    assert_int_equal(st.ready, 0);

    for (i = 0; i < 5; i++) {
        assert_null(submit1(&env, &rec[6], &echo, "x"));
        assert_int_equal(rec[6].err, STOA_E_DATABASE_UNAVAILABLE);
        turns(&env, 100);
    }

    unit_pg_start(&server);
    wait_ready(&env, 1);
    assert_non_null(submit1(&env, &rec[7], &echo, "back"));
    until(&env, 7, 5000);
    assert_string_equal(rec[7].value, "back");
    wait_ready(&env, 2);
    close_pool(&env);
}


static void
pg_unsent_write_goes_elsewhere(void **state)
{
    env_t       env;
    rec_t       rec[3];
    const char *kv[2] = { "elsewhere", "1" };
    char        n[64];

    (void) state;
    open_pool(&env, 2, 1, 8, 20000, server.info);
    wait_ready(&env, 2);
    assert_non_null(submit1(&env, &rec[0], &nap_write, "20"));
    assert_non_null(submit1(&env, &rec[1], &nap_write, "0.5"));
    turns(&env, 50);
    assert_non_null(submit(&env, &rec[2], &put, kv, 0)); /* waits */
    turns(&env, 50);
    run_sql("select pg_terminate_backend(min(pid)) from pg_stat_activity"
            " where application_name = 'stoa/unit'");
    until(&env, 3, 25000);
    assert_int_equal(rec[2].err, STOA_OK);
    close_pool(&env);

    ask("select count(*)::text from public.kv where k = 'elsewhere'", n);
    assert_string_equal(n, "1");
}


static void
pg_starting_pool_waits_then_says_so(void **state)
{
    env_t env;
    rec_t rec[3];

    (void) state;
    open_pool(&env, 2, 2, 8, 5000, "host=/nowhere user=postgres");
    assert_null(submit1(&env, &rec[0], &echo, "x")); /* refused at connect */
    assert_int_equal(rec[0].err, STOA_E_DATABASE_UNAVAILABLE);
    close_pool(&env);

    /* an address that swallows packets would hang: a listener that is mute */
    open_pool(&env, 1, 2, 8, 5000, server.info);
    assert_int_equal(kill(server.pid, SIGSTOP), 0);
    stoa_pg_pool_destroy(env.pool);
    env.pool = stoa_pg_pool_create(env.loop, &(stoa_pg_conf_t){
                                                 .name = "unit",
                                                 .conninfo = server.info,
                                                 .size = 1,
                                                 .in_flight = 2,
                                                 .queue_max = 2,
                                                 .nslots = SLOTS,
                                                 .queue_timeout_ms = 300,
                                                 .connect_timeout_ms = 1000 });
    assert_non_null(env.pool);
    assert_non_null(submit1(&env, &rec[1], &echo, "x"));
    until(&env, 1, 900);
    assert_int_equal(rec[1].err, STOA_E_DATABASE_UNAVAILABLE);
    turns(&env, 1100);
    assert_null(submit1(&env, &rec[2], &echo, "x"));
    assert_int_equal(rec[2].err, STOA_E_DATABASE_UNAVAILABLE);
    assert_int_equal(kill(server.pid, SIGCONT), 0);
    wait_ready(&env, 1);
    close_pool(&env);
}


static void
pg_refuses_what_would_block(void **state)
{
    stoa_pg_conf_t conf = { .name = "unit", .size = 1, .in_flight = 1 };
    stoa_loop_t   *loop = stoa_loop_poll_create(unit_log());

    (void) state;
    assert_non_null(loop);
    conf.conninfo = "host=localhost user=postgres";
    assert_null(stoa_pg_pool_create(loop, &conf));
    conf.conninfo = "host";
    assert_null(stoa_pg_pool_create(loop, &conf));
    stoa_loop_poll_destroy(loop);
}


static void
pg_mute_backend_is_left(void **state)
{
    int   pid;
    env_t env;
    rec_t rec[2];

    (void) state;
    open_pool(&env, 1, 4, 8, 300, server.info);
    wait_ready(&env, 1);
    assert_non_null(submit1(&env, &rec[0], &backend, "0"));
    until(&env, 1, 2000);
    pid = number(rec[0].value);
    assert_true(pid > 1);
    assert_int_equal(kill(pid, SIGSTOP), 0);

    assert_non_null(submit1(&env, &rec[1], &nap_write, "0"));
    until(&env, 2, 4000);
    assert_int_equal(rec[1].err, STOA_E_TIMEOUT);

    turns(&env, 4500);
    wait_ready(&env, 1);
    assert_int_equal(kill(pid, SIGCONT), 0);
    assert_non_null(submit1(&env, &rec[0], &backend, "0"));
    until(&env, 3, 2000);
    assert_int_not_equal(number(rec[0].value), pid);
    close_pool(&env);
}


/* ---- the end of a pool ---- */

static void
on_drained(void *data)
{
    env_t *env = data;

    stoa_pg_pool_destroy(env->pool);
    env->pool = NULL;
    env->stop = true;
}


static void
pg_drain_finishes_what_it_holds(void **state)
{
    int   i;
    env_t env;
    rec_t rec[8];

    (void) state;
    open_pool(&env, 2, 2, 8, 5000, server.info);
    wait_ready(&env, 2);

    for (i = 0; i < 7; i++) {
        assert_non_null(
            submit1(&env, &rec[i], i % 2 == 0 ? &nap_write : &nap, "0.1"));
    }

    turns(&env, 5);
    env.want = 1000;
    env.stop = false;
    stoa_pg_pool_drain(env.pool, on_drained, &env);
    assert_false(env.stop);
    assert_null(submit1(&env, &rec[7], &echo, "x"));
    assert_int_equal(rec[7].err, STOA_E_DATABASE_UNAVAILABLE);
    assert_true(stoa_loop_poll_run(env.loop, &env.stop, 5000));

    for (i = 0; i < 7; i++) {
        assert_int_equal(rec[i].done, 1);
        assert_int_equal(rec[i].err, STOA_OK);
    }

    assert_null(env.pool);
    stoa_loop_poll_destroy(env.loop);

    /* an idle one, and one that is still connecting */
    for (i = 0; i < 2; i++) {
        open_pool(&env, 2, 2, 8, 5000, server.info);

        if (i == 1) {
            wait_ready(&env, 2);
        }

        stoa_pg_pool_drain(env.pool, on_drained, &env);
        assert_false(env.stop);
        assert_true(stoa_loop_poll_run(env.loop, &env.stop, 5000));
        stoa_loop_poll_destroy(env.loop);
    }
}


static void
pg_destroy_ends_everything(void **state)
{
    int   i;
    env_t env;
    rec_t rec[12];

    (void) state;
    open_pool(&env, 2, 2, 12, 5000, server.info);
    wait_ready(&env, 2);

    for (i = 0; i < 12; i++) {
        assert_non_null(
            submit1(&env, &rec[i], i % 2 == 0 ? &nap_write : &nap, "5"));
    }

    turns(&env, 20);
    close_pool(&env);

    for (i = 0; i < 12; i++) {
        assert_int_equal(rec[i].done, 1);

        if (i < 4 && i % 2 == 0) {
            assert_int_equal(rec[i].err, STOA_E_COMMIT_UNKNOWN);
        } else {
            assert_int_equal(rec[i].err, STOA_E_DATABASE_UNAVAILABLE);
        }
    }
}


static void
pg_exec_once_says_why(void **state)
{
    char       *message = NULL;
    stoa_mem_t *mem = stoa_arena_create(4096, 65536);

    (void) state;
    assert_non_null(mem);
    assert_int_equal(stoa_pg_exec_once(server.info, "select 1; select 2", mem,
                                       &message),
                     STOA_OK);
    assert_int_equal(stoa_pg_exec_once(server.info, "select 1; nonsense", mem,
                                       &message),
                     STOA_E_INTERNAL);
    assert_non_null(strstr(message, "nonsense"));
    assert_int_equal(stoa_pg_exec_once("host=/nowhere", "select 1", mem,
                                       &message),
                     STOA_E_DATABASE_UNAVAILABLE);
    assert_non_null(message);
    stoa_arena_destroy(mem);
}


/* ---- all of it at once ---- */

static void
pg_chaos(void **state)
{
    enum {
        N = 6000
    };
    int         i, sent = 0, puts = 0, ok = 0, unknown = 0, stored;
    char        n[64], *keys = calloc(N, 12);
    env_t       env;
    rec_t      *rec = calloc(N, sizeof(rec_t));
    const char *kv[2];

    (void) state;
    assert_non_null(rec);
    assert_non_null(keys);
    run_sql("truncate public.kv");
    open_pool(&env, 4, 16, 64, 5000, server.info);
    wait_ready(&env, 4);

    for (i = 0; i < N; i++) {
        (void) snprintf(&keys[i * 12], 12, "%d", i);
        kv[0] = &keys[i * 12];
        kv[1] = "chaos";

        if (i % 2 == 0) {
            sent += submit(&env, &rec[i], &put, kv, 0) != NULL;
        } else if (i % 7 == 0) {
            sent += submit1(&env, &rec[i], &divide, i % 3 == 0 ? "0" : "2")
                 != NULL;
        } else {
            sent += submit1(&env, &rec[i], &echo, kv[0]) != NULL;
        }

        if (i % 25 == 0) {
            turns(&env, 2);
        }

        if (i % 500 == 250) {
            run_sql("select pg_terminate_backend(pid) from pg_stat_activity"
                    " where application_name = 'stoa/unit' and random() < 0.6");
        }
    }

    until(&env, sent, 10000);
    turns(&env, 200);

    for (i = 0; i < N; i++) {
        if (i % 2 == 0) {
            puts++;
            ok += rec[i].done == 1 && rec[i].err == STOA_OK;
            unknown += rec[i].done == 1 && rec[i].err == STOA_E_COMMIT_UNKNOWN;
        } else if (rec[i].done == 1 && rec[i].err == STOA_OK && i % 7 != 0) {
            assert_string_equal(rec[i].value, &keys[i * 12]);
        }

        assert_true(rec[i].done <= 1);
    }

    assert_int_equal(env.answered, sent);
    close_pool(&env);

    ask("select count(*)::text from public.kv", n);
    stored = number(n);
    ask("select count(distinct k)::text from public.kv", n);
    assert_int_equal(number(n), stored); /* nothing twice */
    assert_true(stored >= ok);           /* nothing lost */
    assert_true(stored <= ok + unknown);
    assert_true(ok > puts / 4);
    free(rec);
    free(keys);
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
        cmocka_unit_test(pg_group_errors_harm_no_neighbour),
        cmocka_unit_test(pg_bad_statement_harms_no_other),
        cmocka_unit_test(pg_stale_plans_are_prepared_again),
        cmocka_unit_test(pg_write_is_answered_after_its_commit),
        cmocka_unit_test(pg_serialization_failure_is_a_conflict),
        cmocka_unit_test(pg_full_pool_refuses_while_it_sleeps),
        cmocka_unit_test(pg_queue_has_a_time_limit),
        cmocka_unit_test(pg_waits_its_turn_when_there_is_room),
        cmocka_unit_test(pg_deadline_answers_and_keeps_the_place),
        cmocka_unit_test(pg_statement_has_its_own_timeout),
        cmocka_unit_test(pg_cancel_in_every_state),
        cmocka_unit_test(pg_slow_pool_ends_what_nobody_awaits),
        cmocka_unit_test(pg_killed_backend_write_is_unknown_read_is_sent_again),
        cmocka_unit_test(pg_killed_between_execute_and_sync),
        cmocka_unit_test(pg_server_stops_and_starts),
        cmocka_unit_test(pg_unsent_write_goes_elsewhere),
        cmocka_unit_test(pg_starting_pool_waits_then_says_so),
        cmocka_unit_test(pg_refuses_what_would_block),
        cmocka_unit_test(pg_mute_backend_is_left),
        cmocka_unit_test(pg_drain_finishes_what_it_holds),
        cmocka_unit_test(pg_destroy_ends_everything),
        cmocka_unit_test(pg_exec_once_says_why),
        cmocka_unit_test(pg_chaos),
    };

    unit_pg_create(&server, "max_connections = 60\n");
    run_sql("create table public.kv (k text, v text)");
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    unit_pg_destroy(&server);

    return rc;
}
