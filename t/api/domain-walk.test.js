/*
 * The domain through the edge: every row of events, orders, tickets and
 * admission is called the way its user does, with workers running, from a
 * draft to the door, the refund and the cancelled event.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';
import { until } from '../harness/proc.js';

let app, org, buyer, friend, scanner, event, free, paid;

before(async () => {
  app = await boot({ workers: 1, nginxWorkers: 1 });
  [org, buyer, friend, scanner] = [await app.user('organizer'),
    await app.user(), await app.user(), await app.user()];
  event = await app.event(org, { types: [], publish: false, capacity: 50 });
  free = await app.ticketType(org, event.id, { name: 'Free', quota: 30 });
  paid = await app.ticketType(org, event.id,
    { name: 'Paid', priceCents: 1234, quota: 10 });
});
after(() => app?.stop());

const call = (who, method, path, body, headers) =>
  app.api(method, `/api/v1${path}`, { token: who?.token, body, headers });

async function ok(status, ...args) {
  const res = await call(...args);

  assert.equal(res.status, status, `${args[1]} ${args[2]}: ${res.text}`);
  return res.data;
}

async function refused(status, code, ...args) {
  const res = await call(...args);

  assert.equal(res.status, status, `${args[1]} ${args[2]}: ${res.text}`);
  assert.equal(res.error?.code, code, res.text);
}

/* Pays at the test provider's page and waits for the order. */
async function pay(id, action = 'pay', want = 'paid') {
  const res = await app.api('POST', `/pay/${id}`, {
    headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
    body: `action=${action}`,
  });

  assert.equal(res.status, 303, res.text);
  return until(async () => {
    const order = await ok(200, buyer, 'GET', `/orders/${id}`);

    return order.status === want ? order : null;
  }, { what: `order ${id} to be ${want}` });
}

test('a draft is its organizer\'s; publishing shows it', async () => {
  await refused(404, 'NOT_FOUND', null, 'GET', `/events/${event.id}`);
  await refused(404, 'NOT_FOUND', friend, 'GET', `/events/${event.id}`);
  await ok(200, org, 'GET', `/events/${event.id}`);
  await refused(409, 'NOT_ON_SALE', buyer, 'POST', '/orders',
    { items: [{ ticketTypeId: free.id, quantity: 1 }] });
  await ok(200, org, 'POST', `/events/${event.id}/publish`);
  await refused(409, 'INVALID_STATE', org, 'POST',
    `/events/${event.id}/publish`);
  assert.ok((await ok(200, org, 'GET', '/events/mine?status=published'))
    .some((e) => e.id === event.id));
  const types = await ok(200, null, 'GET',
    `/events/${event.id}/ticket-types`);

  assert.deepEqual(types.map((t) => t.name).sort(), ['Free', 'Paid']);
});

test('changes carry the version they were made on', async () => {
  const got = await call(org, 'GET', `/events/${event.id}`);
  const etag = got.headers.etag;

  await ok(200, org, 'PATCH', `/events/${event.id}`, { location: 'Hall 1' },
    { 'If-Match': etag });
  await refused(412, 'PRECONDITION_FAILED', org, 'PUT',
    `/events/${event.id}`, { location: 'Hall 2' }, { 'If-Match': etag });
  await refused(404, 'NOT_FOUND', await app.user('organizer'), 'PATCH',
    `/events/${event.id}`, { location: 'Mine' });
  const type = await ok(200, org, 'PATCH', `/ticket-types/${free.id}`,
    { quota: 31, description: 'A seat' });

  assert.equal(type.quota, 31);
  const gone = await ok(201, org, 'POST', `/events/${event.id}/ticket-types`,
    { name: 'Gone', priceCents: 1, quota: 1 });

  await ok(204, org, 'DELETE', `/ticket-types/${gone.id}`);
});

test('the list searches, filters and sorts', async () => {
  const found = await call(null, 'GET',
    `/events?search=${encodeURIComponent(event.title)}&sort=title&limit=5`
    + '&past=false&free=true');

  assert.equal(found.status, 200, found.text);
  assert.deepEqual(found.data.map((e) => e.id), [event.id]);
  assert.equal(found.data[0].minPriceCents, 0);
  const none = await ok(200, null, 'GET', '/events?search=%25%25nothing');

  assert.deepEqual(none, []);
});

test('register: one free ticket of the default type, once', async () => {
  const order = await ok(201, friend, 'POST', `/events/${event.id}/register`);

  assert.equal(order.status, 'paid');
  assert.equal(order.tickets.length, 1);
  assert.equal(order.tickets[0].code.length, 157);
  await refused(409, 'ALREADY_REGISTERED', friend, 'POST',
    `/events/${event.id}/register`);
  await ok(200, friend, 'POST', `/orders/${order.id}/cancel`);
  await ok(201, friend, 'POST', `/events/${event.id}/register`);
});

test('buy with a promo code, decline, pay, read, refund', async () => {
  await ok(201, org, 'POST', `/events/${event.id}/promo-codes`,
    { code: 'half', kind: 'percent', value: 50, maxUses: 3 });
  assert.equal((await ok(200, org, 'GET',
    `/events/${event.id}/promo-codes`))[0].code, 'HALF');
  const order = await ok(201, buyer, 'POST', '/orders', {
    items: [{ ticketTypeId: paid.id, quantity: 2 }], promoCode: 'Half' });

  assert.equal(order.totalCents, 1234);
  assert.equal((await ok(200, null, 'GET', `/pay/${order.id}`)).totalCents,
    1234);
  await pay(order.id, 'decline', 'payment_failed');
  const done = await pay(order.id);

  assert.equal(done.tickets.length, 2);
  assert.ok((await ok(200, buyer, 'GET', '/orders?status=paid'))
    .some((o) => o.id === order.id));
  await refused(404, 'NOT_FOUND', friend, 'GET', `/orders/${order.id}`);
  await refused(403, 'FORBIDDEN', friend, 'POST',
    `/orders/${order.id}/refunds`, {});
  const refund = await ok(201, org, 'POST', `/orders/${order.id}/refunds`,
    { ticketIds: [done.tickets[0].id], reason: 'one stays home' });

  assert.equal(refund.amountCents, 617);
  await refused(409, 'REFUND_EXCEEDS', org, 'POST',
    `/orders/${order.id}/refunds`, { amountCents: 618 });
  await until(async () => (await ok(200, buyer, 'GET',
    `/orders/${order.id}/refunds`))[0].status === 'succeeded',
  { what: 'the refund' });
});

test('tickets: list, file, reissue, transfer; the old code dies', async () => {
  const [mine] = await app.freeTickets(buyer, free.id);

  assert.ok((await ok(200, buyer, 'GET', '/tickets'))
    .some((t) => t.id === mine.id));
  for (const [ext, type] of [['svg', 'image/svg+xml'], ['png', 'image/png'],
    ['pdf', 'application/pdf']]) {
    const file = await app.api('GET', `/api/v1/tickets/${mine.id}.${ext}`,
      { token: buyer.token });

    assert.equal(file.status, 200, `${ext}: ${file.text.slice(0, 200)}`);
    assert.match(file.headers['content-type'], new RegExp(`^${type
      .replace(/[+]/g, '.')}`));
  }
  await refused(404, 'NOT_FOUND', friend, 'GET', `/tickets/${mine.id}`);
  const again = await ok(200, buyer, 'POST', `/tickets/${mine.id}/reissue`);

  assert.notEqual(again.code, mine.code);
  await ok(200, buyer, 'POST', `/tickets/${mine.id}/transfer`,
    { email: friend.email });
  await refused(404, 'NOT_FOUND', buyer, 'GET', `/tickets/${mine.id}`);
  const theirs = await ok(200, friend, 'GET', `/tickets/${mine.id}`);

  assert.equal(theirs.generation, 3);
  assert.equal((await app.validate(org.token, again.code)).data.verdict,
    'cancelled');
  assert.equal((await app.validate(org.token, theirs.code)).data.verdict,
    'admitted');
});

test('staff and devices at the door, online and offline', async () => {
  const tickets = await app.freeTickets(buyer, free.id, 6);

  await refused(403, 'FORBIDDEN', scanner, 'POST', '/orders/validate',
    { code: tickets[0].code });
  await ok(201, org, 'POST', `/events/${event.id}/staff`,
    { email: scanner.email, relation: 'scan' });
  const staff = (await ok(200, scanner, 'POST', '/auth/login',
    { email: scanner.email, password: scanner.password })).accessToken;
  const first = await app.validate(staff, tickets[0].code,
    { eventId: event.id, gate: 'North', nonce: 'a' });

  assert.equal(first.data.verdict, 'admitted');
  assert.equal(first.data.gate, 'North');
  assert.equal((await app.validate(staff, tickets[0].code)).data.verdict,
    'already_used');
  assert.deepEqual((await app.validate(staff, tickets[0].code,
    { eventId: event.id, gate: 'North', nonce: 'a' })).data, first.data);

  const pairing = await ok(201, org, 'POST', '/checkin/devices',
    { eventId: event.id, name: 'Door 1', gate: 'D1' });
  const { deviceToken } = await ok(200, null, 'POST',
    '/checkin/devices/login', { code: pairing.pairingCode });
  const device = { token: deviceToken };

  assert.equal((await app.validate(deviceToken, tickets[1].code)).data.gate,
    'D1');
  const snapshot = await ok(200, device, 'GET', '/checkin/snapshot');

  assert.ok(snapshot.tickets.length >= 6);
  assert.equal(snapshot.keys.length, 1, 'the key that codes verify with');
  const at = new Date().toISOString();
  const batch = { items: [
    { nonce: 'o1', code: tickets[2].code, scannedAt: at },
    { nonce: 'o2', code: tickets[2].code, scannedAt: at },
    { nonce: 'o3', code: tickets[1].code, scannedAt: at, clockOffsetMs: 5 },
    { nonce: 'o4', code: 'NONSENSE', scannedAt: at },
  ] };
  const merged = await ok(200, device, 'POST', '/checkin/batch', batch);

  assert.deepEqual(merged.items.map((i) => i.verdict),
    ['admitted', 'already_used', 'already_used', 'unknown']);
  assert.deepEqual(await ok(200, device, 'POST', '/checkin/batch', batch),
    merged);
  assert.ok((await ok(200, device, 'GET',
    `/events/${event.id}/checkin/stats`)).admitted >= 3);
  assert.equal((await ok(200, org, 'GET',
    `/checkin/devices?eventId=${event.id}`)).length, 1);
  await ok(204, org, 'DELETE', `/checkin/devices/${pairing.deviceId}`);
  await until(async () => (await app.validate(deviceToken, tickets[3].code))
    .status === 401, { what: 'the device token to die' });
  await ok(204, org, 'DELETE', `/events/${event.id}/staff/${scanner.id}`);
});

test('registrations as JSON and CSV', async () => {
  const list = await call(org, 'GET',
    `/events/${event.id}/registrations?status=attended&limit=2`);

  assert.equal(list.status, 200, list.text);
  assert.equal(list.data.length, 2);
  assert.ok(list.meta.total >= 2);
  const csv = await app.api('GET',
    `/api/v1/events/${event.id}/registrations.csv`, { token: org.token });

  assert.equal(csv.status, 200);
  assert.match(csv.headers['content-type'], /^text\/csv/);
  assert.match(csv.text, /^ticketId,orderId,name,email/);
  await refused(404, 'NOT_FOUND', await app.user('organizer'), 'GET',
    `/events/${event.id}/registrations`);
  await refused(403, 'FORBIDDEN', buyer, 'GET',
    `/events/${event.id}/registrations`);
});

test('an Idempotency-Key makes one order', async () => {
  const headers = { 'Idempotency-Key': crypto.randomUUID() };
  const body = { items: [{ ticketTypeId: free.id, quantity: 1 }] };
  const [a, b] = [await call(buyer, 'POST', '/orders', body, headers),
    await call(buyer, 'POST', '/orders', body, headers)];

  assert.equal(a.status, 201, a.text);
  assert.equal(a.text, b.text);
  await refused(422, 'IDEMPOTENCY_KEY_REUSED', buyer, 'POST', '/orders',
    { items: [{ ticketTypeId: free.id, quantity: 2 }] }, headers);
});

test('a cancelled event pays everybody back', async () => {
  const order = await ok(201, buyer, 'POST', '/orders',
    { items: [{ ticketTypeId: paid.id, quantity: 1 }] });
  const { tickets } = await pay(order.id);

  await ok(200, org, 'POST', `/events/${event.id}/cancel`,
    { reason: 'rain' });
  const back = await until(async () => {
    const now = await ok(200, buyer, 'GET', `/orders/${order.id}`);

    return now.status === 'refunded' ? now : null;
  }, { what: 'the refund' });

  assert.equal(back.refundedCents, 1234);
  assert.equal((await app.validate(org.token, tickets[0].code)).data.verdict,
    'cancelled');
  await refused(409, 'NOT_ON_SALE', buyer, 'POST', '/orders',
    { items: [{ ticketTypeId: paid.id, quantity: 1 }] });
});
