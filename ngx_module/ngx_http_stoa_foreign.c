/*
 * Access tokens of other issuers: verified with the keys of the issuer that
 * they name and with no other's, and taken for the account that (issuer,
 * subject) is linked to.
 *
 * Both may have to be waited for: keys that are not there yet, or a kid that
 * they do not have, and then one statement.  The request rests in PREACCESS
 * meanwhile.  What was found is remembered for a minute by the token's
 * SHA-256, with the roles and the epoch of the account, so that revocations
 * count at once, as for our own tokens.  sid is the identity's id: whoever
 * unlinks it revokes that.
 */

#include "ngx_http_stoa_zone.h"

#define NGX_HTTP_STOA_FOREIGNS   2048 /* places, a power of two */
#define NGX_HTTP_STOA_FOREIGN_MS 60000

typedef struct {
    u_char        digest[STOA_SHA256_LEN];
    int64_t       until_ms; /* 0: free */
    stoa_claims_t claims;
} ngx_http_stoa_foreign_place_t;

/* In the request's pool. */
typedef struct {
    ngx_http_request_t       *r; /* NULL: it has ended */
    ngx_http_stoa_gate_t     *gate;
    stoa_mem_t                mem;
    stoa_str_t                token;
    const stoa_oidc_issuer_t *conf;
    stoa_issuer_t            *issuer;
    stoa_issuer_wait_t        wait;
    stoa_pg_op_t             *op;
    stoa_oidc_token_t         said;
    const char               *values[2];
    int                       lens[2];
    u_char                    digest[STOA_SHA256_LEN];
    ngx_uint_t                asked; /* once is enough */
    const char               *why;
} ngx_http_stoa_foreign_t;

static void ngx_http_stoa_foreign_came(stoa_issuer_wait_t *w);
static void ngx_http_stoa_foreign_found(stoa_pg_op_t *op, stoa_err_e err,
                                        void *data);

/* Zeroed pages: memory is used by the tokens that were seen. */
static ngx_http_stoa_foreign_place_t
    ngx_http_stoa_foreigns[NGX_HTTP_STOA_FOREIGNS];


/* ---- what was seen ---- */

/* The digest of a token that somebody chose says nothing about its place to
   anybody who did not hash it, and who did pushes out one entry. */
static ngx_http_stoa_foreign_place_t *
ngx_http_stoa_foreign_place(const u_char digest[STOA_SHA256_LEN])
{
    uint32_t n;

    ngx_memcpy(&n, digest, sizeof(n));

    return &ngx_http_stoa_foreigns[n & (NGX_HTTP_STOA_FOREIGNS - 1)];
}


/* STOA_OK: it was seen a moment ago and counts still. */
static stoa_err_e
ngx_http_stoa_foreign_seen(ngx_http_stoa_gate_t *gate,
                           const u_char          digest[STOA_SHA256_LEN])
{
    ngx_http_stoa_main_conf_t     *mcf = ngx_http_stoa_process.mcf;
    ngx_http_stoa_foreign_place_t *e = ngx_http_stoa_foreign_place(digest);
    int64_t                        now = stoa_time_ms();

    /* lint: allow secret, because these are digests of what came */
    if (e->until_ms == 0 || ngx_memcmp(e->digest, digest, STOA_SHA256_LEN) != 0)
    {
        return STOA_E_UNAUTHENTICATED;
    }

    /* an epoch that was raised may have been so before this token was made:
       the account is asked anew */

    if (now >= e->until_ms
        || now / 1000 >= e->claims.exp + (int64_t) mcf->rules.leeway_s
        || ngx_http_stoa_revoke_check(&e->claims) != STOA_OK)
    {
        e->until_ms = 0;
        return STOA_E_UNAUTHENTICATED;
    }

    gate->claims = e->claims;
    ngx_http_stoa_metric_add(STOA_M_auth_cache_hits, 1);

    return STOA_OK;
}


static void
ngx_http_stoa_foreign_keep(ngx_http_stoa_foreign_t *f)
{
    ngx_http_stoa_foreign_place_t *e = ngx_http_stoa_foreign_place(f->digest);

    ngx_memcpy(e->digest, f->digest, STOA_SHA256_LEN);
    e->claims = f->gate->claims;
    e->until_ms = stoa_time_ms() + NGX_HTTP_STOA_FOREIGN_MS;
}


/* ---- a request that rests ---- */

static void
ngx_http_stoa_foreign_cleanup(void *data)
{
    ngx_http_stoa_foreign_t *f = data;

    f->r = NULL;
    stoa_issuer_leave(&f->wait);

    if (f->op != NULL) {
        stoa_pg_cancel(f->op);
        f->op = NULL;
    }
}


static void
ngx_http_stoa_foreign_resume(ngx_http_stoa_foreign_t *f, stoa_err_e err)
{
    ngx_http_request_t *r = f->r;

    f->gate->auth = err;

    if (err != STOA_OK) {
        ngx_http_stoa_metric_add(STOA_M_auth_failures, 1);
        ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                      "stoa: token was refused: %s", f->why);
    }

    ngx_http_stoa_gate_resume(r, f->gate);
}


/* Whose it is; NGX_AGAIN, or NGX_ERROR with *err. */
static ngx_int_t
ngx_http_stoa_foreign_look(ngx_http_stoa_foreign_t *f, stoa_err_e *err)
{
    ngx_http_stoa_main_conf_t *mcf = ngx_http_stoa_process.mcf;

    f->values[0] = f->conf->issuer;
    f->values[1] = stoa_strdup_z(&f->mem, f->said.sub);
    f->lens[0] = (int) ngx_strlen(f->conf->issuer);
    f->lens[1] = (int) f->said.sub.len;
    f->why = "its account cannot be looked up";

    if (f->values[1] == NULL) {
        *err = STOA_E_NO_MEMORY;
        return NGX_ERROR;
    }

    f->op = stoa_pg_submit(ngx_http_stoa_process.pool[STOA_POOL_FAST],
                           &mcf->stmts[STOA_STMT_FOREIGN], f->values, f->lens,
                           0, ngx_http_stoa_foreign_found, f, err);

    return f->op != NULL ? NGX_AGAIN : NGX_ERROR;
}


/* As far as it goes without waiting; NGX_AGAIN, or NGX_ERROR with *err. */
static ngx_int_t
ngx_http_stoa_foreign_go(ngx_http_stoa_foreign_t *f, stoa_err_e *err)
{
    ngx_http_stoa_main_conf_t *mcf = ngx_http_stoa_process.mcf;
    stoa_jwt_keys_t           *keys;
    stoa_oidc_rules_t          rules;

    rules.issuer = f->conf->issuer;
    rules.audiences = &f->conf->audience;
    rules.naudiences = 1;
    rules.leeway_s = mcf->rules.leeway_s;

    keys = stoa_issuer_keys(f->issuer);
    *err = STOA_E_ISSUER_UNAVAILABLE;
    f->why = "its issuer's keys are not there";

    if (keys != NULL) {
        *err = stoa_oidc_access(keys, &rules, &f->mem, f->token, stoa_time_ms(),
                                &f->said, &f->why);
    }

    if (*err == STOA_OK) {
        return ngx_http_stoa_foreign_look(f, err);
    }

    if ((keys == NULL || f->why == stoa_jwt_no_kid) && !f->asked) {
        f->asked = 1;

        if (stoa_issuer_ask(f->issuer, &f->wait)) {
            return NGX_AGAIN;
        }
    }

    return NGX_ERROR;
}


/* The issuer's keys are there, or will not be. */
static void
ngx_http_stoa_foreign_came(stoa_issuer_wait_t *w)
{
    ngx_http_stoa_foreign_t *f = w->data;
    stoa_err_e               err;

    if (ngx_http_stoa_foreign_go(f, &err) != NGX_AGAIN) {
        ngx_http_stoa_foreign_resume(f, err);
    }
}


static stoa_err_e
ngx_http_stoa_foreign_take(ngx_http_stoa_foreign_t *f, stoa_pg_result_t *res)
{
    stoa_claims_t *claims = &f->gate->claims;
    stoa_str_t     code;
    int64_t        epoch, since;

    f->why = "its account's row is not as expected";

    if (stoa_pg_rows(res) != 1) {
        return STOA_E_INTERNAL;
    }

    code = stoa_pg_value(res, 0, 0);

    if (!stoa_pg_null(res, 0, 0)) {
        f->why = "its subject's account may not";
        return stoa_err_by_code((const char *) code.data, code.len);
    }

    ngx_memzero(claims, sizeof(stoa_claims_t));

    if (!stoa_uuid_parse(stoa_pg_value(res, 0, 1), &claims->sid)
        || !stoa_uuid_parse(stoa_pg_value(res, 0, 2), &claims->sub)
        || !stoa_str_int(stoa_pg_value(res, 0, 4), 0, UINT32_MAX, &epoch)
        || !stoa_str_int(stoa_pg_value(res, 0, 5), 0, INT64_MAX, &since))
    {
        return STOA_E_INTERNAL;
    }

    claims->roles = stoa_roles_parse(stoa_pg_value(res, 0, 3));
    claims->epoch = (uint32_t) epoch;
    claims->mfa = stoa_str_eq_z(stoa_pg_value(res, 0, 6), "t");
    claims->iat = f->said.iat;
    claims->exp = f->said.exp;

    f->why = "revoked";

    if (f->said.iat * 1000 < since) {
        return STOA_E_TOKEN_REVOKED;
    }

    return ngx_http_stoa_revoke_check(claims);
}


static void
ngx_http_stoa_foreign_found(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    ngx_http_stoa_foreign_t *f = data;
    stoa_pg_result_t        *res;

    f->op = NULL;

    if (err == STOA_OK) {
        res = stoa_pg_take(op);
        err = STOA_E_NO_MEMORY;

        if (res != NULL) {
            err = ngx_http_stoa_foreign_take(f, res);
            stoa_pg_result_free(res);
        }
    }

    if (err == STOA_OK) {
        f->gate->authenticated = 1;
        ngx_http_stoa_foreign_keep(f);
    }

    ngx_http_stoa_foreign_resume(f, err);
}


/* ---- the gate's question ---- */

/* The issuer of JWT_ISSUERS that it names; NULL: none. */
static const stoa_oidc_issuer_t *
ngx_http_stoa_foreign_issuer(stoa_mem_t *mem, stoa_str_t token)
{
    const stoa_oidc_conf_t *oidc = ngx_http_stoa_process.mcf->oidc;
    stoa_str_t              name;
    ngx_uint_t              i;

    if (!stoa_oidc_issuer_of(mem, token, &name)) {
        return NULL;
    }

    for (i = 0; i < oidc->nissuers; i++) {
        if (oidc->issuers[i].audience != NULL
            && stoa_str_eq_z(name, oidc->issuers[i].issuer))
        {
            return &oidc->issuers[i];
        }
    }

    return NULL;
}


ngx_int_t
ngx_http_stoa_foreign_verify(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                             stoa_str_t token, stoa_err_e *err,
                             const char **why)
{
    ngx_http_stoa_foreign_t  *f;
    ngx_http_cleanup_t       *cln;
    const stoa_oidc_issuer_t *conf;
    stoa_mem_t                mem;
    u_char                    digest[STOA_SHA256_LEN];

    if (ngx_http_stoa_process.issuers == NULL || token.len > STOA_JWT_MAX
        || !stoa_sha256(token.data, token.len, digest))
    {
        return NGX_DECLINED;
    }

    /* *err says what is wrong with it as one of ours, until it is another's */

    if (ngx_http_stoa_foreign_seen(gate, digest) == STOA_OK) {
        *err = STOA_OK;
        return NGX_OK;
    }

    ngx_http_stoa_mem_init(&mem, r->pool);
    conf = ngx_http_stoa_foreign_issuer(&mem, token);

    if (conf == NULL) {
        return NGX_DECLINED;
    }

    cln = ngx_http_cleanup_add(r, sizeof(ngx_http_stoa_foreign_t));
    if (cln == NULL) {
        *err = STOA_E_NO_MEMORY;
        return NGX_OK;
    }

    f = cln->data;
    ngx_memzero(f, sizeof(ngx_http_stoa_foreign_t));
    ngx_memcpy(f->digest, digest, sizeof(digest));
    cln->handler = ngx_http_stoa_foreign_cleanup;
    f->r = r;
    f->gate = gate;
    f->mem = mem;
    f->token = token;
    f->conf = conf;
    f->issuer = stoa_issuers_find(ngx_http_stoa_process.issuers,
                                  stoa_str_z(conf->issuer));
    f->wait.done = ngx_http_stoa_foreign_came;
    f->wait.data = f;

    if (ngx_http_stoa_foreign_go(f, err) == NGX_AGAIN) {
        gate->parked = 1;
        return NGX_OK;
    }

    *why = f->why;

    return NGX_OK;
}
