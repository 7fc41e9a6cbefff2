/*
 * One fixture builder per resource that a row's .of names, and the people of
 * the authorization matrix: one account per role, a scanner device, nobody.
 * What somebody is to a resource is always read back from its view
 * api.acl_<resource>, so that the test follows what the functions follow.
 */

import crypto from 'node:crypto';
import { must } from '../harness/fixtures.js';
import { mint, roles } from './rows.js';

/* What event_staff can say; owners come from the builders. */
export const STAFF = ['manage', 'scan'];

export class World {
  constructor(app) {
    this.app = app;
  }

  async begin() {
    /* t/mutants puts a fault into a function, to see that it is noticed */
    if (process.env.STOA_MUTANT_SQL) {
      await this.app.sql(process.env.STOA_MUTANT_SQL);
    }
    /* as many API keys as the matrix likes; t/security has the bound */
    await this.app.sql(`create or replace function app.keys_max() returns int
      language sql immutable as 'select 10000'`);
    this.organizer = await this.app.user('organizer');
    this.buyer = await this.app.user();
    this.actors = [];
    for (const role of roles) this.actors.push(await this.account(role));
    this.admin = this.actors.find(({ what }) => what === 'admin');
    return this;
  }

  /* An account that has this role and is a member, as everybody is. */
  async account(role) {
    const user = await this.app.user();

    await this.app.grantRole(user.id, role);

    const has = [...new Set(['member', role])];

    return { ...user, what: role, roles: new Set(has),
      token: await this.token(user, has) };
  }

  /* A session of its own, so that ending it ends no other. */
  async token(user, has) {
    const { id: sid } = await this.session(user);

    return mint(this.app, { sub: user.id, sid, roles: has });
  }

  async device(eventId) {
    const app = this.app;
    const { pairingCode, code, deviceId, id } = must(await app.api('POST',
      '/api/v1/checkin/devices', { token: this.organizer.token,
        body: { eventId, name: 'Derived' } }), 201).data;
    const login = must(await app.api('POST', '/api/v1/checkin/devices/login',
      { body: { code: pairingCode ?? code } }), 200).data;

    return { id: deviceId ?? id ?? login.deviceId, what: 'device',
      roles: new Set(['device']), eventId, device: true,
      token: login.accessToken ?? login.token ?? login.deviceToken };
  }

  /* ---- resources: {id, eventId} of one that `buyer` owns ---- */

  async event() {
    const event = await this.app.event(this.organizer,
      { types: [{ priceCents: 0, quota: 1000 }] });

    return { id: event.id, eventId: event.id, type: event.types[0].id };
  }

  async ticket_type() {
    const { eventId } = await this.event();
    const { id } = await this.app.ticketType(this.organizer, eventId);

    return { id, eventId };
  }

  async promo_code() {
    const { eventId } = await this.event();
    const { id } = must(await this.app.api('POST',
      `/api/v1/events/${eventId}/promo-codes`, {
        token: this.organizer.token,
        body: { code: 'DERIVED', kind: 'percent', value: 5, maxUses: 9 },
      }), 201).data;

    return { id, eventId };
  }

  async order(buyer) {
    const { eventId, type } = await this.event();
    const { data } = must(await this.app.order(buyer, type), 201);

    return { id: data.id, eventId };
  }

  async ticket(buyer) {
    const { eventId, type } = await this.event();
    const [{ id }] = await this.app.freeTickets(buyer, type);

    return { id, eventId };
  }

  /* With .key, its text. */
  async api_key(owner, scopes = ['*']) {
    return must(await this.app.api('POST', '/api/v1/auth/api-keys', {
      token: owner.token, body: { name: 'Derived', scopes } }), 201).data;
  }

  /* A login of its own: what is ended is not what the actor speaks with. */
  async session(owner) {
    const { accessToken } = must(await this.app.api('POST',
      '/api/v1/auth/login', { body: {
        email: owner.email, password: owner.password } }), 200).data;

    return { id: JSON.parse(Buffer.from(accessToken.split('.')[1],
      'base64url')).sid };
  }

  /* Linked by the database: providers are elsewhere. */
  async identity(owner) {
    return { id: await this.app.value(`insert into app.oauth_identities
        (id, user_id, issuer, subject, provider, created_at)
      values (app.uuid7(), $1, 'https://idp.example', $2, 'idp', app.now())
      returning id`, [owner.id, crypto.randomUUID()]) };
  }

  async make(resource, buyer = this.buyer) {
    if (resource === 'device') {
      const { eventId } = await this.event();
      const { id } = await this.device(eventId);

      return { id, eventId };
    }
    if (typeof this[resource] !== 'function') {
      throw new Error(`no fixture builder for "${resource}" in world.js`);
    }
    return this[resource](buyer);
  }

  /* Everything api.acl_<resource> says about this account. */
  async relations(resource, id, userId) {
    return new Set((await this.app.sql(
      `select relation from api.acl_${resource}
       where id = $1 and user_id = $2`, [id, userId]))
      .map(({ relation }) => relation));
  }

  /* A resource to which this account is what `relation` says. */
  async related(resource, relation, actor) {
    if (relation === 'owner') return this.make(resource, actor);

    const made = await this.make(resource);

    if (!made.eventId) return made; /* no event: nobody works for it */
    await this.app.sql(
      `insert into app.event_staff (event_id, user_id, relation, created_at)
       values ($1, $2, $3, app.now())
       on conflict (event_id, user_id) do update
       set relation = excluded.relation`, [made.eventId, actor.id, relation]);
    return made;
  }
}
