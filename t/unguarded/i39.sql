-- I-39: a reset token is looked at, then used.
\ir _cut.sql
select t.cut('api.auth_reset', 'for update of u');
select t.cut('api.auth_reset',
    E'and t.used_at is null\n        and t.expires_at > app.now()', '');
