/*
 * Rows of admission: the online door, devices, the offline snapshot and its
 * merge.  Statements: migrations/api/50_checkin.sql, 51_offline.sql.
 */

#include "stoa_api_tables.h"

#define STOA_CHECKIN_WHO                                                      \
    (STOA_SCANNER | STOA_ORGANIZER | STOA_PRACTITIONER | STOA_ADMIN)
#define STOA_CHECKIN_MANAGE (STOA_ORGANIZER | STOA_PRACTITIONER | STOA_ADMIN)

static const char *const stoa_checkin_modes[] = { "admit", "lookup", NULL };
static const char *const stoa_checkin_ways[] = { "entry", "exit", NULL };

static const stoa_field_t stoa_validate_body[] = {
    { .name = "code", .type = STOA_T_CODE, .flags = STOA_REQUIRED, .min = 1,
      .max = 512, .summary = "The ticket's code as it was scanned" },
    { .name = "event_id", .type = STOA_T_UUID,
      .summary = "The event of this door; absent: the ticket's" },
    { .name = "device_id", .type = STOA_T_TEXT, .min = 1, .max = 64,
      .summary = "Names the device of somebody who is signed in" },
    { .name = "nonce", .type = STOA_T_TEXT, .min = 1, .max = 100,
      .summary = "Of this scan: a repeat gets the same verdict" },
    { .name = "mode", .type = STOA_T_ENUM, .values = stoa_checkin_modes,
      .summary = "lookup never admits" },
    { .name = "gate", .type = STOA_T_TEXT, .max = 60, .summary = "Where" },
    { .name = "direction", .type = STOA_T_ENUM, .values = stoa_checkin_ways,
      .summary = "entry when absent" },
    stoa_end_field,
};

static const stoa_field_t stoa_pair_body[] = {
    { .name = "event_id", .type = STOA_T_UUID, .flags = STOA_REQUIRED,
      .summary = "The event where it will scan" },
    { .name = "name", .type = STOA_T_TEXT, .flags = STOA_REQUIRED, .min = 1,
      .max = 60, .summary = "Name of the device",
      .example = "\"North door\"" },
    { .name = "gate", .type = STOA_T_TEXT, .max = 60,
      .summary = "Gate of its scans" },
    stoa_end_field,
};

static const stoa_field_t stoa_device_login_body[] = {
    { .name = "code", .type = STOA_T_SECRET, .flags = STOA_REQUIRED, .min = 8,
      .max = 40, .summary = "The pairing code, within ten minutes" },
    stoa_end_field,
};

static const stoa_field_t stoa_devices_query[] = {
    { .name = "event_id", .type = STOA_T_UUID, .flags = STOA_REQUIRED,
      .summary = "Of this event" },
    stoa_end_field,
};

static const stoa_field_t stoa_snapshot_query[] = {
    { .name = "event_id", .type = STOA_T_UUID,
      .summary = "The event; a device knows its own" },
    { .name = "since", .type = STOA_T_TIME,
      .summary = "\"until\" of the last answer: only what changed since" },
    { .name = "after", .type = STOA_T_UUID,
      .summary = "\"next\" of the last answer: the following part" },
    stoa_end_field,
};

static const stoa_field_t stoa_batch_item[] = {
    { .name = "nonce", .type = STOA_T_TEXT, .flags = STOA_REQUIRED, .min = 1,
      .max = 100, .summary = "Of this scan; the first of a device counts" },
    { .name = "code", .type = STOA_T_CODE, .flags = STOA_REQUIRED, .min = 1,
      .max = 512, .summary = "The code" },
    { .name = "direction", .type = STOA_T_ENUM, .values = stoa_checkin_ways,
      .summary = "entry when absent" },
    { .name = "scanned_at", .type = STOA_T_TIME, .flags = STOA_REQUIRED,
      .summary = "On the device's clock" },
    { .name = "clock_offset_ms", .type = STOA_T_INT, .min = -86400000,
      .max = 86400000,
      .summary = "Added to scannedAt; fixed when the snapshot was taken" },
    { .name = "gate", .type = STOA_T_TEXT, .max = 60, .summary = "Where" },
    stoa_end_field,
};

static const stoa_field_t stoa_batch_body[] = {
    { .name = "items", .type = STOA_T_LIST, .flags = STOA_REQUIRED, .min = 1,
      .max = 1000, .items = stoa_batch_item, .object = true,
      .summary = "Scans of the offline queue, in any order" },
    { .name = "event_id", .type = STOA_T_UUID,
      .summary = "The event; a device knows its own" },
    { .name = "device_id", .type = STOA_T_TEXT, .min = 1, .max = 64,
      .summary = "Names the device of somebody who is signed in" },
    stoa_end_field,
};

const stoa_endpoint_t stoa_api_checkin[] = {
    {
        .id = "orders.validate",
        .method = STOA_POST,
        .path = "/api/v1/orders/validate",
        .who = STOA_CHECKIN_WHO | STOA_DEVICE,
        .of = { "event", "event_id", "scan" },
        .rate = STOA_RATE_SCAN,
        .pool = STOA_POOL_WRITE,
        .sql = "api.orders_validate($ord, $ctx, $code, $event_id, $device_id, "
               "$nonce, $mode, $gate, $direction)",
        .body_kind = STOA_BODY_JSON,
        .body = stoa_validate_body,
        .status = 200,
        .batch = 64,
        .errors = { STOA_E_FORBIDDEN },
        .summary = "Scan a ticket: admitted once, every other verdict is a "
                   "200 too.",
        .tag = "checkin",
    },
    {
        .id = "checkin.pair",
        .method = STOA_POST,
        .path = "/api/v1/checkin/devices",
        .who = STOA_CHECKIN_MANAGE,
        .of = { "event", "event_id", "manage" },
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_DEVICE_PAIR,
        .body_kind = STOA_BODY_JSON,
        .body = stoa_pair_body,
        .status = 201,
        .errors = { STOA_E_NOT_FOUND },
        .summary = "Make a pairing code for a scanner device.",
        .tag = "checkin",
    },
    {
        .id = "checkin.devices",
        .method = STOA_GET,
        .path = "/api/v1/checkin/devices",
        .who = STOA_CHECKIN_MANAGE,
        .of = { "event", "event_id", "manage" },
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_FAST,
        .sql = "api.devices_list($ctx, $event_id)",
        .body_kind = STOA_BODY_NONE,
        .query = stoa_devices_query,
        .status = 200,
        .errors = { STOA_E_NOT_FOUND },
        .summary = "The scanner devices of an event.",
        .tag = "checkin",
    },
    {
        .id = "checkin.device_login",
        .method = STOA_POST,
        .path = "/api/v1/checkin/devices/login",
        .who = STOA_PUBLIC,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_AUTH,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_DEVICE_LOGIN,
        .body_kind = STOA_BODY_JSON,
        .body = stoa_device_login_body,
        .status = 200,
        .errors = { STOA_E_INVALID_CREDENTIALS },
        .summary = "Exchange a pairing code for a device token of 90 days.",
        .tag = "checkin",
    },
    {
        .id = "checkin.device_delete",
        .method = STOA_DELETE,
        .path = "/api/v1/checkin/devices/:id",
        .who = STOA_CHECKIN_MANAGE,
        .of = { "device", "id", "manage" },
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.devices_delete($ctx, $id)",
        .body_kind = STOA_BODY_NONE,
        .status = 204,
        .errors = { STOA_E_NOT_FOUND },
        .summary = "Revoke a device; its token dies within a second.",
        .tag = "checkin",
    },
    {
        .id = "checkin.snapshot",
        .method = STOA_GET,
        .path = "/api/v1/checkin/snapshot",
        .who = STOA_CHECKIN_WHO | STOA_DEVICE,
        .of = { "event", "event_id", "scan" },
        .rate = STOA_RATE_SCAN,
        .pool = STOA_POOL_SLOW,
        .sql = "api.checkin_snapshot($ctx, $event_id, $since, $after)",
        .body_kind = STOA_BODY_NONE,
        .query = stoa_snapshot_query,
        .status = 200,
        .errors = { STOA_E_FORBIDDEN },
        .summary = "What a device needs to admit without a network.",
        .tag = "checkin",
    },
    {
        .id = "checkin.batch",
        .method = STOA_POST,
        .path = "/api/v1/checkin/batch",
        .who = STOA_CHECKIN_WHO | STOA_DEVICE,
        .of = { "event", "event_id", "scan" },
        .rate = STOA_RATE_SCAN,
        .pool = STOA_POOL_WRITE,
        .sql = "api.checkin_batch($ctx, $event_id, $device_id, $items)",
        .body_kind = STOA_BODY_JSON,
        .body = stoa_batch_body,
        .body_max = 1048576,
        .status = 200,
        .errors = { STOA_E_FORBIDDEN },
        .summary = "Upload offline scans; the result does not depend on order "
                   "or repetition.",
        .tag = "checkin",
    },
    {
        .id = "checkin.stats",
        .method = STOA_GET,
        .path = "/api/v1/events/:id/checkin/stats",
        .who = STOA_CHECKIN_WHO | STOA_DEVICE,
        .of = { "event", "id", "scan" },
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_FAST,
        .sql = "api.checkin_stats($ctx, $id)",
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .errors = { STOA_E_FORBIDDEN },
        .summary = "How many are in, by ticket type and gate.",
        .tag = "checkin",
    },
    { .id = NULL },
};
