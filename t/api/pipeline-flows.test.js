/*
 * The flows, each from end to end: accounts and sessions, scanner devices,
 * ticket images, new codes, the payment form, and what the server says about
 * itself.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { after, before, test } from 'node:test';
import jsQR from 'jsqr';
import { SECRETS, boot } from '../harness/index.js';

let app, alice, bob, olga, event, tickets;

before(async () => {
  app = await boot({ workers: 0 });
  [alice, bob, olga] = [await app.user(), await app.user(),
    await app.user('organizer')];
  event = await app.event(olga, {
    types: [{ priceCents: 0, quota: 500, maxPerOrder: 20 },
      { priceCents: 900, quota: 50 }],
  });
  tickets = await app.freeTickets(alice, event.types[0].id, 12);
});
after(() => app?.stop());

const auth = (path, body, extra) =>
  app.api('POST', `/api/v1/auth/${path}`, { body, ...extra });
const claims = (token) =>
  JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));

function refused(res, status, code) {
  assert.equal(res.status, status, res.text);
  assert.equal(res.error.code, code);
}

/* ---- accounts ---- */

test('an address can be registered once, in any case', async () => {
  const body = {
    email: 'Twice@Test.example', password: 'a long enough password',
    firstName: 'T', lastName: 'W',
  };

  assert.equal((await auth('register', body)).status, 201);
  refused(await auth('register', { ...body, email: 'tWICE@test.EXAMPLE' }),
    409, 'EMAIL_TAKEN');
});

test('of many registrations of one address one wins', async () => {
  const all = await app.barrier(8, () => ({
    method: 'POST', path: '/api/v1/auth/register',
    body: {
      email: 'race@test.example', password: 'a long enough password',
      first_name: 'R', last_name: 'C',
    },
  }));

  assert.equal(all.filter((res) => res.status === 201).length, 1);
  assert.equal(all.filter((res) => res.error?.code === 'EMAIL_TAKEN').length,
    7);
});

test('a wrong password and an unknown account look the same', async () => {
  const wrong = await auth('login',
    { email: bob.email, password: 'not this one' });
  const unknown = await auth('login',
    { email: 'nobody@test.example', password: 'not this one' });
  const same = (res) => {
    const { request_id: _, ...error } = res.error;

    return JSON.stringify([res.status, error, Object.keys(res.headers)]);
  };

  refused(wrong, 401, 'INVALID_CREDENTIALS');
  assert.equal(same(wrong), same(unknown));
  assert.equal(wrong.raw.length, unknown.raw.length);
});

test('a password is nowhere in an answer or a log', async () => {
  const secret = 'Sentinel-Password-8841';
  const user = await app.user('member', { password: secret });

  await auth('login', { email: user.email, password: secret });
  await auth('login', { email: user.email, password: `${secret}x` });
  await auth('login', { email: user.email, password: [secret] });

  const fs = await import('node:fs');

  for (const name of fs.readdirSync(`${app.dir}/log`)) {
    assert.ok(!fs.readFileSync(`${app.dir}/log/${name}`, 'latin1')
      .includes(secret), name);
  }
});

test('check says who the token is', async () => {
  const res = await app.api('GET', '/api/v1/auth/check',
    { token: olga.token });
  const c = claims(olga.token);

  assert.equal(res.data.userId, olga.id);
  assert.equal(res.data.sessionId, c.sid);
  assert.ok(res.data.roles.includes('organizer'));
  assert.equal(Date.parse(res.data.expiresAt) / 1000, c.exp);
});

test('refresh: rotated, concurrent, then the session dies', async () => {
  const user = await app.user();
  const first = await auth('refresh', { refreshToken: user.refreshToken });
  const again = await auth('refresh', { refresh_token: user.refreshToken });

  assert.equal(first.status, 200, first.text);
  assert.equal(first.data.refresh, 'rotated');
  assert.equal(claims(first.data.accessToken).sid, claims(user.token).sid);
  assert.equal(again.data.refresh, 'concurrent');
  assert.equal(again.data.refreshToken, first.data.refreshToken);

  await app.clock.advance(60000);
  refused(await auth('refresh', { refreshToken: user.refreshToken }),
    401, 'REFRESH_INVALID');
  refused(await auth('refresh', { refreshToken: first.data.refreshToken }),
    401, 'REFRESH_INVALID');
  refused(await app.api('GET', '/api/v1/auth/check',
    { token: first.data.accessToken }), 401, 'TOKEN_REVOKED');
});

test('forged refresh tokens cost no query', async () => {
  const raw = Buffer.from(bob.refreshToken, 'base64url');
  const types = 'api.ctx, uuid, bigint';

  /* whoever comes to the function gets a 500 */
  await app.sql(`alter function api.auth_refresh(${types})
    rename to auth_refresh_real`);
  try {
    for (let i = 0; i < raw.length; i++) {
      const forged = Buffer.from(raw);

      forged[i] ^= 0x40;
      refused(await auth('refresh',
        { refreshToken: forged.toString('base64url') }), 401,
      'REFRESH_INVALID');
    }
    refused(await auth('refresh', { refreshToken: bob.refreshToken }), 500,
      'INTERNAL');
  } finally {
    await app.sql(`alter function api.auth_refresh_real(${types})
      rename to auth_refresh`);
  }
  assert.equal((await auth('refresh',
    { refreshToken: bob.refreshToken })).status, 200);
});

test('logout ends this session, everywhere ends all', async () => {
  const user = await app.user();
  const login = async () => (await auth('login',
    { email: user.email, password: user.password })).data.accessToken;
  const check = async (token) =>
    (await app.api('GET', '/api/v1/auth/check', { token })).status;
  const [a, b, c] = [await login(), await login(), await login()];

  assert.equal((await auth('logout', {}, { token: a })).status, 200);
  assert.deepEqual([await check(a), await check(b)], [401, 200]);
  assert.equal((await auth('logout', { all: true }, { token: b })).status,
    200);
  assert.deepEqual([await check(b), await check(c)], [401, 401]);
  assert.equal(await check(await login()), 200);
});

test('reset: sends, refuses mixtures, consumes once', async () => {
  const user = await app.user();
  const token = crypto.randomBytes(32);
  const sum = crypto.createHash('sha256').update(token).digest();
  const text = token.toString('base64url');
  const reset = (body) => auth('reset-password', body);

  assert.equal((await reset({ email: user.email })).status, 200);
  assert.equal((await reset({ email: 'nobody@test.example' })).status, 200);
  assert.equal(await app.value(`select count(*)::int from queue.outbox
    where kind = 'mail.send' and payload->>'template' = 'password_reset'`), 1);
  for (const body of [{}, { token: text },
    { newPassword: 'a long enough password' },
    { email: user.email, token: text,
      newPassword: 'a long enough password' },
    { token: 'AAAA', newPassword: 'a long enough password' },
    { token: text, newPassword: 'a long enough password' }]) {
    refused(await reset(body), 400, 'VALIDATION_FAILED');
  }

  /* what the worker does right before it sends the mail */
  await app.sql(`select task.mail_token(null, jsonb_build_object('template',
    'password_reset', 'user_id', $1::uuid), $2, $3)`,
  [user.id, user.email, sum]);

  const all = await app.barrier(6, () => ({
    method: 'POST', path: '/api/v1/auth/reset-password',
    body: { token: text, newPassword: 'quite another password' },
  }));

  assert.equal(all.filter((res) => res.status === 200).length, 1,
    all.map((res) => res.text).join('\n'));
  refused(await app.api('GET', '/api/v1/auth/check', { token: user.token }),
    401, 'TOKEN_REVOKED');
  refused(await auth('login',
    { email: user.email, password: user.password }), 401,
  'INVALID_CREDENTIALS');
  assert.equal((await auth('login',
    { email: user.email, password: 'quite another password' })).status, 200);
});

test('an imported bcrypt hash works and is replaced', async () => {
  const user = await app.user();

  await app.sql('create extension pgcrypto with schema app');
  await app.sql(`update app.users set password_hash =
    app.crypt('correct horse', app.gen_salt('bf', 4)) where id = $1`,
  [user.id]);

  const stored = () => app.value(
    'select password_hash from app.users where id = $1', [user.id]);
  const login = (password) => auth('login', { email: user.email, password });

  refused(await login('correct house'), 401, 'INVALID_CREDENTIALS');
  assert.match(await stored(), /^\$2a\$/);
  assert.equal((await login('correct horse')).status, 200);
  assert.match(await stored(), /^\$argon2id\$/);
  assert.equal((await login('correct horse')).status, 200);
});

/* ---- devices ---- */

test('a paired device scans its event and nothing else', async () => {
  const pair = await app.api('POST', '/api/v1/checkin/devices', {
    token: olga.token, body: { eventId: event.id, name: 'North door' },
  });

  assert.equal(pair.status, 201, pair.text);
  const code = pair.data.pairingCode;

  assert.match(code, /^[A-Z2-7]{16}$/);
  assert.equal(await app.value(`select count(*)::int from
    app.scanner_devices where position($1 in encode(pair_hash, 'escape')) > 0`,
  [code]), 0, 'stored as its sum');

  const spelled = code.toLowerCase().match(/.{4}/g).join('-');
  const login = (c) => app.api('POST', '/api/v1/checkin/devices/login',
    { body: { code: c } });

  refused(await login('AAAAAAAAAAAAAAAA'), 401, 'INVALID_CREDENTIALS');

  const device = await login(spelled);

  assert.equal(device.status, 200, device.text);
  refused(await login(code), 401, 'INVALID_CREDENTIALS');

  const token = device.data.deviceToken;
  const c = claims(token);

  assert.equal(c.evt, event.id);
  assert.equal(c.sub, pair.data.deviceId);
  assert.equal(c.exp - c.iat, 90 * 86400);

  const scan = await app.validate(token, tickets[0].code);

  assert.equal(scan.status, 200, scan.text);
  assert.equal(scan.data.verdict, 'admitted');
  refused(await app.api('GET', '/api/v1/users/me', { token }), 403,
    'FORBIDDEN');

  await app.api('DELETE', `/api/v1/checkin/devices/${pair.data.deviceId}`,
    { token: olga.token });
  refused(await app.validate(token, tickets[1].code), 401, 'TOKEN_REVOKED');
});

/* ---- codes ---- */

/* The dark modules of the one path, eight pixels each. */
function pixels(svg) {
  const size = Number(svg.match(/viewBox="0 0 (\d+) /)[1]);
  const scale = 8;
  const side = size * scale;
  const data = new Uint8ClampedArray(side * side * 4).fill(255);

  for (const [, x, y, w] of svg.matchAll(/M(\d+) (\d+)h(\d+)v1h-\d+z/g)) {
    for (let py = y * scale; py < (Number(y) + 1) * scale; py++) {
      for (let px = x * scale; px < (Number(x) + Number(w)) * scale; px++) {
        data.fill(0, (py * side + px) * 4, (py * side + px) * 4 + 3);
      }
    }
  }
  return { data, side };
}

test('the SVG is read by another reader', async () => {
  const [ticket] = tickets.slice(2);
  const res = await app.api('GET', `/api/v1/tickets/${ticket.id}.svg`,
    { token: alice.token });

  assert.equal(res.status, 200, res.text);
  assert.match(res.headers['content-type'], /^image\/svg\+xml/);
  assert.equal(res.headers['x-content-type-options'], 'nosniff');
  assert.match(res.headers['content-security-policy'], /sandbox/);
  assert.equal(res.headers['cache-control'], 'no-store');

  const { data, side } = pixels(res.text);

  assert.equal(jsQR(data, side, side)?.data, ticket.code);
  refused(await app.api('GET', `/api/v1/tickets/${ticket.id}.svg`,
    { token: bob.token }), 404, 'NOT_FOUND');
});

test('a code is signed by the key, over type and ticket', async () => {
  const b32 = (text) => {
    let bits = '';

    for (const ch of text) {
      bits += 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(ch)
        .toString(2).padStart(5, '0');
    }
    return Buffer.from(bits.match(/.{8}/g).map((x) => parseInt(x, 2)));
  };
  const key = crypto.createPrivateKey({
    key: Buffer.concat([
      Buffer.from('302e020100300506032b657004220420', 'hex'),
      Buffer.from(SECRETS.TICKET_SEED, 'hex')]),
    format: 'der', type: 'pkcs8',
  });

  for (const ticket of tickets.slice(0, 4)) {
    const raw = b32(ticket.code);

    assert.equal(raw.length, 98);
    assert.equal(raw.subarray(1, 17).toString('hex'),
      ticket.id.replaceAll('-', ''));
    assert.equal(raw.subarray(17, 33).toString('hex'),
      event.types[0].id.replaceAll('-', ''));
    assert.equal(raw[33], 1);
    assert.ok(crypto.verify(null, raw.subarray(0, 34),
      crypto.createPublicKey(key), raw.subarray(34)));
  }
});

test('reissue: the old code dies, the new one admits', async () => {
  const ticket = tickets[5];
  const path = `/api/v1/tickets/${ticket.id}/reissue`;
  const all = await app.barrier(6, () =>
    ({ method: 'POST', path, token: alice.token, body: {} }));
  const won = all.filter((res) => res.status === 200);

  assert.ok(won.length >= 1);
  for (const res of all) {
    assert.ok([200, 409].includes(res.status), res.text);
  }
  const now = await app.api('GET', `/api/v1/tickets/${ticket.id}`,
    { token: alice.token });

  assert.notEqual(now.data.code, ticket.code);
  assert.notEqual((await app.validate(olga.token, ticket.code,
    { eventId: event.id })).data.verdict, 'admitted');
  assert.equal((await app.validate(olga.token, now.data.code,
    { eventId: event.id })).data.verdict, 'admitted');
  refused(await app.api('POST', path, { token: alice.token, body: {} }),
    409, 'INVALID_STATE');
});

test('transfer: another holder, another code', async () => {
  const ticket = tickets[6];
  const path = `/api/v1/tickets/${ticket.id}/transfer`;

  refused(await app.api('POST', path,
    { token: bob.token, body: { email: bob.email } }), 404, 'NOT_FOUND');
  refused(await app.api('POST', path,
    { token: alice.token, body: { email: 'nobody@test.example' } }),
  400, 'VALIDATION_FAILED');

  const done = await app.api('POST', path,
    { token: alice.token, body: { email: bob.email } });

  assert.equal(done.status, 200, done.text);
  assert.ok(!done.text.includes(ticket.code));

  const his = await app.api('GET', `/api/v1/tickets/${ticket.id}`,
    { token: bob.token });

  assert.equal(his.status, 200, his.text);
  assert.notEqual(his.data.code, ticket.code);
});

test('register: one ticket of the default type', async () => {
  const path = `/api/v1/events/${event.id}/register`;
  const first = await app.api('POST', path, { token: bob.token });

  assert.equal(first.status, 201, first.text);
  assert.equal(first.data.tickets.length, 1);
  refused(await app.api('POST', path, { token: bob.token }), 409,
    'ALREADY_REGISTERED');
});

test('more than a hundred tickets are refused before they are signed',
  async () => {
    const res = await app.api('POST', '/api/v1/orders', {
      token: alice.token,
      body: {
        items: Array.from({ length: 3 }, () =>
          ({ ticketTypeId: event.types[0].id, quantity: 50 })),
      },
    });

    assert.equal(res.status, 400, res.text);
  });

/* ---- the payment form ---- */

test('pay: 303 to the order, once per click', async () => {
  const order = await app.order(alice, event.types[1].id, 1);

  assert.equal(order.status, 201, order.text);
  const { id } = order.data;
  const click = (action, extra = {}) => app.api('POST', `/pay/${id}`, {
    body: `action=${action}`, validate: false,
    headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
    ...extra,
  });

  for (let i = 0; i < 2; i++) {
    const res = await click('pay');

    assert.equal(res.status, 303, res.text);
    assert.equal(res.headers.location, `/events/order/?id=${id}`);
  }
  assert.equal(await app.value(`select count(*)::int from queue.outbox
    where kind = 'payment.test_pay'`), 1);
  refused(await click('steal'), 400, 'VALIDATION_FAILED');
  refused(await click('pay', { body: { action: 'pay' }, headers: {} }), 415,
    'UNSUPPORTED_MEDIA_TYPE');
});

/* ---- about itself ---- */

test('errors: every code with its status', async () => {
  const res = await app.api('GET', '/api/v1/errors');
  const all = res.body.data;

  assert.equal(res.status, 200);
  assert.ok(all.length > 40);
  assert.equal(new Set(all.map((e) => e.code)).size, all.length);
  assert.ok(all.every((e) => e.status >= 400 && e.status < 600 && e.title));
});

test('openapi.json has an ETag', async () => {
  const res = await app.api('GET', '/api/v1/openapi.json');

  assert.equal(res.body.openapi.slice(0, 3), '3.1');
  assert.equal((await app.api('GET', '/api/v1/openapi.json',
    { headers: { 'If-None-Match': res.headers.etag } })).status, 304);
});

test('registrations as CSV are a file', async () => {
  const res = await app.api('GET',
    `/api/v1/events/${event.id}/registrations.csv`, { token: olga.token });

  assert.equal(res.status, 200, res.text);
  assert.match(res.headers['content-type'], /^text\/csv/);
  assert.match(res.headers['content-disposition'], /^attachment; filename="/);
  assert.ok(res.text.includes(alice.email));
});
