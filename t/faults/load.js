/*
 * What the fault tests share: requests without a limit of sockets, clients
 * that go on until they are told to stop, and locks that make statements
 * sleep for as long as a test needs them to.
 */

import http from 'node:http';
import { send } from '../harness/http.js';
import { sleep, until } from '../harness/index.js';

const agent = new http.Agent({ keepAlive: false, maxSockets: Infinity });

/* Each on a connection of its own, "Connection: close". */
export function fire(app, method, path, spec = {}) {
  return send(app.base, agent, { ...spec, method, path });
}

/* Its outcome as it stands: undefined while it runs. */
export function watch(promise) {
  const seen = { promise, done: undefined, failed: undefined };

  promise.then((res) => { seen.done = res; }, (e) => { seen.failed = e; });
  return seen;
}

/*
 * n clients call fn(i, k) again and again until stop(); what fn throws is
 * counted, not fatal.  Gives {results, errors} of all of them.
 */
export function load(n, fn) {
  const out = { results: [], errors: [] };
  let stopped = false;

  const clients = Array.from({ length: n }, async (_, i) => {
    for (let k = 0; !stopped; k++) {
      try {
        out.results.push(await fn(i, k));
      } catch (error) {
        out.errors.push(error);
      }
    }
  });

  return {
    out,
    async stop() {
      stopped = true;
      await Promise.all(clients);
      return out;
    },
  };
}

/* How often each status was answered: {200: 12, ...}. */
export function tally(results) {
  const counts = {};

  for (const { status } of results) counts[status] = (counts[status] ?? 0) + 1;
  return counts;
}

/*
 * Holds a table so that statements on it sleep; let() lets them go.  The
 * client is a superuser's connection of the test.
 */
export async function hold(app, table, mode = 'access exclusive') {
  const client = await app.client();

  await client.query('begin');
  await client.query(`lock table ${table} in ${mode} mode`);

  return {
    let: () => client.query('rollback'),
  };
}

/* Pids of the edge's backends that wait for a lock. */
export async function sleepers(app, event = '%') {
  const rows = await app.sql(
    `select pid from pg_stat_activity
     where usename = 'stoa_edge' and datname = $1 and state = 'active'
       and wait_event_type = 'Lock' and wait_event like $2`,
    [app.id, event]);

  return rows.map((row) => row.pid);
}

export const asleep = (app, n, event) => until(
  async () => {
    const pids = await sleepers(app, event);

    return pids.length >= n && pids;
  },
  { what: `${n} backends to wait for a lock` });

export async function kill(app, pids) {
  await app.sql('select pg_terminate_backend(p) from unnest($1::int[]) p',
    [pids]);
}

/* Sum of a metric over its labels. */
export async function metric(app, name) {
  const res = await fire(app, 'GET', '/metrics');
  let sum = 0;

  for (const line of res.text.split('\n')) {
    const match = line.match(/^([a-z_]+)(?:\{.*\})? ([0-9.e+-]+)$/);

    if (match?.[1] === name) sum += Number(match[2]);
  }
  return sum;
}

/* Until nothing of the edge is on its way to PostgreSQL. */
export const idle = (app) => until(async () =>
  await metric(app, 'stoa_pg_in_flight') === 0
  && await metric(app, 'stoa_pg_waiting') === 0,
{ timeout: 15000, what: 'the pools to be empty' });

export const ready = (app) => until(
  async () => (await fire(app, 'GET', '/health/ready')).status === 200,
  { timeout: 20000, what: 'the edge to be ready' });

export { sleep, until };
