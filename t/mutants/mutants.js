/*
 * One fault per derivation: what a careless change could break, and the
 * derived test that must notice, or a test of another folder by its path.
 * `to` is put in place of `from`, which occurs once in the file; `$` in it is
 * true when this fault is switched on.  Rules that live in SQL get another
 * body instead: `sql`.
 */

export const MUTANTS = [
  {
    name: 'routing: a last slash is forgiven',
    file: 'shared/stoa_route.c',
    from: '    match->nparams = 0;\n\n    if (uri.len == 0',
    to: `    match->nparams = 0;

    if ($ && uri.len > 1 && uri.data[uri.len - 1] == '/') {
        uri.len--;
    }

    if (uri.len == 0`,
    test: 'routing', pattern: 'what is near a path',
  },
  {
    name: 'routing: the older prefix /v1 is forgotten',
    file: 'shared/stoa_route.c',
    from: '        ep = stoa_route_row(api, &api->aliases[i]);\n',
    to: `        if ($ && memcmp(api->aliases[i].path, "/v1/", 4) == 0) {
            continue;
        }

        ep = stoa_route_row(api, &api->aliases[i]);\n`,
    test: 'paths', pattern: 'A-21 one event',
  },
  {
    name: '405: Allow says GET without HEAD',
    file: 'ngx_module/ngx_http_stoa_problem.c',
    from: 'stoa_buf_z(&b, names[m]);',
    to: 'stoa_buf_z(&b, $ && m == STOA_GET ? "GET, " : names[m]);',
    test: 'routing', pattern: 'a path has the methods of its rows',
  },
  {
    name: 'HEAD: is a method of no row',
    file: 'ngx_module/ngx_http_stoa_gate.c',
    from: '    case NGX_HTTP_GET:\n    case NGX_HTTP_HEAD:\n',
    to: `    case NGX_HTTP_HEAD:
        return $ ? 0 : STOA_GET;
    case NGX_HTTP_GET:\n`,
    test: 'routing', pattern: 'HEAD says what GET says',
  },
  {
    name: 'authorization: the roles of a row are not looked at',
    file: 'ngx_module/ngx_http_stoa_gate.c',
    from: '            && (gate->ep->who & (STOA_PUBLIC | gate->claims.roles)) == 0) {',
    to: `            && !$
            && (gate->ep->who & (STOA_PUBLIC | gate->claims.roles)) == 0) {`,
    test: 'rights', pattern: 'the roles of every row',
  },
  {
    name: 'authorization: a row without a token is served',
    file: 'ngx_module/ngx_http_stoa_gate.c',
    from: 'return (ep->who & STOA_PUBLIC) ? STOA_OK',
    to: 'return ($ || (ep->who & STOA_PUBLIC)) ? STOA_OK',
    test: 'rights', pattern: 'I-41: nobody',
  },
  {
    name: 'keys: scopes are not looked at',
    file: 'ngx_module/ngx_http_stoa_gate.c',
    from: 'return stoa_scope_allows(gate->scopes, ep) ? STOA_OK',
    to: 'return $ || stoa_scope_allows(gate->scopes, ep) ? STOA_OK',
    test: 'keys', pattern: 'a key with one scope',
  },
  {
    name: 'keys: reading is as good as writing',
    file: 'shared/api/stoa_api_scope.c',
    from: 'ep->method == STOA_GET ? "read" : "write"',
    to: '$ || ep->method == STOA_GET ? "read" : "write"',
    test: 'keys', pattern: 'scopes are those of the rows',
  },
  {
    name: 'keys: rows of people are open to them',
    file: 'ngx_module/ngx_http_stoa_gate.c',
    from: ': !(ep->via & (STOA_VIA_KEY | STOA_VIA_ANY_KEY)))',
    to: ': !$ && !(ep->via & (STOA_VIA_KEY | STOA_VIA_ANY_KEY)))',
    test: 'keys', pattern: 'a key for everything',
  },
  {
    name: 'keys: an admin does everything in somebody\'s name',
    file: 'ngx_module/ngx_http_stoa_gate.c',
    from: 'return gate->claims.acting && (ep == NULL',
    to: 'return !$ && gate->claims.acting && (ep == NULL',
    test: 'keys', pattern: 'an admin in somebody',
  },
  {
    name: 'authorization: everybody is an admin to the statements',
    file: 'ngx_module/ngx_http_stoa_args.c',
    from: '? q->gate->claims.roles : 0);',
    to: '? q->gate->claims.roles | ($ ? STOA_ADMIN : 0) : 0);',
    test: 'rights', pattern: 'own, foreign and missing',
  },
  {
    name: 'step-up: how old the code is does not matter',
    file: 'ngx_module/ngx_http_stoa_gate.c',
    from: '< claims->auth_time + mcf->conf.step_up_ttl',
    to: '< claims->auth_time + mcf->conf.step_up_ttl + ($ ? 1000000 : 0)',
    test: 'step_up', pattern: 'who has a factor',
  },
  {
    name: 'step-up: a password is as good as a code',
    file: 'ngx_module/ngx_http_stoa_gate.c',
    from: 'return (claims->amr & STOA_AMR_MFA)',
    to: 'return ($ || (claims->amr & STOA_AMR_MFA))',
    test: 'step_up', pattern: 'who has a factor',
  },
  {
    name: 'step-up: who must have a factor is not told',
    file: 'ngx_module/ngx_http_stoa_gate.c',
    from: '    must = gate->ep->step_up == STOA_STEP_UP_OTHERS',
    to: '    must = !$ && gate->ep->step_up == STOA_STEP_UP_OTHERS',
    test: 'step_up', pattern: 'who has none',
  },
  {
    name: 'step-up: a key is a way around the factor',
    file: 'ngx_module/ngx_http_stoa_gate.c',
    from: '    if (!claims->mfa) {\n',
    to: '    if (!claims->mfa && !($ && gate->by_key)) {\n',
    test: 'step_up', pattern: 'a key is no way around it',
  },
  {
    name: 'limits: a session is renewed at the cost of its address',
    file: 'ngx_module/ngx_http_stoa_limit.c',
    from: '    limit = session != NULL ? &mcf->limit_user[STOA_RATE_REFRESH]',
    to: `    limit = session != NULL && !$
        ? &mcf->limit_user[STOA_RATE_REFRESH]`,
    test: 'security/limits', pattern: 'one session is refused',
  },
  {
    name: 'validation: required members may be absent',
    file: 'shared/stoa_input.c',
    from: '        if ((seen >> i & 1) == 0 &&',
    to: '        if (!$ && (seen >> i & 1) == 0 &&',
    test: 'input', pattern: 'bodies: each field',
  },
  {
    name: 'validation: an upper bound is one too high',
    file: 'shared/stoa_input_scalar.c',
    from: 'if ((int64_t) n > field->max) {',
    to: 'if ((int64_t) n > field->max + $) {',
    test: 'input', pattern: 'bodies: each field',
  },
  {
    name: 'validation: a lower bound excludes itself',
    file: 'shared/stoa_input_scalar.c',
    from: '    if (n < field->min) {',
    to: '    if (n < field->min + $) {',
    test: 'input', pattern: 'what lies on a bound',
  },
  {
    name: 'validation: unknown members are passed over',
    file: 'shared/stoa_input.c',
    from: `        if (fields[i].name == NULL) {
            (void) stoa_input_unknown(in, fields, member.name, &member);`,
    to: `        if (fields[i].name == NULL && $) {
            continue;
        }

        if (fields[i].name == NULL) {
            (void) stoa_input_unknown(in, fields, member.name, &member);`,
    test: 'input', pattern: 'bodies: each field',
  },
  {
    name: 'validation: the second spelling wins',
    file: 'shared/stoa_input.c',
    from: '        if (seen >> i & 1) {',
    to: '        if (!$ && (seen >> i & 1)) {',
    test: 'input', pattern: 'bodies: each field',
  },
  {
    name: 'limits: writing counts as reading',
    file: 'ngx_module/ngx_http_stoa_gate.c',
    from: '    cls = ep != NULL ? ep->rate : STOA_RATE_READ;',
    to: `    cls = ep != NULL && !($ && ep->rate == STOA_RATE_WRITE)
              ? ep->rate : STOA_RATE_READ;`,
    test: 'limits', pattern: 'with a token a row counts by account',
  },
  {
    name: 'limits: the row\'s cost is not looked at',
    file: 'ngx_module/ngx_http_stoa_gate.c',
    from: 'gate->ep->cost != 0 ? gate->ep->cost : 1;',
    to: 'gate->ep->cost != 0 && !$ ? gate->ep->cost : 1;',
    test: 'limits', pattern: 'a row takes of its class what it costs',
  },
  {
    name: 'limits: looked at and charged in two steps',
    file: 'ngx_module/ngx_http_stoa_limit.c',
    from: '    /* all or none; those that have a place first,',
    to: `    if ($) {
        ngx_http_stoa_unlock(&sh->rate_lock);
        (void) usleep(500);
        ngx_http_stoa_lock(&sh->rate_lock);
    }

    /* all or none; those that have a place first,`,
    test: 'invariants/limits', pattern: 'one node',
  },
  {
    name: 'limits: each node counts those of the cluster by itself',
    file: 'ngx_module/ngx_http_stoa_cluster.c',
    from: '    if (ngx_http_stoa_process.redis == NULL\n' +
      '        || !stoa_redis_ready(ngx_http_stoa_process.redis))\n' +
      '    {\n        return 0;',
    to: `    if ($ || ngx_http_stoa_process.redis == NULL
        || !stoa_redis_ready(ngx_http_stoa_process.redis))
    {
        return 0;`,
    test: 'invariants/limits', pattern: 'two nodes, counted by Redis',
  },
  {
    name: 'limits: nothing is reserved for a failure',
    file: 'ngx_module/ngx_http_stoa_gate.c',
    from: '    take->cost = cost;\n\n    return NGX_OK;',
    to: `    take->cost = $ && limit->failure ? 0 : cost;

    return NGX_OK;`,
    test: 'invariants/limits', pattern: 'failures: as many are let through',
  },
  {
    name: 'limits: a full table forgets who is nearest to the end of his time',
    file: 'ngx_module/ngx_http_stoa_limit_slot.c',
    from: '            share = ngx_http_stoa_slot_share(s, now);',
    to: '            share = $ ? s->tat / s->rate\n' +
      '                      : ngx_http_stoa_slot_share(s, now);',
    test: 'security/limits', pattern: 'random keys do not make it forget',
  },
  {
    name: 'accounts: nothing is hashed for an address that nobody has',
    file: 'ngx_module/ngx_http_stoa_flow_auth.c',
    from: `    stored = ngx_http_stoa_flow_column(q, "hash");
    q->resume = ngx_http_stoa_flow_resume;`,
    to: `    stored = ngx_http_stoa_flow_column(q, "hash");
    q->resume = ngx_http_stoa_flow_resume;

    if ($ && stored.len == 0) {
        return ngx_http_stoa_flow_fail(q, STOA_E_INVALID_CREDENTIALS);
    }`,
    test: 'invariants/identity', pattern: 'I-40: as many hashes for either',
  },
  {
    name: 'accounts: a start forgets who has to wait',
    file: 'ngx_module/ngx_http_stoa_rate.c',
    from: '        s->fails = fails + s->added;\n',
    to: '        s->fails = ($ ? 0 : fails) + s->added;\n',
    test: 'invariants/identity', pattern: 'I-42: guesses stay counted',
  },
  {
    name: 'accounts: a node keeps its count of guesses to itself',
    file: 'ngx_module/ngx_http_stoa_rate.c',
    from: '    if (s != NULL && !s->anew) {\n',
    to: '    if (s != NULL && !s->anew && (!$ || s->last_ms == 0)) {\n',
    test: 'invariants/identity', pattern: 'I-42: guesses at one node',
  },
  {
    name: 'accounts: many addresses make many guessers',
    file: 'ngx_module/ngx_http_stoa_rate.c',
    from: '            if (guess.known[by]) {\n',
    to: '            if (guess.known[by] && !($ && by != 0)) {\n',
    test: 'security/bruteforce', pattern: 'an account has a count of its own',
  },
  {
    name: 'accounts: a stranger locks the owner out, from everywhere',
    file: 'ngx_module/ngx_http_stoa_rate.c',
    from: '            if (s->good) {\n',
    to: '            if (s->good && !$) {\n',
    test: 'security/bruteforce', pattern: 'an account has a count of its own',
  },
  {
    name: 'revocation: tokens of an older epoch are good',
    file: 'ngx_module/ngx_http_stoa_revoke.c',
    from: '        ngx_http_stoa_revoke_put(sh, &key, NGX_HTTP_STOA_REVOKE_USER,\n' +
      '                                 (ngx_atomic_uint_t) n,',
    to: `        ngx_http_stoa_revoke_put(sh, &key, NGX_HTTP_STOA_REVOKE_USER,
                                 $ ? 0 : (ngx_atomic_uint_t) n,`,
    test: 'invariants/identity', pattern: 'I-39: a reset token in ten hands',
  },
  {
    name: 'lifetime: hashes are made for those who left',
    file: 'ngx_module/ngx_http_stoa_hash.c',
    from: '    h = q->hashing;\n    q->hashing = NULL;\n    h->q = NULL;\n',
    to: `    h = q->hashing;
    q->hashing = NULL;
    h->q = NULL;

    if ($) {
        return;
    }
`,
    test: 'security/cancelled', pattern: 'hashes that wait for nobody',
  },
  {
    name: 'columns: a development row is there in production',
    file: 'ngx_module/ngx_http_stoa_gate.c',
    from: '    if (ep->development && ',
    to: '    if (!$ && ep->development && ',
    test: 'columns', pattern: 'a development row',
  },
  {
    name: 'columns: If-Match is never required',
    file: 'ngx_module/ngx_http_stoa_idem.c',
    from: 'return q->ep->if_match && ngx_http_stoa_lcf(q->r)->if_match == 1',
    to: 'return !$ && q->ep->if_match && ngx_http_stoa_lcf(q->r)->if_match == 1',
    test: 'columns', pattern: 'where If-Match is required',
  },
  {
    name: 'columns: no write is keyed',
    file: 'ngx_module/ngx_http_stoa_idem.c',
    from: '    if (!q->ep->keyed) {',
    to: '    if ($ || !q->ep->keyed) {',
    test: 'columns', pattern: 'a keyed row stores',
  },
  {
    name: 'openapi: a member has a wrong type',
    file: 'shared/api/stoa_api_openapi.c',
    from: '    stoa_openapi_object(o, "x-stoa");\n',
    to: `    if ($) {
        stoa_openapi_raw(o, "deprecated", "1");
    }

    stoa_openapi_object(o, "x-stoa");\n`,
    test: 'openapi', pattern: 'redocly finds nothing wrong',
  },
  {
    name: 'openapi: no operation is a DELETE',
    file: 'shared/api/stoa_api_openapi.c',
    from: 'if (stoa_openapi_same_path(ep->path, other->path)) {',
    to: `if (stoa_openapi_same_path(ep->path, other->path)
                && !($ && other->method == STOA_DELETE)) {`,
    test: 'openapi', pattern: 'it lists exactly the rows',
  },
  {
    name: 'statements: those of flows are not prepared',
    file: 'workers/cmd_check.c',
    from: 'ok && i < STOA_STMT_COUNT; i++) {',
    to: 'ok && !($ && i != 0) && i < STOA_STMT_COUNT; i++) {',
    test: 'statements', pattern: 'a function that a flow',
  },
  {
    name: 'statements: keyed ones are not prepared',
    file: 'workers/cmd_check.c',
    from: '    const char *id = b->ep->id;\n',
    to: `    const char *id = b->ep->id;

    if ($ && b->keyed != NULL) {
        return true;
    }\n`,
    test: 'statements', pattern: 'a function that is gone',
  },
  {
    name: 'metrics: rows are counted under no name',
    file: 'ngx_module/ngx_http_stoa_metric.c',
    from: 'm = &sh->routes[gate->ep != NULL ? gate->row',
    to: 'm = &sh->routes[gate->ep != NULL && !$ ? gate->row',
    test: 'metrics', pattern: 'one group of series per row',
  },
  {
    name: 'metrics: a label that grows with what clients send',
    file: 'ngx_module/ngx_http_stoa_print.c',
    from: '(unsigned) cls,\n',
    to: '$ ? (unsigned) n : (unsigned) cls,\n',
    test: 'metrics', pattern: 'ids, names and agents make no series',
  },
  {
    name: 'manual: settings with an alias are left out',
    file: 'shared/stoa_manual.c',
    from: '    e->name = row->key;\n',
    to: '    e->name = $ && row->alias != NULL ? NULL : row->key;\n',
    test: 'manual', pattern: 'every row is in the manual',
  },
  {
    name: 'manual: a default is told that is not read',
    file: 'ngx_module/ngx_http_stoa_module.c',
    from: '    rv = cmd->set(cf, cmd, mcf);\n    cf->args = args;\n',
    to: `    rv = $ && ngx_strcmp(cmd->name.data, "stoa_limit") == 0
           ? NGX_CONF_OK : cmd->set(cf, cmd, mcf);
    cf->args = args;\n`,
    test: 'manual', pattern: 'without a directive the defaults',
  },
  {
    name: "envelope: nginx's own page for 414",
    file: 'ngx_module/ngx_http_stoa_filter.c',
    from: '        return STOA_E_URI_TOO_LONG;',
    to: '        return $ ? STOA_OK : STOA_E_URI_TOO_LONG;',
    test: 'paths', pattern: 'own answer to a long address',
  },
  {
    name: 'relations: every event is everybody\'s',
    sql: `create or replace function app.event_can(ctx api.ctx, event uuid,
        relation text) returns boolean language sql stable
      set search_path = pg_catalog, pg_temp
      as $$ select exists (select from app.events e where e.id = event) $$`,
    test: 'rights', pattern: 'own, foreign and missing',
  },
  {
    name: 'relations: who may scan may manage',
    sql: `create or replace function app.event_can(ctx api.ctx, event uuid,
        relation text) returns boolean language sql stable
      set search_path = pg_catalog, pg_temp
      as $$ select exists (select from app.events e where e.id = event)
        and (app.is_admin(ctx) or exists (select from api.acl_event a
          where a.id = event and a.user_id = (ctx).actor)) $$`,
    test: 'rights', pattern: 'own, foreign and missing',
  },
  {
    name: 'relations: a ticket is whose who asks',
    sql: `create or replace function app.ticket_own(ctx api.ctx,
        t app.tickets) returns boolean language sql stable
      as $$ select t.state <> 'reserved' $$`,
    test: 'rights', pattern: 'own, foreign and missing',
  },
];
