/*
 * Arrays in binary form, read back by PostgreSQL itself.
 */

#include "unit_pg.h"
#include "stoa_pg_array.h"

#define ID "01890a5d-ac96-774b-bcce-b302099a8057"


static stoa_buf_t
pg_array(stoa_mem_t *mem, stoa_pg_elem_e elem, const char *const *texts,
         uint32_t n)
{
    uint32_t   i;
    stoa_buf_t b;
    stoa_str_t none = stoa_null_string;

    stoa_buf_init(&b, mem, 64, 1 << 20);
    stoa_pg_array_begin(&b, elem, n);

    for (i = 0; i < n; i++) {
        assert_true(
            stoa_pg_array_put(&b, elem,
                              texts[i] != NULL ? stoa_str_z(texts[i]) : none));
    }

    assert_false(b.failed);

    return b;
}


/* Sends texts as an array of elem; what the server finds equal. */
static void
pg_array_is(stoa_pg_elem_e elem, const char *const *texts, uint32_t n,
            const char *sql)
{
    int            lens[1];
    pg_env_t       env;
    pg_rec_t       rec;
    stoa_buf_t     b;
    stoa_mem_t    *mem;
    stoa_pg_stmt_t stmt = { .sql = sql,
                            .name = "array",
                            .nparams = 1,
                            .slot = 9,
                            .formats = (const int[]){ 1 } };

    mem = stoa_arena_create(4096, 1 << 21);
    b = pg_array(mem, elem, texts, n);
    lens[0] = (int) b.len;

    pg_open(&env, 1, 1, 4, 5000, pg_server.info);
    pg_wait_ready(&env, 1);
    assert_non_null(pg_submit_lens(&env, &rec, &stmt,
                                   (const char *[]){ (const char *) b.data },
                                   lens, 0));
    memset(lens, 0xff, sizeof(lens)); /* was copied */
    pg_until(&env, 1, 5000);
    assert_int_equal(rec.err, STOA_OK);
    assert_string_equal(rec.value, "true");
    pg_close(&env);
    stoa_arena_destroy(mem);
}


static void
pg_arrays_arrive(void **state)
{
    (void) state;

    pg_array_is(STOA_PG_ELEM_TEXT,
                (const char *[]){ "a", NULL, "", "NULL", "{x,\"y\\}",
                                  "\xc3\xa4" },
                6,
                "select ($1::text[] = array['a', null, '', 'NULL', "
                "E'{x,\"y\\\\}', U&'\\00e4'])::text");
    pg_array_is(STOA_PG_ELEM_UUID,
                (const char *[]){ ID, NULL,
                                  "00000000-0000-0000-0000-000000000000",
                                  "01890A5D-AC96-774B-BCCE-B302099A8057" },
                4,
                "select ($1::uuid[] = array['" ID "', null, "
                "'00000000-0000-0000-0000-000000000000', '" ID
                "']::uuid[])::text");
    pg_array_is(STOA_PG_ELEM_INT4,
                (const char *[]){ "1", "-2147483648", "2147483647", NULL }, 4,
                "select ($1::int[] = array[1, -2147483648, 2147483647, "
                "null])::text");
    pg_array_is(STOA_PG_ELEM_TEXT, (const char *[]){ NULL }, 1,
                "select ($1::text[] = array[null]::text[])::text");
}


static void
pg_array_refuses_what_is_not_of_the_type(void **state)
{
    stoa_buf_t  b;
    stoa_mem_t *mem = stoa_arena_create(4096, 65536);

    (void) state;
    stoa_buf_init(&b, mem, 64, 1024);
    assert_false(stoa_pg_array_put(&b, STOA_PG_ELEM_UUID, stoa_str_z("x")));
    assert_false(
        stoa_pg_array_put(&b, STOA_PG_ELEM_INT4, stoa_str_z("2147483648")));
    assert_false(stoa_pg_array_put(&b, STOA_PG_ELEM_INT4, stoa_str_z("")));
    assert_false(stoa_pg_array_put(&b, STOA_PG_ELEM_NONE, stoa_str_z("x")));
    assert_int_equal(stoa_pg_elem("jsonb"), STOA_PG_ELEM_NONE);
    stoa_arena_destroy(mem);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pg_arrays_arrive),
        cmocka_unit_test(pg_array_refuses_what_is_not_of_the_type),
    };

    return pg_main(tests);
}
