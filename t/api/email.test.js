/*
 * N-19: whose an address is.  Whole paths with the mails that the workers
 * write: registering and proving, asking again, changing, and what an
 * address that is not proved may not do.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { boot } from '../harness/index.js';

const HOUR = 3600000;
const VERIFY = /\/account\/verify\/#token=([\w-]{43})\b/;

let app;

before(async () => {
  app = await boot();
});
after(() => app?.stop());

const fresh = (what = 'new') =>
  `${what}-${crypto.randomBytes(6).toString('hex')}@test.example`;
const verify = (token, spec) => app.api('POST', '/api/v1/auth/verify-email',
  { body: { token }, ...spec });
const change = (user, newEmail, password = user.password) =>
  app.api('POST', '/api/v1/users/me/email',
    { token: user.token, body: { newEmail, password } });
const me = (user) => app.api('GET', '/api/v1/users/me', { token: user.token });
const login = (email, password) => app.api('POST', '/api/v1/auth/login',
  { body: { email, password } });

function refused(res, status, code) {
  assert.equal(res.status, status, res.text);
  assert.equal(res.error.code, code, res.text);
}

/* The n-th mail to this address with a link of this page, and its token. */
async function link(address, n = 1) {
  const seen = new Set();
  let mail;

  for (let i = 0; i < n; i++) {
    mail = await app.mailTo(address,
      (m) => VERIFY.test(m.text) && !seen.has(m.file));
    seen.add(mail.file);
  }
  const [, token] = mail.text.match(VERIFY);

  assert.ok(mail.html.includes(token));
  assert.ok(mail.text.includes(`${app.url}/account/verify/#token=`));
  return { mail, token };
}

test('registering mails a link; used, the address is proved', async () => {
  const user = await app.user();

  assert.equal(user.user.emailVerified, false);
  const { mail, token } = await link(user.email);

  assert.equal(mail.subject, 'Confirm your e-mail address');
  assert.match(mail.text, /within 24 hours/);
  assert.doesNotMatch(mail.text, /Test/, 'no name that somebody chose');
  const was = await me(user);
  const res = await verify(token);

  assert.equal(res.status, 200, res.text);
  assert.deepEqual(res.data, { verified: true, changed: false });
  const now = await me(user);

  assert.equal(now.data.emailVerified, true);
  assert.notEqual(now.headers.etag, was.headers.etag);
  refused(await verify(token), 400, 'VALIDATION_FAILED');
  assert.equal((await app.mailTo(user.email,
    (m) => /Welcome/.test(m.subject))).recipients[0], user.email);
});

test('the page that the link names is there', async () => {
  const res = await fetch(`${app.url}/account/verify/`);

  assert.equal(res.status, 200);
  assert.match(await res.text(), /verify\.js/);
});

test('in the account\'s language', async () => {
  const email = fresh('ar');

  assert.equal((await app.api('POST', '/api/v1/auth/register', {
    headers: { 'accept-language': 'ar' }, body: { email,
      password: 'correct horse battery', firstName: 'A', lastName: 'B' },
  })).status, 201);
  const { mail, token } = await link(email);

  assert.match(mail.html, /<html lang="ar" dir="rtl">/);
  assert.equal((await verify(token)).status, 200);
});

test('asked for again, the newest link counts, for a day', async () => {
  const user = await app.user();
  const first = await link(user.email);
  const ask = () => app.api('POST', '/api/v1/auth/resend-verification',
    { token: user.token });
  const res = await ask();

  assert.equal(res.status, 200);
  assert.deepEqual(res.data, {});
  const second = await link(user.email, 2);

  assert.notEqual(first.token, second.token);
  refused(await verify(first.token), 400, 'VALIDATION_FAILED');
  await app.clock.advance(24 * HOUR);
  refused(await verify(second.token), 400, 'VALIDATION_FAILED');

  const again = await login(user.email, user.password);

  assert.equal((await app.api('POST', '/api/v1/auth/resend-verification',
    { token: again.data.accessToken })).status, 200);
  const third = await link(user.email, 3);

  assert.equal((await verify(third.token)).status, 200);
  const last = await app.api('POST', '/api/v1/auth/resend-verification',
    { token: again.data.accessToken });

  assert.deepEqual([last.status, last.data], [200, {}], 'always the same');
});

test('a new password by mail proves the address', async () => {
  const user = await app.user();

  await app.api('POST', '/api/v1/auth/forgot-password',
    { body: { email: user.email } });
  const mail = await app.mailTo(user.email,
    (m) => m.text.includes('/account/reset/'));
  const [, token] = mail.text.match(/token=([\w-]{43})/);

  assert.equal((await app.api('POST', '/api/v1/auth/reset-password',
    { body: { token, newPassword: 'another long password' } })).status, 200);
  assert.equal((await login(user.email, 'another long password'))
    .data.user.emailVerified, true);
});

test('a change happens by the link, and ends the other sessions',
  async () => {
    const user = await app.user();
    const other = (await login(user.email, user.password)).data;
    const email = fresh();
    const res = await change(user, email.toUpperCase());

    assert.equal(res.status, 200, res.text);
    assert.deepEqual(res.data, {});
    const { mail, token } = await link(email);

    assert.equal(mail.subject, 'Confirm your new e-mail address');
    const notice = await app.mailTo(user.email,
      (m) => /about to change/.test(m.subject));

    assert.ok(!notice.text.includes(email), 'the new one is not told');
    assert.doesNotMatch(notice.text, /token=/);
    assert.ok(notice.text.includes(`${app.url}/account/#forgot`));
    assert.equal((await me(user)).data.email, user.email, 'not yet');

    const done = await verify(token, { token: user.token });

    assert.equal(done.status, 200, done.text);
    assert.deepEqual(done.data, { verified: true, changed: true });
    const { data } = await me(user);

    assert.equal(data.email, email);
    assert.equal(data.emailVerified, true);
    refused(await app.api('GET', '/api/v1/users/me',
      { token: other.accessToken }), 401, 'TOKEN_REVOKED');
    refused(await app.api('POST', '/api/v1/auth/refresh',
      { body: { refreshToken: other.refreshToken } }), 401,
    'REFRESH_INVALID');
    assert.equal((await app.api('POST', '/api/v1/auth/refresh',
      { body: { refreshToken: user.refreshToken } })).status, 200);
    refused(await login(user.email, user.password), 401,
      'INVALID_CREDENTIALS');
    assert.equal((await login(email, user.password)).status, 200);
  });

test('used without a session, the link ends all of them', async () => {
  const user = await app.user();
  const email = fresh();

  await change(user, email);
  assert.equal((await verify((await link(email)).token)).status, 200);
  refused(await me(user), 401, 'TOKEN_REVOKED');
});

test('a change wants the password, and another address', async () => {
  const user = await app.user();

  refused(await change(user, fresh(), 'not the password'), 401,
    'INVALID_CREDENTIALS');
  const same = await change(user, user.email.toUpperCase());

  refused(same, 400, 'VALIDATION_FAILED');
  assert.deepEqual(same.error.errors.map((e) => [e.pointer, e.code]),
    [['/newEmail', 'same']]);
  assert.equal(await app.value(`select count(*)::int from app.users
    where id = $1 and pending_email is not null`, [user.id]), 0);
});

test('the newest change counts, also for the address before', async () => {
  const user = await app.user();
  const [one, two] = [fresh('one'), fresh('two')];

  await change(user, one);
  const first = await link(one);

  await change(user, two);
  refused(await verify(first.token), 400, 'VALIDATION_FAILED');
  const second = await link(two);

  await change(user, one);
  refused(await verify(second.token), 400, 'VALIDATION_FAILED');
  refused(await verify(first.token), 400, 'VALIDATION_FAILED');
  assert.equal((await verify((await link(one, 2)).token)).status, 200);
  assert.equal((await me(user)).status, 401);
});

test('a new password stops a change', async () => {
  const user = await app.user();
  const email = fresh();

  await change(user, email);
  const { token } = await link(email);

  await app.api('POST', '/api/v1/auth/forgot-password',
    { body: { email: user.email } });
  const mail = await app.mailTo(user.email,
    (m) => m.text.includes('/account/reset/'));

  assert.equal((await app.api('POST', '/api/v1/auth/reset-password',
    { body: { token: mail.text.match(/token=([\w-]{43})/)[1],
      newPassword: 'another long password' } })).status, 200);
  refused(await verify(token), 400, 'VALIDATION_FAILED');
});

describe('REQUIRE_VERIFIED_EMAIL=money', () => {
  let strict, event;
  const at = (user) => strict.order(user, event.types[1].id);

  before(async () => {
    strict = await boot({ conf: { REQUIRE_VERIFIED_EMAIL: 'money' } });
    event = await strict.event(await strict.user('organizer'), { types: [
      { name: 'Free', priceCents: 0 }, { name: 'Paid', priceCents: 900 }] });
  });
  after(() => strict?.stop());

  test('what is free passes, what costs money does not', async () => {
    const user = await strict.user();

    assert.equal((await strict.order(user, event.types[0].id)).status, 201);
    refused(await at(user), 403, 'EMAIL_NOT_VERIFIED');
    const mail = await strict.mailTo(user.email, (m) => VERIFY.test(m.text));

    assert.equal((await strict.api('POST', '/api/v1/auth/verify-email',
      { body: { token: mail.text.match(VERIFY)[1] } })).status, 200);
    assert.ok([201, 202].includes((await at(user)).status));
  });

  test('in a crowd, each is judged alone', async () => {
    const users = await Promise.all(Array.from({ length: 6 },
      () => strict.user()));

    await strict.sql(`update app.users set email_verified_at = app.now()
      where id = any ($1)`, [users.slice(0, 3).map((u) => u.id)]);
    const all = await strict.barrier(6, (i) => ({ method: 'POST',
      path: '/api/v1/orders', token: users[i].token,
      body: { items: [{ ticketTypeId: event.types[1].id, quantity: 1 }] } }));

    assert.deepEqual(all.map((res) => res.error?.code ?? 'held'),
      [...Array(3).fill('held'), ...Array(3).fill('EMAIL_NOT_VERIFIED')]);
  });
});

describe('REQUIRE_VERIFIED_EMAIL=login', () => {
  let strict;
  const enter = (email, password) => strict.api('POST', '/api/v1/auth/login',
    { body: { email, password } });

  before(async () => {
    strict = await boot({ conf: { REQUIRE_VERIFIED_EMAIL: 'login' } });
  });
  after(() => strict?.stop());

  test('told to whoever knows the password, with a fresh mail', async () => {
    const email = fresh();
    const password = 'correct horse battery staple';
    const made = await strict.api('POST', '/api/v1/auth/register',
      { body: { email, password, firstName: 'A', lastName: 'B' } });

    assert.equal(made.status, 201, made.text);
    assert.deepEqual(Object.keys(made.data), ['user'], 'no tokens');
    assert.equal(made.data.user.emailVerified, false);
    assert.equal(await strict.value(
      'select count(*)::int from app.login_sessions'), 0);
    const first = await strict.mailTo(email, (m) => VERIFY.test(m.text));

    refused(await enter(email, 'not this one'), 401, 'INVALID_CREDENTIALS');
    refused(await enter(email, password), 403, 'EMAIL_NOT_VERIFIED');
    const second = await strict.mailTo(email,
      (m) => VERIFY.test(m.text) && m.file !== first.file);

    assert.equal(await strict.value(
      'select count(*)::int from app.login_sessions'), 0);
    const use = (mail) => strict.api('POST', '/api/v1/auth/verify-email',
      { body: { token: mail.text.match(VERIFY)[1] } });

    refused(await use(first), 400, 'VALIDATION_FAILED');
    assert.equal((await use(second)).status, 200);
    assert.equal((await enter(email, password)).status, 200);
  });

  test('an unknown account and a wrong password look alike', async () => {
    const email = fresh('alike');
    const hide = (res) => res.text.replace(/"request_?[iI]d":"[^"]*"/g, '')
      .replace(/"timestamp":"[^"]*"/g, '');

    await strict.api('POST', '/api/v1/auth/register', { body: { email,
      password: 'a long password', firstName: 'A', lastName: 'B' } });
    assert.equal(hide(await enter(email, 'not this one')),
      hide(await enter(fresh('alike'), 'not this one')));
  });
});
