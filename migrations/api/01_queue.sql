-- queue.*: the outbox and what the worker engine does with it.
--
-- A row is written in the transaction of the change that wants it, shown to
-- Redis by the relay (peek, enqueue, sent: the id dedupes), and leaves in the
-- transaction of the task's effect (done).  What Redis loses, sweep sends
-- again.

-- One row per id and per live uniq; answers the id that stands.  Tasks of one
-- tenant take turns with those of others and of none.
drop function if exists queue.enqueue(text, jsonb, timestamptz, text, text);

create or replace function queue.enqueue(kind text, payload jsonb,
    run_at timestamptz default null, uniq text default null,
    reply_to text default null, tenant text default null)
returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_id bigint;
begin
    loop
        insert into queue.outbox as o (kind, payload, run_at, uniq, reply_to,
            tenant, created_at)
        values (enqueue.kind, enqueue.payload,
            coalesce(enqueue.run_at, app.now()), enqueue.uniq,
            enqueue.reply_to, enqueue.tenant, app.now())
        on conflict (uniq) where uniq is not null and state <> 2 do nothing
        returning o.id into v_id;

        if v_id is not null then
            return v_id;
        end if;

        select o.id into v_id
        from queue.outbox o
        where o.uniq = enqueue.uniq and o.state <> 2;

        if v_id is not null then
            return v_id;
        end if;
        -- it was done between the two: try again
    end loop;
end $$;

-- Calls of one key become one run, of the last payload, so long after the
-- last call, but no later than at_most after the first.  Answers its id.
create or replace function queue.debounce(kind text, payload jsonb, key text,
    delay interval, at_most interval default null, tenant text default null)
returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now timestamptz := app.now();
    v_id bigint;
begin
    insert into queue.outbox as o (kind, payload, run_at, debounce, tenant,
        created_at)
    values (debounce.kind, debounce.payload, v_now + delay, key,
        debounce.tenant, v_now)
    on conflict (debounce) where debounce is not null and state = 0 do update
    set kind = excluded.kind, payload = excluded.payload,
        tenant = excluded.tenant,
        run_at = least(excluded.run_at, o.created_at + at_most)
    returning o.id into v_id;

    return v_id;
end $$;

-- A task that runs when the given ones have ended, done or dead; the payload
-- of one whose children died gets "failedChildren", their number.
create or replace function queue.enqueue_after(kind text, payload jsonb,
    children bigint[], tenant text default null)
returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_live bigint[];
    v_id bigint;
begin
    select coalesce(array_agg(h.id), '{}') into v_live
    from (
        select o.id
        from queue.outbox o
        where o.id = any (children) and o.state <> 2 and o.parent is null
        order by o.id
        for no key update) h;

    insert into queue.outbox as o (kind, payload, run_at, tenant, state,
        awaits, created_at)
    values (enqueue_after.kind, enqueue_after.payload, app.now(),
        enqueue_after.tenant, case when v_live = '{}' then 0 else 3 end,
        cardinality(v_live), app.now())
    returning o.id into v_id;

    update queue.outbox o
    set parent = v_id
    where o.id = any (v_live);

    return v_id;
end $$;

-- One of the rows that a parent waits for has ended.
create or replace function queue.child_ended(parent bigint, failed boolean)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    update queue.outbox o
    set awaits = o.awaits - 1, failed = o.failed + child_ended.failed::int,
        state = case when o.awaits = 1 then 0 else 3 end,
        run_at = app.now(),
        payload = case when o.awaits = 1
                and o.failed + child_ended.failed::int > 0
            then o.payload || jsonb_build_object('failedChildren',
                o.failed + child_ended.failed::int)
            else o.payload end
    where o.id = child_ended.parent and o.state = 3;
end $$;

-- What is due within a minute.  A debounced row is taken at the moment it is
-- due, and marked before Redis knows of it, since until then it may change; if
-- Redis never hears of it the sweep finds it 10 s later.
create or replace function queue.peek(max int)
returns table (id bigint, kind text, payload jsonb, uniq text, reply_to text,
    delay_ms bigint, created_ms bigint, tenant text)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    with due as (
        select o.id
        from queue.outbox o
        where o.state = 0 and o.debounce is not null
            and o.run_at <= app.now()
        order by o.id
        limit peek.max / 2
        for no key update skip locked),
    taken as (
        update queue.outbox o
        set state = 1, sent_at = app.now() - interval '290 s',
            tries = o.tries + 1
        from due d
        where o.id = d.id
        returning o.*),
    shown as (
        select o.*
        from queue.outbox o
        where o.state = 0 and o.debounce is null
            and o.run_at <= app.now() + interval '60 s'
        order by o.id
        limit peek.max - peek.max / 2
            + (select peek.max / 2 - count(*) from taken))
    select o.id, o.kind, o.payload, o.uniq, o.reply_to,
        greatest(0, app.ms(o.run_at) - app.ms(app.now())),
        app.ms(o.created_at), o.tenant
    from (select * from taken union all select * from shown) o
    order by o.id;
end $$;

create or replace function queue.sent(ids bigint[])
returns int
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_out int;
begin
    with claimed as (
        select o.id from queue.outbox o
        where o.id = any (ids)
            and (o.state = 0 or o.state = 1 and o.debounce is not null)
        order by o.id
        for no key update skip locked),
    moved as (
        update queue.outbox o
        set state = 1, sent_at = app.now(),
            tries = o.tries + (o.state = 0)::int
        from claimed c
        where o.id = c.id
        returning o.id)
    select count(*)::int into v_out from moved;

    return v_out;
end $$;

create or replace function queue.sweep(max int)
returns table (id bigint, kind text, payload jsonb, uniq text, reply_to text,
    delay_ms bigint, created_ms bigint, tenant text)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    with claimed as (
        select o.id from queue.outbox o
        where o.state = 1 and o.sent_at < app.now() - interval '5 min'
        order by o.sent_at
        limit sweep.max
        for no key update skip locked)
    update queue.outbox o
    set sent_at = app.now()
    from claimed c
    where o.id = c.id
    returning o.id, o.kind, o.payload, o.uniq, o.reply_to,
        greatest(0, app.ms(o.run_at) - app.ms(app.now())),
        app.ms(o.created_at), o.tenant;
end $$;

-- Part of the effect's transaction.  false: the row is gone or dead, so the
-- effect was done or given up; do nothing.
create or replace function queue.done(id bigint)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_out boolean;
    v_parent bigint;
begin
    with gone as (
        delete from queue.outbox o
        where o.id = done.id and o.state < 2
        returning o.*),
    kept as (
        insert into queue.history (id, state, kind, payload, tries,
            created_at, finished_at)
        select g.id, 'done', g.kind, g.payload, g.tries, g.created_at,
            app.now()
        from gone g
        on conflict on constraint history_pkey do nothing)
    select true, g.parent into v_out, v_parent from gone g;

    if v_parent is not null then
        perform queue.child_ended(v_parent, false);
    end if;

    return coalesce(v_out, false);
end $$;

create or replace function queue.dead(id bigint, reason text)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_out boolean;
    v_parent bigint;
begin
    with held as materialized (
        select o.id, o.parent
        from queue.outbox o
        where o.id = dead.id and o.state <> 2
        for no key update),
    moved as (
        update queue.outbox o
        set state = 2, last_error = left(dead.reason, 2000), parent = null
        from held h
        where o.id = h.id
        returning o.*),
    kept as (
        insert into queue.history as h (id, state, kind, payload, tries,
            reason, created_at, finished_at)
        select m.id, 'dead', m.kind, m.payload, m.tries, m.last_error,
            m.created_at, app.now()
        from moved m
        on conflict on constraint history_pkey do update
        set reason = excluded.reason, tries = excluded.tries,
            finished_at = excluded.finished_at)
    select true, h.parent into v_out, v_parent from moved m, held h;

    if v_parent is not null then
        perform queue.child_ended(v_parent, true);
    end if;

    return coalesce(v_out, false);
end $$;

-- It will not run, or not to its end: what it does in one transaction is not
-- done, a call that is under way may be.  false: it has ended already.
create or replace function queue.cancel(id bigint)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if not queue.dead(cancel.id, 'canceled') then
        return false;
    end if;

    update queue.outbox o
    set canceled = true
    where o.id = cancel.id;

    return true;
end $$;

-- The canceled tasks that Redis has yet to forget; told: it has.
create or replace function queue.canceled(told bigint[], max int)
returns table (id bigint, kind text)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update queue.outbox o
    set canceled = false
    where o.id = any (told) and o.canceled;

    return query
    select o.id, o.kind
    from queue.outbox o
    where o.canceled
    order by o.id
    limit canceled.max;
end $$;

-- Asked about a task whose process died: whether its effect is there.
create or replace function queue.gone(id bigint)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return not exists (select from queue.outbox o where o.id = gone.id);
end $$;

create or replace function queue.stats()
returns jsonb
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    with k as (
        select o.kind,
            count(*) filter (where o.state = 0) as waiting,
            count(*) filter (where o.state = 1) as sent,
            count(*) filter (where o.state = 2) as dead,
            min(o.run_at) filter (
                where o.state = 0 and o.run_at <= app.now()) as oldest
        from queue.outbox o
        group by o.kind)
    select jsonb_build_object(
        'waiting', coalesce(sum(k.waiting), 0),
        'sent', coalesce(sum(k.sent), 0),
        'dead', coalesce(sum(k.dead), 0),
        'lagMs', coalesce(app.ms(app.now()) - app.ms(min(k.oldest)),
            0),
        'kinds', coalesce(jsonb_agg(jsonb_build_object(
            'kind', k.kind, 'waiting', k.waiting, 'sent', k.sent,
            'dead', k.dead) order by k.kind), '[]'))
    from k
$$;

-- What operators ask of a queue: a null leaves it as it is, a 0 takes the
-- limit back.
create or replace function queue.control(queue text, paused boolean,
    most int default null, each int default null)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    insert into queue.controls as c (queue, paused, most, each, changed_at)
    values (control.queue, coalesce(control.paused, false),
        nullif(control.most, 0), nullif(control.each, 0), app.now())
    on conflict on constraint controls_pkey do update
    set paused = coalesce(control.paused, c.paused),
        most = nullif(coalesce(control.most, c.most), 0),
        each = nullif(coalesce(control.each, c.each), 0),
        changed_at = app.now();
end $$;

create or replace function queue.controls()
returns table (queue text, paused boolean, most int, each int)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select c.queue, c.paused, c.most, c.each
    from queue.controls c
    order by c.queue
$$;

-- Names of the states, as lists and filters have them.
create or replace function queue.state_name(state smallint)
returns text
language sql immutable
as $$
    select (array['waiting', 'sent', 'dead', 'blocked'])[state + 1]
$$;

drop function if exists queue.dead_list(text, int);

-- The rows of the outbox, newest last; each filter may be null.
create or replace function queue.list(of_state text, of_kind text,
    of_tenant text, reason text, max int)
returns table (id bigint, kind text, state text, tries int, last_error text,
    created_at text, run_at text, tenant text, payload jsonb)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select o.id, o.kind, queue.state_name(o.state), o.tries, o.last_error,
        app.ts(o.created_at), app.ts(o.run_at), o.tenant, o.payload
    from queue.outbox o
    where (of_state is null or queue.state_name(o.state) = of_state)
        and (of_kind is null or o.kind = of_kind)
        and (of_tenant is null or o.tenant = of_tenant)
        and (list.reason is null or starts_with(o.last_error, list.reason))
    order by o.id
    limit list.max;
end $$;

-- One task, living or of the history, as JSON; null: never heard of, or
-- longer ago than the history is kept.
create or replace function queue.show(id bigint)
returns jsonb
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_out jsonb;
begin
    select jsonb_strip_nulls(jsonb_build_object('id', o.id, 'kind', o.kind,
        'state', queue.state_name(o.state), 'tries', o.tries,
        'lastError', o.last_error, 'tenant', o.tenant, 'uniq', o.uniq,
        'debounce', o.debounce, 'parent', o.parent,
        'awaits', nullif(o.awaits, 0), 'createdAt', app.ts(o.created_at),
        'runAt', app.ts(o.run_at), 'sentAt', app.ts(o.sent_at),
        'payload', o.payload)) into v_out
    from queue.outbox o
    where o.id = show.id;

    if v_out is not null then
        return v_out;
    end if;

    select jsonb_strip_nulls(jsonb_build_object('id', h.id, 'kind', h.kind,
        'state', h.state, 'tries', h.tries, 'lastError', h.reason,
        'createdAt', app.ts(h.created_at),
        'finishedAt', app.ts(h.finished_at), 'payload', h.payload))
        into v_out
    from queue.history h
    where h.id = show.id
    order by h.state desc
    limit 1;

    return v_out;
end $$;

drop function if exists queue.redrive(text, int);

-- Dead tasks run again, their attempts afresh: each_ms apart, so that many of
-- them do not come as a flood.
create or replace function queue.redrive(kind text, tenant text, reason text,
    max int, each_ms int default 0)
returns int
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_out int;
begin
    with claimed as (
        select o.id from queue.outbox o
        where o.state = 2 and (redrive.kind is null or o.kind = redrive.kind)
            and (redrive.tenant is null or o.tenant = redrive.tenant)
            and (redrive.reason is null
                or starts_with(o.last_error, redrive.reason))
            and not exists (select from queue.outbox l
                where l.uniq = o.uniq and (l.state <> 2 or l.id < o.id))
        order by o.id
        limit redrive.max
        for no key update skip locked),
    numbered as (
        select c.id, row_number() over (order by c.id) - 1 as n
        from claimed c),
    moved as (
        update queue.outbox o
        set state = 0, tries = 0, last_error = null, canceled = false,
            debounce = null, awaits = 0,
            run_at = app.now() + make_interval(
                secs => x.n * redrive.each_ms / 1000.0)
        from numbered x
        where o.id = x.id
        returning o.id)
    select count(*)::int into v_out from moved;

    return v_out;
end $$;

create or replace function queue.redrive_one(id bigint)
returns boolean
language sql
security definer
set search_path = pg_catalog, pg_temp
as $$
    with moved as (
        update queue.outbox o
        set state = 0, tries = 0, run_at = app.now(), last_error = null,
            canceled = false, debounce = null, awaits = 0
        where o.id = redrive_one.id and o.state = 2
            and not exists (select from queue.outbox l
                where l.uniq = o.uniq and l.state <> 2)
        returning o.id)
    select exists (select from moved)
$$;
