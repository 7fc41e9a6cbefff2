/*
 * Rate classes, from the rows: with three requests per hour in every class,
 * each row lets three pass and refuses the fourth, counts by what its class
 * counts by (the address for those without a token, for sign-ins and for
 * refresh tokens that were not made here, the account for the others), and
 * rows of class "none" never refuse.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';
import { fill, mint, request, rows } from './rows.js';

const PER_HOUR = 3;
const CLASSES = ['auth', 'refresh', 'read', 'write', 'scan'];

let app, host = 0;

before(async () => {
  app = await boot({
    workers: 0, nginxWorkers: 1,
    nginx: {
      /* an address per test: what a proxy says counts */
      http: 'set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For;',
      replace: [[/rate=1000000\/m burst=1000000/,
        `rate=${PER_HOUR}/1h burst=${PER_HOUR}`]],
    },
  });
});
after(() => app?.stop());

const address = () => {
  host++;
  return `10.7.${host >> 8}.${host & 255}`;
};

/* By what the gate knows a client: {token, from}. */
const stranger = () => ({ from: address() });
const someone = () => ({ from: address(), token: mint(app) });

function ask(row, { from, token }) {
  const spec = request(row);

  if (row.rate === 'refresh') spec.body = { refreshToken: 'not made here' };

  return app.api(spec.method, spec.path, { ...spec, token, validate: false,
    headers: { ...spec.headers, 'X-Forwarded-For': from } });
}

function refused(res, row) {
  const { headers } = res;
  const wait = Number(headers['retry-after']);

  assert.equal(res.status, 429, `${row.name}: ${res.text}`);
  assert.equal(res.error.code, 'RATE_LIMITED', row.name);
  const [, reset] = new RegExp(`^"${row.rate}";r=0;t=(\\d+)$`)
    .exec(headers.ratelimit) ?? assert.fail(`${row.name}: ${headers.ratelimit}`);

  /* never earlier; those behind one address are spread by a minute at most */
  assert.ok(reset >= 1 && reset <= 3600 / PER_HOUR * cost(row),
    `${row.name}: ${headers.ratelimit}`);
  assert.ok(Number.isInteger(wait) && wait >= reset && wait - reset <= 60,
    `${row.name}: Retry-After ${headers['retry-after']}`);
  assert.deepEqual(res.error['violated-policies'], [row.rate], row.name);
  assert.equal(headers['ratelimit-policy'],
    `"${row.rate}";q=${PER_HOUR};w=3600`, row.name);
}

/* What takes more than there is takes all of it. */
const cost = (row) => Math.min(row.cost, PER_HOUR);

/* Three pass, or fewer of what costs more; the next is refused. */
async function exhaust(row, who) {
  for (let i = 0; i < Math.floor(PER_HOUR / cost(row)); i++) {
    const res = await ask(row, who);

    assert.notEqual(res.status, 429, `${row.name}: ${res.text}`);
    assert.equal(res.headers.ratelimit?.split(';t')[0],
      `"${row.rate}";r=${PER_HOUR - (i + 1) * cost(row)}`, row.name);
  }
  refused(await ask(row, who), row);
}

/* Signing in is counted by address whoever does it; the rest by account
   when there is one. */
const byAddress = (row) => row.rate === 'auth'
  || (row.public && row.rate !== 'scan');

test('the classes are those that are configured', () => {
  const used = new Set(rows.map((row) => row.rate));

  for (const name of used) {
    assert.ok([...CLASSES, 'none'].includes(name), name);
  }
  for (const name of CLASSES) assert.ok(used.has(name), name);
});

test('without a token a row counts by address', async () => {
  let n = 0;

  for (const row of rows) {
    if (!byAddress(row) || row.rate === 'none') continue;
    const who = stranger();

    await exhaust(row, who);
    assert.notEqual((await ask(row, stranger())).status, 429,
      `${row.name}: another address`);
    n++;
  }
  assert.ok(n > 8, `${n} rows`);
});

test('with a token a row counts by account, not by address', async () => {
  let n = 0;

  for (const row of rows) {
    if (row.rate === 'auth' || row.rate === 'none' || row.public) continue;
    const who = someone();

    await exhaust(row, who);
    assert.notEqual((await ask(row, { ...someone(), from: who.from })).status,
      429, `${row.name}: another account behind the address`);
    refused(await ask(row, { ...who, from: address() }), row);
    n++;
  }
  assert.ok(n > 30, `${n} rows`);
});

test('a device counts by itself', async () => {
  const row = rows.find((r) => r.roles.has('device') && r.rate === 'scan');
  const token = mint(app, { sub: crypto.randomUUID() });

  await exhaust(row, { token, from: address() });
});

test('a row takes of its class what it costs', async () => {
  const dear = rows.filter((row) => row.cost > 1);

  assert.ok(dear.length > 0, 'no row has a cost');
  for (const row of dear) {
    const who = someone();
    const cheap = rows.find((r) => r.rate === row.rate && r.cost === 1
      && !r.public);

    await exhaust(row, who);
    refused(await ask(cheap, who), cheap);
  }
});

test('classes do not touch each other', async () => {
  const who = someone();
  const one = (rate) => rows.find((row) => row.rate === rate && !row.public
    && row.cost === 1);

  for (const rate of ['read', 'write', 'scan']) {
    await exhaust(one(rate), who);
  }
  for (const row of rows.filter((r) => r.rate === 'none')) {
    for (let i = 0; i < 4 * PER_HOUR; i++) {
      const res = await ask(row, who);

      assert.notEqual(res.status, 429, row.name);
      assert.equal(res.headers.ratelimit, undefined, row.name);
    }
  }
});

test('another path of a row counts as the row', async () => {
  for (const row of rows) {
    if (row.rate === 'none' || row.rate === 'auth' || row.public
      || !row.aliases.length) continue;
    const who = someone();

    await exhaust(row, who);
    for (const alias of row.aliases) {
      const res = await app.api(row.method, fill(alias),
        { token: who.token, validate: false });

      refused(res, row);
    }
  }
});

test('what leads nowhere, or has a bad token, counts by address', async () => {
  for (const [path, more] of [['/api/v1/nothing', {}],
    ['/api/v1/users/me', { Authorization: 'Bearer x.y.z' }]]) {
    const headers = { ...more, 'X-Forwarded-For': address() };

    for (let i = 0; i < PER_HOUR; i++) {
      const res = await app.api('GET', path, { headers, validate: false });

      assert.ok([404, 401].includes(res.status), res.text);
    }
    assert.equal((await app.api('GET', path,
      { headers, validate: false })).status, 429, path);
  }
});
