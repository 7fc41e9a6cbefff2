/*
 * Second factors: set up, asked for at sign-in and for a fresh code, ended by
 * their owner or an admin.  Codes are made by otplib.
 */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import jsQR from 'jsqr';
import { boot } from '../harness/index.js';
import { must } from '../harness/fixtures.js';
import { Factor, claims, enrol } from '../harness/mfa.js';

const PASSWORD = 'another long password';

let app;

before(async () => {
  app = await boot();
});
after(() => app?.stop());

const auth = (what, body, extra = {}) =>
  app.api('POST', `/api/v1/auth/${what}`, { body, ...extra });
const login = (user, extra = {}) => auth('login',
  { email: user.email, password: user.password, ...extra });
const finish = (mfaToken, proof) => auth('login/mfa', { mfaToken, ...proof });
const state = async (user) => must(await app.api('GET', '/api/v1/auth/mfa',
  { token: user.token }), 200).data;
const check = async (token) => (await app.api('GET', '/api/v1/auth/check',
  { token })).status;
const stepUp = (user, proof) => auth('step-up', proof, { token: user.token });
const email = (user, token = user.token) => app.api('POST',
  '/api/v1/users/me/email', { token, body: {
    newEmail: `new-${user.email}`, password: user.password } });

function refused(res, status, code) {
  assert.equal(res.status, status, res.text);
  assert.equal(res.error.code, code, res.text);
}

function wrongCode(res, pointer = '/code') {
  refused(res, 400, 'VALIDATION_FAILED');
  assert.deepEqual(res.error.errors.map((e) => [e.pointer, e.code]),
    [[pointer, 'wrong_code']]);
}

const notice = (user, re) => app.mailTo(user.email, (m) => re.test(m.subject));

/* What a QR code of an answer says. */
function readQr(svg) {
  const size = Number(svg.match(/viewBox="0 0 (\d+) /)[1]);
  const scale = 4;
  const width = size * scale;
  const pixels = new Uint8ClampedArray(width * width * 4).fill(255);

  for (const [, x, y, w] of svg.matchAll(/M(\d+) (\d+)h(\d+)v1/g)) {
    for (let py = y * scale; py < (Number(y) + 1) * scale; py++) {
      for (let px = x * scale; px < (Number(x) + Number(w)) * scale; px++) {
        pixels.fill(0, (py * width + px) * 4, (py * width + px) * 4 + 3);
      }
    }
  }
  return jsQR(pixels, width, width)?.data;
}

describe('setting it up', () => {
  test('a secret, a QR code, a code of it: on, and recovery codes once',
    async () => {
      const user = await app.user();
      const other = (await login(user)).data;

      assert.deepEqual(await state(user), { enabled: false,
        confirmedAt: null, lastUsedAt: null, recoveryCodesLeft: 0,
        required: false });

      const made = must(await auth('mfa/totp', { password: user.password },
        { token: user.token }), 201);
      const { id, secret, uri, qr } = made.data;

      assert.match(made.headers['cache-control'], /no-store/);
      assert.match(secret, /^[A-Z2-7]{32}$/, '160 bits');
      assert.equal(uri, `otpauth://totp/127.0.0.1:${
        encodeURIComponent(user.email)}?secret=${secret}&issuer=127.0.0.1`
        + '&algorithm=SHA1&digits=6&period=30');
      assert.equal(readQr(qr), uri);
      assert.equal((await state(user)).enabled, false, 'not yet');
      assert.equal((await login(user)).status, 200, 'nor asked for');

      const factor = new Factor(app, secret);
      const on = await auth('mfa/totp/confirm',
        { code: await factor.fresh() }, { token: user.token });

      assert.equal(on.status, 200, on.text);
      assert.equal(new Set(on.data.recoveryCodes).size, 10);
      for (const code of on.data.recoveryCodes) {
        assert.match(code, /^[a-z2-7]{4}(-[a-z2-7]{4}){5}$/);
      }
      assert.deepEqual(claims(on.data.accessToken).amr, ['pwd', 'otp', 'mfa']);
      assert.equal(claims(on.data.accessToken).mfa, true);
      assert.equal(claims(on.data.accessToken).sid, claims(user.token).sid);

      /* no session ends; older access tokens, which do not know, do */
      assert.equal(await check(user.token), 401);
      assert.equal(await check(other.accessToken), 401);
      assert.equal(await check(on.data.accessToken), 200);
      const renewed = must(await auth('refresh',
        { refreshToken: other.refreshToken }), 200).data;

      assert.equal(claims(renewed.accessToken).mfa, true);
      assert.deepEqual(claims(renewed.accessToken).amr, ['pwd']);

      user.token = on.data.accessToken;
      const now = await state(user);

      assert.equal(now.enabled, true);
      assert.equal(now.recoveryCodesLeft, 10);
      assert.ok(now.confirmedAt && now.lastUsedAt);
      refused(await auth('mfa/totp', { password: user.password },
        { token: user.token }), 409, 'INVALID_STATE');
      refused(await auth('mfa/totp/confirm', { code: factor.code(1) },
        { token: user.token }), 409, 'INVALID_STATE');
      assert.match((await notice(user, /turned on/)).text,
        /signing in to your account needs a code of your authenticator app/);
      assert.equal(await app.value(`select count(*)::int from app.audit_log
        where actor = $1 and action in ('mfa.enrol', 'mfa.on')`, [user.id]), 2);
      assert.ok(id);
    });

  test('it wants the password, and a code of the newest secret', async () => {
    const user = await app.user();
    const enrolment = (password) => auth('mfa/totp', { password },
      { token: user.token });
    const confirm = (code) => auth('mfa/totp/confirm', { code },
      { token: user.token });

    refused(await enrolment('not the password'), 401, 'INVALID_CREDENTIALS');
    refused(await confirm('123456'), 409, 'INVALID_STATE');
    const first = new Factor(app, (await enrolment(user.password)).data.secret);
    const second = new Factor(app,
      (await enrolment(user.password)).data.secret);

    assert.notEqual(first.secret, second.secret);
    await second.fresh();
    wrongCode(await confirm(first.code()));
    wrongCode(await confirm('12345a'));
    wrongCode(await confirm('1234567'));
    assert.equal((await state(user)).enabled, false);
    await app.moveClock(3600000);
    user.token = (await login(user)).data.accessToken;
    refused(await confirm(second.code()), 409, 'INVALID_STATE');

    const third = new Factor(app, (await enrolment(user.password)).data.secret);
    const code = await third.fresh();

    assert.equal((await confirm(`${code.slice(0, 3)} ${code.slice(3)}`)).status,
      200, 'as apps show it');
  });
});

describe('sign-in', () => {
  test('the right password is told to bring a code, which finishes it',
    async () => {
      const user = await app.user();
      const factor = await enrol(app, user);
      const asked = await login(user, { remember: true });

      refused(asked, 401, 'MFA_REQUIRED');
      assert.equal(asked.data, null);
      assert.equal(asked.headers['set-cookie'], undefined, 'no session yet');
      assert.equal(asked.error.expiresIn, 300);
      assert.deepEqual(asked.error.methods, ['totp', 'recovery_code']);

      const res = await finish(asked.error.mfaToken,
        { code: await factor.fresh() });
      const plain = await login(await app.user());

      assert.equal(res.status, 200, res.text);
      assert.deepEqual(Object.keys(res.data), Object.keys(plain.data));
      assert.match(res.headers['set-cookie'][0],
        /^__Host-stoa_refresh=.*Max-Age=2592/, 'remembered, as it was asked');
      assert.deepEqual(claims(res.data.accessToken).amr,
        ['pwd', 'otp', 'mfa']);
      refused(await finish(asked.error.mfaToken,
        { code: await factor.fresh() }), 401, 'MFA_TOKEN_INVALID');
      refused(await login({ ...user, password: 'not it' }), 401,
        'INVALID_CREDENTIALS');
    });

  test('or in one request', async () => {
    const user = await app.user();
    const factor = await enrol(app, user);
    const code = await factor.fresh();

    refused(await login({ ...user, password: 'not it' }, { code }), 401,
      'INVALID_CREDENTIALS');
    assert.equal((await login(user, { code })).status, 200,
      'the code was not used up by a wrong password');
    refused(await login(user, { code }), 401, 'MFA_CODE_INVALID');
    refused(await login(user, { code: factor.wrong() }), 401,
      'MFA_CODE_INVALID');
    refused(await login(user, { code: '12345' }), 400, 'VALIDATION_FAILED');
    refused(await login(user, { code, recoveryCode: factor.recovery[0] }), 400,
      'VALIDATION_FAILED');
    const res = await login(user, { recoveryCode: factor.recovery[0] });

    assert.equal(res.status, 200, res.text);
    assert.deepEqual(claims(res.data.accessToken).amr, ['pwd', 'mfa']);
    assert.equal((await login(await app.user(), { code })).status, 200,
      'who has no factor needs no code');
  });

  test('a recovery code works once, in any spelling, and is told by mail',
    async () => {
      const user = await app.user();
      const factor = await enrol(app, user);
      const ask = async () => (await login(user)).error.mfaToken;
      const [one, two] = factor.recovery;

      assert.equal((await finish(await ask(), { recoveryCode: one })).status,
        200);
      refused(await finish(await ask(), { recoveryCode: one }), 401,
        'MFA_CODE_INVALID');
      assert.equal((await finish(await ask(), { recoveryCode:
        two.toUpperCase().replaceAll('-', ' ') })).status, 200);
      refused(await finish(await ask(), { recoveryCode: `${one}aaaa` }), 400,
        'VALIDATION_FAILED');
      refused(await finish(await ask(), { recoveryCode:
        'aaaa-aaaa-aaaa-aaaa-aaaa-aaaa' }), 401, 'MFA_CODE_INVALID');
      assert.equal((await state(user)).recoveryCodesLeft, 8);
      assert.match((await notice(user, /recovery code was used/)).text,
        /9 (are )?left/);
    });

  test('new recovery codes end the old ones, by a code of the app',
    async () => {
      const user = await app.user();
      const factor = await enrol(app, user);
      const renew = (body) => auth('mfa/recovery-codes', body,
        { token: user.token });

      refused(await renew({ recoveryCode: factor.recovery[0] }), 400,
        'VALIDATION_FAILED');
      wrongCode(await renew({ code: factor.wrong() }));
      const { recoveryCodes } = must(await renew(
        { code: await factor.fresh() }), 200).data;

      assert.equal(new Set([...recoveryCodes, ...factor.recovery]).size, 20);
      refused(await login(user, { recoveryCode: factor.recovery[3] }), 401,
        'MFA_CODE_INVALID');
      assert.equal((await login(user, { recoveryCode: recoveryCodes[3] }))
        .status, 200);
      await notice(user, /New recovery codes/);
    });

  test('the window: one step to either side, by the server\'s clock',
    async () => {
      const user = await app.user();
      const factor = await enrol(app, user);
      const tried = async (d) => {
        /* into the step after the last that was accepted by two */
        await factor.fresh();
        await factor.fresh();
        await factor.fresh();
        return (await login(user, { code: factor.code(d) })).status;
      };
      const seen = {};

      for (const d of [-2, -1, 0, 1, 2]) seen[d] = await tried(d);
      assert.deepEqual(seen, { '-2': 401, '-1': 200, 0: 200, 1: 200,
        2: 401 });
    });

  test('a step that is used ends it and all before', async () => {
    const user = await app.user();
    const factor = await enrol(app, user);

    await factor.fresh();
    await factor.fresh();
    assert.equal((await login(user, { code: factor.code(1) })).status, 200);
    for (const d of [1, 0, -1]) {
      refused(await login(user, { code: factor.code(d) }), 401,
        'MFA_CODE_INVALID');
    }
    await factor.fresh();
    await factor.fresh();
    assert.equal((await login(user, { code: factor.code() })).status, 200);
  });

  test('five minutes, and whatever ends tokens ends it', async () => {
    const user = await app.user();
    const factor = await enrol(app, user);
    const late = (await login(user)).error.mfaToken;

    await app.moveClock(301000);
    refused(await finish(late, { code: await factor.fresh() }), 401,
      'MFA_TOKEN_INVALID');

    const open = (await login(user)).error.mfaToken;

    user.token = must(await login(user, { code: await factor.fresh() }), 200)
      .data.accessToken;
    must(await auth('change-password', { currentPassword: user.password,
      newPassword: PASSWORD }, { token: user.token }), 200);
    refused(await finish(open, { code: await factor.fresh() }), 401,
      'MFA_TOKEN_INVALID');
  });

  test('a new password by mail does not do without the code', async () => {
    const user = await app.verified(await app.user());
    const factor = await enrol(app, user);

    await auth('forgot-password', { email: user.email });
    const mail = await app.mailTo(user.email,
      (m) => m.text.includes('/account/reset/'));
    const [, token] = mail.text.match(/token=([\w-]{43})/);

    must(await auth('reset-password', { token, newPassword: PASSWORD }), 200);
    const res = await login({ ...user, password: PASSWORD });

    refused(res, 401, 'MFA_REQUIRED');
    assert.equal((await finish(res.error.mfaToken,
      { code: await factor.fresh() })).status, 200);
  });

  test('refreshing keeps how and when one signed in', async () => {
    const user = await app.user();
    const factor = await enrol(app, user);
    const { data } = await login(user, { code: await factor.fresh() });
    const was = claims(data.accessToken);

    assert.equal(was.auth_time, was.iat);
    await app.moveClock(600000);
    const now = claims((await auth('refresh',
      { refreshToken: data.refreshToken })).data.accessToken);

    assert.ok(now.iat >= was.iat + 600);
    assert.deepEqual([now.auth_time, now.amr, now.mfa],
      [was.auth_time, ['pwd', 'otp', 'mfa'], true]);
  });
});

describe('a fresh code', () => {
  test('who has a factor must show it for what is delicate', async () => {
    const user = await app.user();
    const factor = await enrol(app, user);

    assert.equal((await email(user)).status, 200, 'just shown');
    await app.moveClock(901000);
    user.refresh = (await auth('refresh',
      { refreshToken: user.refreshToken })).data;
    user.token = user.refresh.accessToken;

    const res = await email(user);

    refused(res, 401, 'STEP_UP_REQUIRED');
    assert.equal(res.headers['www-authenticate'], 'Bearer '
      + 'error="insufficient_user_authentication", '
      + 'error_description="a fresh code is needed", max_age="900"');
    assert.equal(await check(user.token), 200, 'the token is good');

    wrongCode(await stepUp(user, { code: factor.wrong() }));
    wrongCode(await stepUp(user, { recoveryCode: 'aaaa-aaaa-aaaa-aaaa-aaaa-aaaa' }),
      '/recoveryCode');
    refused(await stepUp(user, {}), 400, 'VALIDATION_FAILED');

    const code = await factor.fresh();
    const up = must(await stepUp(user, { code }), 200).data;

    assert.deepEqual(Object.keys(up).sort(),
      ['accessToken', 'expiresIn', 'tokenType']);
    assert.equal(claims(up.accessToken).sid, claims(user.token).sid);
    assert.ok(claims(up.accessToken).auth_time > claims(user.token).auth_time);
    wrongCode(await stepUp(user, { code }));
    refused(await email(user), 401, 'STEP_UP_REQUIRED');
    assert.equal((await email(user, up.accessToken)).status, 200);
    assert.equal(claims((await auth('refresh', { refreshToken:
      user.refresh.refreshToken })).data.accessToken).auth_time,
    claims(up.accessToken).auth_time, 'the session knows');
    assert.equal((await stepUp(user,
      { recoveryCode: factor.recovery[0] })).status, 200);
  });

  test('a session from before the factor must, too', async () => {
    const user = await app.user();
    const other = (await login(user)).data;

    await enrol(app, user);
    const token = (await auth('refresh',
      { refreshToken: other.refreshToken })).data.accessToken;

    refused(await email(user, token), 401, 'STEP_UP_REQUIRED');
  });

  test('who has none is not asked, and has nothing to show', async () => {
    const user = await app.user();

    assert.equal((await email(user)).status, 200);
    refused(await stepUp(user, { code: '123456' }), 403,
      'MFA_ENROLMENT_REQUIRED');
  });

  test('an ended session shows nothing', async () => {
    const user = await app.user();
    const factor = await enrol(app, user);
    const code = await factor.fresh();

    await app.sql(`update app.login_sessions set revoked_at = app.now()
      where user_id = $1`, [user.id]);
    refused(await stepUp(user, { code }), 401, 'TOKEN_REVOKED');
  });
});

describe('the end of it', () => {
  const off = (user, body) => app.api('DELETE', '/api/v1/auth/mfa',
    { token: user.token, body });

  test('password and code, neither alone', async () => {
    const user = await app.user();

    refused(await off(user, { password: user.password, code: '123456' }), 409,
      'INVALID_STATE');
    const factor = await enrol(app, user);

    refused(await off(user, { password: 'not it',
      code: await factor.fresh() }), 401, 'INVALID_CREDENTIALS');
    wrongCode(await off(user, { password: user.password,
      code: factor.wrong() }));
    refused(await off(user, { password: user.password }), 400,
      'VALIDATION_FAILED');
    assert.equal((await state(user)).enabled, true);

    const res = must(await off(user, { password: user.password,
      code: await factor.fresh() }), 200);

    assert.equal(await check(user.token), 401);
    user.token = res.data.accessToken;
    assert.equal(claims(user.token).mfa, undefined);
    assert.deepEqual(await state(user), { enabled: false, confirmedAt: null,
      lastUsedAt: null, recoveryCodesLeft: 0, required: false });
    assert.equal((await login(user)).status, 200);
    assert.equal((await login(user, { recoveryCode: factor.recovery[0] }))
      .status, 200, 'it is not asked for');
    await notice(user, /turned off/);

    /* and again, with another secret */
    assert.notEqual((await enrol(app, user)).secret, factor.secret);
  });

  test('a recovery code does, too', async () => {
    const user = await app.user();
    const factor = await enrol(app, user);

    must(await off(user, { password: user.password,
      recoveryCode: factor.recovery[9] }), 200);
    assert.equal((await login(user)).status, 200);
  });

  test('an admin takes away what somebody lost, and never sees it',
    async () => {
      const admin = await app.user('admin');
      const user = await app.user();
      const factor = await enrol(app, user);
      const open = (await login(user)).error.mfaToken;
      const remove = (id, token = admin.token) =>
        app.api('DELETE', `/api/v1/admin/users/${id}/mfa`, { token });

      refused(await remove(user.id, user.token), 403, 'FORBIDDEN');
      refused(await remove(admin.id), 409, 'INVALID_STATE');
      refused(await remove('00000000-0000-7000-8000-00000000dead'), 404,
        'NOT_FOUND');
      const seen = await app.api('GET', `/api/v1/users/${user.id}`,
        { token: admin.token });

      assert.ok(!seen.text.includes(factor.secret));
      const res = must(await remove(user.id), 200);

      assert.deepEqual(res.data, { removed: true });
      refused(await remove(user.id), 404, 'NOT_FOUND');
      assert.equal(await check(user.token), 401, 'tokens are renewed');
      assert.equal((await auth('refresh',
        { refreshToken: user.refreshToken })).status, 200);
      refused(await finish(open, { code: await factor.fresh() }), 401,
        'MFA_TOKEN_INVALID');
      assert.equal((await login(user)).status, 200);
      assert.deepEqual((await app.sql(`select actor, action, resource_id
        from app.audit_log where request_id = $1`,
      [res.headers['x-request-id']])), [{ actor: admin.id,
        action: 'mfa.removed', resource_id: user.id }]);
      await notice(user, /turned off/);
    });

  test('an admin\'s own token does it only with a fresh code', async () => {
    const admin = await app.user('admin');
    const factor = await enrol(app, admin);
    const user = await app.user();

    await enrol(app, user);
    await app.moveClock(870000);
    const remove = () => app.api('DELETE',
      `/api/v1/admin/users/${user.id}/mfa`, { token: admin.token });

    admin.token = (await auth('refresh',
      { refreshToken: admin.refreshToken })).data.accessToken;
    refused(await remove(), 401, 'STEP_UP_REQUIRED');
    admin.token = must(await stepUp(admin, { code: await factor.fresh() }),
      200).data.accessToken;
    assert.equal((await remove()).status, 200);
  });
});
