-- users.*

-- The account's version, and whose: of two people's accounts both may be in
-- their first, and one's tag must not say of the other's that it is known.
create or replace function app.user_tag(who app.users)
returns text
language sql immutable
as $$ select who.version || '.' || left(md5(who.id::text), 12) $$;

create or replace view api.users_me as
select u.id, app.user_tag(u) as etag, app.user_json(u) as body
from app.users u
where u.status in ('active', 'limited');

grant execute on function app.user_json(app.users), app.user_tag(app.users)
    to stoa_edge;

-- What others see of somebody.  Who acts in public, by a role, has the whole
-- name there; a visitor's last name is an initial, and no other role shows.
-- Suspended accounts are not shown, deleted ones are nobody's.
create or replace view api.users_profile as
select u.id, app.user_tag(u) as etag,
    u.status in ('active', 'limited') as shown,
    app.user_json(u) as account,
    json_build_object(
        'id', u.id,
        'firstName', u.first_name,
        'lastName', n.last_name,
        'name', btrim(u.first_name || ' ' || n.last_name),
        'role', n.role,
        'createdAt', app.ts(u.created_at)) as profile
from app.users u
cross join lateral (
    select case when 'organizer' = any (u.roles) then 'organizer'
        when 'practitioner' = any (u.roles) then 'practitioner'
        else 'member' end as role,
        case when u.roles && array['organizer', 'practitioner']
            then u.last_name
        when u.last_name = '' then ''
        else left(u.last_name, 1) || '.' end as last_name) n
where u.status <> 'deleted';

-- PATCH and PUT alike: what is absent stays.
create or replace function api.users_update(ctx api.ctx, if_match int,
    body jsonb)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_old app.users;
    v_new app.users;
begin
    select u.* into v_old
    from app.users u
    where u.id = (ctx).actor and u.status in ('active', 'limited')
    for update;

    if not found then
        return app.fail('NOT_FOUND');
    end if;

    if if_match is not null and if_match <> v_old.version then
        return app.fail('PRECONDITION_FAILED');
    end if;

    if body ? 'timezone' and not app.is_timezone(body->>'timezone') then
        return app.fault('/timezone', 'unknown', 'is not a known time zone');
    end if;

    update app.users u
    set first_name = coalesce(body->>'first_name', u.first_name),
        last_name = coalesce(body->>'last_name', u.last_name),
        phone = case when body ? 'phone' then body->>'phone' else u.phone end,
        preferred_language = coalesce(body->>'preferred_language',
            u.preferred_language),
        timezone = coalesce(body->>'timezone', u.timezone),
        version = u.version + 1,
        updated_at = app.now()
    where u.id = v_old.id
    returning u.* into v_new;

    perform app.audit(ctx, 'user.update', 'user', v_new.id::text,
        app.diff(body, to_jsonb(v_old), to_jsonb(v_new),
            '{first_name,last_name,phone}'));

    return app.ok(200, app.user_json(v_new), app.user_tag(v_new));
end $$;

-- ---- the operator's command line, run as the owner ----

-- stoa user add; 23505 when the address is taken
create or replace function app.user_add(email text, hash text, role text,
    first_name text, last_name text)
returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_id uuid := app.uuid7();
begin
    insert into app.users (id, email, email_verified_at, password_hash,
        first_name, last_name, roles, created_at, updated_at)
    values (v_id, app.email(user_add.email), app.now(), user_add.hash,
        coalesce(nullif(user_add.first_name, ''),
            split_part(user_add.email, '@', 1)),
        coalesce(nullif(user_add.last_name, ''), ''),
        case when coalesce(role, 'member') in ('member', 'attendee')
            then array['member'] else array[role, 'member'] end,
        app.now(), app.now());

    perform app.audit(app.ctx_task('user add'), 'user.add', 'user',
        v_id::text, jsonb_build_object('role', role));

    return v_id;
end $$;

-- stoa token
drop function if exists app.user_for_token(uuid, text);

create or replace function app.user_for_token(user_id uuid, email text)
returns table (id uuid, roles text[], epoch int, status text, email_now text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select u.id, u.roles, u.token_epoch, u.status, u.email
    from app.users u
    where (u.id = $1 or u.email = app.email($2)) and u.status <> 'deleted'
$$;
