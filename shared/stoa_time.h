/*
 * Clock and RFC 3339.  Business time is PostgreSQL's (app.now()); this clock
 * is for tokens, limits, logs.  Under -DSTOA_TEST an offset in milliseconds
 * is read from the file mapped by stoa_time_test_file().
 */

#ifndef STOA_TIME_H_INCLUDED
#define STOA_TIME_H_INCLUDED

#include "stoa.h"

/* Milliseconds since 1970, UTC, with the test offset. */
int64_t stoa_time_ms(void);

/* Milliseconds of the monotonic clock. */
uint64_t stoa_time_mono_ms(void);

/* "2026-01-02T03:04:05.678Z": 24 bytes, no NUL. */
void stoa_time_print(int64_t ms, char out[24]);

/* RFC 3339 with any offset, year 1970..9999; fractions beyond ms are cut. */
bool stoa_time_parse(stoa_str_t s, int64_t *ms);

#ifdef STOA_TEST
/* Maps the first 8 bytes of a file as the offset (int64_t, ms); the next 8,
   if it has them, as the time at which the clock stands (0: it runs). */
bool stoa_time_test_file(const char *path);
#endif

#endif /* STOA_TIME_H_INCLUDED */
