/*
 * How the bench measures: wrk for load (64 connections, one thread), CPU of
 * processes from /proc/PID/task/TID/schedstat (nanoseconds on a CPU), always
 * base and subject in turns on the same machine, medians of the rounds.
 */

import { execFile, spawn } from 'node:child_process';
import fs from 'node:fs';
import { promisify } from 'node:util';

const execFileP = promisify(execFile);

export const CONNECTIONS = 64;

/* Nanoseconds of CPU used so far by these processes, all threads. */
export function cpuOf(pids) {
  let sum = 0;

  for (const pid of pids) {
    let tasks = [];

    try {
      tasks = fs.readdirSync(`/proc/${pid}/task`);
    } catch { /* ended meanwhile */ }
    for (const tid of tasks) {
      try {
        sum += Number(fs.readFileSync(`/proc/${pid}/task/${tid}/schedstat`,
          'utf8').split(' ')[0]);
      } catch { /* ended meanwhile */ }
    }
  }
  return sum;
}

/*
 * Nanoseconds used by a server that forks, by what still runs and by the
 * children that ended (/proc/PID/stat counts those in ticks of 10 ms).
 */
export function cpuOfServer(pid) {
  const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');

  return cpuOf(familyOf(pid)) + (Number(fields[13]) + Number(fields[14])) * 1e7;
}

/* A process and all below it. */
export function familyOf(pid) {
  const found = [pid];

  for (let i = 0; i < found.length; i++) {
    try {
      const text = fs.readFileSync(
        `/proc/${found[i]}/task/${found[i]}/children`, 'utf8');

      found.push(...text.trim().split(/\s+/).filter(Boolean).map(Number));
    } catch { /* ended */ }
  }
  return found;
}

export function rssKiB(pid) {
  const text = fs.readFileSync(`/proc/${pid}/status`, 'utf8');

  return Number(/VmRSS:\s+(\d+)/.exec(text)[1]);
}

function milliseconds(text) {
  const [, n, unit] = /([\d.]+)(us|ms|s)/.exec(text);

  return Number(n) * { us: 0.001, ms: 1, s: 1000 }[unit];
}

/*
 * One run of wrk.  Answers {n, rps, p50, p99, errors, seconds}; errors counts
 * other statuses than 2xx and 3xx, and broken connections.
 */
export async function wrk(url, { seconds = 5, script, args = [], headers = {},
  connections = CONNECTIONS } = {}) {
  const argv = ['-t1', `-c${connections}`, `-d${seconds}s`, '--latency'];

  for (const [name, value] of Object.entries(headers)) {
    argv.push('-H', `${name}: ${value}`);
  }
  if (script) argv.push('-s', script);
  argv.push(url, '--', ...args);

  const { stdout } = await execFileP('wrk', argv, { maxBuffer: 1 << 20 });

  if (!/50%\s+[\d.]+[mu]?s/.test(stdout)) {
    throw new Error(`wrk says:\n${stdout}`);
  }
  const number = (re) => Number((re.exec(stdout) ?? [0, 0])[1]);
  const sockets = /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/
    .exec(stdout) ?? [0, 0, 0, 0, 0];

  return {
    n: number(/(\d+) requests in/),
    rps: number(/Requests\/sec:\s+([\d.]+)/),
    p50: milliseconds(/^ +50%\s+(\S+)/m.exec(stdout)[1]),
    p99: milliseconds(/^ +99%\s+(\S+)/m.exec(stdout)[1]),
    errors: number(/Non-2xx or 3xx responses: (\d+)/)
      + sockets.slice(1).reduce((a, b) => a + Number(b), 0),
    text: stdout,
  };
}

/* Sends each line of the file (list.lua), as fast as it is answered. */
export async function drain(url, script, file, token) {
  const marker = `${file}.done`;

  fs.rmSync(marker, { force: true });
  const child = spawn('wrk', ['-t1', `-c${CONNECTIONS}`, '-d600s', '-s', script,
    url, '--', file, token, marker, CONNECTIONS], { stdio: 'ignore' });
  const ended = new Promise((done) => { child.on('exit', done); });

  while (!fs.existsSync(marker)) {
    if (child.exitCode !== null) throw new Error('wrk ended early');
    await new Promise((done) => { setTimeout(done, 20); });
  }
  child.kill('SIGKILL');
  await ended;
}

/* A run with the CPU that these processes used for it, per request. */
export async function measured(pids, load) {
  const before = cpuOf(pids());
  const got = await load();
  const used = cpuOf(pids()) - before;

  return { ...got, cpuUs: used / 1000 / Math.max(1, got.n) };
}

export function median(list) {
  const sorted = [...list].sort((a, b) => a - b);
  const half = Math.floor(sorted.length / 2);

  return sorted.length % 2 ? sorted[half]
    : (sorted[half - 1] + sorted[half]) / 2;
}

/* Alternates the named loads; answers {name: [result, ...]}. */
export async function inTurns(rounds, loads) {
  const got = Object.fromEntries(Object.keys(loads).map((k) => [k, []]));

  for (let i = 0; i < rounds; i++) {
    for (const [name, load] of Object.entries(loads)) {
      got[name].push(await load());
    }
  }
  return got;
}

/* Each round's own ratio, then the median: what both share cancels out. */
export function ratio(above, below, key) {
  return median(above.map((a, i) => a[key] / below[i][key]));
}
