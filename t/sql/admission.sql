-- The door: verdicts, nonces, several scans of one ticket in a batch, rights,
-- dead codes, devices, and the offline merge over all orders of upload.

begin;
\ir _lib.sql
select no_plan();

create temp table v as select
    t.person('org@t.example', '{organizer,member}') as org,
    t.person('scan@t.example') as scan, t.person('b1@t.example') as b1,
    t.person('b2@t.example') as b2, t.person('x@t.example') as x;
alter table v add ev uuid, add ev2 uuid, add a uuid, add a2 uuid, add p uuid,
    add o uuid, add o2 uuid, add op uuid, add k text, add k2 text, add kp text;
update v set ev = t.event(org), ev2 = t.event(org, '{"reentry": true}');
update v set a = t.type(ev, '{"quota": 500, "max_per_order": 100}'),
    a2 = t.type(ev2, '{"quota": 50}'),
    p = t.type(ev, '{"quota": 50, "price_cents": 100}');
update v set o = t.order_id(b1, a, 10), o2 = t.order_id(b1, a2, 1),
    op = t.order_id(b1, p, 1);
update v set k = t.code(t.ticket_of(o)), k2 = t.code(t.ticket_of(o2)),
    kp = t.code(t.ticket_of(op));

select is((api.events_staff_add(t.ctx(org), ev, null, 'SCAN@t.example',
    'scan')).status, 201, 'staff') from v;
select ok('scanner' = any (roles), 'and the role') from app.users, v
    where id = scan;
select is((api.events_staff_add(t.ctx(org), ev, scan, null, 'manage'))
    .body->>'code', 'VALIDATION_FAILED', 'manage is for organizers') from v;

-- who may
select is((t.scan(t.ctx(x), k)).body->>'code', 'FORBIDDEN', 'a stranger: 403')
from v;
select is((t.scan(t.ctx(scan), k2)).body->>'code', 'FORBIDDEN',
    'staff of another event: 403') from v;
select is((t.scan(t.ctx(scan), k, event => ev2)).body->>'code', 'FORBIDDEN',
    'at another event: 403') from v;
select is((t.scan(t.ctx(x, '{admin,member}'), k, mode => 'lookup'))
    .body->>'verdict', 'valid', 'an admin may') from v;
select is((t.scan(t.ctx(x, '{admin,member}'), 'NONE', event =>
    gen_random_uuid())).body->>'code', 'FORBIDDEN',
    'at no event nobody may') from v;

-- verdicts
select is((t.scan(t.ctx(scan), 'NONSENSE')).body->>'verdict', 'unknown',
    'unknown') from v;
select is((t.scan(t.ctx(scan), left(k, 40) || 'X')).body->>'verdict',
    'unknown', 'forged') from v;
select is((t.scan(t.ctx(scan), kp)).body->>'verdict', 'not_paid', 'not paid')
from v;
select is((t.scan(t.ctx(scan), k, event => ev, mode => 'lookup'))
    .body->>'verdict', 'valid', 'lookup') from v;
select is((t.scan(t.ctx(org), k2, event => ev)).body->>'verdict',
    'wrong_event', 'wrong event') from v;
select is((t.scan(t.ctx(org), k2, event => ev)).body->>'ticket', null,
    'which tells nothing of the ticket') from v;
select is((select count(*) from app.tickets where state = 'admitted'),
    0::bigint, 'nobody is in yet');
select is((t.scan(t.ctx(scan), lower(k), gate => 'North')).body->>'verdict',
    'admitted', 'admitted, in any case of letters') from v;
select results_eq($$ select (s.b->>'verdict'), (s.b->>'gate'),
        s.b->'ticket'->>'state'
    from (select (t.scan(t.ctx(org), k, gate => 'South')).body as b from v) s
    $$, $$ values ('already_used', 'North', 'admitted') $$,
    'a second scan names the gate of the first');
select is((select count(*) from app.scan_events where verdict = 'admitted'),
    1::bigint, 'one admission');

-- nonces
create temp table n1 as select (t.scan(t.ctx(scan), t.code(t.id), 'n-1',
    gate => 'N')).body::text as b
from v, app.tickets t where t.order_id = v.o and t.state = 'valid'
order by t.id limit 1;
select is((t.scan(t.ctx(scan), t.code(t.id), 'n-1')).body::text,
    (select b from n1), 'a repeat gets the same verdict')
from v, app.scan_events s, app.tickets t
where s.nonce = 'n-1' and t.id = s.ticket_id;
select is((select count(*) from app.scan_events where nonce = 'n-1'),
    1::bigint, 'and one scan event');
select is((t.scan(t.ctx(scan), code, 'n-1', gate => gate)).body->>'code',
    'NONCE_REUSED', 'a nonce does not cover ' || what)
from v, lateral (
    select 'another ticket', max(t.code), null
    from app.tickets t where t.order_id = v.o and t.state = 'valid'
    union all
    select 'what is no ticket', 'NOPE', null
    union all
    select 'another gate', t.code, 'Elsewhere'
    from app.scan_events s join app.tickets t on t.id = s.ticket_id
    where s.nonce = 'n-1') x (what, code, gate);

-- copies of a nonce whose first scan was refused
savepoint copies;
select results_eq($$
    select a.ord, coalesce(a.body->>'verdict', a.body->>'code')
    from v, lateral (select array_agg(t.code order by t.id) as c
        from app.tickets t where t.order_id = v.o and t.state = 'valid') c,
        t.door(array[1, 2, 3, 4, 5],
        array[t.ctx(scan), t.ctx(scan), t.ctx(scan), t.ctx(scan),
            t.ctx(scan)],
        array[k2, c.c[1], k2, c.c[1], c.c[2]],
        array_fill(null::uuid, array[5]), array_fill(null::text, array[5]),
        array['f-1', 'f-1', 'f-2', 'f-2', 'f-1'],
        array_fill(null::text, array[5]), array_fill(null::text, array[5]),
        array_fill(null::text, array[5])) a
    order by a.ord $$,
    $$ values (1, 'FORBIDDEN'), (2, 'admitted'), (3, 'FORBIDDEN'),
        (4, 'already_used'), (5, 'NONCE_REUSED') $$,
    'take turns, too');
rollback to copies;

-- a code that is almost right, twice
savepoint almost;
select is(string_agg((t.scan(t.ctx(scan), left(k, 156) || case right(k, 1)
    when 'A' then 'B' else 'A' end, 'w-1')).body::text, ' '),
    '{"verdict":"unknown"} {"verdict":"unknown"}', 'is unknown twice')
from v, generate_series(1, 2);
rollback to almost;

-- a batch: one ticket three times, a nonce twice, one unknown
create temp table k3 as select t.code, row_number() over (order by t.id) as n
from v, app.tickets t where t.order_id = v.o and t.state = 'valid';
select results_eq($$
    select a.ord, a.body->>'verdict', a.body->>'gate'
    from v, (select array_agg(code order by n) as c from k3) c,
        t.door(array[1, 2, 3, 4, 5, 6],
        array[t.ctx(scan), t.ctx(scan), t.ctx(scan), t.ctx(scan), t.ctx(scan),
            t.ctx(x)],
        array[c.c[1], c.c[1], c.c[2], c.c[2], 'NOPE', c.c[3]],
        array_fill(null::uuid, array[6]), array_fill(null::text, array[6]),
        array[null, null, 'm-1', 'm-1', null, null],
        array_fill(null::text, array[6]),
        array['A', 'B', 'C', 'C', 'E', 'F'],
        array_fill(null::text, array[6])) a
    order by a.ord $$,
    $$ values (1, 'admitted', 'A'), (2, 'already_used', 'A'),
        (3, 'admitted', 'C'), (4, 'admitted', 'C'), (5, 'unknown', null),
        (6, null, null) $$,
    'in a batch the second scan is told, nobody is harmed');
select is((select count(*) from app.scan_events where nonce = 'm-1'),
    1::bigint, 'one scan event per nonce');
select is((select state from app.tickets, k3 where tickets.code = k3.code
    and n = 3), 'valid', 'the refused scan admitted nobody');

-- exit and re-entry
update v set k2 = t.code(t.ticket_of(o2));
select is((t.scan(t.ctx(org), k2, direction => 'exit')).body->>'verdict',
    'not_inside', 'out before in') from v;
select is((t.scan(t.ctx(org), k2)).body->>'verdict', 'admitted', 'in') from v;
select is((t.scan(t.ctx(org), k2, direction => 'exit')).body->>'verdict',
    'exited', 'out') from v;
select is((t.scan(t.ctx(org), k2)).body->>'verdict', 'admitted',
    'in again, where that is allowed') from v;
select is((t.scan(t.ctx(scan), k, direction => 'exit')).body->>'verdict',
    'exited', 'out') from v;
select is((t.scan(t.ctx(scan), k)).body->>'verdict', 'already_used',
    'not in again elsewhere') from v;

-- validity hangs on the type, and on the event's end
select api.ticket_types_update(t.ctx(org), a, null, jsonb_build_object(
    'valid_from', app.now() + interval '1 day')) from v;
select is((t.scan(t.ctx(scan), code)).body->>'verdict', 'not_yet', 'not yet')
from v, k3 where n = 4;
select is((t.scan(t.ctx(scan), k)).body->>'verdict', 'not_yet',
    'validity first, duplicates second') from v;
select is((t.scan(t.ctx(scan), code, 'y-1')).body->>'verdict', 'not_yet',
    'nor with a nonce')
from v, k3 where n = 5;
select t.clock('31 days');
select is((t.scan(t.ctx(scan), code)).body->>'verdict', 'expired', 'expired')
from v, k3 where n = 4;
select t.clock('0');
select api.ticket_types_update(t.ctx(org), a, null, '{"valid_from": null}')
from v;

-- reissue and transfer: the old code is dead, the new one works
create temp table w as select t.id, t.code from app.tickets t, k3
    where t.code = k3.code and n = 5;
select results_eq($$ select a.generation from v, w,
    api.tickets_change_begin(t.ctx(b1), w.id) a $$, array[1], 'generation');
select is((select a.body->>'code' from v, w,
    api.tickets_change_begin(t.ctx(b2), w.id) a), 'NOT_FOUND', 'foreign: 404');
select is((api.tickets_reissue(t.ctx(b1), w.id, 1, left(w.code, 28)
    || 'SECOND', '{}')).status, 200, 'reissued') from v, w;
select is((api.tickets_reissue(t.ctx(b1), w.id, 1, left(w.code, 28)
    || 'THIRD', '{}')).body->>'code', 'CONFLICT', 'compare and swap') from v, w;
select results_eq($$ select s.b->>'verdict', s.b->>'reason'
    from (select (t.scan(t.ctx(scan), w.code)).body as b from v, w) s $$,
    $$ values ('cancelled', 'replaced') $$, 'the old code');
select is((t.scan(t.ctx(scan), w.code, 'y-1')).body->>'verdict', 'not_yet',
    'whose refusal is told once more to who asks once more')
from v, w;
select is((api.tickets_transfer(t.ctx(b1), w.id, 2, left(w.code, 28)
    || 'FOURTH', '{"email": "nobody@t.example"}')).body->>'code',
    'VALIDATION_FAILED', 'to nobody') from v, w;
select is((api.tickets_transfer(t.ctx(b1), w.id, 2, left(w.code, 28)
    || 'FOURTH', '{"email": "B2@t.example"}')).status, 200, 'transferred')
from v, w;
select is((select holder_id from app.tickets t, w where t.id = w.id),
    (select b2 from v), 'the new holder');
select is((select j->>'code' from v, api.orders_detail d,
    json_array_elements(d.body->'tickets') j, w
    where d.id = v.o and j->>'id' = w.id::text), null,
    'the buyer does not see the new code');
select is((api.tickets_code(t.ctx(b1), w.id)).body->>'code', 'NOT_FOUND',
    'nor gets it') from v, w;
select is((t.scan(t.ctx(scan), left(w.code, 28) || 'SECOND')).body
    ->>'verdict', 'cancelled', 'nor does the second generation open') from v, w;
select is((t.scan(t.ctx(scan), left(w.code, 28) || 'FOURTH')).body
    ->>'verdict', 'admitted', 'the last does') from v, w;
select is((select a.body->>'code' from v, w,
    api.tickets_change_begin(t.ctx(b2), w.id) a), 'INVALID_STATE',
    'a used ticket stays') from v;

-- refund and cancelled event
select t.pay(op) from v;
update v set kp = t.code(t.ticket_of(op));
select api.orders_refund(t.ctx(org), op, '{}') from v;
select is((t.scan(t.ctx(scan), kp)).body->>'verdict', 'cancelled', 'refunded')
from v;

-- devices
create temp table d as select (api.device_pair(t.ctx(org), ev, sha256('c1'),
    '{"name": "North", "gate": "N1"}')).body from v;
select is((api.device_pair(t.ctx(x), ev, sha256('c2'), '{"name": "N"}'))
    .body->>'code', 'NOT_FOUND', 'foreign event') from v;
select t.clock('11 min');
select is((api.device_login(t.ctx(null), sha256('c1'))).body->>'code',
    'INVALID_CREDENTIALS', 'pairing code: ten minutes');
select t.clock('0');
select is((api.device_login(t.ctx(null), sha256('c1'))).body->>'gate', 'N1',
    'paired');
select is((api.device_login(t.ctx(null), sha256('c1'))).body->>'code',
    'INVALID_CREDENTIALS', 'once');
alter table d add id uuid;
update d set id = (body->>'deviceId')::uuid;
select results_eq($$ select s.b->>'verdict', s.b->>'gate'
    from (select (t.scan(t.device_ctx(d.id, ev), code)).body as b
        from v, d, k3 where n = 6) s $$,
    $$ values ('admitted', 'N1') $$, 'a device admits at its gate');
select is((t.scan(t.device_ctx(d.id, ev), k2)).body->>'verdict',
    'wrong_event', 'a ticket of another event') from v, d;
select is((t.scan(t.device_ctx(d.id, ev), code, event => ev2)).body->>'code',
    'FORBIDDEN', 'only at its own event') from v, d, k3 where n = 7;
select is((api.checkin_snapshot(t.device_ctx(d.id, ev), null, null, null))
    .body->>'eventId', v.ev::text, 'snapshot') from v, d;
select is(json_array_length((api.checkin_snapshot(t.device_ctx(d.id, ev),
    null, null, null)).body->'revocations'), 2, 'with dead generations')
from v, d;
select is((api.checkin_snapshot(t.ctx(x), ev, null, null)).body->>'code',
    'FORBIDDEN', 'not for strangers') from v;
select is((api.checkin_stats(t.ctx(scan), ev)).body->>'admitted',
    (select count(*)::text from app.tickets, v where event_id = ev
        and state = 'admitted'), 'stats') from v;
select is((api.devices_delete(t.ctx(org), d.id)).status, 204, 'revoked')
from v, d;
select is((t.scan(t.device_ctx(d.id, ev), code)).body->>'code', 'FORBIDDEN',
    'and shut out') from v, d, k3 where n = 7;

select * from finish();
rollback;
