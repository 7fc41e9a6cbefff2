/*
 * Second factors of test accounts: otplib is the authenticator app, on the
 * test's clock.  A code is good once, so fresh() moves the clock to the next
 * step.
 */

import assert from 'node:assert/strict';
import { authenticator } from 'otplib';
import { must } from './fixtures.js';

const STEP = 30000;

export const codeAt = (secret, ms) =>
  authenticator.clone({ epoch: ms }).generate(secret);

export class Factor {
  constructor(app, secret) {
    this.app = app;
    this.secret = secret;
  }

  now() {
    return Date.now() + this.app.clock.ms;
  }

  /* The code of the present step, or of one before or after it. */
  code(steps = 0) {
    return codeAt(this.secret, this.now() + steps * STEP);
  }

  /* That of a step that nobody has used: some seconds into it. */
  async fresh() {
    await this.app.moveClock(STEP - this.now() % STEP + 2000);
    return this.code();
  }

  /* Six digits that fit none of the steps around. */
  wrong() {
    const right = [-2, -1, 0, 1, 2].map((d) => this.code(d));

    for (let i = 0; ; i++) {
      const code = String(i).padStart(6, '0');

      if (!right.includes(code)) return code;
    }
  }
}

/* Turns it on for this account; its token goes on, renewed. */
export async function enrol(app, user) {
  const made = must(await app.api('POST', '/api/v1/auth/mfa/totp',
    { token: user.token, body: { password: user.password } }), 201).data;
  const factor = new Factor(app, made.secret);
  const on = must(await app.api('POST', '/api/v1/auth/mfa/totp/confirm',
    { token: user.token, body: { code: await factor.fresh() } }), 200).data;

  assert.equal(on.recoveryCodes.length, 10);
  factor.made = made;
  factor.recovery = on.recoveryCodes;
  user.token = on.accessToken;
  return factor;
}

export const claims = (token) => JSON.parse(
  Buffer.from(token.split('.')[1], 'base64url'));
