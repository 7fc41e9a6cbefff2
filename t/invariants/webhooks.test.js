/*
 * What the provider tells, in any order, more than once, too late, forged,
 * or while a worker dies: one final state and one set of effects (I-4, I-5,
 * I-33, I-34).  And one account per address (I-37).
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import { until } from '../harness/index.js';
import {
  deliver, eventId, intentOf, must, noDrift, onWorkers, orderOf, ordering,
  paidEvent, pick, posting, providerEvent, quiet, rounds, seconds, settled,
  shuffled, tally,
} from './kit.js';

const HOLD = 15 * 60000;

const mailsOf = (app, orderId, template) => app.value(
  `select (select count(*) from queue.history h where h.kind = 'mail.send'
      and h.state = 'done' and h.payload->>'template' = $2
      and h.payload->>'order_id' = $1)::int`, [orderId, template]);

/* An order as everybody sees it, and its money; ids and times left out. */
async function outcome(app, orderId) {
  const [o] = await app.sql(`select o.status, p.status as payment,
      p.captured_cents::int as captured, p.refunded_cents::int as refunded,
      p.disputed,
      (select array_agg(t.state order by t.state) from app.tickets t
        where t.order_id = o.id) as tickets,
      (select coalesce(sum(r.amount_cents), 0)::int from app.refunds r
        where r.order_id = o.id) as returned,
      (select count(*)::int from app.webhook_events w
        where w.state = 'done' and w.payload->'data'->'object'->'metadata'
          ->>'payment_id' = p.id::text) as events
    from app.orders o join app.payments p on p.order_id = o.id
    where o.id = $1`, [orderId]);

  return {
    ...o, paidMails: await mailsOf(app, orderId, 'order_paid'),
    refundMails: await mailsOf(app, orderId, 'order_refunded'),
  };
}

/* ---- I-33: lists as the provider sends them, and how they must end ---- */

const LISTS = {
  paid: {
    events: [['payment_intent.created'], ['charge.succeeded'],
      ['payment_intent.succeeded'], ['checkout.session.completed']],
    end: { status: 'paid', payment: 'succeeded', captured: 3000 },
  },
  'declined, then paid': {
    events: [['payment_intent.payment_failed'], ['charge.failed'],
      ['payment_intent.succeeded'], ['charge.succeeded']],
    end: { status: 'paid', payment: 'succeeded', captured: 3000 },
  },
  'refunded in three steps': {
    events: [['payment_intent.succeeded'], ['charge.succeeded'],
      ['charge.refunded', { amount_refunded: 500 }],
      ['charge.refunded', { amount_refunded: 1700 }],
      ['charge.refunded', { amount_refunded: 3000 }]],
    end: {
      status: 'refunded', payment: 'refunded', captured: 3000,
      refunded: 3000, returned: 3000, tickets: ['refunded', 'refunded'],
    },
  },
  'refunded in part': {
    events: [['payment_intent.succeeded'],
      ['charge.refunded', { amount_refunded: 500 }],
      ['charge.refunded', { amount_refunded: 700 }]],
    end: {
      status: 'partially_refunded', payment: 'partially_refunded',
      captured: 3000, refunded: 700, returned: 700,
    },
  },
  'disputed and won': {
    events: [['charge.succeeded'], ['payment_intent.succeeded'],
      ['charge.dispute.created', { status: 'needs_response' }],
      ['charge.dispute.updated', { status: 'under_review' }],
      ['charge.dispute.closed', { status: 'won' }]],
    end: { status: 'paid', payment: 'succeeded', captured: 3000 },
  },
  'disputed, still open': {
    events: [['payment_intent.succeeded'],
      ['charge.dispute.created', { status: 'warning_needs_response' }],
      ['charge.dispute.closed', { status: 'warning_closed' }],
      ['charge.dispute.created', { status: 'needs_response' }]],
    end: {
      status: 'paid', payment: 'succeeded', captured: 3000, disputed: true,
    },
  },
  'never paid': {
    events: [['payment_intent.created'], ['payment_intent.payment_failed'],
      ['payment_intent.canceled'], ['checkout.session.expired']],
    end: {
      status: 'cancelled', payment: 'canceled', captured: 0,
      tickets: ['cancelled', 'cancelled'],
    },
  },
};

/* The objects of a list, each with the time at which it was made. */
function recorded(list, intent) {
  const common = { currency: intent.currency, metadata: intent.metadata };
  const objects = {
    payment_intent: intent,
    charge: {
      ...common, id: `ch_${crypto.randomUUID()}`, object: 'charge',
      amount: intent.amount, amount_captured: intent.amount, captured: true,
      payment_intent: intent.id,
    },
    'charge.dispute': {
      ...common, id: `dp_${crypto.randomUUID()}`, object: 'dispute',
      amount: intent.amount, payment_intent: intent.id,
    },
    'checkout.session': {
      ...common, id: `cs_${crypto.randomUUID()}`, object: 'checkout.session',
      amount_total: intent.amount, payment_status: 'paid',
      payment_intent: intent.id,
    },
  };

  return list.map(([type, more], i) => providerEvent(type, {
    ...objects[type.slice(0, type.lastIndexOf('.'))], ...more,
    ...(type === 'charge.failed' ? { captured: false } : {}),
  }, { created: 1700000000 + i }));
}

/* Everything once, some of it twice or more, in any order. */
async function inAnyOrder(app, events) {
  const sent = shuffled([...events,
    ...events.filter(() => crypto.randomInt(3) === 0),
    ...events.filter(() => crypto.randomInt(3) === 0)]);

  while (sent.length) { /* some one by one, some together */
    const wave = sent.splice(0, 1 + crypto.randomInt(3));
    const res = await app.barrier(wave.length,
      (i) => posting(app, wave[i]));

    assert.deepEqual(tally(res), { 200: wave.length });
    /* half of the waves are applied before the next one comes */
    if (crypto.randomInt(2)) await quiet(app, ['webhook.process']);
  }
}

async function place(app, fields = {}, user = pick(app.people), n = 2) {
  app.show ??= await app.event(app.org,
    { types: [{ priceCents: 1500, quota: 100000 }] });

  const event = fields.event ?? app.show;
  const order = await must(201, app.order(user, event.types[0].id, n));

  return { ...order, user };
}

onWorkers({ people: 12 }, ({ plain, race }) => {
  for (const [name, { events, end }] of Object.entries(LISTS)) {
    plain(`I-33: ${name}, in any order, with repetitions`, async (app) => {
      const all = await Promise.all(Array.from({ length: rounds(0.6) },
        async () => {
          const order = await place(app);

          await inAnyOrder(app, recorded(events,
            await intentOf(app, order.id)));
          return order;
        }));

      await quiet(app, ['webhook.process', 'mail.send']);
      for (const order of all) {
        assert.deepEqual(await outcome(app, order.id), {
          refunded: 0, returned: 0, disputed: false, refundMails: 0,
          tickets: ['valid', 'valid'], paidMails: end.captured ? 1 : 0,
          events: events.length, ...end,
        });
      }
      await noDrift(app);
    });
  }

  race('I-34: one event fifty times at once', { n: rounds(0.5) },
    async (app) => {
      const order = await place(app);
      const event = await paidEvent(app, order.id);
      const all = await app.barrier(50, () => posting(app, event));

      assert.deepEqual(tally(all), { 200: 50 });
      await settled(app, order.user, order.id, 'paid');
      await quiet(app, ['webhook.process', 'mail.send']);
      assert.equal(await app.value(`select count(*)::int
        from app.webhook_events where event_id = $1`, [event.id]), 1);
      assert.equal(await app.value(`select count(*)::int from queue.history
        where kind = 'webhook.process' and payload->>'event_id' = $1`,
      [event.id]), 1);
      assert.equal(await mailsOf(app, order.id, 'order_paid'), 1);
    });

  plain('I-34: what is not the provider\'s own word has no effect',
    async (app) => {
      const order = await place(app);
      const event = await paidEvent(app, order.id);
      const body = JSON.stringify(event);
      const good = posting(app, body);
      const at = seconds(app);
      const sign = (value) => ({
        ...good, headers: { ...good.headers, 'Stripe-Signature': value },
      });
      const [t, v1] = good.headers['Stripe-Signature'].split(',');
      const bad = [
        posting(app, body, { secret: 'whsec_somebody_else' }),
        posting(app, body, { at: at - 360 }),
        posting(app, body, { at: at + 360 }),
        { ...good, body: body.replace('3000', '1') },
        { ...good, body: `${body} ` },
        { ...good, body: body.replace(event.id, eventId()) },
        sign(`t=${at - 1},${v1}`),
        sign(`${t},v1=${'0'.repeat(64)}`),
        sign(`${t},${v1.slice(0, -2)}`),
        sign(`${t},v0=${v1.slice(3)}`),
        sign(t), sign(v1), sign(''),
      ];

      for (const spec of bad) {
        const res = await app.api(spec.method, spec.path, spec);

        assert.equal(res.status, 400, res.text);
        assert.equal(res.error.code, 'SIGNATURE_INVALID');
      }
      const { 'Stripe-Signature': _, ...unsigned } = good.headers;

      assert.equal((await app.api(good.method, good.path,
        { ...good, headers: unsigned })).status, 400);
      assert.equal(await app.value(`select count(*)::int
        from app.webhook_events where payload->'data'->'object'->>'id' = $1`,
      [event.data.object.id]), 0);
      assert.equal((await orderOf(app, order.user, order.id)).status,
        'awaiting_payment');

      /* just inside of the tolerance, and beside an old secret's mark */
      await must(200, app.api(good.method, good.path, sign(
        `${t},v1=${'0'.repeat(64)},${v1}`)));
      const late = posting(app, await paidEvent(app,
        (await place(app, {}, order.user)).id), { at: seconds(app) - 240 });

      await must(200, app.api(late.method, late.path, late));
      await settled(app, order.user, order.id, 'paid');
    });

  for (const point of ['claimed', 'done']) {
    plain(`I-34: the worker dies at webhook.process.${point}`,
      async (app) => {
        const order = await place(app);

        await app.stopWorkers();

        const once = `${app.dir}/once.${point}`;

        await deliver(app, await paidEvent(app, order.id));
        await app.startWorkers({
          env: {
            STOA_CRASH: `webhook.process.${point}`, STOA_CRASH_ONCE: once,
            STOA_TEST_LEASE: '1500',
          },
        });
        await until(() => fs.existsSync(once),
          { what: 'the process to die', timeout: 60000 });
        await settled(app, order.user, order.id, 'paid');
        await quiet(app, ['webhook.process', 'mail.send']);
        assert.equal(await mailsOf(app, order.id, 'order_paid'), 1);
        assert.equal((await outcome(app, order.id)).events, 1);
        assert.equal(await app.value(`select count(*)::int
          from app.audit_log where action = 'order.paid'
            and resource_id = $1`, [order.id]), 1);
        await app.stopWorkers();
        await app.startWorkers();
      });
  }

  race('I-4: payment and the end of the hold in one moment', {
    n: rounds(0.3),
  }, async (app) => {
    const n = 20;
    const event = await app.event(app.org,
      { types: [{ priceCents: 900, quota: n }] });
    const orders = await Promise.all(Array.from({ length: n }, (_, i) =>
      place(app, { event }, app.people[i % app.people.length], 1)));
    const events = await Promise.all(orders.map((o) =>
      paidEvent(app, o.id)));
    /* strangers want the seats at the moment at which they become free */
    const fire = app.barrier(2 * n, (i) => (i % 2
      ? posting(app, events[i >> 1], { at: seconds(app) + 200 })
      : ordering(app, i >> 1, [[event.types[0].id]])));

    await app.clock.advance(HOLD - 100000 + crypto.randomInt(2) * 101000);

    const all = await fire;

    tally(all);
    if (await app.value(`select count(*)::int from app.webhook_events
      where event_id = any ($1)`, [events.map((e) => e.id)]) < n) {
      /* signed for a moment that the clock had left: sent again, as ever */
      for (const e of events) await deliver(app, e);
    }
    await app.clock.advance(HOLD);
    await quiet(app, ['webhook.process', 'order.expire', 'refund.execute']);

    for (const { id, user } of orders) {
      const o = await until(async () => {
        const now = await outcome(app, id);

        return ['paid', 'expired'].includes(now.status) && now;
      }, { what: 'an end of the order', timeout: 60000 });

      if (o.status === 'paid') {
        assert.deepEqual([o.tickets, o.captured, o.refunded],
          [['valid'], 900, 0]);
        assert.equal((await orderOf(app, user, id)).tickets.length, 1);
      } else {
        assert.deepEqual([o.tickets, o.captured, o.refunded, o.returned],
          [['expired'], 900, 900, 900]);
      }
    }
    assert.ok(await app.value('select sold from app.ticket_types where id = $1',
      [event.types[0].id]) <= n);
  });

  race('I-5: paid too late: the seat if it is free, else the money', {
    n: rounds(0.2),
  }, async (app) => {
    const make = () => app.event(app.org,
      { types: [{ priceCents: 700, quota: 1 }] });
    const [free, resold] = [await make(), await make()];
    const [early, other] = shuffled(app.people);
    const a = await place(app, { event: free }, early, 1);
    const b = await place(app, { event: resold }, early, 1);

    await app.clock.advance(HOLD + 1000);
    for (const o of [a, b]) await settled(app, early, o.id, 'expired');
    /* a hold that is just being ended by its task still counts */
    const c = await until(async () => {
      const res = await app.order(other, resold.types[0].id);

      assert.ok([201, 409].includes(res.status), res.text);
      return res.status === 201 && res.data;
    }, { what: 'the seat to be free', timeout: 60000 });

    for (const o of [c, a, b]) {
      await deliver(app, await paidEvent(app, o.id));
    }
    await settled(app, other, c.id, 'paid');
    await settled(app, early, a.id, 'paid');
    await quiet(app, ['webhook.process', 'refund.execute', 'mail.send']);

    const back = await outcome(app, b.id);

    assert.equal(back.status, 'expired');
    assert.deepEqual([back.captured, back.refunded, back.returned],
      [700, 700, 700]);
    assert.deepEqual(back.tickets, ['expired']);
    assert.equal(await app.value(`select count(*)::int from app.refunds
      where order_id = $1 and status = 'succeeded'`, [b.id]), 1);
    assert.deepEqual((await outcome(app, a.id)).tickets, ['valid']);

    /* told in both cases, once */
    assert.deepEqual([await mailsOf(app, a.id, 'order_paid'),
      await mailsOf(app, b.id, 'order_refunded')], [1, 1]);
    assert.deepEqual([await mailsOf(app, a.id, 'order_refunded'),
      await mailsOf(app, b.id, 'order_paid')], [0, 0]);
    await app.mailTo(early.email);

    /* the provider says it again: nothing more happens */
    await deliver(app, providerEvent('charge.succeeded', {
      ...await intentOf(app, b.id), object: 'charge', captured: true,
      amount_captured: 700,
    }));
    await quiet(app, ['webhook.process', 'refund.execute']);
    assert.equal((await outcome(app, b.id)).returned, 700);
  });

  race('I-37: one address in twenty spellings', {}, async (app) => {
    const name = `i37-${crypto.randomBytes(6).toString('hex')}`;
    const spell = () => [...`${name}@test.example`].map((c) =>
      (crypto.randomInt(2) ? c.toUpperCase() : c)).join('');
    const all = await app.barrier(20, () => ({
      method: 'POST', path: '/api/v1/auth/register',
      body: {
        email: spell(), password: 'correct horse battery staple',
        firstName: 'A', lastName: 'B',
      },
    }));

    assert.deepEqual(tally(all), { 201: 1, EMAIL_TAKEN: 19 });

    const { user, accessToken } = all.find((r) => r.status === 201).data;
    const users = await app.sql(
      `select id from app.users where lower(email) = $1`,
      [`${name}@test.example`]);

    assert.deepEqual(users, [{ id: user.id }]);
    assert.equal(await app.value(`select count(*)::int
      from app.login_sessions where user_id = $1`, [user.id]), 1);
    assert.equal(await app.value(`select count(*)::int
      from app.login_sessions s left join app.users u on u.id = s.user_id
      where u.id is null`), 0, 'no orphan');
    assert.equal((await must(200, app.api('GET', '/api/v1/users/me',
      { token: accessToken }))).id, user.id);
    await must(200, app.api('POST', '/api/v1/auth/login', {
      body: { email: spell(), password: 'correct horse battery staple' },
    }));
  });
});
