/*
 * Signing in with a provider in a browser: the button, the provider's page
 * and back to where one was going; the code of a second factor; what went
 * wrong; linking and unlinking under the account.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { enrol } from '../harness/mfa.js';
import { together } from '../harness/provider.js';
import { PHONE, content, fair, go, launch, open, ready } from './browser.js';

let all, app, google, browser;

before(async () => {
  all = await together(['google'], { more: { google: { settings: {
    title: 'Google' } } } });
  ({ app, google } = all);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await all?.stop();
});

const button = (page) => page.getByRole('link',
  { name: 'Continue with Google' });
const part = (page) => page.getByRole('region', { name: 'Ways to sign in' });

/* Asks for a click at the provider's page. */
async function choose(page, who) {
  google.account = undefined;
  await button(page).click();
  await page.getByRole('button', { name: who || 'No', exact: true }).click();
}

const verified = async () => app.verified(await app.user());

test('a click, and back to where one was going', async () => {
  const page = await open(browser, app, { viewport: PHONE });

  google.person('ada', { given_name: 'Ada' });
  await go(page, '/account/?next=%2Fevents%2Ftickets%2F%3Fa%3Db');
  await button(page).waitFor();
  await fair(page, 'the sign-in page');
  await choose(page, 'ada');
  await page.waitForURL('**/events/tickets/?a=b');
  await ready(page);
  await go(page, '/account/');
  await page.getByRole('heading', { name: 'Account' }).waitFor();
  assert.equal(await page.getByLabel('First name').inputValue(), 'Ada');
  await part(page).getByRole('heading', { name: 'Google' }).waitFor();
  await fair(page, 'the account page');

  /* the only way in stays */
  page.allowed.push(/409/);
  await part(page).getByRole('button', { name: 'Unlink: Google' }).click();
  await part(page).getByText('This is your only way to sign in').waitFor();
  content(page);
  await page.context().close();
});

test('it takes the place of another session of this browser', async () => {
  const page = await open(browser, app);
  const user = await app.user();
  const { data } = await app.api('POST', '/api/v1/auth/login', { body: {
    email: user.email, password: user.password } });

  google.person('eve', { given_name: 'Eve' });
  await go(page, '/account/');
  await page.evaluate((token) => localStorage.setItem('stoa.refresh', token),
    data.refreshToken);
  google.account = 'eve';
  await page.goto('/api/v1/oauth/google?next=%2Faccount%2F');
  await page.waitForURL('**/account/');
  await ready(page);
  assert.equal(await page.getByLabel('First name').inputValue(), 'Eve');
  content(page);
  await page.context().close();
});

test('who has a second factor is asked for its code', async () => {
  const page = await open(browser, app);
  const user = await verified();

  google.person('bob', { email: user.email });
  await go(page, '/account/?next=%2Faccount%2F');
  await choose(page, 'bob');
  await page.waitForURL('**/account/');
  await ready(page);
  const factor = await enrol(app, user);

  await page.context().clearCookies();
  await page.evaluate(() => localStorage.clear());
  page.allowed.push(/401/);
  await go(page, '/account/?next=%2Faccount%2F');
  google.account = 'bob';
  await button(page).click();
  await page.getByRole('heading', { name: 'Enter your code' }).waitFor();
  await fair(page, 'the code');
  await page.keyboard.type(factor.wrong());
  await page.keyboard.press('Enter');
  await page.getByText('This code is not right').waitFor();
  await page.getByLabel(/^Code/).fill(await factor.fresh());
  await page.keyboard.press('Enter');
  await page.waitForURL('**/account/');
  await ready(page);
  await page.getByLabel('First name').waitFor();

  /* five minutes, no longer */
  await page.context().clearCookies();
  await page.evaluate(() => localStorage.clear());
  await go(page, '/account/');
  await button(page).click();
  await page.getByRole('heading', { name: 'Enter your code' }).waitFor();
  await app.moveClock(301000);
  await page.getByLabel(/^Code/).fill(factor.code());
  await page.keyboard.press('Enter');
  await page.getByText('This took too long').waitFor();
  await page.getByRole('link', { name: 'Sign in' }).last().waitFor();
  content(page);
  await page.context().close();
});

test('what went wrong is told, with the way back', async () => {
  const page = await open(browser, app);

  await go(page, '/account/');
  await choose(page, '');
  await page.getByText('The provider did not sign you in.').waitFor();
  await fair(page, 'the refusal');
  await page.getByRole('main').getByRole('link', { name: 'Sign in' }).click();
  await button(page).waitFor();

  google.person('nobody', { email_verified: false });
  await choose(page, 'nobody');
  await page.getByText('Sign in with your e-mail and password first').waitFor();

  /* whatever an address says, words of ours are shown */
  await go(page, '/account/oauth/?error=%3Cb%3ECall%20us&provider=x');
  await page.getByText('The sign-in with this provider failed').waitFor();
  content(page);
  await page.context().close();
});

test('linked and unlinked under the account', async () => {
  const page = await open(browser, app);
  const user = await app.user();

  google.person('carol', { email: 'carol@elsewhere.example' });
  await go(page, '/account/?next=%2Faccount%2F');
  await page.getByLabel('E-mail').fill(user.email);
  await page.getByLabel('Password', { exact: true }).fill(user.password);
  await page.getByRole('button', { name: 'Sign in' }).click();
  google.account = 'carol';
  await part(page).getByRole('button', { name: 'Link Google' }).click();
  await part(page).getByText('Linked. You can sign in').waitFor();
  await part(page).getByText('carol@elsewhere.example').waitFor();
  assert.equal(await part(page).getByRole('button',
    { name: 'Link Google' }).count(), 0);
  await fair(page, 'linked');

  await part(page).getByRole('button', { name: 'Unlink: Google' }).click();
  await part(page).getByText('Unlinked.').waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.id),
    'identities');
  await part(page).getByRole('button', { name: 'Link Google' }).waitFor();
  content(page);
  await page.context().close();
});
