/*
 * GET /users/:id: what everybody sees of somebody, whoever asks, and who is not
 * shown; GET /admin/users/:id: what admins see, which leaves a trace.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';

let app, admin, org, member, other;

before(async () => {
  app = await boot({ workers: 0 });
  admin = await app.user('admin');
  org = await app.user('organizer',
    { firstName: 'Olga', lastName: 'Organizer' });
  member = await app.user('member',
    { firstName: 'Mara', lastName: 'Müller' });
  other = await app.user();
});
after(() => app?.stop());

const get = (id, token, extra = {}) =>
  app.api('GET', `/api/v1/users/${id}`, { token, ...extra });
const account = (id, token, extra = {}) =>
  app.api('GET', `/api/v1/admin/users/${id}`, { token, ...extra });
const status = (user, value) => app.sql(
  'update app.users set status = $2 where id = $1', [user.id, value]);

const PROFILE = ['createdAt', 'firstName', 'id', 'lastName', 'name', 'role'];

function refused(res, code, name) {
  assert.equal(res.status, code, res.text);
  assert.equal(res.error.code, name, res.text);
}

test('anybody sees the profile, and no more than the profile', async () => {
  for (const token of [undefined, other.token, org.token, admin.token,
    member.token]) {
    const { data } = await get(member.id, token);

    assert.deepEqual(Object.keys(data).sort(), PROFILE);
    assert.equal(data.id, member.id);
    assert.equal(data.firstName, 'Mara');
    assert.equal(data.lastName, 'M.');
    assert.equal(data.name, 'Mara M.');
    assert.equal(data.role, 'member');
  }
});

test('an organizer has a whole name, other roles do not show', async () => {
  const { data } = await get(org.id);

  assert.deepEqual(Object.keys(data).sort(), PROFILE);
  assert.equal(data.name, 'Olga Organizer');
  assert.equal(data.role, 'organizer');
  assert.equal((await get(admin.id)).data.role, 'member');
});

test('admins see the account, and the audit log says so', async () => {
  const me = (await app.api('GET', '/api/v1/users/me',
    { token: member.token }));
  const res = await account(member.id, admin.token);

  assert.deepEqual(res.data, me.data);
  assert.equal(res.headers.etag, me.headers.etag);
  assert.equal(res.headers['cache-control'], 'no-store');
  assert.doesNotMatch(res.text, /hash|argon2/i);
  assert.deepEqual(await app.sql(`select actor, action from app.audit_log
    where resource_id = $1::text and action like 'user.viewed'`, [member.id]),
  [{ actor: admin.id, action: 'user.viewed' }]);

  for (const token of [member.token, org.token]) {
    refused(await account(member.id, token), 403, 'FORBIDDEN');
  }
  refused(await account(member.id), 401, 'UNAUTHENTICATED');
});

test('a tag of the profile does not stand for the account', async () => {
  const { etag } = (await get(member.id)).headers;
  const again = { headers: { 'If-None-Match': etag } };

  assert.equal((await get(member.id, other.token, again)).status, 304);
  assert.equal((await account(member.id, admin.token, again)).status, 200);
});

test('who is suspended is shown to admins alone, who is deleted to nobody',
  async () => {
    const gone = await app.user();

    for (const [value, seen] of [['limited', [200, 200]],
      ['suspended', [404, 200]], ['deleted', [404, 404]]]) {
      await status(gone, value);
      for (const token of [undefined, other.token, org.token, admin.token]) {
        assert.equal((await get(gone.id, token)).status, seen[0], value);
      }
      assert.equal((await account(gone.id, admin.token)).status, seen[1],
        value);
    }
    refused(await get(gone.id), 404, 'NOT_FOUND');
  });

test('nobody is 404, no id is 400, another method 405', async () => {
  refused(await get('00000000-0000-7000-8000-00000000dead'), 404,
    'NOT_FOUND');
  refused(await get('somebody'), 400, 'VALIDATION_FAILED');
  const res = await app.api('DELETE', `/api/v1/users/${member.id}`,
    { token: member.token, validate: false });

  refused(res, 405, 'METHOD_NOT_ALLOWED');
  assert.equal(res.headers.allow, 'GET, HEAD, OPTIONS');
});
