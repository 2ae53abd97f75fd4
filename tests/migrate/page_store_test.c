/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * page_store_test.c -- guest memory in postcopy, on each kind of memory and against a real kernel:
 * what is lacking is gone, who touches it waits, and what comes goes where nothing is.
 *
 * That a thread waits is known from its fault, which the store's userfaultfd tells. A page that is
 * lost, or that comes too early, has not the content which it was to have.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/clock.h"
#include "migrate/page_store.h"
#include "migrate/uffd.h"

#define SMALL ((size_t)4096)
#define HUGE  ((size_t)2 << 20)

#define PATIENCE_S 20

/* Contents: what was there before, and what comes. */
enum content { OLD = 1, NEW, OTHER };

/* -- memory ------------------------------------------------------------------------- */

/* The last: a file on hugetlbfs with nothing in it, mapped privately. */
enum memory { PRIVATE, MEMFD, THP, HUGE_PRIVATE, HUGE_MEMFD, HUGE_PRIVATE_FILE };

static enum memory kinds[] = {PRIVATE, MEMFD, THP, HUGE_PRIVATE, HUGE_MEMFD, HUGE_PRIVATE_FILE};

#define NKINDS (sizeof(kinds) / sizeof(kinds[0]))

static bool is_huge(enum memory memory)
{
	return memory >= HUGE_PRIVATE;
}

/* Other tests may be taking some at this very moment. */
#define SPARE_HUGE_PAGES 16u

static int pool_fd = -1; /* the host's number of huge pages, while this test has some added */
static char pool_before[32];

static void give_huge_pages_back(void)
{
	if (pool_fd < 0)
		return;
	(void)!pwrite(pool_fd, pool_before, strlen(pool_before), 0);
	close(pool_fd);
	pool_fd = -1;
}

/*
 * @n more huge pages, as far as the host permits it. One test at a time: what one discards another
 * could take.
 */
static void add_huge_pages(unsigned n)
{
	char text[32];

	pool_fd = open("/proc/sys/vm/nr_hugepages", O_RDWR | O_CLOEXEC);
	if (pool_fd < 0)
		return;
	if (flock(pool_fd, LOCK_EX) ||
	    pread(pool_fd, pool_before, sizeof(pool_before) - 1, 0) <= 0) {
		close(pool_fd);
		pool_fd = -1;
		return;
	}
	snprintf(text, sizeof(text), "%lu", strtoul(pool_before, NULL, 10) + n);
	(void)!pwrite(pool_fd, text, strlen(text), 0);
}

/* Aligned to huge pages; NULL where the host has none of this kind. */
static void *map_memory(enum memory memory, size_t len)
{
	uintptr_t start = (uintptr_t)mmap(NULL, len + HUGE, PROT_NONE,
					  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	bool of_file = memory == MEMFD || memory >= HUGE_MEMFD;
	int flags =
		MAP_FIXED | (memory == MEMFD || memory == HUGE_MEMFD ? MAP_SHARED : MAP_PRIVATE);
	int fd = -1;
	void *addr;

	cr_assert_neq(start, (uintptr_t)MAP_FAILED);
	if (of_file) {
		fd = memfd_create("ram", MFD_CLOEXEC | (is_huge(memory) ? MFD_HUGETLB : 0));
		cr_assert(fd >= 0 && !ftruncate(fd, (off_t)len));
	} else {
		flags |= MAP_ANONYMOUS | (is_huge(memory) ? MAP_HUGETLB : 0);
	}
	addr = mmap((void *)((start + HUGE - 1) & ~(HUGE - 1)), len, PROT_READ | PROT_WRITE, flags,
		    fd, 0);
	if (fd >= 0)
		close(fd);
	if (addr == MAP_FAILED)
		return NULL;
	if (memory == THP)
		madvise(addr, len, MADV_HUGEPAGE);
	return addr;
}

/* -- one region, and its store -------------------------------------------------------- */

struct ram {
	uint8_t *addr;
	size_t len, page_len, npages;
	struct page_store *store;
	struct page_store_region *r;
};

static uint64_t word_of(enum content content, size_t page, size_t i)
{
	return ((uint64_t)content << 56 | (uint64_t)page << 24 | i) * UINT64_C(0x9e3779b97f4a7c15);
}

static void fill(void *at, size_t len, size_t page, enum content content)
{
	uint64_t *word = at;

	for (size_t i = 0; i < len / sizeof(*word); i++)
		word[i] = word_of(content, page, i);
}

static bool has(const void *at, size_t len, size_t page, enum content content)
{
	const uint64_t *word = at;

	for (size_t i = 0; i < len / sizeof(*word); i++)
		if (word[i] != word_of(content, page, i))
			return false;
	return true;
}

static bool is_zero(const uint8_t *at, size_t len)
{
	return !*at && !memcmp(at, at + 1, len - 1);
}

static uint8_t *page_at(const struct ram *ram, size_t page)
{
	return ram->addr + page * ram->page_len;
}

#define CHECK_PAGE(ram, page, content)                                                             \
	cr_assert(has(page_at(ram, page), (ram)->page_len, page, content),                         \
		  "page %zu has not its content", (size_t)(page))

/* Nothing lacks yet. The first @filled pages have their old content, the others were never there. */
static struct ram make_ram_of(enum memory memory, size_t npages, size_t page_len, size_t filled)
{
	struct ram ram = {.len = npages * page_len, .page_len = page_len, .npages = npages};
	struct via_region region = {
		.desc = {.name = "ram", .len = ram.len, .page_size = (uint32_t)page_len}};
	struct via_error err = {0};
	int rc;

	if (is_huge(memory))
		add_huge_pages((unsigned)npages + SPARE_HUGE_PAGES);
	ram.addr = map_memory(memory, ram.len);
	if (!ram.addr)
		cr_skip_test("no huge pages here: sysctl vm.nr_hugepages=16");
	for (size_t page = 0; page < filled; page++)
		fill(page_at(&ram, page), page_len, page, OLD);
	region.addr = ram.addr;
	rc = page_store_new(&region, 1, &ram.store, &err);
	if (rc == -EPERM || rc == -EOPNOTSUPP)
		cr_skip_test("%s: %s; %s", err.what, err.seen, err.remedy);
	cr_assert_eq(rc, 0, "%s: %s", err.what, err.seen);
	ram.r = &ram.store->region[0];
	return ram;
}

/* As many pages as a test of that kind of memory can have, all filled but for some at the end. */
static struct ram make_ram(enum memory memory)
{
	if (is_huge(memory))
		return make_ram_of(memory, 6, HUGE, 5);
	return make_ram_of(memory, 3 * HUGE / SMALL + 9, SMALL, 3 * HUGE / SMALL + 2);
}

static void lack(struct ram *ram, size_t first, size_t n)
{
	via_bitmap_set(&ram->r->lacking, first, n);
}

static void arm(struct ram *ram)
{
	struct via_error err = {0};

	cr_assert_eq(page_store_arm(ram->store, &err), 0, "%s: %s", err.what, err.seen);
	cr_assert_eq(atomic_load(&ram->store->missing), via_bitmap_count(&ram->r->lacking));
}

/* Install pages [first, first + n) with @content. */
static void install(struct ram *ram, size_t first, size_t n, enum content content)
{
	uint8_t *src = aligned_alloc(SMALL, n * ram->page_len);

	for (size_t i = 0; i < n; i++)
		fill(src + i * ram->page_len, ram->page_len, first + i, content);
	cr_assert_eq(page_store_install(ram->store, 0, first, n, src), 0);
	free(src);
}

static void free_ram(struct ram *ram)
{
	page_store_free(ram->store);
	munmap(ram->addr, ram->len);
	give_huge_pages_back();
}

/* Does neither this process nor the file behind it have a byte of the page? */
static bool is_absent(const struct ram *ram, size_t page)
{
	size_t n = ram->page_len / SMALL;
	unsigned char *in_core = malloc(n);
	uint64_t *entry = malloc(n * sizeof(*entry));
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	bool absent = true;

	cr_assert_eq(mincore(page_at(ram, page), ram->page_len, in_core), 0);
	cr_assert_eq(pread(fd, entry, n * sizeof(*entry),
			   (off_t)((uintptr_t)page_at(ram, page) / SMALL * sizeof(*entry))),
		     (ssize_t)(n * sizeof(*entry)));
	for (size_t i = 0; i < n; i++)
		if (in_core[i] & 1 || entry[i] >> 62) /* in memory, or in swap */
			absent = false;
	close(fd);
	free(in_core);
	free(entry);
	return absent;
}

/* -- threads that touch memory ------------------------------------------------------------ */

struct toucher {
	pthread_t thread;
	const uint8_t *at;
	uint8_t saw;
	_Atomic bool done;
};

static void *touch(void *arg)
{
	struct toucher *t = arg;

	t->saw = *(const volatile uint8_t *)t->at;
	atomic_store(&t->done, true);
	return NULL;
}

static void start(struct toucher *t, const uint8_t *at)
{
	*t = (struct toucher){.at = at};
	cr_assert_eq(pthread_create(&t->thread, NULL, touch, t), 0);
}

static void join_thread(pthread_t thread)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += PATIENCE_S;
	cr_assert_eq(pthread_timedjoin_np(thread, NULL, &ts), 0, "a thread waits for ever");
}

/* It goes on, and saw what is there now. */
static void join(struct toucher *t)
{
	join_thread(t->thread);
	cr_assert_eq(t->saw, *t->at, "it saw %#x where %#x is", t->saw, *t->at);
}

/* The next fault: whoever had it waits. Its page. */
static size_t take_fault(const struct ram *ram)
{
	struct pollfd p = {.fd = ram->store->uffd, .events = POLLIN};
	struct uffd_msg m;
	uint64_t page;

	cr_assert_eq(poll(&p, 1, PATIENCE_S * 1000), 1, "nobody waits");
	cr_assert_eq(read(ram->store->uffd, &m, sizeof(m)), (ssize_t)sizeof(m));
	cr_assert_eq(m.event, UFFD_EVENT_PAGEFAULT);
	cr_assert_eq(page_store_find(ram->store, m.arg.pagefault.address, &page), 0);
	return page;
}

/* -- on each kind of memory ------------------------------------------------------------------ */

#define FOR_EACH_KIND(name)                                                                        \
	ParameterizedTestParameters(page_store, name)                                              \
	{                                                                                          \
		return cr_make_param_array(enum memory, kinds, NKINDS);                            \
	}                                                                                          \
	ParameterizedTest(enum memory *memory, page_store, name, .timeout = 60,                    \
			  .fini = give_huge_pages_back)

FOR_EACH_KIND(arm_discards_what_lacks_and_nothing_else)
{
	struct ram ram = make_ram(*memory);

	lack(&ram, 0, 1);
	lack(&ram, 2, 2);
	for (size_t page = 6; page < ram.npages - 20 && !is_huge(*memory); page += 1 + page % 9)
		lack(&ram, page, 1);
	if (!is_huge(*memory))
		lack(&ram, ram.npages - 400, 300);
	arm(&ram);
	for (size_t page = 0; page < ram.npages; page++)
		if (via_bitmap_test(&ram.r->lacking, page))
			cr_assert(is_absent(&ram, page), "page %zu is there", page);
		else if (page < ram.npages - (is_huge(*memory) ? 1 : 7))
			CHECK_PAGE(&ram, page, OLD);
	free_ram(&ram);
}

FOR_EACH_KIND(who_touches_a_page_waits_until_it_comes)
{
	struct ram ram = make_ram(*memory);
	struct toucher t;

	lack(&ram, 1, 3);
	arm(&ram);
	for (size_t page = 1; page <= 3; page++) {
		start(&t, page_at(&ram, page) + ram.page_len / 2 + 8 * page);
		cr_assert_eq(take_fault(&ram), page);
		cr_assert_not(atomic_load(&t.done), "it did not wait");
		install(&ram, page, 1, NEW);
		join(&t);
		CHECK_PAGE(&ram, page, NEW);
	}
	cr_assert_eq(atomic_load(&ram.store->duplicates), 0);
	free_ram(&ram);
}

FOR_EACH_KIND(all_who_wait_for_a_page_go_on)
{
	struct ram ram = make_ram(*memory);
	struct toucher t[8];

	lack(&ram, 2, 1);
	arm(&ram);
	for (unsigned i = 0; i < 8; i++)
		start(&t[i], page_at(&ram, 2) + i * (ram.page_len / 8));
	for (unsigned i = 0; i < 8; i++)
		cr_assert_eq(take_fault(&ram), 2);
	for (unsigned i = 0; i < 8; i++)
		cr_assert_not(atomic_load(&t[i].done));
	install(&ram, 2, 1, NEW);
	for (unsigned i = 0; i < 8; i++)
		join(&t[i]);
	CHECK_PAGE(&ram, 2, NEW);
	free_ram(&ram);
}

FOR_EACH_KIND(what_is_there_is_never_overwritten)
{
	struct ram ram = make_ram(*memory);

	lack(&ram, 0, 1);
	lack(&ram, 2, 2);
	arm(&ram);
	install(&ram, 0, 5, NEW); /* 1 and 4 were there */
	cr_assert_eq(atomic_load(&ram.store->missing), 0);
	cr_assert_eq(atomic_load(&ram.store->duplicates), 2);
	install(&ram, 0, 5, OTHER);
	cr_assert_eq(atomic_load(&ram.store->duplicates), 7);
	for (size_t page = 0; page < 5; page++)
		CHECK_PAGE(&ram, page, page == 1 || page == 4 ? OLD : NEW);
	free_ram(&ram);
}

FOR_EACH_KIND(missing_counts_down_to_nothing)
{
	struct ram ram = make_ram(*memory);
	size_t n = is_huge(*memory) ? 4 : 700, left = n;

	lack(&ram, 1, n);
	arm(&ram);
	cr_assert_eq(atomic_load(&ram.store->missing), n);
	for (size_t first = 1; left;) {
		size_t some = left < 130 ? (left + 1) / 2 : 130;

		install(&ram, first, some, NEW);
		first += some;
		left -= some;
		cr_assert_eq(atomic_load(&ram.store->missing), left);
		cr_assert_eq(via_bitmap_count(&ram.r->lacking), left);
	}
	for (size_t page = 1; page <= n; page++)
		CHECK_PAGE(&ram, page, NEW);
	CHECK_PAGE(&ram, 0, OLD);
	cr_assert_eq(atomic_load(&ram.store->duplicates), 0);
	free_ram(&ram);
}

FOR_EACH_KIND(zeros_come_where_nothing_is)
{
	struct ram ram = make_ram(*memory);
	struct toucher t;

	lack(&ram, 0, 1);
	lack(&ram, 2, 2);
	arm(&ram);
	start(&t, page_at(&ram, 2) + 100);
	cr_assert_eq(take_fault(&ram), 2);
	cr_assert_eq(page_store_install(ram.store, 0, 0, 4, NULL), 0);
	join(&t);
	for (size_t page = 0; page < 4; page++)
		if (page == 1)
			CHECK_PAGE(&ram, page, OLD);
		else
			cr_assert(is_zero(page_at(&ram, page), ram.page_len), "page %zu", page);
	cr_assert_eq(atomic_load(&ram.store->missing), 0);
	cr_assert_eq(atomic_load(&ram.store->duplicates), 1);
	memset(ram.addr, 5, ram.page_len); /* and it can be written */
	free_ram(&ram);
}

FOR_EACH_KIND(a_page_that_was_never_there_is_zero)
{
	struct ram ram = make_ram(*memory);
	size_t clean = ram.npages - 1;
	struct toucher t[2];

	lack(&ram, 0, 1);
	arm(&ram);
	for (unsigned i = 0; i < 2; i++)
		start(&t[i], page_at(&ram, clean) + i * (ram.page_len / 2));
	for (unsigned i = 0; i < 2; i++)
		cr_assert_eq(take_fault(&ram), clean);
	for (unsigned i = 0; i < 2; i++) {
		int rc = page_store_let_go(ram.store, 0, clean);

		cr_assert_eq(rc, 0, "%s", via_err_name(rc));
	}
	for (unsigned i = 0; i < 2; i++)
		join(&t[i]);
	cr_assert(is_zero(page_at(&ram, clean), ram.page_len));
	cr_assert_eq(atomic_load(&ram.store->missing), 1);
	CHECK_PAGE(&ram, 1, OLD);
	cr_assert_eq(page_store_let_go(ram.store, 0, 1), 0, "it came meanwhile");
	CHECK_PAGE(&ram, 1, OLD);
	cr_assert_eq(atomic_load(&ram.store->duplicates), 0);
	free_ram(&ram);
}

FOR_EACH_KIND(free_lets_everybody_go)
{
	struct ram ram = make_ram(*memory);
	struct toucher t[4];

	lack(&ram, 0, 4);
	arm(&ram);
	for (size_t i = 0; i < 4; i++)
		start(&t[i], page_at(&ram, i));
	for (size_t i = 0; i < 4; i++)
		take_fault(&ram);
	page_store_free(ram.store);
	ram.store = NULL;
	for (size_t i = 0; i < 4; i++)
		join(&t[i]);
	free_ram(&ram);
}

/* -- many threads at once ------------------------------------------------------------------------ */

#define INSTALLERS 3u

struct installer {
	pthread_t thread;
	struct ram *ram;
	unsigned step; /* pages at once */
	size_t sum;    /* pages */
	int rc;
};

/* All pages, in steps of its own: they overlap those of the others. */
static void *install_all(void *arg)
{
	struct installer *in = arg;
	struct ram *ram = in->ram;
	uint8_t *src = aligned_alloc(SMALL, in->step * ram->page_len);

	for (size_t first = 0; first < ram->npages && !in->rc; first += in->step) {
		size_t n = ram->npages - first < in->step ? ram->npages - first : in->step;

		for (size_t i = 0; i < n; i++)
			fill(src + i * ram->page_len, ram->page_len, first + i, NEW);
		in->rc = page_store_install(ram->store, 0, first, n, src);
		in->sum += n;
	}
	free(src);
	return NULL;
}

FOR_EACH_KIND(any_thread_may_install)
{
	static const unsigned steps[INSTALLERS] = {1, 3, 64};
	struct ram ram = make_ram(*memory);
	struct installer in[INSTALLERS];
	struct toucher t[16];
	size_t sum = 0;

	lack(&ram, 0, ram.npages);
	arm(&ram);
	for (unsigned i = 0; i < 16; i++)
		start(&t[i], page_at(&ram, ram.npages - 1 - i * 31 % ram.npages) + 8 * i);
	for (unsigned i = 0; i < INSTALLERS; i++) {
		in[i] = (struct installer){.ram = &ram, .step = steps[i]};
		cr_assert_eq(pthread_create(&in[i].thread, NULL, install_all, &in[i]), 0);
	}
	for (unsigned i = 0; i < INSTALLERS; i++) {
		join_thread(in[i].thread);
		cr_assert_eq(in[i].rc, 0, "%s", via_err_name(in[i].rc));
		sum += in[i].sum;
	}
	for (unsigned i = 0; i < 16; i++)
		join(&t[i]);
	cr_assert_eq(atomic_load(&ram.store->missing), 0);
	cr_assert_eq(atomic_load(&ram.store->duplicates), sum - ram.npages);
	for (size_t page = 0; page < ram.npages; page++)
		CHECK_PAGE(&ram, page, NEW);
	free_ram(&ram);
}

/* -- what only some memory can be --------------------------------------------------------------- */

static size_t huge_bytes_in_use(void)
{
	FILE *smaps = fopen("/proc/self/smaps_rollup", "re");
	unsigned long kib = 0;
	char line[128];

	while (smaps && !kib && fgets(line, sizeof(line), smaps))
		(void)!sscanf(line, "AnonHugePages: %lu", &kib);
	if (smaps)
		fclose(smaps);
	return kib * 1024;
}

/* It is split: its other pages stay, and are no fault. */
Test(page_store, one_small_page_of_a_transparent_huge_page, .timeout = 60)
{
	struct ram ram = make_ram_of(THP, 2 * HUGE / SMALL, SMALL, 2 * HUGE / SMALL);
	struct toucher t;
	size_t one = 77;

	if (huge_bytes_in_use() < ram.len)
		cr_skip_test("no transparent huge pages here: echo madvise > "
			     "/sys/kernel/mm/transparent_hugepage/enabled");
	lack(&ram, one, 1);
	arm(&ram);
	cr_assert(is_absent(&ram, one));
	for (size_t page = 0; page < ram.npages; page++)
		if (page != one)
			CHECK_PAGE(&ram, page, OLD);
	start(&t, page_at(&ram, one));
	cr_assert_eq(take_fault(&ram), one);
	install(&ram, one, 1, NEW);
	join(&t);
	CHECK_PAGE(&ram, one, NEW);
	CHECK_PAGE(&ram, one - 1, OLD);
	CHECK_PAGE(&ram, one + 1, OLD);
	free_ram(&ram);
}

/* Pages of 64 KiB, which the kernel maps in parts of 4 KiB. */
Test(page_store, page_size_above_the_systems, .timeout = 60)
{
	struct ram ram = make_ram_of(PRIVATE, 8, 65536, 6);
	struct toucher t;

	lack(&ram, 1, 2);
	arm(&ram);
	cr_assert(is_absent(&ram, 1) && is_absent(&ram, 2));
	start(&t, page_at(&ram, 2) + 15 * SMALL);
	cr_assert_eq(take_fault(&ram), 2);
	install(&ram, 0, 4, NEW);
	join(&t);
	for (size_t page = 0; page < 6; page++)
		CHECK_PAGE(&ram, page, page == 1 || page == 2 ? NEW : OLD);
	cr_assert_eq(atomic_load(&ram.store->duplicates), 2);
	free_ram(&ram);
}

/* A page that does not have to come, and of which one part is there: the others are zero. */
Test(page_store, a_part_that_was_never_there_is_zero, .timeout = 60)
{
	struct ram ram = make_ram_of(PRIVATE, 8, 65536, 6);
	struct toucher t;

	*page_at(&ram, 7) = 9;
	lack(&ram, 1, 1);
	arm(&ram);
	start(&t, page_at(&ram, 7) + 3 * SMALL);
	cr_assert_eq(take_fault(&ram), 7);
	cr_assert_eq(page_store_let_go(ram.store, 0, 7), 0);
	join(&t);
	cr_assert_eq(*page_at(&ram, 7), 9);
	*page_at(&ram, 7) = 0;
	cr_assert(is_zero(page_at(&ram, 7), ram.page_len));
	free_ram(&ram);
}

static void expect_refused(struct ram *ram, const char *says, const char *remedy)
{
	struct via_error err = {0};

	lack(ram, 1, 3);
	cr_assert_eq(page_store_arm(ram->store, &err), -EOPNOTSUPP, "%s: %s", err.what, err.seen);
	cr_assert(strstr(err.what, "ram"), "\"%s\" should name the region", err.what);
	cr_assert(strstr(err.seen, says), "\"%s\" should say \"%s\"", err.seen, says);
	cr_assert(strstr(err.remedy, remedy), "\"%s\" should say \"%s\"", err.remedy, remedy);
	/* And nothing was taken away. */
	page_store_free(ram->store);
	ram->store = NULL;
	for (size_t page = 0; page < 5; page++)
		CHECK_PAGE(ram, page, OLD);
	free_ram(ram);
}

static enum memory lockable[] = {PRIVATE, MEMFD};

ParameterizedTestParameters(page_store, locked_memory_is_refused)
{
	return cr_make_param_array(enum memory, lockable, 2);
}

ParameterizedTest(enum memory *memory, page_store, locked_memory_is_refused, .timeout = 60)
{
	struct ram ram = make_ram_of(*memory, 20, SMALL, 20);

	if (syscall(SYS_mlock, ram.addr, ram.len)) /* AddressSanitizer's mlock() does nothing */
		cr_skip_test("memory cannot be locked here: ulimit -l unlimited");
	expect_refused(&ram, "12288 bytes at offset 4096", "mlock");
}

/* The file keeps a page of its own for each that was written: a touch would find that. */
Test(page_store, private_memory_of_a_file_is_refused, .timeout = 60)
{
	struct ram ram = make_ram_of(PRIVATE, 20, SMALL, 0);
	int fd = memfd_create("ram", MFD_CLOEXEC);

	cr_assert(fd >= 0 && !ftruncate(fd, (off_t)ram.len));
	cr_assert_neq(
		mmap(ram.addr, ram.len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0),
		MAP_FAILED);
	close(fd);
	for (size_t page = 0; page < ram.npages; page++)
		fill(page_at(&ram, page), SMALL, page, OLD);
	expect_refused(&ram, "private mapping", "share=on");
}

/* -- the store itself --------------------------------------------------------------------------- */

Test(page_store, memory_of_another_userfaultfd_is_refused, .timeout = 60)
{
	struct ram ram = make_ram_of(PRIVATE, 20, SMALL, 20);
	struct via_region region = {.desc = {.name = "ram", .len = ram.len, .page_size = SMALL},
				    .addr = ram.addr};
	struct page_store *second;
	struct via_error err = {0};

	lack(&ram, 1, 1);
	arm(&ram);
	cr_assert_eq(page_store_new(&region, 1, &second, &err), 0);
	cr_assert_eq(page_store_arm(second, &err), -EINVAL);
	cr_assert(strstr(err.seen, "another userfaultfd"), "%s", err.seen);
	page_store_free(second);
	install(&ram, 1, 1, NEW);
	CHECK_PAGE(&ram, 1, NEW);
	free_ram(&ram);
}

Test(page_store, regions_are_found_and_compared, .timeout = 60)
{
	uint8_t *memory = map_memory(PRIVATE, 16 * SMALL);
	struct via_region r[2] = {
		{.desc = {.name = "low", .len = 2 * SMALL, .page_size = SMALL},
		 .addr = memory + SMALL},
		{.desc = {.name = "high", .len = 8 * SMALL, .page_size = 2 * SMALL},
		 .addr = memory + 4 * SMALL},
	};
	uintptr_t at = (uintptr_t)memory;
	struct page_store *store;
	struct via_error err = {0};
	uint64_t page = 99;
	int rc = page_store_new(r, 2, &store, &err);

	if (rc == -EPERM || rc == -EOPNOTSUPP)
		cr_skip_test("%s: %s; %s", err.what, err.seen, err.remedy);
	cr_assert_eq(rc, 0);
	cr_assert_eq(page_store_find(store, at + SMALL - 1, &page), -1);
	cr_assert_eq(page_store_find(store, at + 3 * SMALL, &page), -1);
	cr_assert_eq(page_store_find(store, at + 12 * SMALL, &page), -1);
	cr_assert_eq(page_store_find(store, 0, &page), -1);
	cr_assert_eq(page_store_find(store, UINT64_MAX, &page), -1);
	cr_assert_eq(page, 99);
	cr_assert_eq(page_store_find(store, at + SMALL, &page), 0);
	cr_assert_eq(page, 0);
	cr_assert_eq(page_store_find(store, at + 3 * SMALL - 1, &page), 0);
	cr_assert_eq(page, 1);
	cr_assert_eq(page_store_find(store, at + 4 * SMALL, &page), 1);
	cr_assert_eq(page, 0);
	cr_assert_eq(page_store_find(store, at + 12 * SMALL - 1, &page), 1);
	cr_assert_eq(page, 3);

	cr_assert(page_store_matches(store, r, 2));
	cr_assert_not(page_store_matches(store, r, 1));
	for (unsigned i = 0; i < 3; i++) {
		struct via_region other[2] = {r[0], r[1]};

		other[1].desc.name[0] = i == 0 ? 'H' : 'h';
		other[1].desc.len = i == 1 ? 6 * SMALL : r[1].desc.len;
		other[1].desc.page_size = i == 2 ? SMALL : r[1].desc.page_size;
		cr_assert_not(page_store_matches(store, other, 2), "case %u", i);
	}
	page_store_free(store);
	page_store_free(NULL);
	munmap(memory, 16 * SMALL);
}
