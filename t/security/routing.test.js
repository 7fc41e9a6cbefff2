/*
 * Other spellings of a protected path: whatever nginx and the rows make of
 * them, none of them is answered to nobody, and those that name the same
 * path get the same verdict.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { ROOT, boot } from '../harness/index.js';

/* The gates as conf/nginx.conf shows them: /legacy/ is for some roles, in it
   /legacy/public/ for everybody. */
const GATES = fs.readFileSync(path.join(ROOT, 'conf/nginx.conf'), 'utf8')
  .match(/^ *#location \/legacy\/ \{[^]*?^ *#\}\n *#\n *#location [^]*?^ *#\}/m)[0]
  .replace(/^ *#/gm, '').replace(/stoa_limit_apply .*/, '');

const SOCKET = path.join(os.tmpdir(), `stoa-routing-${process.pid}.sock`);

/* What is behind them, and what it was asked for. */
let asked;
const backend = http.createServer((req, res) => {
  asked = req.url;
  res.end('behind');
});

let app, alice, id, h2;

before(async () => {
  backend.listen(0, '127.0.0.1');
  await once(backend, 'listening');

  const to = `http://127.0.0.1:${backend.address().port}`;

  app = await boot({ workers: 0, nginx: {
    server: `listen unix:${SOCKET} http2;`,
    replace: [['location = / {', `
        ${GATES.replaceAll('http://127.0.0.1:3000', to)}
        location /free/ {
            proxy_pass ${to};
        }
        location /named/ {
            set $to ${to};
            stoa_auth optional;
            proxy_pass $to;
        }
        location = / {`]] } });
  h2 = http2.connect('http://x',
    { createConnection: () => net.connect(SOCKET) });
  alice = await app.user();
  const olga = await app.user('organizer');

  id = (await app.event(olga)).id;
});
after(async () => {
  h2?.close();
  backend.close();
  backend.closeAllConnections?.();
  await app?.stop();
});

async function ask(target, { token, method = 'GET', host = 'x' } = {}) {
  const text = await app.raw(`${method} ${target} HTTP/1.1\r\n` +
    `Host: ${host}\r\nConnection: close\r\n` +
    `${token ? `Authorization: Bearer ${token}\r\n` : ''}\r\n`);

  return {
    status: Number(text.match(/^HTTP\/1\.1 (\d+)/)?.[1]), text,
    body: text.slice(text.indexOf('\r\n\r\n') + 4),
  };
}

const SPELLINGS = (name) => [
  `/api/v1/users/${name}/`, `/api/v1/users//${name}`, `//api/v1/users/${name}`,
  `/api/v1/users/./${name}`, `/api/v1/users/x/../${name}`,
  `/x/../api/v1/users/${name}`, `/api/v1/users/%2e/${name}`,
  `/api/v1/users/x/%2e%2e/${name}`, `/api/v1/users%2f${name}`,
  `/api%2fv1%2fusers%2f${name}`, `/api/v1/users/${name}%2f`,
  `/api/v1/users/${name}%00`, `/api/v1/users/${name}%00.json`,
  `/api/v1/users/%00/${name}`, `/api/v1/users/${name};x`,
  `/api/v1/users;x/${name}`, `/api/v1/users/${name}.`,
  `/api/v1/users/${name}%20`, `/api/v1/users/${name}%09`,
  `/api/v1/users/${name}%0a`, `/api/v1/users\\${name}`,
  `/api/v1/users%5c${name}`, `/api/v1/Users/${name}`, `/API/v1/users/${name}`,
  `/api/v1/users/${name.toUpperCase()}`, `/api/v1/users/${name}.json`,
  `/api/v1/users/%6d%65`, `/api/v1/users/%256d%2565`,
  `/api/v1/users/${name}%3f`, `/api/v1/users/${name}%23x`,
  `/api/v1/users/..%2fusers/${name}`, `/api/v1/users/..%5cusers/${name}`,
  `/api/v1/events/../users/${name}`, `/api/v1/events/%2e%2e/users/${name}`,
  `/api/v1/events/..;/users/${name}`, `/health/../api/v1/users/${name}`,
  `/events/..%2fapi/v1/users/${name}`, `/api/v1/users/%c0%ae%c0%ae/${name}`,
  `/api/v1/users/\u00ff${name}`, `/api/v1/users/${name}?x=/events`,
  `http://other.example/api/v1/users/${name}`, '*', `users/${name}`, '/..',
  '/../api/v1/users/me', `/api/v1/users/${'x/../'.repeat(200)}${name}`,
];

test('nobody gets it, however it is spelled', async () => {
  for (const target of SPELLINGS('me')) {
    const { status, text } = await ask(target);

    assert.ok([400, 401, 404, 405, 414].includes(status),
      `${target}: ${status}`);
    assert.ok(!text.includes(alice.email), target);
  }
});

test('what names the same path has its verdict, and no other is it',
  async () => {
    for (const target of SPELLINGS('me')) {
      const nobody = await ask(target);
      const somebody = await ask(target, { token: alice.token });

      /* the rule that asked for a token is the one that lets it in */
      assert.equal(somebody.status === 200, nobody.status === 401
        && !target.includes('?'), `${target}: ${nobody.status} and ${
        somebody.status}`);
    }
  });

test('an id in the path is one segment', async () => {
  for (const target of [`/api/v1/events/${id}%2e`, `/api/v1/events/${id}%00`,
    `/api/v1/events/${id}%20`, `/api/v1/events/{${id}}`,
    `/api/v1/events/${id}'`, `/api/v1/events/%27%20or%201=1--`,
    `/api/v1/events/${id}%0d%0aX-Injected:%201`,
    `/api/v1/events/${'9'.repeat(6000)}`]) {
    const { status, text } = await ask(target);

    assert.ok([400, 404, 414].includes(status), `${target}: ${status}`);
    assert.ok(!/^X-Injected/m.test(text));
  }
});

test('methods: none is a way around', async () => {
  for (const method of ['POST', 'PUT', 'DELETE', 'TRACE', 'CONNECT',
    'PROPFIND', 'get', 'Get', 'GET ', 'G\u0000T', 'X'.repeat(500)]) {
    const { status, text } = await ask('/api/v1/users/me', { method });

    assert.ok(status >= 400 || Number.isNaN(status), `${method}: ${status}`);
    assert.ok(!text.includes(alice.email));
  }
  const text = await app.raw('POST /api/v1/users/me HTTP/1.1\r\nHost: x\r\n' +
    'X-HTTP-Method-Override: GET\r\nX-Method-Override: PATCH\r\n' +
    `Authorization: Bearer ${alice.token}\r\n` +
    'Connection: close\r\nContent-Length: 0\r\n\r\n');

  assert.match(text, /^HTTP\/1\.1 405/);
});

test('the operator\'s locations are not reached through others', async () => {
  for (const target of ['/api/../metrics%2f', '/metrics/', '/metrics%2f',
    '/Metrics', '/api/v1/metrics', '/api/v1/../../metrics;x',
    '/events/../../etc/passwd', '/events/..%2f..%2fstoa.conf',
    '/kit/..%2f..%2f..%2fstoa.conf', '/kit/%2e%2e/%2e%2e/stoa.conf',
    '/kit/.git/config', '/.git/config', '/stoa.conf']) {
    const { status, body } = await ask(target);

    assert.ok([400, 403, 404, 405].includes(status), `${target}: ${status}`);
    assert.ok(!/stoa_requests|JWT_SECRET|root:/.test(body), target);
  }
});

test('the host the client names makes no link', async () => {
  const evil = 'evil.example';

  for (const target of ['/', '/api/v1/events', `/api/v1/events/${id}`,
    '/events', '/docs', '/api/v1/openapi.json', '/nowhere']) {
    const text = await app.raw(`GET ${target} HTTP/1.1\r\nHost: ${evil}\r\n` +
      `X-Forwarded-Host: ${evil}\r\nForwarded: host=${evil}\r\n` +
      `X-Forwarded-Proto: https\r\nX-Original-URL: /api/v1/users/me\r\n` +
      `X-Rewrite-URL: /api/v1/users/me\r\nConnection: close\r\n\r\n`);

    assert.ok(!text.includes(evil), target);
  }
});

/* ---- gates in front of other software ---- */

async function askH2(target) {
  let status, text = '';

  try {
    const stream = h2.request({ ':path': target, ':authority': 'x' });

    stream.on('response', (head) => { status = head[':status']; });
    for await (const chunk of stream) text += chunk;
  } catch {
    /* a stream that was reset: it is not served, either */
  }
  return { status, text };
}

/* All that some software makes of a path: it decodes once or twice, takes "\"
   for "/", leaves out parameters, resolves dots, or does none of these. */
function readings(target) {
  const decode = (p) => Buffer.from(p, 'latin1').toString('latin1')
    .replace(/%([0-9a-f]{2})/gi, (_, hex) =>
      String.fromCharCode(parseInt(hex, 16)));
  const ways = [
    (p) => p.replace(/\xc0\xae/g, '.').replace(/\xc0\xaf/g, '/'),
    (p) => p.replaceAll('\\', '/'),
    (p) => p.replace(/;[^/]*/g, ''),
    (p) => p.replace(/\/{2,}/g, '/'),
    (p) => new URL(`http://x${p.replace(/[?#].*/s, '')
      .replace(/%/g, '%25')}`).pathname.replace(/%25/g, '%'),
  ];
  let all = [target.replace(/\?.*/s, '')];

  all = [...all, ...all.map(decode), ...all.map(decode).map(decode)];
  for (const way of ways) all = [...all, ...all.map(way)];
  return new Set(all);
}

/* Of /legacy/admin, as seen from what is open. */
const AROUND = ['/legacy/public/../admin', '/legacy/public/..\\admin',
  '/legacy/public\\..\\admin', '/legacy/public/..;/admin',
  '/legacy/public/..;x=1/admin', '/legacy/public/.;/../admin',
  '/legacy/public/%2e%2e/admin', '/legacy/public/..%2fadmin',
  '/legacy/public/..%5cadmin', '/legacy/public%5c..%5cadmin',
  '/legacy/public/%2e%2e%3b/admin', '/legacy/public/..%3bx/admin',
  '/legacy/public/%252e%252e/admin', '/legacy/public/..%252fadmin',
  '/legacy/public/..%255cadmin', '/legacy/public/%252e%252e%252fadmin',
  '/legacy/public/..%253b/admin', '/legacy/public/%c0%ae%c0%ae/admin',
  '/legacy/public/..%c0%afadmin', '/legacy/public/x/..;/..;/admin',
  '/legacy/public//../admin', '/legacy/public/#/../../admin',
  '/legacy/public/./..\\admin', '/legacy/admin/../public/x',
  '/legacy/admin/%2e%2e/public/x', '/legacy/admin/..%2fpublic/x',
  '/legacy/admin/x/..//../public/x', '/legacy/admin\\..\\public/x',
  '/legacy//admin/../public/x', '/legacy/public;/../admin',
  '/legacy/public/..\\..\\legacy\\admin', '/free/..;/legacy/admin',
  '/free/..\\legacy/admin', '/free/%252e%252e/legacy/admin',
  '/free/%252e%252e%252flegacy/admin', '/legacy;x/admin', '/legacy\\admin',
  '/legacy%5cadmin', '/legacy%252fadmin', '/free/..%2flegacy/admin',
  '/free/.%2e/legacy/admin', '/free/%2e./legacy/admin'];

test('gates as they are shown: no spelling leads around them', async () => {
  const targets = [...AROUND, ...['admin', 'public'].flatMap((name) =>
    SPELLINGS(name).map((one) => one.replaceAll('api/v1/users', 'legacy')
      .replaceAll('api/v1', 'legacy').replaceAll('api%2fv1%2fusers', 'legacy')
      .replaceAll('Api/v1/Users', 'legacy')))];

  for (const target of targets) {
    for (const one of [ask, askH2]) {
      asked = undefined;

      const { status } = await one(target);

      assert.ok([undefined, 200, 301, 302, 400, 401, 404, 414].includes(status)
        || Number.isNaN(status), `${target}: ${status}`);
      if (asked === undefined) {
        assert.notEqual(status, 200, target);
        continue;
      }
      for (const way of readings(asked)) {
        assert.doesNotMatch(way, /^\/legacy(?!\/public(\/|$))/i,
          `${target} goes on as ${asked}`);
      }
    }
  }
});

test('what is refused is told why; what is usual goes on as it came',
  async () => {
    for (const base of ['/legacy/public', '/named', '/free']) {
      for (const rest of ['/a', '/', '/a%20b', '/%7Ba%7D%5B1%5D%22', '/a;b=1',
        '/a;jsessionid=0A1B', '/a%3Bb/c', '/%C3%A9', '/a+b%2Bc', '/...',
        '/.well-known/x', '/a.', '/..a/b', '/%25', '/100%25/x', '/a%3Fb%23c',
        '/a?b=../c&d=%2e%2e%2f;\\', '/a?', '/a%252Bb', '/~x/(a)/*']) {
        asked = undefined;
        assert.equal((await ask(base + rest)).status, 200, base + rest);
        assert.equal(asked, base + rest);
      }
      /* as it was judged */
      for (const [rest, judged] of [['//a', '/a'], ['/a%2Fb', '/a/b'],
        ['/a//b?c=//', '/a/b?c=//'], ['/http%3A%2F%2Fx', '/http:/x'],
        ['/a%2Fb%3Bc?d', '/a/b;c?d'], ['/a#b', '/a']]) {
        assert.equal((await ask(base + rest)).status, 200, base + rest);
        assert.equal(asked, base + judged);
      }
      for (const rest of ['/../x', '/./x', '/a\\b', '/..;/x', '/a;b/c',
        '/%2e%2e/x', '/%252e%252e/x', '/%255cx', '/a%252fb', '/.']) {
        const { status, text } = await ask(base + rest);

        assert.equal(status, 400, base + rest);
        assert.match(text, /"code":"PATH_AMBIGUOUS"/);
      }
    }
  });
