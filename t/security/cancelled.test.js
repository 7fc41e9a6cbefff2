/*
 * Streams that are opened and reset at once (edge.md D.2, CVE-2023-44487):
 * what they asked for is given up, be it a hash that waits or a statement
 * that waits for a connection, they count against limits like requests that
 * were answered, and whoever is honest is served meanwhile and afterwards.
 */

import assert from 'node:assert/strict';
import http2 from 'node:http2';
import net from 'node:net';
import path from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { numbers } from '../harness/alike.js';
import { ROUNDS, boot, until } from '../harness/index.js';
import { asleep, hold } from '../faults/load.js';

const STREAMS = 200 * ROUNDS;
const RESET = http2.constants.NGHTTP2_CANCEL;

let app, alice;

before(async () => {
  app = await boot({ workers: 0, nginxWorkers: 1,
    /* a thread is busy for a while; what is tested is who comes after */
    conf: { ARGON2_MEMORY_KIB: '16384', ARGON2_PASSES: '3' },
    nginx: {
      server: 'listen unix:@STATE@/run/h2.sock http2;',
      http: `
        stoa_limit few key=addr rate=50/h burst=50;
        http2_max_concurrent_streams 256;`,
      replace: [
        ['stoa_hash threads=auto queue=64 wait=800ms',
          'stoa_hash threads=1 queue=64 wait=60s'],
        ['queue=128 queue_timeout=200ms', 'queue=4096 queue_timeout=60s'],
        ['fast=3s write=5s slow=30s', 'fast=60s write=60s slow=60s'],
        ['location = / {', `
          location = /stub { stub_status; access_log off; }
          location /few/ { stoa_limit_apply few;
            alias ${process.cwd()}/conf/www/kit/; }
          location = / {`],
      ],
    } });
  alice = await app.user();
});
after(() => app?.stop());

beforeEach(async () => assert.equal((await app.api('GET', '/api/v1/users/me',
  { token: alice.token })).status, 200));

function connect() {
  const session = http2.connect('http://x', { createConnection: () =>
    net.connect(path.join(app.dir, 'run/h2.sock')) });

  session.on('error', () => {});
  return session;
}

/* One stream; it has no other end than a reset. */
function open(session, { fields, body }, i) {
  const stream = session.request({ ':authority': 'x', ...fields(i) },
    { endStream: body === undefined });

  stream.on('error', () => {});
  stream.resume();
  if (body !== undefined) stream.end(body(i));
  return stream;
}

/* n streams on one connection, until reset(). */
function opened(n, what) {
  const session = connect();
  const streams = Array.from({ length: n }, (_, i) => open(session, what, i));

  return { reset: () => streams.forEach((stream) => stream.close(RESET)) };
}

/* n streams, each reset as soon as it was sent; nginx may end a connection
   that does only this, and then there is another. */
async function flood(n, what) {
  let session = connect();
  let left = n;

  while (left > 0) {
    if (session.destroyed || session.closed) session = connect();
    const batch = Math.min(left, 50);
    const streams = [];

    for (let i = 0; i < batch; i++) {
      const stream = open(session, what, left - i);

      streams.push(new Promise((done) => stream.on('close', done)));
      setImmediate(() => stream.close(RESET));
    }
    await Promise.all(streams);
    left -= batch;
  }
  session.destroy();
}

const login = {
  fields: () => ({ ':method': 'POST', ':path': '/api/v1/auth/login',
    'content-type': 'application/json' }),
  body: (i) => JSON.stringify({ email: `nobody-${i}@test.example`,
    password: 'whatever it is' }),
};
const search = {
  fields: (i) => ({ ':method': 'GET',
    ':path': `/api/v1/events?search=${i}-${process.pid}` }),
};

async function gauges() {
  const { text } = await app.api('GET', '/metrics', { validate: false });
  const by = {};

  for (const line of text.split('\n')) {
    const m = line.match(/^(\w+)(?:\{.*\})? (\d+)$/);

    if (m) by[m[1]] = (by[m[1]] ?? 0) + Number(m[2]);
  }
  return by;
}

/* Nothing is left of it: no hash, no statement, no request. */
const over = () => until(async () => {
  const g = await gauges();
  const { text } = await app.api('GET', '/stub', { validate: false });

  return !g.stoa_hash_queued && !g.stoa_hash_waiting && !g.stoa_pg_in_flight
    && !g.stoa_pg_waiting && / Writing: 1 /.test(text);
}, { timeout: 30000, what: 'nothing to be under way' });

/* A hash of the highest cost that is run; nobody knows what it fits. */
const SLOW = '$2b$14$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW';

const signIn = (email, password) => app.api('POST', '/api/v1/auth/login',
  { body: { email, password } });

test('sign-ins: hashes that wait for nobody are not made', async () => {
  const slow = await app.user();

  await app.sql('update app.users set password_hash = $2 where id = $1',
    [slow.id, SLOW]);

  const was = await numbers(app);
  const running = signIn(slow.email, 'whatever it is');

  await until(async () => (await gauges()).stoa_hash_queued === 1,
    { what: 'the slow one to run' });

  const waiting = opened(60, login);

  await until(async () => (await gauges()).stoa_hash_waiting === 60,
    { what: 'all to wait' });
  waiting.reset();
  await until(async () => (await gauges()).stoa_hash_waiting === 0,
    { what: 'their places' });
  assert.equal((await running).status, 401);
  await over();
  assert.equal((await numbers(app)).hashes - was.hashes, 1);
});

test('sign-ins: a flood of them leaves nothing behind', async () => {
  await flood(STREAMS, login);
  await over();
  assert.equal((await signIn(alice.email, alice.password)).status, 200);
});

test('searches: statements that wait for nobody are not sent', async () => {
  const lock = await hold(app, 'app.events');
  const was = (await gauges()).stoa_pg_run_seconds_count;
  let sent;

  try {
    const flooded = flood(STREAMS, search);

    await asleep(app, 1);
    await flooded;
    /* STOA_LOADED: others ask for events, four at a time */
    await until(async () => (await gauges()).stoa_pg_waiting <= 4,
      { what: 'the queue to be left' });
    sent = (await gauges()).stoa_pg_in_flight;
    assert.ok(sent > 0 && sent < STREAMS / 4, `${sent} were sent`);
  } finally {
    await lock.let();
  }
  await over();

  /* and what the edge asks for itself meanwhile */
  const ran = (await gauges()).stoa_pg_run_seconds_count - was;

  assert.ok(ran >= sent && ran < sent + STREAMS / 4, `${ran} of ${sent}`);
  assert.equal((await app.api('GET', '/api/v1/events')).status, 200);
});

test('they count against limits', async () => {
  await flood(60, { fields: () =>
    ({ ':method': 'GET', ':path': '/few/tokens.css' }) });
  await over();

  /* the same address as theirs, which is a socket's and has no number */
  const session = connect();
  const status = await new Promise((done, failed) => {
    const stream = session.request({ ':authority': 'x', ':method': 'GET',
      ':path': '/few/tokens.css' });

    stream.on('response', (headers) => done(headers[':status']));
    stream.on('error', failed);
    stream.resume();
  });

  session.destroy();
  assert.equal(status, 429);
});
