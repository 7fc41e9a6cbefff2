/*
 * What the two forms of stoa routes share: the text for people
 * (cmd_routes.c) and the JSON for programs (cmd_routes_json.c), from which
 * t/derived makes its tests.
 */

#ifndef CMD_ROUTES_H_INCLUDED
#define CMD_ROUTES_H_INCLUDED

#include "../shared/api/stoa_api.h"

/* "event:manage", or "-". */
void cmd_routes_of(stoa_buf_t *b, const stoa_endpoint_t *ep);

const char *cmd_routes_rate(const stoa_endpoint_t *ep);

/* Every column of one row, as an object. */
void cmd_routes_json(stoa_buf_t *b, const stoa_api_t *api,
                     const stoa_endpoint_t *ep);

#endif /* CMD_ROUTES_H_INCLUDED */
