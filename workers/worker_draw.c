/*
 * The printed ticket: the cairo and pango doors.
 *
 * Pango shapes every script (Arabic joins, Hebrew runs from the right); the
 * page's own direction only decides on which side columns begin.  Both
 * formats are one drawing: the PNG is scaled by 2, and a QR module is 4.5
 * points, so 9 whole pixels.
 */

#include "worker_draw.h"

#include <cairo-pdf.h>
#include <cairo.h>
#include <pango/pangocairo.h>

#define WORKER_DRAW_WIDTH  420.0
#define WORKER_DRAW_HEIGHT 595.0
#define WORKER_DRAW_MARGIN 30.0
#define WORKER_DRAW_SCALE  2
#define WORKER_DRAW_MODULE 4.5
#define WORKER_DRAW_HEAD   112.0
#define WORKER_DRAW_ROW    52.0
#define WORKER_DRAW_FONTS  "DejaVu Sans, Noto Sans, sans-serif"

typedef struct {
    cairo_t                    *cr;
    const worker_draw_ticket_t *d;
} worker_draw_t;

typedef struct {
    double      x, y, width;
    double      size;
    int         lines;
    bool        bold;
    bool        centered;
    const char *text;
} worker_draw_text_t;


#ifdef __SANITIZE_ADDRESS__

/* fontconfig keeps its patterns for the life of the process; what it holds
   does not grow with the number of tickets. */

const char *__lsan_default_suppressions(void);
const char *__lsan_default_options(void);

const char *
__lsan_default_suppressions(void)
{
    return "leak:libfontconfig.so\n";
}


const char *
__lsan_default_options(void)
{
    return "print_suppressions=0";
}

#endif


static void   worker_draw_page(worker_draw_t *w, const worker_qr_t *qr);
static double worker_draw_text(worker_draw_t *w, const worker_draw_text_t *t);
static void   worker_draw_fields(worker_draw_t *w);
static void   worker_draw_code(worker_draw_t *w, const worker_qr_t *qr);


static cairo_status_t
worker_draw_write(void *data, const unsigned char *p, unsigned int len)
{
    stoa_buf_t *out = data;

    stoa_buf_put(out, p, len);

    return out->failed ? CAIRO_STATUS_WRITE_ERROR : CAIRO_STATUS_SUCCESS;
}


bool
worker_draw_ticket(const worker_draw_ticket_t *d, worker_draw_e format,
                   stoa_buf_t *out)
{
    size_t           n;
    stoa_str_t       code;
    worker_qr_t      qr;
    worker_draw_t    w;
    cairo_status_t   status;
    cairo_surface_t *surface;

    n = strlen(d->code);
    code.data = (unsigned char *) (uintptr_t) d->code;
    code.len = n;

    if (n == 0 || !worker_qr_make(out->mem, code, &qr)) {
        return false;
    }

    if (format == WORKER_DRAW_PDF) {
        surface = cairo_pdf_surface_create_for_stream(worker_draw_write, out,
                                                      WORKER_DRAW_WIDTH,
                                                      WORKER_DRAW_HEIGHT);
        cairo_pdf_surface_set_metadata(surface, CAIRO_PDF_METADATA_TITLE,
                                       d->title);
        cairo_pdf_surface_set_metadata(surface, CAIRO_PDF_METADATA_CREATOR,
                                       "Stoa");

    } else {
        surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24,
                                             (int) WORKER_DRAW_WIDTH
                                                 * WORKER_DRAW_SCALE,
                                             (int) WORKER_DRAW_HEIGHT
                                                 * WORKER_DRAW_SCALE);
    }

    w.d = d;
    w.cr = cairo_create(surface);

    if (format == WORKER_DRAW_PNG) {
        cairo_scale(w.cr, WORKER_DRAW_SCALE, WORKER_DRAW_SCALE);
    }

    worker_draw_page(&w, &qr);
    cairo_show_page(w.cr);
    status = cairo_status(w.cr);
    cairo_destroy(w.cr);

    if (status == CAIRO_STATUS_SUCCESS && format == WORKER_DRAW_PNG) {
        status = cairo_surface_write_to_png_stream(surface, worker_draw_write,
                                                   out);
    }

    cairo_surface_finish(surface);

    if (status == CAIRO_STATUS_SUCCESS) {
        status = cairo_surface_status(surface);
    }

    cairo_surface_destroy(surface);

    return status == CAIRO_STATUS_SUCCESS && !out->failed;
}


static void
worker_draw_page(worker_draw_t *w, const worker_qr_t *qr)
{
    double             y;
    worker_draw_text_t t;

    cairo_set_source_rgb(w->cr, 1, 1, 1);
    cairo_paint(w->cr);

    cairo_set_source_rgb(w->cr, 0.122, 0.294, 0.263);
    cairo_rectangle(w->cr, 0, 0, WORKER_DRAW_WIDTH, WORKER_DRAW_HEAD);
    cairo_fill(w->cr);

    cairo_set_source_rgb(w->cr, 1, 1, 1);

    memset(&t, 0, sizeof(t));
    t.x = WORKER_DRAW_MARGIN;
    t.y = 18;
    t.width = WORKER_DRAW_WIDTH - 2 * WORKER_DRAW_MARGIN;
    t.size = 11;
    t.lines = 1;
    t.text = w->d->kind;
    y = worker_draw_text(w, &t);

    t.y += y + 2;
    t.size = 20;
    t.lines = 2;
    t.bold = true;
    t.text = w->d->title;
    (void) worker_draw_text(w, &t); /* nothing follows in the band */

    worker_draw_fields(w);
    worker_draw_code(w, qr);
}


/* Draws and returns the height.  Text that needs more lines is cut with an
   ellipsis. */

static double
worker_draw_text(worker_draw_t *w, const worker_draw_text_t *t)
{
    int                   height;
    bool                  rtl;
    PangoLayout          *layout;
    PangoFontDescription *font;

    layout = pango_cairo_create_layout(w->cr);
    font = pango_font_description_from_string(WORKER_DRAW_FONTS);

    pango_font_description_set_absolute_size(font, t->size * PANGO_SCALE);
    pango_font_description_set_weight(font, t->bold ? PANGO_WEIGHT_BOLD
                                                    : PANGO_WEIGHT_NORMAL);
    pango_layout_set_font_description(layout, font);
    pango_layout_set_text(layout, t->text, -1);
    pango_layout_set_width(layout, (int) (t->width * PANGO_SCALE));
    pango_layout_set_height(layout, -t->lines);
    pango_layout_set_wrap(layout, PANGO_WRAP_WORD_CHAR);
    pango_layout_set_ellipsize(layout, PANGO_ELLIPSIZE_END);

    /* pango swaps left and right for a paragraph that runs from the right */

    rtl = pango_layout_get_direction(layout, 0) == PANGO_DIRECTION_RTL;

    pango_layout_set_alignment(layout, t->centered        ? PANGO_ALIGN_CENTER
                                       : rtl == w->d->rtl ? PANGO_ALIGN_LEFT
                                                          : PANGO_ALIGN_RIGHT);

    cairo_move_to(w->cr, t->x, t->y);
    pango_cairo_show_layout(w->cr, layout);
    pango_layout_get_size(layout, NULL, &height);

    pango_font_description_free(font);
    g_object_unref(layout);

    return (double) height / PANGO_SCALE;
}


/* Two columns, three rows: a small label over its value. */

static void
worker_draw_fields(worker_draw_t *w)
{
    size_t                     i, n;
    double                     gap, width, h;
    worker_draw_text_t         t;
    const worker_draw_field_t *f;

    gap = 20;
    width = (WORKER_DRAW_WIDTH - 2 * WORKER_DRAW_MARGIN - gap) / 2;

    for (i = 0, n = 0; i < WORKER_DRAW_FIELDS; i++) {
        f = &w->d->fields[i];

        if (f->value == NULL || f->value[0] == '\0') {
            continue;
        }

        memset(&t, 0, sizeof(t));
        t.width = width;
        t.x = WORKER_DRAW_MARGIN;
        t.y = WORKER_DRAW_HEAD + 14 + (double) (n / 2) * WORKER_DRAW_ROW;

        if ((n % 2 == 1) != w->d->rtl) {
            t.x += width + gap;
        }

        t.size = 9;
        t.lines = 1;
        t.text = f->label;
        cairo_set_source_rgb(w->cr, 0.4, 0.4, 0.38);
        h = worker_draw_text(w, &t);

        t.y += h + 1;
        t.size = 11.5;
        t.lines = 2;
        t.text = f->value;
        cairo_set_source_rgb(w->cr, 0.11, 0.11, 0.1);
        (void) worker_draw_text(w, &t); /* a row has room for two lines */

        n++;
    }
}


static void
worker_draw_code(worker_draw_t *w, const worker_qr_t *qr)
{
    double             m, side, left, top;
    unsigned           x, y;
    worker_draw_text_t t;

    /* a longer code than ours gets smaller modules, not a larger picture */

    m = qr->width <= 45 ? WORKER_DRAW_MODULE
                        : 45 * WORKER_DRAW_MODULE / qr->width;
    side = m * qr->width;
    left = (double) (int) ((WORKER_DRAW_WIDTH - side) / 2);
    top = 292;

    cairo_save(w->cr);
    cairo_set_antialias(w->cr, CAIRO_ANTIALIAS_NONE);
    cairo_set_source_rgb(w->cr, 0, 0, 0);

    for (y = 0; y < qr->width; y++) {
        for (x = 0; x < qr->width; x++) {
            if (qr->modules[y * qr->width + x]) {
                cairo_rectangle(w->cr, left + x * m, top + y * m, m, m);
            }
        }
    }

    cairo_fill(w->cr);
    cairo_restore(w->cr);

    memset(&t, 0, sizeof(t));
    t.x = WORKER_DRAW_MARGIN;
    t.y = top + side + 4 * m + 6;
    t.width = WORKER_DRAW_WIDTH - 2 * WORKER_DRAW_MARGIN;
    t.size = 11;
    t.lines = 2;
    t.centered = true;
    t.text = w->d->admit;
    cairo_set_source_rgb(w->cr, 0.11, 0.11, 0.1);
    (void) worker_draw_text(w, &t); /* the last of the page */
}
