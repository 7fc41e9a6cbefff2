/*
 * The operator's manual, from the rows: every directive, variable, setting,
 * metric and error is in it under its own name, in "stoa manual", on the
 * server and in README alike; what it gives as syntax, default and example is
 * what nginx takes and does; and nothing else is spoken of.
 */

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { BUILD, IS_ASAN, ROOT, boot, until } from '../harness/index.js';
import { mint } from './rows.js';

const NGINX = IS_ASAN && fs.existsSync(path.join(BUILD, 'nginx'))
  ? path.join(BUILD, 'nginx') : '/usr/sbin/nginx';
const LOAD = NGINX === '/usr/sbin/nginx'
  ? `load_module ${path.join(BUILD, 'ngx_http_stoa_module.so')};` : '';

const stoa = (...args) => execFileSync(path.join(BUILD, 'stoa'), args,
  { encoding: 'utf8', maxBuffer: 1 << 24 });
const read = (file) => fs.readFileSync(path.join(ROOT, file), 'utf8');

/* The first column of a table in the source, as it stands there. */
const column = (file, macro, name = /\s*(\w+)/) => [...read(file)
  .replace(/\/\*[\s\S]*?\*\//g, '')
  .matchAll(new RegExp(`^${macro}\\(${name.source}`, 'gm'))].map((m) => m[1]);

const manual = JSON.parse(stoa('manual', '--json'));
const names = (section) => manual[section].map((one) => one.name);

let app, dir;

before(async () => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'stoa-manual-'));
  fs.mkdirSync(path.join(dir, 'log'));
  fs.writeFileSync(path.join(dir, 'stoa.conf'),
    `JWT_SECRET=${'s'.repeat(40)}\n`, { mode: 0o600 });
  app = await boot({
    workers: 1,
    /* no limit is named: what counts is the default */
    nginx: { replace: [[/^ *stoa_(limit|pool|pool_timeout|hash|cache) .*;\n/gm,
      '']] },
  });
});
after(async () => {
  await app?.stop();
  fs.rmSync(dir, { recursive: true });
});

test('every row is in the manual, once, and nothing else', () => {
  const defs = {
    directives: column('shared/stoa_directive.def', 'STOA_DIRECTIVE')
      .map((name) => `stoa_${name}`),
    variables: column('shared/stoa_variable.def', 'STOA_VARIABLE',
      /\w+,\s*"(\w+)"/).map((name) => `$stoa_${name}`),
    settings: column('shared/stoa_conf.def', 'STOA_CONF', /\w+,\s*"(\w+)"/)
      .filter((name) => !name.startsWith('STOA_TEST_')),
    metrics: [
      ...column('shared/stoa_family.def', 'STOA_FAMILY', /\w+,\s*"(\w+)"/),
      ...column('shared/stoa_metric.def', 'STOA_METRIC', /(\w+, *\w+)/)
        .map((one) => one.split(/, */)).map(([name, type]) =>
          `stoa_${name}${type === 'COUNTER' ? '_total' : ''}`),
    ],
    errors: column('shared/stoa_err.def', 'STOA_ERR', /\w+,\s*\d+,\s*"(\w+)"/),
  };

  assert.deepEqual(Object.keys(manual), Object.keys(defs));
  for (const [section, wanted] of Object.entries(defs)) {
    assert.ok(wanted.length > 10, section);
    assert.deepEqual(names(section).sort(), wanted.sort(), section);
    assert.equal(new Set(names(section)).size, wanted.length, section);
  }
});

test('the text and the Markdown have every row and its text', () => {
  const flat = (text) => text.replace(/\s+/g, ' ');
  const text = flat(stoa('manual'));
  const markdown = flat(stoa('manual', '--markdown'));

  for (const one of Object.values(manual).flat()) {
    assert.ok(one.text.length > 8, one.name);
    assert.ok(text.includes(`${one.name} ${flat(one.text)}`), one.name);
    assert.ok(markdown.includes(`- \`${one.name}\``), one.name);
    assert.ok(markdown.includes(`: ${flat(one.text)}`), one.name);
    for (const [key, value] of Object.entries(one)) {
      assert.ok(text.includes(flat(value)), `${one.name} ${key}`);
    }
  }
});

test('one section alone, and two, in the order of the manual', () => {
  assert.deepEqual(JSON.parse(stoa('manual', 'variables', '--json')),
    { variables: manual.variables });
  assert.deepEqual(Object.keys(JSON.parse(stoa('manual', '--json', 'errors',
    'settings'))), ['settings', 'errors']);
  assert.match(stoa('manual', 'errors'), /^Errors\n\nVALIDATION_FAILED\n/);
});

test('the edge serves the manual of its own rows, with an ETag', async () => {
  const res = await app.api('GET', '/api/v1/manual.json');

  assert.equal(res.status, 200);
  assert.deepEqual(res.body, manual);
  assert.equal((await app.api('GET', '/api/v1/manual.json',
    { headers: { 'If-None-Match': res.headers.etag } })).status, 304);
});

test("README's reference is the rows'", () => {
  const text = read('README.md');
  const begin = '<!-- manual -->\n';
  const from = text.indexOf(begin) + begin.length;
  const to = text.indexOf('<!-- /manual -->');

  assert.ok(from >= begin.length && to > from, 'README has its reference');
  assert.equal(text.slice(from, to).trim(),
    stoa('manual', '--markdown', 'directives', 'variables', 'settings').trim(),
    'stoa manual --markdown directives variables settings, between the marks');
});

/* What else is called so: roles of PostgreSQL, keys, cookies, tools. */
const OTHERS = /^stoa_(owner|edge|worker|sk_|refresh$|access$|api_|tasks$)/;

test('README and nginx.conf speak of nothing that is not there', () => {
  const known = new Set([...names('directives'), ...names('metrics'),
    ...names('variables').map((name) => name.slice(1))]);
  const prose = read('README.md').split('<!-- manual -->')[0];

  for (const [word] of [prose, read('conf/nginx.conf')].join('\n')
    .matchAll(/(?<![\w/.])stoa_[a-z_]+\b(?!\.[a-z])/g)) {
    assert.ok(known.has(word) || OTHERS.test(word), word);
  }
  /* settings, where README shows one with a value or its file */
  const others = ['KEY', ...[...read('Makefile').matchAll(/^([A-Z]+) \?=/gm)]
    .map((m) => m[1])];

  for (const [, word] of prose.matchAll(/`([A-Z][A-Z0-9_]{3,})=[^`]*`/g)) {
    assert.ok(names('settings').includes(word.replace(/_FILE$/, ''))
      || others.includes(word), word);
  }
});

/* Directives of a text, each as one line of single blanks. */
const lines = (text) => text.replace(/^\s*#(?!\s*stoa_\w+ .*;$).*$/gm, '')
  .replace(/^\s*#/gm, '').split(/[;{}]/)
  .map((one) => `${one.trim().replace(/\s+/g, ' ')};`)
  .filter((one) => one.startsWith('stoa_'));

test('the shipped nginx.conf shows each directive, with its default', () => {
  const shown = lines(read('conf/nginx.conf'));

  for (const one of manual.directives) {
    assert.ok(shown.some((line) => line.split(/[ ;]/)[0] === one.name),
      one.name);
    /* these stand there as they are recommended */
    if (['stoa_auth', 'stoa_limit_apply', 'stoa_api', 'stoa_errors',
      'stoa_security_headers'].includes(one.name)
      || one.default === 'none') continue;
    for (const line of one.default.split('\n')) {
      assert.ok(shown.includes(line), `${line} in ${shown.join('\n')}`);
    }
  }
  for (const line of shown) {
    assert.ok(names('directives').includes(line.split(/[ ;]/)[0]), line);
  }
});

test('the shipped stoa.conf shows each setting with its default', () => {
  const shown = read('conf/stoa.conf').split('\n');

  for (const one of manual.settings) {
    const line = `${one.name}=${one.default === 'empty' ? '' : one.default}`;

    assert.ok(shown.includes(`#${line}`) || shown.includes(line), line);
  }
});

function check({ http = '', location = '' }) {
  const conf = path.join(dir, 'nginx.conf');

  fs.writeFileSync(conf, `${LOAD}
pid ${dir}/nginx.pid;
error_log ${dir}/log/error.log;
events {}
http {
access_log off;
${/stoa_settings/.test(http) ? '' : `stoa_settings ${dir}/stoa.conf;`}
${/stoa_zone/.test(http) ? '' : 'stoa_zone main:8m;'}
${http}
server {
listen unix:${dir}/sock;
${location}
}
}
`);
  return spawnSync(NGINX,
    ['-t', '-p', dir, '-c', conf, '-e', path.join(dir, 'log/error.log')],
    { encoding: 'utf8', env: { ...process.env, ASAN_OPTIONS: 'detect_leaks=0' },
    });
}

/* What an example applies must be there. */
const POLICIES = 'stoa_limit reports rate=1/s key=user;' +
  'stoa_limit guesses rate=1/s key=user;';

for (const one of manual.directives) {
  test(`${one.name}: nginx takes default and example where it says`, () => {
    const texts = [one.example.replace('/etc/stoa/', `${dir}/`),
      ...(one.default === 'none' ? [] : [one.default])];

    for (const text of texts) {
      for (const where of one.context.split(', ')) {
        const whole = text.startsWith('location');
        const conf = whole || where === 'http' ? text
          : where === 'limit_except'
            ? `location /x/ { limit_except GET { ${text} } }`
            : where === 'location' ? `location /x/ { ${text} }` : text;
        const more = one.name === 'stoa_limit_apply' ? POLICIES : '';
        const { status, stderr } = check(whole || where !== 'http'
          ? { http: more, location: conf } : { http: more + conf });

        assert.equal(status, 0, `${where}: ${text}: ${stderr}`);
      }
    }
  });

  test(`${one.name}: nginx refuses it elsewhere`, () => {
    const text = one.default !== 'none' ? one.default.split('\n')[0]
      : one.syntax.split('\n')[0].replace('file', `${dir}/stoa.conf`)
        .replace('name:size', 'main:8m');
    const told = '" directive is not allowed here';

    if (!one.context.includes('http')) {
      assert.ok(check({ http: text }).stderr.includes(one.name + told), text);
    }
    if (!one.context.includes('location')) {
      assert.ok(check({ location: `location /x/ { ${text} }` }).stderr
        .includes(one.name + told), text);
    }
  });
}

test('one word: the first of the syntax is the default', () => {
  for (const one of manual.directives) {
    const forms = one.syntax.split('\n');

    if (forms.every((form) => /^stoa_\w+ [a-z]+;$/.test(form))
      && forms.length > 1 && !/^stoa_(cache|api|err|sec|pres)/.test(one.name)) {
      assert.equal(one.default, forms[0], one.name);
    }
  }
});

test('every variable is one of nginx', () => {
  const used = (list) => check({ http: `log_format all '${list.join(' ')}';` +
    `access_log ${dir}/log/access.log all;` });

  assert.equal(used(names('variables')).status, 0);
  assert.match(used(['$stoa_no_such_thing']).stderr,
    /unknown "stoa_no_such_thing" variable/);
});

test('without a directive the defaults are those of the manual', async () => {
  const limits = manual.directives.find((one) => one.name === 'stoa_limit')
    .default.split('\n').map((line) => /^stoa_limit (\w+) rate=(\d+)\/(\d*)(m)(?: burst=(\d+) key=(\w+))?;$/
      .exec(line));
  const token = mint(app);
  const asked = {
    'auth addr': ['POST', '/api/v1/auth/login'],
    'refresh addr': ['POST', '/api/v1/auth/refresh', undefined,
      { refreshToken: 'x' }],
    'refresh session': ['POST', '/api/v1/auth/refresh', undefined,
      { refreshToken: (await app.user()).refreshToken }],
    'read addr': ['GET', '/api/v1/events'],
    'write addr': ['POST', '/api/v1/events'],
    'read user': ['GET', '/api/v1/events', token],
    'write user': ['POST', '/api/v1/events', token],
    'scan user': ['POST', '/api/v1/orders/validate', token],
  };
  const seen = [];

  for (const [, cls, rate, period, , burst, key] of limits) {
    if (cls === 'login') continue;

    const [method, where, bearer, body] = asked[`${cls} ${key}`];
    const { headers } = await app.api(method, where,
      { token: bearer, body: method === 'POST' ? body ?? {} : undefined,
        validate: false });

    /* q: the burst; w: in how many seconds it grows back */
    assert.equal(headers['ratelimit-policy']?.split(',')[0],
      `"${cls}";q=${burst};w=${60 * (period || 1) * burst / rate}`,
      `${cls} ${key}`);
    seen.push(`${cls} ${key}`);
  }
  assert.deepEqual(seen.sort(), Object.keys(asked).sort());

  const pool = manual.directives.find((one) => one.name === 'stoa_pool')
    .default;
  const text = (await app.api('GET', '/metrics')).text;

  for (const name of ['fast', 'write', 'slow']) {
    const sum = [...text.matchAll(new RegExp(
      `^stoa_pg_connections\\{pool="${name}",process="\\d+"\\} (\\d+)$`, 'gm'))]
      .reduce((n, m) => n + Number(m[1]), 0);

    assert.equal(sum, Number(new RegExp(`${name}=(\\d+)`).exec(pool)[1]),
      name);
  }
});

test('every metric that is shown is in the manual, and the other way',
  async () => {
    /* those of other issuers need one */
    const wanted = names('metrics').filter((n) => !n.startsWith('stoa_issuer'));
    let types;

    await app.api('POST', '/api/v1/auth/forgot', {
      body: { email: 'nobody@x.example' } });
    await app.user();
    await until(async () => {
      const { text } = await app.api('GET', '/metrics');

      types = new Map([...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)]
        .map((m) => [m[1], m[2]]));
      return types.has('stoa_task_runs_total') && types.has('stoa_outbox_rows')
        && types.has('stoa_task_done_total');
    }, { timeout: 20000, what: 'the metrics of the workers' });

    for (const [name, type] of types) {
      const one = manual.metrics.find((row) => row.name === name);

      assert.ok(one, name);
      assert.equal(one.type, type, name);
    }
    /* what workers count from the first time on */
    const later = /^stoa_task_(retried|dead|lost_leases|relayed)_total$/;

    for (const name of wanted.filter((n) => !later.test(n))) {
      assert.ok(types.has(name), name);
    }
  });
