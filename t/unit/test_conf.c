/*
 * Settings: the order of their sources, each kind's bounds, sentences that
 * name file, line and the nearest key, and what is refused together.
 */

#include "unit_core.h"

#include "stoa_buf.h"
#include "stoa_conf.h"

#include <unistd.h>

static stoa_mem_t *mem;
static char        folder[64];
static const char *why;

#define SECRET "0123456789abcdef0123456789abcdef"


static int
conf_setup(void **state)
{
    size_t i;

    for (i = 0; i < stoa_conf_nrows; i++) {
        unsetenv(stoa_conf_rows[i].key);

        if (stoa_conf_rows[i].alias != NULL) {
            unsetenv(stoa_conf_rows[i].alias);
        }
    }

    mem = stoa_arena_create(65536, 1 << 28);
    (void) snprintf(folder, sizeof(folder), "/tmp/stoa-unit-conf-XXXXXX");

    return mem == NULL || mkdtemp(folder) == NULL;
}


static int
conf_teardown(void **state)
{
    char command[128];

    stoa_arena_destroy(mem);
    (void) snprintf(command, sizeof(command), "%s/a.conf", folder);
    (void) unlink(command);
    (void) snprintf(command, sizeof(command), "%s/secret", folder);
    (void) unlink(command);

    return rmdir(folder);
}


static const char *
conf_write(const char *name, const char *text)
{
    static char path[128];
    FILE       *f;

    (void) snprintf(path, sizeof(path), "%s/%s", folder, name);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);

    return path;
}


static bool
conf_load(const char *text, stoa_conf_t *conf)
{
    why = NULL;

    return stoa_conf_load(conf, conf_write("a.conf", text), mem, &why);
}


static void
conf_refused(const char *text, const char *part)
{
    stoa_conf_t conf;

    if (conf_load(text, &conf)) {
        fail_msg("accepted: %s", text);
    }

    assert_non_null(why);

    if (strstr(why, part) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", why, part);
    }
}


static void
conf_defaults(void **state)
{
    stoa_conf_t conf;
    char        text[256];
    size_t      i;

    if (!stoa_conf_load(&conf, NULL, mem, &why)) {
        fail_msg("%s", why);
    }

    assert_string_equal(conf.environment, "development");
    assert_int_equal(conf.db_port, 5432);
    assert_int_equal(conf.access_ttl, 900);
    assert_true(conf.refresh_rotate);
    assert_string_equal(conf.jwt_secret, "");

    for (i = 0; i < stoa_conf_nrows; i++) {
        stoa_conf_text(&conf, &stoa_conf_rows[i], text, sizeof(text));

        if (strcmp(stoa_conf_rows[i].key, "ACCESS_TTL") == 0) {
            assert_string_equal(text, "900");
        }

        if (strcmp(stoa_conf_rows[i].key, "REFRESH_ROTATE") == 0) {
            assert_string_equal(text, "on");
        }
    }
}


static void
conf_file(void **state)
{
    stoa_conf_t conf;

    if (!conf_load("# comment\n\n  DB_PORT = 6000 \r\nDB_NAME=\"a b\"\n"
                   "ACCESS_TTL=2h\nREFRESH_ROTATE=off\nNODE_ENV=staging\n"
                   "MAIL_FROM=A=B <a@b.example>\nREDIS_PASSWORD=\n"
                   "JWT_SECRET='" SECRET "'",
                   &conf))
    {
        fail_msg("%s", why);
    }

    assert_int_equal(conf.db_port, 6000);
    assert_string_equal(conf.db_name, "a b");
    assert_int_equal(conf.access_ttl, 7200);
    assert_false(conf.refresh_rotate);
    assert_string_equal(conf.environment, "staging");
    assert_string_equal(conf.mail_from, "A=B <a@b.example>");
    assert_string_equal(conf.jwt_secret, SECRET);
}


static void
conf_order(void **state)
{
    stoa_conf_t conf;
    char        path[128];

    setenv("DB_PORT", "7000", 1);
    setenv("PGDATABASE", "elsewhere", 1);
    setenv("SMTP_FROM", "Env <e@b.example>", 1);
    assert_true(conf_load("DB_PORT=6000\nDB_NAME=ours\n", &conf));
    assert_int_equal(conf.db_port, 7000);
    assert_string_equal(conf.db_name, "ours"); /* not another program's */
    assert_string_equal(conf.mail_from, "Env <e@b.example>");
    unsetenv("DB_PORT");
    unsetenv("PGDATABASE");
    unsetenv("SMTP_FROM");

    /* KEY_FILE: beside the file, or by the environment */
    (void) conf_write("secret", SECRET "\n");
    assert_true(conf_load("JWT_SECRET_FILE=secret\n", &conf));
    assert_string_equal(conf.jwt_secret, SECRET);
    (void) snprintf(path, sizeof(path), "%s/secret", folder);
    setenv("JWT_SECRET_FILE", path, 1);
    assert_true(conf_load("JWT_SECRET=" SECRET "ffff\n", &conf));
    assert_string_equal(conf.jwt_secret, SECRET);
    unsetenv("JWT_SECRET_FILE");
    conf_refused("JWT_SECRET_FILE=nowhere\n", "nowhere");
    conf_refused("JWT_SECRET_FILE=secret\nJWT_SECRET=x\n", "line 1");
}


static void
conf_sentences(void **state)
{
    stoa_conf_t conf;

    conf_refused("DB_PORT=1\nDB_HOTS=/x\n", "a.conf:2: \"DB_HOTS\" is no "
                                            "setting; did you mean "
                                            "\"DB_HOST\"?");
    conf_refused("nonsense\n", "a.conf:1: a line is KEY=value");
    conf_refused("DB_PORT=0\n", "a.conf:1: DB_PORT must be a number from 1");
    conf_refused("DB_PORT=65536\n", "65535");
    conf_refused("DB_PORT=x\n", "DB_PORT");
    conf_refused("ACCESS_TTL=59\n", "ACCESS_TTL");
    conf_refused("ACCESS_TTL=15x\n", "ACCESS_TTL");
    conf_refused("ACCESS_TTL=\n", "ACCESS_TTL");
    conf_refused("REFRESH_ROTATE=maybe\n", "on or off");
    conf_refused("ENVIRONMENT=prod\n", "development|staging|production");
    conf_refused("DB_SSLMODE=foo\n", "disable|allow|prefer|require");
    conf_refused("DB_NAME=\n", "1 to 63 characters");
    conf_refused("DB_NAME=a\nDB_NAME=b\n", "already in line 1");

    setenv("DB_PORT", "x", 1);
    assert_false(stoa_conf_load(&conf, NULL, mem, &why));
    assert_non_null(strstr(why, "environment: DB_PORT"));
    unsetenv("DB_PORT");

    assert_false(stoa_conf_load(&conf, "/nowhere/a.conf", mem, &why));
    assert_non_null(strstr(why, "/nowhere/a.conf"));
}


static void
conf_collect(void *data, const char *sentence)
{
    stoa_buf_t *b = data;

    stoa_buf_z(b, sentence);
    stoa_buf_char(b, '\n');
}


/* Every mistake once, none about what another mistake left at its default. */
static void
conf_all(void **state)
{
    stoa_conf_t conf;
    stoa_buf_t  b;

    stoa_buf_init(&b, mem, 256, 8192);
    assert_false(
        stoa_conf_load_all(&conf,
                           conf_write("a.conf", "DB_PORT=0\nnonsense\n"
                                                "ENVIRONMENT=production\n"
                                                "PAYMENT_PROVIDER=x\n"
                                                "JWT_SECRET_FILE=no\n"
                                                "TICKET_SEED=abc\n"),
                           mem, conf_collect, &b));
    stoa_buf_nul(&b);
    assert_non_null(strstr((char *) b.data, "a.conf:2: a line is"));
    assert_non_null(strstr((char *) b.data, "a.conf:1: DB_PORT must be"));
    assert_non_null(strstr((char *) b.data, "a.conf:4: PAYMENT_PROVIDER"));
    assert_non_null(strstr((char *) b.data, "JWT_SECRET: \""));
    assert_non_null(strstr((char *) b.data, "TICKET_SEED must be"));
    assert_null(strstr((char *) b.data, "refused"));
    assert_null(strstr((char *) b.data, "production needs"));
    assert_int_equal(conf.db_port, 5432);

    stoa_buf_init(&b, mem, 256, 8192);
    assert_true(stoa_conf_load_all(&conf, conf_write("a.conf", "DB_PORT=1\n"),
                                   mem, conf_collect, &b));
    assert_int_equal(b.len, 0);
    assert_int_equal(conf.db_port, 1);
}


static void
conf_together(void **state)
{
    stoa_conf_t conf;

    conf_refused("DB_HOST=localhost\n", "DB_HOST");
    conf_refused("REDIS_HOST=redis.example\n", "REDIS_HOST");
    conf_refused("REDIS_HOST=rediss://10.0.0.1\n", "stunnel");
    conf_refused("PUBLIC_URL=http://a.example/\n", "PUBLIC_URL");
    conf_refused("PUBLIC_URL=a.example\n", "PUBLIC_URL");
    conf_refused("EDGE_URL=ftp://a.example\n", "EDGE_URL");
    conf_refused("REDIS_PREFIX=a{b}\n", "REDIS_PREFIX");
    conf_refused("JWT_SECRET=0123456789abcdef0123456789abcde\n",
                 "shorter than 32");
    conf_refused("TEST_WEBHOOK_SECRET=short\n", "shorter than 32");
    conf_refused("TICKET_SEED=abc\n", "TICKET_SEED");
    conf_refused("SMTP_HOST=mail.example\nSMTP_TLS=off\n", "SMTP_TLS");
    conf_refused("STRIPE_SECRET_KEY=sk_live_x\n", "live Stripe key");
    conf_refused("STRIPE_PUBLISHABLE_KEY=pk_live_x\n", "live Stripe key");
    conf_refused("PAYMENT_PROVIDER=stripe\n", "STRIPE_SECRET_KEY");
    conf_refused("ENVIRONMENT=production\nJWT_SECRET=" SECRET
                 "\nTICKET_SEED=" SECRET SECRET "\n",
                 "\"test\" is refused");
    conf_refused("ENVIRONMENT=production\nPAYMENT_PROVIDER=stripe\n"
                 "STRIPE_SECRET_KEY=sk_live_x\nSTRIPE_WEBHOOK_SECRET=whsec_x\n",
                 "needs JWT_SECRET");

    assert_true(conf_load("ENVIRONMENT=production\nPAYMENT_PROVIDER=stripe\n"
                          "STRIPE_SECRET_KEY=sk_live_x\n"
                          "STRIPE_WEBHOOK_SECRET=whsec_x\nJWT_SECRET=" SECRET
                          "\nTICKET_SEED=" SECRET SECRET
                          "\nDB_HOST=::1\nREDIS_HOST=/run/redis.sock\n",
                          &conf));
    assert_true(conf_load("SMTP_HOST=127.0.0.1\nSMTP_TLS=off\n", &conf));
}


static void
conf_conninfo(void **state)
{
    stoa_conf_t conf;
    const char *info;

    assert_true(conf_load("DB_HOST=10.0.0.1\nDB_USER=e\nDB_PASSWORD=it's\\x\n"
                          "DB_WORKER_USER=w\nDB_OWNER_USER=o\n",
                          &conf));
    info = stoa_conf_conninfo(&conf, "edge", mem);
    assert_non_null(strstr(info, "hostaddr='10.0.0.1'"));
    assert_non_null(strstr(info, "user='e'"));
    assert_non_null(strstr(info, "password='it\\'s\\\\x'"));
    info = stoa_conf_conninfo(&conf, "worker", mem);
    assert_non_null(strstr(info, "user='w'"));
    assert_null(strstr(info, "password"));
    info = stoa_conf_conninfo(&conf, "owner", mem);
    assert_non_null(strstr(info, "user='o'"));

    assert_true(conf_load("DB_HOST=/run/pg\n", &conf));
    info = stoa_conf_conninfo(&conf, "edge", mem);
    assert_non_null(strstr(info, "host='/run/pg'"));
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conf_defaults), cmocka_unit_test(conf_file),
        cmocka_unit_test(conf_order),    cmocka_unit_test(conf_sentences),
        cmocka_unit_test(conf_together), cmocka_unit_test(conf_all),
        cmocka_unit_test(conf_conninfo),
    };

    return cmocka_run_group_tests_name("conf", tests, conf_setup,
                                       conf_teardown);
}
