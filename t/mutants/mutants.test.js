/*
 * A test that cannot fail proves nothing: each derivation gets one fault, and
 * its derived test must fail, in the test that is meant and not for lack of a
 * server.  Without a fault the same tests pass on the same build.
 */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import path from 'node:path';
import { before, test } from 'node:test';
import { ROOT } from '../harness/index.js';
import { MUTANTS } from './mutants.js';
import { BUILD, make, number } from './tree.js';

before(() => make());

/* {passed, failed: names of tests, text} */
function derived(name, patterns, mutant) {
  const env = { ...process.env, STOA_BUILD: BUILD,
    STOA_MUTANT: String(mutant ? number(mutant) : 0),
    STOA_MUTANT_SQL: mutant?.sql ?? '' };

  delete env.NODE_TEST_CONTEXT;
  return new Promise((done) => execFile(process.execPath, ['--test',
    '--test-reporter=tap', ...patterns.map((p) => `--test-name-pattern=${p}`),
    path.join(ROOT, 't', name.includes('/') ? '' : 'derived',
      `${name}.test.js`)],
  { env, maxBuffer: 64 << 20 }, (error, stdout, stderr) => done({
    text: stdout + stderr,
    passed: [...stdout.matchAll(/^ *ok \d+ - (.*)$/gm)].map((m) => m[1])
      .filter((line) => !/# SKIP/.test(line)),
    failed: [...stdout.matchAll(/^ *not ok \d+ - (.*)$/gm)].map((m) => m[1]),
  })));
}

test('no fault: the tests pass on the mutant build', async () => {
  for (const name of new Set(MUTANTS.map((m) => m.test))) {
    const patterns = MUTANTS.filter((m) => m.test === name)
      .map((m) => m.pattern);
    const { failed, passed, text } = await derived(name, patterns);

    assert.deepEqual(failed, [], text);
    for (const pattern of patterns) {
      assert.ok(passed.some((p) => p.includes(pattern)),
        `no test of ${name} is called "${pattern}"\n${text}`);
    }
  }
});

for (const mutant of MUTANTS) {
  test(mutant.name, async () => {
    const { failed, text } = await derived(mutant.test, [mutant.pattern],
      mutant);

    assert.ok(failed.some((name) => name.includes(mutant.pattern)),
      `nobody noticed (${failed})\n${text.slice(-2000)}`);

    /* an assertion of that very test said so */
    const from = text.indexOf('\n', text.search(new RegExp(
      `^ *not ok \\d+ - .*${mutant.pattern}`, 'm')));
    const report = text.slice(from, text.indexOf('\n  ...', from));

    assert.match(report, /code: 'ERR_ASSERTION'/, report);
    assert.doesNotMatch(report, /hookFailed|the application left/, report);
  });
}
