/*
 * Limits: exact GCRA, and windows of quotas, in one table of the shared zone.
 *
 * GCRA is one 64-bit number per key, the theoretical arrival time, in units
 * in which both a millisecond and a request are whole numbers (milliseconds
 * times the limit's rate): what is admitted is burst + floor(elapsed x rate),
 * without a rounding error.  A quota's window opens with a key's first
 * request, so the windows of different keys do not end together.
 *
 * Places are found by the limit's name and the key.  Another rate or burst
 * finds the same place, and keeps how many requests were used.
 *
 * A charge can be taken out again exactly, which limits of failures need:
 * each time that a place is found empty begins a new busy period.  In the one
 * of the charge all of it is still there; in a later one none of it is left.
 */

#include "ngx_http_stoa_limit.h"

#define NGX_HTTP_STOA_STEP_MS 60000 /* a larger step back is another clock */

/* A quota's window has a place of its own. */
#define NGX_HTTP_STOA_OTHER UINT64_C(0x9e3779b97f4a7c15)

typedef struct {
    ngx_http_stoa_rate_slot_t *slot, *window; /* NULL: not in the table */
    ngx_http_stoa_state_t      st;
    ngx_uint_t                 moved; /* the clock or the limit did */
    ngx_uint_t                 fits;
} ngx_http_stoa_found_t;


/* ---- what a key has used ---- */

static void
ngx_http_stoa_limit_read_burst(const ngx_http_stoa_rate_slot_t *s,
                               const ngx_http_stoa_limit_t *limit, uint64_t now,
                               ngx_http_stoa_found_t *f)
{
    uint64_t at, debt, full;

    f->st.busy = s->used;
    at = now * s->rate;

    if (s->tat <= at) {
        return;
    }

    debt = s->tat - at;
    full = (uint64_t) s->burst * s->period;

    /* only a clock that went back makes this: a little by correction, or far,
       and then the place says nothing any more */
    if (debt > full) {
        debt = debt - full > (uint64_t) NGX_HTTP_STOA_STEP_MS * s->rate ? 0
                                                                        : full;
        f->moved = 1;
    }

    /* configured anew: as many requests stay used */
    if (s->rate != limit->rate || s->period != limit->period_ms) {
        debt = debt / s->period * limit->period_ms
             + (debt % s->period * limit->period_ms + s->period - 1)
                   / s->period;
    }

    full = (uint64_t) limit->burst * limit->period_ms;

    if (debt > full) {
        debt = full;
        f->moved = 1;
    }

    f->st.debt = debt;
}


static void
ngx_http_stoa_limit_read_window(const ngx_http_stoa_rate_slot_t *s,
                                const ngx_http_stoa_limit_t     *limit,
                                uint64_t now, ngx_http_stoa_found_t *f)
{
    uint64_t end = s->tat, last;

    if (end <= now) {
        return;
    }

    last = now + (uint64_t) s->period * 1000;

    if (end > last) {
        if (end - last > NGX_HTTP_STOA_STEP_MS) {
            return;
        }

        end = last;
    }

    f->st.end = end;
    f->st.used = s->used;
}


static ngx_inline uint64_t
ngx_http_stoa_limit_units(const ngx_http_stoa_limit_t *limit, ngx_uint_t cost)
{
    /* what costs more than all there is takes all */
    return (uint64_t) ngx_min(cost, limit->burst) * limit->period_ms;
}


/* Under the lock. */
static void
ngx_http_stoa_limit_find(ngx_http_stoa_shared_t     *sh,
                         const ngx_http_stoa_take_t *take, uint64_t now,
                         ngx_http_stoa_found_t *f)
{
    ngx_http_stoa_limit_t *limit = take->limit;
    uint64_t               other[2];

    f->slot = ngx_http_stoa_slot_find(sh, take->key);
    f->window = NULL;
    f->moved = 0;
    f->st.debt = 0;
    f->st.used = 0;
    f->st.end = 0;
    f->st.busy = (uint32_t) now;

    if (f->slot != NULL) {
        ngx_http_stoa_limit_read_burst(f->slot, limit, now, f);
    }

    f->fits = f->st.debt + ngx_http_stoa_limit_units(limit, take->cost)
           <= (uint64_t) limit->burst * limit->period_ms;

    if (limit->quota != 0) {
        other[0] = take->key[0] ^ NGX_HTTP_STOA_OTHER;
        other[1] = take->key[1] ^ NGX_HTTP_STOA_OTHER;
        f->window = ngx_http_stoa_slot_find(sh, other);

        if (f->window != NULL) {
            ngx_http_stoa_limit_read_window(f->window, limit, now, f);
        }

        f->fits = f->fits
               && f->st.used + ngx_min(take->cost, limit->quota)
                      <= limit->quota;
    }

    f->fits = f->fits || take->cost == 0;
}


/* Puts a state into the table.  Under the lock. */
static void
ngx_http_stoa_limit_write(ngx_http_stoa_shared_t     *sh,
                          const ngx_http_stoa_take_t *take,
                          ngx_http_stoa_found_t *f, uint64_t now)
{
    const ngx_http_stoa_limit_t *limit = take->limit;
    ngx_http_stoa_rate_slot_t    with;
    uint64_t                     other[2];

    ngx_memzero(&with, sizeof(with));

    if (f->slot == NULL && f->st.debt != 0) {
        f->slot = ngx_http_stoa_slot_place(sh, take->key, now);
    }

    if (f->slot != NULL) {
        with.rate = (uint32_t) limit->rate;
        with.period = (uint32_t) limit->period_ms;
        with.burst = (uint32_t) limit->burst;
        with.used = (uint32_t) f->st.busy;
        with.tat = now * limit->rate + f->st.debt;
        ngx_http_stoa_slot_write(f->slot, take->key, &with);
    }

    if (limit->quota == 0 || f->st.end == 0) {
        return;
    }

    other[0] = take->key[0] ^ NGX_HTTP_STOA_OTHER;
    other[1] = take->key[1] ^ NGX_HTTP_STOA_OTHER;

    /* the burst's place may have taken the one that was found */
    if (f->window == NULL || f->window == f->slot) {
        f->window = ngx_http_stoa_slot_place(sh, other, now);
    }

    with.rate = 1;
    with.period = (uint32_t) ((limit->quota_ms + 999) / 1000);
    with.burst = (uint32_t) limit->quota | NGX_HTTP_STOA_WINDOW;
    with.used = (uint32_t) f->st.used;
    with.tat = f->st.end;
    ngx_http_stoa_slot_write(f->window, other, &with);
}


static void
ngx_http_stoa_limit_charge(ngx_http_stoa_shared_t *sh,
                           ngx_http_stoa_take_t *take, ngx_http_stoa_found_t *f,
                           uint64_t now)
{
    ngx_http_stoa_limit_t *limit = take->limit;

    if (f->st.debt == 0) {
        f->st.busy = (uint32_t) (f->st.busy + 1);
    }

    f->st.debt += ngx_http_stoa_limit_units(limit, take->cost);

    if (limit->quota != 0) {
        if (f->st.end == 0) {
            f->st.end = now + limit->quota_ms;
        }

        f->st.used += ngx_min(take->cost, limit->quota);
    }

    ngx_http_stoa_limit_write(sh, take, f, now);

    take->charged = 1;
    take->busy = (uint32_t) f->st.busy;
    take->window = f->st.end;
}


/* ---- what is told ---- */

static void
ngx_http_stoa_limit_tell(ngx_http_stoa_take_t        *take,
                         const ngx_http_stoa_state_t *st, ngx_uint_t fits,
                         uint64_t now)
{
    ngx_http_stoa_limit_t *limit = take->limit;
    uint64_t               full, second, over;

    full = (uint64_t) limit->burst * limit->period_ms;
    second = (uint64_t) limit->rate * 1000;

    take->remaining = st->debt < full ? (full - st->debt) / limit->period_ms
                                      : 0;
    take->reset = (st->debt + second - 1) / second;
    take->left = limit->quota > st->used ? limit->quota - st->used : 0;
    take->renew = st->end > now ? (st->end - now + 999) / 1000 : 0;
    take->retry = 0;
    take->over_burst = 0;
    take->over_quota = 0;

    if (fits) {
        return;
    }

    over = st->debt + ngx_http_stoa_limit_units(limit, take->cost);

    if (over > full) {
        /* when the next one may come, not when all is back */
        take->reset = (over - full + second - 1) / second;
        take->retry = take->reset;
        take->over_burst = 1;
    }

    if (limit->quota != 0
        && st->used + ngx_min(take->cost, limit->quota) > limit->quota)
    {
        take->retry = ngx_max(take->retry, take->renew);
        take->over_quota = 1;
    }
}


static void
ngx_http_stoa_limit_count(ngx_http_stoa_shared_t     *sh,
                          const ngx_http_stoa_take_t *take, ngx_uint_t fits)
{
    ngx_http_stoa_limit_cell_t *cell = &sh->limits[take->limit->cell];

    if (fits) {
        (void) ngx_atomic_fetch_add(&cell->passed, 1);

    } else if (take->limit->dry_run) {
        (void) ngx_atomic_fetch_add(&cell->would, 1);

    } else {
        (void) ngx_atomic_fetch_add(&cell->refused, 1);
    }
}


/* ---- the requests' side ---- */

ngx_http_stoa_take_t *
ngx_http_stoa_take_push(ngx_http_stoa_gate_t  *gate,
                        ngx_http_stoa_limit_t *limit)
{
    ngx_http_stoa_take_t *take;

    if (gate->takes.elts == NULL
        && ngx_array_init(&gate->takes, gate->takes.pool, 4,
                          sizeof(ngx_http_stoa_take_t))
               != NGX_OK)
    {
        return NULL;
    }

    take = ngx_array_push(&gate->takes);

    if (take != NULL) {
        ngx_memzero(take, sizeof(ngx_http_stoa_take_t));
        take->limit = limit;
    }

    return take;
}


ngx_uint_t
ngx_http_stoa_taken(const ngx_http_stoa_gate_t  *gate,
                    const ngx_http_stoa_limit_t *limit)
{
    ngx_http_stoa_take_t *takes = gate->takes.elts;
    ngx_uint_t            i;

    for (i = 0; i < gate->takes.nelts; i++) {
        if (takes[i].limit == limit) {
            return 1;
        }
    }

    return 0;
}


stoa_err_e
ngx_http_stoa_limit_take(ngx_http_stoa_take_t *takes, ngx_uint_t n,
                         ngx_uint_t look)
{
    ngx_http_stoa_found_t   f[NGX_HTTP_STOA_APPLIED + 2];
    ngx_http_stoa_shared_t *sh = ngx_http_stoa_shared();
    ngx_uint_t              i, refused;
    uint64_t                now;

    if (sh == NULL || n == 0) {
        return STOA_OK;
    }

    n = ngx_min(n, NGX_HTTP_STOA_APPLIED + 2);
    now = (uint64_t) stoa_time_ms();
    refused = 0;

    ngx_http_stoa_lock(&sh->rate_lock);

    for (i = 0; i < n; i++) {
        ngx_http_stoa_limit_find(sh, &takes[i], now, &f[i]);
        refused |= !f[i].fits && !takes[i].limit->dry_run
                && !(look && takes[i].limit->failure);
    }

    /* all or none; those that have a place first, before a new one takes it */

    for (i = 0; i < n && !look; i++) {
        if (f[i].slot == NULL || (f[i].window == NULL && takes[i].limit->quota))
        {
            continue;
        }

        if (!refused && f[i].fits && takes[i].cost != 0) {
            ngx_http_stoa_limit_charge(sh, &takes[i], &f[i], now);

        } else if (f[i].moved) {
            ngx_http_stoa_limit_write(sh, &takes[i], &f[i], now);
        }
    }

    for (i = 0; i < n && !look && !refused; i++) {
        if (!takes[i].charged && f[i].fits && takes[i].cost != 0) {
            ngx_http_stoa_limit_find(sh, &takes[i], now, &f[i]);
            ngx_http_stoa_limit_charge(sh, &takes[i], &f[i], now);
        }
    }

    ngx_http_stoa_unlock(&sh->rate_lock);

    for (i = 0; i < n; i++) {
        ngx_http_stoa_limit_tell(&takes[i], &f[i].st, f[i].fits, now);

        if (!look || refused) {
            ngx_http_stoa_limit_count(sh, &takes[i], f[i].fits);
        }
    }

    if (refused) {
        ngx_http_stoa_metric_add(STOA_M_limit_refusals, 1);
        return STOA_E_RATE_LIMITED;
    }

    return STOA_OK;
}


/*
 * Answers of several processes cross each other, and Redis may have forgotten:
 * what is known to be used stays so.
 */
static void
ngx_http_stoa_limit_keep(ngx_http_stoa_shared_t      *sh,
                         const ngx_http_stoa_take_t  *take,
                         const ngx_http_stoa_state_t *st, uint64_t now)
{
    ngx_http_stoa_found_t f;
    uint64_t              apart;

    ngx_http_stoa_lock(&sh->rate_lock);

    ngx_http_stoa_limit_find(sh, take, now, &f);

    apart = f.st.end > st->end ? f.st.end - st->end : st->end - f.st.end;

    f.st.debt = ngx_max(f.st.debt, st->debt);
    f.st.used = apart < 1000 ? ngx_max(f.st.used, st->used) : st->used;
    f.st.end = st->end;

    ngx_http_stoa_limit_write(sh, take, &f, now);

    ngx_http_stoa_unlock(&sh->rate_lock);
}


void
ngx_http_stoa_limit_told(ngx_http_stoa_take_t        *take,
                         const ngx_http_stoa_state_t *st, ngx_uint_t fits,
                         int64_t now)
{
    ngx_http_stoa_shared_t *sh = ngx_http_stoa_shared();

    if (sh == NULL) {
        return;
    }

    /* of failures most is given back soon, and maybe by another node */
    if (!take->limit->failure) {
        ngx_http_stoa_limit_keep(sh, take, st, (uint64_t) now);
    }

    ngx_http_stoa_limit_tell(take, st, fits, (uint64_t) now);
    ngx_http_stoa_limit_count(sh, take, fits);
}


void
ngx_http_stoa_limit_refund(const ngx_http_stoa_take_t *take)
{
    ngx_http_stoa_found_t   f;
    ngx_http_stoa_shared_t *sh = ngx_http_stoa_shared();
    ngx_http_stoa_limit_t  *limit = take->limit;
    uint64_t                now, units;

    if (sh == NULL) {
        return;
    }

    now = (uint64_t) stoa_time_ms();
    units = ngx_http_stoa_limit_units(limit, take->cost);

    ngx_http_stoa_lock(&sh->rate_lock);

    ngx_http_stoa_limit_find(sh, take, now, &f);

    if (f.st.busy == take->busy) {
        f.st.debt -= ngx_min(f.st.debt, units);
    }

    if (limit->quota != 0 && f.st.end == take->window) {
        f.st.used -= ngx_min(f.st.used, ngx_min(take->cost, limit->quota));
    }

    ngx_http_stoa_limit_write(sh, take, &f, now);

    ngx_http_stoa_unlock(&sh->rate_lock);
}


stoa_err_e
ngx_http_stoa_limit_refresh(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                            const stoa_uuid_t *session)
{
    ngx_http_stoa_main_conf_t *mcf = ngx_http_stoa_process.mcf;
    ngx_http_stoa_limit_t     *limit;
    ngx_http_stoa_take_t      *take;
    uint64_t                   key[2];
    ngx_int_t                  rc;
    stoa_err_e                 err;

    limit = session != NULL ? &mcf->limit_user[STOA_RATE_REFRESH]
                            : &mcf->limit_addr[STOA_RATE_REFRESH];

    if (limit->rate == 0 || ngx_http_stoa_lcf(r)->rate == STOA_RATE_NONE
        || ngx_http_stoa_taken(gate, limit))
    {
        return STOA_OK;
    }

    gate->refresh = session;
    rc = ngx_http_stoa_key_hash(r, gate, limit, key);
    gate->refresh = NULL; /* is the caller's */

    take = rc == NGX_OK ? ngx_http_stoa_take_push(gate, limit) : NULL;
    if (take == NULL) {
        return STOA_E_INTERNAL;
    }

    take->key[0] = key[0];
    take->key[1] = key[1];
    take->cost = 1;

    err = ngx_http_stoa_limit_take(take, 1, 0);

    ngx_http_stoa_limit_sum_up(gate);
    ngx_http_stoa_limit_log(r, gate);

    return err;
}


void
ngx_http_stoa_limit_note(ngx_http_stoa_gate_t  *gate,
                         ngx_http_stoa_limit_t *limit, ngx_uint_t retry)
{
    ngx_http_stoa_shared_t *sh = ngx_http_stoa_shared();
    ngx_http_stoa_take_t   *take;

    take = ngx_http_stoa_take_push(gate, limit);

    if (take == NULL) {
        gate->retry_after = retry;
        return;
    }

    take->over_burst = 1;
    take->retry = retry;
    take->reset = retry;
    ngx_http_stoa_metric_add(STOA_M_limit_refusals, 1);
    ngx_http_stoa_limit_count(sh, take, 0);
    ngx_http_stoa_limit_sum_up(gate);
}


ngx_uint_t
ngx_http_stoa_limit_tighter(const ngx_http_stoa_take_t *a,
                            const ngx_http_stoa_take_t *b)
{
    ngx_uint_t ra, rb;

    ra = a->retry == 0 ? 0 : 2 - (ngx_uint_t) a->limit->dry_run;
    rb = b->retry == 0 ? 0 : 2 - (ngx_uint_t) b->limit->dry_run;

    if (ra != rb) {
        return ra > rb;
    }

    if (ra != 0) {
        return a->retry > b->retry;
    }

    ra = a->limit->quota != 0 ? ngx_min(a->remaining, a->left) : a->remaining;
    rb = b->limit->quota != 0 ? ngx_min(b->remaining, b->left) : b->remaining;

    return ra < rb;
}


void
ngx_http_stoa_limit_sum_up(ngx_http_stoa_gate_t *gate)
{
    ngx_http_stoa_take_t *takes = gate->takes.elts, *t;
    ngx_uint_t            i;

    if (gate->takes.nelts == 0) {
        return;
    }

    t = &takes[0];

    for (i = 1; i < gate->takes.nelts; i++) {
        if (ngx_http_stoa_limit_tighter(&takes[i], t)) {
            t = &takes[i];
        }
    }

    gate->limit = t->limit;
    gate->limit_remaining = t->remaining;
    gate->reset_after = t->over_quota ? t->renew : t->reset;
    gate->retry_after = t->retry;

    if (t->limit->quota != 0) {
        gate->limit_remaining = ngx_min(t->remaining, t->left);
    }

    gate->limit_status = t->retry == 0          ? NGX_HTTP_STOA_LIMIT_PASSED
                       : t->limit->dry_run != 0 ? NGX_HTTP_STOA_LIMIT_DRY_RUN
                                                : NGX_HTTP_STOA_LIMIT_REJECTED;
}
