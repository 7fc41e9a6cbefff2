-- API keys, what admins do with accounts, and who acts in whose name.

begin;
\ir _lib.sql
select no_plan();

create temp table p as
select t.person('ada@k.example') as ada, t.person('bob@k.example') as bob,
    t.person('root@k.example', '{admin,member}') as root;

create function pg_temp.make(who uuid, key uuid, body jsonb default '{}',
    roles text[] default '{member}')
returns api.answer language sql as $$
    select api.key_create(t.ctx(who, roles), key, sha256(key::text::bytea),
        'stoa_sk_' || left(key::text, 8),
        '{"name": "n", "scopes": ["events:read", "*", "*"]}' || body)
$$;
create function pg_temp.look(key uuid)
returns text language sql as $$
    select k.state from api.key_look(key, sha256(key::text::bytea)) k
$$;
create temp table k as
select gen_random_uuid() as a, gen_random_uuid() as b,
    gen_random_uuid() as c, gen_random_uuid() as d;

-- ---- made, looked up, used ----

select is((pg_temp.make(ada, a)).status, 201, 'made') from p, k;
select results_eq($$ select x.scopes, x.prefix, x.family = x.id,
        x.created_by = x.owner_id, x.expires_at - x.created_at
    from app.api_keys x $$,
    $$ select '{*,events:read}'::text[], 'stoa_sk_' || left(a::text, 8), true,
        true, interval '90 days' from k $$, 'each scope once, 90 days');
select is(pg_temp.look(a), 'live', 'found') from k;
select is_empty(format($$ select from api.key_look(%L, sha256('x')) $$, a),
    'not by its id alone') from k;
select is_empty(format($$ select from api.key_look(%L,
    (select secret_hash from app.api_keys)) $$, b), 'nor by its secret')
from k;
select results_eq(format($$ select user_id, roles, epoch, scopes, used_ms
        from api.key_look(%L, sha256(%L)) $$, a, a::text),
    format($$ select %L::uuid, '{member}'::text[], 1, '* events:read',
        null::bigint $$, ada), 'whose, with what') from p, k;

-- whoever has made one is told, and of a revoked one, too
select results_eq($$ select m->>'template', m->>'to', m->'data'->>'scopes',
        m->'data'->>'key_made', m->'data'->>'service'
    from queue.outbox o, app.mail_build(o.payload) m
    where o.payload->>'template' = 'key_notice' $$,
    $$ values ('key_notice', 'ada@k.example', '*, events:read', '1',
        null) $$, 'its owner has a mail');

select is(api.keys_used(array[a, gen_random_uuid()],
    array[app.ms(app.now()), 1], array['192.0.2.1', 'x']), 1::bigint, 'used')
from k;
select is(api.keys_used(array[a], array[app.ms(app.now()) + 58000],
    array['192.0.2.2']), 0::bigint, 'a minute is as fine as it gets') from k;
select is(api.keys_used(array[a], array[app.ms(app.now()) - 99000],
    array['192.0.2.2']), 0::bigint, 'what is older is no news') from k;
select is(api.keys_used(array[a], array[app.ms(app.now()) + 59500],
    array['192.0.2.3']), 1::bigint, 'then again') from k;
select is((select last_used_ip from app.api_keys), '192.0.2.3', 'from where');

-- ---- the bounds of its life ----

select is((pg_temp.make(ada, b, '{"expires_in_days": 365}')).status, 201,
    'a year') from p, k;
select app.settings_put('{"api_key_max_ttl": "7d", "api_key_ttl": "30d"}');
select is((pg_temp.make(ada, c, '{"expires_in_days": 8}')).body->'errors'->0
    ->>'pointer', '/expiresInDays', 'not longer than is allowed') from p, k;
select is((pg_temp.make(ada, c)).status, 201, 'without a wish') from p, k;
select is((select expires_at - created_at from app.api_keys where id = c),
    interval '7 days', 'never longer') from k;
select app.settings_put('{"api_key_max_ttl": "365d", "api_key_ttl": "90d"}');

select t.clock('7 days');
select is(pg_temp.look(c), 'expired', 'to the second') from k;
select t.clock('6 days 23:59:59');
select is(pg_temp.look(c), 'live', 'and not before') from k;
select t.clock('0');

-- ---- of whom ----

select is((pg_temp.make(bob, d, jsonb_build_object('owner_id', ada))).body
    ->'errors'->0->>'pointer', '/ownerId', 'not for somebody else') from p, k;
select is((pg_temp.make(root, d, jsonb_build_object('owner_id', ada),
    '{admin,member}')).body->'errors'->0->>'pointer', '/ownerId',
    'not by an admin either') from p, k;
select is((api.key_revoke(t.ctx(bob), a)).body->>'code', 'NOT_FOUND',
    'a stranger ends none') from p, k;
select is((api.key_rotate(t.ctx(root, '{admin,member}'), a, d, '\x', 's',
    '{}')).body->>'code', 'NOT_FOUND', 'an admin replaces none of a person''s')
from p, k;
select matches((api.key_revoke(t.ctx(root, '{admin,member}'), a)).emit->0
    ->>'ctl', '^sid ' || a || ' [0-9]{13}$', 'but ends it, and edges are told')
from p, k;
select is(pg_temp.look(a), 'revoked', 'at once') from k;
select is((api.key_revoke(t.ctx(ada), a)).body->>'code', 'NOT_FOUND',
    'once') from p, k;

-- ---- rotation ----

create function pg_temp.rotate(who uuid, old uuid, new uuid,
    body jsonb default '{}')
returns api.answer language sql as $$
    select api.key_rotate(t.ctx(who), old, new, sha256(new::text::bytea),
        'stoa_sk_x', body)
$$;

select is((pg_temp.rotate(ada, b, d)).status, 201, 'replaced') from p, k;
select is((pg_temp.rotate(ada, x, gen_random_uuid())).body->>'code',
    'INVALID_STATE', 'two live already') from p, k, unnest(array[b, d]) x;
select results_eq($$ select o.expires_at - app.now(), n.expires_at - app.now(),
        n.scopes = o.scopes, n.family = o.family, n.rotated_from = o.id
    from k, app.api_keys o, app.api_keys n where o.id = k.b and n.id = k.d $$,
    $$ values (interval '1 day', interval '365 days', true, true, true) $$,
    'the old one a day more, the new one as long as the old one was to be');
select ok((api.key_revoke(t.ctx(ada), b)).status = 200, 'one of them ends')
from p, k;
select is((select m->'data'->>'prefix'
    from queue.outbox o, app.mail_build(o.payload) m
    where o.payload->>'what' = 'rotated' and m->>'to' = 'ada@k.example'),
    'stoa_sk_x', 'its owner has a mail');
select ok((select bool_and((pg_temp.make(ada, x.id)).status = 201
        and (api.key_revoke(t.ctx(ada), x.id)).status = 200)
    from (select gen_random_uuid() as id from generate_series(1, 12)) x),
    'and makes more') from p;
select is((select count(*)::int from queue.outbox o
    where o.payload->>'template' = 'key_notice'
        and o.payload->>'user_id' = ada::text), 10,
    'ten an hour are enough') from p;
select is((select app.mail_build(o.payload)->'data'->>'key_made'
    from queue.outbox o where o.payload->>'template' = 'key_notice'
    order by o.id desc limit 1), '1', 'a revoked one was made, too');
select is((pg_temp.rotate(ada, d, gen_random_uuid(),
    '{"overlap_hours": 0}')).emit->0->>'ctl' like 'sid ' || d || ' %', true,
    'without an overlap it is revoked') from p, k;

-- ---- whose account is suspended ----

select is(pg_temp.look(c), 'live', 'before') from k;
update app.users set status = 'suspended' from p where id = ada;
select is(pg_temp.look(c), 'revoked', 'no key of his works') from k;
select is((pg_temp.make(ada, gen_random_uuid())).body->>'code', 'NOT_FOUND',
    'and none is made') from p;
update app.users set status = 'active' from p where id = ada;

-- ---- whoever has one that ends soon is told, once ----

create function pg_temp.remind(after interval)
returns bigint language plpgsql as $$
declare
    v_was bigint;
begin
    perform t.clock(after);
    select count(*) into v_was from queue.outbox o
    where o.payload->>'what' = 'ends';
    perform task.apikey_reminder(queue.enqueue('apikey.rotation.reminder',
        '{}'), '{}');
    return (select count(*) from queue.outbox o
        where o.payload->>'what' = 'ends') - v_was;
end $$;

create temp table r as
select gen_random_uuid() as long, gen_random_uuid() as short,
    gen_random_uuid() as old, gen_random_uuid() as ended;
select is(pg_temp.remind('0'), 0::bigint, 'none ends');
select ok((pg_temp.make(bob, long, '{"expires_in_days": 60}')).status = 201
    and (pg_temp.make(bob, short, '{"expires_in_days": 28}')).status = 201
    and (pg_temp.make(bob, old, '{"expires_in_days": 50}')).status = 201
    and (pg_temp.make(bob, ended, '{"expires_in_days": 60}')).status = 201
    and (pg_temp.rotate(bob, old, gen_random_uuid(),
        '{"expires_in_days": 300}')).status = 201
    and (api.key_revoke(t.ctx(bob), ended)).status = 200, 'made')
from p, r;
select is(pg_temp.remind('45 days 23 hours'), 0::bigint, 'not yet');
select is(pg_temp.remind('46 days'), 1::bigint, 'a fortnight before');
select results_eq(format($$ select m->>'to', m->'data'->>'prefix',
        m->'data'->>'key_ends', m->'data'->>'key_new', m->'data'->>'days'
    from queue.outbox o, app.mail_build(o.payload) m
    where o.payload->>'what' = 'ends' $$),
    format($$ values ('bob@k.example', 'stoa_sk_' || left(%L, 8), '1',
        null, '14') $$, long::text), 'which') from r;
select is(pg_temp.remind('50 days'), 0::bigint, 'once');
select ok((api.key_revoke(t.ctx(bob), long)).status = 200, 'it is revoked')
from p, r;
select is((select app.mail_build(o.payload) from queue.outbox o
    where o.payload->>'what' = 'ends'), null, 'and the mail is void');
delete from app.api_keys k using p where k.owner_id = bob;
select t.clock('0');

-- ---- the sweep ----

select t.clock('200 days');
insert into queue.outbox (kind, payload, run_at, created_at)
values ('retention.sweep', '{}', app.now(), app.now());
select task.retention_sweep(max(id), '{}') from queue.outbox;
select results_eq('select count(*)::int from app.api_keys', 'select 1',
    'ended 90 days ago: gone, the year''s successor lives');
select is((select rotated_from from app.api_keys), null, 'without its past');
select t.clock('0');

-- ---- roles ----

create function pg_temp.roles(who uuid, list text)
returns api.answer language sql as $$
    select api.users_roles(t.ctx(root, '{admin,member}'), who, null,
        jsonb_build_object('roles', list::jsonb)) from p
$$;

select is((pg_temp.roles(ada, '["scanner", "organizer", "scanner"]')).body
    ->>'roles', '["organizer","scanner","member"]', 'by strength, once')
from p;
select is((pg_temp.roles(ada, '[]')).emit->0->>'ctl', 'user ' || ada || ' 3',
    'tokens of before are dead') from p;
select is((pg_temp.roles(ada, '["member"]')).emit::text, null,
    'no change, no word') from p;
select is((select count(*) from app.login_sessions where reason is not null),
    0::bigint, 'no session ends');
select is((pg_temp.roles(root, '[]')).body->>'code', 'LAST_ADMIN', 'the last')
from p;
select is((api.users_status(t.ctx(root, '{admin,member}'), root, null,
    '{"status": "suspended"}')).body->>'code', 'LAST_ADMIN', 'nor so') from p;
select is((pg_temp.roles(ada, '["admin"]')).status, 200, 'another one') from p;
select is((pg_temp.roles(root, '[]')).status, 200, 'now he may') from p;
select is((pg_temp.roles(ada, '[]')).body->>'code', 'LAST_ADMIN', 'she not')
from p;
select is((pg_temp.roles(root, '["admin"]')).status, 200, 'back') from p;
select is((pg_temp.roles(gen_random_uuid(), '[]')).body->>'code', 'NOT_FOUND',
    'nobody') from p;

-- ---- in whose name ----

create function pg_temp.be(who uuid, whom uuid)
returns text language sql as $$
    select coalesce(i.body->>'code', i.status::text)
    from api.impersonate(t.ctx(who, '{admin,member}'), whom, 'because') i
$$;

select is(pg_temp.be(root, bob), '200', 'a person') from p;
select is(pg_temp.be(root, ada), 'IMPERSONATION_FORBIDDEN', 'no admin') from p;
select is(pg_temp.be(root, root), 'IMPERSONATION_FORBIDDEN', 'not himself')
from p;
select is(pg_temp.be(bob, bob), 'TOKEN_REVOKED', 'who is none, whatever the '
    'edge believes') from p;
select results_eq(format($$ select i.user_id, i.roles, i.epoch, i.act_epoch
        from api.impersonate(t.ctx(%L), %L, 'because') i $$, root, bob),
    format($$ select %L::uuid, '{member}'::text[], 1, u.token_epoch
        from app.users u where u.id = %L $$, bob, root), 'what is signed')
from p;
select results_eq($$ select actor, acting_as, changes from app.audit_log
        where action = 'user.impersonate' order by id limit 1 $$,
    format($$ values (%L::uuid, null::uuid, '{"reason": "because"}'::jsonb) $$,
        root), 'and written down') from p;

select app.audit(row(bob, '{member}', null, null, null, 'r', 'en', null, null,
    root, null)::api.ctx, 'test.act', 'test', null) from p;
select results_eq($$ select actor, acting_as, app.audit_whole(a)
    from app.audit_log a where action = 'test.act' $$,
    format($$ values (%L::uuid, %L::uuid, true) $$, bob, root),
    'hers, and his') from p;
select is((app.ctx_as(row(null, '{}', null, null, null, 'r', 'en', null, null,
    root, bob)::api.ctx, ada, '{}')).acting_as, root,
    'as whom it turns out to be does not hide by whom') from p;

select * from finish();
rollback;
