/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dirty_tracker_impl.h -- between dirty_tracker.c and its two ways. dirty_tracker.c checks
 * arguments and registers the memory; a way protects, collects and hands over.
 */
#ifndef VIA_MIGRATE_DIRTY_TRACKER_IMPL_H
#define VIA_MIGRATE_DIRTY_TRACKER_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "migrate/dirty_tracker.h"

struct via_dirty_tracker {
	const struct dirty_way *way;
	const struct via_guest_region *region;
	unsigned nregions;
	int uffd;
	bool registered; /* the regions, with uffd: from the open to the first stop, and logging */
	bool logging;
	void *own; /* the way's */
};

struct dirty_way {
	const char *name;
	/* Make uffd, with the features needed, and own. On failure nothing stays behind. */
	int (*open)(struct via_dirty_tracker *t, struct via_error *err);
	/* Release own and uffd. */
	void (*close)(struct via_dirty_tracker *t);
	/* The regions are registered: protect them all and log. On failure stop() is called. */
	int (*start)(struct via_dirty_tracker *t, struct via_error *err);
	int (*fetch)(struct via_dirty_tracker *t, unsigned index, struct via_bitmap *dirty,
		     struct via_error *err);
	/* The regions are unregistered again: no fault comes any more. */
	void (*stop)(struct via_dirty_tracker *t);
};

extern const struct dirty_way dirty_async;
extern const struct dirty_way dirty_sync;

/* Write-protect all of @region. */
int dirty_protect_region(const struct via_dirty_tracker *t, const struct via_guest_region *region,
			 struct via_error *err);

#endif
