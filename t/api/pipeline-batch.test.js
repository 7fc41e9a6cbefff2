/*
 * Batching (decision 7) and the promise that no reply precedes its commit
 * (decision 1): requests of one row share a statement and a commit, each gets
 * its own answer, one that breaks a rule harms nobody else, and an error that
 * PostgreSQL raises only at commit is the answer.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';

let app, alice, olga, scanner, event, tickets;

before(async () => {
  app = await boot({
    workers: 0, nginxWorkers: 1, allowLog: [/did not answer each of/],
  });
  [alice, olga] = [await app.user(), await app.user('organizer')];
  event = await app.event(olga, {
    types: [{ priceCents: 0, quota: 5000, maxPerOrder: 50 }],
  });
  tickets = [];
  for (let i = 0; i < 4; i++) {
    tickets.push(...await app.freeTickets(alice, event.types[0].id, 50));
  }
  scanner = olga; /* the organizer may scan at an own event */
  await wrap();
});
after(() => app?.stop());

/*
 * The admission function with faults that a code asks for: the real one runs
 * behind it.  "first" makes a batch slow, so that the next one fills.
 */
async function wrap() {
  const [{ name, list, result, names, types }] = await app.sql(`select
      p.oid::regprocedure::text as name,
      pg_get_function_arguments(p.oid) as list,
      pg_get_function_result(p.oid) as result,
      p.proargnames[1:p.pronargs] as names,
      pg_get_function_identity_arguments(p.oid) as types
    from pg_proc p where p.pronamespace = 'api'::regnamespace
      and p.proname = 'orders_validate'`);
  const own = names.map((x) => `orders_validate.${x}`);
  const [ords] = own;
  const codes = own[names.findIndex((x) => x.startsWith('code'))];

  await app.sql(`alter function ${name} rename to orders_validate_real`);
  await app.sql('create table app.test_batches (n int)');
  await app.sql(`create function api.orders_validate(${list})
    returns ${result} language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
    begin
      insert into app.test_batches values (cardinality(${ords}));
      if 'SLOW' = any (${codes}) then perform pg_sleep(0.4); end if;
      if 'BOOM' = any (${codes}) then
        raise exception 'boom' using errcode = '23514';
      end if;
      return query select * from api.orders_validate_real(${own}) r
        where not ('DROP' = any (${codes}) and r.ord = 1);
    end $$`);
  await app.sql(`alter function api.orders_validate(${types})
    owner to stoa_owner`);
  await app.sql(`grant execute on function api.orders_validate(${types})
    to stoa_edge`);
  await app.sql('alter table app.test_batches owner to stoa_owner');
}

const scan = (code) => ({
  method: 'POST', path: '/api/v1/orders/validate', token: scanner.token,
  body: { code, eventId: event.id }, validate: false,
});
const batches = async () =>
  (await app.sql('delete from app.test_batches returning n')).map((r) => r.n);

/* All but the first arrive while the first one's statement runs. */
async function behindSlow(codes) {
  await batches();
  const first = app.api('POST', '/api/v1/orders/validate', scan('SLOW'));

  await new Promise((done) => setTimeout(done, 100));
  const all = await app.barrier(codes.length, (i) => scan(codes[i]));

  assert.equal((await first).status, 200);
  return all;
}

test('requests that wait share one statement and one commit', async () => {
  const codes = tickets.splice(0, 40).map((t) => t.code);
  const all = await behindSlow(codes);
  const sizes = await batches();

  all.forEach((res, i) => {
    assert.equal(res.status, 200, res.text);
    assert.equal(res.data.verdict, 'admitted', res.text);
    assert.ok(res.data.ticket, `${i}`);
  });
  assert.equal(sizes.reduce((a, b) => a + b, 0), 41);
  assert.equal(sizes[0], 1);
  /* a second batch may start beside the slow one once 16 wait */
  assert.ok(sizes.length <= 4, `batches of ${sizes}`);
  assert.ok(Math.max(...sizes) >= 16, `batches of ${sizes}`);
});

test('each gets its own answer, whatever the others get', async () => {
  const mine = tickets.splice(0, 10);
  const codes = mine.flatMap((t) => [t.code, `NOPE${t.id}`]);
  const all = await behindSlow(codes);

  all.forEach((res, i) => {
    assert.equal(res.status, 200);
    if (i % 2) {
      assert.equal(res.data.verdict, 'unknown');
    } else {
      assert.equal(res.data.verdict, 'admitted');
      assert.equal(res.data.ticket.id, mine[i / 2].id);
    }
  });
});

test('one ticket many times in one batch is admitted once', async () => {
  const { code } = tickets.shift();
  const all = await behindSlow(Array(20).fill(code));
  const verdicts = all.map((res) => res.data.verdict).sort();

  assert.equal(verdicts.filter((v) => v === 'admitted').length, 1);
  assert.equal(verdicts.filter((v) => v === 'already_used').length, 19);
});

test('a scan that waits for its ticket holds no neighbor up', async () => {
  const [held, ...free] = tickets.splice(0, 6);
  const mover = await app.client('stoa_owner');

  await app.api('POST', '/api/v1/orders/validate', scan(held.code));
  await mover.query('begin');
  await mover.query('select from app.tickets where id = $1 for update',
    [held.id]);

  const slow = app.api('POST', '/api/v1/orders/validate', scan('SLOW'));

  await new Promise((done) => setTimeout(done, 100));
  const waits = app.api('POST', '/api/v1/orders/validate', scan(held.code));
  const all = await app.barrier(free.length, (i) => scan(free[i].code));

  for (const res of all) {
    assert.equal(res.data?.verdict, 'admitted', res.text);
  }
  await mover.query('commit');
  assert.equal((await waits).data.verdict, 'already_used');
  await slow;
});

test('one that breaks the batch harms nobody else', async () => {
  const good = tickets.splice(0, 12).map((t) => t.code);
  const codes = [...good.slice(0, 6), 'BOOM', ...good.slice(6)];
  const all = await behindSlow(codes);

  all.forEach((res, i) => {
    if (codes[i] === 'BOOM') {
      assert.equal(res.status, 500, res.text);
      assert.equal(res.error.code, 'INTERNAL');
      assert.ok(!res.text.includes('boom'), 'SQL is not echoed');
    } else {
      assert.equal(res.status, 200, res.text);
      assert.equal(res.data.verdict, 'admitted');
    }
  });
});

test('a missing answer is 500 for the whole batch', async () => {
  const [a, b] = tickets.splice(0, 2);
  const all = await behindSlow(['DROP', a.code, b.code]);

  for (const res of all) assert.equal(res.status, 500, res.text);
});

test('more than one batch holds are answered all the same', async () => {
  const codes = tickets.splice(0, 100).map((t) => t.code);
  const all = await behindSlow(codes);
  const sizes = await batches();

  assert.ok(all.every((res) => res.data?.verdict === 'admitted'));
  assert.ok(sizes.every((n) => n <= 64), `${sizes}`);
});

test('clients that leave do not take their neighbors along', async () => {
  const codes = tickets.splice(0, 10).map((t) => t.code);
  const first = app.api('POST', '/api/v1/orders/validate', scan('SLOW'));

  await new Promise((done) => setTimeout(done, 100));
  const gone = codes.map((code, i) => {
    const abort = new AbortController();
    const sent = app.api('POST', '/api/v1/orders/validate', {
      ...scan(code), signal: i % 2 ? abort.signal : undefined,
    }).then((res) => res.data.verdict, () => 'left');

    setTimeout(() => abort.abort(), 100);
    return sent;
  });
  const verdicts = await Promise.all(gone);

  await first;
  verdicts.forEach((v, i) => assert.equal(v, i % 2 ? 'left' : 'admitted'));
});

/* ---- a flow's statement ---- */

const sid = (grant) => JSON.parse(Buffer.from(
  grant.accessToken.split('.')[1], 'base64url')).sid;
const refresh = ({ refreshToken }) => ({
  method: 'POST', path: '/api/v1/auth/refresh', body: { refreshToken },
  validate: false,
});

test('refreshes that wait ride together, each with its own answer',
  async () => {
    const bob = await app.user();
    const made = await Promise.all(Array.from({ length: 5 }, () =>
      app.api('POST', '/api/v1/auth/login', {
        body: { email: bob.email, password: bob.password } })));
    /* fewer than a second batch beside the first would take */
    const [held, ended, racing, ...rest] = made.map((res) => res.data);
    const holder = await app.client('stoa_owner');
    const count = async () => Number(/^stoa_pg_batches_total(?:{[^}]*})? (\d+)/m
      .exec((await app.api('GET', '/metrics', { validate: false })).text)[1]);

    await app.api('DELETE', `/api/v1/auth/sessions/${sid(ended)}`,
      { token: bob.token });
    await holder.query('begin');
    await holder.query(
      'select from app.login_sessions where id = $1 for update', [sid(held)]);

    const begun = await count();
    const slow = app.api('POST', '/api/v1/auth/refresh', refresh(held));

    await new Promise((done) => setTimeout(done, 100));
    const grants = [...rest, ended, racing, racing];
    const all = Promise.all(grants.map((grant) =>
      app.api('POST', '/api/v1/auth/refresh', refresh(grant))));
    const gone = new AbortController();
    const left = app.api('POST', '/api/v1/auth/refresh',
      { ...refresh(rest[0]), signal: gone.signal }).catch(() => 'left');

    await new Promise((done) => setTimeout(done, 100));
    gone.abort();
    assert.equal(await left, 'left');
    await holder.query('commit');
    assert.equal((await slow).status, 200);

    (await all).forEach((res, i) => {
      if (grants[i] === ended) {
        assert.equal(res.error?.code, 'REFRESH_INVALID', res.text);
      } else {
        assert.equal(res.status, 200, res.text);
        assert.equal(sid(res.data), sid(grants[i]));
      }
    });
    assert.equal(new Set((await all).slice(-2)
      .map((res) => res.data.refreshToken)).size, 1, 'one successor');
    assert.equal(await count() - begun, 2);
  });

test('sessions that end and refreshes of them wait in one order', async () => {
  const bob = await app.user();
  const logins = () => Promise.all(Array.from({ length: 12 }, () =>
    app.api('POST', '/api/v1/auth/login', {
      body: { email: bob.email, password: bob.password } })));

  for (let round = 0; round < 5; round++) {
    const made = (await logins()).map((res) => res.data);
    const [first, ...all] = await Promise.all([
      app.api('DELETE', '/api/v1/auth/sessions',
        { token: made[0].accessToken }),
      ...made.slice(1).map((grant) =>
        app.api('POST', '/api/v1/auth/refresh', refresh(grant))),
    ]);

    assert.equal(first.status, 200, first.text);
    for (const res of all) assert.match(String(res.status), /^(200|401)$/);
  }
  assert.equal(await app.value(`select deadlocks::int from pg_stat_database
    where datname = current_database()`), 0);
});

/* ---- decision 1 ---- */

test('an error of the commit is the answer', async () => {
  await app.sql(`create function app.test_deferred() returns trigger
    language plpgsql as $$
    begin
      if new.title like 'deferred%' then
        raise exception 'later' using errcode = '23505',
          constraint = 'users_email_key';
      end if;
      return null;
    end $$`);
  await app.sql(`create constraint trigger test_deferred
    after insert on app.events deferrable initially deferred
    for each row execute function app.test_deferred()`);

  const make = (title) => app.api('POST', '/api/v1/events', {
    token: olga.token, validate: false,
    body: {
      title, startsAt: '2031-01-01T10:00:00Z', endsAt: '2031-01-01T12:00:00Z',
      timezone: 'UTC',
    },
  });
  const all = await Promise.all(Array.from({ length: 12 }, (_, i) =>
    make(i % 3 === 0 ? `deferred ${i}` : `at once ${i}`)));

  for (const [i, res] of all.entries()) {
    if (i % 3 === 0) {
      assert.equal(res.status, 409, res.text);
      assert.equal(res.error.code, 'EMAIL_TAKEN');
    } else {
      assert.equal(res.status, 201, res.text);
    }
  }
  assert.equal(await app.value(`select count(*)::int from app.events
    where title like 'deferred%'`), 0);
  assert.equal(await app.value(`select count(*)::int from app.events
    where title like 'at once%'`), 8);
});

/* ---- lists (decision 14) ---- */

test('cursors walk everything once', async () => {
  const list = (query) => app.api('GET', `/api/v1/events${query}`);
  const seen = [];
  let res = await list('?limit=3');
  const total = res.meta.total;

  assert.equal(res.meta.page, 1);
  assert.equal(res.meta.pages, Math.ceil(total / 3));
  for (let i = 0; i < 100; i++) {
    seen.push(...res.data.map((e) => e.id));
    if (!res.meta.nextCursor) break;
    res = await list(`?limit=3&cursor=${res.meta.nextCursor}`);
    assert.equal(res.status, 200, res.text);
    assert.equal(res.meta.total, undefined);
  }
  assert.equal(new Set(seen).size, seen.length);
  assert.equal(seen.length, total);
});

test('a forged cursor is 400', async () => {
  for (let i = 0; i < 4; i++) {
    await app.event(olga, { types: [{ quota: 1 }] });
  }
  const list = (query) => app.api('GET', `/api/v1/events${query}`);
  const good = (await list('?limit=2')).meta.nextCursor;
  const raw = Buffer.from(good, 'base64url');
  const refuse = async (query) => {
    const res = await list(query);

    assert.equal(res.status, 400, `${query}: ${res.text}`);
    assert.equal(res.error.errors[0].pointer, 'cursor');
  };

  assert.ok(good);
  assert.equal((await list(`?limit=2&cursor=${good}`)).status, 200);
  for (let i = 0; i < raw.length; i += 3) {
    const forged = Buffer.from(raw);

    forged[i] ^= 1;
    await refuse(`?limit=2&cursor=${forged.toString('base64url')}`);
  }
  await refuse('?cursor=AAAA');
  await refuse('?cursor=%00');
  await refuse(`?search=other&cursor=${good}`);
  await refuse(`?sort=title&cursor=${good}`);
});
