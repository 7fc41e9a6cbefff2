/*
 * What "nginx -t" says: every mistake has its sentence, its file and line,
 * and the nearest valid word; the operator's own file is right as it stands.
 */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { BUILD, IS_ASAN, ROOT } from '../harness/index.js';

/* the stock nginx, or the one that sanitizers need */
const NGINX = IS_ASAN && fs.existsSync(path.join(BUILD, 'nginx'))
  ? path.join(BUILD, 'nginx') : '/usr/sbin/nginx';
const LOAD = NGINX === '/usr/sbin/nginx'
  ? `load_module ${path.join(BUILD, 'ngx_http_stoa_module.so')};` : '';

let dir, settings;

before(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'stoa-conf-'));
  settings = path.join(dir, 'stoa.conf');
  fs.writeFileSync(settings, `JWT_SECRET=${'s'.repeat(40)}\n`, { mode: 0o600 });
  fs.mkdirSync(path.join(dir, 'log'));
});
after(() => fs.rmSync(dir, { recursive: true }));

function check(text) {
  const conf = path.join(dir, 'nginx.conf');

  fs.writeFileSync(conf, text);

  const { status, stderr } = spawnSync(NGINX,
    ['-t', '-p', dir, '-c', conf, '-e', path.join(dir, 'log/error.log')],
    /* nginx -t frees nothing before it ends */
    { encoding: 'utf8', env: { ...process.env, ASAN_OPTIONS: 'detect_leaks=0' },
    });

  return { ok: status === 0, said: stderr };
}

/* The line of the mistake is the one that has it. */
function trial({ http = '', server = '', location = '', base = true } = {}) {
  const text = `${LOAD}
pid ${dir}/nginx.pid;
error_log ${dir}/log/error.log;
events {}
http {
access_log off;
${base ? `stoa_settings ${settings}; stoa_zone main:8m;` : ''}
${http}
server {
listen unix:${dir}/sock;
${server}
location /a/ {
${location}
}
}
}
`;

  return { ...check(text), text };
}

const MISTAKES = [
  [{ http: 'stoa_pool fast=3 wirte=4;' },
    'invalid parameter "wirte=4", did you mean "write="?'],
  [{ http: 'stoa_pool fast=0;' },
    'invalid value "fast=0", 1 to 1024 is allowed'],
  [{ http: 'stoa_pool queue_timeout=2x;' },
    'invalid value "queue_timeout=2x", 1 to 60000 milliseconds is allowed'],
  [{ http: 'stoa_pool fast=1;\nstoa_pool fast=2;' }, '"stoa_pool" directive is duplicate'],
  [{ http: 'stoa_pool fast=6 fast=7;' }, 'duplicate parameter "fast=7"'],
  [{ http: 'stoa_pool_timeout fast=1s;\nstoa_pool_timeout fast=2s;' },
    '"stoa_pool_timeout" directive is duplicate'],
  [{ http: 'stoa_pool_timeout quick=3s;' }, 'invalid parameter "quick=3s"'],
  [{ http: 'stoa_hash threads=0;' },
    'invalid value "threads=0", 1 to 256 is allowed'],
  [{ http: 'stoa_hash queue=4097;' },
    'invalid value "queue=4097", 0 to 4096 is allowed'],
  [{ http: 'stoa_hash wait=0;' },
    'invalid value "wait=0", 1 to 60000 milliseconds is allowed'],
  [{ http: 'stoa_cache 1k;' },
    '"stoa_cache" directive must be "off" or a size of at least 64k'],
  [{ http: 'stoa_leeway 301s;' },
    '"stoa_leeway" directive must be at most 5m'],
  [{ http: 'stoa_leeway 3x;' }, '"stoa_leeway" directive invalid value'],
  [{ http: 'stoa_limit raed rate=1/s key=user;' },
    'limit "raed" is applied nowhere, did you mean class "read"?'],
  [{ http: 'stoa_limit read rate=1/s burts=1 key=user;' },
    'invalid parameter "burts=1", did you mean "burst="?'],
  [{ http: 'stoa_limit read rate=1/fortnight key=user;' },
    'invalid rate "rate=1/fortnight", it must be like 50/s, 600/m or 20/15m'],
  [{ http: 'stoa_limit read burst=1 key=user;' },
    '"stoa_limit" directive must have "rate" parameter'],
  [{ http: 'stoa_limit read rate=1/s;' },
    '"stoa_limit" directive must have "key" parameter'],
  [{ http: 'stoa_limit read rate=1/s key=usr;' },
    'invalid key "usr", did you mean "user"?'],
  [{ http: 'stoa_limit read rate=1/s key=user+route;' },
    'invalid key "key=user+route", of a class it must be "key=user" or "key=addr"'],
  [{ http: 'stoa_limit refresh rate=1/s key=user;' },
    'invalid key "key=user", of a class it must be "key=session" or "key=addr"'],
  [{ http: 'stoa_limit read rate=1/s key=session;' },
    'invalid key "key=session", of a class it must be "key=user" or "key=addr"'],
  [{ http: 'stoa_limit refresh rate=1/s;' },
    'must have "key" parameter, "key=session" or "key=addr"'],
  [{ http: 'stoa_limit refresh rate=1/s key=session scope=cluster;' },
    'class "refresh" has no "scope=cluster"'],
  [{ http: 'stoa_limit read rate=1/s key=user cost=2;' },
    'of a class has no "cost", rows name theirs'],
  [{ http: 'stoa_limit read rate=1/s key=user burst=0;' },
    'invalid burst "burst=0", 1 to 1000000 is allowed'],
  [{ http: 'stoa_limit Reports rate=1/s key=user;' },
    'invalid limit name "Reports", it must be like "reports"'],
  [{ http: `stoa_limit ${'x'.repeat(32)} rate=1/s key=user;` },
    'invalid limit name "xxx'],
  [{ http: 'stoa_limit off rate=1/s key=user;' }, 'invalid limit name "off"'],
  [{ http: 'stoa_limit reports key=user;' },
    '"stoa_limit" directive must have "rate" parameter'],
  [{ http: 'stoa_limit reports rate=1/s;' },
    'must have "key" parameter, like "key=addr"'],
  [{ http: 'stoa_limit reports rate=1/s key=user|;' }, 'invalid key ""'],
  [{ http: 'stoa_limit reports rate=1/s key=user+sesion;' },
    'invalid key "sesion", did you mean "session"?'],
  [{ http: 'stoa_limit reports rate=1/s key=user+user;' },
    '"stoa_limit" directive names a part of its key twice'],
  [{ http: 'stoa_limit reports rate=1/s key=user|addr|user|addr|user;' },
    '"stoa_limit" directive has a key of too many parts'],
  [{ http: 'stoa_limit reports rate=1/s key=user quota=10;' },
    'invalid quota "quota=10", it must be like 10000/d or 500/6h'],
  [{ http: 'stoa_limit reports rate=1/s key=user quota=10/500ms;' },
    'invalid quota "quota=10/500ms"'],
  [{ http: 'stoa_limit reports rate=1/s key=user quota=10/32d;' },
    'invalid quota "quota=10/32d"'],
  [{ http: 'stoa_limit reports rate=1/s key=user cost=0;' },
    'invalid cost "cost=0", it must be a number from 1 on or a variable'],
  [{ http: 'stoa_limit reports rate=9/s key=user burst=3 cost=4;' },
    '"cost=4" is more than the burst of 3'],
  [{ http: 'stoa_limit reports rate=1/s key=user on=failures;' },
    'invalid on "on=failures", it must be "failure" or statuses like 401,403 or 4xx'],
  [{ http: 'stoa_limit reports rate=1/s key=user on=401,;' },
    'invalid on "on=401,"'],
  [{ http: 'stoa_limit reports rate=1/s key=user on=399;' },
    'invalid on "on=399"'],
  [{ http: 'stoa_limit reports rate=1/s key=user scope=clustre;' },
    'invalid scope "clustre", did you mean "cluster"?'],
  [{ http: 'stoa_limit reports rate=1/s key=user scope=cluster timeout=6s;' },
    'invalid timeout "timeout=6s", 1ms to 5s is allowed'],
  [{ http: 'stoa_limit reports rate=1/s key=user timeout=9ms;' },
    'has "timeout" without "scope=cluster"'],
  [{ http: 'stoa_limit reports rate=1/s key=user log_level=wran;' },
    'invalid log_level "wran", did you mean "warn"?'],
  [{ http: 'stoa_limit reports rate=1/s key=user dry_run=1;' },
    'invalid parameter "dry_run=1"'],
  [{ http: 'stoa_limit reports rate=1/s key=user;\nstoa_limit reports off;' },
    'limit "reports" is set twice'],
  [{ http: 'stoa_limit login rate=5/15m scope=cluster;' },
    'class "login" has "rate", "dry_run" and "log_level" only'],
  [{ http: 'stoa_limit reports rate=1/s key=user;',
    location: 'stoa_auth required;\nstoa_limit_apply raports;' },
  'unknown limit "raports" in "stoa_limit_apply", did you mean "reports"?',
  'stoa_limit_apply raports;'],
  [{ location: 'stoa_limit_apply nothing-like-it;' },
    'unknown limit "nothing-like-it" in "stoa_limit_apply" in'],
  [{ location: 'stoa_limit_apply read write;' },
    '"stoa_limit_apply" directive names two classes'],
  [{ location: 'stoa_limit_apply read off;' },
    '"stoa_limit_apply" directive has "off" beside limits'],
  [{ http: 'stoa_limit reports rate=1/s key=addr;',
    location: 'stoa_limit_apply reports reports;' },
  'duplicate parameter "reports"', 'stoa_limit_apply reports reports;'],
  [{ location: 'stoa_limit_apply a b c d e f g h i;' },
    '"stoa_limit_apply" directive applies more than 8 limits'],
  [{ location: 'stoa_limit_apply read;\nstoa_limit_apply write;' },
    '"stoa_limit_apply" directive is duplicate'],
  [{ server: 'stoa_limit_headers darft;' },
    'invalid value "darft", did you mean "draft"?'],
  [{ http: 'stoa_limit read rate=1/s key=addr key=user;' },
    'duplicate parameter "key=user"'],
  [{ http: 'stoa_limit read rate=1/s key=user rate=2/s;' },
    'duplicate parameter "rate=2/s"'],
  [{ http: 'stoa_limit read rate=1/s key=user;\nstoa_limit read rate=2/s key=user;' },
    'class "read" with "key=user" is set twice'],
  [{ http: 'stoa_limit read rate=1/s key=addr;\nstoa_limit read off;' },
    'class "read" with "key=addr" is set twice'],
  [{ http: 'stoa_limit login rate=1/s;\nstoa_limit login off;' },
    'sets class "login" a second time'],
  [{ http: 'stoa_limit none rate=1/s key=user;' },
    'class "none" has no limit to set'],
  [{ http: 'stoa_limit login rate=1/s key=addr;' },
    'class "login" counts by account and address, it has no "key"'],
  [{ http: 'stoa_zone other:8m;' }, '"stoa_zone" directive is duplicate'],
  [{ http: 'stoa_zone main;', base: false },
    'invalid zone "main", it must be name:size'],
  [{ http: 'stoa_zone main:4k;', base: false }, 'zone "main" is too small'],
  [{ http: 'stoa_settings /no/such/file;', base: false },
    '"/no/such/file" cannot be read'],
  [{ http: 'stoa_settings /tmp;', base: false },
    '"/tmp" is a directory, "stoa_settings" names a file'],
  [{ location: 'stoa_auth requred;' },
    'invalid value "requred", did you mean "required"?'],
  [{ location: 'stoa_auth required rol=admin;' },
    'invalid parameter "rol=admin", did you mean "role="?'],
  [{ location: 'stoa_auth required role=admin,orgnizer;' },
    'invalid role "orgnizer", did you mean "organizer"?'],
  [{ location: 'stoa_auth required role=;' },
    'has an empty "role=", it must be like role=admin,organizer'],
  [{ location: 'stoa_auth off role=admin;' },
    '"stoa_auth" directive off has no "role"'],
  [{ location: 'stoa_auth required role=admin role=member;' },
    '"stoa_auth" directive has "role" twice'],
  [{ location: 'stoa_auth optional login=/account/;' },
    '"stoa_auth" directive has "login", which is for "required" only'],
  [{ location: 'stoa_auth required login=/a/ login=/b/;' },
    '"stoa_auth" directive has "login" twice'],
  ...['', 'account/', '//evil.example/', '/\\\\evil.example/',
    'https://evil.example/', '/a?b'].map((login) => [
    { location: `stoa_auth required login=${login};` },
    '"stoa_auth" directive has a "login" that is no path']),
  [{ location: 'stoa_identity usr=X-User;' },
    'invalid parameter "usr=X-User"'],
  [{ location: 'stoa_identity user=;' }, 'invalid parameter "user=", it needs the'],
  [{ location: 'stoa_identity user=X_User;' },
    'invalid parameter "user=X_User", a header\'s name has letters, digits'],
  [{ location: 'stoa_identity user=Cookie;' },
    'invalid parameter "user=Cookie", this header has a meaning of its own'],
  [{ location: 'stoa_identity user=X-A roles=x-a;' },
    'invalid parameter "roles=x-a", the header is named twice'],
  [{ location: 'stoa_identity token=on user=X-A;' },
    'invalid parameter "token=on", it can only be token=bearer'],
  [{ location: 'stoa_identity token=bearer token=bearer;' },
    '"stoa_identity" directive has "token" twice'],
  [{ location: 'stoa_presence yes;' },
    'invalid value "yes" in "stoa_presence" directive, it must be "on" or "off"'],
  [{ location: 'stoa_presence on;\nstoa_presence off;' },
    '"stoa_presence" directive is duplicate'],
  [{ base: false, location: 'stoa_presence on;' },
    'is required by "stoa_presence" of'],
  [{ location: 'stoa_identity user=X-A;\nstoa_identity off;' },
    '"stoa_identity" directive is duplicate'],
  [{ location: 'stoa_limit_apply wriet;' },
    'unknown limit "wriet" in "stoa_limit_apply", did you mean "write"?'],
  [{ server: 'stoa_envelope ful;' },
    'invalid value "ful", did you mean "full"?'],
  [{ server: 'stoa_if_match requred;' },
    'invalid value "requred", did you mean "required"?'],
  [{ server: 'stoa_json_case cammel;' },
    'invalid value "cammel", did you mean "camel"?'],
  [{ server: 'stoa_cors null;' },
    'invalid origin "null", it must be like https://app.example'],
  [{ server: 'stoa_cors max_age=1h;' }, '"stoa_cors" directive names no origin'],
  [{ server: 'stoa_cors private_network;' },
    '"stoa_cors" directive names no origin'],
  ...['', '2d', '1x', '-1'].map((age) => [
    { server: `stoa_cors https://a.b max_age=${age};` },
    `invalid value "max_age=${age}", 0 to 1d is allowed`]),
  [{ server: 'stoa_cors https://a.b max_age=1h max_age=2h;' },
    'duplicate parameter "max_age=2h"'],
  [{ server: 'stoa_cors https://a.b max-age=1h;' },
    'invalid origin "max-age=1h"'],
  [{ server: 'stoa_cors https://a.b *;' },
    '"stoa_cors" directive takes exact origins'],
  [{ server: 'stoa_cors *;' }, '"stoa_cors" directive takes exact origins'],
  [{ server: 'stoa_cors https://a.example/x;' },
    'invalid origin "https://a.example/x"'],
  [{ server: 'stoa_cors https://*.example;' },
    'invalid origin "https://*.example", it must be exact'],
  [{ server: 'stoa_cors https://A.B;' }, 'browsers send it in lower case'],
  [{ server: 'stoa_cors HTTPS://a.b;' }, 'invalid origin "HTTPS://a.b"'],
  [{ server: 'stoa_cors https://a.b:443;' },
    "browsers leave out the scheme's own port"],
  [{ server: 'stoa_cors http://a.b:80;' },
    "browsers leave out the scheme's own port"],
  [{ server: 'stoa_cors https://a.b:99999;' },
    'its port is not between 1 and 65535'],
  [{ server: 'stoa_cors https://a.b:0443;' },
    'its port is not between 1 and 65535'],
  [{ server: 'stoa_cors https://;' }, 'invalid origin "https://"'],
  [{ server: 'stoa_cors https://a.b https://c.d https://a.b;' },
    'invalid origin "https://a.b", it is there twice'],
  [{ server: 'stoa_errors maybe;' },
    'invalid value "maybe" in "stoa_errors" directive'],
  [{ server: 'stoa_api on;' }, '"stoa_api" directive is not allowed here'],
  /* what would be ignored in silence */
  [{ location: 'stoa_api on;\nstoa_auth required role=admin;' },
    '"stoa_auth" is not for the "stoa_api on" of'],
  [{ location: 'stoa_auth optional;\nlocation /a/b/ { stoa_api on; }\n' },
    '"stoa_auth" is not for the "stoa_api on" of', 'stoa_auth optional;'],
  [{ location: 'stoa_api on;\nstoa_limit_apply read;' },
    'a class in "stoa_limit_apply" is not for the "stoa_api on" of'],
  [{ location: 'stoa_metrics;\nstoa_api on;' },
    '"stoa_api" directive cannot answer here'],
  [{ location: 'stoa_api on;\nstoa_health;' },
    '"stoa_health" directive cannot answer here'],
  [{ location: 'proxy_pass http://127.0.0.1:9;\nstoa_metrics;' },
    '"stoa_metrics" directive cannot answer here'],
  [{ location: 'stoa_api on;\nproxy_pass http://127.0.0.1:9;' },
    '"stoa_api" directive cannot answer here', 'stoa_api on;'],
  [{ location: ' stoa_health;\nstoa_health;' },
    '"stoa_health" directive is duplicate'],
  [{ location: 'return 204;\nstoa_api on;' },
    '"stoa_api" is never reached, "return" answers before it'],
  [{ location: 'return 204;\nstoa_auth required;' },
    '"stoa_auth" is never reached, "return" answers before it'],
  [{ location: 'stoa_metrics now;' },
    'invalid number of arguments in "stoa_metrics" directive'],
];

test('a mistake has its sentence, file and line', () => {
  for (const [change, sentence, where] of MISTAKES) {
    const { ok, said, text } = trial(change);
    const wrong = where ?? (change.http ?? change.server ?? change.location)
      .split('\n').at(-1);
    const line = text.split('\n').indexOf(wrong) + 1;

    assert.ok(!ok, `accepted: ${wrong}`);
    assert.ok(said.includes(sentence), `${wrong} says: ${said}`);
    assert.ok(said.includes(`nginx.conf:${line}`), `${wrong}, ${line}: ${said}`);
  }
});

test('gates beside rows: what is right, what is only a warning', () => {
  const right = [
    /* of a server: for its other locations */
    { server: 'stoa_auth required role=admin;\nstoa_limit_apply read;',
      location: 'stoa_api on;' },
    { location: 'stoa_auth off;\nstoa_limit_apply off;\nstoa_api on;' },
    { location: `stoa_auth required;
      location /a/b/ { stoa_auth off; stoa_api on; }` },
    { location: 'if ($arg_a) { return 403; }\nstoa_api on;' },
    { location: 'if ($arg_a) { return 403; }\nstoa_auth required;' },
    { location: 'set $a 1;\nrewrite ^/b /c break;\nstoa_api on;' },
    { server: 'stoa_auth required;', location: 'return 204;' },
    { location: 'try_files $uri /x;\nlimit_except GET {\nstoa_api on;\n}' },
    { location: 'proxy_pass http://127.0.0.1:9;\nstoa_auth required;' },
    { server: `stoa_cors https://a.example https://[::1]:8443 app://localhost
        max_age=1d private_network;` },
    { server: 'stoa_cors https://a.example max_age=0;' },
    /* named before it is defined; policies beside rows' own classes */
    { server: 'stoa_limit_apply reports;', location: 'stoa_api on;',
      http: 'stoa_limit_apply reports;\nstoa_limit reports rate=1/s key=user;' },
    { http: `map $arg_x $cost { default 1; free 0; }
      stoa_limit reports rate=1/s key=user quota=10/31d cost=$cost
        on=401,4xx,503 scope=cluster timeout=5s log_level=error dry_run;`,
    location: 'stoa_auth optional; stoa_limit_apply read reports;' },
    { http: 'stoa_limit reports off;', location: 'stoa_limit_apply reports;' },
    { http: 'stoa_limit reports rate=1/s key=user|addr;',
      location: 'stoa_limit_apply reports;' },
  ];

  for (const change of right) {
    const { ok, said } = trial(change);

    assert.ok(ok, `${JSON.stringify(change)}: ${said}`);
    assert.doesNotMatch(said, /\[warn\]/);
  }
  for (const gate of ['stoa_limit_apply read;', 'stoa_auth optional;']) {
    const { ok, said } = trial({ location: `return 204;\n${gate}` });

    assert.ok(ok, said);
    assert.match(said, /\[warn\].*is never reached, "return" answers/);
  }
});

test('presence where nobody is verified is a warning', () => {
  const { ok, said } = trial({ location: 'stoa_presence on;' });

  assert.ok(ok, said);
  assert.match(said, /\[warn\].*"stoa_presence" marks nobody .*conf:\d+/);
  for (const right of [
    { location: 'stoa_presence on;\nstoa_auth optional;' },
    { location: 'stoa_presence on;\nstoa_api on;' },
    /* of a server: for its other locations */
    { server: 'stoa_presence on;' },
    { server: 'stoa_auth required;', location: 'stoa_presence on;' },
  ]) {
    const all = trial(right);

    assert.ok(all.ok, all.said);
    assert.doesNotMatch(all.said, /\[warn\]/);
  }
});

test('a limit that counts nothing is a warning', () => {
  const here = { http: 'stoa_limit reports rate=1/s key=user;' };
  const where = (said, text, wrong) => said.split('\n').some((s) =>
    s.includes('[warn]') && s.includes('limit "reports"') && s.endsWith(
      `nginx.conf:${text.split('\n').indexOf(wrong) + 1}`));
  let { ok, said, text } = trial(here);

  assert.ok(ok, said);
  assert.match(said, /limit "reports" is applied nowhere/);
  assert.ok(where(said, text, here.http), said);

  ({ ok, said, text } = trial({ ...here,
    location: 'stoa_limit_apply reports;' }));
  assert.ok(ok, said);
  assert.match(said, /limit "reports" with "key=user" never counts where "stoa_auth" is off/);
  assert.ok(where(said, text, 'stoa_limit_apply reports;'), said);
});

test('a cost that a client says is a warning', () => {
  for (const name of ['arg_pages', 'http_x_cost', 'cookie_cost', 'ARG_x']) {
    const http = `stoa_limit reports rate=1/s key=addr cost=$${name};`;
    const { ok, said, text } = trial({ http,
      location: 'stoa_limit_apply reports;' });

    assert.ok(ok, said);
    assert.match(said, new RegExp(`\\[warn\\].*"cost=\\$${name}" is whatever a client says.*nginx\\.conf:${
      text.split('\n').indexOf(http) + 1}`));
  }
});

test('more limits than there is room for', () => {
  const names = Array.from({ length: 49 },
    (_, i) => `q${'abcdefghij'[i / 10 | 0]}${'abcdefghij'[i % 10]}z`);
  const many = (n) => trial({
    http: names.slice(0, n).map((name) =>
      `stoa_limit ${name} rate=1/s key=addr;`).join('\n'),
    server: Array.from({ length: Math.ceil(n / 8) }, (_, i) =>
      `location /${i}/ {\nstoa_limit_apply ${
        names.slice(8 * i, Math.min(n, 8 * i + 8)).join(' ')};\n}`).join('\n'),
  });

  assert.ok(many(48).ok, many(48).said);
  assert.match(many(49).said, /there are 49 limits, 48 at most/);
});

test('rows need settings and a zone that is large enough', () => {
  const api = { location: 'stoa_api on;', base: false };
  const file = `stoa_settings ${settings};`;

  /* the line that needs them, not the one that closes http */
  assert.match(trial(api).said,
    /"stoa_settings" directive is required by "stoa_api" of .*nginx\.conf:13 /);
  assert.match(trial({ ...api, http: file }).said,
    /"stoa_zone" directive is required by "stoa_api" of .*nginx\.conf:13 /);
  assert.match(trial({ ...api, http: `${file} stoa_zone main:64k;` }).said,
    /zone "main" is too small, it needs \d+k/);
});

test('the settings file is read while nginx parses', () => {
  const bad = path.join(dir, 'bad.conf');
  const api = { http: `stoa_settings ${bad}; stoa_zone main:8m;`,
    location: 'stoa_api on;', base: false };
  const cases = [
    ['JWT_SECRETT=x', /bad\.conf:1: "JWT_SECRETT" .*"JWT_SECRET"/],
    ['JWT_SECRET=short', /JWT_SECRET is shorter than 32 bytes/],
    ['PUBLIC_URL=http://x', /JWT_SECRET is not set in ".*bad\.conf"/],
    [`JWT_SECRET=${'s'.repeat(40)}\nJWT_ALG=ES256`,
      /JWT_PRIVATE_KEY of ".*bad\.conf" is not usable/],
    [`JWT_SECRET=${'s'.repeat(40)}\nTICKET_SEED=12`, /TICKET_SEED must be 64/],
    ['ENVIRONMENT=production', /production needs JWT_SECRET and TICKET_SEED/],
  ];

  for (const [text, sentence] of cases) {
    fs.writeFileSync(bad, `${text}\n`, { mode: 0o600 });
    assert.match(trial(api).said, sentence);
  }
});

test('a settings file that everybody may read is a warning', () => {
  const open = path.join(dir, 'open.conf');
  const api = { http: `stoa_settings ${open}; stoa_zone main:8m;`,
    base: false };

  fs.writeFileSync(open, `JWT_SECRET=${'s'.repeat(40)}\n`);
  fs.chmodSync(open, 0o644);
  assert.match(trial(api).said, /\[warn\].*open\.conf" has secrets and is open to everybody in .*nginx\.conf:\d+/);
  fs.chmodSync(open, 0o640);
  assert.doesNotMatch(trial(api).said, /\[warn\]/);
});

test('a sign-in that gives browsers nothing to come back with is a warning',
  () => {
    const file = path.join(dir, 'cookies.conf');
    const gate = 'stoa_auth required login=/account/;';
    const said = (mode, location) => {
      fs.writeFileSync(file, `JWT_SECRET=${'s'.repeat(40)}\n${mode}`,
        { mode: 0o600 });

      const { ok, said: text } = trial({ base: false, location,
        http: `stoa_settings ${file}; stoa_zone main:8m;` });

      assert.ok(ok, text);
      return text;
    };

    for (const mode of ['', 'AUTH_COOKIE_MODE=refresh\n',
      'AUTH_COOKIE_MODE=off\n']) {
      assert.match(said(mode, gate),
        /\[warn\].*"login=" leads .* AUTH_COOKIE_MODE=both in .*conf:13$/m);
      assert.doesNotMatch(said(mode, 'stoa_auth required;'), /\[warn\]/);
    }
    assert.doesNotMatch(said('AUTH_COOKIE_MODE=both\n', gate), /\[warn\]/);
  });

test('metrics that everybody may read are a warning', () => {
  const sentence = '"stoa_metrics" shows metrics to everybody';
  const show = (change) => trial({ ...change,
    location: `${change.location ?? ''}\nstoa_metrics;` });

  for (const change of [{}, { location: 'access_log off;' },
    { location: 'stoa_auth optional;' }, { location: 'auth_basic off;' },
    { server: 'location /b/ {\ndeny all;\n}' }]) {
    const { ok, said, text } = show(change);
    const line = text.split('\n').indexOf('stoa_metrics;') + 1;

    assert.ok(ok, said);
    assert.ok(said.split('\n').some((s) => s.includes('[warn]')
      && s.includes(sentence) && s.endsWith(`nginx.conf:${line}`)), said);
  }
  for (const guard of ['allow 127.0.0.1;\ndeny all;', 'deny ::/0;',
    'deny unix:;', 'internal;', 'stoa_auth required role=admin;',
    'auth_basic metrics;', 'auth_request /b/;']) {
    const { ok, said } = show({ location: guard });

    assert.ok(ok, said);
    assert.doesNotMatch(said, /\[warn\]/, guard);
  }
  /* guards of the server hold in its locations, which may open again */
  assert.doesNotMatch(show({ server: 'auth_basic x;' }).said, /\[warn\]/);
  assert.match(show({ server: 'auth_basic x;', location: 'auth_basic off;' })
    .said, /\[warn\]/);
});

test('what is right is accepted, with the sum of connections', () => {
  const { ok, said } = trial({
    http: `stoa_pool fast=2 write=2 slow=1;
      stoa_limit read off; stoa_limit auth rate=5/s burst=9 key=addr dry_run;
      stoa_limit login rate=3/10m; stoa_hash threads=auto queue=9 wait=1s;`,
    server: 'stoa_cors https://a.example http://b.example:81; stoa_errors on;',
    location: 'stoa_api on; stoa_json_case snake; stoa_envelope bare;',
  });

  assert.ok(ok, said);
  assert.match(said, /stoa: 5 database connections \(fast 2, write 2, slow 1\) in 1 processes, 10 during a reload, and 4 of "stoa work": max_connections must hold 14/);
});

/* conf/nginx.conf with this machine's paths. */
function operators() {
  return fs.readFileSync(path.join(ROOT, 'conf/nginx.conf'), 'utf8')
    .replace('load_module modules/ngx_http_stoa_module.so;', LOAD)
    .replace('/etc/stoa/stoa.conf', settings)
    .replace('user www-data;', '')
    .replace('pid /run/nginx.pid', `pid ${dir}/nginx.pid`)
    .replaceAll('/var/log/nginx', path.join(dir, 'log'))
    .replace('/usr/share/stoa/www', path.join(ROOT, 'conf/www'))
    .replace('listen 80 backlog=4096', `listen unix:${dir}/sock`);
}

test('what conf/nginx.conf only shows is right, too', () => {
  const key = path.join(dir, 'key.pem');
  const cert = path.join(dir, 'cert.pem');
  const made = spawnSync('openssl', ['req', '-x509', '-newkey', 'ec',
    '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
    '-subj', '/CN=stoa', '-keyout', key, '-out', cert], { encoding: 'utf8' });

  assert.equal(made.status, 0, made.stderr);

  const text = operators()
    .replace('/etc/stoa/fullchain.pem', cert)
    .replace('/etc/stoa/privkey.pem', key)
    .replace(/#listen 443 /, `#listen unix:${dir}/tls `)
    .replace(/^ *#listen \[::\].*\n/gm, '')
    /* one of two choices, and the other line goes */
    .replace(/^( *)#(stoa_\w+) (.*;)\n *\2 .*;$/gm, '$1$2 $3')
    .replace(/^( *)#(?=[a-z}]| {4}[a-z]|$)/gm, '$1');
  const { ok, said } = check(text);

  assert.ok(ok, `${said}\n${text}`);
  for (const line of ['ssl_certificate ', 'real_ip_header', 'stoa_cors https',
    'stoa_if_match required', 'stoa_auth .*required', 'stoa_auth .*optional']) {
    assert.match(text, new RegExp(`^ *${line}`, 'm'));
  }

  /* a client's word never stands for ours at a backend */
  for (const [block] of text.matchAll(/location [^{]*\{[^}]*proxy_pass[^}]*\}/g)) {
    assert.match(block, /stoa_identity +user=X-User roles=X-Roles/);
  }
});

test('conf/nginx.conf and conf/stoa.conf are right as they stand', () => {
  const example = fs.readFileSync(path.join(ROOT, 'conf/stoa.conf'), 'utf8');
  const defs = fs.readFileSync(path.join(ROOT, 'shared/stoa_conf.def'), 'utf8');
  const keys = [...defs.matchAll(/STOA_CONF\(\w+,\s*"(\w+)"/g)]
    .map((match) => match[1]).filter((key) => !key.startsWith('STOA_TEST'));

  for (const key of keys) {
    assert.match(example, new RegExp(`^#${key}=`, 'm'), `conf/stoa.conf: ${key}`);
  }
  fs.writeFileSync(settings, `${example}\nJWT_SECRET=${'s'.repeat(40)}\n`);

  const text = operators();
  const { ok, said } = check(text);

  assert.ok(ok, said);
  assert.doesNotMatch(said, /shows metrics to everybody/);

  /* every directive of the module stands in it */
  const names = [...fs.readFileSync(
    path.join(ROOT, 'shared/stoa_directive.def'), 'utf8')
    .matchAll(/^STOA_DIRECTIVE\((\w+),/gm)].map((match) => match[1]);

  assert.ok(names.length > 15, `${names.length} directives`);
  for (const name of names) {
    assert.match(text, new RegExp(`^\\s*#?\\s*stoa_${name}[ ;]`, 'm'));
  }
});
