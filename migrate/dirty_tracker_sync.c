/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dirty_tracker_sync.c -- the dirty log of kernels before 6.7: the first write to a
 * protected page stops its thread; ours reads the fault, marks the page and unprotects it.
 *
 * It must never unprotect a page that is not marked, and never leave a writer waiting.
 *
 * Invariant: outside the lock, a page is protected or marked. Both "mark, unprotect"
 * and "take the mark, protect again" run under it: were a page unprotected after its mark had
 * been taken, what is then written to it would be in no fetch.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "migrate/dirty_tracker_impl.h"
#include "migrate/uffd.h"

#define FAULTS      64 /* read at once */
#define GROUP_WORDS 8  /* of the log taken under one lock, and protected by one call: 512 pages */

struct sync {
	bool absent_too; /* pages that are not there can be protected (Linux 6.4) */
	int stop;        /* eventfd: the thread shall end */
	bool running;    /* the thread exists */
	pthread_t thread;
	pthread_mutex_t lock;
	int failed;              /* errno of the kernel; under lock. The log is lost */
	struct via_bitmap log[]; /* one for each region; bits change under lock */
};

/* From the most to the least that a kernel may have. */
static int enable(int uffd, bool *absent_too)
{
	static const uint64_t set[] = {
		UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
			UFFD_FEATURE_WP_UNPOPULATED,
		UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
		UFFD_FEATURE_PAGEFAULT_FLAG_WP,
	};

	for (unsigned i = 0; i < sizeof(set) / sizeof(set[0]); i++) {
		if (!uffd_enable(uffd, set[i])) {
			*absent_too = set[i] & UFFD_FEATURE_WP_UNPOPULATED;
			return 0;
		}
	}
	return -EOPNOTSUPP;
}

static void free_logs(struct sync *own, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		via_bitmap_fini(&own->log[i]);
}

static struct sync *new_sync(const struct via_dirty_tracker *t)
{
	struct sync *own = calloc(1, sizeof(*own) + t->nregions * sizeof(own->log[0]));

	if (!own)
		return NULL;
	for (unsigned i = 0; i < t->nregions; i++) {
		if (via_bitmap_init(&own->log[i], t->region[i].len / t->region[i].page_size)) {
			free_logs(own, i);
			free(own);
			return NULL;
		}
	}
	pthread_mutex_init(&own->lock, NULL);
	return own;
}

static void sync_close(struct via_dirty_tracker *t)
{
	struct sync *own = t->own;

	if (own->stop >= 0)
		close(own->stop);
	pthread_mutex_destroy(&own->lock);
	free_logs(own, t->nregions);
	free(own);
	close(t->uffd);
}

static int sync_open(struct via_dirty_tracker *t, struct via_error *err)
{
	struct sync *own;
	/* Not for user mode only: read(2) into a protected page would fail with EFAULT. */
	int ret = uffd_open(false, &t->uffd, err);

	if (ret)
		return ret;
	own = new_sync(t);
	if (!own) {
		close(t->uffd);
		return via_fail(err, -ENOMEM, "no memory for a dirty tracker");
	}
	t->own = own;
	own->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (own->stop < 0)
		ret = via_fail(err, via_err_from_errno(errno),
			       "no event for a dirty tracker\neventfd: %s", strerror(errno));
	if (!ret && enable(t->uffd, &own->absent_too))
		ret = via_fail(err, -EOPNOTSUPP,
			       "this kernel has no write protection by userfaultfd\n"
			       "userfaultfd lacks UFFD_FEATURE_PAGEFAULT_FLAG_WP\n"
			       "use Linux 5.7 or later on x86-64, elsewhere one with "
			       "CONFIG_HAVE_ARCH_USERFAULTFD_WP");
	if (ret)
		sync_close(t);
	return ret;
}

/* Mark the page of @address and let it be written. Under the lock. */
static void admit_write(struct via_dirty_tracker *t, uint64_t address)
{
	struct sync *own = t->own;

	for (unsigned i = 0; i < t->nregions; i++) {
		const struct via_guest_region *r = &t->region[i];
		uint64_t off = address - (uintptr_t)r->addr;
		size_t page = off / r->page_size;

		if (off >= r->len)
			continue;
		via_bitmap_set(&own->log[i], page, 1);
		if (uffd_protect(t->uffd, (char *)r->addr + page * r->page_size, r->page_size,
				 false))
			own->failed = errno;
		return;
	}
}

/* Serve all faults there are. */
static void take_faults(struct via_dirty_tracker *t)
{
	struct sync *own = t->own;
	struct uffd_msg msg[FAULTS];
	ssize_t n;

	while ((n = read(t->uffd, msg, sizeof(msg))) > 0) {
		pthread_mutex_lock(&own->lock);
		for (size_t i = 0; i < (size_t)n / sizeof(msg[0]); i++) {
			if (msg[i].event == UFFD_EVENT_PAGEFAULT)
				admit_write(t, msg[i].arg.pagefault.address);
		}
		pthread_mutex_unlock(&own->lock);
	}
}

static void *serve_faults(void *arg)
{
	struct via_dirty_tracker *t = arg;
	struct sync *own = t->own;
	struct pollfd fd[] = {{.fd = t->uffd, .events = POLLIN},
			      {.fd = own->stop, .events = POLLIN}};

	/* No deadline: it serves until it is told to stop. */
	while (!fd[1].revents) {
		if (poll(fd, 2, -1) > 0 && fd[0].revents)
			take_faults(t);
	}
	return NULL;
}

static int start_thread(struct via_dirty_tracker *t, struct via_error *err)
{
	struct sync *own = t->own;
	sigset_t all, before;
	int ret;

	/* Signals are the program's, not for a thread that it does not know of. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	ret = pthread_create(&own->thread, NULL, serve_faults, t);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (ret)
		return via_fail(err, -ENOMEM, "no thread for the dirty log\npthread_create: %s",
				strerror(ret));
	own->running = true;
	return 0;
}

/*
 * Before 6.4 an absent page of anonymous memory stays unprotected. Read every page that is
 * not marked as protected in the pagemap (bit 57; from 5.13 on): that maps the zero page, which
 * can be protected.
 */
static int make_present(const struct via_guest_region *r, struct via_error *err)
{
	uint64_t system_page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t first = (uintptr_t)r->addr / system_page, npages = r->len / system_page;
	uint64_t entry[512];
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	for (uint64_t page = 0, got; fd >= 0 && page < npages; page += got) {
		uint64_t want = npages - page < 512 ? npages - page : 512;
		ssize_t n = pread(fd, entry, want * 8, (off_t)((first + page) * 8));

		if (n < 8)
			break;
		got = (uint64_t)n / 8;
		for (uint64_t i = 0; i < got; i++) {
			if (!(entry[i] >> 57 & 1))
				(void)((volatile const char *)r->addr)[(page + i) * system_page];
		}
		if (page + got == npages) {
			close(fd);
			return 0;
		}
	}
	via_fail(err, -EIO, "region %s cannot be write-protected\n/proc/self/pagemap: %s", r->name,
		 strerror(errno));
	if (fd >= 0)
		close(fd);
	return -EIO;
}

static int sync_start(struct via_dirty_tracker *t, struct via_error *err)
{
	struct sync *own = t->own;
	int ret;

	own->failed = 0;
	ret = start_thread(t, err); /* first: the guest writes already */
	for (unsigned i = 0; i < t->nregions && !ret; i++) {
		ret = dirty_protect_region(t, &t->region[i], err);
		if (ret || own->absent_too)
			continue;
		ret = make_present(&t->region[i], err);
		if (!ret)
			ret = dirty_protect_region(t, &t->region[i], err);
	}
	return ret;
}

/*
 * Move up to GROUP_WORDS words of the log of region @index, from word @w on, to @dirty, and protect
 * from the first to the last of their pages: what lies between is protected or taken too.
 * Under the lock.
 */
static int take_group(struct via_dirty_tracker *t, unsigned index, size_t w,
		      struct via_bitmap *dirty)
{
	const struct via_guest_region *r = &t->region[index];
	struct via_bitmap *log = &((struct sync *)t->own)->log[index];
	size_t end = via_bitmap_nwords(log), first = SIZE_MAX, last = 0, at, n;

	if (end - w > GROUP_WORDS)
		end = w + GROUP_WORDS;
	for (; w < end; w++) {
		uint64_t bits = via_bitmap_take_word(log, w);

		for (at = 0; (n = via_bits_next_run(&bits, 64, at, &at)); at += n) {
			via_bitmap_set(dirty, 64 * w + at, n);
			if (first == SIZE_MAX)
				first = 64 * w + at;
			last = 64 * w + at + n - 1;
		}
	}
	if (first == SIZE_MAX)
		return 0;
	return uffd_protect(t->uffd, (char *)r->addr + first * r->page_size,
			    (last - first + 1) * r->page_size, true);
}

static int sync_fetch(struct via_dirty_tracker *t, unsigned index, struct via_bitmap *dirty,
		      struct via_error *err)
{
	struct sync *own = t->own;
	size_t nwords = via_bitmap_nwords(&own->log[index]);
	int failed = 0;

	for (size_t w = 0; w < nwords && !failed; w += GROUP_WORDS) {
		pthread_mutex_lock(&own->lock);
		if (take_group(t, index, w, dirty))
			own->failed = errno;
		failed = own->failed;
		pthread_mutex_unlock(&own->lock);
	}
	if (failed)
		return via_fail(err, -EIO,
				"the dirty log of region %s is lost\nUFFDIO_WRITEPROTECT: %s",
				t->region[index].name, strerror(failed));
	return 0;
}

static void sync_stop(struct via_dirty_tracker *t)
{
	struct sync *own = t->own;
	uint64_t event = 1;

	if (own->running) {
		(void)!write(own->stop, &event, sizeof(event));
		pthread_join(own->thread, NULL);
		(void)!read(own->stop, &event, sizeof(event));
		own->running = false;
	}
	for (unsigned i = 0; i < t->nregions; i++)
		via_bitmap_clear(&own->log[i], 0, own->log[i].nbits);
}

const struct dirty_way dirty_sync = {
	.name = "sync",
	.open = sync_open,
	.close = sync_close,
	.start = sync_start,
	.fetch = sync_fetch,
	.stop = sync_stop,
};
