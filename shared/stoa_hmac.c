/*
 * SHA-256, HMAC-SHA-256, HMAC-SHA-1 and the signature header of payment
 * webhooks, on OpenSSL's one-shot calls.  Nothing is kept between calls.
 */

#include "stoa_hmac.h"
#include "stoa_str.h"

#include <limits.h>
#include <stdio.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#define STOA_HMAC_BLOCK       64 /* of SHA-256 */
#define STOA_SIGNATURES       16 /* looked at in one header */
#define STOA_SIGNATURE_HEADER 2048


bool
stoa_sha256(const void *data, size_t len, unsigned char out[32])
{
    unsigned n = 0;

    return EVP_Digest(data, len, out, &n, EVP_sha256(), NULL) == 1 && n == 32;
}


bool
stoa_sha512(const void *data, size_t len, unsigned char out[64])
{
    unsigned n = 0;

    return EVP_Digest(data, len, out, &n, EVP_sha512(), NULL) == 1 && n == 64;
}


static bool
stoa_hmac(const EVP_MD *md, stoa_str_t key, const void *data, size_t len,
          unsigned char *out, unsigned wanted)
{
    unsigned             n = 0;
    static const char    nothing[1] = "";
    const unsigned char *bytes = len != 0 ? data : (const void *) nothing;

    return key.len <= INT_MAX
        && HMAC(md, key.len != 0 ? key.data : (void *) bytes, (int) key.len,
                bytes, len, out, &n)
               != NULL
        && n == wanted;
}


bool
stoa_hmac_sha256(stoa_str_t key, const void *data, size_t len,
                 unsigned char out[32])
{
    return stoa_hmac(EVP_sha256(), key, data, len, out, STOA_SHA256_LEN);
}


bool
stoa_hmac_sha1(stoa_str_t key, const void *data, size_t len,
               unsigned char out[20])
{
    return stoa_hmac(EVP_sha1(), key, data, len, out, STOA_SHA1_LEN);
}


/* RFC 2104 over parts, so that a large body is not copied behind a prefix. */
static bool
stoa_hmac_round(EVP_MD_CTX *ctx, const unsigned char key[STOA_HMAC_BLOCK],
                unsigned char with, const stoa_str_t *parts, size_t n,
                unsigned char out[32])
{
    unsigned char pad[STOA_HMAC_BLOCK];
    size_t        i;
    bool          good;

    for (i = 0; i < STOA_HMAC_BLOCK; i++) {
        pad[i] = key[i] ^ with;
    }

    good = EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1
        && EVP_DigestUpdate(ctx, pad, sizeof(pad)) == 1;

    for (i = 0; good && i < n; i++) {
        good = parts[i].len == 0
            || EVP_DigestUpdate(ctx, parts[i].data, parts[i].len) == 1;
    }

    OPENSSL_cleanse(pad, sizeof(pad));

    return good && EVP_DigestFinal_ex(ctx, out, NULL) == 1;
}


bool
stoa_hmac_sha256_parts(stoa_str_t key, const stoa_str_t *parts, size_t n,
                       unsigned char out[32])
{
    unsigned char block[STOA_HMAC_BLOCK] = { 0 }, inner[32];
    stoa_str_t    outer = { sizeof(inner), inner };
    EVP_MD_CTX   *ctx;
    bool          good = true;

    if (key.len > STOA_HMAC_BLOCK) {
        good = stoa_sha256(key.data, key.len, block);

    } else if (key.len != 0) {
        memcpy(block, key.data, key.len);
    }

    ctx = EVP_MD_CTX_new();

    good = good && ctx != NULL
        && stoa_hmac_round(ctx, block, 0x36, parts, n, inner)
        && stoa_hmac_round(ctx, block, 0x5c, &outer, 1, out);

    EVP_MD_CTX_free(ctx);
    OPENSSL_cleanse(block, sizeof(block));
    OPENSSL_cleanse(inner, sizeof(inner));

    return good;
}


bool
stoa_hmac_derive(stoa_str_t master, const char *purpose, unsigned char out[32])
{
    stoa_str_t parts[2] = { stoa_string("stoa "), stoa_str_z(purpose) };

    /* nothing is derived from a secret that is none */
    return master.len >= 32 && stoa_hmac_sha256_parts(master, parts, 2, out);
}


typedef struct {
    int64_t    at;
    stoa_str_t stamp; /* as written: it is part of what is signed */
    size_t     n;
    stoa_str_t v1[STOA_SIGNATURES];
} stoa_signature_t;


/* "t=...,v1=...,v1=...": one t, at least one v1, other schemes skipped. */
static bool
stoa_signature_parse(stoa_str_t header, stoa_signature_t *s)
{
    stoa_str_t     item, name;
    unsigned char *comma, *equals;

    s->n = 0;
    s->stamp.len = 0;

    if (header.len > STOA_SIGNATURE_HEADER) {
        return false;
    }

    while (header.len != 0) {
        comma = memchr(header.data, ',', header.len);
        item = header;
        item.len = comma != NULL ? (size_t) (comma - header.data) : header.len;
        header.data += item.len + (comma != NULL ? 1 : 0);
        header.len -= item.len + (comma != NULL ? 1 : 0);

        while (item.len != 0 && *item.data == ' ') {
            item.data++;
            item.len--;
        }

        equals = item.len != 0 ? memchr(item.data, '=', item.len) : NULL;

        if (equals == NULL) {
            return false;
        }

        name.data = item.data;
        name.len = (size_t) (equals - item.data);
        item.data += name.len + 1;
        item.len -= name.len + 1;

        if (stoa_str_eq_z(name, "t")) {
            if (s->stamp.len != 0 || item.len == 0 || item.data[0] == '-'
                || !stoa_str_int(item, 0, INT64_MAX / 2, &s->at))
            {
                return false;
            }

            s->stamp = item;

        } else if (stoa_str_eq_z(name, "v1") && s->n < STOA_SIGNATURES) {
            s->v1[s->n++] = item;
        }
    }

    return s->stamp.len != 0 && s->n != 0;
}


stoa_err_e
stoa_signature_verify(stoa_str_t header, stoa_str_t raw,
                      const stoa_str_t *secrets, size_t nsecrets, int64_t now_s,
                      int64_t tolerance_s)
{
    unsigned char    mac[32], sent[32];
    stoa_signature_t s;
    stoa_str_t       parts[3];
    size_t           i, j;
    unsigned         match = 0;

    if (!stoa_signature_parse(header, &s) || s.at > now_s + tolerance_s
        || s.at < now_s - tolerance_s)
    {
        return STOA_E_SIGNATURE_INVALID;
    }

    parts[0] = s.stamp;
    parts[1] = (stoa_str_t) stoa_string(".");
    parts[2] = raw;

    /* every pair is looked at, whichever matches */
    for (i = 0; i < nsecrets; i++) {
        if (secrets[i].len == 0
            || !stoa_hmac_sha256_parts(secrets[i], parts, 3, mac)) {
            continue;
        }

        for (j = 0; j < s.n; j++) {
            if (stoa_hex_decode(sent, sizeof(sent), s.v1[j]) == 32) {
                match |= CRYPTO_memcmp(mac, sent, 32) == 0;
            }
        }
    }

    return match ? STOA_OK : STOA_E_SIGNATURE_INVALID;
}


size_t
stoa_signature_make(char *out, size_t size, stoa_str_t secret, stoa_str_t raw,
                    int64_t t)
{
    unsigned char mac[32];
    char          hex[64], stamp[24];
    stoa_str_t    parts[3];
    int           n;

    if (snprintf(stamp, sizeof(stamp), "%lld", (long long) t) < 0) {
        return 0;
    }

    parts[0] = stoa_str_z(stamp);
    parts[1] = (stoa_str_t) stoa_string(".");
    parts[2] = raw;

    if (!stoa_hmac_sha256_parts(secret, parts, 3, mac)) {
        return 0;
    }

    stoa_hex_encode(hex, mac, sizeof(mac));
    n = snprintf(out, size, "t=%s,v1=%.64s", stamp, hex);

    return n < 0 || (size_t) n >= size ? 0 : (size_t) n;
}


void
stoa_crypto_forget(void)
{
    ERR_clear_error();
}
