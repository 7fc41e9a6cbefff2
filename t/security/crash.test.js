/*
 * One process's crash is nobody else's (edge.md D.2): worker processes are
 * killed, one after the other, while all of them count, revoke, throttle and
 * cache in shared memory, so that some die with a lock in their hands.  The
 * master gives the locks back; what the tables held is still there, new
 * entries count exactly, and those that outlived it were never disturbed.
 * t/faults has what becomes of orders meanwhile.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { mint } from '../derived/rows.js';
import { ROUNDS, boot, until } from '../harness/index.js';

const KILLS = 2 * ROUNDS;
const CHECK = '/api/v1/auth/check';
const PAGE = '/exact/tokens.css';

let app;

before(async () => {
  app = await boot({
    workers: 0, nginxWorkers: 4, validate: false,
    allowLog: [/exited on signal 9/, /was locked by/],
    nginx: {
      http: 'stoa_limit exact key=user rate=50/h burst=50;',
      replace: [['location = / {', `
        location /exact/ { stoa_auth required; stoa_limit_apply exact;
          alias ${process.cwd()}/conf/www/kit/; }
        location = / {`]],
    },
  });
  await app.clock.freeze();
});
after(() => app?.stop());

const tally = (all) => all.reduce((by, { status }) =>
  ({ ...by, [status]: (by[status] ?? 0) + 1 }), {});
const burst = (token, n) => app.barrier(n, () => ({ path: PAGE, token }));
const check = (token) => app.api('GET', CHECK, { token });
const guess = (email) => app.api('POST', '/api/v1/auth/login',
  { body: { email, password: 'not this one' } });

/* What goes on meanwhile: every table of the zone is written. */
const WORK = [
  () => app.api('GET', PAGE, { token: mint(app) }),
  (i) => guess(`nobody-${i}@test.example`),
  async () => {
    const user = await app.user();

    await app.api('POST', '/api/v1/auth/logout',
      { token: user.token, body: {} });
  },
  () => app.api('GET', '/api/v1/events'),
  () => app.api('GET', '/metrics'),
];

/*
 * Kills n of them under load.  Those that are killed cut their connections;
 * who was cut off waits for a turn of the event loop, where a client learns
 * that its connection is gone: without it the next request fails at once too.
 */
async function killing(n) {
  let stopped = false, asked = 0;
  const load = Array.from({ length: 5 * WORK.length }, async (_, i) => {
    while (!stopped) {
      await WORK[i % WORK.length](++asked).catch(() => turn());
    }
  });

  try {
    for (let i = 0; i < n; i++) {
      const pids = app.nginx.workerPids();
      const pid = pids[i % pids.length];
      const was = asked;

      await until(() => asked > was + 20, { what: 'some load' });
      process.kill(pid, 'SIGKILL');
      await until(() => {
        const now = app.nginx.workerPids();

        return now.length === 4 && !now.includes(pid);
      }, { what: 'another process' });
    }
  } finally {
    stopped = true;
    await Promise.all(load);
  }
  await until(() => app.nginx.answers(), { what: 'the edge' });
}

test('killed in a loop: the tables are walked, and what they held is there',
  async () => {
    const refused = Array.from({ length: 20 }, () => mint(app));
    const [alice, gone, guessed] = [await app.user(), await app.user(),
      await app.user()];

    for (const token of refused) {
      assert.deepEqual(tally(await burst(token, 52)), { 200: 50, 429: 2 });
    }
    assert.equal((await app.api('POST', '/api/v1/auth/logout',
      { token: gone.token, body: {} })).status, 200);
    for (let i = 0; i < 5; i++) await guess(guessed.email);
    assert.equal((await guess(guessed.email)).status, 429);

    const master = app.nginx.proc.pid;

    await killing(KILLS);

    assert.equal(app.nginx.proc.pid, master);
    assert.ok(!app.nginx.proc.over);
    for (const token of refused) {
      assert.deepEqual(tally(await burst(token, 2)), { 429: 2 });
    }
    for (let i = 0; i < 8; i++) {
      assert.deepEqual(tally(await burst(mint(app), 80)),
        { 200: 50, 429: 30 }, 'new ones count exactly');
    }
    /* in each of the four processes */
    for (const res of await app.barrier(24, () => ({ path: CHECK,
      token: gone.token }))) {
      assert.equal(res.status, 401, 'a revocation was lost');
    }
    for (const res of await app.barrier(24, () => ({ path: CHECK,
      token: alice.token }))) {
      assert.equal(res.status, 200);
    }
    assert.equal((await guess(guessed.email)).status, 429,
      'guesses were forgotten');
  });

test('afterwards everything is written again: revoked, refused, reloaded',
  async () => {
    const user = await app.user();

    assert.equal((await check(user.token)).status, 200);
    assert.equal((await app.api('POST', '/api/v1/auth/logout',
      { token: user.token, body: {} })).status, 200);
    assert.equal((await check(user.token)).status, 401);

    const bob = await app.user();

    assert.deepEqual(tally(await app.barrier(12, () => ({ method: 'POST',
      path: '/api/v1/auth/login',
      body: { email: bob.email, password: 'not this one' } }))),
    { 401: 5, 429: 7 });

    /* what the tables hold is taken over by new processes */
    await app.nginx.reload();
    assert.equal((await check(user.token)).status, 401);
    assert.equal((await guess(bob.email)).status, 429);
    assert.match(fs.readFileSync(app.nginx.log, 'utf8'),
      /exited on signal 9/);
  });
