/*
 * QR codes of tickets: the only door to libqrencode and libpng.  Level M, as
 * decision 4 counts on; a ticket code needs version 7, 45 by 45 modules.
 */

#ifndef WORKER_QR_H_INCLUDED
#define WORKER_QR_H_INCLUDED

#include "../shared/stoa_buf.h"

#define WORKER_QR_QUIET 4 /* modules of white around, by ISO/IEC 18004 */

typedef struct {
    unsigned       width;   /* modules on a side, without the quiet zone */
    unsigned char *modules; /* width * width; 1 is dark */
} worker_qr_t;

/* In mem.  False: no memory, or too long for a QR code. */
bool worker_qr_make(stoa_mem_t *mem, stoa_str_t text, worker_qr_t *qr);

/* A black and white PNG with the quiet zone, scale pixels to a module. */
bool worker_qr_png(stoa_buf_t *out, const worker_qr_t *qr, unsigned scale);

#endif /* WORKER_QR_H_INCLUDED */
