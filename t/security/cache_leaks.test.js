/*
 * Cache leaks (edge.md D.2): what is one person's never comes out of a cache
 * for another: not out of the micro-cache, not out of single flights, not by
 * a validator; and no cache on the way is allowed to keep it.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { ROOT, boot } from '../harness/index.js';

/* Compression and pages, as conf/nginx.conf has them. */
const SHIPPED = fs.readFileSync(path.join(ROOT, 'conf/nginx.conf'), 'utf8');
const GZIP = SHIPPED.match(/^ *gzip[ _][^;]*;/gm).join('\n');
const PAGES = SHIPPED.match(/^ *location \/(events|kit)\/ \{[^}]*\}/gm)
  .join('\n');

let app, organizer, alice, bob, draft, open;

before(async () => {
  app = await boot({ workers: 0, conf: { AUTH_COOKIE_MODE: 'both' },
    nginx: { http: GZIP, replace: [['location = / {', `${PAGES}
        location = / {`]] } });
  organizer = await app.user('organizer');
  [alice, bob] = [await app.user(), await app.user()];
  open = await app.event(organizer);
  draft = await app.event(organizer, { publish: false });
});
after(() => app?.stop());

const get = (path, token, headers) => app.api('GET', path, { token, headers });
const shared = (res) => /\b(public|s-maxage)\b/.test(
  res.headers['cache-control'] ?? '') || res.headers.expires !== undefined;

test('what needs a token is kept by nobody', async () => {
  for (const path of ['/api/v1/users/me', '/api/v1/auth/check',
    '/api/v1/auth/sessions', '/api/v1/orders', '/api/v1/tickets',
    '/api/v1/events/mine']) {
    for (const token of [alice.token, undefined, 'a.b.c']) {
      const res = await get(path, token);

      assert.ok(res.status < 500, path);
      assert.match(res.headers['cache-control'], /no-store|private/, path);
      assert.ok(!shared(res), path);
    }
  }
  const login = await app.api('POST', '/api/v1/auth/login',
    { body: { email: alice.email, password: alice.password } });

  assert.equal(login.headers['cache-control'], 'no-store');
});

test('the same path at once: each has their own', async () => {
  const people = [alice, bob, organizer];

  for (let round = 0; round < 10; round++) {
    const all = await app.barrier(30, (i) => ({ method: 'GET',
      path: '/api/v1/users/me', token: people[i % 3].token }));

    all.forEach((res, i) => assert.equal(res.data.id, people[i % 3].id));
  }
});

test('a list that is cached is the same for all, whoever asked first',
  async () => {
    for (const first of [organizer.token, undefined, alice.token]) {
      const query = `/api/v1/events?limit=${50 + (first?.length ?? 0) % 40}`;
      const texts = [];

      for (const token of [first, bob.token, undefined]) {
        const res = await get(query, token);

        assert.equal(res.status, 200);
        assert.ok(!res.text.includes(draft.id), 'a draft is in the list');
        assert.equal(res.headers['set-cookie'], undefined);
        texts.push(JSON.stringify(res.data));
      }
      assert.equal(new Set(texts).size, 1);
    }
  });

test('a draft is its organizer\'s, also right after he has read it',
  async () => {
    const path = `/api/v1/events/${draft.id}`;

    for (let i = 0; i < 5; i++) {
      assert.equal((await get(path, organizer.token)).status, 200);
      assert.equal((await get(path)).status, 404);
      assert.equal((await get(path, bob.token)).status, 404);
    }
    const all = await app.barrier(20, (i) => ({ method: 'GET', path,
      token: i % 2 ? bob.token : organizer.token }));

    all.forEach((res, i) => assert.equal(res.status, i % 2 ? 404 : 200));
  });

test('a validator of one says nothing to another', async () => {
  const mine = await get('/api/v1/users/me', alice.token);
  const etag = mine.headers.etag;
  const theirs = await get('/api/v1/users/me', bob.token,
    { 'If-None-Match': etag ?? '"x"' });

  assert.equal(theirs.status, 200, 'bob was told that nothing has changed');
  assert.equal(theirs.data.id, bob.id);
  const event = await get(`/api/v1/events/${draft.id}`, organizer.token);
  const blind = await get(`/api/v1/events/${draft.id}`, bob.token,
    { 'If-None-Match': event.headers.etag });

  assert.equal(blind.status, 404);
});

test('an Idempotency-Key is one person\'s', async () => {
  const key = 'the-same-key-of-two';
  const spec = (user) => ({ token: user.token,
    headers: { 'Idempotency-Key': key },
    body: { items: [{ ticketTypeId: open.types[0].id, quantity: 1 }] } });
  const one = await app.api('POST', '/api/v1/orders', spec(alice));
  const two = await app.api('POST', '/api/v1/orders', spec(bob));

  assert.equal(one.status, two.status, two.text);
  assert.notEqual(one.data.id, two.data.id);
  assert.equal(two.headers['idempotent-replayed'], undefined);
});

test('a page may be kept, what is behind a cookie may not', async () => {
  const login = await app.api('POST', '/api/v1/auth/login',
    { body: { email: alice.email, password: alice.password } });
  const cookie = login.headers['set-cookie']
    .find((line) => line.startsWith('__Host-stoa_access=')).split(';')[0];
  const res = await get('/api/v1/users/me', undefined, { Cookie: cookie });

  assert.equal(res.data.id, alice.id);
  assert.match(res.headers['cache-control'], /no-store|private/);
  assert.equal((await get('/api/v1/users/me')).status, 401);
});

test('what may be compressed says so, or a cache gives it to everybody',
  async () => {
    for (const path of ['/events/list.js', '/kit/tokens.css']) {
      for (const encoding of ['gzip', 'identity']) {
        const res = await app.api('GET', path, { validate: false,
          headers: { 'Accept-Encoding': encoding } });

        assert.equal(res.status, 200);
        assert.match(res.headers['cache-control'], /max-age=[1-9]/, path);
        assert.equal(res.headers['content-encoding'] === 'gzip',
          encoding === 'gzip', path);
        assert.match(res.headers.vary ?? '', /\bAccept-Encoding\b/i,
          `${path} ${encoding}`);
      }
    }
  });
