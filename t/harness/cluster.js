/*
 * The PostgreSQL cluster of a test run, and in it the template database that
 * every test file copies (0.1 s instead of a migration each).
 *
 *   node t/harness/cluster.js start [DIR]     starts one and leaves it running
 *   node t/harness/cluster.js template [DIR]  makes the template, prints its name
 *   node t/harness/cluster.js stop [DIR]
 *
 * Without DIR: a folder of the user's under /tmp, which boot() finds by
 * itself, so that running one test file again and again stays fast.
 */

import crypto from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import {
  BUILD, IS_ROOT, Proc, ROOT, asPostgres, run, tempDir, until,
} from './proc.js';
import { confText, testConf } from './conf.js';

export const DEV_DIR = path.join(
  process.env.STOA_TMP ?? os.tmpdir(), `stoa-cluster-${process.getuid()}`);

/* int8 stays a string in pg by default; ids fit a double, counts too. */
pg.types.setTypeParser(20, (text) =>
  Number.isSafeInteger(Number(text)) ? Number(text) : BigInt(text));

function binDir() {
  const base = '/usr/lib/postgresql';
  const found = fs.readdirSync(base)
    .filter((v) => fs.existsSync(`${base}/${v}/bin/initdb`))
    .sort((a, b) => Number(b) - Number(a));

  if (!found.length) throw new Error('PostgreSQL is not installed');
  return `${base}/${found[0]}/bin`;
}

const SETTINGS = `
listen_addresses = ''
max_connections = 600
shared_buffers = 128MB
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum_naptime = 10s
log_min_messages = warning
log_line_prefix = '%m [%p] %d '
`;

export class Cluster {
  constructor(dir) {
    this.dir = dir;
    this.data = path.join(dir, 'pg');
    this.logFile = path.join(dir, 'postgres.log');
    this.bin = binDir();
  }

  /* durable: fsync and synchronous_commit as in production */
  async create({ settings = '', durable = false } = {}) {
    fs.mkdirSync(this.data, { recursive: true, mode: 0o700 });

    if (IS_ROOT) await run('chown', ['postgres:postgres', this.data]);
    await run(...asPostgres(`${this.bin}/initdb`, ['-D', this.data,
      '-A', 'trust', '-U', 'postgres', '-E', 'UTF8', '--locale=C.UTF-8',
      '--no-sync']));
    const base = durable
      ? SETTINGS.replace(/^(fsync|synchronous_commit|full_page_writes).*\n/gm, '')
      : SETTINGS;

    fs.appendFileSync(path.join(this.data, 'postgresql.conf'),
      `${base}unix_socket_directories = '${this.data}'\n${settings}`);
    return this;
  }

  async start() {
    fs.closeSync(fs.openSync(this.logFile, 'a'));
    if (IS_ROOT) fs.chmodSync(this.logFile, 0o666);

    await run(...asPostgres(`${this.bin}/pg_ctl`, ['-D', this.data, '-s', '-w',
      '-l', this.logFile, 'start']));
    this.running = true;
    return this;
  }

  /* mode: fast, immediate (kill), smart */
  async stop(mode = 'fast') {
    this.running = false;
    await run(...asPostgres(`${this.bin}/pg_ctl`, ['-D', this.data, '-s', '-w',
      '-m', mode, 'stop']));
  }

  alive() {
    try {
      const pid = Number(fs.readFileSync(
        path.join(this.data, 'postmaster.pid'), 'utf8').split('\n')[0]);

      process.kill(pid, 0);
      return true;
    } catch (error) {
      return error.code === 'EPERM';
    }
  }

  config(database = 'postgres', user = 'postgres') {
    return { host: this.data, port: 5432, database, user };
  }

  /* One statement, or several without parameters, on an own connection. */
  async sql(database, text, params) {
    const client = new pg.Client(this.config(database));

    await client.connect();
    try {
      return await client.query(text, params);
    } finally {
      await client.end();
    }
  }

  /* Makes the template once for these migrations; safe from many processes. */
  async template() {
    const name = `stoa_template_${digest()}`;
    const client = new pg.Client(this.config());

    await client.connect();
    try {
      await client.query('select pg_advisory_lock(7420)');
      const { rowCount } = await client.query(
        'select 1 from pg_database where datname = $1', [name]);

      if (!rowCount) await this.makeTemplate(client, name);
    } finally {
      await client.end();
    }
    return name;
  }

  async makeTemplate(client, name) {
    const half = `${name}_half`;

    await client.query(ROLES);
    await client.query(`drop database if exists ${half}`);
    await client.query(`create database ${half} owner stoa_owner`);

    const dir = tempDir('stoa-migrate-');

    try {
      const file = path.join(dir, 'stoa.conf');

      fs.writeFileSync(file, confText(testConf({
        dir, database: half, pgDir: this.data, redis: '/nonexistent',
        url: 'http://127.0.0.1:1',
      })), { mode: 0o600 });
      await run(path.join(BUILD, 'stoa'), ['migrate'], {
        cwd: ROOT, env: { STOA_CONF: file },
      });
    } finally {
      fs.rmSync(dir, { recursive: true, force: true });
    }
    await this.sql(half, fs.readFileSync(
      path.join(ROOT, 't/harness/clock.sql'), 'utf8'));
    await client.query(`alter database ${half} rename to ${name}`);
  }

  async copy(database) {
    const template = await this.template();

    await this.sql('postgres',
      `create database ${database} template ${template} owner stoa_owner`);
  }

  async drop(database) {
    await this.sql('postgres', `drop database if exists ${database} with (force)`);
  }

  async destroy() {
    if (this.alive()) await this.stop('immediate');
    fs.rmSync(this.dir, { recursive: true, force: true });
  }
}

/* The roles are the cluster's, so migrations of many databases share them. */
const ROLES = `
do $$
declare r text;
begin
    foreach r in array array['stoa_owner', 'stoa_edge', 'stoa_worker'] loop
        if not exists (select from pg_roles where rolname = r) then
            execute format('create role %I login', r);
        end if;
    end loop;
    alter role stoa_owner createrole;
end $$`;

/* Of everything that the template is made of. */
function digest() {
  const hash = crypto.createHash('sha256');
  const walk = (dir) => {
    for (const e of fs.readdirSync(dir, { withFileTypes: true })
      .sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const file = path.join(dir, e.name);

      if (e.isDirectory()) walk(file);
      else if (e.name.endsWith('.sql')) hash.update(fs.readFileSync(file));
    }
  };

  walk(path.join(ROOT, 'migrations'));
  hash.update(fs.readFileSync(path.join(ROOT, 't/harness/clock.sql')));
  return hash.digest('hex').slice(0, 12);
}

let shared;

/*
 * The cluster of this run: that of t/run.sh (STOA_TEST_CLUSTER), the
 * developer's running one, or one made now and removed at the end.
 */
export async function theCluster() {
  shared ??= findCluster();
  return shared;
}

async function findCluster() {
  for (const dir of [process.env.STOA_TEST_CLUSTER, DEV_DIR]) {
    if (dir && fs.existsSync(path.join(dir, 'pg', 'PG_VERSION'))) {
      const cluster = new Cluster(dir);

      if (cluster.alive()) return cluster;
    }
  }

  if (process.env.STOA_TEST_CLUSTER) {
    throw new Error(`no cluster runs in ${process.env.STOA_TEST_CLUSTER}`);
  }
  const cluster = await ownCluster();

  cluster.private = true;
  return cluster;
}

/* For t/faults: a cluster that the test itself may stop. */
export async function ownCluster(options) {
  const cluster = new Cluster(tempDir('stoa-pg-'));

  await cluster.create(options);
  await cluster.start();
  process.on('exit', () => {
    try {
      const pid = Number(fs.readFileSync(
        path.join(cluster.data, 'postmaster.pid'), 'utf8').split('\n')[0]);

      process.kill(pid, 'SIGQUIT');
    } catch { /* stopped by the test */ }
    fs.rmSync(cluster.dir, {
      recursive: true, force: true, maxRetries: 20, retryDelay: 50,
    });
  });
  return cluster;
}

async function main([verb, dir = DEV_DIR]) {
  const cluster = new Cluster(path.resolve(dir));

  switch (verb) {
  case 'start':
    if (cluster.alive()) break;
    fs.mkdirSync(cluster.dir, { recursive: true, mode: 0o755 });
    if (!fs.existsSync(path.join(cluster.data, 'PG_VERSION'))) {
      await cluster.create();
    }
    await cluster.start();
    break;
  case 'template':
    console.log(await cluster.template());
    break;
  case 'stop':
    await cluster.destroy();
    break;
  default:
    console.error('usage: cluster.js start|template|stop [DIR]');
    process.exit(2);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main(process.argv.slice(2));
}
