-- I-37 by another issuer: who was slower with the address or the identity is
-- not asked again, so that a sign-in fails instead of finding the account.
\ir _cut.sql
select t.cut('api.oauth_sign_in', 'for i in 1 .. 3 loop',
    'for i in 1 .. 1 loop');
