/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * small_guest.h -- a guest of a few pages whose writes are a function of a seed: it writes when
 * the engine asks for its dirty log, and, if wanted, from a thread of its own while
 * it is being sent. Every page holds its number and version, all over. At the destination it may
 * have threads that touch its pages from its start on, as vCPUs do in postcopy.
 */
#ifndef VIA_TESTS_SMALL_GUEST_H
#define VIA_TESTS_SMALL_GUEST_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "migrate/guest.h"

#define SMALL_REGIONS 2u

struct small_guest_config {
	uint64_t seed;
	unsigned pages[SMALL_REGIONS]; /* of 4096 bytes; the second may be 0: one region only */
	unsigned writes_per_round;     /* in dirty_fetch() and pause() */
	bool thread;                   /* and all the time, by a thread */
	unsigned state_len;            /* bytes of device state beside the versions */
	/*
	 * Destination: threads that run() starts, and pages that each of them touches. They all begin
	 * with page 0 of region 0, which none of them writes.
	 */
	unsigned toucher_threads, touches;
	bool postcopy;     /* run() looks at no page by itself */
	bool load_touches; /* load() looks at every page, wherever it is */
	int fail_at;       /* enum small_fail: where it returns -EIO */
	/* Called as each of its functions begins, with the enum small_fail of it. May be NULL. */
	void (*at)(unsigned where);
};

enum small_fail {
	SMALL_FAIL_NOWHERE = 0,
	SMALL_FAIL_PREPARE,
	SMALL_FAIL_DIRTY_START,
	SMALL_FAIL_DIRTY_FETCH,
	SMALL_FAIL_PAUSE,
	SMALL_FAIL_SAVE,
	SMALL_FAIL_LOAD,
	SMALL_FAIL_RUN,
	SMALL_FAIL_ABANDON, /* it has no abandon() */
};

#define SMALL_TOUCHERS 128u

struct small_guest;
struct small_toucher {
	struct small_guest *guest;
	pthread_t thread;
	unsigned index;
};

struct small_guest {
	struct small_guest_config config;
	struct via_source_guest source;
	struct via_destination_guest destination;
	struct via_guest_region region[SMALL_REGIONS];
	unsigned nregions;
	uint32_t *version[SMALL_REGIONS];
	struct via_bitmap dirty[SMALL_REGIONS];
	uint64_t random;
	pthread_t thread;
	bool has_thread;
	_Atomic bool stop;
	bool paused, running;  /* as the engine left it */
	unsigned wrong_at_run; /* destination: pages that were not right when it started */
	struct small_toucher toucher[SMALL_TOUCHERS];
	unsigned ntouchers;
	_Atomic unsigned wrong_touched; /* pages that were not right when a thread touched them */
	_Atomic bool abandoned;
};

/* A running source: some pages written, some never. */
int small_guest_source(struct small_guest *g, const struct small_guest_config *config);
/* A destination without memory. */
int small_guest_destination(struct small_guest *g, const struct small_guest_config *config);
void small_guest_fini(struct small_guest *g);
/* Wait for the threads that touch pages. */
void small_guest_join(struct small_guest *g);

/* Pages that do not hold the version they should. */
unsigned small_guest_wrong_pages(const struct small_guest *g);

#endif
