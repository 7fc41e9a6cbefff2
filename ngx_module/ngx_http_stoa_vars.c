/*
 * Variables: what the gates and the pipeline know of a request, for map,
 * log_format, limit_req_zone, proxy_set_header.  Those that say who somebody
 * is are empty unless a token was verified.
 */

#include "ngx_http_stoa_zone.h"

typedef enum {
#define STOA_VARIABLE(id, name, text) NGX_HTTP_STOA_V_##id,
#include "stoa_variable.def"
#undef STOA_VARIABLE
} ngx_http_stoa_variable_e;


static void
ngx_http_stoa_var_set(ngx_http_variable_value_t *v, const void *data,
                      size_t len)
{
    if (len == 0) {
        return;
    }

    v->data = (u_char *) (uintptr_t) data;
    v->len = (unsigned) len;
    v->not_found = 0;
    v->valid = 1;
}


static void
ngx_http_stoa_var_z(ngx_http_variable_value_t *v, const char *z)
{
    ngx_http_stoa_var_set(v, z, ngx_strlen(z));
}


static ngx_int_t
ngx_http_stoa_var_uuid(ngx_http_request_t *r, ngx_http_variable_value_t *v,
                       const stoa_uuid_t *id)
{
    u_char *p;

    p = ngx_pnalloc(r->pool, 36);
    if (p == NULL) {
        return NGX_ERROR;
    }

    stoa_uuid_print(id, (char *) p);
    ngx_http_stoa_var_set(v, p, 36);

    return NGX_OK;
}


static ngx_int_t
ngx_http_stoa_var_roles(ngx_http_request_t *r, ngx_http_variable_value_t *v,
                        uint32_t roles)
{
    stoa_mem_t  mem;
    stoa_buf_t  b;
    const char *name;
    ngx_uint_t  i;

    ngx_http_stoa_mem_init(&mem, r->pool);
    stoa_buf_init(&b, &mem, 32, 256);

    for (i = 0; i <= STOA_ROLE_COUNT; i++) {
        if ((roles & (1U << i)) == 0) {
            continue;
        }

        name = i == STOA_ROLE_COUNT ? "device" : stoa_role_name(1U << i);

        if (b.len != 0) {
            stoa_buf_char(&b, ',');
        }

        stoa_buf_z(&b, name);
    }

    if (b.failed) {
        return NGX_ERROR;
    }

    ngx_http_stoa_var_set(v, b.data, b.len);

    return NGX_OK;
}


static ngx_int_t
ngx_http_stoa_var_number(ngx_http_request_t *r, ngx_http_variable_value_t *v,
                         ngx_uint_t n)
{
    u_char *p;

    p = ngx_pnalloc(r->pool, NGX_INT_T_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_http_stoa_var_set(v, p, (size_t) (ngx_sprintf(p, "%ui", n) - p));

    return NGX_OK;
}


/* Seconds with microseconds, as $request_time has milliseconds. */
static ngx_int_t
ngx_http_stoa_var_time(ngx_http_request_t *r, ngx_http_variable_value_t *v,
                       ngx_uint_t us)
{
    u_char *p;

    p = ngx_pnalloc(r->pool, NGX_INT_T_LEN + 8);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_http_stoa_var_set(v, p,
                          (size_t) (ngx_sprintf(p, "%ui.%06ui", us / 1000000,
                                                us % 1000000)
                                    - p));

    return NGX_OK;
}


static ngx_int_t
ngx_http_stoa_var_identity(ngx_http_request_t *r, ngx_http_variable_value_t *v,
                           ngx_http_stoa_gate_t *gate, uintptr_t data)
{
    if (!gate->authenticated) {
        return NGX_OK;
    }

    if (data == NGX_HTTP_STOA_V_USER) {
        return gate->claims.roles & STOA_DEVICE
                 ? NGX_OK
                 : ngx_http_stoa_var_uuid(r, v, &gate->claims.sub);
    }

    if (data == NGX_HTTP_STOA_V_KEY) {
        return gate->by_key ? ngx_http_stoa_var_uuid(r, v, &gate->claims.sid)
                            : NGX_OK;
    }

    if (data == NGX_HTTP_STOA_V_ACTING_AS) {
        return gate->claims.acting
                 ? ngx_http_stoa_var_uuid(r, v, &gate->claims.act)
                 : NGX_OK;
    }

    /* of an admin in somebody's name: his own */
    if (data == NGX_HTTP_STOA_V_SESSION) {
        return gate->by_key ? NGX_OK
                            : ngx_http_stoa_var_uuid(r, v, &gate->claims.sid);
    }

    return ngx_http_stoa_var_roles(r, v, gate->claims.roles);
}


static ngx_int_t
ngx_http_stoa_var_pipeline(ngx_http_request_t *r, ngx_http_variable_value_t *v,
                           uintptr_t data)
{
    ngx_http_stoa_ctx_t *q;

    q = ngx_http_get_module_ctx(r->main, ngx_http_stoa_module);

    if (q == NULL || q->db_queries == 0) {
        return NGX_OK;
    }

    if (data == NGX_HTTP_STOA_V_DB_TIME) {
        return ngx_http_stoa_var_time(r, v, q->db_run_us);
    }

    if (data == NGX_HTTP_STOA_V_DB_WAIT) {
        return ngx_http_stoa_var_time(r, v, q->db_wait_us);
    }

    return ngx_http_stoa_var_number(r, v, q->db_queries);
}


static void
ngx_http_stoa_var_error(ngx_http_request_t *r, ngx_http_variable_value_t *v,
                        ngx_http_stoa_gate_t *gate)
{
    ngx_http_stoa_ctx_t *q;
    stoa_err_e           err = gate->refused;

    q = ngx_http_get_module_ctx(r->main, ngx_http_stoa_module);

    if (err == STOA_OK && q != NULL) {
        err = q->error;
    }

    if (err != STOA_OK) {
        ngx_http_stoa_var_z(v, stoa_err_row(err)->code);
    }
}


static void
ngx_http_stoa_var_status(ngx_http_variable_value_t *v,
                         ngx_http_stoa_gate_t *gate, uintptr_t data)
{
    static const char *const limits[] = { "", "PASSED", "REJECTED",
                                          "REJECTED_DRY_RUN" };
    static const char *const caches[] = { "", "MISS", "HIT", "WAIT" };

    if (data == NGX_HTTP_STOA_V_LIMIT_STATUS) {
        ngx_http_stoa_var_z(v, limits[gate->limit_status]);

    } else if (data == NGX_HTTP_STOA_V_CACHE_STATUS) {
        ngx_http_stoa_var_z(v, caches[gate->cache_status]);

    } else if (!gate->has_token) {
        ngx_http_stoa_var_z(v, "NONE");

    } else if (gate->authenticated) {
        ngx_http_stoa_var_z(v, "VERIFIED");

    } else if (gate->auth != STOA_OK) {
        ngx_http_stoa_var_z(v, stoa_err_row(gate->auth)->code);
    }
}


static ngx_int_t
ngx_http_stoa_variable(ngx_http_request_t *r, ngx_http_variable_value_t *v,
                       uintptr_t data)
{
    ngx_http_stoa_gate_t *gate;

    v->not_found = 1;
    v->no_cacheable = 1;

    gate = ngx_http_stoa_gate(r, data == NGX_HTTP_STOA_V_REQUEST_ID);

    if (gate == NULL) {
        return NGX_OK;
    }

    switch ((ngx_http_stoa_variable_e) data) {

    case NGX_HTTP_STOA_V_USER:
    case NGX_HTTP_STOA_V_ROLE:
    case NGX_HTTP_STOA_V_SESSION:
    case NGX_HTTP_STOA_V_KEY:
    case NGX_HTTP_STOA_V_ACTING_AS:
        return ngx_http_stoa_var_identity(r, v, gate, data);

    case NGX_HTTP_STOA_V_ROUTE:
        if (gate->ep != NULL) {
            ngx_http_stoa_var_z(v, gate->ep->id);
        }
        return NGX_OK;

    case NGX_HTTP_STOA_V_REQUEST_ID:
        ngx_http_stoa_var_set(v, gate->request_id, sizeof(gate->request_id));
        return NGX_OK;

    case NGX_HTTP_STOA_V_ERROR_CODE:
        ngx_http_stoa_var_error(r, v, gate);
        return NGX_OK;

    case NGX_HTTP_STOA_V_LIMIT:
        if (gate->limit != NULL) {
            ngx_http_stoa_var_set(v, gate->limit->name.data,
                                  gate->limit->name.len);
        }
        return NGX_OK;

    case NGX_HTTP_STOA_V_LIMIT_REMAINING:
        return gate->limit == NULL
                 ? NGX_OK
                 : ngx_http_stoa_var_number(r, v, gate->limit_remaining);

    case NGX_HTTP_STOA_V_LIMIT_STATUS:
    case NGX_HTTP_STOA_V_CACHE_STATUS:
    case NGX_HTTP_STOA_V_AUTH_STATUS:
        ngx_http_stoa_var_status(v, gate, data);
        return NGX_OK;

    case NGX_HTTP_STOA_V_DB_TIME:
    case NGX_HTTP_STOA_V_DB_WAIT:
    case NGX_HTTP_STOA_V_DB_QUERIES:
        return ngx_http_stoa_var_pipeline(r, v, data);

    case NGX_HTTP_STOA_V_IP_PREFIX:
        ngx_http_stoa_var_set(v, gate->addr_prefix, gate->addr_prefix_len);
        return NGX_OK;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_stoa_add_variables(ngx_conf_t *cf)
{
    static const struct {
        ngx_str_t                name;
        ngx_http_stoa_variable_e data;
    } names[] = {
#define STOA_VARIABLE(id, name, text)                                          \
    { ngx_string("stoa_" name), NGX_HTTP_STOA_V_##id },
#include "stoa_variable.def"
#undef STOA_VARIABLE
    };

    ngx_http_variable_t *var;
    ngx_str_t            name;
    ngx_uint_t           i;

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        name = names[i].name;

        var = ngx_http_add_variable(cf, &name, NGX_HTTP_VAR_NOCACHEABLE);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = ngx_http_stoa_variable;
        var->data = names[i].data;
    }

    return NGX_OK;
}
