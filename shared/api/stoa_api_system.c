/*
 * Rows about the API itself.
 */

#include "stoa_api_tables.h"

const stoa_endpoint_t stoa_api_system[] = {
    {
        .id = "system.errors",
        .method = STOA_GET,
        .path = "/api/v1/errors",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .via = STOA_VIA_ANY_KEY | STOA_VIA_ACTING,
        .rate = STOA_RATE_READ,
        .flow = STOA_FLOW_ERRORS,
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .summary = "Every error code with its status and title.",
        .tag = "system",
    },
    {
        .id = "system.openapi",
        .method = STOA_GET,
        .path = "/api/v1/openapi.json",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .via = STOA_VIA_ANY_KEY | STOA_VIA_ACTING,
        .rate = STOA_RATE_READ,
        .flow = STOA_FLOW_OPENAPI,
        .body_kind = STOA_BODY_NONE,
        .media = STOA_MEDIA_BARE,
        .status = 200,
        .summary = "This API as an OpenAPI 3.1 document.",
        .tag = "system",
    },
    {
        .id = "system.manual",
        .method = STOA_GET,
        .path = "/api/v1/manual.json",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .via = STOA_VIA_ANY_KEY | STOA_VIA_ACTING,
        .rate = STOA_RATE_READ,
        .flow = STOA_FLOW_MANUAL,
        .body_kind = STOA_BODY_NONE,
        .media = STOA_MEDIA_BARE,
        .status = 200,
        .summary = "The operator's manual of this server's version: "
                   "directives, variables, settings, metrics, errors.",
        .tag = "system",
    },
    {
        .id = "system.jwks",
        .method = STOA_GET,
        .path = "/.well-known/jwks.json",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .via = STOA_VIA_ANY_KEY | STOA_VIA_ACTING,
        .rate = STOA_RATE_READ,
        .flow = STOA_FLOW_JWKS,
        .body_kind = STOA_BODY_NONE,
        .media = STOA_MEDIA_BARE,
        .status = 200,
        .summary = "The public keys that tokens are verified with, as a JWK "
                   "Set (RFC 7517); empty when JWT_ALG is HS256.",
        .tag = "system",
    },
    { .id = NULL },
};
