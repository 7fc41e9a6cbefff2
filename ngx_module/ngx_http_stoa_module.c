/*
 * The module itself: directive table, creation and merging of configuration,
 * start and end of a process.  No request logic.
 *
 * A process that serves requests (a worker, or the single process) makes its
 * loop, connection pools, Redis connections and timers in init_process and
 * takes them down in exit_process; nginx's helper processes make nothing.
 */

#include "ngx_http_stoa_conf.h"

#include <unistd.h>

static ngx_int_t ngx_http_stoa_preconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_stoa_postconfiguration(ngx_conf_t *cf);
static void     *ngx_http_stoa_create_main_conf(ngx_conf_t *cf);
static void     *ngx_http_stoa_create_loc_conf(ngx_conf_t *cf);
static char     *ngx_http_stoa_merge_loc_conf(ngx_conf_t *cf, void *parent,
                                              void *child);
static ngx_int_t ngx_http_stoa_init_module(ngx_cycle_t *cycle);
static ngx_int_t ngx_http_stoa_init_process(ngx_cycle_t *cycle);
static void      ngx_http_stoa_exit_process(ngx_cycle_t *cycle);

ngx_http_stoa_process_t ngx_http_stoa_process;

static const char *const ngx_http_stoa_cases[] = { "camel", "snake", NULL };
static const char *const ngx_http_stoa_envelopes[] = { "full", "avenrae",
                                                       "bare", NULL };
static const char *const ngx_http_stoa_if_matches[] = { "optional", "required",
                                                        NULL };

static ngx_command_t ngx_http_stoa_commands[] = {

    { ngx_string("stoa_settings"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1,
      ngx_http_stoa_conf_settings, NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL },

    { ngx_string("stoa_zone"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1,
      ngx_http_stoa_conf_zone, NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL },

    { ngx_string("stoa_pool"), NGX_HTTP_MAIN_CONF | NGX_CONF_1MORE,
      ngx_http_stoa_conf_pool, NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL },

    { ngx_string("stoa_pool_timeout"), NGX_HTTP_MAIN_CONF | NGX_CONF_1MORE,
      ngx_http_stoa_conf_pool_timeout, NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL },

    { ngx_string("stoa_hash"), NGX_HTTP_MAIN_CONF | NGX_CONF_1MORE,
      ngx_http_stoa_conf_hash, NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL },

    { ngx_string("stoa_cache"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1,
      ngx_http_stoa_conf_cache, NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL },

    { ngx_string("stoa_limit"), NGX_HTTP_MAIN_CONF | NGX_CONF_2MORE,
      ngx_http_stoa_conf_limit, NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL },

    { ngx_string("stoa_api"),
      NGX_HTTP_LOC_CONF | NGX_HTTP_LMT_CONF | NGX_CONF_FLAG,
      ngx_http_stoa_conf_api, NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_stoa_loc_conf_t, api), NULL },

    { ngx_string("stoa_auth"),
      NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF
          | NGX_CONF_TAKE12,
      ngx_http_stoa_conf_auth, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL },

    { ngx_string("stoa_limit_apply"),
      NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF
          | NGX_CONF_TAKE1,
      ngx_http_stoa_conf_limit_apply, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL },

    { ngx_string("stoa_json_case"),
      NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF
          | NGX_CONF_TAKE1,
      ngx_http_stoa_conf_word, NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_stoa_loc_conf_t, case_snake),
      (void *) (uintptr_t) ngx_http_stoa_cases },

    { ngx_string("stoa_envelope"),
      NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF
          | NGX_CONF_TAKE1,
      ngx_http_stoa_conf_word, NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_stoa_loc_conf_t, envelope),
      (void *) (uintptr_t) ngx_http_stoa_envelopes },

    { ngx_string("stoa_if_match"),
      NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF
          | NGX_CONF_TAKE1,
      ngx_http_stoa_conf_word, NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_stoa_loc_conf_t, if_match),
      (void *) (uintptr_t) ngx_http_stoa_if_matches },

    { ngx_string("stoa_cors"),
      NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF
          | NGX_CONF_1MORE,
      ngx_http_stoa_conf_cors, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL },

    { ngx_string("stoa_security_headers"),
      NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF
          | NGX_CONF_FLAG,
      ngx_conf_set_flag_slot, NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_stoa_loc_conf_t, security_headers), NULL },

    { ngx_string("stoa_errors"),
      NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF
          | NGX_CONF_FLAG,
      ngx_conf_set_flag_slot, NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_stoa_loc_conf_t, errors), NULL },

    { ngx_string("stoa_metrics"), NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS,
      ngx_http_stoa_conf_status, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL },

    { ngx_string("stoa_health"), NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS,
      ngx_http_stoa_conf_status, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL },

    ngx_null_command
};

static ngx_http_module_t ngx_http_stoa_module_ctx = {
    ngx_http_stoa_preconfiguration,  /* preconfiguration */
    ngx_http_stoa_postconfiguration, /* postconfiguration */

    ngx_http_stoa_create_main_conf, /* create main configuration */
    NULL,                           /* init main configuration */

    NULL, /* create server configuration */
    NULL, /* merge server configuration */

    ngx_http_stoa_create_loc_conf, /* create location configuration */
    ngx_http_stoa_merge_loc_conf   /* merge location configuration */
};

ngx_module_t ngx_http_stoa_module = {
    NGX_MODULE_V1,
    &ngx_http_stoa_module_ctx,  /* module context */
    ngx_http_stoa_commands,     /* module directives */
    NGX_HTTP_MODULE,            /* module type */
    NULL,                       /* init master */
    ngx_http_stoa_init_module,  /* init module */
    ngx_http_stoa_init_process, /* init process */
    NULL,                       /* init thread */
    NULL,                       /* exit thread */
    ngx_http_stoa_exit_process, /* exit process */
    NULL,                       /* exit master */
    NGX_MODULE_V1_PADDING
};


/* ---- configuration ---- */

static ngx_int_t
ngx_http_stoa_preconfiguration(ngx_conf_t *cf)
{
    return ngx_http_stoa_add_variables(cf);
}


static void *
ngx_http_stoa_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_stoa_main_conf_t *mcf;

    mcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_stoa_main_conf_t));
    if (mcf == NULL) {
        return NULL;
    }

    mcf->mem = ngx_palloc(cf->pool, sizeof(stoa_mem_t));
    if (mcf->mem == NULL) {
        return NULL;
    }

    ngx_http_stoa_mem_init(mcf->mem, cf->pool);
    ngx_http_stoa_setup_defaults(mcf);

    return mcf;
}


static void *
ngx_http_stoa_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_stoa_loc_conf_t *lcf;

    lcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_stoa_loc_conf_t));
    if (lcf == NULL) {
        return NULL;
    }

    lcf->api = NGX_CONF_UNSET;
    lcf->auth = NGX_CONF_UNSET_UINT;
    lcf->rate = NGX_CONF_UNSET_UINT;
    lcf->case_snake = NGX_CONF_UNSET_UINT;
    lcf->envelope = NGX_CONF_UNSET_UINT;
    lcf->if_match = NGX_CONF_UNSET_UINT;
    lcf->errors = NGX_CONF_UNSET;
    lcf->security_headers = NGX_CONF_UNSET;
    lcf->cors = NGX_CONF_UNSET_PTR;

    return lcf;
}


static char *
ngx_http_stoa_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_stoa_loc_conf_t *prev = parent, *conf = child;
    ngx_http_core_loc_conf_t *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    /* as with proxy_pass: only "if" and "limit_except" inherit the handler */
    if (clcf->noname && clcf->handler == NULL && prev->api == 1
        && conf->api == NGX_CONF_UNSET)
    {
        conf->api = 1;
        clcf->handler = ngx_http_stoa_handler;
    }

    if (conf->api == NGX_CONF_UNSET) {
        conf->api = 0;
    }

    if (conf->auth == NGX_CONF_UNSET_UINT) {
        conf->roles = prev->roles;
    }

    ngx_conf_merge_uint_value(conf->auth, prev->auth, 0);
    ngx_conf_merge_uint_value(conf->rate, prev->rate, 0);
    ngx_conf_merge_uint_value(conf->case_snake, prev->case_snake, 0);
    ngx_conf_merge_uint_value(conf->envelope, prev->envelope, 0);
    ngx_conf_merge_uint_value(conf->if_match, prev->if_match, 0);
    ngx_conf_merge_ptr_value(conf->cors, prev->cors, NULL);

    /* not set anywhere: on where rows are served */

    if (conf->errors == NGX_CONF_UNSET) {
        conf->errors = prev->errors;
    }

    if (conf->errors == NGX_CONF_UNSET && conf->api) {
        conf->errors = 1;
    }

    if (conf->security_headers == NGX_CONF_UNSET) {
        conf->security_headers = prev->security_headers;
    }

    if (conf->security_headers == NGX_CONF_UNSET && conf->api) {
        conf->security_headers = 1;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_stoa_handler_add(ngx_conf_t *cf, ngx_http_phases phase,
                          ngx_http_handler_pt handler)
{
    ngx_http_core_main_conf_t *cmcf;
    ngx_http_handler_pt       *h;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[phase].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = handler;

    return NGX_OK;
}


static ngx_int_t
ngx_http_stoa_postconfiguration(ngx_conf_t *cf)
{
    ngx_http_stoa_main_conf_t *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_stoa_module);

    if (ngx_http_stoa_setup(cf, mcf) != NGX_OK) {
        return NGX_ERROR;
    }

    if (!mcf->used) {
        return NGX_OK;
    }

    ngx_http_stoa_conf_warn_shown(cf, mcf);

    if (ngx_http_stoa_handler_add(cf, NGX_HTTP_PREACCESS_PHASE,
                                  ngx_http_stoa_preaccess)
            != NGX_OK
        || ngx_http_stoa_handler_add(cf, NGX_HTTP_ACCESS_PHASE,
                                     ngx_http_stoa_access)
               != NGX_OK
        || ngx_http_stoa_handler_add(cf, NGX_HTTP_LOG_PHASE,
                                     ngx_http_stoa_metric_log)
               != NGX_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_http_stoa_main_conf_t *
ngx_http_stoa_cycle_conf(ngx_cycle_t *cycle)
{
    ngx_http_stoa_main_conf_t *mcf;

    if (ngx_get_conf(cycle->conf_ctx, ngx_http_module) == NULL) {
        return NULL; /* no http block */
    }

    mcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_stoa_module);

    return mcf != NULL && mcf->used ? mcf : NULL;
}


static ngx_int_t
ngx_http_stoa_init_module(ngx_cycle_t *cycle)
{
    ngx_http_stoa_main_conf_t *mcf;

    mcf = ngx_http_stoa_cycle_conf(cycle);

    if (mcf == NULL) {
        return NGX_OK;
    }

    if (ngx_test_config) {
        ngx_http_stoa_setup_sum(cycle, mcf);
    }

    ngx_http_stoa_reply_filter_init();

    return NGX_OK;
}


/* ---- a process ---- */

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

    p->redis = stoa_redis_create(p->loop, &conf);
    p->sub = stoa_redis_sub_create(p->loop, &conf, ngx_http_stoa_message,
                                   ngx_http_stoa_subscribed, NULL);

    if (p->redis == NULL || p->sub == NULL) {
        return NGX_ERROR;
    }

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


static ngx_int_t
ngx_http_stoa_init_process(ngx_cycle_t *cycle)
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
        || ngx_http_stoa_open_redis(mcf) != NGX_OK)
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


static void
ngx_http_stoa_exit_process(ngx_cycle_t *cycle)
{
    ngx_http_stoa_process_t *p = &ngx_http_stoa_process;
    ngx_uint_t               i;

    if (p->mcf == NULL || p->loop == NULL) {
        return;
    }

    p->shutting_down = 1;

    ngx_http_stoa_tick_exit_process(cycle);
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
