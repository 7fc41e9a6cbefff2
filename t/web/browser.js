/*
 * Chromium for the pages: Debian's own, headless, driven by playwright-core.
 * What a page logs as an error, a broken request or a refused policy fails
 * the test that opened it.
 */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import AxeBuilder from '@axe-core/playwright';
import { chromium } from 'playwright-core';
import { SLOW } from '../harness/index.js';

const execFileP = promisify(execFile);

export const PHONE = { width: 360, height: 740 };
export const DESK = { width: 1200, height: 800 };

export async function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic',
      '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'],
  });
}

/* A page whose complaints are collected in page.complaints. */
export async function open(browser, app, options = {}) {
  const context = await browser.newContext({
    viewport: DESK, locale: 'en-GB', baseURL: app.url, ...options,
  });
  const page = await context.newPage();

  context.setDefaultTimeout(15000 * SLOW);
  page.complaints = [];
  page.allowed = [];
  page.on('pageerror', (error) => page.complaints.push(error.message));
  page.on('console', (line) => {
    if (line.type() === 'error') page.complaints.push(line.text());
  });
  return page;
}

/* What the page complained about, but for what the test provoked. */
export function content(page) {
  const left = page.complaints.filter((text) =>
    !page.allowed.some((re) => re.test(text)));

  assert.deepEqual(left, []);
}

/* Opens an address and waits until its script is done. */
export async function go(page, to) {
  await page.goto(to);
  await ready(page);
}

export function ready(page) {
  return page.waitForFunction(() => document.body
    && document.body.dataset.ready === 'yes');
}

/* The text of the QR code in a picture of this element, by zbarimg. */
export async function readQr(app, locator) {
  const file = path.join(app.dir, `qr-${Date.now()}.png`);

  fs.writeFileSync(file, await locator.screenshot({ scale: 'css' }));
  const { stdout } = await execFileP('zbarimg',
    ['--quiet', '--raw', '-Sdisable', '-Sqrcode.enable', file]);

  return stdout.trim();
}

/* What is on the page now has no fault that axe finds, and fits its width. */
export async function fair(page, what) {
  const { violations } = await new AxeBuilder({ page }).analyze();

  assert.deepEqual(violations.map((v) => `${what}: ${v.id}: ${v.help} `
    + v.nodes.map((n) => n.target).join(' ')), []);
  assert.equal(await page.evaluate(() =>
    document.documentElement.scrollWidth > window.innerWidth), false,
  `${what} scrolls sideways`);
}
