/*
 * Rows of presence: who is online.  The marks are in Redis, for one minute
 * each (ngx_http_stoa_presence.c); api.presence_of() says who may be seen.
 */

#include "stoa_api_tables.h"

static const stoa_field_t stoa_presence_id[] = {
    { .name = "id", .type = STOA_T_UUID },
    stoa_end_field,
};

static const stoa_field_t stoa_presence_query[] = {
    { .name = "ids",
      .type = STOA_T_LIST,
      .flags = STOA_REQUIRED,
      .min = 1,
      .max = 100,
      .items = stoa_presence_id,
      .summary = "Of these accounts, with commas between" },
    stoa_end_field,
};

const stoa_endpoint_t stoa_api_presence[] = {
    {
        .id = "presence.beat",
        .method = STOA_PUT,
        .path = "/api/v1/presence",
        .who = STOA_MEMBER,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_WRITE,
        .flow = STOA_FLOW_PRESENCE_BEAT,
        .body_kind = STOA_BODY_NONE,
        .status = 204,
        .summary = "Say that one is online, for the next minute; every 30 "
                   "seconds is often enough.",
        .tag = "presence",
    },
    {
        .id = "presence.list",
        .method = STOA_GET,
        .path = "/api/v1/presence",
        .who = STOA_MEMBER,
        .of = STOA_OF_NONE,
        .via = STOA_VIA_BOTH,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_FAST,
        .flow = STOA_FLOW_PRESENCE_LIST,
        .body_kind = STOA_BODY_NONE,
        .query = stoa_presence_query,
        .status = 200,
        .summary = "Who of these people is online, and when each was last "
                   "seen; whom one may not see is left out, and unknown is "
                   "what nobody can say just now.",
        .tag = "presence",
    },
    { .id = NULL },
};
