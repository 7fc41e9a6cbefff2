/*
 * Paths of the applications that Stoa replaces (catalogue section 5): the
 * same rows under "/api" and "/v1", and the one webhook path that another
 * used.  Never a redirect: bodies would be lost.
 */

#include "stoa_api_tables.h"

/* clang-format off */
#define STOA_ALIAS(verb, rest, row_id)                                        \
    { STOA_##verb, "/api" rest, row_id }, { STOA_##verb, "/v1" rest, row_id }
/* clang-format on */

const stoa_alias_t stoa_api_aliases[] = {
    STOA_ALIAS(POST, "/auth/register", "auth.register"),
    STOA_ALIAS(POST, "/auth/login", "auth.login"),
    STOA_ALIAS(POST, "/auth/refresh", "auth.refresh"),
    STOA_ALIAS(POST, "/auth/logout", "auth.logout"),
    STOA_ALIAS(POST, "/auth/forgot-password", "auth.forgot_password"),
    STOA_ALIAS(POST, "/auth/reset-password", "auth.reset_password"),
    STOA_ALIAS(GET, "/auth/check", "auth.check"),
    STOA_ALIAS(GET, "/users/me", "users.me"),
    STOA_ALIAS(PATCH, "/users/me", "users.update"),
    STOA_ALIAS(PUT, "/users/me", "users.replace"),
    STOA_ALIAS(GET, "/users/:id", "users.get"),
    STOA_ALIAS(GET, "/events", "events.list"),
    STOA_ALIAS(POST, "/events", "events.create"),
    STOA_ALIAS(GET, "/events/mine", "events.mine"),
    STOA_ALIAS(GET, "/events/:id", "events.get"),
    STOA_ALIAS(PUT, "/events/:id", "events.update"),
    STOA_ALIAS(PATCH, "/events/:id", "events.patch"),
    STOA_ALIAS(POST, "/events/:id/publish", "events.publish"),
    STOA_ALIAS(POST, "/events/:id/duplicate", "events.duplicate"),
    STOA_ALIAS(POST, "/events/:id/cancel", "events.cancel"),
    STOA_ALIAS(POST, "/events/:id/register", "events.register"),
    STOA_ALIAS(GET, "/events/:id/registrations", "events.registrations"),
    STOA_ALIAS(GET, "/events/:id/registrations.csv",
               "events.registrations_csv"),
    STOA_ALIAS(GET, "/events/:id/staff", "events.staff"),
    STOA_ALIAS(POST, "/events/:id/staff", "events.staff_add"),
    STOA_ALIAS(DELETE, "/events/:id/staff/:user_id", "events.staff_remove"),
    STOA_ALIAS(GET, "/events/:id/promo-codes", "promo_codes.list"),
    STOA_ALIAS(POST, "/events/:id/promo-codes", "promo_codes.create"),
    STOA_ALIAS(PATCH, "/promo-codes/:id", "promo_codes.patch"),
    STOA_ALIAS(DELETE, "/promo-codes/:id", "promo_codes.delete"),
    STOA_ALIAS(GET, "/events/:id/ticket-types", "ticket_types.list"),
    STOA_ALIAS(POST, "/events/:id/ticket-types", "ticket_types.create"),
    STOA_ALIAS(PUT, "/ticket-types/:id", "ticket_types.update"),
    STOA_ALIAS(PATCH, "/ticket-types/:id", "ticket_types.patch"),
    STOA_ALIAS(DELETE, "/ticket-types/:id", "ticket_types.delete"),
    STOA_ALIAS(POST, "/orders", "orders.create"),
    STOA_ALIAS(GET, "/orders", "orders.list"),
    STOA_ALIAS(GET, "/orders/:id", "orders.get"),
    STOA_ALIAS(POST, "/orders/:id/cancel", "orders.cancel"),
    STOA_ALIAS(POST, "/orders/:id/refunds", "orders.refund"),
    STOA_ALIAS(GET, "/orders/:id/refunds", "orders.refunds"),
    STOA_ALIAS(POST, "/orders/validate", "orders.validate"),
    STOA_ALIAS(GET, "/tickets", "tickets.list"),
    STOA_ALIAS(GET, "/tickets/:id", "tickets.get"),
    STOA_ALIAS(GET, "/tickets/:id.svg", "tickets.svg"),
    STOA_ALIAS(GET, "/tickets/:id.png", "tickets.png"),
    STOA_ALIAS(GET, "/tickets/:id.pdf", "tickets.pdf"),
    STOA_ALIAS(POST, "/tickets/:id/transfer", "tickets.transfer"),
    STOA_ALIAS(POST, "/tickets/:id/reissue", "tickets.reissue"),
    STOA_ALIAS(POST, "/checkin/devices", "checkin.pair"),
    STOA_ALIAS(GET, "/checkin/devices", "checkin.devices"),
    STOA_ALIAS(POST, "/checkin/devices/login", "checkin.device_login"),
    STOA_ALIAS(DELETE, "/checkin/devices/:id", "checkin.device_delete"),
    STOA_ALIAS(GET, "/checkin/snapshot", "checkin.snapshot"),
    STOA_ALIAS(POST, "/checkin/batch", "checkin.batch"),
    STOA_ALIAS(GET, "/events/:id/checkin/stats", "checkin.stats"),
    STOA_ALIAS(GET, "/pay/:id", "pay.view"),
    STOA_ALIAS(GET, "/errors", "system.errors"),
    STOA_ALIAS(GET, "/openapi.json", "system.openapi"),
    STOA_ALIAS(POST, "/webhooks/stripe", "webhooks.stripe"),
    { STOA_POST, "/api/v1/checkout/webhook", "webhooks.stripe" },
    STOA_ALIAS(POST, "/checkout/webhook", "webhooks.stripe"),
    { .path = NULL },
};
