/*
 * The client: a barrier's requests must leave on the connections that were
 * opened before, or it would race nothing.
 */

import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, test } from 'node:test';
import { barrier, send } from './http.js';

let server, base;
const events = [];

before(async () => {
  server = http.createServer((req, res) => {
    events.push(`request ${req.socket.remotePort}`);
    res.setHeader('Content-Type', 'application/json');
    res.end(JSON.stringify({ data: req.method + req.url, error: null }));
  });
  server.on('connection', (s) => events.push(`connection ${s.remotePort}`));
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  base = { host: '127.0.0.1', port: server.address().port };
});
after(() => server.close());

test('one request on each of the connections opened before', async () => {
  events.length = 0;
  const all = await barrier(base, 8, (i) => ({ path: `/${i}` }));

  assert.deepEqual(all.map((r) => r.data),
    Array.from({ length: 8 }, (_, i) => `GET/${i}`));
  assert.equal(events.length, 16);

  const ports = (kind) => events.filter((e) => e.startsWith(kind))
    .map((e) => e.split(' ')[1]).sort();

  assert.deepEqual(ports('request'), ports('connection'));
  assert.equal(new Set(ports('request')).size, 8);
});

test('a request carries what it was given', async () => {
  const res = await send(base, undefined, { method: 'PUT', path: '/x?y=1' });

  assert.equal(res.status, 200);
  assert.equal(res.data, 'PUT/x?y=1');
  assert.equal(res.body.error, null);
});
