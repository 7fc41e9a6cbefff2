/*
 * Slow clients (Slowloris, R-U-Dead-Yet, slow read): they hold a connection
 * of nginx for a bounded time, and nothing else: no worker, no connection to
 * PostgreSQL, of which this edge has one of each class.  Bodies and headers
 * are bounded, and who exceeds them is told in the envelope.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import http2 from 'node:http2';
import net from 'node:net';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { ROOT, SLOW, boot, until } from '../harness/index.js';

const CROWD = 100;

/* What is shipped, in its own words. */
const SHIPPED = fs.readFileSync(path.join(ROOT, 'conf/nginx.conf'), 'utf8');
const shipped = (name) => new RegExp(`^ *(${name} [^;]+;)`, 'm')
  .exec(SHIPPED)?.[1] ?? assert.fail(`${name} is not in conf/nginx.conf`);
const H2 = `/tmp/stoa-slow-${process.pid}.sock`;

let app, alice;

before(async () => {
  app = await boot({
    workers: 0, nginxWorkers: 1,
    nginx: {
      http: `client_header_timeout 1s; client_body_timeout 1s;
        send_timeout 1s; lingering_timeout 1s; lingering_time 3s;

        server {
        listen unix:${H2} http2;
        ${shipped('http2_max_concurrent_streams')}
        ${shipped('keepalive_requests')}
        location /api/ { stoa_api on; }
      }`,
      replace: [[/"uri":/, '"queries":"$stoa_db_queries","uri":'],
        [/stoa_pool fast=\S+ write=\S+ slow=\S+ .*;/,
        'stoa_pool fast=1 write=1 slow=1 queue=8 queue_timeout=5s;']],
    },
  });
  alice = await app.user('organizer');
  await app.event(alice, { types: [{ quota: 5 }] });
});
after(async () => {
  await app?.stop();
  fs.rmSync(H2, { force: true });
});

/* How many of these clients nginx still has a socket for. */
function held(clients) {
  const hex = (port) => port.toString(16).toUpperCase().padStart(4, '0');
  const theirs = new Set(clients.map(({ port }) => hex(port)));

  return fs.readFileSync('/proc/net/tcp', 'utf8').split('\n').slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter(([, local, remote, , , , , , , inode]) => inode > 0
      && local?.endsWith(`:${hex(app.port)}`)
      && theirs.has(remote.split(':')[1])).length;
}

/* A plain socket; then, what it got and whether it was closed. */
function client() {
  const socket = net.connect({ host: '127.0.0.1', port: app.port });
  const got = { socket, text: '', closed: false };

  socket.on('data', (chunk) => { got.text += chunk.toString('latin1'); });
  socket.on('error', () => {});
  socket.on('close', () => { got.closed = true; });
  return new Promise((done) => {
    socket.on('connect', () => {
      got.port = socket.localPort;
      done(got);
    });
  });
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

/* Nothing of the slow ones is at PostgreSQL, or waits for it. */
const unfelt = () => until(async () => await inFlight() === 0,
  { timeout: 5000 * SLOW, what: 'nothing to be in flight' });

const inFlight = async () => {
  const { text } = await app.api('GET', '/metrics');

  return [...text.matchAll(/^stoa_pg_(?:in_flight|waiting)\{.*\} (\d+)$/gm)]
    .reduce((sum, m) => sum + Number(m[1]), 0);
};

/* nginx has left all of them. */
const gone = (clients) => until(() => held(clients) === 0,
  { timeout: 15000 * SLOW, what: 'the slow ones to be left' });

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
  await unfelt();
  await gone(clients);
  clearInterval(drip);
  /* but for those to whom a byte made a request that is none */
  for (const { text } of clients) {
    assert.ok(text === '' || answer(text).error.code === 'BAD_REQUEST', text);
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
    await unfelt();
    await gone(clients);
    /* nginx answers nothing to who stops in the middle; the log knows */
    for (const { text } of clients) assert.equal(text, '');
    const lines = fs.readFileSync(path.join(app.dir, 'log/access.log'), 'utf8')
      .split('\n').filter((line) => line.includes('"status":"408"'))
      .map((line) => JSON.parse(line));

    assert.ok(lines.length >= CROWD, `${lines.length} lines`);
    assert.ok(lines.every(({ queries }) => queries === ''));
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
  const clients = await crowd(60);
  const one = 'GET /api/v1/events HTTP/1.1\r\nHost: x\r\n' +
    `Authorization: Bearer ${alice.token}\r\n\r\n`;
  const large = 'GET /api/v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n';

  for (const { socket } of clients) {
    socket.pause();
    socket.write((one + large).repeat(200));
  }
  await serves();
  await unfelt();
  await serves();

  await gone(clients); /* a paused socket does not see it */
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
});

test('what is shipped bounds all of it', () => {
  const seconds = (name) => Number(/ (\d+)s;/.exec(shipped(name))[1]);

  for (const [name, most] of [['client_header_timeout', 30],
    ['client_body_timeout', 30], ['send_timeout', 30], ['lingering_time', 30],
    ['lingering_timeout', 5], ['keepalive_timeout', 75]]) {
    assert.ok(seconds(name) <= most, name);
  }
  for (const line of ['client_max_body_size 1m;', 'large_client_header_buffers 4 8k;',
    'reset_timedout_connection on;', 'keepalive_requests 1000;',
    'http2_max_concurrent_streams 64;']) {
    assert.equal(shipped(line.split(' ')[0]), line);
  }
});

test('HTTP/2: streams that are opened and reset end the connection', async () => {
  const session = http2.connect('http://x', {
    createConnection: () => net.connect(H2) });
  let ended = false, opened = 0;

  session.on('error', () => {});
  session.on('goaway', () => { ended = true; });
  session.on('close', () => { ended = true; });
  await new Promise((done) => { session.once('remoteSettings', done); });
  assert.equal(session.remoteSettings.maxConcurrentStreams, 64);

  while (!ended && opened < 5000) {
    for (let i = 0; i < 50 && !session.closed && !session.destroyed; i++) {
      const stream = session.request({ ':path': '/api/v1/events',
        ':authority': 'x', authorization: `Bearer ${alice.token}` });

      stream.on('error', () => {});
      stream.close(http2.constants.NGHTTP2_CANCEL);
      opened++;
    }
    await new Promise((done) => { setTimeout(done, 5); });
  }
  assert.ok(ended, 'it went on for ever');
  assert.ok(opened <= 1100, `${opened} streams`);
  session.destroy();
  await serves();
  await unfelt();
});
