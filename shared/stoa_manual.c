/*
 * The operator's manual: one loop over the rows of each table, which gives
 * every form of the manual (stoa manual, /api/v1/manual.json) the same
 * entries, and the JSON of them.
 */

#include "stoa_manual.h"
#include "stoa_conf.h"
#include "stoa_err.h"
#include "stoa_metric.h"
#include "stoa_str.h"

#define STOA_MANUAL_IN_HTTP     "http"
#define STOA_MANUAL_IN_LOCATION "location"
#define STOA_MANUAL_IN_LIMITED  "location, limit_except"
#define STOA_MANUAL_IN_ALL      "http, server, location"

const stoa_directive_row_t stoa_directive_rows[STOA_D_COUNT] = {
#define STOA_DIRECTIVE(name, context, args, syntax, def, text, example)        \
    { "stoa_" #name, STOA_MANUAL_IN_##context, syntax, def, text, example },
#include "stoa_directive.def"
#undef STOA_DIRECTIVE
};

static const struct {
    const char *name;
    const char *text;
} stoa_variable_rows[] = {
#define STOA_VARIABLE(id, name, text) { "$stoa_" name, text },
#include "stoa_variable.def"
#undef STOA_VARIABLE
};


const char *
stoa_manual_name(stoa_manual_e section)
{
    static const char *const names[STOA_MANUAL_COUNT] = {
        "directives", "variables", "settings", "metrics", "errors",
    };

    return names[section];
}


size_t
stoa_manual_count(stoa_manual_e section)
{
    switch (section) {

    case STOA_MANUAL_DIRECTIVES:
        return STOA_D_COUNT;
    case STOA_MANUAL_VARIABLES:
        return stoa_nitems(stoa_variable_rows);
    case STOA_MANUAL_SETTINGS:
        return stoa_conf_nrows;
    case STOA_MANUAL_METRICS:
        return STOA_MF_COUNT + STOA_M_COUNT;
    case STOA_MANUAL_ERRORS:
        return STOA_E_COUNT - 1;
    case STOA_MANUAL_COUNT:
        break;
    }

    return 0;
}


static void
stoa_manual_fact(stoa_manual_entry_t *e, const char *label, const char *value)
{
    if (value == NULL || value[0] == '\0') {
        return;
    }

    if (e->nfacts == STOA_MANUAL_FACTS) {
        stoa_bug("an entry of the manual has too many facts");
        return;
    }

    e->facts[e->nfacts].label = label;
    e->facts[e->nfacts].value = value;
    e->nfacts++;
}


/* The name in front of each line, a semicolon behind it. */
static const char *
stoa_manual_lines(stoa_mem_t *mem, const char *name, const char *lines)
{
    stoa_buf_t b;

    stoa_buf_init(&b, mem, 256, 4096);

    for (const char *p = lines; /* void */; p++) {
        size_t len = strcspn(p, "\n");

        stoa_buf_z(&b, name);
        stoa_buf_z(&b, len != 0 ? " " : "");
        stoa_buf_put(&b, p, len);
        stoa_buf_char(&b, ';');
        p += len;

        if (*p == '\0') {
            break;
        }

        stoa_buf_char(&b, '\n');
    }

    stoa_buf_nul(&b);
    return b.failed ? NULL : (const char *) b.data;
}


static bool
stoa_manual_directive(size_t i, stoa_mem_t *mem, stoa_manual_entry_t *e)
{
    const stoa_directive_row_t *row = &stoa_directive_rows[i];
    const char                 *syntax, *def;

    syntax = stoa_manual_lines(mem, row->name, row->syntax);
    def = row->def[0] != '\0' ? stoa_manual_lines(mem, row->name, row->def)
                              : "none";

    if (syntax == NULL || def == NULL) {
        return false;
    }

    e->name = row->name;
    e->text = row->text;
    e->example = row->example;
    stoa_manual_fact(e, "syntax", syntax);
    stoa_manual_fact(e, "default", def);
    stoa_manual_fact(e, "context", row->context);
    return true;
}


/* "off|money|login: what an address ..." is values, and then a text. */
static bool
stoa_manual_values(const char *help, stoa_mem_t *mem, stoa_manual_entry_t *e)
{
    stoa_buf_t  b;
    const char *colon = strstr(help, ": ");

    if (colon == NULL) {
        stoa_bug("the help of an ENUM does not begin with its values");
        return false;
    }

    stoa_buf_init(&b, mem, 64, 256);

    for (const char *p = help; p < colon; p++) {
        if (*p == '|') {
            stoa_buf_z(&b, ", ");
        } else {
            stoa_buf_char(&b, *p);
        }
    }

    stoa_buf_nul(&b);

    if (b.failed) {
        return false;
    }

    stoa_manual_fact(e, "values", (const char *) b.data);
    e->text = colon + 2;
    return true;
}


static bool
stoa_manual_range(const stoa_conf_row_t *row, stoa_mem_t *mem,
                  stoa_manual_entry_t *e)
{
    bool       time = strcmp(row->type, "SECONDS") == 0;
    stoa_buf_t b;

    stoa_buf_init(&b, mem, 64, 256);
    stoa_buf_printf(&b, "%lld to %lld%s", (long long) row->min,
                    (long long) row->max,
                    time ? " seconds, also like 15m, 24h, 7d" : "");
    stoa_buf_nul(&b);

    if (b.failed) {
        return false;
    }

    stoa_manual_fact(e, "range", (const char *) b.data);
    return true;
}


static bool
stoa_manual_setting(size_t i, stoa_mem_t *mem, stoa_manual_entry_t *e)
{
    const stoa_conf_row_t *row = &stoa_conf_rows[i];

    if (strncmp(row->key, "STOA_TEST_", 10) == 0) {
        return true;
    }

    e->text = row->help;
    stoa_manual_fact(e, "default", row->def[0] != '\0' ? row->def : "empty");

    if (strcmp(row->type, "ENUM") == 0) {
        if (!stoa_manual_values(row->help, mem, e)) {
            return false;
        }

    } else if (strcmp(row->type, "BOOL") == 0) {
        stoa_manual_fact(e, "values", "on, off");

    } else if (strcmp(row->type, "TEXT") != 0
               && !stoa_manual_range(row, mem, e)) {
        return false;
    }

    stoa_manual_fact(e, "also", row->alias);
    stoa_manual_fact(e, "secret", row->flags & STOA_CONF_SECRET ? "yes" : NULL);
    e->name = row->key;
    return true;
}


static void
stoa_manual_metric(size_t i, stoa_manual_entry_t *e)
{
    const stoa_metric_row_t *row;

    row = i < STOA_MF_COUNT ? &stoa_family_rows[i]
                            : &stoa_metric_rows[i - STOA_MF_COUNT];

    e->name = row->name;
    e->text = row->help;
    stoa_manual_fact(e, "type", row->type);
    stoa_manual_fact(e, "labels", row->labels);
}


static bool
stoa_manual_error(size_t i, stoa_mem_t *mem, stoa_manual_entry_t *e)
{
    const stoa_err_row_t *row = stoa_err_row((stoa_err_e) (i + 1));
    stoa_buf_t            b;

    stoa_buf_init(&b, mem, 16, 16);
    stoa_buf_int(&b, row->status);
    stoa_buf_nul(&b);

    if (b.failed) {
        return false;
    }

    e->name = row->code;
    e->text = row->title;
    stoa_manual_fact(e, "status", (const char *) b.data);
    return true;
}


bool
stoa_manual_entry(stoa_manual_e section, size_t i, stoa_mem_t *mem,
                  stoa_manual_entry_t *e)
{
    *e = (stoa_manual_entry_t){ 0 };

    switch (section) {

    case STOA_MANUAL_DIRECTIVES:
        return stoa_manual_directive(i, mem, e);

    case STOA_MANUAL_VARIABLES:
        e->name = stoa_variable_rows[i].name;
        e->text = stoa_variable_rows[i].text;
        return true;

    case STOA_MANUAL_SETTINGS:
        return stoa_manual_setting(i, mem, e);

    case STOA_MANUAL_METRICS:
        stoa_manual_metric(i, e);
        return true;

    case STOA_MANUAL_ERRORS:
        return stoa_manual_error(i, mem, e);

    case STOA_MANUAL_COUNT:
        break;
    }

    return false;
}


static void
stoa_manual_json_entry(stoa_buf_t *b, const stoa_manual_entry_t *e)
{
    stoa_buf_z(b, "{\"name\":");
    stoa_buf_json_z(b, e->name);
    stoa_buf_z(b, ",\"text\":");
    stoa_buf_json_z(b, e->text);

    for (size_t i = 0; i < e->nfacts; i++) {
        stoa_buf_printf(b, ",\"%s\":", e->facts[i].label);
        stoa_buf_json_z(b, e->facts[i].value);
    }

    if (e->example != NULL) {
        stoa_buf_z(b, ",\"example\":");
        stoa_buf_json_z(b, e->example);
    }

    stoa_buf_char(b, '}');
}


bool
stoa_manual_json(stoa_buf_t *b, unsigned sections, stoa_mem_t *mem)
{
    stoa_manual_entry_t e;
    stoa_manual_e       s;
    bool                first = true, begun;

    stoa_buf_char(b, '{');

    for (s = STOA_MANUAL_DIRECTIVES; s < STOA_MANUAL_COUNT; s++) {
        if ((sections & 1U << s) == 0) {
            continue;
        }

        stoa_buf_printf(b, "%s\n\"%s\":[", first ? "" : ",",
                        stoa_manual_name(s));
        first = false;
        begun = false;

        for (size_t i = 0; i < stoa_manual_count(s); i++) {
            if (!stoa_manual_entry(s, i, mem, &e)) {
                return false;
            }

            if (e.name != NULL) {
                stoa_buf_z(b, begun ? ",\n" : "\n");
                stoa_manual_json_entry(b, &e);
                begun = true;
            }
        }

        stoa_buf_char(b, ']');
    }

    stoa_buf_z(b, "\n}");
    return !b->failed;
}
