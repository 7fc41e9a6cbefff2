-- Identities of other issuers.

begin;
\ir _lib.sql
select no_plan();

create function pg_temp.link(who uuid, issuer text, subject text)
returns uuid language sql as $$
    insert into app.oauth_identities (id, user_id, issuer, subject, created_at)
    values (app.uuid7(), who, issuer, subject, app.now())
    returning id
$$;

select t.person('a@test.example') as a \gset
select t.person('b@test.example', '{member,organizer}') as b \gset
select pg_temp.link(:'a', 'https://i', 's') as ia \gset
select pg_temp.link(:'b', 'https://j', 's') as ib \gset

select results_eq(
    $$ select f.code, f.identity, f.user_id, f.roles, f.epoch, f.since_ms
        from (values ('https://i', 's'), ('https://j', 's')) v (i, s),
        api.auth_foreign(v.i, v.s) f order by v.i $$,
    format($$ values (null, %L::uuid, %L::uuid, '{member}'::text[], 1,
            0::bigint), (null, %L, %L, '{member,organizer}', 1, 0) $$,
        :'ia', :'a', :'ib', :'b'), 'each its own');
select is((api.auth_foreign(i, s)).code, 'IDENTITY_NOT_LINKED', i || s)
from (values ('https://i', 'S'), ('https://i/', 's'), ('', ''),
    ('https://k', 's')) v (i, s);

select app.epoch_bump(:'a', 'test');
select is((f).epoch, 2, 'the epoch is told')
from api.auth_foreign('https://i', 's') f;
select is((f).since_ms, app.ms(app.now()), 'and when it was raised')
from api.auth_foreign('https://i', 's') f;

update app.users set status = 'suspended' where id = :'a';
select is((api.auth_foreign('https://i', 's')).code, 'ACCOUNT_SUSPENDED', 's');
update app.users set status = 'deleted' where id = :'a';
select is((api.auth_foreign('https://i', 's')).code, 'IDENTITY_NOT_LINKED',
    'd');
update app.users set status = 'limited' where id = :'a';
select is((api.auth_foreign('https://i', 's')).code, null, 'l');

select app.settings_put('{"require_verified_email": "login"}');
select is((api.auth_foreign('https://i', 's')).code, 'EMAIL_NOT_VERIFIED',
    'v');
select app.settings_put('{"require_verified_email": "money"}');
select is((api.auth_foreign('https://i', 's')).code, null, 'only for money');

select t.person('c@test.example') as c \gset
select pg_temp.link(:'c', 'https://i', 'c') as ic \gset
select is((api.auth_foreign('https://i', 'c')).code, null, 'a person');
update app.users set kind = 'service', email = null, password_hash = null
where id = :'c';
select is((api.auth_foreign('https://i', 'c')).code, 'IDENTITY_NOT_LINKED',
    'programs have keys alone');

select throws_ok(format($$ select pg_temp.link(%L, 'https://i', 's') $$,
    :'b'), '23505', null, 'an identity is of one account');

-- a flow counts once
select results_eq($$ select api.oauth_begin(sha256(x::bytea),
    app.now() + interval '10 minutes') from unnest(array['a', 'b', 'a']) x $$,
    $$ values (true), (true), (false) $$, 'once each');
update app.oauth_states set expires_at = app.now() - interval '1 s'
where state_sha256 = sha256('a');
select task.retention_sweep(queue.enqueue('retention.sweep', '{}'), '{}');
select is((select count(*) from app.oauth_states), 1::bigint, 'swept');

-- names that others gave
select results_eq($$ select app.oauth_name(x) from unnest(array['  A  ',
    e'A\r\nB', e'\u202eA\u2066', repeat('x', 200), '', null]) with ordinality
    u (x, n) order by n $$,
    $$ values ('A'), ('A B'), ('A'), (repeat('x', 100)), (''), (null) $$,
    'one line of what can be seen');

-- an account that its owner takes over loses every way in, of every kind
select t.person('victim@test.example') as v \gset
update app.users set pending_email = 'm@test.example' where id = :'v';
select pg_temp.link(:'v', 'https://m', 'mallory');
select (api.oauth_sign_in(t.ctx(null), 'p', 'https://p', 'sub',
    'Victim@test.example', true, 'A', 'B', false, 'ua', sha256('one'),
    app.now())).status as s \gset
select is(:s, 200, 'signed in');
select results_eq(format($$ select password_hash, pending_email,
        email_verified_at is not null, token_epoch from app.users
        where id = %L $$, :'v'),
    $$ values (null::text, null::text, true, 2) $$, 'reclaimed');
select results_eq(format($$ select issuer, subject from app.oauth_identities
        where user_id = %L $$, :'v'),
    $$ values ('https://p', 'sub') $$, 'one identity');
select is((api.oauth_sign_in(t.ctx(null), 'p', 'https://p', 'other',
    'victim@test.example', false, 'A', 'B', false, 'ua', sha256('two'),
    app.now())).body->>'code',
    'ACCOUNT_EXISTS_SIGN_IN_FIRST', 'not vouched for');
select is((api.oauth_sign_in(t.ctx(null), 'p', 'https://p', 'sub',
    'victim@test.example', true, 'A', 'B', false, 'ua', sha256('one'),
    app.now())).body->>'code', 'OAUTH_INVALID', 'an ID token counts once');

select * from finish();
rollback;
