-- I-38: the session's counter is read without a lock.
\ir _cut.sql
select t.cut('api.auth_refresh', E'where s.id = sid\n    for update',
    'where s.id = sid');
