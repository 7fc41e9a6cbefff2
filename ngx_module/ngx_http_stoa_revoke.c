/*
 * Revocations: which sessions have ended and from which epoch on a user's
 * tokens count, in the shared zone.
 *
 * Readers, once per request, take no lock: a slot's kind is written last,
 * and cleaning copies the live entries into the other of two tables and then
 * turns the index over, so that a reader always walks a table at rest.
 * Nothing that is live is ever dropped: when a table would overflow, every
 * token issued until now is refused instead (not_before), and the log says
 * so at crit.  Devices cannot refresh theirs and would have to be paired
 * again: what has ended of them is kept, and they go on, unless it alone
 * would overflow.
 *
 * They come from PostgreSQL (ngx_http_stoa_tick.c), the Redis channel only
 * makes it faster.  Until the first read is done, whoever brings a token is
 * told STARTING.
 */

#include "ngx_http_stoa_zone.h"

/* The longest life of an access token that settings allow, and leeway. */
#define NGX_HTTP_STOA_TOKEN_MS ((int64_t) (86400 + 300) * 1000)

/* What a table that is full leaves behind. */
typedef enum {
    NGX_HTTP_STOA_REVOKE_ALL,
    NGX_HTTP_STOA_REVOKE_DEVICES,
    NGX_HTTP_STOA_REVOKE_NONE
} ngx_http_stoa_revoke_keep_e;

/* ---- the table ---- */

static ngx_inline ngx_uint_t
ngx_http_stoa_revoke_hash(const stoa_uuid_t *key)
{
    uint64_t n;

    /* the random half of a UUIDv7 */
    ngx_memcpy(&n, &key->b[8], 8);

    return (ngx_uint_t) ((n * UINT64_C(0x9e3779b97f4a7c15)) >> 20);
}


static ngx_http_stoa_revoke_slot_t *
ngx_http_stoa_revoke_find(const ngx_http_stoa_revoke_table_t *t,
                          const stoa_uuid_t *key, ngx_atomic_uint_t kind)
{
    ngx_http_stoa_revoke_slot_t *s;
    ngx_uint_t                   i, n;

    i = ngx_http_stoa_revoke_hash(key);

    for (n = 0; n <= t->mask; n++, i++) {
        s = &t->slots[i & t->mask];

        if (s->kind == NGX_HTTP_STOA_REVOKE_FREE) {
            return NULL;
        }

        ngx_memory_barrier();

        if (s->kind == kind && ngx_memcmp(s->key.b, key->b, 16) == 0) {
            return s;
        }
    }

    return NULL;
}


/* Called under the lock, or on a table that nobody reads yet. */
static void
ngx_http_stoa_revoke_insert(ngx_http_stoa_revoke_table_t *t,
                            const stoa_uuid_t *key, ngx_atomic_uint_t kind,
                            ngx_atomic_uint_t value, ngx_atomic_uint_t until_ms)
{
    ngx_http_stoa_revoke_slot_t *s;
    ngx_uint_t                   i;

    s = ngx_http_stoa_revoke_find(t, key, kind);

    if (s != NULL) {
        s->value = ngx_max(s->value, value);
        s->until_ms = ngx_max(s->until_ms, until_ms);
        return;
    }

    /* at most three quarters are full: there is a free one */
    for (i = ngx_http_stoa_revoke_hash(key);
         t->slots[i & t->mask].kind != NGX_HTTP_STOA_REVOKE_FREE; i++)
    {
        /* void */
    }

    s = &t->slots[i & t->mask];
    s->key = *key;
    s->value = value;
    s->until_ms = until_ms;

    ngx_memory_barrier();

    s->kind = kind;
    t->count++;
}


static ngx_uint_t
ngx_http_stoa_revoke_kept(const ngx_http_stoa_revoke_slot_t *s,
                          ngx_http_stoa_revoke_keep_e keep, int64_t now)
{
    if (s->kind == NGX_HTTP_STOA_REVOKE_FREE || (int64_t) s->until_ms <= now) {
        return 0;
    }

    return keep == NGX_HTTP_STOA_REVOKE_ALL
        || (keep == NGX_HTTP_STOA_REVOKE_DEVICES
            && s->kind == NGX_HTTP_STOA_REVOKE_SID && s->value);
}


/* Copies what is kept of the live ones into the other table and makes that the
   active one; not_before and devices_before stand for the rest. */
static void
ngx_http_stoa_revoke_turn(ngx_http_stoa_shared_t     *sh,
                          ngx_http_stoa_revoke_keep_e keep)
{
    ngx_http_stoa_revoke_table_t *from, *to;
    ngx_http_stoa_revoke_slot_t  *s;
    int64_t                       now;
    ngx_uint_t                    i;

    from = &sh->tables[sh->revoke_active];
    to = &sh->tables[!sh->revoke_active];
    now = stoa_time_ms();

    ngx_memzero(to->slots, (to->mask + 1) * sizeof(*s));
    to->count = 0;

    for (i = 0; i <= from->mask; i++) {
        s = &from->slots[i];

        if (ngx_http_stoa_revoke_kept(s, keep, now)) {
            ngx_http_stoa_revoke_insert(to, &s->key, s->kind, s->value,
                                        s->until_ms);
        }
    }

    ngx_memory_barrier();

    sh->revoke_active = !sh->revoke_active;
    sh->swept_ms = now;
}


static ngx_uint_t
ngx_http_stoa_revoke_full(const ngx_http_stoa_shared_t *sh)
{
    const ngx_http_stoa_revoke_table_t *t = &sh->tables[sh->revoke_active];

    return t->count >= (t->mask + 1) / 4 * 3;
}


static void
ngx_http_stoa_revoke_put(ngx_http_stoa_shared_t *sh, const stoa_uuid_t *key,
                         ngx_atomic_uint_t kind, ngx_atomic_uint_t value,
                         int64_t until_ms)
{
    ngx_atomic_uint_t next = (ngx_atomic_uint_t) (stoa_time_ms() / 1000 + 1);
    const char       *overflow = NULL;

    if (until_ms <= stoa_time_ms()) {
        return; /* no token lives that long */
    }

    ngx_http_stoa_lock(&sh->revoke_lock);

    if (ngx_http_stoa_revoke_full(sh)) {
        ngx_http_stoa_revoke_turn(sh, NGX_HTTP_STOA_REVOKE_ALL);
    }

    if (ngx_http_stoa_revoke_full(sh)) {
        overflow = "all tokens but those of devices";
        sh->not_before = next;
        ngx_memory_barrier();
        ngx_http_stoa_revoke_turn(sh, NGX_HTTP_STOA_REVOKE_DEVICES);
    }

    if (ngx_http_stoa_revoke_full(sh)) {
        overflow = "all tokens, those of devices, too,";
        sh->devices_before = next;
        ngx_memory_barrier();
        ngx_http_stoa_revoke_turn(sh, NGX_HTTP_STOA_REVOKE_NONE);
    }

    ngx_http_stoa_revoke_insert(&sh->tables[sh->revoke_active], key, kind,
                                value, (ngx_atomic_uint_t) until_ms);

    sh->cells[STOA_M_revocations] = sh->tables[sh->revoke_active].count;

    ngx_http_stoa_unlock(&sh->revoke_lock);

    if (overflow != NULL) {
        ngx_log_error(NGX_LOG_CRIT, ngx_cycle->log, 0,
                      "stoa: the zone is full of revocations, %s issued until "
                      "now are refused; make \"stoa_zone\" larger",
                      overflow);
    }
}


void
ngx_http_stoa_revoke_copy(ngx_http_stoa_shared_t       *to,
                          const ngx_http_stoa_shared_t *from)
{
    const ngx_http_stoa_revoke_table_t *t = &from->tables[from->revoke_active];
    const ngx_http_stoa_revoke_slot_t  *s;
    ngx_uint_t                          i;

    to->not_before = from->not_before;
    to->devices_before = from->devices_before;

    for (i = 0; i <= t->mask; i++) {
        s = &t->slots[i];

        if (s->kind != NGX_HTTP_STOA_REVOKE_FREE) {
            ngx_http_stoa_revoke_put(to, &s->key, s->kind, s->value,
                                     (int64_t) s->until_ms);
        }
    }

    to->revoke_since = from->revoke_since;
    to->revoke_loaded = from->revoke_loaded;
    to->schema = from->schema;
}


void
ngx_http_stoa_revoke_sweep(ngx_http_stoa_shared_t *sh)
{
    ngx_http_stoa_lock(&sh->revoke_lock);
    ngx_http_stoa_revoke_turn(sh, NGX_HTTP_STOA_REVOKE_ALL);
    sh->cells[STOA_M_revocations] = sh->tables[sh->revoke_active].count;
    ngx_http_stoa_unlock(&sh->revoke_lock);
}


/* ---- what requests ask ---- */

ngx_uint_t
ngx_http_stoa_revoke_loaded(void)
{
    ngx_http_stoa_shared_t *sh = ngx_http_stoa_shared();

    return sh != NULL && sh->revoke_loaded;
}


static ngx_uint_t
ngx_http_stoa_revoke_older(const ngx_http_stoa_revoke_table_t *t,
                           const stoa_uuid_t *user, uint32_t epoch)
{
    const ngx_http_stoa_revoke_slot_t *s;

    s = ngx_http_stoa_revoke_find(t, user, NGX_HTTP_STOA_REVOKE_USER);

    return s != NULL && epoch < s->value;
}


ngx_http_stoa_revoke_state_e
ngx_http_stoa_revoke_state(const stoa_claims_t *claims)
{
    const ngx_http_stoa_revoke_table_t *t;
    ngx_http_stoa_shared_t             *sh = ngx_http_stoa_shared();
    ngx_atomic_uint_t                   before;

    t = &sh->tables[sh->revoke_active];
    before = claims->roles & STOA_DEVICE ? sh->devices_before : sh->not_before;

    /* an entry outlives its end until the next sweep: tokens of it are
       expired by then */
    if (t->count != 0
        && ngx_http_stoa_revoke_find(t, &claims->sid, NGX_HTTP_STOA_REVOKE_SID)
               != NULL)
    {
        return NGX_HTTP_STOA_ENDED;
    }

    if (claims->iat < (int64_t) before
        || (t->count != 0
            && (ngx_http_stoa_revoke_older(t, &claims->sub, claims->epoch)
                || (claims->acting
                    && ngx_http_stoa_revoke_older(t, &claims->act,
                                                  claims->act_epoch)))))
    {
        return NGX_HTTP_STOA_OUTDATED;
    }

    return NGX_HTTP_STOA_STANDS;
}


stoa_err_e
ngx_http_stoa_revoke_check(const stoa_claims_t *claims)
{
    if (!ngx_http_stoa_revoke_loaded()) {
        return STOA_E_STARTING;
    }

    return ngx_http_stoa_revoke_state(claims) == NGX_HTTP_STOA_STANDS
             ? STOA_OK
             : STOA_E_TOKEN_REVOKED;
}


void
ngx_http_stoa_revoke_apply(stoa_str_t text)
{
    ngx_http_stoa_shared_t *sh = ngx_http_stoa_shared();
    ngx_uint_t              sid = 1, device = 0;
    stoa_uuid_t             key;
    stoa_str_t              id, number;
    int64_t                 n;

    if (sh == NULL) {
        return;
    }

    if (text.len > 4 + 37 && ngx_memcmp(text.data, "sid ", 4) == 0) {
        id.data = text.data + 4;

    } else if (text.len > 7 + 37 && ngx_memcmp(text.data, "device ", 7) == 0) {
        device = 1;
        id.data = text.data + 7;

    } else if (text.len > 5 + 37 && ngx_memcmp(text.data, "user ", 5) == 0) {
        sid = 0;
        id.data = text.data + 5;

    } else {
        goto invalid;
    }

    id.len = 36;
    number.data = id.data + 37;
    number.len = (size_t) (text.data + text.len - number.data);

    if (id.data[36] != ' ' || !stoa_uuid_parse(id, &key)
        || !stoa_str_int(number, 0, INT64_MAX, &n))
    {
        goto invalid;
    }

    if (sid) {
        ngx_http_stoa_revoke_put(sh, &key, NGX_HTTP_STOA_REVOKE_SID, device, n);

    } else {
        ngx_http_stoa_revoke_put(sh, &key, NGX_HTTP_STOA_REVOKE_USER,
                                 (ngx_atomic_uint_t) n,
                                 stoa_time_ms() + NGX_HTTP_STOA_TOKEN_MS);
    }

    return;

invalid:

    ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                  "stoa: revocation is not understood, %uz bytes", text.len);
}
