/*
 * Compiles endpoint and alias rows into a trie over path segments.  Pure,
 * read-only after create, fuzzed.  Matches the normalised URI byte by byte:
 * no trailing slash, no empty segment, literal before parameter.
 */

#ifndef STOA_ROUTE_H_INCLUDED
#define STOA_ROUTE_H_INCLUDED

#include "api/stoa_api.h"

typedef struct stoa_route_s stoa_route_t;

#define STOA_ROUTE_PARAMS 4

typedef struct {
    const stoa_endpoint_t *const *rows;   /* [STOA_METHOD_COUNT], by method */
    const stoa_alias_t           *alias;  /* NULL: the canonical path */
    stoa_str_t params[STOA_ROUTE_PARAMS]; /* raw, in path order */
    uint8_t    nparams;
    uint16_t   methods; /* bits 1 << method that exist here */
} stoa_match_t;

/* Everything lives in mem.  NULL: *why (in mem) names the two rows that
   clash, or says "no memory". */
stoa_route_t *stoa_route_create(stoa_mem_t *mem, const stoa_api_t *api,
                                const char **why);

bool stoa_route_match(const stoa_route_t *route, stoa_str_t uri,
                      stoa_match_t *match);

#endif /* STOA_ROUTE_H_INCLUDED */
