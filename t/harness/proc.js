/*
 * Processes, ports, folders and waiting: what the rest of the harness is
 * made of.  Everything started here is ended by pid, never by name.
 */

import { spawn, execFile } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export const ROOT = path.resolve(
  path.dirname(fileURLToPath(import.meta.url)), '../..');

export const BUILD = path.resolve(ROOT, process.env.STOA_BUILD ?? 'build/test');
export const IS_ASAN = path.basename(BUILD) === 'asan';
export const IS_ROOT = process.getuid() === 0;

/*
 * Times every deadline: a machine may be slow or busy, and a deadline is there
 * to end what hangs, not to measure.  Sanitized binaries are slower still.
 */
export const SLOW = Number(process.env.STOA_SLOW ?? (IS_ASAN ? 6 : 3));

const execFileP = promisify(execFile);

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/* Polls fn until it returns something truthy; the last error explains. */
export async function until(fn, { timeout = 10000, every = 25, what } = {}) {
  const end = Date.now() + timeout * SLOW;
  let last;

  for (;;) {
    try {
      const value = await fn();

      if (value) return value;
      last = undefined;
    } catch (error) {
      last = error;
    }

    if (Date.now() > end) {
      throw new Error(
        `waited ${timeout * SLOW} ms in vain for ${what ?? fn}`,
        { cause: last });
    }
    await sleep(every);
  }
}

export function tempDir(prefix) {
  const dir = fs.mkdtempSync(
    path.join(process.env.STOA_TMP ?? os.tmpdir(), prefix));

  fs.chmodSync(dir, 0o755); /* the postgres user passes through */
  return dir;
}

/* ---- ports ---- */

const PORTS = path.join(os.tmpdir(), `stoa-ports-${process.getuid()}`);
const FIRST = 24000;
const LAST = 31999; /* below the kernel's ephemeral range */

function alive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

function bindable(port) {
  return new Promise((done) => {
    const server = net.createServer();

    server.once('error', () => done(false));
    server.listen({ port, host: '127.0.0.1', exclusive: true },
      () => server.close(() => done(true)));
  });
}

function claim(file) {
  try {
    fs.writeFileSync(file, String(process.pid), { flag: 'wx' });
    return true;
  } catch (error) {
    if (error.code !== 'EEXIST') throw error;
  }

  const owner = Number(fs.readFileSync(file, 'utf8'));

  if (owner && alive(owner)) return false;
  fs.rmSync(file, { force: true });
  return false; /* next round: another process may be doing the same */
}

const ports = new Set();

/* A port of 127.0.0.1 that no other test of this machine uses. */
export async function takePort() {
  fs.mkdirSync(PORTS, { recursive: true });

  for (let i = 0; i < 2000; i++) {
    const port = FIRST + Math.floor(Math.random() * (LAST - FIRST + 1));
    const file = path.join(PORTS, String(port));

    if (!claim(file)) continue;

    if (await bindable(port)) {
      ports.add(port);
      return port;
    }
    fs.rmSync(file, { force: true });
  }
  throw new Error('no free port');
}

export function givePort(port) {
  if (ports.delete(port)) {
    fs.rmSync(path.join(PORTS, String(port)), { force: true });
  }
}

process.on('exit', () => ports.forEach(givePort));

/* ---- processes ---- */

/* Ended at exit whatever happens: a test that throws leaves nothing. */
const running = new Set();

process.on('exit', () => {
  for (const p of running) {
    try {
      process.kill(p.group ? -p.pid : p.pid, 'SIGKILL');
    } catch { /* gone already */ }
  }
});

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => process.exit(1));
}

export class Proc {
  /* log: file to which both streams are appended; group: own process group */
  constructor(name, cmd, args, { log, env, cwd, group = true } = {}) {
    const out = log ? fs.openSync(log, 'a') : 'ignore';

    this.name = name;
    this.group = group;
    this.log = log;
    this.child = spawn(cmd, args, {
      stdio: ['ignore', out, out],
      env: { ...cleanEnv(), ...env },
      cwd: cwd ?? '/',
      detached: group,
    });
    this.pid = this.child.pid;
    this.code = undefined;
    this.signal = undefined;
    running.add(this);
    this.exited = new Promise((done) => {
      this.child.on('error', (error) => {
        this.error = error;
        this.ended(done);
      });
      this.child.on('exit', (code, signal) => {
        this.code = code;
        this.signal = signal;
        this.ended(done);
      });
    });

    if (log) fs.closeSync(out);
  }

  ended(done) {
    this.over = true;
    running.delete(this);
    done(this);
  }

  kill(signal = 'SIGTERM') {
    if (!this.over && this.pid) process.kill(this.pid, signal);
  }

  /* Waits for the end after a signal; SIGKILL to the group past grace. */
  async stop(signal = 'SIGTERM', grace = 30000) {
    if (this.over) return this;
    this.kill(signal);

    let timer;
    const late = new Promise((done) => {
      timer = setTimeout(done, grace * SLOW, 'late');
    });
    const how = await Promise.race([this.exited, late]);

    clearTimeout(timer);

    if (how === 'late') {
      this.late = true;
      process.kill(this.group ? -this.pid : this.pid, 'SIGKILL');
      await this.exited;
    }
    return this;
  }

  /* Fails at once when the process ended while fn was awaited. */
  async ready(fn, what) {
    await until(async () => {
      if (this.over) {
        throw Object.assign(
          new Error(`${this.name} ended with ${this.code ?? this.signal ?? this.error}` +
            tail(this.log)), { fatal: true });
      }
      return fn();
    }, { timeout: 20000, what: what ?? `${this.name} to be ready` })
      .catch((error) => {
        if (error.cause?.fatal) throw error.cause;
        throw new Error(error.message + tail(this.log), { cause: error.cause });
      });
  }
}

export function tail(file, lines = 15) {
  if (!file || !fs.existsSync(file)) return '';
  const text = fs.readFileSync(file, 'utf8').trimEnd().split('\n');

  return `\n${file}:\n  ${text.slice(-lines).join('\n  ')}`;
}

/* What the developer's shell has set must not steer the servers. */
export function cleanEnv() {
  const env = { ...process.env };

  for (const key of Object.keys(env)) {
    if (/^(PG|DB_|REDIS_|STOA_CRASH|STOA_PAUSE|JWT_|SMTP_|STRIPE_|MAIL_|ENVIRONMENT$|NODE_ENV$|PUBLIC_URL$|APP_URL$|NODE_TEST_CONTEXT$)/
      .test(key)) {
      delete env[key];
    }
  }
  return env;
}

/* Runs a command to its end; its output is the reason when it fails. */
export async function run(cmd, args, options = {}) {
  try {
    const { stdout } = await execFileP(cmd, args, {
      maxBuffer: 64 << 20, cwd: '/', ...options,
      env: { ...cleanEnv(), ...options.env },
    });

    return stdout;
  } catch (error) {
    throw new Error(
      `${cmd} ${args.join(' ')}: ${error.code ?? error.signal}\n` +
      `${error.stdout ?? ''}${error.stderr ?? ''}`.trimEnd());
  }
}

/* PostgreSQL refuses to run as root: then it runs as the postgres user. */
export function asPostgres(cmd, args) {
  if (!IS_ROOT) return [cmd, args];
  return ['setpriv', ['--reuid=postgres', '--regid=postgres',
    '--init-groups', cmd, ...args]];
}
