/*
 * Tokens: published signatures, round trips of the three algorithms, libjwt
 * as the other opinion, every rule of claims and header, refresh tokens and
 * roles.
 */

#include "unit_core.h"

#include "stoa_hmac.h"
#include "stoa_json.h"
#include "stoa_jwt.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>

#define NOW    1767323045
#define SECRET "0123456789abcdef0123456789abcdef"

static stoa_mem_t            *mem;
static const stoa_jwt_rules_t rules = { "https://stoa.example", "stoa", 5, 0 };


static int
jwt_setup(void **state)
{
    mem = stoa_arena_create(65536, 1 << 26);
    return mem == NULL;
}


static int
jwt_teardown(void **state)
{
    stoa_arena_destroy(mem);
    return 0;
}


/* ---- keys ---- */

static stoa_str_t
jwt_pem(EVP_PKEY *pkey, bool private)
{
    stoa_str_t s;
    char      *data;
    BIO       *bio = BIO_new(BIO_s_mem());

    assert_non_null(pkey);
    assert_int_equal(private ? PEM_write_bio_PrivateKey(bio, pkey, NULL, NULL,
                                                        0, NULL, NULL)
                             : PEM_write_bio_PUBKEY(bio, pkey),
                     1);
    s.len = (size_t) BIO_get_mem_data(bio, &data);
    s.data = (unsigned char *)
        stoa_strdup_z(mem, (stoa_str_t){ s.len, (unsigned char *) data });
    BIO_free(bio);

    return s;
}


/* One secret, which signs. */
static stoa_jwt_keys_t *
jwt_hs256(void)
{
    stoa_jwt_keys_t *keys = stoa_jwt_keys_create();
    const char      *why;

    assert_int_equal(stoa_jwt_keys_add(keys, STOA_ALG_HS256, L("k1"), L(SECRET),
                                       true, &why),
                     STOA_OK);

    return keys;
}


static void
jwt_jwk_part(stoa_json_t *jwk, const char *name, unsigned char *out,
             size_t size, size_t *len)
{
    ssize_t n = stoa_base64url_decode(out, size,
                                      stoa_json_str(stoa_json_get(jwk, name)));

    assert_true(n > 0);
    *len = (size_t) n;
}


/* A public key of a JWK as OpenSSL has it. */
static EVP_PKEY *
jwt_from_jwk(stoa_json_t *jwk, bool rsa)
{
    unsigned char   a[1024], b[1024], point[65] = { 4 };
    size_t          alen, blen;
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    OSSL_PARAM     *params;
    EVP_PKEY_CTX   *ctx;
    EVP_PKEY       *pkey = NULL;
    BIGNUM         *n = NULL, *e = NULL;

    jwt_jwk_part(jwk, rsa ? "n" : "x", a, sizeof(a), &alen);
    jwt_jwk_part(jwk, rsa ? "e" : "y", b, sizeof(b), &blen);

    if (rsa) {
        n = BN_bin2bn(a, (int) alen, NULL);
        e = BN_bin2bn(b, (int) blen, NULL);
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n);
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, e);

    } else {
        assert_true(alen == 32 && blen == 32);
        memcpy(point + 1, a, 32);
        memcpy(point + 33, b, 32);
        OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME,
                                        "P-256", 0);
        OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point,
                                         65);
    }

    params = OSSL_PARAM_BLD_to_param(build);
    ctx = EVP_PKEY_CTX_new_from_name(NULL, rsa ? "RSA" : "EC", NULL);
    assert_int_equal(EVP_PKEY_fromdata_init(ctx), 1);
    (void) EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params);

    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    BN_free(n);
    BN_free(e);

    return pkey;
}


/* Adds a JWK; false: it is of a kind that Stoa does not have. */
static bool
jwt_add_jwk(stoa_jwt_keys_t *keys, stoa_json_t *jwk, const char **why)
{
    unsigned char secret[256];
    stoa_json_t  *kid = stoa_json_get(jwk, "kid");
    stoa_json_t  *alg = stoa_json_get(jwk, "alg");
    stoa_str_t    name = kid != NULL ? stoa_json_str(kid) : L("unnamed"), key;
    EVP_PKEY     *pkey;
    stoa_err_e    err;
    bool          rsa;

    *why = "another algorithm";

    if (alg == NULL) {
        return false;
    }

    if (stoa_str_eq_z(stoa_json_str(alg), "HS256")) {
        key.data = secret;
        jwt_jwk_part(jwk, "k", secret, sizeof(secret), &key.len);
        return stoa_jwt_keys_add(keys, STOA_ALG_HS256, name, key, false, why)
            == STOA_OK;
    }

    rsa = stoa_str_eq_z(stoa_json_str(alg), "RS256");

    if (!rsa && !stoa_str_eq_z(stoa_json_str(alg), "ES256")) {
        return false;
    }

    pkey = jwt_from_jwk(jwk, rsa);

    if (pkey == NULL) {
        *why = "OpenSSL refuses it";
        return false;
    }

    err = stoa_jwt_keys_add(keys, rsa ? STOA_ALG_RS256 : STOA_ALG_ES256, name,
                            jwt_pem(pkey, false), false, why);
    EVP_PKEY_free(pkey);

    return err == STOA_OK;
}


/*
 * Vectors that say nothing here: a weakness of keys (ROCA) that is not looked
 * for, since keys are the operator's own; and two whose padding was lost when
 * they were written, which left them equal to a valid one of their group.
 */
static bool
jwt_is_other(stoa_json_t *tests, stoa_json_t *test)
{
    stoa_json_t *other;
    stoa_str_t   comment = stoa_json_str(stoa_json_get(test, "comment"));
    size_t       i;

    if (strstr((char *) comment.data, "Roca") != NULL) {
        return true;
    }

    for (i = 0; i < stoa_json_count(tests); i++) {
        other = stoa_json_at(tests, i);

        if (stoa_str_eq_z(stoa_json_str(stoa_json_get(other, "result")),
                          "valid")
            && stoa_str_eq(stoa_json_str(stoa_json_get(other, "jws")),
                           stoa_json_str(stoa_json_get(test, "jws"))))
        {
            return true;
        }
    }

    return false;
}


static void
jwt_vectors_of(const char *file, size_t wanted)
{
    unsigned char     room[STOA_JWT_MAX];
    stoa_json_fault_t fault;
    stoa_json_t      *all, *groups, *group, *tests, *test, *jwk;
    stoa_jwt_keys_t  *keys;
    stoa_str_t        payload;
    const char       *why, *comment;
    size_t            i, j, seen = 0;
    unsigned          type;
    bool              valid, got;

    all = stoa_json_parse(mem, unit_read(mem, file), &fault);
    assert_non_null(all);
    groups = stoa_json_get(all, "testGroups");

    for (i = 0; i < stoa_json_count(groups); i++) {
        group = stoa_json_at(groups, i);
        jwk = stoa_json_get(group, "public");

        if (jwk == NULL) {
            jwk = stoa_json_get(group, "private");
        }

        keys = stoa_jwt_keys_create();
        assert_non_null(keys);

        if (stoa_json_get(jwk, "keys") != NULL || !jwt_add_jwk(keys, jwk, &why))
        {
            stoa_jwt_keys_destroy(keys);
            continue;
        }

        tests = stoa_json_get(group, "tests");

        for (j = 0; j < stoa_json_count(tests); j++) {
            test = stoa_json_at(tests, j);
            comment = (char *) stoa_json_str(stoa_json_get(test, "comment"))
                          .data;
            valid = stoa_str_eq_z(stoa_json_str(stoa_json_get(test, "result")),
                                  "valid");
            got = stoa_jws_open(keys, stoa_json_str(stoa_json_get(test, "jws")),
                                room, &payload, &type, &why)
               == STOA_OK;

            if (got != valid && !jwt_is_other(tests, test)) {
                fail_msg("%s, test %d (%s): %s", file,
                         (int) stoa_json_int(stoa_json_get(test, "tcId")),
                         comment, got ? "accepted" : why);
            }

            seen++;
        }

        stoa_jwt_keys_destroy(keys);
    }

    if (seen < wanted) {
        fail_msg("%s: only %zu of its tests were run", file, seen);
    }
}


static void
jwt_vectors(void **state)
{
    jwt_vectors_of("jose/json_web_signature_test.json", 250);
}


/* ---- round trips ---- */

static stoa_claims_t
jwt_claims(void)
{
    stoa_claims_t c;

    memset(&c, 0, sizeof(c));
    memset(c.sub.b, 1, 16);
    memset(c.sid.b, 2, 16);
    memset(c.jti.b, 3, 16);
    c.iat = NOW;
    c.exp = NOW + 900;
    c.epoch = 4000000000u;
    c.roles = STOA_ADMIN | STOA_MEMBER;
    c.auth_time = NOW - 60;
    c.amr = STOA_AMR_PWD | STOA_AMR_OTP | STOA_AMR_MFA;
    c.mfa = true;

    return c;
}


static void
jwt_minted(stoa_alg_e alg, stoa_str_t private, stoa_jwt_keys_t *reader)
{
    stoa_claims_t c = jwt_claims(), back;
    stoa_buf_t    minted, claims;
    stoa_str_t    payload;
    unsigned char room[STOA_JWT_MAX];
    unsigned      type;
    const char   *why;

    stoa_buf_init(&claims, mem, 0, STOA_JWT_MAX);
    stoa_jwt_claims(&claims, &rules, &c, L(""));
    stoa_buf_nul(&claims);
    stoa_buf_init(&minted, mem, 0, STOA_JWT_MAX);
    assert_int_equal(stoa_jwt_mint(alg, "k1", private, (char *) claims.data,
                                   &minted),
                     STOA_OK);
    assert_int_equal(stoa_jws_open(reader, stoa_buf_view(&minted), room,
                                   &payload, &type, &why),
                     STOA_OK);
    assert_int_equal(type, 0);
    assert_int_equal(stoa_jwt_verify(reader, &rules, stoa_buf_view(&minted),
                                     NOW * 1000LL, &back, &why),
                     STOA_E_UNAUTHENTICATED);
}


static void
jwt_round(stoa_alg_e alg, stoa_str_t private, stoa_str_t public)
{
    stoa_jwt_keys_t *signer = stoa_jwt_keys_create();
    stoa_jwt_keys_t *reader = stoa_jwt_keys_create();
    stoa_claims_t    c = jwt_claims(), back;
    stoa_buf_t       b;
    stoa_str_t       token;
    const char      *why;
    size_t           i;
    unsigned char    kept;

    assert_int_equal(stoa_jwt_keys_add(signer, alg, L("k1"), private, true,
                                       &why),
                     STOA_OK);
    assert_int_equal(stoa_jwt_keys_add(reader, alg, L("k1"), public, false,
                                       &why),
                     STOA_OK);
    stoa_buf_init(&b, mem, 0, STOA_JWT_MAX);
    assert_int_equal(stoa_jwt_sign(reader, &rules, &c, L(""), &b),
                     STOA_E_INTERNAL);
    assert_int_equal(stoa_jwt_sign(signer, &rules, &c, L(""), &b), STOA_OK);
    token = stoa_buf_view(&b);
    assert_int_equal(stoa_jwt_verify(reader, &rules, token, NOW * 1000LL, &back,
                                     &why),
                     STOA_OK);
    assert_memory_equal(&c, &back, sizeof(c));

    /* twice: the second time the header is known */
    assert_int_equal(stoa_jwt_verify(reader, &rules, token, NOW * 1000LL, &back,
                                     &why),
                     STOA_OK);

    /* every byte counts */
    for (i = 0; i < token.len; i++) {
        kept = token.data[i];
        token.data[i] = kept == 'A' ? 'B' : 'A';

        if (stoa_jwt_verify(reader, &rules, token, NOW * 1000LL, &back, &why)
            != STOA_E_UNAUTHENTICATED)
        {
            fail_msg("byte %zu does not count", i);
        }

        token.data[i] = kept;
    }

    for (i = 0; i < token.len; i++) {
        assert_int_equal(stoa_jwt_verify(reader, &rules,
                                         (stoa_str_t){ i, token.data },
                                         NOW * 1000LL, &back, &why),
                         STOA_E_UNAUTHENTICATED);
    }

    /* libjwt agrees about signatures, where it knows them */
    if (alg == STOA_ALG_PS256 || alg == STOA_ALG_EDDSA) {
        assert_int_equal(stoa_jwt_mint(alg, "k1", private, "{}", &b),
                         STOA_E_INTERNAL);
    } else {
        jwt_minted(alg, private, reader);
    }

    /* device tokens carry an event and no roles, nor how one signed in */
    c.roles = STOA_DEVICE;
    c.sid = c.sub;
    c.epoch = 0;
    c.auth_time = 0;
    c.amr = 0;
    c.mfa = false;
    memset(c.event.b, 5, 16);
    b.len = 0;
    assert_int_equal(stoa_jwt_sign(signer, &rules, &c, L(""), &b), STOA_OK);
    assert_int_equal(stoa_jwt_verify(reader, &rules, stoa_buf_view(&b),
                                     NOW * 1000LL, &back, &why),
                     STOA_OK);
    assert_memory_equal(&c, &back, sizeof(c));

    stoa_jwt_keys_destroy(signer);
    stoa_jwt_keys_destroy(reader);
}


static void
jwt_algorithms(void **state)
{
    EVP_PKEY *rsa = EVP_RSA_gen(2048), *ec = EVP_EC_gen("P-256");
    EVP_PKEY *ed = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");

    jwt_round(STOA_ALG_HS256, L(SECRET), L(SECRET));
    jwt_round(STOA_ALG_RS256, jwt_pem(rsa, true), jwt_pem(rsa, false));
    jwt_round(STOA_ALG_ES256, jwt_pem(ec, true), jwt_pem(ec, false));
    jwt_round(STOA_ALG_PS256, jwt_pem(rsa, true), jwt_pem(rsa, false));
    jwt_round(STOA_ALG_EDDSA, jwt_pem(ed, true), jwt_pem(ed, false));
    EVP_PKEY_free(rsa);
    EVP_PKEY_free(ec);
    EVP_PKEY_free(ed);
}


/* RFC 8037 A.2 and A.4, RFC 7515 A.3. */
#define ED_X "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
#define EC_X "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
#define EC_Y "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
#define ED   "\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"" ED_X "\""
#define EC   "\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\","

static void
jwt_jwks(void **state)
{
    static const char set[] =
        "{\"keys\":[{" ED ",\"use\":\"sig\",\"alg\":\"EdDSA\",\"kid\":\"ed\"}"
        ",{" EC "\"y\":\"" EC_Y "\",\"use\":\"sig\",\"alg\":\"ES256\","
        "\"kid\":\"ec\"}]}";
    static const char token[] =
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt"
        "9g7sVvpAr_MuM0KAg";
    static const char *const bad[] = {
        "",
        "[]",
        "{}",
        "{\"keys\":{}}",
        "{\"keys\":[1]}",
        "{\"keys\":[{}]}",
        "{\"keys\":[{" ED ",\"kid\":\"a\"}]}",
        "{\"keys\":[{" ED ",\"alg\":\"EdDSA\"}]}",
        "{\"keys\":[{" ED ",\"alg\":\"none\",\"kid\":\"a\"}]}",
        "{\"keys\":[{" ED ",\"alg\":\"ES256\",\"kid\":\"a\"}]}",
        "{\"keys\":[{" ED ",\"alg\":\"HS256\",\"kid\":\"a\"}]}",
        "{\"keys\":[{" ED ",\"alg\":\"EdDSA\",\"kid\":\"a\","
        "\"use\":\"enc\"}]}",
        "{\"keys\":[{" ED ",\"alg\":\"EdDSA\",\"kid\":\"a\"},{" ED
        ",\"alg\":\"EdDSA\",\"kid\":\"a\"}]}",
        "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"X25519\",\"x\":\"" ED_X
        "\",\"alg\":\"EdDSA\",\"kid\":\"a\"}]}",
        "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AAAA\","
        "\"alg\":\"EdDSA\",\"kid\":\"a\"}]}",
        "{\"keys\":[{" EC "\"y\":\"" EC_X
        "\",\"alg\":\"ES256\",\"kid\":\"a\"}]}", /* not on the curve */
        "{\"keys\":[{" EC "\"alg\":\"ES256\",\"kid\":\"a\"}]}",
        "{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\","
        "\"alg\":\"RS256\",\"kid\":\"a\"}]}", /* far too short */
        "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\",\"alg\":\"HS256\","
        "\"kid\":\"a\"}]}",
        "{\"keys\":[{\"kty\":\"oct\",\"alg\":\"HS256\",\"kid\":\"a\"}]}",
    };

    unsigned char    out[STOA_JWT_MAX];
    unsigned         type;
    const char      *why;
    size_t           i;
    stoa_buf_t       b;
    stoa_str_t       payload;
    stoa_jwt_keys_t *keys;

    for (i = 0; i < stoa_nitems(bad); i++) {
        keys = stoa_jwt_keys_create();
        why = NULL;

        if (stoa_jwks_add(keys, stoa_str_z(bad[i]), &why) == STOA_OK
            || why == NULL) {
            fail_msg("taken: %s", bad[i]);
        }

        stoa_jwt_keys_destroy(keys);
    }

    keys = stoa_jwt_keys_create();
    assert_int_equal(stoa_jwks_add(keys, stoa_str_z(set), &why), STOA_OK);
    stoa_buf_init(&b, mem, 64, 65536);
    assert_true(stoa_jwks_print(keys, &b));
    stoa_buf_nul(&b);
    assert_string_equal((char *) b.data, set);
    stoa_jwt_keys_destroy(keys);

    /* without a kid, one key is enough */
    keys = stoa_jwt_keys_create();
    assert_int_equal(stoa_jwks_add(keys,
                                   L("{\"keys\":[{" ED
                                     ",\"alg\":\"EdDSA\",\"kid\":"
                                     "\"ed\"}]}"),
                                   &why),
                     STOA_OK);
    assert_int_equal(stoa_jws_open(keys, stoa_str_z(token), out, &payload,
                                   &type, &why),
                     STOA_OK);
    assert_int_equal(payload.len, 26);
    assert_memory_equal(payload.data, "Example of Ed25519 signing", 26);
    stoa_jwt_keys_destroy(keys);
}


/* A set of others: what is of no use in it is passed over. */
static void
jwt_jwks_of_others(void **state)
{
    static const struct {
        const char *keys;
        size_t      taken; /* 0: the set is refused */
    } rows[] = {
        { "", 0 },
        { "{" ED ",\"alg\":\"EdDSA\",\"kid\":\"a\"}", 1 },
        { "{" ED ",\"kid\":\"a\"}", 1 },
        { "{" ED ",\"kid\":\"a\",\"use\":\"sig\",\"key_ops\":[\"verify\"]}",
          1 },
        { "{" ED ",\"kid\":\"a\",\"key_ops\":[\"sign\"]}", 0 },
        { "{" ED ",\"kid\":\"a\",\"key_ops\":\"verify\"}", 0 },
        { "{" ED ",\"kid\":\"a\",\"use\":\"enc\"}", 0 },
        { "{" ED ",\"kid\":\"a\",\"use\":1}", 0 },
        { "{" ED ",\"kid\":\"a\",\"alg\":null}", 0 },
        { "{" ED ",\"kid\":\"a\",\"alg\":\"ES256\"}", 0 },
        { "{" ED ",\"kid\":\"a\",\"alg\":\"HS256\"}", 0 },
        { "{" ED ",\"kid\":\"a\",\"alg\":\"none\"}", 0 },
        { "{" ED "}", 0 },
        { "{" ED ",\"kid\":\"\"}", 0 },
        { "7", 0 },
        { "{\"kty\":\"oct\",\"kid\":\"a\",\"k\":\"" SECRET "\"}", 0 },
        { "7,{" ED ",\"kid\":\"a\"},{" EC "\"y\":\"" EC_Y
          "\",\"kid\":\"b\"},{\"kty\":\"new\",\"kid\":\"c\"}",
          2 },
        { "{" EC "\"y\":\"" EC_X "\",\"kid\":\"b\"}", 0 },
        { "{" ED ",\"kid\":\"a\"},{" EC "\"y\":\"" EC_Y "\",\"kid\":\"a\"}",
          0 },
        { "{" ED ",\"kid\":\"a\"},{" EC "\"y\":\"" EC_X "\",\"kid\":\"a\"}",
          1 },
    };
    stoa_jwt_keys_t *keys;
    const char      *why;
    stoa_buf_t       b;
    size_t           i, n;
    unsigned char   *p;

    (void) state;

    for (i = 0; i < stoa_nitems(rows); i++) {
        stoa_buf_init(&b, mem, 256, 4096);
        stoa_buf_printf(&b, "{\"more\":1,\"keys\":[%s]}", rows[i].keys);
        keys = stoa_jwks_of_others(stoa_buf_view(&b), &why);

        stoa_buf_init(&b, mem, 256, 4096);
        n = 0;

        if (keys != NULL) {
            assert_true(stoa_jwks_print(keys, &b));
        }

        for (p = b.data; p != NULL && n < 9; n++) {
            p = memmem(p, b.len - (size_t) (p - b.data), "\"kid\"", 5);

            if (p == NULL) {
                break;
            }

            p++;
        }

        if (n != rows[i].taken) {
            fail_msg("%s: %zu", rows[i].keys, n);
        }

        stoa_jwt_keys_destroy(keys);
    }
}


static void
jwt_extra_claims(void **state)
{
    stoa_jwt_rules_t more = rules;
    stoa_claims_t    c;
    stoa_buf_t       b;

    (void) state;
    memset(&c, 0, sizeof(c));
    c.roles = STOA_MEMBER | STOA_ORGANIZER;

    assert_true(stoa_jwt_extra("", &more.extra));
    assert_int_equal(more.extra, 0);
    assert_false(stoa_jwt_extra("emails", &more.extra));
    assert_false(stoa_jwt_extra("email,rol", &more.extra));
    assert_true(stoa_jwt_extra(" user_id, role  email,", &more.extra));
    assert_int_equal(more.extra, 7);

    stoa_buf_init(&b, mem, 256, 4096);
    stoa_jwt_claims(&b, &more, &c, L("a\"b@c"));
    stoa_buf_nul(&b);
    assert_non_null(strstr((char *) b.data,
                           "\"roles\":[\"organizer\",\"member\"],"
                           "\"email\":\"a\\\"b@c\",\"role\":\"organizer\","
                           "\"user_id\":\"00000000-0000-0000-0000-"
                           "000000000000\"}"));
}


static void
jwt_bad_keys(void **state)
{
    stoa_jwt_keys_t *keys = stoa_jwt_keys_create();
    EVP_PKEY        *small = EVP_RSA_gen(1024), *other = EVP_EC_gen("P-384");
    EVP_PKEY        *ec = EVP_EC_gen("P-256");
    const char      *why;

    assert_int_not_equal(stoa_jwt_keys_add(keys, STOA_ALG_HS256, L("a"),
                                           L("0123456789abcdef0123456789abcde"),
                                           true, &why),
                         STOA_OK);
    assert_int_not_equal(stoa_jwt_keys_add(keys, STOA_ALG_RS256, L("a"),
                                           jwt_pem(small, true), true, &why),
                         STOA_OK);
    assert_int_not_equal(stoa_jwt_keys_add(keys, STOA_ALG_ES256, L("a"),
                                           jwt_pem(other, true), true, &why),
                         STOA_OK);
    assert_int_not_equal(stoa_jwt_keys_add(keys, STOA_ALG_RS256, L("a"),
                                           jwt_pem(ec, true), true, &why),
                         STOA_OK);
    assert_int_not_equal(stoa_jwt_keys_add(keys, STOA_ALG_ES256, L("a"),
                                           jwt_pem(ec, false), true, &why),
                         STOA_OK);
    assert_non_null(strstr(why, "private"));
    assert_int_not_equal(stoa_jwt_keys_add(keys, STOA_ALG_ES256, L("a"),
                                           L("garbage"), true, &why),
                         STOA_OK);
    assert_int_not_equal(stoa_jwt_keys_add(keys, STOA_ALG_HS256, L(""),
                                           L(SECRET), true, &why),
                         STOA_OK);
    assert_int_equal(stoa_jwt_keys_add(keys, STOA_ALG_HS256, L("a"), L(SECRET),
                                       true, &why),
                     STOA_OK);
    assert_int_not_equal(stoa_jwt_keys_add(keys, STOA_ALG_ES256, L("a"),
                                           jwt_pem(ec, true), true, &why),
                         STOA_OK);
    assert_non_null(strstr(why, "kid"));
    stoa_jwt_keys_destroy(keys);
    EVP_PKEY_free(small);
    EVP_PKEY_free(other);
    EVP_PKEY_free(ec);
}


/* ---- rules ---- */

/* A token of any header and payload with a right HS256 signature. */
static stoa_str_t
jwt_forge(const char *header, const char *payload)
{
    unsigned char mac[32], text[8192];
    stoa_buf_t    b;

    stoa_buf_init(&b, mem, 0, 16384);
    stoa_buf_put(&b, text, stoa_base64url_encode(text, header, strlen(header)));
    stoa_buf_char(&b, '.');
    stoa_buf_put(&b, text,
                 stoa_base64url_encode(text, payload, strlen(payload)));
    assert_true(stoa_hmac_sha256(L(SECRET), b.data, b.len, mac));
    stoa_buf_char(&b, '.');
    stoa_buf_put(&b, text, stoa_base64url_encode(text, mac, 32));
    assert_false(b.failed);

    return stoa_buf_view(&b);
}


#define HEADER "{\"alg\":\"HS256\",\"typ\":\"at+jwt\",\"kid\":\"k1\"}"
#define ID(n)  "0000000" n "-0000-7000-8000-000000000000"
#define SUB    "\"sub\":\"" ID("1") "\","
#define IDS    SUB "\"sid\":\"" ID("2") "\",\"jti\":\"" ID("3") "\","
#define TIMES  "\"iat\":1767323045,\"exp\":1767323945,"
#define FROM   "\"iss\":\"https://stoa.example\",\"aud\":\"stoa\","
#define REST   "\"ep\":1,\"roles\":[\"member\"]}"


static void
jwt_header_rules(void **state)
{
    static const struct {
        const char *header;
        bool        good;
    } rows[] = {
        { HEADER, true },
        { "{\"kid\":\"k1\",\"alg\":\"HS256\",\"typ\":\"AT+JWT\"}", true },
        { "{\"typ\":\"application/at+jwt\",\"alg\":\"HS256\",\"kid\":\"k1\"}",
          true },
        { "{\"alg\":\"HS256\",\"typ\":\"at+jwt\",\"kid\":\"k1\",\"x\":[{}]}",
          true },
        { "{\"alg\":\"HS256\",\"typ\":\"at+jwt\"}", false }, /* two keys */
        { "{\"alg\":\"HS256\",\"typ\":\"at+jwt\",\"kid\":\"k9\"}", false },
        { "{\"alg\":\"HS256\",\"typ\":\"at+jwt\",\"kid\":1}", false },
        { "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"k1\"}", false },
        { "{\"alg\":\"HS256\",\"kid\":\"k1\"}", false },
        { "{\"alg\":\"none\",\"typ\":\"at+jwt\",\"kid\":\"k1\"}", false },
        { "{\"alg\":\"hs256\",\"typ\":\"at+jwt\",\"kid\":\"k1\"}", false },
        { "{\"alg\":\"RS256\",\"typ\":\"at+jwt\",\"kid\":\"k1\"}", false },
        { "{\"alg\":\"HS256\",\"typ\":\"at+jwt\",\"kid\":\"rsa\"}", false },
        { "{\"alg\":\"RS256\",\"typ\":\"at+jwt\",\"kid\":\"rsa\"}", false },
        { "{\"typ\":\"at+jwt\",\"kid\":\"k1\"}", false },
        { "{\"alg\":\"HS256\",\"typ\":\"at+jwt\",\"kid\":\"k1\","
          "\"crit\":[\"exp\"],\"exp\":1}",
          false },
        { "{\"alg\":\"HS256\",\"alg\":\"HS256\",\"typ\":\"at+jwt\","
          "\"kid\":\"k1\"}",
          false },
        { "{\"\\u0061lg\":\"HS256\",\"alg\":\"HS256\",\"typ\":\"at+jwt\","
          "\"kid\":\"k1\"}",
          false },
        { "{\"alg\":\"HS25\\u0036\",\"typ\":\"at+jwt\",\"kid\":\"k1\"}",
          false },
        { "{\"alg\":\"HS256\",\"typ\":\"at+jwt\",\"kid\":\"k1\"} x", false },
        { "[]", false },
        { "\"HS256\"", false },
        { "", false },
    };
    stoa_jwt_keys_t *keys = jwt_hs256();
    EVP_PKEY        *rsa = EVP_RSA_gen(2048);
    stoa_claims_t    c;
    const char      *why;
    stoa_err_e       err;
    size_t           i;

    assert_int_equal(stoa_jwt_keys_add(keys, STOA_ALG_RS256, L("rsa"),
                                       jwt_pem(rsa, true), false, &why),
                     STOA_OK);

    for (i = 0; i < stoa_nitems(rows); i++) {
        err = stoa_jwt_verify(keys, &rules,
                              jwt_forge(rows[i].header,
                                        "{" FROM IDS TIMES REST),
                              NOW * 1000LL, &c, &why);

        if (err != (rows[i].good ? STOA_OK : STOA_E_UNAUTHENTICATED)) {
            fail_msg("%s: %s", rows[i].header, why != NULL ? why : "good");
        }
    }

    stoa_jwt_keys_destroy(keys);
    EVP_PKEY_free(rsa);
}


/* The confusion attack: a public key used as a secret. */
static void
jwt_confusion(void **state)
{
    unsigned char    mac[32], text[8192];
    EVP_PKEY        *rsa = EVP_RSA_gen(2048);
    stoa_jwt_keys_t *keys = stoa_jwt_keys_create();
    stoa_str_t       pem = jwt_pem(rsa, false), token;
    stoa_claims_t    c;
    stoa_buf_t       b;
    const char      *why;

    assert_int_equal(stoa_jwt_keys_add(keys, STOA_ALG_RS256, L("k1"), pem,
                                       false, &why),
                     STOA_OK);
    token = jwt_forge(HEADER, "{" FROM IDS TIMES REST);
    token.len -= 43;
    assert_true(stoa_hmac_sha256(pem, token.data, token.len - 1, mac));
    stoa_buf_init(&b, mem, 0, 16384);
    stoa_buf_str(&b, token);
    stoa_buf_put(&b, text, stoa_base64url_encode(text, mac, 32));
    assert_int_equal(stoa_jwt_verify(keys, &rules, stoa_buf_view(&b),
                                     NOW * 1000LL, &c, &why),
                     STOA_E_UNAUTHENTICATED);
    assert_string_equal(why, "alg is not the key's");
    stoa_jwt_keys_destroy(keys);
    EVP_PKEY_free(rsa);
}


static void
jwt_claim_rules(void **state)
{
    static const struct {
        const char *payload;
        stoa_err_e  err;
    } rows[] = {
        { "{" FROM IDS TIMES REST, STOA_OK },
        { "{" FROM IDS TIMES "\"more\":{\"a\":[1,2]}," REST, STOA_OK },
        { "{\"iss\":\"https://stoa.example\",\"aud\":[\"x\",\"stoa\"]," IDS
              TIMES REST,
          STOA_OK },
        { "{\"iss\":\"https://stoa.example\",\"aud\":[\"x\",\"y\"]," IDS TIMES
              REST,
          STOA_E_UNAUTHENTICATED },
        { "{\"iss\":\"https://stoa.example\",\"aud\":[[\"stoa\"]]," IDS TIMES
              REST,
          STOA_E_UNAUTHENTICATED },
        { "{\"iss\":\"https://stoa.example\",\"aud\":{\"stoa\":1}," IDS TIMES
              REST,
          STOA_E_UNAUTHENTICATED },
        { "{\"iss\":\"other\",\"aud\":\"stoa\"," IDS TIMES REST,
          STOA_E_UNAUTHENTICATED },
        { "{\"aud\":\"stoa\"," IDS TIMES REST, STOA_E_UNAUTHENTICATED },
        { "{\"iss\":\"https://stoa.example\"," IDS TIMES REST,
          STOA_E_UNAUTHENTICATED },
        { "{" FROM TIMES REST, STOA_E_UNAUTHENTICATED },
        { "{" FROM SUB TIMES REST, STOA_E_UNAUTHENTICATED },
        { "{" FROM IDS REST, STOA_E_UNAUTHENTICATED },
        { "{" FROM IDS "\"iat\":1767323045," REST, STOA_E_UNAUTHENTICATED },
        { "{" FROM IDS TIMES "\"ep\":1}", STOA_E_UNAUTHENTICATED },
        { "{" FROM IDS TIMES "\"roles\":[]}", STOA_E_UNAUTHENTICATED },
        { "{" FROM IDS TIMES "\"ep\":-1,\"roles\":[]}",
          STOA_E_UNAUTHENTICATED },
        { "{" FROM IDS TIMES "\"ep\":1,\"roles\":\"admin\"}",
          STOA_E_UNAUTHENTICATED },
        { "{" FROM IDS TIMES "\"ep\":1,\"roles\":[1]}",
          STOA_E_UNAUTHENTICATED },
        { "{" FROM IDS "\"iat\":1767323045,\"exp\":1.767323945e9," REST,
          STOA_E_UNAUTHENTICATED },
        { "{" FROM IDS "\"iat\":1767323045,\"exp\":\"1767323945\"," REST,
          STOA_E_UNAUTHENTICATED },
        { "{" FROM IDS TIMES "\"exp\":1767323945," REST,
          STOA_E_UNAUTHENTICATED },
        { "{" FROM IDS TIMES "\"\\u0065xp\":1867323945," REST,
          STOA_E_UNAUTHENTICATED },
        { "{" FROM "\"sub\":\"admin\"," TIMES REST, STOA_E_UNAUTHENTICATED },
        { "{" FROM IDS TIMES "\"nbf\":1767323051," REST,
          STOA_E_UNAUTHENTICATED },
        { "{" FROM IDS TIMES "\"nbf\":1767323050," REST, STOA_OK },
        { "{" FROM IDS TIMES "\"auth_time\":1,\"amr\":[\"pwd\",\"face\"],"
          "\"mfa\":false," REST,
          STOA_OK },
        { "{" FROM IDS TIMES "\"auth_time\":\"1\"," REST,
          STOA_E_UNAUTHENTICATED },
        { "{" FROM IDS TIMES "\"amr\":\"mfa\"," REST, STOA_E_UNAUTHENTICATED },
        { "{" FROM IDS TIMES "\"mfa\":1," REST, STOA_E_UNAUTHENTICATED },
        { "{" FROM IDS TIMES "\"mfa\":null," REST, STOA_E_UNAUTHENTICATED },
        { "{" FROM IDS "\"iat\":1767323110,\"exp\":1767323945," REST, STOA_OK },
        { "{" FROM IDS "\"iat\":1767323111,\"exp\":1767323945," REST,
          STOA_E_UNAUTHENTICATED },
        { "{" FROM IDS "\"iat\":1767323000,\"exp\":1767323041," REST,
          STOA_OK }, /* within the leeway */
        { "{" FROM IDS "\"iat\":1767323000,\"exp\":1767323040," REST,
          STOA_E_TOKEN_EXPIRED },
        { "[]", STOA_E_UNAUTHENTICATED },
        { "", STOA_E_UNAUTHENTICATED },
    };
    stoa_jwt_keys_t *keys = jwt_hs256();
    stoa_claims_t    c;
    const char      *why;
    stoa_err_e       err;
    size_t           i;

    for (i = 0; i < stoa_nitems(rows); i++) {
        err = stoa_jwt_verify(keys, &rules, jwt_forge(HEADER, rows[i].payload),
                              NOW * 1000LL, &c, &why);

        if (err != rows[i].err) {
            fail_msg("%s: %d, %s", rows[i].payload, err,
                     why != NULL ? why : "good");
        }
    }

    /* a role of tomorrow gives nothing today */
    assert_int_equal(
        stoa_jwt_verify(keys, &rules,
                        jwt_forge(HEADER, "{" FROM IDS TIMES
                                          "\"ep\":1,\"roles\":[\"emperor\", "
                                          "\"scanner\"]}"),
                        NOW * 1000LL, &c, &why),
        STOA_OK);
    assert_int_equal(c.roles, STOA_SCANNER);

    /* a device's roles claim gives nothing either */
    assert_int_equal(
        stoa_jwt_verify(keys, &rules,
                        jwt_forge("{\"alg\":\"HS256\",\"kid\":\"k1\","
                                  "\"typ\":\"stoa-device+jwt\"}",
                                  "{" FROM IDS TIMES "\"evt\":\"" ID(
                                      "4") "\",\"roles\":[\"admin\"]}"),
                        NOW * 1000LL, &c, &why),
        STOA_OK);
    assert_int_equal(c.roles, STOA_DEVICE);
    assert_memory_equal(c.sid.b, c.sub.b, 16);
    assert_int_equal(c.event.b[3], 4);
    assert_int_equal(
        stoa_jwt_verify(keys, &rules,
                        jwt_forge("{\"alg\":\"HS256\",\"kid\":\"k1\","
                                  "\"typ\":\"stoa-device+jwt\"}",
                                  "{" FROM IDS TIMES REST),
                        NOW * 1000LL, &c, &why),
        STOA_E_UNAUTHENTICATED);

    stoa_jwt_keys_destroy(keys);
}


/* RFC 8693 4.1: who acts for the subject, and who only says so. */
static void
jwt_acting(void **state)
{
    static const struct {
        const char *act;
        bool        good;
    } rows[] = {
        { "{\"sub\":\"" ID("7") "\",\"ep\":3}", true },
        { "{ \"ep\" : 3 , \"act\":{\"sub\":\"x\"}, \"sub\":\"" ID("7") "\" }",
          true },
        { "null", false },
        { "{}", false },
        { "[]", false },
        { "\"" ID("7") "\"", false },
        { "{\"sub\":\"" ID("7") "\"}", false },
        { "{\"ep\":3}", false },
        { "{\"sub\":\"admin\",\"ep\":3}", false },
        { "{\"sub\":null,\"ep\":3}", false },
        { "{\"sub\":\"" ID("7") "\",\"ep\":-1}", false },
        { "{\"sub\":\"" ID("7") "\",\"ep\":\"3\"}", false },
        { "{\"sub\":\"" ID("7") "\",\"ep\":3,\"ep\":4}", false },
        { "{\"act\":{\"sub\":\"" ID("7") "\",\"ep\":3}}", false },
    };
    stoa_jwt_keys_t *keys = jwt_hs256();
    char             payload[1024];
    stoa_claims_t    c, back;
    const char      *why;
    stoa_err_e       err;
    stoa_buf_t       b;
    size_t           i;

    for (i = 0; i < stoa_nitems(rows); i++) {
        snprintf(payload, sizeof(payload), "{%s%s%s\"act\":%s,%s", FROM, IDS,
                 TIMES, rows[i].act, REST);
        err = stoa_jwt_verify(keys, &rules, jwt_forge(HEADER, payload),
                              NOW * 1000LL, &c, &why);

        if ((err == STOA_OK) != rows[i].good) {
            fail_msg("%s: %d", rows[i].act, err);
        }

        if (!rows[i].good) {
            continue;
        }

        assert_true(c.acting);
        assert_int_equal(c.act.b[3], 7);
        assert_int_equal(c.act_epoch, 3);

        stoa_buf_init(&b, mem, 0, STOA_JWT_MAX);
        assert_int_equal(stoa_jwt_sign(keys, &rules, &c,
                                       (stoa_str_t) stoa_null_string, &b),
                         STOA_OK);
        assert_int_equal(stoa_jwt_verify(keys, &rules, stoa_buf_view(&b),
                                         NOW * 1000LL, &back, &why),
                         STOA_OK);
        assert_true(back.acting);
        assert_memory_equal(back.act.b, c.act.b, 16);
        assert_int_equal(back.act_epoch, 3);
    }

    assert_int_equal(stoa_jwt_verify(keys, &rules,
                                     jwt_forge(HEADER, "{" FROM IDS TIMES REST),
                                     NOW * 1000LL, &c, &why),
                     STOA_OK);
    assert_false(c.acting);

    assert_int_equal(
        stoa_jwt_verify(
            keys, &rules,
            jwt_forge("{\"alg\":\"HS256\",\"kid\":\"k1\","
                      "\"typ\":\"stoa-device+jwt\"}",
                      "{" FROM IDS TIMES
                      "\"evt\":\"" ID("4") "\",\"act\":{\"sub\":\"" ID(
                          "7") "\",\"ep\":3}}"),
            NOW * 1000LL, &c, &why),
        STOA_E_UNAUTHENTICATED);

    stoa_jwt_keys_destroy(keys);
}


static void
jwt_long(void **state)
{
    stoa_jwt_keys_t *keys = jwt_hs256();
    unsigned char    text[STOA_JWT_MAX + 8];
    stoa_claims_t    c;
    stoa_str_t       s = { sizeof(text), text };
    const char      *why;

    memset(text, 'A', sizeof(text));
    text[10] = text[20] = '.';

    for (s.len = 0; s.len <= sizeof(text); s.len++) {
        assert_int_equal(stoa_jwt_verify(keys, &rules, s, NOW * 1000LL, &c,
                                         &why),
                         STOA_E_UNAUTHENTICATED);
    }

    stoa_jwt_keys_destroy(keys);
}


/* ---- refresh tokens, roles ---- */

static void
jwt_refresh(void **state)
{
    stoa_uuid_t   sid, back;
    uint64_t      counter;
    stoa_buf_t    b;
    stoa_str_t    token;
    size_t        i;
    unsigned char kept;

    memset(sid.b, 0x5a, 16);
    stoa_buf_init(&b, mem, 0, 256);
    assert_true(stoa_refresh_make(L(SECRET), &sid, 0x0102030405060708ULL, &b));
    token = stoa_buf_view(&b);
    assert_int_equal(token.len, STOA_REFRESH_LEN);
    assert_true(stoa_refresh_open(L(SECRET), token, &back, &counter));
    assert_memory_equal(sid.b, back.b, 16);
    assert_true(counter == 0x0102030405060708ULL);
    assert_false(stoa_refresh_open(L(SECRET "x"), token, &back, &counter));

    for (i = 0; i < token.len; i++) {
        kept = token.data[i];
        token.data[i] = kept == 'A' ? 'B' : 'A';
        assert_false(stoa_refresh_open(L(SECRET), token, &back, &counter));
        token.data[i] = kept;
    }

    token.len--;
    assert_false(stoa_refresh_open(L(SECRET), token, &back, &counter));
    assert_false(stoa_refresh_open(L(SECRET), (stoa_str_t) stoa_null_string,
                                   &back, &counter));
}


static void
jwt_roles(void **state)
{
    stoa_buf_t b;
    unsigned   i;

    for (i = 0; i < STOA_ROLE_COUNT; i++) {
        assert_int_equal(stoa_role_by_name(Z(stoa_role_name(1U << i))),
                         1U << i);
    }

    assert_int_equal(stoa_role_by_name(L("device")), 0);
    assert_int_equal(stoa_role_by_name(L("Admin")), 0);
    assert_int_equal(stoa_role_by_name(L("")), 0);
    assert_int_equal(stoa_roles_parse(L("{admin,member}")),
                     STOA_ADMIN | STOA_MEMBER);
    assert_int_equal(stoa_roles_parse(L("{\"scanner\",NULL}")), STOA_SCANNER);
    assert_int_equal(stoa_roles_parse(L("{}")), 0);
    assert_int_equal(stoa_roles_parse((stoa_str_t) stoa_null_string), 0);
    stoa_buf_init(&b, mem, 0, 256);
    stoa_roles_print(&b, STOA_ADMIN | STOA_SCANNER | STOA_DEVICE);
    stoa_roles_print(&b, 0);
    stoa_buf_nul(&b);
    assert_string_equal((char *) b.data, "{admin,scanner}{}");
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jwt_vectors),
        cmocka_unit_test(jwt_algorithms),
        cmocka_unit_test(jwt_bad_keys),
        cmocka_unit_test(jwt_header_rules),
        cmocka_unit_test(jwt_confusion),
        cmocka_unit_test(jwt_claim_rules),
        cmocka_unit_test(jwt_acting),
        cmocka_unit_test(jwt_long),
        cmocka_unit_test(jwt_refresh),
        cmocka_unit_test(jwt_jwks_of_others),
        cmocka_unit_test(jwt_extra_claims),
        cmocka_unit_test(jwt_roles),
        cmocka_unit_test(jwt_jwks),
    };

    return cmocka_run_group_tests_name("jwt", tests, jwt_setup, jwt_teardown);
}
