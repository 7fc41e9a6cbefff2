/*
 * The gates: PREACCESS (address limit, route, method, token, user limit) and
 * ACCESS (role), in the order of decision 2, and the gate record.
 *
 * The record is a cleanup of the main request's pool, found by its handler:
 * r->ctx is zeroed by internal redirects and named locations.  A redirect
 * routes its new path, but neither verifies nor counts a second time;
 * subrequests pass.  Gates answer NGX_DECLINED to go on, since NGX_OK would
 * skip the other handlers of PREACCESS (limit_req among them).
 *
 * An API key that is not known yet makes the request wait for PostgreSQL in
 * PREACCESS, which then runs once more (gate->resumed) and goes on behind the
 * verification.  In ACCESS a key has its scopes checked, and who acts in
 * somebody's name that the row allows it.
 *
 * The anonymous classes of addresses count what comes without a token, what
 * leads nowhere and what brings a bad token; whoever is signed in is counted
 * by user, so that a hall behind one address is not one visitor.  Policies by
 * name count by their keys, those that need the token after it was verified;
 * what Redis counts comes last, with the request parked (limit.h).
 */

#include "ngx_http_stoa_limit.h"
#include "stoa_key.h"

static void
ngx_http_stoa_gate_cleanup(void *data)
{
    /* marks the record */
}


/* Appends the request's id to its lines of the error log. */
static u_char *
ngx_http_stoa_gate_log(ngx_http_request_t *r, ngx_http_request_t *sr,
                       u_char *buf, size_t len)
{
    ngx_http_stoa_gate_t *gate;
    u_char               *p;

    gate = ngx_http_stoa_gate(r, 0);

    if (gate == NULL || gate->log_handler == NULL) {
        return buf;
    }

    p = gate->log_handler(r, sr, buf, len);

    return ngx_snprintf(p, len - (size_t) (p - buf), ", request_id: \"%*s\"",
                        sizeof(gate->request_id), gate->request_id);
}


/* IPv4 whole, IPv6 by its /64: what one customer of a provider has. */
static void
ngx_http_stoa_gate_address(ngx_connection_t *c, ngx_http_stoa_gate_t *gate)
{
    struct sockaddr_in *sin;
#if (NGX_HAVE_INET6)
    struct sockaddr_in6 *sin6;
    u_char              *b;
#endif
    u_char *p = gate->addr_prefix, *last = p + sizeof(gate->addr_prefix);

    switch (c->sockaddr->sa_family) {

    case AF_INET:
        if (c->addr_text.len != 0
            && c->addr_text.len <= sizeof(gate->addr_prefix)) {
            p = ngx_cpymem(p, c->addr_text.data, c->addr_text.len);
            break;
        }

        sin = (struct sockaddr_in *) c->sockaddr;
        p += ngx_inet_ntop(AF_INET, &sin->sin_addr, p, last - p);
        break;

#if (NGX_HAVE_INET6)
    case AF_INET6:
        sin6 = (struct sockaddr_in6 *) c->sockaddr;
        b = sin6->sin6_addr.s6_addr;

        if (IN6_IS_ADDR_V4MAPPED(&sin6->sin6_addr)) {
            p += ngx_inet_ntop(AF_INET, &b[12], p, last - p);
            break;
        }

        p = ngx_slprintf(p, last, "%xd:%xd:%xd:%xd::/64", b[0] << 8 | b[1],
                         b[2] << 8 | b[3], b[4] << 8 | b[5], b[6] << 8 | b[7]);
        break;
#endif

    default:
        p = ngx_cpymem(p, "unix", 4);
    }

    gate->addr_prefix_len = (size_t) (p - gate->addr_prefix);
}


ngx_http_stoa_gate_t *
ngx_http_stoa_gate(ngx_http_request_t *r, ngx_uint_t create)
{
    ngx_http_stoa_gate_t *gate;
    ngx_pool_cleanup_t   *cln;
    stoa_uuid_t           id;

    r = r->main;

    for (cln = r->pool->cleanup; cln != NULL; cln = cln->next) {
        if (cln->handler == ngx_http_stoa_gate_cleanup) {
            return cln->data;
        }
    }

    if (!create || ngx_http_stoa_process.mcf == NULL) {
        return NULL;
    }

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_stoa_gate_t));
    if (cln == NULL) {
        return NULL;
    }

    gate = cln->data;
    ngx_memzero(gate, sizeof(ngx_http_stoa_gate_t));

    if (!stoa_id_next(&ngx_http_stoa_process.ids, &id)) {
        ngx_log_error(NGX_LOG_CRIT, r->connection->log, ngx_errno,
                      "stoa: the kernel gives no random bytes");
        return NULL;
    }

    stoa_uuid_print(&id, (char *) gate->request_id);
    ngx_http_stoa_gate_address(r->connection, gate);

    gate->takes.pool = r->pool;
    gate->start_us = ngx_http_stoa_mono_us();

    if (r->log_handler != NULL) {
        gate->log_handler = r->log_handler;
        r->log_handler = ngx_http_stoa_gate_log;
    }

    cln->handler = ngx_http_stoa_gate_cleanup;

    return gate;
}


/* ---- the parts of PREACCESS ---- */

/* Of the limits of one location, those that one step counts. */
typedef enum {
    NGX_HTTP_STOA_STEP_EARLY = 1, /* policies whose keys need no token */
    NGX_HTTP_STOA_STEP_LATE = 2,  /* the others */
    NGX_HTTP_STOA_STEP_ADDR = 4,  /* the class by address */
    NGX_HTTP_STOA_STEP_USER = 8   /* the class by user */
} ngx_http_stoa_step_e;


static ngx_uint_t
ngx_http_stoa_gate_cost(ngx_http_request_t          *r,
                        const ngx_http_stoa_limit_t *limit)
{
    ngx_http_variable_value_t *v;
    ngx_int_t                  n;

    if (limit->cost_index == NGX_ERROR) {
        return limit->cost;
    }

    v = ngx_http_get_indexed_variable(r, (ngx_uint_t) limit->cost_index);

    if (v == NULL || v->not_found || v->len == 0) {
        return 1;
    }

    n = ngx_atoi(v->data, v->len);

    return n != NGX_ERROR ? ngx_max((ngx_uint_t) n, limit->cost_least) : 1;
}


/* Makes a limit one of those that the step counts. */
static ngx_int_t
ngx_http_stoa_gate_meet(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                        ngx_http_stoa_limit_t *limit, ngx_uint_t cost)
{
    ngx_http_stoa_take_t *take;
    uint64_t              key[2];

    if (limit->rate == 0 || ngx_http_stoa_taken(gate, limit)) {
        return NGX_OK;
    }

    if (limit->cluster) {
        return ngx_http_stoa_cluster_add(r, gate, limit, cost);
    }

    if (ngx_http_stoa_key_hash(r, gate, limit, key) != NGX_OK) {
        return NGX_OK;
    }

    take = ngx_http_stoa_take_push(gate, limit);
    if (take == NULL) {
        return NGX_ERROR;
    }

    take->key[0] = key[0];
    take->key[1] = key[1];
    take->cost = cost;

    return NGX_OK;
}


static stoa_err_e
ngx_http_stoa_gate_count(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                         ngx_uint_t cls, ngx_uint_t steps)
{
    ngx_http_stoa_main_conf_t *mcf = ngx_http_stoa_process.mcf;
    ngx_http_stoa_loc_conf_t  *lcf = ngx_http_stoa_lcf(r);
    ngx_http_stoa_limit_t    **policy;
    ngx_uint_t                 i, from, cost;
    ngx_int_t                  rc = NGX_OK;

    from = gate->takes.nelts;

    if (cls != 0 && cls < STOA_RATE_NONE) {
        cost = gate->ep != NULL && gate->ep->cost != 0 ? gate->ep->cost : 1;

        if (steps & NGX_HTTP_STOA_STEP_ADDR) {
            rc = ngx_http_stoa_gate_meet(r, gate, &mcf->limit_addr[cls], cost);

        } else if (steps & NGX_HTTP_STOA_STEP_USER) {
            rc = ngx_http_stoa_gate_meet(r, gate, &mcf->limit_user[cls], cost);
        }
    }

    if (lcf->limits != NULL) {
        policy = lcf->limits->elts;

        for (i = 0; rc == NGX_OK && i < lcf->limits->nelts; i++) {
            if (steps
                & (policy[i]->verified ? NGX_HTTP_STOA_STEP_LATE
                                       : NGX_HTTP_STOA_STEP_EARLY))
            {
                rc =
                    ngx_http_stoa_gate_meet(r, gate, policy[i],
                                            ngx_http_stoa_gate_cost(r,
                                                                    policy[i]));
            }
        }
    }

    if (rc != NGX_OK) {
        return STOA_E_INTERNAL;
    }

    return ngx_http_stoa_limit_take((ngx_http_stoa_take_t *) gate->takes.elts
                                        + from,
                                    gate->takes.nelts - from, 0);
}


/* The token of "Authorization: Bearer"; another scheme is an empty one.
   Without that header, the key of X-Api-Key. */
static stoa_str_t
ngx_http_stoa_gate_bearer(ngx_http_request_t *r)
{
    ngx_table_elt_t *h = r->headers_in.authorization;
    stoa_str_t       token = stoa_null_string;

    if (h == NULL) {
        token = ngx_http_stoa_header_in(r, "x-api-key");

        return stoa_key_is(token) ? token : (stoa_str_t) stoa_null_string;
    }

    if (h->value.len < 8
        || ngx_strncasecmp(h->value.data, (u_char *) "Bearer ", 7) != 0)
    {
        return token;
    }

#if (nginx_version >= 1023000)
    if (h->next != NULL) {
        return token; /* two of them: which one was meant? */
    }
#endif

    token.data = h->value.data + 7;
    token.len = h->value.len - 7;

    while (token.len != 0 && *token.data == ' ') {
        token.data++;
        token.len--;
    }

    return token;
}


/* The header wins: who sends one has chosen it, a cookie comes by itself. */
static void
ngx_http_stoa_gate_token(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate)
{
    stoa_str_t key;

    if (r->headers_in.authorization != NULL) {
        gate->has_token = 1;
        gate->token = ngx_http_stoa_gate_bearer(r);
        return;
    }

    key = ngx_http_stoa_header_in(r, "x-api-key");

    /* other software may have keys of its own under that name */

    if (stoa_key_is(key) || (key.data != NULL && ngx_http_stoa_lcf(r)->api)) {
        gate->has_token = 1;
        gate->token = stoa_key_is(key) ? key : (stoa_str_t) stoa_null_string;
        return;
    }

    if (ngx_http_stoa_cookie_access(r, &gate->token) != NGX_OK) {
        gate->cross = 1;
    }

    gate->has_token = gate->token.len != 0;
    gate->by_cookie = gate->has_token;
}


static stoa_err_e
ngx_http_stoa_gate_nobody(const ngx_http_stoa_gate_t *gate)
{
    return gate->cross ? STOA_E_CROSS_SITE : STOA_E_UNAUTHENTICATED;
}


/* A browser cannot leave out a cookie that ended: where nobody has to be
   signed in, it is as if it had not come. */
static void
ngx_http_stoa_gate_forgive(ngx_http_stoa_gate_t *gate)
{
    if (gate->by_cookie) {
        gate->auth = STOA_OK;
        gate->has_token = 0;
        gate->token.len = 0;
    }
}


static stoa_err_e
ngx_http_stoa_gate_verify(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate)
{
    if (!gate->has_token || gate->verified) {
        return gate->auth;
    }

    gate->verified = 1;

    if (!ngx_http_stoa_revoke_loaded()) {
        gate->auth = STOA_E_STARTING;

    } else if (gate->by_cookie || !stoa_key_is(gate->token)) {
        gate->auth = ngx_http_stoa_auth_verify(r, gate, gate->token);

    } else if (ngx_http_stoa_key_verify(r, gate, gate->token) == NGX_AGAIN) {
        gate->parked = 1;
        return STOA_OK;
    }

    /* since the gate was entered: one reading of the clock less */
    gate->auth_us = (uint32_t) (ngx_http_stoa_mono_us() - gate->start_us);

    return gate->auth;
}


/* Whether the verdict is the token's fault, and not our own trouble. */
static ngx_uint_t
ngx_http_stoa_gate_is_fault(const ngx_http_stoa_gate_t *gate)
{
    return stoa_err_row(gate->auth)->status < NGX_HTTP_INTERNAL_SERVER_ERROR;
}


static ngx_uint_t
ngx_http_stoa_gate_method(ngx_http_request_t *r)
{
    switch (r->method) {
    case NGX_HTTP_GET:
    case NGX_HTTP_HEAD:
        return STOA_GET;
    case NGX_HTTP_POST:
        return STOA_POST;
    case NGX_HTTP_PUT:
        return STOA_PUT;
    case NGX_HTTP_PATCH:
        return STOA_PATCH;
    case NGX_HTTP_DELETE:
        return STOA_DELETE;
    default:
        return 0;
    }
}


static ngx_uint_t
ngx_http_stoa_row_index(const ngx_http_stoa_main_conf_t *mcf,
                        const stoa_endpoint_t           *ep)
{
    ngx_uint_t i = ngx_http_stoa_row_hash(ep);

    while (mcf->row_index[i & mcf->row_mask] == 0
           || mcf->api->rows[mcf->row_index[i & mcf->row_mask] - 1] != ep)
    {
        i++; /* every row is in the table */
    }

    return (ngx_uint_t) mcf->row_index[i & mcf->row_mask] - 1;
}


void
ngx_http_stoa_gate_route(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate)
{
    ngx_http_stoa_main_conf_t *mcf = ngx_http_stoa_process.mcf;
    const stoa_endpoint_t     *ep;
    ngx_uint_t                 m;
    stoa_str_t                 uri;

    uri.data = r->uri.data;
    uri.len = r->uri.len;

    gate->ep = NULL;

    if (mcf->route == NULL) {
        return; /* no location has rows */
    }

    gate->routed = stoa_route_match(mcf->route, uri, &gate->match);

    if (!gate->routed) {
        return;
    }

    m = ngx_http_stoa_gate_method(r);

    if (m == 0 || gate->match.rows[m] == NULL) {
        return;
    }

    ep = gate->match.rows[m];

    if (ep->development && ngx_strcmp(mcf->conf.environment, "production") == 0)
    {
        gate->routed = 0;
        return;
    }

    gate->ep = ep;
    gate->row = ngx_http_stoa_row_index(mcf, ep);
}


/* The verdict of PREACCESS for a location that is served from rows. */
static stoa_err_e
ngx_http_stoa_gate_rows(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                        ngx_http_stoa_loc_conf_t *lcf)
{
    const stoa_endpoint_t *ep;
    ngx_uint_t             again, cls, steps, late;
    stoa_err_e             err;

    again = gate->checked && !gate->resumed;
    gate->checked = 1;

    ngx_http_stoa_gate_route(r, gate);

    ep = gate->ep;
    cls = ep != NULL ? ep->rate : STOA_RATE_READ;

    if (r->method == NGX_HTTP_OPTIONS) {
        /* a browser's question before each call is not a call */
        return gate->routed ? STOA_OK : STOA_E_NOT_FOUND;
    }

    /* what leads nowhere counts by address, whoever sends it */
    late = gate->has_token && ep != NULL ? NGX_HTTP_STOA_STEP_LATE : 0;
    steps = NGX_HTTP_STOA_STEP_EARLY
          | (late == 0 ? NGX_HTTP_STOA_STEP_LATE : 0);

    if (cls == STOA_RATE_NONE || lcf->rate == STOA_RATE_NONE
        || gate->limit_status == NGX_HTTP_STOA_LIMIT_REJECTED)
    {
        cls = STOA_RATE_NONE;
        steps = 0;
        late = 0;
    }

    if (again) {
        cls = STOA_RATE_NONE; /* a redirect; policies know by themselves */
    }

    /* of class "refresh" the flow counts; a bad access token counts here */
    if (cls != STOA_RATE_REFRESH
        && (!gate->has_token || cls == STOA_RATE_AUTH || ep == NULL))
    {
        steps |= NGX_HTTP_STOA_STEP_ADDR;
    }

    err = ngx_http_stoa_gate_count(r, gate, cls, steps);
    if (err != STOA_OK) {
        return err;
    }

    if (!gate->routed) {
        return STOA_E_NOT_FOUND;
    }

    if (ep == NULL) {
        return STOA_E_METHOD_NOT_ALLOWED;
    }

    if (gate->has_token) {
        if (ngx_http_stoa_gate_verify(r, gate) == STOA_OK) {

            if (gate->parked) {
                return STOA_OK;
            }

            if (cls != STOA_RATE_REFRESH) {
                late |= NGX_HTTP_STOA_STEP_USER;
            }

        } else if (!ngx_http_stoa_gate_is_fault(gate)) {
            late = 0;

        } else if ((steps & NGX_HTTP_STOA_STEP_ADDR) == 0) {
            late |= NGX_HTTP_STOA_STEP_ADDR;
        }

        err = ngx_http_stoa_gate_count(r, gate, cls, late);
        if (err != STOA_OK) {
            return err;
        }

        if ((ep->who & STOA_PUBLIC) && gate->auth != STOA_OK) {
            ngx_http_stoa_gate_forgive(gate);
        }
    }

    if (gate->auth != STOA_OK || gate->parked) {
        return gate->auth;
    }

    if (!gate->authenticated) {
        return (ep->who & STOA_PUBLIC) ? STOA_OK
                                       : ngx_http_stoa_gate_nobody(gate);
    }

    return STOA_OK;
}


/* The same for a location with gates of its own, e.g. before proxy_pass. */
static stoa_err_e
ngx_http_stoa_gate_other(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                         ngx_http_stoa_loc_conf_t *lcf)
{
    ngx_uint_t cls, steps, late;
    stoa_err_e err;

    cls = gate->checked && !gate->resumed ? STOA_RATE_NONE : lcf->rate;
    gate->checked = 1;

    late = gate->has_token && lcf->auth != 0 ? NGX_HTTP_STOA_STEP_LATE : 0;
    steps = NGX_HTTP_STOA_STEP_EARLY
          | (late == 0 ? NGX_HTTP_STOA_STEP_LATE : 0);

    if (lcf->rate == STOA_RATE_NONE
        || gate->limit_status == NGX_HTTP_STOA_LIMIT_REJECTED)
    {
        cls = STOA_RATE_NONE;
        steps = 0;
        late = 0;
    }

    if (!gate->has_token || lcf->auth == 0 || cls == STOA_RATE_AUTH) {
        steps |= NGX_HTTP_STOA_STEP_ADDR;
    }

    err = ngx_http_stoa_gate_count(r, gate, cls, steps);

    if (err != STOA_OK || lcf->auth == 0 || !gate->has_token) {
        return err;
    }

    /* a bad token is refused in ACCESS, where "satisfy any" can overrule */

    if (ngx_http_stoa_gate_verify(r, gate) == STOA_OK) {

        if (gate->parked) {
            return STOA_OK;
        }

        late |= NGX_HTTP_STOA_STEP_USER;

    } else if (!ngx_http_stoa_gate_is_fault(gate)) {
        late = 0;

    } else if ((steps & NGX_HTTP_STOA_STEP_ADDR) == 0) {
        late |= NGX_HTTP_STOA_STEP_ADDR;
    }

    err = ngx_http_stoa_gate_count(r, gate, cls, late);

    if (lcf->auth == 1 /* optional */ && gate->auth != STOA_OK) {
        ngx_http_stoa_gate_forgive(gate);
    }

    return err;
}


/* As limit_req waits: the phase is entered again when it goes on. */
ngx_int_t
ngx_http_stoa_gate_park(ngx_http_request_t *r, const char *action)
{
    if (ngx_handle_read_event(r->connection->read, 0) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r->connection->log->action = (char *) (uintptr_t) action;
    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_request_empty_handler;

    return NGX_AGAIN;
}


void
ngx_http_stoa_gate_run(ngx_http_request_t *r)
{
    ngx_connection_t *c = r->connection;

    ngx_http_set_log_request(c->log, r);
    c->log->action = NULL;

    if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        ngx_http_run_posted_requests(c);
        return;
    }

    r->read_event_handler = ngx_http_block_reading;
    r->write_event_handler = ngx_http_core_run_phases;

    ngx_http_core_run_phases(r);
    ngx_http_run_posted_requests(c);
}


void
ngx_http_stoa_gate_resume(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate)
{
    gate->parked = 0;
    gate->resumed = 1;
    gate->auth_us = (uint32_t) (ngx_http_stoa_mono_us() - gate->start_us);

    ngx_http_stoa_gate_run(r);
}


/* NGX_AGAIN: parked until what it waits for has answered; else *err. */
static ngx_int_t
ngx_http_stoa_gate_verdict(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                           ngx_http_stoa_loc_conf_t *lcf, stoa_err_e *err)
{
    ngx_int_t rc;

    rc = ngx_http_stoa_cluster_answered(r, gate, err);

    if (rc == NGX_DECLINED) {
        if (!gate->verified) {
            ngx_http_stoa_gate_token(r, gate);
        }

        *err = lcf->api ? ngx_http_stoa_gate_rows(r, gate, lcf)
                        : ngx_http_stoa_gate_other(r, gate, lcf);

        gate->resumed = 0;

        if (*err == STOA_OK && gate->parked) {
            return ngx_http_stoa_gate_park(r, "waiting for what a token needs");
        }

        if (*err == STOA_E_RATE_LIMITED || gate->cluster == NULL) {
            rc = NGX_OK;

        } else {
            rc = ngx_http_stoa_cluster_take(r, gate, err);
        }
    }

    if (rc == NGX_OK) {
        ngx_http_stoa_limit_sum_up(gate);
        ngx_http_stoa_limit_log(r, gate);
    }

    return rc;
}


ngx_int_t
ngx_http_stoa_preaccess(ngx_http_request_t *r)
{
    ngx_http_stoa_loc_conf_t *lcf;
    ngx_http_stoa_gate_t     *gate;
    stoa_err_e                err;
    ngx_int_t                 rc;

    if (r != r->main) {
        return NGX_DECLINED;
    }

    lcf = ngx_http_stoa_lcf(r);
    err = lcf->api ? STOA_OK : ngx_http_stoa_path(r);

    if (err != STOA_OK) {
        return ngx_http_stoa_reply_refuse(r, err);
    }

    if (!lcf->api && lcf->auth == 0 && lcf->limits == NULL
        && (lcf->rate == 0 || lcf->rate == STOA_RATE_NONE))
    {
        if (lcf->errors == 1) {
            /* the id for what the error log will say */
            (void) ngx_http_stoa_gate(r, 1);
        }

        return NGX_DECLINED;
    }

    gate = ngx_http_stoa_gate(r, 1);
    if (gate == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (!gate->checked) {
        /* a variable may have made the record before realip was asked */
        ngx_http_stoa_gate_address(r->connection, gate);
    }

    /* a browser sends no token with it, and what is behind is not asked */
    if (!lcf->api && ngx_http_stoa_cors_asked(r)) {
        return NGX_HTTP_NO_CONTENT;
    }

    rc = ngx_http_stoa_gate_verdict(r, gate, lcf, &err);
    if (rc != NGX_OK) {
        return rc;
    }

    return err == STOA_OK ? NGX_DECLINED : ngx_http_stoa_reply_refuse(r, err);
}


/* A visitor who opens a page is led to the sign-in; programs are refused.
   Both are a refusal here, which "allow" may overrule: the filter leads. */
static ngx_int_t
ngx_http_stoa_gate_refuse(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                          ngx_http_stoa_loc_conf_t *lcf, stoa_err_e err)
{
    size_t     len;
    u_char    *p;
    stoa_str_t mode;

    mode = ngx_http_stoa_header_in(r, "sec-fetch-mode");

    if (lcf->login.len == 0
        || stoa_err_row(err)->status >= NGX_HTTP_INTERNAL_SERVER_ERROR
        || (r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD)) == 0
        || r->headers_in.upgrade != NULL
        || (mode.len != 0 && !stoa_str_eq_z(mode, "navigate"))
        || ngx_http_stoa_accepts(ngx_http_stoa_header_in(r, "accept"),
                                 "text/html")
               != 2)
    {
        return ngx_http_stoa_reply_refuse(r, err);
    }

    len = lcf->login.len + sizeof("?next=") - 1 + r->unparsed_uri.len
        + 2
              * ngx_escape_uri(NULL, r->unparsed_uri.data, r->unparsed_uri.len,
                               NGX_ESCAPE_URI_COMPONENT);

    gate->login.data = ngx_pnalloc(r->pool, len);
    if (gate->login.data == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    gate->login.len = len;
    p = ngx_cpymem(gate->login.data, lcf->login.data, lcf->login.len);
    p = ngx_cpymem(p, "?next=", sizeof("?next=") - 1);
    ngx_escape_uri(p, r->unparsed_uri.data, r->unparsed_uri.len,
                   NGX_ESCAPE_URI_COMPONENT);

    return ngx_http_stoa_reply_refuse(r, err);
}


/* Whether the code of who asks is fresh enough for the row.  The token says
   how old it is, and whether the account has a second factor at all.  A key's
   account needs one as well, or a key would be the way around it. */
static stoa_err_e
ngx_http_stoa_gate_step_up(const ngx_http_stoa_gate_t *gate)
{
    const ngx_http_stoa_main_conf_t *mcf = ngx_http_stoa_process.mcf;
    const stoa_claims_t             *claims = &gate->claims;
    ngx_uint_t                       must;

    must = gate->ep->step_up == STOA_STEP_UP_OTHERS
        && (mcf->require_mfa & claims->roles) != 0;

    if (gate->ep->step_up == STOA_STEP_UP_NONE || (!claims->mfa && !must)) {
        return STOA_OK;
    }

    if (!claims->mfa) {
        return STOA_E_MFA_ENROLMENT_REQUIRED;
    }

    if (gate->by_key) {
        return STOA_OK; /* a program: who made the key gave a code for it */
    }

    return (claims->amr & STOA_AMR_MFA)
                && stoa_time_ms() / 1000
                       < claims->auth_time + mcf->conf.step_up_ttl
             ? STOA_OK
             : STOA_E_STEP_UP_REQUIRED;
}


/* What those may who did not sign in themselves.  Other software than rows
   (ep NULL) gets keys for everything, and no admin in somebody's name: nobody
   knows what it does for them. */
static stoa_err_e
ngx_http_stoa_gate_via(const ngx_http_stoa_gate_t *gate,
                       const stoa_endpoint_t      *ep)
{
    if (gate->by_key) {

        if (ep == NULL ? !stoa_scope_allows(gate->scopes, NULL)
                       : !(ep->via & (STOA_VIA_KEY | STOA_VIA_ANY_KEY)))
        {
            return STOA_E_KEY_FORBIDDEN;
        }

        return stoa_scope_allows(gate->scopes, ep) ? STOA_OK
                                                   : STOA_E_SCOPE_MISSING;
    }

    return gate->claims.acting && (ep == NULL || !(ep->via & STOA_VIA_ACTING))
             ? STOA_E_IMPERSONATION_FORBIDDEN
             : STOA_OK;
}


ngx_int_t
ngx_http_stoa_access(ngx_http_request_t *r)
{
    ngx_http_stoa_loc_conf_t *lcf;
    ngx_http_stoa_gate_t     *gate;
    stoa_err_e                err;
    uint32_t                  roles;

    if (r != r->main) {
        return NGX_DECLINED;
    }

    lcf = ngx_http_stoa_lcf(r);

    if (!lcf->api && lcf->auth == 0) {
        return NGX_DECLINED;
    }

    gate = ngx_http_stoa_gate(r, 0);
    if (gate == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR; /* PREACCESS has made it */
    }

    if (lcf->api) {

        if (gate->ep == NULL || !gate->authenticated) {
            return NGX_DECLINED;
        }

        err = ngx_http_stoa_gate_via(gate, gate->ep);

        if (err == STOA_OK
            && (gate->ep->who & (STOA_PUBLIC | gate->claims.roles)) == 0) {
            err = STOA_E_FORBIDDEN;
        }

        if (err == STOA_OK) {
            err = ngx_http_stoa_gate_step_up(gate);
        }

        return err == STOA_OK ? NGX_DECLINED
                              : ngx_http_stoa_reply_refuse(r, err);
    }

    if (gate->has_token && gate->auth != STOA_OK) {
        return ngx_http_stoa_gate_refuse(r, gate, lcf, gate->auth);
    }

    if (!gate->authenticated) {
        return lcf->auth == 2
                 ? ngx_http_stoa_gate_refuse(r, gate, lcf,
                                             ngx_http_stoa_gate_nobody(gate))
                 : NGX_DECLINED;
    }

    err = ngx_http_stoa_gate_via(gate, NULL);
    if (err != STOA_OK) {
        return ngx_http_stoa_reply_refuse(r, err);
    }

    /* a device is nobody's account: only who names devices means them */
    roles = lcf->roles != 0 ? (uint32_t) lcf->roles : ~(uint32_t) STOA_DEVICE;

    if ((roles & gate->claims.roles) == 0) {
        return ngx_http_stoa_reply_refuse(r, STOA_E_FORBIDDEN);
    }

    return lcf->auth == 2 ? NGX_OK : NGX_DECLINED;
}
