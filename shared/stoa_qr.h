/*
 * QR codes as SVG, by libqrencode, at error correction level M.
 */

#ifndef STOA_QR_H_INCLUDED
#define STOA_QR_H_INCLUDED

#include "stoa_buf.h"

/* alnum: the text is of QR's alphanumeric set, which takes less room.  label:
   what a screen reader says, plain ASCII without markup. */
bool stoa_qr_svg(stoa_buf_t *b, stoa_str_t text, bool alnum,
                 const char *label) STOA_MUSTCHECK;

#endif /* STOA_QR_H_INCLUDED */
