/*
 * What people agreed to (G-18): accounts and browsers without one, by version
 * of the policy, append-only.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';
import { confText } from '../harness/conf.js';
import { must } from '../harness/fixtures.js';

const CONSENTS = '/api/v1/privacy/consents';

let app;

before(async () => { app = await boot({ workers: 0 }); });
after(() => app?.stop());

const get = async (more = {}) => must(await app.api('GET', more.anonId
  ? `${CONSENTS}?anonId=${more.anonId}` : CONSENTS, { token: more.token }),
200).data;
const put = (body, token) => app.api('POST', CONSENTS,
  { token, body: { policyVersion: '1', ...body } });
const granted = ({ consents }) => consents.filter((c) => c.granted)
  .map((c) => c.kind);
const rows = (subject) => app.value(
  'select count(*)::int from app.consents where subject = $1', [subject]);

test('an account chooses, and chooses again', async () => {
  const user = await app.user();
  const before = await get(user);

  assert.deepEqual([before.policyVersion, before.ask], ['1', true]);
  assert.deepEqual(before.consents.map(({ kind, granted: yes, at }) =>
    [kind, yes, at]), [['analytics', false, null], ['marketing', false, null],
    ['personalization', false, null]]);

  const some = must(await put({ analytics: true, marketing: false },
    user.token), 200).data;

  assert.deepEqual([granted(some), some.ask], [['analytics'], true]);

  const all = must(await put({ personalization: true }, user.token), 200).data;

  assert.deepEqual([granted(all), all.ask],
    [['analytics', 'personalization'], false]);
  assert.deepEqual(await get(user), all);
  assert.equal(await rows(user.id), 3);

  /* the same again is nothing new, a change is */
  must(await put({ analytics: true }, user.token), 200);
  assert.equal(await rows(user.id), 3);
  assert.deepEqual(granted(must(await put({ analytics: false }, user.token),
    200).data), ['personalization']);
  assert.equal(await rows(user.id), 4);
  await assert.rejects(app.sql(
    "update app.consents set granted = true where kind = 'analytics'"),
  /append-only/);
});

test('a browser without an account has an id of its own', async () => {
  const anonId = crypto.randomUUID();
  const user = await app.user();

  must(await put({ anonId, marketing: true }), 200);
  assert.deepEqual(granted(await get({ anonId })), ['marketing']);
  assert.deepEqual(granted(await get({ anonId: crypto.randomUUID() })), []);

  /* whoever is signed in speaks for the account */
  must(await put({ anonId, analytics: true }, user.token), 200);
  assert.deepEqual(granted(await get({ anonId })), ['marketing']);
  assert.deepEqual(granted(await get({ anonId, token: user.token })),
    ['analytics']);

  /* and an account's id is none of a browser's: neither read nor written */
  assert.deepEqual(granted(await get({ anonId: user.id })), []);
  must(await put({ anonId: user.id, analytics: false, marketing: true }), 200);
  assert.deepEqual(granted(await get(user)), ['analytics']);
});

test('what is missing or wrong is told', async () => {
  const user = await app.user();
  const faults = async (body, token) => {
    const res = await app.api('POST', CONSENTS, { token, body });

    assert.equal(res.status, 400, res.text);
    return res.error.errors.map((e) => `${e.pointer} ${e.code}`);
  };

  assert.deepEqual(await faults({ policyVersion: '1', analytics: true }),
    ['/anonId required']);
  assert.deepEqual(await faults({ analytics: true }, user.token),
    ['/policyVersion required']);
  assert.deepEqual(await faults({ policyVersion: '0', analytics: true },
    user.token), ['/policyVersion outdated']);
  assert.deepEqual(await faults({ policyVersion: '1', analytics: 'yes' },
    user.token), ['/analytics type']);
  assert.deepEqual(await faults({ policyVersion: '1', anonId: 'x' }),
    ['/anonId format']);

  const none = await app.api('GET', CONSENTS);

  assert.equal(none.status, 400);
  assert.equal(none.error.errors[0].code, 'required');
  assert.equal(await rows(user.id), 0);
});

test('twenty windows at once leave one row of a kind', async () => {
  const user = await app.user();

  for (const res of await Promise.all(Array.from({ length: 20 }, () =>
    put({ analytics: true, marketing: true }, user.token)))) must(res, 200);
  assert.equal(await rows(user.id), 2);
});

test('a new policy asks again, and nothing is agreed to before', async () => {
  const user = await app.user();

  must(await put({ analytics: true, marketing: true, personalization: true },
    user.token), 200);
  assert.equal((await get(user)).ask, false);
  app.conf.PRIVACY_POLICY_VERSION = '2026-12';
  fs.writeFileSync(app.confFile, confText(app.conf), { mode: 0o600 });
  await app.stoa(['migrate']);

  const now = await get(user);

  assert.deepEqual([now.policyVersion, now.ask, granted(now)],
    ['2026-12', true, []]);
  assert.equal(now.consents[0].policyVersion, '1');
  assert.equal((await put({ analytics: true }, user.token)).error.errors[0]
    .code, 'outdated');
});
