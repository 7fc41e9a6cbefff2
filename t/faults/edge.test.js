/*
 * The edge itself fails or is replaced: worker processes killed, reloads
 * under load.  Clients that leave are in t/security/lifetime.test.js.
 */

import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, describe, test } from 'node:test';
import { boot } from '../harness/index.js';
import {
  asleep, fire, hold, load, ready, sleep, tally, until, watch,
} from './load.js';

async function shop(app, types = [{ priceCents: 0, quota: 100000 }]) {
  const organizer = await app.user('organizer');
  const event = await app.event(organizer, { types });
  const member = await app.user();

  return { organizer, event, member, types: event.types.map((t) => t.id) };
}

const order = (user, type, extra = {}) => ({
  token: user.token, body: { items: [{ ticketTypeId: type, quantity: 1 }] },
  ...extra,
});

describe('worker processes killed', () => {
  let app, s;

  before(async () => {
    app = await boot({
      nginxWorkers: 4, workers: 0, allowLog: [/exited on signal 9/],
    });
    s = await shop(app);
  });
  after(() => app.stop());

  test('the others and the next ones serve; revocations stay', async () => {
    const gone = await app.user();

    assert.ok((await fire(app, 'POST', '/api/v1/auth/logout',
      { token: gone.token, body: {} })).status < 300);
    await until(async () => (await fire(app, 'GET', '/api/v1/auth/check',
      { token: gone.token })).status === 401, { what: 'the revocation' });

    const accepted = new Set();
    const work = load(8, async (i) => {
      if (i % 2) return fire(app, 'GET', `/api/v1/events/${s.event.id}`);

      const res = await fire(app, 'POST', '/api/v1/orders',
        order(s.member, s.types[0]));

      if (res.status === 201) accepted.add(res.data.id);
      return res;
    });

    for (let i = 0; i < 12; i++) {
      await sleep(100);

      const pids = app.nginx.workerPids();

      process.kill(pids[i % pids.length], 'SIGKILL');
    }
    await until(() => app.nginx.workerPids().length === 4,
      { what: 'four processes again' });

    const { errors, results } = await work.stop();
    const bad = results.filter((r) => ![200, 201].includes(r.status)
      && r.error?.code !== 'DATABASE_UNAVAILABLE'
      && r.error?.code !== 'STARTING');

    assert.deepEqual(bad.map((r) => r.text), []);
    /* only what the killed process held is cut */
    assert.ok(errors.length <= 12 * 8, `${errors.length} cut`);
    assert.ok(results.length > errors.length);

    const stored = new Set((await app.sql('select id from app.orders'))
      .map((row) => row.id));

    for (const id of accepted) assert.ok(stored.has(id), `order ${id} is lost`);

    await ready(app);
    for (let i = 0; i < 40; i++) {
      assert.equal((await fire(app, 'GET', '/api/v1/auth/check',
        { token: gone.token })).status, 401, 'revoked once and for all');
      assert.equal((await fire(app, 'GET', '/api/v1/auth/check',
        { token: s.member.token })).status, 200);
    }

    /* the sessions of the killed ones are gone from the database */
    await until(async () => await app.value(`select count(*)
      from pg_stat_activity where usename = 'stoa_edge' and datname = $1
        and application_name = 'stoa/fast'`, [app.id]) <= 6,
    { what: 'the killed ones to leave the database' });
  });
});

describe('reload', () => {
  let app, s;

  before(async () => {
    app = await boot({
      nginxWorkers: 2, workers: 0,
      nginx: { server: 'location = /plain { return 200 "plain"; }' },
    });
    s = await shop(app);
  });
  after(() => app.stop());

  test('under load with Connection: close no request fails', async () => {
    const work = load(12, (i) => {
      switch (i % 4) {
      case 0:
        return fire(app, 'POST', '/api/v1/orders', order(s.member, s.types[0]));
      case 1:
        return fire(app, 'GET', '/api/v1/users/me', { token: s.member.token });
      case 2:
        return fire(app, 'GET', '/api/v1/auth/check',
          { token: s.member.token });
      default:
        return fire(app, 'GET', '/api/v1/events');
      }
    });

    for (let i = 0; i < 3; i++) {
      await sleep(300);
      await app.nginx.reload();
    }
    await sleep(200);

    const { errors, results } = await work.stop();
    const counts = tally(results);

    assert.deepEqual(errors.map((e) => e.message), []);
    assert.deepEqual(Object.keys(counts).sort(), ['200', '201'],
      JSON.stringify(counts));
    assert.ok(results.length > 300);
  });

  test('with keep-alive: no worse than return 200 of the same nginx', async () => {
    const CLIENTS = 8;
    const RELOADS = 3;
    const cut = { api: 0, plain: 0 };
    const agents = Array.from({ length: 2 * CLIENTS }, () =>
      new http.Agent({ keepAlive: true, maxSockets: 1 }));

    const get = (agent, path, token) => new Promise((done, failed) => {
      const req = http.get({
        host: '127.0.0.1', port: app.port, path, agent,
        headers: token ? { Authorization: `Bearer ${token}` } : {},
      }, (res) => {
        res.resume();
        res.on('end', () => done({ status: res.statusCode }));
        res.on('error', failed);
      });

      req.on('error', failed);
    });
    const work = load(2 * CLIENTS, async (i) => {
      const api = i < CLIENTS;

      try {
        return await get(agents[i], api ? '/api/v1/users/me' : '/plain',
          api ? s.member.token : undefined);
      } catch (error) {
        cut[api ? 'api' : 'plain']++;
        throw error;
      }
    });

    for (let i = 0; i < RELOADS; i++) {
      await sleep(300);
      await app.nginx.reload();
    }

    const { results } = await work.stop();

    for (const agent of agents) agent.destroy();
    assert.deepEqual(Object.keys(tally(results)), ['200']);
    /* nginx closes what is idle at that instant: once per connection */
    assert.ok(cut.api <= CLIENTS * RELOADS,
      `${cut.api} cut, return 200: ${cut.plain}`);
  });

  test('a request that sleeps is answered by the old process', async () => {
    const made = await app.order(s.member, s.types[0]);
    const lock = await hold(app, 'app.orders');
    const read = watch(fire(app, 'GET', `/api/v1/orders/${made.data.id}`,
      { token: s.member.token }));
    const write = watch(fire(app, 'POST', '/api/v1/orders',
      order(s.member, s.types[0])));

    await asleep(app, 2);

    const old = app.nginx.workerPids();

    await app.nginx.reload({ wait: false });
    await until(() => app.nginx.workerPids().some((pid) => !old.includes(pid)),
      { what: 'new processes' });
    assert.equal((await fire(app, 'GET', '/api/v1/auth/check',
      { token: s.member.token })).status, 200);
    assert.equal(read.done, undefined);
    assert.equal(write.done, undefined);
    await lock.let();
    assert.equal((await read.promise).status, 200);
    assert.equal((await write.promise).status, 201);
    await until(() => app.nginx.workerPids().every((pid) => !old.includes(pid)),
      { what: 'the old ones to leave' });
  });

  test('passwords are hashed to their end', async () => {
    const all = Array.from({ length: 8 }, () => watch(fire(app, 'POST',
      '/api/v1/auth/login', {
        body: { email: s.member.email, password: s.member.password },
      })));

    await sleep(2);
    await app.nginx.reload();
    assert.deepEqual(tally(await Promise.all(all.map((w) => w.promise))),
      { 200: 8 });
  });
});
