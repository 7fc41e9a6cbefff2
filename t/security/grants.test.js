/*
 * Boolean slips (edge.md D.2, CVE-2026-28513): what a grant asks for are
 * conditions that must all hold.  For each grant every subset of them is made
 * false, alone and together with others: only the one with none false gets
 * in, and one that failed has changed nothing.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';

let app;

before(async () => {
  app = await boot({ workers: 0, conf: { REQUIRE_VERIFIED_EMAIL: 'login' } });
  await app.sql(`insert into app.settings (key, value)
    values ('require_verified_email', 'login')
    on conflict (key) do update set value = excluded.value`);
});
after(() => app?.stop());

const post = (path, body, headers) => app.api('POST', path, { body, headers });

/* An account that may sign in. */
async function account() {
  const email = `g-${crypto.randomBytes(6).toString('hex')}@test.example`;
  const password = 'correct horse battery';
  const res = await post('/api/v1/auth/register',
    { email, password, firstName: 'G', lastName: 'G' });

  assert.ok([201, 202].includes(res.status), res.text);
  const [{ id }] = await app.sql(`update app.users
    set email_verified_at = created_at where email = $1 returning id`, [email]);

  return { id, email, password };
}

const suspend = (a) => app.sql(
  `update app.users set status = 'suspended' where id = $1`, [a.id]);
const unprove = (a) => app.sql(
  'update app.users set email_verified_at = null where id = $1', [a.id]);
const hashOf = (a) => app.value(
  'select password_hash from app.users where id = $1', [a.id]);
const sessions = (a) => app.value(`select count(*)::int
  from app.login_sessions where user_id = $1`, [a.id]);

/* Every subset of the conditions' names, the empty one first. */
function subsets(names) {
  return Array.from({ length: 2 ** names.length }, (_, bits) =>
    names.filter((_name, i) => bits & (1 << i)));
}

async function walk(conditions, prepare, grant, granted) {
  for (const broken of subsets(Object.keys(conditions))) {
    const state = await prepare();

    for (const name of broken) await conditions[name](state);
    const res = await grant(state);
    const what = `${broken.join(' + ') || 'nothing'}: ${res.text}`;

    assert.equal(res.status < 400, broken.length === 0, what);
    await granted(state, res, broken.length === 0, what);
  }
}

test('sign-in: known, right password, active, address proved', async () => {
  await walk({
    unknown: (a) => { a.email = `x${a.email}`; },
    wrong: (a) => { a.password = `${a.password}x`; },
    suspended: suspend,
    unproved: unprove,
  }, account,
  (a) => post('/api/v1/auth/login', { email: a.email, password: a.password }),
  async (a, res, good, what) => {
    assert.equal(await sessions(a), good ? 1 : 0, what);
    if (!good) assert.ok(!/Token/.test(JSON.stringify(res.body.data)), what);
  });
});

test('refresh: signed, alive, active, within its life',
  async () => {
    const flip = (text) => text.slice(0, -3)
      + (text.at(-3) === 'A' ? 'B' : 'A') + text.slice(-2);

    await walk({
      forged: (a) => { a.refresh = flip(a.refresh); },
      ended: (a) => app.sql(`update app.login_sessions
        set revoked_at = created_at, reason = 'logout' where user_id = $1`,
      [a.id]),
      idle: (a) => app.sql(`update app.login_sessions
        set expires_at = created_at where user_id = $1`, [a.id]),
      suspended: suspend,
    }, async () => {
      const a = await account();
      const res = await post('/api/v1/auth/login',
        { email: a.email, password: a.password });

      assert.equal(res.status, 200, res.text);
      return { ...a, refresh: res.data.refreshToken };
    },
    (a) => post('/api/v1/auth/refresh', { refreshToken: a.refresh }),
    async (a, res, good, what) => {
      assert.equal(res.headers['set-cookie'] !== undefined, good, what);
    });
  });

test('reset: known token, unused, not old, of the same address, active',
  async () => {
    await walk({
      other: (a) => { a.token = crypto.randomBytes(32).toString('base64url'); },
      used: (a) => app.sql(`update app.one_time_tokens
        set used_at = created_at where user_id = $1`, [a.id]),
      old: (a) => app.sql(`update app.one_time_tokens
        set expires_at = created_at where user_id = $1`, [a.id]),
      moved: (a) => app.sql(
        `update app.users set email = 'new-' || email where id = $1`, [a.id]),
      suspended: suspend,
    }, async () => {
      const a = await account();

      await app.sql('delete from app.mail_budget');
      const res = await post('/api/v1/auth/forgot-password',
        { email: a.email });

      assert.equal(res.status, 200, res.text);
      const token = crypto.randomBytes(32);
      const [task] = await app.sql(`select id, payload from queue.outbox
        where payload->>'template' = 'password_reset'
          and payload->>'user_id' = $1`, [a.id]);

      await app.sql('select task.mail_token($1, $2, $3, sha256($4))',
        [task.id, task.payload, a.email, token]);
      return { ...a, token: token.toString('base64url'),
        hash: await hashOf(a) };
    },
    (a) => post('/api/v1/auth/reset-password',
      { token: a.token, newPassword: 'another horse battery' }),
    async (a, res, good, what) => {
      assert.equal(await hashOf(a) !== a.hash, good, what);
    });
  });
