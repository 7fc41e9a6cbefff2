/*
 * Two readings of where a request ends: each is refused and the connection
 * closed, so that no bytes of one request become the next one.
 */

import assert from 'node:assert/strict';
import http from 'node:http';
import net from 'node:net';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';

/* What stands behind a gate, and all that it was asked. */
let seen = [];
const backend = http.createServer((req, res) => {
  let body = '';

  req.on('data', (chunk) => { body += chunk; });
  req.on('end', () => {
    seen.push(`${req.method} ${req.url} ${body}`);
    res.statusCode = 418;
    res.end();
  });
});

let app, alice;

before(async () => {
  backend.listen(0, '127.0.0.1');
  await once(backend, 'listening');
  app = await boot({ workers: 0, nginx: {
    http: `client_header_timeout 1s; client_body_timeout 1s;
      stoa_limit once rate=1/d burst=1 key=addr;`,
    replace: [['location = / {', `
        location /gated/ {
            stoa_auth  required role=admin login=/account/;
            stoa_cors  https://app.example;
            proxy_pass http://127.0.0.1:1;
        }
        location /behind/ {
            stoa_auth  optional;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_pass http://127.0.0.1:${backend.address().port};
        }
        location /once/ {
            stoa_limit_apply once;
        }
        location = / {`]] } });
  alice = await app.user();
  await app.api('GET', '/once/', { validate: false });
});
after(async () => {
  backend.close();
  backend.closeAllConnections?.();
  await app?.stop();
});

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

/* What is answered before its body was looked at, and with what. */
const EARLY = [
  ['OPTIONS', '/api/v1/events', 204],
  ['OPTIONS', '/api/v1/auth/login', 204],
  ['OPTIONS', '/v1/events', 204],
  ['OPTIONS', '/api/v1/nowhere', 404],
  ['OPTIONS', '/api/v1/events', 204, 'Origin: https://app.example\r\n' +
    'Access-Control-Request-Method: POST\r\n'],
  ['OPTIONS', '/gated/x', 204, 'Origin: https://app.example\r\n' +
    'Access-Control-Request-Method: POST\r\n'],
  ['DELETE', '/api/v1/auth/login', 405],
  ['PROPFIND', '/api/v1/events', 405],
  ['POST', '/api/v1/nowhere', 404],
  ['POST', '/nowhere', 404],
  ['POST', '/api/v1/events', 401],
  ['POST', '/api/v1/events', 401, 'Authorization: Bearer a.b.c\r\n'],
  ['POST', '/api/v1/events', 403, 'alice'],
  ['POST', '/api/v1/auth/login', 415, 'Content-Type: text/plain\r\n'],
  ['POST', '/api/v1/auth/login', 400, 'Idempotency-Key: \r\n' +
    'Content-Type: application/json\r\n'],
  ['GET', '/api/v1/events', 200],
  ['GET', '/api/v1/events?page=x', 400],
  ['HEAD', '/api/v1/events', 200],
  ['GET', '/api/v1/auth/check', 401],
  ['GET', '/api/v1/oauth/nobody/start', 404],
  ['GET', '/gated/x', 302, 'Accept: text/html\r\n'],
  ['POST', '/gated/x', 401],
  ['POST', '/gated/x', 403, 'alice'],
  ['POST', '/once/', 429],
  ['POST', '/health/live', 405],
  ['GET', '/health/ready', 200],
  ['GET', '/metrics', 200],
  ['GET', '/', 302],
  ['GET', '/account/', 200],
];

test('what follows an early answer is its body, not the next request',
  async () => {
    const evil = 'GET /api/v1/auth/check?smuggled HTTP/1.1\r\nHost: x\r\n\r\n';

    for (const [method, path, status, more = ''] of EARLY) {
      for (const [what, body] of [
        ['a length', `Content-Length: ${evil.length}\r\n\r\n${evil}`],
        ['chunks', `Transfer-Encoding: chunked\r\n\r\n${
          evil.length.toString(16)}\r\n${evil}\r\n0\r\n\r\n`]]) {
        const extra = more === 'alice'
          ? `Authorization: Bearer ${alice.token}\r\n` : more;
        const text = await app.raw(`${method} ${path} HTTP/1.1\r\n` +
          `Host: x\r\n${extra}${body}GET /api/v1/events HTTP/1.1\r\n` +
          'Host: x\r\nConnection: close\r\n\r\n', { quiet: 3000 });

        assert.deepEqual(answers(text), [status, 200],
          `${method} ${path} ${more}, ${what}`);
      }
    }
  });

test('a bare LF or CR ends what it ends for everybody, or the connection',
  async () => {
    const evil = 'GET /behind/smuggled HTTP/1.1\r\nHost: x\r\n\r\n';
    const n = `Content-Length: ${evil.length}`;
    const hex = evil.length.toString(16);
    const chunked = 'Transfer-Encoding: chunked\r\n\r\n';

    for (const path of ['/api/v1/auth/login', '/behind/x']) {
      const line = `POST ${path} HTTP/1.1`;

      for (const [what, bytes] of Object.entries({
        'a head of LF': `${line}\nHost: x\n${n}\n\n${evil}`,
        'LF, CRLF': `${line}\r\nHost: x\r\n${n}\n\r\n${evil}`,
        'a coding behind LF': `${line}\r\nHost: x\r\nX: a\n` +
          `Transfer-Encoding: chunked\r\n${n}\r\n\r\n0\r\n\r\n${evil}`,
        'a length behind LF': `${line}\r\nHost: x\r\nX: a\n${n}\r\n\r\n${
          evil}`,
        'two lengths': `${line}\r\nHost: x\r\nX: a\n${n}\r\n` +
          `Content-Length: 0\r\n\r\n${evil}`,
        'a length behind CR': `${line}\r\nHost: x\r\nX: a\r${n}\r\n\r\n${
          evil}`,
        'CR CRLF': `${line}\r\nHost: x\r\n${n}\r\r\n\r\n${evil}`,
        'a size and LF': `${line}\r\nHost: x\r\n${chunked}${hex}\n${evil}\r\n` +
          '0\r\n\r\n',
        'a chunk and LF': `${line}\r\nHost: x\r\n${chunked}${hex}\r\n${evil}\n` +
          '0\r\n\r\n',
        'the last chunk and LF': `${line}\r\nHost: x\r\n${chunked}${hex}\r\n${
          evil}\r\n0\n\r\n`,
        'the end and LF': `${line}\r\nHost: x\r\n${chunked}${hex}\r\n${evil}` +
          '\r\n0\r\n\n',
        'an extension and LF': `${line}\r\nHost: x\r\n${chunked}2;a\n${hex}` +
          `\r\n${evil}\r\n0\r\n\r\n`,
        'a size and CR': `${line}\r\nHost: x\r\n${chunked}2\r{}\r\n0\r\n\r\n${
          evil}`,
        'a trailer': `${line}\r\nHost: x\r\n${chunked}${hex}\r\n${evil}\r\n0\r\n` +
          'Content-Length: 3\r\nX: a\n\r\n',
      })) {
        seen = [];

        const text = await app.raw(`${bytes}GET /api/v1/events HTTP/1.1\r\n` +
          'Host: x\r\nConnection: close\r\n\r\n', { quiet: 3000 });
        const [first, second, third] = answers(text);

        assert.ok(first >= 400 && first < 500, `${path}, ${what}: ${first}`);
        assert.ok([undefined, 200].includes(second), `${path}, ${what}: ${
          second}`);
        assert.equal(third, undefined, `${path}, ${what}`);
        /* one request, with all that was its body, or none */
        assert.ok(seen.length <= 1, `${what}: ${seen}`);
        if (first === 418) assert.deepEqual(seen, [`POST /behind/x ${evil}`]);
      }
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
