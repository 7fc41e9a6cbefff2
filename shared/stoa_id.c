/*
 * UUIDv7 in order of making, per generator: the same or an earlier
 * millisecond takes the next counter, a counter that runs out borrows the
 * next millisecond.  Randomness comes from the kernel, many ids at a time; a
 * process that forks makes its generator after the fork.
 */

#include "stoa_id.h"
#include "stoa_time.h"

#include <errno.h>
#include <sys/random.h>

#define STOA_ID_COUNTER_MAX   0xfff
#define STOA_ID_COUNTER_FIRST 0x7ff /* the start leaves half for counting */


void
stoa_id_init(stoa_id_t *gen)
{
    gen->last_ms = 0;
    gen->counter = 0;
    gen->left = 0;
}


bool
stoa_random(void *out, size_t len)
{
    unsigned char *p = out;
    ssize_t        n;

    while (len != 0) {
        n = getrandom(p, len, 0);

        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }

            return false;
        }

        p += n;
        len -= (size_t) n;
    }

    return true;
}


bool
stoa_id_next(stoa_id_t *gen, stoa_uuid_t *out)
{
    int64_t  ms;
    unsigned i;
    uint16_t start;

    if (gen->left < 10) {
        if (!stoa_random(gen->pool, sizeof(gen->pool))) {
            return false;
        }

        gen->left = sizeof(gen->pool);
    }

    gen->left = (uint16_t) (gen->left - 10);
    memcpy(out->b + 6, gen->pool + gen->left, 10);

    start = (uint16_t) ((out->b[6] << 8 | out->b[7]) & STOA_ID_COUNTER_FIRST);
    ms = stoa_time_ms();

    if (ms > gen->last_ms) {
        gen->last_ms = ms;
        gen->counter = start;

    } else if (gen->counter < STOA_ID_COUNTER_MAX) {
        gen->counter++;

    } else {
        gen->last_ms++;
        gen->counter = start;
    }

    for (i = 0; i < 6; i++) {
        out->b[i] = (unsigned char) (gen->last_ms >> (40 - 8 * i));
    }

    out->b[6] = (unsigned char) (0x70 | gen->counter >> 8);
    out->b[7] = (unsigned char) (gen->counter & 0xff);
    out->b[8] = (unsigned char) (0x80 | (out->b[8] & 0x3f));

    return true;
}
