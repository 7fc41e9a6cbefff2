/*
 * Encodings of mail bodies and words: base64 and quoted-printable (RFC 2045).
 * Lines end with CR LF, whatever the text's own ends were.
 */

#include "worker_mime_int.h"

static const char worker_mime_base64[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";


void
worker_mime_b64(stoa_buf_t *out, const unsigned char *p, size_t len)
{
    uint32_t v;
    size_t   i, n;
    char     four[4];

    for (i = 0; i < len; i += 3) {
        n = len - i < 3 ? len - i : 3;
        v = (uint32_t) p[i] << 16;

        if (n > 1) {
            v |= (uint32_t) p[i + 1] << 8;
        }

        if (n > 2) {
            v |= p[i + 2];
        }

        four[0] = worker_mime_base64[v >> 18];
        four[1] = worker_mime_base64[(v >> 12) & 63];
        four[2] = n > 1 ? worker_mime_base64[(v >> 6) & 63] : '=';
        four[3] = n > 2 ? worker_mime_base64[v & 63] : '=';

        stoa_buf_put(out, four, 4);
    }
}


void
worker_mime_b64_lines(stoa_buf_t *out, stoa_str_t s)
{
    size_t i, n;

    /* 57 bytes are 76 characters */

    for (i = 0; i < s.len; i += 57) {
        n = s.len - i < 57 ? s.len - i : 57;
        worker_mime_b64(out, s.data + i, n);
        stoa_buf_z(out, "\r\n");
    }
}


size_t
worker_mime_step(const unsigned char *p, size_t left)
{
    size_t n;

    n = p[0] < 0xc0 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;

    return n <= left ? n : left;
}


/* *column is the length of the line so far. */

static void
worker_mime_qp_byte(stoa_buf_t *out, unsigned char c, bool plain,
                    size_t *column)
{
    size_t n;
    char   hex[4];

    static const char digits[] = "0123456789ABCDEF";

    n = plain ? 1 : 3;

    if (*column + n > WORKER_MIME_LINE - 1) {
        stoa_buf_z(out, "=\r\n"); /* soft break */
        *column = 0;
    }

    if (plain) {
        stoa_buf_char(out, (char) c);

    } else {
        hex[0] = '=';
        hex[1] = digits[c >> 4];
        hex[2] = digits[c & 15];
        stoa_buf_put(out, hex, 3);
    }

    *column += n;
}


void
worker_mime_qp(stoa_buf_t *out, stoa_str_t s)
{
    bool          plain, at_end;
    size_t        i, column;
    unsigned char c;

    column = 0;

    for (i = 0; i < s.len; i++) {
        c = s.data[i];

        if (c == '\r' && i + 1 < s.len && s.data[i + 1] == '\n') {
            continue;
        }

        if (c == '\n') {
            stoa_buf_z(out, "\r\n");
            column = 0;
            continue;
        }

        /* blanks at the end of a line would get lost on the way */

        at_end = i + 1 == s.len || s.data[i + 1] == '\n'
              || s.data[i + 1] == '\r';
        plain = (c > ' ' && c < 0x7f && c != '=')
             || ((c == ' ' || c == '\t') && !at_end);

        worker_mime_qp_byte(out, c, plain, &column);
    }

    if (column > 0) {
        stoa_buf_z(out, "\r\n");
    }
}
