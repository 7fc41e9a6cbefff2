/*
 * Rows of /auth: register, login, refresh, logout, password reset, check.
 * The steps are flows in ngx_module/ngx_http_stoa_flow_auth.c, since each
 * hashes or signs; the statements are in migrations/api/10_auth.sql.
 */

#include "stoa_api_tables.h"

/* clang-format off */
#define STOA_F_EMAIL(f)                                                       \
    { .name = "email", .type = STOA_T_EMAIL, .flags = (f), .min = 3,          \
      .max = 254, .summary = "E-mail address",                                \
      .example = "\"ada@stoa.example\"" }
/* clang-format on */

static const stoa_field_t stoa_auth_register_body[] = {
    STOA_F_EMAIL(STOA_REQUIRED),
    { .name = "password",
      .type = STOA_T_SECRET,
      .flags = STOA_REQUIRED | STOA_UNCOMMON,
      .min = 8,
      .max = 128,
      .summary = "8 to 128 characters, no common password" },
    { .name = "first_name",
      .type = STOA_T_TEXT,
      .flags = STOA_REQUIRED,
      .min = 1,
      .max = 100,
      .summary = "First name" },
    { .name = "last_name",
      .type = STOA_T_TEXT,
      .flags = STOA_REQUIRED,
      .min = 1,
      .max = 100,
      .summary = "Last name" },
    stoa_end_field,
};

static const stoa_field_t stoa_auth_login_body[] = {
    STOA_F_EMAIL(STOA_REQUIRED),
    { .name = "password",
      .type = STOA_T_SECRET,
      .flags = STOA_REQUIRED,
      .min = 1,
      .max = 128,
      .summary = "The password" },
    { .name = "remember",
      .type = STOA_T_BOOL,
      .summary = "Keep the session for the longer life" },
    stoa_end_field,
};

/* Not required: it may come in the cookie (ngx_http_stoa_cookie.c). */
static const stoa_field_t stoa_auth_refresh_body[] = {
    { .name = "refresh_token",
      .type = STOA_T_SECRET,
      .min = 1,
      .max = 200,
      .summary = "The newest refresh token, unless the cookie brings it" },
    stoa_end_field,
};

static const stoa_field_t stoa_auth_logout_body[] = {
    { .name = "all",
      .type = STOA_T_BOOL,
      .summary = "End every session of the account" },
    stoa_end_field,
};

static const stoa_field_t stoa_auth_forgot_body[] = {
    STOA_F_EMAIL(STOA_REQUIRED),
    stoa_end_field,
};

static const stoa_field_t stoa_auth_reset_body[] = {
    STOA_F_EMAIL(0),
    { .name = "token",
      .type = STOA_T_SECRET,
      .min = 1,
      .max = 200,
      .summary = "The token of the mail" },
    { .name = "new_password",
      .type = STOA_T_SECRET,
      .flags = STOA_UNCOMMON,
      .min = 8,
      .max = 128,
      .summary = "8 to 128 characters, no common password" },
    stoa_end_field,
};

static const stoa_field_t stoa_auth_password_body[] = {
    { .name = "current_password",
      .type = STOA_T_SECRET,
      .flags = STOA_REQUIRED,
      .min = 1,
      .max = 128,
      .summary = "The password so far" },
    { .name = "new_password",
      .type = STOA_T_SECRET,
      .flags = STOA_REQUIRED | STOA_UNCOMMON,
      .min = 8,
      .max = 128,
      .summary = "8 to 128 characters, no common password" },
    stoa_end_field,
};

const stoa_endpoint_t stoa_api_auth[] = {
    {
        .id = "auth.register",
        .method = STOA_POST,
        .path = "/api/v1/auth/register",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_AUTH,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_AUTH_REGISTER,
        .body_kind = STOA_BODY_JSON,
        .body = stoa_auth_register_body,
        .status = 201,
        .errors = { STOA_E_EMAIL_TAKEN, STOA_E_HASH_QUEUE_FULL },
        .summary = "Create an account and sign in.",
        .tag = "auth",
    },
    {
        .id = "auth.login",
        .method = STOA_POST,
        .path = "/api/v1/auth/login",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_AUTH,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_AUTH_LOGIN,
        .body_kind = STOA_BODY_JSON,
        .body = stoa_auth_login_body,
        .status = 200,
        .errors = { STOA_E_INVALID_CREDENTIALS, STOA_E_HASH_QUEUE_FULL },
        .summary = "Sign in.",
        .tag = "auth",
    },
    {
        .id = "auth.refresh",
        .method = STOA_POST,
        .path = "/api/v1/auth/refresh",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_AUTH,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_AUTH_REFRESH,
        .body_kind = STOA_BODY_JSON,
        .body = stoa_auth_refresh_body,
        .status = 200,
        .errors = { STOA_E_REFRESH_INVALID, STOA_E_CROSS_SITE },
        .summary = "Exchange a refresh token, of the body or the cookie, for "
                   "a new pair.",
        .tag = "auth",
    },
    {
        .id = "auth.logout",
        .method = STOA_POST,
        .path = "/api/v1/auth/logout",
        .who = STOA_MEMBER,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_AUTH_LOGOUT,
        .body_kind = STOA_BODY_JSON,
        .body = stoa_auth_logout_body,
        .status = 200,
        .summary = "End this session, or all.",
        .tag = "auth",
    },
    {
        .id = "auth.forgot_password",
        .method = STOA_POST,
        .path = "/api/v1/auth/forgot-password",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_AUTH,
        .pool = STOA_POOL_WRITE,
        .sql = "api.auth_forgot($ctx, $email)",
        .body_kind = STOA_BODY_JSON,
        .body = stoa_auth_forgot_body,
        .status = 200,
        .summary = "Mail a link to choose a new password.",
        .tag = "auth",
    },
    {
        .id = "auth.reset_password",
        .method = STOA_POST,
        .path = "/api/v1/auth/reset-password",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_AUTH,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_AUTH_RESET,
        .body_kind = STOA_BODY_JSON,
        .body = stoa_auth_reset_body,
        .status = 200,
        .errors = { STOA_E_HASH_QUEUE_FULL },
        .summary = "Consume a reset token; with only an e-mail, send one.",
        .tag = "auth",
    },
    {
        .id = "auth.change_password",
        .method = STOA_POST,
        .path = "/api/v1/auth/change-password",
        .who = STOA_MEMBER,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_AUTH,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_AUTH_PASSWORD,
        .body_kind = STOA_BODY_JSON,
        .body = stoa_auth_password_body,
        .status = 200,
        .errors = { STOA_E_NOT_FOUND, STOA_E_CONFLICT, STOA_E_HASH_QUEUE_FULL },
        .summary = "Change one's own password; every other session ends.",
        .tag = "auth",
    },
    {
        .id = "auth.check",
        .method = STOA_GET,
        .path = "/api/v1/auth/check",
        .who = STOA_MEMBER | STOA_DEVICE,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_READ,
        .flow = STOA_FLOW_AUTH_CHECK,
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .summary = "Say whose token this is.",
        .tag = "auth",
    },
    { .id = NULL },
};
