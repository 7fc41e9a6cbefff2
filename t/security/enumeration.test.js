/*
 * Known and unknown accounts look the same where one may ask: the same
 * bytes and headers, the same statements and hashes, counted, not timed.
 * Registering tells that an address is taken; that is its contract, and the
 * limit by address is what bounds it.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, test } from 'node:test';
import { boot, until } from '../harness/index.js';
import { enrol } from '../harness/mfa.js';

let app, alice;

before(async () => {
  app = await boot({ workers: 0, nginx: { replace: [
    ['"db_time_s":"$stoa_db_time"',
      '"db_time_s":"$stoa_db_time","queries":"$stoa_db_queries"'],
    ['"cache":"$stoa_cache_status"',
      '"cache":"$stoa_cache_status","probe":"$http_x_probe"']] } });
  alice = await app.user();
});
after(() => app?.stop());

let probes = 0;

async function numbers() {
  const res = await app.api('GET', '/metrics', { validate: false });
  const by = {};

  for (const line of res.text.split('\n')) {
    const m = line.match(/^(stoa_(?:pg|hash)_\w*total)\S* (\d+)$/);

    if (m && !/connect|wait|busy|seconds/.test(m[1])) by[m[1]] = Number(m[2]);
  }
  return by;
}

async function look(path, body) {
  const probe = `probe-${++probes}`;
  const res = await app.api('POST', `/api/v1/auth/${path}`,
    { body, headers: { 'X-Probe': probe } });
  /* written after the answer, a whole line at a time */
  const line = JSON.parse(await until(() => fs
    .readFileSync(`${app.dir}/log/access.log`, 'utf8').split('\n')
    .find((l) => l.includes(`"${probe}"`) && l.endsWith('}')),
  { what: 'the line of the log' }));
  const hide = (text) => text
    .replace(/"request_id":"[^"]*"/g, '').replace(/"timestamp":"[^"]*"/g, '');
  const headers = res.rawHeaders.filter((_, i) => i % 2 === 0);

  return {
    status: res.status, text: hide(res.text), length: res.raw.length, headers,
    queries: line.queries, route: line.route, error: line.error,
  };
}

async function same(path, known, unknown) {
  const one = await look(path, known);
  const other = await look(path, unknown);

  assert.ok(Number(one.queries) > 0, 'statements are counted');
  assert.deepEqual(one, other);
  return one;
}

const PASSWORD = 'not the password';

test('sign-in', async () => {
  const seen = await same('login', { email: alice.email, password: PASSWORD },
    { email: 'x'.repeat(alice.email.length - 13) + '@test.example',
      password: PASSWORD });

  assert.equal(seen.error, 'INVALID_CREDENTIALS');
});

test('sign-in makes one hash for either', async () => {
  const before_ = await numbers();

  await look('login', { email: alice.email, password: PASSWORD });
  const known = await numbers();

  await look('login', { email: 'n@test.example', password: PASSWORD });
  const unknown = await numbers();

  assert.ok(Object.keys(known).length > 0);
  for (const name of Object.keys(known)) {
    assert.equal(known[name] - (before_[name] ?? 0),
      unknown[name] - known[name], name);
  }
});

test('a suspended account, too', async () => {
  const bob = await app.user();

  await app.sql(`update app.users set status = 'suspended' where id = $1`,
    [bob.id]).catch(() => app.sql(
    `update app.users set status = 'deleted' where id = $1`, [bob.id]));
  await same('login', { email: bob.email, password: PASSWORD },
    { email: 'nobody2@test.example', password: PASSWORD });
  assert.equal((await look('login',
    { email: bob.email, password: bob.password })).error,
  'INVALID_CREDENTIALS');
});

test('whether it has a second factor, too', async () => {
  const carol = await app.user();
  const factor = await enrol(app, carol);

  for (const proof of [{}, { code: factor.code() },
    { recoveryCode: factor.recovery[0] }]) {
    const seen = await same('login',
      { email: carol.email, password: PASSWORD, ...proof },
      { email: 'nobody4@test.example', password: PASSWORD, ...proof });

    assert.equal(seen.error, 'INVALID_CREDENTIALS');
  }
  /* what has no form of a code is refused before anything is looked up */
  assert.deepEqual(await look('login', { email: carol.email,
    password: carol.password, code: '12345x' }), await look('login',
    { email: 'nobody5@test.example', password: PASSWORD, code: '12345x' }));
});

test('forgotten passwords', async () => {
  await same('forgot-password', { email: alice.email },
    { email: 'nobody@test.example' });
  await same('reset-password', { email: alice.email },
    { email: 'nobody@test.example' });
});

test('limits of failures say the same', async () => {
  const guess = async (email) => {
    const out = [];

    for (let i = 0; i < 7; i++) {
      const { length: _, ...seen } = await look('login',
        { email, password: PASSWORD });

      out.push(seen);
    }
    return out;
  };
  const bob = await app.user();
  const [known, unknown] = [await guess(bob.email),
    await guess('nobody3@test.example')];

  assert.equal(known.at(-1).status, 429);
  assert.deepEqual(known, unknown);
});
