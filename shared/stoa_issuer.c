/*
 * Keys of other issuers: see stoa_issuer.h.
 *
 * One timer looks each second which issuer is due, by the clock that tests
 * move.  A fetch is discovery, where it is needed, and then the keys; it has
 * an arena of its own, and what it found replaces what was there at once and
 * as a whole.  At most one runs per issuer.
 */

#include "stoa_issuer.h"
#include "stoa_id.h"
#include "stoa_str.h"
#include "stoa_time.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define STOA_ISSUER_TICK_MS    1000
#define STOA_ISSUER_CONNECT_MS 3000
#define STOA_ISSUER_CALL_MS    5000
#define STOA_ISSUER_BODY_MAX   (256 * 1024)
#define STOA_ISSUER_ARENA_MAX  (4 * 1024 * 1024)
#define STOA_ISSUER_WAITING    256 /* in a process, of one issuer */

#define STOA_ISSUER_AGE_MIN_MS (300 * 1000)
#define STOA_ISSUER_AGE_MS     (3600 * 1000)
#define STOA_ISSUER_AGE_MAX_MS (86400 * 1000)
#define STOA_ISSUER_STALE_MS   (86400 * 1000)
#define STOA_ISSUER_RETRY_MS   60000 /* the longest of the growing delays */
#define STOA_ISSUER_KID_MS     30000

struct stoa_issuer_s {
    stoa_issuers_t *all;
    stoa_issuer_t  *next;
    const char     *name;
    const char     *jwks_uri; /* NULL: discovery */

    stoa_jwt_keys_t *keys; /* of the last good fetch */
    stoa_mem_t      *doc_mem;
    stoa_oidc_doc_t  doc;
    int64_t          fetched_ms; /* 0: never */
    int64_t          due_ms;
    int64_t          kid_ms; /* of the last fetch for an unknown kid */
    unsigned         failures;

    stoa_mem_t     *mem; /* of the fetch that runs; NULL: none does */
    stoa_mem_t     *new_mem;
    stoa_oidc_doc_t new_doc;
    stoa_http_op_t *op;

    stoa_issuer_wait_t *waiting;
    size_t              nwaiting;
    uint64_t            fetches, errors;
    char                why[64]; /* the answer's status in words */
};

struct stoa_issuers_s {
    stoa_loop_t        *loop;
    stoa_http_t        *http;
    stoa_issuers_conf_t conf;
    stoa_timer_t        timer;
    stoa_issuer_t      *first;
};

static void stoa_issuer_fetch(stoa_issuer_t *is, bool whole);
static void stoa_issuer_fetch_keys(stoa_issuer_t *is);
static void stoa_issuer_end(stoa_issuer_t *is, const char *why);


/* A time that is not everybody's: 0.9 to 1.1 of it. */
static int64_t
stoa_issuer_jitter(int64_t ms)
{
    uint16_t n;

    return stoa_random(&n, sizeof(n)) ? ms - ms / 10 + ms / 5 * n / UINT16_MAX
                                      : ms;
}


/* ---- all of them ---- */

static void
stoa_issuers_tick(stoa_timer_t *t)
{
    stoa_issuers_t *all = t->data;
    stoa_issuer_t  *is;
    int64_t         now = stoa_time_ms();

    for (is = all->first; is != NULL; is = is->next) {
        if (is->mem == NULL && now >= is->due_ms) {
            stoa_issuer_fetch(is, true);
        }
    }

    all->loop->timer_set(all->loop, t, STOA_ISSUER_TICK_MS);
}


stoa_issuers_t *
stoa_issuers_create(stoa_loop_t *loop, stoa_http_t *http,
                    const stoa_issuers_conf_t *conf)
{
    stoa_issuers_t *all;

    all = calloc(1, sizeof(stoa_issuers_t));
    if (all == NULL) {
        return NULL;
    }

    all->loop = loop;
    all->http = http;
    all->conf = *conf;
    all->timer.data = all;
    all->timer.fire = stoa_issuers_tick;
    all->timer.cancelable = true;
    loop->timer_set(loop, &all->timer, 1);

    return all;
}


void
stoa_issuers_rest(stoa_issuers_t *all)
{
    stoa_issuer_t *is;

    all->loop->timer_cancel(all->loop, &all->timer);

    for (is = all->first; is != NULL; is = is->next) {
        if (is->mem != NULL && is->waiting == NULL) {
            stoa_arena_destroy(is->mem); /* cancels its call */
            is->mem = NULL;
        }
    }
}


void
stoa_issuers_destroy(stoa_issuers_t *all)
{
    stoa_issuer_t *is;

    while ((is = all->first) != NULL) {
        all->first = is->next;

        while (is->waiting != NULL) {
            stoa_issuer_leave(is->waiting);
        }

        if (is->mem != NULL) {
            stoa_arena_destroy(is->mem); /* cancels its call */
        }

        if (is->new_mem != NULL) {
            stoa_arena_destroy(is->new_mem);
        }

        if (is->doc_mem != NULL) {
            stoa_arena_destroy(is->doc_mem);
        }

        stoa_jwt_keys_destroy(is->keys);
        free(is);
    }

    all->loop->timer_close(all->loop, &all->timer);
    free(all);
}


stoa_issuer_t *
stoa_issuers_add(stoa_issuers_t *all, const char *issuer, const char *jwks_uri)
{
    stoa_issuer_t *is, **p;

    is = calloc(1, sizeof(stoa_issuer_t));
    if (is == NULL) {
        return NULL;
    }

    is->all = all;
    is->name = issuer;
    is->jwks_uri = jwks_uri;
    is->kid_ms = stoa_time_ms() - STOA_ISSUER_KID_MS;

    for (p = &all->first; *p != NULL; p = &(*p)->next) {
        /* void */
    }

    *p = is;

    return is;
}


stoa_issuer_t *
stoa_issuers_find(stoa_issuers_t *all, stoa_str_t issuer)
{
    stoa_issuer_t *is;

    for (is = all->first; is != NULL; is = is->next) {
        if (stoa_str_eq_z(issuer, is->name)) {
            return is;
        }
    }

    return NULL;
}


/* ---- one of them ---- */

static bool
stoa_issuer_fresh(stoa_issuer_t *is)
{
    return is->fetched_ms != 0
        && stoa_time_ms() - is->fetched_ms < STOA_ISSUER_STALE_MS;
}


stoa_jwt_keys_t *
stoa_issuer_keys(stoa_issuer_t *is)
{
    return stoa_issuer_fresh(is) ? is->keys : NULL;
}


const stoa_oidc_doc_t *
stoa_issuer_doc(stoa_issuer_t *is)
{
    return stoa_issuer_fresh(is) && is->doc_mem != NULL ? &is->doc : NULL;
}


const char *
stoa_issuer_name(const stoa_issuer_t *is)
{
    return is->name;
}


void
stoa_issuer_stats(const stoa_issuer_t *is, stoa_issuer_stats_t *out)
{
    out->fetched_ms = is->fetched_ms;
    out->fetches = is->fetches;
    out->errors = is->errors;
}


bool
stoa_issuer_ask(stoa_issuer_t *is, stoa_issuer_wait_t *w)
{
    int64_t now = stoa_time_ms();

    if (is->nwaiting >= STOA_ISSUER_WAITING) {
        return false;
    }

    if (is->mem == NULL) {
        if (!stoa_issuer_fresh(is)) {
            if (now < is->due_ms) {
                return false; /* it was tried a moment ago */
            }

            stoa_issuer_fetch(is, true);

        } else if (now - is->kid_ms >= STOA_ISSUER_KID_MS) {
            is->kid_ms = now;
            stoa_issuer_fetch(is, false);
        }
    }

    if (is->mem == NULL) {
        return false;
    }

    w->next = is->waiting;
    w->link = &is->waiting;

    if (w->next != NULL) {
        w->next->link = &w->next;
    }

    is->waiting = w;
    is->nwaiting++;
    w->issuer = is;

    return true;
}


void
stoa_issuer_leave(stoa_issuer_wait_t *w)
{
    if (w->link == NULL) {
        return;
    }

    *w->link = w->next;

    if (w->next != NULL) {
        w->next->link = w->link;
    }

    w->link = NULL;
    w->issuer->nwaiting--;
}


/* ---- a fetch ---- */

/* Cache-Control: max-age=600 */
static int64_t
stoa_issuer_age(const stoa_http_answer_t *a)
{
    const char *text, *p;
    int64_t     age = STOA_ISSUER_AGE_MS;

    text = stoa_http_header(a, "Cache-Control");

    if (text == NULL) {
        return age;
    }

    for (p = text; *p != '\0'; p += *p != '\0') {
        p += strspn(p, " \t");

        if (strncasecmp(p, "no-store", 8) == 0
            || strncasecmp(p, "no-cache", 8) == 0) {
            return STOA_ISSUER_AGE_MIN_MS;
        }

        if (strncasecmp(p, "max-age=", 8) == 0) {
            age = strtoll(p + 8, NULL, 10);
            age = age < 0 || age > STOA_ISSUER_AGE_MAX_MS / 1000
                    ? STOA_ISSUER_AGE_MAX_MS
                    : age * 1000;
        }

        p += strcspn(p, ",");
    }

    return age < STOA_ISSUER_AGE_MIN_MS ? STOA_ISSUER_AGE_MIN_MS : age;
}


static bool
stoa_issuer_get(stoa_issuer_t *is, const char *url, stoa_http_done_pt done)
{
    static const char *const headers[] = { "Accept: application/json", NULL };

    const stoa_http_request_t rq = {
        .method = "GET",
        .url = url,
        .headers = headers,
        .ca_file = is->all->conf.ca_file,
        .timeout_ms = STOA_ISSUER_CALL_MS,
        .connect_ms = STOA_ISSUER_CONNECT_MS,
        .max_body = STOA_ISSUER_BODY_MAX,
    };

    is->op = stoa_http_start(is->all->http, is->mem, &rq, done, is);

    return is->op != NULL;
}


/* NULL, or what is wrong with the answer. */
static const char *
stoa_issuer_judge(stoa_issuer_t *is, const stoa_http_answer_t *a)
{
    switch (a->end) {
    case STOA_HTTP_ANSWERED:
        (void) snprintf(is->why, sizeof(is->why), "the answer is %d",
                        a->status);
        return a->status == 200 ? NULL : is->why;
    case STOA_HTTP_TOO_LARGE:
        return "the answer is too large";
    case STOA_HTTP_UNREACHED:
    case STOA_HTTP_UNKNOWN:
        break;
    }

    return a->message;
}


static void
stoa_issuer_came_keys(const stoa_http_answer_t *a, void *data)
{
    stoa_issuer_t   *is = data;
    stoa_jwt_keys_t *keys = NULL;
    const char      *why;

    why = stoa_issuer_judge(is, a);

    if (why == NULL) {
        keys = stoa_jwks_of_others(a->body, &why);
    }

    if (keys == NULL) {
        stoa_issuer_end(is, why);
        return;
    }

    stoa_jwt_keys_destroy(is->keys);
    is->keys = keys;

    if (is->new_mem != NULL) {
        if (is->doc_mem != NULL) {
            stoa_arena_destroy(is->doc_mem);
        }

        is->doc_mem = is->new_mem;
        is->doc = is->new_doc;
        is->new_mem = NULL;
    }

    is->fetched_ms = stoa_time_ms();
    is->due_ms = is->fetched_ms
               + stoa_issuer_jitter(stoa_issuer_age(a) / 4 * 3);

    stoa_issuer_end(is, NULL);
}


static void
stoa_issuer_came_doc(const stoa_http_answer_t *a, void *data)
{
    stoa_issuer_t *is = data;
    const char    *why;

    why = stoa_issuer_judge(is, a);

    if (why == NULL) {
        is->new_mem = stoa_arena_create(4096, STOA_ISSUER_ARENA_MAX);

        if (is->new_mem == NULL) {
            why = "no memory";

        } else if (stoa_oidc_doc(is->new_mem, is->name, is->all->conf.plain,
                                 a->body, &is->new_doc, &why))
        {
            why = NULL;
        }
    }

    if (why != NULL) {
        stoa_issuer_end(is, why);
        return;
    }

    stoa_issuer_fetch_keys(is);
}


static void
stoa_issuer_fetch_keys(stoa_issuer_t *is)
{
    const char *url = is->jwks_uri;

    if (url == NULL) {
        url = is->new_mem != NULL ? is->new_doc.jwks_uri : is->doc.jwks_uri;
    }

    if (!stoa_issuer_get(is, url, stoa_issuer_came_keys)) {
        stoa_issuer_end(is, "the call cannot be made");
    }
}


/* whole: its document as well. */
static void
stoa_issuer_fetch(stoa_issuer_t *is, bool whole)
{
    stoa_buf_t url;

    is->fetches++;
    is->mem = stoa_arena_create(8192, STOA_ISSUER_ARENA_MAX);

    if (is->mem == NULL) {
        stoa_issuer_end(is, "no memory");
        return;
    }

    if (is->jwks_uri != NULL || (!whole && is->doc_mem != NULL)) {
        stoa_issuer_fetch_keys(is);
        return;
    }

    stoa_buf_init(&url, is->mem, 256, 1024);

    if (!stoa_oidc_doc_url(is->name, &url)
        || !stoa_issuer_get(is, (const char *) url.data, stoa_issuer_came_doc))
    {
        stoa_issuer_end(is, "the call cannot be made");
    }
}


/* why NULL: it went well. */
static void
stoa_issuer_end(stoa_issuer_t *is, const char *why)
{
    stoa_log_t         *log = is->all->loop->log;
    stoa_issuer_wait_t *w, *told;
    int64_t             delay;

    if (why != NULL) {
        stoa_log(log, is->failures == 0 ? STOA_LOG_WARN : STOA_LOG_INFO,
                 "issuer: fetching keys failed, issuer:\"%s\": %s", is->name,
                 why);

        delay = is->failures < 6 ? 1000LL << is->failures
                                 : STOA_ISSUER_RETRY_MS;
        is->due_ms = stoa_time_ms() + stoa_issuer_jitter(delay);
        is->failures++;
        is->errors++;

    } else if (is->failures != 0) {
        stoa_log(log, STOA_LOG_NOTICE,
                 "issuer: fetching keys works again, issuer:\"%s\"", is->name);
        is->failures = 0;
    }

    if (is->new_mem != NULL) {
        stoa_arena_destroy(is->new_mem);
        is->new_mem = NULL;
    }

    if (is->mem != NULL) {
        stoa_arena_destroy(is->mem);
        is->mem = NULL;
    }

    /* who asks anew inside waits for another fetch, on another list */
    told = is->waiting;
    is->waiting = NULL;

    if (told != NULL) {
        told->link = &told;
    }

    while ((w = told) != NULL) {
        stoa_issuer_leave(w);
        w->done(w);
    }
}
