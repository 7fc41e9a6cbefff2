/*
 * Arrays in PostgreSQL's binary form (what array_recv() reads): the
 * parameters of a batch.  The text form is read there byte by byte, twice;
 * this one costs PostgreSQL about a quarter of it.
 *
 * int32 1 (dimensions), int32 1 (nulls may follow), int32 OID of the element
 * type, int32 n, int32 1 (lower bound); then n times int32 length and bytes,
 * or -1 for null.  All big-endian.
 */

#ifndef STOA_PG_ARRAY_H_INCLUDED
#define STOA_PG_ARRAY_H_INCLUDED

#include "stoa_buf.h"

/* Element types that are sent so; arrays of others go as text literals. */
typedef enum {
    STOA_PG_ELEM_NONE = 0,
    STOA_PG_ELEM_INT4,
    STOA_PG_ELEM_TEXT,
    STOA_PG_ELEM_UUID
} stoa_pg_elem_e;

/* The element type by its name in SQL. */
stoa_pg_elem_e stoa_pg_elem(const char *type);

/* The head of an array of n >= 1 elements, which must follow. */
void stoa_pg_array_begin(stoa_buf_t *b, stoa_pg_elem_e elem, uint32_t n);

/* One element from its text form; data NULL is null.  false: the text is not
   one of the type. */
bool stoa_pg_array_put(stoa_buf_t *b, stoa_pg_elem_e elem,
                       stoa_str_t text) STOA_MUSTCHECK;
void stoa_pg_array_int4(stoa_buf_t *b, int32_t n);

#endif /* STOA_PG_ARRAY_H_INCLUDED */
