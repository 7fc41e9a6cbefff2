-- tickets.*: what holders see, transfer, reissue, files.

create or replace view api.tickets_detail as
select t.id, t.holder_id, t.event_id, t.version,
    json_build_object(
        'id', t.id,
        'code', t.code,
        'state', t.state,
        'generation', t.generation,
        'orderId', t.order_id,
        'ticketTypeId', t.ticket_type_id,
        'ticketTypeName', y.name,
        'holderId', t.holder_id,
        'holderName', t.holder_name,
        'priceCents', t.price_cents,
        'currency', e.currency,
        'eventId', t.event_id,
        'eventTitle', e.title,
        'startsAt', app.ts(e.starts_at),
        'endsAt', app.ts(e.ends_at),
        'timezone', e.timezone,
        'location', e.location,
        'onlineLink', case when t.state in ('valid', 'admitted', 'exited')
            then e.online_link end,
        'admittedAt', app.ts(t.admitted_at),
        'gate', t.admitted_gate,
        'version', t.version,
        'createdAt', app.ts(t.created_at)) as body
from app.tickets t
join app.ticket_types y on y.id = t.ticket_type_id
join app.events e on e.id = t.event_id
where t.state <> 'reserved';

create or replace view api.tickets_list as
select t.id, t.holder_id, t.event_id, t.state, t.created_at, e.starts_at,
    e.ends_at > app.now() as upcoming, e.title as event_title,
    y.name as type_name, t.holder_name,
    json_build_object(
        'id', t.id,
        'state', t.state,
        'orderId', t.order_id,
        'ticketTypeId', t.ticket_type_id,
        'ticketTypeName', y.name,
        'holderName', t.holder_name,
        'eventId', t.event_id,
        'eventTitle', e.title,
        'startsAt', app.ts(e.starts_at),
        'timezone', e.timezone,
        'location', e.location,
        'createdAt', app.ts(t.created_at)) as item
from app.tickets t
join app.ticket_types y on y.id = t.ticket_type_id
join app.events e on e.id = t.event_id;

-- The holder, or an admin; a ticket that was never paid is nobody's yet.
create or replace function app.ticket_own(ctx api.ctx, t app.tickets)
returns boolean
language sql stable
as $$
    select t.state <> 'reserved'
        and (t.holder_id = (ctx).actor or app.is_admin(ctx))
$$;

-- The code for a QR image.
create or replace function api.tickets_code(ctx api.ctx, id uuid)
returns api.answer
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_ticket app.tickets;
begin
    select t.* into v_ticket
    from app.tickets t
    where t.id = tickets_code.id;

    if not found or not app.ticket_own(ctx, v_ticket) then
        return app.fail('NOT_FOUND');
    end if;

    if v_ticket.state not in ('valid', 'admitted', 'exited') then
        return app.fail('INVALID_STATE', json_build_object(
            'detail', 'the ticket is ' || v_ticket.state));
    end if;

    return app.ok(200, json_build_object('code', v_ticket.code));
end $$;

-- First half of reissue and transfer: what the edge signs next.
create or replace function api.tickets_change_begin(ctx api.ctx, id uuid)
returns table (status int, body json, ticket_type_id uuid, generation int)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_ticket app.tickets;
    v_fail api.answer;
begin
    select t.* into v_ticket
    from app.tickets t
    where t.id = tickets_change_begin.id;

    if not found or not app.ticket_own(ctx, v_ticket) then
        v_fail := app.fail('NOT_FOUND');
    elsif v_ticket.state <> 'valid' or v_ticket.generation >= 250 then
        v_fail := app.fail('INVALID_STATE', json_build_object(
            'detail', 'the ticket is ' || v_ticket.state));
    end if;

    return query select v_fail.status, v_fail.body,
        v_ticket.ticket_type_id, v_ticket.generation::int;
end $$;

-- Second half: compare and swap on the generation.  The old code is dead from
-- this commit on, at the door and in the next snapshot.
create or replace function app.ticket_change(ctx api.ctx, id uuid,
    generation int, code text, holder uuid, holder_name text, why text)
returns api.answer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_old app.tickets;
    v_now timestamptz := app.now();
begin
    select t.* into v_old
    from app.tickets t
    where t.id = ticket_change.id
    for no key update;

    if not found or not app.ticket_own(ctx, v_old) then
        return app.fail('NOT_FOUND');
    end if;

    perform app.pause('ticket_change');

    if v_old.state <> 'valid' then
        return app.fail('INVALID_STATE', json_build_object(
            'detail', 'the ticket is ' || v_old.state));
    end if;

    if v_old.generation <> ticket_change.generation then
        return app.fail('CONFLICT', json_build_object(
            'detail', 'the ticket was changed at the same time'));
    end if;

    insert into app.ticket_revocations (ticket_id, event_id, generation,
        code_sha256, reason, at)
    values (v_old.id, v_old.event_id, v_old.generation,
        sha256(convert_to(v_old.code, 'UTF8')), why, v_now);

    update app.tickets t
    set code = upper(ticket_change.code),
        generation = t.generation + 1,
        holder_id = coalesce(holder, t.holder_id),
        holder_name = coalesce(ticket_change.holder_name, t.holder_name),
        updated_at = v_now,
        version = t.version + 1
    where t.id = v_old.id;

    delete from app.ticket_renders r where r.ticket_id = v_old.id;

    perform app.audit(ctx, 'ticket.' || why, 'ticket', v_old.id::text,
        jsonb_build_object('generation', v_old.generation + 1,
            'from', v_old.holder_id,
            'to', coalesce(holder, v_old.holder_id)));

    return null;
end $$;

create or replace function api.tickets_reissue(ctx api.ctx, id uuid,
    generation int, code text, body jsonb)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_fail api.answer;
begin
    v_fail := app.ticket_change(ctx, id, generation, code, null, null,
        'reissued');
    if v_fail.status is not null then
        return v_fail;
    end if;

    return (
        select app.ok(200, d.body, d.version::text)
        from api.tickets_detail d
        where d.id = tickets_reissue.id);
end $$;

-- The new holder needs an account.  They get the mail with the new code; the
-- old holder's answer does not carry it.
create or replace function api.tickets_transfer(ctx api.ctx, id uuid,
    generation int, code text, body jsonb)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_to app.users;
    v_from uuid;
    v_order app.orders;
    v_fail api.answer;
begin
    select t.holder_id into v_from
    from app.tickets t
    where t.id = tickets_transfer.id;

    -- orders are locked before tickets
    select o.* into v_order
    from app.orders o
    join app.tickets t on t.order_id = o.id
    where t.id = tickets_transfer.id and o.registration
    for no key update of o;

    select u.* into v_to
    from app.users u
    where u.email = app.email(body->>'email') and u.status = 'active';

    if not found then
        return app.fault('/email', 'unknown', 'has no account');
    end if;

    if v_to.id = v_from then
        return app.fault('/email', 'not_allowed', 'holds the ticket already');
    end if;

    -- a registration is its holder's, and everybody has one of an event
    if v_order.id is not null and exists (
        select from app.orders o
        where o.event_id = v_order.event_id and o.registrant_id = v_to.id
            and o.registration and o.holds
            and app.order_status(o.status, o.reserved_until) <> 'expired')
        and app.ticket_own(ctx, (
            select t from app.tickets t where t.id = tickets_transfer.id))
    then
        return app.fail('ALREADY_REGISTERED', json_build_object(
            'detail', 'the new holder has registered'));
    end if;

    v_fail := app.ticket_change(ctx, id, generation, code, v_to.id,
        btrim(v_to.first_name || ' ' || v_to.last_name), 'transferred');
    if v_fail.status is not null then
        return v_fail;
    end if;

    update app.orders o
    set registrant_id = v_to.id, updated_at = app.now(),
        version = o.version + 1
    where o.id = v_order.id;

    perform queue.enqueue('mail.send', jsonb_build_object(
        'template', 'ticket_transferred', 'ticket_id', id,
        'from_id', v_from, 'generation', generation + 1));

    return app.ok(200, json_build_object(
        'id', id,
        'state', 'valid',
        'generation', generation + 1,
        'holderName', btrim(v_to.first_name || ' ' || v_to.last_name)),
        emit => app.wake());
end $$;

-- A file drawn by a worker: there, or asked for and waited for.
create or replace function api.tickets_render(ctx api.ctx, id uuid,
    format text)
returns table (status int, body json, type text, bytes bytea, emit json,
    wait bigint)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_ticket app.tickets;
    v_fail api.answer;
    v_bytes bytea;
    v_task bigint;
    v_lang text;
begin
    select t.* into v_ticket
    from app.tickets t
    where t.id = tickets_render.id;

    if not found or not app.ticket_own(ctx, v_ticket) then
        v_fail := app.fail('NOT_FOUND');
    elsif v_ticket.state not in ('valid', 'admitted', 'exited') then
        v_fail := app.fail('INVALID_STATE', json_build_object(
            'detail', 'the ticket is ' || v_ticket.state));
    end if;

    if v_fail.status is not null then
        return query select v_fail.status, v_fail.body, null::text,
            null::bytea, null::json, null::bigint;
        return;
    end if;

    select r.bytes into v_bytes
    from app.ticket_renders r
    where r.ticket_id = v_ticket.id and r.generation = v_ticket.generation
        and r.format = tickets_render.format;

    if found then
        return query select 200, null::json,
            case tickets_render.format when 'pdf' then 'application/pdf'
                else 'image/png' end,
            v_bytes, null::json, null::bigint;
        return;
    end if;

    select coalesce(u.preferred_language, 'en') into v_lang
    from app.users u
    where u.id = v_ticket.holder_id;

    -- no uniq: each asker is told by its own task; drawing is idempotent
    v_task := queue.enqueue('ticket.render', jsonb_build_object(
        'ticket_id', v_ticket.id, 'generation', v_ticket.generation,
        'format', tickets_render.format, 'lang', v_lang),
        reply_to => (ctx).reply_to);

    return query select 202, json_build_object('id', v_ticket.id,
        'status', 'drawing'), null::text, null::bytea, app.wake(), v_task;
end $$;
