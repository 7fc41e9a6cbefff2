/*
 * Between the files that validate input; nobody else includes this.
 */

#ifndef STOA_INPUT_INT_H_INCLUDED
#define STOA_INPUT_INT_H_INCLUDED

#include "stoa_input.h"

/* Where a value stands; printed only when it is at fault. */
typedef struct stoa_input_at_s stoa_input_at_t;

struct stoa_input_at_s {
    const stoa_input_at_t *up; /* NULL: the top */
    stoa_str_t             name;
    size_t                 index;
    bool                   item;  /* .index instead of .name */
    const char            *plain; /* a parameter's name, no pointer */
};

typedef struct {
    stoa_mem_t    *mem;
    stoa_faults_t *faults;
    stoa_buf_t     out; /* canonical JSON */
} stoa_input_t;

/* Each notes a fault and returns false. */
bool stoa_input_fault(stoa_input_t *in, const stoa_input_at_t *at,
                      const char *code, const char *detail);
bool stoa_input_fault_n(stoa_input_t *in, const stoa_input_at_t *at,
                        const char *code, const char *fmt, ...)
    STOA_PRINTF(4, 5);
bool stoa_input_no_memory(stoa_input_t *in, const stoa_input_at_t *at);

/* A length or number against a field's bounds. */
bool stoa_input_range(stoa_input_t *in, const stoa_field_t *field, size_t n,
                      const char *what, const stoa_input_at_t *at);
bool stoa_input_int_range(stoa_input_t *in, const stoa_field_t *field,
                          int64_t n, const stoa_input_at_t *at);

/* Text of any kind; out is s unless there is a better spelling. */
bool stoa_input_text(stoa_input_t *in, const stoa_field_t *field, stoa_str_t s,
                     stoa_value_t *out, const stoa_input_at_t *at);

/* One scalar as it stands in a path, query or form. */
bool stoa_input_raw(stoa_input_t *in, const stoa_field_t *field, stoa_str_t raw,
                    stoa_value_t *out, const stoa_input_at_t *at);

#endif /* STOA_INPUT_INT_H_INCLUDED */
