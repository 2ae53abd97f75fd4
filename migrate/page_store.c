/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * page_store.c -- see page_store.h.
 *
 * Invariant: once armed, a page whose bit in lacking is clear is there, or is zero and may be made
 * there by anybody; a bit is cleared only after its page was installed. Memory is registered
 * before anything is discarded, so that nobody (khugepaged, say) can fill the hole with zeros.
 */
#include "migrate/page_store.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/buffer.h"
#include "core/log.h"
#include "core/probe.h"
#include "migrate/uffd.h"

static int open_uffd(struct page_store *store, struct via_error *err)
{
	static const uint64_t set[] = {
		UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_MISSING_HUGETLBFS |
			UFFD_FEATURE_MISSING_SHMEM,
		UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_MISSING_SHMEM,
		0,
	};
	struct via_error first = {0};
	int rc = uffd_open(false, &store->uffd, &first);

	/* Enough for vCPUs that fault in user mode; KVM and read(2) need the other kind. */
	if (rc == -EPERM && !uffd_open(true, &store->uffd, NULL)) {
		via_log("userfaultfd only for faults of user mode: %s", first.seen);
		rc = 0;
	}
	if (rc)
		return via_error_pass(err, &first);
	for (unsigned i = 0; i < sizeof(set) / sizeof(set[0]); i++)
		if (!uffd_enable(store->uffd, set[i]))
			return 0;
	return via_fail(err, -EOPNOTSUPP,
			"receive by postcopy\nthis kernel's userfaultfd cannot be switched on\n"
			"use Linux 4.11 or later");
}

static int init_region(struct page_store_region *r, const struct via_region *region)
{
	memcpy(r->name, region->desc.name, sizeof(r->name));
	r->addr = region->addr;
	r->len = region->desc.len;
	r->page_size = region->desc.page_size;
	r->npages = r->len / r->page_size;
	if (via_bitmap_init(&r->lacking, r->npages))
		return -ENOMEM;
	return via_bitmap_init(&r->asked, r->npages);
}

int page_store_new(const struct via_region *regions, unsigned nregions, struct page_store **out,
		   struct via_error *err)
{
	struct page_store *store = calloc(1, sizeof(*store));
	int rc = -ENOMEM;

	if (!store)
		goto fail;
	store->uffd = -1;
	store->system_page = (uint64_t)sysconf(_SC_PAGESIZE);
	store->region = calloc(nregions, sizeof(*store->region));
	for (unsigned i = 0; store->region && i < nregions; i++) {
		store->nregions = i + 1;
		if (init_region(&store->region[i], &regions[i]))
			goto fail;
		if (store->zeros_len < regions[i].desc.page_size)
			store->zeros_len = regions[i].desc.page_size;
	}
	if (store->region)
		store->zeros = via_pages_alloc(store->zeros_len);
	if (!store->zeros)
		goto fail;
	rc = open_uffd(store, err);
	if (rc)
		goto fail;
	*out = store;
	return 0;
fail:
	page_store_free(store);
	return via_fail(err, rc, "receive by postcopy\n%s\nfree some memory", via_err_text(rc));
}

void page_store_release(struct page_store *store)
{
	for (unsigned i = 0; i < store->nregions; i++) {
		struct page_store_region *r = &store->region[i];

		if (r->registered)
			uffd_unregister(store->uffd, r->addr, r->len);
		r->registered = false;
	}
}

void page_store_free(struct page_store *store)
{
	if (!store)
		return;
	page_store_release(store);
	for (unsigned i = 0; i < store->nregions; i++) {
		struct page_store_region *r = &store->region[i];

		via_bitmap_fini(&r->lacking);
		via_bitmap_fini(&r->asked);
	}
	if (store->uffd >= 0)
		close(store->uffd);
	via_pages_free(store->zeros, store->zeros_len);
	free(store->region);
	free(store);
}

bool page_store_matches(const struct page_store *store, const struct via_region *regions,
			unsigned nregions)
{
	if (nregions != store->nregions)
		return false;
	for (unsigned i = 0; i < nregions; i++)
		if (strcmp(regions[i].desc.name, store->region[i].name) != 0 ||
		    regions[i].desc.len != store->region[i].len ||
		    regions[i].desc.page_size != store->region[i].page_size)
			return false;
	return true;
}

/* Give the memory back, so that the next touch of it is a fault. */
static int discard(const struct page_store_region *r, uint64_t first, uint64_t n,
		   struct via_error *err)
{
	void *addr = r->addr + first * r->page_size;
	size_t len = n * r->page_size;

	/* Shared memory and files: a hole. */
	if (!madvise(addr, len, MADV_REMOVE))
		return 0;
	/* Behind a private page of tmpfs its file has one, too: a touch finds that, no fault. */
	if (errno == EACCES && r->zeropage)
		return via_fail(err, -EOPNOTSUPP,
				"discard pages of region %s\nit is a private mapping of a file\n"
				"postcopy needs anonymous or shared memory (share=on)",
				r->name);
	/* Anonymous private memory has no file to punch; nor has hugetlbfs a page of its own. */
	if (!madvise(addr, len, MADV_DONTNEED))
		return 0;
	return via_fail(err, errno == EINVAL ? -EOPNOTSUPP : via_err_from_errno(errno),
			"discard pages of region %s\n%zu bytes at offset %llu: %s\n"
			"postcopy needs memory that is not locked (mlock, memlock=on)",
			r->name, len, (unsigned long long)(first * r->page_size), strerror(errno));
}

int page_store_arm(struct page_store *store, struct via_error *err)
{
	uint64_t missing = 0;
	int rc = 0;

	for (unsigned i = 0; i < store->nregions && !rc; i++) {
		struct page_store_region *r = &store->region[i];
		size_t first = 0, n = 0;

		if (!r->registered)
			rc = uffd_register_missing(store->uffd, r->name, r->addr, r->len,
						   &r->zeropage, err);
		r->registered = !rc;
		while (!rc && (n = via_bitmap_next_run(&r->lacking, first + n, &first)) != 0) {
			rc = discard(r, first, n, err);
			VIA_PROBE(discard, VIA_ROLE_DESTINATION, 0,
				  VIA_PROBE_PLACE(i, first * r->page_size), n * r->page_size, 0);
			missing += n;
		}
	}
	atomic_store(&store->missing, missing);
	return rc;
}

/* These pages are there now. */
static void note_installed(struct page_store *store, struct page_store_region *r, uint64_t first,
			   uint64_t n)
{
	uint64_t fresh = 0;

	for (uint64_t page = first; page < first + n;) {
		size_t w = page / VIA_BITMAP_WORD_BITS;
		unsigned bit = page % VIA_BITMAP_WORD_BITS;
		uint64_t in_word = VIA_BITMAP_WORD_BITS - bit;
		uint64_t mask;

		if (in_word > first + n - page)
			in_word = first + n - page;
		mask = (in_word == 64 ? UINT64_MAX : (UINT64_C(1) << in_word) - 1) << bit;
		fresh += (uint64_t)__builtin_popcountll(via_bitmap_take_bits(&r->lacking, w, mask));
		page += in_word;
	}
	VIA_PROBE(install, VIA_ROLE_DESTINATION, 0,
		  VIA_PROBE_PLACE(r - store->region, first * r->page_size), n * r->page_size,
		  n - fresh);
	atomic_fetch_sub(&store->missing, fresh);
	atomic_fetch_add_explicit(&store->duplicates, n - fresh, memory_order_relaxed);
}

/* Bytes that the kernel maps at once here. */
static uint64_t mapped_step(const struct page_store *store, const struct page_store_region *r)
{
	return r->zeropage ? store->system_page : r->page_size;
}

/* Bytes [off, off + len) of the region, wherever nothing is; and let go who waits there. */
static int fill(struct page_store *store, const struct page_store_region *r, uint64_t off,
		uint64_t len, const uint8_t *src)
{
	bool from_zeros = !src && !r->zeropage;
	uint8_t *addr = r->addr + off;
	uint64_t done = 0;

	while (done < len) {
		uint64_t step = from_zeros ? r->page_size : len - done;
		const uint8_t *from = src ? src + done : from_zeros ? store->zeros : NULL;
		int64_t got = uffd_install(store->uffd, addr + done, from, step);

		if (got == -EAGAIN)
			continue;
		if (got < 0)
			return (int)got;
		done += (uint64_t)got;
		if (got == 0) {
			/* There already: who waits for it has been let go, or is now. */
			uffd_wake(store->uffd, addr + done, mapped_step(store, r));
			done += mapped_step(store, r);
		}
	}
	return 0;
}

int page_store_install(struct page_store *store, unsigned index, uint64_t first, uint64_t n,
		       const uint8_t *src)
{
	struct page_store_region *r = &store->region[index];
	int rc = fill(store, r, first * r->page_size, n * r->page_size, src);

	if (!rc)
		note_installed(store, r, first, n);
	return rc;
}

int page_store_let_go(struct page_store *store, unsigned index, uint64_t page)
{
	const struct page_store_region *r = &store->region[index];

	int rc = fill(store, r, page * r->page_size, r->page_size, NULL);

	if (rc) /* its message was read: have it fault again */
		uffd_wake(store->uffd, r->addr + page * r->page_size, r->page_size);
	return rc;
}

int page_store_find(const struct page_store *store, uint64_t addr, uint64_t *page)
{
	for (unsigned i = 0; i < store->nregions; i++) {
		const struct page_store_region *r = &store->region[i];
		uint64_t off = addr - (uintptr_t)r->addr;

		if (addr >= (uintptr_t)r->addr && off < r->len) {
			*page = off / r->page_size;
			return (int)i;
		}
	}
	return -1;
}
