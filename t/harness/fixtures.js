/*
 * What tests need before they can begin: accounts with roles, events with
 * ticket types, orders paid.  All through the API, the way people do it; the
 * only thing done in SQL is granting a role, which an operator does.
 */

import crypto from 'node:crypto';

const PASSWORD = 'correct horse battery staple';

function must(res, ...wanted) {
  if (!wanted.includes(res.status)) {
    throw new Error(`${res.request.method} ${res.request.path}: ` +
      `${res.status}, wanted ${wanted.join(' or ')}\n${res.text.slice(0, 800)}`);
  }
  return res;
}

export { must };

export class Fixtures {
  /*
   * A new account: {id, email, password, token, refreshToken, user}.  role:
   * "member" (or nothing), "admin", "organizer", "scanner", ...
   */
  async user(role = 'member', extra = {}) {
    const email = extra.email
      ?? `${role}-${crypto.randomBytes(6).toString('hex')}@test.example`;
    const password = extra.password ?? PASSWORD;
    const made = must(await this.api('POST', '/api/v1/auth/register', {
      body: {
        email, password,
        firstName: extra.firstName ?? 'Test', lastName: extra.lastName ?? role,
      },
    }), 201);
    let grant = made.data;

    if (role !== 'member' && role !== 'attendee') {
      await this.grantRole(grant.user.id, role);
      grant = must(await this.api('POST', '/api/v1/auth/login',
        { body: { email, password } }), 200).data;
    }
    return {
      id: grant.user.id, email, password, user: grant.user,
      token: grant.accessToken, refreshToken: grant.refreshToken,
    };
  }

  /* The same user, whose address is proved. */
  async verified(user) {
    await this.sql('update app.users set email_verified_at = app.now() '
      + 'where id = $1', [user.id]);
    return user;
  }

  async grantRole(userId, role) {
    await this.sql(
      `update app.users set roles = array(select distinct r
         from unnest(roles || array[$2::text]) r) where id = $1`,
      [userId, role]);
  }

  /* A published event of this organizer with its ticket types. */
  async event(organizer, { types = [{}], publish = true, ...fields } = {}) {
    const day = 86400000;
    const from = Date.now() + (this.clock?.ms ?? 0);
    const event = must(await this.api('POST', '/api/v1/events', {
      token: organizer.token,
      body: {
        title: `Event ${crypto.randomBytes(4).toString('hex')}`,
        startsAt: new Date(from + 30 * day).toISOString(),
        endsAt: new Date(from + 30 * day + 4 * 3600000).toISOString(),
        timezone: 'Europe/Prague', ...fields,
      },
    }), 201).data;

    event.types = [];
    for (const type of types) {
      event.types.push(await this.ticketType(organizer, event.id, type));
    }
    if (publish) {
      must(await this.api('POST', `/api/v1/events/${event.id}/publish`,
        { token: organizer.token, headers: { 'If-Match': '*' } }), 200);
    }
    return event;
  }

  async ticketType(organizer, eventId, fields = {}) {
    return must(await this.api('POST',
      `/api/v1/events/${eventId}/ticket-types`, {
        token: organizer.token,
        body: { name: 'Standard', priceCents: 0, quota: 100, ...fields },
      }), 201).data;
  }

  /* Places an order and gives the response as it is. */
  order(user, ticketTypeId, quantity = 1, extra = {}) {
    const { headers, ...body } = extra;

    return this.api('POST', '/api/v1/orders', {
      token: user.token, headers,
      body: { items: [{ ticketTypeId, quantity }], ...body },
    });
  }

  /* Tickets of a free type: [{id, code, state, ticketTypeId}]. */
  async freeTickets(user, ticketTypeId, quantity = 1) {
    return must(await this.order(user, ticketTypeId, quantity), 201)
      .data.tickets;
  }

  validate(token, code, extra = {}) {
    return this.api('POST', '/api/v1/orders/validate',
      { token, body: { code, ...extra } });
  }
}
