/*
 * The client of the tests: node:http without any cleverness in between, so
 * that what is sent is what the test says, and what came is what it sees.
 */

import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import { TRANSPORT, ownSession, sendH2, tlsConnected } from './transport.js';

/* body: object (JSON), string or Buffer (as is).  Header names as given. */
function prepare(base, { method = 'GET', path, token, body, headers = {} }) {
  const all = { ...headers };
  const has = (name) =>
    Object.keys(all).some((key) => key.toLowerCase() === name);
  let data;

  if (body !== undefined && body !== null) {
    if (typeof body === 'string' || Buffer.isBuffer(body)) {
      data = Buffer.from(body);
    } else {
      data = Buffer.from(JSON.stringify(body));
    }
    if (!has('content-type')) all['Content-Type'] = 'application/json';
    if (!has('content-length')) all['Content-Length'] = data.length;
  }
  if (token && !has('authorization')) all.Authorization = `Bearer ${token}`;
  if (!has('accept')) all.Accept = 'application/json';

  return {
    data,
    options: {
      host: base.host, port: base.port, method, path, headers: all,
      setHost: !has('host'),
    },
  };
}

function collect(res, request) {
  return new Promise((done, failed) => {
    const chunks = [];

    res.on('data', (chunk) => chunks.push(chunk));
    res.on('error', failed);
    res.on('aborted', () => failed(new Error('the response was cut')));
    res.on('end', () => done(answer(res, Buffer.concat(chunks), request)));
  });
}

function answerH2({ status, headers, raw }, request) {
  return answer({ statusCode: status, headers,
    rawHeaders: Object.entries(headers).flat(2) }, raw, request);
}

/*
 * {status, headers, raw, text, body, data, meta, error}: body is the parsed
 * JSON (or undefined), the last three are the envelope's members.
 */
function answer(res, raw, request) {
  const type = res.headers['content-type'] ?? '';
  const result = {
    status: res.statusCode, headers: res.headers,
    rawHeaders: res.rawHeaders, raw, text: raw.toString('utf8'), request,
  };

  if (/[/+]json\b/.test(type) && raw.length) {
    result.body = JSON.parse(result.text);
    result.data = result.body?.data;
    result.meta = result.body?.meta;
    result.error = result.body?.error;
  }
  return result;
}

export function send(base, agent, spec) {
  const { data, options } = prepare(base, spec);
  const secure = base.secure && !spec.plain;

  if (secure && TRANSPORT === 'h2') {
    /* nginx ends a connection on which it threw much away: not ours */
    const alone = data?.length > 65536;
    const sent = alone
      ? ownSession(base).then((own) => sendH2(base, options, data, spec, own)
        .finally(() => own.destroy()))
      : sendH2(base, options, data, spec);

    if (sent) return sent.then((res) => answerH2(res, spec));
  }
  return new Promise((done, failed) => {
    const req = (secure ? https : http).request(secure
      ? { ...options, port: base.secure.port, agent: base.secure.agent }
      : { ...options, agent }, (res) =>
      collect(res, spec).then(done, failed));

    req.setTimeout(spec.timeout ?? 60000, () =>
      req.destroy(new Error(`no answer to ${options.method} ${options.path}`)));
    req.on('error', failed);
    spec.signal?.addEventListener('abort', () => req.destroy());
    req.end(data);
  });
}

function connected(base) {
  if (base.secure) return tlsConnected(base);
  return new Promise((done, failed) => {
    const socket = net.connect({ host: base.host, port: base.port }, () => {
      socket.removeListener('error', failed);
      done(socket);
    });

    socket.setNoDelay(true);
    socket.once('error', failed);
  });
}

/*
 * All connections are open before the first byte of the first request is
 * written; then all requests leave in one turn of the loop.  A request may
 * name a base of its own.
 */
export async function barrier(base, n, fn) {
  const specs = await Promise.all(
    Array.from({ length: n }, (_, i) => fn(i)));

  if (base.secure && TRANSPORT === 'h2') return barrierH2(base, specs);

  const sockets = await Promise.all(specs.map((spec) =>
    connected(spec.base ?? base)));

  return Promise.all(specs.map((spec, i) => {
    const { data, options } = prepare(spec.base ?? base, spec);

    return new Promise((done, failed) => {
      /* no agent at all: "agent: false" would make one that connects anew */
      const req = http.request({
        ...options,
        headers: { ...options.headers, Connection: 'close' },
        createConnection: () => sockets[i],
      }, (res) => collect(res, spec).then(done, failed));

      req.setTimeout(spec.timeout ?? 60000, () =>
        req.destroy(new Error(`no answer to ${options.method} ${options.path}`)));
      req.on('error', failed);
      req.end(data);
    });
  }));
}

async function barrierH2(base, specs) {
  const sessions = await Promise.all(specs.map((spec) =>
    ownSession(spec.base ?? base)));

  try {
    return await Promise.all(specs.map((spec, i) => {
      const at = spec.base ?? base;
      const { data, options } = prepare(at, spec);

      return sendH2(at, options, data, spec, sessions[i])
        .then((res) => answerH2(res, spec));
    }));
  } finally {
    for (const one of sessions) one.destroy();
  }
}

/*
 * Bytes as given on a fresh connection; resolves with everything that came
 * until the server closed or `quiet` ms passed without a byte.
 */
export async function rawExchange(base, bytes, { quiet = 1000 } = {}) {
  const socket = await connected(base);
  const chunks = [];

  return new Promise((done) => {
    const finish = () => {
      socket.destroy();
      done(Buffer.concat(chunks).toString('latin1'));
    };

    socket.setTimeout(quiet, finish);
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.on('end', finish);
    socket.on('error', finish);
    socket.write(bytes);
  });
}
