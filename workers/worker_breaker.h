/*
 * A circuit breaker per provider and process: after several failures in a
 * row nobody calls for a while, then one task at a time tries.  What waits is
 * snoozed, so an outage uses up nobody's attempts.
 */

#ifndef WORKER_BREAKER_H_INCLUDED
#define WORKER_BREAKER_H_INCLUDED

#include "../shared/stoa_log.h"

/* Zeroed before first use. */
typedef struct {
    unsigned failures; /* in a row */
    uint64_t until_ms; /* closed to all */
    uint64_t probe_ms; /* one task is trying; the others wait so long */
} worker_breaker_t;

/* 0: call, and note how it went; else come back after so many ms. */
uint32_t worker_breaker_ask(worker_breaker_t *b, uint64_t now_ms);

/* up: the provider answered, whatever it said. */
void worker_breaker_note(worker_breaker_t *b, bool up, uint64_t now_ms,
                         stoa_log_t *log, const char *provider);

#endif /* WORKER_BREAKER_H_INCLUDED */
