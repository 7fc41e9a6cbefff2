/*
 * The columns that change how a row is served, from the rows: development
 * rows are not there in production, only keyed ones honor an
 * Idempotency-Key, where If-Match is required those with .ifMatch ask for it,
 * public reads with .cacheMs are cached and nothing else may be stored.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';
import { mint, request, rows } from './rows.js';

let app, token;

before(async () => {
  app = await boot({ workers: 0, nginxWorkers: 1 });
  const user = await app.user('organizer');

  token = mint(app, { sub: user.id });
});
after(() => app?.stop());

const ask = (from, row, spec = {}) => {
  const made = request(row);

  return from.api(made.method, made.path, { ...made, ...spec,
    headers: { ...made.headers, ...spec.headers },
    token: row.public ? undefined : token, validate: false });
};

test('a development row is not there in production', async () => {
  const prod = await boot({ workers: 0, nginxWorkers: 1, validate: false,
    conf: {
      ENVIRONMENT: 'production', PAYMENT_PROVIDER: 'stripe',
      STRIPE_SECRET_KEY: 'sk_live_not_used_in_this_test',
      SMTP_HOST: '127.0.0.1', SMTP_TLS: 'off',
    } });
  let n = 0;

  try {
    for (const row of rows) {
      for (const path of [row.path, ...row.aliases]) {
        /* a row that is there would say 400 of such an id */
        const spec = request(row, { path, params: Object.fromEntries(
          row.params.map((name) => [name, 'none'])) });
        const res = await prod.api(spec.method, spec.path,
          { ...spec, validate: false });

        if (row.development) {
          assert.equal(res.status, 404, `${row.method} ${path}: ${res.text}`);
          n++;
        } else if (!row.params.length) {
          assert.notEqual(res.status, 404, `${row.method} ${path}`);
        }
      }
    }
  } finally {
    await prod.stop();
  }
  assert.ok(n > 1, `${n} development paths`);
});

test('a keyed row stores its answer once, another row none', async () => {
  let keyed = 0;

  for (const row of rows) {
    if (row.method === 'GET' || row.flow === 'AUTH_LOGOUT') continue;
    const body = request(row);
    const headers = { 'Idempotency-Key': crypto.randomUUID() };
    const was = await app.value('select count(*)::int from app.idempotency');
    const spec = { body: body.body, headers };
    const first = await ask(app, row, spec);
    const again = await ask(app, row, spec);
    const more = await app.value(
      'select count(*)::int from app.idempotency') - was;

    if (!row.keyed) {
      assert.equal(more, 0, row.name);
      assert.equal(again.headers['idempotent-replayed'], undefined, row.name);
      continue;
    }
    if (first.status === 400) {
      assert.fail(`${row.name}: ${first.text}`);
    }
    assert.equal(more, 1, row.name);
    assert.equal(again.status, first.status, row.name);
    assert.equal(again.headers['idempotent-replayed'], 'true', row.name);
    if (first.status < 400) assert.equal(again.text, first.text, row.name);
    keyed++;
  }
  assert.ok(keyed > 8, `${keyed} rows`);
});

test('where If-Match is required, rows that honor it ask for it', async () => {
  const strict = await boot({ workers: 0, nginxWorkers: 1,
    nginx: { server: 'stoa_if_match required;' } });
  let n = 0;

  try {
    const { id } = await strict.user('organizer');
    const own = mint(strict, { sub: id });

    for (const row of rows) {
      if (row.flow === 'AUTH_LOGOUT') continue; /* the token is over then */
      const spec = request(row);
      const tell = (headers) => strict.api(spec.method, spec.path, { ...spec,
        headers: { ...spec.headers, ...headers },
        token: row.public ? undefined : own, validate: false });
      const bare = await tell();
      const code = 'PRECONDITION_REQUIRED';

      assert.equal(bare.status === 428, Boolean(row.ifMatch),
        `${row.name}: ${bare.text}`);
      if (!row.ifMatch) continue;
      assert.equal(bare.error.code, code, row.name);
      assert.notEqual((await tell({ 'If-Match': '*' })).error?.code, code,
        row.name);
      n++;
    }
  } finally {
    await strict.stop();
  }
  assert.ok(n > 5, `${n} rows`);
});

test('only public reads may be stored by others', async () => {
  for (const row of rows.filter((r) => r.method === 'GET')) {
    const res = await ask(app, row);
    const control = res.headers['cache-control'] ?? '';

    if (!row.public) {
      assert.match(control, /no-store|private/, `${row.name}: "${control}"`);
    }
    assert.equal(row.cacheMs > 0 && !row.public, false, row.name);
  }
});
