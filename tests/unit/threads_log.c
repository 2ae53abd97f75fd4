/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * threads_log.c -- many threads log while the sink changes: one call at a time,
 * and none into a sink that was taken away.
 *
 * A plain program, because Criterion does not start under ThreadSanitizer. The
 * sinks count without atomics: ThreadSanitizer finds two calls at once.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/log.h"

#define THREADS 3
#define LINES   2000u
#define SINKS   200u

static unsigned counts[SINKS];
static _Atomic bool wrong;

static void count(void *arg, const char *line)
{
	unsigned *n = arg;

	if (line[0] != 'l')
		wrong = true;
	++*n;
}

static void *talk(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < LINES; i++)
		via_log("line %u", i);
	return NULL;
}

int main(void)
{
	pthread_t threads[THREADS];
	unsigned total = 0;

	via_log_set(count, &counts[0]);
	for (int t = 0; t < THREADS; t++) {
		if (pthread_create(&threads[t], NULL, talk, NULL))
			abort();
	}
	for (unsigned s = 1; s < SINKS; s++) {
		via_log_set(count, &counts[s]);
		/* No lock here: the former sink is not called any more. */
		total += counts[s - 1];
	}
	for (int t = 0; t < THREADS; t++)
		pthread_join(threads[t], NULL);
	via_log_set(NULL, NULL);
	total += counts[SINKS - 1];

	if (wrong || total != THREADS * LINES) {
		fprintf(stderr, "%u lines of %u%s\n", total, THREADS * LINES,
			wrong ? ", one of them wrong" : "");
		return 1;
	}
	return 0;
}
