/*
 * I-41, every cell of it, on one nginx worker; rights_nodes.test.js has the
 * other set-ups.
 */

import { define } from './rights.js';

define({ nginxWorkers: 1 });
