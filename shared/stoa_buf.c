/*
 * Bounded, growing buffer.  It doubles inside its stoa_mem_t (the old bytes
 * stay there until the request or task ends), never passes its maximum, and
 * fails closed: after the first write that does not fit nothing is written,
 * and .failed tells.
 */

#include "stoa_buf.h"
#include "stoa_str.h"

#include <stdarg.h>
#include <stdio.h>


void
stoa_buf_init(stoa_buf_t *b, stoa_mem_t *mem, size_t first, size_t max)
{
    b->mem = mem;
    b->data = NULL;
    b->len = 0;
    b->size = 0;
    b->max = max;
    b->failed = false;

    if (first > max) {
        first = max;
    }

    if (first != 0) {
        b->data = stoa_alloc(mem, first);
        b->size = b->data != NULL ? first : 0;
    }
}


/* Room for n more bytes and one for a NUL; NULL: failed. */
static unsigned char *
stoa_buf_room(stoa_buf_t *b, size_t n)
{
    size_t         size, want;
    unsigned char *p;

    if (b->failed) {
        return NULL;
    }

    if (n > b->max || b->len > b->max - n) {
        b->failed = true;
        return NULL;
    }

    want = b->len + n;

    if (want > b->size) {
        size = b->size < 64 ? 128 : b->size;

        while (size < want) {
            size = size > SIZE_MAX / 2 ? want : size * 2;
        }

        if (size > b->max) {
            size = b->max;
        }

        p = stoa_alloc(b->mem, size);
        if (p == NULL) {
            b->failed = true;
            return NULL;
        }

        if (b->len != 0) {
            memcpy(p, b->data, b->len);
        }

        b->data = p;
        b->size = size;
    }

    return b->data + b->len;
}


void
stoa_buf_put(stoa_buf_t *b, const void *data, size_t len)
{
    unsigned char *p;

    if (len == 0) {
        return;
    }

    p = stoa_buf_room(b, len);

    if (p != NULL) {
        memcpy(p, data, len);
        b->len += len;
    }
}


void
stoa_buf_base64url(stoa_buf_t *b, const void *data, size_t len)
{
    unsigned char *p;

    if (len == 0) {
        return;
    }

    p = stoa_buf_room(b, stoa_base64url_len(len));

    if (p != NULL) {
        b->len += stoa_base64url_encode(p, data, len);
    }
}


void
stoa_buf_str(stoa_buf_t *b, stoa_str_t s)
{
    stoa_buf_put(b, s.data, s.len);
}


void
stoa_buf_z(stoa_buf_t *b, const char *z)
{
    stoa_buf_put(b, z, strlen(z));
}


void
stoa_buf_char(stoa_buf_t *b, char c)
{
    stoa_buf_put(b, &c, 1);
}


void
stoa_buf_int(stoa_buf_t *b, int64_t n)
{
    char     text[20], *p = text + sizeof(text);
    uint64_t u;

    u = n < 0 ? 0 - (uint64_t) n : (uint64_t) n;

    do {
        *--p = (char) ('0' + u % 10);
        u /= 10;
    } while (u != 0);

    if (n < 0) {
        *--p = '-';
    }

    stoa_buf_put(b, p, (size_t) (text + sizeof(text) - p));
}


void
stoa_buf_uuid(stoa_buf_t *b, const stoa_uuid_t *u)
{
    char *p = (char *) stoa_buf_room(b, 36);

    if (p != NULL) {
        stoa_uuid_print(u, p);
        b->len += 36;
    }
}


void
stoa_buf_printf(stoa_buf_t *b, const char *fmt, ...)
{
    char    small[256], *p;
    va_list args, again;
    int     n;
    size_t  len;

    va_start(args, fmt);
    va_copy(again, args);
    n = vsnprintf(small, sizeof(small), fmt, args);
    va_end(args);

    if (n < 0) {
        b->failed = true;

    } else if ((size_t) n < sizeof(small)) {
        stoa_buf_put(b, small, (size_t) n);

    } else {
        len = (size_t) n;
        p = b->failed ? NULL : stoa_alloc(b->mem, len + 1);

        if (p == NULL || vsnprintf(p, len + 1, fmt, again) != n) {
            b->failed = true;

        } else {
            stoa_buf_put(b, p, len);
        }
    }

    va_end(again);
}


void
stoa_buf_nul(stoa_buf_t *b)
{
    unsigned char *p = stoa_buf_room(b, 1);

    if (p != NULL) {
        *p = '\0';
    }
}


void
stoa_buf_json(stoa_buf_t *b, stoa_str_t s)
{
    static const char hex[] = "0123456789abcdef";
    char              escape[6] = { '\\', 'u', '0', '0', 0, 0 };
    size_t            i, from = 0;
    unsigned char     c;

    stoa_buf_char(b, '"');

    for (i = 0; i < s.len; i++) {
        c = s.data[i];

        if (c >= ' ' && c != '"' && c != '\\') {
            continue;
        }

        stoa_buf_put(b, s.data + from, i - from);
        from = i + 1;

        switch (c) {
        case '"':
            stoa_buf_put(b, "\\\"", 2);
            break;
        case '\\':
            stoa_buf_put(b, "\\\\", 2);
            break;
        case '\n':
            stoa_buf_put(b, "\\n", 2);
            break;
        case '\r':
            stoa_buf_put(b, "\\r", 2);
            break;
        case '\t':
            stoa_buf_put(b, "\\t", 2);
            break;
        default:
            escape[4] = hex[c >> 4];
            escape[5] = hex[c & 15];
            stoa_buf_put(b, escape, 6);
            break;
        }
    }

    if (from < s.len) {
        stoa_buf_put(b, s.data + from, s.len - from);
    }

    stoa_buf_char(b, '"');
}


void
stoa_buf_json_z(stoa_buf_t *b, const char *z)
{
    stoa_buf_json(b, stoa_str_z(z));
}


void
stoa_buf_html(stoa_buf_t *b, stoa_str_t s)
{
    size_t      i, from = 0;
    const char *escape;

    for (i = 0; i < s.len; i++) {
        switch (s.data[i]) {
        case '&':
            escape = "&amp;";
            break;
        case '<':
            escape = "&lt;";
            break;
        case '>':
            escape = "&gt;";
            break;
        case '"':
            escape = "&quot;";
            break;
        case '\'':
            escape = "&#39;";
            break;
        default:
            continue;
        }

        stoa_buf_put(b, s.data + from, i - from);
        stoa_buf_z(b, escape);
        from = i + 1;
    }

    if (from < s.len) {
        stoa_buf_put(b, s.data + from, s.len - from);
    }
}
