/*
 * Rows of second factors: their setting up and end, the second half of a
 * sign-in, and the fresh code that rows with .step_up ask for.  Steps are in
 * ngx_module/ngx_http_stoa_flow_mfa.c, functions in
 * migrations/api/13_mfa.sql.
 */

#include "stoa_api_tables.h"

/* clang-format off */
#define STOA_MFA_CODE(f)                                                      \
    { .name = "code", .type = STOA_T_SECRET, .flags = (f), .min = 6,          \
      .max = 7, .summary = "Six digits of the authenticator app",             \
      .example = "\"123456\"" }
#define STOA_MFA_RECOVERY                                                     \
    { .name = "recovery_code", .type = STOA_T_SECRET, .min = 24, .max = 48,   \
      .summary = "Instead: one of the recovery codes",                        \
      .example = "\"abcd-efgh-ijkl-mnop-qrst-uvwx\"" }
#define STOA_MFA_PASSWORD                                                     \
    { .name = "password", .type = STOA_T_SECRET, .flags = STOA_REQUIRED,      \
      .min = 1, .max = 128, .summary = "The password" }
/* clang-format on */

static const stoa_field_t stoa_mfa_enrol_body[] = {
    STOA_MFA_PASSWORD,
    stoa_end_field,
};

static const stoa_field_t stoa_mfa_code_body[] = {
    STOA_MFA_CODE(STOA_REQUIRED),
    stoa_end_field,
};

static const stoa_field_t stoa_mfa_off_body[] = {
    STOA_MFA_PASSWORD,
    STOA_MFA_CODE(0),
    STOA_MFA_RECOVERY,
    stoa_end_field,
};

static const stoa_field_t stoa_mfa_proof_body[] = {
    STOA_MFA_CODE(0),
    STOA_MFA_RECOVERY,
    stoa_end_field,
};

static const stoa_field_t stoa_mfa_login_body[] = {
    { .name = "mfa_token",
      .type = STOA_T_SECRET,
      .min = 1,
      .max = 200,
      .summary = "What MFA_REQUIRED brought, within five minutes; a browser "
                 "that comes from a provider has it as a cookie" },
    STOA_MFA_CODE(0),
    STOA_MFA_RECOVERY,
    stoa_end_field,
};

const stoa_endpoint_t stoa_api_mfa[] = {
    {
        .id = "auth.login_mfa",
        .method = STOA_POST,
        .path = "/api/v1/auth/login/mfa",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_AUTH,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_LOGIN_MFA,
        .body_kind = STOA_BODY_JSON,
        .body = stoa_mfa_login_body,
        .status = 200,
        .errors = { STOA_E_MFA_CODE_INVALID, STOA_E_MFA_TOKEN_INVALID,
                    STOA_E_CROSS_SITE },
        .summary = "Finish a sign-in that wants a code.",
        .tag = "auth",
    },
    {
        .id = "auth.mfa",
        .method = STOA_GET,
        .path = "/api/v1/auth/mfa",
        .who = STOA_MEMBER,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_FAST,
        .sql = "api.mfa_get($ctx)",
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .summary = "Whether one has a second factor.",
        .tag = "auth",
    },
    {
        .id = "auth.mfa_enrol",
        .method = STOA_POST,
        .path = "/api/v1/auth/mfa/totp",
        .who = STOA_MEMBER,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_MFA_ENROL,
        .body_kind = STOA_BODY_JSON,
        .body = stoa_mfa_enrol_body,
        .status = 201,
        .errors = { STOA_E_NOT_FOUND, STOA_E_INVALID_CREDENTIALS,
                    STOA_E_INVALID_STATE, STOA_E_HASH_QUEUE_FULL },
        .summary = "Make a secret for an authenticator app; it counts once a "
                   "code of it was confirmed.",
        .tag = "auth",
    },
    {
        .id = "auth.mfa_confirm",
        .method = STOA_POST,
        .path = "/api/v1/auth/mfa/totp/confirm",
        .who = STOA_MEMBER,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_MFA_CONFIRM,
        .body_kind = STOA_BODY_JSON,
        .body = stoa_mfa_code_body,
        .status = 200,
        .errors = { STOA_E_NOT_FOUND, STOA_E_INVALID_STATE },
        .summary = "Turn the second factor on; the recovery codes are told "
                   "once.",
        .tag = "auth",
    },
    {
        .id = "auth.mfa_off",
        .method = STOA_DELETE,
        .path = "/api/v1/auth/mfa",
        .who = STOA_MEMBER,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_MFA_OFF,
        .body_kind = STOA_BODY_JSON,
        .body = stoa_mfa_off_body,
        .status = 200,
        .errors = { STOA_E_NOT_FOUND, STOA_E_INVALID_CREDENTIALS,
                    STOA_E_INVALID_STATE, STOA_E_HASH_QUEUE_FULL },
        .summary = "Turn the second factor off, by password and code.",
        .tag = "auth",
    },
    {
        .id = "auth.mfa_codes",
        .method = STOA_POST,
        .path = "/api/v1/auth/mfa/recovery-codes",
        .who = STOA_MEMBER,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_MFA_CODES,
        .body_kind = STOA_BODY_JSON,
        .body = stoa_mfa_code_body,
        .status = 200,
        .errors = { STOA_E_NOT_FOUND, STOA_E_INVALID_STATE },
        .summary = "New recovery codes in place of all older ones.",
        .tag = "auth",
    },
    {
        .id = "auth.step_up",
        .method = STOA_POST,
        .path = "/api/v1/auth/step-up",
        .who = STOA_MEMBER,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_STEP_UP,
        .body_kind = STOA_BODY_JSON,
        .body = stoa_mfa_proof_body,
        .status = 200,
        .errors = { STOA_E_NOT_FOUND, STOA_E_MFA_ENROLMENT_REQUIRED },
        .summary = "Show a code, for an access token that rows ask for which "
                   "say STEP_UP_REQUIRED.",
        .tag = "auth",
    },
    { .id = NULL },
};
