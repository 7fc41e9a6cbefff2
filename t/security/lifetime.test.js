/*
 * Requests whose client leaves (edge.md D.2, lifetime bugs): at every place
 * where one waits, the client goes first and what it waited for comes later,
 * to nobody.  Then nothing is on its way any more: no statement, no hash, no
 * request that is not freed (nginx counts those itself), and the processes
 * are the same and stop when they are told to.  Part "asan" runs this, too.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';
import { asleep, hold } from '../faults/load.js';
import { ROUNDS, boot, sleep, until } from '../harness/index.js';
import { Issuer } from '../harness/issuer.js';

const MANY = 12;
const rounds = Math.max(1, Math.round(ROUNDS / 10));

/* A hash of the highest cost that is run; nobody knows what it fits. */
const SLOW = '$2b$14$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW';

let app, issuer, doors, user, pids, db, free, paid, event;

/* PostgreSQL behind a door that can be left unanswered. */
async function door() {
  const self = { open: true, all: new Set(), waiting: 0 };
  const server = net.createServer((socket) => {
    self.all.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => self.all.delete(socket));
    if (!self.open) {
      self.waiting++;
      socket.resume();
      return;
    }
    const to = net.connect(`${self.to}/.s.PGSQL.5432`);

    to.on('error', () => socket.destroy());
    to.on('close', () => socket.destroy());
    socket.on('close', () => to.destroy());
    socket.pipe(to).pipe(socket);
  });

  server.listen(0, '127.0.0.1');
  await new Promise((done) => server.once('listening', done));
  self.port = server.address().port;
  self.drop = () => { for (const socket of self.all) socket.destroy(); };
  self.stop = () => {
    self.drop();
    server.close();
  };
  return self;
}

before(async () => {
  [issuer, doors] = [await Issuer.start(), await door()];
  const { theCluster } = await import('../harness/cluster.js');

  doors.to = (await theCluster()).data;
  app = await boot({ workers: 0, nginxWorkers: 1,
    conf: { DB_HOST: '127.0.0.1', DB_PORT: String(doors.port),
      JWT_ISSUERS: issuer.url, ISSUER_NETWORK: 'insecure' },
    nginx: {
      http: 'stoa_limit afar key=user rate=1000/s burst=1000 scope=cluster ' +
        'timeout=5s;',
      replace: [
        ['stoa_pool fast=6 write=8 slow=2', 'stoa_pool fast=2 write=2 slow=1'],
        ['queue_timeout=200ms', 'queue_timeout=60s'],
        ['fast=3s write=5s slow=30s', 'fast=60s write=60s slow=60s'],
        ['stoa_hash threads=auto queue=64 wait=800ms',
          'stoa_hash threads=1 queue=64 wait=60s'],
        ['location = / {', `
          location = /stub { stub_status; access_log off; }
          location /afar/ { stoa_auth required; stoa_limit_apply afar;
            alias ${process.cwd()}/conf/www/kit/; }
          location = / {`],
      ],
    } });
  user = await app.user();
  db = await app.user();
  await app.sql('update app.users set password_hash = $2 where id = $1',
    [db.id, SLOW]);
  event = await app.event(await app.user('organizer'),
    { types: [0, 900].map((priceCents) => ({ priceCents, quota: 1000 })) });
  [free, paid] = event.types.map(({ id }) => id);
  await app.sql(`insert into app.oauth_identities
      (id, user_id, issuer, subject, created_at)
    values (app.uuid7(), $1, $2, 'u', app.now())`, [user.id, issuer.url]);
  pids = app.nginx.workerPids();
});
after(async () => {
  await app?.stop();
  await issuer?.stop();
  doors?.stop();
});

/* n requests that are under way; gone(): their clients leave. */
function start(n, fn) {
  const all = Array.from({ length: n }, (_, i) => {
    const spec = fn(i);
    const abort = new AbortController();
    const end = app.api(spec.method ?? 'GET', spec.path,
      { ...spec, signal: abort.signal }).then((res) => res.text,
      () => 'left');

    return { abort, end };
  });

  return { async gone(told) {
    for (const { abort } of all) abort.abort();
    assert.deepEqual([...new Set(await Promise.all(
      all.map(({ end }) => end)))].filter((end) => !told?.test(end)
      && end !== 'left'), []);
  } };
}

/* While statements on this table sleep; what fails lets them go, too. */
async function locked(table, run) {
  const lock = await hold(app, table);

  try {
    await run();
  } finally {
    await lock.let();
  }
}

async function numbers() {
  const by = {};

  for (const line of (await app.api('GET', '/metrics',
    { validate: false })).text.split('\n')) {
    const m = line.match(/^(\w+)(?:\{.*\})? (\d+)$/);

    if (m) by[m[1]] = (by[m[1]] ?? 0) + Number(m[2]);
  }
  return by;
}

const reach = (name, n) => until(async () => (await numbers())[name] >= n,
  { what: `${n} of ${name}` });

/* Nothing is left, and all is served by the same processes. */
async function sound() {
  let was;

  await until(async () => {
    const { stoa_hash_queued: hashes, stoa_hash_waiting: lanes,
      stoa_pg_in_flight: sent, stoa_pg_waiting: waiting } = await numbers();
    const text = (await app.api('GET', '/stub', { validate: false })).text;
    /* requests that are not freed yet: this one, and those of the load */
    const requests = Number(text.match(/Writing: (\d+)/)[1]);

    was = { hashes, lanes, sent, waiting, requests };
    return !hashes && !lanes && !sent && !waiting && requests === 1;
  }, { timeout: 15000, what: 'nothing to be under way' }).catch((error) => {
    assert.fail(`${error.message}: ${JSON.stringify(was)}`);
  });
  assert.deepEqual(app.nginx.workerPids(), pids, 'no process died');
  /* a connection that was lost may still be on its way back */
  await until(async () => (await app.api('GET', '/api/v1/users/me',
    { token: user.token })).status === 200, { what: 'a read' });
  await until(async () => (await app.order(user, free)).status === 201,
    { what: 'a write' });
}

const login = (who) => ({ method: 'POST', path: '/api/v1/auth/login',
  body: { email: who.email, password: 'whatever it is' } });
const order = (type, more = {}) => ({ method: 'POST', path: '/api/v1/orders',
  token: user.token, body: { items: [{ ticketTypeId: type, quantity: 1 }] },
  ...more });

function leaves(name, run) {
  test(name, async () => {
    for (let i = 0; i < rounds; i++) {
      await run();
      await sound();
    }
  });
}

describe('the client leaves', () => {
  leaves('query: while a read, a write and a keyed write sleep', async () => {
    const count = await app.value('select count(*)::int from app.orders');
    const made = (await app.order(user, free)).data;

    await locked('app.orders', async () => {
      const waits = start(MANY, (i) => [
        { path: `/api/v1/orders/${made.id}`, token: user.token },
        order(free),
        order(free, { headers: { 'Idempotency-Key': crypto.randomUUID() } }),
      ][i % 3]);

      await asleep(app, 2);
      await waits.gone();
    });
    await until(async () => (await numbers()).stoa_pg_in_flight === 0,
      { what: 'the statements' });

    /* what was sent runs on, all of it or not at all */
    const now = await app.value('select count(*)::int from app.orders');

    assert.ok(now > count && now <= count + 1 + MANY, `${count}, ${now}`);
  });

  leaves('query: while many wait for one and the same answer', () =>
    locked('app.events', async () => {
      const word = crypto.randomBytes(3).toString('hex');
      const waits = start(2 * MANY, (i) =>
        ({ path: `/api/v1/events?search=${word}${i % 2 ? '' : i}` }));

      await asleep(app, 1);
      await waits.gone();
    }));

  leaves('query: while its backend dies', async () => {
    const made = (await app.order(user, free)).data;

    await locked('app.orders', async () => {
      const waits = start(MANY, () =>
        ({ path: `/api/v1/orders/${made.id}`, token: user.token }));
      const sleepers = await asleep(app, 1);

      await app.sql('select pg_terminate_backend(p) from unnest($1::int[]) p',
        [sleepers]);
      await waits.gone(/"DATABASE_UNAVAILABLE"/); /* some were told */
    });
    await until(() => app.nginx.answers(), { what: 'the edge' });
  });

  /* each connection takes several at a time; the others wait for it */
  leaves('acquire: while every connection is taken', () =>
    locked('app.orders', async () => {
      const waits = start(60, (i) => order(free, i % 2 ? {} : {
        headers: { 'Idempotency-Key': crypto.randomUUID() } }));

      await asleep(app, 2);
      await reach('stoa_pg_waiting', 1);
      await waits.gone();
    }));

  leaves('connect: while PostgreSQL does not answer', async () => {
    doors.open = false;
    doors.drop();
    try {
      await until(() => doors.waiting > 0, { what: 'a connection' });

      const waits = start(MANY, (i) => i % 2 ? order(free) : login(user));

      await sleep(50);
      await waits.gone().catch(() => {}); /* some were told 503 */
    } finally {
      doors.open = true;
      doors.waiting = 0;
      doors.drop();
    }
    await until(() => app.nginx.answers(), { what: 'the edge' });
  });

  leaves('hash: while it runs, and while others wait for the thread',
    async () => {
      const running = start(1, () => login(db));

      await reach('stoa_hash_queued', 1);

      const waits = start(MANY, (i) => login(
        { email: `nobody-${i}@test.example` }));

      await reach('stoa_hash_waiting', MANY);
      await waits.gone();
      await until(async () => (await numbers()).stoa_hash_waiting === 0,
        { what: 'their places' });
      await running.gone();
    });

  leaves('render: while a worker is to answer', async () => {
    const { tickets: [ticket] } = (await app.order(user, free)).data;
    const last = await app.value(
      'select coalesce(max(id), 0) from queue.outbox');
    const waits = start(MANY, (i) => ({ token: user.token,
      path: `/api/v1/tickets/${ticket.id}.${i % 2 ? 'pdf' : 'png'}` }));
    const tasks = await until(async () => {
      const all = await app.sql(`select id, reply_to from queue.outbox
        where id > $1 and reply_to is not null`, [last]);

      return all.length === MANY && all;
    }, { what: 'the tasks' });

    await waits.gone();
    /* late words, to nobody */
    for (const { id, reply_to: to } of tasks) {
      assert.equal(await app.redis.publish(`stoa:reply:${to}`,
        `${id}\n{"nobody":"hears"}`), 1, 'the process listens');
    }
  });

  leaves('issuer fetch: while its keys are on their way', async () => {
    issuer.delay = 1500;
    await app.clock.advance(26 * 3600 * 1000); /* what it has is too old */
    user = { ...user, ...(await app.api('POST', '/api/v1/auth/login',
      { body: { email: user.email, password: user.password } })).data };
    user.token = user.accessToken;

    const asked = issuer.asked.document + issuer.asked.keys;
    const at = Math.floor((Date.now() + app.clock.ms) / 1000);
    const tokens = await Promise.all(Array.from({ length: MANY }, (_, n) =>
      issuer.token('u', { n, iat: at, exp: at + 900 })));
    const waits = start(MANY, (i) => ({ path: '/api/v1/auth/check',
      token: tokens[i] }));

    await until(() => issuer.asked.document + issuer.asked.keys > asked,
      { what: 'the fetch' });
    await waits.gone();
    issuer.delay = 0;
    await until(async () => (await app.api('GET', '/api/v1/auth/check',
      { token: await issuer.token('u', { n: 'last', iat: at, exp: at + 900 })
      })).status === 200, { what: 'the keys' });
  });

  leaves('limit: while Redis is to count', async () => {
    const path = '/afar/tokens.css';

    assert.equal((await app.api('GET', path, { token: user.token })).status,
      200);
    app.redisProc.kill('SIGSTOP');
    try {
      const waits = start(MANY, () => ({ path, token: user.token }));

      await sleep(150);
      await waits.gone();
    } finally {
      app.redisProc.kill('SIGCONT');
    }
  });

  leaves('body: in the middle of headers, of the body, and right after them',
    async () => {
      const body = JSON.stringify(order(free).body);
      const whole = 'POST /api/v1/orders HTTP/1.1\r\nHost: x\r\n' +
        `Authorization: Bearer ${user.token}\r\n` +
        'Content-Type: application/json\r\n' +
        `Content-Length: ${body.length}\r\n\r\n${body}`;

      for (let cut = 1; cut <= whole.length; cut += 37) {
        await part(whole.slice(0, cut), cut % 2);
      }
      for (let i = 0; i < 20; i++) await part(whole, i % 6);
    });

  leaves('answer: before it has read what it asked for', async () => {
    const text = 'GET /api/v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n';

    for (let i = 0; i < 4; i++) {
      await new Promise((done) => {
        const socket = net.connect(app.port, '127.0.0.1', () => {
          socket.pause();
          socket.write(text.repeat(40), () =>
            setTimeout(() => socket.resetAndDestroy(), 20 * i));
        });

        socket.on('error', () => {});
        socket.on('close', done);
      });
    }
  });

  leaves('whenever: at any moment of a sign-in and of an order', async () => {
    const bytes = ({ path, token, body }) => {
      const data = JSON.stringify(body);

      return `POST ${path} HTTP/1.1\r\nHost: x\r\n` +
        (token ? `Authorization: Bearer ${token}\r\n` : '') +
        'Content-Type: application/json\r\n' +
        `Content-Length: ${data.length}\r\n\r\n${data}`;
    };

    await Promise.all(Array.from({ length: 60 }, (_, i) => part(bytes(i % 3
      ? login(user) : order(i % 2 ? free : paid)), i % 9)));
  });
});

test('and the process retires meanwhile: it ends, and the next one serves',
  async () => {
    const running = start(1, () => login(db));

    await reach('stoa_hash_queued', 1);

    const hashes = start(MANY, (i) => login(
      { email: `nobody-${i}@test.example` }));

    await reach('stoa_hash_waiting', MANY);
    await locked('app.orders', async () => {
      const waits = start(MANY, () => order(free));

      await asleep(app, 1);
      await app.nginx.reload({ wait: false });
      await sleep(100);
      await waits.gone();
      /* on a busy machine the slow one is over before the reload is */
      for (const one of [hashes, running]) {
        await one.gone(/"INVALID_CREDENTIALS"/);
      }
    });
    await until(() => {
      const now = app.nginx.workerPids();

      return now.length === 1 && !pids.includes(now[0]);
    }, { timeout: 15000, what: 'the old process to end' });
    pids = app.nginx.workerPids();
    await until(() => app.nginx.answers(), { what: 'the edge' });
    await sound();
  });

/* These bytes, and after some ms the client is gone. */
async function part(text, ms) {
  const socket = net.connect(app.port, '127.0.0.1');

  socket.on('error', () => {});
  await new Promise((done) => socket.once('connect', done));
  socket.write(text);
  await sleep(ms);
  if (ms % 2) socket.resetAndDestroy();
  else socket.destroy();
}
