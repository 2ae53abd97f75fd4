/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * metrics_write.h -- private to metrics*.c: a sample as text of OpenMetrics, and as one JSON object.
 */
#ifndef VIA_TOOLS_METRICS_WRITE_H
#define VIA_TOOLS_METRICS_WRITE_H

#include <stdio.h>

#include "tools/metrics_table.h"

#define METRICS_CONTENT_TYPE "application/openmetrics-text; version=1.0.0; charset=utf-8"

/* All of it, up to "# EOF". */
void metrics_write_page(const struct metrics_sample *s, FILE *out);
/* One line, with its newline; @time_s: seconds since 1970. -EIO: not all of it */
int metrics_write_line(const struct metrics_sample *s, double time_s, FILE *out);

#endif
