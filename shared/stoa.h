/*
 * Basic types of Stoa; included first by every file of shared/, workers/
 * and ngx_module/.  Knows libc only.
 */

#ifndef STOA_H_INCLUDED
#define STOA_H_INCLUDED

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#define STOA_VERSION "0.1.0"

#define STOA_MUSTCHECK    __attribute__((warn_unused_result))
#define STOA_PRINTF(f, a) __attribute__((format(printf, f, a)))

/* Release builds zero what is on the stack (-ftrivial-auto-var-init); not a
   large buffer of the hot path, whose length says what was written. */
#if defined(__has_attribute) && __has_attribute(uninitialized)
#define STOA_UNINIT __attribute__((uninitialized))
#else
#define STOA_UNINIT
#endif

#define stoa_nitems(a) (sizeof(a) / sizeof((a)[0]))

/* A slice: not NUL-terminated, memory owned by whoever made it. */
typedef struct {
    size_t         len;
    unsigned char *data;
} stoa_str_t;

/* clang-format off */
#define stoa_string(lit) { sizeof(lit) - 1, (unsigned char *) (lit) }
#define stoa_null_string { 0, NULL }
/* clang-format on */

/* 16 bytes in network order, RFC 9562. */
typedef struct {
    unsigned char b[16];
} stoa_uuid_t;

#include "stoa_err.h"

/*
 * Objects that travel through void * start with a magic; the cast checks it.
 * stoa_bug() says the sentence and aborts in test builds; in release builds
 * it only says it (see stoa_log.c).
 */
#define stoa_cast(type, magic_value, p)                                        \
    ((type *) stoa_magic_check((p), (magic_value), __FILE__, __LINE__))

void *stoa_magic_check(void *p, uint32_t magic, const char *file, int line);
void  stoa_bug(const char *sentence);

#endif /* STOA_H_INCLUDED */
