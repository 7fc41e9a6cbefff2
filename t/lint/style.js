/*
 * The rules of the source that no compiler checks, in the spirit of curl's
 * checksrc: one table of rules, exact about file and line.
 *
 *   node t/lint/style.js            every rule on every tracked file
 *   node t/lint/style.js FILE...    on these files
 *
 * A line that must break a rule says why, at its end or on the line before:
 *   lint: allow RULE, because ...      (within a comment)
 * and such a permission that nothing needs any more is an error too.
 */

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = path.resolve(
  path.dirname(fileURLToPath(import.meta.url)), '../..');

/* ---- what is what ---- */

const OWN_C = /^(shared|workers|ngx_module)\/.*\.[ch]$/;
const ANY_C = /^(shared|workers|ngx_module|t\/unit|t\/fuzz)\/.*\.([ch]|def)$/;
const C_FILE = /^(shared|workers|ngx_module)\/.*\.c$/;
const SQL = /^(migrations|t\/sql|t\/unguarded)\/.*\.sql$/;
const MIGRATION = /^migrations\/.*\.sql$/;
const TEST_JS = /^t\/.*\.test\.js$/;
const TEXT = /(\.(c|h|def|sql|js|mjs|json|css|html|sh|md|conf|in|mk|yml|service|lua)|(^|\/)(Makefile|config|CHANGES|LICENSE|run))$/;
const TABLE = /^shared\/(api\/stoa_api_[a-z_]+|tasks\/[a-z_]+)\.c$|\.def$/;

/*
 * One door per library.  A header, and the only files that may include it.
 */
const DOORS = [
  [/^libpq-fe\.h$|^libpq\//, /^shared\/stoa_pg\.c$|^shared\/stoa_pg_int\.h$/],
  [/^hiredis(\/|\.h)/, /^shared\/stoa_redis\.c$/],
  [/^jansson\.h$/, /^shared\/stoa_json\.c$/],
  [/^jwt\.h$/, /^shared\/stoa_jwt_mint\.c$/],
  [/^curl\//, /^shared\/stoa_http\.c$/],
  [/^uv\.h$/, /^workers\/worker_host[a-z_]*\.c$/],
  [/^sodium/, /^shared\/stoa_(code|hash|seal)\.c$/],
  [/^crypt\.h$/, /^shared\/stoa_hash\.c$/],
  [/^openssl\//, /^(shared\/stoa_(jwt|jwt_jwk|hmac)|ngx_module\/.*)\.[ch]$/],
  [/^qrencode\.h$/, /^(workers\/worker_qr|shared\/stoa_qr)\.c$/],
  [/^(cairo|pango)/, /^workers\/worker_draw\.c$/],
  [/^png\.h$/, /^workers\/worker_(draw|qr)\.c$/],
];

/* Who may include what of the tree, by the folder's first name. */
const LAYERS = {
  shared: ['shared'],
  ngx_module: ['shared', 'ngx_module'],
  workers: ['shared', 'workers'],
};

/* Functions that are not used, and what is used instead. */
const BANNED = {
  sprintf: 'snprintf', vsprintf: 'vsnprintf', strcpy: 'memcpy with a length',
  strcat: 'stoa_buf', strncpy: 'memcpy', strncat: 'stoa_buf',
  strtok: 'a loop', gets: 'nothing', atoi: 'stoa_str_int', atol: 'stoa_str_int',
  gmtime: 'stoa_time', localtime: 'stoa_time', ctime: 'stoa_time',
  rand: 'getrandom', srand: 'getrandom', random: 'getrandom',
  system: 'nothing', popen: 'nothing', alloca: 'the pool', setjmp: 'returns',
  longjmp: 'returns', tmpnam: 'mkstemp', mktemp: 'mkstemp',
};

/* Words that have no place in a source that is finished. */
const UNFINISHED = new RegExp(
  `\\b(${['TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X', 'HA' + 'CK'].join('|')})\\b`);
const FOREIGN = new RegExp([
  'cla' + 'ude', 'anthro' + 'pic', 'open' + 'ai codex', 'AI assis' + 'tant',
  'this ses' + 'sion of', 'sub-?ag' + 'ent', '/wo' + 'rk/(main|shared)',
  '/fa' + 'rm/', 'registry\\.npm' + 'js',
].join('|'), 'i');

/* ---- reading C ---- */

/* The text with comments and the contents of literals blanked, same length. */
function blank(text) {
  let out = '';
  let i = 0;

  while (i < text.length) {
    const two = text.slice(i, i + 2);

    if (two === '/*') {
      const end = text.indexOf('*/', i + 2);
      const stop = end < 0 ? text.length : end + 2;

      out += text.slice(i, stop).replace(/[^\n]/g, ' ');
      i = stop;
    } else if (text[i] === '"' || text[i] === "'") {
      const quote = text[i];
      let j = i + 1;

      while (j < text.length && text[j] !== quote && text[j] !== '\n') {
        j += text[j] === '\\' ? 2 : 1;
      }
      out += quote + text.slice(i + 1, j).replace(/[^\n]/g, ' ')
        + (text[j] ?? '');
      i = j + 1;
    } else {
      out += text[i++];
    }
  }
  return out;
}

/* {name, from, to} of every function body; its name opens a line. */
function functions(code) {
  const found = [];
  let open = null;

  code.forEach((line, i) => {
    if (line === '{' && !open) {
      for (let j = i - 1; j >= 0 && j > i - 14; j--) {
        const m = /^([a-zA-Z_]\w*)\(/.exec(code[j]);

        if (m) {
          open = { name: m[1], from: i };
          break;
        }
        if (/[;}]/.test(code[j])) break;
      }
    } else if (line === '}' && open) {
      found.push({ ...open, to: i });
      open = null;
    }
  });
  return found;
}

/* ---- the rules ---- */

const RULES = [
  { name: 'tab', files: TEXT, not: /(^|\/)Makefile$|\.mk$/,
    line: (l) => l.includes('\t') && 'a tab' },
  { name: 'space', files: TEXT, not: /\.md$/,
    line: (l) => /[ \t]$/.test(l) && 'space at the end' },
  { name: 'cr', files: TEXT, line: (l) => l.includes('\r') && 'CR' },
  { name: 'columns', files: /\.([chl]|def|sql)$/,
    line: (l) => l.length > 80 && `${l.length} columns` },
  { name: 'ascii', files: ANY_C,
    line: (l) => /[^\x20-\x7e\t]/.test(l) && 'not ASCII' },
  { name: 'end', files: TEXT, not: /\.json$/, whole: endRule },
  { name: 'unfinished', files: TEXT, not: /^t\/lint\//,
    line: (l) => UNFINISHED.test(l) && 'unfinished' },
  { name: 'foreign', files: TEXT, not: /^t\/package-lock\.json$/,
    line: (l) => FOREIGN.test(l) && 'speaks of something else' },
  { name: 'comment', files: ANY_C, code: true,
    line: (l) => l.includes('//') && '// comment' },
  { name: 'opening', files: C_FILE, whole: openingRule },
  { name: 'guard', files: /^(shared|workers|ngx_module)\/.*\.h$/,
    whole: guardRule },
  { name: 'banned', files: ANY_C, code: true, line: bannedRule },
  { name: 'reply', files: /^ngx_module\/.*\.c$/,
    not: /ngx_http_stoa_(reply|filter)\.c$/, code: true,
    line: (l) => /\b(ngx_http_send_header|ngx_http_output_filter)\(/.test(l)
      && 'only ngx_http_stoa_reply.c sends' },
  { name: 'layer', files: OWN_C, line: layerRule },
  { name: 'door', files: OWN_C, line: doorRule },
  { name: 'length', files: OWN_C, not: TABLE, whole: lengthRule },
  { name: 'function', files: C_FILE, whole: functionRule },
  { name: 'basename', tree: basenameRule },
  { name: 'clock', files: MIGRATION, whole: clockRule },
  { name: 'definer', files: MIGRATION, whole: definerRule },
  { name: 'secret', files: OWN_C, code: true, line: secretRule },
  { name: 'focus', files: TEST_JS,
    line: (l) => /\b(test|it|describe)\.(only|skip|todo)\b|\.skip\(\)/.test(l)
      && 'a test that is skipped or alone' },
];

function endRule({ text }, report) {
  if (text.length && !text.endsWith('\n')) report(0, 'no newline at the end');
  if (/\n\n+$/.test(text)) report(0, 'empty lines at the end');
}

function openingRule({ file, lines }, report) {
  const end = lines.findIndex((l) => l.includes('*/'));

  if (lines[0] !== '/*' || end < 0) {
    report(0, 'does not open with a comment that says what it is for');
  } else if ((end < 3 && !TABLE.test(file)) || end > 40) {
    report(0, `its opening comment has ${end + 1} lines, wanted are 5 to 20`);
  }
}

function guardRule({ file, text }, report) {
  if (path.basename(file).endsWith('_int.h')) return;
  const name = path.basename(file).toUpperCase().replace(/\W/g, '_');

  if (!text.includes(`#ifndef ${name}_INCLUDED\n#define ${name}_INCLUDED\n`)) {
    report(0, `its guard is not ${name}_INCLUDED`);
  }
}

const BANNED_RE = new RegExp(
  `(?<![\\w.>])(${Object.keys(BANNED).join('|')})\\s*\\(`);

function bannedRule(line) {
  const m = BANNED_RE.exec(line);

  return m && `${m[1]}() is banned: ${BANNED[m[1]]}`;
}

/* What ends at the first difference tells how much of a secret was right. */
const HASTY = new RegExp('\\b((ngx_)?(memcmp|strn?cmp|memn2cmp)'
  + '|stoa_str_eq(_z)?)\\((.*)');
const SECRET = new RegExp('\\b(\\w*_)?(secret|password|mac|hmac|digest|hash'
  + '|token|csrf|nonce|verifier|signature)\\b');

function secretRule(line) {
  const m = HASTY.exec(line);

  return m && SECRET.test(m[5])
    && `${m[1]}() on what may be secret: stoa_str_same_secret()`;
}

function layerRule(line, file) {
  const m = /^\s*#\s*include\s+"([^"]+)"/.exec(line);

  if (!m) return undefined;

  const from = file.split('/')[0];
  let target = path.posix.normalize(
    path.posix.join(path.posix.dirname(file), m[1]));

  if (!fs.existsSync(path.join(ROOT, target))) {
    if (fs.existsSync(path.join(ROOT, 'shared', m[1]))) {
      target = `shared/${m[1]}`;
    } else {
      return `"${m[1]}" is not in the tree`;
    }
  }
  const to = target.split('/')[0];

  return !LAYERS[from].includes(to) && `${from} may not include ${to}`;
}

function doorRule(line, file) {
  const m = /^\s*#\s*include\s+<([^>]+)>/.exec(line);

  if (!m) return undefined;
  if (/^ngx_/.test(m[1])) {
    return !file.startsWith('ngx_module/') && 'nginx outside ngx_module/';
  }
  for (const [header, files] of DOORS) {
    if (header.test(m[1]) && !files.test(file)) {
      return `<${m[1]}> has its own door`;
    }
  }
  return undefined;
}

function lengthRule({ lines }, report) {
  if (lines.length > 1000) report(1000, `${lines.length} lines, at most 1000`);
}

function functionRule({ code }, report) {
  for (const { name, from, to } of functions(code)) {
    if (to - from + 1 > 100) {
      report(from, `${name}() has ${to - from + 1} lines, at most 100`);
    }
  }
}

function basenameRule(files, report) {
  const seen = new Map();

  for (const file of files.filter((f) => /\.[ch]$/.test(f))) {
    const base = path.basename(file);

    if (seen.has(base)) report(file, 0, `same name as ${seen.get(base)}`);
    else seen.set(base, file);
  }
}

/* SQL without comments and literals, same length; bodies in $$ stay. */
function blankSql(text) {
  return text.replace(/--[^\n]*|\/\*[\s\S]*?\*\/|'(?:[^']|'')*'/g,
    (m) => m.replace(/[^\n]/g, ' '));
}

/* One clock, so that tests can move it; only app.now() itself reads it. */
function clockRule({ text }, report) {
  const sql = blankSql(text);
  const re = /\b(pg_catalog\.)?(now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday)\s*\(\s*\)|\b(current_timestamp|localtimestamp|current_date|current_time)\b/gi;
  const own = /create\s+(or\s+replace\s+)?function\s+app\.now\s*\(\s*\)[\s\S]*?\$(\w*)\$[\s\S]*?\$\2\$/i
    .exec(sql);

  for (const m of sql.matchAll(re)) {
    const before = sql.slice(Math.max(0, m.index - 4), m.index);

    if (/app\.$/.test(before) && !m[1]) continue;
    if (own && m.index >= own.index
      && m.index < own.index + own[0].length) continue;
    report(sql.slice(0, m.index).split('\n').length - 1,
      `${m[0]}: SQL asks app.now()`);
  }
}

function definerRule({ text }, report) {
  const sql = blankSql(text);
  const re = /create\s+(?:or\s+replace\s+)?function\s+([\w.]+)[\s\S]*?\$(\w*)\$/gi;

  for (const m of sql.matchAll(re)) {
    if (/security\s+definer/i.test(m[0])
      && !/set\s+search_path\s*(=|to)\s*pg_catalog/i.test(m[0])) {
      report(sql.slice(0, m.index).split('\n').length - 1,
        `${m[1]} is SECURITY DEFINER without its search_path`);
    }
  }
}

/* ---- the run ---- */

const ALLOW = /lint: allow ([a-z]+)/;

function check(file, found) {
  const text = fs.readFileSync(path.join(ROOT, file), 'utf8');
  const lines = text.split('\n');

  if (lines.at(-1) === '') lines.pop();
  const unit = { file, text, lines, code: lines };

  if (ANY_C.test(file)) {
    unit.code = blank(text).split('\n').slice(0, lines.length);
  }
  const allowed = new Map(); /* line -> [rule, used] */

  lines.forEach((l, i) => {
    const m = ALLOW.exec(l);

    if (m && !file.startsWith('t/lint/')) allowed.set(i, { rule: m[1] });
  });

  const report = (rule, i, sentence) => {
    for (const at of [i, i - 1]) {
      const a = allowed.get(at);

      if (a?.rule === rule) {
        a.used = true;
        return;
      }
    }
    found.push(`${file}:${i + 1}: ${sentence} (${rule})`);
  };

  for (const rule of RULES) {
    if (!rule.files?.test(file) || rule.not?.test(file)) continue;
    if (rule.whole) rule.whole(unit, (i, s) => report(rule.name, i, s));
    if (rule.line) {
      (rule.code ? unit.code : lines).forEach((l, i) => {
        const sentence = rule.line(l, file);

        if (sentence) report(rule.name, i, sentence);
      });
    }
  }

  for (const [i, a] of allowed) {
    if (!a.used) {
      found.push(`${file}:${i + 1}: nothing needs this permission (${a.rule})`);
    }
  }
}

/* Other people's vectors and fuzz seeds are as they are. */
const FOREIGN_FILES = /^t\/(data|fuzz\/corpus)\//;

function tracked() {
  return execFileSync('git', ['-C', ROOT, 'ls-files', '-z'])
    .toString().split('\0').filter(Boolean)
    .filter((f) => !FOREIGN_FILES.test(f))
    .filter((f) => fs.existsSync(path.join(ROOT, f)));
}

const files = process.argv.length > 2 ? process.argv.slice(2) : tracked();
const found = [];

for (const file of files.filter((f) => TEXT.test(f))) check(file, found);
if (process.argv.length === 2) {
  for (const rule of RULES.filter((r) => r.tree)) {
    rule.tree(files, (file, i, s) =>
      found.push(`${file}:${i + 1}: ${s} (${rule.name})`));
  }
}

if (found.length) {
  console.log(found.join('\n'));
  process.exit(1);
}
