/*
 * The task rows (shared/tasks/stoa_tasks.c) as tests need them: which kinds
 * there are, what runs them, and the points at which a worker may be killed.
 * Tests are made from these, so a new row or point is tested or fails.
 */

import fs from 'node:fs';
import path from 'node:path';
import { ROOT } from '../harness/proc.js';

const TEXT = fs.readFileSync(
  path.join(ROOT, 'shared/tasks/stoa_tasks.c'), 'utf8');

/* sql: "order_expire", or undefined of a flow */
export const rows = TEXT.split(/^ {8}\.kind = /m).slice(1).map((row) => {
  const kind = row.match(/^"([^"]+)"/)[1];
  const list = row.match(/\.crash = \{([^}]*)\}/)?.[1] ?? '';

  return {
    kind,
    sql: row.match(/\.sql = "task\.(\w+)\(/)?.[1],
    points: [...list.matchAll(/"([^"]+)"/g)].map(([, point]) => {
      if (!point.startsWith(`${kind}.`)) throw new Error(`${kind}: ${point}`);
      return point.slice(kind.length + 1);
    }),
  };
});

if (rows.length < 10 || rows.some((r) => r.points.length < 2)) {
  throw new Error('the task rows are not read as they should be');
}

export const pointsOf = (kind) => rows.find((r) => r.kind === kind).points;
