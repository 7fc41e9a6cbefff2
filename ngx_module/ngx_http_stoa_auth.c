/*
 * Tokens: verification with a cache per process.
 *
 * A token that verified once is remembered with its claims; a hit costs one
 * keyed hash and one comparison of all its bytes instead of a MAC and a JSON
 * parse.  Expiry and revocations are looked up on every hit, so the cache
 * never makes a token live longer.  Only valid tokens are kept: garbage
 * cannot push them out.  Nor can tokens that come once: where one has to go,
 * the one used longer ago of two slots, the new one must have been seen
 * before.  The key of the hash is random per process, so nobody can aim at a
 * slot.
 */

#include "ngx_http_stoa_zone.h"

#define NGX_HTTP_STOA_TOKENS    4096 /* places, a power of two */
#define NGX_HTTP_STOA_TOKEN_MAX 1024 /* longer tokens are verified each time */

#define NGX_HTTP_STOA_TOKEN_TAIL 32 /* characters that are hashed */

typedef struct {
    uint64_t hash;
    uint32_t len; /* 0: free */
    uint32_t used;
} ngx_http_stoa_slot_t;

typedef struct {
    stoa_claims_t claims;
    u_char        token[NGX_HTTP_STOA_TOKEN_MAX];
} ngx_http_stoa_token_t;

/* Zeroed pages: memory is used by the tokens that were seen.  The slots of a
   hash are in one cache line. */
static ngx_http_stoa_slot_t  ngx_http_stoa_slots[NGX_HTTP_STOA_TOKENS];
static ngx_http_stoa_token_t ngx_http_stoa_tokens[NGX_HTTP_STOA_TOKENS];
static uint32_t              ngx_http_stoa_seen[NGX_HTTP_STOA_TOKENS];
static u_char                ngx_http_stoa_token_key[16];
static uint32_t              ngx_http_stoa_token_clock;


ngx_int_t
ngx_http_stoa_auth_init_process(ngx_cycle_t *cycle)
{
    if (!stoa_random(ngx_http_stoa_token_key, 16)) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, ngx_errno,
                      "the kernel gives no random bytes");
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_http_stoa_slot_of(uint64_t hash)
{
    return (hash & (NGX_HTTP_STOA_TOKENS / 2 - 1)) * 2;
}


/* Its slot, or NGX_HTTP_STOA_TOKENS. */
static ngx_uint_t
ngx_http_stoa_token_find(stoa_str_t token, uint64_t hash)
{
    ngx_uint_t i, first;

    first = ngx_http_stoa_slot_of(hash);

    for (i = first; i < first + 2; i++) {
        if (ngx_http_stoa_slots[i].hash == hash
            && ngx_http_stoa_slots[i].len == token.len
            /* lint: allow secret, because its keyed hash is equal */
            && ngx_memcmp(ngx_http_stoa_tokens[i].token, token.data, token.len)
                   == 0)
        {
            return i;
        }
    }

    return NGX_HTTP_STOA_TOKENS;
}


static void
ngx_http_stoa_token_keep(stoa_str_t token, uint64_t hash,
                         const stoa_claims_t *claims)
{
    uint32_t             *seen;
    ngx_uint_t            i;
    ngx_http_stoa_slot_t *p;

    i = ngx_http_stoa_slot_of(hash);
    p = &ngx_http_stoa_slots[i];

    if (p[0].len != 0
        && (p[1].len == 0 || (int32_t) (p[1].used - p[0].used) < 0)) {
        i++;
    }

    p = &ngx_http_stoa_slots[i];

    if (p->len != 0) {
        seen = &ngx_http_stoa_seen[hash >> 32 & (NGX_HTTP_STOA_TOKENS - 1)];

        if (*seen != (uint32_t) hash) {
            *seen = (uint32_t) hash;
            return;
        }
    }

    p->hash = hash;
    p->len = (uint32_t) token.len;
    p->used = ++ngx_http_stoa_token_clock;
    ngx_http_stoa_tokens[i].claims = *claims;
    ngx_memcpy(ngx_http_stoa_tokens[i].token, token.data, token.len);
}


stoa_err_e
ngx_http_stoa_auth_verify(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                          stoa_str_t token)
{
    ngx_http_stoa_main_conf_t *mcf = ngx_http_stoa_process.mcf;
    ngx_uint_t                 i = NGX_HTTP_STOA_TOKENS;
    const char                *why = "revoked";
    stoa_err_e                 err;
    ngx_uint_t                 cached;
    size_t                     tail;
    uint64_t                   hash[2];
    int64_t                    now;

    now = stoa_time_ms();
    hash[0] = 0;
    cached = token.len != 0 && token.len <= NGX_HTTP_STOA_TOKEN_MAX;

    if (cached) {
        /* its end is the signature: what was verified differs there, and
           only what was verified is kept */
        tail = ngx_min(token.len, NGX_HTTP_STOA_TOKEN_TAIL);
        ngx_http_stoa_siphash(ngx_http_stoa_token_key,
                              token.data + token.len - tail, tail, hash);
        i = ngx_http_stoa_token_find(token, hash[0]);
    }

    if (i != NGX_HTTP_STOA_TOKENS) {
        ngx_http_stoa_slots[i].used = ++ngx_http_stoa_token_clock;

        if (now / 1000 >= ngx_http_stoa_tokens[i].claims.exp
                              + (int64_t) mcf->rules.leeway_s)
        {
            ngx_http_stoa_slots[i].len = 0;
            err = STOA_E_TOKEN_EXPIRED;
            why = "expired";
            goto refused;
        }

        gate->claims = ngx_http_stoa_tokens[i].claims;
        ngx_http_stoa_metric_add(STOA_M_auth_cache_hits, 1);

    } else {
        err = stoa_jwt_verify(mcf->keys, &mcf->rules, token, now, &gate->claims,
                              &why);

        if (err != STOA_OK
            && ngx_http_stoa_foreign_verify(r, gate, token, &err, &why)
                   == NGX_OK)
        {
            gate->authenticated = !gate->parked && err == STOA_OK;
            cached = 0;

            if (gate->parked || gate->authenticated) {
                return STOA_OK;
            }
        }

        if (err != STOA_OK) {
            goto refused;
        }

        if (cached) {
            ngx_http_stoa_token_keep(token, hash[0], &gate->claims);
        }
    }

    err = ngx_http_stoa_revoke_check(&gate->claims);

    if (err == STOA_OK) {
        if (now / 1000 >= gate->claims.exp) {
            ngx_http_stoa_metric_add(STOA_M_auth_leeway, 1);
        }

        gate->authenticated = 1;
        return STOA_OK;
    }

    if (err == STOA_E_STARTING) {
        return err;
    }

    why = "revoked";

refused:

    ngx_http_stoa_metric_add(STOA_M_auth_failures, 1);
    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                  "stoa: token was refused: %s", why);

    return err;
}
