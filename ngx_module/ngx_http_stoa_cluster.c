/*
 * Limits that Redis counts for all nodes: one script call for all of them in
 * a request, after the other limits, while the request is parked.
 *
 * The script is the same GCRA over whole numbers by Redis's own clock; what
 * it says of a key is kept in the zone's table.  From that a key that is over
 * its limit is refused without asking, until its time comes: the table knows
 * no more than what was used, so it never refuses one that Redis would let
 * pass.  (Not so with limits of failures, which give back what they hold:
 * these ask each time.)  The same place is counted on by this node alone when
 * Redis is away or does not answer within the limits' deadline; for a second
 * after that nobody waits for it.
 *
 * A request waits in PREACCESS, holding no reference of its own, as that of
 * stock limit_req does; its cleanup takes the command's callback away.
 */

#include "ngx_http_stoa_limit.h"

#define NGX_HTTP_STOA_CLUSTER_REST 1000 /* ms without asking, after silence */
#define NGX_HTTP_STOA_CLUSTER_MAX  (NGX_HTTP_STOA_APPLIED + 2)

typedef struct ngx_http_stoa_cluster_s ngx_http_stoa_cluster_t;

struct ngx_http_stoa_cluster_s {
    ngx_http_request_t    *r;
    ngx_http_stoa_gate_t  *gate;
    stoa_redis_op_t       *op;       /* sent and not answered, or NULL */
    void                 **loc_conf; /* of the location that waits */
    ngx_uint_t             n;        /* of limits, to be counted */
    ngx_uint_t             from;     /* its first in gate->takes */
    ngx_uint_t             asked;    /* so many of these */
    ngx_uint_t             answered; /* PREACCESS is to go on with err */
    stoa_err_e             before;   /* what the gates had said without them */
    stoa_err_e             err;
    ngx_http_stoa_limit_t *limits[NGX_HTTP_STOA_CLUSTER_MAX];
    ngx_uint_t             costs[NGX_HTTP_STOA_CLUSTER_MAX];
};

static ngx_uint_t ngx_http_stoa_cluster_alone;  /* this node counts */
static ngx_uint_t ngx_http_stoa_cluster_silent; /* it did not answer */
static ngx_msec_t ngx_http_stoa_cluster_until;  /* nobody asks it */


void
ngx_http_stoa_cluster_init_process(void)
{
    ngx_http_stoa_cluster_alone = 0;
    ngx_http_stoa_cluster_silent = 0;

    stoa_redis_scripts(ngx_http_stoa_process.redis,
                       ngx_http_stoa_cluster_scripts,
                       NGX_HTTP_STOA_CLUSTER_SCRIPTS);
}


/* ---- whether Redis is there ---- */

static void
ngx_http_stoa_cluster_lost(const char *why)
{
    ngx_http_stoa_metric_add(STOA_M_limit_fallbacks, 1);

    if (!ngx_http_stoa_cluster_alone) {
        ngx_http_stoa_cluster_alone = 1;
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "stoa: limits of the cluster are counted by this node "
                      "alone: Redis %s",
                      why);
    }
}


static void
ngx_http_stoa_cluster_found(void)
{
    ngx_http_stoa_cluster_silent = 0;

    if (ngx_http_stoa_cluster_alone) {
        ngx_http_stoa_cluster_alone = 0;
        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                      "stoa: limits of the cluster are counted in Redis again");
    }
}


static ngx_uint_t
ngx_http_stoa_cluster_usable(void)
{
    if (ngx_http_stoa_process.redis == NULL
        || !stoa_redis_ready(ngx_http_stoa_process.redis))
    {
        return 0;
    }

    return !ngx_http_stoa_cluster_silent
        || (ngx_msec_int_t) (ngx_current_msec - ngx_http_stoa_cluster_until)
               >= 0;
}


/* ---- commands ---- */

/* Numbers as the scripts have them. */
static void
ngx_http_stoa_cluster_pack(u_char *p, const uint64_t *numbers, ngx_uint_t n)
{
    double     number;
    uint64_t   bits;
    ngx_uint_t i, k;

    for (i = 0; i < n; i++) {
        number = (double) numbers[i];
        ngx_memcpy(&bits, &number, 8);

        for (k = 0; k < 8; k++, bits >>= 8) {
            *p++ = (u_char) (bits & 0xff);
        }
    }
}


/* Number at of an answer; all are below 2^53. */
static uint64_t
ngx_http_stoa_cluster_number(stoa_str_t answer, ngx_uint_t at)
{
    double     number;
    uint64_t   bits = 0;
    ngx_uint_t k;

    for (k = 8; k > 0; k--) {
        bits = bits << 8 | answer.data[8 * at + k - 1];
    }

    ngx_memcpy(&number, &bits, 8);

    return number > 0 ? (uint64_t) number : 0;
}


/* "<prefix>{limit}:<name>:<hash>": the tag keeps all keys of a command in one
   slot of a Redis Cluster. */
static stoa_str_t
ngx_http_stoa_cluster_key(const ngx_http_stoa_take_t *take, u_char *p)
{
    stoa_str_t s;

    s.data = p;
    p = ngx_cpymem(p, take->limit->remote.data, take->limit->remote.len);
    stoa_hex_encode((char *) p, take->key, sizeof(take->key));
    s.len = take->limit->remote.len + 2 * sizeof(take->key);

    return s;
}


static stoa_redis_op_t *
ngx_http_stoa_cluster_send(ngx_http_stoa_cluster_script_e script,
                           const ngx_http_stoa_take_t *takes, ngx_uint_t n,
                           uint32_t timeout_ms, stoa_redis_done_pt done,
                           void *data)
{
    const ngx_http_stoa_limit_t *limit;
    stoa_str_t                   argv[2 * NGX_HTTP_STOA_CLUSTER_MAX];
    stoa_err_e                   err;
    ngx_uint_t                   i;
    uint64_t                     numbers[NGX_HTTP_STOA_CLUSTER_ARGS];
    STOA_UNINIT u_char
        keys[NGX_HTTP_STOA_CLUSTER_MAX][NGX_HTTP_STOA_REMOTE_MAX + 32];
    STOA_UNINIT u_char
        args[NGX_HTTP_STOA_CLUSTER_MAX][8 * NGX_HTTP_STOA_CLUSTER_ARGS];

    for (i = 0; i < n; i++) {
        limit = takes[i].limit;

        numbers[0] = limit->rate;
        numbers[1] = limit->period_ms;
        numbers[2] = limit->burst;
        numbers[3] = takes[i].cost;
        numbers[4] = limit->quota;

        if (script == NGX_HTTP_STOA_CLUSTER_TAKE) {
            numbers[5] = limit->quota_ms;
            numbers[6] = limit->dry_run != 0;

        } else {
            numbers[5] = takes[i].busy;
            numbers[6] = takes[i].window;
        }

        argv[i] = ngx_http_stoa_cluster_key(&takes[i], keys[i]);
        ngx_http_stoa_cluster_pack(args[i], numbers,
                                   NGX_HTTP_STOA_CLUSTER_ARGS);
        argv[n + i].data = args[i];
        argv[n + i].len = sizeof(args[i]);
    }

    return stoa_redis_eval(ngx_http_stoa_process.redis,
                           &ngx_http_stoa_cluster_scripts[script], (int) n,
                           (int) (2 * n), argv, timeout_ms, done, data, &err);
}


static ngx_uint_t
ngx_http_stoa_cluster_whole(const stoa_redis_reply_t *reply, ngx_uint_t n)
{
    return stoa_redis_type(reply) == STOA_REDIS_STRING
        && stoa_redis_str(reply).len
               == 8 * (2 + n * NGX_HTTP_STOA_CLUSTER_TOLD);
}


/* Entry i of an answer, in this node's time; *end in theirs.  NGX_OK: it
   fits. */
static ngx_int_t
ngx_http_stoa_cluster_read(stoa_str_t answer, ngx_uint_t i, int64_t now,
                           ngx_http_stoa_state_t *st, uint64_t *end)
{
    ngx_uint_t at = 2 + i * NGX_HTTP_STOA_CLUSTER_TOLD;
    uint64_t   theirs = ngx_http_stoa_cluster_number(answer, 1);

    st->debt = ngx_http_stoa_cluster_number(answer, at + 1);
    st->busy = ngx_http_stoa_cluster_number(answer, at + 2);
    st->used = ngx_http_stoa_cluster_number(answer, at + 3);
    *end = ngx_http_stoa_cluster_number(answer, at + 4);
    st->end = *end > theirs ? (uint64_t) now + *end - theirs : 0;

    return ngx_http_stoa_cluster_number(answer, at) == 1 ? NGX_OK
                                                         : NGX_DECLINED;
}


/* ---- a request ---- */

static void
ngx_http_stoa_cluster_cleanup(void *data)
{
    ngx_http_stoa_cluster_t *c = data;

    if (c->op != NULL) {
        stoa_redis_cancel(c->op);
        c->op = NULL;
    }
}


ngx_int_t
ngx_http_stoa_cluster_add(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                          ngx_http_stoa_limit_t *limit, ngx_uint_t cost)
{
    ngx_http_stoa_cluster_t *c = gate->cluster;
    ngx_http_cleanup_t      *cln;
    ngx_uint_t               i;

    if (c == NULL) {
        cln = ngx_http_cleanup_add(r, sizeof(ngx_http_stoa_cluster_t));
        if (cln == NULL) {
            return NGX_ERROR;
        }

        c = cln->data;
        ngx_memzero(c, sizeof(ngx_http_stoa_cluster_t));
        c->r = r;
        c->gate = gate;
        cln->handler = ngx_http_stoa_cluster_cleanup;
        gate->cluster = c;
    }

    for (i = 0; i < c->n; i++) {
        if (c->limits[i] == limit) {
            return NGX_OK;
        }
    }

    if (c->n < NGX_HTTP_STOA_CLUSTER_MAX) {
        c->costs[c->n] = cost;
        c->limits[c->n++] = limit;
    }

    return NGX_OK;
}


/* Places for what is asked, for the limits whose keys are known by now. */
static ngx_int_t
ngx_http_stoa_cluster_keys(ngx_http_stoa_cluster_t *c)
{
    ngx_http_stoa_take_t *take;
    ngx_uint_t            i;
    uint64_t              key[2];

    c->from = c->gate->takes.nelts;
    c->asked = 0;

    for (i = 0; i < c->n; i++) {
        if (ngx_http_stoa_taken(c->gate, c->limits[i])
            || ngx_http_stoa_key_hash(c->r, c->gate, c->limits[i], key)
                   != NGX_OK)
        {
            continue;
        }

        take = ngx_http_stoa_take_push(c->gate, c->limits[i]);
        if (take == NULL) {
            return NGX_ERROR;
        }

        take->key[0] = key[0];
        take->key[1] = key[1];
        take->cost = c->costs[i];
        c->asked++;
    }

    c->n = 0;

    return NGX_OK;
}


static ngx_http_stoa_take_t *
ngx_http_stoa_cluster_takes(ngx_http_stoa_cluster_t *c)
{
    return (ngx_http_stoa_take_t *) c->gate->takes.elts + c->from;
}


static stoa_err_e
ngx_http_stoa_cluster_here(ngx_http_stoa_cluster_t *c, const char *why)
{
    ngx_http_stoa_cluster_lost(why);

    return ngx_http_stoa_limit_take(ngx_http_stoa_cluster_takes(c), c->asked,
                                    0);
}


static stoa_err_e
ngx_http_stoa_cluster_there(ngx_http_stoa_cluster_t *c, stoa_str_t answer)
{
    ngx_http_stoa_take_t *takes = ngx_http_stoa_cluster_takes(c);
    ngx_http_stoa_state_t st;
    ngx_uint_t            i, charged, fits;
    int64_t               now = stoa_time_ms();

    ngx_http_stoa_cluster_found();
    charged = ngx_http_stoa_cluster_number(answer, 0) == 1;

    for (i = 0; i < c->asked; i++) {
        fits = ngx_http_stoa_cluster_read(answer, i, now, &st, &takes[i].window)
            == NGX_OK;
        ngx_http_stoa_limit_told(&takes[i], &st, fits, now);

        takes[i].charged = charged && fits && takes[i].cost != 0;
        takes[i].remote = 1;
        takes[i].busy = (uint32_t) st.busy;
    }

    if (!charged) {
        ngx_http_stoa_metric_add(STOA_M_limit_refusals, 1);
    }

    return charged ? STOA_OK : STOA_E_RATE_LIMITED;
}


static void
ngx_http_stoa_cluster_done(stoa_redis_op_t *op, stoa_err_e err,
                           const stoa_redis_reply_t *reply, void *data)
{
    ngx_http_stoa_cluster_t *c = data;

    c->op = NULL;

    if (ngx_http_stoa_process.shutting_down) {
        return; /* the process ends, and its connections with it */
    }

    if (err == STOA_E_TIMEOUT) {
        ngx_http_stoa_cluster_silent = 1;
        ngx_http_stoa_cluster_until = ngx_current_msec
                                    + NGX_HTTP_STOA_CLUSTER_REST;
        c->err = ngx_http_stoa_cluster_here(c, "does not answer in time");

    } else if (err != STOA_OK) {
        c->err = ngx_http_stoa_cluster_here(c, "was lost");

    } else if (!ngx_http_stoa_cluster_whole(reply, c->asked)) {
        c->err = ngx_http_stoa_cluster_here(c, "refuses the script");

    } else {
        c->err = ngx_http_stoa_cluster_there(c, stoa_redis_str(reply));
    }

    c->answered = 1;
    ngx_http_stoa_gate_run(c->r);
}


/* The shortest of the limits' deadlines. */
static uint32_t
ngx_http_stoa_cluster_timeout(ngx_http_stoa_cluster_t *c)
{
    ngx_http_stoa_take_t *takes = ngx_http_stoa_cluster_takes(c);
    ngx_msec_t            ms = takes[0].limit->timeout;
    ngx_uint_t            i;

    for (i = 1; i < c->asked; i++) {
        ms = ngx_min(ms, takes[i].limit->timeout);
    }

    return (uint32_t) ms;
}


ngx_int_t
ngx_http_stoa_cluster_take(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                           stoa_err_e *err)
{
    ngx_http_stoa_cluster_t *c = gate->cluster;
    ngx_http_stoa_take_t    *takes;

    c->before = *err;

    if (ngx_http_stoa_cluster_keys(c) != NGX_OK) {
        *err = STOA_E_INTERNAL;
        return NGX_OK;
    }

    if (c->asked == 0) {
        return NGX_OK;
    }

    takes = ngx_http_stoa_cluster_takes(c);

    if (ngx_http_stoa_limit_take(takes, c->asked, 1) != STOA_OK) {
        ngx_http_stoa_metric_add(STOA_M_limit_remembered, 1);
        *err = STOA_E_RATE_LIMITED;
        return NGX_OK;
    }

    if (ngx_http_stoa_cluster_usable()) {
        c->op = ngx_http_stoa_cluster_send(NGX_HTTP_STOA_CLUSTER_TAKE, takes,
                                           c->asked,
                                           ngx_http_stoa_cluster_timeout(c),
                                           ngx_http_stoa_cluster_done, c);
        if (c->op != NULL) {
            c->loc_conf = r->loc_conf;
            return ngx_http_stoa_gate_park(r, "waiting for redis");
        }
    }

    if (ngx_http_stoa_cluster_here(c, "is away") != STOA_OK) {
        *err = STOA_E_RATE_LIMITED;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_stoa_cluster_answered(ngx_http_request_t   *r,
                               ngx_http_stoa_gate_t *gate, stoa_err_e *err)
{
    ngx_http_stoa_cluster_t *c = gate->cluster;

    if (c == NULL) {
        return NGX_DECLINED;
    }

    if (c->op != NULL) {
        if (c->loc_conf == r->loc_conf) {
            return NGX_AGAIN;
        }

        /* the client has left, and this is its post_action */
        ngx_http_stoa_cluster_cleanup(c);
        return NGX_DECLINED;
    }

    if (!c->answered) {
        return NGX_DECLINED;
    }

    c->answered = 0;
    *err = c->err != STOA_OK ? c->err : c->before;

    return NGX_OK;
}


/* ---- what was not a failure ---- */

/* Nobody waits; but a script that Redis has forgotten is sent to it again only
   for a command that somebody waits for. */
static void
ngx_http_stoa_cluster_refunded(stoa_redis_op_t *op, stoa_err_e err,
                               const stoa_redis_reply_t *reply, void *data)
{
}


void
ngx_http_stoa_cluster_refund(const ngx_http_stoa_take_t *take)
{
    /* without Redis it grows back by itself */

    if (ngx_http_stoa_process.redis != NULL) {
        (void) ngx_http_stoa_cluster_send(NGX_HTTP_STOA_CLUSTER_REFUND, take, 1,
                                          0, ngx_http_stoa_cluster_refunded,
                                          NULL);
    }
}
