/*
 * The content handler: finds the row by method, reads the body, and starts
 * the pipeline; knows how a request is suspended, resumed and left.
 *
 * Invariants: a request that waits holds one reference (r->main->count) and
 * has q->suspended set; whoever is waited for knows q and is told by the
 * request's cleanup when the client leaves.  Functions return NGX_DONE when
 * the request goes on later, else what ngx_http_finalize_request() takes.
 * Nothing here sends: see ngx_http_stoa_reply.c.
 */

#include "ngx_http_stoa.h"

static ngx_http_stoa_ctx_t *ngx_http_stoa_create(ngx_http_request_t   *r,
                                                 ngx_http_stoa_gate_t *gate);
static void                 ngx_http_stoa_cleanup(void *data);
static void                 ngx_http_stoa_forget(ngx_http_stoa_ctx_t *q);
static ngx_int_t            ngx_http_stoa_options(ngx_http_stoa_ctx_t *q);
static ngx_int_t            ngx_http_stoa_read(ngx_http_stoa_ctx_t *q);
static void                 ngx_http_stoa_body(ngx_http_request_t *r);
static ngx_int_t            ngx_http_stoa_body_join(ngx_http_stoa_ctx_t *q);
static ngx_int_t            ngx_http_stoa_begin(ngx_http_stoa_ctx_t *q);

ngx_int_t
ngx_http_stoa_handler(ngx_http_request_t *r)
{
    ngx_http_stoa_ctx_t      *q;
    ngx_http_stoa_gate_t     *gate;
    ngx_http_stoa_pipeline_t *pl;

    if (r != r->main) {
        return NGX_HTTP_NOT_FOUND;
    }

    gate = ngx_http_stoa_gate(r, 1);
    if (gate == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    q = ngx_http_stoa_create(r, gate);
    if (q == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (!gate->routed) {
        return ngx_http_stoa_reply_error(q, STOA_E_NOT_FOUND);
    }

    if (gate->ep == NULL) {
        return r->method == NGX_HTTP_OPTIONS
                 ? ngx_http_stoa_options(q)
                 : ngx_http_stoa_reply_error(q, STOA_E_METHOD_NOT_ALLOWED);
    }

    pl = ngx_http_stoa_pipeline(r);

    q->ep = gate->ep;
    q->row = &pl->rows[gate->row];
    q->bound = q->row->bound;

    return ngx_http_stoa_read(q);
}

/* The path of ep with the request's own parameters: "/api/v1/events/0190..".
 */
void
ngx_http_stoa_canonical_path(stoa_buf_t *b, ngx_http_stoa_gate_t *gate,
                             const stoa_endpoint_t *ep)
{
    ngx_uint_t  n;
    const char *p;

    n = 0;

    for (p = ep->path; *p != '\0'; p++) {

        if (*p != ':' || p[-1] != '/' || n == gate->match.nparams) {
            stoa_buf_char(b, *p);
            continue;
        }

        stoa_buf_str(b, gate->match.params[n++]);

        while (p[1] != '\0' && p[1] != '/' && p[1] != '.') {
            p++;
        }
    }
}

ngx_int_t
ngx_http_stoa_suspend(ngx_http_stoa_ctx_t *q)
{
    ngx_http_request_t *r;

    r = q->r;

    if (!q->suspended) {
        r->main->count++;
        q->suspended = 1;
    }

    if (!r->discard_body) { /* else that handler sees the client leave */
        r->read_event_handler = ngx_http_test_reading;
    }

    r->write_event_handler = ngx_http_request_empty_handler;

    return NGX_DONE;
}

void
ngx_http_stoa_resume_begin(ngx_http_stoa_ctx_t *q)
{
    ngx_http_set_log_request(q->r->connection->log, q->r);
}

void
ngx_http_stoa_resume_end(ngx_connection_t *c)
{
    ngx_http_run_posted_requests(c);
}

void
ngx_http_stoa_finish(ngx_http_stoa_ctx_t *q, ngx_int_t rc)
{
    ngx_connection_t   *c;
    ngx_http_request_t *r;

    r = q->r;
    c = r->connection;

    if (rc != NGX_DONE) {
        ngx_http_finalize_request(r, rc);
    }

    ngx_http_stoa_resume_end(c);
}

ngx_int_t
ngx_http_stoa_work(ngx_http_stoa_ctx_t *q)
{
    if (q->ep->flow != STOA_FLOW_NONE) {
        return ngx_http_stoa_flow_run(q);
    }

    if (q->ep->batch != 0 && !q->keyed) {
        return ngx_http_stoa_batch_run(q, &q->row->batch);
    }

    return ngx_http_stoa_sql_run(q);
}

static ngx_http_stoa_ctx_t *
ngx_http_stoa_create(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate)
{
    ngx_http_cleanup_t  *cln;
    ngx_http_stoa_ctx_t *q;

    q = ngx_pcalloc(r->pool, sizeof(ngx_http_stoa_ctx_t));
    if (q == NULL) {
        return NULL;
    }

    cln = ngx_http_cleanup_add(r, 0);
    if (cln == NULL) {
        return NULL;
    }

    q->r = r;
    q->gate = gate;
    q->if_match = -1;
    q->head = r->method == NGX_HTTP_HEAD;
    ngx_http_stoa_mem_init(&q->mem, r->pool);

    cln->handler = ngx_http_stoa_cleanup;
    cln->data = q;

    ngx_http_set_ctx(r, q, ngx_http_stoa_module);

    return q;
}

/* The request ends, by its answer or because the client left. */
static void
ngx_http_stoa_cleanup(void *data)
{
    stoa_pg_op_t        *op;
    ngx_http_stoa_ctx_t *q;

    q = data;

    if (q->op != NULL) {
        op = q->op;
        q->op = NULL;
        stoa_pg_cancel(op);
    }

    if (q->element != NULL) {
        ngx_http_stoa_batch_leave(q);
    }

    if (q->parked != NULL) {
        ngx_http_stoa_wait_leave(q);
    }

    if (q->hashing != NULL) {
        ngx_http_stoa_hash_leave(q);
    }

    if (q->filling) {
        q->filling = 0;
        ngx_http_stoa_cache_fail(q);
    }

    if (q->row != NULL && q->row->secrets) {
        ngx_http_stoa_forget(q);
    }
}

/* Passwords and tokens do not stay in buffers that others get next. */
static void
ngx_http_stoa_forget(ngx_http_stoa_ctx_t *q)
{
    ngx_uint_t          i;
    const stoa_field_t *f;

    if (q->body_values != NULL) {
        for (i = 0; i < q->row->nbody; i++) {
            f = &q->ep->body[i];

            if (f->type == STOA_T_SECRET && q->body_values[i].data != NULL) {
                stoa_wipe(q->body_values[i].data, q->body_values[i].len);
            }
        }
    }

    if (q->canonical.data != NULL) {
        stoa_wipe(q->canonical.data, q->canonical.len);
    }

    if (q->raw.data != NULL) {
        stoa_wipe(q->raw.data, q->raw.len);
    }
}

static ngx_int_t
ngx_http_stoa_options(ngx_http_stoa_ctx_t *q)
{
    if (ngx_http_stoa_allow(q->r, q->gate) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    /* what a preflight wants beside that is added by the filter */
    return ngx_http_stoa_reply_empty(q, NGX_HTTP_NO_CONTENT);
}

static ngx_int_t
ngx_http_stoa_read(ngx_http_stoa_ctx_t *q)
{
    ngx_int_t           rc;
    stoa_err_e          err;
    ngx_http_request_t *r;

    r = q->r;

    err = ngx_http_stoa_input_headers(q);
    if (err != STOA_OK) {
        return ngx_http_stoa_reply_error(q, err);
    }

    if (q->ep->body_kind == STOA_BODY_NONE) {
        rc = ngx_http_discard_request_body(r);
        if (rc != NGX_OK) {
            return rc;
        }

        q->body_read = 1;
        return ngx_http_stoa_begin(q);
    }

    r->request_body_in_single_buf = 1;
    r->request_body_in_clean_file = 1;

    rc = ngx_http_read_client_request_body(r, ngx_http_stoa_body);
    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }

    return NGX_DONE;
}

static void
ngx_http_stoa_body(ngx_http_request_t *r)
{
    ngx_int_t            rc;
    ngx_http_stoa_ctx_t *q;

    q = ngx_http_get_module_ctx(r, ngx_http_stoa_module);

    q->body_read = 1;
    q->suspended = 1; /* reading the body took a reference */

    rc = ngx_http_stoa_body_join(q);

    if (rc == NGX_OK) {
        rc = ngx_http_stoa_begin(q);
    }

    if (rc != NGX_DONE) {
        ngx_http_finalize_request(r, rc);
    }
}

/* The whole body in one piece: in place when it is one memory buffer. */
static ngx_int_t
ngx_http_stoa_body_join(ngx_http_stoa_ctx_t *q)
{
    off_t               size;
    u_char             *p;
    ssize_t             n;
    ngx_buf_t          *b;
    ngx_chain_t        *cl, *in;
    ngx_http_request_t *r;

    r = q->r;

    if (r->request_body == NULL || r->request_body->bufs == NULL) {
        return NGX_OK;
    }

    in = r->request_body->bufs;

    if (in->next == NULL && !in->buf->in_file) {
        q->raw.data = in->buf->pos;
        q->raw.len = (size_t) (in->buf->last - in->buf->pos);
        return NGX_OK;
    }

    size = 0;

    for (cl = in; cl != NULL; cl = cl->next) {
        size += ngx_buf_size(cl->buf);
    }

    p = ngx_pnalloc(r->pool, (size_t) size + 1);
    if (p == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    q->raw.data = p;
    q->raw.len = (size_t) size;

    for (cl = in; cl != NULL; cl = cl->next) {
        b = cl->buf;

        if (!b->in_file) {
            p = ngx_cpymem(p, b->pos, b->last - b->pos);
            continue;
        }

        n = ngx_read_file(b->file, p, (size_t) (b->file_last - b->file_pos),
                          b->file_pos);
        if (n != (ssize_t) (b->file_last - b->file_pos)) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        p += n;
    }

    return NGX_OK;
}

/* The body is here.  The cache is asked before validation: only what was
   valid once is in it. */
static ngx_int_t
ngx_http_stoa_begin(ngx_http_stoa_ctx_t *q)
{
    if (q->ep->cache_ms != 0 && q->ep->method == STOA_GET) {

        switch (ngx_http_stoa_cache_get(q)) {
        case NGX_OK:
            return q->rc;

        case NGX_AGAIN:
            q->r->connection->log->action = (char *) "waiting for another";
            return ngx_http_stoa_suspend(q);

        case NGX_DECLINED:
            q->filling = 1;
            break;

        default:
            break;
        }
    }

    return ngx_http_stoa_go(q);
}

ngx_int_t
ngx_http_stoa_go(ngx_http_stoa_ctx_t *q)
{
    stoa_err_e err;

    err = ngx_http_stoa_input(q);
    if (err != STOA_OK) {
        return ngx_http_stoa_reply_error(q, err);
    }

    return ngx_http_stoa_work(q);
}
