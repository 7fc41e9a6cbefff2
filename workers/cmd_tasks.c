/*
 * stoa tasks: what the outbox holds, one task in full, and what an operator
 * may do about them.  A redriven row goes the usual way: relay, Redis, a
 * worker; attempts and crashes start afresh.  A canceled one is dead in
 * PostgreSQL at once; the workers tell Redis.
 */

#include "cmd.h"

#include <stdio.h>

#include "../shared/stoa_json.h"
#include "../shared/stoa_str.h"
#include "../shared/tasks/stoa_tasks.h"

#define MAX_ROWS 100000
#define MAX_RATE 1000

typedef struct {
    const char *state, *kind, *tenant, *reason, *max, *rate;
    const char *id;
    bool        all;
    bool        json;
} cmd_tasks_t;

typedef struct {
    const char *name;
    bool        one;  /* wants an ID */
    bool        many; /* or filters, or --all */
    int (*run)(cmd_t *c, const cmd_tasks_t *o);
} cmd_tasks_verb_t;

/* Columns of queue.list() as JSON has them; how each is written. */
static const struct {
    const char *name;
    bool        raw; /* is JSON already */
} cmd_tasks_columns[] = {
    { "id", false },    { "kind", false },      { "state", false },
    { "tries", true },  { "lastError", false }, { "createdAt", false },
    { "runAt", false }, { "tenant", false },    { "payload", true },
};


/* Runs a statement as the owner; what came, or NULL with *rc said. */
static stoa_pg_result_t *
cmd_tasks_query(cmd_t *c, const char *sql, size_t n, const char *const *values,
                int *rc)
{
    cmd_db_t         *db = cmd_db_open(c, "owner");
    stoa_pg_result_t *res = NULL;
    const char       *why;

    if (db == NULL) {
        *rc = CMD_UNREACHED;
        return NULL;
    }

    *rc = cmd_db_query(db, sql, n, values, &res, NULL, &why);

    if (*rc != CMD_OK) {
        cmd_say(c, "postgresql: %s", why);
        stoa_pg_result_free(res);
        res = NULL;
    }

    cmd_db_close(db);
    return res;
}


static void
cmd_tasks_text(const stoa_pg_result_t *res)
{
    for (int i = 0; i < stoa_pg_rows(res); i++) {
        (void) printf("%-10s %-20s %-8s tries %-3s %s  %s\n",
                      (const char *) stoa_pg_value(res, i, 0).data,
                      (const char *) stoa_pg_value(res, i, 1).data,
                      (const char *) stoa_pg_value(res, i, 2).data,
                      (const char *) stoa_pg_value(res, i, 3).data,
                      (const char *) stoa_pg_value(res, i, 5).data,
                      stoa_pg_null(res, i, 4)
                          ? ""
                          : (const char *) stoa_pg_value(res, i, 4).data);
    }

    (void) printf("%d tasks\n", stoa_pg_rows(res));
}


static bool
cmd_tasks_json(cmd_t *c, const stoa_pg_result_t *res)
{
    stoa_buf_t b;

    stoa_buf_init(&b, c->mem, 4096, 48 * 1024 * 1024);
    stoa_buf_char(&b, '[');

    for (int i = 0; i < stoa_pg_rows(res); i++) {
        stoa_buf_z(&b, i == 0 ? "{" : ",{");

        for (int k = 0; k < (int) stoa_nitems(cmd_tasks_columns); k++) {
            stoa_buf_z(&b, k == 0 ? "\"" : ",\"");
            stoa_buf_z(&b, cmd_tasks_columns[k].name);
            stoa_buf_z(&b, "\":");

            if (stoa_pg_null(res, i, k)) {
                stoa_buf_z(&b, "null");
            } else if (cmd_tasks_columns[k].raw) {
                stoa_buf_str(&b, stoa_pg_value(res, i, k));
            } else {
                stoa_buf_json(&b, stoa_pg_value(res, i, k));
            }
        }

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
    const char *values[5] = { strcmp(o->state, "all") == 0 ? NULL : o->state,
                              o->kind, o->tenant, o->reason, o->max };

    stoa_pg_result_t *res;
    int               rc;

    res = cmd_tasks_query(c,
                          "select id, kind, state, tries, last_error, "
                          "created_at, run_at, tenant, payload::text from "
                          "queue.list($1::text, $2::text, $3::text, $4::text, "
                          "$5::int)",
                          5, values, &rc);

    if (res == NULL) {
        return rc;
    }

    if (!o->json) {
        cmd_tasks_text(res);

    } else if (!cmd_tasks_json(c, res)) {
        rc = CMD_FAILED;
    }

    stoa_pg_result_free(res);
    return rc;
}


static int
cmd_tasks_show(cmd_t *c, const cmd_tasks_t *o)
{
    const char       *values[1] = { o->id };
    stoa_pg_result_t *res;
    int               rc;

    res = cmd_tasks_query(c,
                          o->json ? "select queue.show($1::bigint)"
                                  : "select jsonb_pretty(queue.show("
                                    "$1::bigint))",
                          1, values, &rc);

    if (res == NULL) {
        return rc;
    }

    if (stoa_pg_null(res, 0, 0)) {
        cmd_say(c,
                "no task %s, or it ended longer ago than ended tasks are "
                "kept",
                o->id);
        rc = CMD_FAILED;

    } else {
        (void) printf("%s\n", (const char *) stoa_pg_value(res, 0, 0).data);
    }

    stoa_pg_result_free(res);
    return rc;
}


/* Says how many; with an ID none is a failure. */
static int
cmd_tasks_said(cmd_t *c, const cmd_tasks_t *o, stoa_pg_result_t *res, int rc,
               const char *none, const char *some)
{
    if (res == NULL) {
        return rc;
    }

    if (o->id != NULL && stoa_str_eq_z(stoa_pg_value(res, 0, 0), "0")) {
        cmd_say(c, "task %s %s", o->id, none);
        rc = CMD_FAILED;

    } else {
        (void) printf("%s tasks %s\n",
                      (const char *) stoa_pg_value(res, 0, 0).data, some);
    }

    stoa_pg_result_free(res);
    return rc;
}


static int
cmd_tasks_cancel(cmd_t *c, const cmd_tasks_t *o)
{
    const char *values[4] = { o->kind, o->tenant, o->reason, o->max };
    const char *one[1] = { o->id };
    int         rc;

    stoa_pg_result_t *res;

    res = o->id != NULL
            ? cmd_tasks_query(c,
                              "select case when queue.cancel($1::bigint) "
                              "then 1 else 0 end",
                              1, one, &rc)
            : cmd_tasks_query(c,
                              "select count(*) filter (where "
                              "queue.cancel(l.id)) from (select * from "
                              "queue.list('waiting', $1::text, $2::text, "
                              "$3::text, $4::int) union all select * from "
                              "queue.list('sent', $1::text, $2::text, "
                              "$3::text, $4::int) union all select * from "
                              "queue.list('blocked', $1::text, $2::text, "
                              "$3::text, $4::int)) l",
                              4, values, &rc);

    return cmd_tasks_said(c, o, res, rc, "has ended already, or never was",
                          "canceled");
}


static int
cmd_tasks_redrive(cmd_t *c, const cmd_tasks_t *o)
{
    const char *values[5] = { o->kind, o->tenant, o->reason, o->max, o->rate };
    const char *one[1] = { o->id };
    int         rc;

    stoa_pg_result_t *res;

    res = o->id != NULL
            ? cmd_tasks_query(c,
                              "select case when queue.redrive_one($1::bigint) "
                              "then 1 else 0 end",
                              1, one, &rc)
            : cmd_tasks_query(c,
                              "select queue.redrive($1::text, $2::text, "
                              "$3::text, $4::int, coalesce(1000 / "
                              "$5::int, 0))",
                              5, values, &rc);

    return cmd_tasks_said(c, o, res, rc, "is not dead", "run again");
}


static const cmd_tasks_verb_t cmd_tasks_verbs[] = {
    { "list", false, true, cmd_tasks_list },
    { "show", true, false, cmd_tasks_show },
    { "cancel", true, true, cmd_tasks_cancel },
    { "redrive", true, true, cmd_tasks_redrive },
};


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


static bool
cmd_tasks_filters(cmd_t *c, const cmd_tasks_t *o)
{
    static const char *const states[] = { "waiting", "sent", "dead", "blocked",
                                          "all" };

    int64_t n;
    size_t  i;

    if (!stoa_str_int(stoa_str_z(o->max), 1, MAX_ROWS, &n)) {
        cmd_say(c, "--max is a number from 1 to %d", MAX_ROWS);
        return false;
    }

    if (o->rate != NULL && !stoa_str_int(stoa_str_z(o->rate), 1, MAX_RATE, &n))
    {
        cmd_say(c, "--rate is a number per second from 1 to %d", MAX_RATE);
        return false;
    }

    for (i = 0; i < stoa_nitems(states); i++) {
        if (strcmp(o->state, states[i]) == 0) {
            return o->kind == NULL || cmd_tasks_kind(c, o->kind);
        }
    }

    cmd_say(c, "--state is waiting, sent, dead, blocked or all");
    return false;
}


/* Many tasks are only meant by who says which. */
static bool
cmd_tasks_which(cmd_t *c, const cmd_tasks_verb_t *verb, const cmd_tasks_t *o)
{
    bool    filter = o->kind != NULL || o->tenant != NULL || o->reason != NULL;
    int64_t n;

    if (o->id != NULL && !stoa_str_int(stoa_str_z(o->id), 1, INT64_MAX, &n)) {
        cmd_say(c, "\"%s\" is not the id of a task", o->id);
        return false;
    }

    if (verb->one && !verb->many && o->id == NULL) {
        cmd_say(c, "say which: %s ID", verb->name);
        return false;
    }

    if (verb->one && verb->many && (o->id != NULL) + filter + o->all != 1) {
        cmd_say(c,
                "say which: %s ID, or --kind, --tenant or --reason, or "
                "--all",
                verb->name);
        return false;
    }

    if (!verb->one && (o->id != NULL || o->all)) {
        cmd_say(c, "%s takes filters, neither an ID nor --all", verb->name);
        return false;
    }

    return true;
}


int
cmd_tasks(cmd_t *c, int argc, char **argv)
{
    cmd_tasks_t  o = { .state = "dead", .max = "100" };
    cmd_option_t options[] = {
        { "--state", NULL, &o.state },   { "--kind", NULL, &o.kind },
        { "--tenant", NULL, &o.tenant }, { "--reason", NULL, &o.reason },
        { "--max", NULL, &o.max },       { "--rate", NULL, &o.rate },
        { "--all", &o.all, NULL },       { "--json", &o.json, NULL },
    };
    const char *rest[2] = { NULL, NULL };
    size_t      nrest;
    int         rc;

    rc = cmd_options(c, argc, argv, options, stoa_nitems(options), rest, 2,
                     &nrest);

    if (rc >= 0) {
        return rc;
    }

    o.id = rest[1];

    for (size_t i = 0; rest[0] != NULL && i < stoa_nitems(cmd_tasks_verbs); i++)
    {
        const cmd_tasks_verb_t *verb = &cmd_tasks_verbs[i];

        if (strcmp(rest[0], verb->name) != 0) {
            continue;
        }

        if (!cmd_tasks_filters(c, &o) || !cmd_tasks_which(c, verb, &o)) {
            return CMD_USAGE;
        }

        return cmd_load(c) ? verb->run(c, &o) : CMD_FAILED;
    }

    cmd_say(c, "say list, show, cancel or redrive");
    return CMD_USAGE;
}
