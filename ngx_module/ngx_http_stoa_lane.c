/*
 * Who waits for a hashing thread, and in which order.  Each address prefix
 * has a lane; the lanes take turns, so a flood from one of them delays
 * another's sign-in by one hash at most, and not by its own length.  When
 * there is no room, the newest of the longest lane gives way to who has less
 * waiting.  One prefix alone may have all the room.
 *
 * A lane exists while somebody waits in it.  They are looked through one by
 * one: there are no more of them than places (ngx_http_stoa_conf_hash()).
 */

#include "ngx_http_stoa.h"

typedef struct {
    ngx_queue_t link;    /* among the lanes, the next turn first */
    ngx_queue_t waiting; /* ngx_http_stoa_hash_t, the oldest first */
    ngx_uint_t  n;
    size_t      len;
    u_char      prefix[40];
} ngx_http_stoa_lane_t;

static ngx_queue_t ngx_http_stoa_lanes;
static ngx_uint_t  ngx_http_stoa_lane_n; /* who waits, in all lanes */

static ngx_queue_t *
ngx_http_stoa_lane_all(void)
{
    if (ngx_http_stoa_lanes.next == NULL) {
        ngx_queue_init(&ngx_http_stoa_lanes);
    }

    return &ngx_http_stoa_lanes;
}

static ngx_http_stoa_lane_t *
ngx_http_stoa_lane_find(const ngx_http_stoa_gate_t *gate)
{
    ngx_queue_t          *all = ngx_http_stoa_lane_all(), *x;
    ngx_http_stoa_lane_t *lane;

    for (x = ngx_queue_head(all); x != ngx_queue_sentinel(all);
         x = ngx_queue_next(x))
    {
        lane = ngx_queue_data(x, ngx_http_stoa_lane_t, link);

        if (lane->len == gate->addr_prefix_len
            && ngx_memcmp(lane->prefix, gate->addr_prefix, lane->len) == 0)
        {
            return lane;
        }
    }

    return NULL;
}

static ngx_http_stoa_lane_t *
ngx_http_stoa_lane_longest(void)
{
    ngx_queue_t          *all = ngx_http_stoa_lane_all(), *x;
    ngx_http_stoa_lane_t *lane, *longest = NULL;

    for (x = ngx_queue_head(all); x != ngx_queue_sentinel(all);
         x = ngx_queue_next(x))
    {
        lane = ngx_queue_data(x, ngx_http_stoa_lane_t, link);

        if (longest == NULL || lane->n > longest->n) {
            longest = lane;
        }
    }

    return longest;
}

static ngx_http_stoa_lane_t *
ngx_http_stoa_lane_create(const ngx_http_stoa_gate_t *gate)
{
    ngx_http_stoa_lane_t *lane;

    lane = ngx_alloc(sizeof(ngx_http_stoa_lane_t), ngx_cycle->log);
    if (lane == NULL) {
        return NULL;
    }

    lane->n = 0;
    lane->len = gate->addr_prefix_len;
    ngx_memcpy(lane->prefix, gate->addr_prefix, lane->len);
    ngx_queue_init(&lane->waiting);
    ngx_queue_insert_tail(ngx_http_stoa_lane_all(), &lane->link);

    return lane;
}

ngx_uint_t
ngx_http_stoa_lane_waiting(void)
{
    return ngx_http_stoa_lane_n;
}

/* How many of those that wait now come before one who joins this lane. */
ngx_uint_t
ngx_http_stoa_lane_ahead(const ngx_http_stoa_gate_t *gate)
{
    ngx_uint_t            own, ahead;
    ngx_queue_t          *all = ngx_http_stoa_lane_all(), *x;
    ngx_http_stoa_lane_t *lane;

    lane = ngx_http_stoa_lane_find(gate);
    own = lane != NULL ? lane->n : 0;
    ahead = 0;

    for (x = ngx_queue_head(all); x != ngx_queue_sentinel(all);
         x = ngx_queue_next(x))
    {
        lane = ngx_queue_data(x, ngx_http_stoa_lane_t, link);
        ahead += ngx_min(lane->n, own + 1);
    }

    return ahead;
}

/* NGX_BUSY: there is no room.  *out: who gave way and waits no more. */
ngx_int_t
ngx_http_stoa_lane_put(ngx_http_stoa_hash_t *h, ngx_uint_t max,
                       ngx_http_stoa_hash_t **out)
{
    ngx_http_stoa_gate_t *gate = h->q->gate;
    ngx_http_stoa_lane_t *lane, *longest;

    *out = NULL;
    lane = ngx_http_stoa_lane_find(gate);

    if (ngx_http_stoa_lane_n >= max) {
        longest = ngx_http_stoa_lane_longest();

        if (longest == NULL || longest == lane
            || longest->n <= (lane != NULL ? lane->n : 0) + 1)
        {
            return NGX_BUSY;
        }

        *out = ngx_queue_data(ngx_queue_last(&longest->waiting),
                              ngx_http_stoa_hash_t, link);
    }

    if (lane == NULL) {
        lane = ngx_http_stoa_lane_create(gate);
        if (lane == NULL) {
            *out = NULL;
            return NGX_ERROR;
        }
    }

    if (*out != NULL) {
        ngx_http_stoa_lane_remove(*out);
    }

    h->lane = lane;
    ngx_queue_insert_tail(&lane->waiting, &h->link);
    lane->n++;
    ngx_http_stoa_lane_n++;

    return NGX_OK;
}

/* Of the lane whose turn it is, who waits longest; NULL: nobody waits. */
ngx_http_stoa_hash_t *
ngx_http_stoa_lane_take(void)
{
    ngx_queue_t          *all = ngx_http_stoa_lane_all();
    ngx_http_stoa_hash_t *h;
    ngx_http_stoa_lane_t *lane;

    if (ngx_queue_empty(all)) {
        return NULL;
    }

    lane = ngx_queue_data(ngx_queue_head(all), ngx_http_stoa_lane_t, link);
    ngx_queue_remove(&lane->link);
    ngx_queue_insert_tail(all, &lane->link);

    h = ngx_queue_data(ngx_queue_head(&lane->waiting), ngx_http_stoa_hash_t,
                       link);
    ngx_http_stoa_lane_remove(h);

    return h;
}

void
ngx_http_stoa_lane_remove(ngx_http_stoa_hash_t *h)
{
    ngx_http_stoa_lane_t *lane = h->lane;

    h->lane = NULL;
    ngx_queue_remove(&h->link);
    ngx_http_stoa_lane_n--;

    if (--lane->n == 0) {
        ngx_queue_remove(&lane->link);
        ngx_free(lane);
    }
}
