/*
 * API keys at the gates (shared/stoa_key.h is their form).
 *
 * What was not made here fails its MAC and is counted against its address,
 * without a query.  A key that was made here costs one statement of the fast
 * pool, then is remembered for some seconds with its verdict, good or bad:
 * by its id and the hash of its secret, never by its text.  Requests that
 * bring the same key meanwhile wait for the one statement: a request waits in
 * PREACCESS, which runs again when the verdict is here.
 *
 * A hit looks at the clock and at the revocations, so that a key ends at once
 * where it was revoked and within a second elsewhere, and an account's new
 * roles make it be looked up again.  Which keys were used is stored by
 * ngx_http_stoa_key_used.c, each at most once a minute.
 */

#include "ngx_http_stoa_zone.h"
#include "stoa_key.h"

#define NGX_HTTP_STOA_KEY_PLACES  1024 /* places, a power of two */
#define NGX_HTTP_STOA_KEY_LIFE_MS 10000
#define NGX_HTTP_STOA_KEY_USED_MS 60000
#define NGX_HTTP_STOA_KEY_SAVE    64  /* uses in one statement */
#define NGX_HTTP_STOA_KEY_SCOPES  512 /* bytes; the table has the bound, too */

typedef struct {
    stoa_claims_t claims; /* sid: the key; iat: when it was looked up */
    u_char        hash[STOA_SHA256_LEN];
    stoa_err_e    verdict;
    int64_t       until_ms; /* 0: free */
    int64_t       expires_ms;
    int64_t       used_ms;
    int64_t       saved_ms; /* the last use that PostgreSQL knows of */
    size_t        nscopes;
    u_char        scopes[NGX_HTTP_STOA_KEY_SCOPES];
    size_t        naddr;
    u_char        addr[NGX_SOCKADDR_STRLEN]; /* of the last use */
} ngx_http_stoa_api_key_t;

/* One statement about one key. */
typedef struct {
    ngx_queue_t   link;
    ngx_queue_t   waiting; /* ngx_http_stoa_key_wait_t */
    stoa_pg_op_t *op;
    stoa_uuid_t   id;
    u_char        hash[STOA_SHA256_LEN];
    ngx_uint_t    again; /* the account changed while it was asked for */
    char          text_id[36 + 1];
    char          text_hash[2 + 2 * STOA_SHA256_LEN + 1];
} ngx_http_stoa_key_flight_t;

typedef struct {
    ngx_queue_t           link;
    ngx_http_request_t   *r; /* NULL: it left, or goes on */
    ngx_http_stoa_gate_t *gate;
} ngx_http_stoa_key_wait_t;

static ngx_int_t  ngx_http_stoa_key_wait(ngx_http_request_t   *r,
                                         ngx_http_stoa_gate_t *gate,
                                         const stoa_uuid_t    *id,
                                         const u_char         *hash);
static stoa_err_e ngx_http_stoa_key_ask(ngx_http_stoa_key_flight_t *f);
static void       ngx_http_stoa_key_answered(stoa_pg_op_t *op, stoa_err_e err,
                                             void *data);

/* Zeroed pages, as in ngx_http_stoa_auth.c. */
static ngx_http_stoa_api_key_t ngx_http_stoa_keys[NGX_HTTP_STOA_KEY_PLACES];
static ngx_queue_t             ngx_http_stoa_key_flights;
static ngx_uint_t              ngx_http_stoa_key_uses; /* some are not stored */


/* ---- what is remembered ---- */

/* Two places for an id; the id is random. */
static ngx_http_stoa_api_key_t *
ngx_http_stoa_key_places(const stoa_uuid_t *id)
{
    uint32_t n;

    ngx_memcpy(&n, id->b, sizeof(n));

    return &ngx_http_stoa_keys[(n & (NGX_HTTP_STOA_KEY_PLACES / 2 - 1)) * 2];
}


static ngx_http_stoa_api_key_t *
ngx_http_stoa_key_find(const stoa_uuid_t *id)
{
    ngx_http_stoa_api_key_t *k = ngx_http_stoa_key_places(id);
    ngx_uint_t               i;

    for (i = 0; i < 2; i++, k++) {
        if (k->until_ms != 0
            && ngx_memcmp(k->claims.sid.b, id->b, sizeof(id->b)) == 0) {
            return k;
        }
    }

    return NULL;
}


/* Its place, or the one of the two that is stale or was used longer ago. */
static ngx_http_stoa_api_key_t *
ngx_http_stoa_key_place(const stoa_uuid_t *id)
{
    ngx_http_stoa_api_key_t *k = ngx_http_stoa_key_find(id);

    if (k != NULL) {
        return k;
    }

    k = ngx_http_stoa_key_places(id);

    if (k[0].until_ms != 0
        && (k[1].until_ms == 0 || k[1].used_ms < k[0].used_ms)) {
        k++;
    }

    ngx_memzero(k, sizeof(ngx_http_stoa_api_key_t));
    k->claims.sid = *id;

    return k;
}


/* Whether what is remembered holds: the clock may have been set back. */
static ngx_uint_t
ngx_http_stoa_key_fresh(const ngx_http_stoa_api_key_t *k, int64_t now)
{
    return now < k->until_ms && k->until_ms - now <= NGX_HTTP_STOA_KEY_LIFE_MS
        && ngx_http_stoa_revoke_state(&k->claims) != NGX_HTTP_STOA_OUTDATED;
}


static void
ngx_http_stoa_key_refuse(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                         stoa_err_e err)
{
    gate->auth = err;

    if (stoa_err_row(err)->status == NGX_HTTP_UNAUTHORIZED) {
        ngx_http_stoa_metric_add(STOA_M_auth_failures, 1);
        ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                      "stoa: API key was refused: %s", stoa_err_row(err)->code);
    }
}


/* The verdict on a request that brought this key. */
static void
ngx_http_stoa_key_judge(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                        ngx_http_stoa_api_key_t *k, int64_t now)
{
    ngx_connection_t *c = r->connection;
    stoa_err_e        err = k->verdict;

    if (err == STOA_OK && now >= k->expires_ms) {
        err = STOA_E_TOKEN_EXPIRED;
    }

    if (err == STOA_OK
        && ngx_http_stoa_revoke_state(&k->claims) == NGX_HTTP_STOA_ENDED)
    {
        err = STOA_E_TOKEN_REVOKED;
    }

    if (err == STOA_OK) {
        gate->scopes.data = ngx_pnalloc(r->pool, k->nscopes + 1);

        if (gate->scopes.data == NULL) {
            err = STOA_E_NO_MEMORY;
        }
    }

    if (err != STOA_OK) {
        ngx_http_stoa_key_refuse(r, gate, err);
        return;
    }

    gate->scopes.len = k->nscopes;
    ngx_memcpy(gate->scopes.data, k->scopes, k->nscopes);
    gate->claims = k->claims;
    gate->by_key = 1;
    gate->authenticated = 1;
    gate->auth = STOA_OK;

    k->used_ms = now;
    k->naddr = ngx_min(c->addr_text.len, sizeof(k->addr));
    ngx_memcpy(k->addr, c->addr_text.data, k->naddr);

    if (now - k->saved_ms >= NGX_HTTP_STOA_KEY_USED_MS) {
        ngx_http_stoa_key_uses = 1;
    }
}


ngx_int_t
ngx_http_stoa_key_verify(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                         stoa_str_t text)
{
    ngx_http_stoa_main_conf_t *mcf = ngx_http_stoa_process.mcf;
    ngx_http_stoa_api_key_t   *k;
    stoa_claims_t              claims;
    stoa_str_t                 known, brought;
    stoa_err_e                 err;
    stoa_key_t                 key;
    ngx_int_t                  rc = NGX_OK;
    int64_t                    now = stoa_time_ms();
    u_char                     hash[STOA_SHA256_LEN];

    if (!stoa_key_read(text, &key) || !stoa_key_hash(&key, hash)) {
        goto garbage;
    }

    k = ngx_http_stoa_key_find(&key.id);

    if (k != NULL && ngx_http_stoa_key_fresh(k, now)) {
        known = (stoa_str_t){ sizeof(k->hash), k->hash };
        brought = (stoa_str_t){ sizeof(hash), hash };

        if (stoa_str_same_secret(known, brought)) {
            ngx_http_stoa_metric_add(STOA_M_key_cache_hits, 1);
            ngx_http_stoa_key_judge(r, gate, k, now);
            goto done;
        }
    }

    if (!stoa_key_genuine(mcf->key_secret, &key)) {
        goto garbage;
    }

    ngx_memzero(&claims, sizeof(claims));
    claims.sid = key.id;

    if (ngx_http_stoa_revoke_state(&claims) == NGX_HTTP_STOA_ENDED) {
        ngx_http_stoa_key_refuse(r, gate, STOA_E_TOKEN_REVOKED);
        goto done;
    }

    rc = ngx_http_stoa_key_wait(r, gate, &key.id, hash);

    goto done;

garbage:

    /* who tries many of them is told to wait, but what was made here is heard
       from the same address meanwhile */
    err = ngx_http_stoa_throttle_verdict(gate,
                                         (stoa_str_t) stoa_string("api-key"),
                                         0);
    ngx_http_stoa_key_refuse(r, gate,
                             err != STOA_OK ? err : STOA_E_UNAUTHENTICATED);

done:

    stoa_wipe(&key, sizeof(key));

    return rc;
}


/* ---- who waits ---- */

static void
ngx_http_stoa_key_leave(void *data)
{
    ngx_http_stoa_key_wait_t *w = data;

    if (w->r != NULL) {
        ngx_queue_remove(&w->link);
        w->r = NULL;
    }
}


static ngx_http_stoa_key_flight_t *
ngx_http_stoa_key_flight(const stoa_uuid_t *id, const u_char *hash)
{
    ngx_http_stoa_key_flight_t *f;
    ngx_queue_t                *q;

    if (ngx_http_stoa_key_flights.next == NULL) {
        ngx_queue_init(&ngx_http_stoa_key_flights);
    }

    for (q = ngx_queue_head(&ngx_http_stoa_key_flights);
         q != ngx_queue_sentinel(&ngx_http_stoa_key_flights);
         q = ngx_queue_next(q))
    {
        f = ngx_queue_data(q, ngx_http_stoa_key_flight_t, link);

        if (ngx_memcmp(f->id.b, id->b, sizeof(id->b)) == 0
            /* lint: allow secret, because these are digests of what came */
            && ngx_memcmp(f->hash, hash, sizeof(f->hash)) == 0)
        {
            return f;
        }
    }

    f = ngx_calloc(sizeof(ngx_http_stoa_key_flight_t), ngx_cycle->log);
    if (f == NULL) {
        return NULL;
    }

    f->id = *id;
    ngx_memcpy(f->hash, hash, sizeof(f->hash));
    stoa_uuid_print(id, f->text_id);
    f->text_hash[0] = '\\';
    f->text_hash[1] = 'x';
    stoa_hex_encode(f->text_hash + 2, hash, STOA_SHA256_LEN);
    ngx_queue_init(&f->waiting);
    ngx_queue_insert_tail(&ngx_http_stoa_key_flights, &f->link);

    return f;
}


/* Nobody waits for it any more. */
static void
ngx_http_stoa_key_land(ngx_http_stoa_key_flight_t *f)
{
    ngx_http_stoa_key_wait_t *w;

    while (!ngx_queue_empty(&f->waiting)) {
        w = ngx_queue_data(ngx_queue_head(&f->waiting),
                           ngx_http_stoa_key_wait_t, link);
        ngx_http_stoa_key_leave(w);
    }

    ngx_queue_remove(&f->link);
    ngx_free(f);
}


static ngx_int_t
ngx_http_stoa_key_wait(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                       const stoa_uuid_t *id, const u_char *hash)
{
    ngx_http_stoa_key_flight_t *f;
    ngx_http_stoa_key_wait_t   *w;
    ngx_http_cleanup_t         *cln;
    stoa_err_e                  err;

    w = ngx_palloc(r->pool, sizeof(ngx_http_stoa_key_wait_t));
    cln = ngx_http_cleanup_add(r, 0);
    f = ngx_http_stoa_key_flight(id, hash);

    if (w == NULL || cln == NULL || f == NULL) {
        gate->auth = STOA_E_NO_MEMORY;
        return NGX_OK;
    }

    if (f->op == NULL) {
        err = ngx_http_stoa_key_ask(f);

        if (err != STOA_OK) {
            ngx_http_stoa_key_land(f);
            gate->auth = err;
            return NGX_OK;
        }
    }

    w->r = r;
    w->gate = gate;
    ngx_queue_insert_tail(&f->waiting, &w->link);

    cln->handler = ngx_http_stoa_key_leave;
    cln->data = w;

    r->connection->log->action = (char *) "waiting for postgres";

    return NGX_AGAIN;
}


static stoa_err_e
ngx_http_stoa_key_ask(ngx_http_stoa_key_flight_t *f)
{
    ngx_http_stoa_main_conf_t *mcf = ngx_http_stoa_process.mcf;
    const char                *values[2] = { f->text_id, f->text_hash };
    stoa_err_e                 err = STOA_E_DATABASE_UNAVAILABLE;
    int                        lens[2];

    lens[0] = sizeof(f->text_id) - 1;
    lens[1] = sizeof(f->text_hash) - 1;

    f->op = stoa_pg_submit(ngx_http_stoa_process.pool[STOA_POOL_FAST],
                           &mcf->stmts[STOA_STMT_KEY_LOOK], values, lens, 0,
                           ngx_http_stoa_key_answered, f, &err);

    if (f->op != NULL) {
        ngx_http_stoa_metric_add(STOA_M_key_lookups, 1);
        return STOA_OK;
    }

    if (err == STOA_E_POOL_SATURATED) {
        ngx_http_stoa_metric_add(STOA_M_pg_saturated, 1);
    }

    return err;
}


/* PREACCESS runs again, with the verdict.  Everything may be gone after it. */
static void
ngx_http_stoa_key_resume(ngx_http_stoa_key_wait_t *w, stoa_err_e err,
                         ngx_http_stoa_api_key_t *k)
{
    ngx_http_request_t   *r = w->r;
    ngx_http_stoa_gate_t *gate = w->gate;

    ngx_http_stoa_key_leave(w);
    ngx_http_set_log_request(r->connection->log, r);

    if (err == STOA_OK) {
        ngx_http_stoa_key_judge(r, gate, k, stoa_time_ms());

    } else {
        ngx_http_stoa_key_refuse(r, gate, err);
    }

    ngx_http_stoa_gate_resume(r, gate);
}


/* Remembers what the row says; false: it is no such row. */
static ngx_uint_t
ngx_http_stoa_key_read(ngx_http_stoa_api_key_t *k, const stoa_pg_result_t *res)
{
    stoa_str_t state = stoa_pg_value(res, 0, 0);
    stoa_str_t scopes = stoa_pg_value(res, 0, 4);
    int64_t    epoch, used = 0;

    if (!stoa_uuid_parse(stoa_pg_value(res, 0, 1), &k->claims.sub)
        || !stoa_str_int(stoa_pg_value(res, 0, 3), 0, UINT32_MAX, &epoch)
        || scopes.len > sizeof(k->scopes)
        || !stoa_str_int(stoa_pg_value(res, 0, 5), 0, INT64_MAX, &k->expires_ms)
        || (!stoa_pg_null(res, 0, 6)
            && !stoa_str_int(stoa_pg_value(res, 0, 6), 0, INT64_MAX, &used)))
    {
        return 0;
    }

    k->verdict = stoa_str_eq_z(state, "live")    ? STOA_OK
               : stoa_str_eq_z(state, "expired") ? STOA_E_TOKEN_EXPIRED
                                                 : STOA_E_TOKEN_REVOKED;
    k->claims.roles = stoa_roles_parse(stoa_pg_value(res, 0, 2));
    k->claims.epoch = (uint32_t) epoch;
    k->claims.mfa = stoa_str_eq_z(stoa_pg_value(res, 0, 7), "t");
    k->claims.jti = k->claims.sid;
    k->claims.exp = k->expires_ms / 1000;
    k->saved_ms = ngx_max(k->saved_ms, used);
    k->nscopes = scopes.len;
    ngx_memcpy(k->scopes, scopes.data, scopes.len);

    return 1;
}


static stoa_err_e
ngx_http_stoa_key_keep(ngx_http_stoa_key_flight_t *f, stoa_pg_op_t *op,
                       ngx_http_stoa_api_key_t **kept)
{
    ngx_http_stoa_api_key_t *k;
    stoa_pg_result_t        *res;
    int64_t                  now = stoa_time_ms();

    res = stoa_pg_take(op);

    if (res == NULL) {
        return STOA_E_INTERNAL;
    }

    k = ngx_http_stoa_key_place(&f->id);
    k->claims.iat = now / 1000;
    k->until_ms = now + NGX_HTTP_STOA_KEY_LIFE_MS;
    ngx_memcpy(k->hash, f->hash, sizeof(k->hash));
    *kept = k;

    if (stoa_pg_rows(res) == 0) {
        k->verdict = STOA_E_UNAUTHENTICATED;

    } else if (!ngx_http_stoa_key_read(k, res)) {
        k->until_ms = 0;
        stoa_pg_result_free(res);
        return STOA_E_INTERNAL;
    }

    stoa_pg_result_free(res);

    return STOA_OK;
}


static void
ngx_http_stoa_key_answered(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    ngx_http_stoa_key_flight_t *f = data;
    ngx_http_stoa_key_wait_t   *w;
    ngx_http_stoa_api_key_t    *k = NULL;
    stoa_claims_t               claims;
    ngx_queue_t                 waiting;

    f->op = NULL;

    if (err == STOA_OK) {
        err = ngx_http_stoa_key_keep(f, op, &k);
    }

    if (err == STOA_OK && !f->again) {

        /* who joined the flight late may know of a change that the statement
           did not see */
        claims = k->claims;
        claims.iat = INT64_MAX;

        if (k->verdict == STOA_OK
            && ngx_http_stoa_revoke_state(&claims) == NGX_HTTP_STOA_OUTDATED)
        {
            f->again = 1;
            err = ngx_http_stoa_key_ask(f);

            if (err == STOA_OK) {
                return;
            }
        }
    }

    if (err == STOA_E_INTERNAL) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "pg: looking an API key up failed, sqlstate %s: %s",
                      stoa_pg_sqlstate(op), stoa_pg_message(op));
    }

    /* those that go on may bring new ones, which start another flight */
    ngx_queue_init(&waiting);

    if (!ngx_queue_empty(&f->waiting)) {
        ngx_queue_add(&waiting, &f->waiting);
        ngx_queue_init(&f->waiting);
    }

    ngx_http_stoa_key_land(f);

    while (!ngx_queue_empty(&waiting)) {
        w = ngx_queue_data(ngx_queue_head(&waiting), ngx_http_stoa_key_wait_t,
                           link);
        ngx_http_stoa_key_resume(w, err, k);
    }
}


/* ---- what was used ---- */

ngx_uint_t
ngx_http_stoa_key_due(stoa_buf_t b[3])
{
    ngx_http_stoa_api_key_t *k;
    ngx_uint_t               i, j, n = 0, more = 0;

    for (i = 0; ngx_http_stoa_key_uses && i < NGX_HTTP_STOA_KEY_PLACES; i++) {
        k = &ngx_http_stoa_keys[i];

        if (k->until_ms == 0 || k->used_ms == 0
            || k->used_ms - k->saved_ms < NGX_HTTP_STOA_KEY_USED_MS)
        {
            continue;
        }

        if (n == NGX_HTTP_STOA_KEY_SAVE) {
            more = 1;
            break;
        }

        for (j = 0; j < 3; j++) {
            stoa_buf_char(&b[j], n == 0 ? '{' : ',');
        }

        stoa_buf_uuid(&b[0], &k->claims.sid);
        stoa_buf_int(&b[1], k->used_ms);
        stoa_buf_char(&b[2], '"'); /* an address has nothing to escape */
        stoa_buf_put(&b[2], k->addr, k->naddr);
        stoa_buf_char(&b[2], '"');
        k->saved_ms = k->used_ms;
        n++;
    }

    ngx_http_stoa_key_uses = more;

    for (j = 0; n != 0 && j < 3; j++) {
        stoa_buf_char(&b[j], '}');
        stoa_buf_nul(&b[j]);
    }

    return n;
}


void
ngx_http_stoa_key_exit_process(ngx_cycle_t *cycle)
{
    ngx_http_stoa_key_flight_t *f;

    ngx_http_stoa_key_used_exit();

    if (ngx_http_stoa_key_flights.next == NULL) {
        return;
    }

    while (!ngx_queue_empty(&ngx_http_stoa_key_flights)) {
        f = ngx_queue_data(ngx_queue_head(&ngx_http_stoa_key_flights),
                           ngx_http_stoa_key_flight_t, link);

        if (f->op != NULL) {
            stoa_pg_cancel(f->op);
        }

        ngx_http_stoa_key_land(f);
    }
}
