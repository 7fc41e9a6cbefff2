/*
 * More than there is room for: refused early, with its own word, and when it
 * is over everything is served again and nothing is counted as under way.
 */

import assert from 'node:assert/strict';
import net from 'node:net';
import { after, before, test } from 'node:test';
import { boot, until } from '../harness/index.js';

let app, alice;

before(async () => {
  app = await boot({ workers: 0,
    /* slow enough that they queue: what is tested is the order */
    conf: { ARGON2_MEMORY_KIB: '8192', ARGON2_PASSES: '2' },
    nginx: { replace: [[/stoa_hash threads=auto queue=64 wait=800ms;/,
      'stoa_hash threads=1 queue=8 wait=60s;']] } });
  alice = await app.user();
});
after(() => app?.stop());

const post = (body) => app.api('PATCH', '/api/v1/users/me',
  { token: alice.token, body });
const served = async () => assert.equal((await app.api('GET',
  '/api/v1/users/me', { token: alice.token })).status, 200);

test('deep, wide and long JSON is 400 or 413', async () => {
  const deep = (n, open, close) => open.repeat(n) + close.repeat(n);
  const bodies = {
    'arrays': `{"firstName":${deep(100000, '[', ']')}}`,
    'objects': `${'{"a":'.repeat(100000)}1${'}'.repeat(100000)}`,
    'open arrays': '['.repeat(1000000),
    'open objects': '{"a":'.repeat(150000),
    '33 levels': `{"firstName":${deep(33, '[', ']')}}`,
    'many members': `{${Array.from({ length: 90000 },
      (_, i) => `"m${i}":1`).join(',')}}`,
    'one member many times': `{${'"firstName":"x",'.repeat(60000)
      .slice(0, -1)}}`,
    'many elements': `{"firstName":[${'0,'.repeat(400000)}0]}`,
    'a long number': `{"firstName":${'9'.repeat(900000)}}`,
    'a large exponent': '{"firstName":1e999999999}',
    'a long string': `{"firstName":"${'x'.repeat(900000)}"}`,
    'a long name': `{"${'x'.repeat(900000)}":1}`,
    'escapes': `{"firstName":"${'\\u0061'.repeat(150000)}"}`,
    'a million members': `{${'"a":1,'.repeat(1000000)}"b":1}`,
  };

  for (const [what, body] of Object.entries(bodies)) {
    const res = await post(body);

    assert.ok([400, 413].includes(res.status), `${what}: ${res.status}`);
    assert.ok(res.raw.length < 65536, `${what}: ${res.raw.length} bytes`);
  }
  await served();
});

test('lists are bounded before work begins', async () => {
  const id = '01900000-0000-7000-8000-000000000001';

  for (const items of [[], Array(21).fill({ ticketTypeId: id, quantity: 1 }),
    [{ ticketTypeId: id, quantity: 101 }], [{ ticketTypeId: id, quantity: 0 }],
    [{ ticketTypeId: id, quantity: 1e15 }],
    [{ ticketTypeId: id, quantity: -1 }]]) {
    assert.equal((await app.api('POST', '/api/v1/orders',
      { token: alice.token, body: { items } })).status, 400);
  }
  for (const query of ['limit=101', 'limit=0', 'limit=-1', 'page=1000001',
    'limit=99999999999999999999', `cursor=${'x'.repeat(2000)}`]) {
    assert.equal((await app.api('GET', `/api/v1/events?${query}`)).status, 400,
      query);
  }
  assert.equal((await app.api('GET',
    '/api/v1/events?page=1000000&limit=100')).status, 200);
});

const login = (i) => ({ method: 'POST', path: '/api/v1/auth/login',
  body: { email: `nobody-${i}@test.example`, password: 'whatever it is' } });

test('hashes beyond the queue are refused while the others wait', async () => {
  const all = await app.barrier(200, login);
  const by = {};

  for (const res of all) {
    by[res.status] = (by[res.status] ?? 0) + 1;
    if (res.status === 503) {
      assert.equal(res.error.code, 'HASH_QUEUE_FULL');
      assert.ok(Number(res.headers['retry-after']) > 0);
    } else assert.equal(res.status, 401);
  }
  assert.ok(by[401] >= 9, 'those that were queued are answered');
  assert.ok(by[503] > 0, 'the others are told');
  assert.equal((await app.api('POST', '/api/v1/auth/login', { body:
    { email: alice.email, password: alice.password } })).status, 200);
});

async function metric(name) {
  const text = (await app.api('GET', '/metrics', { validate: false })).text;

  return Number(text.match(new RegExp(`^${name} (\\d+)`, 'm'))?.[1]);
}

test('clients that leave while they wait give their places back', async () => {
  for (let round = 0; round < 5; round++) {
    await Promise.all(Array.from({ length: 60 }, (_, i) =>
      new Promise((done) => {
        const body = JSON.stringify(login(i).body);
        const socket = net.connect({ host: '127.0.0.1', port: app.port }, () =>
          socket.write('POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\n' +
            'Content-Type: application/json\r\n' +
            `Content-Length: ${body.length}\r\n\r\n${body}`, () =>
            setImmediate(() => socket.resetAndDestroy())));

        socket.on('error', () => {});
        socket.on('close', done);
      })));
  }
  await until(async () => await metric('stoa_hash_queued') === 0,
    { what: 'the queue of hashes to be empty' });
  assert.equal((await app.api('POST', '/api/v1/auth/login', { body:
    { email: alice.email, password: alice.password } })).status, 200);
  await served();
});

test('what was left still counts against the limit of failures', async () => {
  const bob = await app.user();
  const body = JSON.stringify({ email: bob.email, password: 'not this one' });

  for (let i = 0; i < 5; i++) {
    assert.equal((await app.api('POST', '/api/v1/auth/login', { body })).status,
      401);
  }
  assert.equal((await app.api('POST', '/api/v1/auth/login', { body })).status,
    429);
});
