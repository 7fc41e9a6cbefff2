/*
 * I-41 on four nginx workers and on two nodes: what the verdict needs is not
 * in the memory of whoever has the connection.  All rows with all roles, and
 * a slice of the resources.
 */

import { describe } from 'node:test';
import { define } from './rights.js';

/* the kernel deals connections to all workers, busy or not */
const DEALT = { replace: [['backlog=4096;', 'backlog=4096 reuseport;']] };

describe('4 nginx workers', () =>
  define({ nginxWorkers: 4, nginx: DEALT }, { slice: true }));

describe('2 nodes', () =>
  define({ nginxWorkers: 1, nodes: 2 }, { slice: true }));
