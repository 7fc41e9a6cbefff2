/*
 * Every page: no complaint in the console, no fault that axe finds, in light
 * and dark, left-to-right and right-to-left, on a desk and on a phone; small
 * enough; a clear word when offline and when something is not there.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import zlib from 'node:zlib';
import { ROOT, boot } from '../harness/index.js';
import { PHONE, content, fair, go, launch, open } from './browser.js';

let app, browser, buyer, order, event;

before(async () => {
  app = await boot({ workers: 1 });
  browser = await launch();
  const organizer = await app.user('organizer');

  buyer = await app.user();
  await app.api('POST', '/api/v1/auth/api-keys', { token: buyer.token,
    body: { name: 'Robot', scopes: ['events:read'] } });
  event = await app.event(organizer, { types: [{ name: 'Seat',
    priceCents: 0, quota: 50 }, { name: 'Balcony', priceCents: 900,
    quota: 5 }] });
  order = (await app.order(buyer, event.types[0].id, 1)).data;
});

after(async () => {
  await browser?.close();
  await app?.stop();
});

/*
 * A login of the page's own: refresh tokens rotate, and one that a page
 * before has used up would end the session of them all.
 */
async function signIn(page) {
  const res = await app.api('POST', '/api/v1/auth/login',
    { body: { email: buyer.email, password: buyer.password } });

  assert.equal(res.status, 200);
  await page.addInitScript((token) => {
    if (!localStorage.getItem('stoa.refresh')) {
      localStorage.setItem('stoa.refresh', token);
    }
  }, res.data.refreshToken);
}

const PAGES = [
  ['events', () => '/events/', false],
  ['event', () => `/events/event/?id=${event.id}`, false],
  ['account', () => '/account/', false],
  ['reset', () => '/account/reset/#token=x', false],
  ['verify', () => '/account/verify/#token=x', false],
  ['docs', () => '/docs/', false],
  ['manual', () => '/docs/operator/#directives/stoa_pool', false],
  ['mail', () => '/mail/', false],
  ['my tickets', () => '/events/tickets/', true],
  ['order', () => `/events/order/?id=${order.id}`, true],
  ['ticket', () => `/events/ticket/?id=${order.tickets[0].id}`, true],
  ['profile', () => '/account/', true],
  ['keys', () => '/account/keys/', true],
  ['acting', () => '/account/acting/', true],
];

const LOOKS = [
  ['light', { colorScheme: 'light' }],
  ['dark, right-to-left, phone', { colorScheme: 'dark', locale: 'ar',
    viewport: PHONE }],
];

for (const [look, options] of LOOKS) {
  test(`axe finds no fault: ${look}`, async () => {
    for (const [name, to, signed] of PAGES) {
      const page = await open(browser, app, options);

      if (signed) await signIn(page);
      await go(page, to());
      await fair(page, name);
      content(page);
      await page.context().close();
    }
  });
}

test('every page is served with a policy that refuses inline code', async () => {
  for (const [, to] of PAGES) {
    const res = await fetch(app.url + to());
    const policy = res.headers.get('content-security-policy') ?? '';

    assert.equal(res.status, 200);
    assert.match(policy, /default-src 'self'|default-src 'none'/);
    assert.doesNotMatch(policy, /unsafe-inline|unsafe-eval/);
    assert.equal(res.headers.get('x-content-type-options'), 'nosniff');
  }
});

test('a page weighs at most 150 KB gzipped, with all words', () => {
  const dir = path.join(ROOT, 'conf/www');
  let total = 0;

  for (const name of fs.readdirSync(dir, { recursive: true })) {
    const file = path.join(dir, name);

    if (fs.statSync(file).isFile()) {
      total += zlib.gzipSync(fs.readFileSync(file)).length;
    }
  }
  assert.ok(total < 150 * 1024, `${total} bytes`);
});

test('six languages have the same words', () => {
  const dir = path.join(ROOT, 'conf/www/kit/words');
  const read = (name) => JSON.parse(fs.readFileSync(
    path.join(dir, `${name}.json`), 'utf8'));
  const english = Object.keys(read('en')).sort();

  for (const name of ['ar', 'de', 'es', 'fr', 'it']) {
    assert.deepEqual(Object.keys(read(name)).sort(), english, name);
  }
});

test('the manual is searched, linked to and read on a phone', async () => {
  const page = await open(browser, app, { viewport: PHONE });
  const manual = (await app.api('GET', '/api/v1/manual.json')).body;
  const shown = () => page.locator('.entry:visible');
  const box = page.getByLabel('Search');

  await go(page, '/docs/operator/');
  assert.equal(await shown().count(), Object.values(manual).flat().length);
  for (const [section, list] of Object.entries(manual)) {
    for (const one of list) {
      const node = page.locator(`[id="${section}/${one.name.replace('$', '')}"]`);

      assert.ok((await node.textContent()).includes(one.text), one.name);
    }
  }

  /* every word, in any of an entry's texts */
  await box.fill('  QUEUE_timeout  503 ');
  assert.equal(await shown().count(), 1);
  await page.getByText('1 entries').waitFor();
  assert.ok((await shown().textContent()).startsWith('stoa_pool '));
  await page.reload();
  await shown().first().waitFor();
  assert.equal(await shown().count(), 1);
  await box.fill('no such thing');
  await page.getByText('Nothing has all of these words.').waitFor();
  assert.equal(await shown().count(), 0);

  /* a link into it wins over what was searched */
  await page.evaluate(() => { location.hash = '#settings/DB_PORT'; });
  await page.locator('[id="settings/DB_PORT"]').waitFor();
  assert.equal(await box.inputValue(), '');
  await go(page, '/docs/operator/#variables/stoa_user');
  assert.ok(await page.locator('[id="variables/stoa_user"]')
    .evaluate((node) => node.getBoundingClientRect().top >= 0
      && node.getBoundingClientRect().top < innerHeight));
  content(page);
  await page.context().close();
});

test('offline, a page says so', async () => {
  const page = await open(browser, app);

  await go(page, '/events/');
  await page.context().setOffline(true);
  await page.getByText('You are offline.').waitFor();
  await page.context().setOffline(false);
  await page.getByText('You are offline.').waitFor({ state: 'hidden' });
  await page.context().close();
});

test('an event that does not exist is a sentence, not a blank page', async () => {
  const page = await open(browser, app);

  page.allowed.push(/404/);
  await go(page, '/events/event/?id=0190a000-0000-7000-8000-000000000000');
  await page.getByText('There is nothing here.').waitFor();
  content(page);
  await page.context().close();
});

test('the account is not saved over another window', async () => {
  const page = await open(browser, app);

  page.allowed.push(/412/);
  await signIn(page);
  await go(page, '/account/');
  const save = async (name) => {
    const [res] = await Promise.all([
      page.waitForResponse((r) => r.request().method() === 'PATCH'),
      page.getByLabel('First name').fill(name).then(() =>
        page.getByRole('button', { name: 'Save' }).click()),
    ]);

    return res.status();
  };

  assert.equal(await save('One'), 200);
  assert.equal(await save('Two'), 200);
  assert.equal((await app.api('PATCH', '/api/v1/users/me',
    { token: buyer.token, body: { firstName: 'Else' } })).status, 200);
  assert.equal(await save('Three'), 412);
  await page.getByText('This was changed elsewhere meanwhile.').waitFor();
  assert.equal((await app.api('GET', '/api/v1/users/me',
    { token: buyer.token })).data.firstName, 'Else');
  content(page);
  await page.context().close();
});

test('devices are ended one by one, all together, and by keyboard', async () => {
  const page = await open(browser, app);
  const owner = await app.user();
  const login = async (agent) => (await app.api('POST', '/api/v1/auth/login', {
    body: { email: owner.email, password: owner.password },
    headers: { 'User-Agent': agent } })).data;
  const state = async ({ accessToken }) => (await app.api('GET',
    '/api/v1/auth/check', { token: accessToken })).status;
  const mine = await login('Mozilla/5.0 (X11; Linux) Firefox/128.0');
  const [phone, till, box] = [
    await login('Mozilla/5.0 (iPhone) Version/17.5 Safari/604.1'),
    await login('till/1'), await login('box/1')];

  await page.addInitScript((token) => {
    if (!sessionStorage.getItem('begun')) {
      sessionStorage.setItem('begun', 'yes');
      localStorage.setItem('stoa.refresh', token);
    }
  }, mine.refreshToken);
  await go(page, '/account/');

  const part = page.getByRole('region', { name: 'Devices' });
  const names = () => part.getByRole('heading', { level: 3 }).allInnerTexts();

  await part.getByText('Safari on iPhone').waitFor();
  assert.deepEqual(await names(), ['Firefox on Linux', 'box', 'till',
    'Safari on iPhone', 'Unknown device']);
  assert.equal(await part.getByText('This device').count(), 1);

  await part.getByRole('button', { name: /^End: Safari on iPhone/ }).focus();
  await page.keyboard.press('Enter');
  await part.getByText('Ended.').waitFor();
  await part.getByText('Safari on iPhone').waitFor({ state: 'detached' });
  assert.equal(await page.evaluate(() => document.activeElement.id),
    'devices');
  assert.deepEqual([await state(phone), await state(till)], [401, 200]);

  /* ended elsewhere meanwhile: that is what was wanted */
  await app.api('POST', '/api/v1/auth/logout', { token: till.accessToken });
  page.allowed.push(/404/);
  await part.getByRole('button', { name: /^End: till/ }).click();
  await part.getByText('till').waitFor({ state: 'detached' });

  await part.getByRole('button', { name: 'End all others' }).click();
  await part.getByText('All others have ended.').waitFor();
  assert.deepEqual(await names(), ['Firefox on Linux']);
  assert.equal(await part.getByRole('button', { name: 'End all others' })
    .isVisible(), false);
  assert.equal(await state(box), 401);

  await part.getByRole('button', { name: /^End: Firefox/ }).click();
  await page.getByRole('button', { name: 'Sign in' }).waitFor();
  assert.equal(await page.evaluate(() =>
    localStorage.getItem('stoa.refresh')), null);
  content(page);
  await page.context().close();
});

test('once the browser has the cookie no script has the token', async () => {
  const page = await open(browser, app);
  const user = await app.user();
  const stored = () => page.evaluate(() =>
    localStorage.getItem('stoa.refresh'));
  const profile = (one) => one.getByLabel('First name').waitFor();

  await go(page, '/account/?next=%2Faccount%2F');
  await page.getByLabel('E-mail').fill(user.email);
  await page.getByLabel('Password', { exact: true }).fill(user.password);
  await page.keyboard.press('Enter');
  await profile(page);
  await go(page, '/account/'); /* the first refresh */
  await profile(page);
  assert.equal(await stored(), 'cookie');
  const [cookie] = (await page.context().cookies()).filter((one) =>
    one.name === '__Host-stoa_refresh');

  assert.ok(cookie.httpOnly && cookie.secure);

  /* another tab, a reload, and both at once */
  const tab = await page.context().newPage();

  await tab.goto(`${app.url}/account/`);
  await profile(tab);
  await Promise.all([page.reload(), tab.reload()]);
  await Promise.all([profile(page), profile(tab)]);
  assert.equal(await stored(), 'cookie');
  assert.equal(await app.value(`select count(*)::int from app.login_sessions
    where user_id = $1 and revoked_at is null`, [user.id]), 2,
  'one of the fixture, one of this browser');

  /* a cookie that is gone is a sign-out */
  await page.context().clearCookies();
  page.allowed.push(/40[01]/);
  await page.reload();
  await page.getByRole('button', { name: 'Sign in' }).waitFor();
  assert.equal(await stored(), null);
  content(page);
  await page.context().close();
});

test('the next page after signing in is one of this origin', async () => {
  const page = await open(browser, app);
  const evil = 'evil.example/';

  await go(page, `/account/?next=//${evil}`);
  await page.getByLabel('E-mail').fill(buyer.email);
  await page.getByLabel('Password', { exact: true }).fill(buyer.password);
  await page.locator('form button[type=submit]').click();
  await page.waitForURL('**/events/');
  assert.equal(new URL(page.url()).origin, app.url);

  /* the same of each other way to write it */
  const next = (list) => page.evaluate(async (all) => {
    const forms = await import('/account/forms.js');

    return all.map((to) => forms.next(to));
  }, list);
  const bad = ['', null, 'events/', `https:${evil}`, `https://${evil}`,
    `\\\\${evil}`, `/\\${evil}`, `/\t/${evil}`, `/\n/${evil}`,
    `/\r\n\\${evil}`, `\t//${evil}`, ` //${evil}`, `/.//${evil}`,
    `/x/..//${evil}`, `/%2e//${evil}`, `/\t.\t/\\${evil}`, '//[', `//${evil}..`,
    'javascript:alert(1)', '\u0000//x'];

  assert.deepEqual(await next(bad), bad.map(() => '/events/'));
  assert.deepEqual(await next(['/', '/events/event/?id=1&x=%2F#top',
    '/a/../b?to=//x', '/%09/x']), ['/', '/events/event/?id=1&x=%2F#top',
    '/b?to=//x', '/%09/x']);

  /* and as it comes in an address: who is signed in is sent on */
  await page.goto(`${app.url}/account/?next=%2F%09%2F${evil}`,
    { waitUntil: 'commit' });
  await page.waitForURL((url) => url.pathname !== '/account/');
  assert.equal(page.url(), `${app.url}/events/`);
  await page.context().close();
});
