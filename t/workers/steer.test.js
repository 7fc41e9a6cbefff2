/*
 * Who runs when, and what operators may do about it: turns and limits of
 * tenants, pauses, cancellations, debounced tasks, tasks that wait for others.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Engine, sleep, until } from './engine.js';

const KIND = 'order.expire'; /* of the queue "timeout" */
const P = 'stoa:{q:timeout}';

let e;

before(async () => {
  e = await new Engine({ conf: { WORKER_CONCURRENCY: 8 } }).start();
  e.work();
});
after(() => e.stop());

/* n tasks of one tenant. */
async function tenant(name, n, payload = { mode: 'ok' }) {
  const rows = await e.sql(`select queue.enqueue($1, $2::jsonb,
      tenant => $3) as id from generate_series(1, $4::int)`,
  [KIND, JSON.stringify(payload), name, n]);

  await e.redis.lpush('stoa:{outbox}:w', '1');
  return rows.map((r) => r.id);
}
const ready = async () => JSON.parse(await e.stoa(['queues', '--json'])).queues
  .find((q) => q.queue === 'timeout').ready.reduce((a, b) => a + b);
const paused = (on) => async () =>
  (await e.redis.hget(`${P}:ctl`, 'paused')) === on;
const state = (id) => e.value(
  'select queue.state_name(state) from queue.outbox where id = $1', [id]);

/* What is enqueued meanwhile waits, all of it, until it is resumed. */
async function held(work) {
  await e.stoa(['queues', 'pause', 'timeout']);
  await until(paused('1'));
  try {
    return await work();
  } finally {
    await e.stoa(['queues', 'resume', 'timeout']);
    await until(paused('0'));
  }
}

test('a paused queue starts nothing and goes on where it was', async () => {
  const ids = await held(async () => {
    const all = await e.enqueue(KIND, { mode: 'ok' }, 5);

    await until(async () => await ready() >= 5);
    await sleep(2500); /* longer than a pop waits */
    assert.equal(await e.effects(all), 0);
    return all;
  });

  await e.done(ids);
  assert.equal(await e.effects(ids), 5);
});

test('a pause outlives a wiped Redis', async () => {
  await held(async () => {
    await e.redis.flushall();
    await until(paused('1'), { timeout: 20000 });
  });
});

test('a tenant with many tasks does not hold up one with few', async () => {
  let many, few, alone;

  await held(async () => {
    many = await tenant('many', 400, { mode: 'sleep', s: 0.01 });
    await until(async () => await ready() >= 400);
    few = await tenant('few', 5);
    alone = await e.enqueue(KIND, { mode: 'ok' }, 5);
    await until(async () => await ready() >= 410);
  });
  await e.done([...few, ...alone]);
  const done = await e.effects(many);

  assert.ok(done < 200, `${done} of 400 came first`);
  await e.done(many);
  assert.equal(await e.effects(many), 400);
  assert.deepEqual(await e.twice(), []);
  const left = await e.redis.keys(`${P}:t*`);

  assert.deepEqual(left, [], 'lists of tenants go when they are empty');
  assert.equal(await ready(), 0);
});

test('so many of a tenant, and of a queue, at once', async () => {
  const most = async (ids, count) => {
    let seen = 0;

    while (await e.effects(ids) < ids.length) {
      seen = Math.max(seen, Number(await count()));
      await sleep(5);
    }
    return seen;
  };
  const active = (name) => () => e.redis.hget(`${P}:a`, name);
  const limited = (name, value) => until(async () =>
    (await e.redis.hget(`${P}:ctl`, name)) === value);

  await e.stoa(['queues', 'limit', 'timeout', '--each', '2']);
  await limited('each', '2');
  const one = await tenant('one', 12, { mode: 'sleep', s: 0.1 });

  assert.equal(await most(one, active('one')), 2);
  const two = [...await tenant('one', 12, { mode: 'sleep', s: 0.1 }),
    ...await tenant('two', 12, { mode: 'sleep', s: 0.1 })];

  assert.equal(await most(two, active('two')), 2);
  await e.stoa(['queues', 'limit', 'timeout', '--each', '0', '--most', '1']);
  await limited('most', '1');
  const alone = await e.enqueue(KIND, { mode: 'sleep', s: 0.05 }, 8);

  assert.equal(await most(alone, () => e.redis.zcard(`${P}:l`)), 1);
  await e.stoa(['queues', 'limit', 'timeout', '--most', '0']);
  await limited('most', '');
  await until(async () => (await e.redis.exists(`${P}:a`, `${P}:k`)) === 0,
    { what: 'no tenant to be counted' });
});

test('what a tenant ran when its process died is not counted for ever',
  async () => {
    await e.stoa(['queues', 'limit', 'timeout', '--each', '1']);
    await until(async () => (await e.redis.hget(`${P}:ctl`, 'each')) === '1');
    const ids = await tenant('dies', 3, { mode: 'sleep', s: 1 });

    await until(async () => (await e.redis.hget(`${P}:a`, 'dies')) === '1');
    process.kill(e.children(e.pools[0])[0], 'SIGKILL');
    await e.done(ids, 30000);
    assert.equal(await e.effects(ids), 3);
    await e.stoa(['queues', 'limit', 'timeout', '--each', '0']);
    /* counts that are wrong for any reason heal when nothing runs */
    await e.redis.hset(`${P}:a`, 'ghost', 5);
    await until(async () => (await e.redis.exists(`${P}:a`)) === 0);
  });

test('cancel: waiting, running, and what has ended', async () => {
  const id = await e.value(`select queue.enqueue($1, '{"mode":"ok"}',
    app.now() + interval '1 h')`, [KIND]);

  assert.match(await e.stoa(['tasks', 'cancel', String(id)]), /^1 tasks cancel/);
  assert.equal(await state(id), 'dead');
  await assert.rejects(e.stoa(['tasks', 'cancel', String(id)]),
    /has ended already/);

  const [running] = await e.enqueue(KIND, { mode: 'sleep', s: 4 });

  await until(async () => (await e.redis.zcard(`${P}:l`)) === 1);
  await e.stoa(['tasks', 'cancel', String(running)]);
  await until(async () => !(await e.redis.exists(`${P}:j:${running}`)));
  await until(() => /task \d+ order.expire: aborted/.test(e.log()),
    { what: 'the run to be dropped' });
  assert.equal(await e.effects([running]), 0);
  const shown = JSON.parse(await e.stoa(['tasks', 'show', String(running),
    '--json']));

  assert.equal(shown.state, 'dead');
  assert.equal(shown.lastError, 'canceled');
  assert.deepEqual(shown.payload, { mode: 'sleep', s: 4 });
  await until(() => e.value(`select not canceled from queue.outbox
    where id = $1`, [running]), { what: 'Redis to be told' });

  /* it is dead like any other */
  await e.sql(`update queue.outbox set payload = '{"mode":"ok"}' where id = $1`,
    [running]);
  assert.match(await e.stoa(['tasks', 'redrive', String(running)]), /^1 tasks/);
  await e.done([running]);
  assert.equal(await e.effects([running]), 1);
  await assert.rejects(e.stoa(['tasks', 'show', '999999999']), /no task/);
});

test('cancel by tenant, redrive at a rate', async () => {
  let ids;

  await held(async () => {
    ids = await tenant('wrong', 20);
    const other = await tenant('right', 2);

    await until(async () => await ready() >= 22);
    assert.match(await e.stoa(['tasks', 'cancel', '--tenant', 'wrong']),
      /^20 tasks/);
    assert.equal(await state(other[0]), 'sent');
    const list = JSON.parse(await e.stoa(['tasks', 'list', '--tenant', 'wrong',
      '--reason', 'cancel', '--json']));

    assert.deepEqual(list.map((t) => t.id), ids.map(String));
    assert.ok(list.every((t) => t.state === 'dead' && t.tenant === 'wrong'));
  });
  await until(() => e.value(`select count(*) = 0 from queue.outbox
    where canceled`), { what: 'Redis to be told' });
  assert.equal(await e.effects(ids), 0);
  assert.match(await e.stoa(['tasks', 'redrive', '--tenant', 'wrong', '--rate',
    '20']), /^20 tasks/);
  const spread = await e.value(`select extract(epoch from
    max(run_at) - min(run_at))::float8 from queue.outbox where id = any($1)`,
  [ids]);

  assert.equal(spread, 0.95);
  await e.done(ids);
  assert.equal(await e.effects(ids), 20);
});

test('calls of one key become one run, of the last of them', async () => {
  const call = (n, wait = '1 s', most = null) => e.value(
    `select queue.debounce($1, $2::jsonb, 'feed:7', $3::interval,
      $4::interval)`, [KIND, JSON.stringify({ mode: 'ok', n }), wait, most]);
  const first = await call(1);

  for (const n of [2, 3]) {
    await sleep(400);
    assert.equal(await call(n), first);
  }
  assert.equal(await e.effects([first]), 0, 'each call puts it off');
  await e.done([first]);
  assert.equal(await e.effects([first]), 1);
  assert.equal(await e.value(`select payload->>'n' from queue.history
    where id = $1`, [first]), '3');

  const next = await call(4, '0 s');

  assert.notEqual(next, first);
  await e.done([next]);

  /* no later than so long after the first call */
  const id = await call(5, '1 h', '1 s');

  await call(6, '1 h', '1 s');
  await e.done([id]);
  assert.equal(await e.value(`select payload->>'n' from queue.history
    where id = $1`, [id]), '6');
});

test('a debounced row that Redis never heard of is found', async () => {
  const id = await e.value(`select queue.debounce($1, '{"mode":"ok"}', 'k',
    interval '1 h')`, [KIND]);

  /* as a relay that died between taking it and telling Redis */
  await e.sql(`update queue.outbox set state = 1, tries = 1, run_at = app.now(),
    sent_at = app.now() - interval '290 s' where id = $1`, [id]);
  await e.done([id], 40000);
  assert.equal(await e.effects([id]), 1);
});

test('a task runs after those it waits for, however they ended', async () => {
  const good = await e.enqueue(KIND, { mode: 'sleep', s: 0.3 }, 3);
  const bad = await e.enqueue(KIND, { mode: 'dead' }, 1);
  const last = await e.value(
    'select queue.enqueue_after($1, $2::jsonb, $3::bigint[])',
    [KIND, '{"mode":"ok","last":true}', [...good, ...bad]]);

  assert.equal(await state(last), 'blocked');
  await e.done([...good, ...bad]);
  await e.done([last]);
  assert.equal(await e.effects([...good, last]), 4);
  const order = await e.value(`select bool_and(o.at <= l.at)
    from test.effects o, test.effects l where o.id = any($1) and l.id = $2`,
  [good, last]);

  assert.ok(order);
  assert.equal(await e.value(`select (payload->>'failedChildren')::int
    from queue.history where id = $1`, [last]), 1);

  /* nothing to wait for: at once */
  const free = await e.value(
    'select queue.enqueue_after($1, $2::jsonb, $3::bigint[])',
    [KIND, '{"mode":"ok"}', good]);

  await e.done([free]);

  /* a blocked one can be canceled, and its children go on */
  const [child] = await e.enqueue(KIND, { mode: 'sleep', s: 0.5 });
  const parent = await e.value(
    'select queue.enqueue_after($1, $2::jsonb, $3::bigint[])',
    [KIND, '{"mode":"ok"}', [child]]);

  await e.stoa(['tasks', 'cancel', String(parent)]);
  await e.done([child]);
  assert.equal(await e.effects([child, parent]), 1);
});

test('what cannot be meant is refused, nothing is changed', async () => {
  const before = await e.value('select count(*)::int from queue.controls');

  for (const [args, says] of [
    [['queues', 'pause'], /say pause QUEUE/],
    [['queues', 'pause', 'mails'], /no queue "mails"/],
    [['queues', 'limit', 'mail'], /say pause QUEUE/],
    [['queues', 'limit', 'mail', '--most', '-1'], /from 0/],
    [['tasks', 'cancel'], /say which/],
    [['tasks', 'cancel', '7', '--all'], /say which/],
    [['tasks', 'cancel', 'seven'], /not the id/],
    [['tasks', 'show'], /say which/],
    [['tasks', 'list', '--state', 'late'], /--state is/],
    [['tasks', 'redrive', '--all', '--rate', '0'], /--rate is/],
    [['tasks', 'drop', '7'], /say list, show, cancel or redrive/],
  ]) {
    await assert.rejects(e.stoa(args), says, args.join(' '));
  }
  assert.equal(await e.value('select count(*)::int from queue.controls'),
    before);
});

test('schedules: shown, run now', async () => {
  const list = JSON.parse(await e.stoa(['schedules', '--json']));
  const seal = list.find((row) => row.kind === 'audit.seal');

  assert.equal(seal.everySeconds, 1);
  assert.ok(Date.parse(seal.lastAt) > 0);
  assert.match(await e.stoa(['schedules']), /^kind +when +zone/);

  /* every line is one that PostgreSQL understands */
  for (const { cron, zone } of list.filter((row) => row.cron)) {
    assert.ok(await e.value('select queue.cron_next($1, $2, now())',
      [cron, zone]), `${cron} in ${zone}`);
  }

  const id = Number(/^task (\d+)$/m.exec(await e.stoa(['schedules', 'run',
    'retention.sweep']))[1]);

  await e.done([id]);
  assert.equal(await e.effects([id]), 1);
  await assert.rejects(e.stoa(['schedules', 'run', 'mail.send']),
    /nothing runs "mail.send"/);
});
