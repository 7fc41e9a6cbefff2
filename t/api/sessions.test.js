/*
 * Where one is signed in: the list of one's own sessions, the end of one, of
 * all others and of the current one; what an ended session can still do
 * (nothing), and what strangers see of it (nothing).
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';

const SESSIONS = '/api/v1/auth/sessions';
const FIREFOX = 'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 '
  + 'Firefox/128.0';

let app;

before(async () => {
  app = await boot({ workers: 0 });
});
after(() => app?.stop());

const sidOf = (token) => JSON.parse(
  Buffer.from(token.split('.')[1], 'base64url')).sid;

async function login(user, { agent, ...body } = {}) {
  const res = await app.api('POST', '/api/v1/auth/login', {
    body: { email: user.email, password: user.password, ...body },
    headers: agent === undefined ? {} : { 'User-Agent': agent },
  });

  assert.equal(res.status, 200, res.text);
  return { token: res.data.accessToken, refresh: res.data.refreshToken,
    id: sidOf(res.data.accessToken) };
}

const list = async (token, query = '') => {
  const res = await app.api('GET', SESSIONS + query, { token });

  assert.equal(res.status, 200, res.text);
  return res;
};
const end = (token, id) => app.api('DELETE', `${SESSIONS}/${id}`, { token });
const check = async (token) =>
  (await app.api('GET', '/api/v1/auth/check', { token })).status;
const renew = (refreshToken) => app.api('POST', '/api/v1/auth/refresh',
  { body: { refreshToken } });

function refused(res, status, code) {
  assert.equal(res.status, status, res.text);
  assert.equal(res.error.code, code, res.text);
}

const audits = (user) => app.value(`select coalesce(json_object_agg(
  x.action, x.n), '{}') from (select action, count(*)::int n
    from app.audit_log where actor = $1 and action like 'auth.session%'
    group by 1) x`, [user.id]);

test('one sees one\'s own live sessions, newest use first', async () => {
  const user = await app.user();
  const other = await app.user();
  const desk = await login(user, { agent: FIREFOX, remember: true });
  const till = await login(user, { agent: 'box\toffice/2' });
  const { data, meta } = await list(desk.token);

  assert.deepEqual(data.map(({ id }) => id),
    [till.id, desk.id, sidOf(user.token)]);
  assert.deepEqual(data.map(({ current }) => current), [false, true, false]);
  assert.deepEqual(data.map(({ deviceName }) => deviceName),
    ['box', 'Firefox on Linux', 'Unknown device']);
  assert.deepEqual(data.map(({ remember }) => remember), [false, true, false]);
  assert.equal(data[1].userAgent, FIREFOX);
  assert.equal(data[1].ip, '127.0.0.1');
  assert.equal(data[1].createdAt, data[1].lastUsedAt);
  assert.ok(Date.parse(data[1].expiresAt) - Date.parse(data[1].createdAt)
    === 30 * 86400000);
  assert.equal(meta.total, 3);
  assert.equal((await list(other.token)).data.length, 1);

  /* use moves it to the front; pages and cursors go on as in other lists */
  assert.equal((await renew(desk.refresh)).status, 200);

  const [first] = (await list(desk.token, '?limit=1')).data;

  assert.equal(first.id, desk.id);
  assert.ok(first.lastUsedAt > first.createdAt);
  assert.deepEqual((await list(desk.token, '?sort=createdAt')).data
    .map(({ id }) => id), [sidOf(user.token), desk.id, till.id]);
});

test('the other one is ended: at once, for good, once', async () => {
  const user = await app.user();
  const phone = await login(user);

  assert.equal(await check(phone.token), 200);

  const res = await end(user.token, phone.id);

  assert.equal(res.status, 200, res.text);
  assert.deepEqual(res.data, { ended: 1 });
  refused(await app.api('GET', SESSIONS, { token: phone.token }),
    401, 'TOKEN_REVOKED');
  refused(await renew(phone.refresh), 401, 'REFRESH_INVALID');
  refused(await end(user.token, phone.id), 404, 'NOT_FOUND');
  assert.equal(await check(user.token), 200);
  assert.deepEqual((await list(user.token)).data.map(({ id }) => id),
    [sidOf(user.token)]);
  assert.deepEqual(await audits(user), { 'auth.session_end': 1 });
});

test('another\'s session is not there, for an admin either', async () => {
  const user = await app.user();
  const stranger = await app.user();
  const admin = await app.user('admin');
  const id = sidOf(user.token);

  for (const token of [stranger.token, admin.token]) {
    refused(await end(token, id), 404, 'NOT_FOUND');
  }
  refused(await end(undefined, id), 401, 'UNAUTHENTICATED');
  refused(await end(user.token, 'me'), 400, 'VALIDATION_FAILED');
  assert.equal(await check(user.token), 200);
  assert.deepEqual(await audits(stranger), {});
});

test('ending the current one is a logout', async () => {
  const user = await app.user();
  const other = await login(user);

  assert.equal((await end(user.token, sidOf(user.token))).status, 200);
  assert.equal(await check(user.token), 401);
  refused(await renew(user.refreshToken), 401, 'REFRESH_INVALID');
  assert.equal(await check(other.token), 200);
});

test('all others end together', async () => {
  const user = await app.user();
  const others = [await login(user), await login(user), await login(user)];
  const res = await app.api('DELETE', SESSIONS, { token: user.token });

  assert.equal(res.status, 200, res.text);
  assert.deepEqual(res.data, { ended: 3 });
  for (const { token, refresh } of others) {
    assert.equal(await check(token), 401);
    refused(await renew(refresh), 401, 'REFRESH_INVALID');
  }
  assert.equal((await renew(user.refreshToken)).status, 200);
  assert.deepEqual((await app.api('DELETE', SESSIONS,
    { token: user.token })).data, { ended: 0 });
  assert.deepEqual(await audits(user), { 'auth.sessions_end': 2 });
});

test('of sessions that end each other, one remains', async () => {
  const user = await app.user();
  const all = [{ token: user.token }, ...await Promise.all(
    Array.from({ length: 7 }, () => login(user)))];
  const got = await app.barrier(all.length, (i) => ({
    method: 'DELETE', path: SESSIONS, token: all[i].token }));
  const won = got.filter(({ status }) => status === 200);

  assert.equal(won.length, 1, got.map(({ text }) => text).join('\n'));
  assert.deepEqual(won[0].data, { ended: 7 });
  for (const res of got) {
    if (res !== won[0]) refused(res, 401, 'TOKEN_REVOKED');
  }
  assert.equal(await app.value(`select count(*)::int from app.login_sessions
    where user_id = $1 and revoked_at is null`, [user.id]), 1);
  assert.equal(await check(all[got.indexOf(won[0])].token), 200);
});

test('a refresh and the end of its session: no session is left', async () => {
  const user = await app.user();
  const phone = await login(user);
  const got = await app.barrier(6, (i) => i % 2
    ? { method: 'DELETE', path: `${SESSIONS}/${phone.id}`, token: user.token }
    : { method: 'POST', path: '/api/v1/auth/refresh',
      body: { refreshToken: phone.refresh } });

  assert.equal(got.filter((res, i) => i % 2 && res.status === 200).length, 1);
  for (const [i, res] of got.entries()) {
    if (i % 2) assert.ok([200, 404].includes(res.status), res.text);
    else {
      assert.ok([200, 401].includes(res.status), res.text);
      if (res.status === 200) {
        assert.equal(await check(res.data.accessToken), 401);
        refused(await renew(res.data.refreshToken), 401, 'REFRESH_INVALID');
      }
    }
  }
});

test('older paths', async () => {
  const user = await app.user();
  const phone = await login(user);

  for (const prefix of ['/api', '/v1']) {
    const res = await app.api('GET', `${prefix}/auth/sessions`,
      { token: user.token, validate: false });

    assert.equal(res.data.length, 2, res.text);
  }
  assert.equal((await app.api('DELETE', `/api/auth/sessions/${phone.id}`,
    { token: user.token, validate: false })).status, 200);
});
