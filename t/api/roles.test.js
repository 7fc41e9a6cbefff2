/*
 * What admins do with accounts: make them, people by invitation and programs
 * with keys; say what they are, suspend and restore them, which every edge
 * knows at once; and that nobody takes the last admin away, however many try.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ROOT, ROUNDS, SLOW, boot, until } from '../harness/index.js';
import { must } from '../harness/fixtures.js';

const USERS = '/api/v1/users';
const KEYS = '/api/v1/auth/api-keys';
const code = (res) => `${res.status} ${res.error?.code ?? ''}`.trim();
const fault = (res) => res.error?.errors?.map((e) =>
  `${e.pointer} ${e.code}`).join();

let app, root;

before(async () => {
  app = await boot({ workers: 1, nginxWorkers: 4 });
  root = await app.user('admin');
});
after(() => app?.stop());

const create = (body) => app.api('POST', USERS,
  { token: root.token, body });
const roles = (id, list, more = {}) => app.api('PUT', `${USERS}/${id}/roles`,
  { token: root.token, body: { roles: list }, ...more });
const status = (id, to, more = {}) => app.api('PATCH',
  `${USERS}/${id}/status`,
  { token: root.token, body: { status: to, ...more.body }, ...more.spec });
const login = ({ email, password }) => app.api('POST', '/api/v1/auth/login',
  { body: { email, password } });
const audit = (id, action) => app.sql(`select actor, changes
  from app.audit_log where resource_id = $1 and action = $2 order by id`,
[id, action]);

/* Every process answers some of these. */
const everywhere = async (token, at = '/api/v1/auth/check') =>
  [...new Set((await app.barrier(16, () => ({ method: 'GET', path: at,
    token }))).map(code))];

test('B-6: a person is made by an admin, and chooses the password',
  async () => {
    const email = `ada-${Date.now()}@test.example`;
    const made = must(await create({ email: email.toUpperCase(),
      firstName: 'Ada', lastName: 'Lovelace', roles: ['organizer'],
      preferredLanguage: 'de' }), 201);

    assert.deepEqual([made.data.kind, made.data.email, made.data.roles,
      made.data.emailVerified], ['person', email, ['organizer', 'member'],
      false]);
    assert.match(made.headers.etag, /^"1\.[0-9a-f]{12}"$/);
    assert.deepEqual(await audit(made.data.id, 'user.create'), [{
      actor: root.id, changes: { kind: 'person',
        roles: ['organizer', 'member'], granted_by: root.id } }]);

    /* nobody signs in without a password, and none is the empty one */
    for (const password of ['', 'null', 'password', ' ']) {
      assert.notEqual((await login({ email, password })).status, 200);
    }

    const mail = await app.mailTo(email, (m) =>
      m.text.includes('/account/reset/'));

    assert.match(mail.subject, /Wählen Sie ein Passwort/);
    assert.match(mail.text, /72 Stunden/);

    const token = mail.text.match(/token=([\w-]{43})/)[1];

    must(await app.api('POST', '/api/v1/auth/reset-password', { body: { token,
      newPassword: 'chosen by herself' } }), 200);
    const ada = must(await login({ email, password: 'chosen by herself' }),
      200).data;

    assert.equal(ada.user.emailVerified, true, 'the mail proved it');
    assert.equal(code(await create({ email, firstName: 'Eve' })),
      '409 EMAIL_TAKEN');
  });

test('what is wrong with a wish for an account', async () => {
  assert.equal(fault(await create({ firstName: 'x' })), '/email required');
  assert.equal(fault(await create({ kind: 'service', firstName: 'x',
    email: 'x@test.example' })), '/email not_allowed');
  assert.equal(fault(await create({ firstName: 'x', email: 'x@test.example',
    roles: ['emperor'] })), '/roles/0 not_allowed');
  assert.equal(fault(await create({ firstName: 'x', email: 'x@test.example',
    kind: 'robot' })), '/kind not_allowed');
  assert.equal(fault(await create({ email: 'x@test.example' })),
    '/firstName required');
  for (const more of ['status', 'emailVerified', 'password', 'id']) {
    assert.match(fault(await create({ firstName: 'x', email: 'x@test.example',
      [more]: 'active' })), new RegExp(`^/${more} unknown`), more);
  }
});

test('a service account: keys, no sign-in, and it is called one', async () => {
  const { id, email, kind } = must(await create({ kind: 'service',
    firstName: 'Turnstile', roles: ['scanner'] }), 201).data;

  assert.deepEqual([kind, email], ['service', null]);

  const made = must(await app.api('POST', KEYS, { token: root.token, body: {
    name: 'Gate', scopes: ['users:read', 'events:write', 'orders:write'],
    ownerId: id } }), 201).data;

  assert.equal(made.ownerId, id);

  const me = must(await app.api('GET', `${USERS}/me`, { token: made.key }),
    200).data;

  assert.deepEqual([me.id, me.kind, me.email, me.roles],
    [id, 'service', null, ['scanner', 'member']]);

  /* it takes part as everybody does, and nobody writes to it */
  const org = await app.user('organizer');
  const event = await app.event(org, { types: [{ priceCents: 0, quota: 5 }] });

  must(await app.order({ token: made.key }, event.types[0].id), 201);
  const [row] = must(await app.api('GET',
    `/api/v1/events/${event.id}/registrations?sort=email`,
    { token: org.token }), 200).data;

  assert.deepEqual([row.userId, row.email], [id, null]);
  must(await app.api('GET', `/api/v1/events/${event.id}/registrations.csv`,
    { token: org.token }), 200);
  must(await app.api('POST', `/api/v1/events/${event.id}/staff`,
    { token: root.token, body: { userId: id } }), 201);
  assert.equal((await app.api('GET', `/api/v1/events/${event.id}/staff`,
    { token: org.token })).data[0].email, null);
  await until(async () => !(await app.value(`select count(*)::int
    from queue.outbox where payload->>'order_id' in (
      select id::text from app.orders where buyer_id = $1)`, [id])),
  { timeout: 15000 * SLOW, what: 'the mail that is not sent' });
  assert.deepEqual(await app.sql(`select from queue.history h
    where h.state = 'dead'`), []);

  const { data: log } = await app.api('GET',
    `/api/v1/admin/audit?actor=${id}`, { token: root.token });

  assert.ok(log.length > 0);
  for (const one of log) {
    assert.deepEqual([one.actorKind, one.apiKeyId], ['service', made.id]);
  }

  /* its keys are its admins': another admin rotates and ends them */
  const other = await app.user('admin');
  const next = must(await app.api('POST', `${KEYS}/${made.id}/rotate`,
    { token: other.token, body: {} }), 201).data;

  assert.equal((await app.api('GET', `${KEYS}?ownerId=${id}`,
    { token: other.token })).data.length, 2);
  assert.equal((await app.api('DELETE', `${KEYS}/${next.id}`,
    { token: other.token })).status, 200);

  /* the database holds that it has neither address nor password */
  for (const set of [`email = 'x@test.example'`, `password_hash = 'x'`,
    `pending_email = 'x@test.example'`]) {
    await assert.rejects(app.sql(`update app.users set ${set}
      where id = $1`, [id]), { code: '23514' });
  }
  assert.equal(code(await app.api('POST',
    `/api/v1/admin/users/${id}/impersonate`,
    { token: root.token, body: { reason: 'a test' } })),
  '403 IMPERSONATION_FORBIDDEN');
});

test('a service account is no admin unless a setting says so', async () => {
  const wish = { kind: 'service', firstName: 'Root', roles: ['admin'] };
  const { id } = must(await create({ ...wish, roles: [] }), 201).data;

  assert.equal(fault(await create(wish)), '/roles not_allowed');
  assert.equal(fault(await roles(id, ['admin'])), '/roles not_allowed');
  await app.sql(`select app.settings_put('{"service_admin": "on"}')`);
  try {
    must(await create(wish), 201);
    must(await roles(id, ['admin']), 200);
  } finally {
    await app.sql(`select app.settings_put('{"service_admin": "off"}')`);
  }
  must(await roles(id, []), 200);
});

test('A-32: the list of accounts, searched and narrowed', async () => {
  const tag = `zoe${Date.now()}`;
  const list = async (query) => must(await app.api('GET',
    `${USERS}?${new URLSearchParams(query)}`, { token: root.token }), 200);
  const zoe = must(await create({ email: `${tag}@test.example`,
    firstName: 'Zoë', lastName: tag.toUpperCase(),
    roles: ['support'] }), 201).data;
  const robot = must(await create({ kind: 'service', firstName: tag }), 201)
    .data;

  assert.deepEqual((await list({ search: tag })).data.map(({ id }) => id),
    [robot.id, zoe.id]);
  assert.deepEqual((await list({ search: tag, sort: 'email' })).data
    .map(({ id }) => id), [robot.id, zoe.id]);
  assert.deepEqual((await list({ search: `ë ${tag}`, limit: 1 })).data
    .map(({ id }) => id), [zoe.id]);
  for (const [query, id] of [[{ role: 'support' }, zoe.id],
    [{ kind: 'service' }, robot.id], [{ kind: 'person' }, zoe.id]]) {
    assert.deepEqual((await list({ search: tag, ...query })).data
      .map((u) => u.id), [id]);
  }
  await status(zoe.id, 'suspended');
  assert.deepEqual((await list({ search: tag, status: 'suspended' })).data
    .map(({ id }) => id), [zoe.id]);
  /* what is typed is no pattern, and nothing of it is kept */
  assert.deepEqual((await list({ search: '%%' })).data, []);
  assert.deepEqual((await list({ search: '_o_' })).data, []);
  assert.deepEqual(await app.sql(`select from app.audit_log
    where action = 'users.viewed' and changes::text ~ $1`, [tag]), []);

  const first = await list({ search: tag, limit: 1 });
  const { nextCursor } = first.meta;

  assert.deepEqual((await list({ search: tag, limit: 1,
    cursor: nextCursor })).data.map(({ id }) => id), [zoe.id]);
  assert.equal(first.meta.total, 2);
});

test('roles: what was granted and taken, at once and everywhere',
  async () => {
    const eve = await app.user();
    const { headers } = await roles(eve.id, ['organizer', 'scanner']);

    assert.match(headers.etag, /^"2\.[0-9a-f]{12}"$/);
    /* the token says what is not so any more; its session lives on */
    assert.deepEqual(await everywhere(eve.token), ['401 TOKEN_REVOKED']);
    const fresh = must(await app.api('POST', '/api/v1/auth/refresh',
      { body: { refreshToken: eve.refreshToken } }), 200).data;

    assert.deepEqual(fresh.user.roles, ['organizer', 'scanner', 'member']);
    assert.deepEqual(await everywhere(fresh.accessToken,
      '/api/v1/events/mine'), ['200']);
    must(await roles(eve.id, ['scanner']), 200);
    assert.deepEqual(await everywhere(fresh.accessToken), [
      '401 TOKEN_REVOKED']);
    assert.deepEqual((await audit(eve.id, 'user.roles'))
      .map(({ actor, changes }) => [actor, changes]), [
      [root.id, { added: ['organizer', 'scanner'], removed: [],
        granted_by: root.id }],
      [root.id, { added: [], removed: ['organizer'], granted_by: root.id }],
    ]);

    /* the same once more is no change, and ends no token */
    const token = must(await login(eve), 200).data.accessToken;

    must(await roles(eve.id, ['scanner', 'member', 'scanner']), 200);
    assert.deepEqual(await everywhere(token), ['200']);
  });

test('a change is of the version that was looked at', async () => {
  const eve = await app.user();
  const stale = { headers: { 'If-Match': '"7"' } };

  assert.equal(code(await roles(eve.id, ['scanner'], stale)),
    '412 PRECONDITION_FAILED');
  assert.equal(code(await app.api('PATCH', `${USERS}/${eve.id}/status`,
    { token: root.token, body: { status: 'suspended' }, ...stale })),
  '412 PRECONDITION_FAILED');
  must(await roles(eve.id, ['scanner'],
    { headers: { 'If-Match': '"1"' } }), 200);
});

test('suspended: out at once, everywhere; restored by signing in',
  async () => {
    const eve = await app.user();
    const second = must(await login(eve), 200).data;

    must(await status(eve.id, 'suspended', { body: { reason: 'spam' } }),
      200);
    for (const token of [eve.token, second.accessToken]) {
      assert.deepEqual(await everywhere(token), ['401 TOKEN_REVOKED']);
    }
    for (const refreshToken of [eve.refreshToken, second.refreshToken]) {
      assert.equal(code(await app.api('POST', '/api/v1/auth/refresh',
        { body: { refreshToken } })), '401 REFRESH_INVALID');
    }
    assert.equal(code(await login(eve)), '401 INVALID_CREDENTIALS');
    assert.deepEqual((await audit(eve.id, 'user.status'))[0].changes,
      { from: 'active', to: 'suspended', reason: 'spam' });

    must(await status(eve.id, 'active'), 200);
    assert.equal(code(await app.api('POST', '/api/v1/auth/refresh',
      { body: { refreshToken: eve.refreshToken } })), '401 REFRESH_INVALID');
    must(await login(eve), 200);
    assert.equal(code(await status('00000000-0000-7000-8000-00000000dead',
      'active')), '404 NOT_FOUND');
    assert.equal(fault(await status(eve.id, 'deleted')), '/status not_allowed');
  });

/* ---- one admin must remain ---- */

describe('LAST_ADMIN', () => {
  /* Everybody takes everybody's role away, or the account. */
  async function race(on, how) {
    await on.sql(`update app.users set roles = '{member}'
      where 'admin' = any (roles)`);
    const admins = await Promise.all(Array.from({ length: 6 },
      () => on.user('admin')));
    const all = await on.barrier(30, (i) => how(admins[i % 6],
      admins[(i + 1 + i % 5) % 6], i));
    const left = await on.value(`select count(*)::int from app.users
      where 'admin' = any (roles) and status = 'active'`);

    assert.ok(all.every(({ status: s }) => [200, 401, 403, 409].includes(s)),
      all.map(code).join());
    assert.equal(left, 1);
  }

  const demote = (by, whom) => ({ method: 'PUT', token: by.token,
    path: `${USERS}/${whom.id}/roles`, body: { roles: ['organizer'] } });
  const suspend = (by, whom) => ({ method: 'PATCH', token: by.token,
    path: `${USERS}/${whom.id}/status`, body: { status: 'suspended' } });

  for (const nginxWorkers of [1, 4]) {
    test(`demoted, suspended, in parallel, ${nginxWorkers} nginx workers`,
      async () => {
        const on = await boot({ workers: 0, nginxWorkers });

        try {
          for (let i = 0; i < ROUNDS; i++) {
            await race(on, [demote, suspend, (by, whom, n) =>
              (n % 2 ? demote : suspend)(by, whom)][i % 3]);
          }
        } finally {
          await on.stop();
        }
      });
  }

  test('is seen to fail without its guard', async () => {
    const on = await boot({ workers: 0, nginxWorkers: 4 });
    const text = (file) => fs.readFileSync(file, 'utf8').replace(
      /^\\ir (\S+)$/gm, (_, name) =>
        text(path.join(path.dirname(file), name)));
    let broke = false;

    try {
      await on.sql(text(path.join(ROOT, 't/unguarded/last_admin.sql')));
      for (let i = 0; i < 5 && !broke; i++) {
        await race(on, demote).catch((error) => {
          if (error.code !== 'ERR_ASSERTION') throw error;
          broke = true;
        });
      }
    } finally {
      await on.stop();
    }
    assert.ok(broke, 'the race was not seen although nothing guards it');
  });

  test('the only one does not leave, nor does a program count', async () => {
    const on = await boot({ workers: 0, nginxWorkers: 1 });

    try {
      await on.sql(`select app.settings_put('{"service_admin": "on"}')`);

      const boss = await on.user('admin');
      const ask = (method, at, body) => on.api(method, `${USERS}${at}`,
        { token: boss.token, body });

      must(await ask('POST', '', { kind: 'service', firstName: 'Robot',
        roles: ['admin'] }), 201);
      assert.equal(code(await ask('PUT', `/${boss.id}/roles`,
        { roles: [] })), '409 LAST_ADMIN');
      assert.equal(code(await ask('PATCH', `/${boss.id}/status`,
        { status: 'suspended' })), '409 LAST_ADMIN');
      must(await ask('PATCH', `/${boss.id}/status`, { status: 'limited' }),
        200);
      must(await ask('PUT', `/${boss.id}/roles`, { roles: ['admin',
        'organizer'] }), 200);

      /* one who is suspended is none */
      const other = await on.user('admin');

      boss.token = must(await on.api('POST', '/api/v1/auth/login', { body: {
        email: boss.email, password: boss.password } }), 200).data
        .accessToken;
      must(await ask('PATCH', `/${other.id}/status`,
        { status: 'suspended' }), 200);
      assert.equal(code(await ask('PUT', `/${boss.id}/roles`,
        { roles: [] })), '409 LAST_ADMIN');
      must(await ask('PATCH', `/${other.id}/status`, { status: 'active' }),
        200);
      must(await ask('PUT', `/${boss.id}/roles`, { roles: [] }), 200);
    } finally {
      await on.stop();
    }
  });
});
