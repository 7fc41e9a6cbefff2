/*
 * What issuers say: their documents and their tokens.  Everything is read by
 * the strict parser, compared byte by byte, and bounded; nothing that a token
 * says is used before its signature is verified, but for the name of its
 * issuer, which only chooses whose keys are asked.
 */

#include "stoa_oidc.h"
#include "stoa_hmac.h"
#include "stoa_scalar.h"
#include "stoa_str.h"

#include <ctype.h>

#define STOA_OIDC_SKEW_S 60 /* beyond the leeway, for iat alone */
#define STOA_OIDC_AHEAD  253402300799LL


/* ---- addresses ---- */

/* A name or an address, and a port: no user, and nothing that one reader of
   addresses takes for the end of the host and another does not. */
static bool
stoa_oidc_host(const char *host)
{
    size_t i, len = strcspn(host, "/?");

    for (i = 0; i < len; i++) {
        if (!isalnum((unsigned char) host[i])
            && strchr(".-_:[]", host[i]) == NULL) {
            return false;
        }
    }

    return len != 0 && host[0] != ':';
}


bool
stoa_oidc_url(const char *url, bool plain)
{
    size_t      i, len = strlen(url);
    const char *host;

    host = plain && strncmp(url, "http://", 7) == 0 ? url + 7
         : strncmp(url, "https://", 8) == 0         ? url + 8
                                                    : NULL;

    if (host == NULL || len > STOA_OIDC_URL || !stoa_oidc_host(host)) {
        return false;
    }

    for (i = 0; i < len; i++) {
        if (url[i] <= ' ' || url[i] > '~' || strchr("\"<>\\^`{|}#;", url[i])) {
            return false;
        }
    }

    return true;
}


bool
stoa_oidc_doc_url(const char *issuer, stoa_buf_t *out)
{
    size_t len = strlen(issuer);

    if (len != 0 && issuer[len - 1] == '/') {
        len--;
    }

    stoa_buf_put(out, issuer, len);
    stoa_buf_z(out, "/.well-known/openid-configuration");
    stoa_buf_nul(out);

    return !out->failed;
}


/* ---- JSON ---- */

/* A text member; null string: it is missing or no text. */
static stoa_str_t
stoa_oidc_text(const stoa_json_t *json, const char *name)
{
    stoa_str_t         none = stoa_null_string;
    const stoa_json_t *v = stoa_json_get(json, name);

    return v != NULL && stoa_json_type(v) == STOA_JSON_STRING ? stoa_json_str(v)
                                                              : none;
}


/* Whole seconds of a NumericDate (RFC 7519 2); false: it is none. */
static bool
stoa_oidc_time(const stoa_json_t *json, const char *name, int64_t *out)
{
    double             real;
    const stoa_json_t *v = stoa_json_get(json, name);

    if (v == NULL) {
        return false;
    }

    if (stoa_json_type(v) == STOA_JSON_INT) {
        *out = stoa_json_int(v);

    } else if (stoa_json_type(v) == STOA_JSON_REAL) {
        real = stoa_json_real(v);

        if (!(real >= 0 && real <= (double) STOA_OIDC_AHEAD)) {
            return false;
        }

        *out = (int64_t) real;

    } else {
        return false;
    }

    return *out >= 0 && *out <= STOA_OIDC_AHEAD;
}


/* ---- what an issuer says of itself ---- */

/* A member that is such an address, with a NUL behind it; NULL: it is none. */
static const char *
stoa_oidc_doc_member(stoa_mem_t *mem, const stoa_json_t *json, const char *name,
                     bool plain)
{
    stoa_str_t  text = stoa_oidc_text(json, name);
    const char *url;

    url = text.len != 0 && text.len <= STOA_OIDC_URL ? stoa_strdup_z(mem, text)
                                                     : NULL;

    return url != NULL && stoa_oidc_url(url, plain) ? url : NULL;
}


static bool
stoa_oidc_true(const stoa_json_t *json, const char *name)
{
    const stoa_json_t *v = stoa_json_get(json, name);

    return v != NULL && stoa_json_type(v) == STOA_JSON_BOOL
        && stoa_json_bool(v);
}


/* Without a list it is client_secret_basic (Discovery 3). */
static void
stoa_oidc_doc_auth(const stoa_json_t *json, stoa_oidc_doc_t *doc)
{
    size_t             i;
    const stoa_json_t *item, *v;

    v = stoa_json_get(json, "token_endpoint_auth_methods_supported");

    if (v == NULL || stoa_json_type(v) != STOA_JSON_ARRAY) {
        doc->basic = true;
        return;
    }

    for (i = 0; i < stoa_json_count(v); i++) {
        item = stoa_json_at(v, i);

        if (stoa_json_type(item) == STOA_JSON_STRING) {
            doc->basic = doc->basic
                      || stoa_str_eq_z(stoa_json_str(item),
                                       "client_secret_basic");
            doc->post = doc->post
                     || stoa_str_eq_z(stoa_json_str(item),
                                      "client_secret_post");
        }
    }
}


bool
stoa_oidc_doc(stoa_mem_t *mem, const char *issuer, bool plain, stoa_str_t text,
              stoa_oidc_doc_t *doc, const char **why)
{
    stoa_json_t      *json;
    stoa_json_fault_t fault;

    memset(doc, 0, sizeof(stoa_oidc_doc_t));
    json = stoa_json_parse(mem, text, &fault);

    if (json == NULL || stoa_json_type(json) != STOA_JSON_OBJECT) {
        *why = "its document is no JSON object";
        return false;
    }

    if (!stoa_str_eq_z(stoa_oidc_text(json, "issuer"), issuer)) {
        *why = "its document names another issuer";
        return false;
    }

    doc->jwks_uri = stoa_oidc_doc_member(mem, json, "jwks_uri", plain);

    if (doc->jwks_uri == NULL) {
        *why = "its document has no jwks_uri that can be used";
        return false;
    }

    doc->authorization = stoa_oidc_doc_member(mem, json,
                                              "authorization_endpoint", plain);
    doc->token = stoa_oidc_doc_member(mem, json, "token_endpoint", plain);
    doc->userinfo = stoa_oidc_doc_member(mem, json, "userinfo_endpoint", plain);
    doc->iss_parameter =
        stoa_oidc_true(json, "authorization_response_iss_parameter_supported");
    stoa_oidc_doc_auth(json, doc);

    return true;
}


/* ---- tokens ---- */

static stoa_err_e
stoa_oidc_refuse(const char **why, const char *sentence)
{
    *why = sentence;

    return STOA_E_UNAUTHENTICATED;
}


/* The n-th part (of a compact JWS: 0 the header, 1 the payload) as an object,
   in mem; NULL: there is none.  Nothing is verified here. */
static stoa_json_t *
stoa_oidc_part(stoa_mem_t *mem, stoa_str_t token, unsigned nth)
{
    unsigned char    *dot, *room;
    stoa_json_t      *json;
    stoa_json_fault_t fault;
    stoa_str_t        part = token;
    ssize_t           n;

    if (token.len > STOA_JWT_MAX) {
        return NULL;
    }

    for (;; nth--) {
        dot = part.len != 0 ? memchr(part.data, '.', part.len) : NULL;

        if (dot == NULL) {
            return NULL;
        }

        if (nth == 0) {
            break;
        }

        part.len -= (size_t) (dot + 1 - part.data);
        part.data = dot + 1;
    }

    part.len = (size_t) (dot - part.data);
    room = stoa_alloc(mem, part.len + 1);
    n = room != NULL ? stoa_base64url_decode(room, part.len + 1, part) : -1;

    if (n < 0) {
        return NULL;
    }

    part.data = room;
    part.len = (size_t) n;
    json = stoa_json_parse(mem, part, &fault);

    return json != NULL && stoa_json_type(json) == STOA_JSON_OBJECT ? json
                                                                    : NULL;
}


bool
stoa_oidc_issuer_of(stoa_mem_t *mem, stoa_str_t token, stoa_str_t *issuer)
{
    stoa_json_t *json = stoa_oidc_part(mem, token, 1);

    if (json == NULL) {
        return false;
    }

    *issuer = stoa_oidc_text(json, "iss");

    return issuer->len != 0;
}


static bool
stoa_oidc_one_of(stoa_str_t text, const stoa_oidc_rules_t *rules)
{
    size_t i;

    for (i = 0; i < rules->naudiences; i++) {
        if (stoa_str_eq_z(text, rules->audiences[i])) {
            return true;
        }
    }

    return false;
}


/* One text, or a list of texts, that has one of ours. */
static bool
stoa_oidc_audience(const stoa_json_t *json, const stoa_oidc_rules_t *rules)
{
    size_t             i;
    bool               found = false;
    const stoa_json_t *item, *v = stoa_json_get(json, "aud");

    if (v == NULL) {
        return false;
    }

    if (stoa_json_type(v) == STOA_JSON_STRING) {
        return stoa_oidc_one_of(stoa_json_str(v), rules);
    }

    for (i = 0; stoa_json_type(v) == STOA_JSON_ARRAY && i < stoa_json_count(v);
         i++) {
        item = stoa_json_at(v, i);

        if (stoa_json_type(item) != STOA_JSON_STRING) {
            return false;
        }

        found = found || stoa_oidc_one_of(stoa_json_str(item), rules);
    }

    return found;
}


/* ASCII without controls: what tables, logs and people can hold. */
static bool
stoa_oidc_subject(stoa_str_t sub)
{
    size_t i;

    for (i = 0; i < sub.len; i++) {
        if (sub.data[i] < ' ' || sub.data[i] > '~') {
            return false;
        }
    }

    return sub.len != 0 && sub.len <= STOA_OIDC_SUBJECT;
}


/* What every token of an issuer is judged by. */
static stoa_err_e
stoa_oidc_open(stoa_jwt_keys_t *keys, const stoa_oidc_rules_t *rules,
               stoa_mem_t *mem, stoa_str_t token, int64_t now_ms,
               stoa_oidc_token_t *out, unsigned *type, const char **why)
{
    unsigned char    *room;
    stoa_str_t        payload;
    stoa_err_e        err;
    stoa_json_fault_t fault;
    int64_t           nbf = 0, now_s = now_ms / 1000;

    room = stoa_alloc(mem, STOA_JWT_MAX);
    *why = "no memory";

    if (room == NULL) {
        return STOA_E_NO_MEMORY;
    }

    err = stoa_jws_open(keys, token, room, &payload, type, why);

    if (err != STOA_OK) {
        return err;
    }

    out->json = stoa_json_parse(mem, payload, &fault);

    if (out->json == NULL || stoa_json_type(out->json) != STOA_JSON_OBJECT) {
        return stoa_oidc_refuse(why, "the payload is no strict JSON");
    }

    out->sub = stoa_oidc_text(out->json, "sub");

    if (!stoa_str_eq_z(stoa_oidc_text(out->json, "iss"), rules->issuer)) {
        return stoa_oidc_refuse(why, "iss is another");
    }

    if (!stoa_oidc_audience(out->json, rules)) {
        return stoa_oidc_refuse(why, "aud is another");
    }

    if (!stoa_oidc_subject(out->sub)
        || !stoa_oidc_time(out->json, "iat", &out->iat)
        || !stoa_oidc_time(out->json, "exp", &out->exp)
        || (stoa_json_get(out->json, "nbf") != NULL
            && !stoa_oidc_time(out->json, "nbf", &nbf)))
    {
        return stoa_oidc_refuse(why, "a claim is missing or not what it "
                                     "should be");
    }

    if (out->iat > now_s + rules->leeway_s + STOA_OIDC_SKEW_S
        || nbf > now_s + rules->leeway_s)
    {
        return stoa_oidc_refuse(why, "it is not valid yet");
    }

    if (now_s >= out->exp + rules->leeway_s) {
        *why = "it has expired";
        return STOA_E_TOKEN_EXPIRED;
    }

    return STOA_OK;
}


stoa_err_e
stoa_oidc_access(stoa_jwt_keys_t *keys, const stoa_oidc_rules_t *rules,
                 stoa_mem_t *mem, stoa_str_t token, int64_t now_ms,
                 stoa_oidc_token_t *out, const char **why)
{
    unsigned   type;
    stoa_err_e err;

    err = stoa_oidc_open(keys, rules, mem, token, now_ms, out, &type, why);

    if (err != STOA_OK) {
        return err;
    }

    if (type != STOA_JWT_ACCESS
        && (type != STOA_JWT_PLAIN || stoa_json_get(out->json, "nonce") != NULL
            || stoa_json_get(out->json, "at_hash") != NULL
            || stoa_json_get(out->json, "c_hash") != NULL))
    {
        return stoa_oidc_refuse(why, "it is no access token");
    }

    return STOA_OK;
}


/* ---- ID tokens ---- */

/* Core 3.1.3.7, 3 to 5; that one of ours is meant is known. */
static const char *
stoa_oidc_id_parties(const stoa_json_t *json, const stoa_oidc_rules_t *rules)
{
    size_t             i;
    const stoa_json_t *aud = stoa_json_get(json, "aud");
    const stoa_json_t *azp = stoa_json_get(json, "azp");

    if (azp != NULL
        && (stoa_json_type(azp) != STOA_JSON_STRING
            || !stoa_oidc_one_of(stoa_json_str(azp), rules)))
    {
        return "azp is another";
    }

    if (stoa_json_type(aud) != STOA_JSON_ARRAY) {
        return NULL;
    }

    for (i = 0; i < stoa_json_count(aud); i++) {
        if (!stoa_oidc_one_of(stoa_json_str(stoa_json_at(aud, i)), rules)) {
            return "aud names somebody else, too";
        }
    }

    return stoa_json_count(aud) > 1 && azp == NULL ? "azp is missing" : NULL;
}


static const char *
stoa_oidc_id_nonce(const stoa_json_t *json, const stoa_oidc_ask_t *ask)
{
    char          hex[2 * STOA_SHA256_LEN];
    unsigned char sum[STOA_SHA256_LEN];
    stoa_str_t    hashed = { sizeof(hex), (unsigned char *) hex };
    stoa_str_t    nonce = stoa_oidc_text(json, "nonce");

    if (ask->nonce.len == 0) {
        return stoa_json_get(json, "nonce") != NULL ? "nonce is not asked for"
                                                    : NULL;
    }

    if (stoa_str_same_secret(nonce, ask->nonce)) {
        return NULL;
    }

    if (ask->nonce_hashed && stoa_sha256(ask->nonce.data, ask->nonce.len, sum))
    {
        stoa_hex_encode(hex, sum, sizeof(sum));

        if (stoa_str_same_secret(nonce, hashed)) {
            return NULL;
        }
    }

    return "nonce is another";
}


/* The alg of a header that was verified. */
static bool
stoa_oidc_alg_is(stoa_mem_t *mem, stoa_str_t token, const char *alg)
{
    stoa_json_t *json = stoa_oidc_part(mem, token, 0);

    return json != NULL && stoa_str_eq_z(stoa_oidc_text(json, "alg"), alg);
}


/* The left half of the hash of the access token that came with it (Core
   3.1.3.6); that of EdDSA is SHA-512, its own hash. */
static const char *
stoa_oidc_id_at_hash(stoa_mem_t *mem, const stoa_json_t *json, stoa_str_t token,
                     stoa_str_t access_token)
{
    unsigned char sum[STOA_SHA512_LEN], text[stoa_base64url_len(32)];
    stoa_str_t    right = { 0, text }, said = stoa_oidc_text(json, "at_hash");
    size_t        half = STOA_SHA256_LEN / 2;
    bool          good;

    if (stoa_json_get(json, "at_hash") == NULL || access_token.len == 0) {
        return NULL;
    }

    if (stoa_oidc_alg_is(mem, token, "EdDSA")) {
        good = stoa_sha512(access_token.data, access_token.len, sum);
        half = STOA_SHA512_LEN / 2;

    } else {
        good = stoa_sha256(access_token.data, access_token.len, sum);
    }

    if (good) {
        right.len = stoa_base64url_encode(text, sum, half);
    }

    return good && stoa_str_eq(said, right) ? NULL : "at_hash is another";
}


static void
stoa_oidc_person(const stoa_json_t *json, stoa_oidc_person_t *out)
{
    out->email = stoa_oidc_text(json, "email");

    if (!stoa_scalar_is_email(out->email)) {
        out->email = (stoa_str_t) stoa_null_string;
    }

    /* some providers write it as a text */
    out->email_verified = out->email.len != 0
                       && (stoa_oidc_true(json, "email_verified")
                           || stoa_str_eq_z(stoa_oidc_text(json,
                                                           "email_verified"),
                                            "true"));

    out->first_name = stoa_oidc_text(json, "given_name");
    out->last_name = stoa_oidc_text(json, "family_name");

    if (out->first_name.len == 0 && out->last_name.len == 0) {
        out->first_name = stoa_oidc_text(json, "name");
    }
}


stoa_err_e
stoa_oidc_id(stoa_jwt_keys_t *keys, const stoa_oidc_rules_t *rules,
             stoa_mem_t *mem, stoa_str_t token, int64_t now_ms,
             const stoa_oidc_ask_t *ask, stoa_oidc_person_t *out,
             const char **why)
{
    unsigned    type;
    const char *bad;
    stoa_err_e  err;

    memset(out, 0, sizeof(stoa_oidc_person_t));
    err = stoa_oidc_open(keys, rules, mem, token, now_ms, &out->token, &type,
                         why);

    if (err != STOA_OK) {
        return err;
    }

    bad = type != STOA_JWT_PLAIN ? "it is no ID token" : NULL;

    if (bad == NULL) {
        bad = stoa_oidc_id_parties(out->token.json, rules);
    }

    if (bad == NULL) {
        bad = stoa_oidc_id_nonce(out->token.json, ask);
    }

    if (bad == NULL) {
        bad = stoa_oidc_id_at_hash(mem, out->token.json, token,
                                   ask->access_token);
    }

    if (bad != NULL) {
        return stoa_oidc_refuse(why, bad);
    }

    stoa_oidc_person(out->token.json, out);

    return STOA_OK;
}


bool
stoa_oidc_userinfo(stoa_mem_t *mem, stoa_str_t text, stoa_oidc_person_t *person,
                   const char **why)
{
    stoa_json_t      *json;
    stoa_json_fault_t fault;

    json = stoa_json_parse(mem, text, &fault);

    if (json == NULL || stoa_json_type(json) != STOA_JSON_OBJECT) {
        *why = "userinfo is no JSON object";
        return false;
    }

    /* lint: allow secret, because a subject is none */
    if (!stoa_str_eq(stoa_oidc_text(json, "sub"), person->token.sub)) {
        *why = "userinfo is about another";
        return false;
    }

    stoa_oidc_person(json, person);

    return true;
}
