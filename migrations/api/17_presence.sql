-- presence.list: whom the caller may see.  Who is online is in Redis.

-- Those of the ids, "a,b", whose presence the caller may know, in the order
-- asked, each once: people whose profile is shown.  This is the only place
-- that says so; blocks and hidden presence belong here.
create or replace function api.presence_of(ctx api.ctx, ids text)
returns text
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select string_agg(u.id::text, ',' order by x.n)
        from (
            select a.id, min(a.n) as n
            from unnest(string_to_array(ids, ',')::uuid[])
                with ordinality a (id, n)
            group by a.id) x
        join app.users u on u.id = x.id
        where u.kind = 'person' and u.status in ('active', 'limited'));
end $$;
