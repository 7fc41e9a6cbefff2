/*
 * Ticket codes, signed by the edge and checked by devices that know only the
 * public key.  libsodium's Ed25519; the secret key lies in libsodium's
 * guarded memory and is wiped when it goes.  One text per code: decoding
 * refuses set tail bits, and the type byte layout has no optional parts.
 */

#include "stoa_code.h"
#include "stoa_str.h"

#include <sodium.h>

#define STOA_CODE_MAGIC  0x436f6465U
#define STOA_CODE_SIGNED 34

struct stoa_code_key_s {
    uint32_t       magic;
    unsigned char  kid;
    unsigned char *secret; /* crypto_sign_SECRETKEYBYTES, guarded */
    unsigned char  open[crypto_sign_PUBLICKEYBYTES];
};


stoa_code_key_t *
stoa_code_key_create(const unsigned char seed[32], unsigned char kid)
{
    stoa_code_key_t *key;

    if (sodium_init() < 0) {
        return NULL;
    }

    key = sodium_malloc(sizeof(stoa_code_key_t));
    if (key == NULL) {
        return NULL;
    }

    key->magic = STOA_CODE_MAGIC;
    key->kid = kid;
    key->secret = sodium_malloc(crypto_sign_SECRETKEYBYTES);

    if (key->secret == NULL
        || crypto_sign_seed_keypair(key->open, key->secret, seed) != 0)
    {
        stoa_code_key_destroy(key);
        return NULL;
    }

    return key;
}


void
stoa_code_key_destroy(stoa_code_key_t *key)
{
    if (key != NULL) {
        sodium_free(key->secret); /* wipes; NULL is fine */
        sodium_free(key);
    }
}


void
stoa_code_key_public(const stoa_code_key_t *key, unsigned char out[32])
{
    memcpy(out, key->open, crypto_sign_PUBLICKEYBYTES);
}


bool
stoa_code_sign(stoa_code_key_t *key, const stoa_code_t *code,
               char out[STOA_CODE_LEN])
{
    unsigned char bytes[STOA_CODE_BYTES];

    bytes[0] = key->kid;
    memcpy(bytes + 1, code->ticket.b, 16);
    memcpy(bytes + 17, code->type.b, 16);
    bytes[33] = code->generation;

    if (crypto_sign_detached(bytes + STOA_CODE_SIGNED, NULL, bytes,
                             STOA_CODE_SIGNED, key->secret)
        != 0)
    {
        return false;
    }

    return stoa_base32_encode((unsigned char *) out, bytes, sizeof(bytes))
        == STOA_CODE_LEN;
}


bool
stoa_code_open(stoa_code_key_t *key, stoa_str_t text, bool verify,
               stoa_code_t *out)
{
    unsigned char bytes[STOA_CODE_BYTES];

    if (text.len != STOA_CODE_LEN
        || stoa_base32_decode(bytes, sizeof(bytes), text) != STOA_CODE_BYTES)
    {
        return false;
    }

    if (verify
        && (bytes[0] != key->kid
            || crypto_sign_verify_detached(bytes + STOA_CODE_SIGNED, bytes,
                                           STOA_CODE_SIGNED, key->open)
                   != 0))
    {
        return false;
    }

    out->kid = bytes[0];
    memcpy(out->ticket.b, bytes + 1, 16);
    memcpy(out->type.b, bytes + 17, 16);
    out->generation = bytes[33];

    return true;
}
