/*
 * Tokens that prove an address: used once, by how many ever at a time; for
 * the account, the purpose and the address that they were mailed for and no
 * other; not when they are old.  And the change of an address, which tells
 * nobody whose the new one is.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { after, before, beforeEach, test } from 'node:test';
import { ROUNDS, boot } from '../harness/index.js';

let app;

before(async () => {
  app = await boot({ workers: 0 });
});
after(() => app?.stop());

/* What an address may ask for in an hour is the last test's; rounds of a race
   would spend it. */
const again = () => app.sql('delete from app.mail_budget');

beforeEach(again);

const fresh = () => `${crypto.randomBytes(6).toString('hex')}@test.example`;
const verify = (token, spec) => app.api('POST', '/api/v1/auth/verify-email',
  { body: { token }, ...spec });
const change = (user, newEmail, password = user.password) =>
  app.api('POST', '/api/v1/users/me/email',
    { token: user.token, body: { newEmail, password } });
const row = async (user) => (await app.sql(
  `select email, pending_email, email_verified_at is not null as proved
   from app.users where id = $1`, [user.id]))[0];

/* What the worker does right before it sends; task: the mail's, or the
   newest of the account's. */
async function mailed(user, template, email) {
  const token = crypto.randomBytes(32);
  const [task] = await app.sql(`select id, payload from queue.outbox
    where payload->>'template' = $1 and payload->>'user_id' = $2
    order by id desc limit 1`, [template, user.id]);

  assert.ok(task, `a task of ${template}`);
  await app.sql('select task.mail_token($1, $2, $3, sha256($4))',
    [task.id, task.payload, email ?? user.email, token]);
  return token.toString('base64url');
}

/* The mail is gone, so that the next may be asked for. */
const sent = (user, template) => app.sql(`delete from queue.outbox
  where payload->>'template' = $1 and payload->>'user_id' = $2`,
[template, user.id]);

function refused(res, status = 400, code = 'VALIDATION_FAILED') {
  assert.equal(res.status, status, res.text);
  assert.equal(res.error.code, code, res.text);
  return res;
}

const hide = (res) => res.text.replace(/"request_?[iI]d":"[^"]*"/g, '')
  .replace(/"timestamp":"[^"]*"/g, '');

test('a token is used once, whoever comes at the same time', async () => {
  for (let i = 0; i < ROUNDS; i++) {
    const user = await app.user();
    const token = await mailed(user, 'verify_email');
    const all = await app.barrier(8, () => ({ method: 'POST',
      path: '/api/v1/auth/verify-email', body: { token } }));

    assert.equal(all.filter((res) => res.status === 200).length, 1);
    assert.equal(all.filter((res) => res.status === 400).length, 7);
    assert.equal(await app.value(`select count(*)::int from app.audit_log
      where action = 'user.email_verified' and resource_id = $1`,
    [user.id]), 1);
  }
});

test('two links of one change: one is used', async () => {
  const user = await app.user();
  const email = fresh();

  assert.equal((await change(user, email)).status, 200);
  const tokens = [await mailed(user, 'change_email', email),
    await mailed(user, 'change_email', email)];
  const all = await app.barrier(8, (i) => ({ method: 'POST',
    path: '/api/v1/auth/verify-email', body: { token: tokens[i % 2] } }));

  assert.equal(all.filter((res) => res.status === 200).length, 1);
  assert.equal((await row(user)).email, email);
  for (const token of tokens) refused(await verify(token));
});

test('two who want the same address: one has it', async () => {
  for (let i = 0; i < ROUNDS; i++) {
    await again();

    const [one, two] = [await app.user(), await app.user()];
    const email = fresh();
    const tokens = [];

    for (const user of [one, two]) {
      assert.equal((await change(user, email)).status, 200);
      tokens.push(await mailed(user, 'change_email', email));
    }
    const all = await app.barrier(2, (n) => ({ method: 'POST',
      path: '/api/v1/auth/verify-email', body: { token: tokens[n] } }));

    assert.deepEqual(all.map((res) => res.error?.code ?? 'changed').sort(),
      ['EMAIL_TAKEN', 'changed']);
    assert.equal(await app.value(
      'select count(*)::int from app.users where email = $1', [email]), 1);
  }
});

test('unknown, used, superseded, old: the same bytes', async () => {
  const user = await app.user();
  const used = await mailed(user, 'verify_email');

  assert.equal((await verify(used)).status, 200);

  const other = await app.user();
  const older = await mailed(other, 'verify_email');

  await sent(other, 'verify_email');
  assert.equal((await app.api('POST', '/api/v1/auth/resend-verification',
    { token: other.token })).status, 200);
  const newer = await mailed(other, 'verify_email');
  const texts = new Set();

  for (const token of [used, older, 'A', 'A'.repeat(43), `${newer}x`,
    newer.slice(0, -1), newer.toUpperCase().replace(/[^A-Z]/g, 'A')]) {
    texts.add(hide(refused(await verify(token))));
  }
  assert.equal((await row(other)).proved, false);
  await app.clock.advance(24 * 3600 * 1000 + 1000);
  texts.add(hide(refused(await verify(newer))));
  assert.equal((await row(other)).proved, false);
  assert.equal(texts.size, 1, [...texts].join('\n'));
});

test('a token proves its own account, purpose and address only', async () => {
  const [alice, bob] = [await app.user(), await app.user()];
  const email = fresh();
  const proof = await mailed(alice, 'verify_email');

  /* somebody else's session does not make it somebody else's token */
  assert.equal((await change(bob, email)).status, 200);
  assert.equal((await verify(proof, { token: bob.token })).status, 200);
  assert.deepEqual(await row(bob), { email: bob.email, pending_email: email,
    proved: false });
  assert.equal((await row(alice)).proved, true);

  /* a proof of the old address is none of the new one, nor of a password */
  const old = await mailed(bob, 'verify_email');
  const moved = await mailed(bob, 'change_email', email);

  for (const token of [old, moved]) {
    refused(await app.api('POST', '/api/v1/auth/reset-password',
      { body: { token, newPassword: 'a long enough password' } }));
  }
  assert.equal((await verify(moved)).status, 200);
  refused(await verify(old));
  assert.deepEqual(await row(bob), { email, pending_email: null,
    proved: true });
});

test('a reset link that went to the old address is dead after a change',
  async () => {
    const user = await app.user();
    const email = fresh();

    await app.api('POST', '/api/v1/auth/forgot-password',
      { body: { email: user.email } });
    const early = await mailed(user, 'password_reset');

    await change(user, email);
    assert.equal((await verify(await mailed(user, 'change_email', email)))
      .status, 200);
    /* built before the change, sent after it */
    const late = await mailed(user, 'password_reset', user.email);

    for (const token of [early, late]) {
      refused(await app.api('POST', '/api/v1/auth/reset-password',
        { body: { token, newPassword: 'a long enough password' } }));
    }
  });

test('whose the new address is makes no difference', async () => {
  const [user, other] = [await app.user(), await app.user()];
  const tasks = () => app.value(`select count(*)::int from queue.outbox
    where payload->>'user_id' = $1 and payload->>'template' like 'change%'`,
  [user.id]);
  const seen = [];

  for (const email of [other.email, fresh(), other.email.toUpperCase()]) {
    const was = await tasks();
    const res = await change(user, email);

    assert.equal(res.status, 200, res.text);
    seen.push([hide(res), res.rawHeaders.filter((_, i) => i % 2 === 0),
      await tasks() - was]);
  }
  assert.deepEqual(seen[1], seen[0]);
  assert.deepEqual(seen[2], seen[0]);

  /* the mailbox's owner is told, when the link is used; nothing changes */
  const token = await mailed(user, 'change_email', other.email);

  refused(await verify(token), 409, 'EMAIL_TAKEN');
  assert.equal((await row(user)).email, user.email);
  assert.equal((await row(other)).email, other.email);
});

test('other letters are the same address, foreign ones are none', async () => {
  const [user, other] = [await app.user(), await app.user()];
  const [name, domain] = other.email.split('@');

  for (const email of [other.email.toUpperCase(), `${name}@${
    domain.toUpperCase()}`]) {
    assert.equal((await change(user, email)).status, 200);
    assert.equal((await row(user)).pending_email, other.email);
    refused(await verify(await mailed(user, 'change_email', email)), 409,
      'EMAIL_TAKEN');
  }
  for (const email of [`${name}\u0130@${domain}`, `${name}\u212a@${domain}`,
    `\uff41${other.email}`, `${other.email}\u200b`, `${name}\u00ad@${domain}`,
    `${name}@\u0442est.example`]) {
    const res = refused(await change(user, email));

    assert.deepEqual(res.error.errors.map((e) => e.pointer), ['/newEmail']);
  }
});

test('no header of a mail is written by an address', async () => {
  const user = await app.user();

  for (const email of ['a@test.example\r\nBcc: b@test.example',
    'a@test.example\nBcc: b@test.example', 'a@test.example\u0000',
    'a@test.example, b@test.example', 'A <a@test.example>',
    'a@test.example\u2028Bcc: b@test.example', '"a\r\nb"@test.example']) {
    refused(await change(user, email));
  }
  assert.equal((await row(user)).pending_email, null);
});

test('guesses of the password count with those of the sign-in', async () => {
  const user = await app.user();

  for (let i = 0; i < 3; i++) {
    refused(await change(user, fresh(), `guess ${i}`), 401,
      'INVALID_CREDENTIALS');
  }
  for (let i = 0; i < 2; i++) {
    refused(await app.api('POST', '/api/v1/auth/login',
      { body: { email: user.email, password: `guess ${i}` } }), 401,
    'INVALID_CREDENTIALS');
  }
  refused(await change(user, fresh()), 429, 'RATE_LIMITED');
  refused(await app.api('POST', '/api/v1/auth/login',
    { body: { email: user.email, password: user.password } }), 429,
  'RATE_LIMITED');
  assert.equal((await row(user)).pending_email, null);
});

test('guesses that come together, too', async () => {
  const user = await app.user();
  const all = await app.barrier(20, (i) => ({ method: 'POST',
    path: '/api/v1/users/me/email', token: user.token,
    body: { newEmail: fresh(), password: `guess ${i}` } }));

  assert.equal(all.filter((res) => res.status === 401).length, 5);
  assert.equal(all.filter((res) => res.status === 429).length, 15);
});

test('mails on request: five in an hour, then the same answer', async () => {
  const user = await app.user();
  const count = (template) => app.value(`select count(*)::int
    from queue.outbox where payload->>'user_id' = $1
    and payload->>'template' = $2`, [user.id, template]);
  const texts = new Set();

  await app.sql('delete from app.mail_budget');
  for (let i = 0; i < 8; i++) texts.add(hide(await change(user, fresh())));
  assert.equal(texts.size, 1);
  assert.equal(await count('change_email'), 5);
  assert.equal(await count('change_notice'), 5);

  const resend = () => app.api('POST', '/api/v1/auth/resend-verification',
    { token: user.token });
  let mails = 0;

  for (let i = 0; i < 8; i++) {
    await sent(user, 'verify_email');
    texts.add(hide(await resend()));
    mails += await count('verify_email');
  }
  assert.equal(mails, 5);
  assert.equal(texts.size, 1, 'resending says the same');
});
