-- The last way in: identities of one account are unlinked side by side.
\ir _cut.sql
select t.cut('api.identity_unlink',
    E'in (''active'', ''limited'')\n    for no key update',
    'in (''active'', ''limited'')');
