/*
 * Password hashes in nginx's thread pool "stoa_hash": bounded (a full queue
 * answers 503), at low priority, with the password's copy wiped as soon as
 * the thread is done.
 *
 * The task owns its memory and outlives a client that leaves.  A retiring
 * process does not know of running tasks: while there are any, a timer that
 * is not cancelable keeps it alive.
 */

#include "ngx_http_stoa.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NGX_HTTP_STOA_HASH_NICE  10
#define NGX_HTTP_STOA_HASH_GUARD 1000

static void ngx_http_stoa_hash_thread(void *data, ngx_log_t *log);
static void ngx_http_stoa_hash_done(ngx_event_t *ev);
static void ngx_http_stoa_hash_guard(stoa_timer_t *t);
static void ngx_http_stoa_hash_free(ngx_http_stoa_hash_t *h);

static ngx_uint_t   ngx_http_stoa_hashes; /* queued or running */
static stoa_timer_t ngx_http_stoa_hash_timer = { ngx_http_stoa_hash_guard, NULL,
                                                 NULL, false };

/* Declares the pool as "thread_pool stoa_hash threads=N max_queue=M;". */
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
                                         mcf->hash_queue + 1)
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
    stoa_loop_t               *loop;
    ngx_pool_t                *pool;
    ngx_thread_task_t         *task;
    ngx_http_stoa_hash_t      *h;
    ngx_http_stoa_main_conf_t *mcf;

    mcf = ngx_http_stoa_mcf(q->r);

    if (ngx_http_stoa_hashes >= mcf->hash_threads + mcf->hash_queue) {
        ngx_http_stoa_metric_add(STOA_M_hash_refused, 1);
        return ngx_http_stoa_reply_error(q, STOA_E_HASH_QUEUE_FULL);
    }

    pool = ngx_create_pool(2048, ngx_cycle->log);
    if (pool == NULL) {
        return ngx_http_stoa_reply_error(q, STOA_E_NO_MEMORY);
    }

    task = ngx_thread_task_alloc(pool, sizeof(ngx_http_stoa_hash_t));
    if (task == NULL) {
        ngx_destroy_pool(pool);
        return ngx_http_stoa_reply_error(q, STOA_E_NO_MEMORY);
    }

    h = task->ctx;
    ngx_memzero(h, sizeof(ngx_http_stoa_hash_t));
    h->pool = pool;
    h->task = task;
    h->decoy = decoy;
    h->cost.memory_kib = (uint32_t) mcf->conf.argon2_memory_kib;
    h->cost.passes = (uint32_t) mcf->conf.argon2_passes;
    h->password.data = ngx_pnalloc(pool, password.len + 1);
    h->stored.data = ngx_pnalloc(pool, stored.len + 1);

    if (h->password.data == NULL || h->stored.data == NULL) {
        ngx_destroy_pool(pool);
        return ngx_http_stoa_reply_error(q, STOA_E_NO_MEMORY);
    }

    h->password.len = password.len;
    ngx_memcpy(h->password.data, password.data, password.len);
    h->stored.len = stored.len;
    ngx_memcpy(h->stored.data, stored.data, stored.len);

    task->handler = ngx_http_stoa_hash_thread;
    task->event.handler = ngx_http_stoa_hash_done;
    task->event.data = h;

    if (ngx_thread_task_post(ngx_http_stoa_pipeline(q->r)->hash_pool, task)
        != NGX_OK)
    {
        stoa_wipe(h->password.data, h->password.len);
        ngx_destroy_pool(pool);
        ngx_http_stoa_metric_add(STOA_M_hash_refused, 1);
        return ngx_http_stoa_reply_error(q, STOA_E_HASH_QUEUE_FULL);
    }

    if (q->hashing != NULL) {
        ngx_http_stoa_hash_leave(q); /* an earlier one of this flow */
    }

    h->q = q;
    q->hashing = h;

    ngx_http_stoa_metric_add(STOA_M_hash_queued, 1);

    if (ngx_http_stoa_hashes++ == 0) {
        loop = ngx_http_stoa_process.loop;
        loop->timer_set(loop, &ngx_http_stoa_hash_timer,
                        NGX_HTTP_STOA_HASH_GUARD);
    }

    q->r->connection->log->action = (char *) "waiting for a password hash";

    return ngx_http_stoa_suspend(q);
}

void
ngx_http_stoa_hash_leave(ngx_http_stoa_ctx_t *q)
{
    ngx_http_stoa_hash_t *h;

    h = q->hashing;
    q->hashing = NULL;
    h->q = NULL;
    __atomic_store_n(&h->left, true, __ATOMIC_RELAXED);

    if (h->done) {
        ngx_http_stoa_hash_free(h);
    }
}

/* In a thread: touches nothing but h, and of what the loop writes only left. */
static void
ngx_http_stoa_hash_thread(void *data, ngx_log_t *log)
{
    ngx_http_stoa_hash_t *h;

    static __thread ngx_uint_t polite;

    h = data;

    if (!polite) {
        polite = 1;
        /* the loop comes first when cores are few; refusal does no harm */
        (void) setpriority(PRIO_PROCESS, (id_t) syscall(SYS_gettid),
                           NGX_HTTP_STOA_HASH_NICE);
    }

    if (__atomic_load_n(&h->left, __ATOMIC_RELAXED)) {
        h->failed = 1; /* the client did not wait for its turn */

    } else if (h->stored.len == 0 || h->decoy) {
        h->failed = !stoa_hash_make(&h->cost, h->password, h->made);

        if (h->decoy) {
            stoa_wipe(h->made, sizeof(h->made));
        }

    } else {
        h->matched = stoa_hash_verify(h->stored, h->password);

        if (h->matched
            && stoa_hash_needs_rehash(&h->cost, h->stored, h->password)
            && !stoa_hash_make(&h->cost, h->password, h->made))
        {
            h->made[0] = '\0'; /* the old one stays good */
        }
    }

    stoa_wipe(h->password.data, h->password.len);
}

static void
ngx_http_stoa_hash_done(ngx_event_t *ev)
{
    stoa_loop_t          *loop;
    ngx_http_stoa_ctx_t  *q;
    ngx_http_stoa_hash_t *h;

    h = ev->data;
    h->done = 1;

    ngx_http_stoa_metric_add(STOA_M_hash_queued, -1);

    loop = ngx_http_stoa_process.loop;

    if (--ngx_http_stoa_hashes == 0 && loop != NULL) {
        loop->timer_close(loop, &ngx_http_stoa_hash_timer);
    }

    q = h->q;

    if (q == NULL) {
        ngx_http_stoa_hash_free(h);
        return;
    }

    ngx_http_stoa_resume_begin(q);
    ngx_http_stoa_finish(q,
                         q->resume(q, h->failed ? STOA_E_NO_MEMORY : STOA_OK));
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

static void
ngx_http_stoa_hash_free(ngx_http_stoa_hash_t *h)
{
    stoa_wipe(h->made, sizeof(h->made));
    ngx_destroy_pool(h->pool);
}
