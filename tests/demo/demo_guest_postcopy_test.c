/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * demo_guest_postcopy_test.c -- the demo guest while pages of it are missing: userfaultfd by
 * hand, with a thread that serves each page as it is asked for, or with nobody.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/clock.h"
#include "migrate/uffd.h"
#include "tests/demo/demo_guests.h"

/* @guest's RAM, all of it missing, and the userfaultfd that whoever touches it waits for. */
static int lose_all_pages(struct demo_guest *guest)
{
	const struct via_guest_region *region = demo_guest_source(guest)->region;
	struct uffdio_register reg = {
		.range = {.start = (uintptr_t)region->addr, .len = region->len},
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	struct via_error err = {0};
	char text[640];
	int fd, ret = uffd_open(true, &fd, &err);

	if (ret == -EPERM || ret == -EOPNOTSUPP)
		cr_skip_test("%s", via_error_format(&err, text, sizeof(text)));
	cr_assert_eq(ret, 0, "%s: %s", err.what, err.seen);
	cr_assert_eq(uffd_enable(fd, 0), 0);
	cr_assert_eq(madvise(region->addr, region->len, MADV_DONTNEED), 0);
	cr_assert_eq(ioctl(fd, UFFDIO_REGISTER, &reg), 0, "%s", strerror(errno));
	return fd;
}

/* The page that somebody waits for, as soon as there is one; -1: @stop_fd is readable. */
static int64_t next_fault(int fd, int stop_fd, struct demo_guest *guest)
{
	const struct via_guest_region *region = demo_guest_source(guest)->region;
	struct pollfd p[] = {{.fd = fd, .events = POLLIN}, {.fd = stop_fd, .events = POLLIN}};
	struct uffd_msg msg;

	for (;;) {
		cr_assert_geq(poll(p, 2, 30000), 1, "nobody touches a page");
		if (p[1].revents)
			return -1;
		if (read(fd, &msg, sizeof(msg)) != sizeof(msg))
			continue;
		cr_assert_eq(msg.event, UFFD_EVENT_PAGEFAULT);
		return (int64_t)((msg.arg.pagefault.address - (uintptr_t)region->addr) / PAGE);
	}
}

/* Serves the pages of one guest out of another's. */
struct pager {
	struct demo_guest *from, *to;
	int fd, stop_fd;
	uint64_t served;
	pthread_t thread;
};

#define FIRST_DELAY_MS 20

static void *serve(void *arg)
{
	struct pager *pager = arg;
	int64_t page;

	while ((page = next_fault(pager->fd, pager->stop_fd, pager->to)) >= 0) {
		struct uffdio_copy copy = {
			.dst = (uintptr_t)page_at(pager->to, (uint64_t)page),
			.src = (uintptr_t)page_at(pager->from, (uint64_t)page),
			.len = PAGE,
		};

		if (!pager->served++)
			poll(NULL, 0, FIRST_DELAY_MS); /* is to be seen in the histogram */
		cr_assert_eq(ioctl(pager->fd, UFFDIO_COPY, &copy), 0, "%s", strerror(errno));
	}
	return NULL;
}

/* Every page comes when it is asked for: all are right, and each wait is measured once. */
Test(demo_guest, waits_for_missing_pages_are_measured)
{
	struct demo_guest *from = new_guest(1000, 3, SPEED), *to = new_destination(from);
	const struct via_destination_guest *d = demo_guest_destination(to);
	struct pager pager = {.from = from, .to = to, .stop_fd = eventfd(0, 0)};
	struct via_hist h;

	demo_guest_fault_hist(to, &h);
	cr_assert_eq(h.count, 0);
	pager.fd = lose_all_pages(to);
	cr_assert_eq(pthread_create(&pager.thread, NULL, serve, &pager), 0);
	move_state(from, to);
	cr_assert_eq(d->run(d->arg, NULL), 0);
	let_run(to, 5000 * PAGE);
	demo_guest_stop(to);
	cr_assert_eq(eventfd_write(pager.stop_fd, 1), 0);
	pthread_join(pager.thread, NULL);
	cr_assert_eq(demo_guest_vcpu_errors(to), 0);

	demo_guest_fault_hist(to, &h);
	/* One that is served before it sleeps has not waited. */
	cr_assert(h.count <= pager.served && h.count >= pager.served * 9 / 10,
		  "%llu measured, %llu served", (unsigned long long)h.count,
		  (unsigned long long)pager.served);
	cr_assert_geq(pager.served, 500);
	cr_assert_geq(h.max, FIRST_DELAY_MS * VIA_NS_PER_MS);
	cr_assert_lt(via_hist_permille(&h, 500), FIRST_DELAY_MS * VIA_NS_PER_MS);
	close(pager.fd); /* what nobody has touched is not missing any more, but zero */
	close(pager.stop_fd);
	demo_guest_free(from);
	demo_guest_free(to);
}

/* A page that is there, or that the kernel makes at once, is not waited for. */
Test(demo_guest, pages_that_are_there_are_not_measured)
{
	struct demo_guest *from = new_guest(1000, 2, SPEED), *to = new_destination(from);
	const struct via_destination_guest *d = demo_guest_destination(to);
	struct via_hist h;

	copy_all(from, to);
	madvise(page_at(to, 750), 250 * PAGE, MADV_DONTNEED); /* zero pages anyway */
	move_state(from, to);
	cr_assert_eq(d->run(d->arg, NULL), 0);
	let_run(to, 5000 * PAGE);
	demo_guest_stop(to);
	check_verify(to, 0, 0, 0);
	demo_guest_fault_hist(to, &h);
	/* A minor fault may sleep for a lock now and then. */
	cr_assert_leq(h.count, 50, "%llu", (unsigned long long)h.count);
	demo_guest_free(from);
	demo_guest_free(to);
}

/* The pages never come: vCPUs that are let go must not take what is there for them. */
Test(demo_guest, abandoned_vcpus_do_not_go_on)
{
	struct demo_guest *from = new_guest(1000, 4, SPEED), *to = new_destination(from);
	const struct via_guest_region *region = demo_guest_source(to)->region;
	const struct via_destination_guest *d = demo_guest_destination(to);
	int fd = lose_all_pages(to);
	uint64_t start;

	move_state(from, to);
	cr_assert_eq(d->run(d->arg, NULL), 0);
	for (unsigned i = 0; i < 4; i++)
		next_fault(fd, -1, to);
	start = via_now_ns();
	d->abandon(d->arg);
	d->abandon(d->arg);
	cr_assert_lt(via_now_ns() - start, 5 * VIA_NS_PER_S, "it waits for them");
	uffd_unregister(fd, region->addr, region->len);
	demo_guest_stop(to);
	cr_assert_eq(demo_guest_bytes_written(to), 0);
	cr_assert_eq(demo_guest_vcpu_errors(to), 0);
	for (uint64_t i = 0; i < region->len; i++)
		cr_assert_eq(((char *)region->addr)[i], 0);
	close(fd);
	demo_guest_free(from);
	demo_guest_free(to);
}

Test(demo_guest, abandoned_before_and_after_it_runs)
{
	struct demo_guest *from = new_guest(16, 2, SPEED), *to = new_destination(from);
	const struct via_destination_guest *d = demo_guest_destination(to);

	d->abandon(d->arg);
	copy_all(from, to);
	move_state(from, to);
	cr_assert_eq(d->run(d->arg, NULL), 0);
	let_run(to, 16 * PAGE);
	d->abandon(d->arg);
	demo_guest_stop(to);
	check_verify(to, 0, 0, 0);
	d->abandon(d->arg);
	demo_guest_free(from);
	demo_guest_free(to);
}
