/*
 * The machinery of test_pg*.c.  It is linked into every unit, as all that is
 * no test, and starts nothing by itself.
 */

#include "unit_pg.h"

unit_pg_t pg_server;

const stoa_pg_stmt_t pg_echo = {
    .name = "echo", .sql = "select $1::text as v", .nparams = 1, .slot = 1
};
const stoa_pg_stmt_t pg_divide = {
    .name = "divide", .sql = "select 10 / $1::int as v", .nparams = 1, .slot = 2
};
const stoa_pg_stmt_t pg_nap = { .name = "nap",
                                .sql = "select pg_sleep($1::float8), 'n'",
                                .nparams = 1,
                                .slot = 3 };
const stoa_pg_stmt_t pg_nap_write = {
    .name = "nap.write",
    .sql = "select pg_catalog.pg_sleep($1::float8)::text",
    .nparams = 1,
    .write = true,
    .slot = 4
};
const stoa_pg_stmt_t pg_put = {
    .name = "put",
    .sql = "insert into public.kv values ($1::text, $2::text) returning v",
    .nparams = 2,
    .write = true,
    .slot = 5
};
const stoa_pg_stmt_t pg_backend = {
    .name = "backend",
    .sql = "select pg_catalog.pg_backend_pid()::text, pg_sleep($1::float8)",
    .nparams = 1,
    .slot = 6
};
const stoa_pg_stmt_t pg_setting = {
    .name = "setting",
    .sql = "select pg_catalog.current_setting($1::text)",
    .nparams = 1,
    .slot = 7
};


static void
pg_on_done(stoa_pg_op_t *op, stoa_err_e err, void *data)
{
    pg_rec_t         *rec = data;
    stoa_str_t        v;
    stoa_pg_result_t *res;

    rec->done++;
    rec->err = err;
    rec->rows = -1;
    rec->order = rec->env->answered++;
    rec->at_ms = rec->env->loop->now_ms(rec->env->loop);
    (void) snprintf(rec->sqlstate, sizeof(rec->sqlstate), "%s",
                    stoa_pg_sqlstate(op));
    (void) snprintf(rec->constraint, sizeof(rec->constraint), "%s",
                    stoa_pg_constraint(op));

    if (err == STOA_OK) {
        res = stoa_pg_take(op);

        if (res != NULL) {
            rec->rows = stoa_pg_rows(res);

            if (rec->rows > 0) {
                v = stoa_pg_value(res, 0, 0);
                (void) snprintf(rec->value, sizeof(rec->value), "%.*s",
                                (int) v.len,
                                v.data == NULL ? "" : (char *) v.data);
            }
        }

        stoa_pg_result_free(res);
    }

    if (rec->cancel != NULL) {
        stoa_pg_cancel(rec->cancel);
    }

    if (rec->env->answered >= rec->env->want) {
        rec->env->stop = true;
    }
}


void
pg_open(pg_env_t *env, uint16_t size, uint16_t in_flight, uint16_t queue_max,
        uint32_t timeout_ms, const char *info)
{
    stoa_pg_conf_t conf = { 0 };

    memset(env, 0, sizeof(pg_env_t));

    conf.name = "unit";
    conf.conninfo = info;
    conf.size = size;
    conf.in_flight = in_flight;
    conf.queue_max = queue_max;
    conf.nslots = PG_SLOTS;
    conf.queue_timeout_ms = 2000;
    conf.statement_timeout_ms = timeout_ms;
    conf.connect_timeout_ms = 5000;

    env->loop = stoa_loop_poll_create(unit_log());
    assert_non_null(env->loop);
    env->pool = stoa_pg_pool_create(env->loop, &conf);
    assert_non_null(env->pool);
}


void
pg_close(pg_env_t *env)
{
    stoa_pg_pool_destroy(env->pool);
    stoa_loop_poll_destroy(env->loop);
}


void
pg_turns(pg_env_t *env, uint64_t ms)
{
    (void) stoa_loop_poll_run(env->loop, NULL, ms);
}


void
pg_until(pg_env_t *env, int answered, uint64_t max_ms)
{
    env->want = answered;
    env->stop = env->answered >= answered;
    assert_true(stoa_loop_poll_run(env->loop, &env->stop, max_ms));
}


void
pg_wait_ready(pg_env_t *env, uint32_t n)
{
    int             i;
    stoa_pg_stats_t st;

    for (i = 0; i < 1000; i++) {
        stoa_pg_pool_stats(env->pool, &st);

        if (st.ready >= n) {
            return;
        }

        pg_turns(env, 10);
    }

    fail_msg("the pool did not come up");
}


stoa_pg_op_t *
pg_submit(pg_env_t *env, pg_rec_t *rec, const stoa_pg_stmt_t *stmt,
          const char *const *values, uint32_t deadline_ms)
{
    return pg_submit_lens(env, rec, stmt, values, NULL, deadline_ms);
}


stoa_pg_op_t *
pg_submit_lens(pg_env_t *env, pg_rec_t *rec, const stoa_pg_stmt_t *stmt,
               const char *const *values, const int *lens, uint32_t deadline_ms)
{
    stoa_err_e    err = STOA_OK;
    stoa_pg_op_t *op;

    memset(rec, 0, sizeof(pg_rec_t));
    rec->env = env;

    op = stoa_pg_submit(env->pool, stmt, values, lens, deadline_ms, pg_on_done,
                        rec, &err);
    if (op == NULL) {
        rec->err = err;
        assert_int_not_equal(err, STOA_OK);
    }

    assert_int_equal(rec->done, 0); /* never from inside submit */

    return op;
}


stoa_pg_op_t *
pg_submit1(pg_env_t *env, pg_rec_t *rec, const stoa_pg_stmt_t *stmt,
           const char *v)
{
    return pg_submit(env, rec, stmt, &v, 0);
}


void
pg_run_sql(const char *sql)
{
    char       *message = NULL;
    stoa_err_e  err;
    stoa_mem_t *mem = stoa_arena_create(4096, 65536);

    err = stoa_pg_exec_once(pg_server.info, sql, mem, &message, NULL);
    if (err != STOA_OK) {
        fail_msg("%s: %s", sql, message);
    }

    stoa_arena_destroy(mem);
}


void
pg_ask(const char *sql, char value[64])
{
    pg_env_t             env;
    pg_rec_t             rec;
    const stoa_pg_stmt_t stmt = { .name = "ask",
                                  .sql = sql,
                                  .no_prepare = true };

    pg_open(&env, 1, 1, 1, 5000, pg_server.info);
    assert_non_null(pg_submit(&env, &rec, &stmt, NULL, 0));
    pg_until(&env, 1, 5000);
    assert_int_equal(rec.err, STOA_OK);
    memcpy(value, rec.value, 64);
    pg_close(&env);
}


int
pg_number(const char *text)
{
    int64_t n = -1;

    assert_true(stoa_str_int(stoa_str_z(text), 0, INT32_MAX, &n));

    return (int) n;
}


int
pg_run_tests(const struct CMUnitTest *tests, size_t n)
{
    int rc;

    unit_pg_create(&pg_server, "max_connections = 60\n");
    pg_run_sql("create table public.kv (k text, v text)");
    rc = _cmocka_run_group_tests("pg", tests, n, NULL, NULL);
    unit_pg_destroy(&pg_server);

    return rc;
}
