/*
 * Rows of /oauth and of linked identities: signing in with providers that the
 * settings name, by browser or with an ID token that a native application
 * got.  The steps are in ngx_module/ngx_http_stoa_flow_oauth.c, the rules in
 * migrations/api/15_oauth.sql.
 */

#include "stoa_api_tables.h"

/* clang-format off */
#define STOA_F_NEXT                                                           \
    { .name = "next", .type = STOA_T_CODE, .min = 1, .max = 300,              \
      .summary = "Path of the page that comes afterwards",                    \
      .example = "\"/events/\"" }
/* clang-format on */

static const stoa_field_t stoa_oauth_path[] = {
    { .name = "provider",
      .type = STOA_T_CODE,
      .flags = STOA_REQUIRED,
      .min = 1,
      .max = 64,
      .summary = "Its name in the settings",
      .example = "\"google\"" },
    stoa_end_field,
};

static const stoa_field_t stoa_oauth_start_query[] = {
    STOA_F_NEXT,
    { .name = "remember",
      .type = STOA_T_BOOL,
      .summary = "Keep the session for the longer life" },
    stoa_end_field,
};

/* RFC 6749 4.1.2, RFC 9207; providers add what they like. */
static const stoa_field_t stoa_oauth_callback_query[] = {
    { .name = "state",
      .type = STOA_T_CODE,
      .min = 1,
      .max = 100,
      .summary = "As it was sent" },
    { .name = "code",
      .type = STOA_T_CODE,
      .min = 1,
      .max = 4096,
      .summary = "What the provider exchanges once" },
    { .name = "iss",
      .type = STOA_T_CODE,
      .min = 1,
      .max = 512,
      .summary = "Who answers" },
    { .name = "error",
      .type = STOA_T_CODE,
      .min = 1,
      .max = 100,
      .summary = "Why there is no code" },
    stoa_end_open_query,
};

static const stoa_field_t stoa_oauth_token_body[] = {
    { .name = "id_token",
      .type = STOA_T_SECRET,
      .flags = STOA_REQUIRED,
      .min = 1,
      .max = 8192,
      .summary = "ID token of the provider, for one of our applications" },
    { .name = "nonce",
      .type = STOA_T_SECRET,
      .min = 1,
      .max = 200,
      .summary = "The nonce in it, or what it is the SHA-256 of" },
    { .name = "remember",
      .type = STOA_T_BOOL,
      .summary = "Keep the session for the longer life" },
    stoa_end_field,
};

static const stoa_field_t stoa_identities_link_body[] = {
    { .name = "provider",
      .type = STOA_T_CODE,
      .flags = STOA_REQUIRED,
      .min = 1,
      .max = 32,
      .summary = "Its name in the settings",
      .example = "\"google\"" },
    STOA_F_NEXT,
    stoa_end_field,
};

static const stoa_sort_t stoa_identities_sorts[] = {
    { "linkedAt", "i.linked_at", "timestamptz", false },
    { "-linkedAt", "i.linked_at", "timestamptz", true },
    { NULL, NULL, NULL, false },
};

static const stoa_list_t stoa_identities_list = {
    .from = "api.identities i",
    .item = "json_build_object('id', i.id, 'provider', i.provider, "
            "'email', i.email, 'linkedAt', i.created, "
            "'lastUsedAt', i.last_used)",
    .id = "i.id",
    .where = "i.user_id = $actor",
    .sorts = stoa_identities_sorts,
    .limit = 20,
    .max = 100,
};

const stoa_endpoint_t stoa_api_oauth[] = {
    {
        .id = "oauth.providers",
        .method = STOA_GET,
        .path = "/api/v1/oauth/providers",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_READ,
        .flow = STOA_FLOW_OAUTH_PROVIDERS,
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .summary = "With whom one can sign in.",
        .tag = "oauth",
    },
    {
        .id = "oauth.start",
        .method = STOA_GET,
        .path = "/api/v1/oauth/:provider",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_READ,
        .flow = STOA_FLOW_OAUTH_START,
        .body_kind = STOA_BODY_NONE,
        .path_fields = stoa_oauth_path,
        .query = stoa_oauth_start_query,
        .status = 302,
        .summary = "Send a browser to the provider.",
        .tag = "oauth",
    },
    {
        .id = "oauth.callback",
        .method = STOA_GET,
        .path = "/api/v1/oauth/:provider/callback",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_READ, /* any page can make a browser ask for it */
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_OAUTH_CALLBACK,
        .body_kind = STOA_BODY_NONE,
        .path_fields = stoa_oauth_path,
        .query = stoa_oauth_callback_query,
        .status = 303,
        .errors = { STOA_E_COMMIT_UNKNOWN },
        .summary = "Take a browser back from the provider; what went wrong is "
                   "told by the page that it is sent to.",
        .tag = "oauth",
    },
    {
        .id = "oauth.token",
        .method = STOA_POST,
        .path = "/api/v1/oauth/:provider/token",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_AUTH,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_OAUTH_TOKEN,
        .body_kind = STOA_BODY_JSON,
        .path_fields = stoa_oauth_path,
        .body = stoa_oauth_token_body,
        .status = 200,
        .errors = { STOA_E_OAUTH_INVALID, STOA_E_ACCOUNT_EXISTS_SIGN_IN_FIRST,
                    STOA_E_MFA_REQUIRED },
        .summary = "Sign in with an ID token.",
        .tag = "oauth",
    },
    {
        .id = "identities.list",
        .method = STOA_GET,
        .path = "/api/v1/users/me/identities",
        .who = STOA_MEMBER,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_FAST,
        .list = &stoa_identities_list,
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .summary = "With whom one can sign in to one's own account.",
        .tag = "oauth",
    },
    {
        .id = "identities.link",
        .method = STOA_POST,
        .path = "/api/v1/users/me/identities",
        .who = STOA_MEMBER,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_WRITE,
        .flow = STOA_FLOW_IDENTITY_LINK,
        .body_kind = STOA_BODY_JSON,
        .body = stoa_identities_link_body,
        .status = 200,
        .step_up = STOA_STEP_UP_OWN,
        .errors = { STOA_E_NOT_FOUND },
        .summary = "Begin to link an identity: where the browser goes.",
        .tag = "oauth",
    },
    {
        .id = "identities.unlink",
        .method = STOA_DELETE,
        .path = "/api/v1/users/me/identities/:id",
        .who = STOA_MEMBER,
        .of = { "identity", "id", "owner" },
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.identity_unlink($ctx, $id)",
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .step_up = STOA_STEP_UP_OWN,
        .errors = { STOA_E_LAST_WAY_IN },
        .summary = "Unlink an identity, unless it is the last way in.",
        .tag = "oauth",
    },
    { .id = NULL },
};
