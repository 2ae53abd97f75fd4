/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dirty_tracker.c -- what the two ways of logging dirty pages have in common: checks,
 * the choice between them, registration and the first protection.
 *
 * It must never leave guest memory protected with nobody to serve the faults.
 *
 * Invariant: while not logging no page is protected; the way's stop() runs after
 * the memory was unregistered, so that no thread waits in a fault when it does.
 */
#include "migrate/dirty_tracker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migrate/dirty_tracker_impl.h"
#include "migrate/uffd.h"

/* Protecting holds the lock of the address space, for some 10 ms a GiB: let others in. */
#define PROTECT_STEP (UINT64_C(1) << 30)

static int check_region(const struct via_guest_region *r, struct via_error *err)
{
	uint64_t system_page = (uint64_t)sysconf(_SC_PAGESIZE);

	if (!r->addr || !r->len || !r->page_size || r->page_size % system_page ||
	    r->len % r->page_size || (uintptr_t)r->addr % r->page_size)
		return via_fail(
			err, -EINVAL,
			"region %s cannot be tracked\n"
			"address %p, %llu bytes, page size %u\n"
			"address and length are multiples of the page size, and that of %llu",
			r->name, r->addr, (unsigned long long)r->len, r->page_size,
			(unsigned long long)system_page);
	return 0;
}

static void unregister_all(struct via_dirty_tracker *t, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		uffd_unregister(t->uffd, t->region[i].addr, t->region[i].len);
	t->registered = false;
}

static int register_all(struct via_dirty_tracker *t, struct via_error *err)
{
	if (t->registered)
		return 0;
	for (unsigned i = 0; i < t->nregions; i++) {
		const struct via_guest_region *r = &t->region[i];
		int ret = uffd_register_wp(t->uffd, r->name, r->addr, r->len, err);

		if (ret) {
			unregister_all(t, i);
			return ret;
		}
	}
	t->registered = true;
	return 0;
}

/* Registers too: that is where the kernel says whether it can protect this memory. */
static int open_way(struct via_dirty_tracker *t, const struct dirty_way *way, struct via_error *err)
{
	int ret;

	t->way = way;
	ret = way->open(t, err);
	if (ret)
		return ret;
	ret = register_all(t, err);
	if (ret)
		way->close(t);
	return ret;
}

int via_dirty_tracker_open(const struct via_guest_region *regions, unsigned nregions,
			   enum via_dirty_way way, struct via_dirty_tracker **tracker,
			   struct via_error *err)
{
	struct via_dirty_tracker *t;
	int ret = -EOPNOTSUPP;

	if (!regions || !nregions || !tracker)
		return via_fail(err, -EINVAL, "a dirty tracker needs regions\n%u regions",
				nregions);
	for (unsigned i = 0; i < nregions; i++) {
		int bad = check_region(&regions[i], err);

		if (bad)
			return bad;
	}
	t = calloc(1, sizeof(*t));
	if (!t)
		return via_fail(err, -ENOMEM, "no memory for a dirty tracker");
	t->region = regions;
	t->nregions = nregions;
	if (way != VIA_DIRTY_SYNC)
		/* Of a BEST that fails both ways, the second failure is the one to mend. */
		ret = open_way(t, &dirty_async, way == VIA_DIRTY_ASYNC ? err : NULL);
	if (ret && way != VIA_DIRTY_ASYNC)
		ret = open_way(t, &dirty_sync, err);
	if (ret) {
		free(t);
		return ret;
	}
	*tracker = t;
	return 0;
}

void via_dirty_tracker_close(struct via_dirty_tracker *t)
{
	if (!t)
		return;
	via_dirty_tracker_stop(t);
	if (t->registered)
		unregister_all(t, t->nregions);
	t->way->close(t);
	free(t);
}

int dirty_protect_region(const struct via_dirty_tracker *t, const struct via_guest_region *region,
			 struct via_error *err)
{
	uint64_t step = PROTECT_STEP - PROTECT_STEP % region->page_size;
	uint64_t len;

	if (!step)
		step = region->page_size;
	for (uint64_t off = 0; off < region->len; off += len) {
		int ret;

		len = region->len - off < step ? region->len - off : step;
		ret = uffd_protect(t->uffd, (char *)region->addr + off, len, true);
		if (ret)
			return via_fail(err, ret,
					"region %s cannot be write-protected\nUFFDIO_WRITEPROTECT "
					"at offset %llu: %s",
					region->name, (unsigned long long)off, strerror(errno));
	}
	return 0;
}

/* Undo start(), also half of it. */
static void stop_logging(struct via_dirty_tracker *t)
{
	unregister_all(t, t->nregions);
	t->way->stop(t);
	t->logging = false;
}

int via_dirty_tracker_start(struct via_dirty_tracker *t, struct via_error *err)
{
	int ret;

	if (t->logging)
		return via_fail(err, -EINVAL, "the dirty log runs already");
	ret = register_all(t, err);
	if (ret)
		return ret;
	ret = t->way->start(t, err);
	if (ret) {
		stop_logging(t);
		return ret;
	}
	t->logging = true;
	return 0;
}

int via_dirty_tracker_fetch(struct via_dirty_tracker *t, unsigned index, struct via_bitmap *dirty,
			    struct via_error *err)
{
	const struct via_guest_region *r;

	if (!t->logging)
		return via_fail(err, -EINVAL, "the dirty log does not run");
	if (index >= t->nregions)
		return via_fail(err, -EINVAL, "no such region in the dirty log\nindex %u of %u",
				index, t->nregions);
	r = &t->region[index];
	if (dirty->nbits < r->len / r->page_size)
		return via_fail(err, -EINVAL,
				"bitmap too small for region %s\n%zu bits for %llu pages", r->name,
				dirty->nbits, (unsigned long long)(r->len / r->page_size));
	return t->way->fetch(t, index, dirty, err);
}

void via_dirty_tracker_stop(struct via_dirty_tracker *t)
{
	if (t->logging)
		stop_logging(t);
}

const char *via_dirty_tracker_way(const struct via_dirty_tracker *t)
{
	return t->way->name;
}
