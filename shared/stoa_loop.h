/*
 * The reactor interface: what the PostgreSQL and Redis machines need of an
 * event loop.  Implemented by ngx_http_stoa_host.c (nginx), worker_host.c
 * (libuv) and stoa_loop_poll.c (poll(2): units, command line).
 *
 * Rules for implementers: events are LEVEL-triggered; a callback may close
 * its own or any other watch or timer; memory of .host is freed only when
 * the loop can no longer report on it; timers that are .cancelable do not
 * keep a retiring process alive, others do.
 */

#ifndef STOA_LOOP_H_INCLUDED
#define STOA_LOOP_H_INCLUDED

#include "stoa_log.h"

typedef struct stoa_loop_s  stoa_loop_t;
typedef struct stoa_watch_s stoa_watch_t;
typedef struct stoa_timer_s stoa_timer_t;
typedef struct stoa_defer_s stoa_defer_t;

/* Embedded in its owner; zeroed before first use. */
struct stoa_watch_s {
    void (*ready)(stoa_watch_t *w, bool readable, bool writable);
    void *data;
    void *host; /* of the loop; NULL: not open */
    int   fd;
};

struct stoa_timer_s {
    void (*fire)(stoa_timer_t *t);
    void *data;
    void *host; /* of the loop; made by the first timer_set */
    bool  cancelable;
};

struct stoa_defer_s {
    void (*run)(stoa_defer_t *d);
    void *data;
    void *host;
    bool  queued;
};

struct stoa_loop_s {
    /* Nothing is watched until watch_want(). */
    stoa_err_e (*watch_open)(stoa_loop_t *l, stoa_watch_t *w, int fd);
    void (*watch_want)(stoa_loop_t *l, stoa_watch_t *w, bool rd, bool wr);
    /* Call before the descriptor is closed; fd_open is false when a library
       has closed it already.  Idempotent. */
    void (*watch_close)(stoa_loop_t *l, stoa_watch_t *w, bool fd_open);

    void (*timer_set)(stoa_loop_t *l, stoa_timer_t *t, uint64_t ms);
    void (*timer_cancel)(stoa_loop_t *l, stoa_timer_t *t); /* idempotent */
    void (*timer_close)(stoa_loop_t *l, stoa_timer_t *t);  /* frees .host */

    /* Runs once at the end of this turn; a second call before is ignored. */
    void (*defer)(stoa_loop_t *l, stoa_defer_t *d);
    void (*defer_close)(stoa_loop_t *l, stoa_defer_t *d);

    uint64_t (*now_ms)(stoa_loop_t *l); /* monotonic, of this turn */

    void       *ctx;
    stoa_log_t *log;
};

/* poll(2) loop for units and the command line. */
stoa_loop_t *stoa_loop_poll_create(stoa_log_t *log);
void         stoa_loop_poll_destroy(stoa_loop_t *l);
/* Runs until *stop or max_ms; false when the time ran out. */
bool stoa_loop_poll_run(stoa_loop_t *l, const bool *stop, uint64_t max_ms);

#endif /* STOA_LOOP_H_INCLUDED */
