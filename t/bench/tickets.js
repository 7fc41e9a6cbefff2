/*
 * Tickets for the bench, put straight into the tables: a million purchases
 * through the front door would measure patience.  The codes have the form
 * and size of real ones and the ids that the door looks up; the door
 * compares what is stored, so the signature's bytes may be random.
 */

import crypto from 'node:crypto';

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';

function base32(bytes) {
  let out = '';
  let bits = 0;
  let value = 0;

  for (const byte of bytes) {
    value = (value << 8) | byte;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      out += ALPHABET[(value >>> bits) & 31];
    }
    value &= (1 << bits) - 1;
  }
  return bits ? out + ALPHABET[(value << (5 - bits)) & 31] : out;
}

let last = 0;
let count = 0;

function uuid7() {
  const bytes = crypto.randomBytes(16);
  const now = Math.max(last, Date.now());

  count = now === last ? count + 1 : 0;
  last = count > 4000 ? now + 1 : now;
  bytes.writeUIntBE(last, 0, 6);
  bytes.writeUInt16BE(0x7000 | (count & 0xfff), 6);
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return bytes;
}

const text = (b) => b.toString('hex').replace(
  /^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');

const ORDERS = `
with o as (
    insert into app.orders (id, buyer_id, event_id, status, holds,
        subtotal_cents, discount_cents, total_cents, currency, lang,
        created_at, updated_at, paid_at)
    select id, $2, $3, 'paid', true, 0, 0, 0, 'EUR', 'en', now(), now(), now()
    from unnest($1::uuid[]) id)
insert into app.order_items (order_id, line, ticket_type_id, quantity,
    unit_price_cents, discount_cents, line_total_cents, name)
select id, 1, $4, 1, 0, 0, 0, 'Bench' from unnest($1::uuid[]) id`;

const TICKETS = `
insert into app.tickets (id, order_id, line, event_id, ticket_type_id,
    holder_id, holder_name, price_cents, code, state, created_at, updated_at)
select t.id, t.o, 1, $5, $6, $4, 'Bench', 0, t.code, 'valid', now(), now()
from unnest($1::uuid[], $2::uuid[], $3::text[]) as t (id, o, code)`;

/* n valid tickets of the bench's event, in creation order: [{id, code}] */
export async function makeTickets(bench, n) {
  const { app, buyer, event } = bench;
  const type = event.types[0].id;
  const typeBytes = Buffer.from(type.replaceAll('-', ''), 'hex');
  const made = [];

  while (made.length < n) {
    const part = [];

    for (let i = 0; i < 5000 && made.length + part.length < n; i++) {
      const id = uuid7();

      part.push({ id: text(id), order: text(uuid7()),
        code: base32(Buffer.concat([Buffer.from([1]), id, typeBytes,
          Buffer.from([1]), crypto.randomBytes(64)])) });
    }
    const orders = part.map((t) => t.order);

    await app.sql(ORDERS, [orders, buyer.id, event.id, type]);
    await app.sql(TICKETS, [part.map((t) => t.id), orders,
      part.map((t) => t.code), buyer.id, event.id, type]);
    made.push(...part);
  }
  await app.sql('update app.ticket_types set sold = sold + $1 where id = $2',
    [n, type]);
  await app.sql('update app.events set sold = sold + $1 where id = $2',
    [n, event.id]);
  await app.sql('analyze app.tickets');
  await app.sql('checkpoint');
  return made;
}

/* Orders and tickets of another event that only make the tables larger. */
export async function makeFiller(bench, orders, tickets) {
  const { app, buyer, organizer } = bench;

  bench.filler ??= await app.event(organizer,
    { types: [{ priceCents: 0, quota: 10000000 }] });
  const event = bench.filler.id;
  const type = bench.filler.types[0].id;
  const each = Math.ceil(tickets / orders);

  for (let done = 0; done < orders; done += 20000) {
    await app.sql(`
      with o as materialized (
        select app.uuid7() as id
        from generate_series(1, least(20000, $1::int))
      ), a as (
        insert into app.orders (id, buyer_id, event_id, status, holds,
          subtotal_cents, discount_cents, total_cents, currency, lang,
          created_at, updated_at, paid_at)
        select id, $2, $3, 'paid', true, 0, 0, 0, 'EUR', 'en', now(), now(),
          now() from o
      )
      insert into app.order_items (order_id, line, ticket_type_id, quantity,
        unit_price_cents, discount_cents, line_total_cents, name)
      select id, 1, $4, $5, 0, 0, 0, 'Filler' from o`,
    [orders - done, buyer.id, event, type, each]);
    await app.sql(`
      insert into app.tickets (id, order_id, line, event_id, ticket_type_id,
        holder_id, holder_name, price_cents, code, state, created_at,
        updated_at)
      select app.uuid7(), o.id, 1, $1, $2, $3, 'Filler', 0,
        rpad(upper(translate(gen_random_uuid()::text, '-0189', 'ABCDE')), 157,
          'A'), 'valid', now(), now()
      from app.orders o, generate_series(1, $4::int)
      where o.event_id = $1 and not exists (
        select from app.tickets t where t.order_id = o.id)`,
    [event, type, buyer.id, each]);
  }
  await app.sql('vacuum analyze app.tickets');
  await app.sql('vacuum analyze app.orders');
  await app.sql('checkpoint');
}
