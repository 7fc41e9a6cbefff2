/*
 * Who wants to be rid of a limit floods it with keys until its own is
 * forgotten.  (crash.test.js has processes that are killed while they count.)
 */

import assert from 'node:assert/strict';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';
import { boot } from '../harness/index.js';
import * as rows from '../derived/rows.js';

const tally = (all) => all.reduce((by, { status }) =>
  ({ ...by, [status]: (by[status] ?? 0) + 1 }), {});

const FILES = `alias ${process.cwd()}/conf/www/kit/;`;

const NGINX = {
  http: `
    set_real_ip_from 127.0.0.1;
    real_ip_header X-Forwarded-For;
    stoa_limit few key=user rate=2/m burst=2;
    stoa_limit window key=user rate=100/s burst=100 quota=2/m;
    stoa_limit flood key=addr rate=1/h burst=100;`,
  replace: [['location = / {', `
    location /few/ { stoa_auth required; stoa_limit_apply few; ${FILES} }
    location /window/ { stoa_auth required; stoa_limit_apply window; ${FILES} }
    location /flood/ { stoa_limit_apply flood; ${FILES} }
    location = / {`]],
};

const PAGE = 'tokens.css';

/* Requests of as many addresses on one connection, one behind the other. */
function flood(app, n, from) {
  return new Promise((done, failed) => {
    let got = 0, sent = 0, rest = '';
    const socket = net.connect(app.port, '127.0.0.1');
    const more = () => {
      for (; sent < n && sent < got + 500; sent++) {
        const i = from + sent;

        socket.write(`HEAD /flood/${PAGE} HTTP/1.1\r\nHost: x\r\n` +
          `X-Forwarded-For: 2001:db8:${(i >> 16).toString(16)}:` +
          `${(i & 0xffff).toString(16)}::1\r\n\r\n`);
      }
    };

    socket.setNoDelay(true);
    socket.on('error', failed);
    socket.on('connect', more);
    socket.on('data', (chunk) => {
      const text = rest + chunk.toString('latin1');
      const all = text.split('HTTP/1.1 200');

      got += all.length - 1;
      rest = all.at(-1).slice(-12);
      if (got >= n) socket.end(done);
      else more();
    });
    socket.on('close', () => got >= n ? done()
      : failed(new Error(`${got} of ${n} answers`)));
  });
}

async function metric(app, name) {
  const { text } = await app.api('GET', '/metrics', { validate: false });

  return Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(text)[1]);
}

describe('a table that is too small', () => {
  let app;

  before(async () => {
    app = await boot({
      workers: 0, validate: false,
      nginx: { ...NGINX, replace: [...NGINX.replace,
        ['stoa_zone main:16m;', 'stoa_zone main:640k;']] },
    });
    await app.clock.freeze();
  });
  after(() => app?.stop());

  test('random keys do not make it forget whom it refuses', async () => {
    const users = Array.from({ length: 40 }, () => rows.mint(app));
    const use = (path) => app.barrier(3 * users.length, (i) => ({
      path: `${path}${PAGE}`, token: users[i % users.length] }));

    for (const path of ['/few/', '/window/']) {
      assert.deepEqual(tally(await use(path)), { 200: 80, 429: 40 });
    }
    /* each of these ends later than what is refused, and has used little */
    for (let i = 0; i < 12; i++) await flood(app, 2000, i * 2000);

    const evicted = await metric(app, 'stoa_limit_evictions_total');

    assert.ok(evicted > 4000, `${evicted} places were taken away`);
    for (const path of ['/few/', '/window/']) {
      assert.deepEqual(tally(await use(path)), { 429: 120 });
    }
  });
});

/* What the directives say by themselves, in front of what is tested with. */
const SHIPPED = [/ *stoa_limit \w+ rate=1000000\/m burst=1000000 key=\w+;\n/g,
  ''];

describe('as shipped: what others do behind one address', () => {
  let app;

  before(async () => {
    app = await boot({ workers: 0, nginxWorkers: 1, nginx: {
      http: 'set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For;',
      replace: [SHIPPED],
    } });
    await app.clock.freeze();
  });
  after(() => app?.stop());

  const refresh = (refreshToken, from) => app.api('POST',
    '/api/v1/auth/refresh', { body: { refreshToken },
      headers: { 'X-Forwarded-For': from } });

  test('pages that are opened do not use up sign-ins, forgeries nothing',
    async () => {
      const people = [await app.user(), await app.user()];
      const from = '192.0.2.7';

      /* each as often as a page may be, one behind the other */
      for (const who of people) {
        for (let i = 0; i < 30; i++) {
          const res = await refresh(who.refreshToken, from);

          assert.equal(res.status, 200, `${i}: ${res.text}`);
          who.refreshToken = res.data.refreshToken;
        }
      }

      /* of its MAC; none of them is the right one by chance */
      const forge = (token, i) => `${token.slice(0, -4)}${
        token.endsWith(`_${100 + i}`) ? '-' : '_'}${100 + i}`;
      const forged = await Promise.all(Array.from({ length: 120 },
        (_, i) => refresh(forge(people[0].refreshToken, i), from)));

      assert.deepEqual(tally(forged), { 401: 100, 429: 20 });
      assert.equal((await refresh(people[1].refreshToken, from)).status, 200);
      assert.equal((await app.api('POST', '/api/v1/auth/login', {
        headers: { 'X-Forwarded-For': from },
        body: { email: people[0].email, password: people[0].password } }))
        .status, 200);
    });

  test('what a page can make a browser ask for uses up no sign-in',
    async () => {
      const who = await app.user();
      const from = { 'X-Forwarded-For': '192.0.2.8' };

      for (let i = 0; i < 25; i++) {
        const res = await app.api('GET', '/api/v1/oauth/google/callback',
          { headers: from });

        assert.equal(res.status, 404, 'there is no such provider');
      }
      assert.equal((await app.api('POST', '/api/v1/auth/login', {
        headers: from, body: { email: who.email, password: who.password } }))
        .status, 200);
    });

  test('one session is refused for itself, wherever it comes from',
    async () => {
      const [one, other] = [await app.user(), await app.user()];
      const all = await Promise.all(Array.from({ length: 70 },
        (_, i) => refresh(one.refreshToken, `192.0.2.${100 + i}`)));

      assert.deepEqual(tally(all), { 200: 60, 429: 10 });
      for (const res of all.filter(({ status }) => status === 429)) {
        assert.ok(Number(res.headers['retry-after']) >= 1);
        assert.deepEqual(res.error['violated-policies'], ['refresh']);
      }
      assert.equal((await refresh(other.refreshToken, '192.0.2.100')).status,
        200);
    });
});
