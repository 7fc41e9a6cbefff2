/*
 * The scripts that count limits of the cluster: the same GCRA and windows as
 * in ngx_http_stoa_limit.c, by Redis's own clock, over whole numbers.
 *
 * Numbers travel and are kept as packed doubles, eight bytes each, little
 * endian: whole numbers up to 2^53 are exact, and Lua has nothing to parse.
 * A value is ms, rest, rate, period, burst, busy, used, end: the theoretical
 * arrival time as whole milliseconds and the rest in units of 1/rate; the
 * limit that wrote it; the number of the busy period; the quota's window.
 */

#include "ngx_http_stoa_limit.h"
#include "ngx_http_stoa_lua.h"

/* KEYS[i] under rate, period, burst: debt, busy, used, e, moved. */
#define NGX_HTTP_STOA_CLUSTER_READ                                             \
    " local debt,busy,used,e,moved=0,now%2147483648,0,0,false\n"               \
    " local v=redis.call('GET',KEYS[i])\n"                                     \
    " if v and #v==64 then\n"                                                  \
    "  local ms,rest,r,p,b\n"                                                  \
    "  ms,rest,r,p,b,busy,used,e=struct.unpack('<dddddddd',v)\n"               \
    "  debt=(ms-now)*r+rest\n"                                                 \
    "  if debt<0 then debt=0 end\n"                                            \
    "  local full=b*p\n"                                                       \
    "  if debt>full then\n"                                                    \
    "   moved=true\n"                                                          \
    "   if debt-full>60000*r then debt=0 else debt=full end\n"                 \
    "  end\n"                                                                  \
    "  if r~=rate or p~=period then\n"                                         \
    "   local whole=math.floor(debt/p)\n"                                      \
    "   debt=whole*period+math.ceil((debt-whole*p)*period/p)\n"                \
    "  end\n"                                                                  \
    "  if debt>burst*period then debt=burst*period moved=true end\n"           \
    "  if e<=now then used=0 e=0 end\n"                                        \
    " end\n"

#define NGX_HTTP_STOA_CLUSTER_WRITE                                            \
    " if moved then\n"                                                         \
    "  local ms=math.floor(debt/rate)\n"                                       \
    "  local life=ms+1001\n"                                                   \
    "  if e-now>life then life=e-now end\n"                                    \
    "  redis.call('SET',KEYS[i],struct.pack('<dddddddd',now+ms,debt-ms*rate,"  \
    "rate,period,burst,busy,used,e),'PX',life)\n"                              \
    " end\n"

#define NGX_HTTP_STOA_CLUSTER_CHARGE                                           \
    " if ok==1 and fits==1 and cost>0 then\n"                                  \
    "  if debt==0 then busy=busy+1 end\n"                                      \
    "  debt=debt+cost*period\n"                                                \
    "  if quota>0 then\n"                                                      \
    "   if e==0 then e=now+len end\n"                                          \
    "   used=used+part\n"                                                      \
    "  end\n"                                                                  \
    "  moved=true\n"                                                           \
    " end\n" NGX_HTTP_STOA_CLUSTER_WRITE

/* ARGV[i]: rate, period, burst, cost, quota, its window in ms, 1 for a dry run.
   Answers 1 when all were charged, else 0; its clock; and for each key: 1 when
   it fits, debt, busy, used, end of the window.  One key needs no table. */
static const char ngx_http_stoa_cluster_take_lua[] = NGX_HTTP_STOA_LUA_NOW
    "local n,ok,s=#KEYS,1\n"
    "for i=1,n do\n"
    " local rate,period,burst,cost,quota,len,dry="
    "struct.unpack('<ddddddd',ARGV[i])\n" NGX_HTTP_STOA_CLUSTER_READ
    " local fits,part=1,0\n"
    " if cost>0 then\n"
    "  if quota>0 then\n"
    "   part=cost<quota and cost or quota\n"
    "   if used+part>quota then fits=0 end\n"
    "  end\n"
    "  if cost>burst then cost=burst end\n"
    "  if debt+cost*period>burst*period then fits=0 end\n"
    "  if fits==0 and dry==0 then ok=0 end\n"
    " end\n"
    " if n==1 then\n" NGX_HTTP_STOA_CLUSTER_CHARGE
    "  return struct.pack('<ddddddd',ok,now,fits,debt,busy,used,e)\n"
    " end\n"
    " s=s or {}\n"
    " s[i]={rate,period,burst,cost,quota,len,part,debt,busy,used,e,fits,"
    "moved}\n"
    "end\n"
    "local out=struct.pack('<dd',ok,now)\n"
    "for i=1,n do\n"
    " local rate,period,burst,cost,quota,len,part,debt,busy,used,e,fits,moved="
    "unpack(s[i])\n" NGX_HTTP_STOA_CLUSTER_CHARGE
    " out=out..struct.pack('<ddddd',fits,debt,busy,used,e)\n"
    "end\n"
    "return out\n";

/* ARGV[1]: rate, period, burst, cost, quota, busy and end of the charge. */
static const char ngx_http_stoa_cluster_refund_lua[] = NGX_HTTP_STOA_LUA_NOW
    "for i=1,1 do\n"
    " local rate,period,burst,cost,quota,was,window="
    "struct.unpack('<ddddddd',ARGV[i])\n" NGX_HTTP_STOA_CLUSTER_READ
    " if busy==was then\n"
    "  debt=math.max(0,debt-math.min(cost,burst)*period)\n"
    "  moved=true\n"
    " end\n"
    " if quota>0 and e>0 and e==window then\n"
    "  used=math.max(0,used-math.min(cost,quota))\n"
    "  moved=true\n"
    " end\n" NGX_HTTP_STOA_CLUSTER_WRITE "end\n";

/* Sums are filled when Redis has loaded them: each process has its own. */
stoa_redis_script_t
    ngx_http_stoa_cluster_scripts[NGX_HTTP_STOA_CLUSTER_SCRIPTS] = {
        [NGX_HTTP_STOA_CLUSTER_TAKE] = {
            .name = "limit_take",
            .lua = ngx_http_stoa_cluster_take_lua,
        },
        [NGX_HTTP_STOA_CLUSTER_REFUND] = {
            .name = "limit_refund",
            .lua = ngx_http_stoa_cluster_refund_lua,
        },
    };
