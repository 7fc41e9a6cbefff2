/*
 * The Redis machine against a real server of its own: order, deadlines,
 * scripts that the server forgot, servers that die, freeze and come back,
 * subscriptions over all of that.
 */

#include "unit_stores.h"
#include "stoa_redis.h"
#include "stoa_str.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct env_s env_t;

typedef struct {
    int               done;
    stoa_err_e        err;
    stoa_redis_type_e type;
    char              text[128];
    int64_t           number;
    size_t            count;
    int               order;
    stoa_redis_op_t  *cancel; /* in done() */
    bool              again;  /* sends another from inside done() */
    env_t            *env;
} rec_t;

struct env_s {
    stoa_loop_t      *loop;
    stoa_redis_t     *rd;
    stoa_redis_sub_t *sub;
    int               answered;
    int               want;
    int               ups, downs, sub_ups, sub_downs;
    int               messages;
    char              last[64]; /* channel=message */
    bool              stop;
};

static unit_redis_t server;
static bool         company; /* all of it once more, with commands that wait */


static void
check(env_t *env)
{
    env->stop = env->answered >= env->want;
}


static void
on_state(void *data, bool up)
{
    env_t *env = data;

    env->ups += up;
    env->downs += !up;
}


static void
on_sub_state(void *data, bool up)
{
    env_t *env = data;

    env->sub_ups += up;
    env->sub_downs += !up;
}


static void
on_message(void *data, stoa_str_t channel, stoa_str_t message)
{
    env_t *env = data;

    env->messages++;
    (void) snprintf(env->last, sizeof(env->last), "%.*s=%.*s",
                    (int) channel.len, channel.data, (int) message.len,
                    message.data);
}


static stoa_redis_op_t *send_z(env_t *env, rec_t *rec, uint32_t timeout_ms,
                               const char *words);


static void
on_done(stoa_redis_op_t *op, stoa_err_e err, const stoa_redis_reply_t *reply,
        void *data)
{
    rec_t     *rec = data;
    env_t     *env = rec->env;
    stoa_str_t s;

    (void) op;

    rec->done++;
    rec->err = err;
    rec->order = env->answered++;

    if (err == STOA_OK) {
        assert_non_null(reply);
        rec->type = stoa_redis_type(reply);
        rec->number = stoa_redis_int(reply);
        rec->count = stoa_redis_count(reply);
        s = stoa_redis_str(reply);
        (void) snprintf(rec->text, sizeof(rec->text), "%.*s", (int) s.len,
                        s.data == NULL ? "" : (char *) s.data);
    } else {
        assert_null(reply);
    }

    if (rec->cancel != NULL) {
        stoa_redis_cancel(rec->cancel);
    }

    if (rec->again) {
        rec->again = false;
        (void) send_z(env, rec, 0, "ECHO again");
    }

    check(env);
}


/* words: at most 8, separated by one space. */
static stoa_redis_op_t *
send_z(env_t *env, rec_t *rec, uint32_t timeout_ms, const char *words)
{
    int              n = 0;
    char             copy[256], *p;
    stoa_err_e       err = STOA_OK;
    stoa_str_t       argv[8];
    stoa_redis_op_t *op;

    rec->env = env;
    (void) snprintf(copy, sizeof(copy), "%s", words);

    for (p = copy; p != NULL && n < 8; n++) {
        argv[n].data = (unsigned char *) p;
        p = strchr(p, ' ');
        argv[n].len = p == NULL ? strlen((char *) argv[n].data)
                                : (size_t) (p - (char *) argv[n].data);
        p = p == NULL ? NULL : p + 1;
    }

    op = stoa_redis_command(env->rd, n, argv, timeout_ms, on_done, rec, &err);
    rec->err = op == NULL ? err : STOA_OK;

    return op;
}


static void
open_env(env_t *env, uint32_t command_timeout_ms)
{
    stoa_redis_conf_t conf = { 0 };

    memset(env, 0, sizeof(env_t));
    conf.unix_path = server.sock;
    conf.command_timeout_ms = command_timeout_ms;
    conf.company = company;

    env->loop = stoa_loop_poll_create(unit_log());
    assert_non_null(env->loop);
    env->rd = stoa_redis_create(env->loop, &conf);
    assert_non_null(env->rd);
    stoa_redis_on_state(env->rd, on_state, env);
}


static void
close_env(env_t *env)
{
    stoa_redis_destroy(env->rd);
    stoa_redis_sub_destroy(env->sub);
    stoa_loop_poll_destroy(env->loop);
}


static void
turns(env_t *env, uint64_t ms)
{
    (void) stoa_loop_poll_run(env->loop, NULL, ms);
}


static void
until(env_t *env, int answered, uint64_t max_ms)
{
    env->want = answered;
    check(env);
    assert_true(stoa_loop_poll_run(env->loop, &env->stop, max_ms));
}


/* Turns until *n reaches want. */
static void
await(env_t *env, const int *n, int want)
{
    int i;

    for (i = 0; i < 1500 && *n < want; i++) {
        turns(env, 10);
    }

    assert_true(*n >= want);
}


static void
ask(env_t *env, rec_t *rec, const char *words)
{
    memset(rec, 0, sizeof(rec_t));
    assert_non_null(send_z(env, rec, 0, words));
    until(env, env->answered + 1, 5000);
    assert_int_equal(rec->done, 1);
    assert_int_equal(rec->err, STOA_OK);
}


/* ---- commands ---- */

static void
redis_answers_every_type(void **state)
{
    env_t env;
    rec_t rec;

    (void) state;
    open_env(&env, 0);

    /* refused until it is up */
    memset(&rec, 0, sizeof(rec));
    assert_false(stoa_redis_ready(env.rd));
    assert_null(send_z(&env, &rec, 0, "PING"));
    assert_int_equal(rec.err, STOA_E_REDIS_UNAVAILABLE);

    await(&env, &env.ups, 1);
    assert_true(stoa_redis_ready(env.rd));

    ask(&env, &rec, "SET k v\xff");
    assert_int_equal(rec.type, STOA_REDIS_STRING);
    assert_string_equal(rec.text, "OK");
    ask(&env, &rec, "GET k");
    assert_string_equal(rec.text, "v\xff");
    ask(&env, &rec, "GET none");
    assert_int_equal(rec.type, STOA_REDIS_NIL);
    ask(&env, &rec, "INCRBY n 41");
    assert_int_equal(rec.type, STOA_REDIS_INTEGER);
    assert_int_equal(rec.number, 41);
    ask(&env, &rec, "GET n"); /* a number as a string */
    assert_int_equal(rec.number, 41);
    ask(&env, &rec, "MGET k none n");
    assert_int_equal(rec.type, STOA_REDIS_ARRAY);
    assert_int_equal(rec.count, 3);
    ask(&env, &rec, "NONSENSE");
    assert_int_equal(rec.type, STOA_REDIS_ERROR);
    ask(&env, &rec, "ECHO "); /* an empty argument */
    assert_string_equal(rec.text, "");

    close_env(&env);
}


static void
redis_keeps_the_order_of_ten_thousand(void **state)
{
    int    i;
    env_t  env;
    char   words[32];
    rec_t *rec = calloc(10000, sizeof(rec_t));

    (void) state;
    assert_non_null(rec);
    open_env(&env, 10000);
    await(&env, &env.ups, 1);

    for (i = 0; i < 10000; i++) {
        (void) snprintf(words, sizeof(words), "ECHO %d", i);
        assert_non_null(send_z(&env, &rec[i], 0, words));
        assert_int_equal(rec[i].done, 0);
    }

    until(&env, 10000, 20000);

    for (i = 0; i < 10000; i++) {
        assert_int_equal(rec[i].done, 1);
        assert_int_equal(rec[i].order, i);
        assert_int_equal(rec[i].number, i);
    }

    close_env(&env);
    free(rec);
}


static void
redis_carries_large_values(void **state)
{
    env_t      env;
    rec_t      rec[2];
    size_t     len = 8 * 1024 * 1024;
    stoa_str_t argv[3];
    stoa_err_e err;

    (void) state;
    memset(rec, 0, sizeof(rec));
    open_env(&env, 10000);
    await(&env, &env.ups, 1);

    argv[0] = stoa_str_z("SET");
    argv[1] = stoa_str_z("big");
    argv[2].len = len;
    argv[2].data = malloc(len);
    assert_non_null(argv[2].data);
    memset(argv[2].data, 0, len);
    rec[0].env = &env;

    assert_non_null(
        stoa_redis_command(env.rd, 3, argv, 0, on_done, &rec[0], &err));
    free(argv[2].data); /* it was copied */
    until(&env, 1, 10000);
    assert_string_equal(rec[0].text, "OK");

    ask(&env, &rec[1], "STRLEN big");
    assert_int_equal(rec[1].number, len);
    ask(&env, &rec[1], "DEL big");

    close_env(&env);
}


static void
redis_sends_from_inside_done(void **state)
{
    env_t env;
    rec_t rec;

    (void) state;
    open_env(&env, 0);
    await(&env, &env.ups, 1);

    memset(&rec, 0, sizeof(rec));
    rec.again = true;
    assert_non_null(send_z(&env, &rec, 0, "PING"));
    until(&env, 2, 5000);
    assert_int_equal(rec.done, 2);
    assert_string_equal(rec.text, "again");

    close_env(&env);
}


static void
redis_cancel_silences(void **state)
{
    env_t            env;
    rec_t            rec[4];
    stoa_redis_op_t *op;
    stoa_err_e       err;
    stoa_str_t       ping = stoa_str_z("PING");

    (void) state;
    memset(rec, 0, sizeof(rec));
    open_env(&env, 0);
    await(&env, &env.ups, 1);

    op = send_z(&env, &rec[0], 0, "ECHO canceled");
    assert_non_null(op);
    stoa_redis_cancel(op);

    /* and from inside the done() of the one before */
    assert_non_null(send_z(&env, &rec[1], 0, "ECHO first"));
    rec[1].cancel = send_z(&env, &rec[2], 0, "ECHO second");

    /* fire and forget */
    assert_non_null(stoa_redis_command(env.rd, 1, &ping, 0, NULL, NULL, &err));

    assert_non_null(send_z(&env, &rec[3], 0, "ECHO last"));
    until(&env, 2, 5000);
    assert_int_equal(rec[0].done, 0);
    assert_string_equal(rec[1].text, "first");
    assert_int_equal(rec[2].done, 0);
    assert_string_equal(rec[3].text, "last");

    close_env(&env);
}


static void
redis_deadline_answers_and_keeps_the_order(void **state)
{
    env_t env;
    rec_t rec[3];

    (void) state;
    memset(rec, 0, sizeof(rec));
    open_env(&env, 3000);
    await(&env, &env.ups, 1);

    /* blocks the connection for a second */
    assert_non_null(send_z(&env, &rec[0], 2500, "BLPOP none 1"));
    assert_non_null(send_z(&env, &rec[1], 100, "ECHO late"));
    assert_non_null(send_z(&env, &rec[2], 0, "ECHO patient"));

    until(&env, 1, 900);
    assert_int_equal(rec[1].err, STOA_E_TIMEOUT);
    assert_int_equal(rec[0].done, 0);

    until(&env, 3, 3000);
    assert_int_equal(rec[0].err, STOA_OK);
    assert_int_equal(rec[0].type, STOA_REDIS_NIL);
    assert_int_equal(rec[1].done, 1); /* its reply is dropped */
    assert_string_equal(rec[2].text, "patient");
    assert_int_equal(env.downs, 0);

    close_env(&env);
}


/* ---- scripts ---- */

static void
redis_runs_scripts_that_the_server_forgot(void **state)
{
    env_t               env;
    rec_t               rec[4];
    stoa_err_e          err;
    stoa_str_t          argv[3];
    stoa_redis_script_t scripts[2] = {
        { .name = "add",
          .lua = "return redis.call('incrby', KEYS[1], ARGV[1])" },
        { .name = "fails", .lua = "return redis.error_reply('NOPE it fails')" },
    };

    (void) state;
    memset(rec, 0, sizeof(rec));
    open_env(&env, 0);
    stoa_redis_scripts(env.rd, scripts, 2);
    await(&env, &env.ups, 1);

    argv[0] = stoa_str_z("sum");
    argv[1] = stoa_str_z("5");
    rec[0].env = rec[1].env = rec[2].env = rec[3].env = &env;

    /* also before the answer to SCRIPT LOAD is there */
    assert_non_null(stoa_redis_eval(env.rd, &scripts[0], 1, 2, argv, 0, on_done,
                                    &rec[0], &err));
    until(&env, 1, 5000);
    assert_int_equal(rec[0].number, 5);
    assert_int_equal(strlen(scripts[0].sha), 40);

    assert_non_null(stoa_redis_eval(env.rd, &scripts[0], 1, 2, argv, 0, on_done,
                                    &rec[1], &err));
    until(&env, 2, 5000);
    assert_int_equal(rec[1].number, 10);

    ask(&env, &rec[3], "SCRIPT FLUSH");
    assert_non_null(stoa_redis_eval(env.rd, &scripts[0], 1, 2, argv, 0, on_done,
                                    &rec[2], &err));
    until(&env, 4, 5000);
    assert_int_equal(rec[2].type, STOA_REDIS_INTEGER);
    assert_int_equal(rec[2].number, 15); /* once, not twice */
    assert_int_equal(rec[2].done, 1);

    memset(&rec[3], 0, sizeof(rec_t));
    rec[3].env = &env;
    assert_non_null(stoa_redis_eval(env.rd, &scripts[1], 0, 0, NULL, 0, on_done,
                                    &rec[3], &err));
    until(&env, 5, 5000);
    assert_int_equal(rec[3].type, STOA_REDIS_ERROR);
    assert_string_equal(rec[3].text, "NOPE it fails");

    ask(&env, &rec[3], "DEL sum");
    close_env(&env);
}


/* ---- a server that fails ---- */

static void
redis_server_dies_and_comes_back(void **state)
{
    int        i, refused = 0;
    env_t      env;
    rec_t      rec[20], probe;
    stoa_err_e err;
    stoa_str_t argv[2];

    stoa_redis_script_t script = { .name = "one", .lua = "return 1" };

    (void) state;
    memset(rec, 0, sizeof(rec));
    open_env(&env, 5000);
    stoa_redis_scripts(env.rd, &script, 1);
    await(&env, &env.ups, 1);

    for (i = 0; i < 20; i++) {
        assert_non_null(send_z(&env, &rec[i], 0, "BLPOP none 5"));
    }

    turns(&env, 50);
    unit_redis_stop(&server);
    until(&env, 20, 2000);

    for (i = 0; i < 20; i++) {
        assert_int_equal(rec[i].done, 1);
        assert_int_equal(rec[i].err, STOA_E_REDIS_UNAVAILABLE);
        assert_int_equal(rec[i].order, i);
    }

    assert_int_equal(env.downs, 1);
    assert_false(stoa_redis_ready(env.rd));

    for (i = 0; i < 5; i++) {
        memset(&probe, 0, sizeof(probe));
        refused += send_z(&env, &probe, 0, "PING") == NULL;
        turns(&env, 100);
    }

    assert_int_equal(refused, 5);

    unit_redis_start(&server);
    await(&env, &env.ups, 2);
    ask(&env, &probe, "PING");

    /* a new server knows no script */
    memset(&probe, 0, sizeof(probe));
    probe.env = &env;
    memset(argv, 0, sizeof(argv));
    assert_non_null(
        stoa_redis_eval(env.rd, &script, 0, 0, argv, 0, on_done, &probe, &err));
    until(&env, env.answered + 1, 2000);
    assert_int_equal(probe.number, 1);

    close_env(&env);
}


static void
redis_leaves_a_frozen_server(void **state)
{
    env_t env;
    rec_t rec[2], probe;

    (void) state;
    memset(rec, 0, sizeof(rec));
    open_env(&env, 400);
    await(&env, &env.ups, 1);

    assert_int_equal(kill(server.pid, SIGSTOP), 0);
    assert_non_null(send_z(&env, &rec[0], 100, "ECHO a"));
    assert_non_null(send_z(&env, &rec[1], 0, "ECHO b"));
    until(&env, 2, 2000);
    assert_int_equal(rec[0].err, STOA_E_TIMEOUT);
    assert_true(rec[1].err == STOA_E_TIMEOUT
                || rec[1].err == STOA_E_REDIS_UNAVAILABLE);
    await(&env, &env.downs, 1);

    /* it accepts, but says nothing: not up */
    turns(&env, 300);
    assert_false(stoa_redis_ready(env.rd));

    assert_int_equal(kill(server.pid, SIGCONT), 0);
    await(&env, &env.ups, 2);
    ask(&env, &probe, "PING");

    close_env(&env);
}


static void
redis_kept_out_by_the_server(void **state)
{
    env_t             env, other;
    rec_t             rec;
    stoa_redis_conf_t conf = { 0 };

    (void) state;
    open_env(&env, 0);
    await(&env, &env.ups, 1);
    ask(&env, &rec, "CONFIG SET requirepass secret");
    ask(&env, &rec, "CLIENT KILL TYPE normal SKIPME yes");

    memset(&other, 0, sizeof(other));
    other.loop = env.loop;
    conf.unix_path = server.sock;
    conf.password = "wrong";
    other.rd = stoa_redis_create(env.loop, &conf);
    assert_non_null(other.rd);
    stoa_redis_on_state(other.rd, on_state, &other);
    turns(&env, 300);
    assert_int_equal(other.ups, 0);
    stoa_redis_destroy(other.rd);

    conf.password = "secret";
    conf.user = "default";
    conf.db = 3;
    other.rd = stoa_redis_create(env.loop, &conf);
    assert_non_null(other.rd);
    stoa_redis_on_state(other.rd, on_state, &other);
    await(&other, &other.ups, 1);
    ask(&other, &rec, "CLIENT INFO");
    assert_non_null(strstr(rec.text, "id="));
    ask(&other, &rec, "CONFIG SET requirepass ");
    stoa_redis_destroy(other.rd);

    close_env(&env);
}


static void
redis_refuses_names_and_survives_bad_servers(void **state)
{
    int                fd, port, i;
    char               junk[256];
    env_t              env;
    socklen_t          len;
    stoa_redis_conf_t  conf = { 0 };
    struct sockaddr_in sa = { .sin_family = AF_INET };

    (void) state;
    memset(&env, 0, sizeof(env));
    env.loop = stoa_loop_poll_create(unit_log());
    assert_non_null(env.loop);

    conf.addr = "localhost";
    conf.port = 1;
    assert_null(stoa_redis_create(env.loop, &conf));

    /* something that is not Redis */

    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    len = sizeof(sa);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_true(fd != -1);
    assert_int_equal(bind(fd, (struct sockaddr *) &sa, sizeof(sa)), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *) &sa, &len), 0);

    conf.addr = "127.0.0.1";
    conf.port = ntohs(sa.sin_port);
    conf.connect_timeout_ms = 100;
    env.rd = stoa_redis_create(env.loop, &conf);
    assert_non_null(env.rd);

    memset(junk, '!', sizeof(junk));

    for (i = 0; i < 40; i++) {
        turns(&env, 10);
        port = accept(fd, NULL, NULL);

        if (port != -1) {
            /* half of them get nonsense, half nothing */
            if (i % 2 == 0) {
                assert_true(write(port, junk, sizeof(junk)) > 0);
            }

            turns(&env, 20);
            (void) close(port);
        }
    }

    assert_false(stoa_redis_ready(env.rd));
    (void) close(fd);
    stoa_redis_destroy(env.rd);
    stoa_loop_poll_destroy(env.loop);
}


static void
redis_destroy_ends_what_is_in_flight(void **state)
{
    env_t env;
    rec_t rec[2];

    (void) state;
    memset(rec, 0, sizeof(rec));
    open_env(&env, 5000);
    await(&env, &env.ups, 1);
    assert_non_null(send_z(&env, &rec[0], 0, "BLPOP none 5"));
    turns(&env, 20);
    assert_non_null(send_z(&env, &rec[1], 0, "ECHO unsent"));
    close_env(&env);
    assert_int_equal(rec[0].done, 1);
    assert_int_equal(rec[0].err, STOA_E_REDIS_UNAVAILABLE);
    assert_int_equal(rec[1].done, 1);
    assert_int_equal(rec[1].err, STOA_E_REDIS_UNAVAILABLE);
}


/* ---- subscriber ---- */

static void
open_sub(env_t *env)
{
    stoa_redis_conf_t conf = { 0 };

    conf.unix_path = server.sock;
    env->sub = stoa_redis_sub_create(env->loop, &conf, on_message, on_sub_state,
                                     env);
    assert_non_null(env->sub);
}


static void
redis_subscriber_hears_each_channel(void **state)
{
    env_t env;
    rec_t rec;

    (void) state;
    open_env(&env, 0);
    open_sub(&env);
    assert_int_equal(stoa_redis_sub_add(env.sub, stoa_str_z("a")), STOA_OK);
    assert_int_equal(stoa_redis_sub_add(env.sub, stoa_str_z("b")), STOA_OK);
    assert_int_equal(stoa_redis_sub_add(env.sub, stoa_str_z("a")), STOA_OK);
    await(&env, &env.ups, 1);
    await(&env, &env.sub_ups, 1);

    ask(&env, &rec, "PUBLISH a one");
    assert_int_equal(rec.number, 1);
    await(&env, &env.messages, 1);
    assert_string_equal(env.last, "a=one");

    /* added while it is up */
    assert_int_equal(stoa_redis_sub_add(env.sub, stoa_str_z("c")), STOA_OK);
    turns(&env, 50);
    ask(&env, &rec, "PUBLISH c two");
    assert_int_equal(rec.number, 1);
    await(&env, &env.messages, 2);
    assert_string_equal(env.last, "c=two");
    ask(&env, &rec, "PUBLISH d three");
    assert_int_equal(rec.number, 0);

    close_env(&env);
}


static void
redis_subscriber_comes_back(void **state)
{
    env_t env;
    rec_t rec;

    (void) state;
    open_env(&env, 0);
    open_sub(&env);
    assert_int_equal(stoa_redis_sub_add(env.sub, stoa_str_z("a")), STOA_OK);
    await(&env, &env.ups, 1);
    await(&env, &env.sub_ups, 1);

    /* only its connection */
    ask(&env, &rec, "CLIENT KILL TYPE pubsub");
    await(&env, &env.sub_downs, 1);
    await(&env, &env.sub_ups, 2);
    ask(&env, &rec, "PUBLISH a again");
    await(&env, &env.messages, 1);
    assert_string_equal(env.last, "a=again");

    /* the server */
    unit_redis_stop(&server);
    await(&env, &env.sub_downs, 2);
    await(&env, &env.downs, 1);

    /* while it is away */
    assert_int_equal(stoa_redis_sub_add(env.sub, stoa_str_z("late")), STOA_OK);
    turns(&env, 200);
    unit_redis_start(&server);
    await(&env, &env.ups, 2);
    await(&env, &env.sub_ups, 3);
    ask(&env, &rec, "PUBLISH late x");
    assert_int_equal(rec.number, 1);
    await(&env, &env.messages, 2);
    assert_string_equal(env.last, "late=x");

    close_env(&env);
}


static void
redis_subscriber_without_channels_is_up(void **state)
{
    env_t env;

    (void) state;
    open_env(&env, 0);
    open_sub(&env);
    await(&env, &env.sub_ups, 1);

    /* the sign of life and its answer pass unnoticed */
    turns(&env, 5500);
    assert_int_equal(env.sub_downs, 0);
    assert_int_equal(env.messages, 0);

    close_env(&env);
}


/* ---- all of it at once ---- */

static void
redis_chaos(void **state)
{
    int        i, k, sent = 0, ok = 0;
    env_t      env;
    rec_t     *rec = calloc(20000, sizeof(rec_t));
    rec_t      probe;
    stoa_err_e err;
    stoa_str_t argv[2];

    stoa_redis_script_t script = {
        .name = "add", .lua = "return redis.call('incr', KEYS[1])"
    };

    (void) state;
    assert_non_null(rec);
    open_env(&env, 1000);
    stoa_redis_scripts(env.rd, &script, 1);
    open_sub(&env);
    assert_int_equal(stoa_redis_sub_add(env.sub, stoa_str_z("noise")), STOA_OK);
    await(&env, &env.ups, 1);
    argv[0] = stoa_str_z("chaos");

    for (i = 0; i < 200; i++) {
        for (k = 0; k < 100; k++) {
            rec[sent].env = &env;

            if (stoa_redis_eval(env.rd, &script, 1, 1, argv, 0, on_done,
                                &rec[sent], &err)
                != NULL)
            {
                sent++;
            }
        }

        if (i % 40 == 20) {
            memset(&probe, 0, sizeof(probe));
            (void) send_z(&env, &probe, 0, "SCRIPT FLUSH");
        }

        if (i % 20 == 10) {
            turns(&env, 1);
            unit_redis_stop(&server);
            unit_redis_start(&server);
        }

        turns(&env, 3);
    }

    turns(&env, 1500);

    for (i = 0; i < sent; i++) {
        assert_int_equal(rec[i].done, 1);
        ok += rec[i].err == STOA_OK && rec[i].type == STOA_REDIS_INTEGER;
    }

    assert_true(sent > 5000);
    assert_true(ok > 1000);
    close_env(&env);
    free(rec);
}


int
main(void)
{
    int                     rc;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(redis_answers_every_type),
        cmocka_unit_test(redis_keeps_the_order_of_ten_thousand),
        cmocka_unit_test(redis_carries_large_values),
        cmocka_unit_test(redis_sends_from_inside_done),
        cmocka_unit_test(redis_cancel_silences),
        cmocka_unit_test(redis_deadline_answers_and_keeps_the_order),
        cmocka_unit_test(redis_runs_scripts_that_the_server_forgot),
        cmocka_unit_test(redis_server_dies_and_comes_back),
        cmocka_unit_test(redis_leaves_a_frozen_server),
        cmocka_unit_test(redis_kept_out_by_the_server),
        cmocka_unit_test(redis_refuses_names_and_survives_bad_servers),
        cmocka_unit_test(redis_destroy_ends_what_is_in_flight),
        cmocka_unit_test(redis_subscriber_hears_each_channel),
        cmocka_unit_test(redis_subscriber_comes_back),
        cmocka_unit_test(redis_subscriber_without_channels_is_up),
        cmocka_unit_test(redis_chaos),
    };

    (void) signal(SIGPIPE, SIG_IGN);
    unit_redis_create(&server);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    company = true;
    rc += cmocka_run_group_tests(tests, NULL, NULL);
    unit_redis_destroy(&server);

    return rc;
}
