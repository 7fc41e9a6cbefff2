-- Helpers of every other file: clock, times, ids, answers, settings, audit.
-- Applied before the rest (files run in name order).

-- The one clock of every deadline.  The test template replaces this body.
create or replace function app.now()
returns timestamptz
language sql stable
as $$ select pg_catalog.now() $$;

-- Does nothing; the test template replaces it to widen races between a check
-- and the write that relies on it.
create or replace function app.pause(name text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    return;
end $$;

-- RFC 3339, milliseconds, Z.
create or replace function app.ts(t timestamptz)
returns text
language sql stable strict
as $$
    select to_char(t at time zone 'UTC',
        'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;

-- The same for statements of the edge, which does not see schema app.
create or replace function api.ts(t timestamptz)
returns text
language sql stable strict
as $$
    select to_char(t at time zone 'UTC',
        'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;

create or replace function app.ms(t timestamptz)
returns bigint
language sql stable strict
as $$ select (date_part('epoch', t) * 1000)::bigint $$;

-- "YYYY-MM-DDTHH24:MI" on the clock of a place.
create or replace function app.local_time(t timestamptz, zone text)
returns text
language sql stable strict
as $$
    select to_char(t at time zone zone, 'YYYY-MM-DD"T"HH24:MI')
$$;

-- UUIDv7: 48 bits of milliseconds, 74 random bits.  Bits 52 and 53 turn the
-- version nibble of a random UUID from 4 to 7.
create or replace function app.uuid7()
returns uuid
language sql volatile
as $$
    select encode(set_bit(set_bit(
        overlay(uuid_send(gen_random_uuid()),
            substr(int8send((date_part('epoch', app.now())
                * 1000)::bigint), 3), 1, 6),
        52, 1), 53, 1), 'hex')::uuid
$$;

-- Of the six that mails and pages are in, that of a tag such as "de-AT".
create or replace function app.language(tag text)
returns text
language sql immutable
as $$
    select case when left(tag, 2) in ('en', 'ar', 'de', 'es', 'fr', 'it')
        then left(tag, 2)
        else 'en' end
$$;

create or replace function app.email(raw text)
returns text
language sql immutable strict
as $$ select lower(btrim(raw)) $$;

-- A pattern for ILIKE that finds the text itself; for statements of the edge.
create or replace function api.like(raw text)
returns text
language sql immutable strict
as $$
    select '%' || regexp_replace(raw, '([\\%_])', '\\\1', 'g')
        || '%'
$$;

create or replace function app.is_timezone(zone text)
returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    perform '2000-01-01 00:00:00+00'::timestamptz at time zone zone;
    -- abbreviations and POSIX forms convert too, but are no zones
    return zone = 'UTC' or zone like '%/%';
exception
    when invalid_parameter_value then
        return false;
end $$;


-- ---- settings ----

create or replace function app.setting(name text, otherwise text default null)
returns text
language plpgsql stable
as $$
begin
    return coalesce((select nullif(s.value, '') from app.settings s
                     where s.key = name), otherwise);
end $$;

-- Seconds of a settings row that was stored as "15m" or "900".
create or replace function app.setting_s(name text, otherwise int)
returns int
language plpgsql stable
as $$
begin
    return coalesce((
        select case right(s.value, 1)
            when 's' then rtrim(s.value, 's')::int
            when 'm' then rtrim(s.value, 'm')::int * 60
            when 'h' then rtrim(s.value, 'h')::int * 3600
            when 'd' then rtrim(s.value, 'd')::int * 86400
            else s.value::int
        end
        from app.settings s
        where s.key = name and s.value ~ '^[0-9]{1,9}[smhd]?$'), otherwise);
end $$;

create or replace function app.settings_put(settings jsonb)
returns void
language sql
security definer
set search_path = pg_catalog, pg_temp
as $$
    insert into app.settings as s (key, value)
    select e.key, e.value
    from jsonb_each_text(settings) e
    where e.value is not null
    order by e.key
    on conflict (key) do update set value = excluded.value
    where s.value is distinct from excluded.value
$$;

grant execute on function app.settings_put(jsonb) to stoa_worker;

-- As long as the settings are not stored: better too strict.
create or replace function app.is_production()
returns boolean
language sql stable
as $$ select app.setting('environment', 'production') = 'production' $$;


-- ---- answers ----

create or replace function app.ok(status int, body json,
    etag text default null, emit json default null, wait bigint default null,
    meta json default null)
returns api.answer
language sql immutable
as $$ select row(status, body, meta, etag, emit, wait)::api.answer $$;

-- A refusal: the edge finds status and title by the code.
create or replace function app.fail(code text, extra json default null,
    emit json default null)
returns api.answer
language sql immutable
as $$
    select row(0,
        case when extra is null
            then json_build_object('code', code)
            else (jsonb_build_object('code', code)
                || extra::jsonb)::json
        end, null, null, emit, null)::api.answer
$$;

-- One fault of the input that only the database could see.
create or replace function app.fault(pointer text, code text, detail text)
returns api.answer
language sql immutable
as $$
    select app.fail('VALIDATION_FAILED', json_build_object(
        'errors', json_build_array(json_build_object(
            'pointer', pointer, 'code', code, 'detail', detail))))
$$;

create or replace function app.is_admin(ctx api.ctx)
returns boolean
language sql immutable
as $$ select coalesce('admin' = any ((ctx).roles), false) $$;

create or replace function app.wake()
returns json
language sql immutable
as $$ select '[{"wake":true}]'::json $$;


-- ---- audit (decision 3) ----

-- What the digest is made of; every writer and the verifier use this text.
-- It is on the path of each admission, so nothing is quoted: JSON says itself
-- where it ends, and of the others app.audit_whole() (06_audit.sql) takes no
-- '|' and nothing empty, so that no two rows can have one text.
drop function if exists app.audit_digest(timestamptz, uuid, uuid, text, text,
    text, jsonb, text, text);

create or replace function app.audit_digest(at timestamptz, actor uuid,
    device uuid, action text, resource text, resource_id text, changes jsonb,
    ip text, request_id text, acting_as uuid default null,
    api_key uuid default null)
returns bytea
language sql stable
as $$
    select sha256(convert_to(
        date_part('epoch', at)::text || '|'
        || coalesce(actor::text, '') || '|' || coalesce(device::text, '')
        || '|' || action || '|' || resource || '|'
        || coalesce(resource_id, '') || '|' || coalesce(changes::text, '')
        || '|' || coalesce(ip, '') || '|' || coalesce(request_id, '')
        || coalesce('|as ' || acting_as::text, '')
        || coalesce('|key ' || api_key::text, ''),
        'UTF8'))
$$;

create or replace function app.audit(ctx api.ctx, action text, resource text,
    resource_id text, changes jsonb default null)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into app.audit_log (at, actor, device, action, resource,
        resource_id, changes, ip, request_id, acting_as, api_key, digest)
    select app.now(), (ctx).actor, (ctx).device, action, resource,
        resource_id, changes, (ctx).ip, (ctx).request_id, (ctx).acting_as,
        (ctx).api_key,
        app.audit_digest(app.now(), (ctx).actor, (ctx).device, action,
            resource, resource_id, changes, (ctx).ip, (ctx).request_id,
            (ctx).acting_as, (ctx).api_key);
end $$;

-- What an update changed, of the members of its body: {"quota": {"from": 10,
-- "to": 20}}.  The log is never cut, so what is personal does not enter it:
-- of the names in hidden, only that they changed.
create or replace function app.diff(body jsonb, was jsonb, is_now jsonb,
    hidden text[] default '{}')
returns jsonb
language sql immutable
as $$
    select coalesce(jsonb_object_agg(k, case when k = any (hidden)
            then '{"hidden": true}'::jsonb
            else jsonb_build_object('from', was->k, 'to', is_now->k) end),
        '{}'::jsonb)
    from jsonb_object_keys(body) k
    where was->k is distinct from is_now->k
$$;

-- The same request, by somebody whom it only now turned out to be.
create or replace function app.ctx_as(ctx api.ctx, who uuid, roles text[],
    session uuid default null, device uuid default null)
returns api.ctx
language sql immutable
as $$
    select row(who, roles, session, device, (ctx).ip, (ctx).request_id,
        (ctx).lang, null, null, (ctx).acting_as, (ctx).api_key)::api.ctx
$$;

-- Who acts when a worker does.
create or replace function app.ctx_task(name text)
returns api.ctx
language sql immutable
as $$
    select row(null, '{}', null, null, null, 'task:' || name, 'en', null,
        null, null, null)::api.ctx
$$;


-- ---- idempotency (decision 6) ----

create or replace function api.idem_begin(scope text, key text, print text)
returns api.idem
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_found app.idempotency;
begin
    if not pg_try_advisory_xact_lock(
        hashtextextended(idem_begin.scope || E'\n'
            || idem_begin.key, 6))
    then
        return row('in_flight', null, null, null, null, null)::api.idem;
    end if;

    select i.* into v_found
    from app.idempotency i
    where i.scope = idem_begin.scope and i.key = idem_begin.key;

    if not found then
        return row('new', null, null, null, null, null)::api.idem;
    end if;

    if v_found.print <> idem_begin.print then
        return row('mismatch', null, null, null, null, null)::api.idem;
    end if;

    return row('stored', v_found.status, v_found.body, v_found.meta,
        v_found.etag, v_found.at)::api.idem;
end $$;

-- A racer that got here too gets 23505 and is rolled back with its effect.
create or replace function api.idem_store(scope text, key text, print text,
    status int, body json, meta json, etag text)
returns timestamptz
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_out timestamptz;
begin
    insert into app.idempotency (scope, key, print, status, body, meta, etag,
        at)
    values (idem_store.scope, idem_store.key, idem_store.print,
        idem_store.status, idem_store.body, idem_store.meta, idem_store.etag,
        app.now())
    returning at into v_out;

    return v_out;
end $$;

-- What a worker added to an answer while its request waited is what a replay
-- repeats.
create or replace function api.idem_amend(scope text, key text, print text,
    body json)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_out boolean;
begin
    update app.idempotency i
    set body = idem_amend.body
    where i.scope = idem_amend.scope and i.key = idem_amend.key
        and i.print = idem_amend.print and i.status > 0
    returning true into v_out;

    return v_out;
end $$;


-- Views of schema api call these as the edge; it has no USAGE on app, so it
-- cannot name them.
grant execute on function app.now(), app.ts(timestamptz) to stoa_edge;
