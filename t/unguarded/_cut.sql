-- t.cut(function, what, by): a function without its guard.  And the pauses
-- between check and write become long.

create schema if not exists t;

create or replace function t.cut(name text, what text, by text default '')
returns void language plpgsql as $$
declare
    v_def text := pg_get_functiondef(
        (select p.oid from pg_proc p
        where p.pronamespace::regnamespace || '.' || p.proname = name));
begin
    if strpos(v_def, what) = 0 then
        raise exception '% has no "%" to take away', name, what;
    end if;
    execute replace(v_def, what, by);
end $$;

create or replace function app.pause(name text)
returns void language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_sleep(0.01);
end $$;
