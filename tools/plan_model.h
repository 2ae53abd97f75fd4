/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * plan_model.h -- how long a migration will take: the rounds that migrate/source.c would make, with
 * what was measured in place of the session.
 */
#ifndef VIA_TOOLS_PLAN_MODEL_H
#define VIA_TOOLS_PLAN_MODEL_H

#include <stdbool.h>
#include <stdint.h>

struct plan_model {
	uint64_t memory;        /* bytes */
	uint64_t dirty_rate;    /* bytes a second; UINT64_MAX: as fast as can be */
	uint64_t bandwidth;     /* bytes a second, not 0 */
	uint64_t max_bandwidth; /* of precopy; 0: no limit */
	uint64_t downtime_limit_ns;
	unsigned max_rounds; /* then the guest is stopped anyway */
	uint64_t setup_ns, fence_ns, seal_ns;
};

struct plan_outcome {
	bool converges;  /* the downtime limit is kept */
	unsigned rounds; /* the one with the guest stopped included */
	uint64_t bytes;  /* written */
	uint64_t total_ns;
	uint64_t downtime_ns; /* without the device state, which nobody knows beforehand */
};

/*
 * Round i sends what is left of the one before in t(i) = left(i) / R and a fence, in which the guest writes
 * left(i+1) = min(memory, D * t(i)). Once left / R is within the limit, or after max_rounds, the guest
 * stops: the rest, a fence, the seal, and an exchange about device state and start.
 */
void plan_precopy(const struct plan_model *model, struct plan_outcome *outcome);

/* One round, then the guest moves, and what it has written meanwhile follows it. */
void plan_postcopy(const struct plan_model *model, struct plan_outcome *outcome);

/* Does the guest write at least as fast as its memory is sent? */
bool plan_is_hopeless(const struct plan_model *model);

#endif
