/*
 * Second factors, as the flows that ask for one use them: a code as it was
 * typed, tried with a factor's secret, and counted; new secrets and recovery
 * codes.
 *
 * The key that opens a factor's secret is here and not in the database, so
 * codes are compared here; the statement is told of which step a code is and
 * decides whether that step was used.  Wrong codes count in the throttle of
 * wrong passwords, and nothing but a whole success forgets them.
 */

#include "ngx_http_stoa.h"

#include "stoa_hmac.h"

#define NGX_HTTP_STOA_RECOVERY_CODES 10

static const stoa_str_t ngx_http_stoa_mfa_none = stoa_string("-1");

/* ---- a code, as it was typed ---- */

/* Six digits, with spaces as apps show them. */
static ngx_uint_t
ngx_http_stoa_mfa_digits(stoa_value_t v, u_char out[STOA_TOTP_DIGITS])
{
    size_t i, n = 0;

    for (i = 0; i < v.len; i++) {
        if (v.data[i] == ' ') {
            continue;
        }

        if (v.data[i] < '0' || v.data[i] > '9' || n == STOA_TOTP_DIGITS) {
            return 0;
        }

        out[n++] = v.data[i];
    }

    return n == STOA_TOTP_DIGITS;
}

/* Base32 in any case, with spaces and dashes anywhere. */
static ngx_uint_t
ngx_http_stoa_mfa_raw(stoa_value_t v, u_char out[NGX_HTTP_STOA_RECOVERY])
{
    size_t     i;
    u_char     text[stoa_base32_len(NGX_HTTP_STOA_RECOVERY)];
    ngx_uint_t good;
    stoa_str_t s = { 0, text };

    for (i = 0; i < v.len; i++) {
        if (v.data[i] == ' ' || v.data[i] == '-') {
            continue;
        }

        if (s.len == sizeof(text)) {
            return 0;
        }

        text[s.len++] = (u_char) ngx_toupper(v.data[i]);
    }

    good = s.len == sizeof(text)
        && stoa_base32_decode(out, NGX_HTTP_STOA_RECOVERY, s)
               == NGX_HTTP_STOA_RECOVERY;
    stoa_wipe(text, sizeof(text));

    return good;
}

/* Codes do not stay in memory that others get next. */
static void
ngx_http_stoa_mfa_forget(void *data)
{
    ngx_http_stoa_mfa_t *m = data;

    stoa_wipe(m->digits, sizeof(m->digits));
    stoa_wipe(m->raw, sizeof(m->raw));
    stoa_wipe(m->codes.data, m->codes.len);
    stoa_wipe(m->secret.data, m->secret.len);
    stoa_wipe(m->uri.data, m->uri.len);
}

static ngx_http_stoa_mfa_t *
ngx_http_stoa_mfa_create(ngx_http_stoa_ctx_t *q)
{
    ngx_pool_cleanup_t  *cln;
    ngx_http_stoa_mfa_t *m;

    cln = ngx_pool_cleanup_add(q->r->pool, sizeof(ngx_http_stoa_mfa_t));
    if (cln == NULL) {
        return NULL;
    }

    m = cln->data;
    ngx_memzero(m, sizeof(ngx_http_stoa_mfa_t));
    cln->handler = ngx_http_stoa_mfa_forget;
    q->flow = m;

    return m;
}

ngx_http_stoa_go_e
ngx_http_stoa_mfa_form(ngx_http_stoa_ctx_t *q, ngx_uint_t required)
{
    stoa_value_t         code, recovery;
    ngx_http_stoa_mfa_t *m;

    m = ngx_http_stoa_mfa_create(q);
    if (m == NULL) {
        return ngx_http_stoa_flow_fail(q, STOA_E_NO_MEMORY);
    }

    code = ngx_http_stoa_body_value(q, "code");
    recovery = ngx_http_stoa_body_value(q, "recovery_code");

    if ((code.data != NULL && recovery.data != NULL)
        || (required && code.data == NULL && recovery.data == NULL))
    {
        return ngx_http_stoa_flow_fault(q, "", "required",
                                        "either code or recoveryCode");
    }

    if (code.data != NULL) {
        m->ndigits = ngx_http_stoa_mfa_digits(code, m->digits);

        if (!m->ndigits) {
            return ngx_http_stoa_flow_fault(q, "/code", "wrong_code",
                                            "is not six digits");
        }
    }

    if (recovery.data != NULL) {
        m->nraw = ngx_http_stoa_mfa_raw(recovery, m->raw);

        if (!m->nraw) {
            return ngx_http_stoa_flow_fault(q, "/recoveryCode", "wrong_code",
                                            "is not a recovery code");
        }
    }

    return NGX_HTTP_STOA_NEXT;
}

/* ---- trying it ---- */

/* What a sealed secret is bound to: whose, and which. */
static stoa_str_t
ngx_http_stoa_mfa_about(u_char out[32], const stoa_uuid_t *user,
                        const stoa_uuid_t *factor)
{
    stoa_str_t about = { 32, out };

    ngx_memcpy(out, user->b, 16);
    ngx_memcpy(out + 16, factor->b, 16);

    return about;
}

/* "\x.." of bytea. */
static stoa_value_t
ngx_http_stoa_mfa_bytea(ngx_http_stoa_ctx_t *q, const u_char *bytes, size_t len)
{
    stoa_value_t v = stoa_null_string;

    v.data = ngx_pnalloc(q->r->pool, 2 + 2 * len);

    if (v.data != NULL) {
        v.data[0] = '\\';
        v.data[1] = 'x';
        stoa_hex_encode((char *) v.data + 2, bytes, len);
        v.len = 2 + 2 * len;
    }

    return v;
}

/* Opens the secret, finds the code's step; seals anew what an older key had
   sealed. */
static stoa_err_e
ngx_http_stoa_mfa_step(ngx_http_stoa_ctx_t *q, ngx_http_stoa_mfa_t *m,
                       const stoa_uuid_t *user)
{
    bool                       stale;
    u_char                     bound[32], secret[STOA_TOTP_SECRET];
    u_char                     sealed[STOA_TOTP_SECRET + STOA_SEAL_OVER];
    int64_t                    step, last;
    stoa_buf_t                 b;
    stoa_str_t                 about, s = { sizeof(sealed), sealed };
    stoa_str_t                 key = { sizeof(secret), secret };
    stoa_str_t                 code = { sizeof(m->digits), m->digits };
    stoa_uuid_t                factor;
    ngx_http_stoa_main_conf_t *mcf;

    mcf = ngx_http_stoa_mcf(q->r);

    if (!stoa_uuid_parse(m->factor, &factor)
        || !stoa_str_int(ngx_http_stoa_flow_column(q, "mfa_step"), 0, INT64_MAX,
                         &last)
        || stoa_hex_decode(sealed, sizeof(sealed),
                           ngx_http_stoa_flow_column(q, "mfa_secret"))
               != (ssize_t) sizeof(sealed))
    {
        return STOA_E_INTERNAL;
    }

    about = ngx_http_stoa_mfa_about(bound, user, &factor);

    if (!stoa_seal_open(mcf->seal, about, s, secret, &stale)) {
        ngx_log_error(NGX_LOG_CRIT, q->r->connection->log, 0,
                      "stoa: second factor %V was not sealed by a key of "
                      "MFA_KEY or JWT_SECRET",
                      (ngx_str_t *) &m->factor);
        return STOA_E_INTERNAL;
    }

    step = stoa_totp_step(key, code, stoa_time_ms() / 1000, last);
    m->step = ngx_http_stoa_mfa_none;

    if (step >= 0) {
        stoa_buf_init(&b, &q->mem, 24, 24);
        stoa_buf_int(&b, step);
        m->step = stoa_buf_view(&b);

        if (stale && stoa_seal(mcf->seal, about, key, sealed)) {
            m->sealed = ngx_http_stoa_mfa_bytea(q, sealed, sizeof(sealed));
        }
    }

    stoa_wipe(secret, sizeof(secret));

    return m->step.len != 0 ? STOA_OK : STOA_E_NO_MEMORY;
}

/* What is stored of a recovery code: 120 random bits need no slow hash. */
static ngx_uint_t
ngx_http_stoa_mfa_hash(const ngx_http_stoa_mfa_t *m, const stoa_uuid_t *user,
                       u_char out[STOA_SHA256_LEN])
{
    u_char     text[sizeof(user->b) + sizeof(m->raw)];
    ngx_uint_t good;

    ngx_memcpy(text, user->b, sizeof(user->b));
    ngx_memcpy(text + sizeof(user->b), m->raw, sizeof(m->raw));
    good = stoa_sha256(text, sizeof(text), out);
    stoa_wipe(text, sizeof(text));

    return good;
}

stoa_err_e
ngx_http_stoa_mfa_try(ngx_http_stoa_ctx_t *q, stoa_value_t user,
                      stoa_value_t account)
{
    u_char               hash[STOA_SHA256_LEN];
    int64_t              rest;
    stoa_err_e           err;
    stoa_uuid_t          id;
    ngx_http_stoa_mfa_t *m;

    m = q->flow;
    m->account = ngx_http_stoa_account(q, account);
    m->factor = ngx_http_stoa_flow_column(q, "mfa_id");

    err = ngx_http_stoa_throttle_check(q->gate, m->account);

    if (err != STOA_OK || (!m->ndigits && !m->nraw)) {
        return err;
    }

    if (!stoa_uuid_parse(user, &id)) {
        return STOA_E_INTERNAL;
    }

    m->tried = 1;

    if (m->nraw) {
        if (!ngx_http_stoa_mfa_hash(m, &id, hash)) {
            return STOA_E_INTERNAL;
        }

        m->recovery = ngx_http_stoa_mfa_bytea(q, hash, sizeof(hash));

        return m->recovery.data != NULL ? STOA_OK : STOA_E_NO_MEMORY;
    }

    if (stoa_str_int(ngx_http_stoa_flow_column(q, "mfa_rest"), 1, INT32_MAX,
                     &rest)) {
        /* too many were wrong, whoever sent them */
        q->gate->limit = &ngx_http_stoa_mcf(q->r)->login;
        q->gate->limit_remaining = 0;
        q->gate->retry_after = (ngx_uint_t) rest;
        q->gate->reset_after = (ngx_uint_t) rest;

        return STOA_E_RATE_LIMITED;
    }

    err = ngx_http_stoa_mfa_step(q, m, &id);

    if (err == STOA_OK && m->step.data == ngx_http_stoa_mfa_none.data) {
        m->counted = 1;
        err = ngx_http_stoa_throttle_verdict(q->gate, m->account, 0);
    }

    return err;
}

stoa_err_e
ngx_http_stoa_mfa_count(ngx_http_stoa_ctx_t *q)
{
    int64_t              status;
    ngx_http_stoa_mfa_t *m;

    m = q->flow;

    if (!m->tried) {
        return STOA_OK;
    }

    if (stoa_str_int(ngx_http_stoa_flow_column(q, "status"), 200, 299, &status))
    {
        (void) ngx_http_stoa_throttle_verdict(q->gate, m->account, 1);
        return STOA_OK; /* it passed the check and is done */
    }

    if (m->counted || !stoa_str_eq_z(ngx_http_stoa_flow_column(q, "mfa"), "t"))
    {
        return STOA_OK;
    }

    m->counted = 1;

    return ngx_http_stoa_throttle_verdict(q->gate, m->account, 0);
}

/* ---- new ones ---- */

stoa_err_e
ngx_http_stoa_mfa_codes(ngx_http_stoa_ctx_t *q, stoa_value_t user)
{
    char                 hex[2 * STOA_SHA256_LEN];
    u_char               hash[STOA_SHA256_LEN];
    u_char               text[stoa_base32_len(NGX_HTTP_STOA_RECOVERY)];
    stoa_buf_t           hashes, codes;
    ngx_uint_t           i, k;
    stoa_uuid_t          id;
    ngx_http_stoa_mfa_t *m;

    m = q->flow;

    stoa_buf_init(&hashes, &q->mem, 1024, 1024);
    stoa_buf_init(&codes, &q->mem, 512, 512);

    if (!stoa_uuid_parse(user, &id)) {
        return STOA_E_INTERNAL;
    }

    for (i = 0; i < NGX_HTTP_STOA_RECOVERY_CODES; i++) {

        if (!stoa_random(m->raw, sizeof(m->raw))
            || !ngx_http_stoa_mfa_hash(m, &id, hash))
        {
            return STOA_E_INTERNAL;
        }

        stoa_hex_encode(hex, hash, sizeof(hash));
        stoa_buf_z(&hashes, i != 0 ? "," : "");
        stoa_buf_put(&hashes, hex, sizeof(hex));

        (void) stoa_base32_encode(text, m->raw, sizeof(m->raw));
        stoa_buf_z(&codes, i != 0 ? ",\"" : "\"");

        for (k = 0; k < sizeof(text); k++) {
            if (k != 0 && k % 4 == 0) {
                stoa_buf_char(&codes, '-');
            }

            stoa_buf_char(&codes, (char) ngx_tolower(text[k]));
        }

        stoa_buf_char(&codes, '"');
    }

    stoa_wipe(text, sizeof(text));
    m->hashes = stoa_buf_view(&hashes);
    m->codes = stoa_buf_view(&codes);

    return hashes.failed || codes.failed ? STOA_E_NO_MEMORY : STOA_OK;
}

/* The host of PUBLIC_URL: what the code is for, as apps show it. */
static stoa_str_t
ngx_http_stoa_mfa_issuer(ngx_http_stoa_ctx_t *q)
{
    u_char    *p;
    stoa_str_t host;

    host = stoa_str_z(ngx_http_stoa_mcf(q->r)->conf.public_url);
    p = (u_char *) ngx_strstr(host.data, "://"); /* the setting is checked */

    if (p != NULL) {
        host.len -= (size_t) (p + 3 - host.data);
        host.data = p + 3;
    }

    if (host.len != 0 && host.data[0] == '[') {
        return (stoa_str_t) stoa_string("Stoa"); /* colons part labels */
    }

    p = ngx_strlchr(host.data, host.data + host.len, ':');

    if (p != NULL) {
        host.len = (size_t) (p - host.data);
    }

    return host;
}

stoa_err_e
ngx_http_stoa_mfa_secret(ngx_http_stoa_ctx_t *q, stoa_value_t email)
{
    u_char               bound[32], raw[STOA_TOTP_SECRET];
    u_char               sealed[STOA_TOTP_SECRET + STOA_SEAL_OVER];
    ngx_uint_t           made;
    stoa_buf_t           id, uri;
    stoa_str_t           key = { sizeof(raw), raw };
    stoa_uuid_t          factor;
    ngx_http_stoa_mfa_t *m;

    m = ngx_http_stoa_mfa_create(q);
    if (m == NULL) {
        return STOA_E_NO_MEMORY;
    }

    made = stoa_id_next(&ngx_http_stoa_process.ids, &factor)
        && stoa_random(raw, sizeof(raw))
        && stoa_seal(ngx_http_stoa_mcf(q->r)->seal,
                     ngx_http_stoa_mfa_about(bound, &q->gate->claims.sub,
                                             &factor),
                     key, sealed);

    if (!made) {
        return STOA_E_INTERNAL;
    }

    stoa_buf_init(&id, &q->mem, 40, 40);
    stoa_buf_uuid(&id, &factor);
    stoa_buf_init(&uri, &q->mem, 2048, 2048);
    stoa_totp_uri(&uri, raw, ngx_http_stoa_mfa_issuer(q), email);

    m->uri = stoa_buf_view(&uri);
    m->factor = stoa_buf_view(&id);
    m->sealed = ngx_http_stoa_mfa_bytea(q, sealed, sizeof(sealed));
    m->secret.data = ngx_pnalloc(q->r->pool, stoa_base32_len(sizeof(raw)));

    if (m->secret.data != NULL) {
        m->secret.len = stoa_base32_encode(m->secret.data, raw, sizeof(raw));
    }

    stoa_wipe(raw, sizeof(raw));

    return id.failed || uri.failed || m->secret.data == NULL
                || m->sealed.data == NULL
             ? STOA_E_NO_MEMORY
             : STOA_OK;
}
