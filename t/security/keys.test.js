/*
 * Keys of access tokens: every algorithm against jose as independent signer
 * and verifier, the published JWK Set, rotation by reload without a 401, and
 * keys that must not be mistaken for each other (RFC 8725 3.1, 3.2).
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import * as jose from 'jose';
import { boot } from '../harness/index.js';
import { confText } from '../harness/conf.js';

const CHECK = '/api/v1/auth/check';
const JWKS = '/.well-known/jwks.json';
const RULES = { issuer: 'stoa', audience: 'stoa', typ: 'at+jwt' };

const pair = {
  RS256: () => crypto.generateKeyPairSync('rsa', { modulusLength: 2048 }),
  PS256: () => crypto.generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ES256: () => crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  EdDSA: () => crypto.generateKeyPairSync('ed25519'),
};

const pem = (key) => key.export({ type: 'pkcs8', format: 'pem' });
const jwk = (key, alg, kid) => ({ ...key.export({ format: 'jwk' }), alg, kid,
  use: 'sig' });
const check = (app, token, more) => app.api('GET', CHECK, { token, ...more });

/* A PEM has lines, so it stands in a file of its own. */
function keyConf(dir, alg, kid, keys) {
  const file = path.join(dir, `${kid}.pem`);

  fs.writeFileSync(file, pem(keys.privateKey), { mode: 0o600 });
  return { JWT_ALG: alg, JWT_KID: kid, JWT_PRIVATE_KEY_FILE: file };
}

const scratch = fs.mkdtempSync(path.join(process.env.STOA_TMP ?? '/tmp',
  'stoa-keys-'));

after(() => fs.rmSync(scratch, { recursive: true, force: true }));

for (const [alg, make] of Object.entries(pair)) {
  test(`${alg}: jose verifies what is signed here, and the reverse`,
    async () => {
      const keys = make();
      const app = await boot({
        workers: 0, conf: keyConf(scratch, alg, `own-${alg}`, keys),
      });

      try {
        const alice = await app.user();
        const { body, headers } = await app.api('GET', JWKS);

        assert.deepEqual(body.keys.map((k) => [k.kid, k.alg, k.use]),
          [[`own-${alg}`, alg, 'sig']]);
        assert.ok(body.keys.every((k) => k.d === undefined));
        assert.ok(headers.etag);

        const { payload, protectedHeader } = await jose.jwtVerify(alice.token,
          jose.createLocalJWKSet(body), { ...RULES, algorithms: [alg] });

        assert.equal(payload.sub, alice.id);
        assert.equal(protectedHeader.kid, `own-${alg}`);

        const theirs = await new jose.SignJWT({ ...payload })
          .setProtectedHeader({ alg, typ: 'at+jwt', kid: `own-${alg}` })
          .sign(keys.privateKey);

        assert.equal((await check(app, theirs)).status, 200);

        const others = await new jose.SignJWT({ ...payload })
          .setProtectedHeader({ alg, typ: 'at+jwt', kid: `own-${alg}` })
          .sign(make().privateKey);

        assert.equal((await check(app, others)).status, 401);
      } finally {
        await app.stop();
      }
    });
}

describe('several keys', () => {
  const old = pair.ES256();
  const next = pair.ES256();
  const rsa = pair.RS256();
  const pss = pair.PS256();
  const secret = crypto.randomBytes(48);
  const verify = (...keys) => ({ JWT_VERIFY_KEYS: JSON.stringify({ keys }) });
  const more = [
    jwk(rsa.publicKey, 'RS256', 'rsa'), jwk(pss.publicKey, 'PS256', 'pss'),
    { kty: 'oct', alg: 'HS256', kid: 'oct', k: secret.toString('base64url') },
  ];
  let app, alice;

  before(async () => {
    app = await boot({
      workers: 0,
      conf: { ...keyConf(scratch, 'ES256', 'old', old), ...verify(...more) },
    });
    alice = await app.user();
  });
  after(() => app?.stop());

  const forge = async (alg, kid, key) => new jose.SignJWT(
    { ...jose.decodeJwt(alice.token), exp: Math.floor(Date.now() / 1000) + 600 })
    .setProtectedHeader({ alg, typ: 'at+jwt', kid }).sign(key);

  test('each verifies its own, with its own algorithm only', async () => {
    const good = [['ES256', 'old', old.privateKey],
      ['RS256', 'rsa', rsa.privateKey], ['PS256', 'pss', pss.privateKey],
      ['HS256', 'oct', secret]];

    for (const [alg, kid, key] of good) {
      const res = await check(app, await forge(alg, kid, key));

      assert.equal(res.status, 200, `${alg} ${kid}: ${res.text}`);
    }

    /* each key right after another one was used */
    for (const [alg, kid, key] of [
      ['RS256', 'rsa', pss.privateKey], ['PS256', 'pss', rsa.privateKey],
      ['PS256', 'rsa', rsa.privateKey], ['RS256', 'pss', pss.privateKey],
      ['ES256', 'old', next.privateKey], ['ES256', 'rsa', old.privateKey],
      ['HS256', 'old', secret], ['HS256', 'rsa', secret],
      ['HS256', 'rsa', Buffer.from(rsa.publicKey.export(
        { type: 'spki', format: 'pem' }))],
      ['RS256', 'none', rsa.privateKey],
    ]) {
      assert.equal((await check(app, await forge('RS256', 'rsa',
        rsa.privateKey))).status, 200);
      const res = await check(app, await forge(alg, kid, key));

      assert.equal(res.status, 401, `${alg} as ${kid}`);
    }
  });

  test('the set has public keys only', async () => {
    const { body, text } = await app.api('GET', JWKS);

    assert.deepEqual(body.keys.map((k) => k.kid), ['old', 'rsa', 'pss']);
    assert.ok(!text.includes(secret.toString('base64url')));
    for (const [key, kid] of [[old, 'old'], [rsa, 'rsa'], [pss, 'pss']]) {
      const { alg, use, ...numbers } = body.keys.find((k) => k.kid === kid);

      assert.deepEqual(numbers, { ...key.publicKey.export({ format: 'jwk' }),
        kid });
      assert.ok(alg && use === 'sig');
    }
  });

  async function settings(conf) {
    for (const [key, value] of Object.entries(conf)) app.conf[key] = value;
    fs.writeFileSync(app.confFile, confText(app.conf), { mode: 0o600 });
    await app.nginx.reload();
  }

  test('rotation by reload: nobody is refused meanwhile', async () => {
    const before = alice.token;
    const seen = {};
    let running = true;
    const client = async (_, i) => {
      while (running) {
        const res = await check(app, i % 2 ? alice.token : before,
          { headers: { Connection: 'close' } });

        seen[res.status] = (seen[res.status] ?? 0) + 1;
      }
    };
    const clients = Array.from({ length: 8 }, client);

    /* first everybody learns the next key, then it signs */
    await settings(verify(jwk(next.publicKey, 'ES256', 'next')));
    await settings({
      ...keyConf(scratch, 'ES256', 'next', next),
      ...verify(jwk(old.publicKey, 'ES256', 'old')),
    });
    alice.token = (await app.api('POST', '/api/v1/auth/login', { body: {
      email: alice.email, password: alice.password } })).data.accessToken;
    assert.equal(jose.decodeProtectedHeader(alice.token).kid, 'next');
    await new Promise((done) => { setTimeout(done, 300); });
    running = false;
    await Promise.all(clients);
    assert.deepEqual(Object.keys(seen), ['200'], JSON.stringify(seen));

    /* and when the last old token has run out, the old key goes */
    await settings({ JWT_VERIFY_KEYS: null });
    assert.equal((await check(app, before)).status, 401);
    assert.equal((await check(app, alice.token)).status, 200);
  });
});
