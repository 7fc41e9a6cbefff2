/*
 * Sealed secrets: opened by their key and for their row only, every changed
 * bit is noticed; keys roll.
 */

#include "unit_core.h"

#include "stoa_seal.h"

#define A "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf"
#define B "B0b1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf"

static const stoa_str_t secret = stoa_string("twenty bytes secret!");
static const stoa_str_t mine = stoa_string("user and factor");

static stoa_mem_t *mem;


static int
seal_setup(void **state)
{
    mem = stoa_arena_create(4096, 1 << 20);
    return mem == NULL;
}


static int
seal_teardown(void **state)
{
    stoa_arena_destroy(mem);
    return 0;
}


static stoa_seal_t *
seal_keys(const char *mfa_key, const char *jwt_secret)
{
    stoa_conf_t conf = { .mfa_key = mfa_key, .jwt_secret = jwt_secret };
    const char *why = NULL;

    return stoa_seal_conf(&conf, mem, &why);
}


static stoa_str_t
sealed_by(const stoa_seal_t *s)
{
    stoa_str_t v = { secret.len + STOA_SEAL_OVER, NULL };

    v.data = stoa_alloc(mem, v.len);
    assert_non_null(v.data);
    assert_true(stoa_seal(s, mine, secret, v.data));

    return v;
}


static void
seal_opens(void **state)
{
    stoa_seal_t  *s = seal_keys("", "a secret of thirty-two bytes, or more");
    unsigned char out[64];
    stoa_str_t    v, again, cut;
    size_t        i;
    bool          stale = true;

    assert_non_null(s);
    v = sealed_by(s);
    again = sealed_by(s);
    assert_false(stoa_str_eq(v, again)); /* another nonce each time */

    assert_true(stoa_seal_open(s, mine, v, out, &stale));
    assert_false(stale);
    assert_memory_equal(out, secret.data, secret.len);

    /* another row, any other bit, any shorter one */
    assert_false(stoa_seal_open(s, L("user and facto2"), v, out, &stale));
    assert_false(stoa_seal_open(s, L(""), v, out, &stale));

    for (i = 0; i < v.len * 8; i++) {
        v.data[i / 8] ^= (unsigned char) (1 << i % 8);
        assert_false(stoa_seal_open(s, mine, v, out, &stale));
        v.data[i / 8] ^= (unsigned char) (1 << i % 8);
    }

    for (cut = v, cut.len = 0; cut.len < v.len; cut.len++) {
        assert_false(stoa_seal_open(s, mine, cut, out, &stale));
    }

    assert_true(stoa_seal_open(s, mine, v, out, &stale));
}


static void
seal_rolls(void **state)
{
    const char   *jwt = "a secret of thirty-two bytes, or more";
    stoa_seal_t  *none = seal_keys("", jwt), *a = seal_keys(A, jwt);
    stoa_seal_t  *ba = seal_keys(B "," A, jwt), *b = seal_keys(B, jwt);
    stoa_seal_t  *other = seal_keys("", "another secret of thirty-two bytes");
    unsigned char out[64];
    stoa_str_t    by_none = sealed_by(none), by_a = sealed_by(a);
    bool          stale = false;

    /* what was sealed before there was a key goes on */
    assert_true(stoa_seal_open(a, mine, by_none, out, &stale) && stale);
    assert_true(stoa_seal_open(ba, mine, by_none, out, &stale) && stale);
    assert_false(stoa_seal_open(other, mine, by_none, out, &stale));

    assert_true(stoa_seal_open(a, mine, by_a, out, &stale) && !stale);
    assert_true(stoa_seal_open(ba, mine, by_a, out, &stale) && stale);
    assert_false(stoa_seal_open(b, mine, by_a, out, &stale));
    assert_false(stoa_seal_open(none, mine, by_a, out, &stale));
    assert_true(stoa_seal_open(b, mine, sealed_by(ba), out, &stale) && !stale);
}


static void
seal_settings(void **state)
{
    assert_true(stoa_seal_key_ok(""));
    assert_true(stoa_seal_key_ok(A));
    assert_true(stoa_seal_key_ok(B "," A));
    assert_false(stoa_seal_key_ok("a0"));
    assert_false(stoa_seal_key_ok(A "a"));
    assert_false(stoa_seal_key_ok(A ","));
    assert_false(stoa_seal_key_ok(A A));
    assert_false(stoa_seal_key_ok(A " " B));
    assert_false(stoa_seal_key_ok(A "," B ","));
    assert_false(stoa_seal_key_ok("," A));
    assert_false(stoa_seal_key_ok("g0" A));
    assert_null(seal_keys("a0", "a secret of thirty-two bytes, or more"));
    assert_null(seal_keys(A, "too short"));
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seal_opens),
        cmocka_unit_test(seal_rolls),
        cmocka_unit_test(seal_settings),
    };

    return cmocka_run_group_tests(tests, seal_setup, seal_teardown);
}
