/*
 * The start and the end of a process.
 *
 * One that serves requests (a worker, or the single process) makes its loop,
 * connection pools, Redis connections and timers when it starts and takes
 * them down at its end; nginx's helper processes make nothing.
 */

#include "ngx_http_stoa_limit.h"

ngx_http_stoa_process_t ngx_http_stoa_process;


static void
ngx_http_stoa_message(void *data, stoa_str_t channel, stoa_str_t message)
{
    ngx_http_stoa_process_t *p = &ngx_http_stoa_process;

    if (channel.len == p->ctl_len
        && ngx_memcmp(channel.data, p->ctl, p->ctl_len) == 0)
    {
        ngx_http_stoa_revoke_apply(message);
        return;
    }

    ngx_http_stoa_wait_message(channel, message);
}


static void
ngx_http_stoa_subscribed(void *data, bool up)
{
    /* what is missed while it is down comes by the one-second read, and
       waits for workers end with their time-out */
}


static ngx_int_t
ngx_http_stoa_open_pools(ngx_cycle_t *cycle, ngx_http_stoa_main_conf_t *mcf)
{
    static const char *const names[STOA_POOL_COUNT] = {
        [STOA_POOL_FAST] = "fast",
        [STOA_POOL_WRITE] = "write",
        [STOA_POOL_SLOW] = "slow",
    };
    ngx_http_stoa_process_t *p = &ngx_http_stoa_process;
    ngx_core_conf_t         *ccf;
    stoa_pg_conf_t           conf;
    ngx_uint_t               i, processes;

    ccf = (ngx_core_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_core_module);

    processes = ngx_process == NGX_PROCESS_SINGLE
                  ? 1
                  : (ngx_uint_t) ngx_max(ccf->worker_processes, 1);

    for (i = STOA_POOL_FAST; i < STOA_POOL_COUNT; i++) {
        ngx_memzero(&conf, sizeof(conf));

        conf.name = names[i];
        conf.conninfo = stoa_conf_conninfo(&mcf->conf, "edge", mcf->secrets);
        conf.size = (uint16_t) ngx_http_stoa_setup_share(mcf->pool_size[i],
                                                         p->slot, processes);
        conf.in_flight = i == STOA_POOL_FAST ? 64 : 1;
        conf.queue_max = (uint16_t) mcf->pool_queue;
        conf.nslots = (uint32_t) mcf->nstmts;
        conf.queue_timeout_ms = (uint32_t) mcf->pool_queue_timeout;
        conf.statement_timeout_ms = (uint32_t) mcf->pool_timeout[i];
        conf.connect_timeout_ms = 5000;
        conf.force_custom_plan = i == STOA_POOL_SLOW;

        if (conf.conninfo == NULL) {
            return NGX_ERROR;
        }

        p->pool[i] = stoa_pg_pool_create(p->loop, &conf);
        if (p->pool[i] == NULL) {
            return NGX_ERROR;
        }
    }

    stoa_pg_pool_cancel_via(p->pool[STOA_POOL_SLOW], p->pool[STOA_POOL_FAST]);

    return NGX_OK;
}


static ngx_int_t
ngx_http_stoa_open_redis(ngx_http_stoa_main_conf_t *mcf)
{
    ngx_http_stoa_process_t *p = &ngx_http_stoa_process;
    const stoa_conf_t       *c = &mcf->conf;
    stoa_redis_conf_t        conf;
    stoa_str_t               channel;
    u_char                   text[64 + 64 + sizeof("reply:")];

    ngx_memzero(&conf, sizeof(conf));

    if (c->redis_host[0] == '/') {
        conf.unix_path = c->redis_host;

    } else {
        conf.addr = c->redis_host;
        conf.port = (int) c->redis_port;
    }

    conf.user = c->redis_user[0] != '\0' ? c->redis_user : NULL;
    conf.password = c->redis_password[0] != '\0' ? c->redis_password : NULL;
    conf.db = (int) c->redis_db;
    conf.company = true;

    p->redis = stoa_redis_create(p->loop, &conf);
    p->sub = stoa_redis_sub_create(p->loop, &conf, ngx_http_stoa_message,
                                   ngx_http_stoa_subscribed, NULL);

    if (p->redis == NULL || p->sub == NULL) {
        return NGX_ERROR;
    }

    ngx_http_stoa_cluster_init_process();
    ngx_http_stoa_presence_init_process();

    p->ctl_len = (size_t) (ngx_snprintf((u_char *) p->ctl, sizeof(p->ctl),
                                        "%sctl", c->redis_prefix)
                           - (u_char *) p->ctl);

    channel.data = (u_char *) p->ctl;
    channel.len = p->ctl_len;

    if (stoa_redis_sub_add(p->sub, channel) != STOA_OK) {
        return NGX_ERROR;
    }

    channel.data = text;
    channel.len = (size_t) (ngx_snprintf(text, sizeof(text), "%sreply:%*s",
                                         c->redis_prefix, p->reply_to_len,
                                         p->reply_to)
                            - text);

    return stoa_redis_sub_add(p->sub, channel) == STOA_OK ? NGX_OK : NGX_ERROR;
}


/* "<host>.<slot>.<generation>": never the same twice. */
static ngx_int_t
ngx_http_stoa_address(ngx_cycle_t *cycle)
{
    ngx_http_stoa_process_t *p = &ngx_http_stoa_process;
    ngx_str_t                host = cycle->hostname;
    uint32_t                 generation[2];

    if (!stoa_random(generation, sizeof(generation))) {
        return NGX_ERROR;
    }

    host.len = ngx_min(host.len, 32);

    p->reply_to_len = (size_t) (ngx_snprintf(p->reply_to, sizeof(p->reply_to),
                                             "%V.%ui.%08xD%08xD", &host,
                                             p->slot, generation[0],
                                             generation[1])
                                - p->reply_to);

    return NGX_OK;
}


ngx_int_t
ngx_http_stoa_process_init(ngx_cycle_t *cycle)
{
    ngx_http_stoa_main_conf_t *mcf;
    ngx_http_stoa_process_t   *p = &ngx_http_stoa_process;

    ngx_memzero(p, sizeof(ngx_http_stoa_process_t));

    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    mcf = ngx_http_stoa_cycle_conf(cycle);
    if (mcf == NULL) {
        return NGX_OK;
    }

    p->cycle = cycle;
    p->mcf = mcf;
    p->slot = ngx_process == NGX_PROCESS_WORKER ? (ngx_uint_t) ngx_worker : 0;

    stoa_id_init(&p->ids);
    ngx_http_stoa_log_init(&p->log, cycle->log);

    p->loop = ngx_http_stoa_loop_create(cycle, &p->log);

    if (p->loop == NULL || ngx_http_stoa_address(cycle) != NGX_OK
        || ngx_http_stoa_auth_init_process(cycle) != NGX_OK
        || ngx_http_stoa_open_pools(cycle, mcf) != NGX_OK
        || ngx_http_stoa_open_redis(mcf) != NGX_OK
        || ngx_http_stoa_issuer_init_process(mcf) != NGX_OK)
    {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                      "stoa: the process cannot start");
        return NGX_ERROR;
    }

#ifdef STOA_TEST
    if (mcf->conf.test_clock_file[0] != '\0'
        && !stoa_time_test_file(mcf->conf.test_clock_file))
    {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, ngx_errno,
                      "stoa: clock file \"%s\" cannot be mapped",
                      mcf->conf.test_clock_file);
        return NGX_ERROR;
    }
#endif

    ngx_http_stoa_metric_open(p->slot);

    if (mcf->served
        && (ngx_http_stoa_cache_init_process(cycle) != NGX_OK
            || ngx_http_stoa_pipeline_init_process(cycle) != NGX_OK))
    {
        return NGX_ERROR;
    }

    return ngx_http_stoa_tick_init_process(cycle);
}


void
ngx_http_stoa_process_exit(ngx_cycle_t *cycle)
{
    ngx_http_stoa_process_t *p = &ngx_http_stoa_process;
    ngx_uint_t               i;

    if (p->mcf == NULL || p->loop == NULL) {
        return;
    }

    p->shutting_down = 1;

    ngx_http_stoa_tick_exit_process(cycle);
    ngx_http_stoa_issuer_exit_process();
    ngx_http_stoa_key_exit_process(cycle);
    ngx_http_stoa_metric_close();

    if (p->mcf->served) {
        ngx_http_stoa_pipeline_exit_process(cycle);
    }

    for (i = STOA_POOL_FAST; i < STOA_POOL_COUNT; i++) {
        if (p->pool[i] != NULL) {
            stoa_pg_pool_destroy(p->pool[i]);
            p->pool[i] = NULL;
        }
    }

    if (p->sub != NULL) {
        stoa_redis_sub_destroy(p->sub);
        p->sub = NULL;
    }

    if (p->redis != NULL) {
        stoa_redis_destroy(p->redis);
        p->redis = NULL;
    }

    if (p->mcf->served) {
        ngx_http_stoa_cache_exit_process(cycle);
    }

    ngx_http_stoa_loop_destroy(p->loop);
    p->loop = NULL;
    p->mcf = NULL;
}
