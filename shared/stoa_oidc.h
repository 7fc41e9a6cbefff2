/*
 * Issuers that others run: which of them the settings trust, what they say of
 * themselves (OpenID Connect Discovery 1.0), and what their tokens say
 * (RFC 9068, OpenID Connect Core 1.0).  Pure; their keys are fetched and kept
 * by stoa_issuer.c.
 */

#ifndef STOA_OIDC_H_INCLUDED
#define STOA_OIDC_H_INCLUDED

#include "stoa_conf.h"
#include "stoa_json.h"
#include "stoa_jwt.h"

#define STOA_OIDC_ISSUERS 16
#define STOA_OIDC_URL     512 /* bytes of an address */
#define STOA_OIDC_SUBJECT 255 /* of a sub, OpenID Connect Core 2 */

typedef struct {
    const char *issuer;   /* compared byte by byte */
    const char *jwks_uri; /* NULL: found by discovery */
    const char *audience; /* of its access tokens; NULL: they are not taken */
} stoa_oidc_issuer_t;

typedef struct {
    bool               plain; /* http is fine */
    size_t             nissuers;
    stoa_oidc_issuer_t issuers[STOA_OIDC_ISSUERS];
} stoa_oidc_conf_t;

/* What the settings name, in mem; NULL: *why, in mem, is one sentence. */
const stoa_oidc_conf_t *stoa_oidc_conf(const stoa_conf_t *conf, stoa_mem_t *mem,
                                       const char **why);

/* What an issuer says of itself. */
typedef struct {
    const char *jwks_uri;
} stoa_oidc_doc_t;

/* The address of that: without the issuer's last slash (Discovery 4). */
bool stoa_oidc_doc_url(const char *issuer, stoa_buf_t *out);

/* Refused unless it names this very issuer (Discovery 4.3).  Texts are in
   mem.  false: *why (static). */
bool stoa_oidc_doc(stoa_mem_t *mem, const char *issuer, bool plain,
                   stoa_str_t json, stoa_oidc_doc_t *doc, const char **why);

/* An absolute address without user, fragment or anything to be escaped. */
bool stoa_oidc_url(const char *url, bool plain);

/* ---- tokens ---- */

typedef struct {
    const char        *issuer;
    const char *const *audiences; /* one of them must be meant */
    size_t             naudiences;
    uint32_t           leeway_s;
} stoa_oidc_rules_t;

typedef struct {
    stoa_json_t *json; /* every claim, in mem */
    stoa_str_t   sub;
    int64_t      iat; /* seconds */
    int64_t      exp;
} stoa_oidc_token_t;

/* Who made it, if it says the truth; false: it is no token. */
bool stoa_oidc_issuer_of(stoa_mem_t *mem, stoa_str_t token, stoa_str_t *issuer);

/*
 * An access token of another issuer: signature by one of its own keys, typ
 * at+jwt, JWT or none, iss, aud, sub, iat, exp, and no sign of being an ID
 * token, which is for a client and not for us (RFC 9068 4, RFC 8725 3.12).
 * UNAUTHENTICATED, TOKEN_EXPIRED or NO_MEMORY; *why is static, as that of
 * stoa_jws_open().
 */
stoa_err_e stoa_oidc_access(stoa_jwt_keys_t         *keys,
                            const stoa_oidc_rules_t *rules, stoa_mem_t *mem,
                            stoa_str_t token, int64_t now_ms,
                            stoa_oidc_token_t *out,
                            const char       **why) STOA_MUSTCHECK;

#endif /* STOA_OIDC_H_INCLUDED */
