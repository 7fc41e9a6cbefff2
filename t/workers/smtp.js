/*
 * A mail server that misbehaves as it is told: npm smtp-server with a plan
 * per recipient.  plan(address, step, step, ...): the first attempt does the
 * first step, later ones the next; when the plan is used up, mail is taken.
 *
 *   { at: 'from' | 'rcpt' | 'data', code, text }   an answer
 *   { at: 'rcpt' | 'data' | 'dot', cut: true }     the line breaks there;
 *                                                  "dot": after the mail
 */

import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { simpleParser } from 'mailparser';
import { SMTPServer } from 'smtp-server';
import { run, tempDir } from '../harness/proc.js';

export class Smtp {
  constructor(options = {}) {
    this.options = options;
    this.plans = new Map();
    this.fromPlan = [];
    this.attempts = []; /* {to, at, done} */
    this.mails = []; /* taken, parsed; also those before a cut at the dot */
    this.logins = [];
    this.clear = 0; /* MAIL commands that came without TLS */
  }

  /* A key, and a certificate for 127.0.0.1 that only we know. */
  static async certificate() {
    const dir = tempDir('stoa-cert-');
    const key = path.join(dir, 'key.pem');
    const cert = path.join(dir, 'cert.pem');

    await run('openssl', [
      'req', '-x509', '-newkey', 'ec', '-pkeyopt',
      'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
      '-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1',
      '-keyout', key, '-out', cert,
    ]);
    return {
      dir, file: cert, key: fs.readFileSync(key), cert: fs.readFileSync(cert),
      remove: () => fs.rmSync(dir, { recursive: true, force: true }),
    };
  }

  async start() {
    const { user, password, ...options } = this.options;

    this.password = password ?? crypto.randomBytes(8).toString('hex');
    this.user = user ?? 'mailer';
    this.server = new SMTPServer({
      authOptional: true, allowInsecureAuth: true, logger: false,
      onAuth: (auth, session, done) => this.onAuth(auth, session, done),
      onMailFrom: (address, session, done) => this.onFrom(session, done),
      onRcptTo: (address, session, done) =>
        this.onRcpt(address.address, session, done),
      onData: (stream, session, done) => this.onData(stream, session, done),
      ...options,
    });
    this.server.on('error', () => {}); /* cut lines are what we do here */
    await new Promise((done) => {
      this.server.listen(0, '127.0.0.1', done);
    });
    this.port = this.server.server.address().port;
    return this;
  }

  async stop() {
    await new Promise((done) => { this.server.close(done); });
  }

  plan(address, ...steps) {
    this.plans.set(address, steps);
  }

  to(address) {
    return this.mails.filter((m) => m.recipient === address);
  }

  tries(address) {
    return this.attempts.filter((a) => a.to === address).length;
  }

  cut(session) {
    for (const c of this.server.connections) {
      if (c.id === session.id) c._socket.destroy();
    }
  }

  refuse(step, done) {
    done(Object.assign(new Error(step.text), { responseCode: step.code }));
  }

  onAuth(auth, session, done) {
    this.logins.push({ user: auth.username, secure: session.secure });
    if (auth.username !== this.user || auth.password !== this.password) {
      this.refuse({ code: 535, text: '5.7.8 no such login' }, done);
      return;
    }
    done(null, { user: auth.username });
  }

  onFrom(session, done) {
    const step = this.fromPlan.shift();

    if (!session.secure) this.clear++;
    session.step = null;
    if (step) this.refuse(step, done);
    else done();
  }

  onRcpt(address, session, done) {
    const step = this.plans.get(address)?.shift() ?? null;

    this.attempts.push({ to: address, step });
    session.step = step;
    if (step?.at !== 'rcpt') done();
    else if (step.cut) this.cut(session);
    else this.refuse(step, done);
  }

  onData(stream, session, done) {
    const step = session.step;
    const chunks = [];

    if (step?.at === 'data' && step.cut) {
      this.cut(session);
      return;
    }
    stream.on('data', (chunk) => chunks.push(chunk));
    stream.on('end', async () => {
      const raw = Buffer.concat(chunks);

      if (step?.at === 'data') {
        this.refuse(step, done);
        return;
      }

      const mail = await simpleParser(raw);

      mail.raw = raw;
      mail.recipient = session.envelope.rcptTo[0].address;
      mail.sender = session.envelope.mailFrom.address;
      mail.secure = session.secure;
      this.mails.push(mail);
      if (step?.at === 'dot') this.cut(session);
      else done();
    });
  }
}
