/*
 * Whose account an identity opens (CVE-2026-44166, GHSA-pq7p-mc74-g65w,
 * edge.md D.2 pre-hijack and linking): by (issuer, subject), by an address
 * only when both sides have proved it, never by one that the provider does
 * not vouch for; linked and unlinked by whoever is signed in; ID tokens of
 * native applications.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { boot, until } from '../harness/index.js';
import { must } from '../harness/fixtures.js';
import { Issuer, makeKey } from '../harness/issuer.js';
import { enrol } from '../harness/mfa.js';
import { Browser } from '../harness/provider.js';

const REFRESH = '__Host-stoa_refresh';

let app, is, other;

/* Two providers whose ID tokens are what a case wants. */
before(async () => {
  is = await Issuer.start({ audience: 'web' });
  other = await Issuer.start({ audience: 'web' });
  for (const one of [is, other]) {
    one.server.removeAllListeners('request');
    one.server.on('request', async (req, res) => {
      if (req.url !== '/token') {
        one.answer(req, res);
        return;
      }
      res.end(JSON.stringify({ id_token: await one.sign({ ...one.next,
        nonce: one.nonce }, { head: { typ: 'JWT' } }) }));
    });
  }
  app = await boot({ workers: 1, conf: {
    ISSUER_NETWORK: 'insecure', JWT_ISSUERS: `${is.url};aud=api`,
    OIDC_PROVIDERS: JSON.stringify([
      { name: 'google', issuer: is.url, clientId: 'web', clientSecret: 's',
        audiences: ['android', 'ios'] },
      { name: 'acme-corp', issuer: other.url, clientId: 'web' },
    ]) } });
});
after(async () => {
  await app?.stop();
  await is?.stop();
  await other?.stop();
});

const of = (name) => name === 'google' ? is : other;
let n = 0;
const fresh = (what = 'p') => `${what}-${++n}-${
  crypto.randomBytes(3).toString('hex')}@test.example`;
const check = async (token) =>
  (await app.api('GET', '/api/v1/auth/check', { token })).status;
const login = (user) => app.api('POST', '/api/v1/auth/login', { body: {
  email: user.email, password: user.password } });
const identities = (user) => app.sql(
  'select * from app.oauth_identities where user_id = $1 order by id',
  [user.id]);

/* {error, refresh} of a sign-in by browser with these claims. */
async function browse(claims, { name = 'google', start, browser =
  new Browser() } = {}) {
  const to = start ?? (await browser.get(`${app.url}/api/v1/oauth/${name}`))
    .location;
  const { nonce, state } = Object.fromEntries(new URL(to).searchParams);

  of(name).nonce = nonce;
  of(name).next = of(name).claims('x', claims);

  const res = await browser.get(
    `${app.url}/api/v1/oauth/${name}/callback?code=c&state=${state}`);

  return { res, browser, error: new URL(res.location).searchParams.get('error'),
    refresh: browser.jar(app.url).get(REFRESH) };
}

async function entered(claims, more) {
  const { error, refresh } = await browse(claims, more);

  assert.equal(error, null);

  const { data } = must(await app.api('POST', '/api/v1/auth/refresh',
    { body: { refreshToken: refresh } }), 200);

  return { ...data.user, token: data.accessToken };
}

const begin = (user, body = { provider: 'acme-corp' }) => app.api('POST',
  '/api/v1/users/me/identities', { token: user.token, body });

/* As a page does: the answer's cookie, then the provider, and back. */
async function link(user, claims, { name = 'acme-corp' } = {}) {
  const browser = new Browser();
  const res = must(await begin(user, { provider: name }), 200);

  for (const line of res.headers['set-cookie']) {
    const [, cookie, value] = /^([^=]+)=([^;]*)/.exec(line);

    browser.jar(app.url).set(cookie, value);
  }
  return browse(claims, { name, start: res.data.url, browser });
}

/* By the newest link, as who has the mailbox does it. */
const used = new Set();

async function reset(user, newPassword) {
  const link = (m) => m.text.match(/reset\/\S*#token=([\w-]+)/)?.[1];

  await app.api('POST', '/api/v1/auth/forgot-password',
    { body: { email: user.email } });

  const token = link(await app.mailTo(user.email,
    (m) => link(m) && !used.has(link(m))));

  used.add(token);
  return app.api('POST', '/api/v1/auth/reset-password',
    { body: { token, newPassword } });
}

const vouched = (email, sub = crypto.randomUUID()) =>
  ({ sub, email, email_verified: true });

describe('by address', () => {
  test('a new one makes an account whose address is proved', async () => {
    const email = fresh('New').toUpperCase();
    const user = await entered({ ...vouched(email),
      given_name: '  Ada\u202e\u0007 ', family_name: 'x'.repeat(300) });

    assert.equal(user.email, email.toLowerCase());
    assert.equal(user.emailVerified, true);
    assert.equal(user.firstName, 'Ada');
    assert.equal(user.lastName, 'x'.repeat(100));
    assert.equal(await app.value(
      'select password_hash from app.users where id = $1', [user.id]), null);
    await app.mailTo(user.email);

    /* there is no password to guess, and one can be chosen by mail */
    const guess = await login({ email, password: 'correct horse battery' });

    assert.equal(guess.status, 401);
    assert.equal(guess.error.code, 'INVALID_CREDENTIALS');
    for (const [path, body] of [
      ['/auth/change-password', { currentPassword: 'a',
        newPassword: 'another good password' }],
      ['/users/me/email', { newEmail: fresh(), password: 'a' }],
    ]) {
      const res = await app.api('POST', `/api/v1${path}`,
        { token: user.token, body });

      assert.equal(res.status, 409, res.text);
      assert.equal(res.error.code, 'PASSWORD_NOT_SET');
    }
    await app.api('POST', '/api/v1/auth/forgot-password', { body: { email } });

    const mail = await app.mailTo(user.email,
      (m) => m.text.includes('/account/reset/'));
    const [, token] = mail.text.match(/#token=([\w-]+)/);

    must(await app.api('POST', '/api/v1/auth/reset-password', { body: { token,
      newPassword: 'one that I chose now' } }), 200);
    assert.equal((await login({ email, password: 'one that I chose now' }))
      .status, 200);
  });

  test('both sides have proved it: linked, and told', async () => {
    const user = await app.user();

    await app.verified(user);

    const claims = vouched(user.email.toUpperCase());
    const came = await entered(claims);

    assert.equal(came.id, user.id);
    assert.equal((await login(user)).status, 200, 'the password stays');
    assert.equal(await check(user.token), 200, 'and so do sessions');
    assert.match((await app.mailTo(user.email, (m) =>
      m.subject === 'A way to sign in was added')).text, /with Google/);

    /* from now on by subject, whatever becomes of the addresses */
    const again = await entered({ ...claims, email: fresh() });

    assert.equal(again.id, user.id);
    assert.equal(again.email, user.email);
    assert.equal((await identities(user)).length, 1);

    /* and the subject of another issuer is somebody else */
    const stranger = await browse({ ...claims, email: undefined },
      { name: 'acme-corp' });

    assert.equal(stranger.error, 'ACCOUNT_EXISTS_SIGN_IN_FIRST');
  });

  test('pre-hijack: what somebody set up dies with the first proof',
    async () => {
      /* mallory registers the address of another, and settles in */
      const user = await app.user('member', { email: fresh('victim') });
      const second = must(await login(user), 200).data;
      const { data: { url } } = must(await app.api('POST',
        '/api/v1/users/me/identities', { token: user.token,
          body: { provider: 'acme-corp' } }), 200);
      /* the link's cookie does not matter here: put in by hand */
      const mallory = crypto.randomUUID();

      assert.ok(url);
      await app.sql(`insert into app.oauth_identities (id, user_id, issuer,
          subject, provider, created_at)
        values (app.uuid7(), $1, $2, $3, 'acme-corp', app.now())`,
      [user.id, other.url, mallory]);
      await app.api('POST', '/api/v1/auth/forgot-password',
        { body: { email: user.email } });
      must(await app.api('POST', '/api/v1/users/me/email', { token: user.token,
        body: { newEmail: fresh('mallory'), password: user.password } }), 200);
      await until(() => app.value(`select count(*) = 2 from
        app.one_time_tokens where user_id = $1 and purpose <> 'email_verify'`,
      [user.id]), { what: 'the links' });

      /* the owner comes, by a provider that vouches for the address */
      const claims = vouched(user.email);
      const owner = await entered(claims);

      assert.equal(owner.id, user.id);
      assert.equal(owner.emailVerified, true);
      assert.equal(await check(owner.token), 200);

      /* nothing of mallory's opens it */
      for (const token of [user.token, second.accessToken]) {
        assert.equal(await check(token), 401);
      }
      for (const refreshToken of [user.refreshToken, second.refreshToken]) {
        assert.equal((await app.api('POST', '/api/v1/auth/refresh',
          { body: { refreshToken } })).status, 401);
      }
      assert.equal((await login(user)).status, 401);
      assert.equal(await app.value(`select count(*)::int from
        app.one_time_tokens where user_id = $1 and used_at is null`,
      [user.id]), 0);
      assert.equal(await app.value(`select pending_email from app.users
        where id = $1`, [user.id]), null);
      assert.equal((await browse({ sub: mallory }, { name: 'acme-corp' }))
        .error, 'ACCOUNT_EXISTS_SIGN_IN_FIRST');
      assert.deepEqual((await identities(user)).map(({ subject }) => subject),
        [claims.sub]);
      assert.match((await app.mailTo(user.email, (m) =>
        m.subject === 'Your password was removed')).text, /with Google/);
      assert.deepEqual(await app.sql(`select action from app.audit_log
        where resource_id = $1::text and action like 'user.reclaimed'`,
      [user.id]), [{ action: 'user.reclaimed' }]);

      /* once: what the owner does afterwards stays */
      const again = await entered(claims);

      assert.equal(await check(owner.token), 200);
      assert.equal(again.id, user.id);
    });

  test('pre-hijack: a password that is chosen by mail is a proof, too',
    async () => {
      /* mallory registers the address of another, and leaves ways in */
      const user = await app.user('member', { email: fresh('victim') });
      const mallory = crypto.randomUUID();
      const key = must(await app.api('POST', '/api/v1/auth/api-keys', {
        token: user.token, body: { name: 'Robot', scopes: ['*'] } }), 201)
        .data;

      assert.equal((await link(user, { sub: mallory })).error, null);
      must(await app.api('GET', '/api/v1/users/me', { token: key.key }), 200);

      await enrol(app, user);
      must(await reset(user, 'one that the owner chose'), 200);

      /* the owner needs no code that mallory would have to give */
      const owner = must(await login({ ...user,
        password: 'one that the owner chose' }), 200).data;

      assert.equal(owner.user.emailVerified, true);
      assert.equal((await browse({ sub: mallory }, { name: 'acme-corp' }))
        .error, 'ACCOUNT_EXISTS_SIGN_IN_FIRST');
      assert.deepEqual(await identities(user), []);
      assert.equal((await app.api('GET', '/api/v1/users/me',
        { token: key.key })).status, 401);
      assert.equal(await check(user.token), 401);
      await app.mailTo(user.email, (m) => m.text.includes('turned off'));
      assert.equal(await app.value(`select changes->>'reclaimed'
        from app.audit_log where resource_id = $1::text
          and action = 'auth.reset'`, [user.id]), 'true');

      /* once: what the owner sets up outlives the next one */
      const mine = { ...user, token: owner.accessToken };
      const own = must(await app.api('POST', '/api/v1/auth/api-keys', {
        token: mine.token, body: { name: 'Robot', scopes: ['*'] } }), 201)
        .data;
      const sub = crypto.randomUUID();

      assert.equal((await link(mine, { sub })).error, null);
      must(await reset(user, 'another that the owner chose'), 200);
      must(await app.api('GET', '/api/v1/users/me', { token: own.key }), 200);
      assert.equal((await entered({ sub }, { name: 'acme-corp' })).id,
        user.id);
    });

  test('pre-hijack, by a victim who was lured into the account', async () => {
    /* the identity is linked to the account already, whose address is not
       proved: the password still dies when the provider vouches for it */
    const user = await app.user('member', { email: fresh('lured') });
    const claims = vouched(user.email);

    await app.sql(`insert into app.oauth_identities (id, user_id, issuer,
        subject, provider, created_at)
      values (app.uuid7(), $1, $2, $3, 'google', app.now())`,
    [user.id, is.url, claims.sub]);

    /* not as long as it does not */
    await entered({ ...claims, email_verified: false });
    await entered({ ...claims, email: fresh() });
    assert.equal((await login(user)).status, 200);
    assert.equal((await entered(claims)).emailVerified, true);
    assert.equal((await login(user)).status, 401);
    assert.equal(await check(user.token), 401);
    assert.equal((await identities(user)).length, 1);
  });

  test('an address that is not vouched for decides nothing, and tells nothing',
    async () => {
      const user = await app.user();
      const proved = await app.user();

      await app.verified(proved);

      const answers = new Set();

      for (const email of [user.email, proved.email, fresh('nobody')]) {
        for (const email_verified of [false, undefined, null, 0, 1, 'false',
          'yes', 'TRUE', ['true'], {}]) {
          const { error, res, refresh } = await browse(
            { sub: crypto.randomUUID(), email, email_verified });

          assert.equal(error, 'ACCOUNT_EXISTS_SIGN_IN_FIRST');
          assert.equal(refresh, undefined);
          answers.add(`${res.status} ${res.location} ${res.text}`);
        }
      }
      for (const email of ['', 'x', 'a@b', 7, null, undefined,
        `${'a'.repeat(250)}@test.example`, 'a@test.example\r\nBcc: b@c.de']) {
        assert.equal((await browse({ sub: crypto.randomUUID(), email,
          email_verified: true })).error, 'ACCOUNT_EXISTS_SIGN_IN_FIRST');
      }
      assert.equal(answers.size, 1, [...answers].join('\n'));
      assert.equal((await identities(user)).length, 0);
      assert.equal(await app.value(
        `select count(*)::int from app.users where email like 'nobody%'`), 0);
    });

  test('who is suspended stays outside', async () => {
    const user = await app.user();

    await app.verified(user);
    await app.sql(`update app.users set status = 'suspended' where id = $1`,
      [user.id]);

    const claims = vouched(user.email);

    assert.equal((await browse(claims)).error, 'ACCOUNT_SUSPENDED');
    assert.equal((await identities(user)).length, 0);
    await app.sql(`update app.users set status = 'active' where id = $1`,
      [user.id]);
    await entered(claims);
    await app.sql(`update app.users set status = 'suspended' where id = $1`,
      [user.id]);
    assert.equal((await browse(claims)).error, 'ACCOUNT_SUSPENDED');

    /* of a deleted one nothing is left: the address is free */
    await app.sql(`update app.users set status = 'deleted' where id = $1`,
      [user.id]);
    assert.notEqual((await entered(claims)).id, user.id);
    assert.equal((await identities(user)).length, 0);
  });

  test('I-37: twenty at once, and a registration among them: one account',
    async () => {
      const email = fresh('race');
      const claims = vouched(email);
      const tokens = await Promise.all(Array.from({ length: 20 }, () =>
        is.sign(is.claims(claims.sub, { ...claims, aud: 'web',
          jti: crypto.randomUUID() }),
          { head: { typ: 'JWT' } })));
      const all = await app.barrier(21, (i) => i < 20
        ? { method: 'POST', path: '/api/v1/oauth/google/token',
          body: { idToken: tokens[i] } }
        : { method: 'POST', path: '/api/v1/auth/register', body: {
          email: email.toUpperCase(), password: 'correct horse battery',
          firstName: 'A', lastName: 'B' } });
      const statuses = all.map(({ status }) => status);

      assert.deepEqual([...new Set(statuses.slice(0, 20))], [200],
        JSON.stringify(statuses));
      assert.ok([201, 409].includes(statuses[20]));
      assert.deepEqual(await app.sql(`select count(distinct u.id)::int as users,
          count(i.id)::int as identities, bool_and(u.password_hash is null)
          as free from app.users u join app.oauth_identities i
          on i.user_id = u.id where u.email = $1`, [email]),
      [{ users: 1, identities: 1, free: true }]);
      assert.equal(await app.value(`select count(*)::int from app.users
        where email = $1`, [email]), 1);
    });

  test('where sign-in wants a proved address', async () => {
    const strict = await boot({ workers: 1, conf: {
      REQUIRE_VERIFIED_EMAIL: 'login', ISSUER_NETWORK: 'insecure',
      OIDC_PROVIDERS: app.conf.OIDC_PROVIDERS } });

    try {
      await until(() => strict.value(`select app.setting(
        'require_verified_email') = 'login'`), { what: 'the setting' });

      const sub = crypto.randomUUID();
      const ask = async (claims) => strict.api('POST',
        '/api/v1/oauth/google/token', { body: { idToken: await is.sign(
          is.claims(sub, { aud: 'web', jti: crypto.randomUUID(), ...claims }),
          { head: { typ: 'JWT' } }) } });
      const email = fresh();
      const made = must(await ask({ email, email_verified: true }), 200).data;

      await strict.sql(`update app.users set email_verified_at = null,
        email = $2 where id = $1`, [made.user.id, fresh()]);

      const res = await ask({ email, email_verified: true });

      assert.equal(res.status, 403, res.text);
      assert.equal(res.error.code, 'EMAIL_NOT_VERIFIED');
    } finally {
      await strict.stop();
    }
  });
});

describe('by who is signed in', () => {
  test('linked, listed, used, unlinked', async () => {
    const user = await app.user();
    const sub = crypto.randomUUID();
    const { error, res, refresh } = await link(user,
      { sub, email: 'Other@test.example' });

    assert.equal(error, null);
    assert.equal(res.location, `${app.url}/account/oauth/?next=%2Fevents%2F`
      + '&linked=acme-corp');
    assert.equal(refresh, undefined, 'no other session than there was');
    await app.mailTo(user.email, (m) => m.text.includes('Acme Corp'));

    const { data } = await app.api('GET', '/api/v1/users/me/identities',
      { token: user.token });

    assert.equal(data.length, 1);
    assert.equal(data[0].provider, 'acme-corp');
    assert.equal(data[0].email, 'other@test.example');
    assert.deepEqual((await app.api('GET', '/api/v1/users/me/identities',
      { token: (await app.user()).token })).data, []);

    /* no address is needed any more: the subject is known */
    const came = await entered({ sub }, { name: 'acme-corp' });

    assert.equal(came.id, user.id);
    assert.equal((await link(user, { sub })).error, null, 'twice is once');
    assert.equal((await identities(user)).length, 1);

    const gone = await app.api('DELETE',
      `/api/v1/users/me/identities/${data[0].id}`, { token: user.token });

    assert.equal(gone.status, 200, gone.text);
    assert.deepEqual(gone.data, { unlinked: true });
    assert.equal((await browse({ sub }, { name: 'acme-corp' })).error,
      'ACCOUNT_EXISTS_SIGN_IN_FIRST');
    assert.equal((await app.api('DELETE',
      `/api/v1/users/me/identities/${data[0].id}`, { token: user.token }))
      .status, 404);
  });

  test('somebody else\'s identity stays theirs', async () => {
    const one = await app.user();
    const two = await app.user();
    const sub = crypto.randomUUID();

    assert.equal((await link(one, { sub })).error, null);
    assert.equal((await link(two, { sub })).error, 'IDENTITY_TAKEN');
    assert.equal((await identities(two)).length, 0);

    const [{ id }] = await identities(one);

    assert.equal((await app.api('DELETE', `/api/v1/users/me/identities/${id}`,
      { token: two.token })).status, 404);
    assert.equal((await identities(one)).length, 1);
  });

  test('a link is worth nothing without its browser and its session',
    async () => {
      const user = await app.user();
      const sub = crypto.randomUUID();
      const start = must(await begin(user), 200);

      /* the address alone, in another browser */
      assert.equal((await browse({ sub }, { name: 'acme-corp',
        start: start.data.url })).error, 'OAUTH_STATE_INVALID');

      /* signed out meanwhile */
      const browser = new Browser();
      const [, cookie, value] = /^([^=]+)=([^;]*)/.exec(
        start.headers['set-cookie'][0]);

      browser.jar(app.url).set(cookie, value);
      must(await app.api('POST', '/api/v1/auth/logout',
        { token: user.token, body: {} }), 200);
      assert.equal((await browse({ sub }, { name: 'acme-corp', browser,
        start: start.data.url })).error, 'TOKEN_REVOKED');
      assert.equal((await identities(user)).length, 0);

      /* nobody, nowhere else */
      assert.equal((await app.api('POST', '/api/v1/users/me/identities',
        { body: { provider: 'acme-corp' } })).status, 401);
      assert.equal((await begin(await app.user(), { provider: 'nobody' }))
        .status, 404);
      for (const next of ['//evil.example', 'https://evil.example', '/x']) {
        const res = await begin(await app.user(),
          { provider: 'acme-corp', next });

        assert.equal(res.status, 400);
        assert.deepEqual(res.error.errors.map((e) => e.pointer), ['/next']);
      }
    });

  test('never the last way in', async () => {
    const user = await entered(vouched(fresh('only')));
    const unlink = (id) => app.api('DELETE',
      `/api/v1/users/me/identities/${id}`, { token: user.token });
    const [{ id }] = await identities(user);
    const res = await unlink(id);

    assert.equal(res.status, 409, res.text);
    assert.equal(res.error.code, 'LAST_WAY_IN');

    /* with two, one of them may go, however they are asked */
    assert.equal((await link(user, { sub: crypto.randomUUID() })).error, null);

    const both = await identities(user);
    const all = await app.barrier(2, (i) => ({ method: 'DELETE',
      path: `/api/v1/users/me/identities/${both[i].id}`, token: user.token }));

    assert.deepEqual(all.map(({ status }) => status).sort(), [200, 409]);
    assert.equal((await identities(user)).length, 1);

    /* and the last one with a password */
    const [last] = await identities(user);

    await app.sql(`update app.users set password_hash = 'x' where id = $1`,
      [user.id]);
    assert.equal((await unlink(last.id)).status, 200);
  });

  test('tokens of its issuer end with an identity', async () => {
    const user = await app.user();

    assert.equal((await link(user, { sub: 'api-user' }, { name: 'google' }))
      .error, null);

    const token = await is.token('api-user', { aud: 'api' });
    const [{ id }] = await identities(user);

    assert.equal(await check(token), 200);
    must(await app.api('DELETE', `/api/v1/users/me/identities/${id}`,
      { token: user.token }), 200);
    await until(async () => await check(token) === 401,
      { timeout: 2000, what: 'the revocation' });

    const res = await app.api('GET', '/api/v1/auth/check', { token });

    assert.equal(res.error.code, 'IDENTITY_NOT_LINKED');
  });
});

describe('native applications', () => {
  const url = '/api/v1/oauth/google/token';
  const id = (claims, more) => is.sign(is.claims(claims.sub
    ?? crypto.randomUUID(), { aud: 'android', email_verified: true,
    email: fresh(), jti: crypto.randomUUID(), ...claims }), { head: { typ: 'JWT' }, ...more });
  const post = async (claims, body = {}, more = {}) => app.api('POST', url,
    { body: { idToken: await id(claims, more), ...body } });

  async function fails(res) {
    res = await res;
    assert.equal(res.status, 401, res.text);
    assert.equal(res.error.code, 'OAUTH_INVALID');
    assert.equal(res.headers['set-cookie'], undefined);
  }

  test('an ID token is exchanged for a session like any other', async () => {
    const sub = crypto.randomUUID();
    const email = fresh('native');

    for (const aud of ['web', 'android', 'ios', ['android']]) {
      const { data, headers } = must(await post({ sub, email, aud }), 200);

      assert.equal(data.user.email, email);
      assert.equal(data.tokenType, 'Bearer');
      assert.equal(await check(data.accessToken), 200);
      assert.match(headers['set-cookie'][0], new RegExp(REFRESH));
      assert.equal((await app.api('POST', '/api/v1/auth/refresh',
        { body: { refreshToken: data.refreshToken } })).status, 200);
    }

    const kept = must(await post({ sub, email }, { remember: true }), 200);

    assert.match(kept.headers['set-cookie'][0], /Max-Age=2592000/);

    /* azp: the application that asked, for our server */
    must(await post({ sub, email, aud: 'web', azp: 'android' }), 200);
    must(await post({ sub, email, aud: ['web', 'ios'], azp: 'ios' }), 200);
  });

  test('an ID token is good once, however it is written', async () => {
    const sub = crypto.randomUUID();
    const email = fresh('once');
    const send = (idToken) => app.api('POST', url, { body: { idToken } });
    const idToken = await id({ sub, email });

    must(await send(idToken), 200);
    await fails(send(idToken));

    /* ES256: (r, n - s) signs what (r, s) does */
    const n = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
    const [head, body, mac] = idToken.split('.');
    const bytes = Buffer.from(mac, 'base64url');
    const s = n - BigInt(`0x${bytes.subarray(32).toString('hex')}`);
    const twin = Buffer.concat([bytes.subarray(0, 32),
      Buffer.from(s.toString(16).padStart(64, '0'), 'hex')]);

    assert.equal(is.keys[0].alg, 'ES256');
    await fails(send(`${head}.${body}.${twin.toString('base64url')}`));

    const next = await id({ sub, email });
    const all = await app.barrier(10, () => ({ method: 'POST', path: url,
      body: { idToken: next } }));

    assert.deepEqual(all.map(({ status }) => status).sort(),
      [200, ...Array(9).fill(401)]);

    /* until it would have ended by itself */
    const [{ at }] = await app.sql(`select app.ms(max(expires_at)) as at
      from app.oauth_states`);

    assert.ok(at >= 1000 * is.claims('x').exp, `${at}`);
    must(await post({ sub, email, exp: 253402300799 }), 200);
  });

  test('an ID token that a browser brought is used up', async () => {
    const seen = [];
    const { sign } = is;

    is.sign = async (...args) => {
      seen.push(await sign.apply(is, args));
      return seen.at(-1);
    };
    try {
      await entered(vouched(fresh('seen')));
    } finally {
      is.sign = sign;
    }
    assert.equal(seen.length, 1);

    const { nonce } = JSON.parse(Buffer.from(seen[0].split('.')[1],
      'base64url'));

    await fails(app.api('POST', url, { body: { idToken: seen[0], nonce } }));
  });

  test('for our applications, by this issuer, now', async () => {
    const now = Math.floor(Date.now() / 1000);

    for (const claims of [
      { aud: 'api' }, { aud: 'else' }, { aud: ['android', 'else'] },
      { aud: ['android', 'ios'] }, { aud: 'web', azp: 'else' }, { aud: null },
      { iss: other.url }, { iss: `${is.url}/` }, { exp: now - 100 },
      { iat: now + 1000 }, { sub: '' }, { sub: 5 },
    ]) {
      await fails(post(claims));
    }
    await fails(app.api('POST', url, { body: { idToken: await other.sign(
      other.claims('x', { aud: 'android' }), { head: { typ: 'JWT' } }) } }));
    await fails(app.api('POST', url, { body: { idToken: await other.sign(
      is.claims('x', { aud: 'android' }), { head: { typ: 'JWT',
        kid: is.keys[0].kid } }) } }));
    await fails(post({}, {}, { key: makeKey('ES256') }));
    await fails(post({}, {}, { head: { typ: 'at+jwt' } }));
    await fails(app.api('POST', url, { body: { idToken:
      (await app.user()).token } }));
    for (const idToken of ['x', '..', 'a.b.c', 'x'.repeat(8192)]) {
      await fails(app.api('POST', url, { body: { idToken } }));
    }
    assert.equal((await app.api('POST', '/api/v1/oauth/nobody/token',
      { body: { idToken: 'x' } })).status, 404);
  });

  test('a nonce is in both or in none', async () => {
    const nonce = 'a nonce of the application';
    const hashed = crypto.createHash('sha256').update(nonce).digest('hex');

    must(await post({ nonce }, { nonce }), 200);
    must(await post({ nonce: hashed }, { nonce }), 200);
    await fails(post({ nonce }));
    await fails(post({}, { nonce }));
    await fails(post({ nonce }, { nonce: 'another' }));
    await fails(post({ nonce: hashed.toUpperCase() }, { nonce }));
    await fails(post({ nonce: '' }));
    await fails(post({ nonce: 7 }, { nonce: '7' }));
  });

  test('who is not vouched for, who is suspended', async () => {
    const user = await app.user();
    const res = await post({ email: user.email, email_verified: false });

    assert.equal(res.status, 409);
    assert.equal(res.error.code, 'ACCOUNT_EXISTS_SIGN_IN_FIRST');
    await app.verified(user);
    await app.sql(`update app.users set status = 'suspended' where id = $1`,
      [user.id]);

    const suspended = await post({ email: user.email });

    assert.equal(suspended.status, 403, suspended.text);
    assert.equal(suspended.error.code, 'ACCOUNT_SUSPENDED');
  });
});
