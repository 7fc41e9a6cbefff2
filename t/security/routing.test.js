/*
 * Other spellings of a protected path: whatever nginx and the rows make of
 * them, none of them is answered to nobody, and those that name the same
 * path get the same verdict.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';

let app, alice, id;

before(async () => {
  app = await boot({ workers: 0 });
  alice = await app.user();
  const olga = await app.user('organizer');

  id = (await app.event(olga)).id;
});
after(() => app?.stop());

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
