/*
 * Rows of providers' webhooks: verified on the raw bytes, stored once,
 * applied by a task.  Statements: migrations/api/31_payments.sql.
 */

#include "stoa_api_tables.h"

const stoa_endpoint_t stoa_api_webhooks[] = {
    {
        .id = "webhooks.stripe",
        .method = STOA_POST,
        .path = "/api/v1/webhooks/stripe",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_NONE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.webhooks_stripe($ctx, $raw, $provider)",
        .body_kind = STOA_BODY_RAW,
        .body_max = 1048576,
        .verify = STOA_VERIFY_STRIPE,
        .status = 200,
        .errors = { STOA_E_SIGNATURE_INVALID },
        .summary = "Events of Stripe and of the test provider.",
        .tag = "webhooks",
    },
    { .id = NULL },
};
