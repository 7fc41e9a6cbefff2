/*
 * Values to parameters, by the row's compiled arguments (shared/stoa_bind.h):
 * what the request carries, who asks, and what is made here (ids, sums).
 * The only place that writes array and composite literals.
 */

#include "ngx_http_stoa.h"

static ngx_int_t    ngx_http_stoa_array(stoa_mem_t *mem, const stoa_arg_t *arg,
                                        ngx_http_stoa_ctx_t **qs, ngx_uint_t n,
                                        stoa_buf_t *b);
static void         ngx_http_stoa_array_text(stoa_buf_t *b, ngx_uint_t k,
                                             stoa_value_t one);
static stoa_value_t ngx_http_stoa_arg(ngx_http_stoa_ctx_t *q,
                                      const stoa_arg_t    *arg);
static stoa_value_t ngx_http_stoa_arg_text(ngx_http_stoa_ctx_t *q,
                                           const stoa_arg_t    *arg);
static stoa_value_t ngx_http_stoa_arg_int(ngx_http_stoa_ctx_t *q, int64_t n);
static stoa_value_t ngx_http_stoa_arg_uuid(ngx_http_stoa_ctx_t *q,
                                           const stoa_uuid_t   *u);
static stoa_value_t ngx_http_stoa_arg_roles(ngx_http_stoa_ctx_t *q);
static stoa_value_t ngx_http_stoa_arg_raw(ngx_http_stoa_ctx_t *q);
static stoa_value_t ngx_http_stoa_arg_lang(ngx_http_stoa_ctx_t *q);
static void         ngx_http_stoa_quote(stoa_buf_t *b, stoa_str_t s);

ngx_int_t
ngx_http_stoa_sql_values(stoa_mem_t *mem, const stoa_bound_t *bound,
                         ngx_http_stoa_ctx_t **qs, ngx_uint_t n,
                         ngx_uint_t arrays, const char *const **values,
                         const int **lens)
{
    int              *l;
    char            **v;
    ngx_uint_t        i;
    stoa_buf_t        b;
    stoa_value_t      one;
    const stoa_arg_t *arg;

    v = stoa_alloc(mem, (bound->nargs + 1u) * sizeof(char *));
    l = stoa_alloc(mem, (bound->nargs + 1u) * sizeof(int));
    if (v == NULL || l == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < bound->nargs; i++) {
        arg = &bound->args[i];

        if (!arrays || arg->kind == STOA_ARG_IDEM_SCOPE
            || arg->kind == STOA_ARG_IDEM_KEY
            || arg->kind == STOA_ARG_IDEM_PRINT)
        {
            one = ngx_http_stoa_arg(qs[0], arg);

            v[i] = one.data != NULL ? stoa_strdup_z(mem, one) : NULL;
            l[i] = (int) one.len;

            if (one.data != NULL && v[i] == NULL) {
                return NGX_ERROR;
            }

            continue;
        }

        switch (ngx_http_stoa_array(mem, arg, qs, n, &b)) {

        case NGX_OK:
            v[i] = (char *) b.data;
            l[i] = (int) b.len;
            break;

        case NGX_DECLINED:
            v[i] = NULL;
            l[i] = 0;
            break;

        default:
            return NGX_ERROR;
        }
    }

    *values = (const char *const *) v;
    *lens = l;

    return NGX_OK;
}

ngx_int_t
ngx_http_stoa_sql_arrays(stoa_mem_t *mem, ngx_http_stoa_ctx_t **qs,
                         ngx_uint_t count, ngx_uint_t n,
                         const char *const **values, const int **lens)
{
    int         *l;
    char       **v;
    ngx_uint_t   i, k;
    stoa_buf_t   b;
    stoa_value_t one;

    v = stoa_alloc(mem, n * sizeof(char *));
    l = stoa_alloc(mem, n * sizeof(int));
    if (v == NULL || l == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < n; i++) {
        stoa_buf_init(&b, mem, 32 + 48 * count, (size_t) 1 << 30);

        for (k = 0; k < count; k++) {
            one.data = (unsigned char *) qs[k]->sent_values[i];
            one.len = (size_t) qs[k]->sent_lens[i];
            ngx_http_stoa_array_text(&b, k, one);
        }

        stoa_buf_char(&b, '}');
        stoa_buf_nul(&b);

        if (b.failed) {
            return NGX_ERROR;
        }

        v[i] = (char *) b.data;
        l[i] = (int) b.len;
    }

    *values = (const char *const *) v;
    *lens = l;

    return NGX_OK;
}

/* NGX_DECLINED: nulls only, for which a null array stands at less cost. */
static ngx_int_t
ngx_http_stoa_array(stoa_mem_t *mem, const stoa_arg_t *arg,
                    ngx_http_stoa_ctx_t **qs, ngx_uint_t n, stoa_buf_t *b)
{
    ngx_uint_t   k, some;
    stoa_value_t one;

    stoa_buf_init(b, mem, 32 + 48 * n, (size_t) 1 << 30);
    some = 0;

    if (arg->elem != STOA_PG_ELEM_NONE) {
        stoa_pg_array_begin(b, arg->elem, (uint32_t) n);
    }

    for (k = 0; k < n; k++) {

        if (arg->kind == STOA_ARG_ORD) {
            stoa_pg_array_int4(b, (int32_t) k + 1);
            some = 1;
            continue;
        }

        one = ngx_http_stoa_arg(qs[k], arg);
        some |= one.data != NULL;

        if (arg->elem != STOA_PG_ELEM_NONE) {
            if (!stoa_pg_array_put(b, arg->elem, one)) {
                return NGX_ERROR;
            }

            continue;
        }

        ngx_http_stoa_array_text(b, k, one);
    }

    if (!some) {
        return NGX_DECLINED;
    }

    if (arg->elem == STOA_PG_ELEM_NONE) {
        stoa_buf_char(b, '}');
        stoa_buf_nul(b);
    }

    return b->failed ? NGX_ERROR : NGX_OK;
}

/* The k-th element of an array's text. */
static void
ngx_http_stoa_array_text(stoa_buf_t *b, ngx_uint_t k, stoa_value_t one)
{
    stoa_buf_char(b, k == 0 ? '{' : ',');

    if (one.data == NULL) {
        stoa_buf_z(b, "NULL");

    } else {
        ngx_http_stoa_quote(b, one);
    }
}

/* api.ctx: (actor,roles,session,device,ip,request_id,lang,reply_to,event,
   acting_as,api_key) */
stoa_str_t
ngx_http_stoa_ctx_literal(ngx_http_stoa_ctx_t *q)
{
    stoa_buf_t               b;
    stoa_str_t               s;
    ngx_http_stoa_gate_t    *gate;
    ngx_http_stoa_process_t *ps;

    if (q->ctx_literal.data != NULL) {
        return q->ctx_literal;
    }

    gate = q->gate;
    ps = &ngx_http_stoa_process;

    stoa_buf_init(&b, &q->mem, 384, 2048);
    stoa_buf_char(&b, '(');

    if (gate->authenticated && !(gate->claims.roles & STOA_DEVICE)) {
        stoa_buf_uuid(&b, &gate->claims.sub);
    }

    stoa_buf_char(&b, ',');
    ngx_http_stoa_quote(&b, ngx_http_stoa_arg_roles(q));
    stoa_buf_char(&b, ',');

    if (ngx_http_stoa_own_session(gate)) {
        stoa_buf_uuid(&b, &gate->claims.sid);
    }

    stoa_buf_char(&b, ',');

    if (gate->authenticated && (gate->claims.roles & STOA_DEVICE)) {
        stoa_buf_uuid(&b, &gate->claims.sub);
    }

    stoa_buf_char(&b, ',');
    s.data = q->r->connection->addr_text.data;
    s.len = q->r->connection->addr_text.len;
    ngx_http_stoa_quote(&b, s);

    stoa_buf_char(&b, ',');
    s.data = gate->request_id;
    s.len = sizeof(gate->request_id);
    ngx_http_stoa_quote(&b, s);

    stoa_buf_char(&b, ',');
    ngx_http_stoa_quote(&b, ngx_http_stoa_arg_lang(q));

    stoa_buf_char(&b, ',');
    s.data = ps->reply_to;
    s.len = ps->reply_to_len;
    ngx_http_stoa_quote(&b, s);

    stoa_buf_char(&b, ',');

    if (gate->authenticated && (gate->claims.roles & STOA_DEVICE)) {
        stoa_buf_uuid(&b, &gate->claims.event);
    }

    stoa_buf_char(&b, ',');

    if (gate->authenticated && gate->claims.acting) {
        stoa_buf_uuid(&b, &gate->claims.act);
    }

    stoa_buf_char(&b, ',');

    if (gate->by_key) {
        stoa_buf_uuid(&b, &gate->claims.sid);
    }

    stoa_buf_char(&b, ')');

    if (!b.failed) {
        q->ctx_literal = stoa_buf_view(&b);
    }

    return q->ctx_literal;
}

static stoa_value_t
ngx_http_stoa_arg(ngx_http_stoa_ctx_t *q, const stoa_arg_t *arg)
{
    stoa_value_t          none = stoa_null_string;
    ngx_http_stoa_gate_t *gate;

    gate = q->gate;

    switch (arg->kind) {

    case STOA_ARG_CTX:
        return ngx_http_stoa_ctx_literal(q);

    case STOA_ARG_ACTOR:
        return gate->authenticated && !(gate->claims.roles & STOA_DEVICE)
                 ? ngx_http_stoa_arg_uuid(q, &gate->claims.sub)
                 : none;

    case STOA_ARG_SESSION:
        return ngx_http_stoa_own_session(gate)
                 ? ngx_http_stoa_arg_uuid(q, &gate->claims.sid)
                 : none;

    case STOA_ARG_ACTING_AS:
        return gate->authenticated && gate->claims.acting
                 ? ngx_http_stoa_arg_uuid(q, &gate->claims.act)
                 : none;

    case STOA_ARG_API_KEY:
        return gate->by_key ? ngx_http_stoa_arg_uuid(q, &gate->claims.sid)
                            : none;

    case STOA_ARG_DEVICE:
        return gate->authenticated && (gate->claims.roles & STOA_DEVICE)
                 ? ngx_http_stoa_arg_uuid(q, &gate->claims.sub)
                 : none;

    case STOA_ARG_DEVICE_EVENT:
        return gate->authenticated && (gate->claims.roles & STOA_DEVICE)
                 ? ngx_http_stoa_arg_uuid(q, &gate->claims.event)
                 : none;

    case STOA_ARG_ROLES:
        return ngx_http_stoa_arg_roles(q);

    case STOA_ARG_NEW_ID:
        if (!stoa_id_next(&ngx_http_stoa_process.ids, &q->new_id)) {
            return none;
        }

        return ngx_http_stoa_arg_uuid(q, &q->new_id);

    case STOA_ARG_IF_MATCH:
        if (q->if_match == -1 || q->if_match == -2) {
            return none;
        }

        return ngx_http_stoa_arg_int(q, q->if_match < 0 ? -1 : q->if_match);

    case STOA_ARG_LIMIT:
        return ngx_http_stoa_arg_int(q, (int64_t) q->limit);

    case STOA_ARG_OFFSET:
        return ngx_http_stoa_arg_int(q, (int64_t) ((q->page - 1) * q->limit));
    case STOA_ARG_RAW:
        return ngx_http_stoa_arg_raw(q);

    case STOA_ARG_PATH:
        return q->path_values[arg->index];

    case STOA_ARG_QUERY:
        return q->query_values != NULL
                 ? q->query_values[arg->field - q->ep->query]
                 : none;

    case STOA_ARG_FIELD:
        return q->body_values != NULL ? q->body_values[arg->field - q->ep->body]
                                      : none;

    case STOA_ARG_ORD:
        return ngx_http_stoa_arg_int(q, 1);

    case STOA_ARG_IP:
    case STOA_ARG_REQUEST_ID:
    case STOA_ARG_LANG:
    case STOA_ARG_BODY:
    case STOA_ARG_CODES:
    case STOA_ARG_CURSOR:
    case STOA_ARG_HEADER:
    case STOA_ARG_HASH:
    case STOA_ARG_PROVIDER:
    case STOA_ARG_IDEM_SCOPE:
    case STOA_ARG_IDEM_KEY:
    case STOA_ARG_IDEM_PRINT:
        break;
    }

    return ngx_http_stoa_arg_text(q, arg);
}

static stoa_value_t
ngx_http_stoa_arg_text(ngx_http_stoa_ctx_t *q, const stoa_arg_t *arg)
{
    size_t       i;
    char         name[64];
    stoa_value_t v = stoa_null_string;

    switch (arg->kind) {

    case STOA_ARG_IP:
        v.data = q->r->connection->addr_text.data;
        v.len = q->r->connection->addr_text.len;
        return v;

    case STOA_ARG_REQUEST_ID:
        v.data = q->gate->request_id;
        v.len = sizeof(q->gate->request_id);
        return v;

    case STOA_ARG_LANG:
        return ngx_http_stoa_arg_lang(q);

    case STOA_ARG_BODY:
        return q->canonical;

    case STOA_ARG_CODES:
        return q->codes;

    case STOA_ARG_CURSOR:
        return q->cursor;

    case STOA_ARG_HASH:
        return q->hash;

    case STOA_ARG_PROVIDER:
        return q->provider;

    case STOA_ARG_IDEM_SCOPE:
        return ngx_http_stoa_idem_scope(q);

    case STOA_ARG_IDEM_KEY:
        return q->idem_key;

    case STOA_ARG_IDEM_PRINT:
        return ngx_http_stoa_idem_print(q);

    case STOA_ARG_HEADER:
        for (i = 0; arg->name[i] != '\0' && i < sizeof(name) - 1; i++) {
            name[i] = arg->name[i] == '_' ? '-' : arg->name[i];
        }

        name[i] = '\0';
        v = ngx_http_stoa_header_in(q->r, name);

        if (v.len > 512) {
            v.len = 512;
        }

        return stoa_str_utf8(v, NULL) ? v : (stoa_value_t) stoa_null_string;

    default: /* the other kinds are in ngx_http_stoa_arg() */
        return v;
    }
}

static stoa_value_t
ngx_http_stoa_arg_int(ngx_http_stoa_ctx_t *q, int64_t n)
{
    stoa_buf_t b;

    stoa_buf_init(&b, &q->mem, 24, 24);
    stoa_buf_int(&b, n);

    return stoa_buf_view(&b);
}

static stoa_value_t
ngx_http_stoa_arg_uuid(ngx_http_stoa_ctx_t *q, const stoa_uuid_t *u)
{
    stoa_buf_t b;

    stoa_buf_init(&b, &q->mem, 40, 40);
    stoa_buf_uuid(&b, u);

    return stoa_buf_view(&b);
}

static stoa_value_t
ngx_http_stoa_arg_roles(ngx_http_stoa_ctx_t *q)
{
    stoa_buf_t b;

    stoa_buf_init(&b, &q->mem, 64, 256);
    stoa_roles_print(&b, q->gate->authenticated ? q->gate->claims.roles : 0);

    return stoa_buf_view(&b);
}

/* bytea's hex text */
static stoa_value_t
ngx_http_stoa_arg_raw(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t v = stoa_null_string;

    v.data = ngx_pnalloc(q->r->pool, 2 + 2 * q->raw.len);
    if (v.data == NULL) {
        return v;
    }

    v.data[0] = '\\';
    v.data[1] = 'x';
    stoa_hex_encode((char *) v.data + 2, q->raw.data, q->raw.len);
    v.len = 2 + 2 * q->raw.len;

    return v;
}

/* The first tag of Accept-Language when it is one, else "en". */
static stoa_value_t
ngx_http_stoa_arg_lang(ngx_http_stoa_ctx_t *q)
{
    u_char       c;
    size_t       i;
    stoa_value_t v;

    if (q->lang.data != NULL) {
        return q->lang;
    }

    v = ngx_http_stoa_header_in(q->r, "accept-language");

    for (i = 0; i < v.len && i < 35; i++) {
        c = (u_char) (v.data[i] | 0x20);

        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')
              || v.data[i] == '-')) {
            break;
        }
    }

    if (i >= 2 && (i == v.len || v.data[i] == ',' || v.data[i] == ';')) {
        v.len = i;

    } else {
        v = (stoa_value_t) stoa_string("en");
    }

    q->lang = v;

    return v;
}

/* An element of an array or a composite: "..." with \ and " escaped. */
static void
ngx_http_stoa_quote(stoa_buf_t *b, stoa_str_t s)
{
    size_t i, from;

    stoa_buf_char(b, '"');

    for (i = 0, from = 0; i < s.len; i++) {
        if (s.data[i] == '"' || s.data[i] == '\\') {
            stoa_buf_put(b, s.data + from, i - from);
            stoa_buf_char(b, '\\');
            from = i;
        }
    }

    stoa_buf_put(b, s.data + from, s.len - from);
    stoa_buf_char(b, '"');
}
