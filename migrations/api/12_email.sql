-- Whose an address is: mails that prove it, and its change.  An address is
-- proved by a token that was mailed to it (task.mail_token), and a token
-- proves no other address than the one that it was mailed to.

-- What one may have mailed to oneself, or to an address that one names: five
-- an hour for an account and a purpose, thirty for an address prefix, and
-- MAIL_HOUR_MAX for all together.  As many of a prefix are sent to those who
-- register (10_auth.sql).
create or replace function app.mail_may(ctx api.ctx, who uuid, purpose text)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if not app.mail_spend(app.ip_prefix((ctx).ip), 30) then
        return false;
    end if;

    return app.mail_spend(purpose || ' ' || who, 5) and app.mail_spend_all();
end $$;

-- A mail to an account, of which one waits at a time.
drop function if exists app.verify_mail(uuid);

create or replace function app.mail_once(template text, who uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform queue.enqueue('mail.send', jsonb_build_object(
        'template', template, 'user_id', who),
        uniq => template || ':' || who);
end $$;

-- The first time that an account's address is known to be right.
create or replace function app.email_proved(who uuid)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    update app.users u
    set email_verified_at = app.now(), version = u.version + 1,
        updated_at = app.now()
    where u.id = who and u.email_verified_at is null;

    if found then
        perform app.mail_once('welcome', who);
    end if;
end $$;

-- Somebody made this account and never showed that the address is his; now
-- its owner has come.  Whatever lets that somebody in dies: the password and
-- its second factor, identities, keys, mailed links, sessions, tokens.  A new
-- kind of credential has its line here.
create or replace function app.credentials_drop(who uuid, why text)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_emit jsonb;
begin
    update app.users u
    set password_hash = null, pending_email = null, version = u.version + 1
    where u.id = who;

    update app.one_time_tokens t
    set used_at = app.now()
    where t.user_id = who and t.used_at is null;

    delete from app.oauth_identities i where i.user_id = who;
    perform app.mfa_delete(who);

    v_emit := app.epoch_bump(who, why)::jsonb;

    return v_emit || coalesce(app.keys_revoke(array(
        select k.id
        from app.api_keys k
        where k.owner_id = who and k.revoked_at is null), why)::jsonb, '[]');
end $$;

create or replace function api.auth_resend(ctx api.ctx)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (
        select from app.users u
        where u.id = (ctx).actor and u.status in ('active', 'limited')
            and u.email_verified_at is null)
        and app.mail_may(ctx, (ctx).actor, 'email_verify')
    then
        perform app.mail_once('verify_email', (ctx).actor);
    end if;

    perform app.audit(ctx, 'auth.resend', 'user', (ctx).actor::text);

    return app.ok(200, '{}', emit => app.wake());
end $$;

-- Nothing is said of the new address, whoever has it: its mailbox decides.
-- The password was right for the hash that was read before it was tried.
create or replace function api.users_email(ctx api.ctx, new_email text,
    tried_hash text)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_email text;
    v_new text := app.email(new_email);
begin
    select u.email into v_email
    from app.users u
    where u.id = (ctx).actor and u.status in ('active', 'limited')
        and u.password_hash = tried_hash
    for no key update;

    if not found then
        return app.fail('INVALID_CREDENTIALS');
    end if;

    if v_new = v_email then
        return app.fault('/newEmail', 'same', 'is the address you have');
    end if;

    if app.mail_may(ctx, (ctx).actor, 'email_change') then
        update app.users u
        set pending_email = v_new
        where u.id = (ctx).actor;

        -- the newest question counts, whatever older links say
        update app.one_time_tokens t
        set used_at = app.now()
        where t.user_id = (ctx).actor and t.purpose = 'email_change'
            and t.used_at is null;

        perform queue.enqueue('mail.send', jsonb_build_object(
            'template', 'change_email', 'user_id', (ctx).actor,
            'to', v_new));
        perform queue.enqueue('mail.send', jsonb_build_object(
            'template', 'change_notice', 'user_id', (ctx).actor,
            'to', v_email));
    end if;

    perform app.audit(ctx, 'user.email_asked', 'user', (ctx).actor::text);

    return app.ok(200, '{}', emit => app.wake());
end $$;

-- Consumes what verify_email and change_email carry.
create or replace function api.auth_verify(ctx api.ctx, token_sha256 bytea)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_user app.users;
    v_purpose text;
    v_email text;
    v_change boolean;
    v_emit json;
begin
    -- the user's row first: the tokens of one user are used one by one
    select u.* into v_user
    from app.one_time_tokens t
    join app.users u on u.id = t.user_id
    where t.token_hash = token_sha256
        and t.purpose in ('email_verify', 'email_change')
        and u.status in ('active', 'limited')
    for update of u;

    if not found then
        return app.fault('/token', 'invalid', 'is not valid any more');
    end if;

    perform app.pause('auth_verify');

    select t.purpose, t.email into v_purpose, v_email
    from app.one_time_tokens t
    where t.token_hash = token_sha256 and t.used_at is null
        and t.expires_at > app.now()
        and t.email = case t.purpose when 'email_verify' then v_user.email
            else v_user.pending_email end;

    if not found then
        return app.fault('/token', 'invalid', 'is not valid any more');
    end if;

    v_change := v_purpose = 'email_change';

    -- two who want the same address at once are told apart by its index
    if v_change and exists (
        select from app.users u
        where u.email = v_email and u.status <> 'deleted')
    then
        return app.fail('EMAIL_TAKEN');
    end if;

    -- what was mailed to the old address proves nothing any more
    update app.one_time_tokens t
    set used_at = app.now()
    where t.user_id = v_user.id and t.used_at is null
        and (v_change or t.purpose = v_purpose);

    if v_change then
        update app.users u
        set email = v_email, pending_email = null,
            email_verified_at = case when u.email_verified_at is not null
                then app.now() end,
            version = u.version + 1, updated_at = app.now()
        where u.id = v_user.id;

        v_emit := app.sessions_revoke(array(
            select s.id from app.login_sessions s
            where s.user_id = v_user.id and s.revoked_at is null
                and s.id is distinct from (ctx).session), 'e-mail changed');
    end if;

    perform app.email_proved(v_user.id);
    perform app.audit(app.ctx_as(ctx, v_user.id, v_user.roles, (ctx).session),
        case when v_change then 'user.email_changed'
            else 'user.email_verified' end, 'user', v_user.id::text);

    return app.ok(200, json_build_object('verified', true,
        'changed', v_change), emit => (coalesce(v_emit::jsonb, '[]')
            || app.wake()::jsonb)::json);
end $$;
