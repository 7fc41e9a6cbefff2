/*
 * Password hashes: parameters that were asked for, verification of both
 * kinds, and when a new hash is due.  Ticket codes beside them, since both
 * are libsodium's.
 */

#include "unit_core.h"

#include "stoa_code.h"
#include "stoa_common.h"
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

    assert_false(stoa_hash_needs_rehash(&cost, Z(one), L("x")));
    assert_true(stoa_hash_needs_rehash(&more, Z(one), L("x")));
    assert_true(stoa_hash_needs_rehash(&longer, Z(one), L("x")));

    /* bytes beyond text count too */
    assert_true(stoa_hash_make(&cost, L("a\0b"), one));
    assert_true(stoa_hash_verify(Z(one), L("a\0b")));
    assert_false(stoa_hash_verify(Z(one), L("a\0c")));
}


/* The published vectors of crypt_blowfish, in the kinds that are known. */
static void
hash_bcrypt(void **state)
{
    static const struct {
        const char *hash; /* behind the kind */
        const char *password;
    } known[] = {
        { "$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U" },
        { "$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK", "U*U*" },
        { "$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a",
          "U*U*U" },
        { "$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui",
          "0123456789abcdefghijklmnopqrstuvwxyz"
          "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
          "chars after 72 are ignored" },
        { "$05$/OK.fbVrR/bpIqNJ5ianF.nRht2l/HRhr6zmCp9vYUvvsqynflf9e",
          "\xff\xa3"
          "345" },
        { "$05$/OK.fbVrR/bpIqNJ5ianF.Sa7shbm4.OzKpvFnX1pQLmQW96oUlCq", "\xa3" },
    };
    static const char *const kinds[] = { "$2a", "$2b", "$2y" };
    char                     hash[STOA_HASH_MAX];
    size_t                   i, k;

    for (i = 0; i < stoa_nitems(known); i++) {
        for (k = 0; k < stoa_nitems(kinds); k++) {
            (void) snprintf(hash, sizeof(hash), "%s%s", kinds[k],
                            known[i].hash);
            assert_int_equal(stoa_hash_kind(Z(hash)), STOA_HASH_BCRYPT);
            assert_true(stoa_hash_verify(Z(hash), Z(known[i].password)));
            assert_false(stoa_hash_verify(Z(hash), L("U*V")));
            assert_false(stoa_hash_verify(Z(hash), L("")));
            assert_false(stoa_hash_verify(Z(hash), L("U*U\0x")));
        }
    }

    /* where old programs were wrong about the eighth bit, 2a is its own */
    assert_true(stoa_hash_verify(
        L("$2y$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e"),
        L("\xff\xff\xa3")));
    assert_true(stoa_hash_verify(
        L("$2a$05$/OK.fbVrR/bpIqNJ5ianF.nqd1wy.pTMdcvrRWxyiGL2eMz.2a85."),
        L("\xff\xff\xa3")));
}


/* What bcrypt does not look at is neither compared nor stored. */
static void
hash_bcrypt_72(void **state)
{
    static const char hash[] =
        "$2b$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui";
    stoa_hash_cost_t cost = { 1024, 1 };
    char             text[STOA_PASSWORD_MAX], made[STOA_HASH_MAX];
    stoa_str_t       s = { 72, (unsigned char *) text };

    memset(text, 'z', sizeof(text));
    memcpy(text,
           "0123456789abcdefghijklmnopqrstuvwxyz"
           "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
           72);

    assert_true(stoa_hash_verify(Z(hash), s));
    assert_false(stoa_hash_needs_rehash(&cost, Z(hash), s));
    s.len = 71;
    assert_false(stoa_hash_verify(Z(hash), s));
    assert_true(stoa_hash_needs_rehash(&cost, Z(hash), s));

    /* 128 characters of four bytes are more than libcrypt takes */
    for (s.len = 73; s.len <= 512; s.len += 439) {
        assert_true(stoa_hash_verify(Z(hash), s));
        assert_false(stoa_hash_needs_rehash(&cost, Z(hash), s));
    }

    /* Argon2id: all of it */
    s.len = 512;
    assert_true(stoa_hash_make(&cost, s, made));
    assert_true(stoa_hash_verify(Z(made), s));
    text[511] = 'y';
    assert_false(stoa_hash_verify(Z(made), s));
    s.len = 72;
    assert_false(stoa_hash_verify(Z(made), s));
}


static void
hash_kinds(void **state)
{
    static const struct {
        const char      *hash;
        stoa_hash_kind_e kind;
    } rows[] = {
        { "$2b$04$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
          STOA_HASH_BCRYPT },
        { "$2b$14$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
          STOA_HASH_BCRYPT },
        { "$2b$03$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", 0 },
        { "$2b$15$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", 0 },
        { "$2b$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", 0 },
        { "$2b$1x$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", 0 },
        { "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOe=", 0 },
        { "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeWW", 0 },
        { "$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", 0 },
        { "$argon2id$v=19$m=1024,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$"
          "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
          STOA_HASH_ARGON2ID },
        { "$argon2id$v=19$m=1024,t=2,p=1", 0 },
        { "$argon2i$v=19$m=4096,t=3,p=1$c2FsdHNhbHQ$aGFzaGhhc2g", 0 },
        { "", 0 },
        { "secret", 0 },
    };
    size_t i;

    for (i = 0; i < stoa_nitems(rows); i++) {
        assert_int_equal(stoa_hash_kind(Z(rows[i].hash)), rows[i].kind);
    }
}


static void
common_passwords(void **state)
{
    static const char *const listed[] = { "password",   "12345678",
                                          "PassWord1",  "0.0.0.000",
                                          "qwertyuiop", "ILOVEYOU" };
    static const char *const others[] = { "passwor",
                                          "passwordy",
                                          "00000000000",
                                          "password\n12345678",
                                          "pass word",
                                          "\xc3\x84pfelbaum",
                                          "correct horse battery staple",
                                          "" };
    size_t                   i;

    for (i = 0; i < stoa_nitems(listed); i++) {
        assert_true(stoa_common_password(Z(listed[i])));
    }

    for (i = 0; i < stoa_nitems(others); i++) {
        assert_false(stoa_common_password(Z(others[i])));
    }

    assert_true(stoa_str_ieq(L("Ada@Stoa.example"), L("ada@stoa.EXAMPLE")));
    assert_false(stoa_str_ieq(L("ada@stoa.example"), L("ada@stoa.exampl")));
}


/* Every line of the list is found: it is sorted, lower case, and whole. */
static void
common_list(void **state)
{
    static const char list[] =
#include "stoa_common.def"
        ;
    const char *p, *end, *last = NULL;
    stoa_str_t  line;
    size_t      n = 0, lastlen = 0, both;
    int         order;

    for (p = list; *p != '\0'; p = end + 1, n++) {
        end = strchr(p, '\n');
        assert_non_null(end);
        line = (stoa_str_t){ (size_t) (end - p), (unsigned char *) p };
        assert_in_range(line.len, 8, 32);
        assert_true(stoa_common_password(line));

        if (last != NULL) {
            both = lastlen < line.len ? lastlen : line.len;
            order = memcmp(last, p, both);
            assert_true(order < 0 || (order == 0 && lastlen < line.len));
        }

        last = p;
        lastlen = line.len;
    }

    assert_int_equal(n, 5000);
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
        cmocka_unit_test(hash_argon2id),    cmocka_unit_test(hash_bcrypt),
        cmocka_unit_test(hash_bcrypt_72),   cmocka_unit_test(hash_kinds),
        cmocka_unit_test(common_passwords), cmocka_unit_test(common_list),
        cmocka_unit_test(hash_garbage),     cmocka_unit_test(code_round),
    };

    return cmocka_run_group_tests_name("hash", tests, hash_setup, NULL);
}
