/*
 * API keys: against a text that Python's hmac and base64 made, each character
 * changed, spellings, lengths, and what is stored.
 */

#include "unit_core.h"

#include "stoa_hmac.h"
#include "stoa_key.h"

#define MAC "0123456789abcdef0123456789abcdef"
#define KNOWN                                                                  \
    "stoa_sk_aaaqeayeavdapcajbifqydiob5sgkzthnbuwu23mnvxg64drojzxi5lwo54hs6t3" \
    "pr6x474aqgbih3emhzrel7lcdluoaxae"
#define HASH "e3e16780becf601d55e4751e7d722ef91d750bb0cea61b1bb5ea8bc308cdf262"


static void
key_known(void **state)
{
    stoa_key_t    key;
    unsigned char sum[32];
    char          hex[64];
    size_t        i;

    assert_int_equal(strlen(KNOWN), STOA_KEY_LEN);
    assert_true(stoa_key_is(L(KNOWN)));
    assert_true(stoa_key_read(L(KNOWN), &key));
    assert_true(stoa_key_genuine(L(MAC), &key));
    assert_false(stoa_key_genuine(L(MAC "x"), &key));
    assert_int_equal(key.id.b[5], 5);
    assert_int_equal(key.id.b[6], 0x46);

    for (i = 0; i < sizeof(key.secret); i++) {
        assert_int_equal(key.secret[i], 100 + i);
    }

    assert_true(stoa_key_hash(&key, sum));
    stoa_hex_encode(hex, sum, sizeof(sum));
    assert_memory_equal(hex, HASH, sizeof(hex));
}


static void
key_made(void **state)
{
    stoa_key_t key, other, back;
    char       out[STOA_KEY_LEN], more[STOA_KEY_LEN];
    stoa_str_t text = { sizeof(out), (unsigned char *) out };

    assert_true(stoa_key_make(L(MAC), &key, out));
    assert_true(stoa_key_make(L(MAC), &other, more));
    assert_true(stoa_key_read(text, &back));
    assert_memory_equal(&back, &key, sizeof(key));
    assert_true(stoa_key_genuine(L(MAC), &back));

    /* what lists show of two keys made at the same moment differs, and tells
       no character of the secret, which begins behind 128 bits of id */
    assert_true(STOA_KEY_SHOWN - STOA_KEY_PREFIX_LEN < 128 / 5);
    assert_true(memcmp(out, more, STOA_KEY_SHOWN) != 0);
    assert_true(memcmp(key.secret, other.secret, STOA_KEY_SECRET) != 0);
    assert_int_equal(key.id.b[6] >> 4, 4);
    assert_int_equal(key.id.b[8] >> 6, 2);
}


static void
key_changed(void **state)
{
    char       out[STOA_KEY_LEN + 1];
    stoa_str_t text = { STOA_KEY_LEN, (unsigned char *) out };
    stoa_key_t key;
    size_t     i;
    char       kept;

    memcpy(out, KNOWN, sizeof(out));

    for (i = 0; i < STOA_KEY_LEN; i++) {
        kept = out[i];

        out[i] = kept == 'b' ? 'c' : 'b';
        assert_false(stoa_key_read(text, &key)
                     && stoa_key_genuine(L(MAC), &key));

        /* one key, one text */
        if (kept >= 'a' && kept <= 'z') {
            out[i] = (char) (kept - 'a' + 'A');
            assert_false(stoa_key_read(text, &key));
        }

        out[i] = '\0';
        assert_false(stoa_key_read(text, &key));
        out[i] = '=';
        assert_false(stoa_key_read(text, &key));
        out[i] = kept;

        assert_false(
            stoa_key_read((stoa_str_t){ i, (unsigned char *) out }, &key));
    }

    assert_false(
        stoa_key_read((stoa_str_t){ STOA_KEY_LEN + 1, (unsigned char *) out },
                      &key));
    assert_false(stoa_key_read((stoa_str_t) stoa_null_string, &key));
    assert_false(stoa_key_is((stoa_str_t) stoa_null_string));
    assert_false(stoa_key_is(L("stoa_sk")));
    assert_false(stoa_key_is(L("eyJhbGciOiJIUzI1NiJ9.e30.x")));
    assert_true(stoa_key_read(text, &key) && stoa_key_genuine(L(MAC), &key));
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(key_known),
        cmocka_unit_test(key_made),
        cmocka_unit_test(key_changed),
    };

    return cmocka_run_group_tests_name("key", tests, NULL, NULL);
}
