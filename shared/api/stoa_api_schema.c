/*
 * The JSON writer of the OpenAPI document and the schemas of fields, nested
 * as the tables nest them.
 */

#include "stoa_api_openapi.h"
#include "../stoa_str.h"

#define STOA_OPENAPI_DEPTH 16


/* ---- JSON ---- */

void
stoa_openapi_sep(stoa_openapi_t *o)
{
    if (o->comma) {
        stoa_buf_char(o->b, ',');
    }

    o->comma = true;
}


void
stoa_openapi_open(stoa_openapi_t *o, char c)
{
    stoa_openapi_sep(o);
    stoa_buf_char(o->b, c);
    o->comma = false;
}


void
stoa_openapi_close(stoa_openapi_t *o, char c)
{
    stoa_buf_char(o->b, c);
    o->comma = true;
}


void
stoa_openapi_key(stoa_openapi_t *o, const char *key)
{
    stoa_openapi_sep(o);
    stoa_buf_json_z(o->b, key);
    stoa_buf_char(o->b, ':');
    o->comma = false;
}


void
stoa_openapi_object(stoa_openapi_t *o, const char *key)
{
    stoa_openapi_key(o, key);
    stoa_openapi_open(o, '{');
}


void
stoa_openapi_list(stoa_openapi_t *o, const char *key)
{
    stoa_openapi_key(o, key);
    stoa_openapi_open(o, '[');
}


void
stoa_openapi_item(stoa_openapi_t *o, const char *text)
{
    stoa_openapi_sep(o);
    stoa_buf_json_z(o->b, text);
}


void
stoa_openapi_text(stoa_openapi_t *o, const char *key, const char *text)
{
    stoa_openapi_key(o, key);
    stoa_openapi_item(o, text);
}


void
stoa_openapi_int(stoa_openapi_t *o, const char *key, int64_t n)
{
    stoa_openapi_key(o, key);
    stoa_openapi_sep(o);
    stoa_buf_int(o->b, n);
}


/* Text that is JSON already. */
void
stoa_openapi_raw(stoa_openapi_t *o, const char *key, const char *json)
{
    stoa_openapi_key(o, key);
    stoa_openapi_sep(o);
    stoa_buf_z(o->b, json);
}


void
stoa_openapi_camel(stoa_openapi_t *o, const char *snake, char *out, size_t size)
{
    if (strlen(snake) >= size) {
        o->b->failed = true;
        out[0] = '\0';
        return;
    }

    stoa_str_camel(snake, out);
}


/* ---- schemas of fields ---- */

static void
stoa_openapi_type(stoa_openapi_t *o, const stoa_field_t *f, const char *type)
{
    if ((f->flags & STOA_NULLABLE) == 0) {
        stoa_openapi_text(o, "type", type);
        return;
    }

    stoa_openapi_list(o, "type");
    stoa_openapi_item(o, type);
    stoa_openapi_item(o, "null");
    stoa_openapi_close(o, ']');
}


static void
stoa_openapi_bounds(stoa_openapi_t *o, const stoa_field_t *f, const char *min,
                    const char *max)
{
    if (f->min != 0 || f->type == STOA_T_INT) {
        stoa_openapi_int(o, min, f->min);
    }

    if (f->max != 0 || f->type == STOA_T_INT) {
        stoa_openapi_int(o, max, f->max);
    }
}


static void
stoa_openapi_enum(stoa_openapi_t *o, const stoa_field_t *f)
{
    const char *const *value;

    stoa_openapi_type(o, f, "string");
    stoa_openapi_list(o, "enum");

    for (value = f->values; *value != NULL; value++) {
        stoa_openapi_item(o, *value);
    }

    if (f->flags & STOA_NULLABLE) {
        stoa_openapi_sep(o);
        stoa_buf_z(o->b, "null");
    }

    stoa_openapi_close(o, ']');
}


/* Members of an object's schema, between its braces. */
void
stoa_openapi_members(stoa_openapi_t *o, const stoa_field_t *fields,
                     unsigned depth)
{
    const stoa_field_t *f;
    char                camel[128];
    bool                any = false;

    stoa_openapi_raw(o, "additionalProperties", "false");

    if (fields == NULL || fields[0].name == NULL) {
        return;
    }

    stoa_openapi_object(o, "properties");

    for (f = fields; f->name != NULL; f++) {
        stoa_openapi_camel(o, f->name, camel, sizeof(camel));
        stoa_openapi_key(o, camel);
        stoa_openapi_schema(o, f, depth + 1);
        any = any || (f->flags & STOA_REQUIRED);
    }

    stoa_openapi_close(o, '}');

    if (!any) {
        return;
    }

    stoa_openapi_list(o, "required");

    for (f = fields; f->name != NULL; f++) {
        if (f->flags & STOA_REQUIRED) {
            stoa_openapi_camel(o, f->name, camel, sizeof(camel));
            stoa_openapi_item(o, camel);
        }
    }

    stoa_openapi_close(o, ']');
}


static void
stoa_openapi_items(stoa_openapi_t *o, const stoa_field_t *f, unsigned depth)
{
    stoa_openapi_type(o, f, "array");
    stoa_openapi_bounds(o, f, "minItems", "maxItems");
    stoa_openapi_key(o, "items");

    if (!f->object) {
        stoa_openapi_schema(o, &f->items[0], depth + 1);
        return;
    }

    stoa_openapi_open(o, '{');
    stoa_openapi_text(o, "type", "object");
    stoa_openapi_members(o, f->items, depth);
    stoa_openapi_close(o, '}');
}


/* A string with a form that has a name of its own. */
static void
stoa_openapi_string(stoa_openapi_t *o, const stoa_field_t *f)
{
    static const struct {
        const char *format;
        const char *pattern;
        int64_t     max;
    } forms[] = {
        [STOA_T_EMAIL] = { "email", NULL, 254 },
        [STOA_T_SECRET] = { "password", NULL, 0 },
        [STOA_T_UUID] = { "uuid", NULL, 0 },
        [STOA_T_TIME] = { "date-time", NULL, 0 },
        [STOA_T_TIMEZONE] = { NULL, "^[A-Za-z][A-Za-z0-9_+/-]*$", 64 },
        [STOA_T_CURRENCY] = { NULL, "^[A-Z]{3}$", 0 },
        [STOA_T_URL] = { "uri", NULL, 0 },
        [STOA_T_CODE] = { NULL, NULL, 0 },
    };

    stoa_openapi_type(o, f, "string");

    if (forms[f->type].format != NULL) {
        stoa_openapi_text(o, "format", forms[f->type].format);
    }

    if (forms[f->type].pattern != NULL) {
        stoa_openapi_text(o, "pattern", forms[f->type].pattern);
    }

    if (forms[f->type].max != 0 && f->max == 0) {
        stoa_openapi_int(o, "maxLength", forms[f->type].max);
    }

    stoa_openapi_bounds(o, f, "minLength", "maxLength");
}


void
stoa_openapi_schema(stoa_openapi_t *o, const stoa_field_t *f, unsigned depth)
{
    stoa_openapi_open(o, '{');

    switch (f->type) {
    case STOA_T_INT:
        stoa_openapi_type(o, f, "integer");
        stoa_openapi_bounds(o, f, "minimum", "maximum");
        break;
    case STOA_T_BOOL:
        stoa_openapi_type(o, f, "boolean");
        break;
    case STOA_T_ENUM:
        stoa_openapi_enum(o, f);
        break;
    case STOA_T_LIST:
        if (depth < STOA_OPENAPI_DEPTH) {
            stoa_openapi_items(o, f, depth);
        }

        break;
    case STOA_T_OBJECT:
        stoa_openapi_type(o, f, "object");

        if (depth < STOA_OPENAPI_DEPTH) {
            stoa_openapi_members(o, f->items, depth);
        }

        break;
    case STOA_T_TEXT:
    case STOA_T_EMAIL:
    case STOA_T_SECRET:
    case STOA_T_UUID:
    case STOA_T_TIME:
    case STOA_T_TIMEZONE:
    case STOA_T_CURRENCY:
    case STOA_T_URL:
    case STOA_T_CODE:
        stoa_openapi_string(o, f);
        break;
    }

    if (f->summary != NULL) {
        stoa_openapi_text(o, "description", f->summary);
    }

    if (f->example != NULL) {
        stoa_openapi_list(o, "examples");
        stoa_openapi_sep(o);
        stoa_buf_z(o->b, f->example);
        stoa_openapi_close(o, ']');
    }

    stoa_openapi_close(o, '}');
}
