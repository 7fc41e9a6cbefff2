/*
 * The memory that password hashes work in: kept while sign-ins come, whatever
 * each of them needs, and given back when they do not.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';
import { until } from '../harness/proc.js';

const MIB = 1024;
const PASSWORD = 'correct horse battery';
/* of that password: m=65536, t=1 */
const LARGE = '$argon2id$v=19$m=65536,t=1,p=1$LB7smBMmaxpuYP45Ez6cOQ$'
  + '1e/M0re6cb5VQ3kkKRzbfjftOHJ35bBIg8oYIqnHbR0';

let app;

before(async () => {
  app = await boot({ workers: 0, nginxWorkers: 1, conf: {
    ARGON2_MEMORY_KIB: null, ARGON2_PASSES: null } });
});
after(() => app?.stop());

/* KiB of the edge's one process, that no file is behind. */
async function memory() {
  const [pid] = await app.nginx.workerPids();

  return Number(/^RssAnon:\s+(\d+)/m.exec(
    fs.readFileSync(`/proc/${pid}/status`, 'utf8'))[1]);
}
const login = async ({ email }, password = PASSWORD) => (await app.api('POST',
  '/api/v1/auth/login', { body: { email, password } })).status;

test('it is kept between hashes, once for a thread, and given back',
  async () => {
    const user = await app.user('member', { password: PASSWORD });

    await until(async () => await memory() < 20 * MIB,
      { what: 'what the fixture needed to be given back' });
    const before = await memory();

    for (let i = 0; i < 12; i++) assert.equal(await login(user), 200);
    const kept = await memory() - before;

    assert.ok(kept > 17 * MIB && kept < 30 * MIB, `${kept} KiB for one thread`);
    await until(async () => await memory() - before < 8 * MIB,
      { timeout: 60000, what: 'the memory to be given back' });
  });

test('hashes of other costs, in any order', async () => {
  const [small, large] = [await app.user('member', { password: PASSWORD }),
    await app.user('member', { password: PASSWORD })];

  for (let i = 0; i < 3; i++) {
    await app.sql('update app.users set password_hash = $2 where id = $1',
      [large.id, LARGE]);
    assert.deepEqual(await Promise.all([login(small), login(large),
      login(small, 'not this one'), login(large, 'nor this one')]),
    [200, 200, 401, 401]);
  }
});
