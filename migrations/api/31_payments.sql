-- Payments and refunds.  A provider's news arrives as events, in any order
-- and more than once, or is read by the reconciler; both end in
-- app.payment_fact(), where facts only ever grow: money captured, money
-- returned.  So every order of arrival ends with the same money, and in the
-- same state (I-33); but a refund that the provider took and whose bank sent
-- it back may have ended an order whose seats are somebody else's by then.

-- How many of a provider's units are one of ours, which are ISO 4217's minor
-- units.  Stripe writes two currencies without decimals as if they had two
-- (docs.stripe.com/currencies, "special cases").
create or replace function app.provider_units(provider text, currency text)
returns int
language sql immutable
as $$
    select coalesce((
        select u.units
        from (values ('stripe', 'ISK', 100), ('stripe', 'UGX', 100))
            u (provider, currency, units)
        where u.provider = $1 and u.currency = $2), 1)
$$;

-- A provider's object with its amounts in our units.  What is no amount is a
-- data exception: the event that says so is given up.
create or replace function app.provider_object(object jsonb, units int)
returns jsonb
language plpgsql immutable
as $$
declare
    v_bad text;
begin
    select string_agg(k, ', ') into v_bad
    from unnest(array['amount', 'amount_received', 'amount_total',
        'amount_captured', 'amount_refunded']) k
    where jsonb_typeof(object->k) <> 'null'
        and (jsonb_typeof(object->k) <> 'number'
            or object->>k !~ '^[0-9]{1,15}$');

    if v_bad is not null then
        raise data_exception using message = 'no amount of money: ' || v_bad;
    end if;

    return case when units = 1 then object else object || coalesce((
        select jsonb_object_agg(k, (object->>k)::bigint / units)
        from unnest(array['amount', 'amount_received', 'amount_total',
            'amount_captured', 'amount_refunded']) k
        where object->>k is not null), '{}') end;
end $$;

-- A text as uuid, or null when it is none.
create or replace function app.uuid_or_null(t text)
returns uuid
language sql immutable
as $$
    select case when t ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
        then t::uuid end
$$;

-- The order of a payment, locked: it comes before the payment everywhere.
create or replace function app.payment_order(payment uuid)
returns app.orders
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_out app.orders;
begin
    select o.* into v_out
    from app.orders o
    where o.id = (select p.order_id from app.payments p where p.id = payment)
    for no key update;

    return v_out;
end $$;

-- What a provider has told about a payment, applied.  The order's row is
-- locked first, then the payment's.
--   captured, returned   totals the provider reports; null: not reported
--   declined, ended      the last attempt failed; the intent is closed
-- Answers one word about what was done.
create or replace function app.payment_fact(payment uuid, captured bigint,
    returned bigint, declined boolean, ended boolean, why text,
    error_code text default null, error_message text default null)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_ctx api.ctx := app.ctx_task(why);
    v_now timestamptz := app.now();
    v_order app.orders;
    v_payment app.payments;
    v_new bigint;
    v_ours bigint;
    v_back bigint;
    v_whole boolean;
begin
    v_order := app.payment_order(payment);

    if v_order.id is null then
        return 'unknown payment';
    end if;

    select p.* into v_payment
    from app.payments p
    where p.id = payment
    for no key update;

    perform app.pause('payment_fact');

    -- 1. money that came in; what went back on the provider's page meanwhile
    -- does not make it less, whatever is told first
    v_new := greatest(v_payment.captured_cents, coalesce(captured, 0));
    select coalesce(sum(r.amount_cents), 0) into v_ours
    from app.refunds r
    where r.payment_id = payment and r.status <> 'failed' and r.ours;

    v_whole := v_new - v_ours >= v_order.total_cents;

    if v_new > v_payment.captured_cents then
        update app.payments p
        set captured_cents = v_new,
            status = case when v_whole then 'succeeded' else p.status end,
            error_code = null, error_message = null,
            client_secret = case when not v_whole then p.client_secret end,
            updated_at = v_now
        where p.id = payment;

        v_back := app.refund_count(payment);
        perform app.audit(v_ctx, 'payment.succeeded', 'payment',
            payment::text, jsonb_build_object('captured', v_new));

        -- 2. what it buys: the seats it held, or the same seats if they are
        -- still free; else it goes back.  A part waits for the rest as long
        -- as the hold lasts (app.payment_close).
        if v_payment.captured_cents >= v_order.total_cents then
            -- captured more, later: nothing was sold for it
            perform app.refund_open(v_ctx, payment,
                least(v_new - v_payment.captured_cents, v_new - v_back),
                'paid twice', null);
        elsif not v_whole then
            if v_order.status not in ('reserved', 'awaiting_payment',
                'payment_failed')
            then
                perform app.refund_open(v_ctx, payment, v_new - v_back,
                    'less than the total was paid', null);
            end if;
        elsif not app.order_move(v_ctx, v_order.id, 'paid', why) then
            perform app.refund_open(v_ctx, payment, v_new - v_back,
                'paid too late', null);
        else
            perform app.refund_open(v_ctx, payment,
                least(v_new - v_ours - v_order.total_cents, v_new - v_back),
                'more than the total was paid', null);
        end if;

        if v_back > 0 then
            perform app.refund_settle(v_ctx, payment);
        end if;
    elsif v_payment.captured_cents < v_order.total_cents
        and v_payment.status in ('pending', 'failed', 'canceled')
        and (declined or ended)
    then
        update app.payments p
        set status = case when ended then 'canceled' when p.status = 'pending'
                then 'failed' else p.status end,
            error_code = coalesce(payment_fact.error_code, p.error_code),
            error_message = coalesce(payment_fact.error_message,
                p.error_message),
            updated_at = v_now
        where p.id = payment;

        if ended and v_order.status in ('reserved', 'awaiting_payment',
            'payment_failed')
        then
            perform app.order_move(v_ctx, v_order.id,
                case when v_order.reserved_until <= v_now then 'expired'
                    else 'cancelled' end, why);
        elsif declined and v_order.status in ('reserved', 'awaiting_payment')
        then
            perform app.order_move(v_ctx, v_order.id, 'payment_failed', why);
        end if;
    end if;

    -- 3. money that went back.  A total that is larger than what is known
    -- says that some was returned on the provider's page; it is put down
    -- until the refunds themselves are told of (app.refund_news).
    if coalesce(returned, 0) > 0 then
        select p.* into v_payment
        from app.payments p
        where p.id = payment;

        -- what the provider counted before it failed is no news of its own
        v_new := least(returned, v_payment.captured_cents)
            - v_payment.refunded_cents - coalesce((
                select sum(r.amount_cents)
                from app.refunds r
                where r.payment_id = payment and r.status = 'failed'
                    and r.provider_refund_id is not null), 0);

        if v_new > 0 then
            insert into app.refunds (id, payment_id, order_id, amount_cents,
                reason, status, ours, created_at, updated_at)
            values (app.uuid7(), payment, v_order.id, v_new,
                'by the provider', 'succeeded', false, v_now, v_now);
            perform app.refund_count(payment);
            perform app.audit(v_ctx, 'payment.returned', 'payment',
                payment::text, jsonb_build_object('returned', returned));
        end if;

        perform app.refund_settle(v_ctx, payment);
    end if;

    return 'done';
end $$;

-- Counts what goes or went back of a payment from its refunds.
create or replace function app.refund_count(payment uuid)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_out bigint;
begin
    update app.payments p
    set refunded_cents = least(p.captured_cents, coalesce((
            select sum(r.amount_cents)
            from app.refunds r
            where r.payment_id = p.id and r.status <> 'failed'), 0)),
        updated_at = app.now()
    where p.id = payment
    returning p.refunded_cents into v_out;

    return v_out;
end $$;

-- States that follow from how much of a payment went back; while the rest of
-- it may still come, it keeps the state of its last attempt.
create or replace function app.refund_settle(ctx api.ctx, payment uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment app.payments;
    v_status text;
begin
    update app.payments p
    set status = case when p.refunded_cents = 0 then 'succeeded'
            when p.refunded_cents < p.captured_cents then 'partially_refunded'
            else 'refunded' end,
        updated_at = app.now()
    where p.id = payment and p.captured_cents > 0
        and (p.captured_cents >= p.amount_cents or not exists (
            select from app.orders o
            where o.id = p.order_id and o.status in ('reserved',
                'awaiting_payment', 'payment_failed')))
    returning p.* into v_payment;

    if not found then
        return;
    end if;

    select o.status into v_status
    from app.orders o
    where o.id = v_payment.order_id;

    if v_status in ('paid', 'partially_refunded', 'refund_failed')
        and v_payment.refunded_cents = v_payment.captured_cents
    then
        perform app.order_move(ctx, v_payment.order_id, 'refunded', 'refund');
    elsif v_status = 'refunded'
        and v_payment.refunded_cents < v_payment.captured_cents
    then
        perform app.order_move(ctx, v_payment.order_id, 'refund_failed',
            'refund failed');
    elsif v_status = 'partially_refunded' and v_payment.refunded_cents = 0
    then
        perform app.order_move(ctx, v_payment.order_id, 'paid',
            'refund failed');
    elsif v_status = 'paid' and v_payment.refunded_cents > 0 then
        perform app.order_move(ctx, v_payment.order_id, 'partially_refunded',
            'refund');
    end if;
end $$;

-- Sets an amount of a payment aside and asks a worker to pay it back.  The
-- caller holds the order's lock.  null: more than is left.  mail: the buyer is
-- told when it has been paid back.
create or replace function app.refund_open(ctx api.ctx, payment uuid,
    amount bigint, reason text, requested_by uuid, mail boolean default true)
returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_id uuid := app.uuid7();
    v_order uuid;
    v_now timestamptz := app.now();
begin
    perform p.id from app.payments p where p.id = payment for no key update;
    perform app.pause('refund_open');

    -- the guard: what is returned never exceeds what was captured
    update app.payments p
    set refunded_cents = p.refunded_cents + amount, updated_at = v_now
    where p.id = payment and amount > 0
        and p.refunded_cents + amount <= p.captured_cents
    returning p.order_id into v_order;

    if not found then
        return null;
    end if;

    insert into app.refunds (id, payment_id, order_id, amount_cents, reason,
        requested_by, mail, created_at, updated_at)
    values (v_id, payment, v_order, amount, reason, requested_by, mail,
        v_now, v_now);

    perform queue.enqueue('refund.execute',
        jsonb_build_object('refund_id', v_id),
        uniq => 'refund.execute:' || v_id,
        tenant => app.order_tenant(v_order));

    perform app.audit(ctx, 'refund.create', 'order', v_order::text,
        jsonb_build_object('refund_id', v_id, 'amount', amount,
            'reason', reason));
    perform app.refund_settle(ctx, payment);

    return v_id;
end $$;

create or replace function app.refund_json(id uuid)
returns json
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select json_build_object(
            'id', r.id,
            'orderId', r.order_id,
            'amountCents', r.amount_cents,
            'currency', o.currency,
            'reason', r.reason,
            'status', r.status,
            'failureReason', r.error_message,
            'orderStatus', o.status,
            'refundedCents', coalesce(p.refunded_cents, 0),
            'capturedCents', coalesce(p.captured_cents, 0),
            'createdAt', app.ts(r.created_at))
        from app.refunds r
        left join app.payments p on p.id = r.payment_id
        join app.orders o on o.id = r.order_id
        where r.id = $1);
end $$;

-- Whole, a part by amount, or named tickets with their price (or an amount).
create or replace function api.orders_refund(ctx api.ctx, id uuid, body jsonb)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_order app.orders;
    v_payment app.payments;
    v_ids uuid[];
    v_amount bigint := (body->>'amount_cents')::bigint;
    v_price bigint;
    v_n int;
    v_refund uuid;
begin
    select o.* into v_order
    from app.orders o
    where o.id = orders_refund.id
    for no key update;

    if not found or not app.event_can(ctx, v_order.event_id, 'manage') then
        return app.fail('NOT_FOUND');
    end if;

    select p.* into v_payment
    from app.payments p
    where p.order_id = v_order.id;

    -- of a free order, tickets can be taken back
    if coalesce(v_payment.captured_cents, 0) = 0 and (v_amount is not null
        or not (body ? 'ticket_ids') or v_order.total_cents > 0)
    then
        return app.fail('INVALID_STATE', json_build_object(
            'detail', 'nothing was paid'));
    end if;

    if body ? 'ticket_ids' then
        select array_agg(distinct x::uuid) into v_ids
        from jsonb_array_elements_text(body->'ticket_ids') x;

        select count(*), sum(t.price_cents) into v_n, v_price
        from app.tickets t
        where t.id = any (v_ids) and t.order_id = v_order.id
            and t.state in ('valid', 'admitted', 'exited');

        if v_n <> cardinality(v_ids) then
            return app.fault('/ticketIds', 'not_allowed',
                'must be live tickets of this order');
        end if;

        v_amount := coalesce(v_amount, v_price);
    end if;

    v_amount := coalesce(v_amount,
        v_payment.captured_cents - v_payment.refunded_cents);

    -- seats of named tickets are free again: event, then types by id
    if v_ids is not null and coalesce(v_payment.refunded_cents, 0) + v_amount
        <= coalesce(v_payment.captured_cents, 0)
    then
        perform app.tickets_end(v_order, v_ids);
        perform app.holders_tell(v_order, v_ids, v_amount = 0,
            body->>'reason');
    end if;

    if v_amount = 0 and v_ids is not null then
        v_refund := app.uuid7();

        insert into app.refunds (id, payment_id, order_id, amount_cents,
            reason, status, requested_by, created_at, updated_at)
        values (v_refund, v_payment.id, v_order.id, 0,
            coalesce(body->>'reason', 'requested by the organizer'),
            'succeeded', (ctx).actor, app.now(), app.now());
        perform app.audit(ctx, 'tickets.refunded', 'order', v_order.id::text,
            jsonb_build_object('tickets', v_ids));

        if v_payment.id is null and not exists (
            select from app.tickets t
            where t.order_id = v_order.id
                and t.state in ('valid', 'admitted', 'exited'))
        then
            perform app.order_move(ctx, v_order.id, 'cancelled',
                'all tickets were taken back');
        end if;

        return app.ok(201, app.refund_json(v_refund), emit => app.wake());
    end if;

    v_refund := app.refund_open(ctx, v_payment.id, v_amount,
        coalesce(body->>'reason', 'requested by the organizer'),
        (ctx).actor);

    if v_refund is null then
        select p.* into v_payment
        from app.payments p
        where p.order_id = v_order.id;

        return app.fail('REFUND_EXCEEDS', json_build_object('refundableCents',
            v_payment.captured_cents - v_payment.refunded_cents));
    end if;

    return app.ok(201, app.refund_json(v_refund), emit => app.wake());
end $$;

-- Single tickets of a paid order come back; the caller holds the order.
create or replace function app.tickets_end(o app.orders, ids uuid[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform e.id from app.events e where e.id = o.event_id for no key update;

    perform y.id
    from app.ticket_types y
    where y.id in (
        select t.ticket_type_id from app.tickets t where t.id = any (ids))
    order by y.id
    for no key update;

    perform t.id
    from app.tickets t
    where t.id = any (ids)
    order by t.code
    for no key update;

    update app.order_items i
    set refunded = i.refunded + x.n
    from (
        select t.line, count(*)::int as n
        from app.tickets t
        where t.id = any (ids)
        group by t.line) x
    where i.order_id = o.id and i.line = x.line;

    update app.events e
    set sold = e.sold - cardinality(ids)
    where e.id = o.event_id;

    update app.ticket_types y
    set sold = y.sold - x.n
    from (
        select t.ticket_type_id, count(*)::int as n
        from app.tickets t
        where t.id = any (ids)
        group by t.ticket_type_id) x
    where y.id = x.ticket_type_id;

    update app.tickets t
    set state = 'refunded', ended_at = app.now(), updated_at = app.now(),
        version = t.version + 1
    where t.id = any (ids);
end $$;

create or replace function api.orders_refunds(ctx api.ctx, id uuid)
returns api.answer
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_order app.orders;
begin
    select o.* into v_order
    from app.orders o
    where o.id = orders_refunds.id;

    if not found or not (v_order.buyer_id = (ctx).actor
        or app.event_can(ctx, v_order.event_id, 'manage'))
    then
        return app.fail('NOT_FOUND');
    end if;

    return app.ok(200, coalesce((
        select json_agg(app.refund_json(r.id) order by r.created_at, r.id)
        from app.refunds r
        where r.order_id = v_order.id), '[]'));
end $$;


-- ---- webhooks: stored once, applied by a task ----

-- provider: whose secret has signed it, and so whose payments it may speak of.
create or replace function api.webhooks_stripe(ctx api.ctx, raw bytea,
    provider text)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_event jsonb;
    v_id text;
    v_new boolean;
begin
    begin
        v_event := convert_from(raw, 'UTF8')::jsonb;
    exception
        when data_exception then
            return app.fail('BAD_REQUEST');
    end;

    v_id := v_event->>'id';

    if v_id is null or v_id !~ '^[A-Za-z0-9_.:-]{1,255}$'
        or v_event->>'type' is null
        or jsonb_typeof(v_event->'data') is distinct from 'object'
    then
        return app.fail('BAD_REQUEST');
    end if;

    if provider = 'test' and app.is_production() then
        return app.fail('NOT_FOUND');
    end if;

    insert into app.webhook_events (provider, event_id, type, created,
        payload, received_at)
    values (webhooks_stripe.provider, v_id, v_event->>'type',
        case when v_event->>'created' ~ '^[0-9]{1,15}$'
            then (v_event->>'created')::bigint else 0 end,
        v_event, app.now())
    on conflict on constraint webhook_events_pkey do nothing;

    v_new := found;

    if v_new then
        perform queue.enqueue('webhook.process', jsonb_build_object(
            'provider', provider, 'event_id', v_id));
        perform app.audit(ctx, 'webhook.store', 'webhook_event', v_id,
            jsonb_build_object('type', v_event->>'type'));
    end if;

    return app.ok(200, '{"received":true}',
        emit => case when v_new then app.wake() end);
end $$;

-- Which of our payments an object of the provider speaks of: three look-ups
-- by key, as an "or" would read the whole table.
create or replace function app.webhook_payment(provider text, object jsonb)
returns uuid
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return coalesce(
        (select p.id
        from app.payments p
        where p.id = app.uuid_or_null(object->'metadata'->>'payment_id')
            and p.provider = $1),
        (select p.id
        from app.payments p
        where p.provider = $1 and p.intent_id = case
            when object->>'object' = 'payment_intent' then object->>'id'
            when jsonb_typeof(object->'payment_intent') = 'object'
                then object->'payment_intent'->>'id'
            else object->>'payment_intent' end),
        (select p.id
        from app.payments p
        where p.provider = $1 and object->>'object' = 'checkout.session'
            and p.session_id = object->>'id'));
end $$;

-- Money in a currency that nobody asked for buys nothing: it is put down for
-- the operator, as no amount of ours says how much it is.
create or replace function app.payment_foreign(payment uuid, currency text,
    why text)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if not exists (
        select from app.payments p
        where p.id = payment
            and upper(payment_foreign.currency) <> p.currency)
    then
        return false;
    end if;

    update app.payments p
    set error_code = 'currency_mismatch', updated_at = app.now(),
        error_message = 'paid in ' || payment_foreign.currency
    where p.id = payment
        and p.error_code is distinct from 'currency_mismatch';

    if found then -- it is told once
        perform app.audit(app.ctx_task(why), 'payment.foreign', 'payment',
            payment::text, jsonb_build_object('currency',
                payment_foreign.currency));
    end if;

    return true;
end $$;

-- What the provider says of one refund: ours by the id that it carries, or
-- one made on the provider's own page, which is taken over as it is.  A total
-- may have told of its money before (app.payment_fact).  The caller holds the
-- order's lock.
create or replace function app.refund_news(payment uuid, object jsonb)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_status text := case when object->>'status' in ('succeeded', 'pending')
            then object->>'status'
        when object->>'status' in ('failed', 'canceled') then 'failed'
        else 'pending' end;
    v_why text := case when v_status = 'failed' then coalesce(
        object->>'failure_reason', object->>'status') end;
    v_ours uuid := app.uuid_or_null(object->'metadata'->>'refund_id');
    v_amount bigint := (object->>'amount')::bigint;
    v_now timestamptz := app.now();
    v_id uuid;
begin
    select r.id into v_id
    from app.refunds r
    where r.payment_id = payment
        and (r.id = v_ours or r.provider_refund_id = object->>'id')
    order by r.provider_refund_id nulls last
    limit 1;

    if found then
        if v_status = 'pending' then
            update app.refunds r
            set provider_refund_id = object->>'id', updated_at = v_now
            where r.id = v_id and r.provider_refund_id is null;
        else
            perform app.refund_end(v_id, v_status = 'succeeded',
                object->>'id', v_why);
        end if;

        return 'done';
    end if;

    if v_ours is not null or object->>'id' is null or v_amount is null
        or v_amount <= 0
    then
        return 'not ours';
    end if;

    -- its part of what totals told of, which did not say whose it was
    with told as (
        select r.id, sum(r.amount_cents) over (order by r.created_at, r.id)
            - r.amount_cents as before
        from app.refunds r
        where r.payment_id = payment and not r.ours
            and r.provider_refund_id is null),
    whole as (
        delete from app.refunds r
        using told t
        where r.id = t.id and t.before + r.amount_cents <= v_amount)
    update app.refunds r
    set amount_cents = r.amount_cents - (v_amount - t.before),
        updated_at = v_now
    from told t
    where r.id = t.id and t.before < v_amount
        and t.before + r.amount_cents > v_amount;

    insert into app.refunds (id, payment_id, order_id, amount_cents, reason,
        status, provider_refund_id, ours, mail, created_at, updated_at)
    select app.uuid7(), p.id, p.order_id, v_amount, 'by the provider',
        'pending', object->>'id', false, true, v_now, v_now
    from app.payments p
    where p.id = payment
    returning id into v_id;

    perform app.refund_count(payment);
    perform app.audit(app.ctx_task('refund.news'), 'payment.returned',
        'payment', payment::text, jsonb_build_object('refund_id', v_id,
            'amount', v_amount, 'status', v_status));
    perform app.refund_settle(app.ctx_task('refund.news'), payment);

    if v_status <> 'pending' then
        perform app.refund_end(v_id, v_status = 'succeeded', object->>'id',
            v_why);
    end if;

    return 'done';
end $$;

-- The intent of a payment, learned from whoever names it first.  What was
-- told of it before, and was nobody's then, is looked at once more; the lock
-- is for what is being told right now (app.webhook_apply).
create or replace function app.intent_learn(payment uuid, intent text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_provider text;
    v_event text;
begin
    if intent is null or exists (
        select from app.payments p
        where p.id = payment and p.intent_id is not null)
    then
        return;
    end if;

    perform pg_advisory_xact_lock(hashtextextended(intent, 9));

    update app.payments p
    set intent_id = intent
    where p.id = payment and p.intent_id is null
    returning p.provider into v_provider;

    for v_event in
        update app.webhook_events w
        set state = 'stored', outcome = null, done_at = null
        where w.provider = v_provider and w.outcome = 'not ours'
            and w.payload->'data'->'object'->>'payment_intent' = intent
        returning w.event_id
    loop
        perform queue.enqueue('webhook.process', jsonb_build_object(
            'provider', v_provider, 'event_id', v_event));
    end loop;
end $$;

-- Applies an event; answers what was done.
create or replace function app.webhook_apply(event app.webhook_events)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_object jsonb := event.payload->'data'->'object';
    v_payment uuid := app.webhook_payment(event.provider, v_object);
    v_why text := event.type;
begin
    if v_payment is null and v_object->>'payment_intent' is not null then
        perform pg_advisory_xact_lock(hashtextextended(
            v_object->>'payment_intent', 9));
        v_payment := app.webhook_payment(event.provider, v_object);
    end if;

    if v_payment is null then
        return 'not ours';
    end if;

    perform app.payment_order(v_payment);

    if event.type in ('payment_intent.succeeded', 'charge.succeeded',
            'charge.refunded', 'checkout.session.completed',
            'checkout.session.async_payment_succeeded')
        and app.payment_foreign(v_payment, v_object->>'currency', v_why)
    then
        return 'foreign currency';
    end if;

    perform app.intent_learn(v_payment, case
        when v_object->>'object' = 'payment_intent' then v_object->>'id'
        when jsonb_typeof(v_object->'payment_intent') = 'string'
            then v_object->>'payment_intent' end);

    v_object := app.provider_object(v_object, (
        select app.provider_units(p.provider, p.currency)
        from app.payments p
        where p.id = v_payment));

    return case event.type
        when 'payment_intent.succeeded' then app.payment_fact(v_payment,
            coalesce((v_object->>'amount_received')::bigint,
                (v_object->>'amount')::bigint), null, false, false, v_why)
        when 'payment_intent.payment_failed' then app.payment_fact(
            v_payment, null, null, true, false, v_why,
            v_object->'last_payment_error'->>'code',
            v_object->'last_payment_error'->>'message')
        when 'payment_intent.canceled' then app.payment_fact(v_payment,
            null, null, false, true, v_why)
        when 'checkout.session.completed' then app.payment_fact(v_payment,
            case when v_object->>'payment_status' = 'paid'
                then (v_object->>'amount_total')::bigint end,
            null, false, false, v_why)
        when 'checkout.session.async_payment_succeeded' then
            app.payment_fact(v_payment,
                (v_object->>'amount_total')::bigint, null, false, false,
                v_why)
        when 'checkout.session.async_payment_failed' then
            app.payment_fact(v_payment, null, null, true, false, v_why)
        when 'checkout.session.expired' then app.payment_fact(v_payment,
            null, null, false, true, v_why)
        when 'charge.succeeded' then app.payment_fact(v_payment,
            case when v_object->>'captured' = 'true' then coalesce(
                (v_object->>'amount_captured')::bigint,
                (v_object->>'amount')::bigint) end,
            null, false, false, v_why)
        when 'charge.refunded' then app.payment_fact(v_payment,
            coalesce((v_object->>'amount_captured')::bigint,
                (v_object->>'amount')::bigint),
            (v_object->>'amount_refunded')::bigint, false, false, v_why)
        when 'refund.created' then app.refund_news(v_payment, v_object)
        when 'refund.updated' then app.refund_news(v_payment, v_object)
        when 'refund.failed' then app.refund_news(v_payment, v_object)
        when 'charge.refund.updated' then app.refund_news(v_payment,
            v_object)
        when 'charge.dispute.created' then app.payment_disputed(v_payment,
            v_object, event.created)
        when 'charge.dispute.updated' then app.payment_disputed(v_payment,
            v_object, event.created)
        when 'charge.dispute.closed' then app.payment_disputed(v_payment,
            v_object, event.created)
        else 'ignored'
    end;
end $$;

-- An event that makes no sense is given up at once: it would never make any.
create or replace function task.webhook_process(id bigint, payload jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_event app.webhook_events;
    v_outcome text;
    v_bad text;
begin
    if not exists (
        select from queue.outbox o
        where o.id = webhook_process.id and o.state < 2
        for update)
    then
        return '{"result":"done"}'::jsonb;
    end if;

    select w.* into v_event
    from app.webhook_events w
    where w.provider = webhook_process.payload->>'provider'
        and w.event_id = webhook_process.payload->>'event_id'
    for no key update;

    if not found or v_event.state = 'done' then
        perform queue.done(webhook_process.id);
        return '{"result":"done"}'::jsonb;
    end if;

    begin
        v_outcome := app.webhook_apply(v_event);
    exception
        when data_exception then
            v_bad := sqlerrm;
    end;

    if v_outcome = 'foreign currency' then
        v_bad := 'not the currency of the order';
    end if;

    update app.webhook_events w
    set state = case when v_bad is null then 'done' else 'failed' end,
        outcome = coalesce(v_bad, v_outcome), done_at = app.now()
    where w.provider = v_event.provider and w.event_id = v_event.event_id;

    if v_bad is not null then
        perform queue.dead(webhook_process.id, v_bad);
        return jsonb_build_object('result', 'dead', 'reason', v_bad);
    end if;

    perform queue.done(webhook_process.id);
    return '{"result":"done"}'::jsonb;
end $$;

-- The newest word about a dispute wins, whatever order words come in; of two
-- with one time the closed one is the newer.
create or replace function app.payment_disputed(payment uuid, object jsonb,
    created bigint)
returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_closed boolean := object->>'status' in ('won', 'lost',
        'warning_closed');
begin
    update app.payments p
    set disputed = not v_closed, disputed_at = created * 2 + v_closed::int,
        updated_at = app.now()
    where p.id = payment
        and coalesce(p.disputed_at, 0) < created * 2 + v_closed::int;

    if found then
        perform app.audit(app.ctx_task('dispute'), 'payment.disputed',
            'payment', payment::text,
            jsonb_build_object('status', object->>'status'));
    end if;

    return 'done';
end $$;
