/*
 * stoa.conf of one booted application, and how a settings file is written.
 * The secrets are fixed: tests forge and check tokens with them.
 */

import path from 'node:path';

export const SECRETS = {
  JWT_SECRET: 'test-secret-of-at-least-thirty-two-bytes',
  TICKET_SEED: '9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60',
  MFA_KEY: '5f4e3d2c1b0a99887766554433221100ffeeddccbbaa99887766554433221100',
  TEST_WEBHOOK_SECRET: 'whsec_test_secret_of_the_embedded_provider',
  STRIPE_WEBHOOK_SECRET: 'whsec_stripe_secret_used_in_tests_only_1',
};

export function testConf({ dir, database, pgDir, redis, url, workers = 1 }) {
  return {
    ENVIRONMENT: 'development',
    PUBLIC_URL: url,
    EDGE_URL: url,
    DB_HOST: pgDir,
    DB_PORT: '5432',
    DB_NAME: database,
    DB_USER: 'stoa_edge',
    DB_WORKER_USER: 'stoa_worker',
    DB_OWNER_USER: 'stoa_owner',
    DB_SSLMODE: 'disable',
    REDIS_HOST: redis,
    ...SECRETS,
    MAIL_DIR: path.join(dir, 'mail'),
    WORKER_PROCESSES: String(workers || 1),
    WORKER_GRACE: '10',
    /* crowds of few people: what bounds one person is tested by itself */
    HOLD_MAX_ORDERS: '0',
    /* the cheapest that Argon2id allows here: the cost is not under test */
    ARGON2_MEMORY_KIB: '1024',
    ARGON2_PASSES: '1',
    STOA_TEST_CLOCK: path.join(dir, 'clock'),
  };
}

/* null removes a setting. */
export function confText(conf) {
  return Object.entries(conf)
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([key, value]) => `${key}=${value}\n`)
    .join('');
}
