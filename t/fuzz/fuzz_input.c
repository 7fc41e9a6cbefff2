/*
 * Validation.  The first byte chooses body, form or query.  What is accepted
 * has a canonical text that is strict JSON, validates again to itself, and
 * values within their bounds; what is refused says where and why.
 */

#include "fuzz.h"

#include "stoa_input.h"
#include "stoa_scalar.h"
#include "stoa_time.h"

static const char *const colors[] = { "red", "green", NULL };

static const stoa_field_t item[] = {
    { .name = "type_id", .type = STOA_T_UUID, .flags = STOA_REQUIRED },
    { .name = "quantity",
      .type = STOA_T_INT,
      .min = 1,
      .max = 10,
      .flags = STOA_REQUIRED },
    stoa_end_field,
};

static const stoa_field_t tag[] = {
    { .name = "", .type = STOA_T_TEXT, .min = 1, .max = 5 },
};

static const stoa_field_t body[] = {
    { .name = "title", .type = STOA_T_TEXT, .min = 1, .max = 10 },
    { .name = "at", .type = STOA_T_TIME, .flags = STOA_NULLABLE },
    { .name = "items",
      .type = STOA_T_LIST,
      .min = 1,
      .max = 3,
      .items = item,
      .object = true },
    { .name = "tags", .type = STOA_T_LIST, .min = 0, .max = 2, .items = tag },
    { .name = "place", .type = STOA_T_OBJECT, .items = item },
    { .name = "open", .type = STOA_T_BOOL },
    { .name = "n", .type = STOA_T_INT, .min = -5, .max = 5 },
    { .name = "mail", .type = STOA_T_EMAIL },
    { .name = "url", .type = STOA_T_URL, .max = 40 },
    { .name = "zone", .type = STOA_T_TIMEZONE },
    { .name = "cur", .type = STOA_T_CURRENCY },
    { .name = "color", .type = STOA_T_ENUM, .values = colors },
    { .name = "code", .type = STOA_T_CODE, .min = 1, .max = 8 },
    { .name = "note", .type = STOA_T_TEXT, .flags = STOA_LINES, .max = 10 },
    stoa_end_field,
};

/* without lists and objects */
static const stoa_field_t flat[] = {
    { .name = "title", .type = STOA_T_TEXT, .min = 1, .max = 10 },
    { .name = "at_time", .type = STOA_T_TIME },
    { .name = "open", .type = STOA_T_BOOL, .flags = STOA_REQUIRED },
    { .name = "n", .type = STOA_T_INT, .min = -5, .max = 5 },
    { .name = "mail", .type = STOA_T_EMAIL },
    { .name = "id", .type = STOA_T_UUID },
    { .name = "code", .type = STOA_T_CODE, .min = 1, .max = 8 },
    stoa_end_field,
};

#define NFIELDS (stoa_nitems(body) - 1)


static void
fuzz_faults(const stoa_faults_t *faults)
{
    unsigned i;

    fuzz_assert(faults->n >= 1 && faults->n <= STOA_INPUT_FAULTS);

    for (i = 0; i < faults->n; i++) {
        fuzz_assert(faults->fault[i].pointer != NULL);
        fuzz_assert(faults->fault[i].code != NULL);
        fuzz_assert(faults->fault[i].detail != NULL
                    && faults->fault[i].detail[0] != '\0');
        fuzz_assert(stoa_str_utf8(stoa_str_z(faults->fault[i].pointer), NULL));
    }
}


/* Values by their own bounds, whatever way they came. */
static void
fuzz_values(const stoa_field_t *fields, const stoa_value_t *values)
{
    size_t  i, points;
    int64_t n;

    for (i = 0; fields[i].name != NULL; i++) {
        if (values[i].data == NULL) {
            continue;
        }

        fuzz_assert(values[i].data[values[i].len] == '\0');
        fuzz_assert(stoa_str_utf8(values[i], &points));
        fuzz_assert(memchr(values[i].data, 0, values[i].len) == NULL);

        switch (fields[i].type) {
        case STOA_T_TEXT:
            fuzz_assert((int64_t) points >= fields[i].min
                        && (int64_t) points <= fields[i].max);
            fuzz_assert(
                stoa_scalar_is_plain(values[i],
                                     (fields[i].flags & STOA_LINES) != 0));
            fuzz_assert((fields[i].flags & STOA_LINES) != 0
                        || stoa_scalar_trim(values[i]).len == values[i].len);
            break;
        case STOA_T_INT:
            fuzz_assert(
                stoa_str_int(values[i], fields[i].min, fields[i].max, &n));
            break;
        case STOA_T_TIME:
            fuzz_assert(values[i].len == 24 && stoa_time_parse(values[i], &n));
            break;
        case STOA_T_UUID:
            fuzz_assert(values[i].len == 36);
            break;
        case STOA_T_EMAIL:
            fuzz_assert(memchr(values[i].data, '\n', values[i].len) == NULL);
            fuzz_assert(memchr(values[i].data, '@', values[i].len) != NULL);
            break;
        default:
            break;
        }
    }
}


static void
fuzz_body(stoa_mem_t *mem, stoa_str_t text)
{
    stoa_value_t  values[NFIELDS], again[NFIELDS];
    stoa_str_t    canonical, second;
    stoa_json_t  *json;
    stoa_faults_t faults = { 0 };
    size_t        i;

    if (!stoa_input_json(mem, body, text, values, &canonical, &json, &faults)) {
        fuzz_faults(&faults);
        return;
    }

    fuzz_assert(faults.n == 0);
    fuzz_values(body, values);
    fuzz_assert(
        stoa_input_json(mem, body, canonical, again, &second, &json, &faults));
    fuzz_assert(stoa_str_eq(canonical, second));

    for (i = 0; i < NFIELDS; i++) {
        fuzz_assert(stoa_str_eq(values[i], again[i]));
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    stoa_mem_t       *mem;
    stoa_value_t      values[stoa_nitems(flat)];
    stoa_json_fault_t fault;
    stoa_faults_t     faults = { 0 };
    stoa_str_t        text, canonical;
    bool              good;

    if (size == 0) {
        return 0;
    }

    mem = stoa_arena_create(4096, FUZZ_MEMORY);
    text = fuzz_str(data + 1, size - 1);

    if (data[0] == 'q') {
        good = stoa_input_query(mem, flat, text, values, &faults);

    } else if (data[0] == 'f') {
        good = stoa_input_form(mem, flat, text, values, &canonical, &faults);
        fuzz_assert(!good || stoa_json_valid(canonical, &fault));

    } else {
        fuzz_body(mem, text);
        stoa_arena_destroy(mem);
        return 0;
    }

    if (good) {
        fuzz_assert(faults.n == 0);
        fuzz_values(flat, values);
        fuzz_assert(values[2].data != NULL);

    } else {
        fuzz_faults(&faults);
    }

    stoa_arena_destroy(mem);

    return 0;
}
