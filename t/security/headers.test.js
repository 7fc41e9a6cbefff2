/*
 * The headers that guard browsers are on every kind of answer: rows, 204 and
 * 304, refusals, files, redirects, and the errors that nginx makes itself
 * before it knows what was asked for; once each, and nothing that tells
 * versions.
 */

import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';
import { TRANSPORT } from '../harness/transport.js';

let app, backend, olga, event;

before(async () => {
  backend = http.createServer((req, res) => {
    res.setHeader('X-Frame-Options', 'SAMEORIGIN');
    res.setHeader('Content-Security-Policy', "default-src https:");
    res.end('own');
  });
  await new Promise((done) => { backend.listen(0, '127.0.0.1', done); });
  app = await boot({ workers: 0,
    nginx: { server: `
      location /own/ {
          proxy_pass http://127.0.0.1:${backend.address().port};
      }
      location /moved/ {
          return 410;
      }
      location /gone/ {
          proxy_pass http://unix:/no/such/socket:/;
      }` } });
  olga = await app.user('organizer');
  event = await app.event(olga, { types: [{ quota: 5 }] });
});
after(async () => {
  await app?.stop();
  backend?.close();
});

const API = {
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
};
const OTHER = {
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'content-security-policy': "default-src 'self'; img-src 'self' data: blob:;" +
    " object-src 'none'; base-uri 'none'; form-action 'self';" +
    " frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'cross-origin-opener-policy': 'same-origin',
  'x-frame-options': 'DENY',
  'x-permitted-cross-domain-policies': 'none',
  'origin-agent-cluster': '?1',
};

function guarded(headers, wanted, what) {
  for (const [name, value] of Object.entries(wanted)) {
    assert.equal(headers[name], value, `${what}: ${name}`);
  }
  assert.doesNotMatch(headers.server ?? '', /\d/, what);
  assert.equal(headers['x-powered-by'], undefined, what);
  assert.equal(headers['strict-transport-security'],
    TRANSPORT === 'h1' ? undefined : 'max-age=31536000', what);
}

test('answers of rows: 200, 201, 204, 304, and each refusal', async () => {
  const one = await app.api('GET', `/api/v1/events/${event.id}`);
  const json = { 'Content-Type': 'application/json' };
  const cases = [
    [200, one],
    [200, await app.api('HEAD', `/api/v1/events/${event.id}`)],
    [304, await app.api('GET', `/api/v1/events/${event.id}`,
      { headers: { 'If-None-Match': one.headers.etag } })],
    [204, await app.api('OPTIONS', '/api/v1/events', { validate: false })],
    [200, await app.api('GET', '/api/v1/openapi.json')],
    [200, await app.api('GET', '/api/v1/manual.json')],
    [200, await app.api('GET', '/.well-known/jwks.json')],
    [400, await app.api('POST', '/api/v1/events', { token: olga.token,
      body: {} })],
    [400, await app.api('POST', '/api/v1/events', { token: olga.token,
      body: '{', headers: json, validate: false })],
    [401, await app.api('GET', '/api/v1/users/me')],
    [401, await app.api('GET', '/api/v1/users/me', { token: 'x.y.z' })],
    [403, await app.api('GET', '/api/v1/admin/audit',
      { token: olga.token })],
    [404, await app.api('GET', '/api/v1/nothing', { validate: false })],
    [405, await app.api('DELETE', '/api/v1/events', { validate: false })],
    [413, await app.api('POST', '/api/v1/auth/login', { validate: false,
      body: 'x'.repeat(1100000), headers: json })],
    [415, await app.api('POST', '/api/v1/auth/login', { validate: false,
      body: 'x', headers: { 'Content-Type': 'text/plain' } })],
  ];

  for (const [status, res] of cases) {
    assert.equal(res.status, status, res.text);
    guarded(res.headers, API, `${status} ${res.text?.slice(0, 80)}`);
  }
});

test('a row with a policy of its own keeps it, with the others', async () => {
  const [ticket] = await app.freeTickets(olga, event.types[0].id, 1);
  const res = await app.api('GET', `/api/v1/tickets/${ticket.id}.svg`,
    { token: olga.token, validate: false });

  assert.equal(res.status, 200, res.text);
  guarded(res.headers, { ...API, 'content-security-policy':
    "default-src 'none'; style-src 'unsafe-inline'; sandbox" }, 'svg');
});

test('files, redirects, and what is no file', async () => {
  const page = await app.api('GET', '/events/', { validate: false });
  const cases = [
    [200, page],
    [304, await app.api('GET', '/events/', { validate: false,
      headers: { 'If-None-Match': page.headers.etag } })],
    [206, await app.api('GET', '/events/', { validate: false,
      headers: { Range: 'bytes=0-9' } })],
    [416, await app.api('GET', '/events/', { validate: false,
      headers: { Range: 'bytes=999999-' } })],
    [410, await app.api('GET', '/moved/', { validate: false })],
    [302, await app.api('GET', '/', { validate: false })],
    [301, await app.api('GET', '/events', { validate: false })],
    [404, await app.api('GET', '/no/such/file', { validate: false })],
    [405, await app.api('POST', '/events/', { validate: false, body: {} })],
    [200, await app.api('GET', '/health/live', { validate: false })],
    [200, await app.api('GET', '/metrics', { validate: false })],
    [502, await app.api('GET', '/gone/', { validate: false })],
  ];

  for (const [status, res] of cases) {
    assert.equal(res.status, status, res.text);
    guarded(res.headers, OTHER, `${status} ${res.text?.slice(0, 80)}`);
  }
});

test('a range that is not there is told so, in the envelope', async () => {
  const res = await app.api('GET', '/events/', { validate: false,
    headers: { Range: 'bytes=999999-' } });

  assert.equal(res.error.code, 'RANGE_NOT_SATISFIABLE');
  assert.match(res.headers['content-range'], /^bytes \*\/\d+$/);
});

test('what is behind a location says itself stays, alone', async () => {
  const { headers } = await app.api('GET', '/own/', { validate: false });

  guarded(headers, { ...OTHER, 'x-frame-options': 'SAMEORIGIN',
    'content-security-policy': 'default-src https:' }, 'own');
});

/* Heads of all answers, by raw socket. */
const heads = (text) => text.split(/(?=HTTP\/1\.1 \d{3})/)
  .filter((one) => one.startsWith('HTTP/1.1'))
  .map((one) => ({
    status: Number(one.slice(9, 12)), body: one.split('\r\n\r\n')[1],
    headers: Object.fromEntries([...one.split('\r\n\r\n')[0]
      .matchAll(/^([\w-]+): (.*)$/gm)].map((m) => [m[1].toLowerCase(),
      m[2].trim()])),
  }));

test('errors that nginx makes before there is a location', async () => {
  const cases = [
    [400, 'BAD_REQUEST', 'GET /api/v1/events HTTP/1.1\r\n\r\n'],
    [400, 'BAD_REQUEST', 'GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n'],
    [400, 'BAD_REQUEST', 'GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n'],
    [400, 'BAD_REQUEST', 'POST /api/v1/events HTTP/1.1\r\nHost: x\r\n' +
      'Content-Length: a\r\n\r\n'],
    [405, 'METHOD_NOT_ALLOWED', 'TRACE /api/v1/events HTTP/1.1\r\nHost: x\r\n' +
      'Connection: close\r\n\r\n'],
    [413, 'PAYLOAD_TOO_LARGE', 'POST /api/v1/auth/login HTTP/1.1\r\n' +
      'Host: x\r\nConnection: close\r\nContent-Type: application/json\r\n' +
      'Content-Length: 99999999999\r\n\r\n'],
    [414, 'URI_TOO_LONG', `GET /${'a'.repeat(60000)} HTTP/1.1\r\nHost: x\r\n` +
      '\r\n'],
    [431, 'HEADERS_TOO_LARGE', 'GET /api/v1/events HTTP/1.1\r\nHost: x\r\n' +
      `X-Big: ${'b'.repeat(60000)}\r\n\r\n`],
    [431, 'HEADERS_TOO_LARGE', 'GET /api/v1/events HTTP/1.1\r\nHost: x\r\n' +
      `${`X-Many: ${'c'.repeat(200)}\r\n`.repeat(400)}\r\n`],
    [501, 'NOT_IMPLEMENTED', 'POST /api/v1/events HTTP/1.1\r\nHost: x\r\n' +
      'Transfer-Encoding: gzip\r\nConnection: close\r\n\r\n'],
    [505, 'HTTP_VERSION_NOT_SUPPORTED', 'GET / HTTP/3.0\r\nHost: x\r\n\r\n'],
  ];

  for (const [status, code, bytes] of cases) {
    const [res] = heads(await app.raw(bytes));

    assert.equal(res?.status, status, bytes.slice(0, 60));
    assert.equal(JSON.parse(res.body).error.code, code);
    assert.equal(res.headers['x-content-type-options'], 'nosniff', code);
    assert.equal(res.headers['referrer-policy'], 'no-referrer', code);
    assert.match(res.headers['content-security-policy'],
      /frame-ancestors 'none'/, code);
    assert.doesNotMatch(res.headers.server ?? '', /\d/);
  }
});
