/*
 * Templates: loading, checking, writing; one text is filled in
 * worker_template_fill.c.
 *
 * worker_templates_rows is the list of templates with the variables each may
 * use; loading writes every template in every language once with made-up
 * values, so that afterwards only a wrong caller can fail.  Loaded texts are
 * never changed and may be read from any thread.
 */

#include "worker_template.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../shared/stoa_str.h"

#define WORKER_TEMPLATE_FILE_MAX  65536
#define WORKER_TEMPLATE_ARENA_MAX (8 * 1024 * 1024)
#define WORKER_TEMPLATE_OUT_MAX   (1024 * 1024)
#define WORKER_TEMPLATE_VARS_MAX  12
#define WORKER_TEMPLATE_PATH      4096

typedef struct {
    const char *name;
    const char *vars[WORKER_TEMPLATE_VARS_MAX];
    bool        tickets; /* has the list */
} worker_template_row_t;

typedef struct {
    stoa_str_t subject;
    stoa_str_t text;
    stoa_str_t html;
} worker_template_texts_t;

static const char *const worker_template_langs[] = { "en", "ar", "de",
                                                     "es", "fr", "it" };

static const char *const worker_template_item_vars[] = { "number",
                                                         "ticket_type",
                                                         "holder", "cid" };

static const worker_template_row_t worker_template_rows[] = {
    { .name = "order_paid",
      .vars = { "name", "event_title", "event_location", "when", "order_id",
                "order_ref", "total" },
      .tickets = true },
    { .name = "order_refunded",
      .vars = { "name", "event_title", "order_id", "order_ref", "refund",
                "reason", "late" } },
    { .name = "order_cancelled",
      .vars = { "name", "event_title", "when", "order_id", "order_ref" } },
    { .name = "tickets_cancelled",
      .vars = { "name", "event_title", "when", "reason" } },
    { .name = "refund_failed",
      .vars = { "name", "event_title", "order_id", "order_ref", "refund",
                "reason" } },
    { .name = "event_cancelled",
      .vars = { "name", "event_title", "event_location", "when", "refund",
                "reason" } },
    { .name = "ticket_transferred",
      .vars = { "name", "event_title", "event_location", "when", "from_name" },
      .tickets = true },
    { .name = "password_reset", .vars = { "name", "token", "hours" } },
    { .name = "invite", .vars = { "name", "token", "hours" } },
    { .name = "password_changed", .vars = { "name" } },
    { .name = "welcome", .vars = { "name" } },
    { .name = "verify_email", .vars = { "token", "hours" } },
    { .name = "change_email", .vars = { "token", "hours" } },
    { .name = "change_notice", .vars = { "name" } },
    { .name = "mfa_notice",
      .vars = { "name", "mfa_on", "mfa_off", "mfa_codes", "mfa_used",
                "mfa_tried", "left" } },
    { .name = "identity_linked", .vars = { "name", "provider" } },
    { .name = "password_removed", .vars = { "name", "provider" } },
    { .name = "key_notice",
      .vars = { "name", "key_made", "key_rotated", "key_ends", "key_new",
                "prefix", "scopes", "service", "days" } },
};

/* Variables of every template. */
static const char *const worker_template_common[] = { "public_url", "lang",
                                                      "dir", "subject" };

static const char *const worker_template_words[] = {
    "weekdays", "months", "when",  "decimal", "thousands", "ticket", "holder",
    "type",     "starts", "place", "order",   "price",     "free",   "admit",
};

struct worker_templates_s {
    stoa_mem_t             *mem;
    char                    dir[WORKER_TEMPLATE_PATH];
    stoa_str_t              layout;
    worker_template_texts_t texts[stoa_nitems(worker_template_langs)]
                                 [stoa_nitems(worker_template_rows)];
    stoa_str_t words[stoa_nitems(worker_template_langs)]
                    [stoa_nitems(worker_template_words)];
};


static bool worker_template_find_dir(worker_templates_t *t, const char *dir,
                                     char *why, size_t size);
static bool worker_template_load_lang(worker_templates_t *t, size_t lang,
                                      char *why, size_t size);
static bool worker_template_try(worker_templates_t *t, size_t lang, size_t row,
                                char *why, size_t size);


worker_templates_t *
worker_templates_load(const char *dir, char *why, size_t size)
{
    size_t              i;
    stoa_mem_t         *mem;
    worker_templates_t *t;

    mem = stoa_arena_create(65536, WORKER_TEMPLATE_ARENA_MAX);
    t = mem != NULL ? stoa_calloc(mem, sizeof(worker_templates_t)) : NULL;
    if (t == NULL) {
        snprintf(why, size, "no memory for the mail templates");
        if (mem != NULL) {
            stoa_arena_destroy(mem);
        }
        return NULL;
    }

    t->mem = mem;

    if (!worker_template_find_dir(t, dir, why, size)) {
        worker_templates_destroy(t);
        return NULL;
    }

    for (i = 0; i < stoa_nitems(worker_template_langs); i++) {
        if (!worker_template_load_lang(t, i, why, size)) {
            worker_templates_destroy(t);
            return NULL;
        }
    }

    return t;
}


void
worker_templates_destroy(worker_templates_t *t)
{
    stoa_arena_destroy(t->mem);
}


/* Loading */


/* The whole file in mem, read as one; an empty slice with NULL data when it
   cannot be read (errno says why). */

static stoa_str_t
worker_template_read(stoa_mem_t *mem, const char *path)
{
    int         fd;
    ssize_t     n;
    struct stat st;
    stoa_str_t  s = stoa_null_string;

    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd == -1) {
        return s;
    }

    if (fstat(fd, &st) == -1) {
        (void) close(fd); /* only read */
        return s;
    }

    if (st.st_size < 0 || st.st_size > WORKER_TEMPLATE_FILE_MAX) {
        (void) close(fd);
        errno = EFBIG;
        return s;
    }

    s.data = stoa_alloc(mem, (size_t) st.st_size + 1);

    while (s.data != NULL && s.len < (size_t) st.st_size) {
        n = read(fd, s.data + s.len, (size_t) st.st_size - s.len);

        if (n <= 0) {
            if (n == -1 && errno == EINTR) {
                continue;
            }

            s.data = NULL;
            break;
        }

        s.len += (size_t) n;
    }

    if (s.data != NULL) {
        s.data[s.len] = '\0'; /* messages quote from here on */
    }

    (void) close(fd);

    return s;
}


static bool
worker_template_file(worker_templates_t *t, const char *lang, const char *name,
                     const char *suffix, stoa_str_t *out, char *why,
                     size_t size)
{
    int  n;
    char path[WORKER_TEMPLATE_PATH];

    n = snprintf(path, sizeof(path), "%s/%s/%s%s", t->dir, lang, name, suffix);
    if (n < 0 || (size_t) n >= sizeof(path)) {
        snprintf(why, size, "the path of the mail templates is too long");
        return false;
    }

    *out = worker_template_read(t->mem, path);
    if (out->data == NULL) {
        snprintf(why, size, "cannot read \"%s\": %s", path, strerror(errno));
        return false;
    }

    if (!stoa_str_utf8(*out, NULL)) {
        snprintf(why, size, "\"%s\" is not UTF-8", path);
        return false;
    }

    return true;
}


static bool
worker_template_find_dir(worker_templates_t *t, const char *dir, char *why,
                         size_t size)
{
    int     n;
    char    exe[2048], path[WORKER_TEMPLATE_PATH], *slash;
    size_t  i;
    ssize_t len;

    static const char *const places[] = {
        "../conf/mail",
        "../../conf/mail",
        "../share/stoa/mail",
    };

    if (dir[0] != '\0') {
        n = snprintf(t->dir, sizeof(t->dir), "%s", dir);
        if (n < 0 || (size_t) n >= sizeof(t->dir)) {
            snprintf(why, size, "MAIL_TEMPLATES is too long");
            return false;
        }

        return worker_template_file(t, ".", "layout", ".html", &t->layout, why,
                                    size);
    }

    len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    if (len > 0) {
        exe[len] = '\0';
        slash = strrchr(exe, '/');
        if (slash != NULL) {
            *slash = '\0';
        }

        for (i = 0; i < stoa_nitems(places); i++) {
            snprintf(path, sizeof(path), "%s/%s", exe, places[i]);
            snprintf(t->dir, sizeof(t->dir), "%s", path);

            if (worker_template_file(t, ".", "layout", ".html", &t->layout, why,
                                     size)) {
                return true;
            }
        }
    }

    snprintf(why, size,
             "mail templates not found; MAIL_TEMPLATES names their folder");
    return false;
}


/* "Subject: ...\n\nbody" */

static bool
worker_template_split(worker_template_texts_t *x, stoa_str_t file)
{
    unsigned char *nl;

    static const char subject[] = "Subject: ";

    if (file.len < sizeof(subject)
        || memcmp(file.data, subject, sizeof(subject) - 1) != 0)
    {
        return false;
    }

    nl = memchr(file.data, '\n', file.len);
    if (nl == NULL || nl + 1 == file.data + file.len || nl[1] != '\n') {
        return false;
    }

    x->subject.data = file.data + sizeof(subject) - 1;
    x->subject.len = (size_t) (nl - x->subject.data);
    x->text.data = nl + 2;
    x->text.len = file.len - (size_t) (x->text.data - file.data);

    return true;
}


static bool
worker_template_load_words(worker_templates_t *t, size_t lang, stoa_str_t file,
                           char *why, size_t size)
{
    size_t         i, n;
    stoa_str_t     line, *word;
    unsigned char *p, *end, *nl;

    end = file.data + file.len;

    for (p = file.data; p < end; p = nl + 1) {
        nl = memchr(p, '\n', (size_t) (end - p));
        if (nl == NULL) {
            nl = end;
        }

        line.data = p;
        line.len = (size_t) (nl - p);

        for (i = 0; i < stoa_nitems(worker_template_words); i++) {
            n = strlen(worker_template_words[i]);

            if (line.len >= n + 3
                && memcmp(line.data, worker_template_words[i], n) == 0
                && memcmp(line.data + n, " = ", 3) == 0)
            {
                word = &t->words[lang][i];
                word->data = line.data + n + 3;
                word->len = line.len - n - 3;
            }
        }
    }

    for (i = 0; i < stoa_nitems(worker_template_words); i++) {
        if (t->words[lang][i].len == 0) {
            snprintf(why, size, "\"%s/%s/words\" has no line \"%s = ...\"",
                     t->dir, worker_template_langs[lang],
                     worker_template_words[i]);
            return false;
        }
    }

    return true;
}


static bool
worker_template_load_lang(worker_templates_t *t, size_t lang, char *why,
                          size_t size)
{
    size_t                   i;
    stoa_str_t               file;
    const char              *code = worker_template_langs[lang];
    const char              *name;
    worker_template_texts_t *x;

    if (!worker_template_file(t, code, "words", "", &file, why, size)
        || !worker_template_load_words(t, lang, file, why, size))
    {
        return false;
    }

    for (i = 0; i < stoa_nitems(worker_template_rows); i++) {
        name = worker_template_rows[i].name;
        x = &t->texts[lang][i];

        if (!worker_template_file(t, code, name, ".html", &x->html, why, size)
            || !worker_template_file(t, code, name, ".txt", &file, why, size))
        {
            return false;
        }

        if (!worker_template_split(x, file)) {
            snprintf(why, size,
                     "\"%s/%s/%s.txt\" must begin with \"Subject: ...\" and "
                     "an empty line",
                     t->dir, code, name);
            return false;
        }

        if (!worker_template_try(t, lang, i, why, size)) {
            return false;
        }
    }

    return true;
}


/* Every variable that a template may use, all of them "x". */

static void
worker_template_made_up(const worker_template_row_t *r, worker_var_t *vars,
                        worker_var_t *items, worker_vars_t *all,
                        worker_vars_t *item)
{
    size_t i, n;

    static const stoa_str_t value = stoa_string("x");

    memset(all, 0, sizeof(*all));
    memset(item, 0, sizeof(*item));

    n = 0;
    for (i = 0; i < stoa_nitems(worker_template_common); i++, n++) {
        vars[n].name = worker_template_common[i];
        vars[n].value = value;
    }

    for (i = 0; i < WORKER_TEMPLATE_VARS_MAX && r->vars[i] != NULL; i++, n++) {
        vars[n].name = r->vars[i];
        vars[n].value = value;
    }

    for (i = 0; i < stoa_nitems(worker_template_item_vars); i++) {
        items[i].name = worker_template_item_vars[i];
        items[i].value = value;
    }

    all->vars = vars;
    all->nvars = n;

    if (r->tickets) {
        item->vars = items;
        item->nvars = stoa_nitems(worker_template_item_vars);
        item->outer = all;
        all->list = "tickets";
        all->items = item;
        all->nitems = 1;
    }
}


static bool
worker_template_try(worker_templates_t *t, size_t lang, size_t row, char *why,
                    size_t size)
{
    bool        done;
    stoa_buf_t  out;
    stoa_mem_t *mem;
    const char *bad;
    worker_var_t
        vars[WORKER_TEMPLATE_VARS_MAX + stoa_nitems(worker_template_common)];
    worker_var_t  items[stoa_nitems(worker_template_item_vars)];
    worker_vars_t all, item;

    const worker_template_row_t   *r = &worker_template_rows[row];
    const worker_template_texts_t *x = &t->texts[lang][row];

    worker_template_made_up(r, vars, items, &all, &item);

    mem = stoa_arena_create(4096, WORKER_TEMPLATE_OUT_MAX);
    if (mem == NULL) {
        snprintf(why, size, "no memory for the mail templates");
        return false;
    }

    bad = "a \"{{\" that does not end well";
    stoa_buf_init(&out, mem, 1024, WORKER_TEMPLATE_OUT_MAX / 4);

    done = worker_template_fill(&out, WORKER_TEMPLATE_TEXT, x->subject, &all,
                                &bad)
        && worker_template_fill(&out, WORKER_TEMPLATE_TEXT, x->text, &all, &bad)
        && worker_template_fill(&out, WORKER_TEMPLATE_HTML, x->html, &all,
                                &bad);

    if (!done) {
        snprintf(why, size, "\"%s/%s/%s\": unknown variable or section: %.30s",
                 t->dir, worker_template_langs[lang], r->name, bad);
    }

    stoa_arena_destroy(mem);

    return done;
}


/* Writing */


static size_t
worker_template_index(const char *lang)
{
    size_t i;

    for (i = 0; i < stoa_nitems(worker_template_langs); i++) {
        if (strcmp(lang, worker_template_langs[i]) == 0) {
            return i;
        }
    }

    return 0;
}


const char *
worker_template_lang(stoa_str_t wanted)
{
    size_t i;

    for (i = 0; i < stoa_nitems(worker_template_langs); i++) {
        if (wanted.len >= 2
            && memcmp(wanted.data, worker_template_langs[i], 2) == 0
            && (wanted.len == 2 || wanted.data[2] == '-'))
        {
            return worker_template_langs[i];
        }
    }

    return worker_template_langs[0];
}


bool
worker_template_rtl(const char *lang)
{
    return strcmp(lang, "ar") == 0;
}


bool
worker_template_write(const worker_templates_t *t, const char *lang,
                      const char *name, const worker_vars_t *vars,
                      stoa_buf_t *subject, stoa_buf_t *text, stoa_buf_t *html)
{
    size_t                         i;
    stoa_buf_t                     content;
    const char                    *bad;
    worker_var_t                   own[3];
    worker_vars_t                  all;
    const worker_template_texts_t *x;

    for (i = 0; i < stoa_nitems(worker_template_rows); i++) {
        if (strcmp(name, worker_template_rows[i].name) == 0) {
            break;
        }
    }

    if (i == stoa_nitems(worker_template_rows)) {
        return false;
    }

    x = &t->texts[worker_template_index(lang)][i];

    if (!worker_template_fill(subject, WORKER_TEMPLATE_TEXT, x->subject, vars,
                              &bad))
    {
        return false;
    }

    own[0].name = "lang";
    own[0].value = stoa_str_z(lang);
    own[1].name = "dir";
    own[1].value = stoa_str_z(worker_template_rtl(lang) ? "rtl" : "ltr");
    own[2].name = "subject";
    own[2].value = stoa_buf_view(subject);

    memset(&all, 0, sizeof(all));
    all.vars = own;
    all.nvars = stoa_nitems(own);
    all.outer = vars;
    all.list = vars->list;
    all.items = vars->items;
    all.nitems = vars->nitems;

    stoa_buf_init(&content, html->mem, 4096, html->max);

    return worker_template_fill(text, WORKER_TEMPLATE_TEXT, x->text, &all, &bad)
        && worker_template_fill(&content, WORKER_TEMPLATE_HTML, x->html, &all,
                                &bad)
        && worker_template_frame(t->layout, &all, stoa_buf_view(&content), html,
                                 &bad);
}


stoa_str_t
worker_template_word(const worker_templates_t *t, const char *lang,
                     const char *name)
{
    size_t     i;
    stoa_str_t none = stoa_string("");

    for (i = 0; i < stoa_nitems(worker_template_words); i++) {
        if (strcmp(name, worker_template_words[i]) == 0) {
            return t->words[worker_template_index(lang)][i];
        }
    }

    return none;
}
