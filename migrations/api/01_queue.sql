-- queue.*: the outbox and what the worker engine does with it.
--
-- A row is written in the transaction of the change that wants it, shown to
-- Redis by the relay (peek, enqueue, sent: the id dedupes), and leaves in the
-- transaction of the task's effect (done).  What Redis loses, sweep sends
-- again.

-- one row per id and per live uniq; answers the id that stands
create or replace function queue.enqueue(kind text, payload jsonb,
    run_at timestamptz default null, uniq text default null,
    reply_to text default null)
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
            created_at)
        values (enqueue.kind, enqueue.payload,
            coalesce(enqueue.run_at, app.now()), enqueue.uniq,
            enqueue.reply_to, app.now())
        on conflict (uniq) where uniq is not null and state < 2 do nothing
        returning o.id into v_id;

        if v_id is not null then
            return v_id;
        end if;

        select o.id into v_id
        from queue.outbox o
        where o.uniq = enqueue.uniq and o.state < 2;

        if v_id is not null then
            return v_id;
        end if;
        -- it was done between the two: try again
    end loop;
end $$;

create or replace function queue.peek(max int)
returns table (id bigint, kind text, payload jsonb, uniq text, reply_to text,
    delay_ms bigint, created_ms bigint)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select o.id, o.kind, o.payload, o.uniq, o.reply_to,
        greatest(0, app.ms(o.run_at) - app.ms(app.now())),
        app.ms(o.created_at)
    from queue.outbox o
    where o.state = 0 and o.run_at <= app.now() + interval '60 s'
    order by o.id
    limit peek.max;
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
        where o.id = any (ids) and o.state = 0
        order by o.id
        for no key update skip locked),
    moved as (
        update queue.outbox o
        set state = 1, sent_at = app.now(), tries = o.tries + 1
        from claimed c
        where o.id = c.id
        returning o.id)
    select count(*)::int into v_out from moved;

    return v_out;
end $$;

create or replace function queue.sweep(max int)
returns table (id bigint, kind text, payload jsonb, uniq text, reply_to text,
    delay_ms bigint, created_ms bigint)
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
        app.ms(o.created_at);
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
    select exists (select from gone) into v_out;

    return v_out;
end $$;

create or replace function queue.dead(id bigint, reason text)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_out boolean;
begin
    with moved as (
        update queue.outbox o
        set state = 2, last_error = left(dead.reason, 2000)
        where o.id = dead.id and o.state < 2
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
    select exists (select from moved) into v_out;

    return v_out;
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

create or replace function queue.schedule(kinds text[], every_s int[])
returns int
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_out int;
begin
    with due as (
        insert into queue.schedules as s (kind, slot)
        select t.kind,
            floor(date_part('epoch', app.now())
                / t.every_s)::bigint
        from unnest(kinds, every_s) t (kind, every_s)
        order by t.kind
        on conflict (kind) do update set slot = excluded.slot
        where s.slot < excluded.slot
        returning s.kind, s.slot)
    select count(queue.enqueue(d.kind, '{}', null,
        d.kind || ':' || d.slot))::int into v_out
    from due d;

    return v_out;
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

create or replace function queue.dead_list(kind text, max int)
returns table (id bigint, kind text, tries int, last_error text,
    created_at text, payload jsonb)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select o.id, o.kind, o.tries, o.last_error, app.ts(o.created_at), o.payload
    from queue.outbox o
    where o.state = 2 and ($1 is null or o.kind = $1)
    order by o.id
    limit $2
$$;

create or replace function queue.redrive(kind text, max int)
returns int
language sql
security definer
set search_path = pg_catalog, pg_temp
as $$
    with claimed as (
        select o.id from queue.outbox o
        where o.state = 2 and ($1 is null or o.kind = $1)
            and not exists (select from queue.outbox l
                where l.uniq = o.uniq and (l.state < 2 or l.id < o.id))
        order by o.id
        limit $2
        for no key update skip locked),
    moved as (
        update queue.outbox o
        set state = 0, tries = 0, run_at = app.now(), last_error = null
        from claimed c
        where o.id = c.id
        returning o.id)
    select count(*)::int from moved
$$;

create or replace function queue.redrive_one(id bigint)
returns boolean
language sql
security definer
set search_path = pg_catalog, pg_temp
as $$
    with moved as (
        update queue.outbox o
        set state = 0, tries = 0, run_at = app.now(), last_error = null
        where o.id = redrive_one.id and o.state = 2
            and not exists (select from queue.outbox l
                where l.uniq = o.uniq and l.state < 2)
        returning o.id)
    select exists (select from moved)
$$;
