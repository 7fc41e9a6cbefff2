/*
 * The statements of flows and gates: each with its flow, name, text, number
 * of parameters and whether it writes.  Names in the texts are whole, types
 * of parameters stand as casts.
 */

#include "stoa_flow.h"

#include "../stoa_str.h"

#define STOA_STMT_ANSWER                                                       \
    "select a.status, a.body, a.meta, a.etag, a.emit, a.wait from "

/* Decision 6 for the last statement of a flow, as stoa_bind.c makes it for
   rows: $1, $2, $3 are scope, key and print.  STARTING (503) is the one
   refusal of these calls that is not kept. */
#define STOA_STMT_AT(at)                                                       \
    "to_char(" at " at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') " \
    "as at "
#define STOA_STMT_KEYED_BODY                                                   \
    "when 'stored' then i.body "                                               \
    "when 'in_flight' then '{\"code\":\"IN_FLIGHT\"}'::json "                  \
    "else '{\"code\":\"IDEMPOTENCY_KEY_REUSED\"}'::json end as body, "
#define STOA_STMT_KEYED_FROM "from i left join a on true left join s on true"
#define STOA_STMT_KEYED(call)                                                  \
    "with i as materialized (select b.state, b.status, b.body, b.meta, "       \
    "b.etag, b.at from api.idem_begin($1::text, $2::text, $3::text) b), "      \
    "a as materialized (select c.status, c.body, c.meta, c.etag, c.emit, "     \
    "c.wait from i cross join lateral (" STOA_STMT_ANSWER call                 \
    " a where i.state = 'new' offset 0) c), "                                  \
    "s as materialized (select api.idem_store($1::text, $2::text, "            \
    "$3::text, a.status, a.body, a.meta, a.etag) as at from a where "          \
    "a.status < 500 and (a.status <> 0 or "                                    \
    "a.body->>'code' <> 'STARTING')) "                                         \
    "select case i.state when 'new' then a.status when 'stored' then "         \
    "i.status else 0 end as status, "                                          \
    "case i.state when 'new' then a.body " STOA_STMT_KEYED_BODY                \
    "case i.state when 'new' then a.meta else i.meta end as meta, "            \
    "case i.state when 'new' then a.etag else i.etag end as etag, "            \
    "a.emit, a.wait, i.state = 'stored' as replayed, " STOA_STMT_AT(           \
        "case i.state when 'new' then s.at else i.at end")                     \
        STOA_STMT_KEYED_FROM

#define STOA_STMT_GRANTED                                                      \
    "a.status, a.body, a.user_id, a.roles, a.epoch, a.sid, a.counter, "        \
    "a.refresh, a.emit, a.max_age, a.auth_time, a.amr, a.mfa from "
#define STOA_STMT_GRANT "select " STOA_STMT_GRANTED

/* Of an account, for who is to try a code of its second factor. */
#define STOA_STMT_MFA "a.mfa_id, a.mfa_secret, a.mfa_step, a.mfa_rest from "

const stoa_flow_stmt_t stoa_flow_stmts[STOA_STMT_COUNT] = {
    [STOA_STMT_REGISTER] = {
        .flow = STOA_FLOW_AUTH_REGISTER,
        .stmt = {
            .name = "flow_register",
            .sql = STOA_STMT_GRANT
                   "api.auth_register($1::api.ctx, $2::text, $3::text, "
                   "$4::text, $5::text, $6::text, $7::text) a",
            .nparams = 7,
            .write = true,
        },
    },
    [STOA_STMT_LOGIN_BEGIN] = {
        .flow = STOA_FLOW_AUTH_LOGIN,
        .stmt = {
            .name = "flow_login_begin",
            .sql = "select a.user_id, a.hash, " STOA_STMT_MFA
                   "api.auth_login_begin($1::text) a",
            .nparams = 1,
        },
    },
    [STOA_STMT_LOGIN_FINISH] = {
        .flow = STOA_FLOW_AUTH_LOGIN,
        .stmt = {
            .name = "flow_login_finish",
            .sql = STOA_STMT_GRANT
                   "api.auth_login_finish($1::api.ctx, $2::uuid, $3::boolean, "
                   "$4::text, $5::text, $6::text, $7::uuid, $8::bigint, "
                   "$9::bytea, $10::bytea) a",
            .nparams = 10,
            .write = true,
        },
    },
    [STOA_STMT_LOGIN_FAILED] = {
        .flow = STOA_FLOW_AUTH_LOGIN,
        .stmt = {
            .name = "flow_login_failed",
            .sql = STOA_STMT_GRANT
                   "api.auth_login_failed($1::api.ctx, $2::uuid) a",
            .nparams = 2,
            .write = true,
        },
    },
    [STOA_STMT_REFRESH] = {
        .flow = STOA_FLOW_AUTH_REFRESH,
        .batch = 32,
        .stmt = {
            .name = "flow_refresh",
            /* in the order of sessions, in which others lock them as well */
            .sql = "select o.ord, " STOA_STMT_GRANTED
                   "(select i as ord from generate_subscripts($2::uuid[], 1) "
                   "i order by ($2::uuid[])[i]) o cross join lateral "
                   "api.auth_refresh(($1::api.ctx[])[o.ord], "
                   "($2::uuid[])[o.ord], ($3::bigint[])[o.ord]) a",
            .nparams = 3,
            .write = true,
        },
    },
    [STOA_STMT_LOGOUT] = {
        .flow = STOA_FLOW_AUTH_LOGOUT,
        .stmt = {
            .name = "flow_logout",
            .sql = STOA_STMT_ANSWER
                   "api.auth_logout($1::api.ctx, $2::boolean) a",
            .nparams = 2,
            .write = true,
        },
    },
    [STOA_STMT_SESSION_END] = {
        .flow = STOA_FLOW_SESSION_END,
        .stmt = {
            .name = "flow_session_end",
            .sql = STOA_STMT_ANSWER
                   "api.session_end($1::api.ctx, $2::uuid) a",
            .nparams = 2,
            .write = true,
        },
    },
    [STOA_STMT_FORGOT] = {
        .flow = STOA_FLOW_AUTH_RESET,
        .stmt = {
            .name = "flow_forgot",
            .sql = STOA_STMT_ANSWER
                   "api.auth_forgot($1::api.ctx, $2::text) a",
            .nparams = 2,
            .write = true,
        },
    },
    [STOA_STMT_RESET_BEGIN] = {
        .flow = STOA_FLOW_AUTH_RESET,
        .stmt = {
            .name = "flow_reset_begin",
            .sql = "select a.ok, a.email from "
                   "api.auth_reset_begin($1::bytea) a",
            .nparams = 1,
        },
    },
    [STOA_STMT_RESET] = {
        .flow = STOA_FLOW_AUTH_RESET,
        .stmt = {
            .name = "flow_reset",
            .sql = STOA_STMT_ANSWER
                   "api.auth_reset($1::api.ctx, $2::bytea, $3::text) a",
            .nparams = 3,
            .write = true,
        },
    },
    [STOA_STMT_PASSWORD_BEGIN] = {
        .flow = STOA_FLOW_AUTH_PASSWORD,
        .stmt = {
            .name = "flow_password_begin",
            .sql = "select a.email, a.hash from "
                   "api.auth_password_begin($1::api.ctx) a",
            .nparams = 1,
        },
    },
    [STOA_STMT_PASSWORD] = {
        .flow = STOA_FLOW_AUTH_PASSWORD,
        .stmt = {
            .name = "flow_password",
            .sql = STOA_STMT_GRANT
                   "api.auth_password($1::api.ctx, $2::text, $3::text, "
                   "$4::text) a",
            .nparams = 4,
            .write = true,
        },
    },
    [STOA_STMT_VERIFY] = {
        .flow = STOA_FLOW_AUTH_VERIFY,
        .stmt = {
            .name = "flow_verify",
            .sql = STOA_STMT_ANSWER
                   "api.auth_verify($1::api.ctx, $2::bytea) a",
            .nparams = 2,
            .write = true,
        },
    },
    [STOA_STMT_USER_EMAIL] = {
        .flow = STOA_FLOW_USER_EMAIL,
        .stmt = {
            .name = "flow_user_email",
            .sql = STOA_STMT_ANSWER
                   "api.users_email($1::api.ctx, $2::text, $3::text) a",
            .nparams = 3,
            .write = true,
        },
    },
    [STOA_STMT_MFA_CHALLENGE] = {
        .flow = STOA_FLOW_LOGIN_MFA,
        .stmt = {
            .name = "flow_mfa_challenge",
            .sql = "select a.user_id, a.email, " STOA_STMT_MFA
                   "api.auth_mfa_begin($1::api.ctx, $2::uuid) a",
            .nparams = 2,
        },
    },
    [STOA_STMT_LOGIN_MFA] = {
        .flow = STOA_FLOW_LOGIN_MFA,
        .stmt = {
            .name = "flow_login_mfa",
            .sql = STOA_STMT_GRANT
                   "api.auth_login_mfa($1::api.ctx, $2::uuid, $3::bigint, "
                   "$4::bytea, $5::bytea, $6::uuid, $7::text) a",
            .nparams = 7,
            .write = true,
        },
    },
    [STOA_STMT_MFA_BEGIN] = {
        .flow = STOA_FLOW_STEP_UP,
        .stmt = {
            .name = "flow_mfa_begin",
            .sql = "select a.user_id, a.email, a.hash, " STOA_STMT_MFA
                   "api.mfa_begin($1::api.ctx, $2::boolean) a",
            .nparams = 2,
        },
    },
    [STOA_STMT_MFA_ENROL] = {
        .flow = STOA_FLOW_MFA_ENROL,
        .stmt = {
            .name = "flow_mfa_enrol",
            .sql = STOA_STMT_ANSWER
                   "api.mfa_enrol($1::api.ctx, $2::uuid, $3::bytea, "
                   "$4::text) a",
            .nparams = 4,
            .write = true,
        },
    },
    [STOA_STMT_MFA_CONFIRM] = {
        .flow = STOA_FLOW_MFA_CONFIRM,
        .stmt = {
            .name = "flow_mfa_confirm",
            .sql = STOA_STMT_GRANT
                   "api.mfa_confirm($1::api.ctx, $2::uuid, $3::bigint, "
                   "$4::text) a",
            .nparams = 4,
            .write = true,
        },
    },
    [STOA_STMT_MFA_OFF] = {
        .flow = STOA_FLOW_MFA_OFF,
        .stmt = {
            .name = "flow_mfa_off",
            .sql = STOA_STMT_GRANT
                   "api.mfa_off($1::api.ctx, $2::uuid, $3::bigint, "
                   "$4::bytea, $5::bytea, $6::text) a",
            .nparams = 6,
            .write = true,
        },
    },
    [STOA_STMT_MFA_CODES] = {
        .flow = STOA_FLOW_MFA_CODES,
        .stmt = {
            .name = "flow_mfa_codes",
            .sql = STOA_STMT_GRANT
                   "api.mfa_codes($1::api.ctx, $2::uuid, $3::bigint, "
                   "$4::bytea, $5::text) a",
            .nparams = 5,
            .write = true,
        },
    },
    [STOA_STMT_STEP_UP] = {
        .flow = STOA_FLOW_STEP_UP,
        .stmt = {
            .name = "flow_step_up",
            .sql = STOA_STMT_GRANT
                   "api.auth_step_up($1::api.ctx, $2::uuid, $3::bigint, "
                   "$4::bytea, $5::bytea) a",
            .nparams = 5,
            .write = true,
        },
    },
    [STOA_STMT_KEY_CREATE] = {
        .flow = STOA_FLOW_KEY_CREATE,
        .stmt = {
            .name = "flow_key_create",
            .sql = STOA_STMT_ANSWER
                   "api.key_create($1::api.ctx, $2::uuid, $3::bytea, "
                   "$4::text, $5::jsonb) a",
            .nparams = 5,
            .write = true,
        },
    },
    [STOA_STMT_KEY_ROTATE] = {
        .flow = STOA_FLOW_KEY_ROTATE,
        .stmt = {
            .name = "flow_key_rotate",
            .sql = STOA_STMT_ANSWER
                   "api.key_rotate($1::api.ctx, $2::uuid, $3::uuid, "
                   "$4::bytea, $5::text, $6::jsonb) a",
            .nparams = 6,
            .write = true,
        },
    },
    [STOA_STMT_IMPERSONATE] = {
        .flow = STOA_FLOW_IMPERSONATE,
        .stmt = {
            .name = "flow_impersonate",
            .sql = "select a.status, a.body, a.user_id, a.roles, a.epoch, "
                   "a.act_epoch from api.impersonate($1::api.ctx, $2::uuid, "
                   "$3::text) a",
            .nparams = 3,
            .write = true,
        },
    },
    [STOA_STMT_OAUTH_BEGIN] = {
        .flow = STOA_FLOW_OAUTH_CALLBACK,
        .stmt = {
            .name = "flow_oauth_begin",
            .sql = "select api.oauth_begin($1::bytea, "
                   "pg_catalog.to_timestamp($2::bigint)) as fresh",
            .nparams = 2,
            .write = true,
        },
    },
    [STOA_STMT_OAUTH_SIGN_IN] = {
        .flow = STOA_FLOW_OAUTH_CALLBACK,
        .stmt = {
            .name = "flow_oauth_sign_in",
            .sql = STOA_STMT_GRANT
                   "api.oauth_sign_in($1::api.ctx, $2::text, $3::text, "
                   "$4::text, $5::text, $6::boolean, $7::text, $8::text, "
                   "$9::boolean, $10::text, $11::bytea, "
                   "pg_catalog.to_timestamp($12::bigint)) a",
            .nparams = 12,
            .write = true,
        },
    },
    [STOA_STMT_OAUTH_LINK] = {
        .flow = STOA_FLOW_OAUTH_CALLBACK,
        .stmt = {
            .name = "flow_oauth_link",
            .sql = STOA_STMT_ANSWER
                   "api.oauth_link($1::api.ctx, $2::uuid, $3::uuid, "
                   "$4::text, $5::text, $6::text, $7::text) a",
            .nparams = 7,
            .write = true,
        },
    },
    [STOA_STMT_PRESENCE] = {
        .flow = STOA_FLOW_PRESENCE_LIST,
        .stmt = {
            .name = "flow_presence",
            .sql = "select api.presence_of($1::api.ctx, $2::text) as ids",
            .nparams = 2,
        },
    },
    [STOA_STMT_DEVICE_PAIR] = {
        .flow = STOA_FLOW_DEVICE_PAIR,
        .stmt = {
            .name = "flow_device_pair",
            .sql = STOA_STMT_ANSWER
                   "api.device_pair($1::api.ctx, $2::uuid, $3::bytea, "
                   "$4::jsonb) a",
            .nparams = 4,
            .write = true,
        },
    },
    [STOA_STMT_DEVICE_LOGIN] = {
        .flow = STOA_FLOW_DEVICE_LOGIN,
        .stmt = {
            .name = "flow_device_login",
            .sql = STOA_STMT_ANSWER
                   "api.device_login($1::api.ctx, $2::bytea) a",
            .nparams = 2,
            .write = true,
        },
    },
    [STOA_STMT_TICKET_CODE] = {
        .flow = STOA_FLOW_TICKET_SVG,
        .stmt = {
            .name = "flow_ticket_code",
            .sql = STOA_STMT_ANSWER
                   "api.tickets_code($1::api.ctx, $2::uuid) a",
            .nparams = 2,
        },
    },
    [STOA_STMT_CHANGE_BEGIN] = {
        .flow = STOA_FLOW_TICKET_CHANGE,
        .stmt = {
            .name = "flow_change_begin",
            .sql = "select a.status, a.body, a.ticket_type_id, "
                   "a.generation from "
                   "api.tickets_change_begin($1::api.ctx, $2::uuid) a",
            .nparams = 2,
        },
    },
    [STOA_STMT_REISSUE] = {
        .flow = STOA_FLOW_TICKET_CHANGE,
        .stmt = {
            .name = "flow_reissue",
            .sql = STOA_STMT_ANSWER
                   "api.tickets_reissue($1::api.ctx, $2::uuid, $3::int, "
                   "$4::text, $5::jsonb) a",
            .nparams = 5,
            .write = true,
        },
    },
    [STOA_STMT_TRANSFER] = {
        .flow = STOA_FLOW_TICKET_CHANGE,
        .stmt = {
            .name = "flow_transfer",
            .sql = STOA_STMT_ANSWER
                   "api.tickets_transfer($1::api.ctx, $2::uuid, $3::int, "
                   "$4::text, $5::jsonb) a",
            .nparams = 5,
            .write = true,
        },
    },
    [STOA_STMT_EVENT_BEGIN] = {
        .flow = STOA_FLOW_EVENT_REGISTER,
        .stmt = {
            .name = "flow_event_begin",
            .sql = "select a.status, a.body, a.ticket_type_id from "
                   "api.events_register_begin($1::api.ctx, $2::uuid) a",
            .nparams = 2,
        },
    },
    [STOA_STMT_EVENT_REGISTER] = {
        .flow = STOA_FLOW_EVENT_REGISTER,
        .stmt = {
            .name = "flow_event_register",
            .sql = STOA_STMT_ANSWER
                   "api.events_register($1::api.ctx, $2::uuid, $3::uuid, "
                   "$4::jsonb) a",
            .nparams = 4,
            .write = true,
        },
    },
    [STOA_STMT_PAY] = {
        .flow = STOA_FLOW_PAY_FORM,
        .stmt = {
            .name = "flow_pay",
            .sql = STOA_STMT_ANSWER
                   "api.pay_form($1::api.ctx, $2::uuid, $3::text) a",
            .nparams = 3,
            .write = true,
        },
    },
    [STOA_STMT_IDEM_LOOK] = {
        .stmt = {
            .name = "idem_look",
            .sql = "select i.state, case i.state when 'stored' then i.status "
                   "else 0 end as status, "
                   "case i.state " STOA_STMT_KEYED_BODY
                   "i.meta, i.etag, i.state = 'stored' as replayed, "
                   STOA_STMT_AT("i.at")
                   "from api.idem_begin($1::text, $2::text, $3::text) i",
            .nparams = 3,
        },
    },
    [STOA_STMT_IDEM_KEEP] = {
        .stmt = {
            .name = "idem_keep",
            .sql = STOA_STMT_KEYED(
                "(select 0 as status, $4::json as body, null::json as meta, "
                "null::text as etag, null::json as emit, null::bigint as "
                "wait)"),
            .nparams = 4,
            .write = true,
        },
    },
    [STOA_STMT_REISSUE_KEYED] = {
        .flow = STOA_FLOW_TICKET_CHANGE,
        .stmt = {
            .name = "flow_reissue_keyed",
            .sql = STOA_STMT_KEYED(
                "api.tickets_reissue($4::api.ctx, $5::uuid, $6::int, "
                "$7::text, $8::jsonb)"),
            .nparams = 8,
            .write = true,
        },
    },
    [STOA_STMT_TRANSFER_KEYED] = {
        .flow = STOA_FLOW_TICKET_CHANGE,
        .stmt = {
            .name = "flow_transfer_keyed",
            .sql = STOA_STMT_KEYED(
                "api.tickets_transfer($4::api.ctx, $5::uuid, $6::int, "
                "$7::text, $8::jsonb)"),
            .nparams = 8,
            .write = true,
        },
    },
    [STOA_STMT_EVENT_REGISTER_KEYED] = {
        .flow = STOA_FLOW_EVENT_REGISTER,
        .stmt = {
            .name = "flow_event_register_keyed",
            .sql = STOA_STMT_KEYED(
                "api.events_register($4::api.ctx, $5::uuid, $6::uuid, "
                "$7::jsonb)"),
            .nparams = 7,
            .write = true,
        },
    },
    [STOA_STMT_IDEM_AMEND] = {
        .stmt = {
            .name = "idem_amend",
            .sql = "select api.idem_amend($1::text, $2::text, $3::text, "
                   "$4::json) as ok",
            .nparams = 4,
            .write = true,
        },
    },
    [STOA_STMT_FOREIGN] = {
        .stmt = {
            .name = "stoa_foreign",
            .sql = "select a.code, a.identity, a.user_id, a.roles, a.epoch, "
                   "a.since_ms, a.mfa from "
                   "api.auth_foreign($1::text, $2::text) a",
            .nparams = 2,
        },
    },
    [STOA_STMT_KEY_LOOK] = {
        .stmt = {
            .name = "stoa_key_look",
            .sql = "select k.state, k.user_id, k.roles, k.epoch, k.scopes, "
                   "k.expires_ms, k.used_ms, k.mfa from api.key_look("
                   "$1::uuid, $2::bytea) k",
            .nparams = 2,
        },
    },
    [STOA_STMT_KEYS_USED] = {
        .stmt = {
            .name = "stoa_keys_used",
            .sql = "select api.keys_used($1::uuid[], $2::bigint[], "
                   "$3::text[]) as noted",
            .nparams = 3,
            .write = true,
        },
    },
    [STOA_STMT_REVOCATIONS] = {
        .stmt = {
            .name = "stoa_revocations",
            .sql = "select (extract(epoch from pg_catalog.clock_timestamp()) "
                   "* 1000)::bigint as now_ms, r.text as entry "
                   "from (select 1) one left join api.revocations_since("
                   "pg_catalog.to_timestamp($1::bigint / 1000.0), $2::int) r "
                   "on true",
            .nparams = 2,
            .write = true,
        },
    },
    [STOA_STMT_THROTTLE_SYNC] = {
        .stmt = {
            .name = "stoa_throttle_sync",
            .sql = "select t.now_ms, t.key, t.fails, t.at_ms "
                   "from api.throttle_sync($1::text[], $2::int[], "
                   "$3::boolean[], $4::bigint[], $5::bigint) t",
            .nparams = 5,
            .write = true,
        },
    },
    /* reserved_connections is of PostgreSQL 16 and later */
    [STOA_STMT_CONNECTIONS] = {
        .stmt = {
            .name = "stoa_connections",
            .sql = "select pg_catalog.current_setting('max_connections')"
                   "::bigint as max, pg_catalog.current_setting("
                   "'superuser_reserved_connections')::bigint + coalesce("
                   "pg_catalog.current_setting('reserved_connections', true)"
                   "::bigint, 0) as reserved",
        },
    },
};


const char *
stoa_flow_name(stoa_flow_e flow)
{
#define STOA_FLOW_NAME(name) [STOA_FLOW_##name] = #name,
    static const char *const names[STOA_FLOW_COUNT] = { STOA_FLOWS(
        STOA_FLOW_NAME) };
#undef STOA_FLOW_NAME

    return flow > STOA_FLOW_NONE && flow < STOA_FLOW_COUNT ? names[flow] : NULL;
}
