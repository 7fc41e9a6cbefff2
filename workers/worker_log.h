/*
 * The log of stoa's processes: lines on standard error.
 */

#ifndef WORKER_LOG_H_INCLUDED
#define WORKER_LOG_H_INCLUDED

#include "../shared/stoa_log.h"

void worker_log_init(stoa_log_t *log, stoa_log_level_e level);

/* "error", "notice", ...; false: no such level. */
bool worker_log_level(const char *name, stoa_log_level_e *level);

#endif /* WORKER_LOG_H_INCLUDED */
