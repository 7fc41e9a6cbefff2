/*
 * Directives of locations: rows, rights and limits for foreign locations,
 * answers' looks, metrics and health.
 *
 * A location that shows metrics to everybody is a warning.  Its guards are
 * known only when all modules have merged their configuration, so locations
 * are noted as they come and judged at the end.
 */

#include "ngx_http_stoa_conf.h"

/* A location with "stoa_metrics" and where that stands. */
typedef struct {
    ngx_http_conf_ctx_t *ctx;
    ngx_str_t            file;
    ngx_uint_t           line;
} ngx_http_stoa_shown_t;

/*
 * How the stock modules' configuration begins.  They export no type, and the
 * modules may be missing, so they are looked up by name.
 */
typedef struct {
    ngx_array_t *rules;
#if (NGX_HAVE_INET6)
    ngx_array_t *rules6;
#endif
#if (NGX_HAVE_UNIX_DOMAIN)
    ngx_array_t *rules_un;
#endif
} ngx_http_stoa_access_head_t;

typedef struct {
    ngx_http_complex_value_t *realm;
} ngx_http_stoa_basic_head_t;

typedef struct {
    ngx_str_t uri;
} ngx_http_stoa_request_head_t;


char *
ngx_http_stoa_conf_api(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_stoa_main_conf_t *mcf;
    ngx_http_stoa_loc_conf_t  *lcf = conf;
    char                      *rv;

    rv = ngx_conf_set_flag_slot(cf, cmd, conf);

    if (rv != NGX_CONF_OK || !lcf->api) {
        return rv;
    }

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_stoa_module);
    mcf->served = 1;

    return ngx_http_stoa_conf_content(cf, cmd, lcf, ngx_http_stoa_handler);
}


/* stoa_metrics; stoa_health; */
char *
ngx_http_stoa_conf_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_stoa_main_conf_t *mcf;
    ngx_http_stoa_shown_t     *shown;
    char                      *rv;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_stoa_module);

    if (ngx_strcmp(cmd->name.data, "stoa_metrics") != 0) {
        return ngx_http_stoa_conf_content(cf, cmd, conf,
                                          ngx_http_stoa_health_handler);
    }

    rv = ngx_http_stoa_conf_content(cf, cmd, conf,
                                    ngx_http_stoa_status_handler);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (mcf->shown == NULL) {
        mcf->shown = ngx_array_create(cf->pool, 1,
                                      sizeof(ngx_http_stoa_shown_t));
        if (mcf->shown == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    shown = ngx_array_push(mcf->shown);
    if (shown == NULL) {
        return NGX_CONF_ERROR;
    }

    shown->ctx = cf->ctx;
    shown->file = cf->conf_file->file.name;
    shown->line = cf->conf_file->line;

    return NGX_CONF_OK;
}


void *
ngx_http_stoa_conf_of(ngx_conf_t *cf, ngx_http_conf_ctx_t *ctx,
                      const char *module)
{
    ngx_uint_t i;

    for (i = 0; cf->cycle->modules[i] != NULL; i++) {
        if (ngx_strcmp(cf->cycle->modules[i]->name, module) == 0) {
            return ctx->loc_conf[cf->cycle->modules[i]->ctx_index];
        }
    }

    return NULL;
}


/* Whether somebody is kept out of a location, by whatever means. */
static ngx_uint_t
ngx_http_stoa_conf_guarded(ngx_conf_t *cf, ngx_http_conf_ctx_t *ctx)
{
    ngx_http_stoa_request_head_t *request;
    ngx_http_stoa_access_head_t  *access;
    ngx_http_stoa_basic_head_t   *basic;
    ngx_http_core_loc_conf_t     *clcf;
    ngx_http_stoa_loc_conf_t     *lcf;

    lcf = ctx->loc_conf[ngx_http_stoa_module.ctx_index];
    clcf = ctx->loc_conf[ngx_http_core_module.ctx_index];

    if (lcf->auth == 2 /* required */ || clcf->internal == 1) {
        return 1;
    }

    access = ngx_http_stoa_conf_of(cf, ctx, "ngx_http_access_module");

    if (access != NULL
        && (access->rules != NULL
#if (NGX_HAVE_INET6)
            || access->rules6 != NULL
#endif
#if (NGX_HAVE_UNIX_DOMAIN)
            || access->rules_un != NULL
#endif
            ))
    {
        return 1;
    }

    basic = ngx_http_stoa_conf_of(cf, ctx, "ngx_http_auth_basic_module");

    if (basic != NULL && basic->realm != NULL
        && ngx_strcmp(basic->realm->value.data, "off") != 0)
    {
        return 1;
    }

    request = ngx_http_stoa_conf_of(cf, ctx, "ngx_http_auth_request_module");

    return request != NULL && request->uri.len != 0;
}


void
ngx_http_stoa_conf_warn_shown(ngx_conf_t *cf, ngx_http_stoa_main_conf_t *mcf)
{
    ngx_http_stoa_shown_t *shown;
    ngx_uint_t             i;

    if (mcf->shown == NULL) {
        return;
    }

    shown = mcf->shown->elts;

    for (i = 0; i < mcf->shown->nelts; i++) {
        if (!ngx_http_stoa_conf_guarded(cf, shown[i].ctx)) {
            ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                          "\"stoa_metrics\" shows metrics to everybody, it "
                          "needs \"allow\" and \"deny\" or an \"auth\" "
                          "directive beside it in %V:%ui",
                          &shown[i].file, shown[i].line);
        }
    }
}


void
ngx_http_stoa_conf_warn_login(ngx_conf_t *cf, ngx_http_stoa_main_conf_t *mcf)
{
    if (mcf->login_at.file.len == 0
        || mcf->cookies == NGX_HTTP_STOA_COOKIES_BOTH) {
        return;
    }

    ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                  "\"login=\" leads browsers to a sign-in that opens nothing "
                  "here, their token is a cookie only with "
                  "AUTH_COOKIE_MODE=both in %V:%ui",
                  &mcf->login_at.file, mcf->login_at.line);
}


/* One word of a list; cmd->post is a NULL-terminated array of words, cmd
   ->offset an ngx_uint_t that gets its index. */
char *
ngx_http_stoa_conf_word(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    const char *const *words = cmd->post;
    ngx_uint_t        *slot = (ngx_uint_t *) ((char *) conf + cmd->offset), n;
    ngx_str_t         *value = cf->args->elts;

    if (*slot != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    for (n = 0; words[n] != NULL; n++) {
        if (ngx_strcmp(value[1].data, words[n]) == 0) {
            *slot = n;
            return NGX_CONF_OK;
        }
    }

    return ngx_http_stoa_conf_unknown(cf, "value", &value[1], words, n);
}


static char *
ngx_http_stoa_conf_roles(ngx_conf_t *cf, u_char *p, u_char *last,
                         ngx_uint_t *roles)
{
    const char *names[STOA_ROLE_COUNT + 1];
    ngx_uint_t  i;
    uint32_t    bit;
    ngx_str_t   word;
    stoa_str_t  name;
    u_char     *end;

    for (i = 0; i < STOA_ROLE_COUNT; i++) {
        names[i] = stoa_role_name(1U << i);
    }

    names[STOA_ROLE_COUNT] = "device";

    while (p <= last) {
        end = ngx_strlchr(p, last, ',');
        end = end == NULL ? last : end;

        word.data = p;
        word.len = (size_t) (end - p);
        name.data = p;
        name.len = word.len;

        bit = stoa_str_eq_z(name, "device") ? (uint32_t) STOA_DEVICE
                                            : stoa_role_by_name(name);

        if (bit == 0) {
            return ngx_http_stoa_conf_unknown(cf, "role", &word, names,
                                              STOA_ROLE_COUNT + 1);
        }

        *roles |= bit;
        p = end + 1;
    }

    return NGX_CONF_OK;
}


/* stoa_auth off | optional | required [role=a,b] [login=/path]; */
char *
ngx_http_stoa_conf_auth(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    static const char *const words[] = { "off", "optional", "required", NULL };
    static const char *const params[] = { "role=", "login=" };
    ngx_http_stoa_main_conf_t *mcf;
    ngx_http_stoa_loc_conf_t  *lcf = conf;
    ngx_command_t              word = *cmd;
    ngx_str_t                 *value = cf->args->elts, *v;
    ngx_uint_t                 i;
    char                      *rv;

    word.offset = offsetof(ngx_http_stoa_loc_conf_t, auth);
    word.post = (void *) (uintptr_t) words;

    rv = ngx_http_stoa_conf_word(cf, &word, conf);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    lcf->roles = 0;

    if (lcf->auth != 0) {
        ngx_http_stoa_conf_use(cf, cmd);

        if (ngx_http_stoa_conf_noted(cf, cmd, &lcf->auth_at) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    for (i = 2; i < cf->args->nelts; i++) {
        v = &value[i];

        if (ngx_strcmp(v->data, "role=") == 0) {
            return "has an empty \"role=\", it must be like "
                   "role=admin,organizer";
        }

        if (ngx_strncmp(v->data, "role=", 5) == 0) {

            if (lcf->auth == 0) {
                return "off has no \"role\"";
            }

            if (lcf->roles != 0) {
                return "has \"role\" twice";
            }

            rv = ngx_http_stoa_conf_roles(cf, v->data + 5, v->data + v->len,
                                          &lcf->roles);
            if (rv != NGX_CONF_OK) {
                return rv;
            }

            continue;
        }

        if (ngx_strncmp(v->data, "login=", 6) != 0) {
            return ngx_http_stoa_conf_unknown(cf, "parameter", v, params, 2);
        }

        if (lcf->auth != 2) {
            return "has \"login\", which is for \"required\" only";
        }

        if (lcf->login.len != 0) {
            return "has \"login\" twice";
        }

        lcf->login.data = v->data + 6;
        lcf->login.len = v->len - 6;

        /* another host's page would be told what was asked for */

        if (lcf->login.len == 0 || lcf->login.data[0] != '/'
            || lcf->login.data[1] == '/' || lcf->login.data[1] == '\\'
            || ngx_strlchr(lcf->login.data, v->data + v->len, '?') != NULL)
        {
            return "has a \"login\" that is no path, it must be like "
                   "login=/account/";
        }

        mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_stoa_module);

        if (mcf->login_at.file.len == 0) {
            ngx_http_stoa_conf_place(cf, cmd, &mcf->login_at);
        }
    }

    return NGX_CONF_OK;
}
