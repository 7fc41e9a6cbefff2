/*
 * Error codes of all of Stoa and their rows (stoa_err.def).
 */

#ifndef STOA_ERR_H_INCLUDED
#define STOA_ERR_H_INCLUDED

typedef enum {
    STOA_OK = 0,
#define STOA_ERR(name, status, code, title) STOA_E_##name,
#include "stoa_err.def"
#undef STOA_ERR
    STOA_E_COUNT
} stoa_err_e;

typedef struct {
    const char *code;  /* on the wire, UPPER_SNAKE */
    const char *title; /* short, factual */
    int         status;
} stoa_err_row_t;

/* The row of an error; err must be 1..STOA_E_COUNT-1, else INTERNAL's. */
const stoa_err_row_t *stoa_err_row(stoa_err_e err);

/* The type of the problem as IANA's registry has it; NULL: it is our own,
   named by the code. */
const char *stoa_err_type(stoa_err_e err);

/* The error with this wire code; STOA_OK when there is none. */
stoa_err_e stoa_err_by_code(const char *code, size_t len);

/* Maps a SQLSTATE (5 characters) and, for 23xxx, the constraint's name. */
stoa_err_e stoa_err_by_sqlstate(const char *sqlstate, const char *constraint);

#endif /* STOA_ERR_H_INCLUDED */
