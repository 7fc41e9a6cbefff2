-- auth.mfa: second factors.  Secrets are sealed and codes compared by the
-- edge; what it found out comes as the step of which the code is, -1 of none,
-- and a recovery code as its hash.  Here it is decided what counts: a step
-- once, a recovery code once, and how many wrong ones.

create or replace function app.mfa_on(who uuid)
returns boolean
language plpgsql stable
as $$
begin
    return exists (
        select from app.mfa_factors f
        where f.user_id = who and f.confirmed_at is not null);
end $$;

-- What the edge tries a code with; one that is to be turned on waits an hour.
create or replace function app.mfa_look(who uuid, pending boolean)
returns table (mfa_id uuid, mfa_secret text, mfa_step bigint, mfa_rest int)
language sql stable
as $$
    select f.id, encode(f.secret, 'hex'), f.last_step, greatest(0,
        ceil(extract(epoch from f.rest_until - app.now())))::int
    from app.mfa_factors f
    where f.user_id = who and (f.confirmed_at is null) = pending
        and (not pending or f.created_at > app.now() - interval '1 hour')
$$;

create or replace function app.mfa_mail(who uuid, what text,
    codes int default null)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform queue.enqueue('mail.send', jsonb_strip_nulls(jsonb_build_object(
        'template', 'mfa_notice', 'user_id', who, 'what', what,
        'left', codes)));
end $$;

create or replace function app.mfa_left(who uuid)
returns int
language sql stable
as $$
    select count(*)::int
    from app.mfa_recovery_codes c
    where c.user_id = who and c.used_at is null
$$;

-- codes: "aa..,bb..", hashes as hex
create or replace function app.mfa_codes_put(who uuid, codes text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from app.mfa_recovery_codes c where c.user_id = who;

    insert into app.mfa_recovery_codes (user_id, code_hash, created_at)
    select who, decode(x, 'hex'), app.now()
    from unnest(string_to_array(codes, ',')) x;
end $$;

-- The names of RFC 8176 that a right code adds; null: it is not right, or not
-- any more.  From the twentieth wrong one in a row, whoever sent them and from
-- wherever, codes rest for a minute, then for twice as long each time, an hour
-- at most: a million codes are soon tried from many addresses.  Who sent them
-- knows the password, and the owner is told; recovery codes do not rest.
create or replace function app.mfa_prove(ctx api.ctx, who uuid, factor uuid,
    step bigint, sealed bytea, recovery bytea)
returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_wrong int;
begin
    -- of one account, one by one
    perform from app.users u where u.id = who for no key update;

    perform app.pause('mfa_prove');

    if recovery is not null then
        update app.mfa_recovery_codes c
        set used_at = app.now()
        where c.user_id = who and c.used_at is null
            and c.code_hash = recovery;

        if found then
            update app.mfa_factors f
            set wrong = 0, rest_until = null, last_used_at = app.now()
            where f.user_id = who and f.confirmed_at is not null;

            perform app.mfa_mail(who, 'used', app.mfa_left(who));

            return '{mfa}'::text[];
        end if;

    else
        update app.mfa_factors f
        set last_step = step, wrong = 0, rest_until = null,
            last_used_at = app.now(), secret = coalesce(sealed, f.secret)
        where f.id = factor and f.user_id = who
            and f.confirmed_at is not null and f.last_step < step
            and (f.rest_until is null or f.rest_until <= app.now());

        if found then
            return '{otp,mfa}'::text[];
        end if;
    end if;

    update app.mfa_factors f
    set wrong = f.wrong + 1,
        rest_until = case when f.wrong >= 19
            then app.now() + least(interval '1 hour',
                interval '1 minute' * 2 ^ least(f.wrong - 19, 10)) end
    where f.user_id = who and f.confirmed_at is not null
        and (f.rest_until is null or f.rest_until <= app.now())
    returning f.wrong into v_wrong;

    -- whoever guesses does not silence it by what he asks for elsewhere
    if v_wrong % 5 = 0 and app.mail_spend('mfa_tried ' || who, 5) then
        perform app.mfa_mail(who, 'tried');
    end if;

    perform app.audit(app.ctx_as(ctx, who, (ctx).roles, (ctx).session),
        'mfa.wrong', 'user', who::text, jsonb_build_object(
            'recovery', recovery is not null));

    return null;
end $$;

-- A wrong code where one signs in, and where one is signed in: there 401 would
-- tell clients that their token is bad.
create or replace function app.grant_wrong(recovery boolean default null)
returns api.grant
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    v_grant api.grant := app.grant_fail('MFA_CODE_INVALID', app.wake());
begin
    if recovery is not null then
        v_grant.body := (app.fault(case when recovery then '/recoveryCode'
            else '/code' end, 'wrong_code',
            'is not right, or was used already')).body;
    end if;

    v_grant.mfa := true;

    return v_grant;
end $$;

-- ---- sign-in ----

-- Who it is was shown, by a password or a provider.  The edge signs the id, as
-- sid, for whoever asked.
drop function if exists app.mfa_challenge(api.ctx, app.users, boolean);

create or replace function app.mfa_challenge(ctx api.ctx, who app.users,
    remember boolean, provider text)
returns api.grant
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_id uuid := app.uuid7();
    v_grant api.grant := app.grant_fail('MFA_REQUIRED');
begin
    insert into app.mfa_challenges (id, user_id, epoch, prefix, remember,
        provider, created_at, expires_at)
    values (v_id, (who).id, (who).token_epoch, app.ip_prefix((ctx).ip),
        mfa_challenge.remember, mfa_challenge.provider, app.now(),
        app.now() + interval '5 minutes');

    perform app.audit(app.ctx_as(ctx, (who).id, (who).roles),
        'auth.mfa_asked', 'user', (who).id::text);

    v_grant.body := json_build_object('code', 'MFA_REQUIRED',
        'expiresIn', 300, 'methods', json_build_array('totp',
            'recovery_code'));
    v_grant.sid := v_id;

    return v_grant;
end $$;

-- Five wrong codes, another address, or whatever ends the account's tokens
-- ends it.
create or replace function app.mfa_challenge_open(ctx api.ctx, challenge uuid)
returns app.mfa_challenges
language sql stable
as $$
    select c
    from app.mfa_challenges c
    join app.users u on u.id = c.user_id
    where c.id = challenge and c.used_at is null
        and c.expires_at > app.now() and c.wrong < 5
        and c.prefix = app.ip_prefix((ctx).ip)
        and u.token_epoch = c.epoch and u.status in ('active', 'limited')
$$;

create or replace function api.auth_mfa_begin(ctx api.ctx, challenge uuid)
returns table (user_id uuid, email text, mfa_id uuid, mfa_secret text,
    mfa_step bigint, mfa_rest int)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select u.id, u.email::text, m.mfa_id, m.mfa_secret, m.mfa_step,
        m.mfa_rest
    from app.mfa_challenge_open(ctx, challenge) c
    join app.users u on u.id = c.user_id
    join lateral app.mfa_look(u.id, false) m on true;
end $$;

create or replace function api.auth_login_mfa(ctx api.ctx, factor uuid,
    step bigint, sealed bytea, recovery bytea, challenge uuid, user_agent text)
returns api.grant
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_user app.users;
    v_open app.mfa_challenges;
    v_proof text[];
begin
    -- the account's row first, as everybody does
    select u.* into v_user
    from app.mfa_challenges c
    join app.users u on u.id = c.user_id
    where c.id = challenge
    for no key update of u;

    v_open := app.mfa_challenge_open(ctx, challenge);

    if v_open.id is null then
        return app.grant_fail('MFA_TOKEN_INVALID');
    end if;

    v_proof := app.mfa_prove(ctx, v_user.id, factor, step, sealed, recovery);

    update app.mfa_challenges c
    set wrong = c.wrong + (v_proof is null)::int,
        used_at = case when v_proof is not null then app.now() end
    where c.id = challenge;

    if v_proof is null then
        return app.grant_wrong();
    end if;

    return app.signed_in(ctx, v_user, v_open.remember, user_agent,
        v_open.provider, v_proof);
end $$;

drop function if exists app.mfa_login(api.ctx, app.users, boolean, text,
    text[]);

-- ---- what one does with one's own ----

-- Takes the account's row; false: the session that asks is over.
create or replace function app.session_hold(ctx api.ctx)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform from app.users u
    where u.id = (ctx).actor and u.status in ('active', 'limited')
    for no key update;

    if not found then
        return false;
    end if;

    perform from app.login_sessions s
    where s.id = (ctx).session and s.user_id = (ctx).actor
        and s.revoked_at is null and s.expires_at > app.now()
    for no key update;

    return found;
end $$;

-- The session knows from now on how and when its owner showed who he is; it
-- gets an access token that says so.  The body is for the token's claims.
create or replace function app.mfa_grant(ctx api.ctx, proof text[],
    emit json default null)
returns api.grant
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_user app.users;
    v_session app.login_sessions;
begin
    update app.login_sessions s
    set auth_at = app.now(), amr = array(
        select distinct unnest(s.amr || proof))
    where s.id = (ctx).session
    returning s.* into v_session;

    select u.* into v_user
    from app.users u
    where u.id = (ctx).actor;

    return app.grant_of(200, json_build_object(
            'user', app.user_json(v_user)), v_user, v_session, null,
        (coalesce(mfa_grant.emit::jsonb, '[]') || app.wake()::jsonb)::json);
end $$;

create or replace function api.mfa_get(ctx api.ctx)
returns api.answer
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select app.ok(200, json_build_object(
            'enabled', f.id is not null,
            'confirmedAt', app.ts(f.confirmed_at),
            'lastUsedAt', app.ts(f.last_used_at),
            'recoveryCodesLeft', case when f.id is null then 0
                else app.mfa_left((ctx).actor) end,
            'required', case app.setting('require_mfa', 'off')
                when 'all' then true
                when 'admin' then app.is_admin(ctx)
                else false end))
        from (select 1) one
        left join app.mfa_factors f on f.user_id = (ctx).actor
            and f.confirmed_at is not null);
end $$;

-- No row: the account is suspended or gone.
create or replace function api.mfa_begin(ctx api.ctx, pending boolean)
returns table (user_id uuid, email text, hash text, mfa_id uuid,
    mfa_secret text, mfa_step bigint, mfa_rest int)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select u.id, u.email::text, u.password_hash, m.mfa_id, m.mfa_secret,
        m.mfa_step, m.mfa_rest
    from app.users u
    left join lateral app.mfa_look(u.id, pending) m on true
    where u.id = (ctx).actor and u.status in ('active', 'limited');
end $$;

-- The newest enrolment counts.
create or replace function api.mfa_enrol(ctx api.ctx, id uuid, sealed bytea,
    tried_hash text)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform from app.users u
    where u.id = (ctx).actor and u.status in ('active', 'limited')
        and u.password_hash = tried_hash
    for no key update;

    if not found then
        return app.fail('INVALID_CREDENTIALS');
    end if;

    if app.mfa_on((ctx).actor) then
        return app.fail('INVALID_STATE');
    end if;

    delete from app.mfa_factors f
    where f.user_id = (ctx).actor and f.confirmed_at is null;

    insert into app.mfa_factors (id, user_id, secret, created_at)
    values (mfa_enrol.id, (ctx).actor, sealed, app.now());

    perform app.audit(ctx, 'mfa.enrol', 'user', (ctx).actor::text);

    return app.ok(201, json_build_object('id', mfa_enrol.id));
end $$;

-- Tokens that are out do not say that the account has a factor: they die, and
-- sessions go on with new ones.
create or replace function api.mfa_confirm(ctx api.ctx, factor uuid,
    step bigint, codes text)
returns api.grant
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if not app.session_hold(ctx) then
        return app.grant_fail('TOKEN_REVOKED');
    end if;

    update app.mfa_factors f
    set confirmed_at = app.now(), last_used_at = app.now(), last_step = step
    where f.id = factor and f.user_id = (ctx).actor
        and f.confirmed_at is null and f.last_step < step;

    if not found then
        perform app.audit(ctx, 'mfa.wrong', 'user', (ctx).actor::text,
            '{"enrolling": true}');
        return app.grant_wrong(false);
    end if;

    perform app.mfa_codes_put((ctx).actor, codes);
    perform app.audit(ctx, 'mfa.on', 'user', (ctx).actor::text);
    perform app.mfa_mail((ctx).actor, 'on');

    return app.mfa_grant(ctx, '{otp,mfa}', app.epoch_next((ctx).actor));
end $$;

create or replace function app.mfa_delete(who uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from app.mfa_factors f where f.user_id = who;
    delete from app.mfa_recovery_codes c where c.user_id = who;
    delete from app.mfa_challenges c where c.user_id = who;
end $$;

create or replace function app.mfa_drop(who uuid)
returns json
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform app.mfa_delete(who);
    perform app.mfa_mail(who, 'off');

    return app.epoch_next(who);
end $$;

create or replace function api.mfa_off(ctx api.ctx, factor uuid, step bigint,
    sealed bytea, recovery bytea, tried_hash text)
returns api.grant
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_proof text[];
begin
    if not app.session_hold(ctx) then
        return app.grant_fail('TOKEN_REVOKED');
    end if;

    if not exists (
        select from app.users u
        where u.id = (ctx).actor and u.password_hash = tried_hash)
    then
        return app.grant_fail('INVALID_CREDENTIALS');
    end if;

    v_proof := app.mfa_prove(ctx, (ctx).actor, factor, step, sealed,
        recovery);

    if v_proof is null then
        return app.grant_wrong(recovery is not null);
    end if;

    perform app.audit(ctx, 'mfa.off', 'user', (ctx).actor::text);

    return app.mfa_grant(ctx, v_proof, app.mfa_drop((ctx).actor));
end $$;

create or replace function api.mfa_codes(ctx api.ctx, factor uuid,
    step bigint, sealed bytea, codes text)
returns api.grant
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_proof text[];
begin
    if not app.session_hold(ctx) then
        return app.grant_fail('TOKEN_REVOKED');
    end if;

    v_proof := app.mfa_prove(ctx, (ctx).actor, factor, step, sealed, null);

    if v_proof is null then
        return app.grant_wrong(false);
    end if;

    perform app.mfa_codes_put((ctx).actor, codes);
    perform app.audit(ctx, 'mfa.codes', 'user', (ctx).actor::text);
    perform app.mfa_mail((ctx).actor, 'codes');

    return app.mfa_grant(ctx, v_proof);
end $$;

create or replace function api.auth_step_up(ctx api.ctx, factor uuid,
    step bigint, sealed bytea, recovery bytea)
returns api.grant
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_proof text[];
begin
    if not app.session_hold(ctx) then
        return app.grant_fail('TOKEN_REVOKED');
    end if;

    v_proof := app.mfa_prove(ctx, (ctx).actor, factor, step, sealed,
        recovery);

    if v_proof is null then
        return app.grant_wrong(recovery is not null);
    end if;

    perform app.audit(ctx, 'auth.step_up', 'session', (ctx).session::text);

    return app.mfa_grant(ctx, v_proof);
end $$;

-- ---- admins, operators ----

-- Of somebody who lost it.  One's own goes by password and code, or a stolen
-- token would do.
create or replace function api.admin_mfa_remove(ctx api.ctx, id uuid)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_emit json;
begin
    if admin_mfa_remove.id = (ctx).actor then
        return app.fail('INVALID_STATE');
    end if;

    perform from app.users u
    where u.id = admin_mfa_remove.id and u.status <> 'deleted'
    for no key update;

    if not found or not app.mfa_on(admin_mfa_remove.id) then
        return app.fail('NOT_FOUND');
    end if;

    perform app.audit(ctx, 'mfa.removed', 'user', admin_mfa_remove.id::text);

    v_emit := app.mfa_drop(admin_mfa_remove.id);

    return app.ok(200, '{"removed":true}',
        emit => (v_emit::jsonb || app.wake()::jsonb)::json);
end $$;

-- stoa user mfa-off; run as the owner, for the last admin who lost his.
create or replace function app.user_mfa_off(email text)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_user uuid;
begin
    select u.id into v_user
    from app.users u
    where u.email = app.email(user_mfa_off.email) and u.status <> 'deleted'
    for no key update;

    if not found or not app.mfa_on(v_user) then
        return false;
    end if;

    perform app.audit(app.ctx_task('user mfa-off'), 'mfa.removed', 'user',
        v_user::text);
    perform app.mfa_drop(v_user);

    return true;
end $$;
