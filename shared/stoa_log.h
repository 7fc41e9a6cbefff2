/*
 * Log interface: hosts supply write(); shared code calls stoa_log().
 * Levels are nginx's numbers.  One line per fact, lower case, no period,
 * values quoted, no secret, no body, no e-mail.
 */

#ifndef STOA_LOG_H_INCLUDED
#define STOA_LOG_H_INCLUDED

#include "stoa.h"

typedef enum {
    STOA_LOG_EMERG = 1,
    STOA_LOG_ALERT = 2,
    STOA_LOG_CRIT = 3,
    STOA_LOG_ERROR = 4,
    STOA_LOG_WARN = 5,
    STOA_LOG_NOTICE = 6,
    STOA_LOG_INFO = 7,
    STOA_LOG_DEBUG = 8
} stoa_log_level_e;

typedef struct stoa_log_s {
    stoa_log_level_e level; /* lines above it are dropped */
    void (*write)(void *ctx, stoa_log_level_e level, const char *line,
                  size_t len);
    void *ctx;
} stoa_log_t;

/* Formats into 2048 bytes of stack, cuts what is longer.  log may be NULL. */
void stoa_log(stoa_log_t *log, stoa_log_level_e level, const char *fmt, ...)
    STOA_PRINTF(3, 4);

#endif /* STOA_LOG_H_INCLUDED */
