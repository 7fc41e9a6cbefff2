/*
 * The harness on itself: what it must notice is given to it here, so that a
 * checker that accepts everything is found out.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ownCluster } from './cluster.js';
import { confText } from './conf.js';
import { givePort, takePort } from './proc.js';
import { Validator, checkEnvelope } from './validate.js';

const AT = '2026-01-02T03:04:05.678Z';

function response(status, body, { path = '/api/v1/x', method, type } = {}) {
  const text = body === undefined ? '' : JSON.stringify(body);

  return {
    status, text, raw: Buffer.from(text), body,
    headers: { 'content-type': type ?? 'application/json' },
    request: { path, method },
  };
}

const without = (object, name) => Object.fromEntries(
  Object.entries(object).filter(([key]) => key !== name));

const good = { success: true, data: {}, meta: null, error: null, timestamp: AT };
const problem = {
  type: '/api/v1/errors#NOT_FOUND', title: 't', status: 404,
  detail: 'd', code: 'NOT_FOUND', request_id: 'r',
};
const bad = { success: false, data: null, meta: null, error: problem,
  timestamp: AT };

test('a right envelope passes', () => {
  checkEnvelope(response(200, good));
  checkEnvelope(response(404, bad));
  checkEnvelope(response(204, undefined));
});

for (const [name, res] of Object.entries({
  'a missing member': response(200, without(good, 'meta')),
  'an extra member': response(200, { ...good, more: 1 }),
  'success with an error status': response(404, good),
  'a time without milliseconds':
    response(200, { ...good, timestamp: '2026-01-02T03:04:05Z' }),
  'data in an error': response(404, { ...bad, data: {} }),
  'another status in the problem': response(409, bad),
  'a code in lower case': response(404,
    { ...bad, error: { ...problem, code: 'not_found' } }),
  'a body with 204': response(204, good),
  'a body with HEAD': response(200, good, { method: 'HEAD' }),
})) {
  test(`noticed: ${name}`, () => assert.throws(() => checkEnvelope(res)));
}

test('answers are held against the document', () => {
  const v = new Validator({
    openapi: '3.1.0',
    paths: {
      '/api/v1/events/{id}': {
        get: {
          responses: {
            200: { content: { 'application/json': { schema: {
              type: 'object', required: ['success'],
              properties: { data: { $ref: '#/components/schemas/E' } },
            } } } },
          },
        },
      },
    },
    components: { schemas: { E: { type: 'object', required: ['id'] } } },
  });
  const at = { path: '/api/v1/events/1?x=1', method: 'GET' };

  assert.equal(v.check(response(200, { ...good, data: { id: 1 } }, at)),
    undefined);
  assert.match(v.check(response(200, good, at)), /must have required/);
  assert.match(v.check(response(418, bad, at)), /does not list this status/);
  assert.match(v.check(response(200, good, { ...at, type: 'text/csv' })),
    /does not list text\/csv/);
  assert.equal(v.check(response(200, good, { path: '/api/v1/none' })),
    undefined);
});

test('ports are given to one only', async () => {
  const ports = await Promise.all(Array.from({ length: 20 }, takePort));

  assert.equal(new Set(ports).size, 20);
  ports.forEach(givePort);
});

test('settings: null removes', () => {
  assert.equal(confText({ A: '1', B: null, C: 'x y' }), 'A=1\nC=x y\n');
});

test('a cluster comes and goes', async () => {
  const cluster = await ownCluster();
  const { rows } = await cluster.sql('postgres', 'select 40 + 2 as n');

  assert.equal(rows[0].n, 42);
  await cluster.destroy();
  assert.equal(cluster.alive(), false);
});
