/*
 * What the tests of Stripe share: settings, and events signed as Stripe
 * signs them.
 */

import Stripe from 'stripe';
import { SECRETS } from '../harness/index.js';

export const STRIPE = {
  key: 'sk_test_4eC39HqLyjWDarjtT1zdp7dc', version: '2024-06-20',
};

export const sdk = new Stripe(STRIPE.key, { apiVersion: STRIPE.version });

export const stripeConf = (stub, more = {}) => ({
  PAYMENT_PROVIDER: 'stripe', STRIPE_API_URL: stub.url,
  STRIPE_SECRET_KEY: STRIPE.key, STRIPE_VERSION: STRIPE.version,
  STRIPE_PUBLISHABLE_KEY: 'pk_test_TYooMQauvdEDq54NiTphI7jx',
  ACCESS_TTL: '24h', /* the tests move the clock far */
  ...more,
});

/* Posts an event as Stripe does. */
let events = 0;

export function webhook(app, type, object, extra = {}) {
  const now = Math.floor((Date.now() + app.clock.ms) / 1000);
  const payload = JSON.stringify({
    id: `evt_${now}_${++events}`, object: 'event',
    api_version: STRIPE.version, created: now, livemode: false, type,
    data: { object }, ...extra,
  });

  return app.api('POST', '/api/v1/webhooks/stripe', {
    body: payload,
    headers: {
      'content-type': 'application/json',
      'stripe-signature': sdk.webhooks.generateTestHeaderString({
        payload, secret: SECRETS.STRIPE_WEBHOOK_SECRET, timestamp: now,
      }),
    },
  });
}
