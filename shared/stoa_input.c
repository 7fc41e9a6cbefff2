/*
 * Validation of path, query, form and JSON input against field rows.  Every
 * fault is gathered (up to STOA_INPUT_FAULTS), none stops the others; what is
 * valid comes out in one spelling: lower-case UUIDs, times in UTC with
 * milliseconds, members in snake_case.  Memory comes from the caller's
 * stoa_mem_t alone; depth is bounded by the field tables, not by the input.
 * A JSON body is read in place, by stoa_json_walk.c; jansson builds its value
 * only when a caller wants it.
 * Details never repeat input; pointers may name an unknown member.
 */

#include "stoa_input.h"
#include "stoa_input_int.h"
#include "stoa_str.h"

#define STOA_INPUT_BODY_MAX 67108864 /* of the canonical text */

static bool stoa_input_value(stoa_input_t *in, const stoa_field_t *field,
                             stoa_str_t v, const stoa_input_at_t *at,
                             stoa_value_t *out);


/* ---- name=value pairs of queries and forms ---- */

static size_t
stoa_input_nfields(const stoa_field_t *fields)
{
    size_t n = 0;

    while (fields[n].name != NULL) {
        n++;
    }

    return n;
}


static size_t
stoa_input_find(const stoa_field_t *fields, stoa_str_t name)
{
    size_t i;

    for (i = 0; fields[i].name != NULL; i++) {
        if (stoa_str_same_name(fields[i].name, name)) {
            break;
        }
    }

    return i;
}


/* The wire name of a field, for pointers of members that are absent. */
static stoa_str_t
stoa_input_wire(stoa_input_t *in, const stoa_field_t *field)
{
    char *camel = stoa_alloc(in->mem, strlen(field->name) + 1);

    if (camel == NULL) {
        return stoa_str_z(field->name);
    }

    stoa_str_camel(field->name, camel);

    return stoa_str_z(camel);
}


static bool
stoa_input_unknown(stoa_input_t *in, const stoa_field_t *fields,
                   stoa_str_t name, const stoa_input_at_t *at)
{
    const char *names[64], *near;
    char        camel[128];
    size_t      n;

    if (in->faults->n == STOA_INPUT_FAULTS) {
        return false;
    }

    for (n = 0; n < stoa_nitems(names) && fields[n].name != NULL; n++) {
        names[n] = fields[n].name;
    }

    near = stoa_str_nearest(name, names, n);

    if (near == NULL || strlen(near) >= sizeof(camel)) {
        return stoa_input_fault(in, at, "unknown", "is not known here");
    }

    stoa_str_camel(near, camel);

    return stoa_input_fault_n(in, at, "unknown",
                              "is not known here; did you mean \"%s\"?", camel);
}


/* A list in a query: "a,b", each of them a scalar; so it comes out. */
static bool
stoa_input_commas(stoa_input_t *in, const stoa_field_t *field, stoa_str_t raw,
                  stoa_value_t *out, const stoa_input_at_t *at)
{
    stoa_value_t   value;
    stoa_str_t     item;
    stoa_buf_t     b;
    unsigned char *comma;
    size_t         i, n = raw.len != 0;

    for (i = 0; i < raw.len; i++) {
        n += raw.data[i] == ',';
    }

    if (!stoa_input_range(in, field, n, "items", at)) {
        return false;
    }

    stoa_buf_init(&b, in->mem, raw.len + 1, STOA_INPUT_BODY_MAX);

    for (i = 0; i < n; i++) {
        comma = memchr(raw.data, ',', raw.len);
        item = raw;

        if (comma != NULL) {
            item.len = (size_t) (comma - raw.data);
            raw.data += item.len + 1;
            raw.len -= item.len + 1;
        }

        /* one fault says it of all: they share a pointer */
        if (!stoa_input_raw(in, &field->items[0], item, &value, at)) {
            return false;
        }

        stoa_buf_z(&b, i > 0 ? "," : "");
        stoa_buf_str(&b, value);
    }

    stoa_buf_nul(&b);

    if (b.failed) {
        return stoa_input_no_memory(in, at);
    }

    *out = stoa_buf_view(&b);

    return true;
}


/* Decodes a part of a pair into mem. */
static bool
stoa_input_decode(stoa_input_t *in, stoa_str_t part, stoa_str_t *out)
{
    ssize_t n;

    out->data = stoa_alloc(in->mem, part.len + 1);
    if (out->data == NULL) {
        return false;
    }

    n = stoa_url_decode(out->data, part.len, part);
    if (n < 0) {
        return false;
    }

    out->len = (size_t) n;
    out->data[n] = '\0';

    return true;
}


static void
stoa_input_pair(stoa_input_t *in, const stoa_field_t *fields, stoa_str_t pair,
                bool form, stoa_value_t *values, bool *seen)
{
    stoa_input_at_t at = { .plain = NULL }, top = { .plain = NULL };
    stoa_str_t      name, value = stoa_null_string;
    unsigned char  *equals;
    size_t          i;

    equals = memchr(pair.data, '=', pair.len);
    name = pair;

    if (equals != NULL) {
        name.len = (size_t) (equals - pair.data);
        value.data = equals + 1;
        value.len = pair.len - name.len - 1;
    }

    at.up = &top;

    if (!stoa_input_decode(in, name, &at.name)
        || !stoa_input_decode(in, value, &value)
        || !stoa_str_utf8(at.name, NULL))
    {
        top.plain = form ? NULL : "";
        (void) stoa_input_fault(in, &top, "syntax",
                                "a pair is not percent-encoded UTF-8");
        return;
    }

    i = stoa_input_find(fields, at.name);

    if (!form) {
        at.plain = fields[i].name != NULL ? (const char *) at.name.data
                                          : stoa_strdup_z(in->mem, at.name);
    }

    if (fields[i].name == NULL) {
        if ((fields[i].flags & STOA_OPEN) == 0) {
            (void) stoa_input_unknown(in, fields, at.name, &at);
        }

        return;
    }

    if (seen[i]) {
        (void) stoa_input_fault(in, &at, "duplicate", "is given twice");
        return;
    }

    seen[i] = true;

    /* "name=" of an empty control is an absent value */
    if (value.len == 0 && (fields[i].flags & STOA_REQUIRED) == 0) {
        return;
    }

    if (fields[i].type == STOA_T_LIST) {
        (void) stoa_input_commas(in, &fields[i], value, &values[i], &at);
        return;
    }

    (void) stoa_input_raw(in, &fields[i], value, &values[i], &at);
}


static bool
stoa_input_pairs(stoa_input_t *in, const stoa_field_t *fields, stoa_str_t text,
                 bool form, stoa_value_t *values)
{
    stoa_input_at_t at = { .plain = NULL }, top = { .plain = NULL };
    stoa_str_t      pair;
    unsigned char  *amp;
    uint16_t        before = in->faults->n;
    size_t          i, n = stoa_input_nfields(fields);
    bool           *seen;

    seen = stoa_calloc(in->mem, n + 1);

    if (seen == NULL) {
        return stoa_input_no_memory(in, &top);
    }

    for (i = 0; i < n; i++) {
        values[i].data = NULL;
        values[i].len = 0;
    }

    while (text.len != 0) {
        amp = memchr(text.data, '&', text.len);
        pair = text;

        if (amp != NULL) {
            pair.len = (size_t) (amp - text.data);
        }

        if (pair.len != 0) {
            stoa_input_pair(in, fields, pair, form, values, seen);
        }

        text.data += pair.len;
        text.len -= pair.len;

        if (amp != NULL) {
            text.data++;
            text.len--;
        }
    }

    for (i = 0; i < n; i++) {
        if (!seen[i] && (fields[i].flags & STOA_REQUIRED)) {
            at.up = &top;
            at.name = stoa_input_wire(in, &fields[i]);
            at.plain = form ? NULL : (const char *) at.name.data;
            (void) stoa_input_fault(in, &at, "required", "is required");
        }
    }

    return in->faults->n == before;
}


bool
stoa_input_query(stoa_mem_t *mem, const stoa_field_t *fields, stoa_str_t args,
                 stoa_value_t *values, stoa_faults_t *faults)
{
    stoa_input_t in;

    in.mem = mem;
    in.faults = faults;

    return stoa_input_pairs(&in, fields, args, false, values);
}


bool
stoa_input_form(stoa_mem_t *mem, const stoa_field_t *fields, stoa_str_t text,
                stoa_value_t *values, stoa_str_t *canonical,
                stoa_faults_t *faults)
{
    stoa_input_at_t top = { .plain = NULL };
    stoa_input_t    in;
    size_t          i;
    bool            first = true;

    in.mem = mem;
    in.faults = faults;

    if (!stoa_input_pairs(&in, fields, text, true, values)) {
        return false;
    }

    stoa_buf_init(&in.out, mem, text.len + 64, STOA_INPUT_BODY_MAX);
    stoa_buf_char(&in.out, '{');

    for (i = 0; fields[i].name != NULL; i++) {
        if (values[i].data == NULL) {
            continue;
        }

        stoa_buf_z(&in.out, first ? "" : ",");
        stoa_buf_json_z(&in.out, fields[i].name);
        stoa_buf_char(&in.out, ':');
        first = false;

        if (fields[i].type == STOA_T_INT || fields[i].type == STOA_T_BOOL) {
            stoa_buf_str(&in.out, values[i]);

        } else {
            stoa_buf_json(&in.out, values[i]);
        }
    }

    stoa_buf_char(&in.out, '}');
    stoa_buf_nul(&in.out);

    if (in.out.failed) {
        return stoa_input_no_memory(&in, &top);
    }

    *canonical = stoa_buf_view(&in.out);

    return true;
}


/* ---- JSON ---- */

/* Writes members of v to in->out; values (may be NULL) by field. */
static bool
stoa_input_object(stoa_input_t *in, const stoa_field_t *fields, stoa_str_t v,
                  const stoa_input_at_t *at, stoa_value_t *values)
{
    stoa_input_at_t member = { .up = at };
    stoa_value_t    ignored;
    stoa_str_t      value;
    uint16_t        before = in->faults->n;
    uint64_t        seen = 0;
    size_t          i, from = 0;
    bool            first = true;

    stoa_buf_char(&in->out, '{');

    while (stoa_json_walk(v, &from, &member.name, &value)) {
        i = stoa_input_find(fields, member.name);

        if (fields[i].name == NULL) {
            (void) stoa_input_unknown(in, fields, member.name, &member);
            continue;
        }

        /* stoa_api_check() bounds a table to 64 fields */
        if (seen >> i & 1) {
            (void) stoa_input_fault(in, &member, "duplicate",
                                    "is given in both spellings");
            continue;
        }

        seen |= (uint64_t) 1 << i;

        stoa_buf_z(&in->out, first ? "\"" : ",\"");
        stoa_buf_z(&in->out, fields[i].name);
        stoa_buf_put(&in->out, "\":", 2);
        first = false;

        (void) stoa_input_value(in, &fields[i], value, &member,
                                values != NULL ? &values[i] : &ignored);
    }

    stoa_buf_char(&in->out, '}');

    for (i = 0; fields[i].name != NULL; i++) {
        if ((seen >> i & 1) == 0 && (fields[i].flags & STOA_REQUIRED)) {
            member.name = stoa_input_wire(in, &fields[i]);
            (void) stoa_input_fault(in, &member, "required", "is required");
        }
    }

    return in->faults->n == before;
}


static bool
stoa_input_list(stoa_input_t *in, const stoa_field_t *field, stoa_str_t v,
                const stoa_input_at_t *at)
{
    stoa_input_at_t item = { .up = at, .item = true };
    stoa_value_t    ignored;
    stoa_str_t      value;
    uint16_t        before = in->faults->n;
    size_t          from = 0, n = 0;

    while (stoa_json_each(v, &from, &value)) {
        n++;
    }

    if (!stoa_input_range(in, field, n, "items", at)) {
        return false;
    }

    stoa_buf_char(&in->out, '[');

    for (from = 0; stoa_json_each(v, &from, &value); item.index++) {
        if (item.index != 0) {
            stoa_buf_char(&in->out, ',');
        }

        if (!field->object) {
            (void) stoa_input_value(in, &field->items[0], value, &item,
                                    &ignored);

        } else if (stoa_json_kind(value) != STOA_JSON_OBJECT) {
            (void) stoa_input_fault(in, &item, "type", "must be an object");

        } else {
            (void) stoa_input_object(in, field->items, value, &item, NULL);
        }
    }

    stoa_buf_char(&in->out, ']');

    return in->faults->n == before;
}


/* A list or object: its canonical text is a slice of in->out, but that may
   move while it grows, so the offset is turned into a copy at the end. */
static bool
stoa_input_nested(stoa_input_t *in, const stoa_field_t *field, stoa_str_t v,
                  const stoa_input_at_t *at, stoa_value_t *out)
{
    stoa_str_t slice;
    size_t     from = in->out.len;
    char      *copy;
    bool       good;

    if (field->type == STOA_T_LIST) {
        good = stoa_json_kind(v) == STOA_JSON_ARRAY
                 ? stoa_input_list(in, field, v, at)
                 : stoa_input_fault(in, at, "type", "must be a list");

    } else {
        good = stoa_json_kind(v) == STOA_JSON_OBJECT
                 ? stoa_input_object(in, field->items, v, at, NULL)
                 : stoa_input_fault(in, at, "type", "must be an object");
    }

    if (!good || in->out.failed) {
        return false;
    }

    /* only members of the body itself are bound one by one */
    if (at->up == NULL || at->up->up != NULL) {
        return true;
    }

    slice.data = in->out.data + from;
    slice.len = in->out.len - from;
    copy = stoa_strdup_z(in->mem, slice);

    if (copy == NULL) {
        return stoa_input_no_memory(in, at);
    }

    out->data = (unsigned char *) copy;
    out->len = slice.len;

    return true;
}


static bool
stoa_input_number(stoa_input_t *in, const stoa_field_t *field, stoa_str_t v,
                  const stoa_input_at_t *at, stoa_value_t *out)
{
    size_t  from = in->out.len;
    int64_t n;
    char   *copy;

    if (stoa_json_kind(v) != STOA_JSON_INT
        || !stoa_str_int(v, INT64_MIN, INT64_MAX, &n))
    {
        return stoa_input_fault(in, at, "type", "must be a whole number");
    }

    if (!stoa_input_int_range(in, field, n, at)) {
        return false;
    }

    stoa_buf_int(&in->out, n);

    if (in->out.failed) {
        return false;
    }

    out->data = in->out.data + from;
    out->len = in->out.len - from;
    copy = stoa_strdup_z(in->mem, *out);
    out->data = (unsigned char *) copy;

    return copy != NULL || stoa_input_no_memory(in, at);
}


static bool
stoa_input_value(stoa_input_t *in, const stoa_field_t *field, stoa_str_t v,
                 const stoa_input_at_t *at, stoa_value_t *out)
{
    stoa_json_type_e type = stoa_json_kind(v);
    stoa_str_t       text;

    out->data = NULL;
    out->len = 0;

    if (type == STOA_JSON_NULL) {
        stoa_buf_put(&in->out, "null", 4);

        if (field->flags & STOA_REQUIRED) {
            return stoa_input_fault(in, at, "required", "must not be null");
        }

        return (field->flags & STOA_NULLABLE)
            || stoa_input_fault(in, at, "type", "must not be null");
    }

    switch (field->type) {
    case STOA_T_LIST:
    case STOA_T_OBJECT:
        return stoa_input_nested(in, field, v, at, out);

    case STOA_T_INT:
        return stoa_input_number(in, field, v, at, out);

    case STOA_T_BOOL:
        if (type != STOA_JSON_BOOL) {
            return stoa_input_fault(in, at, "type", "must be true or false");
        }

        *out = v.data[0] == 't' ? (stoa_str_t) stoa_string("true")
                                : (stoa_str_t) stoa_string("false");
        stoa_buf_str(&in->out, *out);

        return true;

    case STOA_T_TEXT:
    case STOA_T_EMAIL:
    case STOA_T_SECRET:
    case STOA_T_UUID:
    case STOA_T_TIME:
    case STOA_T_TIMEZONE:
    case STOA_T_CURRENCY:
    case STOA_T_URL:
    case STOA_T_ENUM:
    case STOA_T_CODE:
        break;
    }

    if (type != STOA_JSON_STRING) {
        return stoa_input_fault(in, at, "type", "must be a string");
    }

    if (!stoa_json_content(in->mem, v, &text)) {
        return stoa_input_no_memory(in, at);
    }

    if (!stoa_input_text(in, field, text, out, at)) {
        return false;
    }

    stoa_buf_json(&in->out, *out);

    return true;
}


static bool
stoa_input_json_fault(stoa_input_t *in, const stoa_input_at_t *top,
                      const stoa_json_fault_t *fault)
{
    const char *code = fault->reason;

    if (strcmp(code, "duplicate_key") == 0) {
        code = "duplicate";
    }

    return stoa_input_fault_n(in, top, code,
                              "the body is not valid JSON at byte %zu",
                              fault->offset);
}


/*
 * Strict, and with names that can be compared as they are written.  Escapes
 * in names are rare: then jansson reads and writes the text, so that names
 * which still have one are of no field.
 */
static bool
stoa_input_strict(stoa_input_t *in, stoa_str_t *text, stoa_json_fault_t *fault)
{
    const stoa_json_t *v;
    stoa_buf_t         b;

    if (stoa_json_valid(*text, fault)) {
        return true;
    }

    if (strcmp(fault->reason, "escaped_name") != 0) {
        return false;
    }

    v = stoa_json_parse(in->mem, *text, fault);

    if (v == NULL) {
        return false;
    }

    stoa_buf_init(&b, in->mem, text->len + 64, STOA_INPUT_BODY_MAX);
    stoa_json_write(&b, v);
    *text = stoa_buf_view(&b);
    fault->reason = "no_memory";

    return !b.failed;
}


/* The value's text without the space around it. */
static stoa_str_t
stoa_input_trim(stoa_str_t s)
{
    while (s.len != 0 && strchr(" \t\r\n", s.data[0]) != NULL) {
        s.data++;
        s.len--;
    }

    return s;
}


bool
stoa_input_json(stoa_mem_t *mem, const stoa_field_t *fields, stoa_str_t text,
                stoa_value_t *values, stoa_str_t *canonical,
                stoa_json_t **parsed, stoa_faults_t *faults)
{
    stoa_json_fault_t fault = { NULL, 0 };
    stoa_input_at_t   top = { .up = NULL };
    stoa_input_t      in;
    size_t            i;

    in.mem = mem;
    in.faults = faults;

    for (i = 0; fields[i].name != NULL; i++) {
        values[i].data = NULL;
        values[i].len = 0;
    }

    if (!stoa_input_strict(&in, &text, &fault)) {
        return stoa_input_json_fault(&in, &top, &fault);
    }

    text = stoa_input_trim(text);

    if (stoa_json_kind(text) != STOA_JSON_OBJECT) {
        return stoa_input_fault(&in, &top, "type", "must be an object");
    }

    stoa_buf_init(&in.out, mem, text.len + 64, STOA_INPUT_BODY_MAX);

    if (!stoa_input_object(&in, fields, text, &top, values)) {
        return false;
    }

    stoa_buf_nul(&in.out);

    if (in.out.failed) {
        return stoa_input_no_memory(&in, &top);
    }

    *canonical = stoa_buf_view(&in.out);

    if (parsed == NULL) {
        return true;
    }

    *parsed = stoa_json_parse(mem, text, &fault);

    return *parsed != NULL || stoa_input_json_fault(&in, &top, &fault);
}
