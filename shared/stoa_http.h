/*
 * Outgoing calls: the only door to libcurl.  HTTP(S) and SMTP(S) run on one
 * stoa_loop_t through two multi handles, so a slow mail server never takes a
 * payment's place.
 *
 * Promises: done() is called exactly once per operation that was not
 * canceled, never from inside worker_http_start() or worker_smtp_start();
 * every operation has a deadline; an operation ends by itself, uncalled,
 * when its memory is freed.  No redirects, no proxy, no cookies, and
 * certificates are always checked.
 */

#ifndef STOA_HTTP_H_INCLUDED
#define STOA_HTTP_H_INCLUDED

#include "stoa_buf.h"
#include "stoa_conf.h"
#include "stoa_loop.h"

typedef struct worker_http_s    worker_http_t;
typedef struct worker_http_op_s worker_http_op_t;

typedef struct {
    const char        *method;  /* "GET", "POST", ... */
    const char        *url;     /* http: or https: */
    const char *const *headers; /* "Name: value" lines, NULL ends; or NULL */
    stoa_str_t         body;
    const char        *ca_file;    /* NULL or "": the system's */
    uint32_t           timeout_ms; /* of the whole call, 1..600000 */
    size_t             max_body;   /* of the answer */
} worker_http_request_t;

typedef enum {
    WORKER_SMTP_OFF = 1,  /* plain text */
    WORKER_SMTP_STARTTLS, /* refused when the server does not offer it */
    WORKER_SMTP_TLS
} worker_smtp_tls_e;

typedef struct {
    const char       *host;
    uint16_t          port;
    const char       *user; /* NULL or "": no AUTH */
    const char       *password;
    worker_smtp_tls_e tls;
    const char       *ca_file;
    const char       *from; /* bare addresses */
    const char       *to;
    stoa_str_t        message; /* lines end with CR LF */
    uint32_t          timeout_ms;
} worker_smtp_request_t;

/* How far it came; the first one means that .status is valid. */
typedef enum {
    WORKER_HTTP_ANSWERED = 1, /* a whole answer; SMTP: a reply code */
    WORKER_HTTP_UNREACHED,    /* surely nothing was done over there */
    WORKER_HTTP_UNKNOWN,      /* broken or timed out after it was sent */
    WORKER_HTTP_TOO_LARGE     /* the answer passed max_body */
} worker_http_end_e;

/* SMTP: what the server was answering when it said .status. */
typedef enum {
    WORKER_SMTP_CONNECT = 1, /* greeting, EHLO, STARTTLS */
    WORKER_SMTP_AUTH,
    WORKER_SMTP_FROM,
    WORKER_SMTP_RCPT,
    WORKER_SMTP_DATA
} worker_smtp_step_e;

typedef struct {
    worker_http_end_e  end;
    int                status; /* HTTP status or SMTP reply code; 0: none */
    worker_smtp_step_e step;
    stoa_str_t         body;    /* SMTP: the server's last line */
    const char        *message; /* one line for logs, in the operation's mem */
    worker_http_op_t  *op;
} worker_http_answer_t;

typedef void (*worker_http_done_pt)(const worker_http_answer_t *a, void *data);

/* NULL: no memory, or libcurl cannot start. */
worker_http_t *worker_http_create(stoa_loop_t *loop, const stoa_conf_t *conf);

/* Cancels all that is in flight. */
void worker_http_destroy(worker_http_t *http);

/*
 * Everything the request points at is copied, except .body and .message,
 * which must stay valid until done() or cancel.  The answer lives in mem.
 * NULL: no memory or an address that libcurl refuses; done() is not called.
 */
worker_http_op_t *worker_http_start(worker_http_t *http, stoa_mem_t *mem,
                                    const worker_http_request_t *rq,
                                    worker_http_done_pt done, void *data);
worker_http_op_t *worker_smtp_start(worker_http_t *http, stoa_mem_t *mem,
                                    const worker_smtp_request_t *rq,
                                    worker_http_done_pt done, void *data);

/* done() will not be called.  Fine on an operation that has ended. */
void worker_http_cancel(worker_http_op_t *op);

/* Inside done(): a header of the last answer, in mem; NULL: absent. */
const char *worker_http_header(const worker_http_answer_t *a, const char *name);

/* Percent-encodes for a form body or a query (RFC 3986 unreserved stay). */
void worker_http_form_add(stoa_buf_t *b, const char *name, stoa_str_t value);

#endif /* STOA_HTTP_H_INCLUDED */
