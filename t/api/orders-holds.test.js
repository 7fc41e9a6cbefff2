/*
 * Holds that ran out while somebody is moving their orders: a buyer is never
 * told SOLD_OUT although the seats are about to be free, and never gets a
 * seat that a payment keeps.  Two sessions, in PostgreSQL alone; one of them
 * has an order's row locked, as a worker has between its look and its write.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import path from 'node:path';
import { after, before, test } from 'node:test';
import pg from 'pg';
import { theCluster } from '../harness/cluster.js';
import { ROOT, run, until } from '../harness/proc.js';

const CTX = `row($1::uuid, '{member}', null, null, '192.0.2.1', 'holds', 'en',
  null, null, null, null)::api.ctx`;

let cluster, name, mover, buyer, other, org, people;
const clients = [];

async function one(client, text, params) {
  const { rows } = await client.query(text, params);

  return Object.values(rows[0] ?? { none: undefined })[0];
}

function buy(client, person, type, quantity = 1, promo = null) {
  const items = JSON.stringify([{ ticket_type_id: type, quantity }]);

  return one(client, `select row_to_json(a) from api.orders_create(array[1],
    array[${CTX}], array[jsonb_strip_nulls(jsonb_build_object('items',
    $2::jsonb, 'promo_code', $3::text))], array[t.codes($2::jsonb)]) a`,
  [person, items, promo]);
}

/* An event with one type, all of it held by people[0], whose hold ran out. */
async function lapsed(quota, held, fields = {}) {
  const event = await one(buyer, 'select t.event($1)', [org]);
  const type = await one(buyer, 'select t.type($1, $2)', [event,
    { quota, price_cents: 500, max_per_order: 100, ...fields }]);
  const order = await one(buyer, 'select t.order_id($1, $2, $3)',
    [people[0], type, held]);

  await buyer.query(`update app.orders set reserved_until = app.now()
    - interval '1 s' where id = $1`, [order]);
  return { event, type, order };
}

function lock(order) {
  return mover.query('select id from app.orders where id = $1 for no key update',
    [order]);
}

function expire(client, order) {
  return client.query(`select task.order_expire(o.id, o.payload)
    from queue.outbox o
    where o.kind = 'order.expire' and o.payload->>'order_id' = $1`, [order]);
}

/* Until a session waits for a lock; or its query ended without. */
function waits(client, query) {
  let ended = false;

  query.then(() => { ended = true; }, () => { ended = true; });
  return until(async () => ended || await one(mover, `select count(*)::int
    from pg_locks where pid = $1 and not granted`, [client.processID]) > 0);
}

before(async () => {
  cluster = await theCluster();
  name = `holds_${process.pid}_${crypto.randomBytes(4).toString('hex')}`;
  await cluster.copy(name);
  await run('psql', ['-X', '-q', '-h', cluster.data, '-U', 'postgres', '-d',
    name, '-f', path.join(ROOT, 't/sql/_lib.sql')]);
  for (let i = 0; i < 3; i++) {
    const client = new pg.Client(cluster.config(name));

    await client.connect();
    await client.query(`set search_path = pg_catalog;
      set statement_timeout = '20s'`);
    clients.push(client);
  }
  [mover, buyer, other] = clients;
  org = await one(buyer, `select t.person('o@t.example', '{organizer,member}')`);
  people = [];
  for (let i = 0; i < 3; i++) {
    people.push(await one(buyer, `select t.person('p${i}@t.example')`));
  }
});
after(async () => {
  await Promise.all(clients.map((c) => c.end()));
  if (name) await cluster?.drop(name);
  if (cluster?.private) await cluster.destroy();
});

async function drift() {
  assert.deepEqual((await buyer.query('select * from t.drift')).rows, []);
}

test('an expiry on its way: the buyer waits for it and gets the seats',
  async () => {
    const { type, order } = await lapsed(2, 2);

    await mover.query('begin');
    await lock(order);
    const bought = buy(buyer, people[1], type, 2);

    await waits(buyer, bought);
    await expire(mover, order);
    await mover.query('commit');
    assert.equal((await bought).status, 201);
    await drift();
  });

test('an expiry that fails: the buyer ends the hold', async () => {
  const { type, order } = await lapsed(2, 2);

  await mover.query('begin');
  await lock(order);
  const bought = buy(buyer, people[1], type, 2);

  await waits(buyer, bought);
  await mover.query('rollback');
  assert.equal((await bought).status, 201);
  assert.equal(await one(buyer, 'select status from app.orders where id = $1',
    [order]), 'expired');
  await drift();
});

test('a payment on its way: the seats are sold', async () => {
  const { type, order } = await lapsed(2, 2);

  await mover.query('begin');
  await lock(order);
  const bought = buy(buyer, people[1], type, 1);

  await waits(buyer, bought);
  await mover.query('select t.pay($1)', [order]);
  await mover.query('commit');
  assert.equal((await bought).body.code, 'SOLD_OUT');
  assert.equal(await one(buyer, 'select status from app.orders where id = $1',
    [order]), 'paid');
  await drift();
});

test('a promo code whose last use ran out', async () => {
  const event = await one(buyer, 'select t.event($1)', [org]);
  const type = await one(buyer, 'select t.type($1, $2)', [event,
    { quota: 1000, price_cents: 500 }]);

  await buyer.query(`select api.promo_codes_create(${CTX}, $2, '{"code": "ONE",
    "kind": "percent", "value": 50, "max_uses": 1}')`, [org, event]);
  const order = (await buy(buyer, people[0], type, 1, 'ONE')).body.id;

  await buyer.query(`update app.orders set reserved_until = app.now()
    - interval '1 s' where id = $1`, [order]);
  await mover.query('begin');
  await lock(order);
  const bought = buy(buyer, people[1], type, 1, 'ONE');

  await waits(buyer, bought);
  await expire(mover, order);
  await mover.query('commit');
  assert.equal((await bought).status, 201);
  await drift();
});

test('seats that went short after the look: no guess, another try',
  async () => {
    // plenty by the look: 164 are left, and one comes free
    const { type, order } = await lapsed(165, 1);

    await mover.query('begin');
    await lock(order);
    await other.query('begin');
    assert.equal((await buy(other, people[2], type, 100)).status, 201);

    const bought = buy(buyer, people[1], type, 65);

    bought.catch(() => {});
    await waits(buyer, bought);
    await other.query('commit');
    await assert.rejects(bought, { code: '40001' });
    await mover.query('rollback');
    assert.equal((await buy(buyer, people[1], type, 65)).status, 201);
    await drift();
  });

test('a late payment while the seats come free: another try, no refund',
  async () => {
    const { type, order } = await lapsed(1, 1);

    await expire(buyer, order);
    const second = (await buy(buyer, people[1], type, 1)).body.id;

    await buyer.query(`update app.orders set reserved_until = app.now()
      - interval '1 s' where id = $1`, [second]);
    await mover.query('begin');
    await lock(second);
    await assert.rejects(buyer.query('select t.pay($1)', [order]),
      { code: '40001' });
    await expire(mover, second);
    await mover.query('commit');
    await buyer.query('select t.pay($1)', [order]);
    assert.equal(await one(buyer,
      'select status from app.orders where id = $1', [order]), 'paid');
    await drift();
  });

test('without its guard the buyer is told SOLD_OUT', async () => {
  const { type, order } = await lapsed(2, 2);

  await run('psql', ['-X', '-q', '-h', cluster.data, '-U', 'postgres', '-d',
    name, '-v', 'ON_ERROR_STOP=1', '-f',
    path.join(ROOT, 't/unguarded/holds.sql')]);
  await mover.query('begin');
  await lock(order);
  assert.equal((await buy(buyer, people[1], type, 2)).body.code, 'SOLD_OUT');
  await mover.query('rollback');
});
