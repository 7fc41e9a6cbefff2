/*
 * The throttle of failed sign-ins, by account and address prefix.
 *
 * It counts failures (decision 24): from the limit's number on the pair is
 * refused for the limit's period, twice as long after each further failure,
 * up to a day; a period without failure forgets.  It is no lock of the
 * account: from another address the owner signs in.  Nodes tell each other
 * what they count through PostgreSQL, within a second.  Other limits are in
 * ngx_http_stoa_limit.c.
 */

#include "ngx_http_stoa_limit.h"
#include "stoa_hmac.h"

#define NGX_HTTP_STOA_DAY_MS (86400 * 1000)


/* Keyed with a secret that outlives restarts: the table tells no address. */
static ngx_int_t
ngx_http_stoa_throttle_key(ngx_http_stoa_gate_t *gate, stoa_str_t account,
                           uint64_t key[2])
{
    ngx_http_stoa_main_conf_t *mcf = ngx_http_stoa_process.mcf;
    unsigned char              mac[32];
    stoa_str_t                 parts[3];
    u_char                     lower[320];

    if (account.len > sizeof(lower)) {
        account.len = sizeof(lower);
    }

    ngx_strlow(lower, account.data, account.len);

    parts[0].data = lower;
    parts[0].len = account.len;
    parts[1].data = (u_char *) "";
    parts[1].len = 1;
    parts[2].data = gate->addr_prefix;
    parts[2].len = gate->addr_prefix_len;

    if (!stoa_hmac_sha256_parts(mcf->throttle_secret, parts, 3, mac)) {
        return NGX_ERROR;
    }

    ngx_memcpy(key, mac, 16);

    return NGX_OK;
}


/* Its entry; with make the place to use for it, else NULL. */
static ngx_http_stoa_throttle_slot_t *
ngx_http_stoa_throttle_find(ngx_http_stoa_shared_t *sh, const uint64_t key[2],
                            ngx_uint_t make)
{
    ngx_http_stoa_throttle_slot_t *s, *oldest = NULL;
    ngx_uint_t                     i, way;

    for (i = 0; i < 2; i++) {
        s = &sh->throttles[((ngx_uint_t) key[i] & sh->throttle_mask)
                           * NGX_HTTP_STOA_WAYS];

        for (way = 0; way < NGX_HTTP_STOA_WAYS; way++, s++) {

            if (s->last_ms != 0 && s->key[0] == key[0] && s->key[1] == key[1]) {
                return s;
            }

            /* the first to end is the first to go */
            if (oldest == NULL
                || ngx_max(s->until_ms, s->last_ms)
                       < ngx_max(oldest->until_ms, oldest->last_ms))
            {
                oldest = s;
            }
        }
    }

    if (!make) {
        return NULL;
    }

    ngx_memzero(oldest, sizeof(ngx_http_stoa_throttle_slot_t));
    oldest->key[0] = key[0];
    oldest->key[1] = key[1];

    return oldest;
}


/* How long the pair waits follows from what was counted: every node that knows
   the count says the same. */
static void
ngx_http_stoa_throttle_wait(ngx_http_stoa_throttle_slot_t *s)
{
    ngx_http_stoa_limit_t *limit = &ngx_http_stoa_process.mcf->login;
    ngx_uint_t             over;
    int64_t                wait;

    s->until_ms = 0;

    if (limit->rate != 0 && s->fails >= limit->rate) {
        over = ngx_min(s->fails - limit->rate, 20);
        wait = (int64_t) limit->period_ms << over;
        s->until_ms = s->last_ms + ngx_min(wait, NGX_HTTP_STOA_DAY_MS);
    }
}


static void
ngx_http_stoa_throttle_forget(ngx_http_stoa_throttle_slot_t *s)
{
    if (s->fails != 0) {
        s->fails = 0;
        s->until_ms = 0;
        s->added = 0;
        s->anew = 1;
        ngx_http_stoa_shared()->throttle_changed = 1;
    }
}


static void
ngx_http_stoa_throttle_count(ngx_http_stoa_throttle_slot_t *s,
                             ngx_http_stoa_limit_t *limit, int64_t now)
{
    if (s->last_ms != 0
        && ngx_max(s->last_ms, s->until_ms) + (int64_t) limit->period_ms < now)
    {
        ngx_http_stoa_throttle_forget(s);
    }

    s->fails++;
    s->added = (uint16_t) ngx_min(s->added + 1, UINT16_MAX);
    s->last_ms = now;
    ngx_http_stoa_shared()->throttle_changed = 1;

    ngx_http_stoa_throttle_wait(s);
}


/* Of a pair that waits until then: says so in the gate. */
static stoa_err_e
ngx_http_stoa_throttle_refuse(ngx_http_stoa_gate_t *gate, int64_t until,
                              int64_t now)
{
    ngx_http_stoa_limit_t *limit;

    if (until <= now) {
        return STOA_OK;
    }

    limit = &ngx_http_stoa_process.mcf->login;

    ngx_http_stoa_limit_note(gate, limit,
                             (ngx_uint_t) ((until - now + 999) / 1000));

    return limit->dry_run ? STOA_OK : STOA_E_RATE_LIMITED;
}


stoa_err_e
ngx_http_stoa_throttle_check(ngx_http_stoa_gate_t *gate, stoa_str_t account)
{
    ngx_http_stoa_throttle_slot_t *s;
    ngx_http_stoa_shared_t        *sh;
    uint64_t                       key[2];
    int64_t                        until = 0;

    sh = ngx_http_stoa_shared();

    if (sh == NULL || ngx_http_stoa_process.mcf->login.rate == 0) {
        return STOA_OK;
    }

    if (!sh->throttle_loaded) {
        return STOA_E_STARTING; /* who waited before the restart still does */
    }

    if (ngx_http_stoa_throttle_key(gate, account, key) != NGX_OK) {
        return STOA_E_INTERNAL;
    }

    ngx_http_stoa_lock(&sh->throttle_lock);

    s = ngx_http_stoa_throttle_find(sh, key, 0);
    if (s != NULL) {
        until = s->until_ms;
    }

    ngx_http_stoa_unlock(&sh->throttle_lock);

    return ngx_http_stoa_throttle_refuse(gate, until, stoa_time_ms());
}


/*
 * What became of a guess, under one lock: many guesses may have passed the
 * check before the first of them was counted, so each asks again here, and
 * who is over the limit by now is told nothing about the password.
 */
stoa_err_e
ngx_http_stoa_throttle_verdict(ngx_http_stoa_gate_t *gate, stoa_str_t account,
                               ngx_uint_t right)
{
    ngx_http_stoa_throttle_slot_t *s;
    ngx_http_stoa_limit_t         *limit;
    ngx_http_stoa_shared_t        *sh;
    uint64_t                       key[2];
    int64_t                        until, now;

    sh = ngx_http_stoa_shared();
    limit = &ngx_http_stoa_process.mcf->login;

    if (sh == NULL || limit->rate == 0) {
        return STOA_OK;
    }

    if (ngx_http_stoa_throttle_key(gate, account, key) != NGX_OK) {
        return STOA_E_INTERNAL;
    }

    now = stoa_time_ms();
    until = 0;

    ngx_http_stoa_lock(&sh->throttle_lock);

    s = ngx_http_stoa_throttle_find(sh, key, !right);

    if (s != NULL) {
        until = s->until_ms;

        if (until <= now || limit->dry_run) {
            if (right) {
                ngx_http_stoa_throttle_forget(s);

            } else {
                ngx_http_stoa_throttle_count(s, limit, now);
            }
        }
    }

    ngx_http_stoa_unlock(&sh->throttle_lock);

    return ngx_http_stoa_throttle_refuse(gate, until, now);
}


ngx_uint_t
ngx_http_stoa_throttle_tell(ngx_http_stoa_failures_t *out, ngx_uint_t max)
{
    ngx_http_stoa_throttle_slot_t *s;
    ngx_http_stoa_shared_t        *sh = ngx_http_stoa_shared();
    ngx_uint_t                     i, n, found = 0;

    if (!sh->throttle_changed) {
        return 0;
    }

    sh->throttle_changed = 0;
    sh->throttle_sent = 1;
    ngx_memory_barrier();

    n = (sh->throttle_mask + 1) * NGX_HTTP_STOA_WAYS;

    for (i = 0; i < n; i++) {
        s = &sh->throttles[i];

        if (s->added == 0 && !s->anew) {
            continue;
        }

        if (found == max) {
            sh->throttle_changed = 1; /* the next sync has the rest */
            break;
        }

        ngx_http_stoa_lock(&sh->throttle_lock);

        stoa_hex_encode(out[found].key, s->key, sizeof(s->key));
        out[found].added = s->added;
        out[found].anew = s->anew;
        out[found].at_ms = s->last_ms;
        s->added = 0;
        s->anew = 0;
        s->sent = 1;

        ngx_http_stoa_unlock(&sh->throttle_lock);

        found++;
    }

    return found;
}


/*
 * Whether the server heard it or not, this node's whole count is told again,
 * in place of what is known there: told twice, it counts once.
 */
void
ngx_http_stoa_throttle_told(ngx_uint_t ok)
{
    ngx_http_stoa_throttle_slot_t *s;
    ngx_http_stoa_shared_t        *sh = ngx_http_stoa_shared();
    ngx_uint_t                     i, n;

    if (!sh->throttle_sent) {
        return;
    }

    n = (sh->throttle_mask + 1) * NGX_HTTP_STOA_WAYS;

    for (i = 0; i < n; i++) {
        s = &sh->throttles[i];

        if (!s->sent) {
            continue;
        }

        ngx_http_stoa_lock(&sh->throttle_lock);

        s->sent = 0;

        if (!ok) {
            s->added = (uint16_t) ngx_min(s->fails, UINT16_MAX);
            s->anew = 1;
            sh->throttle_changed = 1;
        }

        ngx_http_stoa_unlock(&sh->throttle_lock);
    }

    sh->throttle_sent = 0;
}


void
ngx_http_stoa_throttle_merge(stoa_str_t text, uint32_t fails, int64_t at_ms)
{
    ngx_http_stoa_throttle_slot_t *s;
    ngx_http_stoa_shared_t        *sh = ngx_http_stoa_shared();
    uint64_t                       key[2];

    if (stoa_hex_decode((unsigned char *) key, sizeof(key), text)
        != (ssize_t) sizeof(key))
    {
        return;
    }

    ngx_http_stoa_lock(&sh->throttle_lock);

    s = ngx_http_stoa_throttle_find(sh, key, fails != 0);

    /* what was counted anew here is not known there yet */
    if (s != NULL && !s->anew) {
        s->fails = fails + s->added;
        s->last_ms = ngx_max(s->last_ms, at_ms);
        ngx_http_stoa_throttle_wait(s);
    }

    ngx_http_stoa_unlock(&sh->throttle_lock);
}


void
ngx_http_stoa_throttle_copy(ngx_http_stoa_shared_t       *to,
                            const ngx_http_stoa_shared_t *from)
{
    ngx_http_stoa_throttle_slot_t *s;
    ngx_uint_t                     i, n;

    n = (from->throttle_mask + 1) * NGX_HTTP_STOA_WAYS;

    for (i = 0; i < n; i++) {
        if (from->throttles[i].last_ms == 0) {
            continue;
        }

        s = ngx_http_stoa_throttle_find(to, from->throttles[i].key, 1);
        *s = from->throttles[i];
    }

    to->throttle_loaded = from->throttle_loaded;
    to->throttle_since = from->throttle_since;
}
