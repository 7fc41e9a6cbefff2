/*
 * Micro-cache of answers to public GET rows with .cache_ms, in the memory of
 * each process, with one flight per key: who asks while an answer is being
 * made waits for it.
 *
 * Per process and not in the shared zone: a hit then points into the cache
 * (no lock, no copy), which is what makes it as cheap as a static answer, and
 * a flight's followers wait in the process that flies.  The cost is one
 * statement per process and .cache_ms instead of one per machine.
 *
 * Keys are made in ngx_http_stoa_cache_key.c.  What was made for somebody is
 * not kept: a row that is bound to the caller is cached for anonymous callers
 * only.  An answer lives until its last reader has sent it; one without an
 * ETag gets a digest of itself, made once.
 */

#include "ngx_http_stoa_zone.h"

#include <ngx_md5.h>

#define NGX_HTTP_STOA_CACHE_CHAINS 1024 /* a power of two */
#define NGX_HTTP_STOA_CACHE_ETAG   34   /* a quoted MD5 */

typedef struct {
    ngx_uint_t refs;
    stoa_str_t body, meta, etag; /* behind this */
} ngx_http_stoa_content_t;

typedef struct ngx_http_stoa_entry_s {
    ngx_queue_t                   lru;
    struct ngx_http_stoa_entry_s *next; /* of the chain */
    uint64_t                      key[2];
    ngx_msec_t                    expires;
    ngx_uint_t                    flying;
    ngx_queue_t                   parked;
    stoa_defer_t                  wake;
    ngx_http_stoa_content_t      *content;
    size_t                        size;
} ngx_http_stoa_entry_t;

typedef struct {
    ngx_queue_t            queue;
    ngx_http_stoa_ctx_t   *q;
    ngx_http_stoa_entry_t *entry; /* NULL: no longer parked */
} ngx_http_stoa_waiter_t;

static struct {
    ngx_http_stoa_entry_t *chains[NGX_HTTP_STOA_CACHE_CHAINS];
    ngx_queue_t            lru; /* the head was used last */
    size_t                 size;
    u_char                 hash_key[16];
    u_char                *vary; /* by row */
} ngx_http_stoa_cache;


ngx_int_t
ngx_http_stoa_cache_init_process(ngx_cycle_t *cycle)
{
    ngx_http_stoa_main_conf_t *mcf = ngx_http_stoa_process.mcf;
    ngx_uint_t                 i;

    ngx_queue_init(&ngx_http_stoa_cache.lru);

    if (mcf->cache_size == 0 || mcf->api == NULL) {
        return NGX_OK;
    }

    ngx_http_stoa_cache.vary = ngx_palloc(cycle->pool, mcf->api->nrows);

    if (ngx_http_stoa_cache.vary == NULL
        || !stoa_random(ngx_http_stoa_cache.hash_key, 16))
    {
        return NGX_ERROR;
    }

    for (i = 0; i < mcf->api->nrows; i++) {
        ngx_http_stoa_cache.vary[i] = ngx_http_stoa_cache_vary(&mcf->bound[i]);
    }

    return NGX_OK;
}


/* ---- entries ---- */

static void
ngx_http_stoa_content_put(void *data)
{
    ngx_http_stoa_content_t *content = data;

    if (--content->refs == 0) {
        ngx_free(content);
    }
}


static void
ngx_http_stoa_entry_empty(ngx_http_stoa_entry_t *e)
{
    if (e->content != NULL) {
        ngx_http_stoa_content_put(e->content);
        ngx_http_stoa_cache.size -= e->size;
        e->content = NULL;
        e->size = 0;
    }
}


static void
ngx_http_stoa_entry_delete(ngx_http_stoa_entry_t *e)
{
    ngx_http_stoa_entry_t **link;

    link = &ngx_http_stoa_cache
                .chains[e->key[0] & (NGX_HTTP_STOA_CACHE_CHAINS - 1)];

    while (*link != e) {
        link = &(*link)->next;
    }

    *link = e->next;

    ngx_queue_remove(&e->lru);
    ngx_http_stoa_entry_empty(e);
    ngx_http_stoa_cache.size -= sizeof(ngx_http_stoa_entry_t);

    ngx_http_stoa_process.loop->defer_close(ngx_http_stoa_process.loop,
                                            &e->wake);
    ngx_free(e);
}


/* Makes room from the end that was not used for longest. */
static void
ngx_http_stoa_cache_shrink(size_t size)
{
    ngx_http_stoa_entry_t *e;
    ngx_queue_t           *p, *prev;
    size_t                 max = ngx_http_stoa_process.mcf->cache_size;

    for (p = ngx_queue_last(&ngx_http_stoa_cache.lru);
         p != ngx_queue_sentinel(&ngx_http_stoa_cache.lru)
         && ngx_http_stoa_cache.size + size > max;
         p = prev)
    {
        prev = ngx_queue_prev(p);
        e = ngx_queue_data(p, ngx_http_stoa_entry_t, lru);

        if (!e->flying && ngx_queue_empty(&e->parked)) {
            ngx_http_stoa_entry_delete(e);
        }
    }
}


static ngx_http_stoa_entry_t *
ngx_http_stoa_entry_find(const uint64_t key[2])
{
    ngx_http_stoa_entry_t *e;

    e = ngx_http_stoa_cache.chains[key[0] & (NGX_HTTP_STOA_CACHE_CHAINS - 1)];

    while (e != NULL && (e->key[0] != key[0] || e->key[1] != key[1])) {
        e = e->next;
    }

    return e;
}


static void ngx_http_stoa_cache_wake(stoa_defer_t *d);


static ngx_http_stoa_entry_t *
ngx_http_stoa_entry_create(const uint64_t key[2])
{
    ngx_http_stoa_entry_t *e, **link;

    ngx_http_stoa_cache_shrink(sizeof(ngx_http_stoa_entry_t));

    if (ngx_http_stoa_cache.size + sizeof(ngx_http_stoa_entry_t)
        > ngx_http_stoa_process.mcf->cache_size)
    {
        return NULL; /* full of flights */
    }

    e = ngx_calloc(sizeof(ngx_http_stoa_entry_t), ngx_cycle->log);
    if (e == NULL) {
        return NULL;
    }

    e->key[0] = key[0];
    e->key[1] = key[1];
    e->wake.run = ngx_http_stoa_cache_wake;
    e->wake.data = e;

    ngx_queue_init(&e->parked);
    ngx_queue_insert_head(&ngx_http_stoa_cache.lru, &e->lru);

    link = &ngx_http_stoa_cache
                .chains[key[0] & (NGX_HTTP_STOA_CACHE_CHAINS - 1)];
    e->next = *link;
    *link = e;

    ngx_http_stoa_cache.size += sizeof(ngx_http_stoa_entry_t);

    return e;
}


/* ---- readers, flights, followers ---- */

static ngx_int_t
ngx_http_stoa_cache_send(ngx_http_stoa_ctx_t *q, ngx_http_stoa_entry_t *e)
{
    ngx_pool_cleanup_t *cln;

    cln = ngx_pool_cleanup_add(q->r->pool, 0);
    if (cln == NULL) {
        return q->rc = NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    e->content->refs++;
    cln->handler = ngx_http_stoa_content_put;
    cln->data = e->content;

    return ngx_http_stoa_reply_answer(q, NGX_HTTP_OK, e->content->body,
                                      e->content->meta, e->content->etag);
}


static void
ngx_http_stoa_cache_leave(void *data)
{
    ngx_http_stoa_waiter_t *w = data;

    if (w->entry != NULL) {
        ngx_queue_remove(&w->queue);
        w->entry = NULL;
    }
}


static ngx_int_t
ngx_http_stoa_cache_park(ngx_http_stoa_ctx_t *q, ngx_http_stoa_entry_t *e)
{
    ngx_http_stoa_waiter_t *w;
    ngx_http_cleanup_t     *cln;

    cln = ngx_http_cleanup_add(q->r, sizeof(ngx_http_stoa_waiter_t));
    if (cln == NULL) {
        return NGX_ERROR;
    }

    w = cln->data;
    w->q = q;
    w->entry = e;
    cln->handler = ngx_http_stoa_cache_leave;

    ngx_queue_insert_tail(&e->parked, &w->queue);
    q->gate->cache_status = NGX_HTTP_STOA_CACHE_WAIT;

    return NGX_AGAIN;
}


/* After the flight: its followers are answered, or work for themselves. */
static void
ngx_http_stoa_cache_wake(stoa_defer_t *d)
{
    ngx_http_stoa_entry_t  *e = d->data;
    ngx_http_stoa_waiter_t *w;
    ngx_http_stoa_ctx_t    *q;
    ngx_queue_t            *p;
    ngx_int_t               rc;

    while (!ngx_queue_empty(&e->parked)) {
        p = ngx_queue_head(&e->parked);
        w = ngx_queue_data(p, ngx_http_stoa_waiter_t, queue);
        q = w->q;

        ngx_queue_remove(&w->queue);
        w->entry = NULL;

        ngx_http_stoa_resume_begin(q);

        if (e->content != NULL) {
            ngx_http_stoa_metric_add(STOA_M_cache_hits, 1);
            rc = ngx_http_stoa_cache_send(q, e);

        } else {
            rc = ngx_http_stoa_go(q);
        }

        ngx_http_stoa_finish(q, rc);
    }

    if (e->content == NULL && !e->flying) {
        ngx_http_stoa_entry_delete(e);
    }
}


ngx_int_t
ngx_http_stoa_cache_get(ngx_http_stoa_ctx_t *q)
{
    ngx_http_stoa_entry_t *e;
    uint64_t               key[2];
    u_char                 vary;

    if (ngx_http_stoa_cache.vary == NULL) {
        return NGX_BUSY;
    }

    vary = ngx_http_stoa_cache.vary[q->gate->row];

    if ((vary & NGX_HTTP_STOA_VARY_ALWAYS)
        || ((vary & NGX_HTTP_STOA_VARY_ACTOR) && q->gate->authenticated)
        || ngx_http_stoa_cache_key(q, vary, ngx_http_stoa_cache.hash_key, key)
               != NGX_OK)
    {
        return NGX_BUSY;
    }

    e = ngx_http_stoa_entry_find(key);

    if (e != NULL && e->content != NULL
        && (ngx_msec_int_t) (e->expires - ngx_current_msec) > 0)
    {
        ngx_queue_remove(&e->lru);
        ngx_queue_insert_head(&ngx_http_stoa_cache.lru, &e->lru);

        q->gate->cache_status = NGX_HTTP_STOA_CACHE_HIT;
        ngx_http_stoa_metric_add(STOA_M_cache_hits, 1);
        (void) ngx_http_stoa_cache_send(q, e);

        return NGX_OK;
    }

    if (e != NULL && e->flying) {
        return ngx_http_stoa_cache_park(q, e);
    }

    if (e == NULL) {
        e = ngx_http_stoa_entry_create(key);
        if (e == NULL) {
            return NGX_BUSY;
        }
    }

    e->flying = 1;
    q->flight = e;
    q->gate->cache_status = NGX_HTTP_STOA_CACHE_MISS;
    ngx_http_stoa_metric_add(STOA_M_cache_misses, 1);

    return NGX_DECLINED;
}


/* The flight is over; those who wait are woken at the end of this turn. */
static void
ngx_http_stoa_cache_land(ngx_http_stoa_entry_t *e)
{
    e->flying = 0;
    ngx_http_stoa_process.loop->defer(ngx_http_stoa_process.loop, &e->wake);
}


/* The tag of an answer that has none: a digest of what it says, the same in
   every process, with the quotes of the header. */
static stoa_str_t
ngx_http_stoa_cache_etag(ngx_http_stoa_ctx_t *q, stoa_str_t body,
                         stoa_str_t meta)
{
    ngx_md5_t  md5;
    u_char     sum[16], *text;
    stoa_str_t tag = stoa_null_string;

    text = ngx_pnalloc(q->r->pool, NGX_HTTP_STOA_CACHE_ETAG);
    if (text == NULL) {
        return tag; /* an answer without one, then */
    }

    ngx_md5_init(&md5);
    ngx_md5_update(&md5, body.data, body.len);
    ngx_md5_update(&md5, "\n", 1);
    ngx_md5_update(&md5, meta.data, meta.len);
    ngx_md5_final(sum, &md5);

    text[0] = '"';
    *ngx_hex_dump(text + 1, sum, sizeof(sum)) = '"';

    tag.data = text;
    tag.len = NGX_HTTP_STOA_CACHE_ETAG;

    return tag;
}


void
ngx_http_stoa_cache_put(ngx_http_stoa_ctx_t *q, stoa_str_t body,
                        stoa_str_t meta, stoa_str_t *tag)
{
    ngx_http_stoa_content_t *content;
    ngx_http_stoa_entry_t   *e = q->flight;
    stoa_str_t               etag = *tag;
    size_t                   size;
    u_char                  *p;

    if (e == NULL) {
        return;
    }

    if (etag.len == 0) {
        *tag = ngx_http_stoa_cache_etag(q, body, meta);
        etag = *tag;
    }

    q->flight = NULL;
    ngx_http_stoa_entry_empty(e);

    size = sizeof(ngx_http_stoa_content_t) + body.len + meta.len + etag.len;

    ngx_http_stoa_cache_shrink(size);

    content = NULL;

    if (ngx_http_stoa_cache.size + size
        <= ngx_http_stoa_process.mcf->cache_size) {
        content = ngx_alloc(size, ngx_cycle->log);
    }

    if (content != NULL) {
        content->refs = 1;
        p = (u_char *) content + sizeof(ngx_http_stoa_content_t);

        content->body.data = p;
        content->body.len = body.len;
        p = ngx_cpymem(p, body.data, body.len);

        content->meta.data = p;
        content->meta.len = meta.len;
        p = ngx_cpymem(p, meta.data, meta.len);

        content->etag.data = p;
        content->etag.len = etag.len;
        ngx_memcpy(p, etag.data, etag.len);

        e->content = content;
        e->size = size;
        e->expires = ngx_current_msec + q->ep->cache_ms;
        ngx_http_stoa_cache.size += size;
    }

    ngx_http_stoa_cache_land(e);
}


void
ngx_http_stoa_cache_fail(ngx_http_stoa_ctx_t *q)
{
    ngx_http_stoa_entry_t *e = q->flight;

    if (e == NULL) {
        return;
    }

    q->flight = NULL;
    ngx_http_stoa_entry_empty(e);
    ngx_http_stoa_cache_land(e);
}


void
ngx_http_stoa_cache_exit_process(ngx_cycle_t *cycle)
{
    ngx_queue_t *p;

    if (ngx_http_stoa_process.mcf == NULL) {
        return;
    }

    while (!ngx_queue_empty(&ngx_http_stoa_cache.lru)) {
        p = ngx_queue_head(&ngx_http_stoa_cache.lru);
        ngx_http_stoa_entry_delete(
            ngx_queue_data(p, ngx_http_stoa_entry_t, lru));
    }

    ngx_http_stoa_cache.vary = NULL;
}
