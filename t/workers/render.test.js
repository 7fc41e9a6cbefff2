/*
 * Tickets as PDF and PNG, read back by programs that know nothing of Stoa:
 * pdftotext for the words, pdftoppm and zbarimg for the code.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { boot, run, until } from '../harness/index.js';
import { tempDir } from '../harness/proc.js';

let app, organizer, buyer, dir;

before(async () => {
  dir = tempDir('stoa-render-');
  app = await boot();
  organizer = await app.user('organizer');
  buyer = await app.user('member', { firstName: 'Zoë', lastName: 'Čapek' });
});
after(async () => {
  await app?.stop();
  fs.rmSync(dir, { recursive: true, force: true });
});

/* The file as the client gets it, waited for. */
async function fetchTicket(ticket, format, user = buyer) {
  const res = await until(async () => {
    const r = await app.api('GET', `/api/v1/tickets/${ticket.id}.${format}`,
      { token: user.token, validate: false });

    return r.status === 202 ? null : r;
  }, { timeout: 15000, every: 200, what: `the ${format}` });

  assert.equal(res.status, 200, res.text);
  assert.equal(res.headers['content-type'],
    format === 'pdf' ? 'application/pdf' : 'image/png');

  const file = path.join(dir, `${ticket.id}.${format}`);

  fs.writeFileSync(file, res.raw);
  return file;
}

const readQr = async (file) =>
  (await run('zbarimg', ['-q', '--raw', file])).trim();

async function ticketOf(fields, types = [{ name: 'Balcony', priceCents: 0 }]) {
  const event = await app.event(organizer, { types, ...fields });

  return (await app.freeTickets(buyer, event.types[0].id))[0];
}

/* Words of the first page, without the marks of direction. */
async function words(pdf) {
  return (await run('pdftotext', ['-layout', pdf, '-']))
    .replaceAll(/[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, '');
}

test('a PDF says what, when, where, who, and its code is the ticket\'s',
  async () => {
    const ticket = await ticketOf({
      title: 'Rusalka — a night at the opera', location: 'Praha, Národní 2',
      startsAt: '2031-07-01T17:30:00Z', endsAt: '2031-07-01T20:00:00Z',
      timezone: 'Europe/Prague',
    });
    const pdf = await fetchTicket(ticket, 'pdf');
    const text = await words(pdf);

    for (const part of ['Rusalka — a night at the opera', 'Praha, Národní 2',
      'Tuesday, 1 July 2031, 19:30', 'Europe/Prague', 'Balcony',
      'Zoë Čapek', 'free']) {
      assert.ok(text.replaceAll(/\s+/g, ' ').includes(part),
        `"${part}" in\n${text}`);
    }
    await run('pdftoppm', ['-r', '100', '-png', '-singlefile', pdf,
      pdf.replace('.pdf', '')]);
    assert.equal(await readQr(pdf.replace('.pdf', '.png')), ticket.code);
  });

test('a PNG holds the same code', async () => {
  const ticket = await ticketOf({ title: 'Small concert' });
  const png = await fetchTicket(ticket, 'png');

  assert.equal(fs.readFileSync(png).subarray(1, 4).toString(), 'PNG');
  assert.equal(await readQr(png), ticket.code);
});

test('T-2: Arabic and Hebrew are shaped, not spelled', async () => {
  await app.sql(`update app.users set preferred_language = 'ar'
    where id = $1`, [buyer.id]);
  const ticket = await ticketOf({
    title: 'حفلة الموسيقى', location: 'היכל התרבות',
  });
  const pdf = await fetchTicket(ticket, 'pdf');
  const text = (await words(pdf)).replaceAll(/\s/g, '');

  await app.sql(`update app.users set preferred_language = 'en'
    where id = $1`, [buyer.id]);
  /* readers give the letters back in reading order */
  for (const part of ['حفلة', 'היכל']) {
    assert.ok(text.includes(part), `"${part}" in ${text}`);
  }
  await run('pdftoppm', ['-r', '100', '-png', '-singlefile', pdf,
    pdf.replace('.pdf', '')]);
  assert.equal(await readQr(pdf.replace('.pdf', '.png')), ticket.code);
});

test('text of any length and any sign leaves the code readable', async () => {
  const ticket = await ticketOf({
    title: 'W'.repeat(200), location: '🎻 \\ ( ) <x> & ' + 'm'.repeat(150),
  }, [{ name: 'n'.repeat(80), priceCents: 0 }]);
  const png = await fetchTicket(ticket, 'png');

  assert.equal(await readQr(png), ticket.code);
});

test('a ticket is drawn once, also for many who ask at once', async () => {
  const ticket = await ticketOf({ title: 'Crowd' });
  const all = await app.barrier(12, () => ({
    method: 'GET', path: `/api/v1/tickets/${ticket.id}.pdf`,
    token: buyer.token, validate: false,
  }));

  assert.ok(all.every((r) => r.status === 200 || r.status === 202));
  await fetchTicket(ticket, 'pdf');
  assert.equal(await app.value(
    `select count(*)::int from app.ticket_renders where ticket_id = $1`,
    [ticket.id]), 1);

  const good = all.filter((r) => r.status === 200);

  assert.ok(good.every((r) => r.raw.equals(good[0].raw)));
});

test('nobody else gets the file', async () => {
  const ticket = await ticketOf({ title: 'Private' });
  const other = await app.user();
  const res = await app.api('GET', `/api/v1/tickets/${ticket.id}.pdf`,
    { token: other.token });

  assert.equal(res.status, 404);
});
