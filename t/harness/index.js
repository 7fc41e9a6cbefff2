/*
 * boot(): one application for one test file, that is, a database copied from
 * the template, a Redis, an nginx with the module and a worker pool, each of
 * its own, on private ports and folders.  See README.md in this folder.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import Redis from 'ioredis';
import { simpleParser } from 'mailparser';
import pg from 'pg';
import { ownCluster, theCluster } from './cluster.js';
import { SECRETS, confText, testConf } from './conf.js';
import { Fixtures } from './fixtures.js';
import { barrier, rawExchange, send } from './http.js';
import { Nginx } from './nginx.js';
import {
  BUILD, IS_ASAN, Proc, ROOT, SLOW, givePort, run, sleep, takePort, tempDir,
  until,
} from './proc.js';
import {
  LOADED, RELOADED, TRANSPORT, certificate, closeSession, startLoad, tlsAgent,
} from './transport.js';
import { Validator, checkEnvelope } from './validate.js';

export { BUILD, IS_ASAN, ROOT, SECRETS, SLOW, Proc, run, sleep, until };

/* Rounds of a race: few in make test, 200 in make soak. */
export const ROUNDS = Number(process.env.ROUNDS ?? 10);

let booted = 0;

/*
 * workers       processes of stoa work; 0: none is started
 * nginxWorkers  worker_processes; STOA_NGINX_WORKERS overrides the default 1
 * nodes         edges beside each other, each with a zone of its own; 1
 * conf          settings of stoa.conf; null removes one
 * env           environment of the workers (STOA_CRASH, ...)
 * nginx         changes of the configuration, see nginx.js
 * nginxEnv      environment of nginx
 * cluster       "own": a PostgreSQL that the test may stop; or its options
 * validate      false: responses are not held against openapi.json
 * alone         no reload before and no load beside it, whatever is set
 * allowLog      expressions for lines of [alert] that the test provokes
 */
export async function boot(options = {}) {
  const app = new App(options);

  try {
    await app.start();
  } catch (error) {
    app.failed = true;
    await app.stop().catch(() => {});
    throw error;
  }
  return app;
}

class App extends Fixtures {
  constructor(options) {
    super();
    this.options = options;
    this.workers = options.workers ?? 1;
    this.nginxWorkers = options.nginxWorkers
      ?? Number(process.env.STOA_NGINX_WORKERS ?? 1);
    this.dir = tempDir('stoa-app-');
    this.id = `stoa_t_${process.pid}_${++booted}`;
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 64 });
    this.violations = [];
    this.procs = [];
    for (const name of ['run', 'log', 'mail', 'redis', 'nginx']) {
      fs.mkdirSync(path.join(this.dir, name));
    }
    this.clock = {
      ms: 0, at: 0, advance: (ms) => this.moveClock(ms),
      freeze: () => this.standClock(Date.now()),
      thaw: () => this.standClock(0),
    };
    this.writeClockFile();
  }

  async start() {
    const own = this.options.cluster;

    this.cluster = own
      ? await ownCluster(typeof own === 'object' ? own : {})
      : await theCluster();
    this.port = await takePort();
    this.url = `http://127.0.0.1:${this.port}`;
    this.base = { host: '127.0.0.1', port: this.port };
    await this.secure(this);
    this.redisSocket = path.join(this.dir, 'run', 'redis.sock');
    this.conf = {
      ...testConf({
        dir: this.dir, database: this.id, pgDir: this.cluster.data,
        redis: this.redisSocket, url: this.url, workers: this.workers,
      }),
      ...this.options.conf,
    };
    this.confFile = path.join(this.dir, 'stoa.conf');
    fs.writeFileSync(this.confFile, confText(this.conf), { mode: 0o600 });

    await Promise.all([this.cluster.copy(this.id), this.startRedis()]);
    this.pool = new pg.Pool({ ...this.cluster.config(this.id), max: 8 });
    this.pool.on('error', () => {}); /* the server may be stopped by tests */

    if (this.workers > 0) await this.startWorkers();
    this.nginx = this.makeEdge(this);
    this.nodes = [this];
    for (let i = 1; i < (this.options.nodes ?? 1); i++) {
      this.nodes.push(await this.makeNode(i));
    }
    await Promise.all([...this.nodes.map((node) => node.nginx.start()),
      this.settingsStored()]);
    if (RELOADED && !this.options.alone) {
      await Promise.all(this.nodes.map((node) => node.nginx.reload()));
    }
    if (LOADED && !this.options.alone) this.endLoad = startLoad(this.base);
  }

  /* TLS beside the plain port, when that is how requests travel. */
  async secure({ dir, base }) {
    if (TRANSPORT === 'h1') return;
    base.secure = { ...certificate(path.join(dir, 'run')),
      port: await takePort() };
    base.secure.agent = tlsAgent(base.secure);
  }

  makeEdge(place) {
    return new Nginx(place, {
      workers: this.nginxWorkers,
      change: this.options.nginx, env: this.options.nginxEnv,
    });
  }

  /* A further edge: a folder, a port and shared memory of its own; database,
     Redis, workers and clock are those of all. */
  async makeNode(number) {
    const node = { dir: path.join(this.dir, `node${number + 1}`) };

    for (const name of ['run', 'log', 'nginx', 'mail']) {
      fs.mkdirSync(path.join(node.dir, name), { recursive: true });
    }
    fs.copyFileSync(this.confFile, path.join(node.dir, 'stoa.conf'));
    node.port = await takePort();
    node.url = `http://127.0.0.1:${node.port}`;
    node.base = { host: '127.0.0.1', port: node.port };
    await this.secure(node);
    node.nginx = this.makeEdge(node);
    return node;
  }

  /*
   * What SQL reads of stoa.conf, such as the provider of payments, is stored
   * by the workers a moment after their start; the template's own values
   * stand there until then.
   */
  async settingsStored() {
    if (this.workers === 0 || this.conf.PUBLIC_URL !== this.url) return;
    await until(async () => this.worker.over
      || await this.value(`select app.setting('public_url')`) === this.url,
    { timeout: 20000, what: 'the workers to store the settings' });
  }

  /* ---- parts ---- */

  async startRedis(args = []) {
    this.redisProc = new Proc('redis', '/usr/bin/redis-server', [
      '--port', '0', '--unixsocket', this.redisSocket,
      '--dir', path.join(this.dir, 'redis'), '--save', '',
      '--appendonly', 'no', '--daemonize', 'no', ...args,
    ], { log: path.join(this.dir, 'log', 'redis.log') });
    await this.redisProc.ready(() => fs.existsSync(this.redisSocket),
      'redis to listen');
    this.redis ??= this.redisClient();
    if (!this.clock.ms && !this.clock.at) return;
    await until(async () => {
      await this.tellRedis();
      return true;
    }, { what: 'the client of redis to be connected' });
  }

  redisClient() {
    const client = new Redis({
      path: this.redisSocket, lazyConnect: false,
      retryStrategy: (n) => Math.min(n * 50, 500), maxRetriesPerRequest: 2,
    });

    client.on('error', () => {});
    return client;
  }

  /* The stoa program with this application's settings, to its end. */
  stoa(args, { env, ...options } = {}) {
    return run(path.join(BUILD, 'stoa'), args, {
      cwd: ROOT, ...options, env: { STOA_CONF: this.confFile, ...env },
    });
  }

  async startWorkers({ env } = {}) {
    const log = path.join(this.dir, 'log', 'worker.log');
    const all = { STOA_CONF: this.confFile, ...this.options.env, ...env };

    if (IS_ASAN) {
      all.ASAN_OPTIONS = 'detect_leaks=1:log_path=' +
        path.join(this.dir, 'log', 'asan-worker');
      all.UBSAN_OPTIONS = 'print_stacktrace=1';
    }
    this.worker = new Proc('stoa work', path.join(BUILD, 'stoa'), ['work'],
      { log, env: all, cwd: ROOT });
    await sleep(50);
    if (this.worker.over && !env?.STOA_CRASH) {
      await this.worker.ready(() => false, 'stoa work');
    }
    return this.worker;
  }

  async stopWorkers(signal = 'SIGTERM') {
    await this.worker?.stop(signal);
  }

  /* ---- asking ---- */

  /* A request whose answer is checked; spec: {token, body, headers, node, ...},
     node being the number of the edge that is asked, from 0 on */
  async api(method, urlPath, spec = {}) {
    const res = await send(this.baseOf(spec), this.agent,
      { ...spec, method, path: urlPath });

    return this.checked(res);
  }

  baseOf({ node = 0, base }) {
    return base ?? (node ? this.nodes[node].base : this.base);
  }

  /* n requests that leave together; fn(i) gives {method, path, node, ...}. */
  async barrier(n, fn) {
    const all = await barrier(this.base, n, async (i) => {
      const spec = await fn(i);

      return { ...spec, base: this.baseOf(spec) };
    });

    return Promise.all(all.map((res) => this.checked(res)));
  }

  raw(bytes, options) {
    return rawExchange(this.base, bytes, options);
  }

  async checked(res) {
    checkEnvelope(res);
    if (this.options.validate === false || res.request.validate === false) {
      return res;
    }
    this.validator ??= await this.loadDocument();

    const sentence = this.validator?.check(res);

    if (sentence) this.violations.push(sentence);
    return res;
  }

  async loadDocument() {
    const res = await send(this.base, this.agent,
      { path: '/api/v1/openapi.json' });

    if (res.status !== 200) {
      throw new Error(`/api/v1/openapi.json says ${res.status}`);
    }
    return new Validator(res.body);
  }

  /* Rows of one statement, as superuser. */
  async sql(text, params) {
    return (await this.pool.query(text, params)).rows;
  }

  /* The first column of the first row. */
  async value(text, params) {
    const [row] = await this.sql(text, params);

    return row && Object.values(row)[0];
  }

  /* A connection of one's own, for open transactions; closed at stop(). */
  async client(user = 'postgres') {
    const client = new pg.Client(this.cluster.config(this.id, user));

    await client.connect();
    client.on('error', () => {});
    this.clients ??= [];
    this.clients.push(client);
    return client;
  }

  /* ---- clock and mail ---- */

  writeClockFile() {
    const file = path.join(this.dir, 'clock');
    const bytes = Buffer.alloc(16);

    bytes.writeBigInt64LE(BigInt(this.clock.ms));
    bytes.writeBigInt64LE(BigInt(this.clock.at), 8);
    /* in place: the servers have it mapped */
    const fd = fs.openSync(file, fs.existsSync(file) ? 'r+' : 'w');

    fs.writeSync(fd, bytes, 0, 16, 0);
    fs.closeSync(fd);
    fs.chmodSync(file, 0o644);
  }

  /* Moves the clocks of PostgreSQL, C and Lua together. */
  async moveClock(ms) {
    this.clock.ms += ms;
    this.writeClockFile();
    await this.tellRedis();
    await this.sql(
      `update app.test_clock set shift = make_interval(secs => $1 / 1000.0)`,
      [this.clock.ms]);
  }

  /* Lets the clocks of C and of the limits' scripts stand; PostgreSQL's and
     that of the queues run on. */
  async standClock(at) {
    this.clock.at = at;
    this.writeClockFile();
    await this.tellRedis();
  }

  async tellRedis() {
    const prefix = this.conf.REDIS_PREFIX ?? 'stoa:';

    await this.redis.set(`${prefix}clock`, String(this.clock.ms));
    if (this.clock.at) {
      await this.redis.set(`${prefix}clock_at`, String(this.clock.at));
    } else {
      await this.redis.del(`${prefix}clock_at`);
    }
  }

  /* Mails written so far, oldest first, parsed. */
  async mails(filter = () => true) {
    const dir = this.conf.MAIL_DIR;
    const files = fs.readdirSync(dir).filter((f) => f.endsWith('.eml'))
      .map((f) => path.join(dir, f))
      .map((f) => ({ f, at: fs.statSync(f).mtimeMs }))
      .sort((a, b) => a.at - b.at || (a.f < b.f ? -1 : 1));
    const mails = await Promise.all(files.map(async ({ f }) => {
      const raw = fs.readFileSync(f);
      const mail = await simpleParser(raw);

      mail.file = f;
      mail.raw = raw;
      mail.recipients = [mail.to].flat().filter(Boolean)
        .flatMap((list) => list.value.map((v) => v.address));
      return mail;
    }));

    return mails.filter(filter);
  }

  /* The first mail to this address that the filter likes, awaited. */
  mailTo(address, filter = () => true, timeout = 15000) {
    return until(async () => (await this.mails((m) =>
      m.recipients.includes(address) && filter(m)))[0],
    { timeout, what: `a mail to ${address}` });
  }

  /* ---- the end ---- */

  async stop() {
    if (this.stopped) return;
    this.stopped = true;

    const problems = [];

    this.endLoad?.();
    for (const { base } of this.nodes ?? []) {
      closeSession(base);
      base.secure?.agent.destroy();
    }
    this.agent.destroy();
    await this.stopParts(problems);
    this.readLogs(problems);
    problems.push(...new Set(this.violations));
    this.cleanUp();

    if (!this.failed) {
      assert.deepEqual(problems, [],
        `the application left this behind:\n${problems.join('\n')}`);
    }
  }

  async stopParts(problems) {
    if (this.cluster?.alive() && this.pool) {
      await this.noOpenTransaction().catch((e) => problems.push(e.message));
    }
    for (const node of this.nodes ?? [this]) {
      await this.stopOne(node.nginx, problems);
    }
    await this.stopOne(this.worker, problems);
    for (const client of this.clients ?? []) {
      await client.end().catch(() => {});
    }
    await this.pool?.end().catch(() => {});
    this.redis?.disconnect();
    await this.redisProc?.stop('SIGTERM', 5000);
    if (this.cluster?.alive()) await this.cluster.drop(this.id);
    if (this.options.cluster || this.cluster?.private && this.options.last) {
      await this.cluster?.destroy();
    }
    for (const { port, base } of this.nodes ?? [this]) {
      if (port) givePort(port);
      if (base?.secure) givePort(base.secure.port);
    }
  }

  async stopOne(part, problems) {
    if (!part) return;

    const was = part instanceof Proc ? part : part.proc;
    const before = was?.over;

    await part.stop();
    if (!was || before) return;
    if (was.late) problems.push(`${was.name} did not stop in time`);
    else if (was.code !== 0) {
      problems.push(`${was.name} ended with ${was.code ?? was.signal}`);
    }
  }

  async noOpenTransaction() {
    await until(async () => !(await this.value(
      `select count(*) from pg_stat_activity
       where datname = $1 and state like 'idle in transaction%'
         and usename in ('stoa_edge', 'stoa_worker')`, [this.id])),
    { timeout: 2000, what: 'every backend to leave its transaction' });
  }

  readLogs(problems) {
    for (const { dir } of this.nodes ?? [this]) {
      this.readLogsOf(path.join(dir, 'log'), problems);
    }
  }

  readLogsOf(dir, problems) {
    const allowed = this.options.allowLog ?? [];

    for (const name of fs.readdirSync(dir)) {
      if (name === 'redis.log' || name.startsWith('access')) continue;

      const text = fs.readFileSync(path.join(dir, name), 'latin1');

      if (name.startsWith('asan')) { /* with its stack */
        problems.push(`${name}: ${text.split('\n').slice(0, 50).join('\n')}`);
        continue;
      }
      for (const line of text.split('\n')) {
        if (BAD_LINE.test(line) && !allowed.some((re) => re.test(line))) {
          problems.push(`${name}: ${line}`);
        }
      }
    }
  }

  cleanUp() {
    if (process.env.STOA_KEEP) {
      console.error(`kept: ${this.dir}`);
      return;
    }
    fs.rmSync(this.dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

const BAD_LINE = new RegExp([
  String.raw`\[(alert|emerg)\]`, 'AddressSanitizer', 'LeakSanitizer',
  'UndefinedBehaviorSanitizer', 'runtime error:', 'open socket #',
  'exited on signal (?!9|15)', 'stack smashing', 'double free',
].join('|'));

export const randomName = (prefix = 'x') =>
  `${prefix}${crypto.randomBytes(5).toString('hex')}`;
