/*
 * Limits by name, seen from outside: what they count by, what they cost, what
 * they say, and that one definition is one counter wherever it is applied.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { ROOT, boot, until } from '../harness/index.js';
import { givePort, takePort } from '../harness/proc.js';
import * as rows from '../derived/rows.js';

const SHOW = `add_header X-Limit
  "$stoa_limit $stoa_limit_status $stoa_limit_remaining" always;`;

/* The limit with a cost as conf/nginx.conf shows it. */
const SHOWN = fs.readFileSync(path.join(ROOT, 'conf/nginx.conf'), 'utf8')
  .match(/^ *#map \$args [^]*?^ *#stoa_limit reports .*$/m)[0]
  .replace(/^ *#/gm, '').replace('90/m', '40/h');

/* name: what its location says; all are proxied to one that answers ?s= */
const PLACES = {
  a: 'stoa_auth optional; stoa_limit_apply small;',
  b: 'stoa_auth required; stoa_limit_apply small;',
  route1: 'stoa_auth required; stoa_limit_apply perroute;',
  route2: 'stoa_auth required; stoa_limit_apply perroute;',
  session: 'stoa_auth required; stoa_limit_apply session;',
  window: 'stoa_auth required; stoa_limit_apply window;',
  dear: 'stoa_auth required; stoa_limit_apply dear;',
  bycost: 'stoa_auth required; stoa_limit_apply bycost;',
  said: 'stoa_auth required; stoa_limit_apply said;',
  shown: 'stoa_auth required; stoa_limit_apply reports;',
  both: 'stoa_auth required; stoa_limit_apply window few;',
  trial: 'stoa_auth required; stoa_limit_apply trial;',
  guess: 'stoa_limit_apply guesses;',
  token: 'stoa_auth required; stoa_limit_apply guesses;',
  guessfew: 'stoa_auth required; stoa_limit_apply guesses few;',
  slow: 'stoa_limit_apply guesses; error_page 502 = /nothing;',
  stock: 'stoa_auth optional; limit_req zone=stock; limit_req_status 429;',
  legacy: 'stoa_auth required; stoa_limit_apply few; stoa_limit_headers legacy;',
  silent: `stoa_auth required; stoa_limit_apply few; stoa_limit_headers off;
    stoa_errors off;`,
  page: 'stoa_auth required; stoa_limit_apply few; error_page 429 /sorry/x;',
  cancel: 'stoa_limit_apply off;',
  sub: 'stoa_auth required; stoa_limit_apply few; auth_request /inner;',
};

let app, back, api, hole, silent;

before(async () => {
  back = await takePort();
  api = await takePort();
  hole = await takePort();
  /* a backend that never answers */
  silent = net.createServer((socket) => socket.on('error', () => {}))
    .listen(hole, '127.0.0.1');
  app = await boot({
    workers: 0, validate: false,
    nginx: {
      http: `
        set_real_ip_from 127.0.0.1;
        real_ip_header X-Forwarded-For;
        limit_req_zone $stoa_user zone=stock:1m rate=1r/m;
        stoa_limit small key=user|addr rate=3/h burst=3;
        stoa_limit perroute key=user+route rate=2/h burst=2;
        stoa_limit session key=session rate=2/h burst=2;
        stoa_limit window key=user rate=100/s burst=100 quota=5/d;
        stoa_limit dear key=user rate=10/h burst=10 cost=4;
        map $arg_cost $cost { default $arg_cost; }
        stoa_limit bycost key=user rate=10/h burst=10 cost=$cost;
        stoa_limit said key=user rate=10/h burst=10 cost=$arg_cost;
        ${SHOWN}
        stoa_limit few key=user rate=2/h burst=2;
        stoa_limit trial key=user rate=1/h burst=1 dry_run log_level=warn;
        stoa_limit guesses key=addr rate=3/h burst=3 on=failure;
        stoa_limit inherited key=addr rate=1/h burst=1;
        server {
            listen 127.0.0.1:${back};
            location / {
                if ($arg_s = 401) { return 401; }
                if ($arg_s = 403) { return 403; }
                if ($arg_s = 404) { return 404; }
                if ($arg_s = 500) { return 500; }
                return 200 "ok";
            }
        }
        server {
            listen 127.0.0.1:${api};
            stoa_errors on;
            stoa_limit_apply inherited;
            location /api/ { stoa_api on; stoa_limit_apply perroute; }
            location /wrapped/ {
                stoa_auth required;
                stoa_limit_apply few;
                try_files /no/such/file @app;
            }
            location @app {
                stoa_auth required;
                stoa_limit_apply few small;
                ${SHOW}
                proxy_pass http://127.0.0.1:${back};
            }
            location /open/ {
                stoa_limit_apply small;
                try_files /no/such/file @guarded;
            }
            location @guarded {
                stoa_auth required;
                stoa_limit_apply off;
                ${SHOW}
                proxy_pass http://127.0.0.1:${back};
            }
            location /cancel/ {
                stoa_limit_apply off;
                proxy_pass http://127.0.0.1:${back};
            }
            location /inherits/ { proxy_pass http://127.0.0.1:${back}; }
        }`,
      replace: [['location = / {', `
        location = /inner {
            internal;
            stoa_limit_apply few;
            proxy_pass http://127.0.0.1:${back}/;
        }
        location /sorry/ { internal; ${SHOW} return 429 "sorry"; }
        ${Object.entries(PLACES).map(([name, text]) => `
          location /${name}/ {
              ${text}
              ${SHOW}
              proxy_pass http://127.0.0.1:${name === 'slow' ? hole : back};
          }`).join('')}
        location = / {`]],
    },
  });
  await app.clock.freeze();
});
after(async () => {
  await app?.stop();
  silent.close();
  [back, api, hole].forEach(givePort);
});

/* Of some days: the clock is moved. */
const mint = (of, claims) => rows.mint(of,
  { exp: Math.floor(Date.now() / 1000) + 9 * 86400, ...claims });

/* Runs fn some time later. */
async function later(ms, fn) {
  await app.clock.advance(ms);
  try {
    return await fn();
  } finally {
    await app.clock.advance(-ms);
  }
}

let hosts = 0;
const address = () => `10.9.${++hosts >> 8}.${hosts & 255}`;

function get(path, { token, from = '10.8.0.1', base, method = 'GET' } = {}) {
  return app.barrier(1, () => ({ path, token, method, base,
    headers: { 'X-Forwarded-For': from } })).then(([res]) => res);
}

const status = async (...args) => (await get(...args)).status;

/* The statuses of n requests in a row. */
async function row(n, ...args) {
  const all = [];

  for (let i = 0; i < n; i++) all.push(await status(...args));
  return all;
}

async function verdicts(limit) {
  const { text } = await app.api('GET', '/metrics');

  return Object.fromEntries([...text.matchAll(new RegExp(
    `^stoa_limit_verdicts_total\\{limit="${limit}",key="([^"]*)",` +
    'verdict="(\\w+)"\\} (\\d+)$', 'gm'))]
    .map(([, , verdict, n]) => [verdict, Number(n)]));
}

/* ---- what is counted ---- */

test('one definition has one counter, wherever it is applied', async () => {
  const token = mint(app);

  assert.deepEqual([...await row(2, '/a/', { token }),
    ...await row(2, '/b/', { token })], [200, 200, 200, 429]);
});

test('user|addr: a user wherever he is, else the address', async () => {
  const token = mint(app), from = address(), other = address();

  assert.deepEqual(await row(4, '/a/', { token, from }), [200, 200, 200, 429]);
  assert.equal(await status('/a/', { token, from: other }), 429);
  /* the address was not counted for it; then it is used up by nobody */
  assert.deepEqual(await row(4, '/a/', { from }), [200, 200, 200, 429]);
  assert.equal(await status('/a/', { token: mint(app), from }), 200);
  /* a token that is none counts as nobody's */
  assert.deepEqual(await row(4, '/a/', { token: 'x.y.z', from: other }),
    [401, 401, 401, 429]);
});

test('user+route: each place and each row by itself', async () => {
  const token = mint(app);
  const at = (path) => row(3, path,
    { token, base: { host: '127.0.0.1', port: api } });

  assert.deepEqual(await row(3, '/route1/', { token }), [200, 200, 429]);
  assert.deepEqual(await row(3, '/route2/', { token }), [200, 200, 429]);
  assert.deepEqual(await at('/api/v1/auth/check'), [200, 200, 429]);
  assert.deepEqual((await at('/api/v1/events'))[2], 429);
});

test('session: each of a user by itself', async () => {
  const sub = crypto.randomUUID();

  for (let i = 0; i < 2; i++) {
    assert.deepEqual(await row(3, '/session/', { token: mint(app, { sub }) }),
      [200, 200, 429]);
  }
});

test('IPv6 counts by its /64', async () => {
  assert.deepEqual(await Promise.all([1, 2, 3].map((i) =>
    status('/a/', { from: `2001:db8:1:2::${i}` }))), [200, 200, 200]);
  assert.equal(await status('/a/', { from: '2001:db8:1:2:ffff::9' }), 429);
  assert.equal(await status('/a/', { from: '2001:db8:1:3::1' }), 200);
});

test('what costs more takes more; a variable says how much', async () => {
  const token = mint(app);
  const dear = await get('/dear/', { token });

  assert.equal(dear.headers.ratelimit, '"dear";r=6;t=1440');
  assert.deepEqual(await row(2, '/dear/', { token }), [200, 429]);

  const costs = async (cost) => (await get(`/bycost/?cost=${cost}`, { token }))
    .headers['x-limit'];

  assert.equal(await costs(3), 'bycost PASSED 7');
  assert.equal(await costs(0), 'bycost PASSED 7');
  assert.equal(await costs(''), 'bycost PASSED 6');
  assert.equal(await costs('nonsense'), 'bycost PASSED 5');
  assert.equal(await costs(6), 'bycost REJECTED 5');
  assert.equal(await costs(5), 'bycost PASSED 0');
  assert.equal(await costs(1), 'bycost REJECTED 0');
  assert.equal(await costs(0), 'bycost PASSED 0');
  /* never more than all there is */
  assert.equal((await get('/bycost/?cost=99999999999', { token: mint(app) }))
    .headers['x-limit'], 'bycost PASSED 0');
});

test('what a client says itself costs one at least', async () => {
  const token = mint(app);
  const costs = async (cost) => (await get(`/said/?cost=${cost}`, { token }))
    .headers['x-limit'];

  assert.equal(await costs(0), 'said PASSED 9');
  assert.equal(await costs('000'), 'said PASSED 8');
  assert.equal(await costs('-5'), 'said PASSED 7');
  assert.equal(await costs(3), 'said PASSED 4');
});

test('costs as they are shown: what is not plain costs the most', async () => {
  for (const [query, left] of [['pages=1', 39], ['pages=19', 21],
    ['pages=20', 20], ['', 20], ['pages=0', 20], ['pages=-1', 20],
    ['pages=1&pages=20', 20], ['pages=1&p%61ges=20', 20], ['pages=%31', 20],
    ['x=1&pages=1', 20], ['pages=1.5', 20], ['PAGES=1', 20]]) {
    assert.equal((await get(`/shown/?${query}`, { token: mint(app) }))
      .headers['x-limit'], `reports PASSED ${left}`, query);
  }
});

test('a quota is a window beside the burst', async () => {
  const token = mint(app);
  const first = await get('/window/', { token });

  assert.equal(first.headers['ratelimit-policy'],
    '"window";q=100;w=1, "window.quota";q=5;w=86400');
  assert.equal(first.headers.ratelimit,
    '"window";r=99;t=1, "window.quota";r=4;t=86400');
  assert.equal(first.headers['x-limit'], 'window PASSED 4');

  await later(3600000, async () => {
    assert.deepEqual(await row(4, '/window/', { token }), [200, 200, 200, 200]);

    const res = await get('/window/', { token });

    assert.equal(res.status, 429);
    assert.deepEqual(res.error['violated-policies'], ['window.quota']);
    assert.equal(res.headers['retry-after'], String(86400 - 3600));
    assert.equal(res.headers['x-limit'], 'window REJECTED 0');
  });
  await later(86400000 - 1, async () =>
    assert.equal(await status('/window/', { token }), 429));
  await later(86400000, async () =>
    assert.equal((await get('/window/', { token })).headers['x-limit'],
      'window PASSED 4'));
});

test('together or not at all', async () => {
  const token = mint(app);

  assert.deepEqual(await row(4, '/both/', { token }), [200, 200, 429, 429]);
  /* "few" has refused twice, and "window" knows of two requests */
  assert.equal((await get('/window/', { token })).headers['x-limit'],
    'window PASSED 2');

  const res = await get('/both/', { token });

  assert.deepEqual(res.error['violated-policies'], ['few']);
  /* the tightest first */
  assert.match(res.headers.ratelimit, /^"few";r=0;t=1800, "window";r=9\d;/);
  assert.match(res.headers['ratelimit-policy'], /^"few";q=2;w=3600, "window"/);
});

test('once a request, whatever redirects it takes', async () => {
  const base = { host: '127.0.0.1', port: api };
  const token = mint(app);

  assert.equal((await get('/wrapped/x', { token, base })).headers['x-limit'],
    'few PASSED 1');
  assert.equal(await status('/wrapped/x', { token, base }), 200);
  assert.equal(await status('/wrapped/x', { token, base }), 429);
  /* the other limit of the named location was counted as often */
  assert.equal((await get('/a/', { token })).headers['x-limit'],
    'small PASSED 0');

  /* nor does a subrequest count */
  const other = mint(app);

  assert.deepEqual(await row(3, '/sub/', { token: other }), [200, 200, 429]);

  /* nor the page of a refusal */
  const third = mint(app);

  assert.deepEqual(await row(2, '/page/', { token: third }), [200, 200]);
  const page = await get('/page/', { token: third });

  assert.equal(page.text, 'sorry');
  assert.equal(page.headers['x-limit'], 'few REJECTED 0');
  assert.equal(page.headers['retry-after'], '1800');
});

test('a token is verified where it is asked for, behind a limit too',
  async () => {
    const base = { host: '127.0.0.1', port: api };
    const from = address();

    assert.equal((await get('/open/x', { token: mint(app), base, from }))
      .headers['x-limit'], 'small PASSED 2');
    assert.equal(await status('/open/x', { token: 'a.b.c', base, from }), 401);
    assert.equal(await status('/open/x', { base, from }), 401);
    assert.equal(await status('/open/x', { base, from }), 429);
  });

test('an inner list takes the place of an outer one, off of all', async () => {
  const base = { host: '127.0.0.1', port: api };

  assert.deepEqual(await row(2, '/inherits/', { base, from: address() }),
    [200, 429]);
  assert.deepEqual(await row(3, '/cancel/', { base, from: address() }),
    [200, 200, 200]);
});

test('rows without a class are not counted, nor is OPTIONS', async () => {
  const base = { host: '127.0.0.1', port: api };
  const from = address();

  for (let i = 0; i < 6; i++) {
    const [hook] = await app.barrier(1, () => ({ method: 'POST', base,
      path: '/api/v1/webhooks/stripe', body: '{}',
      headers: { 'X-Forwarded-For': from } }));

    assert.equal(hook.status, 400, hook.text);
    assert.equal(await status('/api/v1/events', { base, from,
      method: 'OPTIONS' }), 204);
  }
});

/* ---- only failures ---- */

test('on=failure: answers that are none take nothing', async () => {
  const from = address();

  assert.deepEqual(new Set(await row(12, '/guess/', { from })), new Set([200]));
  for (const s of [404, 500]) {
    assert.deepEqual(await row(4, `/guess/?s=${s}`, { from }), [s, s, s, s]);
  }
  assert.deepEqual(await row(5, '/guess/?s=401', { from }),
    [401, 401, 401, 429, 429]);
  assert.equal(await status('/guess/', { from }), 429);
  await later(1200000, async () => {
    assert.equal(await status('/guess/', { from }), 200);
    assert.equal((await get('/guess/?s=403', { from })).headers.ratelimit,
      '"guesses";r=0;t=3600');
  });
});

test('on=failure: what is no failure is back when it is answered', async () => {
  const from = address();

  for (let i = 0; i < 5; i++) {
    await app.barrier(30, () => ({ path: '/guess/',
      headers: { 'X-Forwarded-For': from } }));
  }
  assert.equal((await get('/guess/', { from })).headers.ratelimit,
    '"guesses";r=3;t=0');
  /* none of the failures among others is given back */
  const all = await app.barrier(40, (i) => ({
    path: i % 4 ? '/guess/' : '/guess/?s=401',
    headers: { 'X-Forwarded-For': from } }));
  const failed = all.filter((res) => res.status === 401).length;

  assert.ok(failed <= 3, `${failed} guesses`);
  assert.equal((await get('/guess/', { from })).status,
    failed === 3 ? 429 : 200);
});

test('on=failure: a bad token is one, a limit of others is not', async () => {
  const from = address(), token = mint(app), other = address();

  assert.deepEqual(await row(4, '/token/', { from, token: 'a.b.c' }),
    [401, 401, 401, 429]);
  assert.deepEqual(await row(6, '/guessfew/', { from: other, token }),
    [200, 200, 429, 429, 429, 429]);
  assert.equal(await status('/guess/', { from: other }), 200);
});

test('on=failure: who leaves without an answer stays charged', async () => {
  const from = address();

  for (let i = 0; i < 3; i++) {
    await new Promise((done) => {
      const socket = net.connect({ host: '127.0.0.1', port: app.port }, () => {
        socket.write(`GET /slow/ HTTP/1.1\r\nHost: x\r\n` +
          `X-Forwarded-For: ${from}\r\n\r\n`);
        setTimeout(() => socket.resetAndDestroy(), 100);
      });

      socket.on('error', () => {});
      socket.on('close', done);
    });
  }
  await until(async () => await status('/guess/', { from }) === 429,
    { what: 'three charges' });
});

/* ---- dry run ---- */

test('a dry run refuses nobody, and says whom it would', async () => {
  const token = mint(app);
  const was = await verdicts('trial');
  const all = [];

  for (let i = 0; i < 4; i++) all.push(await get('/trial/', { token }));
  assert.deepEqual(all.map((res) => [res.status, res.headers['x-limit']]), [
    [200, 'trial PASSED 0'], [200, 'trial REJECTED_DRY_RUN 0'],
    [200, 'trial REJECTED_DRY_RUN 0'], [200, 'trial REJECTED_DRY_RUN 0']]);
  for (const { headers } of all) assert.equal(headers.ratelimit, undefined);

  assert.deepEqual(await verdicts('trial'), { passed: was.passed + 1,
    refused: 0, would_refuse: was.would_refuse + 3 });
  assert.match(fs.readFileSync(app.nginx.log, 'utf8'),
    /\[warn\] .*stoa: limit "trial" would be exceeded, dry run/);
});

test('verdicts are counted by limit', async () => {
  const was = await verdicts('few');

  await row(5, '/legacy/', { token: mint(app) });
  assert.deepEqual(await verdicts('few'), { passed: was.passed + 2,
    refused: was.refused + 3, would_refuse: 0 });
});

/* ---- what is told ---- */

test('the header fields are a choice', async () => {
  const token = mint(app);
  const legacy = await get('/legacy/', { token });

  assert.deepEqual(['x-ratelimit-limit', 'x-ratelimit-remaining',
    'x-ratelimit-reset', 'ratelimit'].map((name) => legacy.headers[name]),
  ['2', '1', '1800', undefined]);
  assert.equal(await status('/legacy/', { token }), 200);

  for (const [path, type] of [['/silent/', 'text/html'],
    ['/legacy/', 'application/json']]) {
    const res = await get(path, { token });

    assert.equal(res.status, 429);
    assert.equal(res.headers['retry-after'], '1800');
    assert.equal(res.headers.ratelimit, undefined);
    assert.ok(res.headers['content-type'].startsWith(type));
  }
});

test('a refusal is the registered problem', async () => {
  const token = mint(app);

  await row(2, '/route1/', { token });
  const res = await get('/route1/', { token });

  assert.equal(res.error.type,
    'https://iana.org/assignments/http-problem-types#quota-exceeded');
  assert.deepEqual(res.error['violated-policies'], ['perroute']);
  assert.equal(res.error.code, 'RATE_LIMITED');
});

test('Retry-After is never early, and spreads those who share a key',
  async () => {
    const seen = new Set();

    for (let i = 0; i < 12; i++) {
      const from = address();

      await row(3, '/a/', { from });
      const { headers } = await get('/a/', { from });
      const [, t] = /^"small";r=0;t=(\d+)$/.exec(headers.ratelimit);
      const wait = Number(headers['retry-after']);

      assert.ok(wait >= Number(t) && wait <= Number(t) + 60,
        `${wait} of ${t}`);
      seen.add(wait - t);
    }
    assert.ok(seen.size > 3, 'all are told the same moment');

    const token = mint(app);

    await row(2, '/session/', { token });
    const { headers } = await get('/session/', { token });

    assert.equal(headers.ratelimit, `"session";r=0;t=${
      headers['retry-after']}`, 'one person needs no spreading');
  });

/* ---- verified users only ---- */

/* As the victim's own, but for the signature. */
function forged(sub) {
  const [head, body] = mint(app, { sub }).split('.');

  return `${head}.${body}.${crypto.randomBytes(32).toString('base64url')}`;
}

test('a forged token does not move the counter of whom it names', async () => {
  const sub = crypto.randomUUID();
  const from = address();

  for (let i = 0; i < 10; i++) {
    assert.equal(await status('/route1/', { token: forged(sub), from }), 401);
  }
  assert.deepEqual(await row(3, '/route1/', { token: mint(app, { sub }) }),
    [200, 200, 429]);
});

test("stock limit_req_zone $stoa_user counts who is verified", async () => {
  const sub = crypto.randomUUID();
  const token = mint(app, { sub });

  /* an empty key is not counted by limit_req */
  assert.deepEqual(await row(3, '/stock/'), [200, 200, 200]);
  for (let i = 0; i < 5; i++) {
    assert.equal(await status('/stock/', { token: forged(sub) }), 401);
  }
  assert.deepEqual(await row(2, '/stock/', { token }), [200, 429]);
  assert.equal(await status('/stock/', { token: mint(app) }), 200);
});

/* ---- configured anew ---- */

test('another rate, burst or zone keeps what was used', async () => {
  const token = mint(app), other = mint(app);
  const configure = async (from, to) => {
    const text = fs.readFileSync(app.nginx.conf, 'utf8');

    assert.ok(text.includes(from), from);
    fs.writeFileSync(app.nginx.conf, text.replace(from, to));
    await app.nginx.reload();
  };
  const said = (re) => assert.match(fs.readFileSync(app.nginx.log, 'utf8'), re);
  const left = async (who) => (await get('/dear/', { token: who }))
    .headers.ratelimit;

  assert.equal(await left(token), '"dear";r=6;t=1440');
  await row(2, '/window/', { token });
  await configure('key=user rate=10/h burst=10 cost=4',
    'key=user rate=60/h burst=20 cost=4');
  said(/\[notice\] .*stoa: limit "dear" with "key=user" has changed, what was used of it counts on/);
  assert.equal(await left(token), '"dear";r=12;t=480');
  assert.equal(await left(other), '"dear";r=16;t=240');

  await configure('key=user rate=60/h burst=20 cost=4',
    'key=user rate=60/h burst=5 cost=4');
  assert.equal((await get('/dear/', { token })).status, 429);

  await configure('main:16m', 'main:24m');
  said(/zone "main" has a new size, its revocations and limits were carried over/);
  assert.equal((await get('/dear/', { token })).status, 429);
  assert.equal((await get('/window/', { token })).headers['x-limit'],
    'window PASSED 2');
});
