/*
 * stoa routes and stoa openapi: what the rows say, for people and tools.
 * Both need no settings and no database, and refuse to print rows that
 * stoa check would refuse.
 */

#include "cmd.h"
#include "cmd_routes.h"

#include <stdio.h>

#include "../shared/stoa_str.h"

#define DOCUMENT_MAX (16 * 1024 * 1024)

void
cmd_routes_of(stoa_buf_t *b, const stoa_endpoint_t *ep)
{
    if (ep->of.field == NULL) {
        stoa_buf_char(b, '-');
        return;
    }

    stoa_buf_printf(b, "%s:%s", ep->of.resource, ep->of.relation);
}


static void
cmd_routes_line(stoa_buf_t *b, const stoa_endpoint_t *ep, stoa_mem_t *mem)
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

    stoa_buf_printf(b, "%-6s %-46s %-28s %-16s %-6s %s",
                    stoa_method_name(ep->method), ep->path,
                    (const char *) who.data, (const char *) of.data,
                    cmd_routes_rate(ep), ep->id);

    if (ep->step_up != STOA_STEP_UP_NONE) {
        stoa_buf_printf(b, " (step-up: %s)", stoa_step_up_name(ep->step_up));
    }

    stoa_buf_char(b, '\n');
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
            stoa_buf_z(&b, i == 0 ? "[\n" : ",\n");
            cmd_routes_json(&b, api, api->rows[i]);
        } else {
            cmd_routes_line(&b, api->rows[i], c->mem);
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
