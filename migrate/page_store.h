/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * page_store.h -- private to migrate/: guest RAM of the destination in postcopy. Which pages are
 * there, and the one way in which others come: userfaultfd.
 *
 * From page_store_arm() on nothing else writes guest memory but the guest. Any thread may install;
 * a page that is there is never overwritten.
 */
#ifndef VIA_MIGRATE_PAGE_STORE_H
#define VIA_MIGRATE_PAGE_STORE_H

#include "core/bitmap.h"
#include "core/error.h"
#include "transport/transport.h"

struct page_store_region {
	char name[64];
	uint8_t *addr;
	uint64_t len;
	uint32_t page_size;
	uint64_t npages;
	bool registered;
	bool zeropage;             /* the kernel installs zero pages here */
	struct via_bitmap lacking; /* pages that have to come */
	struct via_bitmap asked;   /* pages that were asked for: by the fault server alone */
};

struct page_store {
	int uffd;
	struct page_store_region *region;
	unsigned nregions;
	uint64_t system_page; /* bytes */
	uint8_t *zeros;       /* a page of the largest size, for memory without zeropage */
	size_t zeros_len;
	_Atomic uint64_t missing;    /* pages */
	_Atomic uint64_t duplicates; /* pages that came and were there */
};

/*
 * For the regions of a session, whose addresses are kept. Opens userfaultfd.
 *  -EPERM, -EOPNOTSUPP as uffd_open(), -ENOMEM
 */
int page_store_new(const struct via_region *regions, unsigned nregions, struct page_store **store,
		   struct via_error *err);
/*
 * Faults come no more: who waits for a page finds what is there, or zeros. For memory that is complete,
 * or a guest that will not go on.
 */
void page_store_release(struct page_store *store);
/* Releases it first. Accepts NULL. */
void page_store_free(struct page_store *store);

/* Are these the same regions? */
bool page_store_matches(const struct page_store *store, const struct via_region *regions,
			unsigned nregions);

/*
 * The bitmaps lacking are set: register all memory, discard what is lacking. Only when guest memory
 * is sealed: a registration with a fabric may hold pages. Once more after a release, before the guest
 * runs.
 *  -EOPNOTSUPP memory that is locked, or a private mapping of a file (but of hugetlbfs); -EINVAL
 *  another userfaultfd has it; -ENOMEM, -EIO
 */
int page_store_arm(struct page_store *store, struct via_error *err);

/* Install pages [first, first + n) of region @index from @src (NULL: zeros). 0 or a negated code. */
int page_store_install(struct page_store *store, unsigned index, uint64_t first, uint64_t n,
		       const uint8_t *src);

/*
 * A fault on a page that does not have to come: it was never anything but zero, or came
 * meanwhile. Lets the vCPU go on.
 */
int page_store_let_go(struct page_store *store, unsigned index, uint64_t page);

/* The page that @addr is in: its region, or -1. */
int page_store_find(const struct page_store *store, uint64_t addr, uint64_t *page);

#endif
