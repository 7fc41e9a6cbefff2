/*
 * The tables of endpoint rows, one file per resource, and the alias table.
 * Each ends with a row whose .id is NULL (the alias table: whose .path is
 * NULL).  stoa_api.c lists them; nothing else needs this header but the
 * table files, so that their definitions have a prototype.
 */

#ifndef STOA_API_TABLES_H_INCLUDED
#define STOA_API_TABLES_H_INCLUDED

#include "stoa_api.h"

extern const stoa_endpoint_t stoa_api_auth[];
extern const stoa_endpoint_t stoa_api_sessions[];
extern const stoa_endpoint_t stoa_api_mfa[];
extern const stoa_endpoint_t stoa_api_keys[];
extern const stoa_endpoint_t stoa_api_users[];
extern const stoa_endpoint_t stoa_api_events[];
extern const stoa_endpoint_t stoa_api_orders[];
extern const stoa_endpoint_t stoa_api_tickets[];
extern const stoa_endpoint_t stoa_api_checkin[];
extern const stoa_endpoint_t stoa_api_webhooks[];
extern const stoa_endpoint_t stoa_api_admin[];
extern const stoa_endpoint_t stoa_api_system[];
extern const stoa_endpoint_t stoa_api_oauth[];
extern const stoa_endpoint_t stoa_api_privacy[];
extern const stoa_endpoint_t stoa_api_presence[];

extern const stoa_alias_t stoa_api_aliases[];

#endif /* STOA_API_TABLES_H_INCLUDED */
