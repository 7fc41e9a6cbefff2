/*
 * Rows that are one statement: values to parameters by the row's compiled
 * arguments, the statement on its pool, and its answer row by column names
 * to the reply.
 *
 * The only place that writes array and composite literals.  A statement that
 * lost a race (40001, 40P01; a keyed one also 23505, which then replays) runs
 * once more.  The result lives as long as the request: its body is sent from
 * libpq's memory.
 */

#include "ngx_http_stoa.h"

static stoa_value_t ngx_http_stoa_arg(ngx_http_stoa_ctx_t *q,
                                      const stoa_arg_t *arg);
static stoa_value_t ngx_http_stoa_arg_text(ngx_http_stoa_ctx_t *q,
                                           const stoa_arg_t *arg);
static stoa_value_t ngx_http_stoa_arg_int(ngx_http_stoa_ctx_t *q, int64_t n);
static stoa_value_t ngx_http_stoa_arg_uuid(ngx_http_stoa_ctx_t *q,
                                           const stoa_uuid_t *u);
static stoa_value_t ngx_http_stoa_arg_roles(ngx_http_stoa_ctx_t *q);
static stoa_value_t ngx_http_stoa_arg_raw(ngx_http_stoa_ctx_t *q);
static stoa_value_t ngx_http_stoa_arg_lang(ngx_http_stoa_ctx_t *q);
static void ngx_http_stoa_quote(stoa_buf_t *b, stoa_str_t s);
static ngx_int_t ngx_http_stoa_sql_answered(ngx_http_stoa_ctx_t *q,
                                            stoa_err_e err);
static void ngx_http_stoa_sql_done(stoa_pg_op_t *op, stoa_err_e err,
                                   void *data);
static ngx_int_t ngx_http_stoa_sql_failed(ngx_http_stoa_ctx_t *q,
                                          stoa_pg_op_t *op, stoa_err_e err);
static ngx_int_t ngx_http_stoa_sql_send(ngx_http_stoa_ctx_t *q);
static void ngx_http_stoa_sql_free(void *data);
static stoa_str_t ngx_http_stoa_cell(const stoa_pg_result_t *res, int row,
                                     int col);
static ngx_int_t ngx_http_stoa_sql_media(ngx_http_stoa_ctx_t *q,
                                         const stoa_pg_result_t *res,
                                         const ngx_http_stoa_columns_t *cols,
                                         int row);
static stoa_str_t ngx_http_stoa_sql_meta(ngx_http_stoa_ctx_t *q,
                                         const stoa_pg_result_t *res,
                                         const ngx_http_stoa_columns_t *cols,
                                         int row);

ngx_int_t
ngx_http_stoa_sql_run(ngx_http_stoa_ctx_t *q)
{
    const int          *lens;
    ngx_uint_t          arrays;
    stoa_bound_t       *bound;
    const char *const  *values;

    arrays = 0;

    if (q->ep->list != NULL) {
        bound = q->cursored ? &q->bound->cursors[q->sort]
                            : &q->bound->pages[q->sort];

    } else if (q->keyed) {
        bound = q->bound->keyed;
        arrays = q->ep->batch != 0;

    } else {
        bound = q->bound->plain;
    }

    if (ngx_http_stoa_sql_values(&q->mem, bound, &q, 1, arrays, &values,
                                 &lens) != NGX_OK)
    {
        return ngx_http_stoa_reply_error(q, STOA_E_NO_MEMORY);
    }

    q->resume = ngx_http_stoa_sql_answered;

    return ngx_http_stoa_sql_submit(q, q->ep->pool, &bound->stmt, values,
                                    lens);
}

ngx_int_t
ngx_http_stoa_sql_submit(ngx_http_stoa_ctx_t *q, stoa_pool_e pool,
                         const stoa_pg_stmt_t *stmt,
                         const char *const *values, const int *lens)
{
    q->sent_pool = ngx_http_stoa_process.pool[pool];
    q->sent_stmt = stmt;
    q->sent_values = values;
    q->sent_lens = lens;

    return ngx_http_stoa_sql_send(q);
}

ngx_int_t
ngx_http_stoa_sql_values(stoa_mem_t *mem, const stoa_bound_t *bound,
                         ngx_http_stoa_ctx_t **qs, ngx_uint_t n,
                         ngx_uint_t arrays, const char *const **values,
                         const int **lens)
{
    int               *l;
    char             **v;
    ngx_uint_t         i, k;
    stoa_buf_t         b;
    stoa_value_t       one;
    const stoa_arg_t  *arg;

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

        stoa_buf_init(&b, mem, 32 + 48 * n, (size_t) 1 << 30);
        stoa_buf_char(&b, '{');

        for (k = 0; k < n; k++) {

            if (k != 0) {
                stoa_buf_char(&b, ',');
            }

            if (arg->kind == STOA_ARG_ORD) {
                stoa_buf_int(&b, (int64_t) k + 1);
                continue;
            }

            one = ngx_http_stoa_arg(qs[k], arg);

            if (one.data == NULL) {
                stoa_buf_z(&b, "NULL");

            } else {
                ngx_http_stoa_quote(&b, one);
            }
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

/* api.ctx: (actor,roles,session,device,ip,request_id,lang,reply_to,event) */
stoa_str_t
ngx_http_stoa_ctx_literal(ngx_http_stoa_ctx_t *q)
{
    stoa_buf_t                b;
    stoa_str_t                s;
    ngx_http_stoa_gate_t     *gate;
    ngx_http_stoa_process_t  *ps;

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

    if (gate->authenticated && !(gate->claims.roles & STOA_DEVICE)) {
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

    stoa_buf_char(&b, ')');

    if (!b.failed) {
        q->ctx_literal = stoa_buf_view(&b);
    }

    return q->ctx_literal;
}

void
ngx_http_stoa_sql_columns(const stoa_pg_result_t *res,
                          ngx_http_stoa_columns_t *cols)
{
    cols->status = stoa_pg_column(res, "status");
    cols->body = stoa_pg_column(res, "body");
    cols->meta = stoa_pg_column(res, "meta");
    cols->etag = stoa_pg_column(res, "etag");
    cols->emit = stoa_pg_column(res, "emit");
    cols->wait = stoa_pg_column(res, "wait");
    cols->at = stoa_pg_column(res, "at");
    cols->replayed = stoa_pg_column(res, "replayed");
    cols->ord = stoa_pg_column(res, "ord");
    cols->total = stoa_pg_column(res, "total");
    cols->next = stoa_pg_column(res, "next");
    cols->csv = stoa_pg_column(res, "csv");
    cols->type = stoa_pg_column(res, "type");
    cols->bytes = stoa_pg_column(res, "bytes");
}

ngx_int_t
ngx_http_stoa_sql_answer(ngx_http_stoa_ctx_t *q, const stoa_pg_result_t *res,
                         const ngx_http_stoa_columns_t *cols, int row)
{
    int64_t     status, wait;
    stoa_str_t  body, meta, cell;

    ngx_http_stoa_effects(ngx_http_stoa_cell(res, row, cols->emit),
                          q->r->connection->log);

    body = ngx_http_stoa_cell(res, row, cols->body);
    cell = ngx_http_stoa_cell(res, row, cols->status);
    status = q->ep->status != 0 ? q->ep->status : NGX_HTTP_OK;

    if (cell.data != NULL && !stoa_str_int(cell, 0, 599, &status)) {
        return ngx_http_stoa_reply_error(q, STOA_E_INTERNAL);
    }

    q->at = ngx_http_stoa_cell(res, row, cols->at);

    cell = ngx_http_stoa_cell(res, row, cols->replayed);
    if (cell.len == 1 && cell.data[0] == 't') {
        q->replayed = 1;
        ngx_http_stoa_metric_add(STOA_M_idempotent_replays, 1);
    }

    if (status == 0) {
        return ngx_http_stoa_reply_failure(q, body);
    }

    if (q->ep->media == STOA_MEDIA_CSV || q->ep->media == STOA_MEDIA_BYTES) {
        return ngx_http_stoa_sql_media(q, res, cols, row);
    }

    if (body.data == NULL && status != NGX_HTTP_NO_CONTENT
        && (cols->status < 0 || stoa_pg_null(res, row, cols->status)))
    {
        return ngx_http_stoa_reply_error(q, STOA_E_NOT_FOUND);
    }

    meta = q->ep->list != NULL ? ngx_http_stoa_sql_meta(q, res, cols, row)
                               : ngx_http_stoa_cell(res, row, cols->meta);

    cell = ngx_http_stoa_cell(res, row, cols->wait);

    if (cell.data != NULL && q->ep->wait_ms != 0 && !q->waited
        && !q->replayed && stoa_str_int(cell, 1, INT64_MAX, &wait))
    {
        return ngx_http_stoa_wait_park(q, wait, (ngx_int_t) status, body,
                                       meta);
    }

    return ngx_http_stoa_reply_answer(
        q, (ngx_int_t) status, body, meta,
        ngx_http_stoa_cell(res, row, cols->etag));
}

ngx_int_t
ngx_http_stoa_sql_keep(ngx_http_stoa_ctx_t *q, stoa_pg_result_t *res)
{
    ngx_pool_cleanup_t *cln;

    cln = ngx_pool_cleanup_add(q->r->pool, 0);

    if (cln == NULL) {
        stoa_pg_result_free(res);
        return NGX_ERROR;
    }

    cln->handler = ngx_http_stoa_sql_free;
    cln->data = res;
    q->res = res;

    return NGX_OK;
}

ngx_uint_t
ngx_http_stoa_sql_again(const stoa_pg_op_t *op)
{
    const char *state;

    state = stoa_pg_sqlstate(op);

    return ngx_strcmp(state, "40001") == 0 || ngx_strcmp(state, "40P01") == 0;
}

static void
ngx_http_stoa_sql_free(void *data)
{
    stoa_pg_result_free(data);
}

static ngx_int_t
ngx_http_stoa_sql_send(ngx_http_stoa_ctx_t *q)
{
    stoa_err_e err;

    if (q->sent_pool == NULL) {
        return ngx_http_stoa_reply_error(q, STOA_E_DATABASE_UNAVAILABLE);
    }

    err = STOA_OK;
    q->op = stoa_pg_submit(q->sent_pool, q->sent_stmt, q->sent_values,
                           q->sent_lens, q->ep->timeout_ms,
                           ngx_http_stoa_sql_done, q, &err);
    if (q->op == NULL) {

        if (err == STOA_E_POOL_SATURATED) {
            ngx_http_stoa_metric_add(STOA_M_pg_saturated, 1);
        }

        return ngx_http_stoa_reply_error(q, err);
    }

    q->r->connection->log->action = (char *) "waiting for postgres";

    return ngx_http_stoa_suspend(q);
}

static void
ngx_http_stoa_sql_done(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    ngx_int_t            rc;
    stoa_pg_result_t    *res;
    ngx_http_stoa_ctx_t *q;

    q = data;
    q->op = NULL;
    q->db_queries++;
    q->db_wait_us += stoa_pg_wait_us(op);
    q->db_run_us += stoa_pg_run_us(op);

    ngx_http_stoa_resume_begin(q);

    if (err != STOA_OK) {
        rc = ngx_http_stoa_sql_failed(q, op, err);
        ngx_http_stoa_finish(q, rc);
        return;
    }

    res = stoa_pg_take(op);
    q->res = NULL;

    if (res != NULL && ngx_http_stoa_sql_keep(q, res) != NGX_OK) {
        ngx_http_stoa_finish(q, ngx_http_stoa_reply_error(
                                    q, STOA_E_NO_MEMORY));
        return;
    }

    ngx_http_stoa_finish(q, q->resume(q, STOA_OK));
}

static ngx_int_t
ngx_http_stoa_sql_failed(ngx_http_stoa_ctx_t *q, stoa_pg_op_t *op,
                         stoa_err_e err)
{
    if (!q->retried
        && (ngx_http_stoa_sql_again(op)
            || (q->keyed && ngx_strcmp(stoa_pg_sqlstate(op), "23505") == 0)))
    {
        q->retried = 1;
        ngx_http_stoa_metric_add(STOA_M_pg_retries, 1);
        return ngx_http_stoa_sql_send(q);
    }

    if (err == STOA_E_POOL_SATURATED) {
        ngx_http_stoa_metric_add(STOA_M_pg_saturated, 1);
    }

    return ngx_http_stoa_reply_error(q, err);
}

static ngx_int_t
ngx_http_stoa_sql_answered(ngx_http_stoa_ctx_t *q, stoa_err_e err)
{
    ngx_http_stoa_columns_t cols;

    if (q->res == NULL || stoa_pg_rows(q->res) == 0) {
        return ngx_http_stoa_reply_error(q, STOA_E_NOT_FOUND);
    }

    ngx_http_stoa_sql_columns(q->res, &cols);

    return ngx_http_stoa_sql_answer(q, q->res, &cols, 0);
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
        return gate->authenticated && !(gate->claims.roles & STOA_DEVICE)
                   ? ngx_http_stoa_arg_uuid(q, &gate->claims.sid)
                   : none;

    case STOA_ARG_DEVICE:
        return gate->authenticated && (gate->claims.roles & STOA_DEVICE)
                   ? ngx_http_stoa_arg_uuid(q, &gate->claims.sub)
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
        return ngx_http_stoa_arg_int(q, (int64_t) ((q->page - 1)
                                                   * q->limit));
    case STOA_ARG_RAW:
        return ngx_http_stoa_arg_raw(q);

    case STOA_ARG_PATH:
        return q->path_values[arg->index];

    case STOA_ARG_QUERY:
        return q->query_values != NULL
                   ? q->query_values[arg->field - q->ep->query]
                   : none;

    case STOA_ARG_FIELD:
        return q->body_values != NULL
                   ? q->body_values[arg->field - q->ep->body]
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
              || v.data[i] == '-'))
        {
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

static stoa_str_t
ngx_http_stoa_cell(const stoa_pg_result_t *res, int row, int col)
{
    stoa_str_t none = stoa_null_string;

    if (col < 0 || stoa_pg_null(res, row, col)) {
        return none;
    }

    return stoa_pg_value(res, row, col);
}

/* CSV, and bytes with their type. */
static ngx_int_t
ngx_http_stoa_sql_media(ngx_http_stoa_ctx_t *q, const stoa_pg_result_t *res,
                        const ngx_http_stoa_columns_t *cols, int row)
{
    ssize_t    n;
    stoa_str_t cell, type, none = stoa_null_string;
    stoa_buf_t name;

    if (q->ep->media == STOA_MEDIA_CSV) {
        cell = ngx_http_stoa_cell(res, row, cols->csv);

        if (cell.data == NULL) {
            return ngx_http_stoa_reply_error(q, STOA_E_NOT_FOUND);
        }

        stoa_buf_init(&name, &q->mem, 64, 128);
        stoa_buf_z(&name, q->ep->id);
        stoa_buf_z(&name, ".csv");

        return ngx_http_stoa_reply_bytes(
            q, NGX_HTTP_OK, (stoa_str_t) stoa_string(
                                "text/csv; charset=utf-8"),
            cell, stoa_buf_view(&name));
    }

    type = ngx_http_stoa_cell(res, row, cols->type);
    cell = ngx_http_stoa_cell(res, row, cols->bytes);

    if (type.data == NULL || cell.len < 2) {
        return ngx_http_stoa_reply_error(q, STOA_E_NOT_FOUND);
    }

    /* bytea's text "\x..": decoded over itself */
    cell.data += 2;
    cell.len -= 2;
    n = stoa_hex_decode(cell.data, cell.len, cell);

    if (n < 0) {
        return ngx_http_stoa_reply_error(q, STOA_E_INTERNAL);
    }

    cell.len = (size_t) n;

    return ngx_http_stoa_reply_bytes(q, NGX_HTTP_OK, type, cell, none);
}

/* {page,limit,total,pages,nextCursor} or {limit,nextCursor} */
static stoa_str_t
ngx_http_stoa_sql_meta(ngx_http_stoa_ctx_t *q, const stoa_pg_result_t *res,
                       const ngx_http_stoa_columns_t *cols, int row)
{
    int64_t    total, limit;
    stoa_buf_t b;
    stoa_str_t cell;

    stoa_buf_init(&b, &q->mem, 128, 4096);
    stoa_buf_char(&b, '{');
    limit = (int64_t) q->limit;

    if (!q->cursored) {
        total = 0;
        cell = ngx_http_stoa_cell(res, row, cols->total);

        if (cell.data != NULL && !stoa_str_int(cell, 0, INT64_MAX, &total)) {
            total = 0;
        }

        stoa_buf_z(&b, "\"page\":");
        stoa_buf_int(&b, (int64_t) q->page);
        stoa_buf_z(&b, ",\"total\":");
        stoa_buf_int(&b, total);
        stoa_buf_z(&b, ",\"pages\":");
        stoa_buf_int(&b, (total + limit - 1) / limit);
        stoa_buf_char(&b, ',');
    }

    stoa_buf_z(&b, "\"limit\":");
    stoa_buf_int(&b, limit);
    stoa_buf_z(&b, ",\"nextCursor\":");

    cell = ngx_http_stoa_cell(res, row, cols->next);

    if (cell.data != NULL) {
        cell = ngx_http_stoa_cursor_make(q, cell);
    }

    if (cell.data != NULL) {
        stoa_buf_json(&b, cell);

    } else {
        stoa_buf_z(&b, "null");
    }

    stoa_buf_char(&b, '}');

    return b.failed ? (stoa_str_t) stoa_null_string : stoa_buf_view(&b);
}
