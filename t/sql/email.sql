-- N-19: tokens that prove an address, its change, and what waits for it.

begin;
\ir _lib.sql
select no_plan();

create function pg_temp.mail(who uuid, template text)
returns table (id bigint, payload jsonb) language sql as $$
    select o.id, o.payload from queue.outbox o
    where o.payload->>'template' = $2 and o.payload->>'user_id' = $1::text
        and o.state < 2
    order by o.id desc limit 1
$$;
-- the worker's part: builds, makes a token, sends
create function pg_temp.send(who uuid, template text, token text)
returns text language plpgsql as $$
declare
    v_id bigint;
    v_payload jsonb;
    v_mail jsonb;
begin
    select m.id, m.payload into v_id, v_payload from pg_temp.mail($1, $2) m;
    v_mail := task.mail_begin(v_id, v_payload);
    if v_mail->'data'->>'hours' is not null then
        perform task.mail_token(v_id, v_payload, v_mail->>'to',
            sha256(token::bytea));
    end if;
    perform task.mail_done(v_id, v_payload, '{}');
    return coalesce(v_mail->>'to', v_mail->>'result');
end $$;
create function pg_temp.verify(token text)
returns text language sql as $$
    select coalesce(a.body->>'code', a.body::text)
    from api.auth_verify(t.ctx(null), sha256(token::bytea)) a
$$;

select is((api.auth_register(t.ctx(null), 'Ada@Test.Example', 'h', 'Ada',
    'L', 'ua', 'de')).body->'user'->>'emailVerified', 'false', 'register');
create temp table v as
select u.id as ada, t.person('bob@test.example') as bob from app.users u;
select is((select count(*) from pg_temp.mail((select ada from v),
    'verify_email')), 1::bigint, 'a mail waits');
select ok((select task.mail_begin(m.id, m.payload)->>'toName' is null
    from v, pg_temp.mail(ada, 'verify_email') m), 'without a name');
select is(pg_temp.send(ada, 'verify_email', 'a'), 'ada@test.example',
    'it is sent') from v;
select is((select expires_at - created_at from app.one_time_tokens),
    interval '24 hours', 'for a day');
select is((select count(*) from queue.outbox o, queue.history h
    where concat(o.payload, h.payload) like '%' || encode(sha256('a'), 'hex')
        || '%'), 0::bigint, 'no queue knows the token');
select t.clock('1 s');
select is((api.auth_resend(t.ctx(ada))).body::text, '{}', 'again') from v;
select t.clock('2 s');
select is(pg_temp.send(ada, 'verify_email', 'b'), 'ada@test.example',
    'it is sent') from v;
select is(pg_temp.verify('a'), 'VALIDATION_FAILED', 'the newest wins');
select is(pg_temp.verify('b'), '{"verified" : true, "changed" : false}',
    'proved');
select is(pg_temp.verify('b'), 'VALIDATION_FAILED', 'once');
select is((select count(*) from pg_temp.mail((select ada from v),
    'welcome')), 1::bigint, 'welcome');
select is((api.auth_resend(t.ctx(ada))).body::text, '{}', 'same answer') from v;
select is((select count(*) from pg_temp.mail((select ada from v),
    'verify_email')), 0::bigint, 'no mail');

-- a mail that is sent twice has two links that work
select t.clock('2 hours');
select api.auth_resend(t.ctx(bob)) from v;
select task.mail_token(m.id, m.payload, 'bob@test.example',
    sha256(x::bytea)) from v, pg_temp.mail(bob, 'verify_email') m,
    unnest(array['c', 'd']) x;
select is(pg_temp.verify('c'), '{"verified" : true, "changed" : false}',
    'the first');
select is(pg_temp.verify('d'), 'VALIDATION_FAILED', 'and with it the other');
select is((select task.mail_begin(m.id, m.payload)->>'result'
    from v, pg_temp.mail(bob, 'verify_email') m), 'done',
    'what is proved is not asked for');

-- change
select t.clock('4 hours');
select is((api.users_email(t.ctx(bob), 'x@test.example', 'other')).body
    ->>'code', 'INVALID_CREDENTIALS', 'a password replaced meanwhile') from v;
select is((api.users_email(t.ctx(bob), 'BOB@test.example', 'x')).body
    ->'errors'->0->>'code', 'same', 'another one') from v;
select is((api.users_email(t.ctx(bob), 'Ada@test.example', 'x')).body::text,
    '{}', 'somebody else''s') from v;
select is(pg_temp.send(bob, 'change_email', 'e'), 'ada@test.example',
    'the new address is asked') from v;
select is(pg_temp.send(bob, 'change_notice', 'f'), 'bob@test.example',
    'the old one is told') from v;
select is(pg_temp.verify('e'), 'EMAIL_TAKEN', 'judged when it is used');
select is(pg_temp.verify('e'), 'EMAIL_TAKEN', 'and not used up');
create temp table first as select m.* from v,
    lateral (select (api.users_email(t.ctx(bob), 'one@test.example', 'x'))
        .status) s, pg_temp.mail(bob, 'change_email') m;
select is(pg_temp.verify('e'), 'VALIDATION_FAILED', 'a newer question');
select api.users_email(t.ctx(bob), 'two@test.example', 'x') from v;
select is(pg_temp.send(bob, 'change_email', 'g'), 'two@test.example',
    'the newest') from v;
select is((select task.mail_begin(f.id, f.payload)->>'result' from queue.outbox
    f where f.payload->>'to' = 'one@test.example'), 'done',
    'an overtaken mail is void');
select (api.auth_login_finish(t.ctx(null), bob, false, null, 'ua', 'x')).status
from v, generate_series(1, 3);
create temp table s as
select (array_agg(l.id order by l.id))[1] as id from app.login_sessions l, v
where l.user_id = bob;
select is((select json_array_length(a.emit) from v, s, api.auth_verify(
    row(bob, '{member}', s.id, null, null, 'r', 'en', null, null, null,
        null)::api.ctx,
    sha256('g')) a), 3, 'two sessions end, and a wake');
select results_eq($$ select l.id from app.login_sessions l, v
    where l.user_id = bob and l.revoked_at is null $$, 'select id from s',
    'one''s own goes on');
select results_eq($$ select u.email, u.pending_email, u.email_verified_at
    = app.now() from app.users u, v where u.id = bob $$,
    $$ values ('two@test.example', null::text, true) $$, 'changed');
select is((select count(*) from app.one_time_tokens t, v where t.user_id = bob
    and t.used_at is null), 0::bigint, 'no link of before is left');

-- the bounds of mails
select t.clock('6 hours');
select api.users_email(t.ctx(ada), i || '@test.example', 'h')
from v, generate_series(1, 9) i;
select is((select count(*) from queue.outbox o, v
    where o.payload->>'template' = 'change_email'
        and o.payload->>'user_id' = ada::text), 5::bigint, 'five an hour');
select is((select pending_email from app.users, v where id = ada),
    '5@test.example', 'what is not mailed is not waited for');
select is((select n from app.mail_budget where prefix = '192.0.2.1'
    order by hour desc limit 1), 9, 'counted for the prefix, too');

-- REQUIRE_VERIFIED_EMAIL
create temp table w as
select t.person('org@test.example', '{organizer,member}') as org,
    t.person('eve@test.example') as eve;
alter table w add free uuid, add paid uuid;
update w set free = t.type(e, '{"name": "F"}'),
    paid = t.type(e, '{"name": "P", "price_cents": 500}')
from (select t.event(org) as e from w) x;
select app.settings_put('{"payment_provider": "test", "public_url": "u"}');
select isnt((t.order(eve, paid)).body->>'code', 'EMAIL_NOT_VERIFIED', 'off')
from w;
select app.settings_put('{"require_verified_email": "money"}');
select is((t.order(eve, paid)).body->>'code', 'EMAIL_NOT_VERIFIED', 'money')
from w;
select is((t.order(eve, free)).status, 201, 'free') from w;
select is((api.auth_login_finish(t.ctx(null), eve, false, null, 'ua', 'x'))
    .status, 200, 'signs in') from w;
select app.settings_put('{"require_verified_email": "login"}');
select is((t.order(eve, paid)).body->>'code', 'EMAIL_NOT_VERIFIED', 'either')
from w;
select is((api.auth_login_finish(t.ctx(null), eve, false, null, 'ua', 'x'))
    .body->>'code', 'EMAIL_NOT_VERIFIED', 'login') from w;
select is((select count(*) from pg_temp.mail((select eve from w),
    'verify_email')), 1::bigint, 'with a mail');
select is((api.auth_login_finish(t.ctx(null), eve, false, null, 'ua', 'y'))
    .body->>'code', 'INVALID_CREDENTIALS', 'not to others') from w;
create temp table r as select (api.auth_register(t.ctx(null),
    'dan@test.example', 'h', 'D', 'L', 'ua', 'en')).*;
select results_eq('select status, sid, user_id from r',
    $$ values (201, null::uuid, null::uuid) $$, 'an account, no session');
select is((select count(*) from app.login_sessions l, app.users u
    where u.id = l.user_id and u.email = 'dan@test.example'), 0::bigint,
    'none at all');
select is(pg_temp.send(eve, 'verify_email', 'w'), 'eve@test.example', 'sent')
from w;
select pg_temp.verify('w');
select is((api.auth_login_finish(t.ctx(null), eve, false, null, 'ua', 'x'))
    .status, 200, 'proved, in') from w;
select app.user_add('op@test.example', 'h', 'admin', 'Op', 'Erator');
select ok((select email_verified_at is not null from app.users
    where email = 'op@test.example'), 'stoa user add proves');
select is_empty($$ select from app.audit_log
    where changes::text like '%@%' $$, 'no address in the audit');

select * from finish();
rollback;
