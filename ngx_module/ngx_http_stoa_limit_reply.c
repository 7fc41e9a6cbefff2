/*
 * What answers say of limits: the fields RateLimit-Policy and RateLimit of
 * draft-ietf-httpapi-ratelimit-headers, or the older X-RateLimit-*, the
 * problem's "violated-policies", Retry-After of RFC 9110; and what is given
 * back when an answer turns out to be no failure.
 *
 * A policy with a quota is two: its burst under the policy's name, its window
 * under that name and ".quota".  A limit in dry run is not told of.
 */

#include "ngx_http_stoa_limit.h"

#define NGX_HTTP_STOA_JITTER_MAX 60 /* s */


ngx_int_t
ngx_http_stoa_limit_policy(ngx_pool_t *pool, ngx_http_stoa_limit_t *limit)
{
    u_char    *p;
    ngx_uint_t window;

    if (limit->rate == 0) {
        return NGX_OK;
    }

    p = ngx_pnalloc(pool, 2 * limit->name.len + 4 * NGX_INT_T_LEN + 64);
    if (p == NULL) {
        return NGX_ERROR;
    }

    /* in which the whole burst grows back */
    window = (limit->burst * limit->period_ms + limit->rate * 1000 - 1)
           / (limit->rate * 1000);

    limit->policy.data = p;
    p = ngx_sprintf(p, "\"%V\";q=%ui;w=%ui", &limit->name, limit->burst,
                    ngx_max(window, 1));

    if (limit->quota != 0) {
        p = ngx_sprintf(p, ", \"%V.quota\";q=%ui;w=%ui", &limit->name,
                        limit->quota, (limit->quota_ms + 999) / 1000);
    }

    limit->policy.len = (size_t) (p - limit->policy.data);

    return NGX_OK;
}


/* ---- failures ---- */

static ngx_uint_t
ngx_http_stoa_limit_failed(const ngx_http_stoa_limit_t *limit,
                           ngx_uint_t                   status)
{
    if (status < 400 || status > 599) {
        return 0;
    }

    status -= 400;

    return (limit->statuses[status / 64] >> status % 64) & 1;
}


/* Reserved when the request came; only a failure stays charged.  Without an
   answer, when the client has left, it stays. */
static void
ngx_http_stoa_limit_settle(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate)
{
    ngx_http_stoa_take_t *take = gate->takes.elts;
    ngx_uint_t            i, status;

    if (gate->settled) {
        return;
    }

    gate->settled = 1;
    status = r->err_status != 0 ? r->err_status : r->headers_out.status;

    for (i = 0; i < gate->takes.nelts; i++, take++) {

        if (!take->limit->failure || !take->charged
            || ngx_http_stoa_limit_failed(take->limit, status))
        {
            continue;
        }

        if (take->remote) {
            ngx_http_stoa_cluster_refund(take);

        } else {
            ngx_http_stoa_limit_refund(take);
        }

        take->charged = 0;
        take->remaining = ngx_min(take->remaining + take->cost,
                                  take->limit->burst);
        take->left = ngx_min(take->left + take->cost, take->limit->quota);

        if (take->remaining == take->limit->burst) {
            take->reset = 0;
        }
    }
}


/* ---- fields ---- */

static size_t
ngx_http_stoa_limit_sort(ngx_http_stoa_gate_t  *gate,
                         ngx_http_stoa_take_t **sorted)
{
    ngx_http_stoa_take_t *take = gate->takes.elts;
    size_t                n = 0, k;
    ngx_uint_t            i;

    for (i = 0; i < gate->takes.nelts; i++, take++) {

        if (take->limit->dry_run || n == NGX_HTTP_STOA_APPLIED + 4) {
            continue;
        }

        for (k = n; k > 0 && ngx_http_stoa_limit_tighter(take, sorted[k - 1]);
             k--) {
            sorted[k] = sorted[k - 1];
        }

        sorted[k] = take;
        n++;
    }

    return n;
}


static u_char *
ngx_http_stoa_limit_item(u_char *p, const ngx_http_stoa_take_t *take)
{
    p = ngx_sprintf(p, "\"%V\";r=%ui;t=%ui", &take->limit->name,
                    take->remaining, take->reset);

    if (take->limit->quota != 0) {
        p = ngx_sprintf(p, ", \"%V.quota\";r=%ui;t=%ui", &take->limit->name,
                        take->left, take->renew);
    }

    return p;
}


static ngx_int_t
ngx_http_stoa_limit_draft(ngx_http_request_t *r, ngx_http_stoa_take_t **take,
                          size_t n)
{
    stoa_str_t policy, now;
    size_t     i, len, more;
    u_char    *p;

    len = 0;
    more = 0;

    for (i = 0; i < n; i++) {
        len += take[i]->limit->policy.len + 2;
        more += 2 * take[i]->limit->name.len + 4 * NGX_INT_T_LEN + 32;
    }

    p = ngx_pnalloc(r->pool, more + (n > 1 ? len : 0));
    if (p == NULL) {
        return NGX_ERROR;
    }

    now.data = p;

    for (i = 0; i < n; i++) {
        if (i != 0) {
            *p++ = ',';
            *p++ = ' ';
        }

        p = ngx_http_stoa_limit_item(p, take[i]);
    }

    now.len = (size_t) (p - now.data);

    policy.data = take[0]->limit->policy.data;
    policy.len = take[0]->limit->policy.len;

    if (n > 1) {
        policy.data = p;

        for (i = 0; i < n; i++) {
            if (i != 0) {
                *p++ = ',';
                *p++ = ' ';
            }

            p = ngx_cpymem(p, take[i]->limit->policy.data,
                           take[i]->limit->policy.len);
        }

        policy.len = (size_t) (p - policy.data);
    }

    if (ngx_http_stoa_header(r, "RateLimit-Policy", policy) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_stoa_header(r, "RateLimit", now);
}


static ngx_int_t
ngx_http_stoa_limit_number(ngx_http_request_t *r, const char *name,
                           ngx_uint_t n)
{
    stoa_str_t v;

    v.data = ngx_pnalloc(r->pool, NGX_INT_T_LEN);
    if (v.data == NULL) {
        return NGX_ERROR;
    }

    v.len = (size_t) (ngx_sprintf(v.data, "%ui", n) - v.data);

    return ngx_http_stoa_header(r, name, v);
}


/* Has room for one limit only: the tightest. */
static ngx_int_t
ngx_http_stoa_limit_legacy(ngx_http_request_t         *r,
                           const ngx_http_stoa_take_t *take)
{
    ngx_uint_t quota;

    quota = take->limit->quota != 0
         && (take->over_quota
             || (take->over_burst == 0 && take->left < take->remaining));

    if (ngx_http_stoa_limit_number(r, "X-RateLimit-Limit",
                                   quota ? take->limit->quota
                                         : take->limit->burst)
            != NGX_OK
        || ngx_http_stoa_limit_number(r, "X-RateLimit-Remaining",
                                      quota ? take->left : take->remaining)
               != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_stoa_limit_number(r, "X-RateLimit-Reset",
                                      quota ? take->renew : take->reset);
}


ngx_int_t
ngx_http_stoa_limit_filter(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate,
                           ngx_http_stoa_loc_conf_t *lcf)
{
    ngx_http_stoa_take_t *sorted[NGX_HTTP_STOA_APPLIED + 4];
    size_t                n;

    if (gate->takes.nelts == 0) {
        return NGX_OK;
    }

    ngx_http_stoa_limit_settle(r, gate);

    if (gate->refused == STOA_E_RATE_LIMITED && !gate->after_told
        && ngx_http_stoa_limit_number(r, "Retry-After",
                                      ngx_http_stoa_limit_after(gate))
               != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (lcf->limit_headers == 2 /* off */) {
        return NGX_OK;
    }

    n = ngx_http_stoa_limit_sort(gate, sorted);

    if (n == 0) {
        return NGX_OK;
    }

    return lcf->limit_headers == 1 /* legacy */
             ? ngx_http_stoa_limit_legacy(r, sorted[0])
             : ngx_http_stoa_limit_draft(r, sorted, n);
}


/* ---- refusals ---- */

/*
 * Seconds, never earlier than what RateLimit says.  Those who share a key are
 * all told the same moment: they are spread behind it, or they would meet
 * there again.
 */
ngx_uint_t
ngx_http_stoa_limit_after(ngx_http_stoa_gate_t *gate)
{
    ngx_uint_t after = ngx_max(gate->retry_after, 1), spread;

    if (gate->limit == NULL || !gate->limit->shared || gate->retry_after == 0) {
        return after;
    }

    spread = ngx_min(ngx_max(after / 4, 1), NGX_HTTP_STOA_JITTER_MAX);

    return after + (ngx_uint_t) ngx_random() % (spread + 1);
}


void
ngx_http_stoa_limit_violated(stoa_buf_t *b, ngx_http_stoa_gate_t *gate)
{
    ngx_http_stoa_take_t *take = gate->takes.elts;
    ngx_uint_t            i, n = 0;
    stoa_str_t            name;

    for (i = 0; i < gate->takes.nelts; i++, take++) {

        if (take->retry == 0 || take->limit->dry_run) {
            continue;
        }

        name.data = take->limit->name.data;
        name.len = take->limit->name.len;

        if (take->over_burst) {
            stoa_buf_z(b, n++ == 0 ? ",\"violated-policies\":[" : ",");
            stoa_buf_json(b, name);
        }

        if (take->over_quota) {
            stoa_buf_z(b, n++ == 0 ? ",\"violated-policies\":[" : ",");
            stoa_buf_char(b, '"');
            stoa_buf_str(b, name);
            stoa_buf_z(b, ".quota\"");
        }
    }

    if (n != 0) {
        stoa_buf_char(b, ']');
    }
}


void
ngx_http_stoa_limit_log(ngx_http_request_t *r, ngx_http_stoa_gate_t *gate)
{
    ngx_http_stoa_take_t *take = gate->takes.elts;
    ngx_uint_t            i;

    for (i = 0; i < gate->takes.nelts; i++, take++) {

        if (take->retry == 0 || take->said) {
            continue;
        }

        take->said = 1;

        if (take->limit->dry_run) {
            ngx_log_error(take->limit->log_level, r->connection->log, 0,
                          "stoa: limit \"%V\" would be exceeded, dry run",
                          &take->limit->name);
            continue;
        }

        ngx_log_error(take->limit->log_level, r->connection->log, 0,
                      "stoa: limit \"%V\" is exceeded, retry after %ui s",
                      &take->limit->name, take->retry);
    }
}
