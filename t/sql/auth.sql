-- Accounts, sessions as counters, resets (I-37, I-38, I-39 in one session).

begin;
\ir _lib.sql
select no_plan();

select is((api.auth_register(t.ctx(null), 'Ada@Test.Example', 'h1', 'Ada',
    'L', 'ua', 'de')).status, 201, 'register');
select is((api.auth_register(t.ctx(null), 'ADA@test.example', 'h2', 'Ada',
    'L', 'ua', 'en')).body->>'code', 'EMAIL_TAKEN', 'in any case of letters');
select is((select count(*) from app.users), 1::bigint, 'one user');
select is((select count(*) from app.login_sessions), 1::bigint,
    'no orphan session');
select is((select hash from api.auth_login_begin('ada@TEST.example')), 'h1',
    'login finds the hash');
select is_empty($$ select * from api.auth_login_begin('x@test.example') $$,
    'unknown: no row');

create temp table g as
select (api.auth_login_finish(t.ctx(null), u.id, true, null, 'ua',
    u.password_hash)).*
from app.users u;
select is((select status from g), 200, 'login');
select is((select counter from g), 1::bigint, 'counter begins at 1');
select ok((select refresh_expires_at from g) > app.now() + interval '29 days',
    'remember: 30 days');
select is((select body->'user'->>'email' from g), 'ada@test.example', 'user');

-- the counter is the token
select results_eq($$ select refresh, counter from api.auth_refresh(
    t.ctx(null), (select sid from g), 1) $$,
    $$ values ('rotated', 2::bigint) $$, 'equal: rotated');
select results_eq($$ select refresh, counter from api.auth_refresh(
    t.ctx(null), (select sid from g), 1) $$,
    $$ values ('concurrent', 2::bigint) $$, 'one behind at once: concurrent');
select results_eq($$ select refresh, counter from api.auth_refresh(
    t.ctx(null), (select sid from g), 2) $$,
    $$ values ('rotated', 3::bigint) $$, 'on');
select t.clock('31 s');
select is((api.auth_refresh(t.ctx(null), (select sid from g), 2)).body
    ->>'code', 'REFRESH_INVALID', 'one behind after 31 s');
select is((select reason from app.login_sessions
    where id = (select sid from g)), 'refresh token reused', 'family revoked');
select matches((select entry from app.revocations), '^sid [0-9a-f-]{36} \d+$',
    'edges are told');
select is((api.auth_refresh(t.ctx(null), (select sid from g), 3)).body
    ->>'code', 'REFRESH_INVALID', 'the newest is dead too');
select t.clock('0');

-- clients that never store the successor
select app.settings_put('{"refresh_rotate": "off"}');
truncate g;
insert into g select f.* from app.users u, api.auth_login_finish(t.ctx(null),
    u.id, false, 'h3', 'ua', u.password_hash) f;
select is((select password_hash from app.users), 'h3', 'rehash at login');
select results_eq($$ select refresh, counter from api.auth_refresh(
    t.ctx(null), (select sid from g), 1) $$,
    $$ values ('reissued', 1::bigint) $$, 'refresh_rotate=off');
select app.settings_put('{"refresh_rotate": "on"}');
select t.clock('8 days');
select is((api.auth_refresh(t.ctx(null), (select sid from g), 1)).body
    ->>'code', 'REFRESH_INVALID', 'idle too long');
select t.clock('0');

-- mails that one prefix asks for: thirty in an hour, whoever gets them
select results_eq($$ select app.ip_prefix(x) from unnest(array['192.0.2.7',
    '::ffff:192.0.2.7', '2001:db8:1:2:3::4', '2001:db8:1:2::', 'unix:', null])
    with ordinality u (x, n) order by n $$,
    $$ values ('192.0.2.7'), ('192.0.2.7'), ('2001:db8:1:2::/64'),
        ('2001:db8:1:2::/64'), ('unix:'), ('') $$, 'prefixes of addresses');
create function pg_temp.forgot(ip text, email text)
returns int language sql as $$
    select (api.auth_forgot(row(null, '{}', null, null, ip, 'r', 'en', 'h',
        null, null, null)::api.ctx, email)).status
$$;
select t.clock('10 days');
select t.person('m' || i || '@budget.example') from generate_series(1, 40) i;
select results_eq($$ select pg_temp.forgot('2001:db8::' || to_hex(i), 'm' || i
    || '@budget.example'), count(*)::int from generate_series(1, 35) i
    group by 1 $$, $$ values (200, 35) $$, 'all get the same answer');
select is((select count(*) from queue.outbox
    where payload->>'template' = 'password_reset'), 30::bigint, '30 mails');
select is(pg_temp.forgot('2001:db8:0:1::1', 'm36@budget.example'), 200, 'ask');
select is((select count(*) from queue.outbox
    where payload->>'template' = 'password_reset'), 31::bigint,
    'the next prefix has its own');
select t.clock('10 days 1 hour');
select is(pg_temp.forgot('2001:db8::1', 'm37@budget.example'), 200, 'ask');
select is((select count(*) from queue.outbox
    where payload->>'template' = 'password_reset'), 32::bigint,
    'and the next hour');
select is((select max(n) from app.mail_budget where prefix <> 'all'), 30,
    'never counted beyond');
delete from queue.outbox where payload->>'template' = 'password_reset';
delete from app.users where email like '%@budget.example';
select t.clock('0');

-- reset
select is((select (a.status, a.body::text) from api.auth_forgot(t.ctx(null),
    'ada@test.example') a), (select (a.status, a.body::text)
    from api.auth_forgot(t.ctx(null), 'nobody@test.example') a),
    'known and unknown get the same answer');
select is((select count(*) from queue.outbox
    where payload->>'template' = 'password_reset'), 1::bigint, 'one mail');
create function pg_temp.token(token text)
returns void language sql as $$
    select task.mail_token(null, jsonb_build_object('template',
        'password_reset', 'user_id', u.id), u.email, sha256(token::bytea))
    from app.users u
$$;
select pg_temp.token('a');
select pg_temp.token('b');
select ok((select ok from api.auth_reset_begin(sha256('a'))), 'token lives');
select ok(not (select ok from api.auth_reset_begin(sha256('z'))), 'not this');
select is((api.auth_reset(t.ctx(null), sha256('a'), 'h4')).status, 200,
    'reset');
select is((select password_hash from app.users), 'h4', 'new password');
select is((select token_epoch from app.users), 2, 'epoch bumped');
select is((api.auth_reset(t.ctx(null), sha256('a'), 'h5')).body->>'code',
    'VALIDATION_FAILED', 'once');
select is((api.auth_reset(t.ctx(null), sha256('b'), 'h5')).body->>'code',
    'VALIDATION_FAILED', 'and its twin is dead');
select is((select count(*) from app.login_sessions where revoked_at is null),
    0::bigint, 'every session ended');
select ok(exists (select from api.revocations_since(app.now()
    - interval '10 s', 900) where text like 'user % 2'), 'access tokens die');
select pg_temp.token('c');
select t.clock('2 hours 1 s');
select ok(not (select ok from api.auth_reset_begin(sha256('c'))), 'too old');
select t.clock('0');

-- change: the session that asks goes on, the others end
truncate g;
insert into g select (api.auth_login_finish(t.ctx(null), u.id, false, null,
    'ua', u.password_hash)).* from app.users u, generate_series(1, 2);
create function pg_temp.me(sid uuid) returns api.ctx language sql as $$
    select row((select min(user_id::text)::uuid from g), '{member}', sid,
        null, null, null, 'en', null, null, null, null)::api.ctx
$$;
select results_eq($$ select email, hash from api.auth_password_begin(
    pg_temp.me(null)) $$, $$ values ('ada@test.example', 'h4') $$, 'begin');
select is_empty($$ select * from api.auth_password_begin(t.ctx(null)) $$,
    'nobody: no row');
select is((api.auth_password(pg_temp.me(null), 'h3', 'h6', 'ua')).body
    ->>'code', 'CONFLICT', 'not of a hash that was replaced since');
select results_eq($$ select status, sid, epoch, counter from api.auth_password(
    pg_temp.me((select min(sid::text)::uuid from g)), 'h4', 'h6', 'ua') $$,
    $$ select 200, min(sid::text)::uuid, 3, 1::bigint from g $$, 'changed');
select is((select password_hash from app.users), 'h6', 'stored');
select is((select array_agg(id) from app.login_sessions
    where revoked_at is null), (select array[min(sid::text)::uuid] from g),
    'one session is left');
select is((select count(*) from queue.outbox
    where payload->>'template' = 'password_changed'), 2::bigint,
    'a notice of the reset and of the change');
select isnt((select sid from api.auth_password(pg_temp.me(null), 'h6', 'h4',
    'ua')), (select min(sid::text)::uuid from g), 'no session: a new one');
select is((select count(*) from app.login_sessions where revoked_at is null),
    1::bigint, 'and only that');

-- logout
truncate g;
insert into g select (api.auth_login_finish(t.ctx(null), u.id, false, null,
    'ua', u.password_hash)).* from app.users u;
select matches((api.auth_logout(row((select user_id from g), '{member}',
    (select sid from g), null, null, null, 'en', null, null, null,
    null)::api.ctx,
    false)).emit->0->>'ctl', '^sid [0-9a-f-]{36} [0-9]{13}$',
    'logout is emitted');

-- throttle
select is((select fails from api.throttle_sync('{k}', '{3}', '{f}', '{7}', 0)),
    3, 'failures are kept');
select is((select (t.fails, t.at_ms)::text
    from api.throttle_sync('{k}', '{4}', '{f}', '{5}', 0) t),
    '(7,7)', 'those of another edge are added');
select is((select fails from api.throttle_sync('{}', '{}', '{}', '{}',
    app.ms(app.now()) - 1)), 7, 'what changed since is told');
select ok((select key is null and now_ms = app.ms(app.now())
    from api.throttle_sync('{}', '{}', '{}', '{}', app.ms(app.now()) + 1)),
    'nothing else, but the time');
select is((select fails from api.throttle_sync('{k}', '{1}', '{t}', '{9}', 0)),
    1, 'and counted anew');

-- profile
select is((api.users_update(t.ctx((select id from app.users)), 99,
    '{"first_name": "B"}')).body->>'code', 'PRECONDITION_FAILED', 'version');
select is((api.users_update(t.ctx((select id from app.users)), null,
    '{"timezone": "Nowhere/City"}')).body->>'code', 'VALIDATION_FAILED',
    'time zone');
select is((api.users_update(t.ctx((select id from app.users)), null,
    '{"phone": "+1 23", "first_name": "B"}')).body->>'phone', '+1 23',
    'update');
select is((select body->>'lastName' from api.users_me), 'L',
    'what is absent stays');

-- every write has an audit row, and none carries a secret
select isnt_empty($$ select from app.audit_log where action = 'auth.reset' $$,
    'audited');
select is_empty($$ select from app.audit_log
    where changes::text ~ 'h[1-5]' $$, 'without secrets');

select app.user_add('op@test.example', 'h', 'admin', 'Op', 'Erator');
select is((select roles from app.users where email = 'op@test.example'),
    array['admin', 'member'], 'stoa user add');
select is((select epoch from app.user_for_token(null, 'op@test.example')), 1,
    'stoa token');

select * from finish();
rollback;
