/*
 * The JSON door: the only file that knows jansson.  The scanner in
 * stoa_json_scan.c refuses what is not strict JSON before jansson, whose
 * depth limit is fixed at 2048, allocates anything.  jansson then builds the
 * value, which is freed with the caller's memory.
 */

#include "stoa_json_int.h"
#include "stoa_str.h"

#include <jansson.h>


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


stoa_json_t *
stoa_json_parse(stoa_mem_t *mem, stoa_str_t text, stoa_json_fault_t *fault)
{
    STOA_UNINIT stoa_json_scan_t scan;
    json_error_t                 error;
    json_t                      *value;
    const char                  *reason;
    size_t                       flags = JSON_DECODE_ANY;

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
