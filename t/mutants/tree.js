/*
 * The mutant build: a copy of the sources and of build/test under
 * build/mutant, where every fault of mutants.js is compiled in and switched
 * by the number in the variable STOA_MUTANT; 0 is the product as it is.  Only
 * the files that have a fault are compiled again.
 */

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { ROOT } from '../harness/index.js';
import { MUTANTS } from './mutants.js';

const PLANTED = MUTANTS.filter((m) => m.file);

const TREE = path.join(ROOT, 'build/mutant');
const SOURCES = ['config', 'conf/dev', 'shared', 'workers', 'ngx_module',
  'build/test'];

/* The variable is read when the program or the module is loaded, before
   nginx takes it away from its workers. */
const HEAD = `#include <stdlib.h>

static int stoa_mutant_number;

__attribute__((constructor)) static void
stoa_mutant_read(void)
{
    const char *number = getenv("STOA_MUTANT");

    stoa_mutant_number = number != NULL ? atoi(number) : 0;
}

#define stoa_mutant(n) (stoa_mutant_number == (n))

#line 1
`;

export const BUILD = path.join(TREE, 'build/test');

export const number = (mutant) => MUTANTS.indexOf(mutant) + 1;

function copy() {
  fs.mkdirSync(TREE, { recursive: true });
  for (const source of SOURCES) {
    const to = path.join(TREE, path.dirname(source));

    fs.mkdirSync(to, { recursive: true });
    fs.rmSync(path.join(TREE, source), { recursive: true, force: true });
    /* not while somebody builds */
    execFileSync('flock', ['-o', path.join(ROOT, 'build/.lock'),
      'cp', '-a', path.join(ROOT, source), to]);
  }
}

/* What configure wrote holds the place where it was; with the old time, so
   that nothing is made again for it. */
function move() {
  const files = execFileSync('grep', ['-rlIF', `${ROOT}/`,
    path.join(BUILD, 'ngx')], { encoding: 'utf8' }).trim().split('\n');

  for (const file of files) {
    const { atime, mtime } = fs.statSync(file);
    const text = fs.readFileSync(file, 'utf8');

    fs.writeFileSync(file, text.replaceAll(`${ROOT}/`, `${TREE}/`));
    fs.utimesSync(file, atime, mtime);
  }
}

function plant() {
  for (const file of new Set(PLANTED.map((m) => m.file))) {
    let text = fs.readFileSync(path.join(ROOT, file), 'utf8');

    for (const mutant of PLANTED.filter((m) => m.file === file)) {
      const parts = text.split(mutant.from);

      if (parts.length !== 2) {
        throw new Error(`"${mutant.name}" fits ${parts.length - 1} places ` +
          `of ${file}, it wants one`);
      }
      text = parts.join(mutant.to.replaceAll('$',
        `stoa_mutant(${number(mutant)})`));
    }
    fs.writeFileSync(path.join(TREE, file), HEAD + text);
  }
}

export function make() {
  copy();
  move();
  plant();
  execFileSync('make', ['-s', '-r', '--no-print-directory', '-j2', '-f',
    'conf/dev/build.mk', 'VARIANT=test', 'all'],
  { cwd: TREE, stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, MAKEFLAGS: '', MAKELEVEL: '' } });
}
