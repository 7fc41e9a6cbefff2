/*
 * The settings of stoa_oidc.h: JWT_ISSUERS is a list of issuers with spaces
 * or lines between them, each "https://idp.example", with ";aud=" and
 * ";jwks=" behind it where the defaults do not fit.  OIDC_PROVIDERS is a list
 * of JSON objects; GOOGLE_CLIENT_ID is one of them in short.
 *
 * Everything is read in place and copied into the caller's memory alone, since
 * there are secrets in it.
 */

#include "stoa_oidc.h"
#include "stoa_str.h"

#include <stdio.h>


static const char *
stoa_oidc_complain(stoa_mem_t *mem, const char *setting, const char *what,
                   const char *value)
{
    char        text[256];
    const char *copy;

    (void) snprintf(text, sizeof(text), "%s: %s%s%.120s%s", setting, what,
                    value != NULL ? " \"" : "", value != NULL ? value : "",
                    value != NULL ? "\"" : "");
    copy = stoa_strdup_z(mem, stoa_str_z(text));

    return copy != NULL ? copy : "no memory";
}


/* The issuer of this name, made when it is not there; NULL: no room. */
static stoa_oidc_issuer_t *
stoa_oidc_conf_issuer(stoa_oidc_conf_t *out, const char *issuer)
{
    size_t i;

    for (i = 0; i < out->nissuers; i++) {
        if (strcmp(out->issuers[i].issuer, issuer) == 0) {
            return &out->issuers[i];
        }
    }

    if (out->nissuers == STOA_OIDC_ISSUERS) {
        return NULL;
    }

    out->issuers[out->nissuers].issuer = issuer;

    return &out->issuers[out->nissuers++];
}


/* "https://idp.example;aud=api;jwks=https://idp.example/keys", cut in place. */
static const char *
stoa_oidc_conf_entry(stoa_oidc_conf_t *out, const stoa_conf_t *conf,
                     stoa_mem_t *mem, char *entry)
{
    char               *part, *next;
    const char         *audience = NULL, *jwks_uri = NULL;
    stoa_oidc_issuer_t *is;

    for (part = strchr(entry, ';'); part != NULL; part = next) {
        *part++ = '\0';
        next = strchr(part, ';');

        if (next != NULL) {
            *next = '\0';
        }

        if (strncmp(part, "aud=", 4) == 0 && part[4] != '\0') {
            audience = part + 4;

        } else if (strncmp(part, "jwks=", 5) == 0
                   && stoa_oidc_url(part + 5, out->plain))
        {
            jwks_uri = part + 5;

        } else {
            return stoa_oidc_complain(mem, "JWT_ISSUERS",
                                      "neither aud=... nor jwks=https://...:",
                                      part);
        }
    }

    if (!stoa_oidc_url(entry, out->plain) || strchr(entry, '?') != NULL) {
        return stoa_oidc_complain(mem, "JWT_ISSUERS",
                                  "an issuer is https://..., not", entry);
    }

    if (strcmp(entry, conf->jwt_issuer) == 0) {
        return stoa_oidc_complain(mem, "JWT_ISSUERS",
                                  "this is JWT_ISSUER, one's own:", entry);
    }

    is = stoa_oidc_conf_issuer(out, entry);

    if (is == NULL || is->audience != NULL) {
        return stoa_oidc_complain(mem, "JWT_ISSUERS",
                                  is == NULL ? "too many issuers, at"
                                             : "an issuer stands twice:",
                                  entry);
    }

    is->audience = audience != NULL ? audience : conf->jwt_audience;
    is->jwks_uri = jwks_uri;

    return NULL;
}


/* ---- providers ---- */

#define STOA_OIDC_GOOGLE "https://accounts.google.com"
#define STOA_OIDC_SCOPE  "openid email profile"

static const char stoa_oidc_setting[] = "OIDC_PROVIDERS";

static const char *const stoa_oidc_auths[] = {
    [STOA_OIDC_AUTH_BASIC] = "basic",
    [STOA_OIDC_AUTH_POST] = "post",
    [STOA_OIDC_AUTH_NONE] = "none",
};


const stoa_oidc_provider_t *
stoa_oidc_provider(const stoa_oidc_conf_t *conf, stoa_str_t name)
{
    size_t i;

    for (i = 0; i < conf->nproviders; i++) {
        if (stoa_str_eq_z(name, conf->providers[i].name)) {
            return &conf->providers[i];
        }
    }

    return NULL;
}


static bool
stoa_oidc_conf_name(const char *name)
{
    return strlen(name) <= STOA_OIDC_NAME
        && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(name)
        && name[0] >= 'a' && name[0] <= 'z' && strcmp(name, "providers") != 0;
}


/* What may stand in a header, a form and a cookie: visible ASCII, spaces. */
static bool
stoa_oidc_conf_plain(const char *text, size_t max)
{
    size_t i;

    for (i = 0; text[i] != '\0'; i++) {
        if (text[i] < ' ' || text[i] > '~') {
            return false;
        }
    }

    return i != 0 && i <= max;
}


/* The whole of one provider: defaults filled in, all judged. */
static const char *
stoa_oidc_conf_provider(stoa_oidc_conf_t *out, stoa_mem_t *mem,
                        stoa_oidc_provider_t *p)
{
    size_t              i;
    stoa_oidc_issuer_t *is;
    bool google = p->name != NULL && strcmp(p->name, "google") == 0;

    if (p->name == NULL || !stoa_oidc_conf_name(p->name)) {
        return stoa_oidc_complain(mem, stoa_oidc_setting,
                                  "a name is of a-z, 0-9 and -, and not",
                                  p->name != NULL ? p->name : "");
    }

    p->issuer = p->issuer == NULL && google ? STOA_OIDC_GOOGLE : p->issuer;
    p->title = p->title != NULL ? p->title : google ? "Google" : p->name;
    p->scope = p->scope != NULL ? p->scope : STOA_OIDC_SCOPE;

    if (p->issuer == NULL || !stoa_oidc_url(p->issuer, out->plain)
        || strchr(p->issuer, '?') != NULL)
    {
        return stoa_oidc_complain(mem, stoa_oidc_setting,
                                  "an issuer is https://..., not that of",
                                  p->name);
    }

    for (i = 0; i < p->naudiences; i++) {
        if (p->audiences[i] == NULL
            || !stoa_oidc_conf_plain(p->audiences[i], 255)) {
            break;
        }
    }

    if (p->naudiences == 0 || i != p->naudiences) {
        return stoa_oidc_complain(mem, stoa_oidc_setting,
                                  "no clientId, or no audiences, of", p->name);
    }

    if ((p->client_secret != NULL
         && !stoa_oidc_conf_plain(p->client_secret, 512))
        || !stoa_oidc_conf_plain(p->scope, 255)
        || strncmp(p->scope, "openid", 6) != 0)
    {
        return stoa_oidc_complain(mem, stoa_oidc_setting,
                                  "no clientSecret, or no scope that begins "
                                  "with openid, of",
                                  p->name);
    }

    if ((p->auth == STOA_OIDC_AUTH_BASIC || p->auth == STOA_OIDC_AUTH_POST)
        && p->client_secret == NULL)
    {
        return stoa_oidc_complain(mem, stoa_oidc_setting,
                                  "a clientAuth without a clientSecret of",
                                  p->name);
    }

    is = stoa_oidc_conf_issuer(out, p->issuer);

    if (is == NULL || out->nproviders == STOA_OIDC_PROVIDERS
        || stoa_oidc_provider(out, stoa_str_z(p->name)) != NULL)
    {
        return stoa_oidc_complain(mem, stoa_oidc_setting,
                                  "too many, or the second of this name:",
                                  p->name);
    }

    /* signing in takes its document, which says where its keys are */
    is->jwks_uri = NULL;
    out->providers[out->nproviders++] = *p;

    return NULL;
}


static const char *
stoa_oidc_conf_text(stoa_mem_t *mem, stoa_str_t value)
{
    stoa_str_t text;

    return stoa_json_kind(value) == STOA_JSON_STRING
                && stoa_json_content(mem, value, &text)
                && strlen((char *) text.data) == text.len
             ? (const char *) text.data
             : NULL;
}


/* One member; false: it is not known, or not what it should be. */
static bool
stoa_oidc_conf_member(stoa_oidc_provider_t *p, stoa_mem_t *mem, stoa_str_t name,
                      stoa_str_t value)
{
    const struct {
        const char  *name;
        const char **slot;
    } texts[] = {
        { "name", &p->name },     { "title", &p->title },
        { "issuer", &p->issuer }, { "client_secret", &p->client_secret },
        { "scope", &p->scope },   { "client_id", &p->audiences[0] },
    };
    const char *text;
    stoa_str_t  item;
    size_t      i, at = 0;

    for (i = 0; i < stoa_nitems(texts); i++) {
        if (stoa_str_same_name(texts[i].name, name)) {
            *texts[i].slot = stoa_oidc_conf_text(mem, value);
            return *texts[i].slot != NULL && **texts[i].slot != '\0';
        }
    }

    if (stoa_str_same_name("client_auth", name)) {
        text = stoa_oidc_conf_text(mem, value);

        for (i = STOA_OIDC_AUTH_BASIC; i <= STOA_OIDC_AUTH_NONE; i++) {
            if (text != NULL && strcmp(text, stoa_oidc_auths[i]) == 0) {
                p->auth = (stoa_oidc_auth_e) i;
                return true;
            }
        }

        return false;
    }

    if (!stoa_str_same_name("audiences", name)
        || stoa_json_kind(value) != STOA_JSON_ARRAY)
    {
        return false;
    }

    while (stoa_json_each(value, &at, &item)) {
        if (p->naudiences == STOA_OIDC_AUDIENCES) {
            return false;
        }

        p->audiences[p->naudiences++] = stoa_oidc_conf_text(mem, item);
    }

    return true;
}


static const char *
stoa_oidc_conf_providers(stoa_oidc_conf_t *out, const stoa_conf_t *conf,
                         stoa_mem_t *mem)
{
    stoa_oidc_provider_t p;
    stoa_json_fault_t    fault;
    stoa_str_t           list, item, name, value;
    const char          *why;
    size_t               i = 0, at;

    memset(&p, 0, sizeof(p));

    if (conf->google_client_id[0] != '\0') {
        p.name = "google";
        p.audiences[p.naudiences++] = conf->google_client_id;

        if (conf->google_client_secret[0] != '\0') {
            p.client_secret = conf->google_client_secret;
        }

        why = stoa_oidc_conf_provider(out, mem, &p);

        if (why != NULL) {
            return why;
        }
    }

    list = stoa_str_z(conf->oidc_providers);

    if (list.len == 0) {
        return NULL;
    }

    if (!stoa_json_valid(list, &fault)
        || stoa_json_kind(list) != STOA_JSON_ARRAY) {
        return stoa_oidc_complain(mem, stoa_oidc_setting,
                                  "it is no JSON list of objects", NULL);
    }

    while (stoa_json_each(list, &i, &item)) {
        memset(&p, 0, sizeof(p));
        p.naudiences = 1; /* the place of client_id */
        at = 0;

        if (stoa_json_kind(item) != STOA_JSON_OBJECT) {
            return stoa_oidc_complain(mem, stoa_oidc_setting,
                                      "it is no JSON list of objects", NULL);
        }

        while (stoa_json_walk(item, &at, &name, &value)) {
            if (!stoa_oidc_conf_member(&p, mem, name, value)) {
                why = stoa_strdup_z(mem, name);
                return stoa_oidc_complain(mem, stoa_oidc_setting,
                                          "not known, or of another kind:",
                                          why);
            }
        }

        why = stoa_oidc_conf_provider(out, mem, &p);

        if (why != NULL) {
            return why;
        }
    }

    return NULL;
}


/* "/events/ /account/" */
static bool
stoa_oidc_conf_paths(const char *text)
{
    size_t len;

    for (text += strspn(text, " "); *text != '\0';
         text += len + strspn(text + len, " "))
    {
        len = strcspn(text, " ");

        if (text[0] != '/' || text[len - 1] != '/') {
            return false;
        }
    }

    return true;
}


const stoa_oidc_conf_t *
stoa_oidc_conf(const stoa_conf_t *conf, stoa_mem_t *mem, const char **why)
{
    char             *text, *end;
    stoa_oidc_conf_t *out;

    out = stoa_calloc(mem, sizeof(stoa_oidc_conf_t));
    text = stoa_strdup_z(mem, stoa_str_z(conf->jwt_issuers));
    *why = "no memory";

    if (out == NULL || text == NULL) {
        return NULL;
    }

    out->plain = strcmp(conf->issuer_network, "insecure") == 0;

    for (text += strspn(text, " \t\r\n"); *text != '\0'; text = end) {
        end = text + strcspn(text, " \t\r\n");

        if (*end != '\0') {
            *end++ = '\0';
            end += strspn(end, " \t\r\n");
        }

        *why = stoa_oidc_conf_entry(out, conf, mem, text);

        if (*why != NULL) {
            return NULL;
        }
    }

    *why = stoa_oidc_conf_providers(out, conf, mem);

    if (*why == NULL && !stoa_oidc_conf_paths(conf->oidc_next_paths)) {
        *why = "OIDC_NEXT_PATHS: paths that begin and end with /, with spaces";
    }

    return *why == NULL ? out : NULL;
}
