/*
 * I-51: a worker is killed with kill -9 at every point that a task row lists,
 * with the real functions, an edge and providers that count.  Every effect
 * is there once, and nothing is left in a queue.  crash.test.js does the same
 * for what is one statement; the engine itself is tested there.
 *
 * The tests are made from the rows: a flow without a scenario here fails.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { boot, sleep, until } from '../harness/index.js';
import { rows } from './points.js';
import { StripeStub } from './stripe_stub.js';
import { STRIPE, stripeConf, webhook } from './stripe_kit.js';

const LEASE = { STOA_TEST_LEASE: '3000' };

const count = (app, table, where, ...params) => app.value(
  `select count(*)::int from ${table} where ${where}`, params);

const sessionOf = (stub, id) => [...stub.objects.values()].find((o) =>
  o.object === 'checkout.session' && o.metadata.order_id === id);

const statusOf = (app, order) => app.value(
  `select status from app.orders where id = $1`, [order.id]);

/* An order with its checkout; a worker may be killed on the way. */
async function place({ app, buyer, event }) {
  const res = await app.order(buyer, event.types[0].id);
  const id = res.data?.id ?? res.headers.location.split('/').pop();

  assert.ok([201, 202].includes(res.status), res.text);
  return { id };
}

/* Pays an order's session; Stripe tells unless it is to be found out. */
async function pay(s, order, tell = true) {
  const session = await until(() => sessionOf(s.stub, order.id));

  await until(() => count(s.app, 'app.payments',
    'order_id = $1 and session_id is not null', order.id));

  const intent = s.stub.pay(session);

  if (tell) {
    assert.equal((await webhook(s.app, 'payment_intent.succeeded',
      intent)).status, 200);
  }
  return intent;
}

/* Paid once, with one mail that has the ticket. */
async function paidOnce({ app, buyer }, order) {
  const payment = (await app.sql(
    'select * from app.payments where order_id = $1', [order.id]))[0];

  assert.equal(await statusOf(app, order), 'paid');
  assert.equal(payment.captured_cents, payment.amount_cents);
  assert.equal(payment.refunded_cents, 0);
  assert.equal(await count(app, 'app.tickets',
    `order_id = $1 and state = 'valid'`, order.id), 1);
  assert.equal(await count(app, 'app.audit_log',
    `action = 'payment.succeeded' and resource_id = $1`, payment.id), 1);
  assert.equal(await count(app, 'app.refunds', 'order_id = $1', order.id), 0);
  await until(() => count(app, 'queue.history',
    `kind = 'mail.send' and payload->>'order_id' = $1`, order.id));
  assert.equal((await app.mails((m) => m.attachments.length
    && m.recipients.includes(buyer.email)
    && m.text.includes(order.id))).length, 1);
}

/*
 * prepare  before workers that die are started; what it gives, act gets
 * act      makes the task; what it gives, the others get
 * nudge    again and again until the task has ended
 * once     the effect is there, and once
 */
const SCENARIOS = {
  'mail.send': {
    act: (s) => s.app.freeTickets(s.buyer, s.free.types[0].id),
    once: async (s) => assert.equal((await s.app.mails((m) =>
      m.attachments.length && m.recipients.includes(s.buyer.email))).length, s.turn),
  },

  'payment.create': {
    act: place,
    once: (s, order) => {
      const calls = s.stub.posts('/v1/checkout')
        .filter((c) => c.key === `order:${order.id}`);

      assert.equal([...s.stub.objects.values()].filter((o) =>
        o.metadata?.order_id === order.id).length, 1);
      assert.equal(new Set(calls.map((c) => c.raw)).size, 1);
      assert.equal(s.stub.made.session, s.turn);
    },
  },

  'refund.execute': {
    prepare: async (s) => {
      const order = await place(s);

      await pay(s, order);
      await until(async () => await statusOf(s.app, order) === 'paid');
      return order;
    },
    act: async (s, order) => {
      const res = await s.app.api('POST', `/api/v1/orders/${order.id}/refunds`,
        { token: s.organizer.token, body: { amountCents: 300, reason: 'x' } });

      assert.ok([200, 201, 202].includes(res.status), res.text);
      return order;
    },
    once: async (s, order) => {
      const all = await s.app.sql(
        'select * from app.refunds where order_id = $1', [order.id]);
      const calls = s.stub.posts('/v1/refunds')
        .filter((c) => c.key === `refund:${all[0].id}`);

      assert.deepEqual(all.map((r) => r.status), ['succeeded']);
      assert.equal(s.stub.made.refund, s.turn);
      assert.equal(s.stub.objects.get(all[0].provider_refund_id).amount, 300);
      assert.equal(new Set(calls.map((c) => c.raw)).size, 1);
      assert.equal(s.stub.posts('/v1/refunds').length, s.refunds +=
        calls.length);
      assert.equal(await s.app.value(
        'select refunded_cents::int from app.payments where order_id = $1',
        [order.id]), 300);
    },
  },

  'payment.reconcile': {
    prepare: async (s) => {
      const order = await place(s);

      await pay(s, order, false);
      await s.app.stopWorkers();
      await s.app.clock.advance(150000);
      return order;
    },
    act: (s, order) => order,
    /* who was just asked about is not asked about for two minutes */
    nudge: async (s, order) => {
      for (let i = 0; i < 50 && await statusOf(s.app, order) !== 'paid'; i++) {
        await sleep(100);
      }
      if (await statusOf(s.app, order) !== 'paid') {
        await s.app.clock.advance(125000);
      }
    },
    ended: async (s, order) => await statusOf(s.app, order) === 'paid',
    once: paidOnce,
  },

  'payment.cancel': {
    prepare: async (s) => {
      const order = await place(s);

      await until(() => count(s.app, 'app.payments',
        'order_id = $1 and session_id is not null', order.id));
      return order;
    },
    act: async (s, order) => {
      const res = await s.app.api('POST', `/api/v1/orders/${order.id}/cancel`,
        { token: s.buyer.token, body: {} });

      assert.equal(res.status, 200, res.text);
      return order;
    },
    once: async (s, order) => {
      assert.equal(sessionOf(s.stub, order.id).status, 'expired');
      assert.equal(await statusOf(s.app, order), 'cancelled');
      assert.equal(await s.app.value(
        'select status from app.payments where order_id = $1', [order.id]),
      'canceled');
      assert.equal(s.stub.made.refund, 0);
    },
  },

  'payment.test_pay': {
    provider: 'test',
    prepare: (s) => place(s),
    act: async (s, order) => {
      const url = await s.app.value(
        'select checkout_url from app.payments where order_id = $1',
        [order.id]);
      const res = await s.app.api('POST', new URL(url).pathname, {
        body: 'action=pay', validate: false,
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
      });

      assert.equal(res.status, 303);
      return order;
    },
    ended: async (s, order) => await statusOf(s.app, order) === 'paid',
    once: async (s, order) => {
      await paidOnce(s, order);
      assert.equal(await count(s.app, 'app.webhook_events', 'true'), s.turn);
    },
  },

  'webhook.process': {
    prepare: (s) => place(s),
    act: async (s, order) => {
      await pay(s, order);
      return order;
    },
    once: paidOnce,
  },

  'ticket.render': {
    prepare: async (s) =>
      (await s.app.freeTickets(s.buyer, s.free.types[0].id))[0],
    act: async (s, ticket) => {
      const res = await s.app.api('GET', `/api/v1/tickets/${ticket.id}.pdf`,
        { token: s.buyer.token, validate: false });

      assert.ok([200, 202].includes(res.status), res.text);
      return ticket;
    },
    once: async (s, ticket) => {
      const res = await s.app.api('GET', `/api/v1/tickets/${ticket.id}.pdf`,
        { token: s.buyer.token, validate: false });

      assert.equal(res.status, 200);
      assert.equal(res.raw.subarray(0, 5).toString(), '%PDF-');
      assert.equal(await count(s.app, 'app.ticket_renders',
        'ticket_id = $1', ticket.id), 1);
    },
  },
};

/* Nothing of this kind waits, runs or is dead, here or there. */
async function empty(app, kind) {
  await until(async () =>
    await count(app, 'queue.outbox', 'kind = $1', kind) === 0,
  { timeout: 20000, what: `the outbox to have no ${kind}` });
  await until(async () => {
    for (const key of await app.redis.keys('stoa:{q:*}:j:*')) {
      const e = await app.redis.hget(key, 'e');

      if (e?.includes(`"t":"${kind}"`)) return false;
    }
    return true;
  }, { timeout: 20000, what: `Redis to have no ${kind}` });
  assert.equal(await count(app, 'queue.history',
    `kind = $1 and state = 'dead'`, kind), 0);
}

for (const { kind, points } of rows.filter((row) => !row.sql
  || SCENARIOS[row.kind])) {
  describe(`kill -9 in ${kind}`, () => {
    const plan = SCENARIOS[kind];
    const s = { turn: 0, refunds: 0 };

    before(async () => {
      assert.ok(plan, `${kind} has crash points but no scenario`);
      s.stub = await new StripeStub(STRIPE).start();
      s.app = await boot({
        conf: plan.provider === 'test' ? {} : stripeConf(s.stub), env: LEASE,
      });
      s.stub.clock = s.app.clock;
      s.organizer = await s.app.user('organizer');
      s.buyer = await s.app.user();
      s.event = await s.app.event(s.organizer, { types: [{ priceCents: 700 }] });
      s.free = await s.app.event(s.organizer, { types: [{ priceCents: 0 }] });
    });
    after(async () => {
      await s.app?.stop();
      await s.stub?.stop();
    });

    for (const point of points) {
      test(`${point}: the effect is there once`, async () => {
        const once = path.join(s.app.dir, `once.${point}`);

        s.turn++;

        const given = await plan.prepare?.(s);

        await s.app.stopWorkers();
        await s.app.startWorkers({
          env: { STOA_CRASH: `${kind}.${point}`, STOA_CRASH_ONCE: once },
        });

        const made = await plan.act(s, given);

        await until(() => fs.existsSync(once),
          { timeout: 20000, what: 'the kill' });
        await until(async () => {
          await plan.nudge?.(s, made);
          return !plan.ended || plan.ended(s, made);
        }, { timeout: 30000, what: 'the effect' });
        await empty(s.app, kind);
        await plan.once(s, made);
        assert.deepEqual(s.stub.violations, []);
      });
    }
  });
}
