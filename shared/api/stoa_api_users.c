/*
 * Rows of /users: one's own account, what others see of somebody, and what
 * admins do with accounts.
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

static const char *const stoa_users_kinds[] = { "person", "service", NULL };

static const char *const stoa_users_statuses[] = { "active", "limited",
                                                   "suspended", NULL };

/* clang-format off */
#define STOA_USERS_ROLE(bit, text) text,
static const char *const stoa_users_roles[] = {
    STOA_ROLES(STOA_USERS_ROLE) NULL
};
#undef STOA_USERS_ROLE
/* clang-format on */

static const stoa_field_t stoa_users_role[] = {
    { .name = "role", .type = STOA_T_ENUM, .values = stoa_users_roles },
    stoa_end_field,
};

static const stoa_field_t stoa_users_create_body[] = {
    { .name = "kind",
      .type = STOA_T_ENUM,
      .values = stoa_users_kinds,
      .summary = "A person, which is the default, or a program" },
    { .name = "email",
      .type = STOA_T_EMAIL,
      .min = 3,
      .max = 254,
      .summary = "A person's address, where the invitation goes",
      .example = "\"ada@stoa.example\"" },
    { .name = "first_name",
      .type = STOA_T_TEXT,
      .flags = STOA_REQUIRED,
      .min = 1,
      .max = 100,
      .summary = "First name, or the program's" },
    { .name = "last_name",
      .type = STOA_T_TEXT,
      .min = 1,
      .max = 100,
      .summary = "Last name" },
    { .name = "roles",
      .type = STOA_T_LIST,
      .min = 0,
      .max = STOA_ROLE_COUNT,
      .items = stoa_users_role,
      .summary = "Beside member, which everybody is" },
    { .name = "preferred_language",
      .type = STOA_T_ENUM,
      .values = stoa_users_languages,
      .summary = "Language of mails" },
    stoa_end_field,
};

static const stoa_field_t stoa_users_roles_body[] = {
    { .name = "roles",
      .type = STOA_T_LIST,
      .flags = STOA_REQUIRED,
      .min = 0,
      .max = STOA_ROLE_COUNT,
      .items = stoa_users_role,
      .summary = "All that the account is to be, beside member" },
    stoa_end_field,
};

static const stoa_field_t stoa_users_status_body[] = {
    { .name = "status",
      .type = STOA_T_ENUM,
      .flags = STOA_REQUIRED,
      .values = stoa_users_statuses,
      .summary = "Suspended: every session and key is out at once" },
    { .name = "reason",
      .type = STOA_T_TEXT,
      .min = 1,
      .max = 300,
      .summary = "Why; it stays in the audit log" },
    stoa_end_field,
};

static const char *const stoa_users_all_statuses[] = { "active", "limited",
                                                       "suspended", "deleted",
                                                       NULL };

static const stoa_field_t stoa_users_list_query[] = {
    { .name = "search",
      .type = STOA_T_TEXT,
      .min = 2,
      .max = 100,
      .summary = "Part of the address or the name" },
    { .name = "role",
      .type = STOA_T_ENUM,
      .values = stoa_users_roles,
      .summary = "Who has this role" },
    { .name = "status",
      .type = STOA_T_ENUM,
      .values = stoa_users_all_statuses,
      .summary = "In this state" },
    { .name = "kind",
      .type = STOA_T_ENUM,
      .values = stoa_users_kinds,
      .summary = "People, or service accounts" },
    stoa_end_field,
};

static const stoa_filter_t stoa_users_filters[] = {
    { "search", "u.words ilike api.like($search)" },
    { "role", "u.roles @> array[$role]" },
    { "status", "u.status = $status" },
    { "kind", "u.kind = $kind" },
    { NULL, NULL },
};

static const stoa_sort_t stoa_users_sorts[] = {
    { "-createdAt", "u.made_at", "timestamptz", true },
    { "createdAt", "u.made_at", "timestamptz", false },
    { "email", "u.address", "text", false },
    { NULL, NULL, NULL, false },
};

static const stoa_list_t stoa_users_list = {
    .from = "api.users_list u",
    .item = "u.item",
    .id = "u.id",
    .sorts = stoa_users_sorts,
    .filters = stoa_users_filters,
    .limit = 20,
    .max = 100,
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
               "$acting_as))::json end as body, u.etag || case when "
               "$acting_as is null then '' else '.a' end as etag "
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
        .step_up = STOA_STEP_UP_OWN,
        .errors = { STOA_E_INVALID_CREDENTIALS, STOA_E_PASSWORD_NOT_SET,
                    STOA_E_HASH_QUEUE_FULL },
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
        .sql = "select 200 as status, u.profile as body, u.etag || '.p' as "
               "etag from api.users_profile u where u.id = $id",
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .errors = { STOA_E_NOT_FOUND },
        .summary = "The public profile of somebody.",
        .tag = "users",
    },
    {
        .id = "users.account",
        .method = STOA_GET,
        .path = "/api/v1/admin/users/:id",
        .who = STOA_ADMIN,
        .of = STOA_OF_NONE,
        .via = STOA_VIA_KEY,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_WRITE,
        .sql = "api.users_account($ctx, $id)",
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .errors = { STOA_E_NOT_FOUND },
        .step_up = STOA_STEP_UP_OTHERS,
        .summary = "The whole account of somebody; the audit log says who "
                   "looked.",
        .tag = "users",
    },
    {
        .id = "users.list",
        .method = STOA_GET,
        .path = "/api/v1/users",
        .who = STOA_ADMIN,
        .of = STOA_OF_NONE,
        .via = STOA_VIA_KEY,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_SLOW,
        .list = &stoa_users_list,
        .body_kind = STOA_BODY_NONE,
        .query = stoa_users_list_query,
        .status = 200,
        .audit_reads = true,
        .step_up = STOA_STEP_UP_OTHERS,
        .summary = "Accounts, newest first.",
        .tag = "users",
    },
    {
        .id = "users.create",
        .method = STOA_POST,
        .path = "/api/v1/users",
        .who = STOA_ADMIN,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.users_create($ctx, $body)",
        .body_kind = STOA_BODY_JSON,
        .body = stoa_users_create_body,
        .status = 201,
        .errors = { STOA_E_EMAIL_TAKEN },
        .step_up = STOA_STEP_UP_OTHERS,
        .summary = "Make an account: a person is mailed a link to choose a "
                   "password, a service account gets API keys.",
        .tag = "users",
    },
    {
        .id = "users.roles",
        .method = STOA_PUT,
        .path = "/api/v1/users/:id/roles",
        .who = STOA_ADMIN,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.users_roles($ctx, $id, $if_match, $body)",
        .body_kind = STOA_BODY_JSON,
        .body = stoa_users_roles_body,
        .status = 200,
        .if_match = true,
        .errors = { STOA_E_LAST_ADMIN },
        .step_up = STOA_STEP_UP_OTHERS,
        .summary = "Set what an account is; its tokens with other roles die.",
        .tag = "users",
    },
    {
        .id = "users.status",
        .method = STOA_PATCH,
        .path = "/api/v1/users/:id/status",
        .who = STOA_ADMIN,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.users_status($ctx, $id, $if_match, $body)",
        .body_kind = STOA_BODY_JSON,
        .body = stoa_users_status_body,
        .status = 200,
        .if_match = true,
        .errors = { STOA_E_LAST_ADMIN },
        .step_up = STOA_STEP_UP_OTHERS,
        .summary = "Suspend an account, limit it, or restore it.",
        .tag = "users",
    },
    { .id = NULL },
};
