/*
 * Strict Host (edge.md D.2, redirect and host poisoning): with the default
 * server that conf/nginx.conf shows, only the names that were given are
 * served, in every way a request can name a host; and nothing that a client
 * says of hosts is in an answer.
 */

import assert from 'node:assert/strict';
import net from 'node:net';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';

const NAME = 'app.stoa.example';
const EVIL = 'evil.example';

let app, user;

before(async () => {
  app = await boot({ workers: 0, nginx: { replace: [[
    /(listen 127\.0\.0\.1:)(\d+)( backlog=4096;)([\s\S]*)\}\s*$/,
    `$1$2;
        server_name ${NAME} 127.0.0.1;$4
    server {
        listen 127.0.0.1:$2 default_server backlog=4096;
        stoa_errors on;
        return 421;
    }
}
`]] } });
  user = await app.user();
});
after(() => app?.stop());

const get = (path, headers) => app.api('GET', path,
  { token: user.token, headers, plain: true, validate: false });

function raw(text) {
  return new Promise((done) => {
    const socket = net.connect(app.port, '127.0.0.1', () =>
      socket.write(text.replace(/\n/g, '\r\n')));
    let got = '';

    socket.on('data', (chunk) => { got += chunk; });
    socket.on('close', () => done(got));
  });
}

test('the names that were given are served', async () => {
  for (const Host of [NAME, NAME.toUpperCase(), `${NAME}:8443`, `${NAME}.`,
    '127.0.0.1']) {
    assert.equal((await get('/api/v1/users/me', { Host })).status, 200, Host);
  }
});

test('no other, whatever the path', async () => {
  for (const Host of [EVIL, `${NAME}.${EVIL}`, `x.${NAME}`, `x${NAME}`,
    'localhost', '127.0.0.2', '[::1]', '0x7f.1', '2130706433', '']) {
    for (const path of ['/api/v1/users/me', '/account/', '/', '/metrics',
      '/health/ready', '/nowhere']) {
      const res = await get(path, { Host });

      assert.ok([400, 421].includes(res.status), `${Host} ${path}`);
      if (res.status === 421) assert.equal(res.error.code, 'MISDIRECTED');
      assert.ok(!JSON.stringify(res.headers).includes(EVIL));
      assert.ok(!res.text.includes(EVIL));
    }
  }
});

test('a target that names a host counts before the header', async () => {
  const ask = (target, host) => raw(`GET ${target} HTTP/1.1
Host: ${host}
Authorization: Bearer ${user.token}
Connection: close

`);

  assert.match(await ask(`http://${EVIL}/api/v1/users/me`, NAME),
    /^HTTP\/1.1 421 /);
  assert.match(await ask(`http://${NAME}/api/v1/users/me`, EVIL),
    /^HTTP\/1.1 200 /);
  assert.match(await raw('GET /api/v1/users/me HTTP/1.0\n\n'),
    /^HTTP\/1.1 421 /);
  assert.match(await raw('GET /api/v1/users/me HTTP/1.1\n\n'),
    /^HTTP\/1.1 400 /);
  assert.match(await raw(`GET / HTTP/1.1\nHost: ${NAME}\nHost: ${EVIL}\n\n`),
    /^HTTP\/1.1 400 /);
  for (const host of [`${NAME}/x`, `${NAME} ${EVIL}`, `a@${NAME}`,
    `${NAME}%00`, `${NAME}\\x`]) {
    const got = await raw(`GET / HTTP/1.1\nHost: ${host}\n`
      + 'Connection: close\n\n');

    assert.match(got, /^HTTP\/1.1 4(00|21) /, host);
  }
});

test('what a client says of hosts is in no answer', async () => {
  const headers = { Host: NAME, 'X-Forwarded-Host': EVIL,
    Forwarded: `host=${EVIL}`, 'X-Original-Host': EVIL, 'X-Host': EVIL,
    'X-Forwarded-Proto': 'gopher', 'X-Original-URL': `//${EVIL}/`,
    'X-Rewrite-URL': '/metrics' };

  for (const path of ['/', '/api/users/me', '/v1/events', '/events',
    '/account', '/api/v1/openapi.json', '/.well-known/jwks.json']) {
    const res = await get(path, headers);

    assert.ok(res.status < 500, path);
    assert.ok(!(JSON.stringify(res.headers) + res.text).includes(EVIL), path);
    assert.ok(!(res.headers.location ?? '/').startsWith('//'), path);
  }
});
