/*
 * The binder: texts and arguments of statements, mistakes of rows with their
 * sentences; and the keyed and list statements on a real PostgreSQL, with
 * functions that stand in for the domain's.
 */

#include "unit_core.h"
#include "unit_stores.h"

#include "stoa_bind.h"

static stoa_mem_t *mem;
static unit_pg_t   server;

static const stoa_field_t body[] = {
    { .name = "title", .type = STOA_T_TEXT, .min = 1, .max = 10 },
    { .name = "n", .type = STOA_T_INT, .min = 1, .max = 10 },
    { .name = "big", .type = STOA_T_INT, .min = 1, .max = 9007199254740991 },
    { .name = "at", .type = STOA_T_TIME },
    { .name = "items", .type = STOA_T_LIST, .min = 1, .max = 2, .items = body },
    stoa_end_field,
};

static const stoa_field_t query[] = {
    { .name = "kind", .type = STOA_T_TEXT, .min = 1, .max = 10 },
    { .name = "page", .type = STOA_T_INT, .min = 1, .max = 10 },
    stoa_end_field,
};

static const stoa_field_t code_field[] = {
    { .name = "code", .type = STOA_T_CODE, .min = 1, .max = 10 },
    stoa_end_field,
};

static const stoa_field_t actor_field[] = {
    { .name = "actor", .type = STOA_T_UUID },
    stoa_end_field,
};

static const stoa_sort_t sorts[] = {
    { "startsAt", "e.starts_at", "timestamptz", false },
    { "newest", "e.starts_at", "timestamptz", true },
    { NULL, NULL, NULL, false },
};

static const stoa_filter_t filters[] = {
    { "kind", "e.kind = $kind" },
    { NULL, NULL },
};

static const stoa_list_t list = {
    .from = "api.things e",
    .item = "json_build_object('n', e.n, 'kind', e.kind)",
    .id = "e.id",
    .where = "e.owner is not distinct from $actor",
    .sorts = sorts,
    .filters = filters,
    .limit = 20,
    .max = 100,
};


/* ---- texts ---- */

static stoa_bound_row_t
bind_good(stoa_endpoint_t ep)
{
    stoa_bound_row_t out;
    const char      *why;

    ep.id = "things.row";
    ep.path = ep.path != NULL ? ep.path : "/things";

    if (!stoa_bind_row(mem, &ep, &out, &why)) {
        fail_msg("%s", why);
    }

    return out;
}


static void
bind_bad(stoa_endpoint_t ep, const char *part)
{
    stoa_bound_row_t out;
    const char      *why = NULL;

    ep.id = "things.row";
    ep.path = ep.path != NULL ? ep.path : "/things";
    assert_false(stoa_bind_row(mem, &ep, &out, &why));
    assert_non_null(strstr(why, "row \"things.row\""));

    if (strstr(why, part) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", why, part);
    }
}


static void
bind_texts(void **state)
{
    stoa_bound_row_t row;

    row = bind_good((stoa_endpoint_t){
        .method = STOA_POST,
        .path = "/things/:id/:code",
        .path_fields = code_field,
        .body = body,
        .sql = "api.f(ctx => $ctx, i => $id, c => $code, t => $title, "
               "n => $n, b => $big, a => $at, x => $items, t2 => $title, "
               "ua => $h_user_agent, lit => '$title')" });
    assert_string_equal(
        row.plain->stmt.sql,
        "select a.status, a.body, a.meta, a.etag, a.emit, a.wait from "
        "api.f(ctx => $1::api.ctx, i => $2::uuid, c => $3::text, t => "
        "$4::text, n => $5::int, b => $6::bigint, a => $7::timestamptz, x => "
        "$8::jsonb, t2 => $4::text, ua => $9::text, lit => '$title') a");
    assert_int_equal(row.plain->nargs, 9);
    assert_int_equal(row.plain->stmt.nparams, 9);
    assert_true(row.plain->stmt.write);
    assert_string_equal(row.plain->stmt.name, "things.row");
    assert_int_equal(row.plain->args[0].kind, STOA_ARG_CTX);
    assert_int_equal(row.plain->args[1].kind, STOA_ARG_PATH);
    assert_int_equal(row.plain->args[1].index, 0);
    assert_int_equal(row.plain->args[2].index, 1);
    assert_int_equal(row.plain->args[2].field->type, STOA_T_CODE);
    assert_int_equal(row.plain->args[7].kind, STOA_ARG_FIELD);
    assert_int_equal(row.plain->args[7].index, 4);
    assert_int_equal(row.plain->args[8].kind, STOA_ARG_HEADER);
    assert_string_equal(row.plain->args[8].name, "user_agent");
    assert_null(row.keyed);

    row = bind_good((stoa_endpoint_t){
        .method = STOA_GET,
        .query = query,
        .sql = "select 200 as status, $kind as body, $page as p, "
               "$if_match as m, $limit as l",
        .body = NULL,
        .path_fields = NULL,
        .list = NULL,
        .pool = STOA_POOL_FAST,
        .path = "/things/:limit" });
    assert_non_null(strstr(row.plain->stmt.sql, "$4::uuid as l"));
    assert_false(row.plain->stmt.write);

    row = bind_good((stoa_endpoint_t){ .method = STOA_POST,
                                       .batch = 64,
                                       .keyed = true,
                                       .path = "/things/:id",
                                       .sql = "api.f($ord, $ctx, $id, $roles, "
                                              "$body)",
                                       .body = body });
    assert_string_equal(row.plain->stmt.sql,
                        "select a.ord, a.status, a.body, a.meta, a.etag, "
                        "a.emit, a.wait from api.f($1::int[], $2::api.ctx[], "
                        "$3::uuid[], $4::text[], $5::jsonb[]) a");
    assert_string_equal(row.keyed->stmt.name, "things.row:keyed");
    assert_int_equal(row.keyed->args[0].kind, STOA_ARG_IDEM_SCOPE);
    assert_int_equal(row.keyed->args[3].kind, STOA_ARG_ORD);

    /* arrays of int, text and uuid are binary, those of others are not */
    assert_ptr_equal(row.plain->stmt.formats, row.plain->formats);
    assert_memory_equal(row.plain->formats, ((int[]){ 1, 0, 1, 1, 0 }),
                        5 * sizeof(int));
    assert_memory_equal(row.keyed->formats, ((int[]){ 0, 0, 0, 1, 0, 1, 1, 0 }),
                        8 * sizeof(int));
    assert_int_equal(row.plain->args[0].elem, STOA_PG_ELEM_INT4);
    assert_int_equal(row.plain->args[1].elem, STOA_PG_ELEM_NONE);
    assert_int_equal(row.plain->args[2].elem, STOA_PG_ELEM_UUID);
    assert_int_equal(row.plain->args[3].elem, STOA_PG_ELEM_TEXT);

    row = bind_good(
        (stoa_endpoint_t){ .method = STOA_GET, .flow = STOA_FLOW_ERRORS });
    assert_null(row.plain);

    /* who looks is noted behind what was shown; a field that is named like
       something of the caller's is asked for as $q_ */
    row = bind_good((stoa_endpoint_t){
        .method = STOA_GET,
        .path = "/things/:id",
        .of = { "thing", "id", "manage" },
        .query = actor_field,
        .pool = STOA_POOL_WRITE,
        .audit_reads = true,
        .sql = "select 200 as status, api.g($id, $q_actor, $actor) as body" });
    assert_string_equal(
        row.plain->stmt.sql,
        "with seen as materialized (select 200 as status, api.g($1::uuid, "
        "$2::uuid, $3::uuid) as body), noted as materialized (select "
        "api.audit_viewed($4::api.ctx, 'thing', $1::uuid, 'things.row') as "
        "done from seen where seen.status between 200 and 299) select seen.* "
        "from seen left join noted on true");
    assert_true(row.plain->stmt.write);
    assert_int_equal(row.plain->args[1].kind, STOA_ARG_QUERY);
    assert_int_equal(row.plain->args[2].kind, STOA_ARG_ACTOR);

    row = bind_good((stoa_endpoint_t){ .method = STOA_GET,
                                       .path = "/things",
                                       .of = STOA_OF_NONE,
                                       .tag = "things",
                                       .pool = STOA_POOL_SLOW,
                                       .audit_reads = true,
                                       .query = query,
                                       .list = &list });
    assert_non_null(strstr(row.pages[0].stmt.sql,
                           "::api.ctx, 'things', null, 'things.row') as "
                           "done"));
    assert_true(row.cursors[0].stmt.write);

    /* who else is behind a call */
    row = bind_good((stoa_endpoint_t){
        .method = STOA_GET,
        .path = "/things",
        .sql = "select api.g($acting_as, $api_key) as body" });
    assert_string_equal(row.plain->stmt.sql,
                        "select api.g($1::uuid, $2::uuid) as body");
    assert_int_equal(row.plain->args[0].kind, STOA_ARG_ACTING_AS);
    assert_int_equal(row.plain->args[1].kind, STOA_ARG_API_KEY);
}


static void
bind_mistakes(void **state)
{
    stoa_endpoint_t ep = { .method = STOA_POST, .body = body };

    ep.sql = "api.f($ctx, $titel)";
    bind_bad(ep, "\"$titel\" is not known; did you mean \"$title\"?");
    ep.sql = "api.f($ctx, $title)";
    bind_bad(ep, "body field \"n\" is used nowhere");
    ep.sql = "api.f($ctx, $body, $h_cookie)";
    bind_bad(ep, "header");
    ep.sql = "api.f($ctx, $body, $1)";
    bind_bad(ep, "name must follow");
    ep.sql = "api.f($ctx, $body); drop table x";
    bind_bad(ep, "semicolon");
    ep.sql = "api.f($ctx, $body) -- x";
    bind_bad(ep, "comment");
    ep.sql = "api.f($ctx, $body, 'x)";
    bind_bad(ep, "quote");
    ep.sql = "api.f($ctx, $body, $ord)";
    bind_bad(ep, "\"$ord\" is not known");
    ep.batch = 64;
    ep.sql = "api.f($ctx, $ord, $body)";
    bind_bad(ep, "$ord first");
    ep.batch = 0;
    ep.path = "/things/:id";
    ep.sql = "api.f($ctx, $body)";
    bind_bad(ep, "no $id for the path's parameter");
    ep.path = NULL;
    ep.query = query;
    bind_bad(ep, "query field \"kind\" is used nowhere");
    ep.query = NULL;
    ep.keyed = true;
    ep.sql = "select $body as body";
    bind_bad(ep, "calls an api function");
}


/* ---- on PostgreSQL ---- */

/* Runs a script; the sentence of PostgreSQL on failure. */
static void
bind_run(const char *sql)
{
    char *message = NULL;

    if (stoa_pg_exec_once(server.info, sql, mem, &message, NULL) != STOA_OK) {
        fail_msg("%s\n%.1500s", message, sql);
    }
}


static const char fixture[] =
    "create schema api; create schema app;"
    "create type api.ctx as (actor uuid, roles text[], session uuid, device "
    "uuid, ip text, request_id text, lang text, reply_to text, event uuid);"
    "create type api.answer as (status int, body json, meta json, etag "
    "text, emit json, wait bigint);"
    "create type api.answers as (ord int, status int, body json, meta json, "
    "etag text, emit json, wait bigint);"
    "create type api.idem as (state text, status int, body json, meta json, "
    "etag text, at timestamptz);"
    "create table app.idempotency (scope text, key text, print text, status "
    "int, body json, meta json, etag text, at timestamptz default now(), "
    "constraint idempotency_pkey primary key (scope, key));"
    "create table app.things (id uuid primary key default "
    "gen_random_uuid(), n int, kind text, owner uuid, starts_at "
    "timestamptz);"
    "create view api.things as select * from app.things;"
    "create function api.idem_begin(scope text, key text, print text) "
    "returns api.idem language plpgsql as $$ declare r app.idempotency; "
    "x api.idem; begin if key = 'busy' then x.state = 'in_flight'; return "
    "x; end if; select * into r from app.idempotency t where t.scope = "
    "idem_begin.scope and t.key = idem_begin.key; if not found then "
    "x.state = 'new'; elsif r.print <> print then x.state = 'mismatch'; "
    "else x.state = 'stored'; x.status = r.status; x.body = r.body; x.meta "
    "= r.meta; x.etag = r.etag; x.at = r.at; end if; return x; end $$;"
    "create function api.idem_store(scope text, key text, print text, "
    "status int, body json, meta json, etag text) returns timestamptz "
    "language sql as $$ insert into app.idempotency values (scope, key, "
    "print, status, body, meta, etag) returning at $$;"
    "create function api.make(ctx api.ctx, body jsonb) returns api.answer "
    "language plpgsql as $$ declare a api.answer; begin if body->>'title' "
    "= 'refuse' then a.status = 0; a.body = "
    "'{\"code\":\"SOLD_OUT\",\"remaining\":3}'; return a; elsif "
    "body->>'title' = 'broken' then a.status = 0; a.body = "
    "'{\"code\":\"STARTING\"}'; return a; elsif body->>'title' = 'bad' then "
    "a.status = 502; a.body = '{}'; return a; end if; insert into "
    "app.things (kind) values (body->>'title'); a.status = 201; a.body = "
    "json_build_object('n', (select count(*) from app.things)); a.etag = "
    "'\"1\"'; a.emit = '[{\"wake\":true}]'; a.wait = 7; return a; end $$;"
    "create function api.makes(ord int[], ctx api.ctx[], body jsonb[]) "
    "returns setof api.answers language plpgsql as $$ begin insert into "
    "app.things (kind) select 'batch' from unnest(ord); return query select "
    "o, 201, json_build_object('o', o), null::json, null::text, "
    "null::json, null::bigint from unnest(ord) o; end $$;";

/* Calls a keyed statement and checks what it says and what it did. */
static void
bind_expect_keyed(const char *sql, const char *name, const char *args,
                  const char *check)
{
    stoa_buf_t b;

    stoa_buf_init(&b, mem, 4096, 1 << 16);
    stoa_buf_printf(&b,
                    "prepare x as %s; do $$ declare r record; begin execute "
                    "$q$execute x(%s)$q$ into strict r; if not coalesce(%s, "
                    "false) then raise exception '%s gave %%', r; end if; end "
                    "$$",
                    sql, args, check, name);
    stoa_buf_nul(&b);
    assert_false(b.failed);
    bind_run((char *) b.data);
}


static void
bind_keyed(void **state)
{
    static const struct {
        const char *args, *check;
    } steps[] = {
        { "'s','k','p',null,'{\"title\":\"a\"}'",
          "r.status = 201 and r.body->>'n' = '1' and r.idem_state = 'new' and "
          "not r.replayed and r.wait = 7 and r.emit is not null and r.at ~ "
          "'^20..-..-..T..:..:..[.]...Z'" },
        { "'s','k','p',null,'{\"title\":\"a\"}'",
          "r.status = 201 and r.body->>'n' = '1' and r.idem_state = 'stored' "
          "and r.replayed and r.wait is null and r.emit is null and r.etag = "
          "'\"1\"' and r.at ~ '^20..-..-..T..:..:..[.]...Z' and (select "
          "count(*) from app.things) = 1" },
        { "'s','k','other',null,'{\"title\":\"b\"}'",
          "r.status = 0 and r.body->>'code' = 'IDEMPOTENCY_KEY_REUSED' and "
          "r.idem_state = 'mismatch' and r.at is null and (select count(*) "
          "from app.things) = 1" },
        { "'s','busy','p',null,'{\"title\":\"b\"}'",
          "r.status = 0 and r.body->>'code' = 'IN_FLIGHT' and r.idem_state = "
          "'in_flight' and (select count(*) from app.things) = 1" },
        { "'t','k','p',null,'{\"title\":\"b\"}'",
          "r.status = 201 and r.body->>'n' = '2'" },
        { "'s','k2','p',null,'{\"title\":\"refuse\"}'",
          "r.status = 0 and r.body->>'code' = 'SOLD_OUT' and r.at is not "
          "null" },
        { "'s','k2','p',null,'{\"title\":\"refuse\"}'",
          "r.status = 0 and r.body->>'remaining' = '3' and r.replayed" },
        { "'s','k3','p',null,'{\"title\":\"broken\"}'",
          "r.status = 0 and r.body->>'code' = 'STARTING' and r.at is null" },
        { "'s','k3','p',null,'{\"title\":\"broken\"}'",
          "r.idem_state = 'new'" }, /* never stored */
        { "'s','k4','p',null,'{\"title\":\"bad\"}'", "r.status = 502" },
        { "'s','k4','p',null,'{\"title\":\"bad\"}'", "r.idem_state = 'new'" },
    };
    stoa_bound_row_t row;
    size_t           i;
    char             name[32];

    row = bind_good((stoa_endpoint_t){ .method = STOA_POST,
                                       .keyed = true,
                                       .body = body,
                                       .sql = "api.make($ctx, $body)" });

    for (i = 0; i < stoa_nitems(steps); i++) {
        (void) snprintf(name, sizeof(name), "step %zu", i);
        bind_expect_keyed(row.keyed->stmt.sql, name, steps[i].args,
                          steps[i].check);
    }

    row = bind_good((stoa_endpoint_t){ .method = STOA_POST,
                                       .keyed = true,
                                       .batch = 64,
                                       .body = body,
                                       .sql = "api.makes($ord, $ctx, $body)" });
    bind_expect_keyed(row.keyed->stmt.sql, "batch",
                      "'s','k5','p','{1}','{NULL}','{NULL}'",
                      "r.status = 201 and r.body->>'o' = '1'");
    bind_expect_keyed(row.keyed->stmt.sql, "batch again",
                      "'s','k5','p','{1}','{NULL}','{NULL}'",
                      "r.replayed and (select count(*) from app.things where "
                      "kind = 'batch') = 1");
}


/* Every page of every sort, forwards by cursor, equals the whole. */
static void
bind_lists(void **state)
{
    static const char walk[] =
        "prepare p as %s; prepare c as %s; do $$ declare r record; keys "
        "jsonb; got json[] = '{}'; want json[]; i int = 0; begin "
        "for i in 0..4 loop execute format('execute p(null, null, 5, %%s)', "
        "5 * i) into strict r; if r.total <> 23 or r.status <> 200 then "
        "raise exception 'page %% says %%', i, r; end if; if (r.next is "
        "null) <> (i = 4) then raise exception 'next of page %% is %%', i, "
        "r.next; end if; got = got || array(select "
        "json_array_elements(r.body)); end loop; "
        "want = array(select json_build_object('n', n, 'kind', kind) from "
        "app.things where owner is null order by starts_at%s, id%s); "
        "if got::text <> want::text then raise exception 'pages gave %%', "
        "got; end if; got = '{}'; i = 0; loop execute 'execute c(null, "
        "null, ' || coalesce(quote_literal(keys), 'null') || ', 4)' into "
        "strict r; got = got || array(select json_array_elements(r.body)); "
        "i = i + 1; keys = r.next::jsonb; exit when keys is null or i > 9; "
        "end loop; if i <> 6 or got::text <> want::text then raise "
        "exception 'cursors gave %% in %%', got, i; end if; execute "
        "'execute p(null, ''k1'', 5, 0)' into strict r; if r.total <> 8 or "
        "(select count(*) from json_array_elements(r.body) e where "
        "e->>'kind' <> 'k1') <> 0 then raise exception 'filter gave %%', r; "
        "end if; execute 'execute p(null, ''none'', 5, 0)' into strict r; "
        "if r.total <> 0 or r.body::text <> '[]' or r.next is not null then "
        "raise exception 'nothing gave %%', r; end if; end $$";
    stoa_bound_row_t row;
    stoa_buf_t       b;
    size_t           i;
    const char      *dir;

    bind_run("truncate app.things; insert into app.things (n, kind, "
             "starts_at) select i, 'k' || i % 3, '2026-01-01'::timestamptz + "
             "(i / 4) * interval '1.000001 s' from generate_series(1, 23) i; "
             "insert into app.things (n, owner, starts_at) select i, "
             "gen_random_uuid(), now() from generate_series(1, 5) i");
    row = bind_good(
        (stoa_endpoint_t){ .method = STOA_GET, .list = &list, .query = query });
    assert_int_equal(row.nsorts, 2);
    assert_string_equal(row.pages[1].stmt.name, "things.row:page:1");

    for (i = 0; i < 2; i++) {
        dir = i == 0 ? "" : " desc";
        stoa_buf_init(&b, mem, 8192, 1 << 16);
        stoa_buf_printf(&b, walk, row.pages[i].stmt.sql,
                        row.cursors[i].stmt.sql, dir, dir);
        stoa_buf_nul(&b);
        assert_false(b.failed);
        bind_run((char *) b.data);
    }
}


static int
bind_setup(void **state)
{
    mem = stoa_arena_create(65536, 1 << 26);

    if (mem == NULL) {
        return 1;
    }

    unit_pg_create(&server, "");
    bind_run(fixture);

    return 0;
}


static int
bind_teardown(void **state)
{
    unit_pg_destroy(&server);
    stoa_arena_destroy(mem);

    return 0;
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bind_texts),
        cmocka_unit_test(bind_mistakes),
        cmocka_unit_test(bind_keyed),
        cmocka_unit_test(bind_lists),
    };

    return cmocka_run_group_tests_name("bind", tests, bind_setup,
                                       bind_teardown);
}
