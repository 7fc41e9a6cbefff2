/*
 * stoa routes and stoa openapi: what the rows say, for people and tools.
 * Both need no settings and no database, and refuse to print rows that
 * stoa check would refuse.
 */

#include "cmd.h"

#include <stdio.h>

#include "../shared/api/stoa_api.h"
#include "../shared/stoa_str.h"

#define DOCUMENT_MAX (16 * 1024 * 1024)

static const char *const cmd_routes_rates[STOA_RATE_COUNT] = {
    [STOA_RATE_AUTH] = "auth",   [STOA_RATE_READ] = "read",
    [STOA_RATE_WRITE] = "write", [STOA_RATE_SCAN] = "scan",
    [STOA_RATE_NONE] = "none",
};


static void
cmd_routes_of(stoa_buf_t *b, const stoa_endpoint_t *ep)
{
    if (ep->of.field == NULL) {
        stoa_buf_char(b, '-');
        return;
    }

    stoa_buf_printf(b, "%s:%s", ep->of.resource, ep->of.relation);
}


static void
cmd_routes_text(stoa_buf_t *b, const stoa_endpoint_t *ep, stoa_mem_t *mem)
{
    stoa_buf_t who, of;

    stoa_buf_init(&who, mem, 128, 512);
    stoa_buf_init(&of, mem, 64, 256);
    stoa_who_print(&who, ep->who);
    cmd_routes_of(&of, ep);
    stoa_buf_nul(&who);
    stoa_buf_nul(&of);

    if (who.failed || of.failed) {
        b->failed = true;
        return;
    }

    stoa_buf_printf(b, "%-6s %-46s %-28s %-16s %-6s %s\n",
                    stoa_method_name(ep->method), ep->path,
                    (const char *) who.data, (const char *) of.data,
                    cmd_routes_rates[ep->rate], ep->id);
}


static void
cmd_routes_json(stoa_buf_t *b, const stoa_endpoint_t *ep, bool first)
{
    stoa_buf_z(b, first ? "[\n{\"method\":" : ",\n{\"method\":");
    stoa_buf_json_z(b, stoa_method_name(ep->method));
    stoa_buf_z(b, ",\"path\":");
    stoa_buf_json_z(b, ep->path);
    stoa_buf_z(b, ",\"who\":\"");
    stoa_who_print(b, ep->who);
    stoa_buf_z(b, "\",\"of\":\"");
    cmd_routes_of(b, ep);
    stoa_buf_z(b, "\",\"rate\":");
    stoa_buf_json_z(b, cmd_routes_rates[ep->rate]);
    stoa_buf_z(b, ",\"id\":");
    stoa_buf_json_z(b, ep->id);
    stoa_buf_char(b, '}');
}


static int
cmd_routes_print(cmd_t *c, stoa_buf_t *b)
{
    if (b->failed) {
        cmd_say(c, "no memory");
        return CMD_FAILED;
    }

    return fwrite(b->data, 1, b->len, stdout) == b->len ? CMD_OK : CMD_FAILED;
}


/* The rows, checked: what is not whole is not printed as if it were. */
static const stoa_api_t *
cmd_routes_api(cmd_t *c)
{
    const stoa_api_t *api = stoa_api(c->mem);
    const char       *why = "no memory";

    if (api != NULL && stoa_api_check(api, c->mem, &why)) {
        return api;
    }

    cmd_say(c, "%s", why);
    return NULL;
}


int
cmd_routes(cmd_t *c, int argc, char **argv)
{
    bool              json = false;
    cmd_option_t      options[] = { { "--json", &json, NULL } };
    const stoa_api_t *api;
    stoa_buf_t        b;
    size_t            nrest;
    int               rc;

    rc = cmd_options(c, argc, argv, options, 1, NULL, 0, &nrest);

    if (rc >= 0) {
        return rc;
    }

    api = cmd_routes_api(c);

    if (api == NULL) {
        return CMD_FAILED;
    }

    stoa_buf_init(&b, c->mem, 16384, DOCUMENT_MAX);

    for (size_t i = 0; i < api->nrows; i++) {
        if (json) {
            cmd_routes_json(&b, api->rows[i], i == 0);
        } else {
            cmd_routes_text(&b, api->rows[i], c->mem);
        }
    }

    if (json) {
        stoa_buf_z(&b, api->nrows == 0 ? "[]\n" : "\n]\n");
    }

    return cmd_routes_print(c, &b);
}


int
cmd_openapi(cmd_t *c, int argc, char **argv)
{
    const stoa_api_t *api;
    stoa_buf_t        b;
    size_t            nrest;
    int               rc;

    rc = cmd_options(c, argc, argv, NULL, 0, NULL, 0, &nrest);

    if (rc >= 0) {
        return rc;
    }

    api = cmd_routes_api(c);

    if (api == NULL) {
        return CMD_FAILED;
    }

    stoa_buf_init(&b, c->mem, 65536, DOCUMENT_MAX);

    if (!stoa_api_openapi(api, &b)) {
        cmd_say(c, "the document could not be written");
        return CMD_FAILED;
    }

    stoa_buf_char(&b, '\n');
    return cmd_routes_print(c, &b);
}
