/*
 * The breaker: closed (few failures), open (until .until_ms), half open (one
 * task tries until .probe_ms, the others wait).  A task that vanishes while
 * it tries, because its lease was lost, gives its place back by time.
 *
 * It belongs to one process: every process learns of an outage by itself,
 * which costs a few calls and needs no shared state.
 */

#include "worker_breaker.h"

#define WORKER_BREAKER_LIMIT    5
#define WORKER_BREAKER_FIRST_MS 1000
#define WORKER_BREAKER_MAX_MS   30000
#define WORKER_BREAKER_PROBE_MS 30000
#define WORKER_BREAKER_AGAIN_MS 1000


uint32_t
worker_breaker_ask(worker_breaker_t *b, uint64_t now_ms)
{
    if (b->failures < WORKER_BREAKER_LIMIT) {
        return 0;
    }

    if (now_ms < b->until_ms) {
        return (uint32_t) (b->until_ms - now_ms);
    }

    if (now_ms < b->probe_ms) {
        return WORKER_BREAKER_AGAIN_MS;
    }

    b->probe_ms = now_ms + WORKER_BREAKER_PROBE_MS;

    return 0;
}


void
worker_breaker_note(worker_breaker_t *b, bool up, uint64_t now_ms,
                    stoa_log_t *log, const char *provider)
{
    unsigned over;
    uint32_t wait_ms;

    if (up) {
        if (b->failures >= WORKER_BREAKER_LIMIT) {
            stoa_log(log, STOA_LOG_NOTICE, "breaker: \"%s\" is back", provider);
        }

        b->failures = 0;
        b->probe_ms = 0;
        return;
    }

    b->failures++;
    b->probe_ms = 0;

    if (b->failures < WORKER_BREAKER_LIMIT) {
        return;
    }

    over = b->failures - WORKER_BREAKER_LIMIT;
    wait_ms = over < 5 ? (uint32_t) WORKER_BREAKER_FIRST_MS << over
                       : WORKER_BREAKER_MAX_MS;

    if (wait_ms > WORKER_BREAKER_MAX_MS) {
        wait_ms = WORKER_BREAKER_MAX_MS;
    }

    b->until_ms = now_ms + wait_ms;

    if (over == 0) {
        stoa_log(log, STOA_LOG_ERROR, "breaker: \"%s\" is down", provider);
    }
}
