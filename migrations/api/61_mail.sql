-- task.mail_*: what a mail says, and what became of it.  As in 60_tasks.sql,
-- each is one statement and one transaction; all may be repeated.

-- An event's own part of a mail.
create or replace function app.mail_event(event uuid)
returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select jsonb_build_object(
            'eventTitle', e.title,
            'eventLocation', e.location,
            'startsLocal', app.local_time(e.starts_at, e.timezone),
            'endsLocal', app.local_time(e.ends_at, e.timezone),
            'timezone', e.timezone)
        from app.events e
        where e.id = event);
end $$;

-- The mails that carry a token: what it is for, and for how long.
create or replace function app.mail_tokens()
returns table (template text, purpose text, hours int)
language sql immutable
as $$
    values ('password_reset', 'password_reset', 2),
        ('invite', 'password_reset', 72),
        ('verify_email', 'email_verify', 24),
        ('change_email', 'email_change', 24)
$$;

-- Who gets it and what it says; read when it is sent, so a mail never speaks
-- of a state that has passed.  null: it is void by now.
create or replace function app.mail_build(payload jsonb)
returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    v_template text := payload->>'template';
    v_user app.users;
    v_order app.orders;
    v_ticket app.tickets;
    v_data jsonb := '{}'::jsonb;
    v_tickets jsonb := '[]'::jsonb;
begin
    case v_template
    when 'welcome', 'password_reset', 'password_changed', 'verify_email',
        'change_email', 'change_notice', 'invite', 'identity_linked',
        'password_removed'
    then
        select u.* into v_user
        from app.users u
        where u.id = (payload->>'user_id')::uuid;

        if (v_template = 'verify_email'
                and v_user.email_verified_at is not null)
            or (v_template = 'change_email'
                and v_user.pending_email is distinct from payload->>'to')
        then
            return null; -- proved or asked for anew since
        end if;

        select jsonb_build_object('hours', m.hours) into v_data
        from app.mail_tokens() m
        where m.template = v_template;
        v_data := coalesce(v_data, '{}') || jsonb_build_object(
            'provider', payload->>'provider');

    when 'mfa_notice' then
        select u.* into v_user
        from app.users u
        where u.id = (payload->>'user_id')::uuid;

        -- one template; what happened is the section that shows
        v_data := jsonb_build_object('mfa_' || (payload->>'what'), '1',
            'left', payload->>'left');

    when 'key_notice' then
        select u.* into v_user
        from app.users u
        where u.id = (payload->>'user_id')::uuid;

        -- its name is left out: it is anybody's words
        select jsonb_build_object('key_' || (payload->>'what'), '1',
            'key_new', case when payload->>'what' <> 'ends' then '1' end,
            'prefix', k.prefix,
            'scopes', array_to_string(k.scopes, ', '),
            'service', case o.kind when 'service' then o.first_name end,
            'days', app.key_remind()) into v_data
        from app.api_keys k
        join app.users o on o.id = k.owner_id
        where k.id = (payload->>'key_id')::uuid
            and (payload->>'what' <> 'ends' or k.revoked_at is null);

        if not found then
            return null;
        end if;

    when 'order_paid', 'order_refunded', 'order_cancelled', 'refund_failed',
        'tickets_cancelled', 'event_cancelled'
    then
        select o.* into v_order
        from app.orders o
        where o.id = (payload->>'order_id')::uuid;

        -- the organizer, the holder of tickets that ended, or the buyer
        select u.* into v_user
        from app.users u
        where u.id = case when v_template = 'refund_failed' then (
                select e.organizer_id from app.events e
                where e.id = v_order.event_id)
            else coalesce((payload->>'holder_id')::uuid, v_order.buyer_id)
            end;

        v_data := app.mail_event(v_order.event_id) || jsonb_build_object(
            'orderId', v_order.id,
            'totalCents', v_order.total_cents,
            'currency', v_order.currency,
            'reason', case when v_template = 'event_cancelled' then (
                    select e.cancel_reason from app.events e
                    where e.id = v_order.event_id)
                when v_template in ('order_refunded', 'refund_failed') then (
                    select case when v_template = 'refund_failed'
                        then r.error_message
                        when r.requested_by is not null
                            and r.reason <> 'requested by the organizer'
                            then r.reason end
                    from app.refunds r
                    where r.id = (payload->>'refund_id')::uuid)
                else payload->>'reason' end,
            'late', case when exists (
                select from app.refunds r
                where r.id = (payload->>'refund_id')::uuid
                    and r.reason = 'paid too late') then '1' else '' end);

        if v_template = 'order_paid' then
            select coalesce(jsonb_agg(x.item order by x.id), '[]')
            into v_tickets
            from (
                select t.id, jsonb_build_object(
                    'id', t.id,
                    'code', t.code,
                    'typeName', i.name,
                    'holder', t.holder_name) as item
                from app.tickets t
                join app.order_items i on i.order_id = t.order_id
                    and i.line = t.line
                where t.order_id = v_order.id and t.state = 'valid'
                    and t.holder_id = v_order.buyer_id
                order by t.id
                limit 100) x;

            if v_tickets = '[]' then
                return null; -- refunded, cancelled or given away since
            end if;
        else
            v_data := v_data || jsonb_build_object('refundCents', coalesce((
                select r.amount_cents from app.refunds r
                where r.id = (payload->>'refund_id')::uuid),
                (payload->>'refund_cents')::bigint, 0));
        end if;

    when 'ticket_transferred' then
        select t.* into v_ticket
        from app.tickets t
        where t.id = (payload->>'ticket_id')::uuid;

        if v_ticket.state is distinct from 'valid'
            or v_ticket.generation <> (payload->>'generation')::int
        then
            return null;
        end if;

        select u.* into v_user
        from app.users u
        where u.id = v_ticket.holder_id;

        v_data := app.mail_event(v_ticket.event_id) || jsonb_build_object(
            'fromName', (select btrim(f.first_name || ' ' || f.last_name)
                from app.users f where f.id = (payload->>'from_id')::uuid));
        v_tickets := (
            select jsonb_build_array(jsonb_build_object(
                'id', v_ticket.id,
                'code', v_ticket.code,
                'typeName', y.name,
                'holder', v_ticket.holder_name))
            from app.ticket_types y
            where y.id = v_ticket.ticket_type_id);
    else
        return null;
    end case;

    -- a program has no address
    if v_user.id is null or v_user.status = 'deleted'
        or (v_user.email is null and not payload ? 'to')
    then
        return null;
    end if;

    return jsonb_build_object(
        'result', 'send',
        'template', v_template,
        'lang', v_user.preferred_language,
        'to', coalesce(payload->>'to', v_user.email),
        -- nobody's words reach an address that may be somebody else's
        'toName', case when v_template not in ('verify_email', 'change_email')
            then nullif(btrim(v_user.first_name || ' ' || v_user.last_name),
                '') end,
        'data', v_data || jsonb_build_object('name', v_user.first_name),
        'tickets', v_tickets);
end $$;

create or replace function task.mail_begin(id bigint, payload jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_mail jsonb;
    v_why text;
begin
    if not exists (
        select from queue.outbox o where o.id = mail_begin.id and o.state < 2)
    then
        return '{"result":"done"}'::jsonb;
    end if;

    v_mail := app.mail_build(payload);

    if v_mail is null then
        perform queue.done(mail_begin.id);
        return '{"result":"done"}'::jsonb;
    end if;

    select s.reason into v_why
    from app.mail_suppressions s
    where s.email = app.email(v_mail->>'to');

    if found then
        perform queue.dead(mail_begin.id, 'suppressed');
        return '{"result":"dead","reason":"suppressed"}'::jsonb;
    end if;

    return v_mail;
end $$;

-- The hash of the token that is on its way to this address.  A newer mail's
-- token ends those of older ones; a mail that is sent twice has two that work.
create or replace function task.mail_token(id bigint, payload jsonb,
    email text, token_sha256 bytea)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_user uuid := (payload->>'user_id')::uuid;
    v_purpose text;
    v_hours int;
begin
    select m.purpose, m.hours into strict v_purpose, v_hours
    from app.mail_tokens() m
    where m.template = payload->>'template';

    -- the user's row first, as whoever uses a token does
    perform from app.users u where u.id = v_user for no key update;

    update app.one_time_tokens t
    set used_at = app.now()
    where t.user_id = v_user and t.purpose = v_purpose and t.used_at is null
        and t.created_at < (
            select o.created_at from queue.outbox o
            where o.id = mail_token.id);

    insert into app.one_time_tokens (token_hash, user_id, purpose, email,
        created_at, expires_at)
    values (token_sha256, v_user, v_purpose, app.email(mail_token.email),
        app.now(), app.now() + make_interval(hours => v_hours))
    on conflict on constraint one_time_tokens_pkey do nothing;
end $$;

create or replace function task.mail_done(id bigint, payload jsonb,
    result jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if queue.done(mail_done.id) then
        perform app.audit(app.ctx_task('mail.send'), 'mail.sent', 'mail',
            mail_done.id::text, jsonb_build_object(
                'template', payload->>'template',
                'message_id', mail_done.result->>'messageId',
                'via', mail_done.result->>'via'));
    end if;

    return '{"result":"done"}'::jsonb;
end $$;

create or replace function task.mail_failed(id bigint, payload jsonb,
    result jsonb)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_reason text := coalesce(mail_failed.result->>'reason', 'refused');
begin
    if queue.dead(mail_failed.id, v_reason)
        and coalesce((mail_failed.result->>'suppress')::boolean, false)
    then
        insert into app.mail_suppressions (email, reason, created_at)
        select app.email(app.mail_build(payload)->>'to'), v_reason, app.now()
        where app.mail_build(payload) is not null
        on conflict on constraint mail_suppressions_pkey do nothing;
    end if;

    return jsonb_build_object('result', 'dead', 'reason', v_reason);
end $$;
