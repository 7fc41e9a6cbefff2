/*
 * What the gates' answers carry: one request id wherever a gate ran, in the
 * answer and in the log; the code of an error whoever makes it; Allow with
 * every 405; and what of a request is refused for its framing alone.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { boot, until } from '../harness/index.js';
import { givePort, takePort } from '../harness/proc.js';

let app, bare, olga;

before(async () => {
  bare = await takePort();
  app = await boot({
    workers: 0,
    nginx: {
      replace: [[/stoa_limit read rate=\S+ burst=\S+ key=addr;/,
        'stoa_limit read rate=20/1d burst=20 key=addr;']],
      /* gates in front of others, and nothing else of Stoa's */
      http: `
        server {
            listen 127.0.0.1:${bare};

            location /gated/ {
                stoa_auth required role=admin;
                proxy_pass http://127.0.0.1:${bare}/up/;
            }

            location /counted/ {
                stoa_limit_apply scan;
                proxy_pass http://127.0.0.1:${bare}/up/;
            }

            location /paged/ {
                stoa_auth required;
                error_page 401 /sorry;
            }

            location /up/ {
                add_header X-Request-Id "of-the-backend" always;
                return 200 "up";
            }

            location = /sorry {
                return 200 "sorry";
            }
        }`,
    },
  });
  olga = await app.user('organizer');
});
after(async () => {
  await app?.stop();
  givePort(bare);
});

/* Status, headers as they came, body. */
function ask(where, { token, method = 'GET', headers } = {}) {
  return new Promise((done, failed) => {
    http.request({
      host: '127.0.0.1', port: bare, path: where, method, agent: false,
      headers: { ...(token && { Authorization: `Bearer ${token}` }),
        ...headers },
    }, (res) => {
      let text = '';

      res.on('data', (chunk) => { text += chunk; });
      res.on('end', () => done({
        status: res.statusCode, text, headers: res.headersDistinct,
      }));
    }).on('error', failed).end();
  });
}

const logged = (id) => until(() => {
  const line = fs.readFileSync(path.join(app.dir, 'log/access.log'), 'utf8')
    .split('\n').find((text) => text.includes(id));

  return line && JSON.parse(line);
}, { timeout: 3000, what: `a line of ${id}` });

const ID = /^[0-9a-f]{8}-[0-9a-f-]{27}$/;

test('a gate alone: its answers carry one request id, the log too', async () => {
  const admin = await app.user('admin');
  const cases = [
    [await ask('/gated/'), 401, 'UNAUTHENTICATED'],
    [await ask('/gated/', { token: olga.token }), 403, 'FORBIDDEN'],
    [await ask('/gated/', { token: admin.token }), 200, ''],
    [await ask('/counted/'), 200, ''],
    [await ask('/paged/x'), 401, 'UNAUTHENTICATED'],
  ];

  for (const [res, status, code] of cases) {
    const ids = res.headers['x-request-id'];

    assert.equal(res.status, status, res.text);
    assert.equal(ids?.length, 1, JSON.stringify(res.headers));
    assert.match(ids[0], ID);
    if (res.text.startsWith('{')) {
      assert.equal(JSON.parse(res.text).error.request_id, ids[0]);
    }
    assert.equal((await logged(ids[0])).error, code);
  }
  /* no gate, no id of ours */
  assert.deepEqual((await ask('/up/')).headers['x-request-id'],
    ['of-the-backend']);
});

function answer(text) {
  const [head, body] = text.split('\r\n\r\n');

  return {
    status: Number(head.slice(9, 12)), head,
    error: body ? JSON.parse(body).error : undefined,
    id: /^x-request-id: (.*)$/im.exec(head)?.[1],
  };
}

test('an error that nginx makes is named in the log, too', async () => {
  const cases = [
    ['POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nConnection: close\r\n' +
      'Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n' +
      'zz\r\n', 400, 'BAD_REQUEST'],
    ['GET /api/v1/events HTTP/9.9\r\nHost: x\r\n\r\n', 505,
      'HTTP_VERSION_NOT_SUPPORTED'],
    ['GET /no/such/page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', 404,
      'NOT_FOUND'],
  ];

  for (const [bytes, status, code] of cases) {
    const res = answer(await app.raw(bytes));

    assert.equal(res.status, status, res.head);
    assert.equal(res.error.code, code);
    assert.equal(res.error.request_id, res.id);
    assert.equal((await logged(res.id)).error, code);
  }
  assert.match(await app.raw('GET / HTTP/9.9\r\nHost: x\r\n\r\n'),
    /^HTTP\/1\.1 505 HTTP Version Not Supported\r\n/);
});

test('every 405 says what is allowed, TRACE and files too', async () => {
  const cases = [
    ['TRACE', '/api/v1/events', 'GET, HEAD, POST, OPTIONS'],
    ['TRACE', '/events/', 'GET, HEAD'],
    ['POST', '/events/', 'GET, HEAD'],
    ['DELETE', '/health/live', 'GET, HEAD'],
  ];

  for (const [method, where, allow] of cases) {
    const res = answer(await app.raw(`${method} ${where} HTTP/1.1\r\n` +
      'Host: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n'));

    assert.equal(res.status, 405, `${method} ${where} ${res.head}`);
    assert.equal(res.error.code, 'METHOD_NOT_ALLOWED');
    assert.match(res.head, new RegExp(`^Allow: ${allow}$`, 'm'));
  }
});

test('an exhausted address: 405 and 404 are 429, OPTIONS is not', async () => {
  const preflight = (more) => app.api('OPTIONS', '/api/v1/events', {
    validate: false, headers: { Origin: 'https://a.example',
      'Access-Control-Request-Method': 'GET', ...more },
  });

  /* asking first takes nothing of what is asked for */
  for (let i = 0; i < 30; i++) assert.equal((await preflight()).status, 204);
  assert.equal((await app.api('GET', '/api/v1/events')).status, 200);
  for (let i = 0, status; i < 20 && status !== 429; i++) {
    status = (await app.api('GET', '/api/v1/events')).status;
  }
  assert.equal((await app.api('DELETE', '/api/v1/events',
    { validate: false })).status, 429);
  assert.equal((await app.api('GET', '/api/v1/no-such-thing')).status, 429);
  /* refused, it would hide the 429 and its Retry-After from the page */
  assert.equal((await preflight()).status, 204);
  assert.equal((await preflight({ 'Access-Control-Request-Method': 'PATCH' }))
    .status, 204);
});

test('a body that is packed or in another charset is 415', async () => {
  const post = (headers) => app.api('POST', '/api/v1/events', {
    token: olga.token, validate: false, body: '{"title":1}', headers,
  });
  const type = (value) => post({ 'Content-Type': value });

  for (const coding of ['gzip', 'br', 'identity, gzip']) {
    const res = await post({ 'Content-Type': 'application/json',
      'Content-Encoding': coding });

    assert.equal(res.status, 415, coding);
    assert.equal(res.error.code, 'UNSUPPORTED_MEDIA_TYPE');
  }
  for (const value of ['application/json; charset=latin1',
    'application/json;charset="utf-16"', 'application/json; a=b; Charset=x',
    'application/json; charset=']) {
    assert.equal((await type(value)).status, 415, value);
  }
  for (const value of ['application/json', 'application/json; charset=utf-8',
    'application/json;charset="UTF-8" ; a=b', 'application/json;']) {
    assert.equal((await type(value)).status, 400, value);
  }
  assert.equal((await post({ 'Content-Type': 'application/json',
    'Content-Encoding': 'identity' })).status, 400);
});

test('two Idempotency-Keys in one request are 400', async () => {
  const body = JSON.stringify({ title: 'x' });
  const res = answer(await app.raw('POST /api/v1/events HTTP/1.1\r\n' +
    'Host: x\r\nConnection: close\r\nContent-Type: application/json\r\n' +
    `Authorization: Bearer ${olga.token}\r\n` +
    'Idempotency-Key: one\r\nIdempotency-Key: one\r\n' +
    `Content-Length: ${body.length}\r\n\r\n${body}`));

  assert.equal(res.status, 400, res.head);
  assert.ok(res.error.errors.some((e) => e.pointer === 'Idempotency-Key'
    && e.code === 'duplicate'), JSON.stringify(res.error));
});

test('pools that the server cannot hold are a warning at the start',
  async () => {
    const errors = (of) => fs.readFileSync(of.nginx.log, 'utf8');
    /* 16 of the pools twice, and 4 of the workers: 36 of 36 - 3 */
    const small = await boot({
      workers: 0, cluster: { settings: 'max_connections = 36' },
    });

    try {
      await until(() => errors(small).includes('are more than'),
        { timeout: 5000, what: 'the warning' });
      assert.match(errors(small), /\[warn\] .*stoa: 16 database connections, 32 during a reload, and 4 of "stoa work" are more than the 33 that the server has: max_connections is 36, 3 of them for superusers/);
      await small.nginx.reload();
    } finally {
      await small.stop();
    }
    assert.doesNotMatch(errors(app), /are more than/);
  });
