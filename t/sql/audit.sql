-- The audit log: what app.diff() keeps, that a digest stands for one row, and
-- what the verifier names.

begin;
\ir _lib.sql
select no_plan();

-- ---- what changed ----

select is(app.diff('{"a": 1, "b": 2, "c": 3}', '{"a": 1, "b": 1, "d": 4}',
    '{"a": 1, "b": 2, "c": null, "d": 5}'),
    '{"b": {"from": 1, "to": 2}, "c": {"from": null, "to": null}}'::jsonb,
    'of the members of the body, those that are not what they were');
select is(app.diff('{}', '{"a": 1}', '{"a": 2}'), '{}'::jsonb,
    'nothing asked, nothing told');
select is(app.diff('{"a": 1, "b": 1}', '{"a": "x", "b": "x"}',
    '{"a": "y", "b": "x"}', '{a,b}'), '{"a": {"hidden": true}}'::jsonb,
    'of what is personal, that it changed');

-- ---- one digest, one row ----

select app.audit(t.ctx(app.uuid7()), 'test.write', 'test', 'one',
    '{"name": "a||b"}');

create function t.whole(set_to jsonb) returns boolean language sql as $$
    select app.audit_whole(jsonb_populate_record(a, set_to))
    from app.audit_log a
    where a.resource_id = 'one'
$$;

select ok(t.whole('{}'), 'as it was written');
select ok(not t.whole(x.v), 'not with ' || x.v::text)
from (values ('{"action": "test.writes"}'::jsonb), ('{"changes": null}'),
    ('{"at": "2026-01-01T00:00:00Z"}'), ('{"actor": null}'),
    ('{"device": "00000000-0000-7000-8000-000000000001"}'),
    ('{"acting_as": "00000000-0000-7000-8000-000000000001"}'),
    ('{"api_key": "00000000-0000-7000-8000-000000000001"}'),
    ('{"resource": "tests"}'), ('{"resource_id": "two"}'),
    ('{"ip": null}'), ('{"request_id": "req-2"}'),
    ('{"digest": "\\x00"}')) x (v);

create temporary table forged as
select a.*
from app.audit_log l,
    jsonb_populate_record(l, jsonb_build_object(
        'resource_id', 'one|{"name": "a', 'changes', null, 'ip', 'b"}',
        'request_id', l.ip || '|' || l.request_id)) a
where l.resource_id = 'one';

select is(app.audit_digest(f.at, f.actor, f.device, f.action, f.resource,
        f.resource_id, f.changes, f.ip, f.request_id), f.digest,
    'another row has the same digest, by its bars')
from forged f;
select ok(not app.audit_whole(jsonb_populate_record(null::app.audit_log,
        to_jsonb(f) || jsonb_build_object('at', f.at))),
    'and is refused for them')
from forged f;

-- ---- the walk ----

select is_empty('select * from app.audit_verify(60)', 'whole');
select isnt_empty($$ select from app.audit_verify_rows(null, null, 10, -1)
    where what = 'unsealed' $$, 'what is not sealed in time is told');
select is((select rows from app.audit_verify_rows(null, null, 1000000)
        where what = 'walked'), (select count(*) from app.audit_log),
    'every row is looked at');
select is_empty('select * from app.audit_verify_chain(null, null, null, 10)',
    'there is no link yet');
select is_empty($$ select * from app.audit_verify_from('2000-01-01') $$,
    'nor one before a day');

-- ---- who looked ----

select t.person('looker@test.example', '{organizer,member}') as looker \gset
select ok(api.audit_viewed(t.ctx(:'looker'), 'event', :'looker', 'events.x'),
    'noted');
select results_eq($$ select actor, action, resource, changes
    from app.audit_log where action = 'event.viewed' $$,
    format($$ values (%L::uuid, 'event.viewed', 'event',
        '{"row": "events.x"}'::jsonb) $$, :'looker'), 'by whom and what');

select * from finish();
rollback;
