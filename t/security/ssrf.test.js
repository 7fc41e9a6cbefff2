/*
 * What the edge fetches by itself (edge.md D.2, SSRF): keys and documents of
 * issuers, and what a sign-in with others asks a provider for.  Addresses of
 * this machine and of private networks, however written, are not connected
 * to; redirects are followed nowhere; a document does not lead to what is no
 * https address.  t/unit/test_http.c has every registered range, names that
 * lead to private addresses (whatever they led to a moment ago: the address
 * that is connected to decides), proxies and sizes; issuer.test.js has
 * documents that lie.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';
import { boot, until } from '../harness/index.js';
import { Issuer } from '../harness/issuer.js';
import { Browser, callback } from '../harness/provider.js';

/* Something inside that must not be reached: counts who connects. */
async function inside(hosts) {
  const self = { hits: 0, servers: [] };

  for (const host of hosts) {
    const server = net.createServer((socket) => {
      self.hits++;
      socket.destroy();
    });
    const listening = await new Promise((done) => {
      server.once('error', () => done(false)); /* no IPv6 here */
      server.listen(self.port ?? 0, host, () => done(true));
    });

    if (listening) {
      self.port ??= server.address().port;
      self.servers.push(server);
    }
  }
  self.stop = () => self.servers.forEach((server) => server.close());
  return self;
}

/* One way in: an unsigned token is enough to have its issuer asked. */
const token = (iss) => [{ alg: 'RS256', typ: 'at+jwt', kid: 'k' },
  { iss, sub: 'u', aud: 'stoa', iat: Math.floor(Date.now() / 1000),
    exp: Math.floor(Date.now() / 1000) + 600 }]
  .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
  .concat('AAAA').join('.');

describe('addresses', () => {
  const HOSTS = ['127.0.0.1', '127.255.255.254', '127.1', '2130706433',
    '0x7f000001', '0177.0.0.1', '017700000001', '0.0.0.0', '[::1]',
    '[::ffff:127.0.0.1]', '[::ffff:7f00:1]', '[::]', '169.254.169.254',
    '10.0.0.7', 'localhost', '[64:ff9b::7f00:1]'];
  let app, target, issuers;

  before(async () => {
    target = await inside(['0.0.0.0', '::1']);
    issuers = HOSTS.map((host) => `https://${host}:${target.port}`);
    /* providers are asked by the same client as issuers: a few of them */
    app = await boot({ workers: 0, nginxWorkers: 1, conf: {
      JWT_ISSUERS: issuers.join(' '),
      OIDC_PROVIDERS: JSON.stringify([0, 5, 8, 9, 12].map((i, n) => ({
        name: `p${n}`, issuer: issuers[i], clientId: 'c' }))) } });
  });
  after(async () => {
    await app?.stop();
    target?.stop();
  });

  test('issuers at private addresses are not asked', async () => {
    for (const iss of issuers) {
      const res = await app.api('GET', '/api/v1/auth/check',
        { token: token(iss) });

      assert.equal(res.status, 503, `${iss}: ${res.text}`);
      assert.equal(res.error.code, 'ISSUER_UNAVAILABLE', iss);
    }
    const log = fs.readFileSync(app.nginx.log, 'utf8');

    for (const iss of issuers) {
      const line = log.split('\n').find((l) => l.includes('issuer: fetching')
        && l.includes(iss));

      assert.match(line ?? '', /the address is not public/, iss);
    }
    assert.equal(target.hits, 0);
  });

  test('neither are providers', async () => {
    for (let n = 0; n < 5; n++) {
      const res = await new Browser().get(`${app.url}/api/v1/oauth/p${n}`);

      assert.equal(new URL(res.location).searchParams.get('error'),
        'ISSUER_UNAVAILABLE');
    }
    assert.equal(target.hits, 0);
  });
});

describe('redirects', () => {
  const CODES = [301, 302, 303, 307, 308];
  let app, is, target, turn;

  /* An honest provider, but for what turn() answers. */
  before(async () => {
    target = await inside(['127.0.0.1']);
    is = await Issuer.start({ audience: 'c' });
    is.server.removeAllListeners('request');
    is.server.on('request', async (req, res) => {
      if (turn?.(req, res)) return;
      if (req.url === '/token') {
        const iat = Math.floor((Date.now() + app.clock.ms) / 1000);

        res.writeHead(200, { 'Content-Type': 'application/json' });
        res.end(JSON.stringify({ access_token: 'a', token_type: 'Bearer',
          id_token: await is.sign({ ...is.claims('x',
            { iat, exp: iat + 900 }), nonce: is.nonce },
          { head: { typ: 'JWT' } }) }));
        return;
      }
      if (req.url === '/userinfo') {
        res.writeHead(200, { 'Content-Type': 'application/json' });
        res.end(JSON.stringify({ sub: 'x', email: 'x@test.example',
          email_verified: true }));
        return;
      }
      is.answer(req, res);
    });
    is.says = { userinfo_endpoint: `${is.url}/userinfo` };
    app = await boot({ workers: 0, nginxWorkers: 1, alone: true, conf: {
      ISSUER_NETWORK: 'insecure', JWT_ISSUERS: is.url,
      OIDC_PROVIDERS: JSON.stringify([{ name: 'odd', issuer: is.url,
        clientId: 'c', clientSecret: 's' }]) } });
  });
  after(async () => {
    await app?.stop();
    await is?.stop();
    target?.stop();
  });

  /* Elsewhere, by this status, for requests of this path. */
  function leads(path, status) {
    turn = (req, res) => {
      if (req.url !== path) return false;
      turn.asked++;
      res.writeHead(status, { 'Content-Type': 'application/json',
        Location: `http://127.0.0.1:${target.port}${path}` });
      res.end('{}');
      return true;
    };
    turn.asked = 0;
  }

  /* A sign-in; prepare() comes before the browser is back. */
  async function flow(prepare) {
    const browser = new Browser();
    let start;

    turn = undefined;
    await until(async () => {
      start = await browser.get(`${app.url}/api/v1/oauth/odd`);
      if (start.status === 302) return true;
      await app.clock.advance(61000); /* who failed is left in peace */
      return false;
    }, { what: 'the provider' });

    const { state, nonce } = Object.fromEntries(
      new URL(start.location).searchParams);

    is.nonce = nonce;
    prepare();
    return new URL((await browser.get(
      `${callback(app, 'odd')}?code=c&state=${state}`)).location).searchParams;
  }

  test('of keys and documents: the answer is none', async () => {
    for (const path of ['/.well-known/openid-configuration', '/keys']) {
      for (const status of CODES) {
        leads(path, status);
        await app.clock.advance(26 * 3600 * 1000); /* all is too old */
        await until(async () => {
          const res = await app.api('GET', '/api/v1/auth/check',
            { token: token(is.url) });

          assert.notEqual(res.status, 200);
          return turn.asked > 0 || (await app.clock.advance(61000), false);
        }, { what: `${path} to be asked for` });
      }
    }
    assert.equal(target.hits, 0);
  });

  test('of the exchange and of userinfo: no one is signed in', async () => {
    turn = undefined;
    await app.clock.advance(26 * 3600 * 1000);
    for (const path of ['/token', '/userinfo']) {
      for (const status of CODES) {
        const back = await flow(() => leads(path, status));

        assert.ok(back.get('error'), `${path} ${status}: ${back}`);
        assert.equal(turn.asked, 1, path);
      }
    }
    assert.equal(target.hits, 0);
    assert.equal(await app.value('select count(*)::int from app.users'), 0);

    /* an honest one is believed */
    assert.equal((await flow(() => {})).get('error'), null);
    assert.equal(await app.value('select count(*)::int from app.users'), 1);
  });
});

test('what a client may say is asked of nobody', async () => {
  const target = await inside(['127.0.0.1']);
  const app = await boot({ workers: 0 });
  const url = `http://127.0.0.1:${target.port}/`;

  try {
    const user = await app.user();
    const head = { alg: 'RS256', typ: 'at+jwt', kid: 'k', jku: url, x5u: url };
    const forged = [head, { iss: url, sub: user.id }].map((part) =>
      Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');

    /* of the header's key sources, an unknown issuer, a host of its own */
    assert.equal((await app.api('GET', '/api/v1/auth/check',
      { token: `${forged}.AAAA` })).status, 401);
    for (const path of [`/api/v1/oauth/${encodeURIComponent(url)}`,
      `/api/v1/events?search=${encodeURIComponent(url)}`]) {
      await app.api('GET', path, { validate: false });
    }
    await app.api('PATCH', '/api/v1/users/me', { token: user.token,
      body: { firstName: url } });

    const status = await new Promise((done, failed) => {
      http.get({ host: '127.0.0.1', port: app.port, path: url, headers: {
        Host: `127.0.0.1:${target.port}`,
        'X-Forwarded-Host': `127.0.0.1:${target.port}` } }, (res) => {
        res.resume();
        done(res.statusCode);
      }).on('error', failed);
    });

    assert.ok(status < 500, 'it is no proxy');
    assert.equal(target.hits, 0);
  } finally {
    await app.stop();
    target.stop();
  }
});
