/*
 * Password hashes in nginx's thread pool "stoa_hash": at low priority, with
 * the password's copy wiped as soon as the thread is done.
 *
 * The pool is given only as many as it has threads; the others wait in lanes
 * (ngx_http_stoa_lane.c), at most "queue" of them and none longer than
 * "wait".  Who would wait longer, as hashes went of late, is refused at once,
 * so that sign-ins that are let in are answered soon, however many come.
 *
 * The task owns its memory and outlives a client that leaves; one that still
 * waits gives its place back.  A retiring process does not know of running
 * tasks: while there are any, a timer that is not cancelable keeps it alive.
 */

#include "ngx_http_stoa_zone.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NGX_HTTP_STOA_HASH_NICE  10
#define NGX_HTTP_STOA_HASH_GUARD 1000
#define NGX_HTTP_STOA_HASH_AFTER 60 /* at most, in Retry-After */

static ngx_http_stoa_hash_t *ngx_http_stoa_hash_create(ngx_http_stoa_ctx_t *q,
                                                       stoa_str_t password,
                                                       stoa_str_t stored);
static ngx_int_t             ngx_http_stoa_hash_place(ngx_http_stoa_hash_t *h);
static void      ngx_http_stoa_hash_next(ngx_http_stoa_main_conf_t *mcf);
static ngx_int_t ngx_http_stoa_hash_post(ngx_http_stoa_hash_t *h);
static uint64_t  ngx_http_stoa_hash_ahead_us(ngx_http_stoa_ctx_t *q);
static void      ngx_http_stoa_hash_after(ngx_http_stoa_ctx_t *q);
static void      ngx_http_stoa_hash_refuse(ngx_http_stoa_hash_t *h);
static void      ngx_http_stoa_hash_refused(stoa_defer_t *d);
static void      ngx_http_stoa_hash_thread(void *data, ngx_log_t *log);
static void      ngx_http_stoa_hash_done(ngx_event_t *ev);
static void      ngx_http_stoa_hash_guard(stoa_timer_t *t);
static void      ngx_http_stoa_hash_free(ngx_http_stoa_hash_t *h);

static ngx_uint_t   ngx_http_stoa_hashes;  /* waiting, refused or running */
static ngx_uint_t   ngx_http_stoa_hashing; /* given to threads */
static uint64_t     ngx_http_stoa_hash_us; /* the mean of late */
static ngx_queue_t  ngx_http_stoa_hash_refusals; /* to be told so */
static stoa_defer_t ngx_http_stoa_hash_tell = { ngx_http_stoa_hash_refused,
                                                NULL, NULL, false };
static stoa_timer_t ngx_http_stoa_hash_timer = { ngx_http_stoa_hash_guard, NULL,
                                                 NULL, false };

/* Declares the pool as "thread_pool stoa_hash threads=N max_queue=N;". */
ngx_int_t
ngx_http_stoa_hash_init(ngx_conf_t *cf, ngx_http_stoa_main_conf_t *mcf,
                        ngx_http_stoa_pipeline_t *pl)
{
    char          *rv;
    u_char        *p;
    ngx_str_t     *value, name = ngx_string("stoa_hash");
    ngx_uint_t     i;
    ngx_array_t    args, *saved;
    ngx_module_t **modules;
    ngx_command_t *cmd;

    if (!stoa_hash_init()) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "libsodium cannot start");
        return NGX_ERROR;
    }

    if (ngx_array_init(&args, cf->pool, 4, sizeof(ngx_str_t)) != NGX_OK
        || (value = ngx_array_push_n(&args, 4)) == NULL
        || (p = ngx_pnalloc(cf->pool, 2 * (NGX_INT_T_LEN + 16))) == NULL)
    {
        return NGX_ERROR;
    }

    ngx_str_set(&value[0], "thread_pool");
    value[1] = name;
    value[2].data = p;
    value[2].len = (size_t) (ngx_sprintf(p, "threads=%ui%Z", mcf->hash_threads)
                             - p)
                 - 1;
    p += NGX_INT_T_LEN + 16;
    value[3].data = p;
    value[3].len = (size_t) (ngx_sprintf(p, "max_queue=%ui%Z",
                                         mcf->hash_threads)
                             - p)
                 - 1;

    modules = cf->cycle->modules;
    cmd = NULL;

    for (i = 0; modules[i] != NULL; i++) {
        if (ngx_strcmp(modules[i]->name, "ngx_thread_pool_module") == 0) {
            cmd = modules[i]->commands;
            break;
        }
    }

    if (cmd == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "this nginx was built without threads");
        return NGX_ERROR;
    }

    saved = cf->args;
    cf->args = &args;
    rv = cmd->set(cf, cmd, NULL);
    cf->args = saved;

    if (rv != NGX_CONF_OK) {
        if (rv != NGX_CONF_ERROR) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "thread_pool stoa_hash %s",
                               rv);
        }

        return NGX_ERROR;
    }

    pl->hash_pool = ngx_thread_pool_add(cf, &name);

    return pl->hash_pool != NULL ? NGX_OK : NGX_ERROR;
}

ngx_int_t
ngx_http_stoa_hash_run(ngx_http_stoa_ctx_t *q, stoa_str_t password,
                       stoa_str_t stored, ngx_uint_t decoy)
{
    ngx_int_t             rc;
    stoa_loop_t          *loop = ngx_http_stoa_process.loop;
    ngx_http_stoa_hash_t *h;

    h = ngx_http_stoa_hash_create(q, password, stored);
    if (h == NULL) {
        return ngx_http_stoa_reply_error(q, STOA_E_NO_MEMORY);
    }

    h->decoy = decoy;
    h->q = q;
    rc = ngx_http_stoa_hash_place(h);

    if (rc != NGX_OK) {
        ngx_http_stoa_hash_free(h);

        if (rc == NGX_ERROR) {
            return ngx_http_stoa_reply_error(q, STOA_E_NO_MEMORY);
        }

        ngx_http_stoa_metric_add(STOA_M_hash_refused, 1);
        ngx_http_stoa_hash_after(q);

        return ngx_http_stoa_reply_error(q, STOA_E_HASH_QUEUE_FULL);
    }

    if (q->hashing != NULL) {
        ngx_http_stoa_hash_leave(q); /* an earlier one of this flow */
    }

    q->hashing = h;

    ngx_http_stoa_metric_add(STOA_M_hash_queued, 1);

    if (ngx_http_stoa_hashes++ == 0) {
        loop->timer_set(loop, &ngx_http_stoa_hash_timer,
                        NGX_HTTP_STOA_HASH_GUARD);
    }

    q->r->connection->log->action = (char *) "waiting for a password hash";

    return ngx_http_stoa_suspend(q);
}

/* A copy of everything, since the request may go before the thread does. */
static ngx_http_stoa_hash_t *
ngx_http_stoa_hash_create(ngx_http_stoa_ctx_t *q, stoa_str_t password,
                          stoa_str_t stored)
{
    ngx_pool_t                *pool;
    ngx_thread_task_t         *task;
    ngx_http_stoa_hash_t      *h;
    ngx_http_stoa_main_conf_t *mcf = ngx_http_stoa_mcf(q->r);

    pool = ngx_create_pool(2048, ngx_cycle->log);
    if (pool == NULL) {
        return NULL;
    }

    task = ngx_thread_task_alloc(pool, sizeof(ngx_http_stoa_hash_t));
    if (task == NULL) {
        ngx_destroy_pool(pool);
        return NULL;
    }

    h = task->ctx;
    ngx_memzero(h, sizeof(ngx_http_stoa_hash_t));
    h->pool = pool;
    h->task = task;
    h->cost.memory_kib = (uint32_t) mcf->conf.argon2_memory_kib;
    h->cost.passes = (uint32_t) mcf->conf.argon2_passes;
    h->password.data = ngx_pnalloc(pool, password.len + 1);
    h->stored.data = ngx_pnalloc(pool, stored.len + 1);

    if (h->password.data == NULL || h->stored.data == NULL) {
        ngx_destroy_pool(pool);
        return NULL;
    }

    h->password.len = password.len;
    ngx_memcpy(h->password.data, password.data, password.len);
    h->stored.len = stored.len;
    ngx_memcpy(h->stored.data, stored.data, stored.len);
    h->kind = stored.len == 0 ? STOA_HASH_ARGON2ID : stoa_hash_kind(stored);
    h->since_us = ngx_http_stoa_mono_us();

    task->handler = ngx_http_stoa_hash_thread;
    task->event.handler = ngx_http_stoa_hash_done;
    task->event.data = h;

    return h;
}

/* To a thread, or into a lane; NGX_BUSY: neither. */
static ngx_int_t
ngx_http_stoa_hash_place(ngx_http_stoa_hash_t *h)
{
    ngx_int_t                  rc;
    ngx_http_stoa_hash_t      *out;
    ngx_http_stoa_main_conf_t *mcf = ngx_http_stoa_mcf(h->q->r);

    if (ngx_http_stoa_hashing < mcf->hash_threads) {
        return ngx_http_stoa_hash_post(h);
    }

    if (ngx_http_stoa_hash_ahead_us(h->q) > mcf->hash_wait * 1000) {
        return NGX_BUSY;
    }

    rc = ngx_http_stoa_lane_put(h, mcf->hash_queue, &out);

    if (rc == NGX_OK) {
        ngx_http_stoa_metric_add(STOA_M_hash_waiting, 1);

        if (out != NULL) {
            ngx_http_stoa_hash_refuse(out);
        }
    }

    return rc;
}

static ngx_int_t
ngx_http_stoa_hash_post(ngx_http_stoa_hash_t *h)
{
    ngx_http_stoa_shared_t   *sh = ngx_http_stoa_shared();
    ngx_http_stoa_pipeline_t *pl = ngx_http_stoa_process.mcf->pipeline;

    if (ngx_thread_task_post(pl->hash_pool, h->task) != NGX_OK) {
        return NGX_ERROR;
    }

    h->posted = 1;
    ngx_http_stoa_hashing++;

    if (sh != NULL) {
        ngx_http_stoa_metric_observe(&sh->hash_wait,
                                     ngx_http_stoa_mono_us() - h->since_us);
    }

    return NGX_OK;
}

/* A thread is free. */
static void
ngx_http_stoa_hash_next(ngx_http_stoa_main_conf_t *mcf)
{
    uint64_t              now = ngx_http_stoa_mono_us();
    ngx_http_stoa_hash_t *h;

    while (ngx_http_stoa_hashing < mcf->hash_threads) {
        h = ngx_http_stoa_lane_take();

        if (h == NULL) {
            return;
        }

        if (now - h->since_us > mcf->hash_wait * 1000
            || ngx_http_stoa_hash_post(h) != NGX_OK)
        {
            ngx_http_stoa_hash_refuse(h);
            continue;
        }

        ngx_http_stoa_metric_add(STOA_M_hash_waiting, -1);
    }
}

/* How long who comes now would wait, as hashes went of late. */
static uint64_t
ngx_http_stoa_hash_ahead_us(ngx_http_stoa_ctx_t *q)
{
    return ngx_http_stoa_hash_us * ngx_http_stoa_lane_ahead(q->gate)
         / ngx_http_stoa_mcf(q->r)->hash_threads;
}

/* Retry-After: when those that wait now will be done. */
static void
ngx_http_stoa_hash_after(ngx_http_stoa_ctx_t *q)
{
    uint64_t us;

    us = ngx_http_stoa_hash_us
       * (ngx_http_stoa_hashing + ngx_http_stoa_lane_waiting())
       / ngx_http_stoa_mcf(q->r)->hash_threads;

    q->gate->retry_after = (ngx_uint_t) ngx_min(us / 1000000 + 1,
                                                NGX_HTTP_STOA_HASH_AFTER);
}

/* Of one that waited, and is in no lane any more.  It is told when this turn
   of the loop ends, since another request is being worked on now. */
static void
ngx_http_stoa_hash_refuse(ngx_http_stoa_hash_t *h)
{
    stoa_loop_t *loop = ngx_http_stoa_process.loop;

    ngx_http_stoa_metric_add(STOA_M_hash_waiting, -1);
    ngx_http_stoa_metric_add(STOA_M_hash_refused, 1);

    if (ngx_http_stoa_hash_refusals.next == NULL) {
        ngx_queue_init(&ngx_http_stoa_hash_refusals);
    }

    h->refused = 1;
    ngx_queue_insert_tail(&ngx_http_stoa_hash_refusals, &h->link);
    loop->defer(loop, &ngx_http_stoa_hash_tell);
}

static void
ngx_http_stoa_hash_refused(stoa_defer_t *d)
{
    ngx_http_stoa_ctx_t  *q;
    ngx_http_stoa_hash_t *h;

    while (!ngx_queue_empty(&ngx_http_stoa_hash_refusals)) {
        h = ngx_queue_data(ngx_queue_head(&ngx_http_stoa_hash_refusals),
                           ngx_http_stoa_hash_t, link);
        q = h->q;
        ngx_http_stoa_hash_leave(q);
        ngx_http_stoa_hash_after(q);

        ngx_http_stoa_resume_begin(q);
        ngx_http_stoa_finish(q, q->resume(q, STOA_E_HASH_QUEUE_FULL));
    }
}

/* It is neither waiting nor running any more. */
static void
ngx_http_stoa_hash_end(void)
{
    stoa_loop_t *loop = ngx_http_stoa_process.loop;

    ngx_http_stoa_metric_add(STOA_M_hash_queued, -1);

    if (--ngx_http_stoa_hashes == 0 && loop != NULL) {
        loop->timer_close(loop, &ngx_http_stoa_hash_timer);
    }
}

void
ngx_http_stoa_hash_leave(ngx_http_stoa_ctx_t *q)
{
    ngx_http_stoa_hash_t *h;

    h = q->hashing;
    q->hashing = NULL;
    h->q = NULL;
    __atomic_store_n(&h->left, true, __ATOMIC_RELAXED);

    if (h->posted && !h->done) {
        return; /* the thread's word frees it */
    }

    if (h->lane != NULL) {
        ngx_http_stoa_lane_remove(h);
        ngx_http_stoa_metric_add(STOA_M_hash_waiting, -1);

    } else if (h->refused) {
        ngx_queue_remove(&h->link);
    }

    if (!h->done) {
        ngx_http_stoa_hash_end();
    }

    ngx_http_stoa_hash_free(h);
}

/* In a thread: touches nothing but h, and of what the loop writes only left. */
static void
ngx_http_stoa_hash_thread(void *data, ngx_log_t *log)
{
    uint64_t              begun;
    ngx_http_stoa_hash_t *h;

    static __thread ngx_uint_t polite;

    h = data;

    if (!polite) {
        polite = 1;
        /* the loop comes first when cores are few; refusal does no harm */
        (void) setpriority(PRIO_PROCESS, (id_t) syscall(SYS_gettid),
                           NGX_HTTP_STOA_HASH_NICE);
    }

    begun = ngx_http_stoa_mono_us();
    ngx_http_stoa_hash_mem_begin();

    if (__atomic_load_n(&h->left, __ATOMIC_RELAXED)) {
        h->outcome = NGX_HTTP_STOA_HASH_FAILED; /* did not wait for it */

    } else if (h->stored.len == 0 || h->decoy) {
        h->outcome = stoa_hash_make(&h->cost, h->password, h->made)
                       ? NGX_HTTP_STOA_HASH_MADE
                       : NGX_HTTP_STOA_HASH_FAILED;

        if (h->decoy) {
            stoa_wipe(h->made, sizeof(h->made));

            if (h->outcome == NGX_HTTP_STOA_HASH_MADE) {
                h->outcome = NGX_HTTP_STOA_HASH_MISMATCHED;
            }
        }

    } else {
        h->matched = stoa_hash_verify(h->stored, h->password);
        h->outcome = h->matched ? NGX_HTTP_STOA_HASH_MATCHED
                                : NGX_HTTP_STOA_HASH_MISMATCHED;

        if (h->matched
            && stoa_hash_needs_rehash(&h->cost, h->stored, h->password)) {
            if (stoa_hash_make(&h->cost, h->password, h->made)) {
                h->outcome = NGX_HTTP_STOA_HASH_REHASHED;

            } else {
                h->made[0] = '\0'; /* the old one stays good */
            }
        }
    }

    ngx_http_stoa_hash_mem_end();
    h->run_us = ngx_http_stoa_mono_us() - begun;

    stoa_wipe(h->password.data, h->password.len);
}

static void
ngx_http_stoa_hash_done(ngx_event_t *ev)
{
    stoa_err_e                 err;
    ngx_http_stoa_ctx_t       *q;
    ngx_http_stoa_hash_t      *h = ev->data;
    ngx_http_stoa_shared_t    *sh = ngx_http_stoa_shared();
    ngx_http_stoa_main_conf_t *mcf = ngx_http_stoa_process.mcf;

    h->done = 1;
    ngx_http_stoa_hashing--;
    ngx_http_stoa_hash_end();

    if (sh != NULL) {
        ngx_http_stoa_metric_observe(&sh->hash_run[h->kind][h->outcome],
                                     h->run_us);
    }

    if (!h->left) {
        ngx_http_stoa_hash_us = ngx_http_stoa_hash_us == 0
                                  ? h->run_us
                                  : (ngx_http_stoa_hash_us * 7 + h->run_us) / 8;
    }

    ngx_http_stoa_hash_next(mcf);

    q = h->q;

    if (q == NULL) {
        ngx_http_stoa_hash_free(h);
        return;
    }

    err = h->outcome == NGX_HTTP_STOA_HASH_FAILED ? STOA_E_NO_MEMORY : STOA_OK;

    ngx_http_stoa_resume_begin(q);
    ngx_http_stoa_finish(q, q->resume(q, err));
}

static void
ngx_http_stoa_hash_guard(stoa_timer_t *t)
{
    stoa_loop_t *loop;

    if (ngx_http_stoa_hashes != 0) {
        loop = ngx_http_stoa_process.loop;
        loop->timer_set(loop, t, NGX_HTTP_STOA_HASH_GUARD);
    }
}

void
ngx_http_stoa_hash_exit(void)
{
    stoa_loop_t *loop = ngx_http_stoa_process.loop;

    loop->defer_close(loop, &ngx_http_stoa_hash_tell);
}

static void
ngx_http_stoa_hash_free(ngx_http_stoa_hash_t *h)
{
    stoa_wipe(h->made, sizeof(h->made));

    if (!h->posted) {
        stoa_wipe(h->password.data, h->password.len);
    }

    ngx_destroy_pool(h->pool);
}
