/*
 * The gates, seen from outside on four nginx workers: limits are exact and
 * say when to come back, tokens are refused for the right reason, a revoked
 * session ends everywhere at once and stays ended, failures of a sign-in are
 * counted by account and address and kept over a restart.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { after, before, test } from 'node:test';
import { boot, sleep, until } from '../harness/index.js';

const CHECK = '/api/v1/auth/check';
const DAY = 86400000;

let app;

before(async () => {
  app = await boot({
    workers: 0,
    nginxWorkers: 4,
    nginx: {
      http: 'stoa_limit wrong key=addr rate=6/d burst=6 on=failure;',
      replace: [
        [/stoa_limit read rate=\S+ burst=\S+ key=user;/,
          'stoa_limit read rate=100/1d burst=100 key=user;'],
        [/stoa_limit auth rate=\S+ burst=\S+ key=addr;/,
          'stoa_limit auth rate=1000/s burst=1000 key=addr;'],
        [/location = \/ \{/, `
        location /gated/ {
            stoa_auth required role=admin,organizer;
            stoa_limit_apply off;
            add_header X-Who "$stoa_user $stoa_role $stoa_auth_status";
            alias ${process.cwd()}/conf/www/;
        }
        location /doors/ {
            stoa_auth required role=device,admin;
            add_header X-Who "$stoa_user|$stoa_role|$stoa_session";
            alias ${process.cwd()}/conf/www/;
        }
        location /open/ {
            stoa_auth optional;
            add_header X-Who "$stoa_user";
            alias ${process.cwd()}/conf/www/;
        }
        location /either/ {
            satisfy any;
            allow 127.0.0.2;
            deny all;
            stoa_auth required;
            alias ${process.cwd()}/conf/www/;
        }
        location /inside/ {
            satisfy any;
            allow 127.0.0.1;
            deny all;
            stoa_auth required login=/account/;
            stoa_limit_apply wrong;
            add_header X-Error "$stoa_error_code" always;
            proxy_pass http://127.0.0.1:1/;

            location /inside/files/ {
                alias ${process.cwd()}/conf/www/;
            }
        }
        location /outside/ {
            satisfy any;
            allow 127.0.0.2;
            deny all;
            stoa_auth required login=/account/;
            stoa_limit_apply wrong;
            add_header X-Error "$stoa_error_code" always;
            alias ${process.cwd()}/conf/www/;
        }
        location /led/ {
            stoa_auth required login=/account/;
            stoa_limit_apply wrong;
            alias ${process.cwd()}/conf/www/;
        }
        location /behind/ {
            stoa_auth required;
            proxy_set_header X-User $stoa_user;
            proxy_set_header Authorization "";
            proxy_pass http://127.0.0.1:$server_port/echo/;
        }
        location /echo/ {
            return 200 "$http_x_user";
        }
        location = / {`],
      ],
    },
  });
});
after(() => app?.stop());

const url64 = (value) => Buffer.from(value).toString('base64url');

/* A token as the edge signs it, or one that is wrong in one place. */
function mint({ head = {}, key = app.conf.JWT_SECRET, ...claims } = {}) {
  const now = Math.floor(Date.now() / 1000);
  const text = [
    { alg: 'HS256', typ: 'at+jwt', kid: '1', ...head },
    {
      iss: 'stoa', aud: 'stoa', sub: crypto.randomUUID(),
      sid: crypto.randomUUID(), jti: crypto.randomUUID(), iat: now,
      exp: now + 900, ep: 1, roles: ['member'], ...claims,
    },
  ].map((part) => url64(JSON.stringify(part))).join('.');

  return `${text}.${crypto.createHmac('sha256', key).update(text)
    .digest('base64url')}`;
}

const page = (path, options = {}) => app.api('GET', `${path}kit/tokens.css`,
  { validate: false, ...options });

function count(answers) {
  const by = {};

  for (const { status } of answers) by[status] = (by[status] ?? 0) + 1;
  return by;
}

/* ---- limits ---- */

test('I-42: 400 requests of one user at once: exactly 100 pass', async () => {
  const token = mint();
  const by = count(await app.barrier(400,
    () => ({ method: 'GET', path: CHECK, token })));

  assert.deepEqual(by, { 200: 100, 429: 300 });
});

test('a refusal says when to come back; then exactly one passes', async () => {
  const token = mint();

  await app.barrier(100, () => ({ method: 'GET', path: CHECK, token }));

  const res = await app.api('GET', CHECK, { token });
  const wait = Number(res.headers['retry-after']);

  assert.equal(res.status, 429);
  assert.equal(res.error.code, 'RATE_LIMITED');
  assert.ok(wait > 800 && wait <= 864, `one in 864 s, told ${wait}`);
  assert.match(res.headers.ratelimit, /^"read";r=0;t=\d+$/);
  assert.equal(res.headers['ratelimit-policy'], '"read";q=100;w=86400');

  /* the token would expire before: another of the same user */
  const { sub } = JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));

  await app.clock.advance(wait * 1000);
  const exp = Math.floor((Date.now() + app.clock.ms) / 1000) + 900;
  const later = mint({ sub, iat: exp - 900, exp });
  const by = count(await app.barrier(20,
    () => ({ method: 'GET', path: CHECK, token: later })));

  assert.deepEqual(by, { 200: 1, 429: 19 });
  await app.clock.advance(-app.clock.ms);
});

test('a clock that goes back locks nobody out', async () => {
  const sub = crypto.randomUUID();
  const exp = Math.floor((Date.now() + DAY) / 1000) + 900;

  await app.clock.advance(DAY);
  await app.barrier(110, () => ({ method: 'GET', path: CHECK,
    token: mint({ sub, iat: exp - 900, exp }) }));
  await app.clock.advance(-DAY);

  const by = count(await app.barrier(150, () => ({ method: 'GET',
    path: CHECK, token: mint({ sub }) })));

  assert.deepEqual(by, { 200: 100, 429: 50 });
});

test('limits of users do not meet, and outlive a reload', async () => {
  const one = mint();
  const two = mint();

  await app.barrier(120, () => ({ method: 'GET', path: CHECK, token: one }));
  await app.nginx.reload();
  assert.equal((await app.api('GET', CHECK, { token: one })).status, 429);
  assert.equal((await app.api('GET', CHECK, { token: two })).status, 200);
});

/* ---- tokens ---- */

test('every wrong token is 401, on a public row too', async () => {
  const now = Math.floor(Date.now() / 1000);
  const good = mint();
  const wrong = {
    'another key': mint({ key: 'x'.repeat(40) }),
    'no algorithm': mint({ head: { alg: 'none' } }).replace(/[^.]*$/, ''),
    'another algorithm': mint({ head: { alg: 'HS512' } }),
    'another type': mint({ head: { typ: 'JWT' } }),
    'unknown key id': mint({ head: { kid: '2' } }),
    'another issuer': mint({ iss: 'other' }),
    'another audience': mint({ aud: 'other' }),
    'no subject': mint({ sub: undefined }),
    'no end': mint({ exp: undefined }),
    'a cut signature': good.slice(0, -2),
    'a changed payload': good.replace(/\.[^.]+\./, (p) =>
      `${p.slice(0, 20)}A${p.slice(21)}`),
    'a fourth part': `${good}.x`,
    'too long': `${good}${'A'.repeat(5000)}`,
    nothing: '',
  };

  for (const [what, token] of Object.entries(wrong)) {
    for (const path of [CHECK, '/api/v1/events']) {
      const res = await app.api('GET', path,
        { headers: { Authorization: `Bearer ${token}` } });

      assert.equal(res.status, 401, `${what} at ${path}`);
      assert.equal(res.error.code, 'UNAUTHENTICATED', what);
    }
  }

  const old = await app.api('GET', CHECK,
    { token: mint({ iat: now - 1000, exp: now - 100 }) });

  assert.equal(old.error.code, 'TOKEN_EXPIRED');
  assert.equal((await app.api('GET', CHECK,
    { headers: { Authorization: 'Basic YTpi' } })).status, 401);
});

test('a token that was cached expires all the same', async () => {
  const now = Math.floor(Date.now() / 1000);
  const token = mint({ exp: now + 60 });

  for (let i = 0; i < 8; i++) {
    assert.equal((await app.api('GET', CHECK, { token })).status, 200);
  }
  await app.clock.advance(120000);
  const res = await app.api('GET', CHECK, { token });

  assert.equal(res.error?.code, 'TOKEN_EXPIRED');
  await app.clock.advance(-120000);
});

/* ---- revocations ---- */

/* On every worker: new connections go to all of them. */
async function everywhere(token, status) {
  const by = count(await app.barrier(24,
    () => ({ method: 'GET', path: CHECK, token })));

  assert.deepEqual(by, { [status]: 24 });
}

test('an entry on the channel ends a session in every process', async () => {
  const sid = crypto.randomUUID();
  const token = mint({ sid });

  await everywhere(token, 200);
  await app.redis.publish('stoa:ctl', `sid ${sid} ${Date.now() + 900000}`);
  await until(async () =>
    (await app.api('GET', CHECK, { token })).status === 401
    || Promise.reject(new Error('still let in')), { timeout: 1000 });
  await everywhere(token, 401);
  assert.equal((await app.api('GET', CHECK, { token })).error.code,
    'TOKEN_REVOKED');
});

test('a row alone does it within a second or so, without Redis', async () => {
  const sub = crypto.randomUUID();
  const token = mint({ sub, ep: 4 });

  await everywhere(token, 200);
  await app.sql(`insert into app.revocations (entry, at, expires_at)
    values ($1, app.now(), app.now() + interval '1 hour')`,
  [`user ${sub} 5`]);
  await until(async () =>
    (await app.api('GET', CHECK, { token })).status === 401
    || Promise.reject(new Error('still let in')), { timeout: 2500 });
  await everywhere(token, 401);
  await everywhere(mint({ sub, ep: 5 }), 200);
});

test('it stays so over a reload, another zone size, a restart', async () => {
  const sub = crypto.randomUUID();
  const sid = crypto.randomUUID();
  const token = mint({ sub, sid });

  await app.sql(`insert into app.revocations (entry, at, expires_at)
    values ($1, app.now(), app.now() + interval '1 hour')`,
  [`sid ${sid} ${Date.now() + 900000}`]);
  await until(async () =>
    (await app.api('GET', CHECK, { token })).status === 401
    || Promise.reject(new Error('still let in')), { timeout: 2500 });

  await app.nginx.reload();
  await everywhere(token, 401);

  const { readFileSync, writeFileSync } = await import('node:fs');
  const text = readFileSync(app.nginx.conf, 'utf8');

  writeFileSync(app.nginx.conf, text.replace('main:16m', 'main:24m'));
  await app.nginx.reload();
  await everywhere(token, 401);

  await app.nginx.stop();
  await app.nginx.start();
  await everywhere(token, 401);
});

test('nonsense on the channel is said in the log and changes nothing',
  async () => {
    const token = mint();

    for (const text of ['', 'sid', 'sid x 1', `user ${crypto.randomUUID()} -1`,
      `sid ${crypto.randomUUID()} 99999999999999999999`, 'x'.repeat(5000)]) {
      await app.redis.publish('stoa:ctl', text);
    }
    await sleep(50);
    await everywhere(token, 200);
  });

/* ---- failures of a sign-in ---- */

test('five failures: this address waits, another does not, also later',
  async () => {
    const user = await app.user();
    const login = (password) => app.api('POST', '/api/v1/auth/login',
      { body: { email: user.email, password } });

    for (let i = 0; i < 5; i++) {
      assert.equal((await login('wrong wrong wrong')).status, 401);
    }

    const res = await login(user.password);

    assert.equal(res.status, 429);
    assert.ok(Number(res.headers['retry-after']) > 890);

    await until(async () =>
      await app.value('select count(*)::int from app.auth_throttle') > 0
      || Promise.reject(new Error('not saved')), { timeout: 3000 });
    await app.nginx.stop();
    await app.nginx.start();
    assert.equal((await login(user.password)).status, 429);

    const { request } = await import('node:http');
    const body = JSON.stringify({ email: user.email,
      password: user.password });
    const status = await new Promise((done, failed) => {
      const req = request({ host: '127.0.0.1', port: app.port,
        localAddress: '127.0.0.9', method: 'POST',
        path: '/api/v1/auth/login',
        headers: { 'Content-Type': 'application/json',
          'Content-Length': Buffer.byteLength(body) } }, (answer) => {
        answer.resume();
        done(answer.statusCode);
      });

      req.on('error', failed);
      req.end(body);
    });

    assert.equal(status, 200, 'the owner from elsewhere');
  });

/* ---- locations that are not served from rows ---- */

test('a gate in front of anything: role, variables, proxies', async () => {
  const sub = crypto.randomUUID();
  const admin = mint({ sub, roles: ['admin', 'member'] });

  assert.equal((await page('/gated/')).status, 401);
  assert.equal((await page('/gated/', { token: mint() })).status, 403);

  const res = await page('/gated/', { token: admin });

  assert.equal(res.status, 200);
  assert.equal(res.headers['x-who'], `${sub} admin,member VERIFIED`);

  const behind = await app.api('GET', '/behind/x',
    { token: admin, validate: false });

  assert.equal(behind.text, sub);
});

test('optional: nobody is somebody only with a good token', async () => {
  const sub = crypto.randomUUID();

  assert.equal((await page('/open/')).headers['x-who'], undefined);
  assert.equal((await page('/open/', { token: mint({ sub }) }))
    .headers['x-who'], sub);
  assert.equal((await page('/open/',
    { headers: { Authorization: 'Bearer a.b.c' } })).status, 401);
});

test('a device goes where devices are named, and is nobody there',
  async () => {
    const sub = crypto.randomUUID();
    const token = mint({ sub, sid: undefined, roles: undefined, ep: undefined,
      evt: crypto.randomUUID(), head: { typ: 'stoa-device+jwt' } });

    for (const path of ['/gated/', '/open/', '/either/']) {
      const res = await page(path, { token });

      assert.equal(res.status, 403, path);
      assert.equal(res.error.code, 'FORBIDDEN', path);
    }
    assert.equal((await app.api('GET', '/behind/x', { token })).status, 403);

    const res = await page('/doors/', { token });

    assert.equal(res.status, 200, res.text);
    assert.equal(res.headers['x-who'], `|device|${sub}`);
    assert.equal((await page('/doors/', { token: mint() })).status, 403);
  });

test('satisfy any: an address or a token', async () => {
  assert.equal((await page('/either/')).status, 401);
  assert.equal((await page('/either/', { token: mint() })).status, 200);
});

const PAGE = { Accept: 'text/html' };
const BAD = { ...PAGE, Authorization: 'Bearer a.b.c' };

test('satisfy any: what "allow" admits was not refused, whatever fails then',
  async () => {
    for (let i = 0; i < 12; i++) {
      const headers = i % 2 ? PAGE : BAD;
      const gone = await app.api('GET', '/inside/files/none', { headers });

      assert.equal(gone.status, 404);
      assert.equal(gone.error.code, 'NOT_FOUND');
      assert.equal(gone.headers['www-authenticate'], undefined);

      const away = await app.api('GET', '/inside/x', { headers });

      assert.equal(away.status, 502);
      assert.equal(away.error.code, 'BAD_GATEWAY');
      assert.equal(away.headers['x-error'], 'BAD_GATEWAY');
    }
    assert.equal((await page('/inside/files/', { headers: PAGE })).status, 200);
    assert.equal((await page('/inside/files/', { headers: BAD })).status, 200);
  });

test('satisfy any: who is not admitted is led, or refused', async () => {
  const led = await page('/outside/', { headers: PAGE });

  assert.equal(led.status, 302);
  assert.equal(led.headers.location,
    `/account/?next=${encodeURIComponent('/outside/kit/tokens.css')}`);
  assert.equal(led.text, '');
  assert.equal((await page('/outside/', { headers: { Accept: '*/*' } })).status,
    401);
});

test('who is led with a bad token has failed', async () => {
  /* the test before has used two of six; with a page or without, it counts */
  for (const [path, headers, status] of [['/led/', BAD, 302],
    ['/led/', { ...BAD, Accept: '*/*' }, 401], ['/outside/', BAD, 302],
    ['/led/', PAGE, 302]]) {
    assert.equal((await page(path, { headers })).status, status, path);
  }
  assert.equal((await page('/led/', { token: mint(), headers: PAGE })).status,
    429);
});
