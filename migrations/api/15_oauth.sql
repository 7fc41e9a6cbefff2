-- oauth.*: identities of other issuers, and whose they are here.

-- What the edge needs to know of a token of another issuer, whose signature
-- it has verified.  code: why it does not count.  Tokens that were made
-- before since_ms do not count either.  Whatever they say of how one signed
-- in, who has a second factor here has shown no code of it.
drop function if exists api.auth_foreign(text, text);

create or replace function api.auth_foreign(issuer text, subject text)
returns table (code text, identity uuid, user_id uuid, roles text[],
    epoch int, since_ms bigint, mfa boolean)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select case
            when u.id is null or u.status = 'deleted' or u.kind <> 'person'
                then 'IDENTITY_NOT_LINKED'
            when u.status not in ('active', 'limited')
                then 'ACCOUNT_SUSPENDED'
            when u.email_verified_at is null
                and app.setting('require_verified_email', 'off') = 'login'
                then 'EMAIL_NOT_VERIFIED' end,
        i.id, u.id, u.roles, u.token_epoch, coalesce(app.ms(u.epoch_at), 0),
        app.mfa_on(u.id)
    from (select 1) one
    left join (app.oauth_identities i join app.users u on u.id = i.user_id)
        on i.issuer = auth_foreign.issuer and i.subject = auth_foreign.subject;
end $$;

-- A flow came back, or an ID token: true for the first time only, so that
-- nobody repeats it.
create or replace function api.oauth_begin(state_sha256 bytea,
    expires_at timestamptz)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_out boolean;
begin
    with fresh as (
        insert into app.oauth_states (state_sha256, expires_at)
        values (oauth_begin.state_sha256, oauth_begin.expires_at)
        on conflict on constraint oauth_states_pkey do nothing
        returning true)
    select exists (select from fresh) into v_out;

    return v_out;
end $$;

-- A name that somebody else gave: one line of what can be seen.
create or replace function app.oauth_name(raw text)
returns text
language sql immutable
as $$
    select left(btrim(regexp_replace(raw,
        '[[:cntrl:]\u200e\u200f\u202a-\u202e\u2066-\u2069]+', ' ', 'g')), 100)
$$;

create or replace function app.identity_add(who uuid, provider text,
    issuer text, subject text, email text)
returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_out uuid;
begin
    insert into app.oauth_identities (id, user_id, provider, issuer, subject,
        email, created_at, last_used_at)
    values (app.uuid7(), who, identity_add.provider, identity_add.issuer,
        identity_add.subject, identity_add.email, app.now(), app.now())
    on conflict on constraint oauth_identities_subject_key do nothing
    returning id into v_out;

    return v_out;
end $$;

create or replace function app.identity_mail(template text, who uuid,
    provider text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform queue.enqueue('mail.send', jsonb_build_object(
        'template', identity_mail.template, 'user_id', who,
        'provider', initcap(replace(identity_mail.provider, '-', ' '))));
end $$;

create or replace function app.identity_linked(ctx api.ctx, who app.users,
    provider text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform app.audit(app.ctx_as(ctx, who.id, who.roles, (ctx).session),
        'user.identity_linked', 'user', who.id::text,
        jsonb_build_object('provider', provider));
    perform app.identity_mail('identity_linked', who.id, provider);
end $$;

-- The owner of an address has come, by a provider that vouches for it, to an
-- account of somebody who never showed that it is his (CVE-2026-44166).
create or replace function app.account_reclaim(ctx api.ctx, who uuid,
    provider text)
returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_emit jsonb;
    v_had boolean;
begin
    select u.password_hash is not null into v_had
    from app.users u
    where u.id = who;

    v_emit := app.credentials_drop(who,
        'reclaimed by the owner of its address');

    perform app.email_proved(who);
    perform app.audit(app.ctx_as(ctx, who, null), 'user.reclaimed', 'user',
        who::text, jsonb_build_object('provider', provider));
    -- who was invited has none to lose
    perform app.identity_mail(case when v_had then 'password_removed'
        else 'identity_linked' end, who, provider);

    return v_emit;
end $$;

create or replace function app.oauth_new_user(ctx api.ctx, provider text,
    issuer text, subject text, email text, first_name text, last_name text)
returns app.users
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_user app.users;
    v_now timestamptz := app.now();
begin
    insert into app.users (id, email, email_verified_at, first_name,
        last_name, preferred_language, created_at, updated_at)
    values (app.uuid7(), oauth_new_user.email, v_now,
        coalesce(nullif(app.oauth_name(oauth_new_user.first_name), ''),
            left(split_part(oauth_new_user.email, '@', 1), 100)),
        coalesce(app.oauth_name(oauth_new_user.last_name), ''),
        app.language((ctx).lang), v_now, v_now)
    on conflict (email) where status <> 'deleted' do nothing
    returning * into v_user;

    -- both rows, or none: somebody else may have been faster with either
    if found and app.identity_add(v_user.id, provider, issuer, subject,
        oauth_new_user.email) is null
    then
        raise unique_violation;
    end if;

    if v_user.id is not null then
        perform app.audit(app.ctx_as(ctx, v_user.id, v_user.roles),
            'user.register', 'user', v_user.id::text, jsonb_build_object(
                'roles', v_user.roles, 'provider', provider));
        perform app.mail_once('welcome', v_user.id);
    end if;

    return v_user;
exception
    when unique_violation then
        return null;
end $$;

-- Who a verified identity is here: the account that it is linked to; else
-- that of its address, when the provider vouches for the address; else a new
-- one.  An address that the provider does not vouch for decides nothing, and
-- the answer does not say whether somebody has it.
-- An ID token counts once as well: whoever finds one has nothing.
drop function if exists api.oauth_sign_in(api.ctx, text, text, text, text,
    boolean, text, text, boolean, text);

create or replace function api.oauth_sign_in(ctx api.ctx, provider text,
    issuer text, subject text, email text, email_verified boolean,
    first_name text, last_name text, remember boolean, user_agent text,
    token_sha256 bytea, token_until timestamptz)
returns api.grant
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_email text := case when oauth_sign_in.email_verified
        then app.email(oauth_sign_in.email) end;
    v_user app.users;
    v_linked boolean;
    v_grant api.grant;
    v_emit jsonb := app.wake()::jsonb;
begin
    if not api.oauth_begin(token_sha256, token_until) then
        return app.grant_fail('OAUTH_INVALID');
    end if;

    delete from app.oauth_identities x
    using app.users u
    where x.issuer = oauth_sign_in.issuer
        and x.subject = oauth_sign_in.subject and u.id = x.user_id
        and u.status = 'deleted';

    -- once more when somebody was faster with the same address or identity
    for i in 1 .. 3 loop
        select u.* into v_user
        from app.oauth_identities x
        join app.users u on u.id = x.user_id
        where x.issuer = oauth_sign_in.issuer
            and x.subject = oauth_sign_in.subject
        for no key update of u;

        v_linked := found;

        if not v_linked then
            if v_email is null then
                return app.grant_fail('ACCOUNT_EXISTS_SIGN_IN_FIRST');
            end if;

            select u.* into v_user
            from app.users u
            where u.email = v_email and u.status <> 'deleted'
            for no key update;
        end if;

        perform app.pause('oauth_sign_in');

        if v_user.id is null then
            v_user := app.oauth_new_user(ctx, provider,
                oauth_sign_in.issuer, oauth_sign_in.subject, v_email,
                oauth_sign_in.first_name, oauth_sign_in.last_name);
            exit when v_user.id is not null;
            continue;
        end if;

        if v_user.status not in ('active', 'limited') then
            return app.grant_fail('ACCOUNT_SUSPENDED');
        end if;

        if v_user.email_verified_at is null and v_user.email = v_email then
            v_emit := app.account_reclaim(ctx, v_user.id, provider) || v_emit;
            v_linked := app.identity_add(v_user.id, provider,
                oauth_sign_in.issuer, oauth_sign_in.subject, v_email)
                is not null;

        -- a second factor guards against whoever has the mailbox, too
        elsif not v_linked and app.mfa_on(v_user.id) then
            return app.grant_fail('ACCOUNT_EXISTS_SIGN_IN_FIRST');

        elsif not v_linked and app.identity_add(v_user.id, provider,
            oauth_sign_in.issuer, oauth_sign_in.subject, v_email) is not null
        then
            perform app.identity_linked(ctx, v_user, provider);
            v_linked := true;
        end if;

        exit when v_linked;
        v_user := null;
    end loop;

    if v_user.id is null then
        return app.grant_fail('CONFLICT');
    end if;

    update app.oauth_identities x
    set last_used_at = app.now(), provider = oauth_sign_in.provider,
        email = coalesce(app.email(oauth_sign_in.email), x.email)
    where x.issuer = oauth_sign_in.issuer
        and x.subject = oauth_sign_in.subject;

    -- as it is now: its epoch may have been raised
    select u.* into v_user
    from app.users u
    where u.id = v_user.id;

    v_grant := app.sign_in(ctx, v_user, remember, user_agent, provider);
    v_grant.emit := (v_emit || coalesce(v_grant.emit::jsonb, '[]'))::json;

    return v_grant;
end $$;

-- To the account that asked for it, while the session that did so lives.
create or replace function api.oauth_link(ctx api.ctx, user_id uuid,
    session uuid, provider text, issuer text, subject text, email text)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_user app.users;
    v_owner uuid;
begin
    select u.* into v_user
    from app.users u
    where u.id = oauth_link.user_id and u.status in ('active', 'limited')
        and exists (
            select from app.login_sessions s
            where s.id = oauth_link.session and s.user_id = u.id
                and s.revoked_at is null and s.expires_at > app.now())
    for no key update;

    if not found then
        return app.fail('TOKEN_REVOKED');
    end if;

    if app.identity_add(v_user.id, provider, oauth_link.issuer,
        oauth_link.subject, app.email(oauth_link.email)) is not null
    then
        perform app.identity_linked(app.ctx_as(ctx, v_user.id, v_user.roles,
            oauth_link.session), v_user, provider);

        return app.ok(200, '{"linked":true}', emit => app.wake());
    end if;

    select x.user_id into v_owner
    from app.oauth_identities x
    where x.issuer = oauth_link.issuer and x.subject = oauth_link.subject;

    -- gone again since: then it was not linked, either
    if v_owner is distinct from v_user.id then
        return app.fail('IDENTITY_TAKEN');
    end if;

    return app.ok(200, '{"linked":true}');
end $$;

create or replace view api.identities as
select i.id, i.user_id, i.provider, i.email, i.created_at as linked_at,
    app.ts(i.created_at) as created, app.ts(i.last_used_at) as last_used
from app.oauth_identities i;

create or replace view api.acl_identity as
select i.id, i.user_id, 'owner' as relation
from app.oauth_identities i;

-- Tokens of its issuer stop counting at once, as those of a session that
-- ended: their sid is its id.
create or replace function api.identity_unlink(ctx api.ctx, id uuid)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_user app.users;
    v_provider text;
    v_emit json;
begin
    select u.* into v_user
    from app.users u
    where u.id = (ctx).actor and u.status in ('active', 'limited')
    for no key update;

    select i.provider into v_provider
    from app.oauth_identities i
    where i.id = identity_unlink.id and i.user_id = v_user.id;

    if not found then
        return app.fail('NOT_FOUND');
    end if;

    perform app.pause('identity_unlink');

    if v_user.password_hash is null and not exists (
        select from app.oauth_identities i
        where i.user_id = v_user.id and i.id <> identity_unlink.id)
    then
        return app.fail('LAST_WAY_IN');
    end if;

    delete from app.oauth_identities i where i.id = identity_unlink.id;

    v_emit := app.revoke(array[identity_unlink.id], app.looked_up_ttl());

    perform app.audit(ctx, 'user.identity_unlinked', 'user',
        v_user.id::text, jsonb_build_object('provider', v_provider));

    return app.ok(200, '{"unlinked":true}', emit => v_emit);
end $$;
