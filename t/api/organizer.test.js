/*
 * The organizer's side through the edge: who is shown what of staff and of
 * the online link, what is listed by default, what may be published, copied,
 * changed and ended.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';

const DAY = 86400000;
const LINK = 'https://meet.example/room-7';
const BANNER = 'https://img.example/banner.jpg';

let app, org, second, prac, admin, buyer, stranger;

before(async () => {
  app = await boot({ workers: 0, nginxWorkers: 1 });
  [org, second, prac, admin, buyer, stranger] = [
    await app.user('organizer'), await app.user('organizer'),
    await app.user('practitioner'), await app.user('admin'),
    await app.user('member', { firstName: 'Bea', lastName: 'Buyer' }),
    await app.user('member', { firstName: 'Sam', lastName: 'Stranger' })];
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
  return res.error;
}

const at = (ms) => new Date(Date.now() + (app.clock?.ms ?? 0) + ms)
  .toISOString();

/* Listed is what a list says without the micro-cache of the last second. */
let turn = 0;
const listed = async (query = '') => (await ok(200, null, 'GET',
  `/events?limit=100&startsAfter=${at(-9000 * DAY - ++turn)}${query}`))
  .map((e) => e.id);

/* ---- staff ---- */

test('staff is added by e-mail, and the answer tells nothing new',
  async () => {
    const event = await app.event(org);
    const path = `/events/${event.id}/staff`;
    const res = await call(org, 'POST', path, { email: buyer.email });

    assert.equal(res.status, 201, res.text);
    assert.deepEqual(res.data, { userId: buyer.id, relation: 'scan' });
    const [who] = await ok(200, org, 'GET', path);

    assert.equal(who.email, buyer.email);
    assert.equal(who.name, 'Bea B.');
    assert.doesNotMatch(JSON.stringify(who), /Buyer/);
  });

test('an id does not turn into an address or a name', async () => {
  const event = await app.event(org);
  const path = `/events/${event.id}/staff`;

  for (const userId of [stranger.id, second.id, admin.id,
    '00000000-0000-7000-8000-000000000000']) {
    const error = await refused(400, 'VALIDATION_FAILED', org, 'POST', path,
      { userId });

    assert.deepEqual(error.errors, [{ pointer: '/userId', code: 'unknown',
      detail: 'has no account' }]);
  }
  assert.deepEqual(await ok(200, org, 'GET', path), []);

  /* whoever helps already may help elsewhere, at events of the same hands */
  await ok(201, org, 'POST', path, { email: stranger.email });
  const other = await app.event(org);
  const theirs = await app.event(second);

  await ok(201, org, 'POST', `/events/${other.id}/staff`,
    { userId: stranger.id });
  await refused(400, 'VALIDATION_FAILED', second, 'POST',
    `/events/${theirs.id}/staff`, { userId: stranger.id });
  await ok(201, admin, 'POST', `/events/${theirs.id}/staff`,
    { userId: stranger.id });
});

test('practitioners may manage, members may not', async () => {
  const event = await app.event(org);
  const path = `/events/${event.id}/staff`;

  await ok(201, org, 'POST', path, { email: prac.email, relation: 'manage' });
  await ok(200, prac, 'PATCH', `/events/${event.id}`, { location: 'Hall' },
    { 'If-Match': '*' });
  await refused(400, 'VALIDATION_FAILED', org, 'POST', path,
    { email: buyer.email, relation: 'manage' });
});

/* ---- what is shown ---- */

test('holds that ran out are free in lists, too', async () => {
  const event = await app.event(org,
    { capacity: 3, types: [{ quota: 10, priceCents: 500 }] });
  const one = async () => (await ok(200, null, 'GET',
    `/events?limit=100&search=${encodeURIComponent(event.title)}&startsAfter=${at(-++turn)}`))
    .find((e) => e.id === event.id);

  assert.equal((await app.order(buyer, event.types[0].id, 3)).status, 201);
  assert.equal((await one()).soldOut, true);
  assert.equal((await one()).remaining, 0);
  await app.sql(`update app.orders set reserved_until = app.now()
    - interval '1 s' where event_id = $1`, [event.id]);
  assert.equal((await one()).remaining, 3);
  assert.equal((await one()).soldOut, false);
});

test('the online link is for staff and for who holds a ticket', async () => {
  const event = await app.event(org, { onlineLink: LINK });
  const get = async (who) => (await call(who, 'GET', `/events/${event.id}`));

  assert.equal(event.onlineLink, LINK);
  for (const who of [null, buyer, second, prac]) {
    assert.doesNotMatch((await get(who)).text, /onlineLink|room-7/);
  }
  for (const who of [org, admin]) {
    assert.equal((await get(who)).data.onlineLink, LINK);
  }
  const before_ = (await get(buyer)).headers.etag;
  const [ticket] = await app.freeTickets(buyer, event.types[0].id);
  const after_ = await get(buyer);

  assert.equal(after_.data.onlineLink, LINK);
  assert.notEqual(after_.headers.etag, before_);
  assert.doesNotMatch((await get(null)).text, /room-7/);
  await ok(201, org, 'POST', `/events/${event.id}/staff`,
    { email: stranger.email });
  assert.equal((await get(stranger)).data.onlineLink, LINK);
  await app.sql(`update app.tickets set state = 'cancelled' where id = $1`,
    [ticket.id]);
  assert.doesNotMatch((await get(buyer)).text, /room-7/);

  /* the tag of a read is what a change takes, and what it answers */
  const res = await call(org, 'PATCH', `/events/${event.id}`,
    { onlineLink: `${LINK}b` }, { 'If-Match': (await get(org)).headers.etag });

  assert.equal(res.status, 200, res.text);
  assert.equal(res.data.onlineLink, `${LINK}b`);
  assert.equal(res.headers.etag, (await get(org)).headers.etag);
});

test('what is over is listed for those who ask', async () => {
  const past = await app.event(org), next = await app.event(org);

  await app.sql(`update app.events set starts_at = '2020-05-01T18:00Z',
    ends_at = '2020-05-01T22:00Z' where id = $1`, [past.id]);
  for (const [query, has] of [['', [false, true]],
    ['&past=false', [false, true]], ['&past=true', [true, false]],
    ['&past=all', [true, true]]]) {
    const ids = await listed(query);

    assert.deepEqual([ids.includes(past.id), ids.includes(next.id)], has,
      query);
  }
  await refused(400, 'VALIDATION_FAILED', null, 'GET', '/events?past=1');

  const titles = (await ok(200, null, 'GET',
    '/events?limit=100&sort=-title')).map((e) => e.title);

  assert.deepEqual(titles, [...titles].sort().reverse());
});

test('a banner is an https picture, in lists and alone', async () => {
  const event = await app.event(org, { bannerImageUrl: BANNER });

  assert.equal(event.bannerImageUrl, BANNER);
  assert.equal((await ok(200, null, 'GET', `/events/${event.id}`))
    .bannerImageUrl, BANNER);
  assert.equal((await ok(200, null, 'GET',
    `/events?search=${encodeURIComponent(event.title)}`))[0].bannerImageUrl, BANNER);
  for (const bannerImageUrl of ['http://img.example/a.jpg', 'a.jpg',
    'javascript:alert(1)', 'data:image/png;base64,AA']) {
    const { errors } = await refused(400, 'VALIDATION_FAILED', org, 'PATCH',
      `/events/${event.id}`, { bannerImageUrl }, { 'If-Match': '*' });

    assert.equal(errors[0].pointer, '/bannerImageUrl');
  }
  assert.equal((await ok(200, org, 'PATCH', `/events/${event.id}`,
    { bannerImageUrl: null }, { 'If-Match': '*' })).bannerImageUrl, null);
});

/* ---- publish, copy, end ---- */

test('only what can still be sold is published', async () => {
  const bare = await app.event(org, { types: [], publish: false });
  const over = await app.event(org, { publish: false,
    startsAt: '2020-05-01T18:00:00Z', endsAt: '2020-05-01T22:00:00Z' });

  for (const [{ id }, detail] of [[bare, /ticket type/], [over, /over/]]) {
    const error = await refused(409, 'INVALID_STATE', org, 'POST',
      `/events/${id}/publish`, undefined, { 'If-Match': '*' });

    assert.match(error.detail, detail);
  }
  await app.ticketType(org, bare.id);
  await ok(200, org, 'POST', `/events/${bare.id}/publish`, undefined,
    { 'If-Match': '*' });
});

test('a copy is a draft with the same ticket types and no sales',
  async () => {
    const event = await app.event(org, { capacity: 7, onlineLink: LINK,
      bannerImageUrl: BANNER, types: [
        { name: 'One', quota: 5, priceCents: 0, sort: 1 },
        { name: 'Two', quota: 6, priceCents: 900, sort: 2 }] });

    await app.freeTickets(buyer, event.types[0].id, 2);
    await ok(201, org, 'POST', `/events/${event.id}/promo-codes`,
      { code: 'EARLY', kind: 'percent', value: 10, maxUses: 5 });
    const copy = await ok(201, org, 'POST', `/events/${event.id}/duplicate`);

    assert.notEqual(copy.id, event.id);
    assert.equal(copy.status, 'draft');
    assert.equal(copy.sold, 0);
    assert.equal(copy.organizerId, org.id);
    for (const name of ['title', 'startsAt', 'endsAt', 'timezone',
      'capacity', 'currency', 'onlineLink', 'bannerImageUrl']) {
      assert.equal(copy[name], event[name], name);
    }
    assert.deepEqual(copy.ticketTypes.map((y) =>
      [y.name, y.quota, y.priceCents, y.sold, y.eventId === copy.id]),
    [['One', 5, 0, 0, true], ['Two', 6, 900, 0, true]]);
    assert.deepEqual(await ok(200, org, 'GET',
      `/events/${copy.id}/promo-codes`), []);
    await refused(404, 'NOT_FOUND', second, 'POST',
      `/events/${event.id}/duplicate`);
    await refused(403, 'FORBIDDEN', buyer, 'POST',
      `/events/${event.id}/duplicate`);
    assert.equal((await ok(201, admin, 'POST',
      `/events/${event.id}/duplicate`)).organizerId, org.id);
  });

test('a cancelled event stays as it was', async () => {
  const event = await app.event(org);
  const promo = await ok(201, org, 'POST', `/events/${event.id}/promo-codes`,
    { code: 'LATE', kind: 'percent', value: 10, maxUses: 5 });

  await ok(200, org, 'POST', `/events/${event.id}/cancel`, {},
    { 'If-Match': '*' });
  const any = { 'If-Match': '*' };

  await refused(409, 'INVALID_STATE', org, 'PATCH',
    `/ticket-types/${event.types[0].id}`, { quota: 5 }, any);
  await refused(409, 'INVALID_STATE', org, 'POST',
    `/events/${event.id}/promo-codes`,
    { code: 'MORE', kind: 'percent', value: 10, maxUses: 5 });
  await refused(409, 'INVALID_STATE', org, 'PATCH',
    `/promo-codes/${promo.id}`, { maxUses: 9 }, any);
});

test('a promo code is changed, ended, and removed while nobody used it',
  async () => {
    const event = await app.event(org,
      { types: [{ priceCents: 1000, quota: 10 }] });
    const promo = await ok(201, org, 'POST',
      `/events/${event.id}/promo-codes`,
      { code: 'EARLY', kind: 'percent', value: 10, maxUses: 1 });
    const path = `/promo-codes/${promo.id}`;
    const order = (who, promoCode = 'early') =>
      app.order(who, event.types[0].id, 1, { promoCode });

    await refused(412, 'PRECONDITION_FAILED', org, 'PATCH', path,
      { maxUses: 2 }, { 'If-Match': '"7"' });
    await refused(404, 'NOT_FOUND', second, 'PATCH', path, { maxUses: 2 },
      { 'If-Match': '*' });
    const res = await call(org, 'PATCH', path, { maxUses: 2 },
      { 'If-Match': `"${promo.version}"` });

    assert.equal(res.data.maxUses, 2, res.text);
    assert.equal(res.headers.etag, `"${promo.version + 1}"`);
    for (const who of [buyer, stranger]) {
      assert.ok((await order(who)).status < 300);
    }
    await refused(409, 'INVALID_STATE', org, 'PATCH', path, { maxUses: 1 },
      { 'If-Match': '*' });
    await refused(409, 'INVALID_STATE', org, 'DELETE', path, undefined,
      { 'If-Match': '*' });
    await ok(200, org, 'PATCH', path, { maxUses: 9, validUntil: at(-1000) },
      { 'If-Match': '*' });
    assert.ok((await order(second)).status >= 400, 'it has ended');

    const spare = await ok(201, org, 'POST',
      `/events/${event.id}/promo-codes`,
      { code: 'SPARE', kind: 'amount', value: 10, maxUses: 1 });

    await refused(404, 'NOT_FOUND', second, 'DELETE',
      `/promo-codes/${spare.id}`, undefined, { 'If-Match': '*' });
    await ok(204, org, 'DELETE', `/promo-codes/${spare.id}`, undefined,
      { 'If-Match': '*' });
    assert.deepEqual((await ok(200, org, 'GET',
      `/events/${event.id}/promo-codes`)).map((p) => p.code), ['EARLY']);
  });

/* ---- lists ---- */

test('lists are paged, sorted and walked by cursor, for those who may',
  async () => {
    const event = await app.event(org, { types: [
      { name: 'B', sort: 1 }, { name: 'A', sort: 2 }, { name: 'C', sort: 3 }] });
    const people = await Promise.all(Array.from({ length: 5 }, (_, i) =>
      app.user('member', { firstName: `N${i}`, lastName: 'Walk' })));

    for (const who of people) {
      await app.freeTickets(who, event.types[0].id);
      await ok(201, org, 'POST', `/events/${event.id}/staff`,
        { email: who.email });
    }
    for (const code of ['ONE', 'TWO', 'SIX']) {
      await ok(201, org, 'POST', `/events/${event.id}/promo-codes`,
        { code, kind: 'percent', value: 10, maxUses: 5 });
      await ok(201, org, 'POST', '/checkin/devices',
        { eventId: event.id, name: code });
    }
    for (const [path, total, sort, key] of [
      [`/events/${event.id}/registrations`, 5, '-registeredAt', 'email'],
      [`/events/${event.id}/registrations`, 5, 'name', 'name'],
      [`/events/${event.id}/staff`, 5, 'email', 'email'],
      [`/events/${event.id}/promo-codes`, 3, 'code', 'code'],
      [`/events/${event.id}/ticket-types`, 3, 'name', 'name'],
      [`/checkin/devices?eventId=${event.id}`, 3, 'name', 'name']]) {
      const with_ = (more) => `${path}${path.includes('?') ? '&' : '?'}${more}`;
      const all = await call(org, 'GET', with_(`sort=${sort}`));

      assert.equal(all.status, 200, all.text);
      assert.equal(all.meta.total, total, path);
      assert.equal(all.data.length, total);
      if (!sort.startsWith('-')) {
        const keys = all.data.map((item) => item[key]);

        assert.deepEqual(keys, [...keys].sort(), path);
      }
      const walked = [];
      let res = await call(org, 'GET', with_(`sort=${sort}&limit=2`));

      for (let n = 0; n < 5; n++) {
        walked.push(...res.data);
        if (!res.meta.nextCursor) break;
        res = await call(org, 'GET', with_(`sort=${sort}&limit=2&cursor=${
          res.meta.nextCursor}`));
      }
      assert.deepEqual(walked, all.data, path);

      const first = await call(org, 'GET', with_('limit=2'));
      const error = await refused(400, 'VALIDATION_FAILED', org, 'GET',
        with_(`limit=2&page=2&cursor=${first.meta.nextCursor}`));

      assert.equal(error.errors[0].pointer, 'cursor');
      if (path.includes('ticket-types')) continue;
      await refused(404, 'NOT_FOUND', second, 'GET', path);
      await refused(404, 'NOT_FOUND', second, 'GET', with_('page=2'));
      assert.equal((await call(admin, 'GET', path)).status, 200);
    }
    const draft = await app.event(org, { publish: false });

    await refused(404, 'NOT_FOUND', null, 'GET',
      `/events/${draft.id}/ticket-types`);
    assert.equal((await ok(200, org, 'GET',
      `/events/${draft.id}/ticket-types`)).length, 1);
  });

test('a hold is no registration, a file is filtered as the list is',
  async () => {
    const event = await app.event(org, { types: [
      { priceCents: 0, quota: 9 }, { priceCents: 100, quota: 9 }] });
    const path = `/events/${event.id}/registrations`;
    const holder = await app.user();

    await app.order(holder, event.types[1].id);
    await app.freeTickets(buyer, event.types[0].id);
    await app.freeTickets(stranger, event.types[0].id);
    assert.deepEqual((await ok(200, org, 'GET', path)).map((r) => r.email)
      .sort(), [buyer.email, stranger.email].sort());
    await refused(400, 'VALIDATION_FAILED', org, 'GET',
      `${path}?status=reserved`);
    await app.sql(`update app.orders set reserved_until = app.now()
      where event_id = $1 and status <> 'paid'`, [event.id]);
    await app.sql(`update app.orders set status = 'expired', holds = false
      where event_id = $1 and status <> 'paid'`, [event.id]);
    await app.sql(`update app.tickets set state = 'expired'
      where event_id = $1 and state = 'reserved'`, [event.id]);
    assert.equal((await ok(200, org, 'GET', path)).length, 2);

    for (const [query, n] of [['', 2], ['?status=registered', 2],
      ['?status=cancelled', 0], ['?search=stranger', 1],
      [`?search=${encodeURIComponent(buyer.email)}`, 1]]) {
      const res = await call(org, 'GET', `${path}.csv${query}`);

      assert.equal(res.status, 200, res.text);
      assert.equal(res.text.trim().split('\r\n').length - 1, n, query);
      assert.equal((await ok(200, org, 'GET', path + query)).length, n,
        query);
    }
  });

test('names are one line and not blank', async () => {
  const event = await app.event(org, { publish: false });
  const patch = (body) => call(org, 'PATCH', `/events/${event.id}`, body,
    { 'If-Match': '*' });

  for (const title of ['', '   ', '\u3000\u200b', 'a\nb', 'a\rb',
    'a\u2028b', 'a\u202eb', 'a\u2066b', 'a\u0007b', 'a\u0085b']) {
    const res = await patch({ title });

    assert.equal(res.status, 400, JSON.stringify(title));
    assert.equal(res.error.errors[0].pointer, '/title');
  }
  const res = await patch({ title: '  Night \u00a0', description: 'a\n\nb' });

  assert.equal(res.data.title, 'Night');
  assert.equal(res.data.description, 'a\n\nb');
  for (const currency of ['ZZZ', 'XTS', 'BGN', 'eur']) {
    assert.equal((await patch({ currency })).status, 400, currency);
  }
  assert.equal((await patch({ currency: 'JPY' })).data.currency, 'JPY');
  assert.equal((await call(org, 'POST', `/events/${event.id}/promo-codes`,
    { code: '  ', kind: 'percent', value: 1, maxUses: 1 })).status, 400);
  assert.equal((await ok(201, org, 'POST', `/events/${event.id}/promo-codes`,
    { code: ' ab ', kind: 'percent', value: 1, maxUses: 1 })).code, 'AB');
});

/* ---- what is the buyer's own ---- */

test('codes are shown to their holder, not to the event\'s staff',
  async () => {
    const event = await app.event(org);
    const order = (await app.order(buyer, event.types[0].id, 2)).data;
    const [{ id, code }] = order.tickets;

    for (const [who, shown] of [[buyer, true], [admin, true], [org, false]]) {
      const one = await call(who, 'GET', `/orders/${order.id}`);
      const ticket = await call(who, 'GET', `/tickets/${id}`);

      assert.equal(one.data.tickets.length, 2);
      assert.equal(one.text.includes(code), shown);
      assert.equal(ticket.text.includes(code), shown);
      assert.equal(ticket.data.code, shown ? code : null);
      assert.deepEqual({ ...ticket.data, code }, (await ok(200, buyer, 'GET',
        `/tickets/${id}`)));
    }
  });

test('orders and tickets are found by the words on them', async () => {
  const who = await app.user('member', { firstName: 'Wanda',
    lastName: 'Words' });
  const [a, b] = [await app.event(org, { title: 'Lamplight 100% walk' }),
    await app.event(org, { title: 'Symposium', types: [{ name: 'Balcony' }] })];

  await app.freeTickets(who, a.types[0].id);
  await app.freeTickets(who, b.types[0].id);
  for (const [path, search, titles] of [
    ['orders', 'LAMP', [a.title]], ['orders', '0% w', [a.title]],
    ['orders', '%%', []], ['orders', 'Balcony', []],
    ['tickets', 'sympo', [b.title]], ['tickets', 'balc', [b.title]],
    ['tickets', 'wanda', [a.title, b.title]], ['tickets', '_', []]]) {
    const res = await call(who, 'GET',
      `/${path}?search=${encodeURIComponent(search)}`);

    assert.deepEqual(res.data.map((item) => item.eventTitle).sort(), titles,
      `${path} ${search}`);
    assert.equal(res.meta.total, titles.length);
  }
});

test('a file that would be cut is refused, a part of it is not', async () => {
  const event = await app.event(org);
  const path = `/events/${event.id}/registrations.csv`;

  await app.freeTickets(buyer, event.types[0].id);
  const copy = (n, name) => app.sql(`insert into app.tickets (id, order_id,
      line, event_id, ticket_type_id, holder_id, holder_name, price_cents,
      code, state, created_at, updated_at)
    select gen_random_uuid(), t.order_id, t.line, t.event_id,
      t.ticket_type_id, t.holder_id, $2, 0, gen_random_uuid()::text,
      'valid', t.created_at, t.updated_at
    from (select t.* from app.tickets t where t.event_id = $1 limit 1) t
    cross join generate_series(1, $3::int)`, [event.id, name, n]);

  await copy(49999, 'Many');
  assert.equal((await file(path)).split('\r\n').length, 50002);
  await copy(1, 'One More');
  const { detail } = await refused(409, 'INVALID_STATE', org, 'GET', path);

  assert.match(detail, /50,000/);
  assert.equal((await file(`${path}?search=one%20more`)).split('\r\n').length,
    3);
});

async function file(path) {
  const res = await call(org, 'GET', path);

  assert.equal(res.status, 200, res.text.slice(0, 300));
  return res.text;
}
