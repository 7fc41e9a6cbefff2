/*
 * The router on rows of its own: order of literal and parameter, suffixes,
 * what is no match, clashes, aliases; then random rows against a matcher that
 * looks at each row in turn.
 */

#include "unit_core.h"

#include "stoa_route.h"

static stoa_mem_t *mem;

/* clang-format off */
#define ROW(name, m, p)                                                       \
    {                                                                         \
        .id = name, .method = m, .path = p                                    \
    }
/* clang-format on */

static const stoa_endpoint_t rows[] = {
    ROW("list", STOA_GET, "/v1/orders"),
    ROW("create", STOA_POST, "/v1/orders"),
    ROW("validate", STOA_POST, "/v1/orders/validate"),
    ROW("get", STOA_GET, "/v1/orders/:id"),
    ROW("cancel", STOA_POST, "/v1/orders/:order_id/cancel"),
    ROW("deep", STOA_GET, "/v1/orders/:id/items/:item_id"),
    ROW("me", STOA_GET, "/v1/users/me"),
    ROW("user_orders", STOA_GET, "/v1/users/:id/orders"),
    ROW("svg", STOA_GET, "/v1/tickets/:id.svg"),
    ROW("ticket", STOA_GET, "/v1/tickets/:id"),
};

static const stoa_alias_t aliases[] = {
    { STOA_GET, "/orders/:id", "get" },
};


static int
route_setup(void **state)
{
    mem = stoa_arena_create(65536, 1 << 26);
    return mem == NULL;
}


static int
route_teardown(void **state)
{
    stoa_arena_destroy(mem);
    return 0;
}


static const stoa_api_t *
route_api(const stoa_endpoint_t *first, size_t n)
{
    const stoa_endpoint_t **list = stoa_calloc(mem, n * sizeof(*list));
    stoa_api_t             *api = stoa_calloc(mem, sizeof(stoa_api_t));
    size_t                  i;

    for (i = 0; i < n; i++) {
        list[i] = &first[i];
    }

    api->rows = list;
    api->nrows = n;

    return api;
}


static stoa_route_t *
route_make(void)
{
    stoa_api_t   *api = (stoa_api_t *) (uintptr_t) route_api(rows,
                                                             stoa_nitems(rows));
    stoa_route_t *route;
    const char   *why = "";

    api->aliases = aliases;
    api->naliases = 1;
    route = stoa_route_create(mem, api, &why);

    if (route == NULL) {
        fail_msg("%s", why);
    }

    return route;
}


static void
route_match(void **state)
{
    static const struct {
        const char   *uri;
        stoa_method_e method;
        const char   *id; /* NULL: no row for this method */
        const char   *params[2];
    } cases[] = {
        { "/v1/orders", STOA_GET, "list", { NULL } },
        { "/v1/orders", STOA_POST, "create", { NULL } },
        { "/v1/orders", STOA_PUT, NULL, { NULL } },
        { "/v1/orders/validate", STOA_POST, "validate", { NULL } },
        { "/v1/orders/validate", STOA_GET, NULL, { NULL } },
        { "/v1/orders/validat", STOA_GET, "get", { "validat" } },
        { "/v1/orders/x y/cancel", STOA_POST, "cancel", { "x y" } },
        { "/v1/orders/validate/cancel", STOA_POST, "cancel", { "validate" } },
        { "/v1/orders/a/items/b", STOA_GET, "deep", { "a", "b" } },
        { "/v1/users/me", STOA_GET, "me", { NULL } },
        { "/v1/users/me/orders", STOA_GET, "user_orders", { "me" } },
        { "/v1/tickets/7.svg", STOA_GET, "svg", { "7" } },
        { "/v1/tickets/7", STOA_GET, "ticket", { "7" } },
        { "/v1/tickets/.svg", STOA_GET, "ticket", { ".svg" } },
        { "/v1/tickets/7.png", STOA_GET, "ticket", { "7.png" } },
        { "/orders/7", STOA_GET, "get", { "7" } },
    };
    stoa_route_t *route = route_make();
    stoa_match_t  m;
    size_t        i, j;

    for (i = 0; i < stoa_nitems(cases); i++) {
        if (!stoa_route_match(route, Z(cases[i].uri), &m)) {
            fail_msg("%s: no match", cases[i].uri);
        }

        assert_int_equal((m.methods >> cases[i].method & 1) != 0,
                         cases[i].id != NULL);

        if (cases[i].id == NULL) {
            assert_null(m.rows[cases[i].method]);
            continue;
        }

        if (strcmp(m.rows[cases[i].method]->id, cases[i].id) != 0) {
            fail_msg("%s: %s", cases[i].uri, m.rows[cases[i].method]->id);
        }

        for (j = 0; j < 2 && cases[i].params[j] != NULL; j++) {
            assert_true(stoa_str_eq_z(m.params[j], cases[i].params[j]));
        }

        assert_int_equal(m.nparams, j);
        assert_int_equal(m.alias != NULL,
                         strncmp(cases[i].uri, "/orders", 7) == 0);
    }
}


static void
route_no_match(void **state)
{
    static const char *const uris[] = {
        "",
        "/",
        "v1/orders",
        "/v1/orders/",
        "/v1//orders",
        "//v1/orders",
        "/v1",
        "/V1/orders",
        "/v1/orders/a/",
        "/v1/orders//cancel",
        "/v1/users/",
        "/v1/users/you",
        "/v1/orders/a/b",
        "/v1/orders/a/items",
        "/v1/orders/a/items/b/c",
        "/v1/ordersx",
        "/v1/order",
        "/v1/tickets/",
    };
    stoa_route_t *route = route_make();
    stoa_match_t  m;
    size_t        i;

    for (i = 0; i < stoa_nitems(uris); i++) {
        if (stoa_route_match(route, Z(uris[i]), &m)) {
            fail_msg("%s matched", uris[i]);
        }
    }

    assert_false(stoa_route_match(route, (stoa_str_t) stoa_null_string, &m));
}


static void
route_clash(void **state)
{
    static const stoa_endpoint_t two[] = {
        ROW("first", STOA_GET, "/a/:x/b"),
        ROW("second", STOA_GET, "/a/:y/b"),
    };
    const char *why = NULL;

    assert_null(stoa_route_create(mem, route_api(two, 2), &why));
    assert_non_null(strstr(why, "\"first\" (/a/:x/b)"));
    assert_non_null(strstr(why, "\"second\" (/a/:y/b)"));
    assert_non_null(strstr(why, "GET"));
}


/* ---- random rows ---- */

/* Does the row take the request, by looking at both texts? */
static bool
route_takes(const char *path, const char *uri)
{
    size_t n;

    while (*path != '\0') {
        if (*path != ':') {
            if (*path++ != *uri++) {
                return false;
            }

            continue;
        }

        path += strcspn(path, "/");
        n = strcspn(uri, "/");

        if (n == 0) {
            return false;
        }

        uri += n;
    }

    return *uri == '\0';
}


/* Literals count more, the earlier the more. */
static uint32_t
route_rank(const char *path)
{
    uint32_t rank = 0, bit = 1U << 20;

    for (/* void */; *path != '\0'; path++) {
        if (*path == '/') {
            rank |= path[1] != ':' ? bit : 0;
            bit >>= 1;
        }
    }

    return rank;
}


static char *
route_random(uint32_t *seed, bool params)
{
    static const char *const words[] = { "a", "b", "ab", ":p", ":q" };
    stoa_buf_t               b;
    uint32_t                 n = 1 + unit_number(seed) % 4;

    stoa_buf_init(&b, mem, 32, 256);

    while (n-- > 0) {
        stoa_buf_char(&b, '/');
        stoa_buf_z(&b, words[unit_number(seed) % (params ? 5 : 3)]);
    }

    stoa_buf_nul(&b);
    assert_false(b.failed);

    return (char *) b.data;
}


static void
route_random_rows(void **state)
{
    stoa_endpoint_t        table[12];
    const stoa_endpoint_t *best;
    stoa_route_t          *route;
    stoa_match_t           m;
    const char            *why, *uri;
    uint32_t               seed = 7;
    size_t                 round, i, n, clashes = 0, hits = 0;
    bool                   got;

    for (round = 0; round < 400; round++) {
        memset(table, 0, sizeof(table));
        n = 1 + unit_number(&seed) % 12;

        for (i = 0; i < n; i++) {
            table[i].id = "row";
            table[i].method = STOA_GET;
            table[i].path = route_random(&seed, true);
        }

        route = stoa_route_create(mem, route_api(table, n), &why);

        if (route == NULL) {
            clashes++;
            continue;
        }

        for (i = 0; i < 40; i++) {
            uri = route_random(&seed, false);
            best = NULL;

            for (size_t k = 0; k < n; k++) {
                if (route_takes(table[k].path, uri)
                    && (best == NULL
                        || route_rank(table[k].path) > route_rank(best->path)))
                {
                    best = &table[k];
                }
            }

            got = stoa_route_match(route, Z(uri), &m);
            assert_int_equal(got, best != NULL);

            if (got) {
                assert_ptr_equal(m.rows[STOA_GET], best);
                hits++;
            }
        }
    }

    assert_true(clashes > 20 && clashes < 380);
    assert_true(hits > 500);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(route_match),
        cmocka_unit_test(route_no_match),
        cmocka_unit_test(route_clash),
        cmocka_unit_test(route_random_rows),
    };

    return cmocka_run_group_tests_name("route", tests, route_setup,
                                       route_teardown);
}
