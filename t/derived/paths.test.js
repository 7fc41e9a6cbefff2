/*
 * I-50: the paths that the earlier applications used, as they stand in their
 * requirements, under each prefix: never a 404 of the router, the same answer
 * as the canonical path, and the envelope on every answer there is, whoever
 * makes it (nginx too).
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import net from 'node:net';
import { after, before, test } from 'node:test';
import { must } from '../harness/fixtures.js';
import { boot, SECRETS } from '../harness/index.js';
import { checkEnvelope } from '../harness/validate.js';
import { NONE, fill, mint, request, rows } from './rows.js';

const PREFIXES = ['/api/v1', '/api', '/v1'];

let app, olga, alice, event, deaf;

before(async () => {
  deaf = net.createServer((socket) => socket.on('data', (data) => {
    if (!String(data).includes('/own')) return;
    socket.end('HTTP/1.0 404 Not Found\r\nContent-Length: 3\r\n\r\nown');
  })).listen(0, '127.0.0.1');
  await new Promise((done) => deaf.once('listening', done));
  app = await boot({
    workers: 1, nginxWorkers: 1,
    nginx: {
      server: `client_body_timeout 1s;
        location /gone/ { proxy_pass http://127.0.0.1:1; }
        location /deaf/ { proxy_read_timeout 1s;
          proxy_pass http://127.0.0.1:${deaf.address().port}; }`,
    },
  });
  olga = await app.user('organizer');
  alice = await app.user();
  event = await app.event(olga,
    { types: [{ priceCents: 0, quota: 1000, maxPerOrder: 10 }] });
});
after(async () => {
  deaf?.close();
  await app?.stop();
});

/* ---- the envelope, on any path ---- */

function enveloped(res) {
  const { method } = res.request;

  checkEnvelope({ ...res, request: { method, path: '/api/v1/any' } });
  return res;
}

const ask = async (method, path, spec = {}) =>
  enveloped(await app.api(method, path, { ...spec, validate: false }));

/* What two answers to the same question have in common: the members, and
   all values but those that differ by nature. */
const OWN =
  /^(id|.*Id|.*At|timestamp|request_id|email|code|version|.*[tT]oken|.*Url)$/;

function shape(value, name = '') {
  if (Array.isArray(value)) return value.slice(0, 1).map((v) => shape(v));
  if (value && typeof value === 'object') {
    return Object.fromEntries(Object.entries(value)
      .map(([key, inner]) => [key, shape(inner, key)]));
  }
  return OWN.test(name) ? value === null ? null : typeof value : value;
}

/* ---- the paths, verbatim, each with a question that it answers ---- */

const json = (body) => ({ body });
const person = () => ({
  email: `p-${crypto.randomBytes(6).toString('hex')}@test.example`,
  password: 'correct horse battery', firstName: 'A', lastName: 'B',
});
const session = async (user = alice) => must(await app.api('POST',
  '/api/v1/auth/login', { body: { email: user.email,
    password: user.password } }), 200).data;

function webhook() {
  const body = JSON.stringify({
    id: `evt_test_stoa_${crypto.randomUUID()}`, type: 'i50.nothing',
    created: 1, data: { object: {} },
  });
  const t = Math.floor(Date.now() / 1000);
  const v1 = crypto.createHmac('sha256', SECRETS.TEST_WEBHOOK_SECRET)
    .update(`${t}.${body}`).digest('hex');

  return { body, headers: { 'Stripe-Signature': `t=${t},v1=${v1}`,
    'Content-Type': 'application/json' } };
}

const start = Date.now() + 40 * 86400000;

const VERBATIM = {
  'B-5 A-17 register': ['POST', '/auth/register', () => json(person())],
  'B-5 A-17 login': ['POST', '/auth/login', () =>
    json({ email: alice.email, password: alice.password })],
  'B-5 B-63 A-17 refresh': ['POST', '/auth/refresh', async () =>
    json({ refreshToken: (await session()).refreshToken })],
  'B-5 B-64 A-17 logout': ['POST', '/auth/logout', async () =>
    ({ token: (await session()).accessToken })],
  'B-66 forgot-password': ['POST', '/auth/forgot-password', () =>
    json({ email: alice.email })],
  'B-67 reset-password, consumed': ['POST', '/auth/reset-password', () =>
    json({ token: 'A'.repeat(43), newPassword: 'another long one' })],
  'A-17 reset-password, sent': ['POST', '/auth/reset-password', () =>
    json({ email: alice.email })],
  'B-62 A-18 me': ['GET', '/users/me', () => ({ token: alice.token })],
  'A-18 change me': ['PUT', '/users/me', () =>
    ({ token: alice.token, body: { lastName: 'Changed' } })],
  'A-18 profile': ['GET', '/users/:id', () => ({})],
  'T-9 order': ['POST', '/orders', () => ({ token: alice.token,
    body: { items: [{ ticketTypeId: event.types[0].id, quantity: 1 }] } })],
  'T-11 validate': ['POST', '/orders/validate', async () => {
    const [{ code }] = await app.freeTickets(alice, event.types[0].id);

    return { token: olga.token, body: { code, eventId: event.id } };
  }],
  'A-21 events': ['GET', '/events', () => ({})],
  'A-21 new event': ['POST', '/events', () => ({ token: olga.token, body: {
    title: 'I-50', timezone: 'UTC',
    startsAt: new Date(start).toISOString(),
    endsAt: new Date(start + 3600000).toISOString() } })],
  'A-21 one event': ['GET', '/events/:id', () => ({})],
  'A-21 register': ['POST', '/events/:id/register', async () =>
    ({ token: (await app.user()).token })],
  'A-21 registrations': ['GET', '/events/:id/registrations', () =>
    ({ token: olga.token })],
  'A-23 webhook': ['POST', '/checkout/webhook', webhook,
    '/webhooks/stripe'],
};

for (const [what, [method, path, question, canonical]] of
  Object.entries(VERBATIM)) {
  test(`I-50: ${what}`, async () => {
    const ids = { id: path.startsWith('/users/') ? olga.id : event.id };
    const first = await ask(method,
      fill(`/api/v1${canonical ?? path}`, ids), await question());

    assert.ok(first.status < 300 || /consumed/.test(what),
      `${first.status} ${first.text}`);
    for (const prefix of PREFIXES) {
      const url = fill(prefix + path, ids);
      const res = await ask(method, url, await question());

      assert.equal(res.status, first.status, `${url}: ${res.text}`);
      assert.deepEqual(shape(res.data), /registrations|events$/.test(path)
        ? shape(res.data) : shape(first.data), url);
      assert.equal(Array.isArray(res.data), Array.isArray(first.data), url);
      assert.equal(res.error?.code, first.error?.code, url);
      if (url !== fill(`/api/v1${canonical ?? path}`, ids)) {
        assert.equal(res.headers.link,
          `<${fill(`/api/v1${canonical ?? path}`, ids)}>; rel="canonical"`,
          url);
      }
      /* and what the question gets wrong is told the same way */
      const bad = await ask(method, url, { body: '{', headers: {
        'Content-Type': 'application/json' } });
      const same = await ask(method,
        fill(`/api/v1${canonical ?? path}`, ids), { body: '{', headers: {
          'Content-Type': 'application/json' } });

      assert.equal(bad.status, same.status, url);
      assert.equal(bad.error?.code, same.error?.code, url);
    }
  });
}

test('I-50: every row below /api/v1 has the older prefixes', async () => {
  for (const row of rows.filter((r) => r.path.startsWith('/api/v1/'))) {
    const rest = row.path.slice('/api/v1'.length);

    for (const prefix of PREFIXES.slice(1)) {
      assert.ok(row.aliases.includes(prefix + rest), `${prefix}${rest}`);
    }
    for (const alias of [row.path, ...row.aliases]) {
      const spec = request(row, { path: alias });
      const head = { ...spec.headers, Accept: 'application/json' };
      const nobody = await app.api(spec.method, spec.path,
        { ...spec, headers: head, validate: false });

      if (nobody.status >= 400) enveloped(nobody);
      assert.notEqual(nobody.status, 405, alias);
      if (nobody.status === 404) {
        assert.ok(row.public && row.params.length, `${alias}: a routing 404`);
      }
    }
  }
});

test('I-50: each kind of refusal is enveloped, on every prefix', async () => {
  const big = JSON.stringify({ title: 'x'.repeat(200000) });

  for (const prefix of PREFIXES) {
    const url = `${prefix}/events`;
    const of = olga.token;
    const all = {
      400: ['POST', url, { token: of, body: '{' }],
      401: ['POST', url, {}],
      403: ['POST', url, { token: alice.token, body: {} }],
      404: ['GET', `${prefix}/nothing/at/all`, {}],
      405: ['DELETE', url, {}],
      406: ['GET', url, { headers: { Accept: 'text/html' } }],
      409: ['POST', `${prefix}/auth/register`, { body:
        { ...person(), email: alice.email } }],
      412: ['PUT', `${prefix}/events/${event.id}`,
        { token: of, body: { title: 'x' }, headers: { 'If-Match': '"9999"' } }],
      413: ['POST', url, { token: of, body: big }],
      415: ['POST', url, { token: of, body: 'x', headers:
        { 'Content-Type': 'text/plain' } }],
    };

    for (const [status, [method, path, spec]] of Object.entries(all)) {
      const res = await ask(method, path, spec);

      assert.equal(res.status, Number(status), `${method} ${path}: ${res.text}`);
    }

    const key = { 'Idempotency-Key': crypto.randomUUID() };
    const order = (quantity) => ask('POST', `${prefix}/orders`, {
      token: alice.token, headers: key,
      body: { items: [{ ticketTypeId: event.types[0].id, quantity }] } });

    assert.equal((await order(1)).status, 201);
    assert.equal((await order(2)).status, 422);
  }
});

/* ---- what nginx answers by itself ---- */

/* One response as it came: {status, headers, body}. */
function parse(text) {
  const [head, ...rest] = text.split('\r\n\r\n');
  const [line, ...fields] = head.split('\r\n');
  const headers = Object.fromEntries(fields.map((f) => {
    const at = f.indexOf(':');

    return [f.slice(0, at).toLowerCase(), f.slice(at + 1).trim()];
  }));
  const raw = Buffer.from(rest.join('\r\n\r\n'), 'latin1');

  assert.match(String(raw), /^\{.*\}$/s, 'no envelope');

  return { status: Number(line.split(' ')[1]), headers, raw,
    text: raw.toString(), body: JSON.parse(raw),
    request: { method: 'RAW', path: line } };
}

const HOST = 'Host: x\r\nConnection: close\r\n';
const MADE = {
  'no request line': [400, 'BAD_REQUEST', 'nonsense\r\n\r\n'],
  'a wrong version': [505, 'HTTP_VERSION_NOT_SUPPORTED',
    'GET /api/v1/events HTTP/3.7\r\n\r\n'],
  'no host': [400, 'BAD_REQUEST', 'GET /api/v1/events HTTP/1.1\r\n\r\n'],
  'two lengths': [400, 'BAD_REQUEST', 'POST /api/v1/auth/login HTTP/1.1\r\n' +
    `${HOST}Content-Length: 1\r\nContent-Length: 2\r\n\r\n`],
  'a broken escape': [400, 'BAD_REQUEST',
    `GET /api/v1/%zz HTTP/1.1\r\n${HOST}\r\n`],
  'above the root': [400, 'BAD_REQUEST',
    `GET /../../etc/passwd HTTP/1.1\r\n${HOST}\r\n`],
  'a long address': [414, 'URI_TOO_LONG',
    `GET /api/v1/${'x'.repeat(40000)} HTTP/1.1\r\n${HOST}\r\n`],
  'a long header': [431, 'HEADERS_TOO_LARGE', 'GET /api/v1/events HTTP/1.1\r\n'
    + `${HOST}X-Big: ${'x'.repeat(40000)}\r\n\r\n`],
  'a large body': [413, 'PAYLOAD_TOO_LARGE',
    'POST /api/v1/auth/login HTTP/1.1\r\n' +
    `${HOST}Content-Length: 99999999999\r\n\r\n`],
  'an unknown coding': [501, 'NOT_IMPLEMENTED',
    'POST /api/v1/auth/login HTTP/1.1\r\n' +
    `${HOST}Transfer-Encoding: gzip\r\n\r\n`],
  'an unknown method': [405, 'METHOD_NOT_ALLOWED',
    `BREW /api/v1/events HTTP/1.1\r\n${HOST}\r\n`],
  'nothing there': [404, 'NOT_FOUND', `GET /api/nothing HTTP/1.1\r\n${HOST}\r\n`],
  'a backend that is away': [502, 'BAD_GATEWAY',
    `GET /gone/x HTTP/1.1\r\n${HOST}\r\n`],
  'a backend that is silent': [504, 'TIMEOUT',
    `GET /deaf/x HTTP/1.1\r\n${HOST}\r\n`],
};

for (const [what, [status, code, bytes]] of Object.entries(MADE)) {
  test(`I-50: nginx's own answer to ${what}`, async () => {
    const text = await app.raw(bytes, { quiet: 3000 });

    const res = enveloped(parse(text));

    assert.equal(res.status, status, text);
    assert.equal(res.body.error.code, code, text);
    assert.match(res.headers['content-type'], /^application\/(problem\+)?json/);
    assert.doesNotMatch(text, /nginx\/\d|<html/);
  });
}

test('I-50: what a proxied server says stays as it is', async () => {
  const text = await app.raw(`GET /deaf/own HTTP/1.1\r\n${HOST}\r\n`);

  assert.match(text, /^HTTP\/1\.1 404 /);
  assert.ok(text.endsWith('\r\n\r\nown'), text);
});

test('I-50: a body that never comes ends the connection', async () => {
  const from = Date.now();
  const text = await app.raw('POST /api/v1/auth/login HTTP/1.1\r\n' +
    `${HOST}Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{`,
  { quiet: 8000 });

  assert.ok(Date.now() - from < 7000, 'it stays open');
  if (text) enveloped(parse(text));
});

test('a token makes no path of it', async () => {
  const token = mint(app);

  for (const prefix of PREFIXES) {
    for (const path of ['', '/', `/${NONE}`, '/auth', '/admin', '/checkin']) {
      const res = await ask('GET', prefix + path, { token });

      assert.equal(res.status, 404, prefix + path);
    }
  }
});
