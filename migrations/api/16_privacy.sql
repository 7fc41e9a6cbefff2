-- privacy.*: what people agreed to, by version of the policy.

-- Whom a request is about: the account that is signed in, else the id that
-- the browser keeps; null: neither.
create or replace function app.consent_subject(ctx api.ctx, anon_id uuid)
returns uuid
language sql immutable
as $$ select coalesce((ctx).actor, anon_id) $$;

-- An account's id in a browser's place says nothing of the account.
create or replace function app.consents_json(ctx api.ctx, subject uuid)
returns json
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        with kinds as (
            select k.kind, c.granted, c.policy_version, c.created_at,
                coalesce(c.policy_version = v.version, false) as current
            from (values ('analytics'), ('marketing'), ('personalization'))
                k (kind)
            cross join (
                select app.setting('privacy_policy_version', '1') as version) v
            left join lateral (
                select * from app.consents c
                where c.subject = consents_json.subject and c.kind = k.kind
                    and c.user_id is not distinct from (ctx).actor
                order by c.id desc
                limit 1) c on true)
        select json_build_object(
            'policyVersion', app.setting('privacy_policy_version', '1'),
            'ask', not bool_and(current),
            'consents', json_agg(json_build_object(
                'kind', kind,
                -- nothing was agreed to that was not asked
                'granted', coalesce(granted and current, false),
                'policyVersion', policy_version,
                'at', app.ts(created_at)) order by kind))
        from kinds);
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

    with said as (
        select k.kind, (body->>k.kind)::boolean as granted
        from (values ('analytics'), ('marketing'), ('personalization'))
            k (kind)
        where body->>k.kind is not null),
    fresh as (
        insert into app.consents (id, subject, user_id, kind, granted,
            policy_version, ip_prefix, created_at)
        select app.uuid7(), v_subject, (ctx).actor, s.kind, s.granted,
            v_version, app.ip_prefix((ctx).ip), app.now()
        from said s
        where not exists (
            select from (
                select c.granted, c.policy_version
                from app.consents c
                where c.subject = v_subject and c.kind = s.kind
                    and c.user_id is not distinct from (ctx).actor
                order by c.id desc
                limit 1) last
            where last.granted = s.granted
                and last.policy_version = v_version)
        returning kind, granted)
    select jsonb_object_agg(kind, granted) into v_changes from fresh;

    perform app.audit(ctx, 'privacy.consents', case when (ctx).actor is null
        then 'visitor' else 'user' end, v_subject::text,
        jsonb_build_object('policy_version', v_version)
            || coalesce(v_changes, '{}'));

    return app.ok(200, app.consents_json(ctx, v_subject), emit => app.wake());
end $$;
