/*
 * Who one is, on one nginx worker, on four, and on two nodes: one account per
 * address (I-37), one successor per refresh token (I-38), one use of a reset
 * token, after which nothing old works anywhere (I-39), nothing to tell known
 * from unknown accounts by (I-40), and guesses that stay counted (I-42; its
 * limits are in limits.test.js).  The guards are taken away in t/unguarded,
 * what is C in t/mutants.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import http from 'node:http';
import { after } from 'node:test';
import { LOGGED, look, numbers, same } from '../harness/alike.js';
import { sleep, until } from '../harness/index.js';
import { Issuer } from '../harness/issuer.js';
import {
  ON_FOUR, ON_ONE, ON_TWO_NODES, must, onSetUps, rounds, tally,
} from './kit.js';

const PASSWORD = 'correct horse battery staple';
const REFRESH = '__Host-stoa_refresh';

const issuer = await Issuer.start({ audience: 'web' });

after(() => issuer.stop());

const OPTIONS = {
  people: 1,
  conf: { ISSUER_NETWORK: 'insecure', OIDC_PROVIDERS: JSON.stringify([
    { name: 'google', issuer: issuer.url, clientId: 'web' }]) },
  nginx: { replace: LOGGED },
};

const auth = (what, body, more = {}) => ({ method: 'POST',
  path: `/api/v1/auth/${what}`, body, ...more });
const ask = (app, spec) => app.api(spec.method, spec.path, spec);
const spread = (app, i) => i % app.nodes.length;

/* Each way of writing one address that its case allows. */
const spelled = (email) => [...email].map((c) =>
  crypto.randomInt(2) ? c.toUpperCase() : c).join('');

const registration = (app, i, email) => auth('register', {
  email: spelled(email), password: PASSWORD, firstName: 'A', lastName: 'B',
}, { node: spread(app, i) });

const login = (user, password, more) => auth('login',
  { email: user.email, password }, more);

/* What there is of this address: nothing but one account and its own. */
async function oneAccount(app, email) {
  const users = await app.sql(
    'select id from app.users where lower(email::text) = $1', [email]);

  assert.equal(users.length, 1, `${users.length} accounts`);

  const [{ id }] = users;

  assert.deepEqual(await app.sql(`
    select 'mail' as orphan from queue.outbox o
    where o.payload ? 'user_id' and not exists (select from app.users u
      where u.id = (o.payload->>'user_id')::uuid)
    union all select 'session' from app.login_sessions s
    where not exists (select from app.users u where u.id = s.user_id)
    union all select 'identity' from app.oauth_identities i
    where not exists (select from app.users u where u.id = i.user_id)
    union all select 'audit' from app.audit_log a
    where a.action = 'user.register' and not exists (
      select from app.users u where u.id::text = a.resource_id)`), []);
  return id;
}

const everywhere = (app, fn) => Promise.all(
  app.nodes.map((_node, node) => fn(node)));

const check = async (app, token, node) => (await app.api('GET',
  '/api/v1/auth/check', { token, node })).status;

/* The node that ended it at once, the others when they have heard of it. */
async function refused(app, token, served) {
  if (served !== undefined) {
    assert.equal(await check(app, token, served), 401,
      'the node that ended it lets it in');
  }
  await everywhere(app, (node) => until(
    async () => await check(app, token, node) === 401,
    { timeout: 1000, what: `node ${node} to refuse the token` }));
}

function cookieOf(res) {
  const [pair] = (res.headers['set-cookie'] ?? [])
    .filter((c) => c.startsWith(`${REFRESH}=`)).map((c) => c.split(';')[0]);

  return pair?.slice(REFRESH.length + 1);
}

/* The token of a mail, as the worker stores it before it sends. */
async function resetToken(app, user) {
  const token = crypto.randomBytes(32);

  await app.sql(`select task.mail_token(null, jsonb_build_object('template',
    'password_reset', 'user_id', $1::uuid), $2, sha256($3))`,
  [user.id, user.email, token]);
  return token.toString('base64url');
}

/* From an address of this machine that nobody else uses. */
function from(localAddress, { port }, spec) {
  const body = JSON.stringify(spec.body);

  return new Promise((done, failed) => {
    const req = http.request({ host: '127.0.0.1', port, localAddress,
      method: spec.method, path: spec.path, headers: {
        'Content-Type': 'application/json',
        'Content-Length': Buffer.byteLength(body) } }, (res) => {
      res.resume();
      res.on('end', () => done(res.statusCode));
    });

    req.on('error', failed);
    req.end(body);
  });
}

onSetUps([ON_ONE, ON_FOUR, ON_TWO_NODES], OPTIONS, ({ plain, race }) => {
  const fresh = () => `i37-${crypto.randomBytes(6).toString('hex')}@t.example`;

  race('I-37: an address registers once, however it is written',
    { n: rounds(0.3), guard: 'i37_register' }, async (app) => {
      const email = fresh();

      assert.deepEqual(tally(await app.barrier(20,
        (i) => registration(app, i, email))), { 201: 1, EMAIL_TAKEN: 19 });

      const id = await oneAccount(app, email);

      assert.equal(await app.value(`select count(*)::int
        from app.login_sessions where user_id = $1`, [id]), 1);
    });

  race('I-37: a password and a provider at once',
    { n: rounds(0.3), guard: 'i37' }, async (app) => {
      const email = fresh();
      const sub = crypto.randomUUID();
      const tokens = await Promise.all(Array.from({ length: 4 }, () =>
        issuer.sign(issuer.claims(sub, { email: spelled(email),
          email_verified: true }), { head: { typ: 'JWT' } })));
      const all = await app.barrier(20, (i) => (i % 5 ? registration(app, i,
        email) : { method: 'POST', path: '/api/v1/oauth/google/token',
        body: { idToken: tokens[i / 5] }, node: spread(app, i) }));
      const { 201: made = 0, EMAIL_TAKEN: taken, ...rest } = tally(
        all.filter((_res, i) => i % 5));

      assert.deepEqual(rest, {});
      assert.ok(made <= 1 && made + taken === 16, `${made}, ${taken}`);
      assert.deepEqual(tally(all.filter((_res, i) => i % 5 === 0)),
        { 200: 4 });

      const id = await oneAccount(app, email);

      for (const { data } of all.filter(({ status }) => status < 300)) {
        assert.equal(data.user.id, id);
      }
      assert.deepEqual(await app.sql(`select subject from
        app.oauth_identities where user_id = $1`, [id]), [{ subject: sub }]);

      /* whoever registered never proved the address, and is out */
      const [registered] = all.filter(({ status }) => status === 201);

      if (registered) await refused(app, registered.data.accessToken);
    });

  for (const tabs of [2, 5, 20]) {
    race(`I-38: ${tabs} tabs refresh with one token`,
      { n: rounds(0.3), guard: tabs === 20 ? 'i38' : undefined },
      async (app) => {
        const user = await app.user();
        const all = await app.barrier(tabs, (i) => auth('refresh',
          { refreshToken: user.refreshToken }, { node: spread(app, i) }));

        assert.deepEqual(tally(all), { 200: tabs });
        assert.deepEqual([...new Set(all.map(({ data }) =>
          data.refreshToken))].length, 1, 'one successor');
        assert.equal(all.filter(({ data }) =>
          data.refresh === 'rotated').length, 1);

        const [successor] = all.map(({ data }) => data.refreshToken);

        assert.deepEqual([...new Set(all.map(cookieOf))], [successor]);

        /* the cookie is good on whichever node */
        const last = app.nodes.length - 1;
        const answer = await ask(app, auth('refresh', undefined,
          { node: last, headers: { Cookie: `${REFRESH}=${successor}`,
            'X-Requested-With': 'test' } }));
        const next = await must(200, answer);

        await app.clock.advance(31000);
        for (const refreshToken of [successor, cookieOf(answer),
          user.refreshToken]) {
          const res = await ask(app, auth('refresh', { refreshToken }));

          assert.equal(res.status, 401, res.text);
          assert.equal(res.error.code, 'REFRESH_INVALID');
        }
        assert.deepEqual(await app.sql(`select reason from
          app.login_sessions where user_id = $1`, [user.id]),
        [{ reason: 'refresh token reused' }]);
        for (const token of [user.token, next.accessToken,
          ...all.map(({ data }) => data.accessToken)]) {
          await refused(app, token, 0);
        }
      });
  }

  race('I-39: a reset token in ten hands',
    { n: rounds(0.3), guard: 'i39' }, async (app) => {
      const user = await app.user();
      const last = app.nodes.length - 1;
      const phone = await must(200, ask(app, login(user, user.password,
        { node: last })));
      const token = await resetToken(app, user);
      const password = (i) => `another good password ${i}`;
      const all = await app.barrier(10, (i) => auth('reset-password',
        { token, newPassword: password(i) }, { node: spread(app, i) }));

      assert.deepEqual(tally(all), { 200: 1, VALIDATION_FAILED: 9 });

      const won = all.findIndex(({ status }) => status === 200);

      for (const refreshToken of [user.refreshToken, phone.refreshToken]) {
        for (let node = 0; node <= last; node++) {
          const res = await ask(app, auth('refresh', { refreshToken },
            { node }));

          assert.equal(res.status, 401, res.text);
          assert.equal(cookieOf(res), undefined);
        }
      }
      for (const old of [user.token, phone.accessToken]) {
        await refused(app, old, spread(app, won));
      }
      await everywhere(app, async (node) => {
        assert.equal((await ask(app, login(user, user.password, { node })))
          .status, 401);
      });

      const now = await must(200, ask(app, login(user, password(won),
        { node: last })));

      assert.deepEqual(await everywhere(app, (node) =>
        check(app, now.accessToken, node)), app.nodes.map(() => 200));
    });

  plain('I-40: a known and an unknown address get the same', async (app) => {
    const user = await app.user();
    const nobody = user.email.replace(/[0-9a-f]{12}/,
      () => crypto.randomBytes(6).toString('hex'));

    for (let node = 0; node < app.nodes.length; node++) {
      assert.equal((await same(app, 'login',
        { email: user.email, password: 'not the password' },
        { email: nobody, password: 'not the password' }, { node })).error,
      'INVALID_CREDENTIALS');
      for (const path of ['forgot-password', 'reset-password']) {
        assert.equal((await same(app, path, { email: user.email },
          { email: nobody }, { node })).status, 200);
      }
    }
    /* registering tells, by contract: but what it tells is one code */
    assert.equal((await look(app, 'register', { email: user.email,
      password: PASSWORD, firstName: 'A', lastName: 'B' })).error,
    'EMAIL_TAKEN');
  });

  plain('I-40: as many hashes for either', async (app) => {
    const user = await app.user();

    for (let node = 0; node < app.nodes.length; node++) {
      const made = [];

      for (const email of [user.email, 'nobody@t.example']) {
        const was = await numbers(app, { node });

        for (let i = 0; i < 3; i++) {
          await look(app, 'login', { email, password: `wrong ${i}` },
            { node });
        }
        const is = await numbers(app, { node });

        made.push(Object.keys(is).map((name) =>
          [name, is[name] - (was[name] ?? 0)]).filter(([, n]) => n));
        assert.equal(is.hashes - was.hashes, 3);
      }
      assert.deepEqual(made[0], made[1]);
    }
  });

  plain('I-42: guesses stay counted when nginx is started again',
    async (app) => {
      const user = await app.user();
      const last = app.nodes.length - 1;
      const guess = (node) => ask(app, login(user, 'not this one', { node }));
      const known = () => app.value(`select count(*)::int
        from app.auth_throttle where fails >= 5`);
      const had = await known();

      /* together they are counted like one after the other */
      assert.deepEqual(tally(await app.barrier(12, () =>
        login(user, 'not this one', { node: last }))),
      { INVALID_CREDENTIALS: 5, RATE_LIMITED: 7 });

      const res = await ask(app, login(user, user.password, { node: last }));

      assert.equal(res.status, 429, res.text);
      assert.ok(Number(res.headers['retry-after']) > 890);
      await until(async () => await known() > had,
        { timeout: 20000, what: 'the count to be stored' });
      for (const { nginx } of app.nodes) {
        await nginx.stop();
        await nginx.start();
      }

      /* now each node knows it; the right password changes nothing */
      for (let node = 0; node <= last; node++) {
        assert.equal((await guess(node)).status, 429, `node ${node}`);
        assert.equal((await ask(app, login(user, user.password, { node })))
          .status, 429);
        assert.equal(await from('127.0.0.77', app.nodes[node],
          login(user, user.password)), 200, 'the owner from elsewhere');
      }
    });

  plain('I-42: guesses at one node count at every other', async (app) => {
    const last = app.nodes.length - 1;

    /* hearing of it takes a second, on an idle machine */
    const told = async (fails) => {
      await until(() => app.value(`select true from app.auth_throttle
        where fails = $1`, [fails]), { what: `${fails} failures to be known` });
      await sleep(1500);
    };
    const attempt = async (what) => {
      const user = await app.user();

      await app.sql('delete from app.auth_throttle');
      return what(async (node, password = 'not this one') =>
        (await ask(app, login(user, password, { node }))).status, user);
    };
    const holds = async (what, why) => {
      for (let i = 0; i < 5; i++) if (await attempt(what)) return;
      assert.fail(why);
    };

    await holds(async (guess, user) => {
      for (const node of [last, 0, 0]) assert.equal(await guess(node), 401);
      await told(3);
      for (const node of [0, last]) assert.equal(await guess(node), 401);
      await told(5);
      return await guess(0, user.password) === 429
        && await guess(last, user.password) === 429;
    }, 'each node counts for itself');

    /* who gets in at one begins anew at each */
    await holds(async (guess, user) => {
      for (const node of [0, 0, 0, 0]) assert.equal(await guess(node), 401);
      await told(4);
      assert.equal(await guess(last, user.password), 200);
      await sleep(1500);
      return await guess(0) === 401 && await guess(0) === 401;
    }, 'what one forgot is not forgotten by all');
  });
});
