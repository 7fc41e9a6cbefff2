/*
 * The same rows in other clothes: snake_case and bare envelopes by location,
 * older paths, other origins, HTTP/2.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import http2 from 'node:http2';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';

const SOCKET = path.join(os.tmpdir(), `stoa-h2-${process.pid}.sock`);
const HERE = 'https://app.example';

let app, olga, event, ticket;

before(async () => {
  app = await boot({
    workers: 0,
    nginx: {
      server: `listen unix:${SOCKET} http2;
        stoa_cors ${HERE} https://two.example;`,
      replace: [[/location \/v1\/ \{/, `location /v1/ {
        stoa_json_case snake;
        stoa_envelope bare;`]],
    },
  });
  olga = await app.user('organizer');
  event = await app.event(olga, {
    title: 'He said "camelCase": {"aB":1}', types: [{ quota: 100 }],
  });
  [ticket] = await app.freeTickets(olga, event.types[0].id, 1);
});
after(async () => {
  await app?.stop();
  fs.rmSync(SOCKET, { force: true });
});

/* ---- spelling and frame ---- */

test('snake_case renames members, never values', async () => {
  const camel = (await app.api('GET', `/api/v1/events/${event.id}`)).data;
  const res = await app.api('GET', `/v1/events/${event.id}`,
    { validate: false });

  assert.equal(res.status, 200, res.text);
  assert.equal(res.body.title, camel.title);
  assert.equal(res.body.starts_at, camel.startsAt);
  assert.equal(res.body.ticket_types[0].price_cents,
    camel.ticketTypes[0].priceCents);

  const snake = (v) => Array.isArray(v) ? v.map(snake)
    : v && typeof v === 'object'
      ? Object.fromEntries(Object.entries(v).map(([k, x]) =>
        [k.replace(/[A-Z]/g, (c) => '_' + c.toLowerCase()), snake(x)]))
      : v;

  assert.deepEqual(res.body, snake(camel));
});

test('a bare envelope is the body alone, and problems alone', async () => {
  const ok = await app.api('GET', '/v1/users/me',
    { token: olga.token, validate: false });
  const bad = await app.api('GET', '/v1/users/me', { validate: false });

  assert.equal(ok.body.id, olga.id);
  assert.equal(ok.body.success, undefined);
  assert.equal(bad.status, 401);
  assert.equal(bad.headers['content-type'], 'application/problem+json');
  assert.equal(bad.body.code, 'UNAUTHENTICATED');
});

test('an older path names the canonical one', async () => {
  const res = await app.api('GET', `/v1/events/${event.id}`,
    { validate: false });

  assert.equal(res.headers.link,
    `</api/v1/events/${event.id}>; rel="canonical"`);
  assert.equal((await app.api('GET', `/api/v1/events/${event.id}`))
    .headers.link, undefined);
});

/* ---- CORS ---- */

const from = (origin, more = {}) => ({ headers: { Origin: origin, ...more } });

test('an origin on the list may read, others may not', async () => {
  for (const [url, extra] of [['/api/v1/events', {}], ['/api/v1/nowhere', {}],
    ['/api/v1/users/me', {}], ['/api/v1/events?x=1', {}]]) {
    const yes = await app.api('GET', url, { ...from(HERE), ...extra });
    const no = await app.api('GET', url, from('https://evil.example'));
    const none = await app.api('GET', url);

    assert.equal(yes.headers['access-control-allow-origin'], HERE, url);
    assert.match(yes.headers['access-control-expose-headers'], /ETag/);
    assert.equal(no.headers['access-control-allow-origin'], undefined);
    for (const res of [yes, no, none]) {
      assert.match(res.headers.vary ?? '', /Origin/);
    }
  }
  for (const origin of [`${HERE}.evil.example`, `${HERE}:444`, 'null',
    HERE.toUpperCase(), `${HERE}/`, 'https://two.example https://x']) {
    const res = await app.api('GET', '/api/v1/events', from(origin));

    assert.equal(res.headers['access-control-allow-origin'], undefined,
      origin);
  }
});

test('a preflight says what may be sent', async () => {
  const ask = { 'Access-Control-Request-Method': 'PATCH',
    'Access-Control-Request-Headers': 'if-match,authorization' };
  const res = await app.api('OPTIONS', `/api/v1/events/${event.id}`,
    from(HERE, ask));

  assert.equal(res.status, 204);
  assert.equal(res.headers['access-control-allow-origin'], HERE);
  assert.match(res.headers['access-control-allow-methods'], /PATCH/);
  assert.match(res.headers['access-control-allow-headers'], /If-Match/);
  assert.match(res.headers['access-control-allow-headers'],
    /Idempotency-Key/);

  const evil = await app.api('OPTIONS', `/api/v1/events/${event.id}`,
    from('https://evil.example', ask));

  assert.equal(evil.headers['access-control-allow-origin'], undefined);
  assert.equal(evil.headers['access-control-allow-methods'], undefined);
});

/* ---- HTTP/2 ---- */

function ask(client, headers, body) {
  return new Promise((done, failed) => {
    const stream = client.request({ ':authority': 'x', ...headers });
    const got = { chunks: [] };

    stream.on('response', (h) => { got.headers = h; });
    stream.on('data', (chunk) => got.chunks.push(chunk));
    stream.on('error', failed);
    stream.on('end', () => done({
      status: got.headers[':status'], headers: got.headers,
      text: Buffer.concat(got.chunks).toString(),
    }));
    stream.end(body);
  });
}

test('HTTP/2: many streams on one connection, some of them left', async () => {
  const client = http2.connect('http://x',
    { createConnection: () => net.connect(SOCKET) });
  const auth = { authorization: `Bearer ${olga.token}` };
  const scan = (code) => ask(client, {
    ':method': 'POST', ':path': '/api/v1/orders/validate', ...auth,
    'content-type': 'application/json',
  }, JSON.stringify({ code, eventId: event.id }));

  try {
    const all = await Promise.all([
      ...Array.from({ length: 12 }, () => scan(ticket.code)),
      ask(client, { ':path': `/api/v1/events/${event.id}` }),
      ask(client, { ':path': '/api/v1/users/me', ...auth }),
      ask(client, { ':path': '/api/v1/users/me' }),
      ask(client, { ':path': '/api/v1/nowhere' }),
      ask(client, { ':method': 'HEAD', ':path': '/api/v1/events' }),
    ]);
    const verdicts = all.slice(0, 12).map((r) =>
      JSON.parse(r.text).data.verdict);

    assert.equal(verdicts.filter((v) => v === 'admitted').length, 1);
    assert.deepEqual(all.slice(12).map((r) => r.status),
      [200, 200, 401, 404, 200]);
    assert.equal(all.at(-1).text, '');
    assert.equal(JSON.parse(all[15].text).error.code, 'NOT_FOUND');

    for (let i = 0; i < 30; i++) {
      const stream = client.request({ ':authority': 'x', ':method': 'POST',
        ':path': '/api/v1/orders/validate', ...auth,
        'content-type': 'application/json' });

      stream.on('error', () => {});
      stream.end(JSON.stringify({ code: `x${i}`, eventId: event.id }));
      setTimeout(() => stream.close(http2.constants.NGHTTP2_CANCEL), i % 6);
    }
    await new Promise((done) => setTimeout(done, 200));
    assert.equal((await ask(client,
      { ':path': '/api/v1/users/me', ...auth })).status, 200);
  } finally {
    client.close();
  }
});
