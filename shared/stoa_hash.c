/*
 * Password hashes.  New ones are Argon2id in libsodium's text form; bcrypt
 * hashes of older systems are verified through libcrypt and reported as in
 * need of a new hash.  Everything here blocks for tens of milliseconds.
 */

#include "stoa_hash.h"
#include "stoa_str.h"

#include <crypt.h>
#include <sodium.h>
#include <stdlib.h>

#define STOA_HASH_BCRYPT_LEN   60
#define STOA_HASH_BCRYPT_KEY   72
#define STOA_HASH_BCRYPT_LEAST 4
#define STOA_HASH_BCRYPT_MOST  14

_Static_assert(STOA_HASH_MAX >= crypto_pwhash_STRBYTES,
               "an Argon2id text fits");


bool
stoa_hash_init(void)
{
    return sodium_init() >= 0;
}


void
stoa_wipe(void *data, size_t len)
{
    sodium_memzero(data, len);
}


static bool
stoa_hash_password(stoa_str_t password)
{
    return password.len <= STOA_PASSWORD_MAX;
}


bool
stoa_hash_make(const stoa_hash_cost_t *cost, stoa_str_t password,
               char out[STOA_HASH_MAX])
{
    memset(out, 0, STOA_HASH_MAX);

    return stoa_hash_password(password)
        && crypto_pwhash_str_alg(out, (const char *) password.data,
                                 password.len, cost->passes,
                                 (size_t) cost->memory_kib * 1024,
                                 crypto_pwhash_ALG_ARGON2ID13)
               == 0;
}


static bool
stoa_hash_is_argon2id(stoa_str_t stored)
{
    return stored.len > 10 && stored.len < STOA_HASH_MAX
        && memcmp(stored.data, "$argon2id$", 10) == 0;
}


/* "$2b$12$" (or 2a, 2y) and 53 characters of its own base 64.  Each step of
   the cost doubles the time, so costs above the highest are not run. */
static bool
stoa_hash_is_bcrypt(stoa_str_t stored)
{
    unsigned             cost;
    size_t               i;
    const unsigned char *p = stored.data;

    if (stored.len != STOA_HASH_BCRYPT_LEN || p[0] != '$' || p[1] != '2'
        || (p[2] != 'a' && p[2] != 'b' && p[2] != 'y') || p[3] != '$'
        || p[4] < '0' || p[4] > '9' || p[5] < '0' || p[5] > '9' || p[6] != '$')
    {
        return false;
    }

    for (i = 7; i < stored.len; i++) {
        if ((p[i] < '.' || p[i] > '9') && (p[i] < 'A' || p[i] > 'Z')
            && (p[i] < 'a' || p[i] > 'z'))
        {
            return false;
        }
    }

    cost = 10U * (p[4] - '0') + p[5] - '0';

    return cost >= STOA_HASH_BCRYPT_LEAST && cost <= STOA_HASH_BCRYPT_MOST;
}


/* bcrypt knows texts that end at a NUL and looks at their first 72 bytes. */
static bool
stoa_hash_bcrypt(const char *stored, stoa_str_t password)
{
    char               phrase[STOA_HASH_BCRYPT_KEY + 1];
    struct crypt_data *data;
    const char        *made;
    bool               good = false;

    if (memchr(password.data, 0, password.len) != NULL) {
        return false;
    }

    if (password.len > STOA_HASH_BCRYPT_KEY) {
        password.len = STOA_HASH_BCRYPT_KEY;
    }

    data = calloc(1, sizeof(struct crypt_data));
    if (data == NULL) {
        return false;
    }

    memcpy(phrase, password.data, password.len);
    phrase[password.len] = '\0';

    made = crypt_rn(phrase, stored, data, (int) sizeof(struct crypt_data));

    if (made != NULL) {
        good = stoa_str_same_secret(stoa_str_z(made), stoa_str_z(stored));
    }

    sodium_memzero(phrase, sizeof(phrase));
    sodium_memzero(data, sizeof(struct crypt_data));
    free(data);

    return good;
}


bool
stoa_hash_verify(stoa_str_t stored, stoa_str_t password)
{
    char text[STOA_HASH_MAX] = { 0 };

    if (!stoa_hash_password(password) || stored.len >= sizeof(text)
        || (password.len == 0))
    {
        return false;
    }

    memcpy(text, stored.data, stored.len);

    if (stoa_hash_is_argon2id(stored)) {
        return crypto_pwhash_str_verify(text, (const char *) password.data,
                                        password.len)
            == 0;
    }

    return stoa_hash_is_bcrypt(stored) && stoa_hash_bcrypt(text, password);
}


/* 0: of this cost, 1: of another, -1: no such hash. */
static int
stoa_hash_differs(const stoa_hash_cost_t *cost, stoa_str_t stored)
{
    char text[STOA_HASH_MAX] = { 0 };

    memcpy(text, stored.data, stored.len);

    return crypto_pwhash_str_needs_rehash(text, cost->passes,
                                          (size_t) cost->memory_kib * 1024);
}


stoa_hash_kind_e
stoa_hash_kind(stoa_str_t stored)
{
    static const stoa_hash_cost_t any = { 8, 1 };

    if (stoa_hash_is_argon2id(stored)) {
        return stoa_hash_differs(&any, stored) >= 0 ? STOA_HASH_ARGON2ID
                                                    : STOA_HASH_UNKNOWN;
    }

    return stoa_hash_is_bcrypt(stored) ? STOA_HASH_BCRYPT : STOA_HASH_UNKNOWN;
}


bool
stoa_hash_needs_rehash(const stoa_hash_cost_t *cost, stoa_str_t stored,
                       stoa_str_t password)
{
    if (stoa_hash_is_argon2id(stored)) {
        return stoa_hash_differs(cost, stored) != 0;
    }

    return password.len < STOA_HASH_BCRYPT_KEY;
}
