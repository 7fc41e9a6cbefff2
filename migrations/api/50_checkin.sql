-- Admission at the online door, many scans in one statement.

-- Staff of the event, its organizer, an admin; a device only at its own.
create or replace function app.scan_can(ctx api.ctx, event uuid)
returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return case when (ctx).device is not null then exists (
            select from app.scanner_devices d
            where d.id = (ctx).device and d.event_id = event
                and d.revoked_at is null)
        else app.event_can(ctx, event, 'scan') end;
end $$;

-- A nonce belongs to a device, or to a person at a device that the person
-- names; no name holds the control character between the two.
create or replace function app.scan_nonce(device uuid, device_id text,
    nonce text)
returns text
language sql immutable
as $$
    select case when device is null and device_id is not null
        then device_id || E'\x1f' || nonce else nonce end
$$;

-- What a scan is told, in two parts: the first is the same for all that are
-- admitted at once.  concat(), not json_build_object(), which looks the type
-- of each argument up at each call; text, as a cast to json reads it again.
create or replace function app.scan_head(verdict text, reason text, at text)
returns text
language sql stable
as $$
    select concat('{"verdict":"', verdict,
        '","reason":', coalesce('"' || reason || '"', 'null'),
        ',"admittedAt":', coalesce('"' || at || '"', 'null'), ',"gate":')
$$;

create or replace function app.scan_body(head text, gate text, state text,
    ticket text, type uuid, type_name text, holder_name text, order_id uuid,
    event uuid)
returns text
language sql stable
as $$
    select concat(head, coalesce(to_json(gate)::text, 'null'),
        ',"ticket":{"id":"', ticket, '","state":"', state,
        '","ticketTypeId":"', type,
        '","ticketTypeName":', to_json(type_name),
        ',"holderName":', to_json(holder_name),
        ',"orderId":"', order_id, '","eventId":"', event, '"}}')
$$;

-- One scan per ord.  Verdicts, validity first and duplicates second: unknown,
-- wrong_event, cancelled, not_paid, not_yet, expired, already_used, admitted;
-- exits say exited or not_inside; mode lookup says valid where a scan would
-- admit, and writes nothing.
--
-- Most scans admit.  A first statement does those, whose guard is the ticket's
-- state in its own update; what it did not admit is judged with every reason,
-- under a lock.  There, several scans of one ticket take turns, one statement
-- per turn, so that the second sees what the first did.  Who scans stands in
-- arrays of its own: reading api.ctx from its text took a tenth of the time.
--
-- Locks: nonces, then tickets by code, whose first characters are unique and
-- never change; all who lock several tickets do so by code.  Who has rows of
-- the first statement does not wait for others: the batch fails (55P03), and
-- the edge runs each of its scans alone.  A plan is made once per connection,
-- and on small tables too it is the one for large tables.
drop function if exists api.orders_validate(int[], text[], uuid[], text[],
    uuid[], uuid[], text[], text[], uuid[], text[], text[], text[], text[],
    text[]);

create or replace function api.orders_validate(ords int[], codes text[],
    actors uuid[], roles text[], devices uuid[], device_events uuid[],
    ips text[], request_ids text[], event_ids uuid[], device_ids text[],
    nonces text[], modes text[], gates text[], directions text[],
    keys uuid[] default null)
returns setof api.answers_text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
    v_now constant timestamptz := app.now();
    v_at constant text := app.ts(v_now);
    v_nonce text[] := nonces;
    v_copy boolean[];            -- null: no nonce stands here twice
    v_done int[];                -- admitted by the first statement
    v_head constant text := app.scan_head('admitted', null, v_at);
    v_bodies text[];
    v_ids uuid[];
    v_nonces boolean := cardinality(array_remove(nonces, null)) > 0;
    v_turn int[];                -- 0: done
    v_turns int[];
    v_key bigint;
    v_t int;
begin
    -- One nonce in two batches: one after the other, so that the later one
    -- finds what the earlier one stored.
    if v_nonces then
        select array_agg(x.nonce order by x.i),
            array_agg(x.nonce is not null and x.n > 1 order by x.i)
        into v_nonce, v_copy
        from (
            select x.i, x.nonce, row_number() over (
                partition by x.nonce, x.scanner order by x.i) as n
            from (
                select x.i, coalesce(x.device, x.actor) as scanner,
                    case when x.mode is distinct from 'lookup' then
                        app.scan_nonce(x.device, x.device_id, x.nonce)
                    end as nonce
                from unnest(ords, modes, nonces, device_ids, actors, devices)
                    with ordinality
                    x (ord, mode, nonce, device_id, actor, device, i)) x) x;

        for v_key in
            select distinct hashtextextended(coalesce(x.device,
                x.actor)::text || x.nonce, 7) as k
            from unnest(v_nonce, actors, devices) x (nonce, actor, device)
            where x.nonce is not null
            order by k
        loop
            perform pg_advisory_xact_lock(v_key);
        end loop;
    end if;

    perform app.pause('orders_validate');

    -- The part of the code that carries its id finds the ticket.
    with admitted as (
        update app.tickets t
        set state = 'admitted',
            admitted_at = v_now,
            admitted_gate = coalesce(u.gate, d.gate),
            admitted_by = u.scanner,
            updated_at = v_now,
            version = t.version + 1
        from (
            select u.i, upper(codes[u.i] collate "C") as code,
                event_ids[u.i] as event_id, v_nonce[u.i] as nonce,
                gates[u.i] as gate, actors[u.i] as actor,
                roles[u.i] as roles, devices[u.i] as device,
                coalesce(devices[u.i], actors[u.i]) as scanner,
                device_events[u.i] as event, ips[u.i] as ip,
                request_ids[u.i] as request_id, keys[u.i] as key
            from generate_subscripts(ords, 1) u (i)
            where modes[u.i] is distinct from 'lookup'
                and directions[u.i] is distinct from 'exit'
                and (v_copy is null or not v_copy[u.i])
            order by 2, 1) u
        left join app.scanner_devices d on d.id = u.device
        cross join app.ticket_types y
        cross join app.events e
        where left(t.code, 28) = left(u.code, 28)
            and t.code = u.code
            and t.state = 'valid'
            and t.event_id = coalesce(u.event, u.event_id, t.event_id)
            and y.id = t.ticket_type_id
            and (y.valid_from > v_now) is not true
            and e.id = t.event_id
            and e.status <> 'cancelled'
            and coalesce(y.valid_until, e.ends_at) > v_now
            and case
                when u.device is not null then d.revoked_at is null
                    and d.event_id = u.event
                    and coalesce(u.event_id, u.event) = u.event
                else 'admin' = any (u.roles::text[])
                    or e.organizer_id = u.actor
                    or exists (
                        select from app.event_staff s
                        where s.event_id = t.event_id
                            and s.user_id = u.actor)
                end
            and (u.nonce is null or not exists (
                select from app.scan_events r
                where r.scanner = u.scanner and r.nonce = u.nonce))
        returning u.i, u.actor, u.device, u.scanner, u.nonce, u.ip,
            u.request_id, u.key, t.id, t.id::text as id_text, t.event_id,
            t.ticket_type_id, t.holder_name, t.order_id, t.generation,
            t.admitted_gate as gate, y.name as type_name),
    scanned as (
        insert into app.scan_events (event_id, ticket_id, scanner, nonce,
            gate, direction, verdict, scanned_at, admitted_at,
            admitted_gate, generation, received_at)
        select a.event_id, a.id, a.scanner, a.nonce, a.gate, 'entry',
            'admitted', v_now, v_now, a.gate, a.generation, v_now
        from admitted a),
    audited as (
        insert into app.audit_log (at, actor, device, action, resource,
            resource_id, changes, ip, request_id, api_key, digest)
        select v_now, a.actor, a.device, 'ticket.scan', 'ticket',
            a.id_text, '{"verdict": "admitted"}'::jsonb, a.ip,
            a.request_id, a.key, app.audit_digest(v_now, a.actor, a.device,
                'ticket.scan', 'ticket', a.id_text,
                '{"verdict": "admitted"}'::jsonb, a.ip, a.request_id, null,
                a.key)
        from admitted a)
    select array_agg(ords[a.i]), array_agg(app.scan_body(v_head, a.gate,
        'admitted', a.id_text, a.ticket_type_id, a.type_name, a.holder_name,
        a.order_id, a.event_id))
    into v_done, v_bodies
    from admitted a;

    return query
    select d.ord, 200, d.body, null::json, null::text, null::json,
        null::bigint
    from unnest(v_done, v_bodies) d (ord, body);

    if cardinality(v_done) = cardinality(ords) then
        return;
    end if;
    v_done := coalesce(v_done, '{}'::int[]);

    select array_agg(distinct t.id) into v_ids
    from unnest(codes, modes, ords) x (code, mode, ord)
    join app.tickets t
        on left(t.code, 28) = left(upper(x.code collate "C"), 28)
    where x.mode is distinct from 'lookup' and x.ord <> all (v_done);

    if v_done = '{}' then
        perform
        from app.tickets t
        where t.id = any (v_ids)
        order by t.code
        for no key update;
    else
        perform
        from app.tickets t
        where t.id = any (v_ids)
        order by t.code
        for no key update nowait;
    end if;

    select array_agg(r.turn order by r.i),
        array_agg(distinct r.turn order by r.turn) filter (where r.turn > 0)
    into v_turn, v_turns
    from (
        select x.i, case when x.ord = any (v_done) then 0
                when v_copy[x.i] then 1000 + x.i -- each sees the ones before
                when x.mode = 'lookup' then 1
                else row_number() over (partition by x.code,
                    x.mode = 'lookup', x.ord = any (v_done), v_copy[x.i]
                    order by x.i)
            end::int as turn
        from (
            select x.i, x.ord, x.mode,
                left(upper(x.code collate "C"), 28) as code
            from unnest(codes, modes, ords) with ordinality
                x (code, mode, ord, i)) x) r;

    foreach v_t in array v_turns loop
        return query
        with x as (
            select u.*, ords[u.i] as ord, coalesce(u.device, u.actor)
                    as scanner,
                coalesce(u.direction, 'entry') as way,
                u.mode is distinct from 'lookup' as scans,
                coalesce('admin' = any (u.roles::text[]), false) as admin
            from unnest(codes, event_ids, v_nonce, modes, gates, directions,
                actors, roles, devices, device_events, ips, request_ids, keys)
                with ordinality
                u (code, event_id, nonce, mode, gate, direction, actor, roles,
                    device, event, ip, request_id, key, i)
            where v_turn[u.i] = v_t),
        f as ( -- found
            select x.*, t.id as t_id, t.state,
                t.code = upper(x.code collate "C") as same,
                t.event_id as t_event, t.ticket_type_id, t.holder_name,
                t.order_id, t.admitted_at, t.admitted_gate, t.generation,
                y.name as type_name, y.valid_from,
                coalesce(y.valid_until, e.ends_at) as valid_until,
                e.status as event_status, e.organizer_id, e.reentry,
                coalesce(x.event, x.event_id, t.event_id) as at_event,
                coalesce(x.gate, d.gate) as at_gate,
                d.id is not null and d.revoked_at is null
                    and coalesce(x.event_id, x.event) = x.event as device_ok
            from x
            left join app.tickets t
                on left(t.code, 28) = left(upper(x.code collate "C"), 28)
            left join app.ticket_types y on y.id = t.ticket_type_id
            left join app.events e on e.id = t.event_id
            left join app.scanner_devices d on d.id = x.device),
        j as ( -- judged
            select f.*,
                case
                    when f.device is not null then f.device_ok
                    when f.at_event is null then true
                    when f.admin then f.at_event is not distinct from f.t_event
                        or exists (
                            select from app.events g
                            where g.id = f.at_event)
                    when f.at_event = f.t_event and f.organizer_id = f.actor
                        then true
                    else exists (
                            select from app.event_staff s
                            where s.event_id = f.at_event
                                and s.user_id = f.actor)
                        or exists (
                            select from app.events g
                            where g.id = f.at_event
                                and g.organizer_id = f.actor)
                end as allowed,
                case
                    when f.t_id is null then 'unknown'
                    when not f.same then case when exists (
                            select from app.ticket_revocations k
                            where k.ticket_id = f.t_id
                                and k.code_sha256 = sha256(convert_to(
                                    upper(f.code collate "C"), 'UTF8')))
                        then 'cancelled' else 'unknown' end
                    when f.t_event <> f.at_event then 'wrong_event'
                    when f.state in ('reserved', 'expired') then 'not_paid'
                    when f.event_status = 'cancelled'
                        or f.state in ('cancelled', 'refunded')
                        then 'cancelled'
                    when f.way = 'exit' then case f.state
                        when 'admitted' then 'exited' else 'not_inside' end
                    when f.valid_from > v_now then 'not_yet'
                    when f.valid_until <= v_now then 'expired'
                    when f.state = 'admitted'
                        or (f.state = 'exited' and not f.reentry)
                        then 'already_used'
                    when f.scans then 'admitted'
                    else 'valid'
                end as verdict
            from f
            offset 0), -- judged once
        v as ( -- with what a nonce was told before
            select j.ord, j.scanner, j.nonce, j.way, j.scans, j.device,
                j.actor, j.ip, j.request_id, j.key, j.at_event, j.allowed,
                j.code, j.t_id, j.state, j.ticket_type_id, j.type_name,
                j.holder_name, j.order_id, j.t_event, j.generation,
                r.id as told,
                -- a nonce names one scan, not whatever comes with it
                r.id is not null and (r.ticket_id is distinct from j.t_id
                    or r.event_id is distinct from j.at_event
                    or r.direction <> j.way or r.gate <> j.at_gate
                    or r.verdict in ('admitted', 'exited')
                        and not j.same) as reused,
                coalesce(r.verdict, j.verdict) as verdict,
                case when r.id is not null then r.reason
                    when j.verdict = 'cancelled' then case
                        when not j.same then 'replaced'
                        when j.state in ('cancelled', 'refunded') then j.state
                        else 'event_cancelled' end
                end as reason,
                case when r.id is not null then r.admitted_at
                    when j.verdict = 'admitted' then v_now
                    when j.verdict in ('already_used', 'exited')
                        then j.admitted_at end as shown_at,
                case when r.id is not null then r.admitted_gate
                    when j.verdict = 'admitted' then j.at_gate
                    when j.verdict in ('already_used', 'exited')
                        then j.admitted_gate end as shown_gate,
                j.at_gate, j.allowed and j.scans and r.id is null as stores
            from j
            left join app.scan_events r
                on r.scanner = j.scanner and r.nonce = j.nonce),
        moved as (
            update app.tickets t
            set state = v.verdict,
                admitted_at = v.shown_at,
                admitted_gate = v.shown_gate,
                admitted_by = case when v.verdict = 'admitted'
                    then v.scanner else t.admitted_by end,
                updated_at = v_now,
                version = t.version + 1
            from v
            where t.id = v.t_id and v.stores
                and v.verdict in ('admitted', 'exited')),
        scanned as (
            insert into app.scan_events (event_id, ticket_id, scanner, nonce,
                gate, direction, verdict, reason, scanned_at, admitted_at,
                admitted_gate, generation, received_at)
            select v.at_event, v.t_id, v.scanner, v.nonce, v.at_gate, v.way,
                v.verdict, v.reason, v_now, v.shown_at, v.shown_gate,
                v.generation, v_now
            from v
            where v.stores),
        audited as (
            insert into app.audit_log (at, actor, device, action, resource,
                resource_id, changes, ip, request_id, api_key, digest)
            select v_now, v.actor, v.device, 'ticket.scan', 'ticket',
                v.t_id::text, a.changes, v.ip, v.request_id, v.key,
                app.audit_digest(v_now, v.actor, v.device, 'ticket.scan',
                    'ticket', v.t_id::text, a.changes, v.ip, v.request_id,
                    null, v.key)
            from v
            cross join lateral (select case v.verdict
                    when 'admitted' then '{"verdict": "admitted"}'::jsonb
                    else jsonb_build_object('verdict', v.verdict)
                end as changes) a
            where v.stores)
        select v.ord,
            case when v.allowed and v.reused is not true then 200 else 0 end,
            case
                when not v.allowed then '{"code":"FORBIDDEN"}'
                when v.reused then '{"code":"NONCE_REUSED"}'
                when v.verdict in ('unknown', 'wrong_event') then
                    '{"verdict":"' || v.verdict || '"}'
                else app.scan_body(app.scan_head(v.verdict, v.reason, case
                        when v.told is null and v.verdict = 'admitted'
                            then v_at else app.ts(v.shown_at) end),
                    v.shown_gate, case when v.stores
                            and v.verdict in ('admitted', 'exited')
                        then v.verdict else v.state end,
                    v.t_id::text, v.ticket_type_id, v.type_name,
                    v.holder_name, v.order_id, v.t_event)
            end,
            null::json, null::text, null::json, null::bigint
        from v;
    end loop;
end $$;
