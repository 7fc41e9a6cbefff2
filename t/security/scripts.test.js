/*
 * Strings that nginx puts together in two passes, a length and a copy
 * (edge.md D.2, CVE-2026-42945): variables of Stoa, captures of expressions
 * and maps that are evaluated anew each time, of any length, beside each
 * other; all of it comes out as long as it was and where it belongs.  Part
 * "asan" runs this, too.
 */

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import http from 'node:http';
import { after, before, test } from 'node:test';
import { boot } from '../harness/index.js';

const OURS = ['user', 'role', 'session', 'key', 'acting_as', 'route',
  'request_id', 'error_code', 'limit', 'limit_remaining', 'limit_status',
  'auth_status', 'db_time', 'db_wait', 'db_queries', 'cache_status',
  'ip_prefix'];
const ALL = OURS.map((name) => `${name}=$stoa_${name};`).join('');

let app, alice, backend;

before(async () => {
  backend = http.createServer((req, res) => {
    res.end(JSON.stringify(req.headers));
  });
  backend.listen(0, '127.0.0.1');
  await new Promise((done) => backend.once('listening', done));
  app = await boot({ workers: 0, validate: false, nginx: {
    http: `
      map $arg_x $turned {
          volatile;
          "~^(?<front>.{0,7})(?<rest>.*)$" "$rest|$front|$arg_y";
      }
      map $stoa_user$arg_y $whose { volatile; default "<$stoa_user>"; }
      stoa_limit dear key=user rate=100000/s burst=100000 cost=$arg_cost;
      stoa_limit named key=user rate=100000/s burst=100000;`,
    replace: [['location = / {', `
      location ~ ^/echo/(?<one>[^/]*)/(?<two>.*)$ {
          stoa_auth optional;
          stoa_limit_apply named;
          add_header X-Turned "$turned$whose$one" always;
          add_header X-All "${ALL}" always;
          add_header X-Said "$one|$two|$turned|$whose|$one$two" always;
          try_files /kit/tokens.css =404;
      }
      location /dear/ {
          stoa_auth optional;
          stoa_limit_apply dear;
          add_header X-Said "$stoa_limit|$stoa_limit_remaining|$turned" always;
          try_files /kit/tokens.css =404;
      }
      location /behind/ {
          stoa_auth required;
          proxy_set_header X-Turned "$turned$whose$turned";
          proxy_set_header X-All "${ALL}${ALL}";
          proxy_pass http://127.0.0.1:${backend.address().port}/;
      }
      location = / {`]],
  } });
  alice = await app.user();
});
after(async () => {
  await app?.stop();
  backend?.closeAllConnections();
  backend?.close();
});

const text = (n) => crypto.randomBytes(n).toString('hex').slice(0, n);
const LENGTHS = [0, 1, 6, 7, 8, 63, 64, 255, 256, 1023, 1900];
/* a map finds no expression for nothing */
const turn = (x, y) => x && `${x.slice(7)}|${x.slice(0, 7)}|${y}`;

test('captures, maps and our variables, each of any length', async () => {
  for (const a of LENGTHS) {
    for (const b of LENGTHS) {
      const [one, two, x, y] = [text(a), text(b), text(b), text(a % 300)];

      for (const token of [undefined, alice.token]) {
        const res = await app.api('GET',
          `/echo/1${one}/2${two}?x=${x}&y=${y}`, { token });
        const whose = `<${token ? alice.id : ''}>`;

        assert.equal(res.status, 200, res.text);
        assert.equal(res.headers['x-said'], [`1${one}`, `2${two}`,
          turn(x, y), whose, `1${one}2${two}`].join('|'));
        assert.equal(res.headers['x-turned'],
          `${turn(x, y)}${whose}1${one}`);
        assert.ok(res.headers['x-all'].startsWith(
          `user=${token ? alice.id : ''};`), res.headers['x-all']);
        for (const name of OURS) {
          assert.ok(res.headers['x-all'].includes(`${name}=`), name);
        }
      }
    }
  }
});

test('what a backend is told is said twice in the same words', async () => {
  for (const n of LENGTHS) {
    const [x, y] = [text(n), text(n % 200)];
    const res = await app.api('GET', `/behind/?x=${x}&y=${y}`,
      { token: alice.token });
    const told = JSON.parse(res.text);
    const all = told['x-all'];
    const half = all.length / 2;

    assert.equal(told['x-turned'],
      `${turn(x, y)}<${alice.id}>${turn(x, y)}`);
    assert.equal(all.slice(0, half), all.slice(half));
    assert.ok(all.startsWith(`user=${alice.id};`));
  }
});

test('a cost that a variable says, whatever it says', async () => {
  for (const cost of ['', '0', '1', '7', '-1', '1x', '007', '99999999999',
    '9'.repeat(300), text(1900), '%00', '1%0d%0a']) {
    const res = await app.api('GET', `/dear/?cost=${cost}&x=${cost}`,
      { token: alice.token });

    assert.ok([200, 429].includes(res.status), `${cost}: ${res.status}`);
    assert.match(res.headers['x-said'], /^dear\|\d*\|/);
  }
});
