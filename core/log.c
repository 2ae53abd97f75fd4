/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * log.c -- the one sink for debug lines.
 *
 * Must never print by itself, never format a line that nobody wants, and never
 * disturb errno.
 *
 * Invariant: the sink is called under the lock, with the argument it was set
 * with. Once via_log_set() has returned, the former sink is not called again.
 */
#include "core/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

#define LINE_MAX_LEN 511

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static via_log_fn *log_fn;      /* under log_lock */
static void *log_arg;           /* under log_lock */
static _Atomic bool log_wanted; /* log_fn is set: the check that costs nothing */

void via_log_set(via_log_fn *fn, void *arg)
{
	pthread_mutex_lock(&log_lock);
	log_fn = fn;
	log_arg = arg;
	atomic_store_explicit(&log_wanted, fn != NULL, memory_order_relaxed);
	pthread_mutex_unlock(&log_lock);
}

void via_log(const char *fmt, ...)
{
	int saved = errno;
	char line[LINE_MAX_LEN + 1];
	va_list args;

	if (!atomic_load_explicit(&log_wanted, memory_order_relaxed))
		return;

	va_start(args, fmt);
	if (vsnprintf(line, sizeof(line), fmt, args) < 0)
		line[0] = '\0';
	va_end(args);
	for (char *c = line; *c; c++)
		if (*c == '\n')
			*c = ' ';

	pthread_mutex_lock(&log_lock);
	if (log_fn)
		log_fn(log_arg, line);
	pthread_mutex_unlock(&log_lock);
	errno = saved;
}
