/*
 * Slices: bounds of numbers, UTF-8, names, encodings with one text per
 * value, and "did you mean".
 */

#include "unit_core.h"

#include "stoa_json.h"


static void
str_int(void **state)
{
    static const struct {
        const char *text;
        bool        good;
        int64_t     value;
    } rows[] = {
        { "0", true, 0 },
        { "-0", true, 0 },
        { "42", true, 42 },
        { "007", true, 7 },
        { "9223372036854775807", true, INT64_MAX },
        { "9223372036854775808", false, 0 },
        { "-9223372036854775808", true, INT64_MIN },
        { "-9223372036854775809", false, 0 },
        { "18446744073709551616", false, 0 },
        { "", false, 0 },
        { "-", false, 0 },
        { "+1", false, 0 },
        { " 1", false, 0 },
        { "1 ", false, 0 },
        { "1.0", false, 0 },
        { "0x1", false, 0 },
    };
    int64_t n;
    size_t  i;

    for (i = 0; i < stoa_nitems(rows); i++) {
        n = -77;
        assert_int_equal(stoa_str_int(Z(rows[i].text), INT64_MIN, INT64_MAX,
                                      &n),
                         rows[i].good);
        assert_true(n == (rows[i].good ? rows[i].value : -77));
    }

    assert_true(stoa_str_int(L("5"), 5, 5, &n));
    assert_false(stoa_str_int(L("4"), 5, 5, &n));
    assert_false(stoa_str_int(L("6"), 5, 5, &n));
    assert_false(stoa_str_int((stoa_str_t) stoa_null_string, 0, 9, &n));
}


static void
str_compare(void **state)
{
    assert_true(stoa_str_eq_z(L("abc"), "abc"));
    assert_false(stoa_str_eq_z(L("abc"), "ab"));
    assert_false(stoa_str_eq_z(L("ab"), "abc"));
    assert_true(stoa_str_eq_z((stoa_str_t) stoa_null_string, ""));
    assert_true(stoa_str_ieq_z(L("At+JWT"), "at+jwt"));
    assert_false(stoa_str_ieq_z(L("at+jw\x14"), "at+jwt"));
    assert_false(stoa_str_ieq_z(L("@"), "`"));
    assert_true(stoa_str_same_secret(L("secret"), L("secret")));
    assert_false(stoa_str_same_secret(L("secret"), L("secreT")));
    assert_false(stoa_str_same_secret(L("secret"), L("secre")));
}


static void
str_utf8(void **state)
{
    size_t n;

    assert_true(stoa_str_utf8(L("plain text of many letters"), &n));
    assert_int_equal(n, 26);
    assert_true(stoa_str_utf8(L("\xc3\xa9\xe2\x82\xac\xf0\x9f\x8e\xab"), &n));
    assert_int_equal(n, 3);
    assert_true(
        stoa_str_utf8(L("\xf4\x8f\xbf\xbf\xee\x80\x80\xed\x9f\xbf"), NULL));
    assert_false(stoa_str_utf8(L("\xf4\x90\x80\x80"), NULL)); /* > 10FFFF */
    assert_false(stoa_str_utf8(L("\xed\xa0\x80"), NULL));     /* surrogate */
    assert_false(stoa_str_utf8(L("\xc0\x80"), NULL));         /* overlong */
    assert_false(stoa_str_utf8(L("\xc1\xbf"), NULL));
    assert_false(stoa_str_utf8(L("\xe0\x9f\xbf"), NULL));
    assert_false(stoa_str_utf8(L("\xf0\x8f\xbf\xbf"), NULL));
    assert_false(stoa_str_utf8(L("\xf5\x80\x80\x80"), NULL));
    assert_false(stoa_str_utf8(L("abcdefg\xe2\x82"), NULL)); /* cut */
    assert_false(stoa_str_utf8(L("\x80"), NULL));
    assert_false(stoa_str_utf8(L("12345678\xff"), NULL));
}


/* Every naughty string is UTF-8 and survives each encoding. */
static void
str_naughty(void **state)
{
    stoa_mem_t       *mem = stoa_arena_create(65536, 1 << 22);
    stoa_json_fault_t fault;
    stoa_json_t      *all;
    stoa_str_t        s, back;
    unsigned char     text[8192], bytes[4096];
    size_t            i, n;

    all = stoa_json_parse(mem, unit_read(mem, "strings/blns.json"), &fault);
    assert_non_null(all);
    assert_true(stoa_json_count(all) > 400);

    for (i = 0; i < stoa_json_count(all); i++) {
        s = stoa_json_str(stoa_json_at(all, i));
        assert_true(s.len < 2048);
        assert_true(stoa_str_utf8(s, NULL));

        back.data = text;
        back.len = stoa_base64url_encode(text, s.data, s.len);
        assert_int_equal(back.len, stoa_base64url_len(s.len));
        n = (size_t) stoa_base64url_decode(bytes, sizeof(bytes), back);
        assert_int_equal(n, s.len);
        assert_memory_equal(bytes, s.data, n);

        back.len = stoa_base32_encode(text, s.data, s.len);
        assert_int_equal(back.len, stoa_base32_len(s.len));
        n = (size_t) stoa_base32_decode(bytes, sizeof(bytes), back);
        assert_int_equal(n, s.len);
        assert_memory_equal(bytes, s.data, n);

        stoa_hex_encode((char *) text, s.data, s.len);
        back.len = 2 * s.len;
        n = (size_t) stoa_hex_decode(bytes, sizeof(bytes), back);
        assert_int_equal(n, s.len);
        assert_memory_equal(bytes, s.data, n);
    }

    stoa_arena_destroy(mem);
}


static void
str_uuid(void **state)
{
    stoa_uuid_t u;
    char        text[36];

    assert_true(stoa_uuid_parse(L("019A5B7C-0000-7abc-8DEF-0123456789ab"), &u));
    stoa_uuid_print(&u, text);
    assert_memory_equal(text, "019a5b7c-0000-7abc-8def-0123456789ab", 36);
    assert_false(stoa_uuid_parse(L("019a5b7c-0000-7abc-8def-0123456789a"), &u));
    assert_false(
        stoa_uuid_parse(L("019a5b7c-0000-7abc-8def-0123456789abc"), &u));
    assert_false(
        stoa_uuid_parse(L("019a5b7c00000-7abc-8def-0123456789ab"), &u));
    assert_false(
        stoa_uuid_parse(L("019a5b7c-0000-7abc-8def-0123456789ag"), &u));
    assert_false(
        stoa_uuid_parse(L("{19a5b7c-0000-7abc-8def-0123456789a}"), &u));
}


static void
str_names(void **state)
{
    char camel[64];

    stoa_str_camel("ticket_type_id", camel);
    assert_string_equal(camel, "ticketTypeId");
    stoa_str_camel("title", camel);
    assert_string_equal(camel, "title");

    assert_true(stoa_str_same_name("ticket_type_id", L("ticketTypeId")));
    assert_true(stoa_str_same_name("ticket_type_id", L("ticket_type_id")));
    assert_false(stoa_str_same_name("ticket_type_id", L("ticketType_id")));
    assert_false(stoa_str_same_name("ticket_type_id", L("tickettypeid")));
    assert_false(stoa_str_same_name("ticket_type_id", L("ticketTypeI")));
    assert_false(stoa_str_same_name("ticket_type_id", L("ticketTypeIdx")));
    assert_false(stoa_str_same_name("a", L("")));
}


static void
str_base64url(void **state)
{
    unsigned char out[8];

    assert_int_equal(stoa_base64url_decode(out, 8, L("Zm9v")), 3);
    assert_memory_equal(out, "foo", 3);
    assert_int_equal(stoa_base64url_decode(out, 8, L("-_-_")), 3);
    assert_memory_equal(out, "\xfb\xff\xbf", 3);
    assert_int_equal(stoa_base64url_decode(out, 8, L("Zg")), 1);
    assert_int_equal(stoa_base64url_decode(out, 8, L("")), 0);
    assert_int_equal(stoa_base64url_decode(out, 8, L("Zh")), -1); /* tail */
    assert_int_equal(stoa_base64url_decode(out, 8, L("Zm9")), -1);
    assert_int_equal(stoa_base64url_decode(out, 8, L("Zm8")), 2);
    assert_int_equal(stoa_base64url_decode(out, 8, L("Zg==")), -1);
    assert_int_equal(stoa_base64url_decode(out, 8, L("Z")), -1);
    assert_int_equal(stoa_base64url_decode(out, 8, L("Zm+v")), -1);
    assert_int_equal(stoa_base64url_decode(out, 8, L("Zm 9")), -1);
    assert_int_equal(stoa_base64url_decode(out, 2, L("Zm9v")), -1);
}


/* RFC 4648 section 10, without padding. */
static void
str_base32(void **state)
{
    static const char *const rows[][2] = {
        { "", "" },
        { "f", "MY" },
        { "fo", "MZXQ" },
        { "foo", "MZXW6" },
        { "foob", "MZXW6YQ" },
        { "fooba", "MZXW6YTB" },
        { "foobar", "MZXW6YTBOI" },
    };
    unsigned char out[32];
    size_t        i, n;

    for (i = 0; i < stoa_nitems(rows); i++) {
        n = stoa_base32_encode(out, rows[i][0], strlen(rows[i][0]));
        assert_int_equal(n, strlen(rows[i][1]));
        assert_memory_equal(out, rows[i][1], n);
        assert_int_equal(stoa_base32_decode(out, 32, Z(rows[i][1])),
                         strlen(rows[i][0]));
        assert_memory_equal(out, rows[i][0], strlen(rows[i][0]));
    }

    assert_int_equal(stoa_base32_decode(out, 32, L("mzxw6ytboi")), 6);
    assert_int_equal(stoa_base32_decode(out, 32, L("MZ")), -1); /* tail */
    assert_int_equal(stoa_base32_decode(out, 32, L("M")), -1);
    assert_int_equal(stoa_base32_decode(out, 32, L("MZXW6Y")), -1);
    assert_int_equal(stoa_base32_decode(out, 32, L("MZXW61TB")), -1);
    assert_int_equal(stoa_base32_decode(out, 5, L("MZXW6YTBOI")), -1);
}


static void
str_hex_and_url(void **state)
{
    unsigned char out[16];

    assert_int_equal(stoa_hex_decode(out, 16, L("00fFa5")), 3);
    assert_memory_equal(out, "\x00\xff\xa5", 3);
    assert_int_equal(stoa_hex_decode(out, 16, L("0")), -1);
    assert_int_equal(stoa_hex_decode(out, 16, L("0g")), -1);
    assert_int_equal(stoa_hex_decode(out, 1, L("0000")), -1);

    assert_int_equal(stoa_url_decode(out, 16, L("a+b%20c%2B")), 6);
    assert_memory_equal(out, "a b c+", 6);
    assert_int_equal(stoa_url_decode(out, 16, L("%")), -1);
    assert_int_equal(stoa_url_decode(out, 16, L("%2")), -1);
    assert_int_equal(stoa_url_decode(out, 16, L("%2g")), -1);
    assert_int_equal(stoa_url_decode(out, 1, L("ab")), -1);
}


static void
str_nearest(void **state)
{
    static const char *const names[] = { "db_host", "db_port", "id",
                                         "redis_host" };

    assert_string_equal(stoa_str_nearest(L("db_hots"), names, 4), "db_host");
    assert_string_equal(stoa_str_nearest(L("DB_PROT"), names, 4), "db_port");
    assert_string_equal(stoa_str_nearest(L("redi_host"), names, 4),
                        "redis_host");
    assert_null(stoa_str_nearest(L("zzzzzzzz"), names, 4));
    assert_null(stoa_str_nearest(L("xyz"), names, 4));
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(str_int),         cmocka_unit_test(str_compare),
        cmocka_unit_test(str_utf8),        cmocka_unit_test(str_naughty),
        cmocka_unit_test(str_uuid),        cmocka_unit_test(str_names),
        cmocka_unit_test(str_base64url),   cmocka_unit_test(str_base32),
        cmocka_unit_test(str_hex_and_url), cmocka_unit_test(str_nearest),
    };

    return cmocka_run_group_tests_name("str", tests, NULL, NULL);
}
