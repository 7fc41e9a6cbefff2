/*
 * Rows of orders.
 */

#include "stoa_api_tables.h"

const stoa_endpoint_t stoa_api_orders[] = {
    { .id = NULL },
};
