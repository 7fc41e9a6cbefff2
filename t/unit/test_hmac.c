/*
 * MACs against published vectors, derived keys, and the signature header of
 * payment webhooks.
 */

#include "unit_core.h"

#include "stoa_hmac.h"
#include "stoa_json.h"


static stoa_str_t
hmac_hex(stoa_json_t *test, const char *name, unsigned char *room, size_t size)
{
    stoa_str_t s;
    ssize_t    n = stoa_hex_decode(room, size,
                                   stoa_json_str(stoa_json_get(test, name)));

    assert_true(n >= 0);
    s.data = room;
    s.len = (size_t) n;

    return s;
}


static void
hmac_vectors(void **state)
{
    stoa_mem_t       *mem = stoa_arena_create(65536, 1 << 24);
    stoa_json_fault_t fault;
    stoa_json_t      *all, *groups, *tests, *test;
    unsigned char     key[256], msg[4096], tag[64], mac[32], again[32];
    stoa_str_t        k, m, t, parts[3];
    size_t            i, j, size, seen = 0;
    bool              valid;

    all = stoa_json_parse(mem, unit_read(mem, "jose/hmac_sha256_test.json"),
                          &fault);
    assert_non_null(all);
    groups = stoa_json_get(all, "testGroups");

    for (i = 0; i < stoa_json_count(groups); i++) {
        size = (size_t) stoa_json_int(
                   stoa_json_get(stoa_json_at(groups, i), "tagSize"))
             / 8;
        tests = stoa_json_get(stoa_json_at(groups, i), "tests");

        for (j = 0; j < stoa_json_count(tests); j++) {
            test = stoa_json_at(tests, j);
            k = hmac_hex(test, "key", key, sizeof(key));
            m = hmac_hex(test, "msg", msg, sizeof(msg));
            t = hmac_hex(test, "tag", tag, sizeof(tag));
            valid = stoa_str_eq_z(stoa_json_str(stoa_json_get(test, "result")),
                                  "valid");

            assert_true(stoa_hmac_sha256(k, m.data, m.len, mac));
            assert_int_equal(t.len == size && memcmp(mac, t.data, size) == 0,
                             valid);

            parts[0] = m;
            parts[0].len = m.len / 3;
            parts[1] = (stoa_str_t) stoa_null_string;
            parts[2].data = m.data + m.len / 3;
            parts[2].len = m.len - m.len / 3;
            assert_true(stoa_hmac_sha256_parts(k, parts, 3, again));
            assert_memory_equal(mac, again, 32);
            seen++;
        }
    }

    assert_true(seen > 150);
    stoa_arena_destroy(mem);
}


static void
hmac_sha256(void **state)
{
    unsigned char out[32];
    char          hex[64];

    assert_true(stoa_sha256("abc", 3, out));
    stoa_hex_encode(hex, out, 32);
    assert_memory_equal(hex,
                        "ba7816bf8f01cfea414140de5dae2223"
                        "b00361a396177a9cb410ff61f20015ad",
                        64);
    assert_true(stoa_sha256("", 0, out));
    stoa_hex_encode(hex, out, 4);
    assert_memory_equal(hex, "e3b0c442", 8);
    assert_true(stoa_hmac_sha256(L("k"), NULL, 0, out));
}


static void
hmac_derive(void **state)
{
    unsigned char a[32], b[32];
    stoa_str_t    master = L("0123456789abcdef0123456789abcdef");

    assert_true(stoa_hmac_derive(master, "refresh", a));
    assert_true(stoa_hmac_derive(master, "cursor", b));
    assert_memory_not_equal(a, b, 32);
    assert_true(stoa_hmac_derive(master, "refresh", b));
    assert_memory_equal(a, b, 32);
    assert_false(stoa_hmac_derive(L("short"), "refresh", a));
    assert_false(stoa_hmac_derive((stoa_str_t) stoa_null_string, "x", a));
}


#define NOW 1767323045

static stoa_str_t secrets[2] = { stoa_string("whsec_one"),
                                 stoa_string("whsec_two") };
static stoa_str_t raw = stoa_string("{\"id\":\"evt_1\"}");


static bool
signature_good(const char *header, int64_t now)
{
    stoa_err_e err = stoa_signature_verify(Z(header), raw, secrets, 2, now,
                                           300);

    assert_true(err == STOA_OK || err == STOA_E_SIGNATURE_INVALID);

    return err == STOA_OK;
}


static void
signature_header(void **state)
{
    char   one[STOA_SIGNATURE_MAX], two[STOA_SIGNATURE_MAX], text[2 * 4096];
    size_t n;

    n = stoa_signature_make(one, sizeof(one), secrets[0], raw, NOW);
    assert_int_equal(n, 2 + 10 + 4 + 64);
    assert_true(signature_good(one, NOW));
    assert_int_equal(stoa_signature_make(two, 20, secrets[0], raw, NOW), 0);

    /* the other secret, while they roll */
    assert_true(stoa_signature_make(two, sizeof(two), secrets[1], raw, NOW)
                != 0);
    assert_true(signature_good(two, NOW));

    /* tolerance in both directions, to the second */
    assert_true(signature_good(one, NOW + 300));
    assert_true(signature_good(one, NOW - 300));
    assert_false(signature_good(one, NOW + 301));
    assert_false(signature_good(one, NOW - 301));

    /* several v1, other schemes, order, spaces */
    (void) snprintf(text, sizeof(text), "v0=zz,v1=%064d,%s,v2=1", 0, one);
    assert_true(signature_good(text, NOW));
    (void) snprintf(text, sizeof(text), "%.*s, t=%d", 67, one + 13, NOW);
    assert_true(signature_good(text, NOW));

    /* another time than the signed one */
    (void) snprintf(text, sizeof(text), "t=%d%s", NOW + 1, one + 12);
    assert_false(signature_good(text, NOW));
    /* a zero in front is the same time, but not what was signed */
    (void) snprintf(text, sizeof(text), "t=0%d%s", NOW, one + 12);
    assert_false(signature_good(text, NOW));
    (void) snprintf(text, sizeof(text), "t=%d,%s", NOW, one);
    assert_false(signature_good(text, NOW)); /* two times */

    (void) snprintf(text, sizeof(text), "t=%d,v0=%.64s", NOW, one + 16);
    assert_false(signature_good(text, NOW));
    (void) snprintf(text, sizeof(text), "t=%d,v1=%.63s", NOW, one + 16);
    assert_false(signature_good(text, NOW));
    one[20] = one[20] == '0' ? '1' : '0';
    assert_false(signature_good(one, NOW));

    assert_false(signature_good("", NOW));
    assert_false(signature_good("t=,v1=", NOW));
    assert_false(signature_good("t=-1,v1=00", NOW));
    assert_false(signature_good("garbage", NOW));
    assert_false(signature_good("t=99999999999999999999,v1=00", NOW));
    assert_int_equal(stoa_signature_verify(Z(two), L("{}"), secrets, 2, NOW,
                                           300),
                     STOA_E_SIGNATURE_INVALID);
    assert_int_equal(stoa_signature_verify(Z(two), raw, secrets, 1, NOW, 300),
                     STOA_E_SIGNATURE_INVALID);
    assert_int_equal(stoa_signature_verify(Z(two), raw, NULL, 0, NOW, 300),
                     STOA_E_SIGNATURE_INVALID);
}


/* A secret that is not set must not be a secret that anyone knows. */
static void
signature_empty_secret(void **state)
{
    stoa_str_t none[1] = { stoa_null_string };
    char       text[STOA_SIGNATURE_MAX];

    assert_true(stoa_signature_make(text, sizeof(text), none[0], raw, NOW)
                != 0);
    assert_int_equal(stoa_signature_verify(Z(text), raw, none, 1, NOW, 300),
                     STOA_E_SIGNATURE_INVALID);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hmac_vectors),
        cmocka_unit_test(hmac_sha256),
        cmocka_unit_test(hmac_derive),
        cmocka_unit_test(signature_header),
        cmocka_unit_test(signature_empty_secret),
    };

    return cmocka_run_group_tests_name("hmac", tests, NULL, NULL);
}
