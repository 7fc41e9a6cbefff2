/*
 * Issuers of others: which settings name them, which addresses are taken, and
 * what is believed of their documents.  Their tokens and keys are tried from
 * outside, in t/security/issuer.test.js.
 */

#include "unit_core.h"

#include "stoa_oidc.h"


static void
oidc_addresses(void **state)
{
    static const struct {
        const char *url;
        bool        good, plain;
    } rows[] = {
        { "https://a.example", true, true },
        { "https://a.example/", true, true },
        { "https://a.example:8443/x/y?z=1", true, true },
        { "https://[2001:db8::1]/x", true, true },
        { "https://a.example/@x", true, true },
        { "http://a.example", false, true },
        { "HTTPS://a.example", false, false },
        { "ftp://a.example", false, false },
        { "https:/a.example", false, false },
        { "https://", false, false },
        { "https:///x", false, false },
        { "https://:443", false, false },
        { "https://?x", false, false },
        { "https://u@a.example", false, false },
        { "https://u:p@a.example/x", false, false },
        { "https://a.example/x y", false, false },
        { "https://a.example/\r\nX: y", false, false },
        { "https://a.example/#x", false, false },
        { "https://a.example\\@b.example", false, false },
        { "https://a.example/\xc3\xa9", false, false },
        { "https://a.example/\x7f", false, false },
        { "https://a.example;aud=x", false, false },
        { "javascript:alert(1)", false, false },
        { "/x", false, false },
        { "", false, false },
    };
    char long_one[STOA_OIDC_URL + 2];

    (void) state;

    for (size_t i = 0; i < stoa_nitems(rows); i++) {
        if (stoa_oidc_url(rows[i].url, false) != rows[i].good
            || stoa_oidc_url(rows[i].url, true) != rows[i].plain)
        {
            fail_msg("%s", rows[i].url);
        }
    }

    memset(long_one, 'a', sizeof(long_one));
    memcpy(long_one, "https://", 8);
    long_one[STOA_OIDC_URL] = '\0';
    assert_true(stoa_oidc_url(long_one, false));
    long_one[STOA_OIDC_URL] = 'a';
    long_one[STOA_OIDC_URL + 1] = '\0';
    assert_false(stoa_oidc_url(long_one, false));
}


static void
oidc_document_address(void **state)
{
    static const char *rows[][2] = {
        { "https://a", "https://a/.well-known/openid-configuration" },
        { "https://a/", "https://a/.well-known/openid-configuration" },
        { "https://a/t", "https://a/t/.well-known/openid-configuration" },
        { "https://a/t/", "https://a/t/.well-known/openid-configuration" },
    };
    stoa_mem_t *mem = stoa_arena_create(4096, 1 << 20);
    stoa_buf_t  b;

    (void) state;

    for (size_t i = 0; i < stoa_nitems(rows); i++) {
        stoa_buf_init(&b, mem, 64, 1024);
        assert_true(stoa_oidc_doc_url(rows[i][0], &b));
        assert_string_equal((char *) b.data, rows[i][1]);
    }

    stoa_arena_destroy(mem);
}


static void
oidc_documents(void **state)
{
    static const char *bad[] = {
        "",
        "null",
        "[]",
        "{}",
        "{\"issuer\":\"https://i\"}",
        "{\"issuer\":\"https://i/\",\"jwks_uri\":\"https://i/k\"}",
        "{\"issuer\":[\"https://i\"],\"jwks_uri\":\"https://i/k\"}",
        "{\"issuer\":\"https://i\",\"jwks_uri\":\"http://i/k\"}",
        "{\"issuer\":\"https://i\",\"jwks_uri\":\"https://a@i/k\"}",
        "{\"issuer\":\"https://i\",\"jwks_uri\":\"https://i/k\\u0000x\"}",
        "{\"issuer\":\"https://i\",\"jwks_uri\":\"https://i/k\",\"issuer\":"
        "\"https://i\"}",
        "{\"issuer\":\"https://i\\u0000\",\"jwks_uri\":\"https://i/k\"}",
    };
    stoa_mem_t     *mem = stoa_arena_create(4096, 1 << 20);
    stoa_oidc_doc_t doc;
    const char     *why;

    (void) state;

    assert_true(stoa_oidc_doc(mem, "https://i", false,
                              L("{\"issuer\":\"https:\\/\\/i\",\"jwks_uri\":"
                                "\"https:\\/\\/i\\/k\",\"more\":[1]}"),
                              &doc, &why));
    assert_string_equal(doc.jwks_uri, "https://i/k");
    assert_true(stoa_oidc_doc(mem, "http://i", true,
                              L("{\"issuer\":\"http://i\",\"jwks_uri\":"
                                "\"http://i/k\"}"),
                              &doc, &why));

    for (size_t i = 0; i < stoa_nitems(bad); i++) {
        why = NULL;
        assert_false(
            stoa_oidc_doc(mem, "https://i", false, Z(bad[i]), &doc, &why));
        assert_non_null(why);
    }

    stoa_arena_destroy(mem);
}


static void
oidc_settings(void **state)
{
    stoa_mem_t             *mem = stoa_arena_create(4096, 1 << 20);
    stoa_conf_t             conf;
    const stoa_oidc_conf_t *c;
    const char             *why;

    (void) state;
    memset(&conf, 0, sizeof(conf));
    conf.jwt_audience = "stoa";
    conf.jwt_issuer = "https://own";
    conf.issuer_network = "public";

    conf.jwt_issuers = "";
    c = stoa_oidc_conf(&conf, mem, &why);
    assert_non_null(c);
    assert_int_equal(c->nissuers, 0);

    conf.jwt_issuers = "  https://a\n\thttps://b/t;aud=x;jwks=https://b/k "
                       "https://c;jwks=https://c/k?v=1 ";
    c = stoa_oidc_conf(&conf, mem, &why);
    assert_non_null(c);
    assert_int_equal(c->nissuers, 3);
    assert_string_equal(c->issuers[0].issuer, "https://a");
    assert_string_equal(c->issuers[0].audience, "stoa");
    assert_null(c->issuers[0].jwks_uri);
    assert_string_equal(c->issuers[1].issuer, "https://b/t");
    assert_string_equal(c->issuers[1].audience, "x");
    assert_string_equal(c->issuers[1].jwks_uri, "https://b/k");
    assert_string_equal(c->issuers[2].audience, "stoa");
    assert_string_equal(c->issuers[2].jwks_uri, "https://c/k?v=1");

    conf.jwt_issuers = "https://own";
    assert_null(stoa_oidc_conf(&conf, mem, &why));
    assert_non_null(strstr(why, "https://own"));

    stoa_arena_destroy(mem);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(oidc_addresses),
        cmocka_unit_test(oidc_document_address),
        cmocka_unit_test(oidc_documents),
        cmocka_unit_test(oidc_settings),
    };

    return cmocka_run_group_tests_name("oidc", tests, NULL, NULL);
}
