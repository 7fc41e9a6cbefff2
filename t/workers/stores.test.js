/*
 * Redis and PostgreSQL fail under the workers: tasks wait, none is lost, no
 * attempt is used up.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Engine, sleep, until } from './engine.js';

async function withEngine(options, fn) {
  const e = new Engine(options);

  try {
    await e.start();
    await fn(e);
  } finally {
    await e.stop();
  }
}

test('Redis flushed: the sweeper sends again what the outbox holds', () =>
  withEngine({}, async (e) => {
    e.work();

    const ids = await e.enqueue('order.expire', { mode: 'fail', times: 0 }, 0);

    /* sent, but to run in 50 s: it waits in Redis */
    for (let i = 0; i < 20; i++) {
      ids.push(await e.value(`select queue.enqueue('webhook.process',
        '{"mode":"ok"}', app.now() + interval '50 s')`));
    }
    await until(async () => (await e.value(
      'select count(*)::int from queue.outbox where id = any($1) and state = 1',
      [ids])) === 20, { what: 'the relay' });
    assert.equal(await e.redis.zcard('stoa:{q:webhook}:s'), 20);

    /* a fence that came again would let a holder of before the flush in: it
       begins with the clock of Redis */
    const [sec] = await e.redis.time();
    const x = await e.redis.hget(`stoa:{q:webhook}:j:${ids[0]}`, 'x');

    assert.match(x, /^\d{13}$/);
    assert.ok(Math.abs(Number(x) / 1000 - Number(sec)) < 300, x);
    await e.redis.flushall();
    assert.equal(await e.effects(ids), 0);
    await e.sql(`update app.test_clock set shift = interval '6 min'`);
    await e.done(ids);
    assert.equal(await e.effects(ids), 20);
    assert.deepEqual(await e.twice(), []);
  }));

test('Redis killed and started: the same processes go on', () =>
  withEngine({ processes: 2 }, async (e) => {
    const proc = e.work();

    await e.done(await e.enqueue('webhook.process'));

    const pids = e.children(proc);
    const ids = await e.enqueue('webhook.process', { mode: 'sleep', s: 0.3 }, 30);

    await sleep(150);
    await e.redisProc.stop('SIGKILL');
    ids.push(await e.value(
      `select queue.enqueue('webhook.process', '{"mode":"ok"}')`));
    await sleep(1500);
    await e.startRedis();
    /* what the last second of the file lost, the sweeper finds */
    await e.sql(`update app.test_clock set shift = interval '6 min'`);
    await e.done(ids);
    assert.equal(await e.effects(ids), 31);
    assert.deepEqual(await e.twice(), []);
    assert.deepEqual(e.children(proc), pids);
    assert.equal(await e.value(
      'select count(*)::int from queue.outbox where state = 2 and id = any($1)',
      [ids]), 0);
  }));

test('Redis is away at the start: the pool waits for it', () =>
  withEngine({}, async (e) => {
    await e.redisProc.stop('SIGKILL');

    const proc = e.work();
    const id = await e.value(
      `select queue.enqueue('webhook.process', '{"mode":"ok"}')`);

    await sleep(1500);
    assert.ok(!proc.over);
    await e.startRedis();
    await e.done([id]);
    assert.equal(await e.effects([id]), 1);
  }));

test('PostgreSQL stopped and started: no attempt is used up', () =>
  withEngine({ cluster: { durable: true }, lease: 3000 }, async (e) => {
    const proc = e.work();

    await e.done(await e.enqueue('webhook.process'));

    const pids = e.children(proc);
    const ids = await e.enqueue('webhook.process', { mode: 'sleep', s: 0.5 }, 20);

    await sleep(300);
    await e.cluster.stop('immediate');
    await sleep(2500);
    await e.cluster.start();
    await e.done(ids, 30000);
    assert.equal(await e.effects(ids), 20);
    assert.deepEqual(await e.twice(), []);
    assert.deepEqual(e.children(proc), pids);
    assert.doesNotMatch(e.log(), /webhook\.process: failed/);
  }));
