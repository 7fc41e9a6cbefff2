/*
 * Prepared statements, from the rows: stoa check --db prepares every one as
 * the role that runs it, and names the rows of whatever is missing.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { ROOT, boot } from '../harness/index.js';
import { rows } from './rows.js';

/* The statements that no row holds: [{name, flow, calls}]. */
const flows = [...fs.readFileSync(
  path.join(ROOT, 'shared/api/stoa_flow.c'), 'utf8')
  .matchAll(/\[STOA_STMT_\w+\] = \{\n([^]*?)\n {4}\},\n/g)]
  .map(([, text]) => ({
    name: text.match(/\.name = "(\w+)"/)[1],
    flow: text.match(/\.flow = STOA_FLOW_(\w+)/)?.[1],
    calls: text.match(/\bapi\.(\w+)\(/)?.[1] ?? 'idem_begin',
  }));

/* What the command calls such a statement. */
const called = ({ flow, name }) =>
  `${flow ? `flow ${flow}, ` : ''}statement ${name}`;

let app;

before(async () => { app = await boot({ workers: 0, nginxWorkers: 1 }); });
after(() => app?.stop());

/* What stoa check --db says, and whether it refuses. */
async function check() {
  try {
    return { failed: false, text: await app.stoa(['check', '--db']) };
  } catch (error) {
    return { failed: true, text: error.message };
  }
}

/* The rows that a report names. */
const named = (text) => rows.filter(({ id }) =>
  new RegExp(`: ${id.replaceAll('.', '\\.')}: `).test(text))
  .map(({ id }) => id).sort();

const uses = (name) => rows.filter((r) =>
  new RegExp(`\\bapi\\.${name}\\b`).test(r.sql ?? ''))
  .map(({ id }) => id).sort();

/* Every function of schema api that a row's statement calls. */
async function functions() {
  const all = (await app.sql(
    `select proname as name from pg_proc p
     join pg_namespace n on n.oid = p.pronamespace
     where n.nspname = 'api' group by proname
     having count(*) = 1`)).map(({ name }) => name);

  return all.filter((name) => uses(name).length);
}

const rename = (name, to) => app.sql(`do $$ declare f regprocedure; begin
  select p.oid into strict f from pg_proc p
  where p.pronamespace = 'api'::regnamespace and p.proname = '${name}';
  execute format('alter function %s rename to ${to}', f); end $$`);

test('every statement of every row can be prepared', async () => {
  const { failed, text } = await check();

  assert.equal(failed, false, text);
  assert.match(text, new RegExp(`\\b${rows.length} endpoints\\b`));

  const prepared = Number(text.match(/(\d+) statements prepared/)[1]);
  const wanted = rows.reduce((n, r) => n
    + (r.sql ? 1 + Boolean(r.keyed) : 0)
    + (r.list ? 2 * r.list.sorts.length : 0), flows.length);

  assert.ok(prepared >= wanted, `${prepared} prepared, rows have ${wanted}`);
});

test('a function that is gone is told with its row', async () => {
  const list = await functions();

  assert.ok(list.length > 20, `${list.length} functions`);
  for (const name of list) {
    await rename(name, `${name}_gone`);
    const { failed, text } = await check();

    await rename(`${name}_gone`, name);
    assert.ok(failed, `${name} is gone and nothing was said`);
    assert.deepEqual(named(text), uses(name), text);
    assert.ok(text.includes(name), text);
  }
});

test('a function that a flow calls is told with the flow', async () => {
  const used = new Set(rows.map((r) => r.flow).filter(Boolean));

  assert.ok(flows.length > 15, `${flows.length} statements`);
  for (const { flow } of flows) {
    assert.ok(!flow || used.has(flow), `no row has the flow ${flow}`);
  }
  for (const statement of flows) {
    const { calls } = statement;

    if (calls === 'idem_begin') continue; /* that all keyed rows call */
    const same = flows.filter((other) => other.calls === calls);

    await rename(calls, `${calls}_gone`);
    await app.sql(`create function api.${calls}(a int, b int, c int)
      returns int language sql as 'select 1'`);
    const { failed, text } = await check();

    await app.sql(`drop function api.${calls}(int, int, int)`);
    await rename(`${calls}_gone`, calls);
    assert.ok(failed, `${calls} is another and nothing was said`);
    assert.deepEqual(named(text), uses(calls), text);
    assert.deepEqual(flows.filter((one) => new RegExp(
      `: ${called(one)}: .*api\\.${calls}\\(`).test(text)), same, text);
  }
  assert.equal((await check()).failed, false);
});

test('a view that is gone is told with every row that reads it', async () => {
  const views = (await app.sql(`select viewname as name from pg_views
    where schemaname = 'api'`)).map(({ name }) => name);
  let n = 0;

  for (const name of views) {
    const direct = uses(name);

    if (!direct.length) continue;
    n++;
    await app.sql(`alter view api.${name} rename to ${name}_gone`);
    const { failed, text } = await check();

    await app.sql(`alter view api.${name}_gone rename to ${name}`);
    assert.ok(failed, name);
    for (const id of direct) {
      assert.ok(named(text).includes(id), `${id} of ${name}: ${text}`);
    }
  }
  assert.ok(n > 2, `${n} views`);
  assert.equal((await check()).failed, false);
});
