/*
 * Metric rows with their wire names: stoa_<name>, counters with _total.  The
 * names are put together by the preprocessor, so the table is constant and
 * costs nothing at start.
 */

#include "stoa_metric.h"

#define STOA_METRIC_NAME_COUNTER(name) "stoa_" #name "_total"
#define STOA_METRIC_NAME_GAUGE(name)   "stoa_" #name
#define STOA_METRIC_TYPE_COUNTER       "counter"
#define STOA_METRIC_TYPE_GAUGE         "gauge"

const stoa_metric_row_t stoa_metric_rows[STOA_M_COUNT] = {
#define STOA_METRIC(name, type, help)                                          \
    { STOA_METRIC_NAME_##type(name), STOA_METRIC_TYPE_##type, "", help },
#include "stoa_metric.def"
#undef STOA_METRIC
};

const stoa_metric_row_t stoa_family_rows[STOA_MF_COUNT] = {
#define STOA_FAMILY(name, wire, type, labels, help)                            \
    { wire, type, labels, help },
#include "stoa_family.def"
#undef STOA_FAMILY
};
