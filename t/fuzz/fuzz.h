/*
 * What the fuzzers share: an assertion that survives NDEBUG, slices of the
 * input, memory for one input.
 */

#ifndef FUZZ_H_INCLUDED
#define FUZZ_H_INCLUDED

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stoa_mem.h"
#include "stoa_str.h"

#define FUZZ_MEMORY (1 << 26)

/* clang-format off */
#define fuzz_assert(what)                                                     \
    do {                                                                      \
        if (!(what)) {                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);        \
            abort();                                                          \
        }                                                                     \
    } while (0)
/* clang-format on */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline stoa_str_t
fuzz_str(const uint8_t *data, size_t size)
{
    stoa_str_t s = { size, (unsigned char *) (uintptr_t) data };

    return s;
}

/* Cuts the input at the first newline; the rest is empty without one. */
static inline stoa_str_t
fuzz_cut(stoa_str_t *rest)
{
    stoa_str_t     first = *rest;
    unsigned char *end;

    end = rest->len != 0 ? memchr(rest->data, '\n', rest->len) : NULL;

    if (end == NULL) {
        rest->len = 0;
        return first;
    }

    first.len = (size_t) (end - first.data);
    rest->data = end + 1;
    rest->len -= first.len + 1;

    return first;
}

#endif /* FUZZ_H_INCLUDED */
