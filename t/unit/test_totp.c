/*
 * One-time codes against the vectors of RFC 4226 (appendix D) and RFC 6238
 * (appendix B, SHA-1), the window around the present step, and the address
 * that apps read.
 */

#include "unit_core.h"

#include "stoa_totp.h"

static const stoa_str_t key = stoa_string("12345678901234567890");


static void
totp_hotp(void **state)
{
    static const char *const codes[] = { "755224", "287082", "359152", "969429",
                                         "338314", "254676", "287922", "162583",
                                         "399871", "520489" };
    char                     out[9];
    size_t                   i;

    for (i = 0; i < stoa_nitems(codes); i++) {
        assert_true(stoa_hotp(key, i, 6, out));
        assert_string_equal(out, codes[i]);
    }

    assert_false(stoa_hotp(key, 0, 5, out));
    assert_false(stoa_hotp(key, 0, 9, out));
}


static void
totp_rfc6238(void **state)
{
    static const struct {
        int64_t     at;
        const char *code;
    } rows[] = {
        { 59, "94287082" },         { 1111111109, "07081804" },
        { 1111111111, "14050471" }, { 1234567890, "89005924" },
        { 2000000000, "69279037" }, { 20000000000, "65353130" },
    };
    char   out[9];
    size_t i;

    for (i = 0; i < stoa_nitems(rows); i++) {
        assert_true(stoa_hotp(key, (uint64_t) rows[i].at / 30, 8, out));
        assert_string_equal(out, rows[i].code);

        /* six digits of it are the last six */
        assert_int_equal(stoa_totp_step(key, Z(rows[i].code + 2), rows[i].at,
                                        0),
                         rows[i].at / 30);
    }
}


static void
totp_window(void **state)
{
    const int64_t now = 1111111111, step = now / 30;
    char          out[9];
    int64_t       d;

    for (d = -3; d <= 3; d++) {
        assert_true(stoa_hotp(key, (uint64_t) (step + d), 6, out));
        assert_int_equal(stoa_totp_step(key, Z(out), now, 0),
                         d >= -1 && d <= 1 ? step + d : -1);

        /* once accepted, it and what came before is not */
        assert_int_equal(stoa_totp_step(key, Z(out), now, step - 1),
                         d >= 0 && d <= 1 ? step + d : -1);
        assert_int_equal(stoa_totp_step(key, Z(out), now, step + 1), -1);
    }

    /* the very first steps have none before them */
    assert_true(stoa_hotp(key, 0, 6, out));
    assert_int_equal(stoa_totp_step(key, Z(out), 29, -1), 0);
    assert_int_equal(stoa_totp_step(key, Z(out), 59, -1), 0);
    assert_int_equal(stoa_totp_step(key, Z(out), 60, -1), -1);
}


static void
totp_not_codes(void **state)
{
    static const char *const bad[] = {
        "",       "05047",  "0504711", "05047 ",
        "050472", "-50471", "0x0471",  "14050471"
    };
    size_t i;

    assert_true(stoa_totp_step(key, L("050471"), 1111111111, 0) > 0);

    for (i = 0; i < stoa_nitems(bad); i++) {
        assert_int_equal(stoa_totp_step(key, Z(bad[i]), 1111111111, 0), -1);
    }

    assert_int_equal(stoa_totp_step(L("12345678901234567891"), L("050471"),
                                    1111111111, 0),
                     -1);
}


static void
totp_uri(void **state)
{
    stoa_mem_t *mem = stoa_arena_create(4096, 65536);
    stoa_buf_t  b;

    stoa_buf_init(&b, mem, 256, 1024);
    stoa_totp_uri(&b, key.data, L("tickets.example"), L("a+b@x.example"));
    stoa_buf_nul(&b);
    assert_false(b.failed);
    assert_string_equal((char *) b.data,
                        "otpauth://totp/tickets.example:a%2Bb%40x.example"
                        "?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
                        "&issuer=tickets.example&algorithm=SHA1&digits=6"
                        "&period=30");
    stoa_arena_destroy(mem);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(totp_hotp),   cmocka_unit_test(totp_rfc6238),
        cmocka_unit_test(totp_window), cmocka_unit_test(totp_not_codes),
        cmocka_unit_test(totp_uri),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
