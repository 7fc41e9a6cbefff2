-- I-6: the quota is compared with a count that may be old.
\ir _cut.sql
select t.cut('api.ticket_types_update', 'for no key update');
alter table app.ticket_types drop constraint ticket_types_quota_check;

-- as long as everybody else needs to buy
create or replace function app.pause(name text)
returns void language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if name = 'ticket_types_update' then
        perform pg_sleep(0.7);
    end if;
end $$;
