/*
 * Chaos with money: workers are killed and Redis is wiped while orders are
 * placed, paid and refunded through Stripe (the stub).  One session per
 * order, one refund per wish, one mail with tickets, and nothing is left.
 * CHAOS=n multiplies the work (make soak).
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { boot, sleep, until } from '../harness/index.js';
import { STRIPE, stripeConf, webhook } from './stripe_kit.js';
import { StripeStub } from './stripe_stub.js';

const SCALE = Number(process.env.CHAOS ?? (process.env.SOAK ? 10 : 1));
const ORDERS = 12 * SCALE;
const KINDS = `('payment.create', 'refund.execute', 'webhook.process',
  'mail.send')`;

const children = (proc) => fs.readFileSync(
  `/proc/${proc.pid}/task/${proc.pid}/children`, 'utf8').trim().split(' ')
  .filter(Boolean).map(Number);

/* One order's life; a worker may die at any moment of it. */
async function live({ app, stub, buyer, organizer, type }) {
  const res = await app.order(buyer, type);
  const id = res.data?.id ?? res.headers.location.split('/').pop();
  const patience = { timeout: 40000, every: 100, what: `order ${id}` };
  const refunded = () => app.value(`select count(*)::int from app.refunds
    where order_id = $1 and status = 'succeeded'`, [id]);
  const is = (status) => app.value(
    'select status = $2 from app.orders where id = $1', [id, status]);

  await until(() => app.value(`select session_id is not null
    from app.payments where order_id = $1`, [id]), patience);

  const session = [...stub.objects.values()].find((o) =>
    o.object === 'checkout.session' && o.metadata.order_id === id);
  const intent = stub.pay(session);

  /* Stripe tells twice, and at once */
  await Promise.all([
    webhook(app, 'checkout.session.completed', session),
    webhook(app, 'payment_intent.succeeded', intent),
  ]);
  await until(() => is('paid'), patience);
  await app.api('POST', `/api/v1/orders/${id}/refunds`,
    { token: organizer.token, body: { amountCents: 100, reason: 'x' } });
  await until(async () => await refunded() === 1, patience);
  return id;
}

async function disturb({ app }, over) {
  for (let i = 0; !over(); i++) {
    await sleep(500 + Math.random() * 500);

    const pids = children(app.worker);

    if (pids.length) {
      process.kill(pids[Math.floor(Math.random() * pids.length)], 'SIGKILL');
    }
    if (i % 4 === 2) await app.redis.flushall();
    if (i > 12 * SCALE) return; /* then let it heal */
    /* what a wiped Redis lost is sent again, without waiting 5 minutes */
    await app.sql(`update queue.outbox set sent_at = sent_at - interval '1 h'
      where state = 1`);
  }
}

test('orders, payments and refunds while workers and Redis die', async () => {
  const stub = await new StripeStub(STRIPE).start();
  const app = await boot({
    conf: stripeConf(stub), workers: 3, env: { STOA_TEST_LEASE: '3000' },
  });

  let heal;

  try {
    stub.clock = app.clock;

    const organizer = await app.user('organizer');
    const buyer = await app.user();
    const event = await app.event(organizer,
      { types: [{ priceCents: 700, quota: 10000 }] });
    const s = { app, stub, organizer, buyer, type: event.types[0].id };
    let over = false;
    const trouble = disturb(s, () => over);

    heal = setInterval(() => app.sql(`update queue.outbox
      set sent_at = sent_at - interval '1 h'
      where state = 1 and sent_at > app.now() - interval '5 min'
        and created_at < app.now() - interval '2 s'`).catch(() => {}), 4000);
    const ids = await Promise.all(Array.from({ length: ORDERS },
      () => live(s))).finally(() => {
      over = true;
    });

    await trouble;
    await until(async () => await app.value(`select count(*)::int
      from queue.outbox where kind in ${KINDS}`) === 0,
    { timeout: 40000, every: 200, what: 'the outbox to be empty' });

    for (const id of ids) {
      const of = (kind) => [...stub.objects.values()].filter((o) =>
        o.object === kind && o.metadata?.order_id === id);

      assert.equal(of('checkout.session').length, 1);
      assert.equal((await app.sql(
        'select id from app.refunds where order_id = $1', [id])).length, 1);
    }
    assert.equal(stub.made.session, ORDERS);
    assert.equal(stub.made.refund, ORDERS);
    assert.equal((await app.mails((m) => m.attachments.length)).length, ORDERS);
    assert.equal(await app.value(`select count(*)::int from queue.history
      where state = 'dead'`), 0);
    assert.deepEqual(stub.violations, []);
  } finally {
    clearInterval(heal);
    await app.stop();
    await stub.stop();
  }
});

test('Redis hangs while Stripe is slow: given back, the same call again',
  async () => {
    const stub = await new StripeStub(STRIPE).start();
    const app = await boot({
      conf: stripeConf(stub), env: { STOA_TEST_LEASE: '3000' },
    });

    try {
      const organizer = await app.user('organizer');
      const event = await app.event(organizer, { types: [{ priceCents: 700 }] });
      const log = () => fs.readFileSync(
        path.join(app.dir, 'log', 'worker.log'), 'utf8');

      stub.faults.push({ wait: 20000 });

      const placing = app.order(organizer, event.types[0].id);

      await until(() => stub.posts('/v1/checkout').length === 1);
      app.redisProc.kill('SIGSTOP');
      try {
        await until(() => log().includes('could not be renewed'),
          { what: 'the flow to be aborted' });
      } finally {
        app.redisProc.kill('SIGCONT');
      }

      const res = await placing;
      const id = res.data?.id ?? res.headers.location.split('/').pop();

      await until(() => app.value(`select session_id is not null
        from app.payments where order_id = $1`, [id]),
      { timeout: 15000, what: 'the checkout' });
      assert.equal(stub.made.session, 1);
      assert.ok(stub.posts('/v1/checkout').length >= 2);
      assert.equal(new Set(stub.posts('/v1/checkout').map((c) =>
        `${c.key} ${c.raw}`)).size, 1);
    } finally {
      await app.stop();
      await stub.stop();
    }
  });
