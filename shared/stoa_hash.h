/*
 * Passwords: Argon2id (libsodium), verification also of bcrypt ($2a$, $2b$,
 * $2y$) by libcrypt.  Every call here is slow on purpose and blocks: call it
 * from a thread, never from an event loop.  Thread-safe, no state.
 */

#ifndef STOA_HASH_H_INCLUDED
#define STOA_HASH_H_INCLUDED

#include "stoa.h"

#define STOA_HASH_MAX     128  /* of a stored hash, with its NUL */
#define STOA_PASSWORD_MAX 1024 /* bytes */

typedef enum {
    STOA_HASH_UNKNOWN = 0,
    STOA_HASH_ARGON2ID,
    STOA_HASH_BCRYPT, /* cost 4 to 14 */
    STOA_HASH_KINDS
} stoa_hash_kind_e;

typedef struct {
    uint32_t memory_kib;
    uint32_t passes;
} stoa_hash_cost_t;

/* Once per process, before any thread; false: the library cannot start. */
bool stoa_hash_init(void) STOA_MUSTCHECK;

bool stoa_hash_make(const stoa_hash_cost_t *cost, stoa_str_t password,
                    char out[STOA_HASH_MAX]) STOA_MUSTCHECK;

/* false also for a stored text of a kind that is not known. */
bool stoa_hash_verify(stoa_str_t stored, stoa_str_t password) STOA_MUSTCHECK;

/* By its form alone; only what has a kind can be verified. */
stoa_hash_kind_e stoa_hash_kind(stoa_str_t stored);

/*
 * The stored hash, which this password fits, is of another cost or kind.  Not
 * when bcrypt has compared only the beginning: from 72 bytes on nobody knows
 * whether the rest is right, and a mistyped one would become the password.
 * Such an account keeps its bcrypt hash until the password is changed.
 */
bool stoa_hash_needs_rehash(const stoa_hash_cost_t *cost, stoa_str_t stored,
                            stoa_str_t password);

/* Overwrites, never optimized away. */
void stoa_wipe(void *data, size_t len);

#endif /* STOA_HASH_H_INCLUDED */
