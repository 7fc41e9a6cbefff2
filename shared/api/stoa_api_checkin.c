/*
 * Rows of checkin.
 */

#include "stoa_api_tables.h"

const stoa_endpoint_t stoa_api_checkin[] = {
    { .id = NULL },
};
