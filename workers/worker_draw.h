/*
 * Draws one printed ticket: the only door to cairo and pango.  Pure work on
 * the caller's memory, safe on any thread; fontconfig finds the fonts.
 */

#ifndef WORKER_DRAW_H_INCLUDED
#define WORKER_DRAW_H_INCLUDED

#include "worker_qr.h"

typedef struct {
    const char *label;
    const char *value; /* empty: the field is left out */
} worker_draw_field_t;

#define WORKER_DRAW_FIELDS 6

typedef struct {
    bool                rtl; /* columns run from right to left */
    const char         *title;
    const char         *kind; /* the word for "ticket" */
    worker_draw_field_t fields[WORKER_DRAW_FIELDS];
    const char         *admit; /* the sentence under the code */
    const char         *code;
} worker_draw_ticket_t;

typedef enum {
    WORKER_DRAW_PDF = 1,
    WORKER_DRAW_PNG
} worker_draw_e;

/* A page of A5; the PNG has 2 pixels to a point.  False: out failed, or a
   code that no QR holds. */
bool worker_draw_ticket(const worker_draw_ticket_t *d, worker_draw_e format,
                        stoa_buf_t *out);

#endif /* WORKER_DRAW_H_INCLUDED */
