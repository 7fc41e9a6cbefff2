/*
 * Which API keys were used: the tick takes what is due from the keys that are
 * remembered (ngx_http_stoa_key.c), each at most once a minute, and stores it
 * in one statement, so that no request waits for it.
 */

#include "ngx_http_stoa_zone.h"

static struct {
    stoa_pg_op_t *op;
    ngx_pool_t   *pool; /* of its values */
} ngx_http_stoa_key_saving;


static void
ngx_http_stoa_key_saved(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    ngx_http_stoa_key_saving.op = NULL;
    ngx_destroy_pool(ngx_http_stoa_key_saving.pool);
    ngx_http_stoa_key_saving.pool = NULL;

    /* what could not be stored is old news a minute later */
    if (err != STOA_OK) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "stoa: the use of API keys could not be stored: %s",
                      stoa_err_row(err)->code);
    }
}


void
ngx_http_stoa_key_tick(void)
{
    ngx_http_stoa_main_conf_t *mcf = ngx_http_stoa_process.mcf;
    stoa_pg_pool_t            *pool;
    const char                *values[3];
    stoa_err_e                 err = STOA_OK;
    ngx_pool_t                *room;
    stoa_mem_t                 mem;
    stoa_buf_t                 b[3];
    ngx_uint_t                 i;
    int                        lens[3];

    pool = ngx_http_stoa_process.pool[STOA_POOL_WRITE];

    if (ngx_http_stoa_key_saving.op != NULL || !stoa_pg_pool_ready(pool)) {
        return;
    }

    room = ngx_create_pool(4096, ngx_cycle->log);
    if (room == NULL) {
        return;
    }

    ngx_http_stoa_mem_init(&mem, room);

    for (i = 0; i < 3; i++) {
        stoa_buf_init(&b[i], &mem, 0, 16384);
    }

    if (ngx_http_stoa_key_due(b) != 0 && !b[0].failed && !b[1].failed
        && !b[2].failed)
    {
        for (i = 0; i < 3; i++) {
            values[i] = (const char *) b[i].data;
            lens[i] = (int) b[i].len;
        }

        ngx_http_stoa_key_saving
            .op = stoa_pg_submit(pool, &mcf->stmts[STOA_STMT_KEYS_USED], values,
                                 lens, 0, ngx_http_stoa_key_saved, NULL, &err);
    }

    if (ngx_http_stoa_key_saving.op == NULL) {
        ngx_destroy_pool(room);
        return;
    }

    ngx_http_stoa_key_saving.pool = room;
}


void
ngx_http_stoa_key_used_exit(void)
{
    if (ngx_http_stoa_key_saving.op != NULL) {
        stoa_pg_cancel(ngx_http_stoa_key_saving.op);
        ngx_destroy_pool(ngx_http_stoa_key_saving.pool);
        ngx_http_stoa_key_saving.op = NULL;
    }
}
