-- oauth.*: identities of other issuers, and whose they are here.

-- What the edge needs to know of a token of another issuer, whose signature
-- it has verified.  code: why it does not count.  Tokens that were made
-- before since_ms do not count either.  Whatever they say of how one signed
-- in, who has a second factor here has shown no code of it.
drop function if exists api.auth_foreign(text, text);

create or replace function api.auth_foreign(issuer text, subject text)
returns table (code text, identity uuid, user_id uuid, roles text[],
    epoch int, since_ms bigint, mfa boolean)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
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
        on i.issuer = auth_foreign.issuer and i.subject = auth_foreign.subject
$$;
