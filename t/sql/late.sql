-- What comes late or goes wrong with money: orders that ended and are paid,
-- parts of a payment, refunds that fail, events that make no sense; tickets
-- of others when an order ends; the bound of open orders.

begin;
\ir _lib.sql
select no_plan();

create temp table v as select
    t.person('org@t.example', '{organizer,member}') as org,
    t.person('b1@t.example') as b1, t.person('b2@t.example') as b2,
    t.person('b3@t.example') as b3;
alter table v add ev uuid, add p uuid, add f uuid;
update v set ev = t.event(org);
update v set p = t.type(ev, '{"quota": 50, "price_cents": 1000}'),
    f = t.type(ev, '{"name": "Free", "quota": 50}');

create function t.show(id uuid)
returns text language sql as $$
    select concat_ws(' ', o.status, p.status, p.captured_cents,
        p.refunded_cents, (select string_agg(k.state, ',' order by k.id)
            from app.tickets k where k.order_id = o.id))
    from app.orders o left join app.payments p on p.order_id = o.id
    where o.id = $1
$$;

create function t.mails(template text, id uuid)
returns bigint language sql as $$
    select count(*) from queue.outbox q where q.kind = 'mail.send'
        and q.payload->>'template' = $1 and q.payload->>'order_id' = $2::text
$$;

-- ---- a code never sells more often than it may (I-27) ----

select api.promo_codes_create(t.ctx(org), ev, '{"code": "ONE",
    "kind": "percent", "value": 90, "max_uses": 1, "per_user": 1}') from v;

create temp table one (n int, id uuid);
do $$
begin
    for i in 1 .. 4 loop
        insert into one select i, ((t.order(b1, p, 1, 'ONE')).body->>'id')::uuid
        from v;
        perform t.clock(i * interval '16 min');
        perform app.holds_release(ev) from v;
    end loop;
end $$;
select t.clock('65 min');
select t.pay(id) from one order by n;
select results_eq('select status from app.orders o join one on one.id = o.id
    order by n', $$ values ('paid'), ('expired'), ('expired'), ('expired') $$,
    'four holds of one code ran out, one is paid late');
select results_eq('select distinct p.captured_cents - p.refunded_cents
    from app.payments p join one on one.id = p.order_id and n > 1',
    'values (0::bigint)', 'the others get their money back');
select is((select used from app.promo_codes where code = 'ONE'), 1,
    'counted once');
select is((select count(*) from app.promo_redemptions where not released),
    1::bigint, 'redeemed once');
select is_empty('select * from t.drift', 'counters fit');

select api.promo_codes_create(t.ctx(org), ev, '{"code": "MINE",
    "kind": "percent", "value": 50, "max_uses": 9, "per_user": 1}') from v;
create temp table mine as
    select ((t.order(b1, p, 1, 'MINE')).body->>'id')::uuid as id from v;
select t.clock('82 min');
select app.holds_release(ev) from v;
create temp table mine2 as
    select ((t.order(b1, p, 1, 'MINE')).body->>'id')::uuid as id from v;
select t.pay(id) from mine2;
select t.pay(id) from mine;
select is((select t.show(id) from mine), 'expired refunded 500 500 expired',
    'nor more often than one person may');

-- ---- who cancels means it ----

create temp table c1 as select t.order_id(b1, p, 2) as id from v;
select is((api.orders_cancel(t.ctx(b1), id)).status, 200, 'cancelled')
from v, c1;
select is((api.pay_form(t.ctx(null), id, 'pay')).body->>'code',
    'INVALID_STATE', 'its page takes no money') from c1;
select is((select status from app.payments p, c1 where p.order_id = c1.id),
    'canceled', 'its payment is closed');
select t.pay(id) from c1;
select is((select t.show(id) from c1),
    'cancelled refunded 2000 2000 cancelled,cancelled',
    'paid all the same: the money goes back');
select is_empty('select * from t.drift', 'counters fit');
select t.run('refund.execute');
select is((select t.mails('order_refunded', id) from c1), 1::bigint,
    'and the buyer is told');
select is((select app.mail_build(q.payload)->'data'->>'late'
    from queue.outbox q, c1 where q.payload->>'template' = 'order_refunded'
        and q.payload->>'order_id' = c1.id::text), '1', 'why');

-- ---- an expired order comes back only if it could be placed ----

create temp table late as select g, t.order_id(b1, t.type(ev,
    '{"quota": 5, "price_cents": 700}'), 1) as id from v,
    generate_series(1, 3) g;
select t.clock('99 min');
select app.holds_release(ev) from v;
update app.ticket_types y set sales_end = app.now() - interval '1 min'
from app.tickets k, late where k.order_id = late.id and late.g = 1
    and y.id = k.ticket_type_id;
update app.ticket_types y set sales_start = app.now() + interval '1 min'
from app.tickets k, late where k.order_id = late.id and late.g = 2
    and y.id = k.ticket_type_id;
select t.pay(id) from late;
select results_eq('select t.show(id) from late order by g', $$ values
    ('expired refunded 700 700 expired'), ('expired refunded 700 700 expired'),
    ('paid succeeded 700 0 valid') $$, 'not on sale: the money goes back');

-- ---- a part, then the whole ----

create temp table part as select t.order_id(b2, p, 1) as id from v;
select t.pay(id, 1) from part;
select is((select t.show(id) from part),
    'awaiting_payment pending 1 0 reserved', 'a part buys nothing');
select t.pay(id, 1000) from part;
select t.pay(id, 1) from part;
select is((select t.show(id) from part), 'paid succeeded 1000 0 valid',
    'the whole buys all');
select is((select t.mails('order_paid', id) from part), 1::bigint, 'told');
create temp table part2 as select t.order_id(b2, p, 1) as id from v;
select t.pay(id, 1) from part2;
select api.orders_cancel(t.ctx(b2), id) from v, part2;
select is((select t.show(id) from part2), 'cancelled refunded 1 1 cancelled',
    'a part goes back when the order is called off');

-- ---- refunds that end later, and refunds that fail ----

select app.settings_put('{"payment_provider": "stripe"}');
create temp table s as select g, t.order_id(b2, p, 2) as id from v,
    generate_series(1, 3) g;
update app.orders set status = 'awaiting_payment'
where id in (select id from s);
update app.payments set intent_id = 'pi_late_' || g from s
where order_id = s.id;

create function t.told(what text, object jsonb)
returns text language plpgsql as $$
declare
    v_id text := 'evt_' || gen_random_uuid();
begin
    perform t.event_in(v_id, what, object);
    return (select state || ' ' || coalesce(outcome, '')
        from app.webhook_events w where w.event_id = v_id);
end $$;

select t.told('payment_intent.succeeded', t.intent(id)) from s;

create temp table rf as select g, s.id as order_id,
    ((api.orders_refund(t.ctx(org), s.id, case g when 1
        then '{"amount_cents": 300}' else '{}'::jsonb end)).body->>'id')::uuid
    as id from v, s where g < 3;
select task.refund_done(q.id, q.payload, jsonb_build_object('status',
    'pending', 'providerRefundId', 're_' || g))
from queue.outbox q join rf on q.payload->>'refund_id' = rf.id::text
where q.kind = 'refund.execute';
select is((select count(*) from app.refunds r join rf on rf.id = r.id
    where r.status = 'pending'), 2::bigint, 'pending at the provider');
select is((select sum(t.mails('order_refunded', order_id)) from rf), 0::numeric,
    'the buyer is not told before it is true');

-- a request is remembered for as long as nobody knows how it ended
savepoint kept;
insert into queue.inbox (op, path, body, created_at)
select op, '/v1/refunds', '', app.now() - interval '31 days'
from (select 'refund:' || id from rf
    union all select 'refund:of nobody') x (op);
select queue.enqueue('retention.sweep', '{}');
select t.run('retention.sweep');
select results_eq($$ select count(*), count(*) filter (where op like '%nobody')
    from queue.inbox where path = '/v1/refunds' $$,
    $$ values (2::bigint, 0::bigint) $$, 'those of pending refunds are kept');
rollback to kept;

create function t.refund_object(g int, status text)
returns jsonb language sql as $$
    select jsonb_build_object('object', 'refund', 'id', 're_' || $1,
        'payment_intent', 'pi_late_' || $1, 'amount', r.amount_cents,
        'currency', 'eur', 'status', $2, 'failure_reason', case when $2
            = 'failed' then 'lost_or_stolen_card' end)
    from rf join app.refunds r on r.id = rf.id where rf.g = $1
$$;

select is(t.told('refund.updated', t.refund_object(1, 'pending')), 'done done',
    'still pending');
select is(t.told('charge.refund.updated', t.refund_object(1, 'succeeded')),
    'done done', 'succeeded');
select is((select r.status || t.mails('order_refunded', r.order_id)
    from app.refunds r join rf on rf.id = r.id where g = 1), 'succeeded1',
    'told now');
select is((select t.show(id) from s where g = 1),
    'partially_refunded partially_refunded 2000 300 valid,valid', 'a part');
select is(t.told('refund.failed', t.refund_object(1, 'failed')), 'done done',
    'and fails after all');
select is((select t.show(id) from s where g = 1),
    'paid succeeded 2000 0 valid,valid', 'as if it had not been');
select is(t.told('refund.updated', t.refund_object(1, 'succeeded')),
    'done done', 'an older word');
select is(t.told('charge.refunded', jsonb_build_object('object', 'charge',
    'payment_intent', 'pi_late_1', 'amount', 2000, 'amount_captured', 2000,
    'amount_refunded', 300, 'currency', 'eur')), 'done done',
    'and another');
select is((select t.show(id) from s where g = 1),
    'paid succeeded 2000 0 valid,valid', 'changes nothing');

select is((select t.show(id) from s where g = 2),
    'refunded refunded 2000 2000 refunded,refunded', 'all is to go back');
select is(t.told('refund.failed', t.refund_object(2, 'failed')), 'done done',
    'it fails');
select is((select t.show(id) from s where g = 2),
    'refund_failed succeeded 2000 0 refunded,refunded', 'money is still owed');
select is((select t.mails('refund_failed', id) from s where g = 2), 1::bigint,
    'the organizer is told');
select results_eq($$ select m->>'to', m->'data'->>'reason',
        m->'data'->>'refundCents'
    from queue.outbox q, s, app.mail_build(q.payload) m
    where q.payload->>'template' = 'refund_failed'
        and q.payload->>'order_id' = s.id::text and g = 2 $$,
    $$ values ('org@t.example', 'lost_or_stolen_card', '2000') $$, 'of what');
select is((select body->0->>'status' from v, s,
    api.orders_refunds(t.ctx(org), s.id) where g = 2), 'failed', 'and sees it');
select is((select (api.orders_refund(t.ctx(org), s.id, '{}')).status
    from v, s where g = 2), 201, 'and may try again');
select is((select t.show(id) from s where g = 2),
    'refunded refunded 2000 2000 refunded,refunded', 'once more');
select is_empty('select * from t.drift', 'counters fit');

-- the reconciler asks about those that say nothing
create temp table rf3 as select ((api.orders_refund(t.ctx(org), s.id,
    '{"amount_cents": 400}')).body->>'id')::uuid as id from v, s where g = 3;
select task.refund_done(q.id, q.payload,
    '{"status": "pending", "providerRefundId": "re_3"}')
from queue.outbox q join rf3 on q.payload->>'refund_id' = rf3.id::text
where q.kind = 'refund.execute';
select t.clock('106 min');
create temp table rec as select task.reconcile_begin(queue.enqueue(
    'payment.reconcile', '{}'), '{}') as r;
select is((select count(*) from rec, jsonb_array_elements(r->'items') i, rf3
    where i->>'refundId' = rf3.id::text
        and i->>'providerRefundId' = 're_3'), 1::bigint, 'asked about');
select task.refund_observed(id, '{"status": "succeeded"}') from rf3;
select is((select status from app.refunds r join rf3 on rf3.id = r.id),
    'succeeded', 'and ended');

-- ---- events that make no sense ----

create temp table bad as select t.order_id(b3, p, 1) as id from v;
update app.orders set status = 'awaiting_payment'
where id in (select id from bad);
update app.payments set intent_id = 'pi_bad' from bad
where order_id = bad.id;
select is(t.told('payment_intent.succeeded', t.intent(id)
    || '{"amount_received": "abc"}'),
    'failed no amount of money: amount_received', 'no number') from bad;
select is(t.told('payment_intent.succeeded', t.intent(id)
    || '{"amount_received": 1e30}'),
    'failed no amount of money: amount_received', 'too much') from bad;
select is(t.told('payment_intent.succeeded', t.intent(id)
    || '{"currency": "xxx"}'), 'failed not the currency of the order',
    'other money') from bad;
select is((select count(*) from queue.outbox where kind = 'webhook.process'
    and state = 2), 3::bigint, 'given up, not tried again');
select is((select count(*) from queue.outbox where kind = 'webhook.process'
    and state < 2), 0::bigint, 'none waits');
select is((select t.show(bad.id) || p.error_code from bad, app.payments p
    where p.order_id = bad.id),
    'awaiting_payment pending 0 0 reservedcurrency_mismatch',
    'nothing is paid by it');
select is(t.told('payment_intent.succeeded', t.intent(id)
    || '{"metadata": {"payment_id": "no uuid"}}'), 'done done',
    'found by its intent') from bad;
select is((select t.show(id) from bad), 'paid succeeded 1000 0 valid', 'paid');

-- a secret speaks of its own provider's payments only
create temp table alien as select t.order_id(b3, p, 1) as id from v;
select api.webhooks_stripe(t.ctx(null), convert_to(jsonb_build_object('id',
    'evt_live_1', 'type', 'payment_intent.succeeded', 'data',
    jsonb_build_object('object', jsonb_build_object('object',
        'payment_intent', 'id', 'pi_x', 'amount_received', 1000, 'currency',
        'eur', 'metadata', jsonb_build_object('payment_id', p.id))))::text,
    'UTF8'), 'test')
from app.payments p join alien on p.order_id = alien.id;
select t.run('webhook.process');
select is((select provider || ' ' || outcome from app.webhook_events
    where event_id = 'evt_live_1'), 'test not ours', 'whoever signs, speaks');
select app.settings_put('{"payment_provider": "test"}');

-- ---- cancelling at Stripe ----

create temp table sc as select p.id, p.order_id from app.payments p
    join alien on alien.id = p.order_id;
update app.payments p set intent_id = 'pi_sc' from sc where p.id = sc.id;
select api.orders_cancel(t.ctx(b3), order_id) from v, sc;
create temp table scq as select q.id, q.payload from queue.outbox q
    where kind = 'payment.cancel';
select is((select task.payment_cancel(id, payload)->'items'->0
    from scq), jsonb_build_object('paymentId', sc.id, 'orderId', sc.order_id,
    'paymentIntentId', 'pi_sc', 'checkoutSessionId', null, 'cancel', true),
    'the provider is told at once') from sc;
select task.payment_observed(id, '{"status": "canceled"}') from sc;
select is((select task.payment_cancel(id, payload)->>'result' from scq),
    'done', 'once');

-- ---- free tickets can be taken back ----

create temp table fr as select t.order_id(b1, f, 2) as id from v;
select is((select (api.orders_refund(t.ctx(org), fr.id, jsonb_build_object(
    'ticket_ids', jsonb_build_array(t.ticket_of(fr.id))))).status from v, fr),
    201, 'one of two');
select is((select status || sold from v, fr, app.orders o, app.ticket_types y
    where o.id = fr.id and y.id = f), 'paid1', 'its seat is free');
select is((select (api.orders_refund(t.ctx(org), fr.id, '{}')).body->>'code'
    from v, fr), 'INVALID_STATE', 'nothing was paid');
select is((select (api.orders_refund(t.ctx(org), fr.id, jsonb_build_object(
    'reason', 'rain', 'ticket_ids', (select jsonb_agg(k.id) from app.tickets k
        where k.order_id = fr.id and k.state = 'valid')))).body
    ->>'orderStatus' from v, fr), 'cancelled', 'the last one ends the order');
select is((select sold from v, app.ticket_types y where y.id = f), 0, 'free');
select is((select app.mail_build(payload)->'data'->>'reason'
    from queue.outbox q where payload->>'template' = 'tickets_cancelled'
    order by q.id desc limit 1), 'rain', 'the holder is told why');
select is_empty('select * from t.drift', 'counters fit');

-- ---- tickets of others ----

create temp table gift as select g, t.order_id(b1, f, 2) as id from v,
    generate_series(1, 2) g;
select is((select (api.tickets_transfer(t.ctx(b1), t.ticket_of(gift.id), 1,
    'NEW' || g, '{"email": "b2@t.example"}')).status from v), 200, 'given')
from gift;
select is((select (api.orders_cancel(t.ctx(b1), id)).body->>'code' from v),
    'TICKETS_TRANSFERRED', 'what is given away is not the giver''s')
from gift where g = 1;
select is((select (api.orders_cancel(t.ctx(org), id)).status from v), 200,
    'the organizer may') from gift where g = 1;
select results_eq($$ select q.payload->>'template',
        app.mail_build(q.payload)->>'to'
    from queue.outbox q, gift where g = 1 and q.kind = 'mail.send'
        and q.payload->>'order_id' = gift.id::text
        and q.payload->>'template' like '%cancelled' order by 1 $$,
    $$ values ('order_cancelled', 'b1@t.example'),
        ('tickets_cancelled', 'b2@t.example') $$, 'both are told');
select is((api.events_cancel(t.ctx(org), ev, null, 'storm')).body->>'status',
    'cancelled', 'the event is cancelled') from v;
select t.run('event.cancel_refunds');
select results_eq($$ select app.mail_build(q.payload)->>'to',
        app.mail_build(q.payload)->'data'->>'reason'
    from queue.outbox q, gift where g = 2 and q.kind = 'mail.send'
        and q.payload->>'order_id' = gift.id::text
        and q.payload->>'template' = 'event_cancelled' order by 1 $$,
    $$ values ('b1@t.example', 'storm'), ('b2@t.example', 'storm') $$,
    'every holder is told, and why');
select is((select array_agg(distinct q.tenant) from queue.outbox q
    where q.payload->>'template' = 'event_cancelled'),
    (select array['event:' || ev] from v), 'by turns with other mails');

-- ---- registrations ----

alter table v add e2 uuid, add r uuid;
update v set e2 = t.event(org);
select t.type(e2, '{"name": "A", "quota": 0}') from v;
select t.type(e2, '{"name": "P", "quota": 5, "min_per_order": 2}') from v;
update v set r = t.type(e2, '{"name": "B", "quota": 5}');
select is((select ticket_type_id from api.events_register_begin(t.ctx(b1),
    e2)), r, 'the first type of which one can be had') from v;

create function t.register(who uuid)
returns api.answer language sql as $$
    select api.events_register(t.ctx(who), e2, r, t.codes(t.items(r, 1)))
    from v
$$;

create temp table reg as select ((t.register(b1)).body->>'id')::uuid as id
from v;
select is((t.register(b1)).body->>'code', 'ALREADY_REGISTERED', 'once')
from v;
select is((t.register(b3)).status, 201, 'another') from v;
select is((select (api.tickets_transfer(t.ctx(b1), t.ticket_of(id), 1, 'R1',
    '{"email": "b3@t.example"}')).body->>'code' from v), 'ALREADY_REGISTERED',
    'nobody comes twice') from reg;
select is((select (api.tickets_transfer(t.ctx(b1), t.ticket_of(id), 1, 'R1',
    '{"email": "b2@t.example"}')).status from v), 200, 'given away') from reg;
select is((t.register(b2)).body->>'code', 'ALREADY_REGISTERED',
    'who holds it has registered') from v;
select is((t.register(b1)).status, 201, 'who gave it may come again') from v;

-- ---- open orders of one buyer ----

select app.settings_put('{"hold_max_orders": "3"}');
alter table v add e3 uuid, add q uuid, add qf uuid;
update v set e3 = t.event(org);
update v set q = t.type(e3, '{"quota": 50, "price_cents": 1000}'),
    qf = t.type(e3, '{"name": "Free", "quota": 50}');
create temp table held as select a.* from v, api.orders_create(
    array[1, 2, 3, 4, 5], array_fill(t.ctx(b1), array[5]),
    array_fill(jsonb_build_object('items', t.items(q, 1)), array[5]),
    array[t.codes(t.items(q, 1)), t.codes(t.items(q, 1)),
        t.codes(t.items(q, 1)), t.codes(t.items(q, 1)),
        t.codes(t.items(q, 1))]) a;
select results_eq($$ select status, coalesce(body->>'code', '') from held
    order by ord $$, $$ values (201, ''), (201, ''), (201, ''),
        (0, 'TOO_MANY_HOLDS'), (0, 'TOO_MANY_HOLDS') $$, 'in one batch');
select is((t.order(b1, q)).body->>'code', 'TOO_MANY_HOLDS', 'and alone') from v;
select is((t.order(b1, qf)).status, 201, 'what is free holds nothing') from v;
select is((t.order(b2, q)).status, 201, 'others are not concerned') from v;
select t.pay((body->>'id')::uuid) from held where ord = 1;
select is((t.order(b1, q)).status, 201, 'what is paid makes room') from v;
select api.orders_cancel(t.ctx(b1), (body->>'id')::uuid) from v, held
where ord = 2;
select is((t.order(b1, q)).status, 201, 'what is cancelled, too') from v;
select is((t.order(b1, q)).body->>'code', 'TOO_MANY_HOLDS', 'full') from v;
select t.clock('140 min');
select is((t.order(b1, q)).status, 201, 'and what ran out') from v;
select is_empty('select * from t.drift', 'counters fit');

select * from finish();
rollback;
