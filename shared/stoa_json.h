/*
 * The JSON door (jansson).  Strict: RFC 8259, valid UTF-8, no duplicate
 * members, depth at most 32 by a scan before the parser, integers within
 * +-2^53-1, no U+0000, nothing behind the value.
 */

#ifndef STOA_JSON_H_INCLUDED
#define STOA_JSON_H_INCLUDED

#include "stoa_buf.h"

typedef struct stoa_json_s stoa_json_t; /* never defined: a json_t inside */

typedef enum {
    STOA_JSON_NULL = 1,
    STOA_JSON_BOOL,
    STOA_JSON_INT,
    STOA_JSON_REAL,
    STOA_JSON_STRING,
    STOA_JSON_ARRAY,
    STOA_JSON_OBJECT
} stoa_json_type_e;

typedef struct {
    const char *reason; /* static: "syntax", "duplicate_key", "too_deep",
                           "number_range", "utf8", "trailing" */
    size_t      offset;
} stoa_json_fault_t;

#define STOA_JSON_DEPTH 32

/* The value is freed with mem.  NULL: *fault says why. */
stoa_json_t *stoa_json_parse(stoa_mem_t *mem, stoa_str_t text,
                             stoa_json_fault_t *fault);

/*
 * The same strictness without building anything, for tokens: a name with an
 * escape is refused too ("escaped_name").  stoa_json_walk() then goes through
 * the members of an object that was found valid: *at starts as 0, *name is
 * without its quotes, *value is the value's text as written.
 */
bool stoa_json_valid(stoa_str_t text, stoa_json_fault_t *fault);
bool stoa_json_walk(stoa_str_t object, size_t *at, stoa_str_t *name,
                    stoa_str_t *value);

/* The same through the items of a list. */
bool stoa_json_each(stoa_str_t list, size_t *at, stoa_str_t *value);

/* The type of such a text; INT or REAL by its spelling. */
stoa_json_type_e stoa_json_kind(stoa_str_t value);

/* A string's content with a NUL behind it; false: no memory. */
bool stoa_json_content(stoa_mem_t *mem, stoa_str_t value,
                       stoa_str_t *out) STOA_MUSTCHECK;

stoa_json_type_e stoa_json_type(const stoa_json_t *v);
stoa_json_t     *stoa_json_get(const stoa_json_t *object, const char *name);
size_t           stoa_json_count(const stoa_json_t *v); /* array or object */
stoa_json_t     *stoa_json_at(const stoa_json_t *array, size_t i);
stoa_str_t       stoa_json_str(const stoa_json_t *v);
int64_t          stoa_json_int(const stoa_json_t *v);
double           stoa_json_real(const stoa_json_t *v);
bool             stoa_json_bool(const stoa_json_t *v);

/* Walks an object's members in the text's order; *it starts as NULL. */
bool stoa_json_next(const stoa_json_t *object, void **it, stoa_str_t *name,
                    stoa_json_t **value);

/* Writes the value as compact JSON. */
void stoa_json_write(stoa_buf_t *b, const stoa_json_t *v);

#endif /* STOA_JSON_H_INCLUDED */
