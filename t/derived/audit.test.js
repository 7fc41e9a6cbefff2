/*
 * every write of the rows leaves its audit rows, with the id of its
 * request, in the transaction of its effect.  Rows that a sample request
 * cannot move have a recipe here; one that is neither audited nor in EXCEPT
 * with its reason fails.  Reads leave none, but those of rows that show staff
 * what is personal (.auditReads), N-42.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { after, before, test } from 'node:test';
import { SECRETS, boot } from '../harness/index.js';
import { must } from '../harness/fixtures.js';
import { Issuer } from '../harness/issuer.js';
import { Factor, enrol } from '../harness/mfa.js';
import { request, rows } from './rows.js';
import { World } from './world.js';

let app, issuer, world, tables;

/* Writes that leave no audit row: {id: why}. */
const EXCEPT = {
  'presence.beat': 'it changes nothing of ours: a mark in Redis, for a minute',
  'identities.link': 'it says where to go; what comes of it is audited then',
};

/* Writes that leave nothing else: {id: why}. */
const ALONE = {
  'admin.impersonate': 'its effect is a token, which is stored nowhere',
};

const writes = rows.filter((row) => row.method !== 'GET');

before(async () => {
  issuer = await Issuer.start({ audience: 'c' });
  app = await boot({ workers: 0, nginxWorkers: 1, conf: {
    ISSUER_NETWORK: 'insecure', OIDC_PROVIDERS: JSON.stringify([
      { name: 'google', issuer: issuer.url, clientId: 'c' }]) } });
  world = await new World(app).begin();
  tables = (await app.sql(
    `select format('%I.%I', schemaname, tablename) as t from pg_tables
     where schemaname in ('app', 'queue')
       and tablename not like 'audit_%' and tablename <> 'idempotency'`))
    .map(({ t }) => t);
});
after(async () => {
  await app?.stop();
  await issuer?.stop();
});

const post = async (path, spec, ...codes) =>
  must(await app.api('POST', path, spec), ...codes).data;

const organizer = () => ({ token: world.organizer.token });

/* An order that waits for its payment. */
async function unpaid() {
  const event = await app.event(world.organizer,
    { types: [{ priceCents: 500, quota: 10 }] });

  return must(await app.order(world.buyer, event.types[0].id), 201, 202).data;
}

/* The token of a mail, as the worker stores it before it sends. */
async function mailed(user, template) {
  const token = crypto.randomBytes(32);

  await app.sql(`select task.mail_token(null, jsonb_build_object('template',
    $1::text, 'user_id', $2::uuid), $3, $4)`, [template, user.id, user.email,
    crypto.createHash('sha256').update(token).digest()]);
  return token.toString('base64url');
}

const unverified = (user) => app.sql(
  'update app.users set email_verified_at = null where id = $1', [user.id]);

/* What a row needs beside its sample: {token, of, params, path, body, ...}. */
const RECIPES = {
  'auth.login': ({ user }) => ({
    body: { email: user.email, password: user.password } }),
  'auth.refresh': ({ user }) => ({ body: { refreshToken: user.refreshToken } }),
  'auth.logout': ({ user }) => ({ token: user.token, body: {} }),
  'auth.forgot_password': ({ user }) => ({ body: { email: user.email } }),
  'auth.reset_password': async ({ user }) => ({ body: {
    token: await mailed(user, 'password_reset'),
    newPassword: 'another good password' } }),
  'auth.change_password': ({ user }) => ({ token: user.token, body: {
    currentPassword: user.password, newPassword: 'another good password' } }),
  'auth.verify_email': async ({ user }) => {
    await unverified(user);
    return { body: { token: await mailed(user, 'verify_email') } };
  },
  'auth.resend_verification': async ({ user }) => {
    await unverified(user);
    return { token: user.token };
  },
  'privacy.consent': () => ({ body: { anonId: crypto.randomUUID(),
    policyVersion: '1', analytics: true } }),
  'auth.login_mfa': async ({ user }) => {
    const factor = await enrol(app, user);
    const { email, password } = user;
    const { mfaToken } = (await app.api('POST', '/api/v1/auth/login',
      { body: { email, password } })).error;

    return { body: { mfaToken, recoveryCode: factor.recovery[0] } };
  },
  'auth.mfa_enrol': ({ user }) => ({ token: user.token, body: {
    password: user.password } }),
  'auth.mfa_confirm': async ({ user }) => {
    const { secret } = await post('/api/v1/auth/mfa/totp', { token: user.token,
      body: { password: user.password } }, 201);

    return { token: user.token,
      body: { code: new Factor(app, secret).code() } };
  },
  'auth.mfa_off': async ({ user }) => {
    const factor = await enrol(app, user);

    return { token: user.token, body: { password: user.password,
      recoveryCode: factor.recovery[0] } };
  },
  'auth.mfa_codes': async ({ user }) => {
    const factor = await enrol(app, user);

    return { token: user.token, body: { code: factor.code(1) } };
  },
  'auth.step_up': async ({ user }) => {
    const factor = await enrol(app, user);

    return { token: user.token, body: { recoveryCode: factor.recovery[0] } };
  },
  'admin.mfa_remove': async ({ user }) => {
    await enrol(app, user);
    return { token: (await app.user('admin')).token, params: { id: user.id } };
  },
  'auth.key_create': ({ user }) => ({ token: user.token,
    body: { name: 'Audit', scopes: ['events:read'] } }),
  'auth.key_rotate': async ({ user }) => ({ token: user.token,
    of: (await world.api_key(user)).id }),
  'users.create': () => ({ token: world.admin.token,
    body: { kind: 'service', firstName: 'Robot' } }),
  'users.roles': ({ user }) => ({ token: world.admin.token,
    params: { id: user.id }, body: { roles: ['organizer'] } }),
  'users.status': ({ user }) => ({ token: world.admin.token,
    params: { id: user.id }, body: { status: 'suspended' } }),
  'admin.impersonate': ({ user }) => ({ token: world.admin.token,
    params: { id: user.id }, body: { reason: 'She asked for help' } }),
  'oauth.token': async () => ({ path: '/api/v1/oauth/google/token', body: {
    idToken: await issuer.token('audited', { email: 'audited@test.example',
      email_verified: true }, { head: { typ: 'JWT' } }) } }),
  'identities.link': ({ user }) => ({ token: user.token,
    body: { provider: 'google' } }),
  'users.email': ({ user }) => ({ token: user.token, body: {
    newEmail: `new-${user.email}`, password: user.password } }),
  'events.publish': async () => ({ ...organizer(),
    of: (await app.event(world.organizer, { publish: false })).id }),
  'events.register': async ({ user }) => ({ token: user.token,
    params: { id: (await world.event()).id } }),
  'events.staff_add': async ({ user }) => ({ ...organizer(),
    of: (await world.event()).id, body: { email: user.email } }),
  'events.staff_remove': async ({ user }) => {
    const { id } = await world.event();

    await post(`/api/v1/events/${id}/staff`,
      { ...organizer(), body: { email: user.email } }, 201);
    return { ...organizer(), of: id, params: { user_id: user.id } };
  },
  'orders.create': async ({ user }) => ({ token: user.token, body: {
    items: [{ ticketTypeId: (await world.event()).type, quantity: 1 }] } }),
  'orders.cancel': async () => ({ token: world.buyer.token,
    of: (await unpaid()).id }),
  'orders.refund': async () => {
    const { type } = await world.event();
    const order = must(await app.order(world.buyer, type), 201).data;

    return { ...organizer(), of: order.id,
      body: { ticketIds: order.tickets.map((t) => t.id) } };
  },
  'pay.form': async () => ({ path: `/pay/${(await unpaid()).id}` }),
  'tickets.transfer': async ({ user }) => ({ token: world.buyer.token,
    of: (await world.ticket(world.buyer)).id, body: { email: user.email } }),
  'tickets.reissue': async () => ({ token: world.buyer.token,
    of: (await world.ticket(world.buyer)).id }),
  'orders.validate': async () => {
    const { type } = await world.event();
    const [{ code }] = await app.freeTickets(world.buyer, type);

    return { ...organizer(), body: { code } };
  },
  'checkin.batch': async () => {
    const { id, type } = await world.event();
    const [{ code }] = await app.freeTickets(world.buyer, type);

    return { ...organizer(), body: { eventId: id, items: [{ code,
      nonce: crypto.randomUUID(), direction: 'entry',
      scannedAt: new Date().toISOString(), clockOffsetMs: 0 }] } };
  },
  'checkin.device_login': async () => {
    const { eventId } = await world.event();
    const { pairingCode } = await post('/api/v1/checkin/devices',
      { ...organizer(), body: { eventId, name: 'Door' } }, 201);

    return { body: { code: pairingCode } };
  },
  'webhooks.stripe': () => {
    const t = Math.floor(Date.now() / 1000);
    const body = JSON.stringify({ id: `evt_${crypto.randomUUID()}`,
      object: 'event', type: 'charge.updated', created: t, livemode: true,
      data: { object: { id: 'ch_1', object: 'charge' } } });
    const mac = crypto.createHmac('sha256', SECRETS.STRIPE_WEBHOOK_SECRET)
      .update(`${t}.${body}`).digest('hex');

    return { body, headers: { 'Stripe-Signature': `t=${t},v1=${mac}` } };
  },
};

/* As its owner or the organizer, on a resource of its own. */
async function plain(row) {
  const of = row.resource && (await world.make(row.resource)).id;

  if (row.public) return { of };
  return { of, token: row.roles.has('member') ? world.buyer.token
    : world.organizer.token };
}

async function move(row) {
  const user = await app.user();
  const { of, params, ...rest } = RECIPES[row.id]
    ? await RECIPES[row.id]({ user }) : await plain(row);
  const made = request(row, { of, params });
  const spec = { ...made, ...rest,
    headers: { ...made.headers, ...rest.headers } };
  const res = await app.api(row.method, spec.path, spec);

  assert.ok(res.status < 400, `${row.name}: a recipe is missing here, or the `
    + `sample is refused: ${res.status} ${res.text}`);
  return res.headers['x-request-id'];
}

/* The tables that a transaction left rows in. */
async function touched(xid) {
  const has = await app.sql(tables.map((t) => `select '${t}' as t
    where exists (select from ${t} where xmin::text::bigint
      = ${xid} % 4294967296)`).join(' union all '));

  return has.map(({ t }) => t);
}

test('A-31: every write leaves its audit rows, with its effect', async () => {
  assert.ok(writes.length > 30, `${writes.length} writes`);
  for (const row of writes) {
    const id = await move(row);

    assert.ok(id, row.name);

    const left = await app.sql(`select xid::text as xid, action, resource,
        resource_id, actor, device, ip, app.audit_whole(a) as whole,
        coalesce(jsonb_typeof(changes), 'null') as changes
      from app.audit_log a where request_id = $1 order by id`, [id]);

    if (EXCEPT[row.id]) {
      assert.deepEqual(left, [], `${row.name}: ${EXCEPT[row.id]}`);
      continue;
    }
    assert.ok(left.length > 0, `${row.name} left no audit row`);
    for (const one of left) {
      const what = `${row.name}: ${JSON.stringify(one)}`;

      assert.equal(one.xid, left[0].xid, what);
      assert.equal(one.whole, true, what);
      assert.equal(one.ip, '127.0.0.1', what);
      assert.match(one.action, /^[a-z_]+\.[a-z_]+$/, what);
      assert.match(one.changes, /^(object|null)$/, what);
      assert.ok(row.public || one.actor || one.device, what);
    }
    if (ALONE[row.id]) {
      assert.deepEqual(await touched(left[0].xid), [], row.name);
    } else if (row.method !== 'DELETE') {
      assert.notDeepEqual(await touched(left[0].xid), [],
        `${row.name}: the audit row is alone in its transaction`);
    }
  }
});

test('staff that looks at people is written down; a refusal is not',
  async () => {
    const looks = rows.filter((row) => row.auditReads);

    assert.ok(looks.length >= 4, `${looks.length} rows`);
    for (const row of looks) {
      /* a list is of no one resource */
      const { id: of } = row.resource ? await world.make(row.resource)
        : { id: null };

      for (const [who, shown] of [[world.admin, true],
        [world.organizer, Boolean(of)],
        [await app.user('organizer'), false], [world.buyer, false]]) {
        const res = await app.api('GET', request(row, { of }).path,
          { token: who.token });
        const id = res.headers['x-request-id'];

        assert.equal(res.status < 300, shown, `${row.name}: ${res.text}`);
        assert.deepEqual(await app.sql(`select actor, action, resource,
            resource_id, changes, ip, app.audit_whole(a) as whole
          from app.audit_log a where request_id = $1`, [id]),
        shown ? [{ actor: who.id,
          action: `${row.resource ?? row.tag}.viewed`,
          resource: row.resource ?? row.tag, resource_id: of,
          changes: { row: row.id }, ip: '127.0.0.1', whole: true }] : [],
        row.name);
      }
    }
  });

test('who only reads leaves none', async () => {
  const count = () => app.value('select count(*)::int from app.audit_log');
  const specs = [];

  for (const row of rows.filter((r) => r.method === 'GET'
    && !r.auditReads)) {
    specs.push([row, await plain(row)]);
  }

  const was = await count();

  for (const [row, { of, ...rest }] of specs) {
    await app.api('GET', request(row, { of }).path, rest);
  }
  assert.equal(await count(), was);
});
