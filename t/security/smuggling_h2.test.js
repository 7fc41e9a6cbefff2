/*
 * HTTP/2 that says two things at once (edge.md 4.2, D.2): pseudo-headers that
 * are missing, doubled, late or unknown, fields that mean framing in HTTP/1.1,
 * and bodies that are not as long as they say.  None of it reaches a row or
 * what stands behind a gate as something else; the connection's other streams
 * do not suffer.  Frames are written here, since no client sends such ones.
 */

import assert from 'node:assert/strict';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';

const SOCKET = path.join(os.tmpdir(), `stoa-smuggling-${process.pid}.sock`);
const [DATA, HEADERS, RST, SETTINGS, GOAWAY] = [0, 1, 3, 4, 7];
const [END_STREAM, END_HEADERS] = [1, 4];

let app, alice, seen = [];

const backend = http.createServer((req, res) => {
  let body = '';

  req.on('data', (chunk) => { body += chunk; });
  req.on('end', () => {
    seen.push({ method: req.method, url: req.url, body,
      host: req.headers.host, raw: req.rawHeaders });
    res.end('behind');
  });
});

before(async () => {
  backend.listen(0, '127.0.0.1');
  await once(backend, 'listening');
  app = await boot({ workers: 0, nginx: {
    server: `listen unix:${SOCKET} http2;`,
    replace: [['location = / {', `
        location /behind/ {
            stoa_auth  optional;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_pass http://127.0.0.1:${backend.address().port};
        }
        location = / {`]] } });
  alice = await app.user();
});
after(async () => {
  backend.close();
  backend.closeAllConnections?.();
  await app?.stop();
});

function frame(type, flags, stream, payload = '') {
  const body = Buffer.from(payload, 'latin1');
  const head = Buffer.alloc(9);

  head.writeUIntBE(body.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, body]);
}

/* HPACK: each field literal, without Huffman's code and without a table. */
function length(n) {
  if (n < 127) return String.fromCharCode(n);

  let out = '\x7f';

  for (n -= 127; n > 127; n >>= 7) out += String.fromCharCode((n & 127) | 128);
  return out + String.fromCharCode(n);
}

const block = (fields) => fields.map(([name, value]) =>
  `\0${length(name.length)}${name}${length(value.length)}${value}`).join('');

/*
 * A connection with one stream of these fields and bodies, and then a usual
 * one.  Resolves with the status of each, or how the first one ended.
 */
function talk(fields, bodies = []) {
  return new Promise((done, failed) => {
    const socket = net.connect(SOCKET);
    const got = { 1: undefined, 3: undefined };
    let data = Buffer.alloc(0);

    let asked = false;

    /* the usual one, when the first is over; then the end */
    const next = (stream) => {
      if (stream === 3) socket.end();
      else if (!asked) {
        asked = true;
        socket.write(frame(HEADERS, END_HEADERS | END_STREAM, 3,
          block(USUAL('/api/v1/events'))));
      }
    };
    const see = (type, flags, stream, payload) => {
      if (type === SETTINGS && (flags & 1) === 0) {
        socket.write(frame(SETTINGS, 1, 0));
      } else if (type === HEADERS) {
        /* of the static table: :status 200, 204, 206, 304, 400, 404, 500 */
        got[stream] ??= payload[0] & 0x80
          ? [200, 204, 206, 304, 400, 404, 500][(payload[0] & 0x7f) - 8]
          : Number(literal(payload));
        next(stream);
      } else if (type === RST) {
        got[stream] ??= 'reset';
        next(stream);
      } else if (type === GOAWAY) {
        got.goaway = payload.readUInt32BE(4);
        socket.end();
      }
    };

    socket.on('connect', () => {
      socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
      socket.write(frame(SETTINGS, 0, 0));
      socket.write(frame(HEADERS, END_HEADERS | (bodies.length ? 0
        : END_STREAM), 1, block(fields)));
      bodies.forEach((body, i) => socket.write(frame(DATA,
        i === bodies.length - 1 ? END_STREAM : 0, 1, body)));
    });
    socket.on('data', (chunk) => {
      data = Buffer.concat([data, chunk]);
      while (data.length >= 9 && data.length >= 9 + data.readUIntBE(0, 3)) {
        const n = data.readUIntBE(0, 3);

        see(data[3], data[4], data.readUInt32BE(5), data.subarray(9, 9 + n));
        data = data.subarray(9 + n);
      }
    });
    socket.on('error', failed);
    socket.on('close', () => done(got));
  });
}

/* The first field, a literal one: ":status" by its index, three digits. */
const literal = (payload) => payload.toString('latin1', 2, 5);

const USUAL = (to, method = 'GET') => [[':method', method],
  [':scheme', 'http'], [':path', to], [':authority', 'x']];
const without = (name, to) => USUAL(to).filter(([one]) => one !== name);

test('what is usual is answered, so that what follows means something',
  async () => {
    for (const [to, status] of [['/api/v1/events', 200], ['/behind/a', 200],
      ['/api/v1/users/me', 401], ['/api/v1/nowhere', 404]]) {
      assert.deepEqual(await talk(USUAL(to)), { 1: status, 3: 200 }, to);
    }
    seen = [];
    assert.deepEqual(await talk([...USUAL('/behind/b', 'POST'),
      ['content-length', '4']], ['ab', 'cd']), { 1: 200, 3: 200 });
    assert.equal(seen[0].body, 'abcd');
  });

test('pseudo-headers: each once, first, known, and what it can be',
  async () => {
    const evil = ' HTTP/1.1\r\nHost: x\r\n\r\nGET /behind/smuggled';

    for (const to of ['/api/v1/users/me', '/behind/x']) {
      for (const [what, fields] of Object.entries({
        'no method': without(':method', to),
        'no scheme': without(':scheme', to),
        'no path': without(':path', to),
        'two methods': [...USUAL(to), [':method', 'POST']],
        'two schemes': [...USUAL(to), [':scheme', 'https']],
        'two paths': [...USUAL(to), [':path', '/health/live']],
        'two authorities': [...USUAL(to), [':authority', 'y']],
        'one behind a field': [...without(':path', to), ['x-a', 'b'],
          [':path', to]],
        'an unknown one': [...USUAL(to), [':evil', 'x']],
        'one of answers': [...USUAL(to), [':status', '200']],
        'one of sockets': [...USUAL(to), [':protocol', 'websocket']],
        'an empty path': [...without(':path', to), [':path', '']],
        'a path without a slash': [...without(':path', to),
          [':path', to.slice(1)]],
        'a path with a line': [...without(':path', to), [':path', to + evil]],
        'a path with a space': [...without(':path', to), [':path', `${to} y`]],
        'a path with NUL': [...without(':path', to), [':path', `${to}\0`]],
        'an empty method': [...without(':method', to), [':method', '']],
        'a method with a line': [...without(':method', to),
          [':method', `GET /behind/smuggled${evil}`]],
        'a method in small letters': [...without(':method', to),
          [':method', 'get']],
        'an authority with a line': [...without(':authority', to),
          [':authority', 'x\r\nX-A: b']],
        'a name in capitals': [...USUAL(to), ['X-A', 'b']],
        'a name with a line': [...USUAL(to), ['x-a: b\r\nx-c', 'd']],
        'a name with a colon': [...USUAL(to), ['x-a:', 'b']],
        'a name with a space': [...USUAL(to), ['x a', 'b']],
        'a value with a line': [...USUAL(to), ['x-a', 'b\r\nX-C: d']],
        'a value with LF': [...USUAL(to), ['x-a', 'b\nx-c: d']],
        'a value with NUL': [...USUAL(to), ['x-a', 'b\0c']],
      })) {
        seen = [];

        const got = await talk([...fields,
          ['authorization', `Bearer ${alice.token}`]]);

        assert.ok([400, 405, 'reset'].includes(got[1])
          || got.goaway !== undefined
          /* what is left out, rather than refused, changes nothing */
          || (got[1] === 200 && /^a name|one behind/.test(what)),
        `${what}: ${JSON.stringify(got)}`);
        assert.ok(got[3] === 200 || got.goaway !== undefined, what);
        assert.ok(seen.length <= (got[1] === 200 ? 1 : 0), what);
        for (const one of seen) {
          assert.equal(one.url, to);
          /* which nginx takes before 1.31 */
          if (what === 'one behind a field') continue;
          assert.doesNotMatch(one.raw.join('\n'), /^x-[ac]/im, what);
        }
      }
    }
  });

test('what is framing in HTTP/1.1 is none here, and does not go on as such',
  async () => {
    for (const [name, value] of [['transfer-encoding', 'chunked'],
      ['connection', 'close'], ['connection', 'x-a'], ['upgrade', 'h2c'],
      ['keep-alive', 'timeout=5'], ['proxy-connection', 'keep-alive'],
      ['te', 'chunked'], ['expect', '100-continue']]) {
      seen = [];

      const got = await talk([...USUAL('/behind/x', 'POST'), [name, value],
        ['content-length', '5']], ['0\r\n\r\n']);

      assert.ok([200, 400, 417, 'reset'].includes(got[1])
        || got.goaway !== undefined, `${name}: ${JSON.stringify(got)}`);
      assert.ok(seen.length <= 1, name);
      for (const one of seen) {
        assert.equal(one.body, '0\r\n\r\n', name);
        assert.ok(!one.raw.some((text, i) => i % 2 === 0
          && text.toLowerCase() === 'transfer-encoding'), name);
      }
    }
    /* the host is that of :authority */
    seen = [];
    const got = await talk([...USUAL('/behind/x'), ['host', 'evil.example']]);

    assert.ok([200, 400, 'reset'].includes(got[1]), JSON.stringify(got));
    for (const one of seen) assert.doesNotMatch(one.host, /evil/);
  });

test('a body is as long as it says, or it is none', async () => {
  const login = JSON.stringify({ email: alice.email,
    password: alice.password });

  for (const [to, body] of [['/api/v1/auth/login', login],
    ['/behind/x', 'abcdef']]) {
    for (const [what, lengths, bodies] of [
      ['more than it says', [body.length - 2], [body]],
      ['more, in two', [body.length - 2], [body.slice(0, -2), body.slice(-2)]],
      ['less than it says', [body.length + 2], [body]],
      ['none at all', [body.length], []],
      ['one where there is none', [0], [body]],
      ['two lengths', [body.length, body.length + 2], [body]],
      ['a sign', [`+${body.length}`], [body]],
      ['a negative length', [-body.length], [body]],
      ['a list', [`${body.length}, ${body.length}`], [body]],
      ['no number', ['x'], [body]],
    ]) {
      seen = [];

      const got = await talk([...USUAL(to, 'POST'),
        ['content-type', 'application/json'],
        ...lengths.map((n) => ['content-length', String(n)])], bodies);

      assert.ok([400, 408, 413, 'reset', undefined].includes(got[1]),
        `${to}, ${what}: ${JSON.stringify(got)}`);
      assert.ok(got[3] === 200 || got.goaway !== undefined, what);
      assert.deepEqual(seen, [], `${to}, ${what}`);
    }
  }
});
