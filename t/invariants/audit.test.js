/*
 * I-45: people write at random, all at once; every write that was answered
 * has exactly one audit row, which says who, what, and from what to what,
 * every refused one has none, and no row holds anything secret.  Then one
 * row is edited in SQL, and "stoa audit verify" names it.  On one nginx
 * worker, on four, and on two nodes; a few seconds, 60 in make soak.
 */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import crypto from 'node:crypto';
import path from 'node:path';
import { BUILD, ROOT, until } from '../harness/index.js';
import { cleanEnv } from '../harness/proc.js';
import {
  ON_FOUR, ON_ONE, ON_TWO_NODES, must, onSetUps, pick,
} from './kit.js';

const WRITERS = 6;
const MS = process.env.SOAK ? 60000 : 2500;

const word = (n = 6) => crypto.randomBytes(n).toString('hex');
const sidOf = (token) => JSON.parse(
  Buffer.from(token.split('.')[1], 'base64url')).sid;

/*
 * One person with an account, an event and its things, who does one thing
 * after another.  `wrote` has what each request must have left: {id, rows}.
 */
class Writer {
  constructor(app, wrote, secrets) {
    Object.assign(this, { app, wrote, secrets, n: 0, types: [], codes: [],
      keys: [], tickets: [] });
  }

  async begin() {
    const { app } = this;

    this.user = await app.user('organizer', { password: this.secret() });
    this.mate = await app.user();
    this.hide(this.user.token, this.user.refreshToken, this.user.email,
      this.mate.email);
    this.event = await app.event(this.user,
      { types: [{ priceCents: 0, quota: 100000 }] });
    return this;
  }

  hide(...secrets) {
    for (const secret of secrets) this.secrets.add(secret);
    return secrets[0];
  }

  secret() { return this.hide(`Sentinel-${word(8)}`); }

  /* rows: {action, actor, resourceId, changes} of the answer's data */
  async write(method, urlPath, body, rows, status = [200, 201, 204],
    more = {}) {
    const node = this.n++ % this.app.nodes.length;
    const res = await this.app.api(method, `/api/v1${urlPath}`,
      { body, token: this.user.token, node, ...more });

    /* no assertion: it is not what a control may fail by */
    if (![status].flat().includes(res.status)) {
      throw new Error(`${method} ${urlPath}: ${res.status} ${res.text}`);
    }
    this.wrote.push({ id: res.headers['x-request-id'],
      what: `${method} ${urlPath} by ${this.user.id}`,
      rows: rows(res.data ?? {}).map((row) => ({ actor: this.user.id,
        changes: null, ...row })) });
    return res.data;
  }

  refused(method, urlPath, body, status) {
    return this.write(method, urlPath, body, () => [], status);
  }

  public() { return { token: undefined }; }
}

/* What a writer may do next; each says what it must leave. */
const WRITES = {
  async register(w) {
    const email = w.hide(`${word()}@test.example`);

    const { accessToken, refreshToken } = await w.write('POST',
      '/auth/register', { email, password: w.secret(), firstName: 'A',
        lastName: 'B' }, ({ user }) => [{ action: 'user.register',
        actor: user.id, resourceId: user.id,
        changes: { roles: ['member'] } }], 201, w.public());

    w.hide(accessToken, refreshToken);
  },

  async login(w) {
    const { email, password, id } = w.user;
    const { accessToken, refreshToken } = await w.write('POST',
      '/auth/login', { email, password }, () => [{ action: 'auth.login',
        resourceId: id }], 200, w.public());

    w.hide(accessToken, refreshToken);
    Object.assign(w.user, { token: accessToken, refreshToken });
  },

  async refresh(w) {
    const data = await w.write('POST', '/auth/refresh',
      { refreshToken: w.user.refreshToken }, () => [{
        action: 'auth.refresh', resourceId: sidOf(w.user.token),
        changes: { refresh: 'rotated' } }], 200, w.public());

    w.hide(data.accessToken, data.refreshToken);
    Object.assign(w.user, { token: data.accessToken,
      refreshToken: data.refreshToken });
  },

  async logout(w) {
    await w.write('POST', '/auth/logout', {}, () => [{
      action: 'auth.logout', resourceId: sidOf(w.user.token),
      changes: { everywhere: false } }]);
    await WRITES.login(w);
  },

  async password(w) {
    const newPassword = w.secret();
    const data = await w.write('POST', '/auth/change-password',
      { currentPassword: w.user.password, newPassword }, () => [{
        action: 'auth.password', resourceId: w.user.id }]);

    w.hide(data.accessToken, data.refreshToken);
    w.user.password = newPassword;
    await WRITES.login(w);
  },

  forgot: (w) => w.write('POST', '/auth/forgot-password',
    { email: w.user.email }, () => [{ action: 'auth.forgot', actor: null,
      resourceId: w.user.id }], 200, w.public()),

  async person(w) {
    const [was, now] = [w.zone ?? w.user.user.timezone, pick(['Europe/Prague',
      'Asia/Kathmandu', 'Europe/Vienna'])];
    const changes = { first_name: { hidden: true }, phone: { hidden: true } };

    w.zone = now;
    if (was !== now) changes.timezone = { from: was, to: now };
    await w.write('PATCH', '/users/me', { firstName: w.secret(),
      phone: w.hide(`+420 ${crypto.randomInt(1e8, 1e9)}`), timezone: now },
    () => [{ action: 'user.update', resourceId: w.user.id, changes }]);
  },

  async event(w) {
    const [was, now] = [w.event.title, `Event ${word()}`];

    w.event.title = now;
    await w.write('PATCH', `/events/${w.event.id}`, { title: now },
      () => [{ action: 'event.update', resourceId: w.event.id,
        changes: { title: { from: was, to: now } } }]);
  },

  async type(w) {
    const body = { name: word(), priceCents: 0, quota: 10 };
    const { id } = await w.write('POST', `/events/${w.event.id}/ticket-types`,
      body, (data) => [{ action: 'ticket_type.create', resourceId: data.id,
        changes: { name: body.name, price_cents: 0, quota: 10,
          event_id: w.event.id } }]);

    w.types.push({ id, ...body });
  },

  async quota(w) {
    const type = pick(w.types.length ? w.types : [undefined]);

    if (!type) return;
    const [from, to] = [type.quota, type.quota + 1];

    type.quota = to;
    await w.write('PATCH', `/ticket-types/${type.id}`, { quota: to },
      () => [{ action: 'ticket_type.update', resourceId: type.id,
        changes: { quota: { from, to } } }]);
  },

  async noType(w) {
    const type = w.types.pop();

    if (!type) return;
    await w.write('DELETE', `/ticket-types/${type.id}`, undefined,
      () => [{ action: 'ticket_type.delete', resourceId: type.id,
        changes: { name: type.name } }]);
  },

  promo: (w) => {
    const body = { code: word(5).toUpperCase(), kind: 'percent', value: 5,
      maxUses: 9 };

    return w.write('POST', `/events/${w.event.id}/promo-codes`, body,
      ({ id }) => [{ action: 'promo_code.create', resourceId: id,
        changes: { code: body.code, kind: 'percent', value: 5,
          max_uses: 9 } }]);
  },

  async order(w) {
    const { tickets } = await w.write('POST', '/orders', { items: [
      { ticketTypeId: w.event.types[0].id, quantity: 1 }] },
    ({ id }) => [{ action: 'order.create', resourceId: id,
      changes: undefined }], 201);

    for (const ticket of tickets) {
      w.hide(ticket.code);
      w.tickets.push(ticket);
    }
  },

  async reissue(w) {
    const ticket = w.tickets.shift();

    if (!ticket) return;
    const { code } = await w.write('POST', `/tickets/${ticket.id}/reissue`,
      undefined, () => [{ action: 'ticket.reissued', resourceId: ticket.id,
        changes: { generation: 2, from: w.user.id, to: w.user.id } }]);

    w.hide(code);
  },

  async scan(w) {
    const ticket = w.tickets.pop();

    if (!ticket) return;
    await w.write('POST', '/orders/validate', { code: ticket.code },
      () => [{ action: 'ticket.scan', resourceId: ticket.id,
        changes: undefined }]);
  },

  async key(w) {
    if (w.keys.length > 5) return;
    const { id, key } = await w.write('POST', '/auth/api-keys',
      { name: word(), scopes: ['events:read'] }, (data) => [{
        action: 'key.create', resourceId: data.id, changes: undefined }]);

    w.hide(key);
    w.keys.push(id);
  },

  async noKey(w) {
    const id = w.keys.pop();

    if (!id) return;
    await w.write('DELETE', `/auth/api-keys/${id}`, undefined,
      () => [{ action: 'key.revoke', resourceId: id,
        changes: { owner_id: w.user.id } }]);
  },

  async device(w) {
    const body = { eventId: w.event.id, name: word() };
    const { pairingCode, id } = await w.write('POST', '/checkin/devices',
      body, (data) => [{ action: 'device.pair', resourceId: data.deviceId
        ?? data.id, changes: { event_id: body.eventId, name: body.name } }]);
    const login = await w.write('POST', '/checkin/devices/login',
      { code: w.hide(pairingCode) }, () => [{ action: 'device.login',
        actor: null, resourceId: id }], 200, w.public());

    w.hide(login.accessToken);
  },

  async staff(w) {
    const at = `/events/${w.event.id}/staff`;
    const row = (action, from, to) => () => [{ action: `event.${action}`,
      resourceId: w.event.id, changes: { user_id: w.mate.id, from, to } }];

    await w.write('POST', at, { email: w.mate.email, relation: 'scan' },
      row('staff_add', null, 'scan'));
    await w.write('DELETE', `${at}/${w.mate.id}`, undefined,
      row('staff_remove', 'scan', null));
  },

  /* what is refused has changed nothing */
  async nothing(w) {
    const { user } = pick(w.all.filter((other) => other !== w));

    await w.refused('PATCH', `/events/${w.event.id}`, { title: '' }, 400);
    await w.refused('PATCH', `/events/${pick(w.all.filter((other) =>
      other !== w)).event.id}`, { title: 'Mine' }, 404);
    await w.refused('PUT', `/users/${user.id}/roles`, { roles: ['admin'] },
      403);
  },
};

const NAMES = Object.keys(WRITES);

/* What one request left, as Writer.write() says it. */
const left = (app, id) => app.sql(`select actor, action,
    resource_id as "resourceId", changes, ip, app.audit_whole(a) as whole
  from app.audit_log a where request_id = $1 order by id`, [id]);

async function writing(app, ms = MS) {
  const wrote = [];
  const secrets = new Set();
  const all = await Promise.all(Array.from({ length: WRITERS }, () =>
    new Writer(app, wrote, secrets).begin()));
  const end = Date.now() + ms;
  const done = new Map(NAMES.map((name) => [name, 0]));

  await Promise.all(all.map(async (w, i) => {
    w.all = all;
    /* each kind once, then as it comes: what some need, others make */
    const missing = () => [...done.values()].includes(0);

    for (let n = 0; n < NAMES.length || Date.now() < end
      || (missing() && n < 50 * NAMES.length); n++) {
      const name = n < NAMES.length ? NAMES[(n + i) % NAMES.length]
        : pick(NAMES);
      const had = wrote.length;

      await WRITES[name](w);
      if (wrote.length > had) done.set(name, done.get(name) + 1);
    }
  }));
  return { wrote, secrets, done };
}

async function audited(app, { wrote, secrets, done }) {
  assert.deepEqual([...done].filter(([, n]) => n === 0), [], 'kinds');
  assert.equal(new Set(wrote.map(({ id }) => id)).size, wrote.length);
  for (const { id, what, rows } of wrote) {
    const got = await left(app, id);

    assert.deepEqual(got, rows.map((row, i) => ({ ...got[i], ...row,
      changes: row.changes === undefined ? got[i]?.changes : row.changes,
      ip: '127.0.0.1', whole: true })), what);
  }

  const log = await app.value('select string_agg(a::text, chr(10)) '
    + 'from app.audit_log a');

  for (const secret of secrets) {
    assert.ok(!log.includes(secret), `"${secret}" is in the log`);
  }
}

/* The verifier's verdict: {code, ...its JSON}. */
const verify = (app) => new Promise((done) => execFile(
  path.join(BUILD, 'stoa'),
  ['-c', app.confFile, 'audit', 'verify', '--json'],
  { cwd: ROOT, env: cleanEnv() }, (error, stdout) =>
    done({ ...JSON.parse(stdout), code: error?.code ?? 0 })));

onSetUps([ON_ONE, ON_FOUR, ON_TWO_NODES], { people: 1 }, ({ plain, race }) => {
  race('I-45: one row for every write, and nothing secret in any',
    { n: 1, guard: ['i45', 'i45_hidden'] },
    async (app) => audited(app, await writing(app)));

  plain('I-45: the verifier names the row that was edited', async (app) => {
    /* transactions of other databases of the cluster hold the sealer back */
    await until(async () => await app.value(`select (select count(*)
        from app.audit_log) = (select count(*) from app.audit_chain)`),
    { timeout: 60000, what: 'all of the log in the chain' });

    const whole = await verify(app);

    assert.equal(whole.code, 0);
    assert.ok(whole.whole && whole.rows > 100, JSON.stringify(whole));

    const rows = await app.sql(`select xid::text as xid, id::text as id, action
      from app.audit_log order by id`);
    const { xid, id, action } = pick(rows);
    const db = await app.client();

    await db.query('set session_replication_role = replica');
    await db.query(`update app.audit_log set actor = gen_random_uuid()
      where xid = $1::text::xid8 and id = $2`, [xid, id]);

    const edited = await verify(app);

    assert.equal(edited.code, 1);
    assert.equal(edited.whole, false);
    assert.equal(edited.altered.count, 1);

    const { first } = edited.altered;

    assert.deepEqual([String(first.xid), String(first.id), first.action],
      [xid, id, action], JSON.stringify(first));
  });
});
