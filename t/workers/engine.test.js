/*
 * The queue engine: what it promises to every task.
 */

import assert from 'node:assert/strict';
import Redis from 'ioredis';
import { after, before, describe, test } from 'node:test';
import { Engine, sleep, until } from './engine.js';

describe('one pool', () => {
  let e;

  before(async () => {
    e = await new Engine({ processes: 2 }).start();
    e.work();
  });
  after(() => e.stop());

  test('200 tasks happen once each and leave nothing in Redis', async () => {
    const ids = await e.enqueue('webhook.process', { mode: 'ok' }, 200);

    await e.done(ids);
    assert.equal(await e.effects(ids), 200);
    await until(async () => (await e.redis.keys('stoa:{q:webhook}:j:*')).length === 0,
      { what: 'the hashes to go' });
    assert.equal(await e.redis.zcard('stoa:{q:webhook}:l'), 0);
  });

  test('a task starts soon after its wake token', async () => {
    const times = [];

    for (let i = 0; i < 10; i++) {
      const from = Date.now();
      const ids = await e.enqueue('webhook.process');

      await until(() => e.effects(ids).then((n) => n === 1), { every: 2 });
      times.push(Date.now() - from);
      await sleep(30);
    }
    times.sort((a, b) => a - b);
    assert.ok(times[5] < 1000, `median of ${times}`);
  });

  test('without any token the outbox is found all the same', async () => {
    const id = await e.value(
      `select queue.enqueue('webhook.process', '{"mode":"ok"}')`);

    await e.done([id], 5000);
  });

  test('the reply goes to who waits, after the effect', async () => {
    const sub = new Redis({ path: e.redisSocket });
    const got = new Promise((done) => sub.on('message', (_, m) => done(m)));

    await sub.subscribe('stoa:reply:here.1.2');

    const [id] = await e.enqueue('webhook.process', { mode: 'ok' }, 1,
      'here.1.2');
    const [first, body] = (await got).split('\n');

    assert.equal(Number(first), id);
    assert.deepEqual(JSON.parse(body), { id, text: 'a "quoted" ü' });
    assert.equal(await e.effects([id]), 1);
    sub.disconnect();
  });

  test('a failing task is tried again and then done', async () => {
    await e.sql(`select setval('test.tries', 1, false)`);

    const ids = await e.enqueue('order.expire', { mode: 'fail', times: 2 });

    await e.done(ids, 15000);
    assert.equal(await e.effects(ids), 1);
    assert.equal(await e.value('select last_value::int from test.tries'), 3);
  });

  test('a delayed task waits in PostgreSQL, then runs on time', async () => {
    const id = await e.value(`select queue.enqueue('webhook.process',
      '{"mode":"ok"}', app.now() + interval '1500 ms')`);

    await sleep(900);
    assert.equal(await e.effects([id]), 0);
    await e.done([id], 5000);

    const late = await e.value(`select extract(epoch from x.at - h.created_at)
      from test.effects x join queue.history h on h.id = x.id
      where x.id = $1`, [id]);

    assert.ok(late >= 1.45 && late < 15, `after ${late} s`);
  });

  test('unknown kind: put back for a newer process, dead in the end', async () => {
    const ids = await e.enqueue('no.such_kind', {});

    await until(() => e.redis.hget(`stoa:{q:cron}:j:${ids[0]}`, 'err')
      .then((why) => why === 'no_handler'));
    assert.equal(await e.value('select state from queue.outbox where id = $1',
      ids), 1);
    await e.sql(`update queue.outbox set created_at = created_at
      - interval '11 min' where id = $1`, ids);
    await e.redis.del(`stoa:{q:cron}:j:${ids[0]}`); /* the sweep brings it back */
    await e.sql(`update queue.outbox set sent_at = sent_at
      - interval '6 min' where id = $1`, ids);
    const row = await until(async () => (await e.sql(
      'select * from queue.outbox where id = $1 and state = 2', ids))[0]);

    assert.equal(row.last_error, 'no_handler');
    assert.equal(await e.redis.hget(`stoa:{q:cron}:j:${ids[0]}`, 'f'), '0');
  });

  test('a payload past 16 KiB is dead at once', async () => {
    const ids = await e.enqueue('webhook.process', { x: 'y'.repeat(17000) });
    const row = await until(async () => (await e.sql(
      'select * from queue.outbox where id = $1 and state = 2', ids))[0]);

    assert.match(row.last_error, /16 KiB/);
  });

  test('dead tasks are listed and run again when redriven', async () => {
    const [id] = await e.enqueue('webhook.process', { mode: 'dead' });

    await until(() => e.value(
      'select true from queue.outbox where id = $1 and state = 2', [id]));

    const list = JSON.parse(await e.stoa(['tasks', 'list', '--json']));
    const mine = list.find((t) => t.id === String(id));

    assert.equal(mine.kind, 'webhook.process');
    assert.equal(mine.lastError, 'told so');
    assert.deepEqual(mine.payload, { mode: 'dead' });

    await e.sql(`update queue.outbox set payload = '{"mode":"ok"}' where id = $1`,
      [id]);
    assert.match(await e.stoa(['tasks', 'redrive', String(id)]), /^1 tasks/);
    await e.done([id], 5000);
    assert.equal(await e.effects([id]), 1);
    await assert.rejects(e.stoa(['tasks', 'redrive', String(id)]), /is not dead/);
  });

  test('levels: the lowest runs while a higher one has a backlog', async () => {
    const high = await e.enqueue('order.expire', { mode: 'sleep', s: 0.03 }, 600);
    const low = await e.enqueue('order.expire_sweep', { mode: 'ok' }, 10);

    await e.done(low);
    assert.equal(await e.effects(low), 10);
    assert.ok(await e.effects(high) < 600, 'the backlog had ended before');
    await e.done(high);
    assert.equal(await e.effects(high), 600);
  });

  test('queues: depth and age as text and JSON', async () => {
    const all = JSON.parse(await e.stoa(['queues', '--json']));

    assert.deepEqual(all.queues.map((q) => q.queue).sort(),
      ['cron', 'mail', 'payment', 'render', 'timeout', 'webhook']);
    assert.ok(all.queues[0].tickedMsAgo < 15000);
    assert.equal(typeof all.outbox.lagMs, 'number');
    assert.match(await e.stoa(['queues']), /^queue +ready/);
  });

  test('counters and gauges reach the metrics hash', async () => {
    await until(async () => Number(await e.redis.hget('stoa:metrics',
      'stoa_task_done_total')) >= 200, { what: 'the counter' });

    const all = await until(async () => {
      const m = await e.redis.hgetall('stoa:metrics');

      return 'stoa_outbox_lag_seconds' in m && m;
    }, { what: 'the gauges' });

    assert.match(all.stoa_outbox_lag_seconds, /^\d+\.\d{3}$/);
    assert.match(all['stoa_queue_oldest_ready_seconds{queue="webhook"}'],
      /^\d+\.\d{3}$/);
    assert.deepEqual(Object.keys(all).filter((k) => /milli|_ms\b/.test(k)), []);
    assert.ok('stoa_queue_depth{queue="webhook",state="ready"}' in all);
    assert.ok(Number(
      all['stoa_task_runs_total{kind="webhook.process",outcome="done"}']) >= 200);
  });
});

describe('schedules', () => {
  let e;

  before(async () => {
    e = await new Engine({ processes: 2 }).start();
  });
  after(() => e.stop());

  test('two pools of two processes: each slot once', async () => {
    e.work();
    e.work();
    await until(async () => (await e.value(
      `select count(*)::int from test.slots where uniq like 'audit.seal:%'`)) >= 5,
    { timeout: 15000, what: 'five slots' });

    const rows = await e.sql(`select uniq, count(distinct id)::int as n
      from test.slots where uniq like 'audit.seal:%' group by uniq`);

    assert.ok(rows.length >= 5);
    assert.deepEqual(rows.filter((r) => r.n !== 1), []);
    assert.deepEqual(await e.twice(), []);
  });
});
