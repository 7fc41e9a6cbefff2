/*
 * The circuit breaker of outgoing calls: when it opens, for how long, and
 * that it lets one try through at a time.
 */

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "../../workers/worker_breaker.c"

static void
fail_times(worker_breaker_t *b, int n, uint64_t now_ms)
{
    while (n-- > 0) {
        worker_breaker_note(b, false, now_ms, NULL, "x");
    }
}

static void
test_opens(void **state)
{
    worker_breaker_t b = { 0, 0, 0 };

    fail_times(&b, WORKER_BREAKER_LIMIT - 1, 0);
    assert_int_equal(worker_breaker_ask(&b, 0), 0);
    assert_int_equal(worker_breaker_ask(&b, 0), 0);

    /* one success in between starts the count anew */
    worker_breaker_note(&b, true, 0, NULL, "x");
    fail_times(&b, WORKER_BREAKER_LIMIT - 1, 0);
    assert_int_equal(worker_breaker_ask(&b, 0), 0);

    fail_times(&b, 1, 0);
    assert_int_equal(worker_breaker_ask(&b, 0), 1000);
    assert_int_equal(worker_breaker_ask(&b, 999), 1);
}

static void
test_half_open(void **state)
{
    worker_breaker_t b = { 0, 0, 0 };

    fail_times(&b, WORKER_BREAKER_LIMIT, 0);
    assert_int_equal(worker_breaker_ask(&b, 1000), 0);
    assert_int_not_equal(worker_breaker_ask(&b, 1000), 0);
    assert_int_not_equal(worker_breaker_ask(&b, 2000), 0);

    /* the try failed: closed for longer */
    fail_times(&b, 1, 2000);
    assert_int_equal(worker_breaker_ask(&b, 2000), 2000);
    assert_int_equal(worker_breaker_ask(&b, 4000), 0);

    /* the try vanished: another one after its time */
    assert_int_not_equal(worker_breaker_ask(&b, 33999), 0);
    assert_int_equal(worker_breaker_ask(&b, 34000), 0);

    worker_breaker_note(&b, true, 34100, NULL, "x");
    assert_int_equal(worker_breaker_ask(&b, 34100), 0);
    assert_int_equal(worker_breaker_ask(&b, 34100), 0);
}

static void
test_bounded(void **state)
{
    worker_breaker_t b = { 0, 0, 0 };

    fail_times(&b, 1000, 5);
    assert_int_equal(worker_breaker_ask(&b, 5), WORKER_BREAKER_MAX_MS);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opens),
        cmocka_unit_test(test_half_open),
        cmocka_unit_test(test_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
