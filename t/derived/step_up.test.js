/*
 * .step_up, from the rows: with tokens that differ in nothing but how and
 * when their owner showed who he is, every row answers what its column says:
 * "own" asks who has a second factor for a fresh code, "others" also tells
 * those who must have one and have none, by a token or by a key.  OpenAPI and
 * the listing say so.
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { BUILD, boot } from '../harness/index.js';
import { must } from '../harness/fixtures.js';
import { mint, request, roles, rows } from './rows.js';

const TTL = 120;
const modes = {};

before(async () => {
  for (const REQUIRE_MFA of ['off', 'admin', 'all']) {
    modes[REQUIRE_MFA] = await boot({ workers: 0, nginxWorkers: 1,
      conf: { REQUIRE_MFA, STEP_UP_TTL: `${TTL}s` } });
  }
});
after(async () => {
  for (const app of Object.values(modes)) await app.stop();
});

const STRONG = ['pwd', 'otp', 'mfa'];

/* [what, claims with the age of the proof, is a code asked for] */
const FACTOR = [
  ['by password only', { amr: ['pwd'], age: 0 }, true],
  ['a fresh code', { amr: STRONG, age: 0 }, false],
  ['almost too old', { amr: STRONG, age: TTL - 30 }, false],
  ['too old', { amr: STRONG, age: TTL }, true],
  ['a recovery code', { amr: ['pwd', 'mfa'], age: 0 }, false],
  ['no word of the time', { amr: STRONG }, true],
  ['no word of the way', { age: 0 }, true],
  ['unknown ways', { amr: ['pwd', 'face', 'otp'], age: 0 }, true],
];

const CODES = ['STEP_UP_REQUIRED', 'MFA_ENROLMENT_REQUIRED'];

/* Which of the two, if any; for a caller whom the row's roles admit. */
async function ask(app, row, who, { age, ...claims }) {
  const now = Math.floor(Date.now() / 1000);
  const spec = request(row);
  /* of accounts that are not there, which the document knows nothing of */
  const res = await app.api(spec.method, spec.path, { ...spec,
    validate: false, token: mint(app, { roles: who, ...claims,
      ...age === undefined ? {} : { auth_time: now - age } }) });
  const what = `${row.name} as ${who}: ${res.text}`;

  if (res.error?.code === CODES[0]) {
    assert.equal(res.status, 401, what);
    assert.match(res.headers['www-authenticate'], new RegExp(
      `^Bearer error="insufficient_user_authentication", .*max_age="${TTL}"$`),
    what);
  } else if (res.error?.code === CODES[1]) {
    assert.equal(res.status, 403, what);
  }
  return CODES.find((code) => code === res.error?.code);
}

const people = rows.filter((row) => roles.some((r) => row.roles.has(r))
  && row.flow !== 'AUTH_LOGOUT' && row.flow !== 'STEP_UP');
const asks = rows.filter((row) => row.stepUp);
const admitted = (row) => roles.find((r) => row.roles.has(r));

test('there are rows of both kinds, and none of nobody or a device', () => {
  for (const kind of ['own', 'others']) {
    assert.ok(asks.filter((row) => row.stepUp === kind).length >= 2, kind);
  }
  for (const row of asks) {
    assert.ok(!row.public && !row.roles.has('device'), row.name);
  }
  /* whatever admins alone may do */
  for (const row of rows.filter((r) => r.who === 'admin')) {
    assert.equal(row.stepUp, 'others', row.name);
  }
  /* money that goes back */
  for (const id of ['orders.refund', 'events.cancel']) {
    assert.equal(rows.find((row) => row.id === id).stepUp, 'others', id);
  }
  /* what outlives the sign-in, and needs no code afterwards */
  for (const id of ['auth.key_create', 'auth.key_rotate']) {
    assert.equal(rows.find((row) => row.id === id).stepUp, 'others', id);
  }
});

test('who has a factor: the rows that ask, and no other', async () => {
  let asked = 0;

  for (const [mode, app] of Object.entries(modes)) {
    for (const row of mode === 'off' ? people : asks) {
      for (const [what, claims, due] of FACTOR) {
        const said = await ask(app, row, [admitted(row), 'member'],
          { ...claims, mfa: true });

        assert.equal(said, row.stepUp && due ? CODES[0] : undefined,
          `${row.name}, ${mode}: ${what}`);
        asked += said ? 1 : 0;
      }
    }
  }
  assert.ok(asked > 50, `${asked}`);
});

test('who has none: asked to set one up where REQUIRE_MFA says', async () => {
  let told = 0;

  for (const [mode, app] of Object.entries(modes)) {
    for (const row of asks) {
      for (const role of roles.filter((r) => row.roles.has(r))) {
        const must = row.stepUp === 'others'
          && (mode === 'all' || (mode === 'admin' && role === 'admin'));
        const said = await ask(app, row, [role], { amr: ['pwd'], age: 0 });

        assert.equal(said, must ? CODES[1] : undefined,
          `${row.name} as ${role}, ${mode}`);
        told += said ? 1 : 0;
      }
    }
  }
  assert.ok(told >= 8, `${told}`);
});

/* A key of a new account; its maker gave a code. */
async function keyOf(app, { service, ...user }, factor) {
  const now = Math.floor(Date.now() / 1000);
  const strong = { mfa: true, amr: STRONG, auth_time: now };
  const root = await app.user('admin');
  let owner;

  if (service) {
    owner = must(await app.api('POST', '/api/v1/users', {
      token: mint(app, { sub: root.id, ...strong }),
      body: { kind: 'service', firstName: 'Robot', roles: user.roles },
    }), 201).data.id;
  } else {
    owner = (await app.user(user.roles[0])).id;
  }
  if (factor) {
    await app.sql(`insert into app.mfa_factors (id, user_id, secret,
      created_at, confirmed_at) values (app.uuid7(), $1, 'x', app.now(),
      app.now())`, [owner]);
  }
  return must(await app.api('POST', '/api/v1/auth/api-keys', {
    token: mint(app, { sub: service ? root.id : owner, ...strong }),
    body: { name: 'Robot', scopes: ['*'], ...service && { ownerId: owner } },
  }), 201).data.key;
}

test('a key is no way around it: its owner has a factor, or is none',
  async () => {
    const keyed = asks.filter((row) => row.scope);
    let told = 0;

    for (const [mode, app] of Object.entries(modes)) {
      await app.sql(`select app.settings_put('{"service_admin": "on"}')`);
      for (const role of roles) {
        const mine = keyed.filter((row) => row.roles.has(role));

        if (!mine.length) continue;
        for (const [what, key, bare] of [
          ['a person', await keyOf(app, { roles: [role] }), true],
          ['with a factor', await keyOf(app, { roles: [role] }, true)],
          ['a program', await keyOf(app, { roles: [role], service: true })],
        ]) {
          for (const row of mine) {
            const must403 = bare && row.stepUp === 'others'
              && (mode === 'all' || (mode === 'admin' && role === 'admin'));
            const spec = request(row);
            const res = await app.api(spec.method, spec.path,
              { ...spec, validate: false, token: key });
            const said = CODES.find((code) => code === res.error?.code);

            assert.equal(said, must403 ? CODES[1] : undefined,
              `${row.name} as ${role}, ${what}, ${mode}: ${res.text}`);
            told += said ? 1 : 0;
          }
        }
      }
    }
    assert.ok(told >= 3, `${told}`);
  });

test('what nobody but others may do stays forbidden', async () => {
  for (const row of asks) {
    const role = roles.find((r) => !row.roles.has(r));

    if (!role) continue;
    const spec = request(row);
    const res = await modes.all.api(spec.method, spec.path, { ...spec,
      token: mint(modes.all, { roles: [role], mfa: true, amr: ['pwd'] }) });

    assert.equal(res.error?.code, 'FORBIDDEN', `${row.name} as ${role}`);
  }
});

test('the document and the listing say which', async () => {
  const doc = (await modes.off.api('GET', '/api/v1/openapi.json')).body;
  const listing = execFileSync(path.join(BUILD, 'stoa'), ['routes'],
    { encoding: 'utf8' }).split('\n');

  for (const methods of Object.values(doc.paths)) {
    for (const op of Object.values(methods)) {
      const row = rows.find((r) => r.id === op.operationId);
      const codes = (status) => JSON.stringify(op.responses[status] ?? {});

      assert.equal(op['x-stoa'].stepUp, row.stepUp, row.name);
      assert.equal(codes(401).includes('STEP_UP_REQUIRED'),
        row.stepUp !== undefined, row.name);
      assert.equal(codes(403).includes('MFA_ENROLMENT_REQUIRED'),
        row.stepUp === 'others' || row.flow === 'STEP_UP', row.name);
    }
  }
  for (const row of rows) {
    const line = listing.find((l) => l.split(/ +/)[5]?.trim() === row.id
      && l.startsWith(row.method));

    assert.equal(line.match(/\(step-up: (\w+)\)/)?.[1], row.stepUp, line);
  }
});
