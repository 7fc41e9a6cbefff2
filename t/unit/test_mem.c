/*
 * The arena and the buffer over it: alignment, the maximum, cleanups in
 * reverse order, failing closed, escapes.
 */

#include "unit_core.h"

#include "stoa_buf.h"

static int order[4];
static int norder;


static void
mem_clean(void *data)
{
    order[norder++] = *(int *) data;
}


static void
mem_arena(void **state)
{
    stoa_mem_t *mem = stoa_arena_create(1024, 8192);
    static int  one = 1, two = 2;
    size_t      i, total = 0;
    void       *p;

    assert_non_null(mem);

    for (i = 1; i < 64; i += 7) {
        p = stoa_alloc(mem, i);
        assert_non_null(p);
        assert_int_equal((uintptr_t) p % 16, 0);
        memset(p, 0xaa, i);
        p = stoa_calloc(mem, i);
        assert_non_null(p);
        assert_int_equal(((char *) p)[i - 1], 0);
    }

    assert_true(mem->on_free(mem->ctx, mem_clean, &one));
    assert_true(mem->on_free(mem->ctx, mem_clean, &two));

    /* large ones get blocks of their own, up to the maximum */
    while (stoa_alloc(mem, 2000) != NULL) {
        total += 2000;
        assert_true(total <= 8192);
    }

    assert_true(total >= 2000);
    assert_null(stoa_alloc(mem, SIZE_MAX));

    stoa_arena_destroy(mem);
    assert_int_equal(norder, 2);
    assert_int_equal(order[0], 2);
    assert_int_equal(order[1], 1);
    stoa_arena_destroy(NULL);
}


static void
mem_buffer(void **state)
{
    stoa_mem_t *mem = stoa_arena_create(1024, 1 << 20);
    stoa_buf_t  b;
    stoa_uuid_t u = { { 1, 2 } };
    size_t      i;

    stoa_buf_init(&b, mem, 4, 4096);
    stoa_buf_z(&b, "a");
    stoa_buf_int(&b, INT64_MIN);
    stoa_buf_char(&b, ' ');
    stoa_buf_int(&b, 0);
    stoa_buf_uuid(&b, &u);
    stoa_buf_printf(&b, " %d%%", 7);
    stoa_buf_nul(&b);
    assert_string_equal((char *) b.data,
                        "a-9223372036854775808 0"
                        "01020000-0000-0000-0000-000000000000 7%");

    b.len = 0;
    stoa_buf_printf(&b, "%0600d", 1);
    assert_int_equal(b.len, 600);
    assert_false(b.failed);

    /* exactly the maximum fits, one more byte does not */
    stoa_buf_init(&b, mem, 0, 100);

    for (i = 0; i < 100; i++) {
        stoa_buf_char(&b, 'x');
    }

    assert_false(b.failed);
    stoa_buf_char(&b, 'y');
    assert_true(b.failed);
    assert_int_equal(b.len, 100);
    stoa_buf_put(&b, "z", 0);
    stoa_buf_z(&b, "z");
    assert_int_equal(b.len, 100);

    stoa_arena_destroy(mem);
}


static void
mem_escapes(void **state)
{
    stoa_mem_t *mem = stoa_arena_create(1024, 1 << 20);
    stoa_buf_t  b;

    stoa_buf_init(&b, mem, 0, 4096);
    stoa_buf_json(&b, L("a\"\\\n\r\t\x01\x1f/\xc3\xa9</script>"));
    stoa_buf_json(&b, (stoa_str_t) stoa_null_string);
    stoa_buf_nul(&b);
    assert_string_equal((char *) b.data,
                        "\"a\\\"\\\\\\n\\r\\t\\u0001\\u001f/\xc3\xa9"
                        "</script>\"\"\"");

    stoa_buf_init(&b, mem, 0, 4096);
    stoa_buf_html(&b, L("<a href='x'>\"&amp;\""));
    stoa_buf_html(&b, (stoa_str_t) stoa_null_string);
    stoa_buf_nul(&b);
    assert_string_equal((char *) b.data,
                        "&lt;a href=&#39;x&#39;&gt;&quot;&amp;amp;&quot;");

    stoa_arena_destroy(mem);
}


/* Out of memory is a failed buffer, not a crash. */
static void
mem_short(void **state)
{
    stoa_mem_t *mem = stoa_arena_create(256, 1024);
    stoa_buf_t  b;
    size_t      i;

    stoa_buf_init(&b, mem, 0, 1 << 20);

    for (i = 0; i < 2000; i++) {
        stoa_buf_char(&b, 'x');
    }

    assert_true(b.failed);
    assert_true(b.len < 1024);
    assert_null(stoa_strdup_z(mem, stoa_buf_view(&b)));
    stoa_arena_destroy(mem);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mem_arena),
        cmocka_unit_test(mem_buffer),
        cmocka_unit_test(mem_escapes),
        cmocka_unit_test(mem_short),
    };

    return cmocka_run_group_tests_name("mem", tests, NULL, NULL);
}
