/*
 * Rows of orders, refunds and the test provider's payment page.
 * Statements: migrations/api/30_orders.sql, 31_payments.sql,
 * 33_placing.sql.
 */

#include "stoa_api_tables.h"

/* clang-format off */
#define STOA_ORDERS_OF { "order", "id", "owner" }
/* clang-format on */

static const stoa_field_t stoa_orders_item[] = {
    { .name = "ticket_type_id",
      .type = STOA_T_UUID,
      .flags = STOA_REQUIRED,
      .summary = "Ticket type" },
    { .name = "quantity",
      .type = STOA_T_INT,
      .flags = STOA_REQUIRED,
      .min = 1,
      .max = 100,
      .summary = "How many",
      .example = "2" },
    stoa_end_field,
};

static const stoa_field_t stoa_orders_create_body[] = {
    { .name = "items",
      .type = STOA_T_LIST,
      .flags = STOA_REQUIRED,
      .min = 1,
      .max = 20,
      .items = stoa_orders_item,
      .object = true,
      .summary = "What is ordered, of one event" },
    { .name = "promo_code",
      .type = STOA_T_TEXT,
      .flags = STOA_NULLABLE,
      .max = 40,
      .summary = "Promo code" },
    stoa_end_field,
};

static const char *const stoa_orders_states[] = {
    "reserved",       "awaiting_payment",
    "paid",           "partially_refunded",
    "refunded",       "refund_failed",
    "cancelled",      "expired",
    "payment_failed", NULL,
};

static const stoa_field_t stoa_orders_list_query[] = {
    { .name = "status",
      .type = STOA_T_ENUM,
      .values = stoa_orders_states,
      .summary = "In this state only" },
    { .name = "event_id", .type = STOA_T_UUID, .summary = "Of this event" },
    { .name = "search",
      .type = STOA_T_TEXT,
      .min = 1,
      .max = 100,
      .summary = "Part of the event's title" },
    stoa_end_field,
};

static const stoa_filter_t stoa_orders_list_filters[] = {
    { "status", "o.status = $status" },
    { "event_id", "o.event_id = $event_id" },
    { "search", "o.event_title ilike api.like($search)" },
    { NULL, NULL },
};

static const stoa_sort_t stoa_orders_list_sorts[] = {
    { "-createdAt", "o.created_at", "timestamptz", true },
    { "createdAt", "o.created_at", "timestamptz", false },
    { "-totalCents", "o.total_cents", "bigint", true },
    { NULL, NULL, NULL, false },
};

static const stoa_list_t stoa_orders_list = {
    .from = "api.orders_list o",
    .item = "o.item",
    .id = "o.id",
    .where = "o.buyer_id = $actor",
    .sorts = stoa_orders_list_sorts,
    .filters = stoa_orders_list_filters,
    .limit = 20,
    .max = 100,
};

static const stoa_field_t stoa_refunds_ticket[] = {
    { .name = "id", .type = STOA_T_UUID },
    stoa_end_field,
};

static const stoa_field_t stoa_refunds_body[] = {
    { .name = "amount_cents",
      .type = STOA_T_INT,
      .min = 1,
      .max = 100000000000,
      .summary = "Minor units; absent: the tickets' price, or all that is "
                 "left" },
    { .name = "ticket_ids",
      .type = STOA_T_LIST,
      .min = 1,
      .max = 100,
      .items = stoa_refunds_ticket,
      .summary = "Tickets that end with it; their seats are free again" },
    { .name = "reason",
      .type = STOA_T_TEXT,
      .flags = STOA_LINES,
      .max = 500,
      .summary = "Kept with the refund" },
    stoa_end_field,
};

static const char *const stoa_pay_actions[] = { "pay", "decline", NULL };

static const stoa_field_t stoa_pay_body[] = {
    { .name = "action",
      .type = STOA_T_ENUM,
      .flags = STOA_REQUIRED,
      .values = stoa_pay_actions,
      .summary = "pay or decline" },
    stoa_end_field,
};

const stoa_endpoint_t stoa_api_orders[] = {
    {
        .id = "orders.create",
        .method = STOA_POST,
        .path = "/api/v1/orders",
        .who = STOA_MEMBER,
        .of = STOA_OF_NONE,
        .via = STOA_VIA_KEY,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.orders_create($ord, $ctx, $body, $codes)",
        .body_kind = STOA_BODY_JSON,
        .body = stoa_orders_create_body,
        .status = 201,
        .batch = 64,
        .wait_ms = 4000,
        .keyed = true,
        .errors = { STOA_E_SOLD_OUT, STOA_E_NOT_ON_SALE, STOA_E_ORDER_LIMIT,
                    STOA_E_PROMO_INVALID, STOA_E_PROMO_EXHAUSTED,
                    STOA_E_TOO_MANY_HOLDS, STOA_E_NOT_FOUND,
                    STOA_E_EMAIL_NOT_VERIFIED },
        .summary = "Hold seats and say how to pay; free orders are complete "
                   "at once.",
        .tag = "orders",
    },
    {
        .id = "orders.list",
        .method = STOA_GET,
        .path = "/api/v1/orders",
        .who = STOA_MEMBER,
        .of = STOA_OF_NONE,
        .via = STOA_VIA_BOTH,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_FAST,
        .list = &stoa_orders_list,
        .body_kind = STOA_BODY_NONE,
        .query = stoa_orders_list_query,
        .status = 200,
        .summary = "One's own orders.",
        .tag = "orders",
    },
    {
        .id = "orders.get",
        .method = STOA_GET,
        .path = "/api/v1/orders/:id",
        .who = STOA_MEMBER,
        .of = STOA_ORDERS_OF,
        .via = STOA_VIA_BOTH,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_FAST,
        .sql = "select 200 as status, case when o.buyer_id = $actor or "
               "'admin' = any ($roles) then o.body else api.uncoded(o.body) "
               "end as body, case when o.buyer_id = $actor or 'admin' = any "
               "($roles) then o.etag else o.etag || '.m' end as etag "
               "from api.orders_detail o "
               "where o.id = $id and (o.buyer_id = $actor or 'admin' = any "
               "($roles) or exists (select from api.acl_order a where "
               "a.id = o.id and a.user_id = $actor))",
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .errors = { STOA_E_NOT_FOUND },
        .summary = "One order with its tickets.",
        .tag = "orders",
    },
    {
        .id = "orders.cancel",
        .method = STOA_POST,
        .path = "/api/v1/orders/:id/cancel",
        .who = STOA_MEMBER,
        .of = STOA_ORDERS_OF,
        .via = STOA_VIA_KEY,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.orders_cancel($ctx, $id)",
        .body_kind = STOA_BODY_JSON,
        .status = 200,
        .keyed = true,
        .errors = { STOA_E_NOT_FOUND, STOA_E_INVALID_STATE,
                    STOA_E_TICKETS_TRANSFERRED },
        .summary = "Give unpaid or free seats back.",
        .tag = "orders",
    },
    {
        .id = "orders.refund",
        .method = STOA_POST,
        .path = "/api/v1/orders/:id/refunds",
        .who = STOA_ORGANIZER | STOA_PRACTITIONER | STOA_ADMIN,
        .of = { "order", "id", "manage" },
        .via = STOA_VIA_KEY,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.orders_refund($ctx, $id, $body)",
        .body_kind = STOA_BODY_JSON,
        .body = stoa_refunds_body,
        .status = 201,
        .step_up = STOA_STEP_UP_OTHERS,
        .keyed = true,
        .errors = { STOA_E_NOT_FOUND, STOA_E_INVALID_STATE,
                    STOA_E_REFUND_EXCEEDS },
        .summary = "Pay back a part or all, never more than was captured.",
        .tag = "orders",
    },
    {
        .id = "orders.refunds",
        .method = STOA_GET,
        .path = "/api/v1/orders/:id/refunds",
        .who = STOA_MEMBER,
        .of = STOA_ORDERS_OF,
        .via = STOA_VIA_BOTH,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_FAST,
        .sql = "api.orders_refunds($ctx, $id)",
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .errors = { STOA_E_NOT_FOUND },
        .summary = "The refunds of an order.",
        .tag = "orders",
    },
    {
        .id = "pay.view",
        .method = STOA_GET,
        .path = "/api/v1/pay/:id",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_FAST,
        .sql = "select p.status, p.body from api.pay_view($id) p",
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .development = true,
        .errors = { STOA_E_NOT_FOUND },
        .summary = "What the test provider's payment page shows.",
        .tag = "orders",
    },
    {
        .id = "pay.form",
        .method = STOA_POST,
        .path = "/pay/:id",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_PAY_FORM,
        .body_kind = STOA_BODY_FORM,
        .body = stoa_pay_body,
        .status = 303,
        .development = true,
        .errors = { STOA_E_NOT_FOUND, STOA_E_INVALID_STATE },
        .summary = "Pay or decline at the test provider.",
        .tag = "orders",
    },
    { .id = NULL },
};
