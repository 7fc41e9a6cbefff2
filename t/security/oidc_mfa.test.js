/*
 * A provider's word is one factor: who has a second one here is asked for its
 * code, by the page (whose challenge is a cookie) or as an answer to native
 * applications, and has no session before.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';
import { must } from '../harness/fixtures.js';
import { Issuer } from '../harness/issuer.js';
import { claims, enrol } from '../harness/mfa.js';
import { Browser, callback, together } from '../harness/provider.js';

const MFA = '__Host-stoa_mfa';
const REFRESH = '__Host-stoa_refresh';
const LOGIN = '/api/v1/auth/login/mfa';

let all, app, google;

before(async () => {
  all = await together(['google']);
  ({ app, google } = all);
});
after(() => all?.stop());

let n = 0;

/* An account with a second factor that the provider knows as `who`. */
async function person() {
  const who = `factor-${++n}`;
  const user = await app.verified(await app.user());

  google.person(who, { email: user.email });
  assert.equal((await come(who)).where.searchParams.get('error'), null);
  return { who, user, factor: await enrol(app, user) };
}

async function come(who, browser = new Browser()) {
  google.account = who;
  const { location } = await browser.follow(`${app.url}/api/v1/oauth/google`,
    (url) => url.startsWith(callback(app, 'google')));
  const res = await browser.get(location);

  return { browser, res, where: new URL(res.location),
    challenge: browser.jar(app.url).get(MFA),
    refresh: browser.jar(app.url).get(REFRESH) };
}

const finish = (challenge, body, headers = { 'Sec-Fetch-Site': 'same-origin' }) =>
  app.api('POST', LOGIN, { body, headers: { ...headers,
    ...(challenge ? { Cookie: `${MFA}=${challenge}` } : {}) } });
const code = (res) => res.error?.code ?? res.status;

test('the page asks for the code, and the cookie says for whom', async () => {
  const { who, user, factor } = await person();
  const { res, where, challenge, refresh } = await come(who);

  assert.equal(res.status, 303);
  assert.equal(where.pathname, '/account/oauth/');
  assert.equal(where.searchParams.get('step'), 'code');
  assert.equal(refresh, undefined, 'no session before the code');
  assert.ok(challenge);
  assert.ok(!res.location.includes(challenge), 'no secret in an address');

  const set = res.headers['set-cookie'].find((one) => one.startsWith(MFA));

  for (const part of ['HttpOnly', 'Secure', 'SameSite=Lax', 'Path=/',
    'Max-Age=300']) {
    assert.ok(set.includes(part), `${part} in ${set}`);
  }
  assert.equal(code(await finish(challenge, { code: factor.wrong() })),
    'MFA_CODE_INVALID');
  assert.equal(code(await finish(challenge, {})), 'VALIDATION_FAILED');

  const right = await factor.fresh();
  const done = must(await finish(challenge, { code: right }), 200);
  const cookies = done.headers['set-cookie'].join('\n');

  assert.equal(done.data.user.id, user.id);
  assert.match(cookies, new RegExp(`${REFRESH}=[^;]`));
  assert.match(cookies, new RegExp(`${MFA}=;[^\n]*Max-Age=0`));

  /* what was shown: a code, and no password */
  const { amr } = claims(done.data.accessToken);

  assert.deepEqual([...amr].sort(), ['mfa', 'otp']);
  assert.equal(code(await finish(challenge, { code: await factor.fresh() })),
    'MFA_TOKEN_INVALID', 'it counts once');
});

test('the cookie is taken from pages of ours only', async () => {
  const { who, factor } = await person();
  const { challenge } = await come(who);
  const right = await factor.fresh();

  for (const headers of [{}, { 'Sec-Fetch-Site': 'cross-site' },
    { Origin: 'https://evil.example' }]) {
    assert.equal(code(await finish(challenge, { code: right }, headers)),
      'CROSS_SITE');
  }

  const none = await finish(undefined, { code: right });

  assert.equal(code(none), 'VALIDATION_FAILED');
  assert.equal(none.error.errors[0].pointer, '/mfaToken');
  assert.equal(code(await finish(`${challenge.slice(0, -1)}_`,
    { code: right })), 'MFA_TOKEN_INVALID');
  assert.equal(code(await finish(challenge, { mfaToken: 'x', code: right })),
    'MFA_TOKEN_INVALID', 'the body says which');
  must(await finish(challenge, { code: right }), 200);
});

test('the code of one account opens no other', async () => {
  const ada = await person();
  const bob = await person();
  const { challenge } = await come(ada.who);

  assert.equal(code(await finish(challenge, { code: await bob.factor.fresh() })),
    'MFA_CODE_INVALID');
  must(await finish(challenge, { recoveryCode: ada.factor.recovery[0] }), 200);
});

test('a provider that was not linked is not linked by its word', async () => {
  const user = await app.verified(await app.user());

  await enrol(app, user);
  google.person('stranger', { email: user.email });
  const { where, challenge, refresh } = await come('stranger');

  assert.equal(where.searchParams.get('error'),
    'ACCOUNT_EXISTS_SIGN_IN_FIRST');
  assert.deepEqual([challenge, refresh], [undefined, undefined]);
});

test('native applications are asked by an answer', async () => {
  const issuer = await Issuer.start({ audience: 'web' });
  const native = await boot({ workers: 0, conf: { ISSUER_NETWORK: 'insecure',
    AUTH_COOKIE_MODE: 'off',
    OIDC_PROVIDERS: JSON.stringify([{ name: 'corp', issuer: issuer.url,
      clientId: 'web' }]) } });

  try {
    const user = await native.user();
    const sign = () => issuer.sign(issuer.claims('sub-1', { aud: 'web',
      email: user.email, email_verified: true, jti: crypto.randomUUID() }),
    { head: { typ: 'JWT' } });
    const post = async () => native.api('POST', '/api/v1/oauth/corp/token',
      { body: { idToken: await sign() } });

    await native.verified(user);
    must(await post(), 200);
    const factor = await enrol(native, user);
    const asked = await post();

    assert.deepEqual([asked.status, code(asked)], [401, 'MFA_REQUIRED']);
    assert.deepEqual(asked.error.methods, ['totp', 'recovery_code']);
    assert.equal(asked.headers['set-cookie'], undefined);
    assert.equal(code(await native.api('POST', LOGIN, { headers: {
      Cookie: `${MFA}=${asked.error.mfaToken}`,
      'Sec-Fetch-Site': 'same-origin' }, body: {
      code: factor.wrong() } })), 'VALIDATION_FAILED', 'cookies are off');

    const done = must(await native.api('POST', LOGIN, { body: {
      mfaToken: asked.error.mfaToken, code: await factor.fresh() } }), 200);

    assert.equal(done.data.user.id, user.id);
  } finally {
    await native.stop();
    await issuer.stop();
  }
});
