/*
 * Rows of accounts: what a token costs when it is verified each time, how
 * near sign-in comes to the bare hash, refresh to the bare statement, and
 * whether the time of a sign-in tells known addresses from unknown ones.
 */

import crypto from 'node:crypto';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { BUILD, ROOT, SECRETS, boot, run, sleep } from '../harness/index.js';
import { inTurns, median, ratio, wrk } from './measure.js';

const HERE = path.join(ROOT, 't/bench');
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 3);
const SECONDS = Number(process.env.BENCH_SECONDS ?? 4);
/* fifty times what the cache of verified tokens holds, in turns */
const TOKENS = 200000;
const PASSWORD = 'correct-horse-battery';

const url64 = (data) => Buffer.from(data).toString('base64url');

/* The bench's second key: verified beside the one that signs. */
export const es256 = crypto.generateKeyPairSync('ec',
  { namedCurve: 'P-256' });
export const verifyKeys = JSON.stringify({ keys: [{
  ...es256.publicKey.export({ format: 'jwk' }), kid: 'bench', alg: 'ES256',
  use: 'sig' }] });

function minted(token, alg) {
  const [head, claims] = token.split('.').slice(0, 2)
    .map((part) => JSON.parse(Buffer.from(part, 'base64url')));
  const sign = alg === 'HS256'
    ? (text) => crypto.createHmac('sha256', SECRETS.JWT_SECRET).update(text)
      .digest()
    : (text) => crypto.sign('sha256', text,
      { key: es256.privateKey, dsaEncoding: 'ieee-p1363' });
  const kid = alg === 'HS256' ? head.kid : 'bench';

  return Array.from({ length: TOKENS }, () => {
    const text = [{ ...head, alg, kid },
      { ...claims, jti: crypto.randomUUID() }]
      .map((part) => url64(JSON.stringify(part))).join('.');

    return `${text}.${sign(Buffer.from(text)).toString('base64url')}`;
  });
}

/* Every token is new to the cache; the baseline is sent the same. */
async function verifiedEach(b, name, alg) {
  const file = path.join(b.app.dir, `tokens.${name}`);

  fs.writeFileSync(file, `${minted(b.buyer.token, alg).join('\n')}\n`);
  const options = { script: path.join(HERE, 'tokens.lua'), args: [file] };
  const got = await b.overBase(name, '/api/v1/auth/check', options);

  return got;
}

const check = (b) => ({ path: '/api/v1/auth/check', token: b.buyer.token });

/* An edge of its own with the hash as people run it, on all cores. */
async function accounts(n, { hash = 'queue=64 wait=60s', ...change } = {}) {
  const app = await boot({
    workers: 0, nginxWorkers: 1, validate: false,
    cluster: { durable: true }, conf: { ARGON2_MEMORY_KIB: null,
      ARGON2_PASSES: null },
    nginx: { replace: [[/access_log [^;]*;/, 'access_log off;'],
      [/stoa_hash [^;]*;/, `stoa_hash threads=${os.cpus().length} ${hash};`]] },
    ...change,
  });
  const first = await app.user('member', { password: PASSWORD });
  const password = first.password;

  await app.sql(`create or replace function app.now()
    returns timestamptz language sql stable as 'select pg_catalog.now()'`);
  /* all have one password: hashing them is what is measured, later */
  const made = await app.sql(`insert into app.users
      (id, email, password_hash, first_name, last_name, created_at, updated_at)
    select gen_random_uuid(), 'bench-' || i || '@bench.example',
      u.password_hash, 'B', 'B', now(), now()
    from app.users u, generate_series(1, $2::int) i where u.id = $1
    returning id, email`, [first.id, n]);

  return { app, password, made };
}

/* Hashes per second that the cores give when nothing else is asked of them. */
async function bareHash(seconds) {
  const program = path.join(BUILD, 'bench-hash');

  execFileSync('cc', ['-O2', '-std=c11', '-D_GNU_SOURCE', '-I',
    path.join(ROOT, 'shared'), '-o', program, path.join(HERE, 'hash.c'),
    path.join(BUILD, 'libstoa.a'), '-lsodium', '-lcrypt', '-lpthread']);
  return Number(await run(program, [String(os.cpus().length),
    String(seconds)]));
}

/* Welch's t of two samples: how many standard errors their means differ. */
function welch(a, b) {
  const mean = (list) => list.reduce((x, y) => x + y, 0) / list.length;
  const spread = (list, m) => list.reduce((x, y) => x + (y - m) ** 2, 0)
    / (list.length - 1) / list.length;
  const [ma, mb] = [mean(a), mean(b)];

  return Math.abs(ma - mb) / Math.sqrt(spread(a, ma) + spread(b, mb));
}

/* The slowest tenth is the machine's, not the account's. */
const calm = (list) => [...list].sort((x, y) => x - y)
  .slice(0, Math.floor(list.length * 0.9));

export const ACCOUNT_ROWS = {
  verify: {
    title: 'GET /auth/check, HS256 verified each time, over return 200',
    must: 1.50, stretch: 1.30, spec: check,
    run: (b) => verifiedEach(b, 'verify', 'HS256'),
  },
  es256: {
    title: 'GET /auth/check, ES256 verified each time, over return 200',
    spec: check,
    run: (b) => verifiedEach(b, 'es256', 'ES256'),
  },
  login: {
    title: 'sign-ins per second over the bare hash on as many cores',
    must: 0.95, stretch: 0.98, higher: true,
    async run() {
      const { app, password, made } = await accounts(500);

      try {
        const file = path.join(app.dir, 'logins');

        fs.writeFileSync(file, `${made.map((u) =>
          `${u.email} ${password}`).join('\n')}\n`);
        const got = await inTurns(ROUNDS, {
          /* enough of them that a thread never waits for a commit; what is
             under way at the end is not counted: for long */
          hash: async () => ({ rps: await bareHash(5 * SECONDS) }),
          stoa: () => wrk(`${app.url}/api/v1/auth/login`, {
            seconds: 5 * SECONDS, connections: 8 * os.cpus().length,
            script: path.join(HERE, 'login.lua'), args: [file] }),
        });
        const errors = got.stoa.reduce((n, r) => n + r.errors, 0);

        if (errors) throw new Error(`${errors} sign-ins failed`);
        return { stoa: median(got.stoa.map((r) => r.rps)),
          peer: median(got.hash.map((r) => r.rps)), unit: 'per s',
          ratio: ratio(got.stoa, got.hash, 'rps') };
      } finally {
        app.failed = true;
        await app.stop();
      }
    },
  },
  refresh: {
    title: 'refreshes per second over pgbench, same function and connections',
    must: 0.8, stretch: 0.9, higher: true,
    async run(b) {
      const grants = async (n) => {
        const all = [];

        while (all.length < n) {
          all.push(...(await Promise.all(Array.from({ length: 16 }, () =>
            b.app.api('POST', '/api/v1/auth/login', { body: {
              email: b.buyer.email, password: b.buyer.password } }))))
            .map((res) => res.data));
        }
        return all;
      };
      const made = await grants(16);
      const file = path.join(b.app.dir, 'refresh.tokens');
      const script = path.join(b.app.dir, 'refresh.sql');
      const sid = (grant) => JSON.parse(Buffer.from(
        grant.accessToken.split('.')[1], 'base64url')).sid;
      const clients = 8; /* as "write" of the edge */

      await b.app.sql('drop table if exists public.bench_sessions');
      await b.app.sql(`create table public.bench_sessions as
        select (row_number() over () - 1)::int as n, id
        from unnest($1::uuid[]) id`,
      [made.slice(0, clients).map(sid)]);
      await b.app.sql(`grant usage on schema public to stoa_edge;
        grant select on public.bench_sessions to stoa_edge`);
      fs.writeFileSync(script, `\\if :begun = 0
select id as sid from public.bench_sessions where n = :client_id \\gset
\\set counter 0
\\set begun 1
\\endif
select a.* from api.auth_refresh(:ctx::api.ctx, :sid::uuid, :counter::bigint) a;
\\set counter :counter + 1
`);
      const got = await inTurns(ROUNDS, {
        bare: async () => {
          /* pgbench begins each run with counters of its own */
          await b.app.sql(`update app.login_sessions set counter = 0,
            rotated_at = created_at where id in
            (select id from public.bench_sessions)`);
          const text = await run('pgbench', ['-n', '-M', 'prepared', '-c',
            String(clients), '-j', '1', '-D', 'begun=0', '-D',
            'ctx=(,{},,,127.0.0.1,bench,en,,,,)', '-T', String(SECONDS),
            '-f', script, '-h', b.app.cluster.data, '-U', 'stoa_edge',
            b.app.id]);

          return { rps: Number(/tps = ([\d.]+)/.exec(text)[1]) };
        },
        stoa: async () => {
          /* of fresh sign-ins: the turn before has used its own up */
          fs.writeFileSync(file, `${(await grants(128))
            .map((g) => g.refreshToken).join('\n')}\n`);
          const res = await wrk(`${b.app.url}/api/v1/auth/refresh`, {
            seconds: SECONDS, script: path.join(HERE, 'refresh.lua'),
            args: [file] });

          if (res.errors) throw new Error(`${res.errors} refreshes failed`);
          return res;
        },
      });

      return { stoa: median(got.stoa.map((r) => r.rps)),
        peer: median(got.bare.map((r) => r.rps)), unit: 'per s',
        ratio: ratio(got.stoa, got.bare, 'rps') };
    },
  },
  overload: {
    title: 'sign-ins at ten times their capacity: p99 of accepted ones, in s',
    must: 1, stretch: 0.9,
    async run() {
      const { app, password, made } = await accounts(200,
        { hash: 'queue=64 wait=800ms' }); /* as shipped */
      app.agent.maxSockets = 2000; /* nobody waits here */
      const p99 = (list) => list.sort((x, y) => x - y)[
        Math.floor(list.length * 0.99)];
      const login = async (i) => {
        const from = performance.now();
        const res = await app.api('POST', '/api/v1/auth/login', { body: {
          email: made[i % made.length].email, password } });

        return { status: res.status, ms: performance.now() - from };
      };

      /* so many in a second for so long, whatever the answers; and one
         read every 10 ms, which is to notice nothing */
      const offer = async (rate, seconds) => {
        const all = [], reads = [];
        const from = performance.now();
        let sent = 0;

        for (let at = 0; at < seconds * 1000; at = performance.now() - from) {
          for (; sent < at * rate / 1000; sent++) all.push(login(sent));
          const asked = performance.now();

          await app.api('GET', '/api/v1/events');
          reads.push(performance.now() - asked);
          await sleep(10);
        }
        return { logins: await Promise.all(all), reads };
      };

      try {
        const file = path.join(app.dir, 'logins');

        fs.writeFileSync(file, `${made.map((u) =>
          `${u.email} ${password}`).join('\n')}\n`);
        /* of sign-ins when no more come than are let in */
        const { rps: capacity } = await wrk(`${app.url}/api/v1/auth/login`, {
          seconds: 2 * SECONDS, connections: 8 * os.cpus().length,
          script: path.join(HERE, 'login.lua'), args: [file] });
        const calm = await offer(0, SECONDS);
        const { logins, reads } = await offer(10 * capacity, 3 * SECONDS);
        const passed = logins.filter(({ status }) => status === 200);
        const odd = logins.filter(({ status }) => ![200, 503].includes(status));

        if (odd.length) throw new Error(`${odd.length}: ${odd[0].status}`);
        return { stoa: p99(passed.map(({ ms }) => ms)), peer: 1000,
          ratio: p99(passed.map(({ ms }) => ms)) / 1000, unit: 'ms',
          capacity, offered: logins.length / (3 * SECONDS),
          accepted: passed.length / (3 * SECONDS), readsCalm: p99(calm.reads),
          readsBusy: p99(reads) };
      } finally {
        app.failed = true;
        await app.stop();
      }
    },
  },
  known: {
    title: "Welch's t of sign-in times, known and unknown addresses (I-40)",
    must: 4.5, stretch: 3, slow: true,
    async run() {
      const n = Number(process.env.BENCH_SAMPLES ?? 1000);
      const { app, made } = await accounts(n);

      try {
        const times = { known: [], unknown: [] };
        const ask = async (email) => {
          const from = process.hrtime.bigint();
          const res = await app.api('POST', '/api/v1/auth/login',
            { body: { email, password: 'wrong-horse-battery' } });

          if (res.status !== 401) throw new Error(res.text);
          return Number(process.hrtime.bigint() - from) / 1e6;
        };

        for (let i = 0; i < n; i++) {
          const pair = [['known', made[i].email], ['unknown',
            `bench-${i}-x${crypto.randomBytes(2).toString('hex')}`
            + '@bench.example']];

          if (Math.random() < 0.5) pair.reverse();
          for (const [kind, email] of pair) times[kind].push(await ask(email));
        }
        const [known, unknown] = [calm(times.known), calm(times.unknown)];

        return { stoa: median(known), peer: median(unknown), unit: 'ms',
          ratio: welch(known, unknown) };
      } finally {
        app.failed = true;
        await app.stop();
      }
    },
  },
};
