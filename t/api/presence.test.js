/*
 * Presence (B-50, B-51, C-22): who passes a gate with "stoa_presence on", or
 * sends PUT /presence, is online to others for a minute, whichever worker saw
 * it; one person costs Redis one command in 20 s of a worker; programs,
 * devices and admins in somebody's name are not people being there; requests
 * neither wait for Redis nor fail without it; crowds leave nothing behind.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import { after, before, describe, test } from 'node:test';
import { IS_ASAN, boot, until } from '../harness/index.js';
import { must } from '../harness/fixtures.js';
import * as rows from '../derived/rows.js';
import { World } from '../derived/world.js';

const PRESENCE = '/api/v1/presence';
const MINUTE = 60000;

/* the other software */
const backend = http.createServer((req, res) => res.end('ok'));

backend.listen(0, '127.0.0.1');
await once(backend, 'listening');
after(() => backend.close());

const PASS = `proxy_pass http://127.0.0.1:${backend.address().port};`;

const nginx = {
  replace: [['location = / {', `
    location /legacy/ {
        stoa_auth     required;
        stoa_presence on;
        ${PASS}
    }
    location /staff/ {
        stoa_auth     required role=organizer;
        stoa_presence on;
        ${PASS}
    }
    location /doors/ {
        stoa_auth     required role=device,member;
        stoa_presence on;
        ${PASS}
    }
    location /either/ {
        satisfy       any;
        allow         all;
        stoa_auth     required role=organizer;
        stoa_presence on;
        ${PASS}
    }
    location /open/ {
        stoa_auth     optional;
        stoa_presence on;
        ${PASS}
    }
    location /around/ {
        stoa_presence on;
        stoa_auth     required;
        location /around/quiet/ {
            stoa_presence off;
            ${PASS}
        }
        ${PASS}
    }
    location /silent/ {
        stoa_auth     required;
        ${PASS}
    }
    location = / {`]],
};

let app, other;

const ask = async (...ids) => must(await app.api('GET',
  `${PRESENCE}?ids=${ids.join(',')}`, { token: other.token }), 200).data;
const one = async (id) => (await ask(id))[0];
const status = async (id) => (await one(id)).status;
/* a request does not wait for its mark */
const comes = (id, what = 'online') => until(
  async () => await status(id) === what, { what: `${id} to be ${what}` });
const go = (token, path = '/legacy/') => app.api('GET', path, { token });
const beat = (token, spec) => app.api('PUT', PRESENCE, { token, ...spec });

async function metric(name) {
  const { text } = await app.api('GET', '/metrics');

  return Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(text)[1]);
}

const marks = () => metric('stoa_presence_marks_total');
const dropped = () => metric('stoa_presence_dropped_total');

/* All that was sent to Redis before has been done there. */
async function settled(token = other.token) {
  await app.clock.advance(20000);
  const was = await one(other.id);

  await beat(token);
  await until(async () => (await one(other.id)).lastSeenAt !== was.lastSeenAt,
    { what: 'a later mark' });
}

describe('any number of workers', () => {
  before(async () => {
    app = await boot({ workers: 0, nginxWorkers: 4, nginx });
    await app.clock.freeze();
    other = await app.user();
  });
  after(() => app?.stop());

  test('B-50: who uses the legacy app is online, and a minute later is not',
    async () => {
      const user = await app.user();

      assert.deepEqual(await one(user.id),
        { id: user.id, status: 'offline', lastSeenAt: null });

      assert.equal((await go(user.token)).text, 'ok');
      await comes(user.id);
      const at = app.clock.at + app.clock.ms;

      assert.equal((await one(user.id)).lastSeenAt, new Date(at).toISOString());

      await app.clock.advance(MINUTE - 1);
      assert.equal(await status(user.id), 'online');
      await app.clock.advance(1);
      assert.deepEqual(await one(user.id), { id: user.id, status: 'offline',
        lastSeenAt: new Date(at).toISOString() });

      /* whoever goes on stays */
      for (let i = 0; i < 4; i++) {
        const was = (await one(user.id)).lastSeenAt;

        await go(user.token);
        await until(async () => (await one(user.id)).lastSeenAt !== was,
          { what: 'the next mark' });
        await app.clock.advance(MINUTE / 2);
        assert.equal(await status(user.id), 'online');
      }
    });

  test('the same for clients that beat, with or without a body', async () => {
    const user = await app.user();

    for (const spec of [{}, { body: { anything: 1 } }, { body: 'x' }]) {
      const res = await beat(user.token, spec);

      assert.equal(res.status, 204, res.text);
      await comes(user.id);
      await app.clock.advance(MINUTE);
      assert.equal(await status(user.id), 'offline');
    }
    assert.equal((await beat()).status, 401);
  });

  test('a mark is told by every worker, before and after a reload',
    async () => {
      const users = [];

      for (let i = 0; i < 4; i++) users.push(await app.user());
      for (const user of users) await go(user.token);
      for (const user of users) await comes(user.id);
      await app.nginx.reload();
      for (let i = 0; i < 12; i++) {
        assert.deepEqual((await ask(...users.map(({ id }) => id)))
          .map((p) => p.status), Array(4).fill('online'));
      }
      await app.clock.advance(MINUTE);
      await go(users[0].token);
      await comes(users[0].id);
    });

  test('B-51: whom one may see, in the order asked, each once', async () => {
    const [a, b, gone, banned] = [await app.user(), await app.user(),
      await app.user(), await app.user()];
    const admin = await app.user('admin');
    const { id: robot } = must(await app.api('POST', '/api/v1/users',
      { token: admin.token, body: { kind: 'service', firstName: 'R' } }),
    201).data;

    for (const user of [a, gone, banned]) await beat(user.token);
    await comes(gone.id);
    await comes(banned.id);
    await app.sql(`update app.users set status = 'suspended' where id = $1`,
      [banned.id]);
    await app.sql(`update app.users set status = 'deleted' where id = $1`,
      [gone.id]);

    const seen = await ask(b.id, gone.id, a.id.toUpperCase(), rows.NONE, robot,
      banned.id, b.id);

    assert.deepEqual(seen.map(({ id, status }) => [id, status]),
      [[b.id, 'offline'], [a.id, 'online']]);
    assert.deepEqual(await ask(rows.NONE), []);

    const many = Array.from({ length: 99 }, () => crypto.randomUUID());

    assert.deepEqual((await ask(...many, a.id)).map(({ id }) => id), [a.id]);
  });

  test('what is no list of ids is refused', async () => {
    for (const [query, code] of [['', 'required'], ['?ids=', 'too_short'],
      ['?ids=x', 'format'], [`?ids=${rows.NONE},`, 'format'],
      [`?ids=${rows.NONE},x`, 'format'],
      [`?ids=${Array(101).fill(rows.NONE)}`, 'too_long'],
      [`?ids=${rows.NONE}&ids=${rows.NONE}`, 'duplicate']]) {
      const res = await app.api('GET', PRESENCE + query,
        { token: other.token });

      assert.equal(res.status, 400, query);
      assert.deepEqual(res.error.errors.map((e) => [e.pointer, e.code]),
        [['ids', code]], query);
    }
    assert.equal((await app.api('GET', `${PRESENCE}?ids=${rows.NONE}`)).status,
      401);
  });

  test('a gate that refuses marks nobody, nor does one that is silent',
    async () => {
      const user = await app.user();
      const old = rows.mint(app, { sub: user.id, exp: 1 });

      assert.equal((await go(user.token, '/staff/')).status, 403);
      assert.equal((await go(old)).status, 401);
      assert.equal((await go(undefined, '/open/')).text, 'ok');
      assert.equal((await go(old, '/open/')).status, 401);
      /* let in by the address, not as who it says it is */
      assert.equal((await go(user.token, '/either/')).text, 'ok');
      assert.equal((await go(user.token, '/silent/')).text, 'ok');
      assert.equal((await go(user.token, '/around/quiet/')).text, 'ok');
      assert.equal((await app.api('GET', '/api/v1/users/me',
        { token: user.token })).status, 200);
      await settled();
      assert.deepEqual(await one(user.id),
        { id: user.id, status: 'offline', lastSeenAt: null });

      assert.equal((await go(user.token, '/open/')).text, 'ok');
      await comes(user.id);
      await app.clock.advance(MINUTE);
      assert.equal((await go(user.token, '/around/')).text, 'ok');
      await comes(user.id);
    });

  test('keys, devices and admins in the name of somebody mark nobody',
    async () => {
      const world = await new World(app).begin();
      const user = await app.user();
      const { key } = await world.api_key(user);
      const { eventId } = await world.event();
      const device = await world.device(eventId);
      const acting = must(await app.api('POST',
        `/api/v1/admin/users/${user.id}/impersonate`,
        { token: world.admin.token, body: { reason: 'a test' } }), 200, 201)
        .data.accessToken;

      assert.equal((await go(key)).text, 'ok');
      assert.equal((await go(device.token, '/doors/')).text, 'ok');
      assert.equal((await go(acting)).status, 403);
      assert.equal((await beat(key)).error.code, 'KEY_FORBIDDEN');
      assert.equal((await beat(device.token)).error.code, 'FORBIDDEN');
      assert.equal((await beat(acting)).error.code, 'IMPERSONATION_FORBIDDEN');
      await settled();
      assert.equal((await one(user.id)).lastSeenAt, null);
      assert.deepEqual((await app.redis.keys(`*u:${device.id}*`)), []);

      /* they may look, though */
      for (const token of [key, acting]) {
        assert.equal(must(await app.api('GET', `${PRESENCE}?ids=${user.id}`,
          { token }), 200).data[0].status, 'offline');
      }
    });

  test('C-22: a mark of requests goes beside those of connections', async () => {
    const user = await app.user();
    const key = `stoa:{u:${user.id}}:on`;
    const at = () => app.clock.at + app.clock.ms;

    /* as a socket's, which another node holds, and one of a node that died */
    await app.redis.zadd(key, at() + MINUTE, 'far.0.a.1', at() - 1, 'dead.0.a.1');
    assert.equal(await status(user.id), 'online');
    await app.clock.advance(MINUTE / 2);
    await go(user.token);
    await until(async () => await app.redis.zcard(key) === 2
      && await app.redis.zscore(key, 'http') !== null,
    { what: 'the mark of the request' });
    await app.redis.zrem(key, 'far.0.a.1');
    assert.equal(await status(user.id), 'online');
    assert.equal(await app.redis.zscore(key, 'http'), String(at() + MINUTE));
  });
});

describe('one worker', () => {
  before(async () => {
    app = await boot({ workers: 0, nginxWorkers: 1, nginx });
    await app.clock.freeze();
    other = await app.user();
  });
  after(() => app?.stop());

  test('a person costs one command in 20 s, whatever is asked', async () => {
    const user = await app.user();
    const was = await marks();

    await app.barrier(50, (i) => ({ token: user.token,
      ...i % 5 ? { path: '/legacy/' } : { path: PRESENCE, method: 'PUT' } }));
    await comes(user.id);
    assert.equal(await marks() - was, 1);
    await app.clock.advance(19999);
    await go(user.token);
    assert.equal(await marks() - was, 1);
    await app.clock.advance(1);
    await go(user.token);
    assert.equal(await marks() - was, 2);
    /* a clock that was set back stops nobody */
    await app.clock.advance(-3600000);
    await go(user.token);
    assert.equal(await marks() - was, 3);
    await app.clock.advance(3600000);
    assert.equal(await dropped(), 0);
  });

  test('a crowd: each is told once, memory and keys are bounded', async () => {
    const crowd = (length) => Array.from({ length }, () =>
      crypto.randomUUID());
    const pid = app.nginx.workerPids()[0];
    const rss = () => Number(/^VmRSS:\s+(\d+) kB/m.exec(
      fs.readFileSync(`/proc/${pid}/status`, 'utf8'))[1]);
    const sent = await marks();
    const told = sent + await dropped();
    const flood = async (ids) => {
      for (let i = 0; i < ids.length; i += 500) {
        const all = await app.barrier(500, (k) => ({ path: '/legacy/',
          token: rows.mint(app, { sub: ids[i + k], roles: ['member'] }) }));

        assert.deepEqual([...new Set(all.map((res) => res.text))], ['ok']);
      }
      await settled();
      return rss();
    };
    const first = await flood(crowd(2000));
    const second = await flood(crowd(10000));

    /* each at most once; what Redis was too slow for is told */
    assert.ok(await marks() - sent <= 12002);
    assert.ok(await marks() + await dropped() - told >= 12002);
    const keys = await app.redis.keys('stoa:{u:*}:on');

    assert.ok(keys.length > 0);
    for (const key of [...keys.slice(0, 50),
      ...(await app.redis.keys('stoa:{u:*}:seen')).slice(0, 50)]) {
      assert.notEqual(await app.redis.pttl(key), -1, key);
    }
    if (!IS_ASAN) {
      assert.ok(second - first < 4096, `${first} kB, then ${second} kB`);
    }
  });

  test('without Redis requests go on, and presence is unknown', async () => {
    const user = await app.user();

    await go(user.token);
    await comes(user.id);
    await app.redisProc.stop('SIGKILL');
    try {
      await comes(user.id, 'unknown');
      const was = await dropped();

      assert.equal((await one(user.id)).lastSeenAt, null);
      for (let i = 0; i < 3; i++) {
        const late = await app.user();

        assert.equal((await go(late.token)).text, 'ok');
        assert.equal((await beat(late.token)).status, 204);
        assert.equal(await status(late.id), 'unknown');
      }
      assert.equal(await dropped() - was, 6);
      /* an answer that holds nobody needs nobody */
      assert.deepEqual(await ask(rows.NONE), []);
    } finally {
      await app.startRedis();
    }
    await comes(user.id, 'offline');
    const late = await app.user();

    await until(async () => {
      await go(late.token);
      return await status(late.id) === 'online';
    }, { what: 'marks to be taken again' });
  });

  test('a Redis that is silent holds up no request, and is told unknown',
    async () => {
      const user = await app.user();

      app.redisProc.kill('SIGSTOP');
      try {
        const asked = ask(user.id);

        assert.equal((await go(user.token)).text, 'ok');
        assert.equal((await beat(user.token)).status, 204);
        assert.equal((await asked)[0].status, 'unknown');
      } finally {
        app.redisProc.kill('SIGCONT');
      }
      await until(async () => {
        await app.clock.advance(20000);
        await go(user.token);
        return await status(user.id) === 'online';
      }, { what: 'marks to be taken again' });
    });

  test('a Redis that refuses is told of once; clients that leave are gone',
    async () => {
      const user = await app.user();
      const log = () => fs.readFileSync(app.nginx.log, 'utf8');

      await app.redis.set(`stoa:{u:${user.id}}:on`, 'no set');
      const was = await dropped();

      await go(user.token);
      await until(async () => await dropped() === was + 1,
        { what: 'the refusal' });
      assert.equal(await status(user.id), 'unknown');
      await app.clock.advance(20000);
      await go(user.token);
      await until(async () => await dropped() === was + 2,
        { what: 'the second refusal' });
      assert.equal([...log().matchAll(/Redis refuses marks of presence/g)]
        .length, 1);
      await app.redis.del(`stoa:{u:${user.id}}:on`);

      /* waits for Redis when it leaves */
      app.redisProc.kill('SIGSTOP');
      try {
        await app.raw(`GET ${PRESENCE}?ids=${user.id} HTTP/1.1\r\nHost: x\r\n`
          + `Authorization: Bearer ${other.token}\r\n\r\n`,
        { timeout: 300 }).catch(() => {});
      } finally {
        app.redisProc.kill('SIGCONT');
      }
      await comes(user.id, 'offline');
    });
});
