/*
 * What HTTP and SMTP operations need that is not libcurl's: socket records of
 * the loop, what is read and written, how far an operation came, and which
 * addresses are public.
 *
 * A socket record lives from libcurl's first word about the socket until
 * CURL_POLL_REMOVE, then waits on a list until the turn ends, because the
 * loop may still stand inside its callback.
 */

#include "stoa_http.h"
#include "stoa_http_int.h"
#include "stoa_str.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <strings.h>


stoa_http_sock_t *
stoa_http_sock_create(stoa_http_lane_t *lane, int fd)
{
    stoa_loop_t      *loop = lane->http->loop;
    stoa_http_sock_t *s;

    s = calloc(1, sizeof(stoa_http_sock_t));
    if (s == NULL) {
        return NULL;
    }

    s->lane = lane;
    s->watch.data = s;
    s->watch.ready = stoa_http_sock_ready;

    if (loop->watch_open(loop, &s->watch, fd) != STOA_OK) {
        free(s);
        return NULL;
    }

    s->next = lane->open;
    lane->open = s;

    return s;
}


void
stoa_http_sock_remove(stoa_http_lane_t *lane, stoa_http_sock_t *s)
{
    stoa_loop_t       *loop = lane->http->loop;
    stoa_http_sock_t **p;

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
stoa_http_sweep(stoa_defer_t *d)
{
    stoa_http_lane_t *lane = d->data;
    stoa_http_sock_t *s;

    while ((s = lane->gone) != NULL) {
        lane->gone = s->next;
        free(s);
    }
}


stoa_http_end_e
stoa_http_end(const stoa_http_op_t *op, bool good, long status, long sent)
{
    if (op->smtp) {
        if (good || status >= 400) {
            return STOA_HTTP_ANSWERED;
        }

        return op->all_read ? STOA_HTTP_UNKNOWN : STOA_HTTP_UNREACHED;
    }

    if (good) {
        return STOA_HTTP_ANSWERED;
    }

    if (op->body.failed) {
        return STOA_HTTP_TOO_LARGE;
    }

    return sent > 0 ? STOA_HTTP_UNKNOWN : STOA_HTTP_UNREACHED;
}


size_t
stoa_http_read(char *out, size_t size, size_t n, void *data)
{
    size_t          len;
    stoa_http_op_t *op = data;

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
stoa_http_write(char *p, size_t size, size_t n, void *data)
{
    stoa_http_op_t *op = data;

    stoa_buf_put(&op->body, p, size * n);

    return op->body.failed ? 0 : size * n;
}


size_t
stoa_http_header_line(char *p, size_t size, size_t n, void *data)
{
    size_t          len = size * n;
    stoa_http_op_t *op = data;

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
stoa_smtp_said(stoa_http_op_t *op, const char *line, size_t len)
{
    size_t i;

    static const struct {
        const char      *verb;
        stoa_smtp_step_e step;
    } verbs[] = {
        { "EHLO", STOA_SMTP_CONNECT },     { "HELO", STOA_SMTP_CONNECT },
        { "STARTTLS", STOA_SMTP_CONNECT }, { "AUTH", STOA_SMTP_AUTH },
        { "MAIL", STOA_SMTP_FROM },        { "RCPT", STOA_SMTP_RCPT },
        { "DATA", STOA_SMTP_DATA },
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
stoa_http_header(const stoa_http_answer_t *a, const char *name)
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


/* ---- addresses ---- */

typedef struct {
    unsigned char net[16];
    unsigned      bits;
} stoa_http_net_t;

/* Not globally reachable (RFC 6890 and its registry), or many hosts at once. */
static const stoa_http_net_t stoa_http_special4[] = {
    { { 0 }, 8 },             /* this network */
    { { 10 }, 8 },            /* private */
    { { 100, 64 }, 10 },      /* behind a provider's NAT */
    { { 127 }, 8 },           /* loopback */
    { { 169, 254 }, 16 },     /* link-local, where clouds keep secrets */
    { { 172, 16 }, 12 },      /* private */
    { { 192, 0, 0 }, 24 },    /* protocol assignments */
    { { 192, 0, 2 }, 24 },    /* documentation */
    { { 192, 88, 99 }, 24 },  /* 6to4 relays */
    { { 192, 168 }, 16 },     /* private */
    { { 198, 18 }, 15 },      /* benchmarks */
    { { 198, 51, 100 }, 24 }, /* documentation */
    { { 203, 0, 113 }, 24 },  /* documentation */
    { { 224 }, 3 },           /* multicast, reserved, broadcast */
};

/* Of 2000::/3, outside of which nothing is public. */
static const stoa_http_net_t stoa_http_special6[] = {
    { { 0x20, 0x01 }, 23 },             /* Teredo, ORCHID, benchmarks */
    { { 0x20, 0x01, 0x0d, 0xb8 }, 32 }, /* documentation */
    { { 0x20, 0x02 }, 16 },             /* 6to4: leads to any IPv4 */
    { { 0x3f, 0xff }, 20 },             /* documentation */
};

static const stoa_http_net_t stoa_http_global6 = { { 0x20 }, 3 };

/* The last 32 bits are an address of IPv4. */
static const stoa_http_net_t stoa_http_inside6[] = {
    { { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff }, 96 }, /* mapped */
    { { 0, 0x64, 0xff, 0x9b }, 96 },                      /* NAT64 */
};


static bool
stoa_http_in_net(const unsigned char *a, const stoa_http_net_t *net)
{
    unsigned i, left, mask;

    for (i = 0, left = net->bits; left >= 8; i++, left -= 8) {
        if (a[i] != net->net[i]) {
            return false;
        }
    }

    mask = 0xff00U >> left & 0xff;

    return left == 0 || ((a[i] ^ net->net[i]) & mask) == 0;
}


static bool
stoa_http_in_nets(const unsigned char *a, const stoa_http_net_t *nets, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++) {
        if (stoa_http_in_net(a, &nets[i])) {
            return true;
        }
    }

    return false;
}


bool
stoa_http_is_public(const struct sockaddr *sa)
{
    struct sockaddr_in  in;
    struct sockaddr_in6 in6;
    unsigned char       a[16];

    if (sa->sa_family == AF_INET) {
        memcpy(&in, sa, sizeof(in));
        memcpy(a, &in.sin_addr, 4);

    } else if (sa->sa_family == AF_INET6) {
        memcpy(&in6, sa, sizeof(in6));
        memcpy(a, &in6.sin6_addr, 16);

        if (!stoa_http_in_nets(a, stoa_http_inside6,
                               stoa_nitems(stoa_http_inside6))) {
            return stoa_http_in_net(a, &stoa_http_global6)
                && !stoa_http_in_nets(a, stoa_http_special6,
                                      stoa_nitems(stoa_http_special6));
        }

        memmove(a, a + 12, 4);

    } else {
        return false;
    }

    return !stoa_http_in_nets(a, stoa_http_special4,
                              stoa_nitems(stoa_http_special4));
}


void
stoa_http_form_add(stoa_buf_t *b, const char *name, stoa_str_t value)
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
