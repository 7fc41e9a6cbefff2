/*
 * Clock, RFC 3339, ids in order, log lines, error and metric rows.
 */

#include "unit_core.h"

#include "stoa_id.h"
#include "stoa_log.h"
#include "stoa_metric.h"
#include "stoa_time.h"

#include <time.h>
#include <unistd.h>


static void
time_print(void **state)
{
    static const struct {
        int64_t     ms;
        const char *text;
    } rows[] = {
        { 0, "1970-01-01T00:00:00.000Z" },
        { 951782400000 + 999, "2000-02-29T00:00:00.999Z" },
        { 1767323045678, "2026-01-02T03:04:05.678Z" },
        { 4107542400000, "2100-03-01T00:00:00.000Z" },
        { 253402300799999, "9999-12-31T23:59:59.999Z" },
        { -5, "1970-01-01T00:00:00.000Z" },
        { INT64_MAX, "9999-12-31T23:59:59.999Z" },
    };
    char   text[24];
    size_t i;

    for (i = 0; i < stoa_nitems(rows); i++) {
        stoa_time_print(rows[i].ms, text);
        assert_memory_equal(text, rows[i].text, 24);
    }
}


/* Each day of a span agrees with the C library and reads back. */
static void
time_every_day(void **state)
{
    struct tm  tm;
    char       text[24], wanted[40];
    int64_t    ms, back;
    time_t     t;
    stoa_str_t s = { 24, (unsigned char *) text };

    for (t = 0; t < (time_t) 8000000000; t += 86400 * 3 + 4567) {
        ms = (int64_t) t * 1000 + t % 1000;
        stoa_time_print(ms, text);
        assert_non_null(gmtime_r(&t, &tm));
        (void) snprintf(wanted, sizeof(wanted),
                        "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ",
                        tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
                        tm.tm_hour, tm.tm_min, tm.tm_sec, (int) (t % 1000));
        assert_memory_equal(text, wanted, 24);
        assert_true(stoa_time_parse(s, &back));
        assert_true(back == ms);
    }
}


static void
time_parse(void **state)
{
    static const struct {
        const char *text;
        int64_t     ms; /* -1: refused */
    } rows[] = {
        { "2026-01-02T03:04:05Z", 1767323045000 },
        { "2026-01-02t03:04:05z", 1767323045000 },
        { "2026-01-02T03:04:05.6Z", 1767323045600 },
        { "2026-01-02T03:04:05.678999999Z", 1767323045678 },
        { "2026-01-02T05:34:05.678+02:30", 1767323045678 },
        { "2026-01-01T22:04:05.678-05:00", 1767323045678 },
        { "2024-02-29T00:00:00Z", 1709164800000 },
        { "2023-02-29T00:00:00Z", -1 },
        { "2100-02-29T00:00:00Z", -1 },
        { "2026-04-31T00:00:00Z", -1 },
        { "2026-00-01T00:00:00Z", -1 },
        { "2026-01-00T00:00:00Z", -1 },
        { "2026-13-01T00:00:00Z", -1 },
        { "2026-01-02T24:00:00Z", -1 },
        { "2026-01-02T03:60:05Z", -1 },
        { "2026-01-02T03:04:60Z", -1 },
        { "2016-12-31T23:59:60Z", 1483228800000 },
        { "2017-01-01T00:59:60+01:00", 1483228800000 },
        { "2026-01-02T03:04:05", -1 },
        { "2026-01-02 03:04:05Z", -1 },
        { "2026-01-02T03:04:05.Z", -1 },
        { "2026-01-02T03:04:05.1", -1 },
        { "2026-01-02T03:04:05Zx", -1 },
        { "2026-01-02T03:04:05+0100", -1 },
        { "2026-01-02T03:04:05+24:00", -1 },
        { "2026-1-02T03:04:05Z", -1 },
        { "-026-01-02T03:04:05Z", -1 },
        { "1969-12-31T23:59:59Z", -1 },
        { "1970-01-01T00:00:00+00:01", -1 },
        { "9999-12-31T23:59:59-00:01", -1 },
        { "", -1 },
    };
    int64_t ms;
    size_t  i;

    for (i = 0; i < stoa_nitems(rows); i++) {
        ms = -1;

        if (stoa_time_parse(Z(rows[i].text), &ms) != (rows[i].ms != -1)
            || ms != rows[i].ms)
        {
            fail_msg("%s gave %lld", rows[i].text, (long long) ms);
        }
    }
}


static void
time_ids(void **state)
{
    stoa_id_t   gen;
    stoa_uuid_t last, next;
    int64_t     before = stoa_time_ms(), stamp;
    unsigned    i;

    stoa_id_init(&gen);
    assert_true(stoa_id_next(&gen, &last));

    for (stamp = 0, i = 0; i < 6; i++) {
        stamp = stamp << 8 | last.b[i];
    }

    assert_true(stamp >= before && stamp <= stoa_time_ms());

    /* more than a millisecond's counter can number */
    for (i = 0; i < 20000; i++) {
        assert_true(stoa_id_next(&gen, &next));
        assert_int_equal(next.b[6] & 0xf0, 0x70);
        assert_int_equal(next.b[8] & 0xc0, 0x80);
        assert_true(memcmp(last.b, next.b, 16) < 0);
        last = next;
    }
}


#ifdef STOA_TEST
static void
time_offset(void **state)
{
    char    path[] = "/tmp/stoa-unit-clock-XXXXXX";
    int64_t offset = 0, stands, now;
    int     fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_false(stoa_time_test_file(path)); /* too short */
    assert_int_equal(write(fd, &offset, 8), 8);
    assert_true(stoa_time_test_file(path));
    now = stoa_time_ms();

    offset = 3600000;
    assert_int_equal(pwrite(fd, &offset, 8, 0), 8);
    assert_true(stoa_time_ms() - now >= 3600000);
    assert_true(stoa_time_ms() - now < 3660000);

    offset = 0;
    assert_int_equal(pwrite(fd, &offset, 8, 0), 8);
    assert_false(stoa_time_test_file("/nowhere/at/all"));

    stands = 1700000000123;
    assert_int_equal(pwrite(fd, &stands, 8, 8), 8);
    assert_true(stoa_time_test_file(path));
    assert_true(stoa_time_ms() == stands);
    offset = 77;
    assert_int_equal(pwrite(fd, &offset, 8, 0), 8);
    assert_true(stoa_time_ms() == stands + 77);
    stands = 0;
    offset = 0;
    assert_int_equal(pwrite(fd, &stands, 8, 8), 8);
    assert_int_equal(pwrite(fd, &offset, 8, 0), 8);
    assert_true(stoa_time_ms() >= now);
    assert_int_equal(close(fd), 0);
    assert_int_equal(unlink(path), 0);
}
#endif


static char     line[4096];
static unsigned lines;


static void
log_keep(void *ctx, stoa_log_level_e level, const char *text, size_t len)
{
    assert_true(len < sizeof(line));
    assert_int_equal(strlen(text), len);
    memcpy(line, text, len + 1);
    lines++;
}


static void
log_lines(void **state)
{
    stoa_log_t log = { .level = STOA_LOG_INFO, .write = log_keep };

    stoa_log(NULL, STOA_LOG_EMERG, "nobody hears");
    stoa_log(&log, STOA_LOG_DEBUG, "below the level");
    assert_int_equal(lines, 0);
    stoa_log(&log, STOA_LOG_INFO, "pg: \"%s\"\n", "two\nlines");
    assert_int_equal(lines, 1);
    assert_string_equal(line, "pg: \"two lines\"");
    stoa_log(&log, STOA_LOG_ERROR, "%05000d", 1);
    assert_int_equal(strlen(line), 2047);
}


static void
err_rows(void **state)
{
    stoa_err_e i;

    for (i = STOA_OK + 1; i < STOA_E_COUNT; i++) {
        const stoa_err_row_t *row = stoa_err_row(i);

        assert_int_equal(stoa_err_by_code(row->code, strlen(row->code)), i);
        assert_true(row->status >= 400 && row->status <= 599);
        assert_true(row->title[0] != '\0');
    }

    assert_int_equal(stoa_err_by_code("NO_SUCH", 7), STOA_OK);
    assert_int_equal(stoa_err_by_code("CONFLIC", 7), STOA_OK);
    assert_int_equal(stoa_err_row(STOA_OK)->status, 500);
    assert_int_equal(stoa_err_row((stoa_err_e) 9999)->status, 500);
}


static void
err_sqlstates(void **state)
{
    static const struct {
        const char *state, *constraint;
        stoa_err_e  err;
    } rows[] = {
        { "23505", "users_email_key", STOA_E_EMAIL_TAKEN },
        { "23505", "no_such_constraint", STOA_E_INTERNAL },
        { "23514", NULL, STOA_E_INTERNAL },
        { "40001", NULL, STOA_E_CONFLICT },
        { "40P01", NULL, STOA_E_CONFLICT },
        { "40003", NULL, STOA_E_INTERNAL },
        { "55P03", NULL, STOA_E_CONFLICT },
        { "57014", NULL, STOA_E_TIMEOUT },
        { "57P01", NULL, STOA_E_DATABASE_UNAVAILABLE },
        { "53300", NULL, STOA_E_DATABASE_UNAVAILABLE },
        { "08006", NULL, STOA_E_DATABASE_UNAVAILABLE },
        { "42501", NULL, STOA_E_INTERNAL },
        { "", NULL, STOA_E_INTERNAL },
        { NULL, NULL, STOA_E_INTERNAL },
    };
    size_t i;

    for (i = 0; i < stoa_nitems(rows); i++) {
        assert_int_equal(stoa_err_by_sqlstate(rows[i].state,
                                              rows[i].constraint),
                         rows[i].err);
    }
}


static void
metric_rows(void **state)
{
    size_t i, j, len;

    for (i = 0; i < STOA_M_COUNT; i++) {
        const stoa_metric_row_t *row = &stoa_metric_rows[i];

        len = strlen(row->name);
        assert_memory_equal(row->name, "stoa_", 5);
        assert_int_equal(strcmp(row->type, "counter") == 0,
                         strcmp(row->name + len - 6, "_total") == 0);

        for (j = 0; j < i; j++) {
            assert_string_not_equal(row->name, stoa_metric_rows[j].name);
        }
    }

    assert_string_equal(stoa_metric_rows[STOA_M_hash_queued].name,
                        "stoa_hash_queued");
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(time_print),    cmocka_unit_test(time_every_day),
        cmocka_unit_test(time_parse),    cmocka_unit_test(time_ids),
#ifdef STOA_TEST
        cmocka_unit_test(time_offset),
#endif
        cmocka_unit_test(log_lines),     cmocka_unit_test(err_rows),
        cmocka_unit_test(err_sqlstates), cmocka_unit_test(metric_rows),
    };

    return cmocka_run_group_tests_name("time", tests, NULL, NULL);
}
