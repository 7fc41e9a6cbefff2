/*
 * The router on the rows of the server, against a matcher that compares the
 * address with each row in turn.
 */

#include "fuzz.h"

#include "stoa_route.h"


/* Does the path of a row or alias take the address? */
static int
fuzz_takes(const char *path, stoa_str_t uri)
{
    size_t i = 0, from, suffix;

    while (*path != '\0') {
        if (*path != ':') {
            if (i == uri.len || uri.data[i++] != (unsigned char) *path++) {
                return 0;
            }

            continue;
        }

        path += strcspn(path, "/.");
        suffix = strcspn(path, "/");

        for (from = i; i < uri.len && uri.data[i] != '/'; i++) {
        }

        if (i - from <= suffix
            || memcmp(uri.data + i - suffix, path, suffix) != 0) {
            return 0;
        }

        path += suffix;
    }

    return i == uri.len;
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const stoa_api_t *api;
    static stoa_route_t     *route;
    stoa_str_t               uri = fuzz_str(data, size);
    stoa_match_t             m;
    const char              *why;
    static stoa_mem_t       *mem;
    unsigned                 k;
    size_t                   i;
    int                      taken = 0, found = 0;
    bool                     got;

    if (route == NULL) {
        mem = stoa_arena_create(65536, FUZZ_MEMORY); /* kept */
        api = stoa_api(mem);
        fuzz_assert(api != NULL);
        route = stoa_route_create(mem, api, &why);
        fuzz_assert(route != NULL);
    }

    for (i = 0; i < api->nrows; i++) {
        taken |= fuzz_takes(api->rows[i]->path, uri);
    }

    for (i = 0; i < api->naliases; i++) {
        taken |= fuzz_takes(api->aliases[i].path, uri);
    }

    got = stoa_route_match(route, uri, &m);
    fuzz_assert(got == (taken != 0));

    if (!got) {
        return 0;
    }

    fuzz_assert(m.methods != 0 && m.nparams <= STOA_ROUTE_PARAMS);

    for (k = 0; k < m.nparams; k++) {
        fuzz_assert(m.params[k].len != 0);
        fuzz_assert(m.params[k].data >= data
                    && m.params[k].data + m.params[k].len <= data + size);
        fuzz_assert(memchr(m.params[k].data, '/', m.params[k].len) == NULL);
    }

    for (k = 1; k < STOA_METHOD_COUNT; k++) {
        fuzz_assert((m.rows[k] != NULL) == (m.methods >> k & 1));

        if (m.rows[k] == NULL) {
            continue;
        }

        fuzz_assert(m.rows[k]->method == k);
        found |= fuzz_takes(m.rows[k]->path, uri);
    }

    fuzz_assert(found || (m.alias != NULL && fuzz_takes(m.alias->path, uri)));

    return 0;
}
