/*
 * The processes of "stoa work".
 */

#ifndef WORKER_MAIN_H_INCLUDED
#define WORKER_MAIN_H_INCLUDED

#include "../shared/stoa_conf.h"
#include "../shared/stoa_log.h"

/* The supervisor (worker_super.c): returns when all processes have ended;
   0, or 1 when one had to be killed. */
int worker_supervise(const stoa_conf_t *conf, stoa_log_t *log);

/* One process (worker_main.c), until it is told to stop.  *alive is written
   each second with the monotonic clock, in milliseconds. */
int worker_main(const stoa_conf_t *conf, stoa_log_t *log,
                volatile uint64_t *alive);

#endif /* WORKER_MAIN_H_INCLUDED */
