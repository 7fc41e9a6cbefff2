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

#define STOA_JWT_MAX 4096 /* bytes of a token */

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

typedef struct {
    stoa_uuid_t sub;
    stoa_uuid_t sid;   /* session; of a device token: the device */
    stoa_uuid_t event; /* device tokens only ("evt") */
    stoa_uuid_t jti;
    int64_t     iat; /* seconds */
    int64_t     exp;
    uint32_t    epoch; /* "ep" */
    uint32_t    roles; /* STOA_* bits; STOA_DEVICE for typ stoa-device+jwt */
    stoa_uuid_t act;   /* who acts as sub (RFC 8693 4.1); sid is then his */
    uint32_t    act_epoch;
    bool        acting; /* there is such a one */
} stoa_claims_t;

typedef struct {
    const char *issuer;
    const char *audience;
    uint32_t    leeway_s; /* 0..300 */
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
 * key without kid is enough, no crit), signature.  *type: 0, or 1 for at+jwt,
 * 2 for stoa-device+jwt.  The payload is decoded into out (STOA_JWT_MAX).
 * UNAUTHENTICATED otherwise.  Not re-entrant per keys object.
 */
stoa_err_e stoa_jws_open(stoa_jwt_keys_t *keys, stoa_str_t token,
                         unsigned char *out, stoa_str_t *payload,
                         unsigned *type, const char **why) STOA_MUSTCHECK;

/* Access or device token from claims with the signing key (OpenSSL). */
stoa_err_e stoa_jwt_sign(stoa_jwt_keys_t *keys, const stoa_jwt_rules_t *rules,
                         const stoa_claims_t *claims,
                         stoa_buf_t          *out) STOA_MUSTCHECK;

/* The claims of such a token as JSON, for it and for libjwt. */
void stoa_jwt_claims(stoa_buf_t *b, const stoa_jwt_rules_t *rules,
                     const stoa_claims_t *claims);

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

#endif /* STOA_JWT_H_INCLUDED */
