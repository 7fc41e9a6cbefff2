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
-- Suspended accounts are not shown, deleted ones are nobody's.  Nothing else of
-- an account is in here, whoever asks.
drop view if exists api.users_profile;

create view api.users_profile as
select u.id, app.user_tag(u) as etag,
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
where u.status in ('active', 'limited');

-- The whole account, for admins; the log says who looked, and at whom.
create or replace function api.users_account(ctx api.ctx, id uuid)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_user app.users;
begin
    select u.* into v_user
    from app.users u
    where u.id = users_account.id and u.status <> 'deleted';

    if not found then
        return app.fail('NOT_FOUND');
    end if;

    perform app.audit(ctx, 'user.viewed', 'user', v_user.id::text);

    return app.ok(200, app.user_json(v_user), app.user_tag(v_user));
end $$;

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

-- ---- what admins do with accounts ----

create or replace view api.users_list as
select u.id, u.kind, u.status, u.roles, u.created_at as made_at,
    coalesce(u.email, '') as address,
    coalesce(u.email, '') || ' ' || u.first_name || ' ' || u.last_name
        as words,
    app.user_json(u) as item
from app.users u;

-- Whoever may take an admin away holds this to his commit, so that two cannot
-- each leave the other as the last one.
create or replace function app.admins_lock()
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select pg_advisory_xact_lock(hashtextextended('app.admins', 0)) $$;

-- Nobody else could give anybody a role: what a program may, by a key, does
-- not do that.
create or replace function app.last_admin(who uuid)
returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return not exists (
        select from app.users u
        where 'admin' = any (u.roles) and u.id <> who and u.kind = 'person'
            and u.status in ('active', 'limited'));
end $$;

-- What was asked for and what everybody is, by strength.
create or replace function app.roles_of(asked jsonb)
returns text[]
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select array_agg(r.role order by r.n)
    from unnest(array['admin', 'moderator', 'support', 'organizer',
        'practitioner', 'worker', 'driver', 'scanner', 'member'])
        with ordinality r (role, n)
    where r.role = 'member' or asked ? r.role
$$;

create or replace function app.roles_refused(kind text, roles text[])
returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select kind = 'service' and 'admin' = any (roles)
        and app.setting('service_admin', 'off')
            not in ('on', 'true', '1', 'yes')
$$;

-- A person is mailed a link to choose a password, which proves the address; a
-- program gets keys.
create or replace function api.users_create(ctx api.ctx, body jsonb)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_user app.users;
    v_kind text := coalesce(body->>'kind', 'person');
    v_roles text[] := app.roles_of(coalesce(body->'roles', '[]'));
begin
    if (v_kind = 'person') <> (body ? 'email') then
        return app.fault('/email', case v_kind when 'person' then 'required'
                else 'not_allowed' end, case v_kind when 'person'
                then 'is required' else 'is for people only' end);
    end if;

    if app.roles_refused(v_kind, v_roles) then
        return app.fault('/roles', 'not_allowed',
            'a service account is no admin here');
    end if;

    insert into app.users (id, kind, email, first_name, last_name, roles,
        preferred_language, created_at, updated_at)
    values (app.uuid7(), v_kind, app.email(body->>'email'),
        body->>'first_name', coalesce(body->>'last_name', ''), v_roles,
        coalesce(body->>'preferred_language', 'en'), app.now(), app.now())
    on conflict (email) where status <> 'deleted' do nothing
    returning * into v_user;

    if not found then
        return app.fail('EMAIL_TAKEN');
    end if;

    perform app.audit(ctx, 'user.create', 'user', v_user.id::text,
        jsonb_build_object('kind', v_kind, 'roles', v_roles,
            'granted_by', (ctx).actor));

    if v_kind = 'person' then
        perform app.mail_once('invite', v_user.id);
    end if;

    return app.ok(201, app.user_json(v_user), app.user_tag(v_user),
        emit => app.wake());
end $$;

-- Tokens with the roles so far die; the sessions live on, and their next
-- tokens have the new ones.
create or replace function api.users_roles(ctx api.ctx, id uuid,
    if_match int, body jsonb)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_user app.users;
    v_was text[];
    v_roles text[] := app.roles_of(body->'roles');
    v_emit json;
begin
    perform app.admins_lock();

    select u.* into v_user
    from app.users u
    where u.id = users_roles.id and u.status <> 'deleted'
    for update;

    if not found then
        return app.fail('NOT_FOUND');
    end if;

    if if_match is not null and if_match <> v_user.version then
        return app.fail('PRECONDITION_FAILED');
    end if;

    if app.roles_refused(v_user.kind, v_roles) then
        return app.fault('/roles', 'not_allowed',
            'a service account is no admin here');
    end if;

    v_was := v_user.roles;

    if 'admin' = any (v_was) and 'admin' <> all (v_roles)
        and app.last_admin(v_user.id)
    then
        return app.fail('LAST_ADMIN');
    end if;

    perform app.pause('users_roles');

    if not v_was @> v_roles or not v_roles @> v_was then
        update app.users u
        set roles = v_roles, version = u.version + 1
        where u.id = v_user.id;

        v_emit := app.epoch_next(v_user.id);

        select u.* into v_user
        from app.users u
        where u.id = users_roles.id;
    end if;

    perform app.audit(ctx, 'user.roles', 'user', v_user.id::text,
        jsonb_build_object(
            'added', to_jsonb(array(select r from unnest(v_roles) r
                where r <> all (v_was))),
            'removed', to_jsonb(array(select r from unnest(v_was) r
                where r <> all (v_roles))),
            'granted_by', (ctx).actor));

    return app.ok(200, app.user_json(v_user), app.user_tag(v_user),
        emit => v_emit);
end $$;

-- Who is suspended is out at once, on every device, and his keys with him;
-- restored, he signs in anew, and keys that have not ended work again.
create or replace function api.users_status(ctx api.ctx, id uuid,
    if_match int, body jsonb)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_user app.users;
    v_was text;
    v_status text := body->>'status';
    v_emit json;
begin
    perform app.admins_lock();

    select u.* into v_user
    from app.users u
    where u.id = users_status.id and u.status <> 'deleted'
    for update;

    if not found then
        return app.fail('NOT_FOUND');
    end if;

    if if_match is not null and if_match <> v_user.version then
        return app.fail('PRECONDITION_FAILED');
    end if;

    v_was := v_user.status;

    if v_status = 'suspended' and 'admin' = any (v_user.roles)
        and app.last_admin(v_user.id)
    then
        return app.fail('LAST_ADMIN');
    end if;

    perform app.pause('users_status');

    if v_was <> v_status then
        update app.users u
        set status = v_status, version = u.version + 1,
            updated_at = app.now()
        where u.id = v_user.id;

        if v_status = 'suspended' then
            v_emit := app.epoch_bump(v_user.id, 'suspended');
        end if;

        select u.* into v_user
        from app.users u
        where u.id = users_status.id;
    end if;

    perform app.audit(ctx, 'user.status', 'user', v_user.id::text,
        jsonb_strip_nulls(jsonb_build_object('from', v_was, 'to', v_status,
            'reason', body->>'reason')));

    return app.ok(200, app.user_json(v_user), app.user_tag(v_user),
        emit => v_emit);
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
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select u.id, u.roles, u.token_epoch, u.status, u.email
    from app.users u
    where (u.id = $1 or u.email = app.email($2)) and u.status <> 'deleted';
end $$;
