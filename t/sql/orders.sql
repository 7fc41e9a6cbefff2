-- Orders: holds, prices, promo codes, refusals inside a batch, expiry by the
-- clock alone, late payment, refunds.  After each part the counters must fit
-- what is stored (t.drift).

begin;
\ir _lib.sql
select no_plan();

create temp table v as select
    t.person('org@t.example', '{organizer,member}') as org,
    t.person('other@t.example', '{organizer,member}') as other,
    t.person('b1@t.example') as b1, t.person('b2@t.example') as b2,
    t.person('b3@t.example') as b3;
alter table v add ev uuid, add a uuid, add b uuid, add p uuid;
update v set ev = t.event(org, '{"capacity": 12}');
update v set a = t.type(ev, '{"quota": 5}'), b = t.type(ev, '{"quota": 20}'),
    p = t.type(ev, '{"quota": 4, "price_cents": 1999}');

-- one batch: fits, too much, other's type, fits again, nonsense
create temp table r as
select x.* from v, api.orders_create(array[5, 4, 3, 2, 1],
    array[t.ctx(b1), t.ctx(b2), t.ctx(b3), t.ctx(b1), t.ctx(b2)],
    array[jsonb_build_object('items', t.items(a, 3)),
        jsonb_build_object('items', t.items(a, 3)),
        jsonb_build_object('items', t.items(gen_random_uuid(), 1)),
        jsonb_build_object('items', t.items(a, 2)),
        jsonb_build_object('items', t.items(a, 11))],
    array[t.codes(t.items(a, 3)), t.codes(t.items(a, 3)),
        t.codes(t.items(a, 1)), t.codes(t.items(a, 2)),
        t.codes(t.items(a, 11))]) x;
select results_eq('select ord, status, body->>''code'' from r order by ord',
    $$ values (1, 0, 'ORDER_LIMIT'), (2, 201, null), (3, 0, 'NOT_FOUND'),
        (4, 0, 'SOLD_OUT'), (5, 201, null) $$,
    'each element has its own answer, the refused take nothing');
select is((select body->>'remaining' from r where ord = 4), '2', 'remaining');
select is((select json_array_length(body->'tickets') from r where ord = 5),
    3, 'free: tickets at once');
select is((select body->>'status' from r where ord = 5), 'paid', 'paid');
select is((select o.body::text from api.orders_detail o, r
    where r.ord = 5 and o.id = (r.body->>'id')::uuid),
    (select regexp_replace(body::text, ' *$', '') from r where ord = 5),
    'the answer is what GET answers, byte for byte');
select is_empty('select * from t.drift', 'counters fit');

-- two types, all or nothing; event capacity 12, 5 taken
select is((t.order_items(b1, t.items(b, 7) || t.items(a, 1))).body->>'code',
    'SOLD_OUT', 'one type short: nothing') from v;
select is((t.order_items(b1, t.items(b, 8))).body->>'remaining', '7',
    'the event''s capacity counts') from v;
select is((t.order_items(b1, t.items(b, 3) || t.items(b, 2))).body
    ->'items'->0->>'quantity', '5', 'lines of one type are merged') from v;
select is_empty('select * from t.drift', 'counters fit');

-- paid: price snapshot, hold
create temp table o as select (t.order(b1, p, 2)).body from v;
alter table o add id uuid;
update o set id = (body->>'id')::uuid;
select is((select body->>'status' from o), 'awaiting_payment', 'held');
select is((select body->>'totalCents' from o), '3998', 'total');
select is((select json_array_length(body->'tickets') from o), 0,
    'no codes before payment');
select matches((select body->'paymentDetails'->>'checkoutUrl' from o),
    '/pay/', 'where to pay');
select is((select o.body::text from api.orders_detail o
    where o.id = (select id from o)),
    (select body::text from o), 'the answer is what GET answers');
select is((t.order(b2, p)).body->>'code', 'SOLD_OUT', 'held seats are taken')
from v;
update app.ticket_types set price_cents = 5 where id = (select p from v);

-- expiry by the clock, every sweeper stopped
select t.clock('16 min');
select is((select d.body->>'status' from api.orders_detail d, o
    where d.id = o.id), 'expired', 'read as expired');
select is((select item->>'remaining' from api.ticket_types_list l, v
    where l.id = p), '2', 'shown as free');
select is((t.order(b2, p, 2)).body->>'status', 'awaiting_payment',
    'and sold to the next') from v;
select is((select status from app.orders, o where orders.id = o.id),
    'expired', 'it was ended on the way');
select is_empty('select * from t.drift', 'counters fit');
select t.clock('0');

-- late payment, seats gone: full refund, the order stays expired
select t.pay((select id from o));
select is((select status from app.orders, o where orders.id = o.id),
    'expired', 'late and sold out: not paid');
select is((select amount_cents from app.refunds r, o
    where r.order_id = o.id), 3998::bigint, 'refunded wholly');
select t.pay((select id from o));
select is((select count(*) from app.refunds r, o where r.order_id = o.id),
    1::bigint, 'once');
select is(t.run('refund.execute'), 1, 'the refund runs');
select is((select status from app.refunds), 'succeeded', 'done');

-- late payment, seats free
create temp table o2 as select id from app.orders
    where status = 'awaiting_payment';
select t.clock('17 min');
select is(t.run('order.expire_sweep'), 0, 'nothing scheduled');
select queue.schedule(array['order.expire_sweep'], array[15], '{""}', '{UTC}',
    '{once}');
select is(queue.schedule(array['order.expire_sweep'], array[15], '{""}',
    '{UTC}', '{once}'), 0, 'once per slot');
select t.run('order.expire_sweep');
select t.pay((select id from o2));
select is((select status from app.orders, o2 where orders.id = o2.id), 'paid',
    'late and free: paid');
select is((select count(*) from app.tickets t, o2 where t.order_id = o2.id
    and t.state = 'valid'), 2::bigint, 'tickets valid');
select is_empty('select * from t.drift', 'counters fit');
select t.clock('0');

-- the task of a hold: too early snoozes, then expires, then nothing
update v set b = t.type(ev, '{"quota": 3, "price_cents": 100}');
update app.events set capacity = null;
create temp table o3 as select t.order_id(b3, b, 3) as id from v;
create temp table q as select q.id, payload from queue.outbox q, o3
    where kind = 'order.expire' and payload->>'order_id' = o3.id::text;
select is((select task.order_expire(id, payload)->>'result' from q),
    'snooze', 'early: snooze');
select t.clock('16 min');
select is((select task.order_expire(id, payload)->>'result' from q), 'done',
    'in time: expired');
select is((select status from app.orders, o3 where orders.id = o3.id),
    'expired', 'expired');
select is((select sold from app.ticket_types, v where id = v.b), 0,
    'seats are free');
select is((select task.order_expire(id, payload)->>'result' from q), 'done',
    'again: nothing');
select t.clock('0');
select is_empty('select * from t.drift', 'counters fit');

-- a declined card keeps the hold; cancel gives back
create temp table o4 as select t.order_id(b3, b, 2) as id from v;
select t.event_in('evt_test_stoa_d1', 'payment_intent.payment_failed',
    t.intent(id) || '{"last_payment_error": {"code": "card_declined"}}')
from o4;
select is((select d.body->>'status' from api.orders_detail d, o4
    where d.id = o4.id), 'payment_failed', 'declined');
select is((select sold from app.ticket_types, v where id = v.b), 2,
    'still held');
select is((api.orders_cancel(t.ctx(v.other), o4.id)).body->>'code',
    'NOT_FOUND', 'foreign: 404') from v, o4;
select is((api.orders_cancel(t.ctx(b3), o4.id)).body->>'status', 'cancelled',
    'cancelled') from v, o4;
select is((api.orders_cancel(t.ctx(b3), o4.id)).body->>'code',
    'INVALID_STATE', 'once') from v, o4;
select is_empty('select * from t.drift', 'counters fit');

-- promo codes
create temp table c as select (api.promo_codes_create(t.ctx(org), ev,
    '{"code": "ten", "kind": "percent", "value": 10, "max_uses": 2}')).body
from v;
select is((api.promo_codes_create(t.ctx(org), ev, '{"code": "TEN",
    "kind": "percent", "value": 10, "max_uses": 2}')).body->>'code',
    'CONFLICT', 'one code of a name') from v;
select is((api.promo_codes_create(t.ctx(v.other), ev, '{"code": "X2",
    "kind": "percent", "value": 10, "max_uses": 2}')).body->>'code',
    'NOT_FOUND', 'foreign event') from v;
update v set b = t.type(ev, '{"quota": 100, "price_cents": 333,
    "min_per_order": 2}');
select is((t.order(b1, b, 1)).body->>'code', 'ORDER_LIMIT', 'below minimum')
from v;
select is((t.order(b1, b, 3, 'nope')).body->>'code', 'PROMO_INVALID',
    'unknown code') from v;
create temp table po as select (t.order(b1, b, 3, 'Ten')).body from v;
select is((select body->>'discountCents' from po), '100',
    'rounded once per line');
select is((select body->>'totalCents' from po), '899', 'total');
select is((select array_agg(price_cents order by price_cents desc)
    from app.tickets, po where order_id = (body->>'id')::uuid),
    array[300, 300, 299]::bigint[], 'each ticket has its share of the cents');
select is((t.order(b1, b, 3, 'TEN')).body->>'code', 'PROMO_EXHAUSTED',
    'once per user') from v;
select is((t.order(b2, b, 3, 'TEN')).status, 201, 'second use') from v;
select is((t.order(b3, b, 3, 'TEN')).body->>'code', 'PROMO_EXHAUSTED',
    'used up') from v;
select is_empty('select * from t.drift', 'counters fit');
select t.clock('16 min');
select is((t.order(b3, b, 3, 'TEN')).status, 201,
    'uses of lapsed holds come back') from v;
select is_empty('select * from t.drift', 'counters fit');
select t.clock('0');

create temp table c2 as select (api.promo_codes_create(t.ctx(org), ev,
    '{"code": "off", "kind": "amount", "value": 1000, "max_uses": 50,
    "per_user": 9}')).body from v;
update v set a = t.type(ev, '{"quota": 100, "price_cents": 1}');
select results_eq($$
    select (x.b->>'discountCents')::int,
        (x.b->'items'->0->>'lineTotalCents')::int,
        (x.b->'items'->1->>'lineTotalCents')::int, x.b->>'status'
    from (select (t.order_items(b1, t.items(a, 1) || t.items(b, 3), 'OFF'))
        .body as b from v) x $$,
    $$ values (1000, 0, 0, 'paid') $$,
    'an amount never exceeds the order; nothing to pay is paid');
select results_eq($$
    select (x.b->>'discountCents')::int,
        (select sum((i->>'lineTotalCents')::int)
            from json_array_elements(x.b->'items') i)::int
    from (select (t.order_items(b2, t.items(a, 7) || t.items(b, 10), 'OFF'))
        .body as b from v) x $$,
    $$ values (1000, 2337) $$, 'lines sum up to the total');
select is_empty('select * from t.drift', 'counters fit');

-- sales window, unpublished, cancelled, ended
select is((t.order(b1, t.type(ev, jsonb_build_object('sales_start',
    app.now() + interval '1 h')))).body->>'code', 'NOT_ON_SALE', 'too early')
from v;
select is((t.order(b1, t.type(ev, jsonb_build_object('sales_end',
    app.now() - interval '1 h')))).body->>'code', 'NOT_ON_SALE', 'too late')
from v;
select t.clock('31 days');
select is((t.order(b1, b, 2)).body->>'code', 'NOT_ON_SALE', 'event is over')
from v;
select t.clock('0');

-- refunds: whole, partial, by ticket, never above what was captured
-- po's hold had lapsed: its late payment takes the seats again
create temp table ro as select (body->>'id')::uuid as id from po;
select is((api.orders_refund(t.ctx(org), ro.id, '{}')).body->>'code',
    'INVALID_STATE', 'nothing paid yet') from v, ro;
select t.pay(id) from ro;
select is((api.orders_refund(t.ctx(v.other), ro.id, '{}')).body->>'code',
    'NOT_FOUND', 'foreign') from v, ro;
select is((api.orders_refund(t.ctx(org), ro.id, '{"amount_cents": 900}'))
    .body->>'code', 'REFUND_EXCEEDS', 'more than captured') from v, ro;
select is((api.orders_refund(t.ctx(org), ro.id, '{"amount_cents": 99}'))
    .body->>'orderStatus', 'partially_refunded', 'partial') from v, ro;
select is((select sold from app.ticket_types, v where id = v.b), 19,
    'a partial amount frees no seat');
select is((api.orders_refund(t.ctx(org), ro.id, jsonb_build_object(
    'ticket_ids', jsonb_build_array(t.ticket_of(ro.id))))).status, 201,
    'by ticket') from v, ro;
select is((select sold from app.ticket_types, v where id = v.b), 18,
    'its seat is free');
select is((api.orders_refund(t.ctx(org), ro.id, jsonb_build_object(
    'ticket_ids', jsonb_build_array(t.ticket_of(ro.id))))).body->>'code',
    'VALIDATION_FAILED', 'a ticket once') from v, ro;
select is((api.orders_refund(t.ctx(org), ro.id, '{}')).body->>'orderStatus',
    'refunded', 'the rest') from v, ro;
select is((select sum(amount_cents) from app.refunds r, ro
    where r.order_id = ro.id), 899::numeric, 'sum = captured');
select is((select sold from app.ticket_types, v where id = v.b), 16,
    'all seats are free');
select is((select count(*) from app.tickets t, ro where t.order_id = ro.id
    and t.state = 'refunded'), 3::bigint, 'no ticket lives');
select is((api.orders_refund(t.ctx(org), ro.id, '{}')).body->>'code',
    'REFUND_EXCEEDS', 'nothing is left') from v, ro;
select is_empty('select * from t.drift', 'counters fit');

-- the backstops
select throws_ok($$ update app.ticket_types set sold = quota + 1
    where id = (select b from v) $$, '23514', null, 'sold <= quota');
select throws_ok($$ update app.payments set refunded_cents = captured_cents + 1
    where captured_cents > 0 $$, '23514', null, 'refunded <= captured');
set constraints all deferred;
update app.order_items set line_total_cents = line_total_cents - 1,
    discount_cents = discount_cents + 1
where order_id = (select id from ro);
select throws_ok('set constraints all immediate', '23514', null,
    'lines sum up to the total');

select * from finish();
rollback;
