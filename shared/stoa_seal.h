/*
 * Secrets of accounts that rest in PostgreSQL, under keys that it never sees:
 * a dump alone opens none.  XChaCha20-Poly1305 (libsodium), bound to whose
 * and which secret it is, so that a row's secret is of no use in another row.
 *
 * Sealed is: version 1, name of the key 4, nonce 24, the secret, tag 16.
 * Keys are those of MFA_KEY, the first of which seals, and the one that is
 * derived from JWT_SECRET: alone when MFA_KEY is empty, and to open what it
 * had sealed before there was one.
 */

#ifndef STOA_SEAL_H_INCLUDED
#define STOA_SEAL_H_INCLUDED

#include "stoa_conf.h"

#define STOA_SEAL_OVER (1 + 4 + 24 + 16) /* bytes more than the secret */
#define STOA_SEAL_KEYS 3

typedef struct stoa_seal_s stoa_seal_t;

/* Keys of MFA_KEY's form: one of 64 hex digits, or two with a comma. */
bool stoa_seal_key_ok(const char *text);

/* The keys in mem, which is one for secrets.  NULL: *why (static). */
stoa_seal_t *stoa_seal_conf(const stoa_conf_t *conf, stoa_mem_t *mem,
                            const char **why);

/* out holds secret.len + STOA_SEAL_OVER; about is bound to it. */
bool stoa_seal(const stoa_seal_t *s, stoa_str_t about, stoa_str_t secret,
               unsigned char *out) STOA_MUSTCHECK;

/*
 * out holds sealed.len - STOA_SEAL_OVER.  *stale: by another key than the
 * one that seals now.  false: an unknown key, or not what was sealed.
 */
bool stoa_seal_open(const stoa_seal_t *s, stoa_str_t about, stoa_str_t sealed,
                    unsigned char *out, bool *stale) STOA_MUSTCHECK;

#endif /* STOA_SEAL_H_INCLUDED */
