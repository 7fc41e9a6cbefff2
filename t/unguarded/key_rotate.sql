-- Two keys of a family: whoever rotates does not wait for each other.
\ir _cut.sql
select t.cut('app.key_owner', E'\n    for no key update', '');
