/*
 * Text that is syntax somewhere: of SQL, of array and composite literals, of
 * headers, logs and cursors.  It is stored and given back as it was sent, or
 * refused; it never fails a statement, nor moves into its neighbor.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, test } from 'node:test';
import { boot, until } from '../harness/index.js';

let app, alice, olga, event, tickets;

before(async () => {
  app = await boot({ workers: 0 });
  [alice, olga] = [await app.user(), await app.user('organizer')];
  event = await app.event(olga, { types: [{ priceCents: 0, quota: 1000,
    maxPerOrder: 100 }] });
  tickets = await app.freeTickets(alice, event.types[0].id, 20);
});
after(async () => {
  const log = fs.readFileSync(`${app.dir}/log/nginx-error.log`, 'utf8');

  assert.doesNotMatch(log, /sqlstate/, 'a statement failed');
  await app.stop();
});

const TEXTS = [
  "'", "''", "' or '1'='1", "'; drop table app.users; --", '$1', '$body',
  ':id', '$$', '\\', '\\\\', '\\"', '"', '""', '","', '{', '}', '{}', '{NULL}',
  'NULL', 'null', '"NULL"', '(', ')', '(,)', ',', ',,,,', '\\N', '\\x00',
  '\\u0000', '%', '_', '%s%n', '%00', '\n', 'a\nb', '\t', '\u00e9', '\u{1f3ab}',
  '\u202e', '\ufeff', '</script>', '${7*7}', '{{7*7}}', '../../etc/passwd',
  '$(id)', '`id`', 'x\ty', '-- ', '/*', '*/', ';', '||', 'E\'\\\'\'', '\u2028',
  '[1:3]={1,2,3}',
];

test('text of accounts and events comes back as it was', async () => {
  for (const text of TEXTS) {
    const name = `a${text}b`;
    const res = await app.api('PATCH', '/api/v1/users/me',
      { token: alice.token, body: { firstName: name } });

    if (res.status === 400) continue; /* a control is no name */
    assert.equal(res.status, 200, `${JSON.stringify(text)}: ${res.text}`);
    assert.equal(res.data.firstName, name);
    assert.equal(await app.value(
      'select first_name from app.users where id = $1', [alice.id]), name);

    const made = await app.api('POST', '/api/v1/events', { token: olga.token,
      body: { title: name, description: name, timezone: 'Europe/Prague',
        startsAt: '2040-01-01T10:00:00Z', endsAt: '2040-01-01T12:00:00Z' } });

    assert.ok([201, 400].includes(made.status), made.text);
    if (made.status === 201) {
      assert.deepEqual([made.data.title, made.data.description], [name, name]);
    }
  }
  assert.ok(await app.value('select count(*)::int from app.users') > 1);
});

test('filters find text, not patterns or statements', async () => {
  const all = (await app.api('GET', '/api/v1/events')).meta.total;

  for (const text of [...TEXTS, 'a\u0000b']) {
    const q = encodeURIComponent(text);

    for (const query of [`search=${q}`, `sort=${q}`, `city=${q}`, `cursor=${q}`,
      `limit=${q}`, `page=${q}`, `status=${q}`, `${q}=1`, `q=${q}`]) {
      const res = await app.api('GET', `/api/v1/events?${query}`,
        { validate: false });

      assert.ok([200, 400].includes(res.status), `${query}: ${res.text}`);
      if (res.status === 200) assert.ok(res.meta.total <= all, query);
    }
  }
});

test('sign-in with syntax for an address or a password', async () => {
  for (const text of TEXTS) {
    for (const body of [{ email: alice.email, password: `x${text}` },
      { email: `a${text}@test.example`, password: 'whatever it is' }]) {
      const res = await app.api('POST', '/api/v1/auth/login', { body });

      assert.ok([400, 401, 429].includes(res.status), res.text);
    }
  }
});

/* Bytes of a header that node's client would not send. */
async function rawGet(headers) {
  const text = await app.raw(Buffer.from('GET /api/v1/users/me HTTP/1.1\r\n' +
    `Host: x\r\nAuthorization: Bearer ${alice.token}\r\n` +
    `Connection: close\r\n${headers}\r\n\r\n`, 'latin1'));

  return { status: Number(text.match(/^HTTP\/1\.1 (\d+)/)?.[1]), text };
}

test('headers in the context: quoted, whatever they hold', async () => {
  for (const text of TEXTS.map((t) => t.replace(/[\r\n]/g, ' '))) {
    const value = Buffer.from(text).toString('latin1');

    for (const name of ['User-Agent', 'Accept-Language', 'X-Request-Id',
      'X-Forwarded-For', 'X-Real-IP', 'If-None-Match', 'Forwarded',
      'traceparent']) {
      const { status } = await rawGet(`${name}: ${value}`);

      assert.equal(status, 200, `${name}: ${text}`);
    }
  }
});

test('a user agent is stored as it came, cut, or not at all', async () => {
  const agents = [...TEXTS.filter((t) => !/[\r\n\t\u0000]/.test(t)),
    '","(', 'x'.repeat(5000), `${'\u00e9'.repeat(150)}`];

  for (const agent of agents) {
    const email = `ua-${agents.indexOf(agent)}@test.example`;
    const body = JSON.stringify({ email, firstName: 'U', lastName: 'A',
      password: 'a long enough password' });
    const text = await app.raw(Buffer.concat([
      Buffer.from('POST /api/v1/auth/register HTTP/1.1\r\nHost: x\r\n' +
        'Connection: close\r\nContent-Type: application/json\r\n' +
        `Content-Length: ${body.length}\r\nUser-Agent: `),
      Buffer.from(agent), Buffer.from(`\r\n\r\n${body}`)]));

    assert.match(text, /^HTTP\/1\.1 201/, `${agent}: ${text.slice(0, 300)}`);
    const stored = await app.value(`select s.user_agent
      from app.login_sessions s join app.users u on u.id = s.user_id
      where u.email = $1`, [email]);

    assert.ok(agent.trim().startsWith(stored?.trim() ?? ''),
      `${agent} / ${stored}`);
  }
});

test('a batch: each keeps its own text, whatever its neighbors sent',
  async () => {
    const texts = TEXTS.filter((t) => t.length <= 40);
    const codes = texts.map((text, i) => i % 3 === 0 ? tickets[i / 3 % 20].code
      : text);
    const all = await app.barrier(codes.length, (i) => ({ method: 'POST',
      path: '/api/v1/orders/validate', token: olga.token,
      body: { code: codes[i], gate: texts[i] }, validate: false }));

    all.forEach((res, i) => {
      assert.ok([200, 400].includes(res.status), `${codes[i]}: ${res.text}`);
      if (i % 3 !== 0 && res.status === 200) {
        assert.notEqual(res.data.verdict, 'admitted', codes[i]);
      }
    });
    const orders = await app.barrier(texts.length, (i) => ({ method: 'POST',
      path: '/api/v1/orders', token: alice.token, body: {
        items: [{ ticketTypeId: event.types[0].id, quantity: 1 }],
        promoCode: i % 2 ? texts[i] : null }, validate: false }));

    orders.forEach((res, i) => {
      if (i % 2 === 0) assert.equal(res.status, 201, res.text);
      else assert.ok(res.status >= 400 && res.status < 500, res.text);
    });
  });

test('NUL is in no text', async () => {
  for (const body of ['{"firstName":"a\\u0000b"}', '{"firstName":"\\u0000"}',
    '{"first\\u0000Name":"x"}', Buffer.from('{"firstName":"a\u0000b"}')]) {
    assert.equal((await app.api('PATCH', '/api/v1/users/me',
      { token: alice.token, body })).status, 400, String(body));
  }
  for (const bytes of [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf5, 0x80,
    0x80, 0x80], [0xe2, 0x82]]) {
    const body = Buffer.concat([Buffer.from('{"firstName":"a'),
      Buffer.from(bytes), Buffer.from('"}')]);

    assert.equal((await app.api('PATCH', '/api/v1/users/me',
      { token: alice.token, body })).status, 400, `${bytes}`);
  }
  assert.equal((await app.api('PATCH', '/api/v1/users/me', {
    token: alice.token, body: '{"firstName":"\\ud800"}' })).status, 400);
});

test('a key of idempotency is a text like others', async () => {
  for (const [i, text] of TEXTS.entries()) {
    if (/[^\x20-\x7e]/.test(text)) continue;
    const order = () => app.order(alice, event.types[0].id, 1,
      { headers: { 'Idempotency-Key': `k${i}${text}` } });
    const one = await order();

    assert.ok([201, 400].includes(one.status), `${text}: ${one.text}`);
    if (one.status === 201) {
      assert.equal((await order()).data.id, one.data.id, text);
    }
  }
});

test('a log has one line for each request', async () => {
  const mark = `mark-${Date.now()}`;

  await app.raw(`GET /api/v1/${mark}%0d%0a{"status":"200"}%1b[2J%22 HTTP/1.1` +
    `\r\nHost: x\r\nUser-Agent: "}\\\u001b[31m\r\nConnection: close\r\n\r\n`);
  const line = await until(() => fs.readFileSync(`${app.dir}/log/access.log`,
    'utf8').split('\n').find((l) => l.includes(mark) && l.endsWith('}')),
  { what: 'the line' });

  assert.equal(JSON.parse(line).status, '404');
  for (const name of fs.readdirSync(`${app.dir}/log`)) {
    assert.ok(!fs.readFileSync(`${app.dir}/log/${name}`, 'latin1')
      .includes('\u001b'), name);
  }
});
