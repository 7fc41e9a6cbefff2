/*
 * What every row gets from the pipeline, seen from outside: the order of
 * verdicts (decision 2), one envelope for every error whoever makes it, HEAD,
 * OPTIONS and 405 from the route, conditional requests, both spellings.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';

let app, alice, olga, event;

before(async () => {
  app = await boot({ workers: 0 });
  alice = await app.user();
  olga = await app.user('organizer');
  event = await app.event(olga, { types: [{ priceCents: 0, quota: 50 }] });
});
after(() => app?.stop());

const NOWHERE = '/api/v1/no-such-thing';
const BAD = 'Bearer not.a.token';

function refused(res, status, code) {
  assert.equal(res.status, status, res.text);
  assert.equal(res.error.code, code);
  assert.equal(res.error.status, status);
  assert.match(res.error.request_id, /^[0-9a-f-]{36}$/);
  assert.equal(res.headers['x-request-id'], res.error.request_id);
}

/* ---- decision 2 ---- */

test('404 comes before the token, 405 before the token', async () => {
  refused(await app.api('GET', NOWHERE, { headers: { Authorization: BAD } }),
    404, 'NOT_FOUND');
  refused(await app.api('DELETE', '/api/v1/events',
    { headers: { Authorization: BAD }, validate: false }),
  405, 'METHOD_NOT_ALLOWED');
});

test('401 comes before 403, 413, 415 and 400; on public rows too', async () => {
  refused(await app.api('POST', '/api/v1/events',
    { body: 'x', headers: { 'Content-Type': 'text/plain' } }),
  401, 'UNAUTHENTICATED');
  refused(await app.api('GET', '/api/v1/events',
    { headers: { Authorization: BAD } }), 401, 'UNAUTHENTICATED');
});

test('401 names its scheme, and the error only with a token', async () => {
  const without = await app.api('GET', '/api/v1/users/me');
  const bad = await app.api('GET', '/api/v1/users/me',
    { headers: { Authorization: BAD } });

  assert.equal(without.headers['www-authenticate'], 'Bearer');
  assert.equal(bad.headers['www-authenticate'],
    'Bearer error="invalid_token"');
});

test('403 comes before 413, 415 and 400', async () => {
  refused(await app.api('POST', '/api/v1/events', {
    token: alice.token, body: 'x'.repeat(200000),
    headers: { 'Content-Type': 'text/plain' },
  }), 403, 'FORBIDDEN');
});

test('413 and 415 come before 400', async () => {
  refused(await app.api('POST', '/api/v1/events', {
    token: olga.token, body: JSON.stringify({ title: 'x'.repeat(200000) }),
  }), 413, 'PAYLOAD_TOO_LARGE');
  refused(await app.api('POST', '/api/v1/events', {
    token: olga.token, body: '{}', headers: { 'Content-Type': 'text/plain' },
  }), 415, 'UNSUPPORTED_MEDIA_TYPE');
});

test('a chunked body that grows too large is 413 as well', async () => {
  const big = JSON.stringify({ title: 'x'.repeat(70000) });
  const text = await app.raw(
    'POST /api/v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n' +
    `Authorization: Bearer ${olga.token}\r\n` +
    'Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n' +
    `${big.length.toString(16)}\r\n${big}\r\n0\r\n\r\n`);

  assert.match(text, /^HTTP\/1.1 413 /);
  assert.match(text, /"code":"PAYLOAD_TOO_LARGE"/);
});

test('400 comes before 412, 404 too', async () => {
  const path = `/api/v1/events/${event.id}`;
  const none = '00000000-0000-7000-8000-000000000000';
  const old = { 'If-Match': '"999999"' };

  refused(await app.api('PATCH', path,
    { token: olga.token, body: { title: '' }, headers: old }),
  400, 'VALIDATION_FAILED');
  refused(await app.api('PATCH', `/api/v1/events/${none}`,
    { token: olga.token, body: { title: 'x' }, headers: old }),
  404, 'NOT_FOUND');
  refused(await app.api('PATCH', path,
    { token: olga.token, body: { title: 'x' }, headers: old }),
  412, 'PRECONDITION_FAILED');
});

test('400 comes before the Idempotency-Key is looked at', async () => {
  const key = { 'Idempotency-Key': 'order-of-verdicts' };
  const type = event.types[0].id;

  assert.equal((await app.order(alice, type, 1, { headers: key })).status, 201);
  refused(await app.api('POST', '/api/v1/orders',
    { token: alice.token, headers: key, body: { items: [] } }),
  400, 'VALIDATION_FAILED');
  refused(await app.order(alice, type, 2, { headers: key }),
    422, 'IDEMPOTENCY_KEY_REUSED');
});

/* ---- faults ---- */

test('all faults at once, each with its pointer', async () => {
  const res = await app.api('POST', '/api/v1/events', {
    token: olga.token,
    body: { title: '', startsAt: 'tomorrow', capacity: -1, colour: 'red' },
  });
  const pointers = res.error.errors.map((e) => e.pointer).sort();

  refused(res, 400, 'VALIDATION_FAILED');
  for (const p of ['/capacity', '/colour', '/startsAt', '/title']) {
    assert.ok(pointers.includes(p), `${p} of ${pointers}`);
  }
  for (const e of res.error.errors) {
    assert.ok(e.code && e.detail);
    assert.ok(!e.detail.includes('tomorrow'), 'input is not echoed');
  }
});

test('both spellings of a member are the same member', async () => {
  const body = {
    title: 'Two spellings', starts_at: '2031-01-02T10:00:00Z',
    endsAt: '2031-01-02T12:00:00+00:00', timezone: 'Europe/Prague',
  };
  const res = await app.api('POST', '/api/v1/events',
    { token: olga.token, body });

  assert.equal(res.status, 201, res.text);
  assert.equal(res.data.startsAt, '2031-01-02T10:00:00.000Z');

  const both = await app.api('POST', '/api/v1/events',
    { token: olga.token, body: { ...body, startsAt: body.starts_at } });

  refused(both, 400, 'VALIDATION_FAILED');
  assert.ok(both.error.errors.some((e) => e.code === 'duplicate'),
    JSON.stringify(both.error.errors));
});

test('what is not JSON is 400, whatever is wrong with it', async () => {
  for (const body of ['{', '{"a":1}x', '{"title":"a","title":"b"}',
    '[]', '"x"', '{"title":"\\u0000"}', `${'['.repeat(40)}${']'.repeat(40)}`,
    Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])]) {
    refused(await app.api('POST', '/api/v1/events',
      { token: olga.token, body }), 400, 'VALIDATION_FAILED');
  }
});

test('an unknown query parameter is 400, an unknown path id too', async () => {
  refused(await app.api('GET', '/api/v1/events?colour=red'),
    400, 'VALIDATION_FAILED');
  refused(await app.api('GET', '/api/v1/events/42'),
    400, 'VALIDATION_FAILED');
});

/* ---- the envelope, whoever makes the error ---- */

function problemOf(text) {
  const [head, body] = text.split('\r\n\r\n');
  const status = Number(head.slice(9, 12));

  assert.match(head, /content-type: application\/json/i, head);
  return { status, body: JSON.parse(body), head };
}

function rawProblem(text, status, code) {
  const got = problemOf(text);

  assert.equal(got.status, status, text);
  assert.equal(got.body.error.code, code);
  assert.equal(got.body.error.status, status);
  assert.equal(got.body.success, false);
  assert.ok(!/nginx\/\d/.test(text), 'no version');
}

test("nginx's own refusals look the same", async () => {
  rawProblem(await app.raw('GET / HTTP/1.1\r\nHost: a b\r\n\r\n'),
    400, 'BAD_REQUEST');
  rawProblem(await app.raw('BREW / HTCPCP/9\r\n\r\n'), 400, 'BAD_REQUEST');
  rawProblem(await app.raw(
    `GET /${'x'.repeat(40000)} HTTP/1.1\r\nHost: x\r\n\r\n`),
  414, 'URI_TOO_LONG');
  rawProblem(await app.raw('GET /api/v1/events HTTP/1.1\r\nHost: x\r\n' +
    `X-Big: ${'x'.repeat(40000)}\r\n\r\n`), 431, 'HEADERS_TOO_LARGE');
  rawProblem(await app.raw(
    'POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\n' +
    'Content-Length: 99999999999\r\n\r\n'), 413, 'PAYLOAD_TOO_LARGE');
  rawProblem(await app.raw(
    'POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nConnection: close\r\n' +
    'Content-Type: application/json\r\n' +
    'Transfer-Encoding: chunked\r\n\r\nzz\r\n'), 400, 'BAD_REQUEST');
  rawProblem(await app.raw(
    'POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\n' +
    'Transfer-Encoding: gzip\r\n\r\n'), 501, 'NOT_IMPLEMENTED');
});

test('a client that asks for the problem gets it bare', async () => {
  const res = await app.api('GET', NOWHERE, {
    headers: { Accept: 'application/problem+json' }, validate: false,
  }).catch((error) => error.res ?? Promise.reject(error));

  assert.equal(res.headers['content-type'], 'application/problem+json');
  assert.equal(res.body.code, 'NOT_FOUND');
  assert.equal(res.body.type, '/api/v1/errors#NOT_FOUND');
});

test('406 when nothing is acceptable', async () => {
  refused(await app.api('GET', '/api/v1/events',
    { headers: { Accept: 'text/html' } }), 406, 'NOT_ACCEPTABLE');
  for (const accept of ['*/*', 'application/*', 'text/html, */*;q=0.1',
    'application/json;q=0.5']) {
    const res = await app.api('GET', '/api/v1/events',
      { headers: { Accept: accept } });

    assert.equal(res.status, 200, accept);
  }
});

/* ---- methods, of every path there is ---- */

test('HEAD, OPTIONS and 405 of every path', async () => {
  const doc = (await app.api('GET', '/api/v1/openapi.json')).body;
  const none = '00000000-0000-7000-8000-000000000000';
  let paths = 0;

  for (const [template, item] of Object.entries(doc.paths)) {
    if (!template.startsWith('/api/')) continue; /* shares it with a page */
    const path = template.replace(/\{[^}]+\}/g, none);
    const has = new Set(Object.keys(item).map((m) => m.toUpperCase()));
    const wanted = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']
      .filter((m) => has.has(m))
      .flatMap((m) => m === 'GET' ? ['GET', 'HEAD'] : [m])
      .concat('OPTIONS').join(', ');
    const options = await app.api('OPTIONS', path);

    assert.equal(options.status, 204, `${path}: ${options.text}`);
    assert.equal(options.headers.allow, wanted, path);
    assert.equal(options.raw.length, 0);

    for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']) {
      if (has.has(method)) continue;
      const res = await app.api(method, path,
        { token: olga.token, validate: false });

      refused(res, 405, 'METHOD_NOT_ALLOWED');
      assert.equal(res.headers.allow, wanted, `${method} ${path}`);
    }
    if (has.has('GET')) {
      const head = await app.api('HEAD', path, { token: alice.token });

      assert.notEqual(head.status, 405, path);
      assert.equal(head.raw.length, 0, path);
    }
    paths++;
  }
  assert.ok(paths > 20, `${paths} paths`);
});

test('HEAD has the headers of GET and no body', async () => {
  const path = `/api/v1/events/${event.id}`;
  const get = await app.api('GET', path);
  const head = await app.api('HEAD', path);

  assert.equal(head.status, 200);
  assert.equal(head.raw.length, 0);
  assert.equal(head.headers.etag, get.headers.etag);
  assert.equal(head.headers['content-length'], get.headers['content-length']);
});

test('a method nobody knows is 405 with Allow', async () => {
  const text = await app.raw(
    'PROPFIND /api/v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');

  rawProblem(text, 405, 'METHOD_NOT_ALLOWED');
  assert.match(text, /\r\nAllow: GET, HEAD, POST, OPTIONS\r\n/);
});

/* ---- conditional requests ---- */

test('If-None-Match: 304 without a body, also weak and in a list', async () => {
  const path = `/api/v1/events/${event.id}`;
  const { etag } = (await app.api('GET', path)).headers;

  assert.match(etag, /^"[^"]+"$/);
  for (const value of [etag, `W/${etag}`, `"other", ${etag}`, '*']) {
    const res = await app.api('GET', path,
      { headers: { 'If-None-Match': value } });

    assert.equal(res.status, 304, value);
    assert.equal(res.raw.length, 0);
    assert.equal(res.headers.etag, etag);
  }
  for (const value of ['"other"', etag.slice(1, -1), `"${etag}"`]) {
    const res = await app.api('GET', path,
      { headers: { 'If-None-Match': value } });

    assert.equal(res.status, 200, value);
  }
});

test('If-Match: 412 with another version, 200 once', async () => {
  const path = `/api/v1/events/${event.id}`;
  const { etag } = (await app.api('GET', path)).headers;
  const patch = (title, headers) => app.api('PATCH', path,
    { token: olga.token, body: { title }, headers });

  refused(await patch('a', { 'If-Match': '"999999"' }),
    412, 'PRECONDITION_FAILED');
  refused(await patch('a', { 'If-Match': 'W/"999999"' }),
    412, 'PRECONDITION_FAILED');
  refused(await patch('a', { 'If-Match': '"x"' }),
    412, 'PRECONDITION_FAILED');

  const done = await patch('Renamed', { 'If-Match': etag });

  assert.equal(done.status, 200, done.text);
  assert.equal(done.data.title, 'Renamed');
  assert.notEqual(done.headers.etag, etag);
  refused(await patch('Again', { 'If-Match': etag }),
    412, 'PRECONDITION_FAILED');
  assert.equal((await patch('Star', { 'If-Match': '*' })).status, 200);
});

test('of many writers with one version exactly one wins', async () => {
  const path = `/api/v1/events/${event.id}`;
  const { etag } = (await app.api('GET', path)).headers;
  const all = await app.barrier(16, (i) => ({
    method: 'PATCH', path, token: olga.token, body: { title: `Writer ${i}` },
    headers: { 'If-Match': etag },
  }));
  const by = (status) => all.filter((res) => res.status === status).length;

  assert.equal(by(200), 1, all.map((res) => res.status).join());
  assert.equal(by(412) + by(409), 15);
});

/* ---- headers ---- */

test('private answers are not stored', async () => {
  const res = await app.api('GET', '/api/v1/users/me', { token: alice.token });

  assert.equal(res.headers['cache-control'], 'no-store');
});

test('the connection goes on after an error', async () => {
  const text = await app.raw(
    'POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\n' +
    'Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}' +
    'GET /api/v1/errors HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');

  assert.match(text, /^HTTP\/1.1 400 /);
  assert.match(text, /HTTP\/1.1 200 OK/);
});
