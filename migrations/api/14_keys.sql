-- auth.key*: keys by which programs speak for an account; and admins who
-- speak for one.  The secret of a key is made and printed by the edge, and
-- never comes here: only its hash does.

-- At most so many keys of an account are live, beside those that rotation
-- lets live a little longer.
create or replace function app.keys_max()
returns int
language sql immutable
as $$ select 20 $$;

-- And so many are made in 24 hours, by rotation or anew.
create or replace function app.keys_day_max()
returns int
language sql immutable
as $$ select 50 $$;

create or replace view api.keys_list as
select k.id, k.owner_id, k.created_at as made_at,
    json_build_object(
        'id', k.id,
        'ownerId', k.owner_id,
        'name', k.name,
        'prefix', k.prefix,
        'scopes', k.scopes,
        'state', case when k.revoked_at is not null then 'revoked'
            when k.expires_at <= app.now() then 'expired'
            else 'live' end,
        'createdAt', app.ts(k.created_at),
        'expiresAt', app.ts(k.expires_at),
        'lastUsedAt', app.ts(k.last_used_at),
        'lastUsedIp', k.last_used_ip,
        'revokedAt', app.ts(k.revoked_at),
        'rotatedFrom', k.rotated_from,
        'replacedBy', (
            select n.id
            from app.api_keys n
            where n.rotated_from = k.id and n.revoked_at is null
            order by n.created_at desc
            limit 1)) as item
from app.api_keys k
where least(k.expires_at, k.revoked_at) > app.now() - interval '30 days';

create or replace view api.acl_api_key as
select k.id, k.owner_id as user_id, 'owner' as relation
from app.api_keys k
where k.revoked_at is null and k.expires_at > app.now();

-- Takes the row of whose keys these are, so that they are made and ended one
-- by one.  Everybody has his own; those of a service account are its admins'.
create or replace function app.key_owner(ctx api.ctx, who uuid)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform from app.users u
    where u.id = who and u.status in ('active', 'limited')
        and (u.id = (ctx).actor
            or (u.kind = 'service' and app.is_admin(ctx)))
    for no key update;

    return found;
end $$;

-- Seconds; null: longer than is allowed.
create or replace function app.key_life(days int, otherwise int)
returns int
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select case when days is null then least(otherwise, m.s)
        when days::bigint * 86400 <= m.s then days * 86400 end
    from (select app.setting_s('api_key_max_ttl', 31536000)) m (s)
$$;

create or replace function app.key_insert(owner uuid, id uuid,
    secret_sha256 bytea, shown text, name text, scopes text[], life int,
    made_by uuid, rotated_from uuid default null, family uuid default null)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into app.api_keys (id, owner_id, family, rotated_from, name,
        prefix, secret_hash, scopes, life_s, created_by, created_at,
        expires_at)
    values (key_insert.id, owner, coalesce(key_insert.family, key_insert.id),
        key_insert.rotated_from, key_insert.name, shown, secret_sha256,
        array(select distinct s.s collate "C"
            from unnest(key_insert.scopes) s (s)
            order by 1),
        life, made_by, app.now(), app.now() + make_interval(secs => life));
end $$;

-- How many days before its end a key's owner is told.
create or replace function app.key_remind()
returns int
language sql immutable
as $$ select 14 $$;

-- Tells whose account a key speaks for: of a service account, who made it.  Ten
-- an hour are enough of a warning, and an address that nobody has proved yet
-- may be somebody else's.
create or replace function app.key_mail(what text, id uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_who uuid := (
        select case u.kind when 'service' then k.created_by else u.id end
        from app.api_keys k
        join app.users u on u.id = k.owner_id
        where k.id = key_mail.id);
begin
    -- each key ends once
    if v_who is not null and (what = 'ends'
        or app.mail_spend('key_notice ' || v_who, 10))
    then
        perform queue.enqueue('mail.send', jsonb_build_object(
            'template', 'key_notice', 'user_id', v_who,
            'what', what, 'key_id', key_mail.id));
    end if;
end $$;

create or replace function app.key_item(id uuid)
returns json
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select k.item from api.keys_list k where k.id = key_item.id $$;

-- Ends keys, and tells edges as of a session.
create or replace function app.keys_revoke(ids uuid[], why text)
returns json
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_ended uuid[];
begin
    with ended as (
        update app.api_keys k
        set revoked_at = app.now(), reason = why
        where k.id = any (ids) and k.revoked_at is null
        returning k.id)
    select array_agg(e.id) into v_ended from ended e;

    return app.revoke(v_ended, app.looked_up_ttl());
end $$;

-- What each leaves behind at edges and in lists is bounded by how many there
-- are in a day.  Asked under its owner's row.
create or replace function app.keys_spent(owner uuid)
returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select count(*)
        from app.api_keys k
        where k.owner_id = owner
            and k.created_at > app.now() - interval '24 hours')
        >= app.keys_day_max();
end $$;

create or replace function api.key_create(ctx api.ctx, id uuid,
    secret_sha256 bytea, shown text, body jsonb)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_owner uuid := coalesce((body->>'owner_id')::uuid, (ctx).actor);
    v_scopes text[];
    v_life int;
begin
    if not app.key_owner(ctx, v_owner) then
        if body ? 'owner_id' then
            return app.fault('/ownerId', 'unknown',
                'is no service account of yours');
        end if;
        return app.fail('NOT_FOUND');
    end if;

    v_life := app.key_life((body->>'expires_in_days')::int,
        app.setting_s('api_key_ttl', 7776000));

    if v_life is null then
        return app.fault('/expiresInDays', 'too_large',
            'is longer than keys may live here');
    end if;

    if (select count(*) from api.acl_api_key a where a.user_id = v_owner)
        >= app.keys_max()
    then
        return app.fail('TOO_MANY_KEYS');
    end if;

    if app.keys_spent(v_owner) then
        return app.fail('TOO_MANY_NEW_KEYS');
    end if;

    v_scopes := array(select jsonb_array_elements_text(body->'scopes'));

    perform app.key_insert(v_owner, key_create.id, secret_sha256, shown,
        body->>'name', v_scopes, v_life, (ctx).actor);
    perform app.audit(ctx, 'key.create', 'api_key', key_create.id::text,
        jsonb_build_object('owner_id', v_owner, 'scopes', v_scopes,
            'life_s', v_life));

    perform app.key_mail('made', key_create.id);

    return app.ok(201, app.key_item(key_create.id));
end $$;

-- The old one lives on for the overlap, 0: not at all.  Two of a family live
-- at most: whoever rotates a second time says first which of them to end.
create or replace function api.key_rotate(ctx api.ctx, id uuid,
    new_id uuid, secret_sha256 bytea, shown text, body jsonb)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_old app.api_keys;
    v_life int;
    v_over int := coalesce((body->>'overlap_hours')::int * 3600,
        app.setting_s('api_key_overlap', 86400));
    v_emit json;
begin
    select k.* into v_old
    from app.api_keys k
    where k.id = key_rotate.id;

    if not found or not app.key_owner(ctx, v_old.owner_id) then
        return app.fail('NOT_FOUND');
    end if;

    select k.* into v_old
    from app.api_keys k
    where k.id = key_rotate.id and k.revoked_at is null
        and k.expires_at > app.now();

    if not found then
        return app.fail('NOT_FOUND');
    end if;

    if exists (
        select from app.api_keys k
        where k.family = v_old.family and k.id <> v_old.id
            and k.revoked_at is null and k.expires_at > app.now()
            and k.owner_id = v_old.owner_id)
    then
        return app.fail('INVALID_STATE', json_build_object('detail',
            'two of these keys are live already: revoke one first'));
    end if;

    if app.keys_spent(v_old.owner_id) then
        return app.fail('TOO_MANY_NEW_KEYS');
    end if;

    v_life := app.key_life((body->>'expires_in_days')::int, v_old.life_s);

    if v_life is null then
        return app.fault('/expiresInDays', 'too_large',
            'is longer than keys may live here');
    end if;

    perform app.pause('key_rotate');

    if v_over = 0 then
        v_emit := app.keys_revoke(array[v_old.id], 'rotated');
    else
        update app.api_keys k
        set expires_at = least(k.expires_at,
            app.now() + make_interval(secs => v_over))
        where k.id = v_old.id;
    end if;

    perform app.key_insert(v_old.owner_id, new_id, secret_sha256, shown,
        v_old.name, v_old.scopes, v_life, (ctx).actor, v_old.id,
        v_old.family);
    perform app.audit(ctx, 'key.rotate', 'api_key', v_old.id::text,
        jsonb_build_object('to', new_id, 'overlap_s', v_over,
            'life_s', v_life));

    perform app.key_mail('rotated', new_id);

    return app.ok(201, app.key_item(new_id), emit => v_emit);
end $$;

-- One's own; an admin ends anybody's: one that leaked does not wait.
create or replace function api.key_revoke(ctx api.ctx, id uuid)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_owner uuid;
    v_emit json;
begin
    select a.user_id into v_owner
    from api.acl_api_key a
    where a.id = key_revoke.id
        and (a.user_id = (ctx).actor or app.is_admin(ctx));

    if found then
        v_emit := app.keys_revoke(array[key_revoke.id],
            case when v_owner = (ctx).actor then 'revoked by its owner'
                else 'revoked by an admin' end);
    end if;

    if v_emit is null then
        return app.fail('NOT_FOUND');
    end if;

    perform app.audit(ctx, 'key.revoke', 'api_key', key_revoke.id::text,
        jsonb_build_object('owner_id', v_owner));

    return app.ok(200, '{"revoked":true}', emit => v_emit);
end $$;


-- ---- what edges ask ----

-- No row: nobody made it, whatever its MAC says.  mfa: its account has a
-- second factor, or is a program, which can have none.
drop function if exists api.key_look(uuid, bytea);

create or replace function api.key_look(id uuid, secret_sha256 bytea)
returns table (state text, user_id uuid, roles text[], epoch int,
    scopes text, expires_ms bigint, used_ms bigint, mfa boolean)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select case when k.revoked_at is not null
            or u.status not in ('active', 'limited') then 'revoked'
        when k.expires_at <= app.now() then 'expired'
        else 'live' end,
        u.id, u.roles, u.token_epoch, array_to_string(k.scopes, ' '),
        app.ms(k.expires_at), app.ms(k.last_used_at),
        u.kind = 'service' or app.mfa_on(u.id)
    from app.api_keys k
    join app.users u on u.id = k.owner_id
    where k.id = $1 and k.secret_hash = $2;
end $$;

-- From each edge now and then; a minute is as fine as it gets.
create or replace function api.keys_used(ids uuid[], ats bigint[],
    ips text[])
returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_out bigint;
begin
    with noted as (
        update app.api_keys k
        set last_used_at = to_timestamp(x.at / 1000.0), last_used_ip = x.ip
        from (
            select k.id, x.at, x.ip
            from unnest(ids, ats, ips) x (id, at, ip)
            join app.api_keys k on k.id = x.id
            where k.last_used_at is null
                or k.last_used_at
                    < to_timestamp(x.at / 1000.0) - interval '59 s'
            order by k.id
            for update of k) x
        where k.id = x.id
        returning 1)
    select count(*) into v_out from noted;

    return v_out;
end $$;


-- ---- an admin in an account's name (RFC 8693 act) ----

-- What the edge signs.  Admins are nobody else's to be: a token with their
-- roles would outlive whatever its maker was allowed.
create or replace function api.impersonate(ctx api.ctx, id uuid, reason text)
returns table (status int, body json, user_id uuid, roles text[], epoch int,
    act_epoch int)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_admin app.users;
    v_user app.users;
    v_code text;
begin
    select u.* into v_admin
    from app.users u
    where u.id = (ctx).actor and 'admin' = any (u.roles)
        and u.status in ('active', 'limited');

    if not found or exists (
        select from app.login_sessions s
        where s.id = (ctx).session and s.revoked_at is not null)
    then
        v_code := 'TOKEN_REVOKED';
    else
        select u.* into v_user
        from app.users u
        where u.id = impersonate.id and u.status <> 'deleted';

        v_code := case
            when not found then 'NOT_FOUND'
            when 'admin' = any (v_user.roles) or v_user.kind <> 'person'
                then 'IMPERSONATION_FORBIDDEN'
            when v_user.status = 'suspended' then 'INVALID_STATE' end;
    end if;

    if v_code is not null then
        return query select 0, json_build_object('code', v_code), null::uuid,
            null::text[], null::int, null::int;
        return;
    end if;

    perform app.audit(ctx, 'user.impersonate', 'user', v_user.id::text,
        jsonb_build_object('reason', impersonate.reason));

    return query select 200, app.user_json(v_user), v_user.id, v_user.roles,
        v_user.token_epoch, v_admin.token_epoch;
end $$;


-- ---- the operator's command line, run as the owner ----

-- stoa key add.  null: there is no such account.
create or replace function app.key_add(who text, id uuid,
    secret_sha256 bytea, shown text, name text, scopes text[], days int)
returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_owner uuid;
    v_life int;
begin
    select u.id into v_owner
    from app.users u
    where (u.id::text = lower(who) or u.email = app.email(who))
        and u.status in ('active', 'limited')
    for no key update;

    if not found then
        return null;
    end if;

    v_life := app.key_life(days, app.setting_s('api_key_ttl', 7776000));

    if v_life is null then
        raise exception 'a key may not live that long here'
            using errcode = 'invalid_parameter_value';
    end if;

    perform app.key_insert(v_owner, key_add.id, secret_sha256, shown,
        key_add.name, key_add.scopes, v_life, null);
    perform app.audit(app.ctx_task('key add'), 'key.create', 'api_key',
        key_add.id::text, jsonb_build_object('owner_id', v_owner,
            'scopes', key_add.scopes, 'life_s', v_life));
    perform app.key_mail('made', key_add.id);

    return v_owner;
end $$;

-- stoa key revoke; false: there is no such live key.
create or replace function app.key_end(id uuid)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if not exists (select from api.acl_api_key a where a.id = key_end.id)
        or app.keys_revoke(array[key_end.id], 'revoked by the operator')
            is null
    then
        return false;
    end if;

    perform app.audit(app.ctx_task('key revoke'), 'key.revoke', 'api_key',
        key_end.id::text);

    return true;
end $$;
