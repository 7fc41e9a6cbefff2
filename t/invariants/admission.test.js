/*
 * The door: each ticket lets one person in, whoever scans it, however often,
 * and in whatever order the devices' news arrive (I-7, I-8, I-9, I-10).
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { must, onWorkers, pick, rounds, shuffled, tally } from './kit.js';

const scanning = (app, code, more = {}) => ({
  method: 'POST', path: '/api/v1/orders/validate', token: app.org.token,
  body: { code, ...more },
});

const verdicts = (all) => {
  tally(all);
  return all.map((res) => {
    assert.equal(res.status, 200, res.text);
    return res.data.verdict;
  });
};

const count = (list, what) => list.filter((v) => v === what).length;

/* The event of one application and a fresh ticket of it. */
async function ticket(app) {
  app.hall ??= await app.event(app.org,
    { types: [{ quota: 100000, maxPerOrder: 100 }] });

  const owner = pick(app.people);
  const [t] = await app.freeTickets(owner, app.hall.types[0].id);

  return { ...t, owner };
}

async function device(app, gate) {
  const { pairingCode, deviceId } = await must(201, app.api('POST',
    '/api/v1/checkin/devices', {
      token: app.org.token,
      body: { eventId: app.hall.id, name: `Device ${gate}`, gate },
    }));
  const { deviceToken } = await must(200, app.api('POST',
    '/api/v1/checkin/devices/login', { body: { code: pairingCode } }));

  return { id: deviceId, token: deviceToken, gate };
}

const admissions = (app, id) => app.value(`select count(*)::int
  from app.scan_events where ticket_id = $1 and verdict = 'admitted'`, [id]);

onWorkers({}, ({ plain, race }) => {
  race('I-7: one ticket, twenty scanners', { guard: 'i7' }, async (app) => {
    const { id, code, owner } = await ticket(app);
    const all = await app.barrier(20, (i) =>
      scanning(app, code, { gate: `G${i}` }));
    const said = verdicts(all);

    assert.equal(count(said, 'admitted'), 1, String(said));
    assert.equal(count(said, 'already_used'), 19, String(said));

    const winner = all[said.indexOf('admitted')].data;

    assert.equal(winner.gate, `G${said.indexOf('admitted')}`);
    for (const { data } of all) {
      assert.equal(data.gate, winner.gate);
      assert.equal(data.admittedAt, winner.admittedAt);
    }
    assert.equal(await admissions(app, id), 1);
    assert.equal((await must(200, app.api('GET', `/api/v1/tickets/${id}`,
      { token: owner.token }))).state, 'admitted');
  });

  race('I-7: a hundred tickets at once, each scanned twice', {
    n: rounds(0.3),
  }, async (app) => {
    await ticket(app);
    const list = await app.freeTickets(app.people[0],
      app.hall.types[0].id, 100);
    const order = shuffled([...list, ...list]);
    const said = verdicts(await app.barrier(200, (i) =>
      scanning(app, order[i].code)));

    assert.equal(count(said, 'admitted'), 100, 'nobody is kept out');
    assert.equal(count(said, 'already_used'), 100);
    for (const t of list) {
      assert.equal(order.filter((o, i) => o.id === t.id
        && said[i] === 'admitted').length, 1);
    }
  });

  race('I-8: one nonce, fifty times', { guard: 'i8' }, async (app) => {
    const { id, code } = await ticket(app);
    const nonce = crypto.randomUUID();
    const all = await app.barrier(50, () =>
      scanning(app, code, { nonce, gate: 'N' }));

    assert.deepEqual([...new Set(verdicts(all))], ['admitted']);
    assert.equal(new Set(all.map((r) => JSON.stringify(r.data))).size, 1);
    assert.equal(await app.value(`select count(*)::int from app.scan_events
      where ticket_id = $1`, [id]), 1);
    assert.equal((await app.validate(app.org.token, code,
      { nonce: crypto.randomUUID() })).data.verdict, 'already_used');
  });

  plain('I-8: the same verdict after a restart', async (app) => {
    const { id, code } = await ticket(app);
    const nonce = crypto.randomUUID();
    const first = await app.validate(app.org.token, code, { nonce });

    assert.equal(first.data.verdict, 'admitted');
    await app.nginx.stop();
    await app.nginx.start();
    for (const res of await app.barrier(10, () =>
      scanning(app, code, { nonce }))) {
      assert.deepEqual(res.data, first.data);
    }
    assert.equal(await app.value(`select count(*)::int from app.scan_events
      where ticket_id = $1`, [id]), 1);
  });

  race('I-10: reissued or transferred while ten devices scan it', {},
    async (app) => {
      const { id, code, owner } = await ticket(app);
      const friend = app.people.find((p) => p.id !== owner.id);
      const transfer = Math.random() < 0.5;
      const at = crypto.randomInt(11);
      const all = await app.barrier(11, (i) => (i !== at
        ? scanning(app, code) : {
          method: 'POST', token: owner.token,
          path: `/api/v1/tickets/${id}/${transfer ? 'transfer' : 'reissue'}`,
          body: transfer ? { email: friend.email } : {},
        }));
      const [change] = all.splice(at, 1);
      const said = verdicts(all);

      if (change.status !== 200) { /* somebody was in before it */
        assert.equal(change.error?.code, 'INVALID_STATE', change.text);
        assert.equal(count(said, 'admitted'), 1, String(said));
        assert.equal(count(said, 'already_used'), 9, String(said));
        assert.equal(await admissions(app, id), 1);
        return;
      }
      /* the old code died unused: nobody may have come in with it */
      assert.equal(count(said, 'cancelled'), 10, String(said));
      await deadForever(app, id, code);

      const [fresh] = await must(200, app.api('GET',
        `/api/v1/tickets/${id}`,
        { token: (transfer ? friend : owner).token })).then((t) => [t]);

      assert.notEqual(fresh.code, code);
      assert.deepEqual(verdicts(await app.barrier(2, () =>
        scanning(app, fresh.code))).sort(), ['admitted', 'already_used']);
    });

  race('I-10: cancelled while ten devices scan it', {}, async (app) => {
    await ticket(app);
    const owner = pick(app.people);
    const order = await must(201, app.order(owner, app.hall.types[0].id));
    const [{ id, code }] = order.tickets;
    const at = crypto.randomInt(11);
    const all = await app.barrier(11, (i) => (i !== at
      ? scanning(app, code) : {
        method: 'POST', path: `/api/v1/orders/${order.id}/cancel`,
        token: owner.token, body: {},
      }));
    const [change] = all.splice(at, 1);
    const said = verdicts(all);

    if (change.status !== 200) {
      assert.equal(change.error?.code, 'INVALID_STATE', change.text);
      assert.equal(count(said, 'admitted'), 1, String(said));
    } else {
      assert.equal(count(said, 'cancelled'), 10, String(said));
      await deadForever(app, id, code);
    }
  });

  /* An old code: refused online, and offline kept as a conflict. */
  async function deadForever(app, id, code) {
    assert.equal((await app.validate(app.org.token, code)).data.verdict,
      'cancelled');
    app.alone ??= await device(app, 'Alone');

    const { items: [item] } = await must(200, app.api('POST',
      '/api/v1/checkin/batch', {
        token: app.alone.token,
        body: {
          items: [{
            nonce: crypto.randomUUID(), code,
            scannedAt: new Date(Date.now() + 1000).toISOString(),
          }],
        },
      }));

    assert.equal(item.verdict, 'cancelled');
    assert.equal(item.conflict, true);
    assert.equal(await app.value(
      'select conflict from app.tickets where id = $1', [id]), true);
  }

  plain('I-9: five devices without a line, every order of their uploads',
    async (app) => {
      await ticket(app);
      const devices = [];

      for (let i = 0; i < 5; i++) devices.push(await device(app, `D${i}`));
      devices.sort((a, b) => (a.id < b.id ? -1 : 1));

      const plan = plannedScans();
      const want = expected(plan);

      for (let n = 0; n < rounds(0.5); n++) {
        const tickets = await freshTickets(app, TICKETS);
        const nonces = new Map();

        await upload(app, devices, plan, (scan) => {
          const nonce = nonces.get(scan) ?? crypto.randomUUID();

          nonces.set(scan, nonce);
          return {
            nonce, code: tickets[scan.ticket].code,
            scannedAt: new Date(scan.at - scan.skew).toISOString(),
            clockOffsetMs: scan.skew,
          };
        });
        assert.deepEqual(await found(app, devices, plan, tickets, nonces),
          want);
      }
    });
});

/* ---- I-9: what happened, what should come out, what did ---- */

const TICKETS = 60;

/*
 * On the true clock: {ticket, device, at, skew}.  One in ten happens in the
 * same millisecond as another's.  A device's clock is wrong by up to 90 s.
 */
function plannedScans() {
  const start = Date.now() - 3600000;
  const skews = [-90000, -30000, 0, 45000, 90000];
  const scans = [];

  for (let ticket = 0; ticket < TICKETS; ticket++) {
    const same = crypto.randomInt(10) === 0;
    const at = start + crypto.randomInt(1200000);

    for (let n = 1 + crypto.randomInt(4); n > 0; n--) {
      const device = crypto.randomInt(5);

      if (scans.some((s) => s.ticket === ticket && s.device === device)) {
        continue;
      }
      scans.push({
        ticket, device, skew: skews[device],
        at: same ? at : at + crypto.randomInt(120000),
      });
    }
  }
  return scans;
}

/* The earliest by corrected time, then by device, wins; the rest conflict. */
function expected(plan) {
  const tickets = [];
  const scans = plan.map(() => null);

  for (let ticket = 0; ticket < TICKETS; ticket++) {
    const mine = plan.map((s, i) => ({ ...s, i }))
      .filter((s) => s.ticket === ticket)
      .sort((a, b) => a.at - b.at || a.device - b.device);

    tickets.push({
      state: 'admitted', at: mine[0].at, by: mine[0].device,
      gate: `D${mine[0].device}`, conflict: mine.length > 1,
    });
    mine.forEach((s, n) => {
      scans[s.i] = n === 0
        ? { verdict: 'admitted', conflict: false }
        : { verdict: 'already_used', conflict: true };
    });
  }
  return { tickets, scans, extra: 0 };
}

async function freshTickets(app, n) {
  const all = [];

  while (all.length < n) {
    all.push(...await app.freeTickets(pick(app.people),
      app.hall.types[0].id, Math.min(100, n - all.length)));
  }
  return all;
}

/*
 * Each device cuts its queue into pieces, sends some of them twice, in any
 * order; the pieces of all devices leave in waves, together.
 */
async function upload(app, devices, plan, item) {
  const pieces = [];

  for (let d = 0; d < 5; d++) {
    let queue = shuffled(plan.filter((s) => s.device === d));

    while (queue.length) {
      const cut = 1 + crypto.randomInt(queue.length);
      const piece = { device: d, items: queue.slice(0, cut).map(item) };

      pieces.push(piece);
      if (crypto.randomInt(3) === 0) pieces.push(piece);
      queue = queue.slice(cut);
    }
  }

  const all = shuffled(pieces);

  while (all.length) {
    const wave = all.splice(0, 1 + crypto.randomInt(6));
    const res = await app.barrier(wave.length, (i) => ({
      method: 'POST', path: '/api/v1/checkin/batch',
      token: devices[wave[i].device].token, body: { items: wave[i].items },
    }));

    assert.deepEqual(tally(res), { 200: wave.length });
    res.forEach((r, i) =>
      assert.equal(r.data.items.length, wave[i].items.length));
  }
}

async function found(app, devices, plan, tickets, nonces) {
  const place = (id) => devices.findIndex((d) => d.id === id);
  const rows = new Map((await app.sql(
    'select * from app.tickets where id = any ($1)',
    [tickets.map((t) => t.id)])).map((t) => [t.id, t]));
  const scans = new Map((await app.sql(
    'select * from app.scan_events where ticket_id = any ($1)',
    [tickets.map((t) => t.id)])).map((s) => [s.nonce, s]));

  return {
    tickets: tickets.map(({ id }) => {
      const t = rows.get(id);

      return {
        state: t.state, at: t.admitted_at?.getTime(),
        by: place(t.admitted_by), gate: t.admitted_gate, conflict: t.conflict,
      };
    }),
    scans: plan.map((scan) => {
      const s = scans.get(nonces.get(scan));

      return s && { verdict: s.verdict, conflict: s.conflict };
    }),
    extra: scans.size - plan.length,
  };
}
