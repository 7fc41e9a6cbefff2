/*
 * GET /admin/audit: who reads it, what it holds and what never, filters and
 * pages; and what the rows of updates say.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';
import { must } from '../harness/fixtures.js';

let app, admin, org, member, event;

before(async () => {
  app = await boot({ workers: 0 });
  admin = await app.user('admin');
  org = await app.user('organizer');
  member = await app.user();
  event = await app.event(org, { types: [{ priceCents: 0, quota: 10 }] });
});
after(() => app?.stop());

const list = (query, spec = {}) => app.api('GET',
  `/api/v1/admin/audit?${new URLSearchParams(query)}`,
  { token: admin.token, ...spec });

const items = async (query) => must(await list(query), 200).data;

/* The rows that one request left. */
async function left(method, path, spec) {
  const res = await app.api(method, path, spec);

  assert.ok(res.status < 300, res.text);
  return { res, rows: await items({
    requestId: res.headers['x-request-id'] }) };
}

test('only admins read it', async () => {
  assert.equal((await list({}, { token: undefined })).status, 401);
  for (const { token } of [org, member]) {
    const res = await list({}, { token });

    assert.equal(res.status, 403, res.text);
    assert.equal(res.error.code, 'FORBIDDEN');
  }
});

test('a row says who, what, to what, when and in which request', async () => {
  const { res, rows } = await left('PATCH', `/api/v1/events/${event.id}`, {
    token: org.token, body: { title: 'Another title', capacity: 7 } });

  assert.equal(rows.length, 1);
  assert.deepEqual(rows[0], {
    id: rows[0].id, at: rows[0].at, actorId: org.id, actorKind: 'person',
    actingAs: null, apiKeyId: null, deviceId: null,
    action: 'event.update', resource: 'event', resourceId: event.id,
    changes: {
      title: { from: event.title, to: 'Another title' },
      capacity: { from: event.capacity ?? null, to: 7 },
    },
    ip: '127.0.0.1', requestId: res.headers['x-request-id'],
  });
  assert.match(rows[0].id, /^\d+$/);
});

test('what stays as it was is no change', async () => {
  const { rows } = await left('PATCH', `/api/v1/events/${event.id}`, {
    token: org.token, body: { title: 'Another title', reentry: true } });

  assert.deepEqual(rows[0].changes, { reentry: { from: false, to: true } });
});

test('updates of types and codes say from what to what', async () => {
  const type = event.types[0].id;
  const one = await left('PATCH', `/api/v1/ticket-types/${type}`, {
    token: org.token, body: { quota: 12, description: 'By the wall' } });

  assert.deepEqual(one.rows[0].changes, {
    quota: { from: 10, to: 12 },
    description: { from: null, to: 'By the wall' } });

  const code = must(await app.api('POST',
    `/api/v1/events/${event.id}/promo-codes`, { token: org.token,
      body: { code: 'AUDIT', kind: 'percent', value: 5, maxUses: 9 } }),
  201).data;
  const two = await left('PATCH', `/api/v1/promo-codes/${code.id}`, {
    token: org.token, body: { maxUses: 10 } });

  assert.deepEqual(two.rows[0].changes, { max_uses: { from: 9, to: 10 } });
  assert.equal(two.res.data.maxUses, 10);
});

test('states of events and orders, and staff, from and to', async () => {
  const draft = await app.event(org, { publish: false });
  const published = await left('POST', `/api/v1/events/${draft.id}/publish`,
    { token: org.token });

  assert.deepEqual(published.rows[0].changes,
    { from: 'draft', to: 'published' });

  const canceled = await left('POST', `/api/v1/events/${draft.id}/cancel`,
    { token: org.token, body: { reason: 'Rain' } });

  assert.deepEqual(canceled.rows[0].changes,
    { from: 'published', to: 'cancelled', reason: 'Rain' });

  const paid = await app.event(org, { types: [{ priceCents: 500, quota: 9 }] });
  const order = must(await app.order(member, paid.types[0].id), 202, 201).data;
  const gone = await left('POST', `/api/v1/orders/${order.id}/cancel`,
    { token: member.token });
  const moved = gone.rows.find((r) => r.action === 'order.cancelled');

  assert.equal(moved.resourceId, order.id);
  assert.equal(moved.changes.from, order.status);
  assert.equal(moved.changes.to, 'cancelled');

  const staff = `/api/v1/events/${event.id}/staff`;
  const added = await left('POST', staff, { token: org.token,
    body: { email: member.email, relation: 'scan' } });
  const removed = await left('DELETE', `${staff}/${member.id}`,
    { token: org.token });

  assert.deepEqual(added.rows[0].changes,
    { user_id: member.id, from: null, to: 'scan' });
  assert.deepEqual(removed.rows[0].changes,
    { user_id: member.id, from: 'scan', to: null });
});

test('of people: that a name changed, not what it was', async () => {
  const { rows } = await left('PATCH', '/api/v1/users/me', {
    token: member.token, body: { firstName: 'Wilhelmina', lastName: 'Ottokar',
      phone: '+420 600 123 456', timezone: 'Europe/Vienna' } });
  const hidden = { hidden: true };

  assert.deepEqual(rows[0].changes, { first_name: hidden, last_name: hidden,
    phone: hidden, timezone: { from: rows[0].changes.timezone.from,
      to: 'Europe/Vienna' } });

  const text = JSON.stringify(await app.sql(
    'select changes, resource_id, request_id from app.audit_log'));

  for (const secret of ['Wilhelmina', 'Ottokar', '600 123', member.email,
    org.email, member.password, '$argon2', 'token']) {
    assert.ok(!text.includes(secret), secret);
  }
});

test('filters, each alone and together', async () => {
  const all = await items({ limit: 100 });
  const bounds = [all.at(-5).at, all.at(4).at];

  assert.ok(all.length > 15 && all.length < 100, `${all.length} rows`);
  for (const [query, keeps] of [
    [{ actor: org.id }, (r) => r.actorId === org.id],
    [{ action: 'event.' }, (r) => r.action.startsWith('event.')],
    [{ action: 'event.update' }, (r) => r.action === 'event.update'],
    [{ action: 'vent' }, () => false],
    [{ action: 'event_' }, () => false],
    [{ resource: 'event' }, (r) => r.resource === 'event'],
    [{ resourceId: event.id }, (r) => r.resourceId === event.id],
    [{ from: bounds[0] }, (r) => r.at >= bounds[0]],
    [{ to: bounds[1] }, (r) => r.at < bounds[1]],
    [{ from: bounds[0], to: bounds[1], actor: org.id, resource: 'event' },
      (r) => r.at >= bounds[0] && r.at < bounds[1] && r.actorId === org.id
        && r.resource === 'event'],
    [{ requestId: all[3].requestId },
      (r) => r.requestId === all[3].requestId],
    [{ actor: admin.id, resourceId: event.id }, () => false],
  ]) {
    /* reading it adds nothing */
    const got = await items({ ...query, limit: 100 });

    assert.deepEqual(got, all.filter(keeps), JSON.stringify(query));
  }
  for (const query of [{ actor: 'x' }, { from: 'yesterday' },
    { nothing: '1' }, { sort: 'at' }, { limit: '101' }]) {
    const res = await list(query);

    assert.equal(res.status, 400, JSON.stringify(query));
    assert.equal(res.error.code, 'VALIDATION_FAILED');
    assert.equal(res.error.errors[0].pointer, Object.keys(query)[0]);
  }
});

test('newest first; no row twice and none left out on any page', async () => {
  const all = await items({ limit: 100 });

  assert.deepEqual(all.map((r) => Number(r.id)),
    all.map((r) => Number(r.id)).sort((a, b) => b - a));
  assert.equal(new Set(all.map((r) => r.id)).size, all.length);

  const paged = [];

  for (let page = 1; paged.length < all.length; page++) {
    const res = must(await list({ limit: 4, page }), 200);

    assert.equal(res.meta.total, all.length);
    assert.equal(res.meta.pages, Math.ceil(all.length / 4));
    paged.push(...res.data);
  }
  assert.deepEqual(paged, all);

  /* by cursor, while the log grows */
  let { data, meta } = must(await list({ limit: 4, cursor: '' }), 200);
  const walked = [...data];

  while (meta.nextCursor) {
    await left('PATCH', `/api/v1/events/${event.id}`, { token: org.token,
      body: { title: `Title ${walked.length}` } });
    ({ data, meta } = must(await list({ limit: 4, cursor: meta.nextCursor }),
      200));
    walked.push(...data);
  }
  assert.deepEqual(walked, all);
});
