/*
 * Older and foreign paths of rows (catalogue, alias rules).
 */

#include "stoa_api_tables.h"

const stoa_alias_t stoa_api_aliases[] = {
    { .path = NULL },
};
