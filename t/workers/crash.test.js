/*
 * Workers that die, freeze or stop: nothing lost, nothing twice.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { Engine, ROOT, sleep, until } from './engine.js';
import { rows } from './points.js';

/* Runs fn with an engine of its own. */
async function withEngine(options, fn) {
  const e = new Engine(options);

  try {
    await e.start();
    await fn(e);
  } finally {
    await e.stop();
  }
}

describe('kill -9 at the crash points of statements', () => {
  let e;

  before(async () => {
    e = await new Engine().start();
  });
  afterEach(async () => {
    for (const p of e.pools.splice(0)) await p.stop();
  });
  after(() => e.stop());

  for (const { kind, points } of rows.filter((row) => row.sql)) {
    for (const point of points) {
      test(`${kind}.${point}: the effect is there once`, async () => {
        const once = path.join(e.dir, `once.${kind}.${point}`);

        e.work({ STOA_CRASH: `${kind}.${point}`, STOA_CRASH_ONCE: once });

        const ids = await e.enqueue(kind, { mode: 'ok' }, 3);

        await e.done(ids);
        assert.ok(fs.existsSync(once), 'no process was killed');
        await until(async () =>
          (await e.redis.keys('stoa:{q:*}:j:*')).every((k) =>
            !ids.includes(Number(k.split(':').pop()))),
        { what: 'Redis to forget them' });
        assert.equal(await e.effects(ids), 3);
        assert.deepEqual(await e.twice(), []);
      });
    }
  }
});

test('every crash point that a row lists is in the code', () => {
  const code = fs.readdirSync(path.join(ROOT, 'workers'))
    .filter((f) => f.endsWith('.c'))
    .map((f) => fs.readFileSync(path.join(ROOT, 'workers', f), 'utf8'))
    .join('\n');

  for (const { kind, sql, points } of rows) {
    if (sql) assert.deepEqual(points, ['claimed', 'done'], kind);
    for (const point of sql ? [] : points) {
      assert.ok(code.includes(`"${kind}.${point}"`), `${kind}.${point}`);
    }
  }
});

test('poison: it dies after three runs alone, its neighbors live', () =>
  withEngine({ processes: 2 }, async (e) => {
    e.work({ STOA_CRASH: 'retention.sweep.claimed' });
    e.work({ STOA_CRASH: 'retention.sweep.claimed' });

    const poison = await e.enqueue('retention.sweep', { mode: 'ok' });
    const ids = [];

    for (let i = 0; i < 10; i++) {
      ids.push(...await e.enqueue('webhook.process',
        { mode: 'sleep', s: 0.05 }, 20));
      await sleep(100);
    }
    await e.done([...ids, ...poison], 60000);
    assert.equal(await e.effects(ids), ids.length);
    assert.deepEqual(await e.twice(), []);

    const dead = await e.sql(
      'select id, last_error from queue.outbox where state = 2 and kind <> $1',
      ['payment.reconcile']);

    /* the schedule's own task of the poisoned kind may have died as well */
    assert.ok(dead.some((d) => d.id === poison[0]));
    assert.deepEqual(dead.filter((d) => ids.includes(d.id)), []);
    assert.ok(dead.every((d) => d.last_error === 'crashed'));
    await onlyDead(e, dead.map((d) => d.id));
  }));

/* Redis lists as dead what PostgreSQL says is dead, and nothing else. */
async function onlyDead(e, ids) {
  await until(async () => (await Promise.all(['webhook', 'cron'].map((q) =>
    e.redis.zrange(`stoa:{q:${q}}:d`, 0, -1)))).flat()
    .every((id) => ids.includes(Number(id))),
  { timeout: 5000, what: 'Redis to list no more than the dead' });
}

test('done, but its process dies each time before it can say so: not dead',
  () => withEngine({}, async (e) => {
    e.work({ STOA_CRASH: 'webhook.process.done' });

    const ids = await e.enqueue('webhook.process');

    await until(async () => await e.redis.exists(
      `stoa:{q:webhook}:j:${ids[0]}`) === 0 && await e.effects(ids) === 1,
    { timeout: 20000, what: 'Redis to forget it' });
    assert.equal(await e.value('select last_value::int from test.starts'), 1);
    assert.equal(await e.redis.zcard('stoa:{q:webhook}:d'), 0);
    assert.equal(await e.value(`select count(*)::int from queue.history
      where id = $1 and state = 'dead'`, ids), 0);
  }));

test('what Redis would call dead although its row is gone was done', () =>
  withEngine({}, async (e) => {
    const p = 'stoa:{q:webhook}';
    const envelope = (id, t) => JSON.stringify({
      v: 1, id: String(id), q: 'webhook', t, p: {}, pr: 0,
      src: { k: 'outbox', id },
    });

    /* crashed alone for the third time, just now */
    await e.redis.hset(`${p}:j:900001`, 'e', envelope(900001,
      'webhook.process'), 'l', 0, 'u', '', 's', 'a', 'x', 7, 'a', 4, 'f', 0,
    'c', 2, 'o', '1');
    await e.redis.zadd(`${p}:l`, 1, '900001');
    /* about to be buried */
    await e.redis.hset(`${p}:j:900002`, 'e', envelope(900002, 'no.kind'),
      'l', 0, 'u', '', 's', 'r', 'x', 7, 'a', 0, 'f', 0, 'c', 0);
    await e.redis.rpush(`${p}:r0`, '900002');
    /* and one that has its row */
    const [id] = await e.enqueue('no.kind', {});

    await e.sql(`update queue.outbox set created_at = created_at
      - interval '11 min' where id = $1`, [id]);
    e.work();
    await until(async () => await e.redis.exists(`${p}:j:900001`) === 0
      && await e.redis.exists(`${p}:j:900002`) === 0,
    { what: 'both to be forgotten' });
    await until(() => e.value('select true from queue.outbox '
      + 'where id = $1 and state = 2', [id]));
    await onlyDead(e, [id]);
    await until(() => e.redis.zscore('stoa:{q:cron}:d', String(id)));
  }));

test('dead in Redis, and who was to tell PostgreSQL died first: told by others',
  () => withEngine({}, async (e) => {
    const p = 'stoa:{q:webhook}';
    const [id] = await e.enqueue('webhook.process');

    await e.sql('update queue.outbox set state = 1, sent_at = app.now() '
      + 'where id = $1', [id]);
    await e.redis.hset(`${p}:j:${id}`, 'e', JSON.stringify({
      v: 1, id: String(id), q: 'webhook', t: 'webhook.process', p: {}, pr: 0,
      src: { k: 'outbox', id },
    }), 'l', 0, 'u', '', 's', 'd', 'x', 7, 'a', 4, 'f', 0, 'c', 3, 'err',
    'crashed');
    await e.redis.zadd(`${p}:d`, Date.now(), String(id));
    await e.redis.zadd(`${p}:n`, 1, String(id));

    e.work();
    await until(() => e.value(`select last_error = 'crashed'
      from queue.outbox where id = $1 and state = 2`, [id]));
    await until(async () => await e.redis.zcard(`${p}:n`) === 0);
    await onlyDead(e, [id]);
    assert.deepEqual(await e.redis.zrange(`${p}:d`, 0, -1), [String(id)]);
    assert.equal(await e.effects([id]), 0);
  }));

test('frozen past its lease, then awake: the effect is there once', () =>
  withEngine({}, async (e) => {
    const first = e.work();
    const ids = await e.enqueue('webhook.process', { mode: 'sleep', s: 1 }, 4);

    await until(() => e.value(
      'select last_value::int >= 2 from test.starts where is_called'));

    const [pid] = e.children(first);

    process.kill(pid, 'SIGSTOP');
    e.work();
    await sleep(3500);
    process.kill(pid, 'SIGCONT');
    await e.done(ids);
    await sleep(500);
    assert.equal(await e.effects(ids), 4);
    assert.deepEqual(await e.twice(), []);
  }));

test('TERM: what cannot finish is given back without an attempt', () =>
  withEngine({ conf: { WORKER_GRACE: '1' }, lease: 20000 }, async (e) => {
    const first = e.work();
    const ids = await e.enqueue('webhook.process', { mode: 'sleep', s: 9 }, 3);

    await until(() => e.value(
      'select last_value::int >= 1 from test.starts where is_called'));

    const from = Date.now();

    await first.stop();
    assert.equal(first.code, 0);
    assert.ok(Date.now() - from < 8000, 'it waited for them');
    for (const id of ids) {
      const [s, f] = await e.redis.hmget(`stoa:{q:webhook}:j:${id}`, 's', 'f');

      assert.deepEqual([s, f], ['r', '0']);
    }

    e.work();
    await e.done(ids);
    assert.equal(await e.effects(ids), 3);
    assert.deepEqual(await e.twice(), []);
  }));

test('TERM: what can finish in time does, and nothing more is claimed', () =>
  withEngine({ conf: { WORKER_GRACE: '8' } }, async (e) => {
    const first = e.work();
    const ids = await e.enqueue('webhook.process', { mode: 'sleep', s: 1 }, 2);

    await until(() => e.value(
      'select last_value::int >= 2 from test.starts where is_called'));

    const stopped = first.stop();

    await sleep(400);

    const later = await e.enqueue('webhook.process', { mode: 'ok' });

    await stopped;
    assert.equal(first.code, 0);
    assert.equal(await e.effects(ids), 2);
    assert.equal(await e.effects(later), 0);
  }));

test('TSTP quiets, CONT goes on, a killed process comes back', () =>
  withEngine({}, async (e) => {
    const proc = e.work();

    await e.done(await e.enqueue('webhook.process'));
    proc.kill('SIGTSTP');
    await sleep(2500);

    const ids = await e.enqueue('webhook.process');

    await sleep(1500);
    assert.equal(await e.effects(ids), 0);
    proc.kill('SIGCONT');
    await e.done(ids);

    const [pid] = e.children(proc);

    process.kill(pid, 'SIGKILL');
    await e.done(await e.enqueue('webhook.process'));
    assert.notEqual(e.children(proc)[0], pid);
  }));

test('a killed supervisor takes its processes along', () =>
  withEngine({ processes: 2 }, async (e) => {
    const proc = e.work();

    await e.done(await e.enqueue('webhook.process'));

    const pids = e.children(proc);

    assert.equal(pids.length, 2);
    await proc.stop('SIGKILL');
    await until(() => pids.every((pid) => !fs.existsSync(`/proc/${pid}`)),
      { what: 'the processes to end' });
  }));
