/*
 * Payments through the provider "stripe" against a recording stub that holds
 * every call to Stripe's published rules (stripe_stub.js), with the official
 * SDK as signer and judge of webhooks; and the provider "test", whose events
 * must look like Stripe's to that SDK.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { SECRETS, boot, sleep, until } from '../harness/index.js';
import { STRIPE, sdk, stripeConf, webhook } from './stripe_kit.js';
import { StripeStub } from './stripe_stub.js';

const RETRY_MS = 15000;

const getOrder = async (app, user, id) =>
  (await app.api('GET', `/api/v1/orders/${id}`, { token: user.token })).data;

const isOrder = (app, user, id, status) => until(
  async () => {
    const order = await getOrder(app, user, id);

    return order.status === status && order;
  }, { timeout: 15000, what: `order ${id} to be ${status}` });

describe('Checkout Sessions', () => {
  let app, stub, organizer, event, buyer;

  before(async () => {
    stub = await new StripeStub(STRIPE).start();
    app = await boot({ conf: stripeConf(stub) });
    stub.clock = app.clock;
    organizer = await app.user('organizer');
    event = await app.event(organizer,
      { title: 'Gala & Bühne = 100%', types: [{ priceCents: 2550 }] });
    buyer = await app.user();
  });
  after(async () => {
    await app?.stop();
    await stub?.stop();
  });
  afterEach(() => {
    assert.deepEqual(stub.violations, []);
    assert.equal(stub.faults.length, 0, 'every fault was met');
    stub.calls.length = 0;
  });

  const order = (n = 2) => app.order(buyer, event.types[0].id, n);

  /* Pays an order's session and waits until Stoa knows. */
  async function pay(placed) {
    const session = stub.objects.get([...stub.objects.keys()].find((id) =>
      stub.objects.get(id).metadata?.order_id === placed.id));
    const intent = stub.pay(session);

    assert.equal((await webhook(app, 'checkout.session.completed',
      session)).status, 200);
    assert.equal((await webhook(app, 'payment_intent.succeeded',
      intent)).status, 200);
    return isOrder(app, buyer, placed.id, 'paid');
  }

  test('an order answers with the checkout\'s address', async () => {
    const res = await order();

    assert.equal(res.status, 201);

    const { paymentDetails: pd } = res.data;
    const [call] = stub.posts('/v1/checkout/sessions');
    const line = call.body.line_items[0];

    assert.equal(pd.provider, 'stripe');
    assert.match(pd.checkoutUrl, /\/pay\/cs_test_\d+$/);
    assert.equal(pd.publishableKey, app.conf.STRIPE_PUBLISHABLE_KEY);
    assert.equal(call.key, `order:${res.data.id}`);
    assert.equal(line.price_data.unit_amount, '5100');
    assert.equal(line.price_data.currency,
      res.data.currency.toLowerCase());
    assert.ok(line.price_data.product_data.name
      .includes('Gala & Bühne = 100%'));
    assert.equal(call.body.client_reference_id, res.data.id);
    assert.equal(call.body.metadata.order_id, res.data.id);
    assert.deepEqual(call.body.payment_intent_data.metadata,
      call.body.metadata);
    assert.equal(call.body.customer_email, buyer.email);
    assert.equal(call.body.success_url,
      `${app.url}/events/order/?id=${res.data.id}&paid=1`);
    assert.equal(call.body.cancel_url,
      `${app.url}/events/order/?id=${res.data.id}`);
  });

  test('paid by webhook: tickets, and the mail with them', async () => {
    const placed = (await order(1)).data;
    const paid = await pay(placed);

    assert.equal(paid.tickets.length, 1);
    assert.equal(paid.tickets[0].state, 'valid');
    await app.mailTo(buyer.email, (m) => m.attachments.length === 1);
  });

  for (const [what, fault] of [
    ['a 500', { status: 500 }],
    ['a 503 that says when', { status: 503, headers: { 'retry-after': '1' } }],
    ['a 429', { status: 429, headers: { 'retry-after': '1' } }],
    ['a lock time-out', {
      status: 409,
      error: { type: 'invalid_request_error', code: 'lock_timeout' },
    }],
    ['a 400 that Stripe wants again', {
      status: 400, headers: { 'stripe-should-retry': 'true' },
    }],
    ['a line that breaks before the work', { cut: 'before' }],
    ['a line that breaks after the work', { cut: 'after' }],
  ]) {
    test(`${what} is tried again: same key, same bytes, once`, async () => {
      const made = stub.made.session;

      stub.faults.push(fault);
      const placed = (await order(1)).data;

      await until(async () => {
        await app.clock.advance(RETRY_MS);
        await sleep(250);
        return (await getOrder(app, buyer, placed.id))
          .paymentDetails?.checkoutUrl;
      }, { timeout: 15000, what: 'the checkout\'s address' });

      const calls = stub.posts('/v1/checkout/sessions');

      assert.ok(calls.length >= 2);
      assert.equal(new Set(calls.map((c) => c.key)).size, 1);
      assert.equal(new Set(calls.map((c) => c.raw)).size, 1);
      assert.equal(stub.made.session, made + 1);
    });
  }

  test('Retry-After is obeyed', async () => {
    stub.faults.push({ status: 429, headers: { 'retry-after': '600' } });
    const placed = (await order(1)).data;

    await app.clock.advance(500000);
    await sleep(1200);
    assert.equal(stub.posts('/v1/checkout').length, 1);
    await app.clock.advance(150000);
    await until(() => stub.posts('/v1/checkout').length === 2,
      { timeout: 5000, what: 'the second try' });
    assert.ok(placed.id);
  });

  for (const [what, fault] of [
    ['402', { status: 402, error: { type: 'card_error', code: 'x' } }],
    ['400', {
      status: 400, error: {
        type: 'invalid_request_error', code: 'amount_too_small', message: 'm',
      },
    }],
    ['a 409 that Stripe does not want again', {
      status: 409, headers: { 'stripe-should-retry': 'false' },
    }],
  ]) {
    test(`${what} is for good`, async () => {
      stub.faults.push(fault);
      const placed = (await order(1)).data;

      /* the order fails and gives its seats back at once */
      await until(async () => await app.value(
        'select status from app.payments where order_id = $1',
        [placed.id]) === 'canceled', { what: 'the payment to be given up' });
      assert.match((await getOrder(app, buyer, placed.id)).status,
        /^(payment_failed|expired)$/);
      await app.clock.advance(RETRY_MS);
      await sleep(700);
      assert.equal(stub.posts('/v1/checkout').length, 1);
    });
  }

  test('Stripe is down: few calls, no order harmed, back at once',
    async () => {
      const made = stub.made.session;

      stub.faults.push(...Array(5).fill({ status: 500 }));
      const placed = (await Promise.all(Array.from({ length: 6 },
        () => order(1)))).map((r) => r.data);

      for (const { id } of placed) {
        await until(async () => {
          await app.clock.advance(RETRY_MS);
          await sleep(250);
          return (await getOrder(app, buyer, id)).paymentDetails?.checkoutUrl;
        }, { timeout: 30000, what: 'the checkout\'s address' });
      }

      assert.equal(stub.made.session, made + 6);
      const lines = fs.readFileSync(
        path.join(app.dir, 'log', 'worker.log'), 'utf8');

      assert.match(lines, /breaker: "stripe" is down/);
      assert.match(lines, /breaker: "stripe" is back/);
    });

  test('a refund uses its own key, once, through a broken line', async () => {
    const placed = (await order(2)).data;

    await pay(placed);
    stub.faults.push({ cut: 'after' });
    const res = await app.api('POST', `/api/v1/orders/${placed.id}/refunds`, {
      token: organizer.token, body: { amountCents: 1000, reason: 'ill' },
    });

    assert.ok([200, 201, 202].includes(res.status), res.text);
    await until(async () => {
      await app.clock.advance(RETRY_MS);
      await sleep(250);
      return await app.value(
        `select count(*)::int from app.refunds
         where order_id = $1 and status = 'succeeded'`, [placed.id]) === 1;
    }, { timeout: 15000, what: 'the refund' });

    const calls = stub.posts('/v1/refunds');
    const id = await app.value(
      'select id from app.refunds where order_id = $1', [placed.id]);

    assert.equal(calls.length, 2);
    assert.ok(calls.every((c) => c.key === `refund:${id}`));
    assert.equal(calls[0].raw, calls[1].raw);
    assert.equal(calls[0].body.amount, '1000');
    assert.equal(calls[0].body.metadata.refund_id, id);
    assert.equal(stub.made.refund, 1);
  });

  test('a refund outlasts an API key that Stripe refuses', async () => {
    const placed = (await order(1)).data;

    await pay(placed);
    for (let i = 0; i < 14; i++) {
      stub.faults.push({
        status: i % 2 ? 401 : 403,
        error: { type: 'invalid_request_error', code: 'x' },
      });
    }
    await app.api('POST', `/api/v1/orders/${placed.id}/refunds`,
      { token: organizer.token, body: { amountCents: 500 } });

    /* more tries than a task has, had they counted */
    await until(async () => {
      await app.clock.advance(61000);
      await sleep(150);
      return await app.value('select status from app.refunds where '
        + 'order_id = $1', [placed.id]) === 'succeeded';
    }, { timeout: 30000, what: 'the refund' });
    assert.ok(stub.posts('/v1/refunds').length >= 15);
  });

  test('I-33: a lost webhook is made good by reconciling', async () => {
    const placed = (await order(1)).data;
    const session = [...stub.objects.values()].find((o) =>
      o.object === 'checkout.session' && o.metadata.order_id === placed.id);

    stub.pay(session);
    await until(async () => {
      await app.clock.advance(61000);
      await sleep(400);
      return (await getOrder(app, buyer, placed.id)).status === 'paid';
    }, { timeout: 20000, what: 'reconcile to see the payment' });
  });

  const sessionOf = (placed) => [...stub.objects.values()].find((o) =>
    o.object === 'checkout.session' && o.metadata.order_id === placed.id);

  test('a cancelled order\'s session ends at once', async () => {
    const placed = (await order(1)).data;
    const session = sessionOf(placed);
    const res = await app.api('POST', `/api/v1/orders/${placed.id}/cancel`,
      { token: buyer.token, body: {} });

    assert.equal(res.status, 200, res.text);
    await until(() => session.status === 'expired',
      { timeout: 10000, what: 'the session to be expired' });
    await until(async () => await app.value(
      'select status from app.payments where order_id = $1',
      [placed.id]) === 'canceled', { what: 'the payment to be closed' });
    assert.equal(stub.posts(`/v1/checkout/sessions/${session.id}/expire`)
      .length, 1);
  });

  test('a hold that ran out ends its session, too', async () => {
    const placed = (await order(1)).data;
    const session = sessionOf(placed);

    await app.clock.advance(16 * 60000);
    await until(async () => {
      await app.clock.advance(61000);
      await sleep(400);
      return session.status === 'expired';
    }, { timeout: 20000, what: 'the session to be expired' });
  });

  test('cancelled while it is being paid: all goes back', async () => {
    const placed = (await order(1)).data;

    await app.stopWorkers();
    stub.pay(sessionOf(placed));
    await app.api('POST', `/api/v1/orders/${placed.id}/cancel`,
      { token: buyer.token, body: {} });
    await app.startWorkers();
    await until(() => [...stub.objects.values()].some((o) =>
      o.object === 'refund' && o.metadata.order_id === placed.id
        && o.amount === 2550), { timeout: 15000, what: 'the refund' });
    assert.equal((await getOrder(app, buyer, placed.id)).status, 'cancelled');
  });

  /* A refund that Stripe takes its time for; the refund at Stripe. */
  async function pending(placed) {
    stub.refundsAre = 'pending';
    const res = await app.api('POST', `/api/v1/orders/${placed.id}/refunds`,
      { token: organizer.token, body: {} });

    assert.equal(res.status, 201, res.text);
    await until(async () => await app.value(`select provider_refund_id
      from app.refunds where order_id = $1 and status = 'pending'`,
    [placed.id]), { what: 'the refund to be taken' });
    stub.refundsAre = 'succeeded';
    return [...stub.objects.values()].find((o) => o.object === 'refund'
      && o.metadata.order_id === placed.id);
  }

  const told = (template, id) => app.value(`select count(*)::int
    from (select payload from queue.outbox union all
      select payload from queue.history) q
    where payload->>'template' = $1 and payload->>'order_id' = $2`,
  [template, id]);
  const refundIs = (id, status) => until(async () => await app.value(
    'select status from app.refunds where order_id = $1', [id]) === status,
  { timeout: 15000, what: `the refund to be ${status}` });

  test('a pending refund ends by Stripe\'s word, then the buyer is told',
    async () => {
      const placed = (await order(1)).data;

      await pay(placed);

      const refund = await pending(placed);

      assert.equal(await told('order_refunded', placed.id), 0);
      await webhook(app, 'refund.updated', { ...refund, status: 'succeeded' });
      await refundIs(placed.id, 'succeeded');
      assert.equal(await told('order_refunded', placed.id), 1);

      /* the bank sends it back a week later */
      await webhook(app, 'charge.refund.updated',
        { ...refund, status: 'failed', failure_reason: 'unknown' });
      await refundIs(placed.id, 'failed');

      const res = await app.api('GET', `/api/v1/orders/${placed.id}`,
        { token: organizer.token });
      const now = res.data;

      assert.equal(now.status, 'refund_failed');
      assert.equal(now.refundedCents, 0);
      await app.mailTo(organizer.email, (m) => /refund/i.test(m.subject));
    });

  test('a lost word about a refund is made good by reconciling', async () => {
    const placed = (await order(1)).data;

    await pay(placed);
    (await pending(placed)).status = 'succeeded';
    await until(async () => {
      await app.clock.advance(61000);
      await sleep(400);
      return await app.value(
        'select status from app.refunds where order_id = $1',
        [placed.id]) === 'succeeded';
    }, { timeout: 30000, what: 'reconcile to see the refund' });
    assert.equal(await told('order_refunded', placed.id), 1);
  });
});

describe('PaymentIntents', () => {
  let app, stub, event, buyer;

  before(async () => {
    stub = await new StripeStub(STRIPE).start();
    app = await boot({ conf: stripeConf(stub, { STRIPE_MODE: 'intent' }) });
    const organizer = await app.user('organizer');

    event = await app.event(organizer, { types: [{ priceCents: 700 }] });
    buyer = await app.user();
  });
  after(async () => {
    await app?.stop();
    await stub?.stop();
  });

  test('the order carries id, client secret and publishable key',
    async () => {
      const res = await app.order(buyer, event.types[0].id, 1);

      assert.equal(res.status, 201);

      const { paymentDetails: pd } = res.data;
      const [call] = stub.posts('/v1/payment_intents');

      assert.equal(call.body.amount, '700');
      assert.equal(call.body.metadata.order_id, res.data.id);
      assert.match(pd.paymentIntentId, /^pi_test_\d+$/);
      assert.match(pd.clientSecret, /_secret_/);
      assert.equal(pd.publishableKey, app.conf.STRIPE_PUBLISHABLE_KEY);
      assert.deepEqual(stub.violations, []);
    });

  test('a 500 that its key keeps repeating is looked up', async () => {
    stub.faults.push({ replayed500: true });
    const placed = (await app.order(buyer, event.types[0].id, 1)).data;

    await until(async () => {
      await app.clock.advance(RETRY_MS);
      await sleep(250);
      return (await getOrder(app, buyer, placed.id))
        .paymentDetails?.clientSecret;
    }, { timeout: 10000, what: 'the intent to be found' });
    assert.ok(stub.calls.some((c) => c.path.endsWith('/search')));
    assert.deepEqual(stub.violations, []);
  });
});

describe('the provider "test"', () => {
  test('its events are Stripe\'s to the official SDK', async () => {
    const posts = [];
    const edge = http.createServer((req, res) => {
      const chunks = [];

      req.on('data', (c) => chunks.push(c));
      req.on('end', () => {
        posts.push({
          path: req.url, raw: Buffer.concat(chunks),
          signature: req.headers['stripe-signature'],
        });
        /* the first two tries fail, so the third must be the same event */
        res.writeHead(posts.length < 3 ? 503 : 200);
        res.end();
      });
    });

    await new Promise((done) => { edge.listen(0, '127.0.0.1', done); });
    const app = await boot({
      conf: { EDGE_URL: `http://127.0.0.1:${edge.address().port}` },
    });

    try {
      const organizer = await app.user('organizer');
      const event = await app.event(organizer,
        { types: [{ priceCents: 1234 }] });
      const placed = (await app.order(organizer, event.types[0].id)).data;
      const { pathname } = new URL(placed.paymentDetails.checkoutUrl);
      const res = await app.api('POST', pathname, {
        body: 'action=pay', validate: false,
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
      });

      assert.equal(res.status, 303);
      await until(async () => {
        await app.clock.advance(RETRY_MS);
        await sleep(200);
        return posts.length >= 3;
      }, { timeout: 15000, what: 'three tries' });

      const seen = posts.map((p) => {
        assert.equal(p.path, '/api/v1/webhooks/stripe');
        return sdk.webhooks.constructEvent(p.raw, p.signature,
          SECRETS.TEST_WEBHOOK_SECRET, 86400);
      });

      assert.equal(new Set(seen.map((e) => e.id)).size, 1, 'one event');
      assert.match(seen[0].id, /^evt_test_stoa_\d+$/);
      assert.equal(seen[0].type, 'payment_intent.succeeded');
      assert.equal(seen[0].data.object.amount_received, 1234);
      assert.equal(seen[0].data.object.metadata.order_id, placed.id);
    } finally {
      await app.stop();
      edge.closeAllConnections();
      edge.close();
    }
  });

  test('Pay pays and Decline declines', async () => {
    const app = await boot();

    try {
      const organizer = await app.user('organizer');
      const buyer = await app.user();
      const event = await app.event(organizer,
        { types: [{ priceCents: 1234 }] });
      const press = async (action) => {
        const placed = (await app.order(buyer, event.types[0].id)).data;
        const { pathname } = new URL(placed.paymentDetails.checkoutUrl);
        const res = await app.api('POST', pathname, {
          body: `action=${action}`, validate: false,
          headers: { 'content-type': 'application/x-www-form-urlencoded' },
        });

        assert.equal(res.status, 303);
        return placed.id;
      };

      const paid = await isOrder(app, buyer, await press('pay'), 'paid');

      assert.equal(paid.tickets[0].state, 'valid');
      await isOrder(app, buyer, await press('decline'), 'payment_failed');
    } finally {
      await app.stop();
    }
  });
});
