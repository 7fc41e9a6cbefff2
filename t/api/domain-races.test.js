/*
 * Races of the domain, in PostgreSQL alone: many connections call the edge's
 * functions at the same moment, as many edges would.  Each race runs ROUNDS
 * times on guarded functions and must hold; then once more on a database
 * whose guard was taken away (t/unguarded), where it must be seen to break.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import pg from 'pg';
import { theCluster } from '../harness/cluster.js';
import { ROOT, until } from '../harness/proc.js';

const ROUNDS = Number(process.env.ROUNDS ?? 10);
const CLIENTS = 24;
const CTX = `row($1::uuid, '{member}', null, null, '192.0.2.1', 'race', 'en',
  null, null, null, null)::api.ctx`;

let cluster, main;
const open = [];

/* SQL with \ir lines, as psql would read it. */
function sqlFile(file) {
  return fs.readFileSync(file, 'utf8').replace(/^\\ir (.*)$/gm,
    (_, name) => sqlFile(path.join(path.dirname(file), name)));
}

class Db {
  static async make(unguarded) {
    const db = new Db();

    db.name = `races_${process.pid}_${crypto.randomBytes(4).toString('hex')}`;
    await cluster.copy(db.name);
    db.pool = Array.from({ length: CLIENTS },
      () => new pg.Client(cluster.config(db.name)));
    open.push(db); /* those that are open are closed, whatever comes */
    await Promise.all(db.pool.map((client) => client.connect()));
    await Promise.all(db.pool.map((client) =>
      client.query('set search_path = pg_catalog')));
    await db.q(sqlFile(path.join(ROOT, 't/sql/_lib.sql')));
    if (unguarded) {
      await db.q(sqlFile(path.join(ROOT, `t/unguarded/${unguarded}.sql`)));
    }
    db.org = await db.one(
      `select t.person('org@t.example', '{organizer,member}')`);
    db.people = [];
    for (let i = 0; i < CLIENTS; i++) {
      db.people.push(await db.one(`select t.person('p${i}@t.example')`));
    }
    return db;
  }

  q(text, params) { return this.pool[0].query(text, params); }

  async one(text, params) {
    const { rows } = await this.q(text, params);

    return Object.values(rows[0] ?? { none: undefined })[0];
  }

  /* All at once: [{value} or {error: sqlstate}]; f(i) gives [text, params]. */
  async all(n, f) {
    const jobs = Array.from({ length: n }, (_, i) => f(i));

    return Promise.all(jobs.map(async ([text, params], i) => {
      try {
        const { rows } = await this.pool[i % CLIENTS].query(text, params);

        return { value: Object.values(rows[0])[0], rows };
      } catch (error) {
        return { error: error.code, message: error.message };
      }
    }));
  }

  event(fields = {}) {
    return this.one('select t.event($1, $2)', [this.org, fields]);
  }

  type(event, fields) {
    return this.one('select t.type($1, $2)', [event, fields]);
  }

  async drift() { return (await this.q('select * from t.drift')).rows; }

  async close() {
    await Promise.all(this.pool.map((c) => c.end()));
    await cluster.drop(this.name);
  }
}

function order(user, items, promo = null) {
  return [`select row_to_json(a) from api.orders_create(array[1],
    array[${CTX}], array[jsonb_strip_nulls(jsonb_build_object('items',
    $2::jsonb, 'promo_code', $3::text))], array[t.codes($2::jsonb)]) a`,
  [user, JSON.stringify(items), promo]];
}

function item(type, quantity = 1) {
  return { ticket_type_id: type, quantity };
}

/* {"201": n, "SOLD_OUT": n, "40P01": n} */
function tally(results) {
  const t = {};

  for (const r of results) {
    const key = r.error ?? r.value?.body?.code ?? r.value?.status ?? 'none';

    t[key] = (t[key] ?? 0) + 1;
  }
  return t;
}

before(async () => {
  cluster = await theCluster();
  main = await Db.make();
});
after(async () => {
  for (const db of open) await db.close();
  if (cluster?.private) await cluster.destroy();
});

/* Runs it ROUNDS times as it is, and until it breaks without the guard. */
function race(name, unguarded, run) {
  test(name, async () => {
    for (let i = 0; i < ROUNDS; i++) {
      await run(main);
      assert.deepEqual(await main.drift(), []);
    }
  });
  if (!unguarded) return;
  test(`${name}: fails without its guard`, async () => {
    const bare = await Db.make(unguarded);
    let broke = null;

    for (let i = 0; i < 5 && !broke; i++) {
      try {
        await run(bare);
      } catch (error) {
        if (error.code !== 'ERR_ASSERTION') throw error;
        broke = error;
      }
    }
    assert.ok(broke, 'the race was not seen although nothing guards it');
  });
}

race('I-1: a quota of 20, everybody at once', 'i1', async (db) => {
  const type = await db.type(await db.event(), { quota: 20 });
  const t = tally(await db.all(60, (i) =>
    order(db.people[i % CLIENTS], [item(type)])));

  assert.deepEqual(t, { 201: 20, SOLD_OUT: 40 });
  assert.equal(await db.one(
    'select sold from app.ticket_types where id = $1', [type]), 20);
  assert.equal(await db.one(`select count(distinct code)::int
    from app.tickets where ticket_type_id = $1`, [type]), 20);
});

race('I-1: the same by batches', null, async (db) => {
  const type = await db.type(await db.event(), { quota: 50 });
  const got = await db.all(CLIENTS, (i) => [
    `select json_agg(row_to_json(a)) from api.orders_create(
      array(select generate_series(1, 8)), array_fill(${CTX}, array[8]),
      array_fill(jsonb_build_object('items', $2::jsonb), array[8]),
      array(select t.codes($2::jsonb) from generate_series(1, 8))) a`,
    [db.people[i], JSON.stringify([item(type)])]]);

  assert.deepEqual(tally(got.flatMap((g) =>
    (g.error ? [g] : g.value.map((value) => ({ value }))))),
  { 201: 50, SOLD_OUT: CLIENTS * 8 - 50 });
});

race('I-2: two types in either order, and a capacity', 'i1', async (db) => {
  const event = await db.event({ capacity: 45 });
  const a = await db.type(event, { quota: 30 });
  const b = await db.type(event, { quota: 20 });
  const t = tally(await db.all(60, (i) => order(db.people[i % CLIENTS],
    i % 2 ? [item(a), item(b)] : [item(b), item(a)])));

  assert.deepEqual(t, { 201: 20, SOLD_OUT: 40 }, 'no deadlock, no half order');
  const left = tally(await db.all(20, (i) =>
    order(db.people[i], [item(a)])));

  assert.deepEqual(left, { 201: 5, SOLD_OUT: 15 });
});

race('I-6: the quota is lowered while everybody buys', 'i6', async (db) => {
  const type = await db.type(await db.event(), { quota: 40 });
  const got = await db.all(48, (i) => (i === 10
    ? [`select row_to_json(a) from api.ticket_types_update(${CTX}, $2, null,
        '{"quota": 20}') a`, [db.org, type]]
    : order(db.people[i % CLIENTS], [item(type)])));
  const { quota, sold } = (await db.q(
    'select quota, sold from app.ticket_types where id = $1', [type])).rows[0];

  assert.ok(sold <= quota, `${sold} sold of ${quota}`);
  assert.ok(got[10].value.status === 200
    || got[10].value.body.code === 'QUOTA_BELOW_SOLD');
  assert.equal(tally(got)[201], sold);
});

test('I-3: a storm of every transition, then the free number fits',
  async () => {
    const event = await main.event({ capacity: 70 });
    const free = await main.type(event, { quota: 30 });
    const paid = await main.type(event, { quota: 60, price_cents: 500 });
    const orders = [];
    const until = Date.now() + Math.min(20000, 400 * ROUNDS);
    const pick = (list) => list[Math.floor(Math.random() * list.length)];

    await main.q(`select app.settings_put('{"hold_ttl": "2s"}')`);
    const one = async (client, user) => {
      while (Date.now() < until) {
        const n = 1 + Math.floor(Math.random() * 3);
        const id = pick(orders);
        const moves = [
          () => order(user, [item(pick([free, paid]), n)]),
          () => order(user, [item(free, 1), item(paid, 1)]),
          () => id && ['select t.pay($1)', [id]],
          () => id && [`select row_to_json(a) from api.orders_cancel(
            ${CTX}, $2) a`, [main.org, id]],
          () => id && [`select row_to_json(a) from api.orders_refund(
            ${CTX}, $2, '{}') a`, [main.org, id]],
          () => ['select app.holds_release($1)', [event]],
        ];
        const move = pick(moves)();

        if (!move) continue;
        try {
          const { rows } = await client.query(...move);
          const answer = rows[0].row_to_json;

          if (answer?.status === 201 && answer.body.items) {
            orders.push(answer.body.id);
          }
        } catch (error) {
          // seats on the way back decide: the edge and workers try again
          assert.equal(error.code, '40001', error.message);
        }
      }
    };

    await Promise.all([
      ...main.pool.slice(1).map((c, i) => one(c, main.people[i])),
      (async () => {
        while (Date.now() < until) {
          assert.deepEqual(await main.drift(), []);
        }
      })(),
    ]);
    await main.q(`select app.settings_put('{"hold_ttl": "15m"}')`);
    await main.q('select pg_sleep(2.1)');
    assert.deepEqual(await main.drift(), []);

    const { rows } = await main.q(`select l.id, (l.item->>'remaining')::int as n
      from api.ticket_types_list l where l.event_id = $1`, [event]);

    for (const { id, n } of rows) {
      const shown = await main.one(`select (item->>'remaining')::int
        from api.ticket_types_list where id = $1`, [id]);

      for (let i = 0; i < shown; i++) {
        const [r] = await main.all(1, () =>
          order(main.people[0], [item(id)]));

        assert.equal(r.value.status, 201, `seat ${i} of ${shown}, ${n} before`);
      }
      const [r] = await main.all(1, () => order(main.people[0], [item(id)]));

      assert.equal(r.value.body.code, 'SOLD_OUT');
    }
    assert.deepEqual(await main.drift(), []);
  });

race('I-4: payment and expiry in the same moment', null, async (db) => {
  const type = await db.type(await db.event(), { quota: 100, price_cents: 9 });
  const ids = [];

  for (let i = 0; i < 12; i++) {
    ids.push(await db.one('select t.order_id($1, $2)', [db.people[i], type]));
  }
  await db.q(`update app.orders set reserved_until = app.now()
    where id = any ($1)`, [ids]);
  await db.all(24, (i) => (i % 2
    ? [`select task.order_expire(o.id, o.payload) from queue.outbox o
        where o.kind = 'order.expire' and o.payload->>'order_id' = $1`,
      [ids[i >> 1]]]
    : [`select app.payment_fact(p.id, p.amount_cents, null, false, false, 'x')
        from app.payments p where p.order_id = $1`, [ids[i >> 1]]]));
  const { rows } = await db.q(`select o.status, count(distinct t.id) filter (
      where t.state = 'valid')::int as live, count(distinct r.id)::int as refunds
    from app.orders o
    left join app.tickets t on t.order_id = o.id
    left join app.refunds r on r.order_id = o.id
    where o.id = any ($1) group by o.id`, [ids]);

  for (const r of rows) {
    assert.ok((r.status === 'paid' && r.live === 1 && r.refunds === 0)
      || (r.status === 'expired' && r.live === 0 && r.refunds === 1),
    JSON.stringify(r));
  }
});

function scan(who, code, nonce = null, gate = null) {
  return [`select row_to_json(a) from t.door(array[1],
    array[${CTX}], array[$2::text], array[null::uuid], array[null::text],
    array[$3::text], array[null::text], array[$4::text],
    array[null::text]) a`, [who, code, nonce, gate]];
}

async function ticket(db) {
  const type = await db.type(await db.event(), { quota: 5 });
  const id = await db.one('select t.order_id($1, $2)', [db.people[0], type]);

  return (await db.q('select id, code from app.tickets where order_id = $1',
    [id])).rows[0];
}

race('I-7: twenty scanners, one ticket', 'i7', async (db) => {
  const { id, code } = await ticket(db);
  const got = await db.all(20, (i) => scan(db.org, code, null, `G${i}`));
  const winners = got.filter((g) => g.value.body.verdict === 'admitted');

  assert.equal(winners.length, 1);
  for (const g of got) {
    assert.ok(['admitted', 'already_used'].includes(g.value.body.verdict));
    assert.equal(g.value.body.gate, winners[0].value.body.gate);
    assert.equal(g.value.body.admittedAt, winners[0].value.body.admittedAt);
  }
  assert.equal(await db.one(`select count(*)::int from app.scan_events
    where ticket_id = $1 and verdict = 'admitted'`, [id]), 1);
});

race('I-8: one nonce, fifty times', 'i8', async (db) => {
  const { id, code } = await ticket(db);
  const nonce = crypto.randomUUID();
  const got = await db.all(50, () => scan(db.org, code, nonce, 'N'));

  assert.equal(new Set(got.map((g) => g.error ?? JSON.stringify(
    g.value.body))).size, 1);
  assert.equal(got[0].value.body.verdict, 'admitted');
  assert.equal(await db.one(`select count(*)::int from app.scan_events
    where ticket_id = $1`, [id]), 1);
});

race('I-10: reissued while it is scanned', null, async (db) => {
  const { id, code } = await ticket(db);
  const got = await db.all(12, (i) => (i === 5
    ? [`select row_to_json(a) from api.tickets_reissue(${CTX}, $2, 1,
        $3 || 'NEW', '{}') a`, [db.people[0], id, code.slice(0, 28)]]
    : scan(db.org, code)));
  const verdicts = got.filter((_, i) => i !== 5)
    .map((g) => g.value.body.verdict);
  const admitted = verdicts.filter((v) => v === 'admitted').length;

  if (got[5].value.status === 200) {
    assert.equal(admitted, 0);
    assert.ok(verdicts.every((v) => v === 'cancelled'), String(verdicts));
  } else {
    assert.equal(got[5].value.body.code, 'INVALID_STATE');
    assert.equal(admitted, 1);
  }
});

race('I-26: fifty refunds of one payment', 'i26', async (db) => {
  const type = await db.type(await db.event(), { quota: 5,
    price_cents: 10000 });
  const id = await db.one('select t.order_id($1, $2)', [db.people[0], type]);

  await db.q('select t.pay($1)', [id]);
  const got = await db.all(50, () => [
    `select row_to_json(a) from api.orders_refund(${CTX}, $2,
      jsonb_build_object('amount_cents', $3::int)) a`,
    [db.org, id, 100 + Math.floor(Math.random() * 900)]]);
  const { captured, refunded } = (await db.q(`select p.captured_cents as
      captured, sum(r.amount_cents)::bigint as refunded
    from app.payments p join app.refunds r on r.payment_id = p.id
    where p.order_id = $1 group by p.id`, [id])).rows[0];

  assert.ok(Number(refunded) <= Number(captured), `${refunded}/${captured}`);
  for (const g of got) {
    assert.ok(g.value?.status === 201
      || g.value?.body.code === 'REFUND_EXCEEDS', JSON.stringify(g));
  }
});

race('I-27: a promo code for ten, one each', 'i27', async (db) => {
  const event = await db.event();
  const type = await db.type(event, { quota: 500, price_cents: 1000 });
  const code = crypto.randomBytes(4).toString('hex');

  await db.q(`select api.promo_codes_create(${CTX}, $2, jsonb_build_object(
    'code', $3::text, 'kind', 'percent', 'value', 50, 'max_uses', 10))`,
  [db.org, event, code]);
  const t = tally(await db.all(72, (i) =>
    order(db.people[i % CLIENTS], [item(type)], code)));

  assert.deepEqual(t, { 201: 10, PROMO_EXHAUSTED: 62 });
  assert.equal(await db.one(`select max(n)::int from (select count(*) as n
    from app.promo_redemptions r join app.promo_codes c on c.id = r.promo_id
    where c.event_id = $1 group by r.user_id) x`, [event]), 1);
});

race('I-37: one e-mail address in many spellings', null, async (db) => {
  const name = crypto.randomBytes(6).toString('hex');
  const got = await db.all(20, (i) => [
    `select json_build_object('status', a.status, 'body', a.body)
      from api.auth_register(${CTX}, $2, 'h', 'A', 'B', 'ua', 'en') a`,
    [null, i % 2 ? `${name}@T.Example` : `${name.toUpperCase()}@t.example`]]);

  assert.deepEqual(tally(got), { 201: 1, EMAIL_TAKEN: 19 });
  assert.equal(await db.one(`select count(*)::int from app.login_sessions s
    join app.users u on u.id = s.user_id where u.email = $1`,
  [`${name}@t.example`]), 1);
});

race('I-38: twenty tabs refresh with one token', 'i38', async (db) => {
  const sid = await db.one(`select sid from api.auth_login_finish(${CTX},
    $1, false, null, 'ua', (select password_hash from app.users
      where id = $1))`, [db.people[3]]);
  const got = await db.all(20, () => [
    `select json_build_object('status', a.status, 'body', a.body,
      'counter', a.counter, 'how', a.refresh)
      from api.auth_refresh(${CTX}, $2, 1) a`, [null, sid]]);

  assert.deepEqual(tally(got), { 200: 20 });
  assert.deepEqual([...new Set(got.map((g) => g.value.counter))], [2]);
  assert.equal(got.filter((g) => g.value.how === 'rotated').length, 1);
});

race('I-39: one reset token, ten clients', 'i39', async (db) => {
  const token = crypto.randomBytes(32);

  await db.q(`select task.mail_token(null, jsonb_build_object('template',
    'password_reset', 'user_id', u.id), u.email, $2) from app.users u
    where u.id = $1`, [db.people[4], token]);
  const got = await db.all(10, (i) => [
    `select row_to_json(a) from api.auth_reset(${CTX}, $2, $3) a`,
    [null, token, `hash-${i}`]]);

  assert.deepEqual(tally(got), { 200: 1, VALIDATION_FAILED: 9 });
});

race('I-37: one identity signs in for the first time, in many tabs', 'i37',
  async (db) => {
    const email = `${crypto.randomBytes(6).toString('hex')}@t.example`;
    const sub = crypto.randomUUID();
    const got = await db.all(20, () => [
      `select json_build_object('status', a.status, 'body', a.body)
        from api.oauth_sign_in(${CTX}, 'p', 'https://p', $2, $3, true, 'A',
          'B', false, 'ua', sha256(gen_random_uuid()::text::bytea),
          app.now()) a`, [null, sub, email]]);

    assert.deepEqual(tally(got), { 200: 20 });
    assert.equal(await db.one(`select count(*)::int from app.users u
      join app.oauth_identities i on i.user_id = u.id where u.email = $1`,
    [email]), 1);
  });

race('two identities, unlinked at once: one remains', 'unlink', async (db) => {
  const email = `${crypto.randomBytes(6).toString('hex')}@t.example`;

  await db.q(`select api.oauth_sign_in(${CTX}, 'p', 'https://p', s.n || $2,
    $2, true, 'A', 'B', false, 'ua', sha256(gen_random_uuid()::text::bytea),
    app.now()) from generate_series(1, 2) s (n)`,
  [null, email]);

  const { rows } = await db.q(`select i.id, i.user_id from app.oauth_identities
    i join app.users u on u.id = i.user_id where u.email = $1`, [email]);

  assert.equal(rows.length, 2);

  const got = await db.all(2, (i) => [
    `select row_to_json(a) from api.identity_unlink(${CTX}, $2) a`,
    [rows[i].user_id, rows[i].id]]);

  assert.deepEqual(tally(got), { 200: 1, LAST_WAY_IN: 1 });
});

race('registration: once per person', null, async (db) => {
  const event = await db.event();
  const type = await db.type(event, { quota: 50 });
  const t = tally(await db.all(20, () => [
    `select row_to_json(a) from api.events_register(${CTX}, $2, $3,
      t.codes(t.items($3, 1))) a`, [db.people[1], event, type]]));

  assert.deepEqual(t, { 201: 1, ALREADY_REGISTERED: 19 });
});

test('I-24: one Idempotency-Key in many hands', async () => {
  for (let i = 0; i < ROUNDS; i++) {
    const key = crypto.randomUUID();
    const got = await main.all(20, () => [
      `with i as materialized (select b.* from api.idem_begin('u', $1, 'p') b),
        s as (select api.idem_store('u', $1, 'p', 201, '{"a":1}', null, null)
          from i where i.state = 'new')
        select i.state || coalesce((select '' from s), '') from i`, [key]]);

    assert.equal(got.filter((g) => g.value === 'new').length, 1);
    for (const g of got) {
      assert.ok(['new', 'in_flight', 'stored'].includes(g.value)
        || g.error === '23505', JSON.stringify(g));
    }
  }
});

test('the audit chain: sealed by many at once, whole, and telling', async () => {
  for (let i = 0; i < ROUNDS; i++) {
    await main.all(CLIENTS, (n) => (n % 3 === 0
      ? [`select task.audit_seal(queue.enqueue('audit.seal', '{}'), '{}')`]
      : [`select row_to_json(a) from api.auth_forgot(${CTX}, 'x@y.example') a`,
        [null]]));
  }
  /* transactions of other databases of the cluster hold the sealer back */
  await until(async () => {
    await main.q(`select task.audit_seal(queue.enqueue('audit.seal', '{}'),
      '{}')`);
    return await main.one('select count(*)::int from app.audit_chain')
      === await main.one('select count(*)::int from app.audit_log');
  }, { timeout: 30000, what: 'all of the log in the chain' });
  assert.deepEqual((await main.q('select * from app.audit_verify(0)')).rows,
    []);

  await main.q(`alter table app.audit_log disable trigger all;
    update app.audit_log set action = 'forged'
    where id = (select min(id) from app.audit_log)`);
  assert.deepEqual((await main.q('select problem from app.audit_verify(0)'))
    .rows, [{ problem: 'altered' }]);
});
