/*
 * If-Match: what a change is based on.  A version that is not the present
 * one is refused with 412 by every row that changes something versioned, in
 * the row's own statement; where the operator requires the header, its lack
 * is 428, after 400 and before the Idempotency-Key.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';

let app, strict, org, member, event;

const QUERIES = 'add_header X-Queries $stoa_db_queries always;';
const GZIP = 'gzip on; gzip_min_length 1; gzip_types application/json;';

before(async () => {
  app = await boot({ workers: 0, nginx: { server: `${QUERIES} ${GZIP}` } });
  strict = await boot({ workers: 0,
    nginx: { server: `${QUERIES} stoa_if_match required;` } });
  org = await app.user('organizer');
  member = await app.user();
  event = await app.event(org, { types: [{ priceCents: 0, quota: 9 }] });
});
after(async () => {
  await app?.stop();
  await strict?.stop();
});

function refused(res, status, code) {
  assert.equal(res.status, status, res.text);
  assert.equal(res.error.code, code, res.text);
}

/* [what, who, method, path, body, read again] of a thing that was not yet
   changed; each call makes another. */
async function things(of, owner, user) {
  const draft = () => of.event(owner, { publish: false });
  const { id, types: [{ id: type }] } = await of.event(owner,
    { types: [{ priceCents: 0, quota: 9 }] });
  const spare = await of.ticketType(owner, id);
  const read = (table, key) => () => of.value(
    `select to_jsonb(t) from app.${table} t where id = $1`, [key]);
  const [one, other] = [await draft(), await draft()];

  return [
    ['PATCH an event', owner, 'PATCH', `/events/${id}`,
      { location: 'Hall 1' }, read('events', id)],
    ['PUT an event', owner, 'PUT', `/events/${id}`,
      { location: 'Hall 2' }, read('events', id)],
    ['PATCH a ticket type', owner, 'PATCH', `/ticket-types/${type}`,
      { quota: 10 }, read('ticket_types', type)],
    ['PUT a ticket type', owner, 'PUT', `/ticket-types/${type}`,
      { quota: 11 }, read('ticket_types', type)],
    ['PATCH an account', user, 'PATCH', '/users/me',
      { firstName: 'One' }, read('users', user.id)],
    ['PUT an account', user, 'PUT', '/users/me',
      { firstName: 'Two' }, read('users', user.id)],
    ['publish an event', owner, 'POST', `/events/${one.id}/publish`,
      undefined, read('events', one.id)],
    ['cancel an event', owner, 'POST', `/events/${other.id}/cancel`,
      {}, read('events', other.id)],
    ['delete a ticket type', owner, 'DELETE', `/ticket-types/${spare.id}`,
      undefined, read('ticket_types', spare.id)],
  ];
}

const change = (of, [, who, method, path, body], headers = {}) =>
  of.api(method, `/api/v1${path}`, { token: who.token, body, headers });

test('another version is 412 and changes nothing, the present one goes on',
  async () => {
    for (const thing of await things(app, org, member)) {
      const [what, , , , , read] = thing;
      const was = await read();

      for (const tag of [`"${was.version + 1}"`, `"${was.version - 1}"`,
        `W/"${was.version + 1}"`, '"x"', 'W/', '"',
        `w/"${was.version}"`, `${was.version}`, '""']) {
        const res = await change(app, thing, { 'If-Match': tag });

        refused(res, 412, 'PRECONDITION_FAILED');
        assert.equal(res.headers['x-queries'], '1', `${what}, ${tag}`);
        assert.deepEqual(await read(), was, `${what}, ${tag}`);
      }

      const res = await change(app, thing,
        { 'If-Match': `"${was.version}"` });

      assert.ok([200, 204].includes(res.status), `${what}: ${res.text}`);
      assert.equal(res.headers['x-queries'], '1', what);
      assert.notEqual((await read())?.version, was.version, what);
    }
  });

test('the ETag of a read is what a change takes, and answers the next',
  async () => {
    for (const [who, path, body] of [
      [org, `/events/${event.id}`, (n) => ({ location: `Room ${n}` })],
      [member, '/users/me', (n) => ({ firstName: `Name ${n}` })]]) {
      let { etag } = (await app.api('GET', `/api/v1${path}`,
        { token: who.token })).headers;

      for (const n of [1, 2, 3]) {
        const res = await change(app, ['', who, 'PATCH', path, body(n)],
          { 'If-Match': etag });

        assert.equal(res.status, 200, res.text);
        refused(await change(app, ['', who, 'PATCH', path, body(0)],
          { 'If-Match': etag }), 412, 'PRECONDITION_FAILED');
        assert.notEqual(res.headers.etag, etag);
        etag = res.headers.etag;
      }
    }
  });

test('a tag that gzip made weak still names its version', async () => {
  const path = `/api/v1/events/${event.id}`;
  const { headers } = await fetch(app.url + path);
  const etag = headers.get('etag');

  assert.equal(headers.get('content-encoding'), 'gzip');
  assert.match(etag, /^W\/"/);
  for (const status of [200, 412]) {
    assert.equal((await app.api('PATCH', path, { token: org.token,
      body: { location: 'Packed' }, headers: { 'If-Match': etag } })).status,
    status);
  }
});

test('without the header, or with "*", the last writer wins', async () => {
  for (const headers of [{}, { 'If-Match': '*' }]) {
    for (const thing of await things(app, org, member)) {
      const res = await change(app, thing, headers);

      assert.ok([200, 204].includes(res.status), `${thing[0]}: ${res.text}`);
    }
  }
});

test('of many writers with one version exactly one wins', async () => {
  for (const [path, who, body] of [
    [`/ticket-types/${event.types[0].id}`, org, (i) => ({ quota: 20 + i })],
    ['/users/me', member, (i) => ({ firstName: `Writer ${i}` })]]) {
    const version = path === '/users/me'
      ? await app.value('select version from app.users where id = $1',
        [member.id])
      : await app.value('select version from app.ticket_types where id = $1',
        [event.types[0].id]);
    const all = await app.barrier(16, (i) => ({
      method: 'PATCH', path: `/api/v1${path}`, token: who.token,
      body: body(i), headers: { 'If-Match': `"${version}"` },
    }));
    const by = (status) => all.filter((res) => res.status === status).length;

    assert.deepEqual([by(200), by(412)], [1, 15],
      all.map((res) => res.status).join());
  }
});

test('a replay of what was changed is no conflict with itself', async () => {
  const path = `/events/${event.id}`;
  const { etag } = (await app.api('GET', `/api/v1${path}`)).headers;
  const headers = { 'If-Match': etag,
    'Idempotency-Key': crypto.randomUUID() };
  const thing = ['', org, 'PATCH', path, { location: 'Once' }];
  const first = await change(app, thing, headers);
  const again = await change(app, thing, headers);

  assert.equal(first.status, 200, first.text);
  assert.equal(again.text, first.text);
  assert.equal(again.headers['idempotent-replayed'], 'true');
});

test('required: its lack is 428 and changes nothing', async () => {
  const owner = await strict.user('organizer');
  const user = await strict.user();

  refused(await strict.api('PATCH', '/api/v1/users/me',
    { body: { firstName: 'x' } }), 401, 'UNAUTHENTICATED');
  for (const thing of await things(strict, owner, user)) {
    const [what, , , , , read] = thing;
    const was = await read();
    const key = { 'Idempotency-Key': crypto.randomUUID() };
    const bare = await change(strict, thing, key);

    refused(bare, 428, 'PRECONDITION_REQUIRED');
    assert.equal(bare.headers['x-queries'] ?? '0', '0', what);
    assert.deepEqual(await read(), was, what);
    refused(await change(strict, thing, { 'If-Match': '"77"' }),
      412, 'PRECONDITION_FAILED');

    /* the key was not used up by the refusal */
    const res = await change(strict, thing,
      { ...key, 'If-Match': `"${was.version}"` });

    assert.ok([200, 204].includes(res.status), `${what}: ${res.text}`);
  }

  /* 400 comes first */
  refused(await change(strict, ['', user, 'PATCH', '/users/me',
    { firstName: '' }]), 400, 'VALIDATION_FAILED');
});
