/*
 * Members that a client has no business with: refused by name, in any
 * spelling and depth, and nothing of them is stored.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';

let app, alice, olga, event;

before(async () => {
  app = await boot({ workers: 0 });
  [alice, olga] = [await app.user(), await app.user('organizer')];
  event = await app.event(olga, { types: [{ priceCents: 900, quota: 50 }] });
});
after(() => app?.stop());

const uuid = '01900000-0000-7000-8000-000000000001';
const EXTRA = {
  role: 'admin', roles: ['admin'], id: uuid, ownerId: uuid, owner_id: uuid,
  userId: uuid, user_id: uuid, organizerId: uuid, organizer_id: uuid,
  buyerId: uuid, emailVerified: true, email_verified: true, status: 'active',
  state: 'paid', version: 99, createdAt: '2000-01-01T00:00:00.000Z',
  created_at: '2000-01-01T00:00:00.000Z', passwordHash: 'x', password_hash: 'x',
  tokenEpoch: 0, totalCents: 0, total_cents: 0, paidAt: null, provider: 'test',
  __proto__x: 1, constructor: { prototype: { admin: true } }, '': 1,
  'roles[]': 'admin', 'user.roles': 'admin', '/roles': 'admin',
};

async function each(method, path, token, body, { skip = [] } = {}) {
  for (const [name, value] of Object.entries(EXTRA)) {
    if (skip.includes(name)) continue;
    const res = await app.api(method, path, { token,
      body: { ...body, [name]: value } });

    assert.equal(res.status, 400, `${method} ${path} ${name}: ${res.text}`);
    assert.ok(res.error.errors.some((e) => e.code === 'unknown'),
      `${name}: ${res.text}`);
  }
  const text = JSON.stringify(body);
  const twice = text === '{}' ? null
    : `${text.slice(0, -1)},${text.slice(1)}`;

  if (twice) {
    assert.equal((await app.api(method, path, { token, body: twice })).status,
      400, `${path}: members twice`);
  }
  assert.equal((await app.api(method, path, { token,
    body: `${text.slice(0, -1)}${text === '{}' ? '' : ','}"__proto__":` +
      '{"roles":["admin"]}}' })).status, 400, `${path}: __proto__`);
}

test('an account is registered as a member', async () => {
  const count = () => app.value('select count(*)::int from app.users');
  const had = await count();

  await each('POST', '/api/v1/auth/register', null, {
    email: 'mass@test.example', password: 'a long enough password',
    firstName: 'M', lastName: 'A' });
  assert.equal(await count(), had);
});

test('one\'s own account keeps its roles, address and state', async () => {
  const row = () => app.sql('select * from app.users where id = $1',
    [alice.id]);
  const was = await row();

  await each('PATCH', '/api/v1/users/me', alice.token, { firstName: 'New' });
  await each('PUT', '/api/v1/users/me', alice.token,
    { firstName: 'New', lastName: 'N' });
  assert.deepEqual(await row(), was);
});

test('an event has the organizer who made it', async () => {
  const count = () => app.value('select count(*)::int from app.events');
  const had = await count();

  await each('POST', '/api/v1/events', olga.token, { title: 'Mine',
    startsAt: '2040-01-01T10:00:00Z', endsAt: '2040-01-01T12:00:00Z',
    timezone: 'Europe/Prague' });
  assert.equal(await count(), had);
  await each('PATCH', `/api/v1/events/${event.id}`, olga.token,
    { title: 'Renamed' });
  assert.notEqual(await app.value('select title from app.events where id = $1',
    [event.id]), 'Renamed');
});

test('an order has the price of the event', async () => {
  const item = { ticketTypeId: event.types[0].id, quantity: 1 };
  const count = () => app.value('select count(*)::int from app.orders');
  const had = await count();

  await each('POST', '/api/v1/orders', alice.token, { items: [item] });
  for (const more of [{ priceCents: 0 }, { price_cents: 0 }, { id: uuid },
    { state: 'valid' }, { holderId: uuid }, { code: 'x' }]) {
    const res = await app.api('POST', '/api/v1/orders', { token: alice.token,
      body: { items: [{ ...item, ...more }] } });

    assert.equal(res.status, 400, JSON.stringify(more));
  }
  assert.equal((await app.api('POST', '/api/v1/orders', { token: alice.token,
    body: `{"items":[{"ticketTypeId":"${item.ticketTypeId}","quantity":1,` +
      '"quantity":5}]}' })).status, 400, 'a quantity twice');
  assert.equal(await count(), had);
});

test('query and form are held to the same rule', async () => {
  for (const query of ['organizerId=x', 'buyer_id=x', 'role=admin', 'id[]=1',
    'limit=1&limit=100', 'sort=title&sort=-title', 'limit=1&%6cimit=100']) {
    assert.equal((await app.api('GET', `/api/v1/events?${query}`)).status, 400,
      query);
  }
});
