/*
 * Metric rows (stoa_metric.def): STOA_METRIC(name, type, "help") with type
 * COUNTER or GAUGE, without labels: one 64-bit cell each, in the edge's
 * shared zone; worker cells travel through the Redis hash <prefix>metrics.
 * Per-route counters and phase histograms are the edge's own arrays.
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
    const char *name; /* "stoa_pg_reconnects_total" */
    const char *type; /* "counter" or "gauge" */
    const char *help;
} stoa_metric_row_t;

extern const stoa_metric_row_t stoa_metric_rows[STOA_M_COUNT];

#endif /* STOA_METRIC_H_INCLUDED */
