/*
 * Rows of /users: one's own account, and what others see of somebody.
 */

#include "stoa_api_tables.h"

static const char *const stoa_users_languages[] = { "en", "ar", "de", "es",
                                                    "fr", "it", NULL };

static const stoa_field_t stoa_users_update_body[] = {
    { .name = "first_name",
      .type = STOA_T_TEXT,
      .min = 1,
      .max = 100,
      .summary = "First name" },
    { .name = "last_name",
      .type = STOA_T_TEXT,
      .min = 1,
      .max = 100,
      .summary = "Last name" },
    { .name = "phone",
      .type = STOA_T_TEXT,
      .flags = STOA_NULLABLE,
      .min = 3,
      .max = 40,
      .summary = "Telephone number" },
    { .name = "preferred_language",
      .type = STOA_T_ENUM,
      .values = stoa_users_languages,
      .summary = "Language of mails" },
    { .name = "timezone",
      .type = STOA_T_TIMEZONE,
      .max = 64,
      .summary = "IANA time zone" },
    stoa_end_field,
};

static const stoa_field_t stoa_users_email_body[] = {
    { .name = "new_email",
      .type = STOA_T_EMAIL,
      .flags = STOA_REQUIRED,
      .min = 3,
      .max = 254,
      .summary = "The address to be",
      .example = "\"ada@stoa.example\"" },
    { .name = "password",
      .type = STOA_T_SECRET,
      .flags = STOA_REQUIRED,
      .min = 1,
      .max = 128,
      .summary = "The password" },
    stoa_end_field,
};

/* clang-format off */
#define STOA_USERS_UPDATE(row_id, verb)                                       \
    .id = row_id, .method = verb, .path = "/api/v1/users/me",                 \
    .who = STOA_MEMBER, .of = STOA_OF_NONE, .rate = STOA_RATE_WRITE,          \
    .pool = STOA_POOL_WRITE, .via = STOA_VIA_ACTING,                          \
    .sql = "api.users_update($ctx, $if_match, $body)",                        \
    .body_kind = STOA_BODY_JSON, .body = stoa_users_update_body,              \
    .status = 200, .keyed = true, .if_match = true,                           \
    .summary = "Change one's own account; what is absent stays.",             \
    .tag = "users"
/* clang-format on */

const stoa_endpoint_t stoa_api_users[] = {
    {
        .id = "users.me",
        .method = STOA_GET,
        .path = "/api/v1/users/me",
        .who = STOA_MEMBER,
        .of = STOA_OF_NONE,
        .via = STOA_VIA_BOTH,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_FAST,
        .sql = "select 200 as status, case when $acting_as is null then "
               "u.body else (u.body::jsonb || jsonb_build_object('actingAs', "
               "$acting_as))::json end as body, u.version::text as etag "
               "from api.users_me u where u.id = $actor",
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .summary = "One's own account.",
        .tag = "users",
    },
    { STOA_USERS_UPDATE("users.update", STOA_PATCH) },
    { STOA_USERS_UPDATE("users.replace", STOA_PUT) },
    {
        .id = "users.email",
        .method = STOA_POST,
        .path = "/api/v1/users/me/email",
        .who = STOA_MEMBER,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_USER_EMAIL,
        .body_kind = STOA_BODY_JSON,
        .body = stoa_users_email_body,
        .status = 200,
        .errors = { STOA_E_INVALID_CREDENTIALS, STOA_E_HASH_QUEUE_FULL },
        .summary = "Mail a link to a new address, which is one's own as soon "
                   "as the link is used.",
        .tag = "users",
    },
    {
        .id = "users.get",
        .method = STOA_GET,
        .path = "/api/v1/users/:id",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .via = STOA_VIA_BOTH,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_FAST,
        .sql = "select 200 as status, case when u.id = $actor "
               "or 'admin' = any ($roles) then u.account else u.profile end "
               "as body, u.version || case when u.id = $actor "
               "or 'admin' = any ($roles) then '' else '.p' end as etag "
               "from api.users_profile u where u.id = $id "
               "and (u.shown or 'admin' = any ($roles))",
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .errors = { STOA_E_NOT_FOUND },
        .summary = "The public profile of somebody; the whole account for "
                   "oneself and for admins.",
        .tag = "users",
    },
    { .id = NULL },
};
