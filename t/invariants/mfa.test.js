/*
 * A code is good once: of many who show the same one in the same moment,
 * where one signs in and where one is signed in, exactly one gets on.
 */

import assert from 'node:assert/strict';
import { Factor, enrol } from '../harness/mfa.js';
import { must, onWorkers, rounds, tally } from './kit.js';

const post = (path, body, token) => ({ method: 'POST',
  path: `/api/v1/auth/${path}`, body, token });

async function person(app) {
  const user = await app.user();

  return { user, factor: await enrol(app, user),
    who: { email: user.email, password: user.password } };
}

async function ask(app, who) {
  const res = await app.api('POST', '/api/v1/auth/login', { body: who });

  assert.equal(res.error?.code, 'MFA_REQUIRED', res.text);
  return res.error.mfaToken;
}

/* Others than the one are told that the code is bad, or to wait. */
function onlyOne(all) {
  const { 200: won, ...lost } = tally(all);

  for (const code of Object.keys(lost)) {
    assert.match(code, /^(MFA_CODE_INVALID|MFA_TOKEN_INVALID|RATE_LIMITED|VALIDATION_FAILED)$/);
  }
  assert.equal(won, 1, JSON.stringify({ won, ...lost }));
}

onWorkers({ people: 1 }, ({ plain, race }) => {
  race('one code, thirty clients', { n: rounds(0.5), guard: 'mfa' },
    async (app) => {
      const { user, factor, who } = await person(app);
      const tokens = await Promise.all(
        Array.from({ length: 10 }, () => ask(app, who)));
      const had = await sessions(app, user);
      const code = await factor.fresh();

      onlyOne(await app.barrier(30, (i) => [
        () => post('login', { ...who, code }),
        () => post('login/mfa', { mfaToken: tokens[(i - 1) / 3], code }),
        () => post('step-up', { code }, user.token),
      ][i % 3]()));
      assert.ok(await sessions(app, user) - had <= 1);
    });

  race('one recovery code, twenty clients', { n: rounds(0.5), guard: 'mfa' },
    async (app) => {
      const { user, factor, who } = await person(app);
      const mfaToken = await ask(app, who);
      const [recoveryCode] = factor.recovery;
      const had = await sessions(app, user);

      onlyOne(await app.barrier(20, (i) => i % 2
        ? post('login', { ...who, recoveryCode })
        : post('login/mfa', { mfaToken, recoveryCode })));
      assert.equal(await sessions(app, user) - had, 1);
      assert.equal(await app.value(`select count(*)::int
        from app.mfa_recovery_codes where user_id = $1 and used_at is null`,
      [user.id]), 9);
    });

  race('one challenge, ten codes that are all right', {
    n: rounds(0.5), guard: 'mfa',
  }, async (app) => {
    const { user, factor, who } = await person(app);
    const mfaToken = await ask(app, who);
    const had = await sessions(app, user);

    onlyOne(await app.barrier(10, (i) => post('login/mfa',
      { mfaToken, recoveryCode: factor.recovery[i] })));
    assert.equal(await sessions(app, user) - had, 1);
    assert.equal(await app.value(`select count(*)::int
      from app.mfa_recovery_codes where user_id = $1 and used_at is null`,
    [user.id]), 9, 'the others are not used up');
  });

  plain('one enrolment is confirmed once', async (app) => {
    const user = await app.user();
    const { secret } = await must(201, app.api('POST',
      '/api/v1/auth/mfa/totp', { token: user.token,
        body: { password: user.password } }));
    const code = await new Factor(app, secret).fresh();
    const all = await app.barrier(12, () =>
      post('mfa/totp/confirm', { code }, user.token));
    const won = all.filter((res) => res.status === 200);

    assert.equal(won.length, 1, JSON.stringify(tally(all)));

    /* and the codes that were told are those that work, once the failures
       of the others are forgotten */
    await app.moveClock(901000);
    const { email, password } = user;

    await must(200, app.api('POST', '/api/v1/auth/login', { body: { email,
      password, recoveryCode: won[0].data.recoveryCodes[7] } }));
  });

  plain('guesses that come together count like guesses in a row',
    async (app) => {
      const { factor, who } = await person(app);
      const code = factor.wrong();

      assert.deepEqual(tally(await app.barrier(40, () =>
        post('login', { ...who, code }))),
      { MFA_CODE_INVALID: 5, RATE_LIMITED: 35 });
      assert.deepEqual(tally(await app.barrier(5, async () =>
        post('login', { ...who, code: factor.code() }))), { RATE_LIMITED: 5 });
    });
});

const sessions = (app, user) => app.value(`select count(*)::int
  from app.login_sessions where user_id = $1 and revoked_at is null`,
[user.id]);
