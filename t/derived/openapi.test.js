/*
 * openapi.json is a valid document (redocly reads it with the rules of the
 * specification), and it is the rows: the same operations, parameters,
 * members, bounds, roles and errors, none more and none less.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createConfig, lintFromString } from '@redocly/openapi-core';
import { boot } from '../harness/index.js';
import { camel, paging, rows } from './rows.js';

let app, doc, text;

before(async () => {
  app = await boot({ workers: 0, nginxWorkers: 1 });
  ({ body: doc, text } = await app.api('GET', '/api/v1/openapi.json'));
});
after(() => app?.stop());

const RULES = Object.fromEntries(['struct', 'no-unresolved-refs',
  'path-parameters-defined', 'path-declaration-must-exist',
  'no-identical-paths', 'no-path-trailing-slash', 'security-defined',
  'operation-operationId-unique', 'operation-parameters-unique',
  'operation-summary', 'no-enum-type-mismatch', 'no-invalid-schema-examples',
  'no-invalid-media-type-examples', 'no-duplicated-tag-names',
].map((name) => [name, 'error']));

const template = (path) =>
  path.replace(/:([a-z_]+)/g, (_, name) => `{${camel(name)}}`);
const operation = (row, from = doc) =>
  from.paths[template(row.path)]?.[row.method.toLowerCase()];

function deref(node) {
  if (!node?.$ref) return node;
  return deref(node.$ref.slice(2).split('/')
    .map((s) => s.replace(/~1/g, '/').replace(/~0/g, '~'))
    .reduce((at, name) => at?.[name], doc));
}

test('redocly finds nothing wrong', async () => {
  const config = await createConfig({ rules: RULES });
  const problems = await lintFromString({ source: text, config });

  assert.deepEqual(problems.map((p) =>
    `${p.severity} ${p.ruleId}: ${p.message} at ` +
    p.location.map((l) => l.pointer).join()), []);
});

test('redocly would find it', async () => {
  const config = await createConfig({ rules: RULES });
  const broken = structuredClone(doc);

  delete broken.info.title;
  operation(rows[0], broken).responses['500'] = { $ref: '#/nowhere' };
  assert.ok((await lintFromString(
    { source: JSON.stringify(broken), config })).length >= 2);
});

test('the server and the program print the same document', async () => {
  assert.deepEqual(JSON.parse(await app.stoa(['openapi'])), doc);
});

test('it lists exactly the rows', () => {
  const listed = Object.entries(doc.paths).flatMap(([path, ops]) =>
    Object.entries(ops).filter(([, op]) => op.operationId)
      .map(([method, op]) =>
        `${method.toUpperCase()} ${path} ${op.operationId}`));
  const wanted = rows.map((r) => `${r.method} ${template(r.path)} ${r.id}`);

  assert.deepEqual(listed.sort(), wanted.sort());
});

test('an operation has the columns of its row', () => {
  for (const row of rows) {
    const op = operation(row);
    const codes = (doc['x-stoa-errors']);

    assert.equal(op.summary, row.summary, row.name);
    assert.deepEqual(op.tags, [row.tag], row.name);
    assert.deepEqual(new Set(op['x-stoa'].who), row.roles, row.name);
    assert.equal(op['x-stoa'].rate, row.rate, row.name);
    assert.equal(op['x-stoa'].keyed, Boolean(row.keyed), row.name);
    assert.ok(op.responses[row.status], `${row.status} of ${row.name}`);
    for (const code of row.errors) {
      const { status } = codes.find((e) => e.code === code);

      assert.ok(op.responses[status] ?? op.responses[`${status}`[0] + 'XX']
        ?? op.responses.default, `${code} of ${row.name}`);
    }
    assert.equal(op.security.some((s) => !Object.keys(s).length), row.public,
      `security of ${row.name}`);
  }
});

test('every JSON answer says what its data holds', () => {
  let n = 0;

  for (const row of rows) {
    for (const [status, res] of Object.entries(operation(row).responses)) {
      const schema = deref(res).content?.['application/json']?.schema;

      if (status[0] !== '2' || !schema
        || row.media === 'bare') continue; /* no envelope */

      const data = schema.allOf?.[1].properties?.data;
      const object = deref(data?.type === 'array' ? data.items : data);

      assert.ok(object?.properties, `${status} of ${row.name}`);
      assert.equal(schema.allOf[0].$ref.endsWith('/Page'), Boolean(row.list),
        row.name);
      if (row.list) assert.equal(data.type, 'array', row.name);
      for (const name of object.required ?? []) {
        assert.ok(object.properties[name], `${name} of ${row.name}`);
      }
      n++;
    }
  }
  assert.ok(n > 45, `${n} answers`);
});

test('304 and If-None-Match go together, and with an ETag', async () => {
  const listed = rows.filter((row) => operation(row).responses['304']);

  for (const row of rows) {
    const params = (operation(row).parameters ?? []).map(deref);

    assert.equal(params.some((p) => p.name === 'If-None-Match'),
      listed.includes(row), row.name);
  }
  for (const id of ['events.list', 'events.get', 'users.me', 'system.openapi']) {
    assert.ok(listed.some((row) => row.id === id), id);
  }
  assert.ok(listed.every((row) => row.method === 'GET'));

  const first = await app.api('GET', '/api/v1/events?limit=1');
  const again = await app.api('GET', '/api/v1/events?limit=1',
    { headers: { 'If-None-Match': `"other", ${first.headers.etag}` } });
  const other = await app.api('GET', '/api/v1/events?limit=1',
    { headers: { 'If-None-Match': '"other"' } });

  assert.match(first.headers.etag, /^"[0-9a-f]{32}"$/);
  assert.equal(again.status, 304);
  assert.equal(again.headers.etag, first.headers.etag);
  assert.equal(other.status, 200);
});

test('parameters are those of path, query and list', () => {
  for (const row of rows) {
    const all = (operation(row).parameters ?? []).map(deref);
    const of = (where) => new Set(all.filter((p) => p.in === where)
      .map((p) => p.name));
    const fields = [...row.query, ...paging(row)];
    const query = fields.map((f) => camel(f.name));

    if (row.list) query.push('cursor');
    assert.deepEqual(of('path'), new Set(row.params.map(camel)),
      row.name);
    assert.deepEqual(of('query'), new Set(query), row.name);
    for (const field of fields) {
      const p = all.find((q) => q.name === camel(field.name));

      assert.equal(Boolean(p.required), Boolean(field.required), row.name);
      checkField(deref(p.schema), field, `${p.name} of ${row.name}`);
    }
  }
});

test('a body has the members of its row, with their bounds', () => {
  let n = 0;

  for (const row of rows) {
    const { requestBody } = operation(row);

    if (!row.body.length) continue;
    const [media] = Object.values(deref(requestBody).content);

    checkMembers(deref(media.schema), row.body, row.name);
    n++;
  }
  assert.ok(n > 15, `${n} bodies`);
});

function checkMembers(schema, fields, what) {
  assert.deepEqual(new Set(Object.keys(schema.properties)),
    new Set(fields.map((f) => camel(f.name))), what);
  assert.deepEqual(new Set(schema.required ?? []),
    new Set(fields.filter((f) => f.required).map((f) => camel(f.name))), what);
  assert.equal(schema.additionalProperties, false, what);
  for (const field of fields) {
    checkField(deref(schema.properties[camel(field.name)]), field,
      `${field.name} of ${what}`);
  }
}

function checkField(schema, field, what) {
  const bounds = {
    int: ['minimum', 'maximum'], list: ['minItems', 'maxItems'],
    text: ['minLength', 'maxLength'], secret: ['minLength', 'maxLength'],
  }[field.type];

  if (bounds) {
    assert.equal(schema[bounds[0]] ?? 0, field.min ?? 0, `minimum: ${what}`);
    assert.equal(schema[bounds[1]], field.max, `maximum: ${what}`);
  }
  if (field.type === 'enum') {
    assert.deepEqual((schema.enum ?? []).filter((v) => v !== null),
      field.values, what);
  }
  if (field.type === 'list' && field.objects) {
    checkMembers(deref(schema.items), field.items, what);
  }
  if (field.type === 'object') checkMembers(schema, field.items, what);
}
