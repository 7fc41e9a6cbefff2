/*
 * Every response that app.api sees is checked here: the envelope at once,
 * and against the running server's own OpenAPI document (method, path,
 * status, headers that must be there, body) at the end of the file, so that
 * one undocumented answer anywhere fails the file that saw it.
 */

import Ajv2020 from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';

const RFC3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
const CODE = /^[A-Z][A-Z0-9_]*$/;

/* Decision 15: what is not enveloped. */
const BARE = /^\/(metrics|health\/|api\/v1\/(openapi\.json|manual\.json|errors)|\.well-known\/)/;

/* Codes whose problem has a type in IANA's registry. */
const REGISTERED = {
  RATE_LIMITED: 'http-problem-types#quota-exceeded',
  HASH_QUEUE_FULL: 'http-problem-types#temporary-reduced-capacity',
  POOL_SATURATED: 'http-problem-types#temporary-reduced-capacity',
};

function fail(res, sentence) {
  const { method = 'GET', path } = res.request;

  throw new Error(`${method} ${path} -> ${res.status}: ${sentence}\n` +
    res.text.slice(0, 600));
}

function checkProblem(res, problem) {
  for (const name of ['type', 'title', 'code', 'request_id']) {
    if (typeof problem[name] !== 'string' || !problem[name]) {
      fail(res, `error.${name} is not a text`);
    }
  }
  if (problem.status !== res.status) fail(res, 'error.status is another');
  if (!CODE.test(problem.code)) fail(res, 'error.code is not UPPER_SNAKE');
  const type = REGISTERED[problem.code] ?? `/api/v1/errors#${problem.code}`;

  if (!problem.type.endsWith(type)) {
    fail(res, 'error.type does not name the code');
  }
  for (const item of problem.errors ?? []) {
    if (typeof item.pointer !== 'string' || typeof item.code !== 'string') {
      fail(res, 'an item of error.errors lacks pointer or code');
    }
  }
}

export function checkEnvelope(res) {
  const { method = 'GET', path } = res.request;
  const url = path.split('?')[0];

  if (method === 'HEAD' || res.status === 204 || res.status === 304) {
    if (res.raw.length) fail(res, 'has a body');
    return;
  }
  if (!url.startsWith('/api/v1/') || BARE.test(url)) return;
  if (res.status >= 300 && res.status < 400) return;
  if (/^application\/problem\+json/.test(res.headers['content-type'] ?? '')) {
    checkProblem(res, res.body);
    return;
  }
  if (res.status < 400
    && !/^application\/json/.test(res.headers['content-type'] ?? '')) {
    return; /* a file: CSV, SVG, PNG, PDF */
  }

  const body = res.body;

  if (!body || typeof body !== 'object') fail(res, 'is not an envelope');

  const names = Object.keys(body).sort().join();

  if (names !== 'data,error,meta,success,timestamp') {
    fail(res, `the envelope has the members ${names}`);
  }
  if (!RFC3339.test(body.timestamp)) fail(res, 'timestamp is no RFC 3339 ms');
  if (body.success !== (res.status < 400)) fail(res, 'success is wrong');
  if (body.success) {
    if (body.error !== null) fail(res, 'error is not null');
  } else {
    if (body.data !== null) fail(res, 'data is not null');
    if (!body.error) fail(res, 'error is missing');
    checkProblem(res, body.error);
  }
}

/* Paths of a document as expressions: the ones with fewer parameters first,
   then the longer ones, so that {id}.svg comes before {id}. */
function compilePaths(doc) {
  return Object.entries(doc.paths ?? {})
    .map(([template, item]) => ({
      template, item,
      params: (template.match(/\{/g) ?? []).length,
      re: new RegExp('^' + template.replace(/[.+*?^$()|[\]\\]/g, '\\$&')
        .replace(/\{[^}]+\}/g, '[^/]+') + '$'),
    }))
    .sort((a, b) => a.params - b.params
      || b.template.length - a.template.length);
}

export class Validator {
  constructor(doc) {
    this.doc = doc;
    this.paths = compilePaths(doc);
    this.ajv = new Ajv2020({ strict: false, allErrors: true });
    addFormats(this.ajv);
    this.ajv.addSchema(doc, 'doc');
    this.compiled = new Map();
    this.seen = new Set(); /* "GET /path 200" */
  }

  find(path) {
    const url = path.split('?')[0];

    return this.paths.find(({ re }) => re.test(url));
  }

  /* A sentence, or undefined when the response is as documented. */
  check(res) {
    const method = (res.request.method ?? 'GET').toLowerCase();
    const row = this.find(res.request.path);
    const op = row?.item[method];

    if (!op) return undefined; /* 404, 405, HEAD, OPTIONS, pages */

    const where = `${method.toUpperCase()} ${row.template} ${res.status}`;
    const wild = `${Math.floor(res.status / 100)}XX`;
    const key = [String(res.status), wild, 'default']
      .find((k) => op.responses?.[k]);

    this.seen.add(where);
    if (!key) return `${where}: the document does not list this status`;
    if (method === 'get' && res.status === 200 && res.headers.etag
      && !op.responses['304']) {
      return `${where}: has an ETag, and the document knows no 304`;
    }

    const response = this.deref(op.responses[key]);
    const type = (res.headers['content-type'] ?? '').split(';')[0].trim();

    if (!response.content || res.status === 304) return undefined;

    const media = response.content[type];

    if (!media) {
      return res.raw.length
        ? `${where}: the document does not list ${type}` : undefined;
    }
    if (!media.schema || res.body === undefined) return undefined;
    return this.checkSchema(where, row.template, method, key, type, res);
  }

  checkSchema(where, template, method, key, type, res) {
    const id = `${method} ${template} ${key} ${type}`;

    if (!this.compiled.has(id)) {
      let pointer = ['paths', template, method, 'responses', key];
      const ref = this.doc.paths[template][method].responses[key].$ref;

      if (ref) pointer = ref.slice(2).split('/').map(unescape1);
      pointer = [...pointer, 'content', type, 'schema'];
      this.compiled.set(id, this.ajv.compile({
        $ref: 'doc#/' + pointer.map(escape1).join('/'),
      }));
    }

    const valid = this.compiled.get(id);

    if (valid(res.body)) return undefined;
    return `${where}: ${this.ajv.errorsText(valid.errors, { dataVar: '' })}\n` +
      res.text.slice(0, 600);
  }

  deref(node) {
    if (!node?.$ref) return node;
    return node.$ref.slice(2).split('/').map(unescape1)
      .reduce((at, name) => at?.[name], this.doc);
  }
}

const unescape1 = (s) => s.replace(/~1/g, '/').replace(/~0/g, '~');
const escape1 = (s) =>
  encodeURIComponent(s.replace(/~/g, '~0').replace(/\//g, '~1'));
