/*
 * Limits: what the gates, the answers and the configuration ask of them.
 *
 * A limit is counted at one of three steps of PREACCESS: before the token is
 * verified, after it, and last, in one command, those that Redis counts for
 * all nodes.  The limits of a step are counted together or, when one of them
 * refuses, not at all.  Each limit is counted once per request, whatever
 * redirects it takes.
 */

#ifndef NGX_HTTP_STOA_LIMIT_H_INCLUDED
#define NGX_HTTP_STOA_LIMIT_H_INCLUDED

#include "ngx_http_stoa_conf.h"

struct ngx_http_stoa_key_s {
    const char *name;
    ngx_uint_t  verified; /* is known only of a verified token */
    ngx_uint_t  shared;   /* many clients may have the same one */
    /* empty: not known of this request */
    stoa_str_t (*get)(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate);
};

/* A use of a policy, for what can be judged only at the end. */
typedef struct {
    ngx_http_stoa_limit_t    *limit;
    ngx_http_stoa_loc_conf_t *lcf;
    ngx_http_stoa_place_t     at;
} ngx_http_stoa_applied_t;

/* What the table or Redis knows of one key. */
typedef struct {
    uint64_t   debt; /* of the limit's rate: ms times rate, left to grow back */
    uint64_t   used; /* of the quota, in the window of now */
    uint64_t   end;  /* of that window, ms; 0: none is open */
    ngx_uint_t busy;
} ngx_http_stoa_state_t;

/* ---- keys (ngx_http_stoa_limit_key.c) ---- */

/* "user+route|addr"; NGX_CONF_OK or what is wrong. */
char *ngx_http_stoa_key_parse(ngx_conf_t *cf, ngx_str_t *text,
                              ngx_http_stoa_limit_t *limit);

/* The key of one part, of a class. */
void ngx_http_stoa_key_one(ngx_http_stoa_limit_t *limit, const char *name);

/* NGX_DECLINED: no alternative is known, the limit does not count. */
ngx_int_t ngx_http_stoa_key_hash(ngx_http_request_t          *r,
                                 ngx_http_stoa_gate_t        *gate,
                                 const ngx_http_stoa_limit_t *limit,
                                 uint64_t                     hash[2]);

/* ---- places (ngx_http_stoa_limit_slot.c), under the lock ---- */

/* NULL: the key has none. */
ngx_http_stoa_rate_slot_t *ngx_http_stoa_slot_find(ngx_http_stoa_shared_t *sh,
                                                   const uint64_t key[2]);

/* Where a new key goes; whose place that was is forgotten. */
ngx_http_stoa_rate_slot_t *ngx_http_stoa_slot_place(ngx_http_stoa_shared_t *sh,
                                                    const uint64_t key[2],
                                                    uint64_t       now);
void ngx_http_stoa_slot_write(ngx_http_stoa_rate_slot_t       *s,
                              const uint64_t                   key[2],
                              const ngx_http_stoa_rate_slot_t *with);

/* ---- the table (ngx_http_stoa_limit.c) ---- */

/*
 * Places for what this request is counted by, of gate->takes.  Elements move
 * when more are made.  NULL: no memory.
 */
ngx_http_stoa_take_t *ngx_http_stoa_take_push(ngx_http_stoa_gate_t  *gate,
                                              ngx_http_stoa_limit_t *limit);

/* Whether this request met the limit already. */
ngx_uint_t ngx_http_stoa_taken(const ngx_http_stoa_gate_t  *gate,
                               const ngx_http_stoa_limit_t *limit);

/* OK, or RATE_LIMITED when one refuses; then none is charged.  look: only
   says what Redis would refuse for certain, charges nothing, counts only
   refusals. */
stoa_err_e ngx_http_stoa_limit_take(ngx_http_stoa_take_t *takes, ngx_uint_t n,
                                    ngx_uint_t look);

/* What Redis said: the table takes it over, and the take tells it. */
void ngx_http_stoa_limit_told(ngx_http_stoa_take_t        *take,
                              const ngx_http_stoa_state_t *st, ngx_uint_t fits,
                              int64_t now);

/* Takes what was charged here out again. */
void ngx_http_stoa_limit_refund(const ngx_http_stoa_take_t *take);

/* Of two takes the one that says more: who refuses, who would refuse, who is
   nearer to its end. */
ngx_uint_t ngx_http_stoa_limit_tighter(const ngx_http_stoa_take_t *a,
                                       const ngx_http_stoa_take_t *b);

/* Sets what variables and the log say of all takes. */
void ngx_http_stoa_limit_sum_up(ngx_http_stoa_gate_t *gate);

/* Counts a request of class "refresh": by the session whose token it brought;
   NULL, by the address: the token was not made here. */
stoa_err_e ngx_http_stoa_limit_refresh(ngx_http_request_t   *r,
                                       ngx_http_stoa_gate_t *gate,
                                       const stoa_uuid_t    *session);

/* A refusal by the throttle of failures. */
void ngx_http_stoa_limit_note(ngx_http_stoa_gate_t  *gate,
                              ngx_http_stoa_limit_t *limit, ngx_uint_t retry);

/* ---- counters (ngx_http_stoa_limit_cell.c) ---- */

/* Gives each limit its counters in the zone and says what has changed since
   the configuration before; in the master, before processes are made. */
void ngx_http_stoa_limit_init(ngx_cycle_t               *cycle,
                              ngx_http_stoa_main_conf_t *mcf);

/* Calls fn for each limit that is on: classes, then policies. */
void ngx_http_stoa_limit_each(ngx_http_stoa_main_conf_t *mcf, void *data,
                              void (*fn)(void                  *data,
                                         ngx_http_stoa_limit_t *limit));

/* ---- Redis (ngx_http_stoa_cluster.c) ---- */

/* The scripts and what goes with them (ngx_http_stoa_cluster_lua.c). */
#define NGX_HTTP_STOA_CLUSTER_ARGS 7  /* of each key */
#define NGX_HTTP_STOA_CLUSTER_TOLD 5  /* of each key, behind two */
#define NGX_HTTP_STOA_REMOTE_MAX   96 /* bytes of a key before its hash */

typedef enum {
    NGX_HTTP_STOA_CLUSTER_TAKE = 0,
    NGX_HTTP_STOA_CLUSTER_REFUND,
    NGX_HTTP_STOA_CLUSTER_SCRIPTS
} ngx_http_stoa_cluster_script_e;

extern stoa_redis_script_t
    ngx_http_stoa_cluster_scripts[NGX_HTTP_STOA_CLUSTER_SCRIPTS];

/* Adds a limit to those that are counted last. */
ngx_int_t ngx_http_stoa_cluster_add(ngx_http_request_t    *r,
                                    ngx_http_stoa_gate_t  *gate,
                                    ngx_http_stoa_limit_t *limit,
                                    ngx_uint_t             cost);

/* NGX_AGAIN: the request is parked, PREACCESS runs again; else *err is OK,
   RATE_LIMITED or INTERNAL.  To be called at each run of PREACCESS. */
ngx_int_t ngx_http_stoa_cluster_take(ngx_http_request_t   *r,
                                     ngx_http_stoa_gate_t *gate,
                                     stoa_err_e           *err);

/* NGX_OK: the run of PREACCESS that its answer has started. */
ngx_int_t ngx_http_stoa_cluster_answered(ngx_http_request_t   *r,
                                         ngx_http_stoa_gate_t *gate,
                                         stoa_err_e           *err);

/* Takes what was charged in Redis out again; nobody waits for it. */
void ngx_http_stoa_cluster_refund(const ngx_http_stoa_take_t *take);

void ngx_http_stoa_cluster_init_process(void);

/* ---- answers (ngx_http_stoa_limit_reply.c) ---- */

/* When the header goes out: gives back what is not charged, and adds the
   header fields of limits. */
ngx_int_t ngx_http_stoa_limit_filter(ngx_http_request_t       *r,
                                     ngx_http_stoa_gate_t     *gate,
                                     ngx_http_stoa_loc_conf_t *lcf);

/* Of a refusal by limits: Retry-After in seconds; the problem's member. */
ngx_uint_t ngx_http_stoa_limit_after(ngx_http_stoa_gate_t *gate);
void ngx_http_stoa_limit_violated(stoa_buf_t *b, ngx_http_stoa_gate_t *gate);

/* RateLimit-Policy of one limit, made once. */
ngx_int_t ngx_http_stoa_limit_policy(ngx_pool_t            *pool,
                                     ngx_http_stoa_limit_t *limit);

/* Writes refusals into the error log, of dry runs too. */
void ngx_http_stoa_limit_log(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate);

/* ---- configuration (ngx_http_stoa_limit_conf.c) ---- */

/* One parameter of "stoa_limit" (ngx_http_stoa_limit_param.c). */
char *ngx_http_stoa_limit_param(ngx_conf_t *cf, ngx_str_t *word,
                                ngx_http_stoa_limit_t *limit, ngx_uint_t *seen);

/* After all directives: what was named and is not there, or is not used. */
ngx_int_t ngx_http_stoa_limit_conf_end(ngx_conf_t                *cf,
                                       ngx_http_stoa_main_conf_t *mcf);

#endif /* NGX_HTTP_STOA_LIMIT_H_INCLUDED */
