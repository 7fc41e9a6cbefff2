/*
 * Mail as a weapon (edge.md D.2, pumping): whoever asks for mails, by any of
 * the rows that send some on request, is bounded by the account that gets
 * them, by the address prefix that asks, and by all that ask, all rows
 * together; IPv6 counts by its /64; and the answers say nothing of it.
 */

import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { boot } from '../harness/index.js';
import { enrol } from '../harness/mfa.js';

const PREFIX = 30; /* in an hour, of one prefix */
const ACCOUNT = 5; /* of one account and purpose */

let app, people, n = 0;

before(async () => {
  app = await boot({ workers: 0,
    nginx: { http: `set_real_ip_from 127.0.0.1;
      real_ip_header X-Forwarded-For;
      stoa_limit login off;` } });
  people = await Promise.all(Array.from({ length: 12 }, () => app.user()));
});
after(() => app?.stop());

beforeEach(async () => {
  await app.sql('delete from app.mail_budget');
  await app.sql(`delete from queue.outbox where kind = 'mail.send'`);
});

/* What asks for a mail: {path, body, token} of a person. */
const ASKS = {
  forgot: (p) => ['/auth/forgot-password', { email: p.email }],
  reset: (p) => ['/auth/reset-password', { email: p.email }],
  resend: (p) => ['/auth/resend-verification', undefined, p.token],
  change: (p, i) => ['/users/me/email', { newEmail: `n${i}@test.example`,
    password: p.password }, p.token],
};

function ask(kind, person, i, from = '192.0.2.1') {
  const [path, body, token] = ASKS[kind](person, i);

  return app.api('POST', `/api/v1${path}`, { body, token,
    headers: { 'X-Forwarded-For': from } });
}

/* The mails that were asked for since the last look, taken away. */
async function taken() {
  const rows = await app.sql(`delete from queue.outbox
    where kind = 'mail.send' returning payload->>'template' as template`);

  return rows.filter(({ template }) => template !== 'change_notice').length;
}

const hide = (res) => res.text.replace(/"timestamp":"[^"]*"/, '');

test('one prefix, all rows together: thirty in an hour, and one answer',
  async () => {
    const kinds = Object.keys(ASKS);
    const answers = new Map(kinds.map((kind) => [kind, new Set()]));
    let mails = 0;

    for (let i = 0; i < 4 * people.length; i++) {
      const kind = kinds[i % kinds.length];
      const res = await ask(kind, people[Math.floor(i / kinds.length)], i);

      answers.get(kind).add(`${res.status} ${hide(res)}`);
      mails += await taken();
    }
    assert.equal(mails, PREFIX);
    for (const [kind, texts] of answers) assert.equal(texts.size, 1, kind);

    /* unknown addresses were counted like known ones; others may go on */
    await ask('forgot', people[0], 0, '192.0.2.2');
    assert.equal(await taken(), 1);
  });

const register = (i, from) => app.api('POST', '/api/v1/auth/register', {
  headers: { 'X-Forwarded-For': from },
  body: { email: `victim+${i}-${++n}@test.example`, firstName: 'A',
    lastName: 'B', password: 'correct horse battery' } });

test('who registers: an account each, thirty mails of a prefix', async () => {
  let mails = 0;

  for (let i = 0; i < PREFIX + 5; i++) {
    const res = await register(i, `2001:db8:7:7::${i.toString(16)}`);

    assert.equal(res.status, 201, res.text);
    mails += await taken();
  }
  assert.equal(mails, PREFIX);

  /* who has none asks for it; others of the prefix have their links */
  const { data } = await register(0, '2001:db8:7:7::1');

  assert.equal(await taken(), 0);
  await ask('resend', { token: data.accessToken }, 0, '2001:db8:7:7::1');
  await ask('forgot', people[0], 0, '2001:db8:7:7::1');
  assert.equal(await taken(), 2);
  await register(0, '2001:db8:7:8::1');
  assert.equal(await taken(), 1);
});

test('addresses that nobody has take nothing from all', async () => {
  await app.sql('select app.settings_put($1::jsonb)',
    [JSON.stringify({ mail_hour_max: '3' })]);
  try {
    const texts = new Set();

    for (let i = 0; i < 12; i++) {
      texts.add(hide(await ask('forgot', { email: `no-${i}@test.example` }, 0,
        `198.18.${i}.1`)));
    }
    for (const i of [0, 1, 2, 3]) {
      texts.add(hide(await ask('forgot', people[i], 0, '198.18.50.1')));
    }
    assert.equal(await taken(), 3);
    assert.equal(texts.size, 1);
    assert.equal((await register(0, '198.18.60.1')).status, 201);
    assert.equal(await taken(), 0, 'MAIL_HOUR_MAX is theirs, too');
  } finally {
    await app.sql('select app.settings_put($1::jsonb)',
      [JSON.stringify({ mail_hour_max: '10000' })]);
  }
});

test('a guesser who has asked for enough does not silence the notice',
  async () => {
    const user = await app.user();
    const factor = await enrol(app, user);
    const notices = () => app.value(`select count(*)::int from queue.outbox
      where kind = 'mail.send' and payload->>'what' = 'tried'`);

    for (let i = 0; i < PREFIX; i++) {
      await ask('forgot', { email: `nobody-${i}@test.example` });
    }
    await app.sql('select app.settings_put($1::jsonb)',
      [JSON.stringify({ mail_hour_max: '1' })]);
    await ask('forgot', people[5], 0, '192.0.2.99');
    for (let i = 0; i < 5; i++) {
      const res = await app.api('POST', '/api/v1/auth/login', {
        headers: { 'X-Forwarded-For': '192.0.2.1' }, body: {
          email: user.email, password: user.password,
          code: factor.wrong() } });

      assert.equal(res.error.code, 'MFA_CODE_INVALID');
    }
    await app.sql('select app.settings_put($1::jsonb)',
      [JSON.stringify({ mail_hour_max: '10000' })]);
    assert.equal(await notices(), 1);
  });

test('addresses that nobody has are counted, too', async () => {
  for (let i = 0; i < PREFIX; i++) {
    await ask('forgot', { email: `nobody-${i}@test.example` });
  }
  await ask('forgot', people[0]);
  assert.equal(await taken(), 0);
});

test('IPv6 is one customer by its /64', async () => {
  let mails = 0;

  for (let i = 0; i < PREFIX + 6; i++) {
    await ask('forgot', people[i % people.length], i,
      `2001:db8:1:2:${i.toString(16)}::1`);
    mails += await taken();
  }
  assert.equal(mails, PREFIX);
  await ask('forgot', people[0], 0, '2001:db8:1:3::1');
  assert.equal(await taken(), 1);
});

test('one account: a few of each purpose, whoever asks from wherever',
  async () => {
    for (const kind of ['resend', 'change']) {
      let mails = 0;

      for (let i = 0; i < ACCOUNT + 5; i++) {
        await ask(kind, people[1], i, `198.51.100.${i}`);
        mails += await taken();
      }
      assert.equal(mails, ACCOUNT, kind);
    }
  });

test('one waits at a time, and many at once are no more', async () => {
  const all = await app.barrier(40, (i) => ({ method: 'POST',
    path: '/api/v1/auth/forgot-password',
    body: { email: people[i % people.length].email },
    headers: { 'X-Forwarded-For': '203.0.113.9' } }));

  for (const res of all) assert.equal(res.status, 200);
  assert.ok(await taken() <= people.length);

  const { n } = (await app.sql(`select max(n)::int as n from app.mail_budget
    where prefix = '203.0.113.9'`))[0];

  assert.equal(n, PREFIX, 'never counted beyond');
});

test('all together, from however many prefixes: MAIL_HOUR_MAX', async () => {
  const set = (n) => app.sql('select app.settings_put($1::jsonb)',
    [JSON.stringify({ mail_hour_max: String(n) })]);
  const kinds = Object.keys(ASKS);
  const texts = new Set();
  let mails = 0;

  await set(7);
  try {
    for (let i = 0; i < 2 * people.length; i++) {
      const kind = kinds[Math.floor(i / people.length) * 2];
      const res = await ask(kind, people[i % people.length], i,
        `198.18.${i}.1`);

      texts.add(`${kind} ${res.status} ${hide(res)}`);
      mails += await taken();
    }
    assert.equal(mails, 7);
    assert.equal(texts.size, 2, 'the answers do not tell');
    await set(0);
    await ask('forgot', people[8], 0, '198.18.99.1');
    assert.equal(await taken(), 1);
  } finally {
    await set(10000);
  }
});
