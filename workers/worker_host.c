/*
 * libuv as a stoa_loop_t; the only file that includes uv.h.
 *
 * libuv may touch a handle until its close callback ran, so the records
 * behind .host are blocks of their own: closing forgets the owner at once
 * and frees the block in the callback.  Descriptors are level-triggered as
 * uv_poll is.  Deferred calls run when the callbacks of a turn are over: in
 * "prepare", just before polling, and in "check", just after; an idle handle
 * is armed while some wait, so that polling does not sleep over them.
 *
 * Lifetime: worker_host_destroy() closes every handle that is left, then
 * runs the loop until libuv has let go of all of them.
 */

#include "worker_host.h"

#include <stdlib.h>

#include <uv.h>

#define SIGNALS_MAX 8

typedef struct {
    uv_poll_t     handle;
    stoa_watch_t *watch; /* NULL: closed */
} worker_host_watch_t;

typedef struct {
    uv_timer_t    handle;
    stoa_timer_t *timer; /* NULL: closed */
} worker_host_timer_t;

typedef struct {
    uv_signal_t handle;
    void (*fn)(void *data, int signum);
    void *data;
} worker_host_signal_t;

typedef struct {
    uv_work_t request;
    void (*work)(void *arg);
    void *arg;
    void (*done)(void *data);
    void *data;
} worker_host_work_t;

struct worker_host_s {
    uv_loop_t            uv;
    stoa_loop_t          loop;
    uv_prepare_t         prepare;
    uv_check_t           check;
    uv_idle_t            idle;
    stoa_defer_t        *defers; /* linked through .host */
    stoa_defer_t       **tail;
    stoa_defer_t        *turn; /* being run */
    worker_host_signal_t signals[SIGNALS_MAX];
    size_t               nsignals;
};


/* ---- descriptors ---- */

static void
worker_host_watch_ready(uv_poll_t *handle, int status, int events)
{
    worker_host_watch_t *hw = handle->data;
    stoa_watch_t        *w = hw->watch;

    if (w == NULL) {
        return;
    }

    /* an error is for the owner's next read or write to find */
    if (status < 0) {
        w->ready(w, true, true);
        return;
    }

    w->ready(w, (events & (UV_READABLE | UV_DISCONNECT)) != 0,
             (events & UV_WRITABLE) != 0);
}


static void
worker_host_free(uv_handle_t *handle)
{
    free(handle->data);
}


static stoa_err_e
worker_host_watch_create(stoa_loop_t *l, stoa_watch_t *w, int fd)
{
    worker_host_t       *host = l->ctx;
    worker_host_watch_t *hw = calloc(1, sizeof(worker_host_watch_t));

    if (hw == NULL) {
        return STOA_E_NO_MEMORY;
    }

    if (uv_poll_init(&host->uv, &hw->handle, fd) != 0) {
        free(hw);
        return STOA_E_INTERNAL;
    }

    hw->handle.data = hw;
    hw->watch = w;
    w->fd = fd;
    w->host = hw;
    return STOA_OK;
}


static void
worker_host_watch_want(stoa_loop_t *l, stoa_watch_t *w, bool rd, bool wr)
{
    worker_host_watch_t *hw = w->host;
    int                  events = 0, rc;

    if (hw == NULL) {
        return;
    }

    if (rd) {
        events |= UV_READABLE;
    }

    if (wr) {
        events |= UV_WRITABLE;
    }

    rc = events == 0
           ? uv_poll_stop(&hw->handle)
           : uv_poll_start(&hw->handle, events, worker_host_watch_ready);

    if (rc != 0) {
        stoa_log(l->log, STOA_LOG_ALERT, "loop: cannot watch descriptor %d: %s",
                 w->fd, uv_strerror(rc));
    }
}


static void
worker_host_watch_close(stoa_loop_t *l, stoa_watch_t *w, bool fd_open)
{
    worker_host_watch_t *hw = w->host;

    if (hw == NULL) {
        return;
    }

    hw->watch = NULL;
    w->host = NULL;
    w->fd = -1;
    uv_close((uv_handle_t *) &hw->handle, worker_host_free);
}


/* ---- timers ---- */

static void
worker_host_timer_fire(uv_timer_t *handle)
{
    worker_host_timer_t *ht = handle->data;

    if (ht->timer != NULL) {
        ht->timer->fire(ht->timer);
    }
}


static void
worker_host_timer_set(stoa_loop_t *l, stoa_timer_t *t, uint64_t ms)
{
    worker_host_t       *host = l->ctx;
    worker_host_timer_t *ht = t->host;

    if (ht == NULL) {
        ht = calloc(1, sizeof(worker_host_timer_t));

        if (ht == NULL) {
            stoa_bug("no memory for a timer");
            return;
        }

        (void) uv_timer_init(&host->uv, &ht->handle); /* always 0 */
        ht->handle.data = ht;
        ht->timer = t;
        t->host = ht;
    }

    (void) uv_timer_start(&ht->handle, worker_host_timer_fire, ms, 0);
}


static void
worker_host_timer_cancel(stoa_loop_t *l, stoa_timer_t *t)
{
    worker_host_timer_t *ht = t->host;

    if (ht != NULL) {
        (void) uv_timer_stop(&ht->handle); /* always 0 */
    }
}


static void
worker_host_timer_close(stoa_loop_t *l, stoa_timer_t *t)
{
    worker_host_timer_t *ht = t->host;

    if (ht == NULL) {
        return;
    }

    ht->timer = NULL;
    t->host = NULL;
    uv_close((uv_handle_t *) &ht->handle, worker_host_free);
}


/* ---- deferred calls ---- */

static void
worker_host_idle(uv_idle_t *handle)
{
    /* its being active is what keeps polling from sleeping */
}


static void
worker_host_turn(worker_host_t *host)
{
    stoa_defer_t *d;

    host->turn = host->defers;
    host->defers = NULL;
    host->tail = &host->defers;

    while (host->turn != NULL) {
        d = host->turn;
        host->turn = d->host;
        d->host = NULL;
        d->queued = false;
        d->run(d);
    }

    if (host->defers == NULL) {
        (void) uv_idle_stop(&host->idle); /* always 0 */
    }
}


static void
worker_host_prepare(uv_prepare_t *handle)
{
    worker_host_turn(handle->data);
}


static void
worker_host_check(uv_check_t *handle)
{
    worker_host_turn(handle->data);
}


static void
worker_host_defer(stoa_loop_t *l, stoa_defer_t *d)
{
    worker_host_t *host = l->ctx;

    if (d->queued) {
        return;
    }

    d->queued = true;
    d->host = NULL;
    *host->tail = d;
    host->tail = (stoa_defer_t **) &d->host;
    (void) uv_idle_start(&host->idle, worker_host_idle); /* always 0 */
}


static bool
worker_host_defer_unlink(stoa_defer_t **list, stoa_defer_t *d)
{
    for (stoa_defer_t **p = list; *p != NULL; p = (stoa_defer_t **) &(*p)->host)
    {
        if (*p == d) {
            *p = d->host;
            return true;
        }
    }

    return false;
}


static void
worker_host_defer_close(stoa_loop_t *l, stoa_defer_t *d)
{
    worker_host_t *host = l->ctx;

    if (!d->queued) {
        return;
    }

    if (!worker_host_defer_unlink(&host->turn, d)
        && worker_host_defer_unlink(&host->defers, d))
    {
        host->tail = &host->defers;

        while (*host->tail != NULL) {
            host->tail = (stoa_defer_t **) &(*host->tail)->host;
        }
    }

    d->queued = false;
    d->host = NULL;
}


static uint64_t
worker_host_now(stoa_loop_t *l)
{
    worker_host_t *host = l->ctx;

    return uv_now(&host->uv);
}


/* ---- life ---- */

worker_host_t *
worker_host_create(stoa_log_t *log)
{
    worker_host_t *host = calloc(1, sizeof(worker_host_t));

    if (host == NULL) {
        return NULL;
    }

    if (uv_loop_init(&host->uv) != 0) {
        free(host);
        return NULL;
    }

    host->tail = &host->defers;
    host->loop = (stoa_loop_t){
        .watch_open = worker_host_watch_create,
        .watch_want = worker_host_watch_want,
        .watch_close = worker_host_watch_close,
        .timer_set = worker_host_timer_set,
        .timer_cancel = worker_host_timer_cancel,
        .timer_close = worker_host_timer_close,
        .defer = worker_host_defer,
        .defer_close = worker_host_defer_close,
        .now_ms = worker_host_now,
        .ctx = host,
        .log = log,
    };

    /* inits and starts of these three kinds always return 0 */
    (void) uv_prepare_init(&host->uv, &host->prepare);
    (void) uv_check_init(&host->uv, &host->check);
    (void) uv_idle_init(&host->uv, &host->idle);
    host->prepare.data = host;
    host->check.data = host;
    (void) uv_prepare_start(&host->prepare, worker_host_prepare);
    (void) uv_check_start(&host->check, worker_host_check);
    return host;
}


/* Whatever an owner left open; blocks of watches and timers are freed. */
static void
worker_host_sweep(uv_handle_t *handle, void *arg)
{
    if (uv_is_closing(handle)) {
        return;
    }

    if (handle->type == UV_POLL || handle->type == UV_TIMER) {
        uv_close(handle, worker_host_free);
        return;
    }

    uv_close(handle, NULL);
}


void
worker_host_destroy(worker_host_t *host)
{
    if (host == NULL) {
        return;
    }

    uv_walk(&host->uv, worker_host_sweep, NULL);
    (void) uv_run(&host->uv, UV_RUN_DEFAULT); /* until all are closed */

    if (uv_loop_close(&host->uv) != 0) {
        stoa_bug("the loop was closed with live handles");
    }

    free(host);
}


stoa_loop_t *
worker_host_loop(worker_host_t *host)
{
    return &host->loop;
}


void
worker_host_run(worker_host_t *host)
{
    (void) uv_run(&host->uv, UV_RUN_DEFAULT); /* stopped with live handles */
}


void
worker_host_stop(worker_host_t *host)
{
    uv_stop(&host->uv);
}


static void
worker_host_signaled(uv_signal_t *handle, int signum)
{
    worker_host_signal_t *s = handle->data;

    s->fn(s->data, signum);
}


bool
worker_host_signal(worker_host_t *host, int                  signum,
                   void (*fn)(void *data, int signum), void *data)
{
    worker_host_signal_t *s;

    if (host->nsignals == SIGNALS_MAX) {
        return false;
    }

    s = &host->signals[host->nsignals];

    if (uv_signal_init(&host->uv, &s->handle) != 0) {
        return false;
    }

    host->nsignals++;
    s->fn = fn;
    s->data = data;
    s->handle.data = s;
    return uv_signal_start(&s->handle, worker_host_signaled, signum) == 0;
}


static void
worker_host_work(uv_work_t *request)
{
    worker_host_work_t *hw = request->data;

    hw->work(hw->arg);
}


static void
worker_host_worked(uv_work_t *request, int status)
{
    worker_host_work_t *hw = request->data;

    hw->done(hw->data);
    free(hw);
}


bool
worker_host_compute(worker_host_t *host, void (*work)(void *arg), void *arg,
                    void (*done)(void *data), void *data)
{
    worker_host_work_t *hw = calloc(1, sizeof(worker_host_work_t));

    if (hw == NULL) {
        return false;
    }

    hw->work = work;
    hw->arg = arg;
    hw->done = done;
    hw->data = data;
    hw->request.data = hw;

    if (uv_queue_work(&host->uv, &hw->request, worker_host_work,
                      worker_host_worked)
        != 0)
    {
        free(hw);
        return false;
    }

    return true;
}
