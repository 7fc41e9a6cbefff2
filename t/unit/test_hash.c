/*
 * Password hashes: parameters that were asked for, verification of both
 * kinds, and when a new hash is due.  Ticket codes beside them, since both
 * are libsodium's.
 */

#include "unit_core.h"

#include "stoa_code.h"
#include "stoa_hash.h"


static void
hash_argon2id(void **state)
{
    stoa_hash_cost_t cost = { 1024, 2 }, more = { 2048, 2 },
                     longer = { 1024, 3 };
    char one[STOA_HASH_MAX], two[STOA_HASH_MAX];

    assert_true(stoa_hash_make(&cost, L("correct horse"), one));
    assert_true(stoa_hash_make(&cost, L("correct horse"), two));
    assert_non_null(strstr(one, "$argon2id$v=19$m=1024,t=2,p=1$"));
    assert_string_not_equal(one, two);
    assert_true(stoa_hash_verify(Z(one), L("correct horse")));
    assert_true(stoa_hash_verify(Z(two), L("correct horse")));
    assert_false(stoa_hash_verify(Z(one), L("correct horsf")));
    assert_false(stoa_hash_verify(Z(one), L("correct hors")));
    assert_false(stoa_hash_verify(Z(one), L("")));

    assert_false(stoa_hash_needs_rehash(&cost, Z(one)));
    assert_true(stoa_hash_needs_rehash(&more, Z(one)));
    assert_true(stoa_hash_needs_rehash(&longer, Z(one)));

    /* bytes beyond text count too */
    assert_true(stoa_hash_make(&cost, L("a\0b"), one));
    assert_true(stoa_hash_verify(Z(one), L("a\0b")));
    assert_false(stoa_hash_verify(Z(one), L("a\0c")));
}


static void
hash_bcrypt(void **state)
{
    /* "U*U" of the published vectors of crypt_blowfish */
    static const char *const known[] = {
        "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
    };
    stoa_hash_cost_t cost = { 1024, 2 };
    size_t           i;

    for (i = 0; i < stoa_nitems(known); i++) {
        assert_true(stoa_hash_verify(Z(known[i]), L("U*U")));
        assert_false(stoa_hash_verify(Z(known[i]), L("U*V")));
        assert_false(stoa_hash_verify(Z(known[i]), L("U*U\0x")));
        assert_true(stoa_hash_needs_rehash(&cost, Z(known[i])));
    }
}


static void
hash_garbage(void **state)
{
    static const char *const bad[] = {
        "",
        "plain",
        "$argon2id$",
        "$argon2id$v=19$m=1024,t=2,p=1$AAAA$BBBB",
        "$argon2i$v=19$m=4096,t=3,p=1$c2FsdHNhbHQ$aGFzaGhhc2g",
        "$1$abc$0123456789012345678901",
        "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc8",
        "$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOe",
        "*0",
    };
    char             text[STOA_PASSWORD_MAX + 2], out[STOA_HASH_MAX];
    stoa_hash_cost_t cost = { 1024, 1 };
    stoa_str_t       s = { 0, (unsigned char *) text };
    size_t           i;

    for (i = 0; i < stoa_nitems(bad); i++) {
        assert_false(stoa_hash_verify(Z(bad[i]), L("plain")));
        assert_false(stoa_hash_verify(Z(bad[i]), L("U*U")));
    }

    memset(text, 'x', sizeof(text));
    s.len = STOA_PASSWORD_MAX;
    assert_true(stoa_hash_make(&cost, s, out));
    assert_true(stoa_hash_verify(Z(out), s));
    s.len++;
    assert_false(stoa_hash_make(&cost, s, out));
    s.len = 300;
    assert_false(stoa_hash_verify(s, L("plain")));
    stoa_wipe(text, sizeof(text));
    assert_int_equal(text[7], 0);
}


static void
code_round(void **state)
{
    unsigned char    seed[32] = { 7 }, open[32], zero[32] = { 0 };
    stoa_code_key_t *key = stoa_code_key_create(seed, 3), *other;
    stoa_code_t      code = { .kid = 9, .generation = 5 }, back;
    char             text[STOA_CODE_LEN], bad[STOA_CODE_LEN];
    stoa_str_t       s = { STOA_CODE_LEN, (unsigned char *) text };
    stoa_str_t       b = { STOA_CODE_LEN, (unsigned char *) bad };
    size_t           i;

    assert_non_null(key);
    stoa_code_key_public(key, open);
    assert_memory_not_equal(open, zero, 32);
    memset(code.ticket.b, 0x11, 16);
    memset(code.type.b, 0x22, 16);
    assert_true(stoa_code_sign(key, &code, text));

    /* QR's alphanumeric mode */
    for (i = 0; i < STOA_CODE_LEN; i++) {
        assert_non_null(
            memchr("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", text[i], 32));
    }

    assert_true(stoa_code_open(key, s, true, &back));
    assert_int_equal(back.kid, 3); /* the key's, whatever was asked */
    assert_int_equal(back.generation, 5);
    assert_memory_equal(back.ticket.b, code.ticket.b, 16);
    assert_memory_equal(back.type.b, code.type.b, 16);

    /* every character counts, in any case of letters */
    for (i = 0; i < STOA_CODE_LEN; i++) {
        memcpy(bad, text, STOA_CODE_LEN);
        bad[i] = bad[i] == 'A' ? 'B' : 'A';
        assert_false(stoa_code_open(key, b, true, &back));
        bad[i] = '1';
        assert_false(stoa_code_open(key, b, false, &back));
        bad[i] = (char) (text[i] >= 'A' ? text[i] | 0x20 : text[i]);
        assert_true(stoa_code_open(key, b, true, &back));
    }

    s.len--;
    assert_false(stoa_code_open(key, s, true, &back));
    assert_false(stoa_code_open(key, s, false, &back));
    s.len++;

    other = stoa_code_key_create(zero, 3);
    assert_non_null(other);
    assert_false(stoa_code_open(other, s, true, &back));
    assert_true(stoa_code_open(other, s, false, &back));
    stoa_code_key_destroy(other);
    other = stoa_code_key_create(seed, 4); /* another kid */
    assert_false(stoa_code_open(other, s, true, &back));
    stoa_code_key_destroy(other);
    stoa_code_key_destroy(key);
    stoa_code_key_destroy(NULL);
}


static int
hash_setup(void **state)
{
    return stoa_hash_init() ? 0 : 1;
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hash_argon2id),
        cmocka_unit_test(hash_bcrypt),
        cmocka_unit_test(hash_garbage),
        cmocka_unit_test(code_round),
    };

    return cmocka_run_group_tests_name("hash", tests, hash_setup, NULL);
}
