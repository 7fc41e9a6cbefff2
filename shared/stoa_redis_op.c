/*
 * Redis commands and scripts: operations in the order of their replies on
 * one link (stoa_redis_int.h).
 *
 * Operations come from a list of free ones and are reused.  An EVALSHA keeps
 * its arguments in the operation, so that NOSCRIPT can be answered with EVAL;
 * a plain command is formed in one buffer and forgotten.  One timer stands at
 * the soonest deadline while anything is in flight and keeps a retiring
 * process alive until then.
 */

#include "stoa_redis_int.h"

#include <stdio.h>
#include <stdlib.h>

#include "stoa_str.h"


#define STOA_REDIS_MAGIC    0x73726473u
#define STOA_REDIS_OP_MAGIC 0x73726f70u

#define STOA_REDIS_PENDING_MAX 65536
#define STOA_REDIS_KEEP_MAX    16384 /* bytes an idle operation may hold */
#define STOA_REDIS_SCRIPTS_MAX 8

struct stoa_redis_op_s {
    uint32_t                   magic;
    stoa_redis_op_t           *next;
    stoa_redis_t              *rd;
    stoa_redis_done_pt         done;
    void                      *data;
    uint64_t                   deadline;
    uint32_t                   timeout_ms;
    stoa_redis_script_t       *load;   /* this is its SCRIPT LOAD */
    const stoa_redis_script_t *script; /* this is its EVALSHA */
    int                        argc;   /* of script: bytes hold the rest */
    size_t                     len, size;
    char                      *bytes;
};

struct stoa_redis_s {
    uint32_t          magic;
    stoa_redis_link_t link;
    stoa_redis_op_t  *first, **tail; /* replies come in this order */
    size_t            pending;
    stoa_redis_op_t  *free;
    stoa_timer_t      timer; /* of what is in flight: not cancelable */
    uint64_t          timer_at;
    char             *bytes; /* of the command being made */
    size_t            len, size;
    void (*state)(void *data, bool up);
    void *state_data;
    struct {
        stoa_redis_script_t *scripts;
        size_t               n;
    } scripts[STOA_REDIS_SCRIPTS_MAX];
    size_t nscripts;
};


/* ---- bytes of commands ---- */

static bool
stoa_redis_grow(char **bytes, size_t *size, size_t need)
{
    char  *p;
    size_t n = *size == 0 ? 256 : *size;

    if (need <= *size) {
        return true;
    }

    while (n < need) {
        n *= 2;
    }

    p = realloc(*bytes, n);
    if (p == NULL) {
        return false;
    }

    *bytes = p;
    *size = n;

    return true;
}


static size_t
stoa_redis_number(char *out, char kind, size_t n)
{
    char   digits[20];
    size_t i = 0, len = 0;

    do {
        digits[i++] = (char) ('0' + n % 10);
        n /= 10;
    } while (n != 0);

    out[len++] = kind;

    while (i > 0) {
        out[len++] = digits[--i];
    }

    out[len++] = '\r';
    out[len++] = '\n';

    return len;
}


size_t
stoa_redis_head(char *out, size_t argc)
{
    return stoa_redis_number(out, '*', argc);
}


size_t
stoa_redis_args(char *out, int argc, const stoa_str_t *argv)
{
    int    i;
    size_t len = 0;

    for (i = 0; i < argc; i++) {
        len += stoa_redis_number(out + len, '$', argv[i].len);

        if (argv[i].len != 0) {
            memcpy(out + len, argv[i].data, argv[i].len);
            len += argv[i].len;
        }

        out[len++] = '\r';
        out[len++] = '\n';
    }

    return len;
}


size_t
stoa_redis_args_size(int argc, const stoa_str_t *argv)
{
    int    i;
    size_t size = 0;

    for (i = 0; i < argc; i++) {
        size += argv[i].len + STOA_REDIS_HEAD;
    }

    return size;
}


/* ---- operations ---- */

static stoa_redis_op_t *
stoa_redis_op_create(stoa_redis_t *rd)
{
    stoa_redis_op_t *op = rd->free;

    if (op != NULL) {
        rd->free = op->next;

    } else {
        op = calloc(1, sizeof(stoa_redis_op_t));
        if (op == NULL) {
            return NULL;
        }

        op->magic = STOA_REDIS_OP_MAGIC;
        op->rd = rd;
    }

    op->next = NULL;
    op->done = NULL;
    op->data = NULL;
    op->deadline = 0;
    op->load = NULL;
    op->script = NULL;
    op->len = 0;

    return op;
}


static void
stoa_redis_op_free(stoa_redis_op_t *op)
{
    if (op->size > STOA_REDIS_KEEP_MAX) {
        free(op->bytes);
        op->bytes = NULL;
        op->size = 0;
    }

    op->done = NULL;
    op->next = op->rd->free;
    op->rd->free = op;
}


static void
stoa_redis_op_add(stoa_redis_t *rd, stoa_redis_op_t *op)
{
    op->next = NULL;
    *rd->tail = op;
    rd->tail = &op->next;
    rd->pending++;
}


static void
stoa_redis_op_end(stoa_redis_op_t *op, stoa_err_e err,
                  const stoa_redis_reply_t *reply)
{
    stoa_redis_done_pt done = op->done;

    if (done != NULL) {
        op->done = NULL;
        done(op, err, (const stoa_redis_reply_t *) reply, op->data);
    }

    stoa_redis_op_free(op);
}


static void
stoa_redis_arm(stoa_redis_t *rd, uint64_t at)
{
    uint64_t     now;
    stoa_loop_t *loop = rd->link.loop;

    if (rd->timer_at != 0 && rd->timer_at <= at) {
        return;
    }

    now = loop->now_ms(loop);
    rd->timer_at = at;
    loop->timer_set(loop, &rd->timer, at > now ? at - now : 1);
}


static void
stoa_redis_disarm(stoa_redis_t *rd)
{
    if (rd->timer_at != 0) {
        rd->timer_at = 0;
        rd->link.loop->timer_cancel(rd->link.loop, &rd->timer);
    }
}


static void
stoa_redis_deadlines(stoa_timer_t *t)
{
    uint32_t           most;
    uint64_t           now, next;
    stoa_redis_op_t   *op;
    stoa_redis_done_pt done;
    stoa_redis_t      *rd = stoa_cast(stoa_redis_t, STOA_REDIS_MAGIC, t->data);

    rd->timer_at = 0;

    if (rd->first == NULL) {
        return;
    }

    now = rd->link.loop->now_ms(rd->link.loop);

    /* a blocking command at the head may be silent for its time */

    most = rd->link.conf.command_timeout_ms;
    most = rd->first->timeout_ms > most ? rd->first->timeout_ms : most;
    next = rd->link.heard_at + most;

    if (next <= now) {
        stoa_redis_link_lost(&rd->link, "the server is silent");
        return;
    }

    /* done() may add commands at the end, nothing else */

    for (op = rd->first; op != NULL; op = op->next) {
        if (op->done == NULL || op->deadline > now) {
            if (op->done != NULL && op->deadline < next) {
                next = op->deadline;
            }

            continue;
        }

        done = op->done;
        op->done = NULL;
        done(op, STOA_E_TIMEOUT, NULL, op->data);
    }

    stoa_redis_arm(rd, next);
}


/* Appends rd->bytes to the link and awaits the reply. */
static stoa_err_e
stoa_redis_send(stoa_redis_t *rd, stoa_redis_op_t *op)
{
    stoa_loop_t *loop = rd->link.loop;

    if (!stoa_redis_link_append(&rd->link, rd->bytes, rd->len)) {
        return STOA_E_NO_MEMORY;
    }

    if (rd->first == NULL) {
        rd->link.heard_at = loop->now_ms(loop);
    }

    stoa_redis_op_add(rd, op);
    stoa_redis_arm(rd, op->deadline);

    return STOA_OK;
}


/* rd->bytes = "*argc" and the first arguments; false: no memory. */
static bool
stoa_redis_format(stoa_redis_t *rd, size_t total, int argc,
                  const stoa_str_t *argv, const char *rest, size_t rest_len)
{
    size_t need;

    need = STOA_REDIS_HEAD + stoa_redis_args_size(argc, argv) + rest_len;

    if (!stoa_redis_grow(&rd->bytes, &rd->size, need)) {
        return false;
    }

    rd->len = stoa_redis_head(rd->bytes, total);
    rd->len += stoa_redis_args(rd->bytes + rd->len, argc, argv);

    if (rest_len != 0) {
        memcpy(rd->bytes + rd->len, rest, rest_len);
        rd->len += rest_len;
    }

    return true;
}


static stoa_redis_op_t *
stoa_redis_op_open(stoa_redis_t *rd, uint32_t timeout_ms,
                   stoa_redis_done_pt done, void *data, stoa_err_e *err)
{
    stoa_redis_op_t *op;

    if (rd->link.state != STOA_REDIS_UP
        || rd->pending >= STOA_REDIS_PENDING_MAX) {
        *err = STOA_E_REDIS_UNAVAILABLE;
        return NULL;
    }

    op = stoa_redis_op_create(rd);
    if (op == NULL) {
        *err = STOA_E_NO_MEMORY;
        return NULL;
    }

    op->done = done;
    op->data = data;
    op->timeout_ms = timeout_ms != 0 ? timeout_ms
                                     : rd->link.conf.command_timeout_ms;
    op->deadline = rd->link.loop->now_ms(rd->link.loop) + op->timeout_ms;

    return op;
}


stoa_redis_op_t *
stoa_redis_command(stoa_redis_t *rd, int argc, const stoa_str_t *argv,
                   uint32_t timeout_ms, stoa_redis_done_pt done, void *data,
                   stoa_err_e *err)
{
    stoa_err_e       ignored = STOA_OK;
    stoa_redis_op_t *op;

    err = err == NULL ? &ignored : err;

    op = stoa_redis_op_open(rd, timeout_ms, done, data, err);
    if (op == NULL) {
        return NULL;
    }

    if (!stoa_redis_format(rd, (size_t) argc, argc, argv, NULL, 0)
        || stoa_redis_send(rd, op) != STOA_OK)
    {
        *err = STOA_E_NO_MEMORY;
        stoa_redis_op_free(op);
        return NULL;
    }

    return op;
}


/* EVALSHA, or EVAL when the sum is not known or the server lost it. */
static bool
stoa_redis_eval_send(stoa_redis_t *rd, stoa_redis_op_t *op, bool by_sha)
{
    stoa_str_t argv[2];

    argv[0] = stoa_str_z(by_sha ? "EVALSHA" : "EVAL");
    argv[1] = stoa_str_z(by_sha ? op->script->sha : op->script->lua);

    if (!by_sha) {
        op->script = NULL; /* no second fallback */
    }

    return stoa_redis_format(rd, (size_t) op->argc, 2, argv, op->bytes, op->len)
        && stoa_redis_send(rd, op) == STOA_OK;
}


stoa_redis_op_t *
stoa_redis_eval(stoa_redis_t *rd, const stoa_redis_script_t *script, int nkeys,
                int argc, const stoa_str_t *argv, uint32_t timeout_ms,
                stoa_redis_done_pt done, void *data, stoa_err_e *err)
{
    char             text[12];
    stoa_str_t       count;
    stoa_err_e       ignored = STOA_OK;
    stoa_redis_op_t *op;

    err = err == NULL ? &ignored : err;

    op = stoa_redis_op_open(rd, timeout_ms, done, data, err);
    if (op == NULL) {
        return NULL;
    }

    (void) snprintf(text, sizeof(text), "%d", nkeys);
    count = stoa_str_z(text);

    op->script = script;
    op->argc = argc + 3;

    if (!stoa_redis_grow(&op->bytes, &op->size,
                         stoa_redis_args_size(1, &count)
                             + stoa_redis_args_size(argc, argv)))
    {
        *err = STOA_E_NO_MEMORY;
        stoa_redis_op_free(op);
        return NULL;
    }

    op->len = stoa_redis_args(op->bytes, 1, &count);
    op->len += stoa_redis_args(op->bytes + op->len, argc, argv);

    if (!stoa_redis_eval_send(rd, op, script->sha[0] != '\0')) {
        *err = STOA_E_NO_MEMORY;
        stoa_redis_op_free(op);
        return NULL;
    }

    return op;
}


void
stoa_redis_cancel(stoa_redis_op_t *op)
{
    op = stoa_cast(stoa_redis_op_t, STOA_REDIS_OP_MAGIC, op);
    op->done = NULL;
}


/* ---- scripts ---- */

static bool
stoa_redis_load(stoa_redis_t *rd, stoa_redis_script_t *script)
{
    stoa_redis_op_t *op;
    stoa_str_t       argv[3] = { stoa_string("SCRIPT"), stoa_string("LOAD"),
                                 stoa_null_string };

    argv[2] = stoa_str_z(script->lua);

    op = stoa_redis_op_create(rd);
    if (op == NULL) {
        return false;
    }

    op->load = script;
    op->timeout_ms = rd->link.conf.command_timeout_ms;
    op->deadline = rd->link.loop->now_ms(rd->link.loop) + op->timeout_ms;

    if (!stoa_redis_format(rd, 3, 3, argv, NULL, 0)
        || stoa_redis_send(rd, op) != STOA_OK)
    {
        stoa_redis_op_free(op);
        return false;
    }

    return true;
}


static void
stoa_redis_loaded(stoa_redis_t *rd, stoa_redis_script_t *script,
                  const stoa_redis_reply_t *reply)
{
    stoa_str_t text = stoa_redis_str(reply);

    if (stoa_redis_type(reply) == STOA_REDIS_STRING && text.len == 40) {
        memcpy(script->sha, text.data, 40);
        script->sha[40] = '\0';
        return;
    }

    stoa_log(rd->link.loop->log, STOA_LOG_ALERT,
             "redis: script \"%s\" was not loaded: %.*s", script->name,
             (int) text.len, text.data == NULL ? "" : (char *) text.data);
}


static void
stoa_redis_load_all(stoa_redis_t *rd, size_t i)
{
    size_t k;

    for (/* void */; i < rd->nscripts; i++) {
        for (k = 0; k < rd->scripts[i].n; k++) {
            if (!stoa_redis_load(rd, &rd->scripts[i].scripts[k])) {
                return; /* EVAL will do */
            }
        }
    }
}


void
stoa_redis_scripts(stoa_redis_t *rd, stoa_redis_script_t *scripts, size_t n)
{
    if (rd->nscripts == STOA_REDIS_SCRIPTS_MAX) {
        stoa_bug("redis: too many lists of scripts");
        return;
    }

    rd->scripts[rd->nscripts].scripts = scripts;
    rd->scripts[rd->nscripts].n = n;
    rd->nscripts++;

    if (rd->link.state == STOA_REDIS_UP) {
        stoa_redis_load_all(rd, rd->nscripts - 1);
    }
}


/* ---- rd: the owner of a link ---- */

static void
stoa_redis_up(void *owner)
{
    stoa_redis_t *rd = stoa_cast(stoa_redis_t, STOA_REDIS_MAGIC, owner);

    stoa_log(rd->link.loop->log, STOA_LOG_NOTICE, "redis: connection is up");
    stoa_redis_load_all(rd, 0);

    if (rd->state != NULL) {
        rd->state(rd->state_data, true);
    }
}


static bool
stoa_redis_says(const stoa_redis_reply_t *reply, const char *word)
{
    stoa_str_t text = stoa_redis_str(reply);

    return text.len >= strlen(word)
        && memcmp(text.data, word, strlen(word)) == 0;
}


static void
stoa_redis_reply(void *owner, const stoa_redis_reply_t *reply)
{
    stoa_redis_t    *rd = stoa_cast(stoa_redis_t, STOA_REDIS_MAGIC, owner);
    stoa_redis_op_t *op = rd->first;

    if (op == NULL) {
        stoa_redis_link_lost(&rd->link, "a reply that nobody asked for");
        return;
    }

    rd->first = op->next;
    rd->pending--;

    if (rd->first == NULL) {
        rd->tail = &rd->first;
        stoa_redis_disarm(rd);
    }

    if (op->load != NULL) {
        stoa_redis_loaded(rd, op->load, reply);

    } else if (op->script != NULL && op->done != NULL
               && stoa_redis_type(reply) == STOA_REDIS_ERROR
               && stoa_redis_says(reply, "NOSCRIPT")
               && stoa_redis_eval_send(rd, op, false))
    {
        return;
    }

    stoa_redis_op_end(op, STOA_OK, reply);
}


/* Ends everything in flight. */
static void
stoa_redis_fail(stoa_redis_t *rd)
{
    stoa_redis_op_t *op, *first = rd->first;

    rd->first = NULL;
    rd->tail = &rd->first;
    rd->pending = 0;
    stoa_redis_disarm(rd);

    while ((op = first) != NULL) {
        first = op->next;
        stoa_redis_op_end(op, STOA_E_REDIS_UNAVAILABLE, NULL);
    }
}


static void
stoa_redis_down(void *owner)
{
    stoa_redis_t *rd = stoa_cast(stoa_redis_t, STOA_REDIS_MAGIC, owner);

    stoa_redis_fail(rd);

    if (rd->state != NULL) {
        rd->state(rd->state_data, false);
    }
}


stoa_redis_t *
stoa_redis_create(stoa_loop_t *loop, const stoa_redis_conf_t *conf)
{
    stoa_redis_t *rd;

    rd = calloc(1, sizeof(stoa_redis_t));
    if (rd == NULL) {
        return NULL;
    }

    if (!stoa_redis_link_create(&rd->link, loop, conf, rd)) {
        free(rd);
        return NULL;
    }

    rd->magic = STOA_REDIS_MAGIC;
    rd->tail = &rd->first;
    rd->timer.fire = stoa_redis_deadlines;
    rd->timer.data = rd;
    rd->link.up = stoa_redis_up;
    rd->link.reply = stoa_redis_reply;
    rd->link.down = stoa_redis_down;

    stoa_redis_link_connect(&rd->link);

    return rd;
}


void
stoa_redis_destroy(stoa_redis_t *rd)
{
    stoa_redis_op_t *op;

    if (rd == NULL) {
        return;
    }

    rd->state = NULL;
    stoa_redis_link_destroy(&rd->link);
    stoa_redis_fail(rd);
    rd->link.loop->timer_close(rd->link.loop, &rd->timer);

    while ((op = rd->free) != NULL) {
        rd->free = op->next;
        op->magic = 0;
        free(op->bytes);
        free(op);
    }

    rd->magic = 0;
    free(rd->bytes);
    free(rd);
}


bool
stoa_redis_ready(const stoa_redis_t *rd)
{
    return rd->link.state == STOA_REDIS_UP;
}


void
stoa_redis_on_state(stoa_redis_t *rd, void (*fn)(void *data, bool up),
                    void         *data)
{
    rd->state = fn;
    rd->state_data = data;
}
