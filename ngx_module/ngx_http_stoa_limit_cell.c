/*
 * Counters of limits in the shared zone, by name and key, so that they go on
 * over a reload; and what a reload has changed.
 */

#include "ngx_http_stoa_limit.h"


void
ngx_http_stoa_limit_each(ngx_http_stoa_main_conf_t *mcf, void *data,
                         void (*fn)(void *data, ngx_http_stoa_limit_t *limit))
{
    ngx_http_stoa_limit_t **policy;
    ngx_uint_t              i;

    for (i = STOA_RATE_AUTH; i < STOA_RATE_NONE; i++) {
        if (mcf->limit_addr[i].rate != 0) {
            fn(data, &mcf->limit_addr[i]);
        }

        if (mcf->limit_user[i].rate != 0) {
            fn(data, &mcf->limit_user[i]);
        }
    }

    if (mcf->login.rate != 0) {
        fn(data, &mcf->login);
    }

    policy = mcf->policies != NULL ? mcf->policies->elts : NULL;

    for (i = 0; policy != NULL && i < mcf->policies->nelts; i++) {
        if (policy[i]->rate != 0) {
            fn(data, policy[i]);
        }
    }
}


typedef struct {
    ngx_cycle_t            *cycle;
    ngx_http_stoa_shared_t *sh;
    u_char                  used[NGX_HTTP_STOA_CELLS];
    ngx_uint_t              claim; /* those that no name was found for */
} ngx_http_stoa_cells_t;


static ngx_uint_t
ngx_http_stoa_cell_of(const ngx_http_stoa_limit_cell_t *cell,
                      const ngx_http_stoa_limit_t      *limit)
{
    return ngx_strncmp(cell->name, limit->name.data, limit->name.len) == 0
        && cell->name[limit->name.len] == '\0'
        && ngx_strncmp(cell->key, limit->key_text.data,
                       ngx_min(limit->key_text.len, sizeof(cell->key) - 1))
               == 0;
}


static void
ngx_http_stoa_cell_set(ngx_http_stoa_limit_cell_t *cell,
                       ngx_http_stoa_limit_t      *limit)
{
    cell->rate = limit->rate;
    cell->period_ms = limit->period_ms;
    cell->burst = limit->burst;
    cell->quota = limit->quota;
    cell->quota_ms = limit->quota_ms;
}


static void
ngx_http_stoa_cell_find(ngx_http_stoa_cells_t *cells, ngx_uint_t i,
                        ngx_http_stoa_limit_t *limit)
{
    ngx_http_stoa_limit_cell_t *cell = &cells->sh->limits[i];

    cells->used[i] = 1;
    limit->cell = i;

    if (cell->rate != limit->rate || cell->period_ms != limit->period_ms
        || cell->burst != limit->burst || cell->quota != limit->quota
        || cell->quota_ms != limit->quota_ms)
    {
        ngx_log_error(NGX_LOG_NOTICE, cells->cycle->log, 0,
                      "stoa: limit \"%V\" with \"key=%V\" has changed, what "
                      "was used of it counts on",
                      &limit->name, &limit->key_text);
        ngx_http_stoa_cell_set(cell, limit);
    }
}


/* First those that have a cell, then those that take one. */
static void
ngx_http_stoa_cell_claim(void *data, ngx_http_stoa_limit_t *limit)
{
    ngx_http_stoa_limit_cell_t *cell;
    ngx_http_stoa_cells_t      *cells = data;
    ngx_uint_t                  i, place = NGX_HTTP_STOA_CELLS;

    for (i = 0; i < NGX_HTTP_STOA_CELLS; i++) {
        cell = &cells->sh->limits[i];

        if (ngx_http_stoa_cell_of(cell, limit)) {
            if (!cells->claim) {
                ngx_http_stoa_cell_find(cells, i, limit);
            }
            return;
        }

        /* rather an empty one than that of a limit that is no more */
        if (!cells->used[i]
            && (place == NGX_HTTP_STOA_CELLS
                || (cell->name[0] == '\0'
                    && cells->sh->limits[place].name[0] != '\0')))
        {
            place = i;
        }
    }

    if (!cells->claim || place == NGX_HTTP_STOA_CELLS) {
        return;
    }

    cell = &cells->sh->limits[place];
    cells->used[place] = 1;
    limit->cell = place;

    ngx_memzero(cell, sizeof(ngx_http_stoa_limit_cell_t));
    ngx_memcpy(cell->name, limit->name.data,
               ngx_min(limit->name.len, sizeof(cell->name) - 1));
    ngx_memcpy(cell->key, limit->key_text.data,
               ngx_min(limit->key_text.len, sizeof(cell->key) - 1));
    ngx_http_stoa_cell_set(cell, limit);
}


void
ngx_http_stoa_limit_init(ngx_cycle_t *cycle, ngx_http_stoa_main_conf_t *mcf)
{
    ngx_http_stoa_cells_t cells;

    ngx_memzero(&cells, sizeof(cells));
    cells.cycle = cycle;
    cells.sh = mcf->zone->data;

    ngx_http_stoa_limit_each(mcf, &cells, ngx_http_stoa_cell_claim);
    cells.claim = 1;
    ngx_http_stoa_limit_each(mcf, &cells, ngx_http_stoa_cell_claim);
}
