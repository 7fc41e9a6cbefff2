/*
 * What may stand beside each other in a location.  nginx lets one content
 * handler overwrite another in silence, "return" answers before any gate,
 * and rows know neither roles nor limits but their own: what an operator
 * wrote and what would be ignored is refused, with the line where it stands.
 *
 * A location is whole only when it is merged, long after its lines were
 * read; so directives note their places.
 */

#include "ngx_http_stoa_conf.h"

/* How the rewrite module's configuration begins: it exports no type. */
typedef struct {
    ngx_array_t *codes; /* bytes: records that begin with their function */
} ngx_http_stoa_rewrite_head_t;


void
ngx_http_stoa_conf_place(ngx_conf_t *cf, ngx_command_t *cmd,
                         ngx_http_stoa_place_t *at)
{
    at->name = cmd->name;
    at->file = cf->conf_file->file.name;
    at->line = cf->conf_file->line;
}


ngx_int_t
ngx_http_stoa_conf_noted(ngx_conf_t *cf, ngx_command_t *cmd,
                         ngx_http_stoa_place_t **at)
{
    if ((cf->cmd_type & (NGX_HTTP_LOC_CONF | NGX_HTTP_LMT_CONF)) == 0) {
        *at = NULL;
        return NGX_OK;
    }

    *at = ngx_palloc(cf->pool, sizeof(ngx_http_stoa_place_t));
    if (*at == NULL) {
        return NGX_ERROR;
    }

    ngx_http_stoa_conf_place(cf, cmd, *at);

    return NGX_OK;
}


void
ngx_http_stoa_conf_use(ngx_conf_t *cf, ngx_command_t *cmd)
{
    ngx_http_stoa_main_conf_t *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_stoa_module);

    if (!mcf->used) {
        mcf->used = 1;
        ngx_http_stoa_conf_place(cf, cmd, &mcf->used_at);
    }
}


char *
ngx_http_stoa_conf_content(ngx_conf_t *cf, ngx_command_t *cmd,
                           ngx_http_stoa_loc_conf_t *lcf,
                           ngx_http_handler_pt       handler)
{
    ngx_http_core_loc_conf_t *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->handler == handler) {
        return "is duplicate";
    }

    if (clcf->handler != NULL) {
        return "cannot answer here, another directive of this location does";
    }

    ngx_http_stoa_conf_use(cf, cmd);

    if (ngx_http_stoa_conf_noted(cf, cmd, &lcf->content_at) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    clcf->handler = handler;
    lcf->content = handler;

    return NGX_CONF_OK;
}


/* Whether a location has a "return" that is in no "if". */
static ngx_uint_t
ngx_http_stoa_conf_returns(ngx_conf_t *cf)
{
    ngx_http_stoa_rewrite_head_t *rewrite;
    ngx_http_script_if_code_t    *branch;
    ngx_http_script_code_pt       code;
    u_char                       *p, *last;

    rewrite = ngx_http_stoa_conf_of(cf, cf->ctx, "ngx_http_rewrite_module");

    if (rewrite == NULL || rewrite->codes == NULL) {
        return 0;
    }

    p = rewrite->codes->elts;
    last = p + rewrite->codes->nelts;

    while (last - p >= (ssize_t) sizeof(code)) {
        code = *(ngx_http_script_code_pt *) p;

        if (code == ngx_http_script_return_code) {
            return 1;
        }

        if (code == ngx_http_script_if_code) {
            branch = (ngx_http_script_if_code_t *) p;
            p += branch->next;
            continue;
        }

        p += sizeof(code);
    }

    return 0;
}


/* A gate or rows behind a "return". */
static char *
ngx_http_stoa_conf_unreached(ngx_conf_t *cf, ngx_http_stoa_loc_conf_t *conf)
{
    ngx_http_stoa_place_t *at;
    ngx_uint_t             level = NGX_LOG_EMERG;

    if (conf->content_at != NULL) {
        at = conf->content_at;

    } else if (conf->auth_at != NULL) {
        at = conf->auth_at;
        level = conf->auth == 2 /* required */ ? NGX_LOG_EMERG : NGX_LOG_WARN;

    } else if (conf->rate_at != NULL && conf->rate != STOA_RATE_NONE) {
        at = conf->rate_at;
        level = NGX_LOG_WARN;

    } else {
        return NGX_CONF_OK;
    }

    if (!ngx_http_stoa_conf_returns(cf)) {
        return NGX_CONF_OK;
    }

    ngx_log_error(level, cf->log, 0,
                  "\"%V\" is never reached, \"return\" answers before it in "
                  "%V:%ui",
                  &at->name, &at->file, at->line);

    return level == NGX_LOG_EMERG ? NGX_CONF_ERROR : NGX_CONF_OK;
}


char *
ngx_http_stoa_conf_check(ngx_conf_t *cf, ngx_http_stoa_loc_conf_t *conf)
{
    ngx_http_core_loc_conf_t *clcf;
    ngx_http_stoa_place_t    *at = conf->content_at;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (conf->content != NULL && clcf->handler != conf->content) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"%V\" directive cannot answer here, another directive "
                      "of this location does in %V:%ui",
                      &at->name, &at->file, at->line);
        return NGX_CONF_ERROR;
    }

    if (conf->content == ngx_http_stoa_handler && conf->auth_at != NULL) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"stoa_auth\" is not for the \"stoa_api on\" of %V:%ui, "
                      "whose rows say who may call them; close a location "
                      "with \"allow\" and \"deny\", or say \"stoa_auth off\" "
                      "in %V:%ui",
                      &at->file, at->line, &conf->auth_at->file,
                      conf->auth_at->line);
        return NGX_CONF_ERROR;
    }

    if (conf->content == ngx_http_stoa_handler && conf->rate_at != NULL
        && conf->rate != 0 && conf->rate != STOA_RATE_NONE)
    {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "a class in \"stoa_limit_apply\" is not for the "
                      "\"stoa_api on\" of %V:%ui, whose rows name theirs; "
                      "there it can be limits by name, or \"off\" in %V:%ui",
                      &at->file, at->line, &conf->rate_at->file,
                      conf->rate_at->line);
        return NGX_CONF_ERROR;
    }

    if (conf->presence_at != NULL && conf->auth == 0 && !conf->api) {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "\"stoa_presence\" marks nobody where nobody is "
                      "verified, it needs \"stoa_auth\" in %V:%ui",
                      &conf->presence_at->file, conf->presence_at->line);
    }

    /* an "if" shares the codes of its location */
    return clcf->noname ? NGX_CONF_OK : ngx_http_stoa_conf_unreached(cf, conf);
}


/* More would make an expired token good for long. */
char *
ngx_http_stoa_conf_leeway(ngx_conf_t *cf, void *post, void *data)
{
    time_t *leeway = data;

    return *leeway > 300 ? "must be at most 5m" : NGX_CONF_OK;
}
