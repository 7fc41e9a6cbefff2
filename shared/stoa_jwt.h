/*
 * Tokens.  Verification is OpenSSL with keys parsed once (nginx.md 3);
 * libjwt (stoa_jwt_mint.c, the only includer of jwt.h) signs what is rare.
 * One algorithm per key; kid selects the key; typ, iss, aud, exp, sub are
 * required (RFC 9068, RFC 8725).  "none" does not exist here.
 */

#ifndef STOA_JWT_H_INCLUDED
#define STOA_JWT_H_INCLUDED

#include "stoa_buf.h"
#include "stoa_conf.h"

/* RFC 7518 3.1, RFC 8037 (EdDSA: Ed25519). */
typedef enum {
    STOA_ALG_HS256 = 1,
    STOA_ALG_RS256,
    STOA_ALG_ES256,
    STOA_ALG_PS256,
    STOA_ALG_EDDSA
} stoa_alg_e;

typedef struct stoa_jwt_keys_s stoa_jwt_keys_t;

#define STOA_JWT_MAX  8192 /* bytes of a token */
#define STOA_JWT_KEYS 32   /* of one object */

/* *type of a token, by its typ */
#define STOA_JWT_PLAIN  0 /* JWT, or none */
#define STOA_JWT_ACCESS 1
#define STOA_JWT_DEVICE 2
#define STOA_JWT_OTHER  3

/* Bits of claims.roles and of stoa_endpoint_t.who; strength falls downward. */
/* clang-format off */
#define STOA_ROLES(X)                                                         \
    X(ADMIN, "admin") X(MODERATOR, "moderator") X(SUPPORT, "support")         \
    X(ORGANIZER, "organizer") X(PRACTITIONER, "practitioner")                 \
    X(WORKER, "worker") X(DRIVER, "driver") X(SCANNER, "scanner")             \
    X(MEMBER, "member")
/* clang-format on */

enum {
#define STOA_ROLE_NUMBER(name, text) STOA_ROLE_N_##name,
    STOA_ROLES(STOA_ROLE_NUMBER)
#undef STOA_ROLE_NUMBER
    STOA_ROLE_COUNT
};

typedef enum {
#define STOA_ROLE_BIT(name, text) STOA_##name = 1 << STOA_ROLE_N_##name,
    STOA_ROLES(STOA_ROLE_BIT)
#undef STOA_ROLE_BIT
    STOA_DEVICE = 1 << STOA_ROLE_COUNT,      /* paired scanner device */
    STOA_PUBLIC = 1 << (STOA_ROLE_COUNT + 1) /* anyone, no token needed */
} stoa_role_e;

/* How somebody signed in: names of RFC 8176, bits of claims.amr. */
/* clang-format off */
#define STOA_AMRS(X) X(PWD, "pwd") X(OTP, "otp") X(MFA, "mfa")
/* clang-format on */

enum {
#define STOA_AMR_NUMBER(name, text) STOA_AMR_N_##name,
    STOA_AMRS(STOA_AMR_NUMBER)
#undef STOA_AMR_NUMBER
    STOA_AMR_COUNT
};

typedef enum {
#define STOA_AMR_BIT(name, text) STOA_AMR_##name = 1 << STOA_AMR_N_##name,
    STOA_AMRS(STOA_AMR_BIT)
#undef STOA_AMR_BIT
} stoa_amr_e;

typedef struct {
    stoa_uuid_t sub;
    stoa_uuid_t sid;   /* session; of a device token: the device */
    stoa_uuid_t event; /* device tokens only ("evt") */
    stoa_uuid_t jti;
    int64_t     iat; /* seconds */
    int64_t     exp;
    int64_t     auth_time; /* when amr was shown; 0: not said */
    uint32_t    epoch;     /* "ep" */
    uint32_t    roles; /* STOA_* bits; STOA_DEVICE for typ stoa-device+jwt */
    uint32_t    amr;   /* STOA_AMR_* bits; 0: not said */
    bool        mfa;   /* the account has a second factor */
    stoa_uuid_t act;   /* who acts as sub (RFC 8693 4.1); sid is then his */
    uint32_t    act_epoch;
    bool        acting; /* there is such a one */
} stoa_claims_t;

/* Claims that other applications look for, in access tokens by request;
   nothing here reads them. */
#define STOA_EXTRA_EMAIL   1
#define STOA_EXTRA_ROLE    2 /* the strongest */
#define STOA_EXTRA_USER_ID 4 /* sub once more */

typedef struct {
    const char *issuer;
    const char *audience;
    uint32_t    leeway_s; /* 0..300 */
    uint32_t    extra;    /* STOA_EXTRA_*, of what is signed */
} stoa_jwt_rules_t;

stoa_jwt_keys_t *stoa_jwt_keys_create(void);
void             stoa_jwt_keys_destroy(stoa_jwt_keys_t *keys); /* wipes */

/* HS256: key bytes, 32 at least.  RS256, PS256 (2048 bits at least), ES256
   (P-256), EdDSA (Ed25519): PEM, public or private.  sign: used by
   stoa_jwt_sign().  *why is static. */
stoa_err_e stoa_jwt_keys_add(stoa_jwt_keys_t *keys, stoa_alg_e alg,
                             stoa_str_t kid, stoa_str_t key, bool sign,
                             const char **why) STOA_MUSTCHECK;

/*
 * Keys of a JWK Set (RFC 7517), for verification only: each with kty (oct,
 * RSA, EC with P-256, OKP with Ed25519), kid and the one alg that it serves;
 * what is private in one is not read.  After a failure, with *why (static),
 * the object is of no use.
 */
stoa_err_e stoa_jwks_add(stoa_jwt_keys_t *keys, stoa_str_t json,
                         const char **why) STOA_MUSTCHECK;

/*
 * The keys of somebody else's set that are of use here: public ones, for
 * signatures, of an algorithm that is known.  One that names no algorithm has
 * that of its kty (RSA: RS256).  Others are passed over; a kid that two of
 * them have, more than STOA_JWT_KEYS of them, or none at all refuse the set.
 * NULL: *why (static).
 */
stoa_jwt_keys_t *stoa_jwks_of_others(stoa_str_t json, const char **why);

/* The public keys as a JWK Set; of HS256 keys nothing. */
bool stoa_jwks_print(const stoa_jwt_keys_t *keys, stoa_buf_t *b);

/*
 * Keys as JWT_ALG and the settings beside it name them: one that signs, and
 * those of JWT_VERIFY_KEYS.  NULL: *setting is the one that is wrong, *why
 * says how; both static.
 */
stoa_jwt_keys_t *stoa_jwt_keys_conf(const stoa_conf_t *conf,
                                    const char **setting, const char **why);

/* UNAUTHENTICATED or TOKEN_EXPIRED; *why (static) is for the log only. */
stoa_err_e stoa_jwt_verify(stoa_jwt_keys_t *keys, const stoa_jwt_rules_t *rules,
                           stoa_str_t token, int64_t now_ms,
                           stoa_claims_t *claims,
                           const char   **why) STOA_MUSTCHECK;

/*
 * The signature alone: structure, header (alg of the key that kid names, one
 * key without kid is enough, no crit), signature.  *type: STOA_JWT_*.  The
 * payload is decoded into out (STOA_JWT_MAX).  UNAUTHENTICATED otherwise;
 * *why is stoa_jwt_no_kid when no key is named so.  Not re-entrant per keys
 * object.
 */
extern const char stoa_jwt_no_kid[];

stoa_err_e stoa_jws_open(stoa_jwt_keys_t *keys, stoa_str_t token,
                         unsigned char *out, stoa_str_t *payload,
                         unsigned *type, const char **why) STOA_MUSTCHECK;

/* Access or device token from claims with the signing key (OpenSSL); email:
   for STOA_EXTRA_EMAIL, may be empty. */
stoa_err_e stoa_jwt_sign(stoa_jwt_keys_t *keys, const stoa_jwt_rules_t *rules,
                         const stoa_claims_t *claims, stoa_str_t email,
                         stoa_buf_t *out) STOA_MUSTCHECK;

/* The claims of such a token as JSON, for it and for libjwt. */
void stoa_jwt_claims(stoa_buf_t *b, const stoa_jwt_rules_t *rules,
                     const stoa_claims_t *claims, stoa_str_t email);

/* The set that JWT_EXTRA_CLAIMS names; false: a name is not known. */
bool stoa_jwt_extra(const char *names, uint32_t *extra);

/*
 * A token signed by libjwt, with a key as in _keys_add(): for services of
 * others and as a cross-check, not for the request path (it parses the key
 * each time).  typ is "JWT", libjwt 1.10 writes no other, so stoa_jws_open()
 * reads it and stoa_jwt_verify() refuses it.
 */
stoa_err_e stoa_jwt_mint(stoa_alg_e alg, const char *kid, stoa_str_t key,
                         const char *claims_json,
                         stoa_buf_t *out) STOA_MUSTCHECK;

/*
 * Refresh token: base64url of version 1, session id 16, counter 8 (network
 * order), HMAC-SHA-256 of these cut to 16.  Garbage is refused without a
 * query.
 */
#define STOA_REFRESH_LEN stoa_base64url_len(1 + 16 + 8 + 16)

bool stoa_refresh_make(stoa_str_t secret, const stoa_uuid_t *sid,
                       uint64_t counter, stoa_buf_t *out);
bool stoa_refresh_open(stoa_str_t secret, stoa_str_t token, stoa_uuid_t *sid,
                       uint64_t *counter);

const char *stoa_role_name(uint32_t bit);       /* one bit */
uint32_t    stoa_role_by_name(stoa_str_t name); /* 0: unknown */
/* "{admin,member}" of PostgreSQL to bits and back. */
uint32_t stoa_roles_parse(stoa_str_t pg_array);
void     stoa_roles_print(stoa_buf_t *b, uint32_t roles);

const char *stoa_amr_name(uint32_t bit);       /* one bit */
uint32_t    stoa_amr_by_name(stoa_str_t name); /* 0: unknown */
uint32_t    stoa_amr_parse(stoa_str_t pg_array);

#endif /* STOA_JWT_H_INCLUDED */
