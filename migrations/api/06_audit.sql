-- The audit log: its verifier, and how admins read it.  Rows are made by
-- app.audit() (00_app.sql), the chain by task.audit_seal() (60_tasks.sql).

-- ---- verifying (decision 3) ----

-- Whether a row is what its digest was made of.  Every writer's words are
-- names, ids and addresses; a '|' or an empty one among them would let two
-- rows have one text.
create or replace function app.audit_whole(a app.audit_log)
returns boolean
language sql stable
as $$
    select (a).digest = app.audit_digest((a).at, (a).actor, (a).device,
            (a).action, (a).resource, (a).resource_id, (a).changes, (a).ip,
            (a).request_id, (a).acting_as, (a).api_key)
        and position('|' in concat((a).action, (a).resource,
            (a).resource_id, (a).ip, (a).request_id)) = 0
        and '' <> all (array[(a).action, (a).resource,
            coalesce((a).resource_id, '-'), coalesce((a).ip, '-'),
            coalesce((a).request_id, '-')])
$$;

-- Where a walk begins that is to see the links from a day on: behind the last
-- link before it.  No row: at the very beginning.
create or replace function app.audit_verify_from(since date)
returns table (day date, n bigint, hash text, xid text)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select c.day, c.n, encode(c.hash, 'hex'), c.audit_xid::text
    from app.audit_chain c
    where c.day < audit_verify_from.since
    order by c.day desc, c.n desc
    limit 1
$$;

-- One slice of the chain behind a link: each link against the one before it
-- and against its row, each row against its digest.  "walked" says how many
-- links and which was the last, no row of that name that there were none;
-- "expected", that the hash asked for is the hash of one of them; of the
-- others, how many and the first:
--   missing   the link's row is gone
--   altered   the row is not what its digest was made of
--   broken    the link does not follow from the one before and its row
create or replace function app.audit_verify_chain(day date, n bigint,
    hash text, slice int, expect text default null)
returns table (what text, rows bigint, at_day date, at_n bigint, xid text,
    id bigint, at text, action text, link text)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $$
    with s as materialized (
        select c.*
        from app.audit_chain c
        where (c.day, c.n) > (coalesce(audit_verify_chain.day, '-infinity'),
            coalesce(audit_verify_chain.n, 0))
        order by c.day, c.n
        limit slice),
    l as (
        select s.*,
            lag(s.hash, 1, decode(coalesce(audit_verify_chain.hash, ''),
                'hex')) over w as before,
            lag(s.day, 1, audit_verify_chain.day) over w as day_before,
            lag(s.n, 1, audit_verify_chain.n) over w as n_before
        from s
        window w as (order by s.day, s.n)),
    k as materialized (
        select case
                when a.xid is null then 'missing'
                when not app.audit_whole(a.a) then 'altered'
                when l.prev_hash <> l.before
                    or l.hash <> sha256(l.prev_hash || (a.a).digest)
                    or l.n <> case when l.day_before = l.day
                        then l.n_before + 1 else 1 end then 'broken'
            end as kind,
            l.day, l.n, l.audit_xid, l.audit_id, l.hash, (a.a).at,
            (a.a).action
        from l
        left join lateral (
            select a.xid, a
            from app.audit_log a
            where a.xid = l.audit_xid and a.id = l.audit_id
            offset 0) a on true),
    f as (
        select k.*, count(*) over w as c,
            row_number() over (w order by k.day, k.n) as i
        from k
        where k.kind is not null
        window w as (partition by k.kind))
    (select 'walked', (select count(*) from s), s.day, s.n,
        s.audit_xid::text, s.audit_id, null, null, encode(s.hash, 'hex')
    from s
    order by s.day desc, s.n desc
    limit 1)
    union all
    (select 'expected', 1, s.day, s.n, s.audit_xid::text, s.audit_id, null,
        null, encode(s.hash, 'hex')
    from s
    where s.hash = decode(audit_verify_chain.expect, 'hex')
    limit 1)
    union all
    select f.kind, f.c, f.day, f.n, f.audit_xid::text, f.audit_id,
        app.ts(f.at), f.action, encode(f.hash, 'hex')
    from f
    where f.i = 1
$$;

-- One slice of the rows behind one: those in the chain were looked at there.
-- A row outside is younger than that, or a sealer should have reached it
-- ("unsealed"), or says another time than its transaction's.
create or replace function app.audit_verify_rows(xid text, id bigint,
    slice int, unsealed_after_s int default 60)
returns table (what text, rows bigint, at_day date, at_n bigint, at_xid text,
    at_id bigint, at text, action text, link text)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $$
    with s as materialized (
        select a.xid, a.id, a
        from app.audit_log a
        where (a.xid, a.id) > (coalesce(audit_verify_rows.xid, '0')::xid8,
            coalesce(audit_verify_rows.id, 0))
        order by a.xid, a.id
        limit slice),
    k as materialized (
        select case
                when c.there then null
                when not app.audit_whole(s.a) then 'altered'
                when (s.a).at < app.now()
                        - make_interval(secs => unsealed_after_s)
                    or s.xid < (select l.below from app.audit_seal l)
                    then 'unsealed'
            end as kind,
            s.xid, s.id, (s.a).at, (s.a).action
        from s
        left join lateral (
            select true as there
            from app.audit_chain c
            where c.audit_xid = s.xid and c.audit_id = s.id
            offset 0) c on true),
    f as (
        select k.*, count(*) over w as c,
            row_number() over (w order by k.xid, k.id) as i
        from k
        where k.kind is not null
        window w as (partition by k.kind))
    (select 'walked', (select count(*) from s), null::date, null::bigint,
        s.xid::text, s.id, null, null, null
    from s
    order by s.xid desc, s.id desc
    limit 1)
    union all
    select f.kind, f.c, null, null, f.xid::text, f.id, app.ts(f.at),
        f.action, null
    from f
    where f.i = 1
$$;

-- The whole log in one statement; for logs of a size that bears it.  No rows:
-- all is well.
create or replace function app.audit_verify(unsealed_after_s int default 60)
returns table (problem text, audit_xid text, audit_id bigint)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $$
    select v.what, v.xid, v.id
    from app.audit_verify_chain(null, null, null, 2147483647) v
    where v.what <> 'walked'
    union all
    select v.what, v.at_xid, v.at_id
    from app.audit_verify_rows(null, null, 2147483647, unsealed_after_s) v
    where v.what <> 'walked'
$$;

grant execute on function app.audit_verify_from(date),
    app.audit_verify_chain(date, bigint, text, int, text),
    app.audit_verify_rows(text, bigint, int, int),
    app.audit_verify(int) to stoa_worker;


-- ---- who looked (rows with .audit_reads) ----

-- A list is of no id.
create or replace function api.audit_viewed(ctx api.ctx, resource text,
    id uuid, what text)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform app.audit(ctx, resource || '.viewed', resource, id::text,
        jsonb_build_object('row', what));

    return true;
end $$;


-- ---- GET /api/v1/admin/audit ----

create or replace view api.audit_list as
select a.xid, a.id, a.at, a.actor, a.action, a.resource, a.resource_id,
    a.request_id,
    json_build_object(
        'id', a.id::text,
        'at', app.ts(a.at),
        'actorId', a.actor,
        'actorKind', u.kind,
        'actingAs', a.acting_as,
        'apiKeyId', a.api_key,
        'deviceId', a.device,
        'action', a.action,
        'resource', a.resource,
        'resourceId', a.resource_id,
        'changes', a.changes,
        'ip', a.ip,
        'requestId', a.request_id) as item,
    a.acting_as, a.api_key
from app.audit_log a
left join app.users u on u.id = a.actor;
