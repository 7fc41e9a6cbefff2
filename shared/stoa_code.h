/*
 * Ticket codes (decision 4): base32 of kid 1, ticket id 16, ticket type id
 * 16, generation 1, Ed25519 signature 64 over the 34 bytes before it: 98
 * bytes, 157 characters of QR's alphanumeric set.
 */

#ifndef STOA_CODE_H_INCLUDED
#define STOA_CODE_H_INCLUDED

#include "stoa.h"

#define STOA_CODE_BYTES 98
#define STOA_CODE_LEN   157

typedef struct {
    unsigned char kid;
    unsigned char generation;
    stoa_uuid_t   ticket;
    stoa_uuid_t   type;
} stoa_code_t;

typedef struct stoa_code_key_s stoa_code_key_t; /* from a 32-byte seed */

stoa_code_key_t *stoa_code_key_create(const unsigned char seed[32],
                                      unsigned char       kid);
void             stoa_code_key_destroy(stoa_code_key_t *key); /* wipes */
void stoa_code_key_public(const stoa_code_key_t *key, unsigned char out[32]);

bool stoa_code_sign(stoa_code_key_t *key, const stoa_code_t *code,
                    char out[STOA_CODE_LEN]) STOA_MUSTCHECK;

/* Any case, whole slice; signature checked when verify is set. */
bool stoa_code_open(stoa_code_key_t *key, stoa_str_t text, bool verify,
                    stoa_code_t *out) STOA_MUSTCHECK;

#endif /* STOA_CODE_H_INCLUDED */
