/*
 * The issuers of the settings in this process: an HTTP client of its own,
 * their keys (shared/stoa_issuer.c), and what of them goes into /metrics.
 * Without issuers nothing of this exists, libcurl's state included.
 */

#include "ngx_http_stoa_zone.h"

static stoa_issuer_stats_t ngx_http_stoa_issuer_last[STOA_OIDC_ISSUERS];


ngx_int_t
ngx_http_stoa_issuer_init_process(ngx_http_stoa_main_conf_t *mcf)
{
    static const struct {
        const char       *name;
        stoa_http_reach_e reach;
    } networks[] = {
        { "public", STOA_HTTP_PUBLIC },
        { "private", STOA_HTTP_PRIVATE },
        { "insecure", STOA_HTTP_ANY },
    };

    ngx_http_stoa_process_t  *p = &ngx_http_stoa_process;
    const stoa_oidc_issuer_t *is;
    stoa_issuers_conf_t       conf;
    stoa_http_reach_e         reach = STOA_HTTP_PUBLIC;
    ngx_uint_t                i;

    ngx_memzero(ngx_http_stoa_issuer_last, sizeof(ngx_http_stoa_issuer_last));

    if (mcf->oidc->nissuers == 0) {
        return NGX_OK;
    }

    for (i = 0; i < stoa_nitems(networks); i++) {
        if (ngx_strcmp(mcf->conf.issuer_network, networks[i].name) == 0) {
            reach = networks[i].reach;
        }
    }

    conf.ca_file = mcf->conf.issuer_ca_file;
    conf.plain = mcf->oidc->plain;

    p->http = stoa_http_create(p->loop, reach);
    if (p->http == NULL) {
        return NGX_ERROR;
    }

    p->issuers = stoa_issuers_create(p->loop, p->http, &conf);
    if (p->issuers == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < mcf->oidc->nissuers; i++) {
        is = &mcf->oidc->issuers[i];

        if (stoa_issuers_add(p->issuers, is->issuer, is->jwks_uri) == NULL) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


void
ngx_http_stoa_issuer_exit_process(void)
{
    ngx_http_stoa_process_t *p = &ngx_http_stoa_process;

    if (p->issuers != NULL) {
        ngx_http_stoa_issuer_tick(1);
        stoa_issuers_destroy(p->issuers);
        p->issuers = NULL;
    }

    if (p->http != NULL) {
        stoa_http_destroy(p->http);
        p->http = NULL;
    }
}


/* ---- metrics ---- */

ngx_http_stoa_issuer_cell_t *
ngx_http_stoa_issuer_cell(const char *issuer)
{
    ngx_http_stoa_shared_t      *sh = ngx_http_stoa_shared();
    ngx_http_stoa_issuer_cell_t *cell;
    ngx_uint_t                   i;
    uint64_t                     hash[2];

    if (sh == NULL) {
        return NULL;
    }

    ngx_http_stoa_siphash(sh->hash_key, issuer, ngx_strlen(issuer), hash);
    hash[0] = hash[0] != 0 ? hash[0] : 1;

    for (i = 0; i < stoa_nitems(sh->issuers); i++) {
        cell = &sh->issuers[i];

        if (cell->name == hash[0]
            || (cell->name == 0 && ngx_atomic_cmp_set(&cell->name, 0, hash[0]))
            || cell->name == hash[0])
        {
            return cell;
        }
    }

    return NULL; /* as many were configured, one after the other */
}


/* What was counted since the last time goes into the zone. */
void
ngx_http_stoa_issuer_tick(ngx_uint_t retiring)
{
    ngx_http_stoa_process_t     *p = &ngx_http_stoa_process;
    ngx_http_stoa_issuer_cell_t *cell;
    stoa_issuer_stats_t          st, *last;
    stoa_issuer_t               *is;
    ngx_uint_t                   i;
    const char                  *name;

    for (i = 0; p->issuers != NULL && i < p->mcf->oidc->nissuers; i++) {
        name = p->mcf->oidc->issuers[i].issuer;
        is = stoa_issuers_find(p->issuers, stoa_str_z(name));
        cell = is != NULL ? ngx_http_stoa_issuer_cell(name) : NULL;

        if (cell == NULL) {
            continue;
        }

        last = &ngx_http_stoa_issuer_last[i];
        stoa_issuer_stats(is, &st);
        (void) ngx_atomic_fetch_add(&cell->fetches,
                                    (ngx_atomic_int_t) (st.fetches
                                                        - last->fetches));
        (void) ngx_atomic_fetch_add(&cell->errors,
                                    (ngx_atomic_int_t) (st.errors
                                                        - last->errors));

        if ((int64_t) cell->fetched_ms < st.fetched_ms) {
            cell->fetched_ms = (ngx_atomic_uint_t) st.fetched_ms;
        }

        *last = st;
    }

    if (retiring && p->issuers != NULL) {
        stoa_issuers_rest(p->issuers);
    }
}
