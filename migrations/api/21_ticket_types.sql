-- ticket_types.*: what is sold for an event.

-- Whose event was cancelled stays as it was; status null: goes on.
create or replace function app.event_ended(event uuid)
returns api.answer
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select app.fail('INVALID_STATE', json_build_object(
            'detail', 'the event was cancelled'))
        from app.events e
        where e.id = event and e.status = 'cancelled');
end $$;

create or replace function app.type_answer(type uuid, status int)
returns api.answer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select app.ok($2, t.item, t.version::text)
        from api.ticket_types_list t
        where t.id = type);
end $$;

create or replace function app.type_faults(body jsonb, old app.ticket_types)
returns api.answer
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    v_min int := coalesce((body->>'min_per_order')::int, old.min_per_order, 1);
    v_max int := coalesce((body->>'max_per_order')::int, old.max_per_order,
        greatest(v_min, 10));
    v_from timestamptz := case when body ? 'sales_start'
        then (body->>'sales_start')::timestamptz else old.sales_start end;
    v_to timestamptz := case when body ? 'sales_end'
        then (body->>'sales_end')::timestamptz else old.sales_end end;
begin
    if v_max < v_min then
        return app.fault('/maxPerOrder', 'too_small',
            'must not be below minPerOrder');
    end if;

    if v_to <= v_from then
        return app.fault('/salesEnd', 'too_small',
            'must be after salesStart');
    end if;

    v_from := case when body ? 'valid_from'
        then (body->>'valid_from')::timestamptz else old.valid_from end;
    v_to := case when body ? 'valid_until'
        then (body->>'valid_until')::timestamptz else old.valid_until end;

    if v_to <= v_from then
        return app.fault('/validUntil', 'too_small',
            'must be after validFrom');
    end if;

    return null;
end $$;

create or replace function api.ticket_types_create(ctx api.ctx, id uuid,
    body jsonb)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_id uuid := app.uuid7();
    v_status text;
    v_now timestamptz := app.now();
    v_fault api.answer;
begin
    if not app.event_can(ctx, ticket_types_create.id, 'manage') then
        return app.fail('NOT_FOUND');
    end if;

    select e.status into v_status
    from app.events e
    where e.id = ticket_types_create.id
    for key share;

    if v_status = 'cancelled' then
        return app.fail('INVALID_STATE', json_build_object(
            'detail', 'the event was cancelled'));
    end if;

    v_fault := app.type_faults(body, null);
    if v_fault.status is not null then
        return v_fault;
    end if;

    if (select count(*) >= 100
        from app.ticket_types t
        where t.event_id = ticket_types_create.id)
    then
        return app.fail('INVALID_STATE', json_build_object(
            'detail', 'an event has at most 100 ticket types'));
    end if;

    insert into app.ticket_types (id, event_id, name, description,
        price_cents, quota, min_per_order, max_per_order, sales_start,
        sales_end, valid_from, valid_until, sort, created_at, updated_at)
    values (v_id, ticket_types_create.id, body->>'name',
        body->>'description', (body->>'price_cents')::bigint,
        (body->>'quota')::int, coalesce((body->>'min_per_order')::int, 1),
        coalesce((body->>'max_per_order')::int,
            greatest(10, (body->>'min_per_order')::int)),
        (body->>'sales_start')::timestamptz,
        (body->>'sales_end')::timestamptz,
        (body->>'valid_from')::timestamptz,
        (body->>'valid_until')::timestamptz,
        coalesce((body->>'sort')::int, 0), v_now, v_now);

    perform app.audit(ctx, 'ticket_type.create', 'ticket_type', v_id::text,
        body || jsonb_build_object('event_id', ticket_types_create.id));

    return app.type_answer(v_id, 201);
end $$;

create or replace function api.ticket_types_update(ctx api.ctx, id uuid,
    if_match int, body jsonb)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_old app.ticket_types;
    v_new app.ticket_types;
    v_fault api.answer;
begin
    select t.* into v_old
    from app.ticket_types t
    where t.id = ticket_types_update.id;

    if not found or not app.event_can(ctx, v_old.event_id, 'manage') then
        return app.fail('NOT_FOUND');
    end if;

    if body ? 'quota' then
        perform app.holds_release(v_old.event_id);
    end if;

    select t.* into v_old
    from app.ticket_types t
    where t.id = ticket_types_update.id
    for no key update;

    if not found then
        return app.fail('NOT_FOUND');
    end if;

    if if_match is not null and if_match <> v_old.version then
        return app.fail('PRECONDITION_FAILED');
    end if;

    v_fault := app.event_ended(v_old.event_id);
    if v_fault.status is not null then
        return v_fault;
    end if;

    v_fault := app.type_faults(body, v_old);
    if v_fault.status is not null then
        return v_fault;
    end if;

    if (body->>'quota')::int < v_old.sold then
        return app.fail('QUOTA_BELOW_SOLD',
            json_build_object('sold', v_old.sold));
    end if;

    perform app.pause('ticket_types_update');

    update app.ticket_types t
    set name = coalesce(body->>'name', t.name),
        description = case when body ? 'description'
            then body->>'description' else t.description end,
        price_cents = coalesce((body->>'price_cents')::bigint, t.price_cents),
        quota = coalesce((body->>'quota')::int, t.quota),
        min_per_order = coalesce((body->>'min_per_order')::int,
            t.min_per_order),
        max_per_order = coalesce((body->>'max_per_order')::int,
            t.max_per_order),
        sales_start = case when body ? 'sales_start'
            then (body->>'sales_start')::timestamptz else t.sales_start end,
        sales_end = case when body ? 'sales_end'
            then (body->>'sales_end')::timestamptz else t.sales_end end,
        valid_from = case when body ? 'valid_from'
            then (body->>'valid_from')::timestamptz else t.valid_from end,
        valid_until = case when body ? 'valid_until'
            then (body->>'valid_until')::timestamptz else t.valid_until end,
        sort = coalesce((body->>'sort')::int, t.sort),
        version = t.version + 1,
        updated_at = app.now()
    where t.id = v_old.id
    returning t.* into v_new;

    perform app.audit(ctx, 'ticket_type.update', 'ticket_type',
        v_old.id::text, app.diff(body, to_jsonb(v_old), to_jsonb(v_new)));

    return app.type_answer(v_old.id, 200);
end $$;

-- Only while nobody ever ordered it; afterwards sales are ended instead.
create or replace function api.ticket_types_delete(ctx api.ctx, id uuid,
    if_match int)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_old app.ticket_types;
begin
    select t.* into v_old
    from app.ticket_types t
    where t.id = ticket_types_delete.id
    for update;

    if not found or not app.event_can(ctx, v_old.event_id, 'manage') then
        return app.fail('NOT_FOUND');
    end if;

    if if_match is not null and if_match <> v_old.version then
        return app.fail('PRECONDITION_FAILED');
    end if;

    if exists (select from app.order_items i
        where i.ticket_type_id = v_old.id)
    then
        return app.fail('INVALID_STATE', json_build_object(
            'detail', 'there are orders; end its sales instead'));
    end if;

    delete from app.ticket_types t where t.id = v_old.id;
    perform app.audit(ctx, 'ticket_type.delete', 'ticket_type',
        v_old.id::text, jsonb_build_object('name', v_old.name));

    return app.ok(204, null);
end $$;
