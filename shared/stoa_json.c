/*
 * The JSON door: the only file that knows jansson.  A scanner of our own
 * walks the text once and refuses what is not strict JSON (RFC 8259, UTF-8,
 * depth, duplicate members, U+0000, integers beyond +-2^53-1) before
 * jansson, whose depth limit is fixed at 2048, allocates anything.  jansson
 * then builds the value, which is freed with the caller's memory.
 */

#include "stoa_json.h"
#include "stoa_str.h"

#include <jansson.h>

#define STOA_JSON_KEYS 192 /* of open objects; beyond, jansson compares */
#define STOA_JSON_SAFE 9007199254740991LL

typedef struct {
    uint32_t hash;
    uint32_t from;
    uint32_t len;
} stoa_json_key_t;

typedef struct {
    const unsigned char *text;
    size_t               len;
    size_t               at;
    const char          *reason; /* set: it failed here */
    unsigned             depth;
    uint64_t             objects;                    /* bit per open level */
    uint16_t             first[STOA_JSON_DEPTH + 1]; /* key of the level */
    uint16_t             nkeys;
    bool                 unsure; /* some keys were not compared */
    stoa_json_key_t      keys[STOA_JSON_KEYS];
} stoa_json_scan_t;


static bool
stoa_json_fail(stoa_json_scan_t *scan, const char *reason)
{
    scan->reason = reason;

    return false;
}


static void
stoa_json_space(stoa_json_scan_t *scan)
{
    unsigned char c;

    while (scan->at < scan->len) {
        c = scan->text[scan->at];

        if (c != ' ' && c != '\n' && c != '\r' && c != '\t') {
            break;
        }

        scan->at++;
    }
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


/* At the opening quote; ends behind the closing one. */
static bool
stoa_json_string_scan(stoa_json_scan_t *scan, bool *escaped)
{
    stoa_str_t    run;
    size_t        from = ++scan->at;
    bool          high = false;
    unsigned char c;

    *escaped = false;

    for (;;) {
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

    if (whole && !stoa_str_int(s, -STOA_JSON_SAFE, STOA_JSON_SAFE, &value)) {
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


/* One scalar, or the opening of an array or object; *done: the text's value
   is whole. */
static bool
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


static bool
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


static void
stoa_json_free(void *data)
{
    json_decref(data);
}


static stoa_json_t *
stoa_json_refuse(stoa_json_fault_t *fault, const char *reason, size_t offset)
{
    fault->reason = reason;
    fault->offset = offset;

    return NULL;
}


static void
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
    stoa_json_scan_t scan;

    stoa_json_scan_init(&scan, text);

    if (stoa_json_scan(&scan) && !scan.unsure) {
        return true;
    }

    fault->reason = scan.reason != NULL ? scan.reason : "escaped_name";
    fault->offset = scan.at;

    return false;
}


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
    stoa_json_scan_t scan;
    bool             escaped;
    size_t           from;

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
    stoa_json_scan_t scan;

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


stoa_json_t *
stoa_json_parse(stoa_mem_t *mem, stoa_str_t text, stoa_json_fault_t *fault)
{
    stoa_json_scan_t scan;
    json_error_t     error;
    json_t          *value;
    const char      *reason;
    size_t           flags = JSON_DECODE_ANY;

    stoa_json_scan_init(&scan, text);

    if (!stoa_json_scan(&scan)) {
        return stoa_json_refuse(fault, scan.reason, scan.at);
    }

    if (scan.unsure) {
        flags |= JSON_REJECT_DUPLICATES;
    }

    value = json_loadb((const char *) text.data, text.len, flags, &error);

    if (value == NULL) {
        switch (json_error_code(&error)) {
        case json_error_duplicate_key:
            reason = "duplicate_key";
            break;
        case json_error_numeric_overflow:
            reason = "number_range";
            break;
        case json_error_out_of_memory:
            reason = "no_memory";
            break;
        default: /* the scanner is stricter, so this is ours */
            reason = "syntax";
            break;
        }

        return stoa_json_refuse(fault, reason,
                                error.position < 0 ? 0
                                                   : (size_t) error.position);
    }

    if (!mem->on_free(mem->ctx, stoa_json_free, value)) {
        json_decref(value);
        return stoa_json_refuse(fault, "no_memory", 0);
    }

    return (stoa_json_t *) value;
}


static json_t *
stoa_json_in(const stoa_json_t *v)
{
    return (json_t *) (uintptr_t) v;
}


stoa_json_type_e
stoa_json_type(const stoa_json_t *v)
{
    switch (json_typeof(stoa_json_in(v))) {
    case JSON_OBJECT:
        return STOA_JSON_OBJECT;
    case JSON_ARRAY:
        return STOA_JSON_ARRAY;
    case JSON_STRING:
        return STOA_JSON_STRING;
    case JSON_INTEGER:
        return STOA_JSON_INT;
    case JSON_REAL:
        return STOA_JSON_REAL;
    case JSON_TRUE:
    case JSON_FALSE:
        return STOA_JSON_BOOL;
    case JSON_NULL:
        break;
    }

    return STOA_JSON_NULL;
}


stoa_json_t *
stoa_json_get(const stoa_json_t *object, const char *name)
{
    return (stoa_json_t *) json_object_get(stoa_json_in(object), name);
}


size_t
stoa_json_count(const stoa_json_t *v)
{
    json_t *in = stoa_json_in(v);

    return json_is_array(in) ? json_array_size(in) : json_object_size(in);
}


stoa_json_t *
stoa_json_at(const stoa_json_t *array, size_t i)
{
    return (stoa_json_t *) json_array_get(stoa_json_in(array), i);
}


stoa_str_t
stoa_json_str(const stoa_json_t *v)
{
    stoa_str_t  s = stoa_null_string;
    const char *text = json_string_value(stoa_json_in(v));

    if (text != NULL) {
        s.data = (unsigned char *) (uintptr_t) text;
        s.len = json_string_length(stoa_json_in(v));
    }

    return s;
}


int64_t
stoa_json_int(const stoa_json_t *v)
{
    return json_integer_value(stoa_json_in(v));
}


double
stoa_json_real(const stoa_json_t *v)
{
    return json_number_value(stoa_json_in(v));
}


bool
stoa_json_bool(const stoa_json_t *v)
{
    return json_is_true(stoa_json_in(v));
}


bool
stoa_json_next(const stoa_json_t *object, void **it, stoa_str_t *name,
               stoa_json_t **value)
{
    json_t *in = stoa_json_in(object);

    *it = *it == NULL ? json_object_iter(in) : json_object_iter_next(in, *it);

    if (*it == NULL) {
        return false;
    }

    *name = stoa_str_z(json_object_iter_key(*it));
    *value = (stoa_json_t *) json_object_iter_value(*it);

    return true;
}


static int
stoa_json_write_some(const char *data, size_t len, void *b)
{
    stoa_buf_put(b, data, len);

    return 0;
}


void
stoa_json_write(stoa_buf_t *b, const stoa_json_t *v)
{
    if (json_dump_callback(stoa_json_in(v), stoa_json_write_some, b,
                           JSON_COMPACT | JSON_ENCODE_ANY)
        != 0)
    {
        b->failed = true;
    }
}
