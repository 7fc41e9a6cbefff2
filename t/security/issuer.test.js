/*
 * Tokens of other issuers (edge.md D.2: issuer trust, key source, SSRF in
 * JWKS): whose keys count for whom, which keys are taken at all, what an
 * issuer that is away, slow, broken or attacked does to everybody else, and
 * that nothing is fetched from where it must not be.
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { mint } from '../derived/rows.js';
import { boot, sleep, until } from '../harness/index.js';
import { must } from '../harness/fixtures.js';
import { Issuer, makeKey } from '../harness/issuer.js';
import { enrol } from '../harness/mfa.js';

const CHECK = '/api/v1/auth/check';
const DAY = 86400000;

const check = (app, token, more) => app.api('GET', CHECK, { token, ...more });

async function refused(res, status, code) {
  assert.equal((await res).status, status, (await res).text);
  assert.equal((await res).error.code, code, (await res).text);
}

/* Boots with these issuers; conf may change what follows from them. */
const trusting = (issuers, conf = {}, more = {}) => boot({ workers: 0,
  nginxWorkers: 1, alone: true, ...more,
  conf: { JWT_ISSUERS: issuers.map((is) => `${is.url}${is.more ?? ''}`)
    .join(' '), ISSUER_NETWORK: 'insecure', ...conf } });

const link = (app, user, issuer, subject) => app.value(
  `insert into app.oauth_identities (id, user_id, issuer, subject, created_at)
   values (app.uuid7(), $1, $2, $3, app.now()) returning id`,
  [user.id, issuer.url, subject]);

async function metric(app, name, issuer) {
  const { text } = await app.api('GET', '/metrics', { validate: false });
  const line = text.split('\n').find((l) =>
    l.startsWith(`${name}{issuer="${issuer.url}"}`));

  return line && Number(line.split(' ').at(-1));
}

/* The keys are there: what is asked afterwards waits for nothing. */
const ready = (app, issuer) => until(async () =>
  await metric(app, 'stoa_issuer_keys_age_seconds', issuer) !== undefined,
{ what: 'the keys' });

describe('trust', () => {
  let app, one, two, alice, bob;

  before(async () => {
    one = await Issuer.start({ keys: ['ES256', 'RS256', 'PS256', 'EdDSA']
      .map((alg) => makeKey(alg)) });
    two = await Issuer.start({ audience: 'https://api.example' });
    two.more = `;aud=https://api.example;jwks=${two.url}/keys`;
    app = await trusting([one, two]);
    alice = await app.user('organizer');
    bob = await app.user();
    await link(app, alice, one, 'alice');
    await link(app, bob, two, 'bob');
  });
  after(async () => {
    await app?.stop();
    await one?.stop();
    await two?.stop();
  });

  test('a linked subject is its account, by every algorithm', async () => {
    for (const key of one.keys) {
      for (const typ of ['at+jwt', 'application/at+jwt', 'JWT', undefined]) {
        const res = await check(app, await one.token('alice', {},
          { key, head: { typ } }));

        assert.equal(res.status, 200, `${key.alg} ${typ}: ${res.text}`);
        assert.equal(res.data.userId, alice.id);
        assert.deepEqual(res.data.roles.sort(), ['member', 'organizer']);
      }
    }
    assert.equal(one.asked.document, 1, 'fetched once, at the start');
    assert.equal(two.asked.document, 0, 'its setting says where the keys are');
    assert.equal((await check(app, await two.token('bob'))).data.userId,
      bob.id);
    assert.equal(await metric(app, 'stoa_issuer_fetch_errors_total', one), 0);
    assert.ok(await metric(app, 'stoa_issuer_keys_age_seconds', two) < 600);

    /* and it is an actor like any other */
    const me = await app.api('GET', '/api/v1/users/me',
      { token: await one.token('alice') });

    assert.equal(me.data.email, alice.email);

    const event = await app.event({ token: await one.token('alice') });

    assert.equal(await app.value(
      'select organizer_id from app.events where id = $1', [event.id]),
    alice.id);
  });

  test('what is wrong with a token of ours is told as ever', async () => {
    const past = Math.floor(Date.now() / 1000) - 3600;

    await refused(check(app, mint(app, { iat: past, exp: past + 900 })), 401,
      'TOKEN_EXPIRED');
    await refused(check(app, mint(app, { aud: 'other' })), 401,
      'UNAUTHENTICATED');
    await refused(check(app, await one.token('alice',
      { iat: past, exp: past + 900 })), 401, 'TOKEN_EXPIRED');
  });

  test('who is not linked is told so', async () => {
    await refused(check(app, await one.token('bob')), 401,
      'IDENTITY_NOT_LINKED');
    await refused(check(app, await two.token('alice')), 401,
      'IDENTITY_NOT_LINKED');
    await refused(check(app, await one.token('Alice')), 401,
      'IDENTITY_NOT_LINKED');
    /* on a public row too: a bad token is never nobody's */
    await refused(app.api('GET', '/api/v1/events',
      { token: await one.token('mallory') }), 401, 'IDENTITY_NOT_LINKED');
  });

  test('CVE-2026-31813: an issuer is bound to its own keys', async () => {
    const [mine] = one.keys;
    const [theirs] = two.keys;
    const claims = one.claims('alice');

    for (const head of [{}, { kid: mine.kid }, { kid: undefined }]) {
      await refused(check(app, await one.sign(claims,
        { key: theirs, head })), 401, 'UNAUTHENTICATED');
    }
    /* nor may it speak as us, or we as it */
    await refused(check(app, await one.sign({ ...claims, iss: 'stoa',
      sub: alice.id, sid: crypto.randomUUID(), jti: crypto.randomUUID(),
      ep: 1, roles: ['admin'] })), 401, 'UNAUTHENTICATED');

    const own = { alg: 'HS256', kid: '1',
      privateKey: Buffer.from(app.conf.JWT_SECRET) };

    await refused(check(app, await one.sign(claims, { key: own })), 401,
      'UNAUTHENTICATED');

    /* an issuer nobody named; and what looks like one that is */
    const other = await Issuer.start();

    await refused(check(app, await other.token('alice')), 401,
      'UNAUTHENTICATED');
    await other.stop();
    assert.deepEqual(other.asked, { document: 0, keys: 0 });
    for (const iss of [`${one.url}/`, one.url.toUpperCase(), ` ${one.url}`,
      one.url.replace('127.0.0.1', 'localhost'), `${one.url}#`, '', null, 7,
      [one.url], { iss: one.url }, undefined, `${one.url}\u0000`]) {
      await refused(check(app, await one.sign({ ...claims, iss })), 401,
        'UNAUTHENTICATED');
    }
  });

  test('claims are what they must be', async () => {
    const now = Math.floor(Date.now() / 1000);
    const good = (change, more) => one.token('alice', change, more);

    for (const change of [{ aud: ['x', 'stoa'] }, { exp: now + 5.5 },
      { nbf: now }, { email: 'mallory@test.example' }, { roles: ['admin'] },
      { iss: one.url, extra: { deep: [1] } }]) {
      const res = await check(app, await good(change));

      assert.equal(res.status, 200, `${JSON.stringify(change)} ${res.text}`);
      assert.equal(res.data.userId, alice.id);
      assert.ok(!res.data.roles.includes('admin'));
    }
    for (const change of [
      { aud: 'Stoa' }, { aud: undefined }, { aud: [] }, { aud: ['x'] },
      { aud: 7 }, { aud: { stoa: 1 } }, { aud: ['stoa', 7] }, { aud: null },
      { aud: 'https://api.example' }, { sub: undefined }, { sub: '' },
      { sub: 7 }, { sub: 'alice\n' }, { sub: 'a'.repeat(256) }, { sub: null },
      { sub: 'álice' }, { iat: undefined }, { iat: now + 3600 },
      { iat: '1' }, { iat: -1 }, { exp: undefined }, { exp: `${now + 900}` },
      { exp: null }, { nbf: now + 3600 }, { nbf: 'now' },
    ]) {
      await refused(check(app, await good(change)), 401, 'UNAUTHENTICATED');
    }
    await refused(check(app, await good({ exp: now - 60 })), 401,
      'TOKEN_EXPIRED');
  });

  test('an ID token is no access token', async () => {
    const plain = { head: { typ: 'JWT' } };

    for (const name of ['nonce', 'at_hash', 'c_hash']) {
      await refused(check(app, await one.token('alice', { [name]: 'x' },
        plain)), 401, 'UNAUTHENTICATED');
    }
    for (const typ of ['id+jwt', 'logout+jwt', 'dpop+jwt', 'secevent+jwt',
      'stoa-device+jwt', '']) {
      await refused(check(app, await one.token('alice', {},
        { head: { typ } })), 401, 'UNAUTHENTICATED');
    }
  });

  test('algorithms are the keys\'', async () => {
    const claims = one.claims('alice');
    const part = (value) => Buffer.from(JSON.stringify(value))
      .toString('base64url');
    const [ec, rsa, pss] = one.keys;

    for (const alg of ['none', 'None', 'nOnE', '']) {
      for (const kid of [ec.kid, undefined]) {
        await refused(check(app, `${part({ alg, kid, typ: 'at+jwt' })}.${
          part(claims)}.`), 401, 'UNAUTHENTICATED');
      }
    }
    for (const key of [rsa, ec]) {
      for (const secret of [key.publicKey.export({ type: 'spki',
        format: 'pem' }), key.publicKey.export({ type: 'spki',
        format: 'der' }), JSON.stringify(key.jwk)]) {
        await refused(check(app, await one.sign(claims, { key: { alg: 'HS256',
          kid: key.kid, privateKey: Buffer.from(secret) } })), 401,
        'UNAUTHENTICATED');
      }
    }
    for (const key of [{ ...rsa, kid: pss.kid }, { ...pss, kid: rsa.kid },
      { ...rsa, alg: 'PS256' }, { ...pss, alg: 'RS256' }]) {
      await refused(check(app, await one.sign(claims, { key })), 401,
        'UNAUTHENTICATED');
    }
    for (const head of [{ jwk: ec.jwk }, { jku: `${two.url}/keys` },
      { x5u: `${two.url}/keys` }]) {
      const key = makeKey('ES256');

      await refused(check(app, await one.sign(claims, { key,
        head: { ...head, kid: ec.kid } })), 401, 'UNAUTHENTICATED');
    }
  });

  test('a gate before other software knows them as well', async () => {
    const backend = http.createServer((req, res) => res.end(
      JSON.stringify([req.headers['x-user'], req.headers['x-roles']])));

    await new Promise((done) => backend.listen(0, '127.0.0.1', done));

    const gated = await trusting([one], {}, { nginx: { server: `
      location /legacy/ {
        stoa_auth required role=organizer;
        proxy_set_header X-User $stoa_user;
        proxy_set_header X-Roles $stoa_role;
        proxy_pass http://127.0.0.1:${backend.address().port};
      }` } });

    try {
      const user = await gated.user('organizer');
      const member = await gated.user();
      const ask = (token) => gated.api('GET', '/legacy/', { token,
        validate: false, headers: { 'X-User': alice.id } });

      await link(gated, user, one, 'ola');
      await link(gated, member, one, 'max');

      const res = await ask(await one.token('ola'));

      assert.equal(res.status, 200, res.text);
      assert.equal(JSON.parse(res.text)[0], user.id);
      assert.equal((await ask(await one.token('max'))).status, 403);
      assert.equal((await ask(await one.token('nobody'))).status, 401);
    } finally {
      await gated.stop();
      backend.close();
    }
  });

  test('revocations count at once', async () => {
    const user = await app.user();
    const id = await link(app, user, one, 'rev');
    const at = (s) => ({ iat: Math.floor(Date.now() / 1000) + s });
    const old = await one.token('rev', at(-5));

    assert.equal((await check(app, old)).status, 200);
    assert.equal((await check(app, old)).status, 200, 'from the cache');

    const logout = await app.api('POST', '/api/v1/auth/logout',
      { token: user.token, body: { all: true } });

    assert.equal(logout.status, 200);
    for (let i = 0; i < 3; i++) {
      await refused(check(app, old), 401, 'TOKEN_REVOKED');
    }
    /* made after that, and of the same identity */
    assert.equal((await check(app, await one.token('rev', at(2)))).status,
      200);

    /* signed out by itself: it is over, and sessions here go on */
    const mine = must(await app.api('POST', '/api/v1/auth/login', { body: {
      email: user.email, password: user.password } }), 200).data;
    const out = await one.token('rev', at(2));

    assert.equal((await check(app, out)).status, 200);
    await app.clock.advance(3000);
    assert.deepEqual(must(await app.api('POST', '/api/v1/auth/logout',
      { token: out, body: {} }), 200).data, { loggedOut: true });
    for (let i = 0; i < 3; i++) {
      await refused(check(app, out), 401, 'TOKEN_REVOKED');
    }
    must(await app.api('POST', '/api/v1/auth/refresh',
      { body: { refreshToken: mine.refreshToken } }), 200);

    /* suspended: as somebody's sessions end, so does this */
    const fresh = await one.token('rev', at(8));

    assert.equal((await check(app, fresh)).status, 200);
    await app.sql(`update app.users set status = 'suspended' where id = $1`,
      [user.id]);
    await app.sql(`select app.epoch_bump($1, 'suspended')`, [user.id]);
    await until(async () => (await check(app, fresh)).status === 403,
      { timeout: 3000, what: 'the revocation' });
    await refused(check(app, fresh), 403, 'ACCOUNT_SUSPENDED');
    await app.sql(`update app.users set status = 'active' where id = $1`,
      [user.id]);

    /* unlinked: its id is revoked like a session's */
    const late = await one.token('rev', at(10));

    assert.equal((await check(app, late)).status, 200);
    await app.sql(`with d as (delete from app.oauth_identities where id = $1)
      insert into app.revocations (entry, at, expires_at)
      values ('sid ' || $1::uuid || ' '
        || app.ms(app.now() + interval '1 day'), app.now(),
        app.now() + interval '1 day')`, [id]);
    await until(async () => (await check(app, late)).status === 401,
      { timeout: 3000, what: 'the revocation' });
    await refused(check(app, late), 401, 'IDENTITY_NOT_LINKED');
  });

  test('logins need a proved address where the setting says so', async () => {
    const strict = await trusting([one], { REQUIRE_VERIFIED_EMAIL: 'login' },
      { workers: 1 });

    try {
      const id = await strict.value(`select app.user_add('v@test.example',
        'x', 'member', 'V', 'V')`);

      await until(() => strict.value(`select app.setting(
        'require_verified_email') = 'login'`), { what: 'the setting' });
      await link(strict, { id }, one, 'v');
      assert.equal((await check(strict, await one.token('v'))).status, 200);
      await strict.sql(`update app.users set email_verified_at = null
        where id = $1`, [id]);
      await refused(check(strict, await one.token('v', { n: 1 })), 403,
        'EMAIL_NOT_VERIFIED');
    } finally {
      await strict.stop();
    }
  });
});

describe('keys', () => {
  let app, is, user;

  before(async () => {
    is = await Issuer.start();
    app = await trusting([is]);
    user = await app.user();
    await link(app, user, is, 'u');
  });
  after(async () => {
    await app?.stop();
    await is?.stop();
  });

  const ok = async (spec) => assert.equal(
    (await check(app, await is.token('u', { n: crypto.randomUUID() }, spec)))
      .status, 200);

  test('rotation under traffic: nobody is refused', async () => {
    const seen = {};
    let running = true;
    const client = async () => {
      while (running) {
        const res = await check(app,
          await is.token('u', { n: crypto.randomUUID() }));

        seen[res.status] = (seen[res.status] ?? 0) + 1;
      }
    };
    const clients = Array.from({ length: 6 }, client);

    await sleep(200);
    is.delay = 300; /* many come with the new kid while one fetch runs */
    const [old] = is.keys;

    is.keys = [makeKey('ES256'), old];
    await sleep(1000);
    is.delay = 0;
    running = false;
    await Promise.all(clients);
    assert.deepEqual(Object.keys(seen), ['200'], JSON.stringify(seen));
    assert.equal(is.asked.keys, 2, 'one at the start, one for the new kid');
    await ok({ key: old });
  });

  test('a flood of unknown kids causes one fetch', async () => {
    await app.clock.advance(31000);

    const was = { ...is.asked };
    const tokens = await Promise.all(Array.from({ length: 200 }, () =>
      is.token('u', {}, { key: { ...is.keys[0],
        kid: crypto.randomUUID() } })));
    const own = app.user();
    const all = await app.barrier(tokens.length, (i) => ({ method: 'GET',
      path: CHECK, token: tokens[i] }));

    assert.deepEqual([...new Set(all.map(({ status }) => status))], [401]);
    await own;
    for (const kid of ['', '../1', "' or 1", '"', 'x'.repeat(200), 'a\u0000',
      '%00', '\\', 'é']) {
      await refused(check(app, await is.token('u', {}, { key:
        { ...is.keys[0], kid } })), 401, 'UNAUTHENTICATED');
    }
    assert.equal(is.asked.keys, was.keys + 1);
    assert.equal(is.asked.document, was.document);
    await ok();

    await app.clock.advance(31000);
    await refused(check(app, tokens[0]), 401, 'UNAUTHENTICATED');
    assert.equal(is.asked.keys, was.keys + 2, 'half a minute later, one more');
  });

  test('they are fetched again before their age is over', async () => {
    let was = is.asked.keys;
    /* asked for, and here: the clock of the next age has begun */
    const fetched = async (what) => {
      await until(async () => is.asked.keys === was + 1
        && await metric(app, 'stoa_issuer_keys_age_seconds', is) < 60,
      { what: `a fetch: ${what}` });
      was++;
    };

    is.headers = { 'Cache-Control': 'public, max-age=1000' };
    await app.clock.advance(3600000); /* what had none had an hour */
    await fetched('after an hour');
    await app.clock.advance(600000); /* well before three quarters of it */
    await sleep(1500);
    assert.equal(is.asked.keys, was);
    await app.clock.advance(300000);
    await fetched('after 15 minutes of 16');

    /* bounds: neither each second nor never */
    for (const [said, early, late] of [['max-age=1', 100, 360],
      ['no-store', 100, 360], ['max-age=99999999999', 50000, 86000]]) {
      is.headers = { 'Cache-Control': said };
      await app.clock.advance(86000 * 1000);
      await fetched('the first with this');
      await app.clock.advance(early * 1000);
      await sleep(1500);
      assert.equal(is.asked.keys, was, said);
      await app.clock.advance((late - early) * 1000);
      await fetched(said);
    }
    is.headers = {};
  });

  test('bad sets are not taken, and what was there goes on', async () => {
    const [good] = is.keys;
    const now = () => is.claims('u', { iat: Math.floor(Date.now() / 1000
      + app.clock.ms / 1000), exp: Math.floor(Date.now() / 1000
      + app.clock.ms / 1000) + 900, n: crypto.randomUUID() });
    const works = async (key = good) => check(app,
      await is.sign(now(), { key }));
    const rsa = makeKey('RS256');
    const send = (body, headers = {}, status = 200) => (what, res) => {
      if (what !== 'keys') return false;
      res.writeHead(status, headers).end(body);
      return true;
    };
    const set = (...keys) => send(JSON.stringify({ keys }));
    const weak = crypto.generateKeyPairSync('rsa', { modulusLength: 1024 });
    const away = await Issuer.start({ keys: [rsa] });

    for (const [what, broken] of Object.entries({
      'no JSON': send('<html>'), 'no set': send('[]'), 'null': send('null'),
      'empty': send('{"keys":[]}'), 'a text': send('{"keys":"x"}'),
      'too large': send(JSON.stringify({ keys: [rsa.jwk],
        x: 'x'.repeat(300 * 1024) })),
      'deep': send(`${'['.repeat(100000)}${']'.repeat(100000)}`),
      'a duplicate member': send(`{"keys":[],"keys":[${
        JSON.stringify(rsa.jwk)}]}`),
      'a duplicate kid': set(rsa.jwk, { ...makeKey('ES256').jwk,
        kid: rsa.kid }),
      'too many': set(...Array.from({ length: 40 }, (_, i) =>
        ({ ...rsa.jwk, kid: `n${i}` }))),
      'for encryption': set({ ...rsa.jwk, use: 'enc' }),
      'that only signs': set({ ...rsa.jwk, key_ops: ['sign'] }),
      'another algorithm': set({ ...rsa.jwk, alg: 'RS512' }),
      'an algorithm of another type': set({ ...rsa.jwk, alg: 'ES256' }),
      'HS256 of a public key': set({ ...rsa.jwk, alg: 'HS256' }),
      'alg that is no text': set({ ...rsa.jwk, alg: 7 }),
      'use that is no text': set({ ...rsa.jwk, use: ['sig'] }),
      'a secret': set({ kty: 'oct', kid: rsa.kid, alg: 'HS256', use: 'sig',
        k: crypto.randomBytes(32).toString('base64url') }),
      'no kid': set({ ...rsa.jwk, kid: undefined }),
      'a long kid': set({ ...rsa.jwk, kid: 'k'.repeat(10240) }),
      'RSA of 1024 bits': set({ ...weak.publicKey.export({ format: 'jwk' }),
        kid: 'weak', alg: 'RS256', use: 'sig' }),
      'an even exponent': set({ ...rsa.jwk, e: 'Ag' }),
      'exponent one': set({ ...rsa.jwk, e: 'AQ' }),
      'off the curve': set({ ...makeKey('ES256').jwk, y: makeKey('ES256')
        .jwk.y }),
      'a point of nothing': set({ ...makeKey('ES256').jwk, x: '', y: '' }),
      'another curve': set({ ...crypto.generateKeyPairSync('ec',
        { namedCurve: 'P-384' }).publicKey.export({ format: 'jwk' }),
      kid: 'p384', alg: 'ES256', use: 'sig' }),
      'an error': send('{}', {}, 500),
      'no content': send('', {}, 204),
      'a redirect': send('', { Location: `${away.url}/keys` }, 302),
      'cut': (kind, res) => {
        res.writeHead(200, { 'Content-Length': 1000 });
        res.write('{"keys":');
        setTimeout(() => res.destroy(), 20);
        return true;
      },
    })) {
      const errors = await metric(app, 'stoa_issuer_fetch_errors_total', is);

      is.broken = broken;
      await app.clock.advance(31000);
      await refused(works(rsa), 401, 'UNAUTHENTICATED');
      assert.ok(await metric(app, 'stoa_issuer_fetch_errors_total', is)
        > errors, what);
      assert.equal((await works()).status, 200, what);
    }
    assert.equal(away.asked.keys, 0, 'redirects are not followed');
    await away.stop();

    /* what is of no use beside what is: passed over */
    is.broken = undefined;
    is.keys = [good, rsa, { jwk: { kty: 'oct', kid: 'o', k: 'AAAA' } },
      { jwk: { ...makeKey('RS256').jwk, use: 'enc', kid: good.kid } },
      { jwk: { kty: 'new', kid: 'n' } }, { jwk: 'text' },
      { jwk: { ...weak.publicKey.export({ format: 'jwk' }), kid: 'weak' } }];
    await app.clock.advance(31000);
    assert.equal((await works(rsa)).status, 200);
    assert.equal((await works()).status, 200);

    /* a key that names no algorithm has that of its type, and no other */
    const bare = makeKey('RS256');

    delete bare.jwk.alg;
    is.keys = [good, bare];
    await app.clock.advance(31000);
    assert.equal((await works(bare)).status, 200);
    await refused(works({ ...bare, alg: 'PS256' }), 401, 'UNAUTHENTICATED');
    is.keys = [good];
  });

  test('an issuer that is away: its keys stay for a day', async () => {
    const exp = Math.floor((Date.now() + app.clock.ms) / 1000) + 40 * 86400;
    const token = () => is.token('u', { exp, n: crypto.randomUUID() });

    await app.clock.advance(4000000);
    await until(async () => await metric(app, 'stoa_issuer_keys_age_seconds',
      is) < 60, { what: 'a fetch' });
    await is.stop();
    await app.clock.advance(DAY - 600000);
    assert.equal((await check(app, await token())).status, 200);
    assert.ok(await metric(app, 'stoa_issuer_keys_age_seconds', is) > 80000);

    await app.clock.advance(700000);
    for (let i = 0; i < 3; i++) {
      const from = Date.now();
      const res = await check(app, await token());

      await refused(res, 503, 'ISSUER_UNAVAILABLE');
      assert.ok(Number(res.headers['retry-after']) >= 1);
      assert.ok(Date.now() - from < 5000);
    }
    /* nobody else notices */
    const other = await app.user();

    assert.equal((await check(app, other.token)).status, 200);

    await is.restart();
    await app.clock.advance(70000);
    await until(async () => (await check(app, await token())).status === 200,
      { what: 'the keys to be back' });
  });
});

describe('documents', () => {
  const bad = {
    'another issuer': (is) => ({ issuer: `${is.url}/` }),
    'no issuer': () => ({ issuer: undefined }),
    'an issuer that is no text': (is) => ({ issuer: [is.url] }),
    'no keys': () => ({ jwks_uri: undefined }),
    'keys in a file': () => ({ jwks_uri: 'file:///etc/passwd' }),
    'keys by ftp': (is) => ({ jwks_uri: is.url.replace('http', 'ftp') }),
    'keys of somebody': (is) => ({ jwks_uri:
      is.url.replace('//', '//a:b@') }),
    'a path only': () => ({ jwks_uri: '/keys' }),
    'spaces': (is) => ({ jwks_uri: `${is.url}/ keys` }),
    'a line break': (is) => ({ jwks_uri: `${is.url}/\r\nX: y` }),
    'too long': (is) => ({ jwks_uri: `${is.url}/${'x'.repeat(600)}` }),
  };

  test('one that lies is not believed', async () => {
    const all = await Promise.all(Object.values(bad).map(async (says) => {
      const is = await Issuer.start();

      is.says = says(is);
      return is;
    }));
    const app = await trusting(all);

    try {
      for (const [i, what] of Object.keys(bad).entries()) {
        await refused(check(app, await all[i].token('u')), 503,
          'ISSUER_UNAVAILABLE').catch((error) => {
          throw new Error(what, { cause: error });
        });
        assert.equal(all[i].asked.keys, 0, what);
        assert.ok(all[i].asked.document <= 4, `${all[i].asked.document}`);
      }
    } finally {
      await app.stop();
      await Promise.all(all.map((is) => is.stop()));
    }
  });

  test('a slow issuer holds up those who ask for it, and not long',
    async () => {
      const slow = await Issuer.start();
      const app = await (async () => {
        slow.delay = 60000;
        return trusting([slow]);
      })();

      try {
        const user = await app.user();

        await link(app, user, slow, 'u');

        const from = Date.now();
        const asked = slow.token('u').then((token) => check(app, token));
        const gone = Array.from({ length: 5 }, async () => {
          const abort = new AbortController();
          const done = check(app, await slow.token('u',
            { n: crypto.randomUUID() }), { signal: abort.signal });

          setTimeout(() => abort.abort(), 300); /* clients that leave */
          await assert.rejects(done);
        });

        for (let i = 0; i < 20; i++) {
          assert.equal((await check(app, user.token)).status, 200);
        }
        assert.ok(Date.now() - from < 4000, 'others do not wait');
        await Promise.all(gone);
        await refused(asked, 503, 'ISSUER_UNAVAILABLE');

        /* a fetch under way does not keep a process from retiring */
        await app.clock.advance(120000);
        await until(() => slow.asked.document >= 2, { what: 'another try' });
        const parked = slow.token('u', { n: 1 })
          .then((token) => check(app, token));

        await sleep(100);
        await app.nginx.reload();
        await refused(parked, 503, 'ISSUER_UNAVAILABLE');
      } finally {
        await app.stop();
        await slow.stop();
      }
    });
});

describe('the network', () => {
  const dir = fs.mkdtempSync(path.join(process.env.STOA_TMP ?? '/tmp',
    'stoa-issuer-'));
  let tls;

  before(() => {
    execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt',
      'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj',
      '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1',
      '-keyout', `${dir}/key.pem`, '-out', `${dir}/cert.pem`],
    { stdio: 'ignore' });
    tls = { key: fs.readFileSync(`${dir}/key.pem`),
      cert: fs.readFileSync(`${dir}/cert.pem`) };
  });
  after(() => fs.rmSync(dir, { recursive: true, force: true }));

  const errors = (app, is) => until(async () =>
    await metric(app, 'stoa_issuer_fetch_errors_total', is) > 0,
  { what: 'a try' });

  test('private addresses and unknown certificates are refused', async () => {
    const is = await Issuer.start({ tls });

    try {
      for (const [conf, taken] of [
        [{ ISSUER_NETWORK: null, ISSUER_CA_FILE: `${dir}/cert.pem` }, false],
        [{ ISSUER_NETWORK: 'public', ISSUER_CA_FILE: `${dir}/cert.pem` },
          false],
        [{ ISSUER_NETWORK: 'private' }, false],
        [{ ISSUER_NETWORK: 'private', ISSUER_CA_FILE: `${dir}/cert.pem` },
          true],
      ]) {
        const app = await trusting([is], conf, { nginxEnv:
          { https_proxy: 'http://127.0.0.1:1', ALL_PROXY: 'socks5://x' } });

        try {
          const user = await app.user();

          await link(app, user, is, 'u');
          if (taken) await ready(app, is);
          else await errors(app, is);

          const res = await check(app, await is.token('u'));

          assert.equal(res.status, taken ? 200 : 503, JSON.stringify(conf)
            + res.text);
          if (conf.ISSUER_NETWORK !== 'private') {
            assert.match(fs.readFileSync(app.nginx.log, 'utf8'),
              /issuer: fetching keys failed.*the address is not public/);
          }
        } finally {
          await app.stop();
        }
        if (conf.ISSUER_NETWORK !== 'private') {
          assert.deepEqual(is.asked, { document: 0, keys: 0 });
        }
      }
    } finally {
      await is.stop();
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

    try {
      for (const [JWT_ISSUERS, sentence] of [
        ['https://a.example https://b.example;aud=x', ''],
        ['http://a.example', 'an issuer is https://'],
        ['idp.example', 'an issuer is https://'],
        ['https://u:p@a.example', 'an issuer is https://'],
        ['https://a.example?x=1', 'an issuer is https://'],
        ['https://', 'an issuer is https://'],
        ['https://a.example https://a.example', 'stands twice'],
        ['https://a.example;aud=', 'neither aud=... nor jwks='],
        ['https://a.example;audience=x', 'neither aud=... nor jwks='],
        ['https://a.example;jwks=http://a.example', 'neither aud='],
        [Array.from({ length: 17 }, (_, i) => `https://a${i}.example`)
          .join('\n'), 'too many issuers'],
      ]) {
        const text = await said({ JWT_ISSUERS });

        assert.ok(sentence ? text.includes(sentence)
          : !text.includes('JWT_ISSUERS'), `${JWT_ISSUERS}: ${text}`);
      }
      assert.match(await said({ JWT_ISSUERS: 'https://a.example',
        JWT_ISSUER: 'https://a.example' }), /this is JWT_ISSUER/);
      assert.match(await said({ ISSUER_NETWORK: 'insecure',
        ENVIRONMENT: 'production' }), /"insecure" is refused/);
      assert.match(await said({ JWT_EXTRA_CLAIMS: 'email admin' }),
        /JWT_EXTRA_CLAIMS may name/);
    } finally {
      await app.stop();
    }
  });
});

test('A-28: claims that other applications look for', async () => {
  const claims = (token) => JSON.parse(
    Buffer.from(token.split('.')[1], 'base64url'));
  const plain = await boot({ workers: 0 });
  const rich = await boot({ workers: 0,
    conf: { JWT_EXTRA_CLAIMS: 'email, role user_id' } });

  try {
    const a = claims((await plain.user()).token);
    const user = await rich.user('organizer');
    const b = claims(user.token);

    assert.deepEqual(Object.keys(a).sort(), ['amr', 'aud', 'auth_time', 'ep',
      'exp', 'iat', 'iss', 'jti', 'roles', 'sid', 'sub']);
    assert.equal(b.email, user.email);
    assert.equal(b.role, 'organizer');
    assert.equal(b.user_id, user.id);
    assert.equal(b.sub, user.id);
    assert.equal((await check(rich, user.token)).status, 200);

    const again = (await rich.api('POST', '/api/v1/auth/refresh',
      { body: { refreshToken: user.refreshToken } })).data.accessToken;

    assert.equal(claims(again).email, user.email);

    const printed = (await rich.stoa(['token', '--email', user.email])).trim();

    assert.equal(claims(printed).email, user.email);
    assert.equal((await check(rich, printed)).status, 200);

    await enrol(rich, user);
    assert.equal(claims(user.token).email, user.email);
    assert.ok(claims(user.token).amr.includes('otp'));
  } finally {
    await plain.stop();
    await rich.stop();
  }
});
