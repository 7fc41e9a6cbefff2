/*
 * The PostgreSQL door: one pipelined libpq connection as a state machine on
 * a stoa_loop_t.  What is done with results is stoa_pg_result.c; the pool that
 * feeds the connections is stoa_pg_pool.c.
 *
 * What libpq will report is kept in a ring of commands in the order in which
 * they were sent, and each result is judged by the command at its head:
 *
 *   a read    is answered as soon as its own result is complete; the reads
 *             of one loop turn share one Sync (a group), and when one of them
 *             fails, the ones behind it were not run and are sent again
 *   a write   has a Sync of its own and is answered only when that Sync
 *             arrives; an error in between (a deferred constraint) replaces
 *             its rows
 *   a Parse   goes before the first use, under a Sync of its own
 *
 * No call here blocks: connecting is PQconnectPoll() with an address that
 * needs no resolving, the rest runs on a non-blocking socket, and results
 * are only taken while PQisBusy() says they are there.
 */

#include "stoa_pg_int.h"

#include <stdio.h>


#define STOA_PG_SETUP_SQL                                                      \
    "select pg_catalog.set_config('statement_timeout', $1, false),"            \
    " pg_catalog.set_config('search_path', $2, false),"                        \
    " pg_catalog.set_config('plan_cache_mode', $3, false)"

static const stoa_pg_stmt_t stoa_pg_timeout_stmt = {
    .name = "stoa_timeout",
    .sql = "select pg_catalog.set_config('statement_timeout', $1, true)",
    .nparams = 1,
    .slot = STOA_PG_SLOT_TIMEOUT,
};

static void stoa_pg_conn_event(stoa_watch_t *w, bool readable, bool writable);


/* ---- connecting ---- */

/* libpq's texts end with a line feed and may have several lines. */
void
stoa_pg_one_line(char out[256], const char *text)
{
    size_t i, n = strnlen(text, 255);

    for (i = 0; i < n; i++) {
        out[i] = text[i] == '\n' ? ' ' : text[i];
    }

    while (i > 0 && out[i - 1] == ' ') {
        i--;
    }

    out[i] = '\0';
}


static void
stoa_pg_notice(void *data, const PGresult *res)
{
    char            line[256];
    stoa_pg_conn_t *conn = stoa_cast(stoa_pg_conn_t, STOA_PG_CONN_MAGIC, data);

    stoa_pg_one_line(line, stoa_pg_res_field(res, PG_DIAG_MESSAGE_PRIMARY));

    stoa_log(conn->pool->loop->log, STOA_LOG_INFO, "pg: pool \"%s\" says: %s",
             conn->pool->conf.name, line);
}


bool
stoa_pg_conninfo_check(stoa_loop_t *loop, const char *conninfo)
{
    char             *message = NULL, line[256];
    const char       *host = NULL, *hostaddr = NULL;
    PQconninfoOption *options, *o;
    bool              numeric;

    options = PQconninfoParse(conninfo, &message);
    if (options == NULL) {
        stoa_pg_one_line(line, message == NULL ? "no memory" : message);
        stoa_log(loop->log, STOA_LOG_ERROR, "pg: conninfo is not valid: %s",
                 line);
        PQfreemem(message);
        return false;
    }

    for (o = options; o->keyword != NULL; o++) {
        if (o->val == NULL || o->val[0] == '\0') {
            continue;
        }

        if (strcmp(o->keyword, "host") == 0) {
            host = o->val;

        } else if (strcmp(o->keyword, "hostaddr") == 0) {
            hostaddr = o->val;
        }
    }

    /* lists of hosts pass when each has the look of a path or an address */

    numeric = host == NULL || hostaddr != NULL || host[0] == '/'
           || host[0] == '@' || strchr(host, ':') != NULL
           || host[strspn(host, "0123456789.,")] == '\0';

    if (!numeric) {
        stoa_log(loop->log, STOA_LOG_ERROR,
                 "pg: host \"%s\" would have to be resolved, use hostaddr",
                 host);
    }

    PQconninfoFree(options);

    return numeric;
}


static void
stoa_pg_conn_unwatch(stoa_pg_conn_t *conn)
{
    stoa_loop_t *loop = conn->pool->loop;

    if (conn->watch.host != NULL) {
        /* on EOF libpq has closed the descriptor itself */
        loop->watch_close(loop, &conn->watch,
                          conn->pg != NULL
                              && PQsocket(conn->pg) == conn->watch.fd);
    }

    conn->wants_write = false;
}


void
stoa_pg_conn_close(stoa_pg_conn_t *conn)
{
    stoa_pg_conn_unwatch(conn);
    PQfinish(conn->pg); /* NULL is fine */
    conn->pg = NULL;
}


static bool
stoa_pg_conn_watch(stoa_pg_conn_t *conn, bool rd, bool wr)
{
    stoa_loop_t *loop = conn->pool->loop;

    conn->watch.ready = stoa_pg_conn_event;
    conn->watch.data = conn;

    if (loop->watch_open(loop, &conn->watch, PQsocket(conn->pg)) != STOA_OK) {
        return false;
    }

    loop->watch_want(loop, &conn->watch, rd, wr);
    conn->wants_write = wr;

    return true;
}


void
stoa_pg_conn_connect(stoa_pg_conn_t *conn)
{
    char            name[64];
    stoa_pg_pool_t *pool = conn->pool;
    stoa_loop_t    *loop = pool->loop;

    /* later ones win: conninfo may say otherwise */
    const char *keys[] = { "gssencmode", "client_encoding", "application_name",
                           "dbname", NULL };
    const char *values[] = { "disable", "UTF8", name, pool->conf.conninfo,
                             NULL };

    (void) snprintf(name, sizeof(name), "stoa/%s", pool->conf.name);

    stoa_pg_conn_set_state(conn, STOA_PG_CONNECTING);

    conn->retry.fire = stoa_pg_conn_retry;
    conn->retry.data = conn;
    conn->retry.cancelable = true;
    loop->timer_set(loop, &conn->retry, pool->conf.connect_timeout_ms);

    conn->pg = PQconnectStartParams(keys, values, 1);
    if (conn->pg == NULL) {
        stoa_pg_conn_lost(conn, STOA_PG_DOWN, "no memory");
        return;
    }

    (void) PQsetNoticeReceiver(conn->pg, stoa_pg_notice, conn);

    if (PQstatus(conn->pg) == CONNECTION_BAD) {
        stoa_pg_conn_lost(conn, STOA_PG_DOWN, PQerrorMessage(conn->pg));
        return;
    }

    if (!stoa_pg_conn_watch(conn, false, true)) {
        stoa_pg_conn_lost(conn, STOA_PG_DOWN, "cannot watch the socket");
    }
}


static void
stoa_pg_conn_push(stoa_pg_conn_t *conn, stoa_pg_cmd_e kind, stoa_pg_op_t *op,
                  uint32_t slot)
{
    stoa_pg_cmd_t *cmd = stoa_pg_conn_cmd(conn, conn->count);

    cmd->kind = kind;
    cmd->op = op;
    cmd->slot = slot;
    conn->count++;
}


static bool
stoa_pg_conn_sync(stoa_pg_conn_t *conn, bool reads)
{
#ifdef LIBPQ_HAS_SEND_PIPELINE_SYNC
    if (PQsendPipelineSync(conn->pg) != 1) { /* does not write yet */
        return false;
    }
#else
    if (PQpipelineSync(conn->pg) != 1) {
        return false;
    }
#endif

    stoa_pg_conn_push(conn, STOA_PG_CMD_SYNC, NULL, reads);

    return true;
}


static bool
stoa_pg_conn_setup(stoa_pg_conn_t *conn)
{
    char                  timeout[16];
    const stoa_pg_conf_t *conf = &conn->pool->conf;
    const char           *values[3];

    (void) snprintf(timeout, sizeof(timeout), "%u", conf->statement_timeout_ms);
    (void) snprintf(conn->pid, sizeof(conn->pid), "%d", PQbackendPID(conn->pg));

    values[0] = timeout;
    values[1] = conf->search_path;
    values[2] = conf->force_custom_plan ? "force_custom_plan" : "auto";

    if (PQsetnonblocking(conn->pg, 1) != 0 || PQenterPipelineMode(conn->pg) != 1
        || PQsendQueryParams(conn->pg, STOA_PG_SETUP_SQL, 3, NULL, values, NULL,
                             NULL, 0)
               != 1)
    {
        return false;
    }

    stoa_pg_conn_push(conn, STOA_PG_CMD_SETUP, NULL, 0);

    return stoa_pg_conn_sync(conn, false) && stoa_pg_conn_flush(conn);
}


static void
stoa_pg_conn_poll(stoa_pg_conn_t *conn)
{
    bool                      ok = false;
    PostgresPollingStatusType rc;

    /* the descriptor may be another one afterwards, even with the same
       number: never watched across PQconnectPoll() */

    stoa_pg_conn_unwatch(conn);

    rc = PQconnectPoll(conn->pg);

    switch (rc) {

    case PGRES_POLLING_READING:
        ok = stoa_pg_conn_watch(conn, true, false);
        break;

    case PGRES_POLLING_WRITING:
        ok = stoa_pg_conn_watch(conn, false, true);
        break;

    case PGRES_POLLING_OK:
        stoa_pg_conn_set_state(conn, STOA_PG_SETUP);
        ok = stoa_pg_conn_watch(conn, true, false) && stoa_pg_conn_setup(conn);
        break;

    case PGRES_POLLING_FAILED:
    case PGRES_POLLING_ACTIVE: /* not used by libpq */
        break;
    }

    if (!ok) {
        stoa_pg_conn_lost(conn, STOA_PG_DOWN, PQerrorMessage(conn->pg));
    }
}


/* ---- sending ---- */

static uint32_t
stoa_pg_conn_slot(const stoa_pg_conn_t *conn, const stoa_pg_stmt_t *stmt)
{
    return stmt->slot >= STOA_PG_SLOT_OWN
             ? conn->pool->conf.nslots + (stmt->slot - STOA_PG_SLOT_OWN)
             : stmt->slot;
}


static bool
stoa_pg_conn_deallocate(stoa_pg_conn_t *conn, const char *name)
{
    char  *quoted, sql[160];
    size_t len = strlen(name);
    int    n;

    quoted = PQescapeIdentifier(conn->pg, name, len);
    if (quoted == NULL) {
        return false;
    }

    n = snprintf(sql, sizeof(sql), "deallocate %s", quoted);
    PQfreemem(quoted);

    if (n < 0 || (size_t) n >= sizeof(sql)
        || PQsendQueryParams(conn->pg, sql, 0, NULL, NULL, NULL, NULL, 0) != 1)
    {
        return false;
    }

    stoa_pg_conn_push(conn, STOA_PG_CMD_DEALLOCATE, NULL, 0);

    return stoa_pg_conn_sync(conn, false);
}


/* Each under a Sync of its own: a bad statement harms no other. */
static bool
stoa_pg_conn_prepare(stoa_pg_conn_t *conn, const stoa_pg_stmt_t *stmt,
                     stoa_pg_op_t *op)
{
    uint32_t slot = stoa_pg_conn_slot(conn, stmt);

    if (conn->prepared[slot] == STOA_PG_PREPARED) {
        return true;
    }

    if (conn->prepared[slot] == STOA_PG_STALE
        && !stoa_pg_conn_deallocate(conn, stmt->name))
    {
        return false;
    }

    if (PQsendPrepare(conn->pg, stmt->name, stmt->sql, 0, NULL) != 1) {
        return false;
    }

    conn->prepared[slot] = STOA_PG_PREPARED;
    stoa_pg_conn_push(conn, STOA_PG_CMD_PARSE, op, slot);

    return stoa_pg_conn_sync(conn, false);
}


static bool
stoa_pg_conn_send_timeout(stoa_pg_conn_t *conn, stoa_pg_op_t *op)
{
    char        text[16];
    const char *values[1] = { text };

    (void) snprintf(text, sizeof(text), "%u", op->stmt->timeout_ms);

    if (PQsendQueryPrepared(conn->pg, stoa_pg_timeout_stmt.name, 1, values,
                            NULL, NULL, 0)
        != 1)
    {
        return false;
    }

    stoa_pg_conn_push(conn, STOA_PG_CMD_TIMEOUT, op, 0);

    return true;
}


static bool
stoa_pg_conn_end_group(stoa_pg_conn_t *conn)
{
    if (conn->open == 0) {
        return true;
    }

    conn->grouped = conn->open;
    conn->open = 0;
    conn->pool->stats.syncs++;

    return stoa_pg_conn_sync(conn, true);
}


static bool
stoa_pg_conn_send_own(stoa_pg_conn_t *conn, stoa_pg_op_t *op)
{
    bool                  timed;
    uint32_t              slot;
    const stoa_pg_stmt_t *stmt = op->stmt;

    slot = stoa_pg_conn_slot(conn, stmt);
    timed = stmt->timeout_ms != 0
         && stmt->timeout_ms != conn->pool->conf.statement_timeout_ms;

    if (op->reprepared && conn->prepared[slot] == STOA_PG_PREPARED) {
        /* a Parse on its way for another one may fail: this has its own */
        conn->prepared[slot] = STOA_PG_STALE;
    }

    if (timed && !stoa_pg_conn_prepare(conn, &stoa_pg_timeout_stmt, op)) {
        return false;
    }

    if (!stmt->no_prepare && !stoa_pg_conn_prepare(conn, stmt, op)) {
        return false;
    }

    return !timed || stoa_pg_conn_send_timeout(conn, op);
}


bool
stoa_pg_conn_send(stoa_pg_conn_t *conn, stoa_pg_op_t *op)
{
    int                   rc;
    bool                  own;
    const stoa_pg_stmt_t *stmt = op->stmt;

    own = stmt->write || stmt->no_prepare || stmt->timeout_ms != 0 || op->alone
       || conn->prepared[stoa_pg_conn_slot(conn, stmt)] != STOA_PG_PREPARED;

    if (own
        && (!stoa_pg_conn_end_group(conn) || !stoa_pg_conn_send_own(conn, op)))
    {
        return false;
    }

    if (stmt->no_prepare) {
        rc = PQsendQueryParams(conn->pg, stmt->sql, stmt->nparams, NULL,
                               op->values, op->lens, stmt->formats, 0);
    } else {
        rc = PQsendQueryPrepared(conn->pg, stmt->name, stmt->nparams,
                                 op->values, op->lens, stmt->formats, 0);
    }

    if (rc != 1) {
        return false;
    }

    stoa_pg_conn_push(conn, STOA_PG_CMD_OP, op, 0);
    op->state = STOA_PG_OP_SENT;
    op->conn = conn;
    conn->n++;

    if (own) {
        conn->groups += !stmt->write;
        conn->pool->stats.syncs++;
        return stoa_pg_conn_sync(conn, !stmt->write);
    }

    if (conn->open == 0) {
        conn->groups++;
        conn->group_us = op->sent_us;
    }

    conn->open++;

    return conn->open < STOA_PG_GROUP_MAX || stoa_pg_conn_end_group(conn);
}


bool
stoa_pg_conn_flush(stoa_pg_conn_t *conn)
{
    int          rc;
    stoa_loop_t *loop = conn->pool->loop;

    if (!stoa_pg_conn_end_group(conn)) {
        return false;
    }

    rc = PQflush(conn->pg);

    if ((rc == 1) != conn->wants_write) {
        conn->wants_write = rc == 1;
        loop->watch_want(loop, &conn->watch, true, rc == 1);
    }

    return rc != -1;
}


/* ---- receiving ---- */

static bool
stoa_pg_res_failed(const PGresult *res)
{
    return PQresultStatus(res) == PGRES_FATAL_ERROR;
}


/* The session is over: the server says so, or libpq itself (no SQLSTATE). */
static bool
stoa_pg_res_fatal(const PGresult *res)
{
    const char *severity;

    if (!stoa_pg_res_failed(res)) {
        return false;
    }

    severity = stoa_pg_res_field(res, PG_DIAG_SEVERITY_NONLOCALIZED);

    return strcmp(severity, "ERROR") != 0;
}


static void
stoa_pg_op_keep(stoa_pg_op_t *op, PGresult *res)
{
    if (PQresultStatus(res) == PGRES_PIPELINE_ABORTED) {
        op->aborted = true;
        PQclear(res);
        return;
    }

    op->failed = stoa_pg_res_failed(res);
    PQclear(op->res);
    op->res = res;
}


static bool
stoa_pg_conn_setup_done(stoa_pg_conn_t *conn, PGresult *res)
{
    bool ok = PQresultStatus(res) == PGRES_TUPLES_OK;

    PQclear(res);

    return ok;
}


/* A result of the command at the head; false: the connection is unusable. */
static bool
stoa_pg_conn_result(stoa_pg_conn_t *conn, stoa_pg_cmd_t *cmd, PGresult *res)
{
    const char *sqlstate;

    switch (cmd->kind) {

    case STOA_PG_CMD_SETUP:
        return stoa_pg_conn_setup_done(conn, res);

    case STOA_PG_CMD_PARSE:
        sqlstate = stoa_pg_res_field(res, PG_DIAG_SQLSTATE);

        /* 42P05: it exists already, then it is as good as ours */
        if (stoa_pg_res_failed(res) && strcmp(sqlstate, "42P05") != 0) {
            conn->prepared[cmd->slot] = STOA_PG_UNPREPARED;
        }

        /* fall through */

    case STOA_PG_CMD_TIMEOUT:
        if (stoa_pg_res_failed(res) && cmd->op->cause == NULL) {
            cmd->op->cause = res;
            return true;
        }

        break;

    case STOA_PG_CMD_OP:
        stoa_pg_op_keep(cmd->op, res);
        return true;

    case STOA_PG_CMD_SYNC:
        /* the commit failed */
        if (conn->held != NULL && stoa_pg_res_failed(res)) {
            stoa_pg_op_keep(conn->held, res);
            return true;
        }

        break;

    case STOA_PG_CMD_DEALLOCATE:
        break;
    }

    PQclear(res);

    return true;
}


static void
stoa_pg_conn_pop(stoa_pg_conn_t *conn)
{
    conn->head = (conn->head + 1) & conn->mask;
    conn->count--;
}


/* NULL from libpq: the command at the head is complete. */
static bool
stoa_pg_conn_complete(stoa_pg_conn_t *conn, const stoa_pg_cmd_t *cmd)
{
    stoa_pg_op_t *op = cmd->op;

    if (cmd->kind == STOA_PG_CMD_SYNC) {
        return true; /* behind the error of a commit; the Sync follows */
    }

    stoa_pg_conn_pop(conn);

    if (cmd->kind != STOA_PG_CMD_OP) {
        return true;
    }

    if (op->res == NULL && !op->aborted) {
        /* lost takes it from here */
        conn->held = op;
        op->state = STOA_PG_OP_HELD;
        return false;
    }

    if (op->stmt->write) {
        conn->held = op;
        op->state = STOA_PG_OP_HELD;
        return true;
    }

    conn->n--;
    conn->pool->in_flight--;
    stoa_pg_op_answered(op);

    return true;
}


/* What a read of the group that is complete took, into the average. */
static void
stoa_pg_conn_grouped(stoa_pg_conn_t *conn)
{
    uint64_t        took;
    stoa_pg_pool_t *pool = conn->pool;

    if (conn->grouped == 0 || conn->groups != 0) {
        return;
    }

    took = (conn->heard_us - conn->group_us) / conn->grouped + 1;
    pool->read_us = pool->read_us == 0 ? took : (pool->read_us * 7 + took) / 8;
    conn->grouped = 0;
}


static void
stoa_pg_conn_synced(stoa_pg_conn_t *conn)
{
    stoa_pg_op_t   *op = conn->held;
    stoa_pg_pool_t *pool = conn->pool;

    conn->groups -= stoa_pg_conn_cmd(conn, 0)->slot;
    stoa_pg_conn_pop(conn);
    stoa_pg_conn_grouped(conn);

    if (conn->state == STOA_PG_SETUP) {
        pool->loop->timer_cancel(pool->loop, &conn->retry);
        conn->up_at = pool->loop->now_ms(pool->loop);
        stoa_pg_conn_set_state(conn, STOA_PG_READY);
        stoa_pg_pool_up(pool);
        return;
    }

    if (op != NULL) {
        conn->held = NULL;
        conn->n--;
        pool->in_flight--;
        stoa_pg_op_answered(op);
    }
}


/* Takes all that is there.  NULL, or why the connection is of no use. */
static const char *
stoa_pg_conn_take(stoa_pg_conn_t *conn, char fatal[256])
{
    int            nulls = 0;
    PGresult      *res;
    stoa_pg_cmd_t *cmd;

    while (conn->count != 0 && !PQisBusy(conn->pg)) {
        cmd = stoa_pg_conn_cmd(conn, 0);
        res = PQgetResult(conn->pg);

        if (res == NULL) {
            if (++nulls > 2 || !stoa_pg_conn_complete(conn, cmd)) {
                return "libpq lost the order of results";
            }

            nulls = cmd->kind == STOA_PG_CMD_SYNC ? nulls : 0;
            continue;
        }

        nulls = 0;

        if (PQresultStatus(res) == PGRES_PIPELINE_SYNC) {
            PQclear(res);

            if (cmd->kind != STOA_PG_CMD_SYNC) {
                return "libpq lost the order of results";
            }

            stoa_pg_conn_synced(conn);
            continue;
        }

        if (stoa_pg_res_fatal(res)) {
            stoa_pg_one_line(fatal, PQresultErrorMessage(res));
            PQclear(res);
            return fatal;
        }

        if (!stoa_pg_conn_result(conn, cmd, res)) {
            return "setting up the session failed";
        }
    }

    return NULL;
}


static void
stoa_pg_conn_read(stoa_pg_conn_t *conn)
{
    int             alive;
    char            fatal[256], why[256];
    const char     *broken;
    stoa_pg_pool_t *pool = conn->pool;
    stoa_loop_t    *loop = pool->loop;

    alive = PQconsumeInput(conn->pg);
    conn->heard_at = loop->now_ms(loop);
    conn->heard_us = stoa_pg_clock_us();

    if (!alive) {
        stoa_pg_one_line(why, PQerrorMessage(conn->pg));
    }

    /* what came before the end still counts */

    broken = stoa_pg_conn_take(conn, fatal);

    if (broken == NULL && !alive) {
        broken = why;
    }

    if (broken == NULL && conn->count == 0) {
        /* an idle server may say good-bye: FATAL, then EOF */
        (void) PQisBusy(conn->pg);

        if (PQstatus(conn->pg) == CONNECTION_BAD) {
            broken = "closed by the server";
        }
    }

    if (broken != NULL) {
        stoa_pg_conn_lost(conn, STOA_PG_DOWN, broken);
        return;
    }

    if (conn->count == 0) {
        if (conn->timer_at != 0) {
            loop->timer_cancel(loop, &conn->timer);
            conn->timer_at = 0;
        }

        stoa_pg_pool_idle(pool, conn);

    } else if (pool->waiting != 0) {
        stoa_pg_pool_wake(pool);
    }
}


static void
stoa_pg_conn_event(stoa_watch_t *w, bool readable, bool writable)
{
    stoa_pg_conn_t *conn = stoa_cast(stoa_pg_conn_t, STOA_PG_CONN_MAGIC,
                                     w->data);

    if (conn->state == STOA_PG_CONNECTING) {
        stoa_pg_conn_poll(conn);
        return;
    }

    if (readable) {
        stoa_pg_conn_read(conn);
    }

    if (writable && conn->wants_write
        && (conn->state == STOA_PG_READY || conn->state == STOA_PG_SETUP)
        && !stoa_pg_conn_flush(conn))
    {
        stoa_pg_conn_lost(conn, STOA_PG_DOWN, PQerrorMessage(conn->pg));
    }
}
