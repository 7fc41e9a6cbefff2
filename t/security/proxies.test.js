/*
 * Whose word about addresses counts: without set_real_ip_from nobody's, with
 * it that of the proxies it names, and of a chain only what they themselves
 * have seen.  It is the address that limits, sessions, the audit log and the
 * access log have.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { boot, until } from '../harness/index.js';

const LIMIT = [/stoa_limit auth rate=\S+ burst=\S+ key=addr;/,
  'stoa_limit auth rate=3/1h burst=3 key=addr;'];

const apps = {};

before(async () => {
  const log = [/"addr":"\$remote_addr"/,
    '"addr":"$remote_addr","prefix":"$stoa_ip_prefix"'];

  apps.none = await boot({ workers: 0, nginx: { replace: [LIMIT, log] } });
  apps.other = await boot({ workers: 0, nginx: { replace: [LIMIT, log],
    http: `set_real_ip_from 192.0.2.1; real_ip_header X-Forwarded-For;
      real_ip_recursive on;` } });
  apps.trusted = await boot({ workers: 0, nginx: { replace: [LIMIT, log],
    http: `set_real_ip_from 127.0.0.1; set_real_ip_from 198.51.100.0/24;
      real_ip_header X-Forwarded-For; real_ip_recursive on;` } });
  /* said in the location alone, when a variable has asked for the record */
  apps.inside = await boot({ workers: 0, nginx: { replace: [LIMIT, log,
    [/location \/api\/ \{/, `location /api/ {
      set $early $stoa_request_id;
      set_real_ip_from 127.0.0.1; set_real_ip_from 198.51.100.0/24;
      real_ip_header X-Forwarded-For; real_ip_recursive on;`]] } });
});
after(async () => {
  for (const app of Object.values(apps)) await app?.stop();
});

const SPOOFS = [
  (a) => ({ 'X-Forwarded-For': a }),
  (a) => ({ 'X-Real-IP': a }),
  (a) => ({ Forwarded: `for=${a}` }),
  (a) => ({ 'X-Client-IP': a, 'True-Client-IP': a, 'CF-Connecting-IP': a }),
  (a) => ({ 'X-Forwarded-For': `${a}, ${a}`, 'X-Forwarded': a }),
];

const login = (app, headers) => app.api('POST', '/api/v1/auth/login', {
  headers, body: { email: `n${Math.random()}@x.example`,
    password: 'nobody-has-this-one' } });

const line = async (app, id) => {
  const file = path.join(app.dir, 'log/access.log');
  const find = () => fs.readFileSync(file, 'utf8').split('\n')
    .find((text) => text.includes(id));

  await until(find, { timeout: 5000, what: 'its line' });
  return JSON.parse(find());
};

for (const name of ['none', 'other']) {
  test(`${name}: what a client says of its address counts nothing`, async () => {
    const app = apps[name];
    const seen = [];

    for (let i = 0; i < 15; i++) {
      const spoof = SPOOFS[i % SPOOFS.length](`10.1.2.${i}`);
      const res = await login(app, spoof);
      const said = await line(app, res.headers['x-request-id']);

      assert.equal(said.addr, '127.0.0.1', JSON.stringify(spoof));
      assert.equal(said.prefix, '127.0.0.1');
      seen.push(res.status);
    }
    assert.deepEqual(seen, [401, 401, 401, ...Array(12).fill(429)]);
  });
}

for (const name of ['trusted', 'inside']) {
  test(`${name}: each client behind the proxy has its own limit`, async () => {
    const app = apps[name];

    for (const from of ['203.0.113.1', '203.0.113.2', '2001:db8::1']) {
      const seen = [];

      for (let i = 0; i < 4; i++) {
        seen.push((await login(app, { 'X-Forwarded-For': from })).status);
      }
      assert.deepEqual(seen, [401, 401, 401, 429], from);
    }
  });

  test(`${name}: what stands left of what the proxies saw is not believed`,
    async () => {
      const app = apps[name];
      const seen = [];

      /* the client made up the left part, a proxy of ours is the last */
      for (let i = 0; i < 5; i++) {
        const res = await login(app, { 'X-Forwarded-For':
          `10.9.9.${i}, 203.0.113.77, 198.51.100.4` });

        seen.push(res.status);
        assert.equal((await line(app, res.headers['x-request-id'])).addr,
          '203.0.113.77');
      }
      assert.deepEqual(seen, [401, 401, 401, 429, 429]);
      /* headers that the configuration does not name say nothing */
      const res = await login(app, { 'X-Forwarded-For': '203.0.113.78',
        'X-Real-IP': '203.0.113.79', Forwarded: 'for=203.0.113.80' });

      assert.equal((await line(app, res.headers['x-request-id'])).addr,
        '203.0.113.78');
    });

  test(`${name}: nonsense in the header is the proxy itself`, async () => {
    for (const said of ['unknown', '', '::gg', '1.2.3.4.5', `${'1'.repeat(200)}`,
      '203.0.113.5"\t<script>']) {
      const res = await apps[name].api('GET', '/api/v1/events',
        { headers: { 'X-Forwarded-For': said } });

      assert.equal(res.status, 200);
      assert.equal((await line(apps[name], res.headers['x-request-id'])).addr,
        '127.0.0.1', said);
    }
  });

  test(`${name}: an IPv6 client is counted by its /64`, async () => {
    const seen = [];

    for (let i = 0; i < 4; i++) {
      const res = await login(apps[name],
        { 'X-Forwarded-For': `2001:db8:7:7::${i + 1}` });

      seen.push(res.status);
      assert.match((await line(apps[name], res.headers['x-request-id'])).prefix,
        /^2001:db8:7:7::/);
    }
    assert.deepEqual(seen, [401, 401, 401, 429]);
  });

  test(`${name}: the address of a session and of the audit log is the same`,
    async () => {
      const app = apps[name];
      const user = await app.user();
      const res = await app.api('POST', '/api/v1/auth/login', {
        headers: { 'X-Forwarded-For': '10.0.0.1, 203.0.113.99' },
        body: { email: user.email, password: user.password } });

      assert.equal(res.status, 200, res.text);
      const id = res.headers['x-request-id'];

      assert.equal(await app.value(
        'select ip from app.audit_log where request_id::text = $1 limit 1',
        [id]), '203.0.113.99');
    });
}
