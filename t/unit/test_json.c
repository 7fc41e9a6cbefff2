/*
 * The JSON door against published texts: all that must be refused is, all
 * that must be accepted is, but for what strictness adds (duplicates,
 * U+0000), and nothing crashes.  Then depth, numbers, order, and the reader
 * that builds nothing.
 */

#include "unit_core.h"

#include "stoa_json.h"

static stoa_mem_t *mem;


static int
json_setup(void **state)
{
    mem = stoa_arena_create(65536, 1 << 26);
    return mem == NULL;
}


static int
json_teardown(void **state)
{
    stoa_arena_destroy(mem);
    return 0;
}


static const char *
json_reason(const char *text)
{
    stoa_json_fault_t fault = { NULL, 0 };

    return stoa_json_parse(mem, Z(text), &fault) != NULL ? "ok" : fault.reason;
}


/* Valid JSON that is refused on purpose. */
static bool
json_is_ours(const char *name)
{
    static const char *const names[] = {
        "y_object_duplicated_key.json",
        "y_object_duplicated_key_and_value.json",
        "y_object_escaped_null_in_key.json",
        "y_string_null_escape.json",
    };
    size_t i;

    for (i = 0; i < stoa_nitems(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }

    return false;
}


static void
json_suite(void **state)
{
    stoa_json_fault_t fault;
    stoa_str_t        text;
    stoa_mem_t       *own;
    char            **names = unit_list(mem, "json/test_parsing"), path[512];
    size_t            i, seen[3] = { 0, 0, 0 };
    bool              good, flat;

    for (i = 0; names[i] != NULL; i++) {
        own = stoa_arena_create(65536, 1 << 24);
        (void) snprintf(path, sizeof(path), "json/test_parsing/%s", names[i]);
        text = unit_read(own, path);
        fault.reason = NULL;
        good = stoa_json_parse(own, text, &fault) != NULL;
        assert_int_equal(good, fault.reason == NULL);
        flat = stoa_json_valid(text, &fault);

        if (flat && !good) {
            fail_msg("%s is only refused by jansson", names[i]);
        }

        switch (names[i][0]) {
        case 'n':
            seen[0]++;

            if (good) {
                fail_msg("%s was accepted", names[i]);
            }

            break;
        case 'y':
            seen[1]++;

            if (good == json_is_ours(names[i])) {
                fail_msg("%s: %s", names[i], good ? "ok" : fault.reason);
            }

            break;
        default:
            seen[2]++;
            break;
        }

        stoa_arena_destroy(own);
    }

    assert_true(seen[0] > 150 && seen[1] > 90 && seen[2] > 30);
}


static void
json_depth(void **state)
{
    char   text[256];
    size_t depth;

    for (depth = 30; depth < 36; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        text[2 * depth] = '\0';
        assert_string_equal(json_reason(text), depth <= 32 ? "ok" : "too_deep");
    }

    for (depth = 31; depth < 34; depth++) {
        text[0] = '\0';

        for (size_t i = 0; i < depth; i++) {
            memcpy(text + 5 * i, "{\"a\":", 6);
        }

        text[5 * depth] = '1';
        memset(text + 5 * depth + 1, '}', depth);
        text[6 * depth + 1] = '\0';
        assert_string_equal(json_reason(text), depth <= 32 ? "ok" : "too_deep");
    }
}


static void
json_strict(void **state)
{
    static const char *const rows[][2] = {
        { "9007199254740991", "ok" },
        { "-9007199254740991", "ok" },
        { "9007199254740992", "number_range" },
        { "-9007199254740992", "number_range" },
        { "123456789012345678901234567890", "number_range" },
        { "1e308", "ok" },
        { "1e309", "number_range" },
        { "{\"a\":1,\"a\":2}", "duplicate_key" },
        { "{\"a\":1,\"\\u0061\":2}", "duplicate_key" },
        { "{\"\\u0061\":1,\"a\":2}", "duplicate_key" },
        { "{\"a\":{\"a\":1},\"b\":{\"a\":1}}", "ok" },
        { "{\"a\":{\"b\":1},\"b\":1,\"a\":0}", "duplicate_key" },
        { "[{\"a\":1},{\"a\":1}]", "ok" },
        { "\"\\u0000\"", "utf8" },
        { "\"\\ud800\"", "utf8" },
        { "\"\\udc00\\ud800\"", "utf8" },
        { "\"\\ud83c\\udfab\"", "ok" },
        { "\"\xff\"", "utf8" },
        { "\"\xc0\x80\"", "utf8" },
        { "{} {}", "trailing" },
        { "1,", "trailing" },
        { "", "syntax" },
        { " ", "syntax" },
        { "nul", "syntax" },
        { "+1", "syntax" },
        { "01", "syntax" },
        { "1.", "syntax" },
        { ".5", "syntax" },
        { "NaN", "syntax" },
        { "'a'", "syntax" },
        { "{a:1}", "syntax" },
        { "[1,]", "syntax" },
        { "{\"a\":1,}", "syntax" },
        { "[1 2]", "syntax" },
        { "{\"a\" 1}", "syntax" },
        { "[}", "syntax" },
        { "{\"a\":1]", "syntax" },
        { "\"a\nb\"", "syntax" },
        { "\"\\x\"", "syntax" },
        { "// c\n1", "syntax" },
        { "\xef\xbb\xbf{}", "syntax" },
    };
    size_t i;

    for (i = 0; i < stoa_nitems(rows); i++) {
        if (strcmp(json_reason(rows[i][0]), rows[i][1]) != 0) {
            fail_msg("%s gave %s", rows[i][0], json_reason(rows[i][0]));
        }
    }

    assert_null(stoa_json_parse(mem, (stoa_str_t) stoa_null_string,
                                &(stoa_json_fault_t){ NULL, 0 }));
}


/* More members than the scanner remembers: jansson compares those. */
static void
json_many_keys(void **state)
{
    stoa_json_fault_t fault;
    stoa_buf_t        b;
    unsigned          i;

    stoa_buf_init(&b, mem, 0, 1 << 20);
    stoa_buf_char(&b, '{');

    for (i = 0; i < 1000; i++) {
        stoa_buf_printf(&b, "\"key%u\":%u,", i, i);
    }

    stoa_buf_z(&b, "\"last\":1}");
    assert_non_null(stoa_json_parse(mem, stoa_buf_view(&b), &fault));
    b.len -= strlen("\"last\":1}");
    stoa_buf_z(&b, "\"key999\":1}");
    assert_null(stoa_json_parse(mem, stoa_buf_view(&b), &fault));
    assert_string_equal(fault.reason, "duplicate_key");
}


static void
json_values(void **state)
{
    static const char text[] =
        "{\"z\":[1,-2.5,true,null,\"x\\ny\"],\"a\":{\"n\":9007199254740991},"
        "\"m\":false}";
    stoa_json_fault_t fault;
    stoa_json_t      *v, *list, *value;
    stoa_buf_t        b;
    stoa_str_t        name;
    void             *it = NULL;

    v = stoa_json_parse(mem, Z(text), &fault);
    assert_non_null(v);
    assert_int_equal(stoa_json_type(v), STOA_JSON_OBJECT);
    assert_int_equal(stoa_json_count(v), 3);

    /* the text's order */
    assert_true(stoa_json_next(v, &it, &name, &value));
    assert_true(stoa_str_eq_z(name, "z"));
    assert_true(stoa_json_next(v, &it, &name, &value));
    assert_true(stoa_str_eq_z(name, "a"));
    assert_true(stoa_json_next(v, &it, &name, &value));
    assert_true(stoa_str_eq_z(name, "m"));
    assert_int_equal(stoa_json_type(value), STOA_JSON_BOOL);
    assert_false(stoa_json_bool(value));
    assert_false(stoa_json_next(v, &it, &name, &value));

    list = stoa_json_get(v, "z");
    assert_int_equal(stoa_json_count(list), 5);
    assert_int_equal(stoa_json_int(stoa_json_at(list, 0)), 1);
    assert_true(stoa_json_real(stoa_json_at(list, 1)) == -2.5);
    assert_true(stoa_json_bool(stoa_json_at(list, 2)));
    assert_int_equal(stoa_json_type(stoa_json_at(list, 3)), STOA_JSON_NULL);
    assert_true(stoa_str_eq_z(stoa_json_str(stoa_json_at(list, 4)), "x\ny"));
    assert_null(stoa_json_at(list, 5));
    assert_null(stoa_json_get(v, "none"));

    stoa_buf_init(&b, mem, 0, 4096);
    stoa_json_write(&b, v);
    stoa_buf_nul(&b);
    assert_string_equal((char *) b.data, text);
}


static void
json_walk(void **state)
{
    stoa_json_fault_t fault;
    stoa_str_t        text, name, value;
    size_t            at = 0;

    text = L(" { \"a\" : [1, {\"b\":\"]}\"}] ,\"c\":\"x\\\"y\" , \"d\":-1 }");
    assert_true(stoa_json_valid(text, &fault));
    assert_true(stoa_json_walk(text, &at, &name, &value));
    assert_true(stoa_str_eq_z(name, "a"));
    assert_true(stoa_str_eq_z(value, "[1, {\"b\":\"]}\"}]"));
    assert_true(stoa_json_walk(text, &at, &name, &value));
    assert_true(stoa_str_eq_z(name, "c"));
    assert_true(stoa_str_eq_z(value, "\"x\\\"y\""));
    assert_true(stoa_json_walk(text, &at, &name, &value));
    assert_true(stoa_str_eq_z(name, "d"));
    assert_true(stoa_str_eq_z(value, "-1"));
    assert_false(stoa_json_walk(text, &at, &name, &value));

    at = 0;
    assert_false(stoa_json_walk(L("{}"), &at, &name, &value));
    at = 0;
    assert_false(stoa_json_walk(L("[1]"), &at, &name, &value));

    assert_false(stoa_json_valid(L("{\"e\\u0078p\":1}"), &fault));
    assert_string_equal(fault.reason, "escaped_name");
    assert_false(stoa_json_valid(L("{\"a\":1,\"a\":1}"), &fault));
    assert_string_equal(fault.reason, "duplicate_key");
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_suite),  cmocka_unit_test(json_depth),
        cmocka_unit_test(json_strict), cmocka_unit_test(json_many_keys),
        cmocka_unit_test(json_values), cmocka_unit_test(json_walk),
    };

    return cmocka_run_group_tests_name("json", tests, json_setup,
                                       json_teardown);
}
