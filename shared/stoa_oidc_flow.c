/*
 * A sign-in by a browser, as far as it is text: what the browser keeps of it,
 * where it is sent, how the code that it brings back is exchanged, and which
 * page may come afterwards.
 *
 * State is random; the nonce and the verifier of PKCE are MACs of it, so that
 * neither is stored anywhere or ever leaves this machine before its time.
 * The cookie binds all of them to the browser that began: whoever brings a
 * state without its cookie began elsewhere.
 */

#include "stoa_oidc.h"
#include "stoa_hmac.h"
#include "stoa_http.h"
#include "stoa_str.h"

#define STOA_OIDC_FLOW_VERSION  1
#define STOA_OIDC_FLOW_REMEMBER 1
#define STOA_OIDC_FLOW_LINK     2
#define STOA_OIDC_FLOW_MAC      16
#define STOA_OIDC_FLOW_HEAD     (2 + 8 + STOA_OIDC_STATE + 32)


/* ---- what the browser keeps ---- */

static bool
stoa_oidc_flow_mac(stoa_str_t secret, const unsigned char *data, size_t len,
                   unsigned char out[STOA_SHA256_LEN])
{
    const stoa_str_t parts[] = {
        stoa_str_z("cookie"),
        { len, (unsigned char *) (uintptr_t) data },
    };

    return stoa_hmac_sha256_parts(secret, parts, stoa_nitems(parts), out);
}


static unsigned char *
stoa_oidc_put(unsigned char *p, const void *data, size_t len)
{
    if (len != 0) {
        memcpy(p, data, len);
    }

    return p + len;
}


bool
stoa_oidc_flow_seal(stoa_str_t secret, const stoa_oidc_flow_t *flow,
                    stoa_buf_t *out)
{
    unsigned char room[STOA_OIDC_FLOW_HEAD + 1 + STOA_OIDC_NAME + 2
                       + STOA_OIDC_NEXT + STOA_OIDC_FLOW_MAC];
    unsigned char mac[STOA_SHA256_LEN], *p = room;
    int           i;

    if (flow->provider.len > STOA_OIDC_NAME || flow->next.len > STOA_OIDC_NEXT)
    {
        return false;
    }

    *p++ = STOA_OIDC_FLOW_VERSION;
    *p++ = (unsigned char) ((flow->remember ? STOA_OIDC_FLOW_REMEMBER : 0)
                            | (flow->link ? STOA_OIDC_FLOW_LINK : 0));

    for (i = 7; i >= 0; i--) {
        *p++ = (unsigned char) ((uint64_t) flow->until >> 8 * i);
    }

    p = stoa_oidc_put(p, flow->state, STOA_OIDC_STATE);
    p = stoa_oidc_put(p, flow->user.b, 16);
    p = stoa_oidc_put(p, flow->session.b, 16);
    *p++ = (unsigned char) flow->provider.len;
    p = stoa_oidc_put(p, flow->provider.data, flow->provider.len);
    *p++ = (unsigned char) (flow->next.len >> 8);
    *p++ = (unsigned char) flow->next.len;
    p = stoa_oidc_put(p, flow->next.data, flow->next.len);

    if (!stoa_oidc_flow_mac(secret, room, (size_t) (p - room), mac)) {
        return false;
    }

    p = stoa_oidc_put(p, mac, STOA_OIDC_FLOW_MAC);
    stoa_buf_base64url(out, room, (size_t) (p - room));

    return !out->failed;
}


bool
stoa_oidc_flow_open(stoa_str_t secret, stoa_str_t value, int64_t now_s,
                    stoa_mem_t *mem, stoa_oidc_flow_t *flow)
{
    unsigned char  mac[STOA_SHA256_LEN];
    unsigned char *room, *p, *end;
    stoa_str_t     said, right;
    uint64_t       until = 0;
    ssize_t        n;
    int            i;

    if (value.len > STOA_OIDC_COOKIE_MAX) {
        return false;
    }

    room = stoa_alloc(mem, STOA_OIDC_COOKIE_MAX);
    n = room != NULL ? stoa_base64url_decode(room, STOA_OIDC_COOKIE_MAX, value)
                     : -1;

    if (n < STOA_OIDC_FLOW_HEAD + 3 + STOA_OIDC_FLOW_MAC) {
        return false;
    }

    end = room + n - STOA_OIDC_FLOW_MAC;
    said.data = end;
    said.len = STOA_OIDC_FLOW_MAC;
    right.data = mac;
    right.len = STOA_OIDC_FLOW_MAC;

    if (!stoa_oidc_flow_mac(secret, room, (size_t) (end - room), mac)
        || !stoa_str_same_secret(said, right)
        || room[0] != STOA_OIDC_FLOW_VERSION)
    {
        return false;
    }

    /* from here on it is as it was sealed */

    memset(flow, 0, sizeof(stoa_oidc_flow_t));
    flow->remember = room[1] & STOA_OIDC_FLOW_REMEMBER;
    flow->link = room[1] & STOA_OIDC_FLOW_LINK;

    for (i = 0, p = room + 2; i < 8; i++) {
        until = until << 8 | *p++;
    }

    flow->until = (int64_t) until;
    memcpy(flow->state, p, STOA_OIDC_STATE);
    p += STOA_OIDC_STATE;
    memcpy(flow->user.b, p, 16);
    memcpy(flow->session.b, p + 16, 16);
    p += 32;
    flow->provider.len = *p++;
    flow->provider.data = p;
    p += flow->provider.len;
    flow->next.len = (size_t) p[0] << 8 | p[1];
    flow->next.data = p + 2;

    return flow->next.data + flow->next.len == end && now_s < flow->until;
}


/* ---- which page comes afterwards ---- */

/* What could lead elsewhere once it is decoded or shortened. */
static bool
stoa_oidc_next_odd(stoa_str_t path)
{
    static const char *const codes[] = { "%2f", "%5c", "%2e", "%25", "%00" };
    stoa_str_t               at;
    size_t                   i, k;

    for (i = 0; i < path.len && path.data[i] != '?'; i++) {
        if (path.data[i] == '/' && i + 1 < path.len
            && (path.data[i + 1] == '/' || path.data[i + 1] == '.'))
        {
            return true;
        }

        at.data = path.data + i;
        at.len = 3;

        for (k = 0; i + 3 <= path.len && k < stoa_nitems(codes); k++) {
            if (stoa_str_ieq_z(at, codes[k])) {
                return true;
            }
        }
    }

    return false;
}


bool
stoa_oidc_next(const char *allowed, stoa_str_t path)
{
    size_t i, len;

    if (path.len == 0 || path.len > STOA_OIDC_NEXT || path.data[0] != '/'
        || stoa_oidc_next_odd(path))
    {
        return false;
    }

    for (i = 0; i < path.len; i++) {
        if (path.data[i] <= ' ' || path.data[i] > '~'
            || strchr("\"<>\\^`{|}#", path.data[i]))
        {
            return false;
        }
    }

    for (allowed += strspn(allowed, " "); *allowed != '\0';
         allowed += len + strspn(allowed + len, " "))
    {
        len = strcspn(allowed, " ");

        if (path.len >= len && memcmp(path.data, allowed, len) == 0) {
            return true;
        }
    }

    return false;
}


/* ---- what is sent ---- */

/* MAC of the state, for one purpose, as text. */
static bool
stoa_oidc_derive(stoa_str_t secret, const stoa_oidc_flow_t *flow,
                 const char *purpose, unsigned char text[43])
{
    unsigned char    mac[STOA_SHA256_LEN];
    const stoa_str_t parts[] = {
        stoa_str_z(purpose),
        { STOA_OIDC_STATE, (unsigned char *) (uintptr_t) flow->state },
    };

    return stoa_hmac_sha256_parts(secret, parts, stoa_nitems(parts), mac)
        && stoa_base64url_encode(text, mac, sizeof(mac)) == 43;
}


bool
stoa_oidc_nonce(stoa_str_t secret, const stoa_oidc_flow_t *flow,
                stoa_buf_t *out)
{
    unsigned char text[43];

    if (!stoa_oidc_derive(secret, flow, "nonce", text)) {
        return false;
    }

    stoa_buf_put(out, text, sizeof(text));

    return !out->failed;
}


bool
stoa_oidc_authorize(stoa_str_t secret, const stoa_oidc_flow_t *flow,
                    const stoa_oidc_provider_t *provider,
                    const char *authorization, const char *redirect_uri,
                    stoa_buf_t *out)
{
    unsigned char state[STOA_OIDC_STATE_TEXT], nonce[43], verifier[43];
    unsigned char sum[STOA_SHA256_LEN], challenge[43];
    stoa_str_t    text;
    stoa_buf_t    query;

    if (!stoa_oidc_derive(secret, flow, "nonce", nonce)
        || !stoa_oidc_derive(secret, flow, "pkce", verifier)
        || !stoa_sha256(verifier, sizeof(verifier), sum))
    {
        return false;
    }

    stoa_buf_init(&query, out->mem, 512, 4096);
    stoa_http_form_add(&query, "response_type", stoa_str_z("code"));
    stoa_http_form_add(&query, "client_id", stoa_str_z(provider->audiences[0]));
    stoa_http_form_add(&query, "redirect_uri", stoa_str_z(redirect_uri));
    stoa_http_form_add(&query, "scope", stoa_str_z(provider->scope));

    text.data = state;
    text.len = stoa_base64url_encode(state, flow->state, STOA_OIDC_STATE);
    stoa_http_form_add(&query, "state", text);
    text.data = nonce;
    text.len = sizeof(nonce);
    stoa_http_form_add(&query, "nonce", text);
    text.data = challenge;
    text.len = stoa_base64url_encode(challenge, sum, sizeof(sum));
    stoa_http_form_add(&query, "code_challenge", text);
    stoa_http_form_add(&query, "code_challenge_method", stoa_str_z("S256"));

    stoa_buf_z(out, authorization);
    stoa_buf_char(out, strchr(authorization, '?') != NULL ? '&' : '?');
    stoa_buf_str(out, stoa_buf_view(&query));

    return !query.failed && !out->failed;
}


/* RFC 6749 2.3.1: both are encoded as in a form, and then as base64. */
static void
stoa_oidc_basic(const stoa_oidc_provider_t *provider, stoa_buf_t *header)
{
    stoa_buf_t     pair, value;
    unsigned char *text;
    size_t         i, n;

    stoa_buf_init(&pair, header->mem, 256, 4096);
    stoa_buf_init(&value, header->mem, 256, 4096);
    stoa_http_form_add(&value, "", stoa_str_z(provider->audiences[0]));
    stoa_buf_put(&pair, value.data + 1, value.len - 1); /* behind its "=" */
    stoa_buf_char(&pair, ':');
    value.len = 0;
    stoa_http_form_add(&value, "", stoa_str_z(provider->client_secret));
    stoa_buf_put(&pair, value.data + 1, value.len - 1);

    text = stoa_alloc(header->mem, stoa_base64url_len(pair.len) + 1);

    if (text == NULL || pair.failed || value.failed) {
        header->failed = true;
        return;
    }

    n = stoa_base64url_encode(text, pair.data, pair.len);
    stoa_buf_z(header, "Authorization: Basic ");

    for (i = 0; i < n; i++) {
        stoa_buf_char(header, text[i] == '-'   ? '+'
                              : text[i] == '_' ? '/'
                                               : (char) text[i]);
    }

    for (/* void */; i % 4 != 0; i++) {
        stoa_buf_char(header, '=');
    }

    stoa_buf_nul(header);
}


bool
stoa_oidc_exchange(stoa_str_t secret, const stoa_oidc_flow_t *flow,
                   const stoa_oidc_provider_t *provider,
                   const stoa_oidc_doc_t *doc, stoa_str_t code,
                   const char *redirect_uri, stoa_buf_t *body,
                   stoa_buf_t *header)
{
    unsigned char    verifier[43];
    stoa_str_t       text = { sizeof(verifier), verifier };
    stoa_oidc_auth_e auth = provider->auth;

    if (!stoa_oidc_derive(secret, flow, "pkce", verifier)) {
        return false;
    }

    if (provider->client_secret == NULL) {
        auth = STOA_OIDC_AUTH_NONE;

    } else if (auth == STOA_OIDC_AUTH_ANY) {
        auth = doc->post && !doc->basic ? STOA_OIDC_AUTH_POST
                                        : STOA_OIDC_AUTH_BASIC;
    }

    stoa_http_form_add(body, "grant_type", stoa_str_z("authorization_code"));
    stoa_http_form_add(body, "code", code);
    stoa_http_form_add(body, "redirect_uri", stoa_str_z(redirect_uri));
    stoa_http_form_add(body, "code_verifier", text);

    if (auth == STOA_OIDC_AUTH_BASIC) {
        stoa_oidc_basic(provider, header);

    } else {
        stoa_http_form_add(body, "client_id",
                           stoa_str_z(provider->audiences[0]));
    }

    if (auth == STOA_OIDC_AUTH_POST) {
        stoa_http_form_add(body, "client_secret",
                           stoa_str_z(provider->client_secret));
    }

    return !body->failed && !header->failed;
}
