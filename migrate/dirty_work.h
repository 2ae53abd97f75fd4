/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dirty_work.h -- private to migrate/: the dirty pages of a round as work for the
 * senders (struct via_work of transport.h).
 *
 * Guest RAM is divided into windows of 1 MiB. Each sender takes the next window that
 * nobody has, takes its dirty bits, joins neighbouring pages into runs and sorts out the zero
 * pages. A page is handed out once in a round, because its bit is taken once.
 */
#ifndef VIA_MIGRATE_DIRTY_WORK_H
#define VIA_MIGRATE_DIRTY_WORK_H

#include "core/bitmap.h"
#include "migrate/guest.h"
#include "transport/transport.h"

struct dirty_work;

/* What was handed out, in pages; sum over all channels since dirty_work_new(). */
struct dirty_work_counts {
	uint64_t pages;
	uint64_t zero_pages;
	uint64_t bytes; /* of those with content */
};

/* All pages clean. The regions are the guest's and stay. -ENOMEM */
int dirty_work_new(const struct via_guest_region *regions, unsigned nregions, unsigned nchannels,
		   struct dirty_work **work, struct via_error *err);
void dirty_work_free(struct dirty_work *work);

/* The dirty bitmap of region @index: set bits between the rounds. */
struct via_bitmap *dirty_work_bitmap(struct dirty_work *work, unsigned index);
/* Make every page dirty. */
void dirty_work_set_all(struct dirty_work *work);
/* Bytes still dirty. Near enough while a round is under way. */
uint64_t dirty_work_remaining(const struct dirty_work *work);

/* Begin a round. @fresh: no page was ever sent before. The result is for via_round_start(). */
const struct via_work *dirty_work_begin(struct dirty_work *work, bool fresh);
/* Hand out no more in this round. Any thread. */
void dirty_work_cut(struct dirty_work *work);
/* After a round that was cut: what was not handed out is dirty again. */
void dirty_work_restore(struct dirty_work *work);
/* Between the rounds: the counts so far. */
void dirty_work_counts(const struct dirty_work *work, struct dirty_work_counts *counts);

#endif
