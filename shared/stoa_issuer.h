/*
 * The keys of other issuers, fetched and kept on a stoa_loop_t.
 *
 * Each process has its own: fetched when it starts, again before their age
 * (Cache-Control max-age within 5 minutes and a day, else an hour) is over,
 * kept on errors for a day after the last good fetch, and tried again with
 * growing delays.  Nobody waits for an issuer who has its keys.
 *
 * A token whose kid is not known may be of a key that is new: it causes one
 * fetch in 30 s, however many ask, and those who come while it runs wait for
 * its end.  All others are refused at once.
 */

#ifndef STOA_ISSUER_H_INCLUDED
#define STOA_ISSUER_H_INCLUDED

#include "stoa_http.h"
#include "stoa_oidc.h"

typedef struct stoa_issuers_s     stoa_issuers_t;
typedef struct stoa_issuer_s      stoa_issuer_t;
typedef struct stoa_issuer_wait_s stoa_issuer_wait_t;

/* Embedded in its owner, zeroed before first use. */
struct stoa_issuer_wait_s {
    void (*done)(stoa_issuer_wait_t *w);
    void                *data;
    stoa_issuer_t       *issuer;
    stoa_issuer_wait_t  *next;
    stoa_issuer_wait_t **link; /* NULL: it does not wait */
};

typedef struct {
    const char *ca_file; /* NULL or "": the system's */
    bool        plain;   /* http is fine */
} stoa_issuers_conf_t;

typedef struct {
    int64_t  fetched_ms; /* of the last good fetch; 0: none */
    uint64_t fetches;
    uint64_t errors;
} stoa_issuer_stats_t;

/* NULL: no memory.  What the arguments point at outlives it. */
stoa_issuers_t *stoa_issuers_create(stoa_loop_t *loop, stoa_http_t *http,
                                    const stoa_issuers_conf_t *conf);

/* Of a process that retires: no more fetches but for those who ask. */
void stoa_issuers_rest(stoa_issuers_t *all);

/* Those who wait are not called any more. */
void stoa_issuers_destroy(stoa_issuers_t *all);

/* jwks_uri NULL: found by discovery.  Its first fetch begins soon. */
stoa_issuer_t *stoa_issuers_add(stoa_issuers_t *all, const char *issuer,
                                const char *jwks_uri);

/* NULL: it is not trusted. */
stoa_issuer_t *stoa_issuers_find(stoa_issuers_t *all, stoa_str_t issuer);

/* Valid until the loop's turn ends; NULL: there are none, or none any more. */
stoa_jwt_keys_t *stoa_issuer_keys(stoa_issuer_t *is);

/* The same of its document. */
const stoa_oidc_doc_t *stoa_issuer_doc(stoa_issuer_t *is);

const char *stoa_issuer_name(const stoa_issuer_t *is);

void stoa_issuer_stats(const stoa_issuer_t *is, stoa_issuer_stats_t *out);

/*
 * For somebody to whom the keys were of no use: since there are none, or none
 * that the kid names.  true: w->done() is called when the fetch that runs has
 * ended, however it did; false: there is nothing to wait for.
 */
bool stoa_issuer_ask(stoa_issuer_t *is, stoa_issuer_wait_t *w);

/* Idempotent; done() is not called any more. */
void stoa_issuer_leave(stoa_issuer_wait_t *w);

#endif /* STOA_ISSUER_H_INCLUDED */
