/*
 * The reactor of a worker process: stoa_loop_t over libuv, signals and a
 * pool of threads for CPU work.
 */

#ifndef WORKER_HOST_H_INCLUDED
#define WORKER_HOST_H_INCLUDED

#include "../shared/stoa_loop.h"

typedef struct worker_host_s worker_host_t;

worker_host_t *worker_host_create(stoa_log_t *log);

/* Closes what is left and waits for computations that run. */
void worker_host_destroy(worker_host_t *host);

stoa_loop_t *worker_host_loop(worker_host_t *host);

void worker_host_run(worker_host_t *host); /* until stop */
void worker_host_stop(worker_host_t *host);

/* fn(data, signum) on the loop; at most 8 signals. */
bool worker_host_signal(worker_host_t *host, int signum,
                        void (*fn)(void *data, int signum),
                        void *data) STOA_MUSTCHECK;

/* work(arg) on a thread, then done(data) on the loop, always. */
bool worker_host_compute(worker_host_t *host, void (*work)(void *arg),
                         void          *arg, void (*done)(void *data),
                         void          *data) STOA_MUSTCHECK;

#endif /* WORKER_HOST_H_INCLUDED */
