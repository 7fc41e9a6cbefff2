/*
 * The JSON scanner: walks a text once and refuses what is not strict JSON
 * (RFC 8259, UTF-8, depth, duplicate members, U+0000, integers beyond
 * +-2^53-1, other numbers beyond a double).  It allocates nothing and does not
 * recurse; names with escapes, and those beyond its room for keys, it leaves
 * to jansson to compare (.unsure).
 */

#include "stoa_json_int.h"
#include "stoa_str.h"

#include <math.h>
#include <stdlib.h>

#define STOA_JSON_SAFE 9007199254740991LL
#define STOA_JSON_REAL 400 /* characters of a number that is none of these */


static bool
stoa_json_fail(stoa_json_scan_t *scan, const char *reason)
{
    scan->reason = reason;

    return false;
}


/* Four hex digits at scan->at. */
static bool
stoa_json_hex(stoa_json_scan_t *scan, unsigned *out)
{
    stoa_str_t    s;
    unsigned char two[2];

    if (scan->len - scan->at < 4) {
        return stoa_json_fail(scan, "syntax");
    }

    s.data = (unsigned char *) (uintptr_t) (scan->text + scan->at);
    s.len = 4;

    if (stoa_hex_decode(two, 2, s) != 2) {
        return stoa_json_fail(scan, "syntax");
    }

    *out = (unsigned) two[0] << 8 | two[1];
    scan->at += 4;

    return true;
}


/* Behind a backslash. */
static bool
stoa_json_escape(stoa_json_scan_t *scan)
{
    unsigned      unit, low;
    unsigned char c;

    if (scan->at == scan->len) {
        return stoa_json_fail(scan, "syntax");
    }

    c = scan->text[scan->at++];

    if (c != 'u') {
        if (c == '\0' || strchr("\"\\/bfnrt", c) == NULL) {
            return stoa_json_fail(scan, "syntax");
        }

        return true;
    }

    if (!stoa_json_hex(scan, &unit)) {
        return false;
    }

    if (unit == 0) {
        return stoa_json_fail(scan, "utf8");
    }

    if (unit < 0xd800 || unit > 0xdfff) {
        return true;
    }

    /* a surrogate: a pair, or no character at all */
    if (unit > 0xdbff || scan->len - scan->at < 6
        || scan->text[scan->at] != '\\' || scan->text[scan->at + 1] != 'u')
    {
        return stoa_json_fail(scan, "utf8");
    }

    scan->at += 2;

    if (!stoa_json_hex(scan, &low)) {
        return false;
    }

    if (low < 0xdc00 || low > 0xdfff) {
        return stoa_json_fail(scan, "utf8");
    }

    return true;
}


/* The first character at p that ends a run of plain ones: a quote, a
   backslash, a control character, or one beyond ASCII. */
static const unsigned char *
stoa_json_plain(const unsigned char *p, const unsigned char *last)
{
    while (p < last && (unsigned char) (*p - ' ') < 0x80 - ' ' && *p != '"'
           && *p != '\\')
    {
        p++;
    }

    return p;
}


bool
stoa_json_string_scan(stoa_json_scan_t *scan, bool *escaped)
{
    stoa_str_t    run;
    size_t        from = ++scan->at;
    bool          high = false;
    unsigned char c;

    *escaped = false;

    for (;;) {
        scan->at = (size_t) (stoa_json_plain(scan->text + scan->at,
                                             scan->text + scan->len)
                             - scan->text);

        if (scan->at == scan->len) {
            return stoa_json_fail(scan, "syntax");
        }

        c = scan->text[scan->at];

        if (c == '"') {
            break;
        }

        if (c < ' ') {
            return stoa_json_fail(scan, "syntax");
        }

        scan->at++;

        if (c >= 0x80) {
            high = true;

        } else if (c == '\\') {
            *escaped = true;

            if (!stoa_json_escape(scan)) {
                return false;
            }
        }
    }

    /* escapes are ASCII, so the run may be judged as a whole */
    run.data = (unsigned char *) (uintptr_t) (scan->text + from);
    run.len = scan->at - from;

    if (high && !stoa_str_utf8(run, NULL)) {
        scan->at = from;
        return stoa_json_fail(scan, "utf8");
    }

    scan->at++;

    return true;
}


static size_t
stoa_json_digits(stoa_json_scan_t *scan)
{
    size_t from = scan->at;

    while (scan->at < scan->len && scan->text[scan->at] >= '0'
           && scan->text[scan->at] <= '9')
    {
        scan->at++;
    }

    return scan->at - from;
}


/* Whether a double holds it: 1e999 would be infinity to who reads it next. */
static bool
stoa_json_finite(stoa_str_t s)
{
    char text[STOA_JSON_REAL + 1];

    if (s.len > STOA_JSON_REAL) {
        return false;
    }

    memcpy(text, s.data, s.len);
    text[s.len] = '\0';

    return isfinite(strtod(text, NULL));
}


static bool
stoa_json_number(stoa_json_scan_t *scan)
{
    stoa_str_t    s;
    size_t        from = scan->at, n;
    int64_t       value;
    bool          whole = true, zero;
    unsigned char c;

    if (scan->text[scan->at] == '-') {
        scan->at++;
    }

    zero = scan->at < scan->len && scan->text[scan->at] == '0';
    n = stoa_json_digits(scan);

    if (n == 0 || (zero && n != 1)) {
        return stoa_json_fail(scan, "syntax");
    }

    s.data = (unsigned char *) (uintptr_t) (scan->text + from);
    s.len = scan->at - from;

    if (scan->at < scan->len && scan->text[scan->at] == '.') {
        whole = false;
        scan->at++;

        if (stoa_json_digits(scan) == 0) {
            return stoa_json_fail(scan, "syntax");
        }
    }

    c = scan->at < scan->len ? scan->text[scan->at] : 0;

    if (c == 'e' || c == 'E') {
        whole = false;
        scan->at++;

        if (scan->at < scan->len
            && (scan->text[scan->at] == '+' || scan->text[scan->at] == '-'))
        {
            scan->at++;
        }

        if (stoa_json_digits(scan) == 0) {
            return stoa_json_fail(scan, "syntax");
        }
    }

    if (!whole) {
        s.len = scan->at - from;
    }

    if (whole ? !stoa_str_int(s, -STOA_JSON_SAFE, STOA_JSON_SAFE, &value)
              : !stoa_json_finite(s))
    {
        scan->at = from;
        return stoa_json_fail(scan, "number_range");
    }

    return true;
}


static bool
stoa_json_word(stoa_json_scan_t *scan, const char *word, size_t len)
{
    if (scan->len - scan->at < len
        || memcmp(scan->text + scan->at, word, len) != 0) {
        return stoa_json_fail(scan, "syntax");
    }

    scan->at += len;

    return true;
}


/* Remembers a key of the open object; false: it is there already. */
static bool
stoa_json_key(stoa_json_scan_t *scan, size_t from, size_t len, bool escaped)
{
    stoa_json_key_t *key;
    uint32_t         hash = 2166136261U;
    size_t           i;

    if (escaped || scan->nkeys == STOA_JSON_KEYS || len > UINT32_MAX
        || from > UINT32_MAX)
    {
        scan->unsure = true;
        return true;
    }

    for (i = 0; i < len; i++) {
        hash = (hash ^ scan->text[from + i]) * 16777619U;
    }

    for (i = scan->first[scan->depth]; i < scan->nkeys; i++) {
        key = &scan->keys[i];

        if (key->hash == hash && key->len == len
            && memcmp(scan->text + key->from, scan->text + from, len) == 0)
        {
            scan->at = from - 1;
            return stoa_json_fail(scan, "duplicate_key");
        }
    }

    key = &scan->keys[scan->nkeys++];
    key->hash = hash;
    key->from = (uint32_t) from;
    key->len = (uint32_t) len;

    return true;
}


/* "name" : at scan->at, inside an object. */
static bool
stoa_json_member(stoa_json_scan_t *scan)
{
    size_t from;
    bool   escaped;

    stoa_json_space(scan);

    if (scan->at == scan->len || scan->text[scan->at] != '"') {
        return stoa_json_fail(scan, "syntax");
    }

    from = scan->at + 1;

    if (!stoa_json_string_scan(scan, &escaped)
        || !stoa_json_key(scan, from, scan->at - 1 - from, escaped))
    {
        return false;
    }

    stoa_json_space(scan);

    if (scan->at == scan->len || scan->text[scan->at] != ':') {
        return stoa_json_fail(scan, "syntax");
    }

    scan->at++;

    return true;
}


/* Opens an array or object; *empty: it was closed at once. */
static bool
stoa_json_open(stoa_json_scan_t *scan, bool object, bool *empty)
{
    uint64_t bit;

    if (scan->depth == STOA_JSON_DEPTH) {
        return stoa_json_fail(scan, "too_deep");
    }

    scan->at++;
    stoa_json_space(scan);

    *empty = scan->at < scan->len
          && scan->text[scan->at] == (object ? '}' : ']');

    if (*empty) {
        scan->at++;
        return true;
    }

    bit = (uint64_t) 1 << ++scan->depth;
    scan->objects = object ? scan->objects | bit : scan->objects & ~bit;
    scan->first[scan->depth] = scan->nkeys;

    return !object || stoa_json_member(scan);
}


/* Behind a value: commas and closing brackets; *done: the text's value is
   whole, else another value follows. */
static bool
stoa_json_behind(stoa_json_scan_t *scan, bool *done)
{
    unsigned char c;
    bool          object;

    for (;;) {
        if (scan->depth == 0) {
            *done = true;
            return true;
        }

        stoa_json_space(scan);

        if (scan->at == scan->len) {
            return stoa_json_fail(scan, "syntax");
        }

        c = scan->text[scan->at];
        object = (scan->objects >> scan->depth & 1) != 0;

        if (c == ',') {
            scan->at++;
            *done = false;

            return !object || stoa_json_member(scan);
        }

        if (c != (object ? '}' : ']')) {
            return stoa_json_fail(scan, "syntax");
        }

        scan->at++;
        scan->nkeys = scan->first[scan->depth--];
    }
}


bool
stoa_json_item(stoa_json_scan_t *scan, bool *done)
{
    bool good, escaped, empty;

    stoa_json_space(scan);

    if (scan->at == scan->len) {
        return stoa_json_fail(scan, "syntax");
    }

    switch (scan->text[scan->at]) {
    case '{':
    case '[':
        if (!stoa_json_open(scan, scan->text[scan->at] == '{', &empty)) {
            return false;
        }

        if (!empty) {
            *done = false;
            return true;
        }

        good = true;
        break;

    case '"':
        good = stoa_json_string_scan(scan, &escaped);
        break;
    case 't':
        good = stoa_json_word(scan, "true", 4);
        break;
    case 'f':
        good = stoa_json_word(scan, "false", 5);
        break;
    case 'n':
        good = stoa_json_word(scan, "null", 4);
        break;
    default:
        good = stoa_json_number(scan);
        break;
    }

    return good && stoa_json_behind(scan, done);
}


bool
stoa_json_scan(stoa_json_scan_t *scan)
{
    bool done = false;

    while (!done) {
        if (!stoa_json_item(scan, &done)) {
            return false;
        }
    }

    stoa_json_space(scan);

    return scan->at == scan->len || stoa_json_fail(scan, "trailing");
}


void
stoa_json_scan_init(stoa_json_scan_t *scan, stoa_str_t text)
{
    /* the keys stay as they are: .nkeys counts those that mean something */
    scan->text = text.data;
    scan->len = text.len;
    scan->at = 0;
    scan->reason = NULL;
    scan->depth = 0;
    scan->objects = 0;
    scan->nkeys = 0;
    scan->unsure = false;
}


bool
stoa_json_valid(stoa_str_t text, stoa_json_fault_t *fault)
{
    STOA_UNINIT stoa_json_scan_t scan;

    stoa_json_scan_init(&scan, text);

    if (stoa_json_scan(&scan) && !scan.unsure) {
        return true;
    }

    fault->reason = scan.reason != NULL ? scan.reason : "escaped_name";
    fault->offset = scan.at;

    return false;
}
