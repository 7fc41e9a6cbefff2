/*
 * Tokens in the request path.  Keys are parsed once; HS256 keeps one MAC
 * context per key that is only rewound (OpenSSL 3: init without a key), so a
 * verification allocates nothing.  The algorithm comes from the key, the key
 * from kid.  Most tokens share one header: its last good encoding is compared
 * before it is parsed.  What a token says is read in stoa_jwt_claims.c.
 *
 * A keys object serves one thread.  Sentences in *why are for logs, clients
 * only learn UNAUTHENTICATED or TOKEN_EXPIRED.
 */

#include "stoa_jwt.h"
#include "stoa_jwt_int.h"
#include "stoa_json.h"
#include "stoa_str.h"

#include <limits.h>
#include <stdlib.h>

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#define STOA_JWT_MAGIC  0x4a77746bU
#define STOA_JWT_HEADER 512 /* encoded; longer ones are refused */

typedef struct {
    stoa_alg_e   alg;
    bool         sign;
    char         kid[STOA_JWT_KID + 1];
    EVP_MAC_CTX *mac;  /* HS256, keyed */
    EVP_PKEY    *pkey; /* the others */
} stoa_jwt_key_t;

const char stoa_jwt_no_kid[] = "no key has this kid";

struct stoa_jwt_keys_s {
    uint32_t       magic;
    EVP_MAC       *hmac;
    EVP_MD        *sha256;
    EVP_MD_CTX    *md;
    size_t         nkeys;
    stoa_jwt_key_t keys[STOA_JWT_KEYS];

    /* the last good header */
    size_t          good_len;
    unsigned char   good[STOA_JWT_HEADER];
    stoa_jwt_key_t *good_key;
    unsigned        good_type;
};

/* In the order of stoa_alg_e. */
static const struct {
    const char *name;
    const char *type; /* of the key, as OpenSSL calls it; NULL: a secret */
    const char *must;
} stoa_jwt_algs[] = {
    { "HS256", NULL, "an HS256 key has 32 bytes at least" },
    { "RS256", "RSA", "an RS256 key is RSA with 2048 to 4096 bits" },
    { "ES256", "EC", "an ES256 key is on P-256" },
    { "PS256", "RSA", "a PS256 key is RSA with 2048 to 4096 bits" },
    { "EdDSA", "ED25519", "an EdDSA key is Ed25519" },
};

/* ---- keys ---- */

stoa_jwt_keys_t *
stoa_jwt_keys_create(void)
{
    stoa_jwt_keys_t *keys;

    keys = calloc(1, sizeof(stoa_jwt_keys_t));
    if (keys == NULL) {
        return NULL;
    }

    keys->magic = STOA_JWT_MAGIC;
    keys->hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    keys->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    keys->md = EVP_MD_CTX_new();

    if (keys->hmac == NULL || keys->sha256 == NULL || keys->md == NULL) {
        stoa_jwt_keys_destroy(keys);
        return NULL;
    }

    return keys;
}


void
stoa_jwt_keys_destroy(stoa_jwt_keys_t *keys)
{
    size_t i;

    if (keys == NULL) {
        return;
    }

    for (i = 0; i < keys->nkeys; i++) {
        EVP_MAC_CTX_free(keys->keys[i].mac);
        EVP_PKEY_free(keys->keys[i].pkey);
    }

    EVP_MD_CTX_free(keys->md);
    EVP_MD_free(keys->sha256);
    EVP_MAC_free(keys->hmac);

    OPENSSL_cleanse(keys, sizeof(stoa_jwt_keys_t));
    free(keys);
}


static bool
stoa_jwt_add_secret(stoa_jwt_keys_t *keys, stoa_jwt_key_t *key,
                    stoa_str_t secret, const char **why)
{
    char       digest[] = "SHA256";
    OSSL_PARAM params[2];

    if (secret.len < 32) {
        *why = stoa_jwt_algs[STOA_ALG_HS256 - 1].must;
        return false;
    }

    params[0] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest,
                                                 0);
    params[1] = OSSL_PARAM_construct_end();
    key->mac = EVP_MAC_CTX_new(keys->hmac);

    if (key->mac == NULL
        || EVP_MAC_init(key->mac, secret.data, secret.len, params) != 1)
    {
        *why = "the key cannot be loaded";
        return false;
    }

    return true;
}


/* A PEM with a pass phrase must not ask the terminal. */
static int
stoa_jwt_no_phrase(char *out, int size, int writing, void *data)
{
    (void) out;
    (void) size;
    (void) writing;
    (void) data;

    return -1;
}


bool
stoa_jwt_fits(EVP_PKEY *pkey, stoa_alg_e alg)
{
    char   group[32];
    size_t len;

    if (stoa_jwt_algs[alg - 1].type == NULL
        || !EVP_PKEY_is_a(pkey, stoa_jwt_algs[alg - 1].type))
    {
        return false;
    }

    switch (alg) {
    case STOA_ALG_RS256:
    case STOA_ALG_PS256:
        return EVP_PKEY_get_bits(pkey) >= 2048
            && EVP_PKEY_get_bits(pkey) <= STOA_JWT_SIGNATURE * 8;

    case STOA_ALG_ES256:
        return EVP_PKEY_get_group_name(pkey, group, sizeof(group), &len) == 1
            && (strcmp(group, "prime256v1") == 0
                || strcmp(group, "P-256") == 0);

    case STOA_ALG_EDDSA:
        return true;

    case STOA_ALG_HS256:
        break;
    }

    return false;
}


static bool
stoa_jwt_add_pem(stoa_jwt_key_t *key, stoa_str_t pem, const char **why)
{
    BIO *bio;

    if (pem.len == 0 || pem.len > INT_MAX) {
        *why = "the PEM is empty or too long";
        return false;
    }

    bio = BIO_new_mem_buf(pem.data, (int) pem.len);
    if (bio == NULL) {
        *why = "no memory";
        return false;
    }

    key->pkey = PEM_read_bio_PrivateKey(bio, NULL, stoa_jwt_no_phrase, NULL);

    if (key->pkey == NULL && !key->sign && BIO_reset(bio) == 1) {
        key->pkey = PEM_read_bio_PUBKEY(bio, NULL, stoa_jwt_no_phrase, NULL);
    }

    BIO_free(bio);
    ERR_clear_error(); /* nginx would take it for one of a TLS connection */

    if (key->pkey == NULL) {
        *why = key->sign ? "the PEM holds no private key"
                         : "the PEM holds no key";
        return false;
    }

    if (!stoa_jwt_fits(key->pkey, key->alg)) {
        *why = stoa_jwt_algs[key->alg - 1].must;
        return false;
    }

    return true;
}


/* A place for a key with this name; NULL: *why. */
static stoa_jwt_key_t *
stoa_jwt_keys_place(stoa_jwt_keys_t *keys, stoa_alg_e alg, stoa_str_t kid,
                    const char **why)
{
    stoa_jwt_key_t *k;
    size_t          i;

    *why = NULL;

    if (keys->nkeys == STOA_JWT_KEYS) {
        *why = "too many keys";
        return NULL;
    }

    if (kid.len == 0 || kid.len > STOA_JWT_KID || !stoa_str_utf8(kid, NULL)) {
        *why = "a kid has 1 to 128 bytes";
        return NULL;
    }

    for (i = 0; i < keys->nkeys; i++) {
        if (stoa_str_eq_z(kid, keys->keys[i].kid)) {
            *why = "the kid is there already";
            return NULL;
        }
    }

    k = &keys->keys[keys->nkeys];
    memset(k, 0, sizeof(stoa_jwt_key_t));
    k->alg = alg;
    memcpy(k->kid, kid.data, kid.len);

    return k;
}


static void
stoa_jwt_keys_placed(stoa_jwt_keys_t *keys)
{
    keys->nkeys++;
    keys->good_len = 0;
}


stoa_err_e
stoa_jwt_keys_add(stoa_jwt_keys_t *keys, stoa_alg_e alg, stoa_str_t kid,
                  stoa_str_t key, bool sign, const char **why)
{
    stoa_jwt_key_t *k;
    bool            good;

    k = stoa_jwt_keys_place(keys, alg, kid, why);
    if (k == NULL) {
        return STOA_E_INTERNAL;
    }

    k->sign = sign;
    good = alg == STOA_ALG_HS256 ? stoa_jwt_add_secret(keys, k, key, why)
                                 : stoa_jwt_add_pem(k, key, why);

    if (!good) {
        EVP_MAC_CTX_free(k->mac);
        EVP_PKEY_free(k->pkey);
        memset(k, 0, sizeof(stoa_jwt_key_t));
        return STOA_E_INTERNAL;
    }

    stoa_jwt_keys_placed(keys);

    return STOA_OK;
}


stoa_err_e
stoa_jwt_keys_take(stoa_jwt_keys_t *keys, stoa_alg_e alg, stoa_str_t kid,
                   EVP_PKEY *pkey, const char **why)
{
    stoa_jwt_key_t *k;

    k = stoa_jwt_keys_place(keys, alg, kid, why);

    if (k != NULL && !stoa_jwt_fits(pkey, alg)) {
        *why = stoa_jwt_algs[alg - 1].must;
        k = NULL;
    }

    if (k == NULL) {
        EVP_PKEY_free(pkey);
        return STOA_E_INTERNAL;
    }

    k->pkey = pkey;
    stoa_jwt_keys_placed(keys);

    return STOA_OK;
}


bool
stoa_jwt_keys_at(const stoa_jwt_keys_t *keys, size_t i, stoa_alg_e *alg,
                 const char **kid, EVP_PKEY **pkey)
{
    if (i >= keys->nkeys) {
        return false;
    }

    *alg = keys->keys[i].alg;
    *kid = keys->keys[i].kid;
    *pkey = keys->keys[i].pkey;

    return true;
}


stoa_alg_e
stoa_jwt_alg_by_name(stoa_str_t name)
{
    size_t i;

    for (i = 0; i < stoa_nitems(stoa_jwt_algs); i++) {
        if (stoa_str_eq_z(name, stoa_jwt_algs[i].name)) {
            return (stoa_alg_e) (i + 1);
        }
    }

    return 0;
}


const char *
stoa_jwt_alg_name(stoa_alg_e alg)
{
    return stoa_jwt_algs[alg - 1].name;
}


/* ---- header ---- */

static stoa_jwt_key_t *
stoa_jwt_key(stoa_jwt_keys_t *keys, const stoa_str_t *kid)
{
    size_t i;

    if (kid == NULL) {
        return keys->nkeys == 1 ? &keys->keys[0] : NULL;
    }

    for (i = 0; i < keys->nkeys; i++) {
        if (stoa_str_eq_z(*kid, keys->keys[i].kid)) {
            return &keys->keys[i];
        }
    }

    return NULL;
}


static const char *
stoa_jwt_header(stoa_jwt_keys_t *keys, stoa_str_t header, stoa_jwt_key_t **key,
                unsigned *type)
{
    stoa_json_fault_t fault;
    stoa_str_t        name, value, alg = stoa_null_string;
    stoa_str_t        kid = stoa_null_string;
    size_t            at = 0;

    *type = 0;

    if (!stoa_json_valid(header, &fault)) {
        return "the header is no strict JSON";
    }

    while (stoa_json_walk(header, &at, &name, &value)) {
        if (stoa_str_eq_z(name, "crit")) {
            return "the header has crit";
        }

        if ((stoa_str_eq_z(name, "alg") && !stoa_jwt_text(value, &alg))
            || (stoa_str_eq_z(name, "kid") && !stoa_jwt_text(value, &kid))
            || (stoa_str_eq_z(name, "typ") && !stoa_jwt_typ(value, type)))
        {
            return "the header has an odd alg, kid or typ";
        }
    }

    *key = stoa_jwt_key(keys, kid.data != NULL ? &kid : NULL);

    if (*key == NULL) {
        return stoa_jwt_no_kid;
    }

    return stoa_str_eq_z(alg, stoa_jwt_alg_name((*key)->alg))
             ? NULL
             : "alg is not the key's";
}


/* ---- signature ---- */

static bool
stoa_jwt_hmac(stoa_jwt_key_t *key, stoa_str_t data, unsigned char out[32])
{
    size_t len = 0;

    /* without a key: the context is rewound, nothing is allocated */
    return EVP_MAC_init(key->mac, NULL, 0, NULL) == 1
        && EVP_MAC_update(key->mac, data.data, data.len) == 1
        && EVP_MAC_final(key->mac, out, &len, 32) == 1 && len == 32;
}


/* JOSE's r and s as the DER that OpenSSL reads. */
static int
stoa_jwt_to_der(stoa_str_t raw, unsigned char *der, size_t size)
{
    ECDSA_SIG *sig;
    BIGNUM    *r, *s;
    int        len = -1;

    sig = ECDSA_SIG_new();
    r = BN_bin2bn(raw.data, 32, NULL);
    s = BN_bin2bn(raw.data + 32, 32, NULL);

    if (sig == NULL || r == NULL || s == NULL || ECDSA_SIG_set0(sig, r, s) != 1)
    {
        BN_free(r);
        BN_free(s);
        ECDSA_SIG_free(sig);
        return -1;
    }

    /* sig owns r and s */
    if (i2d_ECDSA_SIG(sig, NULL) <= (int) size) {
        len = i2d_ECDSA_SIG(sig, &der);
    }

    ECDSA_SIG_free(sig);

    return len;
}


/* EdDSA hashes by itself; the salt of PS256 is as long as the hash. */
static bool
stoa_jwt_begin(stoa_jwt_keys_t *keys, stoa_jwt_key_t *key, bool sign)
{
    EVP_MD       *md = key->alg == STOA_ALG_EDDSA ? NULL : keys->sha256;
    EVP_PKEY_CTX *ctx = NULL;

    /* a used context would keep its key */
    if (EVP_MD_CTX_reset(keys->md) != 1
        || (sign ? EVP_DigestSignInit(keys->md, &ctx, md, NULL, key->pkey)
                 : EVP_DigestVerifyInit(keys->md, &ctx, md, NULL, key->pkey))
               != 1)
    {
        return false;
    }

    return key->alg != STOA_ALG_PS256
        || (EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) == 1
            && EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST)
                   == 1);
}


static bool
stoa_jwt_public(stoa_jwt_keys_t *keys, stoa_jwt_key_t *key, stoa_str_t data,
                stoa_str_t sig)
{
    unsigned char der[80];
    bool          good;
    int           len;

    if (key->alg == STOA_ALG_ES256) {
        len = sig.len == 64 ? stoa_jwt_to_der(sig, der, sizeof(der)) : -1;

        if (len < 0) {
            return false;
        }

        sig.data = der;
        sig.len = (size_t) len;

    } else if (sig.len != (size_t) EVP_PKEY_get_size(key->pkey)) {
        return false;
    }

    good = stoa_jwt_begin(keys, key, false)
        && EVP_DigestVerify(keys->md, sig.data, sig.len, data.data, data.len)
               == 1;

    if (!good) {
        /* what stays in the thread's queue, nginx finds at the next TLS
           connection and logs as its own alert */
        ERR_clear_error();
    }

    return good;
}


static bool
stoa_jwt_check(stoa_jwt_keys_t *keys, stoa_jwt_key_t *key, stoa_str_t data,
               stoa_str_t sig)
{
    unsigned char mac[32];

    if (key->alg != STOA_ALG_HS256) {
        return stoa_jwt_public(keys, key, data, sig);
    }

    return sig.len == 32 && stoa_jwt_hmac(key, data, mac)
        && CRYPTO_memcmp(mac, sig.data, 32) == 0;
}


stoa_err_e
stoa_jws_open(stoa_jwt_keys_t *keys, stoa_str_t token, unsigned char *out,
              stoa_str_t *payload, unsigned *type, const char **why)
{
    STOA_UNINIT unsigned char header[STOA_JWT_HEADER];
    STOA_UNINIT unsigned char signature[STOA_JWT_SIGNATURE];
    stoa_jwt_key_t           *key;
    const char               *bad;
    stoa_str_t                part[3], text, signed_;
    ssize_t                   n;
    bool                      known;

    *why = NULL;

    if (token.len > STOA_JWT_MAX || !stoa_jwt_split(token, part)) {
        return stoa_jwt_refuse(why, "it is no token");
    }

    known = part[0].len == keys->good_len && keys->good_len != 0
         && memcmp(part[0].data, keys->good, part[0].len) == 0;

    if (known) {
        key = keys->good_key;
        *type = keys->good_type;

    } else {
        n = part[0].len > STOA_JWT_HEADER
              ? -1
              : stoa_base64url_decode(header, sizeof(header), part[0]);

        if (n < 0) {
            return stoa_jwt_refuse(why, "the header is no base64url");
        }

        text.data = header;
        text.len = (size_t) n;
        bad = stoa_jwt_header(keys, text, &key, type);

        if (bad != NULL) {
            return stoa_jwt_refuse(why, bad);
        }
    }

    n = stoa_base64url_decode(signature, sizeof(signature), part[2]);

    if (n < 0) {
        return stoa_jwt_refuse(why, "the signature is no base64url");
    }

    text.data = signature;
    text.len = (size_t) n;
    signed_.data = token.data;
    signed_.len = part[0].len + 1 + part[1].len;

    if (!stoa_jwt_check(keys, key, signed_, text)) {
        return stoa_jwt_refuse(why, "the signature is wrong");
    }

    n = stoa_base64url_decode(out, STOA_JWT_MAX, part[1]);

    if (n < 0) {
        return stoa_jwt_refuse(why, "the payload is no base64url");
    }

    payload->data = out;
    payload->len = (size_t) n;

    if (!known) {
        memcpy(keys->good, part[0].data, part[0].len);
        keys->good_len = part[0].len;
        keys->good_key = key;
        keys->good_type = *type;
    }

    return STOA_OK;
}


/* ---- for stoa_jwt_sign.c ---- */

static stoa_jwt_key_t *
stoa_jwt_signer(stoa_jwt_keys_t *keys)
{
    size_t i;

    for (i = 0; i < keys->nkeys; i++) {
        if (keys->keys[i].sign) {
            return &keys->keys[i];
        }
    }

    return NULL;
}


bool
stoa_jwt_signer_header(stoa_jwt_keys_t *keys, const char *typ, stoa_buf_t *b)
{
    stoa_jwt_key_t *key = stoa_jwt_signer(keys);

    if (key == NULL) {
        return false;
    }

    stoa_buf_printf(b, "{\"alg\":\"%s\",\"typ\":\"%s\",\"kid\":",
                    stoa_jwt_alg_name(key->alg), typ);
    stoa_buf_json_z(b, key->kid);
    stoa_buf_char(b, '}');

    return true;
}


/* The raw signature into out; 0: it could not be made. */
size_t
stoa_jwt_signature(stoa_jwt_keys_t *keys, stoa_str_t data,
                   unsigned char out[STOA_JWT_SIGNATURE])
{
    stoa_jwt_key_t      *key = stoa_jwt_signer(keys);
    const unsigned char *p = out;
    const BIGNUM        *r, *s;
    ECDSA_SIG           *sig;
    size_t               len = STOA_JWT_SIGNATURE;

    if (key == NULL) {
        return 0;
    }

    if (key->alg == STOA_ALG_HS256) {
        return stoa_jwt_hmac(key, data, out) ? 32 : 0;
    }

    if (!stoa_jwt_begin(keys, key, true)
        || EVP_DigestSign(keys->md, out, &len, data.data, data.len) != 1)
    {
        ERR_clear_error();
        return 0;
    }

    if (key->alg != STOA_ALG_ES256) {
        return len;
    }

    sig = d2i_ECDSA_SIG(NULL, &p, (long) len);
    if (sig == NULL) {
        return 0;
    }

    ECDSA_SIG_get0(sig, &r, &s);
    len = BN_bn2binpad(r, out, 32) == 32 && BN_bn2binpad(s, out + 32, 32) == 32
            ? 64
            : 0;
    ECDSA_SIG_free(sig);

    return len;
}
