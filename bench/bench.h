/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bench.h -- the benchmark: rows of figures, each of our own way and of a bare loop over the same
 * fabric, taken in turn.
 */
#ifndef VIA_BENCH_BENCH_H
#define VIA_BENCH_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "transport/control.h"

struct bench_options {
	const char *row;    /* its name; "all"; "list": print them and return; NULL with listen */
	const char *only;   /* "size=4096,channels=1": only the cases that have these; NULL: all */
	const char *fabric; /* a spec, or NULL: auto; with listen: what the near end asks for */
	const char *peer;   /* where another host serves the far end; NULL: a process of this one */
	const char *listen; /* serve it here, until a signal ends the process */
	struct via_credentials credentials;
	bool json;
	unsigned repeat;     /* at least 1 */
	uint64_t run_ns;     /* of one measurement, where the row can choose */
	uint64_t memory;     /* bytes; 0: as the row likes */
	unsigned neighbours; /* busy processes beside */
	const char *command; /* the command line, for the report */
	const char *version;
};

/*
 * Do what @options say and print it. Blocks until done; any signal that ends the process ends what
 * it has started. -EINVAL no such row or case; else the first failure of a measurement, whose code
 * and cause are in @err: what was found before has been printed.
 */
int bench_run(const struct bench_options *options, struct via_error *err);

#endif
