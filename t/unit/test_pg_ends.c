/*
 * The PostgreSQL machine when connections, the server or the pool end.  The
 * chaos test kills backends under load and compares what was promised with
 * what is stored.
 */

#include "unit_pg.h"


/* ---- connections that end ---- */

static void
pg_killed_backend_write_is_unknown_read_is_sent_again(void **state)
{
    pg_env_t        env;
    pg_rec_t        rec[4];
    stoa_pg_stats_t st;

    (void) state;
    pg_open(&env, 2, 4, 8, 20000, pg_server.info);
    pg_wait_ready(&env, 2);

    assert_non_null(pg_submit1(&env, &rec[0], &pg_nap_write, "20"));
    assert_non_null(pg_submit1(&env, &rec[1], &pg_nap, "0.7"));
    pg_turns(&env, 50);

    /* only the two that sleep */
    pg_run_sql(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name = 'stoa/unit' and query like '%pg_sleep%'"
        " and query like '%catalog%'");
    pg_until(&env, 1, 2000);
    assert_int_equal(rec[0].err, STOA_E_COMMIT_UNKNOWN);

    pg_run_sql("select pg_terminate_backend(pid) from pg_stat_activity"
               " where application_name = 'stoa/unit' and state = 'active'");
    pg_until(&env, 2, 5000);
    assert_int_equal(rec[1].done, 1);

    if (rec[1].err != STOA_OK) {
        /* the other one was not back yet */
        assert_int_equal(rec[1].err, STOA_E_DATABASE_UNAVAILABLE);
    }

    pg_wait_ready(&env, 2);
    assert_non_null(pg_submit1(&env, &rec[2], &pg_nap, "0.7"));
    pg_turns(&env, 50);
    pg_run_sql("select pg_terminate_backend(pid) from pg_stat_activity"
               " where application_name = 'stoa/unit' and state = 'active'");
    pg_until(&env, 3, 5000);
    assert_int_equal(rec[2].err, STOA_OK); /* again, elsewhere */

    stoa_pg_pool_stats(env.pool, &st);
    assert_true(st.resent >= 1);
    assert_true(st.reconnects >= 3);
    pg_wait_ready(&env, 2); /* prepared anew */
    assert_non_null(pg_submit1(&env, &rec[3], &pg_nap, "0"));
    pg_until(&env, 4, 5000);
    assert_int_equal(rec[3].err, STOA_OK);
    pg_close(&env);
}


static void
pg_killed_between_execute_and_sync(void **state)
{
    pg_env_t             env;
    pg_rec_t             rec[2];
    char                 n[64];
    const stoa_pg_stmt_t slow_commit = {
        .name = "slow.commit",
        .sql = "insert into public.slow_commit values (1) returning 'promised'",
        .write = true,
        .slot = 32
    };

    (void) state;
    pg_run_sql(
        "create table public.slow_commit (a int);"
        "create function public.slow_commit() returns trigger language"
        " plpgsql as $$ begin perform pg_sleep(5); return null; end $$;"
        "create constraint trigger slow after insert on public.slow_commit"
        " deferrable initially deferred for each row"
        " execute function public.slow_commit()");

    pg_open(&env, 2, 4, 8, 20000, pg_server.info);
    pg_wait_ready(&env, 2);
    assert_non_null(pg_submit(&env, &rec[0], &slow_commit, NULL, 0));
    pg_turns(&env, 200);
    assert_int_equal(rec[0].done, 0);

    pg_run_sql("select pg_terminate_backend(pid) from pg_stat_activity"
               " where application_name = 'stoa/unit' and state = 'active'");
    pg_until(&env, 1, 2000);
    assert_int_equal(rec[0].err, STOA_E_COMMIT_UNKNOWN);
    assert_int_equal(rec[0].rows, -1);
    pg_close(&env);

    pg_ask("select count(*)::text from public.slow_commit", n);
    assert_string_equal(n, "0");
    pg_run_sql("drop table public.slow_commit;"
               "drop function public.slow_commit()");
}


static void
pg_server_stops_and_starts(void **state)
{
    int             i;
    pg_env_t        env;
    pg_rec_t        rec[12];
    stoa_pg_stats_t st;

    (void) state;
    pg_open(&env, 2, 2, 8, 20000, pg_server.info);
    pg_wait_ready(&env, 2);

    for (i = 0; i < 6; i++) {
        assert_non_null(pg_submit1(&env, &rec[i],
                                   i % 2 == 0 ? &pg_nap_write : &pg_nap, "20"));
    }

    pg_turns(&env, 50);
    unit_pg_stop(&pg_server);
    pg_until(&env, 6, 5000);

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
        assert_null(pg_submit1(&env, &rec[6], &pg_echo, "x"));
        assert_int_equal(rec[6].err, STOA_E_DATABASE_UNAVAILABLE);
        pg_turns(&env, 100);
    }

    unit_pg_start(&pg_server);
    pg_wait_ready(&env, 1);
    assert_non_null(pg_submit1(&env, &rec[7], &pg_echo, "back"));
    pg_until(&env, 7, 5000);
    assert_string_equal(rec[7].value, "back");
    pg_wait_ready(&env, 2);
    pg_close(&env);
}


static void
pg_unsent_write_goes_elsewhere(void **state)
{
    pg_env_t    env;
    pg_rec_t    rec[3];
    const char *kv[2] = { "elsewhere", "1" };
    char        n[64];

    (void) state;
    pg_open(&env, 2, 1, 8, 20000, pg_server.info);
    pg_wait_ready(&env, 2);
    assert_non_null(pg_submit1(&env, &rec[0], &pg_nap_write, "20"));
    assert_non_null(pg_submit1(&env, &rec[1], &pg_nap_write, "0.5"));
    pg_turns(&env, 50);
    assert_non_null(pg_submit(&env, &rec[2], &pg_put, kv, 0)); /* waits */
    pg_turns(&env, 50);
    pg_run_sql("select pg_terminate_backend(min(pid)) from pg_stat_activity"
               " where application_name = 'stoa/unit'");
    pg_until(&env, 3, 25000);
    assert_int_equal(rec[2].err, STOA_OK);
    pg_close(&env);

    pg_ask("select count(*)::text from public.kv where k = 'elsewhere'", n);
    assert_string_equal(n, "1");
}


static void
pg_starting_pool_waits_then_says_so(void **state)
{
    pg_env_t env;
    pg_rec_t rec[3];

    (void) state;
    pg_open(&env, 2, 2, 8, 5000, "host=/nowhere user=postgres");
    assert_null(
        pg_submit1(&env, &rec[0], &pg_echo, "x")); /* refused at connect */
    assert_int_equal(rec[0].err, STOA_E_DATABASE_UNAVAILABLE);
    pg_close(&env);

    /* an address that swallows packets would hang: a listener that is mute */
    pg_open(&env, 1, 2, 8, 5000, pg_server.info);
    assert_int_equal(kill(pg_server.pid, SIGSTOP), 0);
    stoa_pg_pool_destroy(env.pool);
    env.pool = stoa_pg_pool_create(env.loop, &(stoa_pg_conf_t){
                                                 .name = "unit",
                                                 .conninfo = pg_server.info,
                                                 .size = 1,
                                                 .in_flight = 2,
                                                 .queue_max = 2,
                                                 .nslots = PG_SLOTS,
                                                 .queue_timeout_ms = 300,
                                                 .connect_timeout_ms = 1000 });
    assert_non_null(env.pool);
    assert_non_null(pg_submit1(&env, &rec[1], &pg_echo, "x"));
    pg_until(&env, 1, 900);
    assert_int_equal(rec[1].err, STOA_E_DATABASE_UNAVAILABLE);
    pg_turns(&env, 1100);
    assert_null(pg_submit1(&env, &rec[2], &pg_echo, "x"));
    assert_int_equal(rec[2].err, STOA_E_DATABASE_UNAVAILABLE);
    assert_int_equal(kill(pg_server.pid, SIGCONT), 0);
    pg_wait_ready(&env, 1);
    pg_close(&env);
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
    int      pid;
    pg_env_t env;
    pg_rec_t rec[2];

    (void) state;
    pg_open(&env, 1, 4, 8, 300, pg_server.info);
    pg_wait_ready(&env, 1);
    assert_non_null(pg_submit1(&env, &rec[0], &pg_backend, "0"));
    pg_until(&env, 1, 2000);
    pid = pg_number(rec[0].value);
    assert_true(pid > 1);
    assert_int_equal(kill(pid, SIGSTOP), 0);

    assert_non_null(pg_submit1(&env, &rec[1], &pg_nap_write, "0"));
    pg_until(&env, 2, 4000);
    assert_int_equal(rec[1].err, STOA_E_TIMEOUT);

    pg_turns(&env, 4500);
    pg_wait_ready(&env, 1);
    assert_int_equal(kill(pid, SIGCONT), 0);
    assert_non_null(pg_submit1(&env, &rec[0], &pg_backend, "0"));
    pg_until(&env, 3, 2000);
    assert_int_not_equal(pg_number(rec[0].value), pid);
    pg_close(&env);
}


/* ---- the end of a pool ---- */

static void
on_drained(void *data)
{
    pg_env_t *env = data;

    stoa_pg_pool_destroy(env->pool);
    env->pool = NULL;
    env->stop = true;
}


static void
pg_drain_finishes_what_it_holds(void **state)
{
    int      i;
    pg_env_t env;
    pg_rec_t rec[8];

    (void) state;
    pg_open(&env, 2, 2, 8, 5000, pg_server.info);
    pg_wait_ready(&env, 2);

    for (i = 0; i < 7; i++) {
        assert_non_null(pg_submit1(&env, &rec[i],
                                   i % 2 == 0 ? &pg_nap_write : &pg_nap,
                                   "0.1"));
    }

    pg_turns(&env, 5);
    env.want = 1000;
    env.stop = false;
    stoa_pg_pool_drain(env.pool, on_drained, &env);
    assert_false(env.stop);
    assert_null(pg_submit1(&env, &rec[7], &pg_echo, "x"));
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
        pg_open(&env, 2, 2, 8, 5000, pg_server.info);

        if (i == 1) {
            pg_wait_ready(&env, 2);
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
    int      i;
    pg_env_t env;
    pg_rec_t rec[12];

    (void) state;
    pg_open(&env, 2, 2, 12, 5000, pg_server.info);
    pg_wait_ready(&env, 2);

    for (i = 0; i < 12; i++) {
        assert_non_null(pg_submit1(&env, &rec[i],
                                   i % 2 == 0 ? &pg_nap_write : &pg_nap, "5"));
    }

    pg_turns(&env, 20);
    pg_close(&env);

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
    char        sqlstate[6] = "none";
    stoa_mem_t *mem = stoa_arena_create(4096, 65536);

    (void) state;
    assert_non_null(mem);
    assert_int_equal(stoa_pg_exec_once(pg_server.info, "select 1; select 2",
                                       mem, &message, sqlstate),
                     STOA_OK);
    assert_string_equal(sqlstate, "");
    assert_int_equal(stoa_pg_exec_once(pg_server.info, "select 1; nonsense",
                                       mem, &message, sqlstate),
                     STOA_E_INTERNAL);
    assert_non_null(strstr(message, "nonsense"));
    assert_string_equal(sqlstate, "42601");
    assert_int_equal(stoa_pg_exec_once("host=/nowhere", "select 1", mem,
                                       &message, sqlstate),
                     STOA_E_DATABASE_UNAVAILABLE);
    assert_non_null(message);
    assert_string_equal(sqlstate, "");
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
    pg_env_t    env;
    pg_rec_t   *rec = calloc(N, sizeof(pg_rec_t));
    const char *kv[2];

    (void) state;
    assert_non_null(rec);
    assert_non_null(keys);
    pg_run_sql("truncate public.kv");
    pg_open(&env, 4, 16, 64, 5000, pg_server.info);
    pg_wait_ready(&env, 4);

    for (i = 0; i < N; i++) {
        (void) snprintf(&keys[i * 12], 12, "%d", i);
        kv[0] = &keys[i * 12];
        kv[1] = "chaos";

        if (i % 2 == 0) {
            sent += pg_submit(&env, &rec[i], &pg_put, kv, 0) != NULL;
        } else if (i % 7 == 0) {
            sent += pg_submit1(&env, &rec[i], &pg_divide,
                               i % 3 == 0 ? "0" : "2")
                 != NULL;
        } else {
            sent += pg_submit1(&env, &rec[i], &pg_echo, kv[0]) != NULL;
        }

        if (i % 25 == 0) {
            pg_turns(&env, 2);
        }

        if (i % 500 == 250) {
            pg_run_sql(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'stoa/unit' and random() < 0.6");
        }
    }

    pg_until(&env, sent, 10000);
    pg_turns(&env, 200);

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
    pg_close(&env);

    pg_ask("select count(*)::text from public.kv", n);
    stored = pg_number(n);
    pg_ask("select count(distinct k)::text from public.kv", n);
    assert_int_equal(pg_number(n), stored); /* nothing twice */
    assert_true(stored >= ok);              /* nothing lost */
    assert_true(stored <= ok + unknown);
    assert_true(ok > puts / 4);
    free(rec);
    free(keys);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
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

    return pg_main(tests);
}
