/*
 * Limits that Redis counts for two nodes: one number for both, one command a
 * request, none for a key that is refused; and what happens when Redis is
 * slow, full, emptied or gone while requests wait for it.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import http2 from 'node:http2';
import net from 'node:net';
import { after, before, test } from 'node:test';
import { boot, until } from '../harness/index.js';
import * as rows from '../derived/rows.js';

const SHOW = `add_header X-Limit
  "$stoa_limit $stoa_limit_status $stoa_limit_remaining" always;`;

const PASS = 'proxy_pass http://unix:@STATE@/run/back.sock:/;';

const PLACES = {
  few: 'stoa_auth required; stoa_limit_apply few;',
  several: 'stoa_auth required; stoa_limit_apply few other third;',
  window: 'stoa_auth required; stoa_limit_apply window;',
  dear: 'stoa_auth required; stoa_limit_apply dear;',
  trial: 'stoa_auth required; stoa_limit_apply trial;',
  guess: 'stoa_limit_apply guesses;',
  patient: 'stoa_auth required; stoa_limit_apply patient;',
  tight: 'stoa_auth required; stoa_limit_apply tight;',
  wrapped: 'stoa_auth required; stoa_limit_apply few; try_files /none @app;',
  late: 'try_files /none @late;',
  missing: `stoa_auth required; stoa_limit_apply other;
    proxy_intercept_errors on; error_page 401 = @late;`,
};

const locations = Object.entries(PLACES).map(([name, text]) => `
  location /${name}/ { ${text} ${SHOW} ${PASS} }`).join('');

let app, backend;
const slow = []; /* what waits to be answered */

before(async () => {
  backend = net.createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', () => slow.push(socket));
  }).listen(0, '127.0.0.1');
  await once(backend, 'listening');
  app = await boot({
    workers: 0, nodes: 2, nginxWorkers: 2, validate: false,
    nginx: {
      http: `
        set_real_ip_from 127.0.0.1;
        real_ip_header X-Forwarded-For;
        stoa_limit few key=user rate=3/h burst=3 scope=cluster timeout=5s;
        stoa_limit other key=user rate=9/h burst=9 scope=cluster timeout=5s;
        stoa_limit third key=addr rate=10000/h burst=10000 scope=cluster
            timeout=5s;
        stoa_limit window key=user rate=100/s burst=100 quota=4/d
            scope=cluster timeout=5s;
        stoa_limit dear key=user rate=10/h burst=10 cost=4 scope=cluster
            timeout=5s;
        stoa_limit trial key=user rate=1/h burst=1 dry_run scope=cluster
            timeout=5s;
        stoa_limit guesses key=addr rate=3/h burst=3 on=failure scope=cluster
            timeout=5s;
        stoa_limit patient key=user rate=50/h burst=50 scope=cluster
            timeout=5s;
        stoa_limit tight key=user rate=50/h burst=50 scope=cluster
            timeout=20ms;
        server {
            listen unix:@STATE@/run/back.sock;
            location / {
                if ($arg_s = 401) { return 401; }
                return 200 "ok";
            }
        }
        server {
            listen unix:@STATE@/run/h2.sock http2;
            ${locations}
        }`,
      replace: [
        [/stoa_limit write rate=\S+ burst=\S+ key=user;/,
          'stoa_limit write rate=9/h burst=9 key=user scope=cluster timeout=5s;'],
        ['location = / {', `
          location @app { ${SHOW} ${PASS.replace(':/;', ':;')} }
          location /slow/ {
              stoa_limit_apply guesses;
              proxy_pass http://127.0.0.1:${backend.address().port};
          }
          location @late {
              stoa_auth required;
              stoa_limit_apply few;
              ${SHOW}
              ${PASS.replace(':/;', ':;')}
          }
          ${locations}
          location = / {`]],
    },
  });
  await app.clock.freeze();
});
after(async () => {
  await app?.stop();
  backend.close();
});

const mint = (claims) => rows.mint(app,
  { exp: Math.floor(Date.now() / 1000) + 9 * 86400, ...claims });

let hosts = 0;
const address = () => `10.9.${++hosts >> 8}.${hosts & 255}`;

const get = (path, { token, node = 0, from = '10.8.0.1', ...more } = {}) =>
  app.barrier(1, () => ({ path, token, node, ...more,
    headers: { 'X-Forwarded-For': from } })).then(([res]) => res);

/* n requests in a row, at one node after the other. */
async function row(n, path, spec) {
  const all = [];

  for (let i = 0; i < n; i++) {
    all.push((await get(path, { ...spec, node: i % 2 })).status);
  }
  return all;
}

const tally = (all) => all.reduce((by, { status }) =>
  ({ ...by, [status]: (by[status] ?? 0) + 1 }), {});

/* Scripts that Redis has run. */
async function scripts() {
  const text = await app.redis.info('commandstats');
  const calls = (name) => Number(new RegExp(
    `^cmdstat_${name}:calls=(\\d+)`, 'm').exec(text)?.[1] ?? 0);

  return calls('evalsha') + calls('eval');
}

async function metric(name, node = 0) {
  const { text } = await get('/metrics', { node, from: '127.0.0.1' });

  return Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(text)[1]);
}

const log = (node = 0) => fs.readFileSync(app.nodes[node].nginx.log, 'utf8');
const count = (text, re) => [...text.matchAll(re)].length;

/* All processes of both nodes have a connection again, and use it. */
async function asking() {
  await until(async () => {
    const was = await scripts();
    const connected = count(await app.redis.client('LIST'),
      /cmd=(script|eval)/g);

    await app.barrier(24, (i) => ({ path: '/patient/', node: i % 2,
      token: mint() }));
    return connected >= 4 && await scripts() - was >= 24;
  }, { what: 'both nodes to ask Redis', timeout: 30000 });
}

/* ---- one counter ---- */

test('two nodes have one counter, and tell the same', async () => {
  const token = mint();

  assert.equal((await get('/few/', { token, node: 0 })).headers.ratelimit,
    '"few";r=2;t=1200');
  assert.equal((await get('/few/', { token, node: 1 })).headers.ratelimit,
    '"few";r=1;t=2400');
  assert.equal((await get('/few/', { token, node: 1 })).headers['x-limit'],
    'few PASSED 0');

  for (const node of [0, 1]) {
    const res = await get('/few/', { token, node });

    assert.equal(res.status, 429);
    assert.equal(res.headers['retry-after'], '1200');
    assert.equal(res.headers.ratelimit, '"few";r=0;t=1200');
    assert.deepEqual(res.error['violated-policies'], ['few']);
  }
  await app.clock.advance(1200000);
  assert.deepEqual(await row(2, '/few/', { token }), [200, 429]);
  await app.clock.advance(-1200000);
});

test('a class of rows, too; a body waits with its request', async () => {
  const user = await app.user();
  const patch = (i) => ({ method: 'PATCH', path: '/api/v1/users/me',
    token: user.token, node: i % 2, body: { firstName: `x${i}` } });

  assert.deepEqual(tally(await app.barrier(20, patch)), { 200: 9, 429: 11 });
});

test('quota, cost and dry run count for both', async () => {
  const token = mint();

  assert.deepEqual(await row(6, '/window/', { token }),
    [200, 200, 200, 200, 429, 429]);
  const res = await get('/window/', { token, node: 1 });

  assert.deepEqual(res.error['violated-policies'], ['window.quota']);
  assert.equal(res.headers['retry-after'], '86400');
  assert.match(res.headers.ratelimit, /"window.quota";r=0;t=86400$/);

  assert.deepEqual(await row(3, '/dear/', { token }), [200, 200, 429]);
  assert.deepEqual(await row(3, '/trial/', { token }), [200, 200, 200]);
  assert.equal((await get('/trial/', { token, node: 1 })).headers['x-limit'],
    'trial REJECTED_DRY_RUN 0');
});

test('failures: what is none is given back to both', async () => {
  const from = address();

  assert.deepEqual(new Set(await row(10, '/guess/', { from })), new Set([200]));
  await app.barrier(20, (i) => ({ path: '/guess/', node: i % 2,
    headers: { 'X-Forwarded-For': from } }));
  /* that nobody waits for */
  await until(async () => (await get('/guess/', { from, node: 1 }))
    .headers.ratelimit === '"guesses";r=3;t=0', { what: 'the refunds' });
  assert.deepEqual(await row(5, '/guess/?s=401', { from }),
    [401, 401, 401, 429, 429]);
  assert.deepEqual(await row(2, '/guess/', { from }), [429, 429]);

  /* also with a Redis that has forgotten the scripts */
  const other = address();

  await app.redis.script('FLUSH');
  assert.deepEqual(new Set(await row(8, '/guess/', { from: other })),
    new Set([200]));
});

test('failures: what one node holds for a moment stops no other for long',
  async () => {
    const from = address();

    /* all that there is waits for its answers at node 0 */
    const held = app.barrier(3, () => ({ path: '/slow/',
      headers: { 'X-Forwarded-For': from } }));

    /* before that, who asks here would hold one of them for a moment */
    await until(() => slow.length === 3, { what: 'three waiting requests' });
    assert.equal((await get('/guess/', { from, node: 1 })).status, 429);
    slow.splice(0).forEach((socket) => socket.end(
      'HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok'));
    assert.deepEqual(tally(await held), { 200: 3 });
    await until(async () => (await get('/guess/', { from, node: 1 })).status
      === 200, { what: 'all to be given back' });
  });

/* ---- commands ---- */

test('several limits are one command; together or not at all', async () => {
  const token = mint();
  const was = await scripts();

  assert.deepEqual(await row(2, '/several/', { token }), [200, 200]);
  assert.equal(await scripts() - was, 2);
  assert.equal((await get('/wrapped/', { token })).headers['x-limit'],
    'few PASSED 0');
  assert.equal(await scripts() - was, 3, 'a redirect asks nothing more');

  const res = await get('/several/', { token });

  assert.equal(res.status, 429);
  /* of the others it tells what this node has heard of them */
  assert.match(res.headers.ratelimit,
    /^"few";r=0;t=1200, "other";r=[78];t=\d+, "third";r=9{3}\d;/);
});

test('a redirect can wait, too, and a second time', async () => {
  const token = mint();
  const was = await scripts();

  assert.equal((await get('/late/', { token })).headers['x-limit'],
    'few PASSED 2');
  assert.equal(await scripts() - was, 1);
  /* the first location's limit was asked, then that of the error's page */
  const res = await get('/missing/?s=401', { token, node: 1 });

  assert.equal(res.headers.ratelimit,
    '"few";r=1;t=2400, "other";r=8;t=400');
  assert.equal(await scripts() - was, 3);
});

test('a key that is refused is refused without asking', async () => {
  const token = mint();

  assert.deepEqual(await row(4, '/few/', { token }), [200, 200, 200, 429]);
  assert.equal((await get('/few/', { token })).status, 429);

  const was = await scripts();
  const told = await metric('stoa_limit_remembered_total')
    + await metric('stoa_limit_remembered_total', 1);
  const all = await app.barrier(40, (i) => ({ path: '/few/', token,
    node: i % 2 }));

  assert.deepEqual(tally(all), { 429: 40 });
  assert.equal(await scripts(), was);
  assert.equal(await metric('stoa_limit_remembered_total')
    + await metric('stoa_limit_remembered_total', 1), told + 40);
  /* until its time */
  await app.clock.advance(1200000);
  assert.equal((await get('/few/', { token })).status, 200);
  assert.equal(await scripts(), was + 1);
  await app.clock.advance(-1200000);
});

test('Redis knows no address and no user', async () => {
  const sub = crypto.randomUUID();

  await get('/several/', { token: mint({ sub }), from: '10.77.66.55' });
  const keys = await app.redis.keys('*limit*');

  assert.ok(keys.length > 0);
  for (const key of keys) {
    assert.match(key, /^stoa:\{limit\}:[a-z]+:[0-9a-f]{32}$/);
    assert.ok(await app.redis.pttl(key) > 0, `${key} stays for ever`);
  }
});

/* ---- Redis fails ---- */

test('scripts that Redis forgot, values that it has not', async () => {
  const token = mint();

  await app.redis.script('FLUSH');
  assert.deepEqual(await row(2, '/few/', { token }), [200, 200]);
  for (const key of await app.redis.keys('stoa:{limit}:few:*')) {
    await app.redis.set(key, 'nonsense');
  }
  assert.deepEqual(await row(3, '/few/', { token: mint() }), [200, 200, 200]);
});

test('an answer that is an error: the nodes count by themselves', async () => {
  const token = mint();

  await app.redis.config('SET', 'maxmemory', '1');
  try {
    const all = await app.barrier(20, (i) => ({ path: '/few/', token,
      node: i % 2 }));

    assert.deepEqual(tally(all), { 200: 6, 429: 14 });
  } finally {
    await app.redis.config('SET', 'maxmemory', '0');
  }
  assert.match(log(), /\[warn\] .*limits of the cluster are counted by this node alone: Redis refuses the script/);
  await until(async () => {
    await asking();
    return /\[notice\] .*limits of the cluster are counted in Redis again/
      .test(log());
  }, { what: 'a word of it' });
});

test('killed in the middle: no 5xx, at most one burst a node, and back',
  async () => {
    const token = mint(), other = mint();
    const was = count(log(), /counted by this node alone/g);

    assert.deepEqual(tally(await app.barrier(20, (i) => ({ path: '/patient/',
      token, node: i % 2 }))), { 200: 20 });

    const running = app.barrier(300, (i) => ({ path: '/patient/', token,
      node: i % 2 }));

    await app.redisProc.stop('SIGKILL');
    try {
      const all = tally([...await running, ...await app.barrier(100, (i) => ({
        path: '/patient/', token, node: i % 2 }))]);

      assert.deepEqual(Object.keys(all), ['200', '429']);
      /* 30 were left, and what each node had heard of counts on there; what
         was lost on the way is a few */
      assert.ok(all[200] >= 30 && all[200] <= 90, JSON.stringify(all));
      assert.ok(await metric('stoa_limit_fallbacks_total') > 0);

      assert.deepEqual(tally(await app.barrier(100, () => ({
        path: '/patient/', token: other, node: 0 }))), { 200: 50, 429: 50 });
      /* once per process and change */
      assert.ok(count(log(), /counted by this node alone/g) - was <= 2);
    } finally {
      await app.startRedis();
    }
    await asking();
    /* what a node has counted is not forgotten with Redis */
    assert.equal((await get('/patient/', { token: other })).status, 429);
    assert.equal((await get('/patient/', { token: other, node: 1 })).status, 200);
    assert.deepEqual(await row(4, '/few/', { token: mint() }),
      [200, 200, 200, 429]);
  });

test('slow: answered before Redis is, by each node', async () => {
  const token = mint();
  const told = await metric('stoa_limit_fallbacks_total');
  let paused = true;

  await app.redis.call('CLIENT', 'PAUSE', '4000', 'ALL');
  const end = app.redis.ping().then(() => { paused = false; });

  for (let i = 0; i < 3; i++) {
    const all = tally(await app.barrier(40, (k) => ({ path: '/tight/', token,
      node: k % 2 })));

    assert.ok(paused, 'the answers waited for Redis');
    assert.deepEqual(Object.keys(all).filter((s) => s >= 500), []);
  }
  await end;
  assert.ok(await metric('stoa_limit_fallbacks_total') > told);
  await asking();
  assert.equal((await get('/few/', { token: mint() })).status, 200);
});

/* Redis answers nobody while fn runs. */
async function frozen(fn) {
  app.redisProc.kill('SIGSTOP');
  try {
    return await fn();
  } finally {
    app.redisProc.kill('SIGCONT');
  }
}

const sockets = (node = 0) => app.nodes[node].nginx.workerPids()
  .map((pid) => fs.readdirSync(`/proc/${pid}/fd`).length);

test('clients that leave while they wait leave nothing behind', async () => {
  await asking();
  const was = sockets();
  const token = mint();
  const request = `GET /patient/ HTTP/1.1\r\nHost: x\r\n` +
    `Authorization: Bearer ${token}\r\n\r\n`;

  await frozen(async () => {
    const all = await Promise.all(Array.from({ length: 60 }, () =>
      new Promise((done) => {
        const socket = net.connect(app.port, '127.0.0.1', () =>
          socket.write(request, () => done(socket)));

        socket.on('error', () => {});
      })));

    await until(() => sockets().reduce((a, b) => a + b)
      >= was.reduce((a, b) => a + b) + 60, { what: 'the requests to wait' });
    all.forEach((socket, i) =>
      i % 2 ? socket.resetAndDestroy() : socket.end());
  });
  await until(() => sockets().reduce((a, b) => a + b)
    <= was.reduce((a, b) => a + b) + 2, { what: 'the sockets to go' });
  await asking();
});

test('HTTP/2: counted alike; streams reset while they wait count too',
  async () => {
    const session = http2.connect('http://x', { createConnection: () =>
      net.connect(`${app.dir}/run/h2.sock`) });
    const stream = (path, token) => session.request({ ':path': path,
      authorization: `Bearer ${token}` });
    const status = (s) => new Promise((done, failed) => {
      s.on('response', (headers) => done(headers[':status']));
      s.on('error', failed);
      s.resume();
    });
    const token = mint();
    const all = await Promise.all(Array.from({ length: 5 }, () =>
      status(stream('/few/', token))));

    assert.deepEqual(all.sort(), [200, 200, 200, 429, 429]);

    const other = mint();

    await frozen(async () => {
      const all = Array.from({ length: 60 }, () => stream('/patient/', other));
      const answered = () => new Promise((done) => {
        session.ping(() => done());
      });

      all.forEach((s) => s.on('error', () => {}));
      await answered(); /* they wait for Redis by now */
      all.forEach((s) => s.close(http2.constants.NGHTTP2_CANCEL));
      await answered();
    });
    await asking();
    assert.equal(await status(stream('/patient/', mint())), 200);
    assert.equal(await status(stream('/patient/', other)), 429);
    session.close();
  });

test('a reload while they wait: all are answered', async () => {
  await asking();
  const old = app.nginx.workerPids();
  let waiting;

  await frozen(async () => {
    const was = sockets().reduce((a, b) => a + b);

    waiting = app.barrier(20, () => ({ path: '/patient/', token: mint() }));
    await until(() => sockets().reduce((a, b) => a + b) >= was + 20,
      { what: 'the requests to wait' });
    app.nginx.proc.kill('SIGHUP');
    await until(() => app.nginx.workerPids().some((p) => !old.includes(p)),
      { what: 'new processes' });
  });
  assert.deepEqual(tally(await waiting), { 200: 20 });
  await until(() => !app.nginx.workerPids().some((p) => old.includes(p)),
    { what: 'the old processes to end', timeout: 20000 });
  await asking();
});

test('two requests on one connection, one behind the other', async () => {
  const request = `GET /few/ HTTP/1.1\r\nHost: x\r\n` +
    `Authorization: Bearer ${mint()}\r\n`;
  const text = await app.raw(`${request}\r\n${request}Connection: close\r\n\r\n`,
    { quiet: 5000 });

  assert.equal(count(text, /HTTP\/1\.1 200/g), 2, text);
  assert.match(text, /few PASSED 2[\s\S]*few PASSED 1/);
});
