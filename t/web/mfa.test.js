/*
 * Two-step sign-in in a browser: set up by the QR code, asked for at sign-in
 * with the way of recovery codes, a fresh code in a dialog when a call needs
 * one, and turned off; by keyboard where that is the question.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';
import { Factor, enrol } from '../harness/mfa.js';
import { PHONE, content, fair, go, launch, open, readQr } from './browser.js';

let app, browser;

before(async () => {
  app = await boot({ workers: 0 });
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await app?.stop();
});

const part = (page, name = 'Two-step sign-in') =>
  page.getByRole('region', { name });

async function signIn(page, user) {
  await go(page, '/account/?next=/account/');
  await page.getByLabel('E-mail').fill(user.email);
  await page.getByLabel('Password', { exact: true }).fill(user.password);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

/* Signed in by the page's own session. */
async function signedIn(page, user, proof = {}) {
  const { data, text } = await app.api('POST', '/api/v1/auth/login', {
    body: { email: user.email, password: user.password, ...proof } });

  assert.ok(data?.refreshToken, text);
  await page.addInitScript((token) => {
    if (!localStorage.getItem('stoa.refresh')) {
      localStorage.setItem('stoa.refresh', token);
    }
  }, data.refreshToken);
}

test('set up by the QR code; the recovery codes are told once', async () => {
  const page = await open(browser, app);
  const user = await app.user();

  await signedIn(page, user);
  await go(page, '/account/');
  const section = part(page);

  await section.getByText('Off', { exact: true }).waitFor();
  page.allowed.push(/401/, /400/);
  await section.getByLabel('Your password').fill('not the password');
  await section.getByRole('button', { name: 'Set up' }).click();
  await section.getByText('E-mail or password is wrong.').waitFor();
  await section.getByLabel('Your password').fill(user.password);
  await section.getByLabel('Your password').press('Enter');

  const picture = section.getByAltText('QR code for an authenticator app');

  await picture.waitFor();
  const uri = await readQr(app, picture);
  const secret = new URL(uri).searchParams.get('secret');

  assert.match(uri, /^otpauth:\/\/totp\//);
  assert.equal((await section.locator('code').innerText())
    .replaceAll(' ', ''), secret, 'the same to be typed');
  await fair(page, 'the QR code');

  const factor = new Factor(app, secret);

  await section.getByLabel(/^Code/).fill(factor.wrong());
  await section.getByRole('button', { name: 'Turn on' }).click();
  await section.locator('.field-error:visible',
    { hasText: 'This code is not right' }).waitFor();
  await section.getByLabel(/^Code/).fill(await factor.fresh());
  await section.getByLabel(/^Code/).press('Enter');

  await section.getByRole('heading', { name: 'Recovery codes' }).waitFor();
  const codes = await section.locator('.codes code').allInnerTexts();

  assert.equal(codes.length, 10);
  await fair(page, 'the recovery codes');
  const [download] = await Promise.all([page.waitForEvent('download'),
    section.getByRole('link', { name: 'Download' }).click()]);
  const file = fs.readFileSync(await download.path(), 'utf8');

  assert.equal(download.suggestedFilename(), 'recovery-codes.txt');
  for (const code of codes) assert.ok(file.includes(code));
  await section.getByRole('button', { name: 'I have kept them' }).click();
  await section.getByText('Recovery codes left: 10').waitFor();
  await section.getByText('On', { exact: true }).waitFor();
  for (const code of codes) {
    assert.ok(!(await page.content()).includes(code), 'not shown again');
  }
  await fair(page, 'turned on');
  content(page);
  await page.context().close();
});

test('signing in asks for the code', async () => {
  const page = await open(browser, app);
  const user = await app.user();
  const factor = await enrol(app, user);

  page.allowed.push(/401/);
  await signIn(page, user);
  await page.getByRole('heading', { name: 'Enter your code' }).waitFor();
  await fair(page, 'the code');
  assert.equal(await page.evaluate(() =>
    document.activeElement.autocomplete), 'one-time-code', 'has the focus');
  await page.keyboard.type(factor.wrong());
  await page.keyboard.press('Enter');
  await page.getByText('This code is not right').waitFor();
  const code = await factor.fresh();

  await page.getByLabel(/^Code/).fill(`${code.slice(0, 3)} ${code.slice(3)}`);
  await page.keyboard.press('Enter');
  await part(page).getByText('On', { exact: true }).waitFor();
  content(page);
  await page.context().close();
});

test('or for a recovery code, on a phone; five minutes at most', async () => {
  const page = await open(browser, app, { viewport: PHONE });
  const user = await app.user();
  const factor = await enrol(app, user);

  page.allowed.push(/401/);
  await signIn(page, user);
  await page.getByRole('button', { name: 'Use a recovery code' }).click();
  await fair(page, 'a recovery code');
  await app.moveClock(301000);
  await page.getByLabel('Recovery code').fill(factor.recovery[0]);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByText('This took too long').waitFor();

  await page.getByLabel('E-mail').fill(user.email);
  await page.getByLabel('Password', { exact: true }).fill(user.password);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('button', { name: 'Use a recovery code' }).click();
  await page.getByRole('button', { name: 'Use the app' }).click();
  await page.getByLabel(/^Code/).waitFor();
  await page.getByRole('button', { name: 'Use a recovery code' }).click();
  await page.getByLabel('Recovery code').fill(factor.recovery[0]);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await part(page).getByText('Recovery codes left: 9').waitFor();
  content(page);
  await page.context().close();
});

test('a call that needs a fresh code asks for it in a dialog', async () => {
  const page = await open(browser, app);
  const user = await app.user();
  const factor = await enrol(app, user);

  await signedIn(page, user, { code: await factor.fresh() });
  await go(page, '/account/');
  await app.moveClock(901000);
  page.allowed.push(/401/, /400/);

  const change = async () => {
    await page.getByLabel('New e-mail').fill(`new-${user.email}`);
    await page.getByLabel('Password', { exact: true }).fill(user.password);
    await page.getByRole('button', { name: 'Change e-mail' }).click();
  };
  const dialog = page.getByRole('dialog',
    { name: 'Confirm that it is you' });

  /* Escape: nothing is changed, and the page says why */
  await change();
  await dialog.waitFor();
  await fair(page, 'the dialog');
  await page.keyboard.press('Escape');
  await dialog.waitFor({ state: 'detached' });
  await page.getByText('This needs a fresh code of your second factor.')
    .waitFor();

  await change();
  await dialog.waitFor();
  await page.keyboard.type(factor.wrong());
  await page.keyboard.press('Enter');
  await dialog.locator('.field-error:visible').waitFor();
  await dialog.getByLabel(/^Code/).fill(await factor.fresh());
  await page.keyboard.press('Enter');
  await dialog.waitFor({ state: 'detached' });
  await page.getByText('Open the link that was mailed to the new address.')
    .waitFor();

  /* fresh for a while, by the same token */
  await page.getByLabel('Current password').fill(user.password);
  await page.getByLabel('New password').fill('an entirely new password');
  await page.getByRole('button', { name: 'Change password' }).click();
  await page.getByText('Your password was changed.').waitFor();
  assert.equal(await dialog.count(), 0);
  content(page);
  await page.context().close();
});

test('new recovery codes, and the end of it', async () => {
  const page = await open(browser, app);
  const user = await app.user();
  const factor = await enrol(app, user);

  await signedIn(page, user, { code: await factor.fresh() });
  await go(page, '/account/');
  const section = part(page);

  await section.locator('summary', { hasText: 'New recovery codes' }).click();
  await section.getByLabel(/^Code/).first().fill(await factor.fresh());
  await section.getByRole('button', { name: 'New recovery codes' }).click();
  await section.getByRole('button', { name: 'I have kept them' }).waitFor();
  const [code] = await section.locator('.codes code').allInnerTexts();

  assert.ok(!factor.recovery.includes(code));
  await section.getByRole('button', { name: 'I have kept them' }).click();

  await section.locator('summary', { hasText: 'Turn off' }).click();
  const end = section.locator('form', { has: page.getByRole('button',
    { name: 'Turn off' }) });

  await end.getByLabel('Your password').fill(user.password);
  await end.getByRole('button', { name: 'Use a recovery code' }).click();
  await end.getByLabel('Recovery code').fill(code);
  await end.getByRole('button', { name: 'Turn off' }).click();
  await section.getByText('Two-step sign-in is off.').waitFor();
  await section.getByText('Off', { exact: true }).waitFor();
  assert.equal((await app.api('POST', '/api/v1/auth/login', { body: {
    email: user.email, password: user.password } })).status, 200);
  content(page);
  await page.context().close();
});
