/*
 * make run, the way people start it, on the release build: what it prints,
 * that it leaves nothing running, that a second start makes nothing again,
 * and the sentence for each thing that can stand in its way.
 */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { after, test } from 'node:test';
import {
  ROOT, cleanEnv, givePort, run, takePort, tempDir, until,
} from '../harness/proc.js';

const top = tempDir('stoa-smoke-');
const state = path.join(top, 'state');
const port = await takePort();
const base = `http://127.0.0.1:${port}`;
const first = {};

after(() => {
  givePort(port);
  for (const pid of processesOf(top)) process.kill(pid, 'SIGKILL');
  fs.rmSync(top, { recursive: true, force: true });
});

/* Pids whose arguments, folder or listening sockets speak of this place. */
function processesOf(place) {
  return fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name))
    .filter((pid) => Number(pid) !== process.pid)
    .filter((pid) => {
      try {
        return fs.readFileSync(`/proc/${pid}/cmdline`, 'latin1')
          .includes(place)
          || fs.readFileSync(`/proc/${pid}/environ`, 'latin1').includes(place)
          || fs.readlinkSync(`/proc/${pid}/cwd`).startsWith(place);
      } catch {
        return false; /* gone, or not ours */
      }
    }).map(Number);
}

class MakeRun {
  constructor(args, env = {}) {
    this.output = '';
    this.child = spawn('make', ['run', ...args],
      { cwd: ROOT, env: { ...cleanEnv(), ...env }, detached: true });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.on('data', (text) => { this.output += text; });
    }
    this.ended = new Promise((done) => {
      this.child.on('close', (code, signal) => {
        this.code = code ?? signal;
        this.over = true;
        done(this);
      });
    });
  }

  async ready() {
    await until(() => this.over || /^ready http/m.test(this.output),
      { timeout: 180000, every: 100, what: 'make run to say ready' })
      .catch((error) => {
        throw new Error(`${error.message}\n${this.output}`);
      });
    if (this.over) throw new Error(`make run ended\n${this.output}`);
    return this;
  }

  /* As the terminal does it: to the whole foreground group. */
  async interrupt(signal = 'SIGINT') {
    process.kill(-this.child.pid, signal);
    await this.ended;
  }
}

function ask(method, where, { token, body } = {}) {
  return new Promise((done, failed) => {
    const req = http.request(base + where, {
      method, agent: false,
      headers: {
        ...(body && { 'Content-Type': 'application/json' }),
        ...(token && { Authorization: `Bearer ${token}` }),
      },
    }, (res) => {
      let text = '';

      res.on('data', (chunk) => { text += chunk; });
      res.on('end', () => done({
        status: res.statusCode, text,
        body: /json/.test(res.headers['content-type'] ?? '')
          ? JSON.parse(text) : undefined,
      }));
    });

    req.on('error', failed);
    req.end(body && JSON.stringify(body));
  });
}

const login = (who) => ask('POST', '/api/v1/auth/login', {
  body: {
    email: `${who}@stoa.example`, password: `${who}-demo-password`,
  },
});

const identity = () => fs.readFileSync(path.join(state, 'pg/PG_VERSION'))
  && fs.statSync(path.join(state, 'pg/PG_VERSION')).ino;

const listens = () => new Promise((done) => {
  const socket = net.connect(port, '127.0.0.1', () => {
    socket.destroy();
    done(true);
  });

  socket.on('error', () => done(false));
});

test('the first make run says ready and what to try', async () => {
  const made = await new MakeRun([`PORT=${port}`, `STATE=${state}`]).ready();

  first.run = made;
  assert.match(made.output, new RegExp(`^ready ${base}$`, 'm'));
  for (const who of ['admin', 'organizer', 'attendee', 'scanner']) {
    assert.match(made.output,
      new RegExp(`${who}@stoa\\.example +${who}-demo-password`));
  }
  assert.match(made.output, /making a private PostgreSQL/);
  assert.match(made.output, /loading demo data/);
  assert.equal(fs.statSync(path.join(state, 'stoa.conf')).mode & 0o777, 0o600);
});

test('the demo accounts sign in, and there are three events', async () => {
  for (const who of ['admin', 'organizer', 'attendee', 'scanner']) {
    const res = await login(who);

    assert.equal(res.status, 200, `${who}: ${res.text}`);
  }
  const { body } = await ask('GET', '/api/v1/events');

  assert.ok(body.data.length >= 3, JSON.stringify(body.data));
  first.events = body.data.map((e) => e.id).sort();
});

test('pages are served', async () => {
  for (const page of ['/events/', '/account/', '/mail/', '/docs/']) {
    assert.equal((await ask('GET', page)).status, 200, page);
  }
});

test('no address of the outside is listened on', async () => {
  const sockets = await run('ss', ['-Htlnp']).catch(() => '');
  const ours = new Set(processesOf(state).map(String));

  for (const line of sockets.split('\n')) {
    const pid = /pid=(\d+)/.exec(line)?.[1];

    if (ours.has(pid)) assert.match(line, /127\.0\.0\.1:/);
  }
});

test('a second make run on the same folder is told so', async () => {
  const other = await takePort();
  const again = await new MakeRun([`PORT=${other}`, `STATE=${state}`]).ended;

  givePort(other);
  assert.notEqual(again.code, 0);
  assert.match(again.output, /another make run uses/);
});

test('a busy port is told so, and nothing is made', async () => {
  const there = path.join(top, 'busy');
  const busy = await new MakeRun([`PORT=${port}`, `STATE=${there}`]).ended;

  assert.notEqual(busy.code, 0);
  assert.match(busy.output, new RegExp(`port ${port} .* is taken`));
  assert.equal(fs.existsSync(there), false);
});

test('Ctrl-C stops all of it', async () => {
  await first.run.interrupt();
  assert.deepEqual(processesOf(state), []);
  assert.equal(await listens(), false);
});

test('the second make run makes nothing again and keeps the data', async () => {
  const before = identity();
  const conf = fs.readFileSync(path.join(state, 'stoa.conf'), 'utf8');
  const second = await new MakeRun([`PORT=${port}`, `STATE=${state}`]).ready();

  assert.doesNotMatch(second.output, /installing|making|loading|  cc  |link/);
  assert.equal(identity(), before);
  assert.equal(fs.readFileSync(path.join(state, 'stoa.conf'), 'utf8'), conf);

  const { body } = await ask('GET', '/api/v1/events');

  assert.deepEqual(body.data.map((e) => e.id).sort(), first.events);
  await second.interrupt('SIGTERM');
  assert.deepEqual(processesOf(state), []);
});

test("the machine's own PostgreSQL and Redis are not spoken to", async () => {
  const env = {
    PGHOST: '192.0.2.1', DB_HOST: '192.0.2.1', REDIS_HOST: '192.0.2.1',
    PGDATABASE: 'other', REDIS_PORT: '1', JWT_SECRET: 'short',
  };
  const third = await new MakeRun([`PORT=${port}`, `STATE=${state}`], env)
    .ready();

  assert.equal((await login('attendee')).status, 200);
  await third.interrupt();
});

let real;

test('PROFILE=production has the real limits', async () => {
  real = await new MakeRun(
    [`PORT=${port}`, `STATE=${state}`, 'PROFILE=production']).ready();
  let refused;

  for (let i = 0; i < 120 && !refused; i++) {
    const res = await ask('GET', '/api/v1/events');

    if (res.status === 429) refused = res;
  }
  await real.interrupt();
  assert.ok(refused, 'none of 120 requests of one address was refused');
});

test('PROFILE=production says what is not production about it', () => {
  assert.match(real.output, /says\nENVIRONMENT=development: demo accounts/);
  assert.match(real.output, new RegExp(`mails: ${state}/mail/`));
  assert.doesNotMatch(real.output, new RegExp(`${base}/mail/`));
});

test('a half-made folder is told so', async () => {
  const half = path.join(top, 'half');

  fs.mkdirSync(path.join(half, 'run'), { recursive: true });
  fs.writeFileSync(path.join(half, '.stoa'), '');
  fs.writeFileSync(path.join(half, 'run', 'making'), '');

  const res = await new MakeRun([`PORT=${port}`, `STATE=${half}`]).ended;

  assert.notEqual(res.code, 0);
  assert.match(res.output, /is half-made/);
  assert.deepEqual(processesOf(half), []);
});

test("a folder with somebody's files is left alone", async () => {
  const own = path.join(top, 'own');

  fs.mkdirSync(own);
  fs.writeFileSync(path.join(own, 'thesis.txt'), 'x');

  const res = await new MakeRun([`PORT=${port}`, `STATE=${own}`]).ended;

  assert.notEqual(res.code, 0);
  assert.match(res.output, /files that are not Stoa's/);
  assert.deepEqual(fs.readdirSync(own), ['thesis.txt']);
});

test('a folder that cannot be made is told so', async () => {
  const res = await new MakeRun(
    [`PORT=${port}`, 'STATE=/proc/stoa-cannot-be']).ended;

  assert.notEqual(res.code, 0);
  assert.match(res.output, /cannot make the folder/);
});

test('arguments that cannot be are told so, and nothing is made', async () => {
  const cases = [
    [`PORT=99999999999999999999`, /PORT=9+ is not between 1 and 65535/],
    ['PORT=65536', /PORT=65536 is not between/],
    ['PORT=08080', /PORT=08080 is not between/],
    ['PORT=-1', /PORT=-1 is not a number/],
    ['PORT=', /PORT= is not a number/],
    ...["a'b", 'a&b', 'a|b', 'a b', 'a;b', 'a"b', 'a#b', 'a,b'].map((name) =>
      [`STATE=${top}/${name}`, /has characters that nginx or PostgreSQL/]),
    ['PROFILE=staging', /PROFILE=staging is neither/],
  ];

  for (const [word, sentence] of cases) {
    const args = [`PORT=${port}`, `STATE=${top}/never`]
      .map((arg) => (arg.split('=')[0] === word.split('=')[0] ? word : arg));

    if (word.startsWith('PROFILE')) args.push(word);
    const res = await new MakeRun(args).ended;

    assert.notEqual(res.code, 0);
    assert.match(res.output, sentence);
    assert.equal(res.output.split('\n').filter((line) =>
      line && !line.startsWith('make')).length, 1, res.output);
    assert.ok(!fs.existsSync(`${top}/never`));
    assert.deepEqual(fs.readdirSync(top).filter((f) => /^a.?b?$/.test(f)), []);
  }
});

test('of two that start on one port at once, one is told so', async () => {
  const states = ['one', 'two'].map((name) => path.join(top, name));
  const both = states.map((dir) =>
    new MakeRun([`PORT=${port}`, `STATE=${dir}`]));
  const loser = await Promise.race(both.map((made) => made.ended));
  const winner = both.find((made) => made !== loser);
  const left = states[both.indexOf(loser)];

  assert.notEqual(loser.code, 0);
  assert.match(loser.output, new RegExp(`port ${port} .* is taken`));
  assert.ok(!fs.existsSync(left));
  await winner.ready();
  assert.equal((await login('attendee')).status, 200);
  await winner.interrupt();
  for (const dir of states) assert.deepEqual(processesOf(dir), []);
});

test('an edge that is not its own is not taken for one', async () => {
  /* a port that somebody takes after make run has found it free */
  const dir = path.join(top, 'one');
  const made = new MakeRun([`PORT=${port}`, `STATE=${dir}`]);
  const thief = http.createServer((req, res) => res.end('ready'));

  await until(() => made.over || fs.existsSync(path.join(dir, 'run/redis.sock'))
    , { timeout: 60000, what: 'redis' });
  await new Promise((done) => { thief.listen(port, '127.0.0.1', done); });
  await made.ended;
  await new Promise((done) => { thief.close(done); });
  assert.notEqual(made.code, 0);
  assert.match(made.output, new RegExp(`port ${port} .* is taken`));
  assert.deepEqual(processesOf(dir), []);
});

test('what outlived a killed make run is named, not doubled', async () => {
  const made = await new MakeRun([`PORT=${port}`, `STATE=${state}`]).ready();
  const script = processesOf(state).find((pid) =>
    fs.readFileSync(`/proc/${pid}/cmdline`, 'latin1')
      .includes('/conf/dev/run.sh\0'));

  process.kill(script, 'SIGKILL');
  await made.ended;

  const left = processesOf(state);
  const again = await new MakeRun([`PORT=${port}`, `STATE=${state}`]).ended;

  assert.ok(left.length > 3);
  assert.notEqual(again.code, 0);
  for (const name of ['postgres', 'redis', 'workers', 'edge']) {
    assert.match(again.output, new RegExp(
      `is still used by pid .*\\d+ \\(${name}\\).* of a make run that was killed`));
  }
  assert.deepEqual(processesOf(state), left);

  /* what it says to do is enough, and the data is there again */
  const pids = /stop it with: kill ([\d ]+)/.exec(again.output)[1].split(' ');

  for (const pid of pids) process.kill(Number(pid), 'SIGTERM');
  await until(() => processesOf(state).length === 0,
    { timeout: 30000, what: 'the survivors to end' });

  const after = await new MakeRun([`PORT=${port}`, `STATE=${state}`]).ready();

  assert.equal((await login('attendee')).status, 200);
  await after.interrupt();
});
