/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * report.h -- private to bench/: what is printed, for people or as JSON.
 */
#ifndef VIA_BENCH_REPORT_H
#define VIA_BENCH_REPORT_H

#include <jansson.h>

#include "bench/row.h"

/* One case, measured: @n repeats. */
struct bench_cell {
	const struct bench_row *row;
	const struct bench_case *the_case;
	const char *peer;
	unsigned n;
	const struct bench_result *ours, *bare; /* n each; bare NULL: there is none */
	const char *bare_is;                    /* or why there is none */
};

/* "size=4096 channels=1" into @buf; returns it. */
const char *bench_case_text(const struct bench_case *c, char *buf, size_t cap);

struct bench_report;

/* NULL: no memory. */
struct bench_report *report_new(const struct bench_options *options);
/* Add one case: printed at once for people. */
void report_cell(struct bench_report *report, const struct bench_cell *cell);
/* A case that cannot be had here, and why. */
void report_skipped(struct bench_report *report, const struct bench_row *row,
		    const struct bench_case *c, const struct via_error *why);
/* Print what is left to print, and free it. */
void report_end(struct bench_report *report);

/* host.c: what the figures depend on: "host" and "libraries". */
json_t *host_object(unsigned neighbours);
json_t *host_libraries(void);
/* commit.c: the commit that this was built from, as git describes it; or "unknown". */
const char *host_commit(void);

#endif
