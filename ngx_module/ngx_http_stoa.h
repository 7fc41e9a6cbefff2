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
#include "../shared/stoa_common.h"
#include "../shared/stoa_hash.h"
#include "../shared/stoa_hmac.h"
#include "../shared/stoa_id.h"
#include "../shared/stoa_input.h"
#include "../shared/stoa_issuer.h"
#include "../shared/stoa_metric.h"
#include "../shared/stoa_redis.h"
#include "../shared/stoa_route.h"
#include "../shared/stoa_seal.h"
#include "../shared/stoa_str.h"
#include "../shared/stoa_time.h"
#include "../shared/stoa_totp.h"
#include "../shared/api/stoa_flow.h"

_Static_assert(sizeof(stoa_str_t) == sizeof(ngx_str_t)
                   && offsetof(stoa_str_t, data) == offsetof(ngx_str_t, data),
               "stoa_str_t mirrors ngx_str_t");

extern ngx_module_t ngx_http_stoa_module;

typedef struct ngx_http_stoa_ctx_s ngx_http_stoa_ctx_t;

/* ---- configuration ---- */

/* Where a directive stands, for what can be judged only later. */
typedef struct {
    ngx_str_t  name;
    ngx_str_t  file;
    ngx_uint_t line;
} ngx_http_stoa_place_t;

/* What a limit counts by: a part of a key (ngx_http_stoa_limit_key.c). */
typedef struct ngx_http_stoa_key_s ngx_http_stoa_key_t;

#define NGX_HTTP_STOA_KEY_PARTS 4  /* "user+route" has two */
#define NGX_HTTP_STOA_KEYS      4  /* "user|addr" has two */
#define NGX_HTTP_STOA_APPLIED   8  /* policies of one location */
#define NGX_HTTP_STOA_POLICIES  48 /* of the instance */

/*
 * A limit: rate requests per period_ms, exactly, burst of them at once; and
 * with a quota so many in each window of quota_ms, which a key's first request
 * opens.  One of a class of rows or a policy by name.
 */
typedef struct {
    ngx_str_t  name; /* "read", on the wire too */
    ngx_uint_t rate; /* 0: off */
    ngx_uint_t period_ms;
    ngx_uint_t burst;
    ngx_uint_t quota; /* 0: none */
    ngx_uint_t quota_ms;
    ngx_uint_t cost;       /* of a request; a class's stands in the row */
    ngx_int_t  cost_index; /* of a variable, or NGX_ERROR */
    ngx_uint_t cost_least; /* that a variable may say */
    ngx_flag_t dry_run;
    ngx_flag_t cluster; /* counted in Redis for all nodes */
    ngx_flag_t failure; /* only answers with a status of .statuses */
    ngx_uint_t log_level;
    ngx_msec_t timeout;     /* of Redis */
    uint64_t   statuses[4]; /* bits of 400..599 */
    ngx_str_t  key_text;    /* as it was configured */
    /* alternatives, the first that is known counts; each ends with NULL */
    const ngx_http_stoa_key_t
                         *key[NGX_HTTP_STOA_KEYS][NGX_HTTP_STOA_KEY_PARTS + 1];
    ngx_uint_t            nkeys;
    ngx_uint_t            verified; /* some part needs the token */
    ngx_uint_t            shared;   /* many clients may have one key */
    ngx_str_t             policy;   /* of RateLimit-Policy */
    ngx_str_t             remote;   /* what its keys in Redis begin with */
    u_char                tag[8];   /* name and kind, of every key */
    ngx_uint_t            cell;     /* of its counters in the zone */
    ngx_uint_t            defined;
    ngx_http_stoa_place_t at;
} ngx_http_stoa_limit_t;

/* What a limit said to this request; filled by ngx_http_stoa_limit.c. */
typedef struct {
    ngx_http_stoa_limit_t *limit;
    uint64_t               key[2];
    ngx_uint_t             cost;
    ngx_uint_t             remaining; /* of burst */
    ngx_uint_t             reset;     /* s until it is whole, or the next try */
    ngx_uint_t             left;      /* of quota */
    ngx_uint_t             renew;     /* s until the next window */
    ngx_uint_t             retry;     /* s, of what is over; 0: not told */
    uint64_t               window; /* it was charged in the one that ends then,
                                      ms */
    uint32_t busy; /* it was charged in this busy period of its place */
    unsigned over_burst : 1;
    unsigned over_quota : 1;
    unsigned charged    : 1;
    unsigned remote     : 1; /* in Redis */
    unsigned said       : 1; /* in the log */
} ngx_http_stoa_take_t;

/* What a limit said last, for $stoa_limit_status. */
typedef enum {
    NGX_HTTP_STOA_LIMIT_NONE = 0,
    NGX_HTTP_STOA_LIMIT_PASSED,
    NGX_HTTP_STOA_LIMIT_REJECTED,
    NGX_HTTP_STOA_LIMIT_DRY_RUN
} ngx_http_stoa_limit_status_e;

typedef enum {
    NGX_HTTP_STOA_CACHE_NONE = 0,
    NGX_HTTP_STOA_CACHE_MISS,
    NGX_HTTP_STOA_CACHE_HIT,
    NGX_HTTP_STOA_CACHE_WAIT /* behind the flight of another request */
} ngx_http_stoa_cache_status_e;

/* AUTH_COOKIE_MODE, in the order of its words. */
typedef enum {
    NGX_HTTP_STOA_COOKIES_OFF = 0,
    NGX_HTTP_STOA_COOKIES_REFRESH,
    NGX_HTTP_STOA_COOKIES_BOTH
} ngx_http_stoa_cookies_e;

typedef struct {
    ngx_str_t             settings_path; /* stoa_settings */
    stoa_conf_t           conf;
    stoa_mem_t           *mem;                        /* of cf->pool */
    ngx_shm_zone_t       *zone;                       /* stoa_zone name:size */
    ngx_uint_t            pool_size[STOA_POOL_COUNT]; /* of the instance */
    ngx_uint_t            pool_queue;
    ngx_msec_t            pool_queue_timeout;
    ngx_msec_t            pool_timeout[STOA_POOL_COUNT];
    ngx_uint_t            hash_threads;
    ngx_uint_t            hash_queue;
    ngx_msec_t            hash_wait; /* who waited longer is refused */
    ngx_http_stoa_limit_t limit_user[STOA_RATE_COUNT]; /* per class */
    ngx_http_stoa_limit_t limit_addr[STOA_RATE_COUNT];
    ngx_array_t          *policies; /* of ngx_http_stoa_limit_t *, by name */
    ngx_array_t          *applied;  /* of ngx_http_stoa_applied_t */
    u_char                limit_key[16]; /* of hashes; the same on all nodes */
    const stoa_api_t     *api;
    stoa_route_t         *route;
    stoa_bound_row_t     *bound;  /* [api->nrows] */
    ngx_uint_t            nstmts; /* slots handed out */
    stoa_jwt_keys_t      *keys;
    stoa_code_key_t      *code_key;
    stoa_jwt_rules_t      rules;
    stoa_str_t            refresh_secret; /* derived from JWT_SECRET */
    stoa_str_t            cursor_secret;
    ngx_array_t          *webhook_secrets; /* of stoa_str_t, stripe, test */
    ngx_uint_t            webhook_nstripe; /* so many are Stripe's */
    void                 *pipeline;   /* made by ngx_http_stoa_flows_init() */
    stoa_mem_t           *secrets;    /* not in core dumps, wiped at exit */
    ngx_http_stoa_limit_t login;      /* failures of (account, prefix) */
    size_t                cache_size; /* micro-cache of one process, 0: off */
    time_t                leeway;     /* s that clocks of a token's maker may
                                         differ from ours */
    time_t                leeway_default;
    stoa_pg_stmt_t        stmts[STOA_STMT_COUNT]; /* with slots */
    stoa_str_t            throttle_secret;
    stoa_str_t            csrf_secret;
    ngx_uint_t            cookies;          /* ngx_http_stoa_cookies_e */
    stoa_str_t            challenge_secret; /* of sign-ins that want a code */
    stoa_seal_t          *seal;             /* second factors */
    uint32_t              require_mfa;      /* roles that must have one */
    stoa_str_t            key_secret;       /* of the MAC of API keys */
    uint16_t             *row_index; /* by address of the row: index + 1 */
    ngx_uint_t            row_mask;
    ngx_uint_t            used;   /* some location has rows or gates */
    ngx_uint_t            served; /* some location has rows */
    ngx_array_t          *shown;  /* locations with "stoa_metrics" */
    ngx_uint_t            pool_set, hash_set; /* directive was seen */
    ngx_uint_t            pool_timeout_set;
    ngx_uint_t            cache_set;
    ngx_uint_t            limit_set[STOA_RATE_COUNT]; /* 1 user, 2 addr */
    ngx_uint_t            login_set;
    ngx_http_stoa_place_t used_at;  /* the first that needs settings */
    ngx_http_stoa_place_t login_at; /* the first "login=" */

    const stoa_oidc_conf_t *oidc; /* issuers that others run */
    stoa_str_t              oauth_secret;
} ngx_http_stoa_main_conf_t;

typedef struct ngx_http_stoa_cors_s     ngx_http_stoa_cors_t;
typedef struct ngx_http_stoa_identity_s ngx_http_stoa_identity_t;

typedef struct {
    ngx_flag_t   api;   /* stoa_api on: this location is served from rows */
    ngx_uint_t   auth;  /* 0 off, 1 optional, 2 required (other locations) */
    ngx_uint_t   roles; /* for other locations: set of bits, 0 any */
    ngx_uint_t   rate;  /* stoa_rate_e for other locations; NONE is "off",
                             which also stops the rows' own classes */
    ngx_uint_t   case_snake; /* json_case */
    ngx_uint_t   envelope;   /* 0 full, 1 avenrae, 2 bare */
    ngx_uint_t   if_match;   /* 0 optional, 1 required by rows that have it */
    ngx_flag_t   errors;     /* problem bodies also for core errors */
    ngx_array_t *limits;     /* policies: ngx_http_stoa_limit_t *, or NULL */
    ngx_uint_t   limit_headers; /* 0 draft, 1 legacy, 2 off */
    ngx_http_stoa_cors_t *cors; /* NULL: none */
    ngx_flag_t            security_headers;
    ngx_str_t login; /* where pages send visitors to sign in; or empty */
    ngx_http_stoa_identity_t *identity; /* headers for the backend, or NULL */
    ngx_flag_t                presence; /* who passes is marked as online */

    /* of this location or one around it, NULL when a server or http has it */
    ngx_http_stoa_place_t *auth_at, *rate_at;
    ngx_http_handler_pt    content; /* ours, if it has one, and from where */
    ngx_http_stoa_place_t *content_at;
    ngx_http_stoa_place_t *presence_at; /* of this location itself, when on */
} ngx_http_stoa_loc_conf_t;

typedef struct {
    ngx_uint_t gated; /* a location of it has a gate */
} ngx_http_stoa_srv_conf_t;

/* ---- per process state ---- */

typedef struct {
    stoa_loop_t      *loop;
    stoa_log_t        log;
    stoa_pg_pool_t   *pool[STOA_POOL_COUNT];
    stoa_redis_t     *redis;
    stoa_redis_sub_t *sub;  /* its callback: ngx_http_stoa_wait_message */
    stoa_http_t      *http; /* NULL: there are no issuers */
    stoa_issuers_t   *issuers;
    stoa_id_t         ids;
    u_char            reply_to[64]; /* "<host>.<slot>.<generation>" */
    size_t            reply_to_len;
    ngx_uint_t        shutting_down;
    ngx_cycle_t      *cycle;
    ngx_http_stoa_main_conf_t *mcf; /* NULL: not a worker, or not used */
    ngx_uint_t                 slot;
    char                       ctl[64]; /* channel "<prefix>ctl" */
    size_t                     ctl_len;
    stoa_defer_t               first_turn; /* of the loop */
    ngx_uint_t                 turning;    /* the loop runs */
} ngx_http_stoa_process_t;

extern ngx_http_stoa_process_t ngx_http_stoa_process;

/* ---- per request ---- */

/* The gates' verdict: a cleanup record in the main request's pool, found by
   its handler, because r->ctx is zeroed by internal redirects. */
typedef struct {
    stoa_match_t           match;  /* row by method; valid when routed */
    const stoa_endpoint_t *ep;     /* NULL: not a row's location */
    ngx_uint_t             routed; /* 1 found, 0 not a row's path */
    stoa_claims_t          claims;
    const stoa_uuid_t     *refresh; /* the session that is to be renewed */
    ngx_uint_t             authenticated; /* claims are valid */
    stoa_err_e             refused;       /* set when a gate answered */
    ngx_http_stoa_limit_t *limit;         /* that refused, or the tightest */
    ngx_array_t            takes; /* of ngx_http_stoa_take_t; .pool is set */
    struct ngx_http_stoa_cluster_s *cluster; /* limits counted in Redis */
    ngx_uint_t                      limit_remaining;
    ngx_uint_t                      retry_after; /* seconds */
    ngx_uint_t                      reset_after;
    u_char                          request_id[36];
    u_char                          addr_prefix[40]; /* v4 /32, v6 /64, text */
    size_t                          addr_prefix_len;
    ngx_uint_t                      row; /* index in api->rows when ep is set */
    ngx_http_stoa_limit_status_e    limit_status;
    ngx_http_stoa_cache_status_e    cache_status;
    stoa_err_e auth;           /* verdict on the token, when has_token */
    stoa_str_t token;          /* the access token as it came */
    stoa_str_t login;          /* where a refused visitor is led, or empty */
    stoa_str_t scopes;         /* of the API key, in the request's pool */
    unsigned   has_token  : 1; /* something came that should be one */
    unsigned   by_key     : 1; /* authenticated by an API key, claims.sid */
    unsigned   by_cookie  : 1; /* it came as a cookie */
    unsigned   cross      : 1; /* a cookie was left aside: not our page's */
    unsigned   checked    : 1; /* PREACCESS has run */
    unsigned   verified   : 1; /* the token was looked at */
    unsigned   settled    : 1; /* what is not charged was given back */
    unsigned   after_told : 1; /* Retry-After is among the headers */
    unsigned   logged     : 1;
    unsigned   parked     : 1; /* waits for what its token needs */
    unsigned   resumed    : 1; /* PREACCESS goes on behind that */
    uint64_t   start_us;       /* monotonic */
    uint32_t   auth_us;
    u_char *(*log_handler)(ngx_http_request_t *r, ngx_http_request_t *sr,
                           u_char *buf, size_t len); /* the one before ours */
} ngx_http_stoa_gate_t;

struct ngx_http_stoa_ctx_s {
    ngx_http_request_t     *r;
    ngx_http_stoa_gate_t   *gate;
    const stoa_endpoint_t  *ep;
    const stoa_bound_row_t *bound;
    stoa_mem_t              mem; /* over r->pool */
    stoa_str_t              raw; /* body bytes in one piece */
    stoa_json_t            *json;
    stoa_str_t              canonical;   /* body, snake_case */
    stoa_value_t           *path_values; /* by :param */
    stoa_value_t           *query_values;
    stoa_value_t           *body_values;
    stoa_faults_t           faults;
    stoa_str_t              idem_key;
    stoa_uuid_t             new_id;
    int64_t                 if_match; /* -1: none, -2: "*" */
    stoa_str_t              codes;    /* $codes */
    stoa_str_t              hash;     /* $hash */
    stoa_str_t              provider; /* $provider */
    stoa_pg_op_t           *op;       /* running statement, or NULL */
    stoa_pg_result_t       *res;      /* freed by the pool's cleanup */
    int                     res_row;  /* of it: ours */
    ngx_uint_t              step;     /* of a flow */
    void                   *flow;     /* a flow's own state */
    ngx_uint_t              retried;
    ngx_uint_t              suspended; /* count++ was done */
    ngx_uint_t              db_wait_us, db_run_us, db_queries;
    stoa_err_e              error; /* of the answer, for log variables */

    /* the pipeline's own */
    struct ngx_http_stoa_row_s *row;
    ngx_int_t                   rc; /* of the reply that was made */
    ngx_int_t (*resume)(ngx_http_stoa_ctx_t *q, stoa_err_e err);
    stoa_pg_pool_t       *sent_pool; /* what runs, to run it once more */
    const stoa_pg_stmt_t *sent_stmt;
    const char *const    *sent_values;
    const int            *sent_lens;
    struct ngx_http_stoa_element_s *element; /* waits in or rides a batch */
    struct ngx_http_stoa_parked_s  *parked;  /* waits for a worker */
    struct ngx_http_stoa_hash_s    *hashing; /* waits for threads, or theirs */
    stoa_str_t                      accept, origin, lang;
    stoa_str_t                    ctx_literal; /* api.ctx as text, made once */
    stoa_str_t                    cursor;      /* opened: the last keys, JSON */
    stoa_str_t                    filters;     /* what a cursor is bound to */
    stoa_str_t                    at;     /* stored time of a keyed answer */
    stoa_str_t                    detail; /* of an error */
    stoa_str_t                    errors; /* of an error: JSON list */
    stoa_str_t                    extra; /* of an error: ",\"name\":value"... */
    stoa_str_t                    location;          /* header of the answer */
    ngx_uint_t                    page, limit, sort; /* of a list row */
    struct ngx_http_stoa_entry_s *flight;            /* of the micro-cache */
    unsigned                      head : 1;          /* no body goes out */
    unsigned keyed         : 1; /* carries a usable Idempotency-Key */
    unsigned replayed      : 1;
    unsigned body_read     : 1;
    unsigned filling       : 1; /* flies for the micro-cache */
    unsigned cursored      : 1; /* list by cursor, not by page */
    unsigned waited        : 1; /* was parked once already */
    unsigned bystander     : 1; /* its failure is not the answer's */
    unsigned faulted       : 1; /* .faults go into the answer */
    unsigned by_cookie     : 1; /* the session's cookie came along */
    unsigned no_body_token : 1; /* and nothing else: none is told */
};

/* ---- host (ngx_http_stoa_host.c) ---- */

stoa_loop_t *ngx_http_stoa_loop_create(ngx_cycle_t *cycle, stoa_log_t *log);
void         ngx_http_stoa_loop_destroy(stoa_loop_t *loop);
void         ngx_http_stoa_mem_init(stoa_mem_t *mem, ngx_pool_t *pool);
void         ngx_http_stoa_log_init(stoa_log_t *log, ngx_log_t *nlog);
/* An allocator outside of pools and core dumps; wiped and unmapped when the
   pool goes. */
stoa_mem_t *ngx_http_stoa_secret_mem(ngx_pool_t *pool, size_t size);

/* ---- gates ---- */

/*
 * In a location with "stoa_api on" PREACCESS answers address 429, 404, 405,
 * 401, user 429 and ACCESS answers 403, each by ngx_http_stoa_reply_refuse()
 * with gate->refused set; OPTIONS of a known path goes on to the content
 * handler with gate->ep NULL, any other request with gate->ep set (HEAD has
 * the row of GET).  In other locations 401 and 403 are plain codes of the
 * ACCESS phase ("satisfy any" works), with gate->refused for the filter.
 */

/* Finds or makes the record; NULL: no memory. */
ngx_http_stoa_gate_t *ngx_http_stoa_gate(ngx_http_request_t *r,
                                         ngx_uint_t          create);
/* Looks the path up among the rows. */
void      ngx_http_stoa_gate_route(ngx_http_request_t   *r,
                                   ngx_http_stoa_gate_t *gate);
ngx_int_t ngx_http_stoa_preaccess(ngx_http_request_t *r);
ngx_int_t ngx_http_stoa_access(ngx_http_request_t *r);

/* Verifies with the per-process cache; fills gate->claims.  With
   gate->parked set: the verdict comes by ngx_http_stoa_gate_resume(). */
stoa_err_e ngx_http_stoa_auth_verify(ngx_http_request_t   *r,
                                     ngx_http_stoa_gate_t *gate,
                                     stoa_str_t            token);

/* A request rests in PREACCESS, and is run again from there; r may be gone
   afterwards. */
/* Refuses a path that can be read in two ways (ngx_http_stoa_path.c). */
stoa_err_e ngx_http_stoa_path(ngx_http_request_t *r);

ngx_int_t ngx_http_stoa_gate_park(ngx_http_request_t *r, const char *action);
void      ngx_http_stoa_gate_run(ngx_http_request_t *r);
/* The same, when the verdict on a parked request's token is in gate->auth. */
void ngx_http_stoa_gate_resume(ngx_http_request_t   *r,
                               ngx_http_stoa_gate_t *gate);

/* Tokens of other issuers (ngx_http_stoa_foreign.c).  NGX_DECLINED: it is of
   none that is trusted.  Else gate->parked, or *err and gate->claims. */
ngx_int_t ngx_http_stoa_foreign_verify(ngx_http_request_t   *r,
                                       ngx_http_stoa_gate_t *gate,
                                       stoa_str_t token, stoa_err_e *err,
                                       const char **why);

/* Their keys (ngx_http_stoa_issuer.c): nothing is made without issuers. */
ngx_int_t ngx_http_stoa_issuer_init_process(ngx_http_stoa_main_conf_t *mcf);
void      ngx_http_stoa_issuer_exit_process(void);
void      ngx_http_stoa_issuer_tick(ngx_uint_t retiring);

/*
 * API keys (ngx_http_stoa_key.c).  NGX_OK: gate->auth is the verdict, and
 * claims, scopes and by_key are those of the key; NGX_AGAIN: the request waits,
 * and ngx_http_stoa_gate_resume() follows.
 */
ngx_int_t ngx_http_stoa_key_verify(ngx_http_request_t   *r,
                                   ngx_http_stoa_gate_t *gate, stoa_str_t text);
void      ngx_http_stoa_key_exit_process(ngx_cycle_t *cycle);
/* The arrays of api.keys_used(), of uses that are due; how many. */
ngx_uint_t ngx_http_stoa_key_due(stoa_buf_t b[3]);
/* Each second: stores them. */
void ngx_http_stoa_key_tick(void);
void ngx_http_stoa_key_used_exit(void);

/* Whether a person speaks by a session of that account: no device, no key, no
   admin in its name. */
static ngx_inline ngx_uint_t
ngx_http_stoa_own_session(const ngx_http_stoa_gate_t *gate)
{
    return gate->authenticated && !gate->by_key && !gate->claims.acting
        && !(gate->claims.roles & STOA_DEVICE);
}

/* Failures of (account, prefix) (decision 24): OK or RATE_LIMITED. */
stoa_err_e ngx_http_stoa_throttle_check(ngx_http_stoa_gate_t *gate,
                                        stoa_str_t            account);
stoa_err_e ngx_http_stoa_throttle_verdict(ngx_http_stoa_gate_t *gate,
                                          stoa_str_t account, ngx_uint_t right);

/* Revocations in the zone. */
ngx_uint_t ngx_http_stoa_revoke_loaded(void);
stoa_err_e ngx_http_stoa_revoke_check(const stoa_claims_t *claims);
/* What has become of claims since they were made. */
typedef enum {
    NGX_HTTP_STOA_STANDS = 0,
    NGX_HTTP_STOA_OUTDATED, /* the account has changed: an older epoch */
    NGX_HTTP_STOA_ENDED     /* the session, or the key */
} ngx_http_stoa_revoke_state_e;
ngx_http_stoa_revoke_state_e ngx_http_stoa_revoke_state(
    const stoa_claims_t *claims);
/* text: "sid <uuid> <exp ms>" or "user <uuid> <epoch>": what PostgreSQL's
   revocation rows and the Redis channel <prefix>ctl carry. */
void      ngx_http_stoa_revoke_apply(stoa_str_t text);
ngx_int_t ngx_http_stoa_tick_init_process(ngx_cycle_t *cycle);
void      ngx_http_stoa_tick_exit_process(ngx_cycle_t *cycle);

/* Zone: one header in shared memory that the parts carve up. */
ngx_int_t ngx_http_stoa_zone_init(ngx_shm_zone_t *zone, void *old);

/* Metrics. */
void      ngx_http_stoa_metric_add(stoa_metric_e m, ngx_int_t n);
ngx_int_t ngx_http_stoa_metric_log(ngx_http_request_t *r);     /* LOG phase */
ngx_int_t ngx_http_stoa_status_handler(ngx_http_request_t *r); /* /metrics */
ngx_int_t ngx_http_stoa_health_handler(ngx_http_request_t *r);

/* Micro-cache: OK sent from cache (the reply was made), AGAIN parked behind
   the flight that fills it, DECLINED the caller fills it. */
ngx_int_t ngx_http_stoa_cache_get(ngx_http_stoa_ctx_t *q);
/* An empty etag becomes one of the content. */
void ngx_http_stoa_cache_put(ngx_http_stoa_ctx_t *q, stoa_str_t body,
                             stoa_str_t meta, stoa_str_t *etag);
/* The flight failed: wakes those parked, they run by themselves. */
void ngx_http_stoa_cache_fail(ngx_http_stoa_ctx_t *q);

/* ---- pipeline ---- */

ngx_int_t ngx_http_stoa_handler(ngx_http_request_t *r); /* content */
/* After a suspension: sets the log context, runs posted requests. */
void      ngx_http_stoa_resume_begin(ngx_http_stoa_ctx_t *q);
void      ngx_http_stoa_resume_end(ngx_connection_t *c);
ngx_int_t ngx_http_stoa_suspend(ngx_http_stoa_ctx_t *q);

ngx_int_t ngx_http_stoa_sql_run(ngx_http_stoa_ctx_t *q); /* row's statement */
ngx_int_t ngx_http_stoa_flow_run(ngx_http_stoa_ctx_t *q);

/* Hands out the slots of the pipeline's own statements; called once rows are
   bound (mcf->api, bound, nstmts are set), before pools learn nstmts. */
ngx_int_t ngx_http_stoa_flows_init(ngx_conf_t                *cf,
                                   ngx_http_stoa_main_conf_t *mcf);
/* Process start (loop, pools, ids are made) and end (before they go). */
ngx_int_t ngx_http_stoa_pipeline_init_process(ngx_cycle_t *cycle);
void      ngx_http_stoa_pipeline_exit_process(ngx_cycle_t *cycle);

/* The row's work without the micro-cache; what a flight runs, and those that
   were parked behind one that failed.  NGX_DONE: it goes on later. */
ngx_int_t ngx_http_stoa_work(ngx_http_stoa_ctx_t *q);
/* The same with the validation before it: the cache is asked before both. */
ngx_int_t ngx_http_stoa_go(ngx_http_stoa_ctx_t *q);
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
void ngx_http_stoa_reply_filter_init(void);

/* ---- pipeline, among its own files ---- */

/* A row as the pipeline runs it: made at configuration, with the state of
   this process (each process has its own copy). */
/* What rides together: requests of a row, or those of a flow that are at one
   of its statements. */
typedef struct {
    const stoa_endpoint_t *ep; /* whose pool and time-out it has */
    const stoa_pg_stmt_t  *stmt;
    const stoa_bound_t    *bound;   /* NULL: each brings q->sent_values */
    ngx_uint_t             max;     /* of one batch */
    ngx_queue_t            waiting; /* ngx_http_stoa_element_t */
    ngx_uint_t             nwaiting;
    ngx_uint_t             running; /* batches under way */
    ngx_msec_t             started; /* when the last of them was */
    stoa_defer_t           flush;
} ngx_http_stoa_batch_t;

typedef struct ngx_http_stoa_row_s {
    const stoa_endpoint_t  *ep;
    const stoa_bound_row_t *bound;
    const stoa_field_t     *path[STOA_ROUTE_PARAMS]; /* by :param */
    const stoa_field_t     *query; /* ep->query, then a list's own fields */
    ngx_uint_t              npath, nquery, nbody;
    ngx_uint_t              codes;   /* binds $codes */
    ngx_uint_t              secrets; /* a body field is a secret */
    ngx_http_stoa_batch_t   batch;   /* .max 0: none */
} ngx_http_stoa_row_t;

typedef struct {
    ngx_http_stoa_row_t  *rows; /* parallel to mcf->api->rows */
    ngx_http_stoa_batch_t batches[STOA_STMT_COUNT]; /* of flows; .max 0: none */
    ngx_thread_pool_t    *hash_pool;
} ngx_http_stoa_pipeline_t;

#define ngx_http_stoa_mcf(r)                                                   \
    ((ngx_http_stoa_main_conf_t *)                                             \
         ngx_http_get_module_main_conf(r, ngx_http_stoa_module))
#define ngx_http_stoa_lcf(r)                                                   \
    ((ngx_http_stoa_loc_conf_t *)                                              \
         ngx_http_get_module_loc_conf(r, ngx_http_stoa_module))
#define ngx_http_stoa_pipeline(r)                                              \
    ((ngx_http_stoa_pipeline_t *) ngx_http_stoa_mcf(r)->pipeline)

/* handler */
void ngx_http_stoa_canonical_path(stoa_buf_t *b, ngx_http_stoa_gate_t *gate,
                                  const stoa_endpoint_t *ep);

/* input: OK, or what to answer (faults are in q). */
stoa_err_e   ngx_http_stoa_input_headers(ngx_http_stoa_ctx_t *q);
stoa_err_e   ngx_http_stoa_input(ngx_http_stoa_ctx_t *q);
void         ngx_http_stoa_fault(ngx_http_stoa_ctx_t *q, const char *pointer,
                                 const char *code, const char *detail);
stoa_value_t ngx_http_stoa_body_value(ngx_http_stoa_ctx_t *q, const char *name);
stoa_value_t ngx_http_stoa_query_value(ngx_http_stoa_ctx_t *q,
                                       const char          *name);
stoa_value_t ngx_http_stoa_path_value(ngx_http_stoa_ctx_t *q, const char *name);
stoa_str_t   ngx_http_stoa_header_in(ngx_http_request_t *r, const char *lower);

/* args */
stoa_str_t ngx_http_stoa_ctx_literal(ngx_http_stoa_ctx_t *q);
/* Parameters of n requests as arrays in mem, or of one as they are. */
ngx_int_t ngx_http_stoa_sql_values(stoa_mem_t *mem, const stoa_bound_t *bound,
                                   ngx_http_stoa_ctx_t **qs, ngx_uint_t n,
                                   ngx_uint_t          arrays,
                                   const char *const **values,
                                   const int         **lens);
/* The same of q->sent_values, n parameters, each of them an array then. */
ngx_int_t ngx_http_stoa_sql_arrays(stoa_mem_t *mem, ngx_http_stoa_ctx_t **qs,
                                   ngx_uint_t count, ngx_uint_t n,
                                   const char *const **values,
                                   const int         **lens);
/* Suspends with q->resume to be called; or answers the failure. */
ngx_int_t ngx_http_stoa_sql_submit(ngx_http_stoa_ctx_t *q, stoa_pool_e pool,
                                   const stoa_pg_stmt_t *stmt,
                                   const char *const *values, const int *lens);

/* An answer row of api.answer, or of a select with some of its columns. */
typedef struct {
    int status, body, meta, etag, emit, wait, at, replayed, ord;
    int total, next, csv, type, bytes;
} ngx_http_stoa_columns_t;

void ngx_http_stoa_sql_columns(const stoa_pg_result_t  *res,
                               ngx_http_stoa_columns_t *cols);
/* Replies with one row of res; the caller keeps res alive with q's pool. */
ngx_int_t ngx_http_stoa_sql_answer(ngx_http_stoa_ctx_t           *q,
                                   const stoa_pg_result_t        *res,
                                   const ngx_http_stoa_columns_t *cols,
                                   int                            row);
/* Whether the statement is worth a second try: 40001, 40P01. */
ngx_uint_t ngx_http_stoa_sql_again(const stoa_pg_op_t *op);
void       ngx_http_stoa_sql_log(ngx_log_t *log, const stoa_endpoint_t *ep,
                                 const stoa_pg_op_t *op);
/* Frees res with q's pool. */
ngx_int_t ngx_http_stoa_sql_keep(ngx_http_stoa_ctx_t *q, stoa_pg_result_t *res);

/* batch */
/* Waits for a batch and rides it; then the answer of a row, or q->resume. */
ngx_int_t ngx_http_stoa_batch_run(ngx_http_stoa_ctx_t   *q,
                                  ngx_http_stoa_batch_t *b);
void      ngx_http_stoa_batch_leave(ngx_http_stoa_ctx_t *q);
void      ngx_http_stoa_batch_init(ngx_http_stoa_batch_t *b,
                                   const stoa_endpoint_t *ep,
                                   const stoa_pg_stmt_t *stmt, ngx_uint_t max);
void      ngx_http_stoa_batch_exit(ngx_http_stoa_batch_t *b);

/* idem */
stoa_err_e ngx_http_stoa_idem_header(ngx_http_stoa_ctx_t *q);
stoa_str_t ngx_http_stoa_idem_scope(ngx_http_stoa_ctx_t *q);
stoa_str_t ngx_http_stoa_idem_print(ngx_http_stoa_ctx_t *q);
stoa_err_e ngx_http_stoa_if_match(ngx_http_stoa_ctx_t *q);
/* Cursor: q->cursor from the wire text; and the text of the next one. */
stoa_err_e ngx_http_stoa_cursor_open(ngx_http_stoa_ctx_t *q, stoa_str_t text);
stoa_str_t ngx_http_stoa_cursor_make(ngx_http_stoa_ctx_t *q, stoa_str_t next);

/* effects: what an answer's emit asks for, after its commit. */
void ngx_http_stoa_effects(stoa_str_t emit, ngx_log_t *log);

/* wait: parks q for the worker's reply about outbox row id. */
ngx_int_t ngx_http_stoa_wait_park(ngx_http_stoa_ctx_t *q, int64_t id,
                                  ngx_int_t status, stoa_str_t body,
                                  stoa_str_t meta);
/* 202 with Location, at once. */
ngx_int_t ngx_http_stoa_wait_later(ngx_http_stoa_ctx_t *q, stoa_str_t body,
                                   stoa_str_t meta);
void      ngx_http_stoa_wait_leave(ngx_http_stoa_ctx_t *q);
void      ngx_http_stoa_wait_exit(void);

typedef enum {
    NGX_HTTP_STOA_HASH_MADE = 0,
    NGX_HTTP_STOA_HASH_MATCHED,
    NGX_HTTP_STOA_HASH_REHASHED, /* matched, and made anew */
    NGX_HTTP_STOA_HASH_MISMATCHED,
    NGX_HTTP_STOA_HASH_FAILED,
    NGX_HTTP_STOA_HASH_OUTCOMES
} ngx_http_stoa_hash_outcome_e;

/* hash: waits for its turn, runs in the thread pool, then q->resume(q, err).
   Who waited too long, or gave way, is resumed with HASH_QUEUE_FULL. */
typedef struct ngx_http_stoa_hash_s {
    ngx_http_stoa_ctx_t         *q;    /* NULL: the client left */
    ngx_pool_t                  *pool; /* of this task */
    ngx_thread_task_t           *task;
    ngx_queue_t                  link; /* in its lane, or among the refused */
    void                        *lane; /* while it waits */
    ngx_uint_t                   refused;
    ngx_uint_t                   posted;   /* the thread's, until done */
    uint64_t                     since_us; /* it waits */
    uint64_t                     run_us;
    stoa_hash_kind_e             kind;
    ngx_http_stoa_hash_outcome_e outcome;
    stoa_str_t                   password; /* own copy, wiped */
    stoa_str_t       stored; /* to verify against; empty: make one */
    stoa_hash_cost_t cost;
    ngx_uint_t       decoy; /* no account: the same work for nothing */
    ngx_uint_t       matched;
    ngx_uint_t       done;
    bool             left;                /* atomic: nobody waits any more */
    char             made[STOA_HASH_MAX]; /* new hash, or empty */
} ngx_http_stoa_hash_t;

ngx_int_t ngx_http_stoa_hash_run(ngx_http_stoa_ctx_t *q, stoa_str_t password,
                                 stoa_str_t stored, ngx_uint_t decoy);
void      ngx_http_stoa_hash_leave(ngx_http_stoa_ctx_t *q);
ngx_int_t ngx_http_stoa_hash_init(ngx_conf_t                *cf,
                                  ngx_http_stoa_main_conf_t *mcf,
                                  ngx_http_stoa_pipeline_t  *pl);
void      ngx_http_stoa_hash_exit(void);

/* hash_mem: around what a thread of the pool hashes, each second in the loop */
void ngx_http_stoa_hash_mem_begin(void);
void ngx_http_stoa_hash_mem_end(void);
void ngx_http_stoa_hash_mem_tick(void);

/* lanes: who waits for a thread (ngx_http_stoa_lane.c). */
ngx_uint_t ngx_http_stoa_lane_waiting(void);
ngx_uint_t ngx_http_stoa_lane_ahead(const ngx_http_stoa_gate_t *gate);
ngx_int_t  ngx_http_stoa_lane_put(ngx_http_stoa_hash_t *h, ngx_uint_t max,
                                  ngx_http_stoa_hash_t **out);
ngx_http_stoa_hash_t *ngx_http_stoa_lane_take(void);
void                  ngx_http_stoa_lane_remove(ngx_http_stoa_hash_t *h);

/* flows: a table of steps, run by ngx_http_stoa_flow_run(). */
typedef enum {
    NGX_HTTP_STOA_NEXT = 1, /* go on with the next step */
    NGX_HTTP_STOA_WAIT,     /* q->resume will go on with the next step */
    NGX_HTTP_STOA_END       /* answered: q->rc */
} ngx_http_stoa_go_e;

typedef struct {
    const char *name;
    ngx_http_stoa_go_e (*run)(ngx_http_stoa_ctx_t *q);
} ngx_http_stoa_step_t;

#define ngx_http_stoa_steps_end                                                \
    {                                                                          \
        NULL, NULL                                                             \
    }

extern const ngx_http_stoa_step_t ngx_http_stoa_flow_auth_check[],
    ngx_http_stoa_flow_auth_csrf[], ngx_http_stoa_flow_auth_register[],
    ngx_http_stoa_flow_auth_login[], ngx_http_stoa_flow_auth_refresh[],
    ngx_http_stoa_flow_auth_logout[], ngx_http_stoa_flow_auth_reset[],
    ngx_http_stoa_flow_auth_password[], ngx_http_stoa_flow_session_end[],
    ngx_http_stoa_flow_device_pair[], ngx_http_stoa_flow_device_login[],
    ngx_http_stoa_flow_ticket_svg[], ngx_http_stoa_flow_ticket_change[],
    ngx_http_stoa_flow_event_register[], ngx_http_stoa_flow_pay_form[],
    ngx_http_stoa_flow_errors[], ngx_http_stoa_flow_openapi[],
    ngx_http_stoa_flow_manual[], ngx_http_stoa_flow_jwks[],
    ngx_http_stoa_flow_auth_verify[], ngx_http_stoa_flow_user_email[],
    ngx_http_stoa_flow_login_mfa[], ngx_http_stoa_flow_mfa_enrol[],
    ngx_http_stoa_flow_mfa_confirm[], ngx_http_stoa_flow_mfa_off[],
    ngx_http_stoa_flow_mfa_codes[], ngx_http_stoa_flow_step_up[],
    ngx_http_stoa_flow_key_create[], ngx_http_stoa_flow_key_rotate[],
    ngx_http_stoa_flow_key_scopes[], ngx_http_stoa_flow_impersonate[],
    ngx_http_stoa_flow_oauth_providers[], ngx_http_stoa_flow_oauth_start[],
    ngx_http_stoa_flow_oauth_callback[], ngx_http_stoa_flow_oauth_token[],
    ngx_http_stoa_flow_identity_link[], ngx_http_stoa_flow_presence_beat[],
    ngx_http_stoa_flow_presence_list[];

/* q->hash: what tables know of the body's token; no token's when it is none. */
stoa_err_e ngx_http_stoa_token_hash(ngx_http_stoa_ctx_t *q);

ngx_http_stoa_go_e ngx_http_stoa_flow_end(ngx_http_stoa_ctx_t *q, ngx_int_t rc);
ngx_http_stoa_go_e ngx_http_stoa_flow_fail(ngx_http_stoa_ctx_t *q,
                                           stoa_err_e           err);
/* The data of an answer, without meta and etag; 500 when it failed. */
ngx_http_stoa_go_e ngx_http_stoa_flow_data(ngx_http_stoa_ctx_t *q,
                                           ngx_int_t            status,
                                           const stoa_buf_t    *data);
/* 303 to that address, whose memory lives as long as the request. */
ngx_http_stoa_go_e ngx_http_stoa_flow_elsewhere(ngx_http_stoa_ctx_t *q,
                                                const stoa_buf_t    *url);
/* 400: one fault of the input that only the flow could see. */
ngx_http_stoa_go_e ngx_http_stoa_flow_fault(ngx_http_stoa_ctx_t *q,
                                            const char          *pointer,
                                            const char          *code,
                                            const char          *detail);
ngx_http_stoa_go_e ngx_http_stoa_flow_wait(ngx_http_stoa_ctx_t *q,
                                           ngx_int_t            rc);
void               ngx_http_stoa_misc_exit(void);
/* Runs a statement; the next step finds its rows in q->res. */
ngx_http_stoa_go_e ngx_http_stoa_flow_query(ngx_http_stoa_ctx_t *q,
                                            stoa_pool_e pool, stoa_stmt_e stmt,
                                            const stoa_value_t *values,
                                            ngx_uint_t          n);
/* The last step of flows that end with an answer row. */
/* A keyed flow's first steps, its last statement, and its early refusal. */
ngx_http_stoa_go_e ngx_http_stoa_flow_idem(ngx_http_stoa_ctx_t *q);
ngx_http_stoa_go_e ngx_http_stoa_flow_idem_seen(ngx_http_stoa_ctx_t *q);
ngx_http_stoa_go_e ngx_http_stoa_flow_store(ngx_http_stoa_ctx_t *q,
                                            stoa_stmt_e          plain,
                                            stoa_stmt_e          keyed,
                                            const stoa_value_t  *values,
                                            ngx_uint_t           n);
ngx_http_stoa_go_e ngx_http_stoa_flow_refuse(ngx_http_stoa_ctx_t *q);
ngx_http_stoa_go_e ngx_http_stoa_flow_answer(ngx_http_stoa_ctx_t *q);
/* An answer row of 2xx, with one more text, which is of the base64 kind. */
ngx_http_stoa_go_e ngx_http_stoa_answer_with(ngx_http_stoa_ctx_t *q,
                                             const char          *name,
                                             stoa_str_t           value);
stoa_value_t       ngx_http_stoa_flow_column(ngx_http_stoa_ctx_t *q,
                                             const char          *name);
/* Rests until q->resume(); what hash and the like return into a flow. */
ngx_int_t ngx_http_stoa_flow_resume(ngx_http_stoa_ctx_t *q, stoa_err_e err);

/* cookie: tokens as such, where AUTH_COOKIE_MODE wants it. */
typedef enum {
    NGX_HTTP_STOA_COOKIE_REFRESH = 0,
    NGX_HTTP_STOA_COOKIE_ACCESS,
    NGX_HTTP_STOA_COOKIE_CSRF,
    NGX_HTTP_STOA_COOKIE_MFA
} ngx_http_stoa_cookie_e;

ngx_uint_t ngx_http_stoa_cookie_on(ngx_http_request_t *r);
/* A cookie's value, empty when it did not come; NGX_DECLINED: two differ. */
ngx_int_t ngx_http_stoa_cookie_read(ngx_http_request_t    *r,
                                    ngx_http_stoa_cookie_e which,
                                    stoa_str_t            *value);
/* The access token of a browser; NGX_DECLINED: one that may not be used. */
ngx_int_t ngx_http_stoa_cookie_access(ngx_http_request_t *r, stoa_str_t *token);
/* What a refresh goes by: the body's token or the cookie's; or the refusal. */
stoa_err_e ngx_http_stoa_cookie_token(ngx_http_stoa_ctx_t *q,
                                      stoa_value_t        *token);
/* A cookie that stands for a member of the body, which did not come; or the
   refusal: there is none, or no page of ours sent it. */
stoa_err_e ngx_http_stoa_cookie_instead(ngx_http_stoa_ctx_t   *q,
                                        ngx_http_stoa_cookie_e which,
                                        const char            *pointer,
                                        stoa_value_t          *value);
/* max_age empty: until the browser is closed. */
ngx_int_t ngx_http_stoa_cookie_set(ngx_http_request_t    *r,
                                   ngx_http_stoa_cookie_e which,
                                   stoa_str_t value, stoa_str_t max_age);
/* The access token as one, where the setting wants that. */
ngx_int_t  ngx_http_stoa_cookie_access_set(ngx_http_request_t *r,
                                           stoa_str_t          token);
ngx_int_t  ngx_http_stoa_cookie_clear(ngx_http_request_t *r);
stoa_err_e ngx_http_stoa_cookie_csrf(ngx_http_request_t *r, stoa_buf_t *token);

/* presence (ngx_http_stoa_presence.c): PRECONTENT of locations that have it
   on; its script, of processes that have Redis. */
ngx_int_t ngx_http_stoa_presence(ngx_http_request_t *r);
void      ngx_http_stoa_presence_init_process(void);

/* identity: PRECONTENT of locations before other software. */
ngx_int_t ngx_http_stoa_identity(ngx_http_request_t *r);

/* Any other one, by its name. */
ngx_int_t ngx_http_stoa_cookie_put(ngx_http_request_t *r, stoa_str_t name,
                                   stoa_str_t value, stoa_str_t max_age);
ngx_int_t ngx_http_stoa_cookie_find(ngx_http_request_t *r, stoa_str_t name,
                                    stoa_str_t *value);

typedef struct {
    ngx_list_part_t *part; /* zeroed: the first is next */
    ngx_uint_t       i;
    u_char          *p, *last;
} ngx_http_stoa_cookies_t;

ngx_uint_t ngx_http_stoa_cookie_next(ngx_http_request_t      *r,
                                     ngx_http_stoa_cookies_t *all,
                                     stoa_str_t *name, stoa_str_t *value);

/* What the flows of accounts share. */
stoa_str_t   ngx_http_stoa_account(ngx_http_stoa_ctx_t *q, stoa_value_t email);
stoa_value_t ngx_http_stoa_user_agent(ngx_http_stoa_ctx_t *q);
ngx_http_stoa_go_e ngx_http_stoa_granted(ngx_http_stoa_ctx_t *q);
/* The members of a grant's access token, without braces. */
stoa_err_e ngx_http_stoa_access_token(ngx_http_stoa_ctx_t *q, stoa_buf_t *b);
/* The same, or what asks for a code (MFA_REQUIRED). */
ngx_http_stoa_go_e ngx_http_stoa_granted_or_asked(ngx_http_stoa_ctx_t *q);
/* The same for a browser on its way to a page: cookies alone.  What is not OK
   is the refusal; UNAUTHENTICATED: there is no session; MFA_REQUIRED: the
   page asks for a code. */
stoa_err_e ngx_http_stoa_granted_cookie(ngx_http_stoa_ctx_t *q);
/* A grant that waits for a code: the token that says which. */
stoa_err_e ngx_http_stoa_challenge_token(ngx_http_stoa_ctx_t *q,
                                         stoa_buf_t          *token);
/* Steps of what the caller's own password allows: reads its hash; tries the
   body's field; and the verdict of any try, INVALID_CREDENTIALS for a wrong
   one, which the throttle of failures has counted. */
ngx_http_stoa_go_e ngx_http_stoa_own_begin(ngx_http_stoa_ctx_t *q);
ngx_http_stoa_go_e ngx_http_stoa_own_try(ngx_http_stoa_ctx_t *q,
                                         const char          *field);
stoa_err_e         ngx_http_stoa_password_verdict(ngx_http_stoa_ctx_t *q,
                                                  stoa_value_t         email);
ngx_http_stoa_go_e ngx_http_stoa_password_own(ngx_http_stoa_ctx_t *q,
                                              const char          *pointer);

/* mfa: a code of the body, and what the flow's statements are told of it. */
#define NGX_HTTP_STOA_RECOVERY 15 /* bytes of a recovery code: 120 bits */

typedef struct {
    u_char       digits[STOA_TOTP_DIGITS];
    u_char       raw[NGX_HTTP_STOA_RECOVERY]; /* of a recovery code */
    ngx_uint_t   ndigits, nraw;               /* which of them was sent */
    stoa_value_t account; /* the address, as the throttle knows it */
    stoa_value_t factor, step, sealed, recovery;
    stoa_str_t   hashes, codes; /* of new recovery codes: stored, told */
    stoa_str_t   secret, uri;   /* of a new factor */
    unsigned     tried   : 1;
    unsigned     counted : 1; /* as wrong */
} ngx_http_stoa_mfa_t;

/* Makes q->flow of what the body brings, before anything is looked up; END
   when it has no form of a code, or there must be one and is none. */
ngx_http_stoa_go_e ngx_http_stoa_mfa_form(ngx_http_stoa_ctx_t *q,
                                          ngx_uint_t           required);
/* Tries it with the factor of q->res; RATE_LIMITED, or what went wrong. */
stoa_err_e ngx_http_stoa_mfa_try(ngx_http_stoa_ctx_t *q, stoa_value_t user,
                                 stoa_value_t account);
/* What became of it, by the grant in q->res; RATE_LIMITED: tell no more. */
stoa_err_e ngx_http_stoa_mfa_count(ngx_http_stoa_ctx_t *q);
/* A new factor: q->flow with its id, sealed, secret and uri. */
stoa_err_e ngx_http_stoa_mfa_secret(ngx_http_stoa_ctx_t *q, stoa_value_t email);
/* Ten recovery codes: as "abcd-efgh-ijkl-mnop-qrst-uvwx", and hashes. */
stoa_err_e ngx_http_stoa_mfa_codes(ngx_http_stoa_ctx_t *q, stoa_value_t user);
/* The last step of a sign-in: counts codes, asks for one, or grants. */
ngx_http_stoa_go_e ngx_http_stoa_login_reply(ngx_http_stoa_ctx_t *q);

/* tickets: $codes for orders.create. */
stoa_err_e ngx_http_stoa_codes(ngx_http_stoa_ctx_t *q);

/* reply, inside */
/* An error answer row: its body names the code and more. */
ngx_int_t ngx_http_stoa_reply_failure(ngx_http_stoa_ctx_t *q, stoa_str_t body);
/* 303, 302, 204: headers only; location may be empty. */
ngx_int_t ngx_http_stoa_reply_empty(ngx_http_stoa_ctx_t *q, ngx_int_t status);
ngx_int_t ngx_http_stoa_header(ngx_http_request_t *r, const char *name,
                               stoa_str_t value);
/* The envelope around a problem, or the problem bare. */
void ngx_http_stoa_problem(stoa_buf_t *b, ngx_http_stoa_ctx_t *q,
                           ngx_http_stoa_gate_t *gate, stoa_err_e err,
                           ngx_uint_t bare);
/* The status line of what nginx has none for. */
void ngx_http_stoa_reason(ngx_http_request_t *r, ngx_int_t status);
/* at, or the time of now. */
void ngx_http_stoa_timestamp(stoa_buf_t *b, stoa_str_t at);
/* What an error brings: Allow, Retry-After, WWW-Authenticate. */
ngx_int_t ngx_http_stoa_problem_headers(ngx_http_request_t   *r,
                                        ngx_http_stoa_gate_t *gate,
                                        stoa_err_e            err);
/* "GET, HEAD, OPTIONS": from the route; as a text, as the header Allow. */
ngx_int_t  ngx_http_stoa_methods(ngx_http_request_t   *r,
                                 ngx_http_stoa_gate_t *gate, stoa_str_t *list);
ngx_int_t  ngx_http_stoa_allow(ngx_http_request_t   *r,
                               ngx_http_stoa_gate_t *gate);
ngx_uint_t ngx_http_stoa_accepts(stoa_str_t accept, const char *type);

/* ngx_http_stoa_cors.c */

/* NGX_OK: *origin is the request's Origin and this location allows it. */
ngx_int_t ngx_http_stoa_cors_allowed(ngx_http_request_t *r, stoa_str_t *origin);
/* The request is a preflight of an origin that this location allows. */
ngx_uint_t ngx_http_stoa_cors_asked(ngx_http_request_t *r);
/* Adds what an answer that is about to leave needs. */
ngx_int_t ngx_http_stoa_cors_filter(ngx_http_request_t       *r,
                                    ngx_http_stoa_gate_t     *gate,
                                    ngx_http_stoa_loc_conf_t *lcf);

/* A header of the answer as it stands so far, or NULL. */
ngx_table_elt_t *ngx_http_stoa_header_out(ngx_http_request_t *r,
                                          const char         *name);

#endif /* NGX_HTTP_STOA_H_INCLUDED */
