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
 * PREACCESS, which then runs once more (gate->waited) and goes on behind the
 * verification.  In ACCESS a key has its scopes checked, and who acts in
 * somebody's name that the row allows it.
 *
 * The anonymous classes of addresses count what comes without a token, what
 * leads nowhere and what brings a bad token; whoever is signed in is counted
 * by user, so that a hall behind one address is not one visitor.
 */

#include "ngx_http_stoa_zone.h"
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

    gate->start_us = ngx_http_stoa_mono_us();

    if (r->log_handler != NULL) {
        gate->log_handler = r->log_handler;
        r->log_handler = ngx_http_stoa_gate_log;
    }

    cln->handler = ngx_http_stoa_gate_cleanup;

    return gate;
}


/* ---- the parts of PREACCESS ---- */

static stoa_err_e
ngx_http_stoa_gate_address_limit(ngx_http_stoa_gate_t *gate, ngx_uint_t cls)
{
    stoa_str_t key;

    if (cls == 0 || cls >= STOA_RATE_NONE) {
        return STOA_OK;
    }

    key.data = gate->addr_prefix;
    key.len = gate->addr_prefix_len;

    return ngx_http_stoa_rate_take(gate,
                                   &ngx_http_stoa_process.mcf->limit_addr[cls],
                                   key, 1);
}


static stoa_err_e
ngx_http_stoa_gate_user_limit(ngx_http_stoa_gate_t *gate, ngx_uint_t cls)
{
    stoa_str_t key;

    if (cls == 0 || cls >= STOA_RATE_NONE) {
        return STOA_OK;
    }

    key.data = gate->claims.sub.b;
    key.len = sizeof(gate->claims.sub.b);

    return ngx_http_stoa_rate_take(gate,
                                   &ngx_http_stoa_process.mcf->limit_user[cls],
                                   key, 1);
}


/* The token of "Authorization: Bearer"; another scheme is an empty one.
   Without that header, the key of X-Api-Key. */
static stoa_str_t
ngx_http_stoa_gate_token(ngx_http_request_t *r)
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


/* OK with gate->waiting: not yet known. */
static stoa_err_e
ngx_http_stoa_gate_verify(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate)
{
    stoa_str_t token;

    if (!gate->has_token) {
        return STOA_OK;
    }

    if (gate->waited) {
        gate->waited = 0; /* gate->auth is here */

    } else if (!ngx_http_stoa_revoke_loaded()) {
        gate->auth = STOA_E_STARTING;

    } else {
        token = ngx_http_stoa_gate_token(r);

        if (!stoa_key_is(token)) {
            gate->auth = ngx_http_stoa_auth_verify(r, gate, token);

        } else if (ngx_http_stoa_key_verify(r, gate, token) == NGX_AGAIN) {
            gate->waiting = 1;
            return STOA_OK;
        }
    }

    /* since the gate was entered: one reading of the clock less */
    gate->auth_us = (uint32_t) (ngx_http_stoa_mono_us() - gate->start_us);

    return gate->auth;
}


/* Whether the verdict is a bad token's, and not our own trouble. */
static ngx_uint_t
ngx_http_stoa_gate_is_bad(const ngx_http_stoa_gate_t *gate)
{
    return stoa_err_row(gate->auth)->status == NGX_HTTP_UNAUTHORIZED;
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
    ngx_uint_t             again, cls, waited;

    waited = gate->waited;
    again = gate->checked && !waited;
    gate->checked = 1;

    ngx_http_stoa_gate_route(r, gate);

    ep = gate->ep;
    cls = ep != NULL ? ep->rate : STOA_RATE_READ;

    if (again || lcf->rate == STOA_RATE_NONE) {
        cls = STOA_RATE_NONE;
    }

    if (r->method == NGX_HTTP_OPTIONS) {
        /* a browser's question before each call is not a call */
        return gate->routed ? STOA_OK : STOA_E_NOT_FOUND;
    }

    if (!waited && (!gate->has_token || cls == STOA_RATE_AUTH || ep == NULL)) {
        gate->counted = 1;

        if (ngx_http_stoa_gate_address_limit(gate, cls) != STOA_OK) {
            return STOA_E_RATE_LIMITED;
        }
    }

    if (!gate->routed) {
        return STOA_E_NOT_FOUND;
    }

    if (ep == NULL) {
        return STOA_E_METHOD_NOT_ALLOWED;
    }

    if (!again && ngx_http_stoa_gate_verify(r, gate) != STOA_OK) {

        if (!gate->counted && ngx_http_stoa_gate_is_bad(gate)
            && ngx_http_stoa_gate_address_limit(gate, cls) != STOA_OK)
        {
            return STOA_E_RATE_LIMITED;
        }
    }

    if (gate->auth != STOA_OK || gate->waiting) {
        return gate->auth;
    }

    if (!gate->authenticated) {
        return (ep->who & STOA_PUBLIC) ? STOA_OK : STOA_E_UNAUTHENTICATED;
    }

    return ngx_http_stoa_gate_user_limit(gate, cls);
}


/* The same for a location with gates of its own, e.g. before proxy_pass. */
static stoa_err_e
ngx_http_stoa_gate_other(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                         ngx_http_stoa_loc_conf_t *lcf)
{
    ngx_uint_t waited = gate->waited;

    if (gate->checked && !waited) {
        return STOA_OK;
    }

    gate->checked = 1;

    if (!waited
        && (!gate->has_token || lcf->auth == 0 || lcf->rate == STOA_RATE_AUTH))
    {

        if (ngx_http_stoa_gate_address_limit(gate, lcf->rate) != STOA_OK) {
            return STOA_E_RATE_LIMITED;
        }
    }

    if (lcf->auth == 0 || !gate->has_token) {
        return STOA_OK;
    }

    /* a bad token is refused in ACCESS, where "satisfy any" can overrule */

    if (ngx_http_stoa_gate_verify(r, gate) != STOA_OK) {
        return ngx_http_stoa_gate_is_bad(gate) && lcf->rate != STOA_RATE_AUTH
                 ? ngx_http_stoa_gate_address_limit(gate, lcf->rate)
                 : STOA_OK;
    }

    return gate->waiting ? STOA_OK
                         : ngx_http_stoa_gate_user_limit(gate, lcf->rate);
}


ngx_int_t
ngx_http_stoa_preaccess(ngx_http_request_t *r)
{
    ngx_http_stoa_loc_conf_t *lcf;
    ngx_http_stoa_gate_t     *gate;
    stoa_err_e                err;

    if (r != r->main) {
        return NGX_DECLINED;
    }

    lcf = ngx_http_stoa_lcf(r);

    if (!lcf->api && lcf->auth == 0
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

    gate->has_token = r->headers_in.authorization != NULL
                   || ngx_http_stoa_header_in(r, "x-api-key").data != NULL;

    err = lcf->api ? ngx_http_stoa_gate_rows(r, gate, lcf)
                   : ngx_http_stoa_gate_other(r, gate, lcf);

    if (gate->waiting) {

        if (ngx_handle_read_event(r->connection->read, 0) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        r->read_event_handler = ngx_http_test_reading;
        r->write_event_handler = ngx_http_request_empty_handler;

        return NGX_AGAIN;
    }

    if (err == STOA_OK) {
        return NGX_DECLINED;
    }

    if (err == STOA_E_RATE_LIMITED) {
        ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                      "stoa: limit \"%V\" is exceeded, retry after %ui s",
                      &gate->limit->name, gate->retry_after);
    }

    return ngx_http_stoa_reply_refuse(r, err);
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

        return err == STOA_OK ? NGX_DECLINED
                              : ngx_http_stoa_reply_refuse(r, err);
    }

    if (gate->has_token && gate->auth != STOA_OK) {
        return ngx_http_stoa_reply_refuse(r, gate->auth);
    }

    if (!gate->authenticated) {
        return lcf->auth == 2
                 ? ngx_http_stoa_reply_refuse(r, STOA_E_UNAUTHENTICATED)
                 : NGX_DECLINED;
    }

    err = ngx_http_stoa_gate_via(gate, NULL);
    if (err != STOA_OK) {
        return ngx_http_stoa_reply_refuse(r, err);
    }

    roles = lcf->roles != 0 ? (uint32_t) lcf->roles : gate->claims.roles;

    if ((roles & gate->claims.roles) == 0) {
        return ngx_http_stoa_reply_refuse(r, STOA_E_FORBIDDEN);
    }

    return lcf->auth == 2 ? NGX_OK : NGX_DECLINED;
}
