/*
 * Second factors under attack: by who knows the password, by another account,
 * from another address, with forged and foreign tokens, with a copy of the
 * database; and what is left when Redis is killed or keys roll.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import { after, before, test } from 'node:test';
import { boot, until } from '../harness/index.js';
import { must } from '../harness/fixtures.js';
import { confText } from '../harness/conf.js';
import { Issuer } from '../harness/issuer.js';
import { Factor, enrol } from '../harness/mfa.js';

let app;

before(async () => {
  app = await boot({ workers: 0 });
});
after(() => app?.stop());

const auth = (what, body, extra = {}) =>
  app.api('POST', `/api/v1/auth/${what}`, { body, ...extra });
const login = (user, extra = {}) => auth('login',
  { email: user.email, password: user.password, ...extra });
const ask = async (user) => {
  const res = await login(user);

  assert.equal(res.error?.code, 'MFA_REQUIRED', res.text);
  return res.error.mfaToken;
};
const finish = (mfaToken, proof, extra) =>
  auth('login/mfa', { mfaToken, ...proof }, extra);
const code = (res) => res.error?.code ?? res.status;

/* The same from another address of this machine. */
function from(address, what, body, to = app) {
  const text = JSON.stringify(body);

  return new Promise((done, failed) => {
    const req = http.request({ host: '127.0.0.1', port: to.port,
      localAddress: address, method: 'POST', path: `/api/v1/auth/${what}`,
      headers: { 'Content-Type': 'application/json',
        'Content-Length': Buffer.byteLength(text) } }, (res) => {
      const chunks = [];

      res.on('data', (chunk) => chunks.push(chunk));
      res.on('end', () => {
        const json = JSON.parse(Buffer.concat(chunks));

        done({ status: res.statusCode, headers: res.headers,
          error: json.error, data: json.data, text: JSON.stringify(json) });
      });
    });

    req.on('error', failed);
    req.end(text);
  });
}

async function person() {
  const user = await app.user();

  return { user, factor: await enrol(app, user) };
}

test('codes count with passwords, and a right password forgets none',
  async () => {
    const { user, factor } = await person();

    assert.equal(code(await login({ ...user, password: 'not it' })),
      'INVALID_CREDENTIALS');
    for (let i = 0; i < 4; i++) {
      assert.equal(code(await finish(await ask(user),
        { code: factor.wrong() })), 'MFA_CODE_INVALID', `${i}`);
    }
    const res = await login(user);

    assert.equal(code(res), 'RATE_LIMITED', 'four codes and a password');
    assert.ok(Number(res.headers['retry-after']) > 800);
    assert.equal(code(await login(user, { code: await factor.fresh() })),
      'RATE_LIMITED');
    assert.equal(code(await auth('step-up', { code: factor.code() },
      { token: user.token })), 'RATE_LIMITED', 'wherever codes are taken');

    /* the owner, from elsewhere */
    const { email, password } = user;

    assert.equal((await from('127.0.0.77', 'login', { email, password,
      code: factor.code() })).status, 200);
  });

test('so do those of somebody who is signed in', async () => {
  const { user, factor } = await person();
  const seen = [];

  for (let i = 0; i < 7; i++) {
    seen.push(code(await auth(['step-up', 'mfa/recovery-codes'][i % 2],
      { code: factor.wrong() }, { token: user.token })));
  }
  assert.deepEqual(seen, [...Array(5).fill('VALIDATION_FAILED'),
    'RATE_LIMITED', 'RATE_LIMITED']);
  assert.equal(code(await login(user)), 'RATE_LIMITED');
});

test('a password that is right does not let codes be guessed by DELETE',
  async () => {
    const { user, factor } = await person();
    const seen = [];

    for (let i = 0; i < 6; i++) {
      seen.push(code(await app.api('DELETE', '/api/v1/auth/mfa', {
        token: user.token, body: { password: user.password,
          code: factor.wrong() } })));
    }
    assert.deepEqual(seen, [...Array(5).fill('VALIDATION_FAILED'),
      'RATE_LIMITED']);
  });

test('a challenge dies of five wrong codes', async () => {
  const open = await boot({ workers: 0, nginxWorkers: 1,
    nginx: { http: 'stoa_limit login off;' } });

  try {
    const user = await open.user();
    const factor = await enrol(open, user);
    const post = (what, body) => open.api('POST', `/api/v1/auth/${what}`,
      { body });
    const { mfaToken } = (await post('login',
      { email: user.email, password: user.password })).error;
    const other = (await post('login',
      { email: user.email, password: user.password })).error.mfaToken;

    for (let i = 0; i < 5; i++) {
      assert.equal(code(await post('login/mfa', i % 2
        ? { mfaToken, code: factor.wrong() }
        : { mfaToken, recoveryCode: 'aaaa-aaaa-aaaa-aaaa-aaaa-aaaa' })),
      'MFA_CODE_INVALID', `${i}`);
    }
    const right = await factor.fresh();

    assert.equal(code(await post('login/mfa', { mfaToken, code: right })),
      'MFA_TOKEN_INVALID');
    assert.equal(code(await post('login/mfa',
      { mfaToken: other, code: right })), 200, 'another one lives');
  } finally {
    await open.stop();
  }
});

test('a million codes are not tried from many addresses', async () => {
  const { user, factor } = await person();
  const { email, password } = user;
  const guess = (i, proof) => from(`127.0.${1 + Math.floor(i / 250)}.${
    2 + i % 250}`, 'login', { email, password, ...proof });
  let n = 0;

  for (let i = 0; i < 20; i++) {
    assert.equal(code(await guess(n++, { code: factor.wrong() })),
      'MFA_CODE_INVALID', `${i}`);
  }
  const rests = await guess(n++, { code: await factor.fresh() });

  assert.equal(code(rests), 'RATE_LIMITED', 'also the right one, anywhere');
  assert.ok(Number(rests.headers['retry-after']) > 20
    && Number(rests.headers['retry-after']) <= 60);
  assert.ok(await app.value(`select count(*)::int from queue.outbox
    where payload->>'user_id' = $1 and payload->>'what' = 'tried'`,
  [user.id]) >= 3, 'the owner is told');
  assert.equal((await guess(n++, { recoveryCode: factor.recovery[0] }))
    .status, 200, 'the owner\'s way out');

  /* which forgets them; without it, each further one doubles the rest */
  for (let i = 0; i < 20; i++) await guess(n++, { code: factor.wrong() });
  for (const minutes of [1, 2, 4]) {
    await app.moveClock(minutes * 60000 - 5000);
    assert.equal(code(await guess(n++, { code: factor.wrong() })),
      'RATE_LIMITED', `${minutes}`);
    await app.moveClock(6000);
    assert.equal(code(await guess(n++, { code: factor.wrong() })),
      'MFA_CODE_INVALID', `${minutes}`);
  }
  await app.moveClock(3600000);
  assert.equal((await guess(n++, { code: factor.code() })).status, 200);
});

test('codes and challenges are their account\'s', async () => {
  const { user: alice, factor: hers } = await person();
  const { user: bob, factor: his } = await person();
  const [a, b] = [await ask(alice), await ask(bob)];
  const code_ = await his.fresh();

  assert.equal(code(await finish(a, { code: code_ })), 'MFA_CODE_INVALID');
  assert.equal(code(await finish(a, { recoveryCode: his.recovery[0] })),
    'MFA_CODE_INVALID');
  assert.equal(code(await auth('step-up', { code: hers.code() },
    { token: bob.token })), 'VALIDATION_FAILED');
  assert.equal(code(await finish(b, { recoveryCode: hers.recovery[0] })),
    'MFA_CODE_INVALID');
  assert.equal(code(await finish(b, { code: code_ })), 200,
    'nobody used it up');
  assert.equal(code(await finish(a, { recoveryCode: hers.recovery[0] })), 200);

  /* an enrolment is confirmed by its own session's account only */
  const eve = await app.user(), carl = await app.user();
  const secret = async (who) => must(await auth('mfa/totp',
    { password: who.password }, { token: who.token }), 201).data.secret;
  const eves = new Factor(app, await secret(eve));

  await secret(carl);
  assert.equal(code(await auth('mfa/totp/confirm', { code: await eves.fresh() },
    { token: carl.token })), 'VALIDATION_FAILED');
});

test('a challenge is answered from where it was asked for', async () => {
  const { user, factor } = await person();
  const mfaToken = await ask(user);

  assert.equal(code(await from('127.0.0.78', 'login/mfa',
    { mfaToken, code: await factor.fresh() })), 'MFA_TOKEN_INVALID');
  assert.equal(code(await finish(mfaToken, { code: factor.code() })), 200);
});

test('forged and foreign tokens are no challenges, and cost no query',
  async () => {
    const { user, factor } = await person();
    const mfaToken = await ask(user);
    const right = await factor.fresh();
    const queries = async () => {
      const { text } = await app.api('GET', '/metrics', { validate: false });

      return [...text.matchAll(/^stoa_pg_submitted_total\S* (\d+)$/gm)]
        .reduce((sum, m) => sum + Number(m[1]), 0);
    };
    const was = await queries();

    assert.ok(was > 0);
    for (let i = 0; i < mfaToken.length; i += 3) {
      const bad = mfaToken.slice(0, i) + (mfaToken[i] === 'A' ? 'B' : 'A')
        + mfaToken.slice(i + 1);

      assert.equal(code(await finish(bad, { code: right })),
        'MFA_TOKEN_INVALID', bad);
    }
    for (const bad of [user.refreshToken, user.token.slice(0, 55), 'x',
      mfaToken.slice(1), `${mfaToken}A`, Buffer.alloc(41).toString(
        'base64url')]) {
      assert.equal(code(await finish(bad, { code: right })),
        'MFA_TOKEN_INVALID', bad);
    }
    /* those that the edge asks by itself are few */
    assert.ok(await queries() - was < 15, `${await queries() - was} queries`);
    assert.equal(code(await auth('refresh', { refreshToken: mfaToken })),
      'REFRESH_INVALID', 'nor the other way round');
    assert.equal((await app.api('GET', '/api/v1/auth/check',
      { token: mfaToken })).status, 401);
    assert.equal(code(await finish(mfaToken, { code: right })), 200);
  });

test('who is suspended is not told that a code is needed', async () => {
  const { user, factor } = await person();
  const mfaToken = await ask(user);

  await app.sql(`update app.users set status = 'suspended' where id = $1`,
    [user.id]);
  assert.equal(code(await login(user)), 'INVALID_CREDENTIALS');
  assert.equal(code(await finish(mfaToken, { code: await factor.fresh() })),
    'MFA_TOKEN_INVALID');
});

test('the factor that is turned on while a password is tried is asked for',
  async () => {
    const user = await app.user();
    const lock = await app.client();

    await lock.query('begin');
    await lock.query('update app.users set version = version where id = $1',
      [user.id]);
    const waits = login(user);

    await until(async () => app.value(`select count(*)::int
      from pg_stat_activity where datname = $1 and wait_event_type = 'Lock'`,
    [app.id]), { what: 'the login to wait' });
    await lock.query(`insert into app.mfa_factors (id, user_id, secret,
      created_at, confirmed_at) values (app.uuid7(), $1, '', now(), now())`,
    [user.id]);
    await lock.query('commit');
    assert.equal(code(await waits), 'MFA_REQUIRED');
  });

test('a copy of the database has no codes in it', async () => {
  const { user, factor } = await person();
  const { user: other } = await person();
  const [row] = await app.sql(`select encode(f.secret, 'hex') as secret, f.id
    from app.mfa_factors f where f.user_id = $1`, [user.id]);
  const raw = base32(factor.secret);

  assert.equal(raw.length, 20);
  assert.equal(row.secret.length / 2, 20 + 45, 'sealed');
  assert.ok(!row.secret.includes(raw.toString('hex')));

  const all = (await app.sql(`select m::text as t from app.mfa_factors m
    union all select c::text from app.mfa_recovery_codes c
    union all select c::text from app.mfa_challenges c
    union all select a::text from app.audit_log a
    union all select o::text from queue.outbox o`)).map((r) => r.t).join('\n');

  for (const secret of [raw.toString('hex'), factor.secret,
    ...factor.recovery.flatMap((c) => [c, c.replaceAll('-', ''),
      base32(c.replaceAll('-', '').toUpperCase()).toString('hex')])]) {
    assert.ok(!all.includes(secret));
  }

  /* and who writes into it cannot move a secret to another account */
  await app.sql(`update app.mfa_factors f set secret = decode($2, 'hex')
    where f.user_id = $1`, [other.id, row.secret]);
  assert.equal(code(await login(other, { code: await factor.fresh() })),
    'INTERNAL');
  assert.match(fs.readFileSync(`${app.dir}/log/nginx-error.log`, 'latin1'),
    /\[crit\].*was not sealed by a key of MFA_KEY/);
  assert.equal(code(await login(user, { code: factor.code() })), 200);
});

/* RFC 4648, of the secrets that the tests look for. */
function base32(text) {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
  const out = [];
  let bits = 0, n = 0;

  for (const c of text) {
    bits = (bits << 5 | alphabet.indexOf(c)) & 0xffff;
    n += 5;
    if (n >= 8) {
      n -= 8;
      out.push(bits >> n & 255);
    }
  }
  return Buffer.from(out);
}

test('keys roll: codes go on, and are sealed by the new one', async () => {
  const KEYS = ['11', '22', '33'].map((two) => two.repeat(32));
  const one = await boot({ workers: 0, nginxWorkers: 1,
    conf: { MFA_KEY: null } });
  const key = async (value) => {
    fs.writeFileSync(one.confFile, confText({ ...one.conf, MFA_KEY: value }),
      { mode: 0o600 });
    await one.nginx.reload();
  };

  try {
    const user = await one.user();
    const factor = await enrol(one, user);
    const { email, password } = user;
    const sign = async (proof) => code(await one.api('POST',
      '/api/v1/auth/login', { body: { email, password, ...proof } }));
    const name = () => one.value(`select encode(substr(secret, 2, 4), 'hex')
      from app.mfa_factors where user_id = $1`, [user.id]);
    const names = [await name()];

    /* a first key of one's own, in place of what JWT_SECRET gives */
    await key(KEYS[0]);
    assert.equal(await sign({ recoveryCode: factor.recovery[0] }), 200);
    assert.equal(await name(), names[0], 'no code, no new seal');
    assert.equal(await sign({ code: await factor.fresh() }), 200);
    names.push(await name());

    await key(`${KEYS[1]},${KEYS[0]}`);
    assert.equal(await sign({ code: factor.wrong() }), 'MFA_CODE_INVALID');
    assert.equal(await name(), names[1], 'nor by a wrong one');
    assert.equal(await sign({ code: await factor.fresh() }), 200);
    names.push(await name());
    assert.equal(new Set(names).size, 3, names.join());

    await key(KEYS[1]);
    assert.equal(await sign({ code: await factor.fresh() }), 200);
    await key(KEYS[2]);
    assert.equal(await sign({ code: await factor.fresh() }), 'INTERNAL',
      'nobody has the key any more');
    assert.equal(await sign({ recoveryCode: factor.recovery[1] }), 200,
      'these need none');
  } finally {
    await one.stop();
  }
});

test('a token of another issuer shows no code, whatever it says', async () => {
  const issuer = await Issuer.start();
  const other = await boot({ workers: 0, nginxWorkers: 1,
    conf: { JWT_ISSUERS: issuer.url, ISSUER_NETWORK: 'insecure' } });

  try {
    const user = await other.user();

    await other.sql(`insert into app.oauth_identities (id, user_id, issuer,
      subject, created_at) values (app.uuid7(), $1, $2, 'u', app.now())`,
    [user.id, issuer.url]);
    const ask = async (token) => code(await other.api('POST',
      '/api/v1/users/me/email', { token, body: {
        newEmail: `new-${user.email}`, password: user.password } }));
    const sign = () => {
      const now = Math.floor((Date.now() + other.clock.ms) / 1000);

      return issuer.token('u', { iat: now + 1, exp: now + 900,
        amr: ['pwd', 'otp', 'mfa'], auth_time: now, mfa: false });
    };
    const was = await sign();

    assert.equal(await ask(was), 200);
    await enrol(other, user);
    assert.equal(await ask(was), 'TOKEN_REVOKED');
    assert.equal(await ask(await sign()), 'STEP_UP_REQUIRED');
  } finally {
    await other.stop();
    await issuer.stop();
  }
});

test('Redis is killed: nothing of it is missed', async () => {
  const alone = await boot({ workers: 0, nginxWorkers: 2 });

  try {
    await alone.redisProc.stop('SIGKILL');
    const user = await alone.user();
    const move = alone.moveClock;

    /* the clock is kept in Redis, too, which only workers read */
    alone.moveClock = async (ms) => {
      alone.clock.ms += ms;
      alone.writeClockFile(alone.clock.ms);
      await alone.sql('update app.test_clock set shift = '
        + 'make_interval(secs => $1 / 1000.0)', [alone.clock.ms]);
    };
    const was = user.token;
    const factor = await enrol(alone, user);
    const { email, password } = user;
    const post = (what, body, token) => alone.api('POST',
      `/api/v1/auth/${what}`, { body, token });

    /* within a second, by PostgreSQL alone */
    await until(async () => (await alone.api('GET', '/api/v1/auth/check',
      { token: was })).status === 401, { what: 'the older token to die' });
    const { mfaToken } = (await post('login', { email, password })).error;
    const res = await post('login/mfa',
      { mfaToken, code: await factor.fresh() });

    assert.equal(res.status, 200, res.text);
    assert.equal((await post('step-up', { code: await factor.fresh() },
      res.data.accessToken)).status, 200);
    alone.moveClock = move;
  } finally {
    await alone.stop();
  }
});

test('PostgreSQL is away: nobody gets in', async () => {
  const alone = await boot({ workers: 0, nginxWorkers: 1, cluster: 'own' });

  try {
    const user = await alone.user();
    const factor = await enrol(alone, user);
    const { email, password } = user;
    const { mfaToken } = (await alone.api('POST', '/api/v1/auth/login',
      { body: { email, password } })).error;
    const right = await factor.fresh();

    await alone.cluster.stop();
    const res = await alone.api('POST', '/api/v1/auth/login/mfa',
      { body: { mfaToken, code: right } });

    assert.equal(res.status, 503, res.text);
  } finally {
    await alone.stop();
  }
});
