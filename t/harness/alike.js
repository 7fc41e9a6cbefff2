/*
 * Whether two requests look the same from outside, and cost the same inside:
 * status, bytes, names of headers, and the statements that the log counts.
 * boot() needs LOGGED in nginx.replace.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { until } from './proc.js';

export const LOGGED = [
  ['"db_time_s":"$stoa_db_time"',
    '"db_time_s":"$stoa_db_time","queries":"$stoa_db_queries"'],
  ['"cache":"$stoa_cache_status"',
    '"cache":"$stoa_cache_status","probe":"$http_x_probe"'],
];

/* Of the newest request and of its moment, not of the account. */
const hide = (text) => text
  .replace(/"request_id":"[^"]*"/g, '').replace(/"timestamp":"[^"]*"/g, '');

let probes = 0;

/* What there is to see of POST /auth/<path>; of: {node}, ... */
export async function look(app, path, body, of = {}) {
  const probe = `probe-${++probes}`;
  const res = await app.api('POST', `/api/v1/auth/${path}`,
    { ...of, body, headers: { 'X-Probe': probe } });
  const { dir } = app.nodes[of.node ?? 0];
  /* written after the answer, a whole line at a time */
  const line = JSON.parse(await until(() => fs
    .readFileSync(`${dir}/log/access.log`, 'utf8').split('\n')
    .find((l) => l.includes(`"${probe}"`) && l.endsWith('}')),
  { what: 'the line of the log' }));
  const headers = res.rawHeaders.filter((_, i) => i % 2 === 0);

  return {
    status: res.status, text: hide(res.text), length: res.raw.length, headers,
    queries: line.queries, route: line.route, error: line.error,
  };
}

export async function same(app, path, known, unknown, of) {
  const one = await look(app, path, known, of);
  const other = await look(app, path, unknown, of);

  assert.ok(Number(one.queries) > 0, 'statements are counted');
  assert.deepEqual(one, other);
  return one;
}

/* What this node has done so far: hashes by algorithm, statements. */
export async function numbers(app, of = {}) {
  const res = await app.api('GET', '/metrics', { ...of, validate: false });
  const by = { hashes: 0 };

  for (const line of res.text.split('\n')) {
    const hash = line.match(
      /^stoa_hash_seconds_count\{algorithm="(\w+)".* (\d+)$/);
    const m = line.match(/^(stoa_(?:pg|hash)_\w*total)\S* (\d+)$/);

    if (hash) {
      by[hash[1]] = (by[hash[1]] ?? 0) + Number(hash[2]);
      by.hashes += Number(hash[2]);
    } else if (m && !/connect|wait|busy/.test(m[1])) {
      by[m[1]] = Number(m[2]);
    }
  }
  return by;
}
