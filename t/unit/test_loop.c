/*
 * The poll(2) reactor: level-triggered watches, timers in order, deferred
 * calls at the end of a turn, and everything closing everything else.
 */

#include "stoa_loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct {
    stoa_loop_t *loop;
    stoa_watch_t watch[2];
    stoa_timer_t timer[4];
    stoa_defer_t defer[3];
    int          fd[2];
    int          readable, writable;
    int          order[8];
    int          n;
    int          close; /* what ready() closes */
    bool         stop;
} env_t;


static void
open_env(env_t *env)
{
    int i;

    memset(env, 0, sizeof(env_t));
    env->loop = stoa_loop_poll_create(NULL);
    assert_non_null(env->loop);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0,
                                env->fd),
                     0);

    for (i = 0; i < 2; i++) {
        env->watch[i].data = env;
    }

    for (i = 0; i < 4; i++) {
        env->timer[i].data = env;
    }

    for (i = 0; i < 3; i++) {
        env->defer[i].data = env;
    }
}


static void
close_env(env_t *env)
{
    int i;

    for (i = 0; i < 2; i++) {
        env->loop->watch_close(env->loop, &env->watch[i], true);
        (void) close(env->fd[i]);
    }

    for (i = 0; i < 4; i++) {
        env->loop->timer_close(env->loop, &env->timer[i]);
    }

    for (i = 0; i < 3; i++) {
        env->loop->defer_close(env->loop, &env->defer[i]);
    }

    stoa_loop_poll_destroy(env->loop);
}


static void
on_ready(stoa_watch_t *w, bool readable, bool writable)
{
    env_t *env = w->data;

    env->readable += readable;
    env->writable += writable;

    if (env->close != 0) {
        /* both: its own and the other one's */
        env->loop->watch_close(env->loop, &env->watch[0], true);
        env->loop->watch_close(env->loop, &env->watch[1], true);
    }
}


static void
loop_watches_are_level_triggered(void **state)
{
    char  c;
    env_t env;

    (void) state;
    open_env(&env);
    env.watch[0].ready = on_ready;
    assert_int_equal(env.loop->watch_open(env.loop, &env.watch[0], env.fd[0]),
                     STOA_OK);

    /* nothing is wanted yet */
    assert_int_equal(write(env.fd[1], "x", 1), 1);
    assert_false(stoa_loop_poll_run(env.loop, NULL, 5));
    assert_int_equal(env.readable, 0);

    env.loop->watch_want(env.loop, &env.watch[0], true, false);
    assert_false(stoa_loop_poll_run(env.loop, NULL, 0));
    assert_false(stoa_loop_poll_run(env.loop, NULL, 0));
    assert_int_equal(env.readable, 2); /* again, it was not read */
    assert_int_equal(env.writable, 0);

    assert_int_equal(read(env.fd[0], &c, 1), 1);
    assert_false(stoa_loop_poll_run(env.loop, NULL, 0));
    assert_int_equal(env.readable, 2);

    env.loop->watch_want(env.loop, &env.watch[0], false, true);
    assert_false(stoa_loop_poll_run(env.loop, NULL, 0));
    assert_int_equal(env.writable, 1);

    /* the end of the peer is readable */
    env.loop->watch_want(env.loop, &env.watch[0], true, false);
    (void) shutdown(env.fd[1], SHUT_RDWR);
    assert_false(stoa_loop_poll_run(env.loop, NULL, 0));
    assert_int_equal(env.readable, 3);

    close_env(&env);
}


static void
loop_ready_may_close_itself_and_others(void **state)
{
    env_t env;

    (void) state;
    open_env(&env);

    for (int i = 0; i < 2; i++) {
        env.watch[i].ready = on_ready;
        assert_int_equal(env.loop->watch_open(env.loop, &env.watch[i],
                                              env.fd[i]),
                         STOA_OK);
        env.loop->watch_want(env.loop, &env.watch[i], true, true);
    }

    env.close = 1;
    assert_false(stoa_loop_poll_run(env.loop, NULL, 5));
    assert_int_equal(env.writable, 1); /* the other one is not told */
    assert_null(env.watch[0].host);
    assert_null(env.watch[1].host);

    /* the same descriptor again */
    env.close = 0;
    assert_int_equal(env.loop->watch_open(env.loop, &env.watch[0], env.fd[0]),
                     STOA_OK);
    env.loop->watch_want(env.loop, &env.watch[0], false, true);
    assert_false(stoa_loop_poll_run(env.loop, NULL, 0));
    assert_int_equal(env.writable, 2);

    close_env(&env);
}


static void
on_fire(stoa_timer_t *t)
{
    env_t *env = t->data;

    env->order[env->n++] = (int) (t - env->timer);

    if (t == &env->timer[1]) {
        /* closes itself and one that is due */
        env->loop->timer_close(env->loop, &env->timer[1]);
        env->loop->timer_close(env->loop, &env->timer[2]);
    }

    if (t == &env->timer[3]) {
        env->stop = true;
    }
}


static void
loop_timers_fire_in_order(void **state)
{
    int   i;
    env_t env;

    (void) state;
    open_env(&env);

    for (i = 0; i < 4; i++) {
        env.timer[i].fire = on_fire;
    }

    env.loop->timer_set(env.loop, &env.timer[3], 60);
    env.loop->timer_set(env.loop, &env.timer[2], 30);
    env.loop->timer_set(env.loop, &env.timer[1], 30);
    env.loop->timer_set(env.loop, &env.timer[0], 500);
    env.loop->timer_set(env.loop, &env.timer[0], 10); /* moved */
    env.loop->timer_set(env.loop, &env.timer[2], 30); /* behind the other */
    assert_true(stoa_loop_poll_run(env.loop, &env.stop, 2000));

    assert_int_equal(env.n, 3);
    assert_int_equal(env.order[0], 0);
    assert_int_equal(env.order[1], 1);
    assert_int_equal(env.order[2], 3);

    env.loop->timer_set(env.loop, &env.timer[0], 5);
    env.loop->timer_cancel(env.loop, &env.timer[0]);
    env.loop->timer_cancel(env.loop, &env.timer[0]);
    assert_false(stoa_loop_poll_run(env.loop, NULL, 20));
    assert_int_equal(env.n, 3);

    close_env(&env);
}


static void
on_defer(stoa_defer_t *d)
{
    env_t *env = d->data;

    env->order[env->n++] = (int) (d - env->defer);

    if (d == &env->defer[0] && env->n < 3) {
        /* again is the next turn; another one that is queued is dropped */
        env->loop->defer(env->loop, d);
        env->loop->defer_close(env->loop, &env->defer[1]);
    }
}


static void
loop_deferred_calls_run_at_the_end_of_the_turn(void **state)
{
    int   i;
    env_t env;

    (void) state;
    open_env(&env);

    for (i = 0; i < 3; i++) {
        env.defer[i].run = on_defer;
        env.loop->defer(env.loop, &env.defer[i]);
        env.loop->defer(env.loop, &env.defer[i]); /* ignored */
    }

    assert_false(stoa_loop_poll_run(env.loop, NULL, 0));
    assert_int_equal(env.n, 2);
    assert_int_equal(env.order[0], 0);
    assert_int_equal(env.order[1], 2);

    assert_false(stoa_loop_poll_run(env.loop, NULL, 0));
    assert_int_equal(env.n, 3);
    assert_int_equal(env.order[2], 0);

    /* the last of the list may be closed, and one be added behind */
    env.loop->defer(env.loop, &env.defer[1]);
    env.loop->defer(env.loop, &env.defer[2]);
    env.loop->defer_close(env.loop, &env.defer[2]);
    env.loop->defer(env.loop, &env.defer[0]);
    assert_false(stoa_loop_poll_run(env.loop, NULL, 0));
    assert_int_equal(env.n, 5);
    assert_int_equal(env.order[3], 1);
    assert_int_equal(env.order[4], 0);

    close_env(&env);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loop_watches_are_level_triggered),
        cmocka_unit_test(loop_ready_may_close_itself_and_others),
        cmocka_unit_test(loop_timers_fire_in_order),
        cmocka_unit_test(loop_deferred_calls_run_at_the_end_of_the_turn),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
