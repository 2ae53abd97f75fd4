/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * guest.h -- all that the engine knows of a guest: its RAM, a log of the pages
 * it dirties, how to stop it, and its device state.
 *
 * A VMM fills in a struct via_source_guest or a struct via_destination_guest. Its functions return
 * 0 or a negated code of core/error.h, and leave the cause in @err with via_fail().
 *
 * Threads: the engine calls the guest's functions in the thread that runs the migration.
 *
 * Postcopy asks a little more of the RAM: anonymous, shared or hugetlbfs memory whose pages the
 * engine may discard and register with userfaultfd. Pages must not be locked (mlock) at the
 * destination: what is locked cannot be absent. Huge pages that are discarded go back to the pool:
 * leave it to the guest, or pages that come may find none.
 */
#ifndef VIA_MIGRATE_GUEST_H
#define VIA_MIGRATE_GUEST_H

#include <stddef.h>
#include <stdint.h>

#include "core/bitmap.h"
#include "core/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One piece of guest RAM, contiguous in the address space of this process. */
struct via_guest_region {
	char name[64];      /* the same on both sides: "ram", "pc.ram", "vram" */
	void *addr;         /* aligned to page_size */
	uint64_t len;       /* bytes, a multiple of page_size */
	uint32_t page_size; /* bytes; the unit of the dirty log */
};

/*
 * The source's guest, which runs. The table, the regions and the guest are the caller's, and are
 * needed until via_migrate_source() returns. The first failure of a function before RUN aborts the
 * migration.
 */
struct via_source_guest {
	void *arg; /* passed to every function */
	unsigned nregions;
	const struct via_guest_region *region;

	/* From its return on, every page that the guest writes is in the log. */
	int (*dirty_start)(void *arg, struct via_error *err);
	/*
	 * Set in @dirty (one bit for each page of region @index) every page written
	 * since the last fetch, or since dirty_start(), and begin again with those. A page
	 * written while this runs is in this fetch or in the next, never in none.
	 */
	int (*dirty_fetch)(void *arg, unsigned index, struct via_bitmap *dirty,
			   struct via_error *err);
	/* Stop logging. Called at the end, whatever the outcome was. */
	void (*dirty_stop)(void *arg);

	/* Stop the vCPUs and devices: nothing writes guest RAM after its return. */
	int (*pause)(void *arg, struct via_error *err);
	/* Run on, after a migration that failed once the guest had been paused. */
	void (*resume)(void *arg);

	/*
	 * The device state of the paused guest: *state (from malloc; the engine
	 * frees it) and its *len in bytes, which may be 0.
	 */
	int (*save)(void *arg, void **state, size_t *len, struct via_error *err);
};

/*
 * The destination's guest, which is empty and stopped. The table and the guest are the caller's,
 * and are needed until via_migrate_destination() returns. What load() or run() reports the source
 * is told, so that it may run its guest again.
 */
struct via_destination_guest {
	void *arg; /* passed to every function */
	/*
	 * The source has these @nregions regions (addr is NULL). Make equal ones, zeroed,
	 * and put their addresses into region[i].addr; they stay the guest's.
	 * -ENOMEM and -EINVAL end the migration with @err's text on both sides.
	 */
	int (*prepare)(void *arg, unsigned nregions, struct via_guest_region *region,
		       struct via_error *err);
	/*
	 * Take the device state: @len bytes that came from the source. -EPROTO when bad. It may
	 * read guest RAM; in postcopy it then waits for pages. Called again when the session was
	 * lost before the guest ran: the later state is the one that counts.
	 */
	int (*load)(void *arg, const void *state, size_t len, struct via_error *err);
	/*
	 * Start the vCPUs. From here on the guest lives here. In postcopy pages are missing: let
	 * the vCPUs wait for them, not this call.
	 */
	int (*run)(void *arg, struct via_error *err);
	/*
	 * Postcopy was given up: pages of the running guest are missing for ever. Called before
	 * vCPUs that wait for one are let go: see to it that none of them goes on. Must not wait
	 * for them. NULL: postcopy is refused.
	 */
	void (*abandon)(void *arg);
};

#ifdef __cplusplus
}
#endif

#endif
