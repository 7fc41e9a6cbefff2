/*
 * Pages of other origins (WHATWG Fetch, "CORS protocol"): "stoa_cors", what
 * every answer of its locations carries, and the answer to a preflight, which
 * is made here and asks neither PostgreSQL nor what is behind the location.
 *
 * Nothing is reflected: an origin is one of the list, methods are those of
 * the path's rows, and headers are those that rows read.
 */

#include "ngx_http_stoa_conf.h"

#define NGX_HTTP_STOA_CORS_AGE 600   /* s */
#define NGX_HTTP_STOA_CORS_MAX 86400 /* s, beyond which no browser goes */

struct ngx_http_stoa_cors_s {
    ngx_array_t origins; /* of ngx_str_t */
    ngx_str_t   max_age; /* s, as text */
    ngx_uint_t  private_network;
};

/* Beside those that Fetch lets every page send. */
static const stoa_str_t ngx_http_stoa_cors_headers = stoa_string(
    "Authorization, Content-Type, Accept, Accept-Language, Idempotency-Key, "
    "If-Match, If-None-Match, X-Api-Key, X-CSRF-Token, X-Request-Id, "
    "X-Requested-With");

/* What a page may read beside what Fetch lets it. */
static const stoa_str_t ngx_http_stoa_cors_exposed = stoa_string(
    "Allow, Content-Disposition, ETag, Idempotent-Replayed, Link, Location, "
    "RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, "
    "X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, "
    "X-Request-Id");


/* ---- stoa_cors ---- */

/*
 * An origin as browsers write it: scheme and host in lower case, a port only
 * when it is not the scheme's own.  Anything else would never be met.
 */
static const char *
ngx_http_stoa_conf_origin(ngx_str_t *origin)
{
    u_char    *p = origin->data, *last = p + origin->len, *host;
    ngx_int_t  port;
    ngx_uint_t bracket;

    if (p == last || *p < 'a' || *p > 'z') {
        return "it must be like https://app.example";
    }

    while (p < last
           && ((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || *p == '+'
               || *p == '-' || *p == '.'))
    {
        p++;
    }

    if (last - p < 4 || ngx_strncmp(p, "://", 3) != 0) {
        return "it must be like https://app.example";
    }

    host = p += 3;
    bracket = *p == '[';

    while (p < last
           && ((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || *p == '-'
               || *p == '.' || *p == '_'
               || (bracket && (*p == '[' || *p == ':' || *p == ']'))))
    {
        p++;
    }

    if (p < last && *p >= 'A' && *p <= 'Z') {
        return "browsers send it in lower case";
    }

    if (p < last && *p == '*') {
        return "it must be exact, browsers send no \"*\"";
    }

    if (bracket) {
        while (p > host && p[-1] != ']') {
            p--;
        }
    }

    if (p == host || (p < last && *p != ':')) {
        return "it must be like https://app.example";
    }

    if (p == last) {
        return NULL;
    }

    p++;
    port = ngx_atoi(p, (size_t) (last - p));

    if (port < 1 || port > 65535 || *p == '0') {
        return "its port is not between 1 and 65535";
    }

    if ((port == 443 && ngx_strncmp(origin->data, "https://", 8) == 0)
        || (port == 80 && ngx_strncmp(origin->data, "http://", 7) == 0))
    {
        return "browsers leave out the scheme's own port";
    }

    return NULL;
}


static char *
ngx_http_stoa_cors_age(ngx_conf_t *cf, ngx_http_stoa_cors_t *cors,
                       ngx_str_t *word)
{
    ngx_str_t text;
    ngx_int_t age;

    text.data = word->data + sizeof("max_age=") - 1;
    text.len = word->len - (sizeof("max_age=") - 1);
    age = ngx_parse_time(&text, 1);

    if (cors->max_age.len != 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "duplicate parameter \"%V\"",
                           word);
        return NGX_CONF_ERROR;
    }

    if (text.len == 0 || age == NGX_ERROR || age > NGX_HTTP_STOA_CORS_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\", 0 to 1d is allowed", word);
        return NGX_CONF_ERROR;
    }

    cors->max_age.data = ngx_pnalloc(cf->pool, NGX_INT_T_LEN);
    if (cors->max_age.data == NULL) {
        return NGX_CONF_ERROR;
    }

    cors->max_age.len = (size_t) (ngx_sprintf(cors->max_age.data, "%i", age)
                                  - cors->max_age.data);

    return NGX_CONF_OK;
}


/* An origin of the list. */
static char *
ngx_http_stoa_cors_add(ngx_conf_t *cf, ngx_http_stoa_cors_t *cors,
                       ngx_str_t *word)
{
    const char *why = ngx_http_stoa_conf_origin(word);
    ngx_str_t  *origin = cors->origins.elts;
    ngx_uint_t  i;

    if (ngx_strcmp(word->data, "*") == 0) {
        return "takes exact origins, \"*\" would let every site use a "
               "visitor's token";
    }

    for (i = 0; i < cors->origins.nelts; i++) {
        if (ngx_strcmp(origin[i].data, word->data) == 0) {
            why = "it is there twice";
        }
    }

    if (why != NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid origin \"%V\", %s",
                           word, why);
        return NGX_CONF_ERROR;
    }

    origin = ngx_array_push(&cors->origins);
    if (origin == NULL) {
        return NGX_CONF_ERROR;
    }

    *origin = *word;

    return NGX_CONF_OK;
}


/* stoa_cors https://app.example ... [max_age=10m] [private_network] | off; */
char *
ngx_http_stoa_conf_cors(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_stoa_loc_conf_t *lcf = conf;
    ngx_http_stoa_cors_t     *cors;
    ngx_str_t                *value = cf->args->elts;
    ngx_uint_t                i;
    char                     *rv;

    if (lcf->cors != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        lcf->cors = NULL;
        return NGX_CONF_OK;
    }

    cors = ngx_pcalloc(cf->pool, sizeof(ngx_http_stoa_cors_t));

    if (cors == NULL
        || ngx_array_init(&cors->origins, cf->pool, 4, sizeof(ngx_str_t))
               != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_strcmp(value[i].data, "private_network") == 0) {
            cors->private_network = 1;
            continue;
        }

        rv = ngx_strncmp(value[i].data, "max_age=", 8) == 0
               ? ngx_http_stoa_cors_age(cf, cors, &value[i])
               : ngx_http_stoa_cors_add(cf, cors, &value[i]);

        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    if (cors->origins.nelts == 0) {
        return "names no origin";
    }

    if (cors->max_age.len == 0) {
        ngx_str_set(&cors->max_age, ngx_value(NGX_HTTP_STOA_CORS_AGE));
    }

    lcf->cors = cors;

    return NGX_CONF_OK;
}


/* ---- requests ---- */

/* NGX_OK: *origin is the request's Origin and this location allows it. */
ngx_int_t
ngx_http_stoa_cors_allowed(ngx_http_request_t *r, stoa_str_t *origin)
{
    ngx_http_stoa_loc_conf_t *lcf = ngx_http_stoa_lcf(r);
    ngx_str_t                *allowed;
    ngx_uint_t                i;

    if (lcf->cors == NULL || lcf->cors == NGX_CONF_UNSET_PTR) {
        return NGX_DECLINED;
    }

    *origin = ngx_http_stoa_header_in(r, "origin");

    if (origin->len == 0) {
        return NGX_DECLINED;
    }

    allowed = lcf->cors->origins.elts;

    for (i = 0; i < lcf->cors->origins.nelts; i++) {
        if (allowed[i].len == origin->len
            && ngx_memcmp(allowed[i].data, origin->data, origin->len) == 0)
        {
            return NGX_OK;
        }
    }

    return NGX_DECLINED;
}


ngx_uint_t
ngx_http_stoa_cors_asked(ngx_http_request_t *r)
{
    stoa_str_t origin;

    return r->method == NGX_HTTP_OPTIONS
        && ngx_http_stoa_header_in(r, "access-control-request-method").len != 0
        && ngx_http_stoa_cors_allowed(r, &origin) == NGX_OK;
}


/* What a preflight is told. */
static ngx_int_t
ngx_http_stoa_cors_preflight(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                             ngx_http_stoa_loc_conf_t *lcf)
{
    stoa_str_t methods, age, network;

    /* what is behind a gate says by itself what it does not know */
    methods = (stoa_str_t) stoa_string("GET, HEAD, POST, PUT, PATCH, DELETE");
    age.data = lcf->cors->max_age.data;
    age.len = lcf->cors->max_age.len;

    if ((lcf->api == 1 && ngx_http_stoa_methods(r, gate, &methods) != NGX_OK)
        || ngx_http_stoa_header(r, "Access-Control-Allow-Methods", methods)
               != NGX_OK
        || ngx_http_stoa_header(r, "Access-Control-Allow-Headers",
                                ngx_http_stoa_cors_headers)
               != NGX_OK
        || ngx_http_stoa_header(r, "Access-Control-Max-Age", age) != NGX_OK)
    {
        return NGX_ERROR;
    }

    network = ngx_http_stoa_header_in(r,
                                      "access-control-request-private-network");

    if (!lcf->cors->private_network || !stoa_str_eq_z(network, "true")) {
        return NGX_OK;
    }

    return ngx_http_stoa_header(r, "Access-Control-Allow-Private-Network",
                                (stoa_str_t) stoa_string("true"));
}


ngx_int_t
ngx_http_stoa_cors_filter(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                          ngx_http_stoa_loc_conf_t *lcf)
{
    stoa_str_t origin;

    if (lcf->cors == NULL || lcf->cors == NGX_CONF_UNSET_PTR) {
        return NGX_OK;
    }

    if (ngx_http_stoa_header(r, "Vary", (stoa_str_t) stoa_string("Origin"))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_http_stoa_cors_allowed(r, &origin) != NGX_OK) {
        return NGX_OK;
    }

    /* a backend that speaks of CORS itself is not contradicted: twice the
       header is none to a browser */

    if (lcf->api != 1
        && ngx_http_stoa_header_out(r, "Access-Control-Allow-Origin") != NULL)
    {
        return NGX_OK;
    }

    if (ngx_http_stoa_header(r, "Access-Control-Allow-Origin", origin)
        != NGX_OK) {
        return NGX_ERROR;
    }

    /* a page of the list may use the cookie; where rows are served only */

    if (lcf->api == 1 && ngx_http_stoa_cookie_on(r)
        && ngx_http_stoa_header(r, "Access-Control-Allow-Credentials",
                                (stoa_str_t) stoa_string("true"))
               != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (r->headers_out.status == NGX_HTTP_NO_CONTENT
        && ngx_http_stoa_cors_asked(r)
        && ngx_http_stoa_cors_preflight(r, gate, lcf) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_stoa_header(r, "Access-Control-Expose-Headers",
                                ngx_http_stoa_cors_exposed);
}
