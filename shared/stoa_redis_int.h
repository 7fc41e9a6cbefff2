/*
 * Private to stoa_redis.c (links, hiredis), stoa_redis_op.c (commands) and
 * stoa_redis_sub.c (subscriptions).  Nobody else includes it.
 *
 * A link is one connection: DOWN (the retry timer runs) -> CONNECTING ->
 * HELLO -> UP -> DOWN ...  Its owner appends bytes of commands while it is
 * UP and is told of every reply, in order; callbacks may not destroy it.
 */

#ifndef STOA_REDIS_INT_H_INCLUDED
#define STOA_REDIS_INT_H_INCLUDED

#include "stoa_redis.h"

struct redisContext;

typedef enum {
    STOA_REDIS_DOWN = 1,
    STOA_REDIS_CONNECTING,
    STOA_REDIS_HELLO, /* answers of AUTH and the like are awaited */
    STOA_REDIS_UP
} stoa_redis_state_e;

typedef struct stoa_redis_link_s stoa_redis_link_t;

struct stoa_redis_link_s {
    stoa_loop_t         *loop;
    stoa_redis_conf_t    conf; /* strings are copies */
    stoa_redis_state_e   state;
    struct redisContext *c;
    stoa_watch_t         watch;
    stoa_timer_t         retry; /* connect time-out, reconnect: cancelable */
    stoa_defer_t         flush;
    uint32_t             fails;
    uint32_t             hello; /* answers of our own that are due */
    bool                 wants_write;
    uint32_t             held; /* commands that no write has carried */
    uint32_t             sent; /* those that one has, unanswered */
    uint64_t             heard_at;
    uint64_t             seed;
    void                *owner;
    void (*up)(void *owner);
    void (*reply)(void *owner, const stoa_redis_reply_t *reply);
    void (*down)(void *owner); /* reports to the outside */
};

/* false: an address that would have to be resolved (logged), no memory.
   The callbacks are to be set before stoa_redis_link_connect(). */
bool stoa_redis_link_create(stoa_redis_link_t *ln, stoa_loop_t *loop,
                            const stoa_redis_conf_t *conf, void *owner);
void stoa_redis_link_connect(stoa_redis_link_t *ln);
void stoa_redis_link_destroy(stoa_redis_link_t *ln);

/* Only while UP; leaves at the end of this turn.  false: no memory. */
bool stoa_redis_link_append(stoa_redis_link_t *ln, const char *bytes,
                            size_t len);

/* Closes and comes again; calls down(). */
void stoa_redis_link_lost(stoa_redis_link_t *ln, const char *why);

/* Commands in RESP, into memory of at least stoa_redis_args_size() bytes for
   the arguments and STOA_REDIS_HEAD more for the head. */
#define STOA_REDIS_HEAD 26

size_t stoa_redis_args_size(int argc, const stoa_str_t *argv);
size_t stoa_redis_head(char *out, size_t argc);
size_t stoa_redis_args(char *out, int argc, const stoa_str_t *argv);

#endif /* STOA_REDIS_INT_H_INCLUDED */
