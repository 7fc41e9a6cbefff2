/*
 * The strict scanner against jansson itself.  What Stoa accepts jansson
 * accepts, and equally; what jansson accepts Stoa refuses only for the
 * reasons that strictness names.  Written text reads back as the same value.
 * The walk over members sees what the built value holds.
 */

#include "fuzz.h"

#include "stoa_json.h"

#include <jansson.h>


/* Why Stoa may refuse what jansson takes. */
static int
fuzz_is_lax(json_t *v, unsigned depth)
{
    const char *name;
    json_t     *member;
    size_t      i;
    json_int_t  n;

    if (json_is_integer(v)) {
        n = json_integer_value(v);
        return n > 9007199254740991 || n < -9007199254740991;
    }

    if (!json_is_object(v) && !json_is_array(v)) {
        return 0;
    }

    if (depth == STOA_JSON_DEPTH) {
        return 1;
    }

    json_array_foreach(v, i, member)
    {
        if (fuzz_is_lax(member, depth + 1)) {
            return 1;
        }
    }

    json_object_foreach(v, name, member)
    {
        if (fuzz_is_lax(member, depth + 1)) {
            return 1;
        }
    }

    return 0;
}


/* A value as written against the same one as built. */
static void
fuzz_same(stoa_mem_t *mem, stoa_str_t value, const stoa_json_t *v)
{
    stoa_str_t text;
    int64_t    n;

    fuzz_assert(value.len != 0);
    fuzz_assert(stoa_json_kind(value) == stoa_json_type(v));

    if (stoa_json_type(v) == STOA_JSON_INT) {
        fuzz_assert(stoa_str_int(value, INT64_MIN, INT64_MAX, &n));
        fuzz_assert(n == stoa_json_int(v));

    } else if (stoa_json_type(v) == STOA_JSON_STRING) {
        fuzz_assert(stoa_json_content(mem, value, &text));
        fuzz_assert(stoa_str_eq(text, stoa_json_str(v)));
        fuzz_assert(text.data[text.len] == '\0');
    }
}


static void
fuzz_walk(stoa_mem_t *mem, stoa_str_t text, const stoa_json_t *v)
{
    stoa_str_t   name, value, key;
    stoa_json_t *member;
    size_t       at = 0, i = 0;
    void        *it = NULL;

    if (stoa_json_type(v) == STOA_JSON_ARRAY) {
        while (stoa_json_each(text, &at, &value)) {
            fuzz_assert(i < stoa_json_count(v));
            fuzz_same(mem, value, stoa_json_at(v, i++));
        }

        fuzz_assert(i == stoa_json_count(v));
    }

    at = 0;

    if (stoa_json_type(v) != STOA_JSON_OBJECT) {
        fuzz_assert(!stoa_json_walk(text, &at, &name, &value));
        return;
    }

    while (stoa_json_next(v, &it, &key, &member)) {
        fuzz_assert(stoa_json_walk(text, &at, &name, &value));
        fuzz_assert(stoa_str_eq(name, key));
        fuzz_assert(at <= text.len);
        fuzz_same(mem, value, member);
    }

    fuzz_assert(!stoa_json_walk(text, &at, &name, &value));
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    stoa_json_fault_t fault = { NULL, 0 }, flat = { NULL, 0 };
    stoa_mem_t       *mem = stoa_arena_create(4096, FUZZ_MEMORY);
    stoa_str_t        text = fuzz_str(data, size);
    stoa_json_t      *v, *again;
    stoa_buf_t        b;
    json_t           *theirs;
    json_error_t      error;
    bool              valid;

    v = stoa_json_parse(mem, text, &fault);
    valid = stoa_json_valid(text, &flat);
    theirs = json_loadb((const char *) data, size,
                        JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &error);

    if (v != NULL) {
        fuzz_assert(theirs != NULL);
        fuzz_assert(json_equal(theirs, (json_t *) v));
        fuzz_assert(valid || strcmp(flat.reason, "escaped_name") == 0);

        stoa_buf_init(&b, mem, 256, FUZZ_MEMORY);
        stoa_json_write(&b, v);
        fuzz_assert(!b.failed);
        again = stoa_json_parse(mem, stoa_buf_view(&b), &fault);
        fuzz_assert(again != NULL);
        fuzz_assert(json_equal(theirs, (json_t *) again));

    } else {
        fuzz_assert(fault.reason != NULL && fault.offset <= size);
        /* jansson takes a NUL byte for the end of the text */
        fuzz_assert(theirs == NULL || memchr(data, 0, size) != NULL
                    || fuzz_is_lax(theirs, 0));
        /* the scanner leaves only the range of reals to jansson */
        fuzz_assert(!valid || strcmp(fault.reason, "number_range") == 0);
    }

    if (valid && v != NULL) {
        fuzz_walk(mem, text, v);
    }

    json_decref(theirs);
    stoa_arena_destroy(mem);

    return 0;
}
