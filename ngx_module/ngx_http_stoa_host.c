/*
 * The nginx host of shared/: loop, memory and log interfaces over nginx's
 * events, pools and log.  The only adapter file of this directory.
 *
 * Descriptors belong to libraries (libpq, hiredis): a watch borrows one with
 * ngx_get_connection(), registers it LEVEL-triggered and gives it back before
 * the library closes it.  The memory behind a watch is nginx's connection
 * slot, whose instance bit protects against stale events; timers and deferred
 * calls are malloc'ed and freed by their _close().  A defer that is asked for
 * before the first turn of the loop runs at the end of that turn.
 */

#include "ngx_http_stoa.h"

#include <sys/mman.h>

typedef struct {
    ngx_event_t      ev;    /* first: found from the event */
    ngx_connection_t dummy; /* the debug binary reads ev.data->fd */
    void            *owner;
} ngx_http_stoa_event_t;

typedef struct {
    stoa_loop_t  loop;
    ngx_cycle_t *cycle;
} ngx_http_stoa_loop_t;

typedef struct {
    stoa_mem_t mem;
    u_char    *start;
    size_t     used;
    size_t     size;
} ngx_http_stoa_secret_t;


static void
ngx_http_stoa_watch_read(ngx_event_t *rev)
{
    ngx_connection_t *c = rev->data;
    stoa_watch_t     *w = c->data;

    w->ready(w, true, false);
}


static void
ngx_http_stoa_watch_write(ngx_event_t *wev)
{
    ngx_connection_t *c = wev->data;
    stoa_watch_t     *w = c->data;

    w->ready(w, false, true);
}


static stoa_err_e
ngx_http_stoa_watch_open(stoa_loop_t *l, stoa_watch_t *w, int fd)
{
    ngx_http_stoa_loop_t *nl = l->ctx;
    ngx_connection_t     *c;

    c = ngx_get_connection(fd, nl->cycle->log);
    if (c == NULL) {
        return STOA_E_NO_MEMORY;
    }

    c->data = w;
    c->read->handler = ngx_http_stoa_watch_read;
    c->write->handler = ngx_http_stoa_watch_write;
    c->read->log = nl->cycle->log;
    c->write->log = nl->cycle->log;

    w->host = c;
    w->fd = fd;

    return STOA_OK;
}


static void
ngx_http_stoa_watch_want(stoa_loop_t *l, stoa_watch_t *w, bool rd, bool wr)
{
    ngx_http_stoa_loop_t *nl = l->ctx;
    ngx_connection_t     *c = w->host;
    ngx_int_t             rc = NGX_OK;

    if (c == NULL) {
        return;
    }

    if (rd && !c->read->active) {
        rc = ngx_add_event(c->read, NGX_READ_EVENT, NGX_LEVEL_EVENT);

    } else if (!rd && c->read->active) {
        rc = ngx_del_event(c->read, NGX_READ_EVENT, 0);
    }

    if (rc == NGX_OK && wr && !c->write->active) {
        rc = ngx_add_event(c->write, NGX_WRITE_EVENT, NGX_LEVEL_EVENT);

    } else if (rc == NGX_OK && !wr && c->write->active) {
        rc = ngx_del_event(c->write, NGX_WRITE_EVENT, 0);
    }

    if (rc != NGX_OK) {
        ngx_log_error(NGX_LOG_ALERT, nl->cycle->log, 0,
                      "stoa: descriptor %d cannot be watched", w->fd);
    }
}


static void
ngx_http_stoa_watch_close(stoa_loop_t *l, stoa_watch_t *w, bool fd_open)
{
    ngx_connection_t *c = w->host;
    ngx_uint_t        flags;

    if (c == NULL) {
        return;
    }

    /* the kernel has dropped a closed descriptor from epoll by itself */
    flags = fd_open ? 0 : NGX_CLOSE_EVENT;

    if (c->read->timer_set) {
        ngx_del_timer(c->read);
    }

    if (c->write->timer_set) {
        ngx_del_timer(c->write);
    }

    if (c->read->active) {
        (void) ngx_del_event(c->read, NGX_READ_EVENT, flags);
    }

    if (c->write->active) {
        (void) ngx_del_event(c->write, NGX_WRITE_EVENT, flags);
    }

    if (c->read->posted) {
        ngx_delete_posted_event(c->read);
    }

    if (c->write->posted) {
        ngx_delete_posted_event(c->write);
    }

    c->read->closed = 1;
    c->write->closed = 1;

    ngx_free_connection(c);
    c->fd = (ngx_socket_t) -1;

    w->host = NULL;
    w->fd = -1;
}


static ngx_http_stoa_event_t *
ngx_http_stoa_event_create(ngx_http_stoa_loop_t *nl, void *owner,
                           ngx_event_handler_pt handler)
{
    ngx_http_stoa_event_t *e;

    e = ngx_calloc(sizeof(ngx_http_stoa_event_t), nl->cycle->log);
    if (e == NULL) {
        return NULL;
    }

    e->dummy.fd = (ngx_socket_t) -1;
    e->ev.data = &e->dummy;
    e->ev.log = nl->cycle->log;
    e->ev.handler = handler;
    e->owner = owner;

    return e;
}


static void
ngx_http_stoa_timer_fire(ngx_event_t *ev)
{
    ngx_http_stoa_event_t *e = (ngx_http_stoa_event_t *) ev;
    stoa_timer_t          *t = e->owner;

    ev->timedout = 0;
    t->fire(t);
}


static void
ngx_http_stoa_timer_set(stoa_loop_t *l, stoa_timer_t *t, uint64_t ms)
{
    ngx_http_stoa_event_t *e = t->host;

    if (e == NULL) {
        e = ngx_http_stoa_event_create(l->ctx, t, ngx_http_stoa_timer_fire);
        if (e == NULL) {
            /* without its timer a deadline would never come */
            stoa_bug("no memory for a timer");
            return;
        }

        t->host = e;
    }

    /* nginx keeps an armed timer that differs by less than 300 ms */
    if (e->ev.timer_set) {
        ngx_del_timer(&e->ev);
    }

    e->ev.cancelable = t->cancelable;
    ngx_add_timer(&e->ev, (ngx_msec_t) ms);
}


static void
ngx_http_stoa_timer_cancel(stoa_loop_t *l, stoa_timer_t *t)
{
    ngx_http_stoa_event_t *e = t->host;

    if (e != NULL && e->ev.timer_set) {
        ngx_del_timer(&e->ev);
    }
}


static void
ngx_http_stoa_timer_close(stoa_loop_t *l, stoa_timer_t *t)
{
    ngx_http_stoa_timer_cancel(l, t);

    if (t->host != NULL) {
        ngx_free(t->host);
        t->host = NULL;
    }
}


static void
ngx_http_stoa_defer_run(ngx_event_t *ev)
{
    ngx_http_stoa_event_t *e = (ngx_http_stoa_event_t *) ev;
    stoa_defer_t          *d = e->owner;

    d->queued = false;
    d->run(d);
}


static void
ngx_http_stoa_defer(stoa_loop_t *l, stoa_defer_t *d)
{
    ngx_http_stoa_event_t *e = d->host;

    if (d->queued) {
        return;
    }

    if (e == NULL) {
        e = ngx_http_stoa_event_create(l->ctx, d, ngx_http_stoa_defer_run);
        if (e == NULL) {
            stoa_bug("no memory for a deferred call");
            return;
        }

        d->host = e;
    }

    d->queued = true;

    /* before the first turn nothing would run posted events */
    if (ngx_http_stoa_process.turning) {
        ngx_post_event(&e->ev, &ngx_posted_events);
    } else {
        ngx_post_event(&e->ev, &ngx_posted_next_events);
    }
}


static void
ngx_http_stoa_defer_close(stoa_loop_t *l, stoa_defer_t *d)
{
    ngx_http_stoa_event_t *e = d->host;

    d->queued = false;

    if (e == NULL) {
        return;
    }

    if (e->ev.posted) {
        ngx_delete_posted_event(&e->ev);
    }

    ngx_free(e);
    d->host = NULL;
}


static uint64_t
ngx_http_stoa_now_ms(stoa_loop_t *l)
{
    return ngx_current_msec;
}


static void
ngx_http_stoa_first_turn(stoa_defer_t *d)
{
    ngx_http_stoa_process.turning = 1;
}


stoa_loop_t *
ngx_http_stoa_loop_create(ngx_cycle_t *cycle, stoa_log_t *log)
{
    static stoa_defer_t   first = { .run = ngx_http_stoa_first_turn };
    ngx_http_stoa_loop_t *nl;

    nl = ngx_calloc(sizeof(ngx_http_stoa_loop_t), cycle->log);
    if (nl == NULL) {
        return NULL;
    }

    nl->cycle = cycle;

    nl->loop.watch_open = ngx_http_stoa_watch_open;
    nl->loop.watch_want = ngx_http_stoa_watch_want;
    nl->loop.watch_close = ngx_http_stoa_watch_close;
    nl->loop.timer_set = ngx_http_stoa_timer_set;
    nl->loop.timer_cancel = ngx_http_stoa_timer_cancel;
    nl->loop.timer_close = ngx_http_stoa_timer_close;
    nl->loop.defer = ngx_http_stoa_defer;
    nl->loop.defer_close = ngx_http_stoa_defer_close;
    nl->loop.now_ms = ngx_http_stoa_now_ms;
    nl->loop.ctx = nl;
    nl->loop.log = log;

    ngx_http_stoa_process.first_turn = first;
    ngx_http_stoa_defer(&nl->loop, &ngx_http_stoa_process.first_turn);

    return &nl->loop;
}


void
ngx_http_stoa_loop_destroy(stoa_loop_t *loop)
{
    ngx_http_stoa_defer_close(loop, &ngx_http_stoa_process.first_turn);
    ngx_free(loop->ctx);
}


/* ---- memory ---- */

static void *
ngx_http_stoa_mem_alloc(void *ctx, size_t size)
{
    u_char *p;

    if (size > NGX_MAX_SIZE_T_VALUE - 16) {
        return NULL;
    }

    /* pools align to 8; large blocks to 16 */
    p = ngx_palloc(ctx, size + 8);
    if (p == NULL) {
        return NULL;
    }

    return ngx_align_ptr(p, 16);
}


static bool
ngx_http_stoa_mem_on_free(void *ctx, void (*fn)(void *data), void *data)
{
    ngx_pool_cleanup_t *cln;

    cln = ngx_pool_cleanup_add(ctx, 0);
    if (cln == NULL) {
        return false;
    }

    cln->handler = fn;
    cln->data = data;

    return true;
}


void
ngx_http_stoa_mem_init(stoa_mem_t *mem, ngx_pool_t *pool)
{
    mem->alloc = ngx_http_stoa_mem_alloc;
    mem->on_free = ngx_http_stoa_mem_on_free;
    mem->ctx = pool;
}


static void *
ngx_http_stoa_secret_alloc(void *ctx, size_t size)
{
    ngx_http_stoa_secret_t *s = ctx;
    size_t                  need;
    u_char                 *p;

    if (size > s->size) {
        return NULL;
    }

    need = ngx_align(size, 16);

    if (need > s->size - s->used) {
        return NULL;
    }

    p = s->start + s->used;
    s->used += need;

    return p;
}


static bool
ngx_http_stoa_secret_on_free(void *ctx, void (*fn)(void *data), void *data)
{
    return false; /* only bytes live here */
}


static void
ngx_http_stoa_secret_cleanup(void *data)
{
    ngx_http_stoa_secret_t *s = data;

    explicit_bzero(s->start, s->used);
    (void) munmap(s->start, s->size);
}


stoa_mem_t *
ngx_http_stoa_secret_mem(ngx_pool_t *pool, size_t size)
{
    ngx_http_stoa_secret_t *s;
    ngx_pool_cleanup_t     *cln;
    void                   *start;

    cln = ngx_pool_cleanup_add(pool, sizeof(ngx_http_stoa_secret_t));
    if (cln == NULL) {
        return NULL;
    }

    start = mmap(NULL, size, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) {
        ngx_log_error(NGX_LOG_EMERG, pool->log, ngx_errno, "mmap(%uz) failed",
                      size);
        return NULL;
    }

    if (madvise(start, size, MADV_DONTDUMP) != 0) {
        ngx_log_error(NGX_LOG_WARN, pool->log, ngx_errno,
                      "madvise(MADV_DONTDUMP) failed");
    }

    s = cln->data;
    s->start = start;
    s->used = 0;
    s->size = size;
    s->mem.alloc = ngx_http_stoa_secret_alloc;
    s->mem.on_free = ngx_http_stoa_secret_on_free;
    s->mem.ctx = s;

    cln->handler = ngx_http_stoa_secret_cleanup;

    return &s->mem;
}


/* ---- log ---- */

static void
ngx_http_stoa_log_write(void *ctx, stoa_log_level_e level, const char *line,
                        size_t len)
{
    ngx_log_t *log = ctx;

    if (level == STOA_LOG_DEBUG) {
        ngx_log_debug2(NGX_LOG_DEBUG_HTTP, log, 0, "%*s", len, line);
        return;
    }

    ngx_log_error((ngx_uint_t) level, log, 0, "%*s", len, line);
}


void
ngx_http_stoa_log_init(stoa_log_t *log, ngx_log_t *nlog)
{
    log->write = ngx_http_stoa_log_write;
    log->ctx = nlog;

    if (nlog->log_level & NGX_LOG_DEBUG_HTTP) {
        log->level = STOA_LOG_DEBUG;
    } else if (nlog->log_level >= NGX_LOG_INFO) {
        log->level = STOA_LOG_INFO;
    } else {
        log->level = (stoa_log_level_e) nlog->log_level;
    }
}
