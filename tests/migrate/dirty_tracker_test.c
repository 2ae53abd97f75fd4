/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dirty_tracker_test.c -- both ways of logging, on each kind of memory that guests use.
 *
 * A quiet guest's log is compared page for page with what was written. A busy one is
 * migrated: what each fetch names is copied while threads write on, and after the last
 * fetch the copy must equal the memory. One lost write anywhere makes it differ.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "migrate/dirty_tracker.h"

#define PAGE ((size_t)4096)
#define HUGE ((size_t)2 << 20)

enum memory { PRIVATE, SHARED, MEMFD, ON_DISK, THP, HUGETLB };

static const char *const memory_name[] = {"private", "shared",           "memfd",
					  "file",    "transparent huge", "hugetlb"};

/* The last that make_region() made, for the messages. */
static const char *kind = "";

struct setup {
	enum via_dirty_way way;
	enum memory memory;
};

/* Memory aligned to huge pages; NULL where the host has none of this kind. */
static void *map_memory(enum memory memory, size_t len)
{
	int flags = memory == PRIVATE || memory == THP ? MAP_PRIVATE : MAP_SHARED, fd = -1;
	uintptr_t start = (uintptr_t)mmap(NULL, len + HUGE, PROT_NONE,
					  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uintptr_t at = (start + HUGE - 1) & ~(HUGE - 1);
	void *addr;

	cr_assert_neq(start, (uintptr_t)MAP_FAILED);
	if (memory == MEMFD || memory == ON_DISK) {
		char name[] = "/var/tmp/dirty_tracker_XXXXXX";

		fd = memory == MEMFD ? memfd_create("ram", MFD_CLOEXEC) : mkstemp(name);
		if (memory == ON_DISK)
			unlink(name);
		cr_assert(fd >= 0 && !ftruncate(fd, (off_t)len));
	} else {
		flags |= MAP_ANONYMOUS | (memory == HUGETLB ? MAP_HUGETLB : 0);
	}
	addr = mmap((void *)at, len, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0);
	if (fd >= 0)
		close(fd);
	if (addr == MAP_FAILED)
		return NULL;
	if (memory == THP)
		madvise(addr, len, MADV_HUGEPAGE);
	return addr;
}

static struct via_guest_region make_region(enum memory memory, size_t pages)
{
	struct via_guest_region r = {.name = "ram", .page_size = memory == HUGETLB ? HUGE : PAGE};

	kind = memory_name[memory];
	r.len = pages * r.page_size;
	r.addr = map_memory(memory, r.len);
	if (!r.addr)
		cr_skip_test("no huge pages here (vm.nr_hugepages)");
	return r;
}

static struct via_dirty_tracker *open_tracker(const struct via_guest_region *r, unsigned n,
					      enum via_dirty_way way)
{
	struct via_dirty_tracker *t = NULL;
	struct via_error err = {0};
	char text[640];
	int ret = via_dirty_tracker_open(r, n, way, &t, &err);

	if (ret == -EOPNOTSUPP || ret == -EPERM)
		cr_skip_test("%s", via_error_format(&err, text, sizeof(text)));
	cr_assert_eq(ret, 0, "%s", via_error_format(&err, text, sizeof(text)));
	return t;
}

static struct via_dirty_tracker *start_tracker(const struct via_guest_region *r, unsigned n,
					       enum via_dirty_way way)
{
	struct via_dirty_tracker *t = open_tracker(r, n, way);
	struct via_error err = {0};

	cr_assert_eq(via_dirty_tracker_start(t, &err), 0, "%s: %s", err.what, err.seen);
	return t;
}

/* Fetch region @index and check that exactly the pages set in @expected (bytes 0 or 1) are new. */
static void check_fetch(struct via_dirty_tracker *t, unsigned index, const char *expected,
			size_t npages)
{
	struct via_bitmap dirty;
	struct via_error err = {0};

	cr_assert_eq(via_bitmap_init(&dirty, npages), 0);
	cr_assert_eq(via_dirty_tracker_fetch(t, index, &dirty, &err), 0, "%s: %s", err.what,
		     err.seen);
	for (size_t i = 0; i < npages; i++)
		cr_assert_eq(via_bitmap_test(&dirty, i), expected[i] != 0,
			     "%s, %s memory: region %u page %zu %s", via_dirty_tracker_way(t), kind,
			     index, i, expected[i] ? "is lost" : "was not written");
	via_bitmap_fini(&dirty);
}

static char *page_at(const struct via_guest_region *r, size_t i)
{
	return (char *)r->addr + i * r->page_size;
}

static struct setup every_setup[] = {
	{VIA_DIRTY_ASYNC, PRIVATE}, {VIA_DIRTY_ASYNC, SHARED}, {VIA_DIRTY_ASYNC, MEMFD},
	{VIA_DIRTY_ASYNC, ON_DISK}, {VIA_DIRTY_ASYNC, THP},    {VIA_DIRTY_ASYNC, HUGETLB},
	{VIA_DIRTY_SYNC, PRIVATE},  {VIA_DIRTY_SYNC, SHARED},  {VIA_DIRTY_SYNC, MEMFD},
	{VIA_DIRTY_SYNC, THP},      {VIA_DIRTY_SYNC, HUGETLB},
};

#define NSETUPS (sizeof(every_setup) / sizeof(every_setup[0]))

ParameterizedTestParameters(dirty_tracker, quiet_guest)
{
	return cr_make_param_array(struct setup, every_setup, NSETUPS);
}

/* Half of the memory was populated before the start, half never. */
ParameterizedTest(struct setup *s, dirty_tracker, quiet_guest)
{
	size_t npages = s->memory == HUGETLB ? 4 : 2 * HUGE / PAGE + 3;
	struct via_guest_region r = make_region(s->memory, npages);
	struct via_dirty_tracker *t;
	char *expected = calloc(npages, 1);

	memset(r.addr, 1, npages / 2 * r.page_size);
	t = start_tracker(&r, 1, s->way);
	check_fetch(t, 0, expected, npages);

	for (size_t i = 0; i < npages; i++)
		(void)*(volatile char *)page_at(&r, i);
	check_fetch(t, 0, expected, npages); /* reading is not writing */

	for (size_t i = 0; i < npages; i += 7) {
		*page_at(&r, i) = 2;
		expected[i] = 1;
	}
	page_at(&r, npages)[-1] = 3;
	expected[npages - 1] = 1;
	check_fetch(t, 0, expected, npages);

	memset(expected, 0, npages);
	check_fetch(t, 0, expected, npages); /* none comes back by itself */

	for (size_t i = 0; i < npages; i += 3) {
		*page_at(&r, i) = 4;
		expected[i] = 1;
	}
	check_fetch(t, 0, expected, npages);
	via_dirty_tracker_close(t);
	munmap(r.addr, r.len);
	free(expected);
}

ParameterizedTestParameters(dirty_tracker, untouched_memory)
{
	return cr_make_param_array(struct setup, every_setup, NSETUPS);
}

/* Nothing was ever there: the first touch is a write. */
ParameterizedTest(struct setup *s, dirty_tracker, untouched_memory)
{
	size_t npages = s->memory == HUGETLB ? 3 : 3 * HUGE / PAGE;
	struct via_guest_region r = make_region(s->memory, npages);
	struct via_dirty_tracker *t = start_tracker(&r, 1, s->way);
	char *expected = calloc(npages, 1);

	for (size_t i = 1; i < npages; i = 3 * i + 1) {
		*page_at(&r, i) = 1;
		expected[i] = 1;
	}
	check_fetch(t, 0, expected, npages);
	via_dirty_tracker_close(t);
	munmap(r.addr, r.len);
	free(expected);
}

ParameterizedTestParameters(dirty_tracker, kernel_writes)
{
	return cr_make_param_array(struct setup, every_setup, NSETUPS);
}

/* A device model read(2)s into guest memory. */
ParameterizedTest(struct setup *s, dirty_tracker, kernel_writes)
{
	struct via_guest_region r = make_region(s->memory, 4);
	char expected[4] = {0, 1, 0, 1};
	struct via_dirty_tracker *t;
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);

	memset(r.addr, 1, 2 * r.page_size);
	t = start_tracker(&r, 1, s->way);
	cr_assert_eq(read(zero, page_at(&r, 1), PAGE), (ssize_t)PAGE, "%s", strerror(errno));
	cr_assert_eq(read(zero, page_at(&r, 3), PAGE), (ssize_t)PAGE, "%s", strerror(errno));
	check_fetch(t, 0, expected, 4);
	via_dirty_tracker_close(t);
	close(zero);
	munmap(r.addr, r.len);
}

/* One of the threads of a busy guest. */
struct writer {
	pthread_t thread;
	const struct via_guest_region *region;
	unsigned nregions;
	uint32_t *count[3]; /* of its writes, for each page of each region */
	uint64_t random;
	unsigned id;
	atomic_uint *working;
};

#define NWRITERS      3u
#define WRITES        30000u
#define HUGETLB_WRITE 300u

/* Adds 1 to the writer's own counter in a random page of a random region. */
static void *write_randomly(void *arg)
{
	struct writer *w = arg;
	unsigned writes = w->region->page_size == HUGE ? HUGETLB_WRITE : WRITES;

	for (unsigned i = 0; i < writes; i++) {
		const struct via_guest_region *r;
		unsigned index;
		size_t page;

		w->random = w->random * 6364136223846793005u + 1442695040888963407u;
		index = (unsigned)(w->random >> 33) % w->nregions;
		r = &w->region[index];
		page = (size_t)(w->random >> 40) % (r->len / r->page_size);
		((uint32_t *)(void *)page_at(r, page))[w->id * 16]++;
		w->count[index][page]++;
	}
	atomic_fetch_sub(w->working, 1);
	return NULL;
}

/* Copy the pages of one fetch, as a round of a migration does. */
static void copy_round(struct via_dirty_tracker *t, const struct via_guest_region *region,
		       unsigned nregions, char **copy)
{
	for (unsigned k = 0; k < nregions; k++) {
		const struct via_guest_region *r = &region[k];
		size_t first, n, from = 0;
		struct via_bitmap dirty;
		struct via_error err = {0};

		cr_assert_eq(via_bitmap_init(&dirty, r->len / r->page_size), 0);
		cr_assert_eq(via_dirty_tracker_fetch(t, k, &dirty, &err), 0, "%s: %s", err.what,
			     err.seen);
		for (; (n = via_bitmap_next_run(&dirty, from, &first)); from = first + n)
			memcpy(copy[k] + first * r->page_size, page_at(r, first), n * r->page_size);
		via_bitmap_fini(&dirty);
	}
}

/* The copy has what the writers counted, and is the memory to the last byte. */
static void check_copy(const struct via_guest_region *region, unsigned nregions,
		       const struct writer *w, char **copy)
{
	for (unsigned k = 0; k < nregions; k++) {
		const struct via_guest_region *r = &region[k];

		for (size_t p = 0; p < r->len / r->page_size; p++) {
			const char *got = copy[k] + p * r->page_size;

			for (unsigned i = 0; i < NWRITERS; i++)
				cr_assert_eq(((const uint32_t *)(const void *)got)[16 * i],
					     w[i].count[k][p], "%s: region %u page %zu writer %u",
					     kind, k, p, i);
			cr_assert_eq(memcmp(got, page_at(r, p), r->page_size), 0,
				     "%s: region %u page %zu differs", kind, k, p);
		}
	}
}

ParameterizedTestParameters(dirty_tracker, busy_guest)
{
	return cr_make_param_array(struct setup, every_setup, NSETUPS);
}

ParameterizedTest(struct setup *s, dirty_tracker, busy_guest)
{
	static const size_t small[] = {HUGE / PAGE + 100, 1, 70}, huge[] = {3, 1, 2};
	const size_t *npages = s->memory == HUGETLB ? huge : small;
	struct via_guest_region region[3];
	struct writer w[NWRITERS];
	struct via_dirty_tracker *t;
	char *copy[3];
	atomic_uint working = NWRITERS;

	for (unsigned k = 0; k < 3; k++) {
		region[k] = make_region(s->memory, npages[k]);
		copy[k] = calloc(1, region[k].len);
	}
	t = start_tracker(region, 3, s->way);
	for (unsigned i = 0; i < NWRITERS; i++) {
		w[i] = (struct writer){.region = region,
				       .nregions = 3,
				       .id = i,
				       .random = i + 1,
				       .working = &working};
		for (unsigned k = 0; k < 3; k++)
			w[i].count[k] = calloc(npages[k], sizeof(uint32_t));
		cr_assert_eq(pthread_create(&w[i].thread, NULL, write_randomly, &w[i]), 0);
	}
	while (atomic_load(&working))
		copy_round(t, region, 3, copy);
	for (unsigned i = 0; i < NWRITERS; i++)
		pthread_join(w[i].thread, NULL);
	copy_round(t, region, 3, copy);
	check_copy(region, 3, w, copy);
	via_dirty_tracker_close(t);
	for (unsigned k = 0; k < 3; k++) {
		for (unsigned i = 0; i < NWRITERS; i++)
			free(w[i].count[k]);
		free(copy[k]);
		munmap(region[k].addr, region[k].len);
	}
}

static enum via_dirty_way both_ways[] = {VIA_DIRTY_ASYNC, VIA_DIRTY_SYNC};

ParameterizedTestParameters(dirty_tracker, regions_apart)
{
	return cr_make_param_array(enum via_dirty_way, both_ways, 2);
}

ParameterizedTest(enum via_dirty_way *way, dirty_tracker, regions_apart)
{
	struct via_guest_region r[] = {make_region(PRIVATE, 1), make_region(MEMFD, 600),
				       make_region(PRIVATE, 65)};
	struct via_dirty_tracker *t = start_tracker(r, 3, *way);
	char expected[600] = {0};

	*page_at(&r[2], 64) = 1;
	*page_at(&r[1], 599) = 1;
	check_fetch(t, 0, expected, 1);
	*page_at(&r[0], 0) = 1;
	expected[64] = 1;
	check_fetch(t, 2, expected, 65);
	expected[64] = 0;
	expected[599] = 1;
	check_fetch(t, 1, expected, 600);
	expected[0] = 1;
	check_fetch(t, 0, expected, 1);
	via_dirty_tracker_close(t);
	for (unsigned k = 0; k < 3; k++)
		munmap(r[k].addr, r[k].len);
}

ParameterizedTestParameters(dirty_tracker, page_size_above_the_systems)
{
	return cr_make_param_array(enum via_dirty_way, both_ways, 2);
}

/* The unit of the log is the region's: one byte makes 64 KiB dirty, and only these. */
ParameterizedTest(enum via_dirty_way *way, dirty_tracker, page_size_above_the_systems)
{
	struct via_guest_region r = make_region(PRIVATE, 64);
	struct via_dirty_tracker *t;
	char expected[4] = {0, 0, 1, 0};

	r.page_size = 65536;
	t = start_tracker(&r, 1, *way);
	page_at(&r, 3)[-1] = 1;
	check_fetch(t, 0, expected, 4);
	page_at(&r, 2)[PAGE] = 1;
	check_fetch(t, 0, expected, 4);
	via_dirty_tracker_close(t);
	munmap(r.addr, r.len);
}

ParameterizedTestParameters(dirty_tracker, stop_and_start_again)
{
	return cr_make_param_array(enum via_dirty_way, both_ways, 2);
}

ParameterizedTest(enum via_dirty_way *way, dirty_tracker, stop_and_start_again)
{
	struct via_guest_region r = make_region(PRIVATE, 100);
	struct via_dirty_tracker *t = open_tracker(&r, 1, *way);
	char expected[100] = {0};

	via_dirty_tracker_stop(t); /* nothing to stop */
	for (unsigned round = 0; round < 3; round++) {
		cr_assert_eq(via_dirty_tracker_start(t, NULL), 0);
		cr_assert_eq(via_dirty_tracker_start(t, NULL), -EINVAL);
		check_fetch(t, 0, expected, 100);
		*page_at(&r, 10 + round) = 1;
		expected[10 + round] = 1;
		check_fetch(t, 0, expected, 100);
		expected[10 + round] = 0;
		*page_at(&r, 20) = 1; /* in no fetch: gone with the log */
		via_dirty_tracker_stop(t);
		via_dirty_tracker_stop(t);
		memset(r.addr, 2, r.len); /* nobody logs, nobody may hold it up */
	}
	via_dirty_tracker_close(t);
	munmap(r.addr, r.len);
}

ParameterizedTestParameters(dirty_tracker, bounds)
{
	return cr_make_param_array(enum via_dirty_way, both_ways, 2);
}

ParameterizedTest(enum via_dirty_way *way, dirty_tracker, bounds)
{
	struct via_guest_region r = make_region(PRIVATE, 65);
	struct via_dirty_tracker *t = open_tracker(&r, 1, *way);
	struct via_bitmap exact, small, large;

	cr_assert_eq(via_bitmap_init(&exact, 65), 0);
	cr_assert_eq(via_bitmap_init(&small, 64), 0);
	cr_assert_eq(via_bitmap_init(&large, 200), 0);
	cr_assert_eq(via_dirty_tracker_fetch(t, 0, &exact, NULL), -EINVAL, "not logging");
	cr_assert_eq(via_dirty_tracker_start(t, NULL), 0);
	cr_assert_eq(via_dirty_tracker_fetch(t, 1, &exact, NULL), -EINVAL, "no such region");
	cr_assert_eq(via_dirty_tracker_fetch(t, 0, &small, NULL), -EINVAL, "too few bits");
	*page_at(&r, 64) = 1;
	cr_assert_eq(via_dirty_tracker_fetch(t, 0, &large, NULL), 0);
	cr_assert(via_bitmap_test(&large, 64));
	cr_assert_eq(via_bitmap_count(&large), 1);
	*page_at(&r, 0) = 1;
	cr_assert_eq(via_dirty_tracker_fetch(t, 0, &large, NULL), 0);
	cr_assert_eq(via_bitmap_count(&large), 2, "a fetch adds and takes nothing away");
	via_dirty_tracker_close(t); /* while logging */
	memset(r.addr, 1, r.len);
	via_bitmap_fini(&exact);
	via_bitmap_fini(&small);
	via_bitmap_fini(&large);
	munmap(r.addr, r.len);
}

ParameterizedTestParameters(dirty_tracker, open_and_close)
{
	return cr_make_param_array(enum via_dirty_way, both_ways, 2);
}

ParameterizedTest(enum via_dirty_way *way, dirty_tracker, open_and_close)
{
	struct via_guest_region r = make_region(PRIVATE, 10);
	struct via_dirty_tracker *t = open_tracker(&r, 1, *way), *second = NULL;
	struct via_error err = {0};

	cr_assert_str_eq(via_dirty_tracker_way(t), *way == VIA_DIRTY_ASYNC ? "async" : "sync");
	cr_assert_eq(via_dirty_tracker_open(&r, 1, *way, &second, &err), -EINVAL);
	cr_assert(strstr(err.seen, "another userfaultfd"), "%s", err.seen);
	cr_assert_null(second);
	via_dirty_tracker_close(t);
	t = open_tracker(&r, 1, *way);
	via_dirty_tracker_close(t);
	via_dirty_tracker_close(NULL);
	munmap(r.addr, r.len);
}

Test(dirty_tracker, bad_regions)
{
	struct via_guest_region good = make_region(PRIVATE, 10), r;
	struct via_dirty_tracker *t = NULL;

	cr_assert_eq(via_dirty_tracker_open(&good, 0, VIA_DIRTY_BEST, &t, NULL), -EINVAL);
	cr_assert_eq(via_dirty_tracker_open(NULL, 1, VIA_DIRTY_BEST, &t, NULL), -EINVAL);
	for (unsigned i = 0; i < 6; i++) {
		struct via_error err = {0};

		r = good;
		r.addr = i == 0 ? NULL : i == 1 ? (char *)good.addr + 512 : good.addr;
		r.len = i == 2 ? 0 : i == 3 ? good.len - 512 : good.len;
		r.page_size = i == 4 ? 0 : i == 5 ? 512 : good.page_size;
		cr_assert_eq(via_dirty_tracker_open(&r, 1, VIA_DIRTY_BEST, &t, &err), -EINVAL,
			     "case %u", i);
		cr_assert(strstr(err.what, "region ram"), "%s", err.what);
	}
	cr_assert_null(t);
	munmap(good.addr, good.len);
}

/* With messages the kernel refuses a file on disk, and the text says what works. */
Test(dirty_tracker, file_by_the_sync_way)
{
	struct via_guest_region r = make_region(ON_DISK, 1);
	struct via_dirty_tracker *t = NULL;
	struct via_error err = {0};
	int ret = via_dirty_tracker_open(&r, 1, VIA_DIRTY_SYNC, &t, &err);

	if (ret == -EPERM)
		cr_skip_test("%s: %s", err.what, err.seen);
	if (!ret) {
		via_dirty_tracker_close(t);
		cr_skip_test("/var/tmp is in memory here, which can be tracked");
	}
	cr_assert_eq(ret, -EOPNOTSUPP);
	if (strstr(err.what, "region ram"))
		cr_assert(strstr(err.remedy, "memfd"), "%s", err.remedy);
	cr_assert_null(t);
	munmap(r.addr, r.len);
}

/* A user with no rights: the async way needs none, the sync way says what would help. */
Test(dirty_tracker, without_privilege)
{
	struct via_guest_region r = make_region(PRIVATE, 10);
	struct via_dirty_tracker *t;
	struct via_error err = {0};
	char expected[10] = {0, 0, 0, 1}, allowed = '?';
	int sysctl = open("/proc/sys/vm/unprivileged_userfaultfd", O_RDONLY | O_CLOEXEC);

	if (sysctl >= 0 && read(sysctl, &allowed, 1) == 1 && allowed != '0')
		cr_skip_test("vm.unprivileged_userfaultfd is %c: nothing is forbidden", allowed);
	if (geteuid() == 0) {
		cr_assert_eq(setgid(65534), 0);
		cr_assert_eq(setuid(65534), 0);
		cr_assert_eq(prctl(PR_SET_DUMPABLE, 1), 0);
	}
	if (access("/dev/userfaultfd", R_OK | W_OK) == 0)
		cr_skip_test("everybody may open /dev/userfaultfd");
	cr_assert_eq(via_dirty_tracker_open(&r, 1, VIA_DIRTY_SYNC, &t, &err), -EPERM);
	cr_assert(strstr(err.seen, "vm.unprivileged_userfaultfd is"), "%s", err.seen);
	cr_assert(strstr(err.remedy, "sysctl -w vm.unprivileged_userfaultfd=1"), "%s", err.remedy);

	t = start_tracker(&r, 1, VIA_DIRTY_ASYNC);
	*page_at(&r, 3) = 1;
	check_fetch(t, 0, expected, 10);
	via_dirty_tracker_close(t);
	if (sysctl >= 0)
		close(sysctl);
	munmap(r.addr, r.len);
}

/* The mapping of a huge page: one byte written makes one small page dirty, not 512. */
Test(dirty_tracker, transparent_huge_pages_stay_exact)
{
	struct via_guest_region r = make_region(THP, 8 * HUGE / PAGE);
	struct via_dirty_tracker *t;
	char *expected = calloc(8 * HUGE / PAGE, 1);
	char line[128];
	unsigned long huge_kib = 0;
	FILE *smaps;

	memset(r.addr, 1, r.len);
	smaps = fopen("/proc/self/smaps_rollup", "re");
	while (smaps && !huge_kib && fgets(line, sizeof(line), smaps))
		(void)!sscanf(line, "AnonHugePages: %lu", &huge_kib);
	if (smaps)
		fclose(smaps);
	if (huge_kib < r.len / 1024)
		cr_skip_test("no transparent huge pages here: %lu KiB", huge_kib);
	t = start_tracker(&r, 1, VIA_DIRTY_BEST);
	for (size_t i = 0; i < 8; i++) {
		*page_at(&r, i * HUGE / PAGE + 61 * i) = 2;
		expected[i * HUGE / PAGE + 61 * i] = 1;
	}
	check_fetch(t, 0, expected, 8 * HUGE / PAGE);
	via_dirty_tracker_close(t);
	munmap(r.addr, r.len);
	free(expected);
}
