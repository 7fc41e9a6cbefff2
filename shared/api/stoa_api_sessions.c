/*
 * Rows of /auth/sessions: where one is signed in, and the end of it.  The
 * functions are in migrations/api/12_sessions.sql.
 */

#include "stoa_api_tables.h"

static const stoa_sort_t stoa_sessions_sorts[] = {
    { "-lastUsedAt", "s.rotated_at", "timestamptz", true },
    { "lastUsedAt", "s.rotated_at", "timestamptz", false },
    { "-createdAt", "s.opened_at", "timestamptz", true },
    { "createdAt", "s.opened_at", "timestamptz", false },
    { NULL, NULL, NULL, false },
};

static const stoa_list_t stoa_sessions_list = {
    .from = "api.sessions_live s",
    .item = "json_build_object('id', s.id, 'deviceName', s.device_name, "
            "'userAgent', s.user_agent, 'ip', s.ip, "
            "'createdAt', s.created_at, 'lastUsedAt', s.last_used_at, "
            "'expiresAt', s.expires_at, 'remember', s.remember, "
            "'current', s.id is not distinct from $session)",
    .id = "s.id",
    .where = "s.user_id = $actor",
    .sorts = stoa_sessions_sorts,
    .limit = 20,
    .max = 100,
};

const stoa_endpoint_t stoa_api_sessions[] = {
    {
        .id = "auth.sessions",
        .method = STOA_GET,
        .path = "/api/v1/auth/sessions",
        .who = STOA_MEMBER,
        .of = STOA_OF_NONE,
        .via = STOA_VIA_ACTING,
        .rate = STOA_RATE_READ,
        .pool = STOA_POOL_FAST,
        .list = &stoa_sessions_list,
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .summary = "Where one is signed in, newest use first.",
        .tag = "auth",
    },
    {
        .id = "auth.session_end",
        .method = STOA_DELETE,
        .path = "/api/v1/auth/sessions/:id",
        .who = STOA_MEMBER,
        .of = { "session", "id", "owner" },
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .flow = STOA_FLOW_SESSION_END,
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .summary = "End one of one's own sessions; the current one is a "
                   "logout.",
        .tag = "auth",
    },
    {
        .id = "auth.sessions_end",
        .method = STOA_DELETE,
        .path = "/api/v1/auth/sessions",
        .who = STOA_MEMBER,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.sessions_end($ctx)",
        .body_kind = STOA_BODY_NONE,
        .status = 200,
        .summary = "End all of one's sessions but this one.",
        .tag = "auth",
    },
    { .id = NULL },
};
