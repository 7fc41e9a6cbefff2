/*
 * Identity for what stands behind a location: request headers that say who
 * was verified, and that no client can say.
 *
 * The list of request headers is made anew before the content phase.  What a
 * client sent under the name of one of the identity headers is left out, in
 * any spelling that a CGI-like backend would take for the same name ("_" for
 * "-", any case); so are the token and Stoa's cookies, which are no business
 * of the backend.  Then the verified values are added.  All this also where
 * nobody is signed in: an absent header says so.
 *
 * It happens in PRECONTENT: "satisfy any" ends the ACCESS phase early, and an
 * internal redirect leads to another location with other names.
 */

#include "ngx_http_stoa_conf.h"
#include "stoa_key.h"

typedef struct {
    const char *param;    /* of the directive */
    const char *variable; /* that has the value */
} ngx_http_stoa_fact_t;

typedef struct {
    ngx_str_t name;
    ngx_str_t lowcase;
    ngx_int_t variable; /* its index */
} ngx_http_stoa_claim_t;

struct ngx_http_stoa_identity_s {
    ngx_array_t claims; /* of ngx_http_stoa_claim_t */
    ngx_uint_t  bearer; /* the token goes along as "Authorization" */
};

static ngx_int_t ngx_http_stoa_identity_pass(
    ngx_http_request_t *r, const ngx_http_stoa_identity_t *identity,
    ngx_list_t *list);
static ngx_int_t ngx_http_stoa_identity_say(
    ngx_http_request_t *r, const ngx_http_stoa_identity_t *identity,
    ngx_list_t *list);
static ngx_int_t  ngx_http_stoa_identity_add(ngx_list_t *list, ngx_str_t name,
                                             ngx_str_t low, ngx_str_t value);
static ngx_int_t  ngx_http_stoa_identity_cookie(ngx_http_request_t    *r,
                                                const ngx_table_elt_t *h,
                                                ngx_str_t             *value);
static ngx_uint_t ngx_http_stoa_identity_same(const u_char    *lowcase,
                                              const ngx_str_t *key,
                                              const ngx_str_t *name);
static ngx_uint_t ngx_http_stoa_identity_named(
    const ngx_http_stoa_identity_t *identity, const ngx_table_elt_t *h);

static const ngx_http_stoa_fact_t ngx_http_stoa_facts[] = {
    { "user", "stoa_user" },        { "roles", "stoa_role" },
    { "session", "stoa_session" },  { "request_id", "stoa_request_id" },
    { "prefix", "stoa_ip_prefix" },
};

#define NGX_HTTP_STOA_NFACTS                                                   \
    (sizeof(ngx_http_stoa_facts) / sizeof(ngx_http_stoa_facts[0]))

/* Names whose meaning nginx or HTTP itself has given away. */
static const char *const ngx_http_stoa_taken[] = {
    "authorization",  "connection",
    "content-length", "cookie",
    "expect",         "host",
    "keep-alive",     "te",
    "trailer",        "transfer-encoding",
    "upgrade",        "content-type",
    "x-forwarded-for"
};

#define NGX_HTTP_STOA_NTAKEN                                                   \
    (sizeof(ngx_http_stoa_taken) / sizeof(ngx_http_stoa_taken[0]))

static const ngx_str_t ngx_http_stoa_bearer = ngx_string("Authorization");
static const ngx_str_t ngx_http_stoa_bearer_low = ngx_string("authorization");

/* PRECONTENT, of subrequests too: each has a list of its own. */
ngx_int_t
ngx_http_stoa_identity(ngx_http_request_t *r)
{
    ngx_list_t                list;
    ngx_http_stoa_gate_t     *gate;
    ngx_http_stoa_identity_t *identity;

    gate = ngx_http_stoa_gate(r, 0);

    if (gate != NULL && r->main->err_status == 0) {
        /* "satisfy any": what a gate said was overruled, it is not why
           something fails later */
        gate->refused = STOA_OK;
        gate->login.len = 0;
    }

    identity = ngx_http_stoa_lcf(r)->identity;

    if (identity == NULL) {
        return NGX_DECLINED;
    }

    if (ngx_list_init(&list, r->pool, 20, sizeof(ngx_table_elt_t)) != NGX_OK
        || ngx_http_stoa_identity_pass(r, identity, &list) != NGX_OK
        || ngx_http_stoa_identity_say(r, identity, &list) != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    /* a list that ends in its first part ends in itself */
    r->headers_in.headers = list;

    if (list.last == &list.part) {
        r->headers_in.headers.last = &r->headers_in.headers.part;
    }

    return NGX_DECLINED;
}

/* What of the client's own goes on. */
static ngx_int_t
ngx_http_stoa_identity_pass(ngx_http_request_t             *r,
                            const ngx_http_stoa_identity_t *identity,
                            ngx_list_t                     *list)
{
    ngx_str_t        value;
    ngx_uint_t       i;
    ngx_list_part_t *part;
    ngx_table_elt_t *h, *copy;

    part = &r->headers_in.headers.part;

    for (/* void */; part != NULL; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (ngx_http_stoa_identity_named(identity, &h[i])) {
                continue;
            }

            value = h[i].value;

            if (h[i].key.len == 6
                && ngx_memcmp(h[i].lowcase_key, "cookie", 6) == 0) {
                if (ngx_http_stoa_identity_cookie(r, &h[i], &value) != NGX_OK) {
                    return NGX_ERROR;
                }

                if (value.len == 0) {
                    continue;
                }
            }

            copy = ngx_list_push(list);
            if (copy == NULL) {
                return NGX_ERROR;
            }

            *copy = h[i];
            copy->value = value;
        }
    }

    return NGX_OK;
}

/* What was verified. */
static ngx_int_t
ngx_http_stoa_identity_say(ngx_http_request_t             *r,
                           const ngx_http_stoa_identity_t *identity,
                           ngx_list_t                     *list)
{
    u_char                      *p;
    ngx_str_t                    value;
    ngx_uint_t                   i;
    ngx_http_stoa_gate_t        *gate;
    ngx_http_variable_value_t   *v;
    const ngx_http_stoa_claim_t *claim = identity->claims.elts;

    for (i = 0; i < identity->claims.nelts; i++) {
        v = ngx_http_get_flushed_variable(r, (ngx_uint_t) claim[i].variable);

        if (v == NULL || v->not_found || v->len == 0) {
            continue;
        }

        value.data = v->data;
        value.len = v->len;

        if (ngx_http_stoa_identity_add(list, claim[i].name, claim[i].lowcase,
                                       value)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    gate = ngx_http_stoa_gate(r, 0);

    if (!identity->bearer || gate == NULL || !gate->authenticated
        || gate->by_key) {
        return NGX_OK;
    }

    value.len = sizeof("Bearer ") - 1 + gate->token.len;
    value.data = ngx_pnalloc(r->pool, value.len);

    if (value.data == NULL) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(value.data, "Bearer ", sizeof("Bearer ") - 1);
    ngx_memcpy(p, gate->token.data, gate->token.len);

    return ngx_http_stoa_identity_add(list, ngx_http_stoa_bearer,
                                      ngx_http_stoa_bearer_low, value);
}

static ngx_int_t
ngx_http_stoa_identity_add(ngx_list_t *list, ngx_str_t name, ngx_str_t low,
                           ngx_str_t value)
{
    ngx_table_elt_t *h;

    h = ngx_list_push(list);
    if (h == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(h, sizeof(ngx_table_elt_t));
    h->key = name;
    h->lowcase_key = low.data;
    h->hash = ngx_hash_key(low.data, low.len);
    h->value = value;

    return NGX_OK;
}

/* The header without the crumbs that are Stoa's. */
static ngx_int_t
ngx_http_stoa_identity_cookie(ngx_http_request_t *r, const ngx_table_elt_t *h,
                              ngx_str_t *value)
{
    u_char *p, *last, *end, *out;

    if (ngx_strlcasestrn(h->value.data, h->value.data + h->value.len,
                         (u_char *) "__Host-stoa_", sizeof("__Host-stoa_") - 2)
        == NULL)
    {
        return NGX_OK;
    }

    out = ngx_pnalloc(r->pool, h->value.len);
    if (out == NULL) {
        return NGX_ERROR;
    }

    value->data = out;
    p = h->value.data;
    last = p + h->value.len;

    for (/* void */; p < last; p = end + 1) {

        while (p < last && (*p == ' ' || *p == '\t')) {
            p++;
        }

        end = ngx_strlchr(p, last, ';');
        end = end == NULL ? last : end;

        if (end == p
            || ((size_t) (end - p) >= sizeof("__Host-stoa_") - 1
                && ngx_strncasecmp(p, (u_char *) "__Host-stoa_",
                                   sizeof("__Host-stoa_") - 1)
                       == 0))
        {
            continue;
        }

        if (out != value->data) {
            *out++ = ';';
            *out++ = ' ';
        }

        out = ngx_cpymem(out, p, (size_t) (end - p));
    }

    value->len = (size_t) (out - value->data);

    return NGX_OK;
}

static ngx_uint_t
ngx_http_stoa_identity_named(const ngx_http_stoa_identity_t *identity,
                             const ngx_table_elt_t          *h)
{
    ngx_uint_t                   i;
    const ngx_http_stoa_claim_t *claim = identity->claims.elts;

    if (ngx_http_stoa_identity_same(h->lowcase_key, &h->key,
                                    &ngx_http_stoa_bearer_low)
        || stoa_key_is((stoa_str_t){ h->value.len, h->value.data }))
    {
        return 1;
    }

    for (i = 0; i < identity->claims.nelts; i++) {
        if (ngx_http_stoa_identity_same(h->lowcase_key, &h->key,
                                        &claim[i].lowcase)) {
            return 1;
        }
    }

    return 0;
}

/* name is in lower case; what is no letter and no digit is one character to
   the environment of a CGI program. */
static ngx_uint_t
ngx_http_stoa_identity_same(const u_char *lowcase, const ngx_str_t *key,
                            const ngx_str_t *name)
{
    size_t i;

    if (key->len != name->len) {
        return 0;
    }

    for (i = 0; i < key->len; i++) {

        if (lowcase[i] == name->data[i]) {
            continue;
        }

        if (name->data[i] != '-' || (lowcase[i] >= 'a' && lowcase[i] <= 'z')
            || (lowcase[i] >= '0' && lowcase[i] <= '9'))
        {
            return 0;
        }
    }

    return 1;
}

/* ---- stoa_identity user=X-User ... [token=bearer] | off; ---- */

static const char *
ngx_http_stoa_identity_header(const ngx_str_t *name)
{
    size_t     i;
    ngx_uint_t k;

    if (name->len == 0) {
        return "it needs the name of a header";
    }

    for (i = 0; i < name->len; i++) {
        if (!((name->data[i] >= 'a' && name->data[i] <= 'z')
              || (name->data[i] >= 'A' && name->data[i] <= 'Z')
              || (name->data[i] >= '0' && name->data[i] <= '9')
              || name->data[i] == '-'))
        {
            return "a header's name has letters, digits and \"-\"";
        }
    }

    for (k = 0; k < NGX_HTTP_STOA_NTAKEN; k++) {
        if (name->len == ngx_strlen(ngx_http_stoa_taken[k])
            && ngx_strncasecmp(name->data, (u_char *) ngx_http_stoa_taken[k],
                               name->len)
                   == 0)
        {
            return "this header has a meaning of its own";
        }
    }

    return NULL;
}

static char *
ngx_http_stoa_identity_param(ngx_conf_t *cf, ngx_http_stoa_identity_t *identity,
                             ngx_str_t *word)
{
    ngx_uint_t             i, k;
    ngx_str_t              name, variable;
    const char            *names[NGX_HTTP_STOA_NFACTS + 1], *why;
    ngx_http_stoa_claim_t *claim, *c;

    for (i = 0; i < NGX_HTTP_STOA_NFACTS; i++) {
        names[i] = ngx_http_stoa_facts[i].param;
        name.len = ngx_strlen(names[i]);

        if (word->len > name.len && word->data[name.len] == '='
            && ngx_strncmp(word->data, names[i], name.len) == 0)
        {
            break;
        }
    }

    if (i == NGX_HTTP_STOA_NFACTS) {
        names[i] = "token";
        return ngx_http_stoa_conf_unknown(cf, "parameter", word, names,
                                          NGX_HTTP_STOA_NFACTS + 1);
    }

    name.data = word->data + name.len + 1;
    name.len = word->len - name.len - 1;
    why = ngx_http_stoa_identity_header(&name);

    claim = identity->claims.elts;

    for (k = 0; why == NULL && k < identity->claims.nelts; k++) {
        if (claim[k].name.len == name.len
            && ngx_strncasecmp(claim[k].name.data, name.data, name.len) == 0)
        {
            why = "the header is named twice";
        }
    }

    if (why != NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid parameter \"%V\", %s",
                           word, why);
        return NGX_CONF_ERROR;
    }

    c = ngx_array_push(&identity->claims);
    if (c == NULL) {
        return NGX_CONF_ERROR;
    }

    c->name = name;
    c->lowcase.len = name.len;
    c->lowcase.data = ngx_pnalloc(cf->pool, name.len);
    if (c->lowcase.data == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_strlow(c->lowcase.data, name.data, name.len);

    variable.data = (u_char *) (uintptr_t) ngx_http_stoa_facts[i].variable;
    variable.len = ngx_strlen(variable.data);
    c->variable = ngx_http_get_variable_index(cf, &variable);

    return c->variable == NGX_ERROR ? NGX_CONF_ERROR : NGX_CONF_OK;
}

char *
ngx_http_stoa_conf_identity(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_uint_t                i, tokens = 0;
    ngx_str_t                *value = cf->args->elts;
    ngx_http_stoa_identity_t *identity;
    ngx_http_stoa_loc_conf_t *lcf = conf;

    if (lcf->identity != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        lcf->identity = NULL;
        return NGX_CONF_OK;
    }

    identity = ngx_pcalloc(cf->pool, sizeof(ngx_http_stoa_identity_t));

    if (identity == NULL
        || ngx_array_init(&identity->claims, cf->pool, 4,
                          sizeof(ngx_http_stoa_claim_t))
               != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_strcmp(value[i].data, "token=bearer") == 0) {
            identity->bearer = 1;

            if (tokens++ != 0) {
                return "has \"token\" twice";
            }

            continue;
        }

        if (ngx_strncmp(value[i].data, "token=", 6) == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\", it can only be "
                               "token=bearer",
                               &value[i]);
            return NGX_CONF_ERROR;
        }

        if (ngx_http_stoa_identity_param(cf, identity, &value[i])
            != NGX_CONF_OK) {
            return NGX_CONF_ERROR;
        }
    }

    lcf->identity = identity;
    ngx_http_stoa_conf_use(cf, cmd);

    return NGX_CONF_OK;
}
