/*
 * Known and unknown accounts look the same where one may ask: the same
 * bytes and headers, the same statements and hashes, counted, not timed.
 * Registering tells that an address is taken; that is its contract, and the
 * limit by address is what bounds it.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import * as alike from '../harness/alike.js';
import { boot } from '../harness/index.js';
import { enrol } from '../harness/mfa.js';

let app, alice;

before(async () => {
  app = await boot({ workers: 0, nginx: { replace: alike.LOGGED } });
  alice = await app.user();
});
after(() => app?.stop());

const look = (path, body) => alike.look(app, path, body);
const same = (path, known, unknown) => alike.same(app, path, known, unknown);
const numbers = () => alike.numbers(app);

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

  assert.equal(known.hashes - before_.hashes, 1);
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
