-- I-45: one kind of write leaves no audit row.
\ir _cut.sql
select t.cut('api.key_revoke', 'perform app.audit(', 'perform concat(');
