/*
 * Validates query, path and body input against field rows: all errors at
 * once, each with a JSON pointer (body) or the parameter's name.
 */

#ifndef STOA_INPUT_H_INCLUDED
#define STOA_INPUT_H_INCLUDED

#include "stoa_json.h"
#include "api/stoa_api.h"

#define STOA_INPUT_FAULTS 32

typedef struct {
    const char *pointer; /* "/items/0/quantity", or "limit" of a query */
    const char *code;    /* static: required, type, too_short, too_long,
                            too_small, too_large, format, unknown, duplicate,
                            not_allowed, syntax, too_deep, ... */
    const char *detail;  /* one short sentence, never input */
} stoa_fault_t;

typedef struct {
    uint16_t     n; /* at most STOA_INPUT_FAULTS are kept */
    stoa_fault_t fault[STOA_INPUT_FAULTS];
} stoa_faults_t;

/* A value as it goes to PostgreSQL: text format; data NULL is SQL null. */
typedef stoa_str_t stoa_value_t;

/* One scalar against one field row (path, query, form). */
bool stoa_input_scalar(stoa_mem_t *mem, const stoa_field_t *field,
                       stoa_str_t raw, stoa_value_t *out, const char *pointer,
                       stoa_faults_t *faults);

/* values[i] belongs to fields[i]; a missing one is null. */
bool stoa_input_query(stoa_mem_t *mem, const stoa_field_t *fields,
                      stoa_str_t args, stoa_value_t *values,
                      stoa_faults_t *faults);

/* The body: values[i] of top-level fields (lists and objects as JSON), and
   *canonical = the whole body in snake_case, absent members absent.  parsed
   may be NULL, which spares building the value. */
bool stoa_input_json(stoa_mem_t *mem, const stoa_field_t *fields,
                     stoa_str_t text, stoa_value_t *values,
                     stoa_str_t *canonical, stoa_json_t **parsed,
                     stoa_faults_t *faults);

bool stoa_input_form(stoa_mem_t *mem, const stoa_field_t *fields,
                     stoa_str_t text, stoa_value_t *values,
                     stoa_str_t *canonical, stoa_faults_t *faults);

#endif /* STOA_INPUT_H_INCLUDED */
