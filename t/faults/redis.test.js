/*
 * Redis fails under the edge and the workers: killed, frozen, emptied.
 * Writes still commit, what they caused happens once, later; gates and limits
 * go on.
 */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { boot } from '../harness/index.js';
import { fire, idle, load, sleep, tally, until } from './load.js';

const MINUTE = 60000;

async function shop(app, types) {
  const organizer = await app.user('organizer');
  const event = await app.event(organizer, { types });
  const member = await app.user();

  return { organizer, event, member, types: event.types.map((t) => t.id) };
}

const mailsOf = (app, who) => app.mails((m) => m.recipients.includes(who.email)
  && m.attachments.length > 0);

/* Tickets' mails by order: each must have come exactly once. */
async function awaitMails(app, who, n) {
  await until(async () => (await mailsOf(app, who)).length >= n,
    { timeout: 40000, what: `${n} mails with tickets` });
  await sleep(500);
  assert.equal((await mailsOf(app, who)).length, n, 'no mail twice');
}

async function health(app) {
  const res = await fire(app, 'GET', '/health/ready');

  return { http: res.status, ...res.body };
}

describe('Redis killed and started', () => {
  let app, s;

  before(async () => {
    app = await boot({ nginxWorkers: 2 });
    s = await shop(app, [
      { priceCents: 0, quota: 1000 }, { priceCents: 1500, quota: 1000 },
    ]);
  });
  after(() => app.stop());

  test('orders commit without it; their tasks run when it is back', async () => {
    assert.equal((await app.order(s.member, s.types[0])).status, 201);
    await awaitMails(app, s.member, 1);

    await app.redisProc.stop('SIGKILL');
    await until(async () => (await health(app)).checks.redis === 'down',
      { what: 'the edge to notice' });

    const state = await health(app);

    assert.equal(state.http, 200, 'it can serve');
    assert.equal(state.status, 'degraded');
    assert.equal(state.checks.database, 'up');

    for (let i = 0; i < 5; i++) {
      const res = await app.order(s.member, s.types[0]);

      assert.equal(res.status, 201, res.text);
      assert.equal(res.data.tickets.length, 1);
    }
    /* another one's: a ticket that was used is not mailed */
    const ticket = (await app.freeTickets(s.organizer, s.types[0], 1))[0];
    const scanned = await app.validate(s.organizer.token, ticket.code);

    assert.equal(scanned.status, 200);
    assert.equal(scanned.data.verdict, 'admitted', scanned.text);

    assert.equal((await fire(app, 'GET', '/api/v1/users/me',
      { token: s.member.token })).status, 200);
    assert.equal((await fire(app, 'GET', '/metrics')).status, 200);
    assert.equal((await mailsOf(app, s.member)).length, 1);

    await app.startRedis();
    await until(async () => (await health(app)).checks.redis === 'up',
      { what: 'the edge to be connected' });
    await awaitMails(app, s.member, 6);
  });

  test('a paid order is told to come back, and can', async () => {
    await app.redisProc.stop('SIGKILL');
    await until(async () => (await health(app)).checks.redis === 'down',
      { what: 'the edge to notice' });

    const res = await app.order(s.member, s.types[1]);

    assert.ok([201, 202].includes(res.status), res.text);
    if (res.status === 202) {
      assert.match(res.headers.location, /\/api\/v1\/orders\/[0-9a-f-]{36}$/);
    }
    await app.startRedis();

    const id = res.status === 202
      ? res.headers.location.split('/').pop() : res.data.id;
    const seen = await until(async () => {
      const got = await fire(app, 'GET', `/api/v1/orders/${id}`,
        { token: s.member.token });

      return got.data?.paymentDetails?.checkoutUrl && got;
    }, { timeout: 30000, what: 'the checkout' });

    assert.equal(seen.data.status, 'awaiting_payment');
  });

  test('a token that was revoked meanwhile is refused soon', async () => {
    const user = await app.user();
    const check = () => fire(app, 'GET', '/api/v1/auth/check',
      { token: user.token });

    await app.redisProc.stop('SIGKILL');
    assert.equal((await fire(app, 'POST', '/api/v1/auth/logout',
      { token: user.token, body: {} })).status < 300, true);

    /* no message is needed; the host's list serves both processes */
    await until(async () => (await check()).status === 401,
      { timeout: 2000, what: 'the token to be refused' });
    for (let i = 0; i < 20; i++) {
      const res = await check();

      assert.equal(res.status, 401);
      assert.equal(res.error.code, 'TOKEN_REVOKED');
    }
    await app.startRedis();
    await until(async () => (await health(app)).checks.redis === 'up',
      { what: 'the edge to be connected' });
  });

  test('killed again and again under load: every order is 201', async () => {
    const user = await app.user();
    const work = load(6, () => fire(app, 'POST', '/api/v1/orders', {
      token: user.token,
      body: { items: [{ ticketTypeId: s.types[0], quantity: 1 }] },
    }).then(async (res) => {
      await sleep(40);
      return res;
    }));

    for (let i = 0; i < 3; i++) {
      await sleep(150);
      await app.redisProc.stop('SIGKILL');
      await sleep(150);
      await app.startRedis();
    }

    const { errors, results } = await work.stop();

    assert.deepEqual(errors.map((e) => e.message), []);
    assert.deepEqual(Object.keys(tally(results)), ['201']);

    /* what was handed over to a dead server is sent again */
    await app.clock.advance(6 * MINUTE);
    await awaitMails(app, user, results.length);
  });
});

describe('Redis emptied', () => {
  let app, s;

  before(async () => {
    app = await boot({ workers: 0 });
    s = await shop(app, [{ priceCents: 0, quota: 1000 }]);
  });
  after(() => app.stop());

  test('every task is done all the same, once', async () => {
    for (let i = 0; i < 6; i++) {
      assert.equal((await app.order(s.member, s.types[0])).status, 201);
    }
    await app.startWorkers();
    await until(async () => (await mailsOf(app, s.member)).length >= 1,
      { timeout: 30000, what: 'the first mail' });

    for (let i = 0; i < 6; i++) {
      assert.equal((await app.order(s.member, s.types[0])).status, 201);
      await app.redis.flushall();
    }
    await app.clock.advance(6 * MINUTE);
    await awaitMails(app, s.member, 12);
    assert.equal(await app.value(`select count(*) from queue.outbox
      where kind = 'mail.send'`), 0, 'the outbox is empty');
  });
});

describe('Redis frozen', () => {
  let app, s;

  before(async () => {
    app = await boot({ workers: 1 });
    s = await shop(app, [{ priceCents: 0, quota: 1000 }]);
  });
  after(() => app.stop());

  test('nobody waits for it', async () => {
    app.redisProc.kill('SIGSTOP');

    try {
      for (let i = 0; i < 3; i++) {
        assert.equal((await app.order(s.member, s.types[0])).status, 201);
        assert.equal((await fire(app, 'GET', '/api/v1/users/me',
          { token: s.member.token })).status, 200);
      }
      assert.equal((await fire(app, 'GET', '/metrics')).status, 200);
      await until(async () => (await health(app)).checks.redis === 'down',
        { timeout: 8000, what: 'the edge to leave it' });
      assert.equal((await app.order(s.member, s.types[0])).status, 201);
    } finally {
      app.redisProc.kill('SIGCONT');
    }
    await until(async () => (await health(app)).checks.redis === 'up',
      { what: 'the edge to be connected' });
    await idle(app);
    await app.clock.advance(6 * MINUTE);
    await awaitMails(app, s.member, 4);
  });
});
