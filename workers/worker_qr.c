/*
 * QR codes: the libqrencode and libpng doors.  Pure work on the caller's
 * memory: no file, no loop, safe on any thread.
 */

#include "worker_qr.h"

#include <png.h>
#include <qrencode.h>

#define WORKER_QR_SCALE_MAX 32


bool
worker_qr_make(stoa_mem_t *mem, stoa_str_t text, worker_qr_t *qr)
{
    char   *z;
    size_t  i, n;
    QRcode *code;

    z = stoa_strdup_z(mem, text);
    if (z == NULL) {
        return false;
    }

    code = QRcode_encodeString(z, 0, QR_ECLEVEL_M, QR_MODE_8, 1);
    if (code == NULL) {
        return false;
    }

    n = (size_t) code->width * (size_t) code->width;
    qr->width = (unsigned) code->width;
    qr->modules = stoa_alloc(mem, n);

    if (qr->modules != NULL) {
        for (i = 0; i < n; i++) {
            qr->modules[i] = code->data[i] & 1;
        }
    }

    QRcode_free(code);

    return qr->modules != NULL;
}


static void
worker_qr_write(png_structp png, png_bytep data, png_size_t len)
{
    stoa_buf_t *out = png_get_io_ptr(png);

    stoa_buf_put(out, data, len);
}


static void
worker_qr_flush(png_structp png)
{
    /* all is in memory */
}


/* One row of pixels: the quiet zone is white, that is 1 bits. */

static void
worker_qr_row(const worker_qr_t *qr, unsigned y, unsigned scale,
              unsigned char *row, size_t row_size)
{
    unsigned x, i, px;

    memset(row, 0xff, row_size);

    if (y < WORKER_QR_QUIET || y >= WORKER_QR_QUIET + qr->width) {
        return;
    }

    for (x = 0; x < qr->width; x++) {
        if (qr->modules[(y - WORKER_QR_QUIET) * qr->width + x] == 0) {
            continue;
        }

        for (i = 0; i < scale; i++) {
            px = (x + WORKER_QR_QUIET) * scale + i;
            row[px / 8] &= (unsigned char) ~(0x80u >> (px % 8));
        }
    }
}


/* libpng leaves by longjmp: nothing here may change after setjmp and be read
   after it, so all that does lives in the caller's frame. */

static bool
worker_qr_encode(png_structp png, png_infop info, const worker_qr_t *qr,
                 unsigned scale, unsigned char *row, size_t row_size)
{
    unsigned y, i, side;

    side = (qr->width + 2 * WORKER_QR_QUIET) * scale;

    /* lint: allow banned, because libpng reports its errors in no other way */
    if (setjmp(png_jmpbuf(png))) {
        return false;
    }

    png_set_IHDR(png, info, side, side, 1, PNG_COLOR_TYPE_GRAY,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);

    for (y = 0; y < qr->width + 2 * WORKER_QR_QUIET; y++) {
        worker_qr_row(qr, y, scale, row, row_size);

        for (i = 0; i < scale; i++) {
            png_write_row(png, row);
        }
    }

    png_write_end(png, NULL);

    return true;
}


bool
worker_qr_png(stoa_buf_t *out, const worker_qr_t *qr, unsigned scale)
{
    bool           done;
    size_t         row_size;
    png_infop      info;
    png_structp    png;
    unsigned char *row;

    if (scale == 0 || scale > WORKER_QR_SCALE_MAX) {
        return false;
    }

    row_size = ((qr->width + 2 * WORKER_QR_QUIET) * scale + 7) / 8;
    row = stoa_alloc(out->mem, row_size);
    if (row == NULL) {
        return false;
    }

    png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    if (png == NULL) {
        return false;
    }

    info = png_create_info_struct(png);
    if (info == NULL) {
        png_destroy_write_struct(&png, NULL);
        return false;
    }

    png_set_write_fn(png, out, worker_qr_write, worker_qr_flush);
    done = worker_qr_encode(png, info, qr, scale, row, row_size);
    png_destroy_write_struct(&png, &info);

    return done && !out->failed;
}
