/*
 * Texts that people read: mail templates and the words of printed tickets,
 * as files under conf/mail/ in six languages, loaded once per process.
 *
 *   <dir>/layout.html            frame of every HTML part: {{{content}}}
 *   <dir>/<lang>/<template>.txt  first line "Subject: ...", an empty line,
 *                                the text
 *   <dir>/<lang>/<template>.html what goes into the frame
 *   <dir>/<lang>/words           name = value: months, labels, formats
 *
 * {{name}} is a variable (escaped in HTML), {{#name}}...{{/name}} is shown
 * once when the variable is not empty, or once per item when name is the
 * list.  Nothing else: a template cannot compute.  Every file, variable and
 * word is tried at load, so a mistake is told at start, not in a mail.
 */

#ifndef WORKER_TEMPLATE_H_INCLUDED
#define WORKER_TEMPLATE_H_INCLUDED

#include "../shared/stoa_buf.h"

typedef struct worker_templates_s worker_templates_t;

typedef struct {
    const char *name;
    stoa_str_t  value;
} worker_var_t;

typedef struct worker_vars_s worker_vars_t;

struct worker_vars_s {
    const worker_var_t  *vars;
    size_t               nvars;
    const char          *list; /* name of the list; NULL: none */
    const worker_vars_t *items;
    size_t               nitems;
    const worker_vars_t *outer; /* of an item: where else to look */
};

/* dir "": where the program's own tree or /usr/share keeps them.  NULL: *why
   (size bytes) says the file, the line and the name. */
worker_templates_t *worker_templates_load(const char *dir, char *why,
                                          size_t size);
void                worker_templates_destroy(worker_templates_t *t);

/* A language that exists: "de" for "de" and "de-AT", else "en". */
const char *worker_template_lang(stoa_str_t wanted);
bool        worker_template_rtl(const char *lang);

/* False: no such template, a variable it needs is not in vars, or a buffer
   failed. */
bool worker_template_write(const worker_templates_t *t, const char *lang,
                           const char *name, const worker_vars_t *vars,
                           stoa_buf_t *subject, stoa_buf_t *text,
                           stoa_buf_t *html);

/* A word of the language's words file; "" when there is none. */
stoa_str_t worker_template_word(const worker_templates_t *t, const char *lang,
                                const char *name);

/* ---- worker_template_fill.c ---- */

typedef enum {
    WORKER_TEMPLATE_TEXT = 1,
    WORKER_TEMPLATE_HTML
} worker_form_e;

/* One text with its variables.  False: *bad stands in the text where it
   failed, or out failed. */
bool worker_template_fill(stoa_buf_t *out, worker_form_e form, stoa_str_t text,
                          const worker_vars_t *vars, const char **bad);

/* The same for a frame: variables and one {{{content}}}, which goes in as it
   is. */
bool worker_template_frame(stoa_str_t layout, const worker_vars_t *vars,
                           stoa_str_t content, stoa_buf_t *html,
                           const char **bad);

/* ---- worker_words.c ---- */

/* "2026-05-01T19:00" as people of the language write it, with the zone's
   name behind it when it is given.  False: not such a text. */
bool worker_template_when(const worker_templates_t *t, const char *lang,
                          stoa_str_t local, stoa_str_t zone, stoa_buf_t *out);

/* Minor units and an ISO 4217 code, with the currency's own digits. */
void worker_template_money(const worker_templates_t *t, const char *lang,
                           int64_t minor, stoa_str_t currency, stoa_buf_t *out);

#endif /* WORKER_TEMPLATE_H_INCLUDED */
