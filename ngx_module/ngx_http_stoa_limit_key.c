/*
 * What limits count by: one row for each part of a key.
 *
 * A key is alternatives ("user|addr": the first that is known of a request)
 * of parts ("user+route": all of them).  Who is verified has a user; nobody
 * else does, so no client can count on another's key.  A limit whose key is
 * not known of a request does not count it.
 *
 * Keys are hashed with a secret that all nodes derive from JWT_SECRET: no
 * address lies in the table or in Redis, and nobody can aim at a place.
 */

#include "ngx_http_stoa_limit.h"

#define NGX_HTTP_STOA_KEY_MAX 255 /* bytes of a part that count */

static stoa_str_t ngx_http_stoa_key_addr(ngx_http_request_t   *r,
                                         ngx_http_stoa_gate_t *gate);
static stoa_str_t ngx_http_stoa_key_api(ngx_http_request_t   *r,
                                        ngx_http_stoa_gate_t *gate);
static stoa_str_t ngx_http_stoa_key_route(ngx_http_request_t   *r,
                                          ngx_http_stoa_gate_t *gate);
static stoa_str_t ngx_http_stoa_key_session(ngx_http_request_t   *r,
                                            ngx_http_stoa_gate_t *gate);
static stoa_str_t ngx_http_stoa_key_user(ngx_http_request_t   *r,
                                         ngx_http_stoa_gate_t *gate);

/* Keys are hashed by the names: rows may come and go. */
static const ngx_http_stoa_key_t ngx_http_stoa_keys[] = {
    {
        .name = "addr", /* IPv4 address or IPv6 /64 */
        .shared = 1,
        .get = ngx_http_stoa_key_addr,
    },
    {
        .name = "key", /* of the API, by its id */
        .verified = 1,
        .get = ngx_http_stoa_key_api,
    },
    {
        .name = "route", /* a row, or the location in front of others */
        .shared = 1,
        .get = ngx_http_stoa_key_route,
    },
    {
        .name = "session",
        .verified = 1,
        .get = ngx_http_stoa_key_session,
    },
    {
        .name = "user",
        .verified = 1,
        .get = ngx_http_stoa_key_user,
    },
};

#define NGX_HTTP_STOA_NKEYS                                                    \
    (sizeof(ngx_http_stoa_keys) / sizeof(ngx_http_stoa_keys[0]))


static stoa_str_t
ngx_http_stoa_key_addr(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate)
{
    stoa_str_t s = { gate->addr_prefix_len, gate->addr_prefix };

    return s;
}


static stoa_str_t
ngx_http_stoa_key_api(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate)
{
    stoa_str_t s = stoa_null_string;

    if (gate->by_key) {
        s.data = gate->claims.sid.b;
        s.len = sizeof(gate->claims.sid.b);
    }

    return s;
}


static stoa_str_t
ngx_http_stoa_key_route(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate)
{
    ngx_http_core_loc_conf_t *clcf;
    stoa_str_t                s;

    if (gate->ep != NULL) {
        return stoa_str_z(gate->ep->id);
    }

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);
    s.data = clcf->name.data;
    s.len = clcf->name.len;

    return s;
}


static stoa_str_t
ngx_http_stoa_key_session(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate)
{
    stoa_str_t         s = stoa_null_string;
    const stoa_uuid_t *id = gate->refresh;

    if (id == NULL && gate->authenticated) {
        id = &gate->claims.sid;
    }

    if (id != NULL) {
        s.data = (u_char *) (uintptr_t) id->b;
        s.len = sizeof(id->b);
    }

    return s;
}


static stoa_str_t
ngx_http_stoa_key_user(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate)
{
    stoa_str_t s = stoa_null_string;

    if (gate->authenticated) {
        s.data = gate->claims.sub.b;
        s.len = sizeof(gate->claims.sub.b);
    }

    return s;
}


/* ---- of a request ---- */

/* One alternative into the text to be hashed; 0: some part is not known. */
static size_t
ngx_http_stoa_key_text(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                       const ngx_http_stoa_key_t *const *part, u_char *text)
{
    u_char    *p = text;
    stoa_str_t s;

    for (/* void */; *part != NULL; part++) {
        s = (*part)->get(r, gate);

        if (s.len == 0) {
            return 0;
        }

        /* names and lengths keep the parts apart */
        p = ngx_cpymem(p, (*part)->name, ngx_strlen((*part)->name) + 1);
        s.len = ngx_min(s.len, NGX_HTTP_STOA_KEY_MAX);
        *p++ = (u_char) s.len;
        p = ngx_cpymem(p, s.data, s.len);
    }

    return (size_t) (p - text);
}


ngx_int_t
ngx_http_stoa_key_hash(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                       const ngx_http_stoa_limit_t *limit, uint64_t hash[2])
{
    STOA_UNINIT u_char
               text[sizeof(limit->tag)
             + NGX_HTTP_STOA_KEY_PARTS * (NGX_HTTP_STOA_KEY_MAX + 16)];
    ngx_uint_t i;
    size_t     len;

    ngx_memcpy(text, limit->tag, sizeof(limit->tag));

    for (i = 0; i < limit->nkeys; i++) {
        len = ngx_http_stoa_key_text(r, gate, limit->key[i],
                                     &text[sizeof(limit->tag)]);
        if (len != 0) {
            ngx_http_stoa_siphash(ngx_http_stoa_process.mcf->limit_key, text,
                                  sizeof(limit->tag) + len, hash);
            return NGX_OK;
        }
    }

    return NGX_DECLINED;
}


/* ---- configuration ---- */

static const ngx_http_stoa_key_t *
ngx_http_stoa_key_named(const u_char *name, size_t len)
{
    ngx_uint_t i;

    for (i = 0; i < NGX_HTTP_STOA_NKEYS; i++) {
        if (ngx_strlen(ngx_http_stoa_keys[i].name) == len
            && ngx_strncmp(ngx_http_stoa_keys[i].name, name, len) == 0)
        {
            return &ngx_http_stoa_keys[i];
        }
    }

    return NULL;
}


static char *
ngx_http_stoa_key_unknown(ngx_conf_t *cf, u_char *name, size_t len)
{
    const char *names[NGX_HTTP_STOA_NKEYS];
    ngx_str_t   word;
    ngx_uint_t  i;

    for (i = 0; i < NGX_HTTP_STOA_NKEYS; i++) {
        names[i] = ngx_http_stoa_keys[i].name;
    }

    word.data = name;
    word.len = len;

    return ngx_http_stoa_conf_unknown(cf, "key", &word, names,
                                      NGX_HTTP_STOA_NKEYS);
}


/* An alternative needs the token if a part does, and is many clients' if all
   parts are; a limit needs it if any does, and is so if any is. */
static void
ngx_http_stoa_key_sum(ngx_http_stoa_limit_t *limit)
{
    ngx_uint_t i, k, shared;

    for (i = 0; i < limit->nkeys; i++) {
        shared = 1;

        for (k = 0; limit->key[i][k] != NULL; k++) {
            limit->verified |= limit->key[i][k]->verified;
            shared &= limit->key[i][k]->shared;
        }

        limit->shared |= shared;
    }
}


char *
ngx_http_stoa_key_parse(ngx_conf_t *cf, ngx_str_t *text,
                        ngx_http_stoa_limit_t *limit)
{
    const ngx_http_stoa_key_t *key;
    u_char                    *p = text->data, *last = p + text->len, *end;
    ngx_uint_t                 n = 0, i;

    for (/* void */; p <= last; p = end + 1) {

        for (end = p; end < last && *end != '+' && *end != '|'; end++) {
            /* void */
        }

        key = ngx_http_stoa_key_named(p, (size_t) (end - p));

        if (key == NULL) {
            return ngx_http_stoa_key_unknown(cf, p, (size_t) (end - p));
        }

        for (i = 0; i < n; i++) {
            if (limit->key[limit->nkeys][i] == key) {
                return "names a part of its key twice";
            }
        }

        if (n == NGX_HTTP_STOA_KEY_PARTS || limit->nkeys == NGX_HTTP_STOA_KEYS)
        {
            return "has a key of too many parts";
        }

        limit->key[limit->nkeys][n++] = key;

        if (end == last || *end == '|') {
            limit->key[limit->nkeys][n] = NULL;
            limit->nkeys++;
            n = 0;
        }
    }

    limit->key_text = *text;
    ngx_http_stoa_key_sum(limit);

    return NGX_CONF_OK;
}


void
ngx_http_stoa_key_one(ngx_http_stoa_limit_t *limit, const char *name)
{
    limit->key[0][0] = ngx_http_stoa_key_named((const u_char *) name,
                                               ngx_strlen(name));
    limit->key[0][1] = NULL;
    limit->nkeys = 1;
    limit->key_text.data = (u_char *) (uintptr_t) name;
    limit->key_text.len = ngx_strlen(name);
    limit->verified = 0;
    limit->shared = 0;
    ngx_http_stoa_key_sum(limit);
}
