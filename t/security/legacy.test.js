/*
 * Stoa in front of other software (edge.md D.2, identity header spoofing):
 * the backend is told who was verified and by nothing that a client sends,
 * in any spelling, through redirects, subrequests and "satisfy any"; it never
 * sees a token or a cookie of Stoa's unless it was asked for; limits, roles
 * and the end of a session count there as everywhere; visitors are led to
 * the sign-in and back.  The backend is a plain HTTP server of node's, and
 * "/" is the set-up that README.md tells.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { ROOT, boot, until } from '../harness/index.js';

const text = (file) => fs.readFileSync(path.join(ROOT, file), 'utf8');

/* What README.md says under this headline: for http, and for server. */
const [MAP, SETUP] = [...text('README.md')
  .match(/^### Moving over piece by piece\n([^]*?)^### /m)[1]
  .matchAll(/^```nginx\n([^]*?)^```/gm)].map((match) => match[1]);
/* Pages that stay Stoa's beside it. */
const PAGES = text('conf/nginx.conf')
  .match(/^ *location \/(account|events|kit)\/ \{[^}]*\}/gm).join('\n');

/* What it was sent, as it came. */
const legacy = http.createServer((req, res) => {
  seen.push({ url: req.url, raw: req.rawHeaders });
  res.setHeader('Content-Type', 'application/json');
  if (req.url.startsWith('/gone')) res.statusCode = 404;
  res.end(JSON.stringify({ url: req.url, headers: req.headers,
    raw: req.rawHeaders }));
});

legacy.on('upgrade', (req, socket) => {
  socket.end('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n'
    + `Connection: Upgrade\r\nX-Saw: ${req.headers['x-user'] ?? 'nobody'}\r\n`
    + '\r\n');
});

const FORGED = crypto.randomUUID();
/* every spelling that becomes HTTP_X_USER in a CGI environment */
const SPELLINGS = ['X-User', 'x-user', 'X-USER', 'X_User', 'x_user', 'X.User',
  'X~User'];

const SOCKET = path.join(os.tmpdir(), `stoa-h2-${process.pid}.sock`);

let app, seen = [];

before(async () => {
  legacy.listen(0, '127.0.0.1');
  await once(legacy, 'listening');
  const to = `http://127.0.0.1:${legacy.address().port}`;

  app = await boot({ workers: 0, conf: { AUTH_COOKIE_MODE: 'both' }, nginx: {
    http: `
      stoa_limit scan rate=60/m burst=20 key=user;
      ${MAP}`,
    server: `listen unix:${SOCKET} http2;
      underscores_in_headers on; ignore_invalid_headers off;`,
    replace: [[/^ *stoa_limit scan .*\n/m, ''],
      [/^ *location \/ \{[^}]*\}/m, `${PAGES}
        ${SETUP.replace('http://127.0.0.1:3000', to)}`],
      [/^ *location = \/ \{[^}]*\}/m, `
        location /legacy/ {
            stoa_auth     required login=/account/;
            stoa_limit_apply scan;
            stoa_identity user=X-User roles=X-Roles session=X-Session
                          request_id=X-Request-Id prefix=X-Prefix;
            proxy_http_version 1.1;
            proxy_set_header Upgrade    $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_pass ${to}/;
        }
        location /staff/ {
            stoa_auth     required role=organizer;
            stoa_identity user=X-User;
            proxy_pass ${to}/;
        }
        location /open/ {
            stoa_auth     optional;
            stoa_identity user=X-User roles=X-Roles token=bearer;
            proxy_pass ${to}/;
        }
        location /either/ {
            satisfy any;
            allow 127.0.0.1;
            deny all;
            stoa_auth     required;
            stoa_identity user=X-User;
            proxy_pass ${to}/;
        }
        location /closed/ {
            stoa_identity user=X-User;
            proxy_pass ${to}/;
        }
        location /named/ {
            stoa_auth optional;
            error_page 404 = @named;
            proxy_intercept_errors on;
            proxy_pass ${to}/gone/;
        }
        location @named {
            stoa_identity user=X-User;
            proxy_pass ${to};
        }
        location /mirrored/ {
            stoa_auth optional;
            mirror /mirror;
            stoa_identity user=X-User;
            proxy_pass ${to}/;
        }
        location = /mirror {
            internal;
            stoa_identity user=X-Who;
            proxy_pass ${to}/mirror;
        }`]],
  } });
});
after(async () => {
  legacy.close();
  legacy.closeAllConnections?.();
  await app?.stop();
});

const get = (path, { method = 'GET', ...spec } = {}) =>
  app.api(method, path, spec);
const cookieOf = (res, name) => res.headers['set-cookie']
  .find((line) => line.startsWith(`${name}=`)).split(';')[0];

async function signedIn(role) {
  const user = await app.user(role);
  const res = await app.api('POST', '/api/v1/auth/login',
    { body: { email: user.email, password: user.password } });

  return { user, token: res.data.accessToken,
    access: cookieOf(res, '__Host-stoa_access'),
    refresh: cookieOf(res, '__Host-stoa_refresh') };
}

/* What a CGI program would find under HTTP_X_USER. */
const claimed = (body, name = 'x-user') => body.raw
  .filter((_, i, all) => i % 2 === 1 && all[i - 1].toLowerCase()
    .replace(/[^a-z0-9]/g, '-') === name);

test('the backend learns who was verified', async () => {
  const { user, token } = await signedIn();
  const res = await get('/legacy/a?b=1', { token });

  assert.equal(res.status, 200, res.text);
  assert.equal(res.body.url, '/a?b=1');
  assert.deepEqual(claimed(res.body), [user.id]);
  assert.equal(res.body.headers['x-roles'], 'member');
  assert.match(res.body.headers['x-session'], /^[0-9a-f-]{36}$/);
  assert.equal(res.body.headers['x-prefix'], '127.0.0.1');
  assert.equal(res.body.headers['x-request-id'], res.headers['x-request-id']);
});

test('what a client says of itself does not arrive, however spelled',
  async () => {
    const { user, token } = await signedIn();

    for (const name of SPELLINGS) {
      const headers = { [name]: FORGED };

      for (const [path, expected] of [['/legacy/', [user.id]],
        ['/open/', [user.id]], ['/either/', [user.id]], ['/closed/', []],
        ['/named/', [user.id]], ['/mirrored/', [user.id]]]) {
        seen = [];

        const res = await get(path, { token, headers });

        assert.equal(res.status, 200, `${path} ${name}: ${res.text}`);
        /* "closed" verifies nothing, so it has nobody to name */
        assert.deepEqual(claimed(res.body), expected, `${path} ${name}`);
        if (path !== '/named/') {
          assert.ok(!JSON.stringify(seen).includes(FORGED), `${path} ${name}`);
        }
      }

      for (const path of ['/open/', '/either/', '/closed/', '/named/']) {
        const res = await get(path, { headers });

        assert.equal(res.status, 200, `${path} ${name}: ${res.text}`);
        assert.deepEqual(claimed(res.body), [], `${path} ${name}`);
      }
    }
  });

test('twice, in several lines, among many: none arrives', async () => {
  const { user, token } = await signedIn();
  const headers = { 'X-User': [FORGED, FORGED], x_user: FORGED,
    'X-Roles': 'admin', 'X-Session': FORGED, 'X-Request-Id': FORGED };

  for (let i = 0; i < 40; i++) headers[`X-Other-${i}`] = String(i);

  const res = await get('/legacy/', { token, headers });

  assert.deepEqual(claimed(res.body), [user.id]);
  assert.equal(res.body.headers['x-roles'], 'member');
  assert.ok(!res.text.includes(FORGED));
  for (let i = 0; i < 40; i++) {
    assert.equal(res.body.headers[`x-other-${i}`], String(i));
  }
});

test('over HTTP/2 the same', async () => {
  const { user, token } = await signedIn();
  const client = http2.connect('http://x',
    { createConnection: () => net.connect(SOCKET) });

  try {
    for (const [path, expected] of [['/legacy/', user.id], ['/open/', user.id],
      ['/closed/', undefined]]) {
      const stream = client.request({ ':authority': 'x', ':path': path,
        authorization: `Bearer ${token}`, 'x-user': FORGED, x_user: FORGED,
        'x-roles': 'admin', cookie: `a=1; __Host-stoa_refresh=${FORGED}` });
      let text = '';

      for await (const chunk of stream) text += chunk;
      assert.ok(!text.includes(FORGED), text);
      assert.deepEqual(claimed(JSON.parse(text)), expected ? [expected] : []);
      assert.equal(JSON.parse(text).headers.cookie, 'a=1');
    }
  } finally {
    client.close();
  }
});

test('tokens and cookies of Stoa stay here', async () => {
  const { token, access, refresh } = await signedIn();
  const Cookie = `a=1; ${access}; b="2;x"; ${refresh}; __Host-stoa_csrf=z; c=3`;
  const res = await get('/legacy/', { token, headers: { Cookie } });

  assert.equal(res.status, 200, res.text);
  assert.equal(res.body.headers.cookie, 'a=1; b="2; x"; c=3');
  assert.equal(res.body.headers.authorization, undefined);
  assert.ok(!res.text.includes(token));

  const only = await get('/legacy/', { headers: { Cookie: access } });

  assert.equal(only.status, 200, only.text);
  assert.equal(only.body.headers.cookie, undefined);

  /* another's header of that kind goes neither */
  const basic = await get('/closed/', { headers: { Authorization: 'Basic eA==' } });

  assert.equal(basic.body.headers.authorization, undefined);
});

test('an API key is shown to nobody, another\'s key goes on', async () => {
  const { user, token } = await signedIn();
  const { key } = (await app.api('POST', '/api/v1/auth/api-keys',
    { token, body: { name: 'Robot', scopes: ['*'] } })).data;
  const headers = { 'X-Api-Key': key };

  for (const path of ['/open/', '/legacy/']) {
    const res = await get(path, { headers });

    assert.equal(res.status, 200, res.text);
    assert.deepEqual(claimed(res.body), [user.id]);
    assert.ok(!res.text.includes(key), path);
    assert.equal(res.body.headers.authorization, undefined);
  }
  const own = await get('/open/', { headers: { 'X-Api-Key': 'of-the-backend' } });

  assert.equal(own.status, 200, own.text);
  assert.equal(own.body.headers['x-api-key'], 'of-the-backend');
  assert.deepEqual(claimed(own.body), []);

  /* a browser brings a cookie by itself: it is no place for a key */
  const cookie = await get('/open/',
    { headers: { Cookie: `__Host-stoa_access=${key}` } });

  assert.deepEqual(claimed(cookie.body), []);
  assert.equal((await get('/legacy/',
    { headers: { Cookie: `__Host-stoa_access=${key}` } })).status, 401);

  /* narrower ones are for rows, which say what they do */
  const narrow = (await app.api('POST', '/api/v1/auth/api-keys',
    { token, body: { name: 'Robot', scopes: ['events:read'] } })).data.key;

  assert.equal((await get('/legacy/',
    { headers: { 'X-Api-Key': narrow } })).status, 403);
});

test('asked for, the token goes along, wherever it came from', async () => {
  const { token, access } = await signedIn();
  const value = access.split('=')[1];

  const one = await get('/open/', { token });
  const two = await get('/open/', { headers: { Cookie: access } });
  const none = await get('/open/', {});

  assert.equal(one.body.headers.authorization, `Bearer ${token}`);
  assert.equal(two.body.headers.authorization, `Bearer ${value}`);
  assert.equal(none.body.headers.authorization, undefined);
});

test('a mirror is told by its own names', async () => {
  const { user, token } = await signedIn();

  seen = [];
  await get('/mirrored/x', { token, headers: { 'X-Who': FORGED } });
  for (let i = 0; i < 100 && seen.length < 2; i++) {
    await new Promise((done) => setTimeout(done, 20));
  }
  const mirror = seen.find((one) => one.url === '/mirror');

  assert.deepEqual(claimed(mirror, 'x-who'), [user.id]);
  assert.deepEqual(claimed(mirror), [user.id]); /* verified, of the main one */
});

test('roles, the end of a session and a ban count at once', async () => {
  const member = await signedIn();
  const organizer = await signedIn('organizer');

  assert.equal((await get('/staff/', { token: member.token })).status, 403);
  assert.equal((await get('/staff/', { token: organizer.token })).status, 200);
  assert.equal((await get('/staff/', {})).status, 401);
  assert.equal((await get('/legacy/', { token: 'a.b.c' })).status, 401);

  await app.api('POST', '/api/v1/auth/logout',
    { token: organizer.token, body: {} });
  assert.equal((await get('/staff/', { token: organizer.token })).status, 401);
});

test('a limit is the user\'s', async () => {
  const [one, two] = [await signedIn(), await signedIn()];
  const all = await Promise.all(Array.from({ length: 60 }, () =>
    get('/legacy/', { token: one.token })));
  const passed = all.filter((res) => res.status === 200).length;

  assert.ok(passed >= 20 && passed < 60, `${passed}`);
  for (const res of all.filter((one) => one.status !== 200)) {
    assert.equal(res.status, 429);
    assert.equal(res.error.code, 'RATE_LIMITED');
    assert.ok(Number(res.headers['retry-after']) >= 1);
  }
  assert.equal((await get('/legacy/', { token: two.token })).status, 200);
  assert.equal((await get('/open/', { token: one.token })).status, 200);
});

test('a visitor is led to the sign-in, a program is refused', async () => {
  const page = { Accept: 'text/html,application/xhtml+xml,*/*;q=0.8' };
  const led = await get('/legacy/a%20b/?x=1&y=%2F%2Fevil', { headers: page });

  assert.equal(led.status, 302, led.text);
  assert.equal(led.headers.location, '/account/?next='
    + encodeURIComponent('/legacy/a%20b/?x=1&y=%2F%2Fevil'));
  assert.equal(led.headers['cache-control'], 'no-store');

  for (const [headers, method] of [
    [{ Accept: 'application/json' }, 'GET'], [{ Accept: '*/*' }, 'GET'],
    [{ ...page, 'Sec-Fetch-Mode': 'cors' }, 'GET'], [page, 'POST'],
    [{ ...page, Upgrade: 'websocket', Connection: 'Upgrade' }, 'GET']]) {
    const res = await get('/legacy/', { headers, method });

    assert.equal(res.status, 401, JSON.stringify(headers));
    assert.equal(res.error.code, 'UNAUTHENTICATED');
  }

  /* one that ended, too; and only where a page was promised */
  const { token, access } = await signedIn();

  await app.api('POST', '/api/v1/auth/logout', { token, body: {} });
  assert.equal((await get('/legacy/',
    { headers: { ...page, Cookie: access } })).status, 302);
  assert.equal((await get('/staff/', { headers: page })).status, 401);
});

test('a socket is opened by pages of ours', async () => {
  const { user, access } = await signedIn();
  const open = (headers, path = '/legacy/ws') => new Promise((done) => {
    const socket = net.connect(app.port, '127.0.0.1', () => socket.write(
      `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n`
      + `Upgrade: websocket\r\nCookie: ${access}\r\n${headers}\r\n`));
    let text = '';

    socket.on('data', (chunk) => {
      text += chunk;
      if (text.includes('\r\n\r\n')) socket.end();
    });
    socket.on('close', () => done(text));
  });
  const own = await open(`Origin: ${app.url}\r\n`);

  assert.match(own, /^HTTP\/1.1 101 /);
  assert.match(own, new RegExp(`X-Saw: ${user.id}`));
  assert.match(await open(`Origin: ${app.url}\r\n`, '/ws'),
    new RegExp(`^HTTP/1.1 101 [^]*X-Saw: ${user.id}`));

  for (const headers of ['Origin: https://evil.example\r\n', '',
    'Origin: null\r\n', 'Sec-Fetch-Site: cross-site\r\n']) {
    assert.match(await open(headers), /^HTTP\/1.1 403 /, headers);
  }
});

/* ---- as README.md says ---- */

test('as it is told: what is not Stoa\'s is the application\'s', async () => {
  const { user, token, access } = await signedIn();
  const page = { Accept: 'text/html' };

  for (const path of ['/', '/a/b?c=d', '/about', '/accounts', '/apis']) {
    const res = await get(path, { token });

    assert.equal(res.status, 200, res.text);
    assert.equal(res.body.url, path);
    assert.deepEqual(claimed(res.body), [user.id]);
    assert.equal((await get(path)).status, 401);

    const led = await get(path, { headers: page });

    assert.equal(led.status, 302);
    assert.equal(led.headers.location,
      `/account/?next=${encodeURIComponent(path)}`);
    assert.equal((await get(path, { headers: { ...page, Cookie: access } }))
      .status, 200);
  }
  for (const path of ['/account/', '/kit/tokens.css', '/events/']) {
    seen = [];
    assert.equal((await get(path, { validate: false })).status, 200);
    assert.deepEqual(seen, []);
  }
});

test('as it is told: addresses and hosts are those that the edge saw',
  async () => {
    const { token } = await signedIn();
    const res = await get('/', { token, headers: { Host: 'tickets.example',
      'X-Forwarded-For': '10.9.8.7', 'X-Real-IP': '10.9.8.7',
      'X-Forwarded-Host': 'evil.example', 'X-Forwarded-Proto': 'gopher',
      Forwarded: 'for=10.9.8.7;host=evil.example' } });

    assert.equal(res.status, 200, res.text);
    assert.doesNotMatch(res.text, /evil|gopher|10\.9\.8\.7/);
    for (const [name, value] of Object.entries({ host: 'tickets.example',
      'x-real-ip': '127.0.0.1', 'x-forwarded-for': '127.0.0.1',
      'x-forwarded-host': 'tickets.example', forwarded: undefined })) {
      assert.equal(res.body.headers[name], value, name);
    }
    assert.match(res.body.headers['x-forwarded-proto'], /^https?$/);
  });

test('as it is told: its pages are under its own policy, Stoa\'s under ours',
  async () => {
    const { token } = await signedIn();
    const own = await get('/', { token });

    for (const name of ['content-security-policy', 'x-frame-options',
      'cross-origin-opener-policy']) {
      assert.equal(own.headers[name], undefined, name);
      assert.ok((await get('/account/', { validate: false })).headers[name],
        name);
    }
  });

test('as it is told: who uses it is online to others, for a minute', async () => {
  const { user, token } = await signedIn();
  const other = await app.user();
  const seen = async () => (await get(`/api/v1/presence?ids=${user.id}`,
    { token: other.token })).data[0];

  assert.equal((await seen()).status, 'offline');
  assert.equal((await get('/a', { token })).status, 200);
  await until(async () => (await seen()).status === 'online',
    { what: 'the person to be online' });
  await app.clock.advance(60000);
  assert.equal((await seen()).status, 'offline');
  assert.match((await seen()).lastSeenAt, /^\d{4}-/);
});
