/*
 * What the edge's Redis scripts share: the server's clock in whole
 * milliseconds.  In the test build it is moved by keys beside KEYS[1], whose
 * prefix ends where its hash tag begins.
 */

#ifndef NGX_HTTP_STOA_LUA_H_INCLUDED
#define NGX_HTTP_STOA_LUA_H_INCLUDED

#ifdef STOA_TEST
#define NGX_HTTP_STOA_LUA_CLOCK                                                \
    "local p=string.match(KEYS[1],'^(.-){')\n"                                 \
    "now=tonumber(redis.call('GET',p..'clock_at') or now)"                     \
    "+tonumber(redis.call('GET',p..'clock') or '0')\n"
#else
#define NGX_HTTP_STOA_LUA_CLOCK ""
#endif

#define NGX_HTTP_STOA_LUA_NOW                                                  \
    "local t=redis.call('TIME')\n"                                             \
    "local now=t[1]*1000+math.floor(t[2]/1000)\n" NGX_HTTP_STOA_LUA_CLOCK

#endif /* NGX_HTTP_STOA_LUA_H_INCLUDED */
