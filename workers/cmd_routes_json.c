/*
 * stoa routes --json: a row with all its columns, so that a program knows of
 * the API what the server knows.  A column that says nothing is not printed;
 * "who" and "of" are the words of the text form.
 */

#include "cmd_routes.h"

#include "../shared/api/stoa_flow.h"
#include "../shared/stoa_str.h"

#define DEPTH_MAX 8 /* of nested fields; stoa_api_check() allows fewer */

static void cmd_routes_fields(stoa_buf_t *b, const stoa_field_t *fields,
                              unsigned depth);


const char *
cmd_routes_rate(const stoa_endpoint_t *ep)
{
    static const char *const rates[STOA_RATE_COUNT] = {
        [STOA_RATE_AUTH] = "auth", [STOA_RATE_REFRESH] = "refresh",
        [STOA_RATE_READ] = "read", [STOA_RATE_WRITE] = "write",
        [STOA_RATE_SCAN] = "scan", [STOA_RATE_NONE] = "none",
    };

    return rates[ep->rate];
}


static void
cmd_routes_text(stoa_buf_t *b, const char *name, const char *value)
{
    if (value != NULL) {
        stoa_buf_printf(b, ",\"%s\":", name);
        stoa_buf_json_z(b, value);
    }
}


static void
cmd_routes_int(stoa_buf_t *b, const char *name, int64_t n)
{
    stoa_buf_printf(b, ",\"%s\":%lld", name, (long long) n);
}


static void
cmd_routes_flag(stoa_buf_t *b, const char *name, bool value)
{
    if (value) {
        stoa_buf_printf(b, ",\"%s\":true", name);
    }
}


/* ---- fields ---- */

static void
cmd_routes_field(stoa_buf_t *b, const stoa_field_t *f, unsigned depth)
{
    static const char *const types[] = {
        [STOA_T_TEXT] = "text",         [STOA_T_EMAIL] = "email",
        [STOA_T_SECRET] = "secret",     [STOA_T_INT] = "int",
        [STOA_T_BOOL] = "bool",         [STOA_T_UUID] = "uuid",
        [STOA_T_TIME] = "time",         [STOA_T_TIMEZONE] = "timezone",
        [STOA_T_CURRENCY] = "currency", [STOA_T_URL] = "url",
        [STOA_T_ENUM] = "enum",         [STOA_T_LIST] = "list",
        [STOA_T_OBJECT] = "object",     [STOA_T_CODE] = "code",
    };

    stoa_buf_z(b, "{\"name\":");
    stoa_buf_json_z(b, f->name);
    cmd_routes_text(b, "type", types[f->type]);
    cmd_routes_flag(b, "required", (f->flags & STOA_REQUIRED) != 0);
    cmd_routes_flag(b, "nullable", (f->flags & STOA_NULLABLE) != 0);
    cmd_routes_flag(b, "uncommon", (f->flags & STOA_UNCOMMON) != 0);

    if (f->min != 0 || f->max != 0) {
        cmd_routes_int(b, "min", f->min);
        cmd_routes_int(b, "max", f->max);
    }

    for (size_t i = 0; f->values != NULL && f->values[i] != NULL; i++) {
        stoa_buf_z(b, i == 0 ? ",\"values\":[" : ",");
        stoa_buf_json_z(b, f->values[i]);
        stoa_buf_z(b, f->values[i + 1] == NULL ? "]" : "");
    }

    if (f->items != NULL) {
        cmd_routes_flag(b, "objects", f->object);
        stoa_buf_z(b, ",\"items\":");
        cmd_routes_fields(b, f->items, depth + 1);
    }

    stoa_buf_char(b, '}');
}


static void
cmd_routes_fields(stoa_buf_t *b, const stoa_field_t *fields, unsigned depth)
{
    stoa_buf_char(b, '[');

    for (size_t i = 0; depth < DEPTH_MAX && fields[i].name != NULL; i++) {
        stoa_buf_z(b, i == 0 ? "" : ",");
        cmd_routes_field(b, &fields[i], depth);
    }

    stoa_buf_char(b, ']');
}


static bool
cmd_routes_open(const stoa_field_t *query)
{
    while (query->name != NULL) {
        query++;
    }

    return (query->flags & STOA_OPEN) != 0;
}


static void
cmd_routes_input(stoa_buf_t *b, const stoa_endpoint_t *ep)
{
    static const char *const kinds[] = {
        [STOA_BODY_NONE] = "none",
        [STOA_BODY_JSON] = "json",
        [STOA_BODY_FORM] = "form",
        [STOA_BODY_RAW] = "raw",
    };

    if (ep->path_fields != NULL) {
        stoa_buf_z(b, ",\"pathFields\":");
        cmd_routes_fields(b, ep->path_fields, 0);
    }

    if (ep->query != NULL) {
        stoa_buf_z(b, ",\"query\":");
        cmd_routes_fields(b, ep->query, 0);
        cmd_routes_flag(b, "openQuery", cmd_routes_open(ep->query));
    }

    cmd_routes_text(b, "bodyKind", kinds[ep->body_kind]);
    cmd_routes_int(b, "bodyMax", ep->body_max);

    if (ep->body != NULL) {
        stoa_buf_z(b, ",\"body\":");
        cmd_routes_fields(b, ep->body, 0);
    }
}


/* ---- rows ---- */

static void
cmd_routes_list(stoa_buf_t *b, const stoa_list_t *list)
{
    stoa_buf_z(b, ",\"list\":{\"sorts\":[");

    for (size_t i = 0; list->sorts[i].name != NULL; i++) {
        stoa_buf_z(b, i == 0 ? "" : ",");
        stoa_buf_json_z(b, list->sorts[i].name);
    }

    stoa_buf_printf(b, "],\"limit\":%u,\"max\":%u}", list->limit, list->max);
}


static void
cmd_routes_work(stoa_buf_t *b, const stoa_endpoint_t *ep)
{
    static const char *const pools[STOA_POOL_COUNT] = {
        [STOA_POOL_FAST] = "fast",
        [STOA_POOL_WRITE] = "write",
        [STOA_POOL_SLOW] = "slow",
    };
    static const char *const media[] = {
        [0] = "json",
        [STOA_MEDIA_JSON] = "json",
        [STOA_MEDIA_CSV] = "csv",
        [STOA_MEDIA_BYTES] = "bytes",
        [STOA_MEDIA_BARE] = "bare",
    };

    cmd_routes_text(b, "pool", pools[ep->pool]);
    cmd_routes_text(b, "sql", ep->sql);
    cmd_routes_text(b, "flow", stoa_flow_name(ep->flow));

    if (ep->list != NULL) {
        cmd_routes_list(b, ep->list);
    }

    cmd_routes_text(b, "media", media[ep->media]);
    cmd_routes_int(b, "status", ep->status);
    cmd_routes_int(b, "batch", ep->batch);
    cmd_routes_int(b, "cacheMs", ep->cache_ms);
    cmd_routes_int(b, "waitMs", ep->wait_ms);
    cmd_routes_int(b, "timeoutMs", ep->timeout_ms);
    cmd_routes_flag(b, "keyed", ep->keyed);
    cmd_routes_flag(b, "ifMatch", ep->if_match);
    cmd_routes_flag(b, "development", ep->development);
    cmd_routes_flag(b, "auditReads", ep->audit_reads);
    cmd_routes_text(b, "stepUp", stoa_step_up_name(ep->step_up));
    cmd_routes_flag(b, "verify", ep->verify != STOA_VERIFY_NONE);
}


static void
cmd_routes_via(stoa_buf_t *b, const stoa_endpoint_t *ep)
{
    char scope[STOA_SCOPE_MAX];

    cmd_routes_flag(b, "acting", (ep->via & STOA_VIA_ACTING) != 0);
    cmd_routes_flag(b, "anyKey", (ep->via & STOA_VIA_ANY_KEY) != 0);

    if (stoa_scope_of(ep, scope)) {
        cmd_routes_text(b, "scope", scope);
    }
}


static void
cmd_routes_names(stoa_buf_t *b, const stoa_api_t *api,
                 const stoa_endpoint_t *ep)
{
    stoa_err_e errors[STOA_E_COUNT];
    size_t     n = stoa_api_errors(ep, errors);
    bool       first = true;

    stoa_buf_z(b, ",\"errors\":[");

    for (size_t i = 0; i < n; i++) {
        stoa_buf_z(b, i == 0 ? "" : ",");
        stoa_buf_json_z(b, stoa_err_row(errors[i])->code);
    }

    stoa_buf_z(b, "],\"aliases\":[");

    for (size_t i = 0; i < api->naliases; i++) {
        if (strcmp(api->aliases[i].id, ep->id) == 0) {
            stoa_buf_z(b, first ? "" : ",");
            stoa_buf_json_z(b, api->aliases[i].path);
            first = false;
        }
    }

    stoa_buf_char(b, ']');
}


void
cmd_routes_json(stoa_buf_t *b, const stoa_api_t *api, const stoa_endpoint_t *ep)
{
    stoa_buf_z(b, "{\"method\":");
    stoa_buf_json_z(b, stoa_method_name(ep->method));
    cmd_routes_text(b, "path", ep->path);
    stoa_buf_z(b, ",\"who\":\"");
    stoa_who_print(b, ep->who);
    stoa_buf_z(b, "\",\"of\":\"");
    cmd_routes_of(b, ep);
    stoa_buf_char(b, '"');
    cmd_routes_text(b, "ofField", ep->of.field);
    cmd_routes_via(b, ep);
    cmd_routes_text(b, "rate", cmd_routes_rate(ep));
    stoa_buf_z(b, ",\"cost\":");
    stoa_buf_int(b, ep->cost != 0 ? ep->cost : 1);
    cmd_routes_text(b, "id", ep->id);
    cmd_routes_text(b, "tag", ep->tag);
    cmd_routes_text(b, "summary", ep->summary);
    cmd_routes_work(b, ep);
    cmd_routes_input(b, ep);
    cmd_routes_names(b, api, ep);
    stoa_buf_char(b, '}');
}
