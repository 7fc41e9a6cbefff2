/*
 * stoa audit verify against logs that somebody who owns the database went
 * over: what it names, what it cannot know, and the head that helps there.
 */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { theCluster } from '../harness/cluster.js';
import { confText, testConf } from '../harness/conf.js';
import {
  BUILD, ROOT, cleanEnv, tempDir, until,
} from '../harness/proc.js';

const ROWS = 25;
const databases = [];

let cluster, dir;
let made = 0;

before(async () => {
  cluster = await theCluster();
  dir = tempDir('stoa-audit-');
});
after(async () => {
  for (const name of databases) await cluster.drop(name);
  fs.rmSync(dir, { recursive: true, force: true });
});

/* A database with a log of sealed rows. */
async function log(rows = ROWS) {
  const name = `stoa_a_${process.pid}_${++made}`;
  const file = path.join(dir, `${name}.conf`);

  await cluster.copy(name);
  databases.push(name);
  fs.writeFileSync(file, confText(testConf({ dir, database: name,
    pgDir: cluster.data, redis: path.join(dir, 'no.sock'),
    url: 'http://127.0.0.1:1' })), { mode: 0o600 });

  const db = {
    name, file,
    q: async (text) => (await cluster.sql(name, text)).rows,
    tamper: (text) => cluster.sql(name,
      `set session_replication_role = replica; ${text}`),
  };

  await write(db, rows);
  await seal(db);
  return db;
}

const write = (db, n) => db.q(`do $$ begin for i in 1..${n} loop
    perform app.audit(app.ctx_task('test'), 'test.write', 'test', i::text,
      jsonb_build_object('i', i, 'name', 'a||b'));
    commit; end loop; end $$`);

/* Transactions of other databases of the cluster hold the sealer back. */
const seal = (db) => until(async () => {
  await db.q(`select task.audit_seal(queue.enqueue('audit.seal', '{}'),
    '{}')`);
  return (await db.q(`select (select count(*) from app.audit_log)
    = (select count(*) from app.audit_chain) as all`))[0].all;
}, { timeout: 30000, what: 'all of the log in the chain' });

/* The command to its end: {code, out, err}. */
const run = (db, ...args) => new Promise((done, fail) => {
  const child = spawn(path.join(BUILD, 'stoa'), ['-c', db.file, 'audit',
    ...args], { cwd: ROOT, env: cleanEnv() });
  let out = '';
  let err = '';

  child.stdout.on('data', (d) => { out += d; });
  child.stderr.on('data', (d) => { err += d; });
  child.on('error', fail);
  child.on('close', (code) => done({ code, out, err }));
});

const verify = (db, ...args) => run(db, 'verify', ...args);

async function json(db, ...args) {
  const r = await verify(db, '--json', ...args);

  return { ...JSON.parse(r.out), code: r.code };
}

const nth = async (db, n) => (await db.q(`select audit_xid as xid,
  audit_id as id, n from app.audit_chain order by day, n
  offset ${n - 1} limit 1`))[0];

test('a whole log: 0, its counts and its head', async () => {
  const db = await log();
  const r = await verify(db);

  assert.equal(r.code, 0, r.err);
  assert.equal(r.err, '');
  assert.match(r.out,
    /^25 links, 25 rows: whole\nhead [0-9a-f]{64}, link [0-9-]{10}\/25\n$/);

  const said = await json(db);
  const [last] = await db.q(`select encode(hash, 'hex') as hash, n,
    day::text from app.audit_chain order by day desc, n desc limit 1`);

  assert.deepEqual(said, { code: 0, whole: true, links: ROWS, rows: ROWS,
    head: last, expected: null,
    altered: { count: 0, first: null }, missing: { count: 0, first: null },
    broken: { count: 0, first: null }, unsealed: { count: 0, first: null } });
});

test('slices of any size say the same', async () => {
  const db = await log();

  await db.tamper(`update app.audit_log set action = 'test.forged'
    where id in (select id from app.audit_log order by id offset 11 limit 3)`);
  await db.tamper(`delete from app.audit_log where id =
    (select id from app.audit_log order by id offset 19 limit 1)`);

  const all = await json(db);

  assert.equal(all.code, 1);
  assert.equal(all.altered.count, 3);
  assert.equal(all.missing.count, 1);
  for (const n of [1, 2, 3, 7, 12, 24, 25, 26, 1000000]) {
    assert.deepEqual(await json(db, '--slice', String(n)), all, `${n}`);
  }
});

test('an empty log is whole and has no head', async () => {
  const db = await log(0);

  assert.deepEqual(await verify(db),
    { code: 0, out: '0 links, 0 rows: whole\n', err: '' });
  assert.equal((await json(db)).head, null);
});

/* Another row 7, of the same text and so of the same digest. */
const SAME = `resource_id = '7|{"i": 7, "name": "a', changes = null,
  ip = 'b"}', request_id = '|task:test'`;

test('every member of a row is in its digest', async () => {
  const db = await log();
  const { xid, id } = await nth(db, 7);
  const at = `xid = '${xid}' and id = ${id}`;
  const [was] = await db.q(`select a::text from app.audit_log a where ${at}`);

  for (const set of [
    `at = at + interval '1 microsecond'`, `actor = gen_random_uuid()`,
    `acting_as = gen_random_uuid()`, `api_key = gen_random_uuid()`,
    `device = gen_random_uuid()`, `action = 'test.writ'`, `action = ''`,
    `resource = 'tests'`, `resource_id = null`, `resource_id = '8'`,
    `changes = '{"i": 8}'`, `changes = null`, `ip = '192.0.2.9'`, `ip = ''`,
    `request_id = null`, `request_id = 'task:tes'`,
    `ip = '|task:test', request_id = ''`,
    SAME,
    `digest = sha256('x')`,
  ]) {
    await db.tamper(`create table was as select * from app.audit_log
        where ${at};
      update app.audit_log set ${set} where ${at}`);

    if (set === SAME) {
      assert.deepEqual(await db.q(`select digest = app.audit_digest(at, actor,
        device, action, resource, resource_id, changes, ip, request_id) as same
        from app.audit_log where ${at}`), [{ same: true }]);
    }

    const r = await verify(db);

    assert.equal(r.code, 1, set);
    assert.match(r.err, new RegExp(`^stoa audit: row ${id} \\(transaction `
      + `${xid}, ".*", .*Z, link .*/7\\) was altered\n$`), set);
    assert.match(r.out, /^25 links, 25 rows: NOT whole\nhead /, set);

    await db.tamper(`delete from app.audit_log where ${at};
      insert into app.audit_log overriding system value select * from was;
      drop table was`);
    assert.deepEqual(await db.q(`select a::text from app.audit_log a
      where ${at}`), [was]);
  }
  assert.equal((await verify(db)).code, 0);
});

test('a row with a new digest does not fit its link', async () => {
  const db = await log();
  const { xid, id } = await nth(db, 9);

  await db.tamper(`update app.audit_log a set action = 'test.forged',
      digest = app.audit_digest(a.at, a.actor, a.device, 'test.forged',
        a.resource, a.resource_id, a.changes, a.ip, a.request_id)
    where id in (select id from app.audit_log where id >= ${id}
      order by id limit 4)`);

  const said = await json(db);

  assert.equal(said.code, 1);
  assert.equal(said.broken.count, 4);
  assert.equal(said.broken.first.id, Number(id));
  assert.equal(said.broken.first.xid, Number(xid));
  assert.equal(said.broken.first.action, 'test.forged');
  assert.match((await verify(db)).err, /do not agree.*; and 3 more\n$/);
});

test('a row that is gone, a link that is gone or altered', async () => {
  const db = await log();
  const { id } = await nth(db, 5);

  await db.tamper(`delete from app.audit_log where id = ${id}`);
  let said = await json(db);

  assert.equal(said.missing.count, 1);
  assert.equal(said.missing.first.id, Number(id));
  assert.equal(said.rows, ROWS - 1);
  assert.match((await verify(db)).err,
    new RegExp(`^stoa audit: row ${id} \\(transaction .*\\) is missing`));

  /* with its link: the next one does not follow */
  await db.tamper(`delete from app.audit_chain where audit_id = ${id}`);
  said = await json(db);
  assert.deepEqual([said.code, said.missing.count, said.broken.count,
    said.broken.first.n], [1, 0, 1, 6]);

  const two = await log();

  for (const [set, n] of [[`hash = sha256('x')`, 2],
    [`prev_hash = sha256('x')`, 1], ['n = n + 100', 2]]) {
    await two.tamper(`create table was as select * from app.audit_chain;
      update app.audit_chain set ${set} where n = 13`);
    said = await json(two);
    assert.deepEqual([said.code, said.broken.count], [1, n], set);
    await two.tamper(`delete from app.audit_chain;
      insert into app.audit_chain select * from was; drop table was`);
  }

  /* the first links, with their rows */
  await two.tamper(`delete from app.audit_log where id in
      (select audit_id from app.audit_chain where n <= 3);
    delete from app.audit_chain where n <= 3`);
  said = await json(two);
  assert.deepEqual([said.code, said.broken.count, said.broken.first.n],
    [1, 1, 4]);
});

test('links without their rows leave rows that no link has', async () => {
  const db = await log();

  await db.tamper('delete from app.audit_chain where n > 20');
  const said = await json(db);

  assert.deepEqual([said.code, said.links, said.unsealed.count], [1, 20, 5]);

  /* not even a row that says it is of tomorrow */
  const two = await log();

  await two.tamper(`insert into app.audit_log (xid, at, action, resource,
      digest)
    select '3', a.at, 'test.forged', 'test', app.audit_digest(a.at, null,
      null, 'test.forged', 'test', null, null, null, null)
    from (select app.now() + interval '1 day' as at) a`);
  const forged = await json(two);

  assert.deepEqual([forged.code, forged.unsealed.count,
    forged.unsealed.first.action], [1, 1, 'test.forged']);
});

test('a row is not late before its minute is over', async () => {
  const db = await log();

  await write(db, 2);
  assert.deepEqual((({ code, rows, links }) => ({ code, rows, links }))(
    await json(db)), { code: 0, rows: ROWS + 2, links: ROWS });

  await db.q(`update app.test_clock set shift = '61 s'`);
  const r = await verify(db);

  assert.equal(r.code, 1);
  assert.match(r.err, /is older than 60 s and not sealed; and 1 more\n$/);

  await seal(db);
  assert.equal((await verify(db)).code, 0);
});

test('only the head tells of an end that was cut or replaced', async () => {
  const db = await log();
  const { hash } = (await json(db)).head;

  await write(db, 5);
  await seal(db);
  assert.equal((await verify(db, '--expect', hash)).code, 0);
  assert.equal((await verify(db, '--expect', hash.toUpperCase())).code, 0);

  await db.tamper(`delete from app.audit_log where id in
      (select audit_id from app.audit_chain where n > 20);
    delete from app.audit_chain where n > 20`);
  assert.equal((await verify(db)).code, 0, 'the rest is whole in itself');

  const cut = await verify(db, '--expect', hash);

  assert.equal(cut.code, 1);
  assert.match(cut.err, /^stoa audit: the head that was expected is not in/);

  /* all of it, sealed afresh */
  const two = await log();
  const old = (await json(two)).head.hash;

  await two.tamper(`truncate app.audit_log; truncate app.audit_chain;
    update app.audit_seal set below = '0'`);
  await write(two, ROWS);
  await seal(two);
  assert.equal((await verify(two)).code, 0);
  assert.equal((await json(two, '--expect', old)).expected, false);
});

test('--since: the days before are taken as they are', async () => {
  const db = await log();
  const day = async (n) => (await db.q(`select to_char(app.now()
    + interval '${n} days', 'YYYY-MM-DD') as day`))[0].day;

  for (const n of [1, 2]) {
    await db.q(`update app.test_clock set shift = '${n} days'`);
    await write(db, 3);
    await seal(db);
  }
  const today = await day(0);

  assert.deepEqual((({ links, rows }) => [links, rows])(await json(db)),
    [ROWS + 6, ROWS + 6]);
  assert.equal((await json(db, '--since', today)).links, 3);
  assert.equal((await json(db, '--since', await day(-1))).links, 6);
  assert.equal((await json(db, '--since', await day(1))).links, 0);
  assert.equal((await json(db, '--since', '1990-01-01')).links, ROWS + 6);

  await db.tamper(`update app.audit_log set action = 'test.forged'
    where id = (select min(id) from app.audit_log)`);
  assert.equal((await json(db)).code, 1);
  assert.equal((await json(db, '--since', today)).code, 0);

  const { hash } = (await json(db)).head;

  assert.equal((await json(db, '--since', today, '--expect', hash)).code, 0);
  await db.tamper(`update app.audit_chain set prev_hash = sha256('x')
    where n = 1 and day = (select max(day) from app.audit_chain)`);
  assert.equal((await json(db, '--since', today)).broken.count, 1);
});

test('what is asked wrongly is told in a sentence', async () => {
  const db = await log(1);

  for (const [args, said] of [
    [[], 'say verify'], [['verfy'], 'say verify'],
    [['verify', 'it'], '"it" is one argument too many'],
    [['verify', '--since', 'yesterday'], '--since is a day'],
    [['verify', '--since', '2026-02-30'], '--since is a day'],
    [['verify', '--since', '2026-01-01T00:00:00Z'], '--since is a day'],
    [['verify', '--expect', 'abc'], '--expect is a head'],
    [['verify', '--expect', 'x'.repeat(64)], '--expect is a head'],
    [['verify', '--slice', '0'], '--slice is a number'],
    [['verify', '--since'], '--since needs a value'],
  ]) {
    const r = await run(db, ...args);

    assert.equal(r.code, 2, args.join(' '));
    assert.equal(r.out, '');
    assert.match(r.err, /^stoa audit: [^\n]*\n$/);
    assert.ok(r.err.includes(said), r.err);
  }

  await db.q('drop function app.audit_verify_rows(text, bigint, int, int)');
  const broken = await verify(db);

  assert.equal(broken.code, 1);
  assert.match(broken.err, /^stoa audit: cannot read the log: .*\n$/);

  fs.writeFileSync(db.file, fs.readFileSync(db.file, 'utf8')
    .replace(/^DB_HOST=.*$/m, `DB_HOST=${dir}`));
  assert.equal((await verify(db)).code, 3);
});
