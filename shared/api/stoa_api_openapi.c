/*
 * OpenAPI 3.1 out of the rows: paths, parameters, bodies with both bounds,
 * security, and every error that a row can answer.  Nothing is written by
 * hand but the shapes that all answers share.  The order is that of the
 * tables, so the text is the same on every run.
 */

#include "stoa_api.h"
#include "stoa_api_openapi.h"
#include "../stoa_str.h"


/* ---- responses ---- */

static void
stoa_openapi_ref(stoa_openapi_t *o, const char *key, const char *schema)
{
    stoa_openapi_object(o, key);
    stoa_openapi_object(o, "schema");
    stoa_openapi_text(o, "$ref", schema);
    stoa_openapi_close(o, '}');
    stoa_openapi_close(o, '}');
}


static void
stoa_openapi_failure(stoa_openapi_t *o, const stoa_err_e *errs, size_t n,
                     int status)
{
    char   key[16] = { 0 };
    size_t i;

    key[0] = (char) ('0' + status / 100);
    key[1] = (char) ('0' + status / 10 % 10);
    key[2] = (char) ('0' + status % 10);

    stoa_openapi_object(o, key);
    stoa_openapi_key(o, "description");
    stoa_openapi_sep(o);
    stoa_buf_char(o->b, '"');

    for (i = 0; i < n; i++) {
        stoa_buf_z(o->b, i != 0 ? "; " : "");
        stoa_buf_z(o->b, stoa_err_row(errs[i])->code);
        stoa_buf_z(o->b, ": ");
        stoa_buf_z(o->b, stoa_err_row(errs[i])->title);
    }

    stoa_buf_char(o->b, '"');

    if (status == 429 || status == 503) {
        stoa_openapi_raw(o, "headers",
                         status == 503
                             ? "{\"Retry-After\":{\"$ref\":"
                               "\"#/components/headers/RetryAfter\"}}"
                             : "{\"Retry-After\":{\"$ref\":"
                               "\"#/components/headers/RetryAfter\"},"
                               "\"RateLimit\":{\"$ref\":"
                               "\"#/components/headers/RateLimit\"},"
                               "\"RateLimit-Policy\":{\"$ref\":"
                               "\"#/components/headers/RateLimitPolicy\"}}");
    }

    stoa_openapi_object(o, "content");
    stoa_openapi_object(o, "application/json");
    stoa_buf_z(o->b, "\"schema\":{\"allOf\":[{\"$ref\":"
                     "\"#/components/schemas/Failure\"},{\"type\":\"object\","
                     "\"properties\":{\"error\":{\"type\":\"object\","
                     "\"properties\":{\"code\":{\"type\":\"string\","
                     "\"enum\":[");
    o->comma = false;

    for (i = 0; i < n; i++) {
        stoa_openapi_item(o, stoa_err_row(errs[i])->code);
    }

    stoa_buf_z(o->b, "]}}}}}]}");
    stoa_openapi_close(o, '}');
    stoa_openapi_ref(o, "application/problem+json",
                     "#/components/schemas/Problem");
    stoa_openapi_close(o, '}');
    stoa_openapi_close(o, '}');
}


static void
stoa_openapi_failures(stoa_openapi_t *o, const stoa_endpoint_t *ep)
{
    stoa_err_e all[STOA_E_COUNT], some[STOA_E_COUNT];
    size_t     i, m, n = stoa_api_errors(ep, all);
    int        status;

    for (status = 400; status < 600; status++) {
        for (i = 0, m = 0; i < n; i++) {
            if (stoa_err_row(all[i])->status == status) {
                some[m++] = all[i];
            }
        }

        if (m != 0) {
            stoa_openapi_failure(o, some, m, status);
        }
    }
}


/* The type of a flow's answer that is no envelope; NULL: an envelope. */
static const char *
stoa_openapi_flow_type(const stoa_endpoint_t *ep)
{
    return ep->flow == STOA_FLOW_TICKET_SVG ? "image/svg+xml" : NULL;
}


/* What a path of a file answers, by its suffix. */
static const char *
stoa_openapi_file_type(const char *path)
{
    const char *dot = strrchr(path, '.');

    if (dot != NULL && strcmp(dot, ".png") == 0) {
        return "image/png";
    }

    if (dot != NULL && strcmp(dot, ".pdf") == 0) {
        return "application/pdf";
    }

    return "application/octet-stream";
}


static void
stoa_openapi_enveloped(stoa_openapi_t *o, const stoa_endpoint_t *ep)
{
    if (!stoa_openapi_answer(o, ep)) {
        stoa_openapi_ref(o, "application/json",
                         ep->list != NULL ? "#/components/schemas/Page"
                                          : "#/components/schemas/Success");
    }
}


static void
stoa_openapi_content(stoa_openapi_t *o, const stoa_endpoint_t *ep)
{
    const char *type = stoa_openapi_flow_type(ep);

    if (type == NULL && ep->media == STOA_MEDIA_CSV) {
        type = "text/csv";

    } else if (type == NULL && ep->media == STOA_MEDIA_BYTES) {
        type = stoa_openapi_file_type(ep->path);
    }

    stoa_openapi_object(o, "content");

    if (type != NULL) {
        stoa_openapi_raw(o, type, "{\"schema\":{\"type\":\"string\"}}");

    } else if (ep->media == STOA_MEDIA_BARE || ep->flow == STOA_FLOW_OPENAPI) {
        stoa_openapi_raw(o, "application/json",
                         "{\"schema\":{\"type\":[\"object\",\"array\"]}}");

    } else {
        stoa_openapi_enveloped(o, ep);
    }

    stoa_openapi_close(o, '}');
}


static void
stoa_openapi_success(stoa_openapi_t *o, const stoa_endpoint_t *ep)
{
    static const struct {
        uint16_t    status;
        const char *key, *description;
    } known[] = {
        { 200, "200", "Done" },
        { 201, "201", "Created" },
        { 202, "202", "Accepted, a worker goes on" },
        { 204, "204", "Done, no content" },
        { 302, "302", "Go to the address in Location" },
        { 303, "303", "See the page in Location" },
    };
    size_t i;
    bool   accepted = ep->wait_ms != 0;

    for (i = 0; i < stoa_nitems(known); i++) {
        if (known[i].status != ep->status
            && !(accepted && known[i].status == 202)) {
            continue;
        }

        stoa_openapi_object(o, known[i].key);
        stoa_openapi_text(o, "description", known[i].description);

        if (known[i].status != ep->status) { /* whatever comes later */
            stoa_openapi_object(o, "content");
            stoa_openapi_enveloped(o, ep);
            stoa_openapi_close(o, '}');

        } else if (known[i].status < 204) {
            stoa_openapi_content(o, ep);
        }

        stoa_openapi_close(o, '}');
    }

    if (stoa_openapi_revalidates(ep)) {
        stoa_openapi_raw(o, "304",
                         "{\"description\":\"The version named by "
                         "If-None-Match is still the present one\"}");
    }
}


/* ---- operations ---- */

static bool
stoa_openapi_param(const char *path, size_t n, stoa_str_t *name)
{
    const char *p;

    for (p = strchr(path, ':'); p != NULL; p = strchr(p, ':')) {
        p++;

        if (n-- == 0) {
            name->data = (unsigned char *) (uintptr_t) p;
            name->len = strcspn(p, "/.");
            return true;
        }
    }

    return false;
}


/* The camelCase of a slice. */
static void
stoa_openapi_param_name(stoa_openapi_t *o, stoa_str_t name, char *out,
                        size_t size)
{
    char snake[64];

    if (name.len >= sizeof(snake)) {
        o->b->failed = true;
        out[0] = '\0';
        return;
    }

    memcpy(snake, name.data, name.len);
    snake[name.len] = '\0';
    stoa_openapi_camel(o, snake, out, size);
}


static void
stoa_openapi_parameter(stoa_openapi_t *o, const char *name, const char *in,
                       bool required, const stoa_field_t *f)
{
    stoa_field_t plain = *f;

    plain.flags = 0;
    plain.summary = NULL;
    plain.example = NULL;

    stoa_openapi_open(o, '{');
    stoa_openapi_text(o, "name", name);
    stoa_openapi_text(o, "in", in);
    stoa_openapi_raw(o, "required", required ? "true" : "false");

    if (f->summary != NULL) {
        stoa_openapi_text(o, "description", f->summary);
    }

    if (f->type == STOA_T_LIST) {
        stoa_openapi_raw(o, "explode", "false"); /* a,b */
    }

    stoa_openapi_key(o, "schema");
    stoa_openapi_schema(o, &plain, 0);

    if (f->example != NULL) {
        stoa_openapi_raw(o, "example", f->example);
    }

    stoa_openapi_close(o, '}');
}


/* named: the row whose spelling of the parameters the path has. */
static void
stoa_openapi_path_parameters(stoa_openapi_t *o, const stoa_endpoint_t *ep,
                             const stoa_endpoint_t *named)
{
    static const stoa_field_t uuid = { .name = "id", .type = STOA_T_UUID };
    const stoa_field_t       *f;
    stoa_str_t                own, shown;
    char                      name[64];
    size_t                    i;

    for (i = 0; stoa_openapi_param(ep->path, i, &own)
                && stoa_openapi_param(named->path, i, &shown);
         i++)
    {
        for (f = ep->path_fields; f != NULL && f->name != NULL; f++) {
            if (stoa_str_eq_z(own, f->name)) {
                break;
            }
        }

        if (f == NULL || f->name == NULL) {
            f = &uuid;
        }

        stoa_openapi_param_name(o, shown, name, sizeof(name));
        stoa_openapi_parameter(o, name, "path", true, f);
    }
}


static bool
stoa_openapi_declares(const stoa_field_t *fields, const char *name)
{
    for (/* void */; fields != NULL && fields->name != NULL; fields++) {
        if (strcmp(fields->name, name) == 0) {
            return true;
        }
    }

    return false;
}


static void
stoa_openapi_list_parameters(stoa_openapi_t *o, const stoa_endpoint_t *ep)
{
    const stoa_list_t  *list = ep->list;
    const char         *names[33];
    size_t              i;
    stoa_field_t        page = { .name = "page",
                                 .type = STOA_T_INT,
                                 .min = 1,
                                 .max = 1000000,
                                 .summary = "Number of the page, from 1" };
    stoa_field_t        limit = { .name = "limit",
                                  .type = STOA_T_INT,
                                  .min = 1,
                                  .max = list->max,
                                  .summary = "Items on a page" };
    stoa_field_t        sort = { .name = "sort",
                                 .type = STOA_T_ENUM,
                                 .values = names,
                                 .summary = "Order; the first is the default" };
    stoa_field_t        cursor = { .name = "cursor",
                                   .type = STOA_T_CODE,
                                   .min = 1,
                                   .max = 1024,
                                   .summary = "meta.nextCursor of the answer "
                                                     "before" };
    const stoa_field_t *all[] = { &page, &limit, &sort, &cursor };

    for (i = 0; i < 32 && list->sorts[i].name != NULL; i++) {
        names[i] = list->sorts[i].name;
    }

    names[i] = NULL;

    for (i = 0; i < stoa_nitems(all); i++) {
        if (!stoa_openapi_declares(ep->query, all[i]->name)) {
            stoa_openapi_parameter(o, all[i]->name, "query", false, all[i]);
        }
    }
}


static void
stoa_openapi_parameters(stoa_openapi_t *o, const stoa_endpoint_t *ep,
                        const stoa_endpoint_t *named)
{
    const stoa_field_t *f;
    char                name[128];

    stoa_openapi_list(o, "parameters");
    stoa_openapi_path_parameters(o, ep, named);

    for (f = ep->query; f != NULL && f->name != NULL; f++) {
        stoa_openapi_camel(o, f->name, name, sizeof(name));
        stoa_openapi_parameter(o, name, "query", f->flags & STOA_REQUIRED, f);
    }

    if (ep->list != NULL) {
        stoa_openapi_list_parameters(o, ep);
    }

    if (ep->keyed) {
        stoa_openapi_sep(o);
        stoa_buf_z(o->b, "{\"$ref\":"
                         "\"#/components/parameters/IdempotencyKey\"}");
    }

    if (ep->if_match) {
        stoa_openapi_sep(o);
        stoa_buf_z(o->b, "{\"$ref\":\"#/components/parameters/IfMatch\"}");
    }

    if (stoa_openapi_revalidates(ep)) {
        stoa_openapi_sep(o);
        stoa_buf_z(o->b, "{\"$ref\":\"#/components/parameters/IfNoneMatch\"}");
    }

    if (ep->verify == STOA_VERIFY_STRIPE) {
        stoa_openapi_sep(o);
        stoa_buf_z(o->b,
                   "{\"$ref\":\"#/components/parameters/StripeSignature\"}");
    }

    stoa_openapi_close(o, ']');
}


static void
stoa_openapi_body(stoa_openapi_t *o, const stoa_endpoint_t *ep)
{
    const stoa_field_t *f;
    bool                required = ep->body_kind == STOA_BODY_RAW;

    for (f = ep->body; f != NULL && f->name != NULL; f++) {
        required = required || (f->flags & STOA_REQUIRED);
    }

    stoa_openapi_object(o, "requestBody");
    stoa_openapi_raw(o, "required", required ? "true" : "false");
    stoa_openapi_object(o, "content");

    if (ep->body_kind == STOA_BODY_RAW) {
        stoa_openapi_raw(o,
                         ep->verify == STOA_VERIFY_STRIPE
                             ? "application/json"
                             : "application/octet-stream",
                         "{\"schema\":{}}");

    } else {
        stoa_openapi_object(o, ep->body_kind == STOA_BODY_FORM
                                   ? "application/x-www-form-urlencoded"
                                   : "application/json");
        stoa_openapi_object(o, "schema");
        stoa_openapi_text(o, "type", "object");
        stoa_openapi_members(o, ep->body, 0);
        stoa_openapi_close(o, '}');
        stoa_openapi_close(o, '}');
    }

    stoa_openapi_close(o, '}');
    stoa_openapi_close(o, '}');
}


/* What OpenAPI has no word for. */
static void
stoa_openapi_columns(stoa_openapi_t *o, const stoa_endpoint_t *ep)
{
    static const char *const rates[STOA_RATE_COUNT] = {
        [STOA_RATE_AUTH] = "auth", [STOA_RATE_REFRESH] = "refresh",
        [STOA_RATE_READ] = "read", [STOA_RATE_WRITE] = "write",
        [STOA_RATE_SCAN] = "scan", [STOA_RATE_NONE] = "none",
    };
    uint32_t bit;
    char     scope[STOA_SCOPE_MAX];

    stoa_openapi_object(o, "x-stoa");
    stoa_openapi_list(o, "who");

    for (bit = 1; bit <= STOA_PUBLIC; bit <<= 1) {
        if (ep->who & bit) {
            stoa_openapi_item(o, stoa_role_name(bit));
        }
    }

    stoa_openapi_close(o, ']');

    if (ep->of.field != NULL) {
        stoa_openapi_object(o, "of");
        stoa_openapi_text(o, "resource", ep->of.resource);
        stoa_openapi_text(o, "field", ep->of.field);
        stoa_openapi_text(o, "relation", ep->of.relation);
        stoa_openapi_close(o, '}');
    }

    if (stoa_scope_of(ep, scope)) {
        stoa_openapi_text(o, "scope", scope);
    }

    stoa_openapi_raw(o, "acting", ep->via & STOA_VIA_ACTING ? "true" : "false");
    stoa_openapi_text(o, "rate", rates[ep->rate]);

    if (ep->cost != 0) {
        stoa_openapi_int(o, "cost", ep->cost);
    }

    if (ep->step_up != STOA_STEP_UP_NONE) {
        stoa_openapi_text(o, "stepUp", stoa_step_up_name(ep->step_up));
    }

    stoa_openapi_raw(o, "keyed", ep->keyed ? "true" : "false");
    stoa_openapi_raw(o, "development", ep->development ? "true" : "false");
    stoa_openapi_int(o, "batch", ep->batch);
    stoa_openapi_int(o, "cacheMs", ep->cache_ms);
    stoa_openapi_int(o, "waitMs", ep->wait_ms);

    if (ep->body_kind != STOA_BODY_NONE) {
        stoa_openapi_int(o, "bodyMax",
                         ep->body_max != 0 ? (int64_t) ep->body_max : 65536);
    }

    stoa_openapi_close(o, '}');
}


/* One way in, by a scheme. */
static void
stoa_openapi_secured(stoa_openapi_t *o, const char *scheme)
{
    stoa_openapi_open(o, '{');
    stoa_openapi_list(o, scheme);
    stoa_openapi_close(o, ']');
    stoa_openapi_close(o, '}');
}


static void
stoa_openapi_operation(stoa_openapi_t *o, const stoa_endpoint_t *ep,
                       const stoa_endpoint_t *named)
{
    static const char *const methods[STOA_METHOD_COUNT] = {
        [STOA_GET] = "get",     [STOA_POST] = "post",     [STOA_PUT] = "put",
        [STOA_PATCH] = "patch", [STOA_DELETE] = "delete",
    };

    stoa_openapi_object(o, methods[ep->method]);
    stoa_openapi_text(o, "operationId", ep->id);
    stoa_openapi_text(o, "summary", ep->summary);
    stoa_openapi_list(o, "tags");
    stoa_openapi_item(o, ep->tag);
    stoa_openapi_close(o, ']');
    stoa_openapi_list(o, "security");

    if (ep->who & STOA_PUBLIC) {
        stoa_openapi_open(o, '{');
        stoa_openapi_close(o, '}');
    }

    stoa_openapi_secured(o, "bearer");

    if (ep->via & (STOA_VIA_KEY | STOA_VIA_ANY_KEY)) {
        stoa_openapi_secured(o, "apiKey");
    }

    stoa_openapi_close(o, ']');
    stoa_openapi_parameters(o, ep, named);

    if (ep->body_kind != STOA_BODY_NONE) {
        stoa_openapi_body(o, ep);
    }

    stoa_openapi_object(o, "responses");
    stoa_openapi_success(o, ep);
    stoa_openapi_failures(o, ep);
    stoa_openapi_close(o, '}');
    stoa_openapi_columns(o, ep);
    stoa_openapi_close(o, '}');
}


/* ---- paths ---- */

/* Equal but for the names of parameters. */
static bool
stoa_openapi_same_path(const char *a, const char *b)
{
    for (;;) {
        if (*a != *b) {
            return false;
        }

        if (*a == '\0') {
            return true;
        }

        if (*a == ':') {
            a += strcspn(a, "/.");
            b += strcspn(b, "/.");
            continue;
        }

        a++;
        b++;
    }
}


/* "/a/:some_id" as "/a/{someId}". */
static void
stoa_openapi_path(stoa_openapi_t *o, const char *path)
{
    stoa_str_t name;
    char       camel[64];

    stoa_openapi_sep(o);
    stoa_buf_char(o->b, '"');

    while (*path != '\0') {
        if (*path != ':') {
            stoa_buf_char(o->b, *path++);
            continue;
        }

        name.data = (unsigned char *) (uintptr_t) (path + 1);
        name.len = strcspn(path + 1, "/.");
        stoa_openapi_param_name(o, name, camel, sizeof(camel));
        stoa_buf_char(o->b, '{');
        stoa_buf_z(o->b, camel);
        stoa_buf_char(o->b, '}');
        path += 1 + name.len;
    }

    stoa_buf_z(o->b, "\":");
    o->comma = false;
}


static void
stoa_openapi_paths(stoa_openapi_t *o)
{
    const stoa_endpoint_t *ep, *other;
    size_t                 i, j;
    bool                   done;

    stoa_openapi_object(o, "paths");

    for (i = 0; i < o->api->nrows; i++) {
        ep = o->api->rows[i];
        done = false;

        for (j = 0; j < i; j++) {
            done = done
                || stoa_openapi_same_path(o->api->rows[j]->path, ep->path);
        }

        if (done) {
            continue;
        }

        stoa_openapi_path(o, ep->path);
        stoa_openapi_open(o, '{');

        for (j = i; j < o->api->nrows; j++) {
            other = o->api->rows[j];

            if (stoa_openapi_same_path(ep->path, other->path)) {
                stoa_openapi_operation(o, other, ep);
            }
        }

        stoa_openapi_close(o, '}');
    }

    stoa_openapi_close(o, '}');
}


static void
stoa_openapi_tags(stoa_openapi_t *o)
{
    const char *tag;
    size_t      i, j;
    bool        known;

    stoa_openapi_list(o, "tags");

    for (i = 0; i < o->api->nrows; i++) {
        tag = o->api->rows[i]->tag;
        known = false;

        for (j = 0; j < i; j++) {
            known = known || strcmp(tag, o->api->rows[j]->tag) == 0;
        }

        if (!known) {
            stoa_openapi_open(o, '{');
            stoa_openapi_text(o, "name", tag);
            stoa_openapi_key(o, "description");
            stoa_openapi_sep(o);
            stoa_buf_printf(o->b, "\"Endpoints of %s\"", tag);
            stoa_openapi_close(o, '}');
        }
    }

    stoa_openapi_close(o, ']');
}


static void
stoa_openapi_components(stoa_openapi_t *o)
{
    static const char schemas[] =
        "\"Success\":{\"type\":\"object\",\"required\":[\"success\","
        "\"data\",\"meta\",\"error\",\"timestamp\"],\"properties\":{"
        "\"success\":{\"const\":true},\"data\":{},\"meta\":{\"type\":["
        "\"object\",\"null\"]},\"error\":{\"type\":\"null\"},"
        "\"timestamp\":{\"type\":\"string\",\"format\":\"date-time\"}}},"
        "\"Page\":{\"type\":\"object\",\"required\":[\"success\",\"data\","
        "\"meta\",\"error\",\"timestamp\"],\"properties\":{\"success\":{"
        "\"const\":true},\"data\":{\"type\":\"array\",\"items\":{}},"
        "\"meta\":{\"type\":\"object\",\"properties\":{\"page\":{"
        "\"type\":\"integer\"},\"limit\":{\"type\":\"integer\"},\"total\":{"
        "\"type\":\"integer\"},\"pages\":{\"type\":\"integer\"},"
        "\"nextCursor\":{\"type\":[\"string\",\"null\"]}}},\"error\":{"
        "\"type\":\"null\"},\"timestamp\":{\"type\":\"string\",\"format\":"
        "\"date-time\"}}},"
        "\"Failure\":{\"type\":\"object\",\"required\":[\"success\","
        "\"data\",\"error\",\"timestamp\"],\"properties\":{\"success\":{"
        "\"const\":false},\"data\":{\"type\":\"null\"},\"meta\":{\"type\":["
        "\"object\",\"null\"]},\"error\":{\"$ref\":"
        "\"#/components/schemas/Problem\"},\"timestamp\":{\"type\":"
        "\"string\",\"format\":\"date-time\"}}},"
        "\"Problem\":{\"type\":\"object\",\"required\":[\"type\",\"title\","
        "\"status\",\"code\"],\"properties\":{\"type\":{\"type\":\"string\""
        ",\"format\":\"uri-reference\"},\"title\":{\"type\":\"string\"},"
        "\"status\":{\"type\":\"integer\"},\"detail\":{\"type\":\"string\"}"
        ",\"code\":{\"type\":\"string\"},\"request_id\":{\"type\":"
        "\"string\"},\"errors\":{\"type\":\"array\",\"items\":{\"type\":"
        "\"object\",\"required\":[\"pointer\",\"code\",\"detail\"],"
        "\"properties\":{\"pointer\":{\"type\":\"string\"},\"code\":{"
        "\"type\":\"string\"},\"detail\":{\"type\":\"string\"}}}},"
        "\"violated-policies\":{\"type\":\"array\",\"items\":{\"type\":"
        "\"string\"}}}}";
    static const char parameters[] =
        "{\"IdempotencyKey\":{\"name\":\"Idempotency-Key\",\"in\":"
        "\"header\",\"required\":false,\"description\":\"Repeating a "
        "request with the same key repeats its answer, not its effect\","
        "\"schema\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":255}}"
        ",\"IfMatch\":{\"name\":\"If-Match\",\"in\":\"header\",\"description\""
        ":\"The ETag of the version that the change is based on; what "
        "became another meanwhile answers 412\",\"schema\":"
        "{\"type\":\"string\",\"maxLength\":64}},"
        "\"IfNoneMatch\":{\"name\":\"If-None-Match\",\"in\":\"header\","
        "\"description\":\"ETags of versions that are there already; the "
        "present one among them answers 304\",\"schema\":"
        "{\"type\":\"string\"}},"
        "\"StripeSignature\":{\"name\":\"Stripe-Signature\",\"in\":"
        "\"header\",\"required\":true,\"schema\":{\"type\":\"string\","
        "\"maxLength\":2048}}}";

    stoa_openapi_object(o, "components");
    stoa_openapi_object(o, "schemas");
    stoa_openapi_sep(o);
    stoa_buf_z(o->b, schemas);
    stoa_openapi_answer_objects(o);
    stoa_openapi_close(o, '}');
    stoa_openapi_raw(o, "parameters", parameters);
    stoa_openapi_raw(o, "headers",
                     "{\"RetryAfter\":{\"description\":\"Seconds\","
                     "\"schema\":{\"type\":\"integer\"}},"
                     "\"RateLimit\":{\"description\":\"What is left of each "
                     "limit, the tightest first; in other answers, too\","
                     "\"schema\":{\"type\":\"string\"}},"
                     "\"RateLimitPolicy\":{\"description\":\"Those limits: "
                     "burst and seconds\",\"schema\":{\"type\":"
                     "\"string\"}}}");
    stoa_openapi_raw(o, "securitySchemes",
                     "{\"bearer\":{\"type\":\"http\",\"scheme\":\"bearer\","
                     "\"bearerFormat\":\"JWT\"},\"apiKey\":{\"type\":"
                     "\"apiKey\",\"in\":\"header\",\"name\":\"X-Api-Key\","
                     "\"description\":\"Also as the bearer token; what it may "
                     "do is its scopes\"}}");
    stoa_openapi_close(o, '}');
}


static void
stoa_openapi_errors(stoa_openapi_t *o)
{
    const stoa_err_row_t *row;
    unsigned              i;

    stoa_openapi_list(o, "x-stoa-errors");

    for (i = STOA_OK + 1; i < STOA_E_COUNT; i++) {
        row = stoa_err_row((stoa_err_e) i);
        stoa_openapi_open(o, '{');
        stoa_openapi_text(o, "code", row->code);
        stoa_openapi_int(o, "status", row->status);
        stoa_openapi_text(o, "title", row->title);
        stoa_openapi_close(o, '}');
    }

    stoa_openapi_close(o, ']');
}


bool
stoa_api_openapi(const stoa_api_t *api, stoa_buf_t *out)
{
    stoa_openapi_t o = { .b = out, .api = api };

    stoa_openapi_open(&o, '{');
    stoa_openapi_text(&o, "openapi", "3.1.0");
    stoa_openapi_raw(&o, "info",
                     "{\"title\":\"Stoa\",\"version\":\"" STOA_VERSION "\","
                     "\"description\":\"Generated from the rows that the "
                     "server runs on\",\"license\":{\"name\":"
                     "\"BSD-2-Clause\",\"identifier\":\"BSD-2-Clause\"}}");
    stoa_openapi_raw(&o, "servers", "[{\"url\":\"/\"}]");
    stoa_openapi_tags(&o);
    stoa_openapi_paths(&o);
    stoa_openapi_components(&o);
    stoa_openapi_errors(&o);
    stoa_openapi_close(&o, '}');

    return !out->failed;
}
