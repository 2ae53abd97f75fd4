/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * series.h -- a migration over time, for the report: what its progress function was told, in
 * bounded memory.
 */
#ifndef VIA_TOOLS_SERIES_H
#define VIA_TOOLS_SERIES_H

#include "migrate/migrate.h"

/* Even: half of the points are left out when there are so many. */
#define SERIES_POINTS 2000u
#define SERIES_SPANS  64u

/* Counters and levels, so that a point between two others can be left out. */
struct series_point {
	uint64_t at_ns; /* since the migration's begin */
	uint64_t remaining;
	uint64_t sent;
	uint64_t dirty_rate; /* bytes a second; of the round before */
	unsigned round;
};

/* From here to the next one, or to the end. */
struct series_span {
	enum via_phase phase;
	uint64_t from_ns;
};

struct series {
	unsigned npoints;
	uint64_t spacing_ns; /* points that are nearer to the last are left out */
	struct series_point point[SERIES_POINTS];
	unsigned nspans;
	/* The first is set-up, from 0. Later ones are not kept: the last one goes on. */
	struct series_span span[SERIES_SPANS];
	/* As of the last call, as far as it was told. */
	struct via_steps steps;
	uint64_t end_ns;
	unsigned nchannels;
	struct via_channel_stats channel[1 + VIA_MULTIFD_MAX + VIA_PREEMPT_MAX];
};

/* NULL: no memory. */
struct series *series_new(void);
void series_free(struct series *series);

/* In the migration thread, whatever the interval is. */
void series_add(struct series *series, const struct via_progress *progress);
/* A point alone, of something that has no phases. */
void series_add_point(struct series *series, const struct series_point *point);

#endif
