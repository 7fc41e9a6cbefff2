/*
 * Orders that are paid late, called off, given away or asked for twice, as
 * their buyers and organizers meet them.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { after, before, test } from 'node:test';
import { SECRETS, boot, until } from '../harness/index.js';

let app, olga, ann, ben, cid;

before(async () => {
  app = await boot({ conf: { HOLD_MAX_ORDERS: null } }); /* as shipped */
  [olga, ann, ben, cid] = [await app.user('organizer'), await app.user(),
    await app.user(), await app.user()];
});
after(() => app?.stop());

const call = (user, path, body = {}, headers = {}) =>
  app.api('POST', `/api/v1${path}`, { token: user.token, body, headers });

async function must(status, promise) {
  const res = await promise;

  assert.equal(res.status, status, res.text);
  return res.data;
}

function refused(res, status, code) {
  assert.equal(res.status, status, res.text);
  assert.equal(res.error.code, code);
}

const stateOf = async (user, id) => (await must(200, app.api('GET',
  `/api/v1/orders/${id}`, { token: user.token }))).status;

const isNow = (user, id, status) => until(
  async () => await stateOf(user, id) === status,
  { what: `order ${id} to be ${status}`, timeout: 30000 });

const press = (id) => app.api('POST', `/pay/${id}`, {
  body: 'action=pay', validate: false,
  headers: { 'content-type': 'application/x-www-form-urlencoded' },
});

/* An event of the provider, signed with any secret. */
function tell(object, secret, id = `evt_${crypto.randomUUID()}`) {
  const at = Math.floor((Date.now() + app.clock.ms) / 1000);
  const body = JSON.stringify({
    id, object: 'event', created: at, livemode: false,
    type: 'payment_intent.succeeded', data: { object },
  });
  const v1 = crypto.createHmac('sha256', secret).update(`${at}.${body}`)
    .digest('hex');

  return app.api('POST', '/api/v1/webhooks/stripe', {
    body, headers: {
      'content-type': 'application/json',
      'stripe-signature': `t=${at},v1=${v1}`,
    },
  });
}

async function intentOf(orderId) {
  const [p] = await app.sql(
    'select * from app.payments where order_id = $1', [orderId]);

  return {
    id: p.intent_id, object: 'payment_intent',
    amount: Number(p.amount_cents), amount_received: Number(p.amount_cents),
    currency: p.currency.toLowerCase(), metadata: { payment_id: p.id },
  };
}

test('I-27: order, cancel, order ..., then pay all: one discount', async () => {
  const event = await app.event(olga, { types: [{ priceCents: 1000 }] });
  const type = event.types[0].id;
  const orders = [];

  await must(201, call(olga, `/events/${event.id}/promo-codes`,
    { code: 'ONCE', kind: 'percent', value: 90, maxUses: 1, perUser: 1 }));
  for (let i = 0; i < 4; i++) {
    const order = await must(201, call(ann, '/orders', {
      items: [{ ticketTypeId: type, quantity: 1 }], promoCode: 'ONCE',
    }));

    orders.push(order.id);
    if (i < 3) await must(200, call(ann, `/orders/${order.id}/cancel`));
  }
  for (const id of orders.slice(0, 3)) {
    refused(await press(id), 409, 'INVALID_STATE');
    /* the provider may have had it in flight */
    await must(200, tell(await intentOf(id), SECRETS.TEST_WEBHOOK_SECRET));
  }
  assert.equal((await press(orders[3])).status, 303);
  await isNow(ann, orders[3], 'paid');
  await until(async () => await app.value(`select count(*)::int
    from app.refunds where order_id = any ($1) and status = 'succeeded'`,
  [orders]) === 3, { what: 'three refunds', timeout: 30000 });
  for (const id of orders.slice(0, 3)) {
    assert.equal(await stateOf(ann, id), 'cancelled');
  }
  assert.equal(await app.value(`select count(*)::int
    from app.promo_redemptions r join app.orders o on o.id = r.order_id
    where o.event_id = $1 and not r.released`, [event.id]), 1);
  await app.mailTo(ann.email, (m) => /after your order had ended/
    .test(m.text));
});

test('whose secret signs decides whose payments an event speaks of',
  async () => {
    const event = await app.event(olga, { types: [{ priceCents: 1000 }] });
    const order = await must(201, app.order(ben, event.types[0].id));
    const intent = await intentOf(order.id);
    const id = `evt_live_${crypto.randomUUID()}`;

    /* Stripe's secret says nothing of the test provider's payments */
    await must(200, tell(intent, SECRETS.STRIPE_WEBHOOK_SECRET,
      `evt_test_stoa_${crypto.randomUUID()}`));
    await must(200, tell({ ...intent, id: 'pi_x', metadata: {} },
      SECRETS.TEST_WEBHOOK_SECRET, id));
    assert.equal(await app.value(
      'select provider from app.webhook_events where event_id = $1', [id]),
    'test');
    await until(async () => await app.value(`select count(*)::int
      from app.webhook_events where state = 'stored'`) === 0,
    { what: 'the events to be applied' });
    assert.equal(await stateOf(ben, order.id), 'awaiting_payment');

    /* what is no money, and other money */
    await must(200, tell({ ...intent, amount_received: 'abc' },
      SECRETS.TEST_WEBHOOK_SECRET));
    await must(200, tell({ ...intent, currency: 'xxx' },
      SECRETS.TEST_WEBHOOK_SECRET));
    await until(async () => await app.value(`select count(*)::int
      from app.webhook_events where state = 'failed'`) === 2,
    { what: 'two events to be given up', timeout: 30000 });
    assert.equal(await stateOf(ben, order.id), 'awaiting_payment');

    /* a part, then the whole */
    await must(200, tell({ ...intent, amount_received: 1 },
      SECRETS.TEST_WEBHOOK_SECRET));
    await must(200, tell(intent, SECRETS.TEST_WEBHOOK_SECRET));
    await isNow(ben, order.id, 'paid');
  });

test('one buyer holds three orders of an event unpaid', async () => {
  const event = await app.event(olga,
    { types: [{ priceCents: 500 }, { priceCents: 0 }] });
  const [paid, free] = event.types.map((t) => t.id);
  const all = await app.barrier(8, () => ({
    method: 'POST', path: '/api/v1/orders', token: cid.token,
    body: { items: [{ ticketTypeId: paid, quantity: 1 }] },
  }));

  assert.equal(all.filter((r) => r.status === 201).length, 3);
  for (const res of all.filter((r) => r.status !== 201)) {
    refused(res, 409, 'TOO_MANY_HOLDS');
    assert.equal(res.error.maxOpenOrders, 3);
  }
  await must(201, app.order(cid, free));
  await must(200, call(cid, `/orders/${all.find((r) => r.status === 201)
    .data.id}/cancel`));
  await must(201, app.order(cid, paid));
  refused(await app.order(cid, paid), 409, 'TOO_MANY_HOLDS');
});

test('a given ticket is not its giver\'s to cancel, and its holder is told',
  async () => {
    const event = await app.event(olga, { types: [{ priceCents: 0 }] });
    const order = await must(201, app.order(ann, event.types[0].id, 2));

    await must(200, call(ann, `/tickets/${order.tickets[0].id}/transfer`,
      { email: ben.email }));
    refused(await call(ann, `/orders/${order.id}/cancel`), 409,
      'TICKETS_TRANSFERRED');
    await must(201, call(olga, `/orders/${order.id}/refunds`,
      { ticketIds: [order.tickets[0].id], reason: 'a double booking' }));
    await app.mailTo(ben.email, (m) => /no longer valid/.test(m.subject)
      && /a double booking/.test(m.text));
    await must(200, call(ann, `/orders/${order.id}/cancel`));

    const other = await must(201, app.order(cid, event.types[0].id));

    await must(200, call(olga, `/orders/${other.id}/cancel`));
    await app.mailTo(cid.email, (m) => /Order cancelled/.test(m.subject));
  });

test('register, transfer and reissue repeat their answer under a key',
  async () => {
    const event = await app.event(olga, {
      types: [{ priceCents: 0, quota: 1 }, { priceCents: 0, quota: 9 }],
    });

    await must(201, app.order(cid, event.types[0].id)); /* the first is gone */

    const twice = async (user, path, body) => {
      const headers = { 'Idempotency-Key': crypto.randomUUID() };
      const all = [await call(user, path, body, headers),
        await call(user, path, body, headers)];

      assert.ok(all[0].status < 300, all[0].text);
      assert.equal(all[1].status, all[0].status, all[1].text);
      assert.deepEqual(all[1].data, all[0].data);
      assert.equal(all[1].headers['idempotent-replayed'], 'true');
      return [all[0].data, headers];
    };
    const [order] = await twice(ann, `/events/${event.id}/register`);

    assert.equal(order.items[0].ticketTypeId, event.types[1].id);
    refused(await call(ann, `/events/${event.id}/register`), 409,
      'ALREADY_REGISTERED');

    const ticket = order.tickets[0].id;
    const [fresh] = await twice(ann, `/tickets/${ticket}/reissue`);

    assert.equal(fresh.generation, 2);

    const [given, headers] = await twice(ann, `/tickets/${ticket}/transfer`,
      { email: ben.email });

    assert.equal(given.generation, 3);
    refused(await call(ann, `/tickets/${ticket}/transfer`,
      { email: cid.email }, headers), 422, 'IDEMPOTENCY_KEY_REUSED');

    /* a refusal is an answer, too */
    const key = { 'Idempotency-Key': crypto.randomUUID() };

    for (let i = 0; i < 2; i++) {
      refused(await call(ann, `/tickets/${ticket}/reissue`, {}, key), 404,
        'NOT_FOUND');
    }

    /* of many at once one changes it; the others wait or repeat */
    const same = crypto.randomUUID();
    const all = await app.barrier(8, () => ({
      method: 'POST', path: `/api/v1/tickets/${ticket}/reissue`,
      token: ben.token, body: {}, headers: { 'Idempotency-Key': same },
    }));

    for (const res of all) {
      if (res.status !== 200) refused(res, 409, 'IN_FLIGHT');
      else assert.equal(res.data.generation, 4);
    }
    assert.equal(await app.value(
      'select generation from app.tickets where id = $1', [ticket]), 4);

    /* who gave the registration away may come again, its holder not */
    await must(201, call(ann, `/events/${event.id}/register`));
    refused(await call(ben, `/events/${event.id}/register`), 409,
      'ALREADY_REGISTERED');
  });
