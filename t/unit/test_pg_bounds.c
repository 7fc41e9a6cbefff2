/*
 * The PostgreSQL machine when there is too much, when it takes too long, and
 * when nobody waits any more.
 */

#include "unit_pg.h"


/* ---- bounds ---- */

static void
pg_full_pool_refuses_while_it_sleeps(void **state)
{
    int             i;
    pg_env_t        env;
    pg_rec_t        rec[10];
    stoa_pg_stats_t st;

    (void) state;
    pg_open(&env, 2, 2, 3, 5000, pg_server.info);
    pg_wait_ready(&env, 2);

    for (i = 0; i < 7; i++) {
        assert_non_null(pg_submit1(&env, &rec[i], &pg_nap, "0.5"));
    }

    assert_null(pg_submit1(&env, &rec[7], &pg_nap, "0.5"));
    assert_int_equal(rec[7].err, STOA_E_POOL_SATURATED);
    pg_turns(&env, 50);
    assert_null(pg_submit1(&env, &rec[8], &pg_echo, "x"));
    assert_int_equal(rec[8].err, STOA_E_POOL_SATURATED);
    assert_int_equal(env.answered, 0); /* all of them still sleep */

    pg_until(&env, 7, 10000);

    for (i = 0; i < 7; i++) {
        assert_int_equal(rec[i].done, 1);
        assert_int_equal(rec[i].err, STOA_OK);
    }

    stoa_pg_pool_stats(env.pool, &st);
    assert_int_equal(st.saturated, 2);
    pg_close(&env);
}


static void
pg_queue_has_a_time_limit(void **state)
{
    pg_env_t env;
    pg_rec_t rec[3];

    (void) state;
    pg_open(&env, 1, 1, 8, 10000, pg_server.info);
    pg_wait_ready(&env, 1);
    assert_non_null(pg_submit1(&env, &rec[0], &pg_nap, "2.6"));
    pg_turns(&env, 10);
    assert_non_null(pg_submit1(&env, &rec[1], &pg_echo, "x"));
    assert_non_null(
        pg_submit(&env, &rec[2], &pg_echo, (const char *[]){ "y" }, 300));

    pg_until(&env, 1, 1000);
    assert_int_equal(rec[2].err, STOA_E_TIMEOUT); /* its own deadline */
    pg_until(&env, 2, 2500);
    assert_int_equal(rec[1].err, STOA_E_POOL_SATURATED);
    assert_int_equal(rec[0].done, 0);
    pg_until(&env, 3, 3000);
    assert_int_equal(rec[0].err, STOA_OK);
    pg_close(&env);
}


static void
pg_waits_its_turn_when_there_is_room(void **state)
{
    int      i;
    pg_env_t env;
    pg_rec_t rec[8];

    (void) state;
    pg_open(&env, 1, 8, 0, 10000, pg_server.info);
    pg_wait_ready(&env, 1);
    assert_non_null(pg_submit1(&env, &rec[0], &pg_nap, "2.3"));
    pg_turns(&env, 10);

    /* longer than queue_timeout, but it is not the queue */
    for (i = 1; i < 8; i++) {
        assert_non_null(pg_submit1(&env, &rec[i], &pg_echo, "x"));
    }

    pg_until(&env, 8, 4000);

    for (i = 0; i < 8; i++) {
        assert_int_equal(rec[i].err, STOA_OK);
    }

    pg_close(&env);
}


static void
pg_deadline_answers_and_keeps_the_place(void **state)
{
    pg_env_t        env;
    pg_rec_t        rec[2];
    uint64_t        t;
    stoa_pg_stats_t st;

    (void) state;
    pg_open(&env, 1, 4, 8, 10000, pg_server.info);
    pg_wait_ready(&env, 1);
    t = env.loop->now_ms(env.loop);
    assert_non_null(pg_submit(&env, &rec[0], &pg_nap_write,
                              (const char *[]){ "0.8" }, 200));
    pg_turns(&env, 20);
    assert_non_null(pg_submit1(&env, &rec[1], &pg_echo, "behind"));

    pg_until(&env, 1, 600);
    assert_int_equal(rec[0].err, STOA_E_TIMEOUT);
    assert_true(rec[0].at_ms - t >= 200);
    stoa_pg_pool_stats(env.pool, &st);
    assert_int_equal(st.in_flight, 2); /* the place stays taken */
    assert_int_equal(st.timeouts, 1);

    pg_until(&env, 2, 3000);
    assert_int_equal(rec[1].err, STOA_OK);
    assert_true(rec[1].at_ms - t >= 700);
    assert_int_equal(rec[0].done, 1);
    stoa_pg_pool_stats(env.pool, &st);
    assert_int_equal(st.in_flight, 0);
    pg_close(&env);
}


static void
pg_statement_has_its_own_timeout(void **state)
{
    pg_env_t             env;
    pg_rec_t             rec[4];
    const stoa_pg_stmt_t brief = { .name = "brief",
                                   .sql = pg_nap_write.sql,
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
    pg_open(&env, 1, 8, 8, 5000, pg_server.info);
    assert_non_null(pg_submit1(&env, &rec[0], &brief, "3"));
    assert_non_null(pg_submit(&env, &rec[1], &shows, NULL, 0));
    assert_non_null(
        pg_submit1(&env, &rec[2], &pg_setting, "statement_timeout"));
    assert_non_null(pg_submit1(&env, &rec[3], &pg_nap, "0.4"));
    pg_until(&env, 4, 5000);

    assert_int_equal(rec[0].err, STOA_E_TIMEOUT);
    assert_string_equal(rec[0].sqlstate, "57014");
    assert_string_equal(rec[1].value, "7s");
    assert_string_equal(rec[2].value, "5s"); /* gone with its transaction */
    assert_int_equal(rec[3].err, STOA_OK);
    pg_close(&env);
}


/* ---- cancel ---- */

static void
pg_cancel_in_every_state(void **state)
{
    pg_env_t      env;
    pg_rec_t      rec[8];
    stoa_pg_op_t *op[8];
    const char   *kv[2] = { "canceled", "v" };
    char          n[64];

    (void) state;
    pg_open(&env, 1, 4, 8, 5000, pg_server.info);

    /* waiting for the first connection */
    op[0] = pg_submit1(&env, &rec[0], &pg_echo, "x");
    stoa_pg_cancel(op[0]);
    pg_wait_ready(&env, 1);

    /* in the queue of this turn */
    op[1] = pg_submit1(&env, &rec[1], &pg_echo, "x");
    op[2] = pg_submit1(&env, &rec[2], &pg_nap, "0.3");
    stoa_pg_cancel(op[1]);
    pg_turns(&env, 20);

    /* sent: it runs on, also the write behind it */
    stoa_pg_cancel(op[2]);
    op[3] = pg_submit(&env, &rec[3], &pg_put, kv, 0);
    pg_turns(&env, 20);
    stoa_pg_cancel(op[3]);

    /* from inside the done() of the one before */
    op[4] = pg_submit1(&env, &rec[4], &pg_echo, "x");
    rec[4].cancel = pg_submit1(&env, &rec[5], &pg_echo, "y");
    assert_non_null(op[4]);
    pg_until(&env, 1, 5000);
    pg_turns(&env, 100);
    assert_int_equal(rec[0].done + rec[1].done + rec[2].done + rec[3].done, 0);
    assert_int_equal(rec[4].done, 1);
    assert_int_equal(rec[5].done, 0);
    pg_close(&env);

    pg_ask("select count(*)::text from public.kv where k = 'canceled'", n);
    assert_string_equal(n, "1");
}


static void
pg_slow_pool_ends_what_nobody_awaits(void **state)
{
    int             i;
    pg_env_t        env, fast;
    pg_rec_t        rec[6];
    stoa_pg_op_t   *op;
    stoa_pg_stats_t st;

    (void) state;
    pg_open(&env, 1, 1, 8, 60000, pg_server.info);
    pg_open(&fast, 1, 8, 8, 5000, pg_server.info);

    /* one loop for both */
    stoa_pg_pool_destroy(fast.pool);
    stoa_loop_poll_destroy(fast.loop);
    fast.loop = env.loop;
    fast.pool = stoa_pg_pool_create(env.loop,
                                    &(stoa_pg_conf_t){
                                        .name = "fast",
                                        .conninfo = pg_server.info,
                                        .size = 1,
                                        .in_flight = 8,
                                        .queue_max = 8,
                                        .nslots = PG_SLOTS,
                                        .statement_timeout_ms = 5000 });
    assert_non_null(fast.pool);
    stoa_pg_pool_cancel_via(env.pool, fast.pool);
    pg_wait_ready(&env, 1);
    pg_wait_ready(&fast, 1);

    /* the deadline */
    assert_non_null(
        pg_submit(&env, &rec[0], &pg_nap, (const char *[]){ "30" }, 200));
    pg_until(&env, 1, 1000);
    assert_int_equal(rec[0].err, STOA_E_TIMEOUT);
    assert_non_null(pg_submit1(&env, &rec[1], &pg_echo, "next"));
    pg_until(&env, 2, 1000);
    assert_int_equal(rec[1].err, STOA_OK);

    /* the owner leaves */
    op = pg_submit1(&env, &rec[2], &pg_nap, "30");
    pg_turns(&env, 50);
    stoa_pg_cancel(op);
    assert_non_null(pg_submit1(&env, &rec[3], &pg_echo, "next"));
    pg_until(&env, 3, 1000);
    assert_int_equal(rec[3].err, STOA_OK);

    /* many in a row: never the neighbour */
    for (i = 0; i < 200; i++) {
        op = pg_submit1(&env, &rec[4], &pg_nap, "0.002");
        pg_turns(&env, (uint64_t) (i % 5));
        if (rec[4].done == 0) {
            stoa_pg_cancel(op);
        }
        assert_non_null(pg_submit1(&env, &rec[5], &pg_nap, "0.003"));
        pg_until(&env, env.answered + 1, 2000);
        assert_int_equal(rec[5].done, 1);
        assert_int_equal(rec[5].err, STOA_OK);
    }

    stoa_pg_pool_stats(env.pool, &st);
    assert_int_equal(st.reconnects, 0);

    /* the helper goes while a cancel is on its way */
    op = pg_submit1(&env, &rec[4], &pg_nap, "0.5");
    pg_turns(&env, 20);
    stoa_pg_cancel(op);
    stoa_pg_pool_destroy(fast.pool);
    assert_non_null(pg_submit1(&env, &rec[5], &pg_echo, "x"));
    pg_until(&env, env.answered + 1, 2000);
    assert_int_equal(rec[5].err, STOA_OK);
    stoa_pg_pool_destroy(env.pool);
    stoa_loop_poll_destroy(env.loop);

    /* two connections of one pool help each other */
    pg_open(&env, 2, 1, 8, 60000, pg_server.info);
    stoa_pg_pool_cancel_via(env.pool, env.pool);
    pg_wait_ready(&env, 2);
    assert_non_null(
        pg_submit(&env, &rec[0], &pg_nap, (const char *[]){ "30" }, 100));
    pg_until(&env, 1, 1000);
    pg_turns(&env, 100);
    stoa_pg_pool_stats(env.pool, &st);
    assert_int_equal(st.in_flight, 0);
    pg_close(&env);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pg_full_pool_refuses_while_it_sleeps),
        cmocka_unit_test(pg_queue_has_a_time_limit),
        cmocka_unit_test(pg_waits_its_turn_when_there_is_room),
        cmocka_unit_test(pg_deadline_answers_and_keeps_the_place),
        cmocka_unit_test(pg_statement_has_its_own_timeout),
        cmocka_unit_test(pg_cancel_in_every_state),
        cmocka_unit_test(pg_slow_pool_ends_what_nobody_awaits),
    };

    return pg_main(tests);
}
