/*
 * Metric labels, from the rows: after every row was asked, each has exactly
 * one group of series under its own id, and nothing that clients send makes
 * more of them: ids, names, methods, user agents.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';
import { fill, mint, request, rows } from './rows.js';

const STRANGERS = 10000;

let app, token;

before(async () => {
  app = await boot({ workers: 0, nginxWorkers: 1, validate: false });
  token = mint(app);
});
after(() => app?.stop());

/* {series: [name{labels}, ...], size of the page in lines} */
async function series() {
  const { text } = await app.api('GET', '/metrics');

  return text.split('\n').filter((line) => line && !line.startsWith('#'))
    .map((line) => line.slice(0, line.lastIndexOf(' ')));
}

const label = (line, name) => line.match(`\\b${name}="([^"]*)"`)?.[1];

test('one group of series per row, under its id', async () => {
  for (const row of rows) {
    const spec = request(row);

    await app.api(spec.method, spec.path,
      { ...spec, token: row.public ? undefined : token });
  }

  const all = await series();
  const counted = all.filter((s) => s.startsWith('stoa_requests_total{'));
  const ids = rows.map((row) => row.id);

  for (const row of rows) {
    const mine = counted.filter((s) => label(s, 'route') === row.id);

    assert.equal(mine.length, 1, `${row.name}: ${mine}`);
    assert.equal(label(mine[0], 'method'), row.method, row.name);
    assert.equal(all.filter((s) => label(s, 'route') === row.id
      && s.startsWith('stoa_phase_seconds_count')
      && label(s, 'phase') === 'total').length, 1, row.name);
  }
  for (const s of all) {
    const route = label(s, 'route');

    assert.ok(route === undefined || route === 'none' || ids.includes(route),
      s);
  }
});

test(`${STRANGERS} ids, names and agents make no series`, async () => {
  const one = rows.find((r) => r.public && r.method === 'GET'
    && r.path.endsWith('/:id'));
  const paths = [
    (id) => fill(one.path, { id }),
    (id) => `/api/v1/${id}`,
    (id) => `/v1/events/${id}?${id}=1`,
    (id) => `/api/v1/events/${id}/${id}`,
    (id) => `/api/v1/events?search=${id.slice(0, 8)}`,
  ];
  const ask = (i) => app.api(i % 7 === 3 ? 'HEAD' : 'GET',
    paths[i % paths.length](crypto.randomUUID()),
    { headers: { 'User-Agent': `agent-${i}`, 'X-Request-Id': `r-${i}` } });

  /* each kind of answer once; then the page is as large as it gets */
  for (let i = 0; i < 7 * paths.length; i++) await ask(i);

  const before_ = await series();

  for (let i = 0; i < STRANGERS; i += 50) {
    await Promise.all(Array.from({ length: 50 }, (_, j) => ask(i + j)));
  }
  assert.deepEqual(await series(), before_);
});

test('a method that nobody knows is no label', async () => {
  const before_ = await series();

  for (const method of ['PROPFIND', 'LOCK', 'ABCDEFGHIJKLMNOP']) {
    await app.raw(`${method} /api/v1/events HTTP/1.1\r\nHost: x\r\n` +
      'Connection: close\r\n\r\n');
  }
  for (const s of (await series()).filter((t) => !before_.includes(t))) {
    assert.equal(label(s, 'route'), 'none', s);
    assert.doesNotMatch(s, /PROPFIND|LOCK|ABC/);
  }
});
