-- Login sessions: names of devices, who sees and who ends what.

begin;
\ir _lib.sql
select no_plan();

select results_eq($$ select app.device_name(ua) from unnest(array[
    'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0',
    'Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605'
        '.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1',
    'Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 '
        '(KHTML, like Gecko) Version/17.5 Safari/605.1.15',
    'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, '
        'like Gecko) Chrome/126.0.0.0 Safari/537.36 Edg/126.0.0.0',
    'Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 (KHTML, like Gecko) '
        'Chrome/126.0.0.0 Mobile Safari/537.36',
    'Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15 '
        '(KHTML, like Gecko) CriOS/126.0 Mobile/15E148 Safari/604.1',
    'Mozilla/5.0 (Windows NT 10.0)', 'Mozilla/5.0 (compatible)',
    'curl/8.5.0', 'StoaDoor', e'box\x1b[2J\x07office', 'кассир/1.0',
    e'\u202egnp.exe', '<script>alert(1)</script>', '', null,
    repeat('x', 500)])
    with ordinality u (ua, n) order by n $$,
    $$ values ('Firefox on Linux'), ('Safari on iPhone'), ('Safari on macOS'),
        ('Edge on Windows'), ('Chrome on Android'), ('Chrome on iPad'),
        ('Browser on Windows'), ('Browser'), ('curl'), ('StoaDoor'), ('box'),
        ('Unknown device'), ('Unknown device'), ('Unknown device'),
        ('Unknown device'), ('Unknown device'), (repeat('x', 60)) $$,
    'names of devices');

create function pg_temp.login(who uuid, remember boolean default false)
returns api.grant language sql as $$
    select a from app.users u, api.auth_login_finish(t.ctx(null), u.id,
        remember, null, 'curl/8', u.password_hash) a where u.id = who
$$;
create function pg_temp.as(who uuid, session uuid)
returns api.ctx language sql as $$
    select row(who, '{member}', session, null, null, 'r', 'en', 'h',
        null, null, null)::api.ctx
$$;
create function pg_temp.live(who uuid)
returns int language sql as $$
    select count(*)::int from api.sessions_live s where s.user_id = who
$$;

create temp table p as
select t.person('ada@s.example') as ada, t.person('bob@s.example') as bob;
create temp table s as
select (pg_temp.login(ada)).sid as a1, (pg_temp.login(ada, true)).sid as a2,
    (pg_temp.login(ada)).sid as a3, (pg_temp.login(bob)).sid as b1
from p;

select is((select pg_temp.live(ada) from p), 3, 'three of them');
select is((select device_name from api.sessions_live, s where id = a1),
    'curl', 'named');
select is((pg_temp.login(ada)).max_age, null, 'a cookie of the browser''s run')
from p;
select is((pg_temp.login(ada, true)).max_age, 2592000, 'remembered: 30 days')
from p;

-- strangers, and what is not there
select is((api.session_end(pg_temp.as(bob, b1), a1)).body->>'code',
    'NOT_FOUND', 'a stranger''s') from p, s;
select is((api.session_end(row(bob, '{admin,member}', b1, null, null, 'r',
    'en', 'h', null, null, null)::api.ctx, a1)).body->>'code', 'NOT_FOUND',
    'also for an admin') from p, s;
select is((api.session_end(pg_temp.as(ada, a1), gen_random_uuid())).body
    ->>'code', 'NOT_FOUND', 'unknown') from p, s;
select is((select count(*) from app.audit_log
    where action like 'auth.session%'), 0::bigint, 'a refusal is no write');
select is((select count(*) from app.revocations), 0::bigint, 'nor a word');

-- one
select matches((api.session_end(pg_temp.as(ada, a1), a2)).emit->0->>'ctl',
    '^sid ' || a2 || ' [0-9]{13}$', 'edges are told') from p, s;
select is((api.session_end(pg_temp.as(ada, a1), a2)).body->>'code',
    'NOT_FOUND', 'ended: not found') from p, s;
select is((api.auth_refresh(t.ctx(null), a2, 1)).body->>'code',
    'REFRESH_INVALID', 'and never refreshed') from s;
select is((api.session_end(pg_temp.as(ada, a2), a3)).body->>'code',
    'TOKEN_REVOKED', 'an ended session ends no other') from p, s;
select is((api.sessions_end(pg_temp.as(ada, a2))).body->>'code',
    'TOKEN_REVOKED', 'nor all others') from p, s;

-- all others
select is((select (a.body->>'ended')::int from p, s,
    api.sessions_end(pg_temp.as(ada, a1)) a), 3, 'all others');
select is((select array_agg(id) from api.sessions_live, p
    where user_id = ada), (select array[a1] from s), 'but this one');
select is((select pg_temp.live(bob) from p), 1, 'nobody else''s');
select is((select (a.status, a.body->>'ended', a.emit is null)::text
    from p, s, api.sessions_end(pg_temp.as(ada, a1)) a), '(200,0,t)',
    'again: none');
select is((api.session_end(pg_temp.as(ada, a1), a1)).status, 200,
    'oneself: a logout') from p, s;
select is((select reason from app.login_sessions, s where id = a1), 'logout',
    'as it is called');

-- time ends them, too
truncate s;
insert into s (a1, a2) select (pg_temp.login(ada)).sid,
    (pg_temp.login(ada, true)).sid from p;
select t.clock('8 days');
select is((select array_agg(id) from api.sessions_live, p
    where user_id = ada), (select array[a2] from s), 'one has run out');
select is((api.session_end(pg_temp.as(ada, a2), a1)).body->>'code',
    'NOT_FOUND', 'which is not found') from p, s;
select is((api.auth_refresh(t.ctx(null), a2, 1)).max_age, 2592000,
    'the remembered one goes on') from s;
select t.clock('65 days');
select is((api.auth_refresh(t.ctx(null), a2, 2)).body->>'code',
    'REFRESH_INVALID', 'unless it rests too long') from s;
select t.clock('0');

select results_eq($$ select action, count(*)::int from app.audit_log
    where action like 'auth.session%' group by 1 order by 1 $$,
    $$ values ('auth.session_end', 2), ('auth.sessions_end', 2) $$,
    'each end has its audit row');

select * from finish();
rollback;
