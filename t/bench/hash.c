/*
 * The bare hash: THREADS threads verify one password for SECONDS, and that is
 * all they do.  Prints hashes per second; the parameters are those of
 * stoa.conf's defaults unless given.
 *
 *   hash THREADS SECONDS [MEMORY_KIB PASSES]
 */

#include "stoa_hash.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static char     stored[STOA_HASH_MAX];
static uint64_t deadline_ns;

static uint64_t
now_ns(void)
{
    struct timespec t;

    (void) clock_gettime(CLOCK_MONOTONIC, &t);

    return (uint64_t) t.tv_sec * 1000000000U + (uint64_t) t.tv_nsec;
}

/* Counts what it ended before the deadline. */
static void *
run(void *data)
{
    uint64_t  *n = data;
    stoa_str_t password = stoa_string("correct horse battery");
    stoa_str_t hash = { strlen(stored), (unsigned char *) stored };

    while (now_ns() < deadline_ns) {
        if (!stoa_hash_verify(hash, password)) {
            abort();
        }

        (*n)++;
    }

    return NULL;
}

int
main(int argc, char **argv)
{
    int              threads = argc > 1 ? atoi(argv[1]) : 1;
    int              seconds = argc > 2 ? atoi(argv[2]) : 5;
    stoa_hash_cost_t cost = { 19456, 2 };
    stoa_str_t       password = stoa_string("correct horse battery");
    pthread_t        id[64];
    uint64_t         n[64] = { 0 }, all = 0, from;

    if (argc > 4) {
        cost.memory_kib = (uint32_t) atoi(argv[3]);
        cost.passes = (uint32_t) atoi(argv[4]);
    }

    if (threads < 1 || threads > 64 || !stoa_hash_init()
        || !stoa_hash_make(&cost, password, stored))
    {
        return 1;
    }

    from = now_ns();
    deadline_ns = from + (uint64_t) seconds * 1000000000U;

    for (int i = 0; i < threads; i++) {
        if (pthread_create(&id[i], NULL, run, &n[i]) != 0) {
            return 1;
        }
    }

    for (int i = 0; i < threads; i++) {
        (void) pthread_join(id[i], NULL);
        all += n[i];
    }

    (void) printf("%.2f\n", (double) all * 1e9 / (double) (now_ns() - from));

    return 0;
}
