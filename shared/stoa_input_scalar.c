/*
 * One scalar against its field row, and how a fault is noted: where (a JSON
 * pointer or a parameter's name, printed only when needed), a code, a short
 * sentence that never repeats input.
 */

#include "stoa_input_int.h"
#include "stoa_common.h"
#include "stoa_scalar.h"
#include "stoa_str.h"
#include "stoa_time.h"

#include <stdarg.h>
#include <stdio.h>

#define STOA_INPUT_POINTER 256

/* RFC 6901: "~" and "/" of a name are escaped. */
static void
stoa_input_print_name(stoa_buf_t *b, stoa_str_t name)
{
    size_t i, n;

    n = name.len < 64 ? name.len : 64;

    while (n < name.len && n > 60 && (name.data[n] & 0xc0) == 0x80) {
        n--; /* not inside a character */
    }

    for (i = 0; i < n; i++) {
        if (name.data[i] == '~') {
            stoa_buf_put(b, "~0", 2);

        } else if (name.data[i] == '/') {
            stoa_buf_put(b, "~1", 2);

        } else {
            stoa_buf_char(b, (char) name.data[i]);
        }
    }
}


static const char *
stoa_input_pointer(stoa_input_t *in, const stoa_input_at_t *at)
{
    const stoa_input_at_t *path[16];
    stoa_buf_t             b;
    size_t                 n;

    if (at->plain != NULL) {
        return at->plain;
    }

    for (n = 0; at->up != NULL && n < stoa_nitems(path); at = at->up) {
        path[n++] = at;
    }

    stoa_buf_init(&b, in->mem, 64, 16 * STOA_INPUT_POINTER);

    while (n-- > 0) {
        stoa_buf_char(&b, '/');

        if (path[n]->item) {
            stoa_buf_int(&b, (int64_t) path[n]->index);

        } else {
            stoa_input_print_name(&b, path[n]->name);
        }
    }

    stoa_buf_nul(&b);

    return b.failed ? "" : (const char *) b.data;
}


bool
stoa_input_fault(stoa_input_t *in, const stoa_input_at_t *at, const char *code,
                 const char *detail)
{
    stoa_fault_t *fault;

    if (in->faults->n < STOA_INPUT_FAULTS) {
        fault = &in->faults->fault[in->faults->n++];
        fault->pointer = stoa_input_pointer(in, at);
        fault->code = code;
        fault->detail = detail;
    }

    return false;
}


bool
stoa_input_fault_n(stoa_input_t *in, const stoa_input_at_t *at,
                   const char *code, const char *fmt, ...)
{
    char    text[256];
    char   *detail;
    va_list args;

    if (in->faults->n == STOA_INPUT_FAULTS) {
        return false;
    }

    va_start(args, fmt);
    (void) vsnprintf(text, sizeof(text), fmt, args); /* cut is fine */
    va_end(args);

    detail = stoa_strdup_z(in->mem, stoa_str_z(text));

    return stoa_input_fault(in, at, code, detail != NULL ? detail : "");
}


bool
stoa_input_no_memory(stoa_input_t *in, const stoa_input_at_t *at)
{
    return stoa_input_fault(in, at, "no_memory", "memory ran short");
}


/* ---- scalars: s is valid UTF-8 without NUL ---- */

bool
stoa_input_range(stoa_input_t *in, const stoa_field_t *field, size_t n,
                 const char *what, const stoa_input_at_t *at)
{
    if ((int64_t) n < field->min) {
        return stoa_input_fault_n(in, at, "too_short",
                                  "must have at least %lld %s",
                                  (long long) field->min, what);
    }

    if ((int64_t) n > field->max) {
        return stoa_input_fault_n(in, at, "too_long",
                                  "must have at most %lld %s",
                                  (long long) field->max, what);
    }

    return true;
}


static bool
stoa_input_uuid(stoa_input_t *in, stoa_str_t s, stoa_value_t *out,
                const stoa_input_at_t *at)
{
    stoa_uuid_t uuid;
    char       *text;

    if (!stoa_uuid_parse(s, &uuid)) {
        return stoa_input_fault(in, at, "format", "must be a UUID");
    }

    text = stoa_alloc(in->mem, 37);
    if (text == NULL) {
        return stoa_input_no_memory(in, at);
    }

    stoa_uuid_print(&uuid, text);
    text[36] = '\0';
    out->data = (unsigned char *) text;
    out->len = 36;

    return true;
}


static bool
stoa_input_time(stoa_input_t *in, stoa_str_t s, stoa_value_t *out,
                const stoa_input_at_t *at)
{
    int64_t ms;
    char   *text;

    if (!stoa_time_parse(s, &ms)) {
        return stoa_input_fault(in, at, "format",
                                "must be a time such as 2026-01-31T18:00:00Z");
    }

    text = stoa_alloc(in->mem, 25);
    if (text == NULL) {
        return stoa_input_no_memory(in, at);
    }

    stoa_time_print(ms, text);
    text[24] = '\0';
    out->data = (unsigned char *) text;
    out->len = 24;

    return true;
}


static bool
stoa_input_enum(stoa_input_t *in, const stoa_field_t *field, stoa_str_t s,
                const stoa_input_at_t *at)
{
    const char *const *value;
    stoa_buf_t         b;

    for (value = field->values; *value != NULL; value++) {
        if (stoa_str_eq_z(s, *value)) {
            return true;
        }
    }

    stoa_buf_init(&b, in->mem, 64, 1024);
    stoa_buf_z(&b, "must be one of ");

    for (value = field->values; *value != NULL; value++) {
        stoa_buf_z(&b, value == field->values ? "" : ", ");
        stoa_buf_z(&b, *value);
    }

    stoa_buf_nul(&b);

    return stoa_input_fault(in, at, "not_allowed",
                            b.failed ? "is not allowed"
                                     : (const char *) b.data);
}


/* Names and titles are compared, printed in one line and put into mails: only
   text of several lines is kept as it is. */
static bool
stoa_input_line(stoa_input_t *in, const stoa_field_t *field, stoa_str_t s,
                stoa_value_t *out, const stoa_input_at_t *at)
{
    bool       lines = (field->flags & STOA_LINES) != 0;
    size_t     points = 0;
    stoa_str_t line = s;

    if (!lines) {
        line = stoa_scalar_trim(s);
    }

    if (line.data + line.len != s.data + s.len) {
        /* values end with a zero: what was cut off behind must not go along */
        line.data = (unsigned char *) stoa_strdup_z(in->mem, line);
        if (line.data == NULL) {
            return stoa_input_no_memory(in, at);
        }
    }

    s = line;

    if (!stoa_scalar_is_plain(s, lines)) {
        return stoa_input_fault(in, at, "format",
                                lines ? "must be text without controls"
                                      : "must be one line without controls");
    }

    (void) stoa_str_utf8(s, &points);
    *out = s;

    return stoa_input_range(in, field, points, "characters", at);
}


/* Text of any kind; out is s unless there is a better spelling. */
bool
stoa_input_text(stoa_input_t *in, const stoa_field_t *field, stoa_str_t s,
                stoa_value_t *out, const stoa_input_at_t *at)
{
    const char *must;
    size_t      points;
    bool        good;

    if (!stoa_str_utf8(s, &points)
        || (s.len != 0 && memchr(s.data, 0, s.len) != NULL))
    {
        return stoa_input_fault(in, at, "format",
                                "must be UTF-8 text without U+0000");
    }

    *out = s;

    switch (field->type) {
    case STOA_T_UUID:
        return stoa_input_uuid(in, s, out, at);
    case STOA_T_TIME:
        return stoa_input_time(in, s, out, at);
    case STOA_T_ENUM:
        return stoa_input_enum(in, field, s, at);
    case STOA_T_CODE:
        return stoa_input_range(in, field, s.len, "bytes", at);
    case STOA_T_SECRET:
        if ((field->flags & STOA_UNCOMMON) && stoa_common_password(s)) {
            return stoa_input_fault(in, at, "too_common",
                                    "is one of the most common passwords");
        }

        return stoa_input_range(in, field, points, "characters", at);
    case STOA_T_TEXT:
        return stoa_input_line(in, field, s, out, at);
    case STOA_T_EMAIL:
        good = stoa_scalar_is_email(s);
        must = "must be an e-mail address";
        break;
    case STOA_T_TIMEZONE:
        good = stoa_scalar_is_timezone(s);
        must = "must be a time zone such as Europe/Berlin";
        break;
    case STOA_T_CURRENCY:
        good = stoa_scalar_is_currency(s);
        must = "must be a currency of ISO 4217 such as EUR";
        break;
    case STOA_T_URL:
        good = stoa_scalar_is_url(s);
        must = "must be an absolute http or https URL";
        break;
    case STOA_T_INT:
    case STOA_T_BOOL:
    case STOA_T_LIST:
    case STOA_T_OBJECT:
    default:
        return stoa_input_fault(in, at, "type", "has another type");
    }

    if (!good) {
        return stoa_input_fault(in, at, "format", must);
    }

    /* bounds of a row narrow the form */
    return field->max == 0
        || stoa_input_range(in, field, points, "characters", at);
}


bool
stoa_input_int_range(stoa_input_t *in, const stoa_field_t *field, int64_t n,
                     const stoa_input_at_t *at)
{
    if (n < field->min) {
        return stoa_input_fault_n(in, at, "too_small", "must be %lld or more",
                                  (long long) field->min);
    }

    if (n > field->max) {
        return stoa_input_fault_n(in, at, "too_large", "must be %lld or less",
                                  (long long) field->max);
    }

    return true;
}


bool
stoa_input_raw(stoa_input_t *in, const stoa_field_t *field, stoa_str_t raw,
               stoa_value_t *out, const stoa_input_at_t *at)
{
    stoa_value_t value;
    char        *copy;
    int64_t      n;

    if (field->type == STOA_T_INT) {
        if (!stoa_str_int(raw, INT64_MIN, INT64_MAX, &n)) {
            return stoa_input_fault(in, at, "type", "must be a whole number");
        }

        if (raw.len > 1 && raw.data[raw.data[0] == '-'] == '0') {
            /* JSON, into which it may go, knows no such number */
            return stoa_input_fault(in, at, "type",
                                    "must be a number without leading zeros");
        }

        if (!stoa_input_int_range(in, field, n, at)) {
            return false;
        }

        value = raw;

    } else if (field->type == STOA_T_BOOL) {
        if (!stoa_str_eq_z(raw, "true") && !stoa_str_eq_z(raw, "false")) {
            return stoa_input_fault(in, at, "type", "must be true or false");
        }

        value = raw;

    } else if (!stoa_input_text(in, field, raw, &value, at)) {
        return false;
    }

    copy = stoa_strdup_z(in->mem, value); /* with a NUL behind it */
    if (copy == NULL) {
        return stoa_input_no_memory(in, at);
    }

    out->data = (unsigned char *) copy;
    out->len = value.len;

    return true;
}


bool
stoa_input_scalar(stoa_mem_t *mem, const stoa_field_t *field, stoa_str_t raw,
                  stoa_value_t *out, const char *pointer, stoa_faults_t *faults)
{
    stoa_input_at_t at = { .plain = pointer };
    stoa_input_t    in;

    in.mem = mem;
    in.faults = faults;
    out->data = NULL;
    out->len = 0;

    return stoa_input_raw(&in, field, raw, out, &at);
}
