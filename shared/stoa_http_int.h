/*
 * Between stoa_http.c, the libcurl door, and stoa_http_op.c, which is what
 * needs no libcurl; nobody else includes this.
 */

#ifndef STOA_HTTP_INT_H_INCLUDED
#define STOA_HTTP_INT_H_INCLUDED

#include "stoa_http.h"

#define STOA_HTTP_ERROR_SIZE 256 /* libcurl's */

struct curl_slist;

typedef struct stoa_http_lane_s stoa_http_lane_t;
typedef struct stoa_http_sock_s stoa_http_sock_t;

struct stoa_http_sock_s {
    stoa_watch_t      watch;
    stoa_http_lane_t *lane;
    stoa_http_sock_t *next; /* of .open or .gone of the lane */
};

struct stoa_http_lane_s {
    void             *multi; /* CURLM */
    stoa_http_t      *http;
    stoa_timer_t      timer;
    stoa_defer_t      sweep;
    stoa_http_sock_t *open;
    stoa_http_sock_t *gone;
};

struct stoa_http_s {
    uint32_t          magic;
    stoa_loop_t      *loop;
    stoa_http_reach_e reach;
    stoa_http_lane_t  web;
    stoa_http_lane_t  mail;
    stoa_http_op_t   *ops; /* in flight */
};

struct stoa_http_op_s {
    uint32_t           magic;
    stoa_http_t       *http;
    stoa_http_lane_t  *lane;
    stoa_http_op_t    *next, **link; /* NULL link: ended */
    stoa_mem_t        *mem;
    void              *easy;  /* CURL */
    struct curl_slist *lines; /* request headers, or recipients */
    stoa_buf_t         body;
    stoa_buf_t         headers;
    stoa_str_t         upload; /* SMTP: what is not yet read */
    stoa_smtp_step_e   step;
    bool private; /* an address was refused */
    bool              smtp;
    bool              all_read; /* SMTP: the last byte was handed over */
    bool              quit;     /* SMTP: what comes now is good-bye */
    char              error[STOA_HTTP_ERROR_SIZE];
    stoa_http_done_pt done;
    void             *data;
};

/* ---- stoa_http_op.c: sockets of a lane ---- */

stoa_http_sock_t *stoa_http_sock_create(stoa_http_lane_t *lane, int fd);
/* Freed when the turn ends. */
void stoa_http_sock_remove(stoa_http_lane_t *lane, stoa_http_sock_t *s);
void stoa_http_sweep(stoa_defer_t *d);

/* ---- stoa_http_op.c: what an operation reads and writes ---- */

/* Callbacks of libcurl; data is the operation. */
size_t stoa_http_read(char *out, size_t size, size_t n, void *data);
size_t stoa_http_write(char *p, size_t size, size_t n, void *data);
size_t stoa_http_header_line(char *p, size_t size, size_t n, void *data);

/* A line that was sent to a mail server. */
void stoa_smtp_said(stoa_http_op_t *op, const char *line, size_t len);

/* How far it came; sent: bytes of a request that left for the kernel. */
stoa_http_end_e stoa_http_end(const stoa_http_op_t *op, bool good, long status,
                              long sent);

/* ---- stoa_http.c ---- */

void stoa_http_sock_ready(stoa_watch_t *w, bool readable, bool writable);

#endif /* STOA_HTTP_INT_H_INCLUDED */
