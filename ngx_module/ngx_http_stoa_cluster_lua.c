/*
 * The scripts that count limits of the cluster: the same GCRA and windows as
 * in ngx_http_stoa_limit.c, by Redis's own clock, over whole numbers.
 */

#include "ngx_http_stoa_limit.h"

#ifdef STOA_TEST
#define NGX_HTTP_STOA_CLUSTER_CLOCK                                            \
    "local p=string.match(KEYS[1],'^(.-){')\n"                                 \
    "now=tonumber(redis.call('GET',p..'clock_at') or now)"                     \
    "+tonumber(redis.call('GET',p..'clock') or '0')\n"
#else
#define NGX_HTTP_STOA_CLUSTER_CLOCK ""
#endif

/*
 * A value is "ms rest rate period burst busy used end": the theoretical
 * arrival time as whole milliseconds and the rest in units of 1/rate, since
 * a number of Lua has 53 bits; the limit that wrote it; the number of the busy
 * period; the quota's window.
 */
#define NGX_HTTP_STOA_CLUSTER_BEGIN                                            \
    "local t=redis.call('TIME')\n"                                             \
    "local now=t[1]*1000+math.floor(t[2]/1000)\n" NGX_HTTP_STOA_CLUSTER_CLOCK  \
    "local function read(key,rate,period,burst)\n"                             \
    " local v=redis.call('GET',key)\n"                                         \
    " local ms,rest,r,p,b,busy,used,e\n"                                       \
    " if v then\n"                                                             \
    "  ms,rest,r,p,b,busy,used,e=string.match(v,"                              \
    "'^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')\n"                   \
    " end\n"                                                                   \
    " if not ms then return 0,now%2147483648,0,0,false end\n"                  \
    " r=tonumber(r) p=tonumber(p) e=tonumber(e)\n"                             \
    " local debt=(ms-now)*r+rest\n"                                            \
    " local full,moved=b*p,false\n"                                            \
    " if debt<0 then debt=0 end\n"                                             \
    " if debt>full then\n"                                                     \
    "  moved=true\n"                                                           \
    "  if debt-full>60000*r then debt=0 else debt=full end\n"                  \
    " end\n"                                                                   \
    " if r~=rate or p~=period then\n"                                          \
    "  local whole=math.floor(debt/p)\n"                                       \
    "  debt=whole*period+math.ceil((debt-whole*p)*period/p)\n"                 \
    " end\n"                                                                   \
    " if debt>burst*period then debt=burst*period moved=true end\n"            \
    " if e<=now then used=0 e=0 end\n"                                         \
    " return debt,tonumber(busy),tonumber(used),e,moved\n"                     \
    "end\n"                                                                    \
    "local function write(key,rate,period,burst,debt,busy,used,e)\n"           \
    " local ms=math.floor(debt/rate)\n"                                        \
    " local life=ms+1\n"                                                       \
    " if e-now>life then life=e-now end\n"                                     \
    " redis.call('SET',key,string.format('%d %d %d %d %d %d %d %d',"           \
    "now+ms,debt-ms*rate,rate,period,burst,busy,used,e),"                      \
    "'PX',string.format('%d',life+1000))\n"                                    \
    "end\n"

/* ARGV, for each key: rate, period, burst, cost, quota, its window in ms, 1 for
   a dry run.  Answers 1 when all were charged, else 0; its clock; and for each
   key: 1 when it fits, debt, busy, used, end of the window. */
static const char ngx_http_stoa_cluster_take_lua[] = NGX_HTTP_STOA_CLUSTER_BEGIN
    "local out={1,now}\n"
    "local all={}\n"
    "for i=1,#KEYS do\n"
    " local a=(i-1)*7\n"
    " local s={rate=tonumber(ARGV[a+1]),period=tonumber(ARGV[a+2]),"
    "burst=tonumber(ARGV[a+3]),cost=tonumber(ARGV[a+4]),"
    "quota=tonumber(ARGV[a+5]),len=tonumber(ARGV[a+6])}\n"
    " s.debt,s.busy,s.used,s.e,s.moved=read(KEYS[i],s.rate,s.period,s.burst)\n"
    " s.units=math.min(s.cost,s.burst)*s.period\n"
    " s.fits=s.debt+s.units<=s.burst*s.period\n"
    " if s.quota>0 then\n"
    "  s.part=math.min(s.cost,s.quota)\n"
    "  if s.used+s.part>s.quota then s.fits=false end\n"
    " end\n"
    " if s.cost==0 then s.fits=true end\n"
    " if not s.fits and ARGV[a+7]~='1' then out[1]=0 end\n"
    " all[i]=s\n"
    "end\n"
    "for i,s in ipairs(all) do\n"
    " if out[1]==1 and s.fits and s.cost>0 then\n"
    "  if s.debt==0 then s.busy=s.busy+1 end\n"
    "  s.debt=s.debt+s.units\n"
    "  if s.quota>0 then\n"
    "   if s.e==0 then s.e=now+s.len end\n"
    "   s.used=s.used+s.part\n"
    "  end\n"
    "  s.moved=true\n"
    " end\n"
    " if s.moved then\n"
    "  write(KEYS[i],s.rate,s.period,s.burst,s.debt,s.busy,s.used,s.e)\n"
    " end\n"
    " local n=#out\n"
    " out[n+1]=s.fits and 1 or 0\n"
    " out[n+2]=s.debt out[n+3]=s.busy out[n+4]=s.used out[n+5]=s.e\n"
    "end\n"
    "return out\n";

/* ARGV: rate, period, burst, cost, quota, busy and end of the charge.
   Answers as the other does, of one key. */
static const char ngx_http_stoa_cluster_refund_lua[] =
    NGX_HTTP_STOA_CLUSTER_BEGIN
    "local rate,period,burst=tonumber(ARGV[1]),tonumber(ARGV[2]),"
    "tonumber(ARGV[3])\n"
    "local cost,quota=tonumber(ARGV[4]),tonumber(ARGV[5])\n"
    "local debt,busy,used,e,moved=read(KEYS[1],rate,period,burst)\n"
    "if busy==tonumber(ARGV[6]) then\n"
    " debt=math.max(0,debt-math.min(cost,burst)*period)\n"
    " moved=true\n"
    "end\n"
    "if quota>0 and e>0 and e==tonumber(ARGV[7]) then\n"
    " used=math.max(0,used-math.min(cost,quota))\n"
    " moved=true\n"
    "end\n"
    "if moved then write(KEYS[1],rate,period,burst,debt,busy,used,e) end\n"
    "return {1,now,1,debt,busy,used,e}\n";

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
