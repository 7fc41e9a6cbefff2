/*
 * How long a refusal takes says nothing of how much was right (edge.md D.2,
 * timing leaks).  Secrets are compared by one function whose instructions do
 * not depend on what it compares, counted, not timed; style.js lets nothing
 * else near them (rule "secret").  What is looked up, is looked up by its
 * digest.  And a secret that is wrong in its first character costs the same
 * statements and hashes as one that is wrong in its last.
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { rows } from '../derived/rows.js';
import { LOGGED, look, numbers } from '../harness/alike.js';
import { must } from '../harness/fixtures.js';
import { ROOT, SECRETS, boot } from '../harness/index.js';
import { enrol } from '../harness/mfa.js';
import { tempDir } from '../harness/proc.js';

/* argv: how, and the place that differs; 99: none does */
const PROGRAM = `
#include "stoa_str.h"

static __attribute__((noinline)) int
hasty(const unsigned char *a, const unsigned char *b, int n)
{
    while (n-- > 0) {
        if (*a++ != *b++) {
            return 0;
        }
    }

    return 1;
}

int
main(int argc, char **argv)
{
    static unsigned char a[64], b[64];
    stoa_str_t           x = { 32, a }, y = { 32, b };
    int                  at = (argv[2][0] - '0') * 10 + argv[2][1] - '0';
    volatile int         same;

    a[at == 99 ? 63 : at] = 1;
    same = argv[1][0] == 'h' ? hasty(a, b, 32) : stoa_str_same_secret(x, y);

    return argc == 3 ? 0 : same;
}
`;

test('the comparison takes as many instructions wherever it differs', () => {
  const dir = tempDir('stoa-timing-');
  const count = (how, at) => {
    let text = '';

    try {
      text = execFileSync('sh', ['-c', `valgrind --tool=callgrind \
        --callgrind-out-file=/dev/null ./program ${how} ${at} 2>&1`],
      { cwd: dir, encoding: 'utf8' });
    } catch (error) {
      text = error.stdout;
    }
    const m = text.match(/Collected\s*:\s*(\d+)/);

    assert.ok(m, text);
    return Number(m[1]);
  };

  try {
    fs.writeFileSync(path.join(dir, 'program.c'), PROGRAM);
    execFileSync('cc', ['-std=gnu11', '-O2', '-D_GNU_SOURCE',
      `-I${ROOT}/shared`, '-o', 'program', 'program.c',
      `${ROOT}/shared/stoa_str.c`], { cwd: dir, stdio: 'pipe' });

    const places = ['00', '01', '15', '31', '99'];
    const counts = places.map((at) => count('s', at));

    assert.deepEqual(counts, places.map(() => counts[0]));
    /* and it would be seen */
    assert.ok(count('h', '31') > count('h', '00') + 30);
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
});

test('nothing else compares a MAC, and all that is one is compared so', () => {
  const source = (file) => fs.readFileSync(path.join(ROOT, file), 'utf8');

  for (const [file, what, how] of [
    ['shared/stoa_jwt.c', 'the MAC of a token', /CRYPTO_memcmp\(mac, sig/],
    ['shared/stoa_hmac.c', 'a webhook', /\|= CRYPTO_memcmp\(mac, sent/],
    ['shared/stoa_refresh.c', 'a refresh token', /same_secret\(sent, made\)/],
    ['shared/stoa_key.c', 'an API key', /same_secret\(sent, made\)/],
    ['shared/stoa_hash.c', 'a bcrypt hash', /same_secret\(stoa_str_z\(made/],
    ['shared/stoa_totp.c', 'a code', /same_secret\(made, code\)/],
    ['shared/stoa_oidc.c', 'a nonce', /same_secret\(nonce, ask->nonce\)/],
    ['shared/stoa_oidc_flow.c', 'a state', /same_secret\(said, right\)/],
    ['ngx_module/ngx_http_stoa_cookie.c', 'a CSRF token',
      /same_secret\(sent, made\)/],
    ['ngx_module/ngx_http_stoa_idem.c', 'a cursor', /same_secret\(/],
  ]) {
    assert.match(source(file), how, what);
  }
});

test('a row that takes a secret passes none to PostgreSQL as it came', () => {
  const secret = rows.filter((row) => [...row.body, ...row.query]
    .some(({ type }) => type === 'secret'));

  assert.ok(secret.length > 10, `${secret.length} rows`);
  for (const row of secret) {
    assert.ok(row.flow && !row.sql, `${row.name}: ${row.sql}`);
  }
});

let app, user;

before(async () => {
  app = await boot({ workers: 0, nginxWorkers: 1,
    nginx: { replace: LOGGED } });
  user = await app.user();
});
after(() => app?.stop());

/* Another character at this place, of the same kind. */
function wrong(text, at) {
  const i = at < 0 ? text.length + at : at;
  const c = text[i];
  const other = /\d/.test(c) ? String((Number(c) + 1) % 10)
    : c.toLowerCase() === 'a' ? (c === 'a' ? 'b' : 'B')
      : c === c.toLowerCase() ? 'a' : 'A';

  return text.slice(0, i) + other + text.slice(i + 1);
}

/* The same answer and the same work, whichever place is wrong. */
async function alike(what, ask, places) {
  const seen = [];

  for (const at of places) {
    const was = await numbers(app);
    const { status, text, headers, length, queries } = await ask(at);
    const is = await numbers(app);

    assert.ok(status >= 400, `${what} at ${at}: ${status}`);
    seen.push({ status, text, headers, length, queries,
      hashes: is.hashes - was.hashes });
  }
  for (const one of seen) assert.deepEqual(one, seen[0], what);
  return seen[0];
}

test('wrong at the start or at the end: the same work', async () => {
  const token = crypto.randomBytes(32);
  const reset = token.toString('base64url');

  await app.sql(`select task.mail_token(null, jsonb_build_object('template',
    'password_reset', 'user_id', $1::uuid), $2, sha256($3))`,
  [user.id, user.email, token]);

  /* behind a version byte and a session, which are no secrets */
  const refresh = await alike('refresh token', (at) => look(app, 'refresh',
    { refreshToken: wrong(user.refreshToken, at) }), [-22, -12, -3]);

  assert.equal(Number(refresh.queries || 0), 0, 'it costs no statement');
  await alike('reset token', (at) => look(app, 'reset-password',
    { token: wrong(reset, at), newPassword: 'another good password' }),
  [0, 20, 40]);
  await alike('password', (at) => look(app, 'login',
    { email: user.email, password: wrong(user.password, at) }), [0, -1]);
});

test('codes of a second factor', async () => {
  const bob = await app.user();
  const factor = await enrol(app, bob);
  const { email, password } = bob;
  const code = await factor.fresh();

  await alike('code', (at) => look(app, 'login',
    { email, password, code: wrong(code, at) }), [0, 5]);
});

/* What is no body: {status, text, ...} as look() says it. */
async function plain(spec) {
  const res = await app.api(spec.method ?? 'GET', spec.path, {
    validate: false, ...spec });

  return { status: res.status, length: res.raw.length, queries: 0,
    headers: res.rawHeaders.filter((_, i) => i % 2 === 0),
    text: res.text.replace(/"request_id":"[^"]*"/g, '')
      .replace(/"timestamp":"[^"]*"/g, '') };
}

test('tokens, keys and signatures', async () => {
  const check = (token) => plain({ path: '/api/v1/auth/check', token });
  const { key } = must(await app.api('POST', '/api/v1/auth/api-keys', {
    token: user.token, body: { name: 'k', scopes: ['events:read'] } }),
  201).data;

  await alike('access token', (at) => check(wrong(user.token, at)),
    [-43, -20, -3]);
  await alike('API key', (at) => plain({ path: '/api/v1/auth/check',
    headers: { 'X-API-Key': wrong(key, at) } }), [-40, -20, -2]);

  const t = Math.floor(Date.now() / 1000);
  const body = JSON.stringify({ id: 'evt_timing', type: 'charge.updated' });
  const mac = crypto.createHmac('sha256', SECRETS.STRIPE_WEBHOOK_SECRET)
    .update(`${t}.${body}`).digest('hex');

  await alike('webhook', (at) => plain({ method: 'POST', body,
    path: '/api/v1/webhooks/stripe', headers: {
      'Stripe-Signature': `t=${t},v1=${wrong(mac, at)}` } }), [0, 31, 63]);
});
