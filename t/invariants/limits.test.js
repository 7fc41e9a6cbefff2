/*
 * Limits are exact, whatever comes at once (I-42): of 2,000 requests against
 * a burst of 100, on a clock that stands, exactly 100 pass, on one and on
 * four nginx workers of one node, and across two nodes when Redis counts.
 * t/mutants has the two ways of counting that must fail here.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { boot } from '../harness/index.js';
import { mint } from '../derived/rows.js';

const BURST = 100;
const MANY = 2000;

const LOCATIONS = `
  location /node/ {
      stoa_auth required;
      stoa_limit_apply exact;
      alias ${process.cwd()}/conf/www/kit/;
  }
  location /cluster/ {
      stoa_auth required;
      stoa_limit_apply everywhere;
      alias ${process.cwd()}/conf/www/kit/;
  }
  location /anybody/ {
      stoa_limit_apply anybody;
      alias ${process.cwd()}/conf/www/kit/;
  }
  location /failures/ {
      stoa_limit_apply guesses;
      alias ${process.cwd()}/conf/www/kit/;
  }
  location = / {`;

const tally = (all) => all.reduce((by, { status }) =>
  ({ ...by, [status]: (by[status] ?? 0) + 1 }), {});

const exactly = { 200: BURST, 429: MANY - BURST };

for (const nginxWorkers of [1, 4]) {
  describe(`${nginxWorkers} nginx worker${nginxWorkers > 1 ? 's' : ''}`, () => {
    let app;

    before(async () => {
      app = await boot({
        workers: 0, nginxWorkers, nodes: 2, validate: false,
        nginx: {
          http: `
            set_real_ip_from 127.0.0.1;
            real_ip_header X-Forwarded-For;
            stoa_limit exact key=user rate=${BURST}/m burst=${BURST};
            stoa_limit everywhere key=user rate=${BURST}/m burst=${BURST}
                scope=cluster timeout=5s;
            stoa_limit anybody key=addr rate=${BURST}/m burst=${BURST}
                scope=cluster timeout=5s;
            stoa_limit guesses key=addr rate=${BURST}/m burst=${BURST}
                on=404;`,
          replace: [['location = / {', LOCATIONS],
            ['worker_connections 2048', 'worker_connections 8000']],
        },
      });
      await app.clock.freeze();
    });
    after(() => app?.stop());

    const burst = (path, n, nodes, more = () => ({})) => {
      const token = mint(app);

      return app.barrier(n, (i) => ({ path, token, node: i % nodes,
        ...more(i) }));
    };
    const from = (host) => ({ 'X-Forwarded-For': host });

    test('one node', async () => {
      assert.deepEqual(tally(await burst('/node/tokens.css', MANY, 1)),
        exactly);
    });

    test('two nodes, counted by Redis', async () => {
      assert.deepEqual(tally(await burst('/cluster/tokens.css', MANY, 2)),
        exactly);
    });

    test('I-42: one address, then one user behind a thousand, on two nodes',
      async () => {
        const hosts = (i) => ({ headers: from(`10.6.${i >> 8}.${i & 255}`) });

        assert.deepEqual(tally(await burst('/anybody/tokens.css', 1000, 2,
          () => ({ token: undefined, headers: from('10.5.0.1') }))),
        { 200: BURST, 429: 1000 - BURST });
        assert.deepEqual(tally(await burst('/anybody/tokens.css', 1000, 2,
          (i) => ({ token: undefined, ...hosts(i) }))), { 200: 1000 });
        assert.deepEqual(tally(await burst('/cluster/tokens.css', 1000, 2,
          hosts)), { 200: BURST, 429: 1000 - BURST });
      });

    test('two nodes that count for themselves know no more', async () => {
      assert.deepEqual(tally(await burst('/node/tokens.css', MANY, 2)),
        { 200: 2 * BURST, 429: MANY - 2 * BURST });
    });

    test('failures: as many are let through, however they come', async () => {
      assert.deepEqual(tally(await burst('/failures/none.css', MANY, 1)),
        { 404: BURST, 429: MANY - BURST });
    });
  });
}
