/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dirty_tracker_async.c -- the dirty log kept by the kernel: asynchronous write protection,
 * read by PAGEMAP_SCAN.
 *
 * The kernel drops the protection of a page on its first write, without asking; the
 * scan names the pages that have none and protects them in the same step, under the
 * page table's lock. It must never protect a page without handing it over.
 *
 * Transparent huge pages need nothing more: the kernel protects one as a whole, which is fast,
 * and splits its mapping on the first write, so that the log stays exact to the small page;
 * memory not there yet is marked page by page and comes in small pages. Nor do faults of the
 * kernel: they are resolved before it asks whether a message about them is permitted, so a
 * userfaultfd for user mode only does, which any process may have.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "migrate/dirty_tracker_impl.h"
#include "migrate/uffd.h"

#define RUNS 1024 /* of written pages that one scan returns: 24 KiB */

struct async {
	int pagemap;
	struct page_region run[RUNS];
};

static int async_open(struct via_dirty_tracker *t, struct via_error *err)
{
	struct async *own;
	int ret = uffd_open(true, &t->uffd, err);

	if (ret)
		return ret;
	ret = uffd_enable(t->uffd, UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED |
					   UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_WP_ASYNC);
	if (ret) {
		via_fail(err, ret,
			 "this kernel has no asynchronous write protection\n"
			 "userfaultfd lacks UFFD_FEATURE_WP_ASYNC\n"
			 "use Linux 6.7 or later, or the sync way");
		goto close_uffd;
	}
	own = malloc(sizeof(*own));
	if (!own) {
		ret = via_fail(err, -ENOMEM, "no memory for a dirty tracker");
		goto close_uffd;
	}
	own->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (own->pagemap < 0) {
		ret = via_fail(err, errno == EACCES ? -EPERM : via_err_from_errno(errno),
			       "/proc/self/pagemap cannot be read\n%s\n"
			       "mount /proc; a process that changed its user needs PR_SET_DUMPABLE",
			       strerror(errno));
		goto free_own;
	}
	t->own = own;
	return 0;
free_own:
	free(own);
close_uffd:
	close(t->uffd);
	return ret;
}

static void async_close(struct via_dirty_tracker *t)
{
	struct async *own = t->own;

	close(own->pagemap);
	free(own);
	close(t->uffd);
}

static int async_start(struct via_dirty_tracker *t, struct via_error *err)
{
	int ret = 0;

	for (unsigned i = 0; i < t->nregions && !ret; i++)
		ret = dirty_protect_region(t, &t->region[i], err);
	return ret;
}

static int async_fetch(struct via_dirty_tracker *t, unsigned index, struct via_bitmap *dirty,
		       struct via_error *err)
{
	const struct via_guest_region *r = &t->region[index];
	struct async *own = t->own;
	uint64_t base = (uintptr_t)r->addr;
	/* Exactly this pair of masks takes the kernel's short path. */
	struct pm_scan_arg scan = {
		.size = sizeof(scan),
		.flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
		.start = base,
		.end = base + r->len,
		.vec = (uintptr_t)own->run,
		.vec_len = RUNS,
		.category_mask = PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_WRITTEN,
	};

	while (scan.start < scan.end) {
		int n = ioctl(own->pagemap, PAGEMAP_SCAN, &scan);

		if (n < 0)
			return via_fail(err, -EIO,
					"the written pages of region %s cannot be read\n"
					"PAGEMAP_SCAN: %s",
					r->name, strerror(errno));
		for (int i = 0; i < n; i++) {
			uint64_t first = (own->run[i].start - base) / r->page_size;
			uint64_t last = (own->run[i].end - 1 - base) / r->page_size;

			via_bitmap_set(dirty, first, last - first + 1);
		}
		scan.start = scan.walk_end;
	}
	return 0;
}

static void async_stop(struct via_dirty_tracker *t)
{
	(void)t; /* unregistering was all */
}

const struct dirty_way dirty_async = {
	.name = "async",
	.open = async_open,
	.close = async_close,
	.start = async_start,
	.fetch = async_fetch,
	.stop = async_stop,
};
