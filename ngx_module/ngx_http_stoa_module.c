/*
 * The module itself: directives, creation and merging of configuration.
 * No request logic; the start and end of a process are in
 * ngx_http_stoa_process.c.
 */

#include "ngx_http_stoa_limit.h"
#include "stoa_manual.h"

static ngx_int_t ngx_http_stoa_preconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_stoa_postconfiguration(ngx_conf_t *cf);
static void     *ngx_http_stoa_create_main_conf(ngx_conf_t *cf);
static ngx_int_t ngx_http_stoa_defaults(ngx_conf_t                *cf,
                                        ngx_http_stoa_main_conf_t *mcf);
static void     *ngx_http_stoa_create_srv_conf(ngx_conf_t *cf);
static void     *ngx_http_stoa_create_loc_conf(ngx_conf_t *cf);
static char     *ngx_http_stoa_merge_loc_conf(ngx_conf_t *cf, void *parent,
                                              void *child);
static ngx_int_t ngx_http_stoa_init_module(ngx_cycle_t *cycle);

static const char *const ngx_http_stoa_cases[] = { "camel", "snake", NULL };
static const char *const ngx_http_stoa_envelopes[] = { "full", "avenrae",
                                                       "bare", NULL };
static const char *const ngx_http_stoa_limit_headers[] = { "draft", "legacy",
                                                           "off", NULL };
static const char *const ngx_http_stoa_if_matches[] = { "optional", "required",
                                                        NULL };

static ngx_conf_post_t ngx_http_stoa_leeway = { ngx_http_stoa_conf_leeway };

/*
 * The directives are the rows of stoa_directive.def; here stands what reads
 * each of them: handler, configuration, offset and table of words.  A row
 * without such a line, or such a line without a row, does not compile.
 */
#define NGX_HTTP_STOA_MAIN(handler)                                            \
    ngx_http_stoa_conf_##handler, NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL
#define NGX_HTTP_STOA_LOC(handler)                                             \
    ngx_http_stoa_conf_##handler, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL
#define NGX_HTTP_STOA_FLAG(field)                                              \
    ngx_conf_set_flag_slot, NGX_HTTP_LOC_CONF_OFFSET,                          \
        offsetof(ngx_http_stoa_loc_conf_t, field), NULL
#define NGX_HTTP_STOA_WORD(field, words)                                       \
    ngx_http_stoa_conf_word, NGX_HTTP_LOC_CONF_OFFSET,                         \
        offsetof(ngx_http_stoa_loc_conf_t, field),                             \
        (void *) (uintptr_t) ngx_http_stoa_##words

/* clang-format off */
#define NGX_HTTP_STOA_SET_settings      NGX_HTTP_STOA_MAIN(settings)
#define NGX_HTTP_STOA_SET_zone          NGX_HTTP_STOA_MAIN(zone)
#define NGX_HTTP_STOA_SET_pool          NGX_HTTP_STOA_MAIN(pool)
#define NGX_HTTP_STOA_SET_pool_timeout  NGX_HTTP_STOA_MAIN(pool_timeout)
#define NGX_HTTP_STOA_SET_hash          NGX_HTTP_STOA_MAIN(hash)
#define NGX_HTTP_STOA_SET_cache         NGX_HTTP_STOA_MAIN(cache)
#define NGX_HTTP_STOA_SET_limit         NGX_HTTP_STOA_MAIN(limit)
#define NGX_HTTP_STOA_SET_leeway                                              \
    ngx_conf_set_sec_slot, NGX_HTTP_MAIN_CONF_OFFSET,                         \
        offsetof(ngx_http_stoa_main_conf_t, leeway), &ngx_http_stoa_leeway
#define NGX_HTTP_STOA_SET_api                                                 \
    ngx_http_stoa_conf_api, NGX_HTTP_LOC_CONF_OFFSET,                         \
        offsetof(ngx_http_stoa_loc_conf_t, api), NULL
#define NGX_HTTP_STOA_SET_metrics       NGX_HTTP_STOA_LOC(status)
#define NGX_HTTP_STOA_SET_health        NGX_HTTP_STOA_LOC(status)
#define NGX_HTTP_STOA_SET_auth          NGX_HTTP_STOA_LOC(auth)
#define NGX_HTTP_STOA_SET_limit_apply   NGX_HTTP_STOA_LOC(limit_apply)
#define NGX_HTTP_STOA_SET_identity      NGX_HTTP_STOA_LOC(identity)
#define NGX_HTTP_STOA_SET_presence                                            \
    ngx_http_stoa_conf_presence, NGX_HTTP_LOC_CONF_OFFSET,                    \
        offsetof(ngx_http_stoa_loc_conf_t, presence), NULL
#define NGX_HTTP_STOA_SET_cors          NGX_HTTP_STOA_LOC(cors)
#define NGX_HTTP_STOA_SET_json_case     NGX_HTTP_STOA_WORD(case_snake, cases)
#define NGX_HTTP_STOA_SET_envelope      NGX_HTTP_STOA_WORD(envelope, envelopes)
#define NGX_HTTP_STOA_SET_if_match      NGX_HTTP_STOA_WORD(if_match, if_matches)
#define NGX_HTTP_STOA_SET_errors        NGX_HTTP_STOA_FLAG(errors)
#define NGX_HTTP_STOA_SET_limit_headers                                       \
    NGX_HTTP_STOA_WORD(limit_headers, limit_headers)
#define NGX_HTTP_STOA_SET_security_headers                                    \
    NGX_HTTP_STOA_FLAG(security_headers)
/* clang-format on */

#define NGX_HTTP_STOA_IN_HTTP     NGX_HTTP_MAIN_CONF
#define NGX_HTTP_STOA_IN_LOCATION NGX_HTTP_LOC_CONF
#define NGX_HTTP_STOA_IN_LIMITED  (NGX_HTTP_LOC_CONF | NGX_HTTP_LMT_CONF)
#define NGX_HTTP_STOA_IN_ALL                                                   \
    (NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF)

static ngx_command_t ngx_http_stoa_commands[] = {
#define STOA_DIRECTIVE(name, context, args, syntax, def, text, example)        \
    { ngx_string("stoa_" #name), NGX_HTTP_STOA_IN_##context | NGX_CONF_##args, \
      NGX_HTTP_STOA_SET_##name },
#include "stoa_directive.def"
#undef STOA_DIRECTIVE
    ngx_null_command
};

static ngx_http_module_t ngx_http_stoa_module_ctx = {
    ngx_http_stoa_preconfiguration,  /* preconfiguration */
    ngx_http_stoa_postconfiguration, /* postconfiguration */

    ngx_http_stoa_create_main_conf, /* create main configuration */
    NULL,                           /* init main configuration */

    ngx_http_stoa_create_srv_conf, /* create server configuration */
    NULL,                          /* merge server configuration */

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
    ngx_http_stoa_process_init, /* init process */
    NULL,                       /* init thread */
    NULL,                       /* exit thread */
    ngx_http_stoa_process_exit, /* exit process */
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

    return ngx_http_stoa_defaults(cf, mcf) == NGX_OK ? mcf : NULL;
}


/* A line of a row's default, read as if it stood in the file. */
static ngx_int_t
ngx_http_stoa_default(ngx_conf_t *cf, ngx_http_stoa_main_conf_t *mcf,
                      ngx_command_t *cmd, ngx_str_t line)
{
    u_char      *p, *last;
    char        *rv;
    ngx_str_t   *word;
    ngx_array_t *args = cf->args;

    cf->args = ngx_array_create(cf->pool, 8, sizeof(ngx_str_t));
    p = ngx_pnalloc(cf->pool, line.len + 1);

    if (cf->args == NULL || p == NULL
        || (word = ngx_array_push(cf->args)) == NULL) {
        cf->args = args;
        return NGX_ERROR;
    }

    *word = cmd->name;
    last = ngx_cpymem(p, line.data, line.len);
    *last = ' ';

    while (p < last) {
        word = ngx_array_push(cf->args);
        if (word == NULL) {
            cf->args = args;
            return NGX_ERROR;
        }

        word->data = p;
        p = ngx_strlchr(p, last + 1, ' ');
        word->len = (size_t) (p - word->data);
        *p++ = '\0'; /* as nginx's own words end */
    }

    rv = cmd->set(cf, cmd, mcf);
    cf->args = args;

    if (rv == NGX_CONF_OK) {
        return NGX_OK;
    }

    if (rv != NGX_CONF_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "default of \"%V\" %s",
                           &cmd->name, rv);
    }

    return NGX_ERROR;
}


/* What the manual says is the default, is. */
static ngx_int_t
ngx_http_stoa_defaults(ngx_conf_t *cf, ngx_http_stoa_main_conf_t *mcf)
{
    ngx_command_t *cmd = ngx_http_stoa_commands;
    ngx_uint_t     i;
    ngx_str_t      line;
    u_char        *p, *end;

    ngx_http_stoa_setup_defaults(mcf);

    for (i = 0; i < STOA_D_COUNT; i++, cmd++) {
        p = (u_char *) (uintptr_t) stoa_directive_rows[i].def;

        if (cmd->conf != NGX_HTTP_MAIN_CONF_OFFSET) {
            continue;
        }

        while (*p != '\0') {
            for (end = p; *end != '\0' && *end != '\n'; end++) {
                /* void */
            }

            line.data = p;
            line.len = (size_t) (end - p);

            if (ngx_http_stoa_default(cf, mcf, cmd, line) != NGX_OK) {
                return NGX_ERROR;
            }

            p = *end == '\n' ? end + 1 : end;
        }
    }

    ngx_http_stoa_setup_unset(mcf);

    return NGX_OK;
}


static void *
ngx_http_stoa_create_srv_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_stoa_srv_conf_t));
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
    lcf->limit_headers = NGX_CONF_UNSET_UINT;
    lcf->case_snake = NGX_CONF_UNSET_UINT;
    lcf->envelope = NGX_CONF_UNSET_UINT;
    lcf->if_match = NGX_CONF_UNSET_UINT;
    lcf->errors = NGX_CONF_UNSET;
    lcf->security_headers = NGX_CONF_UNSET;
    lcf->presence = NGX_CONF_UNSET;
    lcf->cors = NGX_CONF_UNSET_PTR;
    lcf->identity = NGX_CONF_UNSET_PTR;

    return lcf;
}


static char *
ngx_http_stoa_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_stoa_loc_conf_t *prev = parent, *conf = child;
    ngx_http_stoa_srv_conf_t *scf;
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
        conf->login = prev->login;
        conf->auth_at = prev->auth_at;
    }

    /* an inner list takes the place of an outer one */
    if (conf->rate == NGX_CONF_UNSET_UINT) {
        conf->rate_at = prev->rate_at;
        conf->limits = prev->limits;
    }

    ngx_conf_merge_uint_value(conf->auth, prev->auth, 0);
    ngx_conf_merge_uint_value(conf->rate, prev->rate, 0);
    ngx_conf_merge_uint_value(conf->limit_headers, prev->limit_headers, 0);
    ngx_conf_merge_uint_value(conf->case_snake, prev->case_snake, 0);
    ngx_conf_merge_uint_value(conf->envelope, prev->envelope, 0);
    ngx_conf_merge_uint_value(conf->if_match, prev->if_match, 0);
    ngx_conf_merge_value(conf->presence, prev->presence, 0);
    ngx_conf_merge_ptr_value(conf->cors, prev->cors, NULL);
    ngx_conf_merge_ptr_value(conf->identity, prev->identity, NULL);

    if (!conf->api
        && (conf->auth != 0 || conf->limits != NULL
            || (conf->rate != 0 && conf->rate != STOA_RATE_NONE)))
    {
        scf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_stoa_module);
        scf->gated = 1;
    }

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

    return ngx_http_stoa_conf_check(cf, conf);
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


/*
 * Handlers of a phase run from the last to the first, so ours would run before
 * a "set_real_ip_from" of a location has told the address.  It goes right
 * behind realip, and so still before limit_req, which may count users.
 * realip exports no name: it is what stands in both of its phases.
 */
static ngx_int_t
ngx_http_stoa_preaccess_add(ngx_conf_t *cf)
{
    ngx_http_core_main_conf_t *cmcf;
    ngx_http_handler_pt       *h, *first;
    ngx_array_t               *read, *pre;
    ngx_uint_t                 i, k;

    if (ngx_http_stoa_handler_add(cf, NGX_HTTP_PREACCESS_PHASE,
                                  ngx_http_stoa_preaccess)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    read = &cmcf->phases[NGX_HTTP_POST_READ_PHASE].handlers;
    pre = &cmcf->phases[NGX_HTTP_PREACCESS_PHASE].handlers;
    first = read->elts;
    h = pre->elts;

    for (i = 0; i < pre->nelts - 1; i++) {

        for (k = 0; k < read->nelts && first[k] != h[i]; k++) {
            /* void */
        }

        if (k < read->nelts) {
            ngx_memmove(&h[i + 1], &h[i],
                        (pre->nelts - 1 - i) * sizeof(ngx_http_handler_pt));
            h[i] = ngx_http_stoa_preaccess;
            break;
        }
    }

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
    ngx_http_stoa_conf_warn_login(cf, mcf);

    if (ngx_http_stoa_preaccess_add(cf) != NGX_OK
        || ngx_http_stoa_handler_add(cf, NGX_HTTP_ACCESS_PHASE,
                                     ngx_http_stoa_access)
               != NGX_OK
        || ngx_http_stoa_handler_add(cf, NGX_HTTP_PRECONTENT_PHASE,
                                     ngx_http_stoa_identity)
               != NGX_OK
        || ngx_http_stoa_handler_add(cf, NGX_HTTP_PRECONTENT_PHASE,
                                     ngx_http_stoa_presence)
               != NGX_OK
        || ngx_http_stoa_handler_add(cf, NGX_HTTP_LOG_PHASE,
                                     ngx_http_stoa_metric_log)
               != NGX_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


ngx_http_stoa_main_conf_t *
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

    ngx_http_stoa_limit_init(cycle, mcf);

    ngx_http_stoa_reply_filter_init();

    return NGX_OK;
}
