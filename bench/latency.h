/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * latency.h -- how the programs of this folder print a distribution of times.
 */
#ifndef VIA_BENCH_LATENCY_H
#define VIA_BENCH_LATENCY_H

#include <stdio.h>

#include "core/hist.h"

/* The members of a JSON object for @ns (nanoseconds), printed in microseconds. */
static inline void print_latency(const struct via_hist *ns)
{
	printf("\"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"p999\": %.1f, \"max\": %.1f, "
	       "\"count\": %llu",
	       (double)via_hist_permille(ns, 500) / 1e3, (double)via_hist_permille(ns, 900) / 1e3,
	       (double)via_hist_permille(ns, 990) / 1e3, (double)via_hist_permille(ns, 999) / 1e3,
	       (double)ns->max / 1e3, (unsigned long long)ns->count);
}

#endif
