-- Fixtures of the SQL tests, included by \ir: people, events, codes, and a
-- caller's context.  Each file runs in a database of its own, on the test
-- template, so app.now() can be moved by t.clock().

create schema t;
grant usage on schema t to stoa_edge;

create function t.ctx(who uuid, roles text[] default '{member}')
returns api.ctx language sql as $$
    select row(who, roles, null, null, '192.0.2.1', 'req-1', 'en', 'h.0.1',
        null, null, null)::api.ctx
$$;

-- As many open orders as a test likes; orders.sql tests the bound itself.
select app.settings_put('{"hold_max_orders": "0"}');

create function t.device_ctx(device uuid, event uuid)
returns api.ctx language sql as $$
    select row(null, '{}', null, device, '192.0.2.1', 'req-1', 'en', 'h.0.1',
        event, null, null)::api.ctx
$$;

create function t.clock(shift interval)
returns void language sql as $$ update app.test_clock set shift = $1 $$;

create function t.person(email text, roles text[] default '{member}')
returns uuid language sql as $$
    insert into app.users (id, email, password_hash, first_name, last_name,
        roles, created_at, updated_at)
    values (app.uuid7(), email, 'x', initcap(split_part(email, '@', 1)),
        'Test', roles, app.now(), app.now())
    returning id
$$;

-- A published event that begins in 30 days; its types come later.
create function t.event(organizer uuid, fields jsonb default '{}')
returns uuid language plpgsql as $$
declare
    v_id uuid;
begin
    v_id := (api.events_create(t.ctx(organizer, '{organizer,member}'),
        jsonb_build_object('title', 'Event',
            'starts_at', app.now() + interval '30 days',
            'ends_at', app.now() + interval '30 days 4 hours',
            'timezone', 'Europe/Prague') || fields)).body->>'id';
    update app.events e
    set status = 'published', published_at = app.now(),
        version = e.version + 1
    where e.id = v_id;
    return v_id;
end $$;

create function t.type(event uuid, fields jsonb default '{}')
returns uuid language sql as $$
    select ((api.ticket_types_create(
        t.ctx((select organizer_id from app.events where id = event)), event,
        '{"name": "Standard", "price_cents": 0, "quota": 10}'::jsonb
            || fields)).body->>'id')::uuid
$$;

create function t.codes(items jsonb)
returns jsonb language sql volatile as $$
    select jsonb_agg(jsonb_build_object(
        'ticket_type_id', i->>'ticket_type_id',
        'id', gen_random_uuid(),
        'code', upper(replace(gen_random_uuid()::text || gen_random_uuid()
            || gen_random_uuid(), '-', ''))))
    from jsonb_array_elements(items) i
    cross join generate_series(1, (i->>'quantity')::int)
$$;

create function t.items(type uuid, quantity int)
returns jsonb language sql as $$
    select jsonb_build_array(jsonb_build_object('ticket_type_id', type,
        'quantity', quantity))
$$;

create function t.order_items(who uuid, items jsonb,
    promo text default null)
returns api.answers language sql as $$
    select a.*
    from api.orders_create(array[1], array[t.ctx(who)],
        array[jsonb_strip_nulls(jsonb_build_object('items', items,
            'promo_code', promo))], array[t.codes(items)]) a
$$;

create function t.order(who uuid, type uuid, quantity int default 1,
    promo text default null)
returns api.answers language sql as $$
    select t.order_items(who, t.items(type, quantity), promo)
$$;

create function t.order_id(who uuid, type uuid, quantity int default 1)
returns uuid language sql as $$
    select ((t.order(who, type, quantity)).body->>'id')::uuid
$$;

-- A provider's event, stored and applied.
create function t.event_in(id text, type text, object jsonb,
    created bigint default 1)
returns void language plpgsql as $$
declare
    r record;
begin
    perform api.webhooks_stripe(t.ctx(null), convert_to(jsonb_build_object(
        'id', id, 'type', type, 'created', created,
        'data', jsonb_build_object('object', object))::text, 'UTF8'),
        case when id like 'evt\_test\_%' then 'test' else 'stripe' end);
    for r in select o.id, o.payload from queue.outbox o
        where o.kind = 'webhook.process' order by o.id
    loop
        perform task.webhook_process(r.id, r.payload);
    end loop;
end $$;

create function t.intent(order_id uuid, amount bigint default null)
returns jsonb language sql as $$
    select jsonb_build_object('id', p.intent_id, 'object', 'payment_intent',
        'amount', p.amount_cents, 'currency', lower(p.currency),
        'amount_received', coalesce($2, p.amount_cents),
        'metadata', jsonb_build_object('payment_id', p.id))
    from app.payments p
    where p.order_id = $1
$$;

create function t.pay(order_id uuid, amount bigint default null)
returns void language sql as $$
    select t.event_in('evt_test_stoa_' || gen_random_uuid(),
        'payment_intent.succeeded', t.intent($1, $2))
$$;

-- Runs what is waiting of a kind; answers how many ran.
create function t.run(kind text)
returns int language plpgsql as $$
declare
    r record;
    n int := 0;
begin
    for r in select o.id, o.payload from queue.outbox o
        where o.kind = run.kind and o.state < 2 order by o.id
    loop
        execute format('select task.%s($1, $2)', replace(
            case kind when 'refund.execute' then 'refund_begin' else kind end,
            '.', '_')) using r.id, r.payload;
        n := n + 1;
    end loop;
    return n;
end $$;

create function t.code(ticket uuid)
returns text language sql as $$
    select t.code from app.tickets t where t.id = ticket
$$;

create function t.ticket_of(order_id uuid)
returns uuid language sql as $$
    select min(t.id::text)::uuid from app.tickets t where t.order_id = $1
$$;

-- The door, with a context per scan.
create function t.door(ords int[], ctxs api.ctx[], codes text[],
    event_ids uuid[], device_ids text[], nonces text[], modes text[],
    gates text[], directions text[])
returns setof api.answers language sql as $$
    select a.ord, a.status, a.body::json, a.meta, a.etag, a.emit, a.wait
    from (
        select array_agg(c.actor order by i) as actors,
            array_agg(c.roles::text order by i) as roles,
            array_agg(c.device order by i) as devices,
            array_agg(c.event order by i) as events,
            array_agg(c.ip order by i) as ips,
            array_agg(c.request_id order by i) as requests,
            array_agg(c.api_key order by i) as keys
        from unnest(ctxs) with ordinality c (actor, roles, session, device,
            ip, request_id, lang, reply_to, event, acting_as, api_key, i)) x,
        api.orders_validate(ords, codes, x.actors, x.roles, x.devices,
            x.events, x.ips, x.requests, event_ids, device_ids, nonces,
            modes, gates, directions, x.keys) a
$$;

create function t.scan(ctx api.ctx, code text, nonce text default null,
    mode text default null, event uuid default null, gate text default null,
    direction text default null)
returns api.answers language sql as $$
    select a.*
    from t.door(array[1], array[ctx], array[code], array[event],
        array[null::text], array[nonce], array[mode], array[gate],
        array[direction]) a
$$;

-- Counters that do not fit what is stored; no row: all is well (I-3).
create view t.drift as
select 'type' as what, y.id, y.sold, coalesce(sum(i.quantity - i.refunded)
    filter (where o.holds), 0) as counted
from app.ticket_types y
left join app.order_items i on i.ticket_type_id = y.id
left join app.orders o on o.id = i.order_id
group by y.id
having y.sold <> coalesce(sum(i.quantity - i.refunded)
    filter (where o.holds), 0)
union all
select 'event', e.id, e.sold, coalesce(sum(i.quantity - i.refunded)
    filter (where o.holds), 0)
from app.events e
left join app.orders o on o.event_id = e.id
left join app.order_items i on i.order_id = o.id
group by e.id
having e.sold <> coalesce(sum(i.quantity - i.refunded)
    filter (where o.holds), 0)
union all
select 'promo', c.id, c.used, count(r.order_id) filter (where not r.released)
from app.promo_codes c
left join app.promo_redemptions r on r.promo_id = c.id
group by c.id
having c.used <> count(r.order_id) filter (where not r.released)
union all
select 'live tickets', i.order_id, i.quantity - i.refunded,
    count(t.id) filter (where t.state in ('valid', 'admitted', 'exited'))
from app.order_items i
join app.orders o on o.id = i.order_id and o.status in ('paid',
    'partially_refunded')
left join app.tickets t on t.order_id = i.order_id and t.line = i.line
group by i.order_id, i.line
having i.quantity - i.refunded
    <> count(t.id) filter (where t.state in ('valid', 'admitted', 'exited'))
union all
select 'payment', p.id, p.refunded_cents, coalesce(sum(r.amount_cents)
    filter (where r.status <> 'failed'), 0)
from app.payments p
left join app.refunds r on r.payment_id = p.id
group by p.id
having p.refunded_cents <> coalesce(sum(r.amount_cents)
    filter (where r.status <> 'failed'), 0);
