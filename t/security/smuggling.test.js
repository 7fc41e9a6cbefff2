/*
 * Two readings of where a request ends: each is refused and the connection
 * closed, so that no bytes of one request become the next one.
 */

import assert from 'node:assert/strict';
import net from 'node:net';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';

let app, alice;

before(async () => {
  app = await boot({ workers: 0, nginx: {
    http: 'client_header_timeout 1s; client_body_timeout 1s;' } });
  alice = await app.user();
});
after(() => app?.stop());

const NEXT = 'GET /api/v1/auth/check HTTP/1.1\r\nHost: smuggled\r\n\r\n';
const answers = (text) => [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)]
  .map((m) => Number(m[1]));
const head = (...lines) => ['POST /api/v1/auth/login HTTP/1.1', 'Host: x',
  'Content-Type: application/json', ...lines, '', ''].join('\r\n');

test('framing that can be read in two ways is 400, and the end', async () => {
  for (const [what, bytes] of Object.entries({
    'both': head('Content-Length: 4', 'Transfer-Encoding: chunked') +
      `0\r\n\r\n${NEXT}`,
    'both, the other way': head('Transfer-Encoding: chunked',
      `Content-Length: ${5 + NEXT.length}`) + `0\r\n\r\n${NEXT}`,
    'two lengths': head('Content-Length: 0', `Content-Length: ${NEXT.length}`) +
      NEXT,
    'the same length twice': head('Content-Length: 2', 'Content-Length: 2') +
      `{}${NEXT}`,
    'a list of lengths': head('Content-Length: 2, 2') + `{}${NEXT}`,
    'signed': head('Content-Length: +2') + `{}${NEXT}`,
    'negative': head('Content-Length: -2') + NEXT,
    'hexadecimal': head('Content-Length: 0x2') + `{}${NEXT}`,
    'too large': head('Content-Length: 99999999999999999999') + NEXT,
    'empty': head('Content-Length: ') + NEXT,
    'chunked twice': head('Transfer-Encoding: chunked',
      'Transfer-Encoding: chunked') + `0\r\n\r\n${NEXT}`,
    'chunked, identity': head('Transfer-Encoding: chunked, identity') +
      `0\r\n\r\n${NEXT}`,
    'another coding': head('Transfer-Encoding: xchunked') + `0\r\n\r\n${NEXT}`,
    'a tab': head('Transfer-Encoding: \u000bchunked') + `0\r\n\r\n${NEXT}`,
    'a space before the colon': head('Transfer-Encoding : chunked') +
      `0\r\n\r\n${NEXT}`,
    'a bad size': head('Transfer-Encoding: chunked') + `zz\r\n{}\r\n${NEXT}`,
    'a size too large': head('Transfer-Encoding: chunked') +
      `fffffffffffffffff\r\n{}\r\n${NEXT}`,
    'a negative size': head('Transfer-Encoding: chunked') +
      `-1\r\n{}\r\n${NEXT}`,
    'a chunk that is longer': head('Transfer-Encoding: chunked') +
      `1\r\n{}\r\n0\r\n\r\n${NEXT}`,
    'no host': 'GET /api/v1/events HTTP/1.1\r\n\r\n' + NEXT,
    'two hosts': `GET /api/v1/events HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n${
      NEXT}`,
    'a NUL in a header': head('X-A: a\u0000b', 'Content-Length: 0') + NEXT,
    'a newer version': `GET / HTTP/9.1\r\nHost: x\r\n\r\n${NEXT}`,
  })) {
    const got = answers(await app.raw(bytes, { quiet: 3000 }));

    assert.equal(got.length, 1, `${what}: ${got}`);
    assert.ok([400, 413, 501, 505].includes(got[0]), `${what}: ${got}`);
  }
});

test('what is well framed is two requests, also after a refusal', async () => {
  for (const [what, first] of Object.entries({
    'a length': head('Content-Length: 2') + '{}',
    'chunks': head('Transfer-Encoding: chunked') + '1;x=y\r\n{\r\n1\r\n}\r\n' +
      '0\r\n\r\n',
    'a body where none is read': 'GET /api/v1/auth/check HTTP/1.1\r\n' +
      `Host: x\r\nContent-Length: ${NEXT.length}\r\n\r\n${NEXT}`,
    'a refusal before its body': 'POST /api/v1/events HTTP/1.1\r\nHost: x\r\n' +
      `Content-Length: ${NEXT.length}\r\n\r\n${NEXT}`,
    'no such path': 'POST /api/v1/nowhere HTTP/1.1\r\nHost: x\r\n' +
      `Content-Length: ${NEXT.length}\r\n\r\n${NEXT}`,
    'a body that begins like a request': 'DELETE /api/v1/users/me HTTP/1.1' +
      `\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n${
        NEXT.length.toString(16)}\r\n${NEXT}\r\n0\r\n\r\n`,
    'an upgrade with a body': 'POST /api/v1/auth/login HTTP/1.1\r\n' +
      'Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n' +
      `HTTP2-Settings: AAMAAABk\r\nContent-Length: 2\r\n\r\n{}`,
  })) {
    const text = await app.raw(`${first}GET /api/v1/events HTTP/1.1\r\n` +
      'Host: x\r\nConnection: close\r\n\r\n', { quiet: 3000 });
    const got = answers(text);

    assert.equal(got.length, 2, `${what}: ${got}`);
    assert.ok(got[0] >= 400, `${what}: ${got}`);
    assert.equal(got[1], 200, `${what}: ${got}`);
  }
});

test('heads that are too large are refused, and the next one is served',
  async () => {
    for (const lines of [
      `X-A: ${'x'.repeat(70000)}\r\n`,
      `Authorization: Bearer ${'x'.repeat(40000)}\r\n`,
      'X-A: b\r\n'.repeat(20000),
      `Cookie: ${'a=b;'.repeat(12000)}\r\n`,
    ]) {
      const text = await app.raw(`GET /api/v1/auth/check HTTP/1.1\r\nHost: x` +
        `\r\n${lines}\r\n`, { quiet: 3000 });

      assert.ok(['', '431', '400', '401'].includes(
        String(answers(text)[0] ?? '')), text.slice(0, 100));
    }
    assert.equal((await app.api('GET', '/api/v1/auth/check',
      { token: alice.token })).status, 200);
  });

/* The connection's end, after these bytes and nothing else. */
function silent(bytes) {
  return new Promise((done) => {
    const chunks = [];
    const socket = net.connect({ host: '127.0.0.1', port: app.port }, () =>
      socket.write(bytes));

    socket.on('data', (chunk) => chunks.push(chunk));
    socket.on('error', () => {});
    socket.on('close', () => done(Buffer.concat(chunks).toString('latin1')));
  });
}

test('who stops in the middle is left, not waited for', async () => {
  for (const bytes of ['G', 'GET /api/v1/events HTTP/1.1\r\nHost: x\r\nX-',
    head('Content-Length: 100') + '{"email":',
    head('Transfer-Encoding: chunked') + '5\r\n{"e']) {
    const text = await silent(bytes);

    assert.ok(['', '408'].includes(String(answers(text)[0] ?? '')), text);
  }
});

test('who leaves in the middle takes nobody along', async () => {
  const body = JSON.stringify({ email: alice.email, password: 'x' });
  const whole = head(`Content-Length: ${body.length}`) + body;
  const pids = app.nginx.workerPids();

  for (let at = 0; at <= whole.length; at += 7) {
    await new Promise((done) => {
      const socket = net.connect({ host: '127.0.0.1', port: app.port }, () =>
        socket.write(whole.slice(0, at), () => {
          if (at % 2) socket.resetAndDestroy();
          else socket.destroy();
        }));

      socket.on('error', () => {});
      socket.on('close', done);
    });
  }
  assert.equal((await app.api('GET', '/api/v1/auth/check',
    { token: alice.token })).status, 200);
  assert.deepEqual(app.nginx.workerPids(), pids);
});
