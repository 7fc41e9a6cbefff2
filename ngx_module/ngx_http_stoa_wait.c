/*
 * Requests that wait for a worker (decision 5).  A request is parked under
 * its outbox id; the worker's message "<outbox id>\n<json or nothing>" on
 * this process's channel ends the wait: the JSON replaces the body, an empty
 * one lets a GET row's statement run again.  Time-out, lost message or Redis
 * down: 202, with the place where the result will be.
 *
 * A message may overtake the database's answer, when one turn of the loop
 * brings both: the last messages nobody waited for are kept.
 */

#include "ngx_http_stoa.h"

#define NGX_HTTP_STOA_WAIT_MAX       4000
#define NGX_HTTP_STOA_WAIT_EARLY     64
#define NGX_HTTP_STOA_WAIT_EARLY_MAX 16384

/* In the request's pool. */
typedef struct ngx_http_stoa_parked_s {
    ngx_rbtree_node_t    node; /* key: outbox id */
    ngx_http_stoa_ctx_t *q;
    stoa_timer_t         timer;
    int64_t              id;
    ngx_int_t            status;
    stoa_str_t           body;
    stoa_str_t           meta;
    const char          *values[4]; /* of the statement that amends */
    int                  lens[4];
} ngx_http_stoa_parked_t;

typedef struct {
    int64_t id; /* 0: free */
    size_t  len;
    u_char *data;
} ngx_http_stoa_early_t;

static void ngx_http_stoa_wait_tell(ngx_http_stoa_ctx_t *q, stoa_str_t body);
static ngx_int_t ngx_http_stoa_wait_amend(ngx_http_stoa_ctx_t    *q,
                                          ngx_http_stoa_parked_t *p);
static ngx_int_t ngx_http_stoa_wait_amended(ngx_http_stoa_ctx_t *q,
                                            stoa_err_e           err);
static ngx_int_t ngx_http_stoa_wait_over(ngx_http_stoa_ctx_t *q,
                                         stoa_str_t           message);
static ngx_int_t ngx_http_stoa_wait_accepted(ngx_http_stoa_ctx_t *q);
static void      ngx_http_stoa_wait_fire(stoa_timer_t *t);
static void      ngx_http_stoa_wait_early(int64_t id, stoa_str_t body);
static ngx_http_stoa_early_t *ngx_http_stoa_wait_came(int64_t id);
static void ngx_http_stoa_wait_insert(ngx_http_stoa_parked_t *p);
static ngx_http_stoa_parked_t *ngx_http_stoa_wait_find(int64_t id);

static ngx_rbtree_node_t     ngx_http_stoa_wait_sentinel;
static ngx_rbtree_t          ngx_http_stoa_waits;
static ngx_http_stoa_early_t ngx_http_stoa_earlies[NGX_HTTP_STOA_WAIT_EARLY];
static ngx_uint_t            ngx_http_stoa_early_next;

ngx_int_t
ngx_http_stoa_wait_park(ngx_http_stoa_ctx_t *q, int64_t id, ngx_int_t status,
                        stoa_str_t body, stoa_str_t meta)
{
    uint64_t                ms;
    stoa_loop_t            *loop;
    stoa_str_t              message;
    ngx_http_stoa_early_t  *early;
    ngx_http_stoa_parked_t *p;

    p = ngx_pcalloc(q->r->pool, sizeof(ngx_http_stoa_parked_t));
    if (p == NULL) {
        return ngx_http_stoa_reply_error(q, STOA_E_NO_MEMORY);
    }

    p->q = q;
    p->id = id;
    p->status = status;
    p->body = body;
    p->meta = meta;
    q->parked = p;
    q->waited = 1;

    early = ngx_http_stoa_wait_came(id);

    if (early != NULL) {
        message.len = early->len;
        message.data = ngx_pnalloc(q->r->pool, early->len + 1);
        if (message.data == NULL) {
            q->parked = NULL;
            return ngx_http_stoa_reply_error(q, STOA_E_NO_MEMORY);
        }

        ngx_memcpy(message.data, early->data, early->len);
        ngx_free(early->data);
        early->id = 0;
        early->data = NULL;

        return ngx_http_stoa_wait_over(q, message);
    }

    if (ngx_http_stoa_process.redis == NULL
        || !stoa_redis_ready(ngx_http_stoa_process.redis))
    {
        return ngx_http_stoa_wait_accepted(q); /* nobody would tell us */
    }

    ms = ngx_min(q->ep->wait_ms, NGX_HTTP_STOA_WAIT_MAX);
    loop = ngx_http_stoa_process.loop;
    p->timer.fire = ngx_http_stoa_wait_fire;
    p->timer.data = p;
    loop->timer_set(loop, &p->timer, ms);

    ngx_http_stoa_wait_insert(p);

    q->r->connection->log->action = (char *) "waiting for a worker";

    return ngx_http_stoa_suspend(q);
}

/* The client left; also before every answer. */
void
ngx_http_stoa_wait_leave(ngx_http_stoa_ctx_t *q)
{
    stoa_loop_t            *loop;
    ngx_http_stoa_parked_t *p;

    p = q->parked;
    q->parked = NULL;

    if (p->timer.fire != NULL) {
        loop = ngx_http_stoa_process.loop;
        ngx_rbtree_delete(&ngx_http_stoa_waits, &p->node);
        loop->timer_cancel(loop, &p->timer);
        loop->timer_close(loop, &p->timer);
        p->timer.fire = NULL;
    }
}

void
ngx_http_stoa_wait_message(stoa_str_t channel, stoa_str_t message)
{
    u_char                 *nl;
    int64_t                 id;
    stoa_str_t              head, body;
    ngx_http_stoa_parked_t *p;

    nl = ngx_strlchr(message.data, message.data + message.len, '\n');

    if (nl == NULL) {
        return;
    }

    head.data = message.data;
    head.len = (size_t) (nl - message.data);
    body.data = nl + 1;
    body.len = message.len - head.len - 1;

    if (!stoa_str_int(head, 1, INT64_MAX, &id)) {
        return;
    }

    if (ngx_http_stoa_wait_find(id) == NULL) {
        ngx_http_stoa_wait_early(id, body);
        return;
    }

    /* several may wait for one task; none of them waits twice */

    while ((p = ngx_http_stoa_wait_find(id)) != NULL) {
        ngx_http_stoa_wait_tell(p->q, body);
    }
}

void
ngx_http_stoa_wait_exit(void)
{
    ngx_uint_t i;

    for (i = 0; i < NGX_HTTP_STOA_WAIT_EARLY; i++) {
        if (ngx_http_stoa_earlies[i].data != NULL) {
            ngx_free(ngx_http_stoa_earlies[i].data);
            ngx_http_stoa_earlies[i].data = NULL;
            ngx_http_stoa_earlies[i].id = 0;
        }
    }
}

static void
ngx_http_stoa_wait_tell(ngx_http_stoa_ctx_t *q, stoa_str_t body)
{
    u_char *copy;

    ngx_http_stoa_resume_begin(q);

    copy = ngx_pnalloc(q->r->pool, body.len + 1);

    if (copy == NULL) {
        ngx_http_stoa_finish(q, ngx_http_stoa_wait_accepted(q));
        return;
    }

    ngx_memcpy(copy, body.data, body.len);
    body.data = copy;

    ngx_http_stoa_finish(q, ngx_http_stoa_wait_over(q, body));
}

/* The worker has spoken: message is in q's pool. */
static ngx_int_t
ngx_http_stoa_wait_over(ngx_http_stoa_ctx_t *q, stoa_str_t message)
{
    stoa_str_t              none = stoa_null_string;
    ngx_http_stoa_parked_t *p;

    p = q->parked;
    ngx_http_stoa_wait_leave(q);

    if (message.len != 0 && q->ep->media != STOA_MEDIA_BYTES) {
        p->body = message;

        return q->keyed ? ngx_http_stoa_wait_amend(q, p)
                        : ngx_http_stoa_reply_answer(q, p->status, message,
                                                     p->meta, none);
    }

    if (q->ep->method == STOA_GET) {
        return ngx_http_stoa_work(q);
    }

    return ngx_http_stoa_reply_answer(q, p->status, p->body, p->meta, none);
}

/* A replay repeats this answer, so it is stored before it is given. */
static ngx_int_t
ngx_http_stoa_wait_amend(ngx_http_stoa_ctx_t *q, ngx_http_stoa_parked_t *p)
{
    ngx_uint_t                 i;
    stoa_str_t                 v[4];
    ngx_http_stoa_main_conf_t *mcf;

    mcf = ngx_http_stoa_mcf(q->r);
    v[0] = ngx_http_stoa_idem_scope(q);
    v[1] = q->idem_key;
    v[2] = ngx_http_stoa_idem_print(q);
    v[3] = p->body;
    q->flow = p;
    q->resume = ngx_http_stoa_wait_amended;
    q->bystander = 1;

    for (i = 0; i < 4; i++) {
        p->values[i] = stoa_strdup_z(&q->mem, v[i]);
        p->lens[i] = (int) v[i].len;

        if (p->values[i] == NULL) {
            return ngx_http_stoa_wait_amended(q, STOA_E_NO_MEMORY);
        }
    }

    return ngx_http_stoa_sql_submit(q, STOA_POOL_WRITE,
                                    &mcf->stmts[STOA_STMT_IDEM_AMEND],
                                    p->values, p->lens);
}

static ngx_int_t
ngx_http_stoa_wait_amended(ngx_http_stoa_ctx_t *q, stoa_err_e err)
{
    stoa_str_t              none = stoa_null_string;
    ngx_http_stoa_parked_t *p;

    p = q->flow;

    if (err != STOA_OK) {
        ngx_log_error(NGX_LOG_WARN, q->r->connection->log, 0,
                      "stoa: the answer of a key was not amended: %s",
                      stoa_err_row(err)->code);
    }

    return ngx_http_stoa_reply_answer(q, p->status, p->body, p->meta, none);
}

static ngx_int_t
ngx_http_stoa_wait_accepted(ngx_http_stoa_ctx_t *q)
{
    ngx_http_stoa_parked_t *p;

    p = q->parked;
    ngx_http_stoa_wait_leave(q);

    return ngx_http_stoa_wait_later(q, p->body, p->meta);
}

/* Not done in time: 202, and where to look. */
ngx_int_t
ngx_http_stoa_wait_later(ngx_http_stoa_ctx_t *q, stoa_str_t body,
                         stoa_str_t meta)
{
    stoa_buf_t        b;
    stoa_str_t        none = stoa_null_string;
    stoa_json_t      *json, *v;
    stoa_json_fault_t fault;

    stoa_buf_init(&b, &q->mem, 128, 4096);
    v = NULL;

    if (meta.len != 0) {
        json = stoa_json_parse(&q->mem, meta, &fault);
        v = json != NULL && stoa_json_type(json) == STOA_JSON_OBJECT
              ? stoa_json_get(json, "location")
              : NULL;
    }

    if (v != NULL && stoa_json_type(v) == STOA_JSON_STRING) {
        stoa_buf_str(&b, stoa_json_str(v));

    } else {
        ngx_http_stoa_canonical_path(&b, q->gate, q->ep);
        json = q->ep->method == STOA_POST && body.len != 0
                 ? stoa_json_parse(&q->mem, body, &fault)
                 : NULL;
        v = json != NULL && stoa_json_type(json) == STOA_JSON_OBJECT
              ? stoa_json_get(json, "id")
              : NULL;

        if (v != NULL && stoa_json_type(v) == STOA_JSON_STRING) {
            stoa_buf_char(&b, '/');
            stoa_buf_str(&b, stoa_json_str(v));
        }
    }

    if (!b.failed) {
        q->location = stoa_buf_view(&b);
    }

    return ngx_http_stoa_reply_answer(q, NGX_HTTP_ACCEPTED, body, meta, none);
}

static void
ngx_http_stoa_wait_fire(stoa_timer_t *t)
{
    ngx_http_stoa_ctx_t    *q;
    ngx_http_stoa_parked_t *p;

    p = t->data;
    q = p->q;

    ngx_http_stoa_resume_begin(q);
    ngx_http_stoa_finish(q, ngx_http_stoa_wait_accepted(q));
}

static void
ngx_http_stoa_wait_early(int64_t id, stoa_str_t body)
{
    u_char                *copy;
    ngx_http_stoa_early_t *early;

    if (body.len > NGX_HTTP_STOA_WAIT_EARLY_MAX) {
        return;
    }

    copy = ngx_alloc(body.len + 1, ngx_cycle->log);
    if (copy == NULL) {
        return;
    }

    ngx_memcpy(copy, body.data, body.len);

    early = &ngx_http_stoa_earlies[ngx_http_stoa_early_next++
                                   % NGX_HTTP_STOA_WAIT_EARLY];

    if (early->data != NULL) {
        ngx_free(early->data);
    }

    early->id = id;
    early->len = body.len;
    early->data = copy;
}

static ngx_http_stoa_early_t *
ngx_http_stoa_wait_came(int64_t id)
{
    ngx_uint_t i;

    for (i = 0; i < NGX_HTTP_STOA_WAIT_EARLY; i++) {
        if (ngx_http_stoa_earlies[i].id == id) {
            return &ngx_http_stoa_earlies[i];
        }
    }

    return NULL;
}

static void
ngx_http_stoa_wait_insert(ngx_http_stoa_parked_t *p)
{
    if (ngx_http_stoa_waits.root == NULL) {
        ngx_rbtree_init(&ngx_http_stoa_waits, &ngx_http_stoa_wait_sentinel,
                        ngx_rbtree_insert_value);
    }

    p->node.key = (ngx_rbtree_key_t) p->id;
    ngx_rbtree_insert(&ngx_http_stoa_waits, &p->node);
}

static ngx_http_stoa_parked_t *
ngx_http_stoa_wait_find(int64_t id)
{
    ngx_rbtree_key_t   key;
    ngx_rbtree_node_t *node;

    if (ngx_http_stoa_waits.root == NULL) {
        return NULL;
    }

    key = (ngx_rbtree_key_t) id;
    node = ngx_http_stoa_waits.root;

    while (node != &ngx_http_stoa_wait_sentinel) {

        if (key == node->key) {
            return (
                ngx_http_stoa_parked_t *) ((u_char *) node
                                           - offsetof(ngx_http_stoa_parked_t,
                                                      node));
        }

        node = key < node->key ? node->left : node->right;
    }

    return NULL;
}
