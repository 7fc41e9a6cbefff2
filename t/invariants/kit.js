/*
 * What the invariants share: the same tests on one and on four nginx
 * workers, or also on two nodes; clients that start at a barrier; a control
 * that takes the guard away (t/unguarded) and must then see the invariant
 * break; and a provider's events with their signatures.
 *
 * Nothing here depends on speed: queues and deadlines of the edge are long,
 * so that a slow machine is late and never wrong.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ROOT, ROUNDS, SECRETS, boot, until } from '../harness/index.js';

const PATIENT = [
  ['queue=128 queue_timeout=200ms', 'queue=4096 queue_timeout=60s'],
  ['fast=3s write=5s slow=30s', 'fast=60s write=60s slow=60s'],
];

/* A part of ROUNDS for tests of many clients, never none. */
export const rounds = (part = 1) => Math.max(1, Math.round(ROUNDS * part));

export const pick = (list) => list[crypto.randomInt(list.length)];

export function shuffled(list) {
  const all = [...list];

  for (let i = all.length - 1; i > 0; i--) {
    const j = crypto.randomInt(i + 1);

    [all[i], all[j]] = [all[j], all[i]];
  }
  return all;
}

/* SQL with \ir lines, as psql would read it. */
function sqlFile(file) {
  return fs.readFileSync(file, 'utf8').replace(/^\\ir (.*)$/gm,
    (_, name) => sqlFile(path.join(path.dirname(file), name)));
}

/* An application with an organizer and some people. */
async function make(setUp, { people = 24, ...options } = {}) {
  const app = await boot({
    workers: 1, ...setUp, ...options,
    conf: { ACCESS_TTL: '24h', ...options.conf },
    nginx: { ...options.nginx,
      replace: [...PATIENT, ...options.nginx?.replace ?? []] },
  });

  try {
    /* the provider is a setting that the workers bring along */
    await until(async () => await app.value(
      `select app.setting('public_url')`) === app.url,
    { what: 'the settings to be stored', timeout: 60000 });
    app.org = await app.user('organizer');
    app.people = await Promise.all(
      Array.from({ length: people }, () => app.user()));
    await app.sql(sqlFile(path.join(ROOT, 't/sql/_lib.sql')));
  } catch (error) {
    await app.stop().catch(() => {});
    throw error;
  }
  return app;
}

/* Many rounds move the clock by days, and a token lives for one. */
async function renew(app) {
  const now = seconds(app);

  app.renewed ??= now;
  if (now - app.renewed < 8 * 3600) return;
  for (const user of [app.org, ...app.people]) {
    const grant = await must(200, app.api('POST', '/api/v1/auth/login',
      { body: { email: user.email, password: user.password } }));

    user.token = grant.accessToken;
  }
  app.renewed = now;
}

export const ON_ONE = { nginxWorkers: 1 };
export const ON_FOUR = { nginxWorkers: 4 };
export const ON_TWO_NODES = { nginxWorkers: 1, nodes: 2 };

const named = ({ nginxWorkers: n, nodes = 1 }) => nodes > 1
  ? `${nodes} nodes` : `${n} nginx worker${n > 1 ? 's' : ''}`;

/*
 * Runs define({race, plain, app()}) on one and on four nginx workers.
 *
 * race(name, {n, guard}, run) holds for n rounds of run(app); with a guard,
 * the name of a file in t/unguarded, or several, it is also seen to break
 * without it.
 */
export const onWorkers = (options, define) =>
  onSetUps([ON_ONE, ON_FOUR], options, define);

/* The same with any set-ups: parts of boot()'s options. */
export function onSetUps(setUps, options, define) {
  for (const setUp of setUps) {
    describe(named(setUp), () => {
      const controls = [];
      let app;

      before(async () => { app = await make(setUp, options); });
      after(() => app?.stop());

      define({
        app: () => app,
        plain: (name, fn) => test(name, () => fn(app)),
        race(name, { n = rounds(), guard }, run) {
          test(name, async () => {
            for (let i = 0; i < n; i++) {
              await renew(app);
              await run(app);
            }
            await noDrift(app);
          });
          for (const one of [guard ?? []].flat()) {
            controls.push({ name, guard: one, run });
          }
        },
      });
      for (const { name, guard, run } of controls) {
        test(`${name}: fails without its guard, ${guard}`, () =>
          control(setUp, options, guard, run));
      }
    });
  }
}

/* One database per guard: two files may cut the same function. */
async function control(setUp, options, guard, run) {
  const bare = await make(setUp, {
    ...options, validate: false, allowLog: [/did not answer each/],
  });
  let broke = null;

  try {
    await bare.sql(sqlFile(path.join(ROOT, `t/unguarded/${guard}.sql`)));
    for (let i = 0; i < 10 && !broke; i++) {
      try {
        await run(bare);
        await noDrift(bare);
      } catch (error) {
        if (error.code !== 'ERR_ASSERTION') throw error;
        broke = error;
      }
    }
  } finally {
    await bare.stop();
  }
  assert.ok(broke, 'the race was not seen although nothing guards it');
}

/* Counters fit what is stored. */
export async function noDrift(app) {
  assert.deepEqual(await app.sql('select * from t.drift'), []);
}

/* {"201": n, "SOLD_OUT": n}; anything of the 5xx fails at once. */
export function tally(all) {
  const t = {};

  for (const res of all) {
    assert.ok(res.status < 500, `${res.status}: ${res.text}`);
    const key = res.error?.code ?? res.status;

    t[key] = (t[key] ?? 0) + 1;
  }
  return t;
}

/*
 * An order as barrier() wants it.  Every other one carries a key, and so
 * rides alone: batches and single statements race with each other.
 */
export function ordering(app, i, items, more = {}) {
  return {
    method: 'POST', path: '/api/v1/orders',
    token: app.people[i % app.people.length].token,
    headers: i % 2 ? { 'Idempotency-Key': crypto.randomUUID() } : {},
    body: {
      items: items.map(([ticketTypeId, quantity = 1]) =>
        ({ ticketTypeId, quantity })),
      ...more,
    },
  };
}

export async function must(status, promise) {
  const res = await promise;

  assert.equal(res.status, status, res.text);
  return res.data;
}

export const ticketsOf = (app, typeId) => app.value(
  `select count(*)::int from app.tickets where ticket_type_id = $1
    and state in ('reserved', 'valid', 'admitted', 'exited')`, [typeId]);

/* The same again over the API, as a buyer sees it; past the micro-cache. */
export function shown(app, event, typeId, remaining) {
  return until(async () => {
    const list = await must(200,
      app.api('GET', `/api/v1/events/${event.id}/ticket-types`));

    return list.find((t) => t.id === typeId).remaining === remaining;
  }, { what: `${remaining} seats to be shown as free`, timeout: 30000 });
}

/* ---- the provider ---- */

export const seconds = (app) =>
  Math.floor((Date.now() + app.clock.ms) / 1000);

export const eventId = () => `evt_test_stoa_${crypto.randomUUID()}`;

export function signature(payload, at, secret = SECRETS.TEST_WEBHOOK_SECRET) {
  const v1 = crypto.createHmac('sha256', secret).update(`${at}.`)
    .update(payload).digest('hex');

  return `t=${at},v1=${v1}`;
}

/* An event as the provider writes it, not yet sent. */
export function providerEvent(type, object, more = {}) {
  return {
    id: eventId(), object: 'event', api_version: '2024-06-20',
    livemode: false, created: 1700000000, type, data: { object }, ...more,
  };
}

/* A post of an event, signed, as api() and barrier() want it. */
export function posting(app, event, { at = seconds(app), secret } = {}) {
  const body = typeof event === 'string' ? event : JSON.stringify(event);

  return {
    method: 'POST', path: '/api/v1/webhooks/stripe', body,
    headers: {
      'Content-Type': 'application/json',
      'Stripe-Signature': signature(body, at, secret),
    },
  };
}

export async function deliver(app, event) {
  const post = () => {
    const spec = posting(app, event);

    return app.api(spec.method, spec.path, spec);
  };
  let res = await post();

  /* the clock was moved on the way: a provider sends again, signed anew */
  if (res.error?.code === 'SIGNATURE_INVALID') res = await post();
  assert.equal(res.status, 200, res.text);
}

/* The provider's intent of an order, as its events carry it. */
export async function intentOf(app, orderId) {
  const [p] = await app.sql(
    'select * from app.payments where order_id = $1', [orderId]);

  return {
    id: p.intent_id, object: 'payment_intent',
    amount: Number(p.amount_cents), amount_received: Number(p.amount_cents),
    currency: p.currency.toLowerCase(), metadata: { payment_id: p.id },
  };
}

export async function paidEvent(app, orderId) {
  return providerEvent('payment_intent.succeeded',
    await intentOf(app, orderId));
}

export const orderOf = (app, user, id) =>
  must(200, app.api('GET', `/api/v1/orders/${id}`, { token: user.token }));

export function settled(app, user, id, status) {
  return until(async () => {
    const order = await orderOf(app, user, id);

    return order.status === status && order;
  }, { what: `order ${id} to be ${status}`, timeout: 60000 });
}

/* No event of the provider and no task of these kinds is still waiting. */
export function quiet(app, kinds) {
  return until(async () => await app.value(
    `select count(*)::int from queue.outbox where kind = any ($1)
      and run_at <= app.now()`, [kinds]) === 0,
  { what: `${kinds} to be done`, timeout: 120000 });
}
