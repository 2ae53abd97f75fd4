/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dirty_tracker.h -- ready-made dirty logs for guests whose RAM is ordinary memory of
 * this process: userfaultfd write protection.
 *
 * Two ways, chosen by what the kernel has:
 *   async  write-protect asynchronous (UFFD_FEATURE_WP_ASYNC) and PAGEMAP_SCAN, Linux 6.7
 *          and later: the kernel unprotects on a write by itself, and one ioctl
 *          reads the written pages and protects them again. Needs no privilege.
 *   sync   write-protect with fault messages (UFFDIO_WRITEPROTECT, Linux 5.7
 *          and later): a thread of the tracker takes each first write to a page,
 *          marks it and unprotects it. Needs permission to take faults of the kernel
 *          (read(2) into guest memory).
 *
 * What is logged: writes through the regions' addresses, by threads of this process
 * and by the kernel on their behalf; a page never touched before is logged when it is first
 * written, not when it is first read. Private and shared memory (memfd), huge pages
 * and transparent huge pages work; the log's unit stays the region's page_size.
 * What is not: writes by another process that maps the same memory, writes by devices (DMA),
 * and pages discarded while logging (MADV_DONTNEED, MADV_REMOVE): a VMM marks these itself.
 *
 * Threads: any, one at a time for each tracker.
 */
#ifndef VIA_MIGRATE_DIRTY_TRACKER_H
#define VIA_MIGRATE_DIRTY_TRACKER_H

#include "core/bitmap.h"
#include "core/error.h"
#include "migrate/guest.h"

#ifdef __cplusplus
extern "C" {
#endif

struct via_dirty_tracker;

/* How to log: see above. BEST takes async where it works, else sync. */
enum via_dirty_way { VIA_DIRTY_BEST = 0, VIA_DIRTY_ASYNC, VIA_DIRTY_SYNC };

/*
 * Make a tracker, which does not log yet.
 *
 * It is for the @nregions @regions (addr, len, page_size), which the caller keeps while it lives;
 * the memory may not be unmapped, or registered with another userfaultfd, until the close. @way:
 * VIA_DIRTY_BEST takes async where it works, else sync. Does not block. *@tracker is the caller's
 * to close.
 *
 *  -EOPNOTSUPP  the kernel lacks what @way needs (@err: which feature, which release has it),
 *               or cannot protect this kind of memory (shared memory before 5.19; files on
 *               disk, the sync way)
 *  -EPERM       userfaultfd is not permitted (@err: the sysctl or device, its value, the command)
 *  -EINVAL      no region; one not aligned to, or not a multiple of, its page_size; a page_size
 *               below the system's; memory that another userfaultfd has
 *  -ENOMEM, -EIO  no memory; what the kernel says, in @err
 */
int via_dirty_tracker_open(const struct via_guest_region *regions, unsigned nregions,
			   enum via_dirty_way way, struct via_dirty_tracker **tracker,
			   struct via_error *err);

/* Stop logging and free a tracker. Accepts NULL. */
void via_dirty_tracker_close(struct via_dirty_tracker *tracker);

/*
 * Begin to log: what via_source_guest.dirty_start() promises.
 *
 * Logging can be started again after a stop. Takes time in proportion to the memory.
 *
 *  -EINVAL  it is logging
 *  -EOPNOTSUPP, -ENOMEM, -EIO  what the kernel says, in @err
 */
int via_dirty_tracker_start(struct via_dirty_tracker *tracker, struct via_error *err);

/*
 * Fetch the log of a region and clear it: what via_source_guest.dirty_fetch() promises.
 *
 * Sets in @dirty, one bit for each page of region @index, every page written since the last fetch.
 * Takes time in proportion to the memory.
 *
 *  -EINVAL  it is not logging; there is no such @index; @dirty has fewer bits than the region pages
 *  -EIO     the kernel failed: the log is lost
 */
int via_dirty_tracker_fetch(struct via_dirty_tracker *tracker, unsigned index,
			    struct via_bitmap *dirty, struct via_error *err);

/* Stop logging: what via_source_guest.dirty_stop() promises. Does nothing while not logging. */
void via_dirty_tracker_stop(struct via_dirty_tracker *tracker);

/* Which way a tracker logs. Returns "async" or "sync". Static. */
const char *via_dirty_tracker_way(const struct via_dirty_tracker *tracker);

#ifdef __cplusplus
}
#endif

#endif
