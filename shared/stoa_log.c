/*
 * Log lines for hosts that supply write(), and the two sentences for what
 * cannot happen.  A bug aborts test builds; a release build says it on
 * standard error (nginx and systemd keep that) and goes on, the caller
 * failing its one request.
 */

#include "stoa_log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define STOA_LOG_LINE 2048


void
stoa_log(stoa_log_t *log, stoa_log_level_e level, const char *fmt, ...)
{
    char    line[STOA_LOG_LINE];
    va_list args;
    int     n;
    size_t  i, len;

    if (log == NULL || level > log->level) {
        return;
    }

    va_start(args, fmt);
    n = vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);

    if (n < 0) {
        return;
    }

    len = (size_t) n < sizeof(line) ? (size_t) n : sizeof(line) - 1;

    /* one fact is one line, whatever a library's message holds */
    for (i = 0; i < len; i++) {
        if ((unsigned char) line[i] < ' ') {
            line[i] = ' ';
        }
    }

    while (len != 0 && line[len - 1] == ' ') {
        len--;
    }

    line[len] = '\0';

    log->write(log->ctx, level, line, len);
}


void
stoa_bug(const char *sentence)
{
    char    line[512];
    int     n;
    size_t  len;
    ssize_t written;

    n = snprintf(line, sizeof(line), "stoa: bug: %s\n", sentence);
    len = n < 0 ? 0 : (size_t) n < sizeof(line) ? (size_t) n : sizeof(line) - 1;

    written = write(STDERR_FILENO, line, len);
    (void) written; /* there is no other place to say it */

#ifdef STOA_TEST
    abort();
#endif
}


void *
stoa_magic_check(void *p, uint32_t magic, const char *file, int line)
{
    char     sentence[256];
    uint32_t found = 0;

    if (p != NULL) {
        memcpy(&found, p, sizeof(found));
    }

    if (found == magic) {
        return p;
    }

    (void) snprintf(sentence, sizeof(sentence),
                    "an object of another kind at %s:%d", file, line);
    stoa_bug(sentence);

    return NULL;
}
