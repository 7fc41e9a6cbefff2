/*
 * Presence: marks in Redis that say who is online, and the question who is.
 *
 * A user's marks are a sorted set "<prefix>{u:<id>}:on": a member for each
 * connection that is held, and "http" for requests; the score is when the
 * mark runs out by Redis's own clock.  Nothing sweeps: who stops is offline
 * when the last mark runs out, and both keys expire by themselves.  When
 * somebody was last seen stands beside it, for a month.
 *
 * A request never waits for its mark.  A process tells Redis of the same
 * person once in MARK_REST; whom it has told of stands in a table of fixed
 * size, whose oldest entries give way.  Marks that Redis does not answer are
 * bounded, and without Redis nothing is sent at all: the next request tries.
 *
 * People alone are marked, by sessions of their own: a program with a key is
 * not its owner being there, and neither is an admin in somebody's name.
 */

#include "ngx_http_stoa_conf.h"
#include "ngx_http_stoa_lua.h"
#include "stoa_str.h"

#define NGX_HTTP_STOA_MARK_LIFE    60000        /* ms */
#define NGX_HTTP_STOA_MARK_REST    20000        /* ms between two of a person */
#define NGX_HTTP_STOA_MARK_SEEN    2592000000LL /* ms: 30 days */
#define NGX_HTTP_STOA_MARK_PENDING 1024         /* not answered */
#define NGX_HTTP_STOA_MARK_BUCKETS 4096         /* a power of two */
#define NGX_HTTP_STOA_MARK_WAYS    4            /* places of one bucket */
#define NGX_HTTP_STOA_MARK_KEY     96           /* bytes of a key */
#define NGX_HTTP_STOA_MARK_ID      36           /* of an id as text */

typedef struct {
    stoa_uuid_t user;
    int64_t     at; /* ms, of the last mark; 0: never used */
} ngx_http_stoa_mark_t;

typedef enum {
    NGX_HTTP_STOA_PRESENCE_MARK = 0,
    NGX_HTTP_STOA_PRESENCE_ASK,
    NGX_HTTP_STOA_PRESENCE_SCRIPTS
} ngx_http_stoa_presence_script_e;

/* KEYS: marks, seen.  ARGV: member, its life, that of seen.  Answers 1 when
   there was no mark: the person comes online. */
static const char ngx_http_stoa_presence_mark_lua[] = NGX_HTTP_STOA_LUA_NOW
    "redis.call('ZREMRANGEBYSCORE',KEYS[1],'-inf',now)\n"
    "local first=1-redis.call('EXISTS',KEYS[1])\n"
    "redis.call('ZADD',KEYS[1],now+ARGV[2],ARGV[1])\n"
    "redis.call('PEXPIRE',KEYS[1],ARGV[2])\n"
    "redis.call('SET',KEYS[2],now,'PX',ARGV[3])\n"
    "return first\n";

/* KEYS: the marks of each, then when each was seen.  Answers how many marks
   each has that have not run out, then each one's time or "". */
static const char ngx_http_stoa_presence_ask_lua[] = NGX_HTTP_STOA_LUA_NOW
    "local n,out=#KEYS/2,{}\n"
    "local seen=redis.call('MGET',unpack(KEYS,n+1))\n"
    "for i=1,n do\n"
    " out[i]=redis.call('ZCOUNT',KEYS[i],now+1,'+inf')\n"
    " out[n+i]=seen[i] or ''\n"
    "end\n"
    "return out\n";

/* Sums are filled when Redis has loaded them: each process has its own. */
static stoa_redis_script_t
    ngx_http_stoa_presence_scripts[NGX_HTTP_STOA_PRESENCE_SCRIPTS] = {
        [NGX_HTTP_STOA_PRESENCE_MARK] = {
            .name = "presence_mark",
            .lua = ngx_http_stoa_presence_mark_lua,
        },
        [NGX_HTTP_STOA_PRESENCE_ASK] = {
            .name = "presence_ask",
            .lua = ngx_http_stoa_presence_ask_lua,
        },
    };

static ngx_http_stoa_mark_t ngx_http_stoa_marks[NGX_HTTP_STOA_MARK_BUCKETS]
                                               [NGX_HTTP_STOA_MARK_WAYS];
static ngx_uint_t ngx_http_stoa_marks_pending;
static ngx_uint_t ngx_http_stoa_marks_failing; /* said in the log */


void
ngx_http_stoa_presence_init_process(void)
{
    ngx_http_stoa_marks_pending = 0;
    ngx_http_stoa_marks_failing = 0;

    stoa_redis_scripts(ngx_http_stoa_process.redis,
                       ngx_http_stoa_presence_scripts,
                       NGX_HTTP_STOA_PRESENCE_SCRIPTS);
}


/* "<prefix>{u:<id>}:<what>": the tag keeps a user's keys in one slot. */
static stoa_str_t
ngx_http_stoa_presence_key(u_char *p, const u_char *id, const char *what)
{
    stoa_str_t key;

    key.data = p;
    key.len = (size_t) (ngx_snprintf(p, NGX_HTTP_STOA_MARK_KEY, "%s{u:%*s}:%s",
                                     ngx_http_stoa_process.mcf->conf
                                         .redis_prefix,
                                     (size_t) NGX_HTTP_STOA_MARK_ID, id, what)
                        - p);

    return key;
}


/* ---- marks ---- */

/* The place of a user, or the one that gives way. */
static ngx_http_stoa_mark_t *
ngx_http_stoa_mark_place(const stoa_uuid_t *user)
{
    uint32_t              hash;
    ngx_uint_t            i;
    ngx_http_stoa_mark_t *bucket, *oldest;

    /* the end of an id is random */
    ngx_memcpy(&hash, (const u_char *) user + sizeof(stoa_uuid_t) - 4, 4);
    bucket = ngx_http_stoa_marks[hash & (NGX_HTTP_STOA_MARK_BUCKETS - 1)];
    oldest = bucket;

    for (i = 0; i < NGX_HTTP_STOA_MARK_WAYS; i++) {
        if (ngx_memcmp(&bucket[i].user, user, sizeof(stoa_uuid_t)) == 0) {
            return &bucket[i];
        }

        if (bucket[i].at < oldest->at) {
            oldest = &bucket[i];
        }
    }

    return oldest;
}


static void
ngx_http_stoa_marked(stoa_redis_op_t *op, stoa_err_e err,
                     const stoa_redis_reply_t *reply, void *data)
{
    stoa_str_t why;

    ngx_http_stoa_marks_pending--;

    if (ngx_http_stoa_process.shutting_down) {
        return; /* the process ends, and its connections with it */
    }

    if (err == STOA_OK && stoa_redis_type(reply) == STOA_REDIS_INTEGER) {
        ngx_http_stoa_marks_failing = 0;
        return;
    }

    ngx_http_stoa_metric_add(STOA_M_presence_dropped, 1);

    /* of a lost connection the connection itself tells */
    if (err == STOA_OK && !ngx_http_stoa_marks_failing) {
        ngx_http_stoa_marks_failing = 1;
        why = stoa_redis_str(reply);
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "stoa: Redis refuses marks of presence: %*s", why.len,
                      why.data);
    }
}


static void
ngx_http_stoa_mark(const stoa_uuid_t *user)
{
    u_char                keys[2][NGX_HTTP_STOA_MARK_KEY];
    u_char                id[NGX_HTTP_STOA_MARK_ID + 1], life[NGX_INT64_LEN];
    u_char                seen[NGX_INT64_LEN];
    int64_t               now = stoa_time_ms();
    stoa_str_t            argv[5] = { [2] = stoa_string("http") };
    stoa_redis_t         *redis = ngx_http_stoa_process.redis;
    ngx_http_stoa_mark_t *mark = ngx_http_stoa_mark_place(user);

    if (ngx_memcmp(&mark->user, user, sizeof(stoa_uuid_t)) == 0
        && now >= mark->at && now - mark->at < NGX_HTTP_STOA_MARK_REST)
    {
        return;
    }

    if (redis == NULL || !stoa_redis_ready(redis)
        || ngx_http_stoa_marks_pending >= NGX_HTTP_STOA_MARK_PENDING)
    {
        ngx_http_stoa_metric_add(STOA_M_presence_dropped, 1);
        return;
    }

    stoa_uuid_print(user, (char *) id);
    argv[0] = ngx_http_stoa_presence_key(keys[0], id, "on");
    argv[1] = ngx_http_stoa_presence_key(keys[1], id, "seen");
    argv[3].data = life;
    argv[3].len = (size_t) (ngx_sprintf(life, "%L",
                                        (int64_t) NGX_HTTP_STOA_MARK_LIFE)
                            - life);
    argv[4].data = seen;
    argv[4].len = (size_t) (ngx_sprintf(seen, "%L",
                                        (int64_t) NGX_HTTP_STOA_MARK_SEEN)
                            - seen);

    if (stoa_redis_eval(redis,
                        &ngx_http_stoa_presence_scripts
                            [NGX_HTTP_STOA_PRESENCE_MARK],
                        2, 5, argv, 0, ngx_http_stoa_marked, NULL, NULL)
        == NULL)
    {
        ngx_http_stoa_metric_add(STOA_M_presence_dropped, 1);
        return;
    }

    ngx_http_stoa_marks_pending++;
    ngx_http_stoa_metric_add(STOA_M_presence_marks, 1);
    mark->user = *user;
    mark->at = now;
}


/* PRECONTENT: "satisfy any" may let somebody pass whom the gate refused. */
ngx_int_t
ngx_http_stoa_presence(ngx_http_request_t *r)
{
    ngx_http_stoa_gate_t     *gate;
    ngx_http_stoa_loc_conf_t *lcf = ngx_http_stoa_lcf(r);

    if (!lcf->presence || r != r->main) {
        return NGX_DECLINED;
    }

    gate = ngx_http_stoa_gate(r, 0);

    if (gate != NULL && gate->refused == STOA_OK
        && (lcf->auth != 0 || gate->ep != NULL)
        && ngx_http_stoa_own_session(gate))
    {
        ngx_http_stoa_mark(&gate->claims.sub);
    }

    return NGX_DECLINED;
}


/* ---- stoa_presence on | off; ---- */

char *
ngx_http_stoa_conf_presence(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_stoa_loc_conf_t *lcf = conf;
    char                     *rv;

    rv = ngx_conf_set_flag_slot(cf, cmd, conf);

    if (rv != NGX_CONF_OK || !lcf->presence) {
        return rv;
    }

    ngx_http_stoa_conf_use(cf, cmd);

    return ngx_http_stoa_conf_noted(cf, cmd, &lcf->presence_at) == NGX_OK
             ? NGX_CONF_OK
             : NGX_CONF_ERROR;
}


/* ---- PUT /presence ---- */

static ngx_http_stoa_go_e
ngx_http_stoa_presence_beat(ngx_http_stoa_ctx_t *q)
{
    ngx_http_stoa_mark(&q->gate->claims.sub);

    return ngx_http_stoa_flow_end(
        q, ngx_http_stoa_reply_empty(q, NGX_HTTP_NO_CONTENT));
}


/* ---- GET /presence ---- */

typedef struct {
    ngx_http_stoa_ctx_t *q;
    stoa_redis_op_t     *op;   /* sent and not answered, or NULL */
    ngx_uint_t           n;    /* of those who may be seen */
    const u_char        *ids;  /* theirs, each with a comma behind it */
    int64_t             *seen; /* ms, 0: never */
    u_char              *on;
    ngx_uint_t           known; /* Redis has said it */
} ngx_http_stoa_presence_t;


static void
ngx_http_stoa_presence_cleanup(void *data)
{
    ngx_http_stoa_presence_t *p = data;

    if (p->op != NULL) {
        stoa_redis_cancel(p->op);
        p->op = NULL;
    }
}


static ngx_uint_t
ngx_http_stoa_presence_read(ngx_http_stoa_presence_t *p,
                            const stoa_redis_reply_t *reply)
{
    const stoa_redis_reply_t *on, *seen;
    ngx_uint_t                i;

    if (stoa_redis_type(reply) != STOA_REDIS_ARRAY
        || stoa_redis_count(reply) != 2 * p->n)
    {
        return 0;
    }

    for (i = 0; i < p->n; i++) {
        on = stoa_redis_at(reply, i);
        seen = stoa_redis_at(reply, p->n + i);

        if (stoa_redis_type(on) != STOA_REDIS_INTEGER
            || stoa_redis_type(seen) != STOA_REDIS_STRING)
        {
            return 0;
        }

        p->on[i] = stoa_redis_int(on) > 0;

        if (!stoa_str_int(stoa_redis_str(seen), 0, INT64_MAX, &p->seen[i])) {
            p->seen[i] = 0;
        }
    }

    return 1;
}


static void
ngx_http_stoa_presence_told(stoa_redis_op_t *op, stoa_err_e err,
                            const stoa_redis_reply_t *reply, void *data)
{
    ngx_http_stoa_presence_t *p = data;
    ngx_http_stoa_ctx_t      *q = p->q;

    p->op = NULL;

    if (ngx_http_stoa_process.shutting_down) {
        return; /* the process ends, and its connections with it */
    }

    p->known = err == STOA_OK && ngx_http_stoa_presence_read(p, reply);

    ngx_http_stoa_resume_begin(q);
    ngx_http_stoa_finish(q, q->resume(q, STOA_OK));
}


/* NGX_AGAIN: sent; NGX_DECLINED: Redis is away. */
static ngx_int_t
ngx_http_stoa_presence_send(ngx_http_stoa_presence_t *p)
{
    u_char       *keys, *key;
    stoa_str_t   *argv;
    ngx_uint_t    i;
    ngx_pool_t   *pool = p->q->r->pool;
    stoa_redis_t *redis = ngx_http_stoa_process.redis;

    if (redis == NULL || !stoa_redis_ready(redis)) {
        return NGX_DECLINED;
    }

    argv = ngx_palloc(pool, 2 * p->n * sizeof(stoa_str_t));
    keys = ngx_pnalloc(pool, 2 * p->n * NGX_HTTP_STOA_MARK_KEY);
    p->seen = ngx_pcalloc(pool, p->n * sizeof(int64_t));
    p->on = ngx_pcalloc(pool, p->n);

    if (argv == NULL || keys == NULL || p->seen == NULL || p->on == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < 2 * p->n; i++) {
        key = keys + i * NGX_HTTP_STOA_MARK_KEY;
        argv[i] = ngx_http_stoa_presence_key(key,
                                             p->ids
                                                 + i % p->n
                                                       * (NGX_HTTP_STOA_MARK_ID
                                                          + 1),
                                             i < p->n ? "on" : "seen");
    }

    p->op = stoa_redis_eval(redis,
                            &ngx_http_stoa_presence_scripts
                                [NGX_HTTP_STOA_PRESENCE_ASK],
                            (int) (2 * p->n), (int) (2 * p->n), argv, 0,
                            ngx_http_stoa_presence_told, p, NULL);

    return p->op != NULL ? NGX_AGAIN : NGX_DECLINED;
}


static ngx_http_stoa_go_e
ngx_http_stoa_presence_allowed(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t values[2];

    values[0] = ngx_http_stoa_ctx_literal(q);
    values[1] = ngx_http_stoa_query_value(q, "ids");

    return ngx_http_stoa_flow_query(q, STOA_POOL_FAST, STOA_STMT_PRESENCE,
                                    values, 2);
}


static ngx_http_stoa_go_e
ngx_http_stoa_presence_ask(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t              ids = ngx_http_stoa_flow_column(q, "ids");
    ngx_http_cleanup_t       *cln;
    ngx_http_stoa_presence_t *p;

    cln = ngx_http_cleanup_add(q->r, sizeof(ngx_http_stoa_presence_t));
    if (cln == NULL) {
        return ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
    }

    p = cln->data;
    ngx_memzero(p, sizeof(ngx_http_stoa_presence_t));
    cln->handler = ngx_http_stoa_presence_cleanup;
    p->q = q;
    p->ids = ids.data;
    p->n = (ids.len + 1) / (NGX_HTTP_STOA_MARK_ID + 1);
    q->flow = p;

    if (p->n == 0) {
        return NGX_HTTP_STOA_NEXT;
    }

    switch (ngx_http_stoa_presence_send(p)) {

    case NGX_AGAIN:
        q->resume = ngx_http_stoa_flow_resume;
        q->r->connection->log->action = (char *) "waiting for redis";
        return ngx_http_stoa_flow_wait(q, ngx_http_stoa_suspend(q));

    case NGX_DECLINED:
        return NGX_HTTP_STOA_NEXT;

    default:
        return ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
    }
}


static ngx_http_stoa_go_e
ngx_http_stoa_presence_reply(ngx_http_stoa_ctx_t *q)
{
    char                            at[24];
    stoa_buf_t                      b;
    ngx_uint_t                      i;
    const ngx_http_stoa_presence_t *p = q->flow;

    stoa_buf_init(&b, &q->mem, 128 * (p->n + 1), 65536);
    stoa_buf_char(&b, '[');

    for (i = 0; i < p->n; i++) {
        stoa_buf_z(&b, i > 0 ? ",{\"id\":\"" : "{\"id\":\"");
        stoa_buf_put(&b, p->ids + i * (NGX_HTTP_STOA_MARK_ID + 1),
                     NGX_HTTP_STOA_MARK_ID);
        stoa_buf_z(&b, "\",\"status\":");
        stoa_buf_z(&b, !p->known  ? "\"unknown\""
                       : p->on[i] ? "\"online\""
                                  : "\"offline\"");
        stoa_buf_z(&b, ",\"lastSeenAt\":");

        if (p->known && p->seen[i] != 0) {
            stoa_time_print(p->seen[i], at);
            stoa_buf_char(&b, '"');
            stoa_buf_put(&b, at, sizeof(at));
            stoa_buf_char(&b, '"');

        } else {
            stoa_buf_z(&b, "null");
        }

        stoa_buf_char(&b, '}');
    }

    stoa_buf_char(&b, ']');

    return ngx_http_stoa_flow_data(q, NGX_HTTP_OK, &b);
}


const ngx_http_stoa_step_t ngx_http_stoa_flow_presence_beat[] = {
    { "mark", ngx_http_stoa_presence_beat },
    ngx_http_stoa_steps_end,
};

const ngx_http_stoa_step_t ngx_http_stoa_flow_presence_list[] = {
    { "allowed", ngx_http_stoa_presence_allowed }, /* pg, waits */
    { "ask", ngx_http_stoa_presence_ask },         /* redis, waits */
    { "reply", ngx_http_stoa_presence_reply },
    ngx_http_stoa_steps_end,
};
