/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rows.c -- the rows that there are, in the order in which they are shown.
 */
#include "bench/row.h"

extern const struct bench_row bench_bandwidth;
extern const struct bench_row bench_scatter;
extern const struct bench_row bench_latency;
extern const struct bench_row bench_fence;
extern const struct bench_row bench_setup;
extern const struct bench_row bench_migrate;
extern const struct bench_row bench_relay;

const struct bench_row *const bench_rows[] = {
	&bench_bandwidth, &bench_scatter, &bench_latency, &bench_fence,
	&bench_setup,     &bench_migrate, &bench_relay,   NULL,
};
