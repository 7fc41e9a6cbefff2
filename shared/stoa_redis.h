/*
 * The Redis machine: one pipelined hiredis connection for commands and
 * scripts, and a subscriber, each on a stoa_loop_t.  The only file that
 * includes hiredis.h is stoa_redis.c.  Works with hiredis 0.14 and 1.x.
 *
 * Reconnects with backoff 50 ms..2 s and jitter; every command has a
 * deadline (TIMEOUT; its place in the pipeline stays until the reply or the
 * end of the connection); while the connection is down commands are refused
 * at once with REDIS_UNAVAILABLE (nothing is queued behind a dead server),
 * and what was in flight when it broke ends with that too.
 *
 * done() is called exactly once per command that was not canceled, never
 * from inside the call that sends it; it may send and cancel, not destroy.
 * The process must ignore SIGPIPE.
 */

#ifndef STOA_REDIS_H_INCLUDED
#define STOA_REDIS_H_INCLUDED

#include "stoa_loop.h"

typedef struct stoa_redis_s       stoa_redis_t;
typedef struct stoa_redis_op_s    stoa_redis_op_t;
typedef struct stoa_redis_sub_s   stoa_redis_sub_t;
typedef struct stoa_redis_reply_s stoa_redis_reply_t;

typedef struct {
    const char *unix_path; /* or */
    const char *addr;      /* an address, never a name */
    int         port;
    const char *user;     /* NULL: default */
    const char *password; /* NULL: none */
    int         db;
    uint32_t    connect_timeout_ms; /* 0: 2000 */
    uint32_t    command_timeout_ms; /* 0: 2000; also: a server that owes
                                       answers and is silent for so long is
                                       left, see timeout_ms below */
    bool        company; /* commands wait for the answers of those before,
                            up to 16 of them, so that one write carries
                            many; not where a command may block */
} stoa_redis_conf_t;

typedef enum {
    STOA_REDIS_NIL = 1,
    STOA_REDIS_STRING, /* and status */
    STOA_REDIS_INTEGER,
    STOA_REDIS_ARRAY,
    STOA_REDIS_ERROR
} stoa_redis_type_e;

stoa_redis_t *stoa_redis_create(stoa_loop_t             *loop,
                                const stoa_redis_conf_t *conf);
void          stoa_redis_destroy(stoa_redis_t *rd);
bool          stoa_redis_ready(const stoa_redis_t *rd);

/* Called at each connect (up) and loss; set once, right after create. */
void stoa_redis_on_state(stoa_redis_t *rd, void (*fn)(void *data, bool up),
                         void         *data);

/* reply is valid inside done() only, NULL unless err == STOA_OK; an error
   reply of Redis arrives as STOA_OK with type ERROR. */
typedef void (*stoa_redis_done_pt)(stoa_redis_op_t *op, stoa_err_e err,
                                   const stoa_redis_reply_t *reply, void *data);

/* argv is copied.  timeout_ms 0: the connection's; a blocking command says
   more than it blocks.  On failure NULL, *err is set (NULL: do not care),
   done() is not called.  done may be NULL (fire and forget): then only that
   the result is not NULL may be used. */
stoa_redis_op_t *stoa_redis_command(stoa_redis_t *rd, int argc,
                                    const stoa_str_t *argv, uint32_t timeout_ms,
                                    stoa_redis_done_pt done, void *data,
                                    stoa_err_e *err);

/* A Lua script by SHA1, loaded at each connect; NOSCRIPT sends EVAL once. */
typedef struct {
    const char *name;
    const char *lua;
    char        sha[41]; /* zeroed; filled when Redis has loaded it */
} stoa_redis_script_t;

/* Registers scripts (caller's memory, lives as long as rd), up to 8 times. */
void stoa_redis_scripts(stoa_redis_t *rd, stoa_redis_script_t *scripts,
                        size_t n);

/* argv: nkeys keys, then the arguments; argc counts both. */
stoa_redis_op_t *stoa_redis_eval(stoa_redis_t              *rd,
                                 const stoa_redis_script_t *script, int nkeys,
                                 int argc, const stoa_str_t *argv,
                                 uint32_t timeout_ms, stoa_redis_done_pt done,
                                 void *data, stoa_err_e *err);

void stoa_redis_cancel(stoa_redis_op_t *op); /* done() will not be called */

stoa_redis_type_e         stoa_redis_type(const stoa_redis_reply_t *r);
stoa_str_t                stoa_redis_str(const stoa_redis_reply_t *r);
int64_t                   stoa_redis_int(const stoa_redis_reply_t *r);
size_t                    stoa_redis_count(const stoa_redis_reply_t *r);
const stoa_redis_reply_t *stoa_redis_at(const stoa_redis_reply_t *r, size_t i);

/* Subscriber: its own connection; channels may be added at any time and are
   subscribed again after each reconnect.  on_state(up) after SUBSCRIBE of all
   was confirmed, on_state(down) at loss: what was published between is lost.
   A server that answers no PING for 15 s counts as lost.  Neither callback
   may destroy the subscriber. */
stoa_redis_sub_t *stoa_redis_sub_create(
    stoa_loop_t *loop, const stoa_redis_conf_t *conf,
    void (*on_message)(void *data, stoa_str_t channel, stoa_str_t message),
    void (*on_state)(void *data, bool up), void *data);
stoa_err_e stoa_redis_sub_add(stoa_redis_sub_t *sub, stoa_str_t channel);
void       stoa_redis_sub_destroy(stoa_redis_sub_t *sub);

#endif /* STOA_REDIS_H_INCLUDED */
