/*
 * Values read in place, without a tree: the members of an object, the items
 * of a list, the kind of a value, the contents of a string.  The texts must
 * have gone through stoa_json_valid() or stoa_json_parse(), each step then
 * scans one value again.  Only the contents of a string are copied.
 */

#include "stoa_json_int.h"
#include "stoa_str.h"


/* Behind the opening bracket or a comma at *at; false: there is no more. */
static bool
stoa_json_step(stoa_json_scan_t *scan, stoa_str_t text, size_t at, char open)
{
    stoa_json_scan_init(scan, text);
    scan->at = at;
    stoa_json_space(scan);

    if (scan->at == scan->len || scan->text[scan->at] != (at ? ',' : open)) {
        return false;
    }

    scan->at++;
    stoa_json_space(scan);

    return scan->at != scan->len;
}


/* The value at scan->at. */
static bool
stoa_json_step_value(stoa_json_scan_t *scan, stoa_str_t text, size_t *at,
                     stoa_str_t *value)
{
    bool   done = false;
    size_t from;

    stoa_json_space(scan);
    from = scan->at;

    while (!done) {
        if (!stoa_json_item(scan, &done)) {
            return false;
        }
    }

    value->data = text.data + from;
    value->len = scan->at - from;
    *at = scan->at;

    return true;
}


bool
stoa_json_walk(stoa_str_t object, size_t *at, stoa_str_t *name,
               stoa_str_t *value)
{
    STOA_UNINIT stoa_json_scan_t scan;
    bool                         escaped;
    size_t                       from;

    if (!stoa_json_step(&scan, object, *at, '{') || scan.text[scan.at] != '"') {
        return false;
    }

    from = scan.at + 1;

    if (!stoa_json_string_scan(&scan, &escaped)) {
        return false;
    }

    name->data = object.data + from;
    name->len = scan.at - 1 - from;
    stoa_json_space(&scan);

    if (scan.at == scan.len || scan.text[scan.at] != ':') {
        return false;
    }

    scan.at++;

    return stoa_json_step_value(&scan, object, at, value);
}


bool
stoa_json_each(stoa_str_t list, size_t *at, stoa_str_t *value)
{
    STOA_UNINIT stoa_json_scan_t scan;

    return stoa_json_step(&scan, list, *at, '[') && scan.text[scan.at] != ']'
        && stoa_json_step_value(&scan, list, at, value);
}


stoa_json_type_e
stoa_json_kind(stoa_str_t value)
{
    size_t i;

    switch (value.data[0]) {
    case '{':
        return STOA_JSON_OBJECT;
    case '[':
        return STOA_JSON_ARRAY;
    case '"':
        return STOA_JSON_STRING;
    case 't':
    case 'f':
        return STOA_JSON_BOOL;
    case 'n':
        return STOA_JSON_NULL;
    default:
        break;
    }

    for (i = 0; i < value.len; i++) {
        if (strchr(".eE", value.data[i]) != NULL) {
            return STOA_JSON_REAL;
        }
    }

    return STOA_JSON_INT;
}


/* U+xxxx behind "\\u" at p as UTF-8; bytes of the escape that were read. */
static size_t
stoa_json_character(const unsigned char *p, unsigned char **out)
{
    unsigned char two[2], *to = *out;
    stoa_str_t    s = { 4, (unsigned char *) (uintptr_t) p };
    uint32_t      c;
    size_t        n = 4;

    (void) stoa_hex_decode(two, 2, s); /* the scanner saw hex digits */
    c = (uint32_t) two[0] << 8 | two[1];

    if (c >= 0xd800 && c <= 0xdbff) {
        s.data += 6;
        (void) stoa_hex_decode(two, 2, s); /* and the other half */
        c = 0x10000 + ((c & 0x3ff) << 10 | ((two[0] & 3U) << 8 | two[1]));
        n = 10;
    }

    if (c < 0x80) {
        *to++ = (unsigned char) c;

    } else if (c < 0x800) {
        *to++ = (unsigned char) (0xc0 | c >> 6);
        *to++ = (unsigned char) (0x80 | (c & 0x3f));

    } else if (c < 0x10000) {
        *to++ = (unsigned char) (0xe0 | c >> 12);
        *to++ = (unsigned char) (0x80 | (c >> 6 & 0x3f));
        *to++ = (unsigned char) (0x80 | (c & 0x3f));

    } else {
        *to++ = (unsigned char) (0xf0 | c >> 18);
        *to++ = (unsigned char) (0x80 | (c >> 12 & 0x3f));
        *to++ = (unsigned char) (0x80 | (c >> 6 & 0x3f));
        *to++ = (unsigned char) (0x80 | (c & 0x3f));
    }

    *out = to;

    return n;
}


bool
stoa_json_content(stoa_mem_t *mem, stoa_str_t value, stoa_str_t *out)
{
    static const char    from[] = "\"\\/bfnrt";
    static const char    to[] = "\"\\/\b\f\n\r\t";
    const unsigned char *p = value.data + 1, *end = p + value.len - 2, *slash;
    unsigned char       *d;
    size_t               run;

    /* an escape is never shorter than what it stands for */
    d = stoa_alloc(mem, value.len);
    if (d == NULL) {
        return false;
    }

    out->data = d;

    while (p < end) {
        slash = memchr(p, '\\', (size_t) (end - p));
        run = (size_t) ((slash != NULL ? slash : end) - p);
        memcpy(d, p, run);
        d += run;
        p += run;

        if (slash == NULL) {
            break;
        }

        p++;

        if (*p == 'u') {
            p += 1 + stoa_json_character(p + 1, &d);

        } else {
            *d++ = (unsigned char) to[strchr(from, *p) - from];
            p++;
        }
    }

    *d = '\0';
    out->len = (size_t) (d - out->data);

    return true;
}
