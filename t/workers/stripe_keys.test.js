/*
 * Stripe forgets an idempotency key after a day: a call whose answer was lost
 * is sent again with its key for 23 hours, and looked up after that (the stub
 * forgets keys as Stripe does, so a call that is sent too late is made twice).
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { boot, until } from '../harness/index.js';
import { STRIPE, stripeConf, webhook } from './stripe_kit.js';
import { StripeStub } from './stripe_stub.js';

const MINUTE = 60000;
const HOUR = 60 * MINUTE;

let app, stub, organizer, buyer, event, n = 0;

before(async () => {
  stub = await new StripeStub(STRIPE).start();
  app = await boot({ conf: stripeConf(stub, { STRIPE_MODE: 'intent' }) });
  stub.clock = app.clock;
});
after(async () => {
  await app?.stop();
  await stub?.stop();
});
afterEach(() => {
  assert.deepEqual(stub.violations, []);
  stub.calls.length = 0;
});

/* Accounts of this hour: tokens end while the clock moves. */
async function people() {
  await app.stopWorkers();
  await app.startWorkers();
  organizer = await app.user('organizer');
  buyer = await app.user();
  event = await app.event(organizer, { types: [{ priceCents: 700 }] });
}

const place = async () => {
  const res = await app.order(buyer, event.types[0].id);

  return res.data?.id ?? res.headers.location.split('/').pop();
};

const made = (kind, field, id) => [...stub.objects.values()].filter((o) =>
  o.object === kind && o.metadata[field] === id);

/* Runs act() while a worker dies at a point; then nobody works for a while. */
async function lost(point, ms, act) {
  const once = path.join(app.dir, `once.${++n}`);

  await app.stopWorkers();
  await app.startWorkers(
    { env: { STOA_CRASH: point, STOA_CRASH_ONCE: once } });

  const given = await act();

  await until(() => fs.existsSync(once), { what: 'the kill' });
  await app.stopWorkers('SIGKILL');
  stub.calls.length = 0;
  await app.clock.advance(ms);
  return given;
}

/* Workers whose leases are short, so that what was lost is found soon. */
const workAgain = () => app.startWorkers({ env: { STOA_TEST_LEASE: '3000' } });

describe('a refund', () => {
  let order;

  /* A paid order, and a refund of it that got lost for so long. */
  async function lostRefund(point, ms) {
    await people();
    order = await place();

    const [intent] = await until(() => made('payment_intent', 'order_id',
      order).length && made('payment_intent', 'order_id', order));

    await until(() => app.value(
      'select intent_id from app.payments where order_id = $1', [order]));
    stub.pay(intent);
    await webhook(app, 'payment_intent.succeeded', intent);
    await until(async () => await app.value(
      'select status from app.orders where id = $1', [order]) === 'paid');
    await lost(`refund.execute.${point}`, ms, () => app.api('POST',
      `/api/v1/orders/${order}/refunds`, {
        token: organizer.token, body: { amountCents: 300, reason: 'x' },
      }));
    return app.value('select id from app.refunds where order_id = $1',
      [order]);
  }

  const isRefund = (id, status) => until(async () => await app.value(
    'select status from app.refunds where id = $1', [id]) === status,
  { timeout: 20000, what: `the refund to be ${status}` });

  test('22 hours 50 later it is sent again: same key, same bytes',
    async () => {
      const id = await lostRefund('called', 22 * HOUR + 50 * MINUTE);

      await workAgain();
      await isRefund(id, 'succeeded');
      assert.deepEqual(stub.posts('/v1/refunds').map((c) => c.key),
        [`refund:${id}`]);
      assert.equal(made('refund', 'refund_id', id).length, 1);
      assert.equal(stub.calls.filter((c) => c.method === 'GET'
        && c.path === '/v1/refunds').length, 0);
    });

  for (const hours of [23, 25]) {
    test(`${hours} hours later it is looked up and found`, async () => {
      const id = await lostRefund('called', hours * HOUR);

      await workAgain();
      await isRefund(id, 'succeeded');
      assert.equal(stub.posts('/v1/refunds').length, 0, 'not sent again');
      assert.equal(made('refund', 'refund_id', id).length, 1);
      assert.ok(stub.calls.some((c) => c.method === 'GET'
        && c.path === '/v1/refunds'));
      assert.equal(await app.value(
        'select provider_refund_id from app.refunds where id = $1', [id]),
      made('refund', 'refund_id', id)[0].id);
      assert.equal(await app.value(`select count(*)::int from queue.outbox
        where kind = 'refund.execute'`), 0);
    });
  }

  test('25 hours later it is looked up, was never made, and is made', async () => {
    const id = await lostRefund('stored', 25 * HOUR);

    await workAgain();
    await isRefund(id, 'succeeded');
    assert.ok(stub.calls.some((c) => c.method === 'GET'
      && c.path === '/v1/refunds'));
    assert.equal(stub.posts('/v1/refunds').length, 1);
    assert.equal(made('refund', 'refund_id', id).length, 1);
  });
});

describe('a payment whose order is still held', () => {
  test('25 hours later it is looked up and found', async () => {
    await people();

    const id = await lost('payment.create.called', 25 * HOUR, async () => {
      const order = await place();

      await app.sql(`update app.orders
        set reserved_until = reserved_until + interval '2 days'
        where id = $1`, [order]);
      return order;
    });

    await workAgain();
    await until(async () => await app.value(
      'select intent_id from app.payments where order_id = $1',
      [id]) === made('payment_intent', 'order_id', id)[0].id,
    { timeout: 20000, what: 'the intent to be found' });
    assert.equal(stub.posts('/v1/payment_intents').length, 0);
    assert.equal(made('payment_intent', 'order_id', id).length, 1);
    assert.ok(stub.calls.some((c) => c.path.endsWith('/search')));
    assert.equal(await app.value(
      'select status from app.orders where id = $1', [id]),
    'awaiting_payment');
  });
});
