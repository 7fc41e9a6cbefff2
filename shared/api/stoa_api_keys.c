/*
 * Rows of /auth/api-keys: keys by which programs speak for an account.  They
 * are made, replaced and ended by somebody who signed in, never by a key
 * (.via is 0).  The functions are in migrations/api/14_keys.sql, the flows in
 * ngx_module/ngx_http_stoa_flow_key.c, since a secret is made there.
 */

#include "stoa_api_tables.h"

#define STOA_KEYS_OF                                                           \
    {                                                                          \
        "api_key", "id", "owner"                                               \
    }

/* clang-format off */
#define STOA_F_DAYS                                                           \
    { .name = "expires_in_days", .type = STOA_T_INT, .min = 1, .max = 365,    \
      .summary = "Its life, at most API_KEY_MAX_TTL" }
/* clang-format on */

static const stoa_field_t stoa_keys_scope[] = {
    { .name = "scope", .type = STOA_T_CODE, .min = 1, .max = 63 },
    stoa_end_field,
};

static const stoa_field_t stoa_keys_create_body[] = {
    { .name = "name",
      .type = STOA_T_TEXT,
      .flags = STOA_REQUIRED,
      .min = 1,
      .max = 100,
      .summary = "What it is for" },
    { .name = "scopes",
      .type = STOA_T_LIST,
      .flags = STOA_REQUIRED,
      .min = 1,
      .max = 32,
      .items = stoa_keys_scope,
      .summary = "What it may do, as /auth/scopes names it",
      .example = "[\"events:read\"]" },
    STOA_F_DAYS,
    { .name = "owner_id",
      .type = STOA_T_UUID,
      .summary = "The service account that it is for; admins only" },
    stoa_end_field,
};

static const stoa_field_t stoa_keys_rotate_body[] = {
    STOA_F_DAYS,
    { .name = "overlap_hours",
      .type = STOA_T_INT,
      .min = 0,
      .max = 168,
      .summary = "How long the old one works on; 0: it ends at once" },
    stoa_end_field,
};

static const stoa_field_t stoa_keys_query[] = {
    { .name = "owner_id",
      .type = STOA_T_UUID,
      .summary = "Of this account; admins only" },
    stoa_end_field,
};

static const stoa_sort_t stoa_keys_sorts[] = {
    { "-createdAt", "k.made_at", "timestamptz", true },
    { "createdAt", "k.made_at", "timestamptz", false },
    { NULL, NULL, NULL, false },
};

static const stoa_list_t stoa_keys_list = {
    .from = "api.keys_list k",
    .item = "k.item",
    .id = "k.id",
    .where = "k.owner_id = coalesce($owner_id, $actor) and ($owner_id is null "
             "or $owner_id = $actor or 'admin' = any ($roles))",
    .sorts = stoa_keys_sorts,
    .limit = 20,
    .max = 100,
};

const stoa_endpoint_t stoa_api_keys[] = {
    {
        .id = "auth.keys",
        .method = STOA_GET,
        .path = "/api/v1/auth/api-keys",
        .who = STOA_MEMBER,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_FAST,
        .list = &stoa_keys_list,
        .body_kind = STOA_BODY_NONE,
        .query = stoa_keys_query,
        .status = 200,
        .summary = "One's own API keys: those that live, and those that ended "
                   "in the last 30 days.",
        .tag = "auth",
    },
    {
        .id = "auth.key_create",
        .method = STOA_POST,
        .path = "/api/v1/auth/api-keys",
        .who = STOA_MEMBER,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_KEY_CREATE,
        .body_kind = STOA_BODY_JSON,
        .body = stoa_keys_create_body,
        .status = 201,
        .errors = { STOA_E_NOT_FOUND, STOA_E_TOO_MANY_KEYS,
                    STOA_E_TOO_MANY_NEW_KEYS },
        .step_up = STOA_STEP_UP_OTHERS,
        .summary = "Make an API key; its text is in this answer and nowhere "
                   "else.",
        .tag = "auth",
    },
    {
        .id = "auth.key_rotate",
        .method = STOA_POST,
        .path = "/api/v1/auth/api-keys/:id/rotate",
        .who = STOA_MEMBER,
        .of = STOA_KEYS_OF,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_KEY_ROTATE,
        .body_kind = STOA_BODY_JSON,
        .body = stoa_keys_rotate_body,
        .status = 201,
        .errors = { STOA_E_INVALID_STATE, STOA_E_TOO_MANY_NEW_KEYS },
        .step_up = STOA_STEP_UP_OTHERS,
        .summary = "Replace an API key by a new one; both work for a while.",
        .tag = "auth",
    },
    {
        .id = "auth.key_revoke",
        .method = STOA_DELETE,
        .path = "/api/v1/auth/api-keys/:id",
        .who = STOA_MEMBER,
        .of = STOA_KEYS_OF,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.key_revoke($ctx, $id)",
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .summary = "End an API key at once.",
        .tag = "auth",
    },
    {
        .id = "auth.scopes",
        .method = STOA_GET,
        .path = "/api/v1/auth/scopes",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .via = STOA_VIA_ANY_KEY | STOA_VIA_ACTING,
        .rate = STOA_RATE_READ,
        .flow = STOA_FLOW_KEY_SCOPES,
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .summary = "The scopes that API keys can have.",
        .tag = "auth",
    },
    { .id = NULL },
};
