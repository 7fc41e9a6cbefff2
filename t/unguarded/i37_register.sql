-- I-37 by password: addresses are not unique, and nobody asks.
\ir _cut.sql
drop index app.users_email_key;
select t.cut('api.auth_register',
    E'\n    on conflict (email) where status <> ''deleted'' do nothing');
