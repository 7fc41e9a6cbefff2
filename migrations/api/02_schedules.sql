-- queue.*: schedules.  A row of a task says how often ("every_s") or when, as
-- cron(5) does, by the wall clock of a time zone.  The leading worker asks
-- each second; a slot is taken once, by whoever locks its row.

-- The numbers of one field of a cron line: "*", "5", "1-5", "*/10", "1-9/2",
-- lists of these; names of months and days by their first three letters.
create or replace function queue.cron_field(field text, least_n int,
    most_n int, names text[] default '{}')
returns int[]
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
    v_part text;
    v_m text[];
    v_from int;
    v_to int;
    v_out int[] := array[]::int[];
begin
    for v_part in
        select x
        from unnest(string_to_array(lower(field), ',')) x
    loop
        for i in 1 .. cardinality(names) loop
            v_part := regexp_replace(v_part, '\m' || names[i] || '\M',
                (least_n + i - 1)::text, 'g');
        end loop;

        v_m := regexp_match(v_part,
            '^(?:(\*)|([0-9]{1,2})(?:-([0-9]{1,2}))?)(?:/([0-9]{1,2}))?$');

        if v_m is null then
            raise exception 'cron: "%" is no field', field
                using errcode = '22023';
        end if;

        v_from := coalesce(v_m[2]::int, least_n);
        v_to := case when v_m[1] is not null then most_n
            when v_m[3] is not null then v_m[3]::int
            when v_m[4] is not null then most_n
            else v_from end;

        if v_from < least_n or v_to > most_n or v_from > v_to
            or v_m[4] = '0'
        then
            raise exception 'cron: "%" is not from % to %', field, least_n,
                most_n using errcode = '22023';
        end if;

        v_out := v_out || array(select generate_series(v_from, v_to,
            coalesce(v_m[4]::int, 1)));
    end loop;

    if cardinality(v_out) = 0 then
        raise exception 'cron: an empty field' using errcode = '22023';
    end if;

    return v_out;
end $$;

-- The first moment after a given one at which a line is due.  Hours that are
-- named are of the wall clock: one that a change of the clocks leaves out is
-- due as long after midnight as ever, one that comes twice is due the first
-- time (RFC 5545, 3.3.5).  With "*" for the hour it is due in every hour that
-- passes.  Null: never, within eight years.
create or replace function queue.cron_next(line text, zone text,
    after timestamptz)
returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    v_f text[] := regexp_split_to_array(btrim(line), '\s+');
    v_minutes int[];
    v_hours int[];
    v_doms int[];
    v_months int[];
    v_dows int[];
    v_day date := (after at time zone zone)::date;
    v_last date := v_day + 2922;
    v_out timestamptz;
begin
    if cardinality(v_f) <> 5 then
        raise exception 'cron: "%" has not five fields', line
            using errcode = '22023';
    end if;

    v_minutes := queue.cron_field(v_f[1], 0, 59);
    v_hours := queue.cron_field(v_f[2], 0, 23);
    v_doms := queue.cron_field(v_f[3], 1, 31);
    v_months := queue.cron_field(v_f[4], 1, 12, array['jan', 'feb', 'mar',
        'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec']);
    v_dows := queue.cron_field(v_f[5], 0, 7, array['sun', 'mon', 'tue', 'wed',
        'thu', 'fri', 'sat']);

    if 7 = any (v_dows) then
        v_dows := v_dows || 0;
    end if;

    while v_day <= v_last loop
        if date_part('month', v_day)::int = any (v_months)
            and (date_part('day', v_day)::int = any (v_doms)
                    and date_part('dow', v_day)::int = any (v_dows)
                or v_f[3] <> '*' and v_f[5] <> '*'
                    and (date_part('day', v_day)::int = any (v_doms)
                        or date_part('dow', v_day)::int = any (v_dows)))
        then
            if starts_with(v_f[2], '*') then
                select min(t) into v_out
                from generate_series(v_day::timestamp at time zone zone,
                    (v_day + 1)::timestamp at time zone zone
                        - interval '1 min', interval '1 min') t
                where t > after
                    and date_part('minute', t at time zone zone)::int
                        = any (v_minutes)
                    and date_part('hour', t at time zone zone)::int
                        = any (v_hours);
            else
                select min(case
                    when (t - interval '1 h') at time zone zone = l
                        then t - interval '1 h'
                    else t end) into v_out
                from unnest(v_hours) h, unnest(v_minutes) m,
                    lateral (select v_day + make_time(h, m, 0) as l) l,
                    lateral (select l at time zone zone as t) t
                where case
                    when (t - interval '1 h') at time zone zone = l
                        then t - interval '1 h'
                    else t end > after;
            end if;

            if v_out is not null then
                return v_out;
            end if;
        end if;

        v_day := v_day + 1;
    end loop;

    return null;
end $$;

-- Enqueues one slot of a kind; of a kind that was missed for long, as its row
-- says: none ("skip"), one ("once"), or each of them ("all", a hundred in one
-- go at most).
create or replace function queue.schedule_cron(kind text, line text,
    zone text, missed text)
returns int
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now timestamptz := app.now();
    v_row queue.schedules;
    v_next timestamptz;
    v_out int := 0;
begin
    select s.* into v_row
    from queue.schedules s
    where s.kind = schedule_cron.kind;

    if v_row.line is not distinct from line || ' ' || zone
        and v_row.next_at > v_now
    then
        return 0;
    end if;

    insert into queue.schedules as s (kind, slot)
    values (schedule_cron.kind, 0)
    on conflict on constraint schedules_pkey do nothing;

    select s.* into v_row
    from queue.schedules s
    where s.kind = schedule_cron.kind
    for update;

    -- new, or its line was changed: from now on
    if v_row.line is distinct from line || ' ' || zone then
        v_next := queue.cron_next(line, zone, v_now);

    else
        v_next := v_row.next_at;

        while v_next <= v_now and v_out < 100 loop
            if missed = 'all' or v_next > v_now - interval '1 min'
                or missed = 'once'
                    and queue.cron_next(line, zone, v_next) > v_now
            then
                perform queue.enqueue(schedule_cron.kind,
                    jsonb_build_object('slot', app.ts(v_next)), null,
                    schedule_cron.kind || ':' || app.ms(v_next));
                v_row.last_at := v_next;
                v_out := v_out + 1;
            end if;

            v_next := queue.cron_next(line, zone, v_next);
        end loop;
    end if;

    update queue.schedules s
    set line = schedule_cron.line || ' ' || zone, next_at = v_next,
        last_at = v_row.last_at
    where s.kind = schedule_cron.kind;

    return v_out;
end $$;

drop function if exists queue.schedule(text[], int[]);

-- every_s 0: by its cron line.
create or replace function queue.schedule(kinds text[], every_s int[],
    lines text[], zones text[], missed text[])
returns int
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_out int;
    v_row record;
begin
    with due as (
        insert into queue.schedules as s (kind, slot, last_at)
        select t.kind,
            floor(date_part('epoch', app.now())
                / t.every_s)::bigint, app.now()
        from unnest(kinds, every_s) t (kind, every_s)
        where t.every_s > 0
        order by t.kind
        on conflict (kind) do update
        set slot = excluded.slot, last_at = excluded.last_at
        where s.slot < excluded.slot
        returning s.kind, s.slot)
    select count(queue.enqueue(d.kind, '{}', null,
        d.kind || ':' || d.slot))::int into v_out
    from due d;

    for v_row in
        select t.*
        from unnest(kinds, every_s, lines, zones, missed)
            t (kind, every_s, line, zone, missed)
        where t.every_s = 0
        order by t.kind
    loop
        v_out := v_out + queue.schedule_cron(v_row.kind, v_row.line,
            v_row.zone, v_row.missed);
    end loop;

    return v_out;
end $$;

-- What the workers have seen of their schedules.
create or replace function queue.schedules()
returns table (kind text, last_at text, next_at text)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select s.kind, app.ts(s.last_at), app.ts(s.next_at)
    from queue.schedules s
    order by s.kind
$$;

-- One run of a kind now, beside its schedule.
create or replace function queue.schedule_now(kind text)
returns bigint
language sql
security definer
set search_path = pg_catalog, pg_temp
as $$
    select queue.enqueue(kind, '{}', null, kind || ':now')
$$;
