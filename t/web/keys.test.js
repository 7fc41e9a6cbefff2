/*
 * API keys in a browser: made with scopes and an end, shown once and copied,
 * rotated, revoked; and an admin in somebody's name, of whom every page says
 * so until it ends.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { boot, until } from '../harness/index.js';
import { PHONE, content, fair, go, launch, open, ready } from './browser.js';

let app, browser;

before(async () => {
  app = await boot({ workers: 0 });
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await app?.stop();
});

async function signIn(page, user) {
  await page.addInitScript((token) => {
    if (!localStorage.getItem('stoa.refresh')) {
      localStorage.setItem('stoa.refresh', token);
    }
  }, user.refreshToken);
  return user;
}

const me = (key) => app.api('GET', '/api/v1/users/me', { token: key });

test('a key is made, copied, used, rotated and revoked', async () => {
  const page = await open(browser, app, {
    permissions: ['clipboard-read', 'clipboard-write'] });
  const user = await signIn(page, await app.user());

  await go(page, '/account/');
  await page.getByRole('link', { name: 'Manage API keys' }).click();
  await ready(page);
  await page.getByText('You have no keys.').waitFor();

  /* without a scope it is not sent */
  await page.getByLabel('What it is for').fill('Till <b>1</b>');
  await page.getByRole('button', { name: 'Make key' }).click();
  await page.getByText('Choose what the key may do.').waitFor();
  await page.getByLabel('users:read').check();
  await page.getByLabel('orders:read').check();
  await page.getByLabel('Lives for').selectOption({ label: '30 days' });
  await page.getByRole('button', { name: 'Make key' }).click();
  await page.getByRole('heading', { name: 'Your key "Till <b>1</b>"' })
    .waitFor();

  const key = await page.getByLabel('The key', { exact: true }).inputValue();

  assert.match(key, /^stoa_sk_[a-z2-7]{96}$/);
  await page.getByRole('button', { name: 'Copy' }).click();
  await page.getByRole('button', { name: 'Copied' }).waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()),
    key);
  await fair(page, 'a new key');

  const own = await me(key);

  assert.equal(own.data.id, user.id);
  assert.equal((await app.api('GET', '/api/v1/tickets', { token: key }))
    .error.code, 'SCOPE_MISSING');
  await until(async () => app.value(`select last_used_at from app.api_keys
    where owner_id = $1`, [user.id]), { what: 'the use to be stored' });

  /* not shown again, but its beginning, scopes, end and use */
  await go(page, '/account/keys/');
  assert.ok(!(await page.content()).includes(key.slice(16)));
  const line = page.getByRole('listitem').filter({ hasText: 'Till' });

  await line.getByText(`${key.slice(0, 16)}…`).waitFor();
  await line.getByText('orders:read, users:read').waitFor();
  await line.getByText(/Until .* Last used/).waitFor();

  await page.getByRole('button', { name: /^Rotate: Till/ }).click();
  await page.getByRole('heading', { name: /^Your key "/ }).waitFor();
  const next = await page.getByLabel('The key', { exact: true }).inputValue();

  await page.getByText('Replaced', { exact: true }).waitFor();
  for (const one of [key, next]) assert.equal((await me(one)).status, 200);

  await page.getByRole('button', { name: `Revoke: Till <b>1</b> ` +
    `(${key.slice(0, 16)}…)` }).click();
  await page.getByText('Revoked. It does not work any more.').waitFor();
  assert.equal((await me(key)).error.code, 'TOKEN_REVOKED');
  assert.equal((await me(next)).status, 200);
  assert.equal(await page.getByLabel('The key', { exact: true }).count(), 0,
    'what was shown is gone');
  content(page);
  await page.context().close();
});

test('by keyboard, on a phone, from right to left', async () => {
  const page = await open(browser, app, { locale: 'ar', viewport: PHONE });

  await signIn(page, await app.user());
  await go(page, '/account/keys/');
  await page.locator('#f-name').focus();
  await page.keyboard.type('robot');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Space');
  await page.keyboard.press('Enter');
  await page.locator('#secret').waitFor();
  await page.waitForFunction(() => document.activeElement.id === 'made');
  await fair(page, 'a key on a phone');
  content(page);
  await page.context().close();
});

test('an admin in somebody\'s name: every page says so', async () => {
  const page = await open(browser, app);
  const root = await signIn(page, await app.user('admin'));
  const ada = await app.user('member',
    { firstName: 'Ada', lastName: 'Lovelace' });
  const banner = page.getByText(/You act in the name of Ada Lovelace until/);

  await go(page, '/account/');
  await page.getByRole('link', { name: 'Act in somebody\'s name' }).click();
  await ready(page);
  await page.getByLabel('E-mail of the account').fill('nobody@test.example');
  await page.getByLabel('Reason').fill('She called');
  await page.getByRole('button', { name: 'Begin' }).click();
  await page.getByText('There is nothing here.').waitFor();
  await page.getByLabel('E-mail of the account').fill(ada.email);
  await page.getByRole('button', { name: 'Begin' }).click();
  await banner.waitFor();
  await ready(page);
  assert.equal(await page.getByLabel('First name').inputValue(), 'Ada');
  await fair(page, 'in the name of another');

  /* what is not to be touched is not offered */
  for (const name of ['Change password', 'Change e-mail', 'Sign out',
    'End all others']) {
    assert.equal(await page.getByRole('button', { name }).count(), 0, name);
  }
  await page.getByLabel('First name').fill('Augusta');
  await page.getByRole('button', { name: 'Save' }).click();
  await page.getByText('Saved.').waitFor();
  assert.deepEqual(await app.sql(`select acting_as from app.audit_log
    where action = 'user.update' and actor = $1`, [ada.id]),
  [{ acting_as: root.id }]);

  for (const to of ['/events/', '/events/tickets/', '/docs/']) {
    await go(page, to);
    await banner.waitFor();
  }
  page.allowed.push(/403/);
  await go(page, '/account/keys/');
  await page.getByText('This is not done in somebody else\'s name.')
    .waitFor();

  /* another tab is the admin's own */
  const other = await page.context().newPage();

  await go(other, '/account/');
  assert.equal(await other.getByText(/You act in the name/).count(), 0);
  assert.equal(await other.getByLabel('First name').inputValue(), 'Test');

  await page.getByRole('button', { name: 'End', exact: true }).click();
  await ready(page);
  await page.getByLabel('First name').waitFor();
  assert.equal(await page.getByLabel('First name').inputValue(), 'Test');
  assert.equal(await banner.count(), 0);
  content(page);
  await page.context().close();
});

test('it ends with the admin\'s session, and the page goes on as oneself',
  async () => {
    const page = await open(browser, app);
    const root = await signIn(page, await app.user('admin'));
    const ada = await app.user();

    await go(page, '/account/acting/');
    await page.getByLabel('E-mail of the account').fill(ada.email);
    await page.getByLabel('Reason').fill('She called');
    await page.getByRole('button', { name: 'Begin' }).click();
    await page.getByText(/You act in the name/).waitFor();
    await ready(page);

    page.allowed.push(/401/);
    await app.sql(`select app.epoch_next($1)`, [root.id]);
    await until(async () => {
      await go(page, '/account/');
      return !(await page.getByText(/You act in the name/).count());
    }, { what: 'the page to notice' });
    await go(page, '/account/');
    assert.equal(await page.getByLabel('Last name').inputValue(), 'admin');
    content(page);
    await page.context().close();
  });
