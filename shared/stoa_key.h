/*
 * API keys: "stoa_sk_" and 96 characters of lower-case base32 (RFC 4648) over
 * a random id 16 bytes, a secret 32 bytes, and an HMAC-SHA-256 of both cut to
 * 12 bytes.  Scanners for leaked secrets find stoa_sk_[a-z2-7]{96}; what was
 * not made here fails its MAC, and costs no query.
 *
 * Of the secret only the SHA-256 is stored: it has 256 random bits, so there
 * is no list of guesses that a slow hash would make dear.
 */

#ifndef STOA_KEY_H_INCLUDED
#define STOA_KEY_H_INCLUDED

#include "stoa.h"

#define STOA_KEY_PREFIX     "stoa_sk_"
#define STOA_KEY_PREFIX_LEN 8
#define STOA_KEY_SECRET     32
#define STOA_KEY_MAC        12
#define STOA_KEY_BYTES      (16 + STOA_KEY_SECRET + STOA_KEY_MAC)
#define STOA_KEY_LEN        (STOA_KEY_PREFIX_LEN + 96)

/* So many characters of it are shown in lists: the prefix and 40 bits of the
   id, which is random, so that they tell keys apart; none of the secret. */
#define STOA_KEY_SHOWN (STOA_KEY_PREFIX_LEN + 8)

typedef struct {
    stoa_uuid_t   id; /* version 4 */
    unsigned char secret[STOA_KEY_SECRET];
    unsigned char mac[STOA_KEY_MAC];
} stoa_key_t;

/* Whether it means to be a key; else it is a token. */
bool stoa_key_is(stoa_str_t text);

/* A new one, and its text.  mac: the key derived for "api-key" from the
   master secret.  false: no random bytes, or no HMAC. */
bool stoa_key_make(stoa_str_t mac, stoa_key_t *key,
                   char out[STOA_KEY_LEN]) STOA_MUSTCHECK;

/* The parts of a text that has the form; nothing is verified. */
bool stoa_key_read(stoa_str_t text, stoa_key_t *key) STOA_MUSTCHECK;

/* Whether it was made with this mac key; constant time. */
bool stoa_key_genuine(stoa_str_t mac, const stoa_key_t *key) STOA_MUSTCHECK;

/* What is stored of its secret. */
bool stoa_key_hash(const stoa_key_t *key, unsigned char out[32]) STOA_MUSTCHECK;

#endif /* STOA_KEY_H_INCLUDED */
