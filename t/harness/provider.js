/*
 * An OpenID provider that others wrote (npm's oidc-provider), for the code
 * flow: accounts are made by tests, sign-in is one click, or none with
 * `provider.account` set.  And a browser without a screen: it keeps cookies
 * and follows redirects, and stops where a test wants to look.
 */

import fs from 'node:fs';
import http from 'node:http';
import Provider from 'oidc-provider';
import { confText } from './conf.js';
import { boot } from './index.js';
import { makeKey } from './issuer.js';
import { givePort, takePort } from './proc.js';

/* conformIdTokenClaims true: the address is told by userinfo only */
export async function startProvider({ redirectUris, auth =
  'client_secret_basic', conform = false, alg = 'RS256', configuration = {} }) {
  const port = await takePort();
  const url = `http://127.0.0.1:${port}`;
  const key = makeKey(alg);
  const accounts = new Map();
  const self = { port, url, accounts, asked: [], account: undefined,
    clientId: 'stoa-client', clientSecret: 'a secret: with / and + in it' };
  const provider = new Provider(url, {
    clients: [{
      client_id: self.clientId,
      ...(auth === 'none' ? {} : { client_secret: self.clientSecret }),
      redirect_uris: redirectUris, response_types: ['code'],
      grant_types: ['authorization_code'], token_endpoint_auth_method: auth,
      id_token_signed_response_alg: alg,
    }],
    jwks: { keys: [{ ...key.privateKey.export({ format: 'jwk' }),
      kid: key.kid, alg, use: 'sig' }] },
    cookies: { keys: ['a key of the test provider'] },
    claims: {
      openid: ['sub'], email: ['email', 'email_verified'],
      profile: ['name', 'given_name', 'family_name', 'locale'],
    },
    conformIdTokenClaims: conform,
    enabledJWA: { idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256',
      'EdDSA'] },
    features: { devInteractions: { enabled: false } },
    pkce: { required: () => true, methods: ['S256'] },
    ttl: { AccessToken: 600, AuthorizationCode: 60, IdToken: 600,
      Interaction: 600, Session: 600, Grant: 600 },
    async findAccount(ctx, id) {
      return { accountId: id,
        claims: async () => ({ sub: id, ...accounts.get(id) }) };
    },
    async loadExistingGrant(ctx) {
      const grant = new ctx.oidc.provider.Grant({
        clientId: ctx.oidc.client.clientId,
        accountId: ctx.oidc.session.accountId,
      });

      grant.addOIDCScope('openid email profile');
      await grant.save();
      return grant;
    },
    interactions: { url: (ctx, i) => `/sign-in/${i.uid}` },
    ...configuration,
  });

  /* one click, or none */
  async function signIn(req, res) {
    if (req.method !== 'POST' && !self.account) {
      res.setHeader('Content-Type', 'text/html');
      res.end(`<!doctype html><title>Provider</title><form method="post">
        ${[...accounts.keys()].map((id) => `<button name="id"
          value="${id}">${id}</button>`).join('')}
        <button name="id" value="">No</button></form>`);
      return;
    }
    let body = '';

    for await (const chunk of req) body += chunk;

    const id = self.account ?? new URLSearchParams(body).get('id');

    await provider.interactionFinished(req, res, id
      ? { login: { accountId: id } }
      : { error: 'access_denied', error_description: 'not today' },
    { mergeWithLastSubmission: false });
  }

  const callback = provider.callback();

  self.server = http.createServer((req, res) => {
    self.asked.push(`${req.method} ${req.url.split('?')[0]}`);
    if (self.broken?.(req, res)) return;
    if (req.url === '/favicon.ico') res.writeHead(204).end();
    else if (req.url.startsWith('/sign-in/')) signIn(req, res);
    else callback(req, res);
  });
  self.server.listen(port, '127.0.0.1');
  await new Promise((done) => self.server.once('listening', done));
  self.settings = (name, more = {}) => ({ name, issuer: url,
    clientId: self.clientId,
    ...(auth === 'none' ? {} : { clientSecret: self.clientSecret }), ...more });
  self.person = (id, claims = {}) => {
    accounts.set(id, { email: `${id}@test.example`, email_verified: true,
      given_name: 'Given', family_name: 'Family', ...claims });
    return id;
  };
  self.stop = async () => {
    self.server.closeAllConnections();
    await new Promise((done) => self.server.close(done));
    givePort(port);
  };
  return self;
}

export const callback = (app, name) =>
  `${app.url}/api/v1/oauth/${name}/callback`;

/* An application and providers that know its address: the port is taken
   before either starts, so the application is booted with a template. */
export async function together(names, { conf = {}, options = {}, more = {} } = {}) {
  const all = {};
  const app = await boot({ workers: 0, ...options, conf: {
    ISSUER_NETWORK: 'insecure', OIDC_PROVIDERS: '[]', ...conf } });

  try {
    for (const name of names) {
      all[name] = await startProvider({ redirectUris: [callback(app, name)],
        ...more[name] });
    }
    app.conf.OIDC_PROVIDERS = JSON.stringify(names.map((name) =>
      all[name].settings(name, more[name]?.settings)));
    await settings(app);
  } catch (error) {
    app.failed = true;
    await app.stop();
    throw error;
  }
  return { app, ...all, async stop() {
    await app.stop();
    await Promise.all(names.map((name) => all[name].stop()));
  } };
}

export async function settings(app, change = {}) {
  Object.assign(app.conf, change);
  fs.writeFileSync(app.confFile, confText(app.conf), { mode: 0o600 });
  await app.nginx.reload();
}

/* A browser: cookies by origin, no script. */
export class Browser {
  constructor() {
    this.jars = new Map();
  }

  jar(url) {
    const { host } = new URL(url);

    if (!this.jars.has(host)) this.jars.set(host, new Map());
    return this.jars.get(host);
  }

  /* One request: {status, headers, location, text, url}. */
  get(url, headers = {}) {
    const jar = this.jar(url);
    const cookie = [...jar].map(([k, v]) => `${k}=${v}`).join('; ');

    return new Promise((done, failed) => {
      http.get(url, { agent: false, headers: { Accept:
        'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8',
        ...(cookie ? { Cookie: cookie } : {}), ...headers } }, (res) => {
        let text = '';

        for (const line of res.headers['set-cookie'] ?? []) {
          const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);

          if (value === '' || /max-age=0/i.test(line)
            || /expires=Thu, 01 Jan 1970/i.test(line)) jar.delete(name);
          else jar.set(name, value);
        }
        res.on('data', (chunk) => { text += chunk; });
        res.on('end', () => done({ status: res.statusCode, url, text,
          headers: res.headers, location: res.headers.location
            && new URL(res.headers.location, url).href }));
      }).on('error', failed);
    });
  }

  /* Follows redirects until one leads to where stop(url) says so. */
  async follow(url, stop = () => false) {
    for (let i = 0; i < 10; i++) {
      const res = await this.get(url);

      if (!res.location) return res;
      if (stop(res.location)) return res;
      url = res.location;
    }
    throw new Error(`too many redirects, at ${url}`);
  }
}
