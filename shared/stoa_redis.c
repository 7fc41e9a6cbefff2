/*
 * The Redis door: one hiredis connection on a stoa_loop_t, and the accessors
 * of replies.  Commands are in stoa_redis_op.c, subscriptions in
 * stoa_redis_sub.c.
 *
 * The asynchronous half of hiredis is not used: its callbacks run with NULL
 * replies while the context dies, frees happen behind the caller's back, and
 * a subscribed context cannot be asked for a sign of life.  What remains, the
 * non-blocking redisContext with its buffers, is the same in 0.14 and 1.x.
 *
 * What a loop turn appends leaves in one write at its end (loop->defer).
 * No call here blocks: addresses need no resolving.
 */

#include "stoa_redis_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <hiredis/hiredis.h>

#include "stoa_str.h"


#define STOA_REDIS_TIMEOUT     2000
#define STOA_REDIS_BACKOFF_MIN 50
#define STOA_REDIS_BACKOFF_MAX 2000
#define STOA_REDIS_COMPANY     16 /* commands that wait for no more */

static void stoa_redis_link_event(stoa_watch_t *w, bool rd, bool wr);


/* ---- link ---- */

static void
stoa_redis_link_wake(stoa_redis_link_t *ln)
{
    ln->loop->defer(ln->loop, &ln->flush);
}


static bool
stoa_redis_link_watch(stoa_redis_link_t *ln)
{
    ln->watch.ready = stoa_redis_link_event;
    ln->watch.data = ln;

    if (ln->loop->watch_open(ln->loop, &ln->watch, ln->c->fd) != STOA_OK) {
        return false;
    }

    ln->wants_write = true;
    ln->loop->watch_want(ln->loop, &ln->watch, false, true);

    return true;
}


static uint32_t
stoa_redis_link_backoff(stoa_redis_link_t *ln)
{
    uint32_t ms = STOA_REDIS_BACKOFF_MAX;

    if (ln->fails < 7
        && (uint32_t) STOA_REDIS_BACKOFF_MIN << (ln->fails - 1) < ms) {
        ms = (uint32_t) STOA_REDIS_BACKOFF_MIN << (ln->fails - 1);
    }

    ln->seed ^= ln->seed << 13;
    ln->seed ^= ln->seed >> 7;
    ln->seed ^= ln->seed << 17;

    return ms / 2 + (uint32_t) (ln->seed % (ms / 2 + 1));
}


static void
stoa_redis_link_close(stoa_redis_link_t *ln)
{
    ln->loop->watch_close(ln->loop, &ln->watch, true);
    ln->wants_write = false;

    if (ln->c != NULL) {
        redisFree(ln->c);
        ln->c = NULL;
    }

    ln->state = STOA_REDIS_DOWN;
    ln->hello = 0;
    ln->held = 0;
    ln->sent = 0;
}


void
stoa_redis_link_lost(stoa_redis_link_t *ln, const char *why)
{
    stoa_redis_state_e was = ln->state;

    if (was == STOA_REDIS_UP) {
        stoa_log(ln->loop->log, STOA_LOG_WARN, "redis: connection lost: %s",
                 why);

    } else if (ln->fails % 10 == 0) {
        stoa_log(ln->loop->log, STOA_LOG_ERROR, "redis: connect failed: %s",
                 why);
    }

    stoa_redis_link_close(ln);

    ln->fails++;
    ln->loop->timer_set(ln->loop, &ln->retry, stoa_redis_link_backoff(ln));

    ln->down(ln->owner);
}


void
stoa_redis_link_connect(stoa_redis_link_t *ln)
{
    ln->state = STOA_REDIS_CONNECTING;
    ln->loop->timer_set(ln->loop, &ln->retry, ln->conf.connect_timeout_ms);

    if (ln->conf.unix_path != NULL) {
        ln->c = redisConnectUnixNonBlock(ln->conf.unix_path);
    } else {
        ln->c = redisConnectNonBlock(ln->conf.addr, ln->conf.port);
    }

    if (ln->c == NULL) {
        stoa_redis_link_lost(ln, "no memory");

    } else if (ln->c->err != 0) {
        stoa_redis_link_lost(ln, ln->c->errstr);

    } else if (!stoa_redis_link_watch(ln)) {
        stoa_redis_link_lost(ln, "cannot watch the socket");
    }
}


static void
stoa_redis_link_retry(stoa_timer_t *t)
{
    stoa_redis_link_t *ln = t->data;

    switch (ln->state) {

    case STOA_REDIS_DOWN:
        stoa_redis_link_connect(ln);
        break;

    case STOA_REDIS_CONNECTING:
    case STOA_REDIS_HELLO:
        stoa_redis_link_lost(ln, "connecting took too long");
        break;

    case STOA_REDIS_UP:
        break;
    }
}


/* Appends a command of C strings; the answer counts as part of the hello. */
static bool
stoa_redis_link_say(stoa_redis_link_t *ln, int argc, const char **argv)
{
    return redisAppendCommandArgv(ln->c, argc, argv, NULL) == REDIS_OK;
}


static void
stoa_redis_link_greet(stoa_redis_link_t *ln)
{
    char        db[12];
    const char *auth[3] = { "AUTH", ln->conf.user, ln->conf.password };
    const char *old_auth[2] = { "AUTH", ln->conf.password };
    const char *sel[2] = { "SELECT", db };
    const char *ping[1] = { "PING" };
    bool        ok = true;

    ln->state = STOA_REDIS_HELLO;

    if (ln->conf.password != NULL) {
        ln->hello++;
        ok = ln->conf.user != NULL ? stoa_redis_link_say(ln, 3, auth)
                                   : stoa_redis_link_say(ln, 2, old_auth);
    }

    if (ok && ln->conf.db != 0) {
        (void) snprintf(db, sizeof(db), "%d", ln->conf.db);
        ln->hello++;
        ok = stoa_redis_link_say(ln, 2, sel);
    }

    if (ok) {
        /* refused while the server still loads its data */
        ln->hello++;
        ok = stoa_redis_link_say(ln, 1, ping);
    }

    if (!ok) {
        stoa_redis_link_lost(ln, "no memory");
        return;
    }

    stoa_redis_link_wake(ln);
}


bool
stoa_redis_link_append(stoa_redis_link_t *ln, const char *bytes, size_t len)
{
    if (redisAppendFormattedCommand(ln->c, bytes, len) != REDIS_OK) {
        return false;
    }

    ln->held++;
    stoa_redis_link_wake(ln);

    return true;
}


static bool
stoa_redis_link_connected(stoa_redis_link_t *ln)
{
    int       error = 0, on = 1, idle = 15, interval = 5, count = 3;
    socklen_t len = sizeof(error);

    if (getsockopt(ln->c->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0
        || error != 0)
    {
        errno = error != 0 ? error : errno;
        return false;
    }

    if (ln->conf.unix_path != NULL) {
        return true;
    }

    return setsockopt(ln->c->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) == 0
        && setsockopt(ln->c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0
        && setsockopt(ln->c->fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle))
               == 0
        && setsockopt(ln->c->fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval,
                      sizeof(interval))
               == 0
        && setsockopt(ln->c->fd, IPPROTO_TCP, TCP_KEEPCNT, &count,
                      sizeof(count))
               == 0;
}


/* An answer to the hello; false: the link was lost. */
static bool
stoa_redis_link_hello(stoa_redis_link_t *ln, const redisReply *reply)
{
    if (reply->type == REDIS_REPLY_ERROR) {
        stoa_redis_link_lost(ln, reply->str);
        return false;
    }

    if (--ln->hello == 0) {
        ln->loop->timer_cancel(ln->loop, &ln->retry);
        ln->state = STOA_REDIS_UP;
        ln->fails = 0;
        ln->up(ln->owner);
    }

    return true;
}


static void
stoa_redis_link_read(stoa_redis_link_t *ln)
{
    char        why[160];
    void       *reply;
    const char *broken = NULL;

    if (redisBufferRead(ln->c) != REDIS_OK) {
        broken = ln->c->errstr;
    }

    ln->heard_at = ln->loop->now_ms(ln->loop);

    /* what came before the end still counts; callbacks may not destroy */

    while (redisReaderGetReply(ln->c->reader, &reply) == REDIS_OK
           && reply != NULL) {
        if (ln->state == STOA_REDIS_HELLO) {
            if (!stoa_redis_link_hello(ln, reply)) {
                freeReplyObject(reply);
                return;
            }

            freeReplyObject(reply);

        } else {
            ln->sent -= ln->sent != 0;
            ln->reply(ln->owner, reply);
            freeReplyObject(reply);
        }

        if (ln->c == NULL) {
            return; /* lost by what the owner found */
        }
    }

    if (broken == NULL && ln->c->reader->err != 0) {
        broken = ln->c->reader->errstr;
    }

    if (broken != NULL) {
        (void) snprintf(why, sizeof(why), "%s", broken);
        stoa_redis_link_lost(ln, why);
        return;
    }

    if (ln->held != 0) {
        stoa_redis_link_wake(ln);
    }
}


static void
stoa_redis_link_write(stoa_redis_link_t *ln)
{
    int  all = 1;
    char why[160];

    if (ln->state != STOA_REDIS_HELLO && ln->state != STOA_REDIS_UP) {
        return;
    }

    ln->sent += ln->held;
    ln->held = 0;

    if (redisBufferWrite(ln->c, &all) != REDIS_OK) {
        (void) snprintf(why, sizeof(why), "%s", ln->c->errstr);
        stoa_redis_link_lost(ln, why);
        return;
    }

    if (ln->wants_write != (all == 0)) {
        ln->wants_write = all == 0;
        ln->loop->watch_want(ln->loop, &ln->watch, true, all == 0);
    }
}


/* Redis answers in order: what waits for the answers before it loses one way
   there, and the system calls of both sides are shared. */
static bool
stoa_redis_link_waits(const stoa_redis_link_t *ln)
{
    return ln->conf.company && ln->sent != 0 && ln->held < STOA_REDIS_COMPANY;
}


static void
stoa_redis_link_flush(stoa_defer_t *d)
{
    stoa_redis_link_t *ln = d->data;

    /* else the socket is full and says when to go on */

    if (!ln->wants_write && !stoa_redis_link_waits(ln)) {
        stoa_redis_link_write(ln);
    }
}


static void
stoa_redis_link_event(stoa_watch_t *w, bool rd, bool wr)
{
    char               why[64];
    stoa_redis_link_t *ln = w->data;

    if (ln->state == STOA_REDIS_CONNECTING) {
        if (!stoa_redis_link_connected(ln)) {
            (void) snprintf(why, sizeof(why), "error %d", errno);
            stoa_redis_link_lost(ln, why);
            return;
        }

        ln->wants_write = false;
        ln->loop->watch_want(ln->loop, &ln->watch, true, false);
        stoa_redis_link_greet(ln);
        return;
    }

    if (rd) {
        stoa_redis_link_read(ln);
    }

    if (wr && ln->wants_write) {
        stoa_redis_link_write(ln);
    }
}


static char *
stoa_redis_strdup_create(const char *s, bool *ok)
{
    size_t len;
    char  *copy;

    if (s == NULL) {
        return NULL;
    }

    len = strlen(s) + 1;
    copy = malloc(len);

    if (copy != NULL) {
        memcpy(copy, s, len);
    }

    *ok = *ok && copy != NULL;

    return copy;
}


static void
stoa_redis_link_free(stoa_redis_link_t *ln)
{
    if (ln->conf.password != NULL) {
        explicit_bzero((void *) (uintptr_t) ln->conf.password,
                       strlen(ln->conf.password));
    }

    free((void *) (uintptr_t) ln->conf.password);
    free((void *) (uintptr_t) ln->conf.user);
    free((void *) (uintptr_t) ln->conf.addr);
    free((void *) (uintptr_t) ln->conf.unix_path);
}


bool
stoa_redis_link_create(stoa_redis_link_t *ln, stoa_loop_t *loop,
                       const stoa_redis_conf_t *conf, void *owner)
{
    bool            ok = true;
    struct in_addr  a4;
    struct in6_addr a6;
    struct timespec ts = { 0, 1 };

    if (conf->unix_path == NULL
        && (conf->addr == NULL
            || (inet_pton(AF_INET, conf->addr, &a4) != 1
                && inet_pton(AF_INET6, conf->addr, &a6) != 1)))
    {
        stoa_log(loop->log, STOA_LOG_ERROR,
                 "redis: \"%s\" is not an address and would have to be "
                 "resolved",
                 conf->addr == NULL ? "" : conf->addr);
        return false;
    }

    (void) clock_gettime(CLOCK_MONOTONIC, &ts); /* only a seed */

    ln->loop = loop;
    ln->state = STOA_REDIS_DOWN;
    ln->owner = owner;
    ln->seed = ((uint64_t) ts.tv_nsec ^ ((uint64_t) getpid() << 32)) | 1;
    ln->retry.fire = stoa_redis_link_retry;
    ln->retry.data = ln;
    ln->retry.cancelable = true;
    ln->flush.run = stoa_redis_link_flush;
    ln->flush.data = ln;

    ln->conf = *conf;
    ln->conf.unix_path = stoa_redis_strdup_create(conf->unix_path, &ok);
    ln->conf.addr = stoa_redis_strdup_create(conf->addr, &ok);
    ln->conf.user = stoa_redis_strdup_create(conf->user, &ok);
    ln->conf.password = stoa_redis_strdup_create(conf->password, &ok);

    if (conf->connect_timeout_ms == 0) {
        ln->conf.connect_timeout_ms = STOA_REDIS_TIMEOUT;
    }

    if (conf->command_timeout_ms == 0) {
        ln->conf.command_timeout_ms = STOA_REDIS_TIMEOUT;
    }

    if (!ok) {
        stoa_redis_link_free(ln);
    }

    return ok;
}


void
stoa_redis_link_destroy(stoa_redis_link_t *ln)
{
    stoa_redis_link_close(ln);
    ln->loop->timer_close(ln->loop, &ln->retry);
    ln->loop->defer_close(ln->loop, &ln->flush);
    stoa_redis_link_free(ln);
}


/* ---- replies ---- */

stoa_redis_type_e
stoa_redis_type(const stoa_redis_reply_t *r)
{
    switch (((const redisReply *) r)->type) {

    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
        return STOA_REDIS_STRING;

    case REDIS_REPLY_INTEGER:
        return STOA_REDIS_INTEGER;

    case REDIS_REPLY_ARRAY:
        return STOA_REDIS_ARRAY;

    case REDIS_REPLY_ERROR:
        return STOA_REDIS_ERROR;
    }

    return STOA_REDIS_NIL;
}


stoa_str_t
stoa_redis_str(const stoa_redis_reply_t *r)
{
    const redisReply *reply = (const redisReply *) r;
    stoa_str_t        s = stoa_null_string;

    if (r != NULL
        && (reply->type == REDIS_REPLY_STRING
            || reply->type == REDIS_REPLY_STATUS
            || reply->type == REDIS_REPLY_ERROR))
    {
        s.data = (unsigned char *) reply->str;
        s.len = (size_t) reply->len;
    }

    return s;
}


int64_t
stoa_redis_int(const stoa_redis_reply_t *r)
{
    int64_t           n = 0;
    const redisReply *reply = (const redisReply *) r;

    if (r == NULL) {
        return 0;
    }

    if (reply->type == REDIS_REPLY_INTEGER) {
        return reply->integer;
    }

    /* hashes and sorted sets answer numbers as strings */

    if (!stoa_str_int(stoa_redis_str(r), INT64_MIN, INT64_MAX, &n)) {
        return 0;
    }

    return n;
}


size_t
stoa_redis_count(const stoa_redis_reply_t *r)
{
    const redisReply *reply = (const redisReply *) r;

    return r != NULL && reply->type == REDIS_REPLY_ARRAY ? reply->elements : 0;
}


const stoa_redis_reply_t *
stoa_redis_at(const stoa_redis_reply_t *r, size_t i)
{
    if (i >= stoa_redis_count(r)) {
        return NULL;
    }

    return (const stoa_redis_reply_t *) ((const redisReply *) r)->element[i];
}
