/*
 * stoa audit verify: walks the chain, then the rows outside of it, in slices,
 * so that no statement and no memory grows with the log.  What is wrong is
 * told by kind: the first, and how many more.
 *
 * What it cannot know by itself: that rows were taken away before they were
 * sealed (a second at most), and that the end of the chain, or all of it, was
 * replaced together with its rows.  Against the latter it prints the head of
 * the chain: kept where the database's owner cannot write, and given back
 * with --expect, it must still be a link.
 */

#include "cmd.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "../shared/stoa_buf.h"
#include "../shared/stoa_str.h"
#include "../shared/stoa_time.h"

#define SLICE_MAX   1000000
#define PROGRESS_MS 1000
#define TEXT        128

typedef struct {
    const char *what; /* as SQL names it, and --json */
    const char *sentence;
} cmd_audit_kind_t;

static const cmd_audit_kind_t cmd_audit_kinds[] = {
    { "altered", "was altered" },
    { "missing", "is missing, its link is there" },
    { "broken", "and its link do not agree, or the link and the one before" },
    { "unsealed", "is older than 60 s and not sealed" },
};

#define KINDS stoa_nitems(cmd_audit_kinds)

/* One line of a slice, as app.audit_verify_chain() and _rows() answer. */
enum {
    WHAT,
    ROWS,
    DAY,
    N,
    XID,
    ID,
    AT,
    ACTION,
    LINK,
    COLUMNS
};

typedef struct {
    int64_t count;
    char    first[COLUMNS][TEXT]; /* "" for null */
} cmd_audit_found_t;

typedef struct {
    cmd_t            *c;
    cmd_db_t         *db;
    const char       *since;
    const char       *expect;
    const char       *slice;
    bool              json;
    bool              expected; /* the hash asked for is a link's */
    bool              progress;
    int64_t           links;
    int64_t           rows;
    uint64_t          said_ms;
    char              day[TEXT]; /* the last link: the walk's place */
    char              n[TEXT];
    char              hash[TEXT];
    char              xid[TEXT]; /* the last row */
    char              id[TEXT];
    cmd_audit_found_t found[KINDS];
} cmd_audit_t;


static void
cmd_audit_copy(char out[TEXT], const stoa_pg_result_t *res, int row, int col)
{
    stoa_str_t v = stoa_pg_value(res, row, col);

    (void) snprintf(out, TEXT, "%.*s", (int) v.len, (const char *) v.data);
}


static void
cmd_audit_find(cmd_audit_t *a, const stoa_pg_result_t *res, int row)
{
    stoa_str_t what = stoa_pg_value(res, row, WHAT);
    int64_t    n = 0;

    for (size_t i = 0; i < KINDS; i++) {
        cmd_audit_found_t *f = &a->found[i];

        if (!stoa_str_eq_z(what, cmd_audit_kinds[i].what)) {
            continue;
        }

        if (f->count == 0) {
            for (int col = 0; col < COLUMNS; col++) {
                cmd_audit_copy(f->first[col], res, row, col);
            }
        }

        if (stoa_str_int(stoa_pg_value(res, row, ROWS), 0, INT64_MAX, &n)) {
            f->count += n;
        }
    }
}


static void
cmd_audit_progress(cmd_audit_t *a)
{
    uint64_t now = stoa_time_mono_ms();

    if (a->progress && now - a->said_ms >= PROGRESS_MS) {
        a->said_ms = now;
        (void) fprintf(stderr, "\r%" PRId64 " links, %" PRId64 " rows",
                       a->links, a->rows);
    }
}


/* One statement; *more says whether there was anything to look at. */
static int
cmd_audit_slice(cmd_audit_t *a, const char *sql, size_t nvalues,
                const char *const *values, int64_t *total, bool *more)
{
    stoa_pg_result_t *res;
    const char       *why;
    int64_t           n = 0;
    int rc = cmd_db_query(a->db, sql, nvalues, values, &res, NULL, &why);

    *more = false;

    if (rc != CMD_OK) {
        cmd_say(a->c, "cannot read the log: %s", why);
        stoa_pg_result_free(res);
        return rc;
    }

    for (int i = 0; i < stoa_pg_rows(res); i++) {
        stoa_str_t what = stoa_pg_value(res, i, WHAT);

        if (stoa_str_eq_z(what, "expected")) {
            a->expected = true;

        } else if (!stoa_str_eq_z(what, "walked")) {
            cmd_audit_find(a, res, i);

        } else if (stoa_str_int(stoa_pg_value(res, i, ROWS), 1, INT64_MAX, &n))
        {
            *more = true;
            *total += n;

            if (!stoa_pg_null(res, i, LINK)) {
                cmd_audit_copy(a->day, res, i, DAY);
                cmd_audit_copy(a->n, res, i, N);
                cmd_audit_copy(a->hash, res, i, LINK);

            } else {
                cmd_audit_copy(a->xid, res, i, XID);
                cmd_audit_copy(a->id, res, i, ID);
            }
        }
    }

    stoa_pg_result_free(res);
    cmd_audit_progress(a);
    return CMD_OK;
}


static const char *
cmd_audit_value(const char *text)
{
    return text[0] != '\0' ? text : NULL;
}


/* The last link before --since is taken as it is. */
static int
cmd_audit_begin(cmd_audit_t *a)
{
    stoa_pg_result_t *res;
    const char       *why, *values[1] = { a->since };
    int               rc;

    rc = cmd_db_query(a->db,
                      "select day, n, hash, xid "
                      "from app.audit_verify_from($1::date)",
                      1, values, &res, NULL, &why);

    if (rc != CMD_OK) {
        cmd_say(a->c, "cannot read the log: %s", why);

    } else if (stoa_pg_rows(res) == 1) {
        cmd_audit_copy(a->day, res, 0, 0);
        cmd_audit_copy(a->n, res, 0, 1);
        cmd_audit_copy(a->hash, res, 0, 2);
        cmd_audit_copy(a->xid, res, 0, 3);
    }

    stoa_pg_result_free(res);
    return rc;
}


static int
cmd_audit_walk(cmd_audit_t *a)
{
    static const char chain[] =
        "select * from app.audit_verify_chain($1::date, $2::bigint, $3::text, "
        "$4::int, $5::text)";
    static const char rows[] =
        "select * from app.audit_verify_rows($1::text, $2::bigint, $3::int)";
    bool more = true;
    int  rc = CMD_OK;

    if (a->since != NULL) {
        rc = cmd_audit_begin(a);
    }

    while (rc == CMD_OK && more) {
        const char *values[] = { cmd_audit_value(a->day), cmd_audit_value(a->n),
                                 cmd_audit_value(a->hash), a->slice,
                                 a->expect };

        rc = cmd_audit_slice(a, chain, stoa_nitems(values), values, &a->links,
                             &more);
    }

    for (more = true; rc == CMD_OK && more;) {
        const char *values[] = { cmd_audit_value(a->xid),
                                 cmd_audit_value(a->id), a->slice };

        rc = cmd_audit_slice(a, rows, stoa_nitems(values), values, &a->rows,
                             &more);
    }

    if (a->said_ms != 0) {
        (void) fputs("\r\033[K", stderr);
    }

    return rc;
}


static bool
cmd_audit_whole(const cmd_audit_t *a)
{
    bool whole = a->expect == NULL || a->expected;

    for (size_t i = 0; i < KINDS; i++) {
        whole = whole && a->found[i].count == 0;
    }

    return whole;
}


/* "row 7 (transaction 1234, "order.create", 2026-...Z, link 2026-11-21/5)
   was altered, and 2 more" */
static void
cmd_audit_say(cmd_audit_t *a)
{
    for (size_t i = 0; i < KINDS; i++) {
        const cmd_audit_found_t *f = &a->found[i];
        char what[2 * TEXT + 16] = "", link[2 * TEXT + 16] = "";
        char others[32] = "";

        if (f->count == 0) {
            continue;
        }

        if (f->first[AT][0] != '\0') {
            (void) snprintf(what, sizeof(what), ", \"%s\", %s",
                            f->first[ACTION], f->first[AT]);
        }

        if (f->first[DAY][0] != '\0') {
            (void) snprintf(link, sizeof(link), ", link %s/%s", f->first[DAY],
                            f->first[N]);
        }

        if (f->count > 1) {
            (void) snprintf(others, sizeof(others), "; and %" PRId64 " more",
                            f->count - 1);
        }

        cmd_say(a->c, "row %s (transaction %s%s%s) %s%s", f->first[ID],
                f->first[XID], what, link, cmd_audit_kinds[i].sentence, others);
    }

    if (a->expect != NULL && !a->expected) {
        cmd_say(a->c,
                "the head that was expected is not in the chain%s%s: its end, "
                "or all of it, was replaced",
                a->since != NULL ? " since " : "",
                a->since != NULL ? a->since : "");
    }
}


static void
cmd_audit_text(cmd_audit_t *a)
{
    cmd_audit_say(a);
    (void) printf("%" PRId64 " links, %" PRId64 " rows: %s\n", a->links,
                  a->rows, cmd_audit_whole(a) ? "whole" : "NOT whole");

    if (a->hash[0] != '\0') {
        (void) printf("head %s, link %s/%s\n", a->hash, a->day, a->n);
    }
}


static void
cmd_audit_member(stoa_buf_t *b, const char *name, const char *text, bool bare)
{
    stoa_buf_printf(b, ",\"%s\":", name);

    if (text[0] == '\0') {
        stoa_buf_z(b, "null");

    } else if (bare) {
        stoa_buf_z(b, text);

    } else {
        stoa_buf_json(b, stoa_str_z(text));
    }
}


static bool
cmd_audit_json(cmd_audit_t *a)
{
    stoa_buf_t b;

    stoa_buf_init(&b, a->c->mem, 4096, 65536);
    stoa_buf_printf(&b, "{\"whole\":%s,\"links\":%lld,\"rows\":%lld",
                    cmd_audit_whole(a) ? "true" : "false", (long long) a->links,
                    (long long) a->rows);

    if (a->hash[0] == '\0') {
        stoa_buf_z(&b, ",\"head\":null");

    } else {
        stoa_buf_printf(&b, ",\"head\":{\"hash\":\"%s\"", a->hash);
        cmd_audit_member(&b, "day", a->day, false);
        cmd_audit_member(&b, "n", a->n, true);
        stoa_buf_char(&b, '}');
    }

    stoa_buf_printf(&b, ",\"expected\":%s",
                    a->expect == NULL ? "null"
                    : a->expected     ? "true"
                                      : "false");

    for (size_t i = 0; i < KINDS; i++) {
        const cmd_audit_found_t *f = &a->found[i];

        stoa_buf_printf(&b, ",\"%s\":{\"count\":%lld,\"first\":",
                        cmd_audit_kinds[i].what, (long long) f->count);

        if (f->count == 0) {
            stoa_buf_z(&b, "null}");
            continue;
        }

        stoa_buf_printf(&b, "{\"id\":%s", f->first[ID]);
        cmd_audit_member(&b, "xid", f->first[XID], true);
        cmd_audit_member(&b, "day", f->first[DAY], false);
        cmd_audit_member(&b, "n", f->first[N], true);
        cmd_audit_member(&b, "at", f->first[AT], false);
        cmd_audit_member(&b, "action", f->first[ACTION], false);
        stoa_buf_z(&b, "}}");
    }

    stoa_buf_z(&b, "}\n");

    if (b.failed) {
        cmd_say(a->c, "no memory");
        return false;
    }

    return fwrite(b.data, 1, b.len, stdout) == b.len;
}


/* What the options say wrong; CMD_OK: nothing. */
static int
cmd_audit_options(cmd_audit_t *a, const char *verb, size_t nrest)
{
    unsigned char hash[32];
    char          time[64];
    int64_t       n;

    if (nrest != 1 || strcmp(verb, "verify") != 0) {
        cmd_say(a->c, "say verify");
        return CMD_USAGE;
    }

    if (a->since != NULL) {
        (void) snprintf(time, sizeof(time), "%.32sT00:00:00Z", a->since);

        if (!stoa_time_parse(stoa_str_z(time), &n)) {
            cmd_say(a->c, "--since is a day, YYYY-MM-DD, not \"%s\"", a->since);
            return CMD_USAGE;
        }
    }

    if (a->expect != NULL
        && stoa_hex_decode(hash, sizeof(hash), stoa_str_z(a->expect))
               != (ssize_t) sizeof(hash))
    {
        cmd_say(a->c, "--expect is a head that was printed, 64 hex digits");
        return CMD_USAGE;
    }

    if (!stoa_str_int(stoa_str_z(a->slice), 1, SLICE_MAX, &n)) {
        cmd_say(a->c, "--slice is a number from 1 to %d", SLICE_MAX);
        return CMD_USAGE;
    }

    return CMD_OK;
}


int
cmd_audit(cmd_t *c, int argc, char **argv)
{
    cmd_audit_t  a = { .c = c, .slice = "10000" };
    cmd_option_t options[] = {
        { "--since", NULL, &a.since },
        { "--expect", NULL, &a.expect },
        { "--slice", NULL, &a.slice },
        { "--json", &a.json, NULL },
    };
    const char *verb = NULL;
    size_t      nrest;
    int         rc;

    rc = cmd_options(c, argc, argv, options, stoa_nitems(options), &verb, 1,
                     &nrest);

    if (rc >= 0) {
        return rc;
    }

    rc = cmd_audit_options(&a, verb, nrest);

    if (rc != CMD_OK) {
        return rc;
    }

    if (!cmd_load(c)) {
        return CMD_FAILED;
    }

    a.db = cmd_db_open(c, "worker");

    if (a.db == NULL) {
        return CMD_UNREACHED;
    }

    a.progress = isatty(STDERR_FILENO) == 1;
    a.said_ms = a.progress ? stoa_time_mono_ms() : 0;
    rc = cmd_audit_walk(&a);
    cmd_db_close(a.db);

    if (rc != CMD_OK) {
        return rc;
    }

    if (!a.json) {
        cmd_audit_text(&a);

    } else if (!cmd_audit_json(&a)) {
        return CMD_FAILED;
    }

    return cmd_audit_whole(&a) ? CMD_OK : CMD_FAILED;
}
