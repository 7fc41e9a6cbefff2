-- What holds for every function and table: plpgsql_check finds nothing, the
-- edge and the workers can do what they should and nothing else.

load 'plpgsql_check'; -- newer ones cannot begin when plpgsql has run

begin;
\ir _lib.sql
select no_plan();

select is_empty($$
    select p.oid::regprocedure, c.message
    from pg_proc p
    join pg_language l on l.oid = p.prolang and l.lanname = 'plpgsql'
    join pg_namespace n on n.oid = p.pronamespace
        and n.nspname in ('app', 'api', 'queue', 'task'),
    lateral plpgsql_check_function_tb(p.oid, extra_warnings => false) c
    where p.prorettype <> 'trigger'::regtype
$$, 'plpgsql_check finds nothing');

select is_empty($$
    select p.oid::regprocedure
    from pg_proc p
    join pg_trigger g on g.tgfoid = p.oid,
    lateral plpgsql_check_function_tb(p.oid, g.tgrelid) c
    where p.pronamespace = 'app'::regnamespace
        and c.level = 'error'
$$, 'nor in triggers');

-- SQL functions are made again with their bodies checked
select lives_ok($$
do $do$
declare
    r record;
begin
    set local check_function_bodies = on;
    for r in
        select pg_get_functiondef(p.oid) as def
        from pg_proc p
        join pg_language l on l.oid = p.prolang and l.lanname = 'sql'
        where p.pronamespace::regnamespace::text
            in ('app', 'api', 'queue', 'task')
    loop
        execute r.def;
    end loop;
end $do$
$$, 'bodies of SQL functions are valid');

select is_empty($$
    select p.oid::regprocedure
    from pg_proc p
    join pg_namespace n on n.oid = p.pronamespace
        and n.nspname in ('app', 'api', 'queue', 'task')
    where p.prosecdef and not coalesce(
        'search_path=pg_catalog, pg_temp' = any (p.proconfig)
        or 'search_path=pg_catalog' = any (p.proconfig), false)
$$, 'definer functions pin their search_path');

select is_empty($$
    select p.oid::regprocedure
    from pg_proc p
    join pg_namespace n on n.oid = p.pronamespace
        and n.nspname in ('api', 'task')
    where not p.prosecdef and p.provolatile = 'v'
$$, 'what writes for the edge and for workers is a definer');

-- CREATE DATABASE does not copy rights on the template: ask it itself
select is_empty($$
    select d.datname, r.role
    from (
        select d.oid, d.datname
        from pg_database d
        where d.datname ~ '^stoa_template_[0-9a-f]+$'
        order by d.oid desc
        limit 1) d,
    unnest(array['stoa_edge', 'stoa_worker']) r (role)
    where has_database_privilege(r.role, d.oid, 'temporary')
$$, 'stoa migrate leaves no right to temporary tables');

-- the edge
select is_empty($$
    select c.oid::regclass
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where n.nspname in ('app', 'queue', 'task', 't')
        and c.relkind in ('r', 'v', 'p') and c.relname <> 'test_clock'
        and has_table_privilege('stoa_edge', c.oid,
            'select, insert, update, delete')
$$, 'the edge reads and writes no table');

select is_empty($$
    select c.oid::regclass
    from pg_class c
    where c.relnamespace = 'api'::regnamespace and c.relkind = 'v'
        and (not has_table_privilege('stoa_edge', c.oid, 'select')
            or has_table_privilege('stoa_edge', c.oid,
                'insert, update, delete'))
$$, 'it selects from the views of api');

select is_empty($$
    select p.oid::regprocedure
    from pg_proc p
    where p.pronamespace = 'api'::regnamespace
        and not has_function_privilege('stoa_edge', p.oid, 'execute')
$$, 'it executes the functions of api');

select set_eq($$
    select n.nspname::text from pg_namespace n
    where has_schema_privilege('stoa_edge', n.oid, 'usage')
        and n.nspname not in ('public', 't') and n.nspname !~ '^pg_'
        and n.nspname <> 'information_schema'
$$, array['api'], 'it sees schema api only');

select is_empty($$
    select p.oid::regprocedure
    from pg_proc p
    join pg_namespace n on n.oid = p.pronamespace
    where n.nspname in ('queue', 'task')
        and has_function_privilege('stoa_edge', p.oid, 'execute')
$$, 'it executes nothing of queue and task');

-- the workers
select is_empty($$
    select c.oid::regclass
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where n.nspname in ('app', 'queue', 'api')
        and c.relkind in ('r', 'v', 'p') and c.relname <> 'test_clock'
        and has_table_privilege('stoa_worker', c.oid,
            'select, insert, update, delete')
$$, 'workers read and write no table');

select is_empty($$
    select p.oid::regprocedure
    from pg_proc p
    join pg_namespace n on n.oid = p.pronamespace
    where (n.nspname in ('task', 'queue')) is distinct from
            has_function_privilege('stoa_worker', p.oid, 'execute')
        and n.nspname in ('task', 'queue', 'api')
$$, 'they execute task and queue, not api');

-- views run with rights of their own
create function t.as_edge(sql text)
returns void language plpgsql as $$
begin
    set local role stoa_edge;
    execute sql;
    reset role;
end $$;

select lives_ok($$
    select t.as_edge('select count(e.item::text) from api.events_list e')
$$, 'the edge can list events');
select throws_ok($$ select t.as_edge('select count(*) from app.users') $$,
    '42501', null, 'the edge cannot read users');
select throws_ok($$ select t.as_edge('select app.setting(''x'')') $$,
    '42501', null, 'nor call helpers');

select throws_ok('delete from app.audit_log', '42501', null,
    'audit rows cannot be deleted');
select throws_ok('update app.audit_chain set n = n', '42501', null,
    'links cannot be changed');

select is_empty($$
    select conrelid::regclass, conname from pg_constraint
    where connamespace in ('app'::regnamespace, 'queue'::regnamespace)
        and conname ~ '[0-9]$' and conname !~ 'key$'
$$, 'constraints have names that were spelled out');

select is(app.setting_s('nope', 7), 7, 'a missing setting has its default');
select app.settings_put('{"x": "15m", "y": "900", "z": "2d"}');
select is(app.setting_s('x', 0), 900, '15m');
select is(app.setting_s('y', 0), 900, '900');
select is(app.setting_s('z', 0), 172800, '2d');
select is(app.ts('2026-01-02 03:04:05.678901+00'), '2026-01-02T03:04:05.678Z',
    'times are RFC 3339 with milliseconds');
select matches(app.uuid7()::text,
    '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$',
    'ids are UUIDv7');
select ok(app.is_timezone('Asia/Kathmandu') and app.is_timezone('UTC')
    and not app.is_timezone('Mars/Olympus') and not app.is_timezone('EST5'),
    'zones are those of the tz database');

-- A function of SQL that cannot be inlined is parsed and planned anew in each
-- statement that calls it; plpgsql keeps its plans.  These are called seldom.
select is_empty($$
    select p.oid::regprocedure
    from pg_proc p
    join pg_language l on l.oid = p.prolang and l.lanname = 'sql'
    where p.pronamespace in ('app'::regnamespace, 'api'::regnamespace,
            'queue'::regnamespace)
        and (p.prosecdef or p.proconfig is not null)
        and p.oid::regproc::text not in ('api.uncoded', 'app.admins_lock',
            'app.audit_verify', 'app.audit_verify_chain',
            'app.audit_verify_from', 'app.audit_verify_rows', 'app.key_item',
            'app.key_life', 'app.now', 'app.payment_json', 'app.roles_of',
            'app.roles_refused', 'app.settings_put', 'queue.controls',
            'queue.redrive_one', 'queue.schedule_now', 'queue.schedules',
            'queue.stats')
$$, 'no function that is called often is parsed anew each time');

select * from finish();
rollback;
