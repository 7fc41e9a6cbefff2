/*
 * How requests travel and what else the edge is doing, so that one suite runs
 * in several ways (edge.md D.2):
 *
 *   STOA_TRANSPORT  h1 (default), tls: HTTP/1.1 over TLS, h2: HTTP/2 over TLS
 *   STOA_RELOADED   the edge was reloaded before the tests
 *   STOA_LOADED     others ask while the tests run
 *
 * What HTTP/2 cannot say (Connection, Upgrade, a field twice that may be there
 * once) goes over TLS with HTTP/1.1.
 */

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import path from 'node:path';
import tls from 'node:tls';

export const TRANSPORT = process.env.STOA_TRANSPORT ?? 'h1';
export const RELOADED = process.env.STOA_RELOADED === '1';
export const LOADED = process.env.STOA_LOADED === '1';

if (!['h1', 'tls', 'h2'].includes(TRANSPORT)) {
  throw new Error(`STOA_TRANSPORT=${TRANSPORT}: h1, tls or h2`);
}

/* A certificate for 127.0.0.1, made for this one application. */
export function certificate(dir) {
  const key = path.join(dir, 'tls.key');
  const cert = path.join(dir, 'tls.pem');

  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt',
    'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', '/CN=stoa',
    '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', cert],
  { stdio: 'ignore' });
  return { key, cert, ca: fs.readFileSync(cert) };
}

/* The lines of the server block. */
export function listener({ port, key, cert }) {
  return `listen 127.0.0.1:${port} ssl http2 backlog=4096;
    ssl_certificate ${cert};
    ssl_certificate_key ${key};`;
}

/* A connected TLS socket; protocol is "http/1.1" or "h2". */
export function tlsConnected({ host, secure }, protocol = 'http/1.1') {
  return new Promise((done, failed) => {
    const socket = tls.connect({
      host, port: secure.port, ca: secure.ca, ALPNProtocols: [protocol],
    }, () => {
      socket.removeListener('error', failed);
      done(socket);
    });

    socket.setNoDelay(true);
    socket.once('error', failed);
  });
}

/* The certificate is asked for, whose name it bears is not: tests send many
   names as Host. */
export const tlsAgent = (secure) => new https.Agent({
  keepAlive: true, maxSockets: 64, ca: secure.ca,
  checkServerIdentity: () => undefined,
});

/* ---- HTTP/2 ---- */

/* The fields of a request of HTTP/1.1 as those of HTTP/2; undefined when it
   has one that HTTP/2 does not know. */
function fields({ method, path: urlPath, headers }, base) {
  const out = { ':method': method, ':path': urlPath, ':scheme': 'https',
    ':authority': `${base.host}:${base.secure.port}` };
  const names = new Set();

  for (const [name, value] of Object.entries(headers)) {
    const low = name.toLowerCase();

    if (/^(connection|keep-alive|proxy-connection|upgrade|te|expect|transfer-encoding|http2-settings)$/
      .test(low) || names.has(low) || Array.isArray(value)) {
      return undefined;
    }
    names.add(low);
    out[low === 'host' ? ':authority' : low] = String(value);
  }
  return out;
}

function session(base) {
  const kept = base.secure.session;

  if (kept && !kept.closed && !kept.destroyed) return kept;

  const made = http2.connect(`https://${base.host}:${base.secure.port}`,
    { ca: base.secure.ca });

  made.on('error', () => {});
  made.on('goaway', () => made.close());
  made.unref();
  base.secure.session = made;
  return made;
}

export function closeSession(base) {
  base.secure?.session?.destroy();
}

/*
 * Resolves with {headers, raw, status}; undefined when this request cannot be
 * one of HTTP/2.  own: a session for itself, connected before.
 */
export function sendH2(base, options, data, spec, own) {
  const head = fields(options, base);

  if (head === undefined) return undefined;

  const on = own ?? session(base);
  let stream;

  try {
    stream = on.request(head, { endStream: data === undefined });
  } catch {
    return undefined; /* a field that node will not send */
  }
  return new Promise((done, failed) => {
    const chunks = [];
    let headers;

    stream.setTimeout(spec.timeout ?? 60000, () => {
      stream.close(http2.constants.NGHTTP2_CANCEL);
      failed(new Error(`no answer to ${options.method} ${options.path}`));
    });
    stream.on('response', (h) => { headers = h; });
    stream.on('data', (chunk) => chunks.push(chunk));
    stream.on('error', failed);
    stream.on('close', () => {
      if (!headers) failed(new Error('the stream was closed'));
    });
    stream.on('end', () => {
      if (!headers) return;
      const status = headers[':status'];
      const plain = {};

      for (const [name, value] of Object.entries(headers)) {
        if (!name.startsWith(':')) plain[name] = value;
      }
      done({ status, headers: plain, raw: Buffer.concat(chunks) });
    });
    spec.signal?.addEventListener('abort', () =>
      stream.close(http2.constants.NGHTTP2_CANCEL));
    if (data !== undefined) stream.end(data);
  });
}

export async function ownSession(base) {
  const socket = await tlsConnected(base, 'h2');

  return http2.connect(`https://${base.host}:${base.secure.port}`,
    { createConnection: () => socket });
}

/* ---- others who ask meanwhile ---- */

/* From an address of their own, so that they spend nobody's limits. */
export function startLoad(base) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 4,
    localAddress: '127.0.0.9' });
  const asks = [['/api/v1/events', {}], ['/api/v1/nowhere', {}],
    ['/api/v1/users/me', { Authorization: 'Bearer a.b.c' }],
    ['/api/v1/auth/check', {}]];
  let over = false;

  const ask = (i) => {
    if (over) return;
    const [urlPath, headers] = asks[i % asks.length];
    const again = () => setTimeout(ask, 5, i + 1).unref();
    const req = http.get({ host: base.host, port: base.port, path: urlPath,
      headers, agent }, (res) => {
      res.resume();
      res.on('end', again);
      res.on('error', again);
    });

    req.on('error', again); /* a test has stopped the edge */
  };

  for (let i = 0; i < 4; i++) ask(i);
  return () => {
    over = true;
    agent.destroy();
  };
}
