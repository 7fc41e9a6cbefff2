/*
 * Money, with Stripe's stub as the other party: what is asked for, what is
 * returned, and that both agree with an arithmetic of its own (I-25, I-26).
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { after } from 'node:test';
import { SECRETS, until } from '../harness/index.js';
import { StripeStub } from '../workers/stripe_stub.js';
import {
  must, onWorkers, pick, posting, providerEvent, quiet, rounds, settled,
  shuffled, tally,
} from './kit.js';

const KEY = 'sk_test_4eC39HqLyjWDarjtT1zdp7dc';
const VERSION = '2024-06-20';
const stub = await new StripeStub({ key: KEY, version: VERSION }).start();

after(() => stub.stop());

const conf = {
  PAYMENT_PROVIDER: 'stripe', STRIPE_API_URL: stub.url,
  STRIPE_SECRET_KEY: KEY, STRIPE_VERSION: VERSION,
  STRIPE_PUBLISHABLE_KEY: 'pk_test_TYooMQauvdEDq54NiTphI7jx',
};

const sessionOf = (id) => [...stub.objects.values()].find((o) =>
  o.object === 'checkout.session' && o.metadata.order_id === id);

/* The buyer pays at the provider, which tells it; the intent. */
async function paid(app, buyer, order) {
  const session = await until(() => sessionOf(order.id),
    { what: 'the session', timeout: 60000 });
  const intent = stub.pay(session);
  const spec = posting(app, {
    ...providerEvent('payment_intent.succeeded', intent),
    id: `evt_${crypto.randomUUID()}`,
  }, { secret: SECRETS.STRIPE_WEBHOOK_SECRET });

  await must(200, app.api(spec.method, spec.path, spec));
  await settled(app, buyer, order.id, 'paid');
  return intent;
}

const returnedBy = (intent) => [...stub.objects.values()]
  .filter((o) => o.object === 'refund' && o.payment_intent === intent.id)
  .reduce((sum, r) => sum + r.amount, 0);

/* Minor units are whole: no number of an answer has a point or an exponent. */
function noFloat(text) {
  const bare = text.replace(/"(?:[^"\\]|\\.)*"/g, '""');

  assert.doesNotMatch(bare, /\d[.eE]/, text);
}

const sum = (list) => list.reduce((a, b) => a + b, 0n);

/*
 * What an order costs, by whole numbers: a percentage is rounded half up on
 * each line; an amount is never more than the subtotal.
 */
function reckon(lines, promo) {
  const gross = lines.map((l) => BigInt(l.price) * BigInt(l.quantity));

  if (!promo) return { gross, discount: 0n };
  if (promo.kind === 'percent') {
    const each = gross.map((g) => {
      const [q, r] = [g * BigInt(promo.value) / 100n,
        g * BigInt(promo.value) % 100n];

      return r * 2n >= 100n ? q + 1n : q;
    });

    return { gross, each, discount: sum(each) };
  }

  const value = BigInt(promo.value);
  const all = sum(gross);

  return { gross, discount: value < all ? value : all };
}

function checkLines(order, lines, promo) {
  const want = reckon(lines, promo);
  const subtotal = sum(want.gross);

  assert.equal(BigInt(order.subtotalCents), subtotal);
  assert.equal(BigInt(order.discountCents), want.discount);
  assert.equal(BigInt(order.totalCents), subtotal - want.discount);
  order.items.forEach((item, i) => {
    const part = BigInt(item.discountCents);

    assert.equal(item.quantity, lines[i].quantity);
    assert.equal(item.unitPriceCents, lines[i].price);
    assert.equal(BigInt(item.lineTotalCents), want.gross[i] - part);
    assert.ok(part >= 0n && part <= want.gross[i]);
    if (want.each) assert.equal(part, want.each[i]);
    else if (subtotal > 0n) { /* its share, but for rounding */
      const off = part * subtotal - want.discount * want.gross[i];

      assert.ok((off < 0n ? -off : off) <= BigInt(lines.length) * subtotal,
        `line ${i} carries ${part} of ${want.discount}`);
    }
  });
  assert.equal(sum(order.items.map((i) => BigInt(i.lineTotalCents))),
    BigInt(order.totalCents), 'lines are the total');
}

async function promoCode(app, event, subtotal) {
  const kind = pick(['percent', 'amount']);
  const promo = {
    kind, code: crypto.randomBytes(5).toString('hex'), maxUses: 5,
    value: kind === 'percent' ? 1 + crypto.randomInt(99)
      : 1 + crypto.randomInt(Math.max(1, Number(subtotal) - 1)),
  };

  await must(201, app.api('POST', `/api/v1/events/${event.id}/promo-codes`,
    { token: app.org.token, body: promo }));
  return promo;
}

/*
 * All tickets come back one by one, in any order; what cost nothing first,
 * for the last cent ends the order with all that is left of it.
 */
async function refundEach(app, order, intent) {
  const tickets = shuffled(order.tickets);

  for (const ticket of [...tickets.filter((t) => t.priceCents === 0),
    ...tickets.filter((t) => t.priceCents > 0)]) {
    const res = await app.api('POST', `/api/v1/orders/${order.id}/refunds`, {
      token: app.org.token, body: { ticketIds: [ticket.id] },
    });

    assert.equal(res.status, 201, res.text);
    noFloat(res.text);
  }
  await quiet(app, ['refund.execute']);

  const [p] = await app.sql(
    'select * from app.payments where order_id = $1', [order.id]);

  assert.equal(BigInt(p.captured_cents), BigInt(order.totalCents));
  assert.equal(p.refunded_cents, p.captured_cents,
    'all lines back is all money back');
  assert.equal(BigInt(returnedBy(intent)), BigInt(order.totalCents));
}

onWorkers({ people: 4, conf }, ({ race }) => {
  race('I-25: sums by an arithmetic of their own', {}, async (app) => {
    stub.clock = app.clock;

    const currency = pick(['JPY', 'EUR', 'USD', 'KWD', 'CZK']);
    const lines = Array.from({ length: 1 + crypto.randomInt(4) }, () => ({
      price: pick([1, 3, 99, 333, 1000, 1 + crypto.randomInt(99999)]),
      quantity: 1 + crypto.randomInt(4),
    }));
    const event = await app.event(app.org, {
      currency, types: lines.map((l) => ({ priceCents: l.price })),
    });
    const promo = Math.random() < 0.7 ? await promoCode(app, event,
      sum(reckon(lines).gross)) : null;
    const buyer = pick(app.people);
    const res = await app.api('POST', '/api/v1/orders', {
      token: buyer.token,
      body: {
        items: lines.map((l, i) =>
          ({ ticketTypeId: event.types[i].id, quantity: l.quantity })),
        promoCode: promo?.code ?? null,
      },
    });

    assert.ok([201, 202].includes(res.status), res.text);
    noFloat(res.text);
    checkLines(res.data, lines, promo);
    if (res.data.totalCents === 0) return;

    const intent = await paid(app, buyer, res.data);
    const session = sessionOf(res.data.id);

    assert.equal(session.amount_total, res.data.totalCents,
      'the provider was asked for the total');
    assert.equal(session.currency, currency.toLowerCase());

    const read = await app.api('GET', `/api/v1/orders/${res.data.id}`,
      { token: buyer.token });

    noFloat(read.text);
    checkLines(read.data, lines, promo);
    assert.equal(sum(read.data.tickets.map((t) => BigInt(t.priceCents))),
      BigInt(read.data.totalCents), 'tickets are the total');
    await refundEach(app, read.data, intent);
    assert.deepEqual(stub.violations, []);
  });

  race('I-26: fifty refunds of one payment at once', {
    n: rounds(0.3), guard: 'i26',
  }, async (app) => {
    stub.clock = app.clock;

    const event = await app.event(app.org,
      { types: [{ priceCents: 10000 }] });
    const buyer = pick(app.people);
    const order = (await app.order(buyer, event.types[0].id)).data;
    const intent = await paid(app, buyer, order);
    const amounts = Array.from({ length: 50 },
      () => 100 + crypto.randomInt(900));
    const all = await app.barrier(50, (i) => ({
      method: 'POST', path: `/api/v1/orders/${order.id}/refunds`,
      token: app.org.token, body: { amountCents: amounts[i] },
      headers: i % 2 ? { 'Idempotency-Key': crypto.randomUUID() } : {},
    }));
    const seen = tally(all);

    assert.deepEqual(Object.keys(seen).sort(), ['201', 'REFUND_EXCEEDS']);

    const given = amounts.filter((_, i) => all[i].status === 201)
      .reduce((a, b) => a + b, 0);

    assert.ok(given <= 10000, `${given} of 10000 given back`);
    /* and no loser was told no while there was enough for it */
    for (const [i, res] of all.entries()) {
      if (res.status === 201) continue;
      assert.equal(res.status, 409);
      assert.ok(res.error.refundableCents < amounts[i], res.text);
      assert.ok(given + amounts[i] > 10000, 'a false refusal');
    }
    await quiet(app, ['refund.execute']);

    const [p] = await app.sql(
      'select * from app.payments where order_id = $1', [order.id]);

    assert.equal(Number(p.refunded_cents), given);
    assert.equal(returnedBy(intent), given, 'at the provider too');

    /* the rest fits to the cent, one more does not */
    const refund = (amountCents) => app.api('POST',
      `/api/v1/orders/${order.id}/refunds`,
      { token: app.org.token, body: { amountCents } });

    assert.equal((await refund(10001 - given)).error?.code,
      'REFUND_EXCEEDS');
    if (given < 10000) await must(201, refund(10000 - given));
    await quiet(app, ['refund.execute']);
    assert.equal(returnedBy(intent), 10000);
    await settled(app, buyer, order.id, 'refunded');
  });
});
