/*
 * Slow clients (Slowloris, R-U-Dead-Yet, slow read): they hold a connection
 * of nginx for a bounded time, and nothing else: no worker, no connection to
 * PostgreSQL, of which this edge has one of each class.  Bodies and headers
 * are bounded, and who exceeds them is told in the envelope.
 */

import assert from 'node:assert/strict';
import net from 'node:net';
import { after, before, test } from 'node:test';
import { SLOW, boot, until } from '../harness/index.js';

const CROWD = 100;

let app, alice, idle;

before(async () => {
  app = await boot({
    workers: 0, nginxWorkers: 1,
    nginx: {
      server: `client_header_timeout 1s; client_body_timeout 1s;
        send_timeout 1s; lingering_timeout 1s; lingering_time 3s;`,
      replace: [[/stoa_pool fast=\S+ write=\S+ slow=\S+ .*;/,
        'stoa_pool fast=1 write=1 slow=1 queue=8 queue_timeout=5s;']],
    },
  });
  alice = await app.user('organizer');
  await app.event(alice, { types: [{ quota: 5 }] });
  idle = await connections();
});
after(() => app?.stop());

/* Sockets of the one worker: of clients, PostgreSQL and Redis. */
async function connections() {
  const fs = await import('node:fs');
  const [pid] = app.nginx.workerPids();

  return fs.readdirSync(`/proc/${pid}/fd`).filter((fd) => {
    try {
      return fs.readlinkSync(`/proc/${pid}/fd/${fd}`).startsWith('socket:');
    } catch {
      return false;
    }
  }).length;
}

/* A plain socket; then, what it got and whether it was closed. */
function client() {
  const socket = net.connect({ host: '127.0.0.1', port: app.port });
  const got = { socket, text: '', closed: false };

  socket.on('data', (chunk) => { got.text += chunk.toString('latin1'); });
  socket.on('error', () => {});
  socket.on('close', () => { got.closed = true; });
  return new Promise((done) => { socket.on('connect', () => done(got)); });
}

const crowd = (n) => Promise.all(Array.from({ length: n }, client));

/* Rows of each pool answer, one by one, as if there was nobody. */
async function serves() {
  for (let i = 0; i < 3; i++) {
    assert.equal((await app.api('GET', '/api/v1/users/me',
      { token: alice.token })).status, 200);
    assert.equal((await app.api('PATCH', '/api/v1/users/me',
      { token: alice.token, body: { firstName: `A${i}` } })).status, 200);
  }
}

const inFlight = async () => {
  const { text } = await app.api('GET', '/metrics');

  return [...text.matchAll(/^stoa_pg_(?:in_flight|waiting)\{.*\} (\d+)$/gm)]
    .reduce((sum, m) => sum + Number(m[1]), 0);
};

/* All of them are away, from the worker too. */
async function gone(clients) {
  await until(() => clients.every((one) => one.closed),
    { timeout: 15000 * SLOW, what: 'the slow ones to be left' });
  await until(async () => await connections() <= idle + 2,
    { timeout: 15000 * SLOW, what: 'their sockets to be closed' });
}

const answer = (text) => ({
  status: Number(text.slice(9, 12)),
  error: text.includes('\r\n\r\n{')
    ? JSON.parse(text.slice(text.indexOf('\r\n\r\n{') + 4)).error : undefined,
});

test('slow headers: a byte at a time, for a bounded time', async () => {
  const clients = await crowd(CROWD);
  const head = 'GET /api/v1/events HTTP/1.1\r\nHost: x\r\nX-Slow: ';

  clients.forEach((one, i) => one.socket.write(head.slice(0, 1 + i % 40)));
  /* a byte now and then does not prolong it */
  const drip = setInterval(() => clients.forEach(({ socket, closed }) =>
    closed || socket.write('a')), 200);

  await serves();
  assert.equal(await inFlight(), 0);
  await gone(clients);
  clearInterval(drip);
  for (const { text } of clients) {
    if (text === '') continue;
    const { status, error } = answer(text);

    assert.ok([400, 408].includes(status), text);
    assert.ok(['BAD_REQUEST', 'REQUEST_TIMEOUT'].includes(error.code));
  }
});

for (const [what, framing, begin] of [
  ['Content-Length', 'Content-Length: 1000', '{"firstName":"'],
  ['chunked', 'Transfer-Encoding: chunked', '5\r\n{"fir\r\n'],
]) {
  test(`a slow body (${what}): PostgreSQL is asked nothing`, async () => {
    const clients = await crowd(CROWD);

    for (const { socket } of clients) {
      socket.write('PATCH /api/v1/users/me HTTP/1.1\r\nHost: x\r\n' +
        `Content-Type: application/json\r\n${framing}\r\n` +
        `Authorization: Bearer ${alice.token}\r\n\r\n${begin}`);
    }
    await serves();
    assert.equal(await inFlight(), 0);
    await gone(clients);
    for (const { text } of clients) {
      const { status, error } = answer(text);

      assert.equal(status, 408, text);
      assert.equal(error.code, 'REQUEST_TIMEOUT');
    }
  });
}

test('a slow body behind a refusal is not waited for', async () => {
  const clients = await crowd(CROWD);

  /* 401 and 404 are told before the body came; then it lingers, bounded */
  clients.forEach(({ socket }, i) => socket.write('PATCH ' +
    `/api/v1/${i % 2 ? 'users/me' : 'nothing'} HTTP/1.1\r\nHost: x\r\n` +
    'Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{'));
  await until(() => clients.every(({ text }) => text !== ''),
    { timeout: 5000 * SLOW, what: 'the refusals' });
  await serves();
  await gone(clients);
  clients.forEach(({ text }, i) =>
    assert.equal(answer(text).status, i % 2 ? 401 : 404));
});

test('a slow reader: the answers wait in nginx, not in PostgreSQL', async () => {
  const clients = await crowd(20);
  const one = 'GET /api/v1/events HTTP/1.1\r\nHost: x\r\n' +
    `Authorization: Bearer ${alice.token}\r\n\r\n`;
  const large = 'GET /api/v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n';

  for (const { socket } of clients) {
    socket.pause();
    socket.write((one + large).repeat(200));
  }
  await until(async () => {
    await serves();
    return await inFlight() === 0;
  }, { timeout: 20000 * SLOW, what: 'nothing to be in flight' });
  await serves();

  /* a paused socket does not see the end: the worker has closed it */
  await until(async () => await connections() <= idle + 2,
    { timeout: 30000 * SLOW, what: 'the slow readers to be left' });
  for (const { socket } of clients) socket.destroy();
});

test('bounds of headers and bodies are told in the envelope', async () => {
  const json = 'Content-Type: application/json\r\nConnection: close\r\n';
  const cases = [
    [414, 'URI_TOO_LONG', `GET /api/v1/events?q=${'a'.repeat(40000)} ` +
      'HTTP/1.1\r\nHost: x\r\n\r\n'],
    [431, 'HEADERS_TOO_LARGE', 'GET /api/v1/events HTTP/1.1\r\nHost: x\r\n' +
      `X-Big: ${'b'.repeat(40000)}\r\n\r\n`],
    [413, 'PAYLOAD_TOO_LARGE', 'POST /api/v1/auth/login HTTP/1.1\r\n' +
      `Host: x\r\n${json}Content-Length: 1048577\r\n\r\n`],
    [413, 'PAYLOAD_TOO_LARGE', 'POST /api/v1/auth/login HTTP/1.1\r\n' +
      `Host: x\r\n${json}Transfer-Encoding: chunked\r\n\r\n` +
      '110000\r\n' + 'x'.repeat(0x110000)],
  ];

  for (const [status, code, bytes] of cases) {
    const one = await client();

    one.socket.write(bytes);
    await until(() => one.closed, { timeout: 15000 * SLOW, what: code });
    const { status: was, error } = answer(one.text);

    assert.equal(was, status, one.text.slice(0, 200));
    assert.equal(error.code, code);
    assert.match(error.request_id, /^[0-9a-f-]{36}$/);
  }
  await gone([]);
});
