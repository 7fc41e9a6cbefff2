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

#define STOA_OIDC_ISSUERS   16
#define STOA_OIDC_PROVIDERS 16
#define STOA_OIDC_AUDIENCES 8
#define STOA_OIDC_NAME      32  /* bytes of a provider's name */
#define STOA_OIDC_URL       512 /* of an address */
#define STOA_OIDC_SUBJECT   255 /* of a sub, OpenID Connect Core 2 */

typedef struct {
    const char *issuer;   /* compared byte by byte */
    const char *jwks_uri; /* NULL: found by discovery */
    const char *audience; /* of its access tokens; NULL: they are not taken */
} stoa_oidc_issuer_t;

/* How a client proves itself at the token endpoint (Core 9). */
typedef enum {
    STOA_OIDC_AUTH_ANY = 0, /* as the provider's document says */
    STOA_OIDC_AUTH_BASIC,
    STOA_OIDC_AUTH_POST,
    STOA_OIDC_AUTH_NONE
} stoa_oidc_auth_e;

/* With whom one can sign in. */
typedef struct {
    const char      *name;  /* in paths: a-z, 0-9, -, begins with a letter */
    const char      *title; /* on buttons */
    const char      *issuer;
    const char      *client_secret; /* NULL: there is none */
    const char      *scope;
    stoa_oidc_auth_e auth;
    const char      *audiences[STOA_OIDC_AUDIENCES]; /* the client id first,
                                          then those of native applications */
    size_t           naudiences;
} stoa_oidc_provider_t;

typedef struct {
    bool                 plain; /* http is fine */
    size_t               nissuers;
    stoa_oidc_issuer_t   issuers[STOA_OIDC_ISSUERS];
    size_t               nproviders;
    stoa_oidc_provider_t providers[STOA_OIDC_PROVIDERS];
} stoa_oidc_conf_t;

/*
 * What the settings name, in mem, which needs no on_free(); secrets of clients
 * as well.  NULL: *why, in mem, is one sentence.
 */
const stoa_oidc_conf_t *stoa_oidc_conf(const stoa_conf_t *conf, stoa_mem_t *mem,
                                       const char **why);

/* NULL: there is no provider of this name. */
const stoa_oidc_provider_t *stoa_oidc_provider(const stoa_oidc_conf_t *conf,
                                               stoa_str_t              name);

/* What an issuer says of itself. */
typedef struct {
    const char *jwks_uri;
    const char *authorization; /* NULL: nobody can sign in with it */
    const char *token;
    const char *userinfo;      /* NULL: its ID tokens say all */
    bool        iss_parameter; /* its answers carry iss (RFC 9207) */
    bool        basic, post;   /* how clients may prove themselves */
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

/* What an ID token has to be, beside the rules. */
typedef struct {
    stoa_str_t nonce;        /* sent to the issuer, or by it without one */
    bool       nonce_hashed; /* its SHA-256 in hex is fine as well */
    stoa_str_t access_token; /* that came with it, for at_hash; may be empty */
} stoa_oidc_ask_t;

/* Whom it is about; texts are empty when it does not say. */
typedef struct {
    stoa_oidc_token_t token;
    stoa_str_t        email;
    bool              email_verified;
    stoa_str_t        first_name, last_name;
} stoa_oidc_person_t;

/*
 * An ID token (Core 3.1.3.7): every aud is one of ours, azp is too and is
 * there when there are several, nonce as asked, at_hash where it is and can
 * be compared.  Errors as those of stoa_oidc_access().
 */
stoa_err_e stoa_oidc_id(stoa_jwt_keys_t *keys, const stoa_oidc_rules_t *rules,
                        stoa_mem_t *mem, stoa_str_t token, int64_t now_ms,
                        const stoa_oidc_ask_t *ask, stoa_oidc_person_t *out,
                        const char **why) STOA_MUSTCHECK;

/* What the userinfo endpoint adds for a person whose ID token says no address
   (Core 5.3); false: it speaks of another, or not at all. */
bool stoa_oidc_userinfo(stoa_mem_t *mem, stoa_str_t text,
                        stoa_oidc_person_t *person, const char **why);

/* ---- signing in by a browser (stoa_oidc_flow.c) ---- */

#define STOA_OIDC_FLOW_S     600 /* life of a flow */
#define STOA_OIDC_STATE      16  /* bytes */
#define STOA_OIDC_STATE_TEXT stoa_base64url_len(STOA_OIDC_STATE)
#define STOA_OIDC_NEXT       300 /* bytes of a path */
#define STOA_OIDC_COOKIE_MAX 1024

/* What the browser keeps of a flow, sealed; one cookie for each. */
typedef struct {
    unsigned char state[STOA_OIDC_STATE];
    int64_t       until; /* seconds */
    bool          remember;
    bool          link; /* to the account below, whose session it is */
    stoa_uuid_t   user, session;
    stoa_str_t    provider; /* its name */
    stoa_str_t    next;     /* path of the page that comes afterwards */
} stoa_oidc_flow_t;

/* A cookie's value; false: no memory, or a text that is too long. */
bool stoa_oidc_flow_seal(stoa_str_t secret, const stoa_oidc_flow_t *flow,
                         stoa_buf_t *out);
/* false: it is not ours, or over; texts are in mem. */
bool stoa_oidc_flow_open(stoa_str_t secret, stoa_str_t value, int64_t now_s,
                         stoa_mem_t *mem, stoa_oidc_flow_t *flow);

/* A path of these pages: "/events/ /account/" name what it begins with. */
bool stoa_oidc_next(const char *allowed, stoa_str_t path);

/* Where the browser goes (Core 3.1.2.1): state, nonce and the challenge of
   PKCE (RFC 7636) come from the flow and the secret. */
bool stoa_oidc_authorize(stoa_str_t secret, const stoa_oidc_flow_t *flow,
                         const stoa_oidc_provider_t *provider,
                         const char *authorization, const char *redirect_uri,
                         stoa_buf_t *out);

/* The nonce of a flow: 43 characters. */
bool stoa_oidc_nonce(stoa_str_t secret, const stoa_oidc_flow_t *flow,
                     stoa_buf_t *out);

/* The body that exchanges a code, and the header that proves the client; an
   empty header: it proves itself in the body, or not at all. */
bool stoa_oidc_exchange(stoa_str_t secret, const stoa_oidc_flow_t *flow,
                        const stoa_oidc_provider_t *provider,
                        const stoa_oidc_doc_t *doc, stoa_str_t code,
                        const char *redirect_uri, stoa_buf_t *body,
                        stoa_buf_t *header);

#endif /* STOA_OIDC_H_INCLUDED */
