/*
 * Stripe as the workers see it: records every call, holds it against the
 * rules that Stripe publishes (the official SDK's own types say which
 * parameters exist in the pinned version), keeps idempotency keys as Stripe
 * does, and fails on demand.
 *
 *   stub.faults.push(fault, ...): the next calls that make something fail,
 *   one each:
 *     { status, headers, error }   that answer, nothing is done
 *     { cut: 'before' | 'after' }  the line breaks before or after the work
 *     { replayed500: true }        as a 500 that the key keeps answering
 *     { wait: ms }                 done at once, answered late
 *
 * It forgets a key after a day, by the application's clock.
 */

import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import qs from 'qs';
import { ROOT } from '../harness/index.js';

const TYPES = path.join(ROOT, 't/node_modules/stripe/types');

const KEY_MS = 86400000;

/* Names of members that a resource's file declares. */
function declared(file) {
  const text = fs.readFileSync(path.join(TYPES, file), 'utf8');

  return new Set([...text.matchAll(/^\s+'?(\w+)'?\??:/gm)].map((m) => m[1]));
}

const CREATES = {
  '/v1/checkout/sessions': {
    names: declared('Checkout/SessionsResource.d.ts'), make: 'session',
  },
  '/v1/payment_intents': {
    names: declared('PaymentIntentsResource.d.ts'), make: 'intent',
  },
  '/v1/refunds': { names: declared('RefundsResource.d.ts'), make: 'refund' },
};

/* metadata's members are ours. */
function names(body) {
  const all = [];

  (function walk(value) {
    if (!value || typeof value !== 'object') return;
    for (const [name, inner] of Object.entries(value)) {
      if (!/^\d+$/.test(name)) all.push(name);
      if (name !== 'metadata') walk(inner);
    }
  }(body));
  return all;
}

export class StripeStub {
  constructor({ key, version }) {
    this.key = key;
    this.version = version;
    this.calls = []; /* {method, path, query, headers, raw, body, key} */
    this.violations = [];
    this.faults = [];
    this.clock = { ms: 0 }; /* of the application */
    this.keys = new Map();
    this.objects = new Map();
    this.made = { session: 0, intent: 0, refund: 0 };
    this.refundsAre = 'succeeded'; /* or 'pending', as of a bank transfer */
  }

  async start() {
    this.server = http.createServer((req, res) => {
      const chunks = [];

      req.on('data', (c) => chunks.push(c));
      req.on('end', () => this.serve(req, res, Buffer.concat(chunks)));
    });
    await new Promise((done) => { this.server.listen(0, '127.0.0.1', done); });
    this.url = `http://127.0.0.1:${this.server.address().port}`;
    return this;
  }

  async stop() {
    this.server.closeAllConnections();
    await new Promise((done) => { this.server.close(done); });
  }

  posts(prefix) {
    return this.calls.filter((c) => c.method === 'POST'
      && c.path.startsWith(prefix));
  }

  serve(req, res, raw) {
    const url = new URL(req.url, this.url);
    const call = {
      method: req.method, path: url.pathname,
      query: qs.parse(url.search.slice(1)), headers: req.headers,
      raw: raw.toString(), body: qs.parse(raw.toString(), { depth: 10 }),
      key: req.headers['idempotency-key'],
    };

    this.calls.push(call);
    this.check(call);

    /* reconciling comes when it likes: it must not eat another's fault */
    const fault = CREATES[call.path] && call.method === 'POST'
      ? this.faults.shift() : undefined;

    if (fault?.cut === 'before') {
      req.socket.destroy();
      return;
    }
    if (fault?.status) {
      res.writeHead(fault.status, {
        'content-type': 'application/json', ...fault.headers,
      });
      res.end(JSON.stringify({ error: fault.error ?? { type: 'api_error' } }));
      return;
    }

    const answer = this.answer(call);

    if (fault?.wait) {
      setTimeout(() => this.write(res, answer), fault.wait);
      return;
    }
    if (fault?.cut === 'after') {
      req.socket.destroy();
      return;
    }
    if (fault?.replayed500) {
      res.writeHead(500, {
        'content-type': 'application/json', 'idempotent-replayed': 'true',
      });
      res.end('{"error":{"type":"api_error"}}');
      return;
    }
    this.write(res, answer);
  }

  write(res, { status, body }) {
    res.writeHead(status, { 'content-type': 'application/json' });
    res.end(JSON.stringify(body));
  }

  wrong(call, what) {
    this.violations.push(`${call.method} ${call.path}: ${what}`);
  }

  check(call) {
    const { headers, body } = call;

    if (headers.authorization !== `Bearer ${this.key}`) {
      this.wrong(call, `authorization ${headers.authorization}`);
    }
    if (headers['stripe-version'] !== this.version) {
      this.wrong(call, `version ${headers['stripe-version']}`);
    }
    if (call.method !== 'POST') return;
    if (headers['content-type'] !== 'application/x-www-form-urlencoded') {
      this.wrong(call, `content-type ${headers['content-type']}`);
    }

    const create = CREATES[call.path];

    if (!create) return;
    if (!call.key || call.key.length > 255) {
      this.wrong(call, `idempotency key ${call.key}`);
    }
    for (const name of names(body)) {
      if (!create.names.has(name)) this.wrong(call, `parameter ${name}`);
    }
    if (create.make === 'session') this.checkSession(call);
    else this.checkAmount(call, body.amount);
  }

  checkAmount(call, amount) {
    if (!/^[1-9]\d{0,7}$/.test(amount)) this.wrong(call, `amount ${amount}`);
  }

  checkSession(call) {
    const { body } = call;
    const line = body.line_items?.[0];
    const life = Number(body.expires_at)
      - Math.floor((Date.now() + this.clock.ms) / 1000);

    if (body.mode !== 'payment') this.wrong(call, `mode ${body.mode}`);
    if (!line || line.quantity !== '1') this.wrong(call, 'line items');
    if (!/^[a-z]{3}$/.test(line?.price_data?.currency)) {
      this.wrong(call, `currency ${line?.price_data?.currency}`);
    }
    this.checkAmount(call, line?.price_data?.unit_amount);
    if (!line?.price_data?.product_data?.name) this.wrong(call, 'no name');
    if (!(life > 1800 && life < 86400)) {
      this.wrong(call, `expires_at in ${life} s`);
    }
    for (const name of ['success_url', 'cancel_url']) {
      if (!URL.canParse(body[name])) this.wrong(call, `${name} ${body[name]}`);
    }
  }

  error(status, code, message = code) {
    return {
      status,
      body: { error: { type: 'invalid_request_error', code, message } },
    };
  }

  answer(call) {
    if (call.method === 'GET') return this.get(call);

    const now = Date.now() + this.clock.ms;
    const kept = call.key && this.keys.get(call.key);

    if (kept && now - kept.at < KEY_MS) {
      return kept.raw === call.raw && kept.path === call.path ? kept.answer
        : {
          status: 400,
          body: { error: { type: 'idempotency_error', message: 'other' } },
        };
    }

    const answer = this.post(call);

    if (call.key) {
      this.keys.set(call.key,
        { raw: call.raw, path: call.path, answer, at: now });
    }
    return answer;
  }

  post(call) {
    const make = CREATES[call.path]?.make;

    if (make) {
      const object = this[make](call.body, ++this.made[make]);

      this.objects.set(object.id, object);
      return { status: 200, body: object };
    }

    const [, , , ...rest] = call.path.split('/');
    const verb = rest.pop();
    const object = this.objects.get(rest.pop());

    if (!object) return this.error(404, 'resource_missing');
    if (verb === 'expire' && object.status === 'open') {
      object.status = 'expired';
      return { status: 200, body: object };
    }
    if (verb === 'cancel' && object.status !== 'succeeded') {
      object.status = 'canceled';
      return { status: 200, body: object };
    }
    return this.error(400, 'not_possible');
  }

  get(call) {
    const [, , kind, id, last] = call.path.split('/');

    if (kind === 'payment_intents' && id === 'search') {
      const [, field, value] =
        call.query.query.match(/^metadata\['(\w+)'\]:'([^']+)'$/);

      return {
        status: 200,
        body: {
          object: 'search_result', has_more: false,
          data: [...this.objects.values()].filter((o) =>
            o.object === 'payment_intent' && o.metadata[field] === value),
        },
      };
    }
    if (kind === 'refunds' && !id) {
      return {
        status: 200,
        body: {
          object: 'list', has_more: false,
          data: [...this.objects.values()].filter((o) =>
            o.object === 'refund'
            && o.payment_intent === call.query.payment_intent),
        },
      };
    }

    const object = this.objects.get(last ?? id);

    if (!object) return this.error(404, 'resource_missing');
    if (call.query.expand?.includes('payment_intent')
      && object.payment_intent) {
      return {
        status: 200,
        body: {
          ...object, payment_intent: this.objects.get(object.payment_intent),
        },
      };
    }
    return { status: 200, body: object };
  }

  session(body, n) {
    return {
      id: `cs_test_${n}`, object: 'checkout.session', status: 'open',
      payment_status: 'unpaid', payment_intent: null, client_secret: null,
      url: `${this.url}/pay/cs_test_${n}`, metadata: body.metadata,
      expires_at: Number(body.expires_at), livemode: false,
      amount_total: Number(body.line_items[0].price_data.unit_amount),
      currency: body.line_items[0].price_data.currency,
      intent_metadata: body.payment_intent_data?.metadata,
    };
  }

  intent(body, n) {
    return {
      id: `pi_test_${n}`, object: 'payment_intent',
      status: 'requires_payment_method', amount: Number(body.amount),
      amount_received: 0, currency: body.currency, metadata: body.metadata,
      client_secret: `pi_test_${n}_secret_${n}`, livemode: false,
    };
  }

  refund(body, n) {
    return {
      id: `re_test_${n}`, object: 'refund', status: this.refundsAre,
      amount: Number(body.amount), payment_intent: body.payment_intent,
      currency: this.objects.get(body.payment_intent)?.currency,
      metadata: body.metadata,
    };
  }

  /* The buyer pays: the intent that is left, for an event or a look-up. */
  pay(object) {
    let intent = object;

    if (object.object === 'checkout.session') {
      intent = this.intent({
        amount: object.amount_total, currency: object.currency,
        metadata: object.intent_metadata,
      }, ++this.made.intent);
      this.objects.set(intent.id, intent);
      object.payment_intent = intent.id;
      object.status = 'complete';
      object.payment_status = 'paid';
    }
    intent.status = 'succeeded';
    intent.amount_received = intent.amount;
    return intent;
  }
}
