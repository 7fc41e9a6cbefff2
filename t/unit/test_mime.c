/*
 * The mail writer and the templates, from inside: what a black-box test of
 * whole mails would meet too rarely.  The sources are included, so their
 * static parts are at hand and no object of workers/ has to be linked.
 */

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../workers/worker_mime.c"
#include "../../workers/worker_mime_code.c"
#include "../../workers/worker_template.c"
#include "../../workers/worker_template_fill.c"
#include "../../workers/worker_words.c"

static stoa_mem_t *mem;

static int
setup(void **state)
{
    mem = stoa_arena_create(65536, 64 * 1024 * 1024);
    return mem == NULL;
}

static int
teardown(void **state)
{
    stoa_arena_destroy(mem);
    return 0;
}

static const char *
text(stoa_buf_t *b)
{
    stoa_buf_nul(b);
    assert_false(b->failed);
    return (char *) b->data;
}

static stoa_buf_t
buf(void)
{
    stoa_buf_t b;

    stoa_buf_init(&b, mem, 64, 1024 * 1024);
    return b;
}

/* ---- addresses ---- */

static void
test_addresses(void **state)
{
    size_t i;

    static const char *const good[] = {
        "a@b",
        "ann.o'neil+x@mail.example.org",
        "x_y-z@1.example",
        "!#$%&*/=?^`{|}~@b",
    };
    static const char *const bad[] = {
        "",
        "a",
        "@b",
        "a@",
        "a@@b",
        "a b@c",
        "a@b c",
        "a\r\nb@c",
        "-a@b",
        "<a@b>",
        "a@b,c@d",
        "\"a\"@b",
        "a@b\n",
        "\xc3\xa4@b",
        "a@.b",
        "a@b.",
        "a;b@c",
        "a@[127.0.0.1]",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@b",
    };

    for (i = 0; i < stoa_nitems(good); i++) {
        if (!worker_mime_address(stoa_str_z(good[i]))) {
            fail_msg("refused: %s", good[i]);
        }
    }
    for (i = 0; i < stoa_nitems(bad); i++) {
        if (worker_mime_address(stoa_str_z(bad[i]))) {
            fail_msg("taken: %s", bad[i]);
        }
    }
}

static void
test_who(void **state)
{
    worker_mime_who_t who;

    assert_true(worker_mime_who(stoa_str_z("Stoa <a@b>"), &who));
    assert_true(stoa_str_eq_z(who.name, "Stoa"));
    assert_true(stoa_str_eq_z(who.address, "a@b"));
    assert_true(worker_mime_who(stoa_str_z("\"Stoa, Inc.\"  <a@b>"), &who));
    assert_true(stoa_str_eq_z(who.name, "Stoa, Inc."));
    assert_true(worker_mime_who(stoa_str_z("a@b"), &who));
    assert_int_equal(who.name.len, 0);
    assert_false(worker_mime_who(stoa_str_z("Stoa <a@b"), &who));
    assert_false(worker_mime_who(stoa_str_z("Stoa"), &who));
    assert_false(worker_mime_who(stoa_str_z(""), &who));
}

/* ---- headers ---- */

/* Every line of a header within 78 characters, and no line of its own made
   out of a value. */
static void
check_lines(const char *s)
{
    const char *nl;

    for (; *s != '\0'; s = nl + 2) {
        nl = strstr(s, "\r\n");
        assert_non_null(nl);
        if (nl - s > 78) {
            fail_msg("%d characters: %.*s", (int) (nl - s), (int) (nl - s), s);
        }
    }
}

static void
test_header_injection(void **state)
{
    stoa_buf_t b = buf();

    worker_mime_header(&b, "Subject", stoa_str_z("a\r\nBcc: x@y\nz\x01\x7f"));
    assert_string_equal(text(&b), "Subject: a  Bcc: x@y z\r\n");

    b = buf();
    worker_mime_header(&b, "Subject", stoa_str_z("\xc3\xa4\r\nBcc: x@y"));
    assert_null(strstr(text(&b), "Bcc"));
    assert_non_null(strstr(text(&b), "=?UTF-8?B?w6QgIEJjYzogeEB5?="));
}

static void
test_header_fold(void **state)
{
    size_t     i, words;
    stoa_buf_t b = buf(), long_text = buf();

    for (i = 0; i < 60; i++) {
        stoa_buf_z(&long_text, "word ");
    }
    worker_mime_header(&b, "Subject", stoa_buf_view(&long_text));
    check_lines(text(&b));
    for (i = 0, words = 0; i + 4 <= b.len; i++) {
        words += memcmp(b.data + i, "word", 4) == 0;
    }
    assert_int_equal(words, 60);
    assert_non_null(strstr(text(&b), "word\r\n word"));
}

/* Encoded words hold at most 75 characters and whole characters. */
static void
test_header_words(void **state)
{
    int        n;
    char      *p, *q;
    size_t     i;
    stoa_buf_t b = buf(), long_text = buf();

    for (i = 0; i < 50; i++) {
        stoa_buf_z(&long_text, i % 3 ? "\xe2\x82\xac" : "\xf0\x9f\x8e\x9f");
    }
    worker_mime_header(&b, "Subject", stoa_buf_view(&long_text));
    check_lines(text(&b));

    n = 0;
    for (p = strstr(text(&b), "=?UTF-8?B?"); p != NULL;
         p = strstr(q, "=?UTF-8?B?")) {
        q = strstr(p + 10, "?=");
        assert_non_null(q);
        assert_true(q + 2 - p <= 75);
        /* a first byte that continues a character would be 10xxxxxx */
        assert_true(p[10] == '4' || p[10] == '8');
        n++;
    }
    assert_true(n > 2);

    b = buf();
    worker_mime_header(&b, "Subject", stoa_str_z("=?UTF-8?Q?trick?="));
    assert_non_null(strstr(text(&b), "=?UTF-8?B?"));
    assert_null(strstr(text(&b), "trick"));
}

static void
test_person(void **state)
{
    stoa_buf_t        b = buf();
    worker_mime_who_t who = { stoa_string("A \"B\" \\ C"), stoa_string("a@b") };

    worker_mime_person(&b, "To", &who);
    assert_string_equal(text(&b), "To: \"A \\\"B\\\" \\\\ C\"\r\n <a@b>\r\n");

    b = buf();
    who.name = stoa_str_z("\xc3\x84nne");
    worker_mime_person(&b, "To", &who);
    assert_string_equal(text(&b), "To:\r\n =?UTF-8?B?w4RubmU=?=\r\n <a@b>\r\n");
}

static void
test_date(void **state)
{
    stoa_buf_t b = buf();

    worker_mime_date(&b, 0);
    worker_mime_date(&b, INT64_C(951825600000));
    worker_mime_date(&b, INT64_C(1767225599999));
    assert_string_equal(text(&b), "Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n"
                                  "Date: Tue, 29 Feb 2000 12:00:00 +0000\r\n"
                                  "Date: Wed, 31 Dec 2025 23:59:59 +0000\r\n");
}

/* ---- bodies ---- */

static void
test_qp(void **state)
{
    size_t     i;
    stoa_buf_t b = buf(), x = buf();

    worker_mime_qp(&b, stoa_str_z("a=b \n\t\nend \t"));
    assert_string_equal(text(&b), "a=3Db=20\r\n=09\r\nend =09\r\n");

    b = buf();
    worker_mime_qp(&b, stoa_str_z("\xc3\xa4\r\n.\r\nx"));
    assert_string_equal(text(&b), "=C3=A4\r\n.\r\nx\r\n");

    b = buf();
    for (i = 0; i < 400; i++) {
        stoa_buf_char(&x, i % 7 ? 'x' : '=');
    }
    worker_mime_qp(&b, stoa_buf_view(&x));
    check_lines(text(&b));
    assert_null(strstr(text(&b), "==\r\n"));
}

static void
test_b64(void **state)
{
    stoa_buf_t b = buf();

    worker_mime_b64(&b, (const unsigned char *) "foobar", 6);
    stoa_buf_char(&b, ' ');
    worker_mime_b64(&b, (const unsigned char *) "fooba", 5);
    stoa_buf_char(&b, ' ');
    worker_mime_b64(&b, (const unsigned char *) "foob", 4);
    assert_string_equal(text(&b), "Zm9vYmFy Zm9vYmE= Zm9vYg==");
}

static size_t
count(const char *s, const char *part)
{
    size_t n;

    for (n = 0; (s = strstr(s, part)) != NULL; s++) {
        n++;
    }
    return n;
}

static void
test_shape(void **state)
{
    stoa_buf_t         b = buf();
    const char        *out;
    worker_mime_t      m;
    worker_mime_part_t part = { "image/png", "\xc3\xa4 x.png", "1@x",
                                stoa_string("png") };

    memset(&m, 0, sizeof(m));
    m.from.address = m.to.address = stoa_str_z("a@b");
    m.subject = stoa_str_z("s");
    m.text = stoa_str_z("t");
    m.message_id = "i@b";
    m.boundary = "B";

    assert_true(worker_mime_write(&b, &m));
    assert_null(strstr(text(&b), "multipart"));

    b = buf();
    m.html = stoa_str_z("<p>h");
    m.inlines = &part;
    m.ninlines = 1;
    m.attachments = &part;
    m.nattachments = 1;
    assert_true(worker_mime_write(&b, &m));
    out = text(&b);
    check_lines(out);
    assert_int_equal(count(out, "Content-Type: multipart/"), 3);
    assert_int_equal(count(out, "\r\n--=_B.0"), 3);
    assert_int_equal(count(out, "\r\n--=_B.1"), 3);
    assert_int_equal(count(out, "\r\n--=_B.2"), 3);
    assert_int_equal(count(out, "--\r\n"), 3);
    assert_non_null(strstr(out, "filename*=UTF-8''%C3%A4%20x.png"));
    assert_non_null(strstr(out, "Content-ID: <1@x>"));
}

/* ---- templates ---- */

static worker_templates_t *
load(void)
{
    char                why[512];
    worker_templates_t *t;

    t = worker_templates_load("conf/mail", why, sizeof(why));
    if (t == NULL) {
        fail_msg("%s", why);
    }
    return t;
}

static void
test_when(void **state)
{
    size_t              i;
    stoa_buf_t          b;
    worker_templates_t *t = load();

    static const struct {
        const char *lang, *local, *zone, *want;
    } rows[] = {
        { "en", "2026-05-01T19:00", "Europe/Prague",
          "Friday, 1 May 2026, 19:00 (Europe/Prague)" },
        { "de", "2024-02-29T00:05", "",
          "Donnerstag, 29. Februar 2024, 00:05 Uhr" },
        { "es", "2000-01-01T12:00:00", "",
          "s\xc3\xa1"
          "bado, 1 de enero de 2000, 12:00" },
        { "fr", "2026-12-31T23:59", "",
          "jeudi 31 d\xc3\xa9"
          "cembre 2026, "
          "23:59" },
        { "it", "2100-03-01T08:00", "",
          "luned\xc3\xac 1 marzo 2100, ore "
          "08:00" },
    };

    for (i = 0; i < stoa_nitems(rows); i++) {
        b = buf();
        assert_true(worker_template_when(t, rows[i].lang,
                                         stoa_str_z(rows[i].local),
                                         stoa_str_z(rows[i].zone), &b));
        assert_string_equal(text(&b), rows[i].want);
    }

    b = buf();
    assert_false(worker_template_when(t, "en", stoa_str_z("2026-13-01T00:00"),
                                      stoa_str_z(""), &b));
    assert_false(
        worker_template_when(t, "en", stoa_str_z("soon"), stoa_str_z(""), &b));
    worker_templates_destroy(t);
}

static void
test_money(void **state)
{
    size_t              i;
    stoa_buf_t          b;
    worker_templates_t *t = load();

    static const struct {
        const char *lang;
        int64_t     minor;
        const char *currency, *want;
    } rows[] = {
        { "en", 2500, "EUR",
          "25.00\xc2\xa0"
          "EUR" },
        { "en", 5, "usd",
          "0.05\xc2\xa0"
          "USD" },
        { "de", 123456789, "EUR",
          "1.234.567,89\xc2\xa0"
          "EUR" },
        { "en", 1234567, "JPY",
          "1,234,567\xc2\xa0"
          "JPY" },
        { "en", 12345, "KWD",
          "12.345\xc2\xa0"
          "KWD" },
        { "en", -100, "EUR",
          "-1.00\xc2\xa0"
          "EUR" },
        { "en", 0, "EUR",
          "0.00\xc2\xa0"
          "EUR" },
        { "en", 100000, "EUR",
          "1,000.00\xc2\xa0"
          "EUR" },
    };

    for (i = 0; i < stoa_nitems(rows); i++) {
        b = buf();
        worker_template_money(t, rows[i].lang, rows[i].minor,
                              stoa_str_z(rows[i].currency), &b);
        assert_string_equal(text(&b), rows[i].want);
    }
    worker_templates_destroy(t);
}

static void
test_lang(void **state)
{
    assert_string_equal(worker_template_lang(stoa_str_z("de-AT")), "de");
    assert_string_equal(worker_template_lang(stoa_str_z("ar")), "ar");
    assert_string_equal(worker_template_lang(stoa_str_z("dex")), "en");
    assert_string_equal(worker_template_lang(stoa_str_z("")), "en");
    assert_string_equal(worker_template_lang(stoa_str_z("cs")), "en");
    assert_true(worker_template_rtl("ar"));
    assert_false(worker_template_rtl("de"));
}

static void
test_fill(void **state)
{
    stoa_buf_t    b;
    const char   *bad;
    worker_var_t  vars[] = { { "a", stoa_string("<&\">") },
                             { "none", stoa_string("") } };
    worker_var_t  one[] = { { "x", stoa_string("1") } };
    worker_var_t  two[] = { { "x", stoa_string("2") } };
    worker_vars_t all, items[2];

    memset(&all, 0, sizeof(all));
    memset(items, 0, sizeof(items));
    all.vars = vars;
    all.nvars = 2;
    all.list = "list";
    all.items = items;
    all.nitems = 2;
    items[0].vars = one;
    items[1].vars = two;
    items[0].nvars = items[1].nvars = 1;
    items[0].outer = items[1].outer = &all;

    b = buf();
    assert_true(worker_template_fill(
        &b, WORKER_TEMPLATE_HTML,
        stoa_str_z("{{a}}{{#list}}[{{x}}{{#none}}no{{/none}}{{#a}}y{{/a}}]"
                   "{{/list}}{{none}}"),
        &all, &bad));
    assert_null(strpbrk(text(&b), "<\""));
    assert_non_null(strstr(text(&b), "[1y][2y]"));

    b = buf();
    assert_true(worker_template_fill(&b, WORKER_TEMPLATE_TEXT,
                                     stoa_str_z("{{a}} { }} {"), &all, &bad));
    assert_string_equal(text(&b), "<&\"> { }} {");

    b = buf();
    assert_false(worker_template_fill(&b, WORKER_TEMPLATE_TEXT,
                                      stoa_str_z("{{b}}"), &all, &bad));
    assert_false(worker_template_fill(&b, WORKER_TEMPLATE_TEXT,
                                      stoa_str_z("{{#a}}never"), &all, &bad));
    assert_false(worker_template_fill(&b, WORKER_TEMPLATE_TEXT,
                                      stoa_str_z("{{/a}}"), &all, &bad));
}

static void
write_file(const char *dir, const char *name, const char *content)
{
    char  path[512];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(content, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void
run(const char *cmd, const char *a, const char *b, const char *c)
{
    int   status;
    pid_t pid;

    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        execlp(cmd, cmd, a, b, c, (char *) NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* A broken template is told at load, with its name. */
static void
test_load_fails(void **state)
{
    char dir[] = "/tmp/stoa-mail-XXXXXX", why[512];

    assert_non_null(mkdtemp(dir));
    run("cp", "-r", "conf/mail/.", dir);

    write_file(dir, "fr/welcome.html", "<p>{{token}}</p>");
    assert_null(worker_templates_load(dir, why, sizeof(why)));
    assert_non_null(strstr(why, "fr/welcome"));
    assert_non_null(strstr(why, "token"));

    write_file(dir, "fr/welcome.html", "<p>\xff</p>");
    assert_null(worker_templates_load(dir, why, sizeof(why)));
    assert_non_null(strstr(why, "UTF-8"));

    write_file(dir, "fr/welcome.html", "<p></p>");
    write_file(dir, "it/welcome.txt", "No subject\n");
    assert_null(worker_templates_load(dir, why, sizeof(why)));
    assert_non_null(strstr(why, "it/welcome.txt"));

    write_file(dir, "it/welcome.txt", "Subject: x\n\ny\n");
    write_file(dir, "es/words", "months = x\n");
    assert_null(worker_templates_load(dir, why, sizeof(why)));
    assert_non_null(strstr(why, "es/words"));

    run("rm", "-r", "-f", dir);
    assert_null(worker_templates_load(dir, why, sizeof(why)));
    assert_non_null(strstr(why, "No such file"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_who),
        cmocka_unit_test(test_header_injection),
        cmocka_unit_test(test_header_fold),
        cmocka_unit_test(test_header_words),
        cmocka_unit_test(test_person),
        cmocka_unit_test(test_date),
        cmocka_unit_test(test_qp),
        cmocka_unit_test(test_b64),
        cmocka_unit_test(test_shape),
        cmocka_unit_test(test_when),
        cmocka_unit_test(test_money),
        cmocka_unit_test(test_lang),
        cmocka_unit_test(test_fill),
        cmocka_unit_test(test_load_fails),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
