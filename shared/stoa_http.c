/*
 * The libcurl door: multi_socket_action() driven by a stoa_loop_t, for
 * HTTP(S) and SMTP(S).
 *
 * A lane is one multi handle with its timer, made by its first operation;
 * there is one for HTTP and one for mail.  An operation lives in its caller's
 * memory; its easy handle is the only foreign thing and is freed when the
 * operation ends, is canceled, or its memory goes.  What needs no libcurl is
 * in stoa_http_op.c.
 *
 * Names are looked up by libcurl's threads.  Nobody waits for them: an
 * operation that ends meanwhile leaves its thread to itself, so the library
 * is kept in memory, whoever unloads the module that brought it.  Signals are
 * the main thread's: they are blocked wherever a thread may be made.
 *
 * Not here: retries, what a status means, redirects (never followed).
 */

#include "stoa_http.h"
#include "stoa_hmac.h"
#include "stoa_http_int.h"
#include "stoa_str.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <curl/curl.h>

#define STOA_HTTP_MAGIC    0x77687470u
#define STOA_HTTP_OP_MAGIC 0x77686f70u

#define STOA_HTTP_HEADERS_MAX 32768
#define STOA_HTTP_CONNECT_MS  10000
#define STOA_HTTP_PER_HOST    16
#define STOA_SMTP_PER_HOST    5

_Static_assert(STOA_HTTP_ERROR_SIZE >= CURL_ERROR_SIZE,
               "an operation has room for libcurl's sentence");

static bool stoa_http_lane_init(stoa_http_t *http, stoa_http_lane_t *lane,
                                long per_host);
static void stoa_http_lane_deinit(stoa_http_lane_t *lane);
static void stoa_http_act(stoa_http_lane_t *lane, curl_socket_t fd, int events);
static stoa_http_op_t *stoa_http_op_create(stoa_http_t *http, stoa_mem_t *mem,
                                           stoa_http_done_pt done, void *data);
static void            stoa_http_op_close(stoa_http_op_t *op);
static void            stoa_http_op_gone(void *data);

static bool stoa_http_common(stoa_http_op_t *op, uint32_t timeout_ms,
                             uint32_t connect_ms, const char *ca_file);

static stoa_http_op_t *stoa_http_submit(stoa_http_op_t   *op,
                                        stoa_http_lane_t *lane, long per_host);


/* A thread may return into libcurl when whoever loaded it is gone. */
static void
stoa_http_pin(void)
{
    Dl_info info;

    if (dladdr((void *) (uintptr_t) curl_global_init, &info) != 0
        && info.dli_fname != NULL)
    {
        (void) dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
    }
}


stoa_http_t *
stoa_http_create(stoa_loop_t *loop, stoa_http_reach_e reach)
{
    stoa_http_t *http;

    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return NULL;
    }

    http = calloc(1, sizeof(stoa_http_t));
    if (http == NULL) {
        curl_global_cleanup();
        return NULL;
    }

    stoa_http_pin();

    http->magic = STOA_HTTP_MAGIC;
    http->loop = loop;
    http->reach = reach;

    return http;
}


void
stoa_http_destroy(stoa_http_t *http)
{
    while (http->ops != NULL) {
        stoa_http_op_close(http->ops);
    }

    stoa_http_lane_deinit(&http->web);
    stoa_http_lane_deinit(&http->mail);

    http->magic = 0;
    free(http);
    curl_global_cleanup();
}


/* The loop */


void
stoa_http_sock_ready(stoa_watch_t *w, bool readable, bool writable)
{
    stoa_http_sock_t *s = w->data;

    stoa_http_act(s->lane, w->fd,
                  (readable ? CURL_CSELECT_IN : 0)
                      | (writable ? CURL_CSELECT_OUT : 0));
}


static int
stoa_http_socket(CURL *easy, curl_socket_t fd, int what, void *data,
                 void *sockp)
{
    stoa_http_lane_t *lane = data;
    stoa_http_sock_t *s = sockp;
    stoa_loop_t      *loop = lane->http->loop;

    if (what == CURL_POLL_REMOVE) {
        if (s != NULL) {
            (void) curl_multi_assign(lane->multi, fd, NULL);
            stoa_http_sock_remove(lane, s);
        }

        return 0;
    }

    if (s == NULL) {
        s = stoa_http_sock_create(lane, fd);
        if (s == NULL) {
            return -1;
        }

        if (curl_multi_assign(lane->multi, fd, s) != CURLM_OK) {
            stoa_http_sock_remove(lane, s);
            return -1;
        }
    }

    loop->watch_want(loop, &s->watch, (what & CURL_POLL_IN) != 0,
                     (what & CURL_POLL_OUT) != 0);
    return 0;
}


static int
stoa_http_timer(CURLM *multi, long ms, void *data)
{
    stoa_http_lane_t *lane = data;
    stoa_loop_t      *loop = lane->http->loop;

    if (ms < 0) {
        loop->timer_cancel(loop, &lane->timer);

    } else {
        loop->timer_set(loop, &lane->timer, (uint64_t) ms);
    }

    return 0;
}


static void
stoa_http_fire(stoa_timer_t *t)
{
    stoa_http_act(t->data, CURL_SOCKET_TIMEOUT, 0);
}


static bool
stoa_http_lane_init(stoa_http_t *http, stoa_http_lane_t *lane, long per_host)
{
    /* after a failure: what is there is taken down with the client */
    lane->http = http;
    lane->timer.data = lane;
    lane->timer.fire = stoa_http_fire;
    lane->sweep.data = lane;
    lane->sweep.run = stoa_http_sweep;

    lane->multi = curl_multi_init();

    return lane->multi != NULL
        && curl_multi_setopt(lane->multi, CURLMOPT_SOCKETFUNCTION,
                             stoa_http_socket)
               == CURLM_OK
        && curl_multi_setopt(lane->multi, CURLMOPT_SOCKETDATA, lane) == CURLM_OK
        && curl_multi_setopt(lane->multi, CURLMOPT_TIMERFUNCTION,
                             stoa_http_timer)
               == CURLM_OK
        && curl_multi_setopt(lane->multi, CURLMOPT_TIMERDATA, lane) == CURLM_OK
        && curl_multi_setopt(lane->multi, CURLMOPT_MAX_HOST_CONNECTIONS,
                             per_host)
               == CURLM_OK
        && curl_multi_setopt(lane->multi, CURLMOPT_MAXCONNECTS, per_host)
               == CURLM_OK;
}


static void
stoa_http_lane_deinit(stoa_http_lane_t *lane)
{
    stoa_loop_t *loop;

    if (lane->http == NULL) {
        return;
    }

    loop = lane->http->loop;

    if (lane->multi != NULL) {
        (void) curl_multi_cleanup(lane->multi);
        stoa_crypto_forget();
    }

    while (lane->open != NULL) {
        stoa_http_sock_remove(lane, lane->open);
    }

    loop->timer_close(loop, &lane->timer);
    loop->defer_close(loop, &lane->sweep);
    stoa_http_sweep(&lane->sweep);
}


/* Ending */


static void
stoa_http_finish(stoa_http_op_t *op, CURLcode code)
{
    long               status = 0, sent = 0;
    stoa_str_t         text;
    stoa_http_answer_t a;

    (void) curl_easy_getinfo(op->easy, CURLINFO_RESPONSE_CODE, &status);
    (void) curl_easy_getinfo(op->easy, CURLINFO_REQUEST_SIZE, &sent);

    memset(&a, 0, sizeof(a));
    a.op = op;
    a.end = stoa_http_end(op, code == CURLE_OK, status, sent);
    a.step = op->step;
    a.body = stoa_buf_view(op->smtp ? &op->headers : &op->body);

    if (status >= 0 && status <= 999) {
        a.status = (int) status;
    }

    text = stoa_str_z(op->private            ? "the address is not public"
                      : op->error[0] != '\0' ? op->error
                                             : curl_easy_strerror(code));
    a.message = stoa_strdup_z(op->mem, text);
    if (a.message == NULL) {
        a.message = "";
    }

    stoa_http_op_close(op);
    op->done(&a, op->data);
}


static void
stoa_http_act(stoa_http_lane_t *lane, curl_socket_t fd, int events)
{
    int       left;
    char     *private_data;
    CURLMsg  *m;
    CURLMcode rc;
    CURLcode  code;
    sigset_t  all, was;

    /* as nginx does for its threads: faults stay with whoever made them */
    (void) sigfillset(&all);
    (void) sigdelset(&all, SIGILL);
    (void) sigdelset(&all, SIGFPE);
    (void) sigdelset(&all, SIGSEGV);
    (void) sigdelset(&all, SIGBUS);
    (void) pthread_sigmask(SIG_SETMASK, &all, &was);

    rc = curl_multi_socket_action(lane->multi, fd, events, &left);

    (void) pthread_sigmask(SIG_SETMASK, &was, NULL);
    stoa_crypto_forget();

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

        stoa_http_finish(stoa_cast(stoa_http_op_t, STOA_HTTP_OP_MAGIC,
                                   (void *) private_data),
                         code);
    }
}


/* Operations */


stoa_http_op_t *
stoa_http_start(stoa_http_t *http, stoa_mem_t *mem,
                const stoa_http_request_t *rq, stoa_http_done_pt done,
                void *data)
{
    size_t             i;
    stoa_http_op_t    *op;
    struct curl_slist *s;

    op = stoa_http_op_create(http, mem, done, data);
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

    if (!stoa_http_common(op, rq->timeout_ms, rq->connect_ms, rq->ca_file)
        || curl_easy_setopt(op->easy, CURLOPT_PROTOCOLS_STR,
                            http->reach == STOA_HTTP_ANY ? "http,https"
                                                         : "https")
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

    return stoa_http_submit(op, &http->web, STOA_HTTP_PER_HOST);

failed:

    stoa_http_op_close(op);
    return NULL;
}


static int
stoa_smtp_watch(CURL *easy, curl_infotype type, char *line, size_t len,
                void *data)
{
    if (type == CURLINFO_HEADER_OUT) {
        stoa_smtp_said(data, line, len);
    }

    return 0;
}


static bool
stoa_smtp_options(stoa_http_op_t *op, const stoa_smtp_request_t *rq)
{
    char url[320];
    int  n;
    bool v6;

    v6 = strchr(rq->host, ':') != NULL;
    n = snprintf(url, sizeof(url), "%s://%s%s%s:%u/",
                 rq->tls == STOA_SMTP_TLS ? "smtps" : "smtp", v6 ? "[" : "",
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

    if (rq->tls == STOA_SMTP_STARTTLS
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
        && !curl_easy_setopt(op->easy, CURLOPT_READFUNCTION, stoa_http_read)
        && !curl_easy_setopt(op->easy, CURLOPT_READDATA, op)
        && !curl_easy_setopt(op->easy, CURLOPT_DEBUGFUNCTION, stoa_smtp_watch)
        && !curl_easy_setopt(op->easy, CURLOPT_DEBUGDATA, op)
        && !curl_easy_setopt(op->easy, CURLOPT_VERBOSE, 1L);
}


stoa_http_op_t *
stoa_smtp_start(stoa_http_t *http, stoa_mem_t *mem,
                const stoa_smtp_request_t *rq, stoa_http_done_pt done,
                void *data)
{
    stoa_http_op_t *op;

    op = stoa_http_op_create(http, mem, done, data);
    if (op == NULL) {
        return NULL;
    }

    op->smtp = true;
    op->step = STOA_SMTP_CONNECT;
    op->upload = rq->message;
    stoa_buf_init(&op->body, mem, 64, 64);

    op->lines = curl_slist_append(NULL, rq->to);

    if (op->lines == NULL
        || !stoa_http_common(op, rq->timeout_ms, 0, rq->ca_file)
        || !stoa_smtp_options(op, rq))
    {
        stoa_http_op_close(op);
        return NULL;
    }

    return stoa_http_submit(op, &http->mail, STOA_SMTP_PER_HOST);
}


void
stoa_http_cancel(stoa_http_op_t *op)
{
    stoa_http_op_close(op);
}


static stoa_http_op_t *
stoa_http_op_create(stoa_http_t *http, stoa_mem_t *mem, stoa_http_done_pt done,
                    void *data)
{
    stoa_http_op_t *op;

    op = stoa_calloc(mem, sizeof(stoa_http_op_t));
    if (op == NULL) {
        return NULL;
    }

    op->magic = STOA_HTTP_OP_MAGIC;
    op->http = http;
    op->mem = mem;
    op->done = done;
    op->data = data;
    op->step = STOA_SMTP_CONNECT;
    stoa_buf_init(&op->headers, mem, 1024, STOA_HTTP_HEADERS_MAX);

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

    if (!mem->on_free(mem->ctx, stoa_http_op_gone, op)) {
        stoa_http_op_close(op);
        return NULL;
    }

    return op;
}


static void
stoa_http_op_gone(void *data)
{
    stoa_http_op_close(data);
}


static void
stoa_http_op_close(stoa_http_op_t *op)
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
    stoa_crypto_forget();
    op->easy = NULL;
    op->lines = NULL;
}


/* What the name led to is judged here, where it is connected to. */
static curl_socket_t
stoa_http_open(void *data, curlsocktype purpose, struct curl_sockaddr *a)
{
    stoa_http_op_t *op = data;

    if (op->http->reach == STOA_HTTP_PUBLIC && !stoa_http_is_public(&a->addr)) {
        op->private = true;
        return CURL_SOCKET_BAD;
    }

    return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}


static bool
stoa_http_common(stoa_http_op_t *op, uint32_t timeout_ms, uint32_t connect_ms,
                 const char *ca_file)
{
    CURL *e = op->easy;

    connect_ms = connect_ms != 0 ? connect_ms : STOA_HTTP_CONNECT_MS;
    connect_ms = timeout_ms < connect_ms ? timeout_ms : connect_ms;

    if (ca_file != NULL && ca_file[0] != '\0'
        && curl_easy_setopt(e, CURLOPT_CAINFO, ca_file))
    {
        return false;
    }

    /* no folder of certificates: with one, libcurl reads the whole bundle for
       each connection instead of once a day */

    return !curl_easy_setopt(e, CURLOPT_PRIVATE, op)
        && !curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L)
        && !curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L)
        && !curl_easy_setopt(e, CURLOPT_PROXY, "")
        && !curl_easy_setopt(e, CURLOPT_CAPATH, NULL)
        && !curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, stoa_http_open)
        && !curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, op)
        && !curl_easy_setopt(e, CURLOPT_ERRORBUFFER, op->error)
        && !curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long) timeout_ms)
        && !curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long) connect_ms)
        && !curl_easy_setopt(e, CURLOPT_SSLVERSION,
                             (long) CURL_SSLVERSION_TLSv1_2)
        && !curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, stoa_http_write)
        && !curl_easy_setopt(e, CURLOPT_WRITEDATA, op)
        && !curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, stoa_http_header_line)
        && !curl_easy_setopt(e, CURLOPT_HEADERDATA, op);
}


static stoa_http_op_t *
stoa_http_submit(stoa_http_op_t *op, stoa_http_lane_t *lane, long per_host)
{
    if ((lane->http == NULL && !stoa_http_lane_init(op->http, lane, per_host))
        || curl_multi_add_handle(lane->multi, op->easy) != CURLM_OK)
    {
        stoa_http_op_close(op);
        return NULL;
    }

    op->lane = lane;

    return op;
}
