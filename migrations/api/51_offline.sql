-- Devices, what they carry when they are alone, and the merge of what they
-- did (decision 25).

-- ---- devices ----

-- The pairing code is the edge's; its sum is stored until it is used.
create or replace function api.device_pair(ctx api.ctx, event_id uuid,
    code_sha256 bytea, body jsonb)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_id uuid := app.uuid7();
    v_now timestamptz := app.now();
begin
    if not app.event_can(ctx, device_pair.event_id, 'manage') then
        return app.fail('NOT_FOUND');
    end if;

    insert into app.scanner_devices (id, event_id, name, gate, pair_hash,
        pair_expires_at, created_by, created_at)
    values (v_id, device_pair.event_id, body->>'name', body->>'gate',
        code_sha256, v_now + interval '10 min', (ctx).actor, v_now);

    perform app.audit(ctx, 'device.pair', 'device', v_id::text,
        jsonb_build_object('event_id', device_pair.event_id,
            'name', body->>'name'));

    return app.ok(201, json_build_object(
        'id', v_id,
        'deviceId', v_id,
        'eventId', device_pair.event_id,
        'name', body->>'name',
        'gate', body->>'gate',
        'expiresAt', app.ts(v_now + interval '10 min')));
end $$;

create or replace function api.device_login(ctx api.ctx, code_sha256 bytea)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_device app.scanner_devices;
begin
    update app.scanner_devices d
    set pair_hash = null, paired_at = app.now(), last_seen_at = app.now()
    where d.pair_hash = code_sha256 and d.pair_expires_at > app.now()
        and d.revoked_at is null
    returning d.* into v_device;

    if not found then
        return app.fail('INVALID_CREDENTIALS');
    end if;

    perform app.audit(ctx, 'device.login', 'device', v_device.id::text);

    return (
        select app.ok(200, json_build_object(
            'deviceId', v_device.id,
            'eventId', v_device.event_id,
            'eventTitle', e.title,
            'name', v_device.name,
            'gate', v_device.gate))
        from app.events e
        where e.id = v_device.event_id);
end $$;

create or replace view api.devices_list as
select d.id, d.event_id, d.name, d.created_at,
    json_build_object(
        'id', d.id,
        'eventId', d.event_id,
        'name', d.name,
        'gate', d.gate,
        'pairedAt', app.ts(d.paired_at),
        'lastSeenAt', app.ts(d.last_seen_at),
        'revokedAt', app.ts(d.revoked_at),
        'createdAt', app.ts(d.created_at)) as item
from app.scanner_devices d;

-- Device tokens live 90 days; so does the word that this one is dead.  One
-- that was never paired has no token.
create or replace function api.devices_delete(ctx api.ctx, id uuid)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_device app.scanner_devices;
    v_until timestamptz;
    v_entry text;
begin
    select d.* into v_device
    from app.scanner_devices d
    where d.id = devices_delete.id
    for no key update;

    if not found or not app.event_can(ctx, v_device.event_id, 'manage') then
        return app.fail('NOT_FOUND');
    end if;

    v_until := v_device.paired_at + interval '91 days';
    v_entry := 'device ' || v_device.id || ' ' || app.ms(v_until);

    if v_device.revoked_at is null then
        update app.scanner_devices d
        set revoked_at = app.now(), pair_hash = null
        where d.id = v_device.id;

        insert into app.revocations (entry, at, expires_at)
        select v_entry, app.now(), v_until
        where v_entry is not null;

        perform app.audit(ctx, 'device.revoke', 'device',
            v_device.id::text);
    end if;

    return app.ok(204, null, emit => case when v_entry is not null
        then json_build_array(json_build_object('ctl', v_entry)) end);
end $$;


-- ---- what a device carries ----

-- Why this caller may not scan at this event; status null: may.
create or replace function app.scan_refused(ctx api.ctx, event uuid)
returns api.answer
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if event is null then
        return app.fault('eventId', 'required', 'is required');
    end if;

    if not app.scan_can(ctx, event) then
        return app.fail('FORBIDDEN');
    end if;

    return null;
end $$;

-- Everything by parts of 5000 tickets ("next"), or what changed since the
-- last answer's "until".  That lies 30 s back, further than any transaction
-- is long: some rows come twice, none is missed.
create or replace function api.checkin_snapshot(ctx api.ctx, event_id uuid,
    since timestamptz, after uuid)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_event uuid := coalesce(event_id, (ctx).event);
    v_fail api.answer;
    v_tickets json;
    v_last uuid;
    v_n int;
begin
    v_fail := app.scan_refused(ctx, v_event);

    if v_fail.status is not null then
        return v_fail;
    end if;

    if (ctx).device is not null then
        update app.scanner_devices d
        set last_seen_at = app.now(),
            snapshot_version = d.snapshot_version + 1
        where d.id = (ctx).device;
    end if;

    select coalesce(json_agg(p.item order by p.id), '[]'), count(*),
        (array_agg(p.id order by p.id desc))[1]
    into v_tickets, v_n, v_last
    from (
        select t.id, json_build_object(
            'id', t.id,
            'ticketTypeId', t.ticket_type_id,
            'generation', t.generation,
            'state', t.state,
            'holderName', t.holder_name,
            'admittedAt', app.ts(t.admitted_at),
            'gate', t.admitted_gate,
            'conflict', t.conflict) as item
        from app.tickets t
        where t.event_id = v_event
            and (after is null or t.id > after)
            and (since is null or t.updated_at >= since)
            and (since is not null or t.state <> 'reserved')
        order by t.id
        limit 5000) p;

    return app.ok(200, (
        select json_build_object(
            'eventId', e.id,
            'title', e.title,
            'status', e.status,
            'reentry', e.reentry,
            'startsAt', app.ts(e.starts_at),
            'endsAt', app.ts(e.ends_at),
            'serverTime', app.ts(app.now()),
            'until', app.ts(app.now() - interval '30 s'),
            'keys', case when app.setting('ticket_public_key') is null
                then '[]'::json
                else json_build_array(json_build_object('kid', 1,
                    'alg', 'Ed25519',
                    'publicKey', app.setting('ticket_public_key'))) end,
            'ticketTypes', coalesce((
                select json_agg(json_build_object(
                    'id', y.id,
                    'name', y.name,
                    'validFrom', app.ts(y.valid_from),
                    'validUntil', app.ts(coalesce(y.valid_until,
                        e.ends_at))) order by y.sort, y.id)
                from app.ticket_types y
                where y.event_id = e.id), '[]'),
            'tickets', v_tickets,
            'revocations', coalesce((
                select json_agg(json_build_object(
                    'ticketId', r.ticket_id,
                    'generation', r.generation,
                    'reason', r.reason) order by r.ticket_id, r.generation)
                from app.ticket_revocations r
                where r.event_id = e.id
                    and (since is null or r.at >= since)), '[]'),
            'next', case when v_n = 5000 then v_last end)
        from app.events e
        where e.id = v_event));
end $$;


-- ---- the merge ----

-- What happened at the doors is what the devices say, in the order of the
-- corrected clocks.  Each item is stored once (device, nonce); then, for the
-- tickets it touched, all scans are judged again in order of (corrected time,
-- device, nonce).  The result is a function of the set of stored scans: it
-- does not depend on the order, the splitting or the repetition of uploads.
--
-- A light that was green stays on record: what should not have been admitted
-- (used, cancelled or replaced before, too early, too late) is kept and
-- flagged as a conflict.  A ticket of another event is nobody's to touch here:
-- its scan is kept without it.
--
-- A corrected time in the future, or of years ago, comes of a broken clock;
-- kept, it would win or lose against every other scan of the ticket.
create or replace function app.scan_faults(items jsonb, v_now timestamptz)
returns api.answer
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select app.fail('VALIDATION_FAILED', json_build_object('errors',
            json_agg(json_build_object(
                'pointer', '/items/' || x.n - 1 || '/scannedAt',
                'code', x.code,
                'detail', case x.code when 'too_large'
                    then 'lies in the future' else 'lies too far back' end)
                order by x.n)))
        from (
            select i.n, case
                    when i.at > v_now + interval '5 min' then 'too_large'
                    when i.at < v_now - interval '1 year' then 'too_small'
                end as code
            from (
                select e.n, (e.item->>'scanned_at')::timestamptz
                    + coalesce((e.item->>'clock_offset_ms')::bigint, 0)
                    * interval '1 ms' as at
                from jsonb_array_elements(items) with ordinality e (item, n)) i
            ) x
        where x.code is not null
        having count(*) > 0);
end $$;

create or replace function api.checkin_batch(ctx api.ctx, event_id uuid,
    device_id text, items jsonb)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now timestamptz := app.now();
    v_event uuid := coalesce(event_id, (ctx).event);
    v_fail api.answer;
    v_scanner uuid := coalesce((ctx).device, (ctx).actor);
    v_gate text;
    v_tickets uuid[];
begin
    if v_event is null then
        return app.fault('/eventId', 'required', 'is required');
    end if;

    v_fail := app.scan_refused(ctx, v_event);

    if v_fail.status is not null then
        return v_fail;
    end if;

    v_fail := app.scan_faults(items, v_now);

    if v_fail.status is not null then
        return v_fail;
    end if;

    -- the uploads of one scanner one after the other
    perform pg_advisory_xact_lock(hashtextextended(v_scanner::text, 8));

    update app.scanner_devices d
    set last_seen_at = v_now
    where d.id = (ctx).device
    returning d.gate into v_gate;

    select array_agg(t.id) into v_tickets
    from (
        select t.id
        from app.tickets t
        where t.event_id = v_event and left(t.code, 28) in (
            select left(upper(i->>'code'), 28)
            from jsonb_array_elements(items) i)
        order by t.code
        for no key update) t;

    perform app.pause('checkin_batch');

    insert into app.scan_events (event_id, ticket_id, scanner, nonce, gate,
        direction, verdict, reason, offline, conflict, scanned_at, device_at,
        offset_ms, generation, received_at)
    select distinct on (x.nonce) v_event, x.ticket_id, v_scanner, x.nonce,
        x.gate, x.way, coalesce(x.verdict, 'admitted'), x.reason, true,
        x.verdict is not null, x.at + x.shift * interval '1 ms', x.at,
        x.shift, x.generation, v_now
    from (
        select i.n, app.scan_nonce((ctx).device,
                checkin_batch.device_id, i.item->>'nonce') as nonce,
            coalesce(i.item->>'gate', v_gate) as gate,
            coalesce(i.item->>'direction', 'entry') as way,
            (i.item->>'scanned_at')::timestamptz as at,
            coalesce((i.item->>'clock_offset_ms')::bigint, 0) as shift,
            case when t.event_id = v_event
                and (t.code = upper(i.item->>'code')
                    or k.ticket_id is not null) then t.id end as ticket_id,
            case when t.code = upper(i.item->>'code') then t.generation
                else k.generation end as generation,
            case
                when t.id is null then 'unknown'
                when t.event_id <> v_event then 'wrong_event'
                when t.code = upper(i.item->>'code') then null
                when k.ticket_id is not null then 'cancelled'
                else 'unknown'
            end as verdict,
            case
                when t.id is null then 'unknown'
                when t.event_id <> v_event then 'wrong_event'
                when t.code = upper(i.item->>'code') then null
                when k.ticket_id is not null then 'replaced'
                else 'unknown'
            end as reason
        from jsonb_array_elements(items) with ordinality i (item, n)
        left join app.tickets t
            on left(t.code, 28) = left(upper(i.item->>'code'), 28)
        left join app.ticket_revocations k
            on k.ticket_id = t.id and k.code_sha256
                = sha256(convert_to(upper(i.item->>'code'), 'UTF8'))) x
    order by x.nonce, x.n
    on conflict (scanner, nonce) where nonce is not null do nothing;

    perform app.scans_judge(v_tickets, v_now);

    perform app.audit(ctx, 'checkin.batch', 'event', v_event::text,
        jsonb_build_object('items', jsonb_array_length(items),
            'scanner', v_scanner));

    return app.ok(200, (
        select json_build_object('items', json_agg(json_build_object(
            'nonce', i.item->>'nonce',
            'verdict', s.verdict,
            'conflict', s.conflict,
            'reason', s.reason,
            'admittedAt', app.ts(s.admitted_at),
            'gate', s.admitted_gate,
            'ticketId', s.ticket_id) order by i.n))
        from jsonb_array_elements(items) with ordinality i (item, n)
        join app.scan_events s on s.scanner = v_scanner
            and s.nonce = app.scan_nonce((ctx).device,
                checkin_batch.device_id, i.item->>'nonce')));
end $$;

-- Judges all scans of these tickets, which the caller has locked, anew.
create or replace function app.scans_judge(tickets uuid[], v_now timestamptz)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    r record;
    v_ticket uuid;
    v_state text;
    v_at timestamptz;
    v_gate text;
    v_by uuid;
    v_conflict boolean;
    v_bad boolean;
    v_verdict text;
    s_id bigint[] := '{}'::bigint[];
    s_verdict text[] := '{}'::text[];
    s_conflict boolean[] := '{}'::boolean[];
    s_at timestamptz[] := '{}'::timestamptz[];
    s_gate text[] := '{}'::text[];
    t_id uuid[] := '{}'::uuid[];
    t_state text[] := '{}'::text[];
    t_at timestamptz[] := '{}'::timestamptz[];
    t_gate text[] := '{}'::text[];
    t_by uuid[] := '{}'::uuid[];
    t_conflict boolean[] := '{}'::boolean[];
begin
    for r in
        select s.id, s.ticket_id, s.offline, s.direction, s.verdict, s.reason,
            s.scanned_at, s.scanner, s.gate, t.state, t.ended_at, e.reentry,
            y.valid_from, coalesce(y.valid_until, e.ends_at) as valid_until
        from app.scan_events s
        join app.tickets t on t.id = s.ticket_id
        join app.ticket_types y on y.id = t.ticket_type_id
        join app.events e on e.id = t.event_id
        where s.ticket_id = any (tickets)
            and (s.offline or s.verdict in ('admitted', 'exited'))
        order by s.ticket_id, s.scanned_at, s.scanner, s.nonce, s.id
    loop
        if r.ticket_id is distinct from v_ticket then
            if v_ticket is not null then
                t_id := t_id || v_ticket;
                t_state := t_state || v_state;
                t_at := t_at || v_at;
                t_gate := t_gate || v_gate;
                t_by := t_by || v_by;
                t_conflict := t_conflict || v_conflict;
            end if;
            v_ticket := r.ticket_id;
            v_state := 'valid';
            v_at := null;
            v_gate := null;
            v_by := null;
            v_conflict := false;
        end if;

        if r.reason is not null and r.offline then
            v_bad := true;
            v_verdict := r.verdict; -- replaced, wrong event: settled
        elsif r.state = 'reserved' then
            v_bad := true;
            v_verdict := 'not_paid';
        elsif r.ended_at <= r.scanned_at then
            v_bad := true;
            v_verdict := 'cancelled';
        elsif r.direction = 'exit' then
            v_bad := false;
            v_verdict := case v_state when 'admitted' then 'exited'
                else 'not_inside' end;
            if v_state = 'admitted' then
                v_state := 'exited';
            end if;
        elsif r.offline and r.valid_from > r.scanned_at then
            v_bad := true;
            v_verdict := 'not_yet';
        elsif r.offline and r.valid_until <= r.scanned_at then
            v_bad := true;
            v_verdict := 'expired';
        elsif v_state = 'valid' or (v_state = 'exited' and r.reentry) then
            v_bad := false;
            v_verdict := 'admitted';
            v_state := 'admitted';
            v_at := r.scanned_at;
            v_gate := r.gate;
            v_by := r.scanner;
        else
            v_bad := true;
            v_verdict := 'already_used';
        end if;

        v_conflict := v_conflict or v_bad;
        s_id := s_id || r.id;
        -- what the online door answered stays as it was answered
        s_verdict := s_verdict || case when r.offline then v_verdict
            else r.verdict end;
        s_conflict := s_conflict || v_bad;
        s_at := s_at || v_at;
        s_gate := s_gate || v_gate;
    end loop;

    if v_ticket is null then
        return;
    end if;

    t_id := t_id || v_ticket;
    t_state := t_state || v_state;
    t_at := t_at || v_at;
    t_gate := t_gate || v_gate;
    t_by := t_by || v_by;
    t_conflict := t_conflict || v_conflict;

    update app.scan_events s
    set verdict = x.verdict,
        conflict = x.conflict,
        admitted_at = case when s.offline then x.at else s.admitted_at end,
        admitted_gate = case when s.offline then x.gate
            else s.admitted_gate end
    from unnest(s_id, s_verdict, s_conflict, s_at, s_gate)
        x (id, verdict, conflict, at, gate)
    where s.id = x.id
        and (s.verdict, s.conflict, s.admitted_at, s.admitted_gate)
            is distinct from (x.verdict, x.conflict, x.at, x.gate);

    update app.tickets t
    set state = case when t.state in ('valid', 'admitted', 'exited')
            then x.state else t.state end,
        admitted_at = x.at,
        admitted_gate = x.gate,
        admitted_by = x.by,
        conflict = x.conflict,
        updated_at = v_now,
        version = t.version + 1
    from unnest(t_id, t_state, t_at, t_gate, t_by, t_conflict)
        x (id, state, at, gate, by, conflict)
    where t.id = x.id
        and (t.admitted_at, t.admitted_gate, t.admitted_by, t.conflict,
            case when t.state in ('valid', 'admitted', 'exited')
                then t.state else x.state end)
            is distinct from (x.at, x.gate, x.by, x.conflict, x.state);
end $$;

create or replace function api.checkin_stats(ctx api.ctx, id uuid)
returns api.answer
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_fail api.answer;
begin
    v_fail := app.scan_refused(ctx, id);

    if v_fail.status is not null then
        return v_fail;
    end if;

    return app.ok(200, (
        select json_build_object(
            'eventId', checkin_stats.id,
            'tickets', count(*),
            'admitted', count(*) filter (where t.state = 'admitted'),
            'exited', count(*) filter (where t.state = 'exited'),
            'outside', count(*) filter (where t.state = 'valid'),
            'conflicts', count(*) filter (where t.conflict),
            'ticketTypes', coalesce((
                select json_agg(json_build_object(
                    'ticketTypeId', y.id,
                    'name', y.name,
                    'tickets', y.tickets,
                    'admitted', y.admitted) order by y.sort, y.id)
                from (
                    select y.id, y.name, y.sort, count(t.id) as tickets,
                        count(t.id) filter (where t.state in ('admitted',
                            'exited')) as admitted
                    from app.ticket_types y
                    left join app.tickets t on t.ticket_type_id = y.id
                        and t.event_id = y.event_id
                        and t.state in ('valid', 'admitted', 'exited')
                    where y.event_id = checkin_stats.id
                    group by y.id) y), '[]'),
            'gates', coalesce((
                select json_agg(json_build_object(
                    'gate', g.gate, 'admitted', g.n) order by g.gate)
                from (
                    select t.admitted_gate as gate, count(*) as n
                    from app.tickets t
                    where t.event_id = checkin_stats.id
                        and t.state in ('admitted', 'exited')
                    group by t.admitted_gate) g), '[]'))
        from app.tickets t
        where t.event_id = checkin_stats.id
            and t.state in ('valid', 'admitted', 'exited')));
end $$;
