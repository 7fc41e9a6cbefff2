/*
 * Each rule of style.js on a text that breaks it and on one that does not:
 * a checker that finds nothing anywhere would pass every tree.
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const HERE = path.dirname(fileURLToPath(import.meta.url));
const ROOT = path.resolve(HERE, '../..');
const made = [];

after(() => made.forEach((f) => fs.rmSync(f, { force: true })));

const OPENING = '/*\n * What this file is for.\n *\n * And what not.\n */\n\n';
let n = 0;

/*
 * What style.js says of this text, had it stood in that folder.  A dot file:
 * who builds or migrates at this moment passes over it.
 */
function lint(folder, ext, text) {
  const file = `${folder}/.lint_${process.pid}_${++n}.${ext}`;

  made.push(path.join(ROOT, file));
  fs.writeFileSync(path.join(ROOT, file), text);
  try {
    execFileSync(process.execPath, [path.join(HERE, 'style.js'), file]);
    return '';
  } catch (error) {
    return error.stdout.toString();
  } finally {
    fs.rmSync(path.join(ROOT, file), { force: true });
  }
}

const c = (body, folder = 'shared') => lint(folder, 'c', OPENING + body);
const lines = (k) => Array.from({ length: k }, () => '    f();\n').join('');

test('a clean file passes', () => {
  assert.equal(c('int\nf(void)\n{\n    return 0; /* "//" */\n}\n'), '');
});

for (const [rule, text] of Object.entries({
  tab: 'int\ta;\n',
  space: 'int a; \n',
  columns: `int ${'a'.repeat(80)};\n`,
  ascii: '/* \u00e9 */\n',
  end: 'int a;',
  comment: 'int a; // no\n',
  banned: 'int a = atoi("1");\n',
  unfinished: `/* ${'TO' + 'DO'}: later */\n`,
  secret: 'int a = memcmp(mac, sent, 32) == 0;\n',
  function: `int\nf(void)\n{\n${lines(100)}}\n`,
  length: 'int a;\n'.repeat(1000),
})) {
  test(`found: ${rule}`, () => assert.match(c(text), new RegExp(`\\(${rule}\\)`)));
}

test('a banned word in a comment or text is none', () => {
  assert.equal(c('/* atoi(x) */\nconst char *a = "atoi(x)";\n'), '');
  assert.equal(c('int a = my_atoi("1");\n'), '');
});

test('found: opening', () => {
  assert.match(lint('shared', 'c', 'int a;\n'), /\(opening\)/);
});

test('found: guard', () => {
  assert.match(lint('shared', 'h', '#ifndef A\n#define A\n#endif\n'),
    /\(guard\)/);
});

test('found: layers and doors', () => {
  assert.match(c('#include "../workers/worker.h"\n'), /may not include/);
  assert.match(c('#include <libpq-fe.h>\n'), /\(door\)/);
  assert.match(c('#include <uv.h>\n', 'workers'), /\(door\)/);
  assert.match(c('#include <ngx_core.h>\n', 'workers'), /\(door\)/);
  assert.equal(c('#include "stoa.h"\n#include <stdio.h>\n'), '');
});

test('found: sending elsewhere', () => {
  assert.match(c('int a = ngx_http_send_header(r);\n', 'ngx_module'),
    /\(reply\)/);
});

test('found: another clock in SQL, and not app.now()', () => {
  assert.match(lint('migrations', 'sql', 'select now();\n'), /\(clock\)/);
  assert.match(lint('migrations', 'sql', 'select CURRENT_TIMESTAMP;\n'),
    /\(clock\)/);
  assert.equal(lint('migrations', 'sql',
    "select app.now(); -- now()\nselect 'now()';\n"), '');
  assert.equal(lint('migrations', 'sql',
    'create function app.now() returns timestamptz language sql as\n' +
    '$$ select pg_catalog.now() $$;\n'), '');
});

test('found: SECURITY DEFINER without search_path', () => {
  const f = (more) => `create function a.b() returns int language sql
security definer ${more} as $$ select 1 $$;\n`;

  assert.match(lint('migrations', 'sql', f('')), /\(definer\)/);
  assert.equal(lint('migrations', 'sql',
    f('set search_path = pg_catalog, pg_temp')), '');
});

test('a permission holds for its rule only, and must be needed', () => {
  assert.equal(c('/* lint: allow banned, because */\nint a = atoi("1");\n'),
    '');
  assert.match(c('/* lint: allow tab, because */\nint a = atoi("1");\n'),
    /\(banned\)/);
  assert.match(c('/* lint: allow banned, because */\nint a;\n'),
    /nothing needs this permission/);
});
