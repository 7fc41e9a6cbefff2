/*
 * The edge of one booted application: the development profile's own template
 * (conf/dev/nginx.conf.in) with its placeholders filled, and what a test
 * wants changed, so that tests run what people run.
 */

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import {
  BUILD, IS_ASAN, IS_ROOT, Proc, ROOT, run, sleep, until,
} from './proc.js';
import { listener } from './transport.js';

const TEMPLATE = process.env.STOA_NGINX_TEMPLATE
  ?? path.join(ROOT, 'conf/dev/nginx.conf.in');

const fill = (text, values) => Object.entries(values).reduce(
  (all, [name, value]) => all.replaceAll(`@${name}@`, String(value)), text);

/*
 * change: {main, http, server: text put at the top of that block,
 *          replace: [[string or RegExp, string], ...],
 *          profile: "production" takes conf/dev/nginx-production.conf.in}
 */
export function renderNginx(values, change = {}) {
  let text = fill(fs.readFileSync(change.template ?? TEMPLATE, 'utf8'),
    values);

  for (const [from, to] of change.replace ?? []) {
    const next = text.replaceAll(from instanceof RegExp && !from.global
      ? new RegExp(from.source, from.flags + 'g') : from, to);

    if (next === text) throw new Error(`nginx.replace: no "${from}"`);
    text = next;
  }
  /* who waits for a connection or a hash on a busy machine is not what is
     tested, unless the test says how long */
  text = text.replace('queue_timeout=200ms', 'queue_timeout=3s');
  text = text.replace('threads=auto queue=64 wait=800ms',
    'threads=auto queue=64 wait=60s');
  if (values.MODULE === '') text = text.replace(/^\s*load_module [^;]*;/m, '');
  if (change.http) {
    text = text.replace(/^http\s*\{/m, (m) => `${m}\n${change.http}`);
  }
  if (change.server) {
    text = text.replace(/^\s*server\s*\{/m, (m) => `${m}\n${change.server}`);
  }
  if (IS_ROOT && !/^user /m.test(text)) text = `user root;\n${text}`;
  /* in what a test adds, too: each node has values of its own */
  return fill(`${change.main ?? ''}\n${text}`, values);
}

/* TLS beside what is there, when the transport is that. */
function secured(app, change) {
  return app.base.secure
    ? { ...change, server: `${listener(app.base.secure)}
        ${change?.server ?? ''}` }
    : change;
}

/* app: the application, or one of its nodes: {dir, port} */
export class Nginx {
  constructor(app, { workers, change, env }) {
    this.app = app;
    this.env = env;
    this.prefix = path.join(app.dir, 'nginx');
    this.conf = path.join(this.prefix, 'nginx.conf');
    this.pidFile = path.join(app.dir, 'run', 'nginx.pid');
    this.log = path.join(app.dir, 'log', 'nginx-error.log');
    this.out = path.join(app.dir, 'log', 'nginx-out.log');

    const own = path.join(BUILD, 'nginx');

    this.static = IS_ASAN && fs.existsSync(own);
    this.binary = this.static ? own : '/usr/sbin/nginx';
    fs.mkdirSync(this.prefix, { recursive: true });
    this.configure(workers, change);
  }

  configure(workers, change) {
    fs.writeFileSync(this.conf, renderNginx({
      STATE: this.app.dir,
      PORT: this.app.port,
      WWW: path.join(ROOT, 'conf/www'),
      MODULE: this.static
        ? '' : path.join(BUILD, 'ngx_http_stoa_module.so'),
      WORKERS: workers,
    }, secured(this.app, change)));
  }

  args(...more) {
    return ['-p', this.prefix, '-c', this.conf, '-e', this.log,
      ...more];
  }

  environment() {
    const env = { ...this.env };

    if (IS_ASAN) {
      env.ASAN_OPTIONS = `detect_leaks=0:abort_on_error=0:log_path=` +
        path.join(this.app.dir, 'log', 'asan');
      env.UBSAN_OPTIONS = 'print_stacktrace=1';
      if (!this.static) env.LD_PRELOAD = preload();
    }
    return env;
  }

  /* nginx -t; the text it prints, also when it refuses. */
  async test() {
    try {
      await run(this.binary, this.args('-t'), { env: this.environment() });
      return fs.readFileSync(this.log, 'utf8');
    } catch (error) {
      return error.message;
    }
  }

  async start() {
    this.proc = new Proc('nginx', this.binary,
      this.args('-g', 'daemon off;'),
      { log: this.out, env: this.environment() });
    await this.proc.ready(() => this.answers(), 'nginx to answer');
    return this;
  }

  /* Ready is what /health/ready says: pools and revocations are loaded. */
  answers() {
    return new Promise((done, failed) => {
      const req = http.get({
        host: '127.0.0.1', port: this.app.port, path: '/health/ready',
        agent: false, timeout: 2000,
      }, (res) => {
        res.resume();
        res.on('end', () => res.statusCode === 200
          ? done(true)
          : failed(new Error(`/health/ready says ${res.statusCode}`)));
      });

      req.on('error', failed);
      req.on('timeout', () => req.destroy(new Error('no answer')));
    });
  }

  /* Pids of the worker processes, oldest first. */
  workerPids() {
    const text = fs.readFileSync(
      `/proc/${this.proc.pid}/task/${this.proc.pid}/children`, 'utf8');

    return text.trim().split(/\s+/).filter(Boolean).map(Number);
  }

  /* HUP, and waits until all worker processes are new ones. */
  async reload({ wait = true } = {}) {
    const old = new Set(this.workerPids());

    this.proc.kill('SIGHUP');
    if (!wait) return;
    await until(() => {
      const pids = this.workerPids();

      return pids.length && !pids.some((pid) => old.has(pid));
    }, { timeout: 30000, what: 'the reload' });
    await until(() => this.answers(), { what: 'the reloaded edge' });
  }

  async stop(signal = 'SIGQUIT', grace = 15000) {
    if (!this.proc) return undefined;
    await this.proc.stop(signal, grace);
    await sleep(0);
    return this.proc;
  }
}

let preloaded;

/* The stock nginx knows nothing of sanitizers: they are loaded before it. */
function preload() {
  preloaded ??= ['libasan.so', 'libubsan.so'].map((name) =>
    execFileSync('gcc', [`-print-file-name=${name}`]).toString().trim())
    .join(' ');
  return preloaded;
}
