/*
 * The shared zone ("stoa_zone name:size"): one block that limits,
 * revocations, failure throttle and metrics carve up.  It is laid out once,
 * at the zone's start; magic, version and sizes guard its reuse over a
 * reload.  Every structure here is an array of fixed entries: a process that
 * dies in the middle of a change tears one entry, never a tree.
 */

#ifndef NGX_HTTP_STOA_ZONE_H_INCLUDED
#define NGX_HTTP_STOA_ZONE_H_INCLUDED

#include "ngx_http_stoa.h"

#define NGX_HTTP_STOA_ZONE_MAGIC   0x53746f61
#define NGX_HTTP_STOA_ZONE_VERSION 5

#define NGX_HTTP_STOA_PROCS   64
#define NGX_HTTP_STOA_BUCKETS 16 /* the last is +Inf */
#define NGX_HTTP_STOA_WAYS    16 /* slots of one bucket of limits */

typedef enum {
    NGX_HTTP_STOA_PHASE_AUTH = 0,
    NGX_HTTP_STOA_PHASE_DB_WAIT,
    NGX_HTTP_STOA_PHASE_DB_RUN,
    NGX_HTTP_STOA_PHASE_TOTAL,
    NGX_HTTP_STOA_PHASE_COUNT
} ngx_http_stoa_phase_e;

/*
 * A place of the limits' table.  GCRA: tat is the theoretical arrival time in
 * milliseconds times rate.  A quota's window: tat is its end in milliseconds,
 * rate is 1, burst is the quota with NGX_HTTP_STOA_WINDOW.
 */
#define NGX_HTTP_STOA_WINDOW 0x80000000U

typedef struct {
    uint64_t key[2];
    uint64_t tat;
    uint32_t rate;   /* 0: never used */
    uint32_t period; /* ms; of a window seconds */
    uint32_t burst;
    uint32_t used; /* of the quota; GCRA: number of the busy period */
} ngx_http_stoa_rate_slot_t;

/* Counters of a limit, by its name; and how it was configured last. */
typedef struct {
    u_char       name[32];
    u_char       key[32]; /* key_text, cut */
    ngx_uint_t   rate, period_ms, burst, quota, quota_ms;
    ngx_atomic_t passed, refused, would; /* would: in dry run */
} ngx_http_stoa_limit_cell_t;

#define NGX_HTTP_STOA_CELLS 64

typedef struct {
    uint64_t key[2];
    int64_t  until_ms; /* refused until then */
    int64_t  last_ms;  /* of the last failure; 0: never used */
    uint32_t fails;    /* of all nodes, as far as is known */
    uint16_t added;    /* of these, since PostgreSQL was told */
    uint8_t  anew;     /* counted from nothing since then */
    uint8_t  sent : 1; /* a statement that tells it is under way */
    uint8_t  good : 1; /* somebody got in: of a pair, on this node */
} ngx_http_stoa_throttle_slot_t;

typedef enum {
    NGX_HTTP_STOA_REVOKE_FREE = 0,
    NGX_HTTP_STOA_REVOKE_SID, /* value: whether it is a device's */
    NGX_HTTP_STOA_REVOKE_USER /* value: tokens below this epoch are refused */
} ngx_http_stoa_revoke_kind_e;

/* kind is written last and read first; readers take no lock. */
typedef struct {
    stoa_uuid_t  key;
    ngx_atomic_t kind;
    ngx_atomic_t value;
    ngx_atomic_t until_ms;
} ngx_http_stoa_revoke_slot_t;

typedef struct {
    ngx_uint_t                   mask;
    ngx_atomic_t                 count;
    ngx_http_stoa_revoke_slot_t *slots;
} ngx_http_stoa_revoke_table_t;

typedef struct {
    ngx_atomic_t bucket[NGX_HTTP_STOA_BUCKETS];
    ngx_atomic_t sum_us;
} ngx_http_stoa_histogram_t;

typedef struct {
    ngx_atomic_t              status[6]; /* by class, 1..5 */
    ngx_http_stoa_histogram_t phase[NGX_HTTP_STOA_PHASE_COUNT];
} ngx_http_stoa_route_metrics_t;

typedef struct {
    ngx_atomic_t    pid; /* 0: free */
    ngx_atomic_t    slot;
    stoa_pg_stats_t pool[STOA_POOL_COUNT];
} ngx_http_stoa_proc_t;

typedef struct {
    ngx_atomic_t submitted, done, failed, saturated, reconnects;
    ngx_atomic_t answered, wait_us, run_us; /* the sums of so many */
} ngx_http_stoa_pool_totals_t;

/* An issuer's keys: the newest that a process has, and all that was tried. */
typedef struct {
    ngx_atomic_t name; /* keyed hash of it; 0: free */
    ngx_atomic_t fetched_ms;
    ngx_atomic_t fetches, errors;
} ngx_http_stoa_issuer_cell_t;

typedef struct {
    uint32_t   magic;
    uint32_t   version;
    size_t     size;
    ngx_uint_t nrows;
    u_char     hash_key[16];

    ngx_atomic_t rate_lock; /* pid of the holder */
    ngx_atomic_t revoke_lock;
    ngx_atomic_t throttle_lock;

    ngx_atomic_t leader;       /* pid of the process that talks to */
    ngx_atomic_t leader_until; /* PostgreSQL for all; ngx_current_msec */

    ngx_atomic_t revoke_loaded;
    ngx_atomic_t revoke_active;  /* 0 or 1: index of tables */
    ngx_atomic_t not_before;     /* seconds: older tokens are refused, */
    ngx_atomic_t devices_before; /* and older ones of devices */
    int64_t      revoke_since;   /* PostgreSQL's clock at the last read, ms */
    int64_t      swept_ms;
    ngx_atomic_t throttle_loaded;
    ngx_atomic_t throttle_changed; /* some slot is to be told */
    ngx_atomic_t throttle_sent;    /* some slot is */
    int64_t      throttle_since;   /* PostgreSQL's clock at the last sync, ms */
    ngx_atomic_t schema;           /* 1 present, 2 missing, 0 not known */

    ngx_http_stoa_revoke_table_t   tables[2];
    ngx_http_stoa_rate_slot_t     *rates;
    ngx_uint_t                     rate_mask; /* of buckets */
    ngx_http_stoa_throttle_slot_t *throttles;
    ngx_uint_t                     throttle_mask; /* of buckets */
    ngx_http_stoa_route_metrics_t *routes; /* nrows + 1: the last is "none" */

    ngx_http_stoa_histogram_t hash_wait;
    ngx_http_stoa_histogram_t hash_run[STOA_HASH_KINDS]
                                      [NGX_HTTP_STOA_HASH_OUTCOMES];

    ngx_atomic_t                cells[STOA_M_COUNT];
    ngx_http_stoa_pool_totals_t pools[STOA_POOL_COUNT];
    ngx_atomic_t                rate_evicted; /* while still active */
    ngx_http_stoa_limit_cell_t  limits[NGX_HTTP_STOA_CELLS];
    ngx_http_stoa_issuer_cell_t issuers[2 * STOA_OIDC_ISSUERS];
    ngx_http_stoa_proc_t        procs[NGX_HTTP_STOA_PROCS];
} ngx_http_stoa_shared_t;

/* The zone of this process; NULL: no "stoa_zone". */
ngx_http_stoa_shared_t *ngx_http_stoa_shared(void);

/*
 * Whether a process of this master has that pid.  The processes of a master
 * share its group; a pid that was given anew is another's (pid_max is 32,768
 * on many machines), and kill(pid, 0) would take it for the one that died.
 */
ngx_uint_t ngx_http_stoa_alive(ngx_pid_t pid);

/* A lock that survives the death of its holder. */
void ngx_http_stoa_lock(ngx_atomic_t *lock);
void ngx_http_stoa_unlock(ngx_atomic_t *lock);

/* SipHash-2-4 with 128 bits of result. */
void ngx_http_stoa_siphash(const u_char key[16], const void *data, size_t len,
                           uint64_t out[2]);

/* Copies what must outlive a changed zone size. */
void ngx_http_stoa_revoke_copy(ngx_http_stoa_shared_t       *to,
                               const ngx_http_stoa_shared_t *from);
void ngx_http_stoa_throttle_copy(ngx_http_stoa_shared_t       *to,
                                 const ngx_http_stoa_shared_t *from);

/* Forgets revocations that have run out. */
void ngx_http_stoa_revoke_sweep(ngx_http_stoa_shared_t *sh);

/*
 * The failure throttle's exchange with PostgreSQL, by the leader, one at a
 * time.  What this node counted is added to what all know (or stands for it,
 * when it was counted anew); what others counted comes back.
 */
typedef struct {
    char     key[32]; /* hex */
    uint32_t added;
    uint32_t anew;
    int64_t  at_ms; /* of the last failure */
} ngx_http_stoa_failures_t;

/* What is to be told, at most max entries: their number.  They count as sent
   until ngx_http_stoa_throttle_told(). */
ngx_uint_t ngx_http_stoa_throttle_tell(ngx_http_stoa_failures_t *out,
                                       ngx_uint_t                max);

/* The end of what was sent; not ok: it is to be told again. */
void ngx_http_stoa_throttle_told(ngx_uint_t ok);

/* What all know of a pair. */
void ngx_http_stoa_throttle_merge(stoa_str_t key, uint32_t fails,
                                  int64_t at_ms);

void ngx_http_stoa_limit_copy(ngx_http_stoa_shared_t       *to,
                              const ngx_http_stoa_shared_t *from);

/* Metrics of this process go into the zone, each second and at exit. */
void ngx_http_stoa_metric_open(ngx_uint_t slot);
void ngx_http_stoa_metric_tick(void);
void ngx_http_stoa_metric_close(void);

void ngx_http_stoa_metric_observe(ngx_http_stoa_histogram_t *h, uint64_t us);

/* The edge's part of /metrics (ngx_http_stoa_print.c). */
void ngx_http_stoa_print_edge(stoa_buf_t *b);

/* The cell of an issuer; NULL: there is no room. */
ngx_http_stoa_issuer_cell_t *ngx_http_stoa_issuer_cell(const char *issuer);

extern const uint32_t ngx_http_stoa_bounds_us[NGX_HTTP_STOA_BUCKETS - 1];

uint64_t ngx_http_stoa_mono_us(void);

static ngx_inline ngx_uint_t
ngx_http_stoa_row_hash(const stoa_endpoint_t *ep)
{
    return (ngx_uint_t) (((uintptr_t) ep / sizeof(stoa_endpoint_t)));
}

ngx_int_t ngx_http_stoa_auth_init_process(ngx_cycle_t *cycle);
/* What the answers of a row depend on (ngx_http_stoa_cache_key.c). */
typedef enum {
    NGX_HTTP_STOA_VARY_LANG = 1,
    NGX_HTTP_STOA_VARY_ACTOR = 2,
    NGX_HTTP_STOA_VARY_ALWAYS = 4 /* makes ids or sees addresses: no cache */
} ngx_http_stoa_vary_e;

u_char ngx_http_stoa_cache_vary(const stoa_bound_row_t *row);

/* NGX_DECLINED: this request is not for the cache. */
ngx_int_t ngx_http_stoa_cache_key(ngx_http_stoa_ctx_t *q, ngx_uint_t vary,
                                  const u_char hash_key[16], uint64_t key[2]);

ngx_int_t ngx_http_stoa_cache_init_process(ngx_cycle_t *cycle);
void      ngx_http_stoa_cache_exit_process(ngx_cycle_t *cycle);
ngx_int_t ngx_http_stoa_add_variables(ngx_conf_t *cf);

#endif /* NGX_HTTP_STOA_ZONE_H_INCLUDED */
