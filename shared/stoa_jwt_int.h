/*
 * Between stoa_jwt.c, which holds the keys, and the other stoa_jwt_*.c; nobody
 * else includes this.
 */

#ifndef STOA_JWT_INT_H_INCLUDED
#define STOA_JWT_INT_H_INCLUDED

#include "stoa_jwt.h"

#define STOA_JWT_SIGNATURE 512 /* of RSA with 4096 bits */
#define STOA_JWT_KID       128


static inline stoa_err_e
stoa_jwt_refuse(const char **why, const char *sentence)
{
    *why = sentence;

    return STOA_E_UNAUTHENTICATED;
}

static inline const char *
stoa_jwt_typ_of(const stoa_claims_t *claims)
{
    return claims->roles & STOA_DEVICE ? "stoa-device+jwt" : "at+jwt";
}

struct evp_pkey_st; /* OpenSSL's EVP_PKEY */

/* 0: no such algorithm. */
stoa_alg_e  stoa_jwt_alg_by_name(stoa_str_t name);
const char *stoa_jwt_alg_name(stoa_alg_e alg);

/* Whether the key is of the algorithm's type and strong enough. */
bool stoa_jwt_fits(struct evp_pkey_st *pkey, stoa_alg_e alg);

/* As stoa_jwt_keys_add(), from a parsed public key, which it takes over. */
stoa_err_e stoa_jwt_keys_take(stoa_jwt_keys_t *keys, stoa_alg_e alg,
                              stoa_str_t kid, struct evp_pkey_st *pkey,
                              const char **why);

/* The i-th key; false: there are fewer.  *pkey: NULL for HS256. */
bool stoa_jwt_keys_at(const stoa_jwt_keys_t *keys, size_t i, stoa_alg_e *alg,
                      const char **kid, struct evp_pkey_st **pkey);

/* A string without escapes. */
bool stoa_jwt_text(stoa_str_t value, stoa_str_t *out);

/* *type of such a typ; false: it is no string. */
bool stoa_jwt_typ(stoa_str_t value, unsigned *type);

/* Three parts and two dots. */
bool stoa_jwt_split(stoa_str_t token, stoa_str_t part[3]);

/* The header that the signing key wants; false: there is no such key. */
bool stoa_jwt_signer_header(stoa_jwt_keys_t *keys, const char *typ,
                            stoa_buf_t *b);

/* The raw signature; 0: it could not be made. */
size_t stoa_jwt_signature(stoa_jwt_keys_t *keys, stoa_str_t data,
                          unsigned char out[STOA_JWT_SIGNATURE]);

#endif /* STOA_JWT_INT_H_INCLUDED */
