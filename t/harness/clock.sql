-- In the test template only: app.now() is now() plus one row's offset, so
-- that a test moves every deadline of the database at once.

create table app.test_clock (
    only_row boolean primary key default true check (only_row),
    shift    interval not null default '0'
);

insert into app.test_clock default values;

grant select on app.test_clock to public;

create or replace function app.now()
returns timestamptz
language sql stable
security definer
set search_path = pg_catalog
as $$
    select pg_catalog.now() + (select c.shift from app.test_clock c)
$$;
