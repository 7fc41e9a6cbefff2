/*
 * An issuer of tokens that tests hold in their hands: its document, its keys
 * and its tokens are what a case wants them to be, and it counts who asks.
 * Tokens are signed by jose.  The complete provider that others wrote is in
 * provider.js.
 */

import crypto from 'node:crypto';
import http from 'node:http';
import https from 'node:https';
import * as jose from 'jose';

const PAIRS = {
  RS256: () => crypto.generateKeyPairSync('rsa', { modulusLength: 2048 }),
  PS256: () => crypto.generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ES256: () => crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  EdDSA: () => crypto.generateKeyPairSync('ed25519'),
};

let made = 0;

export function makeKey(alg = 'ES256', kid = `k${++made}`) {
  const pair = PAIRS[alg]();

  return { alg, kid, ...pair,
    jwk: { ...pair.publicKey.export({ format: 'jwk' }), alg, kid,
      use: 'sig' } };
}

export class Issuer {
  /* tls: {key, cert}; port: 0 takes any */
  static async start({ tls, keys = [makeKey()], host = '127.0.0.1',
    audience = 'stoa', port = 0 } = {}) {
    const self = new Issuer();

    self.keys = keys;
    self.audience = audience;
    self.asked = { document: 0, keys: 0 };
    self.headers = {};
    self.server = (tls ? https : http).createServer(tls ?? {},
      (req, res) => self.answer(req, res));
    self.server.listen(port, host);
    await new Promise((done, failed) => {
      self.server.once('listening', done);
      self.server.once('error', failed);
    });
    self.port = self.server.address().port;
    self.url = `${tls ? 'https' : 'http'}://${host}:${self.port}`;
    return self;
  }

  get document() {
    return { issuer: this.url, jwks_uri: `${this.url}/keys`,
      authorization_endpoint: `${this.url}/auth`,
      token_endpoint: `${this.url}/token`, ...this.says };
  }

  /* this.broken: (what, res) => true when it has answered by itself */
  async answer(req, res) {
    const what = req.url === '/.well-known/openid-configuration'
      ? 'document' : req.url === '/keys' ? 'keys' : undefined;

    if (!what) {
      res.writeHead(404).end();
      return;
    }
    this.asked[what]++;
    if (this.delay) {
      await new Promise((done) => setTimeout(done, this.delay).unref());
    }
    if (this.broken && await this.broken(what, res)) return;
    res.writeHead(200, { 'Content-Type': 'application/json',
      ...this.headers });
    res.end(JSON.stringify(what === 'document' ? this.document
      : { keys: this.keys.map(({ jwk }) => jwk) }));
  }

  claims(sub, change = {}) {
    const now = Math.floor(Date.now() / 1000);

    return { iss: this.url, aud: this.audience, sub, iat: now - 1,
      exp: now + 900, ...change };
  }

  token(sub, change, { key = this.keys[0], head = {} } = {}) {
    return this.sign(this.claims(sub, change), { key, head });
  }

  sign(claims, { key = this.keys[0], head = {} } = {}) {
    const all = { alg: key.alg, kid: key.kid, typ: 'at+jwt', ...head };

    for (const name of Object.keys(all)) {
      if (all[name] === undefined) delete all[name];
    }
    return new jose.CompactSign(Buffer.from(JSON.stringify(claims)))
      .setProtectedHeader(all).sign(key.privateKey);
  }

  async stop() {
    if (!this.server) return;
    this.server.closeAllConnections();
    await new Promise((done) => this.server.close(done));
    this.server = undefined;
  }

  /* The same address again, after stop(). */
  async restart() {
    this.server = http.createServer((req, res) => this.answer(req, res));
    this.server.listen(this.port, '127.0.0.1');
    await new Promise((done) => this.server.once('listening', done));
  }
}
