/*
 * make valgrind: the stock nginx with the module under valgrind.  No invalid
 * access; and what is definitely lost is the same after 1,000 requests and
 * after 10,000, so that nothing is lost per request.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { Proc, ROOT, boot, until } from './index.js';

/* nginx's own, known and bounded (see the file). */
const SUPPRESSIONS = path.join(ROOT, 't/harness/valgrind.supp');

async function underValgrind(requests) {
  const app = await boot({ workers: 1 });
  const log = path.join(app.dir, 'log', 'valgrind.txt');
  const user = await app.user();
  const organizer = await app.user('organizer');
  const event = await app.event(organizer);

  await app.nginx.stop();
  app.nginx.proc = new Proc('nginx under valgrind', '/usr/bin/valgrind', [
    '--leak-check=full', '--show-leak-kinds=definite', '--num-callers=20',
    `--suppressions=${SUPPRESSIONS}`, `--log-file=${log}`,
    app.nginx.binary, ...app.nginx.args('-g',
      'daemon off; master_process off;'),
  ], { log: app.nginx.out });
  await until(() => app.nginx.answers(), { timeout: 120000, every: 200 });

  const mix = [
    () => app.api('GET', '/api/v1/auth/check', { token: user.token }),
    () => app.api('GET', `/api/v1/events/${event.id}`, { token: user.token }),
    () => app.api('GET', '/api/v1/events'),
    () => app.api('POST', '/api/v1/orders',
      { token: user.token, body: { items: [] } }),
    () => app.api('GET', '/api/v1/nothing'),
  ];

  for (let i = 0; i < requests; i += 20) {
    await Promise.all(Array.from({ length: 20 },
      (_, k) => mix[(i + k) % mix.length]()));
  }
  await app.nginx.stop('SIGQUIT', 120000);

  const text = fs.readFileSync(log, 'utf8');

  await app.stop();

  const lost = /definitely lost: ([\d,]+) bytes/.exec(text);

  return {
    invalid: text.match(/^==\d+== (Invalid|Conditional jump|Use of uninit|Syscall param|Mismatched).*/gm) ?? [],
    lost: lost ? Number(lost[1].replaceAll(',', '')) : 0,
    text,
  };
}

test('no invalid access, and nothing is lost per request', async () => {
  const few = await underValgrind(1000);

  assert.deepEqual(few.invalid, [], few.text);

  const many = await underValgrind(10000);

  assert.deepEqual(many.invalid, [], many.text);
  assert.equal(many.lost, few.lost, many.text);
});
