-- I-45: what is personal enters the log with its values.
\ir _cut.sql
select t.cut('api.users_update', '{first_name,last_name,phone}', '{}');
