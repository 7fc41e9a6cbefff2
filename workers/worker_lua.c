/*
 * The Lua scripts: the only code that moves a task from one state to
 * another, each move atomic, each by the clock of Redis.
 *
 * Hash of a task P:j:<id>: e envelope, l level, u unique key, s state
 * (s scheduled, r ready, a active, d dead), x fence, a starts, f failures,
 * c crashes, o run alone, w worker, rt ready since, err last error.  The
 * fence rises with each claim and begins with the clock: no number comes
 * twice, even when Redis was wiped and hears of a task again.
 *
 * A task of a tenant (g) waits in the tenant's own list P:t<level>:<g>, and
 * the tenant's turn "@<g>" in P:r<level> among the tasks of no tenant: once,
 * as long as the tenant has some.  Whoever takes the turn takes one task, and
 * the turn goes to the end of the line, so that a tenant with a million tasks
 * is as far ahead of others as one with two.  A tenant that runs as many as
 * its class allows (P:a counts them) waits in P:k until one of them ends.
 *
 * What holds: an id in P:l has state a; only the holder of the current
 * fence can settle or beat; a list may hold an id whose hash is gone or has
 * another state (it is skipped); only a task that crashed while it ran alone
 * is blamed; a kill, a release and a snooze never use up an attempt.
 */

#include "worker_lua.h"

#ifdef STOA_TEST
#define WORKER_LUA_CLOCK                                                       \
    "now=now+(tonumber(redis.call('GET',"                                      \
    "string.match(p,'^(.-){')..'clock') or '0'))\n"
#else
#define WORKER_LUA_CLOCK ""
#endif

#define WORKER_LUA_BEGIN                                                       \
    "local p=ARGV[1]\n"                                                        \
    "local t=redis.call('TIME')\n"                                             \
    "local now=t[1]*1000+math.floor(t[2]/1000)\n" WORKER_LUA_CLOCK

/* At most 64 wake tokens wait: each only says "look". */
#define WORKER_LUA_WAKE                                                        \
    "local function wake()\n"                                                  \
    " redis.call('LPUSH',p..':w','1') redis.call('LTRIM',p..':w',0,63)\n"      \
    "end\n"

/* leave(): a task of tenant g is no longer active.  m: of P:m, how many wait
   behind turns, by level, for the depths that are told. */
#define WORKER_LUA_READY                                                       \
    "local function ready(id,level,head,g)\n"                                  \
    " redis.call('HSET',p..':j:'..id,'s','r','rt',now)\n"                      \
    " local push=head and 'LPUSH' or 'RPUSH'\n"                                \
    " if not g or g=='' then\n"                                                \
    "  redis.call(push,p..':r'..level,id) return\n"                            \
    " end\n"                                                                   \
    " redis.call('HINCRBY',p..':m','t'..level,1)\n"                            \
    " if redis.call(push,p..':t'..level..':'..g,id)==1 then\n"                 \
    "  redis.call('RPUSH',p..':r'..level,'@'..g)\n"                            \
    "  redis.call('HINCRBY',p..':m','g'..level,1)\n"                           \
    " end\n"                                                                   \
    "end\n"

#define WORKER_LUA_LEAVE                                                       \
    "local function leave(g)\n"                                                \
    " if not g or g=='' then return 0 end\n"                                   \
    " if redis.call('HINCRBY',p..':a',g,-1)<=0 then\n"                         \
    "  redis.call('HDEL',p..':a',g)\n"                                         \
    " end\n"                                                                   \
    " local k=0\n"                                                             \
    " for l=0,3 do\n"                                                          \
    "  if redis.call('HDEL',p..':k',l..':'..g)==1 then\n"                      \
    "   redis.call('RPUSH',p..':r'..l,'@'..g) k=1\n"                           \
    "   redis.call('HINCRBY',p..':m','g'..l,1)\n"                              \
    "  end\n"                                                                  \
    " end\n"                                                                   \
    " return k\n"                                                              \
    "end\n"

#define WORKER_LUA_FORGET                                                      \
    "local function forget(id,uniq)\n"                                         \
    " redis.call('DEL',p..':j:'..id)\n"                                        \
    " if uniq and uniq~='' and redis.call('GET',p..':u:'..uniq)==id then\n"    \
    "  redis.call('DEL',p..':u:'..uniq)\n"                                     \
    " end\n"                                                                   \
    "end\n"

/*
 * ARGV p, then 8 per task: id, level, delay ms, unique key, its life in ms,
 * envelope, mode, tenant.  Mode s is the sweeper's: a task that is dead here
 * stays dead and its reason is told; in mode n it was redriven and starts
 * afresh.
 * Answers one text per task: ok, known, redriven, "dead <reason>" or
 * "owner <id>".
 */
static const char worker_lua_enqueue[] = WORKER_LUA_BEGIN WORKER_LUA_WAKE
                  WORKER_LUA_READY
    "local out={} local n=0\n"
    "for i=2,#ARGV,8 do\n"
    " local id,level,delay=ARGV[i],ARGV[i+1],tonumber(ARGV[i+2])\n"
    " local uniq,life,e,mode=ARGV[i+3],tonumber(ARGV[i+4]),ARGV[i+5],"
    "ARGV[i+6]\n"
    " local g=ARGV[i+7]\n"
    " local j=p..':j:'..id\n"
    " local s=redis.call('HGET',j,'s')\n"
    " local r='ok'\n"
    " if s=='d' and mode=='s' then\n"
    "  r='dead '..(redis.call('HGET',j,'err') or '')\n"
    " elseif s=='d' then\n"
    "  redis.call('ZREM',p..':d',id)\n"
    "  redis.call('HSET',j,'e',e,'l',level,'a',0,'f',0,'c',0,'o','0')\n"
    "  redis.call('HDEL',j,'err','w')\n"
    "  ready(id,level,false,g) n=n+1 r='redriven'\n"
    " elseif s then\n"
    "  r='known'\n"
    " else\n"
    "  if uniq~='' then\n"
    "   local own=redis.call('SET',p..':u:'..uniq,id,'NX','GET','PX',life)\n"
    "   if own and own~=id then r='owner '..own end\n"
    "  end\n"
    "  if r=='ok' then\n"
    "   redis.call('HSET',j,'e',e,'l',level,'x',now,'a',0,'c',0,'f',0)\n"
    "   if uniq~='' then redis.call('HSET',j,'u',uniq) end\n"
    "   if g~='' then redis.call('HSET',j,'g',g) end\n"
    "   if delay>0 then\n"
    "    redis.call('HSET',j,'s','s') redis.call('ZADD',p..':s',now+delay,"
    "id)\n"
    "   else\n"
    "    ready(id,level,false,g) n=n+1\n"
    "   end\n"
    "  end\n"
    " end\n"
    " out[#out+1]=r\n"
    "end\n"
    "if n>0 then wake() end\n"
    "return out\n";

/*
 * ARGV p, worker, lease ms, max, idle (1: the worker holds nothing, so it
 * may run a suspect, alone), most of a tenant and of the queue that run at
 * once (0: no limit), levels in the order drawn.  Answers now, number of
 * suspects, then 7 per task: id, fence, starts, crashes, failures, alone,
 * envelope.
 */
static const char worker_lua_claim[] = WORKER_LUA_BEGIN
    "local w,lease,max=ARGV[2],tonumber(ARGV[3]),tonumber(ARGV[4])\n"
    "local each,most=tonumber(ARGV[6]),tonumber(ARGV[7])\n"
    "local out={now,redis.call('LLEN',p..':x')}\n"
    "local c=redis.call('HMGET',p..':ctl','paused','each','most')\n"
    "if c[1]=='1' then return out end\n"
    "each=tonumber(c[2]) or each\n"
    "most=tonumber(c[3]) or most\n"
    "if most>0 then\n"
    " max=math.min(max,most-redis.call('ZCARD',p..':l'))\n"
    " redis.call('HSET',p..':m','full',1)\n"
    "end\n"
    "local function take(id,alone)\n"
    " local j=p..':j:'..id\n"
    " local f=redis.call('HMGET',j,'e','s','x','a','c','f','g')\n"
    " if f[2]~='r' then return false end\n"
    " local x,a=(tonumber(f[3]) or 0)+1,(tonumber(f[4]) or 0)+1\n"
    " redis.call('HSET',j,'s','a','x',x,'a',a,'w',w,'o',alone)\n"
    " redis.call('ZADD',p..':l',now+lease,id)\n"
    " if f[7] and f[7]~='' then redis.call('HINCRBY',p..':a',f[7],1) end\n"
    " for _,v in ipairs({id,x,a,tonumber(f[5]) or 0,tonumber(f[6]) or 0,"
    "alone,f[1]}) do out[#out+1]=v end\n"
    " return true\n"
    "end\n"
    "local function turn(g,l)\n"
    " local t=p..':t'..l..':'..g\n"
    " redis.call('HINCRBY',p..':m','g'..l,-1)\n"
    " if each>0 and (tonumber(redis.call('HGET',p..':a',g)) or 0)>=each then\n"
    "  redis.call('HSET',p..':k',l..':'..g,1) return false\n"
    " end\n"
    " while true do\n"
    "  local id=redis.call('LPOP',t)\n"
    "  if not id then return false end\n"
    "  redis.call('HINCRBY',p..':m','t'..l,-1)\n"
    "  if take(id,'0') then break end\n"
    " end\n"
    " if redis.call('EXISTS',t)==1 then\n"
    "  redis.call('RPUSH',p..':r'..l,'@'..g)\n"
    "  redis.call('HINCRBY',p..':m','g'..l,1)\n"
    " end\n"
    " return true\n"
    "end\n"
    "if ARGV[5]=='1' and max>0 then\n"
    " while true do\n"
    "  local id=redis.call('LPOP',p..':x')\n"
    "  if not id then break end\n"
    "  if take(id,'1') then return out end\n"
    " end\n"
    "end\n"
    "for i=8,#ARGV do\n"
    " local l=ARGV[i]\n"
    " while max>0 do\n"
    "  local ids=redis.call('LPOP',p..':r'..l,max)\n"
    "  if not ids then break end\n"
    "  for _,id in ipairs(ids) do\n"
    "   if string.sub(id,1,1)=='@' then\n"
    "    if turn(string.sub(id,2),l) then max=max-1 end\n"
    "   elseif take(id,'0') then\n"
    "    max=max-1\n"
    "   end\n"
    "  end\n"
    " end\n"
    "end\n"
    "return out\n";

/* ARGV p, lease ms, then id and fence of each; answers the ids that are no
   longer the caller's. */
static const char worker_lua_beat[] = WORKER_LUA_BEGIN
    "local out={}\n"
    "for i=3,#ARGV,2 do\n"
    " local id=ARGV[i]\n"
    " local f=redis.call('HMGET',p..':j:'..id,'s','x')\n"
    " if f[1]=='a' and f[2]==ARGV[i+1] then\n"
    "  redis.call('ZADD',p..':l',now+tonumber(ARGV[2]),id)\n"
    " else\n"
    "  out[#out+1]=id\n"
    " end\n"
    "end\n"
    "return out\n";

/*
 * ack, fail and release.  ARGV p, then 5 per task: id, fence, mode, delay
 * ms, reason.  Modes: a done, r failed and to be tried again, s snoozed
 * (no failure), d dead, l released (to the head, no failure).  An ack or a
 * death is accepted from a holder whose lease ran out as long as nobody
 * else has claimed the task.  Answers 1 or 0 (stale) per task.
 */
static const char worker_lua_settle[] = WORKER_LUA_BEGIN WORKER_LUA_WAKE
    WORKER_LUA_READY WORKER_LUA_LEAVE WORKER_LUA_FORGET
    "local out={} local n=0\n"
    "for i=2,#ARGV,5 do\n"
    " local id,mode,delay=ARGV[i],ARGV[i+2],tonumber(ARGV[i+3])\n"
    " local j=p..':j:'..id\n"
    " local f=redis.call('HMGET',j,'s','x','l','u','g')\n"
    " local mine,held=f[2]==ARGV[i+1],f[1]=='a'\n"
    " if mine and f[1]=='r' and (mode=='a' or mode=='d') then\n"
    "  f[1]='a'\n"
    " end\n"
    " if mine and f[1]=='a' then\n"
    "  redis.call('ZREM',p..':l',id)\n"
    "  if held then n=n+leave(f[5]) end\n"
    "  if mode=='a' then\n"
    "   forget(id,f[4]) redis.call('HINCRBY',p..':m','done',1)\n"
    "  elseif mode=='d' then\n"
    "   redis.call('HSET',j,'s','d','err',ARGV[i+4])\n"
    "   redis.call('ZADD',p..':d',now,id)\n"
    "   redis.call('HINCRBY',p..':m','dead',1)\n"
    "  elseif mode=='l' then\n"
    "   redis.call('HSET',j,'o','0') ready(id,f[3],true,f[5]) n=n+1\n"
    "  else\n"
    "   redis.call('HSET',j,'err',ARGV[i+4],'o','0')\n"
    "   if mode=='r' then redis.call('HINCRBY',j,'f',1) end\n"
    "   if delay>0 then\n"
    "    redis.call('HSET',j,'s','s') redis.call('ZADD',p..':s',now+delay,"
    "id)\n"
    "   else\n"
    "    ready(id,f[3],false,f[5]) n=n+1\n"
    "   end\n"
    "  end\n"
    "  out[#out+1]=1\n"
    " else\n"
    "  out[#out+1]=0\n"
    " end\n"
    "end\n"
    "if n>0 or redis.call('HDEL',p..':m','full')==1 then wake() end\n"
    "return out\n";

/* ARGV p, id, gone: PostgreSQL knows that the task is dead; gone=1: its row
   was gone, so its effect is there, and it is forgotten.  Answers 1 or 0. */
static const char worker_lua_told[] = WORKER_LUA_BEGIN WORKER_LUA_FORGET
    "redis.call('ZREM',p..':n',ARGV[2])\n"
    "if ARGV[3]~='1' then return 1 end\n"
    "local f=redis.call('HMGET',p..':j:'..ARGV[2],'s','u')\n"
    "if f[1]~='d' then return 0 end\n"
    "redis.call('ZREM',p..':d',ARGV[2])\n"
    "forget(ARGV[2],f[2])\n"
    "return 1\n";

/* ARGV p, ids: canceled in PostgreSQL, so nobody shall know of them; whoever
   runs one hears at its next beat that it is lost.  Answers how many ran. */
static const char    worker_lua_cancel[] = WORKER_LUA_BEGIN WORKER_LUA_WAKE
    WORKER_LUA_LEAVE WORKER_LUA_FORGET
    "local ran=0 local n=0\n"
    "for i=2,#ARGV do\n"
    " local id=ARGV[i]\n"
    " local f=redis.call('HMGET',p..':j:'..id,'s','u','g')\n"
    " if f[1]=='a' then ran=ran+1 n=n+leave(f[3]) end\n"
    " for _,k in ipairs({':l',':s',':d',':n'}) do\n"
    "  redis.call('ZREM',p..k,id)\n"
    " end\n"
    " if f[1] then forget(id,f[2]) end\n"
    "end\n"
    "if n>0 then wake() end\n"
    "return ran\n";

/*
 * ARGV p, limit, crashes that kill, hold ms.  Moves what is due, and takes
 * back leases that ran out.  When nobody ticked for 10 s, Redis or all
 * workers were away and nobody could beat: every lease gets hold ms more and
 * no one is blamed.  Dead tasks are kept 180 days, 10,000 at most.  Who died
 * of crashes waits in P:n until PostgreSQL was told, and is named again every
 * 5 s: a leader can die before it says so.  When nothing is active, no tenant
 * is at its limit, whatever was counted.  Answers number of suspects, leases
 * taken back, deaths, then the ids to tell of.
 */
static const char worker_lua_tick[] = WORKER_LUA_BEGIN WORKER_LUA_WAKE
    WORKER_LUA_READY WORKER_LUA_LEAVE WORKER_LUA_FORGET
    "local lim,maxc=tonumber(ARGV[2]),tonumber(ARGV[3])\n"
    "local n=0 local lost=0 local died=0\n"
    "local m=redis.call('HMGET',p..':m','tick','hold')\n"
    "redis.call('HSET',p..':m','tick',now)\n"
    "local hold=tonumber(m[2]) or 0\n"
    "if now-(tonumber(m[1]) or now)>10000 then\n"
    " hold=now+tonumber(ARGV[4]) redis.call('HSET',p..':m','hold',hold)\n"
    "end\n"
    "for _,id in ipairs(redis.call('ZRANGEBYSCORE',p..':s','-inf',now,"
    "'LIMIT',0,lim)) do\n"
    " redis.call('ZREM',p..':s',id)\n"
    " local f=redis.call('HMGET',p..':j:'..id,'l','s','g')\n"
    " if f[2]=='s' then ready(id,f[1],false,f[3]) n=n+1 end\n"
    "end\n"
    "if now>=hold then\n"
    " for _,id in ipairs(redis.call('ZRANGEBYSCORE',p..':l','-inf',now,"
    "'LIMIT',0,lim)) do\n"
    "  redis.call('ZREM',p..':l',id)\n"
    "  local j=p..':j:'..id\n"
    "  local f=redis.call('HMGET',j,'o','s','g')\n"
    "  if f[2]=='a' then\n"
    "   lost=lost+1 n=n+leave(f[3])\n"
    "   local c=(f[1]=='1') and redis.call('HINCRBY',j,'c',1) or 0\n"
    "   if c>=maxc then\n"
    "    redis.call('HSET',j,'s','d','err','crashed')\n"
    "    redis.call('ZADD',p..':d',now,id) died=died+1\n"
    "    redis.call('ZADD',p..':n',now,id)\n"
    "    redis.call('HINCRBY',p..':m','dead',1)\n"
    "   else\n"
    "    redis.call('HSET',j,'s','r','rt',now)\n"
    "    redis.call('RPUSH',p..':x',id) n=n+1\n"
    "   end\n"
    "  end\n"
    " end\n"
    "end\n"
    "if redis.call('EXISTS',p..':a',p..':k')>0"
    " and redis.call('ZCARD',p..':l')==0 then\n"
    " for _,k in ipairs(redis.call('HKEYS',p..':k')) do\n"
    "  local l=string.sub(k,1,1)\n"
    "  redis.call('RPUSH',p..':r'..l,'@'..string.sub(k,3))\n"
    "  redis.call('HINCRBY',p..':m','g'..l,1) n=n+1\n"
    " end\n"
    " redis.call('DEL',p..':a',p..':k')\n"
    "end\n"
    "local old=redis.call('ZRANGEBYSCORE',p..':d','-inf',now-15552000000,"
    "'LIMIT',0,10)\n"
    "if #old==0 and redis.call('ZCARD',p..':d')>10000 then\n"
    " old=redis.call('ZRANGE',p..':d',0,9)\n"
    "end\n"
    "for _,id in ipairs(old) do\n"
    " redis.call('ZREM',p..':d',id) forget(id,redis.call('HGET',p..':j:'..id,"
    "'u'))\n"
    "end\n"
    "if n>0 then wake() end\n"
    "local out={redis.call('LLEN',p..':x'),lost,died}\n"
    "for _,id in ipairs(redis.call('ZRANGEBYSCORE',p..':n','-inf',now,"
    "'LIMIT',0,lim)) do\n"
    " if redis.call('HGET',p..':j:'..id,'s')=='d' then\n"
    "  redis.call('ZADD',p..':n',now+5000,id) out[#out+1]=id\n"
    " else\n"
    "  redis.call('ZREM',p..':n',id)\n"
    " end\n"
    "end\n"
    "return out\n";

/* ARGV p: ready by level, suspects, scheduled, active, dead, age in ms of
   the oldest ready task, tasks done and dead ever, age of the last tick. */
static const char worker_lua_stats[] = WORKER_LUA_BEGIN
    "local out={} local oldest=0\n"
    "for l=0,3 do\n"
    " local c=redis.call('HMGET',p..':m','t'..l,'g'..l)\n"
    " out[#out+1]=math.max(0,redis.call('LLEN',p..':r'..l)"
    "+(tonumber(c[1]) or 0)-(tonumber(c[2]) or 0))\n"
    " local id=redis.call('LINDEX',p..':r'..l,0)\n"
    " if id and string.sub(id,1,1)=='@' then\n"
    "  id=redis.call('LINDEX',p..':t'..l..':'..string.sub(id,2),0)\n"
    " end\n"
    " local rt=id and redis.call('HGET',p..':j:'..id,'rt')\n"
    " if rt and now-rt>oldest then oldest=now-rt end\n"
    "end\n"
    "out[#out+1]=redis.call('LLEN',p..':x')\n"
    "for _,k in ipairs({':s',':l',':d'}) do\n"
    " out[#out+1]=redis.call('ZCARD',p..k)\n"
    "end\n"
    "local m=redis.call('HMGET',p..':m','done','dead','tick')\n"
    "out[#out+1]=oldest\n"
    "out[#out+1]=tonumber(m[1]) or 0\n"
    "out[#out+1]=tonumber(m[2]) or 0\n"
    "out[#out+1]=m[3] and now-m[3] or -1\n"
    "return out\n";

/* KEYS[1] the lock, ARGV name, life in ms: 1 when the caller leads. */
static const char worker_lua_lead[] =
    "local own=redis.call('GET',KEYS[1])\n"
    "if own and own~=ARGV[1] then return 0 end\n"
    "redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2])\n"
    "return 1\n";

static const stoa_redis_script_t worker_lua_scripts[WORKER_LUA_COUNT] = {
    [WORKER_LUA_ENQUEUE] = { .name = "enqueue", .lua = worker_lua_enqueue },
    [WORKER_LUA_CLAIM] = { .name = "claim", .lua = worker_lua_claim },
    [WORKER_LUA_BEAT] = { .name = "beat", .lua = worker_lua_beat },
    [WORKER_LUA_SETTLE] = { .name = "settle", .lua = worker_lua_settle },
    [WORKER_LUA_TOLD] = { .name = "told", .lua = worker_lua_told },
    [WORKER_LUA_CANCEL] = { .name = "cancel", .lua = worker_lua_cancel },
    [WORKER_LUA_TICK] = { .name = "tick", .lua = worker_lua_tick },
    [WORKER_LUA_STATS] = { .name = "stats", .lua = worker_lua_stats },
    [WORKER_LUA_LEAD] = { .name = "lead", .lua = worker_lua_lead },
};


void
worker_lua_copy(stoa_redis_script_t scripts[WORKER_LUA_COUNT])
{
    memcpy(scripts, worker_lua_scripts, sizeof(worker_lua_scripts));
}
