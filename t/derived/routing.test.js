/*
 * Routing, from the rows: every path leads to its row, whatever is near it
 * does not; the methods of a path are what Allow says; HEAD is GET without
 * its body.  Which row answered is read from the metrics, not guessed from
 * the answer.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';
import {
  METHODS, NONE, allow, byPath, fill, mint, request, rows,
} from './rows.js';

let app, token;

before(async () => {
  app = await boot({ workers: 0, nginxWorkers: 1 });
  token = mint(app);
});
after(() => app?.stop());

const ask = (method, path, more = {}) =>
  app.api(method, path, { validate: false, ...more });

/* What a page shares its path with is not below /api. */
const ours = (row) => row.path.startsWith('/api/');

/* Does any path take this one, parameters being anything? */
const matches = (url) => rows.some((row) =>
  new RegExp(`^${row.path.replaceAll('.', '\\.')
    .replace(/:[a-z_]+/g, '[^/]+')}$`).test(url));

function notFound(res, what) {
  assert.equal(res.status, 404, `${what}: ${res.text}`);
  assert.equal(res.error?.code, 'NOT_FOUND', what);
}

/* {route: requests} of everything that was counted. */
async function routes() {
  const { text } = await ask('GET', '/metrics');
  const seen = {};

  for (const [, route, n] of text.matchAll(
    /^stoa_requests_total\{route="([^"]+)",[^}]*\} (\d+)$/gm)) {
    seen[route] = (seen[route] ?? 0) + Number(n);
  }
  return seen;
}

test('there are rows, each with an id of its own', () => {
  assert.ok(rows.length > 50, `${rows.length} rows`);
  assert.equal(new Set(rows.map((r) => r.id)).size, rows.length);
  assert.equal(new Set(rows.map((r) => `${r.method} ${r.path}`)).size,
    rows.length);
});

test('every row is reached by its path, and by no other name', async () => {
  for (const row of rows) {
    const before_ = (await routes())[row.id] ?? 0;
    const spec = request(row);

    await ask(spec.method, spec.path,
      { ...spec, token: row.public ? undefined : token });
    assert.equal((await routes())[row.id], before_ + 1, row.name);
  }
});

test('every other path of a row leads to it', async () => {
  for (const row of rows) {
    for (const alias of row.aliases) {
      const before_ = (await routes())[row.id];
      const spec = request(row, { path: alias });

      await ask(spec.method, spec.path,
        { ...spec, token: row.public ? undefined : token });
      assert.equal((await routes())[row.id], before_ + 1,
        `${row.method} ${alias}`);
    }
  }
});

test('what is near a path is 404 in the envelope', async () => {
  for (const [path, list] of byPath()) {
    if (!ours(list[0])) continue;
    const url = fill(path);
    const { method } = list[0];

    notFound(await ask(method, `${url}/`, { token }), `${url}/`);
    notFound(await ask(method, `${url}/nothing/more`, { token }),
      `${url}/nothing/more`);
    notFound(await ask(method, `/x${url}`, { token }), `/x${url}`);
    notFound(await ask(method, url.toUpperCase(), { token }),
      url.toUpperCase());
    if (!matches(`${url}x`)) {
      notFound(await ask(method, `${url}x`, { token }), `${url}x`);
    }
  }
  for (const path of ['/api', '/api/', '/api/v1', '/api/v1/', '/v1/',
    '/api/v2/events', `/api/v1/${NONE}`, '/api/v1/events//mine/x',
    '/api/v1/%00', '/v1/v1/events', '/api/api/v1/events']) {
    for (const method of METHODS) {
      const res = await ask(method, path);

      assert.ok([404, 400].includes(res.status), `${method} ${path}`);
      assert.equal(res.body?.success, false, `${method} ${path}`);
      assert.ok(res.error.request_id, `${method} ${path}`);
    }
  }
});

test('a path has the methods of its rows and no other', async () => {
  for (const [path, list] of byPath()) {
    if (!ours(list[0])) continue;
    const url = fill(path);
    const wanted = allow(list);
    const options = await ask('OPTIONS', url);

    assert.equal(options.status, 204, path);
    assert.equal(options.headers.allow, wanted, path);
    for (const method of METHODS) {
      if (list.some((row) => row.method === method)) continue;
      const res = await ask(method, url, { token });

      assert.equal(res.status, 405, `${method} ${path}: ${res.text}`);
      assert.equal(res.error.code, 'METHOD_NOT_ALLOWED');
      assert.equal(res.headers.allow, wanted, `${method} ${path}`);
    }
  }
});

test('HEAD says what GET says, without the body', async () => {
  const same = ['content-type', 'content-length', 'etag', 'cache-control',
    'www-authenticate', 'vary'];
  let n = 0;

  for (const row of rows) {
    if (row.method !== 'GET') continue;
    for (const who of [undefined, token]) {
      const { path } = request(row);
      const get = await ask('GET', path, { token: who });
      const head = await ask('HEAD', path, { token: who });

      assert.equal(head.status, get.status, row.name);
      assert.equal(head.raw.length, 0, row.name);
      for (const name of same) {
        assert.equal(head.headers[name], get.headers[name],
          `${name} of ${row.name}`);
      }
      n++;
    }
  }
  assert.ok(n > 30, `${n} pairs`);
});
