-- events.*: the organizer's side and what everybody sees.

-- Seats of holds that ran out and that nobody has given back yet: they are
-- free for whoever asks (I-3), so what is shown counts them as free.
create or replace view app.type_stock as
select t.id, t.event_id,
    greatest(0, least(
        t.quota - t.sold + coalesce(lapsed.seats, 0),
        e.capacity - e.sold + coalesce(gone.seats, 0))) as remaining,
    (t.sales_start is null or t.sales_start <= app.now())
        and (t.sales_end is null or t.sales_end > app.now())
        and e.status = 'published' and e.ends_at > app.now() as on_sale
from app.ticket_types t
join app.events e on e.id = t.event_id
cross join lateral (
    select sum(i.quantity) as seats
    from app.orders o
    join app.order_items i on i.order_id = o.id and i.ticket_type_id = t.id
    where o.event_id = t.event_id
        and o.status in ('reserved', 'awaiting_payment', 'payment_failed')
        and o.reserved_until <= app.now()) lapsed
cross join lateral (
    select sum(i.quantity) as seats
    from app.orders o
    join app.order_items i on i.order_id = o.id
    where e.capacity is not null and o.event_id = t.event_id
        and o.status in ('reserved', 'awaiting_payment', 'payment_failed')
        and o.reserved_until <= app.now()) gone;

-- A ticket type as everybody sees it.  One expression, which the planner puts
-- into the views that call it.
create or replace function app.type_json(t app.ticket_types, e app.events,
    remaining bigint, on_sale boolean)
returns json
language sql stable
return json_build_object(
    'id', t.id,
    'eventId', t.event_id,
    'name', t.name,
    'description', t.description,
    'priceCents', t.price_cents,
    'currency', e.currency,
    'quota', t.quota,
    'sold', t.sold,
    'remaining', remaining,
    'onSale', on_sale,
    'minPerOrder', t.min_per_order,
    'maxPerOrder', t.max_per_order,
    'salesStart', app.ts(t.sales_start),
    'salesEnd', app.ts(t.sales_end),
    'validFrom', app.ts(t.valid_from),
    'validUntil', app.ts(t.valid_until),
    'sort', t.sort,
    'version', t.version);

grant execute on function app.type_json(app.ticket_types, app.events, bigint,
    boolean) to stoa_edge;

create or replace view api.ticket_types_list as
select t.id, t.event_id, t.sort, t.version, t.name, t.price_cents,
    e.status as event_status,
    app.type_json(t, e, s.remaining, s.on_sale) as item
from app.ticket_types t
join app.events e on e.id = t.event_id
join app.type_stock s on s.id = t.id;

-- Seats of holds that ran out: {"<type>": n, ..., "all": n}.  Called only
-- where there are such holds, so that the plan of a plain read stays small:
-- starting the executor costs more here than reading the rows.
create or replace function app.lapsed_seats(event uuid)
returns jsonb
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select jsonb_object_agg(coalesce(s.type::text, 'all'), s.seats)
        from (
            select i.ticket_type_id as type,
                sum(i.quantity - i.refunded) as seats
            from app.orders o
            join app.order_items i on i.order_id = o.id
            where o.event_id = event
                and o.status in ('reserved', 'awaiting_payment',
                    'payment_failed')
                and o.reserved_until <= app.now()
            group by grouping sets ((i.ticket_type_id), ())) s);
end $$;

grant execute on function app.lapsed_seats(uuid) to stoa_edge;

create or replace view api.events_list as
select e.id, e.title, e.starts_at, e.created_at, e.currency, e.search,
    e.location, e.ends_at > app.now() as upcoming, p.free,
    json_build_object(
        'id', e.id,
        'title', e.title,
        'startsAt', app.ts(e.starts_at),
        'endsAt', app.ts(e.ends_at),
        'timezone', e.timezone,
        'location', e.location,
        'bannerImageUrl', e.banner_image_url,
        'currency', e.currency,
        'status', e.status,
        'organizerId', e.organizer_id,
        'minPriceCents', p.min_price,
        'maxPriceCents', p.max_price,
        'remaining', p.remaining,
        'soldOut', p.remaining = 0) as item
from app.events e
cross join lateral (
    select case when exists (
            select from app.orders o
            where o.event_id = e.id
                and o.status in ('reserved', 'awaiting_payment',
                    'payment_failed')
                and o.reserved_until <= app.now())
        then app.lapsed_seats(e.id) end as lapsed
    offset 0) h
cross join lateral (
    select min(t.price_cents) as min_price, max(t.price_cents) as max_price,
        coalesce(min(t.price_cents) = 0, false) as free,
        greatest(0, least(
            e.capacity - e.sold + case when h.lapsed is null then 0
                else coalesce((h.lapsed->>'all')::bigint, 0) end,
            coalesce(sum(t.quota - t.sold + case when h.lapsed is null then 0
                else coalesce((h.lapsed->>t.id::text)::bigint, 0) end), 0)))
            as remaining
    from app.ticket_types t
    where t.event_id = e.id) p
where e.status = 'published';

create or replace view api.events_mine as
select e.id, e.title, e.starts_at, e.created_at, e.status, e.search,
    a.user_id,
    json_build_object(
        'id', e.id,
        'title', e.title,
        'startsAt', app.ts(e.starts_at),
        'endsAt', app.ts(e.ends_at),
        'timezone', e.timezone,
        'location', e.location,
        'currency', e.currency,
        'status', e.status,
        'capacity', e.capacity,
        'sold', e.sold,
        'version', e.version,
        'createdAt', app.ts(e.created_at)) as item
from app.events e
join api.acl_event a on a.id = e.id and a.relation = 'manage';

create or replace view api.events_detail as
select e.id, e.status, e.organizer_id, e.version, e.online_link,
    e.version || '.' || left(md5(b.body::text), 12) as etag, b.body
from app.events e
cross join lateral (
    select case when exists (
            select from app.orders o
            where o.event_id = e.id
                and o.status in ('reserved', 'awaiting_payment',
                    'payment_failed')
                and o.reserved_until <= app.now())
        then app.lapsed_seats(e.id) end as lapsed
    offset 0) h
cross join lateral (
    select min(t.price_cents) as min_price, coalesce(json_agg(
        app.type_json(t, e, greatest(0, least(
                t.quota - t.sold + case when h.lapsed is null then 0
                    else coalesce((h.lapsed->>t.id::text)::bigint, 0) end,
                e.capacity - e.sold + case when h.lapsed is null then 0
                    else coalesce((h.lapsed->>'all')::bigint, 0) end)),
            (t.sales_start is null or t.sales_start <= app.now())
                and (t.sales_end is null or t.sales_end > app.now())
                and e.status = 'published' and e.ends_at > app.now())
        order by t.sort, t.id), '[]') as items
    from app.ticket_types t
    where t.event_id = e.id) y
cross join lateral (
    select json_build_object(
        'id', e.id,
        'title', e.title,
        'description', e.description,
        'startsAt', app.ts(e.starts_at),
        'endsAt', app.ts(e.ends_at),
        'timezone', e.timezone,
        'location', e.location,
        'bannerImageUrl', e.banner_image_url,
        'capacity', e.capacity,
        'sold', e.sold,
        'currency', e.currency,
        'status', e.status,
        'organizerId', e.organizer_id,
        'reentry', e.reentry,
        'minPriceCents', y.min_price,
        'ticketTypes', y.items,
        'version', e.version,
        'publishedAt', app.ts(e.published_at),
        'cancelledAt', app.ts(e.cancelled_at),
        'createdAt', app.ts(e.created_at)) as body
    offset 0) b;

-- Drafts are for their staff; asked only of drafts.
create or replace function api.events_visible(event uuid, actor uuid,
    roles text[])
returns boolean
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return coalesce('admin' = any (roles), false) or exists (
        select from api.acl_event a
        where a.id = event and a.user_id = actor);
end $$;

-- May this caller read the event's lists?
create or replace function api.events_managed(event uuid, actor uuid,
    roles text[])
returns boolean
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return exists (select from app.events e where e.id = event)
        and (coalesce('admin' = any (roles), false) or exists (
            select from api.acl_event a
            where a.id = event and a.user_id = actor
                and a.relation = 'manage'));
end $$;

create or replace function api.events_shown(event uuid, actor uuid,
    roles text[])
returns boolean
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return exists (
        select from app.events e
        where e.id = event and (e.status <> 'draft'
            or api.events_visible(event, actor, roles)));
end $$;

-- Where to meet online is for those who come and those who work there; asked
-- only of events that have a link and of callers who are signed in.  The tag
-- tells the two texts apart.
create or replace function api.events_linked(event uuid, actor uuid,
    roles text[])
returns boolean
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return api.events_visible(event, actor, roles) or exists (
        select from app.tickets t
        where t.holder_id = actor and t.event_id = event
            and t.state in ('valid', 'admitted', 'exited'));
end $$;

create or replace function api.events_with_link(body json, link text)
returns json
language sql immutable
as $$
    select (left(body::text, -1) || ', "onlineLink" : ' || to_json(link)
        || '}')::json
$$;

-- One event to each who asks: an event that many ask for at once is read once.
-- A plain function of SQL, which the planner puts into the edge's statement.
-- Roles stand as array literals, as requests differ in how many they have.
create or replace function api.events_get(ords int[], ids uuid[],
    actors uuid[], roles text[])
returns setof api.answers
language sql stable
as $$
    with d as materialized (
        select e.id, e.status, e.online_link, e.etag, e.body
        from api.events_detail e
        where e.id = any (ids))
    select x.ord, case when x.sees then 200 else 0 end,
        case
            when not x.sees then '{"code":"NOT_FOUND"}'::json
            when x.linked then api.events_with_link(x.body, x.online_link)
            else x.body
        end,
        null::json,
        case when x.sees then case when x.linked then x.etag || '.l'
            else x.etag end end,
        null::json, null::bigint
    from (
        select u.ord, d.body, d.etag, d.online_link,
            d.id is not null and (d.status <> 'draft'
                or api.events_visible(u.id, u.actor, u.roles::text[]))
                as sees,
            d.online_link is not null and u.actor is not null
                and api.events_linked(u.id, u.actor, u.roles::text[])
                as linked
        from unnest(ords, ids, actors, roles) u (ord, id, actor, roles)
        left join d on d.id = u.id
        offset 0) x
$$;

-- To those who manage it.
create or replace function app.event_answer(event uuid, status int)
returns api.answer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select case when d.online_link is null then app.ok($2, d.body, d.etag)
            else app.ok($2, api.events_with_link(d.body, d.online_link),
                d.etag || '.l') end
        from api.events_detail d
        where d.id = event);
end $$;

-- NULL: well-formed.  What needs another table or two members at once.
create or replace function app.event_faults(body jsonb, old app.events)
returns api.answer
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    v_from timestamptz := coalesce((body->>'starts_at')::timestamptz,
        old.starts_at);
    v_to timestamptz := coalesce((body->>'ends_at')::timestamptz,
        old.ends_at);
begin
    if v_to <= v_from then
        return app.fault('/endsAt', 'too_small', 'must be after startsAt');
    end if;

    if body ? 'timezone' and not app.is_timezone(body->>'timezone') then
        return app.fault('/timezone', 'unknown', 'is not a known time zone');
    end if;

    if body->>'banner_image_url' !~ '^https://' then
        return app.fault('/bannerImageUrl', 'format',
            'must be an https URL');
    end if;

    return null;
end $$;

create or replace function api.events_create(ctx api.ctx, body jsonb)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_id uuid := app.uuid7();
    v_now timestamptz := app.now();
    v_fault api.answer;
begin
    v_fault := app.event_faults(body, null);
    if v_fault.status is not null then
        return v_fault;
    end if;

    insert into app.events (id, organizer_id, title, description, starts_at,
        ends_at, timezone, location, online_link, banner_image_url, capacity,
        currency, reentry, created_at, updated_at)
    values (v_id, (ctx).actor, body->>'title', body->>'description',
        (body->>'starts_at')::timestamptz, (body->>'ends_at')::timestamptz,
        body->>'timezone', body->>'location', body->>'online_link',
        body->>'banner_image_url', (body->>'capacity')::int,
        coalesce(body->>'currency', 'EUR'),
        coalesce((body->>'reentry')::boolean, false), v_now, v_now);

    perform app.audit(ctx, 'event.create', 'event', v_id::text, body);

    return app.event_answer(v_id, 201);
end $$;

-- PUT and PATCH alike: what is absent stays.
create or replace function api.events_update(ctx api.ctx, id uuid,
    if_match int, body jsonb)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_old app.events;
    v_new app.events;
    v_fault api.answer;
begin
    if not app.event_can(ctx, events_update.id, 'manage') then
        return app.fail('NOT_FOUND');
    end if;

    if body ? 'capacity' then
        perform app.holds_release(events_update.id);
    end if;

    select e.* into v_old
    from app.events e
    where e.id = events_update.id
    for no key update;

    if if_match is not null and if_match <> v_old.version then
        return app.fail('PRECONDITION_FAILED');
    end if;

    if v_old.status = 'cancelled' then
        return app.fail('INVALID_STATE', json_build_object(
            'detail', 'the event was cancelled'));
    end if;

    v_fault := app.event_faults(body, v_old);
    if v_fault.status is not null then
        return v_fault;
    end if;

    if body->>'currency' <> v_old.currency and exists (
        select from app.orders o where o.event_id = v_old.id)
    then
        return app.fail('INVALID_STATE', json_build_object(
            'detail', 'there are orders in the old currency'));
    end if;

    if (body->>'capacity')::int < v_old.sold then
        return app.fail('QUOTA_BELOW_SOLD',
            json_build_object('sold', v_old.sold));
    end if;

    perform app.pause('events_update');

    update app.events e
    set title = coalesce(body->>'title', e.title),
        description = case when body ? 'description'
            then body->>'description' else e.description end,
        starts_at = coalesce((body->>'starts_at')::timestamptz, e.starts_at),
        ends_at = coalesce((body->>'ends_at')::timestamptz, e.ends_at),
        timezone = coalesce(body->>'timezone', e.timezone),
        location = case when body ? 'location' then body->>'location'
            else e.location end,
        online_link = case when body ? 'online_link'
            then body->>'online_link' else e.online_link end,
        banner_image_url = case when body ? 'banner_image_url'
            then body->>'banner_image_url' else e.banner_image_url end,
        capacity = case when body ? 'capacity'
            then (body->>'capacity')::int else e.capacity end,
        currency = coalesce(body->>'currency', e.currency),
        reentry = coalesce((body->>'reentry')::boolean, e.reentry),
        version = e.version + 1,
        updated_at = app.now()
    where e.id = v_old.id
    returning e.* into v_new;

    perform app.audit(ctx, 'event.update', 'event', v_old.id::text,
        app.diff(body, to_jsonb(v_old), to_jsonb(v_new)));

    return app.event_answer(v_old.id, 200);
end $$;

create or replace function api.events_publish(ctx api.ctx, id uuid,
    if_match int)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_old app.events;
begin
    if not app.event_can(ctx, events_publish.id, 'manage') then
        return app.fail('NOT_FOUND');
    end if;

    select e.* into v_old
    from app.events e
    where e.id = events_publish.id
    for no key update;

    if if_match is not null and if_match <> v_old.version then
        return app.fail('PRECONDITION_FAILED');
    end if;

    if v_old.status <> 'draft' then
        return app.fail('INVALID_STATE', json_build_object(
            'detail', 'the event is ' || v_old.status));
    end if;

    if v_old.ends_at <= app.now() then
        return app.fail('INVALID_STATE', json_build_object(
            'detail', 'the event is over'));
    end if;

    if not exists (select from app.ticket_types t
        where t.event_id = v_old.id)
    then
        return app.fail('INVALID_STATE', json_build_object(
            'detail', 'the event has no ticket type'));
    end if;

    update app.events e
    set status = 'published', published_at = app.now(),
        updated_at = app.now(), version = e.version + 1
    where e.id = v_old.id;

    perform app.audit(ctx, 'event.publish', 'event', v_old.id::text,
        jsonb_build_object('from', v_old.status, 'to', 'published'));

    return app.event_answer(v_old.id, 200);
end $$;

-- From here on nothing is sold and nobody is let in; money goes back by task.
create or replace function api.events_cancel(ctx api.ctx, id uuid,
    if_match int, reason text)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_old app.events;
    v_answer api.answer;
begin
    if not app.event_can(ctx, events_cancel.id, 'manage') then
        return app.fail('NOT_FOUND');
    end if;

    select e.* into v_old
    from app.events e
    where e.id = events_cancel.id
    for no key update;

    if if_match is not null and if_match <> v_old.version then
        return app.fail('PRECONDITION_FAILED');
    end if;

    if v_old.status = 'cancelled' then
        return app.fail('INVALID_STATE', json_build_object(
            'detail', 'the event is cancelled'));
    end if;

    update app.events e
    set status = 'cancelled', cancelled_at = app.now(),
        cancel_reason = events_cancel.reason, updated_at = app.now(),
        version = e.version + 1
    where e.id = v_old.id;

    perform queue.enqueue('event.cancel_refunds',
        jsonb_build_object('event_id', v_old.id),
        uniq => 'event.cancel_refunds:' || v_old.id);
    perform app.audit(ctx, 'event.cancel', 'event', v_old.id::text,
        jsonb_build_object('from', v_old.status, 'to', 'cancelled',
            'reason', events_cancel.reason));

    v_answer := app.event_answer(v_old.id, 200);
    v_answer.emit := app.wake();
    return v_answer;
end $$;

-- A draft with the same ticket types; nothing of what was sold, nobody who
-- helps, no promo code.  It is the caller's, or stays with whom it is of when
-- an admin makes it.
create or replace function api.events_duplicate(ctx api.ctx, id uuid)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_id uuid := app.uuid7();
    v_now timestamptz := app.now();
begin
    if not app.event_can(ctx, events_duplicate.id, 'manage') then
        return app.fail('NOT_FOUND');
    end if;

    insert into app.events (id, organizer_id, title, description, starts_at,
        ends_at, timezone, location, online_link, banner_image_url, capacity,
        currency, reentry, created_at, updated_at)
    select v_id, case when app.is_admin(ctx) then e.organizer_id
            else (ctx).actor end, e.title, e.description, e.starts_at,
        e.ends_at, e.timezone, e.location, e.online_link, e.banner_image_url,
        e.capacity, e.currency, e.reentry, v_now, v_now
    from app.events e
    where e.id = events_duplicate.id;

    insert into app.ticket_types (id, event_id, name, description,
        price_cents, quota, min_per_order, max_per_order, sales_start,
        sales_end, valid_from, valid_until, sort, created_at, updated_at)
    select app.uuid7(), v_id, t.name, t.description, t.price_cents, t.quota,
        t.min_per_order, t.max_per_order, t.sales_start, t.sales_end,
        t.valid_from, t.valid_until, t.sort, v_now, v_now
    from app.ticket_types t
    where t.event_id = events_duplicate.id
    order by t.sort, t.id;

    perform app.audit(ctx, 'event.duplicate', 'event', v_id::text,
        jsonb_build_object('from', events_duplicate.id));

    return app.event_answer(v_id, 201);
end $$;


-- ---- staff ----

create or replace view api.staff_list as
select s.user_id as id, s.event_id, coalesce(u.email, '') as email,
    s.created_at,
    json_build_object(
        'userId', u.id,
        'email', u.email,
        'name', p.profile->>'name',
        'relation', s.relation) as item
from app.event_staff s
join app.users u on u.id = s.user_id
left join api.users_profile p on p.id = u.id;

-- Also gives the role scanner, which the new token of the person will carry.
-- By e-mail, which the caller must know; by id only who already helps at an
-- event of the caller's, so that no id turns into an address.  The answer
-- tells nothing that the caller did not say.
create or replace function api.events_staff_add(ctx api.ctx, id uuid,
    user_id uuid, email text, relation text)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_user app.users;
    v_relation text := coalesce(events_staff_add.relation, 'scan');
    v_was text;
begin
    if not app.event_can(ctx, events_staff_add.id, 'manage') then
        return app.fail('NOT_FOUND');
    end if;

    if (events_staff_add.user_id is null) = (events_staff_add.email is null)
    then
        return app.fault('/userId', 'required', 'either userId or email');
    end if;

    select u.* into v_user
    from app.users u
    where (u.id = events_staff_add.user_id
                and (app.is_admin(ctx) or exists (
                    select from app.event_staff s
                    where s.user_id = u.id
                        and app.event_can(ctx, s.event_id, 'manage')))
            or u.email = app.email(events_staff_add.email))
        and u.status = 'active'
    for no key update;

    if not found then
        return app.fault(case when events_staff_add.email is null
            then '/userId' else '/email' end, 'unknown', 'has no account');
    end if;

    if v_relation = 'manage'
        and not v_user.roles && '{organizer,practitioner,admin}'
    then
        return app.fault('/relation', 'not_allowed',
            'manage is for organizers and practitioners');
    end if;

    select s.relation into v_was
    from app.event_staff s
    where s.event_id = events_staff_add.id and s.user_id = v_user.id;

    insert into app.event_staff as s (event_id, user_id, relation, created_at)
    values (events_staff_add.id, v_user.id, v_relation, app.now())
    on conflict on constraint event_staff_pkey do update
    set relation = excluded.relation;

    if not 'scanner' = any (v_user.roles) then
        update app.users u
        set roles = u.roles || '{scanner}', updated_at = app.now()
        where u.id = v_user.id;
    end if;

    perform app.audit(ctx, 'event.staff_add', 'event',
        events_staff_add.id::text, jsonb_build_object('user_id', v_user.id,
            'from', v_was, 'to', v_relation));

    return app.ok(201, json_build_object(
        'userId', v_user.id,
        'relation', v_relation));
end $$;

create or replace function api.events_staff_remove(ctx api.ctx, id uuid,
    user_id uuid)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_was text;
begin
    if not app.event_can(ctx, events_staff_remove.id, 'manage') then
        return app.fail('NOT_FOUND');
    end if;

    delete from app.event_staff s
    where s.event_id = events_staff_remove.id
        and s.user_id = events_staff_remove.user_id
    returning s.relation into v_was;

    if not found then
        return app.fail('NOT_FOUND');
    end if;

    perform app.audit(ctx, 'event.staff_remove', 'event',
        events_staff_remove.id::text,
        jsonb_build_object('user_id', events_staff_remove.user_id,
            'from', v_was, 'to', null));

    return app.ok(204, null);
end $$;


-- ---- registrations: who comes ----

-- A mere hold is nobody who comes, and its address nobody's business.
create or replace view app.registrations as
select t.id, t.event_id, t.order_id, t.holder_id, t.holder_name, u.email,
    t.ticket_type_id, y.name as type_name, t.state,
    case
        when t.state in ('admitted', 'exited') then 'attended'
        when t.state = 'valid' then 'registered'
        else 'cancelled'
    end as status,
    t.price_cents, o.currency, o.status as order_status, t.created_at,
    t.admitted_at, t.admitted_gate
from app.tickets t
join app.orders o on o.id = t.order_id
join app.ticket_types y on y.id = t.ticket_type_id
join app.users u on u.id = t.holder_id
where t.state <> 'reserved' and o.paid_at is not null;

create or replace view api.registrations_list as
select r.id, r.event_id, r.status, r.holder_name as name,
    coalesce(r.email, '') as email, -- a program has none
    r.created_at,
    json_build_object(
        'id', r.id,
        'orderId', r.order_id,
        'userId', r.holder_id,
        'name', r.holder_name,
        'email', r.email,
        'ticketTypeId', r.ticket_type_id,
        'ticketTypeName', r.type_name,
        'state', r.state,
        'status', r.status,
        'priceCents', r.price_cents,
        'currency', r.currency,
        'orderStatus', r.order_status,
        'registeredAt', app.ts(r.created_at),
        'admittedAt', app.ts(r.admitted_at),
        'gate', r.admitted_gate) as item
from app.registrations r;

-- A cell that no spreadsheet takes for a formula, nor cuts at a semicolon or a
-- tab into one.
create or replace function app.csv(cell text)
returns text
language sql immutable
as $$
    select case
        when cell is null then ''
        when cell ~ '^\s*[-=+@\t\r\uFF0D\uFF1D\uFF0B\uFF20]'
            then '"''' || replace(cell, '"', '""') || '"'
        when cell ~ '[",;\t\n\r]' then '"' || replace(cell, '"', '""') || '"'
        else cell
    end
$$;

-- A file that ends early without a word is worse than none.
create or replace function api.events_registrations_csv(ctx api.ctx, id uuid,
    state text, search text)
returns table (status int, body json, csv text)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_status text := $3;
    v_search text := api.like($4);
    v_rows app.registrations[];
begin
    if not app.event_can(ctx, $2, 'manage') then
        return query select 0, json_build_object('code', 'NOT_FOUND'),
            null::text;
        return;
    end if;

    select array_agg(r) into v_rows
    from (
        select r
        from app.registrations r
        where r.event_id = $2
            and (v_status is null or r.status = v_status)
            and (v_search is null or r.holder_name ilike v_search
                or r.email ilike v_search)
        order by r.id
        limit 50001) x (r);

    if cardinality(v_rows) > 50000 then
        return query select 0, json_build_object('code', 'INVALID_STATE',
            'detail', 'more than 50,000 rows; narrow them by status or '
                || 'search, or read the list'), null::text;
        return;
    end if;

    return query
    select 200, null::json, E'ticketId,orderId,name,email,ticketType,status,'
            'priceCents,currency,registeredAt,admittedAt,gate\r\n'
        || coalesce(string_agg(
            r.id || ',' || r.order_id || ',' || app.csv(r.holder_name) || ','
            || app.csv(r.email) || ',' || app.csv(r.type_name) || ','
            || r.status || ',' || r.price_cents || ',' || r.currency || ','
            || app.ts(r.created_at) || ','
            || coalesce(app.ts(r.admitted_at), '') || ','
            || app.csv(r.admitted_gate) || E'\r\n', '' order by r.id), '')
    from unnest(v_rows) r;
end $$;
