-- Schedules: the cron line and its clocks, slots that are taken once, slots
-- that were missed.

begin;
\ir _lib.sql
select no_plan();

-- ---- lines ----

create function pg_temp.next(line text, after timestamptz,
    zone text default 'UTC') returns text language sql as $$
    select to_char(queue.cron_next(line, zone, after) at time zone 'UTC',
        'YYYY-MM-DD HH24:MI:SS') $$;

create temp table wants (line text, after timestamptz, zone text, wants text,
    what text);
insert into wants values
('0 3 * * *', '2026-11-22 02:59:59Z', 'UTC', '2026-11-22 03:00:00', 'daily'),
('0 3 * * *', '2026-11-22 03:00:00Z', 'UTC', '2026-11-23 03:00:00',
    'after, not at'),
('*/15 * * * *', '2026-11-22 10:15:30Z', 'UTC', '2026-11-22 10:30:00', 'steps'),
('7-59/20 8-10 * * *', '2026-11-22 08:27:00Z', 'UTC', '2026-11-22 08:47:00',
    'a range with steps'),
('0 9 1 * *', '2026-12-01 09:00:00Z', 'UTC', '2027-01-01 09:00:00', 'monthly'),
('0 0 29 2 *', '2026-03-01 00:00:00Z', 'UTC', '2028-02-29 00:00:00',
    'a day that few years have'),
('0 0 31 4 *', '2026-01-01 00:00:00Z', 'UTC', null, 'a day that none has'),
('30 6 * * mon-fri', '2026-11-20 12:00:00Z', 'UTC', '2026-11-23 06:30:00',
    'days by name'),
('0 0 * * 7', '2026-11-20 00:00:00Z', 'UTC', '2026-11-22 00:00:00',
    'Sunday is 7, too'),
('0 0 13 * 5', '2026-11-01 00:00:00Z', 'UTC', '2026-11-06 00:00:00',
    'a day of the month or of the week, as cron has it'),
('0 12 * jan,JUL *', '2026-02-01 00:00:00Z', 'UTC', '2026-07-01 12:00:00',
    'months by name'),
('0 3 * * *', '2026-01-10 00:00:00Z', 'Asia/Tokyo', '2026-01-10 18:00:00',
    'another zone'),
-- clocks go forward at 02:00 on 2026-03-08, back at 02:00 on 2026-11-01
('30 2 * * *', '2026-03-07 12:00:00Z', 'America/New_York',
    '2026-03-08 07:30:00', 'an hour that is left out: 03:30 EDT'),
('30 2 * * *', '2026-03-08 07:30:00Z', 'America/New_York',
    '2026-03-09 06:30:00', 'and once only'),
('30 1 * * *', '2026-10-31 12:00:00Z', 'America/New_York',
    '2026-11-01 05:30:00', 'an hour that comes twice: the first'),
('30 1 * * *', '2026-11-01 05:30:00Z', 'America/New_York',
    '2026-11-02 06:30:00', 'and not the second'),
('*/30 * * * *', '2026-11-01 05:30:00Z', 'America/New_York',
    '2026-11-01 06:00:00', 'each half hour goes on through it'),
('*/30 * * * *', '2026-11-01 06:00:00Z', 'America/New_York',
    '2026-11-01 06:30:00', 'with no hour without'),
('0 0 * * *', '2026-03-28 12:00:00Z', 'Asia/Beirut', '2026-03-28 22:00:00',
    'a day without a midnight begins at one');

select is(pg_temp.next(line, after, zone), wants, line || ': ' || what)
from wants;

-- each day of two years has its run, whatever the clocks do
select is((with recursive r as (
    select queue.cron_next('30 2 * * *', z, '2026-01-01Z') as t, z, 1 as n
    from unnest(array['America/New_York', 'Europe/Berlin',
        'Australia/Lord_Howe', 'Pacific/Apia']) z
    union all
    select queue.cron_next('30 2 * * *', r.z, r.t), r.z, r.n + 1
    from r where r.n < 730)
    select count(distinct (z, (t at time zone z)::date)) from r),
    (4 * 730)::bigint, 'one a day');

select throws_ok(format('select queue.cron_next(%L, %L, now())', l, 'UTC'),
    '22023', null, '"' || l || '" is refused')
from unnest(array['', '* * * *', '60 * * * *', '* 24 * * *', '* * 0 * *',
    '* * * 13 *', '* * * * 8', '5-1 * * * *', '*/0 * * * *', 'a * * * *',
    '* * * * * *', '1, * * * *', '-1 * * * *']) l;
select throws_ok($$select queue.cron_next('* * * * *', 'Mars/Base', now())$$,
    '22023', null, 'an unknown zone is refused');

-- ---- slots ----

create function pg_temp.at(at timestamptz) returns void language sql as $$
    select t.clock(at - pg_catalog.now()) $$;

create function pg_temp.tick(missed text, line text default '0 3 * * *')
returns int language sql as $$
    select queue.schedule(array['retention.sweep'], array[0], array[line],
        array['UTC'], array[missed]) $$;
create function pg_temp.slots() returns text[] language sql as $$
    select array_agg(payload->>'slot' order by id) from queue.outbox
    where kind = 'retention.sweep' $$;

select pg_temp.at('2031-05-01 02:00:00Z');
select is(pg_temp.tick('once'), 0, 'a new line waits for its time');
select pg_temp.at('2031-05-01 03:00:01Z');
select is(pg_temp.tick('once'), 1, 'due');
select is(pg_temp.tick('once'), 0, 'once');
select is(pg_temp.slots(), array['2031-05-01T03:00:00.000Z'], 'its slot');

delete from queue.outbox;
select pg_temp.at('2031-05-04 12:00:00Z');
select is(pg_temp.tick('once'), 1, 'three were missed: one run');
select is(pg_temp.slots(), array['2031-05-04T03:00:00.000Z'], 'the last');

delete from queue.outbox;
select pg_temp.at('2031-05-07 12:00:00Z');
select is(pg_temp.tick('skip'), 0, 'or none');
select pg_temp.at('2031-05-08 03:00:30Z');
select is(pg_temp.tick('skip'), 1, 'half a minute late is not missed');

delete from queue.outbox;
select pg_temp.at('2031-05-10 12:00:00Z');
select is(pg_temp.tick('all'), 2, 'or each of them');
select is(pg_temp.slots(), array['2031-05-09T03:00:00.000Z',
    '2031-05-10T03:00:00.000Z'], 'in order');

delete from queue.outbox;
select pg_temp.at('2032-05-10 12:00:00Z');
select is(pg_temp.tick('all'), 100, 'a year of them: not all in one go');
select is(pg_temp.tick('all'), 100, 'they go on');

delete from queue.outbox;
select is(pg_temp.tick('all', '0 4 * * *'), 0, 'another line: from now on');
select is((select next_at from queue.schedules()
    where kind = 'retention.sweep'), '2032-05-11T04:00:00.000Z', 'as told');

select * from finish();
rollback;
