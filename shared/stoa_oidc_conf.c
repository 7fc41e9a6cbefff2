/*
 * The settings of stoa_oidc.h: JWT_ISSUERS is a list of issuers with spaces
 * or lines between them, each "https://idp.example", with ";aud=" and
 * ";jwks=" behind it where the defaults do not fit.
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

    return out;
}
