/*
 * Log lines on standard error, each by one write(2), so that the lines of
 * several processes that share the descriptor never mix:
 * 2026-01-02T03:04:05.678Z [level] pid: fact
 */

#include "worker_log.h"

#include <stdio.h>
#include <unistd.h>

#include "../shared/stoa_time.h"

#define LINE_MAX_BYTES 2304

static const char *const worker_log_names[] = {
    NULL, "emerg", "alert", "crit", "error", "warn", "notice", "info", "debug",
};


static void
worker_log_write(void *ctx, stoa_log_level_e level, const char *line,
                 size_t len)
{
    char    text[LINE_MAX_BYTES], at[25];
    int     n;
    ssize_t written;

    stoa_time_print(stoa_time_ms(), at);
    at[24] = '\0';
    n = snprintf(text, sizeof(text), "%s [%s] %ld: %.*s\n", at,
                 worker_log_names[level], (long) getpid(), (int) len, line);

    if (n < 0) {
        return;
    }

    if ((size_t) n >= sizeof(text)) {
        n = (int) sizeof(text) - 1;
        text[n - 1] = '\n';
    }

    written = write(STDERR_FILENO, text, (size_t) n);
    (void) written; /* there is no other place to say it */
}


void
worker_log_init(stoa_log_t *log, stoa_log_level_e level)
{
    log->level = level;
    log->write = worker_log_write;
    log->ctx = NULL;
}


bool
worker_log_level(const char *name, stoa_log_level_e *level)
{
    for (size_t i = 1; i < stoa_nitems(worker_log_names); i++) {
        if (strcmp(worker_log_names[i], name) == 0) {
            *level = (stoa_log_level_e) i;
            return true;
        }
    }

    return false;
}
