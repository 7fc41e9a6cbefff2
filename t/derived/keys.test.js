/*
 * Every row with API keys and by an admin in somebody's name.  What must
 * happen is computed from the row's columns:
 *
 *   no .scope, no .anyKey        KEY_FORBIDDEN, whatever the key's scopes
 *   .scope not among the key's   SCOPE_MISSING
 *   no role of the row           FORBIDDEN: a key is never more than its owner
 *   not .acting                  IMPERSONATION_FORBIDDEN
 *
 * and nothing is changed; else the row's work is reached.  What rows must
 * never say is listed by name: it is what the columns are for.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';
import { must } from '../harness/fixtures.js';
import { NONE, counts, request, rows } from './rows.js';
import { World } from './world.js';

let app, world, scopes, writes;

before(async () => {
  app = await boot({ workers: 0, nginxWorkers: 1 });
  world = await new World(app).begin();
  ({ scopes } = must(await app.api('GET', '/api/v1/auth/scopes'), 200).data);
  writes = rows.filter((row) => row.method !== 'GET');
  /* nobody draws tickets here: without Redis the edge does not wait either */
  await app.redisProc.stop('SIGKILL');
});
after(() => app?.stop());

const REFUSALS = ['UNAUTHENTICATED', 'TOKEN_REVOKED', 'KEY_FORBIDDEN',
  'SCOPE_MISSING', 'IMPERSONATION_FORBIDDEN', 'FORBIDDEN'];

const refusal = (res) => REFUSALS.find((code) => code === res.error?.code);

const admits = (row, actor) =>
  row.public || [...actor.roles].some((role) => row.roles.has(role));

/* The key for what is not a list of rows: some ids are the actor's own. */
const ask = (row, token, headers) => {
  const spec = request(row, { of: NONE });

  return app.api(spec.method, spec.path, { ...spec, token,
    headers: { ...spec.headers, ...headers } });
};

/* What the last use of a key leaves is no work of a row. */
async function quietly(row, what, work) {
  const was = await counts(app);

  await work();
  assert.deepEqual(await counts(app), was, `${row.name}: ${what}`);
}

async function walk(rowsOf, token, expected, what, headers) {
  let refused = 0;

  for (const row of rowsOf) {
    const wanted = expected(row);
    const one = async () => {
      const res = await ask(row, token, headers);
      const said = `${row.name}, ${what}: ${res.status} ${res.text}`;

      /* the rows of the door answer a missing event with it */
      if (wanted || row.relation !== 'scan') {
        assert.equal(refusal(res), wanted, said);
      }
      assert.ok(res.status < 500, said);
      if (!wanted) return;
      refused++;
      assert.equal(res.status, 403, said);
      if (wanted === 'SCOPE_MISSING') {
        assert.equal(res.headers['www-authenticate'],
          `Bearer error="insufficient_scope", scope="${row.scope}"`);
      }
    };

    await (wanted ? quietly(row, what, one) : one());
  }
  return refused;
}

const byKey = (row, actor, has) => {
  if (!row.scope && !row.anyKey) return 'KEY_FORBIDDEN';
  if (row.scope && !has(row)) return 'SCOPE_MISSING';
  return admits(row, actor) ? undefined : 'FORBIDDEN';
};

test('scopes are those of the rows, and each is named once', () => {
  assert.deepEqual([...scopes].sort(), [...new Set(['*', '*:read',
    ...rows.map((row) => row.scope).filter(Boolean)])].sort());
  for (const row of rows.filter(({ scope }) => scope)) {
    assert.equal(row.scope,
      `${row.tag}:${row.method === 'GET' ? 'read' : 'write'}`, row.name);
  }
});

test('a key for everything, of every role', async () => {
  let refused = 0;

  for (const actor of world.actors) {
    const { key } = await world.api_key(actor);

    refused += await walk(rows, key, (row) => byKey(row, actor, () => true),
      `a key of ${actor.what}`);
  }
  assert.ok(refused > 100, `${refused} refusals`);
});

test('a key that may read, in the other header', async () => {
  const { key } = await world.api_key(world.admin, ['*:read']);

  await walk(rows, undefined, (row) => byKey(row, world.admin,
    ({ method }) => method === 'GET'), '*:read', { 'X-Api-Key': key });
});

test('a key with one scope, each in turn', async () => {
  const of = world.admin;

  for (const scope of scopes.filter((s) => !s.startsWith('*'))) {
    const { key } = await world.api_key(of, [scope]);

    await walk(rows, key, (row) => byKey(row, of, (r) => r.scope === scope),
      scope);
  }
});

test('an admin in somebody\'s name', async () => {
  let refused = 0;

  for (const actor of world.actors) {
    if (actor.what === 'admin') continue;
    const { accessToken } = must(await app.api('POST',
      `/api/v1/admin/users/${actor.id}/impersonate`,
      { token: world.admin.token, body: { reason: 'a test' } }), 200).data;

    refused += await walk(rows, accessToken, (row) => {
      if (!row.acting) return 'IMPERSONATION_FORBIDDEN';
      return admits(row, actor) ? undefined : 'FORBIDDEN';
    }, `acting as ${actor.what}`);
  }
  assert.ok(refused > 100, `${refused} refusals`);
});

/* Written out: whoever opens one of these has to change this list, too. */
const PEOPLE = /^(auth\.(?!check$|scopes$|sessions$)|users\.(email|roles|status|create)|admin\.impersonate|checkin\.(pair|device_login)|webhooks|mfa|oauth|oidc)/;
const MONEY = /^(orders\.(create|cancel|refund)|events\.(cancel|register)|pay\.|promo_codes\.(?!list)|tickets\.transfer)/;
const RIGHTS = /^events\.staff_(add|remove)/;

test('accounts, sessions, passwords and keys are for who signed in', () => {
  const people = rows.filter((row) => PEOPLE.test(row.id));

  assert.ok(people.length > 15, `${people.length} rows`);
  for (const row of people) {
    assert.deepEqual([row.scope, row.anyKey, row.acting],
      [undefined, undefined, undefined], row.name);
  }
  for (const row of rows.filter(({ id }) => id.startsWith('auth.'))) {
    assert.ok(!row.scope, row.name);
  }
  for (const row of rows.filter(({ body }) =>
    body.some(({ type }) => type === 'secret'))) {
    assert.ok(!row.scope && !row.anyKey && !row.acting, row.name);
  }
});

test('money and rights are not moved in somebody\'s name', () => {
  for (const kind of [MONEY, RIGHTS]) {
    const some = writes.filter((row) => kind.test(row.id));

    assert.ok(some.length > 1, `${some.length} rows`);
    for (const row of some) assert.ok(!row.acting, row.name);
  }
});
