/*
 * stoa tasks: the dead ones, as PostgreSQL keeps them, and their redrive.
 * A redriven row goes the usual way: relay, Redis, a worker; attempts and
 * crashes start afresh.
 */

#include "cmd.h"

#include <stdio.h>

#include "../shared/stoa_json.h"
#include "../shared/stoa_str.h"
#include "../shared/tasks/stoa_tasks.h"

#define MAX_ROWS 100000

typedef struct {
    const char *kind;
    const char *max;
    bool        all;
    bool        json;
} cmd_tasks_t;


static void
cmd_tasks_text(const stoa_pg_result_t *res)
{
    for (int i = 0; i < stoa_pg_rows(res); i++) {
        (void) printf("%-10s %-20s tries %-3s %s  %s\n",
                      (const char *) stoa_pg_value(res, i, 0).data,
                      (const char *) stoa_pg_value(res, i, 1).data,
                      (const char *) stoa_pg_value(res, i, 2).data,
                      (const char *) stoa_pg_value(res, i, 4).data,
                      stoa_pg_null(res, i, 3)
                          ? ""
                          : (const char *) stoa_pg_value(res, i, 3).data);
    }

    (void) printf("%d dead tasks\n", stoa_pg_rows(res));
}


static bool
cmd_tasks_json(cmd_t *c, const stoa_pg_result_t *res)
{
    stoa_buf_t b;

    stoa_buf_init(&b, c->mem, 4096, 48 * 1024 * 1024);
    stoa_buf_char(&b, '[');

    for (int i = 0; i < stoa_pg_rows(res); i++) {
        stoa_buf_z(&b, i == 0 ? "{\"id\":" : ",{\"id\":");
        stoa_buf_json(&b, stoa_pg_value(res, i, 0));
        stoa_buf_z(&b, ",\"kind\":");
        stoa_buf_json(&b, stoa_pg_value(res, i, 1));
        stoa_buf_z(&b, ",\"tries\":");
        stoa_buf_str(&b, stoa_pg_value(res, i, 2));
        stoa_buf_z(&b, ",\"lastError\":");
        stoa_buf_json(&b, stoa_pg_value(res, i, 3));
        stoa_buf_z(&b, ",\"createdAt\":");
        stoa_buf_json(&b, stoa_pg_value(res, i, 4));
        stoa_buf_z(&b, ",\"payload\":");
        stoa_buf_str(&b, stoa_pg_value(res, i, 5));
        stoa_buf_char(&b, '}');
    }

    stoa_buf_z(&b, "]\n");

    if (b.failed) {
        cmd_say(c, "no memory; ask for less with --max");
        return false;
    }

    return fwrite(b.data, 1, b.len, stdout) == b.len;
}


static int
cmd_tasks_list(cmd_t *c, const cmd_tasks_t *o)
{
    cmd_db_t         *db = cmd_db_open(c, "owner");
    const char       *values[2] = { o->kind, o->max };
    stoa_pg_result_t *res;
    const char       *why;
    int               rc;

    if (db == NULL) {
        return CMD_UNREACHED;
    }

    rc = cmd_db_query(db,
                      "select id, kind, tries, last_error, created_at, "
                      "payload::text from queue.dead_list($1::text, $2::int)",
                      2, values, &res, NULL, &why);

    if (rc != CMD_OK) {
        cmd_say(c, "cannot read the dead tasks: %s", why);

    } else if (!o->json) {
        cmd_tasks_text(res);

    } else if (!cmd_tasks_json(c, res)) {
        rc = CMD_FAILED;
    }

    stoa_pg_result_free(res);
    cmd_db_close(db);
    return rc;
}


static int
cmd_tasks_redrive(cmd_t *c, const cmd_tasks_t *o, const char *id)
{
    cmd_db_t         *db = cmd_db_open(c, "owner");
    const char       *values[2] = { o->kind, o->max };
    stoa_pg_result_t *res;
    const char       *why;
    int               rc;

    if (db == NULL) {
        return CMD_UNREACHED;
    }

    if (id != NULL) {
        values[0] = id;
        rc = cmd_db_query(db,
                          "select case when queue.redrive_one($1::bigint) "
                          "then 1 else 0 end",
                          1, values, &res, NULL, &why);
    } else {
        rc = cmd_db_query(db, "select queue.redrive($1::text, $2::int)", 2,
                          values, &res, NULL, &why);
    }

    if (rc != CMD_OK) {
        cmd_say(c, "cannot redrive: %s", why);

    } else if (id != NULL && stoa_str_eq_z(stoa_pg_value(res, 0, 0), "0")) {
        cmd_say(c, "task %s is not dead", id);
        rc = CMD_FAILED;

    } else {
        (void) printf("%s tasks run again\n",
                      (const char *) stoa_pg_value(res, 0, 0).data);
    }

    stoa_pg_result_free(res);
    cmd_db_close(db);
    return rc;
}


/* A kind that a task row has; else the sentence names all of them. */
static bool
cmd_tasks_kind(cmd_t *c, const char *kind)
{
    stoa_buf_t b;

    if (stoa_task_find(kind, strlen(kind)) != NULL) {
        return true;
    }

    stoa_buf_init(&b, c->mem, 512, 4096);

    for (size_t i = 0; i < stoa_ntasks; i++) {
        stoa_buf_z(&b, i == 0 ? "" : ", ");
        stoa_buf_z(&b, stoa_tasks[i].kind);
    }

    stoa_buf_nul(&b);
    cmd_say(c, "there is no kind \"%s\"; the kinds are %s", kind,
            b.failed ? "many" : (const char *) b.data);
    return false;
}


int
cmd_tasks(cmd_t *c, int argc, char **argv)
{
    cmd_tasks_t  o = { .max = "100" };
    cmd_option_t options[] = {
        { "--kind", NULL, &o.kind },
        { "--max", NULL, &o.max },
        { "--all", &o.all, NULL },
        { "--json", &o.json, NULL },
    };
    const char *rest[2] = { NULL, NULL };
    size_t      nrest;
    int64_t     n;
    int         rc;

    rc = cmd_options(c, argc, argv, options, stoa_nitems(options), rest, 2,
                     &nrest);

    if (rc >= 0) {
        return rc;
    }

    if (!stoa_str_int(stoa_str_z(o.max), 1, MAX_ROWS, &n)) {
        cmd_say(c, "--max is a number from 1 to %d", MAX_ROWS);
        return CMD_USAGE;
    }

    if (o.kind != NULL && !cmd_tasks_kind(c, o.kind)) {
        return CMD_USAGE;
    }

    if (nrest == 1 && strcmp(rest[0], "list") == 0 && !o.all) {
        return cmd_load(c) ? cmd_tasks_list(c, &o) : CMD_FAILED;
    }

    if (nrest == 0 || strcmp(rest[0], "redrive") != 0
        || (nrest == 2) + (o.kind != NULL) + o.all != 1)
    {
        cmd_say(c, "say list, or redrive with an ID, --kind KIND or --all");
        return CMD_USAGE;
    }

    if (nrest == 2 && !stoa_str_int(stoa_str_z(rest[1]), 1, INT64_MAX, &n)) {
        cmd_say(c, "\"%s\" is not the id of a task", rest[1]);
        return CMD_USAGE;
    }

    return cmd_load(c) ? cmd_tasks_redrive(c, &o, rest[1]) : CMD_FAILED;
}
