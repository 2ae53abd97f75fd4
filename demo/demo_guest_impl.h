/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * demo_guest_impl.h -- the demo guest from inside: demo_guest.c (RAM, tables, check),
 * demo_vcpus.c (the threads) and demo_state.c (the device state).
 */
#ifndef VIA_DEMO_DEMO_GUEST_IMPL_H
#define VIA_DEMO_DEMO_GUEST_IMPL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "core/bitmap.h"
#include "core/hist.h"
#include "demo/demo_guest.h"
#include "demo/demo_page.h"
#include "migrate/dirty_tracker.h"

#define DEMO_VCPUS_MAX 64u

struct demo_vcpu {
	pthread_t thread;
	struct demo_guest *guest;
	unsigned index;
	uint64_t random;          /* state of its generator */
	_Atomic uint64_t bytes;   /* rewritten; by this vCPU alone */
	uint64_t cpu_ns;          /* used by its threads that have ended */
	struct via_hist fault_ns; /* how long it stood still for each page that was missing */
};

enum demo_order { DEMO_STOP = 0, DEMO_RUN, DEMO_PAUSE };

struct demo_guest {
	struct demo_guest_config config; /* of a destination: zero until load() */
	struct via_guest_region region;  /* addr is NULL until there is RAM */
	uint64_t npages;
	uint32_t *version;       /* of each page; changed by the vCPU that owns it */
	struct via_bitmap wrong; /* pages that a vCPU found wrong ... */
	_Atomic uint64_t found[DEMO_PAGE_STATES]; /* ... and how many of each kind */
	struct via_bitmap touched; /* destination: pages that a vCPU has looked at; else empty */
	bool loaded;

	struct via_dirty_tracker *tracker; /* while logging */
	const char *tracker_way;

	struct demo_vcpu vcpu[DEMO_VCPUS_MAX];
	unsigned nrunning;             /* vCPU threads that exist */
	pthread_mutex_t lock;          /* of the three below */
	pthread_cond_t ordered;        /* order changed */
	pthread_cond_t parked;         /* nparked grew */
	unsigned nparked;              /* vCPUs that wait for the end of a pause */
	_Atomic enum demo_order order; /* changed under lock; read without by running vCPUs */

	struct via_source_guest source;
	struct via_destination_guest destination;
};

/* -ENOMEM, -EINVAL when they exist already. */
int demo_vcpus_start(struct demo_guest *g, struct via_error *err);
/* Returns when all have ended: each after the page at hand. */
void demo_vcpus_stop(struct demo_guest *g);
/* -ETIMEDOUT, and they run on, when one is stuck in a page for ten seconds. */
int demo_vcpus_pause(struct demo_guest *g, struct via_error *err);
void demo_vcpus_resume(struct demo_guest *g);
/* No vCPU begins another page, nor goes on with one that it waits for. Does not wait for them. */
void demo_vcpus_abandon(struct demo_guest *g);

/* As in struct via_source_guest and via_destination_guest. */
int demo_state_save(struct demo_guest *g, void **state, size_t *len, struct via_error *err);
int demo_state_load(struct demo_guest *g, const void *state, size_t len, struct via_error *err);

/* -EINVAL unless a guest can be so. */
int demo_guest_check_config(const struct demo_guest_config *config, struct via_error *err);

#endif
