/*
 * The worker pool alone: a database copied from the template, a Redis of its
 * own with an append-only file, and stoa work, without an edge.  Task
 * functions are replaced by ones that count what they do, so these tests are
 * about the engine, not about any task.
 */

import fs from 'node:fs';
import path from 'node:path';
import Redis from 'ioredis';
import pg from 'pg';
import { ownCluster, theCluster } from '../harness/cluster.js';
import { confText, testConf } from '../harness/conf.js';
import { BUILD, Proc, ROOT, run, sleep, tempDir, until } from '../harness/proc.js';
import { rows } from './points.js';

let made = 0;

/*
 * test.work does what the payload says: {"mode":"ok"}, "fail" (so many times,
 * "times"), "sleep" ("s"), "dead", "snooze" (once).  A row of test.effects is
 * the effect, test.starts counts every call.
 */
const DOUBLES = `
create schema test;
create table test.effects (id bigint, kind text, at timestamptz default clock_timestamp());
create sequence test.starts;
create table test.fails (id bigint primary key, n int not null);
create unlogged table test.slots (id bigint, uniq text);

create function test.work(task bigint, kind text, p jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform nextval('test.starts');
  insert into test.slots select o.id, o.uniq from queue.outbox o where o.id = task;
  if p->>'mode' = 'sleep' then perform pg_sleep((p->>'s')::float8); end if;
  if p->>'mode' = 'dead' and p->>'once' is null then
    return '{"result":"dead","reason":"told so"}';
  end if;
  if not queue.done(task) then return '{"result":"done"}'; end if;
  insert into test.effects values (task, kind);
  return jsonb_build_object('result', 'done', 'reply',
    jsonb_build_object('id', task, 'text', 'a "quoted" ü'));
end $$;

create function test.flaky(task bigint, kind text, p jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare c int;
begin
  c := nextval('test.tries');
  if c <= (p->>'times')::int then raise exception 'not yet %', c; end if;
  return test.work(task, kind, p);
end $$;
create sequence test.tries;

grant usage on schema test to stoa_worker;
`;

const KINDS = rows.map((row) => row.sql).filter(Boolean);

const doubleOf = (name) => `
create or replace function task.${name}(id bigint, payload jsonb) returns jsonb
language sql security definer set search_path = pg_catalog, pg_temp as
$$ select case when payload->>'mode' = 'fail'
     then test.flaky(id, '${name}', payload)
     else test.work(id, '${name}', payload) end $$;
alter function task.${name}(bigint, jsonb) owner to postgres;
grant execute on function task.${name}(bigint, jsonb) to stoa_worker;
`;

export class Engine {
  /* conf, env: of stoa work; cluster: options of its own; lease: ms of every lease */
  constructor({ conf = {}, env = {}, cluster, lease = 1500, processes = 1 } = {}) {
    this.options = { conf, env, cluster, lease, processes };
    this.dir = tempDir('stoa-engine-');
    this.id = `stoa_e_${process.pid}_${++made}`;
    this.pools = [];
    for (const name of ['run', 'log', 'mail', 'redis']) {
      fs.mkdirSync(path.join(this.dir, name));
    }
    fs.writeFileSync(path.join(this.dir, 'clock'), Buffer.alloc(8));
  }

  async start() {
    const { conf, cluster, processes } = this.options;

    this.cluster = cluster ? await ownCluster(cluster) : await theCluster();
    this.redisSocket = path.join(this.dir, 'run', 'redis.sock');
    this.conf = {
      ...testConf({
        dir: this.dir, database: this.id, pgDir: this.cluster.data,
        redis: this.redisSocket, url: 'http://127.0.0.1:1', workers: processes,
      }),
      ...conf,
    };
    this.confFile = path.join(this.dir, 'stoa.conf');
    fs.writeFileSync(this.confFile, confText(this.conf), { mode: 0o600 });
    await Promise.all([this.cluster.copy(this.id), this.startRedis()]);
    this.pool = new pg.Pool({ ...this.cluster.config(this.id), max: 4 });
    this.pool.on('error', () => {});
    await this.sql(DOUBLES);
    for (const name of KINDS) await this.sql(doubleOf(name));
    return this;
  }

  async startRedis() {
    this.redisProc = new Proc('redis', '/usr/bin/redis-server', [
      '--port', '0', '--unixsocket', this.redisSocket,
      '--dir', path.join(this.dir, 'redis'), '--save', '',
      '--appendonly', 'yes', '--appendfsync', 'everysec', '--daemonize', 'no',
    ], { log: path.join(this.dir, 'log', 'redis.log') });
    this.redis ??= new Redis({
      path: this.redisSocket, retryStrategy: () => 50,
      maxRetriesPerRequest: null,
    }).on('error', () => {});
    await this.redisProc.ready(() => this.redis.ping(), 'redis to answer');
  }

  /* One more pool of workers. */
  work(env = {}, log = `worker${this.pools.length}.log`) {
    const proc = new Proc('stoa work', path.join(BUILD, 'stoa'),
      ['work', '--log', 'info'], {
        log: path.join(this.dir, 'log', log),
        cwd: ROOT,
        env: {
          STOA_CONF: this.confFile,
          STOA_TEST_LEASE: String(this.options.lease),
          ...this.options.env, ...env,
        },
      });

    proc.planted = Boolean(env.STOA_CRASH ?? this.options.env?.STOA_CRASH);
    this.pools.push(proc);
    return proc;
  }

  stoa(args, options) {
    return run(path.join(BUILD, 'stoa'), args, {
      cwd: ROOT, ...options, env: { STOA_CONF: this.confFile },
    });
  }

  async sql(text, params) {
    return (await this.pool.query(text, params)).rows;
  }

  async value(text, params) {
    const [row] = await this.sql(text, params);

    return row && Object.values(row)[0];
  }

  /* n tasks of a kind in one transaction; their ids. */
  async enqueue(kind, payload = { mode: 'ok' }, n = 1, replyTo = null) {
    const rows = await this.sql(
      `select queue.enqueue($1, $2::jsonb, null, null, $4) as id
       from generate_series(1, $3::int)`,
      [kind, JSON.stringify(payload), n, replyTo]);

    await this.redis.lpush('stoa:{outbox}:w', '1');
    return rows.map((r) => r.id);
  }

  effects(ids) {
    return this.value(
      'select count(*)::int from test.effects where id = any($1)', [ids]);
  }

  async done(ids, timeout = 20000) {
    await until(async () => (await this.value(
      `select count(*)::int from queue.outbox
       where id = any($1) and state < 2`, [ids])) === 0,
    { timeout, what: `${ids.length} tasks to end` });
  }

  /* Effects that happened twice: always empty. */
  twice() {
    return this.sql(`select id, count(*)::int as n from test.effects
      group by id having count(*) > 1`);
  }

  /* Processes of a pool. */
  children(proc) {
    const file = `/proc/${proc.pid}/task/${proc.pid}/children`;

    return fs.readFileSync(file, 'utf8').trim().split(' ').filter(Boolean)
      .map(Number);
  }

  log() {
    return fs.readdirSync(path.join(this.dir, 'log'))
      .filter((f) => f.startsWith('worker'))
      .map((f) => fs.readFileSync(path.join(this.dir, 'log', f), 'utf8'))
      .join('');
  }

  async stop() {
    const problems = [];

    for (const proc of this.pools) {
      const before = proc.over;

      await proc.stop();
      /* a planted crash may come when the pool is stopping already */
      if (!before && proc.code !== 0 && !(proc.planted && proc.code === 1)) {
        problems.push(`${proc.name} ended with ${proc.code ?? proc.signal}`);
      }
    }
    for (const line of this.log().split('\n')) {
      if (/\[(alert|emerg)\]|Sanitizer|runtime error:|stoa: bug/.test(line)) {
        problems.push(line);
      }
    }
    await this.pool?.end().catch(() => {});
    this.redis?.disconnect();
    await this.redisProc?.stop('SIGTERM', 5000);
    if (this.cluster?.alive()) await this.cluster.drop(this.id);
    if (this.options.cluster) await this.cluster?.destroy();
    if (process.env.STOA_KEEP) console.error(`kept: ${this.dir}`);
    else fs.rmSync(this.dir, { recursive: true, force: true, maxRetries: 5 });
    if (problems.length) throw new Error(problems.join('\n'));
  }
}

export { ROOT, run, sleep, until };
