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
        { "https://a+b.example?@c.example", false, false },
        { "https://a,b.example/", false, false },
        { "https://a%2eexample/", false, false },
        { "https://a_b.example/", true, true },
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
    conf.google_client_id = "";
    conf.oidc_providers = "";
    conf.oidc_next_paths = "/";

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


/* ---- providers ---- */

static void
oidc_providers(void **state)
{
    stoa_mem_t                 *mem = stoa_arena_create(4096, 1 << 20);
    stoa_conf_t                 conf;
    const stoa_oidc_conf_t     *c;
    const stoa_oidc_provider_t *p;
    const char                 *why;

    (void) state;
    memset(&conf, 0, sizeof(conf));
    conf.jwt_audience = "stoa";
    conf.jwt_issuer = "stoa";
    conf.issuer_network = "public";
    conf.jwt_issuers = "https://a;jwks=https://a/k";
    conf.google_client_id = "web";
    conf.google_client_secret = "";
    conf.oidc_next_paths = "/events/ /account/";
    conf.oidc_providers =
        "[{\"name\":\"a-1\",\"issuer\":\"https://a\",\"client_id\":\"c\","
        "\"clientSecret\":\"s\\u0022\",\"clientAuth\":\"post\","
        "\"audiences\":[\"d\",\"e\"]}]";

    c = stoa_oidc_conf(&conf, mem, &why);
    assert_non_null(c);
    assert_int_equal(c->nproviders, 2);
    assert_int_equal(c->nissuers, 2);

    p = stoa_oidc_provider(c, L("google"));
    assert_non_null(p);
    assert_string_equal(p->issuer, "https://accounts.google.com");
    assert_string_equal(p->title, "Google");
    assert_null(p->client_secret);
    assert_string_equal(p->audiences[0], "web");

    p = stoa_oidc_provider(c, L("a-1"));
    assert_non_null(p);
    assert_string_equal(p->client_secret, "s\"");
    assert_int_equal(p->auth, STOA_OIDC_AUTH_POST);
    assert_int_equal(p->naudiences, 3);
    assert_string_equal(p->audiences[2], "e");

    /* its document is fetched, whatever else is said of its keys */
    assert_null(c->issuers[0].jwks_uri);
    assert_string_equal(c->issuers[0].audience, "stoa");
    assert_null(c->issuers[1].audience);
    assert_null(stoa_oidc_provider(c, L("a-")));

    conf.oidc_next_paths = "/events";
    assert_null(stoa_oidc_conf(&conf, mem, &why));

    stoa_arena_destroy(mem);
}


/* ---- flows ---- */

static void
oidc_flow_is_sealed(void **state)
{
    stoa_mem_t      *mem = stoa_arena_create(4096, 1 << 22);
    stoa_oidc_flow_t flow, out;
    stoa_buf_t       b;
    stoa_str_t       value;
    char             long_text[STOA_OIDC_NEXT + 2];

    (void) state;
    memset(&flow, 0, sizeof(flow));
    memset(flow.state, 7, sizeof(flow.state));
    memset(flow.user.b, 8, 16);
    memset(flow.session.b, 9, 16);
    flow.until = 1800000600;
    flow.remember = true;
    flow.provider = L("google");
    flow.next = L("/events/?a=b");

    stoa_buf_init(&b, mem, 64, STOA_OIDC_COOKIE_MAX);
    assert_true(stoa_oidc_flow_seal(L("key"), &flow, &b));
    value = stoa_buf_view(&b);

    assert_true(stoa_oidc_flow_open(L("key"), value, 1800000599, mem, &out));
    assert_memory_equal(out.state, flow.state, sizeof(flow.state));
    assert_memory_equal(&out.user, &flow.user, 16);
    assert_memory_equal(&out.session, &flow.session, 16);
    assert_int_equal(out.until, flow.until);
    assert_true(out.remember);
    assert_false(out.link);
    assert_true(stoa_str_eq(out.provider, flow.provider));
    assert_true(stoa_str_eq(out.next, flow.next));

    assert_false(stoa_oidc_flow_open(L("key"), value, 1800000600, mem, &out));
    assert_false(stoa_oidc_flow_open(L("kez"), value, 1800000599, mem, &out));

    for (size_t i = 0; i < value.len; i++) {
        unsigned char was = value.data[i];

        value.data[i] = was == 'A' ? 'B' : 'A';
        assert_false(stoa_oidc_flow_open(L("key"), value, 0, mem, &out));
        value.data[i] = was;
    }

    for (size_t len = 0; len < value.len; len++) {
        stoa_str_t part = { len, value.data };

        assert_false(stoa_oidc_flow_open(L("key"), part, 0, mem, &out));
    }

    /* what has room, and what has none */
    memset(long_text, 'x', sizeof(long_text));
    flow.next.data = (unsigned char *) long_text;
    flow.next.len = STOA_OIDC_NEXT;
    flow.link = true;
    stoa_buf_init(&b, mem, 64, STOA_OIDC_COOKIE_MAX);
    assert_true(stoa_oidc_flow_seal(L("key"), &flow, &b));
    assert_true(stoa_oidc_flow_open(L("key"), stoa_buf_view(&b), 0, mem, &out));
    assert_true(out.link);
    assert_int_equal(out.next.len, STOA_OIDC_NEXT);
    flow.next.len++;
    assert_false(stoa_oidc_flow_seal(L("key"), &flow, &b));

    stoa_arena_destroy(mem);
}


static void
oidc_pages_of_ours(void **state)
{
    static const char *good[] = {
        "/events/",
        "/events/x/y",
        "/account/?a=b&c=%2f..",
        "/events/a%20b",
        "/events/?u=https://x/../",
        "/events/a.b",
        "/events/~a",
    };
    static const char *bad[] = {
        "",
        "/",
        "/events",
        "/eventsx/",
        "events/",
        "//events/",
        "/\\events/",
        "/events//x",
        "/events/../x",
        "/events/./x",
        "/events/..",
        "/events/.x",
        "/events/%2e%2e/",
        "/events/%2E%2e/",
        "/events/%2fx",
        "/events/%5cx",
        "/events/%252e",
        "/events/%00",
        "/events/#x",
        "/events/ x",
        "/events/\tx",
        "/events/\r\n",
        "/events/<",
        "/events/\"",
        "/events/\xc3\xa9",
        "https://events/",
        "/other/",
    };

    (void) state;

    for (size_t i = 0; i < stoa_nitems(good); i++) {
        if (!stoa_oidc_next(" /events/  /account/ ", Z(good[i]))) {
            fail_msg("%s", good[i]);
        }
    }

    for (size_t i = 0; i < stoa_nitems(bad); i++) {
        if (stoa_oidc_next("/events/ /account/", Z(bad[i]))) {
            fail_msg("%s", bad[i]);
        }
    }

    assert_false(stoa_oidc_next("", L("/events/")));
}


static void
oidc_exchange(void **state)
{
    stoa_mem_t          *mem = stoa_arena_create(4096, 1 << 20);
    stoa_oidc_provider_t p;
    stoa_oidc_flow_t     flow;
    stoa_oidc_doc_t      doc;
    stoa_buf_t           body, header, url;

    (void) state;
    memset(&p, 0, sizeof(p));
    memset(&flow, 0, sizeof(flow));
    memset(&doc, 0, sizeof(doc));
    p.audiences[0] = "a:b";
    p.client_secret = "s &/+";
    p.scope = "openid";
    doc.basic = true;
    doc.post = true;

    /* RFC 6749 2.3.1: encoded, then base64 of "a%3Ab:s%20%26%2F%2B" */
    stoa_buf_init(&body, mem, 64, 1024);
    stoa_buf_init(&header, mem, 64, 1024);
    assert_true(stoa_oidc_exchange(L("k"), &flow, &p, &doc, L("c/1"),
                                   "https://u/cb", &body, &header));
    assert_string_equal((char *) header.data, "Authorization: Basic "
                                              "YSUzQWI6cyUyMCUyNiUyRiUyQg==");
    stoa_buf_nul(&body);
    assert_non_null(strstr((char *) body.data,
                           "grant_type=authorization_code&code=c%2F1&"
                           "redirect_uri=https%3A%2F%2Fu%2Fcb&"
                           "code_verifier="));
    assert_null(strstr((char *) body.data, "client_"));

    doc.basic = false;
    stoa_buf_init(&body, mem, 64, 1024);
    stoa_buf_init(&header, mem, 64, 1024);
    assert_true(stoa_oidc_exchange(L("k"), &flow, &p, &doc, L("c"), "u", &body,
                                   &header));
    stoa_buf_nul(&body);
    assert_int_equal(header.len, 0);
    assert_non_null(strstr((char *) body.data,
                           "&client_id=a%3Ab&client_secret=s%20%26%2F%2B"));

    p.client_secret = NULL;
    stoa_buf_init(&body, mem, 64, 1024);
    assert_true(stoa_oidc_exchange(L("k"), &flow, &p, &doc, L("c"), "u", &body,
                                   &header));
    stoa_buf_nul(&body);
    assert_null(strstr((char *) body.data, "client_secret"));
    assert_non_null(strstr((char *) body.data, "&client_id=a%3Ab"));

    stoa_buf_init(&url, mem, 64, 4096);
    assert_true(stoa_oidc_authorize(L("k"), &flow, &p, "https://i/auth?p=1",
                                    "https://u/cb", &url));
    stoa_buf_nul(&url);
    assert_non_null(strstr((char *) url.data,
                           "https://i/auth?p=1&response_type=code&client_id="
                           "a%3Ab&redirect_uri=https%3A%2F%2Fu%2Fcb&scope="
                           "openid&state=AAAAAAAAAAAAAAAAAAAAAA&nonce="));
    assert_non_null(strstr((char *) url.data, "&code_challenge_method=S256"));

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
        cmocka_unit_test(oidc_providers),
        cmocka_unit_test(oidc_flow_is_sealed),
        cmocka_unit_test(oidc_pages_of_ours),
        cmocka_unit_test(oidc_exchange),
    };

    return cmocka_run_group_tests_name("oidc", tests, NULL, NULL);
}
