/*
 * Rows of /privacy: what people agreed to.  The functions are in
 * migrations/api/16_privacy.sql.
 */

#include "stoa_api_tables.h"

/* clang-format off */
#define STOA_F_ANON                                                           \
    { .name = "anon_id", .type = STOA_T_UUID,                                 \
      .summary = "Random id that the browser keeps; of who is not signed in" }
/* clang-format on */

static const stoa_field_t stoa_consents_query[] = {
    STOA_F_ANON,
    stoa_end_field,
};

static const stoa_field_t stoa_consents_body[] = {
    STOA_F_ANON,
    { .name = "policy_version",
      .type = STOA_T_CODE,
      .flags = STOA_REQUIRED,
      .min = 1,
      .max = 40,
      .summary = "Version of the policy that was shown",
      .example = "\"1\"" },
    { .name = "analytics", .type = STOA_T_BOOL, .summary = "To be counted" },
    { .name = "marketing",
      .type = STOA_T_BOOL,
      .summary = "To be written to about offers" },
    { .name = "personalization",
      .type = STOA_T_BOOL,
      .summary = "To be shown things by what one did before" },
    stoa_end_field,
};

const stoa_endpoint_t stoa_api_privacy[] = {
    {
        .id = "privacy.consents",
        .method = STOA_GET,
        .path = "/api/v1/privacy/consents",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .via = STOA_VIA_ACTING,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_FAST,
        .sql = "api.consents_get($ctx, $anon_id)",
        .body_kind = STOA_BODY_NONE,
        .query = stoa_consents_query,
        .status = 200,
        .summary = "What one agreed to, and whether one is to be asked.",
        .tag = "privacy",
    },
    {
        .id = "privacy.consent",
        .method = STOA_POST,
        .path = "/api/v1/privacy/consents",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.consents_put($ctx, $body)",
        .body_kind = STOA_BODY_JSON,
        .body = stoa_consents_body,
        .status = 200,
        .summary = "Agree, or do so no more: what is left out stays.",
        .tag = "privacy",
    },
    { .id = NULL },
};
