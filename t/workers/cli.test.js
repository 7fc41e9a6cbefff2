/*
 * The program's commands: exit codes, sentences, and that migrating is safe
 * from many machines at once.
 */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { theCluster } from '../harness/cluster.js';
import { SECRETS, confText, testConf } from '../harness/conf.js';
import { BUILD, ROOT, cleanEnv, tempDir } from '../harness/proc.js';

let cluster, dir;
let made = 0;
const databases = [];

before(async () => {
  cluster = await theCluster();
  dir = tempDir('stoa-cli-');
});
after(async () => {
  for (const name of databases) await cluster.drop(name);
  fs.rmSync(dir, { recursive: true, force: true });
});

/* The program to its end: {code, out, err}. */
function stoa(args, { env, input } = {}) {
  return new Promise((done, fail) => {
    const child = spawn(path.join(BUILD, 'stoa'), args,
      { cwd: ROOT, env: { ...cleanEnv(), ...env } });
    let out = '';
    let err = '';

    child.stdout.on('data', (d) => { out += d; });
    child.stderr.on('data', (d) => { err += d; });
    child.on('error', fail);
    child.on('close', (code, signal) => done({ code, signal, out, err }));
    child.stdin.on('error', () => {});
    child.stdin.end(input ?? '');
  });
}

/* Settings for a database of its own; empty, or a copy of the template. */
async function settings({ empty, conf } = {}) {
  const name = `stoa_c_${process.pid}_${++made}`;
  const file = path.join(dir, `${name}.conf`);

  if (empty) {
    await cluster.template(); /* makes the roles */
    await cluster.sql('postgres', `create database ${name} owner stoa_owner`);
  } else {
    await cluster.copy(name);
  }
  databases.push(name);
  fs.writeFileSync(file, confText({
    ...testConf({ dir, database: name, pgDir: cluster.data,
      redis: path.join(dir, 'no.sock'), url: 'http://127.0.0.1:1' }),
    ...conf,
  }), { mode: 0o600 });
  return { name, file, env: { STOA_CONF: file } };
}

describe('usage', () => {
  test('no command: usage on standard error, 2', async () => {
    const r = await stoa([]);

    assert.equal(r.code, 2);
    assert.match(r.err, /^usage: stoa/);
  });

  test('--help and help: usage on standard output, 0', async () => {
    for (const args of [['--help'], ['help'], ['help', 'migrate']]) {
      const r = await stoa(args);

      assert.equal(r.code, 0);
      assert.match(r.out, /^usage: stoa/);
      assert.equal(r.err, '');
    }
  });

  for (const name of ['work', 'migrate', 'check', 'routes', 'openapi',
    'manual', 'queues', 'tasks', 'audit', 'user', 'token', 'key']) {
    test(`${name} --help: its options, 0`, async () => {
      const r = await stoa([name, '--help']);

      assert.equal(r.code, 0);
      assert.ok(r.out.startsWith(`usage: stoa [-c FILE] ${name}`));
      assert.match(r.out, /-c FILE/);
    });

    test(`${name} --nonsense: one sentence, 2`, async () => {
      const r = await stoa([name, '--nonsense']);

      assert.equal(r.code, 2);
      assert.match(r.err, new RegExp(`^stoa ${name}: .*--nonsense.*\n$`));
      assert.equal(r.out, '');
    });
  }

  test('manual: an unknown section, or two forms at once: 2', async () => {
    const r = await stoa(['manual', 'setings']);

    assert.equal(r.code, 2);
    assert.equal(r.out, '');
    assert.equal(r.err, 'stoa manual: there is no section "setings", did ' +
      'you mean "settings"?; see stoa manual --help\n');

    const both = await stoa(['manual', '--json', '--markdown']);

    assert.equal(both.code, 2);
    assert.equal(both.err, 'stoa manual: --json or --markdown, not both\n');
  });

  test('an unknown command: 2', async () => {
    const r = await stoa(['wrok']);

    assert.equal(r.code, 2);
    assert.match(r.err, /no command "wrok"/);
  });

  test('-c without a file: 2', async () => {
    const r = await stoa(['-c']);

    assert.equal(r.code, 2);
    assert.match(r.err, /^stoa: -c needs a file/);
  });

  test('a missing settings file: one sentence, 1', async () => {
    const r = await stoa(['-c', '/nonexistent/stoa.conf', 'check']);

    assert.equal(r.code, 1);
    assert.match(r.err, /^stoa check: .*\/nonexistent\/stoa\.conf.*\n$/);
  });

  test('a misspelled setting: file, line and the nearest name', async () => {
    const file = path.join(dir, 'wrong.conf');

    fs.writeFileSync(file, 'DB_PORT=5432\nREDIS_HOTS=127.0.0.1\n');

    const r = await stoa(['check'], { env: { STOA_CONF: file } });

    assert.equal(r.code, 1);
    assert.match(r.err, /wrong\.conf.*2.*REDIS_HOST/);
  });
});

describe('settings', () => {
  const KEY = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' })
    .privateKey.export({ type: 'pkcs8', format: 'pem' });
  const PRODUCTION = { ENVIRONMENT: 'production', PAYMENT_PROVIDER: 'stripe',
    STRIPE_SECRET_KEY: 'sk_test_x' };

  async function check(conf) {
    const file = path.join(dir, 'check.conf');

    fs.writeFileSync(file, confText({
      ...testConf({ dir, database: 'none', pgDir: '/nowhere',
        redis: path.join(dir, 'no.sock'), url: 'http://127.0.0.1:1' }),
      ...conf,
    }));
    return stoa(['check'], { env: { STOA_CONF: file } });
  }

  test('check refuses a key that the edge refuses', async () => {
    const pem = path.join(dir, 'key.pem');

    fs.writeFileSync(pem, KEY);

    const none = await check({ JWT_ALG: 'ES256' });
    const wrong = await check({ JWT_ALG: 'RS256', JWT_PRIVATE_KEY_FILE: pem });
    const secret = await check({ JWT_SECRET: '' });

    assert.equal(none.code, 1);
    assert.match(none.err, /^stoa check: JWT_ALG is ES256, and JWT_PRIVATE_KEY/);
    assert.equal(wrong.code, 1);
    assert.match(wrong.err, /^stoa check: JWT_ALG is RS256, and JWT_PRIVATE_KEY/);
    assert.equal(secret.code, 1);
    assert.match(secret.err, /^stoa check: JWT_SECRET is not set/);
    assert.equal((await check({ JWT_ALG: 'ES256', JWT_PRIVATE_KEY_FILE: pem }))
      .code, 0);
  });

  test('check tells every mistake, each once', async () => {
    const r = await check({ DB_SSLMODE: 'foo', JWT_ALG: 'none', DB_HOTS: 'x',
      REDIS_HOST: 'rediss://redis.example', HOLD_TTL: '1',
      ENVIRONMENT: 'production', PAYMENT_PROVIDER: 'paypal' });

    assert.equal(r.code, 1);
    for (const part of ['DB_SSLMODE must be one of disable\\|allow\\|prefer',
      'JWT_ALG must be', '"DB_HOTS" is no setting; did you mean "DB_HOST"',
      'TLS is not spoken to Redis; .*socket.*stunnel', 'HOLD_TTL must be',
      'PAYMENT_PROVIDER must be']) {
      assert.match(r.err, new RegExp(part));
    }
    assert.match(r.err, /^stoa check: 6 faults$/m);
    assert.equal(r.err.trimEnd().split('\n').length, 7);
  });

  test('check warns of a production that nobody reaches', async () => {
    const r = await check({ ...PRODUCTION, STRIPE_SECRET_KEY: 'sk_live_x' });

    assert.equal(r.code, 0);
    assert.match(r.err, /^stoa check: warning: PUBLIC_URL is "http:\/\/127/m);
    assert.match(r.err, /^stoa check: warning: SMTP_HOST is not set/m);

    const well = await check({ ...PRODUCTION, STRIPE_SECRET_KEY: 'sk_live_x',
      PUBLIC_URL: 'https://tickets.example', SMTP_HOST: 'mail.example' });

    assert.equal(well.err, '');
  });

  test('check warns of tests that everybody reaches', async () => {
    for (const conf of [{}, { ENVIRONMENT: 'staging' }]) {
      for (const url of ['https://tickets.example', 'http://192.0.2.1']) {
        const r = await check({ ...conf, PUBLIC_URL: url });

        assert.equal(r.code, 0);
        assert.ok(r.err.startsWith('stoa check: warning: PUBLIC_URL is '
          + `"${url}" and ENVIRONMENT is "${
            conf.ENVIRONMENT ?? 'development'}"`), r.err);
      }
      for (const url of ['http://127.0.0.1:8080', 'http://localhost']) {
        assert.equal((await check({ ...conf, PUBLIC_URL: url })).err, '');
      }
    }
  });

  test('what is said of installing names what production needs', () => {
    const readme = fs.readFileSync(path.join(ROOT, 'README.md'), 'utf8');
    const [lines] = readme.match(/^editor \/etc\/stoa\/stoa[^]*?^export /m);

    for (const key of ['ENVIRONMENT=production', 'PUBLIC_URL', 'JWT_SECRET',
      'TICKET_SEED', 'PAYMENT_PROVIDER=stripe', 'SMTP_HOST']) {
      assert.ok(lines.includes(key), key);
    }
  });

  test('check --help has every setting and its default', async () => {
    const { out } = await stoa(['check', '--help']);
    const def = fs.readFileSync(
      path.join(ROOT, 'shared/stoa_conf.def'), 'utf8');
    const keys = [...def.matchAll(/^STOA_CONF\(\w+, "([A-Z0-9_]+)"/gm)]
      .map((m) => m[1]).filter((key) => !key.startsWith('STOA_TEST_'));

    assert.ok(keys.length > 50);
    for (const key of keys) assert.match(out, new RegExp(`^  ${key}=`, 'm'));
    assert.match(out, /^  HOLD_TTL=15m$/m);
  });
});

describe('rows', () => {
  test('check: settings and rows are well', async () => {
    const s = await settings();
    const r = await stoa(['check'], s);

    assert.equal(r.err, '');
    assert.equal(r.code, 0);
    assert.match(r.out, /endpoints.*tasks are well/);
  });

  test('check --db: every statement prepares on the schema', async () => {
    const s = await settings();
    const r = await stoa(['check', '--db'], s);

    assert.equal(r.err, '');
    assert.equal(r.code, 0);
    assert.match(r.out, /; \d+ statements prepared/);
  });

  test('check --db names the row whose statement does not fit', async () => {
    const s = await settings();

    await cluster.sql(s.name, 'drop function task.audit_seal(bigint, jsonb)');

    const r = await stoa(['check', '--db'], s);

    assert.equal(r.code, 1);
    assert.match(r.err, /^stoa check: audit\.seal: .*does not exist/m);
    assert.equal(r.err.trimEnd().split('\n').length, 1);
  });

  test('check --db, nothing there: 3', async () => {
    const s = await settings({ conf: { DB_HOST: '127.0.0.1', DB_PORT: '1' } });
    const r = await stoa(['check', '--db'], s);

    assert.equal(r.code, 3);
    assert.match(r.err, /^stoa check: cannot reach database /);
  });

  test('routes: a line per row, and the same as JSON', async () => {
    const text = await stoa(['routes']);
    const json = JSON.parse((await stoa(['routes', '--json'])).out);

    assert.equal(text.code, 0);
    assert.equal(text.out.trimEnd().split('\n').length, json.length);
    assert.ok(json.some((r) => r.id === 'orders.create'
      && r.method === 'POST' && r.path === '/api/v1/orders'));
    for (const row of json) {
      for (const name of ['method', 'path', 'who', 'of', 'rate', 'id']) {
        assert.ok(row[name], `${row.id} has no ${name}`);
      }
      assert.ok(row.who.length > 0);
    }
  });

  test('openapi: the document', async () => {
    const doc = JSON.parse((await stoa(['openapi'])).out);

    assert.match(doc.openapi, /^3\.1/);
    assert.ok(doc.paths['/api/v1/orders'].post);
  });
});

describe('migrate', () => {
  const files = () => fs.readdirSync(path.join(ROOT, 'migrations'))
    .filter((f) => f.endsWith('.sql')).length
    + fs.readdirSync(path.join(ROOT, 'migrations/api'))
      .filter((f) => f.endsWith('.sql')).length;

  test('eight at once on an empty database: each file once', async () => {
    const s = await settings({ empty: true });
    const all = await Promise.all(
      Array.from({ length: 8 }, () => stoa(['migrate'], s)));

    assert.deepEqual(all.map((r) => [r.code, r.err]),
      all.map(() => [0, '']));

    const applied = all.flatMap((r) =>
      [...r.out.matchAll(/^applied (\S+)/gm)].map((m) => m[1])).sort();

    assert.equal(applied.length, files());
    assert.equal(new Set(applied).size, applied.length);

    const { rows } = await cluster.sql(s.name,
      'select count(*)::int as n from stoa_meta.stoa_migrations');

    assert.equal(rows[0].n, files());
    assert.match((await stoa(['migrate'], s)).out, /up to date/);
  });

  test('what it makes belongs to stoa_owner, the settings are written', async () => {
    const s = await settings({ empty: true });

    assert.equal((await stoa(['migrate'], s)).code, 0);

    const { rows: foreign } = await cluster.sql(s.name, `
      select p.oid::regprocedure::text from pg_proc p
      join pg_namespace n on n.oid = p.pronamespace
      where n.nspname in ('app', 'queue', 'api', 'task')
        and pg_get_userbyid(p.proowner) <> 'stoa_owner'
        and not exists (select from pg_depend d where d.objid = p.oid
                        and d.deptype = 'e')`);
    const { rows: set } = await cluster.sql(s.name,
      `select value from app.settings where key = 'public_url'`);

    assert.deepEqual(foreign, []);
    assert.equal(set[0].value, 'http://127.0.0.1:1');
  });

  test('--dry-run and --status change nothing', async () => {
    const s = await settings({ empty: true });
    const dry = await stoa(['migrate', '--dry-run'], s);

    assert.equal(dry.code, 0);
    assert.match(dry.out, /^pending +0001_/m);
    assert.match(dry.out, new RegExp(`${files()} of ${files()} files`));

    const { rows } = await cluster.sql(s.name,
      `select 1 from pg_namespace where nspname in ('app', 'stoa_meta')`);

    assert.deepEqual(rows, []);
    assert.equal((await stoa(['migrate'], s)).code, 0);

    const status = await stoa(['migrate', '--status'], s);

    assert.match(status.out, /^applied +0001_/m);
    assert.match(status.out, /^0 of /m);
  });

  /* A folder of our own over the shipped one. */
  function folder(name, extra) {
    const to = path.join(dir, name);

    fs.cpSync(path.join(ROOT, 'migrations'), to, { recursive: true });
    for (const [file, text] of Object.entries(extra)) {
      fs.writeFileSync(path.join(to, file), text);
    }
    return to;
  }

  test('an applied file that was edited is refused, and nothing runs', async () => {
    const s = await settings();
    const [first] = fs.readdirSync(path.join(ROOT, 'migrations'))
      .filter((f) => f.startsWith('0001_'));
    const text = fs.readFileSync(path.join(ROOT, 'migrations', first), 'utf8');
    const to = folder('edited', {
      [first]: `${text}\n-- edited\n`,
      '9999_more.sql': 'create table app.more (id int);\n',
    });
    const r = await stoa(['migrate', '--dir', to], s);

    assert.equal(r.code, 1);
    assert.match(r.err, new RegExp(`${first}" was changed after it was applied`));

    const { rows } = await cluster.sql(s.name,
      `select to_regclass('app.more') as t`);

    assert.equal(rows[0].t, null);
  });

  test('a file that fails leaves nothing, and says where', async () => {
    const s = await settings();
    const to = folder('broken', {
      '9999_broken.sql': 'create table app.half (id int);\n\nselect nonsense;\n',
    });
    const r = await stoa(['migrate', '--dir', to], s);

    assert.equal(r.code, 1);
    assert.match(r.err, /^stoa migrate: 9999_broken\.sql: .*nonsense/m);

    const { rows } = await cluster.sql(s.name,
      `select to_regclass('app.half') as t`);

    assert.equal(rows[0].t, null);
  });

  test('a file broken in its first line ends it: 1, nothing behind it runs',
    async () => {
      const s = await settings();
      const to = folder('broken_first', {
        '9998_broken.sql': 'selct 1;\n',
        '9999_behind.sql': 'create table app.behind (id int);\n',
      });
      const r = await stoa(['migrate', '--dir', to], s);

      assert.equal(r.code, 1);
      assert.match(r.err, /^stoa migrate: 9998_broken\.sql: .*selct/);
      assert.equal(r.out, '');

      const { rows } = await cluster.sql(s.name,
        `select to_regclass('app.behind') as t`);

      assert.equal(rows[0].t, null);
    });

  test('a new file with a number below an applied one is refused', async () => {
    const s = await settings();
    const to = folder('order', { '0001_aaa.sql': 'select 1;\n' });
    const r = await stoa(['migrate', '--dir', to], s);

    assert.equal(r.code, 1);
    assert.match(r.err,
      /0001_aaa\.sql" is not applied, but "000\d_\w+\.sql", which comes after/);
    assert.equal(r.out, '');
    assert.equal((await stoa(['migrate', '--dir', to, '--status'], s)).code, 1);
  });

  test('a folder without migrations, or without an applied one: 1',
    async () => {
      const s = await settings();
      const empty = path.join(dir, 'empty');
      const lacking = folder('lacking', {});
      const [, second] = fs.readdirSync(lacking)
        .filter((f) => f.endsWith('.sql'));

      fs.mkdirSync(empty);
      fs.rmSync(path.join(lacking, second));

      const none = await stoa(['migrate', '--dir', empty], s);

      assert.equal(none.code, 1);
      assert.match(none.err, /there are no migrations in ".*empty"\n$/);

      for (const args of [[], ['--status'], ['--dry-run']]) {
        const r = await stoa(['migrate', '--dir', lacking, ...args], s);

        assert.equal(r.code, 1);
        assert.match(r.err, new RegExp(
          `"${second}" was applied and is missing in ".*lacking"`));
        assert.equal(r.out, '');
      }
    });

  test('--dry-run and --status together: 2', async () => {
    const r = await stoa(['migrate', '--dry-run', '--status']);

    assert.equal(r.code, 2);
    assert.match(r.err, /--dry-run or --status, not both/);
  });

  test('a repeatable file is applied again when its text changed', async () => {
    const s = await settings();
    const to = folder('changed', {
      'api/99_more.sql': `create or replace function app.one() returns int
        language sql as 'select 1';\n`,
    });

    assert.match((await stoa(['migrate', '--dir', to], s)).out,
      /^applied api\/99_more\.sql/);
    fs.writeFileSync(path.join(to, 'api/99_more.sql'),
      `create or replace function app.one() returns int
       language sql as 'select 2';\n`);
    assert.match((await stoa(['migrate', '--dir', to, '--status'], s)).out,
      /^changed +api\/99_more\.sql/m);
    assert.match((await stoa(['migrate', '--dir', to], s)).out,
      /^applied api\/99_more\.sql/);

    const { rows } = await cluster.sql(s.name, 'select app.one() as n');

    assert.equal(rows[0].n, 2);
  });

  test('nobody there: one sentence, 3', async () => {
    const s = await settings({ conf: { DB_PORT: '1' } });
    const r = await stoa(['migrate'], s);

    assert.equal(r.code, 3);
    assert.match(r.err, /^stoa migrate: cannot reach .*\n$/);
  });
});

describe('accounts', () => {
  let s;

  before(async () => {
    s = await settings();
  });

  test('user add: prints the id; twice: says so, 1', async () => {
    const args = ['user', 'add', 'root@example.org', '--role', 'admin',
      '--password-stdin'];
    const first = await stoa(args, { ...s, input: 'a long password\n' });

    assert.equal(first.err, '');
    assert.match(first.out, /^[0-9a-f]{8}-[0-9a-f-]{27}\n$/);

    const again = await stoa(args, { ...s, input: 'a long password\n' });

    assert.equal(again.code, 1);
    assert.match(again.err, /an account "root@example\.org" already/);
  });

  test('user add: short password 1, no role or unknown role 2', async () => {
    const short = await stoa(['user', 'add', 'x@example.org', '--role',
      'admin', '--password-stdin'], { ...s, input: 'short\n' });

    assert.equal(short.code, 1);
    assert.doesNotMatch(short.err + short.out, /short\n?$/);
    assert.equal((await stoa(['user', 'add', 'x@example.org',
      '--password-stdin'], s)).code, 2);

    const role = await stoa(['user', 'add', 'x@example.org', '--role', 'king',
      '--password-stdin'], s);

    assert.equal(role.code, 2);
    assert.match(role.err, /no role "king"/);
  });

  test('user add: what is no address, 2', async () => {
    for (const email of ['notanemail', 'a@b', `${'a'.repeat(400)}@b.example`,
      'a b@c.example']) {
      const r = await stoa(['user', 'add', email, '--role', 'admin',
        '--password-stdin'], { ...s, input: 'a long password\n' });

      assert.equal(r.code, 2, email);
      assert.match(r.err, /is not an address of mail\n$/);
    }
  });

  test('user add: a password of two lines, 1', async () => {
    const r = await stoa(['user', 'add', 'two@example.org', '--role', 'admin',
      '--password-stdin'], { ...s, input: 'a long password\nand more\n' });

    assert.equal(r.code, 1);
    assert.match(r.err, /the password is one line/);
  });

  test('key add: prints it once; list and revoke', async () => {
    const key = (...args) => stoa(['key', ...args], s);
    const id = (await stoa(['user', 'add', 'robot@example.org', '--role',
      'member', '--password-stdin'], { ...s, input: 'a long password\n' }))
      .out.trim();
    const first = await key('add', 'Robot@example.org', '--name', 'Backup',
      '--scopes', 'events:read,*:read', '--days', '7');

    assert.equal(first.err, '');
    assert.match(first.out, /^stoa_sk_[a-z2-7]{96}\n$/);

    const second = await key('add', id, '--name', 'Other', '--scopes', '*');

    assert.equal(second.code, 0, second.err);

    const list = await key('list', id);
    const lines = list.out.trimEnd().split('\n');

    assert.equal(lines.length, 2, list.out);
    assert.match(lines[0], new RegExp(`^[0-9a-f-]{36}  ${
      first.out.slice(0, 16)}  live  \\S+Z  -  \\*:read,events:read  Backup$`));

    const { rows: [row] } = await cluster.sql(s.name, `select
      expires_at - created_at = interval '7 days' as week, created_by,
      encode(secret_hash, 'hex') as hash
      from app.api_keys where name = 'Backup'`);

    assert.deepEqual([row.week, row.created_by], [true, null]);
    assert.ok(!list.out.includes(first.out.slice(16, 40)));

    const gone = await key('revoke', lines[0].slice(0, 36));

    assert.deepEqual([gone.code, gone.out, gone.err], [0, '', '']);
    assert.equal((await key('revoke', lines[0].slice(0, 36))).code, 1);
    assert.match((await key('list', id)).out, /  revoked  /);
    assert.deepEqual((await cluster.sql(s.name, `select action, request_id
      from app.audit_log where resource = 'api_key' order by id`)).rows, [
      { action: 'key.create', request_id: 'task:key add' },
      { action: 'key.create', request_id: 'task:key add' },
      { action: 'key.revoke', request_id: 'task:key revoke' }]);
    assert.equal((await cluster.sql(s.name, `select count(*)::int as n
      from app.revocations where entry like 'sid %'`)).rows[0].n, 1);
  });

  test('key: what is wrong with it', async () => {
    const add = ['key', 'add', 'root@example.org', '--name', 'x', '--scopes'];

    for (const [args, code, sentence] of [
      [['key'], 2, /say: stoa key add/],
      [['key', 'add', 'root@example.org', '--name', 'x'], 2, /say:/],
      [['key', 'list', 'root@example.org', '--name', 'x'], 2, /say:/],
      [['key', 'revoke', 'x'], 2, /not the id of a key/],
      [[...add, 'events:read,kings:write'], 2, /"kings:write" is no scope/],
      [[...add, ''], 2, /"" is no scope/],
      [[...add, '*', '--days', '366'], 2, /--days is 1 to 365/],
      [[...add.with(4, ''), '*'], 2, /--name is a text/],
      [[...add.with(2, 'nobody@example.org'), '*'], 1, /no account/],
      [['key', 'revoke', '00000000-0000-7000-8000-00000000dead'], 1,
        /no live key/],
    ]) {
      const r = await stoa(args, s);

      assert.equal(r.code, code, `${args}: ${r.err}`);
      assert.match(r.err, sentence);
      assert.equal(r.out, '');
    }
  });

  test('user add: a common password or the own address, 1', async () => {
    for (const password of ['password', 'Password1', 'IloveYou',
      'own@example.org', 'OWN@Example.org']) {
      const r = await stoa(['user', 'add', 'own@example.org', '--role',
        'member', '--password-stdin'], { ...s, input: `${password}\n` });

      assert.equal(r.code, 1, password);
      assert.match(r.err, /one of the most common ones/);
      assert.ok(password === 'password' || !r.err.includes(password));
    }
  });

  test('user add: 8 to 128 characters, however many bytes', async () => {
    for (const [password, code] of [['\u{1f511}'.repeat(128), 0],
      ['\u{1f511}'.repeat(129), 1], ['\u{1f511}'.repeat(8), 0],
      ['\u{1f511}'.repeat(7), 1]]) {
      const r = await stoa(['user', 'add',
        `k${password.length}@example.org`, '--role', 'member',
        '--password-stdin'], { ...s, input: `${password}\n` });

      assert.equal(r.code, code, r.err);
    }
  });

  test('user add: a hash of another system, or none that is known',
    async () => {
      const tail = 'CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW';
      const add = (hash, more = []) => stoa(['user', 'add',
        `h${crypto.randomUUID()}@example.org`, '--role', 'member',
        '--password-hash', hash, ...more], s);

      for (const head of ['$2a$05$', '$2b$04$', '$2y$14$']) {
        assert.equal((await add(head + tail)).code, 0, head);
      }
      for (const hash of [`$2b$15$${tail}`, `$2x$05$${tail}`, `$2b$05$${tail}x`,
        'a plain password', '', '$1$abc$0123456789012345678901']) {
        const r = await add(hash);

        assert.equal(r.code, 1, hash);
        assert.match(r.err, /the hash must be bcrypt/);
      }
      assert.equal((await add(`$2b$05$${tail}`, ['--password-stdin'])).code, 2);
    });

  test('user --help names every role that is accepted', async () => {
    const { out } = await stoa(['user', '--help']);

    for (const role of ['admin', 'moderator', 'support', 'organizer',
      'practitioner', 'worker', 'driver', 'scanner', 'member', 'attendee']) {
      assert.match(out, new RegExp(`\\b${role}\\b`));
      assert.equal((await stoa(['user', 'add', `${role}@roles.example`,
        '--role', role, '--password-stdin'],
      { ...s, input: 'a long password\n' })).code, 0, role);
    }
  });

  test('token: claims of the account, by id and by address', async () => {
    await stoa(['user', 'add', 'org@example.org', '--role', 'organizer',
      '--password-stdin'], { ...s, input: 'a long password\n' });

    const r = await stoa(['token', '--email', 'org@example.org'], s);

    assert.equal(r.code, 0);

    const claims = JSON.parse(Buffer.from(r.out.split('.')[1], 'base64url'));

    assert.ok(claims.roles.includes('organizer'));
    assert.equal(claims.aud, 'stoa');
    assert.ok(claims.exp > Date.now() / 1000);
    assert.doesNotMatch(r.out, new RegExp(SECRETS.JWT_SECRET));

    const byId = await stoa(['token', '--user', claims.sub], s);

    assert.equal(byId.code, 0);
  });

  test('token: nobody 1; neither or both 2', async () => {
    assert.equal((await stoa(['token', '--email', 'no@example.org'], s)).code, 1);
    assert.equal((await stoa(['token'], s)).code, 2);

    const r = await stoa(['token', '--user', 'nouuid'], s);

    assert.equal(r.code, 2);
    assert.match(r.err, /^stoa token: "nouuid" is not the id of an account\n$/);
    assert.equal((await stoa(['token', '--email', 'a', '--user', 'b'], s)).code, 2);
  });

  test('token --mfa: says that a code was shown', async () => {
    const read = async (...more) => JSON.parse(Buffer.from((await stoa(
      ['token', '--email', 'root@example.org', ...more], s)).out
      .split('.')[1], 'base64url'));
    const [plain, shown] = [await read(), await read('--mfa')];

    assert.deepEqual([plain.amr, plain.auth_time, plain.mfa],
      [undefined, undefined, undefined]);
    assert.deepEqual([shown.amr, shown.auth_time, shown.mfa],
      [['mfa'], shown.iat, true]);
  });

  test('user mfa-off: takes a second factor away, or says there is none, 1',
    async () => {
      const off = () => stoa(['user', 'mfa-off', 'Root@example.org'], s);

      await cluster.sql(s.name, `insert into app.mfa_factors (id, user_id,
        secret, created_at, confirmed_at) select app.uuid7(), id, '', now(),
        now() from app.users where email = 'root@example.org'`);
      assert.deepEqual(await off(), { code: 0, signal: null, out: '',
        err: '' });
      const none = await off();

      assert.equal(none.code, 1);
      assert.match(none.err, /no account "Root@example\.org" with a second/);
      assert.equal((await stoa(['user', 'mfa-off'], s)).code, 2);
      assert.equal((await stoa(['user', 'mfa-off', 'a@b.example', '--role',
        'admin'], s)).code, 2);
    });

  test('queues: Redis away is 3', async () => {
    const r = await stoa(['queues'], s);

    assert.equal(r.code, 3);
    assert.match(r.err, /cannot reach Redis at .*\/no\.sock: /);
  });

  test('tasks: an unknown kind is told the known ones, 2', async () => {
    for (const verb of ['list', 'redrive']) {
      const r = await stoa(['tasks', verb, '--kind', 'bogus'], s);

      assert.equal(r.code, 2);
      assert.match(r.err, /no kind "bogus"; the kinds are .*mail\.send.*\n$/);
    }
  });
});
