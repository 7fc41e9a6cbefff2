/*
 * PostgreSQL for commands: a pool of one connection on the poll(2) loop,
 * driven until the one statement that was asked for has ended.
 */

#include "cmd.h"

#include <stdio.h>
#include <stdlib.h>

#include "../shared/stoa_buf.h"
#include "../shared/stoa_str.h"

#define CONNECT_MS   5000
#define STATEMENT_MS 60000
#define SLOTS        1024

struct cmd_db_s {
    cmd_t            *c;
    const char       *role;
    stoa_loop_t      *loop;
    stoa_pg_pool_t   *pool;
    bool              stop;
    stoa_err_e        err;
    stoa_pg_result_t *res;
    char              sqlstate[8];
    char              message[1024];
};


static void
cmd_db_done(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    cmd_db_t *db = data;

    db->err = err;
    db->stop = true;
    (void) snprintf(db->sqlstate, sizeof(db->sqlstate), "%s",
                    stoa_pg_sqlstate(op));
    (void) snprintf(db->message, sizeof(db->message), "%s",
                    err == STOA_OK ? "" : stoa_pg_message(op));

    if (err == STOA_OK) {
        db->res = stoa_pg_take(op);
    }
}


static int
cmd_db_run(cmd_db_t *db, const stoa_pg_stmt_t *stmt, const char *const *values,
           const char **why)
{
    stoa_err_e err = STOA_OK;

    db->stop = false;
    db->res = NULL;
    db->sqlstate[0] = '\0';
    *why = NULL;

    if (stoa_pg_submit(db->pool, stmt, values, NULL, 0, cmd_db_done, db, &err)
        == NULL)
    {
        *why = stoa_err_row(err)->title;
        return CMD_UNREACHED;
    }

    if (!stoa_loop_poll_run(db->loop, &db->stop, STATEMENT_MS + CONNECT_MS)) {
        *why = "the statement took too long";
        return CMD_UNREACHED;
    }

    if (db->err == STOA_OK) {
        return CMD_OK;
    }

    *why = stoa_strdup_z(db->c->mem,
                         stoa_str_z(db->message[0] != '\0'
                                        ? db->message
                                        : stoa_err_row(db->err)->title));

    if (*why == NULL) {
        *why = "no memory";
    }

    return db->sqlstate[0] == '\0' ? CMD_UNREACHED : CMD_FAILED;
}


int
cmd_db_query(cmd_db_t *db, const char *sql, size_t nvalues,
             const char *const *values, stoa_pg_result_t **res,
             const char **sqlstate, const char **why)
{
    /* the pool may keep what it sent, so it lives as long as the command */
    stoa_pg_stmt_t *stmt = stoa_calloc(db->c->mem, sizeof(stoa_pg_stmt_t));
    int             rc;

    *res = NULL;

    if (stmt == NULL) {
        *why = "no memory";
        return CMD_FAILED;
    }

    stmt->name = "once";
    stmt->sql = sql;
    stmt->nparams = (uint16_t) nvalues;
    stmt->write = true;
    stmt->no_prepare = true;
    rc = cmd_db_run(db, stmt, values, why);
    *res = db->res;

    if (sqlstate != NULL) {
        *sqlstate = db->sqlstate;
    }

    return rc;
}


/* As many parameters as the sender binds, or it would be refused then. */
static int
cmd_db_params(cmd_db_t *db, const stoa_pg_stmt_t *stmt, stoa_str_t has,
              const char **why)
{
    stoa_buf_t b;
    int64_t    n = -1;

    if (stoa_str_int(has, 0, 65535, &n) && n == stmt->nparams) {
        return CMD_OK;
    }

    stoa_buf_init(&b, db->c->mem, 64, 256);
    stoa_buf_printf(&b, "its text has %lld parameters, its row says %u",
                    (long long) n, stmt->nparams);
    stoa_buf_nul(&b);
    *why = b.failed ? "no memory" : (const char *) b.data;

    return CMD_FAILED;
}


int
cmd_db_prepare(cmd_db_t *db, const stoa_pg_stmt_t *stmt, const char **why)
{
    stoa_buf_t        b;
    stoa_pg_result_t *res;
    const char       *sql, *late;
    int               rc, done;

    stoa_buf_init(&b, db->c->mem, 512, 131072);
    stoa_buf_printf(&b, "prepare \"check\" as %s", stmt->sql);
    stoa_buf_nul(&b);

    if (b.failed) {
        *why = "the statement is too long";
        return CMD_FAILED;
    }

    sql = (const char *) b.data;
    rc = cmd_db_query(db, sql, 0, NULL, &res, NULL, why);
    stoa_pg_result_free(res);

    if (rc != CMD_OK) {
        return rc;
    }

    rc = cmd_db_query(db,
                      "select coalesce(cardinality(p.parameter_types), 0) "
                      "from pg_prepared_statements p where p.name = 'check'",
                      0, NULL, &res, NULL, why);

    if (rc == CMD_OK) {
        rc = cmd_db_params(db, stmt, stoa_pg_value(res, 0, 0), why);
    }

    stoa_pg_result_free(res);

    if (rc == CMD_UNREACHED) {
        return rc;
    }

    done = cmd_db_query(db, "deallocate \"check\"", 0, NULL, &res, NULL, &late);
    stoa_pg_result_free(res);

    if (rc == CMD_OK && done != CMD_OK) {
        *why = late;
        return done;
    }

    return rc;
}


cmd_db_t *
cmd_db_open(cmd_t *c, const char *role)
{
    cmd_db_t         *db = calloc(1, sizeof(cmd_db_t));
    stoa_pg_conf_t    pc = { 0 };
    stoa_pg_result_t *res;
    const char       *why = "no memory";
    int               rc;

    if (db == NULL) {
        cmd_say(c, "no memory");
        return NULL;
    }

    db->c = c;
    db->role = role;
    pc.name = "command";
    pc.conninfo = stoa_conf_conninfo(&c->conf, role, c->mem);
    pc.size = 1;
    pc.in_flight = 1;
    pc.queue_max = 4;
    pc.nslots = SLOTS;
    pc.queue_timeout_ms = CONNECT_MS;
    pc.statement_timeout_ms = STATEMENT_MS;
    pc.connect_timeout_ms = CONNECT_MS;
    db->loop = stoa_loop_poll_create(&c->log);

    if (db->loop != NULL && pc.conninfo != NULL) {
        db->pool = stoa_pg_pool_create(db->loop, &pc);
    }

    if (db->pool == NULL) {
        cmd_say(c, "cannot connect to PostgreSQL: %s",
                c->last[0] != '\0' ? c->last : why);
        cmd_db_close(db);
        return NULL;
    }

    rc = cmd_db_query(db, "select 1", 0, NULL, &res, NULL, &why);
    stoa_pg_result_free(res);

    if (rc != CMD_OK) {
        cmd_say(c, "cannot reach database \"%s\" at %s:%lld as its %s: %s",
                c->conf.db_name, c->conf.db_host, (long long) c->conf.db_port,
                role, c->last[0] != '\0' ? c->last : why);
        cmd_db_close(db);
        return NULL;
    }

    return db;
}


void
cmd_db_close(cmd_db_t *db)
{
    if (db->pool != NULL) {
        stoa_pg_pool_destroy(db->pool);
    }

    if (db->loop != NULL) {
        stoa_loop_poll_destroy(db->loop);
    }

    free(db);
}
