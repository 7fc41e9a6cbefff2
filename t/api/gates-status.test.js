/*
 * Metrics, health, the micro-cache, the log: what an operator looks at.
 */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { boot, sleep, until } from '../harness/index.js';

let app, olga;

before(async () => {
  app = await boot({ workers: 1, nginxWorkers: 2, cluster: 'own' });
  olga = await app.user('organizer');
});
after(() => app?.stop());

const page = (url) => app.api('GET', url, { validate: false });

async function metrics() {
  const { text, headers } = await page('/metrics');
  const series = {};

  assert.equal(headers['content-type'],
    'text/plain; version=0.0.4; charset=utf-8');

  for (const line of text.split('\n')) {
    const at = line.lastIndexOf(' ');

    if (line && !line.startsWith('#')) {
      assert.ok(!(line.slice(0, at) in series), `twice: ${line}`);
      series[line.slice(0, at)] = Number(line.slice(at + 1));
    }
  }
  return { text, series };
}

test('promtool accepts the metrics', async () => {
  await page('/api/v1/events');

  const { text } = await metrics();
  const { status, stdout, stderr } = spawnSync('promtool',
    ['check', 'metrics'], { input: text, encoding: 'utf8' });

  assert.equal(status, 0, stdout + stderr);
});

test('counters are exact over workers and go on over a reload', async () => {
  const key = 'stoa_requests_total' +
    '{route="auth.check",method="GET",status="2xx"}';
  const count = `stoa_phase_seconds_count` +
    `{route="auth.check",method="GET",phase="total"}`;
  const first = (await metrics()).series;

  await app.barrier(40, () => ({ method: 'GET', path: '/api/v1/auth/check',
    token: olga.token }));
  await app.nginx.reload();
  await app.barrier(30, () => ({ method: 'GET', path: '/api/v1/auth/check',
    token: olga.token }));

  const { series } = await metrics();

  assert.equal(series[key] - (first[key] ?? 0), 70);
  assert.equal(series[count] - (first[count] ?? 0), 70);

  for (const [name, value] of Object.entries(first)) {
    if (/_total\b|_bucket|_count|_sum/.test(name)) {
      assert.ok(series[name] >= value, `${name} went back`);
    }
  }
});

test('a pool tells how long its statements waited and ran', async () => {
  const of = (series, name) => series[`stoa_pg_${name}{pool="fast"}`];
  const first = (await metrics()).series;
  const client = await app.client('stoa_owner');

  await client.query('begin; lock table app.events in access exclusive mode');

  const answer = page('/api/v1/events?limit=13');

  await sleep(300);
  await client.query('commit');
  await client.end?.();
  assert.equal((await answer).status, 200);

  await until(async () => {
    const { series } = await metrics();

    for (const kind of ['wait', 'run']) {
      assert.ok(of(series, `${kind}_seconds_count`)
        > of(first, `${kind}_seconds_count`), `${kind} counts`);
    }
    assert.ok(of(series, 'wait_seconds_sum') >= of(first, 'wait_seconds_sum'));

    const ran = of(series, 'run_seconds_sum') - of(first, 'run_seconds_sum');

    assert.ok(ran >= 0.2 && ran < 30, `ran for ${ran} seconds`);
    return true;
  });
});

test('series do not grow with what clients send', async () => {
  await page('/api/v1/nothing/1');
  /* the workers' own series come whenever they report */
  const routes = async () => Object.keys((await metrics()).series)
    .filter((name) => /^stoa_(requests|phase)_/.test(name)).length;
  const first = await routes();

  await app.barrier(200, (i) => ({ method: 'GET', validate: false,
    path: `/api/v1/nothing/${i}?x=${i}` }));
  assert.equal(await routes(), first);
});

test('what workers counted is there, and nonsense is left out', async () => {
  await app.redis.hset('stoa:metrics', {
    'stoa_check_depth{queue="a"}': '3', stoa_check_total: '12',
    'bad name': '1', 'stoa_check_bad': 'x', 'stoa_check_open{': '1',
  });

  const { text, series } = await metrics();

  assert.equal(series['stoa_check_depth{queue="a"}'], 3);
  assert.equal(series.stoa_check_total, 12);
  assert.ok(!text.includes('bad name'));
  assert.ok(!text.includes('stoa_check_bad'));
  assert.ok(!text.includes('stoa_check_open'));
});

/* ---- micro-cache ---- */

test('one statement for many who ask at the same time', async () => {
  const client = await app.client('stoa_owner');
  const answers = [];

  await client.query('begin; lock table app.events in access exclusive mode');

  for (let i = 0; i < 20; i++) {
    answers.push(page(`/api/v1/events?limit=7&page=1`));
    answers.push(page(`/api/v1/events?page=1&limit=7`));
  }

  await until(async () => (await app.value(`select count(*)::int
    from pg_stat_activity where usename = 'stoa_edge'
    and wait_event_type = 'Lock'`)) >= 1
    || Promise.reject(new Error('nobody waits')));
  await sleep(200);

  const waiting = await app.value(`select count(*)::int
    from pg_stat_activity where usename = 'stoa_edge'
    and wait_event_type = 'Lock'`);

  await client.query('commit');
  await client.end?.();

  for (const res of await Promise.all(answers)) {
    assert.equal(res.status, 200);
  }
  /* one per process */
  assert.ok(waiting >= 1 && waiting <= 2, `${waiting} statements`);
});

test('the one who flies leaves: the others get their answer', async () => {
  const client = await app.client('stoa_owner');

  await client.query('begin; lock table app.events in access exclusive mode');

  const gone = new AbortController();
  const first = app.api('GET', '/api/v1/events?limit=9',
    { signal: gone.signal, validate: false }).catch(() => null);

  await sleep(100);

  const others = [1, 2, 3].map(() => page('/api/v1/events?limit=9'));

  await sleep(100);
  gone.abort();
  await first;
  await sleep(50);
  await client.query('commit');
  await client.end?.();

  for (const res of await Promise.all(others)) {
    assert.equal(res.status, 200);
  }
});

test('an answer lives for its time, no longer', async () => {
  const title = `cached ${Date.now()}`;
  const list = async () =>
    (await page('/api/v1/events?limit=11')).text.includes(title);

  assert.equal(await list(), false);
  await app.event(olga, { title, types: [{ priceCents: 0, quota: 5 }] });
  await until(async () => await list()
    || Promise.reject(new Error('still the old list')), { timeout: 3000 });
});

/* ---- log and health ---- */

test('the request id is in the answer, the access log, the error log',
  async () => {
    const { headers } = await page('/mail/files/no-such.eml');
    const id = headers['x-request-id'];
    const log = (name) => fs.readFileSync(
      path.join(app.dir, 'log', name), 'utf8');

    await until(() => log('access.log').includes(id)
      || Promise.reject(new Error('not in the access log')));
    assert.ok(log('nginx-error.log').split('\n').some((line) =>
      line.includes('no-such.eml')
      && line.endsWith(`request_id: "${id}"`)), 'not in the error log');
  });

test('readiness follows PostgreSQL, liveness does not', async () => {
  assert.equal((await page('/health/live')).status, 200);
  assert.equal((await page('/health/ready')).status, 200);

  await app.cluster.stop('immediate');
  await until(async () => (await page('/health/ready')).status === 503
    || Promise.reject(new Error('ready without a database')));

  assert.equal((await page('/health/live')).status, 200);
  /* gates go on: the token needs no database */
  assert.equal((await app.api('GET', '/api/v1/auth/check',
    { token: olga.token })).status, 200);

  await app.cluster.start();
  await until(async () => (await page('/health/ready')).status === 200
    || Promise.reject(new Error('not ready again')), { timeout: 15000 });
  assert.equal((await app.api('GET', '/api/v1/users/me',
    { token: olga.token })).status, 200);
});

test('a schema that is missing is not ready', async () => {
  await app.sql(`alter function api.revocations_since(timestamptz, int)
    rename to revocations_hidden`);
  await until(async () => {
    const res = await page('/health/ready');

    return (res.status === 503 && res.body.checks.schema === 'missing')
      || Promise.reject(new Error(`says ${res.text}`));
  }, { timeout: 5000 });
  await app.sql(`alter function api.revocations_hidden(timestamptz, int)
    rename to revocations_since`);
  await until(async () => (await page('/health/ready')).status === 200
    || Promise.reject(new Error('not ready again')), { timeout: 5000 });
});
