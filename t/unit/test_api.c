/*
 * The rows that the server runs on are whole, compile and make a document;
 * and a row with a hole in each column that decides something is refused.
 */

#include "unit_core.h"

#include "stoa_bind.h"
#include "stoa_json.h"
#include "stoa_route.h"

static stoa_mem_t *mem;


static int
api_setup(void **state)
{
    mem = stoa_arena_create(65536, 1 << 27);
    return mem == NULL;
}


static int
api_teardown(void **state)
{
    stoa_arena_destroy(mem);
    return 0;
}


/* ---- the real rows ---- */

static void
api_real(void **state)
{
    const stoa_api_t *api = stoa_api(mem);
    stoa_bound_row_t  bound;
    const char       *why = "";
    size_t            i;

    assert_non_null(api);
    assert_true(api->nrows > 30);
    assert_null(api->rows[api->nrows]);

    if (!stoa_api_check(api, mem, &why)
        || stoa_route_create(mem, api, &why) == NULL)
    {
        fail_msg("%s", why);
    }

    for (i = 0; i < api->nrows; i++) {
        if (!stoa_bind_row(mem, api->rows[i], &bound, &why)) {
            fail_msg("%s", why);
        }
    }
}


/* Each path of a row or alias leads to that row. */
static void
api_paths(void **state)
{
    const stoa_api_t *api = stoa_api(mem);
    const char       *why = "", *p, *path;
    stoa_route_t     *route = stoa_route_create(mem, api, &why);
    stoa_match_t      m;
    stoa_buf_t        b;
    size_t            i;

    assert_non_null(route);

    for (i = 0; i < api->nrows + api->naliases; i++) {
        path = i < api->nrows ? api->rows[i]->path
                              : api->aliases[i - api->nrows].path;
        stoa_buf_init(&b, mem, 128, 512);

        for (p = path; *p != '\0'; p++) {
            if (*p == ':') {
                stoa_buf_z(&b, "0198c0de");
                p += strcspn(p, "/.") - 1;
                continue;
            }

            stoa_buf_char(&b, *p);
        }

        if (!stoa_route_match(route, stoa_buf_view(&b), &m)) {
            fail_msg("%s leads nowhere", path);
        }

        if (i < api->nrows) {
            assert_ptr_equal(m.rows[api->rows[i]->method], api->rows[i]);

        } else {
            assert_string_equal(m.rows[api->aliases[i - api->nrows].method]->id,
                                api->aliases[i - api->nrows].id);
        }
    }
}


static stoa_json_t *
api_deep(stoa_json_t *v, const char *const *names)
{
    for (/* void */; v != NULL && *names != NULL; names++) {
        v = stoa_json_get(v, *names);
    }

    return v;
}


/* The path as the document spells it. */
static const char *
api_template(const stoa_api_t *api, const stoa_endpoint_t *ep,
             stoa_json_t *paths)
{
    stoa_str_t   name;
    stoa_json_t *value, *operation;
    void        *it = NULL;
    const char  *methods[] = { "", "get", "post", "put", "patch", "delete" };

    while (stoa_json_next(paths, &it, &name, &value)) {
        operation = stoa_json_get(value, methods[ep->method]);

        if (operation != NULL
            && stoa_str_eq_z(stoa_json_str(
                                 stoa_json_get(operation, "operationId")),
                             ep->id))
        {
            return (const char *) name.data;
        }
    }

    return NULL;
}


static void
api_document(void **state)
{
    const char *const methods[] = {
        "", "get", "post", "put", "patch", "delete"
    };
    const stoa_api_t *api = stoa_api(mem);
    stoa_json_fault_t fault;
    stoa_json_t      *doc, *op, *responses, *parameters;
    stoa_err_e        errs[STOA_E_COUNT];
    stoa_buf_t        b, again;
    const char       *path;
    char              status[8];
    size_t            i, k, n;

    stoa_buf_init(&b, mem, 1 << 16, 1 << 24);
    assert_true(stoa_api_openapi(api, &b));
    stoa_buf_init(&again, mem, 1 << 16, 1 << 24);
    assert_true(stoa_api_openapi(api, &again));
    assert_true(stoa_str_eq(stoa_buf_view(&b), stoa_buf_view(&again)));

    doc = stoa_json_parse(mem, stoa_buf_view(&b), &fault);

    if (doc == NULL) {
        fail_msg("the document: %s at %zu", fault.reason, fault.offset);
    }

    assert_true(
        stoa_str_eq_z(stoa_json_str(stoa_json_get(doc, "openapi")), "3.1.0"));
    assert_int_equal(stoa_json_count(stoa_json_get(doc, "x-stoa-errors")),
                     STOA_E_COUNT - 1);

    for (i = 0; i < api->nrows; i++) {
        path = api_template(api, api->rows[i], stoa_json_get(doc, "paths"));

        if (path == NULL) {
            fail_msg("%s is not in the document", api->rows[i]->id);
        }

        op = api_deep(doc,
                      (const char *[]){ "paths", path,
                                        methods[api->rows[i]->method], NULL });
        responses = stoa_json_get(op, "responses");
        (void) snprintf(status, sizeof(status), "%d", api->rows[i]->status);
        assert_non_null(stoa_json_get(responses, status));

        n = stoa_api_errors(api->rows[i], errs);
        assert_true(n > 5);

        for (k = 0; k < n; k++) {
            (void) snprintf(status, sizeof(status), "%d",
                            stoa_err_row(errs[k])->status);
            assert_non_null(stoa_json_get(responses, status));
        }

        /* every :param of the path, then more */
        parameters = stoa_json_get(op, "parameters");

        for (k = 0, n = 0; path[k] != '\0'; k++) {
            n += path[k] == '{';
        }

        assert_true(stoa_json_count(parameters) >= n);

        for (k = 0; k < n; k++) {
            assert_true(
                stoa_str_eq_z(stoa_json_str(
                                  stoa_json_get(stoa_json_at(parameters, k),
                                                "in")),
                              "path"));
        }

        assert_int_equal(stoa_json_get(op, "requestBody") != NULL,
                         api->rows[i]->body_kind != STOA_BODY_NONE);
    }
}


/* ---- errors of a row ---- */

static bool
api_answers(const stoa_endpoint_t *ep, stoa_err_e err)
{
    stoa_err_e errs[STOA_E_COUNT];
    size_t     i, n = stoa_api_errors(ep, errs);

    for (i = 0; i < n; i++) {
        if (errs[i] == err) {
            return true;
        }
    }

    return false;
}


static stoa_endpoint_t
api_whole(void)
{
    return (stoa_endpoint_t){
        .id = "things.create",
        .method = STOA_POST,
        .path = "/things/:id",
        .who = STOA_MEMBER,
        .of = STOA_OF_NONE,
        .rate = STOA_RATE_WRITE,
        .pool = STOA_POOL_WRITE,
        .sql = "api.things_create($ctx, $id, $body)",
        .body_kind = STOA_BODY_JSON,
        .status = 201,
        .summary = "Makes a thing.",
        .tag = "things",
    };
}


static void
api_errors(void **state)
{
    stoa_endpoint_t ep = api_whole();

    assert_true(api_answers(&ep, STOA_E_FORBIDDEN));
    assert_true(api_answers(&ep, STOA_E_NOT_FOUND));
    assert_true(api_answers(&ep, STOA_E_UNSUPPORTED_MEDIA_TYPE));
    assert_true(api_answers(&ep, STOA_E_COMMIT_UNKNOWN));
    assert_true(api_answers(&ep, STOA_E_RATE_LIMITED));
    assert_false(api_answers(&ep, STOA_E_IN_FLIGHT));
    assert_false(api_answers(&ep, STOA_E_PRECONDITION_REQUIRED));
    assert_false(api_answers(&ep, STOA_E_SIGNATURE_INVALID));
    assert_false(api_answers(&ep, STOA_E_SOLD_OUT));
    assert_false(api_answers(&ep, STOA_E_STEP_UP_REQUIRED));

    ep.step_up = STOA_STEP_UP_OWN;
    assert_true(api_answers(&ep, STOA_E_STEP_UP_REQUIRED));
    assert_false(api_answers(&ep, STOA_E_MFA_ENROLMENT_REQUIRED));
    ep.step_up = STOA_STEP_UP_OTHERS;
    assert_true(api_answers(&ep, STOA_E_STEP_UP_REQUIRED));
    assert_true(api_answers(&ep, STOA_E_MFA_ENROLMENT_REQUIRED));

    ep.keyed = true;
    ep.if_match = true;
    ep.errors[0] = STOA_E_SOLD_OUT;
    assert_true(api_answers(&ep, STOA_E_IN_FLIGHT));
    assert_true(api_answers(&ep, STOA_E_IDEMPOTENCY_KEY_REUSED));
    assert_true(api_answers(&ep, STOA_E_PRECONDITION_REQUIRED));
    assert_true(api_answers(&ep, STOA_E_PRECONDITION_FAILED));
    assert_true(api_answers(&ep, STOA_E_SOLD_OUT));

    assert_true(api_answers(&ep, STOA_E_KEY_FORBIDDEN));
    assert_true(api_answers(&ep, STOA_E_IMPERSONATION_FORBIDDEN));
    assert_false(api_answers(&ep, STOA_E_SCOPE_MISSING));
    ep.via = STOA_VIA_BOTH;
    assert_false(api_answers(&ep, STOA_E_KEY_FORBIDDEN));
    assert_false(api_answers(&ep, STOA_E_IMPERSONATION_FORBIDDEN));
    assert_true(api_answers(&ep, STOA_E_SCOPE_MISSING));
    ep.via = STOA_VIA_ANY_KEY;
    assert_false(api_answers(&ep, STOA_E_KEY_FORBIDDEN));
    assert_true(api_answers(&ep, STOA_E_IMPERSONATION_FORBIDDEN));
    assert_false(api_answers(&ep, STOA_E_SCOPE_MISSING));

    ep = api_whole();
    ep.method = STOA_GET;
    ep.who = STOA_PUBLIC;
    ep.rate = STOA_RATE_NONE;
    ep.path = "/things";
    ep.body_kind = STOA_BODY_NONE;
    assert_false(api_answers(&ep, STOA_E_FORBIDDEN));
    assert_false(api_answers(&ep, STOA_E_NOT_FOUND));
    assert_false(api_answers(&ep, STOA_E_PAYLOAD_TOO_LARGE));
    assert_false(api_answers(&ep, STOA_E_RATE_LIMITED));
    assert_false(api_answers(&ep, STOA_E_COMMIT_UNKNOWN));
    assert_true(api_answers(&ep, STOA_E_UNAUTHENTICATED));
}


/* ---- scopes ---- */

static void
api_scopes(void **state)
{
    static const struct {
        const char *scopes;
        bool        get, post, none; /* none: where there are no rows */
    } rows[] = {
        { "", false, false, false },
        { "*", true, true, true },
        { "*:read", true, false, false },
        { "things:read", true, false, false },
        { "things:write", false, true, false },
        { "things:read things:write", true, true, false },
        { "other:read things:write", false, true, false },
        { "other:read *", true, true, true },
        { "things", false, false, false },
        { "things:", false, false, false },
        { "things:reads", false, false, false },
        { "things:rea", false, false, false },
        { "athings:read", false, false, false },
        { "Things:read", false, false, false },
        { "things:*", false, false, false },
        { "*:write", false, false, false },
        { "**", false, false, false },
        { " ", false, false, false },
        { "  things:read  ", true, false, false },
    };
    const stoa_api_t *api = stoa_api(mem);
    stoa_endpoint_t   get = api_whole(), post = api_whole();
    stoa_str_t        scopes;
    stoa_buf_t        b;
    char              own[STOA_SCOPE_MAX];
    size_t            i;

    get.method = STOA_GET;
    assert_false(stoa_scope_of(&get, own));
    assert_false(stoa_scope_allows(L("*"), &get));

    get.via = post.via = STOA_VIA_KEY;
    assert_true(stoa_scope_of(&get, own));
    assert_string_equal(own, "things:read");
    assert_true(stoa_scope_of(&post, own));
    assert_string_equal(own, "things:write");

    for (i = 0; i < stoa_nitems(rows); i++) {
        scopes = Z(rows[i].scopes);

        if (stoa_scope_allows(scopes, &get) != rows[i].get
            || stoa_scope_allows(scopes, &post) != rows[i].post
            || stoa_scope_allows(scopes, NULL) != rows[i].none)
        {
            fail_msg("\"%s\"", rows[i].scopes);
        }
    }

    get.via = STOA_VIA_ANY_KEY;
    assert_true(stoa_scope_allows(L(""), &get));
    assert_false(stoa_scope_of(&get, own));
    get.via = STOA_VIA_ACTING;
    assert_false(stoa_scope_allows(L("*"), &get));

    assert_true(stoa_scope_known(api, L("*")));
    assert_true(stoa_scope_known(api, L("*:read")));
    assert_true(stoa_scope_known(api, L("events:write")));
    assert_false(stoa_scope_known(api, L("events:")));
    assert_false(stoa_scope_known(api, L("")));
    assert_false(stoa_scope_known(api, L("auth:write")));

    stoa_buf_init(&b, mem, 0, 4096);
    stoa_scope_list(&b, api);
    stoa_buf_nul(&b);
    assert_memory_equal(b.data, "[\"*\",\"*:read\",", 14);
    assert_non_null(strstr((char *) b.data, ",\"checkin:write\""));
}


/* ---- holes ---- */

static const char *
api_refusal(const stoa_endpoint_t *ep, const stoa_alias_t *alias)
{
    const stoa_endpoint_t *rows[2] = { ep, NULL };
    stoa_api_t             api = { .rows = rows, .nrows = 1 };
    const char            *why = NULL;

    api.aliases = alias;
    api.naliases = alias != NULL;

    return stoa_api_check(&api, mem, &why) ? "good" : why;
}


/* clang-format off */
#define REFUSED(part, ...)                                                    \
    do {                                                                      \
        stoa_endpoint_t ep = api_whole();                                     \
        const char     *why_;                                                 \
                                                                              \
        __VA_ARGS__;                                                          \
        why_ = api_refusal(&ep, NULL);                                        \
                                                                              \
        if (strstr(why_, part) == NULL) {                                     \
            fail_msg("%s: %s", #__VA_ARGS__, why_);                           \
        }                                                                     \
    } while (0)
/* clang-format on */


static void
api_holes(void **state)
{
    static const char *const   none[] = { NULL };
    static const stoa_sort_t   sorts[] = { { "a", "a", "int", false },
                                           { NULL, NULL, NULL, false } };
    static const stoa_list_t   list = { .from = "x",
                                        .item = "x",
                                        .id = "x",
                                        .sorts = sorts,
                                        .limit = 20,
                                        .max = 10 };
    static const stoa_filter_t odd[] = { { "nope", "x" }, { NULL, NULL } };
    stoa_list_t                filtered = list;
    stoa_field_t               f[3] = {
                      { .name = "a", .type = STOA_T_TEXT, .min = 1, .max = 2 },
                      stoa_end_field,
                      stoa_end_field
    };
    stoa_endpoint_t whole = api_whole();

    assert_string_equal(api_refusal(&whole, NULL), "good");

    REFUSED(".method", ep.method = 0);
    REFUSED(".who", ep.who = 0);
    REFUSED(".of is not declared", ep.of.resource = NULL);
    REFUSED(".of needs", ep.of = (stoa_of_t){ "event", "id", NULL });
    REFUSED(".of names", ep.of = (stoa_of_t){ "event", "event_id", "own" });
    REFUSED(".rate", ep.rate = 0);
    REFUSED(".pool", ep.pool = 0);
    REFUSED("exactly one", ep.sql = NULL);
    REFUSED("exactly one", ep.flow = STOA_FLOW_ERRORS);
    REFUSED(".body_kind", ep.body_kind = 0);
    REFUSED(".summary", ep.summary = NULL);
    REFUSED(".summary", ep.tag = NULL);
    REFUSED(".status", ep.status = 0);
    REFUSED(".path", ep.path = NULL);
    REFUSED(".path", ep.path = "/a/");
    REFUSED(".path", ep.path = "/a//b");
    REFUSED("character", ep.path = "/A");
    REFUSED("parameters", ep.path = "/:a/:b/:c/:d/:e");
    REFUSED("odd character", ep.id = "Things");
    REFUSED("GET takes no body", ep.method = STOA_GET);
    REFUSED(".verify", ep.verify = STOA_VERIFY_STRIPE);
    REFUSED(".sql begins", ep.sql = "delete from x");
    REFUSED(".if_match is for writes", ep.method = STOA_GET;
            ep.body_kind = STOA_BODY_NONE; ep.if_match = true);
    REFUSED(".if_match goes", ep.if_match = true);
    REFUSED(".if_match goes", ep.sql = "api.f($ctx, $if_match)");
    REFUSED(".batch", ep.sql = "select 1"; ep.batch = 64);
    REFUSED(".batch", ep.batch = 1000);
    REFUSED(".keyed", ep.sql = "select 1"; ep.keyed = true);
    REFUSED(".cache_ms", ep.cache_ms = 1000);
    REFUSED(".audit_reads", ep.audit_reads = true);
    REFUSED(".audit_reads", ep.method = STOA_GET; ep.body_kind = STOA_BODY_NONE;
            ep.pool = STOA_POOL_FAST; ep.audit_reads = true);
    REFUSED(".step_up is for", ep.who = STOA_PUBLIC;
            ep.step_up = STOA_STEP_UP_OTHERS);
    REFUSED(".step_up is for", ep.who = STOA_MEMBER | STOA_DEVICE;
            ep.step_up = STOA_STEP_UP_OWN);
    REFUSED(".step_up is for", ep.step_up = (stoa_step_up_e) 3);
    REFUSED("a row of admins alone", ep.who = STOA_ADMIN);
    REFUSED("a row of admins alone", ep.who = STOA_ADMIN;
            ep.step_up = STOA_STEP_UP_OWN);
    REFUSED(".wait_ms", ep.wait_ms = 4001);
    REFUSED(".list is for GET", ep.sql = NULL; ep.list = &list);
    REFUSED("limit <= max", ep.sql = NULL; ep.list = &list;
            ep.method = STOA_GET; ep.body_kind = STOA_BODY_NONE);
    filtered.max = 100;
    filtered.filters = odd;
    REFUSED("\"nope\" is no query field", ep.sql = NULL; ep.list = &filtered;
            ep.method = STOA_GET; ep.body_kind = STOA_BODY_NONE);
    REFUSED("path field", ep.path_fields = f);

    REFUSED("maximum above zero", f[0].max = 0; ep.body = f);
    f[0].max = 2;
    REFUSED("both bounds", f[0].type = STOA_T_INT; f[0].min = f[0].max = 0;
            ep.body = f);
    REFUSED(".values", f[0].type = STOA_T_ENUM; ep.body = f);
    REFUSED(".values", f[0].values = none; ep.body = f);
    REFUSED("no .type", f[0].type = 0; ep.body = f);
    REFUSED("no .items", f[0].type = STOA_T_OBJECT; ep.body = f);
    REFUSED("flat", f[0].items = f; ep.query = f);
    REFUSED(".via", ep.via = STOA_VIA_ACTING << 1);
    REFUSED(".via", ep.via = STOA_VIA_KEY | STOA_VIA_ANY_KEY);
    REFUSED("shorter .tag", ep.via = STOA_VIA_KEY;
            ep.tag = "a-tag-that-is-so-long-that-no-scope-of-a-key-is-made-"
                     "of-it");
    f[0] = (stoa_field_t){
        .name = "pin", .type = STOA_T_SECRET, .min = 1, .max = 2
    };
    REFUSED("for people", ep.body = f; ep.via = STOA_VIA_KEY);
    REFUSED("for people", ep.body = f; ep.via = STOA_VIA_ANY_KEY);
    REFUSED("for people", ep.body = f; ep.via = STOA_VIA_ACTING);
    REFUSED("good", ep.body = f);
    f[0] = (stoa_field_t){ .name = "someThing", .type = STOA_T_BOOL };
    REFUSED("snake_case", ep.body = f);
    f[0].name = "a";
    f[1] = f[0];
    REFUSED("twice", ep.body = f);
}


static void
api_aliases(void **state)
{
    stoa_endpoint_t ep = api_whole();
    stoa_alias_t    good = { STOA_POST, "/old/:id", "things.create" };
    stoa_alias_t    other = { STOA_GET, "/old/:id", "things.create" };
    stoa_alias_t    named = { STOA_POST, "/old/:thing", "things.create" };
    stoa_alias_t    nobody = { STOA_POST, "/old/:id", "things.make" };

    assert_string_equal(api_refusal(&ep, &good), "good");
    assert_non_null(strstr(api_refusal(&ep, &other), "names no row"));
    assert_non_null(strstr(api_refusal(&ep, &named), "parameters"));
    assert_non_null(strstr(api_refusal(&ep, &nobody), "names no row"));
}


static void
api_names(void **state)
{
    stoa_buf_t b;

    stoa_buf_init(&b, mem, 0, 256);
    stoa_who_print(&b, STOA_PUBLIC);
    stoa_buf_char(&b, ' ');
    stoa_who_print(&b, STOA_ADMIN | STOA_DEVICE);
    stoa_buf_nul(&b);
    assert_string_equal((char *) b.data, "public admin,device");
    assert_string_equal(stoa_method_name(STOA_PATCH), "PATCH");
    assert_string_equal(stoa_method_name((stoa_method_e) 99), "-");
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(api_real),     cmocka_unit_test(api_paths),
        cmocka_unit_test(api_document), cmocka_unit_test(api_errors),
        cmocka_unit_test(api_holes),    cmocka_unit_test(api_aliases),
        cmocka_unit_test(api_names),    cmocka_unit_test(api_scopes),
    };

    return cmocka_run_group_tests_name("api", tests, api_setup, api_teardown);
}
