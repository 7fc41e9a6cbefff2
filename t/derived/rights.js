/*
 * I-41: every row with every role and with nobody, on a resource that is
 * one's own, somebody else's, or nobody's.  What must happen is computed from
 * the row's columns .who and .of and from the view api.acl_<resource>:
 *
 *   no token                            401 (public rows go on)
 *   no role of the row                  403, and nothing is changed
 *   the row's relation, or admin        goes on (see OWNER_ONLY)
 *   no relation                         404, nothing is changed; for rows of
 *                                       the door (relation "scan") 403
 *
 * "Goes on" is every answer that is not a refusal of the gates: a sample
 * body may meet a state that forbids the work (409), and that is another
 * test's matter.
 */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';
import { NONE, counts, request, rows } from './rows.js';
import { STAFF, World } from './world.js';

let app, world, asked = 0;

const owned = rows.filter((row) => row.resource);

/* Rows whose owner is a person, which the event's managers use as well. */
const MANAGERS_TOO = new Set(['orders.get', 'orders.cancel', 'orders.refunds',
  'tickets.get']);

/* Rows that are one's own alone: an admin is a stranger there, too. */
const OWNER_ONLY = new Set(['auth.session_end', 'auth.key_rotate',
  'identities.unlink']);

const REFUSALS = ['UNAUTHENTICATED', 'FORBIDDEN', 'NOT_FOUND'];

/* The code of a gate's refusal; undefined: the row's work was reached. */
const refusal = (res) =>
  REFUSALS.find((code) => code === res.error?.code);

const admits = (row, actor) =>
  row.public || [...actor.roles].some((role) => row.roles.has(role));

const foreign = (row) => row.relation === 'scan' ? 'FORBIDDEN' : 'NOT_FOUND';

function expected(row, actor, { exists, relations }) {
  if (!admits(row, actor)) return 'FORBIDDEN';
  if (!exists) return foreign(row);
  if (relations.has(row.relation)
    || (actor.roles.has('admin') && !OWNER_ONLY.has(row.id))) {
    return undefined;
  }
  if (relations.has('manage') && MANAGERS_TOO.has(row.id)) return undefined;
  return foreign(row);
}

async function ask(row, { token, of, params }) {
  const spec = request(row, { of, params });
  const node = asked++ % app.nodes.length;

  /* with several workers, one connection is one worker */
  return app.api(spec.method, spec.path, { ...spec, token, node,
    headers: app.nginxWorkers > 1 ? { ...spec.headers, Connection: 'close' }
      : spec.headers });
}

/* What the row does not name, e.g. whose staff entry is removed. */
async function others(row, made) {
  const rest = row.params.filter((name) => name !== row.ofField);

  if (!rest.length) return {};
  assert.deepEqual(rest, ['user_id'], `${row.name}: say what else is there`);

  const { id } = world.buyer;

  await app.sql(
    `insert into app.event_staff (event_id, user_id, relation, created_at)
     values ($1, $2, 'scan', app.now()) on conflict do nothing`,
    [made.eventId, id]);
  return { user_id: id };
}

async function quietly(row, what, work) {
  const was = await counts(app);

  await work();
  assert.deepEqual(await counts(app), was,
    `${row.name}: ${what} changed something`);
}

async function cell(row, actor, what, { of, is, params }) {
  const wanted = expected(row, actor, is);
  const one = async () => {
    const res = await ask(row, { token: actor.token, of, params });

    assert.equal(refusal(res), wanted, `${row.name} as ${actor.what}, ` +
      `${what} {${[...is.relations]}}: ${res.status} ${res.text}`);
    assert.ok(res.status < 500, res.text);
  };

  await (wanted ? quietly(row, `${actor.what}, ${what}`, one) : one());
  return 1;
}

/*
 * Defines the tests for an application with these options of boot().  slice:
 * of the rows with a resource, one for each resource and relation.
 */
export function define(options, { slice = false } = {}) {
  const kinds = new Set();
  const walked = owned.filter(({ of }) =>
    !slice || (!kinds.has(of) && kinds.add(of)));

  before(async () => {
    app = await boot({ workers: 0, ...options });
    world = await new World(app).begin();
    /* nobody draws tickets here: without Redis the edge does not wait
       either */
    await app.redisProc.stop('SIGKILL');
  });
  after(() => app?.stop());

  test('there is a builder and a view for every resource', async () => {
    const kinds = new Set(owned.map((row) => row.resource));

    assert.ok(kinds.size >= 5, [...kinds].join());
    for (const kind of kinds) {
      const { id } = await world.make(kind);

      assert.ok(await app.value(
        `select count(*)::int from api.acl_${kind} where id = $1`, [id]), kind);
    }
  });

  test('I-41: nobody', async () => {
    for (const row of rows) {
      const of = row.resource && (await world.make(row.resource)).id;

      await quietly(row, 'nobody', async () => {
        if (row.public) return;
        for (const id of [of, NONE]) {
          const res = await ask(row, { of: id });

          assert.equal(res.status, 401, `${row.name}: ${res.text}`);
          assert.equal(res.error.code, 'UNAUTHENTICATED', row.name);
          assert.match(res.headers['www-authenticate'], /^Bearer/, row.name);
        }
      });
      if (row.public) {
        const res = await ask(row, {});

        assert.notEqual(res.error?.code, 'UNAUTHENTICATED', row.name);
        assert.notEqual(res.error?.code, 'FORBIDDEN', row.name);
      }
    }
  });

  test('I-41: the roles of every row', async () => {
    let refusedOnes = 0;

    for (const row of rows) {
      for (const actor of world.actors) {
        const ok = admits(row, actor);
        const token = row.flow === 'AUTH_LOGOUT'
          ? await world.token(actor, [...actor.roles]) : actor.token;
        const one = async () => {
          const res = await ask(row, { token, of: NONE });
          const what = `${row.name} as ${actor.what}: ${res.text}`;

          if (!ok) {
            assert.equal(res.status, 403, what);
            assert.equal(res.error.code, 'FORBIDDEN', what);
            refusedOnes++;
          } else if (row.relation !== 'scan') {
            assert.notEqual(res.error?.code, 'FORBIDDEN', what);
          }
          assert.notEqual(res.error?.code, 'UNAUTHENTICATED', what);
        };

        await (ok ? one() : quietly(row, `${actor.what} (refused)`, one));
      }
    }
    assert.ok(refusedOnes > 100, `${refusedOnes} refusals`);
  });

  test('I-41: own, foreign and missing, with every role', async () => {
    let n = 0;

    for (const row of walked) {
      const other = await world.make(row.resource);
      const rest = await others(row, other);

      for (const actor of world.actors) {
        const cells = [
          ['missing', NONE, { exists: false, relations: new Set() }],
          ['foreign', other.id, { exists: true, relations: await
          world.relations(row.resource, other.id, actor.id) }],
        ];

        /* a role that the row refuses is refused before anything is looked
           at */
        for (const relation of admits(row, actor)
          ? new Set([row.relation, ...STAFF]) : [row.relation]) {
          const made = await world.related(row.resource, relation, actor);

          cells.push([relation, made.id, { exists: true, relations: await
          world.relations(row.resource, made.id, actor.id) },
          await others(row, made)]);
        }
        for (const [what, of, is, params = rest] of cells) {
          n += await cell(row, actor, what, { of, is, params });
        }
      }
    }
    assert.ok(n > 10 * walked.length, `${n} cells`);
  });

  test('I-41: a device, at its event and at others', async () => {
    for (const row of rows) {
      const mine = await world.event();
      const device = await world.device(mine.eventId);
      const ok = admits(row, device);

      if (!row.resource) {
        const res = await ask(row, { token: device.token });

        assert.equal(res.error?.code === 'FORBIDDEN', !ok,
          `${row.name}: ${res.text}`);
        continue;
      }

      const other = await world.make(row.resource);
      const rest = await others(row, other);

      for (const [what, of] of [['missing', NONE], ['foreign', other.id]]) {
        await quietly(row, `a device, ${what}`, async () => {
          const res = await ask(row,
            { token: device.token, of, params: rest });

          if (!ok) {
            assert.equal(res.error?.code, 'FORBIDDEN',
              `${row.name}, ${what}: ${res.text}`);
          } else {
            assert.equal(res.error?.code, foreign(row),
              `${row.name}, ${what}: ${res.text}`);
          }
        });
      }
      if (ok) {
        const res = await ask(row, { token: device.token, of: mine.eventId });

        assert.equal(refusal(res), undefined, `${row.name}: ${res.text}`);
      }
    }
  });

  test('I-41: a draft is for those who manage it', async () => {
    const { organizer, actors, buyer } = world;
    const draft = await app.event(organizer, { publish: false });
    const open = rows.filter((row) => row.public && row.method === 'GET'
      && /^\/api\/v1\/events\/:id/.test(row.path));

    assert.ok(open.length >= 2);
    for (const row of open) {
      const path = row.path.replace(':id', draft.id);

      for (const { token, roles = new Set(), what = 'somebody' } of
        [{ what: 'nobody' }, buyer, organizer, ...actors]) {
        const res = await app.api('GET', path, { token });
        const may = token === organizer.token || roles.has('admin');

        assert.equal(res.status, may ? 200 : 404,
          `${row.name} as ${what}: ${res.text}`);
      }
    }
  });
}
