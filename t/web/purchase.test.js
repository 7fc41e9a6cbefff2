/*
 * The whole purchase in a browser: by pointer, by keyboard alone, and on a
 * phone's width; each ends with a QR code that an independent reader decodes
 * and the door admits.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';
import { PHONE, content, go, launch, open, readQr, ready } from './browser.js';

let app, browser, organizer, event;

before(async () => {
  app = await boot({ workers: 1 });
  browser = await launch();
  organizer = await app.user('organizer');
  event = await app.event(organizer, {
    title: 'Night of the harp', location: 'Small hall',
    description: 'An evening.\n\nWith <b>no</b> markup.',
    types: [{ name: 'Seat', priceCents: 2500, quota: 50 },
      { name: 'Standing', priceCents: 0, quota: 50 }],
  });
});

after(async () => {
  await browser?.close();
  await app?.stop();
});

async function register(page) {
  const email = `web-${Date.now()}${Math.random().toString(36).slice(2, 8)}`
    + '@test.example';

  await page.getByRole('button', { name: 'Create account' }).click();
  await page.getByLabel('First name').fill('Ada');
  await page.getByLabel('Last name').fill('Byron');
  await page.getByLabel('E-mail').fill(email);
  await page.getByLabel('Password').fill('correct horse battery staple');
  await page.getByRole('button', { name: 'Create account' }).click();
  return email;
}

async function admitted(code) {
  const scan = async () => (await app.api('POST', '/api/v1/orders/validate',
    { token: organizer.token, body: { code, eventId: event.id } })).data;
  const first = await scan();
  const second = await scan();

  assert.equal(first.verdict, 'admitted');
  assert.equal(second.verdict, 'already_used');
}

test('T-26: a paid ticket, by pointer, to the door', async () => {
  const page = await open(browser, app);

  await go(page, '/events/');
  await page.getByRole('link', { name: 'Night of the harp' }).click();
  await ready(page);
  assert.equal(await page.locator('article b').count(), 0);
  await page.getByRole('link', { name: 'Sign in' }).click();
  await ready(page);
  const email = await register(page);

  await page.waitForURL('**/events/');
  await go(page, `/events/event/?id=${event.id}`);
  await page.getByRole('button', { name: 'More Seat' }).click();
  await page.getByText('Total: €25.00').waitFor();
  await page.getByRole('button', { name: 'Order' }).click();
  await page.waitForURL('**/pay/*');
  await ready(page);
  await page.getByText('€25.00').waitFor();
  await page.getByRole('button', { name: 'Pay', exact: true }).click();
  await page.waitForURL('**/events/order/**');
  await page.getByText('You are going!').waitFor();
  await page.locator('.qr img').waitFor();
  await page.waitForFunction(() =>
    document.querySelector('.qr img').naturalWidth > 0);
  content(page);

  const code = await readQr(app, page.locator('.qr'));

  assert.match(code, /^[A-Z2-7]{157}$/);
  const mail = await app.mailTo(email, (m) => /harp/i.test(m.subject));

  assert.ok(mail.attachments.some((a) => a.contentType === 'image/png'));
  await admitted(code);
  await page.context().close();
});

/* Tab until the focused element has this accessible name, then press. */
async function press(page, name, key = 'Enter') {
  for (let i = 0; i < 60; i++) {
    const found = await page.evaluate(() => {
      const at = document.activeElement;

      return at.getAttribute('aria-label')
        || (at.labels && at.labels[0] && at.labels[0].firstChild.textContent)
        || at.textContent.trim();
    });

    if (found === name) {
      if (key) await page.keyboard.press(key);
      return;
    }
    await page.keyboard.press('Tab');
  }
  assert.fail(`"${name}" cannot be reached by the keyboard`);
}

test('T-26: a free ticket, by keyboard alone', async () => {
  const page = await open(browser, app);

  await go(page, `/account/?next=${encodeURIComponent(
    `/events/event/?id=${event.id}`)}`);
  await press(page, 'Create account');
  for (const [label, text] of [['First name', 'Grace'],
    ['Last name', 'Hopper'], ['E-mail', `key-${Date.now()}@test.example`],
    ['Password', 'correct horse battery staple']]) {
    await press(page, label, null);
    await page.keyboard.type(text);
  }
  await page.keyboard.press('Enter');
  await page.waitForURL('**/events/event/**');
  await ready(page);
  await press(page, 'More Standing');
  await press(page, 'Order');
  await page.waitForURL('**/events/order/**');
  await page.getByText('You are going!').waitFor();
  await page.waitForFunction(() => {
    const image = document.querySelector('.qr img');

    return image && image.naturalWidth > 0;
  });
  await admitted(await readQr(app, page.locator('.qr')));
  content(page);
  await page.context().close();
});

test('T-26: declined, then paid, on a phone', async () => {
  const page = await open(browser, app, { viewport: PHONE, hasTouch: true,
    isMobile: true });

  await go(page, '/account/');
  await register(page);
  await page.waitForURL('**/events/');
  await go(page, `/events/event/?id=${event.id}`);
  await page.getByRole('button', { name: 'More Seat' }).tap();
  await page.getByRole('button', { name: 'Order' }).tap();
  await page.waitForURL('**/pay/*');
  await ready(page);

  const wide = await page.evaluate(() =>
    document.documentElement.scrollWidth > window.innerWidth);

  assert.equal(wide, false, 'the page scrolls sideways');
  const pay = page.url();

  await page.getByRole('button', { name: 'Decline' }).tap();
  await page.waitForURL('**/events/order/**');
  await page.getByText('Payment failed').waitFor();
  await go(page, pay);
  content(page);
  await page.context().close();
});

test('T-11: a ticket that was given away no longer opens the door', async () => {
  const friend = await app.user();
  const page = await open(browser, app);

  await go(page, '/account/');
  await register(page);
  await page.waitForURL('**/events/');
  await go(page, `/events/event/?id=${event.id}`);
  await page.getByRole('button', { name: 'More Standing' }).click();
  await page.getByRole('button', { name: 'Order' }).click();
  await page.waitForURL('**/events/order/**');
  await page.getByText('You are going!').waitFor();
  await page.waitForFunction(() => {
    const image = document.querySelector('.qr img');

    return image && image.naturalWidth > 0;
  });
  const old = await readQr(app, page.locator('.qr'));

  await page.getByRole('link', { name: 'Open ticket' }).click();
  await ready(page);
  await page.getByText('Give this ticket to someone').click();
  await page.getByLabel('E-mail of the new holder').fill(friend.email);
  await page.getByRole('button', { name: 'Transfer', exact: true }).click();
  await page.getByText('The ticket was transferred.').waitFor();
  content(page);

  const { data } = await app.api('POST', '/api/v1/orders/validate',
    { token: organizer.token, body: { code: old, eventId: event.id } });

  assert.notEqual(data.verdict, 'admitted');
  await page.context().close();
});

test('B-67: a new password by the link of the mail', async () => {
  const user = await app.user();
  const page = await open(browser, app);

  await go(page, '/account/');
  await page.getByRole('button', { name: 'Forgot your password?' }).click();
  await page.getByLabel('E-mail').fill(user.email);
  await page.getByRole('button', { name: 'Send link' }).click();
  await page.getByText('a link is on its way').waitFor();

  const mail = await app.mailTo(user.email, (m) => /reset/.test(m.text));
  const [link] = /http\S+\/account\/reset\/#token=\S+/.exec(mail.text);

  await go(page, link);
  assert.equal(new URL(page.url()).hash, '');
  await page.getByLabel('New password').fill('an entirely new password');
  await page.getByRole('button', { name: 'Save' }).click();
  await page.getByText('Your password was changed.').waitFor();
  content(page);

  const again = await app.api('POST', '/api/v1/auth/login', { body: {
    email: user.email, password: 'an entirely new password' } });

  assert.equal(again.status, 200);
  await page.context().close();
});
