/*
 * Guesses: the limit of failures holds for guesses that come together, for
 * every spelling of the address, for both verdicts alike; it locks the pair
 * out and not the owner; what is mailed on request is mailed a few times.
 */

import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, describe, test } from 'node:test';
import { boot } from '../harness/index.js';

let app;

before(async () => {
  app = await boot({ workers: 0 });
});
after(() => app?.stop());

const guess = (email, password) => ({
  method: 'POST', path: '/api/v1/auth/login', body: { email, password } });

function tally(all) {
  const by = {};

  for (const { status } of all) by[status] = (by[status] ?? 0) + 1;
  return by;
}

function from(address, spec) {
  const body = JSON.stringify(spec.body);

  return new Promise((done, failed) => {
    const req = http.request({ host: '127.0.0.1', port: app.port,
      localAddress: address, method: spec.method, path: spec.path,
      headers: { 'Content-Type': 'application/json',
        'Content-Length': Buffer.byteLength(body) } }, (res) => {
      res.resume();
      done(res.statusCode);
    });

    req.on('error', failed);
    req.end(body);
  });
}

test('guesses that come together count like guesses in a row', async () => {
  const user = await app.user();
  const all = await app.barrier(60, () => guess(user.email, 'not this one'));

  assert.deepEqual(tally(all), { 401: 5, 429: 55 });
});

test('the audit log knows whose account was tried, and from where',
  async () => {
    const user = await app.user();
    const since = await app.value('select max(id) from app.audit_log');
    const ask = (email, password) => app.api('POST', '/api/v1/auth/login',
      { body: { email, password } });

    for (let i = 0; i < 8; i++) await ask(user.email, `wrong guess ${i}`);
    await ask('nobody-to-log@test.example', 'wrong guess');

    const row = { action: 'auth.login_failed', actor: null,
      resource: 'user', changes: null, ip: '127.0.0.1' };

    assert.deepEqual(await app.sql(`select action, actor, resource,
        resource_id, changes, ip
      from app.audit_log where id > $1 order by id`, [since]), [
      ...Array(5).fill({ ...row, resource_id: user.id }),
      { ...row, resource_id: null }]);
  });

test('the right one among them is not found behind the fifth', async () => {
  const user = await app.user();

  for (let i = 0; i < 4; i++) {
    await app.api('POST', '/api/v1/auth/login',
      { body: { email: user.email, password: `wrong guess ${i}` } });
  }
  const all = await app.barrier(30, () => guess(user.email, 'wrong once more'));

  assert.deepEqual(tally(all), { 401: 1, 429: 29 });
  assert.deepEqual(tally(await app.barrier(5,
    () => guess(user.email, user.password))), { 429: 5 });
  assert.equal(await from('127.0.0.77', guess(user.email, user.password)), 200,
    'the owner from elsewhere');
});

test('many right ones at once are all let in', async () => {
  const user = await app.user();

  assert.deepEqual(tally(await app.barrier(20,
    () => guess(user.email, user.password))), { 200: 20 });
});

test('another spelling of the address is the same account', async () => {
  const user = await app.user();
  const [name, domain] = user.email.split('@');

  for (const email of [user.email, user.email.toUpperCase(),
    `${name.toUpperCase()}@${domain}`, `${name}@${domain.toUpperCase()}`,
    `${name[0].toUpperCase()}${name.slice(1)}@${domain}`]) {
    assert.equal((await app.api('POST', '/api/v1/auth/login',
      { body: { email, password: 'not this one' } })).status, 401, email);
  }
  assert.equal((await app.api('POST', '/api/v1/auth/login',
    { body: { email: user.email, password: user.password } })).status, 429);
});

test('what is no plain address is no account', async () => {
  const user = await app.user();

  for (const email of [` ${user.email}`, `${user.email} `, `${user.email}\n`,
    `${user.email}\u0000`, user.email.replace('t', '\u0163'),
    user.email.replace('member', 'membe\u211a'), `"${user.email}"`,
    `<${user.email}>`, `${user.email},x@y.example`,
    `${user.email}\r\nBcc: x`]) {
    assert.equal((await app.api('POST', '/api/v1/auth/login',
      { body: { email, password: user.password } })).status, 400,
    JSON.stringify(email));
  }
});

test('an unknown account is counted like a known one', async () => {
  const email = 'nobody-at-all@test.example';

  assert.deepEqual(tally(await app.barrier(12,
    () => guess(email, 'whatever it is'))), { 401: 5, 429: 7 });
});

test('a password that changed while it was tried lets nobody in',
  async () => {
    const user = await app.user();
    const lock = await app.client();

    /* the login has read the hash, and its last statement waits */
    await lock.query('begin');
    await lock.query('update app.users set version = version where id = $1',
      [user.id]);
    const sessions = async () => app.value(
      'select count(*)::int from app.login_sessions where user_id = $1',
      [user.id]);
    const had = await sessions();
    const login = app.api('POST', '/api/v1/auth/login',
      { body: { email: user.email, password: user.password } });

    while (!await app.value(`select count(*)::int from pg_stat_activity
      where datname = $1 and wait_event_type = 'Lock'`, [app.id])) {
      await new Promise((done) => { setTimeout(done, 10); });
    }
    await lock.query(`update app.users set password_hash = 'changed'
      where id = $1`, [user.id]);
    await lock.query('commit');

    const res = await login;

    assert.equal(res.status, 401, res.text);
    assert.equal(res.error.code, 'INVALID_CREDENTIALS');
    assert.equal(await sessions(), had);
    assert.equal(await app.value(
      'select password_hash from app.users where id = $1', [user.id]),
    'changed');
  });

test('mails on request: one waits at a time, five in an hour', async () => {
  const user = await app.user();
  const forgot = () => app.api('POST', '/api/v1/auth/forgot-password',
    { body: { email: user.email } });
  const waiting = () => app.value(`select count(*)::int from queue.outbox
    where payload->>'user_id' = $1 and payload->>'template' = 'password_reset'`,
  [user.id]);
  const answers = new Set();

  for (let i = 0; i < 10; i++) answers.add((await forgot()).status);
  assert.equal(await waiting(), 1);

  for (let i = 0; i < 7; i++) {
    await app.sql(`delete from queue.outbox where payload->>'user_id' = $1`,
      [user.id]);
    answers.add((await forgot()).status);
    if (await waiting()) { /* what the worker does right before it sends */
      await app.sql(`select task.mail_token(null, jsonb_build_object(
        'template', 'password_reset', 'user_id', $1::uuid), $2,
        sha256($3::bytea))`, [user.id, user.email, `token ${i}`]);
    } else {
      assert.equal(i, 5, 'the sixth is not sent');
      break;
    }
  }
  assert.deepEqual([...answers], [200]);
});

test('codes that are guessed: no verdict without the whole of it',
  async () => {
    for (const [path, body] of [
      ['reset-password', (i) => ({ token: `${'A'.repeat(42)}${i}`,
        newPassword: 'a long enough password' })],
      ['refresh', (i) => ({ refreshToken: `A${i}${'A'.repeat(60)}` })],
    ]) {
      const texts = new Set();

      for (let i = 0; i < 8; i++) {
        const res = await app.api('POST', `/api/v1/auth/${path}`,
          { body: body(i) });

        assert.ok([400, 401].includes(res.status), res.text);
        texts.add(`${res.error.code} ${JSON.stringify(res.error.errors)}`);
      }
      assert.equal(texts.size, 1, [...texts].join('\n'));
    }
  });

/* A guesser with many addresses, on the owner's one account. */
for (const nginxWorkers of [1, 4]) {
  describe(`from many addresses, ${nginxWorkers} nginx workers`, () => {
    let all;

    before(async () => {
      all = await boot({ workers: 0, nginxWorkers, nginx: { http:
        'set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For;' } });
      await all.clock.freeze();
    });
    after(() => all?.stop());

    const login = (user, address, password = user.password) => all.api('POST',
      '/api/v1/auth/login', { body: { email: user.email, password },
        headers: { 'X-Forwarded-For': address } });
    const status = async (...args) => (await login(...args)).status;
    /* in parts, which the queue of hashes has room for */
    const wrong = async (user, addresses) => {
      const got = [];

      while (got.length < addresses.length) {
        got.push(...await Promise.all(addresses.slice(got.length,
          got.length + 20).map((address) =>
          login(user, address, 'not this one'))));
      }
      return got;
    };
    const many = (n, address) => Array.from({ length: n }, (_, i) =>
      address(i));

    test('a /48 is one guesser, whatever it makes of its /64s', async () => {
      const [user, other] = [await all.user(), await all.user()];
      const home = '2001:db8:aa:1::7';
      const net = (i) => `2001:db8:aa:${(i + 16).toString(16)}::1`;

      assert.equal(await status(user, home), 200);
      assert.deepEqual(tally(await wrong(user, many(40, net))),
        { 401: 20, 429: 20 });

      const res = await login(user, net(99));

      assert.equal(res.status, 429, 'the right one is not found, either');
      assert.ok(Number(res.headers['retry-after']) >= 890);
      assert.equal(await status(user, '2001:db8:ab:1::7'), 200, 'elsewhere');
      assert.equal(await status(user, home), 200, 'where they were before');
      assert.equal(await status(other, net(99)), 200, 'another account');
    });

    test('an account has a count of its own, which locks nobody out',
      async () => {
        const [user, other] = [await all.user(), await all.user()];
        const [home, away] = ['198.51.100.1', '198.51.100.2'];
        const net = (i) => `203.0.113.${i}`;

        assert.equal(await status(user, home), 200);
        assert.deepEqual(tally(await wrong(user, many(130, net))),
          { 401: 100, 429: 30 });

        const res = await login(user, away);

        assert.equal(res.status, 429);
        assert.ok(Number(res.headers['retry-after']) <= 60, 'a minute');
        assert.equal(await status(other, net(1)), 200, 'another account');

        /* whoever got in before has the whole of the pair's own count */
        for (let i = 0; i < 4; i++) {
          assert.equal(await status(user, home, 'a slip'), 401);
        }
        assert.equal(await status(user, home), 200);

        /* one guess in a minute; the wait does not grow */
        for (let i = 0; i < 3; i++) {
          await all.clock.advance(60000);
          assert.deepEqual(tally(await wrong(user, many(8, (n) =>
            net(200 + 8 * i + n)))), { 401: 1, 429: 7 });
        }
        await all.clock.advance(60000);
        assert.equal(await status(user, away), 200);
        assert.equal(await status(user, net(254)), 200,
          'and whoever gets in does not wait for it again');
      });
  });
}
