/*
 * UUIDv7 (RFC 9562): 48 bits of milliseconds, 74 random bits, monotonic per
 * generator (a 12-bit counter in rand_a).  One generator per process,
 * in the caller's memory.
 */

#ifndef STOA_ID_H_INCLUDED
#define STOA_ID_H_INCLUDED

#include "stoa.h"

/* One call of the kernel serves many ids. */
#define STOA_ID_POOL 250

typedef struct {
    int64_t       last_ms;
    uint16_t      counter;
    uint16_t      left; /* bytes of the pool that were not used */
    unsigned char pool[STOA_ID_POOL];
} stoa_id_t;

void stoa_id_init(stoa_id_t *gen);
bool stoa_id_next(stoa_id_t *gen, stoa_uuid_t *out) STOA_MUSTCHECK;

/* Bytes from the kernel; false when it has none. */
bool stoa_random(void *out, size_t len) STOA_MUSTCHECK;

#endif /* STOA_ID_H_INCLUDED */
