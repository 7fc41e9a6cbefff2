/*
 * Somebody else's things (edge.md D.2, BOLA), by every way but the id in the
 * path, which t/derived/rights.js walks for every row, role and relation:
 * lists with filters, sorts and another's cursor, tags of versions, HEAD,
 * ids in bodies, and the same by API key.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { camel, rows, sample } from '../derived/rows.js';
import { must } from '../harness/fixtures.js';
import { boot } from '../harness/index.js';

let app, alice, mallory, key, things;

before(async () => {
  app = await boot({ workers: 0 });
  alice = await app.user('organizer');
  mallory = await app.user('organizer');

  const event = await app.event(alice, { publish: false,
    types: [{ priceCents: 0, quota: 50 }] });
  const open = await app.event(alice,
    { types: [{ priceCents: 0, quota: 50 }, { priceCents: 900, quota: 50 }] });
  const orders = [];

  for (const { id } of open.types) {
    orders.push(must(await app.order(alice, id), 201, 202).data);
  }
  const promo = must(await app.api('POST',
    `/api/v1/events/${event.id}/promo-codes`, { token: alice.token,
      body: { code: 'HERS', kind: 'percent', value: 5, maxUses: 9 } }),
  201).data;
  const hers = must(await app.api('POST', '/api/v1/auth/api-keys', {
    token: alice.token, body: { name: 'hers', scopes: ['*'] } }), 201).data;
  const device = must(await app.api('POST', '/api/v1/checkin/devices', {
    token: alice.token, body: { eventId: open.id, name: 'Door' } }), 201).data;

  things = { event: event.id, orders: orders.map(({ id }) => id),
    tickets: orders.flatMap(({ tickets }) => tickets ?? []),
    promo: promo.id, key: hers.id, device: device.id ?? device.deviceId,
    open: open.id, type: event.types[0].id };
  ({ key } = must(await app.api('POST', '/api/v1/auth/api-keys', {
    token: mallory.token, body: { name: 'his', scopes: ['*'] } }), 201).data);
});
after(() => app?.stop());

/* Nothing that is alice's, in whatever form. */
function clean(res, what) {
  for (const secret of [alice.email, things.event, ...things.orders,
    ...things.tickets.flatMap(({ id, code }) => [id, code]), things.promo,
    things.key, things.device].filter(Boolean)) {
    assert.ok(!res.text.includes(secret), `${what}: ${secret}\n${res.text}`);
  }
}

const ways = () => [{ token: mallory.token },
  { headers: { 'X-API-Key': key } }];

const LISTS = rows.filter((row) => row.list && !row.params.length
  && !row.roles.has('admin') || row.id === 'events.mine');

test('lists: no filter, sort or page shows what is another\'s', async () => {
  const mine = LISTS.filter((row) => !row.public);

  assert.ok(mine.length >= 5, mine.map(({ id }) => id).join());
  for (const row of mine) {
    const filters = row.query.flatMap((field) => [
      [camel(field.name), things.open], [camel(field.name), things.event],
      [camel(field.name), alice.id], [camel(field.name), alice.email],
      [camel(field.name), '%'], [camel(field.name), String(sample(field))],
      ...(field.values ?? []).map((value) => [camel(field.name), value]),
    ]);

    for (const query of [[], ['limit', '100'], ['page', '1'],
      ...row.list.sorts.flatMap((sort) => [['sort', sort]]), ...filters,
      ['userId', alice.id], ['ownerId', alice.id], ['user_id', alice.id]]) {
      const search = query.length ? `?${new URLSearchParams([query])}` : '';

      for (const way of ways()) {
        const res = await app.api('GET', row.path + search,
          { ...way, validate: false });

        assert.ok(res.status < 500, `${row.path}${search}: ${res.text}`);
        clean({ text: res.status === 400 ? '' : res.text },
          `${row.path}${search}`);
      }
    }
  }
});

test('another\'s cursor goes on in one\'s own list', async () => {
  for (const path of ['/api/v1/orders', '/api/v1/events/mine']) {
    const { meta } = must(await app.api('GET', `${path}?limit=1&cursor=`,
      { token: alice.token }), 200);

    assert.ok(meta.nextCursor, path);
    for (const way of ways()) {
      const res = await app.api('GET',
        `${path}?limit=1&cursor=${meta.nextCursor}`,
        { ...way, validate: false });

      assert.ok([200, 400, 403].includes(res.status), res.text);
      clean(res, path);
    }
  }
});

test('a tag of another\'s version opens nothing', async () => {
  for (const path of [`/api/v1/orders/${things.orders[0]}`,
    `/api/v1/events/${things.event}`,
    `/api/v1/tickets/${things.tickets[0].id}`]) {
    const { headers: { etag } } = must(await app.api('GET', path,
      { token: alice.token }), 200);

    for (const token of [mallory.token, undefined]) {
      for (const method of ['GET', 'HEAD']) {
        for (const tag of [etag, '*', undefined]) {
          const res = await app.api(method, path, { token,
            validate: false,
            headers: tag === undefined ? {} : { 'If-None-Match': tag } });

          assert.equal(res.status,
            token || path.includes('/events/') ? 404 : 401,
            `${method} ${path} ${tag}: ${res.status}`);
          assert.equal(res.headers.etag, undefined);
          clean(res, path);
        }
      }
    }
    for (const tag of [etag, '*']) {
      const res = await app.api('PATCH', `/api/v1/events/${things.event}`, {
        token: mallory.token, headers: { 'If-Match': tag },
        body: { title: 'Mine' } });

      assert.equal(res.status, 404, res.text);
    }
  }
});

test('ids in bodies are held to the same rule', async () => {
  const ask = (method, path, body) => app.api(method, path,
    { token: mallory.token, body });
  const [ticket] = things.tickets;

  for (const [method, path, body] of [
    ['POST', '/api/v1/orders',
      { items: [{ ticketTypeId: things.type, quantity: 1 }] }],
    ['POST', '/api/v1/checkin/devices', { eventId: things.open, name: 'x' }],
    ['POST', '/api/v1/checkin/batch', { eventId: things.open, items: [] }],
    ['POST', '/api/v1/orders/validate',
      { code: ticket.code, eventId: things.open }],
  ]) {
    const res = await ask(method, path, body);

    assert.ok(res.status >= 400 && res.status < 500 || /wrong_event/
      .test(res.text), `${path}: ${res.status} ${res.text}`);
    clean({ text: res.text.replaceAll(ticket.code, '') }, path);
  }
  assert.equal(await app.value(
    'select state from app.tickets where id = $1', [ticket.id]), 'valid');
});
