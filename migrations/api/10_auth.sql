-- auth.*: the SQL halves of the sign-in flows.  Password hashes are made and
-- compared by the edge's threads; tokens are counters, so nothing here ever
-- stores a token that works.

-- What settings allow an access token to live at most.
create or replace function app.access_ttl_max()
returns interval
language sql immutable
as $$ select interval '24 hours' $$;

-- How long an access token can outlive its session, by what edges sign or did
-- within a day, and clocks that differ: a revocation is kept that long.  Edges
-- have room for so many, and longer ones would fill it.
create or replace function app.access_ttl()
returns interval
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return coalesce((
        select make_interval(secs => max(t.ttl_s))
        from app.access_ttls t
        where t.said_at > app.now() - app.access_ttl_max()
            - interval '2 hours'), app.access_ttl_max())
        + interval '5 minutes';
end $$;

-- What an edge looks up here, and remembers for ten seconds, is told of for
-- so long: afterwards it has looked again, whatever its clock says.
create or replace function app.looked_up_ttl()
returns interval
language sql immutable
as $$ select interval '5 minutes' $$;

-- Tells edges of what has ended; answers it as emit.
create or replace function app.revoke(ids uuid[], life interval)
returns json
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_out json;
begin
    with told as (
        insert into app.revocations (entry, at, expires_at)
        select 'sid ' || x.id || ' ' || app.ms(app.now() + life), app.now(),
            app.now() + life
        from unnest(ids) x (id)
        order by x.id
        returning entry)
    select json_agg(json_build_object('ctl', t.entry)) into v_out from told t;

    return v_out;
end $$;

-- A parsed body (return ...): views run it as the edge, which may not look
-- names of schema app up.  No subquery: one would be planned in each call.
create or replace function app.user_json(u app.users)
returns json
language sql stable
return json_build_object(
        'id', u.id,
        'kind', u.kind,
        'email', u.email,
        'firstName', u.first_name,
        'lastName', u.last_name,
        'name', btrim(u.first_name || ' ' || u.last_name),
        'phone', u.phone,
        'role', case
            when 'admin' = any (u.roles) then 'admin'
            when 'moderator' = any (u.roles) then 'moderator'
            when 'support' = any (u.roles) then 'support'
            when 'organizer' = any (u.roles) then 'organizer'
            when 'practitioner' = any (u.roles) then 'practitioner'
            when 'worker' = any (u.roles) then 'worker'
            when 'driver' = any (u.roles) then 'driver'
            when 'scanner' = any (u.roles) then 'scanner'
            when 'member' = any (u.roles) then 'member'
        end,
        'roles', u.roles,
        'status', u.status,
        'preferredLanguage', u.preferred_language,
        'timezone', u.timezone,
        'emailVerified', u.email_verified_at is not null,
        'version', u.version,
        'createdAt', app.ts(u.created_at),
        'lastLoginAt', app.ts(u.last_login_at));

create or replace function app.grant_fail(code text, emit json default null)
returns api.grant
language sql immutable
as $$
    select row(0, json_build_object('code', code), null, null, null, null,
        null, null, null, emit, null, null, null, null)::api.grant
$$;

-- Ends sessions, writes what edges must refuse, answers it as emit.  Several
-- sessions are locked in the order of their ids, here as in refreshes.
create or replace function app.sessions_revoke(sids uuid[], why text)
returns json
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_ended uuid[];
begin
    with held as materialized (
        select s.id
        from app.login_sessions s
        where s.id = any (sids) and s.revoked_at is null
        order by s.id
        for update),
    ended as (
        update app.login_sessions s
        set revoked_at = app.now(), reason = why
        from held h
        where s.id = h.id
        returning s.id)
    select array_agg(e.id) into v_ended from ended e;

    return app.revoke(v_ended, app.access_ttl());
end $$;

-- Every access token of a user that carries an older epoch dies; sessions go
-- on with new ones.
create or replace function app.epoch_next(who uuid)
returns json
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_out json;
begin
    with raised as (
        update app.users u
        set token_epoch = u.token_epoch + 1, epoch_at = app.now(),
            updated_at = app.now()
        where u.id = who
        returning u.token_epoch),
    told as (
        insert into app.revocations (entry, at, expires_at)
        select 'user ' || who || ' ' || r.token_epoch, app.now(),
            app.now() + app.access_ttl_max()
        from raised r
        returning entry)
    select json_agg(json_build_object('ctl', t.entry)) into v_out from told t;

    return v_out;
end $$;

-- The same, and every session ends but the one that is kept.
drop function if exists app.epoch_bump(uuid, text);

create or replace function app.epoch_bump(who uuid, why text,
    keep uuid default null)
returns json
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_emit json := app.epoch_next(who);
begin
    with held as materialized (
        select s.id
        from app.login_sessions s
        where s.user_id = who and s.revoked_at is null
            and s.id is distinct from keep
        order by s.id
        for update)
    update app.login_sessions s
    set revoked_at = app.now(), reason = why
    from held h
    where s.id = h.id;

    return v_emit;
end $$;

-- A browser keeps the cookie of a remembered session as long as it lives, and
-- any other one until it is closed.
create or replace function app.cookie_age(remember boolean,
    until timestamptz)
returns int
language sql stable
as $$
    select case when remember
        then floor(extract(epoch from until - app.now()))::int end
$$;

-- What the edge makes a session's tokens of.
create or replace function app.grant_of(status int, body json, who app.users,
    s app.login_sessions, refresh text default null, emit json default null)
returns api.grant
language sql stable
as $$
    select row(status, body, (who).id, (who).roles, (who).token_epoch, (s).id,
        (s).counter, (s).expires_at, refresh, emit,
        app.cookie_age((s).remember, (s).expires_at),
        floor(extract(epoch from coalesce((s).auth_at, (s).created_at))),
        (s).amr, app.mfa_on((who).id))::api.grant
$$;

-- amr: names of RFC 8176, of how it was shown who it is.
drop function if exists app.session_open(api.ctx, app.users, boolean, text,
    int);

create or replace function app.session_open(ctx api.ctx, who app.users,
    remember boolean, user_agent text, status int,
    amr text[] default '{pwd}')
returns api.grant
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now timestamptz := app.now();
    v_session app.login_sessions;
    v_end timestamptz;
    v_absolute timestamptz;
begin
    v_absolute := v_now + make_interval(
        secs => app.setting_s('refresh_absolute_ttl', 7776000));
    v_end := least(v_absolute, v_now + make_interval(secs =>
        case when remember then app.setting_s('refresh_remember_ttl', 2592000)
            else app.setting_s('refresh_ttl', 604800) end));

    insert into app.login_sessions (id, user_id, counter, rotated_at, remember,
        user_agent, ip, created_at, expires_at, absolute_expires_at, amr)
    values (app.uuid7(), who.id, 1, v_now, remember, left(user_agent, 500),
        (ctx).ip, v_now, v_end, v_absolute, session_open.amr)
    returning * into v_session;

    return app.grant_of(status, json_build_object(
        'user', app.user_json(who)), who, v_session);
end $$;

create or replace function api.auth_register(ctx api.ctx, email text,
    hash text, first_name text, last_name text, user_agent text, lang text)
returns api.grant
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_user app.users;
    v_now timestamptz := app.now();
    v_grant api.grant;
begin
    insert into app.users (id, email, password_hash, first_name, last_name,
        preferred_language, last_login_at, created_at, updated_at)
    values (app.uuid7(), app.email(auth_register.email), hash,
        auth_register.first_name, auth_register.last_name,
        app.language(lang),
        v_now, v_now, v_now)
    on conflict (email) where status <> 'deleted' do nothing
    returning * into v_user;

    if not found then
        return app.grant_fail('EMAIL_TAKEN');
    end if;

    perform app.audit(app.ctx_as(ctx, v_user.id, (ctx).roles, (ctx).session,
            (ctx).device), 'user.register', 'user', v_user.id::text,
        jsonb_build_object('roles', v_user.roles));

    -- an account is made without its mail, too: it can be asked for again,
    -- and who registers others does not take from those who ask for links
    if app.mail_spend('register ' || app.ip_prefix((ctx).ip), 30)
        and app.mail_spend_all()
    then
        perform app.mail_once('verify_email', v_user.id);
    end if;

    -- nobody signs in with what is not proved: no session, so no tokens
    if app.setting('require_verified_email', 'off') = 'login' then
        return row(201, json_build_object('user', app.user_json(v_user)),
            null, null, null, null, null, null, null, app.wake(),
            null, null, null, null)::api.grant;
    end if;

    v_grant := app.session_open(ctx, v_user, false, user_agent, 201);
    v_grant.emit := app.wake();

    return v_grant;
end $$;

-- No row: nobody has this address; the edge then hashes a decoy.
drop function if exists api.auth_login_begin(text);

create or replace function api.auth_login_begin(email text)
returns table (user_id uuid, hash text, mfa_id uuid, mfa_secret text,
    mfa_step bigint, mfa_rest int)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select u.id, u.password_hash, m.mfa_id, m.mfa_secret, m.mfa_step,
        m.mfa_rest
    from app.users u
    left join lateral app.mfa_look(u.id, false) m
        on u.status in ('active', 'limited')
    where u.email = app.email($1) and u.status <> 'deleted';
end $$;

-- Whoever was recognized, by whatever way in (provider; null: a password),
-- comes through here, under a lock on his row: the one place that decides
-- whether that is enough.  A code is what the edge made of it (13_mfa.sql).
create or replace function app.sign_in(ctx api.ctx, who app.users,
    remember boolean, user_agent text, provider text default null,
    factor uuid default null, step bigint default null,
    sealed bytea default null, recovery bytea default null)
returns api.grant
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_proof text[];
begin
    if (who).status not in ('active', 'limited') then
        return app.grant_fail('ACCOUNT_SUSPENDED');
    end if;

    if (who).email_verified_at is null
        and app.setting('require_verified_email', 'off') = 'login'
    then
        if app.mail_may(ctx, (who).id, 'email_verify') then
            perform app.mail_once('verify_email', (who).id);
        end if;

        perform app.audit(app.ctx_as(ctx, (who).id, (who).roles),
            'auth.login_unverified', 'user', (who).id::text);

        return app.grant_fail('EMAIL_NOT_VERIFIED', app.wake());
    end if;

    -- asked under the account's row, which who turns it on holds
    if app.mfa_on((who).id) then
        if step is null and recovery is null then
            return app.mfa_challenge(ctx, who, coalesce(remember, false),
                provider);
        end if;

        v_proof := app.mfa_prove(ctx, (who).id, factor, step, sealed,
            recovery);

        if v_proof is null then
            return app.grant_wrong();
        end if;
    end if;

    return app.signed_in(ctx, who, coalesce(remember, false), user_agent,
        provider, v_proof);
end $$;

-- The end of every sign-in.  proof: what a code added, null: none was asked.
create or replace function app.signed_in(ctx api.ctx, who app.users,
    remember boolean, user_agent text, provider text, proof text[])
returns api.grant
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_user app.users;
    v_grant api.grant;
    v_amr text[] := case when signed_in.provider is null
        then '{pwd}'::text[] else '{}' end || proof;
begin
    update app.users u
    set last_login_at = app.now()
    where u.id = (who).id
    returning u.* into v_user;

    perform app.audit(app.ctx_as(ctx, v_user.id, v_user.roles, (ctx).session,
            (ctx).device), 'auth.login', 'user', v_user.id::text,
        nullif(jsonb_strip_nulls(jsonb_build_object(
            'amr', case when proof is not null then to_jsonb(v_amr) end,
            'provider', signed_in.provider)), '{}'));

    v_grant := app.session_open(ctx, v_user, remember, user_agent, 200,
        v_amr);

    if proof is not null then
        v_grant.emit := app.wake();
    end if;

    return v_grant;
end $$;

-- The password was right, for the hash that was read before it was tried: one
-- that was replaced since lets nobody in and is not overwritten by new_hash.
drop function if exists api.auth_login_finish(api.ctx, uuid, boolean, text,
    text);
drop function if exists api.auth_login_finish(api.ctx, uuid, boolean, text,
    text, text);

create or replace function api.auth_login_finish(ctx api.ctx, user_id uuid,
    remember boolean, new_hash text, user_agent text, tried_hash text,
    factor uuid default null, step bigint default null,
    sealed bytea default null, recovery bytea default null)
returns api.grant
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_user app.users;
begin
    select u.* into v_user
    from app.users u
    where u.id = auth_login_finish.user_id and u.status in (
        'active', 'limited') and u.password_hash = tried_hash
    for no key update;

    -- what else there is to say is told to whoever knows the password, and to
    -- nobody else
    if not found then
        return app.grant_fail('INVALID_CREDENTIALS');
    end if;

    if new_hash is not null then
        update app.users u
        set password_hash = new_hash
        where u.id = v_user.id;
    end if;

    return app.sign_in(ctx, v_user, remember, user_agent, null, factor, step,
        sealed, recovery);
end $$;

-- A wrong password, by the edge's verdict; user_id null: nobody has that
-- address.  As many as the throttle of failures lets through are written,
-- five of a pair of account and prefix before it waits; what was guessed is
-- not.
create or replace function api.auth_login_failed(ctx api.ctx, user_id uuid)
returns api.grant
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform app.audit(ctx, 'auth.login_failed', 'user',
        auth_login_failed.user_id::text);

    return app.grant_fail('INVALID_CREDENTIALS');
end $$;

-- The counter is the token.  Equal: step on.  One behind within 30 s of the
-- step: a racing tab, which gets the same successor.  Anything else: the
-- token was copied or is stale, and the session dies.
create or replace function api.auth_refresh(ctx api.ctx, sid uuid,
    counter bigint)
returns api.grant
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now timestamptz := app.now();
    v_session app.login_sessions;
    v_user app.users;
    v_how text;
    v_emit json;
begin
    select s.* into v_session
    from app.login_sessions s
    where s.id = sid
    for update;

    if not found or v_session.revoked_at is not null
        or v_session.expires_at <= v_now
    then
        return app.grant_fail('REFRESH_INVALID');
    end if;

    select u.* into v_user
    from app.users u
    where u.id = v_session.user_id and u.status in ('active', 'limited');

    if not found then
        return app.grant_fail('REFRESH_INVALID');
    end if;

    perform app.pause('auth_refresh');

    if auth_refresh.counter = v_session.counter then
        v_how := case when app.setting('refresh_rotate', 'on')
            in ('off', 'false', '0', 'no') then 'reissued' else 'rotated' end;

        update app.login_sessions s
        set counter = s.counter + (v_how = 'rotated')::int,
            rotated_at = case when v_how = 'rotated' then v_now
                else s.rotated_at end,
            expires_at = least(s.absolute_expires_at, v_now + make_interval(
                secs => case when s.remember
                    then app.setting_s('refresh_remember_ttl', 2592000)
                    else app.setting_s('refresh_ttl', 604800) end))
        where s.id = sid
        returning s.* into v_session;

    elsif auth_refresh.counter = v_session.counter - 1
        and v_now < v_session.rotated_at + interval '30 s'
    then
        v_how := 'concurrent';

    else
        v_emit := app.sessions_revoke(array[sid], 'refresh token reused');
        perform app.audit(app.ctx_as(ctx, v_user.id, v_user.roles, sid),
            'auth.refresh_reused', 'session', sid::text,
            jsonb_build_object('presented', auth_refresh.counter,
                'current', v_session.counter));
        return app.grant_fail('REFRESH_INVALID', v_emit);
    end if;

    perform app.audit(app.ctx_as(ctx, v_user.id, v_user.roles, sid),
        'auth.refresh', 'session', sid::text,
        jsonb_build_object('refresh', v_how));

    return app.grant_of(200, json_build_object(
        'user', app.user_json(v_user), 'refresh', v_how), v_user, v_session,
        v_how);
end $$;

create or replace function api.auth_logout(ctx api.ctx, everywhere boolean)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_emit json;
begin
    if everywhere then
        v_emit := app.epoch_bump((ctx).actor, 'logout everywhere');
    else
        v_emit := app.sessions_revoke(array[(ctx).session], 'logout');

        -- a token of another issuer has no session here that could end, nor
        -- does one of the command line: it dies with all that are out, and
        -- sessions go on with new ones
        if v_emit is null and not exists (
            select from app.login_sessions s
            where s.id = (ctx).session and s.user_id = (ctx).actor)
        then
            v_emit := app.epoch_next((ctx).actor);
        end if;
    end if;

    perform app.audit(ctx, 'auth.logout', 'session', (ctx).session::text,
        jsonb_build_object('everywhere', coalesce(everywhere, false)));

    return app.ok(200, '{"loggedOut":true}', emit => v_emit);
end $$;

-- What one customer of a provider has, as the edge's gate counts it: IPv4
-- whole, IPv6 by its /64.
create or replace function app.ip_prefix(ip text)
returns text
language sql immutable
as $$
    select case
        when ip ~ '^(::ffff:)?[0-9]{1,3}([.][0-9]{1,3}){3}$'
            then regexp_replace(ip, '^::ffff:', '')
        when ip ~ '^[0-9a-f:]*:[0-9a-f:]*$'
            then network(set_masklen(ip::inet, 64))::text
        else coalesce(ip, '')
    end
$$;

-- One more mail in this hour of the clock for whoever the key names.
create or replace function app.mail_spend(key text, most int)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_out boolean;
begin
    with spent as (
        insert into app.mail_budget as b (prefix, hour, n)
        values (key, floor(date_part('epoch', app.now()) / 3600)::bigint, 1)
        on conflict on constraint mail_budget_pkey do update set n = b.n + 1
        where b.n < most
        returning b.n)
    select exists (select from spent) into v_out;

    return v_out;
end $$;

-- What all together may have mailed in an hour of the clock.  Where there is
-- no mail to send, as much is done, but only one that goes out is counted:
-- addresses that nobody has do not spend what is everybody's.
drop function if exists app.mail_spend_all();

create or replace function app.mail_spend_all(mail boolean default true)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_most int := app.setting('mail_hour_max', '10000')::int;
begin
    return (v_most = 0 or app.mail_spend(
            case when mail then 'all' else 'none' end, v_most))
        and coalesce(mail, false);
end $$;

-- Known and unknown addresses run the same statements and get the same bytes.
-- Whoever asks, an account gets at most five of these mails in an hour, and
-- what one address prefix asks for in an hour of the clock is at most thirty,
-- counted whether or not there is such an account.
create or replace function api.auth_forgot(ctx api.ctx, email text)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_user uuid;
    v_send boolean := app.mail_spend(app.ip_prefix((ctx).ip), 30);
begin
    select u.id, v_send and (
        select count(*)
        from app.one_time_tokens t
        where t.user_id = u.id and t.purpose = 'password_reset'
            and t.created_at > app.now() - interval '1 hour') < 5
    into v_user, v_send
    from app.users u
    where u.email = app.email(auth_forgot.email)
        and u.status in ('active', 'limited');

    if app.mail_spend_all(v_send) then
        perform app.mail_once('password_reset', v_user);
    end if;

    perform app.audit(ctx, 'auth.forgot', 'user', v_user::text);

    return app.ok(200, '{}', emit => app.wake());
end $$;

drop function if exists api.auth_reset_begin(bytea);

create or replace function api.auth_reset_begin(token_sha256 bytea)
returns table (ok boolean, email text)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select u.id is not null, u.email::text
    from (select 1) one
    left join (app.one_time_tokens t join app.users u on u.id = t.user_id)
        on t.token_hash = token_sha256 and t.purpose = 'password_reset'
            and t.used_at is null and t.expires_at > app.now();
end $$;

create or replace function api.auth_reset(ctx api.ctx, token_sha256 bytea,
    hash text)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_user app.users;
    v_emit jsonb;
begin
    -- the user's row first: the tokens of one user are used one by one
    select u.* into v_user
    from app.one_time_tokens t
    join app.users u on u.id = t.user_id
    where t.token_hash = token_sha256 and t.purpose = 'password_reset'
        and u.status in ('active', 'limited')
    for update of u;

    if not found then
        return app.fault('/token', 'invalid', 'is not valid any more');
    end if;

    perform app.pause('auth_reset');

    update app.one_time_tokens t
    set used_at = app.now()
    where t.token_hash = token_sha256 and t.used_at is null
        and t.expires_at > app.now() and t.email = v_user.email;

    if not found then
        return app.fault('/token', 'invalid', 'is not valid any more');
    end if;

    if v_user.email_verified_at is null then
        -- who settled in here may have been anybody
        if app.mfa_on(v_user.id) then
            perform app.mfa_mail(v_user.id, 'off');
        end if;

        v_emit := app.credentials_drop(v_user.id, 'password reset');

    else
        -- a mail may have been sent twice: all its links die with the first,
        -- and so does a change of address that who knew the old password
        -- asked for
        update app.one_time_tokens t
        set used_at = app.now()
        where t.user_id = v_user.id
            and t.purpose in ('password_reset', 'email_change')
            and t.used_at is null;

        v_emit := app.epoch_bump(v_user.id, 'password reset')::jsonb;
    end if;

    update app.users u
    set password_hash = hash, pending_email = null, version = u.version + 1
    where u.id = v_user.id;

    perform app.email_proved(v_user.id);

    perform app.audit(app.ctx_as(ctx, v_user.id, null), 'auth.reset', 'user',
        v_user.id::text, case when v_user.email_verified_at is null
            then '{"reclaimed":true}'::jsonb end);
    perform queue.enqueue('mail.send', jsonb_build_object(
        'template', 'password_changed', 'user_id', v_user.id));

    return app.ok(200, '{"reset":true}', emit => v_emit::json);
end $$;

-- No row: the account is suspended or gone.
create or replace function api.auth_password_begin(ctx api.ctx)
returns table (email text, hash text)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select u.email::text, u.password_hash
    from app.users u
    where u.id = (ctx).actor and u.status in ('active', 'limited');
end $$;

-- The password was right for tried_hash, as in api.auth_login_finish().  The
-- session that asks goes on with a new access token, since all that are out
-- die with the epoch; every other one ends.
create or replace function api.auth_password(ctx api.ctx, tried_hash text,
    hash text, user_agent text)
returns api.grant
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_user app.users;
    v_session app.login_sessions;
    v_grant api.grant;
    v_emit json;
begin
    update app.users u
    set password_hash = auth_password.hash, version = u.version + 1
    where u.id = (ctx).actor and u.status in ('active', 'limited')
        and u.password_hash = tried_hash;

    if not found then
        return app.grant_fail('CONFLICT');
    end if;

    -- links that were mailed before do not undo this
    update app.one_time_tokens t
    set used_at = app.now()
    where t.user_id = (ctx).actor and t.purpose = 'password_reset'
        and t.used_at is null;

    v_emit := app.epoch_bump((ctx).actor, 'password changed', (ctx).session);

    perform app.audit(ctx, 'auth.password', 'user', (ctx).actor::text);
    perform queue.enqueue('mail.send', jsonb_build_object(
        'template', 'password_changed', 'user_id', (ctx).actor));

    select u.* into v_user
    from app.users u
    where u.id = (ctx).actor;

    select s.* into v_session
    from app.login_sessions s
    where s.id = (ctx).session and s.user_id = v_user.id
        and s.revoked_at is null and s.expires_at > app.now();

    if found then
        return app.grant_of(200, json_build_object(
            'user', app.user_json(v_user)), v_user, v_session, null, v_emit);
    end if;

    -- a token that was minted without a session gets one
    v_grant := app.session_open(ctx, v_user, false, user_agent, 200);
    v_grant.emit := v_emit;

    return v_grant;
end $$;

drop function if exists task.reset_token(uuid, bytea, int);


-- ---- what edges load ----

drop function if exists api.revocations_since(timestamptz);

-- ttl_s: how long the tokens live that who asks signs.
create or replace function api.revocations_since(since timestamptz,
    ttl_s int)
returns table (text text, at timestamptz)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if not exists (
            select from app.access_ttls t
            where t.ttl_s = revocations_since.ttl_s
                and t.said_at > app.now() - interval '1 hour')
        and current_setting('transaction_read_only') = 'off'
    then
        insert into app.access_ttls as t (ttl_s, said_at)
        values (revocations_since.ttl_s, app.now())
        on conflict on constraint access_ttls_pkey do update
        set said_at = greatest(t.said_at, excluded.said_at);
    end if;

    return query
    select r.entry, r.at
    from app.revocations r
    where r.at >= since and r.expires_at > app.now()
    order by r.id;
end $$;

drop function if exists api.throttle_load();
drop function if exists api.throttle_save(text, int, bigint);

-- What an edge counted since it last asked (anew: from nothing, for the pair
-- had got in or was long quiet), and what changed since then at any edge.
create or replace function api.throttle_sync(keys text[], counts int[],
    anews boolean[], ats bigint[], since_ms bigint)
returns table (now_ms bigint, key text, fails int, at_ms bigint)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v record;
begin
    for v in
        select u.key, u.n, u.anew, u.at
        from unnest(keys, counts, anews, ats) u (key, n, anew, at)
        order by u.key
    loop
        insert into app.auth_throttle as t (key, fails, at_ms, changed_at)
        values (v.key, v.n, v.at, app.now())
        on conflict on constraint auth_throttle_pkey do update
        set fails = case when v.anew then 0 else t.fails end + v.n,
            at_ms = greatest(t.at_ms, v.at), changed_at = app.now();
    end loop;

    return query
    select app.ms(app.now()), t.key, t.fails, t.at_ms
    from (select 1) one
    left join app.auth_throttle t
        on t.changed_at >= to_timestamp(since_ms / 1000.0);
end $$;
