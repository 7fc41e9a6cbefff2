/*
 * Metric rows (stoa_metric.def): STOA_METRIC(name, type, "help") with type
 * COUNTER or GAUGE, without labels: one 64-bit cell each, in the edge's
 * shared zone; worker cells travel through the Redis hash <prefix>metrics.
 * Metrics with labels are families (stoa_family.def): the edge's own arrays,
 * and what workers write into that hash with their labels.
 */

#ifndef STOA_METRIC_H_INCLUDED
#define STOA_METRIC_H_INCLUDED

typedef enum {
#define STOA_METRIC(name, type, help) STOA_M_##name,
#include "stoa_metric.def"
#undef STOA_METRIC
    STOA_M_COUNT
} stoa_metric_e;

typedef struct {
    const char *name;   /* "stoa_pg_reconnects_total" */
    const char *type;   /* "counter", "gauge", "histogram" or "summary" */
    const char *labels; /* with commas; "": none */
    const char *help;
} stoa_metric_row_t;

extern const stoa_metric_row_t stoa_metric_rows[STOA_M_COUNT];

typedef enum {
#define STOA_FAMILY(name, wire, type, labels, help) STOA_MF_##name,
#include "stoa_family.def"
#undef STOA_FAMILY
    STOA_MF_COUNT
} stoa_family_e;

extern const stoa_metric_row_t stoa_family_rows[STOA_MF_COUNT];

#endif /* STOA_METRIC_H_INCLUDED */
