/*
 * The router: a trie over path segments, built once from the rows and
 * aliases, read-only afterwards and safe to share.  A segment is matched
 * byte by byte, literal before parameter; when a literal leads nowhere the
 * parameter beside it is tried.  A parameter may end with a suffix, as in
 * "/:id.svg", which is tried before the bare one.  Recursion is bounded by
 * the longest path of the rows, not by the request's.
 */

#include "stoa_route.h"
#include "stoa_str.h"

#include <stdio.h>

typedef struct stoa_route_node_s stoa_route_node_t;

struct stoa_route_node_s {
    stoa_str_t             segment; /* of a literal */
    stoa_route_node_t     *next;    /* literal beside it */
    stoa_route_node_t     *child;   /* first literal below */
    stoa_route_node_t     *param;   /* parameters below, the bare one last */
    stoa_str_t             suffix;  /* of a parameter, ".svg" */
    const stoa_alias_t    *alias;
    const char            *paths[STOA_METHOD_COUNT]; /* as written */
    const stoa_endpoint_t *rows[STOA_METHOD_COUNT];
    uint16_t               methods;
};

struct stoa_route_s {
    stoa_route_node_t root;
};


/* Cuts the first segment off a path that begins with a slash. */
static stoa_str_t
stoa_route_segment(stoa_str_t *path)
{
    stoa_str_t     segment;
    unsigned char *slash;

    segment.data = path->data + 1;
    segment.len = path->len - 1;
    slash = segment.len != 0 ? memchr(segment.data, '/', segment.len) : NULL;

    if (slash != NULL) {
        segment.len = (size_t) (slash - segment.data);
    }

    path->data += segment.len + 1;
    path->len -= segment.len + 1;

    return segment;
}


static stoa_route_node_t *
stoa_route_descend(stoa_mem_t *mem, stoa_route_node_t *node, stoa_str_t segment)
{
    stoa_route_node_t **link, *made;
    stoa_str_t          suffix;
    unsigned char      *dot;

    if (segment.len != 0 && segment.data[0] == ':') {
        dot = memchr(segment.data, '.', segment.len);
        suffix.data = dot != NULL ? dot : segment.data + segment.len;
        suffix.len = (size_t) (segment.data + segment.len - suffix.data);
        link = &node->param;

        while (*link != NULL && !stoa_str_eq((*link)->suffix, suffix)) {
            link = &(*link)->next;
        }

        if (*link == NULL) {
            made = stoa_calloc(mem, sizeof(stoa_route_node_t));

            if (made == NULL) {
                return NULL;
            }

            made->segment = segment;
            made->suffix = suffix;

            if (suffix.len != 0) { /* in front of the bare one */
                made->next = node->param;
                node->param = made;
                return made;
            }

            *link = made;
        }

        return *link;

    } else {
        link = &node->child;

        while (*link != NULL && !stoa_str_eq((*link)->segment, segment)) {
            link = &(*link)->next;
        }
    }

    if (*link == NULL) {
        *link = stoa_calloc(mem, sizeof(stoa_route_node_t));

        if (*link != NULL) {
            (*link)->segment = segment;
        }
    }

    return *link;
}


static bool
stoa_route_add(stoa_mem_t *mem, stoa_route_t *route, const char *path,
               const stoa_endpoint_t *ep, const stoa_alias_t *alias,
               const char **why)
{
    stoa_route_node_t *node = &route->root;
    stoa_str_t         rest = stoa_str_z(path);
    char               text[512];

    while (rest.len != 0) {
        node = stoa_route_descend(mem, node, stoa_route_segment(&rest));

        if (node == NULL) {
            *why = "no memory";
            return false;
        }
    }

    if (node->rows[ep->method] != NULL) {
        (void) snprintf(text, sizeof(text),
                        "\"%.80s\" (%.120s) and \"%.80s\" (%.120s) take the "
                        "same %s requests",
                        node->rows[ep->method]->id, node->paths[ep->method],
                        ep->id, path, stoa_method_name(ep->method));
        *why = stoa_strdup_z(mem, stoa_str_z(text));

        if (*why == NULL) {
            *why = "no memory";
        }

        return false;
    }

    node->rows[ep->method] = ep;
    node->paths[ep->method] = path;
    node->methods = (uint16_t) (node->methods | 1U << ep->method);

    if (alias != NULL) {
        node->alias = alias;
    }

    return true;
}


static const stoa_endpoint_t *
stoa_route_row(const stoa_api_t *api, const stoa_alias_t *alias)
{
    size_t i;

    for (i = 0; i < api->nrows; i++) {
        if (strcmp(api->rows[i]->id, alias->id) == 0) {
            return api->rows[i];
        }
    }

    return NULL;
}


stoa_route_t *
stoa_route_create(stoa_mem_t *mem, const stoa_api_t *api, const char **why)
{
    const stoa_endpoint_t *ep;
    stoa_route_t          *route;
    size_t                 i;

    route = stoa_calloc(mem, sizeof(stoa_route_t));
    if (route == NULL) {
        *why = "no memory";
        return NULL;
    }

    for (i = 0; i < api->nrows; i++) {
        ep = api->rows[i];

        if (!stoa_route_add(mem, route, ep->path, ep, NULL, why)) {
            return NULL;
        }
    }

    for (i = 0; i < api->naliases; i++) {
        ep = stoa_route_row(api, &api->aliases[i]);

        if (ep == NULL) {
            *why = "an alias names no row";
            return NULL;
        }

        if (!stoa_route_add(mem, route, api->aliases[i].path, ep,
                            &api->aliases[i], why))
        {
            return NULL;
        }
    }

    return route;
}


/* Is segment a value, not empty, with the suffix of this parameter? */
static bool
stoa_route_fits(const stoa_route_node_t *param, stoa_str_t segment)
{
    return segment.len > param->suffix.len
        && memcmp(segment.data + segment.len - param->suffix.len,
                  param->suffix.data, param->suffix.len)
               == 0;
}


/* Finds the node of rest below node; parameters go to match. */
static const stoa_route_node_t *
stoa_route_walk(const stoa_route_node_t *node, stoa_str_t rest,
                stoa_match_t *match)
{
    const stoa_route_node_t *child, *found;
    stoa_str_t               segment;

    if (rest.len == 0) {
        return node->methods != 0 ? node : NULL;
    }

    if (rest.data[0] != '/') {
        return NULL;
    }

    segment = stoa_route_segment(&rest);

    for (child = node->child; child != NULL; child = child->next) {
        if (stoa_str_eq(child->segment, segment)) {
            found = stoa_route_walk(child, rest, match);

            if (found != NULL) {
                return found;
            }

            break;
        }
    }

    if (match->nparams == STOA_ROUTE_PARAMS) {
        return NULL;
    }

    for (child = node->param; child != NULL; child = child->next) {
        if (!stoa_route_fits(child, segment)) {
            continue;
        }

        match->params[match->nparams] = segment;
        match->params[match->nparams++].len -= child->suffix.len;
        found = stoa_route_walk(child, rest, match);

        if (found != NULL) {
            return found;
        }

        match->nparams--;
    }

    return NULL;
}


bool
stoa_route_match(const stoa_route_t *route, stoa_str_t uri, stoa_match_t *match)
{
    const stoa_route_node_t *node;

    match->nparams = 0;

    if (uri.len == 0 || uri.data[0] != '/') {
        return false;
    }

    node = stoa_route_walk(&route->root, uri, match);

    if (node == NULL) {
        return false;
    }

    match->rows = node->rows;
    match->alias = node->alias;
    match->methods = node->methods;

    return true;
}
