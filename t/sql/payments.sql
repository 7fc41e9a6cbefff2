-- I-33: a provider's events in many orders, with duplicates, end in one
-- state with one set of effects; tasks of payments, refunds, mails, a
-- cancelled event; queue, idempotency, seal.

begin;
\ir _lib.sql
select no_plan();

create temp table v as select
    t.person('org@t.example', '{organizer,member}') as org,
    t.person('b1@t.example') as b1, t.person('b2@t.example') as b2;
alter table v add ev uuid, add p uuid, add o uuid;
update v set ev = t.event(org);
update v set p = t.type(ev, '{"quota": 50, "price_cents": 1000}');
update v set o = t.order_id(b1, p, 2);

create function t.page_refund(o uuid, n int, amount bigint, status text)
returns jsonb language sql as $$
    select jsonb_build_object('object', 'refund', 'id', 're_page_' || n,
        'amount', amount, 'status', status, 'metadata', '{}'::jsonb,
        'payment_intent', t.intent(o)->>'id')
$$;

create temp table events (n int, id text, type text, object jsonb,
    created bigint);
insert into events
select x.* from v, lateral (values
    (1, 'evt_test_stoa_1', 'payment_intent.created', t.intent(o), 1::bigint),
    (2, 'evt_test_stoa_2', 'payment_intent.payment_failed', t.intent(o), 2),
    (3, 'evt_test_stoa_3', 'payment_intent.succeeded', t.intent(o), 3),
    (4, 'evt_test_stoa_4', 'charge.succeeded', '{"object": "charge",
        "id": "ch_1", "captured": true, "amount": 2000, "amount_captured":
        2000}'::jsonb || jsonb_build_object('payment_intent',
            t.intent(o)->>'id'), 3),
    (5, 'evt_test_stoa_5', 'charge.refunded', '{"object": "charge",
        "id": "ch_1", "amount_captured": 2000, "amount_refunded": 500}'::jsonb
        || jsonb_build_object('payment_intent', t.intent(o)->>'id'), 5),
    (6, 'evt_test_stoa_6', 'charge.refunded', '{"object": "charge",
        "id": "ch_1", "amount_captured": 2000, "amount_refunded": 1200}'::jsonb
        || jsonb_build_object('payment_intent', t.intent(o)->>'id'), 6),
    (7, 'evt_test_stoa_7', 'charge.dispute.created', '{"object": "dispute",
        "status": "needs_response"}'::jsonb || jsonb_build_object(
        'payment_intent', t.intent(o)->>'id'), 7),
    (8, 'evt_test_stoa_8', 'charge.dispute.closed', '{"object": "dispute",
        "status": "won"}'::jsonb || jsonb_build_object('payment_intent',
        t.intent(o)->>'id'), 7),
    -- the two refunds that these totals speak of, made on Stripe's page
    (10, 'evt_test_stoa_10', 'refund.created', t.page_refund(o, 1, 500,
        'succeeded'), 5),
    (11, 'evt_test_stoa_11', 'refund.created', t.page_refund(o, 2, 700,
        'pending'), 6),
    (12, 'evt_test_stoa_12', 'refund.updated', t.page_refund(o, 2, 700,
        'succeeded'), 7),
    (9, 'evt_test_stoa_9', 'customer.created', '{"object": "customer"}', 1))
    x (n, id, type, object, created);

create function t.outcome()
returns text language sql as $$
    select concat_ws(' ', o.status, o.holds, p.status, p.captured_cents,
        p.refunded_cents, p.disputed,
        (select string_agg(t.state, ',' order by t.id) from app.tickets t
            where t.order_id = o.id),
        (select count(*) from queue.outbox q where q.kind = 'mail.send'
            and q.payload->>'template' = 'order_paid'
            and q.payload->>'order_id' = o.id::text),
        (select count(*) from queue.outbox q where q.kind = 'refund.execute'),
        (select sum(r.amount_cents) from app.refunds r
            where r.order_id = o.id),
        (select sum(sold) from app.ticket_types))
    from app.orders o
    join app.payments p on p.order_id = o.id
    join v on v.o = o.id
$$;

create function t.permute(seed float, of int[])
returns text language plpgsql as $$
declare
    r record;
    s text;
begin
    perform setseed(seed);
    begin
        for r in
            select e.* from events e cross join generate_series(1, 3) g
            where e.n = any (of) and (g = 1 or random() < 0.5)
            order by random()
        loop
            perform t.event_in(r.id, r.type, r.object, r.created);
        end loop;
        s := t.outcome();
        raise exception 'undo' using errcode = 'P0002', detail = s;
    exception when sqlstate 'P0002' then
        get stacked diagnostics s = pg_exception_detail;
    end;
    return s;
end $$;

select results_eq($$ select distinct t.permute(g / 200.0,
        array[1, 2, 3, 4, 5, 6, 7, 8, 9]) from generate_series(1, 150) g $$,
    $$ values ('partially_refunded t partially_refunded 2000 1200 f '
        'valid,valid 1 0 1200 2') $$,
    '150 permutations with duplicates: one final state');
select results_eq($$ select distinct t.permute(g / 200.0,
        array[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
    from generate_series(1, 150) g $$,
    $$ values ('partially_refunded t partially_refunded 2000 1200 f '
        'valid,valid 1 0 1200 2') $$,
    'told of each refund, too: the same state');
select results_eq($$ select distinct t.permute(g / 100.0,
        array[1, 2, 3, 4, 7]) from generate_series(1, 60) g $$,
    $$ values ('paid t succeeded 2000 0 t valid,valid 1 0 2') $$,
    'without refund, in dispute');

-- the same event fifty times has one effect
do $$
begin
    for i in 1 .. 50 loop
        perform t.event_in(e.id, e.type, e.object) from events e where n = 3;
    end loop;
end $$;
select is((select count(*) from app.webhook_events), 1::bigint,
    'stored once');
select is(t.outcome(), 'paid t succeeded 2000 0 f valid,valid 1 0 2',
    'one effect');
select is((api.webhooks_stripe(t.ctx(null), 'no json', 'stripe')).body
    ->>'code',
    'BAD_REQUEST', 'no JSON');
select is((api.webhooks_stripe(t.ctx(null), '{"id": 1}', 'stripe')).body
    ->>'code',
    'BAD_REQUEST', 'no event');
select t.event_in('evt_other', 'payment_intent.succeeded', '{"id": "pi_x",
    "object": "payment_intent"}');
select is((select outcome from app.webhook_events where event_id =
    'evt_other'), 'not ours', 'of somebody else');

-- paid too little, paid twice
create temp table o2 as select t.order_id(b2, p, 1) as id from v;
select t.pay(id, 600) from o2;
select results_eq($$ select status, (select sum(amount_cents)
        from app.refunds r where r.order_id = o2.id)
    from app.orders, o2 where orders.id = o2.id $$,
    $$ values ('awaiting_payment', null::numeric) $$,
    'less than the total buys nothing');
select t.clock('16 min');
select app.holds_release(ev) from v;
select results_eq($$ select status, (select sum(amount_cents)
        from app.refunds r where r.order_id = o2.id)
    from app.orders, o2 where orders.id = o2.id $$,
    $$ values ('expired', 600::numeric) $$,
    'and goes back when nothing more came in time');
select t.clock('0');
select is_empty('select * from t.drift', 'counters fit');

-- paid too much at once
savepoint more;
create temp table om as select t.order_id(b2, p, 1) as id from v;
select t.pay(id, 1300) from om;
select results_eq($$ select o.status, r.amount_cents, r.reason
    from om join app.orders o on o.id = om.id
    join app.refunds r on r.order_id = om.id $$,
    $$ values ('partially_refunded', 300::bigint,
        'more than the total was paid') $$, 'the rest goes back');
rollback to more;

-- a refund on the provider''s page while one of ours waits and then fails
savepoint page;
create temp table op as select t.order_id(b2, p, 1) as id from v;
select t.event_in('evt_test_page_' || n, e.type, e.object)
from op, lateral (values (1, 'payment_intent.succeeded', t.intent(op.id)))
    e (n, type, object);
select is((api.orders_refund(t.ctx(org), op.id, '{"amount_cents": 600}'))
    .status, 201, 'ours') from v, op;
select t.event_in('evt_test_page_' || n, e.type, e.object)
from op, lateral (values
    (2, 'charge.refunded', jsonb_build_object('object', 'charge',
        'payment_intent', t.intent(op.id)->>'id', 'amount', 1000,
        'amount_captured', 1000, 'amount_refunded', 300)),
    (3, 'refund.created', t.page_refund(op.id, 9, 300, 'succeeded')))
    e (n, type, object);
select is(p.refunded_cents, 900::bigint, 'both count')
from app.payments p, op where p.order_id = op.id;
select app.refund_end(r.id, false, null, 'refused')
from app.refunds r, op where r.order_id = op.id and r.status = 'pending';
select results_eq($$ select p.refunded_cents, o.status
    from op join app.payments p on p.order_id = op.id
    join app.orders o on o.id = op.id $$,
    $$ values (300::bigint, 'partially_refunded') $$,
    'what went back is not forgotten');
rollback to page;

-- an organizer''s words are not the mark of a refund made over there
savepoint words;
create temp table ow as select t.order_id(b2, p, 1) as id from v;
select t.pay(id, 1000) from ow;
select api.orders_refund(t.ctx(org), ow.id, '{"amount_cents": 400,
    "reason": "by the provider"}') from v, ow;
select t.event_in('evt_test_words', 'refund.created', t.page_refund(ow.id, 8,
    400, 'succeeded')) from ow;
select results_eq($$ select count(*), sum(r.amount_cents) from app.refunds r
    join ow on r.order_id = ow.id $$, $$ values (2::bigint, 800::numeric) $$,
    'both refunds stand');
rollback to words;

-- refunds that are told of before the intent is known; whole ones that fail
savepoint early;
create temp table oe as select t.order_id(b2, p, 1) as id from v;
create temp table ev as
select 'a' as n, 'payment_intent.succeeded' as type, t.intent(id) as object
from oe
union all select 'b', 'refund.created', t.page_refund(id, 7, 1000,
    'pending') from oe
union all select 'c', 'refund.updated', t.page_refund(id, 7, 1000,
    'succeeded') from oe
union all select 'd', 'refund.created', t.page_refund(id, 6, 300,
    'failed') from oe;
update app.payments p set intent_id = null from oe where p.order_id = oe.id;
create function t.story(names text)
returns text language plpgsql as $$
declare
    s text;
begin
    perform t.event_in('evt_test_early_' || e.n, e.type, e.object)
    from regexp_split_to_table(names, '') with ordinality x (n, i)
    join ev e on e.n = x.n order by x.i;
    perform t.event_in('evt_test_last', 'customer.created', '{}');
    select concat_ws(' ', o.status, p.status, p.refunded_cents, (
        select string_agg(r.amount_cents || r.status, ',' order by r.status)
        from app.refunds r where r.order_id = o.id)) into s
    from oe join app.orders o on o.id = oe.id
    join app.payments p on p.order_id = o.id;
    raise exception 'undo' using errcode = 'P0002', detail = s;
exception when sqlstate 'P0002' then
    get stacked diagnostics s = pg_exception_detail;
    return s;
end $$;
select is(t.story(names), 'refunded refunded 1000 300failed,1000succeeded',
    'in the order ' || names)
from unnest(array['abcd', 'badc', 'cbad', 'dcba', 'bcad']) names;
rollback to early;

-- ours does not fit beside one made over there: the rest of it goes back
savepoint rest;
create temp table os as select t.order_id(b2, p, 1) as id from v;
select api.orders_cancel(t.ctx(b2), id) from v, os;
select t.pay(id, 1000) from os;
select t.event_in('evt_test_rest', 'refund.created', t.page_refund(os.id, 5,
    300, 'succeeded')) from os;
select app.refund_end(r.id, false, null, 'too much') from app.refunds r, os
where r.order_id = os.id and r.ours;
select results_eq($$ select o.status, p.refunded_cents, (
        select string_agg(r.amount_cents || r.status, ',' order by
            r.amount_cents) from app.refunds r where r.order_id = o.id)
    from os join app.orders o on o.id = os.id
    join app.payments p on p.order_id = o.id $$,
    $$ values ('cancelled', 1000::bigint,
        '300succeeded,700pending,1000failed') $$, 'nothing is kept');
rollback to rest;

-- a refund whose task was given up is asked for again an hour later
savepoint again;
create temp table og as select t.order_id(b2, p, 1) as id from v;
select t.pay(id, 1000) from og;
select api.orders_refund(t.ctx(org), og.id, '{}') from v, og;
select queue.dead(q.id, 'twelve times') from queue.outbox q
where q.kind = 'refund.execute';
create function t.asked()
returns bigint language sql as $$
    select count(*) from queue.outbox q
    where q.kind = 'refund.execute' and q.state < 2
$$;
select task.reconcile_begin(0, '{}');
select is(t.asked(), 0::bigint, 'not at once');
select t.clock('61 min');
select task.reconcile_begin(0, '{}');
select task.reconcile_begin(0, '{}');
select is(t.asked(), 1::bigint, 'once');
insert into queue.inbox (op, path, body, created_at)
select 'refund:' || r.id, '/v1/refunds', '', app.now()
from app.refunds r, og where r.order_id = og.id;
select is(task.refund_failed(q.id, q.payload, '{"code": "never_made"}')
    ->>'result', 'again', 'one that was never made is made anew')
from queue.outbox q where q.kind = 'refund.execute';
select is_empty($$ select from queue.inbox i, app.refunds r, og
    where r.order_id = og.id and i.op = 'refund:' || r.id $$,
    'with a new request');
rollback to again;

-- the page of the test provider
create temp table o3 as select t.order_id(b2, p, 1) as id from v;
select is((api.pay_form(t.ctx(null), id, 'pay')).status, 303, 'pay') from o3;
select is((api.pay_form(t.ctx(null), id, 'pay')).status, 303, 'twice') from o3;
select is((select count(*) from queue.outbox where kind = 'payment.test_pay'),
    1::bigint, 'one task');
create temp table q as select * from queue.outbox
    where kind = 'payment.test_pay';
select is((select task.test_pay_begin(id, payload)->>'outcome' from q),
    'succeeded', 'begun');
select is((select task.done(id, payload)->>'result' from q), 'done',
    'done');
select is((select task.test_pay_begin(id, payload)->>'result' from q), 'done',
    'not again');
select app.settings_put('{"environment": "production"}');
select is((api.pay_form(t.ctx(null), id, 'pay')).body->>'code', 'NOT_FOUND',
    'not in production') from o3;
select is_empty($$ select * from api.pay_view((select id from o3)) $$,
    'nor the page');
select app.settings_put('{"environment": "development"}');

-- nobody has stored the settings yet: only what is free can be had
create temp table settings as table app.settings;
delete from app.settings;
select is((select status || (body->>'code') from v, t.order(b1, p, 1)),
    '0STARTING', 'nothing is sold before it is known who takes the money');
select is((select a.status from v, t.order(b1, t.type(ev, '{"quota": 3}'), 1)
    a), 201, 'what is free can be had');
select is((api.pay_form(t.ctx(null), id, 'pay')).body->>'code', 'NOT_FOUND',
    'nor is anything paid for test') from o3;
select is_empty('select * from t.drift', 'nothing was held');
insert into app.settings table settings;

-- Stripe: made by a worker
select app.settings_put('{"payment_provider": "stripe",
    "stripe_publishable_key": "pk_1"}');
create temp table s as select a.* from v, t.order(b1, p, 1) a;
select isnt((select wait from s), null, 'the answer waits for a worker');
select is((select body->>'status' from s), 'reserved', 'reserved');
create temp table sq as select q.* from queue.outbox q, s where q.id = s.wait;
select is((select task.payment_begin(id, payload)->>'op' from sq),
    'order:' || (select body->>'id' from s), 'operation');
select is((select task.provider_request(id, 'op1', '/v1/x', 'a=1') from sq),
    '{"path": "/v1/x", "body": "a=1", "ageS": 0}'::jsonb, 'bytes are stored');
select is((select task.provider_request(id, 'op1', '/v1/y', 'a=2') from sq),
    '{"path": "/v1/x", "body": "a=1", "ageS": 0}'::jsonb, 'and kept');
create temp table done as select task.payment_done(id, payload,
    '{"paymentIntentId": "pi_9", "clientSecret": "cs", "checkoutUrl": null}')
    as r from sq;
select is((select r->'reply'->'paymentDetails'->>'publishableKey' from done),
    'pk_1', 'reply is the order');
select is((select r->'reply'->>'status' from done), 'awaiting_payment',
    'awaiting payment');
select is((select task.payment_done(id, payload, '{"paymentIntentId": "pi_X"}')
    ->'reply'->'paymentDetails'->>'paymentIntentId' from sq), 'pi_9',
    'a repeat changes nothing');
select t.clock('3 min');
create temp table rec as select task.reconcile_begin(queue.enqueue(
    'payment.reconcile', '{}'), '{}') as r;
select is((select r->'items'->0->>'paymentIntentId' from rec), 'pi_9',
    'the reconciler asks');
select is(task.reconcile_begin(queue.enqueue('payment.reconcile', '{}'), '{}')
    ->>'result', 'done', 'but not at once again');
select task.payment_observed((select (r->'items'->0->>'paymentId')::uuid
    from rec), '{"paymentIntentId": "pi_9", "status": "succeeded",
    "amountReceived": 1000}');
select is((select status from app.orders where id = (select
    (body->>'id')::uuid from s)), 'paid', 'and the order is paid');
select t.clock('0');
select app.settings_put('{"payment_provider": "test"}');

-- refunds that fail at the provider are refundable again
create temp table rf as select (api.orders_refund(t.ctx(org),
    (s.body->>'id')::uuid, '{"amount_cents": 400}')).body from v, s;
create temp table rq as select q.* from queue.outbox q, rf
    where q.kind = 'refund.execute'
        and q.payload->>'refund_id' = rf.body->>'id';
select is((select task.refund_begin(id, payload)->>'paymentIntentId' from rq),
    'pi_9', 'call');
select task.refund_failed(id, payload, '{"message": "no"}') from rq;
select is((select refunded_cents from app.payments where intent_id = 'pi_9'),
    0::bigint, 'given back');
select is((select status from app.payments where intent_id = 'pi_9'),
    'succeeded', 'state follows');
select is_empty('select * from t.drift', 'counters fit');

-- mails
create temp table m as select q.* from queue.outbox q
    where kind = 'mail.send' and payload->>'template' = 'order_paid'
        and payload->>'order_id' = (select o::text from v);
create temp table mb as select task.mail_begin(id, payload) as r from m;
select results_eq($$ select r->>'result', r->>'to', r->>'lang',
        jsonb_array_length(r->'tickets'), r->'data'->>'startsLocal' is not null
    from mb $$,
    $$ values ('send', 'b1@t.example', 'en', 2, true) $$, 'a mail');
select task.mail_done(id, payload, '{"messageId": "x", "via": "file"}')
from m;
select is((select task.mail_begin(id, payload)->>'result' from m), 'done',
    'sent once');
select is((select reason from queue.history h, m where h.id = m.id), null,
    'kept in history');
create temp table m2 as select queue.enqueue('mail.send',
    jsonb_build_object('template', 'welcome', 'user_id', b2)) as id from v;
select is(task.mail_failed(m2.id, o.payload, '{"reason": "550",
    "suppress": true}')->>'result', 'dead', 'refused for good')
from m2, queue.outbox o where o.id = m2.id;
select is(task.mail_begin(queue.enqueue('mail.send', jsonb_build_object(
    'template', 'password_reset', 'user_id', b2)), jsonb_build_object(
    'template', 'password_reset', 'user_id', b2))->>'reason', 'suppressed',
    'and never tried again') from v;

-- a cancelled event pays everybody back, chunk by chunk (I-12)
create temp table many as select t.order_id(b1, p, 1) as id from v,
    generate_series(1, 30);
create temp table free as select t.order_id(b2, t.type(ev, '{"quota": 200}'),
    1) as id from v, generate_series(1, 30);
select t.pay(id) from many limit 20;
select is((api.events_cancel(t.ctx(org), ev, null, 'rain')).body->>'status',
    'cancelled', 'cancelled') from v;
select is((t.order(b1, p)).body->>'code', 'NOT_ON_SALE', 'not on sale') from v;
select t.run('event.cancel_refunds');
select is(t.run('event.cancel_refunds'), 1, 'a second chunk');
select is(t.run('event.cancel_refunds'), 0, 'and no third');
select is((select count(*) from app.orders where holds), 0::bigint,
    'nobody holds a seat');
select is((select sum(captured_cents - refunded_cents) from app.payments),
    0::numeric, 'every cent goes back');
select is((select sum(sold) from app.ticket_types), 0::bigint, 'no seat sold');
select is_empty('select * from t.drift', 'counters fit');

-- queue
select is(queue.enqueue('k', '{}', uniq => 'u'), queue.enqueue('k', '{}',
    uniq => 'u'), 'one row per uniq');
create temp table qi as select queue.enqueue('k', '{"a": 1}',
    app.now() + interval '2 min') as id;
select is_empty($$ select from queue.peek(1000) p, qi where p.id = qi.id $$,
    'not due');
select t.clock('90 s');
select is((select delay_ms between 1 and 60000 from queue.peek(1000) p, qi
    where p.id = qi.id), true, 'due within a minute');
select is(queue.sent(array[id]), 1, 'sent') from qi;
select is(queue.sent(array[id]), 0, 'once') from qi;
select is_empty($$ select from queue.sweep(100) s, qi where s.id = qi.id $$,
    'the sweeper leaves it');
select t.clock('8 min');
select isnt_empty($$ select from queue.sweep(1000) s, qi where s.id = qi.id $$,
    'five minutes');
select ok(queue.dead(id, 'why'), 'dead') from qi;
select ok(not queue.done(id), 'dead: its effect must not run') from qi;
select is((select last_error
    from queue.list('dead', 'k', null, null, 10)), 'why', 'listed');
select ok(queue.redrive_one(id), 'redriven') from qi;
select ok(queue.done(id), 'done') from qi;
select ok(not queue.done(id), 'once') from qi;
select is((queue.stats()->>'dead')::int >= 0, true, 'stats');
select t.clock('0');

-- idempotency
select is((api.idem_begin('s', 'k', 'p')).state, 'new', 'new');
select isnt(api.idem_store('s', 'k', 'p', 201, '{"a":1}', null, '1'), null,
    'stored');
select results_eq($$ select state, status, body::text, etag
    from api.idem_begin('s', 'k', 'p') $$,
    $$ values ('stored', 201, '{"a":1}', '1') $$, 'replayed');
select is((api.idem_begin('s', 'k', 'q')).state, 'mismatch', 'other payload');
select is((api.idem_begin('s2', 'k', 'q')).state, 'new', 'other scope');
select throws_ok($$ select api.idem_store('s', 'k', 'p', 200, null, null,
    null) $$, '23505', null, 'a racer fails');
select t.clock('25 h');
select queue.enqueue('retention.sweep', '{}');
select t.run('retention.sweep');
select is((api.idem_begin('s', 'k', 'q')).state, 'new', 'kept for a day');

-- Stripe writes ISK and UGX with two decimals that they do not have
select results_eq($$ select app.provider_units(p, c) from (values
    ('stripe', 'ISK'), ('stripe', 'UGX'), ('stripe', 'JPY'), ('stripe', 'EUR'),
    ('test', 'ISK')) x (p, c) $$, 'values (100), (100), (1), (1), (1)',
    'units of providers');
select app.settings_put('{"payment_provider": "stripe"}');
create temp table isk as select t.order_id(v.b1, t.type(t.event(v.org,
    '{"currency": "ISK"}'), '{"quota": 9, "price_cents": 1500}'), 2) as id
from v, generate_series(1, 2);
select app.settings_put('{"payment_provider": "test"}');
create temp table i1 as select p.*, q.id as task, q.payload
from app.payments p join queue.outbox q on q.kind = 'payment.create'
    and q.payload->>'payment_id' = p.id::text
where p.order_id in (select id from isk);
select results_eq($$ select amount_cents, task.payment_begin(task, payload)
    ->>'amountCents' from i1 $$,
    $$ values (3000::bigint, '300000'), (3000::bigint, '300000') $$,
    'what Stripe is asked for');
update app.payments p set intent_id = 'pi_isk_' || p.id from i1
where i1.id = p.id;
select task.payment_observed(min(id::text)::uuid,
    '{"status": "succeeded", "amountReceived": 300000}') from i1;
insert into app.webhook_events (provider, event_id, type, created, payload,
    received_at)
select 'stripe', 'evt_isk', 'charge.refunded', 1, jsonb_build_object('data',
    jsonb_build_object('object', jsonb_build_object('object', 'charge',
    'payment_intent', 'pi_isk_' || max(id::text), 'captured', true,
    'amount', 300000, 'amount_captured', 300000,
    'amount_refunded', 100000))), app.now() from i1;
select task.webhook_process(queue.enqueue('webhook.process', '{}'),
    '{"provider": "stripe", "event_id": "evt_isk"}');
select results_eq($$ select o.status, p.captured_cents, p.refunded_cents
    from app.orders o join app.payments p on p.order_id = o.id
    where o.id in (select id from isk) order by p.id $$,
    $$ values ('paid', 3000::bigint, 0::bigint),
        ('partially_refunded', 3000, 1000) $$, 'and what it tells');
create temp table ir as select (api.orders_refund(t.ctx(v.org), i1.order_id,
    '{"amount_cents": 500}')).body from v, i1 where i1.id = (
    select min(x.id::text)::uuid from i1 x);
select is((select task.refund_begin(q.id, q.payload)->>'amountCents'
    from queue.outbox q, ir where q.kind = 'refund.execute'
        and q.payload->>'refund_id' = ir.body->>'id'), '50000',
    'and what it is to pay back');
select is_empty('select * from t.drift', 'counters fit');

select * from finish();
rollback;
