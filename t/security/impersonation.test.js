/*
 * An admin in an account's name: the token says who acts (RFC 8693 4.1), and
 * so does every audit row; it is short, is not renewed, and ends with the
 * admin's session, role or account and with the other account's; what it may
 * not do is nowhere done (the rows are walked in t/derived/keys.test.js).
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import * as jose from 'jose';
import { boot } from '../harness/index.js';
import { must } from '../harness/fixtures.js';

const USERS = '/api/v1/users';
const code = (res) => `${res.status} ${res.error?.code ?? ''}`.trim();

for (const nginxWorkers of [1, 4]) {
  describe(`${nginxWorkers} nginx workers`, () => {
    let app;

    before(async () => {
      app = await boot({ workers: 0, nginxWorkers });
    });
    after(() => app?.stop());

    const act = (admin, whom, body = { reason: 'She asked for help' }) =>
      app.api('POST', `/api/v1/admin/users/${whom.id}/impersonate`,
        { token: admin.token, body });
    const acting = async (admin, whom) =>
      must(await act(admin, whom), 200).data.accessToken;
    const everywhere = async (token) => [...new Set((await app.barrier(12,
      () => ({ method: 'GET', path: '/api/v1/auth/check', token })))
      .map(code))];
    const admins = async (n = 1) => {
      const all = [];

      for (let i = 0; i < n; i++) all.push(await app.user('admin'));
      return all;
    };
    const put = (by, whom, roles) => app.api('PUT',
      `${USERS}/${whom.id}/roles`, { token: by.token, body: { roles } });
    const suspend = (by, whom) => app.api('PATCH',
      `${USERS}/${whom.id}/status`,
      { token: by.token, body: { status: 'suspended' } });

    test('the token, and who it says one is', async () => {
      const [root] = await admins();
      const ada = await app.user('organizer');
      const { data } = must(await act(root, ada), 200);

      assert.deepEqual(Object.keys(data).sort(), ['accessToken', 'actingAs',
        'expiresAt', 'expiresIn', 'tokenType', 'user']);
      assert.deepEqual([data.user.id, data.actingAs, data.expiresIn],
        [ada.id, root.id, 900]);

      const { payload } = await jose.jwtVerify(data.accessToken,
        new TextEncoder().encode(app.conf.JWT_SECRET),
        { issuer: 'stoa', audience: 'stoa', typ: 'at+jwt' });

      assert.deepEqual([payload.sub, payload.act.sub, payload.roles,
        payload.exp - payload.iat], [ada.id, root.id,
        ['organizer', 'member'], 900]);

      const token = data.accessToken;
      const check = must(await app.api('GET', '/api/v1/auth/check',
        { token }), 200).data;

      assert.deepEqual([check.userId, check.actingAs, check.sessionId],
        [ada.id, root.id, undefined]);
      const me = must(await app.api('GET', `${USERS}/me`, { token }), 200);

      assert.deepEqual([me.data.id, me.data.actingAs], [ada.id, root.id]);
      /* what a browser keeps of one is not known of the other */
      const own = await app.api('GET', `${USERS}/me`, { token: ada.token,
        headers: { 'If-None-Match': me.headers.etag } });

      assert.deepEqual([own.status, own.data.actingAs], [200, undefined]);
      assert.equal((await app.api('GET', `${USERS}/me`,
        { token: root.token })).data.actingAs, undefined);
      /* none of the sessions that she is shown is this one */
      const { data: sessions } = await app.api('GET', '/api/v1/auth/sessions',
        { token });

      assert.ok(sessions.length >= 1 && sessions.every((s) => !s.current));
    });

    test('what is done is hers, and the admin\'s', async () => {
      const [root] = await admins();
      const ada = await app.user('organizer');
      const token = await acting(root, ada);

      must(await app.api('PATCH', `${USERS}/me`,
        { token, body: { phone: '+420 123' } }), 200);
      const event = await app.event({ token }, { types: [{}] });

      assert.equal(event.organizerId, ada.id);

      const { data } = await app.api('GET',
        `/api/v1/admin/audit?actingAs=${root.id}&limit=100`,
        { token: root.token });
      const did = new Set(data.map(({ action }) => action));

      for (const action of ['user.update', 'event.create',
        'ticket_type.create', 'event.publish']) {
        assert.ok(did.has(action), `${action} in ${[...did]}`);
      }
      for (const row of data) {
        assert.deepEqual([row.actorId, row.actingAs], [ada.id, root.id]);
      }
      /* that it began is the admin's own */
      assert.deepEqual(await app.sql(`select actor, acting_as, changes
        from app.audit_log where action = 'user.impersonate'
          and resource_id = $1`, [ada.id]), [{ actor: root.id,
        acting_as: null, changes: { reason: 'She asked for help' } }]);
      assert.deepEqual(await app.sql(`select from app.audit_log a
        where not app.audit_whole(a)`), []);
    });

    test('money, passwords, addresses, keys and rights are not', async () => {
      const [root] = await admins();
      const ada = await app.user('organizer');
      const token = await acting(root, ada);
      const event = await app.event(ada,
        { types: [{ priceCents: 0, quota: 5 }] });
      const was = await app.value('select count(*)::int from app.audit_log');

      for (const [method, at, body] of [
        ['POST', '/api/v1/orders', { items: [
          { ticketTypeId: event.types[0].id, quantity: 1 }] }],
        ['POST', `/api/v1/events/${event.id}/cancel`, {}],
        ['POST', '/api/v1/auth/change-password', { currentPassword:
          ada.password, newPassword: 'another good password' }],
        ['POST', `${USERS}/me/email`, { newEmail: 'x@test.example',
          password: ada.password }],
        ['POST', '/api/v1/auth/api-keys', { name: 'x', scopes: ['*'] }],
        ['GET', '/api/v1/auth/api-keys'],
        ['POST', '/api/v1/auth/logout', { all: true }],
        ['DELETE', '/api/v1/auth/sessions'],
        ['POST', '/api/v1/checkin/devices', { eventId: event.id,
          name: 'Door' }],
        ['POST', `/api/v1/events/${event.id}/staff`, { email: root.email }],
        ['PUT', `${USERS}/${ada.id}/roles`, { roles: ['admin'] }],
        ['POST', `/api/v1/admin/users/${ada.id}/impersonate`,
          { reason: 'again' }],
        ['POST', '/api/v1/auth/refresh', { refreshToken: ada.refreshToken }],
      ]) {
        const res = await app.api(method, at, { token, body });

        assert.equal(code(res), '403 IMPERSONATION_FORBIDDEN',
          `${method} ${at}`);
      }
      assert.equal(await app.value(
        'select count(*)::int from app.audit_log'), was);
      must(await app.api('GET', `${USERS}/me`, { token: ada.token }), 200);
    });

    test('of whom, and why', async () => {
      const [root, other] = await admins(2);
      const ada = await app.user();
      const org = await app.user('organizer');

      for (const whom of [root, other]) {
        assert.equal(code(await act(root, whom)),
          '403 IMPERSONATION_FORBIDDEN');
      }
      assert.equal(code(await act(root, { id: crypto.randomUUID() })),
        '404 NOT_FOUND');
      for (const by of [ada, org]) {
        assert.equal(code(await act(by, org)), '403 FORBIDDEN');
      }
      for (const body of [{}, { reason: '' }, { reason: '  ' },
        { reason: 'no' }, { reason: 'x'.repeat(301) }]) {
        assert.equal((await act(root, ada, body)).status, 400);
      }
      must(await suspend(root, ada), 200);
      assert.equal(code(await act(root, ada)), '409 INVALID_STATE');
    });

    test('a quarter of an hour, whatever ACCESS_TTL is', async () => {
      for (const [ttl, life] of [['60', 60], ['24h', 900]]) {
        const own = await boot({ workers: 0, nginxWorkers,
          conf: { ACCESS_TTL: ttl } });

        try {
          const root = await own.user('admin');
          const ada = await own.user();
          const { data } = must(await own.api('POST',
            `/api/v1/admin/users/${ada.id}/impersonate`,
            { token: root.token, body: { reason: 'a test' } }), 200);
          const check = () => own.api('GET', '/api/v1/auth/check',
            { token: data.accessToken });

          assert.equal(data.expiresIn, life);
          must(await check(), 200);
          await own.clock.advance((life + 31) * 1000);
          assert.equal(code(await check()), '401 TOKEN_EXPIRED');
        } finally {
          await own.stop();
        }
      }
    });

    /* Each way in which it must end, at once and in every process. */
    const ends = {
      'the admin signs out': ({ root }) => app.api('POST',
        '/api/v1/auth/logout', { token: root.token, body: {} }),
      'the admin signs out everywhere': ({ root }) => app.api('POST',
        '/api/v1/auth/logout', { token: root.token, body: { all: true } }),
      'the admin\'s session is ended from another': async ({ root }) => {
        const { accessToken } = must(await app.api('POST',
          '/api/v1/auth/login', { body: { email: root.email,
            password: root.password } }), 200).data;

        return app.api('DELETE', '/api/v1/auth/sessions',
          { token: accessToken });
      },
      'the admin changes the password elsewhere': async ({ root }) => {
        const { accessToken } = must(await app.api('POST',
          '/api/v1/auth/login', { body: { email: root.email,
            password: root.password } }), 200).data;

        return app.api('POST', '/api/v1/auth/change-password', {
          token: accessToken, body: { currentPassword: root.password,
            newPassword: 'another good password' } });
      },
      'the admin is none any more': ({ root, other }) =>
        put(other, root, ['support']),
      'the admin is suspended': ({ root, other }) => suspend(other, root),
      'the account is suspended': ({ ada, other }) => suspend(other, ada),
      'the account becomes an admin': ({ ada, other }) =>
        put(other, ada, ['admin']),
      'the account signs out everywhere': ({ ada }) => app.api('POST',
        '/api/v1/auth/logout', { token: ada.token, body: { all: true } }),
    };

    for (const [what, end] of Object.entries(ends)) {
      test(`it ends when ${what}`, async () => {
        const [root, other] = await admins(2);
        const ada = await app.user();
        const token = await acting(root, ada);

        assert.deepEqual(await everywhere(token), ['200']);
        must(await end({ root, other, ada }), 200);
        assert.deepEqual(await everywhere(token), ['401 TOKEN_REVOKED']);
        if (what.startsWith('the admin')) {
          must(await app.api('GET', '/api/v1/auth/check',
            { token: ada.token }), 200);
        }
      });
    }

    test('others go on when she signs out here', async () => {
      const [root] = await admins();
      const ada = await app.user();
      const token = await acting(root, ada);

      must(await app.api('POST', '/api/v1/auth/logout',
        { token: ada.token, body: {} }), 200);
      assert.deepEqual(await everywhere(token), ['200']);
    });

    test('an admin who was demoted a moment ago gets none', async () => {
      const [root, other] = await admins(2);
      const ada = await app.user();

      /* the gate has let him pass; the statement looks again */
      await app.sql(`update app.users set roles = '{member}'
        where id = $1`, [root.id]);
      assert.equal(code(await act(root, ada)), '401 TOKEN_REVOKED');
      must(await act(other, ada), 200);
    });

    test('an act that is wrongly made is no token', async () => {
      const ada = await app.user();
      const { payload } = await jose.jwtVerify(ada.token,
        new TextEncoder().encode(app.conf.JWT_SECRET));
      const sign = (act) => new jose.SignJWT({ ...payload, act })
        .setProtectedHeader({ alg: 'HS256', typ: 'at+jwt', kid: '1' })
        .sign(new TextEncoder().encode(app.conf.JWT_SECRET));
      const root = crypto.randomUUID();

      for (const act of [null, {}, [], true, 'admin', root, { sub: root },
        { ep: 1 }, { sub: root, ep: -1 }, { sub: root, ep: '1' },
        { sub: 'root', ep: 1 }, { act: { sub: root, ep: 1 } }]) {
        assert.equal(code(await app.api('GET', '/api/v1/auth/check',
          { token: await sign(act) })), '401 UNAUTHENTICATED',
        JSON.stringify(act));
      }
      must(await app.api('GET', '/api/v1/auth/check',
        { token: await sign({ sub: root, ep: 1 }) }), 200);
    });
  });
}
