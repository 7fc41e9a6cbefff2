/*
 * Waiting for a worker (decision 5), with the test in the worker's place: its
 * message ends the wait, another's does not, none means 202 with Location,
 * and a client that leaves takes nothing along.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { boot, until } from '../harness/index.js';

let app, alice, type;

before(async () => {
  app = await boot({ workers: 0 });
  /* the provider that needs a worker to say where to pay */
  await app.sql(`insert into app.settings (key, value)
    values ('payment_provider', 'stripe')
    on conflict (key) do update set value = excluded.value`);
  alice = await app.user();

  const olga = await app.user('organizer');
  const event = await app.event(olga,
    { types: [{ priceCents: 1500, quota: 1000 }] });

  type = event.types[0].id;
});
after(() => app?.stop());

/* Places an order and waits until its task is in the outbox. */
async function place(spec = {}) {
  const last = await app.value('select coalesce(max(id), 0) from queue.outbox');
  const answer = app.order(alice, type, 1, spec);

  answer.catch(() => {}); /* looked at by the test */
  const task = await until(async () => (await app.sql(
    `select id, reply_to from queue.outbox
      where kind = 'payment.create' and id > $1`, [last]))[0],
  { what: 'the task' });

  return { answer, task };
}

const say = (task, text) =>
  app.redis.publish(`stoa:reply:${task.reply_to}`, `${task.id}\n${text}`);

test("the worker's message is the body", async () => {
  const { answer, task } = await place();

  assert.equal(await say(task, '{"id":"x","paymentDetails":{"a":1}}'), 1);
  const res = await answer;

  assert.equal(res.status, 201, res.text);
  assert.deepEqual(res.data, { id: 'x', paymentDetails: { a: 1 } });
  app.violations.length = 0; /* no order has such a body */
});

test('an empty message lets the answer go as it is', async () => {
  const { answer, task } = await place();

  await say(task, '');
  const res = await answer;

  assert.equal(res.status, 201, res.text);
  assert.equal(res.data.status, 'reserved');
});

test("other tasks' messages and garbage change nothing", async () => {
  const { answer, task } = await place();

  await say({ ...task, id: 999999 }, '{"not":"mine"}');
  for (const text of ['', 'x', '\n', `${task.id}`, '-1\n{}', `${task.id}0\n{}`,
    '99999999999999999999\n{}', '\0\n']) {
    await app.redis.publish(`stoa:reply:${task.reply_to}`, text);
  }
  await say(task, '');
  assert.equal((await answer).data.status, 'reserved');
});

test('nobody answers: 202, Location, and the order is there', async () => {
  const start = Date.now();
  const { answer } = await place();
  const res = await answer;

  assert.equal(res.status, 202, res.text);
  assert.equal(res.headers.location, `/api/v1/orders/${res.data.id}`);
  assert.ok(Date.now() - start >= 1000);

  const later = await app.api('GET', res.headers.location,
    { token: alice.token });

  assert.equal(later.status, 200);
  assert.equal(later.data.id, res.data.id);
});

test('a replay repeats what the worker said', async () => {
  const headers = { 'Idempotency-Key': 'waited' };
  const { answer, task } = await place({ headers });
  const body = await app.value(
    `select response from (select o.body::text as response from
      api.orders_detail o order by o.id desc limit 1) o`);

  await say(task, body);
  const first = await answer;
  const second = await app.order(alice, type, 1, { headers });

  assert.equal(first.status, 201, first.text);
  assert.equal(second.text, first.text);
  assert.equal(second.headers['idempotent-replayed'], 'true');
});

test('a client that leaves while it waits harms nobody', async () => {
  const abort = new AbortController();
  const { answer, task } = await place();
  const last = await app.value('select max(id) from queue.outbox');
  const gone = app.api('POST', '/api/v1/orders', {
    token: alice.token, signal: abort.signal,
    body: { items: [{ ticketTypeId: type, quantity: 1 }] },
  }).then(() => 'answered', () => 'left');
  const other = await until(async () => (await app.sql(
    `select id, reply_to from queue.outbox
      where kind = 'payment.create' and id > $1`, [last]))[0],
  { what: 'the second task' });

  abort.abort();
  assert.equal(await gone, 'left');
  await say(other, '{"nobody":"hears"}');
  await say(task, '');
  assert.equal((await answer).status, 201);
});

test('Redis away: 202 at once, the order is there', async () => {
  await app.redisProc.stop('SIGKILL');
  await until(async () => {
    const res = await app.api('GET', '/health/ready');

    return /"redis":"(down|away|lost)"/.test(res.text)
      || !/"redis":"up"/.test(res.text);
  }, { what: 'the edge to notice' });

  const res = await app.order(alice, type, 1);

  assert.equal(res.status, 202, res.text);
  assert.match(res.headers.location, /^\/api\/v1\/orders\//);
});
