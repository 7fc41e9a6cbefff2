-- promo_codes.*

create or replace function app.promo_json(p app.promo_codes)
returns json
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select json_build_object(
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
        'createdAt', app.ts(p.created_at))
$$;

create or replace function api.promo_codes_list(ctx api.ctx, id uuid)
returns api.answer
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if not app.event_can(ctx, promo_codes_list.id, 'manage') then
        return app.fail('NOT_FOUND');
    end if;

    return app.ok(200, coalesce((
        select json_agg(app.promo_json(p.*) order by p.created_at, p.id)
        from app.promo_codes p
        where p.event_id = promo_codes_list.id), '[]'));
end $$;

create or replace function api.promo_codes_create(ctx api.ctx, id uuid,
    body jsonb)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_promo app.promo_codes;
begin
    if not app.event_can(ctx, promo_codes_create.id, 'manage') then
        return app.fail('NOT_FOUND');
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

    return app.ok(201, app.promo_json(v_promo));
end $$;
