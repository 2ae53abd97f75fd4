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
 */
#ifndef VIA_MIGRATE_DIRTY_TRACKER_H
#define VIA_MIGRATE_DIRTY_TRACKER_H

#include "core/bitmap.h"
#include "core/error.h"
#include "migrate/guest.h"

struct via_dirty_tracker;

enum via_dirty_way { VIA_DIRTY_BEST = 0, VIA_DIRTY_ASYNC, VIA_DIRTY_SYNC };

/*
 * A tracker for @regions (addr, len, page_size; kept by the caller while it
 * lives), not yet logging. @way: BEST takes async where it works, else sync. The memory
 * may not be unmapped, or registered with another userfaultfd, until the close.
 *  -EOPNOTSUPP  the kernel lacks what @way needs (@err: which feature, which release has it),
 *               or cannot protect this kind of memory (shared memory before 5.19; files on
 *               disk, the sync way)
 *  -EPERM       userfaultfd is not permitted (@err: the sysctl or device, its value, the command)
 *  -EINVAL      no region; one not aligned to, or not a multiple of, its page_size; a page_size
 *               below the system's; memory that another userfaultfd has
 *  -ENOMEM, -EIO
 * Does not block. All functions of one tracker are called by one thread at a time.
 */
int via_dirty_tracker_open(const struct via_guest_region *regions, unsigned nregions,
			   enum via_dirty_way way, struct via_dirty_tracker **tracker,
			   struct via_error *err);

/* Stops logging first. Accepts NULL. */
void via_dirty_tracker_close(struct via_dirty_tracker *tracker);

/*
 * These three do what the functions of the same names of struct via_source_guest promise, and
 * take time in proportion to the memory. Logging can be started again after a stop.
 *  start  -EINVAL when logging; -EOPNOTSUPP, -ENOMEM, -EIO from the kernel
 *  fetch  -EINVAL when not logging, for an @index that does not exist or a @dirty with fewer bits
 *         than the region has pages; -EIO when the kernel failed: the log is lost
 *  stop   nothing while not logging
 */
int via_dirty_tracker_start(struct via_dirty_tracker *tracker, struct via_error *err);
int via_dirty_tracker_fetch(struct via_dirty_tracker *tracker, unsigned index,
			    struct via_bitmap *dirty, struct via_error *err);
void via_dirty_tracker_stop(struct via_dirty_tracker *tracker);

/* "async" or "sync": which way it took. Static. */
const char *via_dirty_tracker_way(const struct via_dirty_tracker *tracker);

#endif
