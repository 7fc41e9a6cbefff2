/*
 * Batching (decision 7): requests of a row with .batch, or of a flow that are
 * at a statement with .batch, that arrive while its previous statement runs go
 * together into the next one, as arrays, into one commit; a single request is
 * a batch of one.
 *
 * A run owns its memory (a pool of its own, the arrays) and its result; each
 * answered request holds a share of the result until it has been sent.  When
 * the statement fails as a whole each request runs alone, so that one that
 * breaks a rule of the database cannot harm its neighbors.
 *
 * Requests leave at any time: from the queue by ngx_http_stoa_batch_leave(),
 * from a run by its element's q being NULL; effects are applied all the same.
 */

#include "ngx_http_stoa.h"

typedef struct {
    stoa_pg_result_t *res;
    ngx_uint_t        shares;
} ngx_http_stoa_shared_t;

#define NGX_HTTP_STOA_BATCHES    2 /* of one kind under way in one process */
#define NGX_HTTP_STOA_BATCH_SLOW 5 /* ms */

typedef struct ngx_http_stoa_run_s ngx_http_stoa_run_t;

/* One request: in its batch's queue until it rides a run. */
typedef struct ngx_http_stoa_element_s {
    ngx_queue_t            queue;
    ngx_http_stoa_ctx_t   *q;
    ngx_http_stoa_batch_t *batch;
    ngx_http_stoa_run_t   *run; /* NULL: waits in the queue */
    int                    row; /* of the result; -1: none */
} ngx_http_stoa_element_t;

struct ngx_http_stoa_run_s {
    ngx_http_stoa_batch_t   *batch;
    ngx_pool_t              *pool;
    stoa_mem_t               mem;
    ngx_uint_t               n;
    ngx_uint_t               retried;
    ngx_uint_t               alone; /* a part of a batch that failed */
    ngx_uint_t               held;  /* batch->running counts it */
    const char *const       *values;
    const int               *lens;
    ngx_http_stoa_element_t *els[]; /* .n of them */
};

static ngx_uint_t ngx_http_stoa_batch_due(const ngx_http_stoa_batch_t *b);
static void       ngx_http_stoa_batch_flush(stoa_defer_t *d);
static ngx_http_stoa_run_t *ngx_http_stoa_run_create(ngx_http_stoa_batch_t *b,
                                                     ngx_uint_t max);
static void                 ngx_http_stoa_run_destroy(ngx_http_stoa_run_t *run);
static void                 ngx_http_stoa_run_start(ngx_http_stoa_run_t *run);
static stoa_err_e           ngx_http_stoa_run_values(ngx_http_stoa_run_t *run);
static void       ngx_http_stoa_run_done(stoa_pg_op_t *op, stoa_err_e err,
                                         void *data);
static void       ngx_http_stoa_run_answer(ngx_http_stoa_run_t *run,
                                           stoa_pg_result_t    *res);
static ngx_uint_t ngx_http_stoa_run_match(ngx_http_stoa_run_t    *run,
                                          const stoa_pg_result_t *res, int col);
static void       ngx_http_stoa_run_split(ngx_http_stoa_run_t *run);
static void ngx_http_stoa_run_fail(ngx_http_stoa_run_t *run, stoa_err_e err);
static void ngx_http_stoa_run_over(ngx_http_stoa_run_t *run);
static ngx_int_t ngx_http_stoa_share(ngx_http_stoa_ctx_t    *q,
                                     ngx_http_stoa_shared_t *shared);
static void      ngx_http_stoa_unshare(void *data);

void
ngx_http_stoa_batch_init(ngx_http_stoa_batch_t *b, const stoa_endpoint_t *ep,
                         const stoa_pg_stmt_t *stmt, ngx_uint_t max)
{
    b->ep = ep;
    b->stmt = stmt;
    b->max = max;
    ngx_queue_init(&b->waiting);
    b->flush.run = ngx_http_stoa_batch_flush;
    b->flush.data = b;
}

void
ngx_http_stoa_batch_exit(ngx_http_stoa_batch_t *b)
{
    stoa_loop_t *loop = ngx_http_stoa_process.loop;

    loop->defer_close(loop, &b->flush);
}

ngx_int_t
ngx_http_stoa_batch_run(ngx_http_stoa_ctx_t *q, ngx_http_stoa_batch_t *b)
{
    stoa_loop_t             *loop;
    ngx_http_stoa_element_t *el;

    if (ngx_http_stoa_process.pool[b->ep->pool] == NULL) {
        return ngx_http_stoa_reply_error(q, STOA_E_DATABASE_UNAVAILABLE);
    }

    if (b->nwaiting >= ngx_http_stoa_mcf(q->r)->pool_queue * b->max) {
        ngx_http_stoa_metric_add(STOA_M_pg_saturated, 1);
        return ngx_http_stoa_reply_error(q, STOA_E_POOL_SATURATED);
    }

    el = ngx_alloc(sizeof(ngx_http_stoa_element_t), q->r->connection->log);
    if (el == NULL) {
        return ngx_http_stoa_reply_error(q, STOA_E_NO_MEMORY);
    }

    el->q = q;
    el->batch = b;
    el->run = NULL;
    el->row = -1;
    q->element = el;

    ngx_queue_insert_tail(&b->waiting, &el->queue);
    b->nwaiting++;

    if (ngx_http_stoa_batch_due(b)) {
        /* at the end of this turn: what arrived in it goes together */
        loop = ngx_http_stoa_process.loop;
        loop->defer(loop, &b->flush);
    }

    q->r->connection->log->action = (char *) "waiting for postgres";

    return ngx_http_stoa_suspend(q);
}

/*
 * One batch at a time fills the next one best; a second one beside it, once
 * enough wait, keeps PostgreSQL busy while the first one's answers are sent.
 * A read that takes its time does not hold the others up.
 */
static ngx_uint_t
ngx_http_stoa_batch_due(const ngx_http_stoa_batch_t *b)
{
    return b->nwaiting > 0
        && (b->running == 0
            || (b->running < NGX_HTTP_STOA_BATCHES
                && (b->nwaiting >= b->max / 4
                    || (!b->stmt->write
                        && ngx_current_msec - b->started
                               >= NGX_HTTP_STOA_BATCH_SLOW))));
}

/* The client left, or the request was answered. */
void
ngx_http_stoa_batch_leave(ngx_http_stoa_ctx_t *q)
{
    ngx_http_stoa_element_t *el;

    el = q->element;
    q->element = NULL;
    el->q = NULL;

    if (el->run == NULL) {
        ngx_queue_remove(&el->queue);
        el->batch->nwaiting--;
        ngx_free(el);
    }
}

static void
ngx_http_stoa_batch_flush(stoa_defer_t *d)
{
    ngx_queue_t             *link;
    ngx_http_stoa_batch_t   *b;
    ngx_http_stoa_run_t     *run;
    ngx_http_stoa_element_t *el;

    b = d->data;

    if (!ngx_http_stoa_batch_due(b)) {
        return;
    }

    run = ngx_http_stoa_run_create(b, b->max);

    while (!ngx_queue_empty(&b->waiting)) {

        if (run != NULL && run->n == b->max) {
            break;
        }

        link = ngx_queue_head(&b->waiting);
        el = ngx_queue_data(link, ngx_http_stoa_element_t, queue);
        ngx_queue_remove(link);
        b->nwaiting--;

        if (run != NULL) {
            el->run = run;
            run->els[run->n++] = el;
            continue;
        }

        /* no memory: the element dies with its request's answer */

        el->q->element = NULL;
        ngx_http_stoa_resume_begin(el->q);
        ngx_http_stoa_finish(el->q,
                             ngx_http_stoa_reply_error(el->q,
                                                       STOA_E_NO_MEMORY));
        ngx_free(el);
    }

    if (run != NULL) {
        b->running++;
        b->started = ngx_current_msec;
        run->held = 1;
        ngx_http_stoa_run_start(run);
    }
}

static ngx_http_stoa_run_t *
ngx_http_stoa_run_create(ngx_http_stoa_batch_t *b, ngx_uint_t max)
{
    ngx_pool_t          *pool;
    ngx_http_stoa_run_t *run;

    pool = ngx_create_pool(4096, ngx_cycle->log);
    if (pool == NULL) {
        return NULL;
    }

    run = ngx_pcalloc(pool, sizeof(ngx_http_stoa_run_t)
                                + max * sizeof(ngx_http_stoa_element_t *));
    if (run == NULL) {
        ngx_destroy_pool(pool);
        return NULL;
    }

    run->batch = b;
    run->pool = pool;
    ngx_http_stoa_mem_init(&run->mem, pool);

    return run;
}

static void
ngx_http_stoa_run_destroy(ngx_http_stoa_run_t *run)
{
    ngx_uint_t i;

    for (i = 0; i < run->n; i++) {
        if (run->els[i] != NULL) {
            ngx_free(run->els[i]);
        }
    }

    ngx_destroy_pool(run->pool);
}

/* Values are made at the last moment; then the requests may leave. */
static void
ngx_http_stoa_run_start(ngx_http_stoa_run_t *run)
{
    stoa_err_e             err;
    stoa_pg_op_t          *op;
    ngx_http_stoa_batch_t *b = run->batch;

    err = ngx_http_stoa_run_values(run);

    if (err == STOA_OK) {
        op = stoa_pg_submit(ngx_http_stoa_process.pool[b->ep->pool], b->stmt,
                            run->values, run->lens, b->ep->timeout_ms,
                            ngx_http_stoa_run_done, run, &err);
        if (op != NULL) {
            ngx_http_stoa_metric_add(STOA_M_pg_batches, 1);
            ngx_http_stoa_metric_add(STOA_M_pg_batched, (ngx_int_t) run->n);
            return;
        }

        if (err == STOA_E_POOL_SATURATED) {
            ngx_http_stoa_metric_add(STOA_M_pg_saturated, 1);
        }
    }

    ngx_http_stoa_run_fail(run, err);
    ngx_http_stoa_run_over(run);
}

static stoa_err_e
ngx_http_stoa_run_values(ngx_http_stoa_run_t *run)
{
    ngx_int_t              rc;
    ngx_uint_t             i;
    ngx_http_stoa_ctx_t  **qs;
    ngx_http_stoa_batch_t *b = run->batch;

    if (run->values != NULL) {
        return STOA_OK; /* the same once more */
    }

    qs = ngx_palloc(run->pool, run->n * sizeof(ngx_http_stoa_ctx_t *));
    if (qs == NULL) {
        return STOA_E_NO_MEMORY;
    }

    for (i = 0; i < run->n; i++) {
        qs[i] = run->els[i]->q;
    }

    rc = b->bound != NULL
           ? ngx_http_stoa_sql_values(&run->mem, b->bound, qs, run->n, 1,
                                      &run->values, &run->lens)
           : ngx_http_stoa_sql_arrays(&run->mem, qs, run->n, b->stmt->nparams,
                                      &run->values, &run->lens);

    return rc == NGX_OK ? STOA_OK : STOA_E_NO_MEMORY;
}

static void
ngx_http_stoa_run_done(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    ngx_uint_t           i;
    stoa_pg_result_t    *res;
    ngx_http_stoa_ctx_t *q;
    ngx_http_stoa_run_t *run;

    run = data;

    for (i = 0; i < run->n; i++) {
        q = run->els[i]->q;

        if (q != NULL) {
            q->db_queries++;
            q->db_wait_us += stoa_pg_wait_us(op);
            q->db_run_us += stoa_pg_run_us(op);
        }
    }

    if (err == STOA_OK) {
        res = stoa_pg_take(op);
        ngx_http_stoa_run_answer(run, res);
        ngx_http_stoa_run_over(run);
        return;
    }

    if (!run->retried && ngx_http_stoa_sql_again(op)) {
        run->retried = 1;
        ngx_http_stoa_metric_add(STOA_M_pg_retries, 1);
        ngx_http_stoa_run_start(run);
        return;
    }

    if (err == STOA_E_INTERNAL) {
        ngx_http_stoa_sql_log(ngx_cycle->log, run->batch->ep, op);
    }

    switch (err) {

    case STOA_E_DATABASE_UNAVAILABLE:
    case STOA_E_COMMIT_UNKNOWN:
    case STOA_E_POOL_SATURATED:
    case STOA_E_TIMEOUT:
    case STOA_E_NO_MEMORY:
        ngx_http_stoa_run_fail(run, err);
        break;

    default:

        if (run->n > 1) {
            ngx_http_stoa_run_split(run);

        } else {
            ngx_http_stoa_run_fail(run, err);
        }
    }

    ngx_http_stoa_run_over(run);
}

static void
ngx_http_stoa_run_answer(ngx_http_stoa_run_t *run, stoa_pg_result_t *res)
{
    ngx_int_t                rc;
    ngx_uint_t               i;
    ngx_http_stoa_ctx_t     *q;
    ngx_http_stoa_shared_t  *shared;
    ngx_http_stoa_columns_t  cols;
    ngx_http_stoa_element_t *el;

    ngx_memset(&cols, 0xff, sizeof(cols));

    if (res != NULL) {
        ngx_http_stoa_sql_columns(res, &cols);
    }

    if (res == NULL || !ngx_http_stoa_run_match(run, res, cols.ord)) {
        ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log, 0,
                      "stoa: row \"%s\" did not answer each of %ui once",
                      run->batch->ep->id, run->n);
        stoa_pg_result_free(res);
        ngx_http_stoa_run_fail(run, STOA_E_INTERNAL);
        return;
    }

    shared = ngx_alloc(sizeof(ngx_http_stoa_shared_t), ngx_cycle->log);

    if (shared == NULL) {
        stoa_pg_result_free(res);
        ngx_http_stoa_run_fail(run, STOA_E_NO_MEMORY);
        return;
    }

    shared->res = res;
    shared->shares = 1; /* ours */

    for (i = 0; i < run->n; i++) {
        el = run->els[i];
        q = el->q;

        if (q == NULL) {
            if (cols.emit >= 0 && !stoa_pg_null(res, el->row, cols.emit)) {
                ngx_http_stoa_effects(stoa_pg_value(res, el->row, cols.emit),
                                      ngx_cycle->log);
            }

            continue;
        }

        el->q = NULL;
        q->element = NULL;
        ngx_http_stoa_resume_begin(q);

        if (ngx_http_stoa_share(q, shared) != NGX_OK) {
            rc = ngx_http_stoa_reply_error(q, STOA_E_NO_MEMORY);

        } else if (run->batch->bound != NULL) {
            rc = ngx_http_stoa_sql_answer(q, res, &cols, el->row);

        } else {
            q->res_row = el->row;
            rc = q->resume(q, STOA_OK);
        }

        ngx_http_stoa_finish(q, rc);
    }

    ngx_http_stoa_unshare(shared);
}

/* Each ord 1..n exactly once? */
static ngx_uint_t
ngx_http_stoa_run_match(ngx_http_stoa_run_t *run, const stoa_pg_result_t *res,
                        int col)
{
    int     i, rows;
    int64_t ord;

    rows = stoa_pg_rows(res);

    if (col < 0 || (ngx_uint_t) rows != run->n) {
        return 0;
    }

    for (i = 0; i < rows; i++) {

        if (stoa_pg_null(res, i, col)
            || !stoa_str_int(stoa_pg_value(res, i, col), 1, (int64_t) run->n,
                             &ord)
            || run->els[ord - 1]->row != -1)
        {
            return 0;
        }

        run->els[ord - 1]->row = i;
    }

    return 1;
}

/* The batch failed as a whole: each of it runs alone. */
static void
ngx_http_stoa_run_split(ngx_http_stoa_run_t *run)
{
    ngx_uint_t               i;
    ngx_http_stoa_run_t     *one;
    ngx_http_stoa_element_t *el;

    for (i = 0; i < run->n; i++) {
        el = run->els[i];

        if (el->q == NULL) {
            continue;
        }

        one = ngx_http_stoa_run_create(run->batch, 1);

        if (one == NULL) {
            continue; /* answered below */
        }

        one->alone = 1;
        one->els[0] = el;
        one->n = 1;
        el->run = one;
        el->row = -1;
        run->els[i] = NULL;

        ngx_http_stoa_run_start(one);
    }

    ngx_http_stoa_run_fail(run, STOA_E_NO_MEMORY); /* what is left, if any */
}

static void
ngx_http_stoa_run_fail(ngx_http_stoa_run_t *run, stoa_err_e err)
{
    ngx_uint_t           i;
    ngx_http_stoa_ctx_t *q;

    for (i = 0; i < run->n; i++) {

        if (run->els[i] == NULL || run->els[i]->q == NULL) {
            continue;
        }

        q = run->els[i]->q;
        run->els[i]->q = NULL;
        q->element = NULL;
        ngx_http_stoa_resume_begin(q);
        ngx_http_stoa_finish(q, ngx_http_stoa_reply_error(q, err));
    }
}

/* The run is at its end: the next batch may go. */
static void
ngx_http_stoa_run_over(ngx_http_stoa_run_t *run)
{
    stoa_loop_t           *loop;
    ngx_http_stoa_batch_t *b = run->batch;

    if (run->held) {
        b->running--;
    }

    ngx_http_stoa_run_destroy(run);

    if (ngx_http_stoa_batch_due(b)) {
        loop = ngx_http_stoa_process.loop;
        loop->defer(loop, &b->flush);
    }
}

static ngx_int_t
ngx_http_stoa_share(ngx_http_stoa_ctx_t *q, ngx_http_stoa_shared_t *shared)
{
    ngx_pool_cleanup_t *cln;

    cln = ngx_pool_cleanup_add(q->r->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_http_stoa_unshare;
    cln->data = shared;
    shared->shares++;
    q->res = shared->res;

    return NGX_OK;
}

static void
ngx_http_stoa_unshare(void *data)
{
    ngx_http_stoa_shared_t *shared;

    shared = data;

    if (--shared->shares == 0) {
        stoa_pg_result_free(shared->res);
        ngx_free(shared);
    }
}
