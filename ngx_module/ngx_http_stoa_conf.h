/*
 * The configuration's side of the module: what the directive table in
 * ngx_http_stoa_module.c calls.
 */

#ifndef NGX_HTTP_STOA_CONF_H_INCLUDED
#define NGX_HTTP_STOA_CONF_H_INCLUDED

#include "ngx_http_stoa_zone.h"

/* Handlers of directives (ngx_http_stoa_conf.c, ngx_http_stoa_conf_loc.c). */
#define NGX_HTTP_STOA_CONF(name)                                               \
    char *ngx_http_stoa_conf_##name(ngx_conf_t *cf, ngx_command_t *cmd,        \
                                    void *conf)

NGX_HTTP_STOA_CONF(settings);
NGX_HTTP_STOA_CONF(zone);
NGX_HTTP_STOA_CONF(pool);
NGX_HTTP_STOA_CONF(pool_timeout);
NGX_HTTP_STOA_CONF(hash);
NGX_HTTP_STOA_CONF(cache);
NGX_HTTP_STOA_CONF(limit);
NGX_HTTP_STOA_CONF(api);
NGX_HTTP_STOA_CONF(status);
NGX_HTTP_STOA_CONF(word);
NGX_HTTP_STOA_CONF(auth);
NGX_HTTP_STOA_CONF(limit_apply);
NGX_HTTP_STOA_CONF(cors);
NGX_HTTP_STOA_CONF(presence); /* ngx_http_stoa_presence.c */
NGX_HTTP_STOA_CONF(identity); /* ngx_http_stoa_identity.c */

/* Complains about a word; names[] may have a NULL at 0. */
char *ngx_http_stoa_conf_unknown(ngx_conf_t *cf, const char *what,
                                 ngx_str_t *word, const char *const *names,
                                 ngx_uint_t n);
/* Another module's configuration of a location, NULL: no such module. */
void *ngx_http_stoa_conf_of(ngx_conf_t *cf, ngx_http_conf_ctx_t *ctx,
                            const char *module);
/* After merging: warns of each "stoa_metrics" that nothing guards. */
void ngx_http_stoa_conf_warn_shown(ngx_conf_t                *cf,
                                   ngx_http_stoa_main_conf_t *mcf);
/* Warns of a "login=" after which no browser has a token. */
void ngx_http_stoa_conf_warn_login(ngx_conf_t                *cf,
                                   ngx_http_stoa_main_conf_t *mcf);

/* ngx_http_stoa_conf_check.c: what may stand beside each other. */

/* Fills a place with where cmd stands now. */
void ngx_http_stoa_conf_place(ngx_conf_t *cf, ngx_command_t *cmd,
                              ngx_http_stoa_place_t *at);
/* The same in memory of cf's pool, but NULL in *at outside of locations. */
ngx_int_t ngx_http_stoa_conf_noted(ngx_conf_t *cf, ngx_command_t *cmd,
                                   ngx_http_stoa_place_t **at);
/* Of a value that nginx itself has set. */
char *ngx_http_stoa_conf_leeway(ngx_conf_t *cf, void *post, void *data);

/* The directive makes settings and the zone necessary. */
void ngx_http_stoa_conf_use(ngx_conf_t *cf, ngx_command_t *cmd);
/* Makes the location's content handler, which must be the only one. */
char *ngx_http_stoa_conf_content(ngx_conf_t *cf, ngx_command_t *cmd,
                                 ngx_http_stoa_loc_conf_t *lcf,
                                 ngx_http_handler_pt       handler);
/* When a location is merged: refuses what would be ignored. */
char *ngx_http_stoa_conf_check(ngx_conf_t *cf, ngx_http_stoa_loc_conf_t *conf);

/* ngx_http_stoa_setup.c */

/* Before the defaults of the rows are read, and when only they were. */
void ngx_http_stoa_setup_defaults(ngx_http_stoa_main_conf_t *mcf);
void ngx_http_stoa_setup_unset(ngx_http_stoa_main_conf_t *mcf);
/* After all directives: limits, keys, rows, statements. */
ngx_int_t ngx_http_stoa_setup(ngx_conf_t *cf, ngx_http_stoa_main_conf_t *mcf);
/* This process's share of a pool, at least one connection. */
ngx_uint_t ngx_http_stoa_setup_share(ngx_uint_t total, ngx_uint_t slot,
                                     ngx_uint_t processes);
/* Prints what nginx -t says of connections; there is no server to ask. */
void ngx_http_stoa_setup_sum(ngx_cycle_t               *cycle,
                             ngx_http_stoa_main_conf_t *mcf);

/* Warns when that is more than the server's max_connections have. */
void ngx_http_stoa_setup_compare(ngx_cycle_t               *cycle,
                                 ngx_http_stoa_main_conf_t *mcf, ngx_uint_t max,
                                 ngx_uint_t reserved);

/* ngx_http_stoa_module.c: NULL when nothing of Stoa is configured. */
ngx_http_stoa_main_conf_t *ngx_http_stoa_cycle_conf(ngx_cycle_t *cycle);

/* ngx_http_stoa_process.c */

ngx_int_t ngx_http_stoa_process_init(ngx_cycle_t *cycle);
void      ngx_http_stoa_process_exit(ngx_cycle_t *cycle);

#endif /* NGX_HTTP_STOA_CONF_H_INCLUDED */
