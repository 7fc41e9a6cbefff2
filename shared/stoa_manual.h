/*
 * The operator's manual, out of the rows that the programs are made of:
 * directives (stoa_directive.def), nginx variables (stoa_variable.def),
 * settings (stoa_conf.def), metrics (stoa_metric.def, stoa_family.def) and
 * errors (stoa_err.def).  What it says cannot be older than what runs.
 */

#ifndef STOA_MANUAL_H_INCLUDED
#define STOA_MANUAL_H_INCLUDED

#include "stoa_buf.h"

typedef struct {
    const char *name;    /* "stoa_pool" */
    const char *context; /* "http, server, location" */
    const char *syntax;  /* what stands behind the name; a line each form */
    const char *def;     /* the same of the default; "": there is none */
    const char *text;
    const char *example;
} stoa_directive_row_t;

typedef enum {
#define STOA_DIRECTIVE(name, context, args, syntax, def, text, example)        \
    STOA_D_##name,
#include "stoa_directive.def"
#undef STOA_DIRECTIVE
    STOA_D_COUNT
} stoa_directive_e;

extern const stoa_directive_row_t stoa_directive_rows[STOA_D_COUNT];

typedef enum {
    STOA_MANUAL_DIRECTIVES = 0,
    STOA_MANUAL_VARIABLES,
    STOA_MANUAL_SETTINGS,
    STOA_MANUAL_METRICS,
    STOA_MANUAL_ERRORS,
    STOA_MANUAL_COUNT
} stoa_manual_e;

#define STOA_MANUAL_FACTS 8

/* One row as all of the manual's forms show it.  Texts live in the rows, or
   in the caller's memory. */
typedef struct {
    const char *name;
    const char *text; /* one to three sentences */
    struct {
        const char *label; /* "default" */
        const char *value; /* may have several lines */
    } facts[STOA_MANUAL_FACTS];
    size_t      nfacts;
    const char *example; /* NULL: none */
} stoa_manual_entry_t;

/* "directives". */
const char *stoa_manual_name(stoa_manual_e section);

size_t stoa_manual_count(stoa_manual_e section);

/* Row i of a section; one of test builds has no name.  False: no memory. */
bool stoa_manual_entry(stoa_manual_e section, size_t i, stoa_mem_t *mem,
                       stoa_manual_entry_t *e) STOA_MUSTCHECK;

/* {"directives": [{"name", "text", facts by label, "example"}, ...], ...} of
   the sections whose bit (1 << section) is set.  mem: for a moment. */
bool stoa_manual_json(stoa_buf_t *b, unsigned sections,
                      stoa_mem_t *mem) STOA_MUSTCHECK;

#endif /* STOA_MANUAL_H_INCLUDED */
