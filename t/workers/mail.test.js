/*
 * Task mail.send against a real SMTP server (npm smtp-server) and a real
 * reader (npm mailparser): what is on the wire, what each refusal does, what
 * a broken line does, and that a killed worker repeats nothing it need not.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { boot, randomName, run, sleep, until } from '../harness/index.js';
import { tempDir } from '../harness/proc.js';
import { Smtp } from './smtp.js';

/* Longer than the longest wait between two tries of a young mail task. */
const RETRY_MS = 60000;

const address = (prefix) => `${randomName(prefix)}@mail.example`;

/* A task of kind mail.send for this user that came into being just now. */
function forgot(app, email) {
  return app.api('POST', '/api/v1/auth/forgot-password', { body: { email } });
}

/* Fails when a mail breaks RFC 5322 or RFC 2045 on the wire. */
function checkWire(raw) {
  const text = raw.toString('latin1');
  const [head] = text.split('\r\n\r\n', 1);

  assert.equal(text.replaceAll('\r\n', '').search(/[\r\n]/), -1,
    'every line ends with CR LF');
  assert.doesNotMatch(text, /[\x80-\xff]/, 'seven bits');
  for (const line of text.split('\r\n')) {
    assert.ok(line.length <= 78, `${line.length} characters: ${line}`);
  }
  for (const name of ['Date', 'From', 'To', 'Subject', 'Message-ID',
    'MIME-Version', 'Content-Type']) {
    assert.equal(head.match(new RegExp(`^${name}:`, 'gm'))?.length, 1, name);
  }
}

/* What a camera reads in a picture. */
async function readQr(png) {
  const dir = tempDir('stoa-qr-');
  const file = path.join(dir, 'qr.png');

  fs.writeFileSync(file, png);

  try {
    return (await run('zbarimg', ['-q', '--raw', file])).trim();
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
}

/* How the outbox and the history see the mail tasks that are not done. */
function openMails(app) {
  return app.value(
    `select count(*)::int from queue.outbox
     where kind = 'mail.send' and state <> 2`);
}

describe('by SMTP with STARTTLS and AUTH', () => {
  let app, smtp, cert;

  before(async () => {
    cert = await Smtp.certificate();
    smtp = await new Smtp({ key: cert.key, cert: cert.cert }).start();
    app = await boot({
      conf: {
        SMTP_HOST: '127.0.0.1', SMTP_PORT: String(smtp.port),
        SMTP_TLS: 'starttls', SMTP_CA_FILE: cert.file,
        SMTP_USER: smtp.user, SMTP_PASSWORD: smtp.password,
        MAIL_FROM: 'Stoa Tickets <tickets@stoa.example>',
      },
    });
  });
  after(async () => {
    await app?.stop();
    await smtp?.stop();
    cert?.remove();
  });

  const arrived = (email, n = 1) => until(
    () => smtp.to(email).length >= n && smtp.to(email),
    { timeout: 15000, what: `${n} mails to ${email}` });

  const resetMail = (email) => until(
    () => smtp.to(email).find((m) => m.text.includes('/account/reset/')),
    { timeout: 15000, what: `a reset mail to ${email}` });

  /* Registered, and its first mails are out of the way. */
  async function quietUser(prefix) {
    const user = await app.user('member', { email: address(prefix) });

    await until(async () => (await openMails(app)) === 0,
      { timeout: 15000, what: 'the first mails to leave' });
    smtp.attempts.length = 0;
    smtp.mails.length = 0;
    return user;
  }

  test('a mail is signed in, encrypted, well formed and readable', async () => {
    const user = await quietUser('reset');

    await forgot(app, user.email);
    const mail = await resetMail(user.email);

    checkWire(mail.raw);
    assert.equal(mail.secure, true);
    assert.equal(smtp.clear, 0, 'nothing went in the clear');
    assert.ok(smtp.logins.every((l) => l.secure && l.user === smtp.user));
    assert.equal(mail.sender, 'tickets@stoa.example');
    assert.equal(mail.from.text, '"Stoa Tickets" <tickets@stoa.example>');
    assert.equal(mail.to.value[0].address, user.email);
    assert.match(mail.messageId, /^<mail\.\d+\.[0-9a-f]{16}@stoa\.example>$/);
    assert.ok(Math.abs(mail.date - Date.now()) < 120000);
    assert.match(mail.html, /<html lang="en" dir="ltr">/);
    assert.equal(mail.headers.get('auto-submitted'), 'auto-generated');

    const [, token] = mail.text.match(/#token=([\w-]{43})\b/);

    assert.ok(mail.html.includes(token));
    const reset = await app.api('POST', '/api/v1/auth/reset-password',
      { body: { token, newPassword: 'a brand new password 17' } });

    assert.equal(reset.status, 200);
  });

  test('a key that is made or replaced: its owner is told', async () => {
    const user = await quietUser('keys');
    const keys = '/api/v1/auth/api-keys';
    const said = async (subject, made) => {
      const mail = await until(
        () => smtp.to(user.email).find((m) => m.subject === subject),
        { timeout: 15000, what: subject });

      checkWire(mail.raw);
      for (const text of [mail.text, mail.html]) {
        assert.ok(text.includes(`${made.prefix}… (events:read, users:read)`),
          text);
        assert.ok(text.includes('/account/keys/'), text);
        assert.ok(!text.includes('Turnstile') && !text.includes(made.key), text);
      }
      return made;
    };
    const made = await said('A new API key was made', (await app.api('POST',
      keys, { token: user.token, body: { name: 'Turnstile',
        scopes: ['users:read', 'events:read'] } })).data);

    const next = await said('An API key was replaced', (await app.api('POST',
      `${keys}/${made.id}/rotate`, { token: user.token, body: {} })).data);

    /* J-29: and before it ends; the one that was replaced is not spoken of */
    await app.sql(`update app.api_keys
      set expires_at = app.now() + interval '13 days' where owner_id = $1`,
    [user.id]);
    for (let i = 0; i < 2; i++) {
      await app.sql(`select queue.enqueue('apikey.rotation.reminder', '{}')`);
      await said('An API key ends soon', next);
      await until(async () => (await app.value(`select count(*)::int
        from queue.outbox where kind = 'apikey.rotation.reminder'
          and state <> 2`)) === 0 && (await openMails(app)) === 0,
      { timeout: 15000, what: 'all of it to be done' });
    }
    assert.equal(smtp.to(user.email)
      .filter((m) => m.subject === 'An API key ends soon').length, 1);
  });

  test('T-2: the account\'s language, right to left for Arabic',
    async () => {
      const user = { email: address('arabic') };
      const made = await app.api('POST', '/api/v1/auth/register', {
        headers: { 'accept-language': 'ar-EG,en;q=0.5' },
        body: {
          email: user.email, password: 'correct horse battery staple',
          firstName: 'ليلى', lastName: 'حداد',
        },
      });

      assert.equal(made.status, 201);
      await forgot(app, user.email);
      const mail = await resetMail(user.email);

      checkWire(mail.raw);
      assert.match(mail.html, /<html lang="ar" dir="rtl">/);
      assert.match(mail.subject, /كلمة مرور/);
      assert.match(mail.text, /مرحبا ليلى/);
      assert.equal(mail.to.value[0].address, user.email);
    });

  test('tickets come with a QR code each, which a camera reads', async () => {
    const organizer = await app.user('organizer');
    const title = `.${'.'.repeat(90)} Fête d'été & <b>Käse</b> 🎟 "quoted"`;
    const event = await app.event(organizer,
      { title, location: 'Náměstí, Praha 1' });
    const buyer = await quietUser('buyer');
    const tickets = await app.freeTickets(buyer, event.types[0].id, 3);
    const mail = (await arrived(buyer.email))
      .find((m) => m.attachments.length);

    checkWire(mail.raw);
    assert.ok(mail.subject.includes(title), mail.subject);
    assert.ok(mail.text.includes(title), 'dots and all');
    assert.ok(mail.text.includes('Náměstí, Praha 1'));
    assert.ok(!mail.html.includes('<b>Käse'), 'escaped in HTML');
    assert.ok(mail.text.includes('Europe/Prague'));
    assert.equal(mail.attachments.length, 3);

    const codes = await Promise.all(mail.attachments.map(async (a) => {
      assert.equal(a.contentType, 'image/png');
      assert.equal(a.contentDisposition, 'inline');
      assert.ok(mail.raw.includes(`Content-ID: <${a.cid}>`));
      return readQr(a.content);
    }));

    assert.deepEqual(codes.sort(), tickets.map((t) => t.code).sort());
  });

  for (const at of ['rcpt', 'data']) {
    test(`a 4xx at ${at} is tried again, as the same mail`, async () => {
      const user = await quietUser(`later-${at}`);

      smtp.plan(user.email, { at, code: 451, text: '4.3.0 not now' });
      await forgot(app, user.email);
      await until(() => smtp.tries(user.email) >= 1,
        { what: 'the first try' });
      await sleep(300);
      await app.clock.advance(RETRY_MS);
      await resetMail(user.email);
      assert.equal(smtp.tries(user.email), 2);
      assert.equal(await app.value(
        'select count(*)::int from app.mail_suppressions where email = $1',
        [user.email]), 0);
    });
  }

  test('a 4xx for the sender is tried again', async () => {
    const user = await quietUser('from');

    smtp.fromPlan.push({ code: 421, text: '4.3.2 too busy' });
    await forgot(app, user.email);
    await until(() => smtp.fromPlan.length === 0, { what: 'the first try' });
    await sleep(300);
    await app.clock.advance(RETRY_MS);
    await resetMail(user.email);
  });

  test('an unknown recipient is not tried again, now or ever', async () => {
    const user = await quietUser('gone');

    smtp.plan(user.email, { at: 'rcpt', code: 550, text: '5.1.1 unknown' });
    await forgot(app, user.email);
    await until(async () => await app.value(
      'select count(*)::int from app.mail_suppressions where email = $1',
      [user.email]) === 1, { what: 'the suppression' });
    await app.clock.advance(RETRY_MS);
    await forgot(app, user.email);
    await until(async () => (await openMails(app)) === 0,
      { what: 'the second mail to be given up' });
    await sleep(300);
    assert.equal(smtp.tries(user.email), 1);
    assert.equal(smtp.to(user.email).length, 0);
  });

  for (const [what, step] of [
    ['a refusal of our address', { at: 'rcpt', code: 554, text: '5.7.1 no' }],
    ['a full mailbox', { at: 'rcpt', code: 552, text: '5.2.2 full' }],
    ['refused contents', { at: 'data', code: 554, text: '5.6.0 no' }],
  ]) {
    test(`${what} ends this mail, but not the next`, async () => {
      const user = await quietUser('refused');

      smtp.plan(user.email, step);
      await forgot(app, user.email);
      await until(async () => smtp.tries(user.email) === 1
        && (await openMails(app)) === 0, { what: 'the mail to be given up' });
      assert.equal(await app.value(
        'select count(*)::int from app.mail_suppressions where email = $1',
        [user.email]), 0);
      await app.clock.advance(RETRY_MS);
      await sleep(500);
      assert.equal(smtp.tries(user.email), 1, 'not tried again');
      await forgot(app, user.email);
      await resetMail(user.email);
    });
  }

  for (const at of ['rcpt', 'data']) {
    test(`a line that breaks at ${at} loses and doubles nothing`, async () => {
      const user = await quietUser(`cut-${at}`);

      smtp.plan(user.email, { at, cut: true });
      await forgot(app, user.email);
      await until(() => smtp.tries(user.email) >= 1,
        { what: 'the first try' });
      await sleep(300);
      await app.clock.advance(RETRY_MS);
      await resetMail(user.email);
      await sleep(300);
      assert.equal(smtp.to(user.email).length, 1);
    });
  }

  test('a line that breaks after the last dot sends the same mail again',
    async () => {
      const user = await quietUser('dot');

      smtp.plan(user.email, { at: 'dot', cut: true });
      await forgot(app, user.email);
      await arrived(user.email, 1);
      await sleep(300);
      await app.clock.advance(RETRY_MS);
      const [first, second] = await arrived(user.email, 2);

      assert.equal(first.messageId, second.messageId,
        'so that a reader can tell');
    });
});

describe('a mail server that cannot be trusted', () => {
  async function refusedBy(smtpOptions, conf) {
    const cert = await Smtp.certificate();
    const smtp = await new Smtp(
      { key: cert.key, cert: cert.cert, ...smtpOptions }).start();
    const app = await boot({
      conf: {
        SMTP_HOST: '127.0.0.1', SMTP_PORT: String(smtp.port),
        SMTP_CA_FILE: cert.file, SMTP_USER: smtp.user,
        SMTP_PASSWORD: smtp.password, ...conf,
      },
    });

    try {
      const user = await app.user('member', { email: address('safe') });

      await forgot(app, user.email);
      await until(async () => await app.value(
        `select count(*)::int from queue.outbox
         where kind = 'mail.send' and state <> 2`) > 0,
      { what: 'the task' });
      await sleep(1500);
      assert.equal(smtp.mails.length, 0, 'no mail was given away');
      assert.ok(await openMails(app) > 0, 'and none was given up');
      assert.equal(smtp.clear, 0);
      return smtp.logins;
    } finally {
      await app.stop();
      await smtp.stop();
      cert.remove();
    }
  }

  test('without STARTTLS neither password nor mail leaves', async () => {
    const logins = await refusedBy({ disabledCommands: ['STARTTLS'] },
      { SMTP_TLS: 'starttls' });

    assert.equal(logins.length, 0);
  });

  test('with a certificate of somebody else neither leaves', async () => {
    const logins = await refusedBy({}, { SMTP_CA_FILE: null });

    assert.equal(logins.length, 0);
  });

  test('a refused login keeps the mail for later', async () => {
    const logins = await refusedBy({}, { SMTP_PASSWORD: 'wrong' });

    assert.ok(logins.length > 0);
  });
});

describe('as files, without SMTP_HOST', () => {
  test('one file per mail, whole, under the task\'s name', async () => {
    const app = await boot();

    try {
      const organizer = await app.user('organizer');
      const event = await app.event(organizer);
      const buyer = await app.user();
      const [ticket] = await app.freeTickets(buyer, event.types[0].id);
      const mail = await app.mailTo(buyer.email, (m) => m.attachments.length);

      checkWire(mail.raw);
      assert.match(path.basename(mail.file), /^\d+\.eml$/);
      assert.equal(await readQr(mail.attachments[0].content), ticket.code);
      assert.deepEqual(fs.readdirSync(app.conf.MAIL_DIR)
        .filter((f) => !f.endsWith('.eml')), [], 'no half-written file');
    } finally {
      await app.stop();
    }
  });
});
