/*
 * A QR code as one path of an SVG: each run of dark modules in a row is one
 * rectangle of it.  Dark on white whatever the page's colors are, with the
 * quiet zone that ISO/IEC 18004 asks for.
 */

#include "stoa_qr.h"

#include <limits.h>

#include <qrencode.h>

#define STOA_QR_QUIET 4 /* modules around the symbol */


static void
stoa_qr_draw(stoa_buf_t *b, const QRcode *qr, const char *label)
{
    int x, y, from, size;

    size = qr->width + 2 * STOA_QR_QUIET;

    stoa_buf_printf(b,
                    "<svg xmlns=\"http://www.w3.org/2000/svg\" "
                    "viewBox=\"0 0 %d %d\" shape-rendering=\"crispEdges\" "
                    "role=\"img\" aria-label=\"%s\">"
                    "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>"
                    "<path fill=\"#000\" d=\"",
                    size, size, label, size, size);

    for (y = 0; y < qr->width; y++) {

        for (x = 0; x < qr->width; x++) {

            if (!(qr->data[y * qr->width + x] & 1)) {
                continue;
            }

            from = x;

            while (x + 1 < qr->width && (qr->data[y * qr->width + x + 1] & 1)) {
                x++;
            }

            stoa_buf_printf(b, "M%d %dh%dv1h-%dz", from + STOA_QR_QUIET,
                            y + STOA_QR_QUIET, x - from + 1, x - from + 1);
        }
    }

    stoa_buf_z(b, "\"/></svg>\n");
}


bool
stoa_qr_svg(stoa_buf_t *b, stoa_str_t text, bool alnum, const char *label)
{
    QRcode  *qr = NULL;
    QRinput *input;

    if (text.len > INT_MAX) {
        return false;
    }

    input = QRinput_new2(0, QR_ECLEVEL_M);

    if (input == NULL) {
        return false;
    }

    if (QRinput_append(input, alnum ? QR_MODE_AN : QR_MODE_8, (int) text.len,
                       text.data)
        == 0)
    {
        qr = QRcode_encodeInput(input);
    }

    QRinput_free(input);

    if (qr == NULL) {
        return false;
    }

    stoa_qr_draw(b, qr, label);
    QRcode_free(qr);

    return !b->failed;
}
