/*
 * Tokens that were made to deceive: algorithms and key sources of the
 * header's own choice, claims of the wrong kind or given twice, encodings
 * that mean the same bytes, and identities that are merely asserted.  Each is
 * signed with the right key unless the case is about the signature, so that
 * nothing but the point in question can refuse it.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';

const CHECK = '/api/v1/auth/check';

let app, alice;

before(async () => {
  app = await boot({ workers: 0 });
  alice = await app.user();
});
after(() => app?.stop());

const url64 = (value) => Buffer.from(value).toString('base64url');
const hmac = (text, sum = 'sha256', key = app.conf.JWT_SECRET) =>
  crypto.createHmac(sum, key).update(text).digest('base64url');

function claimsOf(change = {}) {
  const now = Math.floor(Date.now() / 1000);

  return {
    ...JSON.parse(Buffer.from(alice.token.split('.')[1], 'base64url')),
    iat: now - 1, exp: now + 900, ...change,
  };
}

/* Parts may be objects or the text itself. */
function sign(head, claims, sum, key) {
  const text = [head, claims].map((part) =>
    url64(typeof part === 'string' || Buffer.isBuffer(part)
      ? part : JSON.stringify(part))).join('.');

  return `${text}.${hmac(text, sum, key)}`;
}

const HEAD = { alg: 'HS256', typ: 'at+jwt', kid: '1' };
const withHead = (change) => sign({ ...HEAD, ...change }, claimsOf());
const withClaims = (change) => sign(HEAD, claimsOf(change));

/* The claims as text, with this text behind the last one. */
const withText = (more) => sign(HEAD,
  JSON.stringify(claimsOf()).replace(/\}$/, `,${more}}`));

async function ask(authorization, more = {}) {
  return app.api('GET', CHECK, { headers: {
    ...(authorization === null ? {} : { Authorization: authorization }),
    ...more } });
}

async function refused(token, what) {
  const res = await ask(`Bearer ${token}`);

  assert.equal(res.status, 401, `${what}: ${res.text}`);
  assert.ok(['UNAUTHENTICATED', 'TOKEN_EXPIRED'].includes(res.error.code),
    `${what}: ${res.error.code}`);
}

test('what all cases are variations of is good', async () => {
  assert.equal((await ask(`Bearer ${withClaims({})}`)).status, 200);
});

test('the header chooses no algorithm', async () => {
  for (const alg of ['none', 'None', 'nOnE', 'NONE', '', 'HS384', 'HS512',
    'RS256', 'ES256', 'EdDSA', 'hs256', 'HS256 ', 1, null, true, ['HS256'],
    { HS256: 1 }]) {
    const token = withHead({ alg });

    await refused(token, `alg ${JSON.stringify(alg)}`);
    await refused(`${token.split('.').slice(0, 2).join('.')}.`,
      `alg ${JSON.stringify(alg)}, no signature`);
  }
  await refused(withHead({ alg: undefined }), 'no alg');
  await refused(sign({ ...HEAD, alg: 'HS512' }, claimsOf(), 'sha512'),
    'HS512 made as it says');
  await refused(sign('{"alg":"none","alg":"HS256","typ":"at+jwt","kid":"1"}',
    claimsOf()), 'alg twice');
});

test('the header brings no key', async () => {
  const key = { kty: 'oct', k: url64('a key of the sender'), kid: 'own' };
  const own = (change) => {
    const text = [{ ...HEAD, ...change }, claimsOf()]
      .map((part) => url64(JSON.stringify(part))).join('.');

    return `${text}.${hmac(text, 'sha256', 'a key of the sender')}`;
  };

  for (const change of [
    { jwk: key }, { jwk: key, kid: 'own' }, { jku: `${app.url}/jwks` },
    { x5u: 'http://127.0.0.1:1/x' }, { x5c: ['MIIB'] },
  ]) {
    await refused(own(change), JSON.stringify(change));
  }
});

test('a key id is a name, not a path, a query or a number', async () => {
  for (const kid of ['', '0', '2', '01', '1 ', '../1', '../../../dev/null',
    "1' or '1'='1", '1\u0000', '\u0000', 1, null, ['1'], { 1: 1 },
    '1'.repeat(3000)]) {
    await refused(withHead({ kid }), `kid ${JSON.stringify(kid).slice(0, 40)}`);
  }
});

test('types are not exchanged', async () => {
  for (const typ of ['JWT', 'jwt', '', 'at+jwt ', 'stoa-device+jwt', 1, null,
    ['at+jwt']]) {
    await refused(withHead({ typ }), `typ ${JSON.stringify(typ)}`);
  }
  await refused(withHead({ crit: ['exp'] }), 'crit');
  await refused(withHead({ b64: false, crit: ['b64'] }), 'b64');
});

test('a clock that is a little off, as far as stoa_leeway says', async () => {
  const at = Math.floor(Date.now() / 1000);
  const own = await boot({ workers: 0, nginx: { http: 'stoa_leeway 100s;' } });
  const check = async (change) => (await own.api('GET', CHECK, {
    token: sign(HEAD, claimsOf(change), 'sha256', own.conf.JWT_SECRET),
  })).status;

  try {
    assert.equal(await check({ exp: at - 60 }), 200);
    assert.equal(await check({ exp: at - 101 }), 401);
    assert.equal(await check({ iat: at + 80, exp: at + 900 }), 200);
    const { text } = await own.api('GET', '/metrics', { validate: false });

    assert.match(text, /^stoa_auth_leeway_total 1$/m);
  } finally {
    await own.stop();
  }
  await refused(withClaims({ exp: at - 60 }), 'beyond the default of 30 s');
});

test('each claim, of each wrong kind', async () => {
  const strings = ['iss', 'aud', 'sub', 'sid', 'jti'];
  const numbers = ['exp', 'iat', 'ep'];

  for (const name of [...strings, ...numbers, 'roles']) {
    for (const value of [null, '', {}, [], [[]], true, 'x'.repeat(500),
      strings.includes(name) ? 7 : '7', -1, 1e400, [null]]) {
      /* an empty list of roles is a token without rights, not a wrong one */
      if (name === 'roles' && JSON.stringify(value) === '[]') continue;
      await refused(withClaims({ [name]: value }),
        `${name} ${JSON.stringify(value).slice(0, 40)}`);
    }
  }
  for (const name of ['iss', 'aud', 'sub', 'exp', 'ep', 'sid']) {
    await refused(withClaims({ [name]: undefined }), `no ${name}`);
  }
});

test('the end is a whole number in range, and in the future', async () => {
  const now = Math.floor(Date.now() / 1000);

  for (const text of [`"${now + 900}"`, `${now + 900}.5`, '-1', '0',
    '9223372036854775808', '18446744073709551616', '1e30', '1e999',
    `${now - 3600}`, 'null', '[]']) {
    const claims = JSON.stringify(claimsOf({ exp: 0 }))
      .replace('"exp":0', `"exp":${text}`);

    await refused(sign(HEAD, claims), `exp ${text}`);
  }
});

test('a claim given twice is neither of the two', async () => {
  const other = crypto.randomUUID();

  for (const more of ['"roles":["admin"]', `"sub":"${other}"`, '"exp":1',
    '"ep":1', '"iss":"stoa"', '"aud":"stoa"', '"\\u0073ub":"x"']) {
    await refused(withText(more), more);
  }
});

test('roles that nobody grants give nothing', async () => {
  const organizer = (roles) => app.api('POST', '/api/v1/events', {
    token: withClaims({ roles }), body: { title: 'x' } });

  for (const roles of [['root'], ['ADMIN'], ['admin '], [''], ['public'],
    ['admin\u0000'], ['member,admin'], ['{admin}'], ['device']]) {
    const res = await organizer(roles);

    assert.ok([401, 403].includes(res.status), `${roles}: ${res.status}`);
  }
  for (const roles of ['admin', { admin: true }, 8, [['admin']]]) {
    assert.ok([401, 403].includes((await organizer(roles)).status),
      JSON.stringify(roles));
  }
});

test('one spelling per signature', async () => {
  const good = withClaims({ jti: crypto.randomUUID() });
  const [head, body, mac] = good.split('.');
  const alphabet =
    'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  const last = alphabet.indexOf(mac.at(-1));

  for (const [what, token] of Object.entries({
    'bits behind the last byte': `${head}.${body}.${mac.slice(0, -1)}${
      alphabet[last ^ 1]}`,
    'padding': `${good}=`,
    'padding of the payload': `${head}.${body}=.${mac}`,
    'a space inside': `${head}.${body} .${mac}`,
    'a line end inside': `${head}.${body}\t.${mac}`,
    'two dots': `${head}..${mac}`,
    'one dot': `${head}.${body}`,
    'a dot in front': `.${good}`,
    'a dot behind': `${good}.`,
    'four dots': `${good}.x.y`,
    'the other alphabet': `${head}.${body}.${
      mac.replaceAll('-', '+').replaceAll('_', '/')}+`,
    'percent signs': good.replace('.', '%2e'),
    'an empty signature': `${head}.${body}.`,
    'only dots': '..',
    'nothing but text': 'null',
  })) {
    await refused(token, what);
  }
});

test('a payload is one JSON object', async () => {
  for (const text of ['', '{}', '[]', 'null', '"x"', '1', '{',
    `${JSON.stringify(claimsOf())}x`, `${JSON.stringify(claimsOf())}{}`,
    `[${JSON.stringify(claimsOf())}]`, '[' .repeat(2000),
    '{"a":'.repeat(1000)]) {
    await refused(sign(HEAD, text), text.slice(0, 30));
    await refused(sign(text, claimsOf()), `head ${text.slice(0, 30)}`);
  }
  await refused(sign(HEAD, Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]),
    Buffer.from(JSON.stringify(claimsOf()))])), 'byte order mark');
  await refused(sign(HEAD, JSON.stringify(claimsOf()).replace('"stoa"',
    '"stoa\u0000"')), 'NUL');
});

test('two tokens are none', async () => {
  const token = withClaims({});
  const lines = (...all) => app.raw(`GET ${CHECK} HTTP/1.1\r\nHost: x\r\n` +
    `Connection: close\r\n${all.map((l) => `${l}\r\n`).join('')}\r\n`);
  const status = (text) => Number(text.match(/^HTTP\/1\.1 (\d+)/)?.[1]);

  assert.equal(status(await lines(`Authorization: Bearer ${token}`)), 200);
  for (const all of [
    [`Authorization: Bearer ${token}`, 'Authorization: Bearer x'],
    ['Authorization: Bearer x', `Authorization: Bearer ${token}`],
    [`Authorization: Bearer ${token}, Bearer ${token}`],
    [`Authorization: Basic ${token}`], [`Authorization: ${token}`],
    [`Authorization: Bearer${token}`], [`Authorization:`],
    [`Proxy-Authorization: Bearer ${token}`], [`Cookie: token=${token}`],
    [`X-Authorization: Bearer ${token}`], [`Authorization_: Bearer ${token}`],
  ]) {
    assert.ok([400, 401].includes(status(await lines(...all))),
      all.map((l) => l.slice(0, 30)).join(' / '));
  }
});

test('who one is comes from the token alone', async () => {
  const admin = await app.user('admin');
  const names = ['X-User', 'X-User-Id', 'X-Stoa-User', 'X_User', 'X-Role',
    'X-Roles', 'X-Stoa-Role', 'X-Session', 'X-Forwarded-User',
    'X-Original-User', 'X-Authenticated-Userid'];
  const more = Object.fromEntries(names.map((name) => [name, admin.id]));

  assert.equal((await ask(null, more)).status, 401);
  const res = await ask(`Bearer ${alice.token}`, { ...more,
    'X-Roles': 'admin' });

  assert.equal(res.data.userId, alice.id);
  assert.deepEqual(res.data.roles, ['member']);
  assert.equal((await app.api('GET',
    `${CHECK}?access_token=${alice.token}`)).status, 401);
});
