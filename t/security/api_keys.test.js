/*
 * API keys from outside, on one and on four nginx workers, and on a second
 * node: what is forged costs no query and is counted; what has run out or was
 * revoked ends at its moment; two of a family live at most; a key is taken
 * from its headers and from nowhere else, and its owner's rights are its own.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ROOT, ROUNDS, SLOW, boot, sleep, until } from '../harness/index.js';
import { must } from '../harness/fixtures.js';

const KEYS = '/api/v1/auth/api-keys';
const ME = '/api/v1/users/me';
const HOUR = 3600000;

const make = async (app, user, body = {}) => must(await app.api('POST', KEYS,
  { token: user.token, body: { name: 'Robot', scopes: ['*'], ...body } }),
201).data;
const me = (app, key, headers, node) => app.api('GET', ME,
  { token: key, headers, node });
const code = (res) => `${res.status} ${res.error?.code ?? ''}`.trim();

/* The form, made here once more: shared/stoa_key.h is not asked. */
const B32 = 'abcdefghijklmnopqrstuvwxyz234567';

function base32(bytes) {
  const bits = [...bytes].map((b) => b.toString(2).padStart(8, '0')).join('');

  return bits.match(/.{5}/g).map((five) => B32[parseInt(five, 2)]).join('');
}

function unbase32(text) {
  const bits = [...text].map((c) =>
    B32.indexOf(c).toString(2).padStart(5, '0')).join('');

  return Buffer.from(bits.match(/.{8}/g).map((eight) => parseInt(eight, 2)));
}

function forge(app, { id = crypto.randomBytes(16),
  secret = crypto.randomBytes(32), mac } = {}) {
  const own = crypto.createHmac('sha256', app.conf.JWT_SECRET)
    .update('stoa api-key').digest();

  mac ??= crypto.createHmac('sha256', own).update(id).update(secret)
    .digest().subarray(0, 12);
  return `stoa_sk_${base32(Buffer.concat([id, secret, mac]))}`;
}

const parts = (key) => {
  const bytes = unbase32(key.slice(8));

  return { id: bytes.subarray(0, 16), secret: bytes.subarray(16, 48),
    mac: bytes.subarray(48) };
};

async function metric(app, name) {
  const res = await app.api('GET', '/metrics', { validate: false });

  return Number(res.text.match(new RegExp(`^stoa_${name}_total (\\d+)`,
    'm'))[1]);
}

/* Processes hand their counts over each second. */
async function settled(app, name) {
  await sleep(1300);
  return metric(app, name);
}

for (const nginxWorkers of [1, 4]) {
  describe(`${nginxWorkers} nginx workers`, () => {
    let app, ada, bob;

    before(async () => {
      app = await boot({ workers: 0, nginxWorkers, nodes: 2 });
      ada = await app.user();
      bob = await app.user();
    });
    after(() => app?.stop());

    /* Every process answers some of these. */
    const everywhere = (key, n = 24) => app.barrier(n, () => ({ method: 'GET',
      path: ME, token: key }));

    test('both headers; the form is what scanners look for', async () => {
      const made = await make(app, ada);

      assert.match(made.key, /^stoa_sk_[a-z2-7]{96}$/);
      assert.equal(made.prefix, made.key.slice(0, 16));
      assert.equal(made.key, forge(app, parts(made.key)), 'its MAC is ours');
      for (const headers of [{ Authorization: `Bearer ${made.key}` },
        { Authorization: `bearer ${made.key}` }, { 'X-Api-Key': made.key }]) {
        assert.equal((await me(app, undefined, headers)).data.id, ada.id);
      }

      const { data: [listed] } = await app.api('GET', KEYS,
        { token: ada.token });

      assert.equal(listed.id, made.id);
      assert.equal(listed.key, undefined, 'shown once');

      const [row] = await app.sql(
        'select secret_hash, prefix from app.api_keys where id = $1',
        [made.id]);

      assert.equal(row.secret_hash.toString('hex'),
        crypto.createHash('sha256').update(parts(made.key).secret)
          .digest('hex'));
    });

    test('a key is in a header or nowhere', async () => {
      const { key } = await make(app, ada);

      for (const name of ['key', 'api_key', 'apiKey', 'access_token',
        'x-api-key', 'authorization']) {
        const q = `${name}=${encodeURIComponent(key)}`;

        assert.equal((await app.api('GET', `${ME}?${q}`)).status, 401, name);
        assert.equal((await app.api('POST', '/api/v1/events', {
          body: q, headers: { 'Content-Type':
            'application/x-www-form-urlencoded' } })).status, 401, name);
        assert.equal((await me(app, undefined, { Cookie: q })).status, 401);
      }
      for (const Authorization of [key, `Basic ${btoa(`${key}:`)}`,
        `Basic ${btoa(`x:${key}`)}`, `Token ${key}`, `ApiKey ${key}`,
        `Bearer ${key} ${key}`, `Bearer ${key},${key}`, `Bearer "${key}"`]) {
        assert.equal(code(await me(app, undefined, { Authorization })),
          '401 UNAUTHENTICATED', Authorization.slice(0, 20));
      }
      /* the token of a session is no key */
      assert.equal((await me(app, undefined, { 'X-Api-Key': ada.token }))
        .status, 401);
      /* of two the one of the older header counts, good or bad */
      assert.equal((await me(app, ada.token, { 'X-Api-Key': key })).status,
        200);
      assert.equal((await me(app, 'nonsense', { 'X-Api-Key': key })).status,
        401);
    });

    test('what is forged is refused, and asks nothing', async () => {
      const { key } = await make(app, ada);
      const { id, secret, mac } = parts(key);
      const flip = (bytes) => Buffer.from(bytes.map((b, i) =>
        i === 3 ? b ^ 1 : b));
      const was = await settled(app, 'key_lookups');

      for (const text of [
        forge(app, { id, secret: flip(secret), mac }),
        forge(app, { id: flip(id), secret, mac }),
        forge(app, { id, secret, mac: flip(mac) }),
        forge(app, { id, secret, mac: Buffer.alloc(12) }),
        `stoa_sk_${key.slice(8).toUpperCase()}`, key.slice(0, -1), `${key}a`,
        'stoa_sk_', `stoa_sk_${'1'.repeat(96)}`, `stoa_sk_${'a'.repeat(5000)}`,
      ]) {
        const res = await me(app, text);

        /* from the fifth on, whoever tries many of them waits */
        assert.match(code(res), /^401 UNAUTHENTICATED|^429 RATE_LIMITED/);
      }

      const res = await me(app, forge(app, { mac }));

      assert.equal(code(res), '429 RATE_LIMITED');
      assert.ok(Number(res.headers['retry-after']) > 100, res.text);
      assert.equal(await settled(app, 'key_lookups'), was);

      /* but what was made here is heard, from the same address */
      assert.equal((await me(app, key)).status, 200);
      assert.equal((await me(app, ada.token)).status, 200);

      /* and a hit is not taken for its id alone */
      const wrong = await me(app, forge(app, { id, secret: flip(secret) }));

      assert.equal(wrong.status, 401);
      assert.equal((await me(app, key)).status, 200);
    });

    test('a right MAC of no key costs one question, and is none', async () => {
      const was = await settled(app, 'key_lookups');
      const text = forge(app);

      for (let i = 0; i < 5; i++) {
        assert.equal(code(await me(app, text)), '401 UNAUTHENTICATED');
      }
      const more = await settled(app, 'key_lookups') - was;

      assert.ok(more >= 1 && more <= nginxWorkers, `${more} questions`);
    });

    test('a crowd with one key is one question for each process', async () => {
      const { key } = await make(app, ada);
      const was = await settled(app, 'key_lookups');
      const all = await everywhere(key, 120);

      assert.ok(all.every(({ status, data }) => status === 200
        && data.id === ada.id));
      const more = await settled(app, 'key_lookups') - was;

      assert.ok(more >= 1 && more <= nginxWorkers, `${more} questions`);
    });

    test('a client that leaves while its key is looked up', async () => {
      const { key } = await make(app, ada);

      await app.sql(`alter function api.key_look(uuid, bytea)
        rename to key_look_real`);
      await app.sql(`create function api.key_look(id uuid, secret bytea)
        returns table (state text, user_id uuid, roles text[], epoch int,
          scopes text, expires_ms bigint, used_ms bigint, mfa boolean)
        language plpgsql security definer set search_path = pg_catalog
        as $$ begin perform pg_sleep(1);
          return query select * from api.key_look_real($1, $2); end $$`);
      await app.sql(`alter function api.key_look(uuid, bytea)
        owner to stoa_owner`);
      await app.sql(`grant execute on function api.key_look(uuid, bytea)
        to stoa_edge`);
      try {
        const stays = me(app, key);

        await Promise.all(Array.from({ length: 20 }, (_, i) => {
          const gone = new AbortController();

          setTimeout(() => gone.abort(), 10 * i);
          return assert.rejects(app.api('GET', ME,
            { token: key, signal: gone.signal }));
        }));
        assert.equal((await stays).status, 200);
        assert.ok((await everywhere(key)).every((r) => r.status === 200));
      } finally {
        await app.sql('drop function api.key_look(uuid, bytea)');
        await app.sql(`alter function api.key_look_real(uuid, bytea)
          rename to key_look`);
      }
      assert.equal((await me(app, key)).status, 200);
    });

    test('revoked: at once here, within a second elsewhere', async () => {
      const there = (key) => me(app, key, {}, 1);

      for (let i = 0; i < 3; i++) {
        const { id, key } = await make(app, ada);

        assert.ok((await everywhere(key)).every((r) => r.status === 200));
        assert.equal((await there(key)).status, 200);

        /* the second time without Redis: the database's word must do */
        if (i === 1) await app.redisProc.stop('SIGKILL');
        if (i === 2) await app.startRedis();
        assert.equal((await app.api('DELETE', `${KEYS}/${id}`,
          { token: ada.token })).status, 200);

        const at = Date.now();

        assert.deepEqual(new Set((await everywhere(key)).map(code)),
          new Set(['401 TOKEN_REVOKED']));
        await until(async () => code(await there(key))
          === '401 TOKEN_REVOKED', { timeout: 2500 * SLOW,
          what: 'the other node to know' });
        assert.ok(Date.now() - at < 2500 * SLOW);
        assert.equal(code(await app.api('DELETE', `${KEYS}/${id}`,
          { token: ada.token })), '404 NOT_FOUND');
      }
    });

    test('it is its owner: what he is becomes what it may', async () => {
      const eve = await app.user();
      const root = await app.user('admin');
      const { key } = await make(app, eve);
      const mine = () => everywhere(key, 12).then(() => app.barrier(12,
        () => ({ method: 'GET', path: '/api/v1/events/mine', token: key })))
        .then((all) => [...new Set(all.map(code))]);
      const roles = async (list) => must(await app.api('PUT',
        `/api/v1/users/${eve.id}/roles`,
        { token: root.token, body: { roles: list } }), 200);
      const status = async (to) => must(await app.api('PATCH',
        `/api/v1/users/${eve.id}/status`,
        { token: root.token, body: { status: to } }), 200);

      assert.deepEqual(await mine(), ['403 FORBIDDEN']);
      await roles(['organizer']);
      assert.deepEqual(await mine(), ['200']);
      await roles([]);
      assert.deepEqual(await mine(), ['403 FORBIDDEN']);
      /* who only changes what opens the door elsewhere keeps his keys */
      must(await app.api('POST', '/api/v1/auth/change-password', {
        token: (await app.api('POST', '/api/v1/auth/login', { body: {
          email: eve.email, password: eve.password } })).data.accessToken,
        body: { currentPassword: eve.password,
          newPassword: 'quite another password' } }), 200);
      assert.deepEqual(await mine(), ['403 FORBIDDEN']);
      await status('suspended');
      assert.deepEqual(await mine(), ['401 TOKEN_REVOKED']);
      await status('active');
      await until(async () => (await me(app, key)).status === 200,
        { timeout: 15000 * SLOW, what: 'the key to work again' });
    });

    test('one\'s own keys, and nobody else\'s', async () => {
      const { id, key } = await make(app, ada);
      const root = await app.user('admin');
      const stranger = { token: bob.token };

      assert.deepEqual((await app.api('GET', KEYS, stranger)).data, []);
      assert.deepEqual((await app.api('GET', `${KEYS}?ownerId=${ada.id}`,
        stranger)).data, []);
      assert.equal((await app.api('GET', `${KEYS}?ownerId=${ada.id}`,
        { token: root.token })).data[0].id, id);
      assert.equal(code(await app.api('DELETE', `${KEYS}/${id}`, stranger)),
        '404 NOT_FOUND');
      assert.equal(code(await app.api('POST', `${KEYS}/${id}/rotate`,
        { ...stranger, body: {} })), '404 NOT_FOUND');
      /* an admin has no key of a person made, nor made anew */
      assert.equal(code(await app.api('POST', `${KEYS}/${id}/rotate`,
        { token: root.token, body: {} })), '404 NOT_FOUND');
      for (const token of [root.token, bob.token]) {
        const res = await app.api('POST', KEYS, { token, body: {
          name: 'Trojan', scopes: ['*'], ownerId: ada.id } });

        assert.equal(res.error.errors[0].pointer, '/ownerId', res.text);
      }
      /* a key makes, lists and ends none */
      for (const [method, at] of [['GET', KEYS], ['POST', KEYS],
        ['POST', `${KEYS}/${id}/rotate`], ['DELETE', `${KEYS}/${id}`]]) {
        assert.equal(code(await app.api(method, at, { token: key,
          body: method === 'POST' ? { name: 'x', scopes: ['*'] }
            : undefined })), '403 KEY_FORBIDDEN');
      }
      /* but ends one that leaked */
      assert.equal((await app.api('DELETE', `${KEYS}/${id}`,
        { token: root.token })).status, 200);
      assert.equal(code(await me(app, key)), '401 TOKEN_REVOKED');
    });

    test('in front of other software: keys for everything only', async () => {
      const own = await boot({ workers: 0, nginxWorkers, nginx: {
        server: `
        location /legacy/ {
            stoa_auth required;
            add_header X-Who "$stoa_user $stoa_key|$stoa_session|";
            alias ${ROOT}/conf/www/kit/;
        }` } });

      try {
        const eve = await own.user();
        const root = await own.user('admin');
        const all = await make(own, eve);
        const some = await make(own, eve, { scopes: ['*:read'] });
        const get = (token) => own.api('GET', '/legacy/mark.svg',
          { token, validate: false });
        const res = await get(all.key);

        assert.equal(res.status, 200);
        assert.equal(res.headers['x-who'], `${eve.id} ${all.id}||`);
        assert.equal(code(await get(some.key)), '403 KEY_FORBIDDEN');
        assert.equal(code(await get(forge(own))), '401 UNAUTHENTICATED');

        const { accessToken } = must(await own.api('POST',
          `/api/v1/admin/users/${eve.id}/impersonate`,
          { token: root.token, body: { reason: 'a test' } }), 200).data;

        assert.equal(code(await get(accessToken)),
          '403 IMPERSONATION_FORBIDDEN');
      } finally {
        await own.stop();
      }
    });
  });
}

describe('one by one', () => {
  let app, ada;

  before(async () => {
    app = await boot({ workers: 0, nginxWorkers: 1 });
    ada = await app.user();
  });
  after(() => app?.stop());

  /* Tokens do not live as long as the clock is moved here. */
  const again = async (user) => {
    user.token = must(await app.api('POST', '/api/v1/auth/login', { body: {
      email: user.email, password: user.password } }), 200).data.accessToken;
    return user;
  };
  const rotate = (user, id, body = {}) => app.api('POST',
    `${KEYS}/${id}/rotate`, { token: user.token, body });

  test('what is wrong with a wish for a key', async () => {
    const ask = async (body) => (await app.api('POST', KEYS,
      { token: ada.token, body })).error?.errors?.map((e) => e.pointer);

    assert.deepEqual(await ask({ scopes: ['*'] }), ['/name']);
    assert.deepEqual(await ask({ name: 'x' }), ['/scopes']);
    assert.deepEqual(await ask({ name: 'x', scopes: [] }), ['/scopes']);
    assert.deepEqual(await ask({ name: 'x', scopes: ['events:read',
      'auth:write', 'events:*', '', 'Events:read', 'events:read ',
      '\\u002a'] }), ['/scopes/3']);
    assert.deepEqual(await ask({ name: 'x', scopes: ['events:read',
      'auth:write', 'events:*', 'Events:read', '\\u002a', 'events:read *'] }),
    ['/scopes/1', '/scopes/2', '/scopes/3', '/scopes/4', '/scopes/5']);
    assert.deepEqual(await ask({ name: 'x', scopes: ['*'],
      expiresInDays: 366 }), ['/expiresInDays']);
    assert.deepEqual(await ask({ name: 'x', scopes: ['*'],
      expiresInDays: 0 }), ['/expiresInDays']);
    await app.sql(`select app.settings_put('{"api_key_max_ttl": "30d"}')`);
    assert.deepEqual(await ask({ name: 'x', scopes: ['*'],
      expiresInDays: 31 }), ['/expiresInDays']);

    const { createdAt, expiresAt } = await make(app, ada);

    assert.equal(Date.parse(expiresAt) - Date.parse(createdAt), 30 * 24 * HOUR,
      'no longer than the longest');
    await app.sql(`select app.settings_put('{"api_key_max_ttl": "365d"}')`);
  });

  test('ninety days unless said otherwise; each scope once', async () => {
    const made = await make(app, ada,
      { scopes: ['orders:read', 'events:read', 'orders:read'] });

    assert.equal(Date.parse(made.expiresAt) - Date.parse(made.createdAt),
      90 * 24 * HOUR);
    assert.deepEqual(made.scopes, ['events:read', 'orders:read']);
  });

  test('twenty live ones, and the next when one has ended', async () => {
    const eve = await app.user();
    const all = [];

    for (let i = 0; i < 20; i++) all.push(await make(app, eve));
    const more = () => app.api('POST', KEYS, { token: eve.token,
      body: { name: 'x', scopes: ['*'] } });

    assert.equal(code(await more()), '409 TOO_MANY_KEYS');
    await app.api('DELETE', `${KEYS}/${all[7].id}`, { token: eve.token });
    assert.equal((await more()).status, 201);
    assert.equal(code(await more()), '409 TOO_MANY_KEYS');
  });

  test('many at once do not get past the twentieth', async () => {
    const eve = await app.user();
    const all = await app.barrier(40, () => ({ method: 'POST', path: KEYS,
      token: eve.token, body: { name: 'x', scopes: ['*'] } }));

    assert.equal(all.filter(({ status }) => status === 201).length, 20);
    assert.ok(all.every((r) => ['201', '409 TOO_MANY_KEYS']
      .includes(code(r))));
  });

  test('expired: to the second, also where it was remembered', async () => {
    const { key } = await make(app, ada, { expiresInDays: 1 });

    assert.equal((await me(app, key)).status, 200);
    await app.clock.advance(24 * HOUR - 5000);
    assert.equal((await me(app, key)).status, 200);
    await app.clock.advance(6000);
    assert.equal(code(await me(app, key)), '401 TOKEN_EXPIRED');
    await app.clock.advance(HOUR);
    assert.equal(code(await me(app, key)), '401 TOKEN_EXPIRED');
    /* the database does not say otherwise when it is asked anew */
    await app.clock.advance(24 * HOUR);
    assert.equal(code(await me(app, key)), '401 TOKEN_EXPIRED');
  });

  test('rotation: both live for a while, then the new one', async () => {
    await again(ada);

    const first = await make(app, ada, { scopes: ['users:read'],
      expiresInDays: 10 });

    await app.clock.advance(60000);

    const second = must(await rotate(ada, first.id), 201).data;

    assert.deepEqual([second.name, second.scopes, second.rotatedFrom,
      second.ownerId], [first.name, first.scopes, first.id, ada.id]);
    assert.equal(Date.parse(second.expiresAt) - Date.parse(second.createdAt),
      10 * 24 * HOUR, 'as long as the first');
    assert.notEqual(second.key.slice(8, 16), first.key.slice(8, 16));

    for (const { key } of [first, second]) {
      assert.equal((await me(app, key)).status, 200);
    }

    const { data: list } = await app.api('GET', KEYS, { token: ada.token });
    const old = list.find(({ id }) => id === first.id);

    assert.equal(old.replacedBy, second.id);
    assert.equal(Date.parse(old.expiresAt) - Date.parse(second.createdAt),
      24 * HOUR);

    /* two live: neither is rotated until one of them has ended */
    for (const { id } of [first, second]) {
      assert.equal(code(await rotate(ada, id)), '409 INVALID_STATE');
    }
    await app.clock.advance(24 * HOUR - 60000);
    await again(ada);
    assert.equal((await me(app, first.key)).status, 200);
    await app.clock.advance(61000);
    assert.equal(code(await me(app, first.key)), '401 TOKEN_EXPIRED');
    assert.equal((await me(app, second.key)).status, 200);
    assert.equal(code(await rotate(ada, first.id)), '404 NOT_FOUND');

    const third = must(await rotate(ada, second.id, { overlapHours: 0,
      expiresInDays: 2 }), 201).data;

    assert.equal(code(await me(app, second.key)), '401 TOKEN_REVOKED');
    assert.equal((await me(app, third.key)).status, 200);
    assert.equal(Date.parse(third.expiresAt) - Date.parse(third.createdAt),
      2 * 24 * HOUR);
  });

  test('what is made and rotated in a day is bounded, by its owner',
    async () => {
      const busy = await app.user();
      let key = await make(app, busy);
      let res, n = 1;

      for (; n < 60; n++) {
        res = await rotate(busy, key.id, { overlapHours: 0 });
        if (res.status !== 201) break;
        key = res.data;
      }
      assert.equal(n, 50);
      assert.equal(code(res), '409 TOO_MANY_NEW_KEYS');
      assert.equal(code(await app.api('POST', KEYS, { token: busy.token,
        body: { name: 'Robot', scopes: ['*'] } })), '409 TOO_MANY_NEW_KEYS');
      assert.equal((await me(app, key.key)).status, 200, 'the last one lives');
      await make(app, await app.user());

      await app.clock.advance(24 * HOUR + 1000);
      await again(busy);
      must(await rotate(busy, key.id, { overlapHours: 0 }), 201);
    });

  test('edges are told of its end as long as they may remember it, and the '
    + 'end holds', async () => {
    await again(ada);

    const { id, key } = await make(app, ada);

    assert.equal((await me(app, key)).status, 200);
    must(await app.api('DELETE', `${KEYS}/${id}`, { token: ada.token }), 200);
    assert.equal(code(await me(app, key)), '401 TOKEN_REVOKED');
    assert.equal(await app.value(`select extract(epoch from
        r.expires_at - r.at)::int from app.revocations r
      where r.entry like 'sid ' || $1 || ' %'`, [id]), 300);

    await app.clock.advance(301000);
    await app.nginx.stop();
    await app.nginx.start();
    assert.equal(code(await me(app, key)), '401 TOKEN_REVOKED');
  });

  test('a lost successor is revoked, and the old one rotated anew',
    async () => {
      await again(ada);

      const first = await make(app, ada);
      const lost = must(await rotate(ada, first.id), 201).data;

      await app.api('DELETE', `${KEYS}/${lost.id}`, { token: ada.token });
      const next = must(await rotate(ada, first.id), 201).data;

      assert.equal((await me(app, first.key)).status, 200);
      assert.equal((await me(app, next.key)).status, 200);
      assert.equal(code(await me(app, lost.key)), '401 TOKEN_REVOKED');
    });

  test('last used: once a minute, and not by the request', async () => {
    await again(ada);

    const { id, key } = await make(app, ada);
    const used = async () => (await app.sql(`select last_used_at as at,
      last_used_ip as ip from app.api_keys where id = $1`, [id]))[0];

    assert.equal((await used()).at, null);
    await me(app, key);
    await until(async () => (await used()).at,
      { timeout: 5000 * SLOW, what: 'the first use' });

    const { at, ip } = await used();

    assert.equal(ip, '127.0.0.1');
    await app.clock.advance(30000);
    await me(app, key);
    await sleep(2500);
    assert.deepEqual(await used(), { at, ip });
    await app.clock.advance(31000);
    await me(app, key);
    await until(async () => (await used()).at > at,
      { timeout: 5000 * SLOW, what: 'the next use' });
    assert.ok((await used()).at - at >= 59000);
    assert.ok((await app.api('GET', KEYS, { token: ada.token })).data
      .find((k) => k.id === id).lastUsedAt);
  });

  test('what is done by a key says so in the audit log', async () => {
    const org = await app.user('organizer');
    const root = await app.user('admin');
    const { id, key } = await make(app, org, { scopes: ['events:write',
      'orders:write', 'checkin:write'] });
    const event = await app.event({ token: key }, { types: [
      { priceCents: 0, quota: 9 }] });
    const [ticket] = await app.freeTickets({ token: key }, event.types[0].id);

    must(await app.validate(key, ticket.code), 200);
    must(await app.validate(key, ticket.code), 200);

    const { data } = await app.api('GET',
      `/api/v1/admin/audit?apiKey=${id}&limit=100`, { token: root.token });
    const did = new Set(data.map(({ action }) => action));

    for (const action of ['event.create', 'ticket_type.create',
      'event.publish', 'order.create', 'ticket.scan']) {
      assert.ok(did.has(action), `${action} in ${[...did]}`);
    }
    for (const row of data) {
      assert.deepEqual([row.actorId, row.actorKind, row.apiKeyId,
        row.actingAs], [org.id, 'person', id, null]);
    }
    assert.deepEqual(await app.sql(`select id from app.audit_log a
      where not app.audit_whole(a)`), []);
  });
});

describe('two live keys of a family', () => {
  const race = async (app) => {
    const eve = await app.user();
    const { id } = await make(app, eve);
    const all = await app.barrier(12, () => ({ method: 'POST',
      path: `${KEYS}/${id}/rotate`, token: eve.token, body: {} }));
    const live = await app.value(`select count(*)::int from api.acl_api_key
      where user_id = $1`, [eve.id]);

    assert.deepEqual(all.map(code).sort(), ['201',
      ...Array(11).fill('409 INVALID_STATE')]);
    assert.equal(live, 2);
  };

  test('whoever rotates at the same time: one does', async () => {
    const app = await boot({ workers: 0, nginxWorkers: 4 });

    try {
      for (let i = 0; i < ROUNDS; i++) await race(app);
    } finally {
      await app.stop();
    }
  });

  test('and is seen to fail without its guard', async () => {
    const app = await boot({ workers: 0, nginxWorkers: 4 });
    const text = (file) => fs.readFileSync(file, 'utf8').replace(
      /^\\ir (\S+)$/gm, (_, name) =>
        text(path.join(path.dirname(file), name)));
    let broke = false;

    try {
      await app.sql(text(path.join(ROOT, 't/unguarded/key_rotate.sql')));
      for (let i = 0; i < 5 && !broke; i++) {
        await race(app).catch((error) => {
          if (error.code !== 'ERR_ASSERTION') throw error;
          broke = true;
        });
      }
    } finally {
      await app.stop();
    }
    assert.ok(broke, 'the race was not seen although nothing guards it');
  });
});
