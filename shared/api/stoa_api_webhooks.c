/*
 * Rows of webhooks.
 */

#include "stoa_api_tables.h"

const stoa_endpoint_t stoa_api_webhooks[] = {
    { .id = NULL },
};
