/*
 * Compiles a row's .sql or .list with $names into prepared statements with
 * numbered, cast parameters, once, at configuration.  An unknown name, or a
 * declared field that no $name uses (unless $body is bound), is an error.
 *
 * A $name is: $ctx (api.ctx), $actor, $session, $acting_as, $api_key, $device,
 * $device_event (uuid), $roles (text[]), $ip, $request_id, $lang (text),
 * $new_id (uuid), $body (jsonb, snake_case members), $raw (bytea), $if_match
 * (int), $codes (jsonb: signed ticket codes), $limit, $offset (int), $cursor
 * (jsonb), $ord (int, batch only), $h_<header> (text, allow-list: user_agent,
 * stripe_signature, accept_language), $hash (text, made by a flow), $provider
 * (text: whose secret signed a webhook), or a path, query or body field of the
 * row; $q_<field> is the row's field even where it is named like one of these.
 *
 * .sql beginning with "api." is a call: "api.events_create($ctx, $body)"
 * becomes "select a.status, a.body, a.meta, a.etag, a.emit, a.wait from
 * api.events_create($1::api.ctx, $2::jsonb) a".  .sql beginning with
 * "select" names its own columns (status int, body json, ...; any subset
 * with body).  With .batch every parameter is an array of its type, $ord
 * int[] is bound first and the function also returns ord; $roles is then one
 * array literal, a text, per request; an array of nulls only is null itself.
 * Arrays of int, text and uuid are sent in binary form (stoa_pg_array.h): the
 * statement's .formats says which.
 *
 * Casts: INT fields whose bounds fit are int, else bigint; TIME timestamptz,
 * UUID uuid, BOOL bool, LIST and OBJECT jsonb, all else text; $raw is bytea
 * in its text form (\x and hex).
 *
 * .audit_reads is one around the row's: its columns, and api.audit_viewed()
 * where the status is 2xx.
 *
 * .keyed is one statement around the call (decision 6): with
 * .batch the arguments are arrays of one, but for scope, key and print; its
 * columns are status, body,
 * meta, etag, emit, wait, idem_state ('new', 'stored', 'in_flight',
 * 'mismatch'), replayed (bool) and at (text, RFC 3339 with milliseconds and
 * Z).  For 'stored' the columns are the stored answer's; 'in_flight' and
 * 'mismatch' are error answers: status 0, body {"code": ...}.  A racer's
 * 23505 wants one retry.  $ord of requests counts from 1.
 *
 * .pages[i] and .cursors[i] belong to sort i; columns status, body, total
 * (pages only), next: the last keys as a json list, null on the last page.
 * A null $cursor reads from the start.
 */

#ifndef STOA_BIND_H_INCLUDED
#define STOA_BIND_H_INCLUDED

#include "stoa_pg.h"
#include "stoa_pg_array.h"
#include "api/stoa_api.h"

typedef enum {
    STOA_ARG_CTX = 1,
    STOA_ARG_ACTOR,
    STOA_ARG_SESSION,
    STOA_ARG_ACTING_AS,
    STOA_ARG_API_KEY,
    STOA_ARG_DEVICE,
    STOA_ARG_DEVICE_EVENT, /* whose door the device is */
    STOA_ARG_ROLES,
    STOA_ARG_IP,
    STOA_ARG_REQUEST_ID,
    STOA_ARG_LANG,
    STOA_ARG_NEW_ID,
    STOA_ARG_BODY,
    STOA_ARG_RAW,
    STOA_ARG_IF_MATCH,
    STOA_ARG_CODES,
    STOA_ARG_LIMIT,
    STOA_ARG_OFFSET,
    STOA_ARG_CURSOR,
    STOA_ARG_ORD,
    STOA_ARG_HEADER, /* .name is the header in snake_case */
    STOA_ARG_HASH,
    STOA_ARG_PROVIDER,   /* whose secret signed a webhook: test, stripe */
    STOA_ARG_PATH,       /* .index counts the :params of the path */
    STOA_ARG_QUERY,      /* .field */
    STOA_ARG_FIELD,      /* .field of the body */
    STOA_ARG_IDEM_SCOPE, /* keyed statements only */
    STOA_ARG_IDEM_KEY,
    STOA_ARG_IDEM_PRINT
} stoa_arg_e;

#define STOA_MAX_ARGS 32

typedef struct {
    stoa_arg_e          kind;
    const char         *name;
    const stoa_field_t *field;
    uint8_t             index;
    stoa_pg_elem_e      elem; /* of a binary array; else NONE */
} stoa_arg_t;

typedef struct {
    stoa_pg_stmt_t stmt; /* .slot and .timeout_ms are filled by the caller */
    uint16_t       nargs;
    stoa_arg_t     args[STOA_MAX_ARGS];
    int            formats[STOA_MAX_ARGS]; /* stmt.formats of a batch */
} stoa_bound_t;

/* The statements of one row. */
typedef struct {
    const stoa_endpoint_t *ep;
    stoa_bound_t          *plain;   /* .sql; batch form when .batch is set */
    stoa_bound_t          *keyed;   /* .keyed rows: wrapped (decision 6) */
    stoa_bound_t          *pages;   /* .list: [nsorts] */
    stoa_bound_t          *cursors; /* .list: [nsorts] */
    uint16_t               nsorts;
} stoa_bound_row_t;

/* All memory from mem.  false: *why says row, name and nearest valid name. */
bool stoa_bind_row(stoa_mem_t *mem, const stoa_endpoint_t *ep,
                   stoa_bound_row_t *out, const char **why) STOA_MUSTCHECK;

#endif /* STOA_BIND_H_INCLUDED */
