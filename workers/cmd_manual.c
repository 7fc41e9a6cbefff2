/*
 * stoa manual: what operators write and read, out of the rows: for people as
 * text, for README as Markdown, for programs as JSON.  Needs no settings and
 * no server.
 */

#include "cmd.h"

#include <stdio.h>

#include "../shared/stoa_manual.h"
#include "../shared/stoa_str.h"

#define MANUAL_MAX   (4 * 1024 * 1024)
#define MANUAL_WIDTH 79

/* Words up to the margin, further lines behind an indent. */
static void
cmd_manual_wrap(stoa_buf_t *b, const char *text, size_t column, size_t indent)
{
    bool first = true;

    while (*text != '\0') {
        size_t len = strcspn(text, " ");

        if (len != 0) {
            if (!first && column + 1 + len > MANUAL_WIDTH) {
                stoa_buf_printf(b, "\n%*s", (int) indent, "");
                column = indent;

            } else if (!first) {
                stoa_buf_char(b, ' ');
                column++;
            }

            stoa_buf_put(b, text, len);
            column += len;
            first = false;
        }

        text += len;
        text += *text == ' ' ? 1 : 0;
    }
}


/* Each line of lines behind an indent. */
static void
cmd_manual_lines(stoa_buf_t *b, const char *lines, size_t indent)
{
    while (*lines != '\0') {
        size_t len = strcspn(lines, "\n");

        stoa_buf_printf(b, "%*s", (int) indent, "");
        stoa_buf_put(b, lines, len);
        stoa_buf_char(b, '\n');
        lines += len;
        lines += *lines == '\n' ? 1 : 0;
    }
}


static void
cmd_manual_text(stoa_buf_t *b, const stoa_manual_entry_t *e)
{
    stoa_buf_printf(b, "%s\n    ", e->name);
    cmd_manual_wrap(b, e->text, 4, 4);
    stoa_buf_char(b, '\n');

    for (size_t i = 0; i < e->nfacts; i++) {
        if (strchr(e->facts[i].value, '\n') != NULL) {
            stoa_buf_printf(b, "    %s:\n", e->facts[i].label);
            cmd_manual_lines(b, e->facts[i].value, 8);

        } else {
            stoa_buf_printf(b, "    %s: %s\n", e->facts[i].label,
                            e->facts[i].value);
        }
    }

    if (e->example != NULL) {
        stoa_buf_z(b, "    example:\n");
        cmd_manual_lines(b, e->example, 8);
    }

    stoa_buf_char(b, '\n');
}


/* A definition: the name, what is short of the facts, the text. */
static void
cmd_manual_markdown(stoa_buf_t *b, const stoa_manual_entry_t *e,
                    stoa_mem_t *mem)
{
    stoa_buf_t line;
    bool       any = false;

    stoa_buf_init(&line, mem, 1024, 16384);
    stoa_buf_printf(&line, "`%s`", e->name);

    for (size_t i = 0; i < e->nfacts; i++) {
        if (strcmp(e->facts[i].label, "syntax") == 0) {
            continue; /* too wide for a list */
        }

        stoa_buf_printf(&line, "%s%s ", any ? ", " : " (", e->facts[i].label);
        any = true;

        for (const char *p = e->facts[i].value; /* void */; p++) {
            size_t len = strcspn(p, "\n");

            stoa_buf_printf(&line, "`%.*s`", (int) len, p);
            p += len;

            if (*p == '\0') {
                break;
            }

            stoa_buf_char(&line, ' ');
        }
    }

    stoa_buf_printf(&line, "%s: %s", any ? ")" : "", e->text);
    stoa_buf_nul(&line);

    if (line.failed) {
        b->failed = true;
        return;
    }

    stoa_buf_z(b, "- ");
    cmd_manual_wrap(b, (const char *) line.data, 2, 2);
    stoa_buf_char(b, '\n');
}


static bool
cmd_manual_section(stoa_buf_t *b, stoa_manual_e s, bool markdown,
                   stoa_mem_t *mem)
{
    stoa_manual_entry_t e;
    const char         *name = stoa_manual_name(s);

    stoa_buf_printf(b, markdown ? "#### %c%s\n\n" : "%c%s\n\n",
                    name[0] - 'a' + 'A', name + 1);

    for (size_t i = 0; i < stoa_manual_count(s); i++) {
        if (!stoa_manual_entry(s, i, mem, &e)) {
            return false;
        }

        if (e.name != NULL && markdown) {
            cmd_manual_markdown(b, &e, mem);

        } else if (e.name != NULL) {
            cmd_manual_text(b, &e);
        }
    }

    if (markdown) {
        stoa_buf_char(b, '\n');
    }

    return true;
}


/* The sections by name, all when none is named; 0: it was said why. */
static unsigned
cmd_manual_sections(cmd_t *c, const char **names, size_t n)
{
    const char   *known[STOA_MANUAL_COUNT], *near;
    unsigned      sections = 0;
    stoa_manual_e s;

    for (s = STOA_MANUAL_DIRECTIVES; s < STOA_MANUAL_COUNT; s++) {
        known[s] = stoa_manual_name(s);
    }

    for (size_t i = 0; i < n; i++) {
        for (s = STOA_MANUAL_DIRECTIVES; s < STOA_MANUAL_COUNT; s++) {
            if (strcmp(names[i], known[s]) == 0) {
                break;
            }
        }

        if (s == STOA_MANUAL_COUNT) {
            near = stoa_str_nearest(stoa_str_z(names[i]), known,
                                    STOA_MANUAL_COUNT);
            cmd_say(c,
                    "there is no section \"%s\"%s%s%s; see stoa manual "
                    "--help",
                    names[i], near != NULL ? ", did you mean \"" : "",
                    near != NULL ? near : "", near != NULL ? "\"?" : "");
            return 0;
        }

        sections |= 1U << s;
    }

    return n == 0 ? (1U << STOA_MANUAL_COUNT) - 1 : sections;
}


static bool
cmd_manual_print(stoa_buf_t *b, unsigned sections, bool json, bool markdown,
                 stoa_mem_t *mem)
{
    stoa_manual_e s;

    if (json) {
        if (!stoa_manual_json(b, sections, mem)) {
            return false;
        }

        stoa_buf_char(b, '\n');
        return !b->failed;
    }

    for (s = STOA_MANUAL_DIRECTIVES; s < STOA_MANUAL_COUNT; s++) {
        if ((sections & 1U << s) != 0
            && !cmd_manual_section(b, s, markdown, mem)) {
            return false;
        }
    }

    return !b->failed;
}


int
cmd_manual(cmd_t *c, int argc, char **argv)
{
    bool         json = false, markdown = false;
    cmd_option_t options[] = {
        { "--json", &json, NULL },
        { "--markdown", &markdown, NULL },
    };
    const char *names[STOA_MANUAL_COUNT];
    unsigned    sections;
    stoa_buf_t  b;
    size_t      n;
    int         rc;

    rc = cmd_options(c, argc, argv, options, 2, names, STOA_MANUAL_COUNT, &n);

    if (rc >= 0) {
        return rc;
    }

    if (json && markdown) {
        cmd_say(c, "--json or --markdown, not both");
        return CMD_USAGE;
    }

    sections = cmd_manual_sections(c, names, n);

    if (sections == 0) {
        return CMD_USAGE;
    }

    stoa_buf_init(&b, c->mem, 65536, MANUAL_MAX);

    if (!cmd_manual_print(&b, sections, json, markdown, c->mem)) {
        cmd_say(c, "no memory");
        return CMD_FAILED;
    }

    return fwrite(b.data, 1, b.len, stdout) == b.len ? CMD_OK : CMD_FAILED;
}
