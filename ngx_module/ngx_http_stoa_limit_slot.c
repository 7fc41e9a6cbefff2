/*
 * The places of limits: an array of buckets in the shared zone, two of which
 * a key may be in.
 *
 * A place whose time has passed says the same as no place, so it may be
 * overwritten; one that is still active is overwritten only when all 32
 * places of its two buckets are active, and then the one that has used the
 * least of its limit: a flood of new keys replaces itself, never a key that
 * is at its end.
 *
 * A process that is killed in the middle of a write leaves one place that
 * says nothing, or too little, of one key.  A place in use never looks like
 * one that was never used, behind which nobody looks.
 */

#include "ngx_http_stoa_limit.h"

/* What a process wrote before it was killed was written in this order. */
#define ngx_http_stoa_in_order() __asm__ volatile("" ::: "memory")


static ngx_http_stoa_rate_slot_t *
ngx_http_stoa_slot_bucket(ngx_http_stoa_shared_t *sh, uint64_t word)
{
    return &sh->rates[((ngx_uint_t) word & sh->rate_mask) * NGX_HTTP_STOA_WAYS];
}


ngx_http_stoa_rate_slot_t *
ngx_http_stoa_slot_find(ngx_http_stoa_shared_t *sh, const uint64_t key[2])
{
    ngx_http_stoa_rate_slot_t *s;
    ngx_uint_t                 i, way;

    for (i = 0; i < 2; i++) {
        s = ngx_http_stoa_slot_bucket(sh, key[i]);

        /* places are filled from the front and never emptied */
        for (way = 0; way < NGX_HTTP_STOA_WAYS && s->rate != 0; way++, s++) {
            if (s->key[0] == key[0] && s->key[1] == key[1]) {
                return s;
            }
        }
    }

    return NULL;
}


/* How much of its limit a place has used, of 1024. */
static uint64_t
ngx_http_stoa_slot_share(const ngx_http_stoa_rate_slot_t *s, uint64_t now)
{
    uint64_t most;

    if (s->burst & NGX_HTTP_STOA_WINDOW) {
        most = s->burst & ~NGX_HTTP_STOA_WINDOW;
        return ((uint64_t) s->used << 10) / ngx_max(most, 1);
    }

    most = (uint64_t) s->burst * s->period;

    return ((s->tat - now * s->rate) << 10) / ngx_max(most, 1);
}


ngx_http_stoa_rate_slot_t *
ngx_http_stoa_slot_place(ngx_http_stoa_shared_t *sh, const uint64_t key[2],
                         uint64_t now)
{
    ngx_http_stoa_rate_slot_t *s, *least;
    ngx_uint_t                 i, way;
    uint64_t                   share, smallest;

    least = NULL;
    smallest = 0;

    for (i = 0; i < 2; i++) {
        s = ngx_http_stoa_slot_bucket(sh, key[i]);

        for (way = 0; way < NGX_HTTP_STOA_WAYS; way++, s++) {

            if (s->rate == 0 || s->tat <= now * s->rate) {
                return s;
            }

            share = ngx_http_stoa_slot_share(s, now);

            if (least == NULL || share < smallest) {
                least = s;
                smallest = share;
            }
        }
    }

    (void) ngx_atomic_fetch_add(&sh->rate_evicted, 1);

    return least;
}


void
ngx_http_stoa_slot_write(ngx_http_stoa_rate_slot_t *s, const uint64_t key[2],
                         const ngx_http_stoa_rate_slot_t *with)
{
    if (s->key[0] != key[0] || s->key[1] != key[1]) {
        s->tat = 0;
        ngx_http_stoa_in_order();
        s->key[0] = key[0];
        s->key[1] = key[1];
    }

    s->period = with->period;
    s->burst = with->burst;
    s->used = with->used;
    s->rate = with->rate;
    ngx_http_stoa_in_order();
    s->tat = with->tat;
}


void
ngx_http_stoa_limit_copy(ngx_http_stoa_shared_t       *to,
                         const ngx_http_stoa_shared_t *from)
{
    const ngx_http_stoa_rate_slot_t *s;
    ngx_http_stoa_rate_slot_t       *place;
    ngx_uint_t                       i, n;
    uint64_t                         now = (uint64_t) stoa_time_ms();

    n = (from->rate_mask + 1) * NGX_HTTP_STOA_WAYS;

    for (i = 0; i < n; i++) {
        s = &from->rates[i];

        if (s->rate != 0 && s->tat > now * s->rate) {
            place = ngx_http_stoa_slot_place(to, s->key, now);
            ngx_http_stoa_slot_write(place, s->key, s);
        }
    }

    ngx_memcpy(to->limits, from->limits, sizeof(to->limits));
    to->rate_evicted = from->rate_evicted;
}
