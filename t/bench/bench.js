/*
 * make bench: Stoa and its peers, side by side on this machine.  Each row is
 * a ratio taken inside one run, base and subject in turns; the numbers that
 * are absolute are there to judge the ratio by.
 *
 *   bench.js [name,name...]   names of ROWS below; none: all but "slow" ones
 *
 * The baseline of a row is "return 200" in the same nginx, with the same
 * request headers, response headers and body size, without an access log on
 * either side (decision: ratios of CPU, never bare throughput).
 */

import crypto from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Proc, ROOT, SECRETS, boot, run, until } from '../harness/index.js';
import { takePort } from '../harness/proc.js';
import {
  CONNECTIONS, cpuOfServer, drain, inTurns, measured, median, ratio, rssKiB, wrk,
} from './measure.js';
import { ACCOUNT_ROWS, verifyKeys } from './accounts.js';
import { admitScript, orderScript } from './single.js';
import { makeTickets, makeFiller } from './tickets.js';

const HERE = path.join(ROOT, 't/bench');
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 3);
const SECONDS = Number(process.env.BENCH_SECONDS ?? 4);
const TICKETS = Number(process.env.BENCH_TICKETS ?? 100000);
const TURNS = 8; /* of each side, as other guests disturb a shared host */

const PLAIN = new Set(['connection', 'date', 'server', 'content-length',
  'keep-alive', 'transfer-encoding']);

/* nginx cannot hold more than 4 KB in one token: the body is cut. */
function baseLocation(name, res) {
  const lines = [`location = /base/${name} {`, 'access_log off;'];
  const quote = (text) => `'${text.replace(/\\/g, '\\\\')
    .replace(/'/g, "\\'").replace(/\$/g, 'S')}'`;
  const parts = [];

  for (let at = 0; at < res.text.length; at += 2000) {
    lines.push(`set $base_${name}_${parts.length} `
      + `${quote(res.text.slice(at, at + 2000))};`);
    parts.push(`$base_${name}_${parts.length}`);
  }
  for (let i = 0; i < res.rawHeaders.length; i += 2) {
    const [key, value] = [res.rawHeaders[i], res.rawHeaders[i + 1]];

    if (key.toLowerCase() === 'content-type') {
      lines.push(`default_type ${quote(value)};`);
    } else if (!PLAIN.has(key.toLowerCase())) {
      lines.push(`add_header ${key} ${quote(value)} always;`);
    }
  }
  lines.push(`return ${res.status} "${parts.join('')}";`, '}');
  return lines.join('\n        ');
}

/* The rows' own servers: one without limits, and one for each kind. */
const SERVERS = {
  plain: 'off',
  refused: 'bench-refused',
  cluster: 'bench-cluster',
};

class Bench {
  async start() {
    this.servers = {};
    for (const name of Object.keys(SERVERS)) {
      this.servers[name] = { host: '127.0.0.1', port: await takePort() };
    }
    this.app = await boot({
      workers: 0, nginxWorkers: 1, validate: false,
      cluster: {
        durable: true,
        settings: 'shared_buffers = 512MB\nautovacuum_naptime = 60s\n',
      },
      conf: { ACCESS_TTL: '24h', JWT_VERIFY_KEYS: verifyKeys },
      nginx: {
        http: `stoa_limit bench-refused key=user rate=1/d burst=1;
          stoa_limit bench-cluster key=user rate=1000000/s burst=1000000
              scope=cluster timeout=1s;
          ${Object.entries(SERVERS).map(([name, limits]) => `server {
              listen 127.0.0.1:${this.servers[name].port} backlog=4096;
              stoa_errors on;
              stoa_security_headers on;
              location /api/ { stoa_api on; stoa_limit_apply ${limits}; }
          }`).join('')}`,
        replace: [[/access_log [^;]*;/, 'access_log off;']],
      },
    });
    await this.releaseClock();
    this.organizer = await this.app.user('organizer');
    this.scanner = await this.app.user('admin');
    this.buyer = await this.app.user();
    this.event = await this.app.event(this.organizer,
      { types: [{ priceCents: 0, quota: 2000000, maxPerOrder: 1 }] });
    this.worker = () => this.app.nginx.workerPids();
    this.bases = [];
    /* what is left of this limit: the rest is refused */
    await this.app.api('GET', '/api/v1/auth/check',
      { token: this.buyer.token, base: this.servers.refused });
  }

  origin(name) {
    return name ? `http://127.0.0.1:${this.servers[name].port}` : this.app.url;
  }

  postmaster() {
    return Number(fs.readFileSync(path.join(this.app.cluster.data,
      'postmaster.pid'), 'utf8').split('\n')[0]);
  }

  /* The test template's clock reads a table: here it is the release's. */
  async releaseClock() {
    await this.app.sql(`create or replace function app.now()
      returns timestamptz language sql stable
      as 'select pg_catalog.now()'`);
  }

  bearer(user) {
    return { Authorization: `Bearer ${user.token}` };
  }

  /* Adds locations that answer as the row does, reloads once. */
  async makeBases(wanted) {
    for (const [name, { spec }] of Object.entries(wanted)) {
      const res = await this.app.api(spec.method ?? 'GET', spec.path,
        { ...spec, base: this.servers[spec.server] });

      this.bases.push(baseLocation(name, res));
    }
    const file = this.app.nginx.conf;
    const text = fs.readFileSync(file, 'utf8').trimEnd();
    const port = await takePort();

    /* a server of its own, in which nothing of Stoa is switched on */
    this.baseUrl = `http://127.0.0.1:${port}`;
    fs.writeFileSync(file, `${text.slice(0, -1)}
    server {
        listen 127.0.0.1:${port};
        access_log off;
        stoa_security_headers off;
        stoa_errors off;
        ${this.bases.join('\n        ')}
    }\n}\n`);
    await this.app.nginx.reload();
    for (const name of Object.keys(wanted)) await this.sameSize(name, wanted);
  }

  /* The baseline must send what the row sends. */
  async sameSize(name, wanted) {
    const { spec } = wanted[name];
    const size = async (url, one) => {
      const headers = { ...one.headers };

      if (one.token) headers.Authorization = `Bearer ${one.token}`;
      if (one.body) headers['Content-Type'] = 'application/json';
      const res = await fetch(url, { method: one.method ?? 'GET', headers,
        body: one.body && JSON.stringify(one.body) });
      const body = await res.arrayBuffer();
      const head = [...res.headers].reduce((n, [k, v]) =>
        n + k.length + v.length + 4, 0);

      return { status: res.status, head, body: body.byteLength };
    };
    const stoa = await size(`${this.origin(spec.server)}${spec.path}`, spec);
    const base = await size(`${this.baseUrl}/base/${name}`, spec);

    if (stoa.status !== base.status || Math.abs(stoa.body - base.body) > 16
        || Math.abs(stoa.head - base.head) > 16) {
      throw new Error(`${name}: Stoa sends ${JSON.stringify(stoa)}, the `
        + `baseline ${JSON.stringify(base)}`);
    }
  }

  load(urlPath, options, origin = this.app.url) {
    return measured(this.worker, () => wrk(`${origin}${urlPath}`,
      { seconds: SECONDS, ...options }));
  }

  /* nginx CPU of a row over "return 200" of the same nginx. */
  async overBase(name, urlPath, { server, ...options } = {}) {
    const stoa = (more) => this.load(urlPath, { ...options, ...more },
      this.origin(server));

    await stoa({ seconds: 1 });
    const got = await inTurns(ROUNDS, {
      base: () => this.load(`/base/${name}`, options, this.baseUrl), stoa,
    });

    return {
      stoa: median(got.stoa.map((r) => r.cpuUs)),
      peer: median(got.base.map((r) => r.cpuUs)),
      ratio: ratio(got.stoa, got.base, 'cpuUs'),
      unit: 'us CPU',
      rps: median(got.stoa.map((r) => r.rps)),
      p50: median(got.stoa.map((r) => r.p50)),
      p99: median(got.stoa.map((r) => r.p99)),
    };
  }

  async startPeer() {
    if (this.peerProc) return;
    const port = await takePort();

    this.peerUrl = `http://127.0.0.1:${port}`;
    this.peerProc = new Proc('peer', process.execPath,
      [path.join(HERE, 'peer.js')], {
        log: path.join(this.app.dir, 'log', 'peer.log'),
        cwd: path.join(ROOT, 't'),
        env: {
          PEER_PORT: port, PEER_SECRET: SECRETS.JWT_SECRET,
          PEER_PG: `postgres:///${this.app.id}?host=${encodeURIComponent(
            this.app.cluster.data)}&user=postgres`,
          PEER_REDIS: this.app.redisSocket, NODE_ENV: 'production',
        },
      });
    await this.peerProc.ready(() => fetch(`${this.peerUrl}/api/v1/auth/check`),
      'the peer to answer');
  }

  pgbench(script, ...more) {
    return run('pgbench', ['-n', '-M', 'prepared', '-c', '32', '-j', '1',
      ...more, '-f', script, '-h', this.app.cluster.data, '-U', 'postgres',
      this.app.id]);
  }

  /*
   * Admits these tickets through a door.  The time is PostgreSQL's, from the
   * first admission to the last; its CPU is read until its processes idle.
   */
  async admit(url, list) {
    const file = path.join(this.app.dir, 'codes');
    const cpu = cpuOfServer(this.postmaster());

    fs.writeFileSync(file, list.map((t) => JSON.stringify(
      { code: t.code, eventId: this.event.id })).join('\n') + '\n');
    await drain(`${url}/api/v1/orders/validate`, path.join(HERE, 'list.lua'),
      file, this.scanner.token);
    const used = cpuOfServer(this.postmaster()) - cpu;
    const [got] = await this.app.sql(`
      select count(*)::int as n,
        extract(epoch from max(admitted_at) - min(admitted_at))::float8 as s
      from app.tickets
      where id = any ($1) and state = 'admitted'`, [list.map((t) => t.id)]);

    if (got.n !== list.length) {
      throw new Error(`admitted ${got.n} of ${list.length}`);
    }
    return { perS: got.n / got.s, dbUs: used / 1000 / got.n };
  }

  async stop() {
    await this.peerProc?.stop();
    if (!this.app) return;
    this.app.failed = true; /* logs of overload are not under test */
    await this.app.stop();
  }
}

/* ---- rows ---- */

const CHECK = '/api/v1/auth/check';

const ROWS = {
  check: {
    title: 'GET /auth/check over return 200',
    must: 1.20, stretch: 1.10,
    spec: (b) => ({ path: '/api/v1/auth/check', token: b.buyer.token }),
    run: (b) => b.overBase('check', '/api/v1/auth/check',
      { headers: b.bearer(b.buyer) }),
  },
  fastify: {
    title: 'GET /auth/check over Fastify, CPU',
    must: 0.60, stretch: 0.50,
    async run(b) {
      await b.startPeer();
      const headers = b.bearer(b.buyer);
      const peer = () => measured(() => [b.peerProc.pid], () =>
        wrk(`${b.peerUrl}/api/v1/auth/check`, { seconds: SECONDS, headers }));

      await peer();
      const got = await inTurns(ROUNDS, {
        peer, stoa: () => b.load('/api/v1/auth/check', { headers }),
      });

      return {
        stoa: median(got.stoa.map((r) => r.cpuUs)),
        peer: median(got.peer.map((r) => r.cpuUs)),
        ratio: ratio(got.stoa, got.peer, 'cpuUs'), unit: 'us CPU',
        rps: median(got.stoa.map((r) => r.rps)),
      };
    },
  },
  ...ACCOUNT_ROWS,
  limit: {
    title: 'its exact user limit, in return 200s',
    must: 0.10, stretch: 0.05,
    spec: (b) => ({ path: CHECK, token: b.buyer.token }),
    async run(b) {
      const headers = b.bearer(b.buyer);
      const got = await inTurns(ROUNDS, {
        base: () => b.load('/base/limit', { headers }, b.baseUrl),
        without: () => b.load(CHECK, { headers }, b.origin('plain')),
        stoa: () => b.load(CHECK, { headers }),
      });
      const cpu = (name) => got[name].map((r) => r.cpuUs);

      return {
        stoa: median(cpu('stoa')), peer: median(cpu('without')),
        ratio: median(got.stoa.map((r, i) => (r.cpuUs - got.without[i].cpuUs)
          / got.base[i].cpuUs)), unit: 'us CPU',
        rps: median(got.stoa.map((r) => r.rps)),
        base: median(cpu('base')),
      };
    },
  },
  refused: {
    title: '429 of GET /auth/check over return 429',
    must: 1.35, stretch: 1.25,
    spec: (b) => ({ path: CHECK, token: b.buyer.token, server: 'refused' }),
    run: (b) => b.overBase('refused', CHECK,
      { headers: b.bearer(b.buyer), server: 'refused' }),
  },
  cluster: {
    title: 'GET /auth/check with a limit in Redis over return 200',
    must: 1.55, stretch: 1.40,
    spec: (b) => ({ path: CHECK, token: b.buyer.token, server: 'cluster' }),
    run: (b) => b.overBase('cluster', CHECK,
      { headers: b.bearer(b.buyer), server: 'cluster' }),
  },
  clusterpeer: {
    title: 'the same with Redis over Fastify and its limiter in Redis, CPU',
    must: 0.45, stretch: 0.35,
    async run(b) {
      await b.startPeer();
      const headers = b.bearer(b.buyer);
      const redis = b.app.redisProc.pid;
      const load = (pids, url) => measured(() => [...pids(), redis], () =>
        wrk(url, { seconds: SECONDS, headers }));
      const peer = () => load(() => [b.peerProc.pid],
        `${b.peerUrl}/limited/check`);
      const stoa = () => load(b.worker, `${b.origin('cluster')}${CHECK}`);

      await peer();
      const got = await inTurns(ROUNDS, { peer, stoa });

      for (const r of [...got.peer, ...got.stoa]) {
        if (r.errors > 0) throw new Error(`${r.errors} were refused`);
      }
      return {
        stoa: median(got.stoa.map((r) => r.cpuUs)),
        peer: median(got.peer.map((r) => r.cpuUs)),
        ratio: ratio(got.stoa, got.peer, 'cpuUs'), unit: 'us CPU',
        rps: median(got.stoa.map((r) => r.rps)),
        peerRps: median(got.peer.map((r) => r.rps)),
      };
    },
  },
  row: {
    title: 'GET /events/:id with token over return 200',
    must: 1.75, stretch: 1.45,
    spec: (b) => ({ path: `/api/v1/events/${b.event.id}`,
      token: b.buyer.token }),
    run: (b) => b.overBase('row', `/api/v1/events/${b.event.id}`,
      { headers: b.bearer(b.buyer) }),
  },
  list: {
    title: 'GET /events from the micro-cache over return 200',
    must: 1.20, stretch: 1.10,
    spec: () => ({ path: '/api/v1/events' }),
    run: (b) => b.overBase('list', '/api/v1/events'),
  },
  invalid: {
    title: 'JSON POST that fails validation over return 200',
    must: 1.9, stretch: 1.4,
    spec: (b) => ({ method: 'POST', path: '/api/v1/orders',
      token: b.buyer.token, body: { items: [{ quantity: 0 }] } }),
    run: (b) => b.overBase('invalid', '/api/v1/orders', {
      script: path.join(HERE, 'post.lua'),
      args: [JSON.stringify({ items: [{ quantity: 0 }] }), b.buyer.token],
    }),
  },
  admit: {
    title: 'admissions per second over Fastify + pg',
    must: 5, stretch: 8, higher: true,
    async run(b) {
      await b.startPeer();
      const each = Math.ceil(TICKETS / TURNS);
      const all = await makeTickets(b, 2 * each * (TURNS + 1));
      const turns = {
        stoa: () => b.admit(b.app.url, all.splice(0, each)),
        peer: () => b.admit(b.peerUrl, all.splice(0, each)),
      };

      await inTurns(1, turns); /* V8 compiles, PostgreSQL plans */
      const got = await inTurns(TURNS, turns);
      const stoa = median(got.stoa.map((r) => r.perS));
      const peer = median(got.peer.map((r) => r.perS));

      return { stoa, peer, unit: 'per s', ratio: ratio(got.stoa, got.peer,
        'perS'), rounds: got.stoa.map((r, i) => r.perS / got.peer[i].perS) };
    },
  },
  admitcpu: {
    title: 'PostgreSQL CPU per admission over one commit each',
    must: 0.25, stretch: 0.15,
    async run(b) {
      const n = Math.min(TICKETS, 32000);
      const all = await makeTickets(b, 2 * n);
      const clients = 32;
      const each = Math.floor(n / clients);
      const script = path.join(b.app.dir, 'admit.sql');
      const batched = await b.admit(b.app.url, all.slice(0, n));

      await b.app.sql(`create table public.bench_codes as
        select row_number() over () as n, code from unnest($1::text[]) code`,
      [all.slice(n).map((t) => t.code)]);
      await b.app.sql('alter table public.bench_codes add primary key (n)');
      await b.app.sql('create sequence public.bench_seq');
      await b.app.sql('analyze public.bench_codes');
      fs.writeFileSync(script, admitScript(b.scanner.id, b.event.id));
      const cpu = cpuOfServer(b.postmaster());

      await b.pgbench(script, '-t', String(each));
      const single = (cpuOfServer(b.postmaster()) - cpu) / 1000 / (each * clients);

      return { stoa: batched.dbUs, peer: single, unit: 'us CPU',
        ratio: batched.dbUs / single };
    },
  },
  orders: {
    title: 'free orders per second over one call per transaction',
    must: 4, stretch: 8, higher: true,
    async run(b) {
      const body = JSON.stringify({ items: [{
        ticketTypeId: b.event.types[0].id, quantity: 1 }] });
      const count = () => b.app.value('select count(*) from app.orders');
      const before = await count();
      const got = await wrk(`${b.app.url}/api/v1/orders`, {
        seconds: 2 * SECONDS, script: path.join(HERE, 'post.lua'),
        args: [body, b.buyer.token] });
      const made = await count() - before;

      if (got.errors > 0 || made < got.n) {
        throw new Error(`${got.errors} errors, ${made} orders of ${got.n}`);
      }
      const script = path.join(b.app.dir, 'order.sql');

      fs.writeFileSync(script, orderScript(b.buyer.id, b.event.types[0].id));
      const text = await b.pgbench(script, '-T', String(2 * SECONDS));
      const peer = Number(/tps = ([\d.]+)/.exec(text)[1]);

      return { stoa: got.rps, peer, ratio: got.rps / peer, unit: 'per s' };
    },
  },
  rss: {
    title: 'nginx worker RSS after 1,000,000 over after 10,000 requests',
    must: 1.05, stretch: 1.00, slow: true,
    async run(b) {
      const paths = ['/api/v1/auth/check', `/api/v1/events/${b.event.id}`];
      const [pid] = b.worker();
      const drive = async (n) => {
        let done = 0;

        for (let i = 0; done < n; i++) {
          const got = await wrk(`${b.app.url}${paths[i % 2]}`,
            { seconds: n > 50000 ? 5 : 1, headers: b.bearer(b.buyer) });

          done += got.n;
        }
        return rssKiB(pid);
      };
      const early = await drive(10000);
      const late = await drive(1000000);

      return { stoa: late, peer: early, ratio: late / early, unit: 'KiB' };
    },
  },
  size: {
    title: 'p50 with tables a hundred times larger over its own',
    must: 1.3, stretch: 1.1, slow: true,
    async run(small) {
      const large = new Bench();
      const p50s = async (b) => {
        const all = await makeTickets(b, 50000);
        const file = path.join(b.app.dir, 'codes');
        const row = await b.load(`/api/v1/events/${b.event.id}`,
          { headers: b.bearer(b.buyer) });
        const list = await b.load('/api/v1/events');

        fs.writeFileSync(file, all.map((t) => JSON.stringify(
          { code: t.code, eventId: b.event.id })).join('\n') + '\n');
        const admit = await wrk(`${b.app.url}/api/v1/orders/validate`, {
          seconds: 2, script: path.join(HERE, 'list.lua'),
          args: [file, b.scanner.token, '/dev/null', '64'] });

        return { row: row.p50, list: list.p50, admit: admit.p50 };
      };

      try { /* two clusters, in turns */
        await large.start();
        await makeFiller(small, 10000, 100000);
        await makeFiller(large, 1000000, 10000000);
        const got = await inTurns(ROUNDS, {
          small: () => p50s(small), large: () => p50s(large) });
        const ratios = Object.fromEntries(Object.keys(got.small[0])
          .map((key) => [key, ratio(got.large, got.small, key)]));

        return { stoa: median(got.large.map((r) => r.admit)),
          peer: median(got.small.map((r) => r.admit)),
          ratio: Math.max(...Object.values(ratios)), unit: 'ms p50',
          detail: { ratios, ...got } };
      } finally {
        await large.stop();
      }
    },
  },
};

function verdict(row, got) {
  if (row.must === undefined) return 'reported';

  const reached = (bar) => row.higher ? got.ratio >= bar : got.ratio <= bar;

  return reached(row.stretch) ? 'stretch' : reached(row.must) ? 'must'
    : 'MISSED';
}

function print(results) {
  const cpu = os.cpus()[0].model;

  console.log(`\n${cpu}, ${os.cpus().length} cores, Linux ${os.release()}; `
    + `wrk ${CONNECTIONS} connections, ${ROUNDS} rounds of ${SECONDS} s\n`);
  console.log('| row | Stoa | base | ratio | must | stretch | |');
  console.log('|---|---|---|---|---|---|---|');
  for (const [name, got] of Object.entries(results)) {
    const row = ROWS[name];
    const n = (x) => x >= 1000 ? Math.round(x).toLocaleString('en')
      : x.toFixed(2);

    console.log(`| ${row.title} | ${n(got.stoa)} ${got.unit} | ${n(got.peer)} `
      + `${got.unit} | **${got.ratio.toFixed(2)}** | ${row.must ?? ''} | `
      + `${row.stretch ?? ''} | ${verdict(row, got)} |`);
  }
}

async function main(text) {
  const names = text ? text.split(',') : Object.keys(ROWS)
    .filter((name) => !ROWS[name].slow);
  const unknown = names.filter((name) => !ROWS[name]);

  if (unknown.length) {
    console.error(`bench: no row "${unknown[0]}"; rows: `
      + Object.keys(ROWS).join(', '));
    process.exit(2);
  }
  const bench = new Bench();
  const results = {};

  try {
    await bench.start();
    await bench.makeBases(Object.fromEntries(names
      .filter((name) => ROWS[name].spec)
      .map((name) => [name, { spec: ROWS[name].spec(bench) }])));
    for (const name of names) {
      console.error(`bench: ${ROWS[name].title}`);
      results[name] = await ROWS[name].run(bench);
      console.error(`bench: ${JSON.stringify(results[name])}`);
    }
  } finally {
    await bench.stop();
  }
  print(results);
  process.exit(0);
}

await main(process.argv[2]);
