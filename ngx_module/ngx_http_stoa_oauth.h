/*
 * Between ngx_http_stoa_flow_oauth.c, which sends browsers to a provider, and
 * ngx_http_stoa_flow_oauth_back.c, which takes them and ID tokens back.
 */

#ifndef NGX_HTTP_STOA_OAUTH_H_INCLUDED
#define NGX_HTTP_STOA_OAUTH_H_INCLUDED

#include "ngx_http_stoa.h"

/* Where a browser is told what became of it. */
#define NGX_HTTP_STOA_OAUTH_PAGE "/account/oauth/"

typedef struct {
    ngx_http_stoa_ctx_t        *q;
    const stoa_oidc_provider_t *provider;
    stoa_issuer_t              *issuer;
    stoa_issuer_wait_t          wait;
    stoa_oidc_flow_t            flow;
    stoa_http_end_e             end; /* of the exchange */
    int                         status;
    stoa_str_t                  body;
    stoa_str_t                  id_token, access_token;
    stoa_oidc_person_t          person;
    ngx_uint_t                  browser;  /* pages tell what went wrong */
    ngx_uint_t                  verified; /* person is who it is */
    ngx_uint_t                  asked;    /* for what an ID token left out */
} ngx_http_stoa_oauth_t;

/* Finds the provider and makes q->flow; NULL: *go is what was answered. */
ngx_http_stoa_oauth_t *ngx_http_stoa_oauth_open(ngx_http_stoa_ctx_t *q,
                                                stoa_value_t         name,
                                                ngx_http_stoa_go_e  *go);

/* By a page, or as an answer. */
ngx_http_stoa_go_e ngx_http_stoa_oauth_fail(ngx_http_stoa_ctx_t *q,
                                            stoa_err_e           err);

/* The same of what whoever asks is to blame for: the log has it. */
ngx_http_stoa_go_e ngx_http_stoa_oauth_refuse(ngx_http_stoa_ctx_t *q,
                                              stoa_err_e err, const char *why);

/* Step: what the issuer says of itself is here, or will not be. */
ngx_http_stoa_go_e ngx_http_stoa_oauth_need(ngx_http_stoa_ctx_t *q);

/* "https://here/api/v1/oauth/google/callback"; NULL: no memory. */
const char *ngx_http_stoa_oauth_redirect_uri(ngx_http_stoa_ctx_t *q);

/* The name of the cookie of a state, which has STOA_OIDC_STATE_TEXT bytes. */
stoa_str_t ngx_http_stoa_oauth_cookie(ngx_http_stoa_ctx_t *q, stoa_str_t state);

#endif /* NGX_HTTP_STOA_OAUTH_H_INCLUDED */
