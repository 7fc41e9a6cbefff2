/*
 * What the two database roles may do, read from the catalog: the edge sees
 * views and calls functions of schema api, the worker calls functions; both
 * can be taken over without a table being read or a name being planted.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';

let app;

before(async () => {
  app = await boot({ workers: 0 });
});
after(() => app?.stop());

const OURS = `('app', 'api', 'queue', 'task', 'stoa_meta', 'public')`;

test('no right on any table, for either', async () => {
  const rows = await app.sql(`
    select n.nspname || '.' || c.relname as name, c.relkind, r.role, p.privilege
    from pg_class c join pg_namespace n on n.oid = c.relnamespace,
      (values ('stoa_edge'), ('stoa_worker')) r (role),
      unnest(array['select', 'insert', 'update', 'delete', 'truncate',
        'references', 'trigger']) p (privilege)
    where n.nspname in ${OURS} and c.relkind in ('r', 'p', 'v', 'm', 'f')
      and c.relname <> 'test_clock'
      and has_table_privilege(r.role, c.oid, p.privilege)`);
  const wrong = rows.filter((r) => !(r.role === 'stoa_edge'
    && r.relkind === 'v' && r.name.startsWith('api.')
    && r.privilege === 'select'));

  assert.deepEqual(wrong, []);
  assert.ok(rows.length > 5, 'the edge reads its views');
});

test('sequences are nobody\'s', async () => {
  assert.deepEqual(await app.sql(`
    select c.relname from pg_class c
    join pg_namespace n on n.oid = c.relnamespace,
      (values ('stoa_edge'), ('stoa_worker')) r (role)
    where c.relkind = 'S' and n.nspname in ${OURS}
      and has_sequence_privilege(r.role, c.oid, 'usage,select,update')`), []);
});

test('nothing can be created, no role is more than it seems', async () => {
  assert.deepEqual(await app.sql(`
    select n.nspname, r.role from pg_namespace n,
      (values ('stoa_edge'), ('stoa_worker')) r (role)
    where n.nspname !~ '^pg_(temp|toast)'
      and has_schema_privilege(r.role, n.oid, 'create')`), []);
  assert.deepEqual(await app.sql(`
    select rolname from pg_roles where rolname in ('stoa_edge', 'stoa_worker')
      and (rolsuper or rolcreaterole or rolcreatedb or rolreplication
        or rolbypassrls)`), []);
  assert.deepEqual(await app.sql(`
    select b.rolname from pg_auth_members m join pg_roles r on r.oid = m.member
    join pg_roles b on b.oid = m.roleid
    where r.rolname in ('stoa_edge', 'stoa_worker')`), []);
});

test('schemas: the edge is in api only, the worker not there', async () => {
  const usage = async (role) => (await app.sql(`
    select nspname from pg_namespace where nspname in ${OURS}
      and has_schema_privilege($1, oid, 'usage') order by 1`, [role]))
    .map((r) => r.nspname);

  assert.deepEqual(await usage('stoa_edge'), ['api']);
  assert.deepEqual(await usage('stoa_worker'), ['app', 'queue', 'task']);
});

test('functions with their owner\'s rights fix their search path', async () => {
  const rows = await app.sql(`
    select p.oid::regprocedure::text as name, p.proconfig as config,
      pg_get_userbyid(p.proowner) as owner
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname in ${OURS} and p.prosecdef and p.proname <> 'pause'`);

  assert.ok(rows.length > 40);
  for (const { name, config, owner } of rows) {
    if (/^app\.(now|test_)/.test(name)) continue; /* the template's clock */
    assert.ok((config ?? []).includes('search_path=pg_catalog, pg_temp'),
      `${name}: ${config}`);
    assert.equal(owner, 'stoa_owner', name);
  }
});

test('each role runs its own functions', async () => {
  const runs = async (role, schemas) => (await app.sql(`
    select p.oid::regprocedure::text as name
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname = any ($2) and p.prosecdef
      and has_function_privilege($1, p.oid, 'execute')
      and not exists (select from pg_depend d where d.objid = p.oid
        and d.deptype = 'e') order by 1`, [role, schemas]))
    .map((r) => r.name.replace(/\(.*/, ''));

  assert.deepEqual(await runs('stoa_edge', ['queue', 'task', 'stoa_meta',
    'public']), []);
  assert.deepEqual(await runs('stoa_worker', ['api', 'stoa_meta', 'public']),
    []);
  /* of what is inside, only what was named one by one */
  assert.deepEqual((await runs('stoa_worker', ['app']))
    .filter((name) => !/^app\.(now|pause)$/.test(name)),
  ['app.audit_verify', 'app.audit_verify_chain', 'app.audit_verify_from',
    'app.audit_verify_rows', 'app.settings_put']);
});

test('asked for directly, tables are refused', async () => {
  for (const role of ['stoa_edge', 'stoa_worker']) {
    const client = await app.client(role);

    for (const text of ['select * from app.users', 'delete from app.orders',
      'select * from queue.outbox', 'create table app.x (a int)',
      'create function api.x() returns int language sql as $$ select 1 $$',
      'set role stoa_owner', 'select pg_read_file(\'/etc/passwd\')',
      `copy (select 1) to program 'id'`, 'select * from pg_authid',
      'alter role stoa_edge superuser', 'create extension dblink']) {
      await assert.rejects(client.query(text), (e) =>
        ['42501', '42P01', '3F000'].includes(e.code) || assert.fail(
          `${role}: ${text}: ${e.code}`), `${role}: ${text}`);
    }
  }
});
