/*
 * Filling one text: variables and sections of it, escaped for its form.
 *
 * Tags are found from left to right and sections are taken whole, so a value
 * is never read as a template.  Sections nest WORKER_TEMPLATE_DEPTH deep.
 * Which templates there are and what each may use is in worker_template.c.
 */

#include "worker_template.h"

#include "../shared/stoa_str.h"

#define WORKER_TEMPLATE_DEPTH 4


static const stoa_str_t *
worker_template_var(const worker_vars_t *v, stoa_str_t name)
{
    size_t i;

    for (; v != NULL; v = v->outer) {
        for (i = 0; i < v->nvars; i++) {
            if (stoa_str_eq_z(name, v->vars[i].name)) {
                return &v->vars[i].value;
            }
        }
    }

    return NULL;
}


/* A tag of s at or behind *pos: what stands between the braces; *from and
   *pos are its ends.  False: none. */

static bool
worker_template_tag(stoa_str_t s, size_t *pos, size_t *from, stoa_str_t *tag)
{
    size_t i, k;

    for (i = *pos; i + 1 < s.len; i++) {
        if (s.data[i] != '{' || s.data[i + 1] != '{') {
            continue;
        }

        for (k = i + 2; k + 1 < s.len; k++) {
            if (s.data[k] == '}' && s.data[k + 1] == '}') {
                *from = i;
                *pos = k + 2;
                tag->data = s.data + i + 2;
                tag->len = k - i - 2;
                return true;
            }
        }
    }

    return false;
}


/* Inside of the section that has just opened at *pos; *pos moves behind its
   end. */

static bool
worker_template_section(stoa_str_t s, size_t *pos, stoa_str_t name,
                        stoa_str_t *inside)
{
    size_t     start, from;
    stoa_str_t tag, end;

    for (start = *pos; worker_template_tag(s, pos, &from, &tag);) {
        if (tag.len == 0 || tag.data[0] != '/') {
            continue;
        }

        end.data = tag.data + 1;
        end.len = tag.len - 1;

        if (stoa_str_eq(end, name)) {
            inside->data = s.data + start;
            inside->len = from - start;
            return true;
        }
    }

    return false;
}


static bool worker_template_part(stoa_buf_t *out, worker_form_e form,
                                 stoa_str_t s, const worker_vars_t *vars,
                                 unsigned depth, const char **bad);


static bool
worker_template_repeat(stoa_buf_t *out, worker_form_e form, stoa_str_t name,
                       stoa_str_t inside, const worker_vars_t *vars,
                       unsigned depth, const char **bad)
{
    size_t            i;
    const stoa_str_t *value;

    if (vars->list != NULL && stoa_str_eq_z(name, vars->list)) {
        for (i = 0; i < vars->nitems; i++) {
            if (!worker_template_part(out, form, inside, &vars->items[i],
                                      depth + 1, bad)) {
                return false;
            }
        }

        return true;
    }

    value = worker_template_var(vars, name);

    return value != NULL
        && (value->len == 0
            || worker_template_part(out, form, inside, vars, depth + 1, bad));
}


static bool
worker_template_part(stoa_buf_t *out, worker_form_e form, stoa_str_t s,
                     const worker_vars_t *vars, unsigned depth,
                     const char **bad)
{
    size_t            pos, last, from;
    stoa_str_t        tag, name, inside;
    const stoa_str_t *value;

    if (depth > WORKER_TEMPLATE_DEPTH) {
        return false;
    }

    for (pos = last = 0; worker_template_tag(s, &pos, &from, &tag); last = pos)
    {
        stoa_buf_put(out, s.data + last, from - last);

        /* until a failure is noticed, this is the place it will name */

        *bad = (const char *) tag.data;

        if (tag.len > 0 && tag.data[0] == '#') {
            name.data = tag.data + 1;
            name.len = tag.len - 1;

            if (!worker_template_section(s, &pos, name, &inside)
                || !worker_template_repeat(out, form, name, inside, vars, depth,
                                           bad))
            {
                return false;
            }

            continue;
        }

        value = worker_template_var(vars, tag);
        if (value == NULL) {
            return false;
        }

        if (form == WORKER_TEMPLATE_HTML) {
            stoa_buf_html(out, *value);

        } else {
            stoa_buf_str(out, *value);
        }
    }

    stoa_buf_put(out, s.data + last, s.len - last);

    return !out->failed;
}


bool
worker_template_fill(stoa_buf_t *out, worker_form_e form, stoa_str_t text,
                     const worker_vars_t *vars, const char **bad)
{
    return worker_template_part(out, form, text, vars, 0, bad);
}


bool
worker_template_frame(stoa_str_t layout, const worker_vars_t *vars,
                      stoa_str_t content, stoa_buf_t *html, const char **bad)
{
    stoa_str_t     before, after;
    unsigned char *at;

    static const char mark[] = "{{{content}}}";

    at = memmem(layout.data, layout.len, mark, sizeof(mark) - 1);
    if (at == NULL) {
        return false;
    }

    before.data = layout.data;
    before.len = (size_t) (at - before.data);
    after.data = at + sizeof(mark) - 1;
    after.len = layout.len - before.len - (sizeof(mark) - 1);

    if (!worker_template_fill(html, WORKER_TEMPLATE_HTML, before, vars, bad)) {
        return false;
    }

    stoa_buf_str(html, content);

    return worker_template_fill(html, WORKER_TEMPLATE_HTML, after, vars, bad);
}
