/*
 * Chaos, in a slice: workers and Redis are killed under load (A), workers
 * are frozen past their leases (B), and a poison task is among the work.
 * Nothing accepted is lost, nothing happens twice, nobody else is blamed.
 * CHAOS=n multiplies the work (make soak).
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Engine, sleep, until } from './engine.js';

const SCALE = Number(process.env.CHAOS ?? (process.env.SOAK ? 10 : 1));

async function withEngine(options, fn) {
  const e = new Engine(options);

  try {
    await e.start();
    await fn(e);
  } finally {
    await e.stop();
  }
}

const pick = (list) => list[Math.floor(Math.random() * list.length)];

/*
 * Signals one worker of any pool; its pid.  A pool whose workers died again
 * and again waits before it starts the next, and this waits with it.
 */
function kill(e, pools, signal) {
  return until(() => {
    const pid = pick(pools.flatMap((pool) => e.children(pool)));

    if (pid) process.kill(pid, signal);
    return pid;
  }, { timeout: 60000, what: 'a worker to signal' });
}

async function load(e, n) {
  const ids = [];

  while (ids.length < n) {
    ids.push(...await e.enqueue(pick(['webhook.process', 'order.expire']),
      { mode: 'sleep', s: 0.02 }, 50));
    await sleep(60);
  }
  return ids;
}

async function verdict(e, ids) {
  assert.equal(await e.effects(ids), ids.length, 'lost');
  assert.deepEqual(await e.twice(), [], 'twice');
  assert.equal(await e.value(
    'select count(*)::int from queue.outbox where id = any($1)', [ids]), 0);
}

test('A: kill -9 of workers and of Redis under load, with a poison task', () =>
  withEngine({ processes: 2 }, async (e) => {
    const env = { STOA_CRASH: 'retention.sweep.claimed' };
    const pools = [e.work(env), e.work(env)];
    const working = load(e, 1500 * SCALE);
    const [poison] = await e.enqueue('retention.sweep', { mode: 'ok' });

    for (let i = 0; i < 6 * SCALE; i++) {
      await sleep(500);
      await kill(e, pools, 'SIGKILL');
      if (i % 3 === 2) {
        await e.redisProc.stop('SIGKILL');
        await sleep(200);
        await e.startRedis();
      }
    }

    const ids = await working;

    /* what the last second of a Redis file lost comes back by the sweep */
    await e.sql(`update app.test_clock set shift = interval '6 min'`);
    await e.done(ids, 90000 * SCALE);
    await verdict(e, ids);
    /* whoever is to tell the database may be killed too: the sweep asks */
    await until(async () => (await e.value(
      `update queue.outbox set sent_at = sent_at - interval '1 min'
       where id = $1 returning last_error`, [poison])) === 'crashed',
    { timeout: 120000, every: 1000, what: 'the poison task to die' });

    const others = await e.sql(`select id, kind from queue.outbox
      where state = 2 and kind in ('webhook.process', 'order.expire')`);

    assert.deepEqual(others, []);

    /* what is done is not listed as dead because its end was not heard */
    for (const q of ['webhook', 'timeout']) {
      assert.deepEqual(await e.redis.zrange(`stoa:{q:${q}}:d`, 0, -1), []);
    }
  }));

test('B: workers frozen past their leases', () =>
  withEngine({ processes: 2 }, async (e) => {
    const pools = [e.work(), e.work()];
    const working = load(e, 1000 * SCALE);

    for (let i = 0; i < 3 * SCALE; i++) {
      await sleep(400);
      const pid = await kill(e, pools, 'SIGSTOP');

      await sleep(2500);
      process.kill(pid, 'SIGCONT');
    }

    const ids = await working;

    await e.done(ids, 60000 * SCALE);
    await verdict(e, ids);
    assert.equal(await e.value(
      `select count(*)::int from queue.outbox where state = 2
       and id = any($1)`, [ids]), 0);
  }));
