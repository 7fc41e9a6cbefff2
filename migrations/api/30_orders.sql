-- orders.*: what an order shows, how its state moves, how holds end, and how
-- it is cancelled or paid.  Placing is 33_placing.sql.
--
-- app.order_move() is the one place where an order changes state: it keeps
-- counters, tickets, promo redemptions, audit and tasks together.  Nobody
-- holds a lock while a provider is called.

-- The state that everybody sees: a hold that ran out is over, whether or not
-- a sweeper has come by.
create or replace function app.order_status(status text,
    reserved_until timestamptz)
returns text
language sql stable
return case
    when status in ('reserved', 'awaiting_payment', 'payment_failed')
        and reserved_until <= app.now() then 'expired'
    else status
end;

create or replace function app.payment_json(p app.payments)
returns json
language sql stable
security definer -- reads a setting, for the edge too
set search_path = pg_catalog, pg_temp
return json_strip_nulls(json_build_object(
    'provider', p.provider,
    'paymentId', p.id,
    'checkoutUrl', p.checkout_url,
    'paymentIntentId', p.intent_id,
    'clientSecret', p.client_secret,
    'publishableKey', case when p.provider = 'stripe'
        then app.setting('stripe_publishable_key') end));

-- Member order is that of app.orders_place(), which builds the same object
-- from arrays.
create or replace view api.orders_detail as
select o.id, o.buyer_id, o.event_id, o.version || '.'
        || left(md5(b.body::text), 12) as etag, b.body
from app.orders o
join app.events e on e.id = o.event_id
cross join lateral (
    select json_build_object(
        'id', o.id,
        'status', app.order_status(o.status, o.reserved_until),
        'eventId', o.event_id,
        'eventTitle', e.title,
        'buyerId', o.buyer_id,
        'subtotalCents', o.subtotal_cents,
        'discountCents', o.discount_cents,
        'totalCents', o.total_cents,
        'currency', o.currency,
        'promoCode', (select c.code from app.promo_codes c
            where c.id = o.promo_id),
        'reservedUntil', app.ts(o.reserved_until),
        'items', (
            select json_agg(json_build_object(
                'ticketTypeId', i.ticket_type_id,
                'name', i.name,
                'quantity', i.quantity,
                'unitPriceCents', i.unit_price_cents,
                'discountCents', i.discount_cents,
                'lineTotalCents', i.line_total_cents) order by i.line)
            from app.order_items i
            where i.order_id = o.id),
        'tickets', coalesce((
            select json_agg(json_build_object(
                'id', t.id,
                'code', case when t.holder_id = o.buyer_id then t.code end,
                'state', t.state,
                'ticketTypeId', t.ticket_type_id,
                'ticketTypeName', i.name,
                'holderName', t.holder_name,
                'priceCents', t.price_cents) order by t.line, t.id)
            from app.tickets t
            join app.order_items i on i.order_id = t.order_id
                and i.line = t.line
            where t.order_id = o.id and t.state <> 'reserved'
                and o.paid_at is not null), '[]'),
        'paymentDetails', (select app.payment_json(p.*) from app.payments p
            where p.order_id = o.id),
        'refundedCents', coalesce((select p.refunded_cents
            from app.payments p where p.order_id = o.id), 0),
        'createdAt', app.ts(o.created_at),
        'paidAt', app.ts(o.paid_at),
        'endedAt', app.ts(o.ended_at)) as body
    offset 0) b;

-- Of an order or a ticket, for those who run the event: whoever has a code is
-- let in, and whoever has the client secret pays, so both are their owner's.
create or replace function api.uncoded(body json)
returns json
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select (b.b
        || case when b.b ? 'code' then '{"code": null}' else '{}'::jsonb end
        || case when jsonb_typeof(b.b->'paymentDetails') = 'object'
            then jsonb_build_object('paymentDetails',
                (b.b->'paymentDetails') - 'clientSecret')
            else '{}'::jsonb end
        || case when b.b ? 'tickets' then jsonb_build_object('tickets',
            coalesce((
                select jsonb_agg(x.t || '{"code": null}' order by x.n)
                from jsonb_array_elements(b.b->'tickets') with ordinality
                    x (t, n)), '[]'::jsonb)) else '{}'::jsonb end)::json
    from (values (body::jsonb)) b (b)
$$;

create or replace view api.orders_list as
select o.id, o.buyer_id, o.event_id, o.created_at, o.total_cents,
    app.order_status(o.status, o.reserved_until) as status,
    e.title as event_title,
    json_build_object(
        'id', o.id,
        'status', app.order_status(o.status, o.reserved_until),
        'eventId', o.event_id,
        'eventTitle', e.title,
        'startsAt', app.ts(e.starts_at),
        'timezone', e.timezone,
        'totalCents', o.total_cents,
        'currency', o.currency,
        'reservedUntil', app.ts(o.reserved_until),
        'createdAt', app.ts(o.created_at)) as item
from app.orders o
join app.events e on e.id = o.event_id;

grant execute on function app.order_status(text, timestamptz),
    app.payment_json(app.payments) to stoa_edge;

create or replace function app.order_answer(id uuid, status int,
    emit json default null, wait bigint default null)
returns api.answer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select app.ok($2, d.body, d.etag, $3, $4)
        from api.orders_detail d
        where d.id = $1);
end $$;


-- ---- the one transition ----

-- Moves an order whose row the caller has locked.  Answers false when the
-- state does not allow it or, for a late payment, when what was ordered is
-- gone; then nothing was changed.
--
--   reserved, awaiting_payment, payment_failed   hold seats until
--       reserved_until; a declined card does not end the hold
--   paid, partially_refunded                     own their seats
--   cancelled, expired, refunded, refund_failed  have given them back; only
--       what expired can be had again by paying late: who cancels means it.
--       refund_failed: the money could not be returned, and is still owed
create or replace function app.order_move(ctx api.ctx, id uuid, target text,
    why text)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_old app.orders;
    v_now timestamptz := app.now();
    v_holds boolean := target in ('reserved', 'awaiting_payment',
        'payment_failed', 'paid', 'partially_refunded');
    v_sign int;
    v_ids uuid[];
begin
    select o.* into strict v_old
    from app.orders o
    where o.id = order_move.id
    for no key update;

    if not (target = any (case v_old.status
        when 'reserved' then array['awaiting_payment', 'payment_failed',
            'paid', 'cancelled', 'expired']
        when 'awaiting_payment' then array['payment_failed', 'paid',
            'cancelled', 'expired']
        when 'payment_failed' then array['paid', 'cancelled', 'expired']
        when 'expired' then array['paid']
        when 'paid' then array['partially_refunded', 'refunded',
            'cancelled'] -- cancelled: only what cost nothing
        when 'partially_refunded' then array['refunded', 'paid']
        when 'refunded' then array['refund_failed']
        when 'refund_failed' then array['refunded']
        else '{}'
    end)) then
        return false;
    end if;

    perform app.pause('order_move');

    if v_holds <> v_old.holds then
        if not app.order_seats(v_old, v_holds) then
            return false;
        end if;

        v_sign := case when v_holds then 1 else -1 end;

        if v_old.promo_id is not null and target <> 'refunded' then
            update app.promo_redemptions r
            set released = not v_holds
            where r.order_id = v_old.id and r.released = v_holds;

            if found then
                update app.promo_codes c
                set used = c.used + v_sign
                where c.id = v_old.promo_id;
            end if;
        end if;
    end if;

    update app.orders o
    set status = target,
        holds = v_holds,
        paid_at = case when target = 'paid' then coalesce(o.paid_at, v_now)
            else o.paid_at end,
        ended_at = case when v_holds then null else v_now end,
        updated_at = v_now,
        version = o.version + 1
    where o.id = v_old.id;

    -- tickets follow, by code (admission locks them the same way)
    if target in ('cancelled', 'expired', 'refunded')
        or target = 'paid' and v_old.status <> 'partially_refunded'
    then
        perform t.id
        from app.tickets t
        where t.order_id = v_old.id
        order by t.code
        for no key update;

        with moved as (
            update app.tickets t
            set state = case target when 'paid' then 'valid' else target end,
                ended_at = case when target <> 'paid' then v_now end,
                updated_at = v_now,
                version = t.version + 1
            where t.order_id = v_old.id
                and t.state in ('reserved', 'valid', 'admitted', 'exited',
                    'cancelled', 'expired')
                and (target = 'paid'
                    or t.state not in ('cancelled', 'expired'))
            returning t.id)
        select array_agg(m.id) into v_ids from moved m;
    end if;

    if target = 'paid' and v_old.status <> 'partially_refunded' then
        perform queue.enqueue('mail.send', jsonb_build_object(
            'template', 'order_paid', 'order_id', v_old.id));
    elsif target in ('cancelled', 'refunded') then
        perform app.holders_tell(v_old, v_ids, false);
    end if;

    if target in ('cancelled', 'expired') then
        perform app.payment_close(ctx, v_old.id, target);
    end if;

    perform app.audit(ctx, 'order.' || target, 'order', v_old.id::text,
        jsonb_build_object('from', v_old.status, 'to', target, 'why', why));

    return true;
end $$;

-- In the queues the tasks of an event take turns with those of others: many
-- come of one at once, when it is called off.
create or replace function app.order_tenant(order_id uuid)
returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select 'event:' || o.event_id
        from app.orders o
        where o.id = order_tenant.order_id);
end $$;

-- Who holds tickets that have just ended is told; the buyer only if he is to
-- be, as most often another mail does it.
create or replace function app.holders_tell(o app.orders, ids uuid[],
    buyer boolean, reason text default null)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform queue.enqueue('mail.send', jsonb_strip_nulls(jsonb_build_object(
        'template', case when e.status = 'cancelled' then 'event_cancelled'
            else 'tickets_cancelled' end,
        'order_id', o.id, 'holder_id', h.holder_id,
        'reason', holders_tell.reason)), tenant => 'event:' || e.id)
    from app.events e, (
        select distinct t.holder_id
        from app.tickets t
        where t.id = any (ids) and (buyer or t.holder_id <> o.buyer_id)) h
    where e.id = o.event_id;
end $$;

-- An unpaid order has ended.  What it got in part goes back; when it was
-- cancelled, its payment is closed at the provider at once (reconciling does
-- the same for holds that ran out: they may still be paid late).
create or replace function app.payment_close(ctx api.ctx, order_id uuid,
    target text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_payment app.payments;
begin
    select p.* into v_payment
    from app.payments p
    where p.order_id = payment_close.order_id
    for no key update;

    if not found then
        return;
    end if;

    if target = 'cancelled' and v_payment.status in ('pending', 'failed') then
        if v_payment.provider = 'test' then
            update app.payments p
            set status = 'canceled', updated_at = app.now()
            where p.id = v_payment.id;
        elsif v_payment.intent_id is not null
            or v_payment.session_id is not null
        then
            perform queue.enqueue('payment.cancel', jsonb_build_object(
                'payment_id', v_payment.id),
                uniq => 'payment.cancel:' || v_payment.id);
        end if;
    end if;

    if v_payment.captured_cents > v_payment.refunded_cents then
        perform app.refund_open(ctx, v_payment.id,
            v_payment.captured_cents - v_payment.refunded_cents,
            'less than the total was paid', null);
    end if;
end $$;

-- Whether an order that expired can have its promo code again, as if it were
-- placed now.  The caller holds the event, whose locks come first.
create or replace function app.promo_free(o app.orders)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_code app.promo_codes;
    v_now timestamptz := app.now();
begin
    if o.promo_id is null or not exists (
        select from app.promo_redemptions r
        where r.order_id = o.id and r.released)
    then
        return true;
    end if;

    select c.* into strict v_code
    from app.promo_codes c
    where c.id = o.promo_id
    for no key update;

    perform app.pause('promo_free');

    return coalesce(v_code.valid_from <= v_now, true)
        and coalesce(v_code.valid_until > v_now, true)
        and coalesce(v_code.used < v_code.max_uses, true)
        and coalesce(v_code.per_user > (
            select count(*)
            from app.promo_redemptions r
            where r.promo_id = v_code.id and r.user_id = o.buyer_id
                and not r.released), true);
end $$;

-- Takes or gives back an order's seats: event first, then types by id.
-- false: what was ordered cannot be had again: not enough seats are free, it
-- is not on sale any more, the promo code is used up, or the buyer has
-- registered anew; nothing was changed.
create or replace function app.order_seats(o app.orders, take boolean)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_event app.events;
    v_seats int;
begin
    select sum(i.quantity - i.refunded) into v_seats
    from app.order_items i
    where i.order_id = o.id;

    select e.* into strict v_event
    from app.events e
    where e.id = o.event_id
    for no key update;

    perform t.id
    from app.ticket_types t
    join app.order_items i on i.ticket_type_id = t.id and i.order_id = o.id
    order by t.id
    for no key update of t;

    if take then
        if v_event.status <> 'published' or v_event.ends_at <= app.now()
            or exists (
                select from app.order_items i
                join app.ticket_types t on t.id = i.ticket_type_id
                where i.order_id = o.id
                    and (t.sales_start > app.now()
                        or t.sales_end <= app.now()))
        then
            return false;
        end if;

        -- others' holds that ran out come first, then what they held
        for v_try in 1 .. 2 loop
            if v_try = 1 then
                perform app.holds_release(v_event.id, o.id);
            elsif app.holds_settle(v_event.id, o.id) = 0 then
                return false;
            end if;

            select e.* into strict v_event
            from app.events e
            where e.id = o.event_id;

            exit when coalesce(v_event.sold + v_seats <= v_event.capacity,
                    true)
                and not exists (
                    select from app.order_items i
                    join app.ticket_types t on t.id = i.ticket_type_id
                    where i.order_id = o.id
                        and t.sold + i.quantity - i.refunded > t.quota)
                and app.promo_free(o)
                and not (o.registration and exists (
                    select from app.orders x
                    where x.event_id = o.event_id
                        and x.registrant_id = o.registrant_id
                        and x.registration and x.holds));

            if v_try = 2 and app.holds_lapsed(v_event.id, o.id) then
                raise exception 'too many holds of event % ran out',
                    v_event.id using errcode = 'serialization_failure';
            elsif v_try = 2 then
                return false;
            end if;
        end loop;
    end if;

    perform app.pause('order_seats');

    update app.events e
    set sold = e.sold + case when take then v_seats else -v_seats end
    where e.id = o.event_id;

    update app.ticket_types t
    set sold = t.sold + case when take then i.quantity - i.refunded
        else i.refunded - i.quantity end
    from app.order_items i
    where i.order_id = o.id and t.id = i.ticket_type_id;

    return true;
end $$;

-- Has the event holds that ran out and still stand?
create or replace function app.holds_lapsed(event uuid, but uuid)
returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return exists (
        select from app.orders o
        where o.event_id = event
            and o.status in ('reserved', 'awaiting_payment', 'payment_failed')
            and o.reserved_until <= app.now()
            and o.id is distinct from but);
end $$;

-- Ends the holds of an event that ran out, set-based; orders that somebody
-- else is just moving are left to them.  Answers how many ended.  Callers may
-- hold the event's lock: order rows are only taken when they are free.
create or replace function app.holds_release(event uuid,
    but uuid default null)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_ids uuid[];
begin
    -- cheap and usual: nothing ran out
    if not app.holds_lapsed(event, but) then
        return 0;
    end if;

    select array_agg(d.id) into v_ids
    from (
        select o.id
        from app.orders o
        where o.event_id = event
            and o.status in ('reserved', 'awaiting_payment', 'payment_failed')
            and o.reserved_until <= app.now()
            and o.id is distinct from but
        order by o.id
        limit 1000
        for no key update skip locked) d;

    if v_ids is null then
        return 0;
    end if;

    return app.orders_expire(event, v_ids);
end $$;

-- Waits for whoever is moving orders of these events whose holds ran out, in
-- key order, and keeps them locked: what app.holds_release() finds then is
-- all there is.  Called before anything is locked; whoever has an order and
-- wants its event would wait for the caller otherwise.  Half a second at most:
-- what stays locked then is left to app.holds_settle(), and one slow sweep
-- does not take the connections of all other events.
create or replace function app.holds_wait(events uuid[])
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '500ms'
as $$
begin
    perform o.id
    from app.orders o
    where o.event_id = any (events)
        and o.status in ('reserved', 'awaiting_payment', 'payment_failed')
        and o.reserved_until <= app.now()
    order by o.id
    for no key update;
exception
    when lock_not_available then
        null;
end $$;

-- What app.holds_release() gave back, or 40001 when seats of holds that ran
-- out stay behind because somebody is just moving their orders: whether they
-- are free is not known yet, so "sold out" would be a guess.  The caller has
-- the event's lock, so nobody gives back or takes a seat meanwhile.  A few
-- thousand orders at most: what a statement has no time for rolls back, so
-- that the next one would begin anew.
create or replace function app.holds_settle(event uuid,
    but uuid default null)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_all int := 0;
    v_n int;
begin
    loop
        v_n := app.holds_release(event, but);
        v_all := v_all + v_n;
        exit when v_n < 1000;

        if v_all >= 5000 then
            return v_all;
        end if;
    end loop;

    if app.holds_lapsed(event, but) then
        raise exception 'holds of event % are just being moved', event
            using errcode = 'serialization_failure';
    end if;

    return v_all;
end $$;

-- Orders of one event, locked by the caller, whose holds ran out.
create or replace function app.orders_expire(event uuid, ids uuid[])
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now timestamptz := app.now();
    v_ctx api.ctx := app.ctx_task('expire');
    v_was jsonb;
begin
    perform e.id from app.events e where e.id = event for no key update;

    perform t.id
    from app.ticket_types t
    where t.id in (
        select i.ticket_type_id from app.order_items i
        where i.order_id = any (ids))
    order by t.id
    for no key update;

    update app.events e
    set sold = e.sold - s.seats
    from (
        select sum(i.quantity - i.refunded) as seats
        from app.order_items i
        where i.order_id = any (ids)) s
    where e.id = event;

    update app.ticket_types t
    set sold = t.sold - s.seats
    from (
        select i.ticket_type_id, sum(i.quantity - i.refunded) as seats
        from app.order_items i
        where i.order_id = any (ids)
        group by i.ticket_type_id) s
    where t.id = s.ticket_type_id;

    with freed as (
        update app.promo_redemptions r
        set released = true
        where r.order_id = any (ids) and not r.released
        returning r.promo_id),
    counted as (
        select f.promo_id, count(*)::int as n from freed f group by f.promo_id)
    update app.promo_codes c
    set used = greatest(0, c.used - n.n)
    from counted n
    where c.id = n.promo_id;

    select jsonb_object_agg(o.id, jsonb_build_object('from', o.status,
        'to', 'expired')) into v_was
    from app.orders o
    where o.id = any (ids);

    update app.orders o
    set status = 'expired', holds = false, ended_at = v_now,
        updated_at = v_now, version = o.version + 1
    where o.id = any (ids);

    perform t.id
    from app.tickets t
    where t.order_id = any (ids)
    order by t.code
    for no key update;

    update app.tickets t
    set state = 'expired', ended_at = v_now, updated_at = v_now,
        version = t.version + 1
    where t.order_id = any (ids) and t.state = 'reserved';

    insert into app.audit_log (at, action, resource, resource_id, changes,
        request_id, digest)
    select v_now, 'order.expired', 'order', x.key, x.value,
        (v_ctx).request_id,
        app.audit_digest(v_now, null, null, 'order.expired', 'order', x.key,
            x.value, null, (v_ctx).request_id)
    from jsonb_each(v_was) x;

    perform app.payment_close(v_ctx, p.order_id, 'expired')
    from app.payments p
    where p.order_id = any (ids) and p.captured_cents > p.refunded_cents;

    return cardinality(ids);
end $$;


-- ---- cancel ----

create or replace function api.orders_cancel(ctx api.ctx, id uuid)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_order app.orders;
    v_manager boolean;
begin
    select o.* into v_order
    from app.orders o
    where o.id = orders_cancel.id
    for no key update;

    v_manager := app.event_can(ctx, v_order.event_id, 'manage');

    if v_order.id is null or not (v_order.buyer_id = (ctx).actor or v_manager)
    then
        return app.fail('NOT_FOUND');
    end if;

    -- the door must not let somebody in between the look and the change
    if v_order.status = 'paid' then
        perform e.id from app.events e where e.id = v_order.event_id
            for no key update;

        perform y.id
        from app.ticket_types y
        where y.id in (
            select i.ticket_type_id from app.order_items i
            where i.order_id = v_order.id)
        order by y.id
        for no key update;

        perform t.id
        from app.tickets t
        where t.order_id = v_order.id
        order by t.code
        for no key update;
    end if;

    if app.order_status(v_order.status, v_order.reserved_until) not in (
        'reserved', 'awaiting_payment', 'payment_failed')
        and not (v_order.status = 'paid' and v_order.total_cents = 0
            and not exists (select from app.tickets t
                where t.order_id = v_order.id
                    and t.state in ('admitted', 'exited')))
    then
        return app.fail('INVALID_STATE', json_build_object(
            'detail', 'the order is ' || app.order_status(v_order.status,
                v_order.reserved_until)));
    end if;

    -- what was given away is not the buyer's to end
    if not v_manager and exists (
        select from app.tickets t
        where t.order_id = v_order.id and t.state = 'valid'
            and t.holder_id <> v_order.buyer_id)
    then
        return app.fail('TICKETS_TRANSFERRED', json_build_object(
            'detail', 'a ticket of the order belongs to somebody else'));
    end if;

    perform app.order_move(ctx, v_order.id, 'cancelled',
        'cancelled by request');

    if v_order.buyer_id <> (ctx).actor then
        perform queue.enqueue('mail.send', jsonb_build_object(
            'template', 'order_cancelled', 'order_id', v_order.id));
    end if;

    return app.order_answer(v_order.id, 200, app.wake());
end $$;


-- ---- the test provider's page ----

create or replace function api.pay_view(id uuid)
returns table (status int, body json)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select 200, json_build_object(
        'id', o.id,
        'status', app.order_status(o.status, o.reserved_until),
        'title', e.title,
        'totalCents', o.total_cents,
        'currency', o.currency,
        'reservedUntil', app.ts(o.reserved_until))
    from app.orders o
    join app.events e on e.id = o.event_id
    join app.payments p on p.order_id = o.id and p.provider = 'test'
    where o.id = $1 and not app.is_production();
end $$;

-- A click of the payment page: a worker posts the provider's event.  One
-- click at a time per payment and action; what the event does is decided when
-- it arrives.
create or replace function api.pay_form(ctx api.ctx, id uuid, action text)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment uuid;
begin
    select p.id into v_payment
    from app.payments p
    where p.order_id = pay_form.id and p.provider = 'test'
        and not app.is_production();

    if not found or action not in ('pay', 'decline') then
        return app.fail('NOT_FOUND');
    end if;

    -- a provider takes no money for what was called off
    if exists (
        select from app.orders o
        where o.id = pay_form.id and o.status = 'cancelled')
    then
        return app.fail('INVALID_STATE',
            '{"detail":"the order is cancelled"}');
    end if;

    perform queue.enqueue('payment.test_pay', jsonb_build_object(
        'payment_id', v_payment, 'action', action),
        uniq => 'payment.test_pay:' || v_payment || ':' || action);
    perform app.audit(ctx, 'payment.test_' || action, 'order',
        pay_form.id::text);

    return app.ok(303, json_build_object('id', pay_form.id),
        emit => app.wake());
end $$;
