/*
 * stoa check: settings, all of their mistakes at once and what the edge will
 * need of them, endpoint rows, task rows; with --db every statement
 * of edge and workers, those of flows and gates too, is prepared on the live
 * schema, as the role that will run it, and each failure is told with its
 * row or flow.
 */

#include "cmd.h"

#include <stdio.h>

#include "worker.h"

#include "../shared/api/stoa_flow.h"
#include "../shared/stoa_bind.h"
#include "../shared/stoa_route.h"
#include "../shared/stoa_str.h"

typedef struct {
    cmd_t            *c;
    const stoa_api_t *api;
    stoa_bound_row_t *bound; /* [api->nrows] */
    cmd_db_t         *db;
    size_t            statements;
    size_t            faults;
} cmd_check_t;


static void
cmd_check_fault(cmd_check_t *k, const char *what, const char *why)
{
    k->faults++;
    cmd_say(k->c, "%s: %s", what, why);
}


static void
cmd_check_say(void *data, const char *sentence)
{
    cmd_check_t *k = data;

    k->faults++;
    cmd_say(k->c, "%s", sentence);
}


static bool
cmd_check_loopback(const char *url)
{
    static const char *const hosts[] = { "127.", "localhost", "[::1]" };
    const char              *host = strstr(url, "://");

    for (size_t i = 0; host != NULL && i < stoa_nitems(hosts); i++) {
        if (strncmp(host + 3, hosts[i], strlen(hosts[i])) == 0) {
            return true;
        }
    }

    return false;
}


/* What is allowed, and is hardly what was meant. */
static void
cmd_check_production(cmd_check_t *k)
{
    const stoa_conf_t *conf = &k->c->conf;

    if (strcmp(conf->environment, "production") != 0) {

        if (!cmd_check_loopback(conf->public_url)) {
            cmd_say(k->c,
                    "warning: PUBLIC_URL is \"%s\" and ENVIRONMENT is \"%s\": "
                    "what is only for tests is open to everybody there, such "
                    "as paying without money",
                    conf->public_url, conf->environment);
        }

        return;
    }

    if (cmd_check_loopback(conf->public_url)) {
        cmd_say(k->c,
                "warning: PUBLIC_URL is \"%s\", which nobody else can open: "
                "mails and payments would lead there",
                conf->public_url);
    }

    if (conf->smtp_host[0] == '\0') {
        cmd_say(k->c,
                "warning: SMTP_HOST is not set: mails would only be written "
                "to files in \"%s\"",
                conf->mail_dir);
    }
}


/* The settings, and the key as the edge will want it. */
static void
cmd_check_conf(cmd_check_t *k)
{
    stoa_jwt_keys_t *keys;
    cmd_t           *c = k->c;

    if (!stoa_conf_load_all(&c->conf, c->conf_path, c->mem, cmd_check_say, k)) {
        return;
    }

    keys = cmd_keys(c);

    if (keys == NULL) {
        k->faults++;

    } else {
        stoa_jwt_keys_destroy(keys);
    }

    cmd_check_production(k);
}


void
cmd_check_settings(void)
{
    (void) puts("\nThe settings, each with its default: KEY=value in FILE or "
                "the environment, which wins;\nKEY_FILE=path reads the value "
                "from a file.\n");

    for (size_t i = 0; i < stoa_conf_nrows; i++) {
        const stoa_conf_row_t *row = &stoa_conf_rows[i];

        if (strncmp(row->key, "STOA_TEST_", 10) == 0) {
            continue; /* of test builds */
        }

        (void) printf("  %s=%s\n      %s", row->key, row->def, row->help);

        if (strcmp(row->type, "INT") == 0 || strcmp(row->type, "SECONDS") == 0)
        {
            (void) printf("; %lld to %lld%s", (long long) row->min,
                          (long long) row->max,
                          row->type[0] == 'S' ? " s, or like 15m, 24h, 7d"
                                              : "");
        }

        (void) printf("%s%s%s\n",
                      row->flags & STOA_CONF_SECRET ? "; secret" : "",
                      row->alias != NULL ? "; also " : "",
                      row->alias != NULL ? row->alias : "");
    }
}


static void
cmd_check_tasks(cmd_check_t *k)
{
    for (size_t i = 0; i < stoa_ntasks; i++) {
        const stoa_task_t *t = &stoa_tasks[i];

        if (t->kind == NULL || t->cls < 1 || t->cls >= STOA_CLASS_COUNT
            || t->level > 3 || t->anchor == NULL || t->summary == NULL)
        {
            cmd_check_fault(k, t->kind != NULL ? t->kind : "a task row",
                            "kind, class, level, anchor and summary must be "
                            "declared");
            continue;
        }

        if ((t->sql == NULL) == (t->flow == STOA_TASK_FLOW_NONE)) {
            cmd_check_fault(k, t->kind, "exactly one of sql and flow");
        }

        if (t->flow != STOA_TASK_FLOW_NONE && worker_flows[t->flow] == NULL) {
            cmd_check_fault(k, t->kind, "its flow has no steps");
        }

        if (stoa_task_find(t->kind, strlen(t->kind)) != t) {
            cmd_check_fault(k, t->kind, "the kind is there twice");
        }
    }
}


/* The endpoint rows; false when nothing behind them makes sense. */
static bool
cmd_check_rows(cmd_check_t *k)
{
    const char *why = NULL;

    k->api = stoa_api(k->c->mem);

    if (k->api == NULL) {
        cmd_check_fault(k, "rows", "no memory");
        return false;
    }

    if (!stoa_api_check(k->api, k->c->mem, &why)) {
        cmd_check_fault(k, "rows", why);
        return false;
    }

    if (stoa_route_create(k->c->mem, k->api, &why) == NULL) {
        cmd_check_fault(k, "routes", why);
    }

    k->bound = stoa_calloc(k->c->mem, k->api->nrows * sizeof(stoa_bound_row_t));

    if (k->bound == NULL) {
        cmd_check_fault(k, "rows", "no memory");
        return false;
    }

    for (size_t i = 0; i < k->api->nrows; i++) {
        if (!stoa_bind_row(k->c->mem, k->api->rows[i], &k->bound[i], &why)) {
            cmd_check_fault(k, k->api->rows[i]->id, why);
        }
    }

    return true;
}


static bool
cmd_check_prepare(cmd_check_t *k, const char *row, const stoa_pg_stmt_t *stmt)
{
    const char *why;
    int         rc = cmd_db_prepare(k->db, stmt, &why);

    k->statements++;

    if (rc != CMD_OK) {
        cmd_check_fault(k, row, why);
    }

    return rc != CMD_UNREACHED;
}


static bool
cmd_check_bound(cmd_check_t *k, const stoa_bound_row_t *b)
{
    const char *id = b->ep->id;

    if ((b->plain != NULL && !cmd_check_prepare(k, id, &b->plain->stmt))
        || (b->keyed != NULL && !cmd_check_prepare(k, id, &b->keyed->stmt)))
    {
        return false;
    }

    for (size_t i = 0; i < b->nsorts; i++) {
        if (b->pages != NULL && !cmd_check_prepare(k, id, &b->pages[i].stmt)) {
            return false;
        }

        if (b->cursors != NULL
            && !cmd_check_prepare(k, id, &b->cursors[i].stmt)) {
            return false;
        }
    }

    return true;
}


/* "flow AUTH_LOGIN, statement flow_login_begin". */
static bool
cmd_check_flow(cmd_check_t *k, const stoa_flow_stmt_t *row)
{
    char        what[128];
    const char *flow = stoa_flow_name(row->flow);

    (void) snprintf(what, sizeof(what), "%s%s%sstatement %s",
                    flow != NULL ? "flow " : "", flow != NULL ? flow : "",
                    flow != NULL ? ", " : "", row->stmt.name);

    return cmd_check_prepare(k, what, &row->stmt);
}


static int
cmd_check_edge(cmd_check_t *k)
{
    bool ok = true;

    k->db = cmd_db_open(k->c, "edge");

    if (k->db == NULL) {
        return CMD_UNREACHED;
    }

    for (size_t i = 0; ok && i < k->api->nrows; i++) {
        if (k->bound[i].ep != NULL) {
            ok = cmd_check_bound(k, &k->bound[i]);
        }
    }

    for (size_t i = 0; ok && i < STOA_STMT_COUNT; i++) {
        ok = cmd_check_flow(k, &stoa_flow_stmts[i]);
    }

    cmd_db_close(k->db);
    return ok ? CMD_OK : CMD_UNREACHED;
}


static int
cmd_check_worker(cmd_check_t *k)
{
    bool ok = true;

    k->db = cmd_db_open(k->c, "worker");

    if (k->db == NULL) {
        return CMD_UNREACHED;
    }

    for (size_t i = 0; ok && i < WORKER_SQL_COUNT; i++) {
        ok = cmd_check_prepare(k, worker_stmts[i].name, &worker_stmts[i]);
    }

    for (size_t i = 0; ok && i < stoa_ntasks; i++) {
        char           sql[256];
        stoa_pg_stmt_t stmt = { .sql = sql, .nparams = 2 };

        if (stoa_tasks[i].sql != NULL) {
            (void) snprintf(sql, sizeof(sql), "select %s", stoa_tasks[i].sql);
            ok = cmd_check_prepare(k, stoa_tasks[i].kind, &stmt);
        }
    }

    cmd_db_close(k->db);
    return ok ? CMD_OK : CMD_UNREACHED;
}


int
cmd_check(cmd_t *c, int argc, char **argv)
{
    bool         db = false;
    cmd_option_t options[] = { { "--db", &db, NULL } };
    cmd_check_t  k = { .c = c };
    size_t       nrest;
    int          rc;

    rc = cmd_options(c, argc, argv, options, 1, NULL, 0, &nrest);

    if (rc >= 0) {
        return rc;
    }

    cmd_check_conf(&k);
    db = db && k.faults == 0; /* else it would speak of another database */
    cmd_check_tasks(&k);

    if (cmd_check_rows(&k) && db) {
        rc = cmd_check_edge(&k);

        if (rc == CMD_OK) {
            rc = cmd_check_worker(&k);
        }

        if (rc != CMD_OK && rc != -1) {
            return rc;
        }
    }

    if (k.faults > 1) {
        (void) fprintf(stderr, "stoa check: %zu faults\n", k.faults);
    }

    if (k.faults != 0) {
        return CMD_FAILED;
    }

    (void) printf("settings, %zu endpoints, %zu aliases and %zu tasks are "
                  "well",
                  k.api->nrows, k.api->naliases, stoa_ntasks);

    if (db) {
        (void) printf("; %zu statements prepared", k.statements);
    }

    (void) puts("");
    return CMD_OK;
}
