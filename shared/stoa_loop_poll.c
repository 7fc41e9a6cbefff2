/*
 * The reactor over poll(2): runs the PostgreSQL and Redis machines in units
 * and on the command line.  Hosts with many sockets have their own.
 *
 * Owns: the .host records of watches, timers and deferred calls.  A closed
 * watch is only marked; its record is freed when the turn that may still
 * report on it is over.  Timers are one list ordered by their time, and
 * deferred calls of one turn run after the descriptors and timers of that
 * turn; what they defer runs in the next one.
 *
 * Does not: threads, signals, more than one loop per descriptor.
 */

#include "stoa_loop.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>


#define STOA_LOOP_POLL_MAX_WAIT 1000

typedef struct stoa_loop_poll_watch_s stoa_loop_poll_watch_t;
typedef struct stoa_loop_poll_timer_s stoa_loop_poll_timer_t;

struct stoa_loop_poll_watch_s {
    stoa_loop_poll_watch_t *next;
    stoa_watch_t           *watch; /* NULL: closed */
    int                     fd;
    short                   events;
    size_t                  slot; /* in fds of this turn */
};

struct stoa_loop_poll_timer_s {
    stoa_loop_poll_timer_t *next;
    stoa_timer_t           *timer;
    uint64_t                at;
    bool                    set;
};

typedef struct {
    stoa_loop_t             pub;
    stoa_loop_poll_watch_t *watches;
    stoa_loop_poll_timer_t *timers; /* the set ones, soonest first */
    stoa_defer_t           *defers; /* linked through .host */
    stoa_defer_t          **defers_tail;
    stoa_defer_t           *running; /* the rest of this turn's */
    struct pollfd          *fds;
    size_t                  nfds;
    uint64_t                now;
} stoa_loop_poll_t;


static uint64_t
stoa_loop_poll_clock(void)
{
    struct timespec ts;

    if (clock_gettime(CLOCK_MONOTONIC, &ts) != 0) {
        return 0;
    }

    return (uint64_t) ts.tv_sec * 1000 + (uint64_t) ts.tv_nsec / 1000000;
}


static stoa_err_e
stoa_loop_poll_watch_create(stoa_loop_t *l, stoa_watch_t *w, int fd)
{
    stoa_loop_poll_t       *pl = l->ctx;
    stoa_loop_poll_watch_t *pw;

    pw = calloc(1, sizeof(stoa_loop_poll_watch_t));
    if (pw == NULL) {
        return STOA_E_NO_MEMORY;
    }

    pw->watch = w;
    pw->fd = fd;
    pw->slot = SIZE_MAX;
    pw->next = pl->watches;
    pl->watches = pw;

    w->fd = fd;
    w->host = pw;

    return STOA_OK;
}


static void
stoa_loop_poll_watch_want(stoa_loop_t *l, stoa_watch_t *w, bool rd, bool wr)
{
    stoa_loop_poll_watch_t *pw = w->host;

    (void) l;

    if (pw != NULL) {
        pw->events = (short) ((rd ? POLLIN : 0) | (wr ? POLLOUT : 0));
    }
}


static void
stoa_loop_poll_watch_close(stoa_loop_t *l, stoa_watch_t *w, bool fd_open)
{
    stoa_loop_poll_watch_t *pw = w->host;

    (void) l;
    (void) fd_open;

    if (pw != NULL) {
        pw->watch = NULL;
        w->host = NULL;
        w->fd = -1;
    }
}


static void
stoa_loop_poll_timer_unlink(stoa_loop_poll_t *pl, stoa_loop_poll_timer_t *pt)
{
    stoa_loop_poll_timer_t **p;

    if (!pt->set) {
        return;
    }

    for (p = &pl->timers; *p != NULL; p = &(*p)->next) {
        if (*p == pt) {
            *p = pt->next;
            break;
        }
    }

    pt->set = false;
    pt->next = NULL;
}


static void
stoa_loop_poll_timer_create(stoa_loop_t *l, stoa_timer_t *t, uint64_t ms)
{
    stoa_loop_poll_t        *pl = l->ctx;
    stoa_loop_poll_timer_t  *pt = t->host;
    stoa_loop_poll_timer_t **p;

    if (pt == NULL) {
        pt = calloc(1, sizeof(stoa_loop_poll_timer_t));
        if (pt == NULL) {
            stoa_log(l->log, STOA_LOG_ALERT, "loop: no memory for a timer");
            return;
        }

        pt->timer = t;
        t->host = pt;
    }

    stoa_loop_poll_timer_unlink(pl, pt);

    pt->at = stoa_loop_poll_clock() + ms;

    for (p = &pl->timers; *p != NULL && (*p)->at <= pt->at; p = &(*p)->next) {
        /* the first later one */
    }

    pt->next = *p;
    pt->set = true;
    *p = pt;
}


static void
stoa_loop_poll_timer_cancel(stoa_loop_t *l, stoa_timer_t *t)
{
    if (t->host != NULL) {
        stoa_loop_poll_timer_unlink(l->ctx, t->host);
    }
}


static void
stoa_loop_poll_timer_destroy(stoa_loop_t *l, stoa_timer_t *t)
{
    if (t->host != NULL) {
        stoa_loop_poll_timer_unlink(l->ctx, t->host);
        free(t->host);
        t->host = NULL;
    }
}


static void
stoa_loop_poll_defer(stoa_loop_t *l, stoa_defer_t *d)
{
    stoa_loop_poll_t *pl = l->ctx;

    if (d->queued) {
        return;
    }

    d->queued = true;
    d->host = NULL;
    *pl->defers_tail = d;
    pl->defers_tail = (stoa_defer_t **) &d->host;
}


static void
stoa_loop_poll_defer_close(stoa_loop_t *l, stoa_defer_t *d)
{
    stoa_loop_poll_t *pl = l->ctx;
    stoa_defer_t    **p;

    if (!d->queued) {
        return;
    }

    for (p = &pl->running; *p != NULL; p = (stoa_defer_t **) &(*p)->host) {
        if (*p == d) {
            *p = d->host;
            d->host = NULL;
            d->queued = false;
            return;
        }
    }

    for (p = &pl->defers; *p != NULL; p = (stoa_defer_t **) &(*p)->host) {
        if (*p == d) {
            *p = d->host;

            if (pl->defers_tail == (stoa_defer_t **) &d->host) {
                pl->defers_tail = p;
            }

            d->host = NULL;
            d->queued = false;
            return;
        }
    }
}


static uint64_t
stoa_loop_poll_now(stoa_loop_t *l)
{
    stoa_loop_poll_t *pl = l->ctx;

    return pl->now;
}


stoa_loop_t *
stoa_loop_poll_create(stoa_log_t *log)
{
    stoa_loop_poll_t *pl;

    pl = calloc(1, sizeof(stoa_loop_poll_t));
    if (pl == NULL) {
        return NULL;
    }

    pl->pub.watch_open = stoa_loop_poll_watch_create;
    pl->pub.watch_want = stoa_loop_poll_watch_want;
    pl->pub.watch_close = stoa_loop_poll_watch_close;
    pl->pub.timer_set = stoa_loop_poll_timer_create;
    pl->pub.timer_cancel = stoa_loop_poll_timer_cancel;
    pl->pub.timer_close = stoa_loop_poll_timer_destroy;
    pl->pub.defer = stoa_loop_poll_defer;
    pl->pub.defer_close = stoa_loop_poll_defer_close;
    pl->pub.now_ms = stoa_loop_poll_now;
    pl->pub.ctx = pl;
    pl->pub.log = log;

    pl->defers_tail = &pl->defers;
    pl->now = stoa_loop_poll_clock();

    return &pl->pub;
}


static void
stoa_loop_poll_watches_destroy(stoa_loop_poll_t *pl, bool all)
{
    stoa_loop_poll_watch_t **p, *pw;

    for (p = &pl->watches; *p != NULL; /* void */) {
        pw = *p;

        if (pw->watch != NULL && !all) {
            p = &pw->next;
            continue;
        }

        if (pw->watch != NULL) {
            pw->watch->host = NULL;
        }

        *p = pw->next;
        free(pw);
    }
}


void
stoa_loop_poll_destroy(stoa_loop_t *l)
{
    stoa_loop_poll_t       *pl;
    stoa_loop_poll_timer_t *pt;

    if (l == NULL) {
        return;
    }

    pl = l->ctx;

    stoa_loop_poll_watches_destroy(pl, true);

    /* a timer that is not set has no link here: timer_close() frees it */

    while ((pt = pl->timers) != NULL) {
        pl->timers = pt->next;
        pt->timer->host = NULL;
        free(pt);
    }

    free(pl->fds);
    free(pl);
}


/* Fills fds with what is wanted; false: no memory. */
static bool
stoa_loop_poll_fds_create(stoa_loop_poll_t *pl, nfds_t *n)
{
    size_t                  count = 0;
    struct pollfd          *fds;
    stoa_loop_poll_watch_t *pw;

    for (pw = pl->watches; pw != NULL; pw = pw->next) {
        count++;
    }

    if (count > pl->nfds) {
        fds = realloc(pl->fds, (count + 16) * sizeof(struct pollfd));
        if (fds == NULL) {
            return false;
        }

        pl->fds = fds;
        pl->nfds = count + 16;
    }

    count = 0;

    for (pw = pl->watches; pw != NULL; pw = pw->next) {
        pw->slot = SIZE_MAX;

        if (pw->events == 0 || pw->watch == NULL) {
            continue;
        }

        pl->fds[count].fd = pw->fd;
        pl->fds[count].events = pw->events;
        pl->fds[count].revents = 0;
        pw->slot = count++;
    }

    *n = (nfds_t) count;

    return true;
}


static void
stoa_loop_poll_report(stoa_loop_poll_t *pl)
{
    bool                    rd, wr;
    short                   got;
    stoa_loop_poll_watch_t *pw;

    /* watches opened by a callback are put in front: not seen here */

    for (pw = pl->watches; pw != NULL; pw = pw->next) {
        if (pw->watch == NULL || pw->slot == SIZE_MAX) {
            continue;
        }

        got = pl->fds[pw->slot].revents;

        rd = (got & (POLLIN | POLLHUP | POLLERR | POLLNVAL)) != 0
          && (pw->events & POLLIN) != 0;
        wr = (got & (POLLOUT | POLLHUP | POLLERR | POLLNVAL)) != 0
          && (pw->events & POLLOUT) != 0;

        if (rd || wr) {
            pw->watch->ready(pw->watch, rd, wr);
        }
    }
}


static void
stoa_loop_poll_fire(stoa_loop_poll_t *pl)
{
    stoa_loop_poll_timer_t *pt;
    uint64_t                until = pl->now;

    while ((pt = pl->timers) != NULL && pt->at <= until) {
        stoa_loop_poll_timer_unlink(pl, pt);
        pt->timer->fire(pt->timer);
    }
}


static void
stoa_loop_poll_run_deferred(stoa_loop_poll_t *pl)
{
    stoa_defer_t *d;

    pl->running = pl->defers;
    pl->defers = NULL;
    pl->defers_tail = &pl->defers;

    while ((d = pl->running) != NULL) {
        pl->running = d->host;
        d->host = NULL;
        d->queued = false;
        d->run(d);
    }
}


static int
stoa_loop_poll_wait(const stoa_loop_poll_t *pl, uint64_t end)
{
    uint64_t wait = STOA_LOOP_POLL_MAX_WAIT;

    if (pl->defers != NULL) {
        return 0;
    }

    if (pl->timers != NULL) {
        wait = pl->timers->at > pl->now ? pl->timers->at - pl->now : 0;
    }

    if (end - pl->now < wait) {
        wait = end - pl->now;
    }

    return (int) (wait < STOA_LOOP_POLL_MAX_WAIT ? wait
                                                 : STOA_LOOP_POLL_MAX_WAIT);
}


bool
stoa_loop_poll_run(stoa_loop_t *l, const bool *stop, uint64_t max_ms)
{
    int               rc;
    nfds_t            n;
    uint64_t          end;
    stoa_loop_poll_t *pl = l->ctx;

    pl->now = stoa_loop_poll_clock();
    end = pl->now + max_ms;

    /* one turn at least: what was deferred before the call runs */

    do {
        if (stop != NULL && *stop) {
            return true;
        }

        stoa_loop_poll_watches_destroy(pl, false);

        if (!stoa_loop_poll_fds_create(pl, &n)) {
            stoa_log(l->log, STOA_LOG_ALERT, "loop: no memory to poll");
            return false;
        }

        rc = poll(pl->fds, n, pl->now < end ? stoa_loop_poll_wait(pl, end) : 0);
        pl->now = stoa_loop_poll_clock();

        if (rc == -1 && errno != EINTR) {
            stoa_log(l->log, STOA_LOG_ALERT, "loop: poll() failed: %d", errno);
            return false;
        }

        if (rc > 0) {
            stoa_loop_poll_report(pl);
        }

        stoa_loop_poll_fire(pl);
        stoa_loop_poll_run_deferred(pl);

    } while (pl->now < end);

    return stop != NULL && *stop;
}
