-- promo_codes.*

-- One expression, which the planner puts into the view that calls it.
create or replace function app.promo_json(p app.promo_codes)
returns json
language sql stable
return json_build_object(
    'id', p.id,
    'eventId', p.event_id,
    'code', p.code,
    'kind', p.kind,
    'value', p.value,
    'maxUses', p.max_uses,
    'used', p.used,
    'perUser', p.per_user,
    'validFrom', app.ts(p.valid_from),
    'validUntil', app.ts(p.valid_until),
    'version', p.version,
    'createdAt', app.ts(p.created_at));

grant execute on function app.promo_json(app.promo_codes) to stoa_edge;

create or replace view api.promo_codes_list as
select p.id, p.event_id, p.code, p.created_at, app.promo_json(p) as item
from app.promo_codes p;

create or replace function api.promo_codes_create(ctx api.ctx, id uuid,
    body jsonb)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_promo app.promo_codes;
    v_ended api.answer;
begin
    if not app.event_can(ctx, promo_codes_create.id, 'manage') then
        return app.fail('NOT_FOUND');
    end if;

    v_ended := app.event_ended(promo_codes_create.id);
    if v_ended.status is not null then
        return v_ended;
    end if;

    if body->>'kind' = 'percent' and (body->>'value')::bigint > 100 then
        return app.fault('/value', 'too_large', 'at most 100 percent');
    end if;

    if (body->>'valid_until')::timestamptz
        <= (body->>'valid_from')::timestamptz
    then
        return app.fault('/validUntil', 'too_small',
            'must be after validFrom');
    end if;

    insert into app.promo_codes (id, event_id, code, kind, value, max_uses,
        per_user, valid_from, valid_until, created_at)
    values (app.uuid7(), promo_codes_create.id, upper(btrim(body->>'code')),
        body->>'kind', (body->>'value')::bigint, (body->>'max_uses')::int,
        coalesce((body->>'per_user')::int, 1),
        (body->>'valid_from')::timestamptz,
        (body->>'valid_until')::timestamptz, app.now())
    on conflict on constraint promo_codes_code_key do nothing
    returning * into v_promo;

    if not found then
        return app.fail('CONFLICT', json_build_object(
            'detail', 'this event has a code of that name'));
    end if;

    perform app.audit(ctx, 'promo_code.create', 'promo_code',
        v_promo.id::text, body);

    return app.ok(201, app.promo_json(v_promo), v_promo.version::text);
end $$;

-- What orders were counted with stays: the kind, the value and the name.
create or replace function api.promo_codes_update(ctx api.ctx, id uuid,
    if_match int, body jsonb)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_old app.promo_codes;
    v_new app.promo_codes;
    v_ended api.answer;
begin
    select p.* into v_old
    from app.promo_codes p
    where p.id = promo_codes_update.id
    for no key update;

    if not found or not app.event_can(ctx, v_old.event_id, 'manage') then
        return app.fail('NOT_FOUND');
    end if;

    if if_match is not null and if_match <> v_old.version then
        return app.fail('PRECONDITION_FAILED');
    end if;

    v_ended := app.event_ended(v_old.event_id);
    if v_ended.status is not null then
        return v_ended;
    end if;

    if (body->>'max_uses')::int < v_old.used then
        return app.fail('INVALID_STATE', json_build_object(
            'detail', 'more orders used it already', 'used', v_old.used));
    end if;

    if (case when body ? 'valid_until'
            then (body->>'valid_until')::timestamptz else v_old.valid_until end
        <= case when body ? 'valid_from'
            then (body->>'valid_from')::timestamptz else v_old.valid_from end)
    then
        return app.fault('/validUntil', 'too_small',
            'must be after validFrom');
    end if;

    update app.promo_codes p
    set max_uses = coalesce((body->>'max_uses')::int, p.max_uses),
        per_user = coalesce((body->>'per_user')::int, p.per_user),
        valid_from = case when body ? 'valid_from'
            then (body->>'valid_from')::timestamptz else p.valid_from end,
        valid_until = case when body ? 'valid_until'
            then (body->>'valid_until')::timestamptz else p.valid_until end,
        version = p.version + 1
    where p.id = v_old.id
    returning p.* into v_new;

    perform app.audit(ctx, 'promo_code.update', 'promo_code', v_old.id::text,
        app.diff(body, to_jsonb(v_old), to_jsonb(v_new)));

    return app.ok(200, app.promo_json(v_new), v_new.version::text);
end $$;

-- Only while no order ever used it; afterwards its time is ended instead.
create or replace function api.promo_codes_delete(ctx api.ctx, id uuid,
    if_match int)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_old app.promo_codes;
begin
    select p.* into v_old
    from app.promo_codes p
    where p.id = promo_codes_delete.id
    for update;

    if not found or not app.event_can(ctx, v_old.event_id, 'manage') then
        return app.fail('NOT_FOUND');
    end if;

    if if_match is not null and if_match <> v_old.version then
        return app.fail('PRECONDITION_FAILED');
    end if;

    if exists (select from app.orders o where o.promo_id = v_old.id) then
        return app.fail('INVALID_STATE', json_build_object(
            'detail', 'there are orders; end it instead'));
    end if;

    delete from app.promo_codes p where p.id = v_old.id;
    perform app.audit(ctx, 'promo_code.delete', 'promo_code',
        v_old.id::text, jsonb_build_object('code', v_old.code));

    return app.ok(204, null);
end $$;
