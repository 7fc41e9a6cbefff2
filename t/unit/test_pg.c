/*
 * The PostgreSQL machine against a real server of its own: answers and
 * errors.  Bounds and cancels are in test_pg_bounds.c, ends of connections
 * and pools in test_pg_ends.c.
 */

#include "unit_pg.h"


/* ---- the plain path ---- */

static void
pg_answers_values(void **state)
{
    pg_env_t    env;
    pg_rec_t    rec[5];
    const char *none = NULL;

    (void) state;
    pg_open(&env, 2, 8, 8, 5000, pg_server.info);

    /* before any connection is up */
    assert_non_null(pg_submit1(&env, &rec[0], &pg_echo, "h\xc3\xa9llo"));
    pg_until(&env, 1, 5000);
    assert_int_equal(rec[0].err, STOA_OK);
    assert_string_equal(rec[0].value, "h\xc3\xa9llo");
    assert_int_equal(rec[0].rows, 1);

    assert_non_null(pg_submit(&env, &rec[1], &pg_echo, &none, 0));
    assert_non_null(pg_submit1(&env, &rec[2], &pg_setting, "search_path"));
    assert_non_null(pg_submit1(&env, &rec[3], &pg_setting, "application_name"));
    assert_non_null(
        pg_submit1(&env, &rec[4], &pg_setting, "statement_timeout"));
    pg_until(&env, 5, 5000);
    assert_string_equal(rec[1].value, "");
    assert_string_equal(rec[2].value, "pg_catalog");
    assert_string_equal(rec[3].value, "stoa/unit");
    assert_string_equal(rec[4].value, "5s");

    pg_close(&env);
}


static void
pg_takes_commands_and_empty_results(void **state)
{
    pg_env_t             env;
    pg_rec_t             rec[2];
    const stoa_pg_stmt_t command = { .name = "command",
                                     .sql = "create temp table x (a int)",
                                     .slot = 10,
                                     .write = true };
    const stoa_pg_stmt_t empty = { .name = "empty",
                                   .sql = "select 1 where false",
                                   .slot = 11 };

    (void) state;
    pg_open(&env, 1, 8, 8, 5000, pg_server.info);

    assert_non_null(pg_submit(&env, &rec[0], &command, NULL, 0));
    assert_non_null(pg_submit(&env, &rec[1], &empty, NULL, 0));
    pg_until(&env, 2, 5000);
    assert_int_equal(rec[0].err, STOA_OK);
    assert_int_equal(rec[0].rows, -1);
    assert_int_equal(rec[1].err, STOA_OK);
    assert_int_equal(rec[1].rows, 0);

    pg_close(&env);
}


static void
pg_pipelines_ten_thousand(void **state)
{
    int             i;
    pg_env_t        env;
    pg_rec_t       *rec = calloc(10000, sizeof(pg_rec_t));
    char           *text = calloc(10000, 12);
    stoa_pg_stats_t st;

    (void) state;
    assert_non_null(rec);
    assert_non_null(text);
    pg_open(&env, 2, 256, 10000, 20000, pg_server.info);
    pg_wait_ready(&env, 2);

    for (i = 0; i < 10000; i++) {
        (void) snprintf(&text[i * 12], 12, "%d", i);
        assert_non_null(pg_submit1(&env, &rec[i], &pg_echo, &text[i * 12]));
    }

    pg_until(&env, 10000, 20000);

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

    pg_close(&env);
    free(rec);
    free(text);
}


static void
pg_carries_large_values_both_ways(void **state)
{
    int                  i;
    pg_env_t             env;
    pg_rec_t             rec[8];
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

    pg_open(&env, 1, 8, 8, 20000, pg_server.info);

    for (i = 0; i < 8; i++) {
        assert_non_null(pg_submit1(&env, &rec[i], &length, big));
    }

    pg_until(&env, 8, 20000);

    for (i = 0; i < 8; i++) {
        assert_int_equal(rec[i].err, STOA_OK);
        assert_string_equal(rec[i].value, "3145728");
    }

    pg_close(&env);
    free(big);
}


/* ---- errors ---- */

static void
pg_group_errors_harm_no_neighbour(void **state)
{
    int             i;
    pg_env_t        env;
    pg_rec_t        rec[60];
    stoa_pg_stats_t st;

    (void) state;
    pg_open(&env, 1, 256, 8, 5000, pg_server.info);
    pg_wait_ready(&env, 1);

    /* prepare both, so that groups are shared */
    assert_non_null(pg_submit1(&env, &rec[0], &pg_divide, "1"));
    assert_non_null(pg_submit1(&env, &rec[1], &pg_echo, "1"));
    pg_until(&env, 2, 5000);
    env.answered = 0;

    for (i = 0; i < 60; i++) {
        assert_non_null(pg_submit1(&env, &rec[i],
                                   i % 3 == 0 ? &pg_divide : &pg_echo,
                                   i % 6 == 0 ? "0" : "5"));
    }

    pg_until(&env, 60, 10000);

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

    pg_close(&env);
}


static void
pg_bad_statement_harms_no_other(void **state)
{
    int                  i;
    pg_env_t             env;
    pg_rec_t             rec[30];
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
    pg_run_sql("drop table if exists public.later");
    pg_open(&env, 1, 64, 8, 5000, pg_server.info);

    for (i = 0; i < 30; i++) {
        assert_non_null(pg_submit1(&env, &rec[i],
                                   i % 3 == 0   ? &pg_echo
                                   : i % 3 == 1 ? &bad
                                                : &bad_write,
                                   "v"));
    }

    pg_until(&env, 30, 5000);

    for (i = 0; i < 30; i++) {
        assert_int_equal(rec[i].done, 1);
        assert_int_equal(rec[i].err, i % 3 == 0 ? STOA_OK : STOA_E_INTERNAL);
        assert_string_equal(rec[i].sqlstate, i % 3 == 0 ? "" : "42P01");
    }

    /* it becomes good without a new connection */
    pg_run_sql("create table public.later (v text)");
    env.answered = 0;
    assert_non_null(pg_submit(&env, &rec[0], &bad_write, NULL, 0));
    pg_until(&env, 1, 5000);
    assert_string_equal(rec[0].value, "x");
    assert_non_null(pg_submit(&env, &rec[1], &bad, NULL, 0));
    pg_until(&env, 2, 5000);
    assert_string_equal(rec[1].value, "x");

    pg_run_sql("drop table public.later");
    pg_close(&env);
}


static void
pg_stale_plans_are_prepared_again(void **state)
{
    int                  i;
    pg_env_t             env;
    pg_rec_t             rec[8];
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
    pg_run_sql("create table public.wide (a int)");
    pg_open(&env, 2, 8, 8, 5000, pg_server.info);
    pg_wait_ready(&env, 2);

    for (i = 0; i < 6; i++) {
        assert_non_null(pg_submit(&env, &rec[i],
                                  i % 3 == 0   ? &star_write
                                  : i % 3 == 1 ? &star
                                               : &timed,
                                  NULL, 0));
    }

    pg_until(&env, 6, 5000);

    /* 0A000: cached plan must not change result type */
    pg_run_sql("alter table public.wide add column b int default 1");

    for (i = 0; i < 6; i++) {
        assert_non_null(pg_submit(&env, &rec[i],
                                  i % 3 == 0   ? &star_write
                                  : i % 3 == 1 ? &star
                                               : &timed,
                                  NULL, 0));
    }

    pg_until(&env, 12, 5000);

    for (i = 0; i < 6; i++) {
        assert_int_equal(rec[i].done, 1);
        assert_int_equal(rec[i].err, STOA_OK);
    }

    /* 26000: gone, in each session */
    for (i = 0; i < 2; i++) {
        assert_non_null(pg_submit(&env, &rec[i], &discard, NULL, 0));
    }

    pg_until(&env, 14, 5000);
    assert_int_equal(rec[0].err, STOA_OK);

    for (i = 0; i < 6; i++) {
        assert_non_null(pg_submit(&env, &rec[i],
                                  i % 3 == 0   ? &star_write
                                  : i % 3 == 1 ? &star
                                               : &timed,
                                  NULL, 0));
    }

    pg_until(&env, 20, 5000);

    for (i = 0; i < 6; i++) {
        assert_int_equal(rec[i].err, STOA_OK);
    }

    pg_close(&env);
    pg_run_sql("drop table public.wide");
}


static void
pg_write_is_answered_after_its_commit(void **state)
{
    pg_env_t             env;
    pg_rec_t             rec[3];
    const char          *kv[2] = { "deferred", "1" };
    const stoa_pg_stmt_t twice = {
        .name = "twice",
        .sql = "insert into public.uniq select 1 from generate_series(1, 2)"
               " returning 'promised'",
        .write = true,
        .slot = 25
    };

    (void) state;
    pg_run_sql("create table public.uniq (a int, constraint uniq_a unique (a)"
               " deferrable initially deferred)");
    pg_open(&env, 1, 8, 8, 5000, pg_server.info);

    assert_non_null(pg_submit(&env, &rec[0], &twice, NULL, 0));
    assert_non_null(pg_submit(&env, &rec[1], &pg_put, kv, 0));
    assert_non_null(pg_submit1(&env, &rec[2], &pg_echo, "after"));
    pg_until(&env, 3, 5000);

    /* rows came, the commit did not */
    assert_int_equal(rec[0].err, STOA_E_INTERNAL);
    assert_string_equal(rec[0].sqlstate, "23505");
    assert_string_equal(rec[0].constraint, "uniq_a");
    assert_int_equal(rec[0].rows, -1);
    assert_int_equal(rec[1].err, STOA_OK);
    assert_int_equal(rec[2].err, STOA_OK);

    pg_close(&env);
    pg_run_sql("drop table public.uniq");
}


static void
pg_serialization_failure_is_a_conflict(void **state)
{
    pg_env_t             env;
    pg_rec_t             rec[2];
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
    pg_open(&env, 1, 8, 8, 5000, pg_server.info);
    assert_non_null(pg_submit(&env, &rec[0], &fails, NULL, 0));
    assert_non_null(pg_submit(&env, &rec[1], &unsupported, NULL, 0));
    pg_until(&env, 2, 5000);
    assert_int_equal(rec[0].err, STOA_E_CONFLICT);
    assert_string_equal(rec[0].sqlstate, "40001");
    assert_int_equal(rec[1].err, STOA_E_INTERNAL); /* tried twice, not more */
    assert_string_equal(rec[1].sqlstate, "0A000");
    pg_close(&env);
}


int
main(void)
{
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
    };

    return pg_main(tests);
}
