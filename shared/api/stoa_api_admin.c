/*
 * Rows of administration.  Statements: migrations/api/06_audit.sql,
 * 13_mfa.sql and, of acting in an account's name, 14_keys.sql.
 */

#include "stoa_api_tables.h"

static const stoa_field_t stoa_audit_query[] = {
    { .name = "actor", .type = STOA_T_UUID, .summary = "By this account" },
    { .name = "acting_as",
      .type = STOA_T_UUID,
      .summary = "By this admin in somebody's name" },
    { .name = "api_key", .type = STOA_T_UUID, .summary = "By this API key" },
    { .name = "action",
      .type = STOA_T_TEXT,
      .min = 1,
      .max = 60,
      .summary = "Actions that begin so",
      .example = "\"order.\"" },
    { .name = "resource",
      .type = STOA_T_TEXT,
      .min = 1,
      .max = 60,
      .summary = "On this kind of resource",
      .example = "\"order\"" },
    { .name = "resource_id",
      .type = STOA_T_TEXT,
      .min = 1,
      .max = 255,
      .summary = "On the resource of this id" },
    { .name = "from", .type = STOA_T_TIME, .summary = "At this time or later" },
    { .name = "to", .type = STOA_T_TIME, .summary = "Before this time" },
    { .name = "request_id",
      .type = STOA_T_TEXT,
      .min = 1,
      .max = 100,
      .summary = "In the request of this id, or \"task:\" and its kind" },
    stoa_end_field,
};

static const stoa_filter_t stoa_audit_filters[] = {
    { "actor", "a.actor = $q_actor" },
    { "acting_as", "a.acting_as = $q_acting_as" },
    { "api_key", "a.api_key = $q_api_key" },
    { "action", "starts_with(a.action, $action)" },
    { "resource", "a.resource = $resource" },
    { "resource_id", "a.resource_id = $resource_id" },
    { "from", "a.at >= $from" },
    { "to", "a.at < $to" },
    { "request_id", "a.request_id = $q_request_id" },
    { NULL, NULL },
};

/* By id, which is the order of their making; it is of the log alone, where a
   restored copy begins to count transactions anew. */
static const stoa_sort_t stoa_audit_sorts[] = {
    { "-id", "a.id", "bigint", true },
    { NULL, NULL, NULL, false },
};

static const stoa_list_t stoa_audit = {
    .from = "api.audit_list a",
    .item = "a.item",
    .id = "a.id",
    .id_type = "bigint",
    .sorts = stoa_audit_sorts,
    .filters = stoa_audit_filters,
    .limit = 20,
    .max = 100,
};

static const stoa_field_t stoa_impersonate_body[] = {
    { .name = "reason",
      .type = STOA_T_TEXT,
      .flags = STOA_REQUIRED,
      .min = 3,
      .max = 300,
      .summary = "Why; it stays in the audit log" },
    stoa_end_field,
};

const stoa_endpoint_t stoa_api_admin[] = {
    {
        .id = "admin.audit",
        .method = STOA_GET,
        .path = "/api/v1/admin/audit",
        .who = STOA_ADMIN,
        .of = STOA_OF_NONE,
        .via = STOA_VIA_KEY,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_SLOW,
        .list = &stoa_audit,
        .body_kind = STOA_BODY_NONE,
        .query = stoa_audit_query,
        .status = 200,
        .step_up = STOA_STEP_UP_OTHERS,
        .summary = "Who did what to what, newest first.",
        .tag = "admin",
    },
    {
        .id = "admin.mfa_remove",
        .method = STOA_DELETE,
        .path = "/api/v1/admin/users/:id/mfa",
        .who = STOA_ADMIN,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.admin_mfa_remove($ctx, $id)",
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .step_up = STOA_STEP_UP_OTHERS,
        .errors = { STOA_E_INVALID_STATE },
        .summary = "Take away the second factor of somebody who lost it.",
        .tag = "admin",
    },
    {
        .id = "admin.impersonate",
        .method = STOA_POST,
        .path = "/api/v1/admin/users/:id/impersonate",
        .who = STOA_ADMIN,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_IMPERSONATE,
        .body_kind = STOA_BODY_JSON,
        .body = stoa_impersonate_body,
        .status = 200,
        .errors = { STOA_E_INVALID_STATE },
        .step_up = STOA_STEP_UP_OTHERS,
        .summary = "An access token of at most 15 minutes in an account's "
                   "name; what is done by it is in the audit log as yours.",
        .tag = "admin",
    },
    { .id = NULL },
};
