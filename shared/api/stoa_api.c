/*
 * The index of the API: the tables of rows, and the check that each row is
 * whole.  Zero is "not declared" in every column that decides about rights,
 * limits or input, so a forgotten column refuses to start.  There is no
 * state: the list of rows lives in the caller's memory.
 */

#include "stoa_api.h"
#include "stoa_api_tables.h"
#include "../stoa_route.h"
#include "../stoa_str.h"

#include <stdarg.h>
#include <stdio.h>

#define STOA_API_FIELDS_MAX 64 /* of one table, a bit set elsewhere */
#define STOA_API_DEPTH_MAX  6
#define STOA_API_WAIT_MAX   4000
#define STOA_API_BATCH_MAX  256

static const stoa_endpoint_t *const stoa_api_list[] = {
    stoa_api_auth,    stoa_api_sessions, stoa_api_mfa,      stoa_api_keys,
    stoa_api_users,   stoa_api_events,   stoa_api_orders,   stoa_api_tickets,
    stoa_api_checkin, stoa_api_webhooks, stoa_api_admin,    stoa_api_system,
    stoa_api_oauth,   stoa_api_privacy,  stoa_api_presence,
};

typedef struct {
    const stoa_api_t      *api;
    const stoa_endpoint_t *ep;
    stoa_mem_t            *mem;
    const char            *why;
} stoa_api_look_t;


const stoa_api_t *
stoa_api(stoa_mem_t *mem)
{
    const stoa_endpoint_t  *ep;
    const stoa_endpoint_t **rows;
    stoa_api_t             *api;
    size_t                  i, n = 0;

    for (i = 0; i < stoa_nitems(stoa_api_list); i++) {
        for (ep = stoa_api_list[i]; ep->id != NULL; ep++) {
            n++;
        }
    }

    api = stoa_calloc(mem, sizeof(stoa_api_t));
    rows = stoa_calloc(mem, (n + 1) * sizeof(stoa_endpoint_t *));

    if (api == NULL || rows == NULL) {
        return NULL;
    }

    api->rows = rows;
    api->aliases = stoa_api_aliases;

    for (i = 0; i < stoa_nitems(stoa_api_list); i++) {
        for (ep = stoa_api_list[i]; ep->id != NULL; ep++) {
            rows[api->nrows++] = ep;
        }
    }

    while (stoa_api_aliases[api->naliases].path != NULL) {
        api->naliases++;
    }

    return api;
}


const char *
stoa_method_name(stoa_method_e m)
{
    static const char *const names[STOA_METHOD_COUNT] = {
        [STOA_GET] = "GET",     [STOA_POST] = "POST",     [STOA_PUT] = "PUT",
        [STOA_PATCH] = "PATCH", [STOA_DELETE] = "DELETE",
    };

    return m > 0 && m < STOA_METHOD_COUNT ? names[m] : "-";
}


const char *
stoa_step_up_name(stoa_step_up_e step_up)
{
    return step_up == STOA_STEP_UP_OWN    ? "own"
         : step_up == STOA_STEP_UP_OTHERS ? "others"
                                          : NULL;
}


void
stoa_who_print(stoa_buf_t *b, uint32_t who)
{
    uint32_t bit;
    bool     first = true;

    for (bit = 1; bit <= STOA_PUBLIC; bit <<= 1) {
        if (who & bit) {
            stoa_buf_z(b, first ? "" : ",");
            stoa_buf_z(b, bit == STOA_PUBLIC   ? "public"
                          : bit == STOA_DEVICE ? "device"
                                               : stoa_role_name(bit));
            first = false;
        }
    }
}


static bool stoa_api_refuse(stoa_api_look_t *look, const char *fmt, ...)
    STOA_PRINTF(2, 3);

static bool
stoa_api_refuse(stoa_api_look_t *look, const char *fmt, ...)
{
    char    text[512];
    int     n = 0;
    va_list args;

    if (look->ep != NULL) {
        n = snprintf(text, sizeof(text), "row \"%.80s\": ",
                     look->ep->id != NULL ? look->ep->id : "");
    }

    va_start(args, fmt);
    (void) vsnprintf(text + n, sizeof(text) - (size_t) n, fmt, args);
    va_end(args);

    look->why = stoa_strdup_z(look->mem, stoa_str_z(text));

    if (look->why == NULL) {
        look->why = "no memory";
    }

    return false;
}


/* ---- fields ---- */

static bool
stoa_api_check_bounds(stoa_api_look_t *look, const stoa_field_t *f)
{
    switch (f->type) {
    case STOA_T_TEXT:
    case STOA_T_SECRET:
    case STOA_T_CODE:
    case STOA_T_LIST:
        if (f->min < 0 || f->max < 1 || f->min > f->max) {
            return stoa_api_refuse(look,
                                   "field \"%s\" needs .min <= .max and "
                                   "a maximum above zero",
                                   f->name);
        }

        return true;

    case STOA_T_INT:
        if (f->min > f->max || (f->min == 0 && f->max == 0)) {
            return stoa_api_refuse(look, "field \"%s\" needs both bounds",
                                   f->name);
        }

        return true;

    case STOA_T_ENUM:
        if (f->values == NULL || f->values[0] == NULL) {
            return stoa_api_refuse(look, "field \"%s\" has no .values",
                                   f->name);
        }

        return true;

    case STOA_T_EMAIL:
    case STOA_T_BOOL:
    case STOA_T_UUID:
    case STOA_T_TIME:
    case STOA_T_TIMEZONE:
    case STOA_T_CURRENCY:
    case STOA_T_URL:
    case STOA_T_OBJECT:
        return true;
    }

    return stoa_api_refuse(look, "field \"%s\" has no .type", f->name);
}


static bool
stoa_api_is_snake(const char *name)
{
    const char *p = name;

    if (*p < 'a' || *p > 'z') {
        return false;
    }

    for (/* void */; *p != '\0'; p++) {
        if (!(*p >= 'a' && *p <= 'z') && !(*p >= '0' && *p <= '9') && *p != '_')
        {
            return false;
        }
    }

    return p - name <= 60;
}


static bool
stoa_api_check_fields(stoa_api_look_t *look, const stoa_field_t *fields,
                      bool flat, unsigned depth)
{
    const stoa_field_t *f, *g;
    bool                nested, commas;

    if (fields == NULL) {
        return true;
    }

    if (depth > STOA_API_DEPTH_MAX) {
        return stoa_api_refuse(look, "fields are nested too deeply");
    }

    for (f = fields; f->name != NULL; f++) {
        nested = f->type == STOA_T_LIST || f->type == STOA_T_OBJECT;
        /* "a,b": as flat as a query gets */
        commas = f->type == STOA_T_LIST && !f->object
              && fields == look->ep->query;

        if (!stoa_api_is_snake(f->name)) {
            return stoa_api_refuse(look, "field \"%s\" is not snake_case",
                                   f->name);
        }

        for (g = fields; g != f; g++) {
            if (stoa_str_same_name(g->name, stoa_str_z(f->name))) {
                return stoa_api_refuse(look, "field \"%s\" is there twice",
                                       f->name);
            }
        }

        if (!stoa_api_check_bounds(look, f)) {
            return false;
        }

        if (nested && ((flat && !commas) || f->items == NULL)) {
            return stoa_api_refuse(look,
                                   flat && !commas
                                       ? "field \"%s\" must be flat"
                                       : "field \"%s\" has no .items",
                                   f->name);
        }

        if (f->type == STOA_T_LIST && !f->object) {
            if (f->items[0].type == STOA_T_LIST
                || f->items[0].type == STOA_T_OBJECT) {
                return stoa_api_refuse(look,
                                       "items of \"%s\" must be scalars "
                                       "or say .object",
                                       f->name);
            }

            if (!stoa_api_check_bounds(look, &f->items[0])) {
                return false;
            }

        } else if (nested
                   && !stoa_api_check_fields(look, f->items, false, depth + 1))
        {
            return false;
        }
    }

    if (f - fields > STOA_API_FIELDS_MAX) {
        return stoa_api_refuse(look, "a table has more than %d fields",
                               STOA_API_FIELDS_MAX);
    }

    return true;
}


/* ---- paths ---- */

/* The n-th :param of a path; false when there are fewer. */
static bool
stoa_api_param(const char *path, size_t n, stoa_str_t *name)
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


static bool
stoa_api_has_param(const char *path, const char *field)
{
    stoa_str_t name;
    size_t     i;

    for (i = 0; stoa_api_param(path, i, &name); i++) {
        if (stoa_str_eq_z(name, field)) {
            return true;
        }
    }

    return false;
}


static bool
stoa_api_check_path(stoa_api_look_t *look, const char *path)
{
    const char *p;
    stoa_str_t  name;
    size_t      i;

    if (path == NULL || path[0] != '/' || path[1] == '\0'
        || path[strlen(path) - 1] == '/' || strstr(path, "//") != NULL)
    {
        return stoa_api_refuse(look, ".path must be /segments without a last "
                                     "slash");
    }

    for (p = path; *p != '\0'; p++) {
        if (strchr("abcdefghijklmnopqrstuvwxyz0123456789-._/:", *p) == NULL
            || (*p == ':' && p[-1] != '/'))
        {
            return stoa_api_refuse(look,
                                   "path \"%s\" has a character that "
                                   "does not belong there",
                                   path);
        }
    }

    for (i = 0; stoa_api_param(path, i, &name); i++) {
        if (name.len == 0 || name.len > 40 || i == STOA_ROUTE_PARAMS) {
            return stoa_api_refuse(look,
                                   "path \"%s\" has a nameless or too "
                                   "many parameters",
                                   path);
        }
    }

    return true;
}


static bool
stoa_api_check_of(stoa_api_look_t *look, const stoa_endpoint_t *ep)
{
    const stoa_field_t *f;

    if (ep->of.resource == NULL) {
        return stoa_api_refuse(look, ".of is not declared (STOA_OF_NONE says "
                                     "that nobody owns it)");
    }

    if (strcmp(ep->of.resource, "-") == 0) {
        return true;
    }

    if (ep->of.relation == NULL || ep->of.field == NULL) {
        return stoa_api_refuse(look, ".of needs resource, field and relation");
    }

    if (stoa_api_has_param(ep->path, ep->of.field)) {
        return true;
    }

    for (f = ep->body; f != NULL && f->name != NULL; f++) {
        if (strcmp(f->name, ep->of.field) == 0) {
            return true;
        }
    }

    for (f = ep->query; f != NULL && f->name != NULL; f++) {
        if (strcmp(f->name, ep->of.field) == 0) {
            return true;
        }
    }

    return stoa_api_refuse(look, ".of names \"%s\", which is no field here",
                           ep->of.field);
}


/* ---- columns ---- */

static bool
stoa_api_check_declared(stoa_api_look_t *look, const stoa_endpoint_t *ep)
{
    if (ep->method <= 0 || ep->method >= STOA_METHOD_COUNT) {
        return stoa_api_refuse(look, ".method is not declared");
    }

    if (ep->who == 0 || ep->who >= STOA_PUBLIC << 1) {
        return stoa_api_refuse(look, ".who is not declared");
    }

    if (ep->rate <= 0 || ep->rate >= STOA_RATE_COUNT) {
        return stoa_api_refuse(look, ".rate is not declared");
    }

    if (ep->cost != 0 && ep->rate == STOA_RATE_NONE) {
        return stoa_api_refuse(look, ".cost without a class");
    }

    if (ep->pool < 0 || ep->pool >= STOA_POOL_COUNT
        || (ep->pool == 0 && ep->flow == STOA_FLOW_NONE))
    {
        return stoa_api_refuse(look, ".pool is not declared");
    }

    if ((ep->sql != NULL) + (ep->list != NULL) + (ep->flow != STOA_FLOW_NONE)
        != 1) {
        return stoa_api_refuse(look, "exactly one of .sql, .list, .flow");
    }

    if (ep->flow < 0 || ep->flow >= STOA_FLOW_COUNT) {
        return stoa_api_refuse(look, ".flow is not known");
    }

    if (ep->body_kind < STOA_BODY_NONE || ep->body_kind > STOA_BODY_RAW) {
        return stoa_api_refuse(look, ".body_kind is not declared");
    }

    if (ep->summary == NULL || ep->tag == NULL || ep->summary[0] == '\0') {
        return stoa_api_refuse(look, ".summary and .tag are not declared");
    }

    switch (ep->status) {
    case 200:
    case 201:
    case 202:
    case 204:
    case 302:
    case 303:
        return true;
    default:
        return stoa_api_refuse(look, ".status must be 200, 201, 202, 204, 302 "
                                     "or 303");
    }
}


static bool
stoa_api_check_via(stoa_api_look_t *look, const stoa_endpoint_t *ep)
{
    const stoa_field_t *f;
    char                scope[STOA_SCOPE_MAX];

    if (ep->via >= STOA_VIA_ACTING << 1
        || (ep->via & STOA_VIA_KEY && ep->via & STOA_VIA_ANY_KEY))
    {
        return stoa_api_refuse(look, ".via is not known");
    }

    if (ep->via & STOA_VIA_KEY && !stoa_scope_of(ep, scope)) {
        return stoa_api_refuse(look, ".via needs a shorter .tag");
    }

    for (f = ep->body; f != NULL && f->name != NULL; f++) {
        if (ep->via != 0 && f->type == STOA_T_SECRET) {
            return stoa_api_refuse(look,
                                   "\"%s\" is a secret, which is for people "
                                   "themselves: .via must be 0",
                                   f->name);
        }
    }

    return true;
}


static bool
stoa_api_check_body(stoa_api_look_t *look, const stoa_endpoint_t *ep)
{
    if (ep->body != NULL && ep->body_kind != STOA_BODY_JSON
        && ep->body_kind != STOA_BODY_FORM)
    {
        return stoa_api_refuse(look, ".body needs a JSON or FORM .body_kind");
    }

    if (ep->method == STOA_GET && ep->body_kind != STOA_BODY_NONE) {
        return stoa_api_refuse(look, "GET takes no body");
    }

    if (ep->body_max > 16777216) {
        return stoa_api_refuse(look, ".body_max is above 16 MiB");
    }

    if (ep->verify != STOA_VERIFY_NONE && ep->body_kind != STOA_BODY_RAW) {
        return stoa_api_refuse(look, ".verify needs a RAW .body_kind");
    }

    return stoa_api_check_fields(look, ep->body,
                                 ep->body_kind == STOA_BODY_FORM, 0)
        && stoa_api_check_fields(look, ep->query, true, 0)
        && stoa_api_check_fields(look, ep->path_fields, true, 0);
}


static bool
stoa_api_check_work(stoa_api_look_t *look, const stoa_endpoint_t *ep)
{
    bool call = ep->sql != NULL && strncmp(ep->sql, "api.", 4) == 0;

    if (ep->sql != NULL && !call && strncmp(ep->sql, "select ", 7) != 0) {
        return stoa_api_refuse(look, ".sql begins with \"api.\" or "
                                     "\"select \"");
    }

    if (ep->batch != 0 && (!call || ep->batch > STOA_API_BATCH_MAX)) {
        return stoa_api_refuse(look, ".batch is for calls, at most %d",
                               STOA_API_BATCH_MAX);
    }

    if (ep->keyed && (ep->method == STOA_GET || ep->list != NULL)) {
        return stoa_api_refuse(look, ".keyed is for writes");
    }

    if (ep->keyed && ep->sql != NULL && !call) {
        return stoa_api_refuse(look, ".keyed needs an api function");
    }

    if (ep->if_match && ep->method == STOA_GET) {
        return stoa_api_refuse(look, ".if_match is for writes");
    }

    if (ep->sql != NULL
        && ep->if_match != (strstr(ep->sql, "$if_match") != NULL)) {
        return stoa_api_refuse(look, ".if_match goes with $if_match");
    }

    if (ep->cache_ms != 0
        && (ep->method != STOA_GET || (ep->who & STOA_PUBLIC) == 0))
    {
        return stoa_api_refuse(look, ".cache_ms is for public GET rows");
    }

    if (ep->audit_reads
        && (ep->method != STOA_GET || ep->flow != STOA_FLOW_NONE
            || ep->batch != 0 || (ep->of.field == NULL && ep->list == NULL)
            || (ep->who & STOA_PUBLIC) != 0 || ep->pool == STOA_POOL_FAST))
    {
        return stoa_api_refuse(look, ".audit_reads is for GET rows of a "
                                     "resource and for lists, not in the fast "
                                     "pool");
    }

    if (ep->step_up < 0 || ep->step_up > STOA_STEP_UP_OTHERS
        || (ep->step_up != STOA_STEP_UP_NONE
            && (ep->who & (STOA_PUBLIC | STOA_DEVICE)) != 0))
    {
        return stoa_api_refuse(look, ".step_up is for rows of people who are "
                                     "signed in");
    }

    if (ep->who == STOA_ADMIN && ep->step_up != STOA_STEP_UP_OTHERS) {
        return stoa_api_refuse(look, "a row of admins alone says .step_up = "
                                     "STOA_STEP_UP_OTHERS");
    }

    if (ep->wait_ms > STOA_API_WAIT_MAX) {
        return stoa_api_refuse(look, ".wait_ms is at most %d",
                               STOA_API_WAIT_MAX);
    }

    if (ep->media < 0 || ep->media > STOA_MEDIA_BARE) {
        return stoa_api_refuse(look, ".media is not known");
    }

    return true;
}


static bool
stoa_api_check_list(stoa_api_look_t *look, const stoa_endpoint_t *ep)
{
    const stoa_list_t   *list = ep->list;
    const stoa_filter_t *filter;
    const stoa_sort_t   *sort;
    const stoa_field_t  *f;

    if (list == NULL) {
        return true;
    }

    if (ep->method != STOA_GET) {
        return stoa_api_refuse(look, ".list is for GET");
    }

    if (list->from == NULL || list->item == NULL || list->id == NULL
        || list->sorts == NULL || list->sorts[0].name == NULL)
    {
        return stoa_api_refuse(look, ".list needs from, item, id and a sort");
    }

    if (list->limit < 1 || list->max < list->limit || list->max > 1000) {
        return stoa_api_refuse(look, ".list needs 1 <= limit <= max <= 1000");
    }

    for (sort = list->sorts; sort->name != NULL; sort++) {
        if (sort->expr == NULL || sort->type == NULL
            || sort - list->sorts == 32) {
            return stoa_api_refuse(look, "sort \"%s\" needs expr and type",
                                   sort->name);
        }
    }

    for (filter = list->filters; filter != NULL && filter->field != NULL;
         filter++) {
        if (filter->where == NULL) {
            return stoa_api_refuse(look, "filter \"%s\" has no .where",
                                   filter->field);
        }

        for (f = ep->query; f != NULL && f->name != NULL; f++) {
            if (strcmp(f->name, filter->field) == 0) {
                break;
            }
        }

        if (f == NULL || f->name == NULL) {
            return stoa_api_refuse(look, "filter \"%s\" is no query field",
                                   filter->field);
        }
    }

    return true;
}


static bool
stoa_api_check_names(stoa_api_look_t *look, const stoa_endpoint_t *ep)
{
    const stoa_field_t *f;
    const char         *p;
    unsigned            i;

    for (p = ep->id; *p != '\0'; p++) {
        if (!(*p >= 'a' && *p <= 'z') && !(*p >= '0' && *p <= '9') && *p != '_'
            && *p != '.')
        {
            return stoa_api_refuse(look, ".id has an odd character");
        }
    }

    /* "<id>:cursor:<n>" must fit PostgreSQL's 63 */
    if (p == ep->id || p - ep->id > 48) {
        return stoa_api_refuse(look, ".id must have 1 to 48 characters");
    }

    for (f = ep->path_fields; f != NULL && f->name != NULL; f++) {
        if (!stoa_api_has_param(ep->path, f->name)) {
            return stoa_api_refuse(look,
                                   "path field \"%s\" is not in the "
                                   "path",
                                   f->name);
        }
    }

    for (i = 0; i < STOA_MAX_ERRORS; i++) {
        if ((unsigned) ep->errors[i] >= STOA_E_COUNT) {
            return stoa_api_refuse(look, ".errors holds an unknown error");
        }
    }

    return true;
}


static bool
stoa_api_check_row(stoa_api_look_t *look, const stoa_endpoint_t *ep)
{
    return stoa_api_check_path(look, ep->path) && stoa_api_check_names(look, ep)
        && stoa_api_check_declared(look, ep) && stoa_api_check_of(look, ep)
        && stoa_api_check_via(look, ep) && stoa_api_check_body(look, ep)
        && stoa_api_check_work(look, ep) && stoa_api_check_list(look, ep);
}


static bool
stoa_api_check_alias(stoa_api_look_t *look, const stoa_alias_t *alias)
{
    const stoa_endpoint_t *ep = NULL;
    stoa_str_t             a, b;
    size_t                 i;
    bool                   more;

    if (!stoa_api_check_path(look, alias->path)) {
        return false;
    }

    for (i = 0; i < look->api->nrows && alias->id != NULL; i++) {
        if (strcmp(look->api->rows[i]->id, alias->id) == 0) {
            ep = look->api->rows[i];
            break;
        }
    }

    if (ep == NULL || ep->method != alias->method) {
        return stoa_api_refuse(look,
                               "alias \"%s\" names no row with its "
                               "method",
                               alias->path);
    }

    for (i = 0;; i++) {
        more = stoa_api_param(alias->path, i, &a);

        if (more != stoa_api_param(ep->path, i, &b)
            || (more && !stoa_str_eq(a, b))) {
            return stoa_api_refuse(look,
                                   "alias \"%s\" must have the "
                                   "parameters of its row",
                                   alias->path);
        }

        if (!more) {
            return true;
        }
    }
}


bool
stoa_api_check(const stoa_api_t *api, stoa_mem_t *mem, const char **why)
{
    stoa_api_look_t look = { .api = api, .mem = mem };
    size_t          i, j;
    bool            good = true;

    for (i = 0; good && i < api->nrows; i++) {
        look.ep = api->rows[i];
        good = stoa_api_check_row(&look, api->rows[i]);

        for (j = 0; good && j < i; j++) {
            if (strcmp(api->rows[j]->id, api->rows[i]->id) == 0) {
                good = stoa_api_refuse(&look, "the id is there twice");
            }
        }
    }

    look.ep = NULL;

    for (i = 0; good && i < api->naliases; i++) {
        good = stoa_api_check_alias(&look, &api->aliases[i]);
    }

    *why = look.why;

    return good;
}
