/*
 * Names that a spreadsheet would run: in the export every cell of a client's
 * text is text.  The file is read here by the rules of RFC 4180.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';

let app;

before(async () => {
  app = await boot({ workers: 0 });
});
after(() => app?.stop());

function parse(text) {
  const rows = [[]];
  const cell = /("(?:[^"]|"")*"|[^,"\r\n]*)(,|\r\n)/gy;

  for (let m; cell.lastIndex < text.length;) {
    m = cell.exec(text);
    assert.ok(m, 'the file is RFC 4180');
    rows.at(-1).push({ raw: m[1], text: m[1].startsWith('"')
      ? m[1].slice(1, -1).replaceAll('""', '"') : m[1] });
    if (m[2] === '\r\n') rows.push([]);
  }
  assert.deepEqual(rows.pop(), []);
  return rows;
}

const NAMES = [
  '=1+1', '+1', '-1+2', '@SUM(A1)', '=cmd|\'/C calc\'!A0', '  =1+1',
  '=HYPERLINK("http://x","y")', 'a"b', 'a,b', 'a;=1+1', '"=1+1', '\'=1+1',
  '""', 'Zo\u00eb', '"",=1+1', '\\=1', '%0d=1', '\uff1d1+1', '\uff0b1',
  '\uff0d1', '\uff20SUM(A1)', '\u3000\uff1d1',
];

/* what a client cannot send any more, but an older row may hold */
const CELLS = ['\t=1+1', '\r=1', '\ttext', '\rtext', '\n=1', 'a\t=1'];

test('no cell begins a formula, and none is split', async () => {
  const olga = await app.user('organizer');
  const event = await app.event(olga, { types: [{
    name: '=1+1', priceCents: 0, quota: 100 }] });
  const stored = [];

  for (const firstName of NAMES) {
    const user = await app.user('member', { firstName, lastName: firstName });

    await app.freeTickets(user, event.types[0].id, 1);
    stored.push(user.email);
  }
  const res = await app.api('GET',
    `/api/v1/events/${event.id}/registrations.csv`, { token: olga.token });

  assert.equal(res.status, 200, res.text);
  assert.match(res.headers['content-disposition'], /^attachment; filename=/);
  assert.equal(res.headers['x-content-type-options'], 'nosniff');

  const [head, ...rows] = parse(res.text);

  assert.equal(rows.length, NAMES.length);
  for (const row of rows) {
    assert.equal(row.length, head.length);
    for (const { raw, text } of row) {
      assert.ok(!/^\s*[=+@\uff0b\uff0d\uff1d\uff20-]/.test(text),
        `a formula: ${text}`);
      if (/[;,\t"]/.test(text)) assert.ok(raw.startsWith('"'), raw);
    }
  }
  assert.deepEqual(rows.map((row) => row[3].text).sort(), stored.sort());
});

test('controls in older rows end no cell and begin none', async () => {
  for (const cell of CELLS) {
    const csv = await app.value('select app.csv($1)', [cell]);

    assert.match(csv, /^"[^]*"$/);
    if (!/^a/.test(cell)) assert.equal(csv, `"'${cell}"`);
  }
});
