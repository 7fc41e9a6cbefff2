/*
 * JSON Web Keys (RFC 7517, RFC 7518 6, RFC 8037): a set of them read for
 * verification, and the public ones of a keys object printed.  Runs while
 * settings are read, and for who asks for the set; never in the path of a
 * token.
 */

#include "stoa_jwt.h"
#include "stoa_jwt_int.h"
#include "stoa_json.h"
#include "stoa_str.h"

#include <string.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>

#define STOA_JWK_BYTES 512 /* of a number: RSA with 4096 bits */
#define STOA_JWK_P256  32
#define STOA_JWK_ED    32


/* ---- reading ---- */

/* A member of strict JSON: a string without escapes, else null. */
static stoa_str_t
stoa_jwk_text(stoa_str_t jwk, const char *name)
{
    size_t     at = 0;
    stoa_str_t member, value, text, none = stoa_null_string;

    while (stoa_json_walk(jwk, &at, &member, &value)) {
        if (stoa_str_eq_z(member, name)) {
            return stoa_jwt_text(value, &text) ? text : none;
        }
    }

    return none;
}


/* A base64url member; 0: it is missing, malformed or too long. */
static size_t
stoa_jwk_bytes(stoa_str_t jwk, const char *name,
               unsigned char out[STOA_JWK_BYTES])
{
    stoa_str_t text = stoa_jwk_text(jwk, name);
    ssize_t    n;

    if (text.len == 0) {
        return 0;
    }

    n = stoa_base64url_decode(out, STOA_JWK_BYTES, text);

    return n > 0 ? (size_t) n : 0;
}


static EVP_PKEY *
stoa_jwk_make(const char *type, OSSL_PARAM_BLD *bld)
{
    EVP_PKEY     *pkey = NULL;
    OSSL_PARAM   *params;
    EVP_PKEY_CTX *ctx;

    params = OSSL_PARAM_BLD_to_param(bld);
    ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);

    if (params == NULL || ctx == NULL || EVP_PKEY_fromdata_init(ctx) != 1
        || EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params) != 1)
    {
        pkey = NULL;
    }

    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);

    return pkey;
}


static EVP_PKEY *
stoa_jwk_rsa(stoa_str_t jwk)
{
    unsigned char   bytes[STOA_JWK_BYTES];
    size_t          len;
    BIGNUM         *n, *e;
    EVP_PKEY       *pkey = NULL;
    OSSL_PARAM_BLD *bld;

    len = stoa_jwk_bytes(jwk, "n", bytes);
    n = BN_bin2bn(bytes, (int) len, NULL);
    len = stoa_jwk_bytes(jwk, "e", bytes);
    e = BN_bin2bn(bytes, (int) len, NULL);
    bld = OSSL_PARAM_BLD_new();

    /* an even or small exponent is no RSA */
    if (n != NULL && e != NULL && bld != NULL && !BN_is_zero(n) && BN_is_odd(e)
        && !BN_is_one(e)
        && OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_N, n) == 1
        && OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_E, e) == 1)
    {
        pkey = stoa_jwk_make("RSA", bld);
    }

    OSSL_PARAM_BLD_free(bld);
    BN_free(e);
    BN_free(n);

    return pkey;
}


static EVP_PKEY *
stoa_jwk_ec(stoa_str_t jwk)
{
    unsigned char   point[1 + 2 * STOA_JWK_P256], bytes[STOA_JWK_BYTES];
    EVP_PKEY       *pkey = NULL;
    OSSL_PARAM_BLD *bld;

    if (!stoa_str_eq_z(stoa_jwk_text(jwk, "crv"), "P-256")) {
        return NULL;
    }

    point[0] = 4; /* uncompressed */

    if (stoa_jwk_bytes(jwk, "x", bytes) != STOA_JWK_P256) {
        return NULL;
    }

    memcpy(point + 1, bytes, STOA_JWK_P256);

    if (stoa_jwk_bytes(jwk, "y", bytes) != STOA_JWK_P256) {
        return NULL;
    }

    memcpy(point + 1 + STOA_JWK_P256, bytes, STOA_JWK_P256);
    bld = OSSL_PARAM_BLD_new();

    /* a point that is not on the curve is refused here */
    if (bld != NULL
        && OSSL_PARAM_BLD_push_utf8_string(bld, OSSL_PKEY_PARAM_GROUP_NAME,
                                           "prime256v1", 0)
               == 1
        && OSSL_PARAM_BLD_push_octet_string(bld, OSSL_PKEY_PARAM_PUB_KEY, point,
                                            sizeof(point))
               == 1)
    {
        pkey = stoa_jwk_make("EC", bld);
    }

    OSSL_PARAM_BLD_free(bld);

    return pkey;
}


static EVP_PKEY *
stoa_jwk_okp(stoa_str_t jwk)
{
    unsigned char bytes[STOA_JWK_BYTES];

    if (!stoa_str_eq_z(stoa_jwk_text(jwk, "crv"), "Ed25519")
        || stoa_jwk_bytes(jwk, "x", bytes) != STOA_JWK_ED)
    {
        return NULL;
    }

    return EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, bytes,
                                       STOA_JWK_ED);
}


static const struct {
    const char *kty;
    EVP_PKEY *(*read)(stoa_str_t jwk); /* NULL: a secret */
    stoa_alg_e alg;                    /* of one that names none */
} stoa_jwk_types[] = {
    { "oct", NULL, 0 },
    { "RSA", stoa_jwk_rsa, STOA_ALG_RS256 },
    { "EC", stoa_jwk_ec, STOA_ALG_ES256 },
    { "OKP", stoa_jwk_okp, STOA_ALG_EDDSA },
};


static const char *
stoa_jwk_add(stoa_jwt_keys_t *keys, stoa_str_t jwk)
{
    unsigned char bytes[STOA_JWK_BYTES];
    const char   *why = NULL;
    stoa_alg_e    alg;
    stoa_str_t    kty, kid, use, secret;
    stoa_err_e    err;
    EVP_PKEY     *pkey;
    size_t        i;

    if (stoa_json_kind(jwk) != STOA_JSON_OBJECT) {
        return "a key is no object";
    }

    kty = stoa_jwk_text(jwk, "kty");
    kid = stoa_jwk_text(jwk, "kid");
    use = stoa_jwk_text(jwk, "use");
    alg = stoa_jwt_alg_by_name(stoa_jwk_text(jwk, "alg"));

    if (alg == 0) {
        return "a key has no alg, or one that is not known";
    }

    if (use.data != NULL && !stoa_str_eq_z(use, "sig")) {
        return "a key is not for signatures";
    }

    for (i = 0; i < stoa_nitems(stoa_jwk_types); i++) {
        if (stoa_str_eq_z(kty, stoa_jwk_types[i].kty)) {
            break;
        }
    }

    if (i == stoa_nitems(stoa_jwk_types)) {
        return "a key has no kty, or one that is not known";
    }

    if ((stoa_jwk_types[i].read == NULL) != (alg == STOA_ALG_HS256)) {
        return "a key's alg is not for its kty";
    }

    if (stoa_jwk_types[i].read == NULL) {
        secret.data = bytes;
        secret.len = stoa_jwk_bytes(jwk, "k", bytes);
        err = stoa_jwt_keys_add(keys, alg, kid, secret, false, &why);
        OPENSSL_cleanse(bytes, sizeof(bytes));

        return err == STOA_OK ? NULL : why;
    }

    pkey = stoa_jwk_types[i].read(jwk);
    if (pkey == NULL) {
        return "a key's numbers are missing or make no key";
    }

    err = stoa_jwt_keys_take(keys, alg, kid, pkey, &why);

    return err == STOA_OK ? NULL : why;
}


/* The list of a set; false: *why. */
static bool
stoa_jwks_list(stoa_str_t json, stoa_str_t *list, const char **why)
{
    stoa_json_fault_t fault;
    stoa_str_t        name, value;
    size_t            at = 0;

    if (stoa_json_valid(json, &fault)
        && stoa_json_kind(json) == STOA_JSON_OBJECT) {
        while (stoa_json_walk(json, &at, &name, &value)) {
            if (stoa_str_eq_z(name, "keys")
                && stoa_json_kind(value) == STOA_JSON_ARRAY) {
                *list = value;
                return true;
            }
        }
    }

    *why = "it is no JWK Set: {\"keys\": [...]}";

    return false;
}


stoa_err_e
stoa_jwks_add(stoa_jwt_keys_t *keys, stoa_str_t json, const char **why)
{
    stoa_str_t value, list;
    size_t     at = 0;

    if (!stoa_jwks_list(json, &list, why)) {
        return STOA_E_INTERNAL;
    }

    while (stoa_json_each(list, &at, &value)) {
        *why = stoa_jwk_add(keys, value);
        ERR_clear_error();

        if (*why != NULL) {
            return STOA_E_INTERNAL;
        }
    }

    return STOA_OK;
}


/* ---- of others ---- */

/* "key_ops", where it is, says that the key verifies. */
static bool
stoa_jwk_verifies(stoa_str_t jwk)
{
    size_t     at = 0, i = 0;
    stoa_str_t name, value, item, text;
    bool       found = true;

    while (stoa_json_walk(jwk, &at, &name, &value)) {
        if (!stoa_str_eq_z(name, "key_ops")) {
            continue;
        }

        found = false;

        while (stoa_json_kind(value) == STOA_JSON_ARRAY
               && stoa_json_each(value, &i, &item))
        {
            found = found
                 || (stoa_jwt_text(item, &text)
                     && stoa_str_eq_z(text, "verify"));
        }
    }

    return found;
}


/* Whether a name stands there with anything but a text without escapes. */
static bool
stoa_jwk_odd(stoa_str_t jwk, const char *member)
{
    size_t     at = 0;
    stoa_str_t name, value, text;

    while (stoa_json_walk(jwk, &at, &name, &value)) {
        if (stoa_str_eq_z(name, member)) {
            return !stoa_jwt_text(value, &text);
        }
    }

    return false;
}


/* NULL: it is not of use. */
static EVP_PKEY *
stoa_jwk_of_others(stoa_str_t jwk, stoa_alg_e *alg, stoa_str_t *kid)
{
    stoa_str_t kty, use, text;
    EVP_PKEY  *pkey;
    size_t     i;

    if (stoa_json_kind(jwk) != STOA_JSON_OBJECT || stoa_jwk_odd(jwk, "alg")
        || stoa_jwk_odd(jwk, "use") || !stoa_jwk_verifies(jwk))
    {
        return NULL;
    }

    kty = stoa_jwk_text(jwk, "kty");
    use = stoa_jwk_text(jwk, "use");
    text = stoa_jwk_text(jwk, "alg");
    *kid = stoa_jwk_text(jwk, "kid");

    if (kid->len == 0 || kid->len > STOA_JWT_KID
        || (use.data != NULL && !stoa_str_eq_z(use, "sig")))
    {
        return NULL;
    }

    for (i = 0; i < stoa_nitems(stoa_jwk_types); i++) {
        if (stoa_jwk_types[i].read != NULL
            && stoa_str_eq_z(kty, stoa_jwk_types[i].kty)) {
            *alg = text.data != NULL ? stoa_jwt_alg_by_name(text)
                                     : stoa_jwk_types[i].alg;

            pkey = *alg != 0 ? stoa_jwk_types[i].read(jwk) : NULL;
            ERR_clear_error();

            return pkey;
        }
    }

    return NULL;
}


stoa_jwt_keys_t *
stoa_jwks_of_others(stoa_str_t json, const char **why)
{
    size_t           at = 0, n = 0;
    EVP_PKEY        *pkey;
    stoa_str_t       value, list, kid;
    stoa_alg_e       alg;
    stoa_jwt_keys_t *keys;

    if (!stoa_jwks_list(json, &list, why)) {
        return NULL;
    }

    keys = stoa_jwt_keys_create();
    *why = "no memory";

    while (keys != NULL && stoa_json_each(list, &at, &value)) {
        pkey = stoa_jwk_of_others(value, &alg, &kid);

        if (pkey != NULL && !stoa_jwt_fits(pkey, alg)) {
            EVP_PKEY_free(pkey); /* too weak, or of another type */
            pkey = NULL;
        }

        if (pkey == NULL) {
            continue;
        }

        if (stoa_jwt_keys_take(keys, alg, kid, pkey, why) != STOA_OK) {
            stoa_jwt_keys_destroy(keys);
            return NULL;
        }

        n++;
    }

    if (keys != NULL && n == 0) {
        *why = "no key of the set is of use";
        stoa_jwt_keys_destroy(keys);
        return NULL;
    }

    return keys;
}


/* ---- printing ---- */

static void
stoa_jwk_put(stoa_buf_t *b, const char *name, const unsigned char *data,
             size_t len)
{
    stoa_buf_printf(b, ",\"%s\":\"", name);
    stoa_buf_base64url(b, data, len);
    stoa_buf_char(b, '"');
}


/* A number of the key, of width bytes; 0: as many as it has. */
static bool
stoa_jwk_put_number(stoa_buf_t *b, const char *name, EVP_PKEY *pkey,
                    const char *param, int width)
{
    unsigned char bytes[STOA_JWK_BYTES];
    BIGNUM       *n = NULL;
    bool          good;

    good = EVP_PKEY_get_bn_param(pkey, param, &n) == 1;

    if (good) {
        width = width != 0 ? width : BN_num_bytes(n);
        good = width <= STOA_JWK_BYTES
            && BN_bn2binpad(n, bytes, width) == width;
    }

    if (good) {
        stoa_jwk_put(b, name, bytes, (size_t) width);
    }

    BN_free(n);

    return good;
}


static bool
stoa_jwk_print(stoa_buf_t *b, stoa_alg_e alg, EVP_PKEY *pkey)
{
    unsigned char bytes[STOA_JWK_ED];
    size_t        len = sizeof(bytes);

    switch (alg) {
    case STOA_ALG_RS256:
    case STOA_ALG_PS256:
        stoa_buf_z(b, "\"kty\":\"RSA\"");
        return stoa_jwk_put_number(b, "n", pkey, OSSL_PKEY_PARAM_RSA_N, 0)
            && stoa_jwk_put_number(b, "e", pkey, OSSL_PKEY_PARAM_RSA_E, 0);

    case STOA_ALG_ES256:
        stoa_buf_z(b, "\"kty\":\"EC\",\"crv\":\"P-256\"");
        return stoa_jwk_put_number(b, "x", pkey, OSSL_PKEY_PARAM_EC_PUB_X,
                                   STOA_JWK_P256)
            && stoa_jwk_put_number(b, "y", pkey, OSSL_PKEY_PARAM_EC_PUB_Y,
                                   STOA_JWK_P256);

    case STOA_ALG_EDDSA:
        if (EVP_PKEY_get_raw_public_key(pkey, bytes, &len) != 1
            || len != STOA_JWK_ED) {
            return false;
        }

        stoa_buf_z(b, "\"kty\":\"OKP\",\"crv\":\"Ed25519\"");
        stoa_jwk_put(b, "x", bytes, len);
        return true;

    case STOA_ALG_HS256:
        break;
    }

    return false;
}


bool
stoa_jwks_print(const stoa_jwt_keys_t *keys, stoa_buf_t *b)
{
    const char *kid;
    stoa_alg_e  alg;
    EVP_PKEY   *pkey;
    size_t      i;
    bool        first = true;

    stoa_buf_z(b, "{\"keys\":[");

    for (i = 0; stoa_jwt_keys_at(keys, i, &alg, &kid, &pkey); i++) {
        if (pkey == NULL) {
            continue; /* a secret */
        }

        stoa_buf_z(b, first ? "{" : ",{");
        first = false;

        if (!stoa_jwk_print(b, alg, pkey)) {
            return false;
        }

        stoa_buf_printf(b, ",\"use\":\"sig\",\"alg\":\"%s\",\"kid\":",
                        stoa_jwt_alg_name(alg));
        stoa_buf_json_z(b, kid);
        stoa_buf_char(b, '}');
    }

    stoa_buf_z(b, "]}");

    return !b->failed;
}


/* ---- settings ---- */

stoa_jwt_keys_t *
stoa_jwt_keys_conf(const stoa_conf_t *conf, const char **setting,
                   const char **why)
{
    stoa_alg_e       alg;
    stoa_str_t       key;
    stoa_jwt_keys_t *keys;

    alg = stoa_jwt_alg_by_name(stoa_str_z(conf->jwt_alg));
    *setting = alg == STOA_ALG_HS256 ? "JWT_SECRET" : "JWT_PRIVATE_KEY";
    key = stoa_str_z(alg == STOA_ALG_HS256 ? conf->jwt_secret
                                           : conf->jwt_private_key);
    keys = stoa_jwt_keys_create();

    if (keys == NULL) {
        *why = "no memory";
        return NULL;
    }

    if (stoa_jwt_keys_add(keys, alg, stoa_str_z(conf->jwt_kid), key, true, why)
        != STOA_OK)
    {
        stoa_jwt_keys_destroy(keys);
        return NULL;
    }

    *setting = "JWT_VERIFY_KEYS";

    if (conf->jwt_verify_keys[0] != '\0'
        && stoa_jwks_add(keys, stoa_str_z(conf->jwt_verify_keys), why)
               != STOA_OK)
    {
        stoa_jwt_keys_destroy(keys);
        return NULL;
    }

    return keys;
}
