/*
 * Forged and repeated webhooks: what is signed is the bytes and the time, the
 * rest is refused and leaves no trace; one event is stored once, however
 * often and however parallel it comes.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { after, before, test } from 'node:test';
import { SECRETS, boot } from '../harness/index.js';

const SECRET = SECRETS.STRIPE_WEBHOOK_SECRET;
let app, n = 0;

before(async () => {
  app = await boot({ workers: 0 });
});
after(() => app?.stop());

const event = (more = {}) => JSON.stringify({
  id: `evt_security_${++n}`, object: 'event', type: 'charge.updated',
  created: Math.floor(Date.now() / 1000), livemode: true,
  data: { object: { id: 'ch_1', object: 'charge' } }, ...more });
const mac = (body, t, secret = SECRET) => crypto
  .createHmac('sha256', secret).update(`${t}.`).update(body).digest('hex');
const now = (shift = 0) => Math.floor(Date.now() / 1000) + shift;
const header = (body, { t = now(), secret } = {}) =>
  `t=${t},v1=${mac(body, t, secret)}`;
const post = (body, signature, headers = {}) => app.api('POST',
  '/api/v1/webhooks/stripe', { body, validate: false, headers: {
    ...(signature === null ? {} : { 'Stripe-Signature': signature }),
    ...headers } });
const traces = () => app.value(`select (select count(*) from queue.outbox)
  + (select count(*) from app.webhook_events)`).then(Number);

async function refused(body, signature, what) {
  const before_ = await traces();
  const res = await post(body, signature);

  assert.equal(res.status, 400, `${what}: ${res.text}`);
  assert.equal(res.error.code, 'SIGNATURE_INVALID', what);
  assert.equal(await traces(), before_, what);
}

test('signed as it is: accepted', async () => {
  const body = event();

  assert.equal((await post(body, header(body))).status, 200);
  const other = event();

  assert.equal((await post(other, header(other,
    { secret: SECRETS.TEST_WEBHOOK_SECRET }))).status, 200);
});

test('one bit of the body, and the same JSON in other words', async () => {
  const body = event();
  const good = header(body);

  await refused(body.replace('charge.updated', 'charge.updatee'), good,
    'a letter');
  await refused(`${body} `, good, 'a space behind');
  await refused(`${body}\n`, good, 'a line end behind');
  await refused(` ${body}`, good, 'a space in front');
  await refused(JSON.stringify(JSON.parse(body), null, 1), good, 'indented');
  await refused(body.replace('"object":"event"', '"object":"\\u0065vent"'),
    good, 'escaped');
  await refused('', good, 'nothing');
  await refused(body.slice(0, -1), good, 'cut');
});

test('the header\'s every part counts', async () => {
  const body = event();
  const t = now();
  const sum = mac(body, t);

  for (const [what, signature] of Object.entries({
    'no header': null,
    'empty': '',
    'no time': `v1=${sum}`,
    'no sum': `t=${t}`,
    'another time': `t=${t - 1},v1=${sum}`,
    'time twice': `t=${t - 1},t=${t},v1=${sum}`,
    'an older scheme': `t=${t},v0=${sum}`,
    'cut': `t=${t},v1=${sum.slice(0, -1)}`,
    'longer': `t=${t},v1=${sum}0`,
    'empty sum': `t=${t},v1=`,
    'a float': `t=${t}.0,v1=${sum}`,
    'negative': `t=-${t},v1=${sum}`,
    'too large': `t=99999999999999999999,v1=${sum}`,
    'signed over no time': `t=${t},v1=${crypto.createHmac('sha256', SECRET)
      .update(body).digest('hex')}`,
    'another secret': header(body, { secret: 'whsec_of_somebody_else' }),
    'no secret': header(body, { secret: '' }),
    'sha512': `t=${t},v1=${crypto.createHmac('sha512', SECRET)
      .update(`${t}.${body}`).digest('hex')}`,
    'zeros': `t=${t},v1=${'0'.repeat(64)}`,
  })) {
    await refused(body, signature, what);
  }
});

test('old and future times', async () => {
  const body = event();

  for (const shift of [-400, -86400, 400, 86400]) {
    await refused(body, header(body, { t: now(shift) }), `${shift} s`);
  }
  assert.equal((await post(body, header(body, { t: now(-200) }))).status, 200);
});

test('two sums: one that is right is enough, two wrong ones are not',
  async () => {
    const body = event();
    const t = now();
    const wrong = mac(body, t, 'whsec_before_the_rotation');

    await refused(body, `t=${t},v1=${wrong},v1=${'f'.repeat(64)}`, 'two wrong');
    assert.equal((await post(body, `t=${t},v1=${wrong},v1=${mac(body, t)}`))
      .status, 200);
  });

test('two headers are none', async () => {
  const body = event();
  const text = await app.raw('POST /api/v1/webhooks/stripe HTTP/1.1\r\n' +
    'Host: x\r\nConnection: close\r\nContent-Type: application/json\r\n' +
    `Content-Length: ${body.length}\r\nStripe-Signature: t=1,v1=00\r\n` +
    `Stripe-Signature: t=2,v1=00\r\n\r\n${body}`);

  assert.match(text, /^HTTP\/1\.1 400/);
});

test('a hundred at once of one event: stored once', async () => {
  const body = event();
  const before_ = await traces();
  const all = await app.barrier(100, () => ({ method: 'POST',
    path: '/api/v1/webhooks/stripe', body, validate: false,
    headers: { 'Stripe-Signature': header(body) } }));

  assert.deepEqual([...new Set(all.map((res) => res.status))], [200]);
  assert.equal(await traces(), before_ + 2, 'an event and its task');
  assert.equal((await post(body, header(body))).status, 200);
  assert.equal(await traces(), before_ + 2);
});

test('signed, but no event', async () => {
  for (const body of ['', 'null', '[]', '{}', '{"id":1}', '"evt"', '{"id":""}',
    '{"id":"evt_x"}', `{"id":"${'e'.repeat(5000)}","type":"x"}`, '\u0000',
    '{"id":"evt_\u0000x","type":"x"}', '{"id":"evt_\\u0000x","type":"x"}',
    Buffer.from([0xff, 0xfe, 0x7b, 0x7d]), '['.repeat(10000)]) {
    const res = await post(body, header(body));

    assert.ok(res.status === 200 || res.status === 400,
      `${String(body).slice(0, 40)}: ${res.text}`);
  }
});

test('a megabyte is the most', async () => {
  const frame = event({ pad: '' });
  const at = (size) => frame.replace('"pad":""',
    `"pad":"${'x'.repeat(size - frame.length)}"`);
  const most = at(1048576);

  assert.equal((await post(most, header(most))).status, 200);
  const over = at(1048577);

  assert.equal((await post(over, header(over))).status, 413);
});
