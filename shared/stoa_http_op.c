/*
 * What HTTP and SMTP operations need that is not libcurl's: socket records of
 * the loop, what is read and written, and how far an operation came.
 *
 * A socket record lives from libcurl's first word about the socket until
 * CURL_POLL_REMOVE, then waits on a list until the turn ends, because the
 * loop may still stand inside its callback.
 */

#include "stoa_http_int.h"

#include <stdlib.h>
#include <strings.h>

#include "stoa_str.h"


worker_http_sock_t *
worker_http_sock_create(worker_http_lane_t *lane, int fd)
{
    stoa_loop_t        *loop = lane->http->loop;
    worker_http_sock_t *s;

    s = calloc(1, sizeof(worker_http_sock_t));
    if (s == NULL) {
        return NULL;
    }

    s->lane = lane;
    s->watch.data = s;
    s->watch.ready = worker_http_sock_ready;

    if (loop->watch_open(loop, &s->watch, fd) != STOA_OK) {
        free(s);
        return NULL;
    }

    s->next = lane->open;
    lane->open = s;

    return s;
}


void
worker_http_sock_remove(worker_http_lane_t *lane, worker_http_sock_t *s)
{
    stoa_loop_t         *loop = lane->http->loop;
    worker_http_sock_t **p;

    loop->watch_close(loop, &s->watch, true);

    for (p = &lane->open; *p != NULL; p = &(*p)->next) {
        if (*p == s) {
            *p = s->next;
            break;
        }
    }

    s->next = lane->gone;
    lane->gone = s;
    loop->defer(loop, &lane->sweep);
}


void
worker_http_sweep(stoa_defer_t *d)
{
    worker_http_lane_t *lane = d->data;
    worker_http_sock_t *s;

    while ((s = lane->gone) != NULL) {
        lane->gone = s->next;
        free(s);
    }
}


worker_http_end_e
worker_http_end(const worker_http_op_t *op, bool good, long status, long sent)
{
    if (op->smtp) {
        if (good || status >= 400) {
            return WORKER_HTTP_ANSWERED;
        }

        return op->all_read ? WORKER_HTTP_UNKNOWN : WORKER_HTTP_UNREACHED;
    }

    if (good) {
        return WORKER_HTTP_ANSWERED;
    }

    if (op->body.failed) {
        return WORKER_HTTP_TOO_LARGE;
    }

    return sent > 0 ? WORKER_HTTP_UNKNOWN : WORKER_HTTP_UNREACHED;
}


size_t
worker_http_read(char *out, size_t size, size_t n, void *data)
{
    size_t            len;
    worker_http_op_t *op = data;

    len = size * n;

    if (len > op->upload.len) {
        len = op->upload.len;
    }

    if (len == 0) {
        op->all_read = true;
        return 0;
    }

    memcpy(out, op->upload.data, len);
    op->upload.data += len;
    op->upload.len -= len;

    return len;
}


size_t
worker_http_write(char *p, size_t size, size_t n, void *data)
{
    worker_http_op_t *op = data;

    stoa_buf_put(&op->body, p, size * n);

    return op->body.failed ? 0 : size * n;
}


size_t
worker_http_header_line(char *p, size_t size, size_t n, void *data)
{
    size_t            len = size * n;
    worker_http_op_t *op = data;

    if (op->quit) {
        return len;
    }

    /* of a mail server the last line is kept, of a web server the headers of
       the last answer: 100 and 103 come before the real one */

    if (op->smtp || (len >= 5 && memcmp(p, "HTTP/", 5) == 0)) {
        op->headers.len = 0;
    }

    stoa_buf_put(&op->headers, p, len);

    return op->headers.failed ? 0 : len;
}


/* libcurl tells a refused recipient from a refused sender only in words;
   the command that was sent last tells it surely. */

void
worker_smtp_said(worker_http_op_t *op, const char *line, size_t len)
{
    size_t i;

    static const struct {
        const char        *verb;
        worker_smtp_step_e step;
    } verbs[] = {
        { "EHLO", WORKER_SMTP_CONNECT },     { "HELO", WORKER_SMTP_CONNECT },
        { "STARTTLS", WORKER_SMTP_CONNECT }, { "AUTH", WORKER_SMTP_AUTH },
        { "MAIL", WORKER_SMTP_FROM },        { "RCPT", WORKER_SMTP_RCPT },
        { "DATA", WORKER_SMTP_DATA },
    };

    op->quit = len >= 4 && strncasecmp(line, "QUIT", 4) == 0;

    for (i = 0; i < stoa_nitems(verbs); i++) {
        if (len >= strlen(verbs[i].verb)
            && strncasecmp(line, verbs[i].verb, strlen(verbs[i].verb)) == 0)
        {
            op->step = verbs[i].step;
            break;
        }
    }
}


const char *
worker_http_header(const worker_http_answer_t *a, const char *name)
{
    size_t         n;
    stoa_str_t     v;
    unsigned char *p, *end, *nl;

    n = strlen(name);
    p = a->op->headers.data;
    if (p == NULL) {
        return NULL;
    }

    for (end = p + a->op->headers.len; p < end; p = nl + 1) {
        nl = memchr(p, '\n', (size_t) (end - p));
        if (nl == NULL) {
            break;
        }

        if ((size_t) (nl - p) <= n || p[n] != ':'
            || strncasecmp((char *) p, name, n) != 0)
        {
            continue;
        }

        v.data = p + n + 1;
        v.len = (size_t) (nl - v.data);

        while (v.len > 0 && (v.data[0] == ' ' || v.data[0] == '\t')) {
            v.data++;
            v.len--;
        }

        while (v.len > 0
               && (v.data[v.len - 1] == '\r' || v.data[v.len - 1] == ' ')) {
            v.len--;
        }

        return stoa_strdup_z(a->op->mem, v);
    }

    return NULL;
}


void
worker_http_form_add(stoa_buf_t *b, const char *name, stoa_str_t value)
{
    size_t        i, part;
    stoa_str_t    s;
    unsigned char c;

    static const char hex[] = "0123456789ABCDEF";

    if (b->len > 0) {
        stoa_buf_char(b, '&');
    }

    for (part = 0; part < 2; part++) {
        s = part == 0 ? stoa_str_z(name) : value;

        for (i = 0; i < s.len; i++) {
            c = s.data[i];

            if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
                || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_'
                || c == '~')
            {
                stoa_buf_char(b, (char) c);

            } else {
                stoa_buf_char(b, '%');
                stoa_buf_char(b, hex[c >> 4]);
                stoa_buf_char(b, hex[c & 15]);
            }
        }

        if (part == 0) {
            stoa_buf_char(b, '=');
        }
    }
}
