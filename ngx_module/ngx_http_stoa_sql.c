/*
 * Rows that are one statement: the statement on its pool, and its answer row
 * by column names to the reply.
 *
 * A statement that lost a race (40001, 40P01; a keyed one also 23505, which
 * then replays) runs once more.  The result lives as long as the request: its
 * body is sent from libpq's memory.
 */

#include "ngx_http_stoa.h"

static ngx_int_t  ngx_http_stoa_sql_answered(ngx_http_stoa_ctx_t *q,
                                             stoa_err_e           err);
static void       ngx_http_stoa_sql_done(stoa_pg_op_t *op, stoa_err_e err,
                                         void *data);
static ngx_int_t  ngx_http_stoa_sql_failed(ngx_http_stoa_ctx_t *q,
                                           stoa_pg_op_t *op, stoa_err_e err);
static ngx_int_t  ngx_http_stoa_sql_send(ngx_http_stoa_ctx_t *q);
static void       ngx_http_stoa_sql_free(void *data);
static stoa_str_t ngx_http_stoa_cell(const stoa_pg_result_t *res, int row,
                                     int col);
static ngx_int_t  ngx_http_stoa_sql_media(ngx_http_stoa_ctx_t           *q,
                                          const stoa_pg_result_t        *res,
                                          const ngx_http_stoa_columns_t *cols,
                                          int                            row);
static stoa_str_t ngx_http_stoa_sql_meta(ngx_http_stoa_ctx_t           *q,
                                         const stoa_pg_result_t        *res,
                                         const ngx_http_stoa_columns_t *cols,
                                         int                            row);

#define ngx_http_stoa_column(name)                                             \
    {                                                                          \
#name, offsetof(ngx_http_stoa_columns_t, name)                         \
    }

static const struct {
    const char *name;
    size_t      offset;
} ngx_http_stoa_columns[] = {
    ngx_http_stoa_column(status), ngx_http_stoa_column(body),
    ngx_http_stoa_column(meta),   ngx_http_stoa_column(etag),
    ngx_http_stoa_column(emit),   ngx_http_stoa_column(wait),
    ngx_http_stoa_column(at),     ngx_http_stoa_column(replayed),
    ngx_http_stoa_column(ord),    ngx_http_stoa_column(total),
    ngx_http_stoa_column(next),   ngx_http_stoa_column(csv),
    ngx_http_stoa_column(type),   ngx_http_stoa_column(bytes),
};

ngx_int_t
ngx_http_stoa_sql_run(ngx_http_stoa_ctx_t *q)
{
    const int         *lens;
    ngx_uint_t         arrays;
    stoa_bound_t      *bound;
    const char *const *values;

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

    if (ngx_http_stoa_sql_values(&q->mem, bound, &q, 1, arrays, &values, &lens)
        != NGX_OK)
    {
        return ngx_http_stoa_reply_error(q, STOA_E_NO_MEMORY);
    }

    q->resume = ngx_http_stoa_sql_answered;

    return ngx_http_stoa_sql_submit(q, q->ep->pool, &bound->stmt, values, lens);
}

ngx_int_t
ngx_http_stoa_sql_submit(ngx_http_stoa_ctx_t *q, stoa_pool_e pool,
                         const stoa_pg_stmt_t *stmt, const char *const *values,
                         const int *lens)
{
    q->sent_pool = ngx_http_stoa_process.pool[pool];
    q->sent_stmt = stmt;
    q->sent_values = values;
    q->sent_lens = lens;

    return ngx_http_stoa_sql_send(q);
}

/* The result has few columns: each of them is looked up, not each name. */
void
ngx_http_stoa_sql_columns(const stoa_pg_result_t  *res,
                          ngx_http_stoa_columns_t *cols)
{
    int         i, n, *col;
    size_t      k;
    const char *name;

    for (k = 0; k < stoa_nitems(ngx_http_stoa_columns); k++) {
        col = (int *) ((u_char *) cols + ngx_http_stoa_columns[k].offset);
        *col = -1;
    }

    n = stoa_pg_columns(res);

    for (i = 0; i < n; i++) {
        name = stoa_pg_column_name(res, i);

        for (k = 0; k < stoa_nitems(ngx_http_stoa_columns); k++) {
            if (name[0] == ngx_http_stoa_columns[k].name[0]
                && ngx_strcmp(name, ngx_http_stoa_columns[k].name) == 0)
            {
                col = (int *) ((u_char *) cols
                               + ngx_http_stoa_columns[k].offset);
                *col = *col < 0 ? i : *col;
                break;
            }
        }
    }
}

ngx_int_t
ngx_http_stoa_sql_answer(ngx_http_stoa_ctx_t *q, const stoa_pg_result_t *res,
                         const ngx_http_stoa_columns_t *cols, int row)
{
    int64_t    status, wait;
    stoa_str_t body, meta, cell;

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

    if ((q->ep->media == STOA_MEDIA_CSV || q->ep->media == STOA_MEDIA_BYTES)
        && (cols->wait < 0 || stoa_pg_null(res, row, cols->wait)))
    {
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

    if (cell.data != NULL && q->ep->wait_ms != 0 && !q->waited && !q->replayed
        && stoa_str_int(cell, 1, INT64_MAX, &wait))
    {
        return ngx_http_stoa_wait_park(q, wait, (ngx_int_t) status, body, meta);
    }

    if (cell.data != NULL && q->ep->media == STOA_MEDIA_BYTES) {
        return ngx_http_stoa_wait_later(q, body, meta);
    }

    return ngx_http_stoa_reply_answer(q, (ngx_int_t) status, body, meta,
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
    q->res_row = 0;

    return NGX_OK;
}

ngx_uint_t
ngx_http_stoa_sql_again(const stoa_pg_op_t *op)
{
    const char *state;

    state = stoa_pg_sqlstate(op);

    return ngx_strcmp(state, "40001") == 0 || ngx_strcmp(state, "40P01") == 0;
}

/* PostgreSQL's words are for the log only. */
void
ngx_http_stoa_sql_log(ngx_log_t *log, const stoa_endpoint_t *ep,
                      const stoa_pg_op_t *op)
{
    ngx_log_error(NGX_LOG_ERR, log, 0, "pg: \"%s\" failed, sqlstate %s: %s",
                  ep->id, stoa_pg_sqlstate(op), stoa_pg_message(op));
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

        return q->bystander ? q->resume(q, err)
                            : ngx_http_stoa_reply_error(q, err);
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
        ngx_http_stoa_finish(q, ngx_http_stoa_reply_error(q, STOA_E_NO_MEMORY));
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

    if (err == STOA_E_INTERNAL) {
        ngx_http_stoa_sql_log(q->r->connection->log, q->ep, op);
    }

    return q->bystander ? q->resume(q, err) : ngx_http_stoa_reply_error(q, err);
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

        return ngx_http_stoa_reply_bytes(q, NGX_HTTP_OK,
                                         (stoa_str_t) stoa_string(
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
