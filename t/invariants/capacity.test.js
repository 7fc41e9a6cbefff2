/*
 * Seats: never one too many, never one too few (I-1, I-2, I-3, I-6, I-27).
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import {
  deliver, must, noDrift, onWorkers, ordering, paidEvent, pick, quiet, rounds,
  shown, tally, ticketsOf,
} from './kit.js';

const sold = (app, type) => app.value(
  'select sold from app.ticket_types where id = $1', [type]);

onWorkers({}, ({ plain, race }) => {
  race('I-1: 500 clients, 50 seats', { n: rounds(0.2), guard: 'i1' },
    async (app) => {
      const event = await app.event(app.org, { types: [{ quota: 50 }] });
      const [{ id: type }] = event.types;
      const all = await app.barrier(500, (i) => ordering(app, i, [[type]]));

      assert.deepEqual(tally(all), { 201: 50, SOLD_OUT: 450 });
      for (const res of all) {
        if (res.status === 409) assert.equal(res.error.remaining, 0);
      }
      assert.equal(new Set(all.flatMap((res) => res.data?.tickets ?? [])
        .map((t) => t.code)).size, 50, 'every code is another');
      assert.equal(await sold(app, type), 50);
      assert.equal(await ticketsOf(app, type), 50);
      await shown(app, event, type, 0);
    });

  race('I-2: two types in either order, and a capacity', {
    n: rounds(0.3), guard: 'i1',
  }, async (app) => {
    const event = await app.event(app.org, {
      capacity: 45, types: [{ quota: 30 }, { quota: 20 }],
    });
    const [a, b] = event.types.map((t) => t.id);
    const all = await app.barrier(200, (i) =>
      ordering(app, i, i % 4 < 2 ? [[a], [b]] : [[b], [a]]));

    /* pairs until B is gone; then what A and the event have left */
    assert.deepEqual(tally(all), { 201: 20, SOLD_OUT: 180 });
    assert.deepEqual(tally(await app.barrier(20, (i) =>
      ordering(app, i, [[a]]))), { 201: 5, SOLD_OUT: 15 });
    assert.equal(await ticketsOf(app, a), 25);
    assert.equal(await ticketsOf(app, b), 20);
    assert.equal(await app.value(`select count(*)::int from (
      select from app.tickets where ticket_type_id in ($1, $2)
      group by order_id having count(distinct ticket_type_id) = 1) x`,
    [a, b]), 5, 'no order has a half');
  });

  race('I-6: the quota is lowered while 200 clients buy', {
    n: rounds(0.3), guard: 'i6',
  }, async (app) => {
    const event = await app.event(app.org, { types: [{ quota: 100 }] });
    const [{ id: type }] = event.types;
    const at = crypto.randomInt(120);
    const all = await app.barrier(201, (i) => (i === at ? {
      method: 'PATCH', path: `/api/v1/ticket-types/${type}`,
      token: app.org.token, body: { quota: 60 },
      headers: { 'If-Match': '*' },
    } : ordering(app, i, [[type]])));
    const [change] = all.splice(at, 1);
    const bought = tally(all)[201];

    if (change.status === 200) {
      assert.equal(bought, 60, 'sales stop at the new quota');
    } else {
      assert.equal(change.error?.code, 'QUOTA_BELOW_SOLD', change.text);
      assert.equal(bought, 100, 'nothing was lowered');
    }
    assert.equal(await ticketsOf(app, type), bought);
    assert.equal(await sold(app, type), bought);
  });

  race('I-27: a promo code for ten, one each', {
    n: rounds(0.3), guard: 'i27',
  }, async (app) => {
    const event = await app.event(app.org,
      { types: [{ quota: 500, priceCents: 1000 }] });
    const [{ id: type }] = event.types;
    const promoCode = crypto.randomBytes(4).toString('hex');

    await must(201, app.api('POST', `/api/v1/events/${event.id}/promo-codes`, {
      token: app.org.token,
      body: {
        code: promoCode, kind: 'percent', value: 50, maxUses: 10, perUser: 1,
      },
    }));
    const all = await app.barrier(200, (i) =>
      ordering(app, i, [[type]], { promoCode }));

    assert.deepEqual(tally(all), { 201: 10, PROMO_EXHAUSTED: 190 });
    for (const res of all.filter((r) => r.status === 201)) {
      assert.equal(res.data.totalCents, 500);
    }
    assert.equal(new Set(all.filter((r) => r.status === 201)
      .map((r) => r.data.buyerId)).size, 10, 'one each');
    assert.equal(await app.value(`select count(*)::int
      from app.promo_redemptions r join app.promo_codes c
        on c.id = r.promo_id where c.event_id = $1`, [event.id]), 10);
    assert.equal(await sold(app, type), 10, 'losers hold nothing');

    /* a use that is given back can be used again, and only once */
    const back = all.find((r) => r.status === 201).data;
    const owner = app.people.find((p) => p.id === back.buyerId);

    await must(200, app.api('POST', `/api/v1/orders/${back.id}/cancel`,
      { token: owner.token, body: {} }));
    assert.deepEqual(tally(await app.barrier(24, (i) =>
      ordering(app, i, [[type]], { promoCode }))),
    { 201: 1, PROMO_EXHAUSTED: 23 });
  });

  plain('I-3: a storm of every transition; then exactly the free seats sell',
    async (app) => {
      const event = await app.event(app.org, {
        capacity: 70, types: [{ quota: 30 }, { quota: 60, priceCents: 500 }],
      });
      const [free, paid] = event.types.map((t) => t.id);
      const orders = [];
      const done = {};
      let running = true;

      const moves = (i) => {
        const of = pick(orders.length ? orders : [null]);
        const post = (verb, token, body = {}) =>
          app.api('POST', `/api/v1/orders/${of.id}/${verb}`, { token, body });
        const place = async (items) => {
          const spec = ordering(app, i, items);
          const res = await app.api(spec.method, spec.path, spec);

          if (res.status === 201) {
            orders.push({ id: res.data.id, total: res.data.totalCents });
          }
          return res;
        };

        return [
          () => place([[pick([free, paid]), 1 + crypto.randomInt(3)]]),
          () => place([[free], [paid]]),
          () => place([[paid, 2]]),
          async () => of?.total
            && deliver(app, await paidEvent(app, of.id)),
          () => of && post('cancel', app.org.token),
          () => of && post('refunds', app.org.token),
          async () => of?.total && post('refunds', app.org.token,
            { amountCents: 1 + crypto.randomInt(of.total) }),
        ];
      };
      const client = async (_, i) => {
        for (let n = 0; n < rounds(3); n++) {
          const move = crypto.randomInt(7);
          const res = await moves(i)[move]();

          if (res) tally([res]); /* no 5xx */
          done[move] = (done[move] ?? 0) + 1;
        }
      };
      const clock = async () => { /* holds run out, for twelve hours */
        for (let n = 0; running && n < 180; n++) {
          await app.clock.advance(4 * 60000);
          await noDrift(app);
          await new Promise((next) => { setTimeout(next, 100); });
        }
      };
      const watching = clock();

      await Promise.all(Array.from({ length: 12 }, client))
        .finally(() => { running = false; });
      await watching;
      assert.equal(Object.keys(done).length, 7, 'every kind of move was made');
      await app.clock.advance(16 * 60000);
      await quiet(app, ['webhook.process', 'order.expire', 'refund.execute']);
      await noDrift(app);

      /* a single client can buy what is shown as free, and no more */
      for (const type of [free, paid]) {
        const left = await app.value(`select least(t.quota - t.sold,
            e.capacity - e.sold) from app.ticket_types t
          join app.events e on e.id = t.event_id where t.id = $1`, [type]);

        await shown(app, event, type, left);
        for (let i = 0; i < left; i++) {
          await must(201, app.order(app.people[0], type));
        }
        const res = await app.order(app.people[0], type);

        assert.equal(res.error?.code, 'SOLD_OUT', res.text);
      }
      await noDrift(app);
    });
});
