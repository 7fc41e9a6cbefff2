/*
 * The refresh token as a cookie: its attributes, that it and the body never
 * speak for two, who may speak by it alone (pages of ours and of the CORS
 * list, by every sign a browser gives, and no look-alike), and that it is
 * worth nothing after the end of its session.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';

const NAME = '__Host-stoa_refresh';
const FRIEND = 'https://app.stoa.example';
const AJAX = { 'X-Requested-With': 'test' };

let app;

before(async () => {
  app = await boot({ workers: 0, nginx: { server: `stoa_cors ${FRIEND};` } });
});
after(() => app?.stop());

/* {name, value, attributes} of the cookie that this answer sets. */
function cookieOf(res) {
  const all = res.headers['set-cookie'] ?? [];

  if (!all.length) return undefined;
  assert.equal(all.length, 1, all.join('\n'));

  const [pair, ...attributes] = all[0].split('; ');
  const [name, value] = pair.split('=');

  assert.equal(name, NAME);
  return { value, attributes: attributes.sort(), pair };
}

const FIXED = ['HttpOnly', 'Path=/', 'SameSite=Lax', 'Secure'];

const auth = (what, spec = {}, on = app) =>
  on.api('POST', `/api/v1/auth/${what}`, spec);
const login = (user, body = {}, on = app) => auth('login', { body: {
  email: user.email, password: user.password, ...body } }, on);
const byCookie = (pair, headers = AJAX, body = undefined) =>
  auth('refresh', { body, headers: { Cookie: pair, ...headers } });
const check = async (token) =>
  (await app.api('GET', '/api/v1/auth/check', { token })).status;
const steps = (sid) => app.value(
  'select counter::int from app.login_sessions where id = $1', [sid]);
const sidOf = (token) => JSON.parse(
  Buffer.from(token.split('.')[1], 'base64url')).sid;

function refused(res, status, code) {
  assert.equal(res.status, status, res.text);
  assert.equal(res.error.code, code, res.text);
  assert.equal(cookieOf(res), undefined);
}

async function fresh(body) {
  const user = await app.user();
  const res = await login(user, body);

  return { user, sid: sidOf(res.data.accessToken), data: res.data,
    ...cookieOf(res), token: res.data.accessToken };
}

test('register, login and refresh set it, in these words', async () => {
  const email = `c-${crypto.randomBytes(5).toString('hex')}@test.example`;
  const user = { email, password: 'correct horse battery staple' };
  const made = await auth('register', { body: { ...user, firstName: 'A',
    lastName: 'B' } });
  const plain = await login(user);
  const kept = await login(user, { remember: true });
  const again = await byCookie(cookieOf(kept).pair);

  for (const res of [made, plain]) {
    assert.deepEqual(cookieOf(res).attributes, FIXED);
  }
  for (const res of [kept, again]) {
    assert.deepEqual(cookieOf(res).attributes,
      ['HttpOnly', 'Max-Age=2592000', ...FIXED.slice(1)]);
  }
  for (const res of [made, plain, kept]) {
    assert.equal(cookieOf(res).value, res.data.refreshToken);
    assert.equal(res.headers['cache-control'], 'no-store');
  }
  assert.equal(again.headers['cache-control'], 'no-store');
  assert.equal(again.data.refresh, 'rotated');

  /* near the end of the session's life the cookie has no more of it */
  await app.sql(`update app.login_sessions
    set absolute_expires_at = app.now() + interval '100 s',
      expires_at = app.now() + interval '100 s' where id = $1`,
  [sidOf(kept.data.accessToken)]);

  const last = cookieOf(await byCookie(cookieOf(again).pair));
  const age = Number(last.attributes.find((a) => a.startsWith('Max-Age'))
    .split('=')[1]);

  assert.ok(age > 60 && age <= 100, `${age}`);
});

test('a failure sets none, and neither does anything else', async () => {
  const { user, token } = await fresh();

  refused(await login({ ...user, password: 'not this one' }), 401,
    'INVALID_CREDENTIALS');
  refused(await auth('register', { body: { email: user.email,
    password: user.password, firstName: 'A', lastName: 'B' } }), 409,
  'EMAIL_TAKEN');
  for (const where of ['/api/v1/users/me', '/api/v1/auth/check',
    '/api/v1/auth/sessions']) {
    assert.equal(cookieOf(await app.api('GET', where, { token })), undefined);
  }
});

test('body or cookie; both only when they are the same', async () => {
  const one = await fresh();
  const two = await fresh();

  refused(await auth('refresh'), 400, 'VALIDATION_FAILED');
  refused(await byCookie(`${NAME}=`), 400, 'VALIDATION_FAILED');
  refused(await byCookie(`x${one.pair}`), 400, 'VALIDATION_FAILED');
  refused(await byCookie(`stoa_refresh=${one.value}`), 400,
    'VALIDATION_FAILED');

  for (const body of [{ refreshToken: two.value }, { refreshToken: 'x' },
    { refreshToken: one.value.slice(0, -1) }]) {
    const res = await byCookie(one.pair, AJAX, body);

    refused(res, 400, 'VALIDATION_FAILED');
    assert.deepEqual(res.error.errors.map(({ pointer, code }) =>
      [pointer, code]), [['/refreshToken', 'conflict']]);
  }
  for (const body of [{ refreshToken: null }, { refreshToken: '' },
    { refreshToken: one.value, refresh_token: one.value }]) {
    refused(await byCookie(one.pair, AJAX, body), 400, 'VALIDATION_FAILED');
  }

  /* two of that name: a neighbor's, or a broken client */
  refused(await byCookie(`${one.pair}; ${two.pair}`), 400, 'BAD_REQUEST');
  assert.deepEqual([await steps(one.sid), await steps(two.sid)], [1, 1]);

  const both = await byCookie(`a=1; ${one.pair};b=2; ${one.pair}`, AJAX,
    { refreshToken: one.value });
  const alone = await byCookie(`a=1;${two.pair}`);

  assert.deepEqual([both.status, alone.status], [200, 200]);

  /* the answer says that the cookie came; a script that asks with nothing but
     the cookie does not learn what is in it */
  assert.equal(both.data.cookie, true);
  assert.equal(both.data.refreshToken, cookieOf(both).value);
  assert.equal(alone.data.cookie, true);
  assert.ok(cookieOf(alone).value);
  assert.ok(!alone.text.includes(cookieOf(alone).value), 'not told');
  const body = await auth('refresh', { body: {
    refreshToken: cookieOf(both).value } });

  assert.equal('cookie' in body.data, false);
});

test('forged cookies are refused', async () => {
  const { value, sid } = await fresh();
  const raw = Buffer.from(value, 'base64url');

  for (let i = 0; i < raw.length; i++) {
    const bad = Buffer.from(raw);

    bad[i] ^= 1;
    refused(await byCookie(`${NAME}=${bad.toString('base64url')}`), 401,
      'REFRESH_INVALID');
  }
  for (const bad of ['x', value.slice(1), `${value}A`, `"${value}"`,
    `${value}=`, 'A'.repeat(4000)]) {
    refused(await byCookie(`${NAME}=${bad}`), 401, 'REFRESH_INVALID');
  }
  assert.equal(await steps(sid), 1);
});

test('by cookie alone, only pages of ours are heard', async () => {
  const foreign = [
    {}, { Origin: 'null' }, { Origin: '' }, { 'X-Requested-With': '' },
    { Origin: 'https://stoa.example.evil' },
    { Origin: `${FRIEND}.evil` }, { Origin: `${FRIEND}:443` },
    { Origin: `${FRIEND}/` }, { Origin: `${FRIEND} ` + FRIEND },
    { Origin: FRIEND.replace('https', 'http') },
    { Origin: 'https://xapp.stoa.example' },
    { Origin: 'https://stoa.example' }, { Origin: 'https://appstoa.example' },
    { Origin: 'https://evil.example', Host: 'evil.example' },
    { Origin: app.url.replace('127.0.0.1', 'localhost') },
    { Origin: app.url.replace('http:', 'https:') },
    { Origin: `${app.url}0` }, { Origin: app.url.slice(0, -1) },
    { Referer: `${app.url}/account/` },
    { 'Sec-Fetch-Site': 'cross-site' }, { 'Sec-Fetch-Site': 'same-site' },
    { 'Sec-Fetch-Site': 'none' }, { 'Sec-Fetch-Site': 'same-origin, x' },
    { Origin: 'null', 'Sec-Fetch-Site': 'cross-site' },
    { Origin: 'https://evil.example', 'Sec-Fetch-Site': 'same-site' },
    { 'X-Forwarded-Host': 'evil.example', Origin: 'https://evil.example' },
  ];
  const { pair, sid, user } = await fresh();

  for (const headers of foreign) {
    for (const body of [undefined, {}]) {
      const res = await byCookie(pair, headers, body);

      refused(res, 403, 'CROSS_SITE');
      assert.equal(res.headers['access-control-allow-origin'], undefined);
    }
  }
  assert.equal(await steps(sid), 1, 'nothing was done');

  /* the same requests as ours, and as those of a token that is no cookie */
  for (const headers of [
    AJAX, { Origin: app.url }, { Origin: FRIEND },
    { 'Sec-Fetch-Site': 'same-origin' },
    { 'Sec-Fetch-Site': 'same-origin', Origin: 'null' },
    { 'Sec-Fetch-Site': 'same-site', Origin: FRIEND },
    { ...AJAX, Origin: 'null' },
  ]) {
    const res = await byCookie(cookieOf(await login(user)).pair, headers);

    assert.equal(res.status, 200, JSON.stringify(headers) + res.text);
  }
  for (const headers of foreign) {
    const { data } = await login(user);
    const res = await byCookie(`a=1`, headers,
      { refreshToken: data.refreshToken });

    assert.equal(res.status, 200, JSON.stringify(headers) + res.text);
  }
});

test('the cookie opens nothing but refresh', async () => {
  const { pair, token } = await fresh();
  const headers = { Cookie: pair, ...AJAX };

  for (const [method, where] of [['GET', '/api/v1/users/me'],
    ['GET', '/api/v1/auth/sessions'], ['DELETE', '/api/v1/auth/sessions'],
    ['POST', '/api/v1/auth/logout'], ['POST', '/api/v1/orders']]) {
    refused(await app.api(method, where, { headers }), 401,
      'UNAUTHENTICATED');
  }
  assert.equal(await check(token), 200);
});

test('pages of the list may use it, others not even ask', async () => {
  const ask = (origin) => app.api('OPTIONS', '/api/v1/auth/refresh', {
    headers: { Origin: origin, 'Access-Control-Request-Method': 'POST',
      'Access-Control-Request-Headers': 'x-requested-with' } });
  const yes = await ask(FRIEND);

  assert.equal(yes.headers['access-control-allow-origin'], FRIEND);
  assert.equal(yes.headers['access-control-allow-credentials'], 'true');
  assert.match(yes.headers['access-control-allow-headers'],
    /X-Requested-With/);
  for (const origin of ['null', 'https://evil.example', `${FRIEND}.evil`,
    'https://xapp.stoa.example']) {
    const no = await ask(origin);

    for (const name of Object.keys(no.headers)) {
      assert.ok(!name.startsWith('access-control-'), `${origin}: ${name}`);
    }
  }
});

test('twenty tabs refresh with one cookie: one successor for all', async () => {
  const { pair, sid } = await fresh();
  const got = await app.barrier(20, () => ({ method: 'POST',
    path: '/api/v1/auth/refresh', headers: { Cookie: pair, ...AJAX } }));
  const cookies = new Set(got.map((res) => cookieOf(res)?.value));

  assert.deepEqual([...new Set(got.map(({ status }) => status))], [200]);
  assert.equal(cookies.size, 1);
  assert.equal(await steps(sid), 2);
  assert.equal((await byCookie(`${NAME}=${[...cookies][0]}`)).status, 200);

  /* a copy that comes late ends the session, for the newest one as well */
  refused(await byCookie(pair), 401, 'REFRESH_INVALID');
  refused(await byCookie(`${NAME}=${[...cookies][0]}`), 401,
    'REFRESH_INVALID');
});

test('logout clears it, and what was copied is worth nothing', async () => {
  const cleared = (res) => {
    assert.equal(res.status, 200, res.text);
    assert.equal(cookieOf(res).value, '');
    assert.deepEqual(cookieOf(res).attributes,
      ['HttpOnly', 'Max-Age=0', ...FIXED.slice(1)]);
  };

  for (const leave of [
    ({ token }) => auth('logout', { token }),
    ({ token }) => auth('logout', { token, body: { all: true } }),
    ({ token, sid }) => app.api('DELETE', `/api/v1/auth/sessions/${sid}`,
      { token }),
    ({ token, sid }) => app.api('DELETE',
      `/api/v1/auth/sessions/${sid.toUpperCase()}`, { token }),
  ]) {
    const mine = await fresh();

    cleared(await leave(mine));
    refused(await byCookie(mine.pair), 401, 'REFRESH_INVALID');
    assert.equal(await check(mine.token), 401);
  }
});

test('ending another session leaves one\'s own cookie', async () => {
  const mine = await fresh();
  const other = await login(mine.user);
  const res = await app.api('DELETE',
    `/api/v1/auth/sessions/${sidOf(other.data.accessToken)}`,
    { token: mine.token });

  assert.equal(res.status, 200);
  assert.equal(cookieOf(res), undefined);
  refused(await byCookie(cookieOf(other).pair), 401, 'REFRESH_INVALID');
  assert.equal(await check(other.data.accessToken), 401);
  assert.equal((await byCookie(mine.pair)).status, 200);

  const rest = await app.api('DELETE', '/api/v1/auth/sessions',
    { token: mine.token });

  assert.equal(rest.status, 200);
  assert.equal(cookieOf(rest), undefined);
});

test('an Idempotency-Key replays no cookie', async () => {
  const user = await app.user();
  const headers = { 'Idempotency-Key': crypto.randomUUID() };
  const body = { email: user.email, password: user.password };
  const [one, two] = [await auth('login', { body, headers }),
    await auth('login', { body, headers })];

  assert.notEqual(sidOf(one.data.accessToken), sidOf(two.data.accessToken));
  assert.notEqual(cookieOf(one).value, cookieOf(two).value);
  assert.equal(two.headers['idempotent-replayed'], undefined);
  assert.equal(await app.value('select count(*)::int from app.idempotency'),
    0);
});

test('a scanner\'s token comes without a cookie', async () => {
  const organizer = await app.user('organizer');
  const event = await app.event(organizer);
  const { data } = await app.api('POST', '/api/v1/checkin/devices', {
    token: organizer.token, body: { eventId: event.id, name: 'Door' } });
  const res = await app.api('POST', '/api/v1/checkin/devices/login',
    { body: { code: data.pairingCode ?? data.code } });

  assert.equal(res.status, 200, res.text);
  assert.equal(cookieOf(res), undefined);
});

test('no log has one', async () => {
  const { pair, value } = await fresh();

  await byCookie(pair, {});
  await byCookie(pair);
  await byCookie(`${NAME}=${value}x`);
  for (const name of fs.readdirSync(path.join(app.dir, 'log'))) {
    assert.ok(!fs.readFileSync(path.join(app.dir, 'log', name), 'latin1')
      .includes(value), name);
  }
});

test('switched off: none is set and none is read', async () => {
  const off = await boot({ workers: 0, conf: { AUTH_COOKIE_MODE: 'off' },
    nginx: { server: `stoa_cors ${FRIEND};` } });

  try {
    const user = await off.user();
    const res = await login(user, { remember: true }, off);
    const { accessToken, refreshToken } = res.data;

    assert.equal(cookieOf(res), undefined);
    refused(await auth('refresh', { headers: {
      Cookie: `${NAME}=${refreshToken}`, ...AJAX } }, off), 400,
    'VALIDATION_FAILED');

    const ok = await auth('refresh', { headers: { Cookie: `${NAME}=x`,
      Origin: FRIEND }, body: { refreshToken } }, off);

    assert.equal(ok.status, 200, ok.text);
    assert.equal(cookieOf(ok), undefined);
    assert.equal(ok.headers['access-control-allow-origin'], FRIEND);
    assert.equal(ok.headers['access-control-allow-credentials'], undefined);
    assert.equal(cookieOf(await auth('logout', { token: accessToken }, off)),
      undefined);
  } finally {
    await off.stop();
  }
});
