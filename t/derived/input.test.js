/*
 * Validation, from the rows: one fault at a time in an otherwise right
 * request, for every field of every row, at every depth: 400 with the pointer
 * of that field and its code, and nothing is changed.  What lies on a bound
 * is not refused for it.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';
import {
  NONE, camel, counts, fill, item, mint, object, paging, rows, sample,
  withQuery,
} from './rows.js';

let app, token;

before(async () => {
  app = await boot({ workers: 0, nginxWorkers: 1 });
  const user = await app.user();

  token = mint(app, { sub: user.id });
});
after(() => app?.stop());

const SNAKE = /_([a-z])/;
const text = (n) => 'x'.repeat(n);

/* ---- wrong values of a field: [what, value, code, pointer below it] ---- */

function wrong(field) {
  const { type, min = 0, max } = field;
  const all = [];

  switch (type) {
  case 'text':
  case 'secret':
  case 'code':
    if (min > 0) all.push(['too short', text(min - 1), 'too_short']);
    all.push(['too long', text(max + 1), 'too_long'],
      ['a number', 7, 'type'], ['a list', [], 'type']);
    if (field.uncommon) all.push(['common', 'PassWord1', 'too_common']);
    break;
  case 'email':
    all.push(['no address', 'nobody', 'format'], ['a bool', true, 'type']);
    break;
  case 'int':
    all.push(['too small', min - 1, 'too_small'],
      ['too large', max + 1, 'too_large'], ['text', '1', 'type'],
      ['a fraction', 1.5, 'type']);
    break;
  case 'bool':
    all.push(['text', 'true', 'type'], ['a number', 1, 'type']);
    break;
  case 'uuid':
    all.push(['no id', 'x', 'format'], ['a digit short', NONE.slice(1),
      'format'], ['a number', 1, 'type']);
    break;
  case 'time':
    all.push(['a day', '2031-01-01', 'format'], ['no day', 'now', 'format'],
      ['a number', 1900000000, 'type']);
    break;
  case 'timezone':
    all.push(['no zone', '../etc', 'format'], ['a number', 1, 'type']);
    break;
  case 'currency':
    all.push(['small', 'eur', 'format'], ['a number', 978, 'type']);
    break;
  case 'url':
    all.push(['no scheme', 'stoa.example', 'format'],
      ['a script', 'javascript:alert(1)', 'format'], ['a number', 1, 'type']);
    break;
  case 'enum':
    all.push(['unknown', 'no such value', undefined], ['a number', 1, 'type']);
    break;
  case 'list':
    if (min > 0) all.push(['too few', some(field, min - 1), 'too_short']);
    all.push(['too many', some(field, max + 1), 'too_long'],
      ['an object', {}, 'type'],
      ['a wrong item', [field.objects ? 1 : {}], 'type', '/0']);
    for (const inner of field.objects ? members(field.items) : []) {
      all.push([`item: ${inner.what}`, [inner.body], inner.code,
        [inner.pointer].flat().map((p) => `/0${p}`)]);
    }
    break;
  case 'object':
    all.push(['a list', [], 'type']);
    for (const inner of members(field.items)) {
      all.push([inner.what, inner.body, inner.code, inner.pointer]);
    }
    break;
  default:
    throw new Error(`a field of the type ${type}: say here what is wrong`);
  }
  if (!field.nullable) {
    all.push(['null', null, field.required ? 'required' : 'type']);
  }
  return all;
}

const some = (field, n) => Array.from({ length: n }, () => item(field));

/* Every object of these fields with one fault:
   {what, body (a value or the text), pointer, code}. */
function members(fields) {
  const all = [];
  const base = () => object(fields);

  for (const field of fields) {
    const wire = camel(field.name);

    if (field.required) {
      const body = base();

      delete body[wire];
      all.push({ what: `no ${wire}`, body, pointer: `/${wire}`,
        code: 'required' });
    }
    for (const [what, value, code, below = ''] of wrong(field)) {
      all.push({ what: `${wire}: ${what}`, body: { ...base(), [wire]: value },
        pointer: [below].flat().map((p) => `/${wire}${p}`), code });
    }
    if (SNAKE.test(field.name)) {
      all.push({ what: `${wire} in both spellings`,
        body: { ...base(), [wire]: sample(field), [field.name]: sample(field) },
        pointer: [`/${field.name}`, `/${wire}`], code: 'duplicate' });
    }
  }
  all.push({ what: 'an unknown member', body: { ...base(), colour: 'red' },
    pointer: '/colour', code: 'unknown' });
  return all;
}

/* The body of a row as text, with one member twice. */
function twice(fields) {
  return fields.map((field) => {
    const wire = camel(field.name);
    const body = JSON.stringify({ ...object(fields), [wire]: sample(field) });

    return { what: `${wire} twice`, pointer: '', code: 'duplicate',
      body: `${body.slice(0, -1)},"${wire}":${JSON.stringify(sample(field))}}`,
    };
  });
}

/* The same for queries and forms, whose values are all texts. */
function pairs(fields, form, open = false) {
  const at = (name) => form ? `/${name}` : name;
  const all = [];

  for (const field of fields) {
    const wire = camel(field.name);
    const base = object(fields);

    if (field.required) {
      const without = { ...base };

      delete without[wire];
      all.push({ what: `no ${wire}`, text: withQuery('', without).slice(1),
        pointer: at(wire), code: 'required' });
    }
    for (const [what, value, code] of wrong(field)) {
      if (code === 'type' && field.type !== 'int' && field.type !== 'bool') {
        continue;
      }
      if (value === null || typeof value === 'boolean'
        || (field.type === 'int' && value === '1')
        || (field.type === 'bool' && value === 'true')
        || (value === '' && !field.required)) continue;
      all.push({ what: `${wire}: ${what}`,
        text: withQuery('', { ...base, [wire]: value }).slice(1),
        pointer: at(wire), code });
    }
    const one = new URLSearchParams({ [wire]: sample(field) });

    all.push({ what: `${wire} twice`, pointer: at(wire), code: 'duplicate',
      text: `${withQuery('', { ...base, ...Object.fromEntries(one) })
        .slice(1)}&${one}` });
  }
  if (!open) {
    all.push({ what: 'an unknown name', pointer: at('colour'), code: 'unknown',
      text: withQuery('', { ...object(fields), colour: 'red' }).slice(1) });
  }
  return all;
}

/* ---- asking ---- */

const JSON_ = { 'Content-Type': 'application/json' };
const FORM = { 'Content-Type': 'application/x-www-form-urlencoded' };

async function refused(row, fault, spec) {
  const res = await app.api(row.method, spec.path,
    { ...spec, token: row.public ? undefined : token });
  const what = `${row.name}: ${fault.what}`;
  const wanted = [fault.pointer].flat();

  assert.equal(res.status, 400, `${what}: ${res.text}`);
  assert.equal(res.error.code, 'VALIDATION_FAILED', what);

  const found = res.error.errors.filter((e) => wanted.includes(e.pointer));

  assert.ok(found.length, `${what}: ${wanted} in ${res.text}`);
  if (fault.code) {
    assert.ok(found.some((e) => e.code === fault.code),
      `${what}: ${fault.code} in ${res.text}`);
  }
  /* one mistake is one fault, whatever else there is */
  assert.equal(res.error.errors.length, 1, `${what}: ${res.text}`);
}

async function unchanged(row, work) {
  const was = await counts(app);

  await work();
  assert.deepEqual(await counts(app), was, `${row.name} changed something`);
}

const url = (row, query = object(row.query)) =>
  withQuery(fill(row.path), query);

test('bodies: each field, each way to be wrong', async () => {
  let n = 0;

  for (const row of rows.filter((r) => r.bodyKind === 'json')) {
    await unchanged(row, async () => {
      for (const fault of [...members(row.body), ...twice(row.body)]) {
        await refused(row, fault,
          { path: url(row), body: typeof fault.body === 'string'
            ? fault.body : JSON.stringify(fault.body), headers: JSON_ });
        n++;
      }
    });
  }
  assert.ok(n > 300, `${n} faults`);
});

test('bodies: what is no object, or no JSON', async () => {
  for (const row of rows.filter((r) => r.bodyKind === 'json')) {
    await unchanged(row, async () => {
      for (const body of ['[]', '"x"', '1', 'null', '{', '{"a":1,}', '{}{}',
        '\ufeff{}', '{"a":NaN}', '{"a":"\\u0000"}', "{'a':1}"]) {
        const res = await app.api(row.method, url(row),
          { body, headers: JSON_, token: row.public ? undefined : token });

        assert.equal(res.status, 400, `${row.name} ${body}: ${res.text}`);
      }
    });
  }
});

test('forms', async () => {
  for (const row of rows.filter((r) => r.bodyKind === 'form')) {
    await unchanged(row, async () => {
      for (const fault of pairs(row.body, true)) {
        await refused(row, fault,
          { path: url(row), body: fault.text, headers: FORM });
      }
    });
  }
});

test('queries: each field, and names that nobody declared', async () => {
  let n = 0;

  for (const row of rows.filter((r) => !r.verify)) {
    const fields = [...row.query, ...paging(row)];

    await unchanged(row, async () => {
      for (const fault of pairs(fields, false, row.openQuery)) {
        await refused(row, fault, {
          path: `${fill(row.path)}?${fault.text}`,
          ...body(row),
        });
        n++;
      }
    });
  }
  assert.ok(n > 100, `${n} faults`);
});

function body(row) {
  if (row.bodyKind === 'json') return { body: object(row.body) };
  if (row.bodyKind === 'form') {
    return { body: new URLSearchParams(object(row.body)).toString(),
      headers: FORM };
  }
  return row.bodyKind === 'raw' ? { body: '{}' } : {};
}

test('paths: an id that is none', async () => {
  let n = 0;

  for (const row of rows) {
    for (const name of row.params) {
      if (row.pathFields?.some((field) => field.name === name)) continue;
      await unchanged(row, async () => {
        for (const value of ['x', NONE.slice(1), `${NONE}0`, 'a%20b']) {
          await refused(row, { what: `${name} ${value}`, pointer: camel(name),
            code: 'format' }, {
            path: withQuery(row.path.replace(/:([a-z_]+)/g,
              (_, other) => other === name ? value : NONE),
            object(row.query)),
            ...body(row),
          });
          n++;
        }
      });
    }
  }
  assert.ok(n > 50, `${n} faults`);
});

test('what lies on a bound is not refused for it', async () => {
  const fits = (field) => {
    switch (field.type) {
    case 'int':
      return [field.min, field.max];
    case 'text':
    case 'secret':
    case 'code':
      return [text(field.min ?? 0), text(field.max)];
    case 'list':
      return [some(field, field.min ?? 0), some(field, field.max)];
    case 'enum':
      return field.values;
    case 'bool':
      return [true, false];
    default:
      return [sample(field)];
    }
  };
  const ask = async (row, spec, wire, what) => {
    const res = await app.api(row.method, spec.path,
      { ...spec, token: row.public ? undefined : token });

    for (const e of res.error?.errors ?? []) {
      assert.ok(e.pointer !== wire || !/^(too_|type|format|required|enum)/
        .test(e.code), `${row.name}: ${what}: ${res.text}`);
    }
  };

  for (const row of rows) {
    for (const field of row.bodyKind === 'json' ? row.body : []) {
      const wire = camel(field.name);

      for (const value of field.nullable ? [...fits(field), null]
        : fits(field)) {
        await ask(row, { path: url(row),
          body: { ...object(row.body), [wire]: value } }, `/${wire}`,
        `${wire} ${JSON.stringify(value)?.slice(0, 60)}`);
      }
    }
    for (const field of [...row.query, ...paging(row)]) {
      const wire = camel(field.name);

      for (const value of fits(field)) {
        await ask(row, { path: url(row,
          { ...object(row.query), [wire]: value }), ...body(row) }, wire,
        `${wire} ${value}`);
      }
    }
  }
});
