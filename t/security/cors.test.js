/*
 * CORS: pages of other origins get what their origin was given and nothing
 * by reflection; preflights are answered from the rows, may be kept, and are
 * felt neither by PostgreSQL nor by what is behind a gate.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { boot, until } from '../harness/index.js';
import { NONE, fill, rows } from '../derived/rows.js';

const HERE = 'https://app.example';
const EVIL = 'https://evil.example';

let app, backend, olga, behind = 0;

before(async () => {
  backend = http.createServer((req, res) => {
    behind++;
    if (req.url.endsWith('own')) {
      res.setHeader('Access-Control-Allow-Origin', '*');
    }
    res.end(`${req.method} ${req.url}`);
  });
  await new Promise((done) => { backend.listen(0, '127.0.0.1', done); });

  const to = `proxy_pass http://127.0.0.1:${backend.address().port};`;

  app = await boot({
    workers: 0, nginxWorkers: 1,
    nginx: {
      replace: [[/"uri":"\$uri"/,
        '"uri":"$request_uri","queries":"$stoa_db_queries"']],
      server: `stoa_cors ${HERE} http://localhost:5173 max_age=1h;
        location /gated/ { stoa_auth required; ${to} }
        location /plain/ { ${to} }
        location /lan/ {
            stoa_cors ${HERE} private_network;
            stoa_auth required;
            ${to}
        }`,
    },
  });
  olga = await app.user('organizer');
});
after(async () => {
  await app?.stop();
  backend?.close();
});

const preflight = (where, origin = HERE, method = 'GET', more = {}) =>
  app.api('OPTIONS', where, { validate: false, headers: { Origin: origin,
    'Access-Control-Request-Method': method, ...more } });

const said = ({ headers }) => Object.keys(headers)
  .filter((name) => name.startsWith('access-control-'));

/* The access log has how often a request asked PostgreSQL. */
const asked = (id) => fs.readFileSync(path.join(app.dir, 'log/access.log'),
  'utf8').split('\n').filter((line) => line.includes(`?${id}"`))
  .map((line) => JSON.parse(line).queries);

test('a preflight is told the methods of its path, of every row', async () => {
  const of = new Map();

  for (const row of rows) {
    of.set(row.path, [...of.get(row.path) ?? [], row.method]);
  }
  for (const [template, methods] of of) {
    if (!template.startsWith('/api/')) continue;

    const res = await preflight(fill(template), HERE, methods[0]);
    const wanted = [...methods, ...(methods.includes('GET') ? ['HEAD'] : []),
      'OPTIONS'];

    assert.equal(res.status, 204, template);
    assert.deepEqual(res.headers['access-control-allow-methods'].split(', ')
      .sort(), wanted.sort(), template);
    assert.equal(res.headers['access-control-allow-origin'], HERE);
    assert.equal(res.headers['access-control-max-age'], '3600');
    assert.match(res.headers.vary, /\bOrigin\b/);
  }
});

test('every header that a row reads may be sent', async () => {
  const allowed = (await preflight('/api/v1/events', HERE, 'POST'))
    .headers['access-control-allow-headers'].toLowerCase().split(', ');

  for (const name of ['authorization', 'content-type', 'idempotency-key',
    'if-match', 'if-none-match', 'x-csrf-token', 'x-api-key',
    'x-requested-with', 'x-request-id']) {
    assert.ok(allowed.includes(name), name);
  }
  /* and no more than is said: nothing asked for is reflected */
  const more = await preflight('/api/v1/events', HERE, 'POST',
    { 'Access-Control-Request-Headers': 'x-evil, authorization' });

  assert.doesNotMatch(more.headers['access-control-allow-headers'], /evil/);
});

test('every header that an answer has may be read', async () => {
  const exposed = (res) => res.headers['access-control-expose-headers']
    .toLowerCase().split(', ');
  /* what Fetch lets pages read, and what browsers act on themselves */
  const known = new Set(['cache-control', 'content-language', 'content-length',
    'content-type', 'expires', 'last-modified', 'pragma', 'date', 'server',
    'connection', 'keep-alive', 'transfer-encoding', 'vary', 'set-cookie',
    'content-security-policy', 'referrer-policy', 'x-content-type-options',
    'strict-transport-security', 'content-encoding',
    'cross-origin-resource-policy']);
  const event = await app.event(olga, { types: [{ quota: 5 }] });
  const origin = { Origin: HERE };

  for (const [method, where, spec] of [
    ['GET', '/api/v1/events', {}],
    ['GET', `/v1/events/${event.id}`, {}],
    ['GET', `/api/v1/events/${event.id}`, { token: olga.token }],
    ['GET', '/api/v1/users/me', {}],
    ['DELETE', '/api/v1/events', {}],
    ['POST', '/api/v1/events', { token: olga.token, body: {} }],
    ['GET', `/api/v1/events/${event.id}/attendees.csv`,
      { token: olga.token }],
    ['POST', '/api/v1/auth/login', { body: { email: 'a@b.example',
      password: 'nothing-of-the-kind' } }],
  ]) {
    const res = await app.api(method, where, { validate: false, ...spec,
      headers: origin });

    for (const name of Object.keys(res.headers)) {
      assert.ok(known.has(name) || name.startsWith('access-control-')
        || exposed(res).includes(name), `${method} ${where}: ${name}`);
    }
  }
});

test('who is not on the list learns nothing, "null" neither', async () => {
  for (const origin of [EVIL, 'null', `${HERE}.evil.example`,
    'https://evilapp.example', `${HERE}:443`, 'http://app.example',
    'https://APP.example', `${HERE},${EVIL}`, '*', 'http://localhost:5174']) {
    for (const res of [
      await preflight('/api/v1/events', origin, 'PATCH'),
      await app.api('GET', '/api/v1/events', { headers: { Origin: origin } }),
      await app.api('GET', '/api/v1/users/me',
        { headers: { Origin: origin } }),
      await preflight('/gated/x', origin, 'PATCH'),
    ]) {
      assert.deepEqual(said(res), [], origin);
      assert.match(res.headers.vary, /\bOrigin\b/);
    }
  }
  for (const origin of [HERE, 'http://localhost:5173']) {
    assert.equal((await app.api('GET', '/api/v1/events',
      { headers: { Origin: origin } }))
      .headers['access-control-allow-origin'], origin);
  }
});

test('credentials go with an exact origin only', async () => {
  for (const res of [await preflight('/api/v1/auth/refresh', HERE, 'POST'),
    await app.api('GET', '/api/v1/events', { headers: { Origin: HERE } })]) {
    assert.equal(res.headers['access-control-allow-credentials'], 'true');
    assert.equal(res.headers['access-control-allow-origin'], HERE);
    assert.doesNotMatch(JSON.stringify(said(res).map((n) => res.headers[n])),
      /\*/);
  }
});

test('errors are read by pages, too: a 401, a 404, a 413', async () => {
  for (const [status, res] of [
    [401, await app.api('GET', '/api/v1/users/me',
      { headers: { Origin: HERE } })],
    [404, await app.api('GET', `/api/v1/events/${NONE}`,
      { headers: { Origin: HERE } })],
    [404, await app.api('GET', '/api/v1/nothing', { validate: false,
      headers: { Origin: HERE } })],
    [413, await app.api('POST', '/api/v1/auth/login', { validate: false,
      body: 'x'.repeat(1100000), headers: { Origin: HERE,
        'Content-Type': 'application/json' } })],
  ]) {
    assert.equal(res.status, status, res.text);
    assert.equal(res.headers['access-control-allow-origin'], HERE);
  }
});

test('a thousand preflights ask PostgreSQL nothing', async () => {
  const paths = ['/api/v1/events', '/api/v1/users/me', '/api/v1/orders',
    `/api/v1/events/${NONE}`];

  for (let i = 0; i < 1000; i++) {
    const res = await preflight(`${paths[i % 4]}?one`, HERE,
      ['GET', 'POST', 'PATCH', 'DELETE'][i % 4]);

    assert.equal(res.status, 204);
  }
  await app.api('GET', '/api/v1/events?limit=2', { token: olga.token });
  await until(() => asked('one').length === 1000
    && asked('limit=2').length === 1,
  { timeout: 10000, what: 'the access log' });
  assert.deepEqual(asked('limit=2'), ['1']);
  assert.ok(asked('one').every((n) => n === ''));
});

test('behind a gate: answered in front of it, without a token', async () => {
  behind = 0;
  for (const method of ['GET', 'PUT', 'DELETE']) {
    const res = await preflight('/gated/thing', HERE, method);

    assert.equal(res.status, 204);
    assert.equal(res.text, '');
    assert.equal(res.headers['access-control-allow-origin'], HERE);
    assert.match(res.headers['access-control-allow-methods'],
      new RegExp(`\\b${method}\\b`));
    assert.match(res.headers['access-control-allow-headers'],
      /Authorization/);
    /* cookies of other software are its own business */
    assert.equal(res.headers['access-control-allow-credentials'], undefined);
  }
  assert.equal(behind, 0);

  /* what is no preflight meets the gate, whatever its method */
  for (const [headers, why] of [[{ Origin: HERE }, 'no method asked for'],
    [{ 'Access-Control-Request-Method': 'GET' }, 'no origin'],
    [{ Origin: EVIL, 'Access-Control-Request-Method': 'GET' }, 'evil']]) {
    assert.equal((await app.api('OPTIONS', '/gated/thing',
      { validate: false, headers })).status, 401, why);
  }
  assert.equal((await app.api('GET', '/gated/thing', { validate: false,
    headers: { Origin: HERE, 'Access-Control-Request-Method': 'GET' } }))
    .status, 401);
  assert.equal(behind, 0);

  const through = await app.api('GET', '/gated/thing', { validate: false,
    token: olga.token, headers: { Origin: HERE } });

  assert.equal(through.text, 'GET /gated/thing');
  assert.equal(through.headers['access-control-allow-origin'], HERE);
});

test('a backend that speaks of CORS itself is not contradicted', async () => {
  const own = await app.api('GET', '/plain/own', { validate: false,
    headers: { Origin: HERE } });

  assert.equal(own.headers['access-control-allow-origin'], '*');
  assert.equal((await app.api('OPTIONS', '/plain/x', { validate: false,
    headers: { Origin: HERE, 'Access-Control-Request-Method': 'GET' } })).text,
  'OPTIONS /plain/x');
});

test('a private network is opened to the internet where it says so only',
  async () => {
    const ask = { 'Access-Control-Request-Private-Network': 'true' };
    const name = 'access-control-allow-private-network';

    assert.equal((await preflight('/lan/x', HERE, 'GET', ask)).headers[name],
      'true');
    assert.equal((await preflight('/lan/x')).headers[name], undefined);
    assert.equal((await preflight('/lan/x', EVIL, 'GET', ask)).headers[name],
      undefined);
    for (const where of ['/api/v1/events', '/gated/x']) {
      assert.equal((await preflight(where, HERE, 'GET', ask)).headers[name],
        undefined, where);
    }
  });
