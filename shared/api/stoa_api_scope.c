/*
 * Scopes of API keys, out of the rows' tags and methods: a new endpoint has
 * one without a word more.
 */

#include "stoa_api.h"
#include "../stoa_str.h"

#include <stdio.h>


bool
stoa_scope_of(const stoa_endpoint_t *ep, char out[STOA_SCOPE_MAX])
{
    if ((ep->via & STOA_VIA_KEY) == 0
        || strlen(ep->tag) > STOA_SCOPE_MAX - sizeof(":write"))
    {
        return false;
    }

    (void) snprintf(out, STOA_SCOPE_MAX, "%s:%s", ep->tag,
                    ep->method == STOA_GET ? "read" : "write");

    return true;
}


bool
stoa_scope_allows(stoa_str_t scopes, const stoa_endpoint_t *ep)
{
    char           own[STOA_SCOPE_MAX];
    unsigned char *space;
    stoa_str_t     one;

    if (ep == NULL) {
        own[0] = '\0';

    } else if (ep->via & STOA_VIA_ANY_KEY) {
        return true;

    } else if (!stoa_scope_of(ep, own)) {
        return false;
    }

    while (scopes.len != 0) {
        space = memchr(scopes.data, ' ', scopes.len);
        one.data = scopes.data;
        one.len = space != NULL ? (size_t) (space - scopes.data) : scopes.len;

        if (one.len != 0
            && (stoa_str_eq_z(one, own) || stoa_str_eq_z(one, "*")
                || (ep != NULL && ep->method == STOA_GET
                    && stoa_str_eq_z(one, "*:read"))))
        {
            return true;
        }

        one.len += space != NULL;
        scopes.data += one.len;
        scopes.len -= one.len;
    }

    return false;
}


bool
stoa_scope_known(const stoa_api_t *api, stoa_str_t scope)
{
    char   own[STOA_SCOPE_MAX];
    size_t i;

    if (stoa_str_eq_z(scope, "*") || stoa_str_eq_z(scope, "*:read")) {
        return true;
    }

    for (i = 0; i < api->nrows; i++) {
        if (stoa_scope_of(api->rows[i], own) && stoa_str_eq_z(scope, own)) {
            return true;
        }
    }

    return false;
}


void
stoa_scope_list(stoa_buf_t *b, const stoa_api_t *api)
{
    char   own[STOA_SCOPE_MAX], other[STOA_SCOPE_MAX];
    size_t i, j;

    stoa_buf_z(b, "[\"*\",\"*:read\"");

    for (i = 0; i < api->nrows; i++) {
        if (!stoa_scope_of(api->rows[i], own)) {
            continue;
        }

        for (j = 0; j < i; j++) {
            if (stoa_scope_of(api->rows[j], other) && strcmp(own, other) == 0) {
                break;
            }
        }

        if (j == i) {
            stoa_buf_char(b, ',');
            stoa_buf_json_z(b, own);
        }
    }

    stoa_buf_char(b, ']');
}
