/*
 * The results of the PostgreSQL door: what an operation's owner may ask of
 * them, and the blocking one-shot of the command line, which is the only call
 * here that waits.
 *
 * A result belongs to its operation until stoa_pg_take(), then to the caller.
 * Values are views into libpq's memory.
 */

#include "stoa_pg_int.h"

#include "stoa_mem.h"


void
stoa_pg_res_free(struct pg_result *res)
{
    PQclear(res); /* NULL is fine */
}


const char *
stoa_pg_res_field(const struct pg_result *res, int code)
{
    const char *field;

    field = res == NULL ? NULL : PQresultErrorField(res, code);

    return field == NULL ? "" : field;
}


const char *
stoa_pg_sqlstate(const stoa_pg_op_t *op)
{
    return op->failed ? stoa_pg_res_field(op->res, PG_DIAG_SQLSTATE) : "";
}


const char *
stoa_pg_constraint(const stoa_pg_op_t *op)
{
    return op->failed ? stoa_pg_res_field(op->res, PG_DIAG_CONSTRAINT_NAME)
                      : "";
}


const char *
stoa_pg_message(const stoa_pg_op_t *op)
{
    return op->failed ? stoa_pg_res_field(op->res, PG_DIAG_MESSAGE_PRIMARY)
                      : "";
}


stoa_pg_result_t *
stoa_pg_take(stoa_pg_op_t *op)
{
    PGresult *res = op->res;

    if (res == NULL || op->failed || PQresultStatus(res) != PGRES_TUPLES_OK) {
        return NULL;
    }

    op->res = NULL;

    return (stoa_pg_result_t *) res;
}


void
stoa_pg_result_free(stoa_pg_result_t *res)
{
    PQclear((PGresult *) res);
}


int
stoa_pg_rows(const stoa_pg_result_t *res)
{
    return PQntuples((const PGresult *) res);
}


int
stoa_pg_columns(const stoa_pg_result_t *res)
{
    return PQnfields((const PGresult *) res);
}


const char *
stoa_pg_column_name(const stoa_pg_result_t *res, int col)
{
    return PQfname((const PGresult *) res, col);
}


int
stoa_pg_column(const stoa_pg_result_t *res, const char *name)
{
    const PGresult *pr = (const PGresult *) res;
    int             i, n = PQnfields(pr);

    /* PQfnumber() would fold case and allocate */

    for (i = 0; i < n; i++) {
        if (strcmp(PQfname(pr, i), name) == 0) {
            return i;
        }
    }

    return -1;
}


bool
stoa_pg_null(const stoa_pg_result_t *res, int row, int col)
{
    return PQgetisnull((const PGresult *) res, row, col) != 0;
}


stoa_str_t
stoa_pg_value(const stoa_pg_result_t *res, int row, int col)
{
    const PGresult *pr = (const PGresult *) res;
    stoa_str_t      s = stoa_null_string;

    if (PQgetisnull(pr, row, col) == 0) {
        s.data = (unsigned char *) PQgetvalue(pr, row, col);
        s.len = (size_t) PQgetlength(pr, row, col);
    }

    return s;
}


/* ---- blocking one-shot ---- */

static stoa_err_e
stoa_pg_exec_failed(PGconn *pg, const PGresult *res, stoa_mem_t *mem,
                    char **message, char sqlstate[6])
{
    char        line[256];
    stoa_err_e  err = STOA_E_DATABASE_UNAVAILABLE;
    const char *state;

    state = stoa_pg_res_field(res, PG_DIAG_SQLSTATE);

    if (state[0] != '\0') {
        err = stoa_err_by_sqlstate(state,
                                   stoa_pg_res_field(res,
                                                     PG_DIAG_CONSTRAINT_NAME));
    }

    if (sqlstate != NULL) {
        (void) snprintf(sqlstate, 6, "%s", state);
    }

    stoa_pg_one_line(line, PQerrorMessage(pg));

    *message = stoa_alloc(mem, strlen(line) + 1);
    if (*message != NULL) {
        memcpy(*message, line, strlen(line) + 1);
    }

    return err == STOA_OK ? STOA_E_INTERNAL : err;
}


static void
stoa_pg_no_notice(void *data, const PGresult *res)
{
    (void) data;
    (void) res;
}


stoa_err_e
stoa_pg_exec_once(const char *conninfo, const char *sql, struct stoa_mem_s *mem,
                  char **message, char sqlstate[6])
{
    PGconn        *pg;
    PGresult      *res = NULL;
    stoa_err_e     err = STOA_OK;
    ExecStatusType status = PGRES_FATAL_ERROR;

    *message = NULL;

    if (sqlstate != NULL) {
        sqlstate[0] = '\0';
    }

    pg = PQconnectdb(conninfo);
    if (pg == NULL) {
        return STOA_E_NO_MEMORY;
    }

    if (PQstatus(pg) == CONNECTION_OK) {
        (void) PQsetNoticeReceiver(pg, stoa_pg_no_notice, NULL);
        res = PQexec(pg, sql);
        status = PQresultStatus(res);
    }

    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK
        && status != PGRES_EMPTY_QUERY)
    {
        err = stoa_pg_exec_failed(pg, res, mem, message, sqlstate);
    }

    PQclear(res);
    PQfinish(pg);

    return err;
}
