/*
 * The rows as the built server prints them (stoa routes --json), and what
 * tests of all rows need to make of one: paths with ids, values of a field
 * that are right, and the names on the wire.  Nothing here knows a row by
 * its name; what is special about one stands in its columns.
 */

import { execFileSync } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { BUILD, ROOT } from '../harness/index.js';

export const METHODS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'];

/* An id that nothing has. */
export const NONE = '00000000-0000-7000-8000-00000000dead';

export const rows = JSON.parse(execFileSync(path.join(BUILD, 'stoa'),
  ['routes', '--json'], { encoding: 'utf8', maxBuffer: 1 << 26 }));

/* Every role of an account, from the one list in the source. */
export const roles = [...fs.readFileSync(
  path.join(ROOT, 'shared/stoa_jwt.h'), 'utf8')
  .match(/#define STOA_ROLES\(X\)((?:.*\\\n)*.*)/)[1]
  .matchAll(/X\(\w+, "(\w+)"\)/g)].map((m) => m[1]);

for (const row of rows) {
  const [resource, relation] = row.of.split(':');

  row.roles = new Set(row.who.split(','));
  row.public = row.roles.has('public');
  row.resource = relation ? resource : undefined;
  row.relation = relation;
  row.params = [...row.path.matchAll(/:([a-z_]+)/g)].map((m) => m[1]);
  row.query ??= [];
  row.body ??= [];
  row.name = `${row.id} (${row.method} ${row.path})`;
}

export const camel = (name) =>
  name.replace(/_([a-z0-9])/g, (_, c) => c.toUpperCase());

/* The row's path, or another of its paths, with its parameters filled. */
export function fill(template, params = {}) {
  return template.replace(/:([a-z_]+)/g,
    (_, name) => encodeURIComponent(params[name] ?? NONE));
}

export const withQuery = (url, values) => {
  const text = new URLSearchParams(values).toString();

  return text ? `${url}?${text}` : url;
};

/* The query fields that every list has beside its own. */
export const paging = (row) => !row.list ? [] : [
  { name: 'page', type: 'int', min: 1, max: 1000000 },
  { name: 'limit', type: 'int', min: 1, max: row.list.max },
  { name: 'sort', type: 'enum', values: row.list.sorts },
].filter((field) => !row.query.some(({ name }) => name === field.name));

/* Rows by path, as the router sees them. */
export function byPath(list = rows) {
  const paths = new Map();

  for (const row of list) {
    if (!paths.has(row.path)) paths.set(row.path, []);
    paths.get(row.path).push(row);
  }
  return paths;
}

/* What Allow must say about a path. */
export function allow(list) {
  const has = new Set(list.map((row) => row.method));

  return METHODS.filter((m) => has.has(m))
    .flatMap((m) => m === 'GET' ? ['GET', 'HEAD'] : [m])
    .concat('OPTIONS').join(', ');
}

/* ---- values ---- */

const letters = (n) => 'x'.repeat(n);

let days = 400;

/* A right value of a field; each call gives another where that matters, and
   times ascend, so that what begins also ends later. */
export function sample(field) {
  const { type, min = 0, max = 0 } = field;

  switch (type) {
  case 'text':
  case 'secret':
  case 'code':
    return (crypto.randomBytes(8).toString('hex')
      + letters(Math.max(0, min - 16))).slice(0, Math.max(min, max));
  case 'email':
    return `d-${crypto.randomBytes(6).toString('hex')}@test.example`;
  case 'int':
    return Math.max(min, Math.min(max, 10));
  case 'bool':
    return true;
  case 'uuid':
    return NONE;
  case 'time':
    return new Date(Date.now() + ++days * 86400000).toISOString();
  case 'timezone':
    return 'Europe/Prague';
  case 'currency':
    return 'EUR';
  case 'url':
    return 'https://stoa.example/';
  case 'enum':
    return field.values[0];
  case 'list':
    return Array.from({ length: Math.max(1, min) }, () => item(field));
  case 'object':
    return object(field.items);
  default:
    throw new Error(`a field of the type ${type}: say here what is right`);
  }
}

export const item = (field) =>
  field.objects ? object(field.items) : sample(field.items[0]);

/* The required members, and those of `more`; wire names. */
export function object(fields, more = {}) {
  const out = {};

  for (const field of fields) {
    const wire = camel(field.name);

    if (Object.hasOwn(more, field.name)) out[wire] = more[field.name];
    else if (field.required) out[wire] = sample(field);
  }
  return out;
}

/* A whole request of a row that its edge accepts: {method, path, body}. */
export function request(row, { params = {}, of, path: template } = {}) {
  const ids = { ...params };
  const query = object(row.query);
  const spec = { method: row.method };
  let more = {};

  if (of !== undefined && row.ofField) {
    if (row.params.includes(row.ofField)) ids[row.ofField] = of;
    else if (row.query.some((f) => f.name === row.ofField)) {
      query[camel(row.ofField)] = of;
    } else more = { [row.ofField]: of };
  }
  spec.path = withQuery(fill(template ?? row.path, ids), query);

  if (row.bodyKind === 'json') {
    spec.body = object(row.body, more);
  } else if (row.bodyKind === 'form') {
    spec.body = new URLSearchParams(object(row.body, more)).toString();
    spec.headers = { 'Content-Type': 'application/x-www-form-urlencoded' };
  } else if (row.bodyKind === 'raw') {
    spec.body = '{}';
  }
  return spec;
}

/* ---- tokens ---- */

const url64 = (value) => Buffer.from(value).toString('base64url');

/* A token as the edge signs it, of an account that need not exist: gates do
   not ask the database. */
export function mint(app, claims = {}) {
  const now = Math.floor((app.clock.at || Date.now()) / 1000);
  const text = [
    { alg: 'HS256', typ: 'at+jwt', kid: '1' },
    {
      iss: 'stoa', aud: 'stoa', sub: crypto.randomUUID(),
      sid: crypto.randomUUID(), jti: crypto.randomUUID(), iat: now,
      exp: now + 900, ep: 1, roles, ...claims,
    },
  ].map((part) => url64(JSON.stringify(part))).join('.');

  return `${text}.${crypto.createHmac('sha256', app.conf.JWT_SECRET)
    .update(text).digest('base64url')}`;
}

/* ---- what the database holds ---- */

/* How many rows every table has.  Not that of failed sign-ins: the edge
   stores them now and then, on its own. */
export async function counts(app) {
  app.countSql ??= (await app.sql(
    `select string_agg(format('select %L as t, count(*)::int as n from %I.%I',
       schemaname || '.' || tablename, schemaname, tablename), ' union all ')
       || ' order by t' as text
     from pg_tables where schemaname in ('app', 'queue')
       and tablename <> 'auth_throttle'`))[0].text;
  return Object.fromEntries(
    (await app.sql(app.countSql)).map(({ t, n }) => [t, n]));
}
