-- privacy.*: what people agreed to, by version of the policy.

-- Whom a request is about: the account that is signed in, else the id that
-- the browser keeps; null: neither.
create or replace function app.consent_subject(ctx api.ctx, anon_id uuid)
returns uuid
language sql immutable
as $$ select coalesce((ctx).actor, anon_id) $$;

-- Each kind, and what was last said of it.  An account's id in a browser's
-- place says nothing of the account.
create or replace function app.consents_of(ctx api.ctx, subject uuid)
returns table (kind text, granted boolean, policy_version text,
    created_at timestamptz)
language sql stable
as $$
    select k.kind, c.granted, c.policy_version, c.created_at
    from (values ('analytics'), ('marketing'), ('personalization')) k (kind)
    left join lateral (
        select o.*
        from app.consents o
        where o.subject = consents_of.subject and o.kind = k.kind
            and o.user_id is not distinct from (ctx).actor
        order by o.id desc
        limit 1) c on true
$$;

create or replace function app.consents_json(ctx api.ctx, subject uuid)
returns json
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    v_version text := app.setting('privacy_policy_version', '1');
begin
    return (
        select json_build_object(
            'policyVersion', v_version,
            'ask', not bool_and(coalesce(k.policy_version = v_version, false)),
            'consents', json_agg(json_build_object(
                'kind', k.kind,
                -- nothing was agreed to that was not asked
                'granted', coalesce(k.granted
                    and k.policy_version = v_version, false),
                'policyVersion', k.policy_version,
                'at', app.ts(k.created_at)) order by k.kind))
        from app.consents_of(ctx, subject) k);
end $$;

create or replace function api.consents_get(ctx api.ctx, anon_id uuid)
returns api.answer
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return case when app.consent_subject(ctx, anon_id) is null
        then app.fault('anonId', 'required',
            'is required of who is not signed in')
        else app.ok(200, app.consents_json(ctx,
            app.consent_subject(ctx, anon_id))) end;
end $$;

-- Only what changes is a row: a page that sends its choice again adds none.
create or replace function api.consents_put(ctx api.ctx, body jsonb)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_subject uuid := app.consent_subject(ctx, (body->>'anon_id')::uuid);
    v_version text := app.setting('privacy_policy_version', '1');
    v_changes jsonb;
begin
    if v_subject is null then
        return app.fault('/anonId', 'required',
            'is required of who is not signed in');
    end if;

    -- what was agreed to is the text that was shown
    if body->>'policy_version' <> v_version then
        return app.fault('/policyVersion', 'outdated',
            'is not the present one: show that first');
    end if;

    perform pg_advisory_xact_lock(hashtextextended(
        'consent ' || v_subject, 0));

    with fresh as (
        insert into app.consents (id, subject, user_id, kind, granted,
            policy_version, ip_prefix, created_at)
        select app.uuid7(), v_subject, (ctx).actor, k.kind,
            (body->>k.kind)::boolean, v_version, app.ip_prefix((ctx).ip),
            app.now()
        from app.consents_of(ctx, v_subject) k
        where body->>k.kind is not null
            and (k.granted, k.policy_version) is distinct from
                ((body->>k.kind)::boolean, v_version)
        returning kind, granted)
    select jsonb_object_agg(kind, granted) into v_changes from fresh;

    perform app.audit(ctx, 'privacy.consents', case when (ctx).actor is null
        then 'visitor' else 'user' end, v_subject::text,
        jsonb_build_object('policy_version', v_version)
            || coalesce(v_changes, '{}'));

    return app.ok(200, app.consents_json(ctx, v_subject), emit => app.wake());
end $$;
