/*
 * The moves of the queues as Lua scripts (worker_lua.c), by number.  Every
 * script has KEYS[1] = P:m and ARGV[1] = P; see shared/stoa_queue.h.
 */

#ifndef WORKER_LUA_H_INCLUDED
#define WORKER_LUA_H_INCLUDED

#include "../shared/stoa_redis.h"

typedef enum {
    WORKER_LUA_ENQUEUE = 0,
    WORKER_LUA_CLAIM,
    WORKER_LUA_BEAT,
    WORKER_LUA_SETTLE,
    WORKER_LUA_TOLD,
    WORKER_LUA_CANCEL,
    WORKER_LUA_TICK,
    WORKER_LUA_STATS,
    WORKER_LUA_LEAD,
    WORKER_LUA_COUNT
} worker_lua_e;

/* Copies the table (stoa_redis fills the sums). */
void worker_lua_copy(stoa_redis_script_t scripts[WORKER_LUA_COUNT]);

#endif /* WORKER_LUA_H_INCLUDED */
