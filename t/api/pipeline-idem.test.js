/*
 * I-24: Idempotency-Key.  The stored answer is replayed byte for byte, a
 * request with the same key that still runs is 409, another body is 422, and
 * keys of others are others.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { ROUNDS, boot, until } from '../harness/index.js';

let app, alice, bob, olga, type;

before(async () => {
  app = await boot({ workers: 0 });
  [alice, bob, olga] = [await app.user(), await app.user(),
    await app.user('organizer')];
  const event = await app.event(olga,
    { types: [{ priceCents: 0, quota: 10000 }] });

  type = event.types[0].id;
});
after(() => app?.stop());

const key = (value) => ({ 'Idempotency-Key': value });
const order = (who, k, quantity = 1) =>
  app.order(who, type, quantity, { headers: key(k) });
const orders = () => app.value('select count(*)::int from app.orders');

/* What a replay repeats: status and body, but for the request's own id. */
const bytes = (res) => `${res.status}\n${res.text}`;

test('a replay is the same bytes and no second effect', async () => {
  const before_ = await orders();
  const first = await order(alice, 'one');
  const second = await order(alice, 'one');

  assert.equal(first.status, 201, first.text);
  assert.equal(first.headers['idempotent-replayed'], undefined);
  assert.equal(bytes(second), bytes(first));
  assert.equal(second.headers['idempotent-replayed'], 'true');
  assert.notEqual(second.headers['x-request-id'],
    first.headers['x-request-id']);
  assert.equal(await orders(), before_ + 1);
});

test('a structured string and a bare token are the same key', async () => {
  const a = await order(alice, 'spelled');
  const b = await order(alice, '"spelled"');

  assert.equal(bytes(b), bytes(a));
});

test('both spellings of a body are the same request', async () => {
  const send = (body) => app.api('POST', '/api/v1/orders',
    { token: alice.token, headers: key('spellings'), body });
  const a = await send({ items: [{ ticketTypeId: type, quantity: 1 }] });
  const b = await send({ items: [{ ticket_type_id: type, quantity: 1 }] });

  assert.equal(a.status, 201, a.text);
  assert.equal(bytes(b), bytes(a));
});

test('another body is 422 and changes nothing', async () => {
  const n = await orders();
  const first = await order(alice, 'reused', 1);
  const other = await order(alice, 'reused', 2);

  assert.equal(first.status, 201);
  assert.equal(other.status, 422, other.text);
  assert.equal(other.error.code, 'IDEMPOTENCY_KEY_REUSED');
  assert.equal(await orders(), n + 1);
  assert.equal(bytes(await order(alice, 'reused', 1)), bytes(first));
});

test('the same key of another user is another key', async () => {
  const a = await order(alice, 'shared');
  const b = await order(bob, 'shared');

  assert.equal(a.status, 201);
  assert.equal(b.status, 201);
  assert.notEqual(a.data.id, b.data.id);
});

test('the same key on another row is another key', async () => {
  const a = await order(alice, 'rows');
  const b = await app.api('POST', `/api/v1/orders/${a.data.id}/cancel`,
    { token: alice.token, headers: key('rows') });

  assert.notEqual(b.status, 422, b.text);
});

test('a refusal is stored too: SOLD_OUT stays SOLD_OUT', async () => {
  const small = await app.event(olga, { types: [{ quota: 1 }] });
  const one = small.types[0];
  const ask = (who, k) => app.order(who, one.id, 1, { headers: key(k) });

  assert.equal((await ask(bob, 'takes-it')).status, 201);

  const refused = await ask(alice, 'too-late');

  assert.equal(refused.status, 409, refused.text);
  assert.equal(refused.error.code, 'SOLD_OUT');
  await app.sql('update app.ticket_types set quota = 10 where id = $1',
    [one.id]);

  const again = await ask(alice, 'too-late');

  assert.equal(again.status, 409);
  assert.equal(again.headers['idempotent-replayed'], 'true');
  assert.equal(again.error.code, 'SOLD_OUT');
  assert.equal((await ask(alice, 'fresh')).status, 201);
});

test('what is not valid is never stored', async () => {
  const bad = await app.api('POST', '/api/v1/orders',
    { token: alice.token, headers: key('mended'), body: { items: [] } });

  assert.equal(bad.status, 400);
  assert.equal((await order(alice, 'mended')).status, 201);
});

test('a key that is no key is 400', async () => {
  for (const value of ['', '""', 'a b', '"a', 'x'.repeat(256), '"a\\b"']) {
    const res = await order(alice, value);

    assert.equal(res.status, 400, `${value}: ${res.text}`);
    assert.equal(res.error.errors[0].pointer, 'Idempotency-Key');
  }
  assert.equal((await order(alice, 'x'.repeat(255))).status, 201);
});

test('in flight: 409 with Retry-After, whatever the body', async () => {
  const holder = await app.client();

  try {
    await holder.query('begin');
    await holder.query('select from app.ticket_types where id = $1 for update',
      [type]);

    const first = order(alice, 'in-flight', 1);

    await until(async () => await app.value(
      `select count(*)::int from pg_locks where locktype = 'advisory'`) > 0,
    { what: 'the first request to hold its key' });

    for (const quantity of [1, 2]) {
      const second = await order(alice, 'in-flight', quantity);

      assert.equal(second.status, 409, second.text);
      assert.equal(second.error.code, 'IN_FLIGHT');
      assert.ok(Number(second.headers['retry-after']) >= 1);
    }
    await holder.query('rollback');

    const done = await first;

    assert.equal(done.status, 201, done.text);
    assert.equal(bytes(await order(alice, 'in-flight', 1)), bytes(done));
  } finally {
    await holder.query('rollback').catch(() => {});
    await holder.end();
  }
});

test('a race of one key: one effect, every 201 the same bytes', async () => {
  for (let round = 0; round < ROUNDS; round++) {
    const n = await orders();
    const all = await app.barrier(12, () => ({
      method: 'POST', path: '/api/v1/orders', token: alice.token,
      headers: key(`race-${round}`),
      body: { items: [{ ticketTypeId: type, quantity: 1 }] },
    }));
    const made = all.filter((res) => res.status === 201);

    assert.ok(made.length >= 1);
    assert.equal(new Set(made.map(bytes)).size, 1);
    for (const res of all) {
      assert.ok(res.status === 201 || res.error?.code === 'IN_FLIGHT',
        res.text);
    }
    assert.equal(await orders(), n + 1);
  }
});

test('after a reload and a restart the answer is still there', async () => {
  const first = await order(alice, 'restart');

  await app.nginx.reload();
  assert.equal(bytes(await order(alice, 'restart')), bytes(first));
  await app.nginx.stop();
  await app.nginx.start();
  assert.equal(bytes(await order(alice, 'restart')), bytes(first));
});
