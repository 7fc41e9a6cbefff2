/*
 * Redis for commands: one connection on the poll(2) loop, driven until the
 * one answer that was asked for has come.
 */

#include "cmd.h"

#include <stdio.h>
#include <stdlib.h>

#include "worker_lua.h"

#include "../shared/stoa_str.h"

#define CONNECT_MS 3000
#define ANSWER_MS  5000
#define STEP_MS    20

struct cmd_redis_s {
    cmd_t              *c;
    stoa_loop_t        *loop;
    stoa_redis_t       *rd;
    stoa_redis_script_t scripts[WORKER_LUA_COUNT];
    bool                stop;
    bool                ok;
    void (*done)(const stoa_redis_reply_t *reply, void *data);
    void *data;
};


static void
cmd_redis_done(stoa_redis_op_t *op, stoa_err_e err,
               const stoa_redis_reply_t *reply, void *data)
{
    cmd_redis_t *r = data;
    stoa_str_t   text;

    r->stop = true;

    if (err != STOA_OK) {
        cmd_say(r->c, "Redis gave no answer");
        return;
    }

    if (stoa_redis_type(reply) == STOA_REDIS_ERROR) {
        text = stoa_redis_str(reply);
        cmd_say(r->c, "Redis refuses: %.*s", (int) text.len,
                (const char *) text.data);
        return;
    }

    r->ok = true;

    if (r->done != NULL) {
        r->done(reply, r->data);
    }
}


static bool
cmd_redis_wait(cmd_redis_t *r, const stoa_redis_op_t *op)
{
    if (op == NULL) {
        cmd_say(r->c, "Redis cannot be reached any more");
        return false;
    }

    if (!stoa_loop_poll_run(r->loop, &r->stop, ANSWER_MS)) {
        cmd_say(r->c, "Redis gave no answer in time");
        return false;
    }

    return r->ok;
}


bool
cmd_redis_command(cmd_redis_t *r, int argc, const stoa_str_t *argv,
                  void (*done)(const stoa_redis_reply_t *reply, void *data),
                  void *data)
{
    stoa_err_e err;

    r->stop = false;
    r->ok = false;
    r->done = done;
    r->data = data;
    return cmd_redis_wait(r, stoa_redis_command(r->rd, argc, argv, 0,
                                                cmd_redis_done, r, &err));
}


bool
cmd_redis_eval(cmd_redis_t *r, int script, int argc, const stoa_str_t *argv,
               void (*done)(const stoa_redis_reply_t *reply, void *data),
               void *data)
{
    stoa_err_e err;

    r->stop = false;
    r->ok = false;
    r->done = done;
    r->data = data;
    return cmd_redis_wait(r,
                          stoa_redis_eval(r->rd, &r->scripts[script], 1, argc,
                                          argv, 0, cmd_redis_done, r, &err));
}


cmd_redis_t *
cmd_redis_open(cmd_t *c)
{
    cmd_redis_t      *r = calloc(1, sizeof(cmd_redis_t));
    stoa_redis_conf_t rc = { 0 };
    bool              never = false;
    char              port[16] = "";

    if (r == NULL) {
        cmd_say(c, "no memory");
        return NULL;
    }

    r->c = c;

    if (c->conf.redis_host[0] == '/') {
        rc.unix_path = c->conf.redis_host;
    } else {
        rc.addr = c->conf.redis_host;
    }

    rc.port = (int) c->conf.redis_port;
    rc.db = (int) c->conf.redis_db;
    rc.user = c->conf.redis_user[0] != '\0' ? c->conf.redis_user : NULL;
    rc.password = c->conf.redis_password[0] != '\0' ? c->conf.redis_password
                                                    : NULL;
    r->loop = stoa_loop_poll_create(&c->log);
    r->rd = r->loop != NULL ? stoa_redis_create(r->loop, &rc) : NULL;

    if (r->rd == NULL) {
        cmd_say(c, "no memory");
        cmd_redis_close(r);
        return NULL;
    }

    worker_lua_copy(r->scripts);
    stoa_redis_scripts(r->rd, r->scripts, WORKER_LUA_COUNT);

    for (int ms = 0; ms < CONNECT_MS && !stoa_redis_ready(r->rd); ms += STEP_MS)
    {
        /* nothing sets never: it runs for as long as it may */
        (void) stoa_loop_poll_run(r->loop, &never, STEP_MS);
    }

    if (!stoa_redis_ready(r->rd)) {
        if (rc.unix_path == NULL) {
            (void) snprintf(port, sizeof(port), ":%d", rc.port);
        }

        cmd_say(c, "cannot reach Redis at %s%s: %s", c->conf.redis_host, port,
                c->last[0] != '\0' ? c->last : "no answer");
        cmd_redis_close(r);
        return NULL;
    }

    return r;
}


void
cmd_redis_close(cmd_redis_t *r)
{
    if (r->rd != NULL) {
        stoa_redis_destroy(r->rd);
    }

    if (r->loop != NULL) {
        stoa_loop_poll_destroy(r->loop);
    }

    free(r);
}
