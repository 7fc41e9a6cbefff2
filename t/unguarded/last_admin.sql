-- The last admin: those who take one away do not wait for each other.
\ir _cut.sql
select t.cut('app.admins_lock',
    'pg_advisory_xact_lock(hashtextextended(''app.admins'', 0))',
    'null::void');
