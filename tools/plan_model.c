/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * plan_model.c -- see plan_model.h. The rule by which it stops is that of time_to_switch() in
 * migrate/source.c; where that changes, this does.
 *
 * In floating point: nothing here is exact, and a rate may be anything up to UINT64_MAX.
 */
#include "tools/plan_model.h"

static double precopy_bandwidth(const struct plan_model *m)
{
	return m->max_bandwidth && m->max_bandwidth < m->bandwidth ? (double)m->max_bandwidth
								   : (double)m->bandwidth;
}

/* What the guest writes in @ns: no page counts twice. */
static double written_in(const struct plan_model *m, double ns)
{
	double bytes = (double)m->dirty_rate * ns / 1e9;

	return bytes < (double)m->memory ? bytes : (double)m->memory;
}

/* No longer than can be told: beyond that the conversion has no meaning. */
static uint64_t whole(double x)
{
	return x < 0x1p64 ? (uint64_t)x : UINT64_MAX;
}

bool plan_is_hopeless(const struct plan_model *m)
{
	return (double)m->dirty_rate >= precopy_bandwidth(m);
}

/* The seal, and an exchange about device state and start, which is as long as a fence. */
static double hand_over_ns(const struct plan_model *m)
{
	return (double)m->seal_ns + (double)m->fence_ns;
}

void plan_precopy(const struct plan_model *m, struct plan_outcome *out)
{
	double rate = precopy_bandwidth(m), left = (double)m->memory, bytes = 0;
	double total = (double)m->setup_ns, downtime;
	unsigned rounds = 0;

	do {
		double round_ns = left * 1e9 / rate + (double)m->fence_ns;

		bytes += left;
		total += round_ns;
		left = written_in(m, round_ns);
		rounds++;
	} while (rounds < m->max_rounds && left * 1e9 / rate > (double)m->downtime_limit_ns);
	downtime = left * 1e9 / (double)m->bandwidth + (double)m->fence_ns + hand_over_ns(m);
	*out = (struct plan_outcome){
		.converges = left * 1e9 / rate <= (double)m->downtime_limit_ns,
		.rounds = rounds + 1,
		.bytes = whole(bytes + left),
		.total_ns = whole(total + downtime),
		.downtime_ns = whole(downtime),
	};
}

void plan_postcopy(const struct plan_model *m, struct plan_outcome *out)
{
	double first = (double)m->memory * 1e9 / precopy_bandwidth(m) + (double)m->fence_ns;
	double left = written_in(m, first), downtime = hand_over_ns(m);

	*out = (struct plan_outcome){
		.converges = downtime <= (double)m->downtime_limit_ns,
		.rounds = 1,
		.bytes = whole((double)m->memory + left),
		.total_ns = whole((double)m->setup_ns + first + downtime +
				  left * 1e9 / (double)m->bandwidth),
		.downtime_ns = whole(downtime),
	};
}
