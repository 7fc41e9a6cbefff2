/*
 * The binder: from a row's .sql or .list to statements with numbered, cast
 * parameters, once, while the configuration is read.  Three steps: a template
 * with $names is put together (as written, around a call, or from the parts
 * of a list); the names become $1..$n with casts, literals and quoted names
 * left alone; then every declared field must have been used.  All memory is
 * the caller's; nothing here runs per request.
 */

#include "stoa_bind.h"
#include "stoa_buf.h"
#include "stoa_str.h"

#include <stdarg.h>
#include <stdio.h>

#define STOA_BIND_SQL_MAX 65536
#define STOA_BIND_NAMES   192

#define STOA_BIND_COLUMNS "a.status, a.body, a.meta, a.etag, a.emit, a.wait"

typedef enum {
    STOA_BIND_SINGLE = 1, /* $1::type */
    STOA_BIND_ARRAY       /* $1::type[]: a batch */
} stoa_bind_form_e;

typedef struct {
    stoa_mem_t            *mem;
    const stoa_endpoint_t *ep;
    const char            *why;
    stoa_bound_t          *bound; /* being made */
    stoa_bind_form_e       form;
    bool                   body_bound; /* $body was seen in any statement */
    uint32_t               path_used;
    uint64_t               query_used;
    uint64_t               field_used;
} stoa_bind_t;

/* Names that are not fields. */
static const struct {
    const char *name;
    stoa_arg_e  kind;
    const char *type;
} stoa_bind_specials[] = {
    { "ctx", STOA_ARG_CTX, "api.ctx" },
    { "actor", STOA_ARG_ACTOR, "uuid" },
    { "session", STOA_ARG_SESSION, "uuid" },
    { "acting_as", STOA_ARG_ACTING_AS, "uuid" },
    { "api_key", STOA_ARG_API_KEY, "uuid" },
    { "device", STOA_ARG_DEVICE, "uuid" },
    { "device_event", STOA_ARG_DEVICE_EVENT, "uuid" },
    { "roles", STOA_ARG_ROLES, "text[]" },
    { "ip", STOA_ARG_IP, "text" },
    { "request_id", STOA_ARG_REQUEST_ID, "text" },
    { "lang", STOA_ARG_LANG, "text" },
    { "new_id", STOA_ARG_NEW_ID, "uuid" },
    { "body", STOA_ARG_BODY, "jsonb" },
    { "raw", STOA_ARG_RAW, "bytea" },
    { "if_match", STOA_ARG_IF_MATCH, "int" },
    { "codes", STOA_ARG_CODES, "jsonb" },
    { "limit", STOA_ARG_LIMIT, "int" },
    { "offset", STOA_ARG_OFFSET, "int" },
    { "cursor", STOA_ARG_CURSOR, "jsonb" },
    { "ord", STOA_ARG_ORD, "int" },
    { "hash", STOA_ARG_HASH, "text" },
    { "provider", STOA_ARG_PROVIDER, "text" },
    { "idem_scope", STOA_ARG_IDEM_SCOPE, "text" },
    { "idem_key", STOA_ARG_IDEM_KEY, "text" },
    { "idem_print", STOA_ARG_IDEM_PRINT, "text" },
};

static const char *const stoa_bind_headers[] = {
    "user_agent",
    "stripe_signature",
    "accept_language",
};

/* The type of a :param whose row says nothing. */
static const stoa_field_t stoa_bind_uuid = { .name = "id",
                                             .type = STOA_T_UUID };


static bool stoa_bind_fail(stoa_bind_t *bind, const char *fmt, ...)
    STOA_PRINTF(2, 3);

static bool
stoa_bind_fail(stoa_bind_t *bind, const char *fmt, ...)
{
    char    text[512];
    int     n;
    va_list args;

    n = snprintf(text, sizeof(text), "row \"%.80s\": ", bind->ep->id);

    va_start(args, fmt);
    (void) vsnprintf(text + n, sizeof(text) - (size_t) n, fmt, args);
    va_end(args);

    bind->why = stoa_strdup_z(bind->mem, stoa_str_z(text));

    if (bind->why == NULL) {
        bind->why = "no memory";
    }

    return false;
}


static const char *
stoa_bind_type(const stoa_field_t *field)
{
    switch (field->type) {
    case STOA_T_INT:
        return field->min >= INT32_MIN && field->max <= INT32_MAX ? "int"
                                                                  : "bigint";
    case STOA_T_BOOL:
        return "bool";
    case STOA_T_UUID:
        return "uuid";
    case STOA_T_TIME:
        return "timestamptz";
    case STOA_T_LIST:
    case STOA_T_OBJECT:
        return "jsonb";
    case STOA_T_TEXT:
    case STOA_T_EMAIL:
    case STOA_T_SECRET:
    case STOA_T_TIMEZONE:
    case STOA_T_CURRENCY:
    case STOA_T_URL:
    case STOA_T_ENUM:
    case STOA_T_CODE:
        break;
    }

    return "text";
}


static ssize_t
stoa_bind_field(const stoa_field_t *fields, stoa_str_t name)
{
    ssize_t i;

    for (i = 0; fields != NULL && fields[i].name != NULL; i++) {
        if (stoa_str_eq_z(name, fields[i].name)) {
            return i;
        }
    }

    return -1;
}


/* The n-th :param of the row's path. */
static bool
stoa_bind_param(const stoa_endpoint_t *ep, size_t n, stoa_str_t *name)
{
    const char *p;

    for (p = strchr(ep->path, ':'); p != NULL; p = strchr(p, ':')) {
        p++;

        if (n-- == 0) {
            name->data = (unsigned char *) (uintptr_t) p;
            name->len = strcspn(p, "/.");
            return true;
        }
    }

    return false;
}


/* Resolves a field of path, query or body. */
static bool
stoa_bind_lookup_field(stoa_bind_t *bind, stoa_str_t name, stoa_arg_t *arg)
{
    const stoa_endpoint_t *ep = bind->ep;
    stoa_str_t             param;
    ssize_t                i;
    size_t                 n;

    for (n = 0; stoa_bind_param(ep, n, &param); n++) {
        if (stoa_str_eq(param, name)) {
            i = stoa_bind_field(ep->path_fields, name);
            arg->kind = STOA_ARG_PATH;
            arg->index = (uint8_t) n;
            arg->field = i >= 0 ? &ep->path_fields[i] : &stoa_bind_uuid;
            bind->path_used |= (uint32_t) 1 << n;
            return true;
        }
    }

    i = stoa_bind_field(ep->query, name);

    if (i >= 0) {
        arg->kind = STOA_ARG_QUERY;
        arg->index = (uint8_t) i;
        arg->field = &ep->query[i];
        bind->query_used |= (uint64_t) 1 << i;
        return true;
    }

    i = stoa_bind_field(ep->body, name);

    if (i >= 0) {
        arg->kind = STOA_ARG_FIELD;
        arg->index = (uint8_t) i;
        arg->field = &ep->body[i];
        bind->field_used |= (uint64_t) 1 << i;
        return true;
    }

    return false;
}


static bool
stoa_bind_unknown(stoa_bind_t *bind, stoa_str_t name)
{
    const char         *names[STOA_BIND_NAMES], *near;
    const stoa_field_t *tables[3], *f;
    stoa_str_t          param;
    size_t              i, n = 0;

    for (i = 0; i < stoa_nitems(stoa_bind_specials); i++) {
        names[n++] = stoa_bind_specials[i].name;
    }

    for (i = 0; stoa_bind_param(bind->ep, i, &param); i++) {
        names[n] = stoa_strdup_z(bind->mem, param);
        n += names[n] != NULL;
    }

    tables[0] = bind->ep->query;
    tables[1] = bind->ep->body;
    tables[2] = NULL;

    for (i = 0; i < stoa_nitems(tables); i++) {
        for (f = tables[i]; f != NULL && f->name != NULL; f++) {
            if (n < STOA_BIND_NAMES) {
                names[n++] = f->name;
            }
        }
    }

    near = stoa_str_nearest(name, names, n);

    return stoa_bind_fail(bind, "\"$%.*s\" is not known%s%s%s",
                          name.len > 60 ? 60 : (int) name.len, name.data,
                          near != NULL ? "; did you mean \"$" : "",
                          near != NULL ? near : "", near != NULL ? "\"?" : "");
}


/* Some specials mean something in some statements only. */
static bool
stoa_bind_special_here(stoa_bind_t *bind, stoa_arg_e kind)
{
    switch (kind) {
    case STOA_ARG_LIMIT:
    case STOA_ARG_OFFSET:
    case STOA_ARG_CURSOR:
        return bind->ep->list != NULL;
    case STOA_ARG_ORD:
        return bind->ep->batch != 0;
    default:
        return true;
    }
}


static bool
stoa_bind_resolve(stoa_bind_t *bind, stoa_str_t name, stoa_arg_t *arg,
                  const char **type)
{
    stoa_str_t front;
    size_t     i;

    for (i = 0; i < stoa_nitems(stoa_bind_specials); i++) {
        if (stoa_str_eq_z(name, stoa_bind_specials[i].name)
            && stoa_bind_special_here(bind, stoa_bind_specials[i].kind))
        {
            arg->kind = stoa_bind_specials[i].kind;
            arg->name = stoa_bind_specials[i].name;
            *type = stoa_bind_specials[i].type;

            if (arg->kind == STOA_ARG_BODY) {
                bind->body_bound = true;
            }

            return true;
        }
    }

    if (name.len > 2 && memcmp(name.data, "h_", 2) == 0) {
        front.data = name.data + 2;
        front.len = name.len - 2;

        for (i = 0; i < stoa_nitems(stoa_bind_headers); i++) {
            if (stoa_str_eq_z(front, stoa_bind_headers[i])) {
                arg->kind = STOA_ARG_HEADER;
                arg->name = stoa_bind_headers[i];
                *type = "text";
                return true;
            }
        }

        return stoa_bind_fail(bind,
                              "the header of \"$%.*s\" is not on the "
                              "list",
                              (int) name.len, name.data);
    }

    front = name;

    if (name.len > 2 && memcmp(name.data, "q_", 2) == 0) {
        front.data = name.data + 2;
        front.len = name.len - 2;
    }

    if (!stoa_bind_lookup_field(bind, front, arg)) {
        return stoa_bind_unknown(bind, name);
    }

    arg->name = stoa_strdup_z(bind->mem, name);
    *type = arg->kind == STOA_ARG_QUERY && arg->field->type == STOA_T_LIST
              ? "text" /* "a,b" */
              : stoa_bind_type(arg->field);

    return arg->name != NULL || stoa_bind_fail(bind, "no memory");
}


static bool
stoa_bind_same(const stoa_arg_t *a, const stoa_arg_t *b)
{
    if (a->kind != b->kind) {
        return false;
    }

    switch (a->kind) {
    case STOA_ARG_PATH:
    case STOA_ARG_QUERY:
    case STOA_ARG_FIELD:
        return a->index == b->index;
    case STOA_ARG_HEADER:
        return a->name == b->name;
    default:
        return true;
    }
}


/* Writes the parameter that a name stands for. */
static bool
stoa_bind_name(stoa_bind_t *bind, stoa_buf_t *out, stoa_str_t name)
{
    stoa_bound_t *bound = bind->bound;
    stoa_arg_t    arg = { .name = NULL };
    const char   *type = "text";
    unsigned      i;
    bool          single;

    if (!stoa_bind_resolve(bind, name, &arg, &type)) {
        return false;
    }

    single = bind->form == STOA_BIND_SINGLE || arg.kind == STOA_ARG_IDEM_SCOPE
          || arg.kind == STOA_ARG_IDEM_KEY || arg.kind == STOA_ARG_IDEM_PRINT;

    if (!single) {
        /* requests differ in how many roles they have: literals */
        type = arg.kind == STOA_ARG_ROLES ? "text" : type;
        arg.elem = stoa_pg_elem(type);
    }

    for (i = 0; i < bound->nargs; i++) {
        if (stoa_bind_same(&bound->args[i], &arg)) {
            break;
        }
    }

    if (i == bound->nargs) {
        if (i == STOA_MAX_ARGS) {
            return stoa_bind_fail(bind, "more than %d parameters",
                                  STOA_MAX_ARGS);
        }

        bound->args[bound->nargs++] = arg;
    }

    bound->formats[i] = arg.elem != STOA_PG_ELEM_NONE;
    stoa_buf_printf(out, single ? "$%u::%s" : "$%u::%s[]", i + 1, type);

    return true;
}


static bool
stoa_bind_is_name(char c, bool first)
{
    return (c >= 'a' && c <= 'z') || c == '_'
        || (!first && c >= '0' && c <= '9');
}


/* Copies sql to out; every $name becomes its parameter. */
static bool
stoa_bind_expand(stoa_bind_t *bind, stoa_buf_t *out, const char *sql)
{
    const char *p = sql, *end;
    stoa_str_t  name;

    while (*p != '\0') {
        if (*p == '\'' || *p == '"') {
            end = strchr(p + 1, *p);

            if (end == NULL) {
                return stoa_bind_fail(bind, "a quote is not closed");
            }

            stoa_buf_put(out, p, (size_t) (end - p + 1));
            p = end + 1;
            continue;
        }

        if (*p == ';' || (p[0] == '-' && p[1] == '-')
            || (p[0] == '/' && p[1] == '*')) {
            return stoa_bind_fail(bind, "no semicolons and comments in SQL");
        }

        if (*p != '$') {
            stoa_buf_char(out, *p++);
            continue;
        }

        name.data = (unsigned char *) (uintptr_t) ++p;

        if (!stoa_bind_is_name(*p, true)) {
            return stoa_bind_fail(bind, "a name must follow \"$\"");
        }

        while (stoa_bind_is_name(*p, false)) {
            p++;
        }

        name.len = (size_t) (p - (char *) name.data);

        if (!stoa_bind_name(bind, out, name)) {
            return false;
        }
    }

    return true;
}


/* Expands several texts, ended by NULL. */
static bool
stoa_bind_words(stoa_bind_t *bind, stoa_buf_t *out, ...)
{
    const char *text;
    va_list     args;
    bool        good = true;

    va_start(args, out);

    while (good && (text = va_arg(args, const char *)) != NULL) {
        good = stoa_bind_expand(bind, out, text);
    }

    va_end(args);

    return good;
}


/* A new statement; its text is written to out and ended by _end. */
static bool
stoa_bind_begin(stoa_bind_t *bind, stoa_bound_t *bound, stoa_bind_form_e form,
                const char *suffix, stoa_buf_t *out)
{
    stoa_buf_t name;

    bind->bound = bound;
    bind->form = form;

    stoa_buf_init(&name, bind->mem, 64, 64);
    stoa_buf_z(&name, bind->ep->id);
    stoa_buf_z(&name, suffix);
    stoa_buf_nul(&name);

    if (name.failed) {
        return stoa_bind_fail(bind, "the name of a statement is too long");
    }

    bound->stmt.name = (const char *) name.data;
    stoa_buf_init(out, bind->mem, 1024, STOA_BIND_SQL_MAX);

    if (bind->ep->audit_reads) {
        stoa_buf_z(out, "with seen as materialized (");
    }

    return true;
}


/* Behind the statement of a row with .audit_reads: the left join makes the
   note run, and only of what was shown. */
static bool
stoa_bind_noted(stoa_bind_t *bind, stoa_buf_t *out)
{
    const stoa_endpoint_t *ep = bind->ep;

    stoa_buf_z(out, "), noted as materialized (select api.audit_viewed(");

    if (!stoa_bind_expand(bind, out, "$ctx, ")) {
        return false;
    }

    if (ep->of.field == NULL) { /* a list, of no one resource */
        stoa_buf_printf(out, "'%s', null", ep->tag);

    } else {
        stoa_buf_printf(out, "'%s', ", ep->of.resource);

        if (!stoa_bind_name(bind, out, stoa_str_z(ep->of.field))) {
            return false;
        }
    }

    stoa_buf_printf(out,
                    ", '%s') as done from seen where seen.status between 200 "
                    "and 299) select seen.* from seen left join noted on true",
                    ep->id);

    return true;
}


static bool
stoa_bind_end(stoa_bind_t *bind, stoa_buf_t *out)
{
    if (bind->ep->audit_reads && !stoa_bind_noted(bind, out)) {
        return false;
    }

    stoa_buf_nul(out);

    if (out->failed) {
        return stoa_bind_fail(bind, "no memory, or a text above %d bytes",
                              STOA_BIND_SQL_MAX);
    }

    bind->bound->stmt.sql = (const char *) out->data;
    bind->bound->stmt.nparams = bind->bound->nargs;
    bind->bound->stmt.formats = bind->form == STOA_BIND_ARRAY
                                  ? bind->bound->formats
                                  : NULL;
    bind->bound->stmt.write = bind->ep->method != STOA_GET
                           || bind->ep->pool == STOA_POOL_WRITE
                           || bind->ep->audit_reads;

    return true;
}


static bool
stoa_bind_is_call(const stoa_endpoint_t *ep)
{
    return strncmp(ep->sql, "api.", 4) == 0;
}


static bool
stoa_bind_plain(stoa_bind_t *bind, stoa_bound_t *bound)
{
    const stoa_endpoint_t *ep = bind->ep;
    stoa_bind_form_e       form;
    stoa_buf_t             out;

    form = ep->batch != 0 ? STOA_BIND_ARRAY : STOA_BIND_SINGLE;

    if (!stoa_bind_begin(bind, bound, form, "", &out)) {
        return false;
    }

    if (!stoa_bind_is_call(ep)) {
        return stoa_bind_expand(bind, &out, ep->sql)
            && stoa_bind_end(bind, &out);
    }

    stoa_buf_z(&out, "select ");
    stoa_buf_z(&out, ep->batch != 0 ? "a.ord, " : "");
    stoa_buf_z(&out, STOA_BIND_COLUMNS " from ");

    if (!stoa_bind_expand(bind, &out, ep->sql)) {
        return false;
    }

    stoa_buf_z(&out, " a");

    if (ep->batch != 0
        && (bound->nargs == 0 || bound->args[0].kind != STOA_ARG_ORD))
    {
        return stoa_bind_fail(bind, "a batch function takes $ord first");
    }

    return stoa_bind_end(bind, &out);
}


/* The codes whose answers are not stored: 5xx. */
static void
stoa_bind_not_stored(stoa_buf_t *out)
{
    unsigned i;
    bool     first = true;

    for (i = STOA_OK + 1; i < STOA_E_COUNT; i++) {
        if (stoa_err_row((stoa_err_e) i)->status >= 500) {
            stoa_buf_printf(out, "%s'%s'", first ? "" : ", ",
                            stoa_err_row((stoa_err_e) i)->code);
            first = false;
        }
    }
}


/*
 * Decision 6.  The call stands in a lateral subquery behind "offset 0", so
 * that the planner neither pulls it up nor runs it unless the state is 'new';
 * the left joins make every part run, in this order.
 */
static bool
stoa_bind_keyed(stoa_bind_t *bind, stoa_bound_t *bound)
{
    const stoa_endpoint_t *ep = bind->ep;
    stoa_bind_form_e       form;
    stoa_buf_t             out;

    form = ep->batch != 0 ? STOA_BIND_ARRAY : STOA_BIND_SINGLE;

    if (!stoa_bind_begin(bind, bound, form, ":keyed", &out)) {
        return false;
    }

    if (!stoa_bind_expand(bind, &out,
                          "with i as materialized ("
                          "select b.state, b.status, b.body, b.meta, b.etag, "
                          "b.at from api.idem_begin($idem_scope, $idem_key, "
                          "$idem_print) b), "
                          "a as materialized (select c.status, "
                          "c.body::json as body, c.meta, c.etag, c.emit, "
                          "c.wait from i cross join "
                          "lateral (select " STOA_BIND_COLUMNS " from ")
        || !stoa_bind_expand(bind, &out, ep->sql)
        || !stoa_bind_expand(bind, &out,
                             " a where i.state = 'new' offset 0) c), "
                             "s as materialized (select api.idem_store("
                             "$idem_scope, $idem_key, $idem_print, a.status, "
                             "a.body, a.meta, a.etag) as at from a where "
                             "a.status < 500 and (a.status <> 0 or "
                             "a.body->>'code' <> all (array["))
    {
        return false;
    }

    stoa_bind_not_stored(&out);

    stoa_buf_z(&out,
               "]))) select case i.state when 'new' then a.status when "
               "'stored' then i.status else 0 end as status, "
               "case i.state when 'new' then a.body when 'stored' then i.body "
               "when 'in_flight' then '{\"code\":\"IN_FLIGHT\"}'::json "
               "else '{\"code\":\"IDEMPOTENCY_KEY_REUSED\"}'::json end as "
               "body, "
               "case i.state when 'new' then a.meta when 'stored' then i.meta "
               "end as meta, "
               "case i.state when 'new' then a.etag when 'stored' then i.etag "
               "end as etag, "
               "a.emit, a.wait, i.state as idem_state, "
               "i.state = 'stored' as replayed, "
               "to_char(case i.state when 'new' then s.at else i.at end at "
               "time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') as at "
               "from i left join a on true left join s on true");

    return stoa_bind_end(bind, &out);
}


/* " from F where W and filters" of a list. */
static bool
stoa_bind_list_from(stoa_bind_t *bind, stoa_buf_t *out)
{
    const stoa_list_t   *list = bind->ep->list;
    const stoa_filter_t *filter;
    char                 field[64];

    stoa_buf_z(out, " from ");

    if (!stoa_bind_expand(bind, out, list->from)) {
        return false;
    }

    stoa_buf_z(out, " where (");

    if (list->may != NULL) {
        if (!stoa_bind_expand(bind, out, list->may)) {
            return false;
        }

        stoa_buf_z(out, ") and (");
    }

    if (!stoa_bind_expand(bind, out,
                          list->where != NULL ? list->where : "true")) {
        return false;
    }

    stoa_buf_char(out, ')');

    for (filter = list->filters; filter != NULL && filter->field != NULL;
         filter++) {
        if (snprintf(field, sizeof(field), "q_%s", filter->field)
            >= (int) sizeof(field))
        {
            return stoa_bind_fail(bind, "filter \"%s\" is too long",
                                  filter->field);
        }

        stoa_buf_z(out, " and (");

        if (!stoa_bind_name(bind, out, stoa_str_z(field))) {
            return false;
        }

        stoa_buf_z(out, " is null or (");

        if (!stoa_bind_expand(bind, out, filter->where)) {
            return false;
        }

        stoa_buf_z(out, "))");
    }

    return true;
}


/* The status and body columns. */
static bool
stoa_bind_list_body(stoa_bind_t *bind, stoa_buf_t *out)
{
    static const char body[] = "coalesce((select json_agg(q.item order by "
                               "q.n) from q where q.n <= $limit), "
                               "'[]'::json)";
    const char       *may = bind->ep->list->may;

    if (may == NULL) {
        return stoa_bind_words(bind, out, "select 200 as status, ", body,
                               " as body, ", NULL);
    }

    return stoa_bind_words(bind, out, "select case when ", may,
                           " then 200 else 0 end as status, case when ", may,
                           " then ", body,
                           " else '{\"code\":\"NOT_FOUND\"}'::json end as "
                           "body, ",
                           NULL);
}


/*
 * q is the page and one row more, numbered in order.  item is computed for
 * these rows only: PostgreSQL evaluates it behind the limit.
 */
static bool
stoa_bind_list(stoa_bind_t *bind, stoa_bound_t *bound, size_t n, bool cursor)
{
    const stoa_list_t *list = bind->ep->list;
    const stoa_sort_t *sort = &list->sorts[n];
    const char        *id_type, *dir = sort->desc ? " desc" : "";
    char               suffix[32], key[512];
    stoa_buf_t         out;

    id_type = list->id_type != NULL ? list->id_type : "uuid";
    (void) snprintf(suffix, sizeof(suffix), ":%s:%zu",
                    cursor ? "cursor" : "page", n);

    if (snprintf(key, sizeof(key), "%s, %s", sort->expr, list->id)
        >= (int) sizeof(key))
    {
        return stoa_bind_fail(bind, "sort \"%s\" is too long", sort->name);
    }

    if (!stoa_bind_begin(bind, bound, STOA_BIND_SINGLE, suffix, &out)) {
        return false;
    }

    stoa_buf_z(&out, "with p as materialized (select ");

    if (!stoa_bind_expand(bind, &out, list->item)) {
        return false;
    }

    if (!stoa_bind_words(bind, &out, " as item, json_build_array(", key,
                         ") as k", NULL)
        || !stoa_bind_list_from(bind, &out))
    {
        return false;
    }

    if (cursor) {
        stoa_buf_z(&out, " and (");

        if (!stoa_bind_words(bind, &out, "$cursor is null or (", key, ") ",
                             sort->desc ? "<" : ">",
                             " (($cursor->>0)::", sort->type,
                             ", ($cursor->>1)::", id_type, "))", NULL))
        {
            return false;
        }
    }

    if (!stoa_bind_words(bind, &out, " order by ", sort->expr, dir, ", ",
                         list->id, dir, " limit $limit + 1",
                         cursor ? ")" : " offset $offset)",
                         ", q as materialized (select p.item, p.k, "
                         "row_number() over () as n from p) ",
                         NULL)
        || !stoa_bind_list_body(bind, &out))
    {
        return false;
    }

    if (!cursor) {
        stoa_buf_z(&out, "(select count(*)");

        if (!stoa_bind_list_from(bind, &out)) {
            return false;
        }

        stoa_buf_z(&out, ") as total, ");
    }

    return stoa_bind_expand(bind, &out,
                            "(select q.k from q where q.n = $limit and "
                            "exists (select from q o where o.n > $limit)) as "
                            "next")
        && stoa_bind_end(bind, &out);
}


/* A declared field that reaches nothing is a mistake of the row. */
static bool
stoa_bind_check_used(stoa_bind_t *bind)
{
    static const char *const paging[] = { "page", "limit", "sort", "cursor" };
    const stoa_endpoint_t   *ep = bind->ep;
    stoa_str_t               name;
    size_t                   i, j;
    bool                     skip;

    for (i = 0; stoa_bind_param(ep, i, &name); i++) {
        if ((bind->path_used >> i & 1) == 0) {
            return stoa_bind_fail(bind, "no $%.*s for the path's parameter",
                                  (int) name.len, name.data);
        }
    }

    for (i = 0; ep->query != NULL && ep->query[i].name != NULL; i++) {
        skip = (bind->query_used >> i & 1) != 0;

        for (j = 0; ep->list != NULL && j < stoa_nitems(paging); j++) {
            skip = skip || strcmp(ep->query[i].name, paging[j]) == 0;
        }

        if (!skip) {
            return stoa_bind_fail(bind, "query field \"%s\" is used nowhere",
                                  ep->query[i].name);
        }
    }

    for (i = 0;
         !bind->body_bound && ep->body != NULL && ep->body[i].name != NULL; i++)
    {
        if ((bind->field_used >> i & 1) == 0) {
            return stoa_bind_fail(bind, "body field \"%s\" is used nowhere",
                                  ep->body[i].name);
        }
    }

    return true;
}


static bool
stoa_bind_lists(stoa_bind_t *bind, stoa_bound_row_t *out)
{
    const stoa_list_t *list = bind->ep->list;
    size_t             i, n = 0;

    while (list->sorts[n].name != NULL) {
        n++;
    }

    out->nsorts = (uint16_t) n;
    out->pages = stoa_calloc(bind->mem, n * sizeof(stoa_bound_t));
    out->cursors = stoa_calloc(bind->mem, n * sizeof(stoa_bound_t));

    if (out->pages == NULL || out->cursors == NULL) {
        return stoa_bind_fail(bind, "no memory");
    }

    for (i = 0; i < n; i++) {
        if (!stoa_bind_list(bind, &out->pages[i], i, false)
            || !stoa_bind_list(bind, &out->cursors[i], i, true))
        {
            return false;
        }
    }

    return true;
}


static bool
stoa_bind_calls(stoa_bind_t *bind, stoa_bound_row_t *out)
{
    const stoa_endpoint_t *ep = bind->ep;

    out->plain = stoa_calloc(bind->mem, sizeof(stoa_bound_t));

    if (out->plain == NULL) {
        return stoa_bind_fail(bind, "no memory");
    }

    if (!stoa_bind_plain(bind, out->plain)) {
        return false;
    }

    if (!ep->keyed) {
        return true;
    }

    if (!stoa_bind_is_call(ep)) {
        return stoa_bind_fail(bind, "a keyed row calls an api function");
    }

    out->keyed = stoa_calloc(bind->mem, sizeof(stoa_bound_t));

    if (out->keyed == NULL) {
        return stoa_bind_fail(bind, "no memory");
    }

    return stoa_bind_keyed(bind, out->keyed);
}


bool
stoa_bind_row(stoa_mem_t *mem, const stoa_endpoint_t *ep, stoa_bound_row_t *out,
              const char **why)
{
    stoa_bind_t bind = { .mem = mem, .ep = ep };
    bool        good = true;

    memset(out, 0, sizeof(stoa_bound_row_t));
    out->ep = ep;
    *why = NULL;

    if (ep->list != NULL) {
        good = stoa_bind_lists(&bind, out);

    } else if (ep->sql != NULL) {
        good = stoa_bind_calls(&bind, out);

    } else {
        return true; /* a flow has statements of its own */
    }

    good = good && stoa_bind_check_used(&bind);
    *why = bind.why;

    return good;
}
