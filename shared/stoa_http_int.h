/*
 * Between worker_http.c, the libcurl door, and worker_http_op.c, which is what
 * needs no libcurl; nobody else includes this.
 */

#ifndef STOA_HTTP_INT_H_INCLUDED
#define STOA_HTTP_INT_H_INCLUDED

#include "stoa_http.h"

#define WORKER_HTTP_ERROR_SIZE 256 /* libcurl's */

struct curl_slist;

typedef struct worker_http_lane_s worker_http_lane_t;
typedef struct worker_http_sock_s worker_http_sock_t;

struct worker_http_sock_s {
    stoa_watch_t        watch;
    worker_http_lane_t *lane;
    worker_http_sock_t *next; /* of .open or .gone of the lane */
};

struct worker_http_lane_s {
    void               *multi; /* CURLM */
    worker_http_t      *http;
    stoa_timer_t        timer;
    stoa_defer_t        sweep;
    worker_http_sock_t *open;
    worker_http_sock_t *gone;
};

struct worker_http_s {
    uint32_t           magic;
    stoa_loop_t       *loop;
    worker_http_lane_t web;
    worker_http_lane_t mail;
    worker_http_op_t  *ops; /* in flight */
};

struct worker_http_op_s {
    uint32_t            magic;
    worker_http_t      *http;
    worker_http_lane_t *lane;
    worker_http_op_t   *next, **link; /* NULL link: ended */
    stoa_mem_t         *mem;
    void               *easy;  /* CURL */
    struct curl_slist  *lines; /* request headers, or recipients */
    stoa_buf_t          body;
    stoa_buf_t          headers;
    stoa_str_t          upload; /* SMTP: what is not yet read */
    worker_smtp_step_e  step;
    bool                smtp;
    bool                all_read; /* SMTP: the last byte was handed over */
    bool                quit;     /* SMTP: what comes now is good-bye */
    char                error[WORKER_HTTP_ERROR_SIZE];
    worker_http_done_pt done;
    void               *data;
};

/* ---- worker_http_op.c: sockets of a lane ---- */

worker_http_sock_t *worker_http_sock_create(worker_http_lane_t *lane, int fd);
/* Freed when the turn ends. */
void worker_http_sock_remove(worker_http_lane_t *lane, worker_http_sock_t *s);
void worker_http_sweep(stoa_defer_t *d);

/* ---- worker_http_op.c: what an operation reads and writes ---- */

/* Callbacks of libcurl; data is the operation. */
size_t worker_http_read(char *out, size_t size, size_t n, void *data);
size_t worker_http_write(char *p, size_t size, size_t n, void *data);
size_t worker_http_header_line(char *p, size_t size, size_t n, void *data);

/* A line that was sent to a mail server. */
void worker_smtp_said(worker_http_op_t *op, const char *line, size_t len);

/* How far it came; sent: bytes of a request that left for the kernel. */
worker_http_end_e worker_http_end(const worker_http_op_t *op, bool good,
                                  long status, long sent);

/* ---- worker_http.c ---- */

void worker_http_sock_ready(stoa_watch_t *w, bool readable, bool writable);

#endif /* STOA_HTTP_INT_H_INCLUDED */
