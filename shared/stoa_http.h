/*
 * Outgoing calls: the only door to libcurl.  HTTP(S) and SMTP(S) run on one
 * stoa_loop_t through two multi handles, so a slow mail server never takes a
 * payment's place.
 *
 * Promises: done() is called exactly once per operation that was not
 * canceled, never from inside stoa_http_start() or stoa_smtp_start();
 * every operation has a deadline, and its end waits for nothing, also while a
 * name is looked up; an operation ends by itself, uncalled, when its memory is
 * freed.  No redirects, no proxy, no cookies, and certificates are always
 * checked.  The process must ignore SIGPIPE.
 */

#ifndef STOA_HTTP_H_INCLUDED
#define STOA_HTTP_H_INCLUDED

#include "stoa_buf.h"
#include "stoa_loop.h"

struct sockaddr;

typedef struct stoa_http_s    stoa_http_t;
typedef struct stoa_http_op_s stoa_http_op_t;

/*
 * What a client may reach, for good: connections are kept and used again.
 * The address that is connected to decides, whatever name led there.
 */
typedef enum {
    STOA_HTTP_PUBLIC = 1, /* https at addresses of the public internet */
    STOA_HTTP_PRIVATE,    /* https anywhere */
    STOA_HTTP_ANY         /* http as well */
} stoa_http_reach_e;

typedef struct {
    const char        *method;  /* "GET", "POST", ... */
    const char        *url;     /* http: or https: */
    const char *const *headers; /* "Name: value" lines, NULL ends; or NULL */
    stoa_str_t         body;
    const char        *ca_file;    /* NULL or "": the system's */
    uint32_t           timeout_ms; /* of the whole call, 1..600000 */
    uint32_t           connect_ms; /* up to TLS; 0: 10000 */
    size_t             max_body;   /* of the answer */
} stoa_http_request_t;

typedef enum {
    STOA_SMTP_OFF = 1,  /* plain text */
    STOA_SMTP_STARTTLS, /* refused when the server does not offer it */
    STOA_SMTP_TLS
} stoa_smtp_tls_e;

typedef struct {
    const char     *host;
    uint16_t        port;
    const char     *user; /* NULL or "": no AUTH */
    const char     *password;
    stoa_smtp_tls_e tls;
    const char     *ca_file;
    const char     *from; /* bare addresses */
    const char     *to;
    stoa_str_t      message; /* lines end with CR LF */
    uint32_t        timeout_ms;
} stoa_smtp_request_t;

/* How far it came; the first one means that .status is valid. */
typedef enum {
    STOA_HTTP_ANSWERED = 1, /* a whole answer; SMTP: a reply code */
    STOA_HTTP_UNREACHED,    /* surely nothing was done over there */
    STOA_HTTP_UNKNOWN,      /* broken or timed out after it was sent */
    STOA_HTTP_TOO_LARGE     /* the answer passed max_body */
} stoa_http_end_e;

/* SMTP: what the server was answering when it said .status. */
typedef enum {
    STOA_SMTP_CONNECT = 1, /* greeting, EHLO, STARTTLS */
    STOA_SMTP_AUTH,
    STOA_SMTP_FROM,
    STOA_SMTP_RCPT,
    STOA_SMTP_DATA
} stoa_smtp_step_e;

typedef struct {
    stoa_http_end_e  end;
    int              status; /* HTTP status or SMTP reply code; 0: none */
    stoa_smtp_step_e step;
    stoa_str_t       body;    /* SMTP: the server's last line */
    const char      *message; /* one line for logs, in the operation's mem */
    stoa_http_op_t  *op;
} stoa_http_answer_t;

typedef void (*stoa_http_done_pt)(const stoa_http_answer_t *a, void *data);

/* NULL: no memory, or libcurl cannot start. */
stoa_http_t *stoa_http_create(stoa_loop_t *loop, stoa_http_reach_e reach);

/* Cancels all that is in flight; not from inside done(). */
void stoa_http_destroy(stoa_http_t *http);

/*
 * Everything the request points at is copied, except .body and .message,
 * which must stay valid until done() or cancel.  The answer lives in mem.
 * NULL: no memory or an address that libcurl refuses; done() is not called.
 */
stoa_http_op_t *stoa_http_start(stoa_http_t *http, stoa_mem_t *mem,
                                const stoa_http_request_t *rq,
                                stoa_http_done_pt done, void *data);
stoa_http_op_t *stoa_smtp_start(stoa_http_t *http, stoa_mem_t *mem,
                                const stoa_smtp_request_t *rq,
                                stoa_http_done_pt done, void *data);

/* done() will not be called.  Fine on an operation that has ended. */
void stoa_http_cancel(stoa_http_op_t *op);

/* Inside done(): a header of the last answer, in mem; NULL: absent. */
const char *stoa_http_header(const stoa_http_answer_t *a, const char *name);

/* An address of the public internet (IANA's registries of special-purpose
   addresses); one of IPv4 inside of IPv6 is judged as what it leads to. */
bool stoa_http_is_public(const struct sockaddr *sa);

/* Percent-encodes for a form body or a query (RFC 3986 unreserved stay). */
void stoa_http_form_add(stoa_buf_t *b, const char *name, stoa_str_t value);

#endif /* STOA_HTTP_H_INCLUDED */
