/*
 * The mail writer: see worker_mime.h for the shape.
 *
 * Texts go out as quoted-printable, or as base64 when more than a sixth of
 * the bytes is not ASCII (RFC 2045 6.8: both are legal; base64 is shorter for
 * Arabic); both are in worker_mime_code.c.  Boundaries hold "=_", which
 * neither encoding can produce, so no body has to be searched.  Control
 * characters in header values become spaces: a value can never start a header
 * of its own.
 */

#include "worker_mime_int.h"

#include <stdio.h>

#include "../shared/stoa_str.h"
#include "../shared/stoa_time.h"

typedef enum {
    WORKER_MIME_MIXED = 0,
    WORKER_MIME_ALTERNATIVE,
    WORKER_MIME_RELATED
} worker_mime_level_e;


static void worker_mime_header(stoa_buf_t *out, const char *name,
                               stoa_str_t value);
static void worker_mime_person(stoa_buf_t *out, const char *name,
                               const worker_mime_who_t *who);
static void worker_mime_date(stoa_buf_t *out, int64_t ms);
static void worker_mime_open(stoa_buf_t *out, const worker_mime_t *m,
                             worker_mime_level_e level);
static void worker_mime_line(stoa_buf_t *out, const worker_mime_t *m,
                             worker_mime_level_e level, bool last);
static void worker_mime_text(stoa_buf_t *out, const char *subtype,
                             stoa_str_t text);
static void worker_mime_html(stoa_buf_t *out, const worker_mime_t *m);
static void worker_mime_part(stoa_buf_t *out, const worker_mime_part_t *part,
                             const char *disposition);


bool
worker_mime_write(stoa_buf_t *out, const worker_mime_t *m)
{
    size_t i;

    worker_mime_date(out, m->date_ms);
    worker_mime_person(out, "From", &m->from);
    worker_mime_person(out, "To", &m->to);
    worker_mime_header(out, "Subject", m->subject);
    stoa_buf_printf(out, "Message-ID: <%s>\r\n", m->message_id);
    stoa_buf_z(out, "Auto-Submitted: auto-generated\r\n");

    if (m->language != NULL) {
        stoa_buf_printf(out, "Content-Language: %s\r\n", m->language);
    }

    stoa_buf_z(out, "MIME-Version: 1.0\r\n");

    if (m->nattachments > 0) {
        worker_mime_open(out, m, WORKER_MIME_MIXED);
        worker_mime_line(out, m, WORKER_MIME_MIXED, false);
    }

    if (m->html.len > 0) {
        worker_mime_open(out, m, WORKER_MIME_ALTERNATIVE);
        worker_mime_line(out, m, WORKER_MIME_ALTERNATIVE, false);
        worker_mime_text(out, "plain", m->text);
        worker_mime_line(out, m, WORKER_MIME_ALTERNATIVE, false);
        worker_mime_html(out, m);
        worker_mime_line(out, m, WORKER_MIME_ALTERNATIVE, true);

    } else {
        worker_mime_text(out, "plain", m->text);
    }

    if (m->nattachments > 0) {
        for (i = 0; i < m->nattachments; i++) {
            worker_mime_line(out, m, WORKER_MIME_MIXED, false);
            worker_mime_part(out, &m->attachments[i], "attachment");
        }

        worker_mime_line(out, m, WORKER_MIME_MIXED, true);
    }

    return !out->failed;
}


bool
worker_mime_address(stoa_str_t s)
{
    size_t        i, at;
    unsigned char c;

    at = s.len;

    if (s.len < 3 || s.len > 254 || s.data[0] == '-') {
        return false;
    }

    for (i = 0; i < s.len; i++) {
        c = s.data[i];

        if (c == '@') {
            if (at != s.len) {
                return false;
            }

            at = i;
            continue;
        }

        if (c <= ' ' || c >= 0x7f || strchr("\"(),:;<>[\\]", c) != NULL) {
            return false;
        }
    }

    return at > 0 && at <= 64 && at + 1 < s.len && s.data[at + 1] != '.'
        && s.data[s.len - 1] != '.';
}


bool
worker_mime_who(stoa_str_t s, worker_mime_who_t *who)
{
    unsigned char *lt;

    memset(who, 0, sizeof(*who));

    lt = s.len > 0 ? memchr(s.data, '<', s.len) : NULL;

    if (lt == NULL) {
        who->address = s;
        return worker_mime_address(s);
    }

    if (s.data[s.len - 1] != '>') {
        return false;
    }

    who->name.data = s.data;
    who->name.len = (size_t) (lt - s.data);
    who->address.data = lt + 1;
    who->address.len = s.len - who->name.len - 2;

    while (who->name.len > 0 && who->name.data[who->name.len - 1] == ' ') {
        who->name.len--;
    }

    if (who->name.len >= 2 && who->name.data[0] == '"'
        && who->name.data[who->name.len - 1] == '"')
    {
        who->name.data++;
        who->name.len -= 2;
    }

    return worker_mime_address(who->address);
}


/* Headers */


static unsigned char
worker_mime_clean(unsigned char c)
{
    return c < ' ' || c == 0x7f ? ' ' : c;
}


static bool
worker_mime_is_ascii(stoa_str_t s)
{
    size_t i;

    for (i = 0; i < s.len; i++) {
        if (s.data[i] >= 0x80) {
            return false;
        }
    }

    /* what looks like an encoded word would be decoded by the reader */

    for (i = 0; i + 1 < s.len; i++) {
        if (s.data[i] == '=' && s.data[i + 1] == '?') {
            return false;
        }
    }

    return true;
}


/* Encoded words of at most 75 characters, never splitting a character: 45
   bytes make 60, with the frame 72. */

static void
worker_mime_words(stoa_buf_t *out, stoa_str_t s)
{
    size_t        i, n, k;
    unsigned char part[45];

    for (i = 0; i < s.len; i += n) {
        for (n = 0; i + n < s.len; n += k) {
            k = worker_mime_step(s.data + i + n, s.len - i - n);

            if (n + k > sizeof(part)) {
                break;
            }
        }

        for (k = 0; k < n; k++) {
            part[k] = worker_mime_clean(s.data[i + k]);
        }

        if (i > 0) {
            stoa_buf_z(out, "\r\n ");
        }

        stoa_buf_z(out, "=?UTF-8?B?");
        worker_mime_b64(out, part, n);
        stoa_buf_z(out, "?=");
    }
}


/* Plain words, folded before the one that would pass 76 characters. */

static void
worker_mime_fold(stoa_buf_t *out, stoa_str_t s, size_t column)
{
    size_t        i, k, word;
    unsigned char c;

    for (i = 0; i < s.len; i++) {
        c = worker_mime_clean(s.data[i]);

        if (c == ' ' && i + 1 < s.len
            && worker_mime_clean(s.data[i + 1]) != ' ') {
            word = 1;
            for (k = i + 1; k < s.len && worker_mime_clean(s.data[k]) != ' ';
                 k++) {
                word++;
            }

            if (column + word > WORKER_MIME_LINE) {
                stoa_buf_z(out, "\r\n");
                column = 0;
            }
        }

        stoa_buf_char(out, (char) c);
        column++;
    }
}


static stoa_str_t
worker_mime_trim(stoa_str_t s)
{
    while (s.len > 0 && worker_mime_clean(s.data[s.len - 1]) == ' ') {
        s.len--;
    }

    while (s.len > 0 && worker_mime_clean(s.data[0]) == ' ') {
        s.data++;
        s.len--;
    }

    return s;
}


static void
worker_mime_header(stoa_buf_t *out, const char *name, stoa_str_t value)
{
    bool ascii;

    value = worker_mime_trim(value);
    ascii = worker_mime_is_ascii(value);

    stoa_buf_printf(out, "%s:", name);

    if (ascii) {
        stoa_buf_char(out, ' ');
        worker_mime_fold(out, value, strlen(name) + 2);

    } else {
        stoa_buf_z(out, "\r\n ");
        worker_mime_words(out, value);
    }

    stoa_buf_z(out, "\r\n");
}


/* A display name is a quoted string or encoded words (RFC 5322 3.4). */

static void
worker_mime_person(stoa_buf_t *out, const char *name,
                   const worker_mime_who_t *who)
{
    size_t        i;
    stoa_str_t    shown;
    unsigned char c;

    shown = worker_mime_trim(who->name);
    stoa_buf_printf(out, "%s:", name);

    if (shown.len > 0 && shown.len <= 60 && worker_mime_is_ascii(shown)) {
        stoa_buf_z(out, " \"");

        for (i = 0; i < shown.len; i++) {
            c = worker_mime_clean(shown.data[i]);

            if (c == '"' || c == '\\') {
                stoa_buf_char(out, '\\');
            }

            stoa_buf_char(out, (char) c);
        }

        stoa_buf_z(out, "\"\r\n");

    } else if (shown.len > 0) {
        stoa_buf_z(out, "\r\n ");
        worker_mime_words(out, shown);
        stoa_buf_z(out, "\r\n");
    }

    stoa_buf_z(out, " <");
    stoa_buf_str(out, who->address);
    stoa_buf_z(out, ">\r\n");
}


static void
worker_mime_date(stoa_buf_t *out, int64_t ms)
{
    char    t[24];
    int     month;
    int64_t days;

    static const char *const wdays[] = { "Thu", "Fri", "Sat", "Sun",
                                         "Mon", "Tue", "Wed" };
    static const char *const months[] = { "Jan", "Feb", "Mar", "Apr",
                                          "May", "Jun", "Jul", "Aug",
                                          "Sep", "Oct", "Nov", "Dec" };

    stoa_time_print(ms, t); /* 2026-01-02T03:04:05.678Z */
    month = (t[5] - '0') * 10 + (t[6] - '0');
    days = ms / 86400000; /* 1970-01-01 was a Thursday */

    stoa_buf_printf(out, "Date: %s, %.2s %s %.4s %.8s +0000\r\n",
                    wdays[days % 7], t + 8, months[(month - 1) % 12], t,
                    t + 11);
}


/* Parts */


static void
worker_mime_open(stoa_buf_t *out, const worker_mime_t *m,
                 worker_mime_level_e level)
{
    static const char *const names[] = { "mixed", "alternative",
                                         "related; type=\"text/html\"" };

    stoa_buf_printf(out,
                    "Content-Type: multipart/%s;\r\n"
                    " boundary=\"=_%s.%d\"\r\n\r\n",
                    names[level], m->boundary, (int) level);
}


static void
worker_mime_line(stoa_buf_t *out, const worker_mime_t *m,
                 worker_mime_level_e level, bool last)
{
    stoa_buf_printf(out, "\r\n--=_%s.%d%s\r\n", m->boundary, (int) level,
                    last ? "--" : "");
}


static void
worker_mime_text(stoa_buf_t *out, const char *subtype, stoa_str_t text)
{
    size_t i, high;

    high = 0;
    for (i = 0; i < text.len; i++) {
        high += text.data[i] >= 0x80;
    }

    stoa_buf_printf(out, "Content-Type: text/%s; charset=UTF-8\r\n", subtype);

    if (high > text.len / 6) {
        stoa_buf_z(out, "Content-Transfer-Encoding: base64\r\n\r\n");
        worker_mime_b64_lines(out, text);

    } else {
        stoa_buf_z(out, "Content-Transfer-Encoding: quoted-printable\r\n\r\n");
        worker_mime_qp(out, text);
    }
}


static void
worker_mime_html(stoa_buf_t *out, const worker_mime_t *m)
{
    size_t i;

    if (m->ninlines == 0) {
        worker_mime_text(out, "html", m->html);
        return;
    }

    worker_mime_open(out, m, WORKER_MIME_RELATED);
    worker_mime_line(out, m, WORKER_MIME_RELATED, false);
    worker_mime_text(out, "html", m->html);

    for (i = 0; i < m->ninlines; i++) {
        worker_mime_line(out, m, WORKER_MIME_RELATED, false);
        worker_mime_part(out, &m->inlines[i], "inline");
    }

    worker_mime_line(out, m, WORKER_MIME_RELATED, true);
}


/* RFC 2231: percent-encoded UTF-8, so that no name needs quoting. */

static void
worker_mime_filename(stoa_buf_t *out, const char *name)
{
    unsigned char        c;
    const unsigned char *p;

    stoa_buf_z(out, ";\r\n filename*=UTF-8''");

    for (p = (const unsigned char *) name; *p != '\0'; p++) {
        c = *p;

        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
            || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_')
        {
            stoa_buf_char(out, (char) c);

        } else {
            stoa_buf_printf(out, "%%%02X", (unsigned) c);
        }
    }
}


static void
worker_mime_part(stoa_buf_t *out, const worker_mime_part_t *part,
                 const char *disposition)
{
    stoa_buf_printf(out,
                    "Content-Type: %s\r\n"
                    "Content-Transfer-Encoding: base64\r\n",
                    part->type);

    if (part->cid != NULL) {
        stoa_buf_printf(out, "Content-ID: <%s>\r\n", part->cid);
    }

    stoa_buf_printf(out, "Content-Disposition: %s", disposition);

    if (part->name != NULL) {
        worker_mime_filename(out, part->name);
    }

    stoa_buf_z(out, "\r\n\r\n");
    worker_mime_b64_lines(out, part->data);
}
