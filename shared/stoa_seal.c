/*
 * Sealing by libsodium's AEAD.  Each key of 32 bytes is the master of two
 * things that are derived from it by purpose: its name, by which a sealed
 * secret finds it again, and the key that seals.  Nonces are random: 24 bytes
 * do not meet twice.
 */

#include "stoa_seal.h"
#include "stoa_hmac.h"
#include "stoa_str.h"

#include <sodium.h>

#define STOA_SEAL_VERSION 1
#define STOA_SEAL_NAME    4
#define STOA_SEAL_HEX     64

_Static_assert(crypto_aead_xchacha20poly1305_ietf_NPUBBYTES == 24
                   && crypto_aead_xchacha20poly1305_ietf_ABYTES == 16
                   && crypto_aead_xchacha20poly1305_ietf_KEYBYTES == 32,
               "STOA_SEAL_OVER counts them");

typedef struct {
    unsigned char name[STOA_SEAL_NAME];
    unsigned char seal[32];
} stoa_seal_key_t;

struct stoa_seal_s {
    stoa_seal_key_t key[STOA_SEAL_KEYS];
    size_t          n;
};


static bool
stoa_seal_add(stoa_seal_t *s, const unsigned char master[32])
{
    stoa_seal_key_t *key = &s->key[s->n++];
    stoa_str_t       m = { 32, (unsigned char *) (uintptr_t) master };
    unsigned char    name[32];

    if (!stoa_hmac_derive(m, "seal name", name)
        || !stoa_hmac_derive(m, "seal", key->seal))
    {
        return false;
    }

    memcpy(key->name, name, sizeof(key->name));

    return true;
}


/* The keys of the text, *n of them; false: it is no such text. */
static bool
stoa_seal_parse(const char *text, unsigned char keys[2][32], size_t *n)
{
    stoa_str_t hex = { STOA_SEAL_HEX, NULL };
    size_t     len = strlen(text);

    *n = 0;

    if (len == 0) {
        return true;
    }

    if (len != STOA_SEAL_HEX
        && (len != 2 * STOA_SEAL_HEX + 1 || text[STOA_SEAL_HEX] != ','))
    {
        return false;
    }

    for (/* void */; *n < 2 && len >= STOA_SEAL_HEX; (*n)++) {
        hex.data = (unsigned char *) (uintptr_t) text;

        if (stoa_hex_decode(keys[*n], 32, hex) != 32) {
            return false;
        }

        len -= len > STOA_SEAL_HEX ? STOA_SEAL_HEX + 1 : STOA_SEAL_HEX;
        text += STOA_SEAL_HEX + 1;
    }

    return true;
}


bool
stoa_seal_key_ok(const char *text)
{
    unsigned char keys[2][32];
    size_t        n;
    bool          good = stoa_seal_parse(text, keys, &n);

    explicit_bzero(keys, sizeof(keys));

    return good;
}


stoa_seal_t *
stoa_seal_conf(const stoa_conf_t *conf, stoa_mem_t *mem, const char **why)
{
    unsigned char keys[2][32], derived[32];
    stoa_seal_t  *s;
    size_t        i, n = 0;
    bool          good;

    *why = "no memory";
    s = stoa_calloc(mem, sizeof(stoa_seal_t));

    if (s == NULL || sodium_init() < 0) {
        return NULL;
    }

    good = stoa_seal_parse(conf->mfa_key, keys, &n);

    if (!good) {
        *why = "MFA_KEY must be 64 hex digits, or two such with a comma";
    }

    for (i = 0; good && i < n; i++) {
        good = stoa_seal_add(s, keys[i]);
    }

    if (good) {
        *why = "JWT_SECRET is shorter than 32 bytes";
    }

    good = good
        && stoa_hmac_derive(stoa_str_z(conf->jwt_secret), "mfa", derived)
        && stoa_seal_add(s, derived);

    explicit_bzero(keys, sizeof(keys));
    explicit_bzero(derived, sizeof(derived));

    return good ? s : NULL;
}


bool
stoa_seal(const stoa_seal_t *s, stoa_str_t about, stoa_str_t secret,
          unsigned char *out)
{
    unsigned char     *nonce = out + 1 + STOA_SEAL_NAME;
    unsigned char     *text = out + STOA_SEAL_OVER - 16;
    unsigned long long n;

    out[0] = STOA_SEAL_VERSION;
    memcpy(out + 1, s->key[0].name, STOA_SEAL_NAME);
    randombytes_buf(nonce, 24);

    return crypto_aead_xchacha20poly1305_ietf_encrypt(text, &n, secret.data,
                                                      secret.len, about.data,
                                                      about.len, NULL, nonce,
                                                      s->key[0].seal)
        == 0;
}


bool
stoa_seal_open(const stoa_seal_t *s, stoa_str_t about, stoa_str_t sealed,
               unsigned char *out, bool *stale)
{
    unsigned char     *nonce = sealed.data + 1 + STOA_SEAL_NAME;
    unsigned char     *text = sealed.data + STOA_SEAL_OVER - 16;
    unsigned long long n;
    size_t             i;

    if (sealed.len < STOA_SEAL_OVER || sealed.data[0] != STOA_SEAL_VERSION) {
        return false;
    }

    for (i = 0; i < s->n; i++) {
        if (memcmp(s->key[i].name, sealed.data + 1, STOA_SEAL_NAME) == 0) {
            *stale = i != 0;

            return crypto_aead_xchacha20poly1305_ietf_decrypt(
                       out, &n, NULL, text, sealed.len - (STOA_SEAL_OVER - 16),
                       about.data, about.len, nonce, s->key[i].seal)
                == 0;
        }
    }

    return false;
}
