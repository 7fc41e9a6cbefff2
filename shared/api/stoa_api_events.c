/*
 * Rows of events, their ticket types, staff, registrations and promo codes.
 * Statements: migrations/api/20_events.sql, 21_ticket_types.sql, 32_promos.sql,
 * 33_placing.sql.
 */

#include "stoa_api_tables.h"

#define STOA_EVENTS_WHO (STOA_ORGANIZER | STOA_PRACTITIONER | STOA_ADMIN)
/* clang-format off */
#define STOA_EVENTS_OF  { "event", "id", "manage" }
#define STOA_TYPES_OF   { "ticket_type", "id", "manage" }
#define STOA_PROMOS_OF  { "promo_code", "id", "manage" }
/* clang-format on */

/* ---- events: fields ---- */

/* clang-format off */
#define STOA_EVENTS_TIMES(f)                                                  \
    { .name = "starts_at", .type = STOA_T_TIME, .flags = (f),                 \
      .summary = "When it begins",                                            \
      .example = "\"2027-05-01T18:00:00Z\"" },                                \
    { .name = "ends_at", .type = STOA_T_TIME, .flags = (f),                   \
      .summary = "When it ends; nobody is admitted later",                    \
      .example = "\"2027-05-01T22:00:00Z\"" },                                \
    { .name = "timezone", .type = STOA_T_TIMEZONE, .flags = (f), .max = 64,   \
      .summary = "IANA time zone of the place",                               \
      .example = "\"Europe/Athens\"" }

#define STOA_EVENTS_REST                                                      \
    { .name = "description", .type = STOA_T_TEXT,                             \
      .flags = STOA_NULLABLE | STOA_LINES, .max = 20000,                      \
      .summary = "Plain text; blank lines part paragraphs" },   \
    { .name = "location", .type = STOA_T_TEXT, .flags = STOA_NULLABLE,        \
      .max = 300, .summary = "Where" },                                       \
    { .name = "online_link", .type = STOA_T_URL, .flags = STOA_NULLABLE,      \
      .max = 2000, .summary = "For those who are registered" },               \
    { .name = "banner_image_url", .type = STOA_T_URL, .flags = STOA_NULLABLE, \
      .max = 2000, .summary = "Picture of the event, https",                  \
      .example = "\"https://example.org/banner.jpg\"" },                      \
    { .name = "capacity", .type = STOA_T_INT, .flags = STOA_NULLABLE,         \
      .min = 1, .max = 10000000,                                              \
      .summary = "Seats over all ticket types; null: the types' quotas" },    \
    { .name = "currency", .type = STOA_T_CURRENCY,                            \
      .summary = "ISO 4217; EUR when absent", .example = "\"EUR\"" },         \
    { .name = "reentry", .type = STOA_T_BOOL,                                 \
      .summary = "Who has left may come in again" }
/* clang-format on */

static const stoa_field_t stoa_events_create_body[] = {
    { .name = "title",
      .type = STOA_T_TEXT,
      .flags = STOA_REQUIRED,
      .min = 1,
      .max = 200,
      .summary = "Title",
      .example = "\"Courtyard Concert\"" },
    STOA_EVENTS_TIMES(STOA_REQUIRED),
    STOA_EVENTS_REST,
    stoa_end_field,
};

static const stoa_field_t stoa_events_update_body[] = {
    { .name = "title",
      .type = STOA_T_TEXT,
      .min = 1,
      .max = 200,
      .summary = "Title" },
    STOA_EVENTS_TIMES(0),
    STOA_EVENTS_REST,
    stoa_end_field,
};

static const stoa_field_t stoa_events_cancel_body[] = {
    { .name = "reason",
      .type = STOA_T_TEXT,
      .flags = STOA_LINES,
      .max = 500,
      .summary = "Kept with the event" },
    stoa_end_field,
};

/* ---- events: lists ---- */

static const char *const stoa_events_states[] = { "draft", "published",
                                                  "cancelled", NULL };

static const char *const stoa_events_past[] = { "false", "true", "all", NULL };

static const stoa_field_t stoa_events_list_query[] = {
    { .name = "search",
      .type = STOA_T_TEXT,
      .min = 1,
      .max = 100,
      .summary = "Words of title, place and description" },
    { .name = "starts_after",
      .type = STOA_T_TIME,
      .summary = "Begins then or "
                 "later" },
    { .name = "starts_before",
      .type = STOA_T_TIME,
      .summary = "Begins before "
                 "it" },
    { .name = "currency", .type = STOA_T_CURRENCY, .summary = "In it only" },
    { .name = "free", .type = STOA_T_BOOL, .summary = "Has a free ticket" },
    { .name = "past",
      .type = STOA_T_ENUM,
      .values = stoa_events_past,
      .summary = "false (when absent): those that are not over; true: those "
                 "that are; all: both" },
    stoa_end_field,
};

static const stoa_filter_t stoa_events_list_filters[] = {
    { "search", "e.search @@ websearch_to_tsquery('pg_catalog.simple', "
                "$search) or e.title ilike api.like($search)" },
    { "starts_after", "e.starts_at >= $starts_after" },
    { "starts_before", "e.starts_at < $starts_before" },
    { "currency", "e.currency = $currency" },
    { "free", "e.free = $free" },
    { NULL, NULL },
};

static const stoa_sort_t stoa_events_list_sorts[] = {
    { "startsAt", "e.starts_at", "timestamptz", false },
    { "-startsAt", "e.starts_at", "timestamptz", true },
    { "title", "e.title", "text", false },
    { "-title", "e.title", "text", true },
    { "-createdAt", "e.created_at", "timestamptz", true },
    { NULL, NULL, NULL, false },
};

static const stoa_list_t stoa_events_list = {
    .from = "api.events_list e",
    .item = "e.item",
    .id = "e.id",
    .where = "case coalesce($past, 'false') when 'all' then true when 'true' "
             "then not e.upcoming else e.upcoming end",
    .sorts = stoa_events_list_sorts,
    .filters = stoa_events_list_filters,
    .limit = 20,
    .max = 100,
};

static const stoa_field_t stoa_events_mine_query[] = {
    { .name = "search",
      .type = STOA_T_TEXT,
      .min = 1,
      .max = 100,
      .summary = "Words of title, place and description" },
    { .name = "status",
      .type = STOA_T_ENUM,
      .values = stoa_events_states,
      .summary = "In this state only" },
    stoa_end_field,
};

static const stoa_filter_t stoa_events_mine_filters[] = {
    { "search", "e.search @@ websearch_to_tsquery('pg_catalog.simple', "
                "$search) or e.title ilike api.like($search)" },
    { "status", "e.status = $status" },
    { NULL, NULL },
};

static const stoa_sort_t stoa_events_mine_sorts[] = {
    { "-createdAt", "e.created_at", "timestamptz", true },
    { "createdAt", "e.created_at", "timestamptz", false },
    { "startsAt", "e.starts_at", "timestamptz", false },
    { "-startsAt", "e.starts_at", "timestamptz", true },
    { "title", "e.title", "text", false },
    { "-title", "e.title", "text", true },
    { NULL, NULL, NULL, false },
};

static const stoa_list_t stoa_events_mine = {
    .from = "api.events_mine e",
    .item = "e.item",
    .id = "e.id",
    .where = "e.user_id = $actor",
    .sorts = stoa_events_mine_sorts,
    .filters = stoa_events_mine_filters,
    .limit = 20,
    .max = 100,
};

/* ---- ticket types ---- */

/* clang-format off */
#define STOA_TYPES_REST                                                       \
    { .name = "description", .type = STOA_T_TEXT,                             \
      .flags = STOA_NULLABLE | STOA_LINES, .max = 2000,                       \
      .summary = "What it includes" },                           \
    { .name = "min_per_order", .type = STOA_T_INT, .min = 1, .max = 100,      \
      .summary = "At least so many in an order; 1 when absent" },             \
    { .name = "max_per_order", .type = STOA_T_INT, .min = 1, .max = 100,      \
      .summary = "At most so many in an order; 10 when absent" },             \
    { .name = "sales_start", .type = STOA_T_TIME, .flags = STOA_NULLABLE,     \
      .summary = "On sale from; null: at once" },                             \
    { .name = "sales_end", .type = STOA_T_TIME, .flags = STOA_NULLABLE,       \
      .summary = "On sale until; null: to the event's end" },                 \
    { .name = "valid_from", .type = STOA_T_TIME, .flags = STOA_NULLABLE,      \
      .summary = "Admitted from; null: any time before the end" },            \
    { .name = "valid_until", .type = STOA_T_TIME, .flags = STOA_NULLABLE,     \
      .summary = "Admitted until; null: the event's end" },                   \
    { .name = "sort", .type = STOA_T_INT, .min = -1000, .max = 1000,          \
      .summary = "Place in lists; the first is the default type" }

#define STOA_TYPES_MONEY(f)                                                   \
    { .name = "name", .type = STOA_T_TEXT, .flags = (f), .min = 1,            \
      .max = 100, .summary = "Name", .example = "\"Standard\"" },             \
    { .name = "price_cents", .type = STOA_T_INT, .flags = (f), .min = 0,      \
      .max = 100000000000, .summary = "In the currency's minor unit; 0: free",\
      .example = "4900" },                                                    \
    { .name = "quota", .type = STOA_T_INT, .flags = (f), .min = 0,            \
      .max = 10000000, .summary = "Seats of this type", .example = "100" }
/* clang-format on */

static const stoa_field_t stoa_types_create_body[] = {
    STOA_TYPES_MONEY(STOA_REQUIRED),
    STOA_TYPES_REST,
    stoa_end_field,
};

static const stoa_field_t stoa_types_update_body[] = {
    STOA_TYPES_MONEY(0),
    STOA_TYPES_REST,
    stoa_end_field,
};

/* ---- staff, registrations, promo codes ---- */

static const char *const stoa_staff_relations[] = { "scan", "manage", NULL };

static const stoa_field_t stoa_staff_body[] = {
    { .name = "user_id",
      .type = STOA_T_UUID,
      .summary = "Instead: who helps at another event of the caller's" },
    { .name = "email",
      .type = STOA_T_EMAIL,
      .max = 254,
      .summary = "Account of who shall help" },
    { .name = "relation",
      .type = STOA_T_ENUM,
      .values = stoa_staff_relations,
      .summary = "scan (when absent): admits; manage: all, for organizers "
                 "and practitioners" },
    stoa_end_field,
};

static const char *const stoa_registration_states[] = {
    "registered",
    "attended",
    "cancelled",
    NULL,
};

static const stoa_field_t stoa_registrations_query[] = {
    { .name = "status",
      .type = STOA_T_ENUM,
      .values = stoa_registration_states,
      .summary = "In this state only" },
    { .name = "search",
      .type = STOA_T_TEXT,
      .min = 1,
      .max = 100,
      .summary = "Part of a name or an e-mail address" },
    stoa_end_field,
};

static const stoa_filter_t stoa_registrations_filters[] = {
    { "status", "r.status = $status" },
    { "search", "r.name ilike api.like($search) or r.email ilike "
                "api.like($search)" },
    { NULL, NULL },
};

static const stoa_sort_t stoa_registrations_sorts[] = {
    { "registeredAt", "r.created_at", "timestamptz", false },
    { "-registeredAt", "r.created_at", "timestamptz", true },
    { "name", "r.name", "text", false },
    { "email", "r.email", "text", false },
    { NULL, NULL, NULL, false },
};

static const stoa_list_t stoa_registrations = {
    .from = "api.registrations_list r",
    .item = "r.item",
    .id = "r.id",
    .where = "r.event_id = $id",
    .may = "api.events_managed($id, $actor, $roles)",
    .sorts = stoa_registrations_sorts,
    .filters = stoa_registrations_filters,
    .limit = 20,
    .max = 100,
};

static const stoa_sort_t stoa_staff_sorts[] = {
    { "email", "s.email", "text", false },
    { "-createdAt", "s.created_at", "timestamptz", true },
    { NULL, NULL, NULL, false },
};

static const stoa_list_t stoa_staff = {
    .from = "api.staff_list s",
    .item = "s.item",
    .id = "s.id",
    .where = "s.event_id = $id",
    .may = "api.events_managed($id, $actor, $roles)",
    .sorts = stoa_staff_sorts,
    .limit = 100,
    .max = 100,
};

static const stoa_sort_t stoa_types_sorts[] = {
    { "sort", "t.sort", "int", false },
    { "name", "t.name", "text", false },
    { "priceCents", "t.price_cents", "bigint", false },
    { "-priceCents", "t.price_cents", "bigint", true },
    { NULL, NULL, NULL, false },
};

static const stoa_list_t stoa_types = {
    .from = "api.ticket_types_list t",
    .item = "t.item",
    .id = "t.id",
    .where = "t.event_id = $id",
    .may = "api.events_shown($id, $actor, $roles)",
    .sorts = stoa_types_sorts,
    .limit = 100,
    .max = 100,
};

static const stoa_sort_t stoa_promos_sorts[] = {
    { "createdAt", "p.created_at", "timestamptz", false },
    { "-createdAt", "p.created_at", "timestamptz", true },
    { "code", "p.code", "text", false },
    { NULL, NULL, NULL, false },
};

static const stoa_list_t stoa_promos = {
    .from = "api.promo_codes_list p",
    .item = "p.item",
    .id = "p.id",
    .where = "p.event_id = $id",
    .may = "api.events_managed($id, $actor, $roles)",
    .sorts = stoa_promos_sorts,
    .limit = 100,
    .max = 100,
};

static const char *const stoa_promo_kinds[] = { "percent", "amount", NULL };

static const stoa_field_t stoa_promo_body[] = {
    { .name = "code",
      .type = STOA_T_TEXT,
      .flags = STOA_REQUIRED,
      .min = 2,
      .max = 40,
      .summary = "Case does not matter",
      .example = "\"EARLY\"" },
    { .name = "kind",
      .type = STOA_T_ENUM,
      .flags = STOA_REQUIRED,
      .values = stoa_promo_kinds,
      .summary = "percent, or an amount" },
    { .name = "value",
      .type = STOA_T_INT,
      .flags = STOA_REQUIRED,
      .min = 1,
      .max = 100000000000,
      .summary = "Percent off each line, or minor units off the order",
      .example = "20" },
    { .name = "max_uses",
      .type = STOA_T_INT,
      .flags = STOA_REQUIRED,
      .min = 1,
      .max = 10000000,
      .summary = "Orders in all",
      .example = "100" },
    { .name = "per_user",
      .type = STOA_T_INT,
      .min = 1,
      .max = 10000,
      .summary = "Orders per buyer; 1 when absent" },
    { .name = "valid_from", .type = STOA_T_TIME, .summary = "From then on" },
    { .name = "valid_until", .type = STOA_T_TIME, .summary = "Until then" },
    stoa_end_field,
};

static const stoa_field_t stoa_promo_update_body[] = {
    { .name = "max_uses",
      .type = STOA_T_INT,
      .min = 1,
      .max = 10000000,
      .summary = "Orders in all, not below those that there are" },
    { .name = "per_user",
      .type = STOA_T_INT,
      .min = 1,
      .max = 10000,
      .summary = "Orders per buyer" },
    { .name = "valid_from",
      .type = STOA_T_TIME,
      .flags = STOA_NULLABLE,
      .summary = "From then on; null: at once" },
    { .name = "valid_until",
      .type = STOA_T_TIME,
      .flags = STOA_NULLABLE,
      .summary = "Until then; null: without end" },
    stoa_end_field,
};

/* clang-format off */
#define STOA_EVENTS_UPDATE(row_id, verb)                                      \
    .id = row_id, .method = verb, .path = "/api/v1/events/:id",               \
    .who = STOA_EVENTS_WHO, .of = STOA_EVENTS_OF, .rate = STOA_RATE_WRITE,    \
    .pool = STOA_POOL_WRITE, .via = STOA_VIA_BOTH,                            \
    .sql = "api.events_update($ctx, $id, $if_match, $body)",                  \
    .body_kind = STOA_BODY_JSON, .body = stoa_events_update_body,             \
    .status = 200, .keyed = true, .if_match = true,                           \
    .errors = { STOA_E_INVALID_STATE, STOA_E_QUOTA_BELOW_SOLD },              \
    .summary = "Change an event; what is absent stays.", .tag = "events"

#define STOA_TYPES_UPDATE(row_id, verb)                                       \
    .id = row_id, .method = verb, .path = "/api/v1/ticket-types/:id",         \
    .who = STOA_EVENTS_WHO, .of = STOA_TYPES_OF, .rate = STOA_RATE_WRITE,     \
    .pool = STOA_POOL_WRITE, .via = STOA_VIA_BOTH,                            \
    .sql = "api.ticket_types_update($ctx, $id, $if_match, $body)",            \
    .body_kind = STOA_BODY_JSON, .body = stoa_types_update_body,              \
    .status = 200, .keyed = true, .if_match = true,                           \
    .errors = { STOA_E_INVALID_STATE, STOA_E_QUOTA_BELOW_SOLD },              \
    .summary = "Change a ticket type; the quota never goes below what is "    \
               "sold.",                                                       \
    .tag = "events"
/* clang-format on */

const stoa_endpoint_t stoa_api_events[] = {
    {
        .id = "events.list",
        .method = STOA_GET,
        .path = "/api/v1/events",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .via = STOA_VIA_BOTH,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_FAST,
        .list = &stoa_events_list,
        .body_kind = STOA_BODY_NONE,
        .query = stoa_events_list_query,
        .status = 200,
        .cache_ms = 1000,
        .summary = "Published events; counts may lag one second.",
        .tag = "events",
    },
    {
        .id = "events.create",
        .method = STOA_POST,
        .path = "/api/v1/events",
        .who = STOA_EVENTS_WHO,
        .of = STOA_OF_NONE,
        .via = STOA_VIA_BOTH,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.events_create($ctx, $body)",
        .body_kind = STOA_BODY_JSON,
        .body = stoa_events_create_body,
        .status = 201,
        .keyed = true,
        .summary = "Create an event, as a draft.",
        .tag = "events",
    },
    {
        .id = "events.mine",
        .method = STOA_GET,
        .path = "/api/v1/events/mine",
        .who = STOA_EVENTS_WHO,
        .of = STOA_OF_NONE,
        .via = STOA_VIA_BOTH,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_FAST,
        .list = &stoa_events_mine,
        .body_kind = STOA_BODY_NONE,
        .query = stoa_events_mine_query,
        .status = 200,
        .summary = "The events that one manages, in every state.",
        .tag = "events",
    },
    {
        .id = "events.get",
        .method = STOA_GET,
        .path = "/api/v1/events/:id",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .via = STOA_VIA_BOTH,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_FAST,
        .sql = "api.events_get($ord, $id, $actor, $roles)",
        .batch = 64,
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .errors = { STOA_E_NOT_FOUND },
        .summary = "One event with its ticket types; drafts for their staff, "
                   "the online link for staff and for who holds a ticket.",
        .tag = "events",
    },
    { STOA_EVENTS_UPDATE("events.update", STOA_PUT) },
    { STOA_EVENTS_UPDATE("events.patch", STOA_PATCH) },
    {
        .id = "events.publish",
        .method = STOA_POST,
        .path = "/api/v1/events/:id/publish",
        .who = STOA_EVENTS_WHO,
        .of = STOA_EVENTS_OF,
        .via = STOA_VIA_BOTH,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.events_publish($ctx, $id, $if_match)",
        .body_kind = STOA_BODY_JSON,
        .status = 200,
        .keyed = true,
        .if_match = true,
        .errors = { STOA_E_INVALID_STATE },
        .summary = "Publish a draft that has a ticket type and is not over: "
                   "it is listed and on sale.",
        .tag = "events",
    },
    {
        .id = "events.duplicate",
        .method = STOA_POST,
        .path = "/api/v1/events/:id/duplicate",
        .who = STOA_EVENTS_WHO,
        .of = STOA_EVENTS_OF,
        .via = STOA_VIA_BOTH,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.events_duplicate($ctx, $id)",
        .body_kind = STOA_BODY_JSON,
        .status = 201,
        .keyed = true,
        .errors = { STOA_E_NOT_FOUND },
        .summary = "Copy an event with its ticket types, as a draft.",
        .tag = "events",
    },
    {
        .id = "events.cancel",
        .method = STOA_POST,
        .path = "/api/v1/events/:id/cancel",
        .who = STOA_EVENTS_WHO,
        .of = STOA_EVENTS_OF,
        .via = STOA_VIA_KEY,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.events_cancel($ctx, $id, $if_match, $reason)",
        .body_kind = STOA_BODY_JSON,
        .body = stoa_events_cancel_body,
        .status = 200,
        .step_up = STOA_STEP_UP_OTHERS,
        .keyed = true,
        .if_match = true,
        .errors = { STOA_E_INVALID_STATE },
        .summary = "Cancel an event; every order is refunded by a task.",
        .tag = "events",
    },
    {
        .id = "events.register",
        .method = STOA_POST,
        .path = "/api/v1/events/:id/register",
        .who = STOA_MEMBER,
        .of = STOA_OF_NONE,
        .via = STOA_VIA_KEY,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_EVENT_REGISTER,
        .body_kind = STOA_BODY_JSON,
        .status = 201,
        .wait_ms = 4000,
        .keyed = true,
        .errors = { STOA_E_NOT_FOUND, STOA_E_SOLD_OUT, STOA_E_NOT_ON_SALE,
                    STOA_E_ALREADY_REGISTERED, STOA_E_ORDER_LIMIT,
                    STOA_E_TOO_MANY_HOLDS, STOA_E_EMAIL_NOT_VERIFIED },
        .summary = "Order one ticket of the default type; answers as POST "
                   "/orders does.",
        .tag = "events",
    },
    {
        .id = "events.registrations",
        .method = STOA_GET,
        .path = "/api/v1/events/:id/registrations",
        .who = STOA_EVENTS_WHO,
        .of = STOA_EVENTS_OF,
        .via = STOA_VIA_BOTH,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_WRITE,
        .list = &stoa_registrations,
        .body_kind = STOA_BODY_NONE,
        .query = stoa_registrations_query,
        .status = 200,
        .audit_reads = true,
        .errors = { STOA_E_NOT_FOUND },
        .summary = "Who comes: one item per ticket.",
        .tag = "events",
    },
    {
        .id = "events.registrations_csv",
        .method = STOA_GET,
        .path = "/api/v1/events/:id/registrations.csv",
        .who = STOA_EVENTS_WHO,
        .of = STOA_EVENTS_OF,
        .via = STOA_VIA_BOTH,
        .rate = STOA_RATE_READ,
        .cost = 20,
        .pool = STOA_POOL_SLOW,
        .sql = "select r.status, r.body, r.csv from "
               "api.events_registrations_csv($ctx, $id, $status, $search) r",
        .body_kind = STOA_BODY_NONE,
        .query = stoa_registrations_query,
        .media = STOA_MEDIA_CSV,
        .status = 200,
        .audit_reads = true,
        .errors = { STOA_E_NOT_FOUND, STOA_E_INVALID_STATE },
        .summary = "The same as CSV; 409 where there are more than 50,000 "
                   "rows.",
        .tag = "events",
    },
    {
        .id = "events.staff",
        .method = STOA_GET,
        .path = "/api/v1/events/:id/staff",
        .who = STOA_EVENTS_WHO,
        .of = STOA_EVENTS_OF,
        .via = STOA_VIA_BOTH,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_WRITE,
        .list = &stoa_staff,
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .audit_reads = true,
        .errors = { STOA_E_NOT_FOUND },
        .summary = "Who helps at the event.",
        .tag = "events",
    },
    {
        .id = "events.staff_add",
        .method = STOA_POST,
        .path = "/api/v1/events/:id/staff",
        .who = STOA_EVENTS_WHO,
        .of = STOA_EVENTS_OF,
        .via = STOA_VIA_KEY,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.events_staff_add($ctx, $id, $user_id, $email, $relation)",
        .body_kind = STOA_BODY_JSON,
        .body = stoa_staff_body,
        .status = 201,
        .step_up = STOA_STEP_UP_OTHERS,
        .errors = { STOA_E_NOT_FOUND },
        .summary = "Let someone scan at the event, or manage it.",
        .tag = "events",
    },
    {
        .id = "events.staff_remove",
        .method = STOA_DELETE,
        .path = "/api/v1/events/:id/staff/:user_id",
        .who = STOA_EVENTS_WHO,
        .of = STOA_EVENTS_OF,
        .via = STOA_VIA_KEY,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.events_staff_remove($ctx, $id, $user_id)",
        .body_kind = STOA_BODY_NONE,
        .status = 204,
        .step_up = STOA_STEP_UP_OTHERS,
        .errors = { STOA_E_NOT_FOUND },
        .summary = "End it again.",
        .tag = "events",
    },
    {
        .id = "ticket_types.list",
        .method = STOA_GET,
        .path = "/api/v1/events/:id/ticket-types",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .via = STOA_VIA_BOTH,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_FAST,
        .list = &stoa_types,
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .errors = { STOA_E_NOT_FOUND },
        .summary = "The ticket types of an event.",
        .tag = "events",
    },
    {
        .id = "ticket_types.create",
        .method = STOA_POST,
        .path = "/api/v1/events/:id/ticket-types",
        .who = STOA_EVENTS_WHO,
        .of = STOA_EVENTS_OF,
        .via = STOA_VIA_BOTH,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.ticket_types_create($ctx, $id, $body)",
        .body_kind = STOA_BODY_JSON,
        .body = stoa_types_create_body,
        .status = 201,
        .keyed = true,
        .errors = { STOA_E_INVALID_STATE },
        .summary = "Add a ticket type to an event.",
        .tag = "events",
    },
    { STOA_TYPES_UPDATE("ticket_types.update", STOA_PUT) },
    { STOA_TYPES_UPDATE("ticket_types.patch", STOA_PATCH) },
    {
        .id = "ticket_types.delete",
        .method = STOA_DELETE,
        .path = "/api/v1/ticket-types/:id",
        .who = STOA_EVENTS_WHO,
        .of = STOA_TYPES_OF,
        .via = STOA_VIA_BOTH,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.ticket_types_delete($ctx, $id, $if_match)",
        .body_kind = STOA_BODY_NONE,
        .status = 204,
        .if_match = true,
        .errors = { STOA_E_INVALID_STATE },
        .summary = "Remove a ticket type that nobody ordered.",
        .tag = "events",
    },
    {
        .id = "promo_codes.list",
        .method = STOA_GET,
        .path = "/api/v1/events/:id/promo-codes",
        .who = STOA_EVENTS_WHO,
        .of = STOA_EVENTS_OF,
        .via = STOA_VIA_BOTH,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_FAST,
        .list = &stoa_promos,
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .errors = { STOA_E_NOT_FOUND },
        .summary = "The promo codes of an event with their uses.",
        .tag = "events",
    },
    {
        .id = "promo_codes.create",
        .method = STOA_POST,
        .path = "/api/v1/events/:id/promo-codes",
        .who = STOA_EVENTS_WHO,
        .of = STOA_EVENTS_OF,
        .via = STOA_VIA_KEY,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.promo_codes_create($ctx, $id, $body)",
        .body_kind = STOA_BODY_JSON,
        .body = stoa_promo_body,
        .status = 201,
        .keyed = true,
        .errors = { STOA_E_CONFLICT, STOA_E_INVALID_STATE },
        .summary = "Add a promo code to an event.",
        .tag = "events",
    },
    {
        .id = "promo_codes.patch",
        .method = STOA_PATCH,
        .path = "/api/v1/promo-codes/:id",
        .who = STOA_EVENTS_WHO,
        .of = STOA_PROMOS_OF,
        .via = STOA_VIA_KEY,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.promo_codes_update($ctx, $id, $if_match, $body)",
        .body_kind = STOA_BODY_JSON,
        .body = stoa_promo_update_body,
        .status = 200,
        .keyed = true,
        .if_match = true,
        .errors = { STOA_E_INVALID_STATE },
        .summary = "Change how often and when a promo code works; validUntil "
                   "ends it.",
        .tag = "events",
    },
    {
        .id = "promo_codes.delete",
        .method = STOA_DELETE,
        .path = "/api/v1/promo-codes/:id",
        .who = STOA_EVENTS_WHO,
        .of = STOA_PROMOS_OF,
        .via = STOA_VIA_KEY,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.promo_codes_delete($ctx, $id, $if_match)",
        .body_kind = STOA_BODY_NONE,
        .status = 204,
        .if_match = true,
        .errors = { STOA_E_INVALID_STATE },
        .summary = "Remove a promo code that no order used.",
        .tag = "events",
    },
    { .id = NULL },
};
