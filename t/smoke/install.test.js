/*
 * make install: every file at its place below DESTDIR and nothing else, a
 * program that finds what lies beside it, units that fit nginx.conf, and
 * another PREFIX that is named wherever /usr was.
 */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, test } from 'node:test';
import { SECRETS, confText } from '../harness/conf.js';
import { ROOT, cleanEnv, tempDir } from '../harness/proc.js';

const top = tempDir('stoa-install-');

after(() => fs.rmSync(top, { recursive: true, force: true }));

function make(...args) {
  return spawnSync('make', ['-s', 'install', ...args],
    { cwd: ROOT, env: cleanEnv(), encoding: 'utf8' });
}

const files = (dir) => fs.readdirSync(dir, { recursive: true })
  .filter((name) => fs.statSync(path.join(dir, name)).isFile()).sort();
const read = (...parts) => fs.readFileSync(path.join(...parts), 'utf8');
const below = (folder, to) => files(path.join(ROOT, folder))
  .map((name) => `${to}/${name}`);

function wanted(prefix) {
  return [
    `${prefix}/bin/stoa`,
    `${prefix}/lib/nginx/modules/ngx_http_stoa_module.so`,
    `${prefix}/lib/systemd/system/stoa-edge.service`,
    `${prefix}/lib/systemd/system/stoa-workers.service`,
    `${prefix}/share/stoa/examples/nginx.conf`,
    `${prefix}/share/stoa/examples/stoa.conf`,
    ...below('conf/www', `${prefix}/share/stoa/www`),
    ...below('conf/mail', `${prefix}/share/stoa/mail`),
    ...below('migrations', `${prefix}/share/stoa/migrations`),
    'etc/logrotate.d/stoa',
  ].sort();
}

test('the files that it names, in a folder with a space, none else', () => {
  const dest = path.join(top, 'a dest');

  fs.mkdirSync(dest);
  for (let i = 0; i < 2; i++) { /* the second time over the first */
    const { status, stderr } = make(`DESTDIR=${dest}`);

    assert.equal(status, 0, stderr);
    assert.deepEqual(files(dest), wanted('usr'));
  }
  assert.equal(fs.statSync(path.join(dest, 'usr/bin/stoa')).mode & 0o777,
    0o755);
  assert.equal(read(dest, 'usr/share/stoa/examples/nginx.conf'),
    read(ROOT, 'conf/nginx.conf'));
});

test('the program finds its migrations, wherever it is called', () => {
  const conf = path.join(top, 'stoa.conf');

  fs.writeFileSync(conf, confText({ ...SECRETS, DB_HOST: top }));

  const { status, stderr } = spawnSync(path.join(top, 'a dest/usr/bin/stoa'),
    ['-c', conf, 'migrate'], { cwd: '/', env: cleanEnv(), encoding: 'utf8' });

  assert.equal(status, 3, stderr);
  assert.match(stderr, /cannot reach database/);
});

test('another PREFIX is named by every copy', () => {
  const dest = path.join(top, 'local');
  const { status, stderr } = make(`DESTDIR=${dest}`, 'PREFIX=/opt/stoa');

  assert.equal(status, 0, stderr);
  assert.deepEqual(files(dest), wanted('opt/stoa'));

  const at = path.join(dest, 'opt/stoa');

  assert.match(read(at, 'share/stoa/examples/nginx.conf'),
    /^load_module \/opt\/stoa\/lib\/nginx\/modules\/ngx_http_stoa_module\.so;/m);
  assert.match(read(at, 'share/stoa/examples/nginx.conf'),
    /root \/opt\/stoa\/share\/stoa\/www;/);
  assert.match(read(at, 'lib/systemd/system/stoa-workers.service'),
    /^ExecStart=\/opt\/stoa\/bin\/stoa work$/m);
  assert.equal(make('DESTDIR=/nonexistent', 'PREFIX=opt').status, 2);
});

test('systemd waits longer than what it stops', () => {
  const seconds = (text, re) => Number(text.match(re)[1]);
  const stop = /^TimeoutStopSec=(\d+)$/m;
  const edge = seconds(read(ROOT, 'conf/systemd/stoa-edge.service'), stop);
  const workers = seconds(
    read(ROOT, 'conf/systemd/stoa-workers.service'), stop);

  assert.ok(edge > seconds(read(ROOT, 'conf/nginx.conf'),
    /^worker_shutdown_timeout (\d+)s;$/m));
  assert.ok(workers > seconds(read(ROOT, 'conf/stoa.conf'),
    /^#WORKER_GRACE=(\d+)$/m));
});
