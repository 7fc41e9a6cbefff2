/*
 * The one header of the nginx host.  Two halves meet here: the gates and the
 * configuration (module, host, auth, rate, revoke, metrics, cache, status)
 * and the request pipeline (handler, input, sql, batch, reply, flows).
 */

#ifndef NGX_HTTP_STOA_H_INCLUDED
#define NGX_HTTP_STOA_H_INCLUDED

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_http.h>

#include "../shared/stoa_bind.h"
#include "../shared/stoa_code.h"
#include "../shared/stoa_conf.h"
#include "../shared/stoa_id.h"
#include "../shared/stoa_input.h"
#include "../shared/stoa_metric.h"
#include "../shared/stoa_redis.h"
#include "../shared/stoa_route.h"
#include "../shared/stoa_str.h"
#include "../shared/stoa_time.h"

_Static_assert(sizeof(stoa_str_t) == sizeof(ngx_str_t)
               && offsetof(stoa_str_t, data) == offsetof(ngx_str_t, data),
               "stoa_str_t mirrors ngx_str_t");

extern ngx_module_t ngx_http_stoa_module;

typedef struct ngx_http_stoa_ctx_s ngx_http_stoa_ctx_t;

/* ---- configuration ---- */

typedef struct {
    ngx_str_t  name;
    ngx_uint_t rate_milli; /* tokens per 1000 s: rate * 1000 */
    ngx_uint_t burst;
    ngx_flag_t dry_run;
} ngx_http_stoa_limit_t;

typedef struct {
    ngx_str_t          settings_path;  /* stoa_settings */
    stoa_conf_t        conf;
    stoa_mem_t        *mem;            /* of cf->pool */
    ngx_shm_zone_t    *zone;           /* stoa_zone name:size */
    ngx_uint_t         pool_size[STOA_POOL_COUNT]; /* of the instance */
    ngx_uint_t         pool_queue;
    ngx_msec_t         pool_queue_timeout;
    ngx_msec_t         pool_timeout[STOA_POOL_COUNT];
    ngx_uint_t         hash_threads;
    ngx_uint_t         hash_queue;
    ngx_http_stoa_limit_t limit_user[STOA_RATE_COUNT]; /* per class */
    ngx_http_stoa_limit_t limit_addr[STOA_RATE_COUNT];
    const stoa_api_t  *api;
    stoa_route_t      *route;
    stoa_bound_row_t  *bound;          /* [api->nrows] */
    ngx_uint_t         nstmts;         /* slots handed out */
    stoa_jwt_keys_t   *keys;
    stoa_code_key_t   *code_key;
    stoa_jwt_rules_t   rules;
    stoa_str_t         refresh_secret; /* derived from JWT_SECRET */
    stoa_str_t         cursor_secret;
    ngx_array_t       *webhook_secrets; /* of stoa_str_t, test + stripe */
    void              *pipeline;  /* made by ngx_http_stoa_flows_init() */
} ngx_http_stoa_main_conf_t;

typedef struct {
    ngx_flag_t api;       /* stoa_api on: this location is served from rows */
    ngx_uint_t auth;      /* 0 off, 1 optional, 2 required (other locations) */
    ngx_uint_t roles;     /* for other locations: set of bits, 0 any */
    ngx_uint_t rate;      /* stoa_rate_e for other locations */
    ngx_uint_t case_snake; /* json_case */
    ngx_uint_t envelope;  /* 0 full, 1 avenrae, 2 bare */
    ngx_flag_t errors;    /* problem bodies also for core errors */
    ngx_array_t *cors;    /* allowed origins, NULL none */
    ngx_flag_t security_headers;
} ngx_http_stoa_loc_conf_t;

/* ---- per process state ---- */

typedef struct {
    stoa_loop_t      *loop;
    stoa_log_t        log;
    stoa_pg_pool_t   *pool[STOA_POOL_COUNT];
    stoa_redis_t     *redis;
    stoa_redis_sub_t *sub;    /* its callback: ngx_http_stoa_wait_message */
    stoa_id_t         ids;
    u_char            reply_to[64]; /* "<host>.<slot>.<generation>" */
    size_t            reply_to_len;
    ngx_uint_t        shutting_down;
} ngx_http_stoa_process_t;

extern ngx_http_stoa_process_t ngx_http_stoa_process;

/* ---- per request ---- */

/* The gates' verdict: a cleanup record in the main request's pool, found by
   its handler, because r->ctx is zeroed by internal redirects. */
typedef struct {
    stoa_match_t           match;    /* row by method; valid when routed */
    const stoa_endpoint_t *ep;       /* NULL: not a row's location */
    ngx_uint_t             routed;   /* 1 found, 0 not a row's path */
    stoa_claims_t          claims;
    ngx_uint_t             authenticated; /* claims are valid */
    stoa_err_e             refused;  /* set when a gate answered */
    ngx_http_stoa_limit_t *limit;    /* that refused, or the last counted */
    ngx_uint_t             limit_remaining;
    ngx_uint_t             retry_after;   /* seconds */
    ngx_uint_t             reset_after;
    u_char                 request_id[36];
    u_char                 addr_prefix[40]; /* v4 /32, v6 /64, text */
    size_t                 addr_prefix_len;
} ngx_http_stoa_gate_t;

struct ngx_http_stoa_ctx_s {
    ngx_http_request_t   *r;
    ngx_http_stoa_gate_t *gate;
    const stoa_endpoint_t *ep;
    const stoa_bound_row_t *bound;
    stoa_mem_t            mem;         /* over r->pool */
    stoa_str_t            raw;         /* body bytes in one piece */
    stoa_json_t          *json;
    stoa_str_t            canonical;   /* body, snake_case */
    stoa_value_t         *path_values; /* by :param */
    stoa_value_t         *query_values;
    stoa_value_t         *body_values;
    stoa_faults_t         faults;
    stoa_str_t            idem_key;
    stoa_uuid_t           new_id;
    int64_t               if_match;    /* -1: none, -2: "*" */
    stoa_str_t            codes;       /* $codes */
    stoa_str_t            hash;        /* $hash */
    stoa_pg_op_t         *op;          /* running statement, or NULL */
    stoa_pg_result_t     *res;         /* freed by the pool's cleanup */
    ngx_uint_t            step;        /* of a flow */
    void                 *flow;        /* a flow's own state */
    ngx_uint_t            retried;
    ngx_uint_t            suspended;   /* count++ was done */
    ngx_uint_t            db_wait_us, db_run_us, db_queries;
    stoa_err_e            error;       /* of the answer, for log variables */

    /* the pipeline's own */
    struct ngx_http_stoa_row_s *row;
    ngx_int_t           (*resume)(ngx_http_stoa_ctx_t *q, stoa_err_e err);
    struct ngx_http_stoa_element_s *element; /* waits in or rides a batch */
    struct ngx_http_stoa_parked_s  *parked;  /* waits for a worker */
    struct ngx_http_stoa_hash_s    *hashing; /* waits for the threads */
    stoa_str_t            accept, origin, lang;
    stoa_str_t            ctx_literal; /* api.ctx as text, made once */
    stoa_str_t            cursor;      /* opened: the last keys, JSON */
    stoa_str_t            filters;     /* what a cursor is bound to */
    stoa_str_t            at;          /* stored time of a keyed answer */
    stoa_str_t            detail;      /* of an error */
    stoa_str_t            errors;      /* of an error: JSON list */
    stoa_str_t            extra;       /* of an error: ",\"name\":value"... */
    stoa_str_t            location;    /* header of the answer */
    ngx_uint_t            page, limit, sort; /* of a list row */
    unsigned              head:1;      /* no body goes out */
    unsigned              keyed:1;     /* carries a usable Idempotency-Key */
    unsigned              replayed:1;
    unsigned              body_read:1;
    unsigned              filling:1;   /* flies for the micro-cache */
    unsigned              cursored:1;  /* list by cursor, not by page */
    unsigned              waited:1;    /* was parked once already */
    unsigned              faulted:1;   /* .faults go into the answer */
};

/* ---- host (ngx_http_stoa_host.c) ---- */

stoa_loop_t *ngx_http_stoa_loop_create(ngx_cycle_t *cycle, stoa_log_t *log);
void ngx_http_stoa_loop_destroy(stoa_loop_t *loop);
void ngx_http_stoa_mem_init(stoa_mem_t *mem, ngx_pool_t *pool);
void ngx_http_stoa_log_init(stoa_log_t *log, ngx_log_t *nlog);

/* ---- gates ---- */

/* Finds or makes the record; NULL: no memory. */
ngx_http_stoa_gate_t *ngx_http_stoa_gate(ngx_http_request_t *r,
                                         ngx_uint_t create);
ngx_int_t ngx_http_stoa_preaccess(ngx_http_request_t *r);
ngx_int_t ngx_http_stoa_access(ngx_http_request_t *r);

/* Verifies with the per-process cache; fills gate->claims. */
stoa_err_e ngx_http_stoa_auth_verify(ngx_http_request_t *r,
                                     ngx_http_stoa_gate_t *gate,
                                     stoa_str_t token);

/* Exact GCRA in the zone; OK or RATE_LIMITED (fills limit_* of gate).
   cost 0 looks only. */
stoa_err_e ngx_http_stoa_rate_take(ngx_http_stoa_gate_t *gate,
                                   ngx_http_stoa_limit_t *limit,
                                   stoa_str_t key, ngx_uint_t cost);

/* Failures of (account, prefix) (decision 24): OK or RATE_LIMITED. */
stoa_err_e ngx_http_stoa_throttle_check(ngx_http_stoa_gate_t *gate,
                                        stoa_str_t account);
void ngx_http_stoa_throttle_fail(ngx_http_stoa_gate_t *gate,
                                 stoa_str_t account);
void ngx_http_stoa_throttle_clear(ngx_http_stoa_gate_t *gate,
                                  stoa_str_t account);

/* Revocations in the zone. */
ngx_uint_t ngx_http_stoa_revoke_loaded(void);
stoa_err_e ngx_http_stoa_revoke_check(const stoa_claims_t *claims);
/* text: "sid <uuid> <exp ms>" or "user <uuid> <epoch>": what PostgreSQL's
   revocation rows and the Redis channel <prefix>ctl carry. */
void ngx_http_stoa_revoke_apply(stoa_str_t text);
ngx_int_t ngx_http_stoa_revoke_init_process(ngx_cycle_t *cycle);

/* Zone: one header in shared memory that the parts carve up. */
ngx_int_t ngx_http_stoa_zone_init(ngx_shm_zone_t *zone, void *old);

/* Metrics. */
void ngx_http_stoa_metric_add(stoa_metric_e m, ngx_int_t n);
ngx_int_t ngx_http_stoa_metric_log(ngx_http_request_t *r); /* LOG phase */
ngx_int_t ngx_http_stoa_status_handler(ngx_http_request_t *r); /* /metrics */
ngx_int_t ngx_http_stoa_health_handler(ngx_http_request_t *r);

/* Micro-cache: OK sent from cache (the reply was made), AGAIN parked behind
   the flight that fills it, DECLINED the caller fills it. */
ngx_int_t ngx_http_stoa_cache_get(ngx_http_stoa_ctx_t *q);
void ngx_http_stoa_cache_put(ngx_http_stoa_ctx_t *q, ngx_uint_t status,
                             stoa_str_t body, stoa_str_t etag);
/* The flight failed: wakes those parked, they run by themselves. */
void ngx_http_stoa_cache_fail(ngx_http_stoa_ctx_t *q);

/* ---- pipeline ---- */

ngx_int_t ngx_http_stoa_handler(ngx_http_request_t *r); /* content */
/* After a suspension: sets the log context, runs posted requests. */
void ngx_http_stoa_resume_begin(ngx_http_stoa_ctx_t *q);
void ngx_http_stoa_resume_end(ngx_connection_t *c);
ngx_int_t ngx_http_stoa_suspend(ngx_http_stoa_ctx_t *q);

ngx_int_t ngx_http_stoa_sql_run(ngx_http_stoa_ctx_t *q); /* row's statement */
ngx_int_t ngx_http_stoa_batch_run(ngx_http_stoa_ctx_t *q);
ngx_int_t ngx_http_stoa_flow_run(ngx_http_stoa_ctx_t *q);

/* Hands out the slots of the pipeline's own statements; called once rows are
   bound (mcf->api, bound, nstmts are set), before pools learn nstmts. */
ngx_int_t ngx_http_stoa_flows_init(ngx_conf_t *cf,
                                   ngx_http_stoa_main_conf_t *mcf);
/* Process start (loop, pools, ids are made) and end (before they go). */
ngx_int_t ngx_http_stoa_pipeline_init_process(ngx_cycle_t *cycle);
void ngx_http_stoa_pipeline_exit_process(ngx_cycle_t *cycle);

/* The row's work without the micro-cache; what a flight runs, and those that
   were parked behind one that failed.  NGX_DONE: it goes on later. */
ngx_int_t ngx_http_stoa_work(ngx_http_stoa_ctx_t *q);
/* Ends a suspended request from an event: finalizes unless rc is NGX_DONE,
   runs posted requests.  q is gone afterwards. */
void ngx_http_stoa_finish(ngx_http_stoa_ctx_t *q, ngx_int_t rc);

/* Messages of the subscriber: "<prefix>reply:<reply_to>" channels. */
void ngx_http_stoa_wait_message(stoa_str_t channel, stoa_str_t message);

/* The only file that sends: ngx_http_stoa_reply.c.  Each returns what a
   content handler may return; for suspended requests it finalizes. */
ngx_int_t ngx_http_stoa_reply_error(ngx_http_stoa_ctx_t *q, stoa_err_e err);
ngx_int_t ngx_http_stoa_reply_answer(ngx_http_stoa_ctx_t *q, ngx_int_t status,
                                     stoa_str_t body, stoa_str_t meta,
                                     stoa_str_t etag);
ngx_int_t ngx_http_stoa_reply_bytes(ngx_http_stoa_ctx_t *q, ngx_int_t status,
                                    stoa_str_t type, stoa_str_t bytes,
                                    stoa_str_t filename);
/* For gates, before there is a ctx: sends the problem, returns the code. */
ngx_int_t ngx_http_stoa_reply_refuse(ngx_http_request_t *r, stoa_err_e err);
/* Header and body filter: problem bodies for nginx's own errors, security
   headers, CORS, request id. */
ngx_int_t ngx_http_stoa_reply_filter_init(ngx_conf_t *cf);

#endif /* NGX_HTTP_STOA_H_INCLUDED */
