/*
 * The account's address in a browser: the link of the mail confirms it, the
 * profile asks for another link and for another address.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';
import { content, go, launch, open, ready } from './browser.js';

let app, browser;

before(async () => {
  app = await boot({ workers: 1 });
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await app?.stop();
});

async function signedIn(page) {
  const user = await app.user();

  await page.addInitScript((token) => {
    if (!localStorage.getItem('stoa.refresh')) {
      localStorage.setItem('stoa.refresh', token);
    }
  }, user.refreshToken);
  return user;
}

/* Opens the link of a mail, never from the same page: that only scrolls. */
async function visit(page, mail, to = 'verify') {
  const [, path] = mail.text.match(
    new RegExp(`${app.url}(/account/${to}\\S*)`));

  await go(page, '/events/');
  await go(page, path);
}

test('N-19: the mailed link confirms; a new address is asked for',
  async () => {
    const page = await open(browser, app);
    const user = await signedIn(page);
    const first = await app.mailTo(user.email,
      (m) => m.text.includes('/account/verify/'));

    await go(page, '/account/');
    await page.getByText('Not confirmed').waitFor();
    await page.getByRole('button', { name: 'Send the confirmation again' })
      .click();
    await page.getByText('A link is on its way to you.').waitFor();
    const second = await app.mailTo(user.email, (m) =>
      m.text.includes('/account/verify/') && m.file !== first.file);

    page.allowed.push(/400/);
    await visit(page, first);
    assert.equal(new URL(page.url()).hash, '', 'no token in the history');
    await page.getByRole('button', { name: 'Confirm your e-mail' }).click();
    await page.getByText('This link is used up or too old.').waitFor();
    await visit(page, second);
    await page.getByRole('button', { name: 'Confirm your e-mail' }).click();
    await page.getByText('Your e-mail address is confirmed.').waitFor();
    await page.getByRole('main').getByRole('link', { name: 'Account' })
      .click();
    await ready(page);
    await page.getByText('Confirmed', { exact: true }).waitFor();

    const email = `new-${user.email}`;
    const ask = async (password) => {
      await page.getByLabel('New e-mail').fill(email);
      await page.getByLabel('Password', { exact: true }).fill(password);
      await page.getByRole('button', { name: 'Change e-mail' }).click();
    };

    page.allowed.push(/401/);
    await ask('not the password');
    await page.getByText('E-mail or password is wrong.').waitFor();
    await ask(user.password);
    await page.getByText('Open the link that was mailed to the new address.')
      .waitFor();
    await visit(page, await app.mailTo(email));
    await page.getByRole('button', { name: 'Confirm your e-mail' }).click();
    await page.getByText('Your e-mail address was changed.').waitFor();
    await go(page, '/account/');
    await page.getByText(email).waitFor();

    const notice = await app.mailTo(user.email,
      (m) => m.text.includes('/account/#forgot'));

    await visit(page, notice, '#forgot');
    await page.getByRole('heading', { name: 'Forgot your password?' })
      .waitFor();
    content(page);
    await page.context().close();
  });

test('N-19: without a session, the link is enough', async () => {
  const page = await open(browser, app, { locale: 'de-DE' });
  const user = await app.user();
  const mail = await app.mailTo(user.email,
    (m) => m.text.includes('/account/verify/'));

  await visit(page, mail);
  await page.getByRole('button', { name: 'E-Mail bestätigen' }).click();
  await page.getByText('Ihre E-Mail-Adresse ist bestätigt.').waitFor();
  content(page);
  await page.context().close();
});

test('G-18: what one agrees to', async () => {
  const page = await open(browser, app);
  const user = await signedIn(page);
  const part = page.getByRole('region', { name: 'Privacy' });
  const box = part.getByRole('checkbox', { name: /Count my visits/ });

  await go(page, '/account/');
  await box.waitFor();
  assert.equal(await box.isChecked(), false, 'nothing is ticked beforehand');
  await box.focus();
  await page.keyboard.press('Space');
  await part.getByRole('button', { name: 'Keep my choices' }).click();
  await part.getByText('Saved.').waitFor();
  assert.deepEqual(await app.sql(`select kind, granted from app.consents
    where user_id = $1 order by kind`, [user.id]), [
    { kind: 'analytics', granted: true },
    { kind: 'marketing', granted: false },
    { kind: 'personalization', granted: false }]);
  await page.reload();
  await ready(page);
  await box.waitFor();
  assert.equal(await box.isChecked(), true);
  content(page);
  await page.context().close();
});
