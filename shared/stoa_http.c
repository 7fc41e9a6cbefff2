/*
 * The libcurl door: multi_socket_action() driven by a stoa_loop_t, for
 * HTTP(S) and SMTP(S).
 *
 * A lane is one multi handle with its timer; there is one for HTTP and one
 * for mail.  An operation lives in its caller's memory; its easy handle is the
 * only foreign thing and is freed when the operation ends, is canceled, or its
 * memory goes.  What needs no libcurl is in worker_http_op.c.
 *
 * Not here: retries, what a status means, redirects (never followed).
 */

#include "stoa_http_int.h"

#include <stdio.h>
#include <stdlib.h>

#include <curl/curl.h>

#include "stoa_str.h"

#define WORKER_HTTP_MAGIC    0x77687470u
#define WORKER_HTTP_OP_MAGIC 0x77686f70u

#define WORKER_HTTP_HEADERS_MAX 32768
#define WORKER_HTTP_CONNECT_MS  10000
#define WORKER_HTTP_PER_HOST    16
#define WORKER_SMTP_PER_HOST    5

_Static_assert(WORKER_HTTP_ERROR_SIZE >= CURL_ERROR_SIZE,
               "an operation has room for libcurl's sentence");

static bool worker_http_lane_init(worker_http_t *http, worker_http_lane_t *lane,
                                  long per_host);
static void worker_http_lane_deinit(worker_http_lane_t *lane);
static void worker_http_act(worker_http_lane_t *lane, curl_socket_t fd,
                            int events);
static worker_http_op_t *worker_http_op_create(worker_http_t      *http,
                                               stoa_mem_t         *mem,
                                               worker_http_done_pt done,
                                               void               *data);
static void              worker_http_op_close(worker_http_op_t *op);
static void              worker_http_op_gone(void *data);
static bool worker_http_common(worker_http_op_t *op, uint32_t timeout_ms,
                               const char *ca_file);
static worker_http_op_t *worker_http_submit(worker_http_op_t   *op,
                                            worker_http_lane_t *lane);


worker_http_t *
worker_http_create(stoa_loop_t *loop, const stoa_conf_t *conf)
{
    worker_http_t *http;

    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return NULL;
    }

    http = calloc(1, sizeof(worker_http_t));
    if (http == NULL) {
        curl_global_cleanup();
        return NULL;
    }

    http->magic = WORKER_HTTP_MAGIC;
    http->loop = loop;

    if (!worker_http_lane_init(http, &http->web, WORKER_HTTP_PER_HOST)
        || !worker_http_lane_init(http, &http->mail, WORKER_SMTP_PER_HOST))
    {
        worker_http_destroy(http);
        return NULL;
    }

    return http;
}


void
worker_http_destroy(worker_http_t *http)
{
    while (http->ops != NULL) {
        worker_http_op_close(http->ops);
    }

    worker_http_lane_deinit(&http->web);
    worker_http_lane_deinit(&http->mail);

    http->magic = 0;
    free(http);
    curl_global_cleanup();
}


/* The loop */


void
worker_http_sock_ready(stoa_watch_t *w, bool readable, bool writable)
{
    worker_http_sock_t *s = w->data;

    worker_http_act(s->lane, w->fd,
                    (readable ? CURL_CSELECT_IN : 0)
                        | (writable ? CURL_CSELECT_OUT : 0));
}


static int
worker_http_socket(CURL *easy, curl_socket_t fd, int what, void *data,
                   void *sockp)
{
    worker_http_lane_t *lane = data;
    worker_http_sock_t *s = sockp;
    stoa_loop_t        *loop = lane->http->loop;

    if (what == CURL_POLL_REMOVE) {
        if (s != NULL) {
            (void) curl_multi_assign(lane->multi, fd, NULL);
            worker_http_sock_remove(lane, s);
        }

        return 0;
    }

    if (s == NULL) {
        s = worker_http_sock_create(lane, fd);
        if (s == NULL) {
            return -1;
        }

        if (curl_multi_assign(lane->multi, fd, s) != CURLM_OK) {
            worker_http_sock_remove(lane, s);
            return -1;
        }
    }

    loop->watch_want(loop, &s->watch, (what & CURL_POLL_IN) != 0,
                     (what & CURL_POLL_OUT) != 0);
    return 0;
}


static int
worker_http_timer(CURLM *multi, long ms, void *data)
{
    worker_http_lane_t *lane = data;
    stoa_loop_t        *loop = lane->http->loop;

    if (ms < 0) {
        loop->timer_cancel(loop, &lane->timer);

    } else {
        loop->timer_set(loop, &lane->timer, (uint64_t) ms);
    }

    return 0;
}


static void
worker_http_fire(stoa_timer_t *t)
{
    worker_http_act(t->data, CURL_SOCKET_TIMEOUT, 0);
}


static bool
worker_http_lane_init(worker_http_t *http, worker_http_lane_t *lane,
                      long per_host)
{
    lane->http = http;
    lane->timer.data = lane;
    lane->timer.fire = worker_http_fire;
    lane->sweep.data = lane;
    lane->sweep.run = worker_http_sweep;

    lane->multi = curl_multi_init();

    return lane->multi != NULL
        && curl_multi_setopt(lane->multi, CURLMOPT_SOCKETFUNCTION,
                             worker_http_socket)
               == CURLM_OK
        && curl_multi_setopt(lane->multi, CURLMOPT_SOCKETDATA, lane) == CURLM_OK
        && curl_multi_setopt(lane->multi, CURLMOPT_TIMERFUNCTION,
                             worker_http_timer)
               == CURLM_OK
        && curl_multi_setopt(lane->multi, CURLMOPT_TIMERDATA, lane) == CURLM_OK
        && curl_multi_setopt(lane->multi, CURLMOPT_MAX_HOST_CONNECTIONS,
                             per_host)
               == CURLM_OK
        && curl_multi_setopt(lane->multi, CURLMOPT_MAXCONNECTS, per_host)
               == CURLM_OK;
}


static void
worker_http_lane_deinit(worker_http_lane_t *lane)
{
    stoa_loop_t *loop;

    if (lane->http == NULL) {
        return;
    }

    loop = lane->http->loop;

    if (lane->multi != NULL) {
        (void) curl_multi_cleanup(lane->multi);
    }

    while (lane->open != NULL) {
        worker_http_sock_remove(lane, lane->open);
    }

    loop->timer_close(loop, &lane->timer);
    loop->defer_close(loop, &lane->sweep);
    worker_http_sweep(&lane->sweep);
}


/* Ending */


static void
worker_http_finish(worker_http_op_t *op, CURLcode code)
{
    long                 status = 0, sent = 0;
    stoa_str_t           text;
    worker_http_answer_t a;

    (void) curl_easy_getinfo(op->easy, CURLINFO_RESPONSE_CODE, &status);
    (void) curl_easy_getinfo(op->easy, CURLINFO_REQUEST_SIZE, &sent);

    memset(&a, 0, sizeof(a));
    a.op = op;
    a.end = worker_http_end(op, code == CURLE_OK, status, sent);
    a.step = op->step;
    a.body = stoa_buf_view(op->smtp ? &op->headers : &op->body);

    if (status >= 0 && status <= 999) {
        a.status = (int) status;
    }

    text = stoa_str_z(op->error[0] != '\0' ? op->error
                                           : curl_easy_strerror(code));
    a.message = stoa_strdup_z(op->mem, text);
    if (a.message == NULL) {
        a.message = "";
    }

    worker_http_op_close(op);
    op->done(&a, op->data);
}


static void
worker_http_act(worker_http_lane_t *lane, curl_socket_t fd, int events)
{
    int       left;
    char     *private_data;
    CURLMsg  *m;
    CURLMcode rc;
    CURLcode  code;

    rc = curl_multi_socket_action(lane->multi, fd, events, &left);
    if (rc != CURLM_OK) {
        stoa_log(lane->http->loop->log, STOA_LOG_ERROR, "http: libcurl: %s",
                 curl_multi_strerror(rc));
    }

    /* done() may start and cancel operations: ask anew each time */

    while ((m = curl_multi_info_read(lane->multi, &left)) != NULL) {
        if (m->msg != CURLMSG_DONE) {
            continue;
        }

        code = m->data.result;
        private_data = NULL;
        (void) curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE,
                                 &private_data);

        worker_http_finish(stoa_cast(worker_http_op_t, WORKER_HTTP_OP_MAGIC,
                                     (void *) private_data),
                           code);
    }
}


/* Operations */


worker_http_op_t *
worker_http_start(worker_http_t *http, stoa_mem_t *mem,
                  const worker_http_request_t *rq, worker_http_done_pt done,
                  void *data)
{
    size_t             i;
    worker_http_op_t  *op;
    struct curl_slist *s;

    op = worker_http_op_create(http, mem, done, data);
    if (op == NULL) {
        return NULL;
    }

    stoa_buf_init(&op->body, mem, 1024, rq->max_body);

    op->lines = curl_slist_append(NULL, "Expect:");
    if (op->lines == NULL) {
        goto failed;
    }

    for (i = 0; rq->headers != NULL && rq->headers[i] != NULL; i++) {
        s = curl_slist_append(op->lines, rq->headers[i]);
        if (s == NULL) {
            goto failed;
        }
    }

    if (!worker_http_common(op, rq->timeout_ms, rq->ca_file)
        || curl_easy_setopt(op->easy, CURLOPT_PROTOCOLS_STR, "http,https")
        || curl_easy_setopt(op->easy, CURLOPT_URL, rq->url)
        || curl_easy_setopt(op->easy, CURLOPT_HTTPHEADER, op->lines)
        || curl_easy_setopt(op->easy, CURLOPT_USERAGENT, "stoa/" STOA_VERSION))
    {
        goto failed;
    }

    if (strcmp(rq->method, "GET") != 0
        && (curl_easy_setopt(op->easy, CURLOPT_POST, 1L)
            || curl_easy_setopt(op->easy, CURLOPT_POSTFIELDSIZE_LARGE,
                                (curl_off_t) rq->body.len)
            || curl_easy_setopt(op->easy, CURLOPT_POSTFIELDS,
                                rq->body.len ? (char *) rq->body.data : "")
            || curl_easy_setopt(op->easy, CURLOPT_CUSTOMREQUEST, rq->method)))
    {
        goto failed;
    }

    return worker_http_submit(op, &http->web);

failed:

    worker_http_op_close(op);
    return NULL;
}


static int
worker_smtp_watch(CURL *easy, curl_infotype type, char *line, size_t len,
                  void *data)
{
    if (type == CURLINFO_HEADER_OUT) {
        worker_smtp_said(data, line, len);
    }

    return 0;
}


static bool
worker_smtp_options(worker_http_op_t *op, const worker_smtp_request_t *rq)
{
    char url[320];
    int  n;
    bool v6;

    v6 = strchr(rq->host, ':') != NULL;
    n = snprintf(url, sizeof(url), "%s://%s%s%s:%u/",
                 rq->tls == WORKER_SMTP_TLS ? "smtps" : "smtp", v6 ? "[" : "",
                 rq->host, v6 ? "]" : "", rq->port);
    if (n < 0 || (size_t) n >= sizeof(url)) {
        return false;
    }

    if (rq->user != NULL && rq->user[0] != '\0'
        && (curl_easy_setopt(op->easy, CURLOPT_USERNAME, rq->user)
            || curl_easy_setopt(op->easy, CURLOPT_PASSWORD,
                                rq->password ? rq->password : "")))
    {
        return false;
    }

    if (rq->tls == WORKER_SMTP_STARTTLS
        && curl_easy_setopt(op->easy, CURLOPT_USE_SSL, (long) CURLUSESSL_ALL))
    {
        return false;
    }

    return !curl_easy_setopt(op->easy, CURLOPT_PROTOCOLS_STR, "smtp,smtps")
        && !curl_easy_setopt(op->easy, CURLOPT_URL, url)
        && !curl_easy_setopt(op->easy, CURLOPT_MAIL_FROM, rq->from)
        && !curl_easy_setopt(op->easy, CURLOPT_MAIL_RCPT, op->lines)
        && !curl_easy_setopt(op->easy, CURLOPT_UPLOAD, 1L)
        && !curl_easy_setopt(op->easy, CURLOPT_INFILESIZE_LARGE,
                             (curl_off_t) rq->message.len)
        && !curl_easy_setopt(op->easy, CURLOPT_READFUNCTION, worker_http_read)
        && !curl_easy_setopt(op->easy, CURLOPT_READDATA, op)
        && !curl_easy_setopt(op->easy, CURLOPT_DEBUGFUNCTION, worker_smtp_watch)
        && !curl_easy_setopt(op->easy, CURLOPT_DEBUGDATA, op)
        && !curl_easy_setopt(op->easy, CURLOPT_VERBOSE, 1L);
}


worker_http_op_t *
worker_smtp_start(worker_http_t *http, stoa_mem_t *mem,
                  const worker_smtp_request_t *rq, worker_http_done_pt done,
                  void *data)
{
    worker_http_op_t *op;

    op = worker_http_op_create(http, mem, done, data);
    if (op == NULL) {
        return NULL;
    }

    op->smtp = true;
    op->step = WORKER_SMTP_CONNECT;
    op->upload = rq->message;
    stoa_buf_init(&op->body, mem, 64, 64);

    op->lines = curl_slist_append(NULL, rq->to);

    if (op->lines == NULL
        || !worker_http_common(op, rq->timeout_ms, rq->ca_file)
        || !worker_smtp_options(op, rq))
    {
        worker_http_op_close(op);
        return NULL;
    }

    return worker_http_submit(op, &http->mail);
}


void
worker_http_cancel(worker_http_op_t *op)
{
    worker_http_op_close(op);
}


static worker_http_op_t *
worker_http_op_create(worker_http_t *http, stoa_mem_t *mem,
                      worker_http_done_pt done, void *data)
{
    worker_http_op_t *op;

    op = stoa_calloc(mem, sizeof(worker_http_op_t));
    if (op == NULL) {
        return NULL;
    }

    op->magic = WORKER_HTTP_OP_MAGIC;
    op->http = http;
    op->mem = mem;
    op->done = done;
    op->data = data;
    op->step = WORKER_SMTP_CONNECT;
    stoa_buf_init(&op->headers, mem, 1024, WORKER_HTTP_HEADERS_MAX);

    op->easy = curl_easy_init();
    if (op->easy == NULL) {
        return NULL;
    }

    /* in flight from here on, so that every failure has one exit */

    op->next = http->ops;
    op->link = &http->ops;
    if (op->next != NULL) {
        op->next->link = &op->next;
    }
    http->ops = op;

    if (!mem->on_free(mem->ctx, worker_http_op_gone, op)) {
        worker_http_op_close(op);
        return NULL;
    }

    return op;
}


static void
worker_http_op_gone(void *data)
{
    worker_http_op_close(data);
}


static void
worker_http_op_close(worker_http_op_t *op)
{
    if (op->link == NULL) {
        return;
    }

    *op->link = op->next;
    if (op->next != NULL) {
        op->next->link = op->link;
    }
    op->link = NULL;

    if (op->lane != NULL) {
        (void) curl_multi_remove_handle(op->lane->multi, op->easy);
    }

    curl_easy_cleanup(op->easy);
    curl_slist_free_all(op->lines);
    op->easy = NULL;
    op->lines = NULL;
}


static bool
worker_http_common(worker_http_op_t *op, uint32_t timeout_ms,
                   const char *ca_file)
{
    CURL *e = op->easy;
    long  connect_ms;

    connect_ms = timeout_ms < WORKER_HTTP_CONNECT_MS ? (long) timeout_ms
                                                     : WORKER_HTTP_CONNECT_MS;

    if (ca_file != NULL && ca_file[0] != '\0'
        && curl_easy_setopt(e, CURLOPT_CAINFO, ca_file))
    {
        return false;
    }

    return !curl_easy_setopt(e, CURLOPT_PRIVATE, op)
        && !curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L)
        && !curl_easy_setopt(e, CURLOPT_PROXY, "")
        && !curl_easy_setopt(e, CURLOPT_ERRORBUFFER, op->error)
        && !curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long) timeout_ms)
        && !curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, connect_ms)
        && !curl_easy_setopt(e, CURLOPT_SSLVERSION,
                             (long) CURL_SSLVERSION_TLSv1_2)
        && !curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, worker_http_write)
        && !curl_easy_setopt(e, CURLOPT_WRITEDATA, op)
        && !curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, worker_http_header_line)
        && !curl_easy_setopt(e, CURLOPT_HEADERDATA, op);
}


static worker_http_op_t *
worker_http_submit(worker_http_op_t *op, worker_http_lane_t *lane)
{
    if (curl_multi_add_handle(lane->multi, op->easy) != CURLM_OK) {
        worker_http_op_close(op);
        return NULL;
    }

    op->lane = lane;

    return op;
}
