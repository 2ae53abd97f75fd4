/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * metrics_table.h -- private to metrics*.c: all metrics in one table, and what they are read from.
 */
#ifndef VIA_TOOLS_METRICS_TABLE_H
#define VIA_TOOLS_METRICS_TABLE_H

#include "migrate/migrate.h"
#include "relay/relay.h"

enum metric_type {
	METRIC_COUNTER = 1, /* only rises, until the program ends */
	METRIC_GAUGE,
	METRIC_HISTOGRAM, /* of nanoseconds, shown as seconds */
	METRIC_INFO,      /* 1, with what there is to say in its labels */
	METRIC_STATESET,  /* for each state whether it is the one */
};

/* What is known at one moment. No pointer of it leads outside. */
struct metrics_sample {
	bool migration; /* of a guest of this program: p and what follows it are there */
	struct via_progress p;
	uint64_t round, recoveries;
	enum via_outcome outcome; /* 0: none yet */
	struct via_session_stats session;
	struct via_postcopy_stats postcopy;
	struct via_channel_stats *channel; /* nchannels of room_for */
	unsigned nchannels, room_for;

	bool relay;                                  /* it is one */
	bool carries;                                /* ... and a migration goes through it */
	struct relay_result now;                     /* the migration at hand, if it carries one */
	uint64_t forward_bytes, back_bytes, packets; /* of all of them */
	uint64_t ended[RELAY_BROKEN + 1];            /* by enum relay_outcome */

	uint64_t cpu_ns; /* of the process */
};

/* What a row's function is called for: one value, with the labels that tell it from others of the row. */
struct metric_label {
	const char *name, *value;
};
typedef void metric_put_fn(void *arg, const struct metric_label *labels, unsigned nlabels,
			   double value);

/* One row: where its value is, or the function that puts all of its values. */
struct metric {
	const char *name; /* without the suffix _total, _bucket or _info */
	enum metric_type type;
	const char *unit; /* also the end of the name; empty: none */
	const char *help;
	bool of_relay;        /* a relay's, and of nothing else. Those without either are of all */
	bool of_migration;    /* of a guest of the program's own */
	bool zero_is_unknown; /* then it is left out */
	size_t at;      /* a uint64_t of struct metrics_sample, ns where the unit is seconds; */
	size_t hist_at; /* or a struct via_hist */
	void (*put)(const struct metrics_sample *s, metric_put_fn *put, void *arg);
};

extern const struct metric metrics_table[];
extern const unsigned metrics_table_len;

/* Is @metric there in @s? */
bool metric_applies(const struct metric *metric, const struct metrics_sample *s);
/* Call @put for each value of @metric, which is no histogram. */
void metric_values(const struct metric *metric, const struct metrics_sample *s, metric_put_fn *put,
		   void *arg);
/* The histogram of @metric. */
const struct via_hist *metric_hist(const struct metric *metric, const struct metrics_sample *s);
/* "counter", ... */
const char *metric_type_name(enum metric_type type);

#endif
