/*
 * Passwords: what is refused as one, all of it counts, hashes of another
 * system are taken over, a change ends what others have; and sign-ins beyond
 * what the threads can do are refused soon, by turns of address prefixes,
 * while everything else is served.
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import crypto from 'node:crypto';
import http from 'node:http';
import { after, before, test } from 'node:test';
import { BUILD, boot, until } from '../harness/index.js';

let app, narrow;

before(async () => {
  app = await boot({ workers: 0 });
});
after(async () => {
  await app?.stop();
  await narrow?.stop();
});

const auth = (what, body, extra = {}) =>
  app.api('POST', `/api/v1/auth/${what}`, { body, ...extra });
const login = (email, password) => auth('login', { email, password });
const stored = (id) => app.value(
  'select password_hash from app.users where id = $1', [id]);

/* The id that "stoa user add" prints. */
const add = (email, more, { env, input } = {}) =>
  execFileSync(`${BUILD}/stoa`, ['user', 'add', email, '--role', 'member',
    ...more], { input, encoding: 'utf8',
    env: { ...process.env, STOA_CONF: app.confFile, ...env } }).trim();

/* The faults of an answer as "pointer code". */
const faults = (res) => (res.error?.errors ?? [])
  .map(({ pointer, code }) => `${pointer} ${code}`);

async function resetToken(user) {
  const token = crypto.randomBytes(32);

  await app.sql(`select task.mail_token(null, jsonb_build_object('template',
    'password_reset', 'user_id', $1::uuid), $2, $3)`, [user.id, user.email,
    crypto.createHash('sha256').update(token).digest()]);
  return token.toString('base64url');
}

const PERSON = { firstName: 'Ada', lastName: 'Lovelace' };

test('a common password, or the own address, is refused everywhere',
  async () => {
    const user = await app.user();
    const token = await resetToken(user);

    for (const bad of ['trustno1', 'PassWord1', '12345678', 'QWERTYUIOP',
      user.email, user.email.toUpperCase()]) {
      const ways = {
        '/password': () => auth('register', { ...PERSON, password: bad,
          email: user.email }),
        '/newPassword, reset': () => auth('reset-password',
          { token, newPassword: bad }),
        '/newPassword, change': () => auth('change-password',
          { currentPassword: user.password, newPassword: bad },
          { token: user.token }),
      };

      for (const [what, send] of Object.entries(ways)) {
        const res = await send();

        assert.equal(res.status, 400, `${what} ${res.text}`);
        assert.equal(res.error.code, 'VALIDATION_FAILED');
        assert.deepEqual(faults(res), [`${what.split(',')[0]} too_common`]);
        assert.ok(!res.text.includes(bad), 'never repeated');
      }
    }
    /* what is not new is not looked up */
    assert.equal((await login(user.email, 'password')).status, 401);
    assert.equal((await auth('reset-password',
      { token, newPassword: 'not so common a password' })).status, 200);
  });

test('every character counts, 8 to 128 of any kind', async () => {
  const texts = {
    '64 letters': 'a'.repeat(63) + 'b',
    '128 letters': 'a'.repeat(127) + 'b',
    '64 of four bytes': '\u{1f511}'.repeat(63) + '\u{1f512}',
    '128 of four bytes': '\u{1f511}'.repeat(127) + '\u{1f512}',
    'spaces around': '  a phrase with spaces  ',
    'combining marks': 'e\u0301'.repeat(20),
  };

  for (const [what, password] of Object.entries(texts)) {
    const user = await app.user('member', { password });

    for (const other of [[...password].slice(0, -1).join(''),
      [...password].slice(0, -1).join('') + 'c', `.${[...password].slice(1).join('')}`]) {
      assert.equal((await login(user.email, other)).status, 401, what);
    }
    assert.equal((await login(user.email, password)).status, 200, what);
  }
  for (const [n, status] of [[7, 400], [8, 201], [128, 201], [129, 400]]) {
    const res = await auth('register', { ...PERSON,
      email: `n${n}@length.example`, password: '\u{1f511}'.repeat(n) });

    assert.equal(res.status, status, `${n}: ${res.text}`);
  }
});

test('a hash of another system is good for one login', async () => {
  const tail = 'CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW';

  for (const kind of ['$2a$05$', '$2b$05$', '$2y$05$']) {
    const email = `${kind.slice(1, 3)}@import.example`;
    const id = add(email, ['--password-hash', kind + tail]);

    assert.equal(await stored(id), kind + tail);
    assert.equal((await login(email, 'U*V')).status, 401);
    assert.equal(await stored(id), kind + tail, 'as long as it is not tried');
    assert.equal((await login(email, 'U*U')).status, 200);
    assert.match(await stored(id), /^\$argon2id\$v=19\$m=1024,t=1,p=1\$/);
    assert.equal((await login(email, 'U*U')).status, 200);
    assert.equal((await login(email, 'U*U ')).status, 401);
  }
});

test('bcrypt saw 72 bytes: a longer guess is not made the password',
  async () => {
    const hash = '$2b$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui';
    const seen = '0123456789abcdefghijklmnopqrstuvwxyz'
      + 'ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789';
    const user = await app.user();

    await app.sql('update app.users set password_hash = $2 where id = $1',
      [user.id, hash]);
    for (const [password, status] of [[seen.slice(0, 71), 401], [seen, 200],
      [`${seen}chars after 72 are ignored`, 200],
      [`${seen}${'\u{1f511}'.repeat(56)}`, 200]]) {
      assert.equal((await login(user.email, password)).status, status);
      assert.equal(await stored(user.id), hash);
    }

    const { status, data, text } = await auth('change-password', {
      currentPassword: seen, newPassword: `${seen}, and more`,
    }, { token: user.token });

    assert.equal(status, 200, text);
    assert.ok(data.accessToken);
    assert.match(await stored(user.id), /^\$argon2id\$/);
    assert.equal((await login(user.email, seen)).status, 401);
    assert.equal((await login(user.email, `${seen}, and more`)).status, 200);
  });

test('Argon2id of another cost is made anew at the next login', async () => {
  const password = 'one phrase for both';

  for (const [env, kept] of [[{ ARGON2_MEMORY_KIB: '2048' }, false],
    [{ ARGON2_PASSES: '2' }, false], [{}, true]]) {
    const email = `${crypto.randomUUID()}@cost.example`;
    const id = add(email, ['--password-stdin'], { env, input: password });
    const hash = await stored(id);

    assert.equal((await login(email, 'another one')).status, 401);
    assert.equal(await stored(id), hash);
    assert.equal((await login(email, password)).status, 200);
    assert.equal(await stored(id) === hash, kept);
    assert.match(await stored(id), /^\$argon2id\$v=19\$m=1024,t=1,p=1\$/);
    assert.equal((await login(email, password)).status, 200);
  }
});

/* ---- change ---- */

test('a change: needs the password so far, ends the others at once',
  async () => {
    const user = await app.user();
    const other = (await login(user.email, user.password)).data;
    const check = async (token) =>
      (await app.api('GET', '/api/v1/auth/check', { token })).status;
    const change = (body, token = user.token) =>
      auth('change-password', body, { token });
    const mail = await resetToken(user);

    const wrong = await change({ currentPassword: 'not this one',
      newPassword: 'an entirely new password' });

    assert.equal(wrong.status, 400, wrong.text);
    assert.deepEqual(faults(wrong), ['/currentPassword wrong']);
    assert.equal(await check(other.accessToken), 200);

    const res = await change({ currentPassword: user.password,
      newPassword: 'an entirely new password' });

    assert.equal(res.status, 200, res.text);
    assert.equal(await check(other.accessToken), 401);
    assert.equal(await check(user.token), 401, 'replaced by the one sent');
    assert.equal(await check(res.data.accessToken), 200);
    assert.equal((await auth('refresh',
      { refreshToken: other.refreshToken })).status, 401);
    assert.equal((await auth('refresh',
      { refreshToken: res.data.refreshToken })).status, 200);
    assert.equal((await auth('reset-password', { token: mail,
      newPassword: 'what an old mail says' })).status, 400);
    assert.equal((await login(user.email, user.password)).status, 401);
    assert.equal((await login(user.email,
      'an entirely new password')).status, 200);

    assert.equal(await app.value(`select count(*)::int from app.audit_log
      where action = 'auth.password' and actor = $1`, [user.id]), 1);
    assert.equal(await app.value(`select count(*)::int from queue.outbox
      where payload->>'template' = 'password_changed'
        and payload->>'user_id' = $1`, [user.id]), 1);
  });

test('a stolen token does not guess the password', async () => {
  const user = await app.user();
  const all = await app.barrier(20, () => ({ method: 'POST',
    path: '/api/v1/auth/change-password', token: user.token,
    body: { currentPassword: 'not this one', newPassword: 'a new password' },
  }));
  const by = {};

  for (const { status } of all) by[status] = (by[status] ?? 0) + 1;
  assert.deepEqual(by, { 400: 5, 429: 15 });
  assert.equal((await login(user.email, user.password)).status, 429,
    'one count for both');
});

test('two changes at once: one of them', async () => {
  const user = await app.user();
  const all = await app.barrier(4, (i) => ({ method: 'POST',
    path: '/api/v1/auth/change-password', token: user.token,
    body: { currentPassword: user.password,
      newPassword: `a new password, ${i}` } }));
  const won = all.findIndex((res) => res.status === 200);

  assert.equal(all.filter((res) => res.status === 200).length, 1,
    all.map((res) => res.text).join('\n'));
  for (const res of all) {
    assert.ok([200, 400, 401, 409].includes(res.status), res.text);
  }
  assert.equal((await login(user.email, `a new password, ${won}`)).status,
    200);
});

/* ---- more than the threads can do ---- */

function from(address, email, password) {
  const body = JSON.stringify({ email, password });
  let req;
  const answer = new Promise((done) => {
    req = http.request({ host: '127.0.0.1', port: narrow.port, agent: false,
      localAddress: address, method: 'POST', path: '/api/v1/auth/login',
      headers: { 'Content-Type': 'application/json',
        'Content-Length': Buffer.byteLength(body) } }, (res) => {
      res.resume();
      done({ status: res.statusCode,
        after: Number(res.headers['retry-after']) });
    });
    req.on('error', () => done({ status: 0 }));
    req.end(body);
  });

  return { answer, leave: () => req.destroy() };
}

async function metrics() {
  const { text } = await narrow.api('GET', '/metrics', { validate: false });

  return (name) => Number(text.split('\n')
    .find((line) => line.startsWith(`${name} `))?.split(' ').at(-1) ?? 0);
}

/* A hash of the highest cost that is run; nobody knows what it fits. */
const SLOW = '$2b$14$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW';

/* One thread, eight places. */
async function edge(wait) {
  await narrow?.stop();
  narrow = await boot({ workers: 0, nginxWorkers: 1,
    conf: { ARGON2_MEMORY_KIB: '8192', ARGON2_PASSES: '2' },
    nginx: { replace: [['stoa_hash threads=auto queue=64 wait=800ms;',
      `stoa_hash threads=1 queue=8 wait=${wait};`]] } });

  const slow = await narrow.user();

  await narrow.sql('update app.users set password_hash = $2 where id = $1',
    [slow.id, SLOW]);
  return slow;
}

test('ten times too many from one prefix: another signs in, all is served',
  async () => {
    const slow = await edge('60s');
    const user = await narrow.user();
    const seen = {};
    let over = false, n = 0;

    /* 80 at any time, of which one runs and eight wait */
    const flood = Array.from({ length: 80 }, async () => {
      while (!over) {
        const res = await from('127.0.0.2', `nobody-${n++}@flood.example`,
          'whatever it is').answer;

        seen[res.status] = (seen[res.status] ?? 0) + 1;
        if (res.status === 503) assert.ok(res.after >= 1 && res.after <= 60);
      }
    });

    await until(() => seen[503] > 80, { what: 'the flood to be refused' });
    for (let i = 0; i < 10; i++) {
      assert.equal((await from('127.0.0.3', user.email, user.password).answer)
        .status, 200, 'a place, and a turn');
      assert.equal((await narrow.api('GET', '/api/v1/users/me',
        { token: user.token })).status, 200);
    }
    over = true;
    await Promise.all(flood);
    assert.deepEqual(Object.keys(seen).sort(), ['401', '503'],
      JSON.stringify(seen));
    assert.ok(seen[503] > seen[401], JSON.stringify(seen));

    const value = await metrics();

    assert.equal(value('stoa_hash_queued'), 0);
    assert.equal(value('stoa_hash_waiting'), 0);
    assert.equal(value('stoa_hash_refused_total'), seen[503]);
    assert.ok(value('stoa_hash_wait_seconds_count{}') >= seen[401] + 10);
    assert.equal(value('stoa_hash_seconds_count{algorithm="argon2id",' +
      'outcome="mismatched"}'), seen[401]);
    assert.equal(value('stoa_hash_seconds_count{algorithm="argon2id",' +
      'outcome="matched"}'), 10);

    /* who waits and leaves gives the place back before any thread is free */
    const running = from('127.0.0.9', slow.email, 'whatever it is');

    await until(async () => (await metrics())('stoa_hash_queued') === 1,
      { what: 'the slow one to run' });
    const waiting = Array.from({ length: 8 },
      (_, i) => from('127.0.0.2', `w${i}@flood.example`, 'whatever it is'));

    await until(async () => (await metrics())('stoa_hash_waiting') === 8,
      { what: 'eight to wait' });
    for (const { leave } of waiting) leave();
    await until(async () => (await metrics())('stoa_hash_waiting') === 0,
      { what: 'their places' });
    assert.equal((await metrics())('stoa_hash_queued'), 1,
      'and the slow one runs');
    assert.equal((await running.answer).status, 401);
  });

test('who waited too long is told so and costs no hash', async () => {
  const slow = await edge('20ms');
  const running = from('127.0.0.9', slow.email, 'whatever it is');

  await until(async () => (await metrics())('stoa_hash_queued') === 1,
    { what: 'the slow one to run' });

  const waiting = await Promise.all(Array.from({ length: 5 },
    (_, i) => from(`127.0.0.${10 + i}`, `w${i}@late.example`,
      'whatever it is').answer));

  assert.deepEqual(waiting.map(({ status }) => status), Array(5).fill(503));
  assert.equal((await running.answer).status, 401);
  assert.equal((await metrics())('stoa_hash_seconds_count{' +
    'algorithm="bcrypt",outcome="mismatched"}'), 1);
});

test('the settings have bounds that are checked at start', () => {
  for (const [name, value] of [['ARGON2_MEMORY_KIB', '1023'],
    ['ARGON2_MEMORY_KIB', '1048577'], ['ARGON2_PASSES', '0'],
    ['ARGON2_PASSES', '21']]) {
    assert.throws(() => execFileSync(`${BUILD}/stoa`, ['check'],
      { env: { ...process.env, [name]: value }, stdio: 'pipe' }),
    (error) => error.stderr.toString().includes(name));
  }
});
