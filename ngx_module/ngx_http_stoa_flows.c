/*
 * Flows: rows that one statement cannot do.  A flow is a table of steps, read
 * from top to bottom; a small driver runs them.  A step goes on, waits for
 * what it started (a statement, a hash), or ends with an answer; steps do not
 * call each other and do not loop over what suspends.
 *
 * The flows' statements are rows of shared/api/stoa_flow.c, which stoa check
 * reads as well.
 */

#include "ngx_http_stoa.h"

#define NGX_HTTP_STOA_FLOW_VALUES 5 /* of a keyed statement's call */

static char *ngx_http_stoa_row_init(ngx_conf_t                *cf,
                                    ngx_http_stoa_main_conf_t *mcf,
                                    ngx_http_stoa_row_t *row, ngx_uint_t i);
static void  ngx_http_stoa_row_batch(ngx_http_stoa_main_conf_t *mcf,
                                     ngx_http_stoa_row_t       *row);
static char *ngx_http_stoa_row_path(ngx_conf_t *cf, ngx_http_stoa_row_t *row);
static char *ngx_http_stoa_row_query(ngx_conf_t *cf, ngx_http_stoa_row_t *row);
static ngx_int_t ngx_http_stoa_flow_go(ngx_http_stoa_ctx_t *q);

static const ngx_http_stoa_step_t *const ngx_http_stoa_flows[] = {
    [STOA_FLOW_PRESENCE_BEAT] = ngx_http_stoa_flow_presence_beat,
    [STOA_FLOW_PRESENCE_LIST] = ngx_http_stoa_flow_presence_list,
    [STOA_FLOW_AUTH_CHECK] = ngx_http_stoa_flow_auth_check,
    [STOA_FLOW_AUTH_CSRF] = ngx_http_stoa_flow_auth_csrf,
    [STOA_FLOW_AUTH_REGISTER] = ngx_http_stoa_flow_auth_register,
    [STOA_FLOW_AUTH_LOGIN] = ngx_http_stoa_flow_auth_login,
    [STOA_FLOW_AUTH_REFRESH] = ngx_http_stoa_flow_auth_refresh,
    [STOA_FLOW_AUTH_LOGOUT] = ngx_http_stoa_flow_auth_logout,
    [STOA_FLOW_AUTH_RESET] = ngx_http_stoa_flow_auth_reset,
    [STOA_FLOW_SESSION_END] = ngx_http_stoa_flow_session_end,
    [STOA_FLOW_AUTH_PASSWORD] = ngx_http_stoa_flow_auth_password,
    [STOA_FLOW_DEVICE_PAIR] = ngx_http_stoa_flow_device_pair,
    [STOA_FLOW_DEVICE_LOGIN] = ngx_http_stoa_flow_device_login,
    [STOA_FLOW_TICKET_SVG] = ngx_http_stoa_flow_ticket_svg,
    [STOA_FLOW_TICKET_CHANGE] = ngx_http_stoa_flow_ticket_change,
    [STOA_FLOW_EVENT_REGISTER] = ngx_http_stoa_flow_event_register,
    [STOA_FLOW_PAY_FORM] = ngx_http_stoa_flow_pay_form,
    [STOA_FLOW_ERRORS] = ngx_http_stoa_flow_errors,
    [STOA_FLOW_OPENAPI] = ngx_http_stoa_flow_openapi,
    [STOA_FLOW_MANUAL] = ngx_http_stoa_flow_manual,
    [STOA_FLOW_JWKS] = ngx_http_stoa_flow_jwks,
    [STOA_FLOW_AUTH_VERIFY] = ngx_http_stoa_flow_auth_verify,
    [STOA_FLOW_USER_EMAIL] = ngx_http_stoa_flow_user_email,
    [STOA_FLOW_LOGIN_MFA] = ngx_http_stoa_flow_login_mfa,
    [STOA_FLOW_MFA_ENROL] = ngx_http_stoa_flow_mfa_enrol,
    [STOA_FLOW_MFA_CONFIRM] = ngx_http_stoa_flow_mfa_confirm,
    [STOA_FLOW_MFA_OFF] = ngx_http_stoa_flow_mfa_off,
    [STOA_FLOW_MFA_CODES] = ngx_http_stoa_flow_mfa_codes,
    [STOA_FLOW_STEP_UP] = ngx_http_stoa_flow_step_up,
    [STOA_FLOW_KEY_CREATE] = ngx_http_stoa_flow_key_create,
    [STOA_FLOW_KEY_ROTATE] = ngx_http_stoa_flow_key_rotate,
    [STOA_FLOW_KEY_SCOPES] = ngx_http_stoa_flow_key_scopes,
    [STOA_FLOW_IMPERSONATE] = ngx_http_stoa_flow_impersonate,
    [STOA_FLOW_OAUTH_PROVIDERS] = ngx_http_stoa_flow_oauth_providers,
    [STOA_FLOW_OAUTH_START] = ngx_http_stoa_flow_oauth_start,
    [STOA_FLOW_OAUTH_CALLBACK] = ngx_http_stoa_flow_oauth_callback,
    [STOA_FLOW_OAUTH_TOKEN] = ngx_http_stoa_flow_oauth_token,
    [STOA_FLOW_IDENTITY_LINK] = ngx_http_stoa_flow_identity_link,
};

_Static_assert(stoa_nitems(ngx_http_stoa_flows) == STOA_FLOW_COUNT,
               "each flow has its steps");

/* Fields that every list row has, behind its own. */
static const stoa_field_t ngx_http_stoa_list_fields[] = {
    { .name = "page", .type = STOA_T_INT, .min = 1, .max = 1000000 },
    { .name = "limit", .type = STOA_T_INT, .min = 1, .max = 100 },
    { .name = "sort", .type = STOA_T_ENUM },
    { .name = "cursor", .type = STOA_T_CODE, .min = 1, .max = 1024 },
};

ngx_int_t
ngx_http_stoa_flows_init(ngx_conf_t *cf, ngx_http_stoa_main_conf_t *mcf)
{
    char                     *why;
    ngx_uint_t                i;
    ngx_http_stoa_pipeline_t *pl;

    pl = ngx_pcalloc(cf->pool, sizeof(ngx_http_stoa_pipeline_t));
    if (pl == NULL) {
        return NGX_ERROR;
    }

    mcf->pipeline = pl;
    pl->rows = ngx_pcalloc(cf->pool,
                           mcf->api->nrows * sizeof(ngx_http_stoa_row_t));
    if (pl->rows == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < mcf->api->nrows; i++) {
        why = ngx_http_stoa_row_init(cf, mcf, &pl->rows[i], i);

        if (why != NULL) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "row \"%s\": %s",
                               mcf->api->rows[i]->id, why);
            return NGX_ERROR;
        }
    }

    return ngx_http_stoa_hash_init(cf, mcf, pl);
}

ngx_int_t
ngx_http_stoa_pipeline_init_process(ngx_cycle_t *cycle)
{
    return NGX_OK;
}

void
ngx_http_stoa_pipeline_exit_process(ngx_cycle_t *cycle)
{
    ngx_uint_t                i;
    ngx_http_stoa_pipeline_t *pl;

    pl = ngx_http_stoa_process.mcf->pipeline;

    for (i = 0; i < ngx_http_stoa_process.mcf->api->nrows; i++) {
        ngx_http_stoa_batch_exit(&pl->rows[i].batch);
    }

    for (i = 0; i < STOA_STMT_COUNT; i++) {
        ngx_http_stoa_batch_exit(&pl->batches[i]);
    }

    ngx_http_stoa_hash_exit();
    ngx_http_stoa_wait_exit();
    ngx_http_stoa_misc_exit();
}

ngx_int_t
ngx_http_stoa_flow_run(ngx_http_stoa_ctx_t *q)
{
    q->step = 0;

    return ngx_http_stoa_flow_go(q);
}

/* What a step waited for is here. */
ngx_int_t
ngx_http_stoa_flow_resume(ngx_http_stoa_ctx_t *q, stoa_err_e err)
{
    if (err != STOA_OK) {
        return ngx_http_stoa_reply_error(q, err);
    }

    return ngx_http_stoa_flow_go(q);
}

ngx_http_stoa_go_e
ngx_http_stoa_flow_end(ngx_http_stoa_ctx_t *q, ngx_int_t rc)
{
    q->rc = rc;

    return NGX_HTTP_STOA_END;
}

ngx_http_stoa_go_e
ngx_http_stoa_flow_fail(ngx_http_stoa_ctx_t *q, stoa_err_e err)
{
    return ngx_http_stoa_flow_end(q, ngx_http_stoa_reply_error(q, err));
}


ngx_http_stoa_go_e
ngx_http_stoa_flow_data(ngx_http_stoa_ctx_t *q, ngx_int_t status,
                        const stoa_buf_t *data)
{
    stoa_str_t none = stoa_null_string;

    if (data->failed) {
        return ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
    }

    return ngx_http_stoa_flow_end(q, ngx_http_stoa_reply_answer(q, status,
                                                                stoa_buf_view(
                                                                    data),
                                                                none, none));
}


ngx_http_stoa_go_e
ngx_http_stoa_flow_elsewhere(ngx_http_stoa_ctx_t *q, const stoa_buf_t *url)
{
    if (url->failed) {
        return ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
    }

    q->location = stoa_buf_view(url);

    return ngx_http_stoa_flow_end(
        q, ngx_http_stoa_reply_empty(q, NGX_HTTP_SEE_OTHER));
}

/* NGX_DONE of a call that suspends, or the answer that it made instead. */
ngx_http_stoa_go_e
ngx_http_stoa_flow_wait(ngx_http_stoa_ctx_t *q, ngx_int_t rc)
{
    return rc == NGX_DONE ? NGX_HTTP_STOA_WAIT : ngx_http_stoa_flow_end(q, rc);
}

ngx_http_stoa_go_e
ngx_http_stoa_flow_query(ngx_http_stoa_ctx_t *q, stoa_pool_e pool,
                         stoa_stmt_e stmt, const stoa_value_t *values,
                         ngx_uint_t n)
{
    int                       *lens;
    char                     **v;
    ngx_int_t                  rc;
    ngx_uint_t                 i;
    ngx_http_stoa_batch_t     *b;
    ngx_http_stoa_main_conf_t *mcf;

    mcf = ngx_http_stoa_mcf(q->r);

    v = ngx_palloc(q->r->pool, n * sizeof(char *));
    lens = ngx_palloc(q->r->pool, n * sizeof(int));

    if (v == NULL || lens == NULL) {
        return ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
    }

    for (i = 0; i < n; i++) {
        v[i] = NULL;
        lens[i] = (int) values[i].len;

        if (values[i].data != NULL) {
            v[i] = stoa_strdup_z(&q->mem, values[i]);

            if (v[i] == NULL) {
                return ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
            }
        }
    }

    q->resume = ngx_http_stoa_flow_resume;

    b = &ngx_http_stoa_pipeline(q->r)->batches[stmt];

    if (b->max != 0) {
        q->sent_values = (const char *const *) v;
        q->sent_lens = lens;
        rc = ngx_http_stoa_batch_run(q, b);

    } else {
        rc = ngx_http_stoa_sql_submit(q, pool, &mcf->stmts[stmt],
                                      (const char *const *) v, lens);
    }

    return ngx_http_stoa_flow_wait(q, rc);
}

/* What was answered under this key before is answered again. */
ngx_http_stoa_go_e
ngx_http_stoa_flow_idem(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t values[3];

    if (!q->keyed) {
        return NGX_HTTP_STOA_NEXT;
    }

    values[0] = ngx_http_stoa_idem_scope(q);
    values[1] = q->idem_key;
    values[2] = ngx_http_stoa_idem_print(q);

    return ngx_http_stoa_flow_query(q, STOA_POOL_FAST, STOA_STMT_IDEM_LOOK,
                                    values, 3);
}

ngx_http_stoa_go_e
ngx_http_stoa_flow_idem_seen(ngx_http_stoa_ctx_t *q)
{
    if (!q->keyed
        || stoa_str_eq_z(ngx_http_stoa_flow_column(q, "state"), "new")) {
        return NGX_HTTP_STOA_NEXT;
    }

    return ngx_http_stoa_flow_answer(q);
}

/* The flow's effect; with a key, and its answer kept under it. */
ngx_http_stoa_go_e
ngx_http_stoa_flow_store(ngx_http_stoa_ctx_t *q, stoa_stmt_e plain,
                         stoa_stmt_e keyed, const stoa_value_t *values,
                         ngx_uint_t n)
{
    ngx_uint_t   i;
    stoa_value_t all[3 + NGX_HTTP_STOA_FLOW_VALUES];

    if (!q->keyed) {
        return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, plain, values, n);
    }

    all[0] = ngx_http_stoa_idem_scope(q);
    all[1] = q->idem_key;
    all[2] = ngx_http_stoa_idem_print(q);

    for (i = 0; i < n && i < NGX_HTTP_STOA_FLOW_VALUES; i++) {
        all[3 + i] = values[i];
    }

    return ngx_http_stoa_flow_query(q, STOA_POOL_WRITE, keyed, all, 3 + i);
}

/* A first statement said no: that is an answer, too. */
ngx_http_stoa_go_e
ngx_http_stoa_flow_refuse(ngx_http_stoa_ctx_t *q)
{
    stoa_value_t body;

    body = ngx_http_stoa_flow_column(q, "body");

    return q->keyed
             ? ngx_http_stoa_flow_store(q, STOA_STMT_IDEM_KEEP,
                                        STOA_STMT_IDEM_KEEP, &body, 1)
             : ngx_http_stoa_flow_end(q, ngx_http_stoa_reply_failure(q, body));
}

ngx_http_stoa_go_e
ngx_http_stoa_flow_answer(ngx_http_stoa_ctx_t *q)
{
    ngx_http_stoa_columns_t cols;

    if (q->res == NULL || stoa_pg_rows(q->res) == 0) {
        return ngx_http_stoa_flow_fail(q, STOA_E_NOT_FOUND);
    }

    ngx_http_stoa_sql_columns(q->res, &cols);

    return ngx_http_stoa_flow_end(q, ngx_http_stoa_sql_answer(q, q->res, &cols,
                                                              q->res_row));
}

stoa_value_t
ngx_http_stoa_flow_column(ngx_http_stoa_ctx_t *q, const char *name)
{
    int          col;
    stoa_value_t none = stoa_null_string;

    if (q->res == NULL || stoa_pg_rows(q->res) == 0) {
        return none;
    }

    col = stoa_pg_column(q->res, name);

    return col < 0 || stoa_pg_null(q->res, q->res_row, col)
             ? none
             : stoa_pg_value(q->res, q->res_row, col);
}

static ngx_int_t
ngx_http_stoa_flow_go(ngx_http_stoa_ctx_t *q)
{
    const ngx_http_stoa_step_t *step;

    for (;;) {
        step = &ngx_http_stoa_flows[q->ep->flow][q->step];

        if (step->run == NULL) {
            ngx_log_error(NGX_LOG_ALERT, q->r->connection->log, 0,
                          "stoa: flow of row \"%s\" ended without an answer",
                          q->ep->id);
            return ngx_http_stoa_reply_error(q, STOA_E_INTERNAL);
        }

        ngx_log_debug2(NGX_LOG_DEBUG_HTTP, q->r->connection->log, 0,
                       "stoa: row %s step %s", q->ep->id, step->name);

        q->step++;

        switch (step->run(q)) {
        case NGX_HTTP_STOA_NEXT:
            break;

        case NGX_HTTP_STOA_WAIT:
            return NGX_DONE;

        case NGX_HTTP_STOA_END:
            return q->rc;
        }
    }
}

/* The row's own statement, or those of its flow. */
static void
ngx_http_stoa_row_batch(ngx_http_stoa_main_conf_t *mcf,
                        ngx_http_stoa_row_t       *row)
{
    ngx_uint_t                i;
    ngx_http_stoa_pipeline_t *pl = mcf->pipeline;

    if (row->ep->batch != 0) {
        row->batch.bound = row->bound->plain;
        ngx_http_stoa_batch_init(&row->batch, row->ep, &row->bound->plain->stmt,
                                 row->ep->batch);
    }

    for (i = 0; i < STOA_STMT_COUNT; i++) {
        if (stoa_flow_stmts[i].batch != 0
            && stoa_flow_stmts[i].flow == row->ep->flow) {
            ngx_http_stoa_batch_init(&pl->batches[i], row->ep, &mcf->stmts[i],
                                     stoa_flow_stmts[i].batch);
        }
    }
}

/* NULL, or what is wrong with the row. */
static char *
ngx_http_stoa_row_init(ngx_conf_t *cf, ngx_http_stoa_main_conf_t *mcf,
                       ngx_http_stoa_row_t *row, ngx_uint_t i)
{
    char               *why;
    ngx_uint_t          n;
    const stoa_field_t *f;

    row->ep = mcf->api->rows[i];
    row->bound = &mcf->bound[i];
    ngx_http_stoa_row_batch(mcf, row);

    why = ngx_http_stoa_row_path(cf, row);

    if (why == NULL) {
        why = ngx_http_stoa_row_query(cf, row);
    }

    if (why != NULL) {
        return why;
    }

    for (f = row->ep->body; f != NULL && f->name != NULL; f++) {
        row->nbody++;
        row->secrets |= f->type == STOA_T_SECRET;
    }

    if (row->ep->flow != STOA_FLOW_NONE || row->bound->plain == NULL) {
        return NULL;
    }

    for (n = 0; n < row->bound->plain->nargs; n++) {
        if (row->bound->plain->args[n].kind == STOA_ARG_CODES) {
            row->codes = 1;
        }
    }

    return NULL;
}

static char *
ngx_http_stoa_row_path(ngx_conf_t *cf, ngx_http_stoa_row_t *row)
{
    char               *name;
    size_t              len;
    const char         *p, *end;
    stoa_field_t       *own;
    const stoa_field_t *f;

    for (p = row->ep->path; (p = ngx_strchr(p, ':')) != NULL; p = end) {
        p++;
        len = strcspn(p, "/.");
        end = p + len;

        if (row->npath == STOA_ROUTE_PARAMS) {
            return (char *) "too many parameters in its path";
        }

        for (f = row->ep->path_fields; f != NULL && f->name != NULL; f++) {
            if (ngx_strlen(f->name) == len && ngx_strncmp(f->name, p, len) == 0)
            {
                break;
            }
        }

        if (f == NULL || f->name == NULL) {
            own = ngx_pcalloc(cf->pool, sizeof(stoa_field_t) + len + 1);
            if (own == NULL) {
                return (char *) "no memory";
            }

            name = (char *) (own + 1);
            ngx_memcpy(name, p, len);
            own->name = name;
            own->type = STOA_T_UUID;
            own->flags = STOA_REQUIRED;
            f = own;
        }

        row->path[row->npath++] = f;
    }

    return NULL;
}

static char *
ngx_http_stoa_row_query(ngx_conf_t *cf, ngx_http_stoa_row_t *row)
{
    const char        **names;
    ngx_uint_t          i, k, n;
    stoa_field_t       *all;
    const stoa_list_t  *list;
    const stoa_field_t *f;

    for (f = row->ep->query; f != NULL && f->name != NULL; f++) {
        row->nquery++;
    }

    row->query = row->ep->query;
    list = row->ep->list;

    if (list == NULL) {
        return NULL;
    }

    for (n = 0; list->sorts[n].name != NULL; n++) { /* void */
    }

    all = ngx_pcalloc(cf->pool, (row->nquery + 5) * sizeof(stoa_field_t));
    names = ngx_pcalloc(cf->pool, (n + 1) * sizeof(char *));

    if (all == NULL || names == NULL) {
        return (char *) "no memory";
    }

    for (i = 0; i < n; i++) {
        names[i] = list->sorts[i].name;
    }

    for (i = 0; i < row->nquery; i++) {
        all[i] = row->ep->query[i];
    }

    for (k = 0; k < stoa_nitems(ngx_http_stoa_list_fields); k++) {
        f = &ngx_http_stoa_list_fields[k];

        for (i = 0; i < row->nquery; i++) {
            if (ngx_strcmp(all[i].name, f->name) == 0) {
                break;
            }
        }

        if (i == row->nquery) {
            all[row->nquery++] = *f;
        }

        if (ngx_strcmp(f->name, "limit") == 0 && list->max != 0) {
            all[i].max = list->max;
        }

        if (ngx_strcmp(f->name, "sort") == 0) {
            all[i].type = STOA_T_ENUM;
            all[i].values = names;
        }
    }

    row->query = all;

    return NULL;
}
