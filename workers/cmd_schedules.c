/*
 * stoa schedules: what runs by the clock, when it did and will, from the task
 * rows and from what the workers keep of them in PostgreSQL; run: once more,
 * now, beside the schedule.
 */

#include "cmd.h"

#include <stdio.h>

#include "../shared/stoa_str.h"
#include "../shared/tasks/stoa_tasks.h"

typedef struct {
    char        when[48];
    const char *zone;
    stoa_str_t  last; /* empty: never */
    stoa_str_t  next; /* empty: each .every_s */
} cmd_schedule_t;


static bool
cmd_schedules_is(const stoa_task_t *t)
{
    return t->every_s != 0 || t->cron != NULL;
}


static void
cmd_schedules_take(const stoa_task_t *t, const stoa_pg_result_t *res,
                   cmd_schedule_t *s)
{
    if (t->cron != NULL) {
        (void) snprintf(s->when, sizeof(s->when), "%s", t->cron);
        s->zone = t->zone != NULL ? t->zone : "UTC";

    } else {
        (void) snprintf(s->when, sizeof(s->when), "every %u s", t->every_s);
        s->zone = "";
    }

    s->last = s->next = (stoa_str_t) stoa_string("");

    for (int i = 0; i < stoa_pg_rows(res); i++) {
        if (stoa_str_eq_z(stoa_pg_value(res, i, 0), t->kind)) {
            s->last = stoa_pg_value(res, i, 1);
            s->next = stoa_pg_value(res, i, 2);
        }
    }
}


static void
cmd_schedules_text(const stoa_pg_result_t *res)
{
    cmd_schedule_t s;

    (void) printf("%-22s %-14s %-18s %-6s %-24s %s\n", "kind", "when", "zone",
                  "missed", "last", "next");

    for (size_t i = 0; i < stoa_ntasks; i++) {
        if (!cmd_schedules_is(&stoa_tasks[i])) {
            continue;
        }

        cmd_schedules_take(&stoa_tasks[i], res, &s);
        (void) printf("%-22s %-14s %-18s %-6s %-24.*s %.*s\n",
                      stoa_tasks[i].kind, s.when, s.zone,
                      stoa_tasks[i].cron != NULL
                          ? stoa_missed_name(stoa_tasks[i].missed)
                          : "skip",
                      s.last.len == 0 ? 5 : (int) s.last.len,
                      s.last.len == 0 ? "never" : (const char *) s.last.data,
                      (int) s.next.len, (const char *) s.next.data);
    }
}


static void
cmd_schedules_time(stoa_buf_t *b, const char *name, stoa_str_t time)
{
    stoa_buf_z(b, name);

    if (time.len == 0) {
        stoa_buf_z(b, "null");
    } else {
        stoa_buf_json(b, time);
    }
}


static bool
cmd_schedules_json(cmd_t *c, const stoa_pg_result_t *res)
{
    cmd_schedule_t s;
    stoa_buf_t     b;
    const char    *comma = "";

    stoa_buf_init(&b, c->mem, 4096, 1024 * 1024);
    stoa_buf_char(&b, '[');

    for (size_t i = 0; i < stoa_ntasks; i++) {
        const stoa_task_t *t = &stoa_tasks[i];

        if (!cmd_schedules_is(t)) {
            continue;
        }

        cmd_schedules_take(t, res, &s);
        stoa_buf_printf(&b, "%s{\"kind\":\"%s\"", comma, t->kind);

        if (t->cron != NULL) {
            stoa_buf_printf(
                &b, ",\"cron\":\"%s\",\"zone\":\"%s\",\"missed\":\"%s\"",
                t->cron, s.zone, stoa_missed_name(t->missed));
        } else {
            stoa_buf_printf(&b, ",\"everySeconds\":%u", t->every_s);
        }

        cmd_schedules_time(&b, ",\"lastAt\":", s.last);
        cmd_schedules_time(&b, ",\"nextAt\":", s.next);
        stoa_buf_char(&b, '}');
        comma = ",";
    }

    stoa_buf_z(&b, "]\n");

    if (b.failed) {
        cmd_say(c, "no memory");
        return false;
    }

    return fwrite(b.data, 1, b.len, stdout) == b.len;
}


static bool
cmd_schedules_known(cmd_t *c, const char *kind)
{
    const stoa_task_t *t = stoa_task_find(kind, strlen(kind));

    if (t != NULL && cmd_schedules_is(t)) {
        return true;
    }

    cmd_say(c,
            "nothing runs \"%s\" by the clock; stoa schedules shows what "
            "does",
            kind);
    return false;
}


int
cmd_schedules(cmd_t *c, int argc, char **argv)
{
    bool              json = false;
    cmd_option_t      options[] = { { "--json", &json, NULL } };
    const char       *rest[2] = { NULL, NULL }, *values[1], *why;
    size_t            nrest;
    cmd_db_t         *db;
    stoa_pg_result_t *res;
    int               rc;

    rc = cmd_options(c, argc, argv, options, 1, rest, 2, &nrest);

    if (rc >= 0) {
        return rc;
    }

    if (nrest != 0 && (nrest != 2 || strcmp(rest[0], "run") != 0)) {
        cmd_say(c, "say nothing, or run KIND");
        return CMD_USAGE;
    }

    if (nrest == 2 && !cmd_schedules_known(c, rest[1])) {
        return CMD_USAGE;
    }

    if (!cmd_load(c)) {
        return CMD_FAILED;
    }

    db = cmd_db_open(c, "owner");

    if (db == NULL) {
        return CMD_UNREACHED;
    }

    values[0] = rest[1];
    rc = cmd_db_query(db,
                      nrest == 0 ? "select kind, last_at, next_at from "
                                   "queue.schedules()"
                                 : "select queue.schedule_now($1::text)",
                      nrest / 2, values, &res, NULL, &why);

    if (rc != CMD_OK) {
        cmd_say(c, "postgresql: %s", why);

    } else if (nrest != 0) {
        (void) printf("task %s\n",
                      (const char *) stoa_pg_value(res, 0, 0).data);

    } else if (!json) {
        cmd_schedules_text(res);

    } else if (!cmd_schedules_json(c, res)) {
        rc = CMD_FAILED;
    }

    stoa_pg_result_free(res);
    cmd_db_close(db);
    return rc;
}
