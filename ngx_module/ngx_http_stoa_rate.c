/*
 * The throttle of failed sign-ins, by account and address prefix.
 *
 * It counts failures (decision 24): from the limit's number on the pair is
 * refused for the limit's period, twice as long after each further failure,
 * up to a day; a period without failure forgets.  It is no lock of the
 * account: from another address the owner signs in.  Nodes tell each other
 * what they count through PostgreSQL, within a second.  Other limits are in
 * ngx_http_stoa_limit.c.
 *
 * Who has many addresses meets two more counts: that of the account and an
 * IPv6 /48, which is one customer's, and that of the account alone, which
 * anybody can fill: it only lets one guess through in a minute.  Neither is
 * asked of a pair that got in before.
 */

#include "ngx_http_stoa_limit.h"
#include "stoa_hmac.h"

#define NGX_HTTP_STOA_DAY_MS  (86400 * 1000)
#define NGX_HTTP_STOA_YEAR_MS (365 * (int64_t) NGX_HTTP_STOA_DAY_MS)

/* What the account is counted with; a key's last two bits say it. */
typedef enum {
    NGX_HTTP_STOA_BY_PAIR = 0,
    NGX_HTTP_STOA_BY_NET,     /* IPv6 /48 */
    NGX_HTTP_STOA_BY_ACCOUNT, /* alone */
    NGX_HTTP_STOA_BY
} ngx_http_stoa_by_e;

typedef struct {
    uint64_t   key[NGX_HTTP_STOA_BY][2];
    ngx_uint_t known[NGX_HTTP_STOA_BY];
} ngx_http_stoa_guess_t;

static const struct {
    ngx_uint_t times; /* the limit's number */
    ngx_uint_t part;  /* of its period is waited for; 0: longer and longer */
} ngx_http_stoa_by[] = {
    [NGX_HTTP_STOA_BY_PAIR] = { 1, 0 },
    [NGX_HTTP_STOA_BY_NET] = { 4, 0 },
    [NGX_HTTP_STOA_BY_ACCOUNT] = { 20, 15 },
};


static ngx_uint_t
ngx_http_stoa_throttle_by(const ngx_http_stoa_throttle_slot_t *s)
{
    return (ngx_uint_t) ngx_min(s->key[1] >> 62, NGX_HTTP_STOA_BY_ACCOUNT);
}


/* "2001:db8:1" of "2001:db8:1:2::/64"; IPv4 has none. */
static stoa_str_t
ngx_http_stoa_throttle_net(ngx_http_stoa_gate_t *gate)
{
    static const stoa_str_t tail = stoa_string("::/64");

    stoa_str_t net = { gate->addr_prefix_len, gate->addr_prefix };

    if (net.len < tail.len
        || ngx_memcmp(net.data + net.len - tail.len, tail.data, tail.len) != 0)
    {
        return (stoa_str_t) stoa_null_string;
    }

    for (net.len -= tail.len; net.data[net.len - 1] != ':'; net.len--) {
        /* the fourth of four */
    }

    net.len--;

    return net;
}


/* Keyed with a secret that outlives restarts: the table tells no address. */
static ngx_int_t
ngx_http_stoa_throttle_keys(ngx_http_stoa_gate_t *gate, stoa_str_t account,
                            ngx_http_stoa_guess_t *guess)
{
    ngx_http_stoa_main_conf_t *mcf = ngx_http_stoa_process.mcf;
    unsigned char              mac[32];
    ngx_uint_t                 by;
    stoa_str_t                 parts[3], with[NGX_HTTP_STOA_BY];
    u_char                     lower[320];

    if (account.len > sizeof(lower)) {
        account.len = sizeof(lower);
    }

    ngx_strlow(lower, account.data, account.len);

    with[NGX_HTTP_STOA_BY_PAIR].data = gate->addr_prefix;
    with[NGX_HTTP_STOA_BY_PAIR].len = gate->addr_prefix_len;
    with[NGX_HTTP_STOA_BY_NET] = ngx_http_stoa_throttle_net(gate);
    with[NGX_HTTP_STOA_BY_ACCOUNT] = (stoa_str_t) stoa_string("*");

    /* API keys that nobody made are guessed of no account */
    if (ngx_strlchr(lower, lower + account.len, '@') == NULL) {
        with[NGX_HTTP_STOA_BY_NET].len = 0;
        with[NGX_HTTP_STOA_BY_ACCOUNT].len = 0;
    }

    parts[0].data = lower;
    parts[0].len = account.len;
    parts[1].data = (u_char *) "";
    parts[1].len = 1;

    for (by = 0; by < NGX_HTTP_STOA_BY; by++) {
        guess->known[by] = with[by].len != 0;

        if (!guess->known[by]) {
            continue;
        }

        parts[2] = with[by];

        if (!stoa_hmac_sha256_parts(mcf->throttle_secret, parts, 3, mac)) {
            return NGX_ERROR;
        }

        ngx_memcpy(guess->key[by], mac, 16);
        guess->key[by][1] = guess->key[by][1] << 2 >> 2 | (uint64_t) by << 62;
    }

    return NGX_OK;
}


/* When a place has nothing to say any more: first that somebody got in. */
static int64_t
ngx_http_stoa_throttle_end(const ngx_http_stoa_throttle_slot_t *s)
{
    int64_t end = ngx_max(s->until_ms, s->last_ms);

    return s->fails != 0 ? end : end - NGX_HTTP_STOA_YEAR_MS;
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
                || ngx_http_stoa_throttle_end(s)
                       < ngx_http_stoa_throttle_end(oldest))
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


/* How long is waited follows from what was counted: every node that knows the
   count says the same. */
static void
ngx_http_stoa_throttle_wait(ngx_http_stoa_throttle_slot_t *s)
{
    ngx_http_stoa_limit_t *limit = &ngx_http_stoa_process.mcf->login;
    ngx_uint_t             by, over, most;
    int64_t                wait;

    s->until_ms = 0;

    by = ngx_http_stoa_throttle_by(s);
    most = limit->rate * ngx_http_stoa_by[by].times;

    if (limit->rate == 0 || s->fails < most) {
        return;
    }

    if (ngx_http_stoa_by[by].part != 0) {
        wait = (int64_t) (limit->period_ms / ngx_http_stoa_by[by].part);

    } else {
        over = ngx_min(s->fails - most, 20);
        wait = (int64_t) limit->period_ms << over;
    }

    s->until_ms = s->last_ms + ngx_min(wait, NGX_HTTP_STOA_DAY_MS);
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


/* Until when this guess has to wait; under the lock. */
static int64_t
ngx_http_stoa_throttle_until(ngx_http_stoa_shared_t      *sh,
                             const ngx_http_stoa_guess_t *guess)
{
    ngx_http_stoa_throttle_slot_t *s;
    ngx_uint_t                     by;
    int64_t                        until = 0;

    for (by = 0; by < NGX_HTTP_STOA_BY; by++) {
        s = guess->known[by]
              ? ngx_http_stoa_throttle_find(sh, guess->key[by], 0)
              : NULL;

        if (s != NULL) {
            until = ngx_max(until, s->until_ms);

            if (s->good) {
                break; /* what others do elsewhere is not its fault */
            }
        }
    }

    return until;
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
    ngx_http_stoa_shared_t *sh;
    ngx_http_stoa_guess_t   guess;
    int64_t                 until;

    sh = ngx_http_stoa_shared();

    if (sh == NULL || ngx_http_stoa_process.mcf->login.rate == 0) {
        return STOA_OK;
    }

    if (!sh->throttle_loaded) {
        return STOA_E_STARTING; /* who waited before the restart still does */
    }

    if (ngx_http_stoa_throttle_keys(gate, account, &guess) != NGX_OK) {
        return STOA_E_INTERNAL;
    }

    ngx_http_stoa_lock(&sh->throttle_lock);
    until = ngx_http_stoa_throttle_until(sh, &guess);
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
    ngx_http_stoa_guess_t          guess;
    ngx_uint_t                     by;
    int64_t                        until, now;

    sh = ngx_http_stoa_shared();
    limit = &ngx_http_stoa_process.mcf->login;

    if (sh == NULL || limit->rate == 0) {
        return STOA_OK;
    }

    if (ngx_http_stoa_throttle_keys(gate, account, &guess) != NGX_OK) {
        return STOA_E_INTERNAL;
    }

    now = stoa_time_ms();

    ngx_http_stoa_lock(&sh->throttle_lock);

    until = ngx_http_stoa_throttle_until(sh, &guess);

    if (until > now && !limit->dry_run) {
        /* is told nothing */

    } else if (right) {
        s = ngx_http_stoa_throttle_find(sh, guess.key[NGX_HTTP_STOA_BY_PAIR],
                                        1);
        ngx_http_stoa_throttle_forget(s);
        s->good = 1;
        s->last_ms = ngx_max(s->last_ms, now);

    } else {
        for (by = 0; by < NGX_HTTP_STOA_BY; by++) {
            if (guess.known[by]) {
                s = ngx_http_stoa_throttle_find(sh, guess.key[by], 1);
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
