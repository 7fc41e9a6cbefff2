/*
 * Rows of tickets.  Statements: migrations/api/40_tickets.sql.
 */

#include "stoa_api_tables.h"

/* clang-format off */
#define STOA_TICKETS_OF { "ticket", "id", "owner" }
/* clang-format on */

static const char *const stoa_tickets_states[] = {
    "reserved",  "valid",    "admitted", "exited",
    "cancelled", "refunded", "expired",  NULL,
};

static const stoa_field_t stoa_tickets_list_query[] = {
    { .name = "state",
      .type = STOA_T_ENUM,
      .values = stoa_tickets_states,
      .summary = "In this state only" },
    { .name = "event_id", .type = STOA_T_UUID, .summary = "Of this event" },
    { .name = "search",
      .type = STOA_T_TEXT,
      .min = 1,
      .max = 100,
      .summary = "Part of the title, the type or the name on it" },
    { .name = "past",
      .type = STOA_T_BOOL,
      .summary = "true: of events that are over; false: of the others" },
    stoa_end_field,
};

static const stoa_filter_t stoa_tickets_list_filters[] = {
    { "state", "t.state = $state" },
    { "event_id", "t.event_id = $event_id" },
    { "search", "t.event_title ilike api.like($search) or t.type_name ilike "
                "api.like($search) or t.holder_name ilike "
                "api.like($search)" },
    { "past", "t.upcoming <> $past" },
    { NULL, NULL },
};

static const stoa_sort_t stoa_tickets_list_sorts[] = {
    { "-createdAt", "t.created_at", "timestamptz", true },
    { "createdAt", "t.created_at", "timestamptz", false },
    { "startsAt", "t.starts_at", "timestamptz", false },
    { "-startsAt", "t.starts_at", "timestamptz", true },
    { NULL, NULL, NULL, false },
};

static const stoa_list_t stoa_tickets_list = {
    .from = "api.tickets_list t",
    .item = "t.item",
    .id = "t.id",
    .where = "t.holder_id = $actor and t.state <> 'reserved'",
    .sorts = stoa_tickets_list_sorts,
    .filters = stoa_tickets_list_filters,
    .limit = 20,
    .max = 100,
};

static const stoa_field_t stoa_tickets_transfer_body[] = {
    { .name = "email",
      .type = STOA_T_EMAIL,
      .flags = STOA_REQUIRED,
      .max = 254,
      .summary = "Account of the new holder" },
    stoa_end_field,
};

/* clang-format off */
#define STOA_TICKETS_RENDER(row_id, row_path, format, text)                   \
    .id = row_id, .method = STOA_GET, .path = row_path, .who = STOA_MEMBER,   \
    .of = STOA_TICKETS_OF, .rate = STOA_RATE_READ, .pool = STOA_POOL_WRITE,   \
    .sql = "select r.status, r.body, r.type, r.bytes, r.emit, r.wait from "   \
           "api.tickets_render($ctx, $id, '" format "') r",                   \
    .body_kind = STOA_BODY_NONE, .media = STOA_MEDIA_BYTES, .wait_ms = 4000,  \
    .via = STOA_VIA_BOTH,                                                     \
    .status = 200, .errors = { STOA_E_NOT_FOUND, STOA_E_INVALID_STATE },      \
    .summary = text, .tag = "tickets"
/* clang-format on */

const stoa_endpoint_t stoa_api_tickets[] = {
    {
        .id = "tickets.list",
        .method = STOA_GET,
        .path = "/api/v1/tickets",
        .who = STOA_MEMBER,
        .of = STOA_OF_NONE,
        .via = STOA_VIA_BOTH,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_FAST,
        .list = &stoa_tickets_list,
        .body_kind = STOA_BODY_NONE,
        .query = stoa_tickets_list_query,
        .status = 200,
        .summary = "The tickets that one holds.",
        .tag = "tickets",
    },
    {
        .id = "tickets.get",
        .method = STOA_GET,
        .path = "/api/v1/tickets/:id",
        .who = STOA_MEMBER,
        .of = STOA_TICKETS_OF,
        .via = STOA_VIA_BOTH,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_FAST,
        .sql = "select 200 as status, case when t.holder_id = $actor or "
               "'admin' = any ($roles) then t.body else api.uncoded(t.body) "
               "end as body, t.version || case when t.holder_id = $actor or "
               "'admin' = any ($roles) then '' else '.m' end as etag from "
               "api.tickets_detail t where t.id = $id and "
               "(t.holder_id = $actor or 'admin' = any ($roles) or exists "
               "(select from api.acl_ticket a where a.id = t.id and "
               "a.user_id = $actor))",
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .errors = { STOA_E_NOT_FOUND },
        .summary = "One ticket, with its code for its holder.",
        .tag = "tickets",
    },
    {
        .id = "tickets.svg",
        .method = STOA_GET,
        .path = "/api/v1/tickets/:id.svg",
        .who = STOA_MEMBER,
        .of = STOA_TICKETS_OF,
        .via = STOA_VIA_BOTH,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_FAST,
        .flow = STOA_FLOW_TICKET_SVG,
        .body_kind = STOA_BODY_NONE,
        .media = STOA_MEDIA_BYTES,
        .status = 200,
        .errors = { STOA_E_NOT_FOUND, STOA_E_INVALID_STATE },
        .summary = "Its QR code as an image.",
        .tag = "tickets",
    },
    { STOA_TICKETS_RENDER("tickets.png", "/api/v1/tickets/:id.png", "png",
                          "Its QR code as PNG; 202 while it is drawn.") },
    { STOA_TICKETS_RENDER("tickets.pdf", "/api/v1/tickets/:id.pdf", "pdf",
                          "The ticket to print; 202 while it is drawn.") },
    {
        .id = "tickets.transfer",
        .method = STOA_POST,
        .path = "/api/v1/tickets/:id/transfer",
        .who = STOA_MEMBER,
        .of = STOA_TICKETS_OF,
        .via = STOA_VIA_KEY,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_TICKET_CHANGE,
        .body_kind = STOA_BODY_JSON,
        .body = stoa_tickets_transfer_body,
        .status = 200,
        .keyed = true,
        .errors = { STOA_E_NOT_FOUND, STOA_E_INVALID_STATE, STOA_E_CONFLICT,
                    STOA_E_ALREADY_REGISTERED },
        .summary = "Give a ticket to another account; the old code dies.",
        .tag = "tickets",
    },
    {
        .id = "tickets.reissue",
        .method = STOA_POST,
        .path = "/api/v1/tickets/:id/reissue",
        .who = STOA_MEMBER,
        .of = STOA_TICKETS_OF,
        .via = STOA_VIA_BOTH,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_TICKET_CHANGE,
        .body_kind = STOA_BODY_JSON,
        .status = 200,
        .keyed = true,
        .errors = { STOA_E_NOT_FOUND, STOA_E_INVALID_STATE, STOA_E_CONFLICT },
        .summary = "Make a new code; the old one dies.",
        .tag = "tickets",
    },
    { .id = NULL },
};
