/*
 * Every secret of a run, searched for afterwards in every place it has no
 * business in: logs, metrics, the printed configuration, the process list,
 * Redis, queue tables, the audit, and the database as a whole in plain text.
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { after, before, test } from 'node:test';
import { SECRETS, boot } from '../harness/index.js';
import { enrol } from '../harness/mfa.js';

const PASSWORD = 'Sentinel-Password-5521';
const SECOND = 'Sentinel-Password-7734';
const secrets = new Map();

let app;

before(async () => {
  app = await boot({ workers: 1 });
  await live();
});
after(() => app?.stop());

/* A run in which everything secret is used, also in the wrong way. */
async function live() {
  const user = await app.user('organizer', { password: PASSWORD });
  const auth = (path, body, extra) => app.api('POST', `/api/v1/auth/${path}`,
    { body, ...extra });

  for (const [name, value] of Object.entries(SECRETS)) secrets.set(name, value);
  secrets.set('password', PASSWORD);
  secrets.set('second password', SECOND);
  secrets.set('access token', user.token.split('.')[2]);
  secrets.set('refresh token', user.refreshToken);

  await auth('login', { email: user.email, password: `${PASSWORD}x` });
  await auth('login', { email: user.email, password: [PASSWORD] });
  await auth('login', `{"email":"${user.email}","password":"${PASSWORD}`);
  await auth('refresh', { refreshToken: `${user.refreshToken}x` });
  await auth('refresh', { refreshToken: user.refreshToken, more: 1 });

  const next = (await auth('refresh',
    { refreshToken: user.refreshToken })).data;

  secrets.set('next refresh token', next.refreshToken);
  secrets.set('next access token', next.accessToken.split('.')[2]);
  for (const token of [user.token, `${user.token}x`]) {
    await app.api('GET', '/api/v1/auth/check', { token });
    await app.api('GET', '/api/v1/nowhere', { token });
  }

  const first = await app.mailTo(user.email,
    (m) => m.text.includes('/account/verify/'));
  const proof = first.text.match(/token=([\w-]{43})/)[1];

  secrets.set('verification token', proof);
  await auth('verify-email', { token: `${proof}x` });
  await auth('verify-email', { token: proof });
  await auth('verify-email', { token: proof });

  await auth('forgot-password', { email: user.email });
  const mail = await app.mailTo(user.email,
    (m) => m.text.includes('/account/reset/'));
  const link = mail.text.match(/token=([\w-]{43})/)[1];

  secrets.set('reset token', link);
  await auth('reset-password', { token: link, newPassword: 'short' });
  await auth('reset-password', { token: `${link}x`, newPassword: SECOND });
  const done = await auth('reset-password',
    { token: link, newPassword: SECOND });

  assert.equal(done.status, 200, done.text);
  const again = (await auth('login', { email: user.email, password: SECOND }))
    .data;

  const { key } = (await app.api('POST', '/api/v1/auth/api-keys', {
    token: again.accessToken, body: { name: 'Robot', scopes: ['*'] } })).data;

  /* its beginning is shown in lists */
  secrets.set('API key', key.slice(40));
  for (const headers of [{ Authorization: `Bearer ${key}` },
    { 'X-Api-Key': key }, { Authorization: `Bearer ${key}x` },
    { 'X-Api-Key': `${key.slice(0, -1)}1` }]) {
    await app.api('GET', '/api/v1/users/me', { headers });
    await app.api('GET', '/api/v1/nowhere', { headers });
  }

  const event = await app.event({ token: again.accessToken },
    { types: [{ priceCents: 0, quota: 10 }] });
  const pair = await app.api('POST', '/api/v1/checkin/devices', {
    token: again.accessToken, body: { eventId: event.id, name: 'Door' } });

  secrets.set('pairing code', pair.data.pairingCode);
  const device = await app.api('POST', '/api/v1/checkin/devices/login',
    { body: { code: pair.data.pairingCode } });

  secrets.set('device token', device.data.deviceToken.split('.')[2]);
  await factors(await app.user());
  await app.api('POST', '/api/v1/webhooks/stripe', { body: '{}',
    headers: { 'Stripe-Signature': 't=1,v1=00' } });
}

/* A second factor, its codes and recovery codes, right and wrong. */
async function factors(user) {
  const factor = await enrol(app, user);
  const post = (path, body, token) => app.api('POST', `/api/v1/auth/${path}`,
    { body, token });
  const { email, password } = user;
  const { mfaToken } = (await post('login', { email, password })).error;

  secrets.set('secret of an app', factor.secret);
  secrets.set('recovery code', factor.recovery[0]);
  secrets.set('another recovery code', factor.recovery[1]);
  secrets.set('challenge', mfaToken);
  await post('login/mfa', { mfaToken, recoveryCode: `${factor.recovery[0]}x` });
  await post('login/mfa', { mfaToken, code: factor.wrong() });
  await post('login/mfa', { mfaToken, code: factor.recovery[0] });
  await post('login/mfa', { mfaToken, recoveryCode: factor.recovery[0] });
  await post('step-up', { recoveryCode: factor.recovery[1] }, user.token);
  await post('step-up', { recoveryCode: factor.recovery[1] }, user.token);
}

function absent(text, where, but = []) {
  for (const [name, value] of secrets) {
    if (but.includes(name)) continue;
    assert.ok(!text.includes(value), `${name} is in ${where}`);
  }
}

test('all that should be looked for was used', () => {
  assert.ok(secrets.size >= 12);
  for (const [name, value] of secrets) {
    assert.ok(value?.length >= 12, `${name}: ${value}`);
  }
});

test('logs', () => {
  const names = fs.readdirSync(`${app.dir}/log`);

  assert.ok(names.length >= 3);
  for (const name of names) {
    absent(fs.readFileSync(`${app.dir}/log/${name}`, 'latin1'), name);
  }
  assert.ok(fs.readFileSync(`${app.dir}/log/access.log`, 'utf8')
    .includes('/api/v1/auth/reset-password'), 'the run is in the log');
});

test('metrics and health', async () => {
  for (const path of ['/metrics', '/health/ready', '/health/live',
    '/api/v1/openapi.json']) {
    absent((await app.api('GET', path, { validate: false })).text, path);
  }
});

test('the printed configuration', () => {
  const text = execFileSync(app.nginx.binary, app.nginx.args('-T'),
    { env: { ...process.env, ...app.nginx.environment() },
      stdio: ['ignore', 'pipe', 'pipe'] }).toString();

  assert.match(text, /stoa_settings/);
  absent(text, 'nginx -T');
});

test('the process list, with arguments', () => {
  const text = execFileSync('ps', ['axww', '-o', 'args']).toString();

  assert.match(text, /stoa/);
  absent(text, 'ps');
});

test('Redis', async () => {
  const keys = await app.redis.keys('*');

  assert.ok(keys.length > 0);
  for (const key of keys) {
    const raw = await app.redis.dumpBuffer(key);

    absent(`${key}\n${raw?.toString('latin1')}`, `Redis ${key}`);
    const type = await app.redis.type(key);

    if (type === 'string') absent(await app.redis.get(key), key);
    if (type === 'hash') {
      absent(JSON.stringify(await app.redis.hgetall(key)), key);
    }
  }
});

test('the database, every table', async () => {
  const tables = await app.sql(`select n.nspname || '.' || c.relname as name
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and n.nspname in ('app', 'queue')`);

  assert.ok(tables.length > 20);
  for (const { name } of tables) {
    const text = await app.value(
      `select coalesce(string_agg(t::text, ' '), '') from ${name} t`);

    absent(text, name);
    for (const [what, value] of secrets) {
      assert.ok(!text.includes(Buffer.from(value).toString('hex')),
        `${what} is in ${name} as hex`);
    }
  }
});

test('files of the run are for their owner', () => {
  assert.equal(fs.statSync(app.confFile).mode & 0o077, 0);
});
