/*
 * Who ends sessions and keys until the shared table of revocations is full:
 * every token is refused then, rather than one that was revoked let in; but
 * devices at doors have no other token, and go on.  How long each entry stays
 * is what fills the table.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { boot, until } from '../harness/index.js';
import { must } from '../harness/fixtures.js';

const SLOTS = 5000; /* more than a zone of 640k has */

let app, org, event;

before(async () => {
  app = await boot({ workers: 0, conf: { ACCESS_TTL: '20m' },
    allowLog: [/the zone is full of revocations/],
    nginx: { replace: [['stoa_zone main:16m;', 'stoa_zone main:640k;']] } });
  org = await app.user('organizer');
  event = await app.event(org);
});
after(() => app?.stop());

const check = async (token) => {
  const res = await app.api('GET', '/api/v1/checkin/snapshot', { token });

  return `${res.status} ${res.error?.code ?? ''}`.trim();
};
const me = async (token) => {
  const res = await app.api('GET', '/api/v1/auth/check', { token });

  return `${res.status} ${res.error?.code ?? ''}`.trim();
};

async function device({ pair = true } = {}) {
  const made = must(await app.api('POST', '/api/v1/checkin/devices', {
    token: org.token, body: { eventId: event.id, name: 'Door' } }), 201).data;

  if (!pair) return { id: made.deviceId };

  const { deviceToken } = must(await app.api('POST',
    '/api/v1/checkin/devices/login', { body: { code: made.pairingCode } }),
  200).data;

  return { id: made.deviceId, token: deviceToken };
}

const remove = async (id) => must(await app.api('DELETE',
  `/api/v1/checkin/devices/${id}`, { token: org.token }), 204);

/* As others left them an hour ago; an edge that starts reads them all. */
async function flood(kind) {
  await app.sql(`update app.revocations set at = at - interval '1 hour'`);
  await app.sql(`insert into app.revocations (entry, at, expires_at)
    select $1 || ' ' || gen_random_uuid() || ' '
        || app.ms(app.now() + interval '2 hours'),
      app.now() - interval '1 hour', app.now() + interval '2 hours'
    from generate_series(1, $2::int)`, [kind, SLOTS]);
  await app.nginx.stop();
  await app.nginx.start();
}

async function anew(user) {
  const { data } = must(await app.api('POST', '/api/v1/auth/login', { body: {
    email: user.email, password: user.password } }), 200);

  user.token = data.accessToken;
  return user.token;
}

test('a full table: everybody refreshes, devices go on, ended ones do not',
  async () => {
    const [user, gone] = [await app.user(), await app.user()];
    const [door, lost] = [await device(), await device()];

    await remove(lost.id);
    must(await app.api('POST', '/api/v1/auth/logout', { token: gone.token,
      body: {} }), 200);
    assert.equal(await check(door.token), '200');
    assert.equal(await me(user.token), '200');

    await flood('sid');
    assert.equal(await me(user.token), '401 TOKEN_REVOKED');
    assert.equal(await me(gone.token), '401 TOKEN_REVOKED');
    assert.equal(await check(door.token), '200');
    assert.equal(await check(lost.token), '401 TOKEN_REVOKED');
    await until(async () => await me(await anew(user)) === '200',
      { what: 'a token of the next second' });

    /* what comes after is told as ever */
    await anew(org);
    await remove(door.id);
    assert.equal(await check(door.token), '401 TOKEN_REVOKED');
  });

test('so many devices: then these, too', async () => {
  await until(async () => await me(await anew(org)) === '200',
    { what: 'a token that counts' });

  const door = await device();

  await flood('device');
  assert.equal(await check(door.token), '401 TOKEN_REVOKED');
  await until(async () => await me(await anew(org)) === '200',
    { what: 'a token of the next second' });

  /* and are paired again */
  await until(async () => await check((await device()).token) === '200',
    { what: 'a device of the next second' });
});

test('an entry stays as long as what it ends', async () => {
  const entry = (id) => app.value(`select split_part(r.entry, ' ', 1) || ' '
      || extract(epoch from r.expires_at - r.at)::int
    from app.revocations r where r.entry like '% ' || $1 || ' %'`, [id]);

  await app.sql('delete from app.revocations');
  await until(async () => await me(await anew(org)) === '200',
    { what: 'a token that counts' });

  /* ACCESS_TTL of the edge, which it has said */
  const user = await app.user();
  const sid = (await app.api('GET', '/api/v1/auth/check',
    { token: user.token })).data.sessionId;

  must(await app.api('POST', '/api/v1/auth/logout', { token: user.token,
    body: {} }), 200);
  assert.equal(await entry(sid), 'sid 1500');

  /* of an edge whose tokens live longer, and was heard within a day */
  await app.sql(`insert into app.access_ttls values
    (7200, app.now() - interval '25 hours')`);

  const other = await app.user();
  const second = (await app.api('GET', '/api/v1/auth/check',
    { token: other.token })).data.sessionId;

  must(await app.api('POST', '/api/v1/auth/logout', { token: other.token,
    body: {} }), 200);
  assert.equal(await entry(second), 'sid 7500');

  /* a device's as long as its token; none is said of one without */
  const [door, idle] = [await device(), await device({ pair: false })];

  await remove(door.id);
  await remove(idle.id);
  assert.match(await entry(door.id), /^device 7862[34]\d\d$/);
  assert.equal(await entry(idle.id) ?? null, null);
});
