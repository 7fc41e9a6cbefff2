/*
 * AUTH_COOKIE_MODE=both: the access token as a cookie.  It opens what the
 * header opens, for pages of ours; a page of somebody else's can neither
 * write with it nor read with it, by any sign a browser gives; one that ended
 * never shuts out who need not be signed in; and it ends with the session.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';

const ACCESS = '__Host-stoa_access';
const REFRESH = '__Host-stoa_refresh';
const CSRF = '__Host-stoa_csrf';
const FRIEND = 'https://app.stoa.example';
const AJAX = { 'X-Requested-With': 'test' };
const ME = '/api/v1/users/me';
const CHECK = '/api/v1/auth/check';

let app;

before(async () => {
  app = await boot({ workers: 0, conf: { AUTH_COOKIE_MODE: 'both' },
    nginx: { server: `stoa_cors ${FRIEND};` } });
});
after(() => app?.stop());

const lines = (res) => res.headers['set-cookie'] ?? [];
const line = (res, name) => lines(res).find((l) => l.startsWith(`${name}=`));
const pair = (res, name) => line(res, name)?.split(';')[0];
const login = (user, spec) => app.api('POST', '/api/v1/auth/login', {
  body: { email: user.email, password: user.password }, ...spec });

async function signedIn() {
  const user = await app.user();
  const res = await login(user);

  return { user, res, token: res.data.accessToken, access: pair(res, ACCESS),
    refresh: pair(res, REFRESH) };
}

const get = (path, Cookie, headers = {}) =>
  app.api('GET', path, { headers: { Cookie, ...headers } });
const patch = (Cookie, headers, body = { firstName: 'Ada' }) =>
  app.api('PATCH', ME, { headers: { Cookie, ...headers }, body });

function refused(res, status, code) {
  assert.equal(res.status, status, res.text);
  assert.equal(res.error.code, code, res.text);
}

test('login and refresh set both, in these words', async () => {
  const { res, refresh, token } = await signedIn();
  const next = await app.api('POST', '/api/v1/auth/refresh',
    { headers: { Cookie: refresh, ...AJAX } });

  for (const answer of [res, next]) {
    assert.equal(lines(answer).length, 2);
    assert.equal(line(answer, ACCESS), `${ACCESS}=${answer.data.accessToken}`
      + '; Max-Age=900; Path=/; HttpOnly; Secure; SameSite=Lax');
  }
  assert.notEqual(next.data.accessToken, token);
});

test('it opens what the header opens', async () => {
  const { user, access, token } = await signedIn();
  const res = await get(CHECK, access);

  assert.equal(res.status, 200, res.text);
  assert.equal(res.data.userId, user.id);
  assert.equal((await patch(access, AJAX)).status, 200);

  /* among others, twice the same, but not two that differ */
  assert.equal((await get(CHECK, `a=b; ${access}; ${access}`)).status, 200);
  refused(await get(CHECK, `${access}; ${ACCESS}=x`), 403, 'CROSS_SITE');

  /* the header was chosen, the cookie came by itself */
  refused(await get(CHECK, access, { Authorization: 'Bearer x' }), 401,
    'UNAUTHENTICATED');
  const other = await signedIn();

  assert.equal((await get(CHECK, access,
    { Authorization: `Bearer ${other.token}` })).data.userId, other.user.id);
  assert.ok(token);
});

test('another site\'s page writes nothing', async () => {
  const { access } = await signedIn();

  for (const headers of [{}, { Origin: 'https://evil.example' },
    { Origin: 'null' }, { Origin: `${FRIEND}.evil.example` },
    { Origin: `http://evil.example/${app.url}` },
    { Referer: `${app.url}/account/` }, { 'Sec-Fetch-Site': 'cross-site' },
    { 'Sec-Fetch-Site': 'same-site' }, { 'Sec-Fetch-Site': 'none' },
    { 'X-CSRF-Token': '' }, { 'X-CSRF-Token': 'x' },
    { 'X-CSRF-Token': 'A'.repeat(43), Cookie: `${access}; ${CSRF}=${
      'A'.repeat(43)}` },
    { 'X-CSRF-Token': 'A'.repeat(43), ...AJAX, Origin: app.url }]) {
    refused(await patch(access, headers), 403, 'CROSS_SITE');
  }
  for (const method of ['POST', 'PUT', 'DELETE']) {
    const path = method === 'POST' ? '/api/v1/events' : method === 'PUT' ? ME
      : '/api/v1/auth/sessions';

    refused(await app.api(method, path, { headers: { Cookie: access },
      body: method === 'DELETE' ? undefined : {} }), 403, 'CROSS_SITE');
  }
  assert.equal((await get(ME, access)).data.firstName !== 'Ada', true);
});

test('a page of ours does, by any sign a browser gives', async () => {
  const { access } = await signedIn();

  for (const headers of [AJAX, { Origin: app.url }, { Origin: FRIEND },
    { 'Sec-Fetch-Site': 'same-origin' }]) {
    assert.equal((await patch(access, headers)).status, 200,
      JSON.stringify(headers));
  }
});

test('a token for browsers that give none', async () => {
  const { access } = await signedIn();
  const made = await get('/api/v1/auth/csrf', access);
  const cookie = pair(made, CSRF);
  const token = made.data.csrfToken;

  assert.match(line(made, CSRF), /; Path=\/; HttpOnly; Secure; SameSite=Lax$/);
  assert.equal(made.headers['cache-control'], 'no-store');
  assert.equal(cookie, `${CSRF}=${token}`);
  assert.equal((await patch(`${access}; ${cookie}`,
    { 'X-CSRF-Token': token })).status, 200);

  /* one half is worth nothing, nor is another's, nor a changed one */
  const other = (await get('/api/v1/auth/csrf', '')).data.csrfToken;
  const flipped = token.slice(0, -2) + (token.at(-2) === 'A' ? 'B' : 'A')
    + token.at(-1);

  assert.notEqual(other, token);
  refused(await patch(access, { 'X-CSRF-Token': token }), 403, 'CROSS_SITE');
  refused(await patch(`${access}; ${cookie}`, {}), 403, 'CROSS_SITE');
  refused(await patch(`${access}; ${cookie}`, { 'X-CSRF-Token': other }), 403,
    'CROSS_SITE');
  refused(await patch(`${access}; ${CSRF}=${flipped}`,
    { 'X-CSRF-Token': flipped }), 403, 'CROSS_SITE');
});

test('another site\'s page reads nothing, a link from there works', async () => {
  const { access } = await signedIn();

  for (const site of ['cross-site', 'same-site']) {
    for (const mode of ['cors', 'no-cors', 'websocket']) {
      refused(await get(CHECK, access,
        { 'Sec-Fetch-Site': site, 'Sec-Fetch-Mode': mode }), 403, 'CROSS_SITE');
    }
    assert.equal((await get(CHECK, access,
      { 'Sec-Fetch-Site': site, 'Sec-Fetch-Mode': 'navigate' })).status, 200);
    assert.equal((await get(CHECK, access, { 'Sec-Fetch-Site': site,
      'Sec-Fetch-Mode': 'cors', Origin: FRIEND })).status, 200);
  }

  /* a public row answers them as anybody */
  assert.equal((await get('/api/v1/events', access,
    { 'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'cors' })).status, 200);
});

test('one that ended shuts nobody out', async () => {
  const { user, access, token } = await signedIn();

  await app.api('POST', '/api/v1/auth/logout', { token, body: {} });
  for (const cookie of [access, `${ACCESS}=a.b.c`, `${ACCESS}=x`]) {
    refused(await get(CHECK, cookie), 401, cookie === access
      ? 'TOKEN_REVOKED' : 'UNAUTHENTICATED');
    assert.equal((await get('/api/v1/events', cookie)).status, 200);
    assert.equal((await login(user,
      { headers: { Cookie: cookie, ...AJAX } })).status, 200);
  }

  /* in a header it is a mistake that is told */
  refused(await app.api('GET', '/api/v1/events', { token }), 401,
    'TOKEN_REVOKED');
});

test('logout clears both', async () => {
  const { access } = await signedIn();
  const res = await app.api('POST', '/api/v1/auth/logout',
    { headers: { Cookie: access, ...AJAX }, body: {} });

  assert.equal(res.status, 200, res.text);
  for (const name of [ACCESS, REFRESH]) {
    assert.match(line(res, name), new RegExp(`^${name}=; Max-Age=0; `));
  }
  refused(await get(CHECK, access), 401, 'TOKEN_REVOKED');
});
