/*
 * Prepared statements, from the rows: stoa check --db prepares every one as
 * the role that runs it, and names the rows of whatever is missing.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';
import { rows } from './rows.js';

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
    + (r.list ? 2 * r.list.sorts.length : 0), 0);

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
