-- task.*: what workers run; mails are in 61_mail.sql.  Each is one statement
-- and one transaction; all may be repeated.  queue.done(id) in the same
-- transaction is what makes an effect happen once.

-- The end of a task whose effects were statements of their own.
create or replace function task.done(id bigint, payload jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform queue.done(done.id);
    return '{"result":"done"}'::jsonb;
end $$;


-- ---- payments ----

create or replace function app.order_reply(id uuid)
returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select d.body::jsonb from api.orders_detail d where d.id = $1);
end $$;

create or replace function app.done_reply(reply jsonb)
returns jsonb
language sql immutable
as $$
    select case when reply is null then '{"result":"done"}'::jsonb
        else jsonb_build_object('result', 'done', 'reply', reply) end
$$;

-- Bytes of an earlier try of the same operation, or null and 0.
create or replace function app.provider_stored(op text)
returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return coalesce((
        select jsonb_build_object(
            'request', jsonb_build_object('path', i.path, 'body', i.body),
            'ageS', floor(date_part('epoch', app.now() - i.created_at))::int)
        from queue.inbox i
        where i.op = $1), '{"request":null,"ageS":0}');
end $$;

create or replace function task.payment_begin(id bigint, payload jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_order app.orders;
    v_payment app.payments;
    v_op text;
begin
    select o.* into v_order
    from app.orders o
    where o.id = (payload->>'order_id')::uuid;

    select p.* into v_payment
    from app.payments p
    where p.order_id = v_order.id;

    if v_payment.id is null or v_payment.provider = 'test'
        or v_payment.intent_id is not null
        or v_payment.session_id is not null
        or v_payment.status <> 'pending'
        or app.order_status(v_order.status, v_order.reserved_until)
            not in ('reserved', 'awaiting_payment')
        or not exists (select from queue.outbox o
            where o.id = payment_begin.id and o.state < 2)
    then
        perform queue.done(payment_begin.id);
        return app.done_reply(app.order_reply(v_order.id));
    end if;

    v_op := 'order:' || v_order.id;

    return (
        select jsonb_build_object(
            'result', 'call',
            'provider', v_payment.provider,
            'op', v_op,
            'orderId', v_order.id,
            'paymentId', v_payment.id,
            'amountCents', v_payment.amount_cents * app.provider_units(
                v_payment.provider, v_payment.currency), -- the provider's
            'currency', v_payment.currency,
            'title', e.title,
            'email', u.email,
            'lang', v_order.lang,
            'holdUntil', floor(date_part('epoch',
                v_order.reserved_until))::bigint)
            || app.provider_stored(v_op)
        from app.events e, app.users u
        where e.id = v_order.event_id and u.id = v_order.buyer_id);
end $$;

create or replace function task.provider_request(id bigint, op text,
    path text, body text)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    insert into queue.inbox (op, path, body, created_at)
    values (provider_request.op, provider_request.path,
        provider_request.body, app.now())
    on conflict on constraint inbox_pkey do nothing;

    return (
        select s->'request' || jsonb_build_object('ageS', s->'ageS')
        from app.provider_stored(provider_request.op) s);
end $$;

create or replace function task.payment_done(id bigint, payload jsonb,
    result jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_order app.orders;
    r jsonb := payment_done.result;
begin
    select o.* into v_order
    from app.orders o
    where o.id = (payload->>'order_id')::uuid
    for no key update;

    if queue.done(payment_done.id) then
        perform app.intent_learn(p.id, r->>'paymentIntentId')
        from app.payments p
        where p.order_id = v_order.id;

        update app.payments p
        set session_id = coalesce(r->>'checkoutSessionId', p.session_id),
            checkout_url = coalesce(r->>'checkoutUrl', p.checkout_url),
            client_secret = case when p.status in ('pending', 'failed')
                then r->>'clientSecret' end,
            expires_at = to_timestamp((r->>'expiresAt')::double precision),
            updated_at = app.now()
        where p.order_id = v_order.id;

        if v_order.status = 'reserved' then
            perform app.order_move(app.ctx_task('payment.create'), v_order.id,
                'awaiting_payment', 'payment was made');
        elsif v_order.status = 'cancelled' then -- while it was made
            perform app.payment_close(app.ctx_task('payment.create'),
                v_order.id, 'cancelled');
        end if;
    end if;

    return app.done_reply(app.order_reply(v_order.id));
end $$;

-- The provider refused to make a payment.  The seats stay held until the hold
-- ends, as after a declined card; the buyer may cancel earlier.
create or replace function task.payment_failed(id bigint, payload jsonb,
    result jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_order app.orders;
    r jsonb := payment_failed.result;
begin
    select o.* into v_order
    from app.orders o
    where o.id = (payload->>'order_id')::uuid
    for no key update;

    if queue.done(payment_failed.id) then
        update app.payments p
        set status = 'canceled', error_code = coalesce(r->>'code', r->>'type'),
            error_message = r->>'message', client_secret = null,
            updated_at = app.now()
        where p.order_id = v_order.id and p.captured_cents = 0;

        if found and v_order.status in ('reserved', 'awaiting_payment') then
            perform app.order_move(app.ctx_task('payment.create'), v_order.id,
                'payment_failed', coalesce(r->>'message', 'refused'));
        end if;
    end if;

    return app.done_reply(app.order_reply(v_order.id));
end $$;

create or replace function task.refund_begin(id bigint, payload jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_refund app.refunds;
    v_payment app.payments;
    v_op text;
begin
    select r.* into v_refund
    from app.refunds r
    where r.id = (payload->>'refund_id')::uuid;

    select p.* into v_payment
    from app.payments p
    where p.id = v_refund.payment_id;

    if v_refund.id is null or v_refund.status <> 'pending' then
        perform queue.done(refund_begin.id);
        return '{"result":"done"}'::jsonb;
    end if;

    if v_payment.provider = 'test' then
        if queue.done(refund_begin.id) then
            perform app.refund_end(v_refund.id, true, 're_test_'
                || replace(v_refund.id::text, '-', ''), null);
        end if;
        return '{"result":"done"}'::jsonb;
    end if;

    if not exists (select from queue.outbox o
        where o.id = refund_begin.id and o.state < 2)
    then
        return '{"result":"done"}'::jsonb;
    end if;

    v_op := 'refund:' || v_refund.id;

    return jsonb_build_object(
        'result', 'call',
        'provider', v_payment.provider,
        'op', v_op,
        'refundId', v_refund.id,
        'orderId', v_refund.order_id,
        'paymentIntentId', v_payment.intent_id,
        'amountCents', v_refund.amount_cents * app.provider_units(
            v_payment.provider, v_payment.currency),
        'currency', v_payment.currency) || app.provider_stored(v_op);
end $$;

-- Ends a refund.  A failed one makes its amount refundable again, and may fail
-- after the provider took it for done: a bank sends money back for weeks.
create or replace function app.refund_end(refund uuid, good boolean,
    provider_id text, message text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_refund app.refunds;
    v_left bigint;
begin
    perform app.payment_order(r.payment_id)
    from app.refunds r
    where r.id = refund;

    update app.refunds r
    set status = case when good then 'succeeded' else 'failed' end,
        provider_refund_id = coalesce(provider_id, r.provider_refund_id),
        error_message = message, updated_at = app.now()
    where r.id = refund and (r.status = 'pending'
        or r.status = 'succeeded' and not good)
    returning r.* into v_refund;

    if not found then
        return;
    end if;

    if not good then
        v_left := app.refund_count(v_refund.payment_id);
        perform app.refund_settle(app.ctx_task('refund.execute'),
            v_refund.payment_id);

        -- of an order that has ended nothing is kept: what others returned
        -- meanwhile may be why this was too much
        select p.captured_cents - v_left into v_left
        from app.payments p
        join app.orders o on o.id = p.order_id
        where p.id = v_refund.payment_id
            and o.status in ('cancelled', 'expired');

        if v_left < v_refund.amount_cents then
            perform app.refund_open(app.ctx_task('refund.execute'),
                v_refund.payment_id, v_left, 'the rest', null);
        end if;

        perform queue.enqueue('mail.send', jsonb_build_object(
            'template', 'refund_failed', 'order_id', v_refund.order_id,
            'refund_id', refund));
    elsif v_refund.mail then
        perform queue.enqueue('mail.send', jsonb_build_object(
            'template', 'order_refunded', 'order_id', v_refund.order_id,
            'refund_id', refund),
            tenant => app.order_tenant(v_refund.order_id));
    end if;

    perform app.audit(app.ctx_task('refund.execute'),
        case when good then 'refund.succeeded' else 'refund.failed' end,
        'order', v_refund.order_id::text,
        jsonb_build_object('refund_id', refund,
            'amount', v_refund.amount_cents, 'message', message));
end $$;

create or replace function task.refund_done(id bigint, payload jsonb,
    result jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    r jsonb := refund_done.result;
begin
    if queue.done(refund_done.id) then
        if r->>'status' in ('pending', 'requires_action') then
            update app.refunds f
            set provider_refund_id = r->>'providerRefundId',
                updated_at = app.now()
            where f.id = (payload->>'refund_id')::uuid;
        else
            perform app.refund_end((payload->>'refund_id')::uuid,
                r->>'status' = 'succeeded', r->>'providerRefundId',
                case when r->>'status' <> 'succeeded' then r->>'status' end);
        end if;
    end if;

    return '{"result":"done"}'::jsonb;
end $$;

create or replace function task.refund_failed(id bigint, payload jsonb,
    result jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_reason text := coalesce(refund_failed.result->>'message', 'refused');
begin
    -- nobody was ever asked for it, in all the time that a key is remembered:
    -- then it is asked for anew
    if refund_failed.result->>'code' = 'never_made' then
        delete from queue.inbox i
        where i.op = 'refund:' || (payload->>'refund_id');

        return '{"result":"again"}'::jsonb;
    end if;

    if queue.dead(refund_failed.id, v_reason) then
        perform app.refund_end((payload->>'refund_id')::uuid, false, null,
            v_reason);
    end if;

    return jsonb_build_object('result', 'dead', 'reason', v_reason);
end $$;


-- ---- reconciliation ----

create or replace function task.reconcile_begin(id bigint, payload jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_items jsonb;
    v_refund uuid;
begin
    with due as (
        select p.id
        from app.payments p
        where p.provider = 'stripe' and p.status in ('pending', 'failed')
            and p.error_code is distinct from 'currency_mismatch'
            and p.created_at < app.now() - interval '2 min'
            and (p.looked_at is null
                or p.looked_at < app.now() - interval '2 min')
            and (p.intent_id is not null or p.session_id is not null)
        order by p.looked_at nulls first, p.created_at
        limit 20
        for no key update skip locked),
    looked as (
        update app.payments p
        set looked_at = app.now()
        from due d
        where p.id = d.id
        returning p.*)
    select jsonb_agg(jsonb_build_object(
        'paymentId', l.id,
        'orderId', l.order_id,
        'paymentIntentId', l.intent_id,
        'checkoutSessionId', l.session_id,
        'cancel', app.order_status(o.status, o.reserved_until)
            in ('cancelled', 'expired')))
    into v_items
    from looked l
    join app.orders o on o.id = l.order_id;

    -- refunds whose task was given up are asked for again: the same operation
    -- under the same key, or a look at what became of it
    for v_refund in
        update app.refunds r
        set looked_at = app.now()
        from (
            select r.id
            from app.refunds r
            where r.status = 'pending' and r.provider_refund_id is null
                and coalesce(r.looked_at, r.updated_at)
                    < app.now() - interval '1 hour'
                and not exists (
                    select from queue.outbox o
                    where o.uniq = 'refund.execute:' || r.id and o.state < 2)
            order by r.created_at
            limit 20
            for no key update skip locked) d
        where r.id = d.id
        returning r.id
    loop
        if not coalesce((
            select queue.redrive_one(max(o.id))
            from queue.outbox o
            where o.uniq = 'refund.execute:' || v_refund and o.state = 2),
            false)
        then
            perform queue.enqueue('refund.execute',
                jsonb_build_object('refund_id', v_refund),
                uniq => 'refund.execute:' || v_refund);
        end if;
    end loop;

    -- refunds that the provider has not ended, whose word may be lost
    with due as (
        select r.id
        from app.refunds r
        where r.status = 'pending' and r.provider_refund_id is not null
            and coalesce(r.looked_at, r.updated_at)
                < app.now() - interval '5 min'
            and exists (select from app.payments p
                where p.id = r.payment_id and p.provider = 'stripe')
        order by r.looked_at nulls first, r.created_at
        limit greatest(0, 20 - coalesce(jsonb_array_length(v_items), 0))
        for no key update skip locked),
    looked as (
        update app.refunds r
        set looked_at = app.now()
        from due d
        where r.id = d.id
        returning r.*)
    select coalesce(v_items || f.items, v_items, f.items) into v_items
    from (
        select jsonb_agg(jsonb_build_object(
            'refundId', l.id,
            'providerRefundId', l.provider_refund_id)) as items
        from looked l) f;

    if v_items is null then
        delete from queue.outbox o where o.id = reconcile_begin.id;
        return '{"result":"done"}'::jsonb;
    end if;

    return jsonb_build_object('result', 'call', 'items', v_items);
end $$;

-- One payment whose order was cancelled: its end at the provider is asked for,
-- and seen as reconciling sees it.
create or replace function task.payment_cancel(id bigint, payload jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_items jsonb;
begin
    select jsonb_agg(jsonb_build_object(
        'paymentId', p.id,
        'orderId', p.order_id,
        'paymentIntentId', p.intent_id,
        'checkoutSessionId', p.session_id,
        'cancel', true))
    into v_items
    from app.payments p
    join app.orders o on o.id = p.order_id
    where p.id = (payload->>'payment_id')::uuid and p.provider = 'stripe'
        and p.captured_cents < p.amount_cents and p.status <> 'canceled'
        and o.status = 'cancelled'
        and (p.intent_id is not null or p.session_id is not null);

    if v_items is null or not exists (
        select from queue.outbox o
        where o.id = payment_cancel.id and o.state < 2)
    then
        perform queue.done(payment_cancel.id);
        return '{"result":"done"}'::jsonb;
    end if;

    return jsonb_build_object('result', 'call', 'items', v_items);
end $$;

create or replace function task.refund_observed(refund_id uuid, result jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_status text := refund_observed.result->>'status';
begin
    if v_status in ('succeeded', 'failed', 'canceled') then
        perform app.refund_end(refund_observed.refund_id,
            v_status = 'succeeded', null,
            case when v_status <> 'succeeded' then coalesce(
                refund_observed.result->>'reason', v_status) end);
    end if;

    return '{"result":"done"}'::jsonb;
end $$;

create or replace function task.payment_observed(payment_id uuid,
    result jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    r jsonb := payment_observed.result;
begin
    perform app.payment_order(payment_observed.payment_id);

    perform app.intent_learn(payment_observed.payment_id,
        r->>'paymentIntentId');

    if r->>'status' = 'succeeded' and app.payment_foreign(
        payment_observed.payment_id, r->>'currency', 'reconcile')
    then
        return '{"result":"done"}'::jsonb;
    end if;

    if r->>'status' = 'succeeded' then
        perform app.payment_fact(payment_observed.payment_id,
            (r->>'amountReceived')::bigint / (
                select app.provider_units(p.provider, p.currency)
                from app.payments p
                where p.id = payment_observed.payment_id),
            null, false, false, 'reconcile');
    elsif r->>'status' = 'canceled' or r->>'checkoutStatus' = 'expired' then
        perform app.payment_fact(payment_observed.payment_id, null, null,
            false, true, 'reconcile');
    end if;

    return '{"result":"done"}'::jsonb;
end $$;


-- ---- the test provider ----

create or replace function task.test_pay_begin(id bigint, payload jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment app.payments;
begin
    select p.* into v_payment
    from app.payments p
    where p.id = (payload->>'payment_id')::uuid and p.provider = 'test';

    if not found or app.is_production() or not exists (
        select from queue.outbox o
        where o.id = test_pay_begin.id and o.state < 2)
    then
        perform queue.done(test_pay_begin.id);
        return '{"result":"done"}'::jsonb;
    end if;

    -- money moves once: a provider refuses a second payment of an intent,
    -- and one of what was called off
    if v_payment.captured_cents > 0 or v_payment.status = 'canceled'
        and exists (
            select from app.orders o
            where o.id = v_payment.order_id and o.status = 'cancelled')
    then
        perform queue.done(test_pay_begin.id);
        return '{"result":"done"}'::jsonb;
    end if;

    return jsonb_build_object(
        'result', 'call',
        'outcome', case payload->>'action' when 'pay' then 'succeeded'
            else 'failed' end,
        'intentId', v_payment.intent_id,
        'amountCents', v_payment.amount_cents,
        'currency', v_payment.currency,
        'orderId', v_payment.order_id,
        'paymentId', v_payment.id);
end $$;


-- ---- drawings ----

create or replace function task.render_begin(id bigint, payload jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_ticket app.tickets;
begin
    select t.* into v_ticket
    from app.tickets t
    where t.id = (payload->>'ticket_id')::uuid;

    if not found or v_ticket.generation <> (payload->>'generation')::int
        or v_ticket.state not in ('valid', 'admitted', 'exited')
        or exists (
            select from app.ticket_renders r
            where r.ticket_id = v_ticket.id
                and r.generation = v_ticket.generation
                and r.format = payload->>'format')
        or not exists (select from queue.outbox o
            where o.id = render_begin.id and o.state < 2)
    then
        perform queue.done(render_begin.id);
        return '{"result":"done"}'::jsonb;
    end if;

    return (
        select jsonb_build_object(
            'result', 'render',
            'ticketId', v_ticket.id,
            'generation', v_ticket.generation,
            'format', payload->>'format',
            'lang', coalesce(payload->>'lang', 'en'),
            'code', v_ticket.code,
            'typeName', y.name,
            'holder', v_ticket.holder_name,
            'orderId', v_ticket.order_id,
            'priceCents', v_ticket.price_cents,
            'currency', o.currency) || app.mail_event(v_ticket.event_id)
        from app.ticket_types y, app.orders o
        where y.id = v_ticket.ticket_type_id and o.id = v_ticket.order_id);
end $$;

create or replace function task.render_put(id bigint, payload jsonb,
    ticket uuid, generation int, format text, bytes bytea)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if queue.done(render_put.id) then
        insert into app.ticket_renders (ticket_id, generation, format, bytes,
            created_at)
        values (ticket, render_put.generation, render_put.format,
            render_put.bytes, app.now())
        on conflict on constraint ticket_renders_pkey do nothing;
    end if;

    return '{"result":"done"}'::jsonb;
end $$;


-- ---- holds ----

create or replace function task.order_expire(id bigint, payload jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_order app.orders;
begin
    select o.* into v_order
    from app.orders o
    where o.id = (payload->>'order_id')::uuid
    for no key update;

    if found and v_order.status in ('reserved', 'awaiting_payment',
        'payment_failed') and v_order.reserved_until > app.now()
    then
        return jsonb_build_object('result', 'snooze', 'delayMs',
            least(app.ms(v_order.reserved_until) - app.ms(app.now()) + 1,
                3600000));
    end if;

    if not queue.done(order_expire.id) then
        return '{"result":"done"}'::jsonb;
    end if;

    if v_order.status in ('reserved', 'awaiting_payment', 'payment_failed')
    then
        perform app.order_move(app.ctx_task('order.expire'), v_order.id,
            'expired', 'the hold ended');
    end if;

    return '{"result":"done"}'::jsonb;
end $$;

create or replace function task.order_expire_sweep(id bigint, payload jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_event uuid;
    v_n int := 0;
begin
    for v_event in
        select distinct o.event_id
        from app.orders o
        where o.status in ('reserved', 'awaiting_payment', 'payment_failed')
            and o.reserved_until <= app.now() - interval '5 s'
        order by o.event_id
        limit 200
    loop
        v_n := v_n + app.holds_release(v_event);
    end loop;

    if v_n = 0 then -- nothing to remember
        delete from queue.outbox o where o.id = order_expire_sweep.id;
    else
        perform queue.done(order_expire_sweep.id);
    end if;

    return '{"result":"done"}'::jsonb;
end $$;


-- ---- a canceled event ----

-- Chunk by chunk: each commits with its own successor, so a kill at any point
-- repeats or loses nothing.  Orders are found by their state alone.
create or replace function task.event_cancel_refunds(id bigint,
    payload jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_ctx api.ctx := app.ctx_task('event.cancel_refunds');
    v_event uuid := (payload->>'event_id')::uuid;
    v_order app.orders;
    v_payment app.payments;
    v_ids uuid[];
    v_left bigint;
    v_n int := 0;
begin
    if not queue.done(event_cancel_refunds.id) then
        return '{"result":"done"}'::jsonb;
    end if;

    select array_agg(x.id) into v_ids
    from (
        select o.id
        from app.orders o
        where o.event_id = v_event and o.holds
        order by o.id
        limit 50
        for no key update) x;

    -- tickets of all of them at once: the door locks by code, too
    perform t.id
    from app.tickets t
    where t.order_id = any (v_ids)
    order by t.code
    for no key update;

    for v_order in
        select o.*
        from app.orders o
        where o.id = any (v_ids)
        order by o.id
    loop
        v_n := v_n + 1;
        v_left := 0;

        if v_order.status in ('paid', 'partially_refunded') then
            select p.* into v_payment
            from app.payments p
            where p.order_id = v_order.id;

            v_left := coalesce(v_payment.captured_cents
                - v_payment.refunded_cents, 0);

            if v_left > 0 then
                perform app.refund_open(v_ctx, v_payment.id, v_left,
                    'the event was cancelled', null, false);
            else
                perform app.order_move(v_ctx, v_order.id,
                    case when v_order.total_cents = 0 then 'cancelled'
                        else 'refunded' end, 'the event was cancelled');
            end if;
        else
            perform app.order_move(v_ctx, v_order.id, 'cancelled',
                'the event was cancelled');
        end if;

        perform queue.enqueue('mail.send', jsonb_build_object(
            'template', 'event_cancelled', 'order_id', v_order.id,
            'refund_cents', v_left), tenant => 'event:' || v_event);
    end loop;

    if v_n = 50 then
        perform queue.enqueue('event.cancel_refunds', payload,
            uniq => 'event.cancel_refunds:' || v_event);
    end if;

    return '{"result":"done"}'::jsonb;
end $$;


-- ---- sealing and forgetting ----

-- Appends to the chain what was committed below the oldest running
-- transaction: nothing can still appear there.  One sealer at a time, by the
-- row lock on audit_seal.
create or replace function task.audit_seal(id bigint, payload jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_below xid8;
    v_to xid8;
    v_now timestamptz := app.now();
    v_day date := (v_now at time zone 'UTC')::date;
    v_n bigint;
    v_hash bytea;
    r record;
    c_xid xid8[] := '{}'::xid8[];
    c_id bigint[] := '{}'::bigint[];
    c_prev bytea[] := '{}'::bytea[];
    c_hash bytea[] := '{}'::bytea[];
    c_n bigint[] := '{}'::bigint[];
begin
    select s.below into v_below
    from app.audit_seal s
    for update skip locked;

    if not found then
        delete from queue.outbox o where o.id = audit_seal.id;
        return '{"result":"done"}'::jsonb;
    end if;

    v_to := pg_snapshot_xmin(pg_current_snapshot());

    -- a restored copy counts transactions anew: seal by what is not there
    if v_to < v_below then
        v_below := '0';
    end if;

    select c.hash into v_hash
    from app.audit_chain c
    order by c.day desc, c.n desc
    limit 1;

    select coalesce(max(c.n), 0) into v_n
    from app.audit_chain c
    where c.day = v_day;

    v_hash := coalesce(v_hash, '\x');

    for r in
        select a.xid, a.id, a.digest
        from app.audit_log a
        where a.xid >= v_below and a.xid < v_to
            and ((a.xid > v_below and v_below > '0')
                or not exists (select from app.audit_chain c
                    where c.audit_xid = a.xid and c.audit_id = a.id))
        order by a.xid, a.id
        limit 50000
    loop
        c_prev := c_prev || v_hash;
        v_hash := sha256(v_hash || r.digest);
        v_n := v_n + 1;
        c_xid := c_xid || r.xid;
        c_id := c_id || r.id;
        c_n := c_n || v_n;
        c_hash := c_hash || v_hash;
    end loop;

    if cardinality(c_id) > 0 then
        insert into app.audit_chain (day, n, audit_xid, audit_id, prev_hash,
            hash)
        select v_day, x.n, x.xid, x.id, x.prev, x.hash
        from unnest(c_n, c_xid, c_id, c_prev, c_hash)
            x (n, xid, id, prev, hash);
    end if;

    -- a full chunk may end inside a transaction: that one is looked at again
    update app.audit_seal s
    set below = case when cardinality(c_id) = 50000
            then greatest(v_below, c_xid[50000]) else v_to end,
        sealed_at = v_now;

    delete from queue.outbox o where o.id = audit_seal.id;

    return jsonb_build_object('result', 'done');
end $$;

-- Once for each key.  Not of one that has a successor, nor of one that was made
-- for so short a time that its owner knows.
create or replace function task.apikey_reminder(id bigint, payload jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_key uuid;
begin
    if not queue.done(apikey_reminder.id) then
        return '{"result":"done"}'::jsonb;
    end if;

    for v_key in
        update app.api_keys k
        set reminded_at = app.now()
        where k.reminded_at is null and k.revoked_at is null
            and k.expires_at > app.now()
            and k.expires_at <= app.now()
                + make_interval(days => app.key_remind())
            and k.life_s > 2 * 86400 * app.key_remind()
            and not exists (
                select from app.api_keys n
                where n.rotated_from = k.id and n.revoked_at is null)
        returning k.id
    loop
        perform app.key_mail('ends', v_key);
    end loop;

    return '{"result":"done"}'::jsonb;
end $$;

create or replace function task.retention_sweep(id bigint, payload jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now timestamptz := app.now();
begin
    if not queue.done(retention_sweep.id) then
        return '{"result":"done"}'::jsonb;
    end if;

    delete from app.idempotency i where i.at < v_now - interval '24 hours';
    delete from app.revocations r where r.expires_at < v_now;
    delete from app.auth_throttle t
    where t.changed_at < v_now - interval '2 days';
    delete from app.mfa_challenges c where c.expires_at < v_now;
    delete from app.mail_budget b
    where b.hour < floor(date_part('epoch', v_now) / 3600) - 24;
    delete from app.one_time_tokens t
    where t.expires_at < v_now - interval '30 days';
    delete from app.oauth_states o where o.expires_at < v_now;
    delete from app.login_sessions s
    where least(s.expires_at, coalesce(s.revoked_at, s.expires_at))
        < v_now - interval '30 days';
    delete from app.api_keys k
    where least(k.expires_at, k.revoked_at) < v_now - interval '90 days';
    delete from queue.history h
    where h.finished_at < v_now - interval '30 days';
    -- what was sent to a provider is known as long as its end is not
    delete from queue.inbox i
    where i.created_at < v_now - interval '30 days'
        and i.op not in (
            select 'refund:' || r.id from app.refunds r
            where r.status = 'pending'
            union all
            select 'order:' || p.order_id from app.payments p
            where p.status = 'pending');
    delete from app.webhook_events w
    where w.received_at < v_now - interval '90 days' and w.state <> 'stored';
    delete from app.ticket_renders r
    where r.created_at < v_now - interval '30 days';

    return '{"result":"done"}'::jsonb;
end $$;
