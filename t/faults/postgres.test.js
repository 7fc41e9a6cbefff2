/*
 * PostgreSQL fails under the edge: stopped, crashed, saturated, backends cut
 * off.  What was answered with 2xx is stored, once; what was not is said to
 * be refused or unknown; and nobody has to restart nginx.
 */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { boot } from '../harness/index.js';
import {
  asleep, fire, hold, idle, kill, load, metric, ready, sleep, sleepers, tally,
  until, watch,
} from './load.js';

const POOL = /stoa_pool [^;]*;/;
const POOL_TIMEOUT = /stoa_pool_timeout [^;]*;/;

/* The edge's pools as small as the test needs them. */
const pools = (text, timeouts = 'fast=20s write=20s slow=20s') => ({
  replace: [
    [POOL, `stoa_pool ${text};`],
    [POOL_TIMEOUT, `stoa_pool_timeout ${timeouts};`],
  ],
});

async function shop(app, types = [{ priceCents: 0, quota: 100000 }]) {
  const organizer = await app.user('organizer');
  const event = await app.event(organizer, { types });
  const member = await app.user();

  return { organizer, event, type: event.types[0].id, member };
}

const order = (user, type, extra = {}) => ({
  token: user.token, body: { items: [{ ticketTypeId: type, quantity: 1 }] },
  ...extra,
});

const orders = (app) => app.value('select count(*) from app.orders');

function refused(res, code) {
  assert.equal(res.status, 503, res.text);
  assert.equal(res.error.code, code);
  assert.ok(Number(res.headers['retry-after']) >= 1, 'Retry-After');
}

describe('PostgreSQL stopped and started', () => {
  let app, s;

  before(async () => {
    app = await boot({ cluster: 'own' });
    s = await shop(app);
  });
  after(() => app.stop());

  test('rows answer 503 at once, gates go on, nothing is restarted', async () => {
    const first = await app.order(s.member, s.type);

    assert.equal(first.status, 201);
    const { data: { key } } = await fire(app, 'POST', '/api/v1/auth/api-keys',
      { token: s.member.token, body: { name: 'x', scopes: ['*'] } });
    const byKey = (text) => fire(app, 'GET', '/api/v1/auth/check',
      { token: text });
    const pids = app.nginx.workerPids();
    const get = () =>
      fire(app, 'GET', `/api/v1/orders/${first.data.id}`, { token: s.member.token });

    assert.equal((await get()).status, 200);
    await app.cluster.stop('fast');

    await until(async () => (await get()).status === 503, { what: '503' });
    refused(await get(), 'DATABASE_UNAVAILABLE');
    refused(await app.order(s.member, s.type), 'DATABASE_UNAVAILABLE');
    refused(await fire(app, 'POST', '/api/v1/auth/login', {
      body: { email: s.member.email, password: s.member.password },
    }), 'DATABASE_UNAVAILABLE');

    const check = await fire(app, 'GET', '/api/v1/auth/check',
      { token: s.member.token });

    assert.equal(check.status, 200, 'the token is verified without a query');
    assert.equal((await fire(app, 'GET', '/api/v1/auth/check',
      { token: 'x.y.z' })).status, 401);
    /* a key that is not known yet is not called bad; a forged one is */
    refused(await byKey(key), 'DATABASE_UNAVAILABLE');
    assert.equal((await byKey(`${key.slice(0, -1)}${
      key.endsWith('a') ? 'b' : 'a'}`)).status, 401);
    assert.equal((await fire(app, 'GET', '/api/v1/nowhere')).status, 404);
    assert.equal((await fire(app, 'POST', '/api/v1/orders',
      { token: s.member.token, body: { items: 'none' } })).status, 400);
    assert.equal((await fire(app, 'GET', '/health/live')).status, 200);
    assert.equal((await fire(app, 'GET', '/health/ready')).status, 503);
    assert.equal((await fire(app, 'GET', '/metrics')).status, 200);

    await app.cluster.start();
    await ready(app);
    assert.equal((await get()).status, 200);
    assert.equal((await byKey(key)).status, 200);

    const again = await app.order(s.member, s.type);

    assert.equal(again.status, 201);
    assert.deepEqual(app.nginx.workerPids(), pids);

    /* the workers are back as well */
    await until(async () => (await app.mails((m) =>
      m.recipients.includes(s.member.email))).length >= 2,
    { timeout: 30000, what: 'the mails of both orders' });
  });
});

describe('PostgreSQL crashes under load', () => {
  let app, s;

  before(async () => {
    app = await boot({ cluster: { durable: true }, workers: 0 });
    s = await shop(app);
  });
  after(() => app.stop());

  test('nothing accepted is lost, nothing is stored twice', async () => {
    const accepted = new Set();
    const keys = new Map();
    let unknown = 0;

    /* one half with keys, which repeats until it is told yes */
    const work = load(16, async (i, k) => {
      const keyed = i % 2 === 0;
      const key = `crash-${i}-${k}`;
      const spec = order(s.member, s.type,
        keyed ? { headers: { 'Idempotency-Key': key } } : {});

      for (;;) {
        const res = await fire(app, 'POST', '/api/v1/orders', spec);

        if (res.status === 201) {
          accepted.add(res.data.id);
          if (keyed) keys.set(key, res.data.id);
          return res;
        }
        assert.equal(res.status, 503, res.text);
        if (!keyed) {
          unknown += res.error.code === 'COMMIT_UNKNOWN';
          return res;
        }
        await sleep(50);
      }
    });

    for (let round = 0; round < 2; round++) {
      await until(() => accepted.size > (round + 1) * 60, { what: 'orders' });
      await app.cluster.stop('immediate');
      await sleep(300);
      await app.cluster.start();
      await ready(app);
    }
    await until(() => accepted.size > 240, { what: 'orders' });

    const { errors, results } = await work.stop();

    assert.deepEqual(errors.map((e) => e.message), []);
    assert.ok(tally(results)[503] > 0, 'the crash was felt');

    const stored = new Set((await app.sql('select id from app.orders'))
      .map((row) => row.id));

    for (const id of accepted) assert.ok(stored.has(id), `order ${id} is lost`);
    assert.equal(new Set(keys.values()).size, keys.size, 'one order per key');
    assert.ok(stored.size <= accepted.size + unknown,
      `${stored.size} stored, ${accepted.size} accepted, ${unknown} unknown`);
  });

  test('restarted in order: only 2xx and 503 are seen', async () => {
    const work = load(8, (i) => (i % 2
      ? fire(app, 'GET', `/api/v1/events/${s.event.id}`)
      : fire(app, 'POST', '/api/v1/orders', order(s.member, s.type))));

    await sleep(200);
    await app.cluster.stop('fast');
    await app.cluster.start();
    await ready(app);
    await sleep(300);

    const { errors, results } = await work.stop();
    const counts = tally(results);

    assert.deepEqual(errors.map((e) => e.message), []);
    assert.deepEqual(Object.keys(counts).filter((c) => !/^(20.|503)$/.test(c)),
      [], JSON.stringify(counts));
    assert.equal((await fire(app, 'GET', `/api/v1/events/${s.event.id}`)).status,
      200);
  });
});

describe('PostgreSQL saturated', () => {
  let app, s;

  before(async () => {
    app = await boot({
      workers: 0,
      nginx: pools('fast=2 write=2 slow=1 queue=4 queue_timeout=15s'),
    });
    s = await shop(app);
  });
  after(() => app.stop());

  test('a full read pool answers 503 while its connections still sleep', async () => {
    const made = await app.order(s.member, s.type);
    const lock = await hold(app, 'app.orders');
    const all = Array.from({ length: 400 }, () => watch(fire(app, 'GET',
      `/api/v1/orders/${made.data.id}`, { token: s.member.token })));

    await until(() => all.filter((w) => w.done).length > 0, { what: '503' });

    const early = all.filter((w) => w.done);

    for (const w of early) refused(w.done, 'POOL_SATURATED');
    assert.equal((await asleep(app, 2)).length, 2, 'they still sleep');

    /* other pools, and what needs none, are not held up */
    assert.equal((await fire(app, 'GET', '/api/v1/auth/check',
      { token: s.member.token })).status, 200);
    assert.equal((await fire(app, 'POST', '/api/v1/auth/logout',
      { token: (await app.user()).token, body: {} })).status < 300, true);
    assert.equal(all.some((w) => w.done?.status === 200), false);

    await lock.let();

    const results = await Promise.all(all.map((w) => w.promise));
    const counts = tally(results);

    assert.deepEqual(Object.keys(counts).sort(), ['200', '503']);
    assert.ok(counts[200] >= 2, JSON.stringify(counts));
    assert.ok(await metric(app, 'stoa_pg_saturated_total') >= counts[503]);
    await idle(app);
  });

  test('a full write pool refuses, and refuses nobody afterwards', async () => {
    const before = await app.value('select count(*) from app.events');
    const lock = await hold(app, 'app.events');
    const body = {
      title: 'Saturated', startsAt: '2030-01-01T00:00:00Z',
      endsAt: '2030-01-02T00:00:00Z', timezone: 'UTC',
    };
    const all = Array.from({ length: 20 }, () => watch(fire(app, 'POST',
      '/api/v1/events', { token: s.organizer.token, body })));

    await until(() => all.filter((w) => w.done).length > 0, { what: '503' });
    for (const w of all.filter((x) => x.done)) refused(w.done, 'POOL_SATURATED');
    assert.ok((await sleepers(app)).length >= 2);
    await lock.let();

    const counts = tally(await Promise.all(all.map((w) => w.promise)));

    assert.deepEqual(Object.keys(counts).sort(), ['201', '503']);
    assert.equal(await app.value('select count(*) from app.events'),
      before + counts[201]);
    assert.equal((await fire(app, 'POST', '/api/v1/events',
      { token: s.organizer.token, body })).status, 201);
  });
});

describe('statements that sleep too long', () => {
  let app, s;

  before(async () => {
    app = await boot({
      workers: 0,
      nginx: pools('fast=1 write=1 slow=1 queue=4 queue_timeout=300ms',
        'fast=700ms write=700ms slow=700ms'),
    });
    s = await shop(app);
  });
  after(() => app.stop());

  test('504, and the connection serves the next one', async () => {
    const made = await app.order(s.member, s.type);
    const lock = await hold(app, 'app.orders');
    const path = `/api/v1/orders/${made.data.id}`;
    const read = await fire(app, 'GET', path, { token: s.member.token });

    assert.equal(read.status, 504);
    assert.equal(read.error.code, 'TIMEOUT');

    const write = await fire(app, 'POST', '/api/v1/orders',
      order(s.member, s.type));

    assert.equal(write.status, 504);
    await lock.let();
    await idle(app);
    assert.equal((await fire(app, 'GET', path, { token: s.member.token })).status,
      200);
    assert.equal(await orders(app), 1, 'what timed out was rolled back');
    assert.equal((await app.order(s.member, s.type)).status, 201);
  });
});

describe('backends that are cut off', () => {
  let app, s;

  before(async () => {
    app = await boot({ workers: 0 });
    s = await shop(app);

    /* commits wait for a lock of the test */
    await app.sql(`
      create function public.slow_commit() returns trigger language plpgsql
      as $$ begin
        perform pg_catalog.pg_advisory_xact_lock(4242);
        return null;
      end $$`);
    await app.sql(`
      create constraint trigger slow_commit after insert on app.orders
      deferrable initially deferred for each row
      execute function public.slow_commit()`);
  });
  after(() => app.stop());

  test('between Execute and Sync: 503 COMMIT_UNKNOWN, and not stored', async () => {
    const before = await orders(app);
    const client = await app.client();

    await client.query('select pg_advisory_lock(4242)');
    const key = { headers: { 'Idempotency-Key': 'cut-off-1' } };
    const w = watch(fire(app, 'POST', '/api/v1/orders',
      order(s.member, s.type, key)));
    const pids = await asleep(app, 1, 'advisory');

    assert.equal(w.done, undefined, 'no answer before the commit');
    await kill(app, pids);
    refused(await w.promise, 'COMMIT_UNKNOWN');
    assert.equal(await orders(app), before);

    /* the key makes asking again safe */
    await client.query('select pg_advisory_unlock(4242)');
    const again = await fire(app, 'POST', '/api/v1/orders',
      order(s.member, s.type, key));

    assert.equal(again.status, 201, again.text);
    assert.equal(await orders(app), before + 1);
    assert.equal((await fire(app, 'POST', '/api/v1/orders',
      order(s.member, s.type, key))).text, again.text);
  });

  test('a batch of several: each is told, none is stored', async () => {
    const before = await orders(app);
    const client = await app.client();

    await client.query('select pg_advisory_lock(4242)');
    const all = Array.from({ length: 8 }, () => watch(fire(app, 'POST',
      '/api/v1/orders', order(s.member, s.type))));
    const pids = await asleep(app, 1, 'advisory');

    await kill(app, pids);
    await until(() => all.some((w) => w.done), { what: 'COMMIT_UNKNOWN' });
    await client.query('select pg_advisory_unlock(4242)');

    const results = await Promise.all(all.map((w) => w.promise));
    const counts = tally(results);

    for (const res of results.filter((r) => r.status === 503)) {
      refused(res, 'COMMIT_UNKNOWN');
    }
    assert.equal((counts[201] ?? 0) + counts[503], 8);
    assert.equal(await orders(app), before + (counts[201] ?? 0));
  });

  test('a commit that is refused is not answered as done', async () => {
    const before = await orders(app);

    await app.sql(`create or replace function public.slow_commit()
      returns trigger language plpgsql as $$ begin
        raise exception 'never' using errcode = 'check_violation';
      end $$`);
    const res = await fire(app, 'POST', '/api/v1/orders',
      order(s.member, s.type));

    assert.equal(res.status, 500, res.text);
    assert.equal(res.error.code, 'INTERNAL');
    assert.ok(!res.text.includes('never'), 'the database is not quoted');
    assert.equal(await orders(app), before);
    await app.sql('drop trigger slow_commit on app.orders');
  });

  test('a read is sent again and nobody notices', async () => {
    const made = await app.order(s.member, s.type);
    const lock = await hold(app, 'app.orders');
    const w = watch(fire(app, 'GET', `/api/v1/orders/${made.data.id}`,
      { token: s.member.token }));

    await kill(app, await asleep(app, 1));
    await asleep(app, 1); /* on another connection */
    assert.equal(w.done, undefined);
    await lock.let();
    assert.equal((await w.promise).status, 200);
  });

  test('all of them, again and again: 2xx or 503, counted right', async () => {
    const before = await orders(app);
    const work = load(12, (i) => (i % 2
      ? fire(app, 'GET', `/api/v1/events/${s.event.id}`)
      : fire(app, 'POST', '/api/v1/orders', order(s.member, s.type))));

    for (let i = 0; i < 12; i++) {
      await sleep(80);
      await app.sql(`select pg_terminate_backend(pid) from pg_stat_activity
        where usename = 'stoa_edge' and datname = $1 and random() < 0.7`,
      [app.id]);
    }
    await ready(app);

    const { errors, results } = await work.stop();
    const bad = results.filter((r) => ![200, 201, 503].includes(r.status));

    assert.deepEqual(errors.map((e) => e.message), []);
    assert.deepEqual(bad.map((r) => r.text), []);

    const sure = results.filter((r) => r.status === 201).length;
    const unsure = results.filter((r) =>
      r.error?.code === 'COMMIT_UNKNOWN').length;
    const stored = await orders(app) - before;

    assert.ok(sure > 0);
    assert.ok(stored >= sure && stored <= sure + unsure,
      `${stored} stored, ${sure} accepted, ${unsure} unknown`);
    await idle(app);
  });
});
