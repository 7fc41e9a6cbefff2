/*
 * SHA-256 and HMAC-SHA-256 (OpenSSL), keys derived from the master secret,
 * and the signature header of payment webhooks; HMAC-SHA-1 for RFC 4226, which
 * knows no other.  Pure, no state.
 */

#ifndef STOA_HMAC_H_INCLUDED
#define STOA_HMAC_H_INCLUDED

#include "stoa.h"

#define STOA_SHA256_LEN 32
#define STOA_SHA1_LEN   20
#define STOA_SHA512_LEN 64

bool stoa_sha256(const void *data, size_t len,
                 unsigned char out[32]) STOA_MUSTCHECK;
bool stoa_sha512(const void *data, size_t len,
                 unsigned char out[64]) STOA_MUSTCHECK;
bool stoa_hmac_sha256(stoa_str_t key, const void *data, size_t len,
                      unsigned char out[32]) STOA_MUSTCHECK;

bool stoa_hmac_sha1(stoa_str_t key, const void *data, size_t len,
                    unsigned char out[20]) STOA_MUSTCHECK;

/* HMAC-SHA-256 over several parts, as if they were one. */
bool stoa_hmac_sha256_parts(stoa_str_t key, const stoa_str_t *parts, size_t n,
                            unsigned char out[32]) STOA_MUSTCHECK;

/* A key for one purpose ("refresh", "cursor", "test-webhook") out of the
   master secret: HMAC(master, "stoa " purpose). */
bool stoa_hmac_derive(stoa_str_t master, const char *purpose,
                      unsigned char out[32]) STOA_MUSTCHECK;

/* Forgets what went wrong inside OpenSSL in this thread: nginx would find it
   at its next TLS connection and log it as an alert of its own. */
void stoa_crypto_forget(void);

/*
 * Stripe-Signature: "t=<unix seconds>,v1=<hex>[,v1=<hex>...]", other schemes
 * ignored.  Signed is "<t>.<raw>".  OK when any v1 matches any secret and
 * |now_s - t| <= tolerance_s; else SIGNATURE_INVALID.
 */
stoa_err_e stoa_signature_verify(stoa_str_t header, stoa_str_t raw,
                                 const stoa_str_t *secrets, size_t nsecrets,
                                 int64_t now_s,
                                 int64_t tolerance_s) STOA_MUSTCHECK;

/* Writes such a header with one v1; out holds STOA_SIGNATURE_MAX; returns
   its length, 0 on failure. */
#define STOA_SIGNATURE_MAX 112
size_t stoa_signature_make(char *out, size_t size, stoa_str_t secret,
                           stoa_str_t raw, int64_t t);

#endif /* STOA_HMAC_H_INCLUDED */
