-- I-9: five devices, overlapping offline scans, clocks that are wrong by up
-- to 90 s; the queues are uploaded in many orders, split and repeated.  The
-- state after each is the same.

begin;
\ir _lib.sql
select no_plan();

create temp table v as select
    t.person('org@t.example', '{organizer,member}') as org,
    t.person('b1@t.example') as b1;
alter table v add ev uuid, add a uuid, add o uuid[];
update v set ev = t.event(org, '{"reentry": true}');
update v set a = t.type(ev, '{"quota": 500, "max_per_order": 100}');
update v set o = array[t.order_id(b1, a, 60), t.order_id(b1, a, 60)];

create temp table dev as
select ('00000000-0000-7000-8000-00000000000' || g)::uuid as id, g,
    (g - 3) * 45000 as skew
from generate_series(1, 5) g;
insert into app.scanner_devices (id, event_id, name, gate, created_by,
    created_at)
select dev.id, ev, 'D' || g, 'G' || g, org, app.now() from v, dev;

-- who scanned what and when, on the true clock
select setseed(0.42);
create temp table scan as
select row_number() over () as n, dev.id as device, dev.skew, t.code, t.id,
    case when random() < 0.15 then 'exit' else 'entry' end as way,
    app.now() - (random() * 3600)::int * interval '1 s' as at
from dev, v, app.tickets t
where t.order_id = any (v.o) and random() < 0.45;
-- the same instant at two devices: the device's id decides
update scan set at = (select min(at) from scan), way = 'entry'
where id = (select min(id::text)::uuid from scan);

create function t.upload(device uuid, items jsonb)
returns api.answer language sql as $$
    select api.checkin_batch(t.device_ctx(device, v.ev), null, null, items)
    from v
$$;

create function t.state()
returns text language sql as $$
    select md5(string_agg(x, '|' order by x)) from (
        select concat_ws(',', t.id, t.state, t.admitted_at, t.admitted_gate,
            t.admitted_by, t.conflict) as x
        from app.tickets t
        union all
        select concat_ws(',', s.scanner, s.nonce, s.verdict, s.conflict,
            s.admitted_at, s.admitted_gate)
        from app.scan_events s) y
$$;

-- one run: queues in a random order of random pieces, some of them twice
create function t.run_uploads(seed float)
returns text language plpgsql as $$
declare
    r record;
begin
    perform setseed(seed);
    for r in
        with piece as (
            select s.*, (random() * 3)::int as piece from scan s),
        upload as (
            select device, piece, jsonb_agg(jsonb_build_object(
                'nonce', 's' || n, 'code', code, 'direction', way,
                'scanned_at', at - skew * interval '1 ms',
                'clock_offset_ms', skew) order by random()) as items
            from piece
            group by device, piece)
        select u.* from upload u cross join generate_series(1, 2) twice
        where twice = 1 or random() < 0.4
        order by random()
    loop
        perform t.upload(r.device, r.items);
    end loop;
    return t.state();
end $$;

create temp table outcome (seed float, state text);
do $$
declare
    s text;
begin
    for i in 1 .. 24 loop
        begin
            s := t.run_uploads(i / 100.0);
            raise exception 'undo' using errcode = 'P0002', detail = s;
        exception when sqlstate 'P0002' then
            get stacked diagnostics s = pg_exception_detail;
            insert into outcome values (i / 100.0, s);
        end;
    end loop;
end $$;
select is((select count(distinct state) from outcome), 1::bigint,
    'one final state over 24 orders of upload');
select is((select count(*) from outcome), 24::bigint, 'all of them ran');
select is(t.run_uploads(0.99), (select min(state) from outcome),
    'and of this one');
select is((select count(*) from app.scan_events), (select count(*) from scan),
    'no scan is lost, none is there twice');

-- the oracle: the earliest corrected entry wins, then the smallest device id
select is_empty($$
    select f.id
    from (select distinct on (id) id, at, device from scan
        where way = 'entry' order by id, at, device) f
    left join app.scan_events s on s.ticket_id = f.id and s.scanner = f.device
        and s.scanned_at = f.at and s.direction = 'entry'
    where s.verdict is distinct from 'admitted' or s.conflict
$$, 'the earliest entry of each ticket is the winner');
select is_empty($$
    select s.id from app.scan_events s
    where s.direction = 'entry' and s.verdict <> 'admitted'
        and not (s.verdict = 'already_used' and s.conflict)
$$, 'every other one is kept and flagged');
select isnt_empty($$ select from app.scan_events where conflict $$,
    'there were conflicts');

-- an upload answers each item; a repeat gets the same
create temp table again as
select (t.upload(device, jsonb_agg(jsonb_build_object('nonce', 's' || n,
    'code', code, 'direction', way, 'scanned_at',
    at - skew * interval '1 ms', 'clock_offset_ms', skew)))).body as b
from scan where device::text like '%1' group by device;
select is((select json_array_length(b->'items') from again),
    (select count(*)::int from scan where device::text like '%1'),
    'an answer per item');
select is(t.state(), (select min(state) from outcome), 'nothing changed');

-- online after offline, and offline before an online admission
create temp table w as select t.id, t.code, row_number() over (order by t.id)
    as n from app.tickets t
where t.state = 'valid' and not exists (
    select from app.scan_events s where s.ticket_id = t.id);
select is((t.scan(t.device_ctx(d.id, ev), w.code)).body->>'verdict',
    'admitted', 'online') from v, w, dev d where w.n = 1 and d.g = 2;
select is((t.upload(d.id, jsonb_build_array(jsonb_build_object('nonce', 'e1',
    'code', w.code, 'scanned_at', app.now() - interval '5 min'))))
    .body->'items'->0->>'verdict', 'admitted', 'an earlier offline scan wins')
from w, dev d where w.n = 1 and d.g = 3;
select results_eq($$ select t.state, t.admitted_gate, t.conflict
    from app.tickets t, w where t.id = w.id and w.n = 1 $$,
    $$ values ('admitted', 'G3', true) $$, 'the ticket knows');
select results_eq($$ select s.verdict, s.conflict from app.scan_events s, w
    where s.ticket_id = w.id and w.n = 1 and not s.offline $$,
    $$ values ('admitted', true) $$,
    'what the door said stays, with the flag');

-- a green light for what was dead before is kept as a conflict (I-10)
create temp table dead as select w.* from w where w.n = 2;
select api.tickets_reissue(t.ctx(b1), dead.id, 1, left(dead.code, 28) || 'NEW',
    '{}') from v, dead;
select results_eq($$ select i->>'verdict', (i->>'conflict')::boolean,
        i->>'reason'
    from dev d, dead, lateral json_array_elements((t.upload(d.id,
        jsonb_build_array(jsonb_build_object('nonce', 'd1',
        'code', dead.code, 'scanned_at', app.now())))).body->'items') i
    where d.g = 1 $$, $$ values ('cancelled', true, 'replaced') $$,
    'a replaced code');
select is((select state from app.tickets t, dead where t.id = dead.id),
    'valid', 'does not use the ticket up');
select results_eq($$ select i->>'verdict', (i->>'conflict')::boolean
    from dev d, lateral json_array_elements((t.upload(d.id,
        jsonb_build_array(jsonb_build_object('nonce', 'u1',
        'code', 'FORGED', 'scanned_at', app.now())))).body->'items') i
    where d.g = 1 $$, $$ values ('unknown', true) $$, 'a forged one');

-- a ticket of another event is not touched: not its flag, not its version
create temp table far as select t.event(org, '{"capacity": 9}') as ev from v;
alter table far add a uuid, add o uuid, add id uuid, add code text;
update far set a = t.type(far.ev);
update far set o = t.order_id(b1, far.a) from v;
update far set id = t.ticket_of(o);
update far set code = t.code(id);
create temp table was as select t.* from app.tickets t, far
where t.id = far.id;
select results_eq($$ select i->>'verdict', (i->>'conflict')::boolean,
        i->>'ticketId'
    from dev d, far, lateral json_array_elements((t.upload(d.id,
        jsonb_build_array(jsonb_build_object('nonce', 'f1',
        'code', far.code, 'scanned_at', app.now())))).body->'items') i
    where d.g = 1 $$, $$ values ('wrong_event', true, null::text) $$,
    'a ticket of another event');
select results_eq($$ select t.* from app.tickets t, far
    where t.id = far.id $$, $$ select * from was $$, 'stays as it was');
select is((select (api.checkin_stats(t.ctx(org), far.ev)).body
    ->>'conflicts' from v, far), '0', 'also in the statistics of its event');
select is((select count(*) from app.scan_events s, far
    where s.ticket_id = far.id), 0::bigint, 'and no scan of it is stored');

-- outside the type's validity, at the corrected time: kept and flagged
create temp table bound as
select t.type(ev, jsonb_build_object('name', 'Noon', 'valid_from',
    app.now() - interval '2 h', 'valid_until', app.now() - interval '1 h'))
    as a from v;
alter table bound add o uuid, add id uuid, add code text;
update bound set o = t.order_id(b1, bound.a) from v;
update bound set id = t.ticket_of(o);
update bound set code = t.code(id);
create function t.at(nonce text, back interval, shift bigint default 0)
returns jsonb language sql as $$
    select jsonb_build_array(jsonb_build_object('nonce', nonce, 'code', code,
        'scanned_at', app.now() - back, 'clock_offset_ms', shift))
    from bound
$$;
select results_eq(format($$ select i->>'verdict', (i->>'conflict')::boolean
    from dev d, lateral json_array_elements((t.upload(d.id,
        t.at(%L, %L, %s))).body->'items') i
    where d.g = 1 $$, nonce, back, shift),
    format($$ values (%L, %L::boolean) $$, verdict, conflict), what)
from (values
    ('v1', '3 h', 0, 'not_yet', true, 'before its time'),
    ('v2', '30 min', 0, 'expired', true, 'after it'),
    ('v3', '3 h', 5400000, 'admitted', false, 'the corrected time counts'),
    ('v4', '2 h', 0, 'admitted', false, 'its first instant is within'),
    ('v5', '1 h', 0, 'expired', true, 'its last is not')
) x (nonce, back, shift, verdict, conflict, what);
select results_eq($$ select t.state, t.conflict, t.admitted_at
    from app.tickets t, bound where t.id = bound.id $$,
    $$ select 'admitted', true, app.now() - interval '2 h' $$,
    'the ticket is in, with the flag');
select is_empty($$ select id from app.scan_events
    where nonce ~ '^v' and verdict in ('not_yet', 'expired')
        and not conflict $$, 'all of them are kept');

-- clocks that cannot be right
select results_eq(format($$ select (a).status, (a).body->'errors'->0->>'code',
        (a).body->'errors'->0->>'pointer'
    from (select t.upload(d.id, t.at('k', %L, %s)) as a
        from dev d where d.g = 1) x $$, back, shift),
    format($$ values (0, %L, '/items/0/scannedAt') $$, code), what)
from (values
    ('-6 min', 0, 'too_large', 'the future'),
    ('-1 min', 300000, 'too_large', 'the future, corrected'),
    ('-7973 years', 86400000, 'too_large', 'the end of the calendar'),
    ('367 days', 0, 'too_small', 'years ago')
) x (back, shift, code, what);
select is((t.upload(d.id, t.at('k1', '-4 min'))).status, 200,
    'some minutes ahead are usual') from dev d where d.g = 1;
select is_empty($$ select id from app.scan_events where nonce = 'k' $$,
    'what was refused is not stored');
select is((api.checkin_batch(t.ctx(org), null, null, t.at('x', '0')))
    .body->'errors'->0->>'pointer', '/eventId', 'people name the event')
from v;

select * from finish();
rollback;
