-- Second factors: what the database decides about codes, whatever the edge
-- says of them.

begin;
\ir _lib.sql
select no_plan();

create temp table p as
select t.person('ada@m.example') as ada, t.person('bob@m.example') as bob;

create function pg_temp.login(who uuid, factor uuid default null,
    step bigint default null, sealed bytea default null,
    recovery bytea default null)
returns api.grant language sql as $$
    select a from app.users u, api.auth_login_finish(t.ctx(null), u.id,
        false, null, 'ua', u.password_hash, factor, step, sealed, recovery) a
    where u.id = who
$$;
create function pg_temp.as(who uuid, session uuid)
returns api.ctx language sql as $$
    select row(who, '{member}', session, null, '192.0.2.1', 'r', 'en', 'h',
        null, null, null)::api.ctx
$$;
create function pg_temp.from(ip text) returns api.ctx language sql as $$
    select row(null, '{}', null, null, ip, 'r', 'en', 'h', null, null,
        null)::api.ctx
$$;
create function pg_temp.hash(n int) returns bytea language sql as $$
    select sha256(n::text::bytea)
$$;
create function pg_temp.hashes() returns text language sql as $$
    select string_agg(encode(pg_temp.hash(i), 'hex'), ',')
    from generate_series(1, 10) i
$$;

-- enrolment
create temp table s as
select (pg_temp.login(ada)).sid as ada, (pg_temp.login(bob)).sid as bob
from p;
create temp table f (who uuid, id uuid);
insert into f select ada, app.uuid7() from p;

select is((pg_temp.login(ada)).amr, '{pwd}', 'by password') from p;
select ok(not (pg_temp.login(ada)).mfa, 'no factor') from p;
select is((pg_temp.login(ada)).auth_time, floor(extract(epoch
    from app.now()))::bigint, 'now') from p;
select is((api.mfa_enrol(pg_temp.as(p.ada, s.ada), gen_random_uuid(),
    'sealed', 'y')).body->>'code', 'INVALID_CREDENTIALS',
    'not of a password that was replaced') from p, s;
select is((api.mfa_enrol(pg_temp.as(p.ada, s.ada), gen_random_uuid(),
    'older', 'x')).status, 201, 'enrol') from p, s;
select is((api.mfa_enrol(pg_temp.as(p.ada, s.ada), f.id, 'sealed',
    'x')).status, 201, 'and once more') from p, s, f;
select results_eq($$ select id, secret from app.mfa_factors $$,
    $$ select id, 'sealed'::bytea from f $$, 'the newest counts');
select is((select mfa_id from api.mfa_begin(pg_temp.as(p.ada, s.ada), false)),
    null, 'not on yet') from p, s;
select is((select mfa_id from api.mfa_begin(pg_temp.as(p.ada, s.ada), true)),
    f.id, 'but to be tried') from p, s, f;
select is((api.mfa_confirm(pg_temp.as(p.bob, s.bob), f.id, 5,
    pg_temp.hashes())).body->'errors'->0->>'pointer', '/code',
    'by nobody else') from p, s, f;
select is((api.mfa_confirm(pg_temp.as(p.ada, gen_random_uuid()), f.id, 5,
    pg_temp.hashes())).body->>'code', 'TOKEN_REVOKED', 'by a live session')
from p, f;
select ok((api.mfa_confirm(pg_temp.as(p.ada, s.ada), f.id, -1,
    pg_temp.hashes())).mfa, 'a wrong one is to be counted') from p, s, f;

create temp table g as
select a.* from p, s, f, api.mfa_confirm(pg_temp.as(p.ada, s.ada), f.id, 5,
    pg_temp.hashes()) a;
select is(status, 200, 'on') from g;
select set_eq('select unnest(amr) from g', array['pwd', 'otp', 'mfa'],
    'the session showed a code');
select is((select count(*) from app.mfa_recovery_codes), 10::bigint,
    'ten recovery codes');
select matches((select emit->0->>'ctl' from g), '^user [0-9a-f-]{36} 2$',
    'older access tokens die');
select is((select count(*) from app.login_sessions
    where revoked_at is not null), 0::bigint, 'no session does');
select is((api.mfa_enrol(pg_temp.as(p.ada, s.ada), gen_random_uuid(),
    'z', 'x')).body->>'code', 'INVALID_STATE', 'one is enough') from p, s;
select is((api.mfa_confirm(pg_temp.as(p.ada, s.ada), f.id, 6,
    pg_temp.hashes())).status, 0, 'and is turned on once') from p, s, f;

-- steps: each once, upwards
create temp table l as
select a.* from p, pg_temp.login(ada) a;
select is(body->>'code', 'MFA_REQUIRED', 'asked') from l;
select is((select last_login_at from app.users, p where id = ada), app.now(),
    'the first login''s');
select results_eq($$ select (pg_temp.login(ada, f.id, n)).body->>'code'
    from p, f, unnest(array[5, 4, 0, -1, 6, 6, 8, 7]) n $$,
    array['MFA_CODE_INVALID', 'MFA_CODE_INVALID', 'MFA_CODE_INVALID',
        'MFA_CODE_INVALID', null, 'MFA_CODE_INVALID', null,
        'MFA_CODE_INVALID'], 'later ones only');
select is((pg_temp.login(ada, gen_random_uuid(), 9)).body->>'code',
    'MFA_CODE_INVALID', 'of this factor') from p;
select is((select count(*) from app.audit_log where action = 'mfa.wrong'),
    10::bigint, 'wrong ones are written down');
select ok((pg_temp.login(ada, f.id, 9, 'resealed')).mfa, 'and goes on')
from p, f;
select is((select secret from app.mfa_factors), 'resealed'::bytea,
    'sealed anew');

-- challenges
select ok((select user_id is not null from api.auth_mfa_begin(
    pg_temp.from('192.0.2.1'), l.sid)), 'open') from l;
select is_empty($$ select * from l, api.auth_mfa_begin(
    pg_temp.from('192.0.2.2'), l.sid) $$, 'from another address');
select is((api.auth_login_mfa(pg_temp.from('192.0.2.2'), f.id, 20, null,
    null, l.sid, 'ua')).body->>'code', 'MFA_TOKEN_INVALID', 'nor used')
from f, l;
select results_eq($$ select (api.auth_login_mfa(t.ctx(null), f.id, -1, null,
    null, l.sid, 'ua')).body->>'code' from f, l, generate_series(1, 6) $$,
    $$ values ('MFA_CODE_INVALID'), ('MFA_CODE_INVALID'),
        ('MFA_CODE_INVALID'), ('MFA_CODE_INVALID'), ('MFA_CODE_INVALID'),
        ('MFA_TOKEN_INVALID') $$, 'five wrong ones');
select is((api.auth_login_mfa(t.ctx(null), f.id, 20, null, null, l.sid,
    'ua')).body->>'code', 'MFA_TOKEN_INVALID', 'then it is dead') from f, l;
truncate l;
insert into l select a.* from p, pg_temp.login(ada) a;
select is((api.auth_login_mfa(t.ctx(null), f.id, 20, null, null, l.sid,
    'ua')).status, 200, 'another one') from f, l;
select is((api.auth_login_mfa(t.ctx(null), f.id, 21, null, null, l.sid,
    'ua')).body->>'code', 'MFA_TOKEN_INVALID', 'once') from f, l;
truncate l;
insert into l select a.* from p, pg_temp.login(ada) a;
select app.epoch_next(ada) from p;
select is((api.auth_login_mfa(t.ctx(null), f.id, 22, null, null, l.sid,
    'ua')).body->>'code', 'MFA_TOKEN_INVALID', 'ends with tokens') from f, l;
truncate l;
insert into l select a.* from p, pg_temp.login(ada) a;
select t.clock('5 minutes');
select is((api.auth_login_mfa(t.ctx(null), f.id, 22, null, null, l.sid,
    'ua')).body->>'code', 'MFA_TOKEN_INVALID', 'five minutes') from f, l;
select t.clock('0');

-- recovery codes
select is((pg_temp.login(ada, f.id, null, null, pg_temp.hash(11))).body
    ->>'code', 'MFA_CODE_INVALID', 'an eleventh') from p, f;
select is((pg_temp.login(ada, f.id, null, null, pg_temp.hash(3))).amr,
    '{pwd,mfa}', 'the third') from p, f;
select is((pg_temp.login(ada, f.id, null, null, pg_temp.hash(3))).body
    ->>'code', 'MFA_CODE_INVALID', 'once') from p, f;
select is((api.mfa_get(pg_temp.as(p.ada, s.ada))).body
    ->>'recoveryCodesLeft', '9', 'nine are left') from p, s;
select is((select payload->>'left' from queue.outbox
    where payload->>'what' = 'used'), '9', 'and told');

-- wrong ones in a row: from the twentieth on codes rest
update app.mfa_factors set wrong = 0;
create function pg_temp.wrong(n int) returns void language sql as $$
    select pg_temp.login(ada, f.id, -1) from p, f, generate_series(1, n)
$$;
create function pg_temp.rest() returns int language sql as $$
    select l.mfa_rest from api.auth_login_begin('ada@m.example') l
$$;
select pg_temp.wrong(19);
select is(pg_temp.rest(), 0, 'nineteen');
select pg_temp.wrong(5);
select is(pg_temp.rest(), 60, 'twenty: a minute; nothing counts meanwhile');
select is((pg_temp.login(ada, f.id, 100)).body->>'code', 'MFA_CODE_INVALID',
    'nor is any taken') from p, f;
select is((select count(*) from queue.outbox
    where payload->>'what' = 'tried'), 5::bigint,
    'the owner is told, five times an hour');
do $$
begin
    for i in 1..12 loop
        perform t.clock(interval '1 day' * i);
        perform pg_temp.wrong(1);
    end loop;
end $$;
select is(pg_temp.rest(), 3600, 'an hour at most');
select is((pg_temp.login(ada, f.id, null, null, pg_temp.hash(4))).status,
    200, 'recovery codes do not rest') from p, f;
select is(pg_temp.rest(), 0, 'and forget');
select t.clock('0');

-- a fresh code
truncate g;
insert into g select a.* from p, s, f, api.auth_step_up(
    pg_temp.as(p.ada, s.ada), f.id, 200, null, null) a;
select is(auth_time, floor(extract(epoch from app.now()))::bigint, 'now')
from g;
select is((api.auth_step_up(pg_temp.as(p.bob, s.ada), f.id, 201, null,
    null)).body->>'code', 'TOKEN_REVOKED', 'of one''s own session')
from p, s, f;
select is((api.auth_step_up(pg_temp.as(p.bob, s.bob), f.id, 201, null,
    null)).body->'errors'->0->>'pointer', '/code', 'and factor')
from p, s, f;
select t.clock('1 hour');
select is((api.auth_refresh(t.ctx(null), s.ada, 1)).auth_time, g.auth_time,
    'refreshing does not make it younger') from s, g;
select t.clock('0');

-- who must have one
create function pg_temp.required(roles text[]) returns text language sql as $$
    select (api.mfa_get(t.ctx((select bob from p), roles))).body->>'required'
$$;
select is(pg_temp.required('{admin,member}'), 'false', 'nobody');
select app.settings_put('{"require_mfa": "admin"}');
select is(pg_temp.required('{admin,member}'), 'true', 'admins');
select is(pg_temp.required('{member}'), 'false', 'and nobody else');
select app.settings_put('{"require_mfa": "all"}');
select is(pg_temp.required('{member}'), 'true', 'or all');
select app.settings_put('{"require_mfa": "off"}');

-- the end
select is((api.mfa_off(pg_temp.as(p.ada, s.ada), f.id, 300, null, null,
    'y')).body->>'code', 'INVALID_CREDENTIALS',
    'not of a password that was replaced') from p, s, f;
select is((api.mfa_codes(pg_temp.as(p.ada, s.ada), f.id, 300, null,
    pg_temp.hashes())).status, 200, 'new recovery codes') from p, s, f;
select is((select count(*) from app.mfa_recovery_codes
    where used_at is null), 10::bigint, 'in place of the old');
select is((api.admin_mfa_remove(t.ctx(ada, '{admin,member}'), ada)).body
    ->>'code', 'INVALID_STATE', 'an admin''s own') from p;
select is((api.admin_mfa_remove(t.ctx(ada, '{admin,member}'), bob)).body
    ->>'code', 'NOT_FOUND', 'who has none') from p;
select is((api.mfa_off(pg_temp.as(p.ada, s.ada), f.id, 301, null, null,
    'x')).mfa, false, 'off') from p, s, f;
select is_empty('select 1 from app.mfa_factors union all
    select 1 from app.mfa_recovery_codes union all
    select 1 from app.mfa_challenges', 'nothing is left');
select is((pg_temp.login(ada)).status, 200, 'the password is enough') from p;

-- the operator's way
insert into app.mfa_factors (id, user_id, secret, created_at, confirmed_at)
select app.uuid7(), bob, '', app.now(), app.now() from p;
select ok(app.user_mfa_off('Bob@m.example'), 'stoa user mfa-off');
select ok(not app.user_mfa_off('bob@m.example'), 'once');
select ok(not app.user_mfa_off('nobody@m.example'), 'nobody');
select is((select count(*) from app.audit_log
    where action = 'mfa.removed' and request_id = 'task:user mfa-off'),
    1::bigint, 'written down');

-- what is over goes
insert into app.mfa_challenges (id, user_id, epoch, prefix, remember,
    created_at, expires_at)
select app.uuid7(), bob, 1, '', false, app.now(), app.now() - interval '1 s'
from p;
select queue.enqueue('retention.sweep', '{}');
select t.run('retention.sweep');
select is_empty('select 1 from app.mfa_challenges', 'swept');

select * from finish();
rollback;
