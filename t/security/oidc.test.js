/*
 * Sign-in with others, against a provider that others wrote: the code flow in
 * one and in several tabs, what may not be repeated, swapped or forged, where
 * it leads afterwards, and what a provider that is away does.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { boot, until } from '../harness/index.js';
import { Issuer, makeKey } from '../harness/issuer.js';
import { Browser, callback, settings, together } from '../harness/provider.js';

const FLOW = /^__Host-stoa_oauth_/;
const REFRESH = '__Host-stoa_refresh';

const errorOf = (res) => res.location
  && new URL(res.location).searchParams.get('error');

/* To the provider and back, up to the callback's address. */
async function toCallback(app, browser, provider, name, account, query = '') {
  provider.account = account;

  const res = await browser.follow(
    `${app.url}/api/v1/oauth/${name}${query}`,
    (url) => url.startsWith(callback(app, name)));

  assert.ok(res.location, `${res.status} ${res.text}`);
  return res.location;
}

async function signIn(app, provider, name, account,
  { browser = new Browser(), query } = {}) {
  const back = await toCallback(app, browser, provider, name, account, query);
  const res = await browser.get(back);

  return { browser, res, back, error: errorOf(res),
    refresh: browser.jar(app.url).get(REFRESH) };
}

/* What the page does afterwards: the cookie becomes tokens. */
async function session(app, { refresh, res }) {
  assert.ok(refresh, `no session: ${res.status} ${res.location}`);

  const got = await app.api('POST', '/api/v1/auth/refresh', { headers: {
    Cookie: `${REFRESH}=${refresh}`, 'Sec-Fetch-Site': 'same-origin' } });

  assert.equal(got.status, 200, got.text);
  return got.data;
}

const flows = (app, browser) =>
  [...browser.jar(app.url).keys()].filter((name) => FLOW.test(name));

describe('the code flow', () => {
  let all, app, google, corp;

  before(async () => {
    all = await together(['google', 'corp'], { more: {
      corp: { auth: 'none', conform: true, alg: 'ES256',
        settings: { title: 'Corp & Sons' } } } });
    ({ app, google, corp } = all);
  });
  after(() => all?.stop());

  test('who can be signed in with', async () => {
    const res = await app.api('GET', '/api/v1/oauth/providers');

    assert.equal(res.status, 200);
    assert.deepEqual(res.data, [
      { name: 'google', title: 'Google', url: '/api/v1/oauth/google' },
      { name: 'corp', title: 'Corp & Sons', url: '/api/v1/oauth/corp' },
    ]);
    assert.ok(!res.text.includes(google.clientSecret));
    for (const name of ['nobody', 'Google', 'google%20', '%67oogl', 'providers/x',
      'google%2f', '..', '%2e%2e']) {
      const { status } = await app.api('GET', `/api/v1/oauth/${name}`,
        { validate: false });

      assert.ok([400, 404].includes(status), `${name}: ${status}`);
    }
  });

  test('B-20: one signs in, and again', async () => {
    const id = google.person('ada', { locale: 'de' });
    const one = await signIn(app, google, 'google', id);

    assert.equal(one.res.status, 303);
    assert.equal(one.res.location, `${app.url}/account/oauth/?next=%2Fevents%2F`);
    assert.equal(one.res.headers['cache-control'], 'no-store');

    const first = await session(app, one);

    assert.equal(first.user.email, 'ada@test.example');
    assert.equal(first.user.emailVerified, true);
    assert.equal(first.user.name, 'Given Family');
    assert.deepEqual(first.user.roles, ['member']);
    assert.deepEqual(flows(app, one.browser), [], 'its flow is over');

    /* nothing secret in an address, and nothing but ours in the answer */
    for (const line of [one.res.location, one.res.text]) {
      assert.ok(!line.includes(one.refresh));
      assert.ok(!line.includes(new URL(one.back).searchParams.get('code')));
    }

    const two = await session(app, await signIn(app, google, 'google', id));

    assert.equal(two.user.id, first.user.id);
    assert.equal(await app.value(
      'select count(*)::int from app.users where email = $1',
      ['ada@test.example']), 1);

    const [row] = await app.sql('select * from app.oauth_identities where '
      + 'user_id = $1', [first.user.id]);

    assert.deepEqual([row.issuer, row.subject, row.provider, row.email],
      [google.url, id, 'google', 'ada@test.example']);
    assert.deepEqual((await app.sql(`select action, changes->>'provider' as p
      from app.audit_log where actor = $1 order by id`, [first.user.id]))
      .map(({ action, p }) => `${action} ${p}`), [
      'user.register google', 'auth.login google', 'auth.refresh null',
      'auth.login google', 'auth.refresh null']);
  });

  test('a public client whose ID tokens say no address: userinfo does',
    async () => {
      const id = corp.person('bob');
      const { user } = await session(app, await signIn(app, corp, 'corp', id));

      assert.equal(user.email, 'bob@test.example');
      assert.ok(corp.asked.includes('GET /me'));
      assert.ok(!google.asked.includes('GET /me'));
    });

  test('what is sent to the provider', async () => {
    const browser = new Browser();
    const res = await browser.get(`${app.url}/api/v1/oauth/google?next=${
      encodeURIComponent('/events/event/?id=1&x=%2F')}&remember=true`);
    const url = new URL(res.location);
    const p = Object.fromEntries(url.searchParams);

    assert.equal(res.status, 302);
    assert.equal(url.origin + url.pathname, `${google.url}/auth`);
    assert.equal(p.response_type, 'code');
    assert.equal(p.client_id, google.clientId);
    assert.equal(p.redirect_uri, callback(app, 'google'));
    assert.equal(p.scope, 'openid email profile');
    assert.equal(p.code_challenge_method, 'S256');
    assert.match(p.state, /^[\w-]{22}$/);
    assert.match(p.nonce, /^[\w-]{43}$/);
    assert.match(p.code_challenge, /^[\w-]{43}$/);
    assert.notEqual(p.nonce, p.code_challenge);
    assert.match(res.headers['set-cookie'][0], new RegExp(
      `^__Host-stoa_oauth_${p.state.slice(0, 16)}=[\\w-]+; Max-Age=600; `
      + 'Path=/; HttpOnly; Secure; SameSite=Lax$'));

    /* no two flows have anything in common */
    const again = Object.fromEntries(new URL((await browser.get(
      `${app.url}/api/v1/oauth/google`)).location).searchParams);

    for (const name of ['state', 'nonce', 'code_challenge']) {
      assert.notEqual(p[name], again[name]);
    }

    /* and the cookie says neither: it is no secret of the page's, either */
    const value = [...browser.jar(app.url).values()].join();

    for (const name of ['state', 'nonce', 'code_challenge']) {
      assert.ok(!Buffer.from(value, 'base64url').includes(p[name]));
    }
  });

  test('remember, and the page that comes afterwards', async () => {
    const id = google.person('rem');
    const next = '/events/event/?id=1&x=%2F';
    const short = await signIn(app, google, 'google', id);
    const long = await signIn(app, google, 'google', id, { query:
      `?remember=true&next=${encodeURIComponent(next)}` });
    const cookie = (one) => one.res.headers['set-cookie'].find((line) =>
      line.startsWith(REFRESH));

    assert.ok(!cookie(short).includes('Max-Age'));
    assert.match(cookie(long), /Max-Age=2592000/);
    assert.equal(new URL(long.res.location).searchParams.get('next'), next);
  });

  test('redirects lead to pages of ours only', async () => {
    const ask = (next) => app.api('GET', `/api/v1/oauth/google?next=${
      encodeURIComponent(next)}`);

    for (const next of ['/events/', '/events/x', '/account/?a=b',
      '/events/?u=https://evil.example', '/events/a%20b']) {
      assert.equal((await ask(next)).status, 302, next);
    }
    for (const next of [
      'https://evil.example', '//evil.example', '///evil.example',
      '/\\evil.example', '\\\\evil.example', '/events//evil.example',
      '/events/../..//evil.example', '/events/../admin/', '/events/.',
      '/events/%2e%2e/x', '/events/%2fevil', '/events/%5cevil',
      '/events/%252fevil', '/eventsx', '/events', '/', '/admin/',
      'events/', ' /events/', '/events/ x', '/events/\t', '/events/\r\nX: y',
      '/events/#x', '/events/<b>', '/events/\u202e', '/Events/',
      'javascript:alert(1)', 'data:text/html,x', '/@evil.example', '.',
      '/events/é',
    ]) {
      const res = await ask(next);

      assert.equal(res.status, 400, `${next}: ${res.headers.location}`);
      assert.equal(res.headers['set-cookie'], undefined);
    }
    const twice = await app.api('GET',
      '/api/v1/oauth/google?next=/events/&next=//evil.example');

    assert.equal(twice.status, 400);
    /* nor does a host that somebody claims lead anywhere */
    const hosted = await app.api('GET', '/api/v1/oauth/google', { headers: {
      Host: 'evil.example', 'X-Forwarded-Host': 'evil.example',
      Forwarded: 'host=evil.example' } });

    assert.ok(!hosted.headers.location.includes('evil'));
  });

  test('several tabs, and states that are swapped', async () => {
    const browser = new Browser();
    const a = google.person('tab-a');
    const b = google.person('tab-b');
    const backs = [];

    for (const id of [a, b]) {
      browser.jars.delete(new URL(google.url).host); /* signs in anew */
      backs.push(await toCallback(app, browser, google, 'google', id));
    }
    assert.equal(flows(app, browser).length, 2);

    /* the code of one with the state of the other: PKCE and nonce tell */
    const [one, two] = backs.map((url) => new URL(url));
    const mixed = new URL(one);

    mixed.searchParams.set('code', two.searchParams.get('code'));

    const swapped = await browser.get(mixed.href);

    assert.equal(errorOf(swapped), 'OAUTH_INVALID');
    assert.equal(browser.jar(app.url).get(REFRESH), undefined);
    assert.equal(flows(app, browser).length, 1, 'the other goes on');

    assert.equal(errorOf(await browser.get(two.href)), null);

    /* both in order */
    const more = [];

    for (const id of [a, b]) {
      browser.jars.delete(new URL(google.url).host);
      more.push(await toCallback(app, browser, google, 'google', id));
    }
    for (const [i, id] of [[1, b], [0, a]]) {
      const res = await browser.get(more[i]);

      assert.equal(errorOf(res), null, res.location);

      const { user } = await session(app, { res,
        refresh: browser.jar(app.url).get(REFRESH) });

      assert.equal(user.email, `${id}@test.example`);
    }
  });

  test('tabs that were left alone do not fill the browser', async () => {
    const browser = new Browser();

    browser.jar(app.url).set('other', 'x');
    browser.jar(app.url).set(`__Host-stoa_oauth_${'x'.repeat(16)}`, 'garbage');
    for (let i = 0; i < 30; i++) {
      await browser.get(`${app.url}/api/v1/oauth/google`);
    }
    assert.ok(flows(app, browser).length <= 8,
      `${flows(app, browser).length}`);
    assert.ok(!browser.jar(app.url).has(
      `__Host-stoa_oauth_${'x'.repeat(16)}`));
    assert.ok(browser.jar(app.url).has('other'));

    /* the newest of them is one that works */
    const done = await signIn(app, google, 'google', google.person('many'),
      { browser });

    await session(app, done);
  });

  const guilty = async (url, browser = new Browser()) => {
    const res = await browser.get(url);

    assert.equal(res.status, 303, res.text);
    return errorOf(res);
  };

  /* Failures count; what a case is about is not how many there were. */
  const forgive = async () => {
    await signIn(app, google, 'google', google.person('forgive'));
  };

  test('a callback is worth nothing without its browser', async () => {
    const browser = new Browser();
    const back = await toCallback(app, browser, google, 'google',
      google.person('login-csrf'));

    assert.equal(await guilty(back), 'OAUTH_STATE_INVALID');

    /* nor with the cookie of another flow under its name */
    const other = new Browser();

    await other.get(`${app.url}/api/v1/oauth/google`);
    const [name] = flows(app, browser);

    other.jar(app.url).set(name, [...other.jar(app.url).values()][0]);
    assert.equal(await guilty(back, other), 'OAUTH_STATE_INVALID');
    await forgive();

    /* nor with one that was changed */
    const value = browser.jar(app.url).get(name);
    const raw = Buffer.from(value, 'base64url');

    for (const i of [0, 1, 9, 12, raw.length - 20, raw.length - 1]) {
      const bad = Buffer.from(raw);

      bad[i] ^= 1;
      other.jar(app.url).set(name, bad.toString('base64url'));
      assert.equal(await guilty(back, other), 'OAUTH_STATE_INVALID', `${i}`);
      await forgive();
    }
    for (const bad of ['', 'x', value.slice(1), `${value}A`,
      'A'.repeat(2000)]) {
      other.jar(app.url).set(name, bad);
      assert.equal(await guilty(back, other), 'OAUTH_STATE_INVALID');
      await forgive();
    }
    /* it was good all the time */
    assert.equal(errorOf(await browser.get(back)), null);
  });

  test('a callback counts once', async () => {
    const browser = new Browser();
    const back = await toCallback(app, browser, google, 'google',
      google.person('replay'));
    const cookies = [...browser.jar(app.url)];
    const first = await browser.get(back);

    assert.equal(errorOf(first), null);
    assert.equal(await guilty(back, browser), 'OAUTH_STATE_INVALID',
      'the browser has it no more');

    /* and who copied the cookie is told the same, before any call is made */
    const copy = new Browser();

    for (const [k, v] of cookies) copy.jar(app.url).set(k, v);
    google.asked.length = 0;
    assert.equal(await guilty(back, copy), 'OAUTH_STATE_INVALID');
    assert.deepEqual(google.asked, []);
    await forgive();
  });

  test('a code counts once', async () => {
    const browser = new Browser();
    const back = new URL(await toCallback(app, browser, google, 'google',
      google.person('code')));

    assert.equal(errorOf(await browser.get(back.href)), null);

    /* another flow of the same browser, with the code of the first */
    const other = new URL(await toCallback(app, browser, google, 'google',
      'code'));

    other.searchParams.set('code', back.searchParams.get('code'));
    assert.equal(await guilty(other.href, browser), 'OAUTH_INVALID');
    await forgive();
  });

  test('mix-up: another provider\'s answer is not taken', async () => {
    corp.person('mix');
    google.person('mix');
    corp.asked.length = 0;
    /* begun with one, come back as if from the other */
    const browser = new Browser();
    const back = await toCallback(app, browser, google, 'google', 'mix');
    const wrong = back.replace('/google/callback', '/corp/callback');

    assert.equal(await guilty(wrong, browser), 'OAUTH_STATE_INVALID');
    assert.deepEqual(corp.asked, []);

    /* RFC 9207: iss is there, and the right one */
    for (const iss of [corp.url, `${google.url}/`, '', undefined, 'x']) {
      const one = new Browser();
      const url = new URL(await toCallback(app, one, google, 'google', 'mix'));

      assert.equal(url.searchParams.get('iss'), google.url);
      if (iss === undefined) url.searchParams.delete('iss');
      else url.searchParams.set('iss', iss);
      google.asked.length = 0;
      assert.equal(await guilty(url.href, one), 'OAUTH_INVALID', `${iss}`);
      assert.ok(!google.asked.includes('POST /token'), 'no code is sent');
      await forgive();
    }
  });

  test('what the provider refuses is told', async () => {
    const browser = new Browser();
    const start = await browser.get(`${app.url}/api/v1/oauth/google`);
    const { searchParams } = new URL(start.location);
    const url = new URL(callback(app, 'google'));

    for (const [k, v] of Object.entries({ error: 'access_denied',
      error_description: '<script>alert(1)</script>', error_uri: 'javascript:',
      state: searchParams.get('state'), more: 'x', session_state: 'y' })) {
      url.searchParams.set(k, v);
    }

    const res = await browser.get(url.href);

    assert.equal(errorOf(res), 'OAUTH_DENIED');
    assert.ok(!res.location.includes('script'));
    assert.equal(new URL(res.location).searchParams.get('provider'),
      'google');
    assert.deepEqual(flows(app, browser), []);

    /* neither code nor error; odd ones */
    const other = new Browser();
    const state = new URL((await other.get(
      `${app.url}/api/v1/oauth/google`)).location).searchParams.get('state');

    assert.equal(await guilty(`${callback(app, 'google')}?state=${state}`,
      other), 'OAUTH_STATE_INVALID');
    for (const query of ['', '?code=x', '?state=', '?state=x&code=y',
      `?state=${'A'.repeat(22)}&code=y`, `?state=${state}%00&code=y`]) {
      const { status, location } = await other.get(
        callback(app, 'google') + query);

      assert.ok(status === 400 || new URL(location).searchParams.get('error')
        === 'OAUTH_STATE_INVALID', `${query} ${status}`);
      await forgive();
    }
  });

  test('no log has a token, a cookie or a secret', async () => {
    const done = await signIn(app, google, 'google', google.person('log'));
    const code = new URL(done.back).searchParams.get('code');

    await session(app, done);
    for (const name of fs.readdirSync(path.join(app.dir, 'log'))) {
      const text = fs.readFileSync(path.join(app.dir, 'log', name), 'latin1');

      for (const secret of [done.refresh, google.clientSecret,
        encodeURIComponent(google.clientSecret)]) {
        assert.ok(!text.includes(secret), name);
      }
      if (name.startsWith('access')) assert.ok(!text.includes(code), name);
    }
  });
});

describe('bounds of the flow', () => {
  let all, app, google;

  before(async () => {
    all = await together(['google']);
    ({ app, google } = all);
  });
  after(() => all?.stop());

  const ends = async (url, browser = new Browser()) => {
    const res = await browser.get(url);

    return res.status === 303 ? errorOf(res) : res.status;
  };

  test('twenty callbacks at once: one goes on', async () => {
    const race = new Browser();
    const again = await toCallback(app, race, google, 'google',
      google.person('race'));
    const headers = { Accept: '*/*', Cookie: [...race.jar(app.url)]
      .map(([k, v]) => `${k}=${v}`).join('; ') };
    const { pathname, search } = new URL(again);
    const all_ = await app.barrier(20, () => ({ method: 'GET',
      path: pathname + search, headers }));
    const codes = all_.map((res) => res.status !== 303 ? res.status
      : new URL(res.headers.location, app.url).searchParams.get('error'));

    assert.equal(codes.filter((code) => code === null).length, 1,
      JSON.stringify(codes));
    assert.equal(await app.value(`select count(*)::int from app.audit_log
      where action = 'auth.login' and request_id = any ($1)`,
    [all_.map((res) => res.headers['x-request-id'])]), 1);
  });

  test('no failure locks out who else is behind the address', async () => {
    /* what any page can make a browser ask for */
    for (let i = 0; i < 10; i++) {
      assert.equal(await ends(`${callback(app, 'google')}?state=${
        'A'.repeat(22)}&code=x`), 'OAUTH_STATE_INVALID');
    }
    /* what somebody does on purpose */
    for (let i = 0; i < 10; i++) {
      const browser = new Browser();
      const back = new URL(await toCallback(app, browser, google, 'google',
        google.person('mallory')));

      back.searchParams.set('code', 'x');
      assert.equal(await ends(String(back), browser), 'OAUTH_INVALID');
    }
    for (let i = 0; i < 10; i++) {
      const res = await app.api('POST', '/api/v1/oauth/google/token',
        { body: { idToken: 'x' } });

      assert.equal(`${res.status} ${res.error.code}`, '401 OAUTH_INVALID');
    }

    const done = await signIn(app, google, 'google', google.person('ada-11'));

    assert.equal((await session(app, done)).user.email, 'ada-11@test.example');
  });

  test('flows end by themselves', async () => {
    const browser = new Browser();
    const back = await toCallback(app, browser, google, 'google',
      google.person('late'));

    await app.clock.advance(601000);
    assert.equal(await ends(back, browser), 'OAUTH_STATE_INVALID');
  });
});

describe('clients', () => {
  for (const [auth, alg] of [['client_secret_post', 'PS256'],
    ['client_secret_basic', 'EdDSA']]) {
    test(`${auth}, ${alg}`, async () => {
      const all = await together(['idp'], { more: { idp: { auth, alg,
        settings: { clientAuth: auth.slice(14) } } } });

      try {
        const done = await signIn(all.app, all.idp, 'idp',
          all.idp.person('p'));

        assert.equal((await session(all.app, done)).user.email,
          'p@test.example');
      } finally {
        await all.stop();
      }
    });
  }

  test('without cookies there are no browsers, and no addresses for them',
    async () => {
      const all = await together(['idp'],
        { conf: { AUTH_COOKIE_MODE: 'off' } });

      try {
        const { data } = await all.app.api('GET', '/api/v1/oauth/providers');

        assert.deepEqual(data, [{ name: 'idp', title: 'idp' }]);
        for (const url of ['idp', 'idp/callback?state=x']) {
          assert.equal((await all.app.api('GET', `/api/v1/oauth/${url}`))
            .status, 404);
        }
      } finally {
        await all.stop();
      }
    });

  test('settings that make no sense are told', async () => {
    const app = await boot({ workers: 0 });
    const said = async (env) => {
      try {
        await app.stoa(['check'], { env });
        return '';
      } catch (error) {
        return error.message;
      }
    };
    const good = { name: 'idp', issuer: 'https://idp.example',
      clientId: 'c', clientSecret: 'SECRET-9' };

    try {
      for (const [value, sentence] of [
        [[good], ''], [[{ name: 'google', clientId: 'c' }], ''],
        [[{ ...good, audiences: ['a', 'b'], title: 'T', scope: 'openid x',
          clientAuth: 'post' }], ''],
        ['{', 'no JSON list'], [{}, 'no JSON list'], [['x'], 'no JSON list'],
        [[{ ...good, name: 'Idp' }], 'a name is of a-z'],
        [[{ ...good, name: 'providers' }], 'a name is of a-z'],
        [[{ ...good, name: '-x' }], 'a name is of a-z'],
        [[{ ...good, name: undefined }], 'a name is of a-z'],
        [[{ ...good, issuer: undefined }], 'an issuer is https://'],
        [[{ ...good, issuer: 'http://idp.example' }], 'an issuer is https://'],
        [[{ ...good, clientId: undefined }], 'no clientId'],
        [[{ ...good, clientId: 7 }], '"clientId"'],
        [[{ ...good, clientSecret: 'a\nb' }], 'no clientSecret'],
        [[{ ...good, clientSecret: undefined, clientAuth: 'basic' }],
          'a clientAuth without'],
        [[{ ...good, clientAuth: 'jwt' }], '"clientAuth"'],
        [[{ ...good, scope: 'email' }], 'no scope that begins'],
        [[{ ...good, audiences: Array(9).fill('x') }], '"audiences"'],
        [[{ ...good, audiences: [7] }], 'no audiences'],
        [[{ ...good, colour: 'red' }], '"colour"'],
        [[good, good], 'the second of this name'],
        [Array.from({ length: 17 }, (_, i) => ({ ...good, name: `i${i}` })),
          'too many'],
      ]) {
        const text = await said({ OIDC_PROVIDERS: typeof value === 'string'
          ? value : JSON.stringify(value) });

        assert.ok(sentence ? text.includes(sentence)
          : !text.includes('OIDC_PROVIDERS'), `${JSON.stringify(value)}: `
          + text);
        assert.ok(!text.includes('SECRET-9'));
      }
      assert.match(await said({ GOOGLE_CLIENT_ID: 'x', OIDC_PROVIDERS:
        JSON.stringify([{ name: 'google', clientId: 'y' }]) }),
      /the second of this name/);
      assert.match(await said({ OIDC_NEXT_PATHS: '/events' }),
        /OIDC_NEXT_PATHS/);
    } finally {
      await app.stop();
    }
  });
});

describe('providers that fail', () => {
  /* one whose answers are what a case wants, and a well one beside it */
  let is, app, good;

  before(async () => {
    is = await Issuer.start({ audience: 'c' });
    is.tokens = () => ({});
    app = await boot({ workers: 0, conf: { ISSUER_NETWORK: 'insecure',
      OIDC_PROVIDERS: JSON.stringify([{ name: 'odd', issuer: is.url,
        clientId: 'c', clientSecret: 's' }]) } });
    is.server.removeAllListeners('request');
    is.server.on('request', (req, res) => {
      if (req.method === 'POST' && req.url === '/token') {
        is.exchanged = (is.exchanged ?? 0) + 1;
        is.exchange(res);
      } else is.answer(req, res);
    });
    good = makeKey('ES256');
  });
  after(async () => {
    await app?.stop();
    await is?.stop();
  });

  const json = (value, status = 200) => (res) => res.writeHead(status,
    { 'Content-Type': 'application/json' }).end(JSON.stringify(value));

  /* A flow whose exchange gives an ID token of these claims. */
  async function flow(make, { exchange } = {}) {
    const browser = new Browser();
    const start = await browser.get(`${app.url}/api/v1/oauth/odd`);

    if (start.status !== 302) return { error: errorOf(start), start };

    const { nonce, state } = Object.fromEntries(
      new URL(start.location).searchParams);

    const access = 'an access token';
    const claims = (change = {}) => is.claims('odd', { aud: 'c', nonce,
      email: 'odd@test.example', email_verified: true, ...change });

    is.exchange = exchange ?? (await (async () => {
      const idToken = await make({ nonce, claims, access });

      return json({ id_token: idToken, access_token: access,
        token_type: 'Bearer' });
    })());

    const res = await browser.get(`${callback(app, 'odd')}?code=x&state=${
      state}`);
    const refresh = browser.jar(app.url).get(REFRESH);

    return { res, refresh, error: errorOf(res) };
  }

  const sign = (claims, more) => is.sign(claims, { head: { typ: 'JWT' },
    ...more });

  /* Five failures in a quarter of an hour would be told as such. */
  async function refused(make, code = 'OAUTH_INVALID', what = '') {
    const { error, refresh } = await flow(make);

    assert.equal(error, code, what);
    assert.equal(refresh, undefined);

    const fine = await flow(({ claims }) => sign(claims()));

    assert.equal(fine.error, null);
    assert.ok(fine.refresh);
  }

  test('ID tokens are for this client, this flow and this moment',
    async () => {
      const now = Math.floor(Date.now() / 1000);
      const hash = (text) => crypto.createHash('sha256').update(text).digest()
        .subarray(0, 16).toString('base64url');

      for (const change of [
        { aud: ['c'] }, { azp: 'c' }, { at_hash: hash('an access token') },
        { exp: now + 1, iat: now }, { email_verified: 'true' },
      ]) {
        const { error } = await flow(({ claims }) => sign(claims(change)));

        assert.equal(error, null, JSON.stringify(change));
      }
      for (const change of [
        { nonce: undefined }, { nonce: 'x' }, { nonce: '' }, { nonce: null },
        { nonce: ['x'] }, { aud: 'd' }, { aud: undefined }, { aud: [] },
        { aud: ['c', 'd'] }, { aud: ['c', 'd'], azp: 'c' },
        { azp: 'd' }, { azp: 7 }, { azp: null }, { iss: `${is.url}/` },
        { iss: undefined }, { iss: 'https://accounts.google.com' },
        { exp: now - 60 }, { exp: undefined }, { iat: now + 3600 },
        { iat: undefined }, { nbf: now + 600 }, { sub: '' },
        { sub: undefined }, { sub: 'x'.repeat(300) }, { sub: 7 },
        { at_hash: hash('another') }, { at_hash: '' }, { at_hash: 7 },
      ]) {
        await refused(({ claims }) => sign(claims(change)), 'OAUTH_INVALID',
          JSON.stringify(change));
      }
      /* the nonce of another tab */
      let theirs;

      await flow(({ nonce, claims }) => {
        theirs = nonce;
        return sign(claims());
      });
      await refused(({ claims }) => sign(claims({ nonce: theirs })));
    });

  test('ID tokens are signed by their issuer', async () => {
    const other = makeKey('ES256');
    const part = (value) => Buffer.from(JSON.stringify(value))
      .toString('base64url');
    const [key] = is.keys;

    await refused(({ claims }) => sign(claims(), { key: other }));
    await refused(({ claims }) => sign(claims(),
      { key: { ...other, kid: key.kid } }));
    await refused(({ claims }) =>
      `${part({ alg: 'none', kid: key.kid })}.${part(claims())}.`);
    await refused(({ claims }) =>
      `${part({ alg: 'none' })}.${part(claims())}.`);
    for (const secret of ['s', key.publicKey.export({ type: 'spki',
      format: 'pem' })]) {
      await refused(({ claims }) => sign(claims(), { key: { alg: 'HS256',
        kid: key.kid, privateKey: Buffer.from(secret) } }));
    }
    await refused(({ claims }) => sign(claims(), { head:
      { typ: 'at+jwt' } }));
    await refused(({ claims }) => sign(claims(), { head:
      { jwk: other.jwk, typ: 'JWT' }, key: { ...other, kid: undefined } }));
    await refused(() => 'x.y.z');
    await refused(() => '');
    await refused(() => 7);
    await refused(() => undefined);
    /* one of ours is none of theirs */
    await refused(async () => (await app.user()).token);
  });

  test('keys that rolled while somebody signs in', async () => {
    is.keys = [good, ...is.keys];
    await app.clock.advance(31000);

    const { error } = await flow(({ claims }) => sign(claims({
      iat: Math.floor(Date.now() / 1000), exp:
        Math.floor(Date.now() / 1000) + 3600 }), { key: good }));

    assert.equal(error, null);
  });

  test('answers that are none', async () => {
    const big = 'x'.repeat(300 * 1024);
    const away = await Issuer.start();
    const cases = {
      'an error': [json({ error: 'x' }, 500), 'ISSUER_UNAVAILABLE'],
      'too many requests': [json({}, 429), 'ISSUER_UNAVAILABLE'],
      'no JSON': [(res) => res.end('<html>'), 'ISSUER_UNAVAILABLE'],
      'a list': [json([]), 'ISSUER_UNAVAILABLE'],
      'too large': [json({ id_token: big }), 'ISSUER_UNAVAILABLE'],
      'too large at all': [(res) => res.writeHead(200).end(big),
        'ISSUER_UNAVAILABLE'],
      'a redirect': [(res) => res.writeHead(307,
        { Location: `${away.url}/token` }).end(), 'ISSUER_UNAVAILABLE'],
      'cut': [(res) => {
        res.writeHead(200, { 'Content-Length': 1000 });
        res.write('{');
        setTimeout(() => res.destroy(), 20);
      }, 'ISSUER_UNAVAILABLE'],
      'refused': [json({ error: 'invalid_grant' }, 400), 'OAUTH_INVALID'],
      'unauthorized': [json({ error: 'invalid_client' }, 401),
        'OAUTH_INVALID'],
      'no token': [json({ access_token: 'x' }), 'OAUTH_INVALID'],
    };

    for (const [what, [exchange, code]] of Object.entries(cases)) {
      const { error, refresh } = await flow(undefined, { exchange });

      assert.equal(error, code, what);
      assert.equal(refresh, undefined);
      await flow(({ claims }) => sign(claims()));
    }
    assert.deepEqual(away.asked, { document: 0, keys: 0 });
    await away.stop();
  });

  test('a slow one ends at its deadline, and holds up nobody else',
    async () => {
      const user = await app.user();
      const from = Date.now();
      const slow = flow(undefined, { exchange: () => {} });

      await until(() => is.exchange, { what: 'the exchange' });
      for (let i = 0; i < 20; i++) {
        assert.equal((await app.api('GET', '/api/v1/auth/check',
          { token: user.token })).status, 200);
      }
      assert.ok(Date.now() - from < 4000, 'others do not wait');
      assert.equal((await slow).error, 'ISSUER_UNAVAILABLE');

      /* clients that leave meanwhile; and a reload */
      const browser = new Browser();
      const start = await browser.get(`${app.url}/api/v1/oauth/odd`);
      const state = new URL(start.location).searchParams.get('state');
      const abort = new AbortController();
      const before_ = is.exchanged;

      is.exchange = () => {};

      const gone = app.api('GET', `/api/v1/oauth/odd/callback?code=x&state=${
        state}`, { signal: abort.signal, headers: { Cookie:
        [...browser.jar(app.url)].map(([k, v]) => `${k}=${v}`).join('; ') } });

      gone.catch(() => {});
      await until(() => is.exchanged > before_, { what: 'the exchange' });
      abort.abort();
      await assert.rejects(gone);
      await app.nginx.reload();
    });

  test('one that is away says so, and is asked again when it is back',
    async () => {
      const fresh = await Issuer.start({ audience: 'c' });

      await fresh.stop();

      const all = await boot({ workers: 0, conf: { ISSUER_NETWORK: 'insecure',
        OIDC_PROVIDERS: JSON.stringify([{ name: 'gone', issuer: fresh.url,
          clientId: 'c', clientSecret: 's' }]) } });

      try {
        const browser = new Browser();
        const from = Date.now();
        const res = await browser.get(`${all.url}/api/v1/oauth/gone`);

        assert.equal(res.status, 303);
        assert.equal(errorOf(res), 'ISSUER_UNAVAILABLE');
        assert.ok(Date.now() - from < 12000);

        const token = await all.api('POST', '/api/v1/oauth/gone/token',
          { body: { idToken: await fresh.token('x') } });

        assert.equal(token.status, 503);
        assert.equal(token.error.code, 'ISSUER_UNAVAILABLE');
        await fresh.restart();
        await until(async () => (await browser.get(
          `${all.url}/api/v1/oauth/gone`)).status === 302,
        { what: 'the provider' });
      } finally {
        await all.stop();
        await fresh.stop();
      }
    });

  test('userinfo about somebody else is not taken', async () => {
    const idp = await Issuer.start({ audience: 'c' });
    let info = {};

    idp.says = { userinfo_endpoint: `${idp.url}/me` };

    const one = await boot({ workers: 0, conf: { ISSUER_NETWORK: 'insecure',
      OIDC_PROVIDERS: JSON.stringify([{ name: 'idp', issuer: idp.url,
        clientId: 'c' }]) } });

    idp.server.removeAllListeners('request');
    idp.server.on('request', async (req, res) => {
      if (req.url === '/token') {
        res.end(JSON.stringify({ access_token: 'x', id_token:
          await idp.sign(idp.claims('me', { aud: 'c', nonce: idp.nonce }),
            { head: { typ: 'JWT' } }) }));
      } else if (req.url === '/me') {
        assert.equal(req.headers.authorization, 'Bearer x');
        res.writeHead(info.status ?? 200).end(JSON.stringify(info));
      } else idp.answer(req, res);
    });

    try {
      for (const [what, code] of [
        [{ sub: 'you', email: 'v@test.example', email_verified: true },
          'OAUTH_INVALID'],
        [{ email: 'v@test.example', email_verified: true }, 'OAUTH_INVALID'],
        [{ status: 500 }, 'ISSUER_UNAVAILABLE'],
        [{ sub: 'me' }, 'ACCOUNT_EXISTS_SIGN_IN_FIRST'],
        [{ sub: 'me', email: 'not an address', email_verified: true },
          'ACCOUNT_EXISTS_SIGN_IN_FIRST'],
        [{ sub: 'me', email: 'v@test.example', email_verified: false },
          'ACCOUNT_EXISTS_SIGN_IN_FIRST'],
        [{ sub: 'me', email: 'v@test.example', email_verified: 1 },
          'ACCOUNT_EXISTS_SIGN_IN_FIRST'],
        [{ sub: 'me', email: 'v@test.example', email_verified: true }, null],
      ]) {
        const browser = new Browser();
        const start = await browser.get(`${one.url}/api/v1/oauth/idp`);
        const p = Object.fromEntries(new URL(start.location).searchParams);

        idp.nonce = p.nonce;
        info = what;

        const res = await browser.get(`${callback(one, 'idp')}?code=x&state=${
          p.state}`);

        assert.equal(errorOf(res), code, JSON.stringify(what));
      }
      assert.equal(await one.value('select count(*)::int from app.users'), 1);
    } finally {
      await one.stop();
      await idp.stop();
    }
  });
});
