/*
 * Links of mails: each one that stands in a template leads to a page that
 * knows what to do with it, in every language and in both forms of a mail.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { ROOT, boot } from '../harness/index.js';
import { content, go, launch, open } from './browser.js';

const MAILS = path.join(ROOT, 'conf/mail');
const WORDS = JSON.parse(fs.readFileSync(
  path.join(ROOT, 'conf/www/kit/words/en.json'), 'utf8'));
const LINK = /\{\{public_url\}\}(\/[^\s"<]*)/g;

let app, browser, buyer, event, order;

before(async () => {
  app = await boot({ workers: 1 });
  browser = await launch();
  buyer = await app.user();
  event = await app.event(await app.user('organizer'));
  order = (await app.order(buyer, event.types[0].id, 1)).data;
});

after(async () => {
  await browser?.close();
  await app?.stop();
});

/* A link: whether its page wants somebody signed in, and what it shows who
   came by it and would not show otherwise. */
const PAGES = {
  '/account/': { shows: (page) =>
    page.locator('input[autocomplete=current-password]') },
  '/account/#forgot': { shows: (page) =>
    page.getByRole('button', { name: WORDS['send.link'] }) },
  '/account/keys/': { signed: true, shows: (page) =>
    page.getByRole('button', { name: WORDS['key.make'] }) },
  '/account/reset/#token={{token}}': { shows: (page) =>
    page.locator('button[type=submit]:enabled') },
  '/account/verify/#token={{token}}': { shows: (page) =>
    page.locator('button[type=submit]:enabled') },
  '/events/': { shows: (page) => page.getByText(event.title) },
  '/events/order/?id={{order_id}}': { signed: true, shows: (page) =>
    page.locator(`a[href="/events/ticket/?id=${order.tickets[0].id}"]`) },
  '/events/tickets/': { signed: true, shows: (page) =>
    page.getByText(event.title) },
};

const templates = () => fs.readdirSync(MAILS, { recursive: true })
  .filter((name) => /\.(html|txt)$/.test(name));
const links = (name) => new Set([...fs.readFileSync(path.join(MAILS, name),
  'utf8').matchAll(LINK)].map((match) => match[1].replace(/[.,]$/, '')));

test('every link of every template is one of these, and each is in one', () => {
  const found = new Set();

  assert.ok(templates().length > 100);
  for (const name of templates()) {
    for (const link of links(name)) {
      assert.ok(PAGES[link], `${name}: ${link}`);
      found.add(link);
    }
    if (name.endsWith('.txt')) {
      assert.deepEqual(links(name), links(name.replace(/txt$/, 'html')), name);
      assert.deepEqual(links(name), links(name.replace(/^\w+/, 'en')), name);
    }
  }
  assert.deepEqual([...found].sort(), Object.keys(PAGES).sort());
});

for (const [link, { signed, shows }] of Object.entries(PAGES)) {
  test(`${link} leads to a page that handles it`, async () => {
    const page = await open(browser, app);

    if (signed) {
      const res = await app.api('POST', '/api/v1/auth/login',
        { body: { email: buyer.email, password: buyer.password } });

      await page.addInitScript((token) =>
        localStorage.setItem('stoa.refresh', token), res.data.refreshToken);
    }
    await go(page, link.replace('{{token}}', 'x'.repeat(43))
      .replace('{{order_id}}', order.id));
    await shows(page).first().waitFor();
    content(page);
    await page.context().close();
  });
}
